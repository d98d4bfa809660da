//! Search for the templates nearest to a probe.
//!
//! Every template is compared with SIMD ([`exact`]). Among more than [`EXACT_UP_TO`] templates, a pass over a
//! smaller copy ([`scan`]) first finds those that can be among the nearest. Their exact angles decide, so the
//! people found and their angles are the same either way.

pub mod exact;
pub mod scan;

use super::{PersonTemplates, Template, Templates};
use crate::nn::Isa;
use scan::Codes;

/// The number of templates up to which all are compared exactly: a millisecond on one core.
pub const EXACT_UP_TO: usize = 50_000;

/// The number of nearest templates that a search of more than [`EXACT_UP_TO`] is guaranteed to find.
pub const FOUND: usize = 64;

/// The nearest template of one person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The person's index in [`Templates::people`].
    pub person: usize,
    /// The template among the person's.
    pub template: usize,
    /// Cosine of its angle to the probe.
    pub cosine: f32,
}

/// The templates do not all come from one model, or differ in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed;

/// Templates of people, packed for search.
#[derive(Debug)]
pub struct Search {
    isa: Isa,
    length: usize,
    /// The first row of each person; then the number of rows.
    starts: Vec<usize>,
    /// Unit vectors of `length` values, one per row, those of a person together.
    matrix: Vec<f32>,
    /// The same in fewer bytes, in a large gallery.
    codes: Option<Codes>,
    threads: usize,
}

impl Search {
    /// Packs the templates of all people, or their counter-examples.
    ///
    /// # Errors
    /// [`Mixed`] when a template is of another model or length than the first.
    pub fn new(templates: &Templates, which: Which, isa: Isa) -> Result<Self, Mixed> {
        let mut search =
            Search { isa, length: 0, starts: vec![0], matrix: Vec::new(), codes: None, threads: 1 };
        let all: usize = templates.people.iter().map(|person| which.of(person).len()).sum();
        let mut rows = 0;
        for person in &templates.people {
            for template in which.of(person) {
                let vector = template.embedding.as_slice();
                if rows == 0 {
                    search.length = vector.len();
                    // Growing the matrix would take twice the memory, and in a large gallery the matrix is
                    // most of it.
                    search.matrix.reserve_exact(all * vector.len());
                }
                if template.embedding.model() != templates.model || vector.len() != search.length {
                    return Err(Mixed);
                }
                search.matrix.extend_from_slice(vector);
                rows += 1;
            }
            search.starts.push(rows);
        }
        if rows > EXACT_UP_TO {
            search.codes = Some(Codes::new(&search.matrix, search.length));
        }
        Ok(search)
    }

    /// Values per vector; 0 when there are no templates.
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

    /// Shares the search of a large gallery among that many threads. The default is one.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The nearest template of every person with templates, in the order of people. With more than
    /// [`EXACT_UP_TO`] templates: of every person with one among the nearest [`FOUND`], and of a few others.
    /// Of equally near templates, the first. `probe` is a unit vector of [`Search::length`] values.
    pub fn nearest(&self, probe: &[f32]) -> Vec<Hit> {
        match &self.codes {
            Some(codes) => self.among(probe, &codes.propose(self.isa, &[probe], FOUND, self.threads)[0]),
            None => self.nearest_of_all(probe),
        }
    }

    /// The same for each of several probes: a large gallery is read once for all of them.
    pub fn nearest_together(&self, probes: &[&[f32]]) -> Vec<Vec<Hit>> {
        let Some(codes) = &self.codes else {
            return probes.iter().map(|probe| self.nearest_of_all(probe)).collect();
        };
        let proposed = codes.propose(self.isa, probes, FOUND, self.threads);
        probes.iter().zip(proposed).map(|(probe, rows)| self.among(probe, &rows)).collect()
    }

    /// Every template with its cosine, in order. With more than [`EXACT_UP_TO`] templates: those among the
    /// nearest [`FOUND`], and a few others.
    pub fn near(&self, probe: &[f32]) -> Vec<Hit> {
        let Some(codes) = &self.codes else {
            let mut cosines = vec![0.0; self.len()];
            exact::cosines(self.isa, probe, &self.matrix, &mut cosines);
            let people = self.starts.windows(2).enumerate();
            let rows = people.flat_map(|(person, pair)| (pair[0]..pair[1]).map(move |row| (person, row)));
            let hit =
                |(person, row)| Hit { person, template: row - self.starts[person], cosine: cosines[row] };
            return rows.map(hit).collect();
        };
        let rows = codes.propose(self.isa, &[probe], FOUND, self.threads).remove(0);
        rows.into_iter().map(|row| self.exact(probe, row)).collect()
    }

    /// The nearest template of every person with templates; every template is compared.
    pub fn nearest_of_all(&self, probe: &[f32]) -> Vec<Hit> {
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

    /// The nearest template of each person who has one among `rows`, which are in order.
    fn among(&self, probe: &[f32], rows: &[usize]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        for &row in rows {
            let hit = self.exact(probe, row);
            match hits.last_mut() {
                Some(last) if last.person == hit.person => {
                    if hit.cosine > last.cosine {
                        *last = hit;
                    }
                }
                _ => hits.push(hit),
            }
        }
        hits
    }

    /// A row and its cosine.
    fn exact(&self, probe: &[f32], row: usize) -> Hit {
        let mut cosine = [0.0];
        exact::cosines(self.isa, probe, &self.matrix[row * self.length..][..self.length], &mut cosine);
        let person = self.starts.partition_point(|&start| start <= row) - 1;
        Hit { person, template: row - self.starts[person], cosine: cosine[0] }
    }
}

/// The kind of a person's templates to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Their stills and the mean of them.
    Templates,
    /// Their counter-examples.
    Rejected,
}

impl Which {
    fn of(self, person: &PersonTemplates) -> &[Template] {
        match self {
            Self::Templates => &person.templates,
            Self::Rejected => &person.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Embedding;
    use crate::gallery::Viewpoint;
    use crate::models::ModelId;

    #[test]
    fn a_large_gallery_is_searched_as_if_everybody_were_compared() {
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
            colour: None,
            templates: (0..person % 4)
                .map(|still| Template {
                    source: still.to_string(),
                    embedding: embedding(),
                    view: Viewpoint::FRONTAL,
                })
                .collect(),
            rejected: Vec::new(),
        };
        let people: Vec<_> = (0..2 * EXACT_UP_TO / 3 + 100).map(|i| person(i, &mut embedding)).collect();
        let templates = Templates { model, people, re_embedded: 0, not_saved: None };
        let search = Search::new(&templates, Which::Templates, Isa::best()).unwrap().with_threads(2);
        assert!(search.len() > EXACT_UP_TO && search.codes.is_some());
        let probes: Vec<_> = (0..30).map(|_| embedding()).collect();
        let vectors: Vec<&[f32]> = probes.iter().map(Embedding::as_slice).collect();
        let together = search.nearest_together(&vectors);
        assert!(vectors.iter().zip(&together).all(|(probe, hits)| search.nearest(probe) == *hits));
        for probe in probes {
            let mut all = search.nearest_of_all(probe.as_slice());
            let some = search.nearest(probe.as_slice());
            assert!(some.iter().all(|hit| all.contains(hit)), "the angles are the same");
            all.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
            assert!(all.iter().take(20).all(|hit| some.contains(hit)), "nobody near is passed over");
        }
        assert!(Search::new(&templates, Which::Rejected, Isa::best()).unwrap().is_empty());
    }
}
