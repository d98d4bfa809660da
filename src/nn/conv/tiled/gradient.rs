//! The backward pass of convolutions in bfloat16: the gradients with respect to their weights, by products of tiles, and
//! to bias and PReLU. That with respect to the input is a [`TiledConv`](super::TiledConv) of its own.
//!
//! gradient\[n\]\[c\]\[t\] = sum over maps and positions q of by_sums\[q\]\[n\] input\[q + shift(t)\]\[c\]
//!
//! The sum goes over positions, so a row of a tile for A must hold one channel of 32 positions, and a row of a tile for B
//! the channels of two positions side by side. Both are made anew for each layer. The positions of all maps follow each
//! other, with the border between them, so that one product goes over all maps, and a tap shifts all positions alike.
//! Pairs of positions begin at even or at odd ones: with both, every tap begins with a whole row of pairs.
//!
//! Two positions of 32 channels are made to pairs without moving a number to another lane: channels with even numbers are
//! one tile, those with odd numbers the other.

#[cfg(test)]
mod tests;

use super::{BLOCK, BlockMap, STEP};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::conv::{Map, SharedPointer};
use crate::nn::simd::{self, Kernel, RawKernel, Simd, Vouched};
use crate::nn::team::{Parts, Team};
use crate::nn::tiles::{LINE, TILE, TileNumbers, TileProduct, TileUnit};

/// Positions that one product adds up.
const POSITIONS: usize = 2 * LINE;

/// Products added up one after the other before the next tap: their tiles, 256 KB, stay in a second-level cache.
const TOGETHER: usize = 64;

/// Numbers of the sums for one tap and one block of inputs and of outputs: four tiles.
const SUMS: usize = 2 * STEP;

/// A line of pairs of bfloat16, as bits.
type Line = [u32; LINE];

/// The gradient with respect to the weights of a convolution, added up over any number of maps.
#[derive(Debug)]
pub(crate) struct TiledGradient {
    isa: Isa,
    unit: TileUnit,
    /// Outputs and inputs.
    channels: [usize; 2],
    from: BlockMap,
    /// For each tap the plane of `from` and how many positions further the inputs lie.
    taps: Vec<[usize; 2]>,
    /// Positions from one map to the next, an even number.
    apart: usize,
    /// `[block of outputs][block of inputs][tap][even or odd outputs][even or odd inputs]`, one tile each.
    sums: Buffer,
}

/// Memory of the tiles, for layers one after the other.
#[derive(Debug, Default)]
pub(crate) struct TiledGradientMemory {
    /// `[plane][even or odd position][block][even or odd channel][pair of positions][channel]`
    inputs: Buffer,
    /// `[block][even or odd channel][product]`, one tile each.
    outputs: Buffer,
    /// How much further than the tile for the first product those for the others lie.
    offsets: Vec<usize>,
}

/// Sizes for some maps.
#[derive(Clone, Copy)]
struct Sizes {
    maps: usize,
    /// Products that hold all positions.
    products: usize,
    /// Even positions alone, or odd ones too.
    phases: usize,
    /// Pairs of positions of a plane of all maps, of the first positions even or odd.
    pairs: usize,
}

impl TiledGradient {
    /// Of a convolution of `channels` outputs and inputs, for maps laid out as `from`.
    pub(crate) fn new(on: (Isa, TileUnit), channels: [usize; 2], from: BlockMap) -> Self {
        assert_eq!(from.blocks, channels[1].div_ceil(BLOCK));
        let plane = from.plane * LINE;
        let taps = (0..9).map(|tap| from.place(tap / 3, tap % 3)).map(|at| [at / plane, at % plane / LINE]);
        Self::with(on, channels, from, taps.collect())
    }

    /// Of a convolution on windows.
    pub(crate) fn of_windows(on: (Isa, TileUnit), channels: [usize; 2], from: BlockMap) -> Self {
        assert!(9 * channels[1] <= BLOCK && from.blocks == 1);
        Self::with(on, channels, from, vec![[0; 2]])
    }

