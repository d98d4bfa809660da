//! From five landmarks to the 112x96 crop that SphereFace takes, and the columns beside it that other
//! networks take too.
//!
//! The transform is the least-squares similarity (scale, rotation, translation; never a reflection) from the
//! landmarks onto [`TEMPLATE`], with the error measured in the crop. MATLAB's `cp2tform`, which the authors
//! used, measures the error in the photograph. The two differ in scale by the squared correlation of the
//! point sets, a few percent for a turned face. The crop-side fit is what the common aligned data sets
//! (CASIA-WebFace in 112x112) were made with, so training, enrolment and labelling all use it.

use std::ops::Range;

use image::RgbImage;

use crate::detect::Landmarks;

/// Height of a SphereFace crop in pixels.
pub const CROP_HEIGHT: usize = 112;
/// Width of a SphereFace crop in pixels.
pub const CROP_WIDTH: usize = 96;

/// Positions of the landmarks in a crop, (x, y) in pixels. The authors' numbers, 1-based in MATLAB, are used
/// as 0-based unchanged, as most ports and the common aligned sets do.
pub const TEMPLATE: Landmarks =
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]];

/// Columns at each side that the 112x112 crop of other models has in addition to ours.
const SQUARE_MARGIN: usize = 8;

/// Side of that crop in pixels.
pub const SQUARE: usize = CROP_WIDTH + 2 * SQUARE_MARGIN;

/// Bytes of a row of pixels at each side of a crop.
const SIDE_BYTES: usize = 3 * SQUARE_MARGIN;

/// Bytes of a row of pixels of a crop.
const ROW_BYTES: usize = 3 * CROP_WIDTH;

/// The most samples per crop pixel along each axis: bounds the work for absurd landmarks.
const MAX_GRID: f64 = 64.0;

/// A similarity transform of the plane: (x, y) -> (a x - b y + tx, b x + a y + ty).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the rotation.
    pub a: f64,
    /// Scale times the sine of the rotation.
    pub b: f64,
    /// Translation along x in pixels of the target.
    pub tx: f64,
    /// Translation along y in pixels of the target.
    pub ty: f64,
}

impl Similarity {
    /// Maps a point.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty]
    }

    /// Target pixels per source pixel.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// Rotation in degrees; positive turns x towards y (clockwise on screen).
    pub fn rotation_deg(&self) -> f64 {
        self.b.atan2(self.a).to_degrees()
    }

    /// The transform back. The scale is not zero in a transform from [`estimate`].
    pub fn inverse(&self) -> Similarity {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Similarity { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) }
    }
}

/// The least-squares similarity from `landmarks` onto [`TEMPLATE`], in closed form and f64.
///
/// With both point sets centred, p_i and q_i as complex numbers, the best factor a + bi is
/// sum(conj(p_i) q_i) / sum(|p_i|^2) (Umeyama 1991 without the reflected case).
/// `None` when the landmarks coincide or are not finite.
pub fn estimate(landmarks: &Landmarks) -> Option<Similarity> {
    let points = landmarks.map(|p| p.map(f64::from));
    if points.iter().flatten().any(|x| !x.is_finite()) {
        return None;
    }
    let template = TEMPLATE.map(|p| p.map(f64::from));
    let (p_mean, q_mean) = (centroid(&points), centroid(&template));
    let (mut dot, mut cross, mut square) = (0.0, 0.0, 0.0);
    for (p, q) in points.iter().zip(&template) {
        let (px, py) = (p[0] - p_mean[0], p[1] - p_mean[1]);
        let (qx, qy) = (q[0] - q_mean[0], q[1] - q_mean[1]);
        dot += px * qx + py * qy;
        cross += px * qy - py * qx;
        square += px * px + py * py;
    }
    // With a spread below a thousandth of a pixel, or a factor of zero, there is no direction.
    if square < 1e-6 {
        return None;
    }
    let (a, b) = (dot / square, cross / square);
    let similarity = Similarity {
        a,
        b,
        tx: q_mean[0] - (a * p_mean[0] - b * p_mean[1]),
        ty: q_mean[1] - (b * p_mean[0] + a * p_mean[1]),
    };
    let scale = similarity.scale();
    (scale > 1e-6 && scale.is_finite()).then_some(similarity)
}

