//! The losses on top of the features: softmax, A-Softmax and its family.
//!
//! All of them compare a feature x with one vector w per class; c = cos(theta) = w.x / (|w| |x|). The
//! products of all features with all vectors have the type of these. Everything else is computed in f64: it
//! is a small part of the work, and the margins amplify rounding errors.
//!
//! | loss | logit of the target class | of the others | source |
//! |---|---|---|---|
//! | softmax | w.x, w of any length | w.x | |
//! | normalised softmax | s c | s c | Wang et al., NormFace, 2017 |
//! | A-Softmax | \|x\| (psi(theta) + lambda c) / (1 + lambda) | w.x | Liu et al., SphereFace, 2017 |
//! | SphereFace-R v1 | s cos(min(m theta, pi)) | s c | Liu et al., SphereFace Revived, 2022 |
//! | SphereFace-R v2 | s c | s cos(theta / m) | |
//! | CosFace | s (c - m) | s c | Wang et al., 2018 |
//! | ArcFace | s cos(theta + m) | s c | Deng et al., 2019 |
//! | SphereFace2 | one binary classifier per class | | Wen et al., 2022 |
//!
//! Except for plain softmax, the class vectors have unit length: the caller normalises them in place before
//! every pass (`normalise_rows`), as the authors do, and their gradient is that of the unnormalised
//! product.
//!
//! A new loss is a variant of [`Loss`] with its logits in `margin` (`own` for the target class, `other`,
//! `fixed_scale`), or with a function beside `cross_entropy` if it is none. Its name and settings are in
//! [`LossKind`](super::config::LossKind) and `Config::loss`.

mod distill;
mod margin;
mod softmax;
#[cfg(test)]
mod tests;

pub use distill::{Distillation, distill};
pub use margin::{Psi, a_softmax_psi};

use std::sync::{Mutex, OnceLock, PoisonError};

use self::softmax::{Softmax, Sums};
use crate::nn::gemm::{Matrix, Number, multiply};
use crate::nn::team::Team;
use crate::nn::{Isa, simd};

/// The gradient of A-Softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Gradient {
    /// The authors' own: for the feature, the two coefficients of the margin's gradient scaled
    /// to unit length; for the class vectors, no margin at all.
    Authors,
    /// The derivative.
    Exact,
}

/// The two forms of SphereFace-R.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The margin shrinks the target class: cos(min(m theta, pi)).
    V1,
    /// The margin enlarges the other classes: cos(theta / m).
    V2,
}

/// The loss to minimise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Cross-entropy of w.x.
    Softmax,
    /// Cross-entropy of s cos(theta).
    NormalisedSoftmax {
        /// Scale.
        s: f64,
    },
    /// The paper's loss; lambda is given with each pass.
    ASoftmax {
        /// Angular margin, 1 to 4.
        m: u32,
        /// The gradient.
        gradient: Gradient,
    },
    /// SphereFace-R.
    SphereFaceR {
        /// The form.
        version: Version,
        /// Angular margin, at least 1.
        m: f64,
        /// The scale of hard feature normalisation; `None` keeps the feature's own length.
        s: Option<f64>,
        /// Characteristic gradient detachment: the value includes the margin, and the gradient is that of
        /// cos(theta).
        detach: bool,
    },
    /// SphereFace2, with the additive margin: for the target class `(alpha / r) log(1 + exp(-r (g(c) - m) -
    /// b))`, for each other `((1 - alpha) / r) log(1 + exp(r (g(c) + m) + b))`, where `g(c) = 2 ((c + 1) /
    /// 2)^t - 1` and b is learned.
    SphereFace2 {
        /// Weight of the target class, between 0 and 1.
        alpha: f64,
        /// Scale.
        r: f64,
        /// Margin.
        m: f64,
        /// Exponent of the similarity.
        t: f64,
    },
    /// Additive cosine margin.
    CosFace {
        /// Scale.
        s: f64,
        /// Margin.
        m: f64,
    },
    /// Additive angular margin; beyond theta + m = pi the logit continues as s (c - m sin m).
    ArcFace {
        /// Scale.
        s: f64,
        /// Margin in radians.
        m: f64,
    },
}

