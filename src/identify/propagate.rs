//! Name propagation: a track slightly beyond the threshold takes the name of a matching track in the
//! same video.
//!
//! Two views from one video are far more alike than a view and a still: camera, light, hair and age are the
//! same. So a track that just misses the threshold can be identified by another track.

use serde::{Deserialize, Serialize};

use super::Identification;
use crate::embed::Embedding;
use crate::track::TrackId;

/// Degrees by which a track may miss the threshold. By the default model's calibration, ten times as many
/// strangers pass this as pass the threshold; [`NEARER_DEG`] stops nearly all of them.
const BEYOND_DEG: f64 = 5.0;

/// Degrees inside the threshold by which it must match a named track: a hundredth of the threshold's
/// false match rate.
const NEARER_DEG: f64 = 10.0;

/// The track from which another one takes its name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ViaTrack {
    /// A track named by the gallery alone.
    pub track: TrackId,
    /// The angle between the two tracks as wholes in degrees.
    pub angle_deg: f32,
}

/// One track and its decision so far.
pub(super) struct IdentifiedTrack<'a> {
    pub(super) track: TrackId,
    pub(super) identification: &'a Identification,
    /// Direction of the sum of its views; `None` without one.
    pub(super) template: Option<&'a Embedding>,
}

/// The unnamed tracks that take the name of their nearest person from a matching track named by the
/// gallery alone, with the index of each. Nearer pairs come first. Two tracks of one person never share
/// a frame.
pub(super) fn propagate_names(
    tracks: &[IdentifiedTrack<'_>],
    together: impl Fn(usize, usize) -> bool,
    threshold_deg: f64,
) -> Vec<(usize, ViaTrack)> {
    let nearest = |at: usize| tracks[at].identification.nearest.as_ref();
    let named: Vec<usize> =
        (0..tracks.len()).filter(|&at| tracks[at].identification.name.is_some()).collect();
    let through = |at: usize| -> Option<(usize, ViaTrack)> {
        let person = nearest(at).filter(|one| f64::from(one.judged_deg()) < threshold_deg + BEYOND_DEG)?;
        let template = tracks[at].template?;
        let angle = |&other: &usize| {
            let angle_deg = tracks[other].template?.angle_deg(template)? as f32;
            Some(ViaTrack { track: tracks[other].track, angle_deg })
        };
        let best_of = |name: &String| {
            let of_them = |other: &&usize| tracks[**other].identification.name.as_ref() == Some(name);
            let all = named.iter().filter(of_them).filter_map(angle);
            all.min_by(|a, b| a.angle_deg.total_cmp(&b.angle_deg))
        };
        let best = best_of(&person.name)?;
        // A track as near to two people must be nearer to a track of the one than to any of the other.
        let Identification { ambiguous, runner_up, .. } = tracks[at].identification;
        let other = runner_up.as_ref().filter(|_| *ambiguous).and_then(|one| best_of(&one.name));
        if other.is_some_and(|other| other.angle_deg <= best.angle_deg) {
            return None;
        }
        (f64::from(best.angle_deg) < threshold_deg - NEARER_DEG).then_some((at, best))
    };
    let unnamed = (0..tracks.len()).filter(|&at| tracks[at].identification.name.is_none());
    let mut proposed: Vec<(usize, ViaTrack)> = unnamed.filter_map(through).collect();
    proposed.sort_by(|(a, one), (b, other)| one.angle_deg.total_cmp(&other.angle_deg).then(a.cmp(b)));
    let mut given: Vec<(usize, ViaTrack)> = Vec::new();
    for (at, through) in proposed {
        let same = |other: usize| nearest(other).map(|one| &one.name) == nearest(at).map(|one| &one.name);
        let holders = named.iter().copied().chain(given.iter().map(|&(other, _)| other));
        if !holders.filter(|&other| same(other)).any(|other| together(at, other)) {
            given.push((at, through));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::Candidate;
    use crate::models::ModelId;

    /// A unit vector at `deg` degrees in the plane of the first two of 40 axes, Ada being at 0.
    fn at(deg: f64) -> Embedding {
        let mut vector = vec![0.0; 40];
        (vector[0], vector[1]) = (deg.to_radians().cos() as f32, deg.to_radians().sin() as f32);
        Embedding::new(ModelId([1; 8]), vector).unwrap()
    }

    /// Indices of the tracks at these angles from Ada that get her name through another, and which.
    fn through(angles: &[f64], together: &[(usize, usize)]) -> Vec<(usize, u32)> {
        let identification = |&deg: &f64| Identification {
            name: (deg.abs() < 60.0).then(|| "Ada".to_owned()),
            nearest: Some(Candidate {
                name: "Ada".into(),
                angle_deg: deg.abs() as f32,
                template: "a".into(),
                handicap_deg: 0.0,
            }),
            ..Identification::UNKNOWN
        };
        let all: Vec<_> = angles.iter().map(|deg| (identification(deg), at(*deg))).collect();
        let mut seen = Vec::new();
        for ((identification, template), number) in all.iter().zip(1..) {
            seen.push(IdentifiedTrack { track: TrackId(number), identification, template: Some(template) });
        }
        let given = propagate_names(&seen, |a, b| together.contains(&(a.min(b), a.max(b))), 60.0);
        given.into_iter().map(|(at, through)| (at, through.track.0)).collect()
    }

    #[test]
    fn who_misses_the_threshold_by_little_is_named_by_a_near_track() {
        assert_eq!(through(&[20.0, 64.0], &[]), [(1, 1)]);
        // The nearest of two; beyond 65 degrees no name is propagated.
        assert_eq!(through(&[15.0, 30.0, 64.0, 66.0], &[]), [(2, 2)]);
        // Near to the gallery, but far from the track.
        assert_eq!(through(&[20.0, -40.0, -64.0], &[]), [(2, 2)]);
        assert_eq!(through(&[20.0, -64.0], &[]), []);
        assert_eq!(through(&[13.0, 64.0], &[]), []);
        // A propagated name is not propagated further.
        assert_eq!(through(&[15.0, 64.0, 64.5], &[]), [(1, 1), (2, 1)]);
        assert_eq!(through(&[10.0, 59.9, 64.0], &[(0, 2)]), []);
    }

    #[test]
    fn who_is_as_near_to_two_people_needs_a_track_of_the_one_that_is_nearer_than_those_of_the_other() {
        let candidate = |name: &str, angle_deg: f32| {
            Some(Candidate { name: name.into(), angle_deg, template: "a".into(), handicap_deg: 0.0 })
        };
        let named = |name: &str, angle_deg| Identification {
            name: Some(name.into()),
            nearest: candidate(name, angle_deg),
            ..Identification::UNKNOWN
        };
        let given = |ada: f64, bo: f64| {
            let torn = Identification {
                ambiguous: true,
                nearest: candidate("Ada", 25.0),
                runner_up: candidate("Bo", 25.5),
                ..Identification::UNKNOWN
            };
            let all = [(named("Ada", 1.0), at(ada)), (named("Bo", 1.0), at(bo)), (torn, at(25.0))];
            let tracks: Vec<IdentifiedTrack<'_>> = (all.iter().zip(1..))
                .map(|((identification, template), number)| IdentifiedTrack {
                    track: TrackId(number),
                    identification,
                    template: Some(template),
                })
                .collect();
            propagate_names(&tracks, |_, _| false, 60.0).len()
        };
        assert_eq!((given(10.0, 50.0), given(10.0, 35.0)), (1, 0));
    }

    #[test]
    fn nobody_is_in_two_places_at_a_time() {
        assert_eq!(through(&[20.0, 64.0], &[(0, 1)]), []);
        // Of two that share a frame, the one nearer to the named track.
        assert_eq!(through(&[20.0, 64.0, 63.0], &[(1, 2)]), [(2, 1)]);
    }

    #[test]
    fn nobody_is_named_where_nobody_is_near() {
        assert_eq!(through(&[], &[]), []);
        assert_eq!(through(&[64.0, 64.1], &[]), []);
    }
}
