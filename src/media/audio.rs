//! Sound on its way from a source to a sink: compressed where the container takes it, and never
//! in the way of the pictures.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::Container;

/// Compressed sound that some container takes as it is.
pub(super) struct Copyable {
    /// Caps at which decoding stops.
    pub(super) caps: &'static str,
    /// Element that frames it and completes its caps.
    pub(super) parser: &'static str,
    /// Caps the muxers want of it.
    pub(super) framed: &'static str,
    containers: &'static [Container],
}

const COPYABLE: [Copyable; 8] = [
    Copyable {
        caps: "audio/mpeg,mpegversion=(int)4,stream-format=(string){raw,adts}",
        parser: "aacparse",
        framed: "audio/mpeg,mpegversion=(int)4,stream-format=(string)raw,framed=(boolean)true",
        containers: &[Container::Mp4, Container::Matroska],
    },
    Copyable {
        caps: "audio/mpeg,mpegversion=(int)1,layer=(int)3",
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
        caps: "audio/x-dts",
        parser: "dcaparse",
        framed: "audio/x-dts,framed=(boolean)true",
        containers: &[Container::Matroska],
    },
];

impl Copyable {
    /// What `container` takes without re-encoding.
    pub(super) fn of(container: Container) -> impl Iterator<Item = &'static Copyable> {
        COPYABLE.iter().filter(move |kind| kind.containers.contains(&container))
    }
}

/// The sound of a source, to be handed to [`Sink::create`](super::Sink::create). Dropped
/// instead, the sound is thrown away.
pub struct Audio {
    pub(super) tracks: Vec<Arc<Track>>,
}

impl Audio {
    /// No sound.
    pub fn none() -> Self {
        Self { tracks: Vec::new() }
    }

