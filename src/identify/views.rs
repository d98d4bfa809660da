//! Impostor scores by pair of views, and how much stricter the threshold is for such a pair.
//!
//! A network that learned few side views finds any two of them alike. One threshold for all pairs would
//! therefore name strangers wherever a person was enrolled from the side. The decision here is
//! location and scale normalisation of the score by the pair of views, as Z-norm and T-norm do it by speaker
//! (Auckenthaler et al., "Score normalization for text-independent speaker verification systems", 2000): for
//! impostors with the mean m and the standard deviation s of cosines in a cell of views, and m0 and s0 among
//! faces seen from the front, the cosine c0 of the threshold becomes
//!
//! ```text
//! c = max(c0, m + s * (c0 - m0) / s0)
//! ```
//!
//! which is the same number of standard deviations away from the impostors of that cell as c0 is from those
//! of the reference. It is never below c0. Between the measured cells, values are interpolated linearly.
//! If hardly any genuine pair would match at the requested false match rate, the pair of views carries no
//! information and never matches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::detect::SURE_SCORE;
use crate::gallery::Viewpoint;

/// The turn for the cells. A face with a low detector score counts as turned away: backs of heads and half
/// faces have landmarks of any pose. With them, galleries of many stills named three times as many strangers
/// (docs/experiments.md).
fn turn_deg(view: Viewpoint) -> f64 {
    if view.score >= SURE_SCORE { f64::from(view.yaw_deg) } else { f64::INFINITY }
}

/// Cosines of comparisons, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Comparisons.
    pub pairs: u64,
    /// Mean of the cosines.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

/// The measurements of one pair of views.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ViewCell {
    /// Comparisons of different people, with the mean and the scale of the reference's frontal faces.
    pub impostors: Spread,
    /// Comparisons of one person's images.
    pub genuine_pairs: u64,
    /// Share of these that are nearer than all but a thousandth of the impostors of the cell.
    pub genuine_share: f64,
}

/// Impostor scores by the views of template and probe, measured and stored with the model under the metadata
/// key `views`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewCalibration {
    /// Name of the data set.
    pub set: String,
    /// People in it.
    pub people: usize,
    /// Impostors of the data set of the model's [calibration](super::Calibration).
    pub reference: Spread,
    /// Turns to the side in degrees that the cells stand for, rising from 0.
    pub yaw_deg: Vec<f64>,
    /// One row per turn of the template, with one cell per turn of the probe.
    pub cells: Vec<Vec<ViewCell>>,
}

/// The fewest comparisons of different people for a cell. A cell with fewer is as strict as its strictest
/// neighbour.
pub const LEAST_PAIRS: u64 = 500;

/// Least share of genuine pairs for which a pair of views is compared at all.
const LEAST_SHARE: f64 = 0.02;

/// The handicap of a pair of views that carries no information: the whole range of angles.
const CLOSED_DEG: f64 = 180.0;

/// The interpolated values for a pair of views.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pair {
    mean: f64,
    deviation: f64,
    share: f64,
}

