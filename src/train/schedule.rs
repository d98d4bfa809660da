//! Schedules of the learning rate and of lambda of A-Softmax.

use serde::{Deserialize, Serialize};

/// lambda = max(least, base (1 + gamma t)^-power), where t is 1 in the first iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lambda {
    /// Initial value, before the first iteration.
    pub base: f64,
    /// Factor of t.
    pub gamma: f64,
    /// Exponent.
    pub power: f64,
    /// Lower bound.
    pub least: f64,
}

impl Lambda {
    /// lambda in iteration `t`, from 1.
    pub fn at(&self, t: u64) -> f64 {
        (self.base * (1.0 + self.gamma * t as f64).powf(-self.power)).max(self.least)
    }
}

/// Forms of the learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Multiplied by a factor at given iterations
    Steps,
    /// Half a cosine, down to 0
    Cosine,
}

/// The learning rate over a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its form.
    pub kind: ScheduleKind,
    /// Peak rate.
    pub rate: f64,
    /// Total number of iterations.
    pub iterations: u64,
    /// Iterations, from 0, at which it steps down.
    pub steps: Vec<u64>,
    /// Factor of each step.
    pub factor: f64,
    /// Iterations of the linear warm-up.
    pub warmup: u64,
}

impl Schedule {
    /// The rate after `done` iterations.
    pub fn rate(&self, done: u64) -> f64 {
        if done < self.warmup {
            return self.rate * (done + 1) as f64 / self.warmup as f64;
        }
        match self.kind {
            ScheduleKind::Steps => {
                let steps = self.steps.iter().filter(|step| **step <= done).count();
                self.rate * self.factor.powi(steps as i32)
            }
            ScheduleKind::Cosine => {
                let left = self.iterations.saturating_sub(self.warmup).max(1) as f64;
                let part = ((done - self.warmup) as f64 / left).min(1.0);
                self.rate * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_falls_as_the_authors_says() {
        let lambda = Lambda { base: 1000.0, gamma: 0.12, power: 1.0, least: 5.0 };
        assert!((lambda.at(1) - 892.857_142_857).abs() < 1e-6);
        assert!(lambda.at(1658) > 5.0, "{}", lambda.at(1658));
        assert_eq!(lambda.at(1659), 5.0);
        assert_eq!(lambda.at(28_000), 5.0);
    }

    #[test]
    fn rates_step_rise_and_fall() {
        let steps = Schedule {
            kind: ScheduleKind::Steps,
            rate: 0.1,
            iterations: 28_000,
            steps: vec![16_000, 24_000],
            factor: 0.1,
            warmup: 0,
        };
        for (done, rate) in [(0, 0.1), (15_999, 0.1), (16_000, 0.01), (23_999, 0.01), (24_000, 0.001)] {
            assert!((steps.rate(done) / rate - 1.0).abs() < 1e-12, "{done}");
        }
        let cosine = Schedule { kind: ScheduleKind::Cosine, iterations: 110, warmup: 10, ..steps };
        for (done, rate) in [(0, 0.01), (9, 0.1), (10, 0.1), (60, 0.05), (110, 0.0), (120, 0.0)] {
            assert!((cosine.rate(done) - rate).abs() < 1e-12, "{done}");
        }
    }
}
