//! From a file to its streams: the demuxer and the elements after each of its pads.
//!
//! GStreamer's decodebin waits for all streams of a group, clips everything before the start of a segment,
//! and hangs if a stream comes later than the others. So this module controls the demuxer, and each stream
//! has its own decoder.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::branches::{attach, dry_sink, end_ns, parse_caps, start_sink, stop, text_branch, wanted_caps};
use super::demuxed::{tell_rows, track_number, unpack};
use super::origin::{Chain, HEADROOM_NS, Origin, SOUND_DECODER, Streams, Times};
use super::{SourceShared, selection};
use crate::media::audio::Copyable;
use crate::media::listed::{Listed, left_out};
use crate::media::location::place_at;
use crate::media::{Chapter, Container, MediaError, element};

/// Bytes and time of compressed pictures that are read ahead, so that sound stored after them is found in
/// time.
const READ_AHEAD: (u32, u64) = (64 << 20, 10_000_000_000);
const PICTURE_DECODER: &str = "picture-decoder";

impl Streams {
    /// Handles the bytes from `element`, whatever their format is.
    pub(super) fn identify(self: &Arc<Self>, source: &gst::Element) -> Result<(), MediaError> {
        let failed = |_| missing("a part of the reader");
        let pipeline = self.pipeline()?;
        let finder = element("typefind")?;
        pipeline.add(&finder).map_err(failed)?;
        source.link(&finder).map_err(failed)?;
        let streams = Arc::clone(self);
        finder.connect("have-type", false, move |values| {
            let finder = values.first()?.get::<gst::Element>().ok()?;
            let caps = values.get(2)?.get::<gst::Caps>().ok()?;
            let pad = finder.static_pad("src")?;
            streams.check(streams.found(&pad, &caps));
            None
        });
        finder.sync_state_with_parent().map_err(|_| missing("a way to find out what it is"))
    }

    fn pipeline(&self) -> Result<gst::Pipeline, MediaError> {
        self.pipeline.upgrade().ok_or_else(|| missing("a pipeline that is still there"))
    }

    /// Records an error in a streaming thread.
    pub(super) fn check(&self, result: Result<(), MediaError>) {
        if let Err(error) = result {
            self.shared.update(self.generation, |state| {
                state.connection.error.get_or_insert(error.to_string());
            });
        }
    }

    /// All streams are known.
    pub(super) fn complete(&self) {
        let listed = self.shared.listed.get();
        self.shared.update(self.generation, |state| {
            state.connection.pads_done = true;
            let lost = listed.map_or_else(Vec::new, |listed| left_out(listed, &state.connection.seen));
            lost.into_iter().for_each(|what| state.lacks(what));
        });
    }

    /// The kind of the input is known.
    fn found(self: &Arc<Self>, pad: &gst::Pad, caps: &gst::Caps) -> Result<(), MediaError> {
        let Some(factory) = demuxer(caps) else {
            move_segments(pad, &Origin::new(Times::Cut), &self.shared);
            self.whole(pad, &Origin::new(Times::Cut))?;
            self.complete();
            return Ok(());
        };
        // Its segments follow edit lists.
        let times = match factory.name().as_str() {
            "qtdemux" => Times::Cut,
            "matroskademux" => Times::Matroska,
            _ => Times::Demuxer,
        };
        let chain = (factory.name() == "oggdemux").then(Arc::<Chain>::default);
        let origin = Origin { chain: chain.clone(), ..Origin::new(times) };
        let demuxer = factory.create().build().map_err(|_| missing(&factory.name()))?;
        let streams = Arc::clone(self);
        demuxer.connect_pad_added(move |_, pad| streams.check(streams.stream(pad, &origin)));
        let streams = Arc::clone(self);
        demuxer.connect_no_more_pads(move |_| {
            streams.complete();
            if let Some(chain) = &chain {
                chain.complete();
            }
        });
        self.append(pad, &[demuxer])
    }

