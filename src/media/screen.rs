//! The display on which a window can be opened. GStreamer's own choice tries every sink, and some of them
//! crash the process if there is no display. So only sinks whose display exists are tried.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{MediaError, element};

/// A display that windows can be opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    wayland: bool,
    x11: bool,
}

impl Screen {
    /// The display that the environment names.
    pub(super) fn find() -> Result<Self, MediaError> {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let screen = Self { wayland: is_set("WAYLAND_DISPLAY"), x11: is_set("DISPLAY") };
        let needs_none = !cfg!(target_os = "linux");
        if needs_none || screen.wayland || screen.x11 {
            return Ok(screen);
        }
        Err(MediaError::NoWindow("neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned()))
    }

    /// Sinks that open a window there, best first.
    fn sinks(self) -> Vec<&'static str> {
        if !cfg!(target_os = "linux") {
            return vec!["autovideosink"];
        }
        let wayland = ["waylandsink"].into_iter().filter(|_| self.wayland);
        wayland.chain(["xvimagesink", "ximagesink"].into_iter().filter(|_| self.x11)).collect()
    }
}

/// A sink whose display responds.
pub(super) fn window(screen: Screen) -> Result<gst::Element, MediaError> {
    let mut refused = Vec::new();
    for name in screen.sinks() {
        let Ok(sink) = element(name) else {
            refused.push(format!("{name} is not installed"));
            continue;
        };
        if sink.set_state(gst::State::Ready).is_ok() {
            return Ok(sink);
        }
        let _ = sink.set_state(gst::State::Null);
        refused.push(format!("{name} finds no display"));
    }
    Err(MediaError::NoWindow(refused.join(", ")))
}
