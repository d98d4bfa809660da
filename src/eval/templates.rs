//! Templates of several images and video frames, as in IJB-B, IJB-C and YouTube Faces.
//!
//! - A template's embedding is the mean over its media of the mean over the images of each medium,
//!   normalised: a video of a hundred frames counts as much as a still.
//! - 1:1 verification: true accept rates at false accept rates over a list of pairs of templates.
//! - 1:N identification: probe templates are searched in a gallery of one template per person. A probe whose
//!   person is in the gallery is found when that person comes first, above the threshold; a probe whose
//!   person is not in the gallery must have no match above it. TPIR is the share of mated probes that are
//!   found, at the threshold at which a share FPIR of the others is named.
//!
//! Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPR workshops 2017; Maze et al., "IARPA Janus
//! Benchmark-C: Face Dataset and Protocol", ICB 2018.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::roc::Roc;
use super::{EvalError, read};
use crate::embed::Embedding;

/// An image of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The name of the image in the list.
    pub image: String,
    /// Number of the template.
    pub template: u64,
    /// Number of the medium: frames of one video have the same.
    pub medium: u64,
}

/// Two templates, and whether they show the same person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplatePair {
    /// One.
    pub first: u64,
    /// The other.
    pub second: u64,
    /// Whether they show the same person.
    pub same: bool,
}

/// Reads a list of images, one per line: image, number of the template, number of the medium, the format of
/// `ijbc_face_tid_mid.txt`.
///
/// # Errors
/// When the file cannot be read or a line is invalid; with its number.
pub fn read_media(path: &Path) -> Result<Vec<Medium>, EvalError> {
    rows(path, "image template medium", |fields| match fields {
        [image, template, medium] => Some(Medium {
            image: (*image).into(),
            template: template.parse().ok()?,
            medium: medium.parse().ok()?,
        }),
        _ => None,
    })
}

/// Reads a list of pairs, one per line: two numbers of templates, and 1 for the same person or 0, the format
/// of `ijbc_template_pair_label.txt`.
///
/// # Errors
/// As for [`read_media`].
pub fn read_pairs(path: &Path) -> Result<Vec<TemplatePair>, EvalError> {
    rows(path, "template template 0|1", |fields| match fields {
        [first, second, same @ ("0" | "1")] => Some(TemplatePair {
            first: first.parse().ok()?,
            second: second.parse().ok()?,
            same: *same == "1",
        }),
        _ => None,
    })
}

/// Reads the person of each template: lines of a template and a person, the format of the gallery and probe
/// lists of IJB. More columns and a header line are ignored.
///
/// # Errors
/// As for [`read_media`].
pub fn read_subjects(path: &Path) -> Result<BTreeMap<u64, u64>, EvalError> {
    let text = read(path)?;
    let mut subjects = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split([',', '\t', ' ']).map(str::trim).collect();
        let numbers =
            (fields.first().and_then(|n| n.parse().ok()), fields.get(1).and_then(|n| n.parse().ok()));
        match numbers {
            (Some(template), Some(person)) => {
                if subjects.insert(template, person).is_some_and(|before| before != person) {
                    return Err(bad(path, index, "a template has two people"));
                }
            }
            _ if index == 0 => {}
            _ => return Err(bad(path, index, "not `template,person`")),
        }
    }
    Ok(subjects)
}

fn bad(path: &Path, index: usize, cause: &str) -> EvalError {
    EvalError::List { path: path.into(), line: index + 1, cause: cause.into() }
}

fn rows<T>(path: &Path, form: &str, row: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>, EvalError> {
    let text = read(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let fields: Vec<&str> = line.split([',', '\t', ' ']).filter(|field| !field.is_empty()).collect();
            row(&fields).ok_or_else(|| bad(path, index, &format!("not `{form}`")))
        })
        .collect()
}

/// The embedding of every template with at least one embedded image.
///
/// # Errors
/// When embeddings are of different models, or a template has no direction.
pub fn templates(
    media: &[Medium],
    embeddings: &BTreeMap<String, Embedding>,
) -> Result<BTreeMap<u64, Embedding>, EvalError> {
    let mut images: BTreeMap<u64, BTreeMap<u64, Vec<&Embedding>>> = BTreeMap::new();
    for one in media {
        if let Some(embedding) = embeddings.get(&one.image) {
            images.entry(one.template).or_default().entry(one.medium).or_default().push(embedding);
        }
    }
    images.into_iter().map(|(template, media)| Ok((template, mean_of_media(template, &media)?))).collect()
}

