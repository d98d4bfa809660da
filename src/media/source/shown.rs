//! Properties of decoded pictures that frames do not keep, and their conversion: high dynamic range, more
//! than 8 bits, transparency, and a mix of interlaced and progressive frames.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoFormat, VideoFrameExt, VideoInterlaceMode, VideoTransferFunction};

use super::caps::{colorimetry, pinned};
use super::demuxed::KeptBack;
use super::tone::{Hdr, Plane, ToneMap};
use super::{SourceShared, State};
use crate::media::Picture;
use crate::media::pads::on_caps;

/// Sets the format of the pictures that pass a pad, before they are converted.
///
/// `filter` sets the final sample format: pictures of high dynamic range keep their 10 bits until they are
/// tone-mapped.
pub(super) fn settle(
    pad: &gst::Pad,
    filter: &gst::Element,
    shared: &Arc<SourceShared>,
    generation: u64,
    kept: Arc<KeptBack>,
) {
    let shared = Arc::clone(shared);
    let filter = filter.downgrade();
    on_caps(pad, move |caps| {
        let video = gst_video::VideoInfo::from_caps(caps).ok()?;
        let told = caps.structure(0)?.get::<&str>("colorimetry").ok().and_then(|text| text.parse().ok());
        let full_range = shared.timeline().is_some_and(|timeline| timeline.full_range);
        let completed = kept.completed(told, video.height(), full_range);
        let completed = completed.filter(|_| video.is_yuv());
        let hdr = hdr_of(completed.as_ref().unwrap_or(&video.colorimetry()).transfer());
        note(&shared, generation, &video, hdr, kept.transparent());
        if let Some(filter) = filter.upgrade() {
            let format = shared.state().format.clone();
            filter.set_property("caps", pinned(format.as_ref(), hdr));
        }
        let completed = completed?.to_string();
        let mut caps = caps.to_owned();
        caps.make_mut().structure_mut(0)?.set("colorimetry", completed);
        Some(caps)
    });
}

/// Warns, before the first picture, of properties that an output will lack.
fn note(
    shared: &SourceShared,
    generation: u64,
    video: &gst_video::VideoInfo,
    hdr: Option<Hdr>,
    transparent: bool,
) {
    let bits = video.comp_depth(0);
    shared.update(generation, |state| {
        match hdr {
            Some(hdr) => state.lacks(format!("{} is written as standard range with 8 bits", hdr.name())),
            None if bits > 8 => state.lacks(format!("its {bits} bits per sample are written as 8")),
            None => {}
        }
        if transparent || video.has_alpha() {
            state.lacks("its transparency is left out".to_owned());
        }
    });
}

impl State {
    /// Records a property that an output will lack, once.
    pub(super) fn lacks(&mut self, what: String) {
        if self.format.is_none() && !self.lacking.contains(&what) {
            self.lacking.push(what);
        }
    }
}

/// The high dynamic range transfer of 10-bit samples.
pub(super) fn hdr(video: &gst_video::VideoInfo) -> Option<Hdr> {
    hdr_of(video.colorimetry().transfer()).filter(|_| video.format() == VideoFormat::I42010le)
}

fn hdr_of(transfer: VideoTransferFunction) -> Option<Hdr> {
    match transfer {
        VideoTransferFunction::Smpte2084 => Some(Hdr::Pq),
        VideoTransferFunction::AribStdB67 => Some(Hdr::Hlg),
        _ => None,
    }
}

/// The caps of the returned frames, from those of the first picture: of standard range, and either interlaced
/// or progressive. `top_first` is the order of fields by the container, for decoders that do not know it.
pub(super) fn settled(
    caps: &gst::CapsRef,
    video: &gst_video::VideoInfo,
    first: &gst::BufferRef,
    top_first: Option<bool>,
) -> gst::Caps {
    let mut caps = caps.to_owned();
    let Some(structure) = caps.make_mut().structure_mut(0) else { return caps };
    if video.format() == VideoFormat::I42010le {
        structure.set("format", "I420");
        structure.set("colorimetry", "bt709");
        structure.remove_fields(["mastering-display-info", "content-light-level"]);
    }
    if !structure.has_field("chroma-site") {
        // The default of a stream that states none; mp4mux fails on VP9 without it.
        structure.set("chroma-site", "mpeg2");
    }
    let flags = first.video_flags();
    let has_fields = match video.interlace_mode() {
        // Interlaced and progressive frames are mixed: the first one decides.
        VideoInterlaceMode::Mixed => flags.contains(gst_video::VideoBufferFlags::INTERLACED),
        mode => mode == VideoInterlaceMode::Interleaved,
    };
    if !has_fields {
        structure.set("interlace-mode", "progressive");
        structure.remove_field("field-order");
    } else if video.interlace_mode() == VideoInterlaceMode::Mixed || !structure.has_field("field-order") {
        let top = top_first.unwrap_or_else(|| flags.contains(gst_video::VideoBufferFlags::TFF));
        structure.set("interlace-mode", "interleaved");
        structure.set("field-order", if top { "top-field-first" } else { "bottom-field-first" });
    }
    caps
}

/// Tone-maps a picture of 10 bits and high dynamic range to standard range.
pub(super) fn mapped(
    buffer: &gst::BufferRef,
    video: &gst_video::VideoInfo,
    shared: &SourceShared,
) -> Option<Picture> {
    let hdr = hdr(video)?;
    let map = shared.tone_map.get_or_init(|| ToneMap::new(hdr, colorimetry(video)));
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, video).ok()?;
    let plane = |number: u32| {
        let stride = usize::try_from(*frame.plane_stride().get(number as usize)?).ok()?;
        Some(Plane { bytes: frame.plane_data(number).ok()?, stride })
    };
    map.picture([plane(0)?, plane(1)?, plane(2)?], frame.width() as usize, frame.height() as usize)
}
