//! The network in plain tensor operations: the oracle for the kernels, and the path for any
//! device that the tensor library knows.

use candle_core::{DType, Device, Tensor};

use super::{Architecture, EmbedError};
use crate::nn::Weights;

/// A SphereFace network on a tensor library's device.
#[derive(Debug, Clone)]
pub struct Reference {
    layers: Vec<Layer>,
    units: [usize; 4],
    fc_weight: Tensor,
    fc_bias: Tensor,
}

/// A 3x3 convolution with padding 1 and its PReLU.
#[derive(Debug, Clone)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    slopes: Tensor,
    stride: usize,
}

impl Reference {
    /// Copies `weights` to `device` as numbers of type `dtype` (f64 for an oracle beyond f32).
    ///
    /// # Errors
    /// When a tensor is missing or has a wrong shape, or the device fails.
    pub fn new(
        architecture: &Architecture,
        weights: &Weights,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, EmbedError> {
        architecture.check(weights)?;
        let tensor = |name: &str, shape: &[usize]| -> Result<Tensor, EmbedError> {
            let values = architecture.tensor(weights, name)?;
            Ok(Tensor::from_slice(&values.data, shape, device)?.to_dtype(dtype)?)
        };
        let mut layers = Vec::new();
        for c in architecture.convolutions() {
            let name = format!("{}_{}", c.stage, c.index);
            let channels = [1, c.output, 1, 1];
            layers.push(Layer {
                weight: tensor(&format!("conv{name}.weight"), &[c.output, c.input, 3, 3])?,
                bias: tensor(&format!("conv{name}.bias"), &channels)?,
                slopes: tensor(&format!("relu{name}.weight"), &channels)?,
                stride: c.stride,
            });
        }
        Ok(Self {
            layers,
            units: architecture.units,
            fc_weight: tensor("fc5.weight", &[architecture.embedding, architecture.flattened()])?.t()?,
            fc_bias: tensor("fc5.bias", &[1, architecture.embedding])?,
        })
    }

    /// Features [n, embedding] of `input` [n, 3, 112, 96] (pixels as [`super::pixels`] gives
    /// them, of the type and on the device of the weights).
    ///
    /// # Errors
    /// When the tensor library fails, such as for an input of another shape.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, EmbedError> {
        let mut layers = self.layers.iter();
        let mut next = |x: &Tensor| -> Result<Tensor, EmbedError> {
            match layers.next() {
                Some(layer) => layer.forward(x),
                None => unreachable!("one layer for every convolution of the architecture"),
            }
        };
        let mut x = input.clone();
        for units in self.units {
            x = next(&x)?;
            for _ in 0..units {
                let inner = next(&x)?;
                x = (next(&inner)? + x)?;
            }
        }
        Ok(x.flatten_from(1)?.matmul(&self.fc_weight)?.broadcast_add(&self.fc_bias)?)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor, EmbedError> {
        let y = x.conv2d(&self.weight, 1, self.stride, 1, 1)?.broadcast_add(&self.bias)?;
        // PReLU: y where positive, slope * y elsewhere.
        let negative = (&y - y.relu()?)?;
        Ok((y.relu()? + negative.broadcast_mul(&self.slopes)?)?)
    }
}
