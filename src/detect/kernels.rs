//! The inner loops of the networks' dense layers and pools, compiled once per instruction set.
//!
//! A tile of a layer keeps 16 outputs of several rows in registers and walks over the inputs once.
//! Each output is the sum over its inputs in a fixed order, whatever the tile it falls into:
//! results do not depend on the batch.
//!
//! Every store writes a whole vector. Where there are no multiple of 16 outputs it spills over
//! into the next row, which is therefore written later: rows in ascending order, the blocks of a
//! layer in descending order, and [`LANES`] values of slack behind everything.

use super::lanes::{LANES, Lanes, Portable};
use crate::nn::Isa;

/// A fully connected layer with its PReLU, packed for the kernels.
#[derive(Debug)]
pub struct Dense {
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// [block of 16 outputs][input][16], zero where there is no output.
    weights: Vec<f32>,
    /// Outputs rounded up to 16.
    bias: Vec<f32>,
    /// Outputs rounded up to 16; 1 is the identity.
    slope: Vec<f32>,
}

impl Dense {
    /// Packs weights given as [outputs, inputs], one bias and slope an output.
    ///
    /// # Panics
    /// When the lengths do not agree: the caller checks the shapes of what it loads.
    pub fn pack(weights: &[f32], bias: &[f32], slope: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        assert_eq!((weights.len(), slope.len()), (outputs * inputs, outputs));
        let mut packed = Vec::with_capacity(inputs * outputs.next_multiple_of(LANES));
        for block in 0..outputs.div_ceil(LANES) {
            for input in 0..inputs {
                packed.extend(
                    (block * LANES..(block + 1) * LANES)
                        .map(|output| if output < outputs { weights[output * inputs + input] } else { 0.0 }),
                );
            }
        }
        let padded = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(outputs.next_multiple_of(LANES), 0.0);
            padded
        };
        Self { inputs, outputs, weights: packed, bias: padded(bias), slope: padded(slope) }
    }

    /// Blocks of 16 outputs.
    fn blocks(&self) -> usize {
        self.bias.len() / LANES
    }

    fn block_weights(&self, block: usize) -> &[f32] {
        let length = self.inputs * LANES;
        &self.weights[block * length..(block + 1) * length]
    }
}

/// A block of 16 outputs of a dense layer for some rows of inputs.
type DenseBlock = unsafe fn(&Dense, usize, &[f32], usize, &mut [f32]);

/// Pools one row of maxima: from its rows, their width, channels and the window.
type MaxPoolRow = unsafe fn(&[&[f32]], usize, usize, usize, &mut [f32]);

/// The kernels of one instruction set. Exists only for one that this machine has.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// Which one.
    pub isa: Isa,
    dense_block: DenseBlock,
    max_pool_row: MaxPoolRow,
    dot_row: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
}

