//! Following faces by position from frame to frame, and choosing the views to embed.

use super::{FacePatch, GOOD_WEIGHT, Luma, Moment, Motion, weight};
use crate::detect::{BBox, Face, Quality};

/// Longest gap in nanoseconds over which a face is followed by position alone.
const POSITION_GAP_NS: u64 = 250_000_000;
/// Minimum intersection over union (IoU) of a face and its expected position.
const LEAST_IOU: f32 = 0.3;
/// IoU below which the face is embedded (as after a gap), so that a jump to another person is noticed.
const SURE_IOU: f32 = 0.5;
/// Change between consecutive faces of a chain (1 - correlation of their [patches](FacePatch)) up to which
/// they are the same without doubt.
const LEAST_CHANGE: f32 = 0.1;
/// Ratio of a change to the recent changes of the chain above which the face may be another person in the
/// same place. Of 23 people who followed one another, each differed by at least 0.12 and most by 0.4 or more,
/// while a continuing face differs by 0.01 to 0.1, and by 0.3 in a fast turn.
const SUDDEN: f32 = 2.5;
/// Limit of a single change in the recent mean. So a change above [`SUDDEN`] times this is always in doubt.
const MOST_CHANGE: f32 = 0.15;
/// Change against the last embedded view up to which a face is not embedded again for it. In a dissolve from one person
/// to another, whose frames differ by 0.02 to 0.04 from one to the next, two still faces differed by 0.23 in the end.
const LEAST_DRIFT: f32 = 0.12;
/// Views embedded after one of a still face that drifted: a single one may show both people of a dissolve.
const AFTER_DRIFT: u32 = 3;
/// Usual change from one embedded view to the next below which a face is still. Faces that move are embedded again soon.
const STILL_DRIFT: f32 = 0.05;
/// Maximum number of views embedded after such a change until a good one identifies the face.
const DOUBTED: u32 = 8;
/// Weight of the newest change in the running mean.
const NEWEST: f32 = 0.5;
/// Maximum number of frames over which motion is extrapolated.
const EXTRAPOLATED: f32 = 3.0;

/// Frames between the first views embedded. A new track is embedded often, since its first frames may show
/// little (a fade, a face that turns in). The interval then grows to half the frames that the earlier views
/// span.
const FIRST_STEP: u64 = 2;
/// Ratio of quality to the best embedded view above which a view is better.
const BETTER: f32 = 1.2;
/// Pose difference in degrees to every embedded view above which a view is different.
const DIFFERENT_DEG: f32 = 12.0;
/// Ratio of quality to the best embedded view above which a different view is embedded.
const WORTH: f32 = 0.25;
/// Interval in nanoseconds at which even a settled track is embedded.
const REFRESH_NS: u64 = 500_000_000;

/// The faces to embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// None, because nobody is to be identified.
    None,
    /// The first of a track, then those that are better or different, and one at regular intervals.
    Telling,
    /// All.
    All,
}

/// The result for a face of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The chain of faces it continues, from 0 in the order of appearance.
    pub chain: u32,
    /// Whether to embed it.
    pub embed: bool,
    /// Whether its position leaves doubt that it is the same person.
    pub doubtful: bool,
    /// Its change against the chain before it.
    pub change: Change,
}

/// Change of a face against the previous one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Similar.
    None,
    /// Suddenly different, like another person, or the same person in a fast turn.
    Sudden,
    /// Suddenly entirely different; or a later face, as long as no good view of the chain was seen since.
    Whole,
}

/// Follows faces. Frames come in order; the result depends on nothing else.
#[derive(Debug)]
pub struct Follower {
    views: Views,
    chains: Vec<Chain>,
    next: u32,
}

