//! The analysis of a video: everything that was seen in it, so that who it was can be decided
//! again, with another gallery or threshold, without seeing a pixel.
//!
//! # The file
//! Parquet, one row a face of a frame, in the order of frames. DuckDB, pandas and polars read it
//! as it is. See [`Analysis::write`] for the columns; the facts about the video and how it was
//! looked at lie in the file's key-value metadata under `sphereface`, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::detect::DetectorConfig;
use crate::nn::ModelId;
use crate::track::{self, Observation, Track};

/// What is known of the video itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// File name, without its folder.
    pub name: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Nominal frames per second as a fraction; `None` when the stream states none. The times of
    /// the frames are what counts.
    pub fps: Option<(i32, i32)>,
    /// Frames that were decoded.
    pub frames: u64,
    /// When the last frame goes away, in nanoseconds since the start.
    pub duration_ns: u64,
    /// What tells this file from others: see [`Video::fingerprint`].
    pub fingerprint: String,
}

/// A video as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The video.
    pub video: Video,
    /// The model of the embeddings; `None` when there are none.
    pub model: Option<ModelId>,
    /// Whether embeddings are of the crop and its mirror image together.
    pub mirror: bool,
    /// How faces were looked for.
    pub detector: DetectorConfig,
    /// Frames that begin a new shot, in order, without frame 0.
    pub cuts: Vec<u64>,
    /// Every face, in the order of frames; within a frame, the most certain first.
    pub observations: Vec<Observation>,
}

impl Analysis {
    /// The tracks, by number.
    pub fn tracks(&self) -> Vec<Track> {
        track::tracks(&self.observations)
    }
}

/// Why an analysis cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The file cannot be read.
    #[error("{} cannot be read ({source}): check the path", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("{} cannot be written ({source}): choose a folder that exists and that you may write to", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no analysis, or not a whole one.
    #[error("{} is no complete analysis ({cause}): analyse the video again (sphereface label VIDEO --analysis FILE)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}
