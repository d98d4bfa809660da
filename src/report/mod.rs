//! Results a machine reads: one JSON line a face a frame; who was seen when; and charts for
//! people.
//!
//! # The JSON lines
//! No header line: every line is one face, so that `jq`, DuckDB or pandas read the file as it
//! is. Lines come in the order of frames and, within a frame, in the order of the detector.
//! A frame without faces has no line. See [`FaceRecord`] for the fields; all of them are
//! always there, `null` where there is nothing to say, and every number is finite.

mod appearances;
pub mod chart;
mod json_lines;

pub use appearances::{Appearance, Appearances, Span};
pub use json_lines::{FaceRecord, JsonLines};

use std::path::PathBuf;

/// What can go wrong when results are written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be made in its folder.
    #[error("cannot write {path}: {source}; choose a folder that exists and that you may write to")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Writing failed on the way.
    #[error("writing {target} failed: {source}; nothing was left under that name")]
    Write {
        /// The file, or "standard output".
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// A number is infinite or not a number, which JSON cannot hold.
    #[error(
        "frame {frame} has a face with a number that is not finite: this is a defect of sphereface, please report it"
    )]
    NotFinite {
        /// Index of the frame.
        frame: u64,
    },
}