impl Kernels {
    /// The kernels for that instruction set; `None` where this machine lacks it.
    pub fn new(isa: Isa) -> Option<Self> {
        if !isa.is_available() {
            return None;
        }
        match isa {
            Isa::Portable => Some(portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(neon::KERNELS),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// A dense layer on `rows` rows of inputs, [rows, layer.inputs]. `out` is
    /// [rows, layer.outputs] and [`LANES`] values of slack.
    pub fn dense(&self, layer: &Dense, from: &[f32], rows: usize, out: &mut [f32]) {
        assert!(from.len() >= rows * layer.inputs && out.len() >= rows * layer.outputs + LANES);
        for block in (0..layer.blocks()).rev() {
            // SAFETY: the instruction set was checked by `new`, the lengths just now: the last
            // store of a block begins inside its row and spills over by fewer than 16 values.
            unsafe { (self.dense_block)(layer, block, from, rows, out) }
        }
    }

    /// One row of a max-pool of stride 2 and `size` 2 or 3: `rows` are the input rows under it (fewer
    /// at the bottom of the map), each [width, channels] and [`LANES`] values of slack; windows
    /// that reach over the right edge are cut off. Writes `(width - size) / 2 + 1` pixels,
    /// the division rounded up.
    pub fn max_pool_row(&self, rows: &[&[f32]], width: usize, channels: usize, size: usize, out: &mut [f32]) {
        assert!(channels > 0 && width >= size && (2..=3).contains(&size) && (1..=size).contains(&rows.len()));
        let padded = channels.next_multiple_of(LANES);
        assert!(rows.iter().all(|row| row.len() >= (width - 1) * channels + padded));
        assert!(out.len() >= ((width - size).div_ceil(2)) * channels + padded);
        // SAFETY: the instruction set was checked by `new`, the lengths just now.
        unsafe { (self.max_pool_row)(rows, width, channels, size, out) }
    }

    /// `out[x] = bias + row[x] . weights` for pixels of `weights.len()` channels, a multiple
    /// of 16.
    pub fn dot_row(&self, row: &[f32], weights: &[f32], bias: f32, out: &mut [f32]) {
        assert!(weights.len().is_multiple_of(LANES) && row.len() >= out.len() * weights.len());
        // SAFETY: the instruction set was checked by `new`, the lengths just now.
        unsafe { (self.dot_row)(row, weights, bias, out) }
    }
}

/// Inputs that a loop takes at once, which spares it computing where each row is.
const STEP: usize = 4;

/// Adds `N` inputs of `P` rows, the first at `first` and `inputs` values apart, times their weights.
///
/// # Safety
/// As for [`Lanes`]; so many values of every row and vectors of weights must be there.
#[inline(always)]
unsafe fn add_values<S: Lanes, const P: usize, const N: usize>(
    sums: &mut [S; P],
    first: *const f32,
    inputs: usize,
    weights: *const f32,
) {
    for value in 0..N {
        // SAFETY: the caller's.
        unsafe {
            let weight = S::load(weights.add(value * LANES));
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add_scaled(first.add(p * inputs + value), weight);
            }
        }
    }
}

/// `P` rows of one block of outputs, the inputs of the first at `first`.
///
/// # Safety
/// As for [`Lanes`]; `first` is followed by `P` rows of inputs, `block` exists.
#[inline(always)]
unsafe fn tile<S: Lanes, const P: usize>(layer: &Dense, block: usize, mut first: *const f32) -> [S; P] {
    let inputs = layer.inputs;
    let mut weights = layer.block_weights(block).as_ptr();
    // SAFETY: bias and slope hold a whole vector a block, the weights one for each input; the
    // caller vouches for the rows.
    unsafe {
        let mut sums = [S::load(layer.bias.as_ptr().add(block * LANES)); P];
        for _ in 0..inputs / STEP {
            add_values::<S, P, STEP>(&mut sums, first, inputs, weights);
            (first, weights) = (first.add(STEP), weights.add(STEP * LANES));
        }
        for _ in 0..inputs % STEP {
            add_values::<S, P, 1>(&mut sums, first, inputs, weights);
            (first, weights) = (first.add(1), weights.add(LANES));
        }
        let slope = S::load(layer.slope.as_ptr().add(block * LANES));
        for sum in &mut sums {
            *sum = sum.prelu(slope);
        }
        sums
    }
}

/// # Safety
/// As for [`Lanes`]; lengths as checked by [`Kernels::dense`].
#[inline(always)]
unsafe fn dense_block<S: Lanes>(layer: &Dense, block: usize, from: &[f32], rows: usize, out: &mut [f32]) {
    let tiles = rows.div_ceil(S::ROWS);
    let mut row = 0;
    for left in (1..=tiles).rev() {
        // Tiles of nearly equal size: a short rest would leave the arithmetic units idle.
        let together = (rows - row).div_ceil(left);
        macro_rules! tile_of {
            ($($p:literal)*) => {
                match together {
                    $($p if $p <= S::ROWS => {
                        // SAFETY: the tiles lie inside the rows, and `out` has slack for a
                        // whole vector behind the last.
                        unsafe {
                            let sums = tile::<S, $p>(layer, block, from.as_ptr().add(row * layer.inputs));
                            let to = out.as_mut_ptr().add(row * layer.outputs + block * LANES);
                            for (p, sum) in sums.into_iter().enumerate() {
                                sum.store(to.add(p * layer.outputs));
                            }
                        }
                    })*
                    _ => {}
                }
            };
        }
        tile_of!(1 2 3 4 5 6 7 8);
        row += together;
    }
}

/// # Safety
/// As for [`Lanes`]; lengths as checked by [`Kernels::max_pool_row`].
#[inline(always)]
unsafe fn max_pool_row<S: Lanes>(
    rows: &[&[f32]],
    width: usize,
    channels: usize,
    size: usize,
    out: &mut [f32],
) {
    // SAFETY: the same contract.
    unsafe {
        match (rows, size) {
            (&[a, b, c], 3) => max_pool_row_of::<S, 3, 3>([a, b, c], width, channels, out),
            (&[a, b], 3) => max_pool_row_of::<S, 2, 3>([a, b], width, channels, out),
            (&[a], 3) => max_pool_row_of::<S, 1, 3>([a], width, channels, out),
            (&[a, b], _) => max_pool_row_of::<S, 2, 2>([a, b], width, channels, out),
            (&[a], _) => max_pool_row_of::<S, 1, 2>([a], width, channels, out),
            _ => {}
        }
    }
}

/// The largest of the rows in each lane. No closure: those are not compiled for an instruction set.
///
/// # Safety
/// As for [`Lanes`], for a vector at `at` of every row.
#[inline(always)]
unsafe fn largest_of<S: Lanes, const ROWS: usize>(rows: &[&[f32]; ROWS], at: usize) -> S {
    // SAFETY: the caller's.
    unsafe {
        let mut largest = S::load(rows[0].as_ptr().add(at));
        for row in &rows[1..] {
            largest = largest.max(S::load(row.as_ptr().add(at)));
        }
        largest
    }
}

/// # Safety
/// As for [`max_pool_row`].
#[inline(always)]
unsafe fn max_pool_row_of<S: Lanes, const ROWS: usize, const SIZE: usize>(
    rows: [&[f32]; ROWS],
    width: usize,
    channels: usize,
    out: &mut [f32],
) {
    let whole = (width - SIZE) / 2 + 1;
    for channel in (0..channels).step_by(LANES).rev() {
        // SAFETY: columns inside the row, with slack for a whole vector behind the last.
        unsafe {
            let out = out.as_mut_ptr().add(channel);
            let mut next = largest_of::<S, ROWS>(&rows, channel);
            for x in 0..whole {
                let mut largest = next;
                for beside in 1..SIZE {
                    next = largest_of::<S, ROWS>(&rows, (2 * x + beside) * channels + channel);
                    largest = largest.max(next);
                }
                largest.store(out.add(x * channels));
                // The last of three columns is the first of the next three.
                if SIZE == 2 && 2 * x + 2 < width {
                    next = largest_of::<S, ROWS>(&rows, (2 * x + 2) * channels + channel);
                }
            }
            if 2 * (whole - 1) + SIZE < width {
                for beside in 2 * whole + 1..width {
                    next = next.max(largest_of::<S, ROWS>(&rows, beside * channels + channel));
                }
                next.store(out.add(whole * channels));
            }
        }
    }
}

/// # Safety
/// As for [`Lanes`]; lengths as checked by [`Kernels::dot_row`].
#[inline(always)]
unsafe fn dot_row<S: Lanes>(row: &[f32], weights: &[f32], bias: f32, out: &mut [f32]) {
    for (x, out) in out.iter_mut().enumerate() {
        let mut lanes = [0.0; LANES];
        // SAFETY: whole vectors of one pixel and of the weights.
        unsafe {
            let mut sum = S::zero();
            for channel in (0..weights.len()).step_by(LANES) {
                let pixel = S::load(row.as_ptr().add(x * weights.len() + channel));
                sum = sum.add_product(pixel, S::load(weights.as_ptr().add(channel)));
            }
            sum.store(lanes.as_mut_ptr());
        }
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        *out = bias + lanes[0];
    }
}

macro_rules! kernels_for {
    ($module:ident, $isa:expr, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            pub const KERNELS: Kernels =
                Kernels { isa: $isa, dense_block, max_pool_row, dot_row };

            /// # Safety
            /// As for [`Kernels::dense`], on a machine with these features.
            $(#[target_feature(enable = $features)])?
            unsafe fn dense_block(
                layer: &Dense,
                block: usize,
                from: &[f32],
                rows: usize,
                out: &mut [f32],
            ) {
                // SAFETY: the same contract.
                unsafe { super::dense_block::<$lanes>(layer, block, from, rows, out) }
            }

            /// # Safety
            /// As for [`Kernels::max_pool_row`], on a machine with these features.
            $(#[target_feature(enable = $features)])?
            unsafe fn max_pool_row(
                rows: &[&[f32]],
                width: usize,
                channels: usize,
                size: usize,
                out: &mut [f32],
            ) {
                // SAFETY: the same contract.
                unsafe { super::max_pool_row::<$lanes>(rows, width, channels, size, out) }
            }

            /// # Safety
            /// As for [`Kernels::dot_row`], on a machine with these features.
            $(#[target_feature(enable = $features)])?
            unsafe fn dot_row(row: &[f32], weights: &[f32], bias: f32, out: &mut [f32]) {
                // SAFETY: the same contract.
                unsafe { super::dot_row::<$lanes>(row, weights, bias, out) }
            }
        }
    };
}

kernels_for!(portable, Isa::Portable, Portable);
#[cfg(target_arch = "x86_64")]
kernels_for!(avx2, Isa::Avx2, crate::detect::lanes::Avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
kernels_for!(avx512, Isa::Avx512, crate::detect::lanes::Avx512, "avx512f,avx2,fma");
#[cfg(target_arch = "aarch64")]
kernels_for!(neon, Isa::Neon, crate::detect::lanes::Neon, "neon");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{close, noise};

    fn every_isa() -> impl Iterator<Item = Kernels> {
        Isa::available().into_iter().filter_map(Kernels::new)
    }

    #[test]
    fn dense_layers_of_every_size_whatever_the_rows_beside() {
        for kernels in every_isa() {
            for (outputs, inputs) in [(10, 7), (28, 12), (16, 1), (48, 33), (6, 128)] {
                let (weights, bias) = (noise(outputs * inputs, 1), noise(outputs, 2));
                let slope = noise(outputs, 3);
                let layer = Dense::pack(&weights, &bias, &slope, inputs);
                let from = noise(26 * inputs, 4);
                let run = |first: usize, rows: usize| {
                    let mut out = vec![0.0; rows * outputs + LANES];
                    kernels.dense(&layer, &from[first * inputs..], rows, &mut out);
                    out.truncate(rows * outputs);
                    out
                };
                let whole = run(0, 26);
                let one = |at: usize| {
                    let (row, output) = (&from[at / outputs * inputs..][..inputs], at % outputs);
                    let products = row.iter().zip(&weights[output * inputs..]);
                    let sum: f64 = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    let sum = f64::from(bias[output]) + sum;
                    (if sum > 0.0 { sum } else { f64::from(slope[output]) * sum }) as f32
                };
                close(&whole, &(0..whole.len()).map(one).collect::<Vec<_>>(), 2e-5);
                for (first, rows) in (1..=26).map(|rows| (26 - rows, rows)) {
                    assert_eq!(run(first, rows), whole[first * outputs..]);
                }
            }
        }
    }

    #[test]
    fn pools_cut_off_at_the_edges() {
        for kernels in every_isa() {
            for (size, channels, height) in [(3, 28, 3), (3, 28, 1), (3, 32, 2), (2, 64, 2), (2, 5, 1)] {
                for width in size..=12 {
                    let rows: Vec<_> =
                        (0..height).map(|y| noise(width * channels + LANES, 30 + y as u64)).collect();
                    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
                    let pools = (width - size).div_ceil(2) + 1;
                    let mut out = vec![0.0; pools * channels + LANES];
                    kernels.max_pool_row(&rows, width, channels, size, &mut out);
                    for pool in 0..pools {
                        for channel in 0..channels {
                            let columns = 2 * pool..(2 * pool + size).min(width);
                            let values = columns.flat_map(|x| rows.iter().map(move |row| (x, row)));
                            let largest = values
                                .map(|(x, row)| row[x * channels + channel])
                                .fold(f32::NEG_INFINITY, f32::max);
                            assert_eq!(out[pool * channels + channel], largest);
                        }
                    }
                }
            }
        }
    }
}
