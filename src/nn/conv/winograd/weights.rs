//! Transformed weights, packed for the matrix products.

use std::{array, mem};

use half::bf16;

use super::super::product::{Packed, Pair};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, Kernel, Simd};

/// The storage format of transformed weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In f32.
    Full,
    /// In 24 bits where the instruction set unpacks them fast, else in f32. In a layer that is bound by
    /// memory, reading a quarter less saves more time than two more instructions per vector cost.
    Packed,
    /// In bfloat16, like the transformed inputs; sums are f32.
    Pairs,
}

/// Weights `[point][panel][depth of the point][PANEL]`; the last panel may be half as wide.
#[derive(Debug)]
pub(super) enum Weights {
    Full(Buffer),
    /// [`Packed`] numbers, and `[point][output]` the units they are in.
    Packed(Buffer, Buffer),
    /// Pairs of numbers of consecutive depths.
    Pairs(Buffer),
}

/// The transform of every 3x3 kernel, G g G', with a filter for its rows and one for its columns.
pub(super) struct Filters<'a> {
    /// G for the rows and for the columns of a kernel.
    pub(super) sides: [&'a [[f64; 3]]; 2],
    /// For one row of each filter, the point that they belong to and the run of input channels there.
    pub(super) place: &'a dyn Fn(usize, usize) -> (usize, usize),
    /// Runs of the input channels at every point, which make up its depth.
    pub(super) runs: &'a [usize],
}

/// Outputs whose kernels are transformed and packed together, so that they stay in a cache. Divides the
/// number of outputs.
pub(super) const KERNELS: usize = 8;

/// Widest panel of any instruction set.
pub(super) const MOST_PANEL: usize = 32;

/// Rows of transformed kernels between the points beyond what they need: without them the points
/// would fall into the same few sets of the cache.
const SKEW_ROWS: usize = 2;

/// The largest packed number: what rounding adds to it must not reach the sign.
const LARGEST: f64 = (1 << 23) as f64 - 2.0;

/// Adding this number rounds a value to an integer, which is then in the lowest bits.
const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;

impl Weights {
    /// The weights of `weight` [out, `inputs`, 3, 3], with zeros up to `run` inputs and `outputs` outputs.
    pub(super) fn new(
        isa: Isa,
        form: Form,
        weight: &[f32],
        [inputs, run]: [usize; 2],
        outputs: usize,
        filters: &Filters,
    ) -> Self {
        let panel = simd::panel(isa);
        let depths: Vec<usize> = filters.runs.iter().map(|runs| runs * run).collect();
        let depth: usize = depths.iter().sum();
        let mut weights = Self::zeros(isa, form, depth * outputs, depths.len() * outputs);
        let starts: Vec<usize> =
            depths.iter().scan(0, |sum, depth| Some(mem::replace(sum, *sum + depth + SKEW_ROWS))).collect();
        let mut transformed = vec![[0.0; KERNELS]; depth + depths.len() * SKEW_ROWS];
        for first in (0..outputs).step_by(KERNELS) {
            let to = &mut transformed[..];
            simd::run(isa, Transform { to, starts: &starts, weight, inputs, run, first, filters });
            let mut before = 0;
            for (point, (&start, &depth)) in starts.iter().zip(&depths).enumerate() {
                // All panels of a point are consecutive, and all rows of a panel.
                let begin = first / panel * panel;
                let (at, width) =
                    (before * outputs + begin * depth + first % panel, panel.min(outputs - begin));
                let (from, unit) = (&transformed[start..][..depth], point * outputs + first);
                simd::run(isa, Fill { weights: &mut weights, at, from, unit, width });
                before += depth;
            }
        }
        weights
    }

    fn zeros(isa: Isa, form: Form, numbers: usize, outputs: usize) -> Self {
        match form {
            Form::Packed if simd::unpacks(isa) => {
                let bytes = numbers * size_of::<Packed>() + simd::SPILL;
                Self::Packed(Buffer::new(bytes.div_ceil(size_of::<f32>())), Buffer::new(outputs))
            }
            Form::Full | Form::Packed => Self::Full(Buffer::new(numbers)),
            Form::Pairs => Self::Pairs(Buffer::new(numbers / 2)),
        }
    }
}

/// Writes the depth of a point for some outputs of a panel of that width, the first number to `at`;
/// `unit` is the place of their units.
struct Fill<'a> {
    weights: &'a mut Weights,
    at: usize,
    from: &'a [[f32; KERNELS]],
    unit: usize,
    width: usize,
}

impl Kernel for Fill<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { weights, at, from, unit, width } = self;
        match weights {
            Weights::Full(to) => {
                for (to, row) in to[at..].chunks_mut(width).zip(from) {
                    to[..KERNELS].copy_from_slice(row);
                }
            }
            Weights::Packed(to, units) => {
                let to = &mut to.bytes_mut()[at * size_of::<Packed>()..];
                if let Some(units) = units[unit..].first_chunk_mut() {
                    pack(from, to, width, units);
                }
            }
            Weights::Pairs(to) => {
                // The depth is a multiple of the number of stored channels, which is even. A pair
                // has the place that one number has in f32.
                let at = at / width * width / 2 + at % width;
                for (to, rows) in to[at..].chunks_mut(width).zip(from.as_chunks::<2>().0) {
                    for (i, to) in to[..KERNELS].iter_mut().enumerate() {
                        *to = Pair(rows.map(|row| bf16::from_f32(row[i]))).bits();
                    }
                }
            }
        }
    }
}

