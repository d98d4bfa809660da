//! Transformed weights, laid out for the matrix products.

use std::array;

use half::bf16;

use super::super::padded;
use super::super::product::{Packed, Pair};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd;

/// How transformed weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In f32.
    Full,
    /// In 24 bits where the instruction set unpacks them fast, else in f32. Where memory is what a
    /// layer waits for, a quarter less of it counts for more than two instructions a vector.
    Packed,
    /// In bfloat16, as the transformed inputs are then; products are added up in f32.
    Pairs,
}

/// Weights `[point][panel][depth of the point][PANEL]`.
#[derive(Debug)]
pub(super) enum Weights {
    Full(Buffer),
    /// [`Packed`] numbers, and `[point][output]` the units they are in.
    Packed(Buffer, Buffer),
    /// Pairs of numbers that follow each other in depth.
    Pairs(Buffer),
}

/// What is made of every 3x3 kernel, as G g G' of a filter for its rows and one for its columns.
pub(super) struct Filters<'a> {
    /// G for the rows and for the columns of a kernel.
    pub(super) sides: [&'a [[f64; 3]]; 2],
    /// The point for two of them, and which run of the input channels there is theirs.
    pub(super) place: &'a dyn Fn(usize, usize) -> (usize, usize),
    /// Runs of the input channels at every point, which make up its depth.
    pub(super) runs: &'a [usize],
}

/// Kernels that are transformed together; divides the width of any panel.
const KERNELS: usize = 8;

/// Widest panel of any instruction set.
pub(super) const MOST_PANEL: usize = 32;

/// The largest packed number: what rounding adds to it must not reach the sign.
const LARGEST: f64 = (1 << 23) as f64 - 2.0;

/// A number that leaves nothing but a whole part to what is added to it, in the lowest bits.
const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;

impl Weights {
    /// Those of `weight` [out, `inputs`, 3, 3] for maps of `stored` channels.
    pub(super) fn new(
        isa: Isa,
        form: Form,
        weight: &[f32],
        [inputs, stored]: [usize; 2],
        filters: &Filters,
    ) -> Self {
        let panel = simd::panel(isa);
        let outputs = padded(weight.len() / (9 * inputs), isa);
        let depths = || filters.runs.iter().map(|runs| runs * stored);
        let depth: usize = depths().sum();
        let mut weights = Self::zeros(isa, form, depth * outputs, filters.runs.len() * outputs);
        // One panel of all points, so that it is in a cache when it is packed.
        let mut one = Buffer::new(depth * panel);
        for number in 0..outputs / panel {
            transform(&mut one, panel, weight, [inputs, stored], number * panel, filters);
            let mut before = 0;
            for (point, depth) in depths().enumerate() {
                let from = &one[before * panel..][..depth * panel];
                let at = before * outputs + number * panel * depth;
                weights.fill(at, from, point * outputs + number * panel, panel);
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

    /// Writes the depth of a point for one panel, from number `at` on; `unit` is the place of its
    /// units.
    fn fill(&mut self, at: usize, from: &[f32], unit: usize, panel: usize) {
        match self {
            Self::Full(to) => to[at..][..from.len()].copy_from_slice(from),
            Self::Packed(to, units) => {
                pack(from, &mut to.bytes_mut()[at * size_of::<Packed>()..], &mut units[unit..][..panel]);
            }
            Self::Pairs(to) => {
                // The depth is a multiple of the number of stored channels, which is even.
                let both = from.chunks_exact(2 * panel);
                for (to, rows) in to[at / 2..].chunks_exact_mut(panel).zip(both) {
                    let (first, second) = rows.split_at(panel);
                    for (to, (&first, &second)) in to.iter_mut().zip(first.iter().zip(second)) {
                        *to = Pair([first, second].map(bf16::from_f32)).bits();
                    }
                }
            }
        }
    }
}

/// Packs rows of as many numbers as there are `units`, each column in a unit of its own, in which
/// its largest number fills the 24 bits.
fn pack(from: &[f32], to: &mut [u8], units: &mut [f32]) {
    let panel = units.len();
    let mut most = [0.0f32; MOST_PANEL];
    for row in from.chunks_exact(panel) {
        most.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
    }
    let scales = most.map(|most| if most > 0.0 { LARGEST / f64::from(most) } else { 0.0 });
    for (row, to) in from.chunks_exact(panel).zip(to.chunks_mut(panel * size_of::<Packed>())) {
        for ((&value, scale), to) in row.iter().zip(scales).zip(to.chunks_exact_mut(size_of::<Packed>())) {
            to.copy_from_slice(&Packed::nearest(f64::from(value) * scale).0);
        }
    }
    for (unit, most) in units.iter_mut().zip(most) {
        *unit = (f64::from(most) / LARGEST / Packed::UNIT) as f32;
    }
}

impl Packed {
    /// What [`Simd::load_packed`](simd::Simd::load_packed) makes of 1, but for what is below it.
    const UNIT: f64 = 256.0;

    /// The packed number for `value`. What is read is more than its bits say, by half of the last
    /// one on average.
    fn nearest(value: f64) -> Self {
        let [low, middle, high, ..] = (value - 0.5 + WHOLE).to_bits().to_le_bytes();
        Self([low, middle, high])
    }
}

/// G g G' for the outputs of one panel, from `first` on, `[point][depth][PANEL]`.
fn transform(
    to: &mut [f32],
    panel: usize,
    weight: &[f32],
    [inputs, stored]: [usize; 2],
    first: usize,
    filters: &Filters,
) {
    let outputs = weight.len() / (9 * inputs);
    let [rows, columns] = filters.sides;
    let before: Vec<usize> =
        filters.runs.iter().scan(0, |sum, runs| Some(std::mem::replace(sum, *sum + runs * stored))).collect();
    for lane in (0..panel).step_by(KERNELS) {
        let count = KERNELS.min(outputs.saturating_sub(first + lane));
        for input in 0..inputs {
            let mut kernels = [[0.0; KERNELS]; 9];
            for i in 0..count {
                let kernel = &weight[((first + lane + i) * inputs + input) * 9..][..9];
                kernels.iter_mut().zip(kernel).for_each(|(tap, &value)| tap[i] = f64::from(value));
            }
            for (y, left) in rows.iter().enumerate() {
                let half: [[f64; KERNELS]; 3] =
                    array::from_fn(|x| weighted(left, array::from_fn(|y| &kernels[3 * y + x])));
                for (x, right) in columns.iter().enumerate() {
                    let values = weighted(right, half.each_ref());
                    let (point, run) = (filters.place)(y, x);
                    let to = &mut to[(before[point] + run * stored + input) * panel + lane..][..KERNELS];
                    to.iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
                }
            }
        }
    }
}

/// The sum of three lists by their weights.
fn weighted(weights: &[f64; 3], lists: [&[f64; KERNELS]; 3]) -> [f64; KERNELS] {
    array::from_fn(|i| weights[0] * lists[0][i] + weights[1] * lists[1][i] + weights[2] * lists[2][i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::{Kernel, Simd};

    /// Unpacks a panel and multiplies it with its units.
    struct Unpack<'a>(&'a [u8], &'a [f32], &'a mut [f32]);

    impl Kernel for Unpack<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Self(packed, units, to) = self;
            for at in (0..to.len()).step_by(S::LANES) {
                // SAFETY: there are as many packed numbers and what may be read behind them.
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
        pack(&values, &mut bytes, &mut units);
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
