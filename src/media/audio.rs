//! Sound between a source and a sink: compressed if the container accepts it, and never blocking the
//! pictures.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::Container;
use super::listed::Flags;
use super::remake::Remake;

/// Compressed sound that a container accepts without re-encoding.
pub(super) struct Copyable {
    /// Caps at which decoding stops.
    pub(super) caps: &'static str,
    /// Element that parses it into frames and completes its caps.
    pub(super) parser: &'static str,
    /// Caps that the muxers require.
    pub(super) framed: &'static str,
    containers: &'static [Container],
}

const COPYABLE: [Copyable; 9] = [
    Copyable {
        caps: "audio/mpeg,mpegversion=(int)4,stream-format=(string){raw,adts}",
        parser: "aacparse",
        framed: "audio/mpeg,mpegversion=(int)4,stream-format=(string)raw,framed=(boolean)true",
        containers: &[Container::Mp4, Container::Matroska],
    },
    Copyable {
        caps: "audio/mpeg,mpegversion=(int)1,layer=(int)[1,3]",
        parser: "mpegaudioparse",
        framed: "audio/mpeg,mpegversion=(int)1,parsed=(boolean)true",
        containers: &[Container::Mp4, Container::Matroska],
    },
    Copyable {
        caps: "audio/x-ac3",
        parser: "ac3parse",
        framed: "audio/x-ac3,framed=(boolean)true,alignment=(string)frame",
        containers: &[Container::Mp4, Container::Matroska],
    },
    Copyable {
        caps: "audio/x-eac3",
        parser: "ac3parse",
        framed: "audio/x-eac3,framed=(boolean)true,alignment=(string)frame",
        containers: &[Container::Matroska],
    },
    Copyable {
        caps: "audio/x-opus",
        parser: "opusparse",
        framed: "audio/x-opus",
        containers: &[Container::Mp4, Container::Matroska, Container::WebM],
    },
    Copyable {
        caps: "audio/x-vorbis",
        parser: "vorbisparse",
        framed: "audio/x-vorbis",
        containers: &[Container::Matroska, Container::WebM],
    },
    Copyable {
        caps: "audio/x-flac",
        parser: "flacparse",
        framed: "audio/x-flac,framed=(boolean)true",
        containers: &[Container::Matroska],
    },
    Copyable {
        caps: "audio/x-alac",
        parser: "identity",
        framed: "audio/x-alac",
        containers: &[Container::Mp4],
    },
    Copyable {
        caps: "audio/x-dts",
        parser: "dcaparse",
        framed: "audio/x-dts,framed=(boolean)true",
        containers: &[Container::Matroska],
    },
];

impl Copyable {
    /// The sound that `container` accepts without re-encoding.
    pub(super) fn of(container: Container) -> impl Iterator<Item = &'static Copyable> {
        COPYABLE.iter().filter(move |kind| kind.containers.contains(&container))
    }
}

/// The sound of a source, for [`Sink::create`](super::Sink::create). If this is dropped instead, the sound is
/// discarded.
pub struct Audio {
    pub(super) tracks: Vec<Arc<Track>>,
}

impl Audio {
    /// No sound.
    pub fn none() -> Self {
        Self { tracks: Vec::new() }
    }

    /// Number of tracks of sound.
    pub fn tracks(&self) -> usize {
        self.tracks.iter().filter(|track| track.kind != Kind::Text).count()
    }

    /// Takes the tracks out, so that dropping `self` no longer discards them.
    pub(super) fn into_tracks(mut self) -> Vec<Arc<Track>> {
        std::mem::take(&mut self.tracks)
    }
}

impl Drop for Audio {
    fn drop(&mut self) {
        self.tracks.iter().for_each(|track| track.discard());
    }
}

/// How the source left a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The source delivered everything.
    Whole,
    /// The source was stopped: sound after the last picture must be cut off.
    Stopped,
}

/// One sound track. The source pushes packets, and the sink opens the gate up to the time of the pictures
/// written. Neither ever waits for the other.
pub(super) struct Track {
    /// Name of the stream it comes from.
    pub(super) stream: String,
    pub(super) kind: Kind,
    state: Mutex<TrackState>,
}