fn centroid(points: &[[f64; 2]; 5]) -> [f64; 2] {
    [0, 1].map(|axis| points.iter().map(|p| p[axis]).sum::<f64>() / 5.0)
}

/// Cuts the aligned face out of `image` in a single resampling.
///
/// Sampling is bilinear; outside the image is black. Where the face is larger than the crop, each crop pixel
/// is the mean of n x n samples spread evenly over its area, where n is the number of source pixels per crop
/// pixel along an axis, rounded to the nearest (1 up to 1.5, at most 64). So every source pixel contributes,
/// and nothing aliases. `None` when the landmarks are degenerate ([`estimate`]).
pub fn align(image: &RgbImage, landmarks: &Landmarks) -> Option<Crop> {
    Crop::from_square(&sample(image, landmarks, SQUARE_MARGIN)?)
}

/// The rows of an image of that height which [`align`] reads; `None` when the landmarks are degenerate.
pub fn rows(landmarks: &Landmarks, height: usize) -> Option<Range<usize>> {
    let back = estimate(landmarks)?.inverse();
    let margin = SQUARE_MARGIN as f64 + 0.5;
    let (left, right) = (-margin, CROP_WIDTH as f64 + margin - 1.0);
    let (top, bottom) = (-0.5, CROP_HEIGHT as f64 - 0.5);
    let corners = [[left, top], [right, top], [left, bottom], [right, bottom]];
    let (least, most) = corners
        .map(|corner| back.apply(corner)[1])
        .into_iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), y| (least.min(y), most.max(y)));
    let row = |y: f64| y.clamp(0.0, height as f64) as usize;
    // A sample lies between two rows.
    Some(row(least.floor())..row(most.floor() + 2.0))
}

/// The 112x112 crop of other models: as [`align`], with eight more columns at each side.
pub fn align_square(image: &RgbImage, landmarks: &Landmarks) -> Option<RgbImage> {
    RgbImage::from_raw(SQUARE as u32, CROP_HEIGHT as u32, sample(image, landmarks, SQUARE_MARGIN)?)
}

/// The crop with `margin` more columns at each side, packed RGB.
fn sample(image: &RgbImage, landmarks: &Landmarks, margin: usize) -> Option<Vec<u8>> {
    let back = estimate(landmarks)?.inverse();
    let n = back.scale().round().clamp(1.0, MAX_GRID);
    // Sample positions within a crop pixel, relative to its centre.
    let offsets: Vec<f64> = (0..n as usize).map(|i| (i as f64 + 0.5) / n - 0.5).collect();
    let weight = 1.0 / (n * n) as f32;
    let columns = CROP_WIDTH + 2 * margin;
    let mut rgb = Vec::with_capacity(CROP_HEIGHT * columns * 3);
    for row in 0..CROP_HEIGHT {
        for column in 0..columns {
            let column = column as f64 - margin as f64;
            let mut sum = [0.0f32; 3];
            for dy in &offsets {
                for dx in &offsets {
                    let sample = bilinear(image, back.apply([column + dx, row as f64 + dy]));
                    sum.iter_mut().zip(sample).for_each(|(total, value)| *total += value);
                }
            }
            rgb.extend(sum.map(|total| (total * weight + 0.5) as u8));
        }
    }
    Some(rgb)
}

