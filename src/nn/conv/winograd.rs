//! 3x3 convolutions by Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016).
//!
//! A tile of input pixels is transformed, multiplied with transformed weights in one matrix
//! product for each of its points, and transformed back into a tile of output pixels:
//! Y = A' [(G g G') . (B' d B)] A.

mod gradient;
mod halving;

use std::array;
use std::ops::Range;

use half::bf16;

use super::product::{Finish, MOST_ROWS, Pair, Product, Weight};
use super::{Activation, Map, Shared, padded, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::Team;

use halving::Halving;

pub(crate) use gradient::{Direction, GradientMemory};

/// A 3x3 convolution of padding 1.
#[derive(Debug)]
pub(crate) struct Winograd {
    isa: Isa,
    output_tile: usize,
    /// 1 or, with tiles of 2, 2.
    stride: usize,
    weights: Weights,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

#[derive(Debug)]
enum Weights {
    /// Transformed, `[point][panel][depth of the point][PANEL]`.
    Full(Buffer),
    /// The same in pairs of bfloat16, as the transformed inputs are then.
    Pairs(Buffer),
}

/// Memory of one thread for transformed tiles.
#[derive(Debug, Default)]
pub(crate) struct Tiles {
    input: Buffer,
    output: Buffer,
}

impl Tiles {
    /// Makes room for [`Winograd::apply`] of any of `layers`.
    pub(crate) fn grow<'a>(&mut self, layers: impl Iterator<Item = &'a Winograd>) {
        for layer in layers {
            self.input.grow(layer.points() * (layer.block() * layer.most_depth() + SKEW));
            self.output.grow(layer.points() * (layer.block() * layer.outputs + SKEW));
        }
    }
}

/// Numbers of transformed tiles in a block, so that input and output stay in a second-level cache,
/// unless that makes less than [`BLOCK_TILES`].
const BLOCK_NUMBERS: usize = 1 << 16;

/// Tiles in a block of many channels: the weights, which are far more than the tiles then, have to
/// be of use for several groups of them on each way through the cache.
const BLOCK_TILES: usize = 48;

/// Numbers between the points of transformed tiles beyond what they need: without them the
/// points would fall into the same few sets of the cache.
const SKEW: usize = 16;

/// F(m x m, 3x3) for tiles of `OUT` = m output pixels across and `IN` = m + 2 input pixels.
pub(super) trait Scheme<const IN: usize, const OUT: usize> {
    /// G
    const WEIGHTS: [[f64; 3]; IN];
    /// B' d
    unsafe fn input<S: Simd>(d: [S::V; IN]) -> [S::V; IN];
    /// A' m
    unsafe fn output<S: Simd>(m: [S::V; IN]) -> [S::V; OUT];
}

/// F(2x2, 3x3)
struct F2;

impl Scheme<4, 2> for F2 {
    const WEIGHTS: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: see `Simd`.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
        // SAFETY: see `Simd`.
        unsafe { [S::add(a, S::add(b, c)), S::sub(S::sub(b, c), d)] }
    }
}

/// F(3x3, 3x3) at the points 0, 1, -1, 2 and infinity.
struct F3;

impl Scheme<5, 3> for F3 {
    const WEIGHTS: [[f64; 3]; 5] = [
        [1. / 2., 0., 0.],
        [-1. / 2., -1. / 2., -1. / 2.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 6., 1. / 3., 2. / 3.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d, e]: [S::V; 5]) -> [S::V; 5] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, minus_two] = [2.0, -2.0].map(|x| S::splat(x));
            let (db, dc) = (S::sub(d, b), S::sub(d, c));
            [
                S::fma(two, S::sub(a, c), db),
                S::fma(minus_two, b, dc),
                S::fma(two, S::sub(b, c), dc),
                db,
                S::fma(minus_two, db, S::sub(e, c)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4]: [S::V; 5]) -> [S::V; 3] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four] = [2.0, 4.0].map(|x| S::splat(x));
            let (sum, difference) = (S::add(m1, m2), S::sub(m1, m2));
            [S::add(S::add(m0, sum), m3), S::fma(two, m3, difference), S::fma(four, m3, S::add(sum, m4))]
        }
    }
}