/// A batch of features, and the class vectors with which they are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a, T> {
    /// [samples, size]
    pub(crate) features: &'a [T],
    /// The class of each sample.
    pub(crate) labels: &'a [usize],
    /// [classes, size], rows of unit length except for plain softmax.
    pub(crate) classes: &'a [T],
    /// The learned offset of SphereFace2.
    pub(crate) bias: f64,
    /// The weight of cos(theta) in A-Softmax.
    pub(crate) lambda: f64,
    /// Factor of all gradients.
    pub(crate) weight: f64,
}

/// The value of a loss, summed over the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Value {
    /// The loss.
    pub loss: f64,
    /// Angles between the features and their target classes, in degrees.
    pub angle_deg: f64,
    /// Samples whose target class has the largest cosine.
    pub correct: usize,
}

/// Destinations of the gradients, summed over the samples.
#[derive(Debug)]
pub(crate) struct Gradients<'a, T> {
    /// [samples, size], overwritten.
    pub(crate) features: &'a mut [T],
    /// [samples, classes], overwritten: gradients w.r.t. the products of features and class vectors, for
    /// [`add_class_gradients`]; without the factor.
    pub(crate) products: &'a mut [T],
    /// Added to.
    pub(crate) bias: &'a mut f64,
}

/// Reusable memory of evaluations.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    isa: Isa,
    /// [classes, samples]: products of class vectors and features.
    products: Vec<T>,
    /// [ranges, size, samples]: gradients w.r.t. the features from each range of classes.
    by_feature: Vec<T>,
    /// The logits of a sample, one list per thread, so that no thread waits.
    logits: Vec<Mutex<Logits>>,
}

/// Memory for the logits of a sample: with their derivatives, or alone.
#[derive(Debug, Default)]
struct Logits {
    all: Vec<Logit>,
    values: Vec<f64>,
}

impl<T> Workspace<T> {
    /// Empty memory, for evaluations with the instructions of `isa`.
    pub(crate) fn new(isa: Isa) -> Self {
        Self { isa, products: Vec::new(), by_feature: Vec::new(), logits: Vec::new() }
    }
}

/// Class vectors that are multiplied at a time: together with the features, they fit into a core's cache.
const CLASSES_TOGETHER: usize = 64;

/// Ranges of classes over which the gradients w.r.t. the features are summed separately, one thread per
/// range.
const RANGES: usize = 8;

impl Loss {
    /// Whether class vectors are to be normalised before each pass.
    pub fn normalises_classes(&self) -> bool {
        !matches!(self, Loss::Softmax)
    }

    /// Whether it is the cross-entropy of logits, one per class. Others are sums over the classes, with a learned
    /// offset.
    pub fn is_cross_entropy(&self) -> bool {
        match self {
            Loss::SphereFace2 { .. } => false,
            Loss::Softmax
            | Loss::NormalisedSoftmax { .. }
            | Loss::ASoftmax { .. }
            | Loss::SphereFaceR { .. }
            | Loss::CosFace { .. }
            | Loss::ArcFace { .. } => true,
        }
    }

    /// Initial value of the learned offset, for `classes` classes. For SphereFace2, it balances the gradients
    /// of the target class and of all others at cos(theta) = 0.
    pub fn initial_bias(&self, classes: usize) -> f64 {
        let Loss::SphereFace2 { alpha, r, m, t } = *self else { return 0.0 };
        // alpha / (1 + u exp(own)) = (1 - alpha) (classes - 1) / (1 + exp(-others) / u), u = exp(b)
        let similarity = margin::similarity(0.0, t).value;
        let (own, others) = (r * (similarity - m), r * (similarity + m));
        let z = alpha / ((1.0 - alpha) * (classes.max(2) - 1) as f64);
        let root = ((1.0 - z).powi(2) + 4.0 * z * (own - others).exp()).sqrt();
        (2.0 * z).ln() - others - (1.0 - z + root).ln()
    }

