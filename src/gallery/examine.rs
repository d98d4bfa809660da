//! Examining a still: choosing the face, and the problems of enrolling it.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;

use crate::align::{self, Crop};
use crate::detect::{Face, Quality, QualityIssue};

/// The choice among several faces.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Choice {
    /// The largest box.
    #[default]
    Largest,
    /// The n-th from the left, from 1.
    Number(usize),
    /// The face at this point (x, y) in pixels of the still; of several the one whose centre
    /// is nearest.
    At([f32; 2]),
}

impl FromStr for Choice {
    type Err = String;

    /// Reads `2`, the second face from the left, or `320,150`, the face at that point.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "`{text}` does not select a face: write its number from the left, for example 2, or a point in pixels, for example 320,150"
            )
        };
        let Some((x, y)) = text.split_once(',') else {
            let number = text.trim().parse().ok().filter(|&n| n > 0);
            return number.map(Choice::Number).ok_or_else(refused);
        };
        let pixel = |text: &str| text.trim().parse::<f32>().ok().filter(|x| x.is_finite());
        pixel(x).zip(pixel(y)).map(|(x, y)| Choice::At([x, y])).ok_or_else(refused)
    }
}

/// Why a still cannot be enrolled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The detector found nothing.
    #[error("no face found")]
    NoFace,
    /// There are fewer faces than requested.
    #[error("there is no face number {asked}: {} found, counted from the left: {}", .faces.len(), Places(.faces))]
    NoSuchFace {
        /// The number requested.
        asked: usize,
        /// Faces, from left to right.
        faces: Vec<Face>,
    },
    /// No face lies at the point.
    #[error("no face lies at {},{}: {} found, counted from the left: {}", .at[0], .at[1], .faces.len(), Places(.faces))]
    NobodyThere {
        /// The point requested.
        at: [f32; 2],
        /// Faces, from left to right.
        faces: Vec<Face>,
    },
    /// The landmarks of the face are degenerate.
    #[error("the landmarks of the face are degenerate")]
    Degenerate,
}

/// Faces as text: numbered boxes, from left to right.
struct Places<'a>(&'a [Face]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, face) in self.0.iter().enumerate() {
            let [x, y] = face.bbox.centre();
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} at {x:.0},{y:.0} ({:.0} pixels high)", i + 1, face.bbox.height())?;
        }
        Ok(())
    }
}

/// The face chosen in a still, with its quality.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// The face.
    pub face: Face,
    /// Its quality; [`Quality::verdict`] lists the problems.
    pub quality: Quality,
    /// All faces of the still, from left to right.
    pub faces: Vec<Face>,
    /// Its place among them, from 1.
    pub number: usize,
    /// Its crop.
    pub crop: Crop,
    /// Whether the still was already an aligned crop and was used unchanged.
    pub already_aligned: bool,
}

impl Examined {
    /// Problems of the face as a template; empty for a good one.
    pub fn problems(&self) -> Vec<QualityIssue> {
        self.quality.verdict()
    }

    /// All faces of the still as text: numbers from the left, centres, heights in pixels.
    pub fn places(&self) -> String {
        Places(&self.faces).to_string()
    }
}

