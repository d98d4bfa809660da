//! Reading and writing of video and stills. This module knows pixels and time, but not faces.
//!
//! A [`Source`] decodes anything GStreamer reads into [`Frame`]s and hands its sound to a [`Sink`], which
//! encodes the frames and multiplexes both into `.mp4`, `.mkv` or `.webm`. They are two separate pipelines:
//! an end, an error or a tag of one never reaches the other.

mod content;
mod error;
mod input;
mod output;
mod picture;
mod rgb;
mod still;

#[cfg(feature = "video")]
mod audio;
#[cfg(feature = "video")]
mod encoder;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(feature = "video")]
mod heif;
#[cfg(feature = "video")]
mod heif_decoder;
#[cfg(feature = "video")]
mod listed;
#[cfg(feature = "video")]
mod location;
#[cfg(feature = "video")]
mod matroska;
#[cfg(feature = "video")]
mod mp4;
#[cfg(feature = "video")]
mod pads;
#[cfg(feature = "video")]
mod recorded;
#[cfg(feature = "video")]
mod remake;
#[cfg(feature = "video")]
mod screen;
#[cfg(feature = "video")]
mod sink;
#[cfg(feature = "video")]
mod source;
#[cfg(feature = "video")]
mod stop;
#[cfg(feature = "video")]
mod view;

pub use content::{ONLY_FIRST, is_animated};
pub use error::MediaError;
pub use input::{Container, Input};
pub use picture::{Colorimetry, Matrix, Picture};
#[cfg(feature = "video")]
pub use recorded::recorded_s;
pub use still::{
    Still, StillMetadata, check_still_name, open_still, read_still, still_of_bytes, still_size, write_still,
};

#[cfg(feature = "video")]
pub use audio::Audio;
#[cfg(feature = "video")]
pub use encoder::{Codec, SinkOptions, Speed, WorkingEncoder};
#[cfg(feature = "video")]
pub use sink::{Sink, SinkSummary};
#[cfg(feature = "video")]
pub use source::{Reconnect, Selection, Source, SourceInfo, SourceOptions, marks_key_frames};
#[cfg(feature = "video")]
pub use stop::StopHandle;
#[cfg(feature = "video")]
pub use view::View;

use std::sync::Arc;

/// One decoded video frame, shared by reference between stages.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Position in the decoded stream, from 0, without gaps for a file.
    pub index: u64,
    /// Presentation time in nanoseconds since the start of the stream; strictly increasing.
    pub pts_ns: u64,
    /// How long the frame is shown, in nanoseconds.
    pub duration_ns: u64,
    /// The pixels. Stages that draw use [`Arc::make_mut`] once they hold the only reference.
    pub picture: Arc<Picture>,
}

/// Metadata of a whole file.
#[cfg(feature = "video")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct About {
    title: Option<String>,
    chapters: Vec<Chapter>,
    /// Time of recording in seconds since 1970.
    recorded_s: Option<i64>,
    /// Place of recording, as in ISO 6709: `+48.1371+011.5754/`.
    location: Option<String>,
    /// Language, title and flags of the pictures.
    pictures: audio::Description,
}

/// A chapter of a file.
#[cfg(feature = "video")]
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chapter {
    start_ns: u64,
    end_ns: Option<u64>,
    title: String,
}

/// Starts GStreamer (at most once per process).
#[cfg(feature = "video")]
fn start_gstreamer() -> Result<(), MediaError> {
    gstreamer::init().map_err(|error| MediaError::MissingElement(format!("its own core ({error})")))
}

/// An element by factory name.
#[cfg(feature = "video")]
fn element(factory: &str) -> Result<gstreamer::Element, MediaError> {
    gstreamer::ElementFactory::make(factory)
        .build()
        .map_err(|_| MediaError::MissingElement(format!("the element {factory}")))
}

/// The text of an error message from a pipeline: the sentence, followed by the element's own detail if the
/// sentence is one of GStreamer's generic ones.
#[cfg(feature = "video")]
fn error_text(error: &gstreamer::message::Error) -> String {
    let sentence = error.error().to_string();
    let sentence = sentence.trim_end_matches('.').to_owned();
    let generic =
        sentence.starts_with("Internal data stream error") || sentence.contains("GStreamer encountered");
    // The debug text is "file.c(line): function (): /path:\ndetail".
    let detail =
        error.debug().and_then(|debug| debug.split_once('\n').map(|(_, detail)| detail.trim().to_owned()));
    match detail {
        Some(detail) if generic && !detail.is_empty() => {
            format!("{sentence} ({})", detail.replace('\n', ", "))
        }
        _ => sentence,
    }
}
