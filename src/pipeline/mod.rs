//! The stage graph: threads, channels, order, batching, statistics; and the jobs built on it.
//!
//! [`graph`] knows nothing of video or faces: it moves items through stages. A stage is a
//! closure that knows its input and output and none of its neighbours. [`recognise`] holds the
//! stages of recognition as plain functions, [`search`] chooses where to look, and [`label`] is
//! the job that strings them together: in one pass or in two.

pub mod graph;
pub mod label;
#[cfg(feature = "video")]
mod look;
#[cfg(feature = "video")]
mod online;
pub mod recognise;
pub mod search;
pub mod statistics;
#[cfg(feature = "video")]
mod two_pass;

pub use graph::{Control, Flow, Graph, GraphError, Overflow};
pub use search::DetectEvery;
pub use statistics::{StageStatistics, Statistics, Work, peak_memory_bytes};