impl ViewCalibration {
    /// Reads the metadata key `views` of a model; `None` if it is missing or unusable.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let calibration: Self = serde_json::from_str(metadata.get("views")?).ok()?;
        calibration.is_plausible().then(|| calibration.with_thin_cells_closed())
    }

    fn is_plausible(&self) -> bool {
        let nodes = self.yaw_deg.len();
        let finite = |spread: &Spread| spread.mean.abs() <= 1.0 && (0.0..=1.0).contains(&spread.deviation);
        let rising = self.yaw_deg.windows(2).all(|pair| pair[0] < pair[1]);
        nodes > 0
            && self.yaw_deg[0] == 0.0
            && rising
            && self.yaw_deg.iter().all(|yaw| yaw.is_finite())
            && self.reference.deviation > 0.0
            && finite(&self.reference)
            && self.cells.len() == nodes
            && self.cells.iter().all(|row| row.len() == nodes)
            && self
                .cells
                .iter()
                .flatten()
                .all(|cell| finite(&cell.impostors) && cell.genuine_share.is_finite())
    }

    /// The same with every cell of too few comparisons made as strict as its strictest neighbour.
    fn with_thin_cells_closed(mut self) -> Self {
        let before = self.cells.clone();
        let near = |at: usize| at.saturating_sub(1)..(at + 2).min(before.len());
        for (row, cells) in self.cells.iter_mut().enumerate() {
            for (column, cell) in cells.iter_mut().enumerate() {
                if cell.impostors.pairs >= LEAST_PAIRS {
                    continue;
                }
                for other in near(row).flat_map(|row| before[row][near(column)].iter()) {
                    cell.impostors.mean = cell.impostors.mean.max(other.impostors.mean);
                    cell.impostors.deviation = cell.impostors.deviation.max(other.impostors.deviation);
                    cell.genuine_share = cell.genuine_share.min(other.genuine_share);
                }
            }
        }
        self
    }

    /// Degrees by which a pair of views must be nearer than `threshold_deg` to match: 0 for two faces seen
    /// from the front, 180 where the pair carries no information.
    pub fn handicap_deg(&self, template: Viewpoint, probe: Viewpoint, threshold_deg: f64) -> f64 {
        let Pair { mean, deviation, share } = self.between(turn_deg(template), turn_deg(probe));
        if share < LEAST_SHARE {
            return CLOSED_DEG;
        }
        let cosine = threshold_deg.to_radians().cos();
        let needed = mean + deviation * (cosine - self.reference.mean) / self.reference.deviation;
        threshold_deg - needed.max(cosine).min(1.0).acos().to_degrees()
    }

    /// Whether a template of that view can match any probe.
    pub fn is_open(&self, template: Viewpoint) -> bool {
        self.yaw_deg.iter().any(|&probe| self.between(turn_deg(template), probe).share >= LEAST_SHARE)
    }

    /// The cells around two turns, interpolated.
    fn between(&self, template_deg: f64, probe_deg: f64) -> Pair {
        let (rows, columns) = (self.around(template_deg), self.around(probe_deg));
        let mut pair = Pair { mean: 0.0, deviation: 0.0, share: 0.0 };
        for (row, of_row) in rows {
            for (column, of_column) in columns {
                let (weight, cell) = (of_row * of_column, &self.cells[row][column]);
                pair.mean += weight * cell.impostors.mean;
                pair.deviation += weight * cell.impostors.deviation;
                pair.share += weight * cell.genuine_share;
            }
        }
        pair
    }

    /// The two nodes around a turn with their weights.
    fn around(&self, turn_deg: f64) -> [(usize, f64); 2] {
        let last = self.yaw_deg.len() - 1;
        let above = self.yaw_deg.partition_point(|&yaw| yaw <= turn_deg);
        if above > last {
            return [(last, 1.0), (last, 0.0)];
        }
        // The first node is 0 and a turn is no less.
        let below = above.saturating_sub(1);
        let part = (turn_deg - self.yaw_deg[below]) / (self.yaw_deg[above] - self.yaw_deg[below]).max(1e-9);
        [(below, 1.0 - part), (above, part)]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Frontal faces as in the reference, half-turned faces with a wider spread, and profiles that all look
    /// alike.
    pub(crate) fn calibration() -> ViewCalibration {
        let cell = |mean, deviation, genuine_share| ViewCell {
            impostors: Spread { pairs: 1000, mean, deviation },
            genuine_pairs: 100,
            genuine_share,
        };
        let (front, half) = (cell(0.0, 0.1, 0.5), cell(0.05, 0.13, 0.2));
        let closed = cell(0.3, 0.2, 0.01);
        ViewCalibration {
            set: "made up".into(),
            people: 20,
            reference: Spread { pairs: 100_000, mean: 0.0, deviation: 0.1 },
            yaw_deg: vec![0.0, 45.0, 65.0],
            cells: vec![vec![front, half, closed], vec![half, half, closed], vec![closed; 3]],
        }
    }

    fn turned(yaw_deg: f32) -> Viewpoint {
        Viewpoint { yaw_deg, score: 1.0 }
    }

    #[test]
    fn a_pair_of_views_is_as_many_deviations_from_its_impostors_as_the_threshold_is() {
        let views = calibration();
        assert_eq!(views.handicap_deg(Viewpoint::FRONTAL, Viewpoint::FRONTAL, 70.0), 0.0);
        let needed = 0.05 + 0.13 * 70f64.to_radians().cos() / 0.1;
        let expected = 70.0 - needed.acos().to_degrees();
        assert!((views.handicap_deg(turned(45.0), Viewpoint::FRONTAL, 70.0) - expected).abs() < 1e-9);
        assert!((views.handicap_deg(Viewpoint::FRONTAL, turned(45.0), 70.0) - expected).abs() < 1e-9);
        let between = views.handicap_deg(turned(20.0), Viewpoint::FRONTAL, 70.0);
        assert!(0.0 < between && between < expected, "{between}");
        assert_eq!(views.handicap_deg(turned(65.0), Viewpoint::FRONTAL, 70.0), CLOSED_DEG);
        assert_eq!(views.handicap_deg(turned(90.0), turned(90.0), 70.0), CLOSED_DEG);
        // A back of a head.
        let unsure = Viewpoint { yaw_deg: 3.0, score: 0.9 };
        assert_eq!(views.handicap_deg(unsure, Viewpoint::FRONTAL, 70.0), CLOSED_DEG);
        assert!(views.is_open(turned(45.0)) && !views.is_open(turned(65.0)) && !views.is_open(unsure));
    }

    #[test]
    fn no_pair_of_views_is_judged_more_generously_than_two_frontal_faces() {
        let mut views = calibration();
        for cell in views.cells.iter_mut().flatten() {
            (cell.impostors.mean, cell.impostors.deviation, cell.genuine_share) = (-0.2, 0.05, 1.0);
        }
        for yaw_deg in 0..90 {
            for threshold_deg in [20.0, 70.0, 89.0] {
                let handicap_deg = views.handicap_deg(turned(yaw_deg as f32), turned(30.0), threshold_deg);
                assert!(handicap_deg >= 0.0, "{yaw_deg}: {handicap_deg}");
            }
        }
    }

    #[test]
    fn a_cell_of_little_evidence_is_as_strict_as_its_strictest_neighbour() {
        let mut views = calibration();
        views.cells[0][1] =
            ViewCell { impostors: Spread { pairs: 3, mean: -1.0, deviation: 0.0 }, ..views.cells[0][0] };
        let metadata = |views: &ViewCalibration| {
            BTreeMap::from([("views".to_owned(), serde_json::to_string(views).unwrap())])
        };
        let read = ViewCalibration::from_metadata(&metadata(&views)).unwrap();
        assert_eq!(read.cells[0][1].impostors.deviation, 0.2);
        assert_eq!(read.handicap_deg(Viewpoint::FRONTAL, turned(45.0), 70.0), CLOSED_DEG);
        assert_eq!(read.cells[1], views.cells[1]);

        views.yaw_deg[1] = 70.0;
        assert_eq!(ViewCalibration::from_metadata(&metadata(&views)), None, "turns do not rise");
        assert_eq!(ViewCalibration::from_metadata(&BTreeMap::new()), None);
    }
}
