//! The library of a service.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::config::{ConfigError, value};
use super::lock;
use super::problem::Problem;
use crate::library::{Library, LibraryError};

/// The location of the library to show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryConfig {
    /// Folder of the library, or of its analyses.
    pub path: PathBuf,
    /// `postgres://USER@HOST/DATABASE`, if its catalogue is in a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

impl std::fmt::Debug for LibraryConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may contain a password.
        f.debug_struct("LibraryConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LibraryConfig {
    /// Validates the location. The library itself is opened at the first request.
    ///
    /// # Errors
    /// When the address is not one of a PostgreSQL database.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let known =
            |address: &String| address.starts_with("postgres://") || address.starts_with("postgresql://");
        match self.database.as_ref().is_none_or(known) {
            true => Ok(()),
            false => {
                let reason = "write postgres://USER@HOST/DATABASE".to_owned();
                Err(value("library.database".into(), "(as given)", reason))
            }
        }
    }
}

/// The library of a service, opened at the first request.
#[derive(Default)]
pub(super) struct Shelf(Mutex<Option<(LibraryConfig, Arc<Library>)>>);

impl Shelf {
    /// The library of a configuration. Call this, and drop its result, on a thread that may block.
    ///
    /// # Errors
    /// When none is configured, or it cannot be opened.
    pub fn library(&self, config: Option<&LibraryConfig>) -> Result<Arc<Library>, Problem> {
        let none = "this service shows no library: set path below [library] in its configuration";
        let config = config.ok_or_else(|| Problem::not_found(none))?;
        let mut open = lock(&self.0);
        if let Some((of, library)) = &*open
            && of == config
        {
            return Ok(Arc::clone(library));
        }
        let opened = match &config.database {
            Some(address) => Library::connect(address, &config.path),
            None => Library::open(&config.path),
        };
        let library = Arc::new(opened?);
        *open = Some((config.clone(), Arc::clone(&library)));
        Ok(library)
    }

    /// Closes it.
    pub fn close(&self) {
        lock(&self.0).take();
    }
}

impl From<LibraryError> for Problem {
    fn from(error: LibraryError) -> Self {
        match error {
            LibraryError::NoPerson(_) | LibraryError::NoStranger(_) => Self::not_found(error.to_string()),
            // Its expected path is in the log only.
            LibraryError::NoLibrary(_) => {
                tracing::warn!("{error}");
                Self::not_found("the configured library does not exist: see the log of the service")
            }
            _ => Self::inside(&error),
        }
    }
}
