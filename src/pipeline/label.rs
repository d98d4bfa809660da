//! The job of `sphereface label`: a video, a still or an analysis in, the same with names on it
//! out.
//!
//! Every frame passes through, faces or none. What is written is the same for any number of
//! workers. A file is gone through twice, so that every decision is made with the whole of its
//! track in view; whatever comes only once is decided about as it comes.

use std::path::PathBuf;
#[cfg(feature = "video")]
use std::time::Duration;
use std::time::Instant;

use super::graph::{Control, GraphError};
use super::page::PageJob;
use super::recognise::{self, RecogniseError, Sighting};
use super::redact::Redaction;
use super::search::DetectEvery;
use super::statistics::{Statistics, Work};
use crate::analysis::{Analysis, AnalysisError};
use crate::annotate::{Annotator, Label};
use crate::detect::{Detector, Scratch};
use crate::embed::{Embedder, Mirror};
use crate::identify::Identifier;
use crate::media::{self, Input, MediaError};
use crate::report::{Appearance, Appearances, AuditSummary, Explanation, FaceRecord, ReportError, Results};

/// Absences up to this long do not end an appearance, in nanoseconds.
pub const APPEARANCE_GAP_NS: u64 = 1_000_000_000;

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
    pub encoding: media::SinkOptions,
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
    pub encoding: media::SinkOptions,
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

/// Labels the input of `job`. Events are told as they happen, on the calling thread.
///
/// `control` ends it early: after [`Control::stop`] the outputs are complete up to there, after
/// [`Control::abort`] there are none.
///
/// # Errors
/// The first that any stage meets; no output then appears under its name.
pub fn run(
    job: LabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    match &job.input {
        Input::Still(_) => still(job, on_event),
        #[cfg(feature = "video")]
        _ => video(job, control, on_event),
        #[cfg(not(feature = "video"))]
        input => {
            let _ = control;
            Err(LabelError::NoVideo(input.to_string()))
        }
    }
}

/// Labels an analysed video anew: nothing is searched and nothing embedded.
///
/// `control` and events as in [`run`].
///
/// # Errors
/// The first that any stage meets; no output then appears under its name.
pub fn relabel(
    job: RelabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    #[cfg(feature = "video")]
    {
        let (video, output, view, encoding) =
            (job.video.clone(), job.output.clone(), job.view, job.encoding.clone());
        let open = || match &video {
            Some(video) => open_both(video, output, view, None, &encoding, control),
            None => Err(LabelError::NoVideo("the analysis".into())),
        };
        super::two_pass::relabel(job, open, control, on_event)
    }
    #[cfg(not(feature = "video"))]
    {
        let _ = (job, control, on_event);
        Err(LabelError::NoVideo("the analysis".into()))
    }
}

/// What is drawn for the faces of a picture.
pub(super) fn labels(sightings: &[Sighting]) -> Vec<Label> {
    let one = |sighting: &Sighting| Label {
        landmarks: Some(sighting.face.landmarks),
        name: sighting.identification.name.clone(),
        stranger: sighting.stranger,
        angle_deg: sighting.identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
        score: Some(sighting.face.score),
        ..Label::unknown(sighting.face.bbox)
    };
    sightings.iter().filter(|sighting| !sighting.glimpse).map(one).collect()
}

/// Counts and lists what was seen.
pub(super) struct Ledger {
    /// What it took.
    pub(super) work: Work,
    results: Results,
    /// When the last frame went away.
    end_ns: u64,
    appearances: Appearances,
    faces: u64,
    named: u64,
}

impl Ledger {
    pub(super) fn new(results: Results) -> Self {
        let appearances = Appearances::new(APPEARANCE_GAP_NS);
        Self { work: Work::default(), results, end_ns: 0, appearances, faces: 0, named: 0 }
    }

    /// Everyone seen so far.
    #[cfg_attr(not(feature = "video"), expect(dead_code, reason = "only the passes over a video tell"))]
    pub(super) fn people(&self) -> Vec<Appearance> {
        self.appearances.people()
    }

    /// Time goes on to `end_ns`, with frames that show nobody.
    pub(super) fn lasts_until(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.max(end_ns);
    }

