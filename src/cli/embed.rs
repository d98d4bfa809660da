//! `sphereface embed`: prints the faces of stills with their embeddings.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::faces;
use super::options::{DetectionArgs, DeviceArgs, ModelArgs};
use sphereface::detect::Detector;
use sphereface::embed::{Embedder, Mirror};
use sphereface::gallery::examine_all;
use sphereface::media::read_still;

/// Print every face of stills with its embedding
///
/// With --json, prints one object per still and line, with the model's identifier and the faces from
/// left to right: box (x1, y1, x2, y2) and landmarks in pixels, detector score, quality and embedding.
/// An embedding is a vector of unit length. Compare two faces by the angle between their embeddings.
/// Embeddings of different models cannot be compared.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface embed group.jpg\n  \
    sphereface embed group.jpg --json | jq '.faces[].box'\n  \
    sphereface embed *.jpg --json > faces.jsonl")]
pub struct EmbedArgs {
    /// Stills
    #[arg(required = true, value_name = "IMAGE")]
    stills: Vec<PathBuf>,
    /// Average the embeddings of each face and its mirror image, as for the templates of a gallery:
    /// slightly more accurate, twice the work
    #[arg(long)]
    mirror: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl EmbedArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let device = self.device.open()?;
        let embedder = self.model.embedder(&device)?;
        let detector = self.detection.detector(&device)?;
        let mut unusable = 0;
        for path in &self.stills {
            match self.faces(path, &detector, &embedder) {
                Ok(found) if self.json => outln!("{found}"),
                Ok(found) => tell(path, &found),
                Err(error) => {
                    unusable += 1;
                    errln!("{} is skipped: {error:#}", path.display());
                }
            }
        }
        match unusable {
            0 => Ok(()),
            1 => bail!("a still could not be used, see above"),
            count => bail!("{count} stills could not be used, see above"),
        }
    }

    /// The faces of a still as JSON.
    fn faces(&self, path: &Path, detector: &Detector, embedder: &Embedder) -> Result<Value> {
        let image = read_still(path)?;
        let found = examine_all(&image, detector)?;
        let crops: Vec<_> = found.iter().map(|face| face.crop.clone()).collect();
        let mirror = if self.mirror { Mirror::Average } else { Mirror::No };
        let embeddings = embedder.embed(&crops, mirror, &mut embedder.scratch())?;
        let described = found.iter().zip(&embeddings).map(|(face, embedding)| {
            let mut value = faces::describe(face);
            value["embedding"] = embedding.as_slice().into();
            value
        });
        Ok(json!({
            "file": path.to_string_lossy(),
            "width": image.width(),
            "height": image.height(),
            "model": embedder.model().to_string(),
            "faces": described.collect::<Vec<_>>(),
        }))
    }
}

/// Prints the faces of a still as text.
fn tell(path: &Path, found: &Value) {
    let faces = found["faces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let s = if faces.len() == 1 { "" } else { "s" };
    outln!("{}: {} face{s}, model {}", path.display(), faces.len(), found["model"].as_str().unwrap_or(""));
    for face in faces {
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|i| number(&face["box"][i]));
        let values = face["embedding"].as_array().map_or(0, Vec::len);
        outln!(
            "  {}: box {x1:.0},{y1:.0} to {x2:.0},{y2:.0}, score {:.3}, {:.0} pixels, turned {:.0} degrees, \
             sharpness {:.2}, {values} values",
            face["number"],
            number(&face["score"]),
            number(&face["quality"]["size_px"]),
            number(&face["quality"]["yaw_deg"]),
            number(&face["quality"]["sharpness"])
        );
    }
}
