//! The losses on top of the features: softmax, A-Softmax and its family.
//!
//! All of them compare a feature x with one vector w of each class; c = cos(theta) =
//! w.x / (|w| |x|). Everything is computed in f64: it is a small part of the work, and the
//! margins amplify rounding.
//!
//! | loss | logit of the own class | of the others | source |
//! |---|---|---|---|
//! | softmax | w.x, w of any length | w.x | |
//! | normalised softmax | s c | s c | Wang et al., NormFace, 2017 |
//! | A-Softmax | \|x\| (psi(theta) + lambda c) / (1 + lambda) | w.x | Liu et al., SphereFace, 2017 |
//! | SphereFace-R v1 | s cos(min(m theta, pi)) | s c | Liu et al., SphereFace Revived, 2022 |
//! | SphereFace-R v2 | s c | s cos(theta / m) | |
//! | CosFace | s (c - m) | s c | Wang et al., 2018 |
//! | ArcFace | s cos(theta + m) | s c | Deng et al., 2019 |
//! | SphereFace2 | one binary classifier a class | | Wen et al., 2022 |
//!
//! But for plain softmax the class vectors have unit length: whoever trains normalises them in
//! place before every pass ([`normalise_rows`]), as the authors do, and their gradient is that
//! of the unnormalised product.

mod distill;
mod margin;
#[cfg(test)]
mod tests;

pub use distill::{Distillation, distill};
pub use margin::{Psi, a_softmax_psi};

use crate::nn::gemm::{Matrix, multiply};

/// Which gradient A-Softmax takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Gradient {
    /// The authors' own: for the feature, the two coefficients of the margin's gradient scaled
    /// to unit length; for the class vectors, no margin at all.
    Authors,
    /// The derivative.
    Exact,
}

/// Which of the two forms of SphereFace-R.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The margin shrinks the own class: cos(min(m theta, pi)).
    V1,
    /// The margin grows the others: cos(theta / m).
    V2,
}

/// What is minimised.
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
        /// Which gradient.
        gradient: Gradient,
    },
    /// SphereFace-R.
    SphereFaceR {
        /// Which form.
        version: Version,
        /// Angular margin, at least 1.
        m: f64,
        /// The scale of hard feature normalisation; `None` keeps the feature's own length.
        s: Option<f64>,
        /// Characteristic gradient detachment: the margin counts in the value, and the gradient
        /// is that of cos(theta).
        detach: bool,
    },
    /// SphereFace2, with the additive margin: for the own class
    /// `(alpha / r) log(1 + exp(-r (g(c) - m) - b))`, for each other
    /// `((1 - alpha) / r) log(1 + exp(r (g(c) + m) + b))`, where `g(c) = 2 ((c + 1) / 2)^t - 1`
    /// and b is learned.
    SphereFace2 {
        /// Weight of the own class, between 0 and 1.
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
    /// Additive angular margin; beyond theta + m = pi the logit goes on as s (c - m sin m).
    ArcFace {
        /// Scale.
        s: f64,
        /// Margin in radians.
        m: f64,
    },
}

/// Some features and what they are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// [samples, size]
    pub features: &'a [f64],
    /// The class of each sample.
    pub labels: &'a [usize],
    /// [classes, size], rows of unit length but for plain softmax.
    pub classes: &'a [f64],
    /// The learned offset of SphereFace2.
    pub bias: f64,
    /// The weight of cos(theta) in A-Softmax.
    pub lambda: f64,
    /// Threads for the matrix products.
    pub threads: usize,
}

/// The value of a loss, summed over the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Value {
    /// The loss.
    pub loss: f64,
    /// Angles between the features and their own classes, in degrees.
    pub angle_deg: f64,
    /// Samples whose own class has the largest cosine.
    pub correct: usize,
}

/// Where gradients go, summed over the samples.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// [samples, size], overwritten.
    pub features: &'a mut [f64],
    /// [classes, size], added to.
    pub classes: &'a mut [f64],
    /// Added to.
    pub bias: &'a mut f64,
}

impl Loss {
    /// Whether class vectors are to be normalised before each pass.
    pub fn normalises_classes(&self) -> bool {
        !matches!(self, Loss::Softmax)
    }

    /// Where the learned offset starts, for `classes` classes: for SphereFace2, where the own
    /// class and all others pull equally at cos(theta) = 0.
    pub fn initial_bias(&self, classes: usize) -> f64 {
        let Loss::SphereFace2 { alpha, r, m, t } = *self else { return 0.0 };
        // alpha / (1 + u exp(own)) = (1 - alpha) (classes - 1) / (1 + exp(-others) / u), u = exp(b)
        let similarity = margin::similarity(0.0, t).value;
        let (own, others) = (r * (similarity - m), r * (similarity + m));
        let z = alpha / ((1.0 - alpha) * (classes.max(2) - 1) as f64);
        let root = ((1.0 - z).powi(2) + 4.0 * z * (own - others).exp()).sqrt();
        (2.0 * z).ln() - others - (1.0 - z + root).ln()
    }