/// The content of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Compressed sound, which is passed on unchanged.
    Packets,
    /// Samples, which may have to be encoded.
    Samples,
    /// Subtitles.
    Text,
}

/// The language, title and flags of a track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// ISO 639 code.
    pub(super) language: Option<String>,
    pub(super) title: Option<String>,
    pub(super) flags: Flags,
}

impl Description {
    /// Adds what the tags of a stream say.
    pub(super) fn add(&mut self, tags: &gst::TagListRef) {
        let language = tags.get::<gst::tags::LanguageCode>();
        let title = tags.get::<gst::tags::Title>();
        self.tell(language.as_ref().map(|code| code.get()), title.as_ref().map(|title| title.get()));
    }

    /// Adds a language and a title, if known.
    fn tell(&mut self, language: Option<&str>, title: Option<&str>) {
        let said = language.filter(|code| !matches!(*code, "" | "und"));
        self.language = said.map(str::to_owned).or_else(|| self.language.take());
        self.title = title.map(str::to_owned).or_else(|| self.title.take());
    }
}

/// The beginning of a track.
#[derive(Debug, Clone)]
pub(super) struct Start {
    /// The time of its first packet; negative before the start of the file.
    pub(super) first_ns: i64,
    /// Length of the beginning that must not be heard.
    pub(super) hidden_ns: u64,
    /// The part of it that decoders discard by themselves, as the header of Opus tells them.
    pub(super) skip_ns: u64,
    /// Length of its first packet.
    pub(super) step_ns: u64,
    /// Its caps at first.
    pub(super) caps: gst::Caps,
}

impl Start {
    /// Length of the beginning that a container leaves out if it cannot hide it: the packets that are over when the
    /// sound begins to be heard. The last of them stays if it is priming, without which a decoder gives another
    /// first packet; a longer hidden beginning was cut off by somebody, and could be heard.
    pub(super) fn cut_ns(&self) -> u64 {
        /// The longest priming: two packets and more, of the lowest usual rates.
        const LONGEST_PRIMING_NS: u64 = 100_000_000;
        let hidden_ns = u64::try_from(-self.first_ns).unwrap_or(0).min(self.hidden_ns);
        // Lengths are rounded.
        let packets = (hidden_ns + 1_000).checked_div(self.step_ns).unwrap_or(0);
        let kept = u64::from(hidden_ns <= LONGEST_PRIMING_NS);
        packets.saturating_sub(kept) * self.step_ns
    }
}

struct TrackState {
    description: Description,
    /// The name of its original codec, if that is lossless.
    lossless: Option<&'static str>,
    /// Added to the running times of packets; `None` until the first picture of a live connection defines
    /// time 0.
    offset_ns: Option<i64>,
    /// Added to the times of this track alone. If it is negative, sound before time 0 is priming.
    shift_ns: i64,
    /// Whether a first Opus packet at time 0 belongs before 0, by the pre-skip of its header.
    counts_skip: bool,
    held: VecDeque<Held>,
    last_end_ns: u64,
    gate_ns: u64,
    out: Option<gst_app::AppSrc>,
    /// Delay of everything written, and the earliest time at which it is written.
    later_ns: i64,
    floor_ns: i64,
    /// The caps that the sink was given.
    caps: Option<gst::Caps>,
    /// Converts to those caps if the sound has changed.
    remake: Option<Remake>,
    /// Caps that cannot be converted: nothing is passed on while they are current.
    refused: Option<gst::Caps>,
    /// Time of the last packet passed on, and its distance from the previous one.
    last_written_ns: Option<u64>,
    step_ns: Option<u64>,
    begun: bool,
    end: End,
    discarded: bool,
    notes: Vec<String>,
}

struct Held {
    /// Running time, `None` for stream headers.
    running_ns: Option<i64>,
    sample: gst::Sample,
}

