//! The stages of recognition as plain functions: what the workers of a graph call, and what
//! is called in turn for a single still.

use image::RgbImage;

use crate::align::{self, Crop};
use crate::detect::{self, BBox, Detector, Face, Quality};
use crate::embed::{EmbedError, Embedder, Mirror, Scratch};
use crate::identify::{Identification, Identifier, IdentifyError};

/// Whom to look for, and how.
#[derive(Clone, Copy)]
pub struct Recogniser<'a> {
    /// Crop to embedding.
    pub embedder: &'a Embedder,
    /// Embedding to name.
    pub identifier: &'a Identifier,
    /// Whether the mirror image of a face has a say.
    pub mirror: Mirror,
}

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
}

/// Why a face cannot be recognised.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    /// It cannot be embedded.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// Its embedding cannot be compared.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
}

/// The faces of a picture. Whatever is not finite is not a face.
pub fn find(detector: &Detector, picture: &RgbImage, scratch: &mut detect::Scratch) -> Vec<Face> {
    let mut faces = detector.detect(picture, scratch);
    faces.retain(|face| {
        let BBox { x1, y1, x2, y2 } = face.bbox;
        let numbers = face.landmarks.as_flattened().iter().chain([&x1, &y1, &x2, &y2, &face.score]);
        numbers.into_iter().all(|x| x.is_finite())
    });
    faces
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

impl Recogniser<'_> {
    /// Names the candidates of several pictures, embedded together. The answer for one does
    /// not depend on the others.
    ///
    /// # Errors
    /// When a crop has no embedding, or embedder and gallery are of different models.
    pub fn recognise(
        &self,
        pictures: Vec<Vec<Candidate>>,
        scratch: &mut Scratch,
    ) -> Result<Vec<Vec<Sighting>>, RecogniseError> {
        let all = pictures.iter().flatten();
        let crops: Vec<Crop> = all.filter_map(|candidate| candidate.crop.clone()).collect();
        let mut embeddings = self.embedder.embed(&crops, self.mirror, scratch)?.into_iter();
        let mut name = |Candidate { face, quality, crop }: Candidate| {
            let embedding = crop.and_then(|_| embeddings.next());
            let identification = match embedding {
                Some(embedding) => self.identifier.identify(&embedding)?,
                None => Identification::UNKNOWN,
            };
            Ok(Sighting { face, quality, identification })
        };
        pictures.into_iter().map(|picture| picture.into_iter().map(&mut name).collect()).collect()
    }
}

/// The candidates when nobody is looked for.
pub fn strangers(candidates: Vec<Candidate>) -> Vec<Sighting> {
    let one =
        |Candidate { face, quality, .. }| Sighting { face, quality, identification: Identification::UNKNOWN };
    candidates.into_iter().map(one).collect()
}
