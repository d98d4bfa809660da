//! `sphereface eval openset`: open-set identification.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{BATCH, ImageArgs, UsageError, group_table, percent, progress};
use crate::align::Crop;
use crate::cli::options::{
    self, DeviceArgs, MarginArgs, ModelArgs, PrecisionArgs, ThreadArgs, ThresholdArgs,
};
use crate::embed::{Embedder, Embedding, Mirror};
use crate::eval::groups::{self, GroupRate, Labels, Trial};
use crate::eval::openset::{self, Estimate, Named, OpenSet, Search, Split, SplitOptions};
use crate::eval::people::{Person, people};
use crate::identify::{Threshold, ThresholdError, ThresholdRequest};
use crate::report::chart::Chart;

/// Measure open-set identification
///
/// Splits a folder of people into a gallery, probes of enrolled people, and strangers. Templates and
/// probes are made as by `label`: a template is averaged with its mirror image, a probe is not, and a
/// person's score is that of the nearest template.
///
/// Prints the identification rate by rank (closed set) and the detection and identification rate (DIR,
/// open set) at false positive identification rates (FPIR) of 1e-1, 1e-2 and 1e-3, with 95 %
/// intervals by bootstrap over people. DIR is the share of probes that are given the right name. Also
/// prints the result at the threshold and margin of `label`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface eval openset lfw-112x112 --aligned --plot openset.png\n  \
    sphereface eval openset photos --gallery-images 3 --strangers 0.3 --seed 7 --json")]
pub struct OpensetArgs {
    /// Folder with one folder of images per person
    #[arg(value_name = "PEOPLE")]
    people: PathBuf,
    #[command(flatten)]
    input: ImageArgs,
    /// Images per enrolled person in the gallery, 1 to 1000; the others are probes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    gallery_images: u16,
    /// Share of the people with enough images who are not enrolled, 0 to 0.99. People with too few
    /// images are always strangers
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    strangers: f64,
    /// Seed of the split and the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Replicates of the bootstrap, 100 to 100000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    bootstrap: u32,
    /// Plot of DIR against FPIR, .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Labels of the images or people, a CSV file with a heading such as `image,sex,age`: rates of errors at
    /// the threshold of `label` are then printed for each label
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    margin: MarginArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.99).contains(share));
    share.ok_or_else(|| "give a share of the people, 0 to 0.99".into())
}

impl OpensetArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        if let Some(path) = &self.plot {
            Chart::check_name(path).map_err(|error| UsageError(error.to_string()))?;
        }
        let labels = self.labels.as_deref().map(Labels::read).transpose()?;
        let people = people(&self.people)?;
        let device = self.device.open()?;
        let (embedder, arithmetic) =
            self.model.embedder_in(self.precision.precision, &device, self.threads.count())?;
        options::tell_with(&device, arithmetic);
        let paths: Vec<PathBuf> = people.iter().flat_map(|person| person.images.clone()).collect();
        let (crops, already_aligned) = self.input.crops(&paths, &device, self.threads.count())?;
        let (people, crops, without_face) = with_faces(people, crops);
        let split_options = SplitOptions {
            gallery_images: self.gallery_images.into(),
            strangers: self.strangers,
            seed: self.seed,
        };
        let split = openset::split(&people, &split_options)?;
        let request = self.threshold.request();
        let threshold = match Threshold::for_gallery(request, embedder.metadata(), None, split.gallery.len())
        {
            Ok(threshold) => Some(threshold.angle_deg()),
            // Without a calibration there is no default threshold.
            Err(ThresholdError::NotCalibrated) if request == ThresholdRequest::Default => None,
            Err(error) => return Err(UsageError(error.to_string()).into()),
        };
        let searches = self.search(&split, &crops, &embedder)?;
        let result = openset::evaluate(&searches, self.bootstrap as usize, self.seed)?;
        let named: Vec<Named> = threshold
            .into_iter()
            .flat_map(|angle_deg| {
                [self.margin.margin, 0.0].map(|margin_deg| openset::named(&searches, angle_deg, margin_deg))
            })
            .collect();
        let groups = labels
            .as_ref()
            .zip(threshold)
            .map(|(labels, threshold_deg)| self.by_group(labels, &people, &split, &searches, threshold_deg));
        if let Some(path) = &self.plot {
            let set = self.people.file_name().unwrap_or(self.people.as_os_str()).to_string_lossy();
            let title = format!("{set}: {} enrolled, {}", split.enrolled.len(), self.model.model);
            super::write_plot(path, &result.chart(&title).encode_for(path)?)?;
        }
        if self.json {
            outln!(
                "{}",
                json!({
                    "model": embedder.model().to_string(), "result": result, "named": named, "seed": self.seed,
                    "gallery_images": self.gallery_images, "templates": split.gallery.len(),
                    "without_face": without_face, "already_aligned": already_aligned,
                    "groups": groups.as_ref().map(|(strangers, misses)| json!({ "false_matches": strangers, "misses": misses })),
                })
            );
        } else {
            out!("{}", table(&result, &named, &split, &without_face)?);
            if let Some((strangers, misses)) = &groups {
                outln!("errors at that threshold and the margin:");
                out!("{}", group_table("strangers named", strangers)?);
                out!("{}", group_table("not named, or wrongly", misses)?);
            }
            if already_aligned > 0 {
                outln!("{already_aligned} images were already aligned crops and were used unchanged");
            }
        }
        Ok(())
    }

    /// Strangers that are named, and probes of enrolled people that are not named or named wrong, by the
    /// labels of the probes.
    fn by_group(
        &self,
        labels: &Labels,
        people: &[Person],
        split: &Split,
        searches: &[Search],
        threshold_deg: f64,
    ) -> (Vec<GroupRate>, Vec<GroupRate>) {
        let (mut strangers, mut mated) = (Vec::new(), Vec::new());
        for (&(person, image), search) in split.probes.iter().chain(&split.strangers).zip(searches) {
            let path = &people[person].images[image];
            let path = path.strip_prefix(&self.people).unwrap_or(path).to_string_lossy().replace('\\', "/");
            let is_named = search.is_named(threshold_deg, self.margin.margin);
            let wrong = if search.rank.is_some() { !is_named || search.rank != Some(1) } else { is_named };
            let trial = Trial { person, wrong, labels: labels.of(&path, &people[person].name) };
            if search.rank.is_some() { &mut mated } else { &mut strangers }.push(trial);
        }
        let rates =
            |trials: &[Trial]| groups::rates(trials, &labels.columns, self.bootstrap as usize, self.seed);
        (rates(&strangers), rates(&mated))
    }

    /// Scores every probe against all enrolled people.
    fn search(&self, split: &Split, crops: &[Vec<Crop>], embedder: &Embedder) -> Result<Vec<Search>> {
        let mut scratch = embedder.scratch();
        let count = split.gallery.len() + split.probes.len() + split.strangers.len();
        let bar = progress(count, "embedding");
        let mut embed = |images: &[(usize, usize)], mirror| -> Result<Vec<Embedding>> {
            let mut embeddings = Vec::with_capacity(images.len());
            for batch in images.chunks(BATCH) {
                let crops: Vec<Crop> = batch.iter().map(|&(person, i)| crops[person][i].clone()).collect();
                embeddings.extend(embedder.embed(&crops, mirror, &mut scratch)?);
                bar.inc(batch.len() as u64);
            }
            Ok(embeddings)
        };
        let templates = embed(&split.gallery, Mirror::Average)?;
        let score = |probe: &Embedding| {
            let mut scores = vec![f64::NEG_INFINITY; split.enrolled.len()];
            for (&(person, _), template) in split.gallery.iter().zip(&templates) {
                if let (Ok(at), Some(cosine)) =
                    (split.enrolled.binary_search(&person), probe.cosine(template))
                {
                    scores[at] = scores[at].max(cosine.into());
                }
            }
            scores
        };
        let mut searches = Vec::with_capacity(count);
        for (&(person, _), probe) in split.probes.iter().zip(&embed(&split.probes, Mirror::No)?) {
            let own = split.enrolled.binary_search(&person).unwrap_or_default();
            searches.extend(Search::mated(person, &score(probe), own));
        }
        for (&(person, _), probe) in split.strangers.iter().zip(&embed(&split.strangers, Mirror::No)?) {
            searches.push(Search::of_a_stranger(person, &score(probe)));
        }
        bar.finish_and_clear();
        Ok(searches)
    }
}

