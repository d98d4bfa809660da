//! A teacher's embeddings as a target.

use crate::nn::gemm::{Matrix, multiply};

/// Settings and targets of distillation.
#[derive(Debug, Clone, Copy)]
pub struct Distillation<'a> {
    /// [samples, size]
    pub features: &'a [f64],
    /// [samples, teacher's size], unit vectors.
    pub targets: &'a [f64],
    /// [teacher's size, size]; `None` if the student's features are compared directly.
    pub projection: Option<&'a [f64]>,
    /// The teacher's size.
    pub target_size: usize,
    /// Factor of loss and gradients.
    pub weight: f64,
    /// Threads for the matrix products.
    pub threads: usize,
}

/// The sum over the samples of weight (1 - cos) between P x and the teacher's embedding. Adds
/// the gradients of the features and of the projection.
///
/// # Panics
/// When sizes do not fit each other.
pub fn distill(input: Distillation<'_>, by_feature: &mut [f64], by_projection: &mut [f64]) -> f64 {
    let Distillation { features, targets, projection, target_size, weight, threads } = input;
    let samples = targets.len() / target_size;
    let size = features.len().checked_div(samples).unwrap_or(1);
    let x = Matrix::new(features, samples, size);
    let mut projected = match projection {
        Some(p) => {
            let mut projected = vec![0.0; samples * target_size];
            multiply(&mut projected, x, Matrix::new(p, target_size, size).t(), false, threads);
            projected
        }
        None => features.to_vec(),
    };
    assert_eq!(projected.len(), targets.len());
    let mut loss = 0.0;
    for (y, target) in projected.chunks_exact_mut(target_size).zip(targets.chunks_exact(target_size)) {
        let length = y.iter().map(|y| y * y).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        let cosine = y.iter().zip(target).map(|(y, t)| y * t).sum::<f64>() / length;
        loss += weight * (1.0 - cosine);
        // d cos / dy = (t - cos y / |y|) / |y|
        y.iter_mut().zip(target).for_each(|(y, t)| *y = -weight * (t - cosine * *y / length) / length);
    }
    match projection {
        Some(p) => {
            let y = Matrix::new(&projected, samples, target_size);
            multiply(by_feature, y, Matrix::new(p, target_size, size), true, threads);
            multiply(by_projection, y.t(), x, true, threads);
        }
        None => by_feature.iter_mut().zip(projected).for_each(|(g, y)| *g += y),
    }
    loss
}
