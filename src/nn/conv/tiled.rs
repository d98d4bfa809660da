//! 3x3 convolutions in bfloat16 or 8-bit integers, with sums in f32 or 32-bit integers, by products of tiles (see
//! [`TileUnit`]).
//!
//! A convolution is a sum of matrix products, one for every tap (dy, dx) of the kernel and every block of 32 (8 bits: 64)
//! input channels:
//!
//! output\[q\]\[n\] = sum over blocks b and taps t of input\[b\]\[q + shift(t)\]\[..\] W\[b\]\[t\]\[..\]\[n\]
//!
//! Here q is a position in a map whose rows follow each other with their border. Because a tap shifts all positions
//! alike, 16 positions that follow each other are a tile as they lie in memory, and no input is copied. The channels of
//! a position in a block are one cache line ([`BlockMap`]). Positions in the border between two rows are computed in vain.
//!
//! The first layer of a network has too few input channels for that: each position of its map ([`BlockMap::of_windows`])
//! holds all numbers under the kernel.
//!
//! Sums stay in tiles from the first product to the last. For each block of outputs, its weights, which fit into a
//! second-level cache, are multiplied with all positions of a group, whose inputs fit beside them. Every output is a
//! sum in one fixed order, so that it depends neither on the threads nor on what else is in the batch.
//!
//! An 8-bit number q stands for q s, with one scale s for all inputs of a layer and one for the weights of each output. So
//! a sum of products stands for itself times both scales, to which the bias is added in f32.

mod gradient;
#[cfg(test)]
mod tests;

pub(crate) use gradient::{TiledGradient, TiledGradientMemory, activation_backward};

use std::ops::Range;

use half::bf16;

use super::product::Pair;
use super::{Activation, ActivationAt, Map, SharedPointer, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;
use crate::nn::tiles::{ConfiguredTiles, LINE, ROWS, TILE, TileNumbers, TileProduct, TileUnit};

/// Outputs whose weights are two tiles side by side, and channels of a block in bfloat16.
pub(crate) const BLOCK: usize = 2 * LINE;

/// Numbers of the weights for one tap, one block of inputs and one of outputs: two tiles.
const STEP: usize = 2 * TILE;

/// Numbers of inputs that pairs of tiles of positions may have which use a block of the weights one after the other:
/// 768 KB, of a second-level cache of 2 MB. Results do not depend on it.
const GROUP: usize = 192 << 10;

/// Numbers of the sums of a pair of tiles of positions.
const SUMS: usize = 4 * TILE;

/// Layout of one feature map in bfloat16 or 8-bit integers, two or four numbers in one of f32:
/// `[block][position][32 or 64 channels]`.
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
    numbers: TileNumbers,
    /// Blocks of channels.
    blocks: usize,
    /// Of the convolution that reads it; 1 where positions hold windows.
    stride: usize,
    /// Positions of a row of a plane.
    columns: usize,
    /// Positions of a plane.
    plane: usize,
}

impl BlockMap {
    /// A map in bfloat16 for a convolution of stride 1 or 2.
    pub(crate) fn new(size: [usize; 2], channels: usize, stride: usize) -> Self {
        Self::of(TileNumbers::Bf16, size, channels, stride)
    }

    /// A map for a convolution of stride 1 or 2.
    pub(crate) fn of(
        numbers: TileNumbers,
        [height, width]: [usize; 2],
        channels: usize,
        stride: usize,
    ) -> Self {
        assert!(matches!(stride, 1 | 2) && height > 0 && width > 0 && channels > 0);
        let columns = width.div_ceil(stride) + 1;
        let blocks = channels.div_ceil(numbers.per_line());
        let map = Self { height, width, numbers, blocks, stride, columns, plane: 0 };
        // The tap that is furthest down and right reads so far for the last position of the last tile.
        let plane = map.tiles() * ROWS + (2 / stride) * (columns + 1);
        Self { plane, ..map }
    }

    /// A map of the windows for all outputs, without border, for a convolution of so few channels that a window is
    /// a block.
    pub(crate) fn of_windows([height, width]: [usize; 2]) -> Self {
        let numbers = TileNumbers::Bf16;
        let map = Self { height, width, numbers, blocks: 1, stride: 1, columns: width, plane: 0 };
        Self { plane: map.tiles() * ROWS, ..map }
    }

