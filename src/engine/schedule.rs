//! The schedule of detection: full passes over a frame now and then, and passes near known faces in
//! between.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;

use super::Engine;
use super::find::{find, is_finite};
use crate::detect::{BBox, DetectError, Face, Scratch};
use crate::track::{Motion, Thumbnail};

/// Maximum number of frames between two full detection passes.
const LONGEST: u32 = 8;
/// Frames after a pass during which changed regions without known faces are not searched.
const SHORTEST: u32 = 3;
/// Largest interval between full passes that can be requested, in frames.
const MOST: u32 = 32;
/// Minimum overlap of a face with its place in the previous frame.
const SAME_IOU: f32 = 0.3;
/// Margin around a known face, as a fraction of its sides, within which a change is attributed to that face.
const SURROUNDINGS: f32 = 0.5;
/// Margin around the expected place of a lost face that is searched by the whole cascade, as a fraction of
/// its sides.
const AROUND: f32 = 1.0;
/// Share of a frame up to which changed regions are searched separately; beyond it, a full pass is no more
/// work.
const MOST_IN_PARTS: f32 = 0.6;

/// Interval between full detection passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectEvery {
    /// Full passes at every cut, when a face is lost, and every `LONGEST` frames. From `SHORTEST` frames
    /// after a pass, also changed regions at least as large as a face, away from known faces.
    Auto,
    /// At every cut, when a face is lost, and at this interval of 1 to 32 frames.
    Frames(u32),
}

/// Text that is not an interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an interval: write auto, or a number of frames from 1 (every frame) to {MOST}")]
pub struct BadInterval(String);

impl FromStr for DetectEvery {
    type Err = BadInterval;

    fn from_str(text: &str) -> Result<Self, BadInterval> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let frames = text.parse().ok().filter(|frames| (1..=MOST).contains(frames));
        frames.map(Self::Frames).ok_or_else(|| BadInterval(text.to_owned()))
    }
}

impl fmt::Display for DetectEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Frames(frames) => frames.fmt(f),
        }
    }
}

impl DetectEvery {
    /// Frames that one worker searches in sequence. The first always gets a full pass, so that workers are
    /// independent of each other.
    pub(crate) fn chunk_frames(self) -> usize {
        match self {
            Self::Auto => LONGEST as usize,
            Self::Frames(frames) => frames as usize,
        }
    }
}

/// The faces of a frame and how they were detected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// The faces, highest detector score first.
    pub faces: Vec<Face>,
    /// Whether the frame got a full pass.
    pub whole: bool,
}

/// Looks for faces in the frames of a video, which come in order: in the whole frame now and then, near known
/// faces in between.
pub(crate) struct DetectionSchedule {
    engine: Engine,
    every: DetectEvery,
    scratch: Scratch,
    /// Faces of the previous frame, and the motion of their boxes.
    known: Vec<(Face, Motion)>,
    /// The picture as last searched, each part as it was then.
    reference: Option<Thumbnail>,
    /// Frames since the last full pass.
    since: u32,
    /// Frames since changed regions were last searched.
    renewed: u32,
}

/// Regions that still need a full search, apart from the places where faces are expected.
#[derive(Debug, PartialEq)]
enum Due {
    Everywhere,
    Parts(Vec<BBox>),
}

impl DetectionSchedule {
    /// A schedule without known faces.
    pub fn new(engine: &Engine, every: DetectEvery) -> Self {
        Self {
            engine: engine.clone(),
            every,
            scratch: Scratch::default(),
            known: Vec::new(),
            reference: None,
            since: 0,
            renewed: 0,
        }
    }

    /// Forgets all faces: the next frame gets a full pass.
    pub fn forget(&mut self) {
        self.known.clear();
        self.reference = None;
    }

    /// Starts from a first frame that already got a full pass.
    pub fn resume(&mut self, found: Found, thumbnail: &Thumbnail) -> Found {
        self.known = found.faces.iter().map(|face| (*face, Motion::default())).collect();
        self.reference = Some(thumbnail.clone());
        self.since = 0;
        found
    }

