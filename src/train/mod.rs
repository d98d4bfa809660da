//! Training: from aligned crops of known people to a network, with the methods of the authors of SphereFace
//! and of their successors.
//!
//! - [`config`]: the settings of a run, its presets;
//! - [`dataset`], [`augment`], [`loader`]: from files to batches, ahead of the training;
//! - [`network`] in f32 and [`tiled`] in bfloat16 on the CPU, [`tensors`] on any device, [`backend`] to choose between them;
//!   [`loss`], [`model`], [`parameters`]: from a batch to gradients;
//! - [`optimiser`], [`schedule`]: from gradients to better weights;
//! - [`checkpoint`], [`metrics`], [`plot`], [`validate`]: state and reports of a run;
//! - [`trainer`]: the loop around all of them.
//!
//! On the CPU, results depend only on the settings, the seed, the instruction set and the precision: a run that was
//! stopped and resumed gives the same bits as one that was not. A checkpoint is independent of the device. On another
//! device only the rounding differs.

pub mod augment;
pub mod backend;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod dataset;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod last;
pub mod loader;
pub mod loss;
pub mod metrics;
pub mod model;
#[cfg(test)]
mod model_tests;
pub mod network;
#[cfg(test)]
mod network_tests;
pub mod optimiser;
pub mod parameters;
pub mod plot;
pub mod schedule;
#[cfg(feature = "candle")]
pub mod tensors;
pub mod tiled;
pub mod trainer;
pub mod validate;

pub use config::Config;
pub use dataset::Dataset;
pub use error::TrainError;
pub use trainer::{Event, Outcome, Trainer};
