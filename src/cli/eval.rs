//! `sphereface eval`: measures accuracy.

mod openset;
mod protocols;
mod verification;
mod views;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::options::{self, DetectionArgs, DeviceArgs, ModelArgs, PrecisionArgs, ThreadArgs};
use super::{UsageError, outputs};
use sphereface::align::Crop;
use sphereface::embed::{Embedder, Mirror};
use sphereface::eval::calibrate::{self, Calibration, Sample};
use sphereface::eval::groups::GroupRate;
use sphereface::eval::lfw;
use sphereface::eval::people::people;
use sphereface::eval::truth::Truth;
use sphereface::eval::video::{self, Counts, NumberCounts, Rule, Score};
use sphereface::gallery::Viewpoint;
use sphereface::models::{BuiltIn, Precision, Weights};
use sphereface::nn::{Arithmetic, ArithmeticChoice, Device};
use sphereface::report::chart::Chart;

/// Measure the accuracy of models and of labelled videos
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface eval video truth.json faces.jsonl\n  \
    sphereface eval lfw pairs.txt lfw --plot lfw.png\n  \
    sphereface eval openset people --plot people.svg\n  \
    sphereface eval calibrate crops --model mine.safetensors --record")]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    Video(VideoArgs),
    Lfw(verification::LfwArgs),
    Openset(openset::OpensetArgs),
    Calibrate(CalibrateArgs),
    Views(views::ViewsArgs),
    Megaface(protocols::MegafaceArgs),
    Ijb(protocols::IjbArgs),
    Ytf(protocols::YtfArgs),
}

impl EvalArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            EvalCommand::Video(args) => args.run(),
            EvalCommand::Lfw(args) => args.run(),
            EvalCommand::Openset(args) => args.run(),
            EvalCommand::Calibrate(args) => args.run(),
            EvalCommand::Views(args) => args.run(),
            EvalCommand::Megaface(args) => args.run(),
            EvalCommand::Ijb(args) => args.run(),
            EvalCommand::Ytf(args) => args.run(),
        }
    }
}

/// Score a labelled video against the ground truth
///
/// The truth is a JSON file that lists the faces of each frame with their boxes and names (`unknown`
/// for strangers), or the tracks of each clip. `label --jsonl` writes the faces to compare with it.
///
/// A face is found if a box overlaps the truth with an intersection over union (IoU) of at least 0.4.
/// If it makes a difference, the result of a laxer rule is printed too: IoU, or each centre lies in
/// the other box, as when the truth is drawn tightly around the face.
///
/// For each continuous face (an `id` of the truth, or a track of a clip), a switch is a change of the
/// track number, an interruption is a gap in which the face is missed, and a change of name includes
/// changes to and from unknown.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sphereface label clip.mp4 --no-video --jsonl faces.jsonl --gallery people\n  \
    sphereface eval video truth.json faces.jsonl")]
struct VideoArgs {
    /// Ground truth
    #[arg(value_name = "TRUTH.json")]
    truth: PathBuf,
    /// Faces written by `label --jsonl`
    #[arg(value_name = "FACES.jsonl")]
    faces: PathBuf,
    /// Clip to score, if the truth holds several
    #[arg(long, value_name = "NAME")]
    clip: Option<String>,
    /// People who were enrolled; everyone else in the truth counts as a stranger [default: everyone
    /// named in the truth]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    enrolled: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl VideoArgs {
    fn run(self) -> Result<()> {
        let mut truth = Truth::read(&self.truth, self.clip.as_deref())?;
        if !self.enrolled.is_empty() {
            truth = truth.with_enrolled(&self.enrolled);
        }
        let faces = video::read_observations(&self.faces)?;
        let [strict, lax] = [Rule::Iou, Rule::IouOrCentres].map(|rule| video::score(&truth, &faces, rule));
        if self.json {
            outln!("{}", json!([strict, lax]));
            return Ok(());
        }
        out!("{}", video_table(&strict)?);
        let same = Score { rule: strict.rule, ..lax.clone() } == strict;
        if !same {
            out!("\n{}", video_table(&lax)?);
        }
        Ok(())
    }
}

