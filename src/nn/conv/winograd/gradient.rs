//! Training with Winograd's filtering: weights that change, and the gradient with respect to them.
//!
//! The layer is Y = A' [(G g G') . (B' d B)] A over tiles d. It is linear in g, so the gradient with respect
//! to g is the transpose of the same steps: G' [sum over tiles of (B' d B) . (A dY A')] G, where the product
//! of points is an outer product of channels.

use std::ops::Range;

use super::super::outer::{Outer, outer_products};
use super::super::{Activation, Map, SharedPointer, share};
use super::scheme::{F2, F4, Scheme};
use super::weights::MOST_PANEL;
use super::{SKEW, Step, Weights, Winograd};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

/// How a layer reads a weight [out, in, 3, 3].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// For the convolution itself.
    Forward,
    /// For the convolution from the gradient with respect to the output to that with respect to the input:
    /// channels exchanged, kernels rotated by half a turn.
    Backward,
}

impl Winograd {
    /// A layer for [`Winograd::refresh`] to fill, of `inputs` and `outputs` padded channels and
    /// tiles of 2 x 2 or 4 x 4.
    ///
    /// # Panics
    /// For other tiles, or channels that are not whole panels.
    pub(crate) fn empty(isa: Isa, tile: usize, inputs: usize, outputs: usize) -> Self {
        assert!(SQUARES.contains(&[tile; 2]), "a trained layer of tiles {tile}");
        assert!([inputs, outputs].iter().all(|channels| channels.is_multiple_of(simd::panel(isa))));
        let points = (tile + 2) * (tile + 2);
        Self {
            isa,
            tile: [tile; 2],
            stride: 1,
            weights: Weights::Full(Buffer::new(points * inputs * outputs)),
            inputs,
            outputs,
            run: inputs,
            activation: Activation::new(&[], None, outputs),
        }
    }

    /// Replaces the weights by those of `weight` [`outputs`, `inputs`, 3, 3] (which the layer's own sizes
    /// must fit), and the epilogue of the layer.
    ///
    /// # Panics
    /// When the sizes do not fit.
    pub(crate) fn refresh(
        &mut self,
        team: &mut Team,
        weight: &[f32],
        (outputs, inputs): (usize, usize),
        direction: Direction,
        activation: Activation,
    ) {
        assert_eq!(weight.len(), outputs * inputs * 9);
        let (depth, lanes, steps) = match direction {
            Direction::Forward => (inputs, outputs, (9, 9 * inputs)),
            Direction::Backward => (outputs, inputs, (9 * inputs, 9)),
        };
        assert!(depth <= self.inputs && lanes <= self.outputs);
        assert!(activation.len() >= self.outputs);
        assert!(SQUARES.contains(&self.tile) && self.stride == 1, "a layer for training");
        self.activation = activation;
        let (isa, tile) = (self.isa, self.tile);
        let panels = self.outputs / simd::panel(isa);
        let (padded_depth, padded_lanes) = (self.inputs, self.outputs);
        let points = self.points();
        let Weights::Full(weights) = &mut self.weights else { panic!("a layer in f32") };
        assert_eq!(weights.len(), points * padded_depth * padded_lanes);
        let to = SharedPointer(weights.as_mut_ptr());
        team.run(panels * depth.div_ceil(DEPTH_BLOCK), &|_, item| {
            let (panel, block) = (item % panels, item / panels);
            let depths = block * DEPTH_BLOCK..depth.min((block + 1) * DEPTH_BLOCK);
            let repack = Repack {
                weight,
                to: to.get(),
                panel,
                panels,
                depths,
                padded_depth,
                lanes,
                steps,
                turned: direction == Direction::Backward,
                tile,
            };
            // SAFETY: the sizes are checked above; no two items share a panel and depths.
            simd::run(isa, unsafe { Vouched::new(repack) });
        });
    }
}

/// The tiles of layers that are trained.
const SQUARES: [[usize; 2]; 2] = [[2; 2], [4; 2]];

/// Calls a generic method with the scheme for a square tile.
macro_rules! by_square {
    ($tile:expr, $call:ident$(.$method:ident)?::<S>($($argument:expr),*)) => {
        match $tile {
            [2, 2] => $call$(.$method)?::<S, F2, 4, 2>($($argument),*),
            [4, 4] => $call$(.$method)?::<S, F4, 6, 4>($($argument),*),
            tile => unreachable!("a trained layer of tiles {tile:?}"),
        }
    };
}

/// Input channels that one item of [`Winograd::refresh`] repacks.
const DEPTH_BLOCK: usize = 64;

