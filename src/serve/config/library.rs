//! The configuration of the library to show.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, value};

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
    pub(in crate::serve) fn check(&self) -> Result<(), ConfigError> {
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
