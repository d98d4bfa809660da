//! sphereface for Python: a thin layer over the library's engine, gallery and streams.
//!
//! Pictures are numpy arrays. Long operations run without the interpreter's lock. The Python code
//! (`python/sphereface`) only provides the interfaces of other packages.

mod engine;
mod error;
mod face;
mod gallery;
mod job;
mod picture;
mod stream;

/// The native part of the package `sphereface`.
#[pyo3::pymodule]
mod sphereface_native {
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::error::Error;
    #[pymodule_export]
    use super::face::{DetectedFace, Event, Identification, IdentifiedFace, LabelledFrame, Quality};
    #[pymodule_export]
    use super::gallery::{Gallery, Recogniser, Threshold, enroll, read_image, write_image};
    #[pymodule_export]
    use super::job::{Summary, label};
    #[pymodule_export]
    use super::stream::{Frame, Source, Stream};
}
