//! Face detection: MTCNN (Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded
//! Convolutional Networks", SPL 2016) and the quality of the faces found.
//!
//! P-Net slides over an image pyramid and proposes squares, R-Net rejects most of them, O-Net
//! rejects more and gives the box and five landmarks. The weights are the authors' own, in
//! `models/mtcnn.safetensors`: tensors `pnet.conv1.weight` [outputs, inputs, rows, columns],
//! `pnet.prelu1.weight`, ... `onet.dense6_3.bias`, the first fully connected layers for a map
//! flattened as [channels, rows, columns].
//!
//! # Where implementations of MTCNN differ, and what this one does
//! The authors released MATLAB code. All implementations use the same networks, but the code around them
//! differs. We follow the most used port (facenet-pytorch 2.6), so that results can be compared face by face:
//! - The pyramid and the crops are resized by area averaging with the windows of PyTorch's `mode="area"`; the
//!   authors use bilinear interpolation, which aliases and loses 1-2 % of the faces.
//! - Level sizes are `floor(side * scale + 1)`; the authors round `side * scale` up.
//! - Crops that reach out of the image are cut off and stretched; the authors pad with black.
//! - Suppression by union counts sides as x2 - x1, only the last one as x2 - x1 + 1.
//! - O-Net runs once; the authors run it again on mirrored crops and average the landmarks,
//!   for twice the time of that stage.
//!
//! We differ from the port by choice in three things: the smallest face is 40 pixels by
//! default, not 20 (see [`DetectorConfig::min_face`]); faces come in order of certainty, not of size; a
//! candidate with no pixel inside the image is dropped, where the port uses its neighbour's result for it.

mod area;
mod bbox;
#[cfg(feature = "candle")]
pub mod candle;
mod config;
mod detector;
#[cfg(test)]
mod golden;
mod proposal;
mod quality;
mod refine;
#[cfg(feature = "candle")]
mod tensors;
mod turned;

pub use bbox::BBox;
pub use config::{DetectError, DetectorConfig, MinFace, SMALLEST_FACE_PX};
pub use detector::{Detector, Refiner, Scratch};
pub use quality::{
    MAX_PITCH_DEG, MAX_YAW_DEG, MIN_SHARPNESS, MIN_SIZE_PX, Quality, QualityIssue, SURE_SCORE,
};
pub use turned::Turned;

use serde::{Deserialize, Serialize};

/// Five points (x, y) in pixels: left eye, right eye, nose, left mouth corner, right mouth
/// corner, left and right as the viewer sees them.
pub type Landmarks = [[f32; 2]; 5];

/// One detected face.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Its box.
    pub bbox: BBox,
    /// O-Net's probability that it is a face, 0..=1.
    pub score: f32,
    /// Its five landmarks.
    pub landmarks: Landmarks,
}
