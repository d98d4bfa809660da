//! The steps from decoded frames to faces that are followed, embedded and tracked, as plain functions.
//!
//! Frames are processed in chunks. The first frame of a chunk gets a full detection pass. The others are
//! mostly searched near known faces: those of the first frame, and those of the first frame of the next
//! chunk, which are followed back. So the result does not depend on which worker processes which chunk. A
//! live source has chunks of one frame and a single worker that remembers the previous one.

use std::sync::Arc;

use image::RgbImage;

use super::Work;
use super::face::{DetectedFace, TrackedFace};
use super::find::cut;
use super::schedule::{DetectEvery, DetectionSchedule, Found, is_among};
use crate::align;
use crate::detect::{DetectError, Face, Quality};
use crate::media::{Frame, Picture};
use crate::track::{FollowedFace, Follower, Luma, Moment, Thumbnail, TrackId, Tracker};

/// Maximum number of pixels per chunk, unless that is less than [`LEAST_CHUNK`] frames: all are in memory.
pub(crate) const CHUNK_PIXELS: usize = 8 * 1920 * 1080;
/// Minimum number of frames per chunk, unless fewer are requested.
const LEAST_CHUNK: usize = 4;

/// A frame with its faces after detection, following and embedding.
pub(crate) struct ObservedFrame {
    /// Its index and time, and whether it begins a new shot.
    pub moment: Moment,
    /// Its duration in nanoseconds.
    pub duration_ns: u64,
    /// Its pixels, if requested.
    pub picture: Option<Arc<Picture>>,
    /// The work done on it.
    pub work: Work,
    /// Its faces, highest detector score first.
    pub faces: Vec<TrackedFace>,
}

impl ObservedFrame {
    /// The tracks of its faces.
    pub fn track(&self, tracker: &mut Tracker) -> Vec<TrackId> {
        let faces: Vec<FollowedFace<'_>> = self.faces.iter().map(TrackedFace::seen).collect();
        tracker.track(&self.moment, &faces)
    }

    /// Crops the faces to be embedded that are not cropped yet. Only the rows that show them are converted to RGB.
    pub fn cut(&mut self) {
        let Some(picture) = &self.picture else { return };
        let wanted = |one: &TrackedFace| one.step.embed && one.crop.is_none();
        let rows = self.faces.iter().filter(|one| wanted(one));
        let rows = rows.filter_map(|one| align::rows(&one.face.landmarks, picture.height()));
        let Some(rows) = rows.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { return };
        let picture = picture.to_rgb_rows(rows);
        for one in self.faces.iter_mut().filter(|one| wanted(one)) {
            one.crop = align::align(&picture, &one.face.landmarks);
        }
    }
}

/// A decoded frame, and whether it begins a new shot.
pub(crate) struct DecodedFrame {
    pub frame: Frame,
    pub thumbnail: Thumbnail,
    pub cut: bool,
}

impl DecodedFrame {
    /// The frame after the one of the thumbnail `before`.
    pub fn after(before: &mut Option<Thumbnail>, frame: Frame) -> Self {
        let [luma, ..] = frame.picture.planes();
        let thumbnail = Thumbnail::new(luma, frame.picture.width(), frame.picture.height());
        let cut = before.as_ref().is_some_and(|before| thumbnail.cuts_from(before));
        *before = Some(thumbnail.clone());
        Self { frame, thumbnail, cut }
    }
}

/// Consecutive frames, with the faces that are known before they are searched.
#[derive(Default)]
pub(crate) struct Chunk {
    pub frames: Vec<DecodedFrame>,
    /// The pixels of the first frame and its faces, if it was searched.
    pub first: Option<(RgbImage, Found)>,
    /// The faces of the frame after the last, unless a new shot begins there.
    pub next: Vec<Face>,
}

impl Chunk {
    /// A chunk whose first frame is searched as a whole.
    pub fn begin(frames: Vec<DecodedFrame>, schedule: &mut DetectionSchedule) -> Result<Self, DetectError> {
        schedule.forget();
        let look = |first: &DecodedFrame| -> Result<_, DetectError> {
            let picture = first.frame.picture.to_rgb();
            let found = schedule.look(&picture, &first.thumbnail, first.cut)?;
            Ok((picture, found))
        };
        let first = frames.first().map(look).transpose()?;
        Ok(Self { frames, first, next: Vec::new() })
    }

