//! The reason for a name, in a sentence.

use crate::identify::{Candidate, Identification};

/// Why a face got its name, or none; `threshold_deg` is the angle below which faces are named.
pub(super) fn why(identification: &Identification, threshold_deg: Option<f64>) -> String {
    let Identification { nearest, runner_up, rejected, ambiguous, .. } = identification;
    let (Some(nearest), Some(threshold_deg)) = (nearest, threshold_deg) else {
        return "nobody to compare with, or no view that could be embedded".to_owned();
    };
    let bar_deg = threshold_deg - f64::from(nearest.handicap_deg);
    let mut text = format!("nearest is {}, named below {:.1}", near(nearest), bar_deg.max(0.0));
    if nearest.handicap_deg > 0.0 {
        text += &format!(" for such views ({threshold_deg:.1} from the front)");
    }
    if *ambiguous {
        text += ", but another person is about as near";
    }
    if let Some(runner_up) = runner_up {
        text += &format!("; then {}", near(runner_up));
    }
    if let Some(rejected) = rejected {
        let (name, angle_deg) = (&rejected.candidate.name, rejected.candidate.angle_deg);
        let (counter, counter_deg) = (&rejected.counter_example, rejected.counter_angle_deg);
        text += &format!(
            "; not {name} at {angle_deg:.1} degrees, because the counter-example {counter} lies at {counter_deg:.1}"
        );
    }
    text
}

fn near(Candidate { name, angle_deg, template, .. }: &Candidate) -> String {
    match template.as_str() {
        "mean" => format!("{name} at {angle_deg:.1} degrees (the mean of the stills)"),
        still => format!("{name} at {angle_deg:.1} degrees (still {still})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::Rejection;

    #[test]
    fn a_sentence_tells_angle_still_bar_runner_up_and_counter_example() {
        let candidate = |name: &str, angle_deg: f32, template: &str, handicap_deg: f32| Candidate {
            name: name.into(),
            angle_deg,
            template: template.into(),
            handicap_deg,
        };
        let mut one = Identification::UNKNOWN;
        assert!(why(&one, Some(68.0)).starts_with("nobody to compare with"));
        one.nearest = Some(candidate("Ada", 41.23, "a.jpg", 0.0));
        assert_eq!(why(&one, Some(68.0)), "nearest is Ada at 41.2 degrees (still a.jpg), named below 68.0");
        one.nearest = Some(candidate("Ada", 41.23, "mean", 3.0));
        one.runner_up = Some(candidate("Bo", 80.0, "b.jpg", 0.0));
        one.ambiguous = true;
        let candidate = candidate("Cy", 30.0, "c.jpg", 0.0);
        one.rejected =
            Some(Rejection { candidate, counter_example: "twin.jpg".into(), counter_angle_deg: 12.0 });
        assert_eq!(
            why(&one, Some(68.0)),
            "nearest is Ada at 41.2 degrees (the mean of the stills), named below 65.0 for such views (68.0 from \
             the front), but another person is about as near; then Bo at 80.0 degrees (still b.jpg); not Cy at 30.0 degrees, \
             because the counter-example twin.jpg lies at 12.0"
        );
    }
}
