//! Open-set identification: enrolled people among strangers.
//!
//! Some people are enrolled; probes are other images of them, and images of strangers. The
//! score of a person for a probe is the largest cosine over the person's templates. With a
//! threshold t (Phillips, Grother and Micheals, "Evaluation Methods in Face Recognition"):
//!
//! - FPIR(t), the false positive identification rate: the share of strangers' probes whose
//!   best score is above t;
//! - DIR(t), the detection and identification rate: the share of the enrolled people's probes
//!   whose best score is above t and belongs to the right person. 1 - DIR is the FNIR.
//!
//! Without a threshold and without strangers (closed set), the measure is the share of probes whose own
//! person is among the best k, the identification rate at rank k.
//!
//! Intervals are percentiles of a bootstrap over people: in every replicate the enrolled people and the
//! strangers are drawn again with replacement, each with all of their probes, and the threshold is chosen
//! again. Probes of one person are alike, so drawing probes would make the intervals too narrow. The gallery
//! is not resampled.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::EvalError;
use super::estimate::estimate;
pub use super::estimate::{CONFIDENCE, Estimate};
use super::groups::{self, Trial};
use super::people::Person;
use crate::report::chart::{Axis, Chart, Curve, Scale};

/// False positive identification rates that are reported.
pub const RATES: [f64; 3] = [1e-1, 1e-2, 1e-3];

/// Ranks that are reported for the closed set.
pub const RANKS: [usize; 3] = [1, 5, 10];

/// One probe that was searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// The person: the same number for all probes of a person.
    pub person: usize,
    /// The largest score over all enrolled people.
    pub best: f64,
    /// The rank of the right person, from 1; `None` for a stranger's probe.
    pub rank: Option<usize>,
}

impl Search {
    /// The search of a probe of an enrolled person: `scores` of all people, `own` the index of the right one.
    /// People with the same score as the right person are ranked before them.
    pub fn mated(person: usize, scores: &[f64], own: usize) -> Option<Self> {
        let right = *scores.get(own)?;
        let rank = scores.iter().filter(|&&score| score >= right).count();
        Some(Self { rank: Some(rank), ..Self::of_a_stranger(person, scores) })
    }

    /// The search of a stranger's probe.
    pub fn of_a_stranger(person: usize, scores: &[f64]) -> Self {
        Self { person, best: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max), rank: None }
    }
}

/// What was decided about a probe, each independently, as `label` decides about a single view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Whose probe it is: the same number for all probes of a person.
    pub person: usize,
    /// Whether the person is enrolled.
    pub is_enrolled: bool,
    /// Whether the name is right; `None` if no name was given.
    pub name_is_right: Option<bool>,
}

impl Decided {
    /// Whether an enrolled person was not named or named wrong, or a stranger was named.
    pub fn is_wrong(&self) -> bool {
        if self.is_enrolled { self.name_is_right != Some(true) } else { self.name_is_right.is_some() }
    }
}

/// The result at a threshold and a margin, each probe independently.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Named {
    /// The threshold in degrees.
    pub threshold_deg: f64,
    /// Margin in degrees.
    pub margin_deg: f64,
    /// Share of the enrolled people's probes that are named right.
    pub right: f64,
    /// Share of the enrolled people's probes that are given a wrong name.
    pub wrong: f64,
    /// Share of the strangers' probes that are given a name.
    pub strangers: f64,
    /// The interval of that share.
    pub strangers_interval: [f64; 2],
    /// The share of strangers that `gallery check` expects to be named at most; `None` for a model without a calibration.
    pub strangers_expected: Option<f64>,
}

