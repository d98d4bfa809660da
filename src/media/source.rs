//! The source: an opened input, its state and its reconnection.

mod branches;
mod caps;
mod connection;
mod demuxed;
mod feed;
mod file_reader;
mod latm;
mod origin;
mod refusal;
mod selection;
mod shown;
mod streams;
mod tone;
mod ts;

#[cfg(any(fuzzing, test))]
pub(crate) use ts::fuzz as transport_stream;

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use tempfile::NamedTempFile;

use connection::Connection;
use selection::{Chooser, Seams};
pub use selection::{Selection, marks_key_frames};
use tone::ToneMap;

use super::audio::{Kind, Track};
use super::listed::Listed;
use super::matroska::{self, Turn};
use super::mp4::{self, Timeline};
use super::still::open_input;
use super::{About, Audio, Colorimetry, Container, Frame, Input, MediaError, StopHandle};
use super::{input, start_gstreamer};

/// How long the first picture may take.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// How long an input may be silent before it counts as stuck, unless [`SourceOptions::patience`]
/// says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for the first packets of all sound once there is a picture and all streams are known.
const SOUND_LIMIT: Duration = Duration::from_secs(2);
/// How long an RTSP stream may be silent before it counts as lost.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for further streams once there is a picture.
const PADS_LIMIT: Duration = Duration::from_secs(3);
/// Waits are cut into slices this long, to notice a stop.
const SLICE: Duration = Duration::from_millis(20);
/// Assumed duration of a frame of a stream without a frame rate.
const FALLBACK_FRAME_NS: u64 = 40_000_000;

/// When and how often a lost RTSP stream is reconnected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    /// Attempts after each loss; `None` tries for ever, 0 never reconnects.
    pub attempts: Option<u32>,
    /// Pause before the first attempt; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Reconnect {
    /// Tries for ever, after 1, 2, 4, ... 30 s.
    fn default() -> Self {
        Self { attempts: None, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(30) }
    }
}

/// How to open a [`Source`].
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// `Some(true)` drops the oldest frames when the consumer is slow, `Some(false)` makes the
    /// source wait; `None` drops for cameras, RTSP and live pipelines.
    pub live: Option<bool>,
    /// The container for the sound, which decides which codecs are copied without re-encoding. `None` reads
    /// no sound at all.
    pub container: Option<Container>,
    /// What to do when an RTSP stream is lost.
    pub reconnect: Reconnect,
    /// How long the input may give nothing before the source ends, which [`Source::cut_off`] then reports;
    /// `None` for 30 s. The first picture may take as long, but at least 20 s. A lost RTSP stream is
    /// reconnected instead.
    pub patience: Option<Duration>,
    /// The frames of a file that are returned. A part of a file requires a container that marks its key
    /// frames, such as MP4 or Matroska.
    pub selection: Selection,
    /// Ends the source from another thread.
    pub stop: StopHandle,
}

/// The properties of a source, known once its first picture has come.
#[derive(Debug, Clone)]
pub struct SourceInfo {
    /// The input.
    pub input: Input,
    /// Width in pixels, upright.
    pub width: usize,
    /// Height in pixels, upright.
    pub height: usize,
    /// Width : height of one pixel.
    pub pixel_aspect: (u32, u32),
    /// Nominal frames per second as a fraction; `None` when the stream states none. The times of the frames
    /// are authoritative.
    pub fps: Option<(i32, i32)>,
    /// Length as stated by the container.
    pub duration_ns: Option<u64>,
    /// Number of frames, estimated from length and frame rate.
    pub frames: Option<u64>,
    /// The interpretation of the samples of the pictures.
    pub colorimetry: Colorimetry,
    /// Whether frames are dropped when the consumer is slow.
    pub live: bool,
    /// Sound tracks that were found.
    pub audio_tracks: usize,
    /// The frames that are returned.
    pub selection: Selection,
    /// Title and chapters.
    pub(super) about: About,
    /// Caps of the pictures, system memory, I420.
    pub(super) caps: gst::Caps,
}

impl SourceInfo {
    /// Frames of the file before a part that begins at that time, by the nominal rate; 0 for a whole file,
    /// and if only some of its frames are returned.
    pub(crate) fn frames_before(&self, pts_ns: u64) -> u64 {
        let Selection { from_ns, fps, key_frames, .. } = self.selection;
        let rate = self.fps.filter(|_| from_ns > 0 && fps.is_none() && !key_frames);
        rate.map_or(0, |(n, d)| (pts_ns as f64 * f64::from(n) / (f64::from(d) * 1e9)).round() as u64)
    }
}

