//! All readers of untrusted bytes, by name, for the fuzzer and the tests with mutations.
//!
//! A target takes any bytes. It may refuse them, but it must not panic, run without end or take a
//! disproportionate amount of memory. The readers are private to their modules: each module has a submodule
//! of this name that calls them. `docs/fuzzing.md` describes how to run the targets.

/// A reader of any bytes.
pub type Target = fn(&[u8]);

/// The targets by name. The corpus of a target is the folder `fuzz/corpus/NAME`.
pub const TARGETS: &[(&str, Target)] = &[
    #[cfg(feature = "label")]
    ("analysis", crate::analysis::fuzzing::analysis),
    ("caffemodel", crate::models::fuzzing::caffemodel),
    ("espdl", crate::models::fuzzing::espdl),
    #[cfg(feature = "library")]
    ("exif", crate::library::fuzzing::exif),
    ("gallery_calibration", crate::gallery::fuzzing::calibration),
    ("gallery_embeddings", crate::gallery::fuzzing::embeddings),
    ("gallery_pack", crate::gallery::fuzzing::pack),
    ("gallery_person", crate::gallery::fuzzing::person),
    #[cfg(feature = "video")]
    ("heif", crate::media::fuzzing::heif),
    #[cfg(feature = "serve")]
    ("http_json", crate::serve::fuzzing::json),
    #[cfg(feature = "serve")]
    ("http_multipart", crate::serve::fuzzing::multipart),
    #[cfg(feature = "video")]
    ("matroska", crate::media::fuzzing::matroska),
    #[cfg(feature = "video")]
    ("mp4", crate::media::fuzzing::mp4),
    ("onnx", crate::models::fuzzing::onnx),
    ("pickle", crate::models::fuzzing::pickle),
    #[cfg(feature = "train")]
    ("recordio", crate::train::fuzzing::recordio),
    ("safetensors", crate::models::fuzzing::safetensors),
    #[cfg(feature = "serve")]
    ("service_config", crate::serve::fuzzing::config),
    ("still", crate::media::fuzzing::still),
    #[cfg(feature = "train")]
    ("training_config", crate::train::fuzzing::config),
    #[cfg(feature = "train")]
    ("training_list", crate::train::fuzzing::list),
    #[cfg(feature = "train")]
    ("training_teacher", crate::train::fuzzing::teacher),
    #[cfg(feature = "video")]
    ("transport_stream", crate::media::fuzzing::transport_stream),
    #[cfg(feature = "xmp")]
    ("xmp", crate::xmp::fuzzing::packet),
    #[cfg(feature = "xmp")]
    ("xmp_jpeg", crate::xmp::fuzzing::jpeg),
    #[cfg(feature = "xmp")]
    ("xmp_picasa", crate::xmp::fuzzing::picasa),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