/// One panel and some depths of [`Winograd::refresh`].
struct Repack<'a> {
    weight: &'a [f32],
    to: *mut f32,
    panel: usize,
    panels: usize,
    depths: Range<usize>,
    padded_depth: usize,
    lanes: usize,
    /// Numbers from one depth to the next, and from one lane to the next.
    steps: (usize, usize),
    turned: bool,
    tile: [usize; 2],
}

impl RawKernel for Repack<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `refresh` has checked the sizes; each item writes its own panel and depths.
        unsafe { by_square!(self.tile, self.transform::<S>()) }
    }
}

impl Repack<'_> {
    /// # Safety
    /// As checked by [`Winograd::refresh`].
    #[inline(always)]
    unsafe fn transform<S: Simd, W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(&self) {
        let first = self.panel * S::PANEL;
        let count = S::PANEL.min(self.lanes.saturating_sub(first));
        for depth in self.depths.clone() {
            let mut taps = [[0.0f32; MOST_PANEL]; 9];
            for lane in 0..count {
                let kernel = &self.weight[depth * self.steps.0 + (first + lane) * self.steps.1..][..9];
                for (t, &value) in kernel.iter().enumerate() {
                    taps[if self.turned { 8 - t } else { t }][lane] = value;
                }
            }
            for v in (0..S::PANEL).step_by(S::LANES) {
                // SAFETY: the taps hold a panel; the weights hold IN * IN points of `panels`
                // panels of `padded_depth` depths.
                unsafe {
                    let zero = S::splat(0.0);
                    let mut half = [[zero; 3]; IN];
                    for (row, left) in half.iter_mut().zip(W::WEIGHTS) {
                        for (x, value) in row.iter_mut().enumerate() {
                            for (y, left) in left.iter().enumerate() {
                                *value = S::fma(
                                    S::splat(*left as f32),
                                    S::load(taps[3 * y + x][v..].as_ptr()),
                                    *value,
                                );
                            }
                        }
                    }
                    for (y, row) in half.iter().enumerate() {
                        for (x, right) in W::WEIGHTS.iter().enumerate() {
                            let mut value = zero;
                            for (half, right) in row.iter().zip(right) {
                                value = S::fma(S::splat(*right as f32), *half, value);
                            }
                            let place = ((y * IN + x) * self.panels + self.panel) * self.padded_depth + depth;
                            S::store(self.to.add(place * S::PANEL + v), value);
                        }
                    }
                }
            }
        }
    }
}

/// The transposed steps of [`Scheme`].
trait Transposed<const IN: usize, const OUT: usize>: Scheme<IN, OUT> {
    /// A d
    unsafe fn spread<S: Simd>(d: [S::V; OUT]) -> [S::V; IN];
}

impl Transposed<4, 2> for F2 {
    #[inline(always)]
    unsafe fn spread<S: Simd>([a, b]: [S::V; 2]) -> [S::V; 4] {
        // SAFETY: see `Simd`.
        unsafe { [a, S::add(a, b), S::sub(a, b), S::sub(S::splat(0.0), b)] }
    }
}

impl Transposed<6, 4> for F4 {
    #[inline(always)]
    unsafe fn spread<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 6] {
        // SAFETY: see `Simd`.
        unsafe {
            let [two, four] = [2.0, 4.0].map(|x| S::splat(x));
            let (even, odd) = (S::add(a, c), S::add(b, d));
            let (even2, odd2) = (S::fma(four, c, a), S::mul(two, S::fma(four, d, b)));
            [a, S::add(even, odd), S::sub(even, odd), S::add(even2, odd2), S::sub(even2, odd2), d]
        }
    }
}

/// Memory for gradients with respect to weights, shared by all layers of a network.
#[derive(Debug)]
pub(crate) struct GradientMemory {
    /// `[point][tile][channel]` of the input and of the gradient with respect to the output.
    input: Buffer,
    output: Buffer,
    /// `[point][in][out]`
    sums: Buffer,
}

/// The most values of transformed tiles of input and output in a block: enough tiles to sum over in
/// registers, and not much more than the caches hold.
const BLOCK_NUMBERS: usize = 1 << 20;

/// Tiles in a block of [`Winograd::add_weight_gradient`].
fn block(points: usize, channels: usize) -> usize {
    (BLOCK_NUMBERS / points / channels).max(32)
}