    /// Gives the chunk the faces at the beginning of the `next` one.
    pub fn precedes(&mut self, next: &Chunk) {
        if let (Some(frame), Some((_, found))) = (next.frames.first(), &next.first)
            && !frame.cut
        {
            self.next.clone_from(&found.faces);
        }
    }
}

/// A searched frame.
pub(crate) struct SearchedFrame {
    frame: DecodedFrame,
    found: Found,
    faces: Vec<DetectedFace>,
}

/// Number of frames per chunk for a video of that size; `None` searches every frame independently.
pub(crate) fn chunk_frames(every: Option<DetectEvery>, live: bool, (width, height): (usize, usize)) -> usize {
    let Some(every) = every.filter(|_| !live) else { return 1 };
    let room = (CHUNK_PIXELS / (width * height).max(1)).max(LEAST_CHUNK);
    every.chunk_frames().min(room)
}

/// The faces of every frame of a chunk, cropped if `crops` are requested. A face that a full pass finds is
/// followed `back` to where it appeared.
pub(crate) fn search(
    schedule: &mut DetectionSchedule,
    chunk: Chunk,
    back: bool,
    crops: bool,
) -> Result<Vec<SearchedFrame>, DetectError> {
    let Chunk { frames, mut first, next } = chunk;
    let mut searched: Vec<SearchedFrame> = Vec::with_capacity(frames.len());
    for frame in frames {
        let (picture, found) = match first.take() {
            Some((picture, found)) => (picture, schedule.resume(found, &frame.thumbnail)),
            None => {
                let picture = frame.frame.picture.to_rgb();
                let found = schedule.look(&picture, &frame.thumbnail, frame.cut)?;
                (picture, found)
            }
        };
        let faces = cut(&picture, found.faces.clone(), crops);
        searched.push(SearchedFrame { frame, found, faces });
    }
    if back {
        search_back(schedule, &mut searched, &next, crops)?;
    }
    Ok(searched)
}

/// Follows faces back to where they appeared, from the last frame to the first.
fn search_back(
    schedule: &mut DetectionSchedule,
    searched: &mut [SearchedFrame],
    next: &[Face],
    crops: bool,
) -> Result<(), DetectError> {
    for at in (1..=searched.len()).rev() {
        let (earlier, later) = searched.split_at_mut(at);
        let Some(here) = earlier.last_mut() else { continue };
        let after = match later.first() {
            Some(after) if after.frame.cut => continue,
            Some(after) => &after.found.faces,
            None => next,
        };
        if after.iter().all(|face| is_among(&face.bbox, &here.found.faces)) {
            continue;
        }
        let picture = here.frame.frame.picture.to_rgb();
        let new = schedule.look_back(&picture, &mut here.found, after)?;
        here.faces.extend(cut(&picture, new, crops));
        here.faces.sort_by(|a, b| b.face.score.total_cmp(&a.face.score));
    }
    Ok(())
}

/// Follows the faces of a frame and drops what is no longer needed.
pub(crate) fn follow(follower: &mut Follower, searched: SearchedFrame, pictures: bool) -> ObservedFrame {
    let SearchedFrame { frame: DecodedFrame { frame, cut, .. }, found, faces } = searched;
    let moment = Moment { frame: frame.index, pts_ns: frame.pts_ns, cut };
    let places: Vec<(Face, Quality)> = faces.iter().map(|one| (one.face, one.quality)).collect();
    let [bytes, ..] = frame.picture.planes();
    let luma = Luma { bytes, width: frame.picture.width(), height: frame.picture.height() };
    let steps = follower.follow(&moment, luma, &places);
    let faces: Vec<TrackedFace> = faces
        .into_iter()
        .zip(steps)
        .map(|(DetectedFace { face, quality, crop }, step)| TrackedFace {
            face,
            quality,
            step,
            embedding: None,
            crop: crop.filter(|_| step.embed),
        })
        .collect();
    let embedded = faces.iter().filter(|face| face.step.embed).count() as u64;
    ObservedFrame {
        moment,
        duration_ns: frame.duration_ns,
        picture: (pictures || embedded > 0).then_some(frame.picture),
        work: Work { frames: 1, searched: u64::from(found.whole), faces: faces.len() as u64, embedded },
        faces,
    }
}
