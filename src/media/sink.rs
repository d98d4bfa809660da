//! Writing a video file: the frames that are encoded, and the sound that is copied.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::audio::{Description, Kind, Start, Track};
use super::encoder::{self, SinkOptions, SoundEncoder, VideoCodec, WorkingEncoder};
use super::output::Pending;
use super::{About, Audio, Container, Frame, Input, MediaError, Picture, SourceInfo};
use super::{element, error_text, start_gstreamer};
use super::{matroska, mp4};

/// Frames waiting for the encoder.
const AHEAD: u32 = 4;
/// How long writing may stall before it counts as failed.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Waits are cut into slices this long.
const SLICE: Duration = Duration::from_millis(50);
/// Ticks per second of the video track in MP4, exact for the usual frame rates.
const MP4_TIMESCALE: u32 = 90_000;

/// A summary of the written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSummary {
    /// The file.
    pub path: PathBuf,
    /// Video frames in it.
    pub frames: u64,
    /// Its size.
    pub bytes: u64,
    /// The encoder that made the video.
    pub encoder: String,
    /// Sound tracks copied without re-encoding.
    pub audio_copied: usize,
    /// Sound tracks encoded again, because the container does not accept their codec.
    pub audio_encoded: usize,
}

/// A video file being written, under a temporary name until [`Sink::finish`]. If it is dropped before,
/// nothing remains.
pub struct Sink {
    pipeline: gst::Pipeline,
    video: gst_app::AppSrc,
    tracks: Vec<Arc<Track>>,
    pending: Option<Pending>,
    path: PathBuf,
    container: Container,
    shared: Arc<SinkShared>,
    /// Size of the frames pushed, and of those that the encoder gets.
    size: (usize, usize),
    coded: (usize, usize),
    codec: VideoCodec,
    meta: Layout,
    /// Delay of everything written.
    lead_ns: u64,
    /// Length of the priming of each sound track.
    hidden_ns: Vec<u64>,
    about: About,
    /// Languages and flags of the tracks, in the order of the file.
    descriptions: Vec<Description>,
    first_pts_ns: Option<u64>,
    last_pts_ns: Option<u64>,
    end_ns: u64,
    summary: SinkSummary,
}

#[derive(Default)]
struct SinkShared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: u32,
    error: Option<String>,
    ended: bool,
}