impl Track {
    pub(super) fn new(stream: &str, kind: Kind, offset_ns: Option<i64>, shift_ns: i64) -> Arc<Self> {
        let state = TrackState {
            description: Description::default(),
            lossless: None,
            offset_ns,
            shift_ns,
            counts_skip: false,
            held: VecDeque::new(),
            last_end_ns: 0,
            gate_ns: 0,
            out: None,
            later_ns: 0,
            floor_ns: 0,
            caps: None,
            remake: None,
            refused: None,
            last_written_ns: None,
            step_ns: None,
            begun: false,
            end: End::Open,
            discarded: false,
            notes: Vec::new(),
        };
        Arc::new(Self { stream: stream.to_owned(), kind, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, TrackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the source: the first Opus packet has the time 0 although it belongs before it.
    pub(super) fn count_skip(&self) {
        self.state().counts_skip = true;
    }

    /// From the source: the language of the track, if its container states it, and its flags.
    pub(super) fn describe(&self, language: Option<&str>, flags: Flags) {
        let description = &mut self.state().description;
        description.tell(language, None);
        description.flags = flags;
    }

    /// From the source: what the tags of the stream say.
    pub(super) fn follow(&self, tags: &gst::TagListRef) {
        self.state().description.add(tags);
    }

    /// From the source: the caps of the track before it was decoded.
    pub(super) fn came_as(&self, coded: &gst::CapsRef) {
        self.state().lossless = coded.structure(0).and_then(lossless);
    }

    /// From the source: one packet (or block of samples). Returns whether it was the first.
    pub(super) fn push(&self, sample: gst::Sample) -> bool {
        let mut state = self.state();
        let first = !std::mem::replace(&mut state.begun, true);
        if state.discarded || state.end != End::Open {
            return first;
        }
        let running_ns = sample.buffer().and_then(gst::BufferRef::pts).and_then(|pts| {
            let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
            match segment.to_running_time_full(pts)? {
                gst::Signed::Positive(time) => i64::try_from(time.nseconds()).ok(),
                gst::Signed::Negative(time) => i64::try_from(time.nseconds()).ok().map(|ns| -ns),
            }
        });
        let clamped = std::mem::take(&mut state.counts_skip) && state.zero_ns() == running_ns.map(|ns| -ns);
        let skip_ns = sample.caps().filter(|_| clamped).and_then(opus_skip_ns);
        let running_ns = running_ns.map(|ns| ns - skip_ns.unwrap_or(0) as i64);
        let sample = match self.kind {
            Kind::Text => plain_text(sample),
            Kind::Samples => placed(&sample).unwrap_or(sample),
            Kind::Packets => sample,
        };
        state.held.push_back(Held { running_ns, sample });
        state.flush();
        first
    }

    /// From the source: the stream pauses, so nobody should wait for its first packet.
    pub(super) fn run_dry(&self) {
        self.state().begun = true;
    }

    /// Whether a packet has come, or none will.
    pub(super) fn has_begun(&self) -> bool {
        self.kind == Kind::Text || self.state().begun
    }

    /// From the source: the connection was lost, and times restart.
    pub(super) fn forget_time(&self) {
        let mut state = self.state();
        state.offset_ns = None;
        state.held.clear();
    }

    /// From the source: the offset of running times.
    pub(super) fn set_offset(&self, offset_ns: i64) {
        let mut state = self.state();
        state.offset_ns = Some(offset_ns);
        state.flush();
    }

    /// From the source: the end of the track.
    pub(super) fn end(&self, stopped: bool) {
        let mut state = self.state();
        if state.end == End::Open {
            state.end = if stopped { End::Stopped } else { End::Whole };
        }
    }

    /// For the source: warnings for the user since the last call.
    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notes)
    }

    /// End of the last packet that was passed on, in nanoseconds.
    pub(super) fn last_end_ns(&self) -> u64 {
        let state = self.state();
        let held = state.held.iter().filter_map(|held| held.end_ns(state.zero_ns()?)).max();
        held.unwrap_or(0).max(state.last_end_ns)
    }

    /// For the sink: the language, title and flags of the track.
    pub(super) fn description(&self) -> Description {
        self.state().description.clone()
    }

    /// For the sink: the name of the track's original codec, if that is lossless.
    pub(super) fn lossless(&self) -> Option<&'static str> {
        self.state().lossless
    }

    /// From the sink: a warning for the user.
    pub(super) fn note(&self, what: String) {
        self.state().notes.push(what);
    }