/// An opened input that returns frames.
///
/// For a file, every frame is returned, and decoding waits for the consumer. For a live source, the oldest
/// waiting frame is dropped and counted. Times start at 0 and strictly increase, even across the loss of an
/// RTSP connection.
pub struct Source {
    shared: Arc<SourceShared>,
    options: SourceOptions,
    info: SourceInfo,
    connection: Option<Connection>,
    audio: Option<Audio>,
    chooser: Chooser,
    ended: bool,
    cut_off: Option<String>,
}

struct SourceShared {
    state: Mutex<State>,
    changed: Condvar,
    /// The properties of an MP4 file in its index, once known.
    timeline: OnceLock<Timeline>,
    /// A copy of an input that can be read only once, if its demuxer must seek.
    copy: OnceLock<NamedTempFile>,
    /// The turn that makes the pictures upright, if no tag states it.
    turn: Option<Turn>,
    /// The tracks that the header of the file lists, once known.
    listed: OnceLock<Vec<Listed>>,
    /// Packets that were missing in a transport stream.
    lost_packets: AtomicU64,
    /// The tone map for pictures of high dynamic range, once there is one.
    tone_map: OnceLock<ToneMap>,
    /// Whether the input is a file that this program reads itself, and only once.
    fed: bool,
    /// The time of opening, and the milliseconds from then to the last data.
    began: Instant,
    touched_ms: AtomicU64,
    /// Begin and end of the part that is returned, unless it is the whole file.
    seams: Option<Seams>,
    /// End of the discarded sound in nanoseconds.
    sound_end_ns: AtomicU64,
    /// Time of the beginning in the file, in nanoseconds, if its clock does not start at 0.
    begins_ns: AtomicU64,
}

/// State shared by the streaming threads and the consumer.
struct State {
    /// Number of the connection whose frames are accepted; others are refused.
    generation: u64,
    live: bool,
    ready: VecDeque<Frame>,
    /// The last frame of a file, held until the next one tells how long it lasts.
    held: Option<Frame>,
    format: Option<Format>,
    tracks: Vec<Arc<Track>>,
    next_index: u64,
    last_pts_ns: Option<u64>,
    last_step_ns: Option<u64>,
    /// Time of the first picture.
    started: Option<Instant>,
    /// Offset of running times, once known for this connection.
    offset_ns: Option<i64>,
    /// The amount by which all running times exceed those in the file.
    headroom_ns: i64,
    /// Whether all tracks are known and were returned.
    opened: bool,
    about: About,
    /// Whether the upper field of interlaced pictures is shown first, if the container says so.
    top_first: Option<bool>,
    /// Warnings that do not name the input yet.
    notes: Vec<String>,
    dropped: u64,
    /// Time of the last picture.
    heard: Instant,
    connection: ConnectionState,
    warnings: Vec<String>,
    /// Properties of the pictures that an output will lack.
    lacking: Vec<String>,
    /// Missing frames, by the nominal rate.
    left_out: u64,
}

/// The part of the state that is reset with each connection.
#[derive(Default)]
struct ConnectionState {
    video_found: bool,
    pads_done: bool,
    /// Streams that have not ended.
    running: usize,
    /// Decoders that have not given anything yet.
    undecided: usize,
    /// Why the input cannot be read further.
    cut_off: Option<String>,
    audio_pads: usize,
    /// Numbers of the tracks of the file that the demuxer has given.
    seen: Vec<u32>,
    /// Streams of pictures that continue others, and those of them whose predecessors have passed.
    coming: u32,
    passed: u32,
    pictures: u64,
    video_ended: bool,
    ended: bool,
    error: Option<String>,
    missing: Option<String>,
}

/// Properties that the first picture fixed.
#[derive(Debug, Clone)]
struct Format {
    width: usize,
    height: usize,
    pixel_aspect: (u32, u32),
    fps: Option<(i32, i32)>,
    colorimetry: Colorimetry,
    caps: gst::Caps,
}

impl State {
    /// A stream of this connection has ended. The last one ends the connection.
    fn end_one(&mut self) {
        let now = &mut self.connection;
        now.running = now.running.saturating_sub(1);
        now.ended |= now.running == 0 && now.pads_done && now.undecided == 0;
    }
}

