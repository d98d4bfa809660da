//! The backend of training: our kernels or the tensor library.

use super::TrainError;
use super::network::{self, Network};
use super::parameters::Parameter;
#[cfg(feature = "candle")]
use super::tensors::{self, TensorNetwork};
use crate::embed::Architecture;
use crate::nn::Device;

/// A network that can be trained, on its device. Parameters, gradients and features are always on the CPU, so
/// only the speed and rounding of a run depend on the device.
#[derive(Debug)]
pub enum Backend {
    /// Our kernels, on the CPU.
    Kernels(Box<Network>),
    /// The tensor library.
    #[cfg(feature = "candle")]
    Tensors(Box<TensorNetwork>),
}

impl Backend {
    /// A network for `parameters` as [`super::parameters::network`] lists them (more may follow).
    /// On the CPU, `threads` threads share its work.
    ///
    /// # Panics
    /// When the parameters are not those of `architecture`.
    pub fn new(
        architecture: Architecture,
        parameters: &[Parameter],
        device: &Device,
        threads: usize,
    ) -> Self {
        #[cfg(feature = "candle")]
        if let Some(tensors) = device.tensors() {
            return Self::Tensors(Box::new(TensorNetwork::new(architecture, tensors.clone())));
        }
        Self::Kernels(Box::new(Network::new(architecture, parameters, device.isa(), threads)))
    }

    /// Number of samples processed together.
    pub fn chunk(&self) -> usize {
        match self {
            Self::Kernels(_) => network::CHUNK,
            #[cfg(feature = "candle")]
            Self::Tensors(_) => tensors::CHUNK,
        }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        match self {
            Self::Kernels(network) => network.architecture(),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.architecture(),
        }
    }

    /// Updates the network with the changed values of `parameters`.
    pub fn refresh(&mut self, parameters: &[Parameter]) {
        match self {
            Self::Kernels(network) => network.refresh(parameters),
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
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.forward(parameters, pixels).map_err(failed),
        }
    }

    /// Begins a batch of chunks.
    pub fn begin(&mut self) {
        match self {
            Self::Kernels(_) => {}
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
        #[cfg(not(feature = "candle"))]
        let _ = parameters;
        match self {
            Self::Kernels(_) => Ok(()),
            #[cfg(feature = "candle")]
            Self::Tensors(network) => network.collect(parameters).map_err(failed),
        }
    }
}

#[cfg(feature = "candle")]
fn failed(error: candle_core::Error) -> TrainError {
    TrainError::Device(error.to_string())
}