/// F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity.
pub(super) struct F4;

impl Scheme<6, 4> for F4 {
    const WEIGHTS: [[f64; 3]; 6] = [
        [1. / 4., 0., 0.],
        [-1. / 6., -1. / 6., -1. / 6.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 24., 1. / 12., 1. / 6.],
        [1. / 24., -1. / 12., 1. / 6.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    unsafe fn input<S: Simd>([d0, d1, d2, d3, d4, d5]: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, minus4, four, minus5] = [2.0, -4.0, 4.0, -5.0].map(|x| S::splat(x));
            let even = S::fma(minus4, d2, d4); // d4 - 4 d2
            let odd = S::fma(minus4, d1, d3); // d3 - 4 d1
            let near = S::sub(d4, d2);
            let far = S::mul(two, S::sub(d3, d1));
            [
                S::fma(four, d0, S::fma(minus5, d2, d4)),
                S::add(even, odd),
                S::sub(even, odd),
                S::add(near, far),
                S::sub(near, far),
                S::fma(four, d1, S::fma(minus5, d3, d5)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([m0, m1, m2, m3, m4, m5]: [S::V; 6]) -> [S::V; 4] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four, eight] = [2.0, 4.0, 8.0].map(|x| S::splat(x));
            let (sum1, difference1) = (S::add(m1, m2), S::sub(m1, m2));
            let (sum2, difference2) = (S::add(m3, m4), S::sub(m3, m4));
            [
                S::add(m0, S::add(sum1, sum2)),
                S::fma(two, difference2, difference1),
                S::fma(four, sum2, sum1),
                S::fma(eight, difference2, S::add(difference1, m5)),
            ]
        }
    }
}

impl Winograd {
    /// Tiles of `output_tile` x `output_tile` pixels, 2, 3 or 4; `weight` [out, in, 3, 3]. The
    /// maps that come in have [`padded`] channels.
    pub(crate) fn new(
        isa: Isa,
        output_tile: usize,
        weight: &[f32],
        inputs: usize,
        activation: Activation,
    ) -> Self {
        Self::of_maps(isa, output_tile, weight, inputs, padded(inputs, isa), activation)
    }

    /// The same for maps of `stored` channels, a multiple of the vector's length, of which the
    /// first `inputs` count.
    pub(crate) fn of_maps(
        isa: Isa,
        output_tile: usize,
        weight: &[f32],
        inputs: usize,
        stored: usize,
        activation: Activation,
    ) -> Self {
        assert!(stored >= inputs && stored.is_multiple_of(simd::lanes(isa)));
        let outputs = weight.len() / (9 * inputs);
        let weights = match output_tile {
            4 => transform::<F4, 6, 4>(isa, weight, [inputs, stored], outputs),
            3 => transform::<F3, 5, 3>(isa, weight, [inputs, stored], outputs),
            2 => transform::<F2, 4, 2>(isa, weight, [inputs, stored], outputs),
            _ => panic!("no scheme for tiles of {output_tile} pixels"),
        };
        let (weights, outputs) = (Weights::Full(weights), padded(outputs, isa));
        Self { isa, output_tile, stride: 1, weights, inputs: stored, outputs, activation }
    }

    /// The same layer with its products in bfloat16, added up in f32: weights and transformed inputs
    /// are rounded to 8 bits. Tiles of 2 pixels lose least by that, as their points are -1, 0, 1 and
    /// infinity.
    pub(crate) fn in_bf16(mut self) -> Self {
        let Weights::Full(ready) = &self.weights else { panic!("a layer in f32") };
        let panel = simd::panel(self.isa);
        let mut weights = Buffer::new(ready.len() / 2);
        // A panel's depth is the number of stored channels, a multiple of its even width.
        let both = ready.chunks_exact(2 * panel);
        for (to, rows) in weights.chunks_exact_mut(panel).zip(both) {
            let (first, second) = rows.split_at(panel);
            for (to, (&first, &second)) in to.iter_mut().zip(first.iter().zip(second)) {
                *to = Pair([first, second].map(bf16::from_f32)).bits();
            }
        }
        self.weights = Weights::Pairs(weights);
        self
    }

