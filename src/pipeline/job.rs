//! The request to label, its progress and its result.

use std::path::{Path, PathBuf};

use super::page::PageJob;
use super::redact::Redaction;
use super::statistics::Statistics;
#[cfg(feature = "video")]
use super::subscriber::want_pictures;
use super::subscriber::{OnEvent, OnFrame, Pictures, Subscriber};
use crate::analysis::Analysis;
use crate::annotate::{Annotator, Colours, Style};
use crate::engine::{DetectEvery, Engine, Event, Gallery, LabelledFrame, Work};
use crate::media::Input;
use crate::report::{Appearance, AuditSummary, Explanation, Results};

/// Most frames per second that can be requested.
const MOST_FPS: f64 = 1000.0;

/// Number of passes over a video, and the evidence of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Two passes over a file: decisions use the whole track. Other inputs as [`Mode::Online`].
    #[default]
    TwoPass,
    /// One pass: decisions use the track so far.
    Online,
    /// One pass, every face identified independently, without tracking (baseline).
    PerFrame,
}

/// Why a request is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The file name of an analysis must end in .parquet.
    #[error("the analysis {} is a Parquet file: its name must end in .parquet", .0.display())]
    AnalysisName(PathBuf),
    /// A still has no analysis.
    #[error("an analysis is made from a video, but the input is a still")]
    AnalysisOfStill,
    /// Redaction needs an output.
    #[error("redaction needs an output video or still, but none is requested")]
    RedactionWithoutOutput,
    /// The page would show unredacted faces.
    #[error(
        "the page would show the unredacted input, because redaction applies to the output only, and none is requested"
    )]
    PageWithoutCoveredVideo,
    /// Redaction and the page need whole tracks, and so two passes.
    #[error(
        "redaction and the page need two passes over a video file, but this input can be read only once: record it to a file first"
    )]
    OnePass,
    /// A request for video, but the input is a still.
    #[error("a window, live input and one-pass labelling apply to video only, but the input is a still")]
    StillAsVideo,
    /// A selection of frames is analysed, not written.
    #[error(
        "a part of the frames of a video file can be analysed in two passes, but not written, shown or redacted: request an analysis only"
    )]
    SelectionWritten,
    /// An analysis that leaves frames out cannot be drawn on its video.
    #[error(
        "the analysis covers {0} only, so it can be listed, but not written, shown or redacted: analyse all frames"
    )]
    SampledAnalysis(String),
    /// Frames per second out of range.
    #[error("{0} frames per second are out of range: use more than 0 and at most {MOST_FPS}")]
    FramesPerSecond(f64),
    /// A still can only be written as a still.
    #[error("the input is a still, but the output {} does not have the extension of one: use .jpg, .png, .webp, .bmp or .tiff", .0.display())]
    StillToVideo(PathBuf),
}

/// The part of a job that can be checked before anything is opened.
#[derive(Debug, Clone, Copy)]
pub struct LabelRequest<'a> {
    /// The video or still.
    pub input: &'a Input,
    /// The annotated video or still.
    pub output: Option<&'a Path>,
    /// How decisions are made.
    pub mode: Mode,
    /// Whether the input is treated as live.
    pub live: bool,
    /// Whether the video is shown in a window.
    pub view: bool,
    /// Whether faces are redacted.
    pub redacts: bool,
    /// Whether a page is written.
    pub page: bool,
    /// The path of the analysis to write.
    pub analysis: Option<&'a Path>,
}

impl LabelRequest<'_> {
    /// Whether the input can be read only once.
    pub fn is_once(&self) -> bool {
        let pipe = matches!(self.input, Input::File(path) if path.exists()) && !self.input.is_read_twice();
        let live = self.live || self.input.is_live();
        pipe || live || self.mode != Mode::TwoPass
    }

    /// Refuses contradictory requests.
    ///
    /// # Errors
    /// The first reason.
    pub fn check(&self) -> Result<(), RequestError> {
        let still = matches!(self.input, Input::Still(_));
        if let Some(analysis) = self.analysis {
            if !Analysis::is_named(analysis) {
                return Err(RequestError::AnalysisName(analysis.to_owned()));
            }
            if still {
                return Err(RequestError::AnalysisOfStill);
            }
        }
        if self.redacts && self.output.is_none() && !self.view {
            return Err(RequestError::RedactionWithoutOutput);
        }
        if self.redacts && self.page && self.output.is_none() {
            return Err(RequestError::PageWithoutCoveredVideo);
        }
        if still {
            return self.check_still();
        }
        match self.is_once() && (self.redacts || self.page) {
            true => Err(RequestError::OnePass),
            false => Ok(()),
        }
    }

    fn check_still(&self) -> Result<(), RequestError> {
        if self.page {
            return Err(RequestError::OnePass);
        }
        if self.view || self.live || self.mode != Mode::TwoPass {
            return Err(RequestError::StillAsVideo);
        }
        match self.output.filter(|output| !Input::names_still(output)) {
            Some(output) => Err(RequestError::StillToVideo(output.to_owned())),
            None => Ok(()),
        }
    }
}

