//! SphereFace networks (Liu et al., "SphereFace: Deep Hypersphere Embedding for Face
//! Recognition", CVPR 2017), imported networks of other kinds, and the embedder: crop -> embedding.

#[cfg(feature = "candle")]
pub mod candle;
mod embedder;
mod error;
mod family;
mod int8;
mod metadata;
mod network;
mod plain;
mod planned;
#[cfg(feature = "candle")]
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

pub use crate::models::arch::{Architecture, ArchitectureError};
pub use embedder::{EmbedOptions, Embedder, Mirror, Scratch, pixels};
pub use error::EmbedError;
pub use family::Family;
pub use int8::Int8Scales;
pub use metadata::ChannelOrder;
pub use network::{Network, Workspace};

use std::sync::Arc;

use crate::models::ModelId;

/// The position of a face on the unit hypersphere of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    model: ModelId,
    vector: Arc<[f32]>,
}

impl Embedding {
    /// Normalises `vector` to unit length. `None` when it has no direction (zero or not finite).
    pub fn new(model: ModelId, mut vector: Vec<f32>) -> Option<Self> {
        let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return None;
        }
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        Some(Self { model, vector: vector.into() })
    }

    /// Takes a vector that was normalised before and stored, as it is. `None` when it is not of
    /// unit length.
    pub fn from_unit(model: ModelId, vector: Vec<f32>) -> Option<Self> {
        let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        ((norm - 1.0).abs() < 1e-3).then(|| Self { model, vector: vector.into() })
    }

    /// The model that made it.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// The unit vector.
    pub fn as_slice(&self) -> &[f32] {
        &self.vector
    }

    /// Cosine of the angle to another embedding; `None` when another model made it, since the two spaces are
    /// unrelated.
    pub fn cosine(&self, other: &Embedding) -> Option<f32> {
        (self.model == other.model)
            .then(|| self.vector.iter().zip(other.vector.iter()).map(|(a, b)| a * b).sum())
    }

    /// That angle in degrees, 0..=180; `None` likewise.
    pub fn angle_deg(&self, other: &Embedding) -> Option<f64> {
        self.cosine(other).map(|cosine| f64::from(cosine).clamp(-1.0, 1.0).acos().to_degrees())
    }
}