    /// Rows and columns of pixels.
    pub(crate) fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// What the numbers are.
    pub(crate) fn numbers(&self) -> TileNumbers {
        self.numbers
    }

    /// Numbers of f32 of a whole map, each of which holds two or four.
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
        // Not by division: this is needed for every pixel.
        let shift = self.stride - 1;
        let plane = (row & shift) << shift | column & shift;
        (plane * self.plane + (row >> shift) * self.columns + (column >> shift)) * LINE
    }

    /// How much further than the first block of a pixel the outputs of a block lie.
    fn spot(&self, block: usize) -> usize {
        let (first, per_line) = (block * BLOCK, self.numbers.per_line());
        first / per_line * self.block_len() + first % per_line * LINE / per_line
    }

    /// Where the first block of a pixel lies.
    fn at(&self, y: usize, x: usize) -> usize {
        self.place(y + 1, x + 1)
    }
}

/// A 3x3 convolution of padding 1 and stride 1 or 2, with bias and PReLU, or its backward pass.
#[derive(Debug)]
pub(crate) struct TiledConv {
    isa: Isa,
    unit: TileUnit,
    pass: Pass,
    /// Outputs and inputs of the products.
    channels: [usize; 2],
    /// `[block of outputs][block of inputs][tap]`, two tiles each.
    weights: Buffer,
    from: BlockMap,
    /// How much further than for the first output the inputs lie, for each block and tap.
    offsets: Vec<usize>,
    /// See [`scale`](Self::scale).
    scale: f32,
    /// In 8 bits, what one in a sum of products stands for, for each output; else empty.
    scales: Buffer,
    activation: Activation,
}

/// What products with the weights [out, in, 3, 3] of a convolution give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The outputs.
    Forward,
    /// The outputs, from windows of few channels.
    Windows,
    /// For stride 1, the gradient with respect to the input from that with respect to the output.
    Backward,
    /// The same for stride 2, for the input pixels in rows 2y + the first number and columns 2x + the second: these see
    /// one, two or four of the nine weights.
    BackwardOfHalving([usize; 2]),
}

impl Pass {
    /// For each product the row and column of the position that it takes, counted from the corner of the border, and the
    /// number of the weight.
    fn taps(self) -> Vec<[usize; 3]> {
        let all = |tap: fn(usize) -> usize| (0..9).map(|i| [i / 3, i % 3, tap(i)]).collect();
        match self {
            Self::Forward => all(|i| i),
            Self::Windows => vec![[0, 0, 0]],
            Self::Backward => all(|i| 8 - i),
            Self::BackwardOfHalving(odd) => {
                // An even row is the middle row of one window. An odd row is the last row of the window above and the first
                // row of the window below.
                let [rows, columns] = odd.map(|odd| if odd == 0 { &[[1, 1]][..] } else { &[[1, 2], [2, 0]] });
                let both =
                    |&[row, y]: &[usize; 2]| columns.iter().map(move |&[column, x]| [row, column, 3 * y + x]);
                rows.iter().flat_map(both).collect()
            }
        }
    }

    /// How many pixels the outputs lie apart, and the row and the column of the first one.
    fn spread(self) -> [usize; 3] {
        match self {
            Self::BackwardOfHalving([y, x]) => [2, y, x],
            _ => [1, 0, 0],
        }
    }
}

