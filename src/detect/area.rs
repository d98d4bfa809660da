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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{close, noise_image};
    use crate::nn::Isa;

    fn check(kernels: &Kernels, image: &RgbImage, region: Region, width: usize, height: usize) {
        let mut resize = AreaResize::default();
        resize.prepare(region, width, height);
        let mut row = vec![0.0; width * 3];
        for y in 0..height {
            resize.row(kernels, image, region, y, &mut row);
            let ys = y * region.height / height..((y + 1) * region.height).div_ceil(height);
            for x in 0..width {
                let xs = x * region.width / width..((x + 1) * region.width).div_ceil(width);
                let expected = [0, 1, 2].map(|channel| {
                    let inside = ys.clone().flat_map(|y| xs.clone().map(move |x| (x, y)));
                    let sum: f64 = inside
                        .map(|(x, y)| (region.x + x, region.y + y))
                        .map(|(x, y)| f64::from(image.get_pixel(x as u32, y as u32).0[channel]))
                        .sum();
                    ((sum / (xs.len() * ys.len()) as f64 - 127.5) / 128.0) as f32
                });
                close(&row[x * 3..][..3], &expected, 1e-6);
            }
        }
    }

    #[test]
    fn every_output_is_the_mean_of_its_window() {
        for kernels in Isa::available().into_iter().filter_map(Kernels::new) {
            let image = noise_image(67, 41);
            let whole = Region { x: 0, y: 0, width: 67, height: 41 };
            for (width, height) in [(67, 41), (13, 12), (30, 29), (100, 90), (1, 1)] {
                check(&kernels, &image, whole, width, height);
            }
            for region in [
                Region { x: 5, y: 7, width: 9, height: 3 },
                Region { x: 66, y: 40, width: 1, height: 1 },
                Region { x: 18, y: 0, width: 49, height: 41 },
            ] {
                check(&kernels, &image, region, 24, 24);
            }
            // More rows than a u16 can add up.
            let tall = RgbImage::from_fn(3, 1000, |_, y| image::Rgb([255, (y % 256) as u8, 0]));
            check(&kernels, &tall, Region { x: 0, y: 0, width: 3, height: 1000 }, 2, 3);
        }
    }
}