    /// Number of tracks.
    pub fn tracks(&self) -> usize {
        self.tracks.len()
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
    /// Everything was delivered.
    Whole,
    /// The source was stopped: what lies past the last picture is to be cut off.
    Stopped,
}

/// One sound track. The source pushes, the sink opens the gate as far as pictures were written;
/// neither ever waits for the other.
pub(super) struct Track {
    /// Name of the stream it comes from.
    pub(super) stream: String,
    /// Compressed sound goes through as it is; raw samples may have to be encoded.
    pub(super) compressed: bool,
    /// Added to the running times of this track alone. Where it is negative, compressed sound
    /// before time 0 is priming, which the container has to hide.
    shift_ns: i64,
    state: Mutex<TrackState>,
}

struct TrackState {
    /// Added to the running time of what is pushed; `None` until the first picture of a live
    /// connection tells where zero is.
    offset_ns: Option<i64>,
    held: VecDeque<Held>,
    last_end_ns: u64,
    gate_ns: u64,
    out: Option<gst_app::AppSrc>,
    /// Whether priming is wanted, then how much of it there is.
    keeps_priming: bool,
    lead_ns: Option<u64>,
    /// When the last packet was passed on, and how much later than the one before.
    last_written_ns: Option<u64>,
    step_ns: Option<u64>,
    end: End,
    discarded: bool,
}

struct Held {
    /// Running time, `None` for stream headers.
    running_ns: Option<u64>,
    sample: gst::Sample,
}

impl Track {
    pub(super) fn new(stream: &str, compressed: bool, offset_ns: Option<i64>, shift_ns: i64) -> Arc<Self> {
        let state = TrackState {
            offset_ns: offset_ns.map(|offset_ns| offset_ns + shift_ns),
            held: VecDeque::new(),
            last_end_ns: 0,
            gate_ns: 0,
            out: None,
            keeps_priming: false,
            lead_ns: None,
            last_written_ns: None,
            step_ns: None,
            end: End::Open,
            discarded: false,
        };
        Arc::new(Self { stream: stream.to_owned(), compressed, shift_ns, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, TrackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the source: one packet (or block of samples).
    pub(super) fn push(&self, sample: gst::Sample) {
        let mut state = self.state();
        if state.discarded || state.end != End::Open {
            return;
        }
        let running_ns = sample.buffer().and_then(gst::BufferRef::pts).and_then(|pts| {
            let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
            Some(segment.to_running_time(pts)?.nseconds())
        });
        state.held.push_back(Held { running_ns, sample });
        state.flush();
    }

    /// From the source: the connection was lost; times start anew.
    pub(super) fn forget_time(&self) {
        let mut state = self.state();
        state.offset_ns = None;
        state.held.clear();
    }

    /// From the source: what to add to running times.
    pub(super) fn set_offset(&self, offset_ns: i64) {
        let mut state = self.state();
        state.offset_ns = Some(offset_ns + self.shift_ns);
        state.flush();
    }

    /// From the source: nothing follows.
    pub(super) fn end(&self, stopped: bool) {
        let mut state = self.state();
        if state.end == End::Open {
            state.end = if stopped { End::Stopped } else { End::Whole };
        }
    }

    /// End of the last packet that was passed on, in nanoseconds.
    pub(super) fn last_end_ns(&self) -> u64 {
        let state = self.state();
        let offset_ns = state.offset_ns.unwrap_or(0);
        let held = state.held.iter().filter_map(|held| held.end_ns(offset_ns)).max();
        held.unwrap_or(0).max(state.last_end_ns)
    }

    /// From the sink: where packets go. Priming is passed on if `keeps_priming`, and then the
    /// whole track comes later by its length, [`Track::lead_ns`].
    pub(super) fn connect(&self, out: gst_app::AppSrc, keeps_priming: bool) {
        let mut state = self.state();
        state.out = Some(out);
        state.keeps_priming = keeps_priming && self.compressed && self.shift_ns < 0;
        state.flush();
    }

    /// From the sink: pictures up to this time are on their way.
    pub(super) fn open_gate(&self, until_ns: u64) {
        let mut state = self.state();
        state.gate_ns = state.gate_ns.max(until_ns);
        state.flush();
    }

    /// From the sink: the last picture ends here; passes on what belongs to it, then the end.
    pub(super) fn finish(&self, video_end_ns: u64) {
        let mut state = self.state();
        state.gate_ns = if state.end == End::Whole { u64::MAX } else { video_end_ns };
        state.flush();
        state.discarded = true;
        state.held.clear();
        if let Some(out) = state.out.take() {
            // Fails only when the pipeline has already failed, which is reported as such.
            let _ = out.end_of_stream();
        }
    }

    /// How much priming was passed on, in nanoseconds.
    pub(super) fn lead_ns(&self) -> u64 {
        self.state().lead_ns.unwrap_or(0)
    }

    /// Throws away what is here and what comes.
    pub(super) fn discard(&self) {
        let mut state = self.state();
        state.discarded = true;
        state.held.clear();
    }
}

impl Held {
    fn pts_ns(&self, offset_ns: i64) -> Option<i64> {
        Some(i64::try_from(self.running_ns?).ok()?.saturating_add(offset_ns))
    }

    fn end_ns(&self, offset_ns: i64) -> Option<u64> {
        let duration = self.sample.buffer()?.duration().map_or(0, |d| d.nseconds());
        Some(u64::try_from(self.pts_ns(offset_ns)?).unwrap_or(0) + duration)
    }
}

impl TrackState {
    /// Passes on what the gate allows.
    fn flush(&mut self) {
        let (Some(offset_ns), Some(out)) = (self.offset_ns, self.out.clone()) else { return };
        while let Some(held) = self.held.front() {
            let pts_ns = held.pts_ns(offset_ns);
            if pts_ns.is_some_and(|pts| pts >= 0 && pts as u64 > self.gate_ns) {
                return;
            }
            let Some(held) = self.held.pop_front() else { return };
            let (Some(buffer), Some(caps)) = (held.sample.buffer_owned(), held.sample.caps_owned()) else {
                continue;
            };
            let mut buffer = buffer;
            let mut written_ns = None;
            if let Some(pts_ns) = pts_ns {
                let early_ns = u64::try_from(-pts_ns).unwrap_or(0);
                let lead_ns = match self.lead_ns {
                    Some(lead_ns) => lead_ns,
                    None if early_ns > 0 && !self.keeps_priming => 0,
                    None => *self.lead_ns.insert(early_ns),
                };
                written_ns = u64::try_from(pts_ns.saturating_add_unsigned(lead_ns)).ok();
                if written_ns.is_none() {
                    // Sound from before the first picture, of which a block of samples may have
                    // to be cut in two.
                    match without_start(&buffer, &caps, early_ns) {
                        Some(rest) => buffer = rest,
                        None => continue,
                    }
                    written_ns = Some(0);
                }
            }
            self.last_end_ns = held.end_ns(offset_ns).unwrap_or(self.last_end_ns);
            let fields = buffer.make_mut();
            fields.set_pts(written_ns.map(gst::ClockTime::from_nseconds));
            if let (Some(written_ns), Some(last_ns)) = (written_ns, self.last_written_ns) {
                self.step_ns = written_ns.checked_sub(last_ns).filter(|&ns| ns > 0).or(self.step_ns);
            }
            self.last_written_ns = written_ns.or(self.last_written_ns);
            // matroskademux gives none, and mp4mux hides a last packet of no length.
            if fields.duration().is_none() {
                fields.set_duration(self.step_ns.map(gst::ClockTime::from_nseconds));
            }
            fields.set_dts(gst::ClockTime::NONE);
            let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
            // A refused packet means that the sink has failed, which its next write reports.
            let _ = out.push_sample(&sample);
        }
    }
}

/// What is left of a block of samples without its first `early_ns`; `None` for nothing, and for
/// what cannot be cut.
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
