//! SphereFace in candle's own layers: the reference that the kernels, their gradients and exported files are compared
//! with. It runs wherever candle does, slower than our kernels.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, PReLU, VarBuilder, conv2d, linear, prelu};

use super::Architecture;
use crate::models::arch;

/// A SphereFace network.
#[derive(Debug, Clone)]
pub struct SphereFace {
    stages: Vec<Stage>,
    fully_connected: Linear,
}

/// A convolution of stride 2 and the residual units after it.
#[derive(Debug, Clone)]
struct Stage {
    first: Convolution,
    units: Vec<[Convolution; 2]>,
}

/// A 3x3 convolution and its PReLU.
#[derive(Debug, Clone)]
struct Convolution {
    convolution: Conv2d,
    prelu: PReLU,
}

impl SphereFace {
    /// A network of that architecture, its weights named as in our files: `conv1_1.weight` [outputs, inputs, 3, 3],
    /// `conv1_1.bias`, `relu1_1.weight`, ..., `fc5.weight` [embedding, inputs], `fc5.bias`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(architecture: &Architecture, vb: VarBuilder<'_>) -> Result<Self> {
        let stages =
            architecture.stages().iter().map(|stage| Stage::new(stage, &vb)).collect::<Result<_>>()?;
        let fully_connected = linear(architecture.flattened(), architecture.embedding, vb.pp("fc5"))?;
        Ok(Self { stages, fully_connected })
    }
}

impl Stage {
    fn new(stage: &arch::Stage, vb: &VarBuilder<'_>) -> Result<Self> {
        let layer = |convolution: &arch::Convolution| Convolution::new(convolution, vb);
        let unit = |[first, second]: &[arch::Convolution; 2]| Ok([layer(first)?, layer(second)?]);
        let units = stage.units.iter().map(unit).collect::<Result<_>>()?;
        Ok(Self { first: layer(&stage.opening)?, units })
    }
}

impl Convolution {
    fn new(c: &arch::Convolution, vb: &VarBuilder<'_>) -> Result<Self> {
        let config = Conv2dConfig { padding: 1, stride: c.stride, ..Default::default() };
        let [convolution, slopes] = c.names().map(|name| vb.pp(name));
        Ok(Self {
            convolution: conv2d(c.input, c.output, 3, config, convolution)?,
            prelu: prelu(Some(c.output), slopes)?,
        })
    }
}

impl Module for SphereFace {
    /// Features [n, embedding] of crops [n, 3, 112, 96], pixels as [`pixels`](super::pixels) gives them.
    fn forward(&self, crops: &Tensor) -> Result<Tensor> {
        let x = self.stages.iter().try_fold(crops.clone(), |x, stage| stage.forward(&x))?;
        self.fully_connected.forward(&x.flatten_from(1)?)
    }
}

impl Module for Stage {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.first.forward(x)?;
        self.units.iter().try_fold(x, |x, [inner, outer]| outer.forward(&inner.forward(&x)?)? + x)
    }
}

impl Module for Convolution {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.prelu.forward(&self.convolution.forward(x)?)
    }
}

/// Crops [n, 112, 96, 3], as [`pixels`](super::pixels) gives them, as a tensor [n, 3, 112, 96].
///
/// # Errors
/// When these are no whole crops, or the device fails.
pub fn crops(pixels: &[f32], dtype: DType, device: &Device) -> Result<Tensor> {
    use crate::align::{CROP_HEIGHT, CROP_WIDTH};
    let shape = ((), CROP_HEIGHT, CROP_WIDTH, 3);
    Tensor::from_slice(pixels, shape, device)?.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(dtype)
}
