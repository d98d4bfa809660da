//! Every loss against finite differences; the authors' gradient against their formula, written
//! once more with angles.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;

const SIZE: usize = 5;
const CLASSES: usize = 7;

/// Unit class vectors.
fn classes(random: &mut Xoshiro256PlusPlus) -> Vec<f64> {
    let mut w: Vec<f64> = (0..CLASSES * SIZE).map(|_| random.random::<f64>() - 0.5).collect();
    for row in w.chunks_exact_mut(SIZE) {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    w
}

/// A feature of that length at that angle (in degrees) to a class vector.
fn at_angle(random: &mut Xoshiro256PlusPlus, w: &[f64], angle_deg: f64, length: f64) -> Vec<f64> {
    let mut other: Vec<f64> = (0..SIZE).map(|_| random.random::<f64>() - 0.5).collect();
    let along: f64 = other.iter().zip(w).map(|(a, b)| a * b).sum();
    other.iter_mut().zip(w).for_each(|(a, b)| *a -= along * b);
    let norm = other.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (sin, cos) = angle_deg.to_radians().sin_cos();
    other.iter().zip(w).map(|(a, b)| length * (cos * b + sin * a / norm)).collect()
}

/// Angles in every quarter of the half circle, off its borders, on both sides of 90 degrees.
const ANGLES_DEG: [f64; 8] = [8.0, 40.0, 50.0, 85.0, 95.0, 130.0, 140.0, 172.0];

struct Case {
    features: Vec<f64>,
    labels: Vec<usize>,
    classes: Vec<f64>,
}

fn case(seed: u64) -> Case {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let classes = classes(&mut random);
    let labels: Vec<usize> = (0..ANGLES_DEG.len()).map(|i| i * 3 % CLASSES).collect();
    let features = labels
        .iter()
        .zip(ANGLES_DEG)
        .flat_map(|(&label, angle)| {
            let length = 1.0 + 3.0 * random.random::<f64>();
            at_angle(&mut random, &classes[label * SIZE..][..SIZE], angle, length)
        })
        .collect();
    Case { features, labels, classes }
}

impl Case {
    fn evaluate(&self, loss: Loss, lambda: f64, bias: f64) -> (Value, Vec<f64>, Vec<f64>, f64) {
        let (mut features, mut classes) = (vec![0.0; self.features.len()], vec![0.0; self.classes.len()]);
        let mut by_bias = 0.0;
        let Self { features: x, labels, classes: w } = self;
        let input = Input { features: x, labels, classes: w, bias, lambda, weight: 1.0 };
        let mut products = vec![0.0; labels.len() * CLASSES];
        let gradients = Gradients { features: &mut features, products: &mut products, bias: &mut by_bias };
        let mut team = Team::new(1);
        let value = loss.evaluate(input, gradients, &mut team, &mut Workspace::new(Isa::best()));
        add_class_gradients(x, &products, SIZE, 1.0, &mut classes, &mut team);
        (value, features, classes, by_bias)
    }

    fn value(&self, loss: Loss, lambda: f64, bias: f64) -> f64 {
        self.evaluate(loss, lambda, bias).0.loss
    }
}

fn assert_near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{what}: {found} for {expected}");
}

