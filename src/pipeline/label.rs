//! The job of `sphereface label`: a video, a still or an analysis in, the same with names on it
//! out.
//!
//! Every frame passes through, faces or none. What is written is the same for any number of
//! workers. A file is gone through twice, so that every decision is made with the whole of its
//! track in view; whatever comes only once is decided about as it comes.

use std::time::Instant;

use super::graph::Control;
#[cfg(feature = "video")]
use super::job::Mode;
use super::job::{Event, LabelError, LabelJob, LabelSummary, Pass, RelabelJob};
use super::ledger::{Ledger, labels};
#[cfg(feature = "video")]
use super::outlet::{open, open_both};
use super::recognise::{self, RecogniseError};
use super::statistics::Statistics;
use crate::detect::Scratch;
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
