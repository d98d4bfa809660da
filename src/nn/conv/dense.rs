//! Layers computed as they are defined: a row of inputs times a matrix for every output pixel.

mod gradient;

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::product::{Finish, MOST_ROWS, Product, Weight};
use super::{Activation, ActivationAt, Map, SharedPointer, padded, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

/// A convolution of any size and stride, or a fully connected layer.
#[derive(Debug)]
pub(crate) struct Dense {
    isa: Isa,
    weights: Matrix,
    outputs: usize,
    runs: Vec<usize>,
    length: usize,
    /// Where the input of each output pixel starts in a map, and where the pixel goes.
    places: Vec<(usize, usize)>,
    input_len: usize,
    output_len: usize,
    activation: Activation,
}

/// Weights `[panel][k][PANEL]`.
#[derive(Debug)]
enum Matrix {
    Full(Buffer),
    /// Half precision, two weights per number of the buffer, if that is exact. With a single row, each
    /// weight is used once, so reading the weights from memory takes most of the time.
    Half(Buffer),
}

impl Matrix {
    /// The number of weights.
    fn numbers(&self) -> usize {
        match self {
            Self::Full(weights) => weights.len(),
            Self::Half(weights) => 2 * weights.len(),
        }
    }
}

/// Rows that share a pass over the weights.
const BLOCK: usize = 48;

/// Channels of a fully connected layer's weights, [out, channel, row, column], that are packed together:
/// their cache lines stay in a cache from one pixel to the next.
const CHANNELS: usize = 32;

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
        maps: (Map, Map),
        stride: usize,
        activation: Activation,
    ) -> Self {
        Self::windows(isa, (weight, [kernel; 2]), inputs, maps, ([stride; 2], [1; 2]), activation)
    }

    /// The same for kernels of `rows` and `columns`, and a stride and a padding (at the top and on the
    /// left) for each of both directions.
    ///
    /// # Panics
    /// As [`convolution`](Self::convolution).
    pub(crate) fn windows(
        isa: Isa,
        (weight, [rows, columns]): (&[f32], [usize; 2]),
        inputs: usize,
        (input, output): (Map, Map),
        (stride, padding): ([usize; 2], [usize; 2]),
        activation: Activation,
    ) -> Self {
        // The pixels of a row of the kernel are contiguous in a map.
        let length = columns * input.channels;
        let outputs = weight.len() / (rows * columns * inputs);
        let weights = pack(isa, rows * length, outputs, |k, n| {
            let (y, x, c) = (k / length, k % length / input.channels, k % input.channels);
            if c < inputs { weight[((n * inputs + c) * rows + y) * columns + x] } else { 0.0 }
        });
        let mut places = Vec::new();
        for y in 0..output.height {
            for x in 0..output.width {
                places.push((input.corner(stride, padding, [y, x]), output.at(y, x)));
            }
        }
        input.assert_within([rows, columns], (stride, padding), output);
        assert_eq!(output.channels, padded(outputs, isa));
        assert!(activation.len() >= output.channels);
        Self {
            isa,
            weights: Matrix::Full(weights),
            outputs: output.channels,
            runs: (0..rows).map(|y| y * input.pitch()).collect(),
            length,
            places,
            input_len: input.len(),
            output_len: output.len(),
            activation,
        }
    }

    /// A fully connected layer on the maps `input`, whose output is a row of [`padded`]
    /// numbers per map. `weight` [out, channel, row, column] for `channels` of the map's; values that
    /// are all of half precision are kept as such.
    pub(crate) fn fully_connected(
        isa: Isa,
        weight: &[f32],
        channels: usize,
        input: Map,
        activation: Activation,
    ) -> Self {
        let halves = if simd::reads_halves(isa) { halves(weight) } else { None };
        match halves {
            Some(halves) => Self::fully_connected_halves(isa, &halves, channels, input, activation),
            None => {
                let outputs = weight.len() / (channels * input.height * input.width);
                let mut numbers =
                    Buffer::new(input.height * input.width * input.channels * padded(outputs, isa));
                pack_maps(isa, &mut numbers, [outputs, channels], input, |at| weight[at]);
                Self::of_maps(isa, Matrix::Full(numbers), outputs, input, activation)
            }
        }
    }

    /// The same for little-endian numbers of half precision, which are kept as they are: for instruction sets
    /// that read them fast.
    pub(crate) fn fully_connected_halves(
        isa: Isa,
        weight: &[[u8; 2]],
        channels: usize,
        input: Map,
        activation: Activation,
    ) -> Self {
        let outputs = weight.len() / (channels * input.height * input.width);
        // A panel's width is even.
        let numbers = input.height * input.width * input.channels * padded(outputs, isa) / 2;
        let mut numbers = Buffer::new(numbers);
        pack_maps(isa, numbers.halves_mut(), [outputs, channels], input, |at| f16::from_le_bytes(weight[at]));
        Self::of_maps(isa, Matrix::Half(numbers), outputs, input, activation)
    }

    /// One row of [`padded`] outputs for every map.
    fn of_maps(isa: Isa, weights: Matrix, outputs: usize, input: Map, activation: Activation) -> Self {
        let runs = (0..input.height).map(|y| input.at(y, 0)).collect();
        let length = input.width * input.channels;
        Self::of_rows(isa, weights, outputs, (runs, length), input.len(), activation)
    }

    /// A fully connected layer on the output of another one: rows of [`padded`] numbers, the first `inputs`
    /// of which are values. `weight` [out, `inputs`].
    pub(crate) fn behind_another(isa: Isa, weight: &[f32], inputs: usize, activation: Activation) -> Self {
        let outputs = weight.len() / inputs;
        let weights = pack(isa, inputs, outputs, |k, n| weight[n * inputs + k]);
        let weights = Matrix::Full(weights);
        Self::of_rows(isa, weights, outputs, (vec![0], inputs), padded(inputs, isa), activation)
    }

    /// One row of [`padded`] outputs for every `input_len` numbers.
    fn of_rows(
        isa: Isa,
        weights: Matrix,
        outputs: usize,
        (runs, length): (Vec<usize>, usize),
        input_len: usize,
        activation: Activation,
    ) -> Self {
        let outputs = padded(outputs, isa);
        assert!(activation.len() >= outputs && weights.numbers() >= runs.len() * length * outputs);
        assert!(runs.iter().all(|run| run + length <= input_len));
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
    /// When `input` or `output` has fewer than `maps` maps.
    pub(crate) fn apply(&self, team: &mut Team, maps: usize, input: &[f32], output: &mut [f32]) {
        self.apply_onto(team, maps, input, output, false);
    }

    /// The same; with `residual`, the previous contents of `output` are added after the activation.
    ///
    /// # Panics
    /// As [`apply`](Self::apply), and with `residual` when the weights are kept in half precision.
    pub(crate) fn apply_onto(
        &self,
        team: &mut Team,
        maps: usize,
        input: &[f32],
        output: &mut [f32],
        residual: bool,
    ) {
        assert!(input.len() >= maps * self.input_len && output.len() >= maps * self.output_len);
        assert!(!residual || matches!(self.weights, Matrix::Full(_)));
        let rows = maps * self.places.len();
        let panels = self.outputs / simd::panel(self.isa);
        let blocks = rows.div_ceil(BLOCK);
        // Panels are divided among the threads if there are too few blocks of rows.
        let parts = if blocks >= 2 * team.threads() { 1 } else { panels.min(4 * team.threads()) };
        let output = SharedPointer(output.as_mut_ptr());
        team.run(blocks * parts, &|_, item| {
            let (part, block) = (item / blocks, item % blocks);
            let apply = Apply {
                layer: self,
                input,
                output: output.get(),
                residual,
                rows: share(rows, block, blocks),
                panels: share(panels, part, parts),
            };
            // SAFETY: the maps are there, as checked above; no two items share rows and panels.
            simd::run(self.isa, unsafe { Vouched::new(apply) });
        });
    }
}

