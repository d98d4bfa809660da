//! `sphereface eval megaface`, `ijb` and `ytf`: the other protocols of the field.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::{BATCH, ImageArgs, ModelChoice, UsageError, progress};
use sphereface::embed::{Embedder, Embedding, Mirror};
use sphereface::eval::EvalError;
use sphereface::eval::lfw;
use sphereface::eval::megaface::{MegaFace, Probe, Report};
use sphereface::eval::people::{images, people};
use sphereface::eval::templates::{self, Identification};
use sphereface::eval::youtube::{VideoPairs, mean};
use sphereface::nn::Device;

/// False accept rates of IJB's 1:1 protocol.
const FALSE_ACCEPT_RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// False positive identification rates of IJB's 1:N protocol.
const FALSE_POSITIVE_RATES: [f64; 2] = [1e-1, 1e-2];

/// Embeds images, batch by batch.
struct Images<'a> {
    input: &'a ImageArgs,
    model: &'a ModelChoice,
    device: &'a Device,
    embedder: &'a Embedder,
}

impl Images<'_> {
    /// Calls `tell` with the embedding of every image in order; `None` without a face.
    fn each(
        &self,
        paths: &[PathBuf],
        what: &'static str,
        mut tell: impl FnMut(usize, Option<Embedding>) -> Result<(), EvalError>,
    ) -> Result<()> {
        let detector = self.input.detection.detector(self.device)?;
        let mut scratch = self.embedder.scratch();
        let bar = progress(paths.len(), what);
        let mut index = 0;
        for batch in paths.chunks(BATCH) {
            let crops: Vec<_> = match self.input.aligned {
                true => batch.iter().map(|path| lfw::read_crop(path).map(Some)).collect::<Result<_, _>>()?,
                false => {
                    let found = lfw::portraits(batch, &detector, self.model.threads.count())?;
                    found.into_iter().map(|portrait| portrait.map(|portrait| portrait.crop)).collect()
                }
            };
            let has: Vec<bool> = crops.iter().map(Option::is_some).collect();
            let crops: Vec<_> = crops.into_iter().flatten().collect();
            let mut made = self.embedder.embed(&crops, Mirror::Average, &mut scratch)?.into_iter();
            for has in has {
                tell(index, if has { made.next() } else { None })?;
                index += 1;
            }
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn all(&self, paths: &[PathBuf], what: &'static str) -> Result<Vec<Option<Embedding>>> {
        let mut all = Vec::with_capacity(paths.len());
        self.each(paths, what, |_, embedding| {
            all.push(embedding);
            Ok(())
        })?;
        Ok(all)
    }
}

/// Measure identification among many distractors by the protocol of MegaFace
///
/// Each image of a person is put among the distractors in turn. Each other image of that person is a probe,
/// which is identified if that image is nearer than every distractor. Prints the rank-1 rates with the first
/// 10, 100, 1,000, ... distractors, in the order of their names, and the true accept rate at a false accept
/// rate. Distractors are not kept in memory. Images without a face are excluded and counted.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sphereface eval megaface facescrub-112x112 megaface-112x112 --aligned")]
pub struct MegafaceArgs {
    /// Folder with one folder of images per person
    #[arg(value_name = "PROBES")]
    probes: PathBuf,
    /// Folder with the images of others, at any depth
    #[arg(value_name = "DISTRACTORS")]
    distractors: PathBuf,
    /// False accept rate at which the true accept rate is measured, more than 0 and less than 1
    #[arg(long, value_name = "RATE", default_value_t = 1e-6)]
    far: f64,
    #[command(flatten)]
    input: ImageArgs,
    #[command(flatten)]
    model: ModelChoice,
}

impl MegafaceArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.model.validate()?;
        if !(self.far > 0.0 && self.far < 1.0) {
            return Err(UsageError(format!("--far {} is not between 0 and 1", self.far)).into());
        }
        let of: Vec<(usize, PathBuf)> = people(&self.probes)?
            .into_iter()
            .enumerate()
            .flat_map(|(number, person)| person.images.into_iter().map(move |path| (number, path)))
            .collect();
        let distractors = images(&self.distractors)?;
        if distractors.is_empty() {
            bail!("{} has no images: give the folder of the distractors", self.distractors.display());
        }
        let (device, embedder) = self.model.open()?;
        let embed = Images { input: &self.input, model: &self.model, device: &device, embedder: &embedder };
        let paths: Vec<PathBuf> = of.iter().map(|(_, path)| path.clone()).collect();
        let found = embed.all(&paths, "probes")?;
        let mut without_face = found.iter().filter(|one| one.is_none()).count();
        let probes: Vec<Probe> = of
            .iter()
            .zip(found)
            .filter_map(|((person, _), embedding)| Some(Probe { person: *person, embedding: embedding? }))
            .collect();
        let mut challenge = MegaFace::new(probes, distractors.len() as u64, self.far)?;
        embed.each(&distractors, "distractors", |_, embedding| match embedding {
            Some(embedding) => challenge.see(&embedding),
            None => {
                without_face += 1;
                Ok(())
            }
        })?;
        let report = challenge.finish();
        if self.model.json {
            outln!("{}", json!({ "report": report, "without_face": without_face }));
        } else {
            out!("{}", megaface_table(&report, without_face)?);
        }
        Ok(())
    }
}

