//! Errors of a library.

use std::path::PathBuf;

use crate::analysis::AnalysisError;
use crate::discover::DiscoverError;
use crate::engine::EngineError;
use crate::gallery::GalleryError;
use crate::identify::IdentifyError;

/// Why a library cannot be opened, changed or queried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// There is no library in a folder.
    #[error("there is no library in {}", .0.display())]
    NoLibrary(PathBuf),
    /// The library was written by a newer program.
    #[error("the library in {} was written by a newer program (its version is {found}, this program knows {known})", .place)]
    Newer {
        /// The folder or database.
        place: String,
        /// Its version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// The database fails.
    #[error("the catalogue {place} cannot be used: {source}")]
    Database {
        /// The folder or database.
        place: String,
        /// The database's error.
        source: sqlx::Error,
    },
    /// The queue fails.
    #[error("the queue in {place} cannot be used: {cause}")]
    Queue {
        /// The folder or database.
        place: String,
        /// The cause.
        cause: String,
    },
    /// A bucket fails.
    #[cfg(feature = "s3")]
    #[error("{address} cannot be used: {source}")]
    Bucket {
        /// Its address.
        address: String,
        /// The cause.
        source: object_store::Error,
    },
    /// The address of a database cannot be read.
    #[error("`{0}` is not the address of a PostgreSQL database: write postgres://USER@HOST/DATABASE")]
    Address(String),
    /// A file or folder cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path of a file is not valid UTF-8, so it cannot be stored in the catalogue.
    #[error("the path {} is not valid UTF-8: rename the file", .0.display())]
    Path(PathBuf),
    /// The threads for the database cannot be started.
    #[error("the threads of the library cannot be started: {0}")]
    Threads(std::io::Error),
    /// The library holds results of another model.
    #[error(
        "the library was made with model {own}, and this is {asked}: use that model, or analyse everything again with `retry --all`"
    )]
    OtherModel {
        /// The model of the library.
        own: String,
        /// The one requested.
        asked: String,
    },
    /// No file matches.
    #[error("no file of the library matches {0}")]
    NoFile(String),
    /// No such group of strangers.
    #[error("the library has no stranger {0}")]
    NoStranger(i64),
    /// No person of that name.
    #[error("nobody in the library is named {0}")]
    NoPerson(String),
    /// The shared gallery has changed since the folder was copied from it.
    #[error("the shared gallery has changed since {} was copied from it, or it is not a copy of it", .0.display())]
    GalleryChanged(PathBuf),
    /// An invalid request.
    #[error("{0}")]
    Request(String),
    /// An analysis cannot be read or written.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// The gallery cannot be used.
    #[error(transparent)]
    Gallery(#[from] GalleryError),
    /// The engine cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Embeddings cannot be compared.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// Tracks cannot be compared.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
}

impl LibraryError {
    /// Whether the database is temporarily unavailable.
    pub(super) fn is_away(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_) => true,
            sqlx::Error::Database(error) => {
                // PostgreSQL: connection exceptions, shutdown, startup, a session that paused for too long,
                // and transactions to retry. SQLite: busy, locked.
                let code = error.code().unwrap_or_default().into_owned();
                code.starts_with("08")
                    || ["57P01", "57P02", "57P03", "25P03", "40001", "40P01", "5", "6", "261", "517"]
                        .contains(&code.as_str())
            }
            _ => false,
        }
    }
}
