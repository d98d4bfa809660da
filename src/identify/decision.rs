//! The decision about a track: one name for all of its frames.

use serde::{Deserialize, Serialize};

use super::Candidate;
use crate::track::TrackId;

/// Who a person of a track is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Somebody of the gallery, by display name.
    Named(String),
    /// Nobody of the gallery. The number, from 1 in the order of appearance, stands for the same
    /// person all through the video: "Unknown 3".
    Stranger(u32),
}

impl Who {
    /// The name, of somebody known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Who::Named(name) => Some(name),
            Who::Stranger(_) => None,
        }
    }
}

impl std::fmt::Display for Who {
    /// The name, or "Unknown 3".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Named(name) => f.write_str(name),
            Who::Stranger(number) => write!(f, "Unknown {number}"),
        }
    }
}

/// How the single views of a track would have been decided, each counted with its weight.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Votes {
    /// Views with an embedding.
    pub views: u32,
    /// Of those, views to which the nearest person of the track is the nearest, near enough or
    /// not.
    pub nearest: u32,
    /// Of those, views that alone would have been given that name.
    pub named: u32,
    /// Weight of the views in `nearest`, in parts of the weight of all views, 0..=1.
    pub share: f32,
}

/// The decision about a track, with what explains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The track.
    pub track: TrackId,
    /// Who it is.
    pub who: Who,
    /// The nearest person of the gallery, named or not: the angle between the track as a whole
    /// and the nearest template, and which still that is. `None` without a gallery or without an
    /// embedding.
    pub nearest: Option<Candidate>,
    /// The nearest other person.
    pub runner_up: Option<Candidate>,
    /// The angle in degrees that `nearest` was held to; `None` without a gallery.
    pub threshold_deg: Option<f64>,
    /// What the single views say.
    pub votes: Votes,
    /// The frame with the best view of the track, which is the one to show.
    pub best_frame: u64,
}