/// A labelling job: the input, its options and outputs.
///
/// ```no_run
/// use sphereface::pipeline::{Control, LabelJob};
/// use sphereface::{Engine, Gallery};
///
/// let engine = Engine::new()?;
/// let gallery = Gallery::open(&engine, "gallery")?;
/// let job = LabelJob::new(&engine, "party.mp4".parse()?)
///     .gallery(&gallery)
///     .output("named.mp4")
///     .on_event(|event| println!("{} {:?}", event.who, event.kind));
/// let summary = job.run(&Control::new(), &mut |_| {})?;
/// println!("{} frames", summary.frames);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LabelJob<'a> {
    pub(super) engine: Engine,
    pub(super) input: Input,
    pub(super) gallery: Option<Gallery>,
    pub(super) tell_strangers_apart: bool,
    pub(super) output: Option<PathBuf>,
    pub(super) detect_every: DetectEvery,
    pub(super) mode: Mode,
    pub(super) drawing: Drawing,
    pub(super) subscribers: Vec<Box<dyn Subscriber + 'a>>,
    pub(super) redaction: Option<Redaction>,
    pub(super) page: Option<PageJob>,
    pub(super) analysis: Option<PathBuf>,
    pub(super) view: bool,
    pub(super) live: Option<bool>,
    #[cfg(feature = "video")]
    pub(super) encoding: crate::media::SinkOptions,
    #[cfg(feature = "video")]
    pub(super) opening: Option<super::open::PendingSource>,
    #[cfg(feature = "video")]
    pub(super) selection: crate::media::Selection,
}

/// Settings for drawing names.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawing {
    pub style: Style,
}

impl Drawing {
    /// The annotator with the colours of the gallery.
    pub fn annotator(&self, gallery: Option<&Gallery>) -> Result<Annotator, super::LabelError> {
        let numbers = gallery.map(Gallery::colour_numbers).unwrap_or_default();
        Ok(Annotator::new(self.style.clone())?.with_colours(Colours::new(numbers.iter().cloned())))
    }
}

impl<'a> LabelJob<'a> {
    /// A job that detects the faces of `input` without a gallery or outputs.
    pub fn new(engine: &Engine, input: Input) -> Self {
        Self {
            engine: engine.clone(),
            input,
            gallery: None,
            tell_strangers_apart: false,
            output: None,
            detect_every: DetectEvery::Auto,
            mode: Mode::TwoPass,
            drawing: Drawing::default(),
            subscribers: Vec::new(),
            redaction: None,
            page: None,
            analysis: None,
            view: false,
            live: None,
            #[cfg(feature = "video")]
            encoding: crate::media::SinkOptions::default(),
            #[cfg(feature = "video")]
            opening: None,
            #[cfg(feature = "video")]
            selection: crate::media::Selection::default(),
        }
    }

    /// Names the people of a gallery.
    pub fn gallery(mut self, gallery: &Gallery) -> Self {
        self.gallery = Some(gallery.clone());
        self
    }

    /// Embeds faces even without a gallery, to number strangers by person. An analysis and a page do so in
    /// any case.
    pub fn tell_strangers_apart(mut self, tell: bool) -> Self {
        self.tell_strangers_apart = tell;
        self
    }

    /// Writes the annotated video or still.
    pub fn output(mut self, path: impl Into<PathBuf>) -> Self {
        self.output = Some(path.into());
        self
    }

    /// Sets the interval between full detection passes.
    pub fn detect_every(mut self, every: DetectEvery) -> Self {
        self.detect_every = every;
        self
    }

    /// How decisions are made.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the appearance of boxes and names.
    pub fn style(mut self, style: Style) -> Self {
        self.drawing.style = style;
        self
    }

