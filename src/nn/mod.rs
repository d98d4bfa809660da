//! Shared by inference and training: CPU kernels and their threads, layers on a GPU, the choice of the
//! device. Nothing here depends on a particular network.

mod arithmetic;
mod buffer;
mod choice;
#[cfg(feature = "candle")]
pub(crate) mod coalescer;
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
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) mod layers;
pub mod peak;
pub(crate) mod simd;
pub(crate) mod team;
pub(crate) mod tiles;

pub use arithmetic::{Arithmetic, ArithmeticError};
pub(crate) use buffer::Buffer;
pub use choice::{ArithmeticChoice, ArithmeticReason, ChosenArithmetic};
pub use device::{Device, DeviceChoice, DeviceError};
pub use isa::{Isa, IsaError};
