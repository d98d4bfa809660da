//! The threshold angle below which a face is named, and its source.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gallery::ThresholdCalibration;

/// False match rate of the default threshold: one impostor comparison in a thousand matches.
pub const DEFAULT_FMR: f64 = 1e-3;

/// False positive identification rate of the default threshold: the share of the views of strangers that
/// are named. Every template is a chance of a false match, so with more than [`DEFAULT_FPIR`] /
/// [`DEFAULT_FMR`] templates the threshold is stricter than [`DEFAULT_FMR`] per comparison.
pub const DEFAULT_FPIR: f64 = 2e-2;

/// Margin in degrees by which the best match must beat the runner-up. In a gallery of 402 people with one
/// still each (LFW development set), at an FMR of 1e-3, it removes a seventh of the false names of
/// strangers, and three in a thousand of the correct names.
pub const DEFAULT_MARGIN_DEG: f64 = 1.0;

/// Why there is no threshold.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdError {
    /// The text is not an angle.
    #[error("`{0}` is not an angle: write degrees between 0 and 180, for example 68deg")]
    AngleSyntax(String),
    /// An angle out of range.
    #[error(
        "a threshold of {0} degrees is out of range: give an angle between 0 (nobody is named) and 180 (everybody is)"
    )]
    AngleRange(f64),
    /// A margin out of range.
    #[error("a margin of {0} degrees is out of range: give 0 (the nearest person is enough) to 90")]
    MarginRange(f64),
    /// The text is not a rate.
    #[error("`{0}` is not a rate: write a number between 0 and 1, for example 1e-4")]
    FmrSyntax(String),
    /// The model was never calibrated.
    #[error(
        "the model is not calibrated, so a false match rate cannot be converted into an angle: give an angle, for example --threshold 68deg"
    )]
    NotCalibrated,
    /// The stored calibration cannot be read.
    #[error(
        "the calibration stored with the model cannot be read ({0}): give an angle, for example --threshold 68deg"
    )]
    BadCalibration(String),
    /// The rate is outside of the measured range.
    #[error(
        "a false match rate of {asked:e} was not measured: {impostor_pairs} impostor pairs of {set} support rates from {least:e} to {most:e}; give a rate in that range or an angle (--threshold)"
    )]
    NotMeasured {
        /// The rate requested.
        asked: f64,
        /// Lowest calibrated rate.
        least: f64,
        /// Highest calibrated rate.
        most: f64,
        /// Data set of the calibration.
        set: String,
        /// Pairs of different people compared.
        impostor_pairs: u64,
    },
}

/// One measured point: at this angle, this share of impostor comparisons match.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPoint {
    /// False match rate, 0..1.
    pub fmr: f64,
    /// Angle in degrees.
    pub angle_deg: f64,
}

/// False match rate against angle, measured on pairs of different people and stored with the
/// model under the metadata key `calibration`.
///
/// The rate is that of *one comparison*. With N templates in the gallery, a stranger gets up to N chances:
/// the false positive identification rate is about N times the rate (for small values, and less if templates
/// of one person resemble each other).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Name of the data set.
    pub set: String,
    /// Pairs of different people compared.
    pub impostor_pairs: u64,
    /// At least one, both values strictly increasing.
    pub points: Vec<CalibrationPoint>,
}

