//! Measuring accuracy: verification, open-set identification, video scoring, calibration.

pub mod calibrate;
mod continuity;
mod estimate;
pub mod groups;
pub mod lfw;
pub mod megaface;
mod numbers;
pub mod openset;
pub mod people;
mod predicted;
pub mod roc;
pub mod templates;
pub mod truth;
pub mod verification;
pub mod video;
pub mod views;
pub mod youtube;

use std::path::PathBuf;

/// Errors of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file cannot be read.
    #[error("{path} cannot be read ({source}): check the path", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The detector's device fails.
    #[error(transparent)]
    Detect(#[from] crate::detect::DetectError),
    /// A truth file is not in a supported form.
    #[error(
        "{path} is not a ground truth for a video ({cause}): it must be an object with `frames` (a list of frames with faces) or `clips`",
        path = path.display()
    )]
    Truth {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The truth has several clips and none was chosen, or the chosen one is not there.
    #[error("{path} has no clip `{clip}`: {clips}", path = path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// The clip requested; empty when none was.
        clip: String,
        /// The clips it has, as a sentence.
        clips: String,
    },
    /// A line of observations is not what `label --jsonl` writes.
    #[error(
        "line {line} of {path} is not a face of a frame ({cause}): give a file written by `label --jsonl`",
        path = path.display()
    )]
    Observation {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// A pairs file is not in LFW's format.
    #[error(
        "line {line} of {path} is not part of a list of pairs ({cause}): the list must start with `folds count` or `count`, followed by lines `name i j` and `name i name j` with tabs, commas or spaces",
        path = path.display()
    )]
    Pairs {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// A list of a protocol is not in its format.
    #[error("line {line} of {path} is not valid in this list: {cause}", path = path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// There is too little data for a measurement.
    #[error("{0}")]
    TooLittle(String),
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] crate::media::MediaError),
    /// An image said to be an aligned crop has another size.
    #[error(
        "{path} is {width}x{height} pixels, and aligned crops have 112x112 or 96x112",
        path = path.display()
    )]
    NotAligned {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// A feature has no direction or not the size of the others.
    #[error("the feature of {image} cannot be compared ({cause}): the model is damaged")]
    Feature {
        /// The image.
        image: String,
        /// What is wrong.
        cause: &'static str,
    },
}

fn read(path: &std::path::Path) -> Result<String, EvalError> {
    crate::file::read_text(path).map_err(|source| EvalError::Read { path: path.to_owned(), source })
}