    /// The loss of some samples and its gradients.
    ///
    /// # Panics
    /// When sizes do not fit each other, or a label is no class.
    pub fn evaluate(&self, input: Input<'_>, gradients: Gradients<'_>) -> Value {
        let samples = input.labels.len();
        let size = input.features.len().checked_div(samples).unwrap_or(1);
        let classes = input.classes.len() / size;
        let class_matrix = Matrix::new(input.classes, classes, size);
        let features = Matrix::new(input.features, samples, size);
        let mut products = vec![0.0; samples * classes];
        multiply(&mut products, features, class_matrix.t(), false, input.threads);
        let mut value = Value::default();
        // From here on a row of `products` becomes the derivatives of the loss by its products.
        let mut by_length = Vec::with_capacity(samples);
        let mut own_class_for_classes = Vec::with_capacity(samples);
        for ((feature, &label), row) in
            input.features.chunks_exact(size).zip(input.labels).zip(products.chunks_exact_mut(classes))
        {
            let length = feature.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            let own = row[label];
            let class_length = if self.normalises_classes() {
                1.0
            } else {
                let class = &input.classes[label * size..][..size];
                class.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE)
            };
            value.angle_deg += (own / length / class_length).clamp(-1.0, 1.0).acos().to_degrees();
            value.correct += usize::from(row.iter().all(|&other| other <= own));
            let result = match *self {
                Loss::SphereFace2 { .. } => self.binary(row, label, length, input.bias, gradients.bias),
                _ => self.cross_entropy(row, label, length, input.lambda),
            };
            value.loss += result.loss;
            by_length.push(result.by_length / length);
            own_class_for_classes.push(result.own_for_classes);
        }
        let Gradients { features: by_feature, classes: by_class, .. } = gradients;
        multiply(by_feature, Matrix::new(&products, samples, classes), class_matrix, false, input.threads);
        for ((by_feature, feature), by_length) in
            by_feature.chunks_exact_mut(size).zip(input.features.chunks_exact(size)).zip(by_length)
        {
            by_feature.iter_mut().zip(feature).for_each(|(g, x)| *g += by_length * x);
        }
        for ((row, &label), own) in
            products.chunks_exact_mut(classes).zip(input.labels).zip(own_class_for_classes)
        {
            row[label] = own;
        }
        multiply(by_class, Matrix::new(&products, samples, classes).t(), features, true, input.threads);
        value
    }

    /// Cross-entropy of one sample; `row` holds its products and then the derivatives by them.
    fn cross_entropy(&self, row: &mut [f64], label: usize, length: f64, lambda: f64) -> Row {
        let logit = |(class, &product): (usize, &f64)| match class == label {
            true => self.own(product, length, lambda),
            false => self.other(product, length),
        };
        let logits: Vec<Logit> = row.iter().enumerate().map(logit).collect();
        let most = logits.iter().map(|logit| logit.value).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|logit| (logit.value - most).exp()).sum();
        let mut result = Row { loss: 0.0, by_length: 0.0, own_for_classes: 0.0 };
        for (class, (to, logit)) in row.iter_mut().zip(logits).enumerate() {
            let p = (logit.value - most).exp() / total;
            let by_logit = if class == label { p - 1.0 } else { p };
            *to = by_logit * logit.by_product;
            if class == label {
                result.loss = total.ln() - (logit.value - most);
                result.own_for_classes = match self {
                    Loss::ASoftmax { gradient: Gradient::Authors, .. } => by_logit,
                    _ => *to,
                };
            }
            result.by_length += by_logit * logit.by_length;
        }
        result
    }

    /// SphereFace2 of one sample.
    fn binary(&self, row: &mut [f64], label: usize, length: f64, bias: f64, by_bias: &mut f64) -> Row {
        let Loss::SphereFace2 { alpha, r, m, t } = *self else { unreachable!("asked for by SphereFace2") };
        let (mut loss, mut by_length) = (0.0, 0.0);
        for (class, value) in row.iter_mut().enumerate() {
            let c = *value / length;
            let similarity = margin::similarity(c, t);
            let (weight, sign) = if class == label { (alpha, -1.0) } else { (1.0 - alpha, 1.0) };
            let z = sign * (r * (similarity.value + sign * m) + bias);
            loss += weight / r * (z.max(0.0) + (-z.abs()).exp().ln_1p());
            let by_z = weight / r / (1.0 + (-z).exp());
            *by_bias += by_z * sign;
            let by_cosine = by_z * sign * r * similarity.slope;
            *value = by_cosine / length;
            by_length -= by_cosine * c / length;
        }
        Row { loss, by_length, own_for_classes: row[label] }
    }
}

/// What a sample's row of products gave.
struct Row {
    loss: f64,
    /// Derivative by the length of the feature.
    by_length: f64,
    /// Derivative by the product with the own class that the gradient of the classes takes.
    own_for_classes: f64,
}

/// A logit with its derivatives by the product w.x and by |x|.
#[derive(Debug, Clone, Copy)]
struct Logit {
    value: f64,
    by_product: f64,
    by_length: f64,
}

/// Divides every row by its length; rows of zeros stay.
pub fn normalise_rows(matrix: &mut [f32], size: usize) {
    for row in matrix.chunks_exact_mut(size) {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
    }
}
