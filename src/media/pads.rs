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
