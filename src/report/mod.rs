//! Reports for programs, players and people.
//!
//! | writer | output |
//! |---|---|
//! | [`JsonLines`] | one JSON object per face and frame |
//! | [`FaceTable`] | the same as CSV |
//! | [`write_appearances`] | CSV: who, from when, to when |
//! | [`write_subtitles`] | WebVTT or SubRip: the names while they are in the picture |
//! | [`write_chapters`] | WebVTT or FFmpeg metadata: chapters by the people in the picture |
//! | [`timeline`] | markers and ranges for editing programs |
//! | [`Page`] | one self-contained HTML file: timelines, thumbnails, click to seek |
//! | [`Audit`] | JSON lines: the covered areas of a redaction, frame by frame |
//! | [`Results`] | all reports but the page and the audit |
//! | [`chart`] | curves of an evaluation or a training run, as SVG or PNG |
//!
//! A new report about faces is a writer in this module and a field of [`Results`]. The command line requests
//! it in `cli/results.rs`.
//!
//! # The JSON lines
//! No header line: every line is one face, so that `jq`, DuckDB or pandas read the file as it
//! is. Lines come in the order of frames and, within a frame, in the order of the detector.
//! A frame without faces has no line. See [`FaceRecord`] for the fields; all of them are always present,
//! `null` if they do not apply, and every number is finite.
//!
//! Every file appears under its name only when it is complete.

mod appearances;
mod audit;
pub mod chart;
mod csv;
mod explain;
mod face;
mod json_lines;
mod output;
mod page;
mod results;
mod scenes;
pub mod timeline;

pub use appearances::{Appearance, Appearances, Span};
pub use audit::{Audit, AuditFace, AuditSummary};
pub use csv::{FaceTable, write_appearances};
pub use explain::Explanation;
pub use face::FaceRecord;
pub use json_lines::JsonLines;
pub use output::Output;
pub use page::{Page, PagePerson, PageVideo};
pub use results::Results;
pub use scenes::{ChapterFormat, MIN_CHAPTER_NS, SubtitleFormat, write_chapters, write_subtitles};

use std::path::PathBuf;

use timeline::TimecodeError;

/// Errors of writing results.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be created in its folder.
    #[error("cannot write {path}: {source}; choose a folder that exists and that you may write to")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("writing {target} failed: {source}; no file was left there")]
    Write {
        /// The file, or "standard output".
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is needed for a report cannot be read.
    #[error("{path} cannot be read: {source}; it is needed for the result")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The requested timecode does not fit the video.
    #[error(transparent)]
    Timecode(#[from] TimecodeError),
    /// A number is infinite or not a number, which JSON cannot hold.
    #[error(
        "frame {frame} has a face with a number that is not finite: this is a defect of sphereface, please report it"
    )]
    NotFinite {
        /// Index of the frame.
        frame: u64,
    },
    /// A face that must be covered is not covered.
    #[error(
        "a face in frame {frame} should have been covered but was not: this is a defect of sphereface, please report it; no video was written"
    )]
    Uncovered {
        /// Index of the frame.
        frame: u64,
    },
}
