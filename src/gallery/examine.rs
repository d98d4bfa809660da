//! What a still is worth: which face in it is meant, and what speaks against enrolling it.

use std::fmt;

use image::RgbImage;

use crate::align::{self, CROP_WIDTH, Crop};
use crate::detect::Face;

/// Which of several faces is meant.
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

/// What a face must have to be enrolled.
///
/// The defaults refuse what is of no use as a template, not what is merely poor: an enrolled
/// still is compared with every face of every video, so a bad one does harm for ever.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Least height of the box in pixels.
    pub min_height_px: f32,
    /// Least [`Examined::sharpness`].
    pub min_sharpness: f32,
    /// Most [`Examined::turn_deg`].
    pub max_turn_deg: f32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_height_px: 40.0, min_sharpness: 0.01, max_turn_deg: 50.0 }
    }
}

/// Why there is nothing to enrol in a still.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The detector found nothing.
    #[error("no face found")]
    NoFace,
    /// There are fewer faces than asked for.
    #[error("there is no face number {asked}: {} found, counted from the left: {}", .faces.len(), Places(.faces))]
    NoSuchFace {
        /// The number asked for.
        asked: usize,
        /// Faces, from left to right.
        faces: Vec<Face>,
    },
    /// No face lies at the point.
    #[error("no face lies at {},{}: {} found, counted from the left: {}", .at[0], .at[1], .faces.len(), Places(.faces))]
    NobodyThere {
        /// The point asked for.
        at: [f32; 2],
        /// Faces, from left to right.
        faces: Vec<Face>,
    },
    /// The landmarks of the face make no transform.
    #[error("the landmarks of the face make no sense")]
    Degenerate,
}

/// What speaks against a face as a template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Problem {
    /// Height of the box in pixels, and the least wanted.
    TooSmall(f32, f32),
    /// Sharpness, and the least wanted.
    Blurred(f32, f32),
    /// Degrees turned to the side, and the most wanted.
    TurnedAway(f32, f32),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooSmall(found, least) => {
                write!(f, "too small: {found:.0} pixels high, at least {least:.0} wanted")
            }
            Problem::Blurred(found, least) => {
                write!(f, "blurred: sharpness {found:.3}, at least {least:.3} wanted")
            }
            Problem::TurnedAway(found, most) => {
                write!(f, "turned away: about {found:.0} degrees, at most {most:.0} wanted")
            }
        }
    }
}

/// Faces as a list for a person: numbered boxes, from left to right.
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

/// The face chosen in a still and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// The face.
    pub face: Face,
    /// Its place among all faces of the still, from the left, from 1.
    pub number: usize,
    /// Faces in the still.
    pub faces_seen: usize,
    /// Its crop.
    pub crop: Crop,
    /// Whether the still was an aligned crop already and was taken as it is.
    pub already_aligned: bool,
    /// What speaks against it; empty for a good one.
    pub problems: Vec<Problem>,
}