    /// Adds elements after a pad.
    fn append(&self, pad: &gst::Pad, elements: &[gst::Element]) -> Result<(), MediaError> {
        let refused = |_| missing("a way to take its streams");
        // A pipeline that changes its state meanwhile must not change these elements: it would wait for this
        // thread, which waits for the elements.
        let ours: Vec<_> = elements.iter().filter(|element| !element.is_locked_state()).collect();
        for element in &ours {
            element.set_locked_state(true);
        }
        let added = self.pipeline().and_then(|pipeline| pipeline.add_many(elements).map_err(refused));
        if let Err(error) = added {
            elements.iter().for_each(stop);
            return Err(error);
        }
        gst::Element::link_many(elements).map_err(refused)?;
        let first = elements.first().and_then(|first| first.sink_pads().into_iter().next());
        let first = first.ok_or_else(|| missing("a demuxer with an input"))?;
        pad.link(&first).map_err(|_| missing("a way to take its streams"))?;
        // Not by the state of the pipeline: if it is being closed, the elements would be stopped from the
        // thread that feeds them, which cannot wait for itself. The code that closes it stops them too.
        let refused = |_| missing("a way to take its streams");
        for element in ours.iter().rev() {
            element.set_state(gst::State::Paused).map_err(refused)?;
        }
        for element in ours.iter().rev() {
            element.set_locked_state(false);
            element.set_state(gst::State::Playing).map_err(refused)?;
        }
        Ok(())
    }

    /// One stream.
    pub(super) fn stream(self: &Arc<Self>, pad: &gst::Pad, origin: &Origin) -> Result<(), MediaError> {
        let known = origin.caps.clone().or_else(|| pad.current_caps());
        let caps = known.unwrap_or_else(|| pad.query_caps(None));
        let format = caps.structure(0).map(ToOwned::to_owned);
        let media = format.as_ref().map_or(String::new(), |format| format.name().to_string());
        let (is_sound, is_picture) =
            (media.starts_with("audio/"), media.starts_with("video/") || media.starts_with("image/"));
        self.read_about(pad);
        let name = pad.stream_id();
        let number = name.as_ref().and_then(|name| track_number(name));
        self.shared.update(self.generation, |state| state.connection.seen.extend(number));
        if origin.times != Times::Ours {
            move_segments(pad, origin, &self.shared);
        }
        if format.is_some_and(|format| format.get::<bool>("systemstream") == Ok(true)) {
            return self.whole(pad, origin);
        }
        let continued = is_picture && origin.chain.as_ref().is_some_and(|chain| chain.continues_pictures());
        if continued {
            let mut follows = 0;
            self.shared.update(self.generation, |state| {
                state.connection.coming += 1;
                follows = state.connection.coming;
            });
            let origin = Origin { follows, ..origin.clone() };
            return self.decode(pad, &origin, PICTURE_DECODER, &wanted_caps(None, true)?);
        }
        if is_picture && self.claim_pictures() {
            if let Some(packed) =
                self.shared.timeline().zip(number).and_then(|(timeline, number)| timeline.packed.get(&number))
            {
                unpack(pad, *packed);
            }
            if media == "video/x-raw" {
                tell_rows(pad);
            }
            self.describe_pictures(pad, name.as_ref().and_then(|name| self.shared.listed(name)));
            selection::watch(pad, &self.shared);
            return self.decode(pad, origin, PICTURE_DECODER, &wanted_caps(None, true)?);
        }
        if media.starts_with("text/")
            || media.starts_with("subpicture/")
            || media.starts_with("closedcaption/")
            || media.starts_with("application/x-subtitle")
            || matches!(media.as_str(), "application/x-ssa" | "application/x-ass" | "application/ttml+xml")
        {
            return self.subtitles(pad, origin, &media);
        }
        if is_picture && self.container.is_some() {
            self.shared
                .update(self.generation, |state| state.lacks("a further video track is left out".to_owned()));
        }
        let Some(container) = self.container.filter(|_| is_sound) else {
            return self.ignore(pad, origin, is_sound);
        };
        let plain = Copyable::of(container)
            .any(|kind| parse_caps(kind.caps).is_ok_and(|known| caps.is_subset(&known)));
        let name = origin.chain.as_ref().map(|chain| chain.sound()).or_else(|| origin.name.clone());
        let origin = &Origin { coded: Some(caps), name, ..origin.clone() };
        if plain || media == "audio/x-raw" {
            return self.attach(pad, origin);
        }
        self.decode(pad, origin, SOUND_DECODER, &wanted_caps(Some(container), false)?)
    }

