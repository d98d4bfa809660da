//! The inner loops of the three networks, compiled once per instruction set.
//!
//! Feature maps are row-major [rows, columns, channels] without padding, so that the K*C values
//! under one row of a K-wide kernel lie side by side. A convolution tile keeps 16 output
//! channels of several pixels in registers and walks over those values once. Each output is
//! the sum over its inputs in a fixed order, whatever the tile it falls into: results do not
//! depend on image width or batch.
//!
//! Every store writes a whole vector. Where the channels are no multiple of 16 it spills
//! over into the next pixel, which is therefore written later: pixels in ascending order, the
//! blocks of a layer in descending order, and [`LANES`] values of slack behind every map.

use super::lanes::{LANES, Lanes, Portable};
use crate::nn::Isa;

/// Most rows a kernel has.
pub const MAX_KERNEL: usize = 3;

/// A convolution (or, with a kernel of 1, a fully connected layer over a row of samples) with
/// its PReLU, packed for the kernels.
#[derive(Debug)]
pub struct Conv {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Rows and columns of the kernel, 1..=[`MAX_KERNEL`].
    pub kernel: usize,
    /// [block of 16 outputs][kernel row][kernel column][input][16], zero where there is no output.
    weights: Vec<f32>,
    /// Outputs rounded up to 16.
    bias: Vec<f32>,
    /// Outputs rounded up to 16; 1 is the identity.
    slope: Vec<f32>,
}

impl Conv {
    /// Packs weights given as [outputs, inputs, kernel, kernel], one bias and slope an output.
    ///
    /// # Panics
    /// When the lengths do not agree: the caller checks the shapes of what it loads.
    pub fn pack(weights: &[f32], bias: &[f32], slope: &[f32], inputs: usize, kernel: usize) -> Self {
        let outputs = bias.len();
        assert!((1..=MAX_KERNEL).contains(&kernel) && slope.len() == outputs);
        assert_eq!(weights.len(), outputs * inputs * kernel * kernel);
        let mut packed = Vec::with_capacity(weights.len().next_multiple_of(LANES));
        for block in 0..outputs.div_ceil(LANES) {
            for row in 0..kernel {
                for column in 0..kernel {
                    for input in 0..inputs {
                        packed.extend((block * LANES..(block + 1) * LANES).map(|output| {
                            let index = ((output * inputs + input) * kernel + row) * kernel + column;
                            if output < outputs { weights[index] } else { 0.0 }
                        }));
                    }
                }
            }
        }
        let padded = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(outputs.next_multiple_of(LANES), 0.0);
            padded
        };
        Self { inputs, outputs, kernel, weights: packed, bias: padded(bias), slope: padded(slope) }
    }

    /// Blocks of 16 outputs.
    pub fn blocks(&self) -> usize {
        self.bias.len() / LANES
    }

    /// Values under one row of the kernel.
    fn run(&self) -> usize {
        self.kernel * self.inputs
    }

    fn block_weights(&self, block: usize) -> &[f32] {
        let length = self.kernel * self.run() * LANES;
        &self.weights[block * length..(block + 1) * length]
    }

    /// Checks what the tiles rely on: the input rows hold `width + kernel - 1` pixels.
    fn check_rows(&self, rows: &[&[f32]], width: usize) {
        assert!(width > 0 && rows.len() >= self.kernel);
        let needed = (width - 1) * self.inputs + self.run();
        assert!(rows.iter().take(self.kernel).all(|row| row.len() >= needed));
    }
}

/// The rows of a map under a convolution's kernel, as many as the kernel is high.
type Rows<'a> = [&'a [f32]; MAX_KERNEL];