/// The rates of decisions at a threshold and a margin. The same `seed` gives the same interval.
pub fn named(
    decided: &[Decided],
    [threshold_deg, margin_deg]: [f64; 2],
    strangers_expected: Option<f64>,
    (replicates, seed): (usize, u64),
) -> Named {
    let share = |name_is_right: bool| {
        let enrolled = decided.iter().filter(|one| one.is_enrolled);
        let named = enrolled.clone().filter(|one| one.name_is_right == Some(name_is_right)).count();
        named as f64 / enrolled.count().max(1) as f64
    };
    let trial = |one: &Decided| Trial { person: one.person, wrong: one.is_wrong(), labels: Vec::new() };
    let strangers: Vec<Trial> = decided.iter().filter(|one| !one.is_enrolled).map(trial).collect();
    let Estimate { rate, lower, upper } = groups::rates(&strangers, &[], replicates, seed)[0].rate;
    Named {
        threshold_deg,
        margin_deg,
        right: share(true),
        wrong: share(false),
        strangers: rate,
        strangers_interval: [lower, upper],
        strangers_expected,
    }
}

/// The closed set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtRank {
    /// The rank.
    pub rank: usize,
    /// Share of probes whose own person is among the best `rank`.
    pub identified: Estimate,
}

/// The open set at one rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtFpir {
    /// The rate that was requested.
    pub fpir: f64,
    /// Strangers' probes above the threshold: at most that share of them.
    pub false_positives: usize,
    /// The threshold, a cosine: scores above it are named.
    pub threshold: f64,
    /// The same as an angle in degrees.
    pub angle_deg: f64,
    /// Share of the enrolled people's probes that are named, and named right.
    pub dir: Estimate,
    /// Share of the enrolled people's probes that are given a wrong name.
    pub misnamed: f64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenSet {
    /// Enrolled people with probes.
    pub enrolled: usize,
    /// Strangers.
    pub strangers: usize,
    /// Probes of enrolled people.
    pub mated: usize,
    /// Probes of strangers.
    pub non_mated: usize,
    /// Replicates of the bootstrap.
    pub replicates: usize,
    /// The closed set, by rank.
    pub closed: Vec<AtRank>,
    /// The open set, by rate; rates for which there are too few strangers' probes are omitted.
    pub open: Vec<AtFpir>,
    /// The whole curve: (FPIR, DIR), beginning with nobody named.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

/// Probes of one kind, the best score first, with an index of their person from 0.
struct Probes {
    people: usize,
    list: Vec<(usize, Search)>,
}

impl Probes {
    fn new(searches: impl Iterator<Item = Search>) -> Self {
        let mut list: Vec<Search> = searches.collect();
        let mut people: Vec<usize> = list.iter().map(|search| search.person).collect();
        people.sort_unstable();
        people.dedup();
        list.sort_by(|a, b| b.best.total_cmp(&a.best));
        let index = |search: &Search| people.partition_point(|&person| person < search.person);
        Self { people: people.len(), list: list.into_iter().map(|s| (index(&s), s)).collect() }
    }

    /// The number of times each person is drawn.
    fn draw(&self, random: &mut StdRng) -> Vec<u32> {
        let mut times = vec![0; self.people];
        (0..self.people).for_each(|_| times[random.random_range(0..self.people)] += 1);
        times
    }

    /// Probes in a replicate for which `counts` holds.
    fn count(&self, times: &[u32], counts: impl Fn(&Search) -> bool) -> u64 {
        self.list
            .iter()
            .filter(|(_, search)| counts(search))
            .map(|&(person, _)| u64::from(times[person]))
            .sum()
    }

    /// The lowest threshold above which at most a share of `rate` of a replicate's probes are, and their
    /// maximum number.
    fn threshold(&self, times: &[u32], rate: f64) -> (f64, u64) {
        let all = self.count(times, |_| true);
        // 0.001 x 1000 must be 1 in spite of rounding.
        let allowed = (rate * all as f64 + 1e-9).floor() as u64;
        let mut above = 0;
        for &(person, search) in &self.list {
            above += u64::from(times[person]);
            if above > allowed {
                return (search.best, allowed);
            }
        }
        (f64::NEG_INFINITY, allowed)
    }
}

/// Computes the results of the searches. The same `seed` gives the same intervals.
///
/// # Errors
/// When there are no searches of one kind or a score is not a number.
pub fn evaluate(searches: &[Search], replicates: usize, seed: u64) -> Result<OpenSet, EvalError> {
    if searches.iter().any(|search| !search.best.is_finite()) {
        return Err(EvalError::TooLittle("a probe has no score: is anybody enrolled?".into()));
    }
    let mated = Probes::new(searches.iter().copied().filter(|search| search.rank.is_some()));
    let strangers = Probes::new(searches.iter().copied().filter(|search| search.rank.is_none()));
    if mated.list.is_empty() || strangers.list.is_empty() {
        return Err(EvalError::TooLittle(format!(
            "{} probes of enrolled people and {} of strangers are not enough: both are needed",
            mated.list.len(),
            strangers.list.len()
        )));
    }

    let identified = |times: &[u32], rank: usize| {
        let right = mated.count(times, |search| search.rank.is_some_and(|at| at <= rank));
        right as f64 / mated.count(times, |_| true) as f64
    };
    let dir = |times: &[u32], threshold: f64| {
        let right = mated.count(times, |search| search.rank == Some(1) && search.best > threshold);
        right as f64 / mated.count(times, |_| true) as f64
    };
    let (once, strangers_once) = (vec![1; mated.people], vec![1; strangers.people]);
    let rates: Vec<f64> =
        RATES.into_iter().filter(|&rate| strangers.threshold(&strangers_once, rate).1 > 0).collect();

    // The results of each replicate, by rank and by rate.
    let mut random = StdRng::seed_from_u64(seed);
    let mut by_rank = vec![Vec::with_capacity(replicates); RANKS.len()];
    let mut by_rate = vec![Vec::with_capacity(replicates); rates.len()];
    for _ in 0..replicates {
        let (times, strangers_times) = (mated.draw(&mut random), strangers.draw(&mut random));
        RANKS.iter().zip(&mut by_rank).for_each(|(&rank, found)| found.push(identified(&times, rank)));
        for (&rate, found) in rates.iter().zip(&mut by_rate) {
            found.push(dir(&times, strangers.threshold(&strangers_times, rate).0));
        }
    }

    let closed = RANKS
        .iter()
        .zip(by_rank)
        .map(|(&rank, found)| AtRank { rank, identified: estimate(identified(&once, rank), found) })
        .collect();
    let open = rates
        .iter()
        .zip(by_rate)
        .map(|(&fpir, found)| {
            let (threshold, _) = strangers.threshold(&strangers_once, fpir);
            let wrong = mated.count(&once, |search| search.rank != Some(1) && search.best > threshold);
            AtFpir {
                fpir,
                false_positives: strangers.count(&strangers_once, |search| search.best > threshold) as usize,
                threshold,
                angle_deg: threshold.clamp(-1.0, 1.0).acos().to_degrees(),
                dir: estimate(dir(&once, threshold), found),
                misnamed: wrong as f64 / mated.list.len() as f64,
            }
        })
        .collect();
    Ok(OpenSet {
        enrolled: mated.people,
        strangers: strangers.people,
        mated: mated.list.len(),
        non_mated: strangers.list.len(),
        replicates,
        closed,
        open,
        curve: curve(&mated, &strangers),
    })
}

/// DIR by FPIR, with a point at each threshold at which another stranger's probe is named.
fn curve(mated: &Probes, strangers: &Probes) -> Vec<(f64, f64)> {
    let mut points = Vec::with_capacity(strangers.list.len() + 1);
    let (mut named, mut right) = (0, 0);
    let mut false_positives = 0;
    let thresholds = strangers.list.iter().map(|(_, search)| search.best).chain([f64::NEG_INFINITY]);
    for threshold in thresholds {
        while let Some((_, search)) = strangers.list.get(false_positives).filter(|(_, s)| s.best > threshold)
        {
            debug_assert!(search.rank.is_none());
            false_positives += 1;
        }
        while let Some((_, search)) = mated.list.get(named).filter(|(_, s)| s.best > threshold) {
            right += usize::from(search.rank == Some(1));
            named += 1;
        }
        points.push((
            false_positives as f64 / strangers.list.len() as f64,
            right as f64 / mated.list.len() as f64,
        ));
    }
    points
}

impl OpenSet {
    /// DIR over the logarithm of the FPIR, with the intervals.
    pub fn chart(&self, title: &str) -> Chart {
        let decades = (self.non_mated.max(10) as f64).log10().floor() as i32;
        let intervals = self.open.iter().map(|at| (at.fpir, at.dir.lower, at.dir.upper)).collect();
        Chart {
            title: title.into(),
            x: Axis { label: "false positive identification rate".into(), scale: Scale::Log10(-decades, 0) },
            y: Axis { label: "detection and identification rate".into(), scale: Scale::Linear(0.0, 1.0) },
            curves: vec![Curve { points: self.curve.clone(), intervals, ..Curve::default() }],
        }
    }
}

/// Options of the split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions {
    /// Images of an enrolled person that go to the gallery, at least 1.
    pub gallery_images: usize,
    /// Share of the people with enough images that are used as strangers, 0..1.
    pub strangers: f64,
    /// Seed of the split.
    pub seed: u64,
}

