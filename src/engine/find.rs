//! The faces of a picture.

use image::RgbImage;

use super::face::DetectedFace;
use crate::align;
use crate::detect::{self, BBox, DetectError, Detector, Face, Quality};

/// The faces of a picture, without any that are not finite.
pub(crate) fn find(
    detector: &Detector,
    picture: &RgbImage,
    scratch: &mut detect::Scratch,
) -> Result<Vec<Face>, DetectError> {
    let mut faces = detector.detect(picture, scratch)?;
    faces.retain(is_finite);
    Ok(faces)
}

/// Whether every number of a face is finite.
pub(crate) fn is_finite(face: &Face) -> bool {
    let BBox { x1, y1, x2, y2 } = face.bbox;
    let numbers = face.landmarks.as_flattened().iter().chain([&x1, &y1, &x2, &y2, &face.score]);
    numbers.into_iter().all(|x| x.is_finite())
}

/// Assesses the quality of the faces of a picture and, if `crops` are requested, crops them.
pub(crate) fn cut(picture: &RgbImage, faces: Vec<Face>, crops: bool) -> Vec<DetectedFace> {
    let one = |face: Face| DetectedFace {
        quality: Quality::measure(&face, picture),
        crop: crops.then(|| align::align(picture, &face.landmarks)).flatten(),
        face,
    };
    faces.into_iter().map(one).collect()
}