impl Calibration {
    /// Reads the metadata key `calibration` of a model.
    ///
    /// # Errors
    /// [`ThresholdError::NotCalibrated`] when there is none, [`ThresholdError::BadCalibration`]
    /// when it is not JSON of this shape, has no point, a rate outside of (0, 1], an angle
    /// outside of [0, 180], or a larger rate at a smaller angle.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, ThresholdError> {
        let text = metadata.get("calibration").ok_or(ThresholdError::NotCalibrated)?;
        let bad = |cause: String| ThresholdError::BadCalibration(cause);
        let mut calibration: Calibration = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        let points = &mut calibration.points;
        points.sort_by(|p, q| p.fmr.total_cmp(&q.fmr));
        if points.is_empty() {
            return Err(bad("it has no points".to_owned()));
        }
        let plausible =
            |p: &CalibrationPoint| p.fmr > 0.0 && p.fmr <= 1.0 && (0.0..=180.0).contains(&p.angle_deg);
        if let Some(point) = points.iter().find(|point| !plausible(point)) {
            return Err(bad(format!("{} at {} degrees is impossible", point.fmr, point.angle_deg)));
        }
        let rising =
            |pair: &[CalibrationPoint]| pair[0].fmr < pair[1].fmr && pair[0].angle_deg <= pair[1].angle_deg;
        if !points.windows(2).all(rising) {
            return Err(bad("the rate does not increase with the angle".to_owned()));
        }
        Ok(calibration)
    }

    /// The angle in degrees at a false match rate, between measured points linear in the
    /// logarithm of the rate; never beyond them.
    ///
    /// # Errors
    /// [`ThresholdError::NotMeasured`] outside of the measured range.
    pub fn angle_at(&self, fmr: f64) -> Result<f64, ThresholdError> {
        let bounds = self.points.first().zip(self.points.last());
        let (least, most) = bounds.map_or((f64::NAN, f64::NAN), |(first, last)| (first.fmr, last.fmr));
        let not_measured = || ThresholdError::NotMeasured {
            asked: fmr,
            least,
            most,
            set: self.set.clone(),
            impostor_pairs: self.impostor_pairs,
        };
        if let Some(point) = self.points.iter().find(|p| (p.fmr / fmr - 1.0).abs() < 1e-9) {
            return Ok(point.angle_deg);
        }
        let pair = self.points.windows(2).find(|pair| pair[0].fmr <= fmr && fmr <= pair[1].fmr);
        let Some([below, above]) = pair else { return Err(not_measured()) };
        let share = (fmr / below.fmr).ln() / (above.fmr / below.fmr).ln();
        Ok(below.angle_deg + share * (above.angle_deg - below.angle_deg))
    }

    /// The false match rate at an angle, by the same interpolation; `None` beyond the
    /// measured points.
    pub fn fmr_at(&self, angle_deg: f64) -> Option<f64> {
        let inside = |pair: &&[CalibrationPoint]| {
            pair[0].angle_deg <= angle_deg
                && angle_deg <= pair[1].angle_deg
                && pair[0].angle_deg < pair[1].angle_deg
        };
        let pair = self.points.windows(2).find(inside)?;
        let share = (angle_deg - pair[0].angle_deg) / (pair[1].angle_deg - pair[0].angle_deg);
        Some((pair[0].fmr.ln() + share * (pair[1].fmr.ln() - pair[0].fmr.ln())).exp())
    }
}

/// A requested threshold, before the model is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ThresholdRequest {
    /// No request: [`DEFAULT_FMR`] by the model's calibration, or less with many templates
    /// ([`DEFAULT_FPIR`]). If the calibration does not reach that rate, the nearest measured one.
    #[default]
    Default,
    /// An angle in degrees.
    AngleDeg(f64),
    /// A false match rate by the model's calibration.
    Fmr(f64),
}

/// The source of an angle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdSource {
    /// The user gave it.
    Given,
    /// From the calibration stored with the model.
    Calibrated {
        /// False match rate of one comparison.
        fmr: f64,
        /// The number of templates, if it is the reason for a rate below [`DEFAULT_FMR`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        templates: Option<usize>,
        /// Data set of the calibration.
        set: String,
        /// Pairs of different people compared.
        impostor_pairs: u64,
    },
    /// Measured on strangers in the user's own footage and kept with the gallery.
    GalleryCalibration {
        /// Share of strangers who get a name.
        fpir: f64,
        /// 95 % interval of that share.
        interval: [f64; 2],
        /// Number of strangers measured.
        strangers: usize,
        /// Number of people in the gallery at that time.
        people: usize,
    },
}

/// The angle below which the nearest person is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    angle_deg: f64,
    source: ThresholdSource,
}

impl Threshold {
    /// An angle in degrees that the user gave.
    ///
    /// # Errors
    /// [`ThresholdError::AngleRange`] unless strictly between 0 and 180.
    pub fn from_angle(angle_deg: f64) -> Result<Self, ThresholdError> {
        if !(angle_deg > 0.0 && angle_deg < 180.0) {
            return Err(ThresholdError::AngleRange(angle_deg));
        }
        Ok(Self { angle_deg, source: ThresholdSource::Given })
    }

