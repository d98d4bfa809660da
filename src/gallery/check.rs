//! Checking a gallery: mislabelled and poor stills, one person under two names, people who are too
//! alike, and the expected FPIR.

use super::{Person, PersonTemplates, Templates};
use crate::detect::QualityIssue;
use crate::embed::Embedding;

/// A problem that the user should examine.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A still that is unlike the person's other stills and like another person's.
    Mislabelled {
        /// The person it is enrolled as.
        person: String,
        /// The still.
        still: String,
        /// Angle in degrees to the nearest of the person's other stills.
        own_deg: f32,
        /// The person it looks like.
        like: String,
        /// That person's nearest still.
        like_still: String,
        /// Angle to it in degrees.
        like_deg: f32,
    },
    /// A still that is unlike the person's other stills and unlike everyone else's.
    Stranger {
        /// The person it is enrolled as.
        person: String,
        /// The still.
        still: String,
        /// Angle in degrees to the nearest of the person's other stills.
        own_deg: f32,
    },
    /// Two names that are probably one person: most of their stills match each other.
    SamePerson {
        /// Both names.
        people: [String; 2],
        /// The nearest stills, one of each.
        stills: [String; 2],
        /// Angle between those in degrees.
        angle_deg: f32,
        /// Share of the pairs of stills that match.
        share: f32,
    },
    /// Two people some of whose stills match: they may be confused.
    TooAlike {
        /// Both names.
        people: [String; 2],
        /// The nearest stills, one of each.
        stills: [String; 2],
        /// Angle between those in degrees.
        angle_deg: f32,
        /// Share of the pairs of stills that match.
        share: f32,
    },
    /// A still of poor quality.
    Poor {
        /// The person.
        person: String,
        /// The still.
        still: String,
        /// Its problems.
        issues: Vec<QualityIssue>,
    },
    /// The index mentions a missing still.
    Gone {
        /// The person.
        person: String,
        /// The still.
        still: String,
    },
    /// A person without a usable still, who will never be named.
    Empty {
        /// The person.
        person: String,
    },
}

impl Finding {
    /// The stills to examine, as (person, still).
    pub fn stills(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Mislabelled { person, still, like, like_still, .. } => {
                vec![(person, still), (like, like_still)]
            }
            Self::Stranger { person, still, .. } | Self::Poor { person, still, .. } => {
                vec![(person, still)]
            }
            Self::SamePerson { people, stills, .. } | Self::TooAlike { people, stills, .. } => {
                people.iter().zip(stills).map(|(person, still)| (person.as_str(), still.as_str())).collect()
            }
            Self::Gone { .. } | Self::Empty { .. } => Vec::new(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mislabelled { person, still, own_deg, like, like_still, like_deg } => write!(
                f,
                "{person}: {still} looks like {like} ({like_deg:.0} degrees from {like_still}) and unlike {person}'s other stills ({own_deg:.0} degrees at best): move it there or remove it"
            ),
            Self::Stranger { person, still, own_deg } => write!(
                f,
                "{person}: {still} is unlike {person}'s other stills ({own_deg:.0} degrees at best): check whether it shows another person, or the wrong face of the picture was enrolled"
            ),
            Self::SamePerson { people: [a, b], stills: [x, y], angle_deg, share } => write!(
                f,
                "{a} and {b} look like one person ({:.0} % of their stills match, nearest {x} and {y} at {angle_deg:.0} degrees): enrol the stills of one under the other name",
                share * 100.0
            ),
            Self::TooAlike { people: [a, b], stills: [x, y], angle_deg, share } => write!(
                f,
                "{a} and {b} are alike ({:.0} % of their stills match, nearest {x} and {y} at {angle_deg:.0} degrees) and may be confused: use other stills, a lower threshold, or `gallery reject`",
                share * 100.0
            ),
            Self::Poor { person, still, issues } => {
                let issues: Vec<String> = issues.iter().map(ToString::to_string).collect();
                write!(f, "{person}: {still}: {}", issues.join("; "))
            }
            Self::Gone { person, still } => {
                write!(f, "{person}: {still} is missing and no longer used")
            }
            Self::Empty { person } => {
                write!(f, "{person} has no usable still and will never be named: enrol one")
            }
        }
    }
}

/// Share of matching pairs of stills above which two names are one person.
const SAME_PERSON_SHARE: f32 = 0.5;

