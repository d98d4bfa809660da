//! Errors of training.

use std::path::PathBuf;

use crate::embed::EmbedError;
use crate::eval::EvalError;
use crate::models::WeightsError;

/// Why a training run cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration is not valid TOML, or has an unknown key.
    #[error("{origin} is not a training configuration ({cause}): see 'sphereface train --help' for the keys")]
    Config {
        /// The file, preset or "the flags".
        origin: String,
        /// What is wrong, with the line.
        cause: String,
    },
    /// A setting is invalid.
    #[error("{key} = {value} is invalid: {reason}")]
    Setting {
        /// Section and key.
        key: &'static str,
        /// The value.
        value: String,
        /// The allowed values.
        reason: String,
    },
    /// No preset of that name.
    #[error("there is no preset '{0}': choose one of {1}")]
    Preset(String, String),
    /// A file cannot be read.
    #[error("{path} cannot be read ({source}): check the path", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A data set holds nothing to train on.
    #[error("{path} is not a data set ({cause}): give a folder with one folder of crops per identity, a list of lines 'path label', or a RecordIO pair", path = path.display())]
    NoDataset {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A class without images.
    #[error("identity '{class}' in {path} has no image: put crops there or remove the folder", path = path.display())]
    EmptyClass {
        /// The data set.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// Classes with fewer images than required.
    #[error(
        "identity '{class}' has {images}, and {others} more have too few: a class needs at least {needed} images; exclude such classes (--small-classes drop) or keep them (--small-classes keep)"
    )]
    SmallClass {
        /// The first such class.
        class: String,
        /// Its images, in words.
        images: String,
        /// Further such classes.
        others: usize,
        /// Images required.
        needed: usize,
    },
    /// A list whose numeric labels skip one.
    #[error("{path} has labels up to {last}, but no line has label {missing}: number classes from 0 without a gap, or use names as labels", path = path.display())]
    LabelGap {
        /// The list.
        path: PathBuf,
        /// The first label without images.
        missing: u64,
        /// The largest label.
        last: u64,
    },
    /// A line of a list is invalid.
    #[error("line {line} of {path} is not an image and its label ({cause}): write 'path label'", path = path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// A RecordIO file is damaged.
    #[error("{path} is damaged at record {record} ({cause}): it is truncated or does not match its index; download both again", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Number of the record.
        record: u64,
        /// What is wrong.
        cause: String,
    },
    /// An image cannot be decoded or has the wrong size.
    #[error(
        "{image} cannot be used ({cause}): replace it, remove it, or skip such images (--skip-unreadable true)"
    )]
    Image {
        /// The file, or the record and its file.
        image: String,
        /// What is wrong.
        cause: String,
    },
    /// A thread that reads images ended early.
    #[error(
        "a thread that reads images has failed, see above: this is a defect of sphereface, please report it; the last checkpoint is kept"
    )]
    LoaderEnded,
    /// Nobody of an exclusion list is in the data set.
    #[error("none of the {count} identities in {path} is in the data set: check that they are spelt as in the data set", path = path.display())]
    NobodyExcluded {
        /// The list.
        path: PathBuf,
        /// Its entries.
        count: usize,
    },
    /// A teacher's embeddings cannot be used.
    #[error("{path} does not hold usable teacher embeddings ({cause}): give a NumPy array (.npy) of f16, f32 or f64 with one row per image of the data set, in order", path = path.display())]
    Teacher {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The output folder holds a file that the run would replace.
    #[error("{path} would be replaced: choose another --output, or move the file away", path = path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// There is a checkpoint, but resuming was not requested.
    #[error("{folder} already holds a training run: continue it with --resume, or choose another --output", folder = folder.display())]
    RunExists {
        /// The output folder.
        folder: PathBuf,
    },
    /// There is no checkpoint to resume from.
    #[error("{folder} holds no checkpoint: start without --resume, or check --output", folder = folder.display())]
    NoCheckpoint {
        /// The output folder.
        folder: PathBuf,
    },
    /// A checkpoint does not fit the run.
    #[error("the checkpoint {path} cannot be resumed: {cause}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The difference, and advice.
        cause: String,
    },
    /// Results cannot be written.
    #[error("{path} cannot be written ({cause}): {}", if *.resumable { "the previous checkpoint is kept, so that --resume continues from there" } else { "there is no checkpoint yet, so that the run has to begin again" }, path = path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: String,
        /// Whether there is a checkpoint.
        resumable: bool,
    },
    /// Training diverged.
    #[error("{cause} at iteration {iteration}; {kept}; {advice}")]
    Diverged {
        /// The sign of divergence.
        cause: String,
        /// The iteration.
        iteration: u64,
        /// The last checkpoint.
        kept: String,
        /// Advice.
        advice: &'static str,
    },
    /// The tensor library cannot run the network.
    #[error(
        "the network failed on its device ({0}): check with nvidia-smi whether other programs use its memory, then continue with --resume or --resume --device cpu"
    )]
    Device(String),
    /// Weights to start from cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The trained network cannot be run.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Validation failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl TrainError {
    /// Whether the request was invalid, as opposed to having failed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Setting { .. }
                | Self::Preset(..)
                | Self::RunExists { .. }
                | Self::FileExists { .. }
                | Self::NoCheckpoint { .. }
        )
    }
}
