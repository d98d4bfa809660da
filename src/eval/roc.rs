//! Receiver operating characteristic of a set of scored pairs.

use crate::report::chart::{Axis, Chart, Curve, Scale};

/// Scores of pairs of the same and of different people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roc {
    /// Ascending.
    same: Vec<f64>,
    /// Ascending.
    different: Vec<f64>,
}

/// A point of the curve. A pair is accepted when its score is above the threshold.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OperatingPoint {
    /// Share of pairs of different people that are accepted.
    pub far: f64,
    /// Share of pairs of the same person that are accepted.
    pub tar: f64,
    /// The score.
    pub threshold: f64,
}

impl Roc {
    /// From pairs: whether they show the same person, and their (finite) score.
    pub fn new(pairs: impl IntoIterator<Item = (bool, f64)>) -> Self {
        let mut roc = Self::default();
        for (same, score) in pairs {
            if same { &mut roc.same } else { &mut roc.different }.push(score);
        }
        roc.same.sort_unstable_by(f64::total_cmp);
        roc.different.sort_unstable_by(f64::total_cmp);
        roc
    }

    fn at(&self, threshold: f64) -> OperatingPoint {
        let above = |scores: &[f64]| {
            let accepted = scores.len() - scores.partition_point(|&s| s <= threshold);
            accepted as f64 / scores.len().max(1) as f64
        };
        OperatingPoint { far: above(&self.different), tar: above(&self.same), threshold }
    }

    /// The most permissive threshold whose false accept rate is at most `far`. `None` when there are too few
    /// pairs of different people for that rate.
    pub fn at_far(&self, far: f64) -> Option<OperatingPoint> {
        let accepted = (far * self.different.len() as f64 + 1e-9).floor() as usize;
        let index = self.different.len().checked_sub(accepted + 1)?;
        (accepted > 0).then_some(())?;
        Some(self.at(*self.different.get(index)?))
    }

    /// The error rate at which false rejects and false accepts are equally frequent: the mean of the two at
    /// the threshold at which they are closest.
    pub fn equal_error_rate(&self) -> f64 {
        let error = |p: OperatingPoint| (p.far - (1.0 - p.tar), p.far + (1.0 - p.tar));
        let errors = self.points().into_iter().map(error);
        let closest = errors.min_by(|a, b| a.0.abs().total_cmp(&b.0.abs()).then(a.1.total_cmp(&b.1)));
        closest.map_or(0.0, |(_, sum)| sum / 2.0)
    }

    /// Every point of the curve, from nothing accepted to everything.
    pub fn points(&self) -> Vec<OperatingPoint> {
        let mut thresholds: Vec<f64> = self.same.iter().chain(&self.different).copied().collect();
        thresholds.sort_unstable_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        thresholds.push(f64::NEG_INFINITY);
        thresholds.into_iter().map(|t| self.at(t)).collect()
    }

    /// The curve: true accept rate over the logarithm of the false accept rate, from the smallest rate that
    /// the number of pairs allows. The vertical axis starts at the tenth below it.
    pub fn chart(&self, title: &str) -> Chart {
        let decades = (self.different.len().max(10) as f64).log10().floor() as i32;
        let points: Vec<(f64, f64)> = self.points().into_iter().map(|p| (p.far, p.tar)).collect();
        let least = 10f64.powi(-decades);
        let lowest = points.iter().filter(|p| p.0 <= least).map(|p| p.1).fold(0.0, f64::max);
        let from = ((lowest * 10.0).floor() / 10.0).clamp(0.0, 0.9);
        Chart {
            title: title.into(),
            x: Axis { label: "false accept rate".into(), scale: Scale::Log10(-decades, 0) },
            y: Axis { label: "true accept rate".into(), scale: Scale::Linear(from, 1.0) },
            curves: vec![Curve { points, ..Curve::default() }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roc() -> Roc {
        let different = (0..1000).map(|i| (false, f64::from(i) / 1000.0));
        let same = (0..100).map(|i| (true, 0.9 + f64::from(i) / 500.0));
        Roc::new(same.chain(different))
    }

    #[test]
    fn operating_points_are_counted_not_interpolated() {
        // 1 of 1000 may pass: the threshold is the second highest impostor score, 0.998, and
        // 50 of 100 genuine scores (0.9, 0.902, ...) are at or below it.
        let point = roc().at_far(1e-3).unwrap();
        assert_eq!((point.far, point.tar, point.threshold), (0.001, 0.5, 0.998));
        assert_eq!(roc().at_far(0.1).map(|p| (p.far, p.tar)), Some((0.1, 1.0)));
        assert_eq!(roc().at_far(1e-4), None, "1000 pairs say nothing about one in 10,000");
    }

    #[test]
    fn the_equal_error_rate_lies_where_the_errors_cross() {
        // At t, 5 (t - 0.9) of the genuine and 1 - t of the impostor pairs are wrong: equal at 11/12.
        assert!((roc().equal_error_rate() - 1.0 / 12.0).abs() < 0.002, "{}", roc().equal_error_rate());
        let perfect = Roc::new([(true, 0.9), (true, 0.8), (false, 0.1), (false, 0.2)]);
        assert_eq!(perfect.equal_error_rate(), 0.0);
    }

    #[test]
    fn the_chart_starts_where_the_pairs_can_show_a_rate() {
        let chart = roc().chart("title");
        assert_eq!(chart.x.scale, Scale::Log10(-3, 0));
        assert_eq!(chart.y.scale, Scale::Linear(0.5, 1.0), "half pass at 1 of 1000");
        assert_eq!(chart.curves[0].points.last(), Some(&(1.0, 1.0)));
    }
}
