//! The job of `sphereface label`: a video or a still in, the same with names on it out.
//!
//! ```text
//! decode ─▶ detect ─▶ align ─▶ embed ─▶ annotate ─▶ write
//!   1         N         N     N, batches    N         1, in order
//! ```
//!
//! Every frame passes through, faces or none. What is written is the same for any number of
//! workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::graph::{Control, GraphError};
use super::recognise::{self, RecogniseError, Recogniser, Sighting};
use super::statistics::Statistics;
use crate::annotate::{Annotator, Label};
use crate::detect::{Detector, Scratch};
use crate::media::{self, Input, MediaError};
use crate::report::{Appearance, Appearances, FaceRecord, JsonLines, ReportError};

/// Absences up to this long do not end an appearance, in nanoseconds.
pub const APPEARANCE_GAP_NS: u64 = 1_000_000_000;

/// Faces embedded together at most: enough to make weight traffic negligible.
pub const BATCH_FACES: usize = 16;

/// What to label and where the results go.
pub struct LabelJob<'a> {
    /// The video or still.
    pub input: Input,
    /// The annotated video or still; `None` for none.
    pub output: Option<PathBuf>,
    /// Finds the faces.
    pub detector: &'a Detector,
    /// Names them; `None` leaves everyone unknown.
    pub recogniser: Option<Recogniser<'a>>,
    /// Draws them.
    pub annotator: &'a Annotator,
    /// Where to list them.
    pub json_lines: Option<JsonLines>,
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

