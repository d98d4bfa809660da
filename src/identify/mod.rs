//! The open-set decision: a person of the gallery, or unknown.
//!
//! A probe is compared with every template of every person. The person with the nearest template is the
//! candidate, who is named only if the angle is below the threshold and the runner-up is farther by the
//! margin. Near a person's counter-examples, the threshold is lower.
//!
//! | decision about | function |
//! |---|---|
//! | one face alone | [`Identifier::identify`] |
//! | a track by its views | [`Evidence::decide`] |
//! | all tracks of a video, in two passes | [`decide`] |
//! | the tracks so far, online | [`Online::decide`] |
//!
//! In the last two, of two faces in one frame with the same name, the farther one loses it.

mod decision;
mod evidence;
mod online;
mod propagate;
mod threshold;
pub(crate) mod views;

pub use decision::{Decision, Votes, Who, decide};
pub use evidence::Evidence;
pub use online::{Online, View};
pub use propagate::ViaTrack;
pub use threshold::{
    Calibration, CalibrationPoint, DEFAULT_FMR, DEFAULT_FPIR, DEFAULT_MARGIN_DEG, Threshold, ThresholdError,
    ThresholdRequest, ThresholdSource, parse_angle_deg, parse_fmr, parse_margin_deg,
};
pub use views::{Spread, ViewCalibration, ViewCell};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::embed::Embedding;
use crate::gallery::search::{Hit, Mixed, Search, Which};
use crate::gallery::{PersonTemplates, Template, Templates, Viewpoint};
use crate::models::ModelId;
use crate::nn::Isa;

/// Largest angle between two views of one person in degrees: the default threshold by the calibration in a
/// model's metadata. `None` for a model without one.
pub fn same_person_deg(metadata: &std::collections::BTreeMap<String, String>) -> Option<f64> {
    Threshold::resolve(ThresholdRequest::Default, metadata).ok().map(|threshold| threshold.angle_deg())
}

/// Why a probe cannot be compared with the gallery.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The probe and the templates come from different models.
    #[error(
        "the face was embedded with model {probe} but the gallery's templates with {gallery}: use one model for both"
    )]
    OtherModel {
        /// Model of the probe.
        probe: ModelId,
        /// Model of the templates.
        gallery: ModelId,
    },
    /// The templates do not all come from one model, or differ in length.
    #[error(
        "the gallery's templates were made with several models: remove the folder `derived` of each person, which is rebuilt on the next run"
    )]
    MixedTemplates,
}

/// A person of the gallery as seen from one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Display name.
    pub name: String,
    /// Angle to the person's nearest template in degrees, 0..=180.
    pub angle_deg: f32,
    /// That template: the file name of a still, or `mean` for the mean of the stills.
    pub template: String,
    /// The handicap of the views of probe and template: degrees taken off the threshold, 0 or more.
    pub handicap_deg: f32,
}

impl Candidate {
    /// The angle that is compared with the threshold and ranks candidates: it includes the handicap.
    pub fn judged_deg(&self) -> f32 {
        self.angle_deg + self.handicap_deg
    }
}

/// The decision about one probe with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identification {
    /// The name; `None` is unknown: the nearest person is not below the threshold, or does not beat the
    /// runner-up.
    pub name: Option<String>,
    /// Whether the nearest person is below the threshold but does not beat the runner-up by the margin.
    pub ambiguous: bool,
    /// The nearest person, named or not; `None` when the gallery is empty.
    pub nearest: Option<Candidate>,
    /// The nearest other person.
    pub runner_up: Option<Candidate>,
    /// A nearer person, below the threshold, who was rejected because of a counter-example.
    pub rejected: Option<Rejection>,
}

/// A person who was skipped because of a counter-example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// The person.
    pub candidate: Candidate,
    /// File name of the counter-example that lies nearest to the probe.
    pub counter_example: String,
    /// The angle to it in degrees, no larger than that to the person.
    pub counter_angle_deg: f32,
}

impl Identification {
    /// The decision about a face without a gallery.
    pub const UNKNOWN: Identification =
        Identification { name: None, ambiguous: false, nearest: None, runner_up: None, rejected: None };
}

/// The gallery's templates packed for search, and the threshold.
#[derive(Debug)]
pub struct Identifier {
    model: ModelId,
    threshold: Threshold,
    margin_deg: f64,
    people: Vec<Known>,
    templates: Search,
    rejected: Search,
    views: Option<ViewCalibration>,
}

