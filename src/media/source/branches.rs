//! The elements after the pads of demuxers and decoders: branches for pictures, sound and subtitles.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::SourceShared;
use super::demuxed::track_number;
use super::origin::{HEADROOM_NS, Origin, Streams, Times};
use crate::media::audio::{Copyable, Kind, Track};
use crate::media::{Container, MediaError, element};

/// The required output of a decoder: pictures, if needed, and sound decoded or in a codec that the output's
/// container accepts.
pub(super) fn wanted_caps(container: Option<Container>, pictures: bool) -> Result<gst::Caps, MediaError> {
    let mut caps = gst::Caps::new_empty();
    let wanted = caps.make_mut();
    if pictures {
        wanted.append(gst::Caps::builder("video/x-raw").any_features().build());
    }
    if let Some(container) = container {
        wanted.append(gst::Caps::builder("audio/x-raw").any_features().build());
        for kind in Copyable::of(container) {
            wanted.append(parse_caps(kind.caps)?);
        }
    }
    Ok(caps)
}

/// Stops an element that may have been started by [`start_sink`].
pub(super) fn stop(element: &gst::Element) {
    element.set_locked_state(false);
    let _ = element.set_state(gst::State::Null);
}

/// Starts a sink before the pipeline. A decoder that needs more input keeps the pipeline in the paused state,
/// in which sinks take one buffer and wait, so no more input would come.
pub(super) fn start_sink(sink: &gst::Element) {
    sink.set_locked_state(true);
    // Fails only where the first buffer fails too.
    let _ = sink.set_state(gst::State::Playing);
}

/// Connects a new decoded pad: the first one of video, and all of sound. Others are discarded.
pub(super) fn attach(
    pad: &gst::Pad,
    origin: &Origin,
    pipeline: &gst::Pipeline,
    streams: &Streams,
) -> Result<(), MediaError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let caps = origin.caps.clone().filter(|_| caps.is_any()).unwrap_or(caps);
    let media = caps.structure(0).map_or(String::new(), |s| s.name().to_string());
    let refused = |what: &str| MediaError::MissingElement(format!("a way to take its {what}"));
    if media.starts_with("video/") && (!streams.video_pad.is_linked() || origin.chain.is_some()) {
        streams.shared.update(streams.generation, |state| state.connection.video_found = true);
        if !has_room(origin, streams) {
            return Ok(());
        }
        return pad.link(&streams.video_pad).map(drop).map_err(|_| refused("video"));
    }
    let elements = match streams.container {
        Some(container) if media.starts_with("audio/") => {
            audio_branch(pad, &caps, origin, streams, container)?
        }
        _ => {
            vec![dry_sink()?]
        }
    };
    if let Some(sink) = elements.last() {
        start_sink(sink);
    }
    if pipeline.add_many(&elements).is_err() {
        elements.iter().for_each(stop);
        return Err(refused("sound"));
    }
    gst::Element::link_many(&elements).map_err(|_| refused("sound"))?;
    for element in elements.iter().rev().filter(|element| !element.is_locked_state()) {
        element.sync_state_with_parent().map_err(|_| refused("sound"))?;
    }
    let input =
        elements.first().and_then(|first| first.static_pad("sink")).ok_or_else(|| refused("sound"))?;
    pad.link(&input).map(drop).map_err(|_| refused("sound"))
}

/// Waits until all pictures that come before those of a stream have passed. Returns whether there is room for these.
fn has_room(origin: &Origin, streams: &Streams) -> bool {
    let mut state = streams.shared.state();
    while state.generation == streams.generation && state.connection.passed < origin.follows {
        state = streams.shared.wait(state);
    }
    let is_current = state.generation == streams.generation;
    drop(state);
    let before = streams.video_pad.peer();
    is_current && before.is_none_or(|before| before.unlink(&streams.video_pad).is_ok())
}

