//! One decoding pipeline: its elements, its pads, and the pictures and sound they give.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFrameExt;

use super::branches::{continue_pictures, start_sink, stop, wanted_caps};
use super::caps::{colorimetry, pinned};
use super::demuxed::{self, KeptBack};
use super::feed::{self, Opener};
use super::file_reader::file_reader;
use super::origin::{FLIP, HEADROOM_NS, SOUND_DECODER, Streams};
use super::shown;
use super::{FALLBACK_FRAME_NS, Format, SourceOptions, SourceShared};
use crate::media::matroska::Turn;
use crate::media::pads::copy_pictures;
use crate::media::{Frame, Input, MediaError, Picture};
use crate::media::{element, error_text};

/// Frames decoded ahead. For a file, the decoder waits; for a live source, older frames are dropped.
const AHEAD: usize = 2;
/// Distance given to frames whose times do not increase: the resolution of Matroska.
const LEAST_STEP_NS: u64 = 1_000_000;
/// Jitter buffer of RTSP, in milliseconds; packets in order are not held back by it.
const RTSP_LATENCY_MS: u32 = 100;
/// How long to wait for a pipeline to shut down.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// One decoding pipeline.
pub(super) struct Connection {
    pipeline: gst::Pipeline,
    shared: Arc<SourceShared>,
}

impl Connection {
    /// Builds the pipeline for the current generation and starts it.
    pub(super) fn start(
        input: &Input,
        options: &SourceOptions,
        shared: &Arc<SourceShared>,
    ) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let connection = Self { pipeline: pipeline.clone(), shared: Arc::clone(shared) };
        let generation = shared.state().generation;

        connection.watch(generation)?;
        let kept = Arc::new(KeptBack::default());
        copy_pictures(&pipeline);
        demuxed::leave_out_transparency();
        demuxed::correct(&pipeline, &kept, shared);
        let (video_pad, filter) = video_branch(&pipeline, shared, generation)?;
        continue_pictures(&video_pad, shared, generation);
        shown::settle(&video_pad, &filter, shared, generation, kept);
        let streams = Arc::new(Streams {
            pipeline: pipeline.downgrade(),
            shared: Arc::clone(shared),
            generation,
            container: options.container,
            video_pad,
        });
        let opener = match input {
            Input::File(path) => front(&pipeline, path, shared, &streams)?,
            _ => {
                decoder(&pipeline, input, &streams)?;
                None
            }
        };

        shared.state().heard = Instant::now();
        shared.touch();
        let started = pipeline.set_state(gst::State::Paused).and_then(|paused| {
            // Live elements give nothing while paused and return NoPreroll: no data has flowed yet.
            if paused == gst::StateChangeSuccess::NoPreroll && options.live.is_none() {
                shared.update(generation, |state| state.live = true);
            }
            pipeline.set_state(gst::State::Playing)
        });
        if started.is_err() {
            let reason = shared.state().connection.error.clone();
            let reason = reason.unwrap_or_else(|| "its source does not start".to_owned());
            return Err(MediaError::NotDecodable { input: input.to_string(), reason });
        }
        if let Some(opener) = opener {
            feed::start(opener, streams)?;
        }
        Ok(connection)
    }

    /// Notes the first error, the end, and missing plugins, in the thread that reports them.
    fn watch(&self, generation: u64) -> Result<(), MediaError> {
        let bus =
            self.pipeline.bus().ok_or_else(|| MediaError::MissingElement("a message bus".to_owned()))?;
        let shared = Arc::clone(&self.shared);
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => shared.update(generation, |state| {
                    let from = error.src().map(|from| from.path_string().to_string());
                    if from.is_some_and(|from| from.contains(SOUND_DECODER)) {
                        state.notes.push(format!("a sound track is left out: {}", error_text(error)));
                    } else {
                        state.connection.error.get_or_insert_with(|| error_text(error));
                    }
                }),
                gst::MessageView::Eos(_) => shared.update(generation, |state| state.connection.ended = true),
                gst::MessageView::Element(message) => {
                    let missing = message.structure().filter(|s| s.name() == "missing-plugin");
                    let missing = missing.and_then(|s| s.get::<String>("name").ok());
                    if let Some(missing) = missing {
                        shared.update(generation, |state| {
                            state.connection.missing.get_or_insert(missing);
                        });
                    }
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        Ok(())
    }

    pub(super) fn duration_ns(&self) -> Option<u64> {
        let duration = self.pipeline.query_duration::<gst::ClockTime>()?;
        (!duration.is_zero()).then_some(duration.nseconds())
    }
}

