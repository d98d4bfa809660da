//! `sphereface eval lfw`: verification by the protocol of LFW.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{BATCH, ImageArgs, ModelChoice, UsageError, group_table, progress, round};
use sphereface::align::Crop;
use sphereface::embed::{Embedder, Embedding, Mirror};
use sphereface::eval::groups::{self, GroupRate, Labels, Trial};
use sphereface::eval::lfw::{ImageName, Pairs};
use sphereface::eval::verification::{Verification, verify};
use sphereface::identify::{Threshold, ThresholdRequest};

/// Measure verification by the protocol of LFW
///
/// Follows the protocol of the authors of SphereFace: ten folds, concatenated features of the crop and
/// its mirror image, and for each fold the mean subtracted and the threshold chosen on the other nine.
/// A list without folds (view 1 of LFW) is split into ten folds, every tenth pair into the same fold.
///
/// Photos go through the detector, by default with the settings of the authors. If a photo shows
/// several faces, the one nearest to the centre is used. Images that are already aligned crops are used
/// unchanged. A pair with a photo in which no face is found is excluded and reported.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface eval lfw pairs.txt lfw-deepfunneled --plot lfw.png\n  \
    sphereface eval lfw pairs.txt lfw-112x112 --aligned --model mine.safetensors --record")]
pub struct LfwArgs {
    /// List of pairs in the format of LFW, or lines `PATH PATH SAME` with 1 for the same person and 0 for
    /// two, separated by tabs, commas or spaces, optionally followed by the number of a fold
    #[arg(value_name = "PAIRS.txt")]
    pairs: PathBuf,
    /// Folder of the images NAME/NAME_0001.jpg (or png, webp), or of the paths of the list
    #[arg(value_name = "IMAGES")]
    images: PathBuf,
    #[command(flatten)]
    input: ImageArgs,
    /// Plot of the ROC curve, .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Labels of the images or people, a CSV file with a heading such as `image,sex,age`: rates of errors at
    /// the threshold of `label` are then printed for each label
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelChoice,
}

/// Replicates of the bootstrap, and its seed.
const BOOTSTRAP: (usize, u64) = (1000, 1);

/// Errors at a threshold by group.
#[derive(Debug, Serialize)]
struct Groups {
    threshold_deg: f64,
    /// Pairs of two people that would be one name.
    false_matches: Vec<GroupRate>,
    /// Pairs of one person that would not be named.
    misses: Vec<GroupRate>,
}

/// False accept rates that are reported.
const FALSE_ACCEPT_RATES: [f64; 3] = [1e-1, 1e-2, 1e-3];

impl LfwArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.model.validate()?;
        let read: Vec<&Path> = self.labels.as_deref().into_iter().chain([self.pairs.as_path()]).collect();
        super::check_plot(self.plot.as_deref(), &read, &self.images)?;
        let labels = self.labels.as_deref().map(Labels::read).transpose()?;
        let list = Pairs::read(&self.pairs)?;
        let (device, embedder) = self.model.open()?;
        let (seen, already_aligned) =
            self.input.crops(&self.paths(&list)?, &device, self.model.threads.count())?;
        let mut crops: Vec<Option<Crop>> = seen.into_iter().map(|seen| seen.map(|(crop, _)| crop)).collect();
        let has: Vec<bool> = crops.iter().map(Option::is_some).collect();
        let (kept, lost_pairs) = list.only(&has);
        let without_face: Vec<String> = list
            .images
            .iter()
            .zip(&has)
            .filter(|(_, has)| !**has)
            .map(|(image, _)| image.to_string())
            .collect();
        let mut features = Vec::with_capacity(kept.images.len());
        // As `label` compares them: a template is averaged with its mirror image, a probe is not.
        let (mut templates, mut probes) = (Vec::new(), Vec::new());
        let mut scratch = embedder.scratch();
        let bar = progress(kept.images.len(), "embedding");
        for batch in crops.chunks_mut(BATCH) {
            if labels.is_some() {
                let own: Vec<Crop> = batch.iter().flatten().cloned().collect();
                templates.extend(embedder.embed(&own, Mirror::Average, &mut scratch)?);
                probes.extend(embedder.embed(&own, Mirror::No, &mut scratch)?);
            }
            let views: Vec<Crop> =
                batch.iter_mut().filter_map(Option::take).flat_map(|crop| [crop.mirrored(), crop]).collect();
            let halves = embedder.features(&views, &mut scratch)?;
            features.extend(halves.chunks_exact(2).map(<[_]>::concat));
            bar.inc(views.len() as u64 / 2);
        }
        bar.finish_and_clear();
        let result = verify(&features, &kept.pairs)?;
        let groups = match &labels {
            Some(labels) => Some(by_group(labels, &kept, &self.images, &templates, &probes, &embedder)?),
            None => None,
        };
        let set = self.model.set(&self.pairs);
        if let Some(path) = &self.plot {
            let title = format!("{set}: {:.2} %, {}", 100.0 * result.accuracy, self.model.network.model);
            super::write_plot(path, &result.roc.chart(&title).encode_for(path)?)?;
        }
        let summary = json!({
            "set": set, "accuracy": round(result.accuracy, 6), "pairs": result.same + result.different,
            "left_out": lost_pairs, "mirror": "concatenated", "aligned_before": self.input.aligned,
        });
        self.model.record("lfw", &summary)?;
        if self.model.json {
            let rates: Vec<_> = FALSE_ACCEPT_RATES
                .into_iter()
                .map(|far| json!({"far": far, "point": result.roc.at_far(far)}))
                .collect();
            outln!(
                "{}",
                json!({
                    "summary": summary, "model": embedder.model().to_string(), "verification": result,
                    "tar_at_far": rates, "eer": result.roc.equal_error_rate(), "without_face": without_face, "groups": groups,
                    "folds_of_the_list": list.folded, "already_aligned": already_aligned,
                })
            );
        } else {
            out!("{}", lfw_table(&result, &list, lost_pairs, &without_face)?);
            if let Some(Groups { threshold_deg, false_matches, misses }) = &groups {
                outln!("errors at the threshold of `label` for one person, {threshold_deg:.2}deg:");
                out!("{}", group_table("false matches", false_matches)?);
                out!("{}", group_table("misses", misses)?);
            }
            if already_aligned > 0 {
                outln!("{already_aligned} images were already aligned crops and were used unchanged");
            }
        }
        Ok(())
    }

    /// The paths of the images.
    fn paths(&self, list: &Pairs) -> Result<Vec<PathBuf>> {
        let missing = |image: &ImageName| {
            format!("{} has no image {image} (jpg, png, webp): check the folder", self.images.display())
        };
        let path = |image: &ImageName| image.find(&self.images).with_context(|| missing(image));
        list.images.iter().map(path).collect()
    }
}

