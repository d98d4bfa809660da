//! 3x3 convolutions of few channels, a strip of rows at a time.
//!
//! Winograd's F(4x4, 3x3) as in [`Winograd`](super::Winograd), but with few input channels, storing the
//! products and loading them again would take longer than computing them. So the transformed inputs of two
//! tiles are kept. For every vector of output channels, the products are computed, transformed back and
//! passed to the epilogue in registers.

use super::winograd::{F4, Scheme, point};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};

/// Rows of outputs in a strip, and rows and columns in a tile.
pub(crate) const STRIP: usize = 4;

/// Rows of inputs under a strip.
pub(crate) const UNDER: usize = STRIP + 2;

/// The most input channels, and the room for them at each point of a transformed tile. A constant, so that
/// the address of a point is known at compile time.
const MOST_INPUTS: usize = 16;

/// Numbers of a transformed tile, `[column][row][MOST_INPUTS]`.
const TILE: usize = UNDER * UNDER * MOST_INPUTS;

/// Tiles that share a load of the weights.
const PAIR: usize = 2;

/// Most numbers in a vector.
const MOST_LANES: usize = 16;

/// Numbers of a tile after the output transform along its columns, for a vector of outputs.
const HALF: usize = STRIP * UNDER * MOST_LANES;

/// The row and column of a point that goes into all outputs of a tile alike, as a bias does.
const BIAS_POINT: usize = 1;

/// The most vectors of outputs whose products are computed together, so that they share the loads of the
/// inputs. Only short vectors are; the points of a column are then computed in as many parts, since there are
/// 16 registers.
const MOST_BESIDE: usize = 2;

/// Their number for vectors of that length.
const fn beside(lanes: usize) -> usize {
    if lanes < MOST_LANES { MOST_BESIDE } else { 1 }
}

/// A 3x3 convolution of stride 1 without padding, with bias and PReLU, on rows of pixels
/// [width, channels] that lie side by side.
#[derive(Debug)]
pub(crate) struct StripConv {
    isa: Isa,
    /// `[block of outputs][column][part of its rows][input][row][beside]`, each a vector; see
    /// [`beside`].
    weights: Buffer,
    inputs: usize,
    outputs: usize,
    bias: Buffer,
    slopes: Buffer,
}

/// Working memory of [`StripConv::apply`].
#[derive(Debug, Default)]
pub(crate) struct StripScratch {
    /// Six rows transformed downwards.
    columns: Vec<f32>,
    zeros: Vec<f32>,
    /// The transformed inputs of a pair of tiles, then their products after the first half of the output
    /// transform.
    tiles: Buffer,
}

/// Where the outputs of a strip go.
pub(crate) struct StripOut<'a> {
    /// Rows of pixels [width, outputs], and slack as [`StripConv::apply`] says.
    pub(crate) values: &'a mut [f32],
    /// Numbers from a row to the next.
    pub(crate) pitch: usize,
    /// Whether only the largest of every 2x2 outputs is kept.
    pub(crate) pool: bool,
}

impl StripConv {
    /// `weight` [outputs, inputs, 3, 3], a bias and a slope for each output.
    ///
    /// # Panics
    /// When the lengths do not agree, or there are more than 16 inputs.
    pub(crate) fn new(isa: Isa, weight: &[f32], bias: &[f32], slopes: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        assert!((1..=MOST_INPUTS).contains(&inputs));
        assert_eq!((weight.len(), slopes.len()), (outputs * inputs * 9, outputs));
        let lanes = simd::lanes(isa);
        let beside = beside(lanes);
        let vectors = outputs.div_ceil(lanes).next_multiple_of(beside);
        let mut weights = Buffer::new(vectors * UNDER * UNDER * inputs * lanes);
        for (n, to) in weights.iter_mut().enumerate() {
            let mut n = n;
            let mut digit = |size: usize| {
                let digit = n % size;
                n /= size;
                digit
            };
            let (lane, vector) = (digit(lanes), digit(beside));
            let (row, input, part) = (digit(UNDER / beside), digit(inputs), digit(beside));
            let (column, block) = (digit(UNDER), n);
            let (row, output) = (part * (UNDER / beside) + row, (block * beside + vector) * lanes + lane);
            if output < outputs {
                let kernel = &weight[(output * inputs + input) * 9..][..9];
                *to = point::<F4, UNDER, STRIP>(kernel, row, column);
            }
        }
        let padded = |values| Buffer::padded(values, vectors * lanes);
        Self { isa, weights, inputs, outputs, bias: padded(bias), slopes: padded(slopes) }
    }

    /// Output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers that an output row of `width` pixels takes up, with the slack that the stores of
    /// whole vectors need.
    pub(crate) fn row_length(&self, width: usize) -> usize {
        width * self.outputs + MOST_LANES
    }