impl GradientMemory {
    /// Memory for layers of tiles of `tile` output pixels and up to `channels` padded channels,
    /// each a pair in the list.
    pub(crate) fn new(layers: &[(usize, usize)]) -> Self {
        let most = |of: &dyn Fn(usize, usize) -> usize| {
            layers.iter().map(|&(tile, channels)| of((tile + 2) * (tile + 2), channels)).max().unwrap_or(0)
        };
        let tiles = most(&|points, channels| points * (block(points, 2 * channels) * channels + SKEW));
        Self {
            input: Buffer::new(tiles),
            output: Buffer::new(tiles),
            sums: Buffer::new(most(&|points, channels| points * channels * channels)),
        }
    }
}

impl Winograd {
    /// Adds to `gradient` [`outputs`, `inputs`, 3, 3] the gradient with respect to the weights of this
    /// (forward) layer, given its `input` and the gradient `by_output` with respect to the output of `maps`
    /// maps of layout `map`.
    ///
    /// # Panics
    /// When the buffers are too small or the sizes do not fit.
    pub(crate) fn add_weight_gradient(
        &self,
        team: &mut Team,
        memory: &mut GradientMemory,
        maps: usize,
        map: Map,
        (input, by_output): (&[f32], &[f32]),
        (outputs, inputs): (usize, usize),
        gradient: &mut [f32],
    ) {
        assert_eq!((map.channels, map.channels), (self.inputs, self.outputs));
        assert!(input.len() >= maps * map.len() && by_output.len() >= maps * map.len());
        assert_eq!(gradient.len(), outputs * inputs * 9);
        assert!(inputs <= self.inputs && outputs <= self.outputs);
        assert!(SQUARES.contains(&self.tile) && self.stride == 1, "a layer for training");
        assert!(matches!(self.weights, Weights::Full(_)), "a layer in f32");
        let [down, across] = self.tiles_within(map, map);
        let (isa, points) = (self.isa, self.points());
        let total = maps * down * across;
        let blocks = total.div_ceil(block(points, self.inputs + self.outputs));
        let panels = self.outputs / simd::panel(isa);
        assert!(memory.sums.len() >= points * self.inputs * self.outputs);
        let (input_tiles, output_tiles) =
            (SharedPointer(memory.input.as_mut_ptr()), SharedPointer(memory.output.as_mut_ptr()));
        let sums = SharedPointer(memory.sums.as_mut_ptr());
        for number in 0..blocks {
            let tiles = share(total, number, blocks);
            assert!(memory.input.len() >= points * (tiles.len() * self.inputs + SKEW));
            assert!(memory.output.len() >= points * (tiles.len() * self.outputs + SKEW));
            let step = |values| Step {
                layer: self,
                input: values,
                from: map,
                to: map,
                residual: false,
                down,
                across,
                input_tiles: input_tiles.get(),
                output_tiles: output_tiles.get(),
                panel: std::ptr::null_mut(),
                tiles: tiles.clone(),
            };
            let parts = tiles.len().min(4 * team.threads());
            team.run(parts, &|_, part| {
                let part = share(tiles.len(), part, parts);
                // SAFETY: sizes are checked above; no two parts share a tile.
                unsafe {
                    simd::run(isa, Vouched::new(super::Transform(step(input), part.clone())));
                    simd::run(isa, Vouched::new(Spread(step(by_output), part)));
                }
            });
            let at: Vec<(usize, usize)> =
                (0..tiles.len()).map(|t| (t * self.inputs, t * self.outputs)).collect();
            team.run(points * panels, &|_, item| {
                let (point, panel) = (item / panels, item % panels);
                let sum = Sum { step: step(input), point, panel, at: &at, sums: sums.get(), add: number > 0 };
                // SAFETY: sizes are checked above; no two items share a point and panel.
                simd::run(isa, unsafe { Vouched::new(sum) });
            });
        }
        let gradient = SharedPointer(gradient.as_mut_ptr());
        let sums = &memory.sums[..];
        team.run(inputs, &|_, input| {
            let gather = Gather { layer: self, sums, input, outputs, inputs, gradient: gradient.get() };
            // SAFETY: sizes are checked above; no two items share an input.
            simd::run(isa, unsafe { Vouched::new(gather) });
        });
    }
}

/// Transforms some tiles (counted within the block) of the gradient with respect to the output.
struct Spread<'a>(Step<'a>, Range<usize>);

impl RawKernel for Spread<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, tiles) = self;
        // SAFETY: `add_weight_gradient` has checked all sizes; no two items share a tile.
        unsafe { by_square!(step.layer.tile, spread::<S>(&step, tiles)) }
    }
}

