//! Calibration: the angle at which a given share of impostor comparisons is a false match.
//!
//! The comparisons are those of labelling: a *template* (crop and mirror image averaged)
//! against a *probe* (one crop). Every two images of different people are compared once, the
//! template of the one that comes first with the probe of the other.

use serde::Serialize;

use super::EvalError;
use crate::embed::Embedding;

/// False match rates that are measured.
pub const RATES: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];

/// Minimum number of false matches for an angle: with ten, the true rate is within a factor of about two.
pub const LEAST_FALSE_MATCHES: u64 = 10;

/// One image for the calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The person in the image.
    pub person: usize,
    /// Its embedding with the mirror image averaged in.
    pub template: Embedding,
    /// Its embedding alone.
    pub probe: Embedding,
}

/// An angle and its false match rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// False match rate requested.
    pub fmr: f64,
    /// The angle in degrees below which at most that share of the comparisons of different people are.
    pub angle_deg: f64,
    /// The number of these comparisons.
    pub false_matches: u64,
    /// Share of the comparisons of one person's images that are not below the angle; `None`
    /// when nobody has two images.
    pub fnmr: Option<f64>,
}

/// The calibration of a model, as stored under its metadata key `calibration`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Name of the data set.
    pub set: String,
    /// Comparisons of different people.
    pub impostor_pairs: u64,
    /// Comparisons of one person's images.
    pub genuine_pairs: u64,
    /// Angles by false match rate, the lowest first.
    pub points: Vec<Point>,
}

/// Measures the angles of [`RATES`] for which there are enough false matches. `set` names the data set.
///
/// # Errors
/// When no rate is supported by the number of samples.
pub fn calibrate(samples: &[Sample], set: &str) -> Result<Calibration, EvalError> {
    let (mut impostor, mut genuine) = (Vec::new(), Vec::new());
    for (i, first) in samples.iter().enumerate() {
        for second in samples.iter().skip(i + 1) {
            let cosine = first.template.cosine(&second.probe).ok_or_else(|| {
                EvalError::TooLittle("the samples were made with different models: embed all with one".into())
            })?;
            if first.person == second.person { &mut genuine } else { &mut impostor }.push(cosine);
        }
    }
    genuine.sort_unstable_by(|a, b| b.total_cmp(a));
    impostor.sort_unstable_by(|a, b| b.total_cmp(a));
    let mut points = Vec::new();
    for fmr in RATES.into_iter().rev() {
        let allowed = (fmr * impostor.len() as f64 + 1e-9).floor() as u64;
        if allowed < LEAST_FALSE_MATCHES {
            continue;
        }
        // The angle of the first comparison that must not match.
        let Some(&cosine) = impostor.get(allowed as usize) else { continue };
        let closer = |cosines: &[f32]| cosines.partition_point(|&c| c > cosine) as u64;
        points.push(Point {
            fmr,
            angle_deg: f64::from(cosine).clamp(-1.0, 1.0).acos().to_degrees(),
            false_matches: closer(&impostor),
            fnmr: (!genuine.is_empty()).then(|| 1.0 - closer(&genuine) as f64 / genuine.len() as f64),
        });
    }
    // If ties give several rates the same angle, only the highest rate is meaningful.
    points.reverse();
    points.dedup_by(|lower, higher| lower.angle_deg >= higher.angle_deg);
    points.reverse();
    if points.is_empty() {
        return Err(EvalError::TooLittle(format!(
            "{} comparisons of different people do not support any false match rate (10 % needs 100): add people",
            impostor.len()
        )));
    }
    Ok(Calibration {
        set: set.into(),
        impostor_pairs: impostor.len() as u64,
        genuine_pairs: genuine.len() as u64,
        points,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;

    fn at(person: usize, angle_deg: f64) -> Sample {
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        let embedding = Embedding::new(ModelId([0; 8]), vec![cos as f32, sin as f32]).unwrap();
        Sample { person, template: embedding.clone(), probe: embedding }
    }

    #[test]
    fn the_angle_is_the_quantile_of_the_angles_between_different_people() {
        // 64 people on a half circle, unevenly, with two images each.
        let samples: Vec<Sample> = (0..128)
            .map(|i| at(i / 2, 175.0 * (f64::from(i as u32 / 2) / 63.0).powf(1.3) + (i % 2) as f64 * 0.1))
            .collect();
        let calibration = calibrate(&samples, "a half circle").unwrap();
        let mut angles = Vec::new();
        for (i, a) in samples.iter().enumerate() {
            for b in samples[i + 1..].iter().filter(|b| b.person != a.person) {
                angles.push(f64::from(a.probe.cosine(&b.probe).unwrap()).acos().to_degrees());
            }
        }
        assert_eq!(calibration.impostor_pairs, 64 * 63 / 2 * 4);
        assert_eq!(calibration.genuine_pairs, 64);
        assert_eq!(calibration.points.iter().map(|p| p.fmr).collect::<Vec<_>>(), [1e-2, 1e-1]);
        for point in &calibration.points {
            let below = angles.iter().filter(|&&a| a < point.angle_deg - 1e-3).count() as f64;
            let up_to = angles.iter().filter(|&&a| a <= point.angle_deg + 1e-3).count() as f64;
            let expected = point.fmr * angles.len() as f64;
            assert!(below <= expected && expected <= up_to + 1.0, "{point:?}: {below} {up_to}");
            assert_eq!(point.fnmr, Some(0.0));
        }
    }

    #[test]
    fn rates_that_too_few_comparisons_support_are_left_out() {
        let few: Vec<Sample> = (0..20).map(|i| at(i, i as f64 * 9.0)).collect();
        let calibration = calibrate(&few, "20 people").unwrap();
        assert_eq!(calibration.points.len(), 1, "190 pairs: {calibration:?}");
        assert!(calibrate(&few[..10], "10 people").is_err(), "45 pairs support nothing");
        let same: Vec<Sample> = (0..20).map(|i| at(0, i as f64)).collect();
        assert!(calibrate(&same, "one person").is_err());
    }
}
