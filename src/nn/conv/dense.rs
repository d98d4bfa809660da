//! Layers computed as they are defined: a row of inputs times a matrix for every output pixel.

mod gradient;

use std::ops::Range;

use super::product::{Finish, MOST_ROWS, Product};
use super::{Activation, ActivationAt, Map, Shared, padded, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::Team;

/// A convolution of any size and stride, or a fully connected layer.
#[derive(Debug)]
pub(crate) struct Dense {
    isa: Isa,
    /// `[panel][k][PANEL]`
    weights: Buffer,
    outputs: usize,
    runs: Vec<usize>,
    length: usize,
    /// Where the input of each output pixel starts in a map, and where the pixel goes.
    places: Vec<(usize, usize)>,
    input_len: usize,
    output_len: usize,
    activation: Activation,
}

/// Rows that share a pass over the weights.
const BLOCK: usize = 48;

impl Dense {
    /// A convolution from `input` to `output` maps, where the kernel of output pixel (y, x) begins
    /// one pixel up and left of input pixel (`stride` y, `stride` x), in the border for the first.
    ///
    /// `weight` [out, in, `kernel`, `kernel`]; `input.channels` may be padded, `output.channels`
    /// must be.
    ///
    /// # Panics
    /// When the kernel would reach out of the map and its border.
    pub(crate) fn convolution(
        isa: Isa,
        (weight, kernel): (&[f32], usize),
        inputs: usize,
        (input, output): (Map, Map),
        stride: usize,
        activation: Activation,
    ) -> Self {
        // The pixels of a row of the kernel lie side by side in a map.
        let length = kernel * input.channels;
        let outputs = weight.len() / (kernel * kernel * inputs);
        let weights = pack(isa, kernel * length, outputs, |k, n| {
            let (y, x, c) = (k / length, k % length / input.channels, k % input.channels);
            if c < inputs { weight[((n * inputs + c) * kernel + y) * kernel + x] } else { 0.0 }
        });
        let mut places = Vec::new();
        for y in 0..output.height {
            for x in 0..output.width {
                let corner = input.at(stride * y, stride * x) - input.at(0, 0);
                places.push((corner, output.at(y, x)));
            }
        }
        assert!(stride * (output.height - 1) + kernel <= input.rows);
        assert!(stride * (output.width - 1) + kernel <= input.columns);
        assert_eq!(output.channels, padded(outputs, isa));
        Self {
            isa,
            weights,
            outputs: output.channels,
            runs: (0..kernel).map(|y| y * input.pitch()).collect(),
            length,
            places,
            input_len: input.len(),
            output_len: output.len(),
            activation,
        }
    }

    /// A fully connected layer on the maps `input`, whose output is a row of [`padded`]
    /// numbers a map. `weight` [out, channel, row, column] for `channels` of the map's.
    pub(crate) fn fully_connected(
        isa: Isa,
        weight: &[f32],
        channels: usize,
        input: Map,
        activation: Activation,
    ) -> Self {
        let pixels = input.height * input.width;
        let length = input.width * input.channels;
        let outputs = weight.len() / (channels * pixels);
        let weights = pack(isa, input.height * length, outputs, |k, n| {
            let (pixel, c) = (k / input.channels, k % input.channels);
            if c < channels { weight[(n * channels + c) * pixels + pixel] } else { 0.0 }
        });
        let runs = (0..input.height).map(|y| input.at(y, 0)).collect();
        Self::of_rows(isa, weights, outputs, (runs, length), input.len(), activation)
    }

    /// A fully connected layer on what another one gave, rows of [`padded`] numbers of which the
    /// first `inputs` count. `weight` [out, `inputs`].
    pub(crate) fn behind_another(isa: Isa, weight: &[f32], inputs: usize, activation: Activation) -> Self {
        let outputs = weight.len() / inputs;
        let weights = pack(isa, inputs, outputs, |k, n| weight[n * inputs + k]);
        Self::of_rows(isa, weights, outputs, (vec![0], inputs), padded(inputs, isa), activation)
    }

    /// One row of [`padded`] outputs for every `input_len` numbers.
    fn of_rows(
        isa: Isa,
        weights: Buffer,
        outputs: usize,
        (runs, length): (Vec<usize>, usize),
        input_len: usize,
        activation: Activation,
    ) -> Self {
        let outputs = padded(outputs, isa);
        let places = vec![(0, 0)];
        Self { isa, weights, outputs, runs, length, places, input_len, output_len: outputs, activation }
    }

    /// Numbers of an output map.
    pub(crate) fn output_len(&self) -> usize {
        self.output_len
    }

    /// Applies the layer to `maps` maps.
    ///
    /// # Panics
    /// When `input` or `output` has less than `maps` maps.
    pub(crate) fn apply(&self, team: &mut Team, maps: usize, input: &[f32], output: &mut [f32]) {
        assert!(input.len() >= maps * self.input_len && output.len() >= maps * self.output_len);
        let rows = maps * self.places.len();
        let panels = self.outputs / simd::panel(self.isa);
        let blocks = rows.div_ceil(BLOCK);
        // Whole panels are shared where blocks of rows are too few to go round.
        let parts = if blocks >= 2 * team.threads() { 1 } else { panels.min(4 * team.threads()) };
        let output = Shared(output.as_mut_ptr());
        team.run(blocks * parts, &|_, item| {
            let (part, block) = (item / blocks, item % blocks);
            simd::run(
                self.isa,
                Apply {
                    layer: self,
                    input,
                    output: output.get(),
                    rows: share(rows, block, blocks),
                    panels: share(panels, part, parts),
                },
            );
        });
    }
}

/// Numbers `at(k, n)` of a matrix in panels `[panel][k][PANEL]`, zeros beyond `columns`.
pub(super) fn pack(isa: Isa, depth: usize, columns: usize, at: impl Fn(usize, usize) -> f32) -> Buffer {
    let mut packed = Buffer::new(depth * padded(columns, isa));
    pack_into(isa, &mut packed, depth, columns, at);
    packed
}

/// The same into memory that holds zeros.
pub(super) fn pack_into(
    isa: Isa,
    packed: &mut [f32],
    depth: usize,
    columns: usize,
    at: impl Fn(usize, usize) -> f32,
) {
    let panel = simd::panel(isa);
    for (p, values) in packed.chunks_exact_mut(depth * panel).enumerate() {
        for (k, values) in values.chunks_exact_mut(panel).enumerate() {
            for (n, value) in (p * panel..columns).zip(values) {
                *value = at(k, n);
            }
        }
    }
}

/// Some rows and panels of [`Dense::apply`].
struct Apply<'a> {
    layer: &'a Dense,
    input: &'a [f32],
    output: *mut f32,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let layer = self.layer;
        let depth = layer.runs.len() * layer.length;
        let groups = self.rows.len().div_ceil(S::ROWS);
        for p in self.panels {
            let panel = layer.weights[p * depth * S::PANEL..].as_ptr();
            for group in 0..groups {
                let first = self.rows.start + group * S::ROWS;
                let count = S::ROWS.min(self.rows.end - first);
                let mut rows = [self.input.as_ptr(); MOST_ROWS];
                let mut to = [self.output; MOST_ROWS];
                for i in 0..count {
                    let (map, pixel) = ((first + i) / layer.places.len(), (first + i) % layer.places.len());
                    let (from, into) = layer.places[pixel];
                    // SAFETY: `apply` has checked that the maps are there; `convolution` that
                    // the pixels and what lies around them are within a map.
                    unsafe {
                        rows[i] = rows[i].add(map * layer.input_len + from);
                        to[i] = to[i].add(map * layer.output_len + into + p * S::PANEL);
                    }
                }
                let product = Product {
                    rows,
                    runs: &layer.runs,
                    length: layer.length,
                    panel,
                    ahead: panel.wrapping_add(depth * (S::PANEL + group * S::PANEL / groups)),
                    ahead_step: S::PANEL / groups,
                    finish: Activate { to, activation: layer.activation.at(p * S::PANEL) },
                };
                // SAFETY: the rows are valid, as above; the panel holds `depth` steps. No other
                // item of the loop writes these pixels' channels.
                unsafe { S::tile(count, product) };
            }
        }
    }
}

/// Stores activations.
struct Activate {
    to: [*mut f32; MOST_ROWS],
    activation: ActivationAt,
}

impl Finish for Activate {
    /// # Safety
    /// A panel of numbers must be writable at every row's pointer.
    #[inline(always)]
    unsafe fn take<S: Simd>(&self, row: usize, vector: usize, sum: S::V) {
        let at = vector * S::LANES;
        // SAFETY: the caller's.
        unsafe { S::store(self.to[row].add(at), self.activation.apply::<S>(at, sum)) }
    }
}