/// Checks a gallery. `people` and `templates` come from the same gallery; two stills match if the angle
/// between them is below `threshold_deg`.
pub fn check(people: &[Person], templates: &Templates, threshold_deg: f64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stills: Vec<Vec<(&str, &Embedding)>> =
        templates.people.iter().map(|one| own_stills(one, people)).collect();
    let matches = |angle: f32| f64::from(angle) < threshold_deg;
    for (i, own) in stills.iter().enumerate() {
        let person = &templates.people[i].name;
        for (k, (still, embedding)) in own.iter().enumerate() {
            let others = own.iter().enumerate().filter(|(other, _)| *other != k).map(|(_, one)| one);
            let Some((own_deg, _)) = nearest(embedding, others) else { continue };
            if matches(own_deg) {
                continue;
            }
            let elsewhere = (0..stills.len()).filter(|&j| j != i);
            let like = elsewhere
                .filter_map(|j| nearest(embedding, stills[j].iter()).map(|(angle, at)| (angle, j, at)))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(angle, ..)| matches(*angle));
            let (person, still) = (person.clone(), (*still).to_owned());
            findings.push(match like {
                Some((like_deg, j, at)) => Finding::Mislabelled {
                    person,
                    still,
                    own_deg,
                    like: templates.people[j].name.clone(),
                    like_still: stills[j][at].0.to_owned(),
                    like_deg,
                },
                None => Finding::Stranger { person, still, own_deg },
            });
        }
    }
    for i in 0..stills.len() {
        for j in i + 1..stills.len() {
            findings.extend(compare(&templates.people, &stills, i, j, threshold_deg));
        }
    }
    for person in people {
        let name = person.name.to_string();
        for still in &person.stills {
            let issues = still.quality.verdict();
            if !issues.is_empty() {
                findings.push(Finding::Poor { person: name.clone(), still: still.file.clone(), issues });
            }
        }
        let gone = person.missing.iter().cloned();
        findings.extend(gone.map(|still| Finding::Gone { person: name.clone(), still }));
        if person.stills.is_empty() {
            findings.push(Finding::Empty { person: name });
        }
    }
    findings
}

/// The templates of a person that are stills.
fn own_stills<'a>(templates: &'a PersonTemplates, people: &[Person]) -> Vec<(&'a str, &'a Embedding)> {
    let person = people.iter().find(|person| person.name.as_str() == templates.name);
    let is_still = |source: &str| person.is_some_and(|person| person.stills.iter().any(|s| s.file == source));
    let all = templates.templates.iter().filter(|template| is_still(&template.source));
    all.map(|template| (template.source.as_str(), &template.embedding)).collect()
}

/// The nearest of some stills: its angle and its place.
fn nearest<'a>(
    probe: &Embedding,
    stills: impl Iterator<Item = &'a (&'a str, &'a Embedding)>,
) -> Option<(f32, usize)> {
    let angles = stills.enumerate().filter_map(|(at, (_, other))| Some((angle(probe, other)?, at)));
    angles.min_by(|a, b| a.0.total_cmp(&b.0))
}

fn angle(a: &Embedding, b: &Embedding) -> Option<f32> {
    a.cosine(b).map(|cosine| cosine.clamp(-1.0, 1.0).acos().to_degrees())
}

/// Whether two people are one, or too alike.
fn compare(
    people: &[PersonTemplates],
    stills: &[Vec<(&str, &Embedding)>],
    i: usize,
    j: usize,
    threshold_deg: f64,
) -> Option<Finding> {
    let mut pairs = 0usize;
    let mut matching = 0usize;
    let mut best: Option<(f32, usize, usize)> = None;
    for (a, (_, left)) in stills[i].iter().enumerate() {
        for (b, (_, right)) in stills[j].iter().enumerate() {
            let Some(angle) = angle(left, right) else { continue };
            pairs += 1;
            matching += usize::from(f64::from(angle) < threshold_deg);
            if best.is_none_or(|(least, ..)| angle < least) {
                best = Some((angle, a, b));
            }
        }
    }
    let (angle_deg, a, b) = best.filter(|_| matching > 0)?;
    let share = matching as f32 / pairs as f32;
    let people = [people[i].name.clone(), people[j].name.clone()];
    let stills = [stills[i][a].0.to_owned(), stills[j][b].0.to_owned()];
    Some(if share >= SAME_PERSON_SHARE {
        Finding::SamePerson { people, stills, angle_deg, share }
    } else {
        Finding::TooAlike { people, stills, angle_deg, share }
    })
}