    /// The loss of some samples and its gradients, except those w.r.t. the class vectors, which
    /// [`add_class_gradients`] computes from many samples at a time. Results do not depend on the size of the
    /// team.
    ///
    /// # Panics
    /// When sizes do not fit each other, or a label is not a class.
    pub(crate) fn evaluate<T: Number>(
        &self,
        input: Input<'_, T>,
        gradients: Gradients<'_, T>,
        team: &mut Team,
        workspace: &mut Workspace<T>,
    ) -> Value {
        let samples = input.labels.len();
        let size = input.features.len().checked_div(samples).unwrap_or(1);
        let classes = input.classes.len() / size;
        let (class_matrix, features) =
            (Matrix::new(input.classes, classes, size), Matrix::new(input.features, samples, size));
        let Workspace { isa, products, by_feature, logits } = workspace;
        let by_product = gradients.products;
        assert_eq!(by_product.len(), samples * classes);
        products.resize(classes * samples, T::ZERO);
        team.run_parts(products, CLASSES_TOGETHER * samples, |_, part, products| {
            let first = part * CLASSES_TOGETHER;
            let some = class_matrix.block(first..first + products.len() / samples, 0..size);
            multiply(products, some, features.t(), false, 1);
        });
        logits.resize_with(team.threads(), Mutex::default);
        let rows: Vec<OnceLock<Row>> = (0..samples).map(|_| OnceLock::new()).collect();
        team.run_parts(by_product, classes, |thread, sample, row| {
            for (to, products) in row.iter_mut().zip(products.chunks_exact(samples)) {
                *to = products[sample];
            }
            let mut logits = logits[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let _ = rows[sample].set(self.sample(*isa, &input, sample, row, &mut logits));
        });
        let rows: Vec<Row> = rows.into_iter().filter_map(OnceLock::into_inner).collect();
        let mut value = Value::default();
        for row in &rows {
            value.loss += row.loss;
            value.angle_deg += row.angle_deg;
            value.correct += usize::from(row.correct);
            *gradients.bias += input.weight * row.by_bias;
        }
        by_feature.clear();
        by_feature.resize(RANGES * size * samples, T::ZERO);
        let derivatives = Matrix::new(by_product, samples, classes);
        let range = classes.div_ceil(RANGES);
        team.run_parts(by_feature, size * samples, |_, part, by_feature| {
            let end = classes.min((part + 1) * range);
            for first in (part * range..end).step_by(CLASSES_TOGETHER) {
                let some = first..end.min(first + CLASSES_TOGETHER);
                let vectors = class_matrix.block(some.clone(), 0..size);
                multiply(by_feature, vectors.t(), derivatives.block(0..samples, some).t(), true, 1);
            }
        });
        let features = input.features.chunks_exact(size).zip(&rows);
        for (sample, (to, (feature, row))) in
            gradients.features.chunks_exact_mut(size).zip(features).enumerate()
        {
            for (component, (to, &x)) in to.iter_mut().zip(feature).enumerate() {
                let of_ranges = by_feature.chunks_exact(size * samples);
                let g: f64 = of_ranges.map(|of_range| of_range[component * samples + sample].into()).sum();
                *to = T::from_f64(input.weight * (g + row.by_length * x.into()));
            }
        }
        for ((row, &label), result) in by_product.chunks_exact_mut(classes).zip(input.labels).zip(&rows) {
            row[label] = T::from_f64(result.own_for_classes);
        }
        value
    }

    /// The loss of one sample; `row` holds its products and then the derivatives w.r.t. them.
    fn sample<T: Number>(
        &self,
        isa: Isa,
        input: &Input<'_, T>,
        sample: usize,
        row: &mut [T],
        logits: &mut Logits,
    ) -> Row {
        let label = input.labels[sample];
        let size = input.classes.len() / row.len();
        let (x, w) = (&input.features[sample * size..][..size], &input.classes[label * size..][..size]);
        // The product with the target class, which has the margin, is computed again in f64.
        let own = dot(x, w);
        let x_length = dot(x, x).sqrt().max(f64::MIN_POSITIVE);
        let w_length = match self.normalises_classes() {
            true => 1.0,
            false => dot(w, w).sqrt().max(f64::MIN_POSITIVE),
        };
        let mut result = Row {
            angle_deg: (own / x_length / w_length).clamp(-1.0, 1.0).acos().to_degrees(),
            correct: row.iter().all(|&other| other <= row[label]),
            ..Row::default()
        };
        let target = (label, own);
        match (self.is_cross_entropy(), self.factor_of_others(x_length)) {
            (true, Some(factor)) => {
                let logits = &mut logits.values;
                self.linear_cross_entropy(
                    isa,
                    row,
                    target,
                    (x_length, factor),
                    input.lambda,
                    logits,
                    &mut result,
                );
            }
            (true, None) => {
                self.cross_entropy(row, target, x_length, input.lambda, &mut logits.all, &mut result);
            }
            (false, _) => self.binary(row, target, x_length, input.bias, &mut result),
        }
        result.by_length /= x_length;
        result
    }

    /// Cross-entropy of one sample; `row` holds its products and then the derivatives w.r.t. them, `own` the
    /// product with its target class.
    fn cross_entropy<T: Number>(
        &self,
        row: &mut [T],
        (label, own): (usize, f64),
        length: f64,
        lambda: f64,
        logits: &mut Vec<Logit>,
        result: &mut Row,
    ) {
        logits.clear();
        logits.extend(row.iter().map(|&product| self.other(product.into(), length)));
        logits[label] = self.own(own, length, lambda);
        let most = logits.iter().map(|logit| logit.value).fold(f64::NEG_INFINITY, f64::max);
        let own = logits[label].value - most;
        let mut total = 0.0;
        for logit in logits.iter_mut() {
            logit.value = (logit.value - most).exp();
            total += logit.value;
        }
        for (class, (to, logit)) in row.iter_mut().zip(logits).enumerate() {
            let p = logit.value / total;
            let by_logit = if class == label { p - 1.0 } else { p };
            let by_product = by_logit * logit.by_product;
            *to = T::from_f64(by_product);
            if class == label {
                result.loss = total.ln() - own;
                result.own_for_classes = match self {
                    Loss::ASoftmax { gradient: Gradient::Authors, .. } => by_logit,
                    _ => by_product,
                };
            }
            result.by_length += by_logit * logit.by_length;
        }
    }

    /// [`cross_entropy`](Self::cross_entropy), where the logits of all other classes are their products times a factor.
    fn linear_cross_entropy<T: Number>(
        &self,
        isa: Isa,
        row: &mut [T],
        (label, own): (usize, f64),
        (length, factor): (f64, f64),
        lambda: f64,
        logits: &mut Vec<f64>,
        result: &mut Row,
    ) {
        let own = self.own(own, length, lambda);
        let mut sums = Sums::default();
        simd::run(isa, Softmax { row, logits, factor, own: (label, own.value), result: &mut sums });
        let by_logit = sums.own - 1.0;
        let by_product = by_logit * own.by_product;
        row[label] = T::from_f64(by_product);
        result.loss = sums.loss;
        result.own_for_classes = match self {
            Loss::ASoftmax { gradient: Gradient::Authors, .. } => by_logit,
            _ => by_product,
        };
        // A factor that stands for a fixed length is divided by the feature's own.
        let of_others = if self.fixed_scale().is_some() { -sums.mean_of_others / length } else { 0.0 };
        result.by_length += by_logit * own.by_length + of_others;
    }

    /// SphereFace2 of one sample; as [`cross_entropy`](Self::cross_entropy).
    fn binary<T: Number>(
        &self,
        row: &mut [T],
        (label, own): (usize, f64),
        length: f64,
        bias: f64,
        result: &mut Row,
    ) {
        let Loss::SphereFace2 { alpha, r, m, t } = *self else { unreachable!("asked for by SphereFace2") };
        for (class, to) in row.iter_mut().enumerate() {
            let is_own = class == label;
            let c = if is_own { own } else { (*to).into() } / length;
            let similarity = margin::similarity(c, t);
            let (weight, sign) = if is_own { (alpha, -1.0) } else { (1.0 - alpha, 1.0) };
            let z = sign * (r * (similarity.value + sign * m) + bias);
            let small = (-z.abs()).exp();
            result.loss += weight / r * (z.max(0.0) + small.ln_1p());
            let by_z = weight / r * if z < 0.0 { small } else { 1.0 } / (1.0 + small);
            result.by_bias += by_z * sign;
            let by_cosine = by_z * sign * r * similarity.slope;
            *to = T::from_f64(by_cosine / length);
            result.by_length -= by_cosine * c / length;
            if is_own {
                result.own_for_classes = by_cosine / length;
            }
        }
    }
}

/// The results of a sample's row of products.
#[derive(Debug, Default)]
struct Row {
    loss: f64,
    angle_deg: f64,
    correct: bool,
    /// Derivative w.r.t. the length of the feature, divided by it: the factor of the feature in its gradient.
    by_length: f64,
    by_bias: f64,
    /// Derivative w.r.t. the product with the target class, for the gradient w.r.t. the class vectors.
    own_for_classes: f64,
}

/// The product of two vectors.
fn dot<T: Number>(a: &[T], b: &[T]) -> f64 {
    let product = |(&a, &b): (&T, &T)| -> f64 {
        let (a, b): (f64, f64) = (a.into(), b.into());
        a * b
    };
    a.iter().zip(b).map(product).sum()
}

/// A logit with its derivatives w.r.t. the product w.x and |x|.
#[derive(Debug, Clone, Copy)]
struct Logit {
    value: f64,
    by_product: f64,
    by_length: f64,
}

/// Adds the gradients w.r.t. the class vectors to `to` [classes, size], times a factor, given the
/// features [samples, size] and the gradients w.r.t. the products with them [samples, classes].
///
/// # Panics
/// When sizes do not fit each other.
pub(crate) fn add_class_gradients<T: Number>(
    features: &[T],
    by_product: &[T],
    size: usize,
    weight: f64,
    to: &mut [T],
    team: &mut Team,
) {
    let samples = features.len() / size;
    let classes = to.len() / size;
    let weighted: Vec<T> = features.iter().map(|&x| T::from_f64(weight * x.into())).collect();
    let weighted = Matrix::new(&weighted, samples, size);
    let by_product = Matrix::new(by_product, samples, classes);
    team.run_parts(to, CLASSES_TOGETHER * size, |_, part, to| {
        let first = part * CLASSES_TOGETHER;
        let some = first..first + to.len() / size;
        multiply(to, by_product.block(0..samples, some).t(), weighted, true, 1);
    });
}

/// Divides every row by its length; rows of zeros are unchanged.
pub(crate) fn normalise_rows(matrix: &mut [f32], size: usize, team: &mut Team) {
    let square = |x: f32| f64::from(x) * f64::from(x);
    team.run_parts(matrix, CLASSES_TOGETHER * size, |_, _, rows| {
        for row in rows.chunks_exact_mut(size) {
            // Independent sums, which the CPU adds in parallel.
            let mut sums = [0.0; 8];
            let (eights, rest) = row.as_chunks::<8>();
            for eight in eights {
                sums.iter_mut().zip(eight).for_each(|(sum, &x)| *sum += square(x));
            }
            let rest: f64 = rest.iter().map(|&x| square(x)).sum();
            let length = (sums.iter().sum::<f64>() + rest).sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) * (1.0 / length)) as f32);
            }
        }
    });
}