/// Numbers `at(k, n)` of a matrix in panels `[panel][k][PANEL]`, zeros beyond `columns`.
pub(super) fn pack(isa: Isa, depth: usize, columns: usize, at: impl Fn(usize, usize) -> f32) -> Buffer {
    let mut packed = Buffer::new(depth * padded(columns, isa));
    pack_into(isa, &mut packed, depth, columns, at);
    packed
}

/// Weights [out, channel, row, column], of which number i is `at(i)`, in panels for rows of the maps
/// `input`, into memory that holds zeros.
fn pack_maps<W>(
    isa: Isa,
    packed: &mut [W],
    [outputs, channels]: [usize; 2],
    input: Map,
    at: impl Fn(usize) -> W,
) {
    let (panel, pixels) = (simd::panel(isa), input.height * input.width);
    let panels = packed.chunks_exact_mut(pixels * input.channels * panel);
    for (first, packed) in (0..).step_by(panel).zip(panels) {
        for few in (0..channels).step_by(CHANNELS) {
            for pixel in 0..pixels {
                for c in few..channels.min(few + CHANNELS) {
                    let row = &mut packed[(pixel * input.channels + c) * panel..][..panel];
                    for (value, n) in row.iter_mut().zip(first..outputs) {
                        *value = at((n * channels + c) * pixels + pixel);
                    }
                }
            }
        }
    }
}