    fn with(
        (isa, unit): (Isa, TileUnit),
        channels: [usize; 2],
        from: BlockMap,
        taps: Vec<[usize; 2]>,
    ) -> Self {
        let [height, width] = from.outputs();
        // The border row below a map is the one above the next.
        let border = usize::from(from.columns > width);
        let apart = ((height + border) * from.columns).next_multiple_of(2);
        let blocks = channels[0].div_ceil(BLOCK) * from.blocks;
        let sums = Buffer::new(blocks * taps.len() * SUMS);
        Self { isa, unit, channels, from, taps, apart, sums }
    }

    /// Begins with zero.
    pub(crate) fn clear(&mut self) {
        self.sums.fill(0.0);
    }

    fn sizes(&self, maps: usize) -> Sizes {
        let products = (maps * self.apart).div_ceil(POSITIONS);
        let furthest = self.taps.iter().map(|&[_, shift]| shift).max().unwrap_or(0);
        let phases = if furthest == 0 { 1 } else { 2 };
        Sizes { maps, products, phases, pairs: products * LINE + furthest / 2 + 1 }
    }

    /// Where in the gradient's sums those for one output, one input (of a window: number in it) and one tap lie.
    fn place(&self, output: usize, input: usize, tap: usize) -> usize {
        let block = output / BLOCK * self.from.blocks + input / BLOCK;
        let (n, c) = (output % BLOCK, input % BLOCK);
        (block * self.taps.len() + tap) * SUMS + (2 * (n % 2) + c % 2) * TILE + n / 2 * LINE + c / 2
    }

    /// Adds the products of `maps` maps of inputs and of gradients `by_sums` with respect to the sums, which are laid out
    /// as `to` for a convolution of stride 1.
    ///
    /// # Panics
    /// When there are less maps, or they do not fit the layer.
    pub(crate) fn add(
        &mut self,
        team: &mut Team,
        memory: &mut TiledGradientMemory,
        maps: usize,
        input: &[f32],
        (to, by_sums): (BlockMap, &[f32]),
    ) {
        assert!(input.len() >= maps * self.from.len() && by_sums.len() >= maps * to.len());
        assert_eq!((to.stride, [to.height, to.width]), (1, self.from.outputs()));
        assert_eq!(to.blocks, self.channels[0].div_ceil(BLOCK));
        let sizes = self.sizes(maps);
        let planes = self.from.stride * self.from.stride;
        memory.inputs.grow(planes * sizes.phases * 2 * self.from.blocks * sizes.pairs * LINE);
        memory.outputs.grow(2 * to.blocks * sizes.products * TILE);
        memory.offsets = (0..sizes.products.min(TOGETHER)).map(|i| i * TILE).collect();
        self.pair_inputs(team, memory, sizes, input);
        self.turn_outputs(team, memory, sizes, (to, by_sums));
        self.multiply(team, memory, sizes);
    }

    /// Where the pairs of a plane, a phase and a tile of channels begin.
    fn inputs_at(&self, sizes: Sizes, plane: usize, phase: usize, group: usize) -> usize {
        ((plane * sizes.phases + phase) * 2 * self.from.blocks + group) * sizes.pairs * LINE
    }

    fn pair_inputs(&self, team: &mut Team, memory: &mut TiledGradientMemory, sizes: Sizes, input: &[f32]) {
        let (from, planes) = (self.from, self.from.stride * self.from.stride);
        let to = SharedPointer(memory.inputs.as_mut_ptr());
        team.run(planes * from.blocks * sizes.maps, &|_, item| {
            let (map, rest) = (item % sizes.maps, item / sizes.maps);
            let (block, plane) = (rest % from.blocks, rest / from.blocks);
            let start = map * from.len() + block * from.block_len() + plane * from.plane * LINE;
            let first = map * self.apart / 2;
            // What follows the last map is zero.
            let pairs = if map + 1 == sizes.maps { sizes.pairs - first } else { self.apart / 2 };
            let lines = |phase: usize| {
                [0, 1].map(|odd| {
                    let at = self.inputs_at(sizes, plane, phase, 2 * block + odd) + first * LINE;
                    to.get().wrapping_add(at).cast::<Line>()
                })
            };
            let work = PairInputs {
                from: &input[start..][..from.plane.min(self.apart) * LINE],
                to: [lines(0), lines(sizes.phases - 1)],
                both: sizes.phases == 2,
                pairs,
            };
            // SAFETY: the memory has room for the pairs of all planes, phases, tiles of channels and maps; no two items
            // share any.
            simd::run(self.isa, unsafe { Vouched::new(work) });
        });
    }

