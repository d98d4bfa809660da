//! What inference and training share: networks as data, weights in and out, layers, CPU kernels,
//! device choice.

pub mod arch;
mod arithmetic;
mod buffer;
#[cfg(feature = "candle")]
pub mod candle;
mod choice;
// Gradients are for training.
#[cfg_attr(not(feature = "train"), allow(dead_code, unused_imports))]
pub(crate) mod conv;
#[cfg(feature = "cuda-loader")]
mod cuda;
mod device;
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) mod gemm;
pub mod isa;
#[cfg(feature = "candle")]
pub(crate) mod maps;
pub mod peak;
pub mod plan;
pub(crate) mod simd;
pub(crate) mod team;
#[cfg(feature = "candle")]
pub(crate) mod together;
pub mod weights;

pub use arithmetic::{Arithmetic, ArithmeticError};
pub(crate) use buffer::Buffer;
pub use choice::{ArithmeticChoice, ArithmeticReason, ChosenArithmetic};
pub use device::{Device, DeviceChoice, DeviceError};
pub use isa::{Isa, IsaError};
pub use weights::{ModelId, Precision, Tensor, Weights, WeightsError};
