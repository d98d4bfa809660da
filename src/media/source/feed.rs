//! Feeds bytes into a pipeline: of transport streams, which are demultiplexed here, and of inputs that can be
//! read only once, such as a FIFO.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use tempfile::NamedTempFile;

use super::file_reader::file_reader;
use super::origin::{FLIP, HEADROOM_NS, Origin, Streams, Times};
use super::ts::{self, Clock, Demuxer, Found, Stream, Unit, Wrapping};
use crate::media::mp4::{self, Timeline};
use crate::media::{About, MediaError};

/// Bytes needed to recognise a transport stream.
pub(super) const TELLING: u64 = 20 * 204;
/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// Bytes read before the streams are chosen and the first time is known.
const LOOK_AHEAD: usize = 8 << 20;
/// The same in units: some seconds.
const UNITS_AHEAD: usize = 600;
/// Bytes that wait for the pipeline.
const WAITING: u64 = 4 << 20;
/// Time limit for the last packets of one codec before the next begins.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Opens the source of the bytes, in the thread that reads it.
pub(super) type Opener = Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>;

/// Reads in its own thread and feeds the pipeline, until the end or until the pipeline accepts no more.
pub(super) fn start(open: Opener, streams: Arc<Streams>) -> Result<(), MediaError> {
    let named = std::thread::Builder::new().name("read".to_owned());
    let run = move || {
        let failed = |error: &dyn std::fmt::Display| {
            streams.shared.update(streams.generation, |state| {
                state.connection.error.get_or_insert(error.to_string());
            });
        };
        match open() {
            Ok(source) => {
                if let Err(error) = feed(source, &streams) {
                    failed(&error);
                }
            }
            Err(error) => failed(&error),
        }
    };
    named.spawn(run).map(drop).map_err(|error| MediaError::MissingElement(format!("a thread ({error})")))
}

/// Begins with the bytes that show the kind of input.
fn feed(mut source: Box<dyn Read + Send>, streams: &Arc<Streams>) -> Result<(), MediaError> {
    let mut start = Vec::new();
    if let Err(error) = (&mut source).take(TELLING).read_to_end(&mut start) {
        streams.shared.update(streams.generation, |state| {
            state.connection.error.get_or_insert(format!("reading failed: {error}"));
        });
        return Ok(());
    }
    let layout = ts::layout(&start);
    let seeks = mp4::is_whole(&start);
    let source = io::Cursor::new(start).chain(source);
    match layout {
        Some(layout) => Program::new(streams).run(source, layout),
        None if seeks => copied(source, streams),
        None => bytes(source, streams),
    }
}

/// Copies the input to a temporary file, which can be read in any order. The demuxer of MP4 files loses the last
/// pictures and sound of files that it reads from the beginning to the end.
fn copied(source: impl Read, streams: &Arc<Streams>) -> Result<(), MediaError> {
    let failed = |error: io::Error| {
        let folder = std::env::temp_dir();
        MediaError::MissingElement(format!("room for a copy of the input in {} ({error})", folder.display()))
    };
    let mut copy = NamedTempFile::new().map_err(failed)?;
    let is_current = || streams.shared.state().generation == streams.generation;
    let whole = in_pieces(source, streams, |piece| {
        copy.write_all(piece).map_err(failed)?;
        Ok(is_current())
    })?;
    if !whole {
        return Ok(());
    }
    let mut timeline = Timeline::read(copy.as_file_mut()).map_err(failed)?;
    let (recorded_s, turn) = (timeline.recorded_s, timeline.turn);
    let (chapters, location) = (timeline.chapters.clone(), timeline.location.clone());
    streams.shared.update(streams.generation, |state| {
        let title = state.about.title.take();
        state.about = About { title, chapters, recorded_s, location, ..About::default() };
    });
    let _ = streams.shared.listed.set(std::mem::take(&mut timeline.tracks));
    let _ = streams.shared.timeline.set(timeline);
    let path = streams.shared.copy.get_or_init(|| copy).path();
    let pipeline = streams.pipeline.upgrade();
    let pipeline = pipeline.ok_or_else(|| MediaError::MissingElement("a pipeline".to_owned()))?;
    if let Some((turn, flip)) = turn.zip(pipeline.by_name(FLIP)) {
        flip.set_property_from_str("video-direction", turn.direction());
    }
    start_element(&file_reader(&pipeline, path, streams)?)
}

