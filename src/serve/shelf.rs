//! The library of a service.

use std::sync::{Arc, Mutex};

use super::config::LibraryConfig;
use super::lock;
use super::problem::Problem;
use crate::library::{Library, LibraryError};

/// The library of a service, opened at the first request, or at each one if the service may only read it.
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
        *open = (!library.is_snapshot()).then(|| (config.clone(), Arc::clone(&library)));
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
            LibraryError::Request(_) => Self::bad(error.to_string()),
            // Its expected path is in the log only.
            LibraryError::NoLibrary(_) => {
                tracing::warn!("{error}");
                Self::not_found("the configured library does not exist: see the log of the service")
            }
            _ => Self::inside(&error),
        }
    }
}