/// Central differences of the loss w.r.t. every feature, every class vector and the bias.
fn check(loss: Loss, lambda: f64) {
    let (step, bias) = (1e-5, 0.3);
    let mut case = case(3);
    if loss == Loss::Softmax {
        case.classes.iter_mut().for_each(|w| *w *= 1.7);
    }
    let (_, features, classes, by_bias) = case.evaluate(loss, lambda, bias);
    let difference = |case: &mut Case, of: fn(&mut Case) -> &mut Vec<f64>, i: usize| {
        let here = of(case)[i];
        of(case)[i] = here + step;
        let above = case.value(loss, lambda, bias);
        of(case)[i] = here - step;
        let below = case.value(loss, lambda, bias);
        of(case)[i] = here;
        (above - below) / (2.0 * step)
    };
    for (i, &found) in features.iter().enumerate() {
        let expected = difference(&mut case, |case| &mut case.features, i);
        assert_near(found, expected, &format!("{loss:?} feature {i}"));
    }
    for (i, &found) in classes.iter().enumerate() {
        let expected = difference(&mut case, |case| &mut case.classes, i);
        assert_near(found, expected, &format!("{loss:?} class {i}"));
    }
    let expected =
        (case.value(loss, lambda, bias + step) - case.value(loss, lambda, bias - step)) / (2.0 * step);
    assert_near(by_bias, expected, &format!("{loss:?} bias"));
}

#[test]
fn softmax_and_the_additive_margins_have_the_derivative() {
    check(Loss::Softmax, 0.0);
    check(Loss::NormalisedSoftmax { s: 16.0 }, 0.0);
    check(Loss::CosFace { s: 12.0, m: 0.35 }, 0.0);
    check(Loss::ArcFace { s: 12.0, m: 0.5 }, 0.0);
}

#[test]
fn the_exact_a_softmax_has_the_derivative() {
    for m in 1..=4 {
        for lambda in [0.0, 5.0, 892.86] {
            check(Loss::ASoftmax { m, gradient: Gradient::Exact }, lambda);
        }
    }
}

#[test]
fn sphereface_r_without_detachment_and_sphereface2_have_the_derivative() {
    for version in [Version::V1, Version::V2] {
        for s in [None, Some(8.0)] {
            check(Loss::SphereFaceR { version, m: 1.5, s, detach: false }, 0.0);
        }
    }
    check(Loss::SphereFace2 { alpha: 0.7, r: 10.0, m: 0.4, t: 3.0 }, 0.0);
}

/// Detachment: the value has the margin; the gradient is that of the cross-entropy of s (cos theta + d) with
/// a constant d.
#[test]
fn detachment_keeps_the_value_and_takes_the_gradient_of_the_cosine() {
    for version in [Version::V1, Version::V2] {
        for s in [None, Some(8.0)] {
            let with = |detach| Loss::SphereFaceR { version, m: 1.7, s, detach };
            let case = case(5);
            let (value, features, classes, _) = case.evaluate(with(true), 0.0, 0.0);
            assert_eq!(value, case.evaluate(with(false), 0.0, 0.0).0);
            // The fixed d of every pair, from angles.
            let cosine = |case: &Case, i: usize, j: usize| {
                let x = &case.features[i * SIZE..][..SIZE];
                let w = &case.classes[j * SIZE..][..SIZE];
                let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                (x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() / length, length)
            };
            let mut d = vec![[0.0; CLASSES]; case.labels.len()];
            for (i, &label) in case.labels.iter().enumerate() {
                for j in 0..CLASSES {
                    let c = cosine(&case, i, j).0;
                    let theta = c.acos();
                    let shifted = match (version, j == label) {
                        (Version::V1, true) => (1.7 * theta).min(std::f64::consts::PI).cos(),
                        (Version::V2, false) => (theta / 1.7).cos(),
                        _ => c,
                    };
                    d[i][j] = shifted - c;
                }
            }
            let total = |case: &Case| {
                let mut sum = 0.0;
                for (i, &label) in case.labels.iter().enumerate() {
                    let logits: Vec<f64> = (0..CLASSES)
                        .map(|j| {
                            let (c, length) = cosine(case, i, j);
                            s.unwrap_or(length) * (c + d[i][j])
                        })
                        .collect();
                    sum += logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[label];
                }
                sum
            };
            assert_near(value.loss, total(&case), "value");
            let step = 1e-5;
            let mut moved = Case {
                features: case.features.clone(),
                labels: case.labels.clone(),
                classes: case.classes.clone(),
            };
            for (i, &found) in features.iter().enumerate() {
                moved.features[i] += step;
                let above = total(&moved);
                moved.features[i] -= 2.0 * step;
                let below = total(&moved);
                moved.features[i] = case.features[i];
                assert_near(found, (above - below) / (2.0 * step), &format!("{version:?} {s:?} feature {i}"));
            }
            for (i, &found) in classes.iter().enumerate() {
                moved.classes[i] += step;
                let above = total(&moved);
                moved.classes[i] -= 2.0 * step;
                let below = total(&moved);
                moved.classes[i] = case.classes[i];
                assert_near(found, (above - below) / (2.0 * step), &format!("{version:?} {s:?} class {i}"));
            }
        }
    }
}

