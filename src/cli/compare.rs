//! `sphereface compare`: whether two stills show one person.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};

use super::options::{DetectionArgs, DeviceArgs, ModelArgs, ThresholdArgs};
use super::{Different, UsageError, faces};
use sphereface::embed::Mirror;
use sphereface::gallery::{Choice, Examined, examine_still};
use sphereface::identify::{Calibration, Threshold};

/// Compare two stills: do they show the same person?
///
/// Prints the angle between the two faces and whether it is below the threshold. If a still shows
/// several faces, the largest is used. The exit code is 0 for both answers unless --exit-code is given.
#[derive(Debug, Args)]
#[command(
    mut_arg("threshold", |arg| arg.help("Angle in degrees below which two faces are the same person, for example 68deg [default: the model's calibrated angle for an FMR of 1e-3]")),
    after_help = "Examples:\n  \
    sphereface compare passport.jpg selfie.jpg\n  \
    sphereface compare group.jpg ada.jpg --face-a 2 --json\n  \
    sphereface compare a.jpg b.jpg --exit-code --quiet && echo same"
)]
pub struct CompareArgs {
    /// First still
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Second still
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Face to use in A: its number from the left, or a point x,y on it [default: the largest]
    #[arg(long, value_name = "N|X,Y")]
    face_a: Option<Choice>,
    /// Face to use in B, likewise
    #[arg(long, value_name = "N|X,Y")]
    face_b: Option<Choice>,
    /// Exit with code 1 if the stills show different people, as diff and cmp do. A failure prints its
    /// cause on standard error
    #[arg(long)]
    exit_code: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print nothing but errors; for use with --exit-code
    #[arg(short, long, conflicts_with = "json", requires = "exit_code")]
    quiet: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threshold: ThresholdArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl CompareArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let device = self.device.open()?;
        let embedder = self.model.embedder(&device)?;
        let threshold = Threshold::resolve(self.threshold.request(), embedder.metadata())
            .map_err(|error| UsageError(error.to_string()))?;
        let detector = self.detection.detector(&device)?;
        let face = |path: &Path, choice: Option<Choice>| {
            examine_still(path, choice.unwrap_or_default(), &detector)
                .with_context(|| format!("{} cannot be compared", path.display()))
        };
        let (a, b) = (face(&self.a, self.face_a)?, face(&self.b, self.face_b)?);
        let crops = [a.crop.clone(), b.crop.clone()];
        let embeddings = embedder.embed(&crops, Mirror::Average, &mut embedder.scratch())?;
        let angle_deg = match embeddings.as_slice() {
            [a, b] => a.angle_deg(b),
            _ => None,
        };
        let angle_deg = angle_deg.ok_or_else(|| anyhow!("the model gave no embedding for each face"))?;
        let same = angle_deg < threshold.angle_deg();
        if self.json {
            let calibration = Calibration::from_metadata(embedder.metadata()).ok();
            outln!(
                "{}",
                json!({
                    "same": same,
                    "angle_deg": angle_deg,
                    "threshold_deg": threshold.angle_deg(),
                    "false_match_rate": calibration.and_then(|table| table.fmr_at(angle_deg)),
                    "model": embedder.model().to_string(),
                    "a": side(&self.a, &a),
                    "b": side(&self.b, &b),
                })
            );
        } else if !self.quiet {
            self.tell(&a, &b);
            let (answer, relation) =
                if same { ("the same person", "below") } else { ("different people", "not below") };
            outln!("{answer}: {angle_deg:.2} degrees apart, {relation} {threshold}");
        }
        if self.exit_code && !same { Err(Different.into()) } else { Ok(()) }
    }

    /// Prints the remarks about the faces that were used.
    fn tell(&self, a: &Examined, b: &Examined) {
        for (path, face, flag) in [(&self.a, a, "--face-a"), (&self.b, b, "--face-b")] {
            let path = path.display();
            if face.faces.len() > 1 {
                let (number, places) = (face.number, face.places());
                errln!(
                    "{path} shows several faces, number {number} was used: {places}; choose another with {flag}"
                );
            }
            for problem in face.problems() {
                errln!("{path}: {problem}");
            }
        }
    }
}

/// A still as JSON.
fn side(path: &Path, face: &Examined) -> Value {
    let mut value = faces::describe(face);
    value["file"] = path.to_string_lossy().into();
    value["faces"] = face.faces.len().into();
    value
}