/// Feeds plain bytes.
fn bytes(source: impl Read, streams: &Arc<Streams>) -> Result<(), MediaError> {
    let out = gst_app::AppSrc::builder().format(gst::Format::Bytes).max_bytes(WAITING).block(true).build();
    add(streams, &out)?;
    streams.identify(out.upcast_ref())?;
    start_element(&out)?;
    let whole = in_pieces(source, streams, |piece| {
        Ok(out.push_buffer(gst::Buffer::from_slice(piece.to_vec())).is_ok())
    })?;
    if whole {
        let _ = out.end_of_stream();
    }
    Ok(())
}

/// Reads to the end, or until `take` wants no more: returns whether the end was reached. What cannot be read is
/// left out, with a warning.
fn in_pieces(
    mut source: impl Read,
    streams: &Streams,
    mut take: impl FnMut(&[u8]) -> Wanted,
) -> Result<bool, MediaError> {
    let mut piece = vec![0; PIECE];
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                streams.shared.touch();
                if !take(&piece[..count])? {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                warn(streams, &format!("reading failed: {error}"));
                return Ok(true);
            }
        }
    }
}

fn add(streams: &Streams, out: &gst_app::AppSrc) -> Result<(), MediaError> {
    let pipeline = streams.pipeline.upgrade();
    let pipeline = pipeline.ok_or_else(|| MediaError::MissingElement("a pipeline".to_owned()))?;
    pipeline.add(out).map_err(|_| MediaError::MissingElement("a way in".to_owned()))
}

fn start_element(out: &impl IsA<gst::Element>) -> Result<(), MediaError> {
    out.sync_state_with_parent().map_err(|_| MediaError::MissingElement("a source that starts".to_owned()))
}

fn warn(streams: &Streams, what: &str) {
    streams.shared.update(streams.generation, |state| state.notes.push(what.to_owned()));
}

/// The streams of a program that go into the pipeline.
struct Program<'a> {
    streams: &'a Arc<Streams>,
    clock: Clock,
    /// The time of the first unit of all.
    zero: i64,
    outs: Vec<Out>,
}

/// One of these streams.
struct Out {
    /// The current stream; `None` while the program has none of its kind.
    stream: Option<Stream>,
    /// The identifier that it has or had.
    last_pid: u16,
    source: gst_app::AppSrc,
    is_video: bool,
}

/// Whether more is accepted.
type Wanted = Result<bool, MediaError>;

impl<'a> Program<'a> {
    fn new(streams: &'a Arc<Streams>) -> Self {
        Self { streams, clock: Clock::default(), zero: 0, outs: Vec::new() }
    }