impl SourceShared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that data came.
    fn touch(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.touched_ms.fetch_max(now_ms, Ordering::AcqRel);
    }

    /// The time without data.
    fn silent_for(&self) -> Duration {
        let touched = Duration::from_millis(self.touched_ms.load(Ordering::Acquire));
        self.began.elapsed().saturating_sub(touched)
    }

    /// What the header of the file says of the stream of that name.
    fn listed(&self, name: &str) -> Option<&Listed> {
        let number = demuxed::track_number(name)?;
        self.listed.get()?.iter().find(|listed| listed.number == number)
    }

    /// The index of an MP4 file.
    fn timeline(&self) -> Option<&Timeline> {
        self.timeline.get()
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Changes the state on behalf of a connection, unless another one has taken its place.
    fn update(&self, generation: u64, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        if state.generation == generation {
            change(&mut state);
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl Source {
    /// Opens an input and waits for its first picture.
    ///
    /// # Errors
    /// When the input is missing, empty, a folder, not a media file, without video, or gives no picture in
    /// time; when a part of GStreamer is missing; when stopped in the meantime. An [`Input::Still`] is
    /// refused: [`read_still`](super::read_still) reads those.
    pub fn open(input: &Input, options: &SourceOptions) -> Result<Self, MediaError> {
        let examined = match input {
            Input::File(path) => examine(path)?,
            Input::Still(_) => {
                let reason = "it is a still image, not a video".to_owned();
                return Err(MediaError::BadInput { input: input.to_string(), reason });
            }
            _ => Examined::default(),
        };
        start_gstreamer()?;
        let state = State {
            generation: 0,
            live: options.live.unwrap_or_else(|| input.is_live()),
            ready: VecDeque::new(),
            held: None,
            format: None,
            tracks: Vec::new(),
            next_index: 0,
            last_pts_ns: None,
            last_step_ns: None,
            started: None,
            offset_ns: None,
            headroom_ns: 0,
            opened: false,
            about: About {
                chapters: examined
                    .timeline
                    .as_ref()
                    .map_or_else(Vec::new, |timeline| timeline.chapters.clone()),
                recorded_s: examined.recorded_s,
                location: examined.location,
                ..About::default()
            },
            top_first: None,
            notes: Vec::new(),
            dropped: 0,
            heard: Instant::now(),
            connection: ConnectionState::default(),
            warnings: Vec::new(),
            lacking: examined.lacking,
            left_out: 0,
        };
        let shared = Arc::new(SourceShared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            timeline: examined.timeline.map_or_else(OnceLock::new, OnceLock::from),
            copy: OnceLock::new(),
            turn: examined.turn,
            listed: examined.listed.map_or_else(OnceLock::new, OnceLock::from),
            lost_packets: AtomicU64::new(0),
            tone_map: OnceLock::new(),
            fed: examined.fed,
            began: Instant::now(),
            touched_ms: AtomicU64::new(0),
            seams: Seams::of(&options.selection),
            sound_end_ns: AtomicU64::new(0),
            begins_ns: AtomicU64::new(0),
        });
        let opened = Connection::start(input, options, &shared).and_then(|connection| {
            let limit = options.patience.map_or(OPEN_LIMIT, |patience| patience.max(OPEN_LIMIT));
            wait_for_picture(&shared, input, &options.stop, limit).map(|()| connection)
        });
        let connection = opened.map_err(|error| refusal::explained(input, error))?;

        // The index as the demuxer sees it may say more than the file.
        let stated_ns = shared.timeline().and_then(|timeline| timeline.duration_ns);
        let duration_ns =
            connection.duration_ns().map(|ns| stated_ns.map_or(ns, |stated_ns| ns.min(stated_ns)));
        let mut state = shared.state();
        let Some(format) = state.format.clone() else { return Err(MediaError::NoVideo(input.to_string())) };
        if let Some(missing) = state.connection.missing.take() {
            state.warnings.push(format!("{input}: a stream is left out, GStreamer lacks {missing}"));
        }
        if options.container.is_some() {
            let lacking = std::mem::take(&mut state.lacking);
            state.warnings.extend(lacking.into_iter().map(|what| format!("{input}: {what}")));
        }
        let frames = duration_ns.zip(format.fps).and_then(|(duration_ns, (n, d))| {
            let frames = (duration_ns as f64 * f64::from(n) / (f64::from(d) * 1e9)).round() as u64;
            options.selection.expected(frames, duration_ns)
        });
        let info = SourceInfo {
            input: input.clone(),
            width: format.width,
            height: format.height,
            pixel_aspect: format.pixel_aspect,
            fps: format.fps,
            duration_ns,
            frames,
            colorimetry: format.colorimetry,
            live: state.live,
            audio_tracks: state.tracks.iter().filter(|track| track.kind != Kind::Text).count(),
            selection: options.selection,
            about: state.about.clone(),
            caps: format.caps,
        };
        // Decoded streams come first. Their names sort in the order of the file.
        let mut tracks = state.tracks.clone();
        tracks.sort_by(|a, b| a.stream.cmp(&b.stream));
        let audio = Audio { tracks };
        state.opened = true;
        drop(state);
        Ok(Self {
            shared,
            options: options.clone(),
            info,
            connection: Some(connection),
            audio: Some(audio),
            chooser: Chooser::new(&options.selection),
            ended: false,
            cut_off: None,
        })
    }

    /// Its properties.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// Its sound, for [`Sink::create`](super::Sink::create); empty the second time. Must be taken before the
    /// first [`Source::next_frame`], which discards sound that was not taken.
    pub fn take_audio(&mut self) -> Audio {
        self.audio.take().unwrap_or_else(Audio::none)
    }

    /// The next frame, waiting for it; `None` at the end, and once stopped. A file ends only
    /// after all its sound was passed on.
    ///
    /// A truncated file ends there, with a warning. A lost RTSP stream is reconnected as [`Reconnect`] says;
    /// after the last attempt it ends with a warning.
    ///
    /// # Errors
    /// When decoding failed before any frame was returned.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        self.audio = None;
        let asked = Instant::now();
        while !self.ended {
            if self.options.stop.is_stopped() {
                self.end(true);
                break;
            }
            if self.chooser.done {
                self.end(false);
                break;
            }
            let mut state = self.shared.state();
            if let Some(frame) = state.ready.pop_front() {
                drop(state);
                self.shared.changed.notify_all();
                if self.options.selection.is_all() {
                    return Ok(Some(frame));
                }
                match self.chooser.choose(frame, self.shared.seams.as_ref()) {
                    Some(frame) => return Ok(Some(frame)),
                    None => continue,
                }
            }
            let silent = self.info.input.is_rtsp() && state.heard.elapsed() > SILENCE_LIMIT;
            let failure = match (&state.connection.error, state.connection.ended) {
                (Some(error), _) => Some(error.clone()),
                (None, true) => None,
                (None, false) if silent => Some(format!("no picture for {} s", SILENCE_LIMIT.as_secs())),
                (None, false) if self.is_stuck(asked) => {
                    let patience = self.patience().as_secs_f64();
                    let waited = format!("no data came for {patience} s while waiting for its next picture");
                    state.connection.cut_off.get_or_insert(waited);
                    state.connection.ended = true;
                    None
                }
                (None, false) => {
                    drop(self.shared.wait(state));
                    continue;
                }
            };
            if let Some(frame) = state.held.take() {
                state.ready.push_back(frame);
                continue;
            }
            let cut_off = state.connection.cut_off.take();
            drop(state);
            if let Some(reason) = cut_off {
                self.give_up(&reason);
                break;
            }
            if self.info.input.is_rtsp() && self.info.duration_ns.is_none() {
                self.connect_again(failure.as_deref().unwrap_or("the server ended it"));
                continue;
            }
            self.warn_of_early_end(failure);
            self.warn_of_loss();
            self.end(false);
        }
        Ok(None)
    }

    /// Why the source ended before its input did, in one sentence; `None` when it did not.
    pub fn cut_off(&self) -> Option<&str> {
        self.cut_off.as_deref()
    }

    fn patience(&self) -> Duration {
        self.options.patience.unwrap_or(PATIENCE)
    }

    /// Whether the consumer has waited too long without any pictures or sound.
    fn is_stuck(&self, asked: Instant) -> bool {
        !self.info.input.is_rtsp() && self.shared.silent_for().min(asked.elapsed()) > self.patience()
    }

    /// Ends a source that cannot be read further.
    fn give_up(&mut self, reason: &str) {
        let end_s = self.end_ns() as f64 / 1e9;
        self.cut_off = Some(format!("{} cannot be read beyond {end_s:.2} s: {reason}", self.info.input));
        self.end(false);
    }

    /// End of the pictures and sound received so far.
    fn end_ns(&self) -> u64 {
        let state = self.shared.state();
        let step_ns = state.last_step_ns.unwrap_or(FALLBACK_FRAME_NS);
        let video_end_ns = state.last_pts_ns.map_or(0, |pts_ns| pts_ns + step_ns);
        let ignored_ns = self.shared.sound_end_ns.load(Ordering::Acquire);
        state.tracks.iter().map(|track| track.last_end_ns()).fold(video_end_ns.max(ignored_ns), u64::max)
    }

    /// Live frames that were dropped because the consumer was slow.
    pub fn dropped(&self) -> u64 {
        self.shared.state().dropped
    }

    /// Warnings for the user since the last call, one sentence each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut state = self.shared.state();
        let notes = std::mem::take(&mut state.notes);
        let tracks = state.tracks.iter().flat_map(|track| track.take_notes()).collect::<Vec<_>>();
        let input = &self.info.input;
        let named = notes.into_iter().chain(tracks).map(|note| format!("{input}: {note}"));
        std::mem::take(&mut state.warnings).into_iter().chain(named).collect()
    }

    /// Ends the tracks and shuts the pipeline down.
    fn end(&mut self, stopped: bool) {
        self.ended = true;
        let tracks = {
            let mut state = self.shared.state();
            state.ready.clear();
            state.tracks.clone()
        };
        tracks.iter().for_each(|track| track.end(stopped));
        self.connection = None;
    }

    /// Warns when the decoded video is shorter than the container states.
    fn warn_of_early_end(&self, failure: Option<String>) {
        let end_ns = self.end_ns();
        let mut state = self.shared.state();
        let input = &self.info.input;
        if let Some(failure) = failure {
            state.warnings.push(format!("{input} breaks off after {:.2} s: {failure}", end_ns as f64 / 1e9));
        } else if let Some(duration_ns) = self.info.duration_ns {
            // Containers round, and the last frame's length is a guess.
            let tolerance_ns = 500_000_000.max(duration_ns / 50);
            // Demuxers include the time before the beginning in the duration.
            let duration_ns = duration_ns.saturating_sub(self.shared.begins_ns.load(Ordering::Acquire));
            if end_ns + tolerance_ns < duration_ns {
                state.warnings.push(format!(
                    "{input} should last {:.2} s but ends after {:.2} s: it seems to be cut short",
                    duration_ns as f64 / 1e9,
                    end_ns as f64 / 1e9
                ));
            }
        }
    }

    /// Warns of missing pictures in a transport stream that lost packets.
    fn warn_of_loss(&self) {
        let lost = self.shared.lost_packets.load(Ordering::Acquire);
        if lost > 0 {
            let mut state = self.shared.state();
            let (input, left_out) = (&self.info.input, state.left_out);
            state.warnings.push(format!(
                "{input} lacks {lost} packets that were lost before: {left_out} pictures are left out, others show damage"
            ));
        }
    }

    /// Tries to reconnect a lost stream, with growing pauses; ends the source when that fails.
    fn connect_again(&mut self, reason: &str) {
        let input = self.info.input.clone();
        self.connection = None;
        let mut pause = self.options.reconnect.first_pause;
        let mut attempt = 0u32;
        let mut reason = reason.to_owned();
        self.shared.state().warnings.push(format!("{input} was lost ({reason}), reconnecting"));
        while self.options.reconnect.attempts.is_none_or(|limit| attempt < limit) {
            attempt += 1;
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if self.options.stop.is_stopped() {
                    return;
                }
                std::thread::sleep(SLICE.min(until.saturating_duration_since(Instant::now())));
            }
            pause = (pause * 2).min(self.options.reconnect.longest_pause);
            {
                let mut state = self.shared.state();
                state.connection = ConnectionState::default();
                state.offset_ns = None;
                state.tracks.iter().for_each(|track| track.forget_time());
            }
            let opened = Connection::start(&input, &self.options, &self.shared).and_then(|connection| {
                wait_for_picture(&self.shared, &input, &self.options.stop, SILENCE_LIMIT)?;
                Ok(connection)
            });
            match opened {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.shared.state().warnings.push(format!("{input} is back after {attempt} attempt(s)"));
                    return;
                }
                Err(MediaError::Stopped(_)) => return,
                Err(error) => reason = error.to_string(),
            }
        }
        let warning = format!("{input} did not come back after {attempt} attempt(s): {reason}");
        self.shared.state().warnings.push(warning);
        self.end(false);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.ended {
            self.end(true);
        }
    }
}

