//! Training.

pub mod loss;
pub mod network;
pub mod parameters;
#[cfg(test)]
mod network_tests;
