//! The network in the tensor library's own operations: the oracle for the kernels and for the
//! layers of a GPU. Maps are [n, channels, rows, columns].

use candle_core::{DType, Device, Result, Tensor};

use super::{Architecture, EmbedError};
use crate::nn::Weights;

/// A SphereFace network on a tensor library's device.
#[derive(Debug, Clone)]
pub struct Reference {
    convolutions: Vec<Convolution>,
    units: [usize; 4],
    /// Weight [inputs, outputs] and bias [1, outputs].
    fully_connected: (Tensor, Tensor),
}

/// A 3x3 convolution and its PReLU.
#[derive(Debug, Clone)]
struct Convolution {
    weight: Tensor,
    bias: Tensor,
    slopes: Tensor,
    stride: usize,
}

impl Convolution {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let sums = x.conv2d(&self.weight, 1, self.stride, 1, 1)?.broadcast_add(&self.bias)?;
        let positive = sums.relu()?;
        (sums - &positive)?.broadcast_mul(&self.slopes)? + positive
    }
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
    ) -> std::result::Result<Self, EmbedError> {
        architecture.check(weights)?;
        let tensor = |name: &str, shape: &[usize]| -> std::result::Result<Tensor, EmbedError> {
            let values = &architecture.tensor(weights, name)?.data;
            Ok(Tensor::from_slice(values, shape, device)?.to_dtype(dtype)?)
        };
        let mut convolutions = Vec::new();
        for c in architecture.convolutions() {
            let name = format!("{}_{}", c.stage, c.index);
            convolutions.push(Convolution {
                weight: tensor(&format!("conv{name}.weight"), &[c.output, c.input, 3, 3])?,
                bias: tensor(&format!("conv{name}.bias"), &[1, c.output, 1, 1])?,
                slopes: tensor(&format!("relu{name}.weight"), &[1, c.output, 1, 1])?,
                stride: c.stride,
            });
        }
        let weight = tensor("fc5.weight", &[architecture.embedding, architecture.flattened()])?;
        let fully_connected = (weight.t()?, tensor("fc5.bias", &[1, architecture.embedding])?);
        Ok(Self { convolutions, units: architecture.units, fully_connected })
    }

    /// Features [n, embedding] of `input` [n, 3, 112, 96] (pixels as [`super::pixels`] gives
    /// them, of the type and on the device of the weights).
    ///
    /// # Errors
    /// When the tensor library fails, such as for an input of another shape.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let mut convolutions = self.convolutions.iter();
        let mut next = |x: &Tensor| match convolutions.next() {
            Some(convolution) => convolution.forward(x),
            None => unreachable!("one for every convolution of the architecture"),
        };
        let mut x = input.clone();
        for units in self.units {
            x = next(&x)?;
            for _ in 0..units {
                let inner = next(&x)?;
                x = (next(&inner)? + x)?;
            }
        }
        let (weight, bias) = &self.fully_connected;
        x.flatten_from(1)?.matmul(weight)?.broadcast_add(bias)
    }
}
