use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;
use sphereface::{Event, LabelledFrame};

use super::recognition::Recognition;
use super::settings::{PROPERTIES, Settings};
use super::{faces, picture};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("sphereface", gst::DebugColorFlags::empty(), Some("Face recognition"))
});

/// The implementation of the element.
#[derive(Default)]
pub struct SphereFace {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

/// The state while the element runs.
#[derive(Default)]
struct State {
    recognition: Option<Recognition>,
    info: Option<gst_video::VideoInfo>,
    /// When the last buffer was shown.
    running_time: gst::ClockTime,
    /// The gallery property was set again.
    reload: bool,
}

/// Locks; a poisoned lock is used, because no holder leaves partial state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for SphereFace {
    const NAME: &'static str = "GstSphereFace";
    type Type = super::SphereFace;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for SphereFace {
    fn properties() -> &'static [glib::ParamSpec] {
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let gallery = lock(&self.settings).set(pspec.name(), value);
        gst::debug!(CAT, imp = self, "{} is set to {:?}", pspec.name(), value);
        if gallery {
            lock(&self.state).reload = true;
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        lock(&self.settings).get(pspec.name())
    }
}

impl GstObjectImpl for SphereFace {}

impl ElementImpl for SphereFace {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Face recognition",
                "Filter/Effect/Analyzer/Video",
                "Identifies people in a video: finds, follows and names the people of a gallery, draws their names, and \
                 reports them by GstVideoRegionOfInterestMeta (type face, parameter structure sphereface: name, known, \
                 angle, track, score, landmarks) and by element messages (sphereface-event, sphereface-frame)",
                "The sphereface authors",
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new().format_list(picture::FORMATS).build();
            let template = |name, direction| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            };
            [template("sink", gst::PadDirection::Sink), template("src", gst::PadDirection::Src)]
                .into_iter()
                .flatten()
                .collect()
        });
        TEMPLATES.as_ref()
    }
}

impl BaseTransformImpl for SphereFace {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let recognition = Recognition::start(&settings)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{}", error.0)))?;
        gst::info!(CAT, imp = self, "embeddings are computed in {}", recognition.arithmetic());
        *lock(&self.state) = State { recognition: Some(recognition), ..State::default() };
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "{incaps} are not caps of raw video"))?;
        let mut state = lock(&self.state);
        if state.info.is_some()
            && let Some(recognition) = &mut state.recognition
        {
            recognition.jump();
        }
        state.info = Some(info);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStop(_) => {
                if let Some(recognition) = &mut lock(&self.state).recognition {
                    recognition.jump();
                }
            }
            gst::EventView::Eos(_) => self.finish(),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        self.parent_propose_allocation(decide_query, query)?;
        // Planes and rows are read at the offsets that the buffer states, so that a decoder need not copy
        // them into one block.
        if query.find_allocation_meta::<gst_video::VideoMeta>().is_none() {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        Ok(())
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = lock(&self.settings).clone();
        let segment = self.obj().segment();
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let running_time = segment.zip(buffer.pts()).and_then(|(segment, pts)| segment.to_running_time(pts));
        let mut state = lock(&self.state);
        self.reload(&mut state, &settings);
        let (frame, events) = self.label(&mut state, buffer, running_time, &settings)?;
        let running_time = state.running_time;
        drop(state);
        self.tell(&events, running_time);
        if let Some(frame) = frame.filter(|_| settings.post_frames) {
            self.post(faces::of_frame(&frame, running_time));
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

impl SphereFace {
    /// Reads the gallery again if it was set. If it cannot be read, the previous one is kept.
    fn reload(&self, state: &mut State, settings: &Settings) {
        if !std::mem::take(&mut state.reload) {
            return;
        }
        if let Some(recognition) = &mut state.recognition
            && let Err(error) = recognition.reload(settings)
        {
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{}", error.0));
        }
    }

    /// Finds and names the faces of a buffer, and writes them on it.
    fn label(
        &self,
        state: &mut State,
        buffer: &mut gst::BufferRef,
        running_time: Option<gst::ClockTime>,
        settings: &Settings,
    ) -> Result<(Option<LabelledFrame>, Vec<Event>), gst::FlowError> {
        state.running_time = running_time.unwrap_or(state.running_time);
        let (Some(recognition), Some(info)) = (&mut state.recognition, &state.info) else {
            return Err(gst::FlowError::NotNegotiated);
        };
        let unreadable = || {
            gst::element_imp_error!(self, gst::StreamError::Format, ("a buffer does not match its caps"));
            gst::FlowError::Error
        };
        let mut pixels = Arc::new(picture::read(buffer, info).ok_or_else(unreadable)?);
        let duration_ns = buffer.duration().map(gst::ClockTime::nseconds);
        let labelled =
            recognition.label(Arc::clone(&pixels), running_time.map(gst::ClockTime::nseconds), duration_ns);
        let (frame, events) = labelled.map_err(|error| {
            gst::element_imp_error!(self, gst::LibraryError::Failed, ("{error}"));
            gst::FlowError::Error
        })?;
        if let Some(frame) = &frame {
            if recognition.draw(&mut pixels, frame, settings.draw) {
                picture::write(&pixels, buffer, info).ok_or_else(unreadable)?;
            }
            faces::add_metas(buffer, frame, (pixels.width(), pixels.height()));
        }
        Ok((frame, events))
    }

    /// The end of the stream: every person leaves.
    fn finish(&self) {
        let mut state = lock(&self.state);
        let running_time = state.running_time;
        let Some(recognition) = &mut state.recognition else { return };
        let events = recognition.finish();
        drop(state);
        match events {
            Ok(events) => self.tell(&events, running_time),
            Err(error) => gst::element_imp_error!(self, gst::LibraryError::Failed, ("{error}")),
        }
    }

    fn tell(&self, events: &[Event], running_time: gst::ClockTime) {
        events.iter().for_each(|event| self.post(faces::of_event(event, running_time)));
    }

    fn post(&self, structure: gst::Structure) {
        let message = gst::message::Element::builder(structure).src(&*self.obj()).build();
        // Fails only if there is no bus.
        let _ = self.obj().post_message(message);
    }
}
