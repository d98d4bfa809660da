//! Where to look for faces, frame after frame: everywhere now and then, near known faces in
//! between.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;

use super::recognise;
use crate::detect::{BBox, DetectError, Detector, Face, Scratch};
use crate::track::Thumbnail;

/// Frames after which the whole frame is searched again at the latest.
const LONGEST: u32 = 8;
/// Frames for which it is not searched again even if it changes where nobody is known.
const SHORTEST: u32 = 3;
/// Most frames between two searches that can be asked for.
const MOST: u32 = 32;
/// Overlap of a face with where it was a frame before.
const SAME_IOU: f32 = 0.3;
/// The surroundings of a known face, in parts of its sides on each side, whose change brings
/// no new face.
const SURROUNDINGS: f32 = 0.5;

/// How often the whole frame is searched for faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectEvery {
    /// At every cut, when a face is lost, every [`LONGEST`] frames, and from [`SHORTEST`] frames
    /// on as soon as an area of the size of a face changes where nobody is known.
    Auto,
    /// At every cut, when a face is lost, and every so many frames, 1 to 32.
    Frames(u32),
}

/// Text that is no interval.
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
    /// Frames that are searched by one worker, one after the other: the whole frame is searched
    /// at the first of them in any case, so that workers need not know of each other.
    pub fn stretch(self) -> usize {
        match self {
            Self::Auto => LONGEST as usize,
            Self::Frames(frames) => frames as usize,
        }
    }
}

/// The faces of a frame and how they were looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The faces, the most certain first.
    pub faces: Vec<Face>,
    /// Whether the whole frame was searched.
    pub whole: bool,
}

/// Looks for faces in the frames of a video, which come in order.
pub struct Search<'a> {
    detector: &'a Detector,
    every: DetectEvery,
    scratch: Scratch,
    /// Faces of the last frame, and how their boxes moved to there.
    known: Vec<(Face, [f32; 4])>,
    /// The last frame that was searched as a whole.
    reference: Option<Thumbnail>,
    since: u32,
}

impl<'a> Search<'a> {
    /// A search that knows nobody.
    pub fn new(detector: &'a Detector, every: DetectEvery) -> Self {
        Self { detector, every, scratch: Scratch::default(), known: Vec::new(), reference: None, since: 0 }
    }

    /// Forgets what was seen: the next frame begins anew.
    pub fn forget(&mut self) {
        self.known.clear();
        self.reference = None;
    }

    /// Goes on after a frame that was searched as a whole and is the first.
    pub fn resume(&mut self, found: Found, thumbnail: &Thumbnail) -> Found {
        self.known = found.faces.iter().map(|face| (*face, [0.0; 4])).collect();
        self.reference = Some(thumbnail.clone());
        self.since = 0;
        found
    }

    /// The faces of the next frame; `cut` says that it begins a new shot.
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
        let expected: Vec<BBox> = self.known.iter().map(|(face, motion)| moved(&face.bbox, motion)).collect();
        let mut whole = self.is_due(picture, thumbnail, &expected);
        let mut faces = if whole { Vec::new() } else { self.near(picture, &expected)? };
        // Somebody is gone, or went where nobody looked.
        whole |= expected.iter().any(|place| !is_among(place, &faces));
        if whole {
            faces = recognise::find(self.detector, picture, &mut self.scratch)?;
            // A look from nearby finds some faces that the pyramid misses.
            let missed: Vec<BBox> = expected.into_iter().filter(|place| !is_among(place, &faces)).collect();
            for face in self.near(picture, &missed)? {
                if !is_among(&face.bbox, &faces) {
                    faces.push(face);
                }
            }
            faces.sort_by(|a, b| b.score.total_cmp(&a.score));
            self.reference = Some(thumbnail.clone());
            self.since = 0;
        }
        let known = std::mem::take(&mut self.known);
        self.known = faces.iter().map(|face| (*face, motion(face, &known))).collect();
        Ok(Found { faces, whole })
    }

    /// Adds to what was found in a picture the faces of the frame after it, where they were not
    /// found here: looked for near there and, where that fails, once in the whole frame. Says
    /// which are new.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn look_back(
        &mut self,
        picture: &RgbImage,
        here: &mut Found,
        after: &[Face],
    ) -> Result<Vec<Face>, DetectError> {
        let missed = |here: &Found| -> Vec<BBox> {
            after.iter().map(|face| face.bbox).filter(|place| !is_among(place, &here.faces)).collect()
        };
        let places = missed(here);
        let mut new = self.near(picture, &places)?;
        new.retain(|face| places.iter().any(|place| place.iou(&face.bbox) >= SAME_IOU));
        new.retain(|face| !is_among(&face.bbox, &here.faces));
        here.faces.extend(&new);
        if !here.whole && !missed(here).is_empty() {
            let mut others = recognise::find(self.detector, picture, &mut self.scratch)?;
            others.retain(|face| !is_among(&face.bbox, &here.faces));
            here.faces.extend(&others);
            here.whole = true;
            new.extend(others);
        }
        Ok(new)
    }

    fn near(&mut self, picture: &RgbImage, places: &[BBox]) -> Result<Vec<Face>, DetectError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut faces = self.detector.detect_near(picture, places, &mut self.scratch)?;
        faces.retain(recognise::is_finite);
        Ok(faces)
    }

    fn is_due(&self, picture: &RgbImage, thumbnail: &Thumbnail, expected: &[BBox]) -> bool {
        let Some(reference) = &self.reference else { return true };
        match self.every {
            DetectEvery::Frames(frames) => self.since >= frames,
            DetectEvery::Auto if self.since < SHORTEST => false,
            DetectEvery::Auto => {
                let side_px = self.detector.config().min_face.px(picture.height());
                let known: Vec<BBox> = expected.iter().map(surroundings).collect();
                self.since >= LONGEST || thumbnail.changed_from(reference, side_px, &known)
            }
        }
    }
}

/// Whether a face looked for at `place` is one of `faces`.
pub fn is_among(place: &BBox, faces: &[Face]) -> bool {
    faces.iter().any(|face| face.bbox.iou(place) >= SAME_IOU)
}

fn sides(b: &BBox) -> [f32; 4] {
    [b.x1, b.y1, b.x2, b.y2]
}

fn moved(b: &BBox, [x1, y1, x2, y2]: &[f32; 4]) -> BBox {
    BBox { x1: b.x1 + x1, y1: b.y1 + y1, x2: b.x2 + x2, y2: b.y2 + y2 }
}

fn surroundings(b: &BBox) -> BBox {
    let (x, y) = (SURROUNDINGS * b.width(), SURROUNDINGS * b.height());
    BBox { x1: b.x1 - x, y1: b.y1 - y, x2: b.x2 + x, y2: b.y2 + y }
}

/// How the sides of a face's box moved since the last frame, averaged with how they moved
/// before.
fn motion(face: &Face, known: &[(Face, [f32; 4])]) -> [f32; 4] {
    let overlap = |(before, _): &&(Face, [f32; 4])| before.bbox.iou(&face.bbox);
    let nearest = known.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
    match nearest.filter(|known| overlap(known) >= SAME_IOU) {
        Some((before, motion)) => {
            let (was, is) = (sides(&before.bbox), sides(&face.bbox));
            std::array::from_fn(|side| (motion[side] + is[side] - was[side]) / 2.0)
        }
        None => [0.0; 4],
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
}
