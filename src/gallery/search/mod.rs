//! Search: which templates lie nearest to a probe.
//!
//! Small galleries are searched exactly, every template by SIMD ([`exact`]). Beyond
//! [`EXACT_UP_TO`] templates an index on disk ([`VectorIndex`]) proposes the nearest few and
//! their exact angles decide, so that an angle is the same number whichever way it was found.

pub mod exact;
mod index;

pub use index::{Change, PROPOSED, VectorIndex};

use std::path::Path;

use super::{GalleryError, Templates};
use crate::nn::Isa;

/// Templates up to which a gallery is searched exactly: a few milliseconds on one core.
pub const EXACT_UP_TO: usize = 50_000;

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
    /// Proposes rows, in a large gallery.
    index: Option<VectorIndex>,
}

impl Search {
    /// Lays out the templates of everybody, or their counter-examples.
    ///
    /// # Errors
    /// [`Mixed`] when a template is of another model or length than the first.
    pub fn new(templates: &Templates, which: Which, isa: Isa) -> Result<Self, Mixed> {
        let mut search = Search { isa, length: 0, starts: vec![0], matrix: Vec::new(), index: None };
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

    /// Searches through the index in `folder` from now on, which is made or brought up to date
    /// by `threads` threads.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn use_index(&mut self, folder: &Path, threads: usize) -> Result<Change, GalleryError> {
        let (index, change) = VectorIndex::open(folder, &self.matrix, self.length, threads)?;
        self.index = Some(index);
        Ok(change)
    }

    /// The nearest template of everybody who has any, in the order of people; with an index, of
    /// everybody who has one among the nearest [`PROPOSED`]. Of equally near ones the first.
    /// `probe` is a unit vector of [`Search::length`] values.
    pub fn nearest(&self, probe: &[f32]) -> Vec<Hit> {
        match &self.index {
            Some(index) => self.among(probe, &index.propose(probe)),
            None => self.nearest_of_all(probe),
        }
    }

    /// The nearest template of each person who has one among `rows`, which are in order.
    fn among(&self, probe: &[f32], rows: &[usize]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for &row in rows {
            let mut cosine = [0.0];
            exact::cosines(self.isa, probe, &self.matrix[row * self.length..][..self.length], &mut cosine);
            let [cosine] = cosine;
            let person = self.starts.partition_point(|&start| start <= row) - 1;
            let hit = Hit { person, template: row - self.starts[person], cosine };
            match hits.last_mut() {
                Some(last) if last.person == person => {
                    if cosine > last.cosine {
                        *last = hit;
                    }
                }
                _ => hits.push(hit),
            }
        }
        hits
    }

    fn nearest_of_all(&self, probe: &[f32]) -> Vec<Hit> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Embedding;
    use crate::gallery::{PersonTemplates, Template};
    use crate::nn::ModelId;

    #[test]
    fn an_index_finds_what_the_exact_search_finds() {
        let model = ModelId([1; 8]);
        let mut state = 1u64;
        let mut embedding = || {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            };
            Embedding::new(model, (0..24).map(|_| next()).collect()).unwrap()
        };
        let person = |person: usize, embedding: &mut dyn FnMut() -> Embedding| PersonTemplates {
            name: person.to_string(),
            templates: (0..person % 4)
                .map(|still| Template { source: still.to_string(), embedding: embedding() })
                .collect(),
            rejected: Vec::new(),
        };
        let people: Vec<_> = (0..400).map(|i| person(i, &mut embedding)).collect();
        let templates = Templates { model, people, re_embedded: 0, not_saved: None };
        let exact = Search::new(&templates, Which::Templates, Isa::best()).unwrap();
        let mut indexed = Search::new(&templates, Which::Templates, Isa::best()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(indexed.use_index(folder.path(), 2).unwrap(), Change::Built);
        let best = |hits: &[Hit]| hits.iter().copied().max_by(|a, b| a.cosine.total_cmp(&b.cosine));
        for _ in 0..100 {
            let probe = embedding();
            let (all, some) = (exact.nearest(probe.as_slice()), indexed.nearest(probe.as_slice()));
            assert_eq!(best(&all), best(&some));
            let exact = |hit: &Hit| all.iter().find(|other| other.person == hit.person).unwrap().cosine;
            assert!(some.iter().all(|hit| hit.cosine <= exact(hit)), "no angle is too small");
        }
        assert!(Search::new(&templates, Which::Rejected, Isa::best()).unwrap().is_empty());
    }
}
