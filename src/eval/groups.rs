//! Error rates by group: by age, sex, region, pose, size, or any other label of the images in a file.
//!
//! A rate over all people hides the groups for which a system fails. Each group's rate at one threshold is
//! reported beside that of all, with a 95 % interval by bootstrap over people, as in
//! [`openset`](super::openset).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::estimate::{Estimate, estimate};
use super::{EvalError, read};

/// A group whose rate of false matches is more than this many times that of all is highlighted.
pub const HIGH: f64 = 2.0;

/// Labels of images or people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The names of the labels, from the header line.
    pub columns: Vec<String>,
    rows: BTreeMap<String, Vec<String>>,
}

impl Labels {
    /// Reads a CSV file with a header line. The first field of a line names an image (its path below the
    /// folder of the images, or its file name, with or without the extension) or a person (the folder's
    /// name). The others are labels; an empty field is not a label.
    ///
    /// # Errors
    /// When the file cannot be read, has no labels, or has lines of different lengths.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        Self::parse(&read(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, EvalError> {
        let error = |line: usize, cause: String| EvalError::List { path: path.to_owned(), line, cause };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let heading = reader.headers().map_err(|cause| error(1, cause.to_string()))?;
        let columns: Vec<String> = heading.iter().skip(1).map(str::to_owned).collect();
        if columns.is_empty() || columns.iter().any(String::is_empty) {
            let cause = "the heading must name the images and at least one label, as in `image,sex,age`";
            return Err(error(1, cause.into()));
        }
        let mut rows = BTreeMap::new();
        for row in reader.records() {
            let row = row.map_err(|cause| {
                let line = cause.position().map_or(1, csv::Position::line);
                error(usize::try_from(line).unwrap_or(1), cause.to_string())
            })?;
            let mut fields = row.iter().map(str::to_owned);
            let key = fields.next().unwrap_or_default().replace('\\', "/");
            rows.insert(key, fields.collect());
        }
        Ok(Self { columns, rows })
    }

    /// The labels of an image: those of its path, else of its file name, else of its person. Empty if there
    /// are none.
    pub fn of(&self, image: &str, person: &str) -> Vec<String> {
        let stem = |path: &str| Path::new(path).with_extension("").to_string_lossy().into_owned();
        let name = image.rsplit('/').next().unwrap_or(image);
        let keys = [image.to_owned(), stem(image), name.to_owned(), stem(name), person.to_owned()];
        let row = keys.iter().find_map(|key| self.rows.get(key));
        row.cloned().unwrap_or_else(|| vec![String::new(); self.columns.len()])
    }
}

/// One decision, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The person in the image: the same number for all trials of a person.
    pub person: usize,
    /// Whether the decision was wrong.
    pub wrong: bool,
    /// The labels, one per column; empty if there is none.
    pub labels: Vec<String>,
}

/// The rate of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRate {
    /// The column of the labels; empty for all together.
    pub column: String,
    /// The label.
    pub label: String,
    /// People in the group.
    pub people: usize,
    /// Decisions.
    pub trials: usize,
    /// Wrong ones.
    pub wrong: usize,
    /// Share of wrong ones, with its interval.
    pub rate: Estimate,
    /// Whether the rate is more than [`HIGH`] times that of all.
    pub high: bool,
}

/// Rates of all trials and of each group. The same `seed` gives the same intervals.
pub fn rates(trials: &[Trial], columns: &[String], replicates: usize, seed: u64) -> Vec<GroupRate> {
    let all: Vec<&Trial> = trials.iter().collect();
    let mut rates = vec![rate("", "", &all, replicates, seed)];
    let overall = rates[0].rate.rate;
    for (at, column) in columns.iter().enumerate() {
        let label = |trial: &Trial| trial.labels.get(at).filter(|label| !label.is_empty()).cloned();
        let labels: BTreeSet<String> = trials.iter().filter_map(label).collect();
        for own in labels {
            let group: Vec<&Trial> =
                trials.iter().filter(|trial| label(trial).as_ref() == Some(&own)).collect();
            let mut found = rate(column, &own, &group, replicates, seed);
            found.high = found.rate.rate > HIGH * overall;
            rates.push(found);
        }
    }
    rates
}