/// The people with the images that have a face, their crops, and the images that have none.
fn with_faces(people: Vec<Person>, crops: Vec<Option<Crop>>) -> (Vec<Person>, Vec<Vec<Crop>>, Vec<PathBuf>) {
    let mut crops = crops.into_iter();
    let (mut kept, mut kept_crops, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for person in people {
        let mut images = Vec::new();
        let mut of_person = Vec::new();
        for path in person.images {
            match crops.next().flatten() {
                Some(crop) => {
                    images.push(path);
                    of_person.push(crop);
                }
                None => without.push(path),
            }
        }
        if !images.is_empty() {
            kept.push(Person { name: person.name, images });
            kept_crops.push(of_person);
        }
    }
    (kept, kept_crops, without)
}

fn table(
    result: &OpenSet,
    named: &[Named],
    split: &Split,
    without_face: &[PathBuf],
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let rate = |e: &Estimate| {
        format!("{:>8} ({:.1} to {:.1})", percent(Some(e.rate)), 100.0 * e.lower, 100.0 * e.upper)
    };
    writeln!(
        out,
        "{} people enrolled with {} images, {} probes of them; {} images of {} strangers",
        split.enrolled.len(),
        split.gallery.len(),
        result.mated,
        result.non_mated,
        result.strangers
    )?;
    for at in &result.closed {
        writeln!(out, "closed set, among the best {:>2}: {}", at.rank, rate(&at.identified))?;
    }
    writeln!(out, "{:>8}{:>10}{:>17}{:>25}{:>12}", "FPIR", "angle", "false positives", "DIR", "wrong name")?;
    for at in &result.open {
        let (angle, dir) = (format!("{:.2}deg", at.angle_deg), rate(&at.dir));
        let (fpir, misnamed) = (at.fpir, percent(Some(at.misnamed)));
        writeln!(out, "{fpir:>8.0e}{angle:>10}{:>17}{dir:>25}{misnamed:>12}", at.false_positives)?;
    }
    if result.open.len() < openset::RATES.len() {
        writeln!(out, "lower rates need more images of strangers")?;
    }
    writeln!(out, "intervals: 95 % of {} bootstrap replicates over people", result.replicates)?;
    for Named { threshold_deg, margin_deg, right, wrong, strangers } in named {
        let [right, wrong, strangers] = [right, wrong, strangers].map(|&share| percent(Some(share)));
        writeln!(
            out,
            "at a threshold of {threshold_deg:.2}deg and a margin of {margin_deg}deg: {right} of the probes named right, {wrong} named wrong, {strangers} of the strangers named"
        )?;
    }
    if !without_face.is_empty() {
        let name = |path: &PathBuf| Path::new(path).display().to_string();
        let names: Vec<String> = without_face.iter().map(name).collect();
        writeln!(out, "excluded because no face was found: {}", names.join(", "))?;
    }
    Ok(out)
}