/// A person, with the source of each template and counter-example.
#[derive(Debug)]
struct Known {
    name: String,
    templates: Vec<(String, Viewpoint)>,
    rejected: Vec<String>,
}

impl Identifier {
    /// Packs `templates` for search.
    ///
    /// # Errors
    /// [`IdentifyError::MixedTemplates`] when a template is of another model or length than
    /// the first.
    pub fn new(templates: &Templates, threshold: Threshold) -> Result<Self, IdentifyError> {
        let sources = |templates: &[Template]| templates.iter().map(|one| one.source.clone()).collect();
        let known = |person: &PersonTemplates| Known {
            name: person.name.clone(),
            templates: person.templates.iter().map(|one| (one.source.clone(), one.view)).collect(),
            rejected: sources(&person.rejected),
        };
        let search =
            |which| Search::new(templates, which, Isa::best()).map_err(|Mixed| IdentifyError::MixedTemplates);
        Ok(Self {
            model: templates.model,
            threshold,
            margin_deg: 0.0,
            people: templates.people.iter().map(known).collect(),
            templates: search(Which::Templates)?,
            rejected: search(Which::Rejected)?,
            views: None,
        })
    }

    /// Adapts the threshold to the views of template and probe. Without this, all views have the same
    /// threshold.
    pub fn with_views(mut self, views: Option<ViewCalibration>) -> Self {
        self.views = views;
        self
    }

    /// Requires the best match to beat the runner-up by at least this margin in degrees (default 0).
    pub fn with_margin_deg(mut self, margin_deg: f64) -> Self {
        self.margin_deg = margin_deg;
        self
    }

