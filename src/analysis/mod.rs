//! The analysis of a video: all faces with their tracks and embeddings, so that names can be decided again
//! with another gallery or threshold without decoding the video.
//!
//! # The file
//! Parquet, one row per face and frame, in the order of frames. DuckDB, pandas and polars read it as it is.
//! See [`Analysis::write`] for the columns; the facts about the video and the settings of the analysis are in
//! the file's key-value metadata under `sphereface`, as JSON.

mod column;
mod file;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;

pub use file::fingerprint;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::detect::DetectorConfig;
use crate::models::ModelId;
use crate::nn::Arithmetic;
use crate::track::{self, Observation, Track};

/// Facts about the video itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// File name, without its folder.
    pub name: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Nominal frames per second as a fraction; `None` when the stream states none. The times of the frames
    /// are authoritative.
    pub fps: Option<(i32, i32)>,
    /// Frames that were decoded.
    pub frames: u64,
    /// End time of the last frame, in nanoseconds since the start.
    pub duration_ns: u64,
    /// The [`fingerprint`] of the file; empty if the input was not a file.
    pub fingerprint: String,
    /// Maximum frames per second that were analysed; `None` for every frame. Frame indices count only those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_fps: Option<f64>,
    /// Whether only key frames were analysed. Frame indices count only those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_frames: bool,
}

impl Video {
    /// Whether every frame was analysed.
    pub fn is_whole(&self) -> bool {
        self.sampled_fps.is_none() && !self.key_frames
    }
}

/// The analysis of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The video.
    pub video: Video,
    /// The model of the embeddings; `None` when there are none.
    pub model: Option<ModelId>,
    /// The arithmetic of the embeddings. Embeddings of different arithmetics can be compared: their angles
    /// differ by less than half a degree.
    pub arithmetic: Arithmetic,
    /// Whether embeddings are averaged with those of the mirror images.
    pub mirror: bool,
    /// Settings of the detector.
    pub detector: DetectorConfig,
    /// Frames that begin a new shot, in order, without frame 0.
    pub cuts: Vec<u64>,
    /// Every face, in the order of frames; within a frame, the most certain first.
    pub observations: Vec<Observation>,
}

impl Analysis {
    /// Whether a path has the extension of an analysis.
    pub fn is_named(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
    }

    /// The tracks, by number.
    pub fn tracks(&self) -> Vec<Track> {
        track::tracks(&self.observations)
    }

    /// Checks that its embeddings can be compared with those of `model`; `path` names the
    /// analysis in the error.
    ///
    /// # Errors
    /// [`AnalysisError::OtherModel`].
    pub fn check_model(&self, path: &Path, model: ModelId) -> Result<(), AnalysisError> {
        match self.model {
            Some(own) if own == model => Ok(()),
            own => Err(AnalysisError::OtherModel { path: path.to_owned(), own, asked: model }),
        }
    }

    /// The video that it was made from: `given`, or the video of its name in the folder `given`; else the one
    /// beside the analysis at `path` or in the current folder.
    ///
    /// # Errors
    /// [`AnalysisError::NoVideo`] when there is none, and as for [`check_video`](Self::check_video).
    pub fn find_video(&self, path: &Path, given: Option<&Path>) -> Result<PathBuf, AnalysisError> {
        let name = Path::new(&self.video.name);
        let places = match given {
            Some(folder) if folder.is_dir() => vec![folder.join(name)],
            Some(video) => vec![video.to_owned()],
            None => vec![path.with_file_name(name), name.to_owned()],
        };
        let Some(video) = places.iter().find(|place| place.is_file()) else {
            let place = places[0].clone();
            return Err(AnalysisError::NoVideo {
                path: path.to_owned(),
                name: self.video.name.clone(),
                place,
            });
        };
        self.check_video(path, video)?;
        Ok(video.clone())
    }

    /// Checks that it was made from the video at `video`; `path` names the analysis in the error.
    ///
    /// # Errors
    /// [`AnalysisError::OtherVideo`], and [`AnalysisError::Read`] when the video cannot be read.
    pub fn check_video(&self, path: &Path, video: &Path) -> Result<(), AnalysisError> {
        let found =
            fingerprint(video).map_err(|source| AnalysisError::Read { path: video.to_owned(), source })?;
        if found == self.video.fingerprint {
            return Ok(());
        }
        let name = self.video.name.clone();
        Err(AnalysisError::OtherVideo { path: path.to_owned(), video: video.to_owned(), name })
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
        /// The system's error.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("{} cannot be written ({source}): choose a folder that exists and that you may write to", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The video that the analysis was made from is missing.
    #[error("the video {name} is needed, from which {} was made, but {} is not a file", .path.display(), .place.display())]
    NoVideo {
        /// The analysis.
        path: PathBuf,
        /// Name of the video.
        name: String,
        /// The first path that was tried.
        place: PathBuf,
    },
    /// The file is not an analysis, or not a whole one.
    #[error("{} is not a complete analysis ({cause}): analyse the video again (sphereface label VIDEO --analysis FILE)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// Its embeddings come from another model, or it has none.
    #[error(
        "{} holds embeddings {}, which cannot be compared with model {asked}: use the model it was made with (--model), or analyse the video again",
        .path.display(), .own.map_or("without a model".to_owned(), |own| format!("of model {own}"))
    )]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// Its model.
        own: Option<ModelId>,
        /// The model it should be compared with.
        asked: ModelId,
    },
    /// The video is not the one that was analysed.
    #[error(
        "{} is not the video that {} was made from ({name}): give that one, or analyse this one (sphereface label VIDEO --analysis FILE)",
        .video.display(), .path.display()
    )]
    OtherVideo {
        /// The analysis.
        path: PathBuf,
        /// The video given.
        video: PathBuf,
        /// Name of the video that was analysed.
        name: String,
    },
}
