//! 3x3 convolutions by Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016).
//!
//! A tile of input pixels is transformed, multiplied with transformed weights in one matrix
//! product for each of its points, and transformed back into a tile of output pixels:
//! Y = A' [(G g G') . (B' d B)] A.

mod gradient;
mod halving;
mod scheme;
#[cfg(test)]
mod tests;
mod weights;

use std::ops::Range;

use super::product::{Finish, MOST_ROWS, Packed, Pair, Product, Weight};
use super::{Activation, Map, SharedPointer, padded, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, Kernel, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

use halving::Halving;
use scheme::{F2, F3, F5, F6};
use weights::{Filters, Weights};

pub(crate) use gradient::{Direction, GradientMemory};
pub(super) use scheme::{F4, Scheme};
pub(crate) use weights::Form;

/// A 3x3 convolution of padding 1.
#[derive(Debug)]
pub(crate) struct Winograd {
    isa: Isa,
    /// Rows and columns of outputs in a tile.
    tile: [usize; 2],
    /// 1 or, with tiles of 2 x 2, 2.
    stride: usize,
    weights: Weights,
    /// Channels of the maps that come in and go out.
    inputs: usize,
    outputs: usize,
    /// Values of a transformed tile without padding, per point and run (see [`Filters`]).
    run: usize,
    activation: Activation,
}

/// Memory of one thread for transformed tiles.
#[derive(Debug, Default)]
pub(crate) struct Tiles {
    input: Buffer,
    output: Buffer,
    /// A panel of weights that were packed.
    panel: Buffer,
}

impl Tiles {
    /// Whether there is room for [`Winograd::apply`] of a layer.
    fn fit(&self, layer: &Winograd) -> bool {
        let packed = matches!(layer.weights, Weights::Packed(..));
        self.input.len() >= layer.points() * (layer.block() * layer.most_pitch() + SKEW)
            && self.output.len() >= layer.points() * (layer.block() * layer.outputs + SKEW)
            && (!packed || self.panel.len() >= layer.panel_numbers())
    }

    fn pointers(&mut self) -> [*mut f32; 3] {
        [&mut self.input, &mut self.output, &mut self.panel].map(|buffer| buffer.as_mut_ptr())
    }

    /// Makes room for [`Winograd::apply`] of any of `layers`.
    pub(crate) fn grow<'a>(&mut self, layers: impl Iterator<Item = &'a Winograd>) {
        for layer in layers {
            self.input.grow(layer.points() * (layer.block() * layer.most_pitch() + SKEW));
            if matches!(layer.weights, Weights::Packed(..)) {
                self.panel.grow(layer.panel_numbers());
            }
            self.output.grow(layer.points() * (layer.block() * layer.outputs + SKEW));
        }
    }
}

/// Numbers of transformed tiles in a block, so that input and output stay in a second-level cache,
/// unless that makes less than [`BLOCK_TILES`].
const BLOCK_NUMBERS: usize = 1 << 16;

/// Tiles in a block of many channels. The weights are then much larger than the tiles, so each load of the
/// weights into the cache must serve several groups of tiles.
const BLOCK_TILES: usize = 48;

/// Runs of points per thread that shares a block, so that a thread that is interrupted can do less.
const RUNS: usize = 3;

/// Numbers between the points of transformed tiles beyond what they need: without them the
/// points would fall into the same few sets of the cache.
const SKEW: usize = 16;

/// Calls a generic method of a [`Step`] with the schemes for a layer's tiles: for the rows of a
/// tile, then for its columns.
macro_rules! by_tile {
    ($tile:expr, $step:ident.$method:ident::<$($first:ty),+>($($argument:expr),+)) => {
        match $tile {
            [2, 2] => $step.$method::<$($first,)+ F2, F2, 4, 2, 4, 2>($($argument),+),
            [3, 3] => $step.$method::<$($first,)+ F3, F3, 5, 3, 5, 3>($($argument),+),
            [4, 3] => $step.$method::<$($first,)+ F4, F3, 6, 4, 5, 3>($($argument),+),
            [4, 4] => $step.$method::<$($first,)+ F4, F4, 6, 4, 6, 4>($($argument),+),
            [4, 6] => $step.$method::<$($first,)+ F4, F6, 6, 4, 8, 6>($($argument),+),
            [5, 4] => $step.$method::<$($first,)+ F5, F4, 7, 5, 6, 4>($($argument),+),
            tile => unreachable!("a layer of tiles {tile:?}"),
        }
    };
}

