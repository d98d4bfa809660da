//! The job of `sphereface label`: labels a video, a still or an analysis.
//!
//! Every frame passes through, with or without faces. The output does not depend on the number of workers.
//! A file is read in two passes, so that every decision uses the whole track. An input that can be read only
//! once is labelled as it arrives.

#[cfg(feature = "video")]
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::LabelError;
use super::graph::Control;
#[cfg(feature = "video")]
use super::job::Mode;
#[cfg(feature = "video")]
use super::job::RequestError;
use super::job::{LabelJob, LabelSummary, Pass, Progress, RelabelJob};
use super::labels::labels;
#[cfg(feature = "video")]
pub use super::open::PendingSource;
#[cfg(feature = "video")]
use super::open::Purpose;
#[cfg(feature = "video")]
use super::output::OutputSpec;
use super::run_summary::RunSummary;
use super::statistics::Statistics;
use super::subscriber::{Pictures, Viewers};
use crate::detect::{Scratch, Turned};
use crate::engine::{Engine, LabelledFrame, RecogniseError, Recogniser};
use crate::media::{self, Input, Picture};

impl LabelJob<'_> {
    /// Labels the input. Progress is reported on the calling thread.
    ///
    /// `control` ends it early: after [`Control::stop`] the outputs are complete up to there, after
    /// [`Control::abort`] there are none.
    ///
    /// # Errors
    /// The first error of any stage or subscriber. No output then appears under its name.
    pub fn run(
        self,
        control: &Control,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<LabelSummary, LabelError> {
        self.request().check()?;
        #[cfg(feature = "video")]
        self.check_selection()?;
        match &self.input {
            Input::Still(_) => still(self, on_progress),
            #[cfg(feature = "video")]
            _ => video(self, control, on_progress),
            #[cfg(not(feature = "video"))]
            input => {
                let _ = control;
                Err(LabelError::NoVideo(input.to_string()))
            }
        }
    }
}

impl RelabelJob<'_> {
    /// Labels an analysed video again without detecting or embedding.
    ///
    /// `control` and progress as in [`LabelJob::run`].
    ///
    /// # Errors
    /// The first error of any stage or subscriber. No output then appears under its name.
    pub fn run(
        self,
        control: &Control,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<LabelSummary, LabelError> {
        #[cfg(feature = "video")]
        {
            self.check_whole()?;
            let spec =
                OutputSpec { output: self.output.clone(), encoding: self.encoding.clone(), view: self.view };
            let video = self.video.clone();
            let open = || match &video {
                Some(video) => Ok(spec.begin(spec.open(video, None, control)?.finish()?, control)?),
                None => Err(LabelError::NoVideo("the analysis".into())),
            };
            super::two_pass::relabel(self, open, control, on_progress)
        }
        #[cfg(not(feature = "video"))]
        {
            let _ = (self, control, on_progress);
            Err(LabelError::NoVideo("the analysis".into()))
        }
    }
}

