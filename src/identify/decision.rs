//! The decision about a track: one name for all of its frames.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::propagate::{IdentifiedTrack, propagate_names};
use super::{Candidate, Evidence, Identification, Identifier, IdentifyError, Rejection, ViaTrack};
use crate::embed::Embedding;
use crate::gallery::Viewpoint;
use crate::track::{self, Observation, Track, TrackId, cluster};

/// The identity of a track.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A person of the gallery, by display name.
    Named(String),
    /// A stranger, as in "Unknown 3". The number, from 1 in the order of appearance, is the same for the same
    /// person in the whole video.
    Stranger(u32),
    /// A short track without a confident view or a name.
    Transient,
}

impl Who {
    /// The name, for a person of the gallery.
    pub fn name(&self) -> Option<&str> {
        match self {
            Who::Named(name) => Some(name),
            Who::Stranger(_) | Who::Transient => None,
        }
    }
}

impl std::fmt::Display for Who {
    /// The name, or "Unknown 3".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Named(name) => f.write_str(name),
            Who::Stranger(number) => write!(f, "Unknown {number}"),
            Who::Transient => f.write_str("unknown"),
        }
    }
}

/// Votes: the decisions that the single views of a track would have got on their own, counted by weight.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Votes {
    /// Views with an embedding.
    pub views: u32,
    /// Of those, views whose nearest person is that of the track, below the threshold or not.
    pub nearest: u32,
    /// Of those, views that would have been given that name on their own.
    pub named: u32,
    /// Share of the views in `nearest` by weight, 0..=1.
    pub share: f32,
}

/// The decision about a track with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The track.
    pub track: TrackId,
    /// Who it is.
    pub who: Who,
    /// The nearest person of the gallery, named or not: the nearest template, and the angle between it and
    /// the track as a whole. `None` without a gallery or without an embedding.
    pub nearest: Option<Candidate>,
    /// The nearest other person.
    pub runner_up: Option<Candidate>,
    /// A nearer person who was rejected because of a counter-example.
    pub rejected: Option<Rejection>,
    /// The track from which this one takes its name, if `nearest` alone is not below the threshold.
    #[serde(rename = "through")]
    pub via_track: Option<ViaTrack>,
    /// The threshold in degrees for the [judged](Candidate::judged_deg) angle of `nearest`; `None` without a
    /// gallery.
    pub threshold_deg: Option<f64>,
    /// Whether `nearest` is below the threshold but does not beat the runner-up by the margin, and no name
    /// was propagated.
    pub ambiguous: bool,
    /// The votes of the single views.
    pub votes: Votes,
    /// The frame with the best view of the track, used to show it.
    pub best_frame: u64,
}

impl Decision {
    /// The decision about a track, of decisions as [`decide`] gives them.
    pub fn about(decisions: &[Decision], track: TrackId) -> Option<&Decision> {
        let at = decisions.binary_search_by_key(&track, |decision| decision.track).ok()?;
        decisions.get(at)
    }

    /// The same as the decision about a single face.
    pub fn identification(&self) -> Identification {
        Identification {
            name: self.who.name().map(str::to_owned),
            ambiguous: self.ambiguous,
            nearest: self.nearest.clone(),
            runner_up: self.runner_up.clone(),
            rejected: self.rejected.clone(),
        }
    }
}

/// Decides about every whole track; the result is in the order of [`tracks`](track::tracks).
///
/// - The views of a track are added up by their weight, and the direction of the sum is compared
///   with the gallery.
/// - Two tracks that share a frame are two people: of two with the same name, the farther one loses it.
/// - A track that misses the threshold by less than five degrees, or the margin, gets the name of its nearest
///   person on two conditions: a track already named so is nearer to it than the threshold minus ten degrees,
///   and it shares no frame with any track of that name.
/// - A [transient track](track::Track::is_transient) without a name gets no number.
/// - Other tracks without a name that are less than `same_deg` degrees apart on average and share no frame
///   are the same stranger, if each [shows enough](track::is_distinct) of the person. A track that does not
///   gets its own number.
///
/// # Errors
/// [`IdentifyError`] when the embeddings cannot be compared with the gallery's.
pub fn decide(
    observations: &[Observation],
    identifier: Option<&Identifier>,
    same_deg: Option<f64>,
) -> Result<Vec<Decision>, IdentifyError> {
    let tracks = track::tracks(observations);
    let mut found = Vec::with_capacity(tracks.len());
    let mut templates = Vec::with_capacity(tracks.len());
    for track in &tracks {
        let mut evidence = Evidence::default();
        for seen in track.observations.iter().filter_map(|&at| observations.get(at)) {
            evidence.see(seen.frame, seen.weight(), seen.face.score);
            if let Some(embedding) = &seen.embedding {
                evidence.add(
                    embedding,
                    seen.weight(),
                    Viewpoint::of(&seen.face, &seen.quality),
                    identifier,
                )?;
            }
        }
        let (identification, votes) = match identifier {
            Some(identifier) => evidence.decide(identifier)?,
            None => (Identification::UNKNOWN, Votes { views: evidence.views(), ..Votes::default() }),
        };
        templates.push(evidence.template());
        found.push(Found {
            identification,
            votes,
            best_frame: evidence.best_frame(),
            via_track: None,
            distinct: evidence.is_distinct(),
        });
    }
    let frames: Vec<BTreeSet<u64>> = (tracks.iter())
        .map(|track| track.observations.iter().map(|&at| observations[at].frame).collect())
        .collect();
    let together = |a: usize, b: usize| {
        tracks[a].first_frame <= tracks[b].last_frame
            && tracks[b].first_frame <= tracks[a].last_frame
            && !frames[a].is_disjoint(&frames[b])
    };
    one_place_at_a_time(&mut found, together);
    let threshold_deg = identifier.map(|identifier| identifier.threshold().angle_deg());
    if let Some(threshold_deg) = threshold_deg {
        named_elsewhere(&mut found, &tracks, &templates, together, threshold_deg);
    }
    let unnamed: Vec<usize> = (0..found.len())
        .filter(|&at| found[at].identification.name.is_none() && !tracks[at].is_transient(observations))
        .collect();
    let of_unnamed: Vec<Option<Embedding>> =
        unnamed.iter().map(|&at| templates[at].clone().filter(|_| found[at].distinct)).collect();
    // No two templates are less than 0 degrees apart.
    let groups = cluster(&of_unnamed, |a, b| together(unnamed[a], unnamed[b]), same_deg.unwrap_or(0.0));
    let stranger: BTreeMap<usize, u32> =
        unnamed.iter().zip(&groups).map(|(&at, &group)| (at, group as u32 + 1)).collect();
    let decisions = tracks.iter().zip(found).enumerate().map(|(at, (track, found))| {
        let Found { identification, votes, best_frame, via_track, .. } = found;
        let Identification { name, ambiguous, nearest, runner_up, rejected } = identification;
        Decision {
            track: track.id,
            who: match (name, stranger.get(&at)) {
                (Some(name), _) => Who::Named(name),
                (None, Some(&number)) => Who::Stranger(number),
                (None, None) => Who::Transient,
            },
            nearest,
            runner_up,
            rejected,
            via_track,
            threshold_deg,
            ambiguous,
            votes,
            best_frame,
        }
    });
    Ok(decisions.collect())
}

