//! What inference and training share: networks as data, weights in and out, CPU kernels.

pub mod arch;
mod buffer;
pub(crate) mod conv;
pub(crate) mod gemm;
pub mod isa;
pub mod peak;
pub(crate) mod simd;
pub(crate) mod team;
pub mod weights;

pub(crate) use buffer::Buffer;
pub use isa::{Isa, IsaError};
pub use weights::{ModelId, Precision, Tensor, Weights, WeightsError};
