//! Scoring of a labelled video against a [truth](super::truth).
//!
//! # Rules
//! - Detections and truth faces are matched one to one within a frame, the best overlap first.
//! - A *difficult* face (tiny, in profile, hidden) counts in its own group.
//! - A *partial* face (mostly outside the frame) is neither hit nor miss, whatever it is named.
//! - A detection without a truth face whose centre lies in an ignored region is not a false
//!   detection; giving it a name is a false identification.
//! - Names are compared without regard to case, and `-`, `_` and space are the same.
//! - A continuous face should be one track with one name. It is *switched* if it is found with another track
//!   number than before, *interrupted* if it is missed and found again (frames in which it is partial are
//!   skipped), and *renamed* if its name changes; unknown counts as a name.
//! - The number of a stranger should stand for one person, and a person should have one: see
//!   [`NumberCounts`]. Strangers for whom the truth gives only an `id` are different if their `id` differs.
//!   Partial faces and undecided ones do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::continuity::{Continuity, Step};
pub use super::numbers::NumberCounts;
use super::numbers::{Numbers, Somebody};
pub use super::predicted::PredictedFace;
use super::truth::{Truth, TruthFace, Who, bbox, canonical, same_name};
use super::{EvalError, read};
use crate::detect::BBox;

/// The rules by which a detection matches a face of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Intersection over union of at least [`MIN_IOU`].
    Iou,
    /// The same, or each centre lies in the other box: for truth boxes drawn tightly around
    /// the face, which a correct detection surrounds with an intersection over union below 0.4.
    IouOrCentres,
}

/// Least intersection over union of a detection and its truth.
pub const MIN_IOU: f32 = 0.4;

impl Rule {
    fn allows(self, detection: &BBox, truth: &BBox) -> bool {
        detection.iou(truth) >= MIN_IOU
            || self == Rule::IouOrCentres
                && truth.contains(detection.centre())
                && detection.contains(truth.centre())
    }
}

/// Reads the faces that `label --jsonl` wrote.
///
/// # Errors
/// When the file cannot be read or a line is not a face.
pub fn read_observations(path: &Path) -> Result<Vec<PredictedFace>, EvalError> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let error = |cause: String| EvalError::Observation { path: path.into(), line: index + 1, cause };
            let face: PredictedFace = serde_json::from_str(line).map_err(|e| error(e.to_string()))?;
            if face.bbox.iter().all(|x| x.is_finite()) {
                Ok(face)
            } else {
                Err(error("its box is not finite".into()))
            }
        })
        .collect()
}

/// Counts over a group of faces of the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Faces of people who should be named.
    pub known: u64,
    /// Of those, faces that were detected.
    pub known_detected: u64,
    /// Of those detected, faces given the right name.
    pub identified: u64,
    /// Of those detected, faces given another name.
    pub misnamed: u64,
    /// Faces of strangers.
    pub strangers: u64,
    /// Of those, faces that were detected.
    pub strangers_detected: u64,
    /// Of those detected, faces given a name.
    pub strangers_named: u64,
    /// Times that a continuous face got another track number.
    pub switches: u64,
    /// Times that a continuous face was missed and found again. For faces that are not difficult, only frames
    /// in which the face is not difficult count.
    pub interruptions: u64,
    /// Times that a continuous face changed its name; unknown counts as a name.
    pub renamings: u64,
}

fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Counts {
    /// Detected share of all faces; `None` without faces, as all rates here.
    pub fn detection_recall(&self) -> Option<f64> {
        rate(self.known_detected + self.strangers_detected, self.known + self.strangers)
    }

    /// Rightly named share of the faces that should be named, missed ones included.
    pub fn identification_rate(&self) -> Option<f64> {
        rate(self.identified, self.known)
    }

    /// Rightly named share of the detected faces that should be named.
    pub fn identification_rate_of_detected(&self) -> Option<f64> {
        rate(self.identified, self.known_detected)
    }

    /// Changes of name per minute of a continuous face, for frames of that length in nanoseconds;
    /// faces missed do not count.
    pub fn renamings_a_minute(&self, frame_ns: Option<u64>) -> Option<f64> {
        let seen_ns = (self.known_detected + self.strangers_detected).saturating_mul(frame_ns?);
        (seen_ns > 0).then(|| self.renamings as f64 * 60e9 / seen_ns as f64)
    }

    /// Share of the detected strangers that were given a name.
    pub fn strangers_named_rate(&self) -> Option<f64> {
        rate(self.strangers_named, self.strangers_detected)
    }
}

