//! Verification: do two images show the same person? The protocol of LFW in the form of the authors of
//! SphereFace.
//!
//! - The feature of an image is that of its crop concatenated with that of the crop's mirror image.
//! - For each fold, the mean feature of the other folds' images (each as often as a pair uses it) is
//!   subtracted from every feature; the score of a pair is the cosine of the remaining vectors.
//! - The threshold is the one of the 20,001 values -1, -0.9999, ..., 1 that is right most often on the other
//!   folds, or the mean of several such values. Comparisons are strict: a score equal to the threshold is
//!   wrong in either case.
//! - The accuracy is the mean of that of the folds.
//!
//! The curve (ROC), its operating points and the equal error rate are taken over the pairs of
//! all folds, each scored as in its own fold.

use serde::Serialize;

use super::EvalError;
use super::roc::Roc;

/// Steps of the threshold on either side of 0.
const THRESHOLD_STEPS: i32 = 10_000;

/// Two images, as indices into a list of features, and whether they show the same person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// One image.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// Whether they show the same person.
    pub same: bool,
    /// The fold it belongs to, from 0.
    pub fold: usize,
}

/// The result of one fold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fold {
    /// Pairs in it.
    pub pairs: usize,
    /// The threshold chosen on the other folds, a cosine.
    pub threshold: f64,
    /// Share of its pairs that were decided correctly.
    pub accuracy: f64,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Pairs of the same person.
    pub same: usize,
    /// Pairs of different people.
    pub different: usize,
    /// Mean accuracy of the folds.
    pub accuracy: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Each fold.
    pub folds: Vec<Fold>,
    /// The threshold that is best on all pairs, each scored in its fold, and its accuracy there: measured on
    /// the pairs it was chosen on, so slightly too good.
    pub best: Fold,
    /// Every pair, scored in its fold.
    #[serde(skip)]
    pub roc: Roc,
}

/// Runs the protocol on features (one per image, all of one size).
///
/// # Errors
/// When there are fewer than two folds, a fold without pairs, no pairs of a kind, a pair that names no image,
/// or a feature that has no direction after the mean is subtracted.
pub fn verify(features: &[Vec<f32>], pairs: &[Pair]) -> Result<Verification, EvalError> {
    let size = features.first().map_or(0, Vec::len);
    if let Some(index) = features.iter().position(|f| f.len() != size) {
        return Err(EvalError::Feature { image: format!("image {index}"), cause: "its size differs" });
    }
    let count = features.len();
    if pairs.iter().any(|p| p.first >= count || p.second >= count) {
        return Err(EvalError::TooLittle(
            "a pair names an image without a feature: give one feature per image".into(),
        ));
    }
    let used = |fold: usize| pairs.iter().filter(move |p| p.fold != fold).flat_map(|p| [p.first, p.second]);
    cross_validate(pairs, |fold| {
        let mut mean = vec![0.0f64; size];
        let mut images = 0.0;
        for feature in used(fold).filter_map(|i| features.get(i)) {
            mean.iter_mut().zip(feature).for_each(|(m, &x)| *m += f64::from(x));
            images += 1.0;
        }
        mean.iter_mut().for_each(|m| *m /= images);
        let centred: Vec<Vec<f64>> = features
            .iter()
            .map(|feature| {
                let mut centred: Vec<f64> =
                    feature.iter().zip(&mean).map(|(&x, m)| f64::from(x) - m).collect();
                let norm = centred.iter().map(|x| x * x).sum::<f64>().sqrt();
                centred.iter_mut().for_each(|x| *x /= norm);
                centred
            })
            .collect();
        let cosine = |pair: &Pair| match (centred.get(pair.first), centred.get(pair.second)) {
            (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| a * b).sum(),
            _ => f64::NAN,
        };
        pairs.iter().map(cosine).collect()
    })
}

