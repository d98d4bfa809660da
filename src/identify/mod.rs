//! The open-set decision: who of the gallery, or nobody of it.
//!
//! A probe is compared with every template of every person; the person whose nearest template
//! lies at the smallest angle is the candidate, and is named only when that angle is below the
//! threshold. The search is exact: there is no index to be approximately right.

mod decision;
mod evidence;
mod online;
mod threshold;

pub use decision::{Decision, Votes, Who, decide};
pub use evidence::Evidence;
pub use online::{Online, View};
pub use threshold::{
    Calibration, CalibrationPoint, DEFAULT_FMR, Threshold, ThresholdError, ThresholdRequest, ThresholdSource,
    parse_angle_deg, parse_fmr,
};

use serde::{Deserialize, Serialize};

use crate::embed::Embedding;
use crate::gallery::Templates;
use crate::nn::ModelId;

/// How far apart two views of one person are at most, in degrees: the angle of the default
/// threshold by the calibration in a model's metadata. `None` for a model without one.
pub fn same_person_deg(metadata: &std::collections::BTreeMap<String, String>) -> Option<f64> {
    Threshold::resolve(ThresholdRequest::Default, metadata).ok().map(|threshold| threshold.angle_deg())
}

/// Why a probe cannot be compared with the gallery.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The probe and the templates come from different models.
    #[error(
        "the face was embedded by model {probe} but the gallery's templates by {gallery}: label with one model"
    )]
    OtherModel {
        /// Model of the probe.
        probe: ModelId,
        /// Model of the templates.
        gallery: ModelId,
    },
    /// The templates do not all come from one model, or differ in length.
    #[error(
        "the gallery's templates come from several models: remove the folder `derived` of each person, it is rebuilt"
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
    /// That template: the file name of a still, or `mean` for the mean of all stills.
    pub template: String,
}

/// The decision about one probe, with what explains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identification {
    /// Who it is; `None` is unknown: the nearest person is not near enough.
    pub name: Option<String>,
    /// The nearest person, named or not; `None` when the gallery is empty.
    pub nearest: Option<Candidate>,
    /// The nearest other person.
    pub runner_up: Option<Candidate>,
}

impl Identification {
    /// The decision about a face before a gallery of nobody.
    pub const UNKNOWN: Identification = Identification { name: None, nearest: None, runner_up: None };
}

/// One row of the search matrix.
#[derive(Debug)]
struct Row {
    person: usize,
    template: String,
}

/// The gallery's templates laid out for search, and the threshold they are held to.
#[derive(Debug)]
pub struct Identifier {
    model: ModelId,
    threshold: Threshold,
    people: Vec<String>,
    rows: Vec<Row>,
    /// `rows.len()` unit vectors of `length` values.
    matrix: Vec<f32>,
    length: usize,
}

impl Identifier {
    /// Lays out `templates` for search.
    ///
    /// # Errors
    /// [`IdentifyError::MixedTemplates`] when a template is of another model or length than
    /// the first.
    pub fn new(templates: &Templates, threshold: Threshold) -> Result<Self, IdentifyError> {
        let mut identifier = Identifier {
            model: templates.model,
            threshold,
            people: Vec::new(),
            rows: Vec::new(),
            matrix: Vec::new(),
            length: 0,
        };
        for (person, entry) in templates.people.iter().enumerate() {
            identifier.people.push(entry.name.clone());
            for template in &entry.templates {
                let vector = template.embedding.as_slice();
                if identifier.rows.is_empty() {
                    identifier.length = vector.len();
                }
                if template.embedding.model() != templates.model || vector.len() != identifier.length {
                    return Err(IdentifyError::MixedTemplates);
                }
                identifier.rows.push(Row { person, template: template.source.clone() });
                identifier.matrix.extend_from_slice(vector);
            }
        }
        Ok(identifier)
    }

    /// The model whose embeddings it takes.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// The threshold in force.
    pub fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    /// Display names, in gallery order.
    pub fn people(&self) -> &[String] {
        &self.people
    }

    /// Templates searched.
    pub fn templates_len(&self) -> usize {
        self.rows.len()
    }

