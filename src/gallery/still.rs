//! A still from a file: read, searched for faces, and examined.

use std::path::Path;

use image::RgbImage;

use super::NewStill;
use super::examine::{Choice, Examined, Refusal, examine};
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
use crate::detect::{BBox, DetectError, Detector, Face, Scratch, Turned};
use crate::media::{MediaError, Still, open_still};

/// Width of the frame around an image of the size of a crop in which faces are looked for.
const FRAME_PX: u32 = 32;

/// Why a still is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StillError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It is not a picture.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Part of it is missing.
    #[error("{0}: copy it again, or use another still")]
    Damaged(String),
    /// There is no face to choose.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is a face if the picture is turned.
    #[error("no face found, but there is one if it is rotated by {0}: rotate the picture")]
    Turned(Turned),
    /// The detector's device fails.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// The faces of an image that may be an aligned crop. An image of the size of a crop is searched with a black
/// frame around it: the landmarks of a face that fills its image are too uncertain to decide whether it is
/// aligned. Of 3,443 aligned crops of LFW, 14 % in 112x112 and 38 % in 96x112 were not recognised as such;
/// with the frame, fewer than 1 %.
///
/// # Errors
/// When the detector's device fails.
pub fn find_faces(
    image: &RgbImage,
    detector: &Detector,
    scratch: &mut Scratch,
) -> Result<Vec<Face>, DetectError> {
    let (width, height) = image.dimensions();
    let sides = [CROP_WIDTH as u32, CROP_HEIGHT as u32];
    if height != sides[1] || !sides.contains(&width) {
        return detector.detect(image, scratch);
    }
    let mut framed = RgbImage::new(width + 2 * FRAME_PX, height + 2 * FRAME_PX);
    image::imageops::replace(&mut framed, image, FRAME_PX.into(), FRAME_PX.into());
    let mut faces = detector.detect(&framed, scratch)?;
    let frame = FRAME_PX as f32;
    for face in &mut faces {
        let BBox { x1, y1, x2, y2 } = face.bbox;
        face.bbox = BBox { x1: x1 - frame, y1: y1 - frame, x2: x2 - frame, y2: y2 - frame };
        face.landmarks = face.landmarks.map(|[x, y]| [x - frame, y - frame]);
    }
    Ok(faces)
}

/// The chosen face of a still.
///
/// # Errors
/// When the file is not a whole picture, or shows no such face.
pub fn examine_still(path: &Path, choice: Choice, detector: &Detector) -> Result<Examined, StillError> {
    let Still { picture, damage, .. } = open_still(path)?;
    match damage {
        Some(damage) => Err(StillError::Damaged(damage.to_string())),
        None => examine_picture(&picture, choice, detector),
    }
}

/// The same in a picture.
///
/// # Errors
/// When it shows no such face.
pub fn examine_picture(
    picture: &RgbImage,
    choice: Choice,
    detector: &Detector,
) -> Result<Examined, StillError> {
    let mut scratch = Scratch::default();
    let faces = find_faces(picture, detector, &mut scratch)?;
    match examine(picture, faces, choice) {
        Err(Refusal::NoFace) => match Turned::find(picture, detector, &mut scratch)? {
            Some(turned) => Err(StillError::Turned(turned)),
            None => Err(Refusal::NoFace.into()),
        },
        examined => Ok(examined?),
    }
}

/// All faces of a picture that can be cut out, from left to right.
///
/// # Errors
/// When the detector's device fails.
pub fn examine_all(picture: &RgbImage, detector: &Detector) -> Result<Vec<Examined>, DetectError> {
    let faces = find_faces(picture, detector, &mut Scratch::default())?;
    let numbers = 1..=faces.len();
    Ok(numbers.filter_map(|number| examine(picture, faces.clone(), Choice::Number(number)).ok()).collect())
}

impl NewStill {
    /// The face of a file, to be enrolled.
    ///
    /// # Errors
    /// As for [`examine_still`].
    pub fn read(path: &Path, choice: Choice, detector: &Detector) -> Result<Self, StillError> {
        let bytes = std::fs::read(path).map_err(StillError::Read)?;
        let examined = examine_still(path, choice, detector)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file_name, bytes, examined })
    }
}
