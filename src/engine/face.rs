//! A face on its way through the engine, and what is known of a whole frame at the end of it.

use std::sync::Arc;

use crate::align::Crop;
use crate::detect::{BBox, Face, Landmarks, Quality};
use crate::embed::Embedding;
use crate::identify::{Decision, Identification, ViaTrack, Votes, Who};
use crate::media::Picture;
use crate::track::{Seen, Step, TrackId};

/// A face that was found in a picture.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetectedFace {
    /// Box and landmarks in pixels of the picture, and the detector's score.
    pub face: Face,
    /// How fit for recognition it is.
    pub quality: Quality,
    /// Its aligned crop; `None` when none was asked for, or when its landmarks make no face.
    pub crop: Option<Crop>,
}

/// A face of a frame of a video, followed from the frames before.
#[derive(Debug, Clone)]
pub(crate) struct TrackedFace {
    pub face: Face,
    pub quality: Quality,
    /// How it continues the frames before.
    pub step: Step,
    /// Its embedding, where it was embedded.
    pub embedding: Option<Embedding>,
    /// Its aligned crop, once it is cut out and until it is embedded.
    pub crop: Option<Crop>,
}

impl TrackedFace {
    /// What tracking needs of it.
    pub fn seen(&self) -> Seen<'_> {
        Seen {
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
    /// How fit for recognition it is.
    pub quality: Quality,
    /// Who it is, and what the decision rests on.
    pub identification: Identification,
    /// The track it belongs to; `None` on a still.
    pub track: Option<TrackId>,
    /// The number of a stranger: "Unknown 3". `None` for somebody known, and where no numbers
    /// are given.
    pub stranger: Option<u32>,
    /// Hardly a face: covered where faces are covered, and otherwise not told of.
    pub transient: bool,
    /// What the single views of the track say; `None` where there is no track.
    pub votes: Option<Votes>,
    /// The other track that gave it its name, if it did not get it by itself.
    pub via_track: Option<ViaTrack>,
    /// Where it lies on the hypersphere, where this very view of it was embedded.
    pub embedding: Option<Embedding>,
}

impl IdentifiedFace {
    /// A face of which nobody knows who it is.
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

    /// The name of the person, of somebody enrolled.
    pub fn name(&self) -> Option<&str> {
        self.identification.name.as_deref()
    }

    /// Who it is; `None` for a stranger without a number.
    pub fn who(&self) -> Option<Who> {
        self.identification.name.clone().map(Who::Named).or(self.stranger.map(Who::Stranger))
    }

    /// Where the face is, in pixels of the picture.
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

/// A frame of a video with what was found in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LabelledFrame {
    /// Position in the decoded video, from 0.
    pub index: u64,
    /// Presentation time in nanoseconds since the start.
    pub pts_ns: u64,
    /// How long the frame is shown, in nanoseconds.
    pub duration_ns: u64,
    /// Whether a new shot begins with it.
    pub cut: bool,
    /// The faces, the one the detector is surest of first.
    pub faces: Vec<IdentifiedFace>,
    /// The pixels, as decoded, with faces covered where that was asked for; `None` where nobody wanted them.
    pub picture: Option<Arc<Picture>>,
}