/// The image at (x, y), interpolated between its four neighbours; neighbours outside are black.
fn bilinear(image: &RgbImage, [x, y]: [f64; 2]) -> [f32; 3] {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let between = |p00: [f32; 3], p10: [f32; 3], p01: [f32; 3], p11: [f32; 3], fx: f32, fy: f32| {
        [0, 1, 2].map(|c| {
            let upper = p00[c] + fx * (p10[c] - p00[c]);
            let lower = p01[c] + fx * (p11[c] - p01[c]);
            upper + fy * (lower - upper)
        })
    };
    // Fast path: nearly every sample has all four in the image.
    if x >= 0.0 && y >= 0.0 && x < width as f64 - 1.0 && y < height as f64 - 1.0 {
        let (left, top) = (x as usize, y as usize);
        let pair = |row: usize| image.as_raw().get((row * width + left) * 3..)?.first_chunk::<6>();
        if let (Some(upper), Some(lower)) = (pair(top), pair(top + 1)) {
            let pixel = |row: &[u8; 6], at: usize| [row[at], row[at + 1], row[at + 2]].map(f32::from);
            let (fx, fy) = ((x - left as f64) as f32, (y - top as f64) as f32);
            return between(pixel(upper, 0), pixel(upper, 3), pixel(lower, 0), pixel(lower, 3), fx, fy);
        }
    }
    let (left, top) = (x.floor(), y.floor());
    // Also false for NaN; keeps the casts below exact.
    if !(left >= -1.0 && top >= -1.0 && left < width as f64 && top < height as f64) {
        return [0.0; 3];
    }
    let (fx, fy) = ((x - left) as f32, (y - top) as f32);
    let (left, top) = (left as isize, top as isize);
    let pixels = image.as_raw();
    let pixel = |dx: isize, dy: isize| -> [f32; 3] {
        let (column, row) = (left + dx, top + dy);
        if column < 0 || row < 0 || column >= width as isize || row >= height as isize {
            return [0.0; 3];
        }
        let start = (row as usize * width + column as usize) * 3;
        match pixels.get(start..start + 3) {
            Some(&[r, g, b]) => [f32::from(r), f32::from(g), f32::from(b)],
            _ => [0.0; 3],
        }
    };
    between(pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1), fx, fy)
}

/// Returns an already aligned picture unchanged. Aligning it once more would ruin it, because the detector is
/// unsure of landmarks in a crop without surroundings.
///
/// Such a picture measures exactly 96x112, or 112x112, and the landmarks found in it need almost no
/// transform: scale within 12 %, rotation within 7 degrees, the middle of the crop moved by at most 6 pixels.
/// `None` for any other picture.
pub fn already_aligned(image: &RgbImage, landmarks: &Landmarks) -> Option<Crop> {
    let margin = match (image.width() as usize, image.height() as usize) {
        (CROP_WIDTH, CROP_HEIGHT) => 0,
        (width, CROP_HEIGHT) if width == CROP_WIDTH + 2 * SQUARE_MARGIN => SQUARE_MARGIN,
        _ => return None,
    };
    let similarity = estimate(&landmarks.map(|[x, y]| [x - margin as f32, y]))?;
    let middle = [CROP_WIDTH as f64 / 2.0, CROP_HEIGHT as f64 / 2.0];
    let moved = similarity.apply(middle);
    let near = (0.88..=1.12).contains(&similarity.scale())
        && similarity.rotation_deg().abs() <= 7.0
        && (moved[0] - middle[0]).hypot(moved[1] - middle[1]) <= 6.0;
    if !near {
        return None;
    }
    Crop::from_image(image.clone())
}

/// An aligned face: 112 rows of 96 RGB pixels, packed, with the eight pixels at each side of every row if
/// they are known.
#[derive(Clone, PartialEq, Eq)]
pub struct Crop {
    rgb: Vec<u8>,
    /// The pixels on the left and on the right of each row, concatenated.
    sides: Option<Vec<u8>>,
}

impl std::fmt::Debug for Crop {
    /// The size only, since thirty thousand bytes would be unreadable.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crop").field("has_sides", &self.has_sides()).finish_non_exhaustive()
    }
}

impl Crop {
    /// Bytes of a crop without its sides.
    pub const LEN_BYTES: usize = CROP_HEIGHT * ROW_BYTES;

    /// A crop without sides from packed RGB bytes; `None` when there are not exactly
    /// [`Crop::LEN_BYTES`].
    pub fn from_rgb(rgb: Vec<u8>) -> Option<Self> {
        (rgb.len() == Self::LEN_BYTES).then_some(Self { rgb, sides: None })
    }