/// The protocol on scores: `scores(fold)` returns those of all pairs, in order, for a fold (they differ by
/// the subtracted mean).
///
/// # Errors
/// As [`verify`].
pub fn cross_validate(
    pairs: &[Pair],
    mut scores: impl FnMut(usize) -> Vec<f64>,
) -> Result<Verification, EvalError> {
    let folds = pairs.iter().map(|p| p.fold + 1).max().unwrap_or(0);
    let same = pairs.iter().filter(|p| p.same).count();
    if folds < 2 || same == 0 || same == pairs.len() {
        return Err(EvalError::TooLittle(format!(
            "{same} pairs of the same person and {} of different people in {folds} folds cannot be cross-validated: both kinds and at least two folds are needed",
            pairs.len() - same
        )));
    }
    let mut results = Vec::with_capacity(folds);
    let mut pooled = Vec::with_capacity(pairs.len());
    for fold in 0..folds {
        let scores = scores(fold);
        if scores.len() != pairs.len() || scores.iter().any(|s| !s.is_finite()) {
            return Err(EvalError::Feature { image: "an image".into(), cause: "it is a zero vector" });
        }
        let (test, training): (Vec<_>, Vec<_>) =
            pairs.iter().map(|p| p.same).zip(scores).zip(pairs).partition(|(_, p)| p.fold == fold);
        let [test, training] = [test, training].map(|set| Scored::new(set.into_iter().map(|(s, _)| s)));
        if test.len() == 0 {
            return Err(EvalError::TooLittle(format!("fold {fold} has no pairs: number folds without gaps")));
        }
        let threshold = training.best_threshold();
        let accuracy = test.right(threshold) as f64 / test.len() as f64;
        results.push(Fold { pairs: test.len(), threshold, accuracy });
        pooled.extend(test.into_scores());
    }
    let all = Scored::new(pooled.iter().copied());
    let threshold = all.best_threshold();
    let best = Fold { pairs: all.len(), threshold, accuracy: all.right(threshold) as f64 / all.len() as f64 };
    let count = results.len() as f64;
    let accuracy = results.iter().map(|f| f.accuracy).sum::<f64>() / count;
    let variance = results.iter().map(|f| (f.accuracy - accuracy).powi(2)).sum::<f64>() / (count - 1.0);
    Ok(Verification {
        same,
        different: pairs.len() - same,
        accuracy,
        standard_error: (variance / count).sqrt(),
        folds: results,
        best,
        roc: Roc::new(pooled),
    })
}

/// Scores of pairs, sorted, by kind.
struct Scored {
    same: Vec<f64>,
    different: Vec<f64>,
}

impl Scored {
    fn new(pairs: impl Iterator<Item = (bool, f64)>) -> Self {
        let (mut same, mut different) = (Vec::new(), Vec::new());
        pairs.for_each(|(is_same, score)| if is_same { &mut same } else { &mut different }.push(score));
        same.sort_unstable_by(f64::total_cmp);
        different.sort_unstable_by(f64::total_cmp);
        Self { same, different }
    }

    fn len(&self) -> usize {
        self.same.len() + self.different.len()
    }

    /// Pairs on the right side of a threshold.
    fn right(&self, threshold: f64) -> usize {
        let above = self.same.len() - self.same.partition_point(|&s| s <= threshold);
        above + self.different.partition_point(|&s| s < threshold)
    }

    fn best_threshold(&self) -> f64 {
        // Integer steps are summed, so that the mean is exact.
        let (mut best, mut sum, mut count) = (0, 0, 0);
        for step in -THRESHOLD_STEPS..=THRESHOLD_STEPS {
            let right = self.right(f64::from(step) / f64::from(THRESHOLD_STEPS));
            if right > best {
                (best, sum, count) = (right, 0, 0);
            }
            if right == best {
                sum += i64::from(step);
                count += 1;
            }
        }
        sum as f64 / (count * i64::from(THRESHOLD_STEPS)) as f64
    }