/// Chooses a face of a still and assesses it. `faces` are all faces in `image`, in any order.
///
/// # Errors
/// [`Refusal`] when there is no face to choose. Problems with the quality of the face are no errors:
/// [`Examined::problems`] lists them, and the caller decides.
pub fn examine(image: &RgbImage, mut faces: Vec<Face>, choice: Choice) -> Result<Examined, Refusal> {
    faces.sort_by(|a, b| a.bbox.centre()[0].total_cmp(&b.bbox.centre()[0]));
    let chosen = match choice {
        Choice::Largest => {
            // Of equal faces, the first from the left.
            let largest = |best: usize, (i, face): (usize, &Face)| {
                if face.bbox.area() > faces[best].bbox.area() { i } else { best }
            };
            if faces.is_empty() { None } else { Some(faces.iter().enumerate().fold(0, largest)) }
        }
        _ if faces.is_empty() => None,
        Choice::Number(n) => match n.checked_sub(1).filter(|&i| i < faces.len()) {
            Some(i) => Some(i),
            None => return Err(Refusal::NoSuchFace { asked: n, faces }),
        },
        Choice::At([x, y]) => {
            let distance = |face: &Face| (face.bbox.centre()[0] - x).hypot(face.bbox.centre()[1] - y);
            let holds = |face: &Face| {
                let b = &face.bbox;
                b.x1 <= x && x <= b.x2 && b.y1 <= y && y <= b.y2
            };
            let inside = (0..faces.len()).filter(|&i| holds(&faces[i]));
            match inside.min_by(|&i, &j| distance(&faces[i]).total_cmp(&distance(&faces[j]))) {
                Some(i) => Some(i),
                None => return Err(Refusal::NobodyThere { at: [x, y], faces }),
            }
        }
    };
    let index = chosen.ok_or(Refusal::NoFace)?;
    let face = faces[index];
    let (crop, already_aligned) = match align::already_aligned(image, &face.landmarks) {
        Some(crop) => (crop, true),
        None => (align::align(image, &face.landmarks).ok_or(Refusal::Degenerate)?, false),
    };
    let quality = Quality::measure(&face, image);
    Ok(Examined { face, quality, faces, number: index + 1, crop, already_aligned })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::TEMPLATE;
    use crate::detect::BBox;

    /// A face of the template's shape, `scale` times as large, moved by (x, y).
    fn face(scale: f32, x: f32, y: f32) -> Face {
        Face {
            bbox: BBox { x1: x, y1: y, x2: x + 96.0 * scale, y2: y + 112.0 * scale },
            score: 0.99,
            landmarks: TEMPLATE.map(|[px, py]| [px * scale + x, py * scale + y]),
        }
    }

    /// A picture with detail everywhere.
    fn picture() -> RgbImage {
        RgbImage::from_fn(640, 360, |x, y| {
            let noise =
                (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503_001)).wrapping_mul(2_246_822_519);
            image::Rgb([(noise >> 24) as u8; 3])
        })
    }

    fn taken(faces: Vec<Face>, choice: Choice) -> Result<usize, Refusal> {
        examine(&picture(), faces, choice).map(|examined| examined.number)
    }

    #[test]
    fn no_face_is_refused_whatever_is_asked() {
        for choice in [Choice::Largest, Choice::Number(1), Choice::At([1.0, 1.0])] {
            assert_eq!(taken(vec![], choice), Err(Refusal::NoFace));
        }
    }

    #[test]
    fn of_several_faces_the_largest_or_the_one_asked_for() {
        // From the left: small, large, middle; given in another order.
        let faces = vec![face(1.5, 200.0, 10.0), face(1.2, 500.0, 10.0), face(1.0, 10.0, 10.0)];
        assert_eq!(taken(faces.clone(), Choice::Largest), Ok(2));
        assert_eq!(taken(faces.clone(), Choice::Number(3)), Ok(3));
        assert_eq!(taken(faces.clone(), Choice::At([20.0, 20.0])), Ok(1));
        let examined = examine(&picture(), faces, Choice::Number(1)).unwrap();
        assert_eq!((examined.face, examined.faces.len()), (face(1.0, 10.0, 10.0), 3));
        assert!(examined.places().starts_with("1 at 58,66 (112 pixels high), 2 at "));
    }

    #[test]
    fn a_choice_that_fits_nothing_lists_what_there_is() {
        let faces = vec![face(1.5, 200.0, 10.0), face(1.0, 10.0, 10.0)];
        for n in [0, 3] {
            let message = taken(faces.clone(), Choice::Number(n)).unwrap_err().to_string();
            assert!(
                message.contains("2 found") && message.contains("1 at 58,66 (112 pixels high)"),
                "{message}"
            );
        }
        let message = taken(faces, Choice::At([630.0, 350.0])).unwrap_err().to_string();
        assert!(message.contains("no face lies at 630,350"), "{message}");
    }

    #[test]
    fn overlapping_faces_are_told_apart_by_their_centres() {
        let faces = vec![face(2.0, 100.0, 10.0), face(1.0, 150.0, 60.0)];
        assert_eq!(taken(faces.clone(), Choice::At([198.0, 116.0])), Ok(2));
        assert_eq!(taken(faces, Choice::At([120.0, 20.0])), Ok(1));
    }

    #[test]
    fn a_face_is_judged_in_its_own_picture() {
        let examined = examine(&picture(), vec![face(1.0, 30.0, 40.0)], Choice::Largest).unwrap();
        assert_eq!(examined.problems(), []);
        assert!(!examined.already_aligned);
        let small = examine(&picture(), vec![face(0.3, 10.0, 10.0)], Choice::Largest).unwrap();
        assert!(matches!(small.problems()[..], [QualityIssue::TooSmall { .. }]));
    }

    #[test]
    fn a_choice_is_read_as_a_number_or_a_point() {
        assert_eq!("2".parse(), Ok(Choice::Number(2)));
        assert_eq!("320, 150.5".parse(), Ok(Choice::At([320.0, 150.5])));
        for wrong in ["", "0", "-1", "left", "1,", "1,2,3", "NaN,1"] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_aligned_crop_is_taken_as_it_is() {
        let crop = image::imageops::crop_imm(&picture(), 0, 0, 112, 112).to_image();
        let mut seen = face(1.0, 8.0, 0.0);
        seen.landmarks[0][0] += 1.0;
        let examined = examine(&crop, vec![seen], Choice::Largest).unwrap();
        assert!(examined.already_aligned);
        assert_eq!(examined.crop.to_image(), image::imageops::crop_imm(&crop, 8, 0, 96, 112).to_image());
    }
}
