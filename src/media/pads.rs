//! Pads of GStreamer's elements.

use gstreamer as gst;
use gstreamer::prelude::*;

/// Replaces the caps that pass a pad if `change` returns others.
pub(super) fn on_caps(
    pad: &gst::Pad,
    change: impl Fn(&gst::CapsRef) -> Option<gst::Caps> + Send + Sync + 'static,
) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let changed = match &info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(now) => change(now.caps()),
                _ => None,
            },
            _ => None,
        };
        if let Some(caps) = changed {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Lets some decoders that a pipeline will have copy their pictures. Those of libav write into GStreamer's memory
/// otherwise, and crash if GStreamer has no name for the format of the pictures, such as 16 bits per sample in FFV1.
pub(super) fn copy_pictures(pipeline: &gst::Pipeline) {
    pipeline.connect_deep_element_added(|_, _, element| copy_pictures_of(element));
}

/// The same for a decoder. Of others, such as that of QuickTime's animation, the times of pictures would be lost.
pub(super) fn copy_pictures_of(decoder: &gst::Element) {
    let name = decoder.factory().map(|factory| factory.name());
    if matches!(name.as_deref(), Some("avdec_ffv1" | "avdec_h264" | "avdec_h265")) {
        decoder.set_property("direct-rendering", false);
    }
}
