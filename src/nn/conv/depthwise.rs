//! Convolutions of each channel by itself.
//!
//! Such a layer has few products per value that it reads: nine per input value. So adjacent pixels are
//! computed together and share their loads.

use std::ops::Range;

use super::{Activation, Map, SharedPointer, share};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

/// A convolution of each channel by itself, with bias and PReLU.
#[derive(Debug)]
pub(crate) struct Depthwise {
    isa: Isa,
    /// `[row][column][channel]`.
    weights: Buffer,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    input: Map,
    output: Map,
    activation: Activation,
}

/// Adjacent pixels that are computed together, for a stride of 1 and of 2.
const TOGETHER: [usize; 2] = [4, 2];

/// Rows of outputs that one thread computes after one another.
const ROWS: usize = 4;

impl Depthwise {
    /// A layer from `input` to `output` maps, which have the same channels, padded; `weight` [channels, 1,
    /// rows, columns], and a stride and a padding (at the top and on the left) for both directions.
    ///
    /// # Panics
    /// When the kernel would reach out of the map and its border, or the sizes do not fit each other.
    pub(crate) fn new(
        isa: Isa,
        (weight, kernel): (&[f32], [usize; 2]),
        (input, output): (Map, Map),
        (stride, padding): ([usize; 2], [usize; 2]),
        activation: Activation,
    ) -> Self {
        let channels = input.channels;
        assert!(channels == output.channels && channels.is_multiple_of(simd::lanes(isa)));
        assert!(activation.len() >= channels);
        input.assert_within(kernel, (stride, padding), output);
        let taps = kernel[0] * kernel[1];
        assert!(weight.len().is_multiple_of(taps) && weight.len() <= taps * channels);
        let mut weights = Buffer::new(taps * channels);
        for (channel, values) in weight.chunks_exact(taps).enumerate() {
            for (tap, &value) in values.iter().enumerate() {
                weights[tap * channels + channel] = value;
            }
        }
        Self { isa, weights, kernel, stride, padding, input, output, activation }
    }

    /// Applies the layer to `maps` maps.
    ///
    /// # Panics
    /// When `input` or `output` has fewer than `maps` maps.
    pub(crate) fn apply(&self, team: &mut Team, maps: usize, input: &[f32], output: &mut [f32]) {
        assert!(input.len() >= maps * self.input.len() && output.len() >= maps * self.output.len());
        let parts = self.output.height.div_ceil(ROWS);
        let output = SharedPointer(output.as_mut_ptr());
        team.run(maps * parts, &|_, item| {
            let (map, part) = (item / parts, item % parts);
            let rows = share(self.output.height, part, parts);
            // SAFETY: the maps are there, as checked above; no two items share rows of a map.
            unsafe {
                let input = input.as_ptr().add(map * self.input.len());
                let output = output.get().add(map * self.output.len());
                simd::run(self.isa, Vouched::new(Rows { layer: self, input, output, rows }));
            }
        });
    }
}

/// Some rows of a map of outputs.
struct Rows<'a> {
    layer: &'a Depthwise,
    input: *const f32,
    output: *mut f32,
    rows: Range<usize>,
}

impl RawKernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Depthwise { kernel, stride, .. } = *self.layer;
        // SAFETY: `apply` has checked that the maps are there, and `new` that all windows are within them.
        unsafe {
            match (kernel, stride) {
                ([3, 3], [1, 1]) => self.three::<S, 1, { TOGETHER[0] }>(),
                ([3, 3], [2, 2]) => self.three::<S, 2, { TOGETHER[1] }>(),
                _ => self.any::<S>(),
            }
        }
    }
}

