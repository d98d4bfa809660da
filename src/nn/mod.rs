//! What inference and training share: networks as data, weights in and out, layers, CPU kernels,
//! device choice.

pub mod arch;
mod arithmetic;
mod buffer;
pub(crate) mod conv;
#[cfg(feature = "cuda-loader")]
mod cuda;
mod device;
pub(crate) mod gemm;
pub mod isa;
pub(crate) mod maps;
pub mod peak;
pub(crate) mod simd;
pub(crate) mod team;
pub(crate) mod together;
pub mod weights;

pub use arithmetic::{Arithmetic, ArithmeticError};
pub(crate) use buffer::Buffer;
pub use device::{Device, DeviceChoice, DeviceError};
pub use isa::{Isa, IsaError};
pub use weights::{ModelId, Precision, Tensor, Weights, WeightsError};
