//! The network in plain tensor operations: the oracle for the kernels, and the path for any
//! device that the tensor library knows.

use candle_core::{DType, Device, Result, Tensor};

use super::{Architecture, EmbedError};
use crate::nn::Weights;
use crate::nn::tensors::{Convolution, Linear, Place};

/// A SphereFace network on a tensor library's device.
#[derive(Debug, Clone)]
pub struct Reference {
    convolutions: Vec<Convolution>,
    units: [usize; 4],
    fully_connected: Linear,
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
        let place = Place { device: device.clone(), dtype };
        let tensor = |name: &str| architecture.tensor(weights, name).map(|tensor| tensor.data.as_slice());
        let mut convolutions = Vec::new();
        for c in architecture.convolutions() {
            let name = format!("{}_{}", c.stage, c.index);
            let weight = (tensor(&format!("conv{name}.weight"))?, [c.output, c.input, 3, 3]);
            let bias = tensor(&format!("conv{name}.bias"))?;
            let slopes = tensor(&format!("relu{name}.weight"))?;
            convolutions.push(Convolution::new(&place, weight, bias, Some(slopes), (1, c.stride))?);
        }
        let weight = (tensor("fc5.weight")?, [architecture.embedding, architecture.flattened()]);
        let fully_connected = Linear::new(&place, weight, tensor("fc5.bias")?, None)?;
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
        self.fully_connected.forward(&x)
    }
}
