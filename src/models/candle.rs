//! Our weights for models written in candle's layers.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::Weights;

/// The tensors of `weights` by name, as numbers of type `dtype` on `device`.
///
/// # Errors
/// When the device has no room for them.
pub fn var_builder(weights: &Weights, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    let mut tensors = HashMap::new();
    for (name, tensor) in &weights.tensors {
        let values = Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)?;
        tensors.insert(name.clone(), values.to_dtype(dtype)?);
    }
    Ok(VarBuilder::from_tensors(tensors, dtype, device))
}