impl Winograd {
    /// Tiles of `tile` rows and columns of pixels (see [`by_tile`]); `weight` [out, in, 3, 3]. The maps that
    /// come in have [`padded`] channels. [`Form::Pairs`] is for tiles of 2 x 2, which lose the least
    /// precision by it, since their points are -1, 0, 1 and infinity.
    pub(crate) fn new(
        isa: Isa,
        tile: [usize; 2],
        form: Form,
        weight: &[f32],
        inputs: usize,
        activation: Activation,
    ) -> Self {
        let outputs = weight.len() / (9 * inputs);
        Self::of_maps(isa, tile, form, weight, inputs, [inputs, outputs].map(|n| padded(n, isa)), activation)
    }

    /// The same for maps with padded channels. The input maps have a multiple of the vector's length, the
    /// output maps [`least_outputs`](Self::least_outputs) or more.
    pub(crate) fn of_maps(
        isa: Isa,
        tile: [usize; 2],
        form: Form,
        weight: &[f32],
        inputs: usize,
        [before, after]: [usize; 2],
        activation: Activation,
    ) -> Self {
        assert!(before >= inputs && before.is_multiple_of(simd::lanes(isa)));
        assert!(after >= weight.len() / (9 * inputs) && after == Self::least_outputs(after, isa));
        assert!(activation.len() >= after);
        let run = if form == Form::Pairs { before } else { inputs };
        let sides = tile.map(scheme::weights);
        let points = sides[0].len() * sides[1].len();
        let filters = Filters { sides, place: &|y, x| (y * sides[1].len() + x, 0), runs: &vec![1; points] };
        let weights = Weights::new(isa, form, weight, [inputs, run], after, &filters);
        Self { isa, tile, stride: 1, weights, inputs: before, outputs: after, run, activation }
    }

    /// The fewest channels of the output maps of a layer with that many outputs. (Other kinds of layers need
    /// [`padded`] ones.)
    pub(crate) fn least_outputs(outputs: usize, isa: Isa) -> usize {
        outputs.next_multiple_of((simd::panel(isa) / 2).max(weights::KERNELS))
    }

    /// Input channels in a number of a transformed tile.
    fn channels_a_number(&self) -> usize {
        1 + usize::from(matches!(self.weights, Weights::Pairs(_)))
    }

    /// Runs `kernel` with the instructions that the layer needs.
    fn run<K: Kernel>(&self, kernel: K) {
        match self.weights {
            Weights::Full(_) => simd::run(self.isa, kernel),
            Weights::Packed(..) => simd::run_packed(self.isa, kernel),
            Weights::Pairs(_) => simd::run_pairs(self.isa, kernel),
        }
    }

    /// The same for a phase of the layer.
    ///
    /// # Safety
    /// As [`Vouched::new`].
    unsafe fn run_raw<K: RawKernel>(&self, kernel: K) {
        // SAFETY: the caller's.
        self.run(unsafe { Vouched::new(kernel) });
    }

    /// The rows and columns of tiles on a map of outputs `to`.
    ///
    /// # Panics
    /// When they would reach out of the map `from` they are read from, its border included.
    fn tiles_within(&self, from: Map, to: Map) -> [usize; 2] {
        let [down, across] =
            [(to.height, self.tile[0]), (to.width, self.tile[1])].map(|(n, tile)| n.div_ceil(tile));
        let reach = |tiles: usize, size: usize| self.stride * tiles * size + 3 - self.stride;
        assert_eq!(from.border, 1);
        assert!(from.rows >= reach(down, self.tile[0]) && from.columns >= reach(across, self.tile[1]));
        [down, across]
    }

    /// Points of a transformed tile.
    fn points(&self) -> usize {
        self.tile.map(|outputs| outputs + 3 - self.stride).iter().product()
    }

    fn runs(&self, point: usize) -> usize {
        if self.stride == 1 { 1 } else { Halving::runs(point) }
    }

    /// Values of a transformed tile at a point, without padding.
    fn depth(&self, point: usize) -> usize {
        self.runs(point) * self.run / self.channels_a_number()
    }

    /// Numbers from one transformed tile to the next at a point.
    fn pitch(&self, point: usize) -> usize {
        self.runs(point) * self.inputs / self.channels_a_number()
    }

    /// The most there are at any point.
    fn most_pitch(&self) -> usize {
        self.pitch(0)
    }

    /// Numbers of the deepest panel of weights.
    fn panel_numbers(&self) -> usize {
        self.depth(0) * simd::panel(self.isa)
    }

    /// Most tiles in one block.
    fn block(&self) -> usize {
        let fit = BLOCK_NUMBERS / self.points() / self.most_pitch().max(self.outputs);
        fit.max(BLOCK_TILES).next_multiple_of(12)
    }