/// Expected share of strangers who are given some name, if one comparison matches at a rate of `fmr`: 1 - (1
/// - fmr)^templates. An upper bound, since the templates of one person resemble each other.
pub fn expected_false_matches(fmr: f64, templates: usize) -> f64 {
    // Exact for small rates, where the plain formula loses digits.
    -(templates as f64 * (-fmr).ln_1p()).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{BBox, Face, Quality};
    use crate::gallery::{PersonName, Still, Template, Viewpoint};
    use crate::models::ModelId;

    const MODEL: ModelId = ModelId([1; 8]);

    fn gallery(people: &[(&str, &[f64])]) -> (Vec<Person>, Templates) {
        let still = |deg: &f64| Still {
            file: format!("{deg}.jpg"),
            blake3: String::new(),
            face: Face {
                bbox: BBox { x1: 0.0, y1: 0.0, x2: 100.0, y2: 100.0 },
                score: 1.0,
                landmarks: Default::default(),
            },
            faces_seen: 1,
            already_aligned: false,
            quality: Quality { size_px: 100.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.4 },
        };
        let template = |deg: &f64| Template {
            source: format!("{deg}.jpg"),
            embedding: Embedding::new(
                MODEL,
                vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32],
            )
            .unwrap(),
            view: Viewpoint::FRONTAL,
        };
        let folders = people.iter().map(|(name, stills)| Person {
            colour: None,
            name: PersonName::new(name).unwrap(),
            folder: name.into(),
            stills: stills.iter().map(still).collect(),
            rejected: Vec::new(),
            missing: Vec::new(),
        });
        let templates = people.iter().map(|(name, stills)| PersonTemplates {
            name: (*name).into(),
            colour: None,
            templates: stills
                .iter()
                .map(template)
                .chain([Template { source: "mean".into(), ..template(&0.0) }])
                .collect(),
            rejected: Vec::new(),
        });
        let templates =
            Templates { model: MODEL, people: templates.collect(), re_embedded: 0, not_saved: None };
        (folders.collect(), templates)
    }

    #[test]
    fn a_good_gallery_has_no_findings() {
        let (people, templates) = gallery(&[("Ann", &[0.0, 10.0]), ("Bo", &[90.0, 100.0]), ("Cy", &[180.0])]);
        assert_eq!(check(&people, &templates, 60.0), []);
    }

    #[test]
    fn a_still_under_the_wrong_name_is_found_and_nothing_else() {
        let (people, templates) =
            gallery(&[("Ann", &[0.0, 10.0, 95.0]), ("Bo", &[90.0, 100.0, 105.0, 93.0])]);
        let findings = check(&people, &templates, 45.0);
        let [Finding::Mislabelled { person, still, like, like_still, own_deg, like_deg }, alike] =
            &findings[..]
        else {
            panic!("{findings:?}")
        };
        assert_eq!((person.as_str(), still.as_str(), like.as_str()), ("Ann", "95.jpg", "Bo"));
        assert_eq!(like_still, "93.jpg");
        assert!((own_deg - 85.0).abs() < 0.1 && (like_deg - 2.0).abs() < 0.1);
        assert!(
            matches!(alike, Finding::TooAlike { share, .. } if (share - 1.0 / 3.0).abs() < 1e-6),
            "{alike}"
        );
        assert!(findings[0].to_string().contains("move it there or remove it"));
    }

    #[test]
    fn strangers_twins_and_duplicates_are_told_apart() {
        let (people, templates) = gallery(&[
            ("Ann", &[0.0, 5.0, 180.0]),
            ("Ann L.", &[2.0, 8.0]),
            ("Bo", &[90.0, 110.0, 130.0]),
            ("Cy", &[60.0, 71.0]),
        ]);
        let mut findings = check(&people, &templates, 25.0);
        findings.sort_by_key(|finding| finding.to_string());
        let [
            Finding::SamePerson { people: same, share, .. },
            Finding::Stranger { still, .. },
            Finding::TooAlike { people: alike, stills, .. },
        ] = &findings[..]
        else {
            panic!("{findings:?}")
        };
        assert_eq!((same[0].as_str(), same[1].as_str()), ("Ann", "Ann L."));
        assert!((share - 4.0 / 6.0).abs() < 1e-6);
        assert_eq!(still, "180.jpg");
        assert_eq!((alike[0].as_str(), stills[1].as_str()), ("Bo", "71.jpg"));
    }

    #[test]
    fn poor_missing_and_no_stills_are_reported() {
        let (mut people, templates) = gallery(&[("Ann", &[0.0]), ("Bo", &[])]);
        people[0].stills[0].quality.sharpness = 0.01;
        people[0].missing.push("lost.jpg".into());
        let findings = check(&people, &templates, 60.0);
        assert!(matches!(
            &findings[..],
            [Finding::Poor { .. }, Finding::Gone { still, .. }, Finding::Empty { person }]
                if still == "lost.jpg" && person == "Bo"
        ));
        assert_eq!(findings[0].stills(), [("Ann", "0.jpg")]);
    }

    #[test]
    fn false_matches_add_up_over_templates() {
        assert!((expected_false_matches(1e-3, 1) - 1e-3).abs() < 1e-12);
        assert!((expected_false_matches(1e-3, 1000) - 0.632_304_575).abs() < 1e-6);
        assert!((expected_false_matches(1e-12, 100) - 1e-10).abs() < 1e-18);
        assert_eq!(expected_false_matches(0.0, 100), 0.0);
    }
}
