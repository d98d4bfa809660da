//! Measures: this machine's peak, every network, the detector, and a whole job.

pub mod inputs;
mod search;
mod serve;

pub use search::{SearchBench, SearchReport, Speed};
pub use serve::serve;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An answer cannot be written.
    #[error("cannot write an answer ({0}): is the other program still there?")]
    Answer(std::io::Error),
}
