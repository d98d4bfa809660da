//! How well a face can be recognised: size, pose and sharpness.

use std::fmt;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{BBox, Face};

/// Measures of one face, computed once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Side of the square with the area of the part of the box that is in the picture, in pixels of the
    /// picture.
    pub size_px: f32,
    /// Turn to the side, 0 facing the camera, positive when the nose points to the right of the picture.
    /// Accurate to about 10 degrees up to 45; beyond that it only indicates a far turn.
    pub yaw_deg: f32,
    /// Nod, 0 facing the camera, positive when the nose points down. A long or short face shifts it by a few
    /// degrees.
    pub pitch_deg: f32,
    /// Tilt in the picture plane, positive clockwise.
    pub roll_deg: f32,
    /// Standard deviation of the Laplacian of the grey face, divided by that of its grey values. The box is
    /// sampled at no more than 64x64 points. Independent of brightness and contrast.
    pub sharpness: f32,
}

/// Why a face makes a bad still to enrol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "issue")]
pub enum QualityIssue {
    /// Fewer pixels than recognition needs.
    TooSmall {
        /// [`Quality::size_px`].
        size_px: f32,
    },
    /// Out of focus, blurred by motion, or enlarged.
    Blurred {
        /// [`Quality::sharpness`].
        sharpness: f32,
    },
    /// Not facing the camera.
    TurnedAway {
        /// [`Quality::yaw_deg`].
        yaw_deg: f32,
        /// [`Quality::pitch_deg`].
        pitch_deg: f32,
    },
}

/// A [score](Face::score) that false detections do not reach for long: of the tracks of the test clips, faces
/// reached 0.99 and hands or curtains did not.
pub const SURE_SCORE: f32 = 0.99;
/// Smallest face to enrol, [`Quality::size_px`].
pub const MIN_SIZE_PX: f32 = 50.0;
/// Least [`Quality::sharpness`] to enrol.
pub const MIN_SHARPNESS: f32 = 0.12;
/// Largest turn to the side to enrol, either way.
pub const MAX_YAW_DEG: f32 = 40.0;
/// Largest nod to enrol, either way.
pub const MAX_PITCH_DEG: f32 = 35.0;

impl Quality {
    /// Measures a face in the picture it was found in.
    pub fn measure(face: &Face, image: &RgbImage) -> Self {
        let [yaw_deg, pitch_deg, roll_deg] = pose(face);
        let (width, height) = (image.width() as f32, image.height() as f32);
        let BBox { x1, y1, x2, y2 } = face.bbox;
        let inside = BBox { x1: x1.max(0.0), y1: y1.max(0.0), x2: x2.min(width), y2: y2.min(height) };
        let size_px = inside.area().sqrt();
        Self { size_px, yaw_deg, pitch_deg, roll_deg, sharpness: sharpness(face, image) }
    }

    /// The reasons against enrolling this face; empty if there are none.
    pub fn verdict(&self) -> Vec<QualityIssue> {
        let Self { size_px, yaw_deg, pitch_deg, sharpness, .. } = *self;
        let mut issues = Vec::new();
        if size_px < MIN_SIZE_PX {
            issues.push(QualityIssue::TooSmall { size_px });
        }
        if sharpness < MIN_SHARPNESS {
            issues.push(QualityIssue::Blurred { sharpness });
        }
        if yaw_deg.abs() > MAX_YAW_DEG || pitch_deg.abs() > MAX_PITCH_DEG {
            issues.push(QualityIssue::TurnedAway { yaw_deg, pitch_deg });
        }
        issues
    }
}

impl fmt::Display for QualityIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { size_px } => write!(
                f,
                "the face is {size_px:.0} px in size, less than {MIN_SIZE_PX}: use a picture taken from closer or at a higher resolution"
            ),
            Self::Blurred { sharpness } => write!(
                f,
                "the face is blurred (sharpness {sharpness:.2}, less than {MIN_SHARPNESS}): use a sharper picture"
            ),
            Self::TurnedAway { yaw_deg, pitch_deg } => write!(
                f,
                "the face is turned away ({:.0} degrees to the side, {:.0} up or down; {MAX_YAW_DEG} and {MAX_PITCH_DEG} are allowed): use a picture facing the camera",
                yaw_deg.abs(),
                pitch_deg.abs()
            ),
        }
    }
}