    fn in_pairs(&self) -> bool {
        matches!(self.weights, Weights::Pairs(_))
    }

    /// Input channels in a number of a transformed tile.
    fn channels_a_number(&self) -> usize {
        1 + usize::from(self.in_pairs())
    }

    /// Runs `kernel` with the instructions that the layer wants.
    fn run<K: Kernel>(&self, kernel: K) {
        if self.in_pairs() {
            simd::run_pairs(self.isa, kernel);
        } else {
            simd::run(self.isa, kernel);
        }
    }

    /// Points along a side of a transformed tile.
    fn side(&self) -> usize {
        self.output_tile + 3 - self.stride
    }

    fn points(&self) -> usize {
        self.side() * self.side()
    }

    /// Numbers of a transformed tile at a point.
    fn depth(&self, point: usize) -> usize {
        let runs = if self.stride == 1 { 1 } else { Halving::runs(point) };
        runs * self.inputs / self.channels_a_number()
    }

    /// The most there are at any point.
    fn most_depth(&self) -> usize {
        self.depth(0)
    }

    /// Most tiles in one block.
    fn block(&self) -> usize {
        let fit = BLOCK_NUMBERS / self.points() / self.most_depth().max(self.outputs);
        fit.max(BLOCK_TILES).next_multiple_of(12)
    }