fn mean_of_media(template: u64, media: &BTreeMap<u64, Vec<&Embedding>>) -> Result<Embedding, EvalError> {
    let fail = |cause| EvalError::Feature { image: format!("template {template}"), cause };
    let Some(first) = media.values().flatten().next() else { return Err(fail("it has no image")) };
    let mut sum = vec![0.0f64; first.as_slice().len()];
    for images in media.values() {
        for image in images {
            if image.model() != first.model() || image.as_slice().len() != sum.len() {
                return Err(fail("its images are of different models"));
            }
            let share = 1.0 / images.len() as f64;
            sum.iter_mut().zip(image.as_slice()).for_each(|(sum, &x)| *sum += share * f64::from(x));
        }
    }
    Embedding::new(first.model(), sum.into_iter().map(|x| x as f32).collect())
        .ok_or_else(|| fail("its images cancel each other"))
}

/// The scored pairs, and the number of pairs omitted because a template has no image.
///
/// # Errors
/// When no pair of a kind is left.
pub fn verify(
    pairs: &[TemplatePair],
    templates: &BTreeMap<u64, Embedding>,
) -> Result<(Roc, usize), EvalError> {
    let score = |pair: &TemplatePair| {
        let (first, second) = (templates.get(&pair.first)?, templates.get(&pair.second)?);
        Some((pair.same, f64::from(first.cosine(second)?)))
    };
    let scored: Vec<(bool, f64)> = pairs.iter().filter_map(score).collect();
    let same = scored.iter().filter(|(same, _)| *same).count();
    if same == 0 || same == scored.len() {
        return Err(EvalError::TooLittle(format!(
            "{same} pairs of the same person and {} of different people are left: both kinds are needed",
            scored.len() - same
        )));
    }
    let left_out = pairs.len() - scored.len();
    Ok((Roc::new(scored), left_out))
}

/// True positive identification rate at a false positive identification rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Identified {
    /// The false positive identification rate requested.
    pub fpir: f64,
    /// The cosine above which a probe is named.
    pub threshold: f64,
    /// Share of mated probes that are found.
    pub tpir: f64,
}

/// Identification of probes in a gallery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identification {
    /// Probes whose person is in the gallery.
    pub mated: usize,
    /// Probes whose person is not.
    pub non_mated: usize,
    /// Share of mated probes whose person comes first, whatever the threshold.
    pub rank_one: f64,
    /// The results at each rate for which there are enough probes.
    pub rates: Vec<Identified>,
}