/// The scores of a labelled video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Score {
    /// How detections were matched.
    pub rule: Rule,
    /// Frames of the truth.
    pub frames: u64,
    /// Mean duration of a frame in nanoseconds; `None` if times are missing.
    pub frame_ns: Option<u64>,
    /// Faces that are not difficult.
    pub easy: Counts,
    /// Difficult faces.
    pub difficult: Counts,
    /// All faces, by person; strangers are not listed.
    pub people: BTreeMap<String, Counts>,
    /// Strangers' numbers.
    pub numbers: NumberCounts,
    /// Names given to detections in ignored regions.
    pub named_in_ignored: u64,
    /// Detections without a truth face outside ignored regions; `None` if the truth does not list every face.
    pub false_detections: Option<u64>,
    /// Of those, detections given a name; `None` likewise.
    pub named_false_detections: Option<u64>,
    /// Faces detected in frames that the truth does not cover.
    pub outside_truth: u64,
    /// Names given that no face of the truth has.
    pub names_not_in_truth: BTreeSet<String>,
}

/// Compares observations with the truth.
pub fn score(truth: &Truth, observations: &[PredictedFace], rule: Rule) -> Score {
    let mut by_frame: BTreeMap<u64, Vec<&PredictedFace>> = BTreeMap::new();
    for observation in observations {
        by_frame.entry(observation.frame).or_default().push(observation);
    }
    let mut score = Score {
        rule,
        frames: truth.frames.len() as u64,
        frame_ns: frame_ns(observations),
        easy: Counts::default(),
        difficult: Counts::default(),
        people: BTreeMap::new(),
        numbers: NumberCounts::default(),
        named_in_ignored: 0,
        false_detections: truth.complete.then_some(0),
        named_false_detections: truth.complete.then_some(0),
        outside_truth: 0,
        names_not_in_truth: BTreeSet::new(),
    };
    let names: BTreeSet<String> = truth
        .frames
        .values()
        .flat_map(|frame| &frame.faces)
        .filter_map(|face| if let Who::Known(name) = &face.who { Some(canonical(name)) } else { None })
        .collect();
    let given = observations.iter().filter_map(|o| o.name.as_ref());
    score.names_not_in_truth = given.filter(|n| !names.contains(&canonical(n))).cloned().collect();
    for (index, seen) in &by_frame {
        if !truth.frames.contains_key(index) {
            score.outside_truth += seen.len() as u64;
        }
    }
    let (mut continuity, mut numbers) = (Continuity::default(), Numbers::default());
    for (index, frame) in &truth.frames {
        let seen = by_frame.get(index).map_or(&[][..], Vec::as_slice);
        let boxes: Vec<BBox> = seen.iter().map(|o| truth.inside(bbox(o.bbox))).collect();
        let matches = match_frame(&frame.faces, &boxes, rule);
        for (face, detection) in frame.faces.iter().zip(&matches) {
            let detection = detection.and_then(|i| seen.get(i)).copied();
            score.count(face, detection.map(|found| found.name.as_deref()));
            if !face.partial && face.who != Who::Undecided {
                score.follow(face, continuity.see(face, detection));
                if let Some((somebody, number)) = somebody(face).zip(detection.and_then(|one| one.stranger)) {
                    numbers.see(somebody, number);
                }
            }
        }
        for (i, (observation, place)) in seen.iter().zip(&boxes).enumerate() {
            if matches.contains(&Some(i)) {
                continue;
            }
            let named = u64::from(observation.name.is_some());
            if frame.ignore.iter().any(|region| region.contains(place.centre())) {
                score.named_in_ignored += named;
            } else {
                score.false_detections = score.false_detections.map(|n| n + 1);
                score.named_false_detections = score.named_false_detections.map(|n| n + named);
                if let Some((track, number)) = observation.track.zip(observation.stranger)
                    && truth.complete
                {
                    numbers.see(Somebody::Nothing(track), number);
                }
            }
        }
    }
    score.numbers = numbers.count();
    score
}

/// The person of a face of the truth, as far as it states it.
fn somebody(face: &TruthFace) -> Option<Somebody> {
    match (&face.person, &face.id) {
        (Some(name), _) => Some(Somebody::Named(canonical(name))),
        (None, Some(id)) => Some(Somebody::Unnamed(id.clone())),
        (None, None) => None,
    }
}