    /// Keeps subtitles if the container accepts them, else warns that they are omitted.
    fn subtitles(self: &Arc<Self>, pad: &gst::Pad, origin: &Origin, media: &str) -> Result<(), MediaError> {
        let Some(container) = self.container else {
            return self.ignore(pad, origin, false);
        };
        let is_written =
            media.starts_with("text/") || matches!(media, "application/x-ssa" | "application/x-ass");
        if container == Container::Matroska && is_written {
            let sink = text_branch(pad, origin, self);
            start_sink(&sink);
            return self.append(pad, &[sink]);
        }
        let (shared, generation) = (Arc::clone(&self.shared), self.generation);
        let name = container.name();
        let mut told = false;
        let tell = std::sync::Mutex::new(move |language: &str| {
            if !std::mem::replace(&mut told, true) {
                let what = format!("its subtitles{language} are left out, {name} is written without");
                shared.update(generation, |state| state.notes.push(what));
            }
        });
        let kinds = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
        pad.add_probe(kinds, move |_, info| {
            let Ok(mut tell) = tell.lock() else { return gst::PadProbeReturn::Ok };
            if info.buffer().is_some() {
                tell("");
            } else if let Some(gst::EventView::Tag(event)) = info.event().map(|event| event.view())
                && let Some(code) = event.tag().get::<gst::tags::LanguageCode>()
            {
                let known = Some(code.get()).filter(|code| *code != "und");
                tell(&known.map_or(String::new(), |code| format!(" ({code})")));
            }
            gst::PadProbeReturn::Ok
        });
        self.ignore(pad, origin, false)
    }

