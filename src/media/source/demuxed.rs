//! Corrections of the caps from demuxers, before parsers and decoders use them.
//!
//! A demuxer's colour description hides that of an H.264, H.265 or MPEG stream, and qtdemux omits the range. So it
//! is removed from the caps and used only where the stream states nothing. Some files state a pixel aspect of
//! zero width or height: such pixels are square.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoTransferFunction,
};

use super::SourceShared;
use crate::media::mp4::{Packed, Timeline};
use crate::media::pads::on_caps;

/// The caps of raw pictures with a palette, which nothing decodes.
pub(super) const PALETTE: &str = "video/x-palette-of-8-bits";

/// The demuxer's colour description of a stream that may contain its own.
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

    /// Whether the stream has transparency, which is not decoded.
    pub(super) fn transparent(&self) -> bool {
        self.transparent.load(Ordering::Acquire)
    }

    /// The complete colorimetry of decoded video of a height, if its stream does not state all of it: that of
    /// the demuxer, and full range if the demuxer or the file states it.
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
            // Guessed as by players; without a matrix the range would be ignored.
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
pub(super) fn correct(pipeline: &gst::Pipeline, kept: &Arc<KeptBack>, shared: &Arc<SourceShared>) {
    let (kept, shared) = (Arc::clone(kept), Arc::clone(shared));
    pipeline.connect_deep_element_added(move |_, _, element| {
        let demuxes = element
            .factory()
            .and_then(|factory| factory.metadata("klass").map(|class| class.contains("Demux")));
        if demuxes != Some(true) {
            return;
        }
        let (kept, shared) = (Arc::clone(&kept), Arc::clone(&shared));
        element.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Src {
                let (kept, shared, name) = (Arc::clone(&kept), Arc::clone(&shared), pad.stream_id());
                on_caps(pad, move |caps| {
                    let number = name.as_ref().and_then(|name| track_number(name));
                    let told = shared.timeline().zip(number);
                    let told = told.and_then(|(timeline, number)| as_listed(caps, timeline, number));
                    corrected(told.as_deref().unwrap_or(caps), &kept).or(told)
                });
            }
        });
    });
}

/// The number of a track in the name of a stream, which qtdemux ends with it, and matroskademux with it and an
/// identifier.
pub(super) fn track_number(name: &str) -> Option<u32> {
    let (_, end) = name.rsplit_once('/')?;
    end.split(':').next()?.parse().ok()
}

/// The caps of a track of an MP4 file as its index has them.
fn as_listed(caps: &gst::CapsRef, timeline: &Timeline, number: u32) -> Option<gst::Caps> {
    if timeline.little_endian.contains(&number) {
        return with_lower_bytes_first(caps);
    }
    let told = caps.structure(0)?;
    let mut caps = caps.to_owned();
    if told.has_field("palette_data") {
        let palette = gst::Buffer::from_slice(timeline.palettes.get(&number)?.clone());
        caps.make_mut().structure_mut(0)?.set("palette_data", palette);
        return Some(caps);
    }
    if timeline.packed.get(&number) == Some(&Packed::Rgb555) {
        caps.make_mut().structure_mut(0)?.set("format", "RGB15");
        return Some(caps);
    }
    None
}

/// Changes the order of samples of uncompressed pictures to that of their caps.
pub(super) fn unpack(pad: &gst::Pad, packed: Packed) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && let Ok(mut bytes) = buffer.make_mut().map_writable()
        {
            match packed {
                Packed::Rgb555 => bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1)),
                Packed::Vyu => bytes.chunks_exact_mut(3).for_each(|pixel| pixel.rotate_left(1)),
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Tells the distance of rows of uncompressed pictures in one plane that is larger than GStreamer's, such as that
/// of r210, whose rows are filled up to 64 pixels.
pub(super) fn tell_rows(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        let video = pad.current_caps().and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        let (Some(video), Some(buffer)) = (video, info.buffer_mut()) else { return gst::PadProbeReturn::Ok };
        let height = video.height() as usize;
        let row = i32::try_from(buffer.size() / height.max(1)).unwrap_or(0);
        if video.n_planes() == 1 && buffer.size().is_multiple_of(height.max(1)) && row > video.stride()[0] {
            // Fails only for a buffer that is too small.
            let _ = gst_video::VideoMeta::add_full(
                buffer.make_mut(),
                gst_video::VideoFrameFlags::empty(),
                video.format(),
                video.width(),
                video.height(),
                &[0],
                &[row],
            );
        }
        gst::PadProbeReturn::Ok
    });
}

/// Uncompressed sound in the other order of bytes.
fn with_lower_bytes_first(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let format = caps.structure(0)?.get::<&str>("format").ok()?.strip_suffix("BE")?;
    let format = format!("{format}LE");
    let mut caps = caps.to_owned();
    caps.make_mut().structure_mut(0)?.set("format", format);
    Some(caps)
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
    if name == "video/x-raw" && told.get::<&str>("format") == Ok("RGB8P") {
        // Converters look for the palette in the picture, where demuxers do not put it.
        return Some(gst::Caps::new_empty_simple(PALETTE));
    }
    let tells_itself = matches!(name.as_str(), "video/x-h264" | "video/x-h265" | "video/mpeg");
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

/// Excludes decoders that also decode transparency, which the output cannot have. decodebin gives up on a
/// stream if it tries such a decoder first, since that does not announce its output format.
pub(super) fn leave_out_transparency() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let decoders = |feature: &gst::PluginFeature| feature.name().contains("alphadecodebin");
        for decoder in gst::Registry::get().features_filtered(decoders, false) {
            decoder.set_rank(gst::Rank::NONE);
        }
    });
}
