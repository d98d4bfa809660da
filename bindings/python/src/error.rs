//! Errors of the library as exceptions with the same messages.

use std::error::Error as StdError;

use pyo3::exceptions::{PyException, PyFileNotFoundError};
use pyo3::{PyErr, create_exception};
use sphereface::gallery::StillError;
use sphereface::media::MediaError;
use sphereface::pipeline::LabelError;

create_exception!(
    sphereface,
    Error,
    PyException,
    "A failure of sphereface: one sentence that names the cause and what to do about it."
);

/// An error and its causes.
fn sentence(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The exception for an error of the library.
pub fn raised(error: impl StdError) -> PyErr {
    Error::new_err(sentence(&error))
}

/// The exception for an error about a file: FileNotFoundError for a missing one.
pub fn media(error: MediaError) -> PyErr {
    match error {
        MediaError::NotFound(_) => PyFileNotFoundError::new_err(error.to_string()),
        other => raised(other),
    }
}

/// The exception for a job that failed.
pub fn job(error: LabelError) -> PyErr {
    match error {
        LabelError::Media(error) => media(error),
        other => raised(other),
    }
}

/// The exception for a still that is not used.
pub fn still(path: &std::path::Path, error: &StillError) -> PyErr {
    let text = format!("{} is not used: {}", path.display(), sentence(error));
    match error {
        StillError::Read(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            PyFileNotFoundError::new_err(text)
        }
        _ => Error::new_err(text),
    }
}