    /// For the sink: the beginning of the track, if it is known already.
    pub(super) fn start(&self) -> Option<Start> {
        let state = self.state();
        let zero_ns = state.zero_ns()?;
        let held = state.held.iter().find(|held| held.running_ns.is_some())?;
        let caps = held.sample.caps_owned()?;
        let skip_ns = opus_skip_ns(&caps).unwrap_or(0);
        let hidden_ns = u64::try_from(-state.shift_ns).unwrap_or(0).max(skip_ns);
        let first_ns = held.pts_ns(zero_ns)?;
        let step_ns = held.sample.buffer()?.duration().map_or(0, gst::ClockTime::nseconds);
        Some(match self.kind {
            Kind::Packets | Kind::Text => Start { first_ns, hidden_ns, skip_ns, step_ns, caps },
            // Hidden samples are cut off.
            Kind::Samples => {
                Start { first_ns: first_ns.max(state.least_ns(0)), hidden_ns: 0, skip_ns, step_ns, caps }
            }
        })
    }

    /// From the sink: the destination of packets, and their delay. Packets that would then be before 0 by up
    /// to `clamped_ns` are written at 0. Earlier ones are left out, and so are those before `from_ns`.
    pub(super) fn connect(&self, out: gst_app::AppSrc, later_ns: u64, clamped_ns: u64, from_ns: Option<i64>) {
        let mut state = self.state();
        state.out = Some(out);
        state.later_ns = later_ns as i64;
        let primed = self.kind == Kind::Samples && state.shift_ns < 0;
        state.floor_ns = if primed { 0 } else { -state.later_ns - clamped_ns as i64 };
        state.floor_ns = from_ns.map_or(state.floor_ns, |from_ns| state.floor_ns.max(from_ns));
        state.flush();
    }

    /// From the sink: pictures up to this time have been passed to the encoder.
    pub(super) fn open_gate(&self, until_ns: u64) {
        let mut state = self.state();
        state.gate_ns = state.gate_ns.max(until_ns);
        state.flush();
    }

    /// From the sink: the last picture ends here. Passes on the remaining sound up to that time, then the
    /// end.
    pub(super) fn finish(&self, video_end_ns: u64) {
        let mut state = self.state();
        state.gate_ns = if state.end == End::Whole { u64::MAX } else { video_end_ns };
        state.flush();
        state.discarded = true;
        state.held.clear();
        if let Some(remake) = state.remake.take() {
            remake.finish();
        }
        if let Some(out) = state.out.take() {
            // Fails only when the pipeline has already failed, which is reported as such.
            let _ = out.end_of_stream();
        }
    }

    /// Discards all packets, present and future.
    pub(super) fn discard(&self) {
        let mut state = self.state();
        state.discarded = true;
        state.held.clear();
        state.remake = None;
    }
}

impl Held {
    fn pts_ns(&self, zero_ns: i64) -> Option<i64> {
        Some(self.running_ns?.saturating_add(zero_ns))
    }

    fn end_ns(&self, zero_ns: i64) -> Option<u64> {
        let duration = self.sample.buffer()?.duration().map_or(0, |d| d.nseconds());
        Some(u64::try_from(self.pts_ns(zero_ns)?).unwrap_or(0) + duration)
    }

    /// Whether it is a header without sound.
    fn is_header(&self) -> bool {
        self.sample.buffer().is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::HEADER))
    }
}

impl TrackState {
    /// The offset of the running times of this track.
    fn zero_ns(&self) -> Option<i64> {
        Some(self.offset_ns?.saturating_add(self.shift_ns))
    }

    /// The earliest time of samples that are not priming.
    fn least_ns(&self, heard_ns: i64) -> i64 {
        if self.shift_ns < 0 { heard_ns } else { i64::MIN }
    }