    fn into_scores(self) -> impl Iterator<Item = (bool, f64)> {
        let same = self.same.into_iter().map(|s| (true, s));
        same.chain(self.different.into_iter().map(|s| (false, s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator whose numbers do not depend on the version of a library.
    struct Lcg(u64);

    impl Lcg {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        }
    }

    /// The authors' script, loop by loop, without any of the shortcuts above.
    fn by_the_letter(features: &[Vec<f32>], pairs: &[Pair], folds: usize) -> Vec<(f64, f64)> {
        let accuracy = |scored: &[(f64, bool)], threshold: f64| {
            let right = scored.iter().filter(|&&(s, same)| if same { s > threshold } else { s < threshold });
            right.count() as f64 / scored.len() as f64
        };
        let mut results = Vec::new();
        for fold in 0..folds {
            let mut stacked = Vec::new();
            for pair in pairs.iter().filter(|p| p.fold != fold) {
                stacked.push(&features[pair.first]);
                stacked.push(&features[pair.second]);
            }
            let mu: Vec<f64> = (0..features[0].len())
                .map(|i| stacked.iter().map(|f| f64::from(f[i])).sum::<f64>() / stacked.len() as f64)
                .collect();
            let unit = |f: &Vec<f32>| {
                let f: Vec<f64> = f.iter().zip(&mu).map(|(&x, m)| f64::from(x) - m).collect();
                let norm = f.iter().map(|x| x.powi(2)).sum::<f64>().sqrt();
                f.into_iter().map(|x| x / norm).collect::<Vec<_>>()
            };
            let score = |p: &&Pair| {
                let (a, b) = (unit(&features[p.first]), unit(&features[p.second]));
                (a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>(), p.same)
            };
            let training: Vec<_> = pairs.iter().filter(|p| p.fold != fold).map(|p| score(&p)).collect();
            let test: Vec<_> = pairs.iter().filter(|p| p.fold == fold).map(|p| score(&p)).collect();
            let all: Vec<(f64, f64)> = (-10_000..=10_000)
                .map(|i| f64::from(i) / 10_000.0)
                .map(|t| (t, accuracy(&training, t)))
                .collect();
            let best = all.iter().map(|a| a.1).fold(0.0, f64::max);
            let maximisers: Vec<f64> = all.iter().filter(|a| a.1 == best).map(|a| a.0).collect();
            let threshold = maximisers.iter().sum::<f64>() / maximisers.len() as f64;
            results.push((threshold, accuracy(&test, threshold)));
        }
        results
    }

    #[test]
    fn it_agrees_with_the_protocol_taken_by_the_letter() {
        let mut random = Lcg(7);
        let people: Vec<Vec<f64>> = (0..12).map(|_| (0..8).map(|_| random.next()).collect()).collect();
        let features: Vec<Vec<f32>> = (0..48)
            .map(|i| people[i % 12].iter().map(|x| (x + 0.9 * random.next() + 0.3) as f32).collect())
            .collect();
        let pairs: Vec<Pair> = (0..120)
            .map(|i| {
                let (first, same) = (i * 7 % 48, i % 2 == 0);
                let second = (first + if same { 12 } else { 5 }) % 48;
                Pair { first, second, same, fold: i / 2 % 5 }
            })
            .collect();
        let result = verify(&features, &pairs).unwrap();
        for (fold, (threshold, accuracy)) in result.folds.iter().zip(by_the_letter(&features, &pairs, 5)) {
            assert!((fold.threshold - threshold).abs() < 1e-9, "{fold:?} {threshold}");
            assert_eq!(fold.accuracy, accuracy);
        }
        assert!(result.accuracy > 0.6 && result.accuracy < 1.0, "neither trivial nor chance: {result:?}");
    }

    #[test]
    fn a_score_on_the_threshold_is_wrong_and_maximisers_are_averaged() {
        let scored = Scored::new([(true, 0.5), (false, 0.3), (false, 0.5)].into_iter());
        assert_eq!(scored.right(0.5), 1, "0.5 is neither above nor below 0.5");
        let separable = Scored::new([(true, 0.5), (false, 0.3)].into_iter());
        assert!((separable.best_threshold() - 0.4).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_validated_is_refused() {
        let pair = |same, fold| Pair { first: 0, second: 1, same, fold };
        let features = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        for pairs in [
            vec![],
            vec![pair(true, 0), pair(false, 0)],
            vec![pair(true, 0), pair(true, 1)],
            vec![pair(true, 0), pair(false, 2)],
            vec![pair(true, 0), Pair { second: 2, ..pair(false, 1) }],
        ] {
            assert!(verify(&features, &pairs).is_err(), "{pairs:?}");
        }
        let zero = vec![vec![0.0, 0.0]; 2];
        assert!(verify(&zero, &[pair(true, 0), pair(false, 1)]).is_err());
    }
}
