//! What labelling is asked for, what it tells while it runs, and what it did.

use std::path::PathBuf;

use super::graph::GraphError;
use super::page::PageJob;
use super::recognise::RecogniseError;
use super::redact::Redaction;
use super::search::DetectEvery;
use super::statistics::{Statistics, Work};
use crate::analysis::{Analysis, AnalysisError};
use crate::annotate::Annotator;
use crate::detect::Detector;
use crate::embed::{Embedder, Mirror};
use crate::identify::Identifier;
use crate::media::{Input, MediaError};
use crate::report::{Appearance, AuditSummary, Explanation, ReportError, Results};

/// How often a video is gone through, and what a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A file twice: a decision rests on the whole track. Anything else as [`Mode::Online`].
    TwoPass,
    /// Once: a decision rests on the track so far.
    Online,
    /// Once, and every face of every frame by itself, as if there were no time: for comparison.
    PerFrame,
}

/// What to label and where the results go.
pub struct LabelJob<'a> {
    /// The video or still.
    pub input: Input,
    /// The annotated video or still; `None` for none.
    pub output: Option<PathBuf>,
    /// Finds the faces.
    pub detector: &'a Detector,
    /// How often the whole frame of a video is searched.
    pub every: DetectEvery,
    /// Embeds them; `None` leaves everyone unknown.
    pub embedder: Option<&'a Embedder>,
    /// Whether the mirror image of a face has a say.
    pub mirror: Mirror,
    /// Names them; `None` leaves everyone unknown.
    pub identifier: Option<&'a Identifier>,
    /// How far apart two views of one person are at most, in degrees, where that is known.
    pub same_deg: Option<f64>,
    /// How decisions are made.
    pub mode: Mode,
    /// Draws them.
    pub annotator: &'a Annotator,
    /// Where to list them.
    pub results: Results,
    /// Covers faces; of a video in [`Mode::TwoPass`] only, where tracks are known as a whole.
    pub redaction: Option<Redaction>,
    /// A page about the video, likewise.
    pub page: Option<PageJob>,
    /// Where to keep what was seen.
    pub analysis: Option<PathBuf>,
    /// Whether to show the video in a window while it is labelled.
    pub view: bool,
    /// Whether the input is live, so that frames are dropped rather than waited for; `None`
    /// asks the input.
    pub live: Option<bool>,
    /// How to encode.
    #[cfg(feature = "video")]
    pub encoding: crate::media::SinkOptions,
    /// The input where it is being opened already (see [`open`](super::label::open)).
    #[cfg(feature = "video")]
    pub opening: Option<super::label::Opening>,
    /// Workers a stage, at least 1.
    pub threads: usize,
}

/// An analysis to decide about anew.
pub struct RelabelJob<'a> {
    /// What was seen.
    pub analysis: &'a Analysis,
    /// The video it was seen in, which is needed for an output or a view only.
    pub video: Option<Input>,
    /// The annotated video; `None` for none.
    pub output: Option<PathBuf>,
    /// As in [`LabelJob`].
    pub identifier: Option<&'a Identifier>,
    /// As in [`LabelJob`].
    pub same_deg: Option<f64>,
    /// As in [`LabelJob`].
    pub annotator: &'a Annotator,
    /// As in [`LabelJob`].
    pub results: Results,
    /// As in [`LabelJob`].
    pub redaction: Option<Redaction>,
    /// As in [`LabelJob`].
    pub page: Option<PageJob>,
    /// As in [`LabelJob`].
    pub view: bool,
    /// As in [`LabelJob`].
    #[cfg(feature = "video")]
    pub encoding: crate::media::SinkOptions,
    /// As in [`LabelJob`].
    pub threads: usize,
}

/// Which way through the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The only one.
    Only,
    /// The first of two, which looks.
    Look,
    /// The second, or that of an analysed video, which writes.
    Write,
}

/// What happens while a job runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The input is open.
    Opened {
        /// Which way through it begins.
        pass: Pass,
        /// Width and height in pixels.
        size: (usize, usize),
        /// Frames expected, where known.
        frames: Option<u64>,
        /// The encoder, when a video is written.
        encoder: Option<&'a str>,
    },
    /// A frame is done.
    Frame,
    /// Something a person should know.
    Warning(&'a str),
}

/// What a job did.
#[derive(Debug, Clone)]
pub struct LabelSummary {
    /// Frames labelled.
    pub frames: u64,
    /// Frames that the lists cover: more than `frames` when the second pass was stopped.
    pub listed: u64,
    /// Faces seen, over all frames.
    pub faces: u64,
    /// Faces named, over all frames.
    pub named: u64,
    /// Frames that a live input handed out and that were not worked on.
    pub dropped: u64,
    /// Who was seen when.
    pub people: Vec<Appearance>,
    /// What was covered, where something was to be.
    pub redacted: Option<AuditSummary>,
    /// Why every track has its name; of two passes, or of an analysis.
    pub explanations: Vec<Explanation>,
    /// What it took.
    pub work: Work,
    /// What each stage did.
    pub statistics: Statistics,
    /// Whether it was stopped before the end of the input.
    pub stopped: bool,
    /// Why the input could not be followed to its end, where that was so; the outputs are complete up
    /// to there.
    pub cut_off: Option<String>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The input cannot be read, or the output not be written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A face cannot be recognised.
    #[error(transparent)]
    Recognise(#[from] RecogniseError),
    /// The analysis cannot be written.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// The list of faces cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The stage graph failed, not a stage of it.
    #[error(transparent)]
    Graph(Box<GraphError<LabelError>>),
    /// Faces cannot be covered, nor a page be written, before the whole of a track is known.
    #[error(
        "covering faces and writing a page take two passes over a video file, and this video comes once: record it first"
    )]
    OnePass,
    /// The program was built without video.
    #[error("{0} is a video, and this program was built for stills only: build it with the feature `video`")]
    NoVideo(String),
}

impl From<GraphError<LabelError>> for LabelError {
    fn from(error: GraphError<LabelError>) -> Self {
        match error {
            GraphError::Stage { source, .. } => source,
            other => Self::Graph(Box::new(other)),
        }
    }
}