/// Where the outputs of a [`TiledConv`] go. All maps have the size of its outputs.
pub(crate) struct TiledOutput<'a> {
    /// Maps of f32: what is there is added after the activation, or it is written, or both.
    pub(crate) stream: Option<(Map, &'a mut [f32], Stream)>,
    /// Maps for the next convolutions.
    pub(crate) blocks: Option<(BlockMap, &'a mut [f32])>,
    /// What one in `blocks` stands for where they are in 8 bits; else it means nothing.
    pub(crate) scale: f32,
    /// Maps of the sums with their bias and before the PReLU, for the backward pass.
    pub(crate) sums: Option<(BlockMap, &'a mut [f32])>,
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

/// The byte of the integer of 8 bits that is nearest to a number from -128 to 127, halves to the even one: beside a number so
/// large, the last bits of the sum count ones. Rounding by the standard library is a call where the target has no instruction.
fn nearest_byte(x: f32) -> u8 {
    const WITH_BITS_FOR_ONES: f32 = (3 << 22) as f32;
    (x + WITH_BITS_FOR_ONES).to_bits() as u8
}

impl TiledConv {
    /// `weight` [out, in, 3, 3] for maps laid out as `from`.
    pub(crate) fn new(
        on: (Isa, TileUnit),
        weight: &[f32],
        inputs: usize,
        from: BlockMap,
        activation: (&[f32], &[f32]),
    ) -> Self {
        Self::with(on, Pass::Forward, weight, inputs, from, activation)
    }

    /// `weight` [out, in, 3, 3] for the windows of at most three channels of [`windows`].
    pub(crate) fn of_windows(
        on: (Isa, TileUnit),
        weight: &[f32],
        inputs: usize,
        from: BlockMap,
        activation: (&[f32], &[f32]),
    ) -> Self {
        Self::with(on, Pass::Windows, weight, inputs, from, activation)
    }

    /// `weight` [out, in, 3, 3] for maps in 8 bits laid out as `from`, in which one stands for `scale`.
    pub(crate) fn of_bytes(
        (isa, unit): (Isa, TileUnit),
        weight: &[f32],
        inputs: usize,
        from: BlockMap,
        scale: f32,
        (bias, slopes): (&[f32], &[f32]),
    ) -> Self {
        assert!(from.numbers == TileNumbers::Int8 && scale > 0.0);
        assert_eq!(weight.len(), bias.len() * inputs * 9);
        let mut layer = Self::empty((isa, unit), Pass::Forward, [bias.len(), inputs], from);
        let padded = layer.blocks() * BLOCK;
        layer.activation = Activation::new(bias, Some(slopes), padded);
        (layer.scale, layer.scales) = (scale, Buffer::new(padded));
        for (n, weight) in weight.chunks_exact(inputs * 9).enumerate() {
            // A channel of zeros has any scale.
            let largest = weight.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
            let unit = largest / 127.0;
            layer.scales[n] = unit * scale;
            for (four, channels) in weight.as_chunks::<9>().0.chunks(4).enumerate() {
                let (block, row) = (4 * four / from.numbers.per_line(), four % LINE);
                let first = (n / BLOCK * from.blocks + block) * 9 * STEP;
                let place = first + n % BLOCK / LINE * TILE + row * LINE + n % LINE;
                for tap in 0..9 {
                    let mut bytes = [0; 4];
                    for (byte, taps) in bytes.iter_mut().zip(channels) {
                        *byte = nearest_byte(taps[tap] / unit);
                    }
                    layer.weights[place + tap * STEP] = f32::from_bits(u32::from_le_bytes(bytes));
                }
            }
        }
        layer
    }

    fn with(
        on: (Isa, TileUnit),
        pass: Pass,
        weight: &[f32],
        inputs: usize,
        from: BlockMap,
        (bias, slopes): (&[f32], &[f32]),
    ) -> Self {
        assert_eq!(weight.len(), bias.len() * inputs * 9);
        let mut layer = Self::empty(on, pass, [bias.len(), inputs], from);
        layer.refresh(&mut Team::default(), weight, bias, slopes);
        layer
    }

    /// A layer whose weights are all zero, of `channels` outputs and inputs, for maps laid out as `from`. Without
    /// [`refresh`](Self::refresh) its slopes are 1.
    pub(crate) fn empty(
        (isa, unit): (Isa, TileUnit),
        pass: Pass,
        channels: [usize; 2],
        from: BlockMap,
    ) -> Self {
        let [outputs, inputs] = channels;
        if pass == Pass::Windows {
            assert!(9 * inputs <= BLOCK && from.blocks == 1);
        } else {
            assert_eq!(from.blocks, inputs.div_ceil(from.numbers.per_line()));
            assert!(from.columns > from.width.div_ceil(from.stride), "taps reach into the border");
            assert!(pass == Pass::Forward || from.stride == 1);
        }
        let taps = pass.taps();
        let offsets = (0..from.blocks)
            .flat_map(|block| {
                taps.iter().map(move |&[row, column, _]| block * from.block_len() + from.place(row, column))
            })
            .collect();
        let outputs = outputs.div_ceil(BLOCK);
        let weights = Buffer::new(outputs * from.blocks * taps.len() * STEP);
        let activation = Activation::new(&[], None, outputs * BLOCK);
        let (scale, scales) = (1.0, Buffer::default());
        Self { isa, unit, pass, channels, weights, from, offsets, scale, scales, activation }
    }

    /// Packs other weights, of the convolution [out, in, 3, 3] also for a backward pass, whose activation is none:
    /// `bias` and `slopes` are then empty.
    pub(crate) fn refresh(&mut self, team: &mut Team, weight: &[f32], bias: &[f32], slopes: &[f32]) {
        let [outputs, inputs] = self.channels;
        assert!(weight.len() == outputs * inputs * 9 && self.from.numbers == TileNumbers::Bf16);
        let padded = self.blocks() * BLOCK;
        self.activation = Activation::new(bias, (!slopes.is_empty()).then_some(slopes), padded);
        if self.pass == Pass::Windows {
            let at = |n: usize, k: usize| {
                let (tap, c) = (k / inputs, k % inputs);
                if n < outputs && tap < 9 { weight[(n * inputs + c) * 9 + tap] } else { 0.0 }
            };
            for (i, pair) in self.weights.iter_mut().enumerate() {
                let n = i / STEP * BLOCK + i % STEP / TILE * LINE + i % LINE;
                let k = i % TILE / LINE * 2;
                *pair = Pair([k, k + 1].map(|k| bf16::from_f32(at(n, k)))).bits();
            }
            return;
        }
        // Numbers from one output to the next, and from one input to the next.
        let steps = if self.pass == Pass::Forward { [inputs * 9, 9] } else { [9, outputs * 9] };
        let taps: Vec<usize> = self.pass.taps().into_iter().map(|[.., tap]| tap).collect();
        let blocks = self.from.blocks;
        team.run_parts(&mut self.weights, taps.len() * STEP, |_, part, to| {
            let (first_n, first_c) = (part / blocks * BLOCK, part % blocks * BLOCK);
            let at = |n: usize, c: usize| {
                let there = first_n + n < outputs && first_c + c < inputs;
                there.then(|| &weight[(first_n + n) * steps[0] + (first_c + c) * steps[1]..][..9])
            };
            for n in 0..BLOCK {
                for pair in 0..LINE {
                    let pairs = [2 * pair, 2 * pair + 1].map(|c| at(n, c));
                    let to = &mut to[n / LINE * TILE + pair * LINE + n % LINE..];
                    for (i, &tap) in taps.iter().enumerate() {
                        let numbers = pairs.map(|taps| bf16::from_f32(taps.map_or(0.0, |taps| taps[tap])));
                        to[i * STEP] = Pair(numbers).bits();
                    }
                }
            }
        });
    }

    /// What one in its input stands for where that is in 8 bits.
    pub(crate) fn scale(&self) -> f32 {
        self.scale
    }

    /// Blocks of outputs.
    fn blocks(&self) -> usize {
        self.channels[0].div_ceil(BLOCK)
    }

    /// Memory for the sums of each thread of a team.
    pub(crate) fn memory(threads: usize) -> Vec<Buffer> {
        (0..threads).map(|_| Buffer::new(SUMS)).collect()
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
        assert!(memory.len() >= team.threads() && memory.iter().all(|sums| sums.len() >= SUMS));
        let finish = self.finish(maps, output);
        let tiles = maps * self.from.tiles();
        let pairs = tiles.div_ceil(2);
        let parts = self.blocks().min(4 * team.threads());
        // Enough items that no thread waits long for the others at the end.
        let enough = (4 * team.threads()).div_ceil(parts);
        let groups = (pairs * 2 * ROWS * LINE * self.from.blocks).div_ceil(GROUP).max(enough).min(pairs);
        let memory: Vec<_> = memory.iter_mut().map(|sums| SharedPointer(sums.as_mut_ptr())).collect();
        team.run(groups * parts, &|thread, item| {
            let (group, part) = (item / parts, item % parts);
            let task = Task {
                layer: self,
                input,
                tiles,
                pairs: share(pairs, group, groups),
                blocks: share(self.blocks(), part, parts),
                sums: memory[thread].get(),
                finish,
            };
            // SAFETY: the maps are there, as checked above and in `finish`. The sums are this thread's, and no two
            // items share outputs.
            self.unit.run(&mut |unit| unsafe { task.run(unit) });
        });
    }

    /// Checks where the outputs go.
    fn finish(&self, maps: usize, TiledOutput { stream, blocks, scale, sums }: TiledOutput<'_>) -> Finish {
        let size = self.from.outputs();
        let spread = self.pass.spread();
        let stream = stream.map(|(map, numbers, how)| {
            assert_eq!([map.height, map.width], size.map(|n| spread[0] * n));
            assert!(
                map.channels.is_multiple_of(simd::lanes(self.isa)) && map.channels <= self.blocks() * BLOCK
            );
            assert!(numbers.len() >= maps * map.len());
            (map, SharedPointer(numbers.as_mut_ptr()), how)
        });
        let [blocks, sums] = [blocks, sums].map(|to| {
            to.map(|(map, numbers)| {
                let blocks = (self.blocks() * BLOCK).div_ceil(map.numbers.per_line());
                assert_eq!(([map.height, map.width], map.blocks, spread[0]), (size, blocks, 1));
                assert!(numbers.len() >= maps * map.len());
                (map, SharedPointer(numbers.as_mut_ptr()))
            })
        });
        let [from_bytes, to_bytes] = [Some(self.from), blocks.map(|(map, _)| map)]
            .map(|map| map.is_some_and(|map| map.numbers == TileNumbers::Int8));
        assert!(sums.is_none() || !from_bytes && !to_bytes, "a backward pass is in bfloat16");
        assert!(!to_bytes || scale > 0.0);
        assert_eq!(self.scales.len(), if from_bytes { self.blocks() * BLOCK } else { 0 });
        Finish { stream, blocks, sums, spread, from_bytes, to_bytes, per_scale: scale.recip() }
    }
}

/// Where outputs go, once that was checked.
#[derive(Clone, Copy)]
struct Finish {
    stream: Option<(Map, SharedPointer, Stream)>,
    blocks: Option<(BlockMap, SharedPointer)>,
    sums: Option<(BlockMap, SharedPointer)>,
    /// See [`Pass::spread`].
    spread: [usize; 3],
    /// Whether the sums are integers.
    from_bytes: bool,
    /// Whether `blocks` are in 8 bits.
    to_bytes: bool,
    /// By what numbers for them are multiplied.
    per_scale: f32,
}

/// Some pairs of tiles of positions and some blocks of outputs of [`TiledConv::apply`].
struct Task<'a> {
    layer: &'a TiledConv,
    input: &'a [f32],
    /// Tiles of all maps.
    tiles: usize,
    pairs: Range<usize>,
    blocks: Range<usize>,
    /// Memory for the sums of a pair.
    sums: *mut f32,
    finish: Finish,
}

impl Task<'_> {
    /// # Safety
    /// As checked by [`TiledConv::apply`]; the same holds below.
    unsafe fn run(&self, unit: &mut dyn ConfiguredTiles) {
        for block in self.blocks.clone() {
            for pair in self.pairs.clone() {
                // SAFETY: the caller's.
                unsafe {
                    self.multiply(unit, block, pair);
                    self.finish(block, pair);
                }
            }
        }
    }

    /// The tiles of a pair: the last one may be alone.
    fn tiles_of(&self, pair: usize) -> Range<usize> {
        2 * pair..self.tiles.min(2 * pair + 2)
    }

    /// Multiplies the inputs of a pair with the weights for a block of outputs.
    unsafe fn multiply(&self, unit: &mut dyn ConfiguredTiles, block: usize, pair: usize) {
        let (from, offsets) = (self.layer.from, &self.layer.offsets[..]);
        let weights = &self.layer.weights[block * offsets.len() * STEP..][..offsets.len() * STEP];
        let tiles = self.tiles_of(pair);
        let place = |tile: usize| tile / from.tiles() * from.len() + tile % from.tiles() * ROWS * LINE;
        debug_assert!(
            tiles.clone().all(|tile| offsets.iter().all(|o| place(tile) + o + TILE <= self.input.len()))
        );
        let left = [tiles.start, tiles.end - 1].map(|tile| self.input[place(tile)..].as_ptr());
        let product = TileProduct {
            numbers: from.numbers,
            left: &left[..tiles.len()],
            offsets,
            right: [weights.as_ptr(), weights[TILE..].as_ptr()],
            right_step: STEP,
            sums: self.sums,
            add: false,
        };
        // SAFETY: the map has a place for every tap of every position of its tiles, of every block. The weights were
        // counted just now. The sums of a pair fit into the memory of a thread.
        unsafe { unit.multiply(&product) };
    }

    /// Turns the sums of a pair into outputs.
    unsafe fn finish(&self, block: usize, pair: usize) {
        // SAFETY: the caller's.
        simd::run_pairs(self.layer.isa, unsafe { Vouched::new(Outputs { task: self, block, pair }) });
    }
}

/// What is read and written, known to the compiler.
trait Format {
    /// Whether sums are kept for the backward pass.
    const SUMS: bool;
    /// Whether sums are integers.
    const FROM_BYTES: bool;
    /// Whether maps for the next convolution are in 8 bits.
    const TO_BYTES: bool;
}

struct Formats<const SUMS: bool, const FROM_BYTES: bool, const TO_BYTES: bool>;

impl<const SUMS: bool, const FROM_BYTES: bool, const TO_BYTES: bool> Format
    for Formats<SUMS, FROM_BYTES, TO_BYTES>
{
    const SUMS: bool = SUMS;
    const FROM_BYTES: bool = FROM_BYTES;
    const TO_BYTES: bool = TO_BYTES;
}

/// The outputs of a pair, for a block of outputs. It refers to the task, because to copy what it needs of it for each pair
/// takes longer than some rows of outputs.
struct Outputs<'a> {
    task: &'a Task<'a>,
    block: usize,
    pair: usize,
}