/// Waits until the current connection has given a picture and named all its streams.
fn wait_for_picture(
    shared: &SourceShared,
    input: &Input,
    stop: &StopHandle,
    limit: Duration,
) -> Result<(), MediaError> {
    let began = Instant::now();
    let mut pictured = None;
    let mut state = shared.state();
    loop {
        if stop.is_stopped() {
            return Err(MediaError::Stopped(input.to_string()));
        }
        let now = &state.connection;
        if now.pictures > 0 {
            let since: Instant = *pictured.get_or_insert_with(Instant::now);
            let known = now.pads_done && now.undecided == 0;
            let heard = state.tracks.iter().all(|track| track.has_begun());
            if now.ended
                || now.error.is_some()
                || (known && (heard || state.live || since.elapsed() > SOUND_LIMIT))
                || since.elapsed() > PADS_LIMIT
            {
                return Ok(());
            }
        } else if now.error.is_some()
            || now.video_ended
            || now.ended
            || (now.pads_done && now.undecided == 0 && !now.video_found)
        {
            return Err(match (&now.missing, &now.error) {
                (Some(missing), _) => MediaError::MissingElement(missing.clone()),
                (None, Some(reason)) if !no_stream(reason) => {
                    MediaError::NotDecodable { input: input.to_string(), reason: reason.clone() }
                }
                _ => MediaError::NoVideo(input.to_string()),
            });
        }
        if began.elapsed() > limit {
            return Err(MediaError::Timeout { input: input.to_string(), seconds: limit.as_secs() });
        }
        state = shared.wait(state);
    }
}