/// Hides the end of pictures from the elements after a pad if others will continue them.
pub(super) fn continue_pictures(pad: &gst::Pad, shared: &Arc<SourceShared>, generation: u64) {
    let shared = Arc::clone(shared);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let ends = info.event().is_some_and(|event| event.type_() == gst::EventType::Eos);
        let mut continued = false;
        if ends {
            shared.update(generation, |state| {
                let now = &mut state.connection;
                continued = now.coming > now.passed;
                now.passed += u32::from(continued);
            });
        }
        if continued {
            // GStreamer 1.22 complains if the event is taken away.
            let nothing = gst::Structure::new_empty("continued");
            info.data = Some(gst::PadProbeData::Event(gst::event::CustomDownstreamSticky::new(nothing)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// A sink that discards its input.
pub(super) fn dry_sink() -> Result<gst::Element, MediaError> {
    let sink = element("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", false);
    Ok(sink)
}

/// The name that the demuxer gave the stream of a pad.
fn stream_name(pad: &gst::Pad) -> String {
    let event = pad.sticky_event::<gst::event::StreamStart>(0);
    event.map_or_else(String::new, |event| event.stream_id().to_string())
}

/// Elements that parse compressed sound, or pass on decoded sound, into a track.
fn audio_branch(
    pad: &gst::Pad,
    caps: &gst::Caps,
    origin: &Origin,
    streams: &Streams,
    container: Container,
) -> Result<Vec<gst::Element>, MediaError> {
    let compressed = caps.structure(0).is_none_or(|format| format.name() != "audio/x-raw");
    let mut elements = Vec::new();
    let mut wanted = gst::Caps::new_empty_simple("audio/x-raw");
    if compressed {
        for kind in Copyable::of(container) {
            if parse_caps(kind.caps)?.can_intersect(caps) {
                // vorbisparse counts times from 0, and everything that it adds may be present already.
                let headed = caps.structure(0).is_some_and(|format| format.has_field("streamheader"));
                let needless = headed && kind.parser == "vorbisparse";
                elements.push(element(if needless { "identity" } else { kind.parser })?);
                wanted = parse_caps(kind.framed)?;
            }
        }
    }
    let name = origin.name.clone().unwrap_or_else(|| stream_name(pad));
    let kind = if compressed { Kind::Packets } else { Kind::Samples };
    let track = track(&name, kind, origin, streams);
    if let Some(track) = &track {
        follow_tags(pad, track);
        if let Some(coded) = &origin.coded {
            track.came_as(coded);
        }
    }
    elements.push(into_track(track, &wanted, streams));
    Ok(elements)
}

/// A sink that passes everything on to a track.
fn into_track(track: Option<Arc<Track>>, wanted: &gst::Caps, streams: &Streams) -> gst::Element {
    let sink = gst_app::AppSink::builder().sync(false).async_(false).caps(wanted).build();
    let (shared, dry) = (Arc::clone(&streams.shared), track.clone());
    let (ended, generation) = (Arc::clone(&streams.shared), streams.generation);
    ended.update(generation, |state| state.connection.running += 1);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                shared.touch();
                if let Some(track) = &track
                    && track.push(sample)
                {
                    shared.changed.notify_all();
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                if let Some(track) = &dry {
                    track.run_dry();
                }
                ended.update(generation, |state| state.end_one());
            })
            .build(),
    );
    sink.upcast()
}

/// A branch for subtitles, which the container accepts unchanged, into a track.
pub(super) fn text_branch(pad: &gst::Pad, origin: &Origin, streams: &Streams) -> gst::Element {
    let track = track(&stream_name(pad), Kind::Text, origin, streams);
    if let Some(track) = &track {
        follow_tags(pad, track);
    }
    into_track(track, &gst::Caps::new_any(), streams)
}

/// The offset that the index of an MP4 file gives for the stream of that name.
fn shift_ns(name: &str, origin: &Origin, streams: &Streams) -> i64 {
    let number = track_number(name).filter(|_| origin.times != Times::Ours);
    number.and_then(|number| streams.shared.timeline()?.shift_ns.get(&number)).copied().unwrap_or(0)
}

/// End of a buffer from the demuxer, on the time line of the file.
pub(super) fn end_ns(
    pad: &gst::Pad,
    buffer: &gst::BufferRef,
    origin: &Origin,
    streams: &Streams,
) -> Option<u64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    let begin = segment.to_running_time(buffer.pts()?)?;
    let end = begin + buffer.duration().unwrap_or(gst::ClockTime::ZERO);
    let added_ns = match origin.times {
        Times::Ours => -HEADROOM_NS,
        _ => shift_ns(&stream_name(pad), origin, streams),
    };
    end.nseconds().checked_add_signed(added_ns)
}

/// The track of a stream: a new one while the input is being opened, else one that continues.
fn track(name: &str, kind: Kind, origin: &Origin, streams: &Streams) -> Option<Arc<Track>> {
    let mut state = streams.shared.state();
    if state.generation != streams.generation {
        return None;
    }
    let number = state.connection.audio_pads;
    state.connection.audio_pads += 1;
    let named = origin.name.as_ref().and_then(|name| state.tracks.iter().find(|track| track.stream == *name));
    let again = state.tracks.get(number).filter(|_| streams.generation > 0);
    if let Some(track) = named.or(again) {
        return Some(Arc::clone(track)).filter(|track| origin.name.is_some() || track.kind == kind);
    }
    if streams.generation > 0 {
        return None;
    }
    if state.opened {
        let what = if kind == Kind::Text { "subtitle" } else { "sound" };
        state.notes.push(format!("a {what} track that begins later is left out"));
        return None;
    }
    let offset_ns = if state.live { state.offset_ns } else { Some(-state.headroom_ns) };
    let new = Track::new(name, kind, offset_ns, shift_ns(name, origin, streams));
    if origin.times == Times::Matroska {
        new.count_skip();
    }
    let flags = streams.shared.listed(name).map(|listed| listed.flags).unwrap_or_default();
    new.describe(origin.language.as_deref(), flags);
    state.tracks.push(Arc::clone(&new));
    Some(new)
}

/// Records the tags of a stream.
fn follow_tags(pad: &gst::Pad, track: &Arc<Track>) {
    let track = Arc::clone(track);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Tag(event)) = info.event().map(|event| event.view()) {
            let tags = event.tag();
            if tags.scope() == gst::TagScope::Stream {
                track.follow(tags);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

pub(super) fn parse_caps(text: &str) -> Result<gst::Caps, MediaError> {
    text.parse().map_err(|_| MediaError::MissingElement(format!("the caps {text}")))
}
