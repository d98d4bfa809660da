//! Benchmark of searching a very large gallery: comparing every template, and a pass over a smaller copy,
//! with the recall of the latter.
//!
//! The templates are synthetic, with angles like those of real faces. People are drawn from a distribution of
//! 128 axes or so whose variances fall off exponentially, so that strangers are 90 degrees apart with a
//! standard deviation of 7.4 (as in the default model's calibration: 67 degrees at a false match rate of
//! 1e-3, 80.5 at 1e-1). Views of one person deviate from that person such that two views are about 50 degrees
//! apart.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::embed::Embedding;
use crate::gallery::search::{EXACT_UP_TO, Hit, Search, Which};
use crate::gallery::{PersonTemplates, Template, Templates, Viewpoint};
use crate::models::ModelId;
use crate::nn::Isa;

/// Templates per person.
const VIEWS: usize = 5;
/// Axes over which the variance falls to 1/e: 60 axes in effect.
const FALL_OFF: f32 = 30.0;
/// Length of the deviation of a view from its person, who has length 1: 50 degrees between two.
const DEVIATION: f32 = 0.75;
/// Searches for several probes together that are timed.
const TIMES: usize = 9;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct SearchBench {
    /// Number of templates, rounded up to a multiple of 5: five per person.
    pub templates: usize,
    /// Values per template, at least 2.
    pub values: usize,
    /// Probes, at least 1: half of them views of people of the gallery, half of strangers.
    pub probes: usize,
    /// Threads that share the search for a probe.
    pub threads: usize,
    /// The CPU kernels.
    pub isa: Isa,
}

/// The speed of one kind of search, in milliseconds per probe.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Speed {
    /// Median.
    pub median_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// The speed of searching for several probes together.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Together {
    /// Probes at a time.
    pub probes: usize,
    /// Probes per second.
    pub per_s: f64,
}

/// The measurements.
#[derive(Debug, Clone, Serialize)]
pub struct SearchReport {
    /// Templates in the gallery.
    pub templates: usize,
    /// Probes searched.
    pub probes: usize,
    /// Threads.
    pub threads: usize,
    /// Seconds to prepare the templates and their smaller copy in memory.
    pub lay_out_s: f64,
    /// Every template compared, on one thread.
    pub exact: Speed,
    /// The search for galleries of this size, on one thread.
    pub one_thread: Speed,
    /// The same, a probe shared by all threads.
    pub all_threads: Speed,
    /// Probes per second when several are searched for together, on all threads.
    pub together: Vec<Together>,
    /// Whether the gallery is so small that the search compares every template too.
    pub small: bool,
    /// Share of the views of enrolled people for which the search finds the same template as the exact
    /// search.
    pub recall_known: f64,
    /// The same of the views of strangers.
    pub recall_strangers: f64,
}

impl SearchBench {
    /// Measures; `progress` is called with the current step.
    pub fn run(&self, progress: &dyn Fn(&str)) -> SearchReport {
        let people = self.templates.div_ceil(VIEWS).max(1);
        progress("making templates");
        let templates = self.templates_of(people);
        progress("preparing the templates");
        let start = Instant::now();
        let search = self.search(&templates);
        let lay_out_s = start.elapsed().as_secs_f64();
        drop(templates);
        let mut random = SmallRng::seed_from_u64(u64::MAX);
        let known = self.probes.div_ceil(2);
        let known: Vec<Vec<f32>> = (0..known).map(|i| self.view(i * people / known, &mut random)).collect();
        // People beyond those enrolled.
        let strangers: Vec<Vec<f32>> =
            (0..self.probes / 2).map(|i| self.view(2 * people + i, &mut random)).collect();
        let probes: Vec<&Vec<f32>> = known.iter().chain(&strangers).collect();

        progress("comparing every template");
        let (exact, truth) = speed(&probes, |probe| search.nearest_of_all(probe));
        progress("searching on one thread");
        let (one_thread, found) = speed(&probes, |probe| search.nearest(probe));
        progress("searching on all threads");
        let search = search.with_threads(self.threads);
        let (all_threads, again) = speed(&probes, |probe| search.nearest(probe));
        let mut together = Vec::new();
        for count in [1, 16, 256] {
            progress(&format!("searching for {count} probes together"));
            together.push(Together { probes: count, per_s: together_per_s(&search, &probes, count) });
        }
        let recall = |range: std::ops::Range<usize>| {
            let same = range.clone().filter(|&i| truth[i] == found[i] && truth[i] == again[i]).count();
            same as f64 / range.len().max(1) as f64
        };
        SearchReport {
            templates: people * VIEWS,
            probes: probes.len(),
            threads: self.threads,
            lay_out_s,
            exact,
            one_thread,
            all_threads,
            together,
            small: search.len() <= EXACT_UP_TO,
            recall_known: recall(0..known.len()),
            recall_strangers: recall(known.len()..probes.len()),
        }
    }

