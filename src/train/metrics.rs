//! Metrics of a run, and the detection of divergence.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::Totals;
use super::{TrainError, checkpoint};
use crate::file;

/// A line of the metrics file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Training since the previous such line.
    Training(Training),
    /// A validation.
    Validation(Validated),
}

/// Means over some iterations of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The last of the iterations, from 1.
    pub iteration: u64,
    /// The minimised loss.
    pub loss: f64,
    /// The loss over the classes, unweighted.
    pub class_loss: f64,
    /// The teacher's loss, weighted.
    pub teacher_loss: f64,
    /// Angle to the target class, in degrees.
    pub angle_deg: f64,
    /// Share of the samples nearest to their target class.
    pub accuracy: f64,
    /// lambda in the last iteration.
    pub lambda: f64,
    /// Learning rate in the last iteration.
    pub rate: f64,
    /// Images per second, waiting for them included.
    pub images_per_s: f64,
    /// Share of the time spent waiting for images.
    pub waiting: f64,
}

/// The result of a validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// After that many iterations.
    pub iteration: u64,
    /// Mean accuracy of the folds.
    pub validation_accuracy: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Pairs.
    pub pairs: usize,
}

impl Line {
    /// Its iteration.
    pub fn iteration(&self) -> u64 {
        match self {
            Line::Training(line) => line.iteration,
            Line::Validation(line) => line.iteration,
        }
    }
}

/// The metrics file, JSON Lines.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Every line of the run.
    pub lines: Vec<Line>,
}

impl Metrics {
    /// Opens the file of a run that continues after `iteration`. Lines about later iterations are removed,
    /// because these will be done again.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path, iteration: u64) -> Result<Self, TrainError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) if iteration > 0 => text,
            _ => String::new(),
        };
        let lines: Vec<Line> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Line| line.iteration() <= iteration)
            .collect();
        let kept: String = lines.iter().map(|line| json(line) + "\n").collect();
        file::write(path, kept.as_bytes()).map_err(|error| save_error(path, error.to_string()))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|error| save_error(path, error.to_string()))?;
        Ok(Self { path: path.to_owned(), file, lines })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, line: Line) -> Result<(), TrainError> {
        writeln!(self.file, "{}", json(&line)).map_err(|error| save_error(&self.path, error.to_string()))?;
        self.lines.push(line);
        Ok(())
    }
}

fn json(line: &Line) -> String {
    // Plain numbers; those that are not finite become null.
    serde_json::to_string(line).unwrap_or_default()
}

/// A file could not be written.
pub(super) fn save_error(path: &Path, cause: String) -> TrainError {
    let resumable = path.with_file_name(checkpoint::FILE_NAME).is_file();
    TrainError::Save { path: path.to_owned(), cause, resumable }
}

/// Sums since the last line, kept as bits so that a checkpoint restores them exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    samples: usize,
    correct: usize,
    class_loss: u64,
    teacher_loss: u64,
    angle_deg: u64,
}

impl Window {
    /// Adds a batch.
    pub fn add(&mut self, totals: &Totals) {
        let sum = |bits: u64, value: f64| (f64::from_bits(bits) + value).to_bits();
        self.samples += totals.samples;
        self.correct += totals.correct;
        self.class_loss = sum(self.class_loss, totals.class_loss);
        self.teacher_loss = sum(self.teacher_loss, totals.teacher_loss);
        self.angle_deg = sum(self.angle_deg, totals.angle_deg);
    }

    /// Samples in it.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Means: class loss, teacher's loss, angle in degrees, accuracy.
    pub fn means(&self) -> [f64; 4] {
        let mean = |bits: u64| f64::from_bits(bits) / self.samples as f64;
        let accuracy = self.correct as f64 / self.samples as f64;
        [mean(self.class_loss), mean(self.teacher_loss), mean(self.angle_deg), accuracy]
    }
}

/// Detects divergence of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergenceMonitor {
    /// Consecutive iterations with a loss of [`UNDERFLOW`] or more.
    high: u32,
    /// Whether the loss has ever been clearly below ln(classes).
    fell: bool,
}

/// -ln of the smallest normal f32: the loss of a softmax whose probability has underflowed, as
/// the authors' framework shows it.
pub const UNDERFLOW: f64 = 87.336_5;

/// Consecutive iterations at [`UNDERFLOW`] that end a run.
const MOST_HIGH: u32 = 20;

/// Relative distance from ln(classes) within which a loss counts as that of guessing.
const NEAR: f64 = 0.03;

/// A kind of divergence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Divergence {
    /// A loss or gradient that is not a number.
    NotFinite,
    /// The plateau at [`UNDERFLOW`].
    Underflow,
    /// The loss of guessing.
    Stuck {
        /// The loss.
        loss: f64,
        /// Classes guessed among.
        classes: usize,
    },
}

