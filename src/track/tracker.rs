//! Joining chains of faces to tracks by their embeddings.

use std::collections::VecDeque;

use super::{Change, GOOD_WEIGHT, Moment, TrackId, visible, weight, weight_inside};
use crate::detect::{BBox, Face, Quality};
use crate::embed::Embedding;
use crate::models::ModelId;

/// Longest time out of sight within a track, in nanoseconds.
pub const GAP_NS: u64 = 3_000_000_000;
/// Additional similarity in degrees required of a person who comes back elsewhere.
const ELSEWHERE_DEG: f64 = 6.0;
/// Minimum ratio of the areas of two boxes of one face in one place, by the variation of the detector and a
/// step to or from the camera.
const SAME_SIZE: f32 = 0.4;
/// Factor on that ratio per second out of sight, which allows half or twice the side. Without this limit, a
/// face of 80 pixels continued the track of a head of 200 pixels that had disappeared a quarter of a second
/// before.
const SIZE_A_SECOND: f32 = 0.25;
/// Degrees beyond the largest angle between two views of a person at which a face is another person than its
/// track, wherever it is. From one view of a track to the next, 385 views of small and turned faces in real
/// clips exceeded that angle by at most 4 degrees.
const OTHER_DEG: f64 = 12.0;
/// Degrees beyond the largest angle between two views of a person at which a good view after a sudden change
/// is another person than its chain. Of 66 such changes to another person, the two nearest were at 0 degrees
/// beyond it; turns and jumps of one person reached 0.3 degrees.
const CHANGED_DEG: f64 = 1.0;
/// The same for a poor view after a whole change: turns and jumps of one person reached 5.7 degrees.
const CHANGED_POOR_DEG: f64 = 6.0;

/// Degrees beyond the largest angle between two views of a person at which one good view shows another person than
/// the good views of its track.
const FAR_DEG: f64 = 10.0;
/// Degrees below that angle at which the mean of the latest good views shows another person than the mean of those
/// before. In the interview, the clips of six characters and the sample, the two came to 6 degrees below it at most; in
/// dissolves from one person to another, to 1 degree above it with two views.
const FAR_MEANS_DEG: f64 = 4.0;
/// Least coherence of the views before: the mean of views that differ says little. Of one person who turns, seen from
/// many sides (coherence 0.72), the two means came to 6 degrees above that angle. In dissolves, with views of both people
/// among them, it was 0.86 at least.
const COHERENT: f64 = 0.8;
/// Maximum number of latest views that are compared with those before. The minimum is two.
const LATEST: usize = 6;
/// Largest angle between two of the latest views.
const ALIKE_DEG: f64 = 45.0;
/// Fewest views before them.
const LEAST_BEFORE: usize = 2;

/// Least share of a face within the picture at which a view shows whose it is. In the bundled sample, a face of which a
/// quarter was visible looked like another person one frame later.
const SHOWN: f32 = 0.5;

/// Degrees by which a person who replaces another one in place must look more alike to be joined with a third
/// person who was seen before.
const REPLACED_DEG: f64 = 5.0;

/// A face of a frame, followed by position and perhaps embedded.
#[derive(Debug, Clone, Copy)]
pub struct FollowedFace<'a> {
    /// Its chain.
    pub chain: u32,
    /// Whether its position leaves doubt that it continues the chain.
    pub doubtful: bool,
    /// Its change against the chain before it.
    pub change: Change,
    /// Its box, landmarks and score.
    pub face: &'a Face,
    /// Its quality.
    pub quality: &'a Quality,
    /// Its embedding.
    pub embedding: Option<&'a Embedding>,
}

/// Builds tracks from chains frame by frame. Every cut ends all tracks. Within a shot, a chain whose first
/// view looks like a person who went out of sight up to [`GAP_NS`] ago continues that track immediately, so
/// that no number is ever revoked.
#[derive(Debug)]
pub struct Tracker {
    same_deg: Option<f64>,
    tracks: Vec<Open>,
    next: u32,
}

