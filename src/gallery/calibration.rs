//! The threshold angle measured on strangers in the user's own videos, stored with the gallery.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{GalleryError, GalleryFolder, disk};
use crate::models::ModelId;

/// File in the gallery folder.
pub(super) const FILE: &str = "calibration.json";

/// Minimum number of strangers for any rate.
pub const MIN_STRANGERS: usize = 20;

/// Confidence of the intervals.
pub const CONFIDENCE: f64 = 0.95;

/// Why there is no threshold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// Not a rate.
    #[error("a false positive identification rate of {0} is out of range: give a number between 0 and 1")]
    Rate(f64),
    /// Too few strangers to measure the rate.
    #[error(
        "{strangers} strangers are too few for a false positive identification rate of {fpir:e}, which needs at least {needed}: add videos{}",
        Lowest(*.strangers)
    )]
    TooFew {
        /// Strangers found.
        strangers: usize,
        /// The rate requested.
        fpir: f64,
        /// Strangers needed.
        needed: usize,
    },
}

/// The lowest rate that this number of strangers can show, as text.
struct Lowest(usize);

impl fmt::Display for Lowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < MIN_STRANGERS {
            return Ok(());
        }
        write!(f, ", or request {:.1e} or more", 1.0 / self.0 as f64)
    }
}

/// The threshold measured on strangers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdCalibration {
    /// Identifier of the model.
    pub model: String,
    /// False positive identification rate requested: the share of strangers who get a name.
    pub fpir: f64,
    /// Angle in degrees below which the nearest person is named.
    pub angle_deg: f64,
    /// Lower end of the 95 % interval of that angle (order statistics, without any assumption about the
    /// distribution); `None` if there are too few strangers for a bound.
    pub angle_low_deg: Option<f64>,
    /// Its upper end, likewise.
    pub angle_high_deg: Option<f64>,
    /// Strangers who are given a name at that angle.
    pub named: usize,
    /// Strangers measured: groups of tracks, each counted once with its worst track.
    pub strangers: usize,
    /// Lower end of the 95 % interval of the rate at that angle (Clopper and Pearson, 1934).
    pub fpir_low: f64,
    /// Its upper end.
    pub fpir_high: f64,
    /// People in the gallery at that time: more people mean more false matches.
    pub people: usize,
    /// Templates in the gallery at that time.
    pub templates: usize,
    /// The videos.
    pub videos: Vec<String>,
}

/// The circumstances of a measurement.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The model.
    pub model: ModelId,
    /// People in the gallery.
    pub people: usize,
    /// Templates in the gallery.
    pub templates: usize,
    /// Names of the videos.
    pub videos: Vec<String>,
}

impl ThresholdCalibration {
    /// The threshold at which a share `fpir` of strangers is given a name. `angles_deg` holds
    /// for each stranger the smallest angle to anybody of the gallery, over all of the
    /// stranger's tracks.
    ///
    /// # Errors
    /// [`CalibrationError`]: the rate is out of range, or there are fewer strangers than [`MIN_STRANGERS`] or
    /// `1 / fpir`, too few to measure the rate.
    pub fn measure(
        angles_deg: &[f32],
        fpir: f64,
        circumstances: Circumstances,
    ) -> Result<Self, CalibrationError> {
        if !(fpir > 0.0 && fpir < 1.0) {
            return Err(CalibrationError::Rate(fpir));
        }
        let strangers = angles_deg.len();
        // The small term makes 1e-3 need exactly 1000 in spite of rounding.
        let needed = ((1.0 / fpir - 1e-6).ceil() as usize).max(MIN_STRANGERS);
        if strangers < needed {
            return Err(CalibrationError::TooFew { strangers, fpir, needed });
        }
        let mut angles: Vec<f64> = angles_deg.iter().map(|&angle| f64::from(angle)).collect();
        angles.sort_by(f64::total_cmp);
        // A stranger is named if strictly below the threshold.
        let allowed = ((strangers as f64 * fpir + 1e-6) as usize).min(strangers - 1);
        let angle_deg = angles[allowed];
        let named = angles.iter().filter(|&&angle| angle < angle_deg).count();
        let tail = (1.0 - CONFIDENCE) / 2.0;
        let at_most = |k: usize| binomial_at_most(k, strangers, fpir);
        let low = (0..strangers).take_while(|&k| at_most(k) <= tail).count();
        let high = (low..strangers).find(|&k| at_most(k) >= 1.0 - tail);
        let (fpir_low, fpir_high) = clopper_pearson(named, strangers);
        let Circumstances { model, people, templates, videos } = circumstances;
        Ok(Self {
            model: model.to_string(),
            fpir,
            angle_deg,
            angle_low_deg: low.checked_sub(1).map(|rank| angles[rank]),
            angle_high_deg: high.and_then(|rank| angles.get(rank + 1)).copied(),
            named,
            strangers,
            fpir_low,
            fpir_high,
            people,
            templates,
            videos,
        })
    }
}

