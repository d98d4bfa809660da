//! What inference and training share: weights in and out, layers, CPU kernels.

pub mod isa;
pub mod weights;

pub use isa::{Isa, IsaError};
pub use weights::{ModelId, Precision, Tensor, Weights, WeightsError};