/// The numbers of [`pack`] into memory that holds zeros.
pub(super) fn pack_into<W>(
    isa: Isa,
    packed: &mut [W],
    depth: usize,
    columns: usize,
    at: impl Fn(usize, usize) -> W,
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

/// The values as little-endian numbers of half precision; `None` if that would change one.
fn halves(values: &[f32]) -> Option<Vec<[u8; 2]>> {
    let mut halves = vec![f16::ZERO; values.len()];
    let mut back = [0.0; 4096];
    for (halves, values) in halves.chunks_mut(back.len()).zip(values.chunks(back.len())) {
        let back = &mut back[..values.len()];
        halves.convert_from_f32_slice(values);
        halves.convert_to_f32_slice(back);
        if back.iter().zip(values).any(|(back, value)| back.to_bits() != value.to_bits()) {
            return None;
        }
    }
    Some(halves.into_iter().map(f16::to_le_bytes).collect())
}

/// Some rows and panels of [`Dense::apply`].
struct Apply<'a> {
    layer: &'a Dense,
    input: &'a [f32],
    output: *mut f32,
    residual: bool,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl RawKernel for Apply<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's; the pointers are those of the layer's weights.
        unsafe {
            match &self.layer.weights {
                // A constant for the compiler: a branch in the epilogue would keep the sums out of registers.
                Matrix::Full(weights) if self.residual => self.all::<S, f32, true>(weights.as_ptr()),
                Matrix::Full(weights) => self.all::<S, f32, false>(weights.as_ptr()),
                Matrix::Half(weights) => self.all::<S, f16, false>(weights.as_ptr().cast()),
            }
        }
    }
}

impl Apply<'_> {
    /// # Safety
    /// `weights` must be those of the layer; see [`Simd`].
    #[inline(always)]
    unsafe fn all<S: Simd, W: Weight, const RESIDUAL: bool>(&self, weights: *const W) {
        let layer = self.layer;
        let depth = layer.runs.len() * layer.length;
        let groups = self.rows.len().div_ceil(S::ROWS);
        // Numbers to prefetch with each step.
        let step = S::PANEL * size_of::<W>() / size_of::<f32>();
        for p in self.panels.clone() {
            // SAFETY: the matrix has `outputs` columns, which are `panels` at least.
            let panel = unsafe { weights.add(p * depth * S::PANEL) };
            for group in 0..groups {
                let first = self.rows.start + group * S::ROWS;
                let count = S::ROWS.min(self.rows.end - first);
                let mut rows = [self.input.as_ptr(); MOST_ROWS];
                let mut to = [self.output; MOST_ROWS];
                let (mut map, mut pixel) = (first / layer.places.len(), first % layer.places.len());
                for i in 0..count {
                    let (from, into) = layer.places[pixel];
                    // SAFETY: `apply` has checked that the maps are there; `convolution` that the pixels and
                    // their windows are within a map.
                    unsafe {
                        rows[i] = rows[i].add(map * layer.input_len + from);
                        to[i] = to[i].add(map * layer.output_len + into + p * S::PANEL);
                    }
                    pixel += 1;
                    if pixel == layer.places.len() {
                        (map, pixel) = (map + 1, 0);
                    }
                }
                let product = Product {
                    rows,
                    runs: &layer.runs,
                    length: layer.length,
                    panel,
                    unpacked: None,
                    ahead: panel.cast::<f32>().wrapping_add(depth * (step + group * step / groups)),
                    ahead_step: step / groups,
                    finish: Activate::<RESIDUAL> { to, activation: layer.activation.at(p * S::PANEL) },
                };
                // SAFETY: the rows are valid, as above; the panel holds `depth` steps. No other
                // item of the loop writes these pixels' channels.
                unsafe { S::tile(count, product) };
            }
        }
    }
}

/// Stores activations, or adds them to the values in memory.
struct Activate<const RESIDUAL: bool> {
    to: [*mut f32; MOST_ROWS],
    activation: ActivationAt,
}

