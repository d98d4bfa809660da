//! A small grey copy of a face, to distinguish a face that moved from another face in its place.

use crate::detect::BBox;

/// Cells along a side of a [`FacePatch`].
const CELLS: usize = 16;
/// Maximum number of pixels read along a side of a cell.
const SAMPLES: usize = 4;

/// The grey values of a face box in 16 x 16 cells, without their mean and of unit length: the same
/// in any light and at any size.
#[derive(Debug, Clone, PartialEq)]
pub struct FacePatch([f32; CELLS * CELLS]);

/// The brightness of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Luma<'a> {
    /// One byte per pixel, row by row.
    pub bytes: &'a [u8],
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl FacePatch {
    /// The copy of a box (in pixels) of a picture. Outside of the picture, its border is repeated.
    pub fn new(Luma { bytes, width, height }: Luma<'_>, bbox: &BBox) -> Self {
        let mut cells = [0.0; CELLS * CELLS];
        let columns = samples(bbox.x1, bbox.x2, width);
        let rows = samples(bbox.y1, bbox.y2, height);
        for (row, ys) in rows.iter().enumerate() {
            for (column, xs) in columns.iter().enumerate() {
                let mut sum = 0u32;
                for y in ys {
                    sum += xs
                        .iter()
                        .map(|x| u32::from(bytes.get(y * width + x).copied().unwrap_or(0)))
                        .sum::<u32>();
                }
                cells[row * CELLS + column] = sum as f32;
            }
        }
        let mean = cells.iter().sum::<f32>() / cells.len() as f32;
        cells.iter_mut().for_each(|cell| *cell -= mean);
        let length = cells.iter().map(|cell| cell * cell).sum::<f32>().sqrt();
        if length > 0.0 {
            cells.iter_mut().for_each(|cell| *cell /= length);
        }
        Self(cells)
    }

    /// Pearson's correlation with another one, -1..=1; 0 where one of them is uniform, 1 where both are.
    pub fn correlation(&self, other: &Self) -> f32 {
        let plain = |patch: &Self| patch.0.iter().all(|&cell| cell == 0.0);
        if plain(self) && plain(other) {
            return 1.0;
        }
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

/// The positions at which pixels from `first` to `last` are sampled: several per cell, within `0..side`.
fn samples(first: f32, last: f32, side: usize) -> [[usize; SAMPLES]; CELLS] {
    let step = (last - first) / (CELLS * SAMPLES) as f32;
    let most = side.saturating_sub(1) as f32;
    std::array::from_fn(|cell| {
        std::array::from_fn(|sample| {
            let at = first + ((cell * SAMPLES + sample) as f32 + 0.5) * step;
            // NaN becomes 0.
            at.clamp(0.0, most) as usize
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 160;
    const HEIGHT: usize = 120;

    fn plane(value: impl Fn(f32, f32) -> f32) -> Vec<u8> {
        (0..WIDTH * HEIGHT).map(|at| value((at % WIDTH) as f32, (at / WIDTH) as f32) as u8).collect()
    }

    fn luma(bytes: &[u8]) -> Luma<'_> {
        Luma { bytes, width: WIDTH, height: HEIGHT }
    }

    fn bbox(x: f32, y: f32, side: f32) -> BBox {
        BBox { x1: x, y1: y, x2: x + side, y2: y + side }
    }

    fn wave(x: f32, y: f32) -> f32 {
        120.0 + 40.0 * (x / 9.0).sin() + 30.0 * (y / 7.0).cos()
    }

    #[test]
    fn a_face_that_moves_or_is_lit_otherwise_correlates_and_another_one_does_not() {
        let patch = |value: &dyn Fn(f32, f32) -> f32, x: f32| {
            FacePatch::new(luma(&plane(value)), &bbox(x, 20.0, 64.0))
        };
        let here = patch(&wave, 30.0);
        assert!((here.correlation(&here) - 1.0).abs() < 1e-5);
        let moved = patch(&|x, y| wave(x - 7.0, y), 37.0);
        assert!(here.correlation(&moved) > 0.99);
        let darker = patch(&|x, y| 0.5 * wave(x, y), 30.0);
        assert!(here.correlation(&darker) > 0.99);
        let other = patch(&|x, y| wave(y + 5.0, x), 30.0);
        assert!(here.correlation(&other) < 0.5);
    }

    #[test]
    fn boxes_of_any_place_and_size_have_one() {
        let picture = plane(wave);
        for bbox in [
            bbox(-500.0, -500.0, 64.0),
            bbox(150.0, 100.0, 64.0),
            bbox(3.0, 3.0, 0.0),
            bbox(f32::NAN, 0.0, 9.0),
        ] {
            let patch = FacePatch::new(luma(&picture), &bbox);
            assert!(patch.0.iter().all(|cell| cell.is_finite()), "{bbox:?}");
        }
        let nothing = Luma { bytes: &[], width: 0, height: 0 };
        let plain = FacePatch::new(nothing, &bbox(0.0, 0.0, 9.0));
        assert_eq!(plain.correlation(&plain), 1.0);
        let face = FacePatch::new(luma(&picture), &bbox(30.0, 20.0, 64.0));
        assert_eq!(plain.correlation(&face), 0.0);
    }
}