fn percent(rate: Option<f64>) -> String {
    rate.map_or("-".into(), |rate| format!("{:.1} %", 100.0 * rate))
}

/// A line of the table: `part` of `whole` with their share.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".into()
    } else {
        format!("{part}/{whole} {}", percent(Some(part as f64 / whole as f64)))
    }
}

fn video_table(score: &Score) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let rule = match score.rule {
        Rule::Iou => "IoU >= 0.4",
        Rule::IouOrCentres => "IoU >= 0.4, or each centre in the other box",
    };
    writeln!(out, "{} frames; a face is found with {rule}", score.frames)?;
    writeln!(out, "{:<34}{:>20}{:>20}", "", "easy", "difficult")?;
    let mut line = |title: &str, of: &dyn Fn(&Counts) -> String| {
        writeln!(out, "{title:<34}{:>20}{:>20}", of(&score.easy), of(&score.difficult))
    };
    line("detected", &|c| share(c.known_detected + c.strangers_detected, c.known + c.strangers))?;
    line("identified, of all", &|c| share(c.identified, c.known))?;
    line("identified, of the detected", &|c| share(c.identified, c.known_detected))?;
    line("wrong name, of the detected", &|c| share(c.misnamed, c.known_detected))?;
    line("strangers named, of the detected", &|c| share(c.strangers_named, c.strangers_detected))?;
    line("track switches", &|c| c.switches.to_string())?;
    line("interruptions", &|c| c.interruptions.to_string())?;
    line("changes of name (per minute)", &|c| {
        let rate = c.renamings_a_minute(score.frame_ns);
        format!("{} ({})", c.renamings, rate.map_or("-".into(), |rate| format!("{rate:.1}")))
    })?;
    writeln!(out, "named in ignored regions: {}", score.named_in_ignored)?;
    if let (Some(faces), Some(named)) = (score.false_detections, score.named_false_detections) {
        writeln!(out, "found where the truth has no face: {faces}, of which named: {named}")?;
    }
    let NumberCounts { numbered, shared, split } = score.numbers;
    if numbered > 0 {
        writeln!(
            out,
            "with a stranger's number: {numbered}, of which with the number of another person: {shared}, with \
             another number than most faces of the same person: {split}"
        )?;
    }
    for (name, counts) in &score.people {
        let identified = share(counts.identified, counts.known);
        writeln!(out, "{name}: identified {identified}, wrong name {}", counts.misnamed)?;
    }
    if score.outside_truth > 0 {
        writeln!(out, "faces in frames without truth, not counted: {}", score.outside_truth)?;
    }
    if !score.names_not_in_truth.is_empty() {
        let names: Vec<&str> = score.names_not_in_truth.iter().map(String::as_str).collect();
        writeln!(out, "names that are not in the truth: {}", names.join(", "))?;
    }
    Ok(out)
}

/// A table of rates by group.
fn group_table(title: &str, rates: &[GroupRate]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{title:<32}{:>8}{:>8}{:>8}{:>26}", "people", "trials", "errors", "rate (95 %)")?;
    for one in rates {
        let name = match one.column.as_str() {
            "" => "all".to_owned(),
            column => format!("{column} {}", one.label),
        };
        let [rate, lower, upper] = [one.rate.rate, one.rate.lower, one.rate.upper].map(|share| 100.0 * share);
        let rate = format!("{rate:.2} % ({lower:.2} to {upper:.2})");
        let high = if one.high { "  more than twice that of all" } else { "" };
        writeln!(out, "  {name:<30}{:>8}{:>8}{:>8}{rate:>26}{high}", one.people, one.trials, one.wrong)?;
    }
    Ok(out)
}