impl<const RESIDUAL: bool> Finish for Activate<RESIDUAL> {
    /// # Safety
    /// A panel of numbers must be writable at every row's pointer.
    #[inline(always)]
    unsafe fn take<S: Simd>(&self, row: usize, vector: usize, sum: S::V) {
        let at = vector * S::LANES;
        // SAFETY: the caller's.
        unsafe {
            let to = self.to[row].add(at);
            let value = self.activation.apply::<S>(at, sum);
            S::store(to, if RESIDUAL { S::add(value, S::load(to)) } else { value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed) % 101) as f32 / 64.0 - 0.75).collect()
    }

    #[test]
    fn weights_of_half_precision_give_the_same_bits_in_half_the_memory() {
        let input = Map::new(3, 2, 5, [1; 2]);
        for isa in Isa::available() {
            let outputs = 2 * simd::panel(isa) + 3;
            let weight = numbers(outputs * 5 * 6, 7);
            let activation = || Activation::new(&numbers(outputs, 3), None, padded(outputs, isa));
            let mut layer = Dense::fully_connected(isa, &weight, 5, input, activation());
            assert_eq!(matches!(layer.weights, Matrix::Half(_)), simd::reads_halves(isa), "{isa}");
            if let Matrix::Full(_) = &layer.weights {
                // Half precision is not kept where reading it is slow; the result would be the same.
                let halves = halves(&weight).unwrap();
                layer = Dense::fully_connected_halves(isa, &halves, 5, input, activation());
            }
            // The results do not depend on one more output whose weights are not of half precision.
            let more = [weight.clone(), vec![1.0 + f32::EPSILON; 5 * 6]].concat();
            let bias = Activation::new(&numbers(outputs + 1, 3), None, padded(outputs + 1, isa));
            let full = Dense::fully_connected(isa, &more, 5, input, bias);
            assert!(matches!(full.weights, Matrix::Full(_)));
            for (maps, threads) in [(1, 1), (2, 3), (5, 2), (13, 1), (17, 2)] {
                let maps_in = numbers(maps * input.len(), 11);
                let run = |layer: &Dense| {
                    let mut output = vec![0.0; maps * layer.output_len()];
                    layer.apply(&mut Team::new(threads), maps, &maps_in, &mut output);
                    let of_map = |row: &[f32]| row[..outputs].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    output.chunks_exact(layer.output_len()).map(of_map).collect::<Vec<_>>()
                };
                assert_eq!(run(&layer), run(&full), "{isa}, {maps} maps, {threads} threads");
            }
        }
    }

    #[test]
    fn layers_with_too_few_biases_are_refused() {
        let isa = Isa::best();
        let (input, output) = (Map::new(4, 4, 3, [1; 2]), Map::new(2, 2, padded(5, isa), [1; 2]));
        let short = || Activation::new(&[], None, padded(5, isa) - 1);
        let refused = |make: &dyn Fn() -> Dense| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(make()))).is_err()
        };
        let (kernel, whole) = (vec![0.5; 5 * 3 * 9], vec![0.3; 5 * 3 * 16]);
        assert!(refused(&|| Dense::convolution(isa, (&kernel, 3), 3, (input, output), 2, short())));
        assert!(refused(&|| Dense::fully_connected(isa, &whole, 3, input, short())));
        assert!(refused(&|| Dense::behind_another(isa, &[0.3; 5 * 7], 7, short())));
        let enough = || Activation::new(&[], None, padded(5, isa));
        assert!(!refused(&|| Dense::convolution(isa, (&kernel, 3), 3, (input, output), 2, enough())));
        assert!(!refused(&|| Dense::fully_connected(isa, &whole, 3, input, enough())));
        assert!(!refused(&|| Dense::behind_another(isa, &[0.3; 5 * 7], 7, enough())));
    }

    #[test]
    fn half_precision_is_kept_only_where_it_is_exact() {
        let exact: Vec<f32> = numbers(9001, 1);
        let packed = halves(&exact).unwrap();
        assert!(packed.iter().zip(&exact).all(|(half, value)| f16::from_le_bytes(*half).to_f32() == *value));
        for inexact in [1.0 + f32::EPSILON, 1e-9, 70000.0] {
            let mut values = exact.clone();
            values[9000] = inexact;
            assert!(halves(&values).is_none(), "{inexact}");
        }
        assert!(halves(&[-0.0, 65504.0]).is_some());
    }
}