fn megaface_table(report: &Report, without_face: usize) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{:>12}{:>10}{:>10}{:>9}", "distractors", "probes", "found", "rank 1")?;
    for one in &report.rank_one {
        let rate = format!("{:.2} %", 100.0 * one.found as f64 / one.pairs.max(1) as f64);
        writeln!(out, "{:>12}{:>10}{:>10}{rate:>9}", one.distractors, one.pairs, one.found)?;
    }
    match report.verification {
        Some(one) => writeln!(
            out,
            "true accept rate at a false accept rate of {:e}: {:.2} % (cosine {:.4}, {} impostor pairs)",
            one.far,
            100.0 * one.tar,
            one.threshold,
            one.impostors
        )?,
        None => writeln!(out, "true accept rate: too few impostor pairs for that false accept rate")?,
    }
    if without_face > 0 {
        writeln!(out, "excluded because no face was found: {without_face} images")?;
    }
    Ok(out)
}

/// Measure templates of several images by the protocol of IJB-B and IJB-C
///
/// A template is the mean over its media, and a medium is the mean of its images. With --pairs, prints the
/// true accept rates at false accept rates from 1e-1 to 1e-6. With --gallery and --probes, prints the share
/// of probes identified at false positive identification rates of 1e-1 and 1e-2. Rates for which there are
/// too few comparisons are omitted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface eval ijb ijbc_face_tid_mid.txt loose_crop --pairs ijbc_template_pair_label.txt\n  \
    sphereface eval ijb ijbc_face_tid_mid.txt loose_crop --gallery ijbc_1N_gallery_G1.csv \
    --probes ijbc_1N_probe_mixed.csv")]
pub struct IjbArgs {
    /// List of images: image, template number, medium number
    #[arg(value_name = "MEDIA.txt")]
    media: PathBuf,
    /// Folder with the images of the list
    #[arg(value_name = "IMAGES")]
    images: PathBuf,
    /// List of pairs: template, template, 1 for the same person or 0
    #[arg(long, value_name = "FILE", required_unless_present = "gallery")]
    pairs: Option<PathBuf>,
    /// List of the gallery: template, person
    #[arg(long, value_name = "FILE", requires = "probes")]
    gallery: Option<PathBuf>,
    /// List of the probes: template, person
    #[arg(long, value_name = "FILE", requires = "gallery")]
    probes: Option<PathBuf>,
    #[command(flatten)]
    input: ImageArgs,
    #[command(flatten)]
    model: ModelChoice,
}

