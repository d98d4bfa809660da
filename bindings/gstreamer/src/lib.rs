//! A GStreamer plugin with one element, `sphereface`: it writes the names of people on a video.
//!
//! ```text
//! gst-launch-1.0 filesrc location=party.mp4 ! decodebin ! videoconvert ! sphereface gallery=gallery ! \
//!     videoconvert ! autovideosink
//! ```
//!
//! Every face is a `GstVideoRegionOfInterestMeta` of type `face` on its buffer, with a structure `sphereface`
//! among its parameters that holds name, angle and track. Element messages report when a person appears,
//! leaves, or gets another name. docs/gstreamer.md has the details.

mod element;

use gst::glib;
use gstreamer as gst;

pub use element::SphereFace;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    element::register(plugin)
}

gst::plugin_define!(
    sphereface,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    // The licence is MIT or Apache 2.0; MIT is the first of the two among the names that GStreamer knows.
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "sphereface",
    "2026-11-29"
);