impl Drop for Connection {
    /// Shuts the pipeline down in its own thread, because an RTSP server that does not answer may delay it.
    fn drop(&mut self) {
        // Wakes a streaming thread that waits for room.
        self.shared.state().generation += 1;
        self.shared.changed.notify_all();
        let pipeline = self.pipeline.clone();
        pipeline.iterate_sinks().into_iter().flatten().for_each(|sink| {
            sink.set_locked_state(false);
        });
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
            // Pads that appeared in the meantime may have added elements that started by themselves.
            pipeline.iterate_elements().into_iter().flatten().for_each(|element| stop(&element));
            let _ = done.send(());
        });
        let _ = finished.recv_timeout(CLOSE_LIMIT);
    }
}

/// Begins to read a file. Files that can be read only once, and transport streams, are fed by this program
/// once the pipeline runs.
fn front(
    pipeline: &gst::Pipeline,
    path: &std::path::Path,
    shared: &Arc<SourceShared>,
    streams: &Arc<Streams>,
) -> Result<Option<Opener>, MediaError> {
    shared.state().headroom_ns = HEADROOM_NS;
    if shared.fed {
        let path = path.to_owned();
        return Ok(Some(Box::new(move || Ok(Box::new(std::fs::File::open(path)?)))));
    }
    file_reader(pipeline, path, streams)?;
    Ok(None)
}

/// Adds the elements whose pads appear with decoded video and sound.
fn decoder(pipeline: &gst::Pipeline, input: &Input, streams: &Arc<Streams>) -> Result<(), MediaError> {
    let failed = |_| MediaError::MissingElement("a part of the decoder".to_owned());
    let caps = wanted_caps(streams.container, true)?;
    if let Input::Url(url) = input {
        let decoder = element("uridecodebin")?;
        decoder.set_property("uri", url);
        decoder.set_property("caps", caps);
        decoder.set_property("expose-all-streams", false);
        decoder.connect("source-setup", false, move |values| {
            let source = values.get(1)?.get::<gst::Element>().ok()?;
            if source.has_property("protocols") && source.has_property("latency") {
                source.set_property_from_str("protocols", "tcp");
                source.set_property("latency", RTSP_LATENCY_MS);
                source.set_property("drop-on-latency", true);
            }
            None
        });
        pipeline.add(&decoder).map_err(failed)?;
        streams.follow(&decoder);
        return Ok(());
    }
    let source = match input {
        Input::Webcam(number) => {
            let camera = element("v4l2src")?;
            camera.set_property("device", format!("/dev/video{number}"));
            camera
        }
        Input::Pipeline(description) => {
            // Something must follow for the description to end in caps.
            let parsed = gst::parse::bin_from_description(&format!("{description} ! identity"), true);
            parsed
                .map_err(|error| MediaError::BadInput {
                    input: input.to_string(),
                    reason: format!("GStreamer does not accept the pipeline: {}", error.message()),
                })?
                .upcast()
        }
        Input::File(_) | Input::Still(_) | Input::Url(_) => {
            return Err(MediaError::NoVideo(input.to_string()));
        }
    };
    let decoder = element("decodebin")?;
    decoder.set_property("caps", caps);
    decoder.set_property("expose-all-streams", false);
    pipeline.add_many([&source, &decoder]).map_err(failed)?;
    source.link(&decoder).map_err(failed)?;
    streams.follow(&decoder);
    Ok(())
}

