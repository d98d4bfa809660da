//! The stage graph: threads, channels, order, batching, statistics; and the jobs built on it.
//!
//! [`graph`] knows nothing of video or faces: it moves items through stages. A stage is a closure that knows
//! its input and output and none of its neighbours. `stages` puts the steps of [`engine`](crate::engine) on
//! the threads of a graph. A [`LabelJob`] goes through a file or a live source in one pass or in two, and a
//! [`RelabelJob`] through an analysis; [`Subscriber`]s receive every frame and event.

#[cfg(feature = "video")]
mod analysis_builder;
#[cfg(feature = "video")]
mod draw;
mod error;
pub mod graph;
pub mod job;
pub mod label;
mod labels;
#[cfg(feature = "video")]
mod online;
#[cfg(feature = "video")]
mod open;
#[cfg(feature = "video")]
mod output;
pub mod page;
pub mod redact;
mod run_summary;
mod sidecar;
#[cfg(feature = "video")]
mod stages;
pub mod statistics;
mod subscriber;
#[cfg(feature = "video")]
mod two_pass;

pub use error::LabelError;
pub use graph::{Control, Flow, Graph, GraphError, Overflow};
pub use job::{LabelJob, LabelRequest, LabelSummary, Mode, Pass, Progress, RelabelJob, RequestError};
pub use sidecar::Sidecar;
pub use statistics::{StageStatistics, Statistics, peak_memory_bytes};
pub use subscriber::{Ending, Pictures, Subscriber};
