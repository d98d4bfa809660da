//! The properties of a connection and of its streams.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::glib;

use super::SourceShared;
use crate::media::Container;

/// Offset of all times of a file, so that sound before its first picture has a time that GStreamer can
/// express.
pub(super) const HEADROOM_NS: i64 = 3_600_000_000_000;

/// The name of the element that makes pictures upright.
pub(super) const FLIP: &str = "upright";
/// Prefix of the names of sound decoders: their errors end a track, but not the pictures.
pub(super) const SOUND_DECODER: &str = "sound-decoder";

/// The receiver of the streams of one connection.
pub(super) struct Streams {
    pub(super) pipeline: glib::WeakRef<gst::Pipeline>,
    pub(super) shared: Arc<SourceShared>,
    pub(super) generation: u64,
    pub(super) container: Option<Container>,
    pub(super) video_pad: gst::Pad,
}

/// The element that sets the times of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// A demuxer whose segments define the parts to omit.
    Cut,
    /// A demuxer whose segments only define the beginning.
    Demuxer,
    /// This program; the times include [`HEADROOM_NS`].
    Ours,
    /// The demuxer of Matroska, which gives the time 0 to Opus packets before it.
    Matroska,
    /// A decodebin; nothing is added.
    Plain,
}

/// The chain of an Ogg file (RFC 3533, 4) whose streams are current: when they have ended, others follow, which
/// continue their pictures and sound.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Its number.
    number: AtomicU32,
    /// The number of its sound tracks so far, and of its pictures.
    sounds: AtomicU32,
    pictures: AtomicU32,
}

impl Chain {
    /// All streams of this chain are known: the next stream belongs to the next chain.
    pub(super) fn complete(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
        self.sounds.store(0, Ordering::Release);
        self.pictures.store(0, Ordering::Release);
    }

    /// The name of the track of the next sound.
    pub(super) fn sound(&self) -> String {
        format!("chain/{:03}", self.sounds.fetch_add(1, Ordering::AcqRel))
    }

    /// Whether the next pictures continue those of the previous chain.
    pub(super) fn continues_pictures(&self) -> bool {
        self.pictures.fetch_add(1, Ordering::AcqRel) == 0 && self.number.load(Ordering::Acquire) > 0
    }
}

/// The properties of a stream that are known from its container.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) times: Times,
    /// A name by which another stream continues its track; `None` for the name that GStreamer gives.
    pub(super) name: Option<String>,
    /// ISO 639 code.
    pub(super) language: Option<String>,
    /// The caps of the stream, if its pad has none yet.
    pub(super) caps: Option<gst::Caps>,
    /// The caps of sound before it was decoded.
    pub(super) coded: Option<gst::Caps>,
    /// The chain of a file in which streams follow each other.
    pub(super) chain: Option<Arc<Chain>>,
    /// The number of streams of pictures before this one.
    pub(super) follows: u32,
    /// The first begin of a demuxer's segments, which the demuxer may change later.
    pub(super) begin: Arc<OnceLock<gst::ClockTime>>,
}

impl Origin {
    /// A stream whose other properties only GStreamer knows.
    pub(super) fn new(times: Times) -> Self {
        Self {
            times,
            name: None,
            language: None,
            caps: None,
            coded: None,
            chain: None,
            follows: 0,
            begin: Arc::default(),
        }
    }
}