impl RawKernel for Outputs<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's.
        unsafe {
            let Finish { sums, from_bytes, to_bytes, .. } = &self.task.finish;
            match (sums.is_some(), from_bytes, to_bytes) {
                (true, ..) => self.run_with::<S, Formats<true, false, false>>(),
                (false, false, false) => self.run_with::<S, Formats<false, false, false>>(),
                (false, false, true) => self.run_with::<S, Formats<false, false, true>>(),
                (false, true, false) => self.run_with::<S, Formats<false, true, false>>(),
                (false, true, true) => self.run_with::<S, Formats<false, true, true>>(),
            }
        }
    }
}

impl Outputs<'_> {
    /// # Safety
    /// As [`tiles`](Self::tiles).
    #[inline(always)]
    unsafe fn run_with<S: Simd, F: Format>(&self) {
        let how = self.task.finish.stream.map(|(.., how)| how);
        // SAFETY: the caller's.
        unsafe {
            match (how, self.task.finish.blocks.is_some()) {
                (None, true) => self.tiles::<S, F, false, false, true>(),
                (Some(Stream::Begin), false) => self.tiles::<S, F, false, true, false>(),
                (Some(Stream::Begin), true) => self.tiles::<S, F, false, true, true>(),
                (Some(Stream::Add), false) => self.tiles::<S, F, true, true, false>(),
                (Some(Stream::Add), true) => self.tiles::<S, F, true, true, true>(),
                (Some(Stream::End), true) => self.tiles::<S, F, true, false, true>(),
                // Nothing is kept.
                (None | Some(Stream::End), false) => {}
            }
        }
    }

    /// The positions that are pixels. The stream is added if it is `READ` and becomes the sum if it is `WRITTEN`.
    ///
    /// # Safety
    /// The maps that are read or written must be there, with room for the outputs; see [`Simd`].
    #[inline(always)]
    unsafe fn tiles<S: Simd, F: Format, const READ: bool, const WRITTEN: bool, const BLOCKS: bool>(&self) {
        let &Self { task, block, pair } = self;
        let Finish { stream, blocks, sums, spread: [step, odd_y, odd_x], per_scale, .. } = &task.finish;
        let from = &task.layer.from;
        let ([height, width], columns) = (from.outputs(), from.columns);
        let first = block * BLOCK;
        let activation = task.layer.activation.at(first);
        let scales = if F::FROM_BYTES { task.layer.scales[first..].as_ptr() } else { std::ptr::null() };
        let (stream_step, channels) =
            stream.map_or((0, 0), |(map, ..)| (step * map.channels, map.channels.saturating_sub(first)));
        let mut sums_of_tile = task.sums.cast_const();
        for tile in task.tiles_of(pair) {
            let (map, mut position) = (tile / from.tiles(), tile % from.tiles() * ROWS);
            let end = position + ROWS;
            // Those pixels of one row after the other that are in the tile.
            while position < end {
                let (y, x) = (position / columns, position % columns);
                if y >= height {
                    break;
                }
                let pixels = width.saturating_sub(x).min(end - position);
                let mut stream = match stream {
                    Some((to, start, _)) => start
                        .get()
                        .wrapping_add(map * to.len() + to.at(step * y + odd_y, step * x + odd_x) + first),
                    None => std::ptr::null_mut(),
                };
                let mut blocks = Walk::new(blocks, map, block, y, x);
                let mut kept = Walk::new(sums, map, block, y, x);
                let mut at = sums_of_tile.wrapping_add((position + ROWS - end) * LINE);
                for _ in 0..pixels {
                    let to = Pixel {
                        stream,
                        channels,
                        blocks: blocks.at,
                        per_scale: *per_scale,
                        kept: kept.at,
                        scales,
                    };
                    // SAFETY: the pixel is one of the outputs, for which the maps have room. Channels of the stream are
                    // whole vectors.
                    unsafe {
                        to.write::<S, F, READ, WRITTEN, BLOCKS>(activation, at);
                    }
                    at = at.wrapping_add(LINE);
                    stream = stream.wrapping_add(stream_step);
                    blocks.next();
                    kept.next();
                }
                position += (columns - x).min(end - position);
            }
            sums_of_tile = sums_of_tile.wrapping_add(2 * TILE);
        }
    }
}