    /// The first `height` rows of a strip, 1 to [`STRIP`], of `width` outputs each, from the rows of
    /// `width + 2` pixels under it. An empty row stands for zeros.
    ///
    /// The rounding of an output depends on all rows under the strip and on its place in it. For equal
    /// results, strips must begin at the same rows and see the same rows. With `out.pool`, the pool sees
    /// nothing beyond `width` and `height`, and half as many rows of half as many pixels (both rounded up)
    /// are written.
    ///
    /// # Panics
    /// When a row is too short, or `out` has no room for rows of [`StripConv::row_length`].
    pub(crate) fn apply(
        &self,
        rows: &[&[f32]; UNDER],
        (width, height): (usize, usize),
        scratch: &mut StripScratch,
        out: StripOut<'_>,
    ) {
        assert!(width > 0 && (1..=STRIP).contains(&height));
        let length = (width + 2) * self.inputs;
        assert!(rows.iter().all(|row| row.is_empty() || row.len() >= length));
        let (out_width, out_height) =
            if out.pool { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) };
        assert!(out.values.len() >= (out_height - 1) * out.pitch + self.row_length(out_width));

        let tiles = width.div_ceil(STRIP);
        // Room for the last tile, and for reads of whole vectors beyond it.
        let columns = (tiles * STRIP + 2) * self.inputs + 2 * MOST_LANES;
        if scratch.columns.len() < UNDER * columns {
            scratch.columns.resize(UNDER * columns, 0.0);
        }
        if scratch.zeros.len() < length {
            scratch.zeros.resize(length, 0.0);
        }
        scratch.tiles.grow(PAIR * (TILE + MOST_BESIDE * HALF));
        let StripScratch { columns: transformed, zeros, tiles: pair } = scratch;
        let rows = rows.map(|row| if row.is_empty() { &zeros[..length] } else { &row[..length] });
        let strip = Strip {
            layer: self,
            rows,
            width,
            height,
            tiles,
            transformed: &mut transformed[..UNDER * columns],
            columns,
            pair,
            out,
        };
        // SAFETY: the sizes are checked above.
        simd::run(self.isa, unsafe { Vouched::new(strip) });
    }
}

/// A strip of a layer that is computed, with checked sizes.
struct Strip<'a> {
    layer: &'a StripConv,
    rows: [&'a [f32]; UNDER],
    width: usize,
    height: usize,
    tiles: usize,
    /// [`UNDER`] rows of `columns` numbers.
    transformed: &'a mut [f32],
    columns: usize,
    pair: &'a mut Buffer,
    out: StripOut<'a>,
}

impl RawKernel for Strip<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        // SAFETY: `apply` has checked the sizes.
        unsafe {
            self.downwards::<S>();
            if self.out.pool {
                self.across::<S, true>();
            } else {
                self.across::<S, false>();
            }
        }
    }
}

