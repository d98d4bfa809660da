//! The decision about tracks while they continue.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, Decision, Evidence, Identification, Identifier, IdentifyError, Votes, Who};
use crate::detect::{Face, Quality};
use crate::embed::Embedding;
use crate::gallery;
use crate::track::{GAP_NS, Moment, TrackId, weight_inside};

/// Hysteresis in degrees: a track keeps its name until it exceeds the threshold by this, or another person is
/// nearer by this.
const HOLD_DEG: f32 = 3.0;
/// Number of the latest tracks of strangers that are remembered.
const MOST_STRANGERS: usize = 1000;

/// A face of a track in one frame.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its track.
    pub track: TrackId,
    /// Its box and detector score.
    pub face: &'a Face,
    /// Its quality.
    pub quality: &'a Quality,
    /// Its embedding, if it has one.
    pub embedding: Option<&'a Embedding>,
}

/// Decides about tracks frame by frame with the frames so far. A name, once given, is kept despite small
/// doubts.
pub struct Online {
    same_deg: Option<f64>,
    tracks: BTreeMap<TrackId, Held>,
    strangers: BTreeMap<TrackId, Stranger>,
    next: u32,
}

/// A stranger as seen in a track that [shows enough](Evidence::is_distinct) to recognise them.
struct Stranger {
    number: u32,
    template: Embedding,
}

struct Held {
    evidence: Evidence,
    identification: Identification,
    votes: Votes,
    stranger: Option<u32>,
    /// The number is the last one.
    settled: bool,
    pts_ns: u64,
}

impl Online {
    /// Starts without tracks. `same_deg` as in [`decide`](super::decide).
    pub fn new(same_deg: Option<f64>) -> Self {
        Self { same_deg, tracks: BTreeMap::new(), strangers: BTreeMap::new(), next: 1 }
    }

