//! 3x3 convolutions, max-pools and fully connected layers on the CPU, with bias, PReLU and
//! residual sum.
//!
//! Feature maps are NHWC with a zero border ([`Map`]). A layer is repacked once for one
//! instruction set and then applied to any number of maps by any number of threads. Every output is one chain
//! of multiply-adds in a fixed order, so it depends neither on the threads nor on the rest of the batch.

mod dense;
mod depthwise;
mod elements;
mod outer;
mod pool;
mod product;
mod strip;
mod tiled;
mod winograd;

pub(crate) use dense::Dense;
pub(crate) use depthwise::Depthwise;
pub(crate) use elements::Elements;
pub(crate) use pool::max_pool_row;
pub(crate) use strip::{STRIP, StripConv, StripOut, StripScratch, UNDER};
pub(crate) use tiled::{
    BLOCK, BlockMap, Pass, Stream, TiledConv, TiledGradient, TiledGradientMemory, TiledOutput,
    activation_backward, windows,
};
pub(crate) use winograd::{Direction, Form, GradientMemory, Tiles, Winograd};

use super::Isa;
use super::buffer::Buffer;
use super::simd::{self, Simd};

/// Layout of one feature map: `channels` values per pixel, a border of zero pixels on every side
/// (one, unless said otherwise), and zero pixels at the bottom and on the right up to a whole number of
/// tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map {
    /// Rows of pixels that carry values.
    pub(crate) height: usize,
    /// Columns of pixels that carry values.
    pub(crate) width: usize,
    /// Values per pixel, padding included.
    pub(crate) channels: usize,
    rows: usize,
    columns: usize,
    border: usize,
}

impl Map {
    /// A map for tiles of `tile` rows and columns of pixels.
    pub(crate) fn new(height: usize, width: usize, channels: usize, tile: [usize; 2]) -> Self {
        let [rows, columns] =
            [(height, tile[0]), (width, tile[1])].map(|(n, tile)| n.next_multiple_of(tile) + 2);
        Self { height, width, channels, rows, columns, border: 1 }
    }

    /// A map with that much border, and at least that many rows and columns, border included.
    pub(crate) fn bordered(
        [height, width]: [usize; 2],
        channels: usize,
        border: usize,
        [rows, columns]: [usize; 2],
    ) -> Self {
        let [rows, columns] = [(height, rows), (width, columns)].map(|(n, least)| least.max(n + 2 * border));
        Self { height, width, channels, rows, columns, border }
    }

    /// Where the window of output pixel (y, x) begins, for a stride and a padding (at the top and on the
    /// left) in both directions.
    fn corner(&self, stride: [usize; 2], padding: [usize; 2], [y, x]: [usize; 2]) -> usize {
        let [row, column] =
            [(y, 0), (x, 1)].map(|(at, axis)| self.border + at * stride[axis] - padding[axis]);
        (row * self.columns + column) * self.channels
    }

    /// Makes sure that the windows of that size for all pixels of `output` lie within the map and its
    /// border.
    ///
    /// # Panics
    /// When they do not.
    fn assert_within(&self, kernel: [usize; 2], (stride, padding): ([usize; 2], [usize; 2]), output: Map) {
        assert!(padding.iter().all(|&padding| padding <= self.border));
        for (axis, (outputs, room)) in
            [(output.height, self.rows), (output.width, self.columns)].into_iter().enumerate()
        {
            assert!(self.border - padding[axis] + stride[axis] * (outputs - 1) + kernel[axis] <= room);
        }
    }

    /// Numbers of a whole map.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    /// Place of the first channel of a pixel.
    pub(crate) fn at(&self, y: usize, x: usize) -> usize {
        ((y + self.border) * self.columns + x + self.border) * self.channels
    }

    /// Copies pixels without border into a map.
    pub(crate) fn fill(&self, pixels: &[f32], map: &mut [f32]) {
        for (y, row) in pixels.chunks_exact(self.width * self.channels).enumerate() {
            map[self.at(y, 0)..][..row.len()].copy_from_slice(row);
        }
    }