    /// Applies the layer to `maps` maps of layout `from` and writes maps of layout `to`. With `residual`, the
    /// previous contents of `output` are added after the activation.
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
        assert_eq!((from.height, from.width), (self.stride * to.height, self.stride * to.width));
        assert_eq!((from.channels, to.channels), (self.inputs, self.outputs));
        let [down, across] = self.tiles_within(from, to);
        assert!(input.len() >= maps * from.len() && output.len() >= maps * to.len());
        assert!(tiles.len() >= team.threads() && tiles.iter().all(|tiles| tiles.fit(self)));
        let threads = team.threads();
        let total = maps * down * across;
        let memory: Vec<_> = tiles.iter_mut().map(|tiles| SharedPointer(tiles.pointers())).collect();
        // Of the memory of one thread for the tiles, and of another for what it unpacks.
        let step = |tiles_of: usize, thread: usize, tiles: Range<usize>| {
            let [input_tiles, output_tiles, _] = memory[tiles_of].get();
            let [.., panel] = memory[thread].get();
            Step {
                layer: self,
                input,
                from,
                to,
                residual,
                down,
                across,
                input_tiles,
                output_tiles,
                panel,
                tiles,
            }
        };
        let output = SharedPointer(output.as_mut_ptr());
        let panels = self.outputs.div_ceil(simd::panel(self.isa));
        let blocks = total.div_ceil(self.block());
        if threads == 1 || blocks >= 2 * threads {
            team.run(blocks, &|thread, block| {
                let all = share(total, block, blocks);
                let step = || step(thread, thread, all.clone());
                // SAFETY: sizes are checked above; the memory is this thread's, and no other has
                // these tiles of the output.
                unsafe {
                    self.run_raw(Transform(step(), 0..all.len()));
                    self.run_raw(Multiply(step(), 0..self.points(), 0..panels));
                    self.run_raw(Restore(step(), 0..all.len(), output.get()));
                }
            });
        } else {
            for block in 0..blocks {
                let all = share(total, block, blocks);
                let parts = all.len().min(4 * threads);
                let tiles = |part| share(all.len(), part, parts);
                let step = |thread| step(0, thread, all.clone());
                team.run(parts, &|thread, part| {
                    // SAFETY: sizes are checked above; no two parts have a tile in common, here
                    // and below, nor two runs a point.
                    unsafe { self.run_raw(Transform(step(thread), tiles(part))) };
                });
                // Each thread takes consecutive points, whose weights are consecutive in memory.
                let runs = self.points().min(RUNS * threads);
                team.run(runs, &|thread, run| {
                    let points = share(self.points(), run, runs);
                    // SAFETY: as above; weights are unpacked into this thread's memory.
                    unsafe { self.run_raw(Multiply(step(thread), points, 0..panels)) };
                });
                team.run(parts, &|thread, part| {
                    // SAFETY: as above.
                    unsafe { self.run_raw(Restore(step(thread), tiles(part), output.get())) };
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

/// A block of tiles of a layer that is computed.
struct Step<'a> {
    layer: &'a Winograd,
    input: &'a [f32],
    from: Map,
    to: Map,
    residual: bool,
    down: usize,
    across: usize,
    /// `[point][tile][pitch of the point]`, points `SKEW` further apart than the deepest needs.
    input_tiles: *mut f32,
    /// `[point][tile][output]`, likewise.
    output_tiles: *mut f32,
    /// The current panel of packed weights.
    panel: *mut f32,
    /// The tiles of the block, counted over all maps.
    tiles: Range<usize>,
}

/// Transforms some tiles (counted within the block) of the input.
struct Transform<'a>(Step<'a>, Range<usize>);

/// Multiplies the transformed input with the weights at some points, for some panels.
struct Multiply<'a>(Step<'a>, Range<usize>, Range<usize>);

/// Transforms some tiles back and finishes them into the output maps.
struct Restore<'a>(Step<'a>, Range<usize>, *mut f32);

impl RawKernel for Transform<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, tiles) = self;
        // SAFETY: `apply` has checked all sizes and lets no two threads write the same part.
        unsafe {
            match step.layer.weights {
                Weights::Pairs(_) => step.any_input::<S, Pair>(tiles),
                Weights::Full(_) | Weights::Packed(..) => step.any_input::<S, f32>(tiles),
            }
        }
    }
}

