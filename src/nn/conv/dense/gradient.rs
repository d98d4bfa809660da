//! The backward pass of a stride-2 convolution.

use super::super::outer::{Outer, outer_products};
use super::super::{Activation, Map, SharedPointer, padded};
use super::{Dense, Matrix, pack};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

/// Output pixels whose outer products are summed in registers before they are added up.
const BLOCK: usize = 192;

impl Dense {
    /// The gradient with respect to the input of the convolution that [`Dense::convolution`] makes with
    /// `stride` 2: four layers from the gradient with respect to the output, one for each parity of row and
    /// column, since those see different parts of the kernel (1, 2, 2 and 4 of its 9 weights). Together they
    /// write every pixel of the input's map.
    ///
    /// # Panics
    /// When `input` is not twice as high and wide as `output`.
    pub(crate) fn input_gradient(
        isa: Isa,
        weight: &[f32],
        inputs: usize,
        (input, output): (Map, Map),
    ) -> [Self; 4] {
        assert_eq!((input.height, input.width), (2 * output.height, 2 * output.width));
        let outputs = weight.len() / (9 * inputs);
        [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(odd_y, odd_x)| {
            // An even row is the middle row of one window. An odd row is the last row of the window above and
            // the first row of the window below.
            let length = (1 + odd_x) * output.channels;
            let tap = |odd: usize, second: usize| if odd == 0 { 1 } else { 2 - 2 * second };
            let weights = pack(isa, (1 + odd_y) * length, inputs, |k, n| {
                let (run, pixel, c) = (k / length, k % length / output.channels, k % output.channels);
                let (y, x) = (tap(odd_y, run), tap(odd_x, pixel));
                if c < outputs { weight[(c * inputs + n) * 9 + y * 3 + x] } else { 0.0 }
            });
            let mut places = Vec::new();
            for y in 0..output.height {
                for x in 0..output.width {
                    places.push((output.at(y, x), input.at(2 * y + odd_y, 2 * x + odd_x)));
                }
            }
            assert_eq!(input.channels, padded(inputs, isa));
            Self {
                isa,
                weights: Matrix::Full(weights),
                outputs: input.channels,
                runs: (0..=odd_y).map(|y| y * output.pitch()).collect(),
                length,
                places,
                input_len: output.len(),
                output_len: input.len(),
                activation: Activation::new(&vec![0.0; inputs], None, input.channels),
            }
        })
    }

    /// Adds to `gradient` [out, in, 3, 3] the gradient with respect to the weights of this convolution of
    /// `inputs` channels, given its `input` and the gradient `by_output` with respect to the output of `maps`
    /// maps.
    ///
    /// # Panics
    /// When the buffers are too small.
    pub(crate) fn add_weight_gradient(
        &self,
        team: &mut Team,
        maps: usize,
        inputs: usize,
        (input, by_output): (&[f32], &[f32]),
        gradient: &mut [f32],
    ) {
        assert!(input.len() >= maps * self.input_len && by_output.len() >= maps * self.output_len);
        let depth = self.runs.len() * self.length;
        let mut sums = Buffer::new(depth * self.outputs);
        let at: Vec<(usize, usize)> = (0..maps)
            .flat_map(|map| {
                self.places
                    .iter()
                    .map(move |&(from, to)| (map * self.input_len + from, map * self.output_len + to))
            })
            .collect();
        let panels = self.outputs / simd::panel(self.isa);
        let to = SharedPointer(sums.as_mut_ptr());
        team.run(self.runs.len() * panels, &|_, item| {
            let (run, panel) = (item / panels, item % panels);
            let sums = Sums { layer: self, run, panel, input, by_output, at: &at, to: to.get() };
            // SAFETY: the maps are there, as checked above; no two items share a run's panel.
            simd::run(self.isa, unsafe { Vouched::new(sums) });
        });
        let channels = self.length / 3;
        for (k, row) in sums.chunks_exact(self.outputs).enumerate() {
            let (tap, c) = (k / channels, k % channels);
            if c < inputs {
                for (n, sum) in row[..gradient.len() / (9 * inputs)].iter().enumerate() {
                    gradient[(n * inputs + c) * 9 + tap] += sum;
                }
            }
        }
    }
}

/// One row of the kernel and one panel of outputs of [`Dense::add_weight_gradient`].
struct Sums<'a> {
    layer: &'a Dense,
    run: usize,
    panel: usize,
    input: &'a [f32],
    by_output: &'a [f32],
    at: &'a [(usize, usize)],
    to: *mut f32,
}

impl RawKernel for Sums<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let layer = self.layer;
        for (block, at) in self.at.chunks(BLOCK).enumerate() {
            // SAFETY: `add_weight_gradient` has checked that the maps are there; the places lie
            // within them (`Dense::convolution`). No other item writes this run's panel.
            unsafe {
                let outer = Outer {
                    a: self.input.as_ptr().add(layer.runs[self.run]),
                    b: self.by_output.as_ptr(),
                    at,
                    to: self.to.add(self.run * layer.length * layer.outputs),
                    stride: layer.outputs,
                    add: block > 0,
                };
                outer_products::<S>(&outer, layer.length, self.panel..self.panel + 1);
            }
        }
    }
}