/// What happens while a job runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The input is open.
    Opened {
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
    /// Faces seen, over all frames.
    pub faces: u64,
    /// Faces named, over all frames.
    pub named: u64,
    /// Frames that a live input handed out and that were not worked on.
    pub dropped: u64,
    /// Who was seen when.
    pub people: Vec<Appearance>,
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
    /// The list of faces cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The stage graph failed, not a stage of it.
    #[error(transparent)]
    Graph(Box<GraphError<LabelError>>),
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

/// What is drawn for the faces of a picture.
fn labels(sightings: &[Sighting]) -> Vec<Label> {
    let one = |sighting: &Sighting| Label {
        landmarks: Some(sighting.face.landmarks),
        name: sighting.identification.name.clone(),
        angle_deg: sighting.identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
        score: Some(sighting.face.score),
        ..Label::unknown(sighting.face.bbox)
    };
    sightings.iter().map(one).collect()
}

/// Counts and lists what was seen.
struct Ledger {
    json_lines: Option<JsonLines>,
    appearances: Appearances,
    faces: u64,
    named: u64,
}

impl Ledger {
    fn new(json_lines: Option<JsonLines>) -> Self {
        Self { json_lines, appearances: Appearances::new(APPEARANCE_GAP_NS), faces: 0, named: 0 }
    }

    fn enter(
        &mut self,
        frame: u64,
        pts_ns: u64,
        duration_ns: u64,
        sightings: &[Sighting],
    ) -> Result<(), ReportError> {
        let names = sightings.iter().filter_map(|sighting| sighting.identification.name.as_deref());
        self.faces += sightings.len() as u64;
        self.named += names.clone().count() as u64;
        self.appearances.see(pts_ns, duration_ns, names);
        let Some(lines) = &mut self.json_lines else { return Ok(()) };
        for Sighting { face, quality, identification } in sightings {
            let runner_up = identification.runner_up.as_ref();
            lines.write(&FaceRecord {
                frame,
                pts_s: pts_ns as f64 / 1e9,
                bbox: [face.bbox.x1, face.bbox.y1, face.bbox.x2, face.bbox.y2],
                landmarks: face.landmarks,
                score: face.score,
                quality: *quality,
                name: identification.name.as_deref(),
                angle_deg: identification.nearest.as_ref().map(|nearest| nearest.angle_deg),
                runner_up: runner_up.map(|candidate| candidate.name.as_str()),
                runner_up_angle_deg: runner_up.map(|candidate| candidate.angle_deg),
            })?;
        }
        Ok(())
    }

    fn close(self, statistics: Statistics, dropped: u64, stopped: bool) -> Result<LabelSummary, ReportError> {
        self.json_lines.map(JsonLines::finish).transpose()?;
        Ok(LabelSummary {
            frames: statistics.items,
            faces: self.faces,
            named: self.named,
            dropped: dropped + statistics.dropped,
            people: self.appearances.people(),
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
    on_event(Event::Opened { size, frames: Some(1), encoder: None });
    let faces = recognise::find(job.detector, &picture, &mut Scratch::default());
    let candidates = recognise::cut(&picture, faces, job.recogniser.is_some());
    let sightings = match job.recogniser {
        Some(recogniser) => {
            let named = recogniser.recognise(vec![candidates], &mut recogniser.embedder.scratch())?;
            named.into_iter().flatten().collect()
        }
        None => recognise::strangers(candidates),
    };
    let mut ledger = Ledger::new(job.json_lines);
    ledger.enter(0, 0, 0, &sightings)?;
    if let Some(output) = &job.output {
        job.annotator.draw_rgb(&mut picture, &labels(&sightings));
        media::write_still(output, &picture)?;
    }
    on_event(Event::Frame);
    let statistics = Statistics { wall: start.elapsed(), items: 1, ..Statistics::default() };
    Ok(ledger.close(statistics, 0, false)?)
}

#[cfg(feature = "video")]
fn video(
    job: LabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    use super::graph::{self, Overflow};
    use crate::media::{Audio, Sink, Source, SourceOptions, StopHandle, View};

    let LabelJob { input, output, detector, recogniser, annotator, json_lines, live, threads, .. } = job;
    let threads = threads.max(1);
    let container = match &output {
        Some(path) => Some(Sink::check(path, &input, &job.encoding)?),
        None => None,
    };
    let stop = StopHandle::new();
    control.on_stop({
        let stop = stop.clone();
        move || stop.stop()
    });
    let mut source =
        Source::open(&input, &SourceOptions { live, container, stop, ..SourceOptions::default() })?;
    let info = source.info().clone();
    let audio = if output.is_some() { source.take_audio() } else { Audio::none() };
    let mut sink = match &output {
        Some(path) => Some(Sink::create(path, &info, audio, &job.encoding)?),
        None => None,
    };
    let view = if job.view { Some(View::open(&info)?) } else { None };
    on_event(Event::Opened {
        size: (info.width, info.height),
        frames: info.frames,
        encoder: sink.as_ref().map(Sink::encoder),
    });

    // Live input wants fresh frames more than full queues.
    let (overflow, in_flight) =
        if info.live { (Overflow::DropOldest(1), threads + 2) } else { (Overflow::Wait, 2 * threads + 4) };
    let draws = sink.is_some() || view.is_some();
    let mut ledger = Ledger::new(json_lines);
    let (warn, warnings) = crossbeam_channel::unbounded::<String>();
    let mut statistics = graph::run(in_flight, control, |graph| {
        let frames = graph.source("decode", overflow, || {
            let frame = source.next_frame()?;
            source.take_warnings().into_iter().for_each(|text| drop(warn.send(text)));
            Ok(frame)
        });
        let found = graph.map("detect", threads, frames, || {
            let mut scratch = Scratch::default();
            move |frame: media::Frame| {
                let picture = frame.picture.to_rgb();
                let faces = recognise::find(detector, &picture, &mut scratch);
                Ok((frame, picture, faces))
            }
        });
        let cut = graph.map("align", threads, found, || {
            move |(frame, picture, faces)| Ok((frame, recognise::cut(&picture, faces, recogniser.is_some())))
        });
        let named = match recogniser {
            Some(recogniser) => graph.batch(
                "embed",
                threads,
                BATCH_FACES,
                |(_, candidates): &(media::Frame, Vec<_>)| candidates.len(),
                cut,
                move || {
                    let mut scratch = recogniser.embedder.scratch();
                    move |batch: Vec<(media::Frame, Vec<_>)>| {
                        let (frames, candidates): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                        let sightings = recogniser.recognise(candidates, &mut scratch)?;
                        Ok(frames.into_iter().zip(sightings).collect())
                    }
                },
            ),
            None => graph
                .map("judge", 1, cut, || |(frame, candidates)| Ok((frame, recognise::strangers(candidates)))),
        };
        let drawn = graph.map("annotate", threads, named, || {
            move |(mut frame, sightings): (media::Frame, Vec<Sighting>)| {
                if draws {
                    annotator.draw(Arc::make_mut(&mut frame.picture), &labels(&sightings));
                }
                Ok((frame, sightings))
            }
        });
        graph.sink("write", drawn, |(frame, sightings)| {
            ledger.enter(frame.index, frame.pts_ns, frame.duration_ns, &sightings)?;
            if let Some(view) = &view {
                view.show(&frame);
                // Closing the only place to look at ends the run.
                if !view.is_open() && sink.is_none() {
                    control.stop();
                }
            }
            if let Some(sink) = &mut sink {
                sink.write(frame)?;
            }
            warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
            on_event(Event::Frame);
            Ok(())
        });
    })?;
    warnings.try_iter().for_each(|text| on_event(Event::Warning(&text)));
    let start = Instant::now();
    if let Some(sink) = sink {
        sink.finish_unless(|| control.is_aborted())?;
    }
    statistics.wall += start.elapsed();
    Ok(ledger.close(statistics, source.dropped(), control.is_stopping())?)
}
