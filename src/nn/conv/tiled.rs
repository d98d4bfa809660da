//! 3x3 convolutions in bfloat16 with sums in f32, by products of tiles (see [`TileUnit`]).
//!
//! A convolution is a sum of matrix products, one for every tap (dy, dx) of the kernel and every block of 32 input
//! channels:
//!
//! output\[q\]\[n\] = sum over blocks b and taps t of input\[b\]\[q + shift(t)\]\[..\] W\[b\]\[t\]\[..\]\[n\]
//!
//! Here q is a position in a map whose rows follow each other with their border. Because a tap shifts all positions
//! alike, 16 positions that follow each other are a tile as they lie in memory, and no input is copied. The 32 channels
//! of a position are one cache line ([`BlockMap`]). Positions in the border between two rows are computed in vain.
//!
//! Weights go through the first-level cache in pieces, each of which is multiplied with all positions of a group
//! before the next. Meanwhile the sums of the group stay in the second-level cache. Every output is a sum in one
//! fixed order, so that it depends neither on the threads nor on what else is in the batch.

#[cfg(test)]
mod tests;

use std::ops::Range;

use half::bf16;

use super::product::Pair;
use super::{Activation, ActivationAt, Map, SharedPointer, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;
use crate::nn::tiles::{ConfiguredTiles, LINE, ROWS, TILE, TileProduct, TileUnit};

/// Channels of a block.
pub(crate) const BLOCK: usize = 2 * LINE;

/// Numbers of the weights for one tap, one block of inputs and one of outputs: two tiles.
const STEP: usize = 2 * TILE;

/// Most taps and blocks of inputs in a piece of the weights. A piece takes 24 KB, so that it stays in a first-level
/// cache of 48 KB with the inputs of 32 positions and their sums. Results do not depend on it.
const PIECE: usize = 12;

/// Pairs of tiles of positions that use a piece of the weights one after the other. Their sums take 96 KB.
const GROUP: usize = 24;

/// Numbers of the sums of a pair of tiles of positions.
const SUMS: usize = 4 * TILE;

/// Layout of one feature map in bfloat16, two numbers in one of f32: `[block][position][32 channels]`.
///
/// For a convolution of stride 1 the positions are the pixels, row by row, with one border position after each row and
/// a border row before the first and after the last. For one of stride 2 there are four planes of positions, one for
/// odd and one for even rows and columns each, so that the pixels under a tap follow each other too. Borders are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockMap {
    /// Rows of pixels.
    height: usize,
    /// Columns of pixels.
    width: usize,
    /// Blocks of channels.
    blocks: usize,
    /// Of the convolution that reads it.
    stride: usize,
    /// Positions of a row of a plane.
    columns: usize,
    /// Positions of a plane.
    plane: usize,
}

impl BlockMap {
    /// A map for a convolution of stride 1 or 2.
    pub(crate) fn new([height, width]: [usize; 2], channels: usize, stride: usize) -> Self {
        assert!(matches!(stride, 1 | 2) && height > 0 && width > 0 && channels > 0);
        let columns = width.div_ceil(stride) + 1;
        let map = Self { height, width, blocks: channels.div_ceil(BLOCK), stride, columns, plane: 0 };
        // The tap that is furthest down and right reads so far for the last position of the last tile.
        let plane = map.tiles() * ROWS + (2 / stride) * (columns + 1);
        Self { plane, ..map }
    }

    /// Numbers of a whole map, each of which holds two.
    pub(crate) fn len(&self) -> usize {
        self.blocks * self.block_len()
    }

    fn block_len(&self) -> usize {
        self.stride * self.stride * self.plane * LINE
    }

    /// Rows and columns of the outputs of the convolution that reads the map.
    fn outputs(&self) -> [usize; 2] {
        [self.height, self.width].map(|n| n.div_ceil(self.stride))
    }

    /// Tiles of positions that hold all outputs.
    fn tiles(&self) -> usize {
        let [height, width] = self.outputs();
        ((height - 1) * self.columns + width).div_ceil(ROWS)
    }

    /// Where the pixel lies that is `row` and `column` pixels further than the corner of the border.
    fn place(&self, row: usize, column: usize) -> usize {
        let plane = row % self.stride * self.stride + column % self.stride;
        (plane * self.plane + row / self.stride * self.columns + column / self.stride) * LINE
    }

    /// Where the first block of a pixel lies.
    fn at(&self, y: usize, x: usize) -> usize {
        self.place(y + 1, x + 1)
    }
}