/// Where the outputs of a pixel go, for a block of outputs.
struct Pixel {
    stream: *mut f32,
    /// Of the stream, from the block on.
    channels: usize,
    blocks: *mut f32,
    /// See [`Finish`].
    per_scale: f32,
    kept: *mut f32,
    /// Of the sums, if they are integers.
    scales: *const f32,
}

impl Pixel {
    /// Writes the outputs for the sums of a block; see [`Outputs::tiles`]. Without closures: what they call is not compiled
    /// for the instruction set.
    #[inline(always)]
    unsafe fn write<S: Simd, F: Format, const READ: bool, const WRITTEN: bool, const BLOCKS: bool>(
        self,
        activation: ActivationAt,
        sums: *const f32,
    ) {
        for c in (0..BLOCK).step_by(2 * S::LANES) {
            let d = c + S::LANES;
            // SAFETY: the caller's.
            unsafe {
                let first = S::load(sums.add(c / LINE * TILE + c % LINE));
                let second = S::load(sums.add(d / LINE * TILE + d % LINE));
                if F::SUMS {
                    let first = activation.with_bias::<S>(c, first);
                    let second = activation.with_bias::<S>(d, second);
                    S::store_pairs_of_two(self.kept.add(c / 2), first, second);
                }
                let [first, second] = match F::FROM_BYTES {
                    true => [
                        activation.apply_scaled::<S>(c, S::of_integers(first), S::load(self.scales.add(c))),
                        activation.apply_scaled::<S>(d, S::of_integers(second), S::load(self.scales.add(d))),
                    ],
                    false => [activation.apply::<S>(c, first), activation.apply::<S>(d, second)],
                };
                let first = self.stream::<S, READ, WRITTEN>(c, first);
                let second = self.stream::<S, READ, WRITTEN>(d, second);
                if BLOCKS && F::TO_BYTES {
                    let (per_scale, to) = (S::splat(self.per_scale), self.blocks.cast::<i8>());
                    S::store_bytes(to.add(c), S::mul(first, per_scale));
                    S::store_bytes(to.add(d), S::mul(second, per_scale));
                } else if BLOCKS {
                    S::store_pairs_of_two(self.blocks.add(c / 2), first, second);
                }
            }
        }
    }