    /// Sets the number of threads for searching a very large gallery (default 1).
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.templates = self.templates.with_threads(threads);
        self
    }

    /// The model of its embeddings.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// The threshold in force.
    pub fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    /// Display names, in gallery order.
    pub fn people(&self) -> impl ExactSizeIterator<Item = &str> {
        self.people.iter().map(|person| person.name.as_str())
    }

    /// Number of templates.
    pub fn templates_len(&self) -> usize {
        self.templates.len()
    }

    /// Identifies `probe`, seen as `view`: the person with the largest cosine over all of their templates,
    /// less the handicap of the views (see [`with_views`](Self::with_views)). Unknown unless the angle is
    /// below the threshold and beats the runner-up by the margin (see
    /// [`with_margin_deg`](Self::with_margin_deg)). Equal cosines go to the person who comes first in the
    /// gallery, which makes the result deterministic.
    ///
    /// Near a counter-example of a person, the threshold is lower for that person alone: the probe must be
    /// nearer to the person than to the counter-example. Away
    /// from it (beyond the threshold) nothing changes. A person who fails for that reason is skipped as if
    /// they were not in the gallery, and reported in [`Identification::rejected`].
    ///
    /// # Errors
    /// [`IdentifyError::OtherModel`], because angles across models are meaningless.
    pub fn identify(&self, probe: &Embedding, view: Viewpoint) -> Result<Identification, IdentifyError> {
        let other = IdentifyError::OtherModel { probe: probe.model(), gallery: self.model };
        if probe.model() != self.model {
            return Err(other);
        }
        if self.templates.is_empty() {
            return Ok(Identification::UNKNOWN);
        }
        let vector = probe.as_slice();
        let lengths = [&self.templates, &self.rejected].into_iter().filter(|search| !search.is_empty());
        if lengths.into_iter().any(|search| search.length() != vector.len()) {
            return Err(other);
        }
        let against: BTreeMap<usize, Hit> = if self.rejected.is_empty() {
            BTreeMap::new()
        } else {
            self.rejected.nearest(vector).into_iter().map(|hit| (hit.person, hit)).collect()
        };
        let (mut best, mut second): (Option<Judged>, Option<Judged>) = (None, None);
        let mut barred: Option<(Judged, Hit)> = None;
        for hit in self.judged(vector, view) {
            let beats = |held: Option<Judged>| held.is_none_or(|held| hit.is_nearer_than(&held));
            let near = |angle_deg: f32| f64::from(angle_deg) < self.threshold.angle_deg();
            if let Some(counter) = against.get(&hit.hit.person).filter(|one| near(angle_deg(one.cosine)))
                && counter.cosine >= hit.hit.cosine
            {
                if near(hit.judged_deg()) && beats(barred.map(|(held, _)| held)) {
                    barred = Some((hit, *counter));
                }
            } else if beats(best) {
                second = best;
                best = Some(hit);
            } else if beats(second) {
                second = Some(hit);
            }
        }
        let (nearest, runner_up) =
            (best.map(|hit| self.candidate(hit)), second.map(|hit| self.candidate(hit)));
        let near = nearest
            .as_ref()
            .filter(|candidate| f64::from(candidate.judged_deg()) < self.threshold.angle_deg());
        let ambiguous = near.zip(runner_up.as_ref()).is_some_and(|(near, runner_up)| {
            f64::from(runner_up.judged_deg()) - f64::from(near.judged_deg()) < self.margin_deg
        });
        let name = near.filter(|_| !ambiguous).map(|candidate| candidate.name.clone());
        // A person farther away than the named one does not affect the decision.
        let rejected = barred
            .filter(|(hit, _)| best.is_none_or(|best| !best.is_nearer_than(hit)))
            .map(|(hit, counter)| self.rejection(hit, counter));
        Ok(Identification { name, ambiguous, nearest, runner_up, rejected })
    }

    /// The nearest template of every person including the handicap, in the order of people.
    fn judged(&self, probe: &[f32], view: Viewpoint) -> Vec<Judged> {
        let alike = |hit| Judged { hit, handicap_deg: 0.0 };
        let Some(views) = &self.views else {
            return self.templates.nearest(probe).into_iter().map(alike).collect();
        };
        let threshold_deg = self.threshold.angle_deg();
        let mut nearest: Vec<Judged> = Vec::new();
        for hit in self.templates.near(probe) {
            let (_, template) = self.people[hit.person].templates[hit.template];
            let handicap_deg = views.handicap_deg(template, view, threshold_deg) as f32;
            let judged = Judged { hit, handicap_deg };
            match nearest.last_mut() {
                Some(last) if last.hit.person == hit.person => {
                    if judged.is_nearer_than(last) {
                        *last = judged;
                    }
                }
                _ => nearest.push(judged),
            }
        }
        nearest
    }

    fn candidate(&self, Judged { hit, handicap_deg }: Judged) -> Candidate {
        let person = &self.people[hit.person];
        let (template, _) = person.templates[hit.template].clone();
        Candidate { name: person.name.clone(), angle_deg: angle_deg(hit.cosine), template, handicap_deg }
    }

    fn rejection(&self, hit: Judged, counter: Hit) -> Rejection {
        Rejection {
            candidate: self.candidate(hit),
            counter_example: self.people[counter.person].rejected[counter.template].clone(),
            counter_angle_deg: angle_deg(counter.cosine),
        }
    }
}

/// A found template and its handicap.
#[derive(Debug, Clone, Copy)]
struct Judged {
    hit: Hit,
    handicap_deg: f32,
}

impl Judged {
    fn judged_deg(&self) -> f32 {
        angle_deg(self.hit.cosine) + self.handicap_deg
    }

    /// Equal handicaps are compared by cosines, which are finer than angles.
    fn is_nearer_than(&self, other: &Self) -> bool {
        if self.handicap_deg == other.handicap_deg {
            return self.hit.cosine > other.hit.cosine;
        }
        self.judged_deg() < other.judged_deg()
    }
}