    /// The decisions about the faces of the next frame, in their order. Of two with the same name, the
    /// farther one loses it.
    ///
    /// # Errors
    /// [`IdentifyError`] when an embedding cannot be compared with the gallery's.
    pub fn decide(
        &mut self,
        identifier: Option<&Identifier>,
        moment: &Moment,
        views: &[View<'_>],
    ) -> Result<Vec<Decision>, IdentifyError> {
        self.tracks.retain(|_, held| moment.pts_ns.saturating_sub(held.pts_ns) <= GAP_NS);
        for view in views {
            self.add(identifier, moment, view)?;
        }
        let mut names: Vec<Option<String>> = views.iter().map(|view| self.name(view.track)).collect();
        let angle = |view: &View<'_>| self.angle_deg(view.track);
        for (a, one) in views.iter().enumerate() {
            let nearer = |(b, other): (usize, &View<'_>)| {
                b != a && names[b] == names[a] && (angle(other), other.track) < (angle(one), one.track)
            };
            if names[a].is_some() && views.iter().enumerate().any(nearer) {
                names[a] = None;
            }
        }
        let threshold_deg = identifier.map(|identifier| identifier.threshold().angle_deg());
        let mut decisions = Vec::with_capacity(views.len());
        for (view, name) in views.iter().zip(names) {
            let who = match name {
                Some(name) => Who::Named(name),
                None => Who::Stranger(self.stranger(view.track, views)),
            };
            let Some(held) = self.tracks.get(&view.track) else { continue };
            decisions.push(Decision {
                track: view.track,
                who,
                nearest: held.identification.nearest.clone(),
                runner_up: held.identification.runner_up.clone(),
                rejected: held.identification.rejected.clone(),
                via_track: None,
                threshold_deg,
                ambiguous: held.identification.ambiguous,
                votes: held.votes,
                best_frame: held.evidence.best_frame(),
            });
        }
        Ok(decisions)
    }

    /// Decides again about the current tracks with another gallery; no track keeps a name from the old one.
    ///
    /// # Errors
    /// [`IdentifyError`] when their embeddings cannot be compared with that gallery's.
    pub fn judge_anew(&mut self, identifier: Option<&Identifier>) -> Result<(), IdentifyError> {
        for held in self.tracks.values_mut() {
            (held.identification, held.votes) = match identifier {
                Some(identifier) => held.evidence.decide(identifier)?,
                None => (Identification::UNKNOWN, Votes::default()),
            };
        }
        Ok(())
    }

    fn add(
        &mut self,
        identifier: Option<&Identifier>,
        moment: &Moment,
        view: &View<'_>,
    ) -> Result<(), IdentifyError> {
        let held = self.tracks.entry(view.track).or_insert_with(|| Held {
            evidence: Evidence::default(),
            identification: Identification::UNKNOWN,
            votes: Votes::default(),
            stranger: None,
            settled: false,
            pts_ns: moment.pts_ns,
        });
        held.pts_ns = moment.pts_ns;
        let weight = weight_inside(view.face, view.quality);
        held.evidence.see(moment.frame, weight, view.face.score);
        let Some(embedding) = view.embedding else { return Ok(()) };
        held.evidence.add(embedding, weight, gallery::Viewpoint::of(view.face, view.quality), identifier)?;
        if let Some(identifier) = identifier {
            let (identification, votes) = held.evidence.decide(identifier)?;
            held.identification = keep_name(&held.identification, identification, identifier);
            held.votes = votes;
        }
        Ok(())
    }

    fn name(&self, track: TrackId) -> Option<String> {
        self.tracks.get(&track)?.identification.name.clone()
    }

    fn angle_deg(&self, track: TrackId) -> f32 {
        let nearest = self.tracks.get(&track).and_then(|held| held.identification.nearest.as_ref());
        nearest.map_or(f32::INFINITY, Candidate::judged_deg)
    }

    /// The number of a stranger. A track begins with a new one. Once it shows enough of the person, it takes
    /// the number of the nearest earlier stranger who is not in the frame, if there is one, and keeps it from
    /// then on.
    fn stranger(&mut self, track: TrackId, views: &[View<'_>]) -> u32 {
        let here: BTreeSet<u32> = (views.iter().filter(|view| view.track != track))
            .filter_map(|view| self.tracks.get(&view.track)?.stranger)
            .collect();
        let Some(held) = self.tracks.get_mut(&track) else { return self.next };
        let template = held.evidence.template().filter(|_| held.evidence.is_distinct());
        if let (Some(template), false) = (&template, held.settled) {
            held.settled = true;
            let absent = self.strangers.values().filter(|one| !here.contains(&one.number));
            let angles = absent.filter_map(|one| Some((template.angle_deg(&one.template)?, one.number)));
            let near = angles.filter(|(deg, _)| self.same_deg.is_some_and(|same_deg| *deg < same_deg));
            if let Some((_, number)) = near.min_by(|a, b| a.0.total_cmp(&b.0)) {
                held.stranger = Some(number);
            }
        }
        let number = *held.stranger.get_or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        if let Some(template) = template {
            self.strangers.insert(track, Stranger { number, template });
            if self.strangers.len() > MOST_STRANGERS {
                self.strangers.pop_first();
            }
        }
        number
    }
}

/// The new decision about a track, unless it would remove a name because of a small doubt.
fn keep_name(before: &Identification, now: Identification, identifier: &Identifier) -> Identification {
    let Some(name) = before.name.as_deref().filter(|_| before.name != now.name) else { return now };
    let threshold_deg = identifier.threshold().angle_deg() as f32;
    let own = [&now.nearest, &now.runner_up].into_iter().flatten().find(|candidate| candidate.name == name);
    let Some(own) = own.cloned() else { return now };
    let own_deg = own.judged_deg();
    let nearest_deg = now.nearest.as_ref().map_or(own_deg, Candidate::judged_deg);
    if own_deg >= threshold_deg + HOLD_DEG || own_deg >= nearest_deg + HOLD_DEG {
        return now;
    }
    let others = [now.nearest, now.runner_up].into_iter().flatten();
    let runner_up = others.into_iter().find(|candidate| candidate.name != own.name);
    Identification {
        name: before.name.clone(),
        ambiguous: false,
        nearest: Some(own),
        runner_up,
        rejected: now.rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::BBox;
    use crate::gallery::{PersonTemplates, Template, Templates};
    use crate::identify::{Threshold, decide};
    use crate::models::ModelId;
    use crate::track::Observation;

    const MODEL: ModelId = ModelId([1; 8]);
    const FRAME_NS: u64 = 40_000_000;

    fn at(deg: f64) -> Embedding {
        let values = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
        Embedding::new(MODEL, values).unwrap()
    }

    fn identifier(people: &[(&str, f64)]) -> Identifier {
        let people = people.iter().map(|(name, deg)| PersonTemplates {
            name: (*name).to_owned(),
            colour: None,
            templates: vec![Template {
                source: "1.jpg".into(),
                embedding: at(*deg),
                view: crate::gallery::Viewpoint::FRONTAL,
            }],
            rejected: Vec::new(),
        });
        let templates = Templates { model: MODEL, people: people.collect(), re_embedded: 0, not_saved: None };
        Identifier::new(&templates, Threshold::from_angle(60.0).unwrap()).unwrap()
    }

    fn quality(size_px: f32, yaw_deg: f32) -> Quality {
        Quality { size_px, yaw_deg, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 }
    }

    fn face(score: f32) -> Face {
        Face { bbox: BBox { x1: 0.0, y1: 0.0, x2: 80.0, y2: 80.0 }, score, landmarks: [[0.0; 2]; 5] }
    }

    /// The names of one track over frames with these embeddings.
    fn names(identifier: &Identifier, degs: &[f64]) -> Vec<String> {
        let mut online = Online::new(Some(60.0));
        let good = quality(80.0, 0.0);
        let frame = |(frame, &deg): (usize, &f64)| {
            let moment = Moment { frame: frame as u64, pts_ns: frame as u64 * FRAME_NS, cut: false };
            let embedding = at(deg);
            let view =
                View { track: TrackId(1), face: &face(1.0), quality: &good, embedding: Some(&embedding) };
            online.decide(Some(identifier), &moment, &[view]).unwrap()[0].who.to_string()
        };
        degs.iter().enumerate().map(frame).collect()
    }

    #[test]
    fn a_name_is_held_against_small_doubts_and_lost_to_large_ones() {
        let one = identifier(&[("Ann", 0.0)]);
        assert_eq!(names(&one, &[50.0, 72.0]), ["Ann", "Ann"], "61 degrees together");
        assert_eq!(names(&one, &[50.0, 90.0]), ["Ann", "Unknown 1"], "70 degrees together");
        assert_eq!(names(&one, &[62.0]), ["Unknown 1"], "not held yet");
        let two = identifier(&[("Ann", 0.0), ("Bo", 100.0)]);
        assert_eq!(names(&two, &[49.0, 53.0]), ["Ann", "Ann"], "51 and 49 degrees together");
        assert_eq!(names(&two, &[49.0, 60.0, 60.0]), ["Ann", "Bo", "Bo"]);
    }

    #[test]
    fn two_in_one_frame_have_two_names_and_a_stranger_keeps_the_number() {
        let identifier = identifier(&[("Ann", 0.0)]);
        let mut online = Online::new(Some(30.0));
        let (good, sure) = (quality(80.0, 0.0), face(1.0));
        let mut see = |frame: u64, faces: &[(u32, f64)]| -> Vec<String> {
            let moment = Moment { frame, pts_ns: frame * FRAME_NS, cut: false };
            let embeddings: Vec<Embedding> = faces.iter().map(|(_, deg)| at(*deg)).collect();
            let views: Vec<View<'_>> = faces
                .iter()
                .zip(&embeddings)
                .map(|((track, _), embedding)| View {
                    track: TrackId(*track),
                    face: &sure,
                    quality: &good,
                    embedding: Some(embedding),
                })
                .collect();
            online
                .decide(Some(&identifier), &moment, &views)
                .unwrap()
                .iter()
                .map(|one| one.who.to_string())
                .collect()
        };
        assert_eq!(see(0, &[(1, 50.0), (2, 20.0), (3, 170.0)]), ["Unknown 1", "Ann", "Unknown 2"]);
        assert_eq!(see(1, &[(1, 50.0)]), ["Ann"], "the nearer one is gone");
        assert_eq!(see(500, &[(4, 160.0), (5, 100.0)]), ["Unknown 2", "Unknown 3"]);
    }

    #[test]
    fn a_poor_view_has_its_own_number_until_a_better_one_tells_who_it_is() {
        let mut online = Online::new(Some(30.0));
        let mut see = |frame: u64, track: u32, deg: f64, yaw_deg: f32, score: f32| {
            let moment = Moment { frame, pts_ns: frame * FRAME_NS, cut: false };
            let (face, quality, embedding) = (face(score), quality(80.0, yaw_deg), at(deg));
            let view =
                View { track: TrackId(track), face: &face, quality: &quality, embedding: Some(&embedding) };
            online.decide(None, &moment, &[view]).unwrap()[0].who.to_string()
        };
        assert_eq!(see(0, 1, 0.0, 0.0, 1.0), "Unknown 1");
        assert_eq!(see(500, 2, 10.0, 60.0, 1.0), "Unknown 2", "from the side");
        assert_eq!(see(501, 2, 10.0, 60.0, 1.0), "Unknown 2");
        assert_eq!(see(502, 2, 12.0, 0.0, 1.0), "Unknown 1");
        assert_eq!(see(503, 2, 170.0, 0.0, 1.0), "Unknown 1", "for the rest of the track");
        assert_eq!(see(1000, 3, 10.0, 0.0, 0.9), "Unknown 3", "hardly a face");
        assert_eq!(see(1500, 4, 10.0, 60.0, 1.0), "Unknown 4");
        assert_eq!(see(2000, 5, 170.0, 0.0, 1.0), "Unknown 5", "whom nobody else was like");
    }

    #[test]
    fn with_all_in_view_poor_views_and_what_is_hardly_a_face_have_numbers_of_their_own() {
        let (good, turned) = (quality(80.0, 0.0), quality(80.0, 60.0));
        let mut observations = vec![
            seen(1, 0, 0.0, good),
            seen(2, 100, 5.0, turned),
            seen(3, 200, 10.0, good),
            seen(4, 300, 5.0, turned),
            seen(5, 400, 5.0, good),
        ];
        observations[4].face.score = 0.95;
        let decisions = decide(&observations, None, Some(30.0)).unwrap();
        let who: Vec<String> = decisions.iter().map(|one| one.who.to_string()).collect();
        assert_eq!(who, ["Unknown 1", "Unknown 2", "Unknown 1", "Unknown 3", "Unknown 4"]);
    }

    fn seen(track: u32, frame: u64, deg: f64, quality: Quality) -> Observation {
        Observation {
            frame,
            pts_ns: frame * FRAME_NS,
            duration_ns: FRAME_NS,
            face: face(1.0),
            quality,
            embedding: Some(at(deg)),
            track: TrackId(track),
        }
    }

    #[test]
    fn with_all_in_view_a_track_gets_its_name_through_another() {
        let identifier = identifier(&[("Ann", 0.0)]);
        let good = quality(80.0, 0.0);
        // The last of them shares a frame with the first.
        let observations =
            [seen(1, 0, 20.0, good), seen(2, 1, 64.0, good), seen(3, 2, 66.0, good), seen(4, 0, 63.0, good)];
        let decisions = decide(&observations, Some(&identifier), None).unwrap();
        let who: Vec<String> = decisions.iter().map(|one| one.who.to_string()).collect();
        assert_eq!(who, ["Ann", "Ann", "Unknown 1", "Unknown 2"]);
        let through: Vec<_> =
            decisions.iter().map(|one| one.via_track.map(|through| through.track)).collect();
        assert_eq!(through, [None, Some(TrackId(1)), None, None]);
    }

    #[test]
    fn with_all_in_view_who_is_as_near_to_two_people_is_named_through_another_track_only() {
        let identifier = identifier(&[("Ann", 0.0), ("Bo", 50.0)]).with_margin_deg(1.0);
        let good = quality(80.0, 0.0);
        let torn = seen(2, 2, 24.8, good);
        let alone = decide(std::slice::from_ref(&torn), Some(&identifier), Some(10.0)).unwrap();
        assert!(alone[0].ambiguous && alone[0].who == Who::Stranger(1), "{alone:?}");
        let both = [seen(1, 1, 10.0, good), torn];
        let both = decide(&both, Some(&identifier), Some(10.0)).unwrap();
        assert!(!both[1].ambiguous && both[1].who.name() == Some("Ann"), "{both:?}");
    }

    #[test]
    fn a_name_is_kept_when_somebody_else_comes_as_near() {
        let identifier = identifier(&[("Ann", 0.0), ("Bo", 50.0)]).with_margin_deg(1.0);
        assert_eq!(names(&identifier, &[24.0, 25.6]), ["Ann", "Ann"], "24.8 degrees together");
    }

    #[test]
    fn a_blurred_profile_does_not_outvote_good_views() {
        let identifier = identifier(&[("Ann", 0.0), ("Bo", 120.0)]);
        let mut bad = quality(40.0, 60.0);
        bad.sharpness = 0.05;
        let mut observations: Vec<Observation> = (0..20).map(|frame| seen(1, frame, 120.0, bad)).collect();
        observations.extend((20..30).map(|frame| seen(1, frame, 30.0, quality(80.0, 5.0))));
        let decision = &decide(&observations, Some(&identifier), None).unwrap()[0];
        assert_eq!(decision.who, Who::Named("Ann".into()));
        assert_eq!((decision.votes.views, decision.votes.nearest, decision.votes.named), (30, 10, 10));
        assert!(decision.votes.share > 0.9 && decision.best_frame == 20, "{decision:?}");
        assert_eq!(decision.runner_up.as_ref().unwrap().name, "Bo");
    }
}