    /// The vector of outputs from channel `c` of the block on, with the stream.
    #[inline(always)]
    unsafe fn stream<S: Simd, const READ: bool, const WRITTEN: bool>(&self, c: usize, output: S::V) -> S::V {
        if !(READ || WRITTEN) || c >= self.channels {
            return output;
        }
        // SAFETY: the caller's.
        unsafe {
            let value = if READ { S::add(output, S::load(self.stream.add(c))) } else { output };
            if WRITTEN {
                S::store(self.stream.add(c), value);
            }
            value
        }
    }
}

/// Pixel after pixel of a row of a [`BlockMap`].
struct Walk {
    at: *mut f32,
    /// How much further the next pixel lies, and the one after it.
    steps: [isize; 2],
}

impl Walk {
    /// From a pixel of a block of one of several maps on, if there are such maps.
    #[inline(always)]
    fn new(to: &Option<(BlockMap, SharedPointer)>, map: usize, block: usize, y: usize, x: usize) -> Self {
        let Some((to, start)) = to else { return Self { at: std::ptr::null_mut(), steps: [0; 2] } };
        let [here, next, after] = [to.at(y, x), to.at(y, x + 1), to.at(y, x + 2)];
        Self {
            at: start.get().wrapping_add(map * to.len() + to.spot(block) + here),
            steps: [next.wrapping_sub(here).cast_signed(), after.wrapping_sub(next).cast_signed()],
        }
    }

