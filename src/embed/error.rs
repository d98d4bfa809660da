//! Errors of embedding networks.

use crate::models::WeightsError;
use crate::nn::{ArithmeticError, IsaError};

/// Why a network cannot be built from weights, or a face cannot be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The CPU has no kernels for the number format.
    #[error(transparent)]
    Arithmetic(#[from] ArithmeticError),
    /// The metadata describe no network.
    #[error(transparent)]
    Architecture(#[from] super::ArchitectureError),
    /// The plan of an imported network is not valid.
    #[error(transparent)]
    Plan(#[from] crate::models::plan::PlanError),
    /// An imported network, on something that computes SphereFace networks only.
    #[error("imported networks run on the CPU in f32 only, but {0} was requested")]
    ImportedOn(String),
    /// A metadata key that describes the network is not there.
    #[error("the weights carry no metadata key `{0}`: import or train them again with this program")]
    MissingMetadata(&'static str),
    /// A metadata key holds a value that is not one of the expected ones.
    #[error("the weights say {key}=`{value}`, which is not {expected}: use weights made for this program")]
    Metadata {
        /// Metadata key.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// The model has no scales for 8-bit integers.
    #[error(
        "the weights carry no scales for 8-bit integers: choose another number format, or measure them with models/eight_bits.py"
    )]
    NoInt8Scales,
    /// A scale for 8-bit integers is missing, or is not a positive number.
    #[error(
        "the weights carry no valid scale for the 8-bit integers that layer `{0}` takes: measure all of them with models/eight_bits.py"
    )]
    Int8Scale(String),
    /// A tensor of the network is not there.
    #[error(
        "the weights have no tensor `{name}`, which {architecture} needs: they belong to another network"
    )]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// Network requested.
        architecture: String,
    },
    /// A tensor has another shape than the network gives it.
    #[error(
        "tensor `{name}` has the shape {found:?} and {architecture} needs {expected:?}: the weights belong to another network"
    )]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape in the weights.
        found: Vec<usize>,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// Network requested.
        architecture: String,
    },
    /// A tensor holds a number that is not finite.
    #[error("tensor `{0}` holds a value that is not finite: the training diverged or the file is damaged")]
    NotFinite(String),
    /// A network without channels or embedding.
    #[error("{0} has a layer without channels: every layer needs at least one")]
    Empty(String),
    /// A thread count outside 1..=256.
    #[error("{0} threads cannot share one face: use 1 to 256")]
    Threads(usize),
    /// The instruction set requested does not exist here.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The feature of a crop is zero or not finite.
    #[error(
        "crop {0} of the batch has no direction on the hypersphere: the weights give it a feature that is zero or not finite"
    )]
    NoDirection(usize),
    /// The tensor library cannot place or run the network.
    #[error("the recognition network failed on its device: {0}; run it on the CPU with --device cpu")]
    Device(String),
}

#[cfg(feature = "candle")]
impl From<candle_core::Error> for EmbedError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(error.to_string())
    }
}
