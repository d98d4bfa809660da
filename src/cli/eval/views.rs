//! `sphereface eval views`: measures impostor scores by pose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{BATCH, ImageArgs, ModelChoice, progress};
use sphereface::embed::{Embedder, Embedding, Mirror};
use sphereface::eval::EvalError;
use sphereface::eval::lfw;
use sphereface::eval::people::people;
use sphereface::eval::views::{ViewSample, measure, reference};
use sphereface::identify::ViewCalibration;

/// Measure how alike strangers look by pose
///
/// Compares every two faces of different people and groups the comparisons by the yaw of both faces.
/// Strangers look more alike from the side, so `label` lowers the threshold for such pairs of views and
/// ignores pairs that carry no information. Give folders of people who are each seen from many sides.
/// With --record, the result is stored in the model file. It is measured in f32, unless --precision bf16
/// or int8 is given.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sphereface eval views mugshots frames --reference lfw-112x112 --model mine.safetensors --record")]
pub struct ViewsArgs {
    /// Folders with one folder of photos per person. The same name in several folders is one person
    #[arg(value_name = "PEOPLE", required = true)]
    people: Vec<PathBuf>,
    /// Folder with one folder of aligned crops (112x112 or 96x112) per person: the faces on which the
    /// model was calibrated (`eval calibrate`)
    #[arg(long, value_name = "CROPS")]
    reference: PathBuf,
    #[command(flatten)]
    input: ImageArgs,
    #[command(flatten)]
    model: ModelChoice,
}

impl ViewsArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        self.model.validate()?;
        let (device, embedder) = self.model.open_for_figures_of_the_model()?;
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut images = Vec::new();
        for folder in &self.people {
            for person in people(folder)? {
                let next = numbers.len();
                let number = *numbers.entry(person.name).or_insert(next);
                images.extend(person.images.into_iter().map(|path| (number, path)));
            }
        }
        let detector = self.input.detection.detector(&device)?;
        let mut samples = Vec::new();
        let mut scratch = embedder.scratch();
        let bar = progress(images.len(), "embedding");
        for batch in images.chunks(BATCH) {
            let paths: Vec<PathBuf> = batch.iter().map(|(_, path)| path.clone()).collect();
            let portraits = lfw::portraits(&paths, &detector, self.model.threads.count())?;
            let found: Vec<_> =
                batch.iter().zip(portraits).filter_map(|(one, portrait)| Some((one.0, portrait?))).collect();
            let crops: Vec<_> = found.iter().map(|(_, portrait)| portrait.crop.clone()).collect();
            let embeddings = embedder.embed(&crops, Mirror::Average, &mut scratch)?;
            samples.extend(found.into_iter().zip(embeddings).map(|((person, portrait), embedding)| {
                ViewSample { person, view: portrait.view, embedding }
            }));
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        let frontal = reference(&self.reference_faces(&embedder)?)?;
        let names: Vec<String> = self.people.iter().map(|path| self.model.set(path)).collect();
        let set = self.model.set.clone().unwrap_or_else(|| names.join(" and "));
        let found = measure(&samples, numbers.len(), frontal, &set)?;
        self.model.record("views", &json!(found))?;
        if self.model.json {
            outln!("{}", json!(found));
        } else {
            out!("{}", table(&found, samples.len())?);
        }
        Ok(())
    }

    /// The embeddings that the model's calibration compared, each with its person.
    fn reference_faces(&self, embedder: &Embedder) -> Result<Vec<(usize, Embedding)>> {
        let people = people(&self.reference)?;
        let images: Vec<(usize, &PathBuf)> = people
            .iter()
            .enumerate()
            .flat_map(|(person, of)| of.images.iter().map(move |path| (person, path)))
            .collect();
        let mut faces = Vec::with_capacity(images.len());
        let mut scratch = embedder.scratch();
        let bar = progress(images.len(), "reference");
        for batch in images.chunks(BATCH) {
            let crops =
                batch.iter().map(|(_, path)| lfw::read_crop(path)).collect::<Result<Vec<_>, EvalError>>()?;
            let embeddings = embedder.embed(&crops, Mirror::Average, &mut scratch)?;
            faces.extend(batch.iter().zip(embeddings).map(|((person, _), embedding)| (*person, embedding)));
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(faces)
    }
}

fn table(found: &ViewCalibration, faces: usize) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let reference = found.reference;
    writeln!(
        out,
        "{faces} faces of {} people; impostor cosines of the reference: {:.3} +- {:.3}",
        found.people, reference.mean, reference.deviation
    )?;
    writeln!(
        out,
        "by yaw of template and probe: impostor cosines relative to the reference (pairs), share of genuine pairs matched at an FMR of 1e-3"
    )?;
    write!(out, "{:>10}", "")?;
    for yaw_deg in &found.yaw_deg {
        write!(out, "{:>34}", format!("{yaw_deg:.0} degrees"))?;
    }
    writeln!(out)?;
    for (yaw_deg, row) in found.yaw_deg.iter().zip(&found.cells) {
        write!(out, "{:>10}", format!("{yaw_deg:.0} degrees"))?;
        for cell in row {
            let impostors = cell.impostors;
            let text = format!(
                "{:.3} +- {:.3} ({}), {:.0} %",
                impostors.mean,
                impostors.deviation,
                impostors.pairs,
                100.0 * cell.genuine_share
            );
            write!(out, "{text:>34}")?;
        }
        writeln!(out)?;
    }
    Ok(out)
}