    #[inline(always)]
    fn next(&mut self) {
        let [first, second] = self.steps;
        (self.at, self.steps) = (self.at.wrapping_offset(first), [second, first]);
    }
}

/// Rounds the windows of `maps` maps of f32 to maps of windows, for a 3x3 convolution of padding 1 and stride 2.
///
/// # Panics
/// When there are less maps, or they do not fit each other.
pub(crate) fn windows(
    team: &mut Team,
    maps: usize,
    (from, input): (Map, &[f32]),
    (to, output): (BlockMap, &mut [f32]),
) {
    assert_eq!([from.height, from.width].map(|n| n.div_ceil(2)), [to.height, to.width]);
    from.assert_within([3; 2], ([2; 2], [1; 2]), Map::new(to.height, to.width, 1, [1; 2]));
    assert!(9 * from.channels <= BLOCK && (to.blocks, to.stride, to.columns) == (1, 1, to.width));
    assert!(input.len() >= maps * from.len() && output.len() >= maps * to.len());
    let row_len = to.width * LINE;
    for (input, output) in input.chunks_exact(from.len()).zip(output.chunks_exact_mut(to.len())).take(maps) {
        team.run_parts(&mut output[..to.height * row_len], row_len, |_, y, output| {
            let rows = [0, 1, 2].map(|row| {
                let start = from.corner([2; 2], [1; 2], [y, 0]) + row * from.pitch();
                &input[start..][..(2 * to.width + 1) * from.channels]
            });
            window_row(rows, 2 * from.channels, output);
        });
    }
}

/// The windows for a row of outputs, one line each, each `step` numbers further than the one before, from the inputs
/// under the three rows of the kernel.
fn window_row(rows: [&[f32]; 3], step: usize, output: &mut [f32]) {
    let rows = rows.map(|row| row.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
    let len = step / 2 * 3;
    for (x, line) in output.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        let mut window = [bf16::ZERO; BLOCK];
        for (to, row) in window.chunks_exact_mut(len).zip(&rows) {
            to.copy_from_slice(&row[x * step..][..len]);
        }
        for (to, pair) in line.iter_mut().zip(window.as_chunks::<2>().0) {
            *to = Pair(*pair).bits();
        }
    }
}
