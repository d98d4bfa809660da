//! Where to look for faces, frame after frame: everywhere now and then, near known faces in
//! between.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;

use super::Engine;
use super::find::{find, is_finite};
use crate::detect::{BBox, DetectError, Face, Scratch};
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
/// How far around the place of a face that is not there all networks look for it, in parts of its
/// sides on each side.
const AROUND: f32 = 1.0;
/// Parts of a frame that are searched by themselves at most, as a share of it: beyond that all of
/// it is no more work.
const MOST_IN_PARTS: f32 = 0.6;

/// How often the whole frame is searched for faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectEvery {
    /// At every cut, when a face is lost and every [`LONGEST`] frames; and from [`SHORTEST`] frames
    /// on, areas of the size of a face and more that changed where nobody is known.
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
    pub(crate) fn chunk_frames(self) -> usize {
        match self {
            Self::Auto => LONGEST as usize,
            Self::Frames(frames) => frames as usize,
        }
    }
}

/// The faces of a frame and how they were looked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// The faces, the most certain first.
    pub faces: Vec<Face>,
    /// Whether the whole frame was searched.
    pub whole: bool,
}

/// Looks for faces in the frames of a video, which come in order: in the whole frame now and then, near known
/// faces in between.
pub(crate) struct DetectionSchedule {
    engine: Engine,
    every: DetectEvery,
    scratch: Scratch,
    /// Faces of the last frame, and how their boxes moved to there.
    known: Vec<(Face, [f32; 4])>,
    /// What was last searched, each part as it was then.
    reference: Option<Thumbnail>,
    /// Frames since one was searched as a whole.
    since: u32,
    /// Frames since parts of one were searched because they had changed.
    renewed: u32,
}

/// Regions that still need a full search, apart from the places where faces are expected.
#[derive(Debug, PartialEq)]
enum Due {
    Everywhere,
    Parts(Vec<BBox>),
}

impl DetectionSchedule {
    /// A search that knows nobody.
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
        self.renewed += 1;
        let expected: Vec<BBox> = self.known.iter().map(|(face, motion)| moved(&face.bbox, motion)).collect();
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
            // Somebody is gone, or went where nobody looked.
            due = Due::Everywhere;
            self.everywhere(picture, thumbnail, &mut faces)?;
        }
        faces.sort_by(|a, b| b.score.total_cmp(&a.score));
        let known = std::mem::take(&mut self.known);
        self.known = faces.iter().map(|face| (*face, motion(face, &known))).collect();
        Ok(Found { faces, whole: due == Due::Everywhere })
    }

    /// Adds to what was found in a picture the faces of the frame after it, where they were not
    /// found here: looked for near and around there and, where that fails, once in the whole
    /// frame. Says which are new.
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

    /// The faces of a whole frame, with which later ones are then compared, and those of `faces`
    /// that are none of them.
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

    /// Adds to `faces` those of a part of a picture.
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

    /// Adds to `faces` those at `places` that are not among them. R-Net and O-Net know some faces
    /// from nearby that the pyramid misses, and the other way round.
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

    /// What of a frame has to be searched whoever is known.
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
        // Not all of a face that came in looks other than what was there.
        let around = |b: &BBox| b.grown(side_px + b.width() / 4.0, side_px + b.height() / 4.0);
        let parts = apart(changed.iter().map(around).collect());
        let frame_px = picture.width() as f32 * picture.height() as f32;
        match parts.iter().map(BBox::area).sum::<f32>() > MOST_IN_PARTS * frame_px {
            true => Due::Everywhere,
            false => Due::Parts(parts),
        }
    }
}

/// Adds those of `found` to `faces` that are faces and are not among them.
fn add(found: Vec<Face>, faces: &mut Vec<Face>) {
    for face in found.into_iter().filter(is_finite) {
        if !is_among(&face.bbox, faces) {
            faces.push(face);
        }
    }
}

/// The places where there is none of `faces`.
fn missed(places: &[BBox], faces: &[Face]) -> Vec<BBox> {
    places.iter().filter(|place| !is_among(place, faces)).copied().collect()
}

/// Boxes that overlap become one around both, until none do.
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

/// Whether a face looked for at `place` is one of `faces`.
pub(crate) fn is_among(place: &BBox, faces: &[Face]) -> bool {
    faces.iter().any(|face| face.bbox.iou(place) >= SAME_IOU)
}

fn moved(b: &BBox, motion: &[f32; 4]) -> BBox {
    let sides = b.sides();
    BBox::of_sides(std::array::from_fn(|side| sides[side] + motion[side]))
}

/// How the sides of a face's box moved since the last frame, averaged with how they moved
/// before.
fn motion(face: &Face, known: &[(Face, [f32; 4])]) -> [f32; 4] {
    let overlap = |(before, _): &&(Face, [f32; 4])| before.bbox.iou(&face.bbox);
    let nearest = known.iter().max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
    match nearest.filter(|known| overlap(known) >= SAME_IOU) {
        Some((before, motion)) => {
            let (was, is) = (before.bbox.sides(), face.bbox.sides());
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