/// Adds the elements that turn decoded video into upright I420 of one size. Returns their input and the
/// filter that sets the output format.
fn video_branch(
    pipeline: &gst::Pipeline,
    shared: &Arc<SourceShared>,
    generation: u64,
) -> Result<(gst::Pad, gst::Element), MediaError> {
    let queue = element("queue")?;
    queue.set_property("max-size-buffers", 2u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    let convert = element("videoconvert")?;
    let flip = element("videoflip")?;
    flip.set_property("name", FLIP);
    flip.set_property_from_str("video-direction", shared.turn.map_or("auto", Turn::direction));
    let scale = element("videoscale")?;
    scale.set_property("add-borders", true);
    let filter = element("capsfilter")?;
    let format = shared.state().format.clone();
    filter.set_property("caps", pinned(format.as_ref(), None));
    let sink = gst_app::AppSink::builder().sync(false).async_(false).max_buffers(1).build();

    shared.update(generation, |state| state.connection.running += 1);
    let shared = Arc::clone(shared);
    let ended = Arc::clone(&shared);
    let pin = filter.downgrade();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                take_picture(&shared, generation, &sample, &pin)
            })
            .eos(move |_| {
                ended.update(generation, |state| {
                    state.connection.video_ended = true;
                    let held = state.held.take();
                    state.ready.extend(held);
                    state.end_one();
                });
            })
            .build(),
    );

    let elements = [&queue, &convert, &flip, &scale, &filter, sink.upcast_ref::<gst::Element>()];
    let failed = |_| MediaError::MissingElement("a part of the video conversion".to_owned());
    pipeline.add_many(elements).map_err(failed)?;
    gst::Element::link_many(elements).map_err(failed)?;
    start_sink(sink.upcast_ref());
    let input = queue.static_pad("sink");
    let input = input.ok_or_else(|| MediaError::MissingElement("a queue with an input".to_owned()))?;
    Ok((input, filter))
}

