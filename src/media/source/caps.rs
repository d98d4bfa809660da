//! Formats of pictures as GStreamer has them.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::Format;
use super::tone::Hdr;
use crate::media::{Colorimetry, Matrix};

/// I420 in system memory, of 10 bits what is to be mapped; once there was a picture its size and
/// pixel aspect: what comes in another size later is letterboxed.
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

/// What the caps say of colour; unknown matrices are guessed by height, as players do.
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