/// The decision about a track so far.
struct Found {
    identification: Identification,
    votes: Votes,
    best_frame: u64,
    via_track: Option<ViaTrack>,
    /// Whether it shows enough to recognise the same person in another track.
    distinct: bool,
}

/// Removes the name from the farther of two tracks that share a frame and a name.
fn one_place_at_a_time(found: &mut [Found], together: impl Fn(usize, usize) -> bool) {
    let angle = |one: &Identification| one.nearest.as_ref().map_or(f32::INFINITY, Candidate::judged_deg);
    let mut named: Vec<usize> =
        (0..found.len()).filter(|&at| found[at].identification.name.is_some()).collect();
    named.sort_by(|&a, &b| {
        angle(&found[a].identification).total_cmp(&angle(&found[b].identification)).then(a.cmp(&b))
    });
    let mut kept: Vec<usize> = Vec::new();
    for at in named {
        if kept.iter().any(|&other| {
            found[other].identification.name == found[at].identification.name && together(other, at)
        }) {
            found[at].identification.name = None;
        } else {
            kept.push(at);
        }
    }
}

/// Names tracks through others, see [`propagate_names`].
fn named_elsewhere(
    found: &mut [Found],
    tracks: &[Track],
    templates: &[Option<Embedding>],
    together: impl Fn(usize, usize) -> bool,
    threshold_deg: f64,
) {
    fn one<'a>(
        ((found, track), template): ((&'a Found, &Track), &'a Option<Embedding>),
    ) -> IdentifiedTrack<'a> {
        IdentifiedTrack {
            track: track.id,
            identification: &found.identification,
            template: template.as_ref(),
        }
    }
    let seen: Vec<IdentifiedTrack<'_>> = found.iter().zip(tracks).zip(templates).map(one).collect();
    for (at, via_track) in propagate_names(&seen, together, threshold_deg) {
        let Identification { name, ambiguous, nearest, .. } = &mut found[at].identification;
        *name = nearest.as_ref().map(|nearest| nearest.name.clone());
        *ambiguous = false;
        found[at].via_track = Some(via_track);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{BBox, Face, Quality};
    use crate::track::TrackId;

    #[test]
    fn what_was_seen_for_a_moment_and_never_clearly_is_nobody_and_takes_no_number() {
        let seen = |track: u32, frame: u64, score: f32| Observation {
            frame,
            pts_ns: frame * 40_000_000,
            duration_ns: 40_000_000,
            face: Face {
                bbox: BBox { x1: 0.0, y1: 0.0, x2: 80.0, y2: 80.0 },
                score,
                landmarks: [[0.0; 2]; 5],
            },
            quality: Quality { size_px: 80.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 },
            embedding: None,
            track: TrackId(track),
        };
        let observations = [
            // Faint and short; clear and short; faint and longer.
            seen(1, 0, 0.75),
            seen(1, 1, 0.89),
            seen(2, 2, 0.95),
            seen(3, 3, 0.75),
            seen(3, 4, 0.75),
            seen(3, 5, 0.75),
            seen(3, 6, 0.75),
        ];
        let decisions = decide(&observations, None, None).unwrap();
        let who: Vec<&Who> = decisions.iter().map(|decision| &decision.who).collect();
        assert_eq!(who, [&Who::Transient, &Who::Stranger(1), &Who::Stranger(2)]);
    }
}
