//! Benchmarks of this machine's peak, the networks, the detector and a whole job.

#[cfg(feature = "serve")]
mod cameras;
mod config;
pub mod inputs;
#[cfg(feature = "video")]
mod job;
#[cfg(feature = "library")]
mod library;
mod machine;
mod report;
mod search;
mod serve;
mod work;

#[cfg(feature = "serve")]
pub use cameras::{CamerasBench, CamerasReport};
pub use config::MachineBench;
#[cfg(feature = "library")]
pub use library::{LibraryBench, LibraryReport};
pub use machine::machine;
pub use report::{Peak, Report, Row};
pub use search::{SearchBench, SearchReport, Speed, Together};
pub use serve::serve;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An answer cannot be written.
    #[error("cannot write an answer ({0}): is the other program still running?")]
    Answer(std::io::Error),
    /// There is no room for the temporary files of a measurement.
    #[error("cannot make a temporary folder ({0}): set TMPDIR to a folder with free space")]
    Folder(std::io::Error),
    /// The peak of the device cannot be measured.
    #[error("the device failed ({0}): measure the CPU with --device cpu")]
    Device(String),
    /// A network cannot be used.
    #[error(transparent)]
    Embed(#[from] crate::embed::EmbedError),
    /// The detector cannot be used.
    #[error(transparent)]
    Detect(#[from] crate::detect::DetectError),
    /// The video of the job cannot be read or written.
    #[error(transparent)]
    Media(#[from] crate::media::MediaError),
    /// The job failed.
    #[error(transparent)]
    Label(#[from] crate::pipeline::LabelError),
    /// The catalogue of a library cannot be created or queried.
    #[cfg(feature = "library")]
    #[error(transparent)]
    Library(#[from] crate::library::LibraryError),
    /// The service does not start.
    #[cfg(feature = "serve")]
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// Labels cannot be drawn.
    #[error(transparent)]
    Annotate(#[from] crate::annotate::AnnotateError),
}
