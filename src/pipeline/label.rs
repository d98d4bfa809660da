//! The job of `sphereface label`: a video, a still or an analysis in, the same with names on it
//! out.
//!
//! Every frame passes through, faces or none. What is written is the same for any number of
//! workers. A file is gone through twice, so that every decision is made with the whole of its
//! track in view; whatever comes only once is decided about as it comes.

#[cfg(feature = "video")]
use std::path::Path;
use std::time::Instant;

use super::graph::Control;
#[cfg(feature = "video")]
use super::job::Mode;
use super::job::{Event, LabelError, LabelJob, LabelSummary, Pass, RelabelJob};
use super::ledger::{Ledger, labels};
#[cfg(feature = "video")]
pub use super::outlet::Opening;
#[cfg(feature = "video")]
use super::outlet::{Making, Purpose};
use super::recognise::{self, RecogniseError};
use super::statistics::Statistics;
use crate::detect::{Scratch, Turned};
use crate::media::{self, Input};

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
        let making = Making { output: job.output.clone(), encoding: job.encoding.clone(), view: job.view };
        let video = job.video.clone();
        let open = || match &video {
            Some(video) => Ok(making.outlet(making.open(video, None, control)?.finish()?)?),
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

fn still(job: LabelJob<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<LabelSummary, LabelError> {
    let start = Instant::now();
    let Some(path) = job.input.path() else { return Err(LabelError::NoVideo(job.input.to_string())) };
    let media::Still { mut picture, damage } = media::open_still(path)?;
    if let Some(damage) = damage {
        on_event(Event::Warning(&format!("{}: {damage}", job.input)));
    }
    let size = (picture.width() as usize, picture.height() as usize);
    on_event(Event::Opened { pass: Pass::Only, size, frames: Some(1), encoder: None });
    let mut scratch = Scratch::default();
    let faces = recognise::find(job.detector, &picture, &mut scratch).map_err(RecogniseError::from)?;
    if faces.is_empty() {
        let turned = Turned::find(&picture, job.detector, &mut scratch).map_err(RecogniseError::from)?;
        if let Some(turned) = turned {
            let hint = format!("{} shows a face only when it is turned by {turned}: turn it", job.input);
            on_event(Event::Warning(&hint));
        }
    }
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
fn video(
    job: LabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    // While the input is opened there is little else to do.
    let threads = job.threads;
    std::thread::scope(|scope| {
        if let Some(embedder) = job.embedder {
            scope.spawn(move || embedder.prepare(threads));
        }
        frames(job, control, on_event)
    })
}

#[cfg(feature = "video")]
fn frames(
    mut job: LabelJob<'_>,
    control: &Control,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<LabelSummary, LabelError> {
    let (mode, live) = (job.mode, job.live);
    let twice = goes_twice(&job.input, mode, live);
    if !twice && (job.redaction.is_some() || job.page.is_some()) {
        return Err(LabelError::OnePass);
    }
    let making = Making { output: job.output.clone(), encoding: job.encoding.clone(), view: job.view };
    let opening = match job.opening.take() {
        Some(opening) => opening,
        None => open(&job.input, job.output.as_deref(), mode, live, &job.encoding, control)?,
    };
    let opened = opening.finish()?;
    if twice {
        return super::two_pass::run(job, opened, making, control, on_event);
    }
    let (source, outlet) = making.outlet(opened)?;
    super::online::run(job, source, outlet, control, on_event)
}

/// Begins to open a video for the first way through it, for a [`LabelJob`] of the same input,
/// output, mode and encoding: models can be loaded meanwhile.
///
/// # Errors
/// When the output cannot become one. What is wrong with the input is told when the job runs.
#[cfg(feature = "video")]
pub fn open(
    input: &Input,
    output: Option<&Path>,
    mode: Mode,
    live: Option<bool>,
    encoding: &media::SinkOptions,
    control: &Control,
) -> Result<Opening, LabelError> {
    let container = output.map(|path| media::Sink::check(path, input, encoding)).transpose()?;
    let purpose = Purpose {
        // It is for the way on which the output is written.
        sound: container.filter(|_| !goes_twice(input, mode, live)),
        encoding: container.map(|container| (container, encoding.clone())),
    };
    Opening::begin(input, purpose, live, control)
}

/// Whether a video is gone through twice: only a file on a disk is there twice.
#[cfg(feature = "video")]
fn goes_twice(input: &Input, mode: Mode, live: Option<bool>) -> bool {
    mode == Mode::TwoPass && matches!(input, Input::File(_)) && input.is_read_twice() && live != Some(true)
}
