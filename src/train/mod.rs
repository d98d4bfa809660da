//! Training.

pub mod augment;
pub mod config;
pub mod dataset;
mod error;
pub mod loader;
pub mod loss;
pub mod network;
#[cfg(test)]
mod network_tests;
pub mod optimiser;
pub mod parameters;
pub mod schedule;

pub use error::TrainError;
