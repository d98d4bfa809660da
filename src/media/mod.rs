//! Video and stills in and out. Knows pixels and time, nothing of faces.

mod picture;

pub use picture::{Colorimetry, Matrix, Picture};

use std::sync::Arc;

/// One decoded video frame, shared by reference between stages.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Position in the decoded stream, from 0, without gaps for a file.
    pub index: u64,
    /// Presentation time in nanoseconds since the start of the stream; strictly increasing.
    pub pts_ns: u64,
    /// How long the frame is shown, in nanoseconds.
    pub duration_ns: u64,
    /// The pixels. Stages that draw use [`Arc::make_mut`] once they hold the only reference.
    pub picture: Arc<Picture>,
}
