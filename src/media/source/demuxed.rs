//! What demuxers say of their streams, put right before parsers and decoders believe it.
//!
//! A demuxer's word on colour hides what an H.264 or H.265 stream says of itself, and qtdemux
//! leaves the range out. So its word is kept back, and counts only where the stream says nothing.
//! Some files state a pixel of no width or height: such pixels are square.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoTransferFunction,
};

use crate::media::pads::on_caps;

/// What a demuxer said of the colour of a stream that may say so itself.
#[derive(Debug, Default)]
pub(super) struct KeptBack {
    colorimetry: Mutex<Option<VideoColorimetry>>,
    transparent: AtomicBool,
}

impl KeptBack {
    fn keep(&self, colorimetry: VideoColorimetry) {
        let mut kept = self.colorimetry.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(colorimetry);
    }

    fn colorimetry(&self) -> Option<VideoColorimetry> {
        *self.colorimetry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is transparency that is not decoded.
    pub(super) fn transparent(&self) -> bool {
        self.transparent.load(Ordering::Acquire)
    }

    /// The colour of decoded video of a height whose stream does not say all of it: what the
    /// demuxer said, and full range when anything, the file as we read it included, says so.
    pub(super) fn completed(
        &self,
        decoded: Option<VideoColorimetry>,
        height: u32,
        full_range: bool,
    ) -> Option<VideoColorimetry> {
        if decoded.as_ref().is_some_and(|decoded| decoded.matrix() != VideoColorMatrix::Unknown) {
            return None;
        }
        let kept = self.colorimetry();
        let is_full = |one: &VideoColorimetry| one.range() == VideoColorRange::Range0_255;
        let full = full_range || decoded.as_ref().is_some_and(is_full) || kept.as_ref().is_some_and(is_full);
        if !full && kept.is_none() {
            return None;
        }
        let range = if full { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
        let from = kept.or(decoded);
        let matrix = from.as_ref().map_or(VideoColorMatrix::Unknown, VideoColorimetry::matrix);
        let matrix = match matrix {
            // As players guess; without one the range would not count.
            VideoColorMatrix::Unknown if height > 576 => VideoColorMatrix::Bt709,
            VideoColorMatrix::Unknown => VideoColorMatrix::Bt601,
            matrix => matrix,
        };
        let (transfer, primaries) = from
            .map_or((VideoTransferFunction::Unknown, VideoColorPrimaries::Unknown), |from| {
                (from.transfer(), from.primaries())
            });
        Some(VideoColorimetry::new(range, matrix, transfer, primaries))
    }
}

/// Corrects the caps of every demuxer that the pipeline will have.
pub(super) fn correct(pipeline: &gst::Pipeline, kept: &Arc<KeptBack>) {
    let kept = Arc::clone(kept);
    pipeline.connect_deep_element_added(move |_, _, element| {
        let demuxes = element
            .factory()
            .and_then(|factory| factory.metadata("klass").map(|class| class.contains("Demux")));
        if demuxes != Some(true) {
            return;
        }
        let kept = Arc::clone(&kept);
        element.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src {
                let kept = Arc::clone(&kept);
                on_caps(pad, move |caps| corrected(caps, &kept));
            }
        });
    });
}

fn corrected(caps: &gst::CapsRef, kept: &KeptBack) -> Option<gst::Caps> {
    let told = caps.structure(0)?;
    let name = told.name();
    if !name.starts_with("video/") {
        return None;
    }
    if told.get::<bool>("codec-alpha").unwrap_or(false) {
        kept.transparent.store(true, Ordering::Release);
    }
    let flat = |aspect: gst::Fraction| aspect.numer() <= 0 || aspect.denom() <= 0;
    let no_aspect = told.get::<gst::Fraction>("pixel-aspect-ratio").is_ok_and(flat);
    let tells_itself = matches!(name.as_str(), "video/x-h264" | "video/x-h265");
    let colour = told.get::<&str>("colorimetry").ok().filter(|_| tells_itself);
    if !no_aspect && colour.is_none() {
        return None;
    }
    if let Some(colorimetry) = colour.and_then(|text| text.parse().ok()) {
        kept.keep(colorimetry);
    }
    let mut caps = caps.to_owned();
    let new = caps.make_mut().structure_mut(0)?;
    if no_aspect {
        new.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    }
    if tells_itself {
        new.remove_field("colorimetry");
    }
    Some(caps)
}

/// Lets no decoder be chosen that decodes transparency as well, which has no place in what is
/// written: decodebin gives up on a stream when it is the first to be tried, since such a decoder
/// does not say what it will give.
pub(super) fn leave_out_transparency() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let decoders = |feature: &gst::PluginFeature| feature.name().contains("alphadecodebin");
        for decoder in gst::Registry::get().features_filtered(decoders, false) {
            decoder.set_rank(gst::Rank::NONE);
        }
    });
}
