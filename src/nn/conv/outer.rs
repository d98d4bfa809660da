//! Tiles of a sum of outer products: the inner loop of every gradient with respect to weights.

use crate::nn::simd::{Simd, Tile};

/// One tile of C += sum over t of a_t' b_t, where a_t and b_t are rows of two matrices that lie
/// anywhere in memory: C[m][n] += sum a[a_at[t] + m] b[b_at[t] + n].
pub(super) struct Outer<'a> {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    /// Where the rows start, in numbers; as many for `a` as for `b`.
    pub(super) at: &'a [(usize, usize)],
    pub(super) to: *mut f32,
    /// Numbers between the rows of C.
    pub(super) stride: usize,
    /// Whether C is added to or overwritten.
    pub(super) add: bool,
}

impl Tile for Outer<'_> {
    /// # Safety
    /// Every row of `a` must hold ROWS numbers and every row of `b` and of C a panel.
    #[inline(always)]
    unsafe fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self) {
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
            for &(a, b) in self.at {
                let (a, b) = (self.a.add(a), self.b.add(b));
                let mut right = [S::splat(0.0); VECTORS];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = S::load(b.add(v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = S::splat(*a.add(r));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = S::fma(left, right, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let to = self.to.add(r * self.stride + v * S::LANES);
                    let sum = if self.add { S::add(sum, S::load(to)) } else { sum };
                    S::store(to, sum);
                }
            }
        }
    }
}

/// C[0..rows][0..panels * PANEL] in tiles, panel by panel.
///
/// # Safety
/// As [`Outer`], for `rows` rows and `panels` panels.
#[inline(always)]
pub(super) unsafe fn outer_products<S: Simd>(whole: &Outer<'_>, rows: usize, panels: std::ops::Range<usize>) {
    for panel in panels {
        for first in (0..rows).step_by(S::ROWS) {
            // SAFETY: the caller's.
            unsafe {
                let tile = Outer {
                    a: whole.a.add(first),
                    b: whole.b.add(panel * S::PANEL),
                    to: whole.to.add(first * whole.stride + panel * S::PANEL),
                    ..*whole
                };
                S::tile(S::ROWS.min(rows - first), tile);
            }
        }
    }
}