    /// Applies the layer to `maps` maps laid out as `from`, writing maps laid out as `to`.
    /// With `residual`, what `output` holds before is added after the activation.
    ///
    /// # Panics
    /// When the buffers are too small, or the maps do not fit each other or the layer.
    pub(crate) fn apply(
        &self,
        team: &mut Team,
        tiles: &mut [Tiles],
        maps: usize,
        (from, input): (Map, &[f32]),
        (to, output): (Map, &mut [f32]),
        residual: bool,
    ) {
        let down = to.height.div_ceil(self.output_tile);
        let across = to.width.div_ceil(self.output_tile);
        assert_eq!((from.height, from.width), (self.stride * to.height, self.stride * to.width));
        assert_eq!((from.channels, to.channels), (self.inputs, self.outputs));
        let reach = |tiles: usize| self.stride * tiles * self.output_tile + 3 - self.stride;
        assert!(from.rows >= reach(down) && from.columns >= reach(across));
        assert!(input.len() >= maps * from.len() && output.len() >= maps * to.len());
        assert!(tiles.len() >= team.threads());
        for tiles in tiles.iter() {
            assert!(tiles.input.len() >= self.points() * (self.block() * self.most_depth() + SKEW));
            assert!(tiles.output.len() >= self.points() * (self.block() * self.outputs + SKEW));
        }
        let threads = team.threads();
        let total = maps * down * across;
        let memory: Vec<_> =
            tiles.iter_mut().map(|t| Shared((t.input.as_mut_ptr(), t.output.as_mut_ptr()))).collect();
        let step = |thread: usize, tiles: Range<usize>| {
            let (input_tiles, output_tiles) = memory[thread].get();
            Step { layer: self, input, from, to, residual, down, across, input_tiles, output_tiles, tiles }
        };
        let output = Shared(output.as_mut_ptr());
        let panels = self.outputs / simd::panel(self.isa);
        let blocks = total.div_ceil(self.block());
        if threads == 1 || blocks >= 2 * threads {
            team.run(blocks, &|thread, block| {
                let all = share(total, block, blocks);
                let tiles = 0..all.len();
                self.run(Transform(step(thread, all.clone()), tiles.clone()));
                self.run(Multiply(step(thread, all.clone()), 0..self.points(), 0..panels));
                self.run(Restore(step(thread, all), tiles, output.get()));
            });
        } else {
            for block in 0..blocks {
                let all = share(total, block, blocks);
                let parts = all.len().min(4 * threads);
                let tiles = |part| share(all.len(), part, parts);
                team.run(parts, &|_, part| {
                    self.run(Transform(step(0, all.clone()), tiles(part)));
                });
                team.run(self.points(), &|_, point| {
                    self.run(Multiply(step(0, all.clone()), point..point + 1, 0..panels));
                });
                team.run(parts, &|_, part| {
                    self.run(Restore(step(0, all.clone()), tiles(part), output.get()));
                });
            }
        }
    }
}

/// One point of G g G' for a 3x3 kernel.
pub(super) fn point<W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(
    kernel: &[f32],
    row: usize,
    column: usize,
) -> f32 {
    let mut sum = 0.0;
    for (values, left) in kernel.chunks_exact(3).zip(W::WEIGHTS[row]) {
        for (&value, right) in values.iter().zip(W::WEIGHTS[column]) {
            sum += left * right * f64::from(value);
        }
    }
    sum as f32
}

/// Weights `[point][panel][input][PANEL]`: G g G' for every pair of channels.
fn transform<W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(
    isa: Isa,
    weight: &[f32],
    [inputs, stored]: [usize; 2],
    outputs: usize,
) -> Buffer {
    let (panel, size) = (simd::panel(isa), stored * padded(outputs, isa));
    let mut all = Buffer::new(IN * IN * size);
    for first in (0..outputs).step_by(KERNELS) {
        let lanes = KERNELS.min(outputs - first);
        for input in 0..inputs {
            let mut kernels = [[0.0; KERNELS]; 9];
            for lane in 0..lanes {
                let kernel = &weight[((first + lane) * inputs + input) * 9..][..9];
                kernels.iter_mut().zip(kernel).for_each(|(tap, &value)| tap[lane] = f64::from(value));
            }
            let place = first / panel * stored * panel + input * panel + first % panel;
            for (row, left) in W::WEIGHTS.iter().enumerate() {
                let columns: [[f64; KERNELS]; 3] =
                    array::from_fn(|x| weighted(left, array::from_fn(|y| &kernels[3 * y + x])));
                for (column, right) in W::WEIGHTS.iter().enumerate() {
                    let values = weighted(right, columns.each_ref());
                    let to = &mut all[(row * IN + column) * size + place..][..lanes];
                    to.iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
                }
            }
        }
    }
    all
}

/// Kernels that are transformed together; divides the width of any panel.
const KERNELS: usize = 8;

/// The sum of three lists by their weights.
fn weighted(weights: &[f64; 3], lists: [&[f64; KERNELS]; 3]) -> [f64; KERNELS] {
    array::from_fn(|i| weights[0] * lists[0][i] + weights[1] * lists[1][i] + weights[2] * lists[2][i])
}

/// A block of tiles on its way through a layer.
struct Step<'a> {
    layer: &'a Winograd,
    input: &'a [f32],
    from: Map,
    to: Map,
    residual: bool,
    down: usize,
    across: usize,
    /// `[point][tile][depth of the point]`, points `SKEW` further apart than the deepest needs.
    input_tiles: *mut f32,
    /// `[point][tile][output]`, likewise.
    output_tiles: *mut f32,
    /// The tiles of the block, counted over all maps.
    tiles: Range<usize>,
}

/// Transforms some tiles (counted within the block) of the input.
struct Transform<'a>(Step<'a>, Range<usize>);

/// Multiplies the transformed input with the weights at some points, for some panels.
struct Multiply<'a>(Step<'a>, Range<usize>, Range<usize>);

/// Transforms some tiles back and finishes them into the output maps.
struct Restore<'a>(Step<'a>, Range<usize>, *mut f32);