fn still(
    mut job: LabelJob<'_>,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let start = Instant::now();
    let Some(path) = job.input.path() else { return Err(LabelError::NoVideo(job.input.to_string())) };
    let media::Still { mut picture, damage, animated } = media::open_still(path)?;
    let animated = animated.then(|| media::ONLY_FIRST.to_owned());
    for remark in damage.into_iter().chain(animated) {
        on_progress(Progress::Warning(&format!("{}: {remark}", job.input)));
    }
    let size = (picture.width() as usize, picture.height() as usize);
    on_progress(Progress::Opened { pass: Pass::Only, size, frames: Some(1), encoder: None });
    let recogniser = match &job.gallery {
        Some(gallery) => Recogniser::new(&job.engine, gallery),
        None => Recogniser::without_gallery(&job.engine),
    };
    let faces = recogniser.name(&picture)?;
    if faces.is_empty()
        && let Some(turned) = turned(&job.engine, &picture)?
    {
        let hint = format!("{} shows a face only if rotated by {turned}: rotate the picture", job.input);
        on_progress(Progress::Warning(&hint));
    }
    let mut redacted = None;
    let mut frame = LabelledFrame { faces, ..LabelledFrame::default() };
    if let Some(redaction) = job.redaction {
        frame.covered = redaction.of_still(&frame.faces);
        redaction.redactor.draw_rgb(&mut picture, &frame.covered);
        let check = redaction.check();
        redacted = Some(check.summary.clone());
        job.subscribers.push(Box::new(check));
    }
    let mut viewers = Viewers::pick(&mut job.subscribers, 0);
    let mut summary = RunSummary::new(&mut job.subscribers);
    summary.enter(&frame)?;
    if viewers.need(Pictures::Plain) {
        frame.picture = Some(Arc::new(Picture::from_rgb(&picture)));
    }
    if job.output.is_some() || viewers.need(Pictures::Named) {
        let annotator = job.drawing.annotator(job.gallery.as_ref())?;
        annotator.draw_rgb(&mut picture, &labels(&frame.faces));
    }
    let named = viewers.need(Pictures::Named).then(|| Arc::new(Picture::from_rgb(&picture)));
    viewers.tell(frame, named)?;
    // A still is written in all its colours, so not by a subscriber.
    job.output.as_ref().map(|output| media::write_still(output, &picture)).transpose()?;
    on_progress(Progress::Frame);
    let statistics = Statistics { wall: start.elapsed(), items: 1, ..Statistics::default() };
    let summary = summary.close(statistics, 0, false, viewers)?;
    Ok(LabelSummary { redacted: redacted.and_then(|redacted| redacted.take()), ..summary })
}

/// The rotation by which a still shows a face.
fn turned(engine: &Engine, picture: &image::RgbImage) -> Result<Option<Turned>, RecogniseError> {
    Ok(Turned::find(picture, engine.detector(), &mut Scratch::default())?)
}

#[cfg(feature = "video")]
fn video(
    job: LabelJob<'_>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    // The input is still being opened, so the threads are free.
    let engine = job.engine.clone();
    std::thread::scope(|scope| {
        if job.embeds() {
            scope.spawn(move || engine.embedder().prepare(engine.threads()));
        }
        frames(job, control, on_progress)
    })
}

#[cfg(feature = "video")]
fn frames(
    mut job: LabelJob<'_>,
    control: &Control,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<LabelSummary, LabelError> {
    let (mode, live) = (job.mode, job.live);
    let twice = goes_twice(&job.input, mode, live);
    if !twice && (job.redaction.is_some() || job.page.is_some()) {
        return Err(RequestError::OnePass.into());
    }
    let spec = OutputSpec { output: job.output.clone(), encoding: job.encoding.clone(), view: job.view };
    let opening = match job.opening.take() {
        Some(opening) => opening,
        None if job.selection.is_all() => {
            open(&job.input, job.output.as_deref(), mode, live, &job.encoding, control)?
        }
        None => {
            let purpose = Purpose { sound: None, encoding: None, selection: job.selection };
            PendingSource::begin(&job.input, purpose, live, control)?
        }
    };
    let opened = opening.finish()?;
    if twice {
        return super::two_pass::run(job, opened, spec, control, on_progress);
    }
    super::online::run(job, spec.begin(opened, control)?, control, on_progress)
}

/// Begins to open a video for the first pass over it, for a [`LabelJob`] of the same input,
/// output, mode and encoding: models can be loaded in the meantime.
///
/// # Errors
/// When the output cannot be written. Errors of the input are reported when the job runs.
#[cfg(feature = "video")]
pub fn open(
    input: &Input,
    output: Option<&Path>,
    mode: Mode,
    live: Option<bool>,
    encoding: &media::SinkOptions,
    control: &Control,
) -> Result<PendingSource, LabelError> {
    let container = output.map(|path| media::Sink::check(path, input, encoding)).transpose()?;
    let purpose = Purpose {
        // The encoder is needed only in the pass that writes the output.
        sound: container.filter(|_| !goes_twice(input, mode, live)),
        encoding: container.map(|container| (container, encoding.clone())),
        selection: media::Selection::default(),
    };
    PendingSource::begin(input, purpose, live, control)
}

/// Whether a video is read in two passes: only a file on a disk can be read twice.
#[cfg(feature = "video")]
fn goes_twice(input: &Input, mode: Mode, live: Option<bool>) -> bool {
    mode == Mode::TwoPass && matches!(input, Input::File(_)) && input.is_read_twice() && live != Some(true)
}