    /// Records what the file says of the stream of its pictures.
    fn describe_pictures(&self, pad: &gst::Pad, listed: Option<&Listed>) {
        self.shared.update(self.generation, |state| {
            state.top_first = listed.and_then(|listed| listed.top_first);
            state.about.pictures.flags = listed.map(|listed| listed.flags).unwrap_or_default();
        });
        let (shared, generation) = (Arc::clone(&self.shared), self.generation);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::EventView::Tag(event)) = info.event().map(|event| event.view())
                && event.tag().scope() == gst::TagScope::Stream
            {
                shared.update(generation, |state| state.about.pictures.add(event.tag()));
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Whether no other stream has given pictures.
    fn claim_pictures(&self) -> bool {
        let mut first = false;
        self.shared.update(self.generation, |state| {
            first = !std::mem::replace(&mut state.connection.video_found, true);
        });
        first
    }

    /// Decodes everything from a pad that is needed.
    fn whole(self: &Arc<Self>, pad: &gst::Pad, origin: &Origin) -> Result<(), MediaError> {
        self.decode(pad, origin, "decoder", &wanted_caps(self.container, true)?)
    }

    /// Decodes a stream to the format that is needed.
    fn decode(
        self: &Arc<Self>,
        pad: &gst::Pad,
        origin: &Origin,
        name: &str,
        wanted: &gst::Caps,
    ) -> Result<(), MediaError> {
        let decoder = element("decodebin")?;
        let unique = format!("{name}-{}", decoder.name());
        decoder.set_property("name", unique);
        decoder.set_property("caps", wanted);
        decoder.set_property("expose-all-streams", false);
        // Pictures that continue others give nothing before those have passed.
        let is_awaited = origin.follows == 0;
        self.shared.update(self.generation, |state| state.connection.undecided += usize::from(is_awaited));
        let (streams, from) = (Arc::clone(self), origin.clone());
        decoder.connect_pad_added(move |_, pad| streams.check(streams.attach(pad, &from)));
        for signal in ["no-more-pads", "unknown-type"].into_iter().filter(|_| is_awaited) {
            let streams = Arc::clone(self);
            decoder.connect(signal, false, move |_| {
                streams.shared.update(streams.generation, |state| {
                    state.connection.undecided = state.connection.undecided.saturating_sub(1);
                });
                None
            });
        }
        let mut elements = Vec::new();
        if name == PICTURE_DECODER {
            let queue = element("queue")?;
            queue.set_property("max-size-buffers", 0u32);
            queue.set_property("max-size-bytes", READ_AHEAD.0);
            queue.set_property("max-size-time", READ_AHEAD.1);
            elements.push(queue);
        }
        elements.push(decoder);
        self.append(pad, &elements)
    }

    /// Takes a stream that is decoded or can be copied.
    fn attach(&self, pad: &gst::Pad, origin: &Origin) -> Result<(), MediaError> {
        attach(pad, origin, &self.pipeline()?, self)
    }

    /// Takes the output of a decodebin.
    pub(super) fn follow(self: &Arc<Self>, decoder: &gst::Element) {
        let streams = Arc::clone(self);
        decoder.connect_pad_added(move |_, pad| {
            streams.check(streams.attach(pad, &Origin::new(Times::Plain)));
        });
        let streams = Arc::clone(self);
        decoder.connect_no_more_pads(move |_| streams.complete());
    }

    /// Records the metadata of the whole file in a stream.
    fn read_about(&self, pad: &gst::Pad) {
        let (shared, generation) = (Arc::clone(&self.shared), self.generation);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            match info.event().map(|event| event.view()) {
                Some(gst::EventView::Tag(event)) if event.tag().scope() == gst::TagScope::Global => {
                    if let Some(title) = event.tag().get::<gst::tags::Title>() {
                        let title = title.get().to_owned();
                        shared.update(generation, |state| state.about.title = Some(title));
                    }
                    if let Some(place) = location(event.tag()) {
                        shared.update(generation, |state| state.about.location = Some(place));
                    }
                    if let Some(lost) = tags_left_out(event.tag()) {
                        shared.update(generation, |state| state.lacks(lost));
                    }
                }
                Some(gst::EventView::Toc(event)) => {
                    let chapters = chapters(event.toc().0);
                    shared.update(generation, |state| {
                        if state.about.chapters.is_empty() {
                            state.about.chapters = chapters;
                        }
                    });
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Discards a stream. For sound, its end is recorded.
    fn ignore(self: &Arc<Self>, pad: &gst::Pad, origin: &Origin, is_sound: bool) -> Result<(), MediaError> {
        let sink = dry_sink()?;
        start_sink(&sink);
        let (streams, origin) = (Arc::clone(self), origin.clone());
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let shared = &streams.shared;
            shared.touch();
            let end_ns = info.buffer().and_then(|buffer| end_ns(pad, buffer, &origin, &streams));
            if let Some(end_ns) = end_ns.filter(|_| is_sound) {
                shared.sound_end_ns.fetch_max(end_ns, Ordering::AcqRel);
            }
            gst::PadProbeReturn::Ok
        });
        let (shared, generation) = (Arc::clone(&self.shared), self.generation);
        shared.update(generation, |state| state.connection.running += 1);
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                shared.update(generation, |state| state.end_one());
            }
            gst::PadProbeReturn::Ok
        });
        self.append(pad, &[sink])
    }
}

fn missing(what: &str) -> MediaError {
    MediaError::MissingElement(what.to_owned())
}

/// The metadata of a file that no output will have, in a sentence; `None` without such.
fn tags_left_out(tags: &gst::TagListRef) -> Option<String> {
    const KINDS: [(&str, &str); 13] = [
        ("artist", "artist"),
        ("album", "album"),
        ("album-artist", "album artist"),
        ("composer", "composer"),
        ("comment", "comment"),
        ("extended-comment", "comment"),
        ("description", "description"),
        ("copyright", "copyright"),
        ("genre", "genre"),
        ("keywords", "keywords"),
        ("image", "cover picture"),
        ("preview-image", "cover picture"),
        ("attachment", "attachments"),
    ];
    let mut lost: Vec<&str> = Vec::new();
    // Tags of Matroska that GStreamer has no names for, of which these are told or kept in other ways.
    let is_known = |text: &str| ["TIMECODE=", "LOCATION="].iter().any(|name| text.starts_with(name));
    let lacks = |tag: &str| {
        tags.iter_generic().any(|(name, mut values)| {
            name.as_str() == tag && values.any(|value| !value.get::<&str>().is_ok_and(is_known))
        })
    };
    for (tag, name) in KINDS {
        if lacks(tag) && !lost.contains(&name) {
            lost.push(name);
        }
    }
    let (last, others) = lost.split_last()?;
    Some(match others {
        [] if last.ends_with('s') => format!("its {last} are left out"),
        [] => format!("its {last} is left out"),
        others => format!("its {} and {last} are left out", others.join(", ")),
    })
}