    /// A crop with its sides from packed RGB bytes of 112x112 pixels; `None` for any other number of them.
    pub fn from_square(rgb: &[u8]) -> Option<Self> {
        if rgb.len() != 3 * SQUARE * CROP_HEIGHT {
            return None;
        }
        let mut crop = Vec::with_capacity(Self::LEN_BYTES);
        let mut sides = Vec::with_capacity(2 * SIDE_BYTES * CROP_HEIGHT);
        for row in rgb.chunks_exact(3 * SQUARE) {
            let (left, row) = row.split_at(SIDE_BYTES);
            let (row, right) = row.split_at(ROW_BYTES);
            crop.extend_from_slice(row);
            sides.extend_from_slice(left);
            sides.extend_from_slice(right);
        }
        Some(Self { rgb: crop, sides: Some(sides) })
    }

    /// A crop from a picture of 96x112 pixels, or one of 112x112 with its sides; `None` for any other
    /// size.
    pub fn from_image(image: RgbImage) -> Option<Self> {
        let (width, height) = image.dimensions();
        match (width as usize, height as usize) {
            (CROP_WIDTH, CROP_HEIGHT) => Self::from_rgb(image.into_raw()),
            (SQUARE, CROP_HEIGHT) => Self::from_square(image.as_raw()),
            _ => None,
        }
    }

    /// Packed RGB bytes without the sides, row by row.
    pub fn as_rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Whether the sides are known.
    pub fn has_sides(&self) -> bool {
        self.sides.is_some()
    }

    /// Packed RGB bytes of 112x112 pixels. If the sides are not known, the first and the last pixel of a row
    /// are repeated.
    pub fn to_square(&self) -> Vec<u8> {
        let mut square = Vec::with_capacity(3 * SQUARE * CROP_HEIGHT);
        for (y, row) in self.rgb.chunks_exact(ROW_BYTES).enumerate() {
            match &self.sides {
                Some(sides) => {
                    let (left, right) = sides[2 * SIDE_BYTES * y..][..2 * SIDE_BYTES].split_at(SIDE_BYTES);
                    [left, row, right].iter().for_each(|part| square.extend_from_slice(part));
                }
                None => {
                    square.extend(row[..3].repeat(SQUARE_MARGIN));
                    square.extend_from_slice(row);
                    square.extend(row[ROW_BYTES - 3..].repeat(SQUARE_MARGIN));
                }
            }
        }
        square
    }

