//! The stages of recognition as plain functions: what the workers of a graph call, and what
//! is called in turn for a single still.

use image::RgbImage;

use crate::align::{self, Crop};
use crate::detect::{self, BBox, DetectError, Detector, Face, Quality};
use crate::embed::{EmbedError, Embedder, Mirror, Scratch};
use crate::gallery::Viewpoint;
use crate::identify::{Decision, Identification, Identifier, IdentifyError, Through, Votes, Who};
use crate::track::TrackId;

/// A face on its way from detection to its name.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it is.
    pub face: Face,
    /// How fit for recognition it is.
    pub quality: Quality,
    /// Its aligned crop; `None` when nobody is looked for or its landmarks make no face.
    pub crop: Option<Crop>,
}

/// A face and the decision about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Where it is.
    pub face: Face,
    /// How fit for recognition it is.
    pub quality: Quality,
    /// Who it is.
    pub identification: Identification,
    /// The track it belongs to; `None` on a still.
    pub track: Option<TrackId>,
    /// The number of a stranger: "Unknown 3". `None` for somebody known, and where no numbers
    /// are given.
    pub stranger: Option<u32>,
    /// Hardly a face: covered where faces are covered, and otherwise not told of.
    pub glimpse: bool,
    /// What the single views of the track say; `None` where there is no track.
    pub votes: Option<Votes>,
    /// The other track that gave it its name, if it did not get it by itself.
    pub through: Option<Through>,
}

impl Sighting {
    /// A face of a track, decided about with it.
    pub fn of_track(face: Face, quality: Quality, track: TrackId, decision: Option<&Decision>) -> Self {
        Self {
            face,
            quality,
            identification: decision.map_or(Identification::UNKNOWN, Decision::identification),
            track: Some(track),
            stranger: decision.and_then(|decision| match decision.who {
                Who::Stranger(number) => Some(number),
                Who::Named(_) | Who::Glimpse => None,
            }),
            glimpse: decision.is_some_and(|decision| decision.who == Who::Glimpse),
            votes: decision.map(|decision| decision.votes),
            through: decision.and_then(|decision| decision.through),
        }
    }

    /// Who it is; `None` for a stranger without a number.
    pub fn who(&self) -> Option<Who> {
        let name = self.identification.name.clone();
        name.map(Who::Named).or(self.stranger.map(Who::Stranger))
    }
}

/// Why a face cannot be recognised.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    /// Faces cannot be looked for.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// It cannot be embedded.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Its embedding cannot be compared.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
}

/// The faces of a picture. Whatever is not finite is not a face.
///
/// # Errors
/// When the detector's device fails.
pub fn find(
    detector: &Detector,
    picture: &RgbImage,
    scratch: &mut detect::Scratch,
) -> Result<Vec<Face>, DetectError> {
    let mut faces = detector.detect(picture, scratch)?;
    faces.retain(is_finite);
    Ok(faces)
}

/// Whether every number of a face is finite.
pub fn is_finite(face: &Face) -> bool {
    let BBox { x1, y1, x2, y2 } = face.bbox;
    let numbers = face.landmarks.as_flattened().iter().chain([&x1, &y1, &x2, &y2, &face.score]);
    numbers.into_iter().all(|x| x.is_finite())
}

/// Judges the faces of a picture and, when `crops` are wanted, cuts them out aligned.
pub fn cut(picture: &RgbImage, faces: Vec<Face>, crops: bool) -> Vec<Candidate> {
    let one = |face: Face| Candidate {
        quality: Quality::measure(&face, picture),
        crop: crops.then(|| align::align(picture, &face.landmarks)).flatten(),
        face,
    };
    faces.into_iter().map(one).collect()
}

/// Names the candidates of a picture, each by itself.
///
/// # Errors
/// When a crop has no embedding, or embedder and gallery are of different models.
pub fn name(
    candidates: Vec<Candidate>,
    embedder: &Embedder,
    mirror: Mirror,
    identifier: &Identifier,
    scratch: &mut Scratch,
) -> Result<Vec<Sighting>, RecogniseError> {
    let crops: Vec<Crop> = candidates.iter().filter_map(|candidate| candidate.crop.clone()).collect();
    let mut embeddings = embedder.embed(&crops, mirror, scratch)?.into_iter();
    let one = |candidate: Candidate| {
        let embedding = candidate.crop.as_ref().and_then(|_| embeddings.next());
        let identification = match embedding {
            Some(embedding) => {
                identifier.identify(&embedding, Viewpoint::of(&candidate.face, &candidate.quality))?
            }
            None => Identification::UNKNOWN,
        };
        Ok(Sighting { identification, ..stranger(candidate) })
    };
    candidates.into_iter().map(one).collect()
}

/// The candidates when nobody is looked for.
pub fn strangers(candidates: Vec<Candidate>) -> Vec<Sighting> {
    candidates.into_iter().map(stranger).collect()
}

fn stranger(Candidate { face, quality, .. }: Candidate) -> Sighting {
    Sighting {
        face,
        quality,
        identification: Identification::UNKNOWN,
        track: None,
        stranger: None,
        glimpse: false,
        votes: None,
        through: None,
    }
}
