//! The nearest of very many vectors, found by reading a quarter of the bytes.
//!
//! Memory bandwidth bounds the search of a large gallery. So every vector is stored a second time in 8 bits
//! per value, with a bound on the quantisation error. One pass over the small copy bounds every cosine from
//! both sides. Only vectors that can be among the nearest by these bounds are compared exactly. So the result
//! is always that of the exact search.

use crate::nn::Isa;
use crate::nn::simd::{self, Kernel, Simd};

/// Rows whose bounds are computed together.
const BLOCK: usize = 512;

/// More than the rounding error of a cosine computed in f32.
const ROUNDING: f32 = 1e-4;

/// The fewest vectors per thread.
const WORTH_A_THREAD: usize = 100_000;

/// Unit vectors in 8 bits per value.
#[derive(Debug)]
pub struct Codes {
    length: usize,
    /// [rows, length]: multiples of the row's step.
    codes: Vec<i8>,
    /// The step of each row.
    steps: Vec<f32>,
    /// For each row, the length of the difference between the vector and its codes.
    errors: Vec<f32>,
}

/// A probe in integers: products with the codes of a row are added up without overflow.
struct Probe {
    codes: Vec<i16>,
    step: f32,
    error: f32,
}

impl Probe {
    fn new(vector: &[f32]) -> Self {
        // |code of a row| <= 127, so that no sum of products leaves the range of i32.
        let most = (i32::MAX / (127 * vector.len().max(1) as i32)).clamp(1, i32::from(i16::MAX)) as f32;
        let step = largest(vector) / most;
        let codes: Vec<i16> = vector.iter().map(|&x| quantised(x, step, most) as i16).collect();
        let error = distance(vector, codes.iter().map(|&code| f32::from(code) * step));
        Self { codes, step, error }
    }
}

fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0f32, |most, x| most.max(x.abs()))
}

/// The multiple of `step` nearest to `x`.
fn quantised(x: f32, step: f32, most: f32) -> f32 {
    if step > 0.0 { (x / step).round().clamp(-most, most) } else { 0.0 }
}

/// The distance of two vectors.
fn distance(a: &[f32], b: impl Iterator<Item = f32>) -> f32 {
    let squares = a.iter().zip(b).map(|(&x, y)| (f64::from(x) - f64::from(y)).powi(2));
    squares.sum::<f64>().sqrt() as f32
}

impl Codes {
    /// Codes of the unit vectors in `matrix`, with `length` values per row, at least 1.
    pub fn new(matrix: &[f32], length: usize) -> Self {
        let rows = matrix.len() / length;
        let (mut codes, mut steps, mut errors) =
            (Vec::with_capacity(rows * length), Vec::with_capacity(rows), Vec::with_capacity(rows));
        for vector in matrix.chunks_exact(length) {
            let step = largest(vector) / 127.0;
            let first = codes.len();
            codes.extend(vector.iter().map(|&x| quantised(x, step, 127.0) as i8));
            errors.push(distance(vector, codes[first..].iter().map(|&code| f32::from(code) * step)));
            steps.push(step);
        }
        Self { length, codes, steps, errors }
    }