    /// The crop without its sides as a picture of 96x112 pixels.
    pub fn to_image(&self) -> RgbImage {
        RgbImage::from_fn(CROP_WIDTH as u32, CROP_HEIGHT as u32, |x, y| {
            let start = (y as usize * CROP_WIDTH + x as usize) * 3;
            image::Rgb([self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]])
        })
    }

    /// The whole crop as a picture: 112x112 pixels, or 96x112 without sides.
    pub fn to_whole_image(&self) -> RgbImage {
        let whole = self.has_sides().then(|| self.to_square());
        let whole = whole.and_then(|rgb| RgbImage::from_raw(SQUARE as u32, CROP_HEIGHT as u32, rgb));
        whole.unwrap_or_else(|| self.to_image())
    }

    /// The mirror image, left and right exchanged.
    pub fn mirrored(&self) -> Crop {
        // The sides of a row are stored together, so mirroring exchanges them like the other pixels.
        let mirror = |rgb: &[u8], width: usize| -> Vec<u8> {
            rgb.chunks_exact(width)
                .flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten().copied())
                .collect()
        };
        let sides = self.sides.as_ref().map(|sides| mirror(sides, 2 * SIDE_BYTES));
        Crop { rgb: mirror(&self.rgb, ROW_BYTES), sides }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Landmarks that `transform` (picture -> crop) maps onto the template.
    fn landmarks_under(transform: &Similarity) -> Landmarks {
        let back = transform.inverse();
        TEMPLATE.map(|p| back.apply(p.map(f64::from)).map(|x| x as f32))
    }

    fn similarity(scale: f64, rotation_deg: f64, tx: f64, ty: f64) -> Similarity {
        let (sin, cos) = rotation_deg.to_radians().sin_cos();
        Similarity { a: scale * cos, b: scale * sin, tx, ty }
    }

    /// The same least squares by the normal equations of the four unknowns, solved by
    /// Gaussian elimination in f64.
    fn normal_equations(landmarks: &Landmarks) -> Similarity {
        let mut system = [[0.0f64; 5]; 4];
        for (p, q) in landmarks.iter().zip(&TEMPLATE) {
            let ([x, y], [u, v]) = (p.map(f64::from), q.map(f64::from));
            for (row, target) in [([x, -y, 1.0, 0.0], u), ([y, x, 0.0, 1.0], v)] {
                for i in 0..4 {
                    for j in 0..4 {
                        system[i][j] += row[i] * row[j];
                    }
                    system[i][4] += row[i] * target;
                }
            }
        }
        for i in 0..4 {
            let pivot = (i..4).max_by(|&r, &s| system[r][i].abs().total_cmp(&system[s][i].abs())).unwrap();
            system.swap(i, pivot);
            for r in 0..4 {
                if r != i {
                    let factor = system[r][i] / system[i][i];
                    for c in i..5 {
                        system[r][c] -= factor * system[i][c];
                    }
                }
            }
        }
        let x: Vec<f64> = (0..4).map(|i| system[i][4] / system[i][i]).collect();
        Similarity { a: x[0], b: x[1], tx: x[2], ty: x[3] }
    }

    fn assert_close(found: &Similarity, expected: &Similarity, tolerance_px: f64) {
        // Only the mapping of points of the crop matters.
        for corner in [[0.0, 0.0], [96.0, 0.0], [0.0, 112.0], [96.0, 112.0]] {
            let at = expected.inverse().apply(corner);
            let moved = found.apply(at);
            let distance = (moved[0] - corner[0]).hypot(moved[1] - corner[1]);
            assert!(distance < tolerance_px, "{corner:?} lands {distance} px away: {found:?} {expected:?}");
        }
    }

    #[test]
    fn recovers_an_exact_similarity() {
        for (scale, rotation, tx, ty) in [
            (1.0, 0.0, 0.0, 0.0),
            (0.3, 17.0, -40.0, 12.5),
            (2.5, -120.0, 300.0, 7.0),
            (0.05, 179.0, 3.0, 9.0),
        ] {
            let expected = similarity(scale, rotation, tx, ty);
            assert_close(&estimate(&landmarks_under(&expected)).unwrap(), &expected, 1e-3);
        }
    }

    #[test]
    fn agrees_with_the_normal_equations_for_landmarks_that_do_not_fit() {
        // A turned face as a detector sees it.
        let turned: Landmarks =
            [[812.3, 401.7], [861.9, 409.2], [858.4, 441.1], [809.6, 467.0], [846.2, 473.8]];
        assert_close(&estimate(&turned).unwrap(), &normal_equations(&turned), 1e-6);
    }

    #[test]
    fn a_reflection_is_never_chosen() {
        // Mirrored landmarks fit the template exactly after a reflection. The transform has no room for one
        // (its determinant is a^2 + b^2), so the best rotation remains.
        let mirrored = TEMPLATE.map(|[x, y]| [95.0 - x, y]);
        let found = estimate(&mirrored).unwrap();
        assert_close(&found, &normal_equations(&mirrored), 1e-6);
        let worst = mirrored
            .iter()
            .zip(&TEMPLATE)
            .map(|(p, q)| {
                let at = found.apply(p.map(f64::from));
                (at[0] - f64::from(q[0])).hypot(at[1] - f64::from(q[1]))
            })
            .fold(0.0, f64::max);
        assert!(worst > 10.0, "the fit is too good for a pure rotation: {worst}");
    }

    #[test]
    fn degenerate_landmarks_have_no_transform() {
        assert_eq!(estimate(&[[5.0, 5.0]; 5]), None);
        let mut broken = TEMPLATE;
        broken[3][1] = f32::NAN;
        assert_eq!(estimate(&broken), None);
        broken[3][1] = f32::INFINITY;
        assert_eq!(estimate(&broken), None);
        assert_eq!(align(&RgbImage::new(10, 10), &[[5.0, 5.0]; 5]), None);
    }

    #[test]
    fn absurd_landmarks_take_bounded_work() {
        let huge = TEMPLATE.map(|p| p.map(|x| x * 1e5 - 4e6));
        let crop = align(&RgbImage::from_pixel(64, 64, image::Rgb([255; 3])), &huge).unwrap();
        assert!(crop.as_rgb().iter().all(|&x| x < 255));
    }

    #[test]
    fn samples_a_ramp_where_the_f64_transform_says() {
        // One level per pixel, red along x and green along y: bilinear interpolation is exact, so the only
        // difference may be the rounding of the result, and a shift of a hundredth of a pixel would push some
        // of the 10,752 values beyond it.
        let ramp = RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, 200]));
        for (scale, rotation) in [(1.0, 0.0), (1.7, 30.0), (0.9, -45.0), (0.55, 10.0), (0.45, 90.0)] {
            // The middle of the picture near the middle of the crop.
            let mut transform = similarity(scale, rotation, 0.0, 0.0);
            let at = transform.apply([127.3, 127.9]);
            (transform.tx, transform.ty) = (47.5 - at[0], 55.5 - at[1]);
            let crop = align(&ramp, &landmarks_under(&transform)).unwrap();
            let back = transform.inverse();
            let mut inside = 0;
            for (i, pixel) in crop.as_rgb().chunks_exact(3).enumerate() {
                let [x, y] = back.apply([(i % CROP_WIDTH) as f64, (i / CROP_WIDTH) as f64]);
                if x < 2.0 || y < 2.0 || x > 253.0 || y > 253.0 {
                    continue;
                }
                inside += 1;
                assert!((f64::from(pixel[0]) - x).abs() < 0.505, "{scale} {rotation}: {} at {x}", pixel[0]);
                assert!((f64::from(pixel[1]) - y).abs() < 0.505, "{scale} {rotation}: {} at {y}", pixel[1]);
                assert_eq!(pixel[2], 200);
            }
            assert!(inside > 9_000, "{scale} {rotation}: only {inside} inside");
        }
    }

    #[test]
    fn the_identity_copies_the_crop() {
        let picture = RgbImage::from_fn(96, 112, |x, y| image::Rgb([x as u8, y as u8, (x * y % 251) as u8]));
        let crop = align(&picture, &TEMPLATE).unwrap();
        assert_eq!(crop.as_rgb(), picture.as_raw().as_slice());
        assert_eq!(crop.to_image(), picture);
        let narrow = Crop::from_image(picture).unwrap();
        assert_eq!(narrow.as_rgb(), crop.as_rgb());
        assert!(crop.has_sides() && !narrow.has_sides());
    }

    #[test]
    fn a_crop_comes_from_the_rows_that_are_named() {
        let image =
            RgbImage::from_fn(300, 240, |x, y| image::Rgb([(x % 251) as u8, (y * 7 % 256) as u8, 90]));
        let mut least = 240;
        for (turn, scale, [x, y]) in [
            (0.0, 0.5, [150.0, 120.0]),
            (0.4, 0.7, [140.0, 130.0]),
            (-1.2, 0.3, [60.0, 70.0]),
            (3.0, 1.4, [160.0, 20.0]),
            (0.1, 0.2, [10.0, 235.0]),
            (0.0, 0.4, [150.0, 900.0]),
        ] {
            let (sin, cos) = f64::sin_cos(turn);
            let landmarks = TEMPLATE.map(|[a, b]| {
                let (a, b) = ((f64::from(a) - 48.0) * scale, (f64::from(b) - 56.0) * scale);
                [(x + cos * a - sin * b) as f32, (y + sin * a + cos * b) as f32]
            });
            let rows = rows(&landmarks, 240).unwrap();
            let part = RgbImage::from_fn(300, 240, |x, y| match rows.contains(&(y as usize)) {
                true => *image.get_pixel(x, y),
                false => image::Rgb([255, 0, 255]),
            });
            assert_eq!(align(&part, &landmarks), align(&image, &landmarks), "{turn} {scale}: {rows:?}");
            least = least.min(rows.len());
        }
        assert_eq!(least, 0, "nothing of the last is in the picture");
    }

    #[test]
    fn sides_are_kept_mirrored_and_made_up_where_they_are_missing() {
        let square = RgbImage::from_fn(112, 112, |x, y| image::Rgb([x as u8, y as u8, (x * y % 251) as u8]));
        let crop = Crop::from_image(square.clone()).unwrap();
        assert_eq!(crop.to_square(), *square.as_raw());
        assert_eq!(crop.to_whole_image(), square);
        assert_eq!(crop.to_image(), image::imageops::crop_imm(&square, 8, 0, 96, 112).to_image());
        let mirrored = image::imageops::flip_horizontal(&square);
        assert_eq!(crop.mirrored().to_square(), *mirrored.as_raw());
        let narrow = Crop::from_rgb(crop.as_rgb().to_vec()).unwrap();
        assert_eq!(narrow.to_whole_image(), narrow.to_image());
        let wide = RgbImage::from_raw(112, 112, narrow.to_square()).unwrap();
        assert!((0..112).all(|x| *wide.get_pixel(x, 50) == *square.get_pixel(x.clamp(8, 103), 50)));
        assert_eq!(Crop::from_square(&wide.as_raw()[3..]), None);
    }

    #[test]
    fn outside_the_picture_is_black() {
        let white = RgbImage::from_pixel(96, 56, image::Rgb([255; 3]));
        let crop = align(&white, &TEMPLATE).unwrap();
        let row = |y: usize| &crop.as_rgb()[y * CROP_WIDTH * 3..(y + 1) * CROP_WIDTH * 3];
        assert!(row(55).iter().all(|&x| x == 255));
        assert!(row(56).iter().all(|&x| x == 0));
    }

    #[test]
    fn a_large_face_does_not_alias() {
        // Stripes of one pixel, at eight pixels per crop pixel: grey, not a moire.
        let stripes = RgbImage::from_fn(800, 900, |x, _| image::Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]));
        let crop = align(&stripes, &landmarks_under(&similarity(0.125, 0.0, 0.0, 0.0))).unwrap();
        let inner = &crop.as_rgb()[CROP_WIDTH * 3..];
        let interior = inner.chunks_exact(CROP_WIDTH * 3).flat_map(|row| &row[3..]);
        assert!(interior.clone().all(|&x| (126..=129).contains(&x)));
    }

    #[test]
    fn mirroring_exchanges_left_and_right_and_twice_is_nothing() {
        let picture = RgbImage::from_fn(96, 112, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let crop = Crop::from_image(picture.clone()).unwrap();
        assert_eq!(crop.mirrored().to_image(), image::imageops::flip_horizontal(&picture));
        assert_eq!(crop.mirrored().mirrored(), crop);
    }

    #[test]
    fn an_aligned_picture_passes_through() {
        let narrow = RgbImage::from_fn(96, 112, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let noisy = TEMPLATE.map(|[x, y]| [x + 1.5, y - 1.0]);
        assert_eq!(already_aligned(&narrow, &noisy).unwrap().to_image(), narrow);

        let square = RgbImage::from_fn(112, 112, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let shifted = TEMPLATE.map(|[x, y]| [x + 8.0, y]);
        let crop = already_aligned(&square, &shifted).unwrap();
        assert_eq!(crop.to_image(), image::imageops::crop_imm(&square, 8, 0, 96, 112).to_image());
    }

    #[test]
    fn other_pictures_are_not_taken_for_aligned_ones() {
        let small = TEMPLATE.map(|[x, y]| [x * 0.7 + 15.0, y * 0.7 + 15.0]);
        assert_eq!(already_aligned(&RgbImage::new(96, 112), &small), None);
        assert_eq!(already_aligned(&RgbImage::new(112, 96), &TEMPLATE), None);
        assert_eq!(already_aligned(&RgbImage::new(97, 112), &TEMPLATE), None);
        // 112x112 with the face at the position of the narrow template: eight pixels off.
        assert_eq!(already_aligned(&RgbImage::new(112, 112), &TEMPLATE), None);
    }
}