/// The model and the number of threads.
#[derive(Debug, Args)]
struct ModelChoice {
    #[command(flatten)]
    network: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Store the result in the metadata of the model, which must be a file. It is measured in f32
    #[arg(long)]
    record: bool,
    /// Name of the test set in the record [default: the name of the list or folder]
    #[arg(long, value_name = "TEXT")]
    set: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ModelChoice {
    /// Checks the request before hours of work.
    fn validate(&self) -> Result<()> {
        if self.record && BuiltIn::named(&self.network.model).is_some() {
            let reason = "--record cannot change a built-in model";
            return Err(UsageError(format!("{reason}: give a model file with --model FILE")).into());
        }
        if let (true, ArithmeticChoice::Fixed(asked @ (Arithmetic::Bf16 | Arithmetic::Int8))) =
            (self.record, self.precision.precision)
        {
            let reason = "--record stores figures of f32, which hold for every machine";
            return Err(UsageError(format!("{reason}: omit --precision {asked}")).into());
        }
        Ok(())
    }

    /// Opens the device and the model, and prints them.
    fn open(&self) -> Result<(Device, Embedder)> {
        match self.record {
            true => self.open_for_figures_of_the_model(),
            false => self.open_in(self.precision.precision, None),
        }
    }

    /// The same in f32 by default, because the figures of a model hold for every machine.
    fn open_for_figures_of_the_model(&self) -> Result<(Device, Embedder)> {
        match self.precision.precision {
            ArithmeticChoice::Auto => {
                self.open_in(Arithmetic::F32.into(), Some("for figures that hold on every CPU"))
            }
            asked => self.open_in(asked, None),
        }
    }

    /// `why` is the reason for the choice where the user did not make it.
    fn open_in(&self, choice: ArithmeticChoice, why: Option<&str>) -> Result<(Device, Embedder)> {
        let device = self.device.open()?;
        let (embedder, chosen) = self.network.embedder_in(choice, &device, self.threads.count())?;
        match why {
            Some(why) => options::tell_with(&device, format_args!("{} ({why})", chosen.arithmetic)),
            None => options::tell_with(&device, chosen),
        }
        Ok((device, embedder))
    }

    fn set(&self, path: &Path) -> String {
        let name = || path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        self.set.clone().unwrap_or_else(name)
    }

    /// Stores `value` under `key` in the model file, which keeps its precision.
    fn record(&self, key: &str, value: &serde_json::Value) -> Result<()> {
        if !self.record {
            return Ok(());
        }
        let path = Path::new(&self.network.model);
        let mut weights = Weights::load(path)?;
        let half = weights.to_safetensors(Precision::F16).ok();
        let rounded = half.and_then(|bytes| Weights::from_safetensors(&bytes, &self.network.model).ok());
        let is_half = rounded.is_some_and(|rounded| rounded.tensors == weights.tensors);
        weights.metadata.insert(key.into(), value.to_string());
        Ok(weights.save(path, if is_half { Precision::F16 } else { Precision::F32 })?)
    }
}

/// A progress bar, hidden if standard error is not a terminal.
fn progress(count: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(count as u64).with_message(what);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Images read or embedded per batch.
const BATCH: usize = 128;

/// Photos or crops of a test set, turned into crops.
#[derive(Debug, Args)]
#[command(
    mut_arg("min_face", |arg| arg.default_value("20px")),
    mut_arg("factor", |arg| arg.default_value("0.85")),
    mut_arg("scores", |arg| arg.default_value("0.6,0.7,0.9")),
)]
struct ImageArgs {
    /// The images are aligned crops of 112x112 or 96x112
    #[arg(long)]
    aligned: bool,
    #[command(flatten)]
    detection: DetectionArgs,
}

/// The crop of a face, and how it is seen.
type FoundFace = (Crop, Viewpoint);