/// Errors at the threshold of `label`. A pair belongs to a group if both of its images do.
fn by_group(
    labels: &Labels,
    list: &Pairs,
    folder: &Path,
    templates: &[Embedding],
    probes: &[Embedding],
    embedder: &Embedder,
) -> Result<Groups> {
    let threshold = Threshold::for_gallery(ThresholdRequest::Default, embedder.metadata(), None, 1);
    let threshold_deg = threshold.map_err(|error| UsageError(error.to_string()))?.angle_deg();
    let image = |at: usize| &list.images[at];
    // Paths in the folder: a list names images by person and number, labels by path.
    let path = |at: usize| {
        let found = image(at).find(folder)?;
        Some(found.strip_prefix(folder).ok()?.to_string_lossy().into_owned())
    };
    let of = |at: usize| labels.of(&path(at).unwrap_or_else(|| image(at).to_string()), &image(at).person());
    let mut people: Vec<String> = list.images.iter().map(ImageName::person).collect();
    people.sort();
    people.dedup();
    let (mut different, mut same) = (Vec::new(), Vec::new());
    for pair in &list.pairs {
        let Some(angle) = templates[pair.first].angle_deg(&probes[pair.second]) else { continue };
        let both = of(pair.first).into_iter().zip(of(pair.second));
        let own = both.map(|(a, b)| if a == b { a } else { String::new() }).collect();
        let person = people.partition_point(|person| *person < image(pair.first).person());
        let wrong = (angle < threshold_deg) != pair.same;
        let trial = Trial { person, wrong, labels: own };
        if pair.same { &mut same } else { &mut different }.push(trial);
    }
    let rates = |trials: &[Trial]| groups::rates(trials, &labels.columns, BOOTSTRAP.0, BOOTSTRAP.1);
    Ok(Groups { threshold_deg, false_matches: rates(&different), misses: rates(&same) })
}

fn lfw_table(
    result: &Verification,
    list: &Pairs,
    lost_pairs: usize,
    without_face: &[String],
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{:>4}{:>8}{:>11}{:>11}", "fold", "pairs", "threshold", "accuracy")?;
    for (index, fold) in result.folds.iter().enumerate() {
        let accuracy = format!("{:.2} %", 100.0 * fold.accuracy);
        writeln!(out, "{:>4}{:>8}{:>11.4}{accuracy:>11}", index + 1, fold.pairs, fold.threshold)?;
    }
    let origin =
        if list.folded { "folds of the list" } else { "the list has no folds: every tenth pair makes one" };
    writeln!(
        out,
        "accuracy {:.2} % +- {:.2} on {} same and {} different pairs ({origin})",
        100.0 * result.accuracy,
        100.0 * result.standard_error,
        result.same,
        result.different
    )?;
    writeln!(
        out,
        "accuracy {:.2} % at the threshold that is best on all of these pairs (cosine {:.4}): optimistic, because it was chosen on the pairs it is measured on",
        100.0 * result.best.accuracy,
        result.best.threshold
    )?;
    for far in FALSE_ACCEPT_RATES {
        match result.roc.at_far(far) {
            Some(point) => writeln!(
                out,
                "true accept rate at a false accept rate of {far:.0e}: {:.2} % (cosine {:.4})",
                100.0 * point.tar,
                point.threshold
            )?,
            None => writeln!(out, "true accept rate at a false accept rate of {far:.0e}: too few pairs")?,
        }
    }
    writeln!(out, "equal error rate {:.2} %", 100.0 * result.roc.equal_error_rate())?;
    if lost_pairs > 0 {
        writeln!(
            out,
            "excluded because no face was found: {lost_pairs} pairs with {}",
            without_face.join(", ")
        )?;
    }
    Ok(out)
}
