//! Errors of the entry points.

use std::path::PathBuf;

use crate::detect::DetectError;
use crate::embed::EmbedError;
use crate::gallery::GalleryError;
use crate::identify::{IdentifyError, ThresholdError};
use crate::models::WeightsError;
use crate::nn::{ArithmeticError, DeviceError};

/// Why a face cannot be recognised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecogniseError {
    /// Detection failed.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A face cannot be embedded.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// An embedding cannot be compared with the gallery's.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// Another thread failed while working on the same batch.
    #[error("the batch that a face was embedded in failed: {0}")]
    Batch(String),
}

/// Why an engine cannot be built, or a gallery cannot be used with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file of weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model is not an embedding model.
    #[error("the model {model} cannot be used")]
    Model {
        /// Name or file of the model.
        model: String,
        /// What is wrong with it.
        source: EmbedError,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device cannot compute in that precision.
    #[error(transparent)]
    Precision(#[from] ArithmeticError),
    /// The settings of the detector are invalid.
    #[error(transparent)]
    Detector(#[from] DetectError),
    /// The number of threads is not from 1 to 256.
    #[error("{0} threads are out of range: give a number from 1 to 256")]
    Threads(usize),
    /// The gallery cannot be read.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// Nobody is enrolled in the gallery.
    #[error("nobody is enrolled in the gallery {}", .0.display())]
    NobodyEnrolled(PathBuf),
    /// The threshold is invalid for the model.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// The templates cannot be searched together.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
}