impl RawKernel for Multiply<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, points, panels) = self;
        // SAFETY: as above.
        unsafe {
            match &step.layer.weights {
                Weights::Full(weights) => step.product::<S, f32>(weights, None, points, panels),
                Weights::Packed(weights, units) => {
                    step.product::<S, Packed>(weights, Some(units), points, panels);
                }
                Weights::Pairs(weights) => step.product::<S, Pair>(weights, None, points, panels),
            }
        }
    }
}

impl RawKernel for Restore<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self(step, tiles, output) = self;
        // SAFETY: as above.
        unsafe {
            match step.layer.stride {
                1 => by_tile!(step.layer.tile, step.output::<S>(tiles, output)),
                _ => step.output::<S, Halving, Halving, 3, 2, 3, 2>(tiles, output),
            }
        }
    }
}

impl Step<'_> {
    /// Map, and first row and column of a tile's output.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let tile = self.tiles.start + tile;
        let (map, tile) = (tile / (self.down * self.across), tile % (self.down * self.across));
        let [rows, columns] = self.layer.tile;
        (map, tile / self.across * rows, tile % self.across * columns)
    }

    fn input_point(&self) -> usize {
        self.tiles.len() * self.layer.most_pitch() + SKEW
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
            match self.layer.stride {
                1 => by_tile!(self.layer.tile, self.input::<S, N>(tiles)),
                _ => self.halved_input::<S, N>(tiles),
            }
        }
    }

    #[inline(always)]
    unsafe fn input<
        S: Simd,
        N: Number,
        Y: Scheme<ROWS, DOWN>,
        X: Scheme<COLUMNS, ACROSS>,
        const ROWS: usize,
        const DOWN: usize,
        const COLUMNS: usize,
        const ACROSS: usize,
    >(
        &self,
        tiles: Range<usize>,
    ) {
        let channels = self.layer.inputs;
        let point = self.input_point();
        let pitch = self.from.pitch();
        for tile in tiles {
            let (map, y, x) = self.place(tile);
            // The tile starts one pixel up and left of its output: at (y, x) with the border.
            let corner = map * self.from.len() + (self.from.at(y, x) - self.from.at(0, 0));
            let corner = self.input[corner..].as_ptr();
            // SAFETY: the maps hold whole tiles with their border, the block `tiles` tiles.
            unsafe {
                let to = self.input_tiles.add(tile * channels / N::CHANNELS);
                for c in (0..channels).step_by(S::LANES) {
                    let zero = S::splat(0.0);
                    let mut half = [[zero; COLUMNS]; ROWS];
                    for x in 0..COLUMNS {
                        let mut column = [zero; ROWS];
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::load(corner.add(y * pitch + x * channels + c));
                        }
                        let column = Y::input::<S>(column);
                        for y in 0..ROWS {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, row) in half.into_iter().enumerate() {
                        for (x, value) in X::input::<S>(row).into_iter().enumerate() {
                            N::store::<S>(to.add((y * COLUMNS + x) * point + c / N::CHANNELS), value);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn product<S: Simd, W: Weight>(
        &self,
        weights: &[f32],
        units: Option<&Buffer>,
        points: Range<usize>,
        panels: Range<usize>,
    ) {
        let outputs = self.layer.outputs;
        let groups = self.tiles.len().div_ceil(S::ROWS);
        for point in points {
            let depth = self.layer.depth(point);
            let before: usize = (0..point).map(|point| self.layer.depth(point)).sum();
            // SAFETY: as many points are there, of as many weights and tiles.
            let (weights, left, to) = unsafe {
                (
                    weights.as_ptr().cast::<W>().add(before * outputs),
                    self.input_tiles.add(point * self.input_point()).cast_const(),
                    self.output_tiles.add(point * self.output_point()),
                )
            };
            for p in panels.clone() {
                let length = depth * S::PANEL;
                let step = S::PANEL * size_of::<W>() / size_of::<f32>();
                // SAFETY: as many panels are there, `self.panel` has room for one.
                unsafe {
                    let values = weights.add(p * length);
                    let unit = units.map(|units| units[point * outputs + p * S::PANEL..].as_ptr());
                    let next = values.wrapping_add(length).cast();
                    let half = outputs - p * S::PANEL < S::PANEL;
                    let panel =
                        Panel { values, unit, depth, pitch: self.layer.pitch(point), next, step, half };
                    let to = to.add(p * S::PANEL);
                    if W::PACKED && groups > 1 {
                        self.multiply::<S, W>(0..1, left, &panel, Some(self.panel), to);
                        let values = self.panel.cast_const();
                        let Panel { unit, depth, pitch, next, step, half, .. } = panel;
                        let panel = Panel { values, unit, depth, pitch, next, step, half };
                        self.multiply::<S, f32>(1..groups, left, &panel, None, to);
                    } else {
                        self.multiply::<S, W>(0..groups, left, &panel, None, to);
                    }
                }
            }
        }
    }

    /// Multiplies some groups of tiles, whose transformed inputs at the current point begin at `left`
    /// and outputs at `to`, with a panel of weights, which is unpacked to `unpacked`.
    #[inline(always)]
    unsafe fn multiply<S: Simd, W: Weight>(
        &self,
        groups: Range<usize>,
        left: *const f32,
        panel: &Panel<W>,
        unpacked: Option<*mut f32>,
        to: *mut f32,
    ) {
        let (outputs, depth) = (self.layer.outputs, panel.depth);
        let all = self.tiles.len().div_ceil(S::ROWS);
        // Each group prefetches its share of the next panel.
        let step = panel.step / all;
        for group in groups {
            let tiles = share(self.tiles.len(), group, all);
            let mut rows = [left; MOST_ROWS];
            for (row, tile) in rows.iter_mut().zip(tiles.clone()) {
                // SAFETY: the block has that many tiles.
                *row = unsafe { row.add(tile * panel.pitch) };
            }
            // SAFETY: the rows hold `depth` numbers, the panel as many steps, and the output a row
            // for each of the tiles.
            unsafe {
                let to = to.add(tiles.start * outputs);
                let product = Product {
                    rows,
                    runs: &[0],
                    length: depth,
                    panel: panel.values,
                    unpacked,
                    ahead: panel.next.wrapping_add(depth * group * step),
                    ahead_step: step,
                    finish: Store { to, stride: outputs, unit: panel.unit },
                };
                match panel.half {
                    false => S::tile(tiles.len(), product),
                    true => S::half_tile(tiles.len(), product),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn output<
        S: Simd,
        Y: Scheme<ROWS, DOWN>,
        X: Scheme<COLUMNS, ACROSS>,
        const ROWS: usize,
        const DOWN: usize,
        const COLUMNS: usize,
        const ACROSS: usize,
    >(
        &self,
        tiles: Range<usize>,
        output: *mut f32,
    ) {
        let channels = self.layer.outputs;
        let point = self.output_point();
        let activation = self.layer.activation.at(0);
        for tile in tiles {
            let (map, y, x) = self.place(tile);
            let (rows, columns) = (DOWN.min(self.to.height - y), ACROSS.min(self.to.width - x));
            // SAFETY: the block holds `tiles` tiles; the pixels lie within the map.
            unsafe {
                let from = self.output_tiles.add(tile * channels).cast_const();
                let to = output.add(map * self.to.len() + self.to.at(y, x));
                for c in (0..channels).step_by(S::LANES) {
                    let zero = S::splat(0.0);
                    let mut half = [[zero; COLUMNS]; DOWN];
                    for x in 0..COLUMNS {
                        let mut column = [zero; ROWS];
                        for (y, value) in column.iter_mut().enumerate() {
                            *value = S::load(from.add((y * COLUMNS + x) * point + c));
                        }
                        let column = Y::output::<S>(column);
                        for y in 0..DOWN {
                            half[y][x] = column[y];
                        }
                    }
                    for (y, row) in half.into_iter().enumerate().take(rows) {
                        for (x, value) in X::output::<S>(row).into_iter().enumerate().take(columns) {
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

/// The type of the values of transformed tiles: channels or pairs of channels.
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

/// A panel of weights at a point.
#[derive(Clone, Copy)]
struct Panel<W> {
    /// `[depth][PANEL]`
    values: *const W,
    /// The units that they are in, if they are packed.
    unit: Option<*const f32>,
    depth: usize,
    /// From one tile of the input to the next.
    pitch: usize,
    /// The panel behind it in memory, and numbers of it for each step of depth.
    next: *const f32,
    step: usize,
    /// Whether it is the last panel and half as wide as the others.
    half: bool,
}

/// Stores sums.
struct Store {
    to: *mut f32,
    stride: usize,
    /// The unit of every output, if the weights are packed.
    unit: Option<*const f32>,
}

impl Finish for Store {
    /// # Safety
    /// A panel of numbers must be writable for every row.
    #[inline(always)]
    unsafe fn take<S: Simd>(&self, row: usize, vector: usize, sum: S::V) {
        // SAFETY: the caller's.
        unsafe {
            let sum = match self.unit {
                Some(unit) => S::mul(sum, S::load(unit.add(vector * S::LANES))),
                None => sum,
            };
            S::store(self.to.add(row * self.stride + vector * S::LANES), sum);
        }
    }
}
