//! Confirmation of people: no event is sent before a person was seen in enough frames, because false
//! detections rarely last.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Event, EventKind, LabelledFrame};
use crate::identify::Who;

/// Holds back the events of a stream until further frames confirm them.
pub(super) struct Confirm {
    frames: u32,
    ns: u64,
    waiting: BTreeMap<Who, Unconfirmed>,
    /// People in sight who are confirmed.
    told: BTreeSet<Who>,
}

/// The event of a person who is not confirmed yet.
struct Unconfirmed {
    event: Event,
    first_ns: u64,
    frames: u32,
}

/// The result for an event.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// Events to send now, in this order.
    pub told: Vec<Event>,
    /// A person who left without being confirmed.
    pub never: Option<Who>,
    /// A person who left under an unconfirmed name, and the confirmed name.
    pub back: Option<(Who, Who)>,
}

impl Confirm {
    /// Confirms a person who was seen in `frames` frames, the first and the last at least `ns` nanoseconds
    /// apart.
    pub fn new(frames: u32, ns: u64) -> Self {
        Self { frames, ns, waiting: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Starts with another stream.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.told.clear();
    }

    /// Takes the next frame; returns the events that it confirms.
    pub fn see(&mut self, frame: &LabelledFrame) -> Vec<Event> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let seen: BTreeSet<Who> =
            frame.faces.iter().filter(|face| !face.transient).filter_map(|face| face.who()).collect();
        let mut told = Vec::new();
        for who in seen {
            if let Some(waiting) = self.waiting.get_mut(&who) {
                waiting.frames += 1;
                told.extend(self.confirmed(&who, frame.pts_ns, frame.index));
            }
        }
        told
    }

    /// Takes an event of the stream, about a frame that was already taken.
    pub fn take(&mut self, event: Event) -> Verdict {
        let (who, pts_ns, frame) = (event.who.clone(), event.pts_ns, event.frame);
        let mut verdict = Verdict::default();
        match event.kind.clone() {
            EventKind::Appeared => {
                self.waiting.insert(who.clone(), Unconfirmed { event, first_ns: pts_ns, frames: 1 });
            }
            EventKind::Renamed { from } => {
                let before = self.waiting.remove(&from);
                // The face was already seen under another name.
                let (first_ns, frames) =
                    before.as_ref().map_or((pts_ns, 1), |before| (before.first_ns, before.frames + 1));
                let waiting = match before.map(|before| before.event.kind) {
                    // A person in sight who was found again in another place.
                    Some(EventKind::Appeared) if self.told.contains(&who) => return verdict,
                    Some(EventKind::Appeared) => {
                        let event = Event { kind: EventKind::Appeared, ..event };
                        Unconfirmed { event, first_ns, frames }
                    }
                    // The name is again the confirmed one.
                    Some(EventKind::Renamed { from: first }) if first == who => return verdict,
                    Some(EventKind::Renamed { from: first }) => {
                        let kind = EventKind::Renamed { from: first };
                        Unconfirmed { event: Event { kind, ..event }, first_ns: pts_ns, frames: 1 }
                    }
                    _ => Unconfirmed { event, first_ns, frames },
                };
                self.waiting.insert(who.clone(), waiting);
            }
            EventKind::Left => {
                match self.waiting.remove(&who).map(|waiting| waiting.event.kind) {
                    Some(EventKind::Renamed { from }) => {
                        self.told.remove(&from);
                        verdict.told.push(Event { who: from.clone(), ..event });
                        verdict.back = Some((who, from));
                    }
                    Some(_) => verdict.never = Some(who),
                    None => {
                        self.told.remove(&who);
                        verdict.told.push(event);
                    }
                }
                return verdict;
            }
        }
        verdict.told.extend(self.confirmed(&who, pts_ns, frame));
        verdict
    }

    /// The event of a person who was just seen, if they are confirmed by it.
    fn confirmed(&mut self, who: &Who, pts_ns: u64, frame: u64) -> Option<Event> {
        let waiting = self.waiting.get(who)?;
        if waiting.frames < self.frames || pts_ns.saturating_sub(waiting.first_ns) < self.ns {
            return None;
        }
        let event = self.waiting.remove(who)?.event;
        if let EventKind::Renamed { from } = &event.kind {
            self.told.remove(from);
        }
        self.told.insert(who.clone());
        Some(Event { pts_ns, frame, ..event })
    }
}