impl ImageArgs {
    /// The crop of each image and how the face is seen, `None` without a face, and the number of images that are
    /// already aligned crops. Faces of `--aligned` images count as seen from the front.
    fn crops(
        &self,
        paths: &[PathBuf],
        device: &Device,
        threads: usize,
    ) -> Result<(Vec<Option<FoundFace>>, usize)> {
        let detector = self.detection.detector(device)?;
        let bar = progress(paths.len(), "aligning");
        let mut crops = Vec::with_capacity(paths.len());
        let mut already_aligned = 0;
        for batch in paths.chunks(BATCH) {
            if self.aligned {
                let read = batch
                    .iter()
                    .map(|path| lfw::read_crop(path).map(|crop| Some((crop, Viewpoint::FRONTAL))));
                crops.extend(read.collect::<Result<Vec<_>, _>>()?);
            } else {
                let portraits = lfw::portraits(batch, &detector, threads)?;
                already_aligned += portraits.iter().flatten().filter(|p| p.already_aligned).count();
                crops.extend(portraits.into_iter().map(|portrait| portrait.map(|p| (p.crop, p.view))));
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok((crops, already_aligned))
    }
}

/// Checks before the work that a plot can be written, and replaces nothing that is read.
fn check_plot(plot: Option<&Path>, files: &[&Path], images: &Path) -> Result<()> {
    let Some(path) = plot else { return Ok(()) };
    Chart::check_name(path).map_err(|error| UsageError(error.to_string()))?;
    let plot = [("--plot", path)];
    outputs::refuse_inputs(&plot, files.iter().copied())?;
    outputs::refuse_own(&plot, images, "data set")?;
    outputs::check_writable(&plot)
}

/// Writes a drawn plot.
fn write_plot(path: &Path, bytes: &[u8]) -> Result<()> {
    sphereface::file::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

/// Measure the false match rate of a model by angle
///
/// Compares every two images of different people in a folder of aligned crops: one as a template
/// (averaged with its mirror image), one as a face of a video. Prints the angles at which a tenth, a
/// hundredth, ... of these comparisons are false matches. A rate is given only if it rests on at least
/// ten false matches. With --record, the angles are stored in the model, where `--fmr` of the other
/// commands finds them. They are measured in f32, unless --precision bf16 or int8 is given.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sphereface eval calibrate lfw-112x112 --model mine.safetensors --record --set 'LFW DevTrain'")]
struct CalibrateArgs {
    /// Folder with one folder of aligned crops (112x112 or 96x112) per person
    #[arg(value_name = "CROPS")]
    crops: PathBuf,
    #[command(flatten)]
    model: ModelChoice,
}

impl CalibrateArgs {
    fn run(self) -> Result<()> {
        self.model.validate()?;
        let people = people(&self.crops)?;
        let (_, embedder) = self.model.open_for_figures_of_the_model()?;
        let images: Vec<(usize, &PathBuf)> = people
            .iter()
            .enumerate()
            .flat_map(|(i, person)| person.images.iter().map(move |p| (i, p)))
            .collect();
        let mut samples = Vec::with_capacity(images.len());
        let mut scratch = embedder.scratch();
        let bar = progress(images.len(), "embedding");
        for batch in images.chunks(BATCH) {
            let crops = batch.iter().map(|(_, path)| lfw::read_crop(path)).collect::<Result<Vec<_>, _>>()?;
            let templates = embedder.embed(&crops, Mirror::Average, &mut scratch)?;
            let probes = embedder.embed(&crops, Mirror::No, &mut scratch)?;
            let embeddings = templates.into_iter().zip(probes);
            samples.extend(batch.iter().zip(embeddings).map(|((person, _), (template, probe))| Sample {
                person: *person,
                template,
                probe,
            }));
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        let calibration = calibrate::calibrate(&samples, &self.model.set(&self.crops))?;
        self.model.record("calibration", &json!(calibration))?;
        if self.model.json {
            outln!("{}", json!(calibration));
        } else {
            out!("{}", calibration_table(&calibration, people.len(), samples.len())?);
        }
        Ok(())
    }
}

fn calibration_table(c: &Calibration, people: usize, images: usize) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(
        out,
        "{images} images of {people} people: {} comparisons of different people, {} of the same",
        c.impostor_pairs, c.genuine_pairs
    )?;
    writeln!(out, "{:>8}{:>10}{:>15}{:>14}", "FMR", "angle", "false matches", "missed (FNMR)")?;
    for point in &c.points {
        let angle = format!("{:.2}deg", point.angle_deg);
        writeln!(
            out,
            "{:>8.0e}{angle:>10}{:>15}{:>14}",
            point.fmr,
            point.false_matches,
            percent(point.fnmr)
        )?;
    }
    Ok(out)
}