// Loops over parts of a tile run over the whole tile and skip the missing parts, so that the compiler can
// unroll them and keep the values in registers.
impl Strip<'_> {
    /// B' d for every column of numbers.
    ///
    /// # Safety
    /// As checked by [`StripConv::apply`]; the same holds for the other steps.
    #[inline(always)]
    unsafe fn downwards<S: Simd>(&mut self) {
        let length = self.rows[0].len();
        let to = self.transformed.as_mut_ptr();
        let mut at = 0;
        // SAFETY: vectors inside the rows, and of `columns` numbers, which are more.
        unsafe {
            while at + S::LANES <= length {
                self.down::<S>(self.rows.map(|row| row.as_ptr()), at, to.add(at));
                at += S::LANES;
            }
            let mut rest = [[0.0; MOST_LANES]; UNDER];
            for (rest, row) in rest.iter_mut().zip(self.rows) {
                rest[..length - at].copy_from_slice(&row[at..]);
            }
            self.down::<S>(rest.each_ref().map(|rest| rest.as_ptr()), 0, to.add(at));
        }
        for row in self.transformed.chunks_exact_mut(self.columns) {
            row[at + S::LANES..].fill(0.0);
        }
    }

    #[inline(always)]
    unsafe fn down<S: Simd>(&self, rows: [*const f32; UNDER], at: usize, to: *mut f32) {
        // SAFETY: the caller's: a vector at `at` of every row, and at `to` of every row there.
        unsafe {
            let mut column = [S::splat(0.0); UNDER];
            for y in 0..UNDER {
                column[y] = S::load(rows[y].add(at));
            }
            let column = <F4 as Scheme<6, 4>>::input::<S>(column);
            for y in 0..UNDER {
                S::store(to.add(y * self.columns), column[y]);
            }
        }
    }

    /// All tiles of the strip.
    #[inline(always)]
    unsafe fn across<S: Simd, const POOL: bool>(&mut self) {
        // SAFETY: the caller's.
        unsafe {
            if beside(S::LANES) == 1 {
                self.tiles::<S, 1, POOL>();
            } else {
                self.tiles::<S, MOST_BESIDE, POOL>();
            }
        }
    }

    #[inline(always)]
    unsafe fn tiles<S: Simd, const V: usize, const POOL: bool>(&mut self) {
        let mut tile = 0;
        // SAFETY: the caller's.
        unsafe {
            while tile + PAIR <= self.tiles {
                self.finish::<S, PAIR, V, POOL>(tile);
                tile += PAIR;
            }
            if tile < self.tiles {
                self.finish::<S, 1, V, POOL>(tile);
            }
        }
    }

    /// The outputs of `T` tiles from `tile` on, `V` vectors at a time.
    #[inline(always)]
    unsafe fn finish<S: Simd, const T: usize, const V: usize, const POOL: bool>(&mut self, tile: usize) {
        let inputs = self.layer.inputs;
        let pair = self.pair.as_mut_ptr();
        // SAFETY: whole vectors of the transformed rows, which have slack, and of the pair, where
        // every point has room for them; as many weights as `StripConv::new` has made.
        unsafe {
            let zero = S::splat(0.0);
            for t in 0..T {
                let from = self.transformed.as_ptr().add((tile + t) * STRIP * inputs);
                let to = pair.add(t * TILE);
                for input in (0..inputs).step_by(S::LANES) {
                    for row in 0..UNDER {
                        let from = from.add(row * self.columns + input);
                        let mut pixels = [zero; UNDER];
                        for x in 0..UNDER {
                            pixels[x] = S::load(from.add(x * inputs));
                        }
                        let points = <F4 as Scheme<6, 4>>::input::<S>(pixels);
                        for column in 0..UNDER {
                            S::store(to.add((column * UNDER + row) * MOST_INPUTS + input), points[column]);
                        }
                    }
                }
            }
            let half = pair.add(PAIR * TILE);
            // In descending order: a store that reaches into the next pixel is overwritten later.
            for block in (0..self.layer.bias.len() / (V * S::LANES)).rev() {
                let first = block * V * S::LANES;
                let mut weights = self.layer.weights.as_ptr().add(first * UNDER * UNDER * inputs);
                for column in 0..UNDER {
                    let mut points = [[[zero; UNDER]; V]; T];
                    for part in 0..V {
                        let rows = UNDER / V;
                        let mut sums = [[[zero; UNDER]; V]; T];
                        if (column, part) == (BIAS_POINT, 0) {
                            for v in 0..V {
                                let bias = S::load(self.layer.bias.as_ptr().add(first + v * S::LANES));
                                for t in 0..T {
                                    sums[t][v][BIAS_POINT] = bias;
                                }
                            }
                        }
                        let mut from = pair.add((column * UNDER + part * rows) * MOST_INPUTS).cast_const();
                        for _ in 0..inputs {
                            for row in 0..rows {
                                let mut values = [zero; T];
                                for t in 0..T {
                                    values[t] = S::splat(*from.add(t * TILE + row * MOST_INPUTS));
                                }
                                for v in 0..V {
                                    let weight = S::load(weights.add((row * V + v) * S::LANES));
                                    for t in 0..T {
                                        sums[t][v][row] = S::fma(values[t], weight, sums[t][v][row]);
                                    }
                                }
                            }
                            weights = weights.add(rows * V * S::LANES);
                            from = from.add(1);
                        }
                        for t in 0..T {
                            for v in 0..V {
                                for row in 0..rows {
                                    points[t][v][part * rows + row] = sums[t][v][row];
                                }
                            }
                        }
                    }
                    for t in 0..T {
                        for v in 0..V {
                            let values = <F4 as Scheme<6, 4>>::output::<S>(points[t][v]);
                            let half = half.add((t * V + v) * HALF + column * S::LANES);
                            for y in 0..STRIP {
                                S::store(half.add(y * UNDER * S::LANES), values[y]);
                            }
                        }
                    }
                }
                for v in (0..V).rev() {
                    let channel = first + v * S::LANES;
                    if channel < self.layer.outputs {
                        for t in 0..T {
                            self.write::<S, POOL>(tile + t, channel, half.add((t * V + v) * HALF));
                        }
                    }
                }
            }
        }
    }

    /// Finishes a vector of channels of a tile that is transformed back downwards,
    /// `[row][column]`, each a vector.
    #[inline(always)]
    unsafe fn write<S: Simd, const POOL: bool>(&mut self, tile: usize, channel: usize, half: *const f32) {
        let (columns, rows) = (self.width - tile * STRIP, self.height);
        let slopes = self.layer.slopes[channel..].as_ptr();
        let (outputs, pitch) = (self.layer.outputs, self.out.pitch);
        // SAFETY: pixels of the output, which has slack behind every row.
        unsafe {
            let to = self.out.values.as_mut_ptr().add(channel);
            if !POOL {
                for y in 0..STRIP {
                    if y < rows {
                        let values = self.row::<S>(half.add(y * UNDER * S::LANES), slopes);
                        let to = to.add(y * pitch + tile * STRIP * outputs);
                        for x in 0..STRIP {
                            if x < columns {
                                S::store(to.add(x * outputs), values[x]);
                            }
                        }
                    }
                }
                return;
            }
            for y in [0, 2] {
                if y < rows {
                    let mut values = self.row::<S>(half.add(y * UNDER * S::LANES), slopes);
                    if y + 1 < rows {
                        let below = self.row::<S>(half.add((y + 1) * UNDER * S::LANES), slopes);
                        for x in 0..STRIP {
                            values[x] = S::max(values[x], below[x]);
                        }
                    }
                    let to = to.add(y / 2 * pitch + tile * STRIP / 2 * outputs);
                    for x in [0, 2] {
                        if x + 1 < columns {
                            S::store(to.add(x / 2 * outputs), S::max(values[x], values[x + 1]));
                        } else if x < columns {
                            S::store(to.add(x / 2 * outputs), values[x]);
                        }
                    }
                }
            }
        }
    }

    /// A row of a tile, transformed back and activated.
    #[inline(always)]
    unsafe fn row<S: Simd>(&self, half: *const f32, slopes: *const f32) -> [S::V; STRIP] {
        // SAFETY: a row of vectors, and a vector of slopes, that are there.
        unsafe {
            let (zero, slopes) = (S::splat(0.0), S::load(slopes));
            let mut columns = [zero; UNDER];
            for x in 0..UNDER {
                columns[x] = S::load(half.add(x * S::LANES));
            }
            let mut values = <F4 as Scheme<6, 4>>::output::<S>(columns);
            for x in 0..STRIP {
                let y = values[x];
                values[x] = S::fma(slopes, S::min(y, zero), S::max(y, zero));
            }
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn noise(length: usize, seed: u64) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..length).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn strips_of_every_size_are_the_convolution_and_its_pool() {
        for isa in Isa::available() {
            for (inputs, outputs) in [(3, 10), (3, 28), (10, 16), (1, 5), (16, 33)] {
                let weight = noise(outputs * inputs * 9, 1);
                let (bias, slopes) = (noise(outputs, 2), noise(outputs, 3));
                let layer = StripConv::new(isa, &weight, &bias, &slopes, inputs);
                let mut scratch = StripScratch::default();
                // Widths descend, so that what an earlier strip left behind would show.
                for (width, height, absent) in (1..=19)
                    .rev()
                    .zip([1, 2, 3, 4].into_iter().cycle())
                    .map(|(width, height)| (width, height, [0, 1, 3][width % 3].min(STRIP - height)))
                {
                    let rows: Vec<_> = (0..UNDER)
                        .map(|y| {
                            if y < UNDER - absent {
                                noise((width + 2) * inputs, 9 + y as u64)
                            } else {
                                vec![]
                            }
                        })
                        .collect();
                    let rows: [&[f32]; UNDER] = std::array::from_fn(|y| &rows[y][..]);
                    let one = |output: usize, y: usize, x: usize| {
                        let mut sum = f64::from(bias[output]);
                        for (i, &g) in weight[output * inputs * 9..][..inputs * 9].iter().enumerate() {
                            let (input, row, column) = (i / 9, y + i % 9 / 3, x + i % 3);
                            let value = rows[row].get(column * inputs + input).copied().unwrap_or(0.0);
                            sum += f64::from(g) * f64::from(value);
                        }
                        (if sum > 0.0 { sum } else { f64::from(slopes[output]) * sum }) as f32
                    };
                    for pool in [false, true] {
                        let step = if pool { 2 } else { 1 };
                        let (out_width, out_height) = (width.div_ceil(step), height.div_ceil(step));
                        let pitch = layer.row_length(out_width);
                        let mut values = vec![f32::NAN; out_height * pitch];
                        let out = StripOut { values: &mut values, pitch, pool };
                        layer.apply(&rows, (width, height), &mut scratch, out);
                        for (y, x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                            for output in 0..outputs {
                                let mut expected = f32::NEG_INFINITY;
                                for row in y * step..((y + 1) * step).min(height) {
                                    for column in x * step..((x + 1) * step).min(width) {
                                        expected = expected.max(one(output, row, column));
                                    }
                                }
                                let ours = values[y * pitch + x * outputs + output];
                                assert!(
                                    (ours - expected).abs() < 1e-4,
                                    "{isa}, {inputs} -> {outputs}, {width}x{height}, {pool}: {ours}, not {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