/// The place of recording in tags, as in ISO 6709.
fn location(tags: &gst::TagListRef) -> Option<String> {
    let latitude = tags.get::<gst::tags::GeoLocationLatitude>()?.get();
    let longitude = tags.get::<gst::tags::GeoLocationLongitude>()?.get();
    let height = tags.get::<gst::tags::GeoLocationElevation>().map(|height| height.get());
    place_at(latitude, longitude, height)
}

/// The chapters of a table of contents: those of the first edition, without nested chapters.
fn chapters(toc: &gst::TocRef) -> Vec<Chapter> {
    let entries = toc.entries();
    let edition = entries.iter().find(|entry| entry.entry_type() == gst::TocEntryType::Edition);
    let entries = edition.map_or(entries.clone(), |edition| edition.sub_entries());
    let chapter = |entry: &gst::TocEntry| {
        let (start, stop) = entry.start_stop_times()?;
        let title = entry.tags().and_then(|tags| Some(tags.get::<gst::tags::Title>()?.get().to_owned()));
        Some(Chapter {
            start_ns: u64::try_from(start).ok()?,
            end_ns: u64::try_from(stop).ok().filter(|&stop| stop > 0),
            title: title.unwrap_or_default(),
        })
    };
    entries.iter().filter_map(chapter).collect()
}

/// The best demuxer for the format found; `None` if it is not a container of streams.
fn demuxer(caps: &gst::Caps) -> Option<gst::ElementFactory> {
    let known =
        gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DEMUXER, gst::Rank::MARGINAL);
    let fits = |factory: &gst::ElementFactory| {
        let class = factory.metadata("klass").unwrap_or_default();
        !class.contains("Metadata") && !class.contains("Adaptive") && factory.can_sink_any_caps(caps)
    };
    known.into_iter().filter(fits).max_by_key(|factory| factory.rank())
}

/// Shifts the times of a stream. If the segments of its demuxer only define the beginning, nothing is cut
/// off.
fn move_segments(pad: &gst::Pad, origin: &Origin, shared: &Arc<SourceShared>) {
    let shared = Arc::clone(shared);
    let begin = (origin.times != Times::Cut).then(|| Arc::clone(&origin.begin));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let moved = match info.event().map(|event| event.view()) {
            Some(gst::EventView::Segment(event)) => moved(event, begin.as_deref()),
            _ => None,
        };
        if let Some(begin) = begin.as_deref().and_then(OnceLock::get) {
            shared.begins_ns.store(begin.nseconds(), Ordering::Release);
        }
        if let Some(event) = moved {
            info.data = Some(gst::PadProbeData::Event(event));
        }
        gst::PadProbeReturn::Ok
    });
}

fn moved(event: &gst::event::Segment, begin: Option<&OnceLock<gst::ClockTime>>) -> Option<gst::Event> {
    let mut segment = event.segment().clone().downcast::<gst::ClockTime>().ok()?;
    let headroom = gst::ClockTime::from_nseconds(HEADROOM_NS.unsigned_abs());
    let (start, base) = (segment.start()?, segment.base()?);
    match begin.filter(|_| base.is_zero()) {
        Some(begin) => {
            // Times count from the begin of the first segment of all streams.
            let begin = *begin.get_or_init(|| start);
            segment.set_start(begin.saturating_sub(headroom));
            segment.set_base(headroom.saturating_sub(begin));
            segment.set_time(gst::ClockTime::ZERO);
        }
        None => segment.set_base(base + headroom),
    }
    Some(gst::event::Segment::builder(&segment).seqnum(event.seqnum()).build())
}
