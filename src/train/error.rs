use std::path::PathBuf;

use crate::embed::EmbedError;
use crate::eval::EvalError;
use crate::nn::WeightsError;

/// Why a training run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration is no TOML, or has a key that is none of ours.
    #[error("{origin} is no training configuration ({cause}): see 'sphereface train --help' for the keys")]
    Config {
        /// The file, preset or "the flags".
        origin: String,
        /// What is wrong, with the line.
        cause: String,
    },
    /// A setting makes no sense.
    #[error("{key} = {value} makes no sense: {reason}")]
    Setting {
        /// Section and key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What it has to be.
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
        /// What the system said.
        source: std::io::Error,
    },
    /// A data set holds nothing to train on.
    #[error("{path} holds nothing to train on ({cause}): give a folder with a folder of crops for each identity, a list of lines 'path label', or a RecordIO pair", path = path.display())]
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
    /// Classes with fewer images than wanted.
    #[error(
        "identity '{class}' has {images} and {others} more have too few: a class needs at least {needed} images; leave such classes out (--small-classes drop) or take them as they are (--small-classes keep)"
    )]
    SmallClass {
        /// The first such class.
        class: String,
        /// Its images, in words.
        images: String,
        /// Further such classes.
        others: usize,
        /// Images wanted.
        needed: usize,
    },
    /// A list whose numeric labels skip one.
    #[error("{path} has labels up to {last} but none of its lines has label {missing}: number classes from 0 without a gap, or use names as labels", path = path.display())]
    LabelGap {
        /// The list.
        path: PathBuf,
        /// The first label without images.
        missing: u64,
        /// The largest label.
        last: u64,
    },
    /// A line of a list is not what it should be.
    #[error("line {line} of {path} is no image with its label ({cause}): write 'path label'", path = path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// A RecordIO file is damaged.
    #[error("{path} is damaged at record {record} ({cause}): it is truncated or does not belong to its index, fetch both again", path = path.display())]
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
        "{image} cannot be used ({cause}): replace it, take it out, or pass over such images (--skip-unreadable true)"
    )]
    Image {
        /// The file, or the record and its file.
        image: String,
        /// What is wrong.
        cause: String,
    },
    /// A thread that reads images has ended before its time.
    #[error(
        "a thread that reads images has failed, see above: this is a defect of sphereface, please report it; the last checkpoint is still there"
    )]
    LoaderEnded,
    /// Nobody of an exclusion list is in the data set.
    #[error("none of the {count} identities in {path} is in the data set: check that they are written as there", path = path.display())]
    NobodyExcluded {
        /// The list.
        path: PathBuf,
        /// Its entries.
        count: usize,
    },
    /// A teacher's embeddings cannot be used.
    #[error("{path} holds no usable teacher embeddings ({cause}): it takes an array of NumPy (.npy) of f16, f32 or f64 with a row for each image of the data set, in order", path = path.display())]
    Teacher {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// There is a checkpoint and nobody said to go on from it.
    #[error("{folder} holds a training run already: go on with it by --resume, or choose another --output", folder = folder.display())]
    RunExists {
        /// The output folder.
        folder: PathBuf,
    },
    /// There is no checkpoint to go on from.
    #[error("{folder} holds no checkpoint: start without --resume, or check --output", folder = folder.display())]
    NoCheckpoint {
        /// The output folder.
        folder: PathBuf,
    },
    /// A checkpoint belongs to something else.
    #[error("the checkpoint {path} cannot be resumed: {cause}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What differs and what to do.
        cause: String,
    },
    /// Results cannot be written.
    #[error("{path} cannot be written ({cause}): make room, then go on with --resume; what was saved before is still there", path = path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// Training went wrong.
    #[error("{cause} at iteration {iteration}; {kept}; {advice}")]
    Diverged {
        /// What was seen.
        cause: String,
        /// When.
        iteration: u64,
        /// Which checkpoint there is.
        kept: String,
        /// What to try.
        advice: &'static str,
    },
    /// The tensor library cannot run the network.
    #[error(
        "the network failed on its device ({0}): see with nvidia-smi whether others use its memory, then go on with --resume, or with --resume --device cpu"
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
    /// Whether the request made no sense, as opposed to something having failed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Setting { .. }
                | Self::Preset(..)
                | Self::RunExists { .. }
                | Self::NoCheckpoint { .. }
        )
    }
}