/// A 3x3 convolution of padding 1 and stride 1 or 2, with bias and PReLU.
#[derive(Debug)]
pub(crate) struct TiledConv {
    isa: Isa,
    unit: TileUnit,
    /// `[block of outputs][block of inputs][tap]`, two tiles each.
    weights: Buffer,
    from: BlockMap,
    /// Blocks of outputs.
    outputs: usize,
    /// How much further than for the first output the inputs lie, for each block and tap.
    offsets: Vec<usize>,
    activation: Activation,
}

/// Where the outputs of a [`TiledConv`] go. All maps have the size of its outputs.
pub(crate) struct TiledOutput<'a> {
    /// Maps of f32: what is there is added after the activation, or it is written, or both.
    pub(crate) stream: Option<(Map, &'a mut [f32], Stream)>,
    /// Maps for the next convolutions.
    pub(crate) blocks: Option<(BlockMap, &'a mut [f32])>,
}

/// What becomes of a residual stream, which is in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// It begins with the outputs.
    Begin,
    /// The outputs are added to it.
    Add,
    /// It is added to the outputs and needed no more.
    End,
}

impl TiledConv {
    /// `weight` [out, in, 3, 3] for maps laid out as `from`.
    pub(crate) fn new(
        (isa, unit): (Isa, TileUnit),
        weight: &[f32],
        inputs: usize,
        from: BlockMap,
        (bias, slopes): (&[f32], &[f32]),
    ) -> Self {
        assert_eq!(from.blocks, inputs.div_ceil(BLOCK));
        assert_eq!(weight.len(), bias.len() * inputs * 9);
        let outputs = bias.len().div_ceil(BLOCK);
        let offsets = (0..from.blocks)
            .flat_map(|block| (0..9).map(move |tap| block * from.block_len() + from.place(tap / 3, tap % 3)));
        Self {
            isa,
            unit,
            weights: pack(weight, [bias.len(), inputs]),
            from,
            outputs,
            offsets: offsets.collect(),
            activation: Activation::new(bias, Some(slopes), outputs * BLOCK),
        }
    }

    /// Memory for the sums of each thread of a team.
    pub(crate) fn memory(threads: usize) -> Vec<Buffer> {
        (0..threads).map(|_| Buffer::new(GROUP * SUMS)).collect()
    }

    /// Applies the layer to `maps` maps.
    ///
    /// # Panics
    /// When there are less maps, or they do not fit the layer, or `memory` is not that of as many threads.
    pub(crate) fn apply(
        &self,
        team: &mut Team,
        memory: &mut [Buffer],
        maps: usize,
        input: &[f32],
        output: TiledOutput<'_>,
    ) {
        assert!(input.len() >= maps * self.from.len());
        assert!(memory.len() >= team.threads() && memory.iter().all(|sums| sums.len() >= GROUP * SUMS));
        let finish = self.finish(maps, output);
        let tiles = maps * self.from.tiles();
        let pairs = tiles.div_ceil(2);
        let groups = pairs.div_ceil(GROUP);
        // Blocks of outputs are shared where groups are too few to go round.
        let parts = if groups >= 2 * team.threads() { 1 } else { self.outputs.min(4 * team.threads()) };
        let memory: Vec<_> = memory.iter_mut().map(|sums| SharedPointer(sums.as_mut_ptr())).collect();
        team.run(groups * parts, &|thread, item| {
            let (part, group) = (item / groups, item % groups);
            let task = Task {
                layer: self,
                input,
                tiles,
                pairs: share(pairs, group, groups),
                blocks: share(self.outputs, part, parts),
                sums: memory[thread].get(),
                finish,
            };
            // SAFETY: the maps are there, as checked above and in `finish`. The sums are this thread's, and no two
            // items share outputs.
            self.unit.run(&mut |unit| unsafe { task.run(unit) });
        });
    }

    /// Checks where the outputs go.
    fn finish(&self, maps: usize, TiledOutput { stream, blocks }: TiledOutput<'_>) -> Finish {
        let size = self.from.outputs();
        let stream = stream.map(|(map, numbers, how)| {
            assert_eq!([map.height, map.width], size);
            assert!(
                map.channels.is_multiple_of(simd::lanes(self.isa)) && map.channels <= self.outputs * BLOCK
            );
            assert!(numbers.len() >= maps * map.len());
            (map, SharedPointer(numbers.as_mut_ptr()), how)
        });
        let blocks = blocks.map(|(map, numbers)| {
            assert_eq!(([map.height, map.width], map.blocks), (size, self.outputs));
            assert!(numbers.len() >= maps * map.len());
            (map, SharedPointer(numbers.as_mut_ptr()))
        });
        Finish { stream, blocks }
    }
}

