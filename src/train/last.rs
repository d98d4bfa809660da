//! The fully connected layer at the end of a network.

use super::parameters::Parameter;
use crate::embed::Architecture;
use crate::models::arch::LAST_MAP;
use crate::nn::conv::Map;
use crate::nn::gemm::{Matrix, multiply};

/// The layer, and its input of a chunk of samples.
#[derive(Debug)]
pub(super) struct LastLayer {
    architecture: Architecture,
    /// [samples, channels x rows x columns]
    flat: Vec<f32>,
    /// The gradient w.r.t. it.
    by_flat: Vec<f32>,
}

impl LastLayer {
    /// That of networks of `architecture`.
    pub(super) fn new(architecture: Architecture) -> Self {
        Self { architecture, flat: Vec::new(), by_flat: Vec::new() }
    }

    /// The number of its weight in the list of parameters; its bias follows.
    fn place(&self) -> usize {
        super::network::place(self.architecture.convolutions().len())
    }

    /// Channels of the maps it reads.
    fn channels(&self) -> usize {
        self.architecture.channels[3]
    }

    /// Features [samples, embedding], given the maps of the last stage, on `threads` threads.
    pub(super) fn forward(
        &mut self,
        parameters: &[Parameter],
        samples: usize,
        (map, maps): (Map, &[f32]),
        threads: usize,
    ) -> Vec<f32> {
        let Architecture { embedding, .. } = self.architecture;
        self.flat.clear();
        for pixels in maps.chunks_exact(map.len()).take(samples) {
            for c in 0..self.channels() {
                for y in 0..LAST_MAP.0 {
                    self.flat.extend((0..LAST_MAP.1).map(|x| pixels[map.at(y, x) + c]));
                }
            }
        }
        let [weight, bias] = &parameters[self.place()..][..2] else { unreachable!("two are taken") };
        let size = self.architecture.flattened();
        let mut features = bias.value.repeat(samples);
        multiply(
            &mut features,
            Matrix::new(&self.flat, samples, size),
            Matrix::new(&weight.value, embedding, size).t(),
            true,
            threads,
        );
        features
    }

    /// Adds the gradients w.r.t. weight and bias to them, and writes those w.r.t. the maps, given the gradient w.r.t. the
    /// features [samples, embedding] of the samples that went forward last.
    pub(super) fn backward(
        &mut self,
        parameters: &mut [Parameter],
        samples: usize,
        by_feature: &[f32],
        (map, by_maps): (Map, &mut [f32]),
        threads: usize,
    ) {
        let Architecture { embedding, .. } = self.architecture;
        let size = self.architecture.flattened();
        let place = self.place();
        let [weight, bias] = &mut parameters[place..][..2] else { unreachable!("two are taken") };
        let by_feature = Matrix::new(by_feature, samples, embedding);
        let flat = Matrix::new(&self.flat, samples, size);
        multiply(&mut weight.gradient, by_feature.t(), flat, true, threads);
        let ones = vec![1.0; samples];
        multiply(&mut bias.gradient, Matrix::new(&ones, 1, samples), by_feature, true, threads);
        self.by_flat.resize(samples * size, 0.0);
        let weight = Matrix::new(&weight.value, embedding, size);
        multiply(&mut self.by_flat, by_feature, weight, false, threads);
        for (flat, pixels) in self.by_flat.chunks_exact(size).zip(by_maps.chunks_exact_mut(map.len())) {
            for (c, plane) in flat.chunks_exact(LAST_MAP.0 * LAST_MAP.1).enumerate() {
                for (i, value) in plane.iter().enumerate() {
                    pixels[map.at(i / LAST_MAP.1, i % LAST_MAP.1) + c] = *value;
                }
            }
        }
    }
}