    /// Adds a subscriber to every frame and event.
    pub fn subscriber(mut self, subscriber: impl Subscriber + 'a) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// Writes reports.
    pub fn results(self, results: Results) -> Self {
        self.subscriber(results)
    }

    /// Calls back with every labelled frame, without its picture.
    pub fn on_frame(self, call: impl FnMut(&LabelledFrame) + 'a) -> Self {
        self.subscriber(OnFrame { call, pictures: Pictures::None })
    }

    /// Calls back with every labelled frame and its picture.
    pub fn on_picture(self, call: impl FnMut(&LabelledFrame) + 'a) -> Self {
        self.subscriber(OnFrame { call, pictures: Pictures::Plain })
    }

    /// Calls back when a person appears, leaves or gets another name.
    pub fn on_event(self, call: impl FnMut(&Event) + 'a) -> Self {
        self.subscriber(OnEvent(call))
    }

    /// Redacts faces. For a video, only in [`Mode::TwoPass`], where whole tracks are known.
    pub fn redaction(mut self, redaction: Option<Redaction>) -> Self {
        self.redaction = redaction;
        self
    }

    /// Writes a page about the video, likewise.
    pub fn page(mut self, page: Option<PageJob>) -> Self {
        self.page = page;
        self
    }

    /// Writes an analysis to a Parquet file.
    pub fn analysis(mut self, path: impl Into<PathBuf>) -> Self {
        self.analysis = Some(path.into());
        self
    }

    /// Shows the video in a window while it is labelled.
    pub fn view(mut self, view: bool) -> Self {
        self.view = view;
        self
    }

    /// Sets whether the input is live, so that frames are dropped rather than delayed. Default: a property of
    /// the input.
    pub fn live(mut self, live: bool) -> Self {
        self.live = Some(live);
        self
    }

    /// How the video is encoded.
    #[cfg(feature = "video")]
    pub fn encoding(mut self, encoding: crate::media::SinkOptions) -> Self {
        self.encoding = encoding;
        self
    }

    /// Analyses only some frames of a video file. Such a job writes an analysis and notifies its subscribers;
    /// it has no output.
    #[cfg(feature = "video")]
    pub fn selection(mut self, selection: crate::media::Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Passes on an input that is already being [opened](super::label::open).
    #[cfg(feature = "video")]
    pub fn opening(mut self, opening: Option<super::open::PendingSource>) -> Self {
        self.opening = opening;
        self
    }

    #[cfg(feature = "video")]
    /// Whether faces are embedded.
    pub(super) fn embeds(&self) -> bool {
        self.gallery.is_some() || self.analysis.is_some() || self.page.is_some() || self.tell_strangers_apart
    }

    /// Refuses a selection of frames together with options that need all frames.
    #[cfg(feature = "video")]
    pub(super) fn check_selection(&self) -> Result<(), RequestError> {
        if let Some(fps) = self.selection.fps.filter(|fps| !(*fps > 0.0 && *fps <= MOST_FPS)) {
            return Err(RequestError::FramesPerSecond(fps));
        }
        let shown = self.output.is_some() || self.view || self.page.is_some() || self.redaction.is_some();
        let pictures = want_pictures(&self.subscribers);
        let whole = self.selection.is_all();
        match !whole && (shown || pictures || self.opening.is_some() || self.request().is_once()) {
            true => Err(RequestError::SelectionWritten),
            false => Ok(()),
        }
    }

    /// The part of the job that can be checked before anything is opened.
    pub fn request(&self) -> LabelRequest<'_> {
        LabelRequest {
            input: &self.input,
            output: self.output.as_deref(),
            mode: self.mode,
            live: self.live == Some(true),
            view: self.view,
            redacts: self.redaction.is_some(),
            page: self.page.is_some(),
            analysis: self.analysis.as_deref(),
        }
    }
}

/// A job that labels an analysis again.
pub struct RelabelJob<'a> {
    pub(super) analysis: &'a Analysis,
    pub(super) video: Option<Input>,
    pub(super) output: Option<PathBuf>,
    pub(super) same_deg: Option<f64>,
    pub(super) gallery: Option<Gallery>,
    pub(super) drawing: Drawing,
    pub(super) subscribers: Vec<Box<dyn Subscriber + 'a>>,
    pub(super) redaction: Option<Redaction>,
    pub(super) page: Option<PageJob>,
    pub(super) view: bool,
    #[cfg(feature = "video")]
    pub(super) encoding: crate::media::SinkOptions,
    pub(super) threads: usize,
}

