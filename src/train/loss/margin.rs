//! Logits with a margin, and their derivatives.

use super::{Gradient, Logit, Loss, Version};

/// A function of c = cos(theta) with its derivative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Psi {
    /// The value.
    pub value: f64,
    /// The derivative w.r.t. c.
    pub slope: f64,
}

/// psi(theta) = (-1)^k cos(m theta) - 2k, k = floor(m theta / pi), of A-Softmax as a
/// polynomial of c: monotone in theta and without an arc cosine. `m` is 1 to 4.
///
/// # Panics
/// For another `m`.
pub fn a_softmax_psi(m: u32, c: f64) -> Psi {
    let sign = |x: f64| if x < 0.0 { -1.0 } else { 1.0 };
    let s0 = sign(c);
    match m {
        1 => Psi { value: c, slope: 1.0 },
        2 => Psi { value: 2.0 * s0 * c * c - 1.0, slope: 4.0 * s0 * c },
        3 => {
            let s1 = sign(c.abs() - 0.5);
            let s2 = s0 * (1.0 + s1) - 2.0;
            Psi { value: s1 * (4.0 * c.powi(3) - 3.0 * c) + s2, slope: s1 * (12.0 * c * c - 3.0) }
        }
        4 => {
            let s3 = s0 * sign(2.0 * c * c - 1.0);
            let s4 = 2.0 * s0 + s3 - 3.0;
            Psi {
                value: s3 * (8.0 * c.powi(4) - 8.0 * c * c + 1.0) + s4,
                slope: s3 * (32.0 * c.powi(3) - 16.0 * c),
            }
        }
        _ => panic!("no A-Softmax with a margin of {m}"),
    }
}

/// g(c) = 2 ((c + 1) / 2)^t - 1 of SphereFace2.
pub(super) fn similarity(c: f64, t: f64) -> Psi {
    let half = ((c + 1.0) / 2.0).max(0.0);
    // Faster than a general power.
    let power = if t == 3.0 { half * half } else { half.powf(t - 1.0) };
    Psi { value: 2.0 * half * power - 1.0, slope: t * power }
}

/// The smallest sine by which a derivative is divided: that of 0.06 degrees, where an arc cosine has lost its
/// precision.
const LEAST_SINE: f64 = 1e-3;

/// cos(f(theta)) with f(theta) = factor theta + offset.
fn cosine_of(c: f64, factor: f64, offset: f64) -> Psi {
    let theta = c.clamp(-1.0, 1.0).acos();
    let angle = factor * theta + offset;
    Psi { value: angle.cos(), slope: factor * angle.sin() / theta.sin().max(LEAST_SINE) }
}

impl Loss {
    /// The scale that replaces the length of the feature.
    pub(super) fn fixed_scale(&self) -> Option<f64> {
        match *self {
            Loss::NormalisedSoftmax { s } | Loss::CosFace { s, .. } | Loss::ArcFace { s, .. } => Some(s),
            Loss::SphereFaceR { s, .. } => s,
            Loss::Softmax | Loss::ASoftmax { .. } | Loss::SphereFace2 { .. } => None,
        }
    }

    /// scale psi(product / length) with its derivatives.
    fn logit(&self, psi: Psi, c: f64, length: f64) -> Logit {
        let Psi { value, slope } = psi;
        match self.fixed_scale() {
            Some(s) => {
                Logit { value: s * value, by_product: s * slope / length, by_length: -s * slope * c / length }
            }
            None => Logit { value: length * value, by_product: slope, by_length: value - c * slope },
        }
    }

    /// The logit of the target class.
    pub(super) fn own(&self, product: f64, length: f64, lambda: f64) -> Logit {
        let c = product / length;
        let psi = match *self {
            Loss::ASoftmax { m, gradient } => return a_softmax(m, gradient, product, length, lambda),
            Loss::SphereFaceR { version: Version::V1, m, detach, .. } => {
                let beyond = m * c.clamp(-1.0, 1.0).acos() >= std::f64::consts::PI;
                let psi = if beyond { Psi { value: -1.0, slope: 0.0 } } else { cosine_of(c, m, 0.0) };
                detached(psi, detach)
            }
            Loss::CosFace { m, .. } => Psi { value: c - m, slope: 1.0 },
            Loss::ArcFace { m, .. } => {
                let beyond = c.clamp(-1.0, 1.0).acos() + m > std::f64::consts::PI;
                if beyond { Psi { value: c - m * m.sin(), slope: 1.0 } } else { cosine_of(c, 1.0, m) }
            }
            Loss::Softmax
            | Loss::NormalisedSoftmax { .. }
            | Loss::SphereFaceR { version: Version::V2, .. }
            | Loss::SphereFace2 { .. } => Psi { value: c, slope: 1.0 },
        };
        self.logit(psi, c, length)
    }

    /// The logit of another class divided by the product with it, if that is the same for all.
    pub(super) fn factor_of_others(&self, length: f64) -> Option<f64> {
        match *self {
            Loss::SphereFaceR { version: Version::V2, .. } => None,
            Loss::Softmax
            | Loss::NormalisedSoftmax { .. }
            | Loss::ASoftmax { .. }
            | Loss::SphereFaceR { version: Version::V1, .. }
            | Loss::SphereFace2 { .. }
            | Loss::CosFace { .. }
            | Loss::ArcFace { .. } => Some(self.fixed_scale().map_or(1.0, |s| s / length)),
        }
    }

    /// The logit of another class.
    pub(super) fn other(&self, product: f64, length: f64) -> Logit {
        let c = product / length;
        let psi = match *self {
            Loss::SphereFaceR { version: Version::V2, m, detach, .. } => {
                detached(cosine_of(c, 1.0 / m, 0.0), detach)
            }
            Loss::Softmax
            | Loss::NormalisedSoftmax { .. }
            | Loss::ASoftmax { .. }
            | Loss::SphereFaceR { version: Version::V1, .. }
            | Loss::SphereFace2 { .. }
            | Loss::CosFace { .. }
            | Loss::ArcFace { .. } => Psi { value: c, slope: 1.0 },
        };
        self.logit(psi, c, length)
    }
}

/// The same value with the derivative of c.
fn detached(psi: Psi, detach: bool) -> Psi {
    if detach { Psi { slope: 1.0, ..psi } } else { psi }
}

/// |x| (psi + lambda c) / (1 + lambda).
fn a_softmax(m: u32, gradient: Gradient, product: f64, length: f64, lambda: f64) -> Logit {
    let c = product / length;
    let psi = a_softmax_psi(m, c);
    // The derivative of |x| psi is cw w + cx x.
    let (mut cw, mut cx) = (psi.slope, (psi.value - c * psi.slope) / length);
    if gradient == Gradient::Authors {
        let norm = cw.hypot(cx);
        if norm > 0.0 {
            (cw, cx) = (cw / norm, cx / norm);
        }
    }
    Logit {
        value: (length * psi.value + lambda * product) / (1.0 + lambda),
        by_product: (cw + lambda) / (1.0 + lambda),
        by_length: cx * length / (1.0 + lambda),
    }
}
