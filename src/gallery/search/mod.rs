//! Search: which templates lie nearest to a probe.
//!
//! Small galleries are searched exactly, every template by SIMD ([`exact`]). Beyond
//! [`EXACT_UP_TO`] templates an index on disk ([`VectorIndex`]) proposes the nearest few and
//! their exact angles decide, so that an angle is the same number whichever way it was found.

pub mod exact;

use super::Templates;
use crate::nn::Isa;

/// The nearest template of one person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The person, as counted in [`Templates::people`].
    pub person: usize,
    /// The template among the person's.
    pub template: usize,
    /// Cosine of its angle to the probe.
    pub cosine: f32,
}

/// The templates do not all come from one model, or differ in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed;

/// Templates of people, laid out for search.
#[derive(Debug)]
pub struct Search {
    isa: Isa,
    length: usize,
    /// For each person, where their first row is; then the number of rows.
    starts: Vec<usize>,
    /// Unit vectors of `length` values, one a row, those of a person together.
    matrix: Vec<f32>,
}

impl Search {
    /// Lays out the templates of everybody, or their counter-examples.
    ///
    /// # Errors
    /// [`Mixed`] when a template is of another model or length than the first.
    pub fn new(templates: &Templates, which: Which, isa: Isa) -> Result<Self, Mixed> {
        let mut search = Search { isa, length: 0, starts: vec![0], matrix: Vec::new() };
        let mut rows = 0;
        for person in &templates.people {
            let held = match which {
                Which::Templates => &person.templates,
                Which::Rejected => &person.rejected,
            };
            for template in held {
                let vector = template.embedding.as_slice();
                if rows == 0 {
                    search.length = vector.len();
                }
                if template.embedding.model() != templates.model || vector.len() != search.length {
                    return Err(Mixed);
                }
                search.matrix.extend_from_slice(vector);
                rows += 1;
            }
            search.starts.push(rows);
        }
        Ok(search)
    }

    /// Values of a vector; 0 when there are no templates.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Templates.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nearest template of everybody who has any, in the order of people. Of equally near
    /// ones the first. `probe` is a unit vector of [`Search::length`] values.
    pub fn nearest(&self, probe: &[f32]) -> Vec<Hit> {
        let mut cosines = vec![0.0; self.len()];
        exact::cosines(self.isa, probe, &self.matrix, &mut cosines);
        let mut hits = Vec::with_capacity(self.starts.len());
        for (person, pair) in self.starts.windows(2).enumerate() {
            let mut best: Option<Hit> = None;
            for (template, &cosine) in cosines[pair[0]..pair[1]].iter().enumerate() {
                if best.is_none_or(|hit| cosine > hit.cosine) {
                    best = Some(Hit { person, template, cosine });
                }
            }
            hits.extend(best);
        }
        hits
    }
}

/// What of a person is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Their stills and the mean of them.
    Templates,
    /// Their counter-examples.
    Rejected,
}
