//! The readers of this module for [`fuzzing`](crate::fuzzing).

use std::path::Path;

use super::content::{Content, Still, cut_jpeg, is_animated};
use super::still::{StillMetadata, still_of_bytes, still_size};
#[cfg(feature = "video")]
use super::{heif, matroska, mp4};
#[cfg(feature = "video")]
use crate::file::unnamed;

#[cfg(feature = "video")]
pub(crate) use super::source::transport_stream;

/// A picture and its metadata.
pub(crate) fn still(bytes: &[u8]) {
    cut_jpeg(bytes);
    is_animated(bytes);
    StillMetadata::of_bytes(bytes);
    let path = Path::new("still");
    drop(still_size(path, bytes));
    // GStreamer decodes the pixels of these.
    if Content::of(bytes) != Content::Still(Still::Heif) {
        drop(still_of_bytes(path, bytes));
    }
}

/// The boxes of a HEIC or AVIF file.
#[cfg(feature = "video")]
pub(crate) fn heif(bytes: &[u8]) {
    drop(heif::Main::read(bytes));
    drop(heif::About::read(bytes));
}

/// The index of an MP4 file: edit lists, chapters, colour, date; and its repair.
#[cfg(feature = "video")]
pub(crate) fn mp4(bytes: &[u8]) {
    let mut file = unnamed(bytes);
    drop(mp4::lacks_index(&mut file));
    drop(mp4::recorded_s(&mut file));
    if let Ok(timeline) = mp4::Timeline::read(&mut file) {
        let mut seen = bytes.to_vec();
        // In pieces, as a demuxer may read it.
        seen.chunks_mut(100).enumerate().for_each(|(n, piece)| timeline.apply(n as u64 * 100, piece));
        timeline.touches(u64::MAX, bytes.len());
    }
    let repairs = mp4::Repairs { video_ns: 1, hidden_ns: &[1; 3], ..mp4::Repairs::default() };
    drop(mp4::repair(&mut file, &repairs));
}

/// The header of a Matroska file, and what is written into it.
#[cfg(feature = "video")]
pub(crate) fn matroska(bytes: &[u8]) {
    let mut file = unnamed(bytes);
    drop(matroska::Header::read(&mut file));
    drop(matroska::describe(&mut file, &[super::audio::Description::default()]));
}
