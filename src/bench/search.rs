//! How fast a very large gallery is searched, exactly and through its index, and how often both
//! find the same.
//!
//! The templates are made up, after the angles that real faces have: people are drawn from a
//! distribution of 128 axes or so whose variances fall off exponentially, so that strangers are
//! 90 degrees apart with a standard deviation of 7.4 (as the default model's calibration has it:
//! 67 degrees at a false match rate of 1e-3, 80.5 at 1e-1), and views of one person deviate from
//! that person such that two views are about 50 degrees apart.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::embed::Embedding;
use crate::gallery::search::{Change, Hit, Search, Which};
use crate::gallery::{GalleryError, PersonTemplates, Template, Templates};
use crate::nn::{Isa, ModelId};

/// Templates of a person.
const VIEWS: usize = 5;
/// Axes over which the variance falls to 1/e: 60 axes in effect.
const FALL_OFF: f32 = 30.0;
/// Length of the deviation of a view from its person, who has length 1: 50 degrees between two.
const DEVIATION: f32 = 0.75;
/// Share of the people who leave, and of those who come, in the update.
const CHANGED: f64 = 1e-3;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct SearchBench {
    /// Templates, a multiple of 5 at least 5 (rounded up): five a person.
    pub templates: usize,
    /// Values of a template, at least 2.
    pub values: usize,
    /// Probes, at least 1: half of them views of people of the gallery, half of strangers.
    pub probes: usize,
    /// Threads that build the index and, one probe each, search.
    pub threads: usize,
    /// The CPU kernels.
    pub isa: Isa,
}

/// How fast one kind of search is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Speed {
    /// Median time of a probe on one thread, in milliseconds.
    pub median_ms: f64,
    /// The time that one probe in a hundred exceeds, in milliseconds.
    pub p99_ms: f64,
    /// Probes a second on all threads together.
    pub probes_per_s: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct SearchReport {
    /// Templates in the gallery.
    pub templates: usize,
    /// Probes searched.
    pub probes: usize,
    /// Threads.
    pub threads: usize,
    /// Every template compared.
    pub exact: Speed,
    /// Through the index.
    pub index: Speed,
    /// Share of the views of enrolled people whose nearest template the index finds.
    pub recall_known: f64,
    /// Share of the views of strangers whose nearest template the index finds.
    pub recall_strangers: f64,
    /// Seconds to build the index.
    pub build_s: f64,
    /// Seconds to open it by memory map and check it against the templates.
    pub open_s: f64,
    /// Seconds to bring it up to date after one person in a thousand left and as many came.
    pub update_s: f64,
    /// Templates put in by that.
    pub put_in: usize,
    /// Templates taken out by that.
    pub taken_out: usize,
    /// Share of the views of those who came that find them.
    pub recall_new: f64,
    /// Size of the index on disk, in bytes.
    pub bytes: u64,
}

impl SearchBench {
    /// Measures with an index in `folder`, which is built unless it is there. `progress` is told
    /// what is being done.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn run(&self, folder: &Path, progress: &dyn Fn(&str)) -> Result<SearchReport, GalleryError> {
        let people = self.templates.div_ceil(VIEWS).max(1);
        progress("making templates");
        let mut exact = self.search(0..people);
        let mut random = SmallRng::seed_from_u64(u64::MAX);
        let known = self.probes.div_ceil(2);
        let known: Vec<Vec<f32>> = (0..known).map(|i| self.view(i * people / known, &mut random)).collect();
        // People beyond those enrolled.
        let strangers: Vec<Vec<f32>> =
            (0..self.probes / 2).map(|i| self.view(2 * people + i, &mut random)).collect();
        let probes: Vec<&Vec<f32>> = known.iter().chain(&strangers).collect();

        progress("searching exactly");
        let (exact_speed, truth) = self.speed(&exact, &probes);
        progress("building the index");
        let start = Instant::now();
        exact.use_index(folder, self.threads)?;
        let build_s = start.elapsed().as_secs_f64();
        drop(exact);
        progress("opening the index");
        let mut indexed = self.search(0..people);
        let start = Instant::now();
        indexed.use_index(folder, self.threads)?;
        let open_s = start.elapsed().as_secs_f64();
        progress("searching through the index");
        let (index_speed, found) = self.speed(&indexed, &probes);
        let recall = |range: std::ops::Range<usize>| {
            let same = range.clone().filter(|&i| truth[i] == found[i]).count();
            same as f64 / range.len().max(1) as f64
        };
        let bytes = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let bytes = bytes.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        drop(indexed);