/// What is known of a file before GStreamer reads it.
#[derive(Default)]
struct Examined {
    timeline: Option<Timeline>,
    /// The turn of its pictures if no tag states it.
    turn: Option<Turn>,
    /// Its tracks, if its header lists them.
    listed: Option<Vec<Listed>>,
    /// Time of recording in seconds since 1970.
    recorded_s: Option<i64>,
    /// Place of recording, as in ISO 6709.
    location: Option<String>,
    /// Properties that an output will lack.
    lacking: Vec<String>,
    /// Whether this program reads the file itself: files that can be read only once, and transport streams.
    fed: bool,
}

/// Examines a file before GStreamer does, because GStreamer's errors say little about what is wrong with it.
fn examine(path: &Path) -> Result<Examined, MediaError> {
    let unreadable = |source| MediaError::Unreadable { path: path.to_owned(), source };
    let fed = || Examined { fed: true, ..Examined::default() };
    if !input::is_read_twice(path) && path.exists() && !path.is_dir() {
        return Ok(fed());
    }
    let mut file = open_input(path)?;
    let mut start = Vec::new();
    (&mut file).take(feed::TELLING).read_to_end(&mut start).map_err(unreadable)?;
    if start.starts_with(b"GIF87a") || start.starts_with(b"GIF89a") {
        let reason = "it is a gif image, not a video".to_owned();
        return Err(MediaError::BadInput { input: path.display().to_string(), reason });
    }
    if ts::layout(&start).is_some() {
        return Ok(fed());
    }
    if mp4::lacks_index(&mut file).map_err(unreadable)? {
        return Err(MediaError::NoIndex(path.to_owned()));
    }
    if let Some(header) = matroska::Header::read(&mut file).map_err(unreadable)? {
        let matroska::Header { turn, tracks, recorded_s, location, has_timecode } = header;
        let lacking = has_timecode.then(|| "its timecode is left out".to_owned()).into_iter().collect();
        let listed = Some(tracks);
        return Ok(Examined { turn, listed, recorded_s, location, lacking, ..Examined::default() });
    }
    let mut timeline = Timeline::read(&mut file).map_err(unreadable)?;
    let (turn, recorded_s, location) = (timeline.turn, timeline.recorded_s, timeline.location.clone());
    let listed = Some(std::mem::take(&mut timeline.tracks));
    Ok(Examined { timeline: Some(timeline), turn, listed, recorded_s, location, ..Examined::default() })
}

/// Whether an error only means that no stream was wanted: when a decoder is really missing,
/// decodebin names it in a message of its own.
fn no_stream(reason: &str) -> bool {
    reason.contains("is missing a plug-in") || reason.contains("suitable streams")
}