/// psi by its definition, with an arc cosine.
fn psi_by_definition(m: u32, theta: f64) -> f64 {
    let m = f64::from(m);
    let k = (m * theta / std::f64::consts::PI).floor().min(m - 1.0);
    (if k % 2.0 == 0.0 { 1.0 } else { -1.0 }) * (m * theta).cos() - 2.0 * k
}

#[test]
fn psi_is_its_definition_in_every_branch_and_falls_with_the_angle() {
    for m in 1..=4 {
        let mut last = f64::INFINITY;
        for step in 0..=1800 {
            let theta = f64::from(step).to_radians() / 10.0;
            let psi = a_softmax_psi(m, theta.cos()).value;
            assert_near(psi, psi_by_definition(m, theta), &format!("m {m} theta {theta}"));
            assert!(psi <= last + 1e-12, "m {m} theta {theta}");
            last = psi;
        }
    }
}

/// The authors' forward and backward pass for m = 4, sample by sample, as their layer states it:
/// the polynomial's coefficients by k and not by signs.
#[test]
fn the_authors_gradient_agrees_with_their_formula_in_every_branch() {
    for lambda in [5.0, 892.857_142_857] {
        let case = case(11);
        let loss = Loss::ASoftmax { m: 4, gradient: Gradient::Authors };
        let (value, features, classes, _) = case.evaluate(loss, lambda, 0.0);
        let mut branches = [0; 4];
        let mut expected_loss = 0.0;
        let mut expected_classes = vec![0.0; CLASSES * SIZE];
        for (i, &label) in case.labels.iter().enumerate() {
            let x = &case.features[i * SIZE..][..SIZE];
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let dot = |j: usize| -> f64 {
                case.classes[j * SIZE..][..SIZE].iter().zip(x).map(|(w, x)| w * x).sum()
            };
            let c = dot(label) / length;
            let k = (4.0 * c.acos() / std::f64::consts::PI).floor();
            branches[k as usize] += 1;
            let sign = if k % 2.0 == 0.0 { 1.0 } else { -1.0 };
            let psi = sign * (4.0 * c.acos()).cos() - 2.0 * k;
            let mut logits: Vec<f64> = (0..CLASSES).map(dot).collect();
            logits[label] = length * (psi + lambda * c) / (1.0 + lambda);
            let total: f64 = logits.iter().map(|z| z.exp()).sum();
            expected_loss += total.ln() - logits[label];
            let cw = sign * (32.0 * c.powi(3) - 16.0 * c);
            // s4 = -2k
            let cx = -(sign * (24.0 * c.powi(4) - 8.0 * c * c - 1.0) + 2.0 * k) / length;
            let norm = (cw * cw + cx * cx).sqrt();
            let mut gradient = [0.0; SIZE];
            for j in 0..CLASSES {
                let g = logits[j].exp() / total - f64::from(u8::from(j == label));
                let w = &case.classes[j * SIZE..][..SIZE];
                for d in 0..SIZE {
                    gradient[d] += if j == label {
                        g * ((cw / norm * w[d] + cx / norm * x[d]) / (1.0 + lambda)
                            + lambda / (1.0 + lambda) * w[d])
                    } else {
                        g * w[d]
                    };
                    expected_classes[j * SIZE + d] += g * x[d];
                }
            }
            for d in 0..SIZE {
                assert_near(
                    features[i * SIZE + d],
                    gradient[d],
                    &format!("sample {i} (k = {k}) feature {d}"),
                );
            }
        }
        assert_eq!(branches, [2, 2, 2, 2], "both signs of the cosine, every k");
        assert_near(value.loss, expected_loss, "loss");
        for (i, (found, expected)) in classes.iter().zip(expected_classes).enumerate() {
            assert_near(*found, expected, &format!("class {i}"));
        }
    }
}