    /// Passes on the packets that the gate allows.
    fn flush(&mut self) {
        let Some(zero_ns) = self.zero_ns() else { return };
        while self.out.is_some()
            && let Some(held) = self.held.front()
        {
            let pts_ns = held.pts_ns(zero_ns);
            if pts_ns.is_some_and(|pts| pts >= 0 && pts as u64 > self.gate_ns) {
                return;
            }
            let Some(held) = self.held.pop_front() else { return };
            // A packet without a time follows the previous one.
            let after = self.last_written_ns.is_some() && !held.is_header();
            let pts_ns = pts_ns.or(after.then_some(self.last_end_ns as i64));
            let end_ns = held.end_ns(zero_ns).unwrap_or(self.last_end_ns);
            let (Some(buffer), Some(caps)) = (held.sample.buffer_owned(), held.sample.caps_owned()) else {
                continue;
            };
            if let Some((buffer, written_ns)) = self.timed(buffer, &caps, pts_ns) {
                self.last_end_ns = end_ns;
                self.pass(buffer, caps, written_ns);
            }
        }
    }

    /// A buffer and the time at which it is written; `None` if nothing of it is to be written.
    fn timed(
        &self,
        buffer: gst::Buffer,
        caps: &gst::Caps,
        pts_ns: Option<i64>,
    ) -> Option<(gst::Buffer, Option<u64>)> {
        let Some(pts_ns) = pts_ns else { return Some((buffer, None)) };
        let early_ns = self.floor_ns.saturating_sub(pts_ns);
        if early_ns <= 0 {
            return Some((buffer, Some(u64::try_from(pts_ns.saturating_add(self.later_ns)).unwrap_or(0))));
        }
        // Samples of the priming. A block may have to be cut in two.
        let rest = without_start(&buffer, caps, early_ns.unsigned_abs())?;
        Some((rest, Some(u64::try_from(self.floor_ns.saturating_add(self.later_ns)).unwrap_or(0))))
    }

    /// Passes a buffer on to the sink, converted if it does not have the caps of the sink.
    fn pass(&mut self, mut buffer: gst::Buffer, caps: gst::Caps, written_ns: Option<u64>) {
        let Some(out) = self.out.clone() else { return };
        let fields = buffer.make_mut();
        fields.set_pts(written_ns.map(gst::ClockTime::from_nseconds));
        if let (Some(written_ns), Some(last_ns)) = (written_ns, self.last_written_ns) {
            self.step_ns = written_ns.checked_sub(last_ns).filter(|&ns| ns > 0).or(self.step_ns);
        }
        self.last_written_ns = written_ns.or(self.last_written_ns);
        // matroskademux gives no duration, and mp4mux hides a last packet without one.
        if fields.duration().is_none() {
            fields.set_duration(self.step_ns.map(gst::ClockTime::from_nseconds));
        }
        fields.set_dts(gst::ClockTime::NONE);
        let told = self.caps.get_or_insert_with(|| caps.clone()).clone();
        if goes_on(&told, &caps) {
            if let Some(remake) = self.remake.take() {
                remake.finish();
            }
            // The headers of a next part, which are those that the sink has already.
            let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
            if is_header && written_ns.is_none() && self.last_written_ns.is_some() {
                return;
            }
            // The next elements convert samples and need their caps.
            let sent = if is_samples(&caps) { &caps } else { &told };
            let sample = gst::Sample::builder().buffer(&buffer).caps(sent).build();
            // A refused packet means that the sink has failed, which its next write reports.
            let _ = out.push_sample(&sample);
            return;
        }
        if self.refused.as_ref() == Some(&caps) {
            return;
        }
        let begun = match self.remake.take().filter(|remake| remake.takes(&caps)) {
            Some(remake) => Ok(remake),
            None => Remake::start(&caps, &told, &out),
        };
        match begun {
            Ok(remake) => {
                remake.push(&buffer, &caps);
                self.remake = Some(remake);
            }
            Err(reason) => {
                let at_s = self.last_end_ns as f64 / 1e9;
                self.notes.push(format!("a sound track is left out from {at_s:.2} s on: {reason}"));
                self.refused = Some(caps);
            }
        }
    }
}