#[derive(Debug)]
struct Chain {
    id: u32,
    bbox: BBox,
    frame: u64,
    pts_ns: u64,
    motion: Motion,
    /// Its patch when it was last seen.
    patch: FacePatch,
    /// Its patch when it was last embedded.
    embedded_patch: Option<FacePatch>,
    /// Running mean of its change from one embedded view to the next, without the views after one that drifted.
    usual_drift: f32,
    /// Remaining views to embed because one drifted.
    after_drift: u32,
    /// Running mean of its change from frame to frame.
    change: f32,
    /// Remaining views to embed in search of a good one after a sudden change.
    doubt: u32,
    /// Yaw and pitch of the views embedded.
    embedded: Vec<[f32; 2]>,
    best_weight: f32,
    /// The first and the last frame embedded.
    embedded_frames: (u64, u64),
    embedded_ns: u64,
}

impl Chain {
    fn new(id: u32, moment: &Moment, face: &Face, luma: Luma<'_>) -> Self {
        Self {
            id,
            bbox: face.bbox,
            frame: moment.frame,
            pts_ns: moment.pts_ns,
            motion: Motion::default(),
            patch: FacePatch::new(luma, &face.bbox),
            embedded_patch: None,
            usual_drift: 0.0,
            after_drift: 0,
            change: 0.0,
            doubt: 0,
            embedded: Vec::new(),
            best_weight: 0.0,
            embedded_frames: (0, 0),
            embedded_ns: 0,
        }
    }

    /// Its expected place in that frame.
    fn expected(&self, frame: u64) -> BBox {
        let frames = (frame.saturating_sub(self.frame) as f32).min(EXTRAPOLATED);
        self.motion.expected(&self.bbox, frames)
    }

    /// Adds the face to the chain; returns whether it changed suddenly.
    fn see(&mut self, moment: &Moment, face: &Face, luma: Luma<'_>) -> bool {
        let frames = moment.frame.saturating_sub(self.frame).max(1) as f32;
        self.motion.observe(&self.bbox, &face.bbox, frames);
        // A head that turns leaves its place alike, one that moves its box.
        let patch = FacePatch::new(luma, &face.bbox);
        let there = FacePatch::new(luma, &self.bbox);
        let alike = self.patch.correlation(&patch).max(self.patch.correlation(&there));
        let change = 1.0 - alike;
        let sudden = change > LEAST_CHANGE.max(SUDDEN * self.change);
        self.change = (1.0 - NEWEST) * self.change + NEWEST * change.min(MOST_CHANGE);
        self.patch = patch;
        if change > SUDDEN * MOST_CHANGE {
            // The earlier embedding is no longer representative of this face.
            self.embedded.clear();
            self.best_weight = 0.0;
            self.doubt = DOUBTED;
        }
        (self.bbox, self.frame, self.pts_ns) = (face.bbox, moment.frame, moment.pts_ns);
        sudden
    }

    /// Whether this view adds information to those embedded.
    fn is_telling(&self, moment: &Moment, quality: &Quality) -> bool {
        let weight = weight(quality);
        let turned = |[yaw, pitch]: &[f32; 2]| {
            (quality.yaw_deg - yaw).hypot(quality.pitch_deg - pitch) > DIFFERENT_DEG
        };
        let (first, last) = self.embedded_frames;
        let due = moment.frame.saturating_sub(last) >= FIRST_STEP.max((last - first) / 2);
        let worth = weight >= WORTH * self.best_weight;
        self.embedded.is_empty()
            || weight > BETTER * self.best_weight
            || worth && (due || self.drifted() || self.after_drift > 0 || self.embedded.iter().all(turned))
            || worth && moment.pts_ns.saturating_sub(self.embedded_ns) >= REFRESH_NS
    }

    /// Whether it changed more since it was last embedded than it usually does.
    fn drifted(&self) -> bool {
        self.drift() > LEAST_DRIFT.max(SUDDEN * self.usual_drift)
    }

    /// Its change since it was last embedded.
    fn drift(&self) -> f32 {
        self.embedded_patch.as_ref().map_or(0.0, |then| 1.0 - then.correlation(&self.patch))
    }