/// Packs rows of numbers into rows of a `panel`. Each column has its own unit, in which its largest number
/// fills the 24 bits.
#[inline(always)]
fn pack(from: &[[f32; KERNELS]], to: &mut [u8], panel: usize, units: &mut [f32; KERNELS]) {
    let mut most = [0.0f32; KERNELS];
    for row in from {
        most = array::from_fn(|i| most[i].max(row[i].abs()));
    }
    let scales = most.map(|most| if most > 0.0 { LARGEST / f64::from(most) } else { 0.0 });
    for (row, to) in from.iter().zip(to.chunks_mut(panel * size_of::<Packed>())) {
        let words = Packed::nearest(array::from_fn(|i| f64::from(row[i]) * scales[i]));
        for (to, word) in to.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }
    *units = most.map(|most| (f64::from(most) / LARGEST / Packed::UNIT) as f32);
}

impl Packed {
    /// The result of [`Simd::load_packed`](simd::Simd::load_packed) for 1, without its lowest byte.
    const UNIT: f64 = 256.0;

    /// The bytes of the packed numbers for `values`. A number reads as larger than its bits say, by half of
    /// the last one on average.
    #[inline(always)]
    fn nearest(values: [f64; KERNELS]) -> [u64; KERNELS * size_of::<Packed>() / size_of::<u64>()] {
        let [a, b, c, d, e, f, g, h] = values.map(|value| (value - 0.5 + WHOLE).to_bits() & 0xff_ffff);
        [a | b << 24 | c << 48, c >> 16 | d << 8 | e << 32 | f << 56, f >> 8 | g << 16 | h << 40]
    }
}

/// G g G' for some outputs, from `first` on.
struct Transform<'a> {
    to: &'a mut [[f32; KERNELS]],
    /// Where the rows of each point start in `to`.
    starts: &'a [usize],
    weight: &'a [f32],
    inputs: usize,
    run: usize,
    first: usize,
    filters: &'a Filters<'a>,
}

impl Kernel for Transform<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { to, starts, weight, inputs, run, first, filters } = self;
        let [rows, columns] = filters.sides;
        // Beyond the last output there are zeros.
        let each: [&[[f32; 9]]; KERNELS] = array::from_fn(|i| {
            let kernels = weight.as_chunks().0;
            kernels.get((first + i) * inputs..).and_then(|kernels| kernels.get(..inputs)).unwrap_or(&[])
        });
        for input in 0..inputs {
            let mut kernels = [[0.0; KERNELS]; 9];
            for (i, each) in each.iter().enumerate() {
                if let Some(kernel) = each.get(input) {
                    kernels.iter_mut().zip(kernel).for_each(|(tap, &value)| tap[i] = f64::from(value));
                }
            }
            for (y, left) in rows.iter().enumerate() {
                let half: [[f64; KERNELS]; 3] =
                    array::from_fn(|x| weighted(left, array::from_fn(|y| &kernels[3 * y + x])));
                for (x, right) in columns.iter().enumerate() {
                    let (point, before) = (filters.place)(y, x);
                    let values = weighted(right, half.each_ref());
                    to[starts[point] + before * run + input] = values.map(|value| value as f32);
                }
            }
        }
    }
}

/// The weighted sum of three lists.
#[inline(always)]
fn weighted(weights: &[f64; 3], lists: [&[f64; KERNELS]; 3]) -> [f64; KERNELS] {
    array::from_fn(|i| weights[0] * lists[0][i] + weights[1] * lists[1][i] + weights[2] * lists[2][i])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unpacks a panel and multiplies it with its units.
    struct Unpack<'a>(&'a [u8], &'a [f32], &'a mut [f32]);

    impl Kernel for Unpack<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(packed, units, to) = self;
            for at in (0..to.len()).step_by(S::LANES) {
                // SAFETY: there are as many packed numbers, and the bytes behind them that may be read.
                unsafe {
                    let value = S::load_packed(packed[at * 3..].as_ptr().cast());
                    let unit = S::load(units[at % units.len()..].as_ptr());
                    S::store(to[at..].as_mut_ptr(), S::mul(value, unit));
                }
            }
        }
    }

    #[test]
    fn packed_numbers_are_those_that_went_in_to_24_bits() {
        // The largest of a column, numbers around nought, a column of nought, and one of tiny numbers.
        let panel = 32;
        let values: Vec<f32> = (0..40 * panel)
            .map(|i| {
                let x = ((i * 7919) % 4001) as f32 / 2000.0 - 1.0;
                match i % panel {
                    0 => 0.0,
                    1 => x * 1e-20,
                    2 => x * 3e8,
                    column => (x * column as f32).powi(3),
                }
            })
            .collect();
        let mut bytes = vec![0; values.len() * 3 + simd::SPILL];
        let mut units = vec![0.0; panel];
        for lane in (0..panel).step_by(KERNELS) {
            let rows: Vec<[f32; KERNELS]> =
                values.chunks(panel).map(|row| array::from_fn(|i| row[lane + i])).collect();
            let units = units[lane..].first_chunk_mut().unwrap();
            pack(&rows, &mut bytes[3 * lane..], panel, units);
        }
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; values.len()];
            simd::run_packed(isa, Unpack(&bytes, &units, &mut found));
            let mut bias = vec![0.0; panel];
            for (i, (&found, &value)) in found.iter().zip(&values).enumerate() {
                let unit = f64::from(units[i % panel]) * Packed::UNIT;
                let off = f64::from(found) - f64::from(value);
                assert!(
                    off.abs() <= 1.01 * unit + f64::from(value.abs()) * 1e-7,
                    "{isa} {i}: {found} {value}"
                );
                bias[i % panel] += off / unit.max(f64::MIN_POSITIVE) / 40.0;
            }
            assert!(bias.iter().all(|bias| bias.abs() < 0.5), "{isa}: {bias:?}");
        }
    }
}