impl Rows<'_> {
    /// Kernels of 3 x 3, `X` pixels at a time.
    ///
    /// # Safety
    /// As checked by [`Depthwise`]; the same holds for the other methods.
    #[inline(always)]
    unsafe fn three<S: Simd, const STRIDE: usize, const X: usize>(&self) {
        let layer = self.layer;
        for y in self.rows.clone() {
            let mut x = 0;
            // SAFETY: pixels inside the map of outputs.
            unsafe {
                while x + X <= layer.output.width {
                    self.pixels::<S, STRIDE, X>(y, x);
                    x += X;
                }
                while x < layer.output.width {
                    self.pixels::<S, STRIDE, 1>(y, x);
                    x += 1;
                }
            }
        }
    }

    /// `X` pixels of outputs from (y, x) on. Each is one chain of sums, row by row, whatever `X`.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const STRIDE: usize, const X: usize>(&self, y: usize, x: usize) {
        let layer = self.layer;
        let (channels, pitch) = (layer.input.channels, layer.input.pitch());
        let activation = layer.activation.at(0);
        // SAFETY: the windows of these pixels are within the map, as are the pixels; channels are whole
        // vectors.
        unsafe {
            let from = self.input.add(layer.input.corner([STRIDE; 2], layer.padding, [y, x]));
            let to = self.output.add(layer.output.at(y, x));
            let weights = layer.weights.as_ptr();
            for c in (0..channels).step_by(S::LANES) {
                let mut sums = [S::splat(0.0); X];
                for row in 0..3 {
                    let mut taps = [S::splat(0.0); 3];
                    for (column, tap) in taps.iter_mut().enumerate() {
                        *tap = S::load(weights.add((3 * row + column) * channels + c));
                    }
                    let from = from.add(row * pitch + c);
                    for column in 0..(X - 1) * STRIDE + 3 {
                        let value = S::load(from.add(column * channels));
                        for x in 0..X {
                            if column >= x * STRIDE && column < x * STRIDE + 3 {
                                sums[x] = S::fma(value, taps[column - x * STRIDE], sums[x]);
                            }
                        }
                    }
                }
                for x in 0..X {
                    S::store(to.add(x * channels + c), activation.apply::<S>(c, sums[x]));
                }
            }
        }
    }

    /// Kernels of any size, a pixel at a time.
    #[inline(always)]
    unsafe fn any<S: Simd>(&self) {
        let layer = self.layer;
        let (channels, pitch) = (layer.input.channels, layer.input.pitch());
        let activation = layer.activation.at(0);
        let [rows, columns] = layer.kernel;
        for (y, x) in self.rows.clone().flat_map(|y| (0..layer.output.width).map(move |x| (y, x))) {
            // SAFETY: the window of the pixel is within the map, as is the pixel; channels are whole
            // vectors.
            unsafe {
                let from = self.input.add(layer.input.corner(layer.stride, layer.padding, [y, x]));
                let to = self.output.add(layer.output.at(y, x));
                for c in (0..channels).step_by(S::LANES) {
                    let mut sum = S::splat(0.0);
                    let mut weights = layer.weights.as_ptr().add(c);
                    for row in 0..rows {
                        for column in 0..columns {
                            let value = S::load(from.add(row * pitch + column * channels + c));
                            sum = S::fma(value, S::load(weights), sum);
                            weights = weights.add(channels);
                        }
                    }
                    S::store(to.add(c), activation.apply::<S>(c, sum));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv::padded;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed) % 101) as f32 / 64.0 - 0.75).collect()
    }

    /// A size of map, a kernel, strides and paddings (top, left, bottom, right).
    type Case = ([usize; 2], [usize; 2], [usize; 2], [usize; 4]);

    const CASES: [Case; 9] = [
        ([5, 7], [3, 3], [1, 1], [1; 4]),
        ([1, 1], [3, 3], [1, 1], [1; 4]),
        ([6, 9], [3, 3], [2, 2], [1; 4]),
        ([7, 8], [3, 3], [2, 2], [0, 0, 1, 1]),
        ([13, 12], [3, 3], [1, 1], [0; 4]),
        ([7, 7], [7, 7], [1, 1], [0; 4]),
        ([8, 6], [5, 3], [1, 2], [2, 1, 2, 1]),
        ([4, 5], [1, 1], [1, 1], [0; 4]),
        ([9, 11], [2, 2], [2, 2], [0; 4]),
    ];

    /// The definition of the layer, in f64.
    fn defined(
        case: Case,
        weight: &[f32],
        channels: usize,
        at: &dyn Fn(usize, isize, isize) -> f64,
    ) -> Vec<f64> {
        let (size, [rows, columns], stride, padding) = case;
        let [height, width] = [0, 1]
            .map(|axis| (size[axis] + padding[axis] + padding[axis + 2] - case.1[axis]) / stride[axis] + 1);
        let mut out = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for c in 0..channels {
                    let mut sum = 0.0;
                    for row in 0..rows {
                        for column in 0..columns {
                            let y = (y * stride[0] + row) as isize - padding[0] as isize;
                            let x = (x * stride[1] + column) as isize - padding[1] as isize;
                            sum += at(c, y, x) * f64::from(weight[(c * rows + row) * columns + column]);
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    #[test]
    fn layers_give_what_they_are_defined_as() {
        for isa in Isa::available() {
            for (case, channels) in CASES.iter().flat_map(|&case| [(case, 5), (case, 33)]) {
                let (size, kernel, stride, padding) = case;
                let stored = padded(channels, isa);
                let border = *padding.iter().max().unwrap();
                let input = Map::bordered(size, stored, border, [size[0] + 3, 0]);
                let out = [0, 1].map(|axis| {
                    (size[axis] + padding[axis] + padding[axis + 2] - kernel[axis]) / stride[axis] + 1
                });
                let output = Map::bordered(out, stored, 1, [0; 2]);
                let weight = numbers(channels * kernel[0] * kernel[1], 3);
                let (bias, slopes) = (numbers(channels, 5), numbers(channels, 9));
                let activation = Activation::new(&bias, Some(&slopes), stored);
                let layer = Depthwise::new(
                    isa,
                    (&weight, kernel),
                    (input, output),
                    (stride, [padding[0], padding[1]]),
                    activation,
                );
                let value = |map: usize, c: usize, y: isize, x: isize| {
                    let inside = (0..size[0] as isize).contains(&y) && (0..size[1] as isize).contains(&x);
                    let at = y * 31 + x * 7 + (3 * c + 5 * map) as isize;
                    if inside { (at * 13 % 97) as f64 / 64.0 - 0.7 } else { 0.0 }
                };
                for (maps, threads) in [(1, 1), (3, 2)] {
                    let mut from = vec![0.0; maps * input.len()];
                    for map in 0..maps {
                        for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
                            for c in 0..channels {
                                from[map * input.len() + input.at(y, x) + c] =
                                    value(map, c, y as isize, x as isize) as f32;
                            }
                        }
                    }
                    let mut to = vec![0.0; maps * output.len()];
                    layer.apply(&mut Team::new(threads), maps, &from, &mut to);
                    for map in 0..maps {
                        let expected = defined(case, &weight, channels, &|c, y, x| value(map, c, y, x));
                        for (i, sum) in expected.into_iter().enumerate() {
                            let (pixel, c) = (i / channels, i % channels);
                            let sum = sum + f64::from(bias[c]);
                            let wanted = if sum < 0.0 { sum * f64::from(slopes[c]) } else { sum };
                            let found =
                                to[map * output.len() + output.at(pixel / out[1], pixel % out[1]) + c];
                            assert!(
                                (f64::from(found) - wanted).abs() < 1e-4,
                                "{isa}, {case:?}: {found} {wanted}"
                            );
                        }
                        // Nothing is written outside the pixels.
                        let border = &to[map * output.len()..][..output.pitch()];
                        assert!(border.iter().all(|&x| x == 0.0), "{isa}, {case:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn windows_that_reach_out_of_the_map_are_refused() {
        let isa = Isa::best();
        let stored = padded(1, isa);
        let refused = |border: usize, output: [usize; 2], padding: usize| {
            let input = Map::bordered([4, 4], stored, border, [0; 2]);
            let output = Map::bordered(output, stored, 0, [0; 2]);
            let make = || {
                let activation = Activation::new(&[0.0], None, stored);
                Depthwise::new(isa, (&[1.0; 9], [3; 2]), (input, output), ([1; 2], [padding; 2]), activation)
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(make()))).is_err()
        };
        assert!(!refused(1, [4, 4], 1) && !refused(0, [2, 2], 0) && !refused(2, [4, 4], 1));
        assert!(
            refused(0, [4, 4], 1) && refused(1, [5, 4], 1) && refused(1, [4, 5], 1) && refused(0, [2, 3], 0)
        );
    }
}