    /// Numbers from a pixel to the one below.
    pub(crate) fn pitch(&self) -> usize {
        self.columns * self.channels
    }
}

/// `channels` rounded up to a multiple that the kernels of `isa` need.
pub(crate) fn padded(channels: usize, isa: Isa) -> usize {
    channels.next_multiple_of(simd::panel(isa))
}

/// The epilogue of a layer: y + bias, then PReLU with one slope per channel.
#[derive(Debug)]
pub(crate) struct Activation {
    bias: Buffer,
    slopes: Buffer,
}

impl Activation {
    /// For `padded` output channels. Without slopes nothing follows the bias.
    pub(crate) fn new(bias: &[f32], slopes: Option<&[f32]>, padded: usize) -> Self {
        let mut all = Buffer::new(padded);
        match slopes {
            Some(slopes) => all[..slopes.len()].copy_from_slice(slopes),
            None => all.fill(1.0),
        }
        Self { bias: Buffer::padded(bias, padded), slopes: all }
    }

    /// The number of output channels.
    fn len(&self) -> usize {
        self.bias.len().min(self.slopes.len())
    }

    fn at(&self, channel: usize) -> ActivationAt {
        ActivationAt { bias: self.bias[channel..].as_ptr(), slopes: self.slopes[channel..].as_ptr() }
    }
}

/// Bias and slopes, starting at one channel.
#[derive(Clone, Copy)]
struct ActivationAt {
    bias: *const f32,
    slopes: *const f32,
}

impl ActivationAt {
    /// The bias for the vector of channels `at` numbers on.
    ///
    /// # Safety
    /// As many channels must follow; see [`Simd`].
    #[inline(always)]
    unsafe fn with_bias<S: Simd>(self, at: usize, y: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::add(y, S::load(self.bias.add(at))) }
    }

    /// Bias and PReLU for the vector of channels `at` numbers on.
    ///
    /// # Safety
    /// As many channels must follow; see [`Simd`].
    #[inline(always)]
    unsafe fn apply<S: Simd>(self, at: usize, y: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.prelu::<S>(at, self.with_bias::<S>(at, y)) }
    }

    /// The same for sums in units of a scale for each channel.
    ///
    /// # Safety
    /// As many channels must follow; see [`Simd`].
    #[inline(always)]
    unsafe fn apply_scaled<S: Simd>(self, at: usize, y: S::V, scales: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.prelu::<S>(at, S::fma(y, scales, S::load(self.bias.add(at)))) }
    }

    /// PReLU alone.
    ///
    /// # Safety
    /// As many channels must follow; see [`Simd`].
    #[inline(always)]
    unsafe fn prelu<S: Simd>(self, at: usize, y: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let zero = S::splat(0.0);
            S::fma(S::load(self.slopes.add(at)), S::min(y, zero), S::max(y, zero))
        }
    }
}

/// Pointers that the threads of a team may share, each writing its own part: one or, with the
/// memory of a thread, three.
#[derive(Clone, Copy)]
struct SharedPointer<T = *mut f32>(T);

// SAFETY: a plain address. The code that dereferences it must ensure that the parts do not overlap.
unsafe impl Send for SharedPointer<*mut f32> {}
// SAFETY: as above.
unsafe impl Sync for SharedPointer<*mut f32> {}
// SAFETY: as above, three times.
unsafe impl Send for SharedPointer<[*mut f32; 3]> {}
// SAFETY: as above.
unsafe impl Sync for SharedPointer<[*mut f32; 3]> {}

impl<T: Copy> SharedPointer<T> {
    /// A method, so that closures capture the whole struct and not the field.
    fn get(&self) -> T {
        self.0
    }
}

/// `0..len` in `parts` ranges of nearly equal size, the `part`-th of them.
fn share(len: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    len * part / parts..len * (part + 1) / parts
}
