//! Joining tracks when all of them are known.

use std::collections::BTreeMap;

use super::tracker::{GAP_NS, doubt_deg};
use super::{Observation, Track, TrackId, template, tracks};
use crate::embed::Embedding;

/// Joins tracks of one shot that are the same person: consecutive, no more than [`GAP_NS`] apart, in nearby
/// positions, and less than `same_deg` degrees apart with all their views together. The most alike are joined
/// first. Tracks are then renumbered in the order of appearance.
///
/// `observations` come in the order of frames, and `cuts` are frames that begin a new shot.
pub fn join(observations: &mut [Observation], cuts: &[u64], same_deg: Option<f64>) {
    let mut shots: BTreeMap<usize, Vec<Group>> = BTreeMap::new();
    for track in tracks(observations) {
        let shot = cuts.partition_point(|&cut| cut <= track.first_frame);
        shots.entry(shot).or_default().push(Group::new(track, observations));
    }
    let mut groups = Vec::new();
    for (_, mut shot) in shots {
        while let Some((a, b)) = same_deg.and_then(|same_deg| nearest(&shot, observations, same_deg)) {
            let later = shot.remove(b);
            // Removing the later one may have moved the earlier one up.
            shot[if b < a { a - 1 } else { a }].take(later, observations);
        }
        groups.append(&mut shot);
    }
    groups.sort_by_key(|group| group.members.first().copied());
    let ids: BTreeMap<usize, TrackId> = (1..)
        .zip(&groups)
        .flat_map(|(id, group)| group.members.iter().map(move |&member| (member, TrackId(id))))
        .collect();
    for (index, observation) in observations.iter_mut().enumerate() {
        observation.track = ids.get(&index).copied().unwrap_or(observation.track);
    }
}

/// Degrees by which two tracks must be more alike than two views of a person to be joined, wherever they are.
/// The reason is that the later one began although it could have continued the earlier one.
const ANEW_DEG: f64 = 5.0;

struct Group {
    /// Its observations, in order.
    members: Vec<usize>,
    template: Option<Embedding>,
}

impl Group {
    fn new(track: Track, observations: &[Observation]) -> Self {
        Self {
            template: template(track.observations.iter().filter_map(|&at| observations.get(at))),
            members: track.observations,
        }
    }

    fn take(&mut self, other: Group, observations: &[Observation]) {
        self.members.extend(other.members);
        self.members.sort_unstable();
        self.template = template(self.members.iter().filter_map(|&at| observations.get(at)));
    }
}

/// The two groups to join next, the earlier first.
fn nearest(groups: &[Group], observations: &[Observation], same_deg: f64) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for (a, first) in groups.iter().enumerate() {
        for (b, second) in groups.iter().enumerate() {
            let Some(angle) = joint_deg(first, second, observations) else { continue };
            if angle < same_deg && best.is_none_or(|(least, ..)| angle < least) {
                best = Some((angle, a, b));
            }
        }
    }
    best.map(|(_, a, b)| (a, b))
}

/// The angle between two groups when the second could continue the first.
fn joint_deg(first: &Group, second: &Group, observations: &[Observation]) -> Option<f64> {
    let (last, next) =
        (observations.get(*first.members.last()?)?, observations.get(*second.members.first()?)?);
    let gap_ns = next.pts_ns.saturating_sub(last.end_ns());
    let follows = last.frame < next.frame && gap_ns <= GAP_NS;
    let (a, b) = (first.template.as_ref()?, second.template.as_ref()?);
    let angle = a.angle_deg(b).filter(|_| follows)?;
    Some(angle + doubt_deg(&last.face.bbox, &next.face.bbox, gap_ns).max(ANEW_DEG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{BBox, Face, Quality};
    use crate::models::ModelId;

    /// A face at frame, x, of that track, with an embedding at an angle.
    fn seen(frame: u64, x: f32, track: u32, deg: Option<f64>) -> Observation {
        let at = |deg: f64| vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        let bbox = BBox { x1: x, y1: 0.0, x2: x + 80.0, y2: 80.0 };
        Observation {
            frame,
            pts_ns: frame * 40_000_000,
            duration_ns: 40_000_000,
            face: Face { bbox, score: 1.0, landmarks: [[0.0; 2]; 5] },
            quality: Quality { size_px: 80.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 },
            embedding: deg.and_then(|deg| Embedding::new(ModelId([1; 8]), at(deg))),
            track: TrackId(track),
        }
    }

    fn joined(mut observations: Vec<Observation>, cuts: &[u64], same_deg: Option<f64>) -> Vec<u32> {
        join(&mut observations, cuts, same_deg);
        observations.iter().map(|one| one.track.0).collect()
    }

    #[test]
    fn alike_and_one_after_the_other_is_one_person_and_numbers_have_no_gap() {
        let scene = vec![
            seen(0, 0.0, 1, Some(0.0)),
            seen(0, 300.0, 2, Some(90.0)),
            seen(1, 0.0, 1, None),
            seen(20, 10.0, 5, Some(40.0)),
            seen(20, 300.0, 6, Some(170.0)),
        ];
        assert_eq!(joined(scene.clone(), &[], Some(60.0)), [1, 2, 1, 1, 3]);
        assert_eq!(joined(scene.clone(), &[10], Some(60.0)), [1, 2, 1, 3, 4], "not over a cut");
        assert_eq!(joined(scene, &[], None), [1, 2, 1, 3, 4], "not by position alone");
    }

    #[test]
    fn two_in_one_frame_or_far_apart_in_time_or_place_are_two() {
        let together = vec![seen(0, 0.0, 1, Some(0.0)), seen(0, 50.0, 2, Some(1.0))];
        assert_eq!(joined(together, &[], Some(60.0)), [1, 2]);
        let later = vec![seen(0, 0.0, 1, Some(0.0)), seen(200, 0.0, 2, Some(1.0))];
        assert_eq!(joined(later, &[], Some(60.0)), [1, 2]);
        let elsewhere = |deg| vec![seen(0, 0.0, 1, Some(0.0)), seen(9, 400.0, 2, Some(deg))];
        assert_eq!(joined(elsewhere(56.0), &[], Some(60.0)), [1, 2]);
        assert_eq!(joined(elsewhere(50.0), &[], Some(60.0)), [1, 1]);
    }
}