        progress("bringing the index up to date");
        let moved = ((people as f64 * CHANGED).ceil() as usize).min(people);
        let mut changed = self.search(moved..people + moved);
        let start = Instant::now();
        let change = changed.use_index(folder, self.threads)?;
        let update_s = start.elapsed().as_secs_f64();
        let (put_in, taken_out) = match change {
            Change::Updated { added, removed } => (added, removed),
            Change::None | Change::Built => (0, 0),
        };
        let is_found = |person: usize| {
            let probe = self.view(person, &mut SmallRng::seed_from_u64((1 << 40) + person as u64));
            best(&changed.nearest(&probe)).is_some_and(|hit| hit.person == person - moved)
        };
        let new = (people..people + moved).filter(|&person| is_found(person)).count();
        Ok(SearchReport {
            templates: people * VIEWS,
            probes: probes.len(),
            threads: self.threads,
            exact: exact_speed,
            index: index_speed,
            recall_known: recall(0..known.len()),
            recall_strangers: recall(known.len()..probes.len()),
            build_s,
            open_s,
            update_s,
            put_in,
            taken_out,
            recall_new: new as f64 / moved as f64,
            bytes,
        })
    }

    /// The gallery of those people.
    fn search(&self, people: std::ops::Range<usize>) -> Search {
        let model = ModelId([0; 8]);
        let person = |person: usize| {
            // Views 0 to 4 of everybody, whoever else is there.
            let mut random = SmallRng::seed_from_u64(person as u64);
            let template = |view: usize, random: &mut SmallRng| {
                let embedding = Embedding::new(model, self.view(person, random))?;
                Some(Template { source: view.to_string(), embedding })
            };
            PersonTemplates {
                name: person.to_string(),
                templates: (0..VIEWS).filter_map(|view| template(view, &mut random)).collect(),
                rejected: Vec::new(),
            }
        };
        let templates =
            Templates { model, people: people.map(person).collect(), re_embedded: 0, not_saved: None };
        Search::new(&templates, Which::Templates, self.isa).expect("templates of one model and length")
    }

    /// A view of a person, as a unit vector.
    fn view(&self, person: usize, random: &mut SmallRng) -> Vec<f32> {
        let mut of_person = SmallRng::seed_from_u64(!(person as u64));
        let centre = self.draw(&mut of_person);
        let view: Vec<f32> =
            centre.iter().zip(self.draw(random)).map(|(centre, away)| centre + DEVIATION * away).collect();
        unit(view)
    }

    /// A unit vector from the distribution of people.
    fn draw(&self, random: &mut SmallRng) -> Vec<f32> {
        // The sum of four uniform numbers is normal enough.
        let normal = |random: &mut SmallRng| (0..4).map(|_| random.random_range(-1.0..1.0f32)).sum::<f32>();
        let axis =
            |axis: usize, random: &mut SmallRng| (-0.5 * axis as f32 / FALL_OFF).exp() * normal(random);
        unit((0..self.values).map(|i| axis(i, random)).collect())
    }

    /// How fast `search` answers, and the nearest template of each probe.
    fn speed(&self, search: &Search, probes: &[&Vec<f32>]) -> (Speed, Vec<Option<(usize, usize)>>) {
        let mut times: Vec<Duration> = Vec::with_capacity(probes.len());
        let mut answers = Vec::with_capacity(probes.len());
        for probe in probes {
            let start = Instant::now();
            let hits = search.nearest(probe);
            times.push(start.elapsed());
            answers.push(best(&hits).map(|hit| (hit.person, hit.template)));
        }
        let start = Instant::now();
        std::thread::scope(|scope| {
            for share in probes.chunks(probes.len().div_ceil(self.threads.max(1)).max(1)) {
                scope.spawn(move || share.iter().for_each(|probe| drop(search.nearest(probe))));
            }
        });
        let probes_per_s = probes.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        (Speed { median_ms: at(50), p99_ms: at(99), probes_per_s }, answers)
    }
}

fn best(hits: &[Hit]) -> Option<Hit> {
    // Of equals the first, as everywhere.
    hits.iter().copied().reduce(|best, hit| if hit.cosine > best.cosine { hit } else { best })
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_as_far_apart_as_those_of_real_faces_and_a_small_gallery_is_measured() {
        let bench = SearchBench { templates: 1000, values: 128, probes: 100, threads: 2, isa: Isa::best() };
        let mut random = SmallRng::seed_from_u64(1);
        let mut angle = |a: usize, b: usize| {
            let (a, b) = (bench.view(a, &mut random), bench.view(b, &mut random));
            a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>().acos().to_degrees()
        };
        let same: f32 = (0..200).map(|i| angle(i, i)).sum::<f32>() / 200.0;
        assert!((45.0..55.0).contains(&same), "{same}");
        let others: Vec<f32> = (0..1000).map(|i| angle(i, i + 1)).collect();
        let mean = others.iter().sum::<f32>() / 1000.0;
        let deviation = (others.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 1000.0).sqrt();
        assert!((mean - 90.0).abs() < 1.0 && (deviation - 7.4).abs() < 0.7, "{mean} {deviation}");

        let folder = tempfile::tempdir().unwrap();
        let report = bench.run(folder.path(), &|_| ()).unwrap();
        assert_eq!((report.templates, report.probes), (1000, 100));
        assert!(report.recall_known >= 0.98 && report.recall_strangers >= 0.98, "{report:?}");
        assert_eq!((report.put_in, report.taken_out, report.recall_new), (5, 5, 1.0));
        assert!(report.bytes > 1000 * 128);
    }
}