#[test]
fn the_first_bias_of_sphereface2_balances_the_pulls() {
    let loss = Loss::SphereFace2 { alpha: 0.7, r: 40.0, m: 0.4, t: 3.0 };
    let bias = loss.initial_bias(1000);
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let similarity = 2.0 * 0.5f64.powi(3) - 1.0;
    let own = 0.7 * sigmoid(-(40.0 * (similarity - 0.4) + bias));
    let others = 0.3 * 999.0 * sigmoid(40.0 * (similarity + 0.4) + bias);
    assert!((own / others - 1.0).abs() < 1e-9, "{own} {others}");
    assert_eq!(Loss::Softmax.initial_bias(10), 0.0);
}

#[test]
fn a_feature_on_its_class_is_counted_and_has_no_angle() {
    let mut case = case(1);
    case.features = case.labels.iter().flat_map(|&j| case.classes[j * SIZE..][..SIZE].to_vec()).collect();
    let value = case.evaluate(Loss::CosFace { s: 64.0, m: 0.35 }, 0.0, 0.0).0;
    assert_eq!(value.correct, case.labels.len());
    assert!(value.angle_deg < 1e-4);
}

#[test]
fn distillation_has_the_derivative() {
    let case = case(2);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(8);
    let projection: Vec<f64> = (0..3 * SIZE).map(|_| random.random::<f64>() - 0.5).collect();
    let unit = |size: usize, random: &mut Xoshiro256PlusPlus| -> Vec<f64> {
        (0..case.labels.len())
            .flat_map(|_| {
                let t: Vec<f64> = (0..size).map(|_| random.random::<f64>() - 0.5).collect();
                let length = t.iter().map(|x| x * x).sum::<f64>().sqrt();
                t.into_iter().map(move |x| x / length)
            })
            .collect()
    };
    for with_projection in [true, false] {
        let target_size = if with_projection { 3 } else { SIZE };
        let targets = unit(target_size, &mut random);
        let run = |features: &[f64], p: &[f64]| {
            let (mut by_feature, mut by_projection) = (vec![0.0; features.len()], vec![0.0; p.len()]);
            let input = Distillation {
                features,
                targets: &targets,
                projection: with_projection.then_some(p),
                target_size,
                weight: 1.5,
                threads: 1,
            };
            let loss = distill(input, &mut by_feature, &mut by_projection);
            (loss, by_feature, by_projection)
        };
        let (_, by_feature, by_projection) = run(&case.features, &projection);
        let step = 1e-5;
        for i in 0..case.features.len() {
            let moved = |by: f64| {
                let mut features = case.features.clone();
                features[i] += by;
                run(&features, &projection).0
            };
            assert_near(by_feature[i], (moved(step) - moved(-step)) / (2.0 * step), "feature");
        }
        for i in 0..projection.len() {
            let moved = |by: f64| {
                let mut p = projection.clone();
                p[i] += by;
                run(&case.features, &p).0
            };
            assert_near(by_projection[i], (moved(step) - moved(-step)) / (2.0 * step), "projection");
        }
    }
}

