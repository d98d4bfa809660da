//! The stage graph: threads, channels, order, batching, statistics; and the jobs built on it.
//!
//! [`graph`] knows nothing of video or faces: it moves items through stages. A stage is a
//! closure that knows its input and output and none of its neighbours. [`recognise`] holds the
//! stages of recognition as plain functions, and [`label`] the job that strings them together.

pub mod graph;
pub mod label;
pub mod recognise;
pub mod statistics;

pub use graph::{Control, Flow, Graph, GraphError, Overflow};
pub use statistics::{StageStatistics, Statistics, peak_memory_bytes};