    /// The faces of the next frame; `cut` means that it begins a new shot.
    ///
    /// # Errors
    /// When the detector's device fails.
    pub fn look(
        &mut self,
        picture: &RgbImage,
        thumbnail: &Thumbnail,
        cut: bool,
    ) -> Result<Found, DetectError> {
        if cut {
            self.forget();
        }
        self.since += 1;
        self.renewed += 1;
        let expected: Vec<BBox> =
            self.known.iter().map(|(face, motion)| motion.expected(&face.bbox, 1.0)).collect();
        let mut due = self.due(picture, thumbnail, &expected);
        let mut faces = Vec::new();
        match &due {
            Due::Everywhere => self.everywhere(picture, thumbnail, &mut faces)?,
            Due::Parts(parts) => {
                for part in parts {
                    self.part(picture, part, 0.0, &mut faces)?;
                    self.renewed = 0;
                    self.reference.iter_mut().for_each(|reference| reference.renew(thumbnail, part));
                }
            }
        }
        self.near_or_around(picture, &expected, &mut faces)?;
        if due != Due::Everywhere && !missed(&expected, &faces).is_empty() {
            // A face is lost: it left, or moved to a place that was not searched.
            due = Due::Everywhere;
            self.everywhere(picture, thumbnail, &mut faces)?;
        }
        faces.sort_by(|a, b| b.score.total_cmp(&a.score));
        let known = std::mem::take(&mut self.known);
        self.known = faces.iter().map(|face| (*face, motion(face, &known))).collect();
        Ok(Found { faces, whole: due == Due::Everywhere })
    }

    /// Adds the faces of the next frame to those found in this one: searches near and around their places
    /// and, if that fails, once in the whole frame. Returns the new ones.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn look_back(
        &mut self,
        picture: &RgbImage,
        here: &mut Found,
        after: &[Face],
    ) -> Result<Vec<Face>, DetectError> {
        let places: Vec<BBox> = after.iter().map(|face| face.bbox).collect();
        let mut faces = here.faces.clone();
        self.near_or_around(picture, &places, &mut faces)?;
        if !here.whole && !missed(&places, &faces).is_empty() {
            add(find(self.engine.detector(), picture, &mut self.scratch)?, &mut faces);
            here.whole = true;
        }
        let new = faces.split_off(here.faces.len());
        here.faces.extend(&new);
        Ok(new)
    }

    /// Full pass: its faces, and those of `faces` that are not among them. The picture becomes the reference
    /// for changes.
    fn everywhere(
        &mut self,
        picture: &RgbImage,
        thumbnail: &Thumbnail,
        faces: &mut Vec<Face>,
    ) -> Result<(), DetectError> {
        let others = std::mem::replace(faces, find(self.engine.detector(), picture, &mut self.scratch)?);
        add(others, faces);
        self.reference = Some(thumbnail.clone());
        self.since = 0;
        Ok(())
    }

    /// Adds the faces of a part of the picture to `faces`.
    fn part(
        &mut self,
        picture: &RgbImage,
        part: &BBox,
        smallest_px: f32,
        faces: &mut Vec<Face>,
    ) -> Result<(), DetectError> {
        add(self.engine.detector().detect_in(picture, part, smallest_px, &mut self.scratch)?, faces);
        Ok(())
    }

    /// Adds faces at `places` that are not among `faces`. R-Net and O-Net find some faces near their expected
    /// place that the pyramid misses, and vice versa.
    fn near_or_around(
        &mut self,
        picture: &RgbImage,
        places: &[BBox],
        faces: &mut Vec<Face>,
    ) -> Result<(), DetectError> {
        let near = missed(places, faces);
        if near.is_empty() {
            return Ok(());
        }
        add(self.engine.detector().detect_near(picture, &near, &mut self.scratch)?, faces);
        for place in missed(&near, faces) {
            let (width, height) = (place.width(), place.height());
            let around = place.grown(AROUND * width, AROUND * height);
            self.part(picture, &around, width.min(height) / 2.0, faces)?;
        }
        Ok(())
    }

    /// Regions that need detection regardless of known faces.
    fn due(&self, picture: &RgbImage, thumbnail: &Thumbnail, expected: &[BBox]) -> Due {
        let Some(reference) = &self.reference else { return Due::Everywhere };
        let longest = match self.every {
            DetectEvery::Auto => LONGEST,
            DetectEvery::Frames(frames) => frames,
        };
        if self.since >= longest {
            return Due::Everywhere;
        }
        if self.every != DetectEvery::Auto || self.since.min(self.renewed) < SHORTEST {
            return Due::Parts(Vec::new());
        }
        let side_px = self.engine.detector().config().min_face.px(picture.height());
        let known: Vec<BBox> =
            expected.iter().map(|b| b.grown(SURROUNDINGS * b.width(), SURROUNDINGS * b.height())).collect();
        let changed = thumbnail.changed_since(reference, side_px, &known);
        // A new face need not differ everywhere from what was there before.
        let around = |b: &BBox| b.grown(side_px + b.width() / 4.0, side_px + b.height() / 4.0);
        let parts = apart(changed.iter().map(around).collect());
        let frame_px = picture.width() as f32 * picture.height() as f32;
        match parts.iter().map(BBox::area).sum::<f32>() > MOST_IN_PARTS * frame_px {
            true => Due::Everywhere,
            false => Due::Parts(parts),
        }
    }
}

