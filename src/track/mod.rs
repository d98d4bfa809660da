//! Tracking: which faces of a video are one person, and the weight of each view.
//!
//! A *track* is one person over consecutive frames of one shot. It ends at a cut. Appearances in different
//! shots are joined by a name or the number of a stranger, never by position.

mod cluster;
mod follow;
mod join;
mod motion;
mod patch;
mod shots;
mod tracker;

pub use cluster::cluster;
pub use follow::{Change, Follower, Step, Views};
pub use join::join;
pub use motion::Motion;
pub use patch::{FacePatch, Luma};
pub use shots::Thumbnail;
pub use tracker::{FollowedFace, GAP_NS, Tracker};

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::detect::{Face, Quality, SURE_SCORE};
use crate::embed::Embedding;

/// Number of a track within its video, from 1 in the order of appearance. The same in every
/// output about that video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrackId(pub u32);

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The properties of a frame that tracking needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Index of the frame; the first has no predecessor, later ones come in order.
    pub frame: u64,
    /// Presentation time in nanoseconds since the start.
    pub pts_ns: u64,
    /// Whether it begins a new shot.
    pub cut: bool,
}

/// A face in one frame of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Index of the frame, from 0 in the order of decoding.
    pub frame: u64,
    /// Presentation time of the frame, in nanoseconds since the start.
    pub pts_ns: u64,
    /// Duration of the frame in nanoseconds.
    pub duration_ns: u64,
    /// Box, score and landmarks, in pixels of the frame.
    pub face: Face,
    /// Size, pose and sharpness.
    pub quality: Quality,
    /// The embedding; `None` if it was not embedded, because the track had better views or nobody was to be
    /// identified.
    pub embedding: Option<Embedding>,
    /// The track it belongs to.
    pub track: TrackId,
}

impl Observation {
    /// End of the frame, in nanoseconds since the start.
    pub fn end_ns(&self) -> u64 {
        self.pts_ns.saturating_add(self.duration_ns)
    }

    /// Weight of its embedding within the track: its [`weight_inside`].
    pub fn weight(&self) -> f32 {
        weight_inside(&self.face, &self.quality)
    }
}

/// One person over consecutive frames of one shot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its number.
    pub id: TrackId,
    /// Indices of its observations in their list, in the order of frames; at least one.
    pub observations: Vec<usize>,
    /// The first frame that shows it.
    pub first_frame: u64,
    /// The last frame that shows it.
    pub last_frame: u64,
    /// Start of the first frame, in nanoseconds since the start.
    pub start_ns: u64,
    /// End of the last frame.
    pub end_ns: u64,
}

/// Length in frames from which a track is certainly a face. False detections are shorter: in the two clips
/// whose truth lists every face, each of the five tracks of at most three frames without a clear view was
/// one.
const SURE_FRAMES: usize = 4;
/// Detector score of a clear view: the minimum that the authors of SphereFace required.
const CLEAR_SCORE: f32 = 0.9;

impl Track {
    /// Whether it is a short track without a clear view, and probably not a face.
    /// `observations` are those that the track was made of.
    pub fn is_transient(&self, observations: &[Observation]) -> bool {
        let clear = |&at: &usize| observations.get(at).is_some_and(|one| one.face.score >= CLEAR_SCORE);
        self.observations.len() < SURE_FRAMES && !self.observations.iter().any(clear)
    }
}

/// Least weight of a view that shows enough of a face to tell it from others. Templates of nothing
/// but blurred profiles lie near each other, even of different people.
const DISTINCT_WEIGHT: f32 = 0.25;

/// Whether a track shows enough of a person to recognise that person in another track, given the highest
/// `weight` of its embedded views and their highest detector `score`.
pub fn is_distinct(weight: f32, score: f32) -> bool {
    weight >= DISTINCT_WEIGHT && score >= SURE_SCORE
}

/// The tracks of `observations`, which come in the order of frames; by number.
pub fn tracks(observations: &[Observation]) -> Vec<Track> {
    let mut tracks: BTreeMap<TrackId, Track> = BTreeMap::new();
    for (index, observation) in observations.iter().enumerate() {
        let track = tracks.entry(observation.track).or_insert_with(|| Track {
            id: observation.track,
            observations: Vec::new(),
            first_frame: observation.frame,
            last_frame: observation.frame,
            start_ns: observation.pts_ns,
            end_ns: observation.end_ns(),
        });
        track.observations.push(index);
        track.last_frame = observation.frame;
        track.end_ns = observation.end_ns();
    }
    tracks.into_values().collect()
}

/// Box side in pixels above which the 112x96 crop gains no more detail.
const FULL_SIZE_PX: f32 = 80.0;
/// [`Quality::sharpness`] of a face in focus.
const FULL_SHARPNESS: f32 = 0.3;
/// Angle away from the camera at which a view counts for half.
const HALF_POSE_DEG: f32 = 30.0;

/// Weight of a view, 0..=1: the product of its size and sharpness, relative to what is sufficient, and of
/// 2^-(angle / `HALF_POSE_DEG`)^2 for the angle between the face and the camera.
///
/// One blurred profile (a twentieth or less) does not outvote ten good frames.
pub fn weight(quality: &Quality) -> f32 {
    let Quality { size_px, yaw_deg, pitch_deg, sharpness, .. } = *quality;
    let part = |value: f32, full: f32| (value / full).clamp(0.0, 1.0);
    let turned = (yaw_deg.powi(2) + pitch_deg.powi(2)) / HALF_POSE_DEG.powi(2);
    let weight = part(size_px, FULL_SIZE_PX) * part(sharpness, FULL_SHARPNESS) * (-turned).exp2();
    if weight.is_finite() { weight } else { 0.0 }
}

/// Minimum weight of a view that reliably tells two people apart.
const GOOD_WEIGHT: f32 = 0.25;

/// The [`weight`] of a view, times the square of the share of the face that lies in the picture.
pub fn weight_inside(face: &Face, quality: &Quality) -> f32 {
    weight(quality) * visible(face, quality).powi(2)
}

/// The share of a face that lies in the picture, 0 to 1.
fn visible(face: &Face, quality: &Quality) -> f32 {
    let area = face.bbox.area();
    if area > 0.0 { (quality.size_px.powi(2) / area).min(1.0) } else { 1.0 }
}

/// The direction of the weighted sum of the embeddings of `observations`; `None` when none has an embedding
/// of positive weight, or they come from different models.
pub fn template<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> Option<Embedding> {
    let seen = observations.into_iter().filter_map(|one| Some((one.embedding.as_ref()?, one.weight())));
    let mut sum: Option<(&Embedding, Vec<f64>)> = None;
    for (embedding, weight) in seen {
        let values = embedding.as_slice();
        let (first, total) = sum.get_or_insert_with(|| (embedding, vec![0.0; values.len()]));
        if first.model() != embedding.model() || total.len() != values.len() {
            return None;
        }
        total.iter_mut().zip(values).for_each(|(total, &x)| *total += f64::from(weight) * f64::from(x));
    }
    let (first, total) = sum?;
    Embedding::new(first.model(), total.into_iter().map(|x| x as f32).collect())
}