impl Kernel for Transform<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, tiles) = self;
        // SAFETY: `apply` has checked all sizes and lets no two threads write the same part.
        unsafe {
            match step.layer.weights {
                Weights::Pairs(_) => step.any_input::<S, Pair>(tiles),
                Weights::Full(_) => step.any_input::<S, f32>(tiles),
            }
        }
    }
}

impl Kernel for Multiply<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, points, panels) = self;
        // SAFETY: as above.
        unsafe {
            match &step.layer.weights {
                Weights::Full(weights) => step.product::<S, f32>(weights, points, panels),
                Weights::Pairs(weights) => step.product::<S, Pair>(weights, points, panels),
            }
        }
    }
}

impl Kernel for Restore<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, tiles, output) = self;
        // SAFETY: as above.
        unsafe {
            match (step.layer.stride, step.layer.output_tile) {
                (1, 4) => step.output::<S, F4, 6, 4>(tiles, output),
                (1, 3) => step.output::<S, F3, 5, 3>(tiles, output),
                (1, _) => step.output::<S, F2, 4, 2>(tiles, output),
                _ => step.output::<S, Halving, 3, 2>(tiles, output),
            }
        }
    }
}

impl Step<'_> {
    /// Map, and first row and column of a tile's output.
    fn place(&self, tile: usize, size: usize) -> (usize, usize, usize) {
        let tile = self.tiles.start + tile;
        let (map, tile) = (tile / (self.down * self.across), tile % (self.down * self.across));
        (map, tile / self.across * size, tile % self.across * size)
    }

    fn input_point(&self) -> usize {
        self.tiles.len() * self.layer.most_depth() + SKEW
    }

    fn output_point(&self) -> usize {
        self.tiles.len() * self.layer.outputs + SKEW
    }

    /// # Safety
    /// As checked by [`Winograd::apply`]; the same holds for the other phases.
    #[inline(always)]
    unsafe fn any_input<S: Simd, N: Number>(&self, tiles: Range<usize>) {
        // SAFETY: the caller's.
        unsafe {
            match (self.layer.stride, self.layer.output_tile) {
                (1, 4) => self.input::<S, N, F4, 6, 4>(tiles),
                (1, 3) => self.input::<S, N, F3, 5, 3>(tiles),
                (1, _) => self.input::<S, N, F2, 4, 2>(tiles),
                _ => self.halved_input::<S, N>(tiles),
            }
        }
    }

    #[inline(always)]
    unsafe fn input<S: Simd, N: Number, W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        tiles: Range<usize>,
    ) {
        let channels = self.layer.inputs;
        let point = self.input_point();
        let pitch = self.from.pitch();
        for tile in tiles {
            let (map, y, x) = self.place(tile, OUT);
            // The tile starts one pixel up and left of its output: at (y, x) with the border.
            let corner = map * self.from.len() + (self.from.at(y, x) - self.from.at(0, 0));
            let corner = self.input[corner..].as_ptr();
            // SAFETY: the maps hold whole tiles with their border, the block `tiles` tiles.
            unsafe {
                let to = self.input_tiles.add(tile * channels / N::CHANNELS);
                for c in (0..channels).step_by(S::LANES) {
                    let zero = S::splat(0.0);
                    let mut half = [[zero; IN]; IN];
                    for x in 0..IN {
                        let mut column = [zero; IN];
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::load(corner.add(y * pitch + x * channels + c));
                        }
                        let column = W::input::<S>(column);
                        for y in 0..IN {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, row) in half.into_iter().enumerate() {
                        for (x, value) in W::input::<S>(row).into_iter().enumerate() {
                            N::store::<S>(to.add((y * IN + x) * point + c / N::CHANNELS), value);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn product<S: Simd, N: Number>(
        &self,
        weights: &[f32],
        points: Range<usize>,
        panels: Range<usize>,
    ) {
        let outputs = self.layer.outputs;
        let groups = self.tiles.len().div_ceil(S::ROWS);
        for point in points {
            let depth = self.layer.depth(point);
            let before: usize = (0..point).map(|point| self.layer.depth(point)).sum();
            let weights = &weights[before * outputs..];
            // SAFETY: as many points are there.
            let (left, to) = unsafe {
                (
                    self.input_tiles.add(point * self.input_point()).cast_const(),
                    self.output_tiles.add(point * self.output_point()),
                )
            };
            for p in panels.clone() {
                let panel = weights[p * S::PANEL * depth..].as_ptr();
                for group in 0..groups {
                    let first = group * S::ROWS;
                    let count = S::ROWS.min(self.tiles.len() - first);
                    let mut rows = [left; MOST_ROWS];
                    for (i, row) in rows[..count].iter_mut().enumerate() {
                        // SAFETY: the block has that many tiles.
                        *row = unsafe { row.add((first + i) * depth) };
                    }
                    // SAFETY: the rows hold `depth` numbers, the panel as many steps, and the
                    // output a row for each of the tiles.
                    unsafe {
                        let to = to.add(first * outputs + p * S::PANEL);
                        let product = Product {
                            rows,
                            runs: &[0],
                            length: depth,
                            panel: panel.cast::<N>(),
                            ahead: panel.wrapping_add(depth * (S::PANEL + group * S::PANEL / groups)),
                            ahead_step: S::PANEL / groups,
                            finish: Store { to, stride: outputs },
                        };
                        S::tile(count, product);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd, W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        tiles: Range<usize>,
        output: *mut f32,
    ) {
        let channels = self.layer.outputs;
        let point = self.output_point();
        let activation = self.layer.activation.at(0);
        for tile in tiles {
            let (map, y, x) = self.place(tile, OUT);
            let (rows, columns) = (OUT.min(self.to.height - y), OUT.min(self.to.width - x));
            // SAFETY: the block holds `tiles` tiles; the pixels lie within the map.
            unsafe {
                let from = self.output_tiles.add(tile * channels).cast_const();
                let to = output.add(map * self.to.len() + self.to.at(y, x));
                for c in (0..channels).step_by(S::LANES) {
                    let zero = S::splat(0.0);
                    let mut half = [[zero; IN]; OUT];
                    for x in 0..IN {
                        let mut column = [zero; IN];
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::load(from.add((y * IN + x) * point + c));
                        }
                        let column = W::output::<S>(column);
                        for y in 0..OUT {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, row) in half.into_iter().enumerate().take(rows) {
                        for (x, value) in W::output::<S>(row).into_iter().enumerate().take(columns) {
                            let pixel = to.add(y * self.to.pitch() + x * channels + c);
                            let mut value = activation.apply::<S>(c, value);
                            if self.residual {
                                value = S::add(value, S::load(pixel));
                            }
                            S::store(pixel, value);
                        }
                    }
                }
            }
        }
    }
}

/// What the numbers of transformed tiles are: channels or pairs of them.
trait Number: Weight {
    /// Channels in a number.
    const CHANNELS: usize;

    /// Stores a vector of channels.
    ///
    /// # Safety
    /// There must be room; see [`Simd`].
    unsafe fn store<S: Simd>(to: *mut f32, v: S::V);
}

impl Number for f32 {
    const CHANNELS: usize = 1;

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, v: S::V) {
        // SAFETY: the caller's.
        unsafe { S::store(to, v) }
    }
}

impl Number for Pair {
    const CHANNELS: usize = 2;

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, v: S::V) {
        // SAFETY: the caller's.
        unsafe { S::store_pairs(to, v) }
    }
}

/// Stores sums.
struct Store {
    to: *mut f32,
    stride: usize,
}

impl Finish for Store {
    /// # Safety
    /// A panel of numbers must be writable for every row.
    #[inline(always)]
    unsafe fn take<S: Simd>(&self, row: usize, vector: usize, sum: S::V) {
        // SAFETY: the caller's.
        unsafe { S::store(self.to.add(row * self.stride + vector * S::LANES), sum) }
    }
}
