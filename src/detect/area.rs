//! Area-averaging resize, straight from RGB bytes to normalised network input.
//!
//! The same windows as PyTorch's `interpolate(mode="area")`: output i of n averages the inputs
//! floor(i m / n) .. ceil((i + 1) m / n) of m. Neighbouring windows share an input where the
//! ratio is no integer, and enlarging repeats inputs. Sums are whole numbers and exact.
//!
//! A region that is resized once adds up the rows of its windows. The levels of a pyramid share
//! sums over all rows above each row ([`RowSums`]): a window is then the difference of two.

use image::RgbImage;

use crate::nn::Isa;
use crate::nn::simd::{self, Kernel, Simd};

/// The inputs that one output averages along one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    /// First input.
    start: usize,
    /// One past the last input.
    end: usize,
    /// 1 / (end - start).
    inverse: f32,
}

/// The windows that average `inputs` into `outputs` values.
fn windows(inputs: usize, outputs: usize, into: &mut Vec<Window>) {
    into.clear();
    into.extend((0..outputs).map(|i| {
        let (start, end) = (i * inputs / outputs, ((i + 1) * inputs).div_ceil(outputs));
        Window { start, end, inverse: 1.0 / (end - start) as f32 }
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

/// Rows of 255 that a u16 can add up.
const NARROW_ROWS: usize = 257;

/// For every row of an image and every value in it, the sum over all rows above.
///
/// Sums wrap around, which the difference of two does not notice as long as no window has more
/// rows than the type can add up.
#[derive(Debug, Default)]
pub struct RowSums {
    width: usize,
    height: usize,
    /// In use unless a window may have more than [`NARROW_ROWS`] rows.
    narrow: Vec<u16>,
    wide: Vec<u32>,
    is_wide: bool,
}

impl RowSums {
    /// Width and height of the image in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Adds up an image that will be resized to no fewer than `least_rows` rows, at least 1.
    pub fn add_up(&mut self, isa: Isa, image: &RgbImage, least_rows: usize) {
        (self.width, self.height) = (image.width() as usize, image.height() as usize);
        self.is_wide = self.height.div_ceil(least_rows) + 1 > NARROW_ROWS;
        let length = self.width * 3;
        let numbers = (self.height + 1) * length;
        let pixels = image.as_raw();
        if self.is_wide {
            self.wide.resize(numbers, 0);
            simd::run(isa, AddUp { pixels, length, sums: &mut self.wide });
        } else {
            self.narrow.resize(numbers, 0);
            simd::run(isa, AddUp { pixels, length, sums: &mut self.narrow });
        }
    }
}

/// Resizes row by row; keeps its buffers for the next region.
#[derive(Debug, Default)]
pub struct AreaResize {
    rows: Vec<Window>,
    columns: Vec<Window>,
    /// The sums of the window at hand, and one value behind the last pixel, because pixels are
    /// added as four values.
    narrow: Vec<u16>,
    wide: Vec<u32>,
    /// For every pixel of that row and one more the sums over all pixels before it.
    before: Vec<[u32; 4]>,
}

impl AreaResize {
    /// Prepares for a region of that size to be resized to `width` x `height`.
    pub fn prepare(&mut self, region: (usize, usize), width: usize, height: usize) {
        windows(region.0, width, &mut self.columns);
        windows(region.1, height, &mut self.rows);
    }

    /// Row `y` of the region, whose size [`prepare`](Self::prepare) was told:
    /// (mean - 127.5) / 128, [width, 3].
    pub fn row(&mut self, isa: Isa, image: &RgbImage, region: Region, y: usize, out: &mut [f32]) {
        let Some(&rows) = self.rows.get(y) else { return };
        let stride = image.width() as usize * 3;
        let first = region.y * stride + region.x * 3;
        let length = region.width * 3;
        let row = |y: usize| &image.as_raw()[first + y * stride..][..length];
        if rows.end - rows.start <= NARROW_ROWS {
            clear(&mut self.narrow, length);
            (rows.start..rows.end).for_each(|y| simd::run(isa, AddRow(&mut self.narrow, row(y))));
            self.average_narrow(isa, rows, out);
        } else {
            clear(&mut self.wide, length);
            (rows.start..rows.end).for_each(|y| simd::run(isa, AddRow(&mut self.wide, row(y))));
            self.average_wide(isa, rows, out);
        }
    }

    /// Row `y` of a whole image, from its sums.
    pub fn row_of(&mut self, isa: Isa, sums: &RowSums, y: usize, out: &mut [f32]) {
        let Some(&rows) = self.rows.get(y) else { return };
        let length = sums.width * 3;
        let row = |y: usize| y * length..(y + 1) * length;
        if sums.is_wide {
            clear(&mut self.wide, length);
            let (above, below) = (&sums.wide[row(rows.start)], &sums.wide[row(rows.end)]);
            simd::run(isa, Difference { above, below, out: &mut self.wide });
            self.average_wide(isa, rows, out);
        } else {
            self.narrow.resize(length + 1, 0);
            let (above, below) = (&sums.narrow[row(rows.start)], &sums.narrow[row(rows.end)]);
            simd::run(isa, Difference { above, below, out: &mut self.narrow });
            self.average_narrow(isa, rows, out);
        }
    }

    fn average_narrow(&mut self, isa: Isa, rows: Window, out: &mut [f32]) {
        let Self { narrow, columns, before, .. } = self;
        before.resize(narrow.len() / 3 + 1, [0; 4]);
        simd::run(isa, Average { sums: narrow, before, columns, rows, out });
    }

    fn average_wide(&mut self, isa: Isa, rows: Window, out: &mut [f32]) {
        let Self { wide, columns, before, .. } = self;
        before.resize(wide.len() / 3 + 1, [0; 4]);
        simd::run(isa, Average { sums: wide, before, columns, rows, out });
    }
}

fn clear<T: Copy + Default>(sums: &mut Vec<T>, length: usize) {
    sums.clear();
    sums.resize(length + 1, T::default());
}

/// Whole numbers whose sums and differences wrap around.
trait Wrapping: Copy + Default + From<u8> + Into<u32> {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
}

macro_rules! wrapping {
    ($($type:ty)+) => {
        $(impl Wrapping for $type {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        })+
    };
}
wrapping!(u16 u32);

// The kernels are plain loops that the compiler turns into vectors of each instruction set.

/// Adds a row of bytes.
struct AddRow<'a, T>(&'a mut [T], &'a [u8]);

impl<T: Wrapping> Kernel for AddRow<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (sum, &value) in self.0.iter_mut().zip(self.1) {
            *sum = sum.plus(value.into());
        }
    }
}

/// The sums over all rows above each row of `length` bytes.
struct AddUp<'a, T> {
    pixels: &'a [u8],
    length: usize,
    sums: &'a mut [T],
}

impl<T: Wrapping> Kernel for AddUp<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if self.length == 0 {
            return;
        }
        let (first, mut rest) = self.sums.split_at_mut(self.length);
        first.fill(T::default());
        let mut above = &*first;
        for row in self.pixels.chunks_exact(self.length) {
            let (sums, below) = rest.split_at_mut(self.length);
            for ((sum, &above), &value) in sums.iter_mut().zip(above).zip(row) {
                *sum = above.plus(value.into());
            }
            (above, rest) = (sums, below);
        }
    }
}

