//! The network on a device of the tensor library.

use candle_core::{Device, Result};

use super::{Architecture, EmbedError};
use crate::align::{CROP_HEIGHT, CROP_WIDTH, Crop};
use crate::models::Weights;
use crate::models::arch::LAST_MAP;
use crate::nn::layers::{Convolution, Linear, Maps, Size};

/// A SphereFace network with its weights on a device.
#[derive(Debug)]
pub(super) struct TensorNetwork {
    device: Device,
    convolutions: Vec<Convolution>,
    units: [usize; 4],
    last: Linear,
}

/// Crops of pixels [n, 112, 96, 3] on a device.
pub(crate) fn crops(pixels: Vec<f32>, device: &Device) -> Result<Maps> {
    let size = Size { maps: pixels.len() / Crop::LEN_BYTES, rows: CROP_HEIGHT, columns: CROP_WIDTH };
    Maps::new(pixels, vec![size], 3, device)
}

impl TensorNetwork {
    /// Copies `weights` to `device`.
    ///
    /// # Errors
    /// When a tensor is missing or has a wrong shape, or the device fails.
    pub(super) fn new(
        architecture: &Architecture,
        weights: &Weights,
        device: &Device,
    ) -> std::result::Result<Self, EmbedError> {
        architecture.check(weights)?;
        let tensor = |name: &str| architecture.tensor(weights, name).map(|tensor| tensor.data.as_slice());
        let mut convolutions = Vec::new();
        for c in architecture.convolutions() {
            let name = format!("{}_{}", c.stage, c.index);
            let weight = (tensor(&format!("conv{name}.weight"))?, [c.output, c.input, 3, 3]);
            let bias = tensor(&format!("conv{name}.bias"))?;
            let slopes = tensor(&format!("relu{name}.weight"))?;
            convolutions.push(Convolution::new(device, weight, bias, Some(slopes), (1, c.stride))?);
        }
        let map = (architecture.channels[3], LAST_MAP.0, LAST_MAP.1);
        let last = Linear::new(device, tensor("fc5.weight")?, tensor("fc5.bias")?, None, map)?;
        Ok(Self { device: device.clone(), convolutions, units: architecture.units, last })
    }

    /// Features [n, embedding] of pixels [n, 112, 96, 3], as [`super::pixels`] gives them.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn forward(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let mut convolutions = self.convolutions.iter();
        let mut next = || match convolutions.next() {
            Some(convolution) => convolution,
            None => unreachable!("one for every convolution of the architecture"),
        };
        let mut x = crops(pixels, &self.device)?;
        for units in self.units {
            x = next().forward(&x, None)?;
            for _ in 0..units {
                let inner = next().forward(&x, None)?;
                x = next().forward(&inner, Some(&x))?;
            }
        }
        self.last.forward(&x)?.to_vec()
    }
}
