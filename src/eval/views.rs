//! Impostor scores by the views of template and probe.

use super::EvalError;
use crate::detect::SURE_SCORE;
use crate::embed::Embedding;
use crate::gallery::Viewpoint;
use crate::identify::{Spread, ViewCalibration, ViewCell};

/// Yaw angles of the cells in degrees. By landmarks, a profile has 60 to 70.
pub const YAW_DEG: [f64; 4] = [0.0, 25.0, 45.0, 65.0];

/// Share of impostor comparisons below the angle at which genuine ones are counted.
const RATE: f64 = 1e-3;

/// A face with its view.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewSample {
    /// The person.
    pub person: usize,
    /// Its view.
    pub view: Viewpoint,
    /// Its embedding.
    pub embedding: Embedding,
}

/// Measures `samples` of `people` people by pairs of views, relative to the frontal faces of the same
/// collection. The impostor scores of those are mapped to the mean and the deviation of `reference`, since
/// people of one collection share camera and light, which has nothing to do with views. Faces with a low
/// detector score are omitted.
///
/// # Errors
/// [`EvalError::TooLittle`] when there are no two frontal faces of different people.
pub fn measure(
    samples: &[ViewSample],
    people: usize,
    reference: Spread,
    set: &str,
) -> Result<ViewCalibration, EvalError> {
    let nodes = YAW_DEG.len();
    let mut impostors = vec![vec![Vec::new(); nodes]; nodes];
    let mut genuine = vec![vec![Vec::new(); nodes]; nodes];
    let sure: Vec<&ViewSample> = samples.iter().filter(|one| one.view.score >= SURE_SCORE).collect();
    for (i, first) in sure.iter().enumerate() {
        for second in &sure[i + 1..] {
            let Some(cosine) = first.embedding.cosine(&second.embedding) else { continue };
            let (a, b) = (nearest_node(first.view), nearest_node(second.view));
            let cells = if first.person == second.person { &mut genuine } else { &mut impostors };
            // Both directions count: either of the two may be the template.
            cells[a][b].push(f64::from(cosine));
            if a != b {
                cells[b][a].push(f64::from(cosine));
            }
        }
    }
    let frontal = spread(&impostors[0][0]);
    if frontal.pairs < 2 || frontal.deviation <= 0.0 {
        return Err(EvalError::TooLittle(
            "fewer than two people are seen from the front: add frontal stills".into(),
        ));
    }
    let cell = |a: usize, b: usize| -> ViewCell {
        let Spread { pairs, mean, deviation } = spread(&impostors[a][b]);
        let impostors_here = Spread {
            pairs,
            mean: mean - frontal.mean + reference.mean,
            deviation: deviation * reference.deviation / frontal.deviation,
        };
        ViewCell {
            impostors: impostors_here,
            genuine_pairs: genuine[a][b].len() as u64,
            genuine_share: share_beyond(&impostors[a][b], &genuine[a][b]),
        }
    };
    let cells = (0..nodes).map(|a| (0..nodes).map(|b| cell(a, b)).collect()).collect();
    Ok(ViewCalibration { set: set.into(), people, reference, yaw_deg: YAW_DEG.to_vec(), cells })
}

/// Mean and standard deviation of the cosines between different people.
///
/// # Errors
/// [`EvalError::TooLittle`] when there are no two.
pub fn reference(samples: &[(usize, Embedding)]) -> Result<Spread, EvalError> {
    let mut cosines = Vec::new();
    for (i, (person, first)) in samples.iter().enumerate() {
        let others = samples[i + 1..].iter().filter(|(other, _)| other != person);
        cosines.extend(others.filter_map(|(_, second)| first.cosine(second)).map(f64::from));
    }
    if cosines.len() < 2 {
        return Err(EvalError::TooLittle("at least two people are needed".into()));
    }
    Ok(spread(&cosines))
}

fn nearest_node(view: Viewpoint) -> usize {
    let middles = YAW_DEG.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    middles.filter(|&middle| f64::from(view.yaw_deg) >= middle).count()
}

fn spread(cosines: &[f64]) -> Spread {
    let count = cosines.len().max(1) as f64;
    let mean = cosines.iter().sum::<f64>() / count;
    let variance = cosines.iter().map(|cosine| (cosine - mean).powi(2)).sum::<f64>() / count;
    Spread { pairs: cosines.len() as u64, mean, deviation: variance.sqrt() }
}

/// The share of `genuine` that is nearer than all but [`RATE`] of `impostors`; 0 where nothing was measured.
fn share_beyond(impostors: &[f64], genuine: &[f64]) -> f64 {
    let mut sorted = impostors.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let Some(&bar) = sorted.get((RATE * sorted.len() as f64) as usize) else { return 0.0 };
    let beyond = genuine.iter().filter(|&&cosine| cosine > bar).count();
    if genuine.is_empty() { 0.0 } else { beyond as f64 / genuine.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;

    fn sample(person: usize, yaw_deg: f32, angle_deg: f64) -> ViewSample {
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        let embedding = Embedding::new(ModelId([0; 8]), vec![cos as f32, sin as f32]).unwrap();
        ViewSample { person, view: Viewpoint { yaw_deg, score: 1.0 }, embedding }
    }

    #[test]
    fn cells_hold_the_impostors_and_the_genuine_pairs_of_their_views() {
        // Three people 90 degrees apart from the front, and 10 from the side.
        let mut samples = Vec::new();
        for person in 0..3 {
            samples.push(sample(person, 5.0, 90.0 * person as f64));
            samples.push(sample(person, -0.0, 90.0 * person as f64 + 1.0));
            samples.push(sample(person, 70.0, 200.0 + 10.0 * person as f64));
        }
        samples.push(ViewSample { view: Viewpoint { yaw_deg: 0.0, score: 0.8 }, ..samples[0].clone() });
        let reference = Spread { pairs: 10, mean: 0.02, deviation: 0.1 };
        let found = measure(&samples, 3, reference, "made up").unwrap();
        let front = found.cells[0][0];
        assert_eq!((front.impostors.pairs, front.genuine_pairs), (12, 3));
        assert!(
            (front.impostors.mean - 0.02).abs() < 1e-12 && (front.impostors.deviation - 0.1).abs() < 1e-12
        );
        assert_eq!(front.genuine_share, 1.0);
        let side = found.cells[3][3];
        assert_eq!((side.impostors.pairs, side.genuine_pairs, side.genuine_share), (3, 0, 0.0));
        assert!(side.impostors.mean > 1.0, "all of them are alike: {side:?}");
        assert_eq!(found.cells[0][3], found.cells[3][0]);
        assert_eq!(found.cells[0][3].genuine_pairs, 6);
        assert!(measure(&samples[2..3], 1, reference, "nobody from the front").is_err());
    }
}