impl IjbArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.model.validate()?;
        let media = templates::read_media(&self.media)?;
        let pairs = self.pairs.as_deref().map(templates::read_pairs).transpose()?;
        let subjects = |path: &Option<PathBuf>| path.as_deref().map(templates::read_subjects).transpose();
        let (gallery, probes) = (subjects(&self.gallery)?, subjects(&self.probes)?);
        let mut names: Vec<&str> = media.iter().map(|one| one.image.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let paths: Vec<PathBuf> = names.iter().map(|name| self.image(name)).collect::<Result<_>>()?;
        let (device, embedder) = self.model.open()?;
        let embed = Images { input: &self.input, model: &self.model, device: &device, embedder: &embedder };
        let found = embed.all(&paths, "images")?;
        let without_face = found.iter().filter(|one| one.is_none()).count();
        let embeddings: BTreeMap<String, Embedding> = names
            .iter()
            .zip(found)
            .filter_map(|(name, embedding)| Some(((*name).to_owned(), embedding?)))
            .collect();
        let templates = templates::templates(&media, &embeddings)?;
        let verified = pairs.map(|pairs| templates::verify(&pairs, &templates)).transpose()?;
        let identified = match gallery.zip(probes) {
            Some((gallery, probes)) => {
                Some(templates::identify(&gallery, &probes, &templates, &FALSE_POSITIVE_RATES)?)
            }
            None => None,
        };
        let rates: Option<Vec<_>> = verified.as_ref().map(|(roc, _)| {
            let rates = FALSE_ACCEPT_RATES.into_iter();
            rates.filter_map(|far| Some((far, roc.at_far(far)?))).collect()
        });
        if self.model.json {
            let rates = rates.map(|rates| {
                rates.iter().map(|(far, point)| json!({ "far": far, "point": point })).collect::<Vec<_>>()
            });
            outln!(
                "{}",
                json!({
                    "templates": templates.len(), "without_face": without_face, "tar_at_far": rates,
                    "pairs_left_out": verified.map(|(_, left_out)| left_out), "identification": identified,
                })
            );
            return Ok(());
        }
        outln!("{} templates of {} images; no face found in {without_face}", templates.len(), names.len());
        for (far, point) in rates.into_iter().flatten() {
            outln!("true accept rate at a false accept rate of {far:.0e}: {:.2} %", 100.0 * point.tar);
        }
        if let Some((_, left_out)) = verified.filter(|(_, left_out)| *left_out > 0) {
            outln!("excluded because a template has no face: {left_out} pairs");
        }
        if let Some(identified) = identified {
            out!("{}", identification_table(&identified)?);
        }
        Ok(())
    }

    /// The path of an image, whose name must not lead out of the folder.
    fn image(&self, name: &str) -> Result<PathBuf> {
        let plain = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let path = self.images.join(name);
        if !plain || !path.is_file() {
            bail!("{} has no image {name}: check the folder", self.images.display());
        }
        Ok(path)
    }
}

fn identification_table(found: &Identification) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let Identification { mated, non_mated, rank_one, rates } = found;
    writeln!(out, "{mated} probes of people in the gallery, {non_mated} of strangers")?;
    writeln!(out, "rank 1: {:.2} %", 100.0 * rank_one)?;
    for one in rates {
        writeln!(
            out,
            "identified at a false positive identification rate of {:.0e}: {:.2} % (cosine {:.4})",
            one.fpir,
            100.0 * one.tpir,
            one.threshold
        )?;
    }
    Ok(out)
}

/// Measure verification of videos by the protocol of YouTube Faces
///
/// The embedding of a video is the mean of those of its frames. The threshold of each split is chosen on the
/// others.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sphereface eval ytf splits.txt aligned_images_DB")]
pub struct YtfArgs {
    /// List of pairs, separated by commas: split, video, video, 1 for the same person or 0
    #[arg(value_name = "SPLITS.txt")]
    splits: PathBuf,
    /// Folder with the videos of the list, each a folder of frames
    #[arg(value_name = "VIDEOS")]
    videos: PathBuf,
    /// Use every N-th frame of a video; 1 uses all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    every: u32,
    #[command(flatten)]
    input: ImageArgs,
    #[command(flatten)]
    model: ModelChoice,
}

impl YtfArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.model.validate()?;
        let list = VideoPairs::read(&self.splits)?;
        let mut frames = Vec::new();
        for (video, name) in list.videos.iter().enumerate() {
            let folder = self.videos.join(name);
            let of = images(&folder).with_context(|| format!("the video {name} cannot be read"))?;
            frames.extend(of.into_iter().step_by(self.every as usize).map(|path| (video, path)));
        }
        let (device, embedder) = self.model.open()?;
        let embed = Images { input: &self.input, model: &self.model, device: &device, embedder: &embedder };
        let paths: Vec<PathBuf> = frames.iter().map(|(_, path)| path.clone()).collect();
        let mut of_video: Vec<Vec<Embedding>> = vec![Vec::new(); list.videos.len()];
        embed.each(&paths, "frames", |index, embedding| {
            of_video[frames[index].0].extend(embedding);
            Ok(())
        })?;
        let videos: Vec<Option<Embedding>> = of_video.iter().map(|frames| mean(frames)).collect();
        let (result, left_out) = list.verify(&videos)?;
        if self.model.json {
            outln!("{}", json!({ "verification": result, "pairs_left_out": left_out }));
            return Ok(());
        }
        outln!(
            "accuracy {:.2} % +- {:.2} on {} same and {} different pairs in {} splits",
            100.0 * result.accuracy,
            100.0 * result.standard_error,
            result.same,
            result.different,
            result.folds.len()
        );
        outln!("equal error rate {:.2} %", 100.0 * result.roc.equal_error_rate());
        if left_out > 0 {
            outln!("excluded because a video has no face: {left_out} pairs");
        }
        Ok(())
    }
}
