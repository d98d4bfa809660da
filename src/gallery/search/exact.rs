//! Cosines to every template, computed with SIMD.

use crate::nn::Isa;
use crate::nn::simd::{self, Kernel, Simd};

/// Running sums of a dot product: a fixed order of additions that suits every instruction set, so that the
/// result is the same on all of them.
const LANES: usize = 16;

/// Cosines of `probe` to the consecutive unit vectors in `rows`, each as long as the probe: one per element
/// of `cosines`. The results are the same on every instruction set.
///
/// # Panics
/// When `rows` does not hold `cosines.len()` vectors of the probe's length, or this machine
/// does not have `isa`.
pub fn cosines(isa: Isa, probe: &[f32], rows: &[f32], cosines: &mut [f32]) {
    assert_eq!(rows.len(), probe.len() * cosines.len(), "one vector a cosine");
    simd::run(isa, Cosines { probe, rows, cosines });
}

struct Cosines<'a> {
    probe: &'a [f32],
    rows: &'a [f32],
    cosines: &'a mut [f32],
}

impl Kernel for Cosines<'_> {
    /// Plain Rust, compiled for the instruction set of the caller: a fused multiply-add would
    /// round differently from one machine to the next.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if self.probe.is_empty() {
            return self.cosines.fill(0.0);
        }
        for (row, cosine) in self.rows.chunks_exact(self.probe.len()).zip(self.cosines) {
            *cosine = dot(self.probe, row);
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_exact_at_odd_lengths_and_the_same_on_every_instruction_set() {
        for length in [1, 15, 16, 17, 33, 512] {
            let probe: Vec<f32> = (0..length).map(|i| (i % 7) as f32 - 3.0).collect();
            let rows: Vec<f32> = (0..3 * length).map(|i| (i % 5) as f32).collect();
            let uneven: Vec<f32> = rows.iter().map(|x| (x + 0.3).sqrt()).collect();
            let mut reference = [0.0; 3];
            cosines(Isa::Portable, &probe, &uneven, &mut reference);
            for isa in Isa::available() {
                let mut found = [0.0; 3];
                cosines(isa, &probe, &rows, &mut found);
                for (row, found) in rows.chunks(length).zip(found) {
                    let expected: f64 =
                        probe.iter().zip(row).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                    assert_eq!(f64::from(found), expected, "{isa} {length}");
                }
                cosines(isa, &probe, &uneven, &mut found);
                assert_eq!(found, reference, "{isa} {length}");
            }
        }
    }
}