impl SinkShared {
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, an error, or no change of `waiting` for [`STALL_LIMIT`].
    fn wait_until(&self, done: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, String> {
        let mut state = self.state();
        let (mut moved, mut level) = (Instant::now(), state.waiting);
        loop {
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            if done(&state) {
                return Ok(state);
            }
            if state.waiting != level {
                (moved, level) = (Instant::now(), state.waiting);
            }
            if moved.elapsed() > STALL_LIMIT {
                return Err(format!("nothing moved for {} s", STALL_LIMIT.as_secs()));
            }
            state = self.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Sink {
    /// Checks whether `path` can become the output for `input`: its extension, its folder, the codec in that
    /// container, the quantizer. The check is cheap and opens nothing.
    ///
    /// # Errors
    /// With the reason when it cannot.
    pub fn check(path: &Path, input: &Input, options: &SinkOptions) -> Result<Container, MediaError> {
        let container = Container::from_path(path)?;
        VideoCodec::choose(options, container)?.quantizer(options)?;
        let same =
            input.path().and_then(|input| Some(input.canonicalize().ok()? == path.canonicalize().ok()?));
        if same == Some(true) {
            return Err(MediaError::OutputIsInput(path.to_owned()));
        }
        Pending::check(path)?;
        Ok(container)
    }

    /// The encoder that [`create`](Self::create) takes for such frames: the first that encodes three of them.
    /// It can be found before there is anything to write.
    ///
    /// # Errors
    /// When none works, or a part of GStreamer is missing.
    pub fn working_encoder(
        container: Container,
        info: &SourceInfo,
        options: &SinkOptions,
    ) -> Result<WorkingEncoder, MediaError> {
        start_gstreamer()?;
        let codec = VideoCodec::choose(options, container)?;
        WorkingEncoder::find(codec, options, &coded_caps(info, coded_size(codec, info)))
    }

    /// Starts a file for the frames of a source and its sound. The container is that of the
    /// extension (.mp4, .mkv, .webm); the encoder is the [working one](Self::working_encoder).
    ///
    /// The sound must come from a [`Source`](super::Source) that was opened for this container.
    /// With H.264 an odd side is padded to even by repeating the last column or row.
    ///
    /// # Errors
    /// When [`Sink::check`] fails, no encoder works, or a part of GStreamer is missing.
    pub fn create(
        path: &Path,
        info: &SourceInfo,
        audio: Audio,
        options: &SinkOptions,
    ) -> Result<Self, MediaError> {
        let container = Self::check(path, &info.input, options)?;
        let encoder = Self::working_encoder(container, info, options)?;
        Self::create_with(path, info, audio, options, encoder)
    }

    /// The same with an encoder that was already found with the same options.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_with(
        path: &Path,
        info: &SourceInfo,
        audio: Audio,
        options: &SinkOptions,
        WorkingEncoder(encoder_name): WorkingEncoder,
    ) -> Result<Self, MediaError> {
        let container = Self::check(path, &info.input, options)?;
        start_gstreamer()?;
        let codec = VideoCodec::choose(options, container)?;
        let pending = Pending::create(path)?;

        let coded = coded_size(codec, info);
        let caps = codec.coloured(coded_caps(info, coded));
        let encoder = encoder::build(&encoder_name, codec, options, &caps)?;

        let pipeline = gst::Pipeline::new();
        let shared = Arc::new(SinkShared::default());
        watch(&pipeline, &shared)?;
        let muxer = element(match container {
            Container::Mp4 => "mp4mux",
            Container::Matroska => "matroskamux",
            Container::WebM => "webmmux",
        })?;
        let file = element("filesink")?;
        file.set_property("location", pending.temporary_path());
        let failed = |_| MediaError::MissingElement("a part of the writer".to_owned());
        pipeline.add_many([&muxer, &file]).map_err(failed)?;
        muxer.link(&file).map_err(failed)?;

        let video = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_buffers(0).build();
        count_out(&video, &shared);
        let mut chain = vec![video.clone().upcast(), element("queue")?, element("videoconvert")?, encoder];
        if let Some(parser) = codec.parser() {
            chain.push(element(parser)?);
        }
        let mut pictures = info.about.pictures.clone();
        // mp4mux would make it the title of the file.
        pictures.title.take_if(|_| container == Container::Mp4);
        chain.extend(names(&pictures, container)?);
        chain.push(unlimited_queue()?);
        let pad = link_to(&pipeline, &chain, &muxer, "video_%u")?;
        if pad.has_property("trak-timescale") {
            pad.set_property("trak-timescale", MP4_TIMESCALE);
        }

        let tracks = audio.into_tracks();
        let mut descriptions = vec![pictures];
        let mut sounds = Vec::new();
        for track in &tracks {
            sounds.push(Sound::add(track, container, &pipeline, &muxer)?);
            descriptions.push(track.description());
        }
        settle_defaults(&mut descriptions, &tracks);
        let encoded = sounds.iter().filter(|sound| sound.encoded).count();
        let copied = tracks.iter().filter(|track| track.kind != Kind::Text).count() - encoded;
        // Everything is delayed by the sound before the first picture that cannot be hidden.
        let lead_ns = sounds.iter().map(|sound| sound.early_ns).max().unwrap_or(0);
        entitle(&muxer, info, lead_ns);

        if pipeline.set_state(gst::State::Playing).is_err() {
            let reason =
                shared.state().error.clone().unwrap_or_else(|| "the writer does not start".to_owned());
            let _ = pipeline.set_state(gst::State::Null);
            return Err(MediaError::NotWritten { path: path.to_owned(), reason });
        }
        let mut hidden_ns = Vec::new();
        for (track, sound) in tracks.iter().zip(sounds) {
            hidden_ns.push(sound.hidden_ns);
            track.connect(sound.out, lead_ns + sound.later_ns, sound.clamped_ns, sound.from_ns);
        }
        let summary = SinkSummary {
            path: path.to_owned(),
            frames: 0,
            bytes: 0,
            encoder: encoder_name,
            audio_copied: copied,
            audio_encoded: encoded,
        };
        Ok(Self {
            pipeline,
            video,
            tracks,
            pending: Some(pending),
            path: path.to_owned(),
            container,
            shared,
            size: (info.width, info.height),
            coded,
            codec,
            meta: Layout::new(coded),
            lead_ns,
            hidden_ns,
            about: info.about.clone(),
            descriptions,
            first_pts_ns: None,
            last_pts_ns: None,
            end_ns: 0,
            summary,
        })
    }

    /// The GStreamer name of the encoder.
    pub fn encoder(&self) -> &str {
        &self.summary.encoder
    }

    /// Writes the next frame, waiting for the encoder when it is behind. The pixels are not
    /// copied (unless a side has to be padded).
    ///
    /// # Errors
    /// When the frame is of another size or not later than the last one, and when encoding or writing has
    /// failed (for example because the disk is full).
    pub fn write(&mut self, frame: Frame) -> Result<(), MediaError> {
        let size = (frame.picture.width(), frame.picture.height());
        if size != self.size {
            return Err(self.failed(format!("a frame is {size:?} pixels, the video {:?}", self.size)));
        }
        if self.last_pts_ns.is_some_and(|last| frame.pts_ns <= last) {
            return Err(self.failed(format!("frame {} is not later than the one before", frame.index)));
        }
        match self.shared.wait_until(|state| state.waiting < AHEAD) {
            Ok(mut state) => state.waiting += 1,
            Err(reason) => return Err(self.failed(reason)),
        }
        self.first_pts_ns.get_or_insert(frame.pts_ns);
        self.last_pts_ns = Some(frame.pts_ns);
        self.end_ns = frame.pts_ns + frame.duration_ns;
        self.tracks.iter().for_each(|track| track.open_gate(self.end_ns));

        let picture = if self.coded == size { frame.picture } else { padded(&frame.picture, self.coded) };
        let colours = self.codec.colours(picture.colorimetry());
        let picture =
            if colours == picture.colorimetry() { picture } else { Arc::new(picture.recoloured(colours)) };
        let mut buffer = gst::Buffer::from_slice(Pixels(picture));
        let fields = buffer.make_mut();
        fields.set_pts(gst::ClockTime::from_nseconds(frame.pts_ns + self.lead_ns));
        fields.set_duration(gst::ClockTime::from_nseconds(frame.duration_ns));
        self.meta.add_to(fields);
        if self.video.push_buffer(buffer).is_err() {
            let reason = self.shared.state().error.clone();
            return Err(self.failed(reason.unwrap_or_else(|| "the encoder stopped".to_owned())));
        }
        self.summary.frames += 1;
        Ok(())
    }

    /// Ends the file, waits until it is complete, and gives it its name. Keep the source until then: its
    /// sound continues to the end of the last track, or of the last frame if the source was stopped.
    ///
    /// # Errors
    /// When there was no frame, or encoding or writing has failed; nothing remains then.
    pub fn finish(self) -> Result<SinkSummary, MediaError> {
        self.finish_unless(|| false)
    }

    /// As [`Sink::finish`], but gives up without leaving a file once `aborted` returns `true`: completing a
    /// file may take the encoder a while.
    ///
    /// # Errors
    /// As [`Sink::finish`], and when aborted.
    pub fn finish_unless(mut self, aborted: impl Fn() -> bool) -> Result<SinkSummary, MediaError> {
        if self.summary.frames == 0 {
            return Err(self.failed("there was no frame to write".to_owned()));
        }
        self.tracks.iter().for_each(|track| track.finish(self.end_ns));
        let _ = self.video.end_of_stream();
        let ended = self.shared.wait_until(|state| state.ended || aborted()).map(|state| state.ended);
        if !ended.map_err(|reason| self.failed(reason))? || aborted() {
            return Err(self.failed("it was aborted before the end".to_owned()));
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(mut pending) = self.pending.take() {
            if self.container == Container::Mp4 {
                let video_ns = self.end_ns - self.first_pts_ns.unwrap_or(0);
                let repairs = mp4::Repairs {
                    video_ns,
                    hidden_ns: &self.hidden_ns,
                    chapters: &self.about.chapters,
                    chapters_later_ns: self.lead_ns,
                    tracks: &self.descriptions,
                    recorded_s: self.about.recorded_s,
                    location: self.about.location.as_deref(),
                };
                mp4::repair(pending.file(), &repairs).map_err(|error| self.failed(error.to_string()))?;
            } else {
                let mended = mend_tags(pending.file(), &self.about)
                    .and_then(|()| matroska::describe(pending.file(), &self.descriptions));
                mended.map_err(|error| self.failed(error.to_string()))?;
            }
            pending.publish()?;
        }
        let metadata = self.path.metadata();
        self.summary.bytes =
            metadata.map_err(|source| MediaError::Unreadable { path: self.path.clone(), source })?.len();
        Ok(self.summary.clone())
    }

    fn failed(&self, reason: String) -> MediaError {
        MediaError::NotWritten { path: self.path.clone(), reason }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.tracks.iter().for_each(|track| track.discard());
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Pixels for the encoder, shared with the stages that still read them.
pub(super) struct Pixels(pub(super) Arc<Picture>);

impl AsRef<[u8]> for Pixels {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Offsets of the planes of a tightly packed I420 picture; GStreamer's own layout pads rows.
pub(super) struct Layout {
    size: (usize, usize),
    offsets: [usize; 3],
    strides: [i32; 3],
}

impl Layout {
    pub(super) fn new(size: (usize, usize)) -> Self {
        let (width, height) = size;
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        let luma = width * height;
        Self {
            size,
            offsets: [0, luma, luma + chroma_width * chroma_height],
            strides: [width as i32, chroma_width as i32, chroma_width as i32],
        }
    }

    pub(super) fn add_to(&self, buffer: &mut gst::BufferRef) {
        // Fails only for a buffer smaller than the planes, which a `Picture` never is.
        let _ = gst_video::VideoMeta::add_full(
            buffer,
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::I420,
            self.size.0 as u32,
            self.size.1 as u32,
            &self.offsets,
            &self.strides,
        );
    }
}

/// A copy with a last column or row repeated, up to the even size.
fn padded(picture: &Picture, (width, height): (usize, usize)) -> Arc<Picture> {
    let mut data = Vec::with_capacity(Picture::len_bytes(width, height));
    let from = [(picture.width(), picture.height()), picture.chroma_size(), picture.chroma_size()];
    let to = [(width, height), (width / 2, height / 2), (width / 2, height / 2)];
    for ((plane, from), to) in picture.planes().into_iter().zip(from).zip(to) {
        for row in 0..to.1 {
            let line = &plane[row.min(from.1 - 1) * from.0..][..from.0];
            data.extend_from_slice(line);
            data.extend(std::iter::repeat_n(line[from.0 - 1], to.0 - from.0));
        }
    }
    let padded = Picture::from_i420(data, width, height, picture.colorimetry());
    Arc::new(padded.expect("the planes were filled up to the even size"))
}

/// Width and height of the encoder's input.
fn coded_size(codec: VideoCodec, info: &SourceInfo) -> (usize, usize) {
    let even = |side: usize| if codec.needs_even_size() { side.next_multiple_of(2) } else { side };
    (even(info.width), even(info.height))
}

/// Caps of the encoder's input: those of the source, with pixel aspect, colorimetry and interlacing, in the
/// coded size.
fn coded_caps(info: &SourceInfo, (width, height): (usize, usize)) -> gst::Caps {
    let mut caps = info.caps.clone();
    if let Some(structure) = caps.make_mut().structure_mut(0) {
        structure.set("width", width as i32);
        structure.set("height", height as i32);
        // Some encoders divide by it. Only the times of the frames matter.
        let (n, d) = info.fps.unwrap_or((30, 1));
        structure.set("framerate", gst::Fraction::new(n, d));
    }
    caps
}

fn unlimited_queue() -> Result<gst::Element, MediaError> {
    // The muxer waits for the slowest track. The queue must hold the packets of the others meanwhile.
    let queue = element("queue")?;
    queue.set_property("max-size-buffers", 0u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

/// One sound track of the file.
struct Sound {
    out: gst_app::AppSrc,
    encoded: bool,
    /// Length of the sound before the first picture that cannot be hidden.
    early_ns: u64,
    /// Delay for the hidden beginning, and its length.
    later_ns: u64,
    hidden_ns: u64,
    /// Distance before the beginning of the file within which packets are written at the beginning.
    clamped_ns: u64,
    /// The earliest time of a packet that is written, if packets are left out.
    from_ns: Option<i64>,
}

impl Sound {
    fn add(
        track: &Track,
        container: Container,
        pipeline: &gst::Pipeline,
        muxer: &gst::Element,
    ) -> Result<Self, MediaError> {
        let out = gst_app::AppSrc::builder().format(gst::Format::Time).max_bytes(0).max_buffers(0).build();
        let mut chain = vec![out.clone().upcast()];
        let start = track.start();
        let format = start.as_ref().and_then(|start| start.caps.structure(0));
        let encoder = match container {
            Container::Mp4 => SoundEncoder::AAC,
            Container::WebM => SoundEncoder::OPUS,
            Container::Matroska => SoundEncoder::NONE,
        };
        let mut delay_ns = 0;
        if track.kind == Kind::Samples {
            let unknown = gst::Structure::new_empty("audio/x-raw");
            let format = format.unwrap_or(&unknown);
            tell_losses(track, encoder, format);
            chain.extend(encoder.chain(format, false)?);
            delay_ns = encoder.delay_ns(format);
        }
        let mut description = track.description();
        // mp4mux would make it the title of the file.
        if let Some(title) = description.title.take_if(|_| container == Container::Mp4) {
            track.note(format!("the title of a sound track is left out ({title}): .mkv keeps it"));
        }
        chain.extend(names(&description, container)?);
        chain.push(unlimited_queue()?);
        if track.kind == Kind::Text {
            make_sparse(&out);
        }
        link_to(pipeline, &chain, muxer, if track.kind == Kind::Text { "subtitle_%u" } else { "audio_%u" })?;
        // MP4 hides any beginning with an edit list.
        let cut_ns = start.as_ref().filter(|_| container != Container::Mp4).map_or(0, Start::cut_ns);
        let first_ns = start.as_ref().map_or(0, |start| start.first_ns.saturating_add(cut_ns as i64));
        let from_ns = start.as_ref().filter(|_| cut_ns > 0).map(|start| first_ns - start.step_ns as i64 / 2);
        let (later_ns, clamped_ns) = match (container, &start) {
            (_, None) => (0, 0),
            (Container::Mp4, Some(start)) => (start.hidden_ns, 0),
            // matroskamux itself delays Opus by its codec delay.
            (_, Some(start)) => (0, start.skip_ns),
        };
        let early_ns = u64::try_from(-first_ns).unwrap_or(0).saturating_sub(later_ns + clamped_ns);
        Ok(Self {
            out,
            encoded: track.kind == Kind::Samples && encoder != SoundEncoder::NONE,
            early_ns,
            later_ns,
            clamped_ns,
            from_ns,
            hidden_ns: later_ns + delay_ns,
        })
    }
}

/// Warns of losses in sound that is encoded again, beyond those of every lossy encoder.
fn tell_losses(track: &Track, encoder: SoundEncoder, format: &gst::StructureRef) {
    if encoder == SoundEncoder::NONE {
        return;
    }
    let codec = encoder.name();
    if let Some(name) = track.lossless() {
        track.note(format!(
            "a sound track in {name} is encoded again as {codec}, which is not lossless: .mkv keeps it unchanged"
        ));
    }
    if !encoder.keeps_channels(format) {
        let channels = format.get::<i32>("channels").unwrap_or_default();
        track.note(format!(
            "a sound track with {channels} channels is mixed down to fewer, because {codec} supports no more here: .mkv keeps them"
        ));
    }
}

/// Tells the muxer not to wait for a stream with few packets.
fn make_sparse(out: &gst_app::AppSrc) {
    let Some(pad) = out.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        let sparse = match info.event().map(|event| event.view()) {
            Some(gst::EventView::StreamStart(start)) => {
                let flags = start.stream_flags() | gst::StreamFlags::SPARSE;
                Some(gst::event::StreamStart::builder(start.stream_id()).flags(flags).build())
            }
            _ => None,
        };
        if let Some(event) = sparse {
            info.data = Some(gst::PadProbeData::Event(event));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Gives the muxer the title, the time and place of recording, and the chapters, delayed by `later_ns`.
fn entitle(muxer: &gst::Element, info: &SourceInfo, later_ns: u64) {
    let setter = muxer.dynamic_cast_ref::<gst::TagSetter>();
    if let (Some(title), Some(setter)) = (&info.about.title, setter) {
        setter.add_tag::<gst::tags::Title>(&title.as_str(), gst::TagMergeMode::Replace);
    }
    // Only the muxer of Matroska has this property, and in MP4 both are written afterwards.
    if muxer.has_property("creation-time") {
        if let Some(time) = info.about.recorded_s.and_then(|s| gst::glib::DateTime::from_unix_utc(s).ok()) {
            muxer.set_property("creation-time", time);
        }
        if let (Some(place), Some(setter)) = (&info.about.location, setter) {
            setter.add_tag::<Place>(&place.as_str(), gst::TagMergeMode::Replace);
        }
    }
    let Some(setter) = muxer.dynamic_cast_ref::<gst::TocSetter>() else { return };
    let mut toc = gst::Toc::new(gst::TocScope::Global);
    let mut edition = gst::TocEntry::new(gst::TocEntryType::Edition, "edition");
    for (number, chapter) in (1..).zip(&info.about.chapters) {
        let mut entry = gst::TocEntry::new(gst::TocEntryType::Chapter, &format!("{number}"));
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::Title>(&chapter.title.as_str(), gst::TagMergeMode::Replace);
        let made = entry.make_mut();
        let time = |ns: u64| ns.saturating_add(later_ns) as i64;
        // A chapter without a stated end ends where the next one begins.
        let next = info.about.chapters.get(number).map(|next| next.start_ns);
        let end_ns = chapter.end_ns.or(next).or(info.duration_ns).unwrap_or(chapter.start_ns);
        made.set_start_stop_times(time(chapter.start_ns), time(end_ns.max(chapter.start_ns)));
        made.set_tags(tags);
        edition.make_mut().append_sub_entry(entry);
    }
    if !info.about.chapters.is_empty() {
        toc.make_mut().append_entry(edition);
        setter.set_toc(Some(&toc));
    }
}

/// Says of the tracks of an input that does not say which of them are played unless others are chosen: the
/// pictures and the first sound.
fn settle_defaults(descriptions: &mut [Description], tracks: &[Arc<Track>]) {
    let is_sound = |track: &Arc<Track>| track.kind != Kind::Text;
    let first_sound = tracks.iter().position(is_sound).map(|place| place + 1);
    for (place, description) in descriptions.iter_mut().enumerate() {
        let played = place == 0 || Some(place) == first_sound;
        description.flags.default.get_or_insert(played);
    }
}

/// The tag under which the muxer of Matroska writes the place of recording, for which it has none.
type Place = gst::tags::License;
/// Its name in the file, and the right one.
const PLACE: (&str, &str) = ("TERMS_OF_USE", "LOCATION");

/// Corrects the title, which matroskamux of GStreamer 1.22 writes escaped, with backslashes before spaces, and the
/// name of the place of recording. The rest of a field is filled with zeros, as Matroska allows.
fn mend_tags(file: &mut File, about: &About) -> io::Result<()> {
    if let Some(title) = &about.title
        && let Ok(written) = title.to_value().serialize()
    {
        replace(file, &written, title)?;
    }
    match about.location {
        Some(_) => replace(file, PLACE.0, PLACE.1),
        None => Ok(()),
    }
}

/// Replaces a text among the tags, at the end of a file, by another one that is not longer.
fn replace(file: &mut File, written: &str, right: &str) -> io::Result<()> {
    /// The largest distance of the tags from the end of the file.
    const TAIL: u64 = 1 << 20;
    let (written, mut right) = (written.as_bytes(), right.as_bytes().to_vec());
    if written == right || written.len() < right.len() {
        return Ok(());
    }
    right.resize(written.len(), 0);
    let begin = file.metadata()?.len().saturating_sub(TAIL);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.read_to_end(&mut tail)?;
    if let Some(at) = tail.windows(written.len()).rposition(|window| window == written) {
        file.seek(SeekFrom::Start(begin + at as u64))?;
        file.write_all(&right)?;
    }
    Ok(())
}

/// The tags with the language and title of a track.
fn names(description: &Description, container: Container) -> Result<Vec<gst::Element>, MediaError> {
    let mut lists = Vec::new();
    if container != Container::Mp4 {
        // Remains where the language is unknown, to the muxer or at all.
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::LanguageCode>(&matroska::PLACEHOLDER, gst::TagMergeMode::Replace);
        lists.push(tags);
    }
    let mut tags = gst::TagList::new();
    let list = tags.make_mut();
    if let Some(language) = &description.language {
        list.add::<gst::tags::LanguageCode>(&language.as_str(), gst::TagMergeMode::Replace);
    }
    if let Some(title) = &description.title {
        list.add::<gst::tags::Title>(&title.as_str(), gst::TagMergeMode::Replace);
    }
    if list.n_tags() > 0 {
        lists.push(tags);
    }
    lists.iter().map(injector).collect()
}

/// An element that adds tags to a stream.
fn injector(tags: &gst::TagList) -> Result<gst::Element, MediaError> {
    let naming = element("taginject")?;
    let text = tags.to_string();
    let text = text.trim_start_matches("taglist").trim_start_matches(',').trim_end_matches(';').trim();
    naming.set_property("tags", text);
    Ok(naming)
}

/// Adds a chain of elements and links its end to a new pad of the muxer.
fn link_to(
    pipeline: &gst::Pipeline,
    chain: &[gst::Element],
    muxer: &gst::Element,
    template: &str,
) -> Result<gst::Pad, MediaError> {
    let failed = || MediaError::MissingElement(format!("a way into the muxer's {template}"));
    pipeline.add_many(chain).map_err(|_| failed())?;
    gst::Element::link_many(chain).map_err(|_| failed())?;
    let out = chain.last().and_then(|last| last.static_pad("src")).ok_or_else(failed)?;
    let pad = muxer.request_pad_simple(template).ok_or_else(failed)?;
    out.link(&pad).map_err(|_| failed())?;
    Ok(pad)
}

/// Counts the frames that leave the source element, to know how many wait in it.
fn count_out(video: &gst_app::AppSrc, shared: &Arc<SinkShared>) {
    let shared = Arc::clone(shared);
    if let Some(pad) = video.static_pad("src") {
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            shared.update(|state| state.waiting = state.waiting.saturating_sub(1));
            gst::PadProbeReturn::Ok
        });
    }
}

/// Notes the first error and the end, in the thread that reports them.
fn watch(pipeline: &gst::Pipeline, shared: &Arc<SinkShared>) -> Result<(), MediaError> {
    let bus = pipeline.bus().ok_or_else(|| MediaError::MissingElement("a message bus".to_owned()))?;
    let shared = Arc::clone(shared);
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(error) => shared.update(|state| {
                state.error.get_or_insert_with(|| error_text(error));
            }),
            gst::MessageView::Eos(_) => shared.update(|state| state.ended = true),
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}
