//! Max-pools of stride 2.

use crate::nn::Isa;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};

/// One row of a max-pool of stride 2 and `size` 2 or 3: `rows` are the input rows under it (fewer
/// at the bottom of the map), each [width, channels]; windows that reach over the right edge are
/// cut off. Writes `(width - size) / 2 + 1` pixels, the division rounded up.
///
/// # Panics
/// When a row or `out` is too short, or `channels` is not a multiple of the vector's length.
pub(crate) fn max_pool_row(
    isa: Isa,
    rows: &[&[f32]],
    [width, channels]: [usize; 2],
    size: usize,
    out: &mut [f32],
) {
    assert!(width >= size && channels > 0 && channels.is_multiple_of(simd::lanes(isa)));
    assert!(rows.iter().all(|row| row.len() >= width * channels));
    assert!(out.len() >= ((width - size).div_ceil(2) + 1) * channels);
    // SAFETY: the sizes are checked above.
    unsafe {
        match (rows, size) {
            (&[a, b, c], 3) => Row::<3, 3> { rows: [a, b, c], width, channels, out }.run_for(isa),
            (&[a, b], 3) => Row::<2, 3> { rows: [a, b], width, channels, out }.run_for(isa),
            (&[a], 3) => Row::<1, 3> { rows: [a], width, channels, out }.run_for(isa),
            (&[a, b], 2) => Row::<2, 2> { rows: [a, b], width, channels, out }.run_for(isa),
            (&[a], 2) => Row::<1, 2> { rows: [a], width, channels, out }.run_for(isa),
            _ => panic!("a pool of {} rows, {size} pixels across", rows.len()),
        }
    }
}

/// The arguments of [`max_pool_row`], checked.
struct Row<'a, const ROWS: usize, const SIZE: usize> {
    rows: [&'a [f32]; ROWS],
    width: usize,
    channels: usize,
    out: &'a mut [f32],
}

impl<const ROWS: usize, const SIZE: usize> Row<'_, ROWS, SIZE> {
    /// # Safety
    /// The sizes must be as [`max_pool_row`] checks them.
    unsafe fn run_for(self, isa: Isa) {
        // SAFETY: the caller's.
        simd::run(isa, unsafe { Vouched::new(self) });
    }

    /// The largest of the rows in each channel. No closure: those are not compiled for an
    /// instruction set.
    ///
    /// # Safety
    /// A vector must follow at `at` in every row; see [`Simd`].
    #[inline(always)]
    unsafe fn largest<S: Simd>(&self, at: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            let mut largest = S::load(self.rows[0].as_ptr().add(at));
            for row in &self.rows[1..] {
                largest = S::max(largest, S::load(row.as_ptr().add(at)));
            }
            largest
        }
    }
}

impl<const ROWS: usize, const SIZE: usize> RawKernel for Row<'_, ROWS, SIZE> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (width, channels) = (self.width, self.channels);
        let whole = (width - SIZE) / 2 + 1;
        for channel in (0..channels).step_by(S::LANES) {
            // SAFETY: columns inside the rows and `out`, as `max_pool_row` has checked, and
            // channels are whole vectors.
            unsafe {
                let out = self.out.as_mut_ptr().add(channel);
                let mut next = self.largest::<S>(channel);
                for x in 0..whole {
                    let mut largest = next;
                    for beside in 1..SIZE {
                        next = self.largest::<S>((2 * x + beside) * channels + channel);
                        largest = S::max(largest, next);
                    }
                    S::store(out.add(x * channels), largest);
                    // The last of three columns is the first of the next three.
                    if SIZE == 2 && 2 * x + 2 < width {
                        next = self.largest::<S>((2 * x + 2) * channels + channel);
                    }
                }
                if 2 * (whole - 1) + SIZE < width {
                    for beside in 2 * whole + 1..width {
                        next = S::max(next, self.largest::<S>(beside * channels + channel));
                    }
                    S::store(out.add(whole * channels), next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_cut_off_at_the_edges() {
        for isa in Isa::available() {
            for (size, channels, height) in [(3, 32, 3), (3, 16, 1), (3, 48, 2), (2, 64, 2), (2, 16, 1)] {
                for width in size..=12 {
                    let value = |i: usize| ((i * 7919) % 1013) as f32 - 500.0;
                    let row = |y: usize| (0..width * channels).map(|i| value(i + 5000 * y)).collect();
                    let rows: Vec<Vec<f32>> = (0..height).map(row).collect();
                    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                    let pools = (width - size).div_ceil(2) + 1;
                    let mut out = vec![0.0; pools * channels];
                    max_pool_row(isa, &rows, [width, channels], size, &mut out);
                    for (i, &out) in out.iter().enumerate() {
                        let (pool, channel) = (i / channels, i % channels);
                        let columns = 2 * pool..(2 * pool + size).min(width);
                        let values = columns.flat_map(|x| rows.iter().map(move |row| (x, row)));
                        let largest = values
                            .map(|(x, row)| row[x * channels + channel])
                            .fold(f32::NEG_INFINITY, f32::max);
                        assert_eq!(out, largest, "{isa}, {size}, {width} x {height}, {channels}: {i}");
                    }
                }
            }
        }
    }
}
