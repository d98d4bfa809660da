//! The backend of training: our kernels or the tensor library.

use super::TrainError;
use super::config::Precision;
use super::network::{self, Network};
use super::parameters::Parameter;
#[cfg(feature = "candle")]
use super::tensors::{self, TensorNetwork};
use super::tiled::TiledNetwork;
use crate::embed::Architecture;
use crate::nn::tiles::TileUnit;
use crate::nn::{Arithmetic, Device};

/// A network that can be trained, on its device. Parameters, gradients and features are always on the CPU, so
/// only the speed and rounding of a run depend on the device.
#[derive(Debug)]
pub enum Backend {
    /// Our kernels in f32, on the CPU.
    Kernels(Box<Network>),
    /// Our kernels in bfloat16, on a CPU with AMX.
    Tiles(Box<TiledNetwork>),
    /// The tensor library.
    #[cfg(feature = "candle")]
    Tensors(Box<TensorNetwork>),
}

impl Backend {
    /// A network for `parameters` as [`super::parameters::network`] lists them (more may follow).
    /// On the CPU, `threads` threads share its work.
    ///
    /// # Errors
    /// When `device` cannot compute in that precision; never for [`Precision::Auto`].
    ///
    /// # Panics
    /// When the parameters are not those of `architecture`.
    pub fn new(
        architecture: Architecture,
        parameters: &[Parameter],
        device: &Device,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let refuse = |reason: &str| {
            Err(TrainError::Setting { key: "run.precision", value: "bf16".into(), reason: reason.into() })
        };
        #[cfg(feature = "candle")]
        if let Some(tensors) = device.tensors() {
            if precision == Precision::Bf16 {
                return refuse("a GPU trains in f32: use auto, or --device cpu");
            }
            return Ok(Self::Tensors(Box::new(TensorNetwork::new(architecture, tensors.clone()))));
        }
        let isa = device.isa();
        Ok(match (precision, TileUnit::of_this_machine(isa)) {
            (Precision::Auto | Precision::Bf16, Some(unit)) => {
                Self::Tiles(Box::new(TiledNetwork::new(architecture, parameters, (isa, unit), threads)))
            }
            (Precision::Bf16, None) => {
                return refuse(
                    "it would be slower than f32 here, because this CPU has no AMX: use auto or f32",
                );
            }
            _ => Self::Kernels(Box::new(Network::new(architecture, parameters, isa, threads))),
        })
    }

    /// The number format of the products of its convolutions.
    pub fn arithmetic(&self) -> Arithmetic {
        match self {
            Self::Tiles(_) => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }

    /// Number of samples processed together.
    pub fn chunk(&self) -> usize {
        match self {
            Self::Kernels(_) | Self::Tiles(_) => network::CHUNK,
            #[cfg(feature = "candle")]
            Self::Tensors(_) => tensors::CHUNK,
        }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        match self {
            Self::Kernels(network) => network.architecture(),
            Self::Tiles(network) => network.architecture(),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.architecture(),
        }
    }

    /// Updates the network with the changed values of `parameters`.
    pub fn refresh(&mut self, parameters: &[Parameter]) {
        match self {
            Self::Kernels(network) => network.refresh(parameters),
            Self::Tiles(network) => network.refresh(parameters),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.refresh(),
        }
    }

    /// Features [samples, embedding] of at most [`chunk`](Self::chunk) crops [samples, 112, 96, 3].
    ///
    /// # Errors
    /// When the device fails; the kernels never do.
    pub fn forward(&mut self, parameters: &[Parameter], pixels: &[f32]) -> Result<Vec<f32>, TrainError> {
        match self {
            Self::Kernels(network) => Ok(network.forward(parameters, pixels)),
            Self::Tiles(network) => Ok(network.forward(parameters, pixels)),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.forward(parameters, pixels).map_err(failed),
        }
    }

    /// Begins a batch of chunks.
    pub fn begin(&mut self) {
        match self {
            Self::Kernels(_) => {}
            Self::Tiles(network) => network.begin(),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.begin(),
        }
    }

    /// Adds up the gradients w.r.t. all parameters, given the gradient w.r.t. the features
    /// [samples, embedding] of the chunk that went forward last. They are those of the parameters
    /// after [`collect`](Self::collect).
    ///
    /// # Errors
    /// When the device fails; the gradients are then invalid.
    pub fn backward(&mut self, parameters: &mut [Parameter], by_feature: &[f32]) -> Result<(), TrainError> {
        match self {
            Self::Kernels(network) => network.backward(parameters, by_feature),
            Self::Tiles(network) => network.backward(parameters, by_feature),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.backward(by_feature).map_err(failed)?,
        }
        Ok(())
    }

    /// Adds the gradients of the batch's chunks to those of the parameters.
    ///
    /// # Errors
    /// When the device fails; the gradients are then invalid.
    pub fn collect(&mut self, parameters: &mut [Parameter]) -> Result<(), TrainError> {
        match self {
            Self::Kernels(_) => Ok(()),
            Self::Tiles(network) => {
                network.collect(parameters);
                Ok(())
            }
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.collect(parameters).map_err(failed),
        }
    }
}

#[cfg(feature = "candle")]
fn failed(error: candle_core::Error) -> TrainError {
    TrainError::Device(error.to_string())
}