/// The angle of a cosine in degrees; values outside [-1, 1] by rounding are clamped.
pub fn angle_deg(cosine: f32) -> f32 {
    f64::from(cosine).clamp(-1.0, 1.0).acos().to_degrees() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::{PersonTemplates, Template};

    const MODEL: ModelId = ModelId([1; 8]);

    /// A unit vector at `deg` degrees in the plane of the first two of 40 axes.
    fn at(model: ModelId, deg: f64) -> Embedding {
        let mut vector = vec![0.0; 40];
        (vector[0], vector[1]) = (deg.to_radians().cos() as f32, deg.to_radians().sin() as f32);
        Embedding::new(model, vector).unwrap()
    }

    fn gallery(people: &[(&str, &[f64])]) -> Templates {
        let people = people.iter().map(|(name, angles)| PersonTemplates {
            name: (*name).to_owned(),
            colour: None,
            templates: angles
                .iter()
                .map(|&deg| Template {
                    source: format!("{deg}.jpg"),
                    embedding: at(MODEL, deg),
                    view: Viewpoint::FRONTAL,
                })
                .collect(),
            rejected: Vec::new(),
        });
        Templates { model: MODEL, people: people.collect(), re_embedded: 0, not_saved: None }
    }

    fn below(deg: f64) -> Threshold {
        Threshold::from_angle(deg).unwrap()
    }

    #[test]
    fn names_the_nearest_over_all_templates_and_the_runner_up_is_somebody_else() {
        let templates = gallery(&[("Ann", &[0.0, 50.0]), ("Bo", &[100.0, 20.0]), ("Cy", &[170.0])]);
        let identifier = Identifier::new(&templates, below(60.0)).unwrap();
        assert_eq!(identifier.templates_len(), 5);

        let found = identifier.identify(&at(MODEL, 45.0), Viewpoint::FRONTAL).unwrap();
        assert_eq!(found.name.as_deref(), Some("Ann"));
        let (nearest, runner_up) = (found.nearest.unwrap(), found.runner_up.unwrap());
        assert!((nearest.angle_deg - 5.0).abs() < 0.01 && nearest.template == "50.jpg");
        assert!(runner_up.name == "Bo" && (runner_up.angle_deg - 25.0).abs() < 0.01);
    }

    #[test]
    fn the_runner_up_does_not_depend_on_the_order_of_templates() {
        for people in [[("A", [10.0, 40.0]), ("B", [20.0, 30.0])], [("A", [40.0, 10.0]), ("B", [30.0, 20.0])]]
        {
            let people: Vec<(&str, &[f64])> = people.iter().map(|(n, a)| (*n, a.as_slice())).collect();
            let identifier = Identifier::new(&gallery(&people), below(60.0)).unwrap();
            let found = identifier.identify(&at(MODEL, 0.0), Viewpoint::FRONTAL).unwrap();
            assert_eq!(found.name.as_deref(), Some("A"));
            assert!((found.nearest.unwrap().angle_deg - 10.0).abs() < 0.01);
            assert!((found.runner_up.unwrap().angle_deg - 20.0).abs() < 0.01);
        }
    }

    #[test]
    fn beyond_the_threshold_it_is_unknown_but_the_nearest_is_still_told() {
        let identifier = Identifier::new(&gallery(&[("Ann", &[0.0])]), below(68.0)).unwrap();
        assert_eq!(
            identifier.identify(&at(MODEL, 67.9), Viewpoint::FRONTAL).unwrap().name.as_deref(),
            Some("Ann")
        );
        let found = identifier.identify(&at(MODEL, 68.1), Viewpoint::FRONTAL).unwrap();
        assert_eq!(found.name, None);
        assert_eq!(found.nearest.unwrap().name, "Ann");
        assert_eq!(found.runner_up, None);
    }

    #[test]
    fn nobody_enrolled_makes_everybody_unknown() {
        let identifier = Identifier::new(&gallery(&[]), below(68.0)).unwrap();
        assert_eq!(
            identifier.identify(&at(MODEL, 0.0), Viewpoint::FRONTAL).unwrap(),
            Identification::UNKNOWN
        );
    }

    #[test]
    fn equal_angles_go_to_the_first_person() {
        let identifier = Identifier::new(&gallery(&[("A", &[10.0]), ("B", &[10.0])]), below(60.0)).unwrap();
        assert_eq!(
            identifier.identify(&at(MODEL, 10.0), Viewpoint::FRONTAL).unwrap().name.as_deref(),
            Some("A")
        );
    }

    #[test]
    fn models_are_never_mixed() {
        let other = ModelId([2; 8]);
        let identifier = Identifier::new(&gallery(&[("A", &[10.0])]), below(60.0)).unwrap();
        let error = identifier.identify(&at(other, 10.0), Viewpoint::FRONTAL).unwrap_err();
        assert!(
            matches!(error, IdentifyError::OtherModel { probe, gallery } if probe == other && gallery == MODEL)
        );

        let mut mixed = gallery(&[("A", &[10.0])]);
        mixed.people[0].templates.push(Template {
            source: "x".to_owned(),
            embedding: at(other, 1.0),
            view: Viewpoint::FRONTAL,
        });
        assert!(matches!(Identifier::new(&mixed, below(60.0)), Err(IdentifyError::MixedTemplates)));
    }

    /// `gallery` with counter-examples.
    #[test]
    fn who_is_as_near_to_somebody_else_is_left_open() {
        let templates = gallery(&[("Ann", &[0.0]), ("Bo", &[50.0])]);
        let identifier =
            |margin_deg| Identifier::new(&templates, below(60.0)).unwrap().with_margin_deg(margin_deg);
        let name = |margin_deg, deg| {
            let found = identifier(margin_deg).identify(&at(MODEL, deg), Viewpoint::FRONTAL).unwrap();
            assert_eq!(found.nearest.unwrap().name, if deg < 25.0 { "Ann" } else { "Bo" });
            (found.name, found.ambiguous)
        };
        assert_eq!(name(0.0, 24.9), (Some("Ann".into()), false));
        for deg in [24.6, 24.9, 25.1, 25.4] {
            assert_eq!(name(1.0, deg), (None, true), "{deg}");
        }
        assert_eq!(name(1.0, 24.4), (Some("Ann".into()), false));
        assert_eq!(name(1.0, 25.6), (Some("Bo".into()), false));
        // A face that is near no one is not ambiguous.
        assert_eq!(name(40.0, -70.0), (None, false));
        // Nor is one with a counter-example between the two people.
        let templates = with_rejected(&[("Ann", &[0.0]), ("Bo", &[50.0])], &[("Bo", 30.0)]);
        let identifier = Identifier::new(&templates, below(60.0)).unwrap().with_margin_deg(1.0);
        assert_eq!(identifier.identify(&at(MODEL, 24.9), Viewpoint::FRONTAL).unwrap().name.unwrap(), "Ann");
    }

    fn with_rejected(people: &[(&str, &[f64])], rejected: &[(&str, f64)]) -> Templates {
        let mut templates = gallery(people);
        for (name, deg) in rejected {
            let person = templates.people.iter_mut().find(|person| person.name == *name).unwrap();
            person.rejected.push(Template {
                source: format!("not-{deg}.jpg"),
                embedding: at(MODEL, *deg),
                view: Viewpoint::FRONTAL,
            });
        }
        templates
    }

    #[test]
    fn a_counter_example_raises_the_bar_for_one_name_near_it_and_nowhere_else() {
        let people: &[(&str, &[f64])] = &[("Ann", &[0.0]), ("Bo", &[120.0])];
        let without = Identifier::new(&gallery(people), below(60.0)).unwrap();
        let with = Identifier::new(&with_rejected(people, &[("Ann", 50.0)]), below(60.0)).unwrap();
        for deg in -90..=179 {
            let probe = at(MODEL, f64::from(deg));
            let [before, after] =
                [&without, &with].map(|one| one.identify(&probe, Viewpoint::FRONTAL).unwrap());
            // Nearer to the counter-example at 50 degrees than to Ann at 0.
            let rejected = before.name.as_deref() == Some("Ann") && deg >= 25;
            if rejected {
                assert_ne!(after.name.as_deref(), Some("Ann"), "{deg}");
                let why = after.rejected.unwrap();
                assert_eq!(
                    (why.candidate.name.as_str(), why.counter_example.as_str()),
                    ("Ann", "not-50.jpg")
                );
                assert!(why.counter_angle_deg <= why.candidate.angle_deg);
            } else {
                assert_eq!(before.name, after.name, "{deg}");
            }
        }
        // Ann's own view at 24 degrees stays hers, though the counter-example is 26 away.
        assert_eq!(with.identify(&at(MODEL, 24.0), Viewpoint::FRONTAL).unwrap().name.as_deref(), Some("Ann"));
    }

    #[test]
    fn who_is_next_gets_the_name_when_the_nearest_is_rejected() {
        let people: &[(&str, &[f64])] = &[("Ann", &[0.0]), ("Bo", &[80.0])];
        let identifier = Identifier::new(&with_rejected(people, &[("Ann", 35.0)]), below(60.0)).unwrap();
        let found = identifier.identify(&at(MODEL, 36.0), Viewpoint::FRONTAL).unwrap();
        assert_eq!(found.name.as_deref(), Some("Bo"));
        assert_eq!(found.rejected.unwrap().candidate.name, "Ann");
        assert_eq!(found.runner_up, None, "Ann is out");
    }
}
