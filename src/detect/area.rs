//! Area-averaging resize, straight from RGB bytes to normalised network input.
//!
//! The same windows as PyTorch's `interpolate(mode="area")`: output i of n averages the inputs
//! floor(i m / n) .. ceil((i + 1) m / n) of m. Neighbouring windows share an input where the
//! ratio is no integer, and enlarging repeats inputs. Sums are whole numbers and exact.

use image::RgbImage;

use super::kernels::{AreaRow, ColumnSums, Kernels, Window};

/// The windows that average `inputs` into `outputs` values.
pub fn windows(inputs: usize, outputs: usize, into: &mut Vec<Window>) {
    into.clear();
    into.extend((0..outputs).map(|i| {
        let start = i * inputs / outputs;
        let end = ((i + 1) * inputs).div_ceil(outputs);
        Window { start: start as u32, end: end as u32, inverse: 1.0 / (end - start) as f32 }
    }));
}

/// A rectangle of whole pixels inside an image, not empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Resizes one region, row by row; keeps its buffers for the next.
#[derive(Debug, Default)]
pub struct AreaResize {
    rows: Vec<Window>,
    columns: Vec<Window>,
    sums: ColumnSums,
}

impl AreaResize {
    /// Prepares for a region of that size to be resized to `width` x `height`.
    pub fn prepare(&mut self, region: Region, width: usize, height: usize) {
        windows(region.width, width, &mut self.columns);
        windows(region.height, height, &mut self.rows);
    }

    /// Row `y` of the region that [`prepare`](Self::prepare) was told of:
    /// (mean - 127.5) / 128, [width, 3].
    pub fn row(&mut self, kernels: &Kernels, image: &RgbImage, region: Region, y: usize, out: &mut [f32]) {
        let stride = image.width() as usize * 3;
        let (Some(pixels), Some(&rows)) =
            (image.as_raw().get(region.y * stride + region.x * 3..), self.rows.get(y))
        else {
            return;
        };
        let area = AreaRow { pixels, stride, width: region.width, rows, columns: &self.columns };
        kernels.area_row(&area, &mut self.sums, out);
    }
}