impl Score {
    /// Counts the changes of a continuous face.
    fn follow(&mut self, face: &TruthFace, step: Step) {
        let count = |counts: &mut Counts, interrupted: bool| {
            counts.switches += u64::from(step.switched);
            counts.interruptions += u64::from(interrupted);
            counts.renamings += u64::from(step.renamed);
        };
        let interrupted = step.interrupted || step.interrupted_where_difficult;
        if let Who::Known(name) = &face.who {
            count(self.people.entry(name.clone()).or_default(), interrupted);
        }
        if face.difficult {
            count(&mut self.difficult, interrupted);
        } else {
            count(&mut self.easy, step.interrupted);
            self.difficult.interruptions += u64::from(step.interrupted_where_difficult);
        }
    }

    /// Counts one face of the truth: `detection` is the name given to the detection that
    /// matches it, `None` when none does.
    fn count(&mut self, face: &TruthFace, detection: Option<Option<&str>>) {
        if face.partial {
            return;
        }
        let group = if face.difficult { &mut self.difficult } else { &mut self.easy };
        match &face.who {
            Who::Undecided => {}
            Who::Stranger => {
                group.strangers += 1;
                group.strangers_detected += u64::from(detection.is_some());
                group.strangers_named += u64::from(matches!(detection, Some(Some(_))));
            }
            Who::Known(name) => {
                let person = self.people.entry(name.clone()).or_default();
                for counts in [group, person] {
                    counts.known += 1;
                    counts.known_detected += u64::from(detection.is_some());
                    match detection {
                        Some(Some(given)) if same_name(given, name) => counts.identified += 1,
                        Some(Some(_)) => counts.misnamed += 1,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The mean time from one frame to the next.
fn frame_ns(observations: &[PredictedFace]) -> Option<u64> {
    let times = || observations.iter().filter_map(|seen| Some((seen.frame, seen.pts_ns?)));
    let ((first, from), (last, to)) = times().min().zip(times().max())?;
    to.saturating_sub(from).checked_div(last - first)
}

/// The matching detection of each face of the truth: pairs that the rule allows are taken one by one, the
/// greatest overlap first.
fn match_frame(faces: &[TruthFace], detections: &[BBox], rule: Rule) -> Vec<Option<usize>> {
    let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
    for (t, face) in faces.iter().enumerate() {
        for (d, detection) in detections.iter().enumerate() {
            if rule.allows(detection, &face.bbox) {
                pairs.push((detection.iou(&face.bbox), t, d));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut matched = vec![None; faces.len()];
    let mut taken = vec![false; detections.len()];
    for (_, t, d) in pairs {
        if let (Some(slot @ None), Some(taken @ false)) = (matched.get_mut(t), taken.get_mut(d)) {
            (*slot, *taken) = (Some(d), true);
        }
    }
    matched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(faces: serde_json::Value, ignore: serde_json::Value) -> Truth {
        let file = serde_json::json!({"frames": [{"frame": 3, "faces": faces, "ignore": ignore}]});
        Truth::from_frames(serde_json::from_value(file).unwrap())
    }

    fn seen(bbox: [f32; 4], name: Option<&str>) -> PredictedFace {
        PredictedFace { frame: 3, bbox, name: name.map(Into::into), ..PredictedFace::default() }
    }

    #[test]
    fn every_kind_of_error_lands_in_its_own_count() {
        let truth = truth(
            serde_json::json!([
                {"name": "ann-lee", "box": [0, 0, 10, 10]},
                {"name": "bob", "box": [20, 0, 30, 10]},
                {"name": "bob", "box": [40, 0, 50, 10], "difficult": true},
                {"name": "unknown", "box": [60, 0, 70, 10]},
                {"name": "unknown", "box": [80, 0, 90, 10], "difficult": true},
                {"name": "ann-lee", "box": [100, 0, 110, 10], "partial": true},
            ]),
            serde_json::json!([[0, 100, 200, 200]]),
        );
        let observations = [
            seen([0.0, 0.0, 10.0, 10.0], Some("Ann Lee")),
            seen([21.0, 0.0, 31.0, 10.0], Some("ann_lee")),
            seen([60.0, 0.0, 70.0, 10.0], Some("bob")),
            seen([80.0, 0.0, 90.0, 10.0], None),
            seen([100.0, 0.0, 110.0, 10.0], Some("bob")),
            seen([10.0, 110.0, 20.0, 120.0], Some("bob")),
            seen([30.0, 110.0, 40.0, 120.0], None),
            seen([300.0, 0.0, 310.0, 10.0], Some("carol")),
            seen([320.0, 0.0, 330.0, 10.0], None),
            PredictedFace { frame: 9, ..seen([0.0; 4], None) },
        ];
        let score = score(&truth, &observations, Rule::Iou);
        let easy = Counts {
            known: 2,
            known_detected: 2,
            identified: 1,
            misnamed: 1,
            strangers: 1,
            strangers_detected: 1,
            strangers_named: 1,
            ..Counts::default()
        };
        assert_eq!(score.easy, easy);
        let difficult = Counts { known: 1, strangers: 1, strangers_detected: 1, ..Counts::default() };
        assert_eq!(score.difficult, difficult);
        assert_eq!(score.named_in_ignored, 1);
        assert_eq!((score.false_detections, score.named_false_detections), (Some(2), Some(1)));
        assert_eq!(score.outside_truth, 1);
        assert_eq!(score.names_not_in_truth, BTreeSet::from(["carol".to_string()]));
        assert_eq!(score.people["bob"].known, 2);
        assert_eq!(score.easy.identification_rate(), Some(0.5));
        assert_eq!(score.easy.detection_recall(), Some(1.0));
        assert_eq!(score.difficult.identification_rate_of_detected(), None);
    }

    #[test]
    fn matching_is_one_to_one_and_takes_the_best_overlap() {
        let faces = truth(
            serde_json::json!([{"name": "a", "box": [0, 0, 10, 10]}, {"name": "b", "box": [4, 0, 14, 10]}]),
            serde_json::json!([]),
        );
        let faces = &faces.frames[&3].faces;
        let at = |x: f32| bbox([x, 0.0, x + 10.0, 10.0]);
        assert_eq!(match_frame(faces, &[at(3.5), at(0.5)], Rule::Iou), [Some(1), Some(0)]);
        assert_eq!(match_frame(faces, &[at(3.5)], Rule::Iou), [None, Some(0)], "one detection is one face");
        assert_eq!(match_frame(faces, &[at(3.9), at(4.0), at(4.1)], Rule::Iou), [Some(0), Some(1)]);
    }

    #[test]
    fn a_tight_truth_is_matched_by_centres_only_where_the_rule_says_so() {
        let truth = truth(serde_json::json!([{"name": "a", "box": [10, 10, 20, 20]}]), serde_json::json!([]));
        let wide = [seen([6.0, 6.0, 24.0, 24.0], Some("a"))];
        assert_eq!(score(&truth, &wide, Rule::Iou).easy.identified, 0);
        assert_eq!(score(&truth, &wide, Rule::IouOrCentres).easy.identified, 1);
    }

    #[test]
    fn a_detection_is_cut_off_where_the_picture_ends_as_the_truth_is() {
        let frame = serde_json::json!({"frame": 3, "faces": [{"name": "a", "box": [0, 0, 10, 40]}]});
        let file = serde_json::json!({"frames": [frame], "width": 640, "height": 360});
        let truth = Truth::from_frames(serde_json::from_value(file).unwrap());
        let half_outside = [seen([-20.0, 0.0, 10.0, 40.0], Some("a"))];
        assert_eq!(score(&truth, &half_outside, Rule::Iou).easy.identified, 1);
        let size_unknown = Truth { size_px: None, ..truth };
        assert_eq!(score(&size_unknown, &half_outside, Rule::Iou).easy.identified, 0);
    }

    #[test]
    fn tracks_are_a_truth_too_and_undecided_ones_do_not_count() {
        let file = serde_json::json!({"frames": 5, "faces": [
            {"track": 0, "name": "Ann", "easy": true, "score": 0.5, "frames": [[0, [0, 0, 9, 9]], [1, [0, 0, 9, 9]]]},
            {"track": 1, "name": null, "easy": false, "frames": [[1, [50, 0, 59, 9]]]},
            {"track": 2, "name": "Bob", "easy": false, "frames": [[1, [80, 0, 89, 9]]]},
        ]});
        let truth = Truth::from_clip(&serde_json::from_value(file).unwrap());
        let observations = [
            PredictedFace {
                frame: 0,
                bbox: [0.0, 0.0, 9.0, 9.0],
                name: Some("Ann".into()),
                ..PredictedFace::default()
            },
            PredictedFace {
                frame: 1,
                bbox: [50.0, 0.0, 59.0, 9.0],
                name: Some("Ann".into()),
                ..PredictedFace::default()
            },
            PredictedFace {
                frame: 1,
                bbox: [80.0, 0.0, 89.0, 9.0],
                name: Some("Ann".into()),
                ..PredictedFace::default()
            },
            PredictedFace { frame: 4, bbox: [80.0, 0.0, 89.0, 9.0], name: None, ..PredictedFace::default() },
        ];
        let all = score(&truth, &observations, Rule::Iou);
        assert_eq!((all.easy.known, all.easy.identified, all.frames), (2, 1, 5));
        assert_eq!((all.difficult.misnamed, all.false_detections, all.outside_truth), (1, None, 0));
        let without_bob = score(&truth.with_enrolled(&["ann".into()]), &observations, Rule::Iou);
        assert_eq!((without_bob.difficult.strangers, without_bob.difficult.strangers_named), (1, 1));
    }

    #[test]
    fn numbers_are_those_of_people_and_of_what_is_no_face() {
        let truth = truth(
            serde_json::json!([
                {"name": "ann", "id": "1", "box": [0, 0, 10, 10]},
                {"name": "unknown", "id": "2", "box": [20, 0, 30, 10]},
                {"name": "bob", "id": "3", "box": [40, 0, 50, 10], "partial": true},
            ]),
            serde_json::json!([[0, 100, 200, 200]]),
        );
        let numbered = |bbox, number| PredictedFace { stranger: Some(number), ..seen(bbox, None) };
        let mut observations = vec![
            numbered([0.0, 0.0, 10.0, 10.0], 1),
            numbered([20.0, 0.0, 30.0, 10.0], 1),
            numbered([40.0, 0.0, 50.0, 10.0], 1),
            numbered([10.0, 110.0, 20.0, 120.0], 1),
            PredictedFace { track: Some(9), ..numbered([300.0, 0.0, 310.0, 10.0], 1) },
        ];
        let counts = |observations: &[PredictedFace]| score(&truth, observations, Rule::Iou).numbers;
        assert_eq!(counts(&observations), NumberCounts { numbered: 3, shared: 2, split: 0 });
        observations[1].stranger = Some(2);
        observations[4].stranger = None;
        assert_eq!(counts(&observations), NumberCounts { numbered: 2, shared: 0, split: 0 });
    }

    #[test]
    fn a_continuous_face_is_switched_interrupted_and_renamed() {
        let face = |frame: u64, difficult: bool| {
            serde_json::json!({"frame": frame, "faces": [
                {"name": "ann", "id": "1", "box": [0, 0, 10, 10], "difficult": difficult}]})
        };
        let frames: Vec<_> = (0..12).map(|frame| face(frame, (6..8).contains(&frame))).collect();
        let truth =
            Truth::from_frames(serde_json::from_value(serde_json::json!({"frames": frames})).unwrap());
        let found = |frame: u64, track, name: Option<&str>| PredictedFace {
            frame,
            bbox: [0.0, 0.0, 10.0, 10.0],
            name: name.map(Into::into),
            stranger: None,
            track: Some(track),
            pts_ns: Some(frame * 500_000_000),
        };
        // Missed at 3; at 6 and 7, where it is difficult; and from 10 on, not to come back.
        let observations = [
            found(0, 1, None),
            found(1, 1, Some("Ann")),
            found(2, 1, Some("ann")),
            found(4, 2, Some("Bob")),
            found(5, 2, Some("Bob")),
            found(8, 2, Some("Bob")),
            found(9, 3, None),
        ];
        let score = score(&truth, &observations, Rule::Iou);
        let of = |counts: &Counts| (counts.switches, counts.interruptions, counts.renamings);
        assert_eq!(of(&score.easy), (2, 1, 3));
        assert_eq!(of(&score.difficult), (0, 1, 0));
        assert_eq!(of(&score.people["ann"]), (2, 2, 3));
        assert_eq!(score.frame_ns, Some(500_000_000));
        // Seven faces of half a second.
        assert!((score.easy.renamings_a_minute(score.frame_ns).unwrap() - 3.0 * 60.0 / 3.5).abs() < 1e-9);
        assert_eq!(score.difficult.renamings_a_minute(score.frame_ns), None);
        assert_eq!(frame_ns(&[found(3, 1, None)]), None, "one frame has no length");
    }
}