/// A track that may continue.
#[derive(Debug)]
struct Open {
    id: TrackId,
    /// The chain that shows it; `None` if that has jumped to another person.
    chain: Option<u32>,
    bbox: BBox,
    frame: u64,
    pts_ns: u64,
    sum: Option<Sum>,
    /// The sum of its good views alone, and how many these are.
    good: Option<Sum>,
    good_views: usize,
    /// The latest of them with their weights, the last one at the end.
    latest: VecDeque<(Embedding, f32)>,
    /// Its last view with an embedding.
    last: Option<Embedding>,
    /// Whether a view with an embedding showed enough of the face.
    shown: bool,
}

impl Open {
    /// The angle to its views together or to the last of them, whichever is less.
    fn least_deg(&self, embedding: &Embedding) -> Option<f64> {
        let last = self.last.as_ref().and_then(|last| last.angle_deg(embedding));
        [self.angle_deg(embedding), last].into_iter().flatten().min_by(f64::total_cmp)
    }

    /// The angle to its views together.
    fn angle_deg(&self, embedding: &Embedding) -> Option<f64> {
        self.sum.as_ref()?.angle_deg(embedding)
    }

    fn add(&mut self, embedding: &Embedding, weight: f32) {
        self.last = Some(embedding.clone());
        // A view of weight 0 is still better than none.
        Sum::add(&mut self.sum, embedding, weight.max(1e-3));
    }

    fn add_good(&mut self, embedding: &Embedding, weight: f32) {
        Sum::add(&mut self.good, embedding, weight);
        self.good_views += 1;
        self.latest.push_back((embedding.clone(), weight));
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
        }
    }

    /// Whether a good view shows another person than the good views of the track. In a dissolve, single views show both
    /// people, and each view is like the one before it. So the latest views together are compared with all before them.
    fn is_far(&self, embedding: &Embedding, weight: f32, same_deg: f64) -> bool {
        let is_far = |before: &Option<Sum>, embedding: Option<Embedding>, limit_deg: f64| {
            let before = before.as_ref().filter(|before| before.coherence() >= COHERENT);
            let angle = before.zip(embedding).and_then(|(before, embedding)| before.angle_deg(&embedding));
            angle.is_some_and(|angle| angle > limit_deg)
        };
        if is_far(&self.good, Some(embedding.clone()), same_deg + FAR_DEG) {
            return true;
        }
        let (mut before, mut latest) = (self.good.clone(), None);
        Sum::add(&mut latest, embedding, weight);
        for (count, (view, weight)) in (1..).zip(self.latest.iter().rev()) {
            let alike = view.angle_deg(embedding).is_some_and(|angle| angle <= ALIKE_DEG);
            if !alike || self.good_views - count < LEAST_BEFORE {
                return false;
            }
            Sum::add(&mut latest, view, *weight);
            Sum::add(&mut before, view, -weight);
            if is_far(&before, latest.as_ref().and_then(Sum::mean), same_deg - FAR_MEANS_DEG) {
                return true;
            }
        }
        false
    }
}

/// A sum of embeddings, each times its weight.
#[derive(Debug, Clone)]
struct Sum {
    model: ModelId,
    values: Vec<f64>,
    weight: f64,
}

impl Sum {
    /// Adds an embedding to a sum, which begins with it if there is none.
    fn add(sum: &mut Option<Self>, embedding: &Embedding, weight: f32) {
        let (model, added) = (embedding.model(), embedding.as_slice());
        let sum = sum.get_or_insert_with(|| Self { model, values: vec![0.0; added.len()], weight: 0.0 });
        if sum.model == model {
            let weight = f64::from(weight);
            sum.values.iter_mut().zip(added).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            sum.weight += weight;
        }
    }

    /// Its direction.
    fn mean(&self) -> Option<Embedding> {
        Embedding::new(self.model, self.values.iter().map(|&x| x as f32).collect())
    }

    fn angle_deg(&self, embedding: &Embedding) -> Option<f64> {
        self.mean()?.angle_deg(embedding)
    }

    /// How much alike its embeddings are: its length for each unit of weight, 1 where they are the same.
    fn coherence(&self) -> f64 {
        self.values.iter().map(|x| x * x).sum::<f64>().sqrt() / self.weight
    }
}

