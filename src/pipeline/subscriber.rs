//! Subscribers to the results of a job.

use crate::engine::{Event, IdentifiedFace, LabelledFrame, Presence};
use crate::pipeline::LabelError;
use crate::report::timeline::VideoFacts;
use crate::report::{Appearance, FaceRecord, Results};

/// Receives every labelled frame and every event of a job, in order, on the thread that runs it.
///
/// In two passes over a video, this happens after the first pass, when everything is decided: before the
/// output is written, or while it is written if pictures are needed.
pub trait Subscriber {
    /// Whether the pictures of frames are needed. In two passes, the video is then decoded a second time.
    fn wants_pictures(&self) -> bool {
        false
    }

    /// The video is open. Not called for stills.
    ///
    /// # Errors
    /// Any error ends the job, before its work.
    fn opened(&mut self, video: &VideoFacts) -> Result<(), LabelError> {
        let _ = video;
        Ok(())
    }

    /// A frame. From an analysis, only frames with faces are reported, without pictures.
    ///
    /// # Errors
    /// Any error ends the job.
    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError>;

    /// An event of the frame before.
    ///
    /// # Errors
    /// Any error ends the job.
    fn event(&mut self, event: &Event) -> Result<(), LabelError> {
        let _ = event;
        Ok(())
    }

    /// The job is done. Not called if it fails.
    ///
    /// # Errors
    /// Any error fails the job.
    fn finish(self: Box<Self>, end: &Ending<'_>) -> Result<(), LabelError> {
        let _ = end;
        Ok(())
    }
}

/// The results at the end of a job.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Ending<'a> {
    /// The appearances of all people.
    pub people: &'a [Appearance],
    /// End time of the last frame, in nanoseconds since the start.
    pub end_ns: u64,
}

/// A function that is called with every labelled frame.
pub(super) struct OnFrame<F> {
    pub call: F,
    pub pictures: bool,
}

impl<F: FnMut(&LabelledFrame)> Subscriber for OnFrame<F> {
    fn wants_pictures(&self) -> bool {
        self.pictures
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        (self.call)(frame);
        Ok(())
    }
}

/// A function that is called with every event.
pub(super) struct OnEvent<F>(pub F);

impl<F: FnMut(&Event)> Subscriber for OnEvent<F> {
    fn frame(&mut self, _: &LabelledFrame) -> Result<(), LabelError> {
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), LabelError> {
        (self.0)(event);
        Ok(())
    }
}

impl Subscriber for Results {
    fn opened(&mut self, video: &VideoFacts) -> Result<(), LabelError> {
        Ok(Results::opened(self, video)?)
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        if self.lists_faces() {
            for face in frame.faces.iter().filter(|face| !face.transient) {
                self.face(&record(frame, face))?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, end: &Ending<'_>) -> Result<(), LabelError> {
        Ok(Results::finish(*self, end.people, end.end_ns)?)
    }
}

/// Notifies all subscribers about the video.
#[cfg(feature = "video")]
pub(super) fn tell_opened(
    list: &mut [Box<dyn Subscriber + '_>],
    video: &VideoFacts,
) -> Result<(), LabelError> {
    list.iter_mut().try_for_each(|one| one.opened(video))
}

/// A face as in reports.
fn record<'a>(frame: &LabelledFrame, one: &'a IdentifiedFace) -> FaceRecord<'a> {
    let IdentifiedFace { face, quality, identification, track, stranger, votes, via_track, .. } = one;
    let nearest = identification.nearest.as_ref();
    let runner_up = identification.runner_up.as_ref();
    FaceRecord {
        frame: frame.index,
        pts_ns: frame.pts_ns,
        pts_s: frame.pts_ns as f64 / 1e9,
        bbox: [face.bbox.x1, face.bbox.y1, face.bbox.x2, face.bbox.y2],
        landmarks: face.landmarks,
        score: face.score,
        quality: *quality,
        track: track.map(|track| track.0),
        stranger: *stranger,
        name: identification.name.as_deref(),
        angle_deg: nearest.map(|nearest| nearest.angle_deg),
        handicap_deg: nearest.map(|nearest| nearest.handicap_deg),
        template: nearest.map(|nearest| nearest.template.as_str()),
        runner_up: runner_up.map(|candidate| candidate.name.as_str()),
        runner_up_angle_deg: runner_up.map(|candidate| candidate.angle_deg),
        ambiguous: identification.ambiguous,
        rejected: identification.rejected.as_ref().map(|one| one.candidate.name.as_str()),
        via_track: via_track.map(|via| via.track.0),
        views: votes.map(|votes| votes.views),
        votes: votes.map(|votes| votes.nearest),
    }
}

/// Subscribers to the same frames, with the people in sight.
pub(super) struct Subscribers<'a> {
    list: Vec<Box<dyn Subscriber + 'a>>,
    presence: Presence,
}

impl<'a> Subscribers<'a> {
    /// Takes out of `list` those that need pictures, or those that do not.
    pub fn pick(list: &mut Vec<Box<dyn Subscriber + 'a>>, pictures: bool, left_after_ns: u64) -> Self {
        let (picked, rest) = list.drain(..).partition(|one| one.wants_pictures() == pictures);
        *list = rest;
        Self { list: picked, presence: Presence::new(left_after_ns) }
    }

    /// Whether there are no subscribers.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Notifies all of the next frame.
    pub fn tell(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        if self.list.is_empty() {
            return Ok(());
        }
        let events = self.presence.see(frame);
        for one in &mut self.list {
            one.frame(frame)?;
            events.iter().try_for_each(|event| one.event(event))?;
        }
        Ok(())
    }

    /// Notifies all that the job is done.
    pub fn finish(mut self, end: &Ending<'_>) -> Result<(), LabelError> {
        let events = self.presence.finish();
        for mut one in self.list {
            events.iter().try_for_each(|event| one.event(event))?;
            one.finish(end)?;
        }
        Ok(())
    }
}
