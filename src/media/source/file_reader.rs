//! Reading a file in any order, with its index as it should be.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::SourceShared;
use super::origin::Streams;
use crate::media::{MediaError, element};

/// Adds an element that reads a file, whose index is known, in any order.
pub(super) fn file_reader(
    pipeline: &gst::Pipeline,
    path: &std::path::Path,
    streams: &Arc<Streams>,
) -> Result<gst::Element, MediaError> {
    let source = element("filesrc")?;
    source.set_property("location", path);
    retouch(&source, &streams.shared);
    pipeline.add(&source).map_err(|_| MediaError::MissingElement("a reader of files".to_owned()))?;
    streams.identify(&source)?;
    Ok(source)
}

/// Applies the patches of [`Timeline`](crate::media::mp4::Timeline) to the index of an MP4 file before the demuxer reads it.
fn retouch(source: &gst::Element, shared: &Arc<SourceShared>) {
    let shared = Arc::clone(shared);
    let Some(pad) = source.static_pad("src") else { return };
    let reads = gst::PadProbeType::BUFFER | gst::PadProbeType::PULL | gst::PadProbeType::PUSH;
    pad.add_probe(reads, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let (offset, length) = (buffer.offset(), buffer.size());
            if let Some(timeline) = shared.timeline().filter(|timeline| timeline.touches(offset, length))
                && let Ok(mut bytes) = buffer.make_mut().map_writable()
            {
                timeline.apply(offset, &mut bytes);
            }
        }
        gst::PadProbeReturn::Ok
    });
}