impl Tracker {
    /// A tracker without tracks. Two views of one person differ by at most `same_deg` degrees; `None`, for a
    /// model without calibration, joins nothing.
    pub fn new(same_deg: Option<f64>) -> Self {
        Self { same_deg, tracks: Vec::new(), next: 1 }
    }

    /// The tracks of the faces of the next frame.
    pub fn track(&mut self, moment: &Moment, faces: &[FollowedFace<'_>]) -> Vec<TrackId> {
        if moment.cut {
            self.tracks.clear();
        }
        self.tracks.retain(|track| moment.pts_ns.saturating_sub(track.pts_ns) <= GAP_NS);
        let mut ids = Vec::with_capacity(faces.len());
        for seen in faces {
            let at = self.find(moment, seen, faces).unwrap_or_else(|| {
                self.tracks.push(Open {
                    id: TrackId(self.next),
                    chain: None,
                    bbox: seen.face.bbox,
                    frame: moment.frame,
                    pts_ns: moment.pts_ns,
                    sum: None,
                    good: None,
                    good_views: 0,
                    latest: VecDeque::new(),
                    last: None,
                    shown: false,
                });
                self.next += 1;
                self.tracks.len() - 1
            });
            for track in self.tracks.iter_mut().filter(|track| track.chain == Some(seen.chain)) {
                track.chain = None;
            }
            let track = &mut self.tracks[at];
            (track.chain, track.bbox) = (Some(seen.chain), seen.face.bbox);
            (track.frame, track.pts_ns) = (moment.frame, moment.pts_ns);
            // A poor view that may show another person is compared, but later views are not compared with it.
            let weight = weight(seen.quality);
            let known = seen.change != Change::Whole || weight >= GOOD_WEIGHT || track.sum.is_none();
            if let Some(embedding) = seen.embedding.filter(|_| known) {
                track.add(embedding, weight);
                track.shown |= visible(seen.face, seen.quality) >= SHOWN;
                let inside = weight_inside(seen.face, seen.quality);
                if inside >= GOOD_WEIGHT {
                    track.add_good(embedding, inside);
                }
            }
            ids.push(track.id);
        }
        ids
    }

    /// Whether a face is another person than the track of its chain.
    fn is_other(&self, track: &Open, seen: &FollowedFace<'_>) -> bool {
        let angle = seen.embedding.and_then(|embedding| track.least_deg(embedding));
        let Some((same_deg, angle)) = self.same_deg.zip(angle) else { return false };
        // A face that comes into the picture, or leaves it, looks like nobody.
        if !track.shown || visible(seen.face, seen.quality) < SHOWN {
            return false;
        }
        let is_good = weight(seen.quality) >= GOOD_WEIGHT;
        let inside = weight_inside(seen.face, seen.quality);
        let is_far = |embedding| track.is_far(embedding, inside, same_deg);
        if inside >= GOOD_WEIGHT && seen.embedding.is_some_and(is_far) {
            return true;
        }
        let beyond_deg = match seen.change {
            Change::Sudden | Change::Whole if is_good => CHANGED_DEG,
            Change::Whole => CHANGED_POOR_DEG,
            Change::Sudden | Change::None => OTHER_DEG,
        };
        angle > same_deg + beyond_deg
    }

    /// The open track that a face continues.
    fn find(&self, moment: &Moment, seen: &FollowedFace<'_>, faces: &[FollowedFace<'_>]) -> Option<usize> {
        let angle = |track: &Open| seen.embedding.and_then(|embedding| track.angle_deg(embedding));
        if let Some(at) = self.tracks.iter().position(|track| track.chain == Some(seen.chain))
            && !self.is_other(&self.tracks[at], seen)
        {
            return Some(at);
        }
        // A person who takes the place of another must look more alike to be one seen before.
        let replaced_deg = if seen.change == Change::None { 0.0 } else { REPLACED_DEG };
        let same_deg = self.same_deg? - replaced_deg;
        let in_frame = |track: &Open| {
            track.frame == moment.frame || faces.iter().any(|other| Some(other.chain) == track.chain)
        };
        let mut best: Option<(f64, usize)> = None;
        for (at, track) in self.tracks.iter().enumerate().filter(|(_, track)| !in_frame(track)) {
            let Some(angle) = angle(track) else { continue };
            let gap_ns = moment.pts_ns.saturating_sub(track.pts_ns);
            let limit = same_deg - doubt_deg(&track.bbox, &seen.face.bbox, gap_ns);
            if angle < limit && best.is_none_or(|(least, _)| angle < least) {
                best = Some((angle, at));
            }
        }
        best.map(|(_, at)| at)
    }
}