/// Weights [out, in, 3, 3] as tiles for B: see [`TiledConv`].
fn pack(weight: &[f32], [outputs, inputs]: [usize; 2]) -> Buffer {
    let steps = inputs.div_ceil(BLOCK) * 9;
    let mut packed = Buffer::new(outputs.div_ceil(BLOCK) * steps * STEP);
    let at = |n: usize, c: usize, tap: usize| match n < outputs && c < inputs {
        true => bf16::from_f32(weight[(n * inputs + c) * 9 + tap]),
        false => bf16::ZERO,
    };
    for (step, tiles) in packed.chunks_exact_mut(STEP).enumerate() {
        let (block, c, tap) = (step / steps, step % steps / 9 * BLOCK, step % 9);
        for (i, pair) in tiles.iter_mut().enumerate() {
            let n = block * BLOCK + i / TILE * LINE + i % LINE;
            let c = c + i % TILE / LINE * 2;
            *pair = Pair([at(n, c, tap), at(n, c + 1, tap)]).bits();
        }
    }
    packed
}

/// Where outputs go, once that was checked.
#[derive(Clone, Copy)]
struct Finish {
    stream: Option<(Map, SharedPointer, Stream)>,
    blocks: Option<(BlockMap, SharedPointer)>,
}

/// Some pairs of tiles of positions and some blocks of outputs of [`TiledConv::apply`].
struct Task<'a> {
    layer: &'a TiledConv,
    input: &'a [f32],
    /// Tiles of all maps.
    tiles: usize,
    pairs: Range<usize>,
    blocks: Range<usize>,
    sums: *mut f32,
    finish: Finish,
}

impl Task<'_> {
    /// # Safety
    /// As checked by [`TiledConv::apply`]; the same holds below.
    unsafe fn run(&self, unit: &mut dyn ConfiguredTiles) {
        let steps = self.layer.offsets.len();
        let pieces = steps.div_ceil(PIECE);
        for block in self.blocks.clone() {
            for piece in 0..pieces {
                for pair in self.pairs.clone() {
                    // SAFETY: the caller's.
                    unsafe {
                        self.multiply(unit, block, (share(steps, piece, pieces), piece == 0), pair);
                        if piece + 1 == pieces {
                            self.finish(block, pair);
                        }
                    }
                }
            }
        }
    }

    /// The tiles of a pair: the last one may be alone.
    fn tiles_of(&self, pair: usize) -> Range<usize> {
        2 * pair..self.tiles.min(2 * pair + 2)
    }

    /// Where the sums of a pair are kept.
    fn sums_of(&self, pair: usize) -> *mut f32 {
        let place = pair - self.pairs.start;
        debug_assert!(place < GROUP);
        // In the memory of a thread, which has as many places.
        self.sums.wrapping_add(place * SUMS)
    }

    /// Adds the products of a piece of the weights to the sums of a pair.
    unsafe fn multiply(
        &self,
        unit: &mut dyn ConfiguredTiles,
        block: usize,
        (steps, fresh): (Range<usize>, bool),
        pair: usize,
    ) {
        let (from, all) = (self.layer.from, &self.layer.offsets);
        let weights = &self.layer.weights[(block * all.len() + steps.start) * STEP..][..steps.len() * STEP];
        let tiles = self.tiles_of(pair);
        let place = |tile: usize| tile / from.tiles() * from.len() + tile % from.tiles() * ROWS * LINE;
        let offsets = &all[steps];
        debug_assert!(
            tiles.clone().all(|tile| offsets.iter().all(|o| place(tile) + o + TILE <= self.input.len()))
        );
        let left = [tiles.start, tiles.end - 1].map(|tile| self.input[place(tile)..].as_ptr());
        let product = TileProduct {
            left: &left[..tiles.len()],
            offsets,
            right: weights.as_ptr(),
            sums: self.sums_of(pair),
            fresh,
        };
        // SAFETY: the map has a place for every tap of every position of its tiles, of every block. The weights were
        // counted just now. Sums that are not fresh were written with the piece before.
        unsafe { unit.accumulate(&product) };
    }

    /// Turns the sums of a pair into outputs.
    unsafe fn finish(&self, block: usize, pair: usize) {
        let from = self.layer.from;
        for (i, tile) in self.tiles_of(pair).enumerate() {
            let rows = TileOutput {
                finish: self.finish,
                activation: self.layer.activation.at(block * BLOCK),
                sums: self.sums_of(pair).wrapping_add(i * 2 * TILE),
                block,
                map: tile / from.tiles(),
                first: tile % from.tiles() * ROWS,
                columns: from.columns,
                size: from.outputs(),
            };
            // SAFETY: the caller's.
            simd::run_pairs(self.layer.isa, unsafe { Vouched::new(rows) });
        }
    }
}