fn rate(column: &str, label: &str, trials: &[&Trial], replicates: usize, seed: u64) -> GroupRate {
    let mut people: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for trial in trials {
        let (all, wrong) = people.entry(trial.person).or_default();
        *all += 1;
        *wrong += usize::from(trial.wrong);
    }
    let people: Vec<(usize, usize)> = people.into_values().collect();
    let share = |drawn: &mut dyn Iterator<Item = (usize, usize)>| {
        let (all, wrong) = drawn.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        wrong as f64 / all.max(1) as f64
    };
    let mut random = StdRng::seed_from_u64(seed);
    let count = people.len();
    let found = (0..replicates)
        .map(|_| share(&mut (0..count).map(|_| people[random.random_range(0..count)])))
        .collect();
    let wrong = trials.iter().filter(|trial| trial.wrong).count();
    let mut rate = estimate(share(&mut people.iter().copied()), found);
    // If no trial or every trial is wrong, all replicates are equal. The interval is then the exact bound
    // (Clopper and Pearson, 1934) for as many independent trials as there are people.
    let exact = 1.0 - 0.025_f64.powf(1.0 / count.max(1) as f64);
    if wrong == 0 {
        rate.upper = exact;
    } else if wrong == trials.len() {
        rate.lower = 1.0 - exact;
    }
    GroupRate {
        column: column.to_owned(),
        label: label.to_owned(),
        people: count,
        trials: trials.len(),
        wrong,
        rate,
        high: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Result<Labels, EvalError> {
        Labels::parse(text, Path::new("labels.csv"))
    }

    #[test]
    fn images_are_known_by_path_by_name_and_by_person() {
        let all = labels("image,age,pose\nAda/1.jpg,old,left\n2,young,\nBoris,,front\n").unwrap();
        assert_eq!(all.columns, ["age", "pose"]);
        assert_eq!(all.of("Ada/1.jpg", "Ada"), ["old", "left"]);
        assert_eq!(all.of("Ada/1.png", "Ada"), ["", ""], "another file");
        assert_eq!(all.of("Ada/2.jpg", "Ada"), ["young", ""]);
        assert_eq!(all.of("Boris/7.jpg", "Boris"), ["", "front"]);
        assert_eq!(all.of("Chloe/7.jpg", "Chloe"), ["", ""]);
        let names = labels("who,sex\r\n\"Lovelace, Ada\",f\r\n").unwrap();
        assert_eq!(names.of("Lovelace, Ada/1.jpg", "Lovelace, Ada"), ["f"]);
    }

    #[test]
    fn broken_labels_are_refused_with_the_line() {
        for (text, line) in
            [("", 1), ("image\nAda\n", 1), ("image,\nAda,1\n", 1), ("image,age\nAda,1\nBo,1,2\n", 3)]
        {
            match labels(text) {
                Err(EvalError::List { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_group_with_more_than_twice_the_errors_is_pointed_out() {
        let trial =
            |person: usize, wrong: bool, age: &str| Trial { person, wrong, labels: vec![age.to_owned()] };
        let mut trials: Vec<Trial> = (0..80).map(|at| trial(at / 4, at % 40 == 0, "young")).collect();
        trials.extend((0..20).map(|at| trial(20 + at / 4, at % 4 == 0, "old")));
        trials.push(trial(99, true, ""));
        let found = rates(&trials, &["age".to_owned()], 500, 1);
        let [all, old, young] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((all.people, all.trials, all.wrong), (26, 101, 8));
        assert_eq!((old.label.as_str(), old.people, old.trials, old.wrong), ("old", 5, 20, 5));
        assert_eq!((young.people, young.trials, young.wrong), (20, 80, 2));
        assert!(old.high && !young.high && !all.high);
        assert!((all.rate.rate - 8.0 / 101.0).abs() < 1e-12);
        assert!(all.rate.lower < all.rate.rate && all.rate.rate < all.rate.upper);
        // Each of the five has one error in four, so the bootstrap over people changes nothing.
        assert_eq!((old.rate.lower, old.rate.upper), (0.25, 0.25));
        assert_eq!(rates(&trials, &["age".to_owned()], 500, 1), found, "the same seed, the same intervals");
    }

    #[test]
    fn no_error_of_few_people_is_no_proof_that_there_are_none() {
        let trials = |wrong: bool| -> Vec<Trial> {
            (0..10).map(|person| Trial { person, wrong, labels: Vec::new() }).collect()
        };
        let interval = |wrong| {
            let found = rates(&trials(wrong), &[], 100, 1);
            (found[0].rate.lower, found[0].rate.upper)
        };
        // 1 - 0.025^(1/10)
        let (lower, upper) = interval(false);
        assert!(lower == 0.0 && (upper - 0.308_497).abs() < 1e-6, "{upper}");
        let (lower, upper) = interval(true);
        assert!(upper == 1.0 && (lower - 0.691_503).abs() < 1e-6, "{lower}");
    }
}