/// How many degrees more alike a face must look to continue the track at `before`, out of sight for `gap_ns`:
/// 0 in about the same place, [`ELSEWHERE_DEG`] elsewhere, and infinity if the size changed faster than a
/// person can approach or move away.
pub(super) fn doubt_deg(before: &BBox, now: &BBox, gap_ns: u64) -> f64 {
    let side = before.area().max(now.area()).sqrt();
    let ([ax, ay], [bx, by]) = (before.centre(), now.centre());
    let ratio = before.area().min(now.area()) / before.area().max(now.area());
    let gap_s = gap_ns as f32 / 1e9;
    if ratio <= SAME_SIZE * SIZE_A_SECOND.powf(gap_s) {
        f64::INFINITY
    } else if (ax - bx).hypot(ay - by) < side && ratio > SAME_SIZE {
        0.0
    } else {
        ELSEWHERE_DEG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(deg: f64) -> Embedding {
        let values = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Embedding::new(ModelId([1; 8]), values).unwrap()
    }

    struct Scene {
        tracker: Tracker,
        yaw_deg: f32,
        size_px: f32,
    }

    impl Scene {
        /// Sees faces (chain, x, embedding angle) at that frame, 25 per second.
        fn see(&mut self, frame: u64, cut: bool, faces: &[(u32, f32, Option<f64>)]) -> Vec<u32> {
            let quality = Quality {
                size_px: self.size_px,
                yaw_deg: self.yaw_deg,
                pitch_deg: 0.0,
                roll_deg: 0.0,
                sharpness: 0.3,
            };
            let places: Vec<(Face, Option<Embedding>)> = faces
                .iter()
                .map(|(_, x, deg)| {
                    let bbox = BBox { x1: *x, y1: 0.0, x2: x + 80.0, y2: 80.0 };
                    (Face { bbox, score: 1.0, landmarks: [[0.0; 2]; 5] }, deg.map(at))
                })
                .collect();
            let seen: Vec<FollowedFace<'_>> = faces
                .iter()
                .zip(&places)
                .map(|((chain, ..), (face, embedding))| FollowedFace {
                    chain: *chain,
                    doubtful: true,
                    change: Change::None,
                    face,
                    quality: &quality,
                    embedding: embedding.as_ref(),
                })
                .collect();
            let moment = Moment { frame, pts_ns: frame * 40_000_000, cut };
            self.tracker.track(&moment, &seen).into_iter().map(|id| id.0).collect()
        }
    }

    fn scene() -> Scene {
        Scene { tracker: Tracker::new(Some(60.0)), yaw_deg: 0.0, size_px: 80.0 }
    }

    #[test]
    fn who_comes_back_looking_alike_is_the_same_track() {
        let mut scene = scene();
        assert_eq!(scene.see(0, false, &[(0, 0.0, Some(0.0)), (1, 300.0, Some(90.0))]), [1, 2]);
        assert_eq!(scene.see(1, false, &[(1, 300.0, None)]), [2]);
        assert_eq!(scene.see(30, false, &[(2, 20.0, Some(50.0)), (1, 300.0, None)]), [1, 2]);
        assert_eq!(scene.see(31, false, &[(3, 600.0, None)]), [3], "without an embedding nothing is joined");
    }

    #[test]
    fn who_comes_back_elsewhere_must_look_more_alike() {
        for (deg, expected) in [(58.0, 2), (50.0, 1)] {
            let mut scene = scene();
            scene.see(0, false, &[(0, 0.0, Some(0.0))]);
            assert_eq!(scene.see(20, false, &[(1, 400.0, Some(deg))]), [expected], "{deg}");
        }
    }

    #[test]
    fn a_face_that_comes_into_the_picture_or_leaves_it_is_not_compared() {
        // Of 80 x 80 pixels, less than half or more.
        for (first_px, second_px, expected) in
            [(55.0, 80.0, 1), (80.0, 55.0, 1), (58.0, 80.0, 2), (80.0, 58.0, 2)]
        {
            let mut scene = scene();
            scene.size_px = first_px;
            assert_eq!(scene.see(0, false, &[(0, 0.0, Some(0.0))]), [1]);
            scene.size_px = second_px;
            assert_eq!(scene.see(1, false, &[(0, 0.0, Some(89.0))]), [expected], "{first_px} {second_px}");
        }
    }

    #[test]
    fn nobody_shrinks_or_grows_at_once() {
        let square = |x: f32, side: f32| BBox { x1: x, y1: 0.0, x2: x + side, y2: side };
        let doubt = |side: f32, gap_ms: u64| {
            let there = doubt_deg(&square(0.0, 200.0), &square(300.0, side), gap_ms * 1_000_000);
            let back = doubt_deg(&square(300.0, side), &square(0.0, 200.0), gap_ms * 1_000_000);
            assert_eq!(there, back);
            there
        };
        assert_eq!(doubt(130.0, 0), ELSEWHERE_DEG);
        assert_eq!(doubt(80.0, 200), f64::INFINITY);
        assert_eq!(doubt(80.0, 2000), ELSEWHERE_DEG);
        assert_eq!(doubt(20.0, 2000), f64::INFINITY);
        assert_eq!(doubt_deg(&square(0.0, 200.0), &square(20.0, 150.0), 0), 0.0);
    }

    #[test]
    fn nobody_is_two_in_one_frame_and_a_long_absence_or_a_cut_ends_it() {
        let mut scene = scene();
        assert_eq!(scene.see(0, false, &[(0, 0.0, Some(0.0)), (1, 90.0, Some(5.0))]), [1, 2]);
        assert_eq!(scene.see(2, true, &[(2, 0.0, Some(0.0))]), [3]);
        assert_eq!(scene.see(100, false, &[(3, 0.0, Some(0.0))]), [4]);
    }

    #[test]
    fn who_appears_in_a_dissolve_is_another_track() {
        let tracks = |yaw_deg: f32, views: &[f64]| -> Vec<u32> {
            let mut scene = Scene { yaw_deg, ..scene() };
            let see = |(at, deg): (usize, &f64)| scene.see(at as u64, false, &[(0, 0.0, Some(*deg))])[0];
            views.iter().enumerate().map(see).collect()
        };
        // Once is enough far beyond the limit; near it, it takes two views.
        assert_eq!(tracks(0.0, &[0.0, 0.0, 45.0, 90.0, 90.0]), [1, 1, 1, 2, 2]);
        assert_eq!(tracks(0.0, &[0.0, 0.0, 0.0, 30.0, 66.0, 68.0, 68.0]), [1, 1, 1, 1, 1, 2, 2]);
        assert_eq!(tracks(0.0, &[0.0, 0.0, 0.0, 30.0, 66.0, 0.0, 66.0]), [1; 7]);
        // Views before that differ say nothing.
        assert_eq!(tracks(0.0, &[0.0, 65.0, -33.0, 80.0, 82.0]), [1; 5]);
        // A head that turns away looks less and less like itself.
        assert_eq!(tracks(60.0, &[0.0, 0.0, 45.0, 90.0, 90.0]), [1; 5]);
    }

    #[test]
    fn a_chain_that_jumped_to_somebody_else_becomes_another_track() {
        let mut scene = scene();
        assert_eq!(scene.see(0, false, &[(0, 0.0, Some(0.0))]), [1]);
        scene.yaw_deg = 60.0;
        assert_eq!(scene.see(2, false, &[(0, 10.0, Some(70.0))]), [1], "no more than a turned head");
        assert_eq!(scene.see(4, false, &[(0, 20.0, Some(170.0))]), [2]);
        assert_eq!(scene.see(5, false, &[(0, 20.0, None)]), [2]);
    }
}