    fn turn_outputs(
        &self,
        team: &mut Team,
        memory: &mut TiledGradientMemory,
        sizes: Sizes,
        (to, by_sums): (BlockMap, &[f32]),
    ) {
        let ([height, width], columns) = (self.from.outputs(), self.from.columns);
        // Where the pixel of each position lies in a block, if it is one.
        let pixel = |q: usize| {
            let (y, x) = (q / columns, q % columns);
            (y < height && x < width).then(|| to.at(y, x))
        };
        let places: Vec<Option<usize>> = (0..self.apart).map(pixel).collect();
        let tiles = SharedPointer(memory.outputs.as_mut_ptr());
        // As many products to an item as make the threads busy.
        let parts = sizes.products.min(sizes.maps);
        team.run(to.blocks * parts, &|_, item| {
            let (block, part) = (item / parts, item % parts);
            for product in super::share(sizes.products, part, parts) {
                let lines = std::array::from_fn(|i| {
                    let q = product * POSITIONS + i;
                    let (map, q) = (q / self.apart, q % self.apart);
                    let at = places[q].filter(|_| map < sizes.maps)?;
                    by_sums[map * to.len() + block * to.block_len() + at..].first_chunk()
                });
                let to = [0, 1].map(|odd| {
                    tiles
                        .get()
                        .wrapping_add(((2 * block + odd) * sizes.products + product) * TILE)
                        .cast::<Line>()
                });
                // SAFETY: the memory has room for all tiles, and no two items share any.
                simd::run(self.isa, unsafe { Vouched::new(Turn { lines, to }) });
            }
        });
    }

    fn multiply(&mut self, team: &mut Team, memory: &TiledGradientMemory, sizes: Sizes) {
        let blocks = [self.channels[0].div_ceil(BLOCK), self.from.blocks];
        // The rows of a kernel apart, so that threads find enough items in narrow layers.
        let parts = if self.taps.len() == 9 { 3 } else { 1 };
        let all = SharedPointer(self.sums.as_mut_ptr());
        let this = &*self;
        team.run(blocks[0] * blocks[1] * parts, &|_, item| {
            let (pair, part) = (item / parts, item % parts);
            let (n, c) = (pair / blocks[1], pair % blocks[1]);
            this.unit.run(&mut |unit| {
                for first in (0..sizes.products).step_by(TOGETHER) {
                    let offsets = &memory.offsets[..TOGETHER.min(sizes.products - first)];
                    for tap in super::share(this.taps.len(), part, parts) {
                        let [plane, shift] = this.taps[tap];
                        let left = [0, 1].map(|odd| {
                            memory.outputs[((2 * n + odd) * sizes.products + first) * TILE..].as_ptr()
                        });
                        let right = [0, 1].map(|odd| {
                            let at = this.inputs_at(sizes, plane, shift % 2, 2 * c + odd);
                            memory.inputs[at + (first * LINE + shift / 2) * LINE..].as_ptr()
                        });
                        let sums = all.get().wrapping_add((pair * this.taps.len() + tap) * SUMS);
                        let product = TileProduct {
                            numbers: TileNumbers::Bf16,
                            left: &left,
                            offsets,
                            right,
                            right_step: TILE,
                            sums,
                            add: true,
                        };
                        // SAFETY: tiles for all products are there, and the furthest tap ends with the pairs. No two
                        // items share sums.
                        unsafe { unit.multiply(&product) };
                    }
                }
            });
        });
    }