/// The sums of one window of rows.
struct Difference<'a, T> {
    above: &'a [T],
    below: &'a [T],
    out: &'a mut [T],
}

impl<T: Wrapping> Kernel for Difference<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ((out, &above), &below) in self.out.iter_mut().zip(self.above).zip(self.below) {
            *out = below.minus(above);
        }
    }
}

/// The means of the windows of columns, as (mean - 127.5) / 128.
struct Average<'a, T> {
    sums: &'a [T],
    /// Room for the sums over all pixels before each, and before the end.
    before: &'a mut [[u32; 4]],
    columns: &'a [Window],
    rows: Window,
    out: &'a mut [f32],
}

impl<T: Wrapping> Kernel for Average<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { sums, before, columns, rows, out } = self;
        // Windows have few pixels each and not all the same number: sums over all pixels before
        // each spare the loops over them. Four values a pixel (the fourth belongs to the next
        // one) make one vector; like those over rows they may wrap around.
        let mut sum = [0u32; 4];
        for (to, pixel) in before.iter_mut().zip(sums.windows(4).step_by(3)) {
            *to = sum;
            for (sum, &value) in sum.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(value.into());
            }
        }
        if let Some(end) = before.last_mut() {
            *end = sum;
        }
        let rows = rows.inverse / 128.0;
        for (window, out) in columns.iter().zip(out.chunks_exact_mut(3)) {
            let (Some(start), Some(end)) = (before.get(window.start), before.get(window.end)) else {
                continue;
            };
            let scale = rows * window.inverse;
            let mut means = [0.0; 4];
            for channel in 0..4 {
                let total = end[channel].wrapping_sub(start[channel]);
                means[channel] = total as i32 as f32 * scale - 127.5 / 128.0;
            }
            out.copy_from_slice(&means[..3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{close, noise_image};

    fn check(isa: Isa, image: &RgbImage, region: Region, width: usize, height: usize) {
        let mut resize = AreaResize::default();
        resize.prepare((region.width, region.height), width, height);
        let mut row = vec![0.0; width * 3];
        let mut sums = RowSums::default();
        let is_whole = (region.width, region.height) == (image.width() as usize, image.height() as usize);
        sums.add_up(isa, image, height);
        for y in 0..height {
            resize.row(isa, image, region, y, &mut row);
            if is_whole {
                let mut again = vec![0.0; width * 3];
                resize.row_of(isa, &sums, y, &mut again);
                assert_eq!(row, again);
            }
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
        for isa in Isa::available() {
            let image = noise_image(67, 41);
            let whole = Region { x: 0, y: 0, width: 67, height: 41 };
            for (width, height) in [(67, 41), (13, 12), (30, 29), (100, 90), (1, 1)] {
                check(isa, &image, whole, width, height);
            }
            for region in [
                Region { x: 5, y: 7, width: 9, height: 3 },
                Region { x: 66, y: 40, width: 1, height: 1 },
                Region { x: 18, y: 0, width: 49, height: 41 },
            ] {
                check(isa, &image, region, 24, 24);
            }
            // More rows than a u16 can add up.
            let tall = RgbImage::from_fn(3, 1000, |_, y| image::Rgb([255, (y % 256) as u8, 0]));
            check(isa, &tall, Region { x: 0, y: 0, width: 3, height: 1000 }, 2, 3);
        }
    }
}
