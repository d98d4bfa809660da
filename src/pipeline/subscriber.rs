//! Subscribers to the results of a job.

use std::sync::Arc;

use crate::engine::{Event, IdentifiedFace, LabelledFrame, Presence};
use crate::media::Picture;
use crate::pipeline::LabelError;
use crate::report::timeline::VideoFacts;
use crate::report::{Appearance, FaceRecord, Results};

/// The pictures that a subscriber receives with the frames of a video or a still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pictures {
    /// None. In two passes over a video, frames come as soon as the first pass has decided.
    #[default]
    None,
    /// As decoded, with faces covered if requested. In two passes, frames come during the second one.
    Plain,
    /// The same with boxes and names.
    Named,
}

/// Receives every labelled frame and every event of a job, in order, on the thread that runs it.
///
/// All that a job writes about a video is written by subscribers.
pub trait Subscriber {
    /// The pictures that are needed. In two passes, the video is then decoded a second time.
    fn pictures(&self) -> Pictures {
        Pictures::None
    }

    /// The video is open. Not called for stills.
    ///
    /// # Errors
    /// Any error ends the job, before its work.
    fn opened(&mut self, video: &VideoFacts) -> Result<(), LabelError> {
        let _ = video;
        Ok(())
    }

    /// A frame. From an analysis, a subscriber without pictures receives only frames with faces.
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
    pub pictures: Pictures,
}

impl<F: FnMut(&LabelledFrame)> Subscriber for OnFrame<F> {
    fn pictures(&self) -> Pictures {
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

/// Whether any subscriber needs pictures.
#[cfg(feature = "video")]
pub(super) fn want_pictures(subscribers: &[Box<dyn Subscriber + '_>]) -> bool {
    subscribers.iter().any(|one| one.pictures() != Pictures::None)
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
    /// Takes those out of `list` that need such pictures.
    pub fn pick(list: &mut Vec<Box<dyn Subscriber + 'a>>, pictures: Pictures, left_after_ns: u64) -> Self {
        let picked = list.extract_if(.., |one| one.pictures() == pictures).collect();
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

/// The subscribers that need pictures.
pub(super) struct Viewers<'a> {
    plain: Subscribers<'a>,
    named: Subscribers<'a>,
}

impl<'a> Viewers<'a> {
    /// Takes them out of `list`.
    pub fn pick(list: &mut Vec<Box<dyn Subscriber + 'a>>, left_after_ns: u64) -> Self {
        let [plain, named] =
            [Pictures::Plain, Pictures::Named].map(|kind| Subscribers::pick(list, kind, left_after_ns));
        Self { plain, named }
    }

    /// No subscribers.
    #[cfg(feature = "video")]
    pub fn none() -> Self {
        Self::pick(&mut Vec::new(), 0)
    }

    /// Whether any subscriber needs that kind of pictures.
    pub fn need(&self, pictures: Pictures) -> bool {
        match pictures {
            Pictures::None => false,
            Pictures::Plain => !self.plain.is_empty(),
            Pictures::Named => !self.named.is_empty(),
        }
    }

    /// Whether there are no subscribers.
    #[cfg(feature = "video")]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.named.is_empty()
    }

    /// Notifies all of the next frame, whose own picture is the plain one.
    pub fn tell(&mut self, frame: LabelledFrame, named: Option<Arc<Picture>>) -> Result<(), LabelError> {
        self.plain.tell(&frame)?;
        self.named.tell(&LabelledFrame { picture: named, ..frame })
    }

    /// Notifies all that the job is done, first those that write the video.
    pub fn finish(self, end: &Ending<'_>) -> Result<(), LabelError> {
        self.named.finish(end)?;
        self.plain.finish(end)
    }
}