    /// The angle at a false match rate.
    ///
    /// # Errors
    /// See [`Calibration::angle_at`].
    pub fn from_fmr(calibration: &Calibration, fmr: f64) -> Result<Self, ThresholdError> {
        let angle_deg = calibration.angle_at(fmr)?;
        let Calibration { set, impostor_pairs, .. } = calibration.clone();
        let source = ThresholdSource::Calibrated { fmr, templates: None, set, impostor_pairs };
        Ok(Self { angle_deg, source })
    }

    /// The default threshold for a number of templates.
    fn default_before(templates: usize, metadata: &BTreeMap<String, String>) -> Result<Self, ThresholdError> {
        let calibration = Calibration::from_metadata(metadata)?;
        let rates = calibration.points.iter().map(|point| point.fmr);
        let (least, most) =
            rates.fold((1.0, 0.0), |(least, most): (f64, f64), fmr| (least.min(fmr), most.max(fmr)));
        let measured = |fmr: f64| fmr.max(least).min(most);
        let fmr = measured(DEFAULT_FPIR / templates.max(1) as f64);
        let alone = measured(DEFAULT_FMR);
        let mut threshold = Self::from_fmr(&calibration, fmr.min(alone))?;
        if let ThresholdSource::Calibrated { templates: reason, .. } = &mut threshold.source {
            *reason = (fmr < alone).then_some(templates);
        }
        Ok(threshold)
    }

    /// The threshold for a request and a model's metadata, for a single template.
    ///
    /// # Errors
    /// [`ThresholdError`]: the angle is out of range, or the model has no usable calibration for
    /// the rate.
    pub fn resolve(
        request: ThresholdRequest,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, ThresholdError> {
        match request {
            ThresholdRequest::AngleDeg(angle_deg) => Self::from_angle(angle_deg),
            ThresholdRequest::Fmr(fmr) => Self::from_fmr(&Calibration::from_metadata(metadata)?, fmr),
            ThresholdRequest::Default => Self::default_before(1, metadata),
        }
    }

    /// The threshold for a request and a gallery with a number of templates. A calibration of the gallery on
    /// the user's videos ([`crate::gallery::GalleryFolder::threshold_calibration`]) is the default if there
    /// is one.
    ///
    /// # Errors
    /// As [`Threshold::resolve`].
    pub fn for_gallery(
        request: ThresholdRequest,
        metadata: &BTreeMap<String, String>,
        footage: Option<&ThresholdCalibration>,
        templates: usize,
    ) -> Result<Self, ThresholdError> {
        match (request, footage) {
            (ThresholdRequest::Default, Some(footage)) => {
                let mut threshold = Self::from_angle(footage.angle_deg)?;
                threshold.source = ThresholdSource::GalleryCalibration {
                    fpir: footage.fpir,
                    interval: [footage.fpir_low, footage.fpir_high],
                    strangers: footage.strangers,
                    people: footage.people,
                };
                Ok(threshold)
            }
            (ThresholdRequest::Default, None) => Self::default_before(templates, metadata),
            _ => Self::resolve(request, metadata),
        }
    }

    /// The angle in degrees.
    pub fn angle_deg(&self) -> f64 {
        self.angle_deg
    }

    /// Its source.
    pub fn source(&self) -> &ThresholdSource {
        &self.source
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            ThresholdSource::Given => write!(f, "{:.2} degrees, as given", self.angle_deg),
            ThresholdSource::Calibrated { fmr, templates, set, impostor_pairs } => {
                write!(f, "{:.2} degrees: false match rate ", self.angle_deg)?;
                match templates {
                    // A derived rate needs no more than two digits.
                    Some(templates) => {
                        write!(f, "{fmr:.1e} per comparison, because there are {templates} templates")?
                    }
                    None => write!(f, "{fmr:e} per comparison")?,
                }
                write!(f, ", measured on {impostor_pairs} impostor pairs of {set}")
            }
            ThresholdSource::GalleryCalibration { fpir, interval: [low, high], strangers, people } => write!(
                f,
                "{:.2} degrees: false positive identification rate {fpir:e} (95 % interval {low:.1e} to {high:.1e}), measured on {strangers} strangers in your videos against {people} people",
                self.angle_deg
            ),
        }
    }
}