/// Convolves the rows under one row of pixels.
type ConvRow = unsafe fn(&Conv, usize, &Rows<'_>, usize, &mut [f32]);

/// Convolves the rows under two rows of pixels and keeps the largest of each 2x2.
type ConvPoolRow = unsafe fn(&Conv, &[Rows<'_>; 2], usize, &mut [f32]);

/// Pools one row of maxima: from its rows, their width, channels and the window.
type MaxPoolRow = unsafe fn(&[&[f32]], usize, usize, usize, &mut [f32]);

/// The kernels of one instruction set. Exists only for one that this machine has.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    /// Which one.
    pub isa: Isa,
    conv_row: ConvRow,
    conv_pool_row: ConvPoolRow,
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

    /// One row of one block of 16 channels: `width` outputs from `conv.kernel` input rows.
    /// `out` is [width, conv.outputs] and [`LANES`] values of slack.
    pub fn conv_row(&self, conv: &Conv, block: usize, rows: &Rows<'_>, width: usize, out: &mut [f32]) {
        conv.check_rows(rows, width);
        assert!(block < conv.blocks() && out.len() >= (width - 1) * conv.outputs + (block + 1) * LANES);
        // SAFETY: the instruction set was checked by `new`, the lengths just now.
        unsafe { (self.conv_row)(conv, block, rows, width, out) }
    }

    /// One row of a convolution of at most 16 channels, PReLU and 2x2 max-pool of stride 2:
    /// `rows` are the input rows of the two convolution rows under the pool, `width` the
    /// width of the convolution, and `out` is [width / 2 rounded up, conv.outputs] and
    /// [`LANES`] values of slack. Beyond the last column the pool sees nothing, as if padded by
    /// minus infinity; a caller without a second row gives the first one twice.
    pub fn conv_pool_row(&self, conv: &Conv, rows: &[Rows<'_>; 2], width: usize, out: &mut [f32]) {
        rows.iter().for_each(|rows| conv.check_rows(rows, width));
        assert!(conv.blocks() == 1 && out.len() >= (width.div_ceil(2) - 1) * conv.outputs + LANES);
        // SAFETY: the instruction set was checked by `new`, the lengths just now.
        unsafe { (self.conv_pool_row)(conv, rows, width, out) }
    }

    /// One row of a max-pool of stride 2: `rows` are the input rows under it (fewer than `size`
    /// at the bottom of the map), each [width, channels] and [`LANES`] values of slack; windows
    /// that reach over the right edge are cut off. Writes `(width - size) / 2 + 1` pixels,
    /// the division rounded up.
    pub fn max_pool_row(&self, rows: &[&[f32]], width: usize, channels: usize, size: usize, out: &mut [f32]) {
        assert!(channels > 0 && width >= size && size >= 2);
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

/// `P` neighbouring pixels of one block of channels.
///
/// # Safety
/// As for [`Lanes`]; `rows` hold the pixels `x .. x + P + kernel - 1`, `block` exists.
#[inline(always)]
unsafe fn tile<S: Lanes, const P: usize>(conv: &Conv, block: usize, rows: &Rows<'_>, x: usize) -> [S; P] {
    let (inputs, run) = (conv.inputs, conv.run());
    let mut weights = conv.block_weights(block).as_ptr();
    // SAFETY: bias and slope hold a whole vector a block, the weights one for each of the
    // kernel * run values read from each pixel; the caller vouches for the rows.
    unsafe {
        let mut sums = [S::load(conv.bias.as_ptr().add(block * LANES)); P];
        for row in rows.iter().take(conv.kernel) {
            let first = row.as_ptr().add(x * inputs);
            let mut pixels = [first; P];
            for (p, pixel) in pixels.iter_mut().enumerate() {
                *pixel = first.add(p * inputs);
            }
            for value in 0..run {
                let weight = S::load(weights);
                weights = weights.add(LANES);
                for p in 0..P {
                    sums[p] = sums[p].add_scaled(pixels[p].add(value), weight);
                }
            }
        }
        let slope = S::load(conv.slope.as_ptr().add(block * LANES));
        for sum in &mut sums {
            *sum = sum.prelu(slope);
        }
        sums
    }
}

/// # Safety
/// As for [`Lanes`]; lengths as checked by [`Kernels::conv_row`].
#[inline(always)]
unsafe fn conv_row<S: Lanes>(conv: &Conv, block: usize, rows: &Rows<'_>, width: usize, out: &mut [f32]) {
    let tiles = width.div_ceil(S::PIXELS);
    let mut x = 0;
    for left in (1..=tiles).rev() {
        // Tiles of nearly equal size: a short rest would leave the arithmetic units idle.
        let pixels = (width - x).div_ceil(left);
        macro_rules! tile_of {
            ($($p:literal)*) => {
                match pixels {
                    $($p if $p <= S::PIXELS => {
                        // SAFETY: the tiles lie inside the row, and `out` has slack for a
                        // whole vector behind its last pixel.
                        unsafe {
                            let sums = tile::<S, $p>(conv, block, rows, x);
                            let to = out.as_mut_ptr().add(x * conv.outputs + block * LANES);
                            for (p, sum) in sums.into_iter().enumerate() {
                                sum.store(to.add(p * conv.outputs));
                            }
                        }
                    })*
                    _ => {}
                }
            };
        }
        tile_of!(1 2 3 4 5 6 7 8);
        x += pixels;
    }
}

/// `P` neighbouring pooled pixels: four convolution outputs each. `step` is the distance of the
/// two columns under a pool, 0 at a lonely last column.
///
/// # Safety
/// As for [`Lanes`]; the rows hold the convolution's pixels from `2 x` on.
#[inline(always)]
unsafe fn pooled_tile<S: Lanes, const P: usize>(
    conv: &Conv,
    rows: &[Rows<'_>; 2],
    x: usize,
    step: usize,
) -> [S; P] {
    let (inputs, run) = (conv.inputs, conv.run());
    let mut weights = conv.block_weights(0).as_ptr();
    // SAFETY: as for `tile`.
    unsafe {
        let mut sums = [[S::load(conv.bias.as_ptr()); 4]; P];
        for row in 0..conv.kernel {
            let upper = rows[0][row].as_ptr().add(2 * x * inputs);
            let lower = rows[1][row].as_ptr().add(2 * x * inputs);
            for value in 0..run {
                let weight = S::load(weights);
                weights = weights.add(LANES);
                for (p, sum) in sums.iter_mut().enumerate() {
                    let (left, right) = (2 * p * inputs + value, (2 * p + step) * inputs + value);
                    sum[0] = sum[0].add_scaled(upper.add(left), weight);
                    sum[1] = sum[1].add_scaled(upper.add(right), weight);
                    sum[2] = sum[2].add_scaled(lower.add(left), weight);
                    sum[3] = sum[3].add_scaled(lower.add(right), weight);
                }
            }
        }
        let slope = S::load(conv.slope.as_ptr());
        let mut pooled = [S::zero(); P];
        for (pooled, sum) in pooled.iter_mut().zip(sums) {
            let upper = sum[0].prelu(slope).max(sum[1].prelu(slope));
            *pooled = upper.max(sum[2].prelu(slope).max(sum[3].prelu(slope)));
        }
        pooled
    }
}

/// # Safety
/// As for [`Lanes`]; lengths as checked by [`Kernels::conv_pool_row`].
#[inline(always)]
unsafe fn conv_pool_row<S: Lanes>(conv: &Conv, rows: &[Rows<'_>; 2], width: usize, out: &mut [f32]) {
    let pairs = width / 2;
    let mut x = 0;
    // SAFETY: whole pairs of convolution columns, then the lonely last one; `out` has slack for
    // a whole vector behind its last pixel.
    unsafe {
        if S::POOLED == 2 {
            while x + 2 <= pairs {
                let [first, second] = pooled_tile::<S, 2>(conv, rows, x, 1);
                let to = out.as_mut_ptr().add(x * conv.outputs);
                first.store(to);
                second.store(to.add(conv.outputs));
                x += 2;
            }
        }
        while x < width.div_ceil(2) {
            let step = usize::from(x < pairs);
            let [pooled] = pooled_tile::<S, 1>(conv, rows, x, step);
            pooled.store(out.as_mut_ptr().add(x * conv.outputs));
            x += 1;
        }
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
    let Some((&first, rest)) = rows.split_first() else { return };
    for x in 0..(width - size).div_ceil(2) + 1 {
        let columns = 2 * x..(2 * x + size).min(width);
        for channel in (0..channels).step_by(LANES) {
            let at = |column: usize| column * channels + channel;
            // SAFETY: columns inside the row, with slack for a whole vector behind the last.
            unsafe {
                let mut largest = S::load(first.as_ptr().add(at(columns.start)));
                for column in columns.start + 1..columns.end {
                    largest = largest.max(S::load(first.as_ptr().add(at(column))));
                }
                for row in rest {
                    for column in columns.clone() {
                        largest = largest.max(S::load(row.as_ptr().add(at(column))));
                    }
                }
                largest.store(out.as_mut_ptr().add(x * channels + channel));
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
                Kernels { isa: $isa, conv_row, conv_pool_row, max_pool_row, dot_row };

            /// # Safety
            /// As for [`Kernels::conv_row`], on a machine with these features.
            $(#[target_feature(enable = $features)])?
            unsafe fn conv_row(
                conv: &Conv,
                block: usize,
                rows: &Rows<'_>,
                width: usize,
                out: &mut [f32],
            ) {
                // SAFETY: the same contract.
                unsafe { super::conv_row::<$lanes>(conv, block, rows, width, out) }
            }

            /// # Safety
            /// As for [`Kernels::conv_pool_row`], on a machine with these features.
            $(#[target_feature(enable = $features)])?
            unsafe fn conv_pool_row(
                conv: &Conv,
                rows: &[Rows<'_>; 2],
                width: usize,
                out: &mut [f32],
            ) {
                // SAFETY: the same contract.
                unsafe { super::conv_pool_row::<$lanes>(conv, rows, width, out) }
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

    /// A layer of noise, as given to [`Conv::pack`] and packed.
    fn layer(outputs: usize, inputs: usize, kernel: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>, Conv) {
        let weights = noise(outputs * inputs * kernel * kernel, 1);
        let (bias, slope) = (noise(outputs, 2), noise(outputs, 3));
        let conv = Conv::pack(&weights, &bias, &slope, inputs, kernel);
        (weights, bias, slope, conv)
    }

    /// Output `x` of a row, by definition.
    fn expected(
        (weights, bias, slope, conv): &(Vec<f32>, Vec<f32>, Vec<f32>, Conv),
        rows: &Rows<'_>,
        x: usize,
    ) -> Vec<f32> {
        let Conv { inputs, kernel, .. } = *conv;
        let one = |output: usize| {
            let mut sum = f64::from(bias[output]);
            for (y, row) in rows.iter().enumerate().take(kernel) {
                for column in 0..kernel {
                    for input in 0..inputs {
                        let weight = weights[((output * inputs + input) * kernel + y) * kernel + column];
                        sum += f64::from(weight) * f64::from(row[(x + column) * inputs + input]);
                    }
                }
            }
            (if sum > 0.0 { sum } else { f64::from(slope[output]) * sum }) as f32
        };
        (0..conv.outputs).map(one).collect()
    }

    #[test]
    fn convolutions_of_every_width_and_channel_count() {
        for kernels in every_isa() {
            for (outputs, inputs, kernel) in [(10, 3, 3), (28, 3, 3), (16, 10, 3), (48, 28, 2), (6, 40, 1)] {
                let layer = layer(outputs, inputs, kernel);
                for width in 1..=26 {
                    let length = (width + kernel - 1) * inputs;
                    let rows: Vec<_> = (0..MAX_KERNEL).map(|y| noise(length, 10 + y as u64)).collect();
                    let rows: [&[f32]; MAX_KERNEL] = std::array::from_fn(|y| &rows[y][..]);
                    let mut out = vec![0.0; width * outputs + LANES];
                    for block in (0..layer.3.blocks()).rev() {
                        kernels.conv_row(&layer.3, block, &rows, width, &mut out);
                    }
                    let all: Vec<f32> = (0..width).flat_map(|x| expected(&layer, &rows, x)).collect();
                    close(&out[..width * outputs], &all, 2e-5);
                }
            }
        }
    }

    #[test]
    fn fused_pools_of_odd_and_even_widths() {
        for kernels in every_isa() {
            let layer = layer(10, 3, 3);
            for width in 1..=15 {
                let rows: Vec<_> = (0..4).map(|y| noise((width + 2) * 3, 20 + y)).collect();
                let upper: [&[f32]; MAX_KERNEL] = std::array::from_fn(|y| &rows[y][..]);
                let lower: [&[f32]; MAX_KERNEL] = std::array::from_fn(|y| &rows[y + 1][..]);
                let pools = width.div_ceil(2);
                let mut out = vec![0.0; pools * 10 + LANES];
                kernels.conv_pool_row(&layer.3, &[upper, lower], width, &mut out);
                for pool in 0..pools {
                    let mut all = vec![f32::NEG_INFINITY; 10];
                    for x in 2 * pool..(2 * pool + 2).min(width) {
                        for rows in [&upper, &lower] {
                            let values = expected(&layer, rows, x);
                            all.iter_mut().zip(values).for_each(|(all, value)| *all = all.max(value));
                        }
                    }
                    close(&out[pool * 10..][..10], &all, 1e-5);
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

    #[test]
    fn a_tile_gives_the_same_bits_wherever_it_starts() {
        for kernels in every_isa() {
            let (.., conv) = layer(16, 10, 3);
            let rows: Vec<_> = (0..MAX_KERNEL).map(|y| noise(42 * 10, 40 + y as u64)).collect();
            let run = |first: usize, width: usize| {
                let rows: [&[f32]; MAX_KERNEL] = std::array::from_fn(|y| &rows[y][first * 10..]);
                let mut out = vec![0.0; width * 16 + LANES];
                kernels.conv_row(&conv, 0, &rows, width, &mut out);
                out.truncate(width * 16);
                out
            };
            let whole = run(0, 40);
            for (first, width) in [(0, 1), (3, 7), (11, 23), (39, 1)] {
                assert_eq!(run(first, width), whole[first * 16..][..width * 16]);
            }
        }
    }
}