/// Searches every probe in the gallery; both map templates to people. Templates without an image are omitted.
///
/// # Errors
/// When a person is in the gallery twice, or there are no mated probes.
pub fn identify(
    gallery: &BTreeMap<u64, u64>,
    probes: &BTreeMap<u64, u64>,
    templates: &BTreeMap<u64, Embedding>,
    fpirs: &[f64],
) -> Result<Identification, EvalError> {
    let known: Vec<(u64, &Embedding)> =
        gallery.iter().filter_map(|(template, person)| Some((*person, templates.get(template)?))).collect();
    let people: BTreeSet<u64> = known.iter().map(|(person, _)| *person).collect();
    if people.len() != known.len() {
        return Err(EvalError::TooLittle(
            "a person is in the gallery twice: give one template per person".into(),
        ));
    }
    // For mated probes, the cosine to their person if that is the largest.
    let (mut mated, mut strangers) = (Vec::new(), Vec::new());
    for (template, person) in probes {
        let Some(probe) = templates.get(template) else { continue };
        let cosines = known.iter().filter_map(|(person, one)| Some((f64::from(probe.cosine(one)?), *person)));
        let Some((best, found)) = cosines.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        match people.contains(person) {
            true => mated.push((found == *person).then_some(best)),
            false => strangers.push(best),
        }
    }
    if mated.is_empty() {
        return Err(EvalError::TooLittle("no probe's person is in the gallery".into()));
    }
    strangers.sort_unstable_by(|a, b| b.total_cmp(a));
    let share = |threshold: f64| {
        let found = mated.iter().flatten().filter(|cosine| **cosine > threshold).count();
        found as f64 / mated.len() as f64
    };
    let rate = |&fpir: &f64| {
        let allowed = (fpir * strangers.len() as f64 + 1e-9).floor() as usize;
        let threshold = *strangers.get(allowed).filter(|_| allowed > 0)?;
        Some(Identified { fpir, threshold, tpir: share(threshold) })
    };
    Ok(Identification {
        mated: mated.len(),
        non_mated: strangers.len(),
        rank_one: share(f64::NEG_INFINITY),
        rates: fpirs.iter().filter_map(rate).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;

    fn at(deg: f64) -> Embedding {
        let (sin, cos) = deg.to_radians().sin_cos();
        Embedding::new(ModelId([1; 8]), vec![cos as f32, sin as f32]).unwrap()
    }

    fn medium(image: &str, template: u64, medium: u64) -> Medium {
        Medium { image: image.into(), template, medium }
    }

    #[test]
    fn a_video_counts_as_much_as_a_still() {
        let media = [
            medium("still", 7, 1),
            medium("f1", 7, 2),
            medium("f2", 7, 2),
            medium("f3", 7, 2),
            medium("lost", 7, 3),
            medium("nothing", 8, 4),
        ];
        let images = [("still", 0.0), ("f1", 80.0), ("f2", 90.0), ("f3", 100.0)];
        let embeddings = images.map(|(name, deg)| (name.to_owned(), at(deg))).into();
        let templates = templates(&media, &embeddings).unwrap();
        assert_eq!(templates.keys().collect::<Vec<_>>(), [&7], "one without an image has no template");
        // The frames' mean has the length (1 + 2 cos 10) / 3 at 90 degrees; the still has length 1 at 0.
        let frames = (1.0 + 2.0 * 10f64.to_radians().cos()) / 3.0;
        let expected_deg = frames.atan2(1.0).to_degrees();
        assert!((templates[&7].angle_deg(&at(expected_deg)).unwrap()) < 1e-3);
    }

    #[test]
    fn pairs_and_probes_are_counted_as_by_hand() {
        let angles = [(1, 0.0), (2, 10.0), (3, 90.0), (4, 95.0), (5, 200.0)];
        let templates: BTreeMap<u64, Embedding> = angles.map(|(template, deg)| (template, at(deg))).into();
        let pair = |first, second, same| TemplatePair { first, second, same };
        let pairs = [
            pair(1, 2, true),
            pair(3, 4, true),
            pair(1, 3, false),
            pair(2, 4, false),
            pair(2, 5, false),
            pair(1, 9, true),
        ];
        let (roc, left_out) = verify(&pairs, &templates).unwrap();
        assert_eq!(left_out, 1);
        let point = roc.at_far(0.34).unwrap();
        assert_eq!((point.tar, point.far), (1.0, 1.0 / 3.0));
        assert!(verify(&pairs[..2], &templates).is_err());

        // 1 and 3 are known. 2 and 4 belong to them, 5 to nobody; 6 lies nearer to the wrong one.
        let templates = templates.into_iter().chain([(6, at(80.0)), (7, at(45.0 - 1.0))]).collect();
        let gallery = BTreeMap::from([(1, 100), (3, 300)]);
        let probes = BTreeMap::from([(2, 100), (4, 300), (5, 500), (6, 100), (7, 700)]);
        let found = identify(&gallery, &probes, &templates, &[0.5, 0.01]).unwrap();
        assert_eq!((found.mated, found.non_mated), (3, 2));
        assert!((found.rank_one - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.rates.len(), 1, "too few strangers for one in a hundred");
        assert!((found.rates[0].tpir - 2.0 / 3.0).abs() < 1e-12, "{found:?}");
        let twice = BTreeMap::from([(1, 100), (2, 100)]);
        assert!(identify(&twice, &probes, &templates, &[0.5]).is_err());
    }

    #[test]
    fn lists_are_read_as_they_are_distributed_and_refused_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("list.txt");
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(
            read_media(&file("1.jpg 1 69544\r\n2.jpg 1 69544\n")).unwrap()[1],
            medium("2.jpg", 1, 69544)
        );
        let pairs = read_pairs(&file("1 11065 1\n1 11066 0\n")).unwrap();
        assert_eq!(pairs[1], TemplatePair { first: 1, second: 11066, same: false });
        let subjects =
            read_subjects(&file("TEMPLATE_ID,SUBJECT_ID,FILENAME\n5,77,a.jpg\n5,77,b.jpg\n6,78,c.jpg\n"));
        assert_eq!(subjects.unwrap(), BTreeMap::from([(5, 77), (6, 78)]));
        for (error, line) in [
            (read_media(&file("1.jpg 1\n")).unwrap_err(), 1),
            (read_pairs(&file("1 2 1\n\n1 2 2\n")).unwrap_err(), 3),
            (read_subjects(&file("a,b\n5,x\n")).unwrap_err(), 2),
            (read_subjects(&file("5,1\n5,2\n")).unwrap_err(), 2),
        ] {
            assert!(error.to_string().starts_with(&format!("line {line} of ")), "{error}");
        }
    }
}