    /// A gallery of `people` people.
    fn templates_of(&self, people: usize) -> Templates {
        let model = ModelId([0; 8]);
        let person = |person: usize| {
            let mut random = SmallRng::seed_from_u64(person as u64);
            let template = |view: usize, random: &mut SmallRng| {
                let embedding = Embedding::new(model, self.view(person, random))?;
                Some(Template { source: view.to_string(), embedding, view: Viewpoint::FRONTAL })
            };
            PersonTemplates {
                name: person.to_string(),
                colour: None,
                templates: (0..VIEWS).filter_map(|view| template(view, &mut random)).collect(),
                rejected: Vec::new(),
            }
        };
        Templates { model, people: (0..people).map(person).collect(), re_embedded: 0, not_saved: None }
    }

    fn search(&self, templates: &Templates) -> Search {
        Search::new(templates, Which::Templates, self.isa).expect("templates of one model and length")
    }

    /// A view of a person, as a unit vector.
    pub(super) fn view(&self, person: usize, random: &mut SmallRng) -> Vec<f32> {
        let mut of_person = SmallRng::seed_from_u64(!(person as u64));
        let centre = self.draw(&mut of_person);
        let view: Vec<f32> =
            centre.iter().zip(self.draw(random)).map(|(centre, away)| centre + DEVIATION * away).collect();
        unit(view)
    }

    /// A unit vector from the distribution of people.
    fn draw(&self, random: &mut SmallRng) -> Vec<f32> {
        // The sum of four uniform numbers is close enough to a normal distribution.
        let normal = |random: &mut SmallRng| (0..4).map(|_| random.random_range(-1.0..1.0f32)).sum::<f32>();
        let axis =
            |axis: usize, random: &mut SmallRng| (-0.5 * axis as f32 / FALL_OFF).exp() * normal(random);
        unit((0..self.values).map(|i| axis(i, random)).collect())
    }
}

/// The speed of `search`, and the nearest template of each probe.
fn speed(probes: &[&Vec<f32>], search: impl Fn(&[f32]) -> Vec<Hit>) -> (Speed, Vec<Option<(usize, usize)>>) {
    let mut times: Vec<Duration> = Vec::with_capacity(probes.len());
    let mut answers = Vec::with_capacity(probes.len());
    for probe in probes {
        let start = Instant::now();
        let hits = search(probe);
        times.push(start.elapsed());
        answers.push(best(&hits).map(|hit| (hit.person, hit.template)));
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    (Speed { median_ms: at(50), p99_ms: at(99) }, answers)
}

/// Probes per second when `count` are searched for at a time, the median of several times; they repeat if
/// there are fewer.
fn together_per_s(search: &Search, probes: &[&Vec<f32>], count: usize) -> f64 {
    let mut next = probes.iter().cycle().map(|probe| probe.as_slice());
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let some: Vec<&[f32]> = next.by_ref().take(count).collect();
            let start = Instant::now();
            std::hint::black_box(search.nearest_together(&some));
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    count as f64 / times[TIMES / 2]
}

fn best(hits: &[Hit]) -> Option<Hit> {
    // Of equal ones, the first, as everywhere.
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

        let report = bench.run(&|_| ());
        assert_eq!((report.templates, report.probes, report.small), (1000, 100, true));
        assert_eq!((report.recall_known, report.recall_strangers), (1.0, 1.0));
        assert!(report.exact.median_ms <= report.exact.p99_ms);
    }
}
