//! Errors of reading and writing pictures and video.

use std::io;
use std::path::PathBuf;

/// Why pictures or video could not be read or written. Each message is one sentence that names
/// the input or output, the cause, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The text is not an input (empty, an unknown scheme, a bad device number).
    #[error("{input:?} is not an input: {reason}")]
    BadInput {
        /// The text.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The input file does not exist.
    #[error("{0} does not exist: check the path")]
    NotFound(PathBuf),
    /// The input path is a folder.
    #[error("{0} is a folder: give a file in it")]
    IsFolder(PathBuf),
    /// The input file has no bytes.
    #[error("{0} is empty (zero bytes): copy or record it again")]
    Empty(PathBuf),
    /// The input file cannot be read.
    #[error("{path} cannot be read ({source}): check its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An image file could not be decoded.
    #[error(
        "{path} is not a readable image ({reason}): give a jpg, png, webp, bmp, tiff, gif, heic or avif file"
    )]
    BadImage {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// An image of a format that no installed decoder reads.
    #[error("{path} is a {format} image, and GStreamer has no decoder for those: install {package}")]
    NoStillDecoder {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// The Debian package that brings a decoder.
        package: &'static str,
    },
    /// An image could not be encoded.
    #[error("{path} cannot be written as an image ({reason})")]
    ImageNotWritten {
        /// The file.
        path: PathBuf,
        /// What the encoder or the system said.
        reason: String,
    },
    /// The input could not be opened or decoded.
    #[error("{input} cannot be decoded: {reason}")]
    NotDecodable {
        /// The input, as given.
        input: String,
        /// The first error GStreamer reported.
        reason: String,
    },
    /// An MP4 file without its index.
    #[error(
        "{0} has no index: its recording was not finished or its end is missing; repair it or record it again"
    )]
    NoIndex(PathBuf),
    /// The input was understood but holds no video.
    #[error("{0} holds no video stream: give a file or stream with pictures in it")]
    NoVideo(String),
    /// No picture came in time.
    #[error(
        "{input} gave no picture within {seconds} s: check that it is a video and that its source is running"
    )]
    Timeout {
        /// The input, as given.
        input: String,
        /// Seconds waited.
        seconds: u64,
    },
    /// Stopped by its [`StopHandle`](super::StopHandle) before the first picture.
    #[error("{0} was stopped before its first picture")]
    Stopped(String),
    /// The output name has no extension of a video format we write.
    #[error("{0} has no extension that names a video container: use .mp4, .mkv or .webm")]
    UnknownContainer(PathBuf),
    /// The output name has no extension of an image format we write.
    #[error("{0} has no extension that names an image format: use .jpg, .png, .webp, .bmp or .tiff")]
    UnknownImageFormat(PathBuf),
    /// The output's folder does not exist.
    #[error("{path} cannot be written: the folder {folder} does not exist, create it first")]
    NoOutputFolder {
        /// The output.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The output cannot be created.
    #[error("{path} cannot be written ({source}): choose a folder you may write to")]
    OutputNotWritable {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Output and input are the same file.
    #[error("{0} is also the input: choose another output name")]
    OutputIsInput(PathBuf),
    /// The container cannot hold the codec.
    #[error("{container} cannot hold {codec}: choose another codec or another extension")]
    CodecNotInContainer {
        /// Name of the codec.
        codec: &'static str,
        /// Name of the container.
        container: &'static str,
    },
    /// A setting is out of its range.
    #[error("{name} {value} is invalid: {reason}")]
    BadSetting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// The range.
        reason: String,
    },
    /// None of the encoders works on this machine.
    #[error(
        "no {codec} encoder works here (tried {tried}): install gstreamer1.0-plugins-good, -bad and -ugly"
    )]
    NoEncoder {
        /// Name of the codec.
        codec: &'static str,
        /// The encoders tried, with their errors.
        tried: String,
    },
    /// Encoding or writing failed in the middle.
    #[error("writing {path} failed: {reason}")]
    NotWritten {
        /// The output.
        path: PathBuf,
        /// The first error reported.
        reason: String,
    },
    /// The preview window cannot be opened.
    #[error("no window can be opened ({0}): check that there is a display, or omit the preview")]
    NoWindow(String),
    /// A part of GStreamer is missing.
    #[error(
        "GStreamer lacks {0}: install its plugin packages (gstreamer1.0-plugins-base, -good, -bad, -ugly, gstreamer1.0-libav)"
    )]
    MissingElement(String),
}
