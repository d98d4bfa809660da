//! Why a service does not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::ConfigError;
use super::store::StoreError;
use crate::annotate::AnnotateError;
use crate::engine::EngineError;

/// Why a service does not start, or cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another service uses the data folder.
    #[error("the data folder {} is in use by another sphereface serve", .0.display())]
    InUse(PathBuf),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine, or a gallery, cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Labels cannot be drawn.
    #[error(transparent)]
    Annotate(#[from] AnnotateError),
    /// The address is in use, or not one of this machine.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// Streams cannot be served.
    #[cfg(feature = "rtsp")]
    #[error("streams cannot be served: {0}")]
    Rtsp(String),
    /// The threads cannot be started.
    #[error("the service cannot start its threads: {0}")]
    Threads(std::io::Error),
}
