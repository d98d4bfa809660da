//! Benchmark of a large library: grouping strangers over all files, and finding a person.

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;

use super::{BenchError, SearchBench};
use crate::library::{Library, Query, Subject, group_vectors};
use crate::nn::Isa;
use crate::pipeline::peak_memory_bytes;

/// Tracks of a stranger.
const TRACKS: usize = 20;
/// Appearances of a person with a name.
const APPEARANCES: usize = 500;
/// Appearances per file.
const PER_FILE: usize = 100;
/// Number of queries.
const QUESTIONS: usize = 50;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct LibraryBench {
    /// Tracks of strangers to group, twenty per stranger; 0 for none.
    pub tracks: usize,
    /// Appearances of people with names in the catalogue, 500 per person; 0 for none.
    pub appearances: usize,
    /// Angle in degrees within which tracks are one stranger.
    pub same_deg: f64,
    /// Threads.
    pub threads: usize,
}

/// The measurements.
#[derive(Debug, Clone, Serialize)]
pub struct LibraryReport {
    /// Tracks grouped.
    pub tracks: usize,
    /// People among them.
    pub people: usize,
    /// Groups found.
    pub groups: usize,
    /// Share of the pairs of tracks in one group that are of one person.
    pub pairs_right: f64,
    /// Share of the pairs of tracks of one person that are in one group.
    pub pairs_found: f64,
    /// Seconds for the grouping.
    pub group_s: f64,
    /// Tracks of one more file in a catalogue of such tracks.
    pub added: usize,
    /// Seconds for grouping the catalogue again after that.
    pub again_s: f64,
    /// Peak memory of this process until then, in bytes.
    pub memory_bytes: Option<u64>,
    /// Appearances in the catalogue.
    pub appearances: usize,
    /// Milliseconds to find a person, median.
    pub find_median_ms: f64,
    /// 95th percentile.
    pub find_p95_ms: f64,
}

impl LibraryBench {
    /// Measures; `progress` is called with the current step.
    ///
    /// # Errors
    /// When the catalogue cannot be created.
    pub fn run(&self, progress: &dyn Fn(&str)) -> Result<LibraryReport, BenchError> {
        progress("making tracks");
        let people = self.tracks.div_ceil(TRACKS);
        let faces = SearchBench { templates: 5, values: 128, probes: 2, threads: 1, isa: Isa::best() };
        let mut random = SmallRng::seed_from_u64(1);
        // The tracks of a person are spread over the whole list, as over files.
        let owner = |track: usize| track % people.max(1);
        let vectors: Vec<f32> =
            (0..self.tracks).flat_map(|track| faces.view(owner(track), &mut random)).collect();
        progress("grouping");
        let cosine = self.same_deg.to_radians().cos();
        let start = Instant::now();
        let groups = group_vectors(&vectors, 128, cosine, self.threads);
        let group_s = start.elapsed().as_secs_f64();
        let memory_bytes = peak_memory_bytes();
        let (pairs_right, pairs_found) = pairs(&groups, people);

        progress("making a catalogue of strangers");
        let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
        let library = Library::create(&folder.path().join("strangers"))?;
        let files = self.tracks / PER_FILE;
        let mut stranger = |track: usize| (String::new(), faces.view(owner(track), &mut random));
        library.fill(0..files, PER_FILE, &mut stranger)?;
        progress("grouping them");
        library.group_within(self.same_deg, self.threads)?;
        library.fill(files..files + 1, PER_FILE, &mut stranger)?;
        let start = Instant::now();
        library.group_within(self.same_deg, self.threads)?;
        let again_s = start.elapsed().as_secs_f64();

        progress("making a catalogue");
        let library = Library::create(&folder.path().join("named"))?;
        let names = self.appearances.div_ceil(APPEARANCES).max(1);
        library.fill(0..self.appearances.div_ceil(PER_FILE), PER_FILE, &mut |appearance| {
            // Scattered over the files without a pattern.
            (format!("Person {}", appearance.wrapping_mul(2_654_435_761) % names), Vec::new())
        })?;
        progress("finding people");
        let mut times = Vec::new();
        for question in 0..if self.appearances > 0 { QUESTIONS } else { 0 } {
            let who = Subject::Named(format!("Person {}", question * names / QUESTIONS));
            let start = Instant::now();
            library.find(&Query::with([who]))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0.0);
        Ok(LibraryReport {
            tracks: self.tracks,
            people,
            groups: groups.iter().max().map_or(0, |most| most + 1),
            pairs_right,
            pairs_found,
            group_s,
            added: PER_FILE,
            again_s,
            memory_bytes,
            appearances: self.appearances,
            find_median_ms: at(50),
            find_p95_ms: at(95),
        })
    }
}

/// Shares of pairs: the share of the pairs in one group that are of one person, and the share of the pairs of
/// one person that are in one group.
fn pairs(found: &[usize], people: usize) -> (f64, f64) {
    use std::collections::HashMap;
    let pairs_of = |count: usize| (count * count.saturating_sub(1) / 2) as f64;
    let (mut groups, mut owners, mut both) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (track, &group) in found.iter().enumerate() {
        let owner = track % people.max(1);
        *groups.entry(group).or_insert(0) += 1;
        *owners.entry(owner).or_insert(0) += 1;
        *both.entry((group, owner)).or_insert(0) += 1;
    }
    let sum = |counts: Vec<usize>| counts.into_iter().map(pairs_of).sum::<f64>();
    let right = sum(both.into_values().collect());
    let (in_groups, of_people) = (sum(groups.into_values().collect()), sum(owners.into_values().collect()));
    (right / in_groups.max(1.0), right / of_people.max(1.0))
}
