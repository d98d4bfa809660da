//! Selecting some frames of a file instead of all of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::SourceShared;
use super::origin::HEADROOM_NS;
use crate::media::Frame;

/// A time that is not known yet.
const UNKNOWN: u64 = u64::MAX;

/// The frames of a file that are returned: all of them by default.
///
/// A part of a file begins at the first key frame at or after `from_ns` and ends with the first key frame at
/// or after `until_ns`, which is its last frame and the first one of the next part. Of the frames before,
/// only key frames are decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Selection {
    /// Time in nanoseconds at or after which the part begins; 0 for the first frame.
    pub from_ns: u64,
    /// Time in nanoseconds at or after which the part ends; `None` for the end of the file.
    pub until_ns: Option<u64>,
    /// The most frames per second: the first frame in each interval of 1 / `fps`. `None` for all.
    pub fps: Option<f64>,
    /// Key frames only: others are not decoded. If the container does not [mark](marks_key_frames) them, all
    /// frames.
    pub key_frames: bool,
}

impl Selection {
    /// Whether every frame is returned.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The expected number of frames, if `duration_ns` has `frames`. `None` for key frames, whose number is
    /// unknown.
    pub(super) fn expected(&self, frames: u64, duration_ns: u64) -> Option<u64> {
        if self.key_frames {
            return None;
        }
        let end_ns = self.until_ns.unwrap_or(duration_ns).min(duration_ns);
        let length_ns = end_ns.saturating_sub(self.from_ns) as f64;
        let all = frames as f64 * length_ns / duration_ns.max(1) as f64;
        Some(self.fps.map_or(all, |fps| all.min(fps * length_ns / 1e9)).round() as u64)
    }
}

/// Whether a file is in a container that marks its key frames, so that a part of it can be selected: MP4,
/// QuickTime or Matroska. `false` if it cannot be read.
pub fn marks_key_frames(path: &Path) -> bool {
    let mut head = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && (&head[4..] == b"ftyp" || head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]))
}

/// The key frames at both ends of a part, once they have come.
pub(super) struct Seams {
    selection: Selection,
    first_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Seams {
    /// `None` if every compressed picture is decoded.
    pub(super) fn of(selection: &Selection) -> Option<Self> {
        if selection.from_ns == 0 && selection.until_ns.is_none() && !selection.key_frames {
            return None;
        }
        let first_ns = if selection.from_ns == 0 { 0 } else { UNKNOWN };
        Some(Self {
            selection: *selection,
            first_ns: AtomicU64::new(first_ns),
            end_ns: AtomicU64::new(UNKNOWN),
        })
    }

    /// Whether a compressed frame is passed on to the decoder.
    fn passes(&self, time_ns: u64, is_key: bool) -> bool {
        let first = || self.first_ns.load(Ordering::Acquire);
        if !is_key {
            return first() != UNKNOWN && !self.selection.key_frames;
        }
        if first() == UNKNOWN && time_ns >= self.selection.from_ns {
            self.first_ns.store(time_ns, Ordering::Release);
        }
        let ends = self.selection.until_ns.is_some_and(|until_ns| time_ns >= until_ns);
        if ends && self.end_ns.load(Ordering::Acquire) == UNKNOWN {
            self.end_ns.store(time_ns, Ordering::Release);
        }
        true
    }
}

/// Drops compressed pictures that a part does not need, and records its begin and end.
pub(super) fn watch(pad: &gst::Pad, shared: &Arc<SourceShared>) {
    if shared.seams.is_none() {
        return;
    }
    let shared = Arc::clone(shared);
    // Not the segment of the pad, which lacks the offset of all times.
    let segment: Mutex<Option<gst::FormattedSegment<gst::ClockTime>>> = Mutex::new(None);
    let kinds = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(kinds, move |_, info| {
        let mut segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gst::EventView::Segment(event)) = info.event().map(|event| event.view()) {
            *segment = event.segment().clone().downcast().ok();
        }
        let (Some(seams), Some(buffer)) = (&shared.seams, info.buffer()) else {
            return gst::PadProbeReturn::Ok;
        };
        shared.touch();
        let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let time_ns = segment.as_ref().and_then(|segment| time_ns(segment, buffer));
        match time_ns.is_none_or(|time_ns| seams.passes(time_ns, is_key)) {
            true => gst::PadProbeReturn::Ok,
            false => gst::PadProbeReturn::Drop,
        }
    });
}

/// The time that the frame of a compressed picture will have.
fn time_ns(segment: &gst::FormattedSegment<gst::ClockTime>, buffer: &gst::BufferRef) -> Option<u64> {
    let running_ns = segment.to_running_time(buffer.pts()?)?.nseconds();
    Some(running_ns.saturating_sub(HEADROOM_NS.unsigned_abs()))
}

/// Chooses among decoded frames.
#[derive(Debug, Default)]
pub(super) struct Chooser {
    fps: Option<f64>,
    /// The interval of the last frame that was chosen.
    tick: Option<u64>,
    chosen: u64,
    /// Whether the last frame of the part was chosen.
    pub(super) done: bool,
}

impl Chooser {
    pub(super) fn new(selection: &Selection) -> Self {
        Self { fps: selection.fps, ..Self::default() }
    }

