//! Shares with their intervals by bootstrap.

use serde::Serialize;

/// Share of the bootstrap's replicates inside an interval.
pub const CONFIDENCE: f64 = 0.95;

/// A share with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The share.
    pub rate: f64,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
}

/// The estimate with the percentiles of its replicates (interpolated between neighbours).
pub(super) fn estimate(rate: f64, mut replicates: Vec<f64>) -> Estimate {
    replicates.sort_unstable_by(f64::total_cmp);
    let percentile = |share: f64| {
        let place = share * replicates.len().saturating_sub(1) as f64;
        let value = |index: usize| replicates.get(index).copied().unwrap_or(rate);
        let (below, above) = (value(place.floor() as usize), value(place.ceil() as usize));
        below + (above - below) * place.fract()
    };
    Estimate {
        rate,
        lower: percentile((1.0 - CONFIDENCE) / 2.0),
        upper: percentile((1.0 + CONFIDENCE) / 2.0),
    }
}
