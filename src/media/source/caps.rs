//! Formats of pictures in GStreamer.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::Format;
use super::tone::Hdr;
use crate::media::{Colorimetry, Matrix};

/// I420 in system memory, with 10 bits if it is to be tone-mapped. After the first picture, also its size and
/// pixel aspect: later pictures of another size are letterboxed.
pub(super) fn pinned(format: Option<&Format>, hdr: Option<Hdr>) -> gst::Caps {
    let samples = if hdr.is_some() { "I420_10LE" } else { "I420" };
    let caps = gst::Caps::builder("video/x-raw").field("format", samples);
    match format {
        None => caps.build(),
        Some(format) => {
            let (n, d) = format.pixel_aspect;
            caps.field("width", format.width as i32)
                .field("height", format.height as i32)
                .field("pixel-aspect-ratio", gst::Fraction::new(n as i32, d as i32))
                .build()
        }
    }
}

/// The colorimetry in the caps; unknown matrices are guessed by height, as players do.
pub(super) fn colorimetry(video: &gst_video::VideoInfo) -> Colorimetry {
    use gst_video::VideoColorMatrix as M;
    let matrix = match video.colorimetry().matrix() {
        M::Bt601 | M::Fcc => Matrix::Bt601,
        M::Bt709 | M::Smpte240m => Matrix::Bt709,
        M::Bt2020 => Matrix::Bt2020,
        _ if video.height() > 576 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = video.colorimetry().range() == gst_video::VideoColorRange::Range0_255;
    Colorimetry { matrix, full_range }
}
