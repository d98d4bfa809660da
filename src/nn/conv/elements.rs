//! Elementwise layers: scales and sums of maps.

use super::{Activation, ActivationAt, Map, SharedPointer};
use crate::nn::Isa;
use crate::nn::buffer::Buffer;
use crate::nn::simd::{self, RawKernel, Simd, Vouched};
use crate::nn::team::Team;

/// One map times a scale per channel, or the sum of two maps; then a shift and PReLU per channel.
#[derive(Debug)]
pub(crate) struct Elements {
    isa: Isa,
    /// For one map; a sum of two maps has none.
    scale: Option<Buffer>,
    from: [Map; 2],
    to: Map,
    activation: Activation,
}

impl Elements {
    /// A map times `scale`, plus the bias of the activation.
    ///
    /// # Panics
    /// When the maps do not have the same size, or their channels are not whole vectors.
    pub(crate) fn scale(isa: Isa, scale: &[f32], (from, to): (Map, Map), activation: Activation) -> Self {
        let scale = Buffer::padded(scale, from.channels);
        Self::new(isa, Some(scale), [from; 2], to, activation)
    }

    /// The sum of two maps.
    ///
    /// # Panics
    /// As [`scale`](Self::scale).
    pub(crate) fn sum(isa: Isa, from: [Map; 2], to: Map, activation: Activation) -> Self {
        Self::new(isa, None, from, to, activation)
    }

    fn new(isa: Isa, scale: Option<Buffer>, from: [Map; 2], to: Map, activation: Activation) -> Self {
        let size = |map: Map| (map.height, map.width, map.channels);
        assert!(from.iter().all(|&map| size(map) == size(to)));
        assert!(to.channels.is_multiple_of(simd::lanes(isa)) && activation.len() >= to.channels);
        Self { isa, scale, from, to, activation }
    }

    /// Applies it to `maps` maps: to those of `inputs`, which for a scale are the same twice.
    ///
    /// # Panics
    /// When an input or the output has fewer than `maps` maps.
    pub(crate) fn apply(&self, team: &mut Team, maps: usize, inputs: [&[f32]; 2], output: &mut [f32]) {
        assert!(inputs.iter().zip(self.from).all(|(input, from)| input.len() >= maps * from.len()));
        assert!(output.len() >= maps * self.to.len());
        let output = SharedPointer(output.as_mut_ptr());
        let height = self.to.height;
        team.run(maps * height, &|_, item| {
            let (map, y) = (item / height, item % height);
            // SAFETY: the maps are there, as checked above; no two items share a row of a map.
            unsafe {
                let place = |i: usize| map * self.from[i].len() + self.from[i].at(y, 0);
                let row = Row {
                    layer: self,
                    from: [inputs[0].as_ptr().add(place(0)), inputs[1].as_ptr().add(place(1))],
                    to: output.get().add(map * self.to.len() + self.to.at(y, 0)),
                };
                simd::run(self.isa, Vouched::new(row));
            }
        });
    }
}

/// A row of pixels.
struct Row<'a> {
    layer: &'a Elements,
    from: [*const f32; 2],
    to: *mut f32,
}

impl RawKernel for Row<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Elements { scale, to: Map { width, channels, .. }, activation, .. } = self.layer;
        let activation: ActivationAt = activation.at(0);
        for pixel in 0..*width {
            for c in (0..*channels).step_by(S::LANES) {
                let at = pixel * channels + c;
                // SAFETY: `apply` has checked that the rows are there; channels are whole vectors.
                unsafe {
                    let first = S::load(self.from[0].add(at));
                    let value = match scale {
                        Some(scale) => S::mul(first, S::load(scale.as_ptr().add(c))),
                        None => S::add(first, S::load(self.from[1].add(at))),
                    };
                    S::store(self.to.add(at), activation.apply::<S>(c, value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv::padded;

    #[test]
    fn scales_and_sums_are_those_of_each_number() {
        for isa in Isa::available() {
            let channels = 2 * simd::lanes(isa) + 1;
            let stored = padded(channels, isa);
            let maps = [1, 0, 2].map(|border| Map::bordered([3, 5], stored, border, [0; 2]));
            let value = |map: usize, i: usize| ((i * 29 + map * 11) % 83) as f32 / 32.0 - 1.3;
            let per_channel =
                |seed: usize| -> Vec<f32> { (0..channels).map(|c| value(seed, 3 * c)).collect() };
            let (scale, bias, slopes) = (per_channel(4), per_channel(5), per_channel(6));
            let activation = || Activation::new(&bias, Some(&slopes), stored);
            let pixels = || (0..3).flat_map(|y| (0..5).map(move |x| (y, x)));
            let fill = |map: Map, seed: usize| {
                let mut numbers = vec![0.0; 2 * map.len()];
                for (n, (y, x)) in (0..2).flat_map(|n| pixels().map(move |at| (n, at))) {
                    for c in 0..channels {
                        numbers[n * map.len() + map.at(y, x) + c] = value(seed, 100 * n + 31 * y + 7 * x + c);
                    }
                }
                numbers
            };
            let inputs = [fill(maps[0], 1), fill(maps[1], 2)];
            let sum = Elements::sum(isa, [maps[0], maps[1]], maps[2], activation());
            let scaled = Elements::scale(isa, &scale, (maps[0], maps[2]), activation());
            for (layer, add) in [(sum, true), (scaled, false)] {
                let mut output = vec![0.0; 2 * maps[2].len()];
                let second = if add { &inputs[1] } else { &inputs[0] };
                layer.apply(&mut Team::new(2), 2, [&inputs[0], second], &mut output);
                for (n, (y, x)) in (0..2).flat_map(|n| pixels().map(move |at| (n, at))) {
                    for c in 0..channels {
                        let at = |map: Map| n * map.len() + map.at(y, x) + c;
                        let (a, b) = (inputs[0][at(maps[0])], inputs[1][at(maps[1])]);
                        let y = bias[c] + if add { a + b } else { a * scale[c] };
                        let wanted = if y < 0.0 { y * slopes[c] } else { y };
                        assert!((output[at(maps[2])] - wanted).abs() < 1e-5, "{isa}, {add}, {c}");
                    }
                }
                assert!(output[..maps[2].at(0, 0)].iter().all(|&x| x == 0.0), "{isa}");
            }
        }
    }
}