/// Chooses a face of a still and judges it. `faces` are all that were found in `image`, in
/// any order.
///
/// # Errors
/// [`Refusal`] when there is no face to take. Problems with the quality of the face are no
/// errors: they are in [`Examined::problems`], and the caller decides.
pub fn examine(
    image: &RgbImage,
    mut faces: Vec<Face>,
    choice: Choice,
    limits: &Limits,
) -> Result<Examined, Refusal> {
    faces.sort_by(|a, b| a.bbox.centre()[0].total_cmp(&b.bbox.centre()[0]));
    let chosen = match choice {
        Choice::Largest => {
            // The first of equals, counted from the left.
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
    let (height, sharpness, turn) = (face.bbox.height(), sharpness(&crop), turn_deg(&face));
    let mut problems = Vec::new();
    if height < limits.min_height_px {
        problems.push(Problem::TooSmall(height, limits.min_height_px));
    }
    if sharpness < limits.min_sharpness {
        problems.push(Problem::Blurred(sharpness, limits.min_sharpness));
    }
    if turn > limits.max_turn_deg {
        problems.push(Problem::TurnedAway(turn, limits.max_turn_deg));
    }
    Ok(Examined { face, number: index + 1, faces_seen: faces.len(), crop, already_aligned, problems })
}

/// Sharpness of a crop: the variance of its Laplacian in parts of the variance of its
/// brightness, over the middle of the face, so that neither contrast nor the size of the
/// original counts. Measured on 300 crops of LFW: median 0.096, lowest hundredth 0.026; after
/// a Gaussian blur of sigma 2 pixels (the eyes are 35 apart) median 0.008.
pub(super) fn sharpness(crop: &Crop) -> f32 {
    const ROWS: std::ops::Range<usize> = 20..104;
    const COLUMNS: std::ops::Range<usize> = 12..84;
    let luma: Vec<f64> = crop
        .as_rgb()
        .chunks_exact(3)
        .map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
        .collect();
    let at = |row: usize, column: usize| luma[row * CROP_WIDTH + column];
    let inside = || ROWS.flat_map(|row| COLUMNS.map(move |column| (row, column)));
    let brightness = inside().map(|(row, column)| at(row, column));
    let laplacian = inside().map(|(row, column)| {
        at(row - 1, column) + at(row + 1, column) + at(row, column - 1) + at(row, column + 1)
            - 4.0 * at(row, column)
    });
    let contrast = variance(brightness);
    // An even surface has nothing to be sharp.
    if contrast < 1.0 { 0.0 } else { (variance(laplacian) / contrast) as f32 }
}

fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for x in values {
        n += 1.0;
        sum += x;
        squares += x * x;
    }
    (squares / n - (sum / n) * (sum / n)).max(0.0)
}

/// About how far a face is turned to the side, in degrees, 0..=90.
///
/// The tip of the nose stands out by about 0.29 of the distance between the eyes (mean adult
/// proportions), so turning by an angle moves it along the line of the eyes by
/// 0.29 tan(angle) of the distance that is seen, away from the middle of eyes and mouth.
pub(super) fn turn_deg(face: &Face) -> f32 {
    const NOSE_DEPTH: f32 = 0.29;
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = face.landmarks;
    let axis = [right_eye[0] - left_eye[0], right_eye[1] - left_eye[1]];
    let square = axis[0] * axis[0] + axis[1] * axis[1];
    if square <= 0.0 {
        return 90.0;
    }
    let middle = [0, 1].map(|i| (left_eye[i] + right_eye[i] + left_mouth[i] + right_mouth[i]) / 4.0);
    let along = ((nose[0] - middle[0]) * axis[0] + (nose[1] - middle[1]) * axis[1]) / square;
    (along.abs() / NOSE_DEPTH).atan().to_degrees()
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
        examine(&picture(), faces, choice, &Limits::default()).map(|examined| examined.number)
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
        let examined = examine(&picture(), faces, Choice::Number(1), &Limits::default()).unwrap();
        assert_eq!((examined.face, examined.faces_seen), (face(1.0, 10.0, 10.0), 3));
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
    fn a_good_face_has_no_problems() {
        let examined =
            examine(&picture(), vec![face(1.0, 30.0, 40.0)], Choice::Largest, &Limits::default()).unwrap();
        assert_eq!(examined.problems, []);
        assert!(!examined.already_aligned);
    }

    #[test]
    fn small_blurred_and_turned_faces_are_told() {
        let problems = |picture: &RgbImage, face: Face| {
            examine(picture, vec![face], Choice::Largest, &Limits::default()).unwrap().problems
        };
        assert!(
            problems(&picture(), face(0.3, 10.0, 10.0)).iter().any(|p| matches!(p, Problem::TooSmall(..)))
        );

        // Nothing in it is finer than twenty pixels.
        let blurred = RgbImage::from_fn(200, 200, |x, y| {
            let wave = (x as f32 / 10.0).sin() * (y as f32 / 10.0).cos();
            image::Rgb([(128.0 + 100.0 * wave) as u8; 3])
        });
        assert!(matches!(problems(&blurred, face(1.0, 10.0, 10.0))[..], [Problem::Blurred(..)]));
        let even = RgbImage::from_pixel(200, 200, image::Rgb([90; 3]));
        assert!(matches!(problems(&even, face(1.0, 10.0, 10.0))[..], [Problem::Blurred(0.0, _)]));

        let mut profile = face(1.0, 30.0, 40.0);
        profile.landmarks[2][0] += 18.0;
        assert!(matches!(problems(&picture(), profile)[..], [Problem::TurnedAway(..)]));
    }

    #[test]
    fn the_turn_is_that_of_a_head_turned_in_space() {
        // Eyes 60 apart, the nose 17.4 in front, mouth corners 50 apart: turned about the
        // vertical and seen from far away, rolled by 20 degrees.
        for yaw_deg in [0.0f32, 15.0, 30.0, 45.0, 60.0] {
            let (sin, cos) = yaw_deg.to_radians().sin_cos();
            let (roll_sin, roll_cos) = 20f32.to_radians().sin_cos();
            let head = [
                [-30.0, 0.0, 0.0],
                [30.0, 0.0, 0.0],
                [0.0, 35.0, 17.4],
                [-25.0, 65.0, 0.0],
                [25.0, 65.0, 0.0],
            ];
            let landmarks = head.map(|[x, y, z]| {
                let seen = [x * cos + z * sin, y];
                [
                    seen[0] * roll_cos - seen[1] * roll_sin + 200.0,
                    seen[0] * roll_sin + seen[1] * roll_cos + 100.0,
                ]
            });
            let turn = turn_deg(&Face { landmarks, ..face(1.0, 0.0, 0.0) });
            assert!((turn - yaw_deg).abs() < 0.5, "{yaw_deg}: {turn}");
        }
        let collapsed = Face { landmarks: [[5.0, 5.0]; 5], ..face(1.0, 0.0, 0.0) };
        assert_eq!(turn_deg(&collapsed), 90.0);
    }

    #[test]
    fn an_aligned_crop_is_taken_as_it_is() {
        let crop = image::imageops::crop_imm(&picture(), 0, 0, 112, 112).to_image();
        let mut seen = face(1.0, 8.0, 0.0);
        seen.landmarks[0][0] += 1.0;
        let examined = examine(&crop, vec![seen], Choice::Largest, &Limits::default()).unwrap();
        assert!(examined.already_aligned);
        assert_eq!(examined.crop.to_image(), image::imageops::crop_imm(&crop, 8, 0, 96, 112).to_image());
    }
}
