//! Area-averaging resize, straight from RGB bytes to normalised network input.
//!
//! The same windows as PyTorch's `interpolate(mode="area")`: output i of n averages the inputs
//! floor(i m / n) .. ceil((i + 1) m / n) of m. Neighbouring windows share an input where the
//! ratio is not an integer, and enlarging repeats inputs. Sums are whole numbers and exact.
//!
//! A region that is resized once adds up the rows of its windows. The levels of a pyramid share running sums
//! over the rows; the sum of a window is the difference of two of them ([`Pyramid`]).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use crate::nn::Isa;
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::Team;

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

/// One level of a pyramid.
#[derive(Debug, Default)]
pub struct Level {
    /// Rows and columns.
    pub size: (usize, usize),
    /// As the networks take them, (mean - 127.5) / 128, [rows, columns, 3].
    pub pixels: Vec<f32>,
}

/// An image at several sizes; keeps its buffers for the next one.
///
/// All levels are made in one pass over the image: for every row and every value in it, the sum over all rows
/// above is kept as long as a window may begin there. Sums wrap around. The difference of two is still exact
/// as long as no window has more rows than the type can add up.
#[derive(Debug, Default)]
pub struct Pyramid {
    levels: Vec<Level>,
    /// Rows and columns of each level.
    windows: Vec<[Vec<Window>; 2]>,
    /// One per part of the image.
    narrow: Vec<Sums<u16>>,
    /// Used instead if a window may have more than [`NARROW_ROWS`] rows.
    wide: Vec<Sums<u32>>,
}

/// Working memory of one part of a pyramid.
#[derive(Debug, Default)]
struct Sums<T> {
    /// Ring buffer of the latest rows of running sums.
    running: Vec<T>,
    window: Vec<T>,
    before: Vec<[u32; 4]>,
}

/// The rows of one level that are made from one part of an image.
struct Strip<'a> {
    rows: &'a [Window],
    columns: &'a [Window],
    out: std::slice::ChunksExactMut<'a, f32>,
}

impl Pyramid {
    /// The levels, in the order of their sizes.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    #[cfg(feature = "candle")]
    /// Takes the levels out.
    pub fn take(&mut self) -> Vec<Level> {
        std::mem::take(&mut self.levels)
    }

    /// Resizes an image to all `sizes`, width and height, at least 1 each. The result does not depend on the
    /// number of threads.
    pub fn build(&mut self, isa: Isa, image: &RgbImage, sizes: &[(usize, usize)], team: &mut Team) {
        let (width, height) = (image.width() as usize, image.height() as usize);
        self.levels.resize_with(sizes.len(), Level::default);
        self.windows.resize_with(sizes.len(), Default::default);
        for ((level, [rows, columns]), &size) in self.levels.iter_mut().zip(&mut self.windows).zip(sizes) {
            level.size = (size.1, size.0);
            level.pixels.resize(size.0 * size.1 * 3, 0.0);
            windows(width, size.0, columns);
            windows(height, size.1, rows);
        }
        let rows = self.windows.iter().flat_map(|[rows, _]| rows);
        let Some(most_rows) = rows.map(|window| window.end - window.start).max() else { return };

        let parts = team.threads().min(height);
        let mut strips: Vec<Vec<Strip<'_>>> = (0..parts).map(|_| Vec::new()).collect();
        for (Level { size, pixels }, [rows, columns]) in self.levels.iter_mut().zip(&self.windows) {
            let (mut rows, mut pixels) = (&rows[..], &mut pixels[..]);
            for (part, strips) in strips.iter_mut().enumerate() {
                let here = rows.partition_point(|window| window.start < height * (part + 1) / parts);
                let (of_part, later) = rows.split_at(here);
                let (out, rest) = pixels.split_at_mut(here * size.1 * 3);
                let out = out.chunks_exact_mut(size.1 * 3);
                strips.push(Strip { rows: of_part, columns, out });
                (rows, pixels) = (later, rest);
            }
        }
        if most_rows <= NARROW_ROWS {
            in_parts(isa, image, most_rows, strips, &mut self.narrow, team);
        } else {
            in_parts(isa, image, most_rows, strips, &mut self.wide, team);
        }
    }
}

/// Fills the strips of every part of an image.
fn in_parts<T: Wrapping + Send>(
    isa: Isa,
    image: &RgbImage,
    most_rows: usize,
    strips: Vec<Vec<Strip<'_>>>,
    memory: &mut Vec<Sums<T>>,
    team: &mut Team,
) {
    let parts = strips.len();
    memory.resize_with(parts, Sums::default);
    let all: Vec<_> = strips.into_iter().zip(memory).map(Mutex::new).collect();
    team.run(parts, &|_, part| {
        let mut guard = all[part].lock().unwrap_or_else(PoisonError::into_inner);
        let (strips, memory) = &mut *guard;
        memory.fill(isa, image, image.height() as usize * part / parts, most_rows, strips);
    });
}