impl DivergenceMonitor {
    /// Checks the mean losses of an iteration and the norm of its gradient.
    pub fn examine(
        &mut self,
        class_loss: f64,
        teacher_loss: f64,
        gradient_length: f64,
    ) -> Option<Divergence> {
        if !(class_loss.is_finite() && teacher_loss.is_finite() && gradient_length.is_finite()) {
            return Some(Divergence::NotFinite);
        }
        self.high = if class_loss >= UNDERFLOW { self.high + 1 } else { 0 };
        (self.high >= MOST_HIGH).then_some(Divergence::Underflow)
    }

    /// Checks the mean of a cross-entropy since the last check; `late` if it should have dropped by now.
    pub fn examine_course(&mut self, loss: f64, classes: usize, late: bool) -> Option<Divergence> {
        let guessing = (classes as f64).ln();
        self.fell |= loss < (1.0 - NEAR) * guessing;
        let stuck = late && !self.fell && loss < (1.0 + NEAR) * guessing;
        stuck.then_some(Divergence::Stuck { loss, classes })
    }

    /// Whether a checkpoint taken now is worth keeping.
    pub fn is_good(&self) -> bool {
        self.high == 0
    }
}

impl Divergence {
    /// A description of the divergence.
    pub fn cause(&self) -> String {
        match self {
            Divergence::NotFinite => "training has diverged: the loss or its gradient is not finite".into(),
            Divergence::Underflow => {
                format!(
                    "training has diverged: the loss stays at {UNDERFLOW} or above, where the softmax has underflowed"
                )
            }
            Divergence::Stuck { loss, classes } => {
                format!(
                    "the network has learned nothing: the loss is still {loss:.3}, that of guessing among {classes} classes"
                )
            }
        }
    }

    /// Advice on what to try.
    pub fn advice(&self) -> &'static str {
        match self {
            Divergence::Stuck { .. } => {
                "start from a model trained with plain softmax (--loss softmax, then --init), or raise --lambda-min; --stuck-after sets how long to wait"
            }
            _ => {
                "continue from the checkpoint with a lower --rate or a larger --lambda-min, limit the gradient (--clip), or start from a model trained with plain softmax (--init)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illness_is_recognised_and_health_is_not() {
        let mut health = DivergenceMonitor::default();
        assert_eq!(health.examine(9.27, 0.0, 1.0), None);
        assert_eq!(health.examine(f64::NAN, 0.0, 1.0), Some(Divergence::NotFinite));
        assert_eq!(health.examine(5.0, 0.0, f64::INFINITY), Some(Divergence::NotFinite));
        for _ in 1..MOST_HIGH {
            assert_eq!(health.examine(87.337, 0.0, 0.0), None);
            assert!(!health.is_good());
        }
        assert_eq!(health.examine(87.337, 0.0, 0.0), Some(Divergence::Underflow));
        assert_eq!(health.examine(8.0, 0.0, 1.0), None);
        assert!(health.is_good());
    }

    #[test]
    fn a_loss_that_never_left_the_logarithm_is_stuck() {
        let mut health = DivergenceMonitor::default();
        assert_eq!(health.examine_course(9.26, 10_572, false), None);
        assert!(matches!(health.examine_course(9.26, 10_572, true), Some(Divergence::Stuck { .. })));
        // A loss far above is not guessing, and after it has fallen once, the loss may rise with a falling
        // lambda.
        assert_eq!(health.examine_course(20.0, 10_572, true), None);
        assert_eq!(health.examine_course(6.0, 10_572, false), None);
        assert_eq!(health.examine_course(9.26, 10_572, true), None);
    }

    #[test]
    fn lines_after_the_checkpoint_are_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |iteration| {
            let [validation_accuracy, standard_error] = [0.9, 0.1];
            Line::Validation(Validated { iteration, validation_accuracy, standard_error, pairs: 3 })
        };
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (1..=5).for_each(|i| metrics.add(line(i)).unwrap());
        let mut metrics = Metrics::open(&path, 3).unwrap();
        assert_eq!(metrics.lines, [line(1), line(2), line(3)]);
        metrics.add(line(4)).unwrap();
        assert_eq!(Metrics::open(&path, 9).unwrap().lines.len(), 4);
        assert!(Metrics::open(&path, 0).unwrap().lines.is_empty());
    }

    #[test]
    fn a_window_is_kept_to_the_bit() {
        let mut window = Window::default();
        let totals =
            Totals { samples: 3, class_loss: 0.1, angle_deg: 200.0 / 3.0, correct: 2, ..Totals::default() };
        window.add(&totals);
        window.add(&totals);
        let text = serde_json::to_string(&window).unwrap();
        assert_eq!(serde_json::from_str::<Window>(&text).unwrap(), window);
        assert_eq!(window.means()[3], 2.0 / 3.0);
    }
}
