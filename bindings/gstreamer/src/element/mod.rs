//! The element `sphereface`.

mod engines;
mod faces;
mod imp;
mod picture;
mod recognition;
mod settings;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

glib::wrapper! {
    /// Identifies the people in a video.
    pub struct SphereFace(ObjectSubclass<imp::SphereFace>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "sphereface", gst::Rank::NONE, SphereFace::static_type())
}