    /// Rows, in order, that include the `count` nearest to each of `probes` (unit vectors of the same length)
    /// and a few more. Up to `threads` threads work on it if there are enough rows. The codes are read once
    /// for all probes.
    pub fn propose(&self, isa: Isa, probes: &[&[f32]], count: usize, threads: usize) -> Vec<Vec<usize>> {
        let probes: Vec<Probe> = probes.iter().map(|probe| Probe::new(probe)).collect();
        let rows = self.steps.len();
        let threads = threads.clamp(1, (rows / WORTH_A_THREAD).max(1));
        let share = rows.div_ceil(threads).max(1);
        let scan = |first: usize| {
            let mut kept: Vec<Kept> = probes.iter().map(|_| Kept::new(count.max(1))).collect();
            let last = (first + share).min(rows);
            simd::run(isa, Scan { codes: self, probes: &probes, rows: first..last, kept: &mut kept });
            kept
        };
        let mut parts = Vec::with_capacity(threads);
        std::thread::scope(|scope| {
            let others: Vec<_> =
                (share..rows).step_by(share).map(|first| scope.spawn(move || scan(first))).collect();
            parts.push(scan(0));
            for other in others {
                parts.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        let of_next = |_| Kept::together(parts.iter_mut().filter_map(Iterator::next).collect());
        probes.iter().map(of_next).collect()
    }
}

/// The rows that can be among the nearest.
struct Kept {
    count: usize,
    /// The largest lower bounds, at most `count`, the least first.
    lower: std::collections::BinaryHeap<std::cmp::Reverse<Bound>>,
    /// The least of them once there are `count`: no row below it is among the nearest.
    bar: f32,
    /// Row and upper bound.
    rows: Vec<(usize, f32)>,
}

/// A bound that is never NaN.
#[derive(Clone, Copy, PartialEq)]
struct Bound(f32);

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Kept {
    fn new(count: usize) -> Self {
        Self { count, lower: Default::default(), bar: f32::NEG_INFINITY, rows: Vec::new() }
    }

    fn raise(&mut self, lower: Bound) {
        if self.lower.len() == self.count && lower.0 <= self.bar {
            return;
        }
        self.lower.push(std::cmp::Reverse(lower));
        if self.lower.len() > self.count {
            self.lower.pop();
        }
        if let (true, Some(least)) = (self.lower.len() == self.count, self.lower.peek()) {
            self.bar = least.0.0;
        }
    }

    fn keep(&mut self, row: usize, lower: f32, upper: f32) {
        if upper < self.bar {
            return;
        }
        self.raise(Bound(lower));
        self.rows.push((row, upper));
        // Most of the first rows are no longer candidates.
        if self.rows.len() >= 64 * self.count {
            self.rows.retain(|(_, upper)| *upper >= self.bar);
        }
    }

    /// The rows that several scans kept, in order.
    fn together(parts: Vec<Self>) -> Vec<usize> {
        let mut all = Kept::new(parts.first().map_or(1, |part| part.count));
        parts.iter().flat_map(|part| &part.lower).for_each(|lower| all.raise(lower.0));
        let rows = parts.into_iter().flat_map(|part| part.rows);
        rows.filter(|(_, upper)| *upper >= all.bar).map(|(row, _)| row).collect()
    }
}

/// The pass over some rows.
struct Scan<'a> {
    codes: &'a Codes,
    probes: &'a [Probe],
    rows: std::ops::Range<usize>,
    /// For each probe.
    kept: &'a mut [Kept],
}

impl Kernel for Scan<'_> {
    /// Integers, and floats in plain Rust: the same on every instruction set.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { codes: Codes { length, codes, steps, errors }, probes, rows, kept } = self;
        let mut upper = [0.0f32; BLOCK];
        let mut wide = [0.0f32; BLOCK];
        for first in rows.clone().step_by(BLOCK) {
            let count = BLOCK.min(rows.end - first);
            let vectors = codes[first * length..][..count * length].chunks_exact(*length);
            let facts = steps[first..][..count].iter().zip(&errors[first..][..count]);
            // The block stays in the nearest cache while all probes pass over it.
            for (probe, kept) in probes.iter().zip(kept.iter_mut()) {
                let mut nearest = f32::NEG_INFINITY;
                let places = upper.iter_mut().zip(&mut wide);
                for ((vector, (step, error)), (upper, wide)) in vectors.clone().zip(facts.clone()).zip(places)
                {
                    // |x y - x' y'| <= |x - x'| |y| + |x'| |y - y'|, where |y| = 1 and |x'| <= 1 + |x - x'|.
                    *wide = error + (1.0 + error) * probe.error + ROUNDING;
                    // SAFETY: the caller's instruction set; `Probe::new` ensures that sums stay in range.
                    let sum = unsafe { S::dot(&probe.codes, vector) };
                    *upper = sum as f32 * (step * probe.step) + *wide;
                    nearest = if *upper > nearest { *upper } else { nearest };
                }
                if nearest < kept.bar {
                    continue;
                }
                for (at, (upper, wide)) in upper.iter().zip(&wide).take(count).enumerate() {
                    kept.keep(first + at, upper - 2.0 * wide, *upper);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::search::exact;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    fn unit(random: &mut SmallRng, length: usize) -> Vec<f32> {
        let vector: Vec<f32> = (0..length).map(|_| random.random_range(-1.0..1.0f32)).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / norm).collect()
    }

    #[test]
    fn the_nearest_are_among_the_rows_proposed_and_few_others() {
        let mut random = SmallRng::seed_from_u64(1);
        for (rows, length, count) in [(1, 1, 1), (5, 3, 9), (700, 17, 4), (3000, 128, 64), (1025, 512, 8)] {
            let mut matrix: Vec<f32> = (0..rows).flat_map(|_| unit(&mut random, length)).collect();
            // Equal rows, and one along an axis: all but one code are 0.
            let copy = matrix[..length].to_vec();
            matrix[(rows - 1) * length..].copy_from_slice(&copy);
            let codes = Codes::new(&matrix, length);
            for _ in 0..20 {
                let probe = unit(&mut random, length);
                let mut cosines = vec![0.0; rows];
                exact::cosines(Isa::best(), &probe, &matrix, &mut cosines);
                let mut order: Vec<usize> = (0..rows).collect();
                order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
                let proposed = codes.propose(Isa::best(), &[&probe], count, 1).remove(0);
                assert!(proposed.is_sorted());
                for row in order.iter().take(count) {
                    assert!(proposed.binary_search(row).is_ok(), "{rows} x {length}: row {row}");
                }
                if rows == 3000 {
                    assert!(proposed.len() < 4 * count, "{} rows", proposed.len());
                }
                for isa in Isa::available() {
                    assert_eq!(
                        codes.propose(isa, &[&probe, &matrix[..length], &probe], count, 1)[2],
                        proposed,
                        "{isa}"
                    );
                }
            }
        }
    }

    #[test]
    fn bounds_hold_for_the_longest_vectors_and_the_worst_values() {
        for length in [1, 2, 4096, 20_000] {
            // All codes at their largest: the integer sums are as large as they get.
            let vector = vec![1.0 / (length as f32).sqrt(); length];
            let against: Vec<f32> = vector.iter().map(|x| -x).collect();
            let codes = Codes::new(&[vector.clone(), against].concat(), length);
            assert_eq!(codes.propose(Isa::best(), &[&vector], 1, 1), [[0]]);
        }
        let zero = Codes::new(&[0.0; 8], 4);
        assert_eq!(zero.propose(Isa::best(), &[&[0.0; 4]], 1, 1), [[0, 1]], "neither is nearer");
    }

    #[test]
    fn threads_share_the_rows() {
        let mut random = SmallRng::seed_from_u64(2);
        let matrix: Vec<f32> = (0..2 * WORTH_A_THREAD + 3).flat_map(|_| unit(&mut random, 8)).collect();
        let codes = Codes::new(&matrix, 8);
        let probe = unit(&mut random, 8);
        let one = codes.propose(Isa::best(), &[&probe], 16, 1);
        for threads in [2, 3, 9] {
            assert_eq!(codes.propose(Isa::best(), &[&probe], 16, threads), one);
        }
    }
}
