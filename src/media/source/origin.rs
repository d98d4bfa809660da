//! What is known of a connection and of its streams.

use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::glib;

use super::SourceShared;
use crate::media::Container;

/// What is added to all times of a file, so that sound from before its first picture has a time
/// that GStreamer can express.
pub(super) const HEADROOM_NS: i64 = 3_600_000_000_000;

/// Begins the names of decoders of sound: what goes wrong there costs a track, not the pictures.
pub(super) const SOUND_DECODER: &str = "sound-decoder";

/// What takes the streams of one connection.
pub(super) struct Streams {
    pub(super) pipeline: glib::WeakRef<gst::Pipeline>,
    pub(super) shared: Arc<SourceShared>,
    pub(super) generation: u64,
    pub(super) container: Option<Container>,
    pub(super) video_pad: gst::Pad,
}

/// Who sets the times of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// A demuxer whose segments say what is to be left out.
    Cut,
    /// A demuxer whose segments only say where it began.
    Demuxer,
    /// We; [`HEADROOM_NS`] is in them.
    Ours,
    /// The demuxer of Matroska, which gives the time 0 to Opus that lies before it.
    Matroska,
    /// A decodebin; nothing is added.
    Plain,
}

/// What is known of a stream from outside.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) times: Times,
    /// A name by which its track goes on with another stream; GStreamer's own where there is none.
    pub(super) name: Option<String>,
    /// ISO 639 code.
    pub(super) language: Option<String>,
    /// What the stream is, where its pad does not say so yet.
    pub(super) caps: Option<gst::Caps>,
    /// What sound was before it was decoded.
    pub(super) coded: Option<gst::Caps>,
    /// Where the segments of a demuxer first began, which it may change its mind about.
    pub(super) begin: Arc<OnceLock<gst::ClockTime>>,
}

impl Origin {
    /// What only GStreamer knows.
    pub(super) fn new(times: Times) -> Self {
        Self { times, name: None, language: None, caps: None, coded: None, begin: Arc::default() }
    }
}