    /// Adds the sums to the gradient [out, in, 3, 3].
    ///
    /// # Panics
    /// When that has another size.
    pub(crate) fn collect(&self, team: &mut Team, gradient: &mut [f32]) {
        let [outputs, inputs] = self.channels;
        assert_eq!(gradient.len(), outputs * inputs * 9);
        team.run_parts(gradient, inputs * 9, |_, output, gradient| {
            for (input, taps) in gradient.chunks_exact_mut(9).enumerate() {
                if self.taps.len() == 9 {
                    let sums = self.sums[self.place(output, input, 0)..].iter().step_by(SUMS);
                    taps.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                } else {
                    for (tap, to) in taps.iter_mut().enumerate() {
                        *to += self.sums[self.place(output, tap * inputs + input, 0)];
                    }
                }
            }
        });
    }
}

/// Channels with even numbers of two positions, and those with odd numbers.
#[inline(always)]
fn pairs(first: &Line, second: &Line) -> [Line; 2] {
    [
        std::array::from_fn(|i| first[i] & 0xffff | second[i] << 16),
        std::array::from_fn(|i| first[i] >> 16 | second[i] & 0xffff_0000),
    ]
}

/// The bits of a line of numbers.
#[inline(always)]
fn bits(line: &[f32; LINE]) -> Line {
    line.map(f32::to_bits)
}

/// Pairs of the positions of one plane of a map, for one block of channels.
struct PairInputs<'a> {
    /// Those that the plane has; the others are zero.
    from: &'a [f32],
    /// Pairs that begin at even positions, of channels with even and with odd numbers, then those at odd positions.
    to: [[*mut Line; 2]; 2],
    /// Whether those at odd positions are needed.
    both: bool,
    pairs: usize,
}

impl RawKernel for PairInputs<'_> {
    /// # Safety
    /// That many lines must be writable at every place.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let lines = self.from.as_chunks::<LINE>().0;
        let line = |position: usize| lines.get(position).map_or([0; LINE], bits);
        let mut first = line(0);
        for pair in 0..self.pairs {
            let [second, third] = [1, 2].map(|further| line(2 * pair + further));
            // SAFETY: the caller's.
            unsafe {
                let write = |to: [*mut Line; 2], pairs: [Line; 2]| {
                    to[0].add(pair).write(pairs[0]);
                    to[1].add(pair).write(pairs[1]);
                };
                write(self.to[0], pairs(&first, &second));
                if self.both {
                    write(self.to[1], pairs(&second, &third));
                }
            }
            first = third;
        }
    }
}

/// The tiles of one product: rows of channels, from lines of positions.
struct Turn<'a> {
    lines: [Option<&'a [f32; LINE]>; POSITIONS],
    /// For channels with even and with odd numbers.
    to: [*mut Line; 2],
}

impl RawKernel for Turn<'_> {
    /// # Safety
    /// A tile must be writable at both places.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut tiles = [[[0; LINE]; LINE]; 2];
        for (pair, lines) in self.lines.as_chunks::<2>().0.iter().enumerate() {
            let [first, second] = lines.map(|line| line.map_or([0; LINE], bits));
            [tiles[0][pair], tiles[1][pair]] = pairs(&first, &second);
        }
        for (tile, to) in tiles.iter().zip(self.to) {
            for channel in 0..LINE {
                // SAFETY: the caller's.
                unsafe { to.add(channel).write(std::array::from_fn(|pair| tile[pair][channel])) };
            }
        }
    }
}