impl RelabelJob<'_> {
    /// Refuses to draw an analysis that leaves frames out.
    #[cfg(feature = "video")]
    pub(super) fn check_whole(&self) -> Result<(), RequestError> {
        let shown = self.output.is_some() || self.view || self.page.is_some() || self.redaction.is_some();
        let pictures = want_pictures(&self.subscribers);
        let video = &self.analysis.video;
        if video.is_whole() || !(shown || pictures) {
            return Ok(());
        }
        let frames = if video.key_frames { "key frames" } else { "frames" };
        let looked_at = match video.sampled_fps {
            Some(fps) => format!("{fps} {frames} per second"),
            None => frames.to_owned(),
        };
        Err(RequestError::SampledAnalysis(looked_at))
    }
}

impl<'a> RelabelJob<'a> {
    /// A job without a gallery or outputs: every person is a stranger.
    pub fn new(analysis: &'a Analysis) -> Self {
        Self {
            analysis,
            video: None,
            output: None,
            same_deg: None,
            gallery: None,
            drawing: Drawing::default(),
            subscribers: Vec::new(),
            redaction: None,
            page: None,
            view: false,
            #[cfg(feature = "video")]
            encoding: crate::media::SinkOptions::default(),
            threads: 1,
        }
    }

    /// Uses the engine's threads, and its calibration to tell strangers apart if the analysis was made with
    /// its model.
    pub fn engine(mut self, engine: &Engine) -> Self {
        self.threads = engine.threads();
        if self.analysis.model == Some(engine.model()) {
            self.same_deg = engine.same_person_deg().or(self.same_deg);
        }
        self
    }

    /// Names the people of a gallery.
    pub fn gallery(mut self, gallery: &Gallery) -> Self {
        self.same_deg = self.same_deg.or(Some(gallery.threshold().angle_deg()));
        self.gallery = Some(gallery.clone());
        self
    }

    /// The video of the analysis, which an output, a view and a page need.
    pub fn video(mut self, video: Option<Input>) -> Self {
        self.video = video;
        self
    }

    /// As for a [`LabelJob`].
    pub fn output(mut self, path: impl Into<PathBuf>) -> Self {
        self.output = Some(path.into());
        self
    }

    /// As for a [`LabelJob`].
    pub fn style(mut self, style: Style) -> Self {
        self.drawing.style = style;
        self
    }

    /// As for a [`LabelJob`]; frames without a face are not reported.
    pub fn subscriber(mut self, subscriber: impl Subscriber + 'a) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// As for a [`LabelJob`].
    pub fn results(self, results: Results) -> Self {
        self.subscriber(results)
    }

    /// As for a [`LabelJob`].
    pub fn redaction(mut self, redaction: Option<Redaction>) -> Self {
        self.redaction = redaction;
        self
    }

    /// As for a [`LabelJob`].
    pub fn page(mut self, page: Option<PageJob>) -> Self {
        self.page = page;
        self
    }

    /// As for a [`LabelJob`].
    pub fn view(mut self, view: bool) -> Self {
        self.view = view;
        self
    }

    /// As for a [`LabelJob`].
    #[cfg(feature = "video")]
    pub fn encoding(mut self, encoding: crate::media::SinkOptions) -> Self {
        self.encoding = encoding;
        self
    }
}

/// A pass over the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The only one.
    Only,
    /// The first of two, which analyses.
    Look,
    /// The second, or that over an analysed video, which writes.
    Write,
}

/// Progress of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The input is open.
    Opened {
        /// The pass that begins.
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
    /// A warning to the user.
    Warning(&'a str),
}

/// Summary of a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LabelSummary {
    /// Frames labelled.
    pub frames: u64,
    /// Frames that the reports cover: more than `frames` if the second pass was stopped.
    pub listed: u64,
    /// Faces seen, over all frames.
    pub faces: u64,
    /// Faces named, over all frames.
    pub named: u64,
    /// Frames of a live input that were dropped.
    pub dropped: u64,
    /// The appearances of all people.
    pub people: Vec<Appearance>,
    /// The redacted faces, if redaction was requested.
    pub redacted: Option<AuditSummary>,
    /// Explanations of the decisions, for two passes or an analysis.
    pub explanations: Vec<Explanation>,
    /// The work done.
    pub work: Work,
    /// Statistics of the stages.
    pub statistics: Statistics,
    /// Whether it was stopped before the end of the input.
    pub stopped: bool,
    /// Why the input ended early, if it did; the outputs are complete up to there.
    pub cut_off: Option<String>,
}