    /// Enters a frame; frames come in order.
    pub(super) fn enter(
        &mut self,
        frame: u64,
        pts_ns: u64,
        duration_ns: u64,
        sightings: &[Sighting],
    ) -> Result<(), ReportError> {
        let sightings: Vec<&Sighting> = sightings.iter().filter(|sighting| !sighting.glimpse).collect();
        let names = sightings.iter().filter_map(|sighting| sighting.identification.name.as_deref());
        self.faces += sightings.len() as u64;
        self.named += names.clone().count() as u64;
        let people = sightings.iter().filter_map(|sighting| sighting.who());
        self.appearances.see(pts_ns, duration_ns, people);
        self.lasts_until(pts_ns.saturating_add(duration_ns));
        if !self.results.lists_faces() {
            return Ok(());
        }
        for Sighting { face, quality, identification, track, stranger, votes, .. } in sightings {
            let runner_up = identification.runner_up.as_ref();
            self.results.face(&FaceRecord {
                frame,
                pts_ns,
                pts_s: pts_ns as f64 / 1e9,
                bbox: [face.bbox.x1, face.bbox.y1, face.bbox.x2, face.bbox.y2],
                landmarks: face.landmarks,
                score: face.score,
                quality: *quality,
                track: track.map(|track| track.0),
                stranger: *stranger,
                name: identification.name.as_deref(),
                angle_deg: identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
                template: identification.nearest.as_ref().map(|nearest| nearest.template.as_str()),
                runner_up: runner_up.map(|candidate| candidate.name.as_str()),
                runner_up_angle_deg: runner_up.map(|candidate| candidate.angle_deg),
                rejected: identification.rejected.as_ref().map(|one| one.candidate.name.as_str()),
                views: votes.map(|votes| votes.views),
                votes: votes.map(|votes| votes.nearest),
            })?;
        }
        Ok(())
    }

    /// Completes the list; `dropped` frames were lost before the graph saw them.
    pub(super) fn close(
        self,
        mut statistics: Statistics,
        dropped: u64,
        stopped: bool,
    ) -> Result<LabelSummary, ReportError> {
        // Stages count stretches of frames.
        statistics.items = self.work.frames.max(statistics.items);
        let people = self.appearances.people();
        self.results.finish(&people, self.end_ns)?;
        Ok(LabelSummary {
            frames: statistics.items,
            listed: statistics.items,
            faces: self.faces,
            named: self.named,
            dropped: dropped + statistics.dropped,
            people,
            redacted: None,
            explanations: Vec::new(),
            work: self.work,
            statistics,
            stopped,
        })
    }
}

fn still(job: LabelJob<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<LabelSummary, LabelError> {
    let start = Instant::now();
    let Some(path) = job.input.path() else { return Err(LabelError::NoVideo(job.input.to_string())) };
    let mut picture = media::read_still(path)?;
    let size = (picture.width() as usize, picture.height() as usize);
    on_event(Event::Opened { pass: Pass::Only, size, frames: Some(1), encoder: None });
    let faces = recognise::find(job.detector, &picture, &mut Scratch::default());
    let faces = faces.map_err(RecogniseError::from)?;
    let candidates = recognise::cut(&picture, faces, job.embedder.is_some());
    let sightings = match (job.embedder, job.identifier) {
        (Some(embedder), Some(identifier)) => {
            recognise::name(candidates, embedder, job.mirror, identifier, &mut embedder.scratch())?
        }
        _ => recognise::strangers(candidates),
    };
    let mut ledger = Ledger::new(job.results);
    ledger.enter(0, 0, 0, &sightings)?;
    let redacted = match job.redaction {
        Some(mut redaction) => {
            let covered = redaction.redactor.draw_rgb(&mut picture, &redaction.of_still(&sightings));
            redaction.check((0, 0), size, &sightings, &covered)?;
            Some(redaction.audit.finish()?)
        }
        None => None,
    };
    if let Some(output) = &job.output {
        job.annotator.draw_rgb(&mut picture, &labels(&sightings));
        media::write_still(output, &picture)?;
    }
    on_event(Event::Frame);
    let statistics = Statistics { wall: start.elapsed(), items: 1, ..Statistics::default() };
    Ok(LabelSummary { redacted, ..ledger.close(statistics, 0, false)? })
}

#[cfg(feature = "video")]
impl<'a> LabelJob<'a> {
    /// How to look at the video.
    pub(super) fn look(&self) -> super::look::Look<'a> {
        let per_frame = self.mode == Mode::PerFrame;
        super::look::Look {
            detector: self.detector,
            embedder: self.embedder,
            mirror: self.mirror,
            every: (!per_frame).then_some(self.every),
            views: if per_frame { crate::track::Views::All } else { crate::track::Views::Telling },
            pictures: true,
            threads: self.threads.max(1),
        }
    }
}