/// Reads `68deg` or `68` as degrees.
///
/// # Errors
/// [`ThresholdError::AngleSyntax`] for what is not a number, [`ThresholdError::AngleRange`] for
/// one outside of 0..180.
pub fn parse_angle_deg(text: &str) -> Result<f64, ThresholdError> {
    Threshold::from_angle(degrees(text)?).map(|threshold| threshold.angle_deg)
}

/// Reads a margin in degrees, likewise.
///
/// # Errors
/// [`ThresholdError::AngleSyntax`] or [`ThresholdError::MarginRange`].
pub fn parse_margin_deg(text: &str) -> Result<f64, ThresholdError> {
    let margin_deg = degrees(text)?;
    match (0.0..=90.0).contains(&margin_deg) {
        true => Ok(margin_deg),
        false => Err(ThresholdError::MarginRange(margin_deg)),
    }
}

fn degrees(text: &str) -> Result<f64, ThresholdError> {
    let number = text.trim().trim_end_matches("deg").trim_end_matches('°').trim();
    number.parse().map_err(|_| ThresholdError::AngleSyntax(text.to_owned()))
}

/// Reads a false match rate: `1e-4` or `0.0001`.
///
/// # Errors
/// [`ThresholdError::FmrSyntax`] unless it is a number strictly between 0 and 1.
pub fn parse_fmr(text: &str) -> Result<f64, ThresholdError> {
    let fmr = text.trim().parse::<f64>().ok().filter(|&fmr| fmr > 0.0 && fmr < 1.0);
    fmr.ok_or_else(|| ThresholdError::FmrSyntax(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(calibration: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("calibration".to_owned(), calibration.to_owned())])
    }

    fn measured() -> BTreeMap<String, String> {
        metadata(
            r#"{"set":"LFW","impostor_pairs":1000000,"points":[
                {"fmr":1e-3,"angle_deg":72.0},{"fmr":1e-5,"angle_deg":60.0},{"fmr":1e-2,"angle_deg":78.0}]}"#,
        )
    }

    #[test]
    fn a_measured_rate_gives_the_measured_angle() {
        let calibration = Calibration::from_metadata(&measured()).unwrap();
        for (fmr, angle) in [(1e-5, 60.0), (1e-3, 72.0), (1e-2, 78.0)] {
            assert_eq!(calibration.angle_at(fmr).unwrap(), angle);
        }
    }

    #[test]
    fn between_points_the_angle_is_linear_in_the_logarithm() {
        let calibration = Calibration::from_metadata(&measured()).unwrap();
        assert!((calibration.angle_at(1e-4).unwrap() - 66.0).abs() < 1e-9);
        assert!((calibration.fmr_at(66.0).unwrap() / 1e-4 - 1.0).abs() < 1e-9);
        assert_eq!(calibration.fmr_at(59.0), None);
    }

    #[test]
    fn a_rate_that_was_not_measured_is_refused_with_the_range() {
        let calibration = Calibration::from_metadata(&measured()).unwrap();
        for fmr in [1e-6, 0.5] {
            let message = calibration.angle_at(fmr).unwrap_err().to_string();
            assert!(message.contains("1e-5 to 1e-2") && message.contains("LFW"), "{message}");
        }
    }

    #[test]
    fn the_default_is_a_stated_rate_and_says_so() {
        let threshold = Threshold::resolve(ThresholdRequest::Default, &measured()).unwrap();
        assert_eq!(threshold.angle_deg(), 72.0);
        assert_eq!(
            threshold.to_string(),
            "72.00 degrees: false match rate 1e-3 per comparison, measured on 1000000 impostor pairs of LFW"
        );
        let coarse = metadata(r#"{"set":"S","impostor_pairs":100,"points":[{"fmr":1e-2,"angle_deg":70.0}]}"#);
        let threshold = Threshold::resolve(ThresholdRequest::Default, &coarse).unwrap();
        assert_eq!(threshold.angle_deg(), 70.0);
        assert!(matches!(threshold.source(), ThresholdSource::Calibrated { fmr, .. } if *fmr == 1e-2));
    }

    #[test]
    fn before_many_templates_the_default_is_stricter_and_says_why() {
        let before = |templates| {
            Threshold::for_gallery(ThresholdRequest::Default, &measured(), None, templates).unwrap()
        };
        let alone = Threshold::resolve(ThresholdRequest::Default, &measured()).unwrap();
        for few in [0, 1, 20] {
            assert_eq!(before(few), alone);
        }
        assert!((before(200).angle_deg() - 66.0).abs() < 1e-9);
        assert_eq!(
            before(200).to_string(),
            "66.00 degrees: false match rate 1.0e-4 per comparison, because there are 200 templates, measured on 1000000 impostor pairs of LFW"
        );
        // The strictest measured angle, and no stricter.
        assert_eq!(before(1_000_000).angle_deg(), 60.0);
        let asked = Threshold::for_gallery(ThresholdRequest::Fmr(1e-2), &measured(), None, 200).unwrap();
        assert_eq!(asked.angle_deg(), 78.0);
    }

    #[test]
    fn a_request_overrides_the_default() {
        let angle = Threshold::resolve(ThresholdRequest::AngleDeg(68.0), &BTreeMap::new()).unwrap();
        assert_eq!((angle.angle_deg(), angle.source()), (68.0, &ThresholdSource::Given));
        let rate = Threshold::resolve(ThresholdRequest::Fmr(1e-4), &measured()).unwrap();
        assert!((rate.angle_deg() - 66.0).abs() < 1e-9);
    }

    #[test]
    fn without_calibration_an_angle_is_asked_for() {
        for request in [ThresholdRequest::Default, ThresholdRequest::Fmr(1e-4)] {
            let message = Threshold::resolve(request, &BTreeMap::new()).unwrap_err().to_string();
            assert!(message.contains("--threshold 68deg"), "{message}");
        }
    }

    #[test]
    fn a_broken_calibration_is_refused() {
        for text in [
            "no json",
            r#"{"set":"S","impostor_pairs":1,"points":[]}"#,
            r#"{"set":"S","impostor_pairs":1,"points":[{"fmr":0.0,"angle_deg":70}]}"#,
            r#"{"set":"S","impostor_pairs":1,"points":[{"fmr":0.1,"angle_deg":200}]}"#,
            r#"{"set":"S","impostor_pairs":1,"points":[{"fmr":0.1,"angle_deg":60},{"fmr":0.01,"angle_deg":70}]}"#,
        ] {
            let error = Calibration::from_metadata(&metadata(text)).unwrap_err();
            assert!(matches!(error, ThresholdError::BadCalibration(_)), "{text}");
        }
    }

    #[test]
    fn angles_and_rates_are_read_with_or_without_units() {
        assert_eq!(parse_angle_deg("68deg").unwrap(), 68.0);
        assert_eq!(parse_angle_deg(" 67.5 ").unwrap(), 67.5);
        assert!(matches!(parse_angle_deg("68rad"), Err(ThresholdError::AngleSyntax(_))));
        assert!(matches!(parse_angle_deg("NaN"), Err(ThresholdError::AngleRange(_))));
        for outside in ["0", "180", "-5deg", "inf"] {
            assert!(matches!(parse_angle_deg(outside), Err(ThresholdError::AngleRange(_))), "{outside}");
        }
        assert_eq!(parse_margin_deg("1.5deg").unwrap(), 1.5);
        assert_eq!(parse_margin_deg("0").unwrap(), 0.0);
        assert!(matches!(parse_margin_deg("1%"), Err(ThresholdError::AngleSyntax(_))));
        for outside in ["-1", "91", "NaN"] {
            assert!(matches!(parse_margin_deg(outside), Err(ThresholdError::MarginRange(_))), "{outside}");
        }
        assert_eq!(parse_fmr("1e-4").unwrap(), 1e-4);
        for wrong in ["0", "1", "-1e-4", "x", "NaN"] {
            assert!(parse_fmr(wrong).is_err(), "{wrong}");
        }
    }
}