/// Whether sound of these caps can follow in a track that began with other caps: either every packet
/// describes itself, or nothing has changed that a decoder must know.
fn goes_on(told: &gst::Caps, caps: &gst::Caps) -> bool {
    let (Some(told), Some(new)) = (told.structure(0), caps.structure(0)) else { return false };
    let same = |field: &str| match (told.value(field), new.value(field)) {
        (Ok(a), Ok(b)) => a.compare(b) == Some(std::cmp::Ordering::Equal),
        (Err(_), Err(_)) => true,
        _ => false,
    };
    if told.name() != new.name() {
        return false;
    }
    match told.name().as_str() {
        // Every packet of these describes itself.
        "audio/x-ac3" | "audio/x-eac3" | "audio/x-dts" => true,
        "audio/mpeg" if told.get::<i32>("mpegversion") == Ok(1) => same("mpegversion") && same("layer"),
        "audio/x-opus" => same("channel-mapping-family") && (same("channels") || !maps_channels(told)),
        // The next elements convert these.
        "audio/x-raw" => true,
        // Between the identification and the code books there are only comments.
        "audio/x-vorbis" => {
            let headers = |format: &gst::StructureRef| {
                let all = format.get::<gst::Array>("streamheader").ok()?;
                let bytes = |number: usize| {
                    let header = all.get(number)?.get::<gst::Buffer>().ok()?;
                    header.map_readable().ok().map(|bytes| bytes.to_vec())
                };
                Some((bytes(0)?, bytes(2)?))
            };
            headers(told).is_some_and(|told| headers(new) == Some(told))
        }
        // Every frame describes itself, and the header has lengths and a checksum of the whole.
        "audio/x-flac" => ["rate", "channels"].into_iter().all(same),
        _ => ["rate", "channels", "mpegversion", "codec_data", "streamheader"].into_iter().all(same),
    }
}

fn is_samples(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|format| format.name() == "audio/x-raw")
}

/// The name of a lossless codec; `None` for any other.
fn lossless(format: &gst::StructureRef) -> Option<&'static str> {
    Some(match format.name().as_str() {
        "audio/x-raw" => "PCM",
        "audio/x-flac" => "FLAC",
        "audio/x-alac" => "ALAC",
        "audio/x-true-hd" => "TrueHD",
        "audio/x-mlp" => "MLP",
        "audio/x-wavpack" => "WavPack",
        "audio/x-tta" => "TTA",
        "audio/x-dts" if format.get::<&str>("profile") == Ok("lossless") => "DTS-HD",
        _ => return None,
    })
}

/// Whether more than two channels are mapped.
fn maps_channels(format: &gst::StructureRef) -> bool {
    format.get::<i32>("channel-mapping-family").is_ok_and(|family| family > 0)
}

/// Subtitles with their entities replaced by characters.
fn plain_text(sample: gst::Sample) -> gst::Sample {
    plain(&sample).unwrap_or(sample)
}

/// The same without entities; `None` if there are none.
fn plain(sample: &gst::Sample) -> Option<gst::Sample> {
    let format = sample.caps()?.structure(0)?;
    if format.get::<&str>("format") != Ok("pango-markup") {
        return None;
    }
    let buffer = sample.buffer()?;
    let mut text = String::from_utf8_lossy(&buffer.map_readable().ok()?).into_owned();
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    for (entity, letter) in entities {
        text = text.replace(entity, letter);
    }
    let mut plain = gst::Buffer::from_slice(text.into_bytes());
    let what = gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::FLAGS;
    buffer.copy_into(plain.make_mut(), what, ..).ok()?;
    let caps = gst::Caps::builder("text/x-raw").field("format", "utf8").build();
    Some(gst::Sample::builder().buffer(&plain).caps(&caps).segment_if_some(sample.segment()).build())
}

/// Samples of more than two channels without a channel layout, given the usual layout for their number:
/// without a layout they can be neither mixed down nor encoded. `None` for any others.
fn placed(sample: &gst::Sample) -> Option<gst::Sample> {
    /// Front left and right, centre, bass, back left and right, back centre, side left and right.
    const PLACES: [(i32, u64); 6] = [(3, 0x7), (4, 0x33), (5, 0x37), (6, 0x3f), (7, 0x13f), (8, 0xc3f)];
    let format = sample.caps()?.structure(0)?;
    let channels = format.get::<i32>("channels").ok()?;
    if format.get::<gst::Bitmask>("channel-mask").is_ok_and(|told| *told != 0) {
        return None;
    }
    let (_, mask) = PLACES.into_iter().find(|(known, _)| *known == channels)?;
    let mut caps = sample.caps_owned()?;
    caps.make_mut().structure_mut(0)?.set("channel-mask", gst::Bitmask::new(mask));
    let buffer = sample.buffer_owned()?;
    Some(gst::Sample::builder().buffer(&buffer).caps(&caps).segment_if_some(sample.segment()).build())
}

