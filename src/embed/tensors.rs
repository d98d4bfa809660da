//! The network on a device of the tensor library.

use candle_core::{Device, Result};

use super::{Architecture, EmbedError};
use crate::align::{CROP_HEIGHT, CROP_WIDTH, Crop};
use crate::models::Weights;
use crate::models::arch::{self, LAST_BIAS, LAST_MAP, LAST_WEIGHT};
use crate::nn::layers::{Convolution, Linear, Maps, Size};

/// A SphereFace network with its weights on a device.
#[derive(Debug)]
pub(super) struct TensorNetwork {
    device: Device,
    stages: Vec<Stage>,
    last: Linear,
}

/// The layers of a stage.
#[derive(Debug)]
struct Stage {
    opening: Convolution,
    units: Vec<[Convolution; 2]>,
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
        let convolution = |c: &arch::Convolution| -> std::result::Result<_, EmbedError> {
            let weight = (tensor(&c.weight())?, [c.output, c.input, 3, 3]);
            let (bias, slopes) = (tensor(&c.bias())?, tensor(&c.slopes())?);
            Ok(Convolution::new(device, weight, bias, Some(slopes), (1, c.stride))?)
        };
        let unit = |[first, second]: &[arch::Convolution; 2]| Ok([convolution(first)?, convolution(second)?]);
        let stage = |stage: &arch::Stage| -> std::result::Result<_, EmbedError> {
            let units = stage.units.iter().map(unit).collect::<std::result::Result<_, EmbedError>>()?;
            Ok(Stage { opening: convolution(&stage.opening)?, units })
        };
        let stages = architecture.stages().iter().map(stage).collect::<std::result::Result<_, _>>()?;
        let map = (architecture.channels[3], LAST_MAP.0, LAST_MAP.1);
        let last = Linear::new(device, tensor(LAST_WEIGHT)?, tensor(LAST_BIAS)?, None, map)?;
        Ok(Self { device: device.clone(), stages, last })
    }

    /// Features [n, embedding] of pixels [n, 112, 96, 3], as [`super::pixels`] gives them.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn forward(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let mut x = crops(pixels, &self.device)?;
        for stage in &self.stages {
            x = stage.opening.forward(&x, None)?;
            for [first, second] in &stage.units {
                x = second.forward(&first.forward(&x, None)?, Some(&x))?;
            }
        }
        self.last.forward(&x)?.to_vec()
    }
}