    fn run(mut self, mut source: impl Read, layout: (usize, usize)) -> Result<(), MediaError> {
        let mut demuxer = Demuxer::new(layout);
        let (mut waiting, mut looked, mut begun) = (VecDeque::new(), 0, false);
        let mut piece = vec![0; PIECE];
        loop {
            let count = match source.read(&mut piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    warn(self.streams, &format!("reading failed: {error}"));
                    0
                }
            };
            self.streams.shared.touch();
            waiting.extend(if count == 0 { demuxer.finish() } else { demuxer.read(&piece[..count]) });
            self.streams.shared.lost_packets.store(demuxer.lost(), Ordering::Release);
            looked += count;
            begun = begun
                || count == 0
                || looked >= LOOK_AHEAD
                || waiting.len() >= UNITS_AHEAD
                || all_begun(&waiting);
            if begun && self.outs.is_empty() {
                self.begin(&waiting)?;
            }
            let ready = if begun { waiting.len() } else { 0 };
            for found in waiting.drain(..ready) {
                if !self.pass_on(found)? {
                    self.end();
                    return Ok(());
                }
            }
            if count == 0 {
                self.end();
                return Ok(());
            }
        }
    }

    fn end(&self) {
        for out in &self.outs {
            let _ = out.source.end_of_stream();
        }
        self.streams.complete();
        if self.outs.is_empty() {
            self.streams.shared.update(self.streams.generation, |state| state.connection.ended = true);
        }
    }

    /// Chooses the streams, and the time that counts as 0.
    fn begin(&mut self, waiting: &VecDeque<Found>) -> Result<(), MediaError> {
        let mut chosen: Vec<Stream> = Vec::new();
        for found in waiting {
            if let Found::Streams(list) = found {
                let video = list.iter().find(|stream| stream.is_video());
                let sound = list.iter().filter(|stream| !stream.is_video());
                chosen = video.into_iter().chain(sound).cloned().collect();
                break;
            }
        }
        let mut clock = Clock::default();
        let mut firsts: Vec<(u16, i64)> = Vec::new();
        for found in waiting {
            if let Found::Unit(unit) = found
                && chosen.iter().any(|stream| stream.pid == unit.pid)
                && let Some((time, _)) = clock.time(unit)
                && firsts.iter().all(|(pid, _)| *pid != unit.pid)
            {
                firsts.push((unit.pid, time));
            }
        }
        self.zero = firsts.iter().map(|(_, time)| *time).min().unwrap_or(0);
        for stream in chosen {
            let source = self.open(&stream, self.outs.len())?;
            let (is_video, last_pid) = (stream.is_video(), stream.pid);
            self.outs.push(Out { is_video, last_pid, stream: Some(stream), source });
        }
        self.streams.complete();
        Ok(())
    }

    /// Begins a stream in the pipeline that continues the track of this number.
    fn open(&self, stream: &Stream, number: usize) -> Result<gst_app::AppSrc, MediaError> {
        let mut caps: gst::Caps = stream
            .caps
            .parse()
            .map_err(|_| MediaError::MissingElement(format!("the caps {}", stream.caps)))?;
        if let Wrapping::Opus(channels) = stream.wrapping
            && let Some(format) = caps.make_mut().structure_mut(0)
        {
            format.set("channels", i32::from(channels));
            format.set("rate", 48_000i32);
            format.set("channel-mapping-family", i32::from(channels > 2));
        }
        let is_video = stream.is_video();
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .max_buffers(0)
            .max_bytes(if is_video { WAITING } else { 0 })
            .block(is_video)
            .build();
        add(self.streams, &source)?;
        let pad =
            source.static_pad("src").ok_or_else(|| MediaError::MissingElement("a way in".to_owned()))?;
        let origin = Origin {
            name: Some(format!("program/{number:03}")),
            language: stream.language.clone(),
            caps: Some(caps),
            ..Origin::new(Times::Ours)
        };
        self.streams.stream(&pad, &origin)?;
        start_element(&source)?;
        Ok(source)
    }

    fn pass_on(&mut self, found: Found) -> Wanted {
        match found {
            Found::Streams(streams) => self.change(streams),
            Found::Unit(unit) => Ok(self.push(unit)),
            // Only an output would have it.
            Found::Unread(_) if self.streams.container.is_none() => Ok(true),
            Found::Unread(kind) => {
                let told = format!("{kind} in the transport stream is left out");
                self.streams.shared.update(self.streams.generation, |state| {
                    if !state.notes.contains(&told) {
                        state.notes.push(told);
                    }
                });
                Ok(true)
            }
        }
    }

    /// Pushes a unit; `false` when the pipeline accepts no more.
    fn push(&mut self, unit: Unit) -> bool {
        let is_of = |out: &&Out| out.stream.as_ref().is_some_and(|stream| stream.pid == unit.pid);
        let Some(out) = self.outs.iter().find(is_of) else { return true };
        let times = self.clock.time(&unit);
        let stamp = |ticks: i64| {
            let ns = ts::ticks_ns(ticks - self.zero).saturating_add(HEADROOM_NS);
            u64::try_from(ns).ok().map(gst::ClockTime::from_nseconds)
        };
        let mut buffer = gst::Buffer::from_slice(unit.data);
        let fields = buffer.make_mut();
        fields.set_pts(times.and_then(|(pts, _)| stamp(pts)));
        fields.set_dts(times.and_then(|(_, dts)| stamp(dts)));
        out.source.push_buffer(buffer).is_ok()
    }

    /// The streams of the program have changed. Matches the new ones to the old ones.
    fn change(&mut self, new: Vec<Stream>) -> Wanted {
        let same = |a: &Stream, b: &Stream| a.pid == b.pid && a.caps == b.caps && a.wrapping == b.wrapping;
        let mut left: Vec<Stream> = new;
        let mut lost: Vec<usize> = Vec::new();
        for (number, out) in self.outs.iter().enumerate() {
            let found =
                left.iter().position(|stream| out.stream.as_ref().is_some_and(|old| same(old, stream)));
            match found {
                Some(at) => drop(left.remove(at)),
                None => lost.push(number),
            }
        }
        for number in lost {
            let Some(out) = self.outs.get(number) else { continue };
            let is_video = out.is_video;
            let language = out.stream.as_ref().and_then(|stream| stream.language.clone());
            let caps = out.source.caps();
            // The similarity to the previous stream.
            let likeness = |stream: &Stream| {
                let known: Option<gst::Caps> = stream.caps.parse().ok();
                let codec =
                    known.is_some_and(|known| caps.as_ref().is_some_and(|caps| caps.can_intersect(&known)));
                2 * u8::from(codec) + u8::from(stream.language == language)
            };
            let candidates = left.iter().enumerate().filter(|(_, stream)| stream.is_video() == is_video);
            // Of two equally similar ones, the first.
            let best = candidates.rev().max_by_key(|(_, stream)| likeness(stream));
            let best = best.map(|(at, stream)| (at, likeness(stream) >= 2));
            let next = best.map(|(at, like)| (left.remove(at), like));
            if !self.continue_with(number, next)? {
                return Ok(false);
            }
        }
        for stream in left.iter().filter(|stream| !stream.is_video()) {
            let language = stream.language.as_deref().map_or(String::new(), |code| format!(" ({code})"));
            warn(
                self.streams,
                &format!("a sound track in {}{language} that begins later is left out", stream.codec()),
            );
        }
        Ok(true)
    }

    /// Replaces a lost stream by another one, which may be of the same codec.
    fn continue_with(&mut self, number: usize, next: Option<(Stream, bool)>) -> Wanted {
        let Some(out) = self.outs.get_mut(number) else { return Ok(true) };
        let before = out.stream.take();
        if let Some((stream, _)) = &next {
            self.clock.rename(out.last_pid, stream.pid);
            out.last_pid = stream.pid;
        }
        match next {
            None => {}
            Some((stream, true)) => out.stream = Some(stream),
            Some((stream, false)) if out.is_video => {
                let from = before.map_or("another codec", |before| before.codec());
                let reason = format!("its pictures change from {from} to {}", stream.codec());
                self.streams.shared.update(self.streams.generation, |state| {
                    state.connection.cut_off.get_or_insert(reason);
                });
                return Ok(false);
            }
            Some((stream, false)) => {
                let began = Instant::now();
                let _ = out.source.end_of_stream();
                while out.source.current_level_buffers() > 0 && began.elapsed() < DRAIN_LIMIT {
                    std::thread::sleep(Duration::from_millis(2));
                }
                let source = self.open(&stream, number)?;
                if let Some(out) = self.outs.get_mut(number) {
                    (out.stream, out.source) = (Some(stream), source);
                }
            }
        }
        Ok(true)
    }
}

/// Whether every stream has begun.
fn all_begun(waiting: &VecDeque<Found>) -> bool {
    let list = waiting.iter().find_map(|found| match found {
        Found::Streams(list) => Some(list),
        Found::Unit(_) | Found::Unread(_) => None,
    });
    list.is_some_and(|list| {
        list.iter().all(|stream| {
            waiting.iter().any(
                |found| matches!(found, Found::Unit(unit) if unit.pid == stream.pid && unit.pts.is_some()),
            )
        })
    })
}
