//! Identification in stills.

use image::RgbImage;

use super::error::RecogniseError;
use super::face::IdentifiedFace;
use super::{DetectedFace, Engine, Gallery};
use crate::gallery::Viewpoint;

/// An engine and a gallery, for stills.
#[derive(Debug, Clone)]
pub struct Recogniser {
    engine: Engine,
    gallery: Option<Gallery>,
}

impl Recogniser {
    /// Names the people of `gallery`.
    pub fn new(engine: &Engine, gallery: &Gallery) -> Self {
        Self { engine: engine.clone(), gallery: Some(gallery.clone()) }
    }

    /// Detects faces without identifying them.
    pub fn without_gallery(engine: &Engine) -> Self {
        Self { engine: engine.clone(), gallery: None }
    }

    /// Detects and identifies the faces of a picture, highest detector score first.
    ///
    /// # Errors
    /// When the device fails, or the gallery is of another model than the engine.
    pub fn name(&self, picture: &RgbImage) -> Result<Vec<IdentifiedFace>, RecogniseError> {
        let faces = self.engine.detect(picture)?;
        self.identify(faces)
    }

    /// Identifies faces that were already [detected](Engine::detect).
    ///
    /// # Errors
    /// As for [`name`](Self::name).
    pub fn identify(&self, mut faces: Vec<DetectedFace>) -> Result<Vec<IdentifiedFace>, RecogniseError> {
        let Some(gallery) = &self.gallery else {
            return Ok(faces.into_iter().map(unknown).collect());
        };
        let crops: Vec<_> = faces.iter_mut().map(|face| face.crop.take()).collect();
        let cut_out: Vec<bool> = crops.iter().map(Option::is_some).collect();
        let mut embeddings = self.engine.embed(crops.into_iter().flatten().collect())?.into_iter();
        let mut one = |(detected, cut_out): (DetectedFace, bool)| {
            let view = Viewpoint::of(&detected.face, &detected.quality);
            let embedding = if cut_out { embeddings.next() } else { None };
            let mut face = unknown(detected);
            if let Some(embedding) = &embedding {
                face.identification = gallery.identify(embedding, view)?;
            }
            Ok(IdentifiedFace { embedding, ..face })
        };
        faces.into_iter().zip(cut_out).map(&mut one).collect()
    }
}

fn unknown(DetectedFace { face, quality, .. }: DetectedFace) -> IdentifiedFace {
    IdentifiedFace::unknown(face, quality)
}