    /// The frame, numbered among those that are chosen; `None` if it is not.
    pub(super) fn choose(&mut self, mut frame: Frame, seams: Option<&Seams>) -> Option<Frame> {
        let mut begins = false;
        if let Some(seams) = seams {
            let first_ns = seams.first_ns.load(Ordering::Acquire);
            if first_ns == UNKNOWN || frame.pts_ns < first_ns {
                return None;
            }
            begins = self.chosen == 0;
            self.done = frame.pts_ns >= seams.end_ns.load(Ordering::Acquire);
        }
        if let Some(fps) = self.fps {
            // Times are whole nanoseconds: a frame at the beginning of an interval may be a little early.
            let tick = ((frame.pts_ns + 1) as f64 * fps / 1e9) as u64;
            if self.tick.replace(tick) == Some(tick) && !begins && !self.done {
                return None;
            }
        }
        frame.index = self.chosen;
        self.chosen += 1;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Picture;

    fn frame(pts_ns: u64) -> Frame {
        let picture = Picture::from_rgb(&image::RgbImage::new(2, 2));
        Frame { index: 99, pts_ns, duration_ns: 1, picture: Arc::new(picture) }
    }

    fn chosen(selection: Selection, seams: Option<&Seams>, times: &[u64]) -> Vec<(u64, u64)> {
        let mut chooser = Chooser::new(&selection);
        let mut taken = Vec::new();
        for &pts_ns in times {
            if chooser.done {
                break;
            }
            taken.extend(chooser.choose(frame(pts_ns), seams).map(|frame| (frame.index, frame.pts_ns)));
        }
        taken
    }

    #[test]
    fn five_frames_per_second_of_thirty_are_the_first_of_each_interval() {
        let selection = Selection { fps: Some(5.0), ..Selection::default() };
        let times: Vec<u64> = (0..30).map(|frame| frame * 1_000_000_000 / 30).collect();
        let expected: Vec<(u64, u64)> = (0..5).map(|at| (at, times[at as usize * 6])).collect();
        assert_eq!(chosen(selection, None, &times), expected);
    }

    #[test]
    fn more_than_there_are_is_all_of_them() {
        let selection = Selection { fps: Some(100.0), ..Selection::default() };
        assert_eq!(chosen(selection, None, &[0, 40_000_000, 80_000_000]).len(), 3);
    }

    #[test]
    fn a_stretch_lies_between_key_frames_and_takes_both() {
        let selection = Selection { from_ns: 10, until_ns: Some(20), ..Selection::default() };
        let seams = Seams::of(&selection).unwrap();
        // Compressed pictures as they are stored: each leading picture (13) after the key frame that it
        // precedes.
        let stored =
            [(0, true), (4, false), (9, true), (14, true), (13, false), (18, false), (24, true), (22, false)];
        let passed: Vec<u64> =
            stored.iter().filter(|(time, key)| seams.passes(*time, *key)).map(|(time, _)| *time).collect();
        assert_eq!(passed, [0, 9, 14, 13, 18, 24, 22]);
        assert_eq!(
            chosen(selection, Some(&seams), &[0, 9, 13, 14, 18, 22, 24, 28]),
            [(0, 14), (1, 18), (2, 22), (3, 24)]
        );
        // Its first and last frames are always chosen.
        let slow = Selection { fps: Some(1.0), ..selection };
        assert_eq!(chosen(slow, Some(&seams), &[0, 9, 13, 14, 18, 22, 24, 28]), [(0, 14), (1, 24)]);
    }

    #[test]
    fn only_key_frames_pass_and_of_these_those_that_the_rate_chooses() {
        let selection = Selection { key_frames: true, fps: Some(1e8), ..Selection::default() };
        let seams = Seams::of(&selection).unwrap();
        let stored = [(0, true), (4, false), (5, true), (14, true), (13, false), (24, true)];
        let passed: Vec<u64> =
            stored.iter().filter(|(time, key)| seams.passes(*time, *key)).map(|(time, _)| *time).collect();
        assert_eq!(passed, [0, 5, 14, 24]);
        // One per 10 ns.
        assert_eq!(chosen(selection, Some(&seams), &passed), [(0, 0), (1, 14), (2, 24)]);
    }

    #[test]
    fn a_stretch_without_key_frames_is_empty() {
        let selection = Selection { from_ns: 30, ..Selection::default() };
        let seams = Seams::of(&selection).unwrap();
        assert!(seams.passes(0, true) && !seams.passes(31, false));
        assert_eq!(chosen(selection, Some(&seams), &[0, 31]), []);
        assert!(Seams::of(&Selection::default()).is_none());
    }

    #[test]
    fn frames_are_expected_by_length_and_rate() {
        let expected = |from_ns, until_ns, fps| {
            Selection { from_ns, until_ns, fps, key_frames: false }.expected(300, 10_000_000_000)
        };
        assert_eq!(expected(0, None, None), Some(300));
        assert_eq!(expected(0, None, Some(5.0)), Some(50));
        assert_eq!(expected(4_000_000_000, Some(6_000_000_000), None), Some(60));
        assert_eq!(expected(8_000_000_000, Some(60_000_000_000), Some(60.0)), Some(60));
        let keys = Selection { key_frames: true, ..Selection::default() };
        assert_eq!(keys.expected(300, 10_000_000_000), None);
    }
}