/// A dY A' of some tiles.
///
/// # Safety
/// As checked by [`Winograd::add_weight_gradient`].
#[inline(always)]
unsafe fn spread<S: Simd, W: Transposed<IN, OUT>, const IN: usize, const OUT: usize>(
    step: &Step<'_>,
    tiles: Range<usize>,
) {
    let channels = step.layer.outputs;
    let point = step.output_point();
    let pitch = step.from.pitch();
    for tile in tiles {
        let (map, y, x) = step.place(tile);
        // Beyond the map, up to whole tiles, there are zeros.
        let corner = step.input[map * step.from.len() + step.from.at(y, x)..].as_ptr();
        // SAFETY: the maps hold whole tiles, the block `tiles` tiles.
        unsafe {
            let to = step.output_tiles.add(tile * channels);
            for c in (0..channels).step_by(S::LANES) {
                let zero = S::splat(0.0);
                let mut half = [[zero; OUT]; IN];
                for x in 0..OUT {
                    let mut column = [zero; OUT];
                    for (y, value) in column.iter_mut().enumerate() {
                        *value = S::load(corner.add(y * pitch + x * channels + c));
                    }
                    let column = W::spread::<S>(column);
                    for y in 0..IN {
                        half[y][x] = column[y];
                    }
                }
                for (y, row) in half.into_iter().enumerate() {
                    for (x, value) in W::spread::<S>(row).into_iter().enumerate() {
                        S::store(to.add((y * IN + x) * point + c), value);
                    }
                }
            }
        }
    }
}

/// The outer products of one point and one panel, over the tiles of a block.
struct Sum<'a> {
    step: Step<'a>,
    point: usize,
    panel: usize,
    at: &'a [(usize, usize)],
    sums: *mut f32,
    add: bool,
}

impl RawKernel for Sum<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Winograd { inputs, outputs, .. } = *self.step.layer;
        // SAFETY: the block holds the tiles of every point, the sums every point; each item
        // writes its own point and panel.
        unsafe {
            let outer = Outer {
                a: self.step.input_tiles.add(self.point * self.step.input_point()),
                b: self.step.output_tiles.add(self.point * self.step.output_point()),
                at: self.at,
                to: self.sums.add(self.point * inputs * outputs),
                stride: outputs,
                add: self.add,
            };
            outer_products::<S>(&outer, inputs, self.panel..self.panel + 1);
        }
    }
}

/// G' S G of one input channel and all outputs, added to the gradient.
struct Gather<'a> {
    layer: &'a Winograd,
    sums: &'a [f32],
    input: usize,
    outputs: usize,
    inputs: usize,
    gradient: *mut f32,
}

impl RawKernel for Gather<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `add_weight_gradient` has checked all sizes; no two items share an input.
        unsafe { by_square!(self.layer.tile, self.gather::<S>()) }
    }
}

impl Gather<'_> {
    /// # Safety
    /// As checked by [`Winograd::add_weight_gradient`].
    #[inline(always)]
    unsafe fn gather<S: Simd, W: Scheme<IN, OUT>, const IN: usize, const OUT: usize>(&self) {
        let Winograd { inputs, outputs, .. } = *self.layer;
        for v in (0..self.outputs).step_by(S::LANES) {
            let mut taps = [[0.0f32; MOST_PANEL]; 9];
            // SAFETY: the sums hold IN * IN points of inputs x outputs, the outputs padded to
            // whole vectors; the gradient holds 9 numbers for each pair of channels.
            unsafe {
                let zero = S::splat(0.0);
                let mut half = [[zero; IN]; 3];
                for x in 0..IN {
                    for y in 0..IN {
                        let place = ((y * IN + x) * inputs + self.input) * outputs + v;
                        let value = S::load(self.sums[place..].as_ptr());
                        for (half, weight) in half.iter_mut().zip(W::WEIGHTS[y]) {
                            half[x] = S::fma(S::splat(weight as f32), value, half[x]);
                        }
                    }
                }
                for (y, row) in half.iter().enumerate() {
                    for x in 0..3 {
                        let mut value = zero;
                        for (half, weights) in row.iter().zip(W::WEIGHTS) {
                            value = S::fma(S::splat(weights[x] as f32), *half, value);
                        }
                        S::store(taps[3 * y + x].as_mut_ptr(), value);
                    }
                }
                for lane in 0..S::LANES.min(self.outputs - v) {
                    let to = self.gradient.add(((v + lane) * self.inputs + self.input) * 9);
                    for (tap, values) in taps.iter().enumerate() {
                        *to.add(tap) += values[lane];
                    }
                }
            }
        }
    }
}