impl<T: Wrapping> Sums<T> {
    /// Fills strips whose windows begin in row `first` or later and have at most `most_rows` rows.
    fn fill(&mut self, isa: Isa, image: &RgbImage, first: usize, most_rows: usize, strips: &mut [Strip<'_>]) {
        let length = image.width() as usize * 3;
        let kept = most_rows + 1;
        let Self { running, window, before } = self;
        running.resize(kept * length, T::default());
        window.resize(length + 1, T::default());
        before.resize(length / 3 + 1, [0; 4]);
        let place = |y: usize| y % kept * length..(y % kept + 1) * length;
        running[place(first)].fill(T::default());
        for (y, row) in image.as_raw().chunks_exact(length.max(1)).enumerate().skip(first) {
            if strips.iter().all(|strip| strip.rows.is_empty()) {
                return;
            }
            let (above, sums) = two_rows(running, place(y), place(y + 1));
            simd::run(isa, Add { above, row, out: sums });
            for Strip { rows, columns, out } in &mut *strips {
                while let Some((&now, later)) = rows.split_first().filter(|(now, _)| now.end == y + 1)
                    && let Some(out) = out.next()
                {
                    let (above, below) = (&running[place(now.start)], &running[place(now.end)]);
                    simd::run(isa, Difference { above, below, out: window });
                    simd::run(isa, Average { sums: window, before, columns, rows: now, out });
                    *rows = later;
                }
            }
        }
    }
}

/// Two rows that do not overlap; the second is mutable.
fn two_rows<T>(all: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    if read.start < write.start {
        let (before, after) = all.split_at_mut(write.start);
        (&before[read], &mut after[..write.len()])
    } else {
        let (before, after) = all.split_at_mut(read.start);
        (&after[..read.len()], &mut before[write])
    }
}

/// Resizes row by row; keeps its buffers for the next region.
#[derive(Debug, Default)]
pub struct AreaResize {
    rows: Vec<Window>,
    columns: Vec<Window>,
    /// The sums of the current window, and one value behind the last pixel, because pixels are
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

    /// Row `y` of the region, whose size was given to [`prepare`](Self::prepare): (mean - 127.5) / 128,
    /// [width, 3].
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

/// Integers whose sums and differences wrap around.
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

/// Adds a row of bytes to sums.
struct Add<'a, T> {
    above: &'a [T],
    row: &'a [u8],
    out: &'a mut [T],
}

impl<T: Wrapping> Kernel for Add<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ((out, &above), &value) in self.out.iter_mut().zip(self.above).zip(self.row) {
            *out = above.plus(value.into());
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
        // Windows have few pixels each, and their numbers differ. Running sums over the pixels avoid loops
        // over windows. Four values per pixel (the fourth belongs to the next pixel) make one vector. Like
        // the sums over rows, they may wrap around.
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

    /// A row of an image resized, by definition.
    fn expected(image: &RgbImage, region: Region, (width, height): (usize, usize), y: usize) -> Vec<f32> {
        let ys = y * region.height / height..((y + 1) * region.height).div_ceil(height);
        let mean = |x: usize, channel: usize| {
            let xs = x * region.width / width..((x + 1) * region.width).div_ceil(width);
            let inside = ys.clone().flat_map(|y| xs.clone().map(move |x| (x, y)));
            let values = inside.map(|(x, y)| image.get_pixel((region.x + x) as u32, (region.y + y) as u32));
            let sum: f64 = values.map(|pixel| f64::from(pixel.0[channel])).sum();
            ((sum / (xs.len() * ys.len()) as f64 - 127.5) / 128.0) as f32
        };
        (0..width).flat_map(|x| [0, 1, 2].map(|channel| mean(x, channel))).collect()
    }

    fn check(isa: Isa, image: &RgbImage, region: Region, width: usize, height: usize) {
        let mut resize = AreaResize::default();
        resize.prepare((region.width, region.height), width, height);
        let mut row = vec![0.0; width * 3];
        for y in 0..height {
            resize.row(isa, image, region, y, &mut row);
            close(&row, &expected(image, region, (width, height), y), 1e-6);
        }
    }

    #[test]
    fn every_level_of_a_pyramid_is_the_image_resized_whatever_the_threads() {
        let tall = RgbImage::from_fn(3, 1000, |_, y| image::Rgb([255, (y % 256) as u8, 0]));
        let noise = noise_image(67, 41);
        for isa in Isa::available() {
            for threads in [1, 2, 5, 64] {
                let (mut team, mut pyramid) = (Team::new(threads), Pyramid::default());
                // Each image reuses the buffers of the previous one; the last has more rows than a u16 can
                // add up.
                for (image, sizes) in [
                    (&noise, &[(67, 41), (30, 29), (13, 12), (100, 90), (1, 1)][..]),
                    (&noise, &[(21, 40), (20, 3)]),
                    (&tall, &[(2, 500), (2, 3)]),
                    (&noise, &[]),
                ] {
                    pyramid.build(isa, image, sizes, &mut team);
                    assert_eq!(pyramid.levels().len(), sizes.len());
                    let (width, height) = (image.width() as usize, image.height() as usize);
                    for (level, &size) in pyramid.levels().iter().zip(sizes) {
                        assert_eq!(level.size, (size.1, size.0));
                        let whole = Region { x: 0, y: 0, width, height };
                        let all: Vec<_> = (0..size.1).flat_map(|y| expected(image, whole, size, y)).collect();
                        close(&level.pixels, &all, 1e-6);
                    }
                }
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