/// Backward pass of bias and PReLU on `maps` maps: from the gradient with respect to the output that with respect to the
/// sums, rounded to bfloat16, and the gradients with respect to slopes and bias, which are added to `gradients`.
///
/// # Panics
/// When there are less maps, or they do not fit each other.
pub(crate) fn activation_backward(
    isa: Isa,
    team: &mut Team,
    maps: usize,
    (map, by_output): (Map, &[f32]),
    (blocks, sums): (BlockMap, &[f32]),
    slopes: &[f32],
    by_sums: &mut [f32],
    gradients: [&mut [f32]; 2],
) {
    assert_eq!((map.height, map.width, map.channels), (blocks.height, blocks.width, blocks.blocks * BLOCK));
    assert_eq!(blocks.stride, 1);
    assert!(by_output.len() >= maps * map.len() && sums.len() >= maps * blocks.len());
    let slopes = Buffer::padded(slopes, map.channels);
    // Sums of their own for each map, so that the result does not depend on the distribution over threads.
    let mut partial = vec![0.0; maps * 2 * map.channels];
    let parts = Parts::new(&mut partial, 2 * map.channels);
    team.run_parts(&mut by_sums[..maps * blocks.len()], blocks.len(), |_, number, to| {
        let work = ActivationBackward {
            map,
            by_output: &by_output[number * map.len()..][..map.len()],
            blocks,
            sums: &sums[number * blocks.len()..][..blocks.len()],
            slopes: &slopes,
            to,
            // SAFETY: every item takes the sums of its own map.
            gradients: unsafe { parts.get(number) },
        };
        simd::run(isa, work);
    });
    let [by_slopes, by_bias] = gradients;
    for sums in partial.chunks_exact(2 * map.channels) {
        let (slopes, biases) = sums.split_at(map.channels);
        by_slopes.iter_mut().zip(slopes).for_each(|(to, sum)| *to += sum);
        by_bias.iter_mut().zip(biases).for_each(|(to, sum)| *to += sum);
    }
}

/// [`activation_backward`] of one map.
struct ActivationBackward<'a> {
    map: Map,
    by_output: &'a [f32],
    blocks: BlockMap,
    sums: &'a [f32],
    slopes: &'a [f32],
    to: &'a mut [f32],
    /// With respect to slopes, then to the bias.
    gradients: &'a mut [f32],
}

impl Kernel for ActivationBackward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (by_slopes, by_bias) = self.gradients.split_at_mut(self.map.channels);
        let slopes = self.slopes.as_chunks::<BLOCK>().0;
        let totals = by_slopes.as_chunks_mut().0.iter_mut().zip(by_bias.as_chunks_mut().0);
        for (block, (slopes, (by_slopes, by_bias))) in slopes.iter().zip(totals).enumerate() {
            let (mut slope_sums, mut bias_sums) = ([0.0; BLOCK], [0.0; BLOCK]);
            for y in 0..self.map.height {
                let from = self.map.at(y, 0) + block * BLOCK;
                let at = block * self.blocks.block_len() + self.blocks.at(y, 0);
                let lines = self.blocks.width * LINE;
                let sums = self.sums[at..][..lines].as_chunks::<LINE>().0;
                let to = self.to[at..][..lines].as_chunks_mut::<LINE>().0;
                for (x, (sums, to)) in sums.iter().zip(to).enumerate() {
                    let by_output: &[f32; BLOCK] =
                        match self.by_output[from + x * self.map.channels..].first_chunk() {
                            Some(pixel) => pixel,
                            None => unreachable!("the map has that pixel"),
                        };
                    let sums = split(sums);
                    let mut rounded = [0; BLOCK];
                    for c in 0..BLOCK {
                        let (dy, z) = (by_output[c], sums[c]);
                        let positive = z > 0.0;
                        let dz = if positive { dy } else { slopes[c] * dy };
                        slope_sums[c] += if positive { 0.0 } else { dy * z };
                        bias_sums[c] += dz;
                        rounded[c] = round(dz);
                    }
                    *to = std::array::from_fn(|i| f32::from_bits(rounded[2 * i] | rounded[2 * i + 1] << 16));
                }
            }
            (*by_slopes, *by_bias) = (slope_sums, bias_sums);
        }
    }
}

/// The numbers of pairs of bfloat16.
#[inline(always)]
fn split(pairs: &[f32; LINE]) -> [f32; BLOCK] {
    std::array::from_fn(|c| {
        let bits = pairs[c / 2].to_bits();
        f32::from_bits(if c % 2 == 0 { bits << 16 } else { bits & 0xffff_0000 })
    })
}

/// The bits of the nearest bfloat16, without a branch.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest }
}