/// In the streaming thread: makes a frame of a sample and queues it.
fn take_picture(
    shared: &SourceShared,
    generation: u64,
    sample: &gst::Sample,
    pin: &glib::WeakRef<gst::Element>,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
    let caps = sample.caps().ok_or(gst::FlowError::Error)?;
    let video = gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
    let mapped = shown::mapped(buffer, &video, shared);
    let hdr = mapped.is_some().then(|| shown::hdr(&video)).flatten();
    let picture = mapped.or_else(|| picture(buffer, &video)).ok_or(gst::FlowError::Error)?;
    let running_ns = buffer.pts().and_then(|pts| {
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
        i64::try_from(segment.to_running_time(pts)?.nseconds()).ok()
    });
    let fps = Some((video.fps().numer(), video.fps().denom())).filter(|&(n, d)| n > 0 && d > 0);
    let nominal_ns = fps.map(|(n, d)| (1e9 * f64::from(d) / f64::from(n)).round() as u64);
    let buffer_ns = buffer.duration().map(gst::ClockTime::nseconds).filter(|&ns| ns > 0);

    let mut state = shared.state();
    while state.generation == generation && !state.live && state.ready.len() >= AHEAD {
        state = shared.wait(state);
    }
    if state.generation != generation {
        return Err(gst::FlowError::Flushing);
    }
    if state.format.is_none() {
        let format = Format {
            width: picture.width(),
            height: picture.height(),
            pixel_aspect: (video.par().numer().max(1) as u32, video.par().denom().max(1) as u32),
            fps,
            colorimetry: picture.colorimetry(),
            caps: shown::settled(caps, &video, buffer, state.top_first),
        };
        let caps = pinned(Some(&format), hdr);
        state.format = Some(format);
        // Not under the lock: it reconfigures the elements before this one.
        drop(state);
        if let Some(filter) = pin.upgrade() {
            filter.set_property("caps", caps);
        }
        state = shared.state();
    }

    let step_ns = state.last_step_ns.or(nominal_ns).or(buffer_ns).unwrap_or(FALLBACK_FRAME_NS);
    let next_ns = state.last_pts_ns.map_or(0, |last_ns| last_ns + step_ns);
    let offset_ns = match state.offset_ns {
        Some(offset_ns) => offset_ns,
        None => {
            // A file keeps its times. A live source starts at 0 and continues at wall clock time after a
            // loss.
            let offset_ns = match (state.live, state.started) {
                (false, None) => -state.headroom_ns,
                (_, started) => {
                    let elapsed_ns = started.map_or(0, |at| at.elapsed().as_nanos() as u64);
                    elapsed_ns.max(next_ns) as i64 - running_ns.unwrap_or(0)
                }
            };
            state.offset_ns = Some(offset_ns);
            state.tracks.iter().for_each(|track| track.set_offset(offset_ns));
            offset_ns
        }
    };
    state.started.get_or_insert_with(Instant::now);
    let stamped = running_ns.map_or(next_ns, |ns| u64::try_from(ns.saturating_add(offset_ns)).unwrap_or(0));
    let pts_ns = match state.last_pts_ns {
        Some(last_ns) if stamped <= last_ns => last_ns + LEAST_STEP_NS,
        _ => stamped,
    };
    if let Some(last_ns) = state.last_pts_ns {
        state.last_step_ns = Some(pts_ns - last_ns);
        state.left_out += nominal_ns.map_or(0, |frame_ns| missing(pts_ns - last_ns, frame_ns));
    }
    if let Some(mut held) = state.held.take() {
        held.duration_ns = pts_ns - held.pts_ns;
        state.ready.push_back(held);
    }
    let duration_ns = buffer_ns.or(nominal_ns).or(state.last_step_ns).unwrap_or(FALLBACK_FRAME_NS);
    let frame = Frame { index: state.next_index, pts_ns, duration_ns, picture: Arc::new(picture) };
    state.next_index += 1;
    state.last_pts_ns = Some(pts_ns);
    state.connection.pictures += 1;
    state.heard = Instant::now();
    shared.touch();
    if state.live {
        while state.ready.len() >= AHEAD {
            state.ready.pop_front();
            state.dropped += 1;
        }
        state.ready.push_back(frame);
    } else {
        state.held = Some(frame);
    }
    drop(state);
    shared.changed.notify_all();
    Ok(gst::FlowSuccess::Ok)
}

/// Frames missing in a step from one frame to the next, by the nominal rate.
fn missing(step_ns: u64, frame_ns: u64) -> u64 {
    ((step_ns + frame_ns / 2) / frame_ns.max(1)).saturating_sub(1)
}

/// Copies a decoded I420 buffer into a tightly packed picture.
fn picture(buffer: &gst::BufferRef, video: &gst_video::VideoInfo) -> Option<Picture> {
    if video.format() != gst_video::VideoFormat::I420 {
        return None;
    }
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, video).ok()?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let mut data = Vec::with_capacity(Picture::len_bytes(width, height));
    let chroma = (width.div_ceil(2), height.div_ceil(2));
    for (plane, (width, height)) in (0..3).zip([(width, height), chroma, chroma]) {
        let stride = usize::try_from(*frame.plane_stride().get(plane as usize)?).ok()?;
        let rows = frame.plane_data(plane).ok()?;
        if stride == width {
            data.extend_from_slice(rows.get(..width * height)?);
            continue;
        }
        for row in 0..height {
            data.extend_from_slice(rows.get(row * stride..row * stride + width)?);
        }
    }
    Picture::from_i420(data, width, height, colorimetry(video))
}
