//! Faces in pictures that are not upright, such as those of cameras without a position sensor.

use std::fmt;

use image::{RgbImage, imageops};

use super::{DetectError, Detector, Scratch};

/// The least score of a face for which a hint is given.
const LEAST_SCORE: f32 = 0.95;

/// The rotation that a picture needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// By 90 degrees clockwise.
    Right,
    /// By 180 degrees.
    Over,
    /// By 90 degrees counterclockwise.
    Left,
}

impl Turned {
    const ALL: [Self; 3] = [Self::Over, Self::Right, Self::Left];

    /// The picture turned.
    fn apply(self, picture: &RgbImage) -> RgbImage {
        match self {
            Self::Right => imageops::rotate90(picture),
            Self::Over => imageops::rotate180(picture),
            Self::Left => imageops::rotate270(picture),
        }
    }

    /// The rotation by which a picture without upright faces would show one, among the other three.
    ///
    /// # Errors
    /// When the detector's device fails.
    pub fn find(
        picture: &RgbImage,
        detector: &Detector,
        scratch: &mut Scratch,
    ) -> Result<Option<Self>, DetectError> {
        let mut best = (LEAST_SCORE, None);
        for turned in Self::ALL {
            for face in detector.detect(&turned.apply(picture), scratch)? {
                if face.score > best.0 {
                    best = (face.score, Some(turned));
                }
            }
        }
        Ok(best.1)
    }
}

impl fmt::Display for Turned {
    /// In words, for "turn it by ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "90 degrees clockwise",
            Self::Over => "180 degrees",
            Self::Left => "90 degrees counterclockwise",
        })
    }
}