/// Distance of the eyes, distance of the mouth corners, eyes to mouth, and eyes to nose tip in
/// a face seen from the front: the template that SphereFace aligns to, in its pixels.
const EYES: f32 = 35.2;
const MOUTH: f32 = 29.2;
const EYES_TO_MOUTH: f32 = 40.7;
const EYES_TO_NOSE: f32 = 20.1;
/// Distance of the nose tip from the plane of the other four, about 28 mm where the eyes are 63 mm apart.
const NOSE: f32 = 15.7;

/// Yaw, pitch and roll in degrees: the five points are fitted as a parallel projection of a face of average
/// proportions. Eyes and mouth give the projections of the face's horizontal and vertical axes. The remaining
/// offset of the nose gives the axis towards the viewer.
fn pose(face: &Face) -> [f32; 3] {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = face.landmarks;
    let each = |f: &dyn Fn(usize) -> f32| [f(0), f(1)];
    let centre = each(&|i| (left_eye[i] + right_eye[i] + left_mouth[i] + right_mouth[i]) / 4.0);
    // Least squares, where the four points are symmetric.
    let spread = (EYES * EYES + MOUTH * MOUTH) / 2.0;
    let across = each(&|i| {
        let (eyes, mouth) = (right_eye[i] - left_eye[i], right_mouth[i] - left_mouth[i]);
        (EYES * eyes + MOUTH * mouth) / 2.0 / spread
    });
    let down =
        each(&|i| (left_mouth[i] + right_mouth[i] - left_eye[i] - right_eye[i]) / (2.0 * EYES_TO_MOUTH));
    let nose_y = EYES_TO_NOSE - EYES_TO_MOUTH / 2.0;
    let out = each(&|i| (nose[i] - centre[i] - nose_y * down[i]) / NOSE);
    let roll = (-down[0]).atan2(down[1]);
    let (sin, cos) = roll.sin_cos();
    let upright = |[x, y]: [f32; 2]| [x * cos + y * sin, y * cos - x * sin];
    let [across, down, out] = [across, down, out].map(upright);
    let yaw = out[0].atan2(across[0].max(0.0));
    let pitch = out[1].atan2(down[1]);
    [yaw, pitch, roll].map(f32::to_degrees)
}

/// Samples along a side for [`Quality::sharpness`].
const SAMPLES: usize = 64;
/// Pixels along a side that are averaged into one sample if there are more.
const PIXELS: usize = 3;

fn sharpness(face: &Face, image: &RgbImage) -> f32 {
    let clamp = |value: f32, side: u32| (value.max(0.0) as usize).min(side as usize);
    let (left, right) = (clamp(face.bbox.x1, image.width()), clamp(face.bbox.x2, image.width()));
    let (top, bottom) = (clamp(face.bbox.y1, image.height()), clamp(face.bbox.y2, image.height()));
    let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
    let (columns, rows) = (width.min(SAMPLES), height.min(SAMPLES));
    if columns < 3 || rows < 3 {
        return 0.0;
    }
    // The bytes of every pixel that is read: a few per sample, evenly spread.
    let spread = |first: usize, length: usize, samples: usize| -> Vec<usize> {
        let pixels = PIXELS.min(length / samples);
        (0..samples * pixels).map(|i| first + (2 * i + 1) * length / (2 * samples * pixels)).collect()
    };
    let (xs, ys) = (spread(left, width, columns), spread(top, height, rows));
    let (per_x, per_y) = (xs.len() / columns, ys.len() / rows);
    let bytes = image.as_raw();
    let stride = image.width() as usize * 3;
    let mut grey = vec![0.0f32; columns * rows];
    for (ys, grey) in ys.chunks_exact(per_y).zip(grey.chunks_exact_mut(columns)) {
        for &y in ys {
            let row = &bytes[y * stride..(y + 1) * stride];
            for (xs, grey) in xs.chunks_exact(per_x).zip(grey.iter_mut()) {
                let sum: u32 = xs
                    .iter()
                    .map(|&x| {
                        let [r, g, b] = [row[x * 3], row[x * 3 + 1], row[x * 3 + 2]].map(u32::from);
                        2 * r + 5 * g + b
                    })
                    .sum();
                *grey += sum as f32 / (8 * per_x * per_y) as f32;
            }
        }
    }
    let mut laplacian = Vec::with_capacity(grey.len());
    for y in 1..rows - 1 {
        for at in y * columns + 1..(y + 1) * columns - 1 {
            let around = grey[at - 1] + grey[at + 1] + grey[at - columns] + grey[at + columns];
            laplacian.push(4.0 * grey[at] - around);
        }
    }
    let contrast = deviation(&grey);
    if contrast > 0.0 { deviation(&laplacian) / contrast } else { 0.0 }
}