/// The pre-skip of Opus sound, which its decoders discard.
fn opus_skip_ns(caps: &gst::CapsRef) -> Option<u64> {
    let format = caps.structure(0).filter(|format| format.name() == "audio/x-opus")?;
    let header = match format.get::<gst::Array>("streamheader") {
        Ok(headers) => headers.first()?.get::<gst::Buffer>().ok()?,
        Err(_) => format.get::<gst::Buffer>("codec_data").ok()?,
    };
    let bytes = header.map_readable().ok()?;
    let skip = bytes.get(10..12).filter(|_| bytes.starts_with(b"OpusHead"))?;
    Some(u64::from(u16::from_le_bytes([skip[0], skip[1]])) * 1_000_000_000 / 48_000)
}

/// A block of samples without its first `early_ns`; `None` if nothing is left, or the block cannot be cut.
fn without_start(buffer: &gst::Buffer, caps: &gst::Caps, early_ns: u64) -> Option<gst::Buffer> {
    let format = caps.structure(0).filter(|format| format.name() == "audio/x-raw")?;
    if format.get::<&str>("layout") == Ok("non-interleaved") {
        return None;
    }
    let rate = u64::try_from(format.get::<i32>("rate").ok()?).ok()?;
    let frames_in = |ns: u64| (u128::from(ns) * u128::from(rate) + 500_000_000) / 1_000_000_000;
    let duration_ns = buffer.duration()?.nseconds();
    let (frames, cut) = (usize::try_from(frames_in(duration_ns)).ok()?, frames_in(early_ns) as usize);
    if frames == 0 || cut >= frames || !buffer.size().is_multiple_of(frames) {
        return None;
    }
    let start = cut * (buffer.size() / frames);
    let mut rest = buffer.copy_region(gst::BufferCopyFlags::MEMORY, start..).ok()?;
    rest.make_mut().set_duration(gst::ClockTime::from_nseconds(duration_ns.saturating_sub(early_ns)));
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_are_over_before_the_sound_is_heard_are_cut_off() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("audio/mpeg").build();
        let cut = |first_ns: i64, hidden_ns: u64| {
            let start = Start { first_ns, hidden_ns, skip_ns: 0, step_ns: 20_000_000, caps: caps.clone() };
            start.cut_ns() / 1_000_000
        };
        assert_eq!(cut(0, 0), 0);
        assert_eq!(cut(-20_000_000, 20_000_000), 0, "one packet of priming");
        assert_eq!(cut(-45_000_000, 45_000_000), 20, "one of two");
        assert_eq!(cut(-300_000_000, 300_000_000), 300, "a cut");
        assert_eq!(cut(-299_999_500, 299_999_500), 300, "a rounded one");
        assert_eq!(cut(-305_000_000, 305_000_000), 300, "the packet across the cut stays");
        assert_eq!(cut(-300_000_000, 0), 0, "sound before the first picture");
    }

    #[test]
    fn a_block_of_samples_loses_what_lies_before_time_0() {
        gst::init().unwrap();
        let caps =
            gst::Caps::builder("audio/x-raw").field("format", "S16LE").field("rate", 48_000i32).build();
        let mut block = gst::Buffer::from_slice((0..=255u8).collect::<Vec<_>>());
        // 64 stereo frames of 16 bits.
        block.make_mut().set_duration(gst::ClockTime::from_nseconds(1_333_333));
        let rest = without_start(&block, &caps, 1_000_000).unwrap();
        assert_eq!(rest.map_readable().unwrap().as_slice(), (192..=255u8).collect::<Vec<_>>());
        assert_eq!(rest.duration(), Some(gst::ClockTime::from_nseconds(333_333)));
        assert!(without_start(&block, &caps, 1_333_333).is_none());
        let compressed = gst::Caps::builder("audio/mpeg").build();
        assert!(without_start(&block, &compressed, 1_000_000).is_none());
    }
}
