//! A face at each step of the engine, and the labelled frame at the end.

use std::sync::Arc;

use crate::align::Crop;
use crate::detect::{BBox, Face, Landmarks, Quality};
use crate::embed::Embedding;
use crate::identify::{Decision, Identification, ViaTrack, Votes, Who};
use crate::media::Picture;
use crate::track::{FollowedFace, Step, TrackId};

/// A detected face.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetectedFace {
    /// Box and landmarks in pixels of the picture, and the detector's score.
    pub face: Face,
    /// Its quality for recognition.
    pub quality: Quality,
    /// Its aligned crop; `None` if none was requested or its landmarks are degenerate.
    pub crop: Option<Crop>,
}

/// A face of a frame of a video, followed from the frames before.
#[derive(Debug, Clone)]
pub(crate) struct TrackedFace {
    pub face: Face,
    pub quality: Quality,
    /// How it continues the chain of the previous frames.
    pub step: Step,
    /// Its embedding, if it was embedded.
    pub embedding: Option<Embedding>,
    /// Its aligned crop, between cropping and embedding.
    pub crop: Option<Crop>,
}

impl TrackedFace {
    /// Its properties that tracking needs.
    pub fn seen(&self) -> FollowedFace<'_> {
        FollowedFace {
            chain: self.step.chain,
            doubtful: self.step.doubtful,
            change: self.step.change,
            face: &self.face,
            quality: &self.quality,
            embedding: self.embedding.as_ref(),
        }
    }
}

/// A face and the decision about it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct IdentifiedFace {
    /// Box and landmarks in pixels of the picture, and the detector's score.
    pub face: Face,
    /// Its quality for recognition.
    pub quality: Quality,
    /// The decision and its evidence.
    pub identification: Identification,
    /// The track it belongs to; `None` on a still.
    pub track: Option<TrackId>,
    /// The number of a stranger, as in "Unknown 3". `None` for people of the gallery, and if strangers are
    /// not numbered.
    pub stranger: Option<u32>,
    /// A short track without a good view: redacted like others, but not reported.
    pub transient: bool,
    /// Votes of the single views of the track; `None` without a track.
    pub votes: Option<Votes>,
    /// The other track from which it takes its name, if it does.
    pub via_track: Option<ViaTrack>,
    /// Its embedding, if this view was embedded.
    pub embedding: Option<Embedding>,
}

impl IdentifiedFace {
    /// An unidentified face.
    pub(crate) fn unknown(face: Face, quality: Quality) -> Self {
        Self {
            face,
            quality,
            identification: Identification::UNKNOWN,
            track: None,
            stranger: None,
            transient: false,
            votes: None,
            via_track: None,
            embedding: None,
        }
    }

    /// A face of a track, decided about with it.
    pub(crate) fn of_track(
        face: Face,
        quality: Quality,
        track: TrackId,
        decision: Option<&Decision>,
    ) -> Self {
        let who = decision.map(|decision| &decision.who);
        Self {
            identification: decision.map_or(Identification::UNKNOWN, Decision::identification),
            track: Some(track),
            stranger: match who {
                Some(&Who::Stranger(number)) => Some(number),
                _ => None,
            },
            transient: who == Some(&Who::Transient),
            votes: decision.map(|decision| decision.votes),
            via_track: decision.and_then(|decision| decision.via_track),
            ..Self::unknown(face, quality)
        }
    }

    /// The name, for a person of the gallery.
    pub fn name(&self) -> Option<&str> {
        self.identification.name.as_deref()
    }

    /// The person; `None` for a stranger without a number.
    pub fn who(&self) -> Option<Who> {
        self.identification.name.clone().map(Who::Named).or(self.stranger.map(Who::Stranger))
    }

    /// The box of the face in pixels of the picture.
    pub fn bbox(&self) -> BBox {
        self.face.bbox
    }

    /// Eyes, nose and corners of the mouth, in pixels of the picture.
    pub fn landmarks(&self) -> Landmarks {
        self.face.landmarks
    }

    /// The angle to the nearest person of the gallery in degrees, named or not.
    pub fn angle_deg(&self) -> Option<f32> {
        self.identification.nearest.as_ref().map(|nearest| nearest.angle_deg)
    }
}

/// A frame of a video with its identified faces.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LabelledFrame {
    /// Position in the decoded video, from 0.
    pub index: u64,
    /// Presentation time in nanoseconds since the start.
    pub pts_ns: u64,
    /// Duration of the frame in nanoseconds.
    pub duration_ns: u64,
    /// Whether it begins a new shot.
    pub cut: bool,
    /// The faces, highest detector score first.
    pub faces: Vec<IdentifiedFace>,
    /// Boxes of the faces that do not count, because they lie outside the regions of the stream.
    pub elsewhere: Vec<BBox>,
    /// Boxes to cover in the picture, in pixels: of faces, and of people before, between and after the frames
    /// in which they are seen. Empty unless a job redacts faces.
    pub covered: Vec<BBox>,
    /// The pixels; `None` if they are not needed.
    pub picture: Option<Arc<Picture>>,
}
