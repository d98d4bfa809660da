//! Tiles of a matrix product: the inner loop of every layer.

use half::{bf16, f16};

use crate::nn::simd::{Simd, Tile};

/// The most rows that a tile has, for any instruction set.
pub(super) const MOST_ROWS: usize = 12;

/// Steps per iteration of the outer loop, which prefetches and counts. Those are instructions too, and where
/// a core runs a second thread, the number of instructions bounds this loop.
const STEPS: usize = 8;

/// Numbers in a cache line.
const LINE: usize = 16;

/// One tile: rows of the left matrix, given by pointers, times one panel of the right one.
///
/// A row of the left matrix is a number of *runs* of `length` numbers; run `i` starts
/// `runs[i]` numbers after the row's pointer. The panel holds [`Simd::PANEL`] numbers for
/// each of them, in the same order. Where weights are pairs, so is every number on the left.
pub(super) struct Product<'a, F, W = f32> {
    pub(super) rows: [*const f32; MOST_ROWS],
    pub(super) runs: &'a [usize],
    pub(super) length: usize,
    pub(super) panel: *const W,
    /// Where the panel is stored as f32, if it is packed.
    pub(super) unpacked: Option<*mut f32>,
    /// Memory to prefetch, and the numbers to prefetch with each step.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
    pub(super) finish: F,
}

/// A weight as it is stored, or a pair of them.
pub(super) trait Weight: Copy {
    /// Whether reading a vector of them takes more than a load.
    const PACKED: bool = false;

    /// A vector of them.
    ///
    /// # Safety
    /// There must be as many; see [`Simd`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;

    /// `sum` plus the products of the left operand and vectors of weights.
    ///
    /// # Safety
    /// See [`Simd`].
    #[inline(always)]
    unsafe fn fma<S: Simd>(left: S::V, weights: S::V, sum: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::fma(left, weights, sum) }
    }
}

/// Two weights, for a pair of numbers on the left: a step of the product does both.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct Pair(pub(super) [bf16; 2]);

impl Pair {
    /// Both as the bits of one number, the first in the lower half.
    pub(super) fn bits(self) -> f32 {
        let [low, high] = self.0.map(|half| u32::from(half.to_bits()));
        f32::from_bits(high << 16 | low)
    }
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(from) }
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f16) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_half(from) }
    }
}

/// A weight in units of its panel's column: an integer of three bytes, the lowest first. See
/// [`Simd::load_packed`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Packed(pub(super) [u8; 3]);

impl Weight for Packed {
    const PACKED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Packed) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_packed(from.cast()) }
    }
}

impl Weight for Pair {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Pair) -> S::V {
        // SAFETY: the caller's; a pair is as long as an f32, and a load does not interpret the bits.
        unsafe { S::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn fma<S: Simd>(left: S::V, weights: S::V, sum: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::fma_pairs(left, weights, sum) }
    }
}

/// The epilogue of a tile, which is applied to its sums.
pub(super) trait Finish {
    /// Takes vector `vector` of row `row`.
    ///
    /// # Safety
    /// As the implementation says; see [`Simd`].
    unsafe fn take<S: Simd>(&self, row: usize, vector: usize, sum: S::V);
}

impl<F: Finish, W: Weight> Tile for Product<'_, F, W> {
    /// # Safety
    /// `rows` (as many as the tile has), `panel` and `unpacked` must be valid for the runs.
    #[inline(always)]
    unsafe fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self) {
        // SAFETY: the caller's; `ahead` is only prefetched.
        unsafe {
            let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
            let mut panel = self.panel;
            let mut unpacked = self.unpacked;
            let mut ahead = self.ahead;
            let lines = (STEPS * self.ahead_step).div_ceil(LINE);
            for &run in self.runs {
                let mut rows = [self.rows[0]; ROWS];
                for (to, from) in rows.iter_mut().zip(self.rows) {
                    *to = from.add(run);
                }
                let mut k = 0;
                while k + STEPS <= self.length {
                    for (first, end) in [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16)] {
                        if lines > first {
                            for line in first..end {
                                S::prefetch(ahead.wrapping_add(line * LINE));
                            }
                        }
                    }
                    ahead = ahead.wrapping_add(STEPS * self.ahead_step);
                    for i in 0..STEPS {
                        let at = i * VECTORS * S::LANES;
                        let unpacked = unpacked.map(|to| to.wrapping_add(at));
                        step::<S, W, ROWS, VECTORS>(&rows, k + i, panel.add(at), unpacked, &mut sums);
                    }
                    panel = panel.add(STEPS * VECTORS * S::LANES);
                    unpacked = unpacked.map(|to| to.wrapping_add(STEPS * VECTORS * S::LANES));
                    k += STEPS;
                }
                while k < self.length {
                    step::<S, W, ROWS, VECTORS>(&rows, k, panel, unpacked, &mut sums);
                    panel = panel.add(VECTORS * S::LANES);
                    unpacked = unpacked.map(|to| to.wrapping_add(VECTORS * S::LANES));
                    k += 1;
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    self.finish.take::<S>(r, v, sum);
                }
            }
        }
    }
}

/// Adds number `k` of every row times `VECTORS` vectors of the panel. (A function, since a closure
/// would be compiled without the current instruction set.)
///
/// # Safety
/// Rows and panel must hold them; see [`Simd`].
#[inline(always)]
unsafe fn step<S: Simd, W: Weight, const ROWS: usize, const VECTORS: usize>(
    rows: &[*const f32; ROWS],
    k: usize,
    panel: *const W,
    unpacked: Option<*mut f32>,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut right = [S::splat(0.0); VECTORS];
        for (v, right) in right.iter_mut().enumerate() {
            *right = W::load::<S>(panel.add(v * S::LANES));
            if let (true, Some(to)) = (W::PACKED, unpacked) {
                S::store(to.add(v * S::LANES), *right);
            }
        }
        for (row, sums) in rows.iter().zip(sums) {
            let left = S::splat(*row.add(k));
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = W::fma::<S>(left, right, *sum);
            }
        }
    }
}