impl fmt::Display for ThresholdCalibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |angle: Option<f64>| angle.map_or("?".to_owned(), |angle| format!("{angle:.1}"));
        write!(
            f,
            "{:.2} degrees (95 % interval {} to {}): {} of {} strangers are named, a false positive identification rate of {:.2e} (95 % interval {:.1e} to {:.1e}) against {} people",
            self.angle_deg,
            end(self.angle_low_deg),
            end(self.angle_high_deg),
            self.named,
            self.strangers,
            self.named as f64 / self.strangers as f64,
            self.fpir_low,
            self.fpir_high,
            self.people
        )
    }
}

/// Probability of at most `k` successes in `n` trials of probability `p`.
fn binomial_at_most(k: usize, n: usize, p: f64) -> f64 {
    if k >= n || p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let odds = (p / (1.0 - p)).ln();
    let mut term = n as f64 * (-p).ln_1p();
    let mut sum = term.exp();
    for i in 0..k {
        term += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
        sum += term.exp();
    }
    sum.min(1.0)
}

/// The 95 % interval of Clopper and Pearson for `k` successes in `n` trials.
fn clopper_pearson(k: usize, n: usize) -> (f64, f64) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    // Both probabilities are monotonous in p: sixty halvings are beyond any rounding.
    let solve = |rises: &dyn Fn(f64) -> bool| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if rises(middle) { high = middle } else { low = middle }
        }
        (low + high) / 2.0
    };
    let low = if k == 0 { 0.0 } else { solve(&|p| 1.0 - binomial_at_most(k - 1, n, p) >= tail) };
    let high = if k == n { 1.0 } else { solve(&|p| binomial_at_most(k, n, p) <= tail) };
    (low, high)
}

impl GalleryFolder {
    /// The threshold measured on the user's own videos with `model`; `None` if there is none or it was
    /// measured with another model.
    ///
    /// # Errors
    /// [`GalleryError::Damaged`] when the file is not one of ours.
    pub fn threshold_calibration(
        &self,
        model: ModelId,
    ) -> Result<Option<ThresholdCalibration>, GalleryError> {
        let path = self.root.join(FILE);
        let Some(bytes) = disk::read(&path)? else { return Ok(None) };
        let damaged = |reason: String| GalleryError::Damaged { path: path.clone(), reason };
        let footage: ThresholdCalibration =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if !(footage.angle_deg > 0.0 && footage.angle_deg < 180.0) {
            return Err(damaged(format!("{} degrees is not a threshold", footage.angle_deg)));
        }
        Ok(Some(footage).filter(|footage| footage.model == model.to_string()))
    }

