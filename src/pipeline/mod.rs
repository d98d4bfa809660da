//! The stage graph: threads, channels, order, batching, statistics; and the jobs built on it.
//!
//! [`graph`] knows nothing of video or faces: it moves items through stages. A stage is a
//! closure that knows its input and output and none of its neighbours. [`recognise`] holds the
//! stages of recognition as plain functions, [`search`] chooses where to look, and [`label`]
//! strings them together: in one pass or in two. [`job`] is what it is asked for.

pub mod graph;
pub mod job;
pub mod label;
mod ledger;
#[cfg(feature = "video")]
mod look;
#[cfg(feature = "video")]
mod online;
#[cfg(feature = "video")]
mod outlet;
pub mod page;
pub mod recognise;
#[cfg(feature = "video")]
mod recorder;
pub mod redact;
pub mod search;
pub mod statistics;
#[cfg(feature = "video")]
mod two_pass;

pub use graph::{Control, Flow, Graph, GraphError, Overflow};
pub use search::DetectEvery;
pub use statistics::{StageStatistics, Statistics, Work, peak_memory_bytes};