/// The sums of a tile of positions, for a block of outputs.
struct TileOutput {
    finish: Finish,
    activation: ActivationAt,
    /// Two tiles.
    sums: *const f32,
    block: usize,
    map: usize,
    /// The first position.
    first: usize,
    /// Positions of a row, of which the last is border.
    columns: usize,
    /// Rows and columns of pixels.
    size: [usize; 2],
}

impl RawKernel for TileOutput {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (mut y, mut x) = (self.first / self.columns, self.first % self.columns);
        for row in 0..ROWS {
            if x < self.size[1] && y < self.size[0] {
                // SAFETY: the pixel is one of the outputs, for which `apply` has checked that there is room.
                unsafe { self.pixel::<S>(self.sums.add(row * LINE), [y, x]) };
            }
            x += 1;
            if x == self.columns {
                (y, x) = (y + 1, 0);
            }
        }
    }
}

impl TileOutput {
    /// # Safety
    /// The pixel must be one of the outputs; see [`Simd`].
    #[inline(always)]
    unsafe fn pixel<S: Simd>(&self, sums: *const f32, [y, x]: [usize; 2]) {
        let to = self.finish.blocks.map(|(map, start)| {
            let place = self.map * map.len() + self.block * map.block_len() + map.at(y, x);
            start.get().wrapping_add(place)
        });
        let first = self.block * BLOCK;
        let stream = self.finish.stream.map(|(map, start, how)| {
            let place = self.map * map.len() + map.at(y, x) + first;
            (start.get().wrapping_add(place), map.channels - first.min(map.channels), how)
        });
        for c in (0..BLOCK).step_by(S::LANES) {
            // SAFETY: the caller's. Channels of the stream are whole vectors.
            unsafe {
                let sum = S::load(sums.add(c / LINE * TILE + c % LINE));
                let mut value = self.activation.apply::<S>(c, sum);
                if let Some((stream, channels, how)) = stream
                    && c < channels
                {
                    let stream = stream.add(c);
                    if how != Stream::Begin {
                        value = S::add(value, S::load(stream));
                    }
                    if how != Stream::End {
                        S::store(stream, value);
                    }
                }
                if let Some(to) = to {
                    S::store_pairs(to.add(c / 2), value);
                }
            }
        }
    }
}

/// Rounds `maps` maps of f32 to maps of blocks of the same size.
///
/// # Panics
/// When there are less maps, or they do not fit each other.
pub(crate) fn round(
    isa: Isa,
    team: &mut Team,
    maps: usize,
    (from, input): (Map, &[f32]),
    (to, output): (BlockMap, &mut [f32]),
) {
    assert_eq!([from.height, from.width], [to.height, to.width]);
    assert!(from.channels <= to.blocks * BLOCK && from.channels.is_multiple_of(simd::lanes(isa)));
    assert!(input.len() >= maps * from.len() && output.len() >= maps * to.len());
    let output = SharedPointer(output.as_mut_ptr());
    team.run(maps * from.height, &|_, item| {
        let (map, y) = (item / from.height, item % from.height);
        let row = Row {
            from: input[map * from.len() + from.at(y, 0)..].as_ptr(),
            channels: from.channels,
            to,
            // In the map, which is there.
            output: output.get().wrapping_add(map * to.len()),
            y,
        };
        // SAFETY: the maps are there, as checked above; no two items share a row of a map.
        simd::run_pairs(isa, unsafe { Vouched::new(row) });
    });
}

/// A row of pixels on its way into blocks.
struct Row {
    from: *const f32,
    channels: usize,
    to: BlockMap,
    output: *mut f32,
    y: usize,
}

impl RawKernel for Row {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for x in 0..self.to.width {
            for c in (0..self.channels).step_by(S::LANES) {
                let place = c / BLOCK * self.to.block_len() + self.to.at(self.y, x) + c % BLOCK / 2;
                // SAFETY: the pixel and its block are in the maps; channels are whole vectors.
                unsafe {
                    S::store_pairs(self.output.add(place), S::load(self.from.add(x * self.channels + c)));
                }
            }
        }
    }
}
