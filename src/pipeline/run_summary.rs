//! Counts frames, faces and people, and notifies the subscribers.

use std::time::Instant;

use super::LabelError;
use super::job::LabelSummary;
use super::statistics::Statistics;
use super::subscriber::{Ending, Pictures, Subscriber, Subscribers, Viewers};
use crate::engine::{IdentifiedFace, LabelledFrame, Work};
use crate::report::Appearances;

/// Absences up to this long do not end an appearance, in nanoseconds.
pub const APPEARANCE_GAP_NS: u64 = 1_000_000_000;

/// Counts frames, faces and people, and notifies subscribers.
pub(super) struct RunSummary<'a> {
    /// The work done.
    pub(super) work: Work,
    /// Notified when a frame is decided; they need no pictures.
    subscribers: Subscribers<'a>,
    /// End time of the last frame.
    end_ns: u64,
    appearances: Appearances,
    faces: u64,
    named: u64,
}

impl<'a> RunSummary<'a> {
    /// An empty summary. Takes those out of `subscribers` that need no pictures.
    pub(super) fn new(subscribers: &mut Vec<Box<dyn Subscriber + 'a>>) -> Self {
        Self::telling(Subscribers::pick(subscribers, Pictures::None, APPEARANCE_GAP_NS))
    }

    /// An empty summary with these subscribers.
    pub(super) fn telling(subscribers: Subscribers<'a>) -> Self {
        let appearances = Appearances::new(APPEARANCE_GAP_NS);
        Self { work: Work::default(), subscribers, end_ns: 0, appearances, faces: 0, named: 0 }
    }

    /// Advances to `end_ns` over frames without faces.
    pub(super) fn lasts_until(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.max(end_ns);
    }

    /// Enters a frame; frames come in order.
    pub(super) fn enter(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        let faces = || frame.faces.iter().filter(|face| !face.transient);
        self.faces += faces().count() as u64;
        self.named += faces().filter(|face| face.name().is_some()).count() as u64;
        self.appearances.see(frame.pts_ns, frame.duration_ns, faces().filter_map(IdentifiedFace::who));
        self.lasts_until(frame.pts_ns.saturating_add(frame.duration_ns));
        self.subscribers.tell(frame)
    }

    /// Completes everything that the subscribers write; `dropped` frames were lost before they entered the
    /// graph. The wall time of `statistics` grows by the time that the viewers take.
    pub(super) fn close(
        self,
        mut statistics: Statistics,
        dropped: u64,
        stopped: bool,
        viewers: Viewers<'a>,
    ) -> Result<LabelSummary, LabelError> {
        // Stages count chunks of frames.
        statistics.items = self.work.frames.max(statistics.items);
        let people = self.appearances.people();
        let end = Ending { people: &people, end_ns: self.end_ns };
        let start = Instant::now();
        viewers.finish(&end)?;
        statistics.wall += start.elapsed();
        self.subscribers.finish(&end)?;
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
            cut_off: None,
        })
    }
}
