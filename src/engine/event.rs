//! Events: who appears, leaves or is renamed.

use std::collections::BTreeMap;

use super::face::{IdentifiedFace, LabelledFrame};
use crate::identify::Who;
use crate::track::TrackId;

/// Something that happened in a source.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The kind of event.
    pub kind: EventKind,
    /// The track concerned. For a person who left, the last track that showed them.
    pub track: TrackId,
    /// The person, as known at that time.
    pub who: Who,
    /// Time in nanoseconds since the start of the source.
    pub pts_ns: u64,
    /// The frame in which it happened. For a person who left, the last frame that showed them.
    pub frame: u64,
    /// The angle to the nearest person of the gallery in degrees, named or not.
    pub angle_deg: Option<f32>,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A person came into sight.
    Appeared,
    /// The decision about a person in sight has changed.
    Renamed {
        /// The previous decision.
        from: Who,
    },
    /// A person has been out of sight for a while.
    Left,
}

/// Derives events from labelled frames.
///
/// A person has left after being out of sight for `gap_ns`. A person who comes back sooner has not left, even
/// across a cut or on another track.
#[derive(Debug, Clone)]
pub struct Presence {
    gap_ns: u64,
    here: BTreeMap<Who, LastSeen>,
    tracks: BTreeMap<TrackId, Who>,
}

/// When and where a person was last seen.
#[derive(Debug, Clone)]
struct LastSeen {
    track: TrackId,
    frame: u64,
    end_ns: u64,
    angle_deg: Option<f32>,
}

impl Presence {
    /// Nobody is in sight yet. A person who is not seen for `gap_ns` nanoseconds has left.
    pub fn new(gap_ns: u64) -> Self {
        Self { gap_ns, here: BTreeMap::new(), tracks: BTreeMap::new() }
    }

    /// The events of the next frame.
    pub fn see(&mut self, frame: &LabelledFrame) -> Vec<Event> {
        let mut events = Vec::new();
        self.leave(frame.pts_ns, &mut events);
        for face in frame.faces.iter().filter(|face| !face.transient) {
            if let (Some(track), Some(who)) = (face.track, face.who()) {
                events.extend(self.see_face(frame, face, track, who));
            }
        }
        let here = &self.here;
        self.tracks.retain(|track, who| here.get(who).is_some_and(|seen| seen.track == *track));
        events
    }

    /// The source has ended: everybody leaves.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.leave(u64::MAX, &mut events);
        events
    }

    fn see_face(
        &mut self,
        frame: &LabelledFrame,
        face: &IdentifiedFace,
        track: TrackId,
        who: Who,
    ) -> Option<Event> {
        let angle_deg = face.angle_deg();
        let end_ns = frame.pts_ns.saturating_add(frame.duration_ns);
        let seen = LastSeen { track, frame: frame.index, end_ns, angle_deg };
        let before = self.tracks.insert(track, who.clone()).filter(|before| *before != who);
        // The person that this track showed before is no longer in sight on this track.
        if let Some(before) = &before
            && self.here.get(before).is_some_and(|seen| seen.track == track)
        {
            self.here.remove(before);
        }
        let was_here = self.here.insert(who.clone(), seen).is_some();
        let kind = match before {
            Some(from) => EventKind::Renamed { from },
            None if was_here => return None,
            None => EventKind::Appeared,
        };
        Some(Event { kind, track, who, pts_ns: frame.pts_ns, frame: frame.index, angle_deg })
    }

    /// Adds the events of people who have been out of sight for too long at `now_ns`, in the order in which
    /// they were last seen.
    fn leave(&mut self, now_ns: u64, events: &mut Vec<Event>) {
        let gap_ns = self.gap_ns;
        let gone = |seen: &LastSeen| now_ns == u64::MAX || now_ns.saturating_sub(seen.end_ns) > gap_ns;
        let first = events.len();
        let all = std::mem::take(&mut self.here);
        let (gone, here): (BTreeMap<_, _>, _) = all.into_iter().partition(|(_, seen)| gone(seen));
        self.here = here;
        for (who, LastSeen { track, frame, end_ns, angle_deg }) in gone {
            events.push(Event { kind: EventKind::Left, track, who, pts_ns: end_ns, frame, angle_deg });
        }
        events[first..].sort_by_key(|event| (event.pts_ns, event.track));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{BBox, Face, Quality};
    use crate::identify::Identification;

    const SECOND: u64 = 1_000_000_000;

    fn frame(index: u64, faces: &[(u32, &str)]) -> LabelledFrame {
        let bbox = BBox { x1: 0.0, y1: 0.0, x2: 80.0, y2: 80.0 };
        let quality = Quality { size_px: 80.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 };
        let one = |&(track, name): &(u32, &str)| IdentifiedFace {
            identification: Identification { name: Some(name.into()), ..Identification::UNKNOWN },
            track: Some(TrackId(track)),
            ..IdentifiedFace::unknown(Face { bbox, score: 1.0, landmarks: [[0.0; 2]; 5] }, quality)
        };
        LabelledFrame {
            index,
            pts_ns: index * SECOND,
            duration_ns: SECOND,
            faces: faces.iter().map(one).collect(),
            ..LabelledFrame::default()
        }
    }

    fn told(presence: &mut Presence, frame: &LabelledFrame) -> Vec<String> {
        presence.see(frame).iter().map(tell).collect()
    }

    fn tell(event: &Event) -> String {
        let what = match &event.kind {
            EventKind::Appeared => "appeared".to_owned(),
            EventKind::Renamed { from } => format!("was {from}"),
            EventKind::Left => "left".to_owned(),
        };
        format!("{} {what} at {}", event.who, event.pts_ns / SECOND)
    }

    #[test]
    fn somebody_appears_once_and_leaves_after_the_gap() {
        let mut presence = Presence::new(2 * SECOND);
        assert_eq!(told(&mut presence, &frame(0, &[(1, "Ada")])), ["Ada appeared at 0"]);
        assert!(told(&mut presence, &frame(1, &[])).is_empty());
        assert!(told(&mut presence, &frame(2, &[(2, "Ada")])).is_empty(), "in another track, and still here");
        assert!(told(&mut presence, &frame(5, &[])).is_empty(), "two seconds are not too long");
        assert_eq!(told(&mut presence, &frame(6, &[(3, "Bo")])), ["Ada left at 3", "Bo appeared at 6"]);
        let end: Vec<String> = presence.finish().iter().map(tell).collect();
        assert_eq!(end, ["Bo left at 7"]);
    }

    #[test]
    fn a_track_that_gets_another_name_is_renamed_and_nobody_leaves() {
        let mut presence = Presence::new(2 * SECOND);
        presence.see(&frame(0, &[(1, "Ada"), (2, "Cy")]));
        assert_eq!(told(&mut presence, &frame(1, &[(1, "Bo"), (2, "Cy")])), ["Bo was Ada at 1"]);
        let left: Vec<String> = presence.finish().iter().map(tell).collect();
        assert_eq!(left, ["Bo left at 2", "Cy left at 2"]);
    }

    #[test]
    fn a_transient_face_is_no_event() {
        let mut presence = Presence::new(SECOND);
        let mut one = frame(0, &[(1, "Ada")]);
        one.faces[0].transient = true;
        assert!(presence.see(&one).is_empty());
    }
}