/// Standard deviation.
fn deviation(values: &[f32]) -> f32 {
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::noise_image;

    /// The model face turned by these angles (roll, then pitch, then yaw of the face).
    fn face(yaw_deg: f32, pitch_deg: f32, roll_deg: f32) -> Face {
        let (yaw, pitch, roll) = (yaw_deg.to_radians(), pitch_deg.to_radians(), roll_deg.to_radians());
        let half = EYES_TO_MOUTH / 2.0;
        let points = [
            [-EYES / 2.0, -half, 0.0],
            [EYES / 2.0, -half, 0.0],
            [0.0, EYES_TO_NOSE - half, NOSE],
            [-MOUTH / 2.0, half, 0.0],
            [MOUTH / 2.0, half, 0.0],
        ];
        let landmarks = points.map(|[x, y, z]: [f32; 3]| {
            let (x, z) = (x * yaw.cos() + z * yaw.sin(), z * yaw.cos() - x * yaw.sin());
            let y = y * pitch.cos() + z * pitch.sin();
            [x * roll.cos() - y * roll.sin() + 100.0, x * roll.sin() + y * roll.cos() + 100.0]
        });
        Face { bbox: BBox { x1: 60.0, y1: 60.0, x2: 140.0, y2: 160.0 }, score: 1.0, landmarks }
    }

    #[test]
    fn the_angles_of_a_turned_model_come_back() {
        for [yaw, pitch, roll] in [
            [0.0, 0.0, 0.0],
            [30.0, 0.0, 0.0],
            [-50.0, 0.0, 0.0],
            [0.0, 20.0, 0.0],
            [0.0, -20.0, 30.0],
            [25.0, 0.0, -40.0],
        ] {
            let found = pose(&face(yaw, pitch, roll));
            for (found, expected) in found.into_iter().zip([yaw, pitch, roll]) {
                assert!((found - expected).abs() < 0.1, "{found} for {expected}");
            }
        }
        let found = pose(&face(25.0, 15.0, 10.0));
        for (found, expected) in found.into_iter().zip([25.0, 15.0, 10.0]) {
            assert!((found - expected).abs() < 6.0, "{found} for {expected}");
        }
    }

    #[test]
    fn blur_lowers_the_sharpness_and_brightness_does_not() {
        let face = face(0.0, 0.0, 0.0);
        let sharp = noise_image(200, 200);
        let blurred = image::imageops::blur(&sharp, 3.0);
        let mut dark = sharp.clone();
        dark.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| value / 2));
        let [sharp, blurred, dark] =
            [sharp, blurred, dark].map(|image| Quality::measure(&face, &image).sharpness);
        assert!(blurred < sharp / 4.0, "{blurred} {sharp}");
        assert!((dark - sharp).abs() < sharp / 50.0, "{dark} {sharp}");
    }

    #[test]
    fn a_face_outside_or_on_a_plain_picture_has_no_sharpness() {
        let outside = Face { bbox: BBox { x1: -90.0, y1: -50.0, x2: -10.0, y2: 9e9 }, ..face(0.0, 0.0, 0.0) };
        assert_eq!(Quality::measure(&outside, &noise_image(50, 50)).sharpness, 0.0);
        assert_eq!(Quality::measure(&face(0.0, 0.0, 0.0), &RgbImage::new(200, 200)).sharpness, 0.0);
        assert_eq!(Quality::measure(&face(0.0, 0.0, 0.0), &RgbImage::new(0, 0)).sharpness, 0.0);
    }

    #[test]
    fn the_verdict_names_what_is_wrong() {
        let good = Quality { size_px: 120.0, yaw_deg: 5.0, pitch_deg: 5.0, roll_deg: 30.0, sharpness: 1.0 };
        assert_eq!(good.verdict(), []);
        let bad = Quality { size_px: 20.0, yaw_deg: -80.0, sharpness: 0.01, ..good };
        assert_eq!(bad.verdict().len(), 3);
        assert!(bad.verdict()[2].to_string().contains("80 degrees"));
    }
}