/// A test set cut into gallery, probes and strangers: pairs (person, image) of indices into the
/// people and their images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// The enrolled people, in order.
    pub enrolled: Vec<usize>,
    /// Images to enrol, by person.
    pub gallery: Vec<(usize, usize)>,
    /// The other images of those people.
    pub probes: Vec<(usize, usize)>,
    /// The images of all other people.
    pub strangers: Vec<(usize, usize)>,
}

/// Splits a test set. People with more images than the gallery takes are enrolled, except a share of them;
/// all others are strangers. The selection of people and images depends only on the hash of the seed and the
/// names. So it does not change with the order of files, nor for the other people when some are added or
/// removed (as far as the share allows).
///
/// # Errors
/// When there is nobody to enrol, or no stranger.
pub fn split(people: &[Person], options: &SplitOptions) -> Result<Split, EvalError> {
    let key = |parts: &[&str]| {
        let mut hash = blake3::Hasher::new();
        hash.update(&options.seed.to_le_bytes());
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        *hash.finalize().as_bytes()
    };
    let mut eligible: Vec<usize> =
        (0..people.len()).filter(|&person| people[person].images.len() > options.gallery_images).collect();
    eligible.sort_by_cached_key(|&person| key(&[&people[person].name]));
    let strangers = (eligible.len() as f64 * options.strangers).round() as usize;
    eligible.truncate(eligible.len() - strangers.min(eligible.len()));
    eligible.sort_unstable();

    let mut split = Split { enrolled: eligible, ..Split::default() };
    for (index, person) in people.iter().enumerate() {
        let mut images: Vec<usize> = (0..person.images.len()).collect();
        if split.enrolled.binary_search(&index).is_err() {
            split.strangers.extend(images.into_iter().map(|image| (index, image)));
            continue;
        }
        images.sort_by_cached_key(|&image| {
            let file = person.images[image].file_name().unwrap_or_default().to_string_lossy();
            key(&[&person.name, &file])
        });
        let (gallery, probes) = images.split_at_mut(options.gallery_images);
        for (images, list) in [(gallery, &mut split.gallery), (probes, &mut split.probes)] {
            images.sort_unstable();
            list.extend(images.iter().map(|&image| (index, image)));
        }
    }
    if split.enrolled.is_empty() || split.strangers.is_empty() {
        return Err(EvalError::TooLittle(format!(
            "{} of {} people can be enrolled with {} images each and a probe, and {} images of strangers are left: both are needed",
            split.enrolled.len(),
            people.len(),
            options.gallery_images,
            split.strangers.len()
        )));
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_on_the_threshold_is_not_named_and_a_tie_is_lost() {
        assert_eq!(Search::mated(0, &[0.5, 0.9, 0.9], 2).unwrap().rank, Some(2));
        assert_eq!(Search::mated(0, &[0.5, 0.9, 0.3], 1).unwrap().rank, Some(1));
        assert_eq!(Search::mated(0, &[0.5], 1), None);
        // Ten strangers at 0.0, 0.1, ...: one may pass at 10 %, so the threshold is the second
        // highest, 0.8, and the probe that scores 0.8 is not named.
        let mut searches: Vec<Search> =
            (0..10).map(|i| Search::of_a_stranger(i, &[i as f64 / 10.0])).collect();
        searches.extend((0..4).map(|i| Search { person: i, best: 0.7 + i as f64 / 10.0, rank: Some(1) }));
        searches.push(Search { person: 4, best: 0.95, rank: Some(2) });
        let result = evaluate(&searches, 50, 1).unwrap();
        let at = result.open[0];
        assert_eq!((result.open.len(), at.false_positives, at.threshold), (1, 1, 0.8));
        assert_eq!((at.dir.rate, at.misnamed), (0.4, 0.2));
        assert_eq!(result.closed[0].identified.rate, 0.8);
        assert_eq!(result.closed[1].identified.rate, 1.0);
        assert!(result.curve.contains(&(0.1, 0.4)), "{:?}", result.curve);
        assert_eq!(result.curve.last(), Some(&(1.0, 0.8)));
    }

    #[test]
    fn a_rate_takes_enough_strangers() {
        let mut searches: Vec<Search> =
            (0..1000).map(|i| Search::of_a_stranger(i, &[i as f64 / 1000.0])).collect();
        searches.push(Search { person: 0, best: 0.9985, rank: Some(1) });
        let rates = |searches: &[Search]| {
            evaluate(searches, 10, 1).unwrap().open.iter().map(|at| at.fpir).collect::<Vec<_>>()
        };
        assert_eq!(rates(&searches), [1e-1, 1e-2, 1e-3]);
        assert_eq!(rates(&searches[1..]), [1e-1, 1e-2]);
        assert!(evaluate(&searches[..1000], 10, 1).is_err(), "nobody enrolled");
        assert!(evaluate(&searches[1000..], 10, 1).is_err(), "no stranger");
    }

    #[test]
    fn decisions_are_counted_for_the_enrolled_and_for_strangers() {
        let decided = |person, is_enrolled, name_is_right| Decided { person, is_enrolled, name_is_right };
        let all = [
            decided(0, true, Some(true)),
            decided(0, true, None),
            decided(1, true, Some(false)),
            decided(1, true, Some(true)),
            decided(2, false, Some(false)),
            decided(2, false, None),
            decided(3, false, None),
            decided(3, false, None),
        ];
        assert_eq!(all.map(|one| one.is_wrong()), [false, true, true, false, true, false, false, false]);
        let found = named(&all, [60.0, 1.0], Some(0.02), (200, 1));
        assert_eq!([found.right, found.wrong, found.strangers], [0.5, 0.25, 0.25]);
        let [lower, upper] = found.strangers_interval;
        assert!(lower == 0.0 && upper == 0.5, "two people: {lower} to {upper}");
    }

    #[test]
    fn the_split_depends_on_names_and_seed_alone() {
        let person = |i: usize| Person {
            name: format!("p{i}"),
            images: (0..1 + i % 4).map(|n| format!("{n}.jpg").into()).collect(),
        };
        let people: Vec<Person> = (0..40).map(person).collect();
        let options = SplitOptions { gallery_images: 1, strangers: 0.5, seed: 1 };
        let first = split(&people, &options).unwrap();
        assert_eq!(first, split(&people, &options).unwrap());
        assert_ne!(first, split(&people, &SplitOptions { seed: 2, ..options }).unwrap());
        // 30 people have several images; half of them are enrolled.
        assert_eq!((first.enrolled.len(), first.gallery.len()), (15, 15));
        let all = first.gallery.len() + first.probes.len() + first.strangers.len();
        assert_eq!(all, people.iter().map(|person| person.images.len()).sum::<usize>());
        assert!(first.strangers.iter().all(|(person, _)| !first.enrolled.contains(person)));
        assert!(first.probes.iter().all(|probe| !first.gallery.contains(probe)));
        assert!(split(&people, &SplitOptions { gallery_images: 4, ..options }).is_err());
        assert!(split(&people, &SplitOptions { strangers: 1.0, ..options }).is_err());
    }
}
