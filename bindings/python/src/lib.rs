//! sphereface for Python: a thin skin over the library's engine, gallery and streams.
//!
//! Pictures come and go as numpy arrays; whatever takes time runs without the interpreter's lock. What is written in
//! Python (`python/sphereface`) are the doors for scripts of other packages, and nothing else.

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