/// Where the frames go.
#[cfg(feature = "video")]
pub(super) struct Outlet {
    sink: Option<media::Sink>,
    view: Option<media::View>,
    /// Ends the source whose frames and sound come here.
    pub(super) stop: media::StopHandle,
}

#[cfg(feature = "video")]
impl Outlet {
    /// Whether anything is done with pictures.
    pub(super) fn shows(&self) -> bool {
        self.sink.is_some() || self.view.is_some()
    }

    /// Name of the encoder, when a video is written.
    pub(super) fn encoder(&self) -> Option<&str> {
        self.sink.as_ref().map(media::Sink::encoder)
    }

    /// Shows and writes the next frame.
    pub(super) fn show(&mut self, frame: media::Frame, control: &Control) -> Result<(), MediaError> {
        if let Some(view) = &self.view {
            view.show(&frame);
            // Closing the only place to look at ends the run.
            if !view.is_open() && self.sink.is_none() {
                control.stop();
            }
        }
        match &mut self.sink {
            Some(sink) => sink.write(frame),
            None => Ok(()),
        }
    }

    /// Completes the file; says how long that took.
    pub(super) fn finish(self, control: &Control) -> Result<Duration, MediaError> {
        let start = Instant::now();
        if let Some(sink) = self.sink {
            sink.finish_unless(|| control.is_aborted())?;
        }
        Ok(start.elapsed())
    }
}

/// Opens the input for frames alone, or with the sound for an output.
#[cfg(feature = "video")]
fn open(
    input: &Input,
    container: Option<media::Container>,
    live: Option<bool>,
    stop: &media::StopHandle,
    control: &Control,
) -> Result<media::Source, MediaError> {
    control.on_stop({
        let stop = stop.clone();
        move || stop.stop()
    });
    let options = media::SourceOptions { live, container, stop: stop.clone(), ..Default::default() };
    media::Source::open(input, &options)
}

/// Opens the input and what is made of it.
#[cfg(feature = "video")]
fn open_both(
    input: &Input,
    output: Option<PathBuf>,
    view: bool,
    live: Option<bool>,
    encoding: &media::SinkOptions,
    control: &Control,
) -> Result<(media::Source, Outlet), LabelError> {
    let container = output.as_ref().map(|path| media::Sink::check(path, input, encoding)).transpose()?;
    let stop = media::StopHandle::new();
    let mut source = open(input, container, live, &stop, control)?;
    let info = source.info().clone();
    let sink = match &output {
        Some(path) => Some(media::Sink::create(path, &info, source.take_audio(), encoding)?),
        None => None,
    };
    let view = if view { Some(media::View::open(&info)?) } else { None };
    Ok((source, Outlet { sink, view, stop }))
}

#[cfg(feature = "video")]
fn video(
    job: LabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    let (input, output, view, live) = (job.input.clone(), job.output.clone(), job.view, job.live);
    let encoding = job.encoding.clone();
    // Only a file is there twice.
    let twice = job.mode == Mode::TwoPass && matches!(input, Input::File(_)) && live != Some(true);
    if !twice {
        if job.redaction.is_some() || job.page.is_some() {
            return Err(LabelError::OnePass);
        }
        let (source, outlet) = open_both(&input, output, view, live, &encoding, control)?;
        return super::online::run(job, source, outlet, control, on_event);
    }
    if let Some(path) = &output {
        media::Sink::check(path, &input, &encoding)?;
    }
    let source = open(&input, None, live, &media::StopHandle::new(), control)?;
    let both = || open_both(&input, output, view, live, &encoding, control);
    super::two_pass::run(job, source, both, control, on_event)
}