    /// Who `probe` is: the person with the largest cosine over all of their templates, unknown
    /// unless the angle is below the threshold. Equal cosines go to the person who comes first
    /// in the gallery, so that the answer never depends on anything else.
    ///
    /// # Errors
    /// [`IdentifyError::OtherModel`]: angles across models mean nothing.
    pub fn identify(&self, probe: &Embedding) -> Result<Identification, IdentifyError> {
        let other = IdentifyError::OtherModel { probe: probe.model(), gallery: self.model };
        if probe.model() != self.model {
            return Err(other);
        }
        if self.rows.is_empty() {
            return Ok(Identification::UNKNOWN);
        }
        if probe.as_slice().len() != self.length {
            return Err(other);
        }
        // (cosine, row) of the nearest template of the nearest person, and of the nearest other.
        let mut best: Option<(f32, usize)> = None;
        let mut second: Option<(f32, usize)> = None;
        for (index, template) in self.matrix.chunks_exact(self.length).enumerate() {
            let cosine = dot(probe.as_slice(), template);
            let beats = |held: Option<(f32, usize)>| held.is_none_or(|(most, _)| cosine > most);
            let person = self.rows[index].person;
            match best {
                Some((_, row)) if self.rows[row].person == person => {
                    if beats(best) {
                        best = Some((cosine, index));
                    }
                }
                _ if beats(best) => {
                    second = best;
                    best = Some((cosine, index));
                }
                _ if beats(second) => second = Some((cosine, index)),
                _ => {}
            }
        }
        let nearest = best.map(|held| self.candidate(held));
        let name = nearest
            .as_ref()
            .filter(|candidate| f64::from(candidate.angle_deg) < self.threshold.angle_deg())
            .map(|candidate| candidate.name.clone());
        Ok(Identification { name, nearest, runner_up: second.map(|held| self.candidate(held)) })
    }

    fn candidate(&self, (cosine, row): (f32, usize)) -> Candidate {
        let row = &self.rows[row];
        Candidate {
            name: self.people[row.person].clone(),
            angle_deg: angle_deg(cosine),
            template: row.template.clone(),
        }
    }
}

/// The angle of a cosine in degrees; values outside [-1, 1] by rounding are clamped.
pub fn angle_deg(cosine: f32) -> f32 {
    f64::from(cosine).clamp(-1.0, 1.0).acos().to_degrees() as f32
}

/// Dot product in 16 running sums: a fixed order of additions that every vector unit can use,
/// so the result is the same on all of them.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
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
            templates: angles
                .iter()
                .map(|&deg| Template { source: format!("{deg}.jpg"), embedding: at(MODEL, deg) })
                .collect(),
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

        let found = identifier.identify(&at(MODEL, 45.0)).unwrap();
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
            let found = identifier.identify(&at(MODEL, 0.0)).unwrap();
            assert_eq!(found.name.as_deref(), Some("A"));
            assert!((found.nearest.unwrap().angle_deg - 10.0).abs() < 0.01);
            assert!((found.runner_up.unwrap().angle_deg - 20.0).abs() < 0.01);
        }
    }

    #[test]
    fn beyond_the_threshold_it_is_unknown_but_the_nearest_is_still_told() {
        let identifier = Identifier::new(&gallery(&[("Ann", &[0.0])]), below(68.0)).unwrap();
        assert_eq!(identifier.identify(&at(MODEL, 67.9)).unwrap().name.as_deref(), Some("Ann"));
        let found = identifier.identify(&at(MODEL, 68.1)).unwrap();
        assert_eq!(found.name, None);
        assert_eq!(found.nearest.unwrap().name, "Ann");
        assert_eq!(found.runner_up, None);
    }

    #[test]
    fn nobody_enrolled_makes_everybody_unknown() {
        let identifier = Identifier::new(&gallery(&[]), below(68.0)).unwrap();
        assert_eq!(identifier.identify(&at(MODEL, 0.0)).unwrap(), Identification::UNKNOWN);
    }

    #[test]
    fn equal_angles_go_to_the_first_person() {
        let identifier = Identifier::new(&gallery(&[("A", &[10.0]), ("B", &[10.0])]), below(60.0)).unwrap();
        assert_eq!(identifier.identify(&at(MODEL, 10.0)).unwrap().name.as_deref(), Some("A"));
    }

    #[test]
    fn models_are_never_mixed() {
        let other = ModelId([2; 8]);
        let identifier = Identifier::new(&gallery(&[("A", &[10.0])]), below(60.0)).unwrap();
        let error = identifier.identify(&at(other, 10.0)).unwrap_err();
        assert!(
            matches!(error, IdentifyError::OtherModel { probe, gallery } if probe == other && gallery == MODEL)
        );

        let mut mixed = gallery(&[("A", &[10.0])]);
        mixed.people[0].templates.push(Template { source: "x".to_owned(), embedding: at(other, 1.0) });
        assert!(matches!(Identifier::new(&mixed, below(60.0)), Err(IdentifyError::MixedTemplates)));
    }

    #[test]
    fn the_dot_product_is_exact_at_odd_lengths() {
        for length in [0, 1, 15, 16, 17, 33, 512] {
            let a: Vec<f32> = (0..length).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..length).map(|i| (i % 5) as f32).collect();
            let expected: f64 = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            assert_eq!(f64::from(dot(&a, &b)), expected, "{length}");
        }
    }
}