/// Adds those of `found` to `faces` that are finite and not among them.
fn add(found: Vec<Face>, faces: &mut Vec<Face>) {
    for face in found.into_iter().filter(is_finite) {
        if !is_among(&face.bbox, faces) {
            faces.push(face);
        }
    }
}

/// The places without one of `faces`.
fn missed(places: &[BBox], faces: &[Face]) -> Vec<BBox> {
    places.iter().filter(|place| !is_among(place, faces)).copied().collect()
}

/// Merges overlapping boxes until none overlap.
fn apart(mut boxes: Vec<BBox>) -> Vec<BBox> {
    let mut apart: Vec<BBox> = Vec::new();
    while let Some(mut one) = boxes.pop() {
        if let Some(at) = apart.iter().position(|other| other.iou(&one) > 0.0) {
            let other = apart.swap_remove(at);
            one = one.union(&other);
            boxes.push(one);
        } else {
            apart.push(one);
        }
    }
    apart
}

/// Whether the face expected at `place` is one of `faces`.
pub(crate) fn is_among(place: &BBox, faces: &[Face]) -> bool {
    faces.iter().any(|face| face.bbox.iou(place) >= SAME_IOU)
}

/// The motion of a face, as that of the nearest face of the previous frame goes on.
fn motion(face: &Face, known: &[(Face, Motion)]) -> Motion {
    let overlap = |(before, _): &&(Face, Motion)| before.bbox.iou(&face.bbox);
    let nearest = known.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
    match nearest.filter(|known| overlap(known) >= SAME_IOU) {
        Some((before, motion)) => {
            let mut motion = *motion;
            motion.observe(&before.bbox, &face.bbox, 1.0);
            motion
        }
        None => Motion::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_auto_or_a_number_of_frames() {
        for text in ["auto", "1", "32"] {
            assert_eq!(text.parse::<DetectEvery>().unwrap().to_string(), text);
        }
        for text in ["", "0", "33", "-1", "1.5", "Auto", "ever"] {
            assert!(text.parse::<DetectEvery>().unwrap_err().to_string().contains("1 (every frame) to 32"));
        }
    }

    #[test]
    fn parts_that_overlap_are_one() {
        let bbox = |x1, x2| BBox { x1, y1: 0.0, x2, y2: 10.0 };
        // The last joins the first two, and the third touches none.
        let parts = apart(vec![bbox(0.0, 10.0), bbox(15.0, 30.0), bbox(50.0, 60.0), bbox(8.0, 20.0)]);
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert!(parts.contains(&bbox(0.0, 30.0)) && parts.contains(&bbox(50.0, 60.0)), "{parts:?}");
        assert!(apart(Vec::new()).is_empty());
    }
}
