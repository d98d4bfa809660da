//! A window that shows frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::screen::{self, Screen};
use super::sink::{Layout, Pixels};
use super::{Frame, MediaError, SourceInfo};
use super::{element, error_text, start_gstreamer};

/// How long a window may take to open.
const OPEN_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// A window that shows frames as they come. It never makes the caller wait: a frame that could not be shown
/// before the next one came is dropped.
pub struct View {
    pipeline: gst::Pipeline,
    video: gst_app::AppSrc,
    layout: Layout,
    closed: Arc<AtomicBool>,
}

impl View {
    /// Opens a window for the frames of a source.
    ///
    /// # Errors
    /// When there is no display or no element that can show video.
    pub fn open(info: &SourceInfo) -> Result<Self, MediaError> {
        let screen = Screen::find()?;
        start_gstreamer()?;
        let pipeline = gst::Pipeline::new();
        let video = gst_app::AppSrc::builder()
            .caps(&info.caps)
            .format(gst::Format::Time)
            .is_live(true)
            .do_timestamp(true)
            .max_buffers(1)
            .max_bytes(0)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        let convert = element("videoconvert")?;
        let scale = element("videoscale")?;
        let window = screen::window(screen)?;
        window.set_property("sync", false);
        let elements = [video.upcast_ref::<gst::Element>(), &convert, &scale, &window];
        let failed = |_| MediaError::MissingElement("a part of the preview".to_owned());
        pipeline.add_many(elements).map_err(failed)?;
        gst::Element::link_many(elements).map_err(failed)?;

        let bus = pipeline.bus().ok_or_else(|| MediaError::MissingElement("a message bus".to_owned()))?;
        if pipeline.set_state(gst::State::Playing).is_err() {
            let message = bus.timed_pop_filtered(OPEN_LIMIT, &[gst::MessageType::Error]);
            let reason = message.and_then(|message| match message.view() {
                gst::MessageView::Error(error) => Some(error_text(error)),
                _ => None,
            });
            let _ = pipeline.set_state(gst::State::Null);
            return Err(MediaError::NoWindow(reason.unwrap_or_else(|| "it does not open".to_owned())));
        }
        let closed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&closed);
        bus.set_sync_handler(move |_, message| {
            if message.type_() == gst::MessageType::Error {
                flag.store(true, Ordering::Release);
            }
            gst::BusSyncReply::Drop
        });
        Ok(Self { pipeline, video, layout: Layout::new((info.width, info.height)), closed })
    }

    /// Whether a window could be opened, before any work is done.
    ///
    /// # Errors
    /// When there is no display, or it does not answer.
    pub fn check() -> Result<(), MediaError> {
        let screen = Screen::find()?;
        start_gstreamer()?;
        let _ = screen::window(screen)?.set_state(gst::State::Null);
        Ok(())
    }

    /// Shows a frame, of the size of the source, unless the window was closed.
    pub fn show(&self, frame: &Frame) {
        if !self.is_open() {
            return;
        }
        let mut buffer = gst::Buffer::from_slice(Pixels(Arc::clone(&frame.picture)));
        self.layout.add_to(buffer.make_mut());
        // Refused only once the window is closed, which the flag shows.
        let _ = self.video.push_buffer(buffer);
    }

    /// Whether the window is still open; the user may have closed it.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