    /// Stores a threshold with the gallery, replacing an earlier one.
    ///
    /// # Errors
    /// [`GalleryError::Write`].
    pub fn keep_threshold_calibration(&self, footage: &ThresholdCalibration) -> Result<(), GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let path = self.root.join(FILE);
        let mut text = serde_json::to_vec_pretty(footage)
            .map_err(|error| disk::write_error(&path, std::io::Error::other(error)))?;
        text.push(b'\n');
        disk::write(&path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn circumstances() -> Circumstances {
        Circumstances { model: ModelId([1; 8]), people: 2, templates: 5, videos: vec!["a.mp4".into()] }
    }

    #[test]
    fn intervals_agree_with_published_values() {
        // R: binom.test(0, 100), binom.test(3, 30), binom.test(10, 10).
        for ((k, n), (low, high)) in [
            ((0, 100), (0.0, 0.036_216_7)),
            ((3, 30), (0.021_117_1, 0.265_288_5)),
            ((10, 10), (0.691_502_9, 1.0)),
        ] {
            let found = clopper_pearson(k, n);
            assert!((found.0 - low).abs() < 1e-6 && (found.1 - high).abs() < 1e-6, "{k} of {n}: {found:?}");
        }
        assert!((binomial_at_most(2, 10, 0.3) - 0.382_782_8).abs() < 1e-6);
        assert!((binomial_at_most(5, 5000, 1e-3) - 0.615_960_7).abs() < 1e-4);
    }

    #[test]
    fn the_share_of_strangers_below_the_angle_is_the_one_asked_for() {
        let angles: Vec<f32> = (0..1000).map(|i| 50.0 + (i * 7 % 1000) as f32 / 20.0).collect();
        for fpir in [1e-3, 0.01, 0.1, 0.5] {
            let footage = ThresholdCalibration::measure(&angles, fpir, circumstances()).unwrap();
            let named = angles.iter().filter(|&&angle| f64::from(angle) < footage.angle_deg).count();
            assert_eq!(named, (fpir * 1000.0).round() as usize);
            assert_eq!(named, footage.named);
            assert!(footage.fpir_low < fpir && fpir < footage.fpir_high);
            assert!(footage.angle_low_deg.is_none_or(|low| low < footage.angle_deg));
            assert!(footage.angle_high_deg.unwrap() > footage.angle_deg);
        }
        let lowest = ThresholdCalibration::measure(&angles, 1e-3, circumstances()).unwrap();
        assert_eq!(lowest.angle_low_deg, None, "one in a thousand has no lower bound in a thousand");
    }

    #[test]
    fn the_interval_holds_the_true_angle_as_often_as_it_says() {
        // Strangers uniform in 0..100 degrees: the true angle for 10 % is 10 degrees.
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 * 100.0
        };
        let held = (0..400).filter(|_| {
            let angles: Vec<f32> = (0..120).map(|_| random()).collect();
            let footage = ThresholdCalibration::measure(&angles, 0.1, circumstances()).unwrap();
            footage.angle_low_deg.is_none_or(|low| low <= 10.0)
                && footage.angle_high_deg.is_none_or(|high| high >= 10.0)
        });
        let held = held.count();
        assert!((374..=400).contains(&held), "{held} of 400");
    }

    #[test]
    fn too_few_strangers_are_refused_and_told_what_they_can_show() {
        let angles = vec![70.0; 100];
        let error = ThresholdCalibration::measure(&angles, 1e-3, circumstances()).unwrap_err();
        assert!(matches!(error, CalibrationError::TooFew { strangers: 100, needed: 1000, .. }));
        assert!(error.to_string().contains("1.0e-2 or more"), "{error}");
        let error = ThresholdCalibration::measure(&angles[..19], 0.5, circumstances()).unwrap_err();
        assert!(matches!(error, CalibrationError::TooFew { needed: MIN_STRANGERS, .. }));
        for fpir in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(matches!(
                ThresholdCalibration::measure(&angles, fpir, circumstances()),
                Err(CalibrationError::Rate(_))
            ));
        }
    }

    #[test]
    fn it_is_kept_with_the_gallery_and_serves_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let gallery = GalleryFolder::create(&folder.path().join("gallery")).unwrap();
        let model = ModelId([1; 8]);
        assert_eq!(gallery.threshold_calibration(model).unwrap(), None);
        let angles: Vec<f32> = (0..100).map(|i| 60.0 + i as f32 / 7.0).collect();
        let footage = ThresholdCalibration::measure(&angles, 0.05, circumstances()).unwrap();
        gallery.keep_threshold_calibration(&footage).unwrap();
        let kept = gallery.threshold_calibration(model).unwrap().unwrap();
        assert_eq!((kept.to_string(), kept.strangers), (footage.to_string(), 100));
        assert_eq!(gallery.threshold_calibration(ModelId([2; 8])).unwrap(), None);
        assert_eq!(gallery.people().unwrap(), [], "the file is nobody");
        let file = std::fs::read(gallery.root().join(FILE)).unwrap();
        mutations::survived_by("gallery_calibration", "measured.json", &file, 200);
        std::fs::write(gallery.root().join(FILE), "{}").unwrap();
        assert!(matches!(gallery.threshold_calibration(model), Err(GalleryError::Damaged { .. })));
    }
}