/// More classes than are multiplied at a time, in f32 with any number of threads: the results of f64 except
/// for rounding, times the factor.
#[test]
fn many_classes_in_single_precision_have_the_numbers_of_double_precision() {
    let (size, classes, samples) = (73, RANGES * CLASSES_TOGETHER + 5, 19);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
    let mut numbers =
        |count: usize| -> Vec<f32> { (0..count).map(|_| 2.0 * random.random::<f32>() - 1.0).collect() };
    let (features, mut vectors) = (numbers(samples * size), numbers(classes * size));
    normalise_rows(&mut vectors, size, &mut Team::new(2));
    for row in vectors.chunks_exact(size) {
        assert!((dot(row, row) - 1.0).abs() < 1e-6);
    }
    let labels: Vec<usize> = (0..samples).map(|i| i * 83 % classes).collect();
    let wide = |list: &[f32]| -> Vec<f64> { list.iter().map(|&x| f64::from(x)).collect() };
    let (wide_features, wide_vectors) = (wide(&features), wide(&vectors));
    for loss in [
        Loss::Softmax,
        Loss::ASoftmax { m: 4, gradient: Gradient::Authors },
        Loss::SphereFaceR { version: Version::V2, m: 1.5, s: Some(30.0), detach: false },
        Loss::ArcFace { s: 64.0, m: 0.5 },
        Loss::SphereFace2 { alpha: 0.7, r: 40.0, m: 0.4, t: 3.0 },
    ] {
        let (bias, lambda) = (-3.0, 5.0);
        let (mut by_feature, mut by_class) = (vec![0.0; features.len()], vec![0.0; vectors.len()]);
        let (mut products, mut by_bias) = (vec![0.0; samples * classes], 0.0);
        let input = Input {
            features: &wide_features,
            labels: &labels,
            classes: &wide_vectors,
            bias,
            lambda,
            weight: 0.5,
        };
        let gradients = Gradients { features: &mut by_feature, products: &mut products, bias: &mut by_bias };
        let mut team = Team::new(1);
        let expected = loss.evaluate(input, gradients, &mut team, &mut Workspace::new(Isa::best()));
        add_class_gradients(&wide_features, &products, size, 0.5, &mut by_class, &mut team);
        let near = |found: &[f32], expected: &[f64], what: &str| {
            let most = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            for (&a, b) in found.iter().zip(expected) {
                assert!((f64::from(a) - b).abs() < 2e-5 * most, "{loss:?} {what}: {a} for {b} of {most}");
            }
        };
        let mut results = Vec::new();
        for threads in [1, 3] {
            let (mut team, mut workspace) = (Team::new(threads), Workspace::new(Isa::best()));
            // Data left from an evaluation of more samples must not matter.
            for labels in [&[labels.as_slice(), &labels].concat(), &labels] {
                let features = features.repeat(labels.len() / samples);
                let (mut found_features, mut found_classes) =
                    (vec![7.0; features.len()], vec![0.0; vectors.len()]);
                let (mut products, mut found_bias) = (vec![7.0; labels.len() * classes], 0.0);
                let input =
                    Input { features: &features, labels, classes: &vectors, bias, lambda, weight: 0.5 };
                let gradients = Gradients {
                    features: &mut found_features,
                    products: &mut products,
                    bias: &mut found_bias,
                };
                let value = loss.evaluate(input, gradients, &mut team, &mut workspace);
                add_class_gradients(&features, &products, size, 0.5, &mut found_classes, &mut team);
                if labels.len() == samples {
                    assert!((value.loss - expected.loss).abs() < 1e-6 * expected.loss, "{loss:?}");
                    assert!((value.angle_deg - expected.angle_deg).abs() < 1e-6 * expected.angle_deg);
                    assert_eq!(value.correct, expected.correct);
                    assert!((found_bias - by_bias).abs() <= 1e-5 * by_bias.abs());
                    near(&found_features, &by_feature, "features");
                    near(&found_classes, &by_class, "classes");
                    results.push((value, found_features, found_classes, found_bias));
                }
            }
        }
        assert!(results[0] == results[1], "{loss:?}: the number of threads shows");
    }
}