    fn embed(&mut self, moment: &Moment, quality: &Quality) {
        if self.embedded.is_empty() {
            self.embedded_frames.0 = moment.frame;
        }
        self.doubt = if weight(quality) >= GOOD_WEIGHT { 0 } else { self.doubt.saturating_sub(1) };
        self.embedded.push([quality.yaw_deg, quality.pitch_deg]);
        let drifted = self.drifted();
        let stirred = drifted && self.usual_drift < STILL_DRIFT;
        if drifted || self.after_drift == 0 {
            self.usual_drift = (1.0 - NEWEST) * self.usual_drift + NEWEST * self.drift();
        }
        self.after_drift = if stirred { AFTER_DRIFT } else { self.after_drift.saturating_sub(1) };
        self.embedded_patch = Some(self.patch.clone());
        self.best_weight = self.best_weight.max(weight(quality));
        (self.embedded_frames.1, self.embedded_ns) = (moment.frame, moment.pts_ns);
    }
}

impl Follower {
    /// A follower without faces; `views` selects the views to embed.
    pub fn new(views: Views) -> Self {
        Self { views, chains: Vec::new(), next: 0 }
    }

    /// The faces of the next frame, whose pixels are `luma`: which chain each continues. A face and a
    /// chain are paired one to one, the best overlap with the expected place first.
    pub fn follow(&mut self, moment: &Moment, luma: Luma<'_>, faces: &[(Face, Quality)]) -> Vec<Step> {
        if moment.cut {
            self.chains.clear();
        }
        self.chains.retain(|chain| moment.pts_ns.saturating_sub(chain.pts_ns) <= POSITION_GAP_NS);
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for (c, chain) in self.chains.iter().enumerate() {
            let expected = chain.expected(moment.frame);
            for (f, (face, _)) in faces.iter().enumerate() {
                let iou = expected.iou(&face.bbox).max(chain.bbox.iou(&face.bbox));
                if iou >= LEAST_IOU {
                    pairs.push((iou, c, f));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut chain_of: Vec<Option<(usize, bool)>> = vec![None; faces.len()];
        let mut taken = vec![false; self.chains.len()];
        for (iou, c, f) in pairs {
            if !taken[c] && chain_of[f].is_none() {
                let gap = moment.frame > self.chains[c].frame + 1;
                (taken[c], chain_of[f]) = (true, Some((c, gap || iou < SURE_IOU)));
            }
        }
        let mut steps = Vec::with_capacity(faces.len());
        for ((face, quality), held) in faces.iter().zip(chain_of) {
            let (at, doubtful) = held.unwrap_or_else(|| {
                self.chains.push(Chain::new(self.next, moment, face, luma));
                self.next += 1;
                (self.chains.len() - 1, false)
            });
            let chain = &mut self.chains[at];
            let sudden = held.is_some() && chain.see(moment, face, luma);
            let change = match sudden {
                _ if chain.doubt > 0 => Change::Whole,
                true => Change::Sudden,
                false => Change::None,
            };
            let embed = match self.views {
                Views::None => false,
                Views::Telling => doubtful || change != Change::None || chain.is_telling(moment, quality),
                Views::All => true,
            };
            if embed {
                chain.embed(moment, quality);
            }
            steps.push(Step { chain: chain.id, embed, doubtful, change });
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_NS: u64 = 40_000_000;

    /// An empty picture.
    const PLAIN: Luma<'_> = Luma { bytes: &[], width: 0, height: 0 };

    fn moment(frame: u64, cut: bool) -> Moment {
        Moment { frame, pts_ns: frame * FRAME_NS, cut }
    }

    fn face(x: f32, y: f32) -> (Face, Quality) {
        let bbox = BBox { x1: x, y1: y, x2: x + 60.0, y2: y + 60.0 };
        let quality = Quality { size_px: 60.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 };
        (Face { bbox, score: 1.0, landmarks: [[0.0; 2]; 5] }, quality)
    }

    fn chains(steps: &[Step]) -> Vec<u32> {
        steps.iter().map(|step| step.chain).collect()
    }

    #[test]
    fn two_who_pass_each_other_keep_their_chains() {
        let mut follower = Follower::new(Views::None);
        for frame in 0..30 {
            let x = 10.0 * frame as f32;
            // The order of detection changes all the time.
            let mut faces = vec![face(x, 100.0), face(300.0 - x, 130.0)];
            if frame % 2 == 1 {
                faces.reverse();
            }
            let mut steps = chains(&follower.follow(&moment(frame, false), PLAIN, &faces));
            if frame % 2 == 1 {
                steps.reverse();
            }
            assert_eq!(steps, [0, 1], "frame {frame}");
        }
    }

    #[test]
    fn a_cut_ends_every_chain_however_near_the_next_face_is() {
        let mut follower = Follower::new(Views::None);
        assert_eq!(chains(&follower.follow(&moment(0, false), PLAIN, &[face(50.0, 50.0)])), [0]);
        assert_eq!(chains(&follower.follow(&moment(1, true), PLAIN, &[face(50.0, 50.0)])), [1]);
    }

    #[test]
    fn short_gaps_are_followed_with_a_doubt_and_long_ones_are_not() {
        let mut follower = Follower::new(Views::None);
        let see =
            |follower: &mut Follower, frame| follower.follow(&moment(frame, false), PLAIN, &[face(5.0, 5.0)]);
        assert!(!see(&mut follower, 0)[0].doubtful);
        assert!(!see(&mut follower, 1)[0].doubtful);
        let after = see(&mut follower, 5);
        assert!(after[0].chain == 0 && after[0].doubtful);
        assert_eq!(see(&mut follower, 20)[0].chain, 1);
    }

    #[test]
    fn a_face_that_dissolves_into_another_is_embedded_on_the_way() {
        // Stripes that run down become stripes that run across, in ten frames.
        let picture = |share: f32| -> Vec<u8> {
            let stripe = |at: usize| if (at / 12).is_multiple_of(2) { 200.0 } else { 60.0 };
            let pixel = |at: usize| ((1.0 - share) * stripe(at % 160) + share * stripe(at / 160)) as u8;
            (0..160 * 160).map(pixel).collect()
        };
        let mut follower = Follower::new(Views::Telling);
        let mut embedded = Vec::new();
        for frame in 0..80u64 {
            let bytes = picture((frame.saturating_sub(50) as f32 / 10.0).min(1.0));
            let luma = Luma { bytes: &bytes, width: 160, height: 160 };
            let step = follower.follow(&moment(frame, false), luma, &[face(50.0, 50.0)])[0];
            if step.embed {
                embedded.push(frame);
            }
        }
        // One where both show, and those after it, the last of which shows the second nearly alone.
        let between: Vec<u64> = embedded.iter().copied().filter(|frame| (51..60).contains(frame)).collect();
        assert!(between.len() >= 3 && between[between.len() - 1] >= 56, "{embedded:?}");
    }

    #[test]
    fn a_settled_face_is_embedded_when_it_is_better_or_different_only() {
        let mut follower = Follower::new(Views::Telling);
        let mut embedded = Vec::new();
        for frame in 0..100 {
            let mut one = face(50.0, 50.0);
            one.1.size_px = if frame >= 40 { 80.0 } else { 60.0 };
            one.1.yaw_deg = if frame >= 50 { 20.0 } else { 0.0 };
            if follower.follow(&moment(frame, false), PLAIN, &[one])[0].embed {
                embedded.push(frame);
            }
        }
        // Often at first, better at 40, turned at 50, else every half a second.
        assert_eq!(embedded, [0, 2, 4, 6, 9, 13, 19, 28, 40, 50, 63, 76, 89]);
    }
}
