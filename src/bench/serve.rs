//! Answers requests for single measurements, so that another program can measure this one and others in
//! turns.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use image::RgbImage;
use serde::Serialize;

use super::{BenchError, inputs};
use crate::detect::{self, Detector, Face};
use crate::embed::{Embedder, Mirror};
use crate::media;
use crate::nn::{Isa, peak};

/// One answer, a line of JSON.
#[derive(Debug, Serialize)]
struct Answer {
    /// Milliseconds that the request took, reading its input not included.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposals: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faces: Option<Vec<Face>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

const NOTHING: Answer =
    Answer { time_ms: None, feature: None, proposals: None, faces: None, gflops: None, error: None };

/// Duration of `peak`.
const PEAK: Duration = Duration::from_millis(20);

/// Answers every line of `requests` with a line of JSON until there are no more:
///
/// - `embed N`: embeds N of the crops that [`inputs::crops`] makes
/// - `feature`: the feature of the first of them
/// - `detect FILE`: finds the faces of a still
/// - `propose FILE`: runs P-Net over the pyramid of a still
/// - `peak N`: multiplies and adds on N threads, 1 to 256, for a moment: shows whether other programs use the
///   cores
/// - `copy FILE TO`: decodes a video and encodes it again (paths without spaces)
///
/// # Errors
/// When an answer cannot be written. The answer to an invalid request is its error.
pub fn serve(
    embedder: &Embedder,
    detector: &Detector,
    threads: usize,
    requests: impl BufRead,
    mut answers: impl Write,
) -> Result<(), BenchError> {
    let mut embed = embedder.scratch();
    let mut detect = detect::Scratch::new(threads);
    let mut pictures = BTreeMap::new();
    let mut crops = inputs::crops(1);
    for request in requests.lines().map_while(Result::ok) {
        let (what, argument) = request.split_once(' ').unwrap_or((&request, ""));
        let answer = match what {
            "embed" => {
                argument.parse().map_err(|_| format!("'{argument}' is not a batch size")).map(|batch| {
                    if crops.len() < batch {
                        crops = inputs::crops(batch);
                    }
                    let start = Instant::now();
                    let done = embedder.embed(&crops[..batch], Mirror::No, &mut embed);
                    let time_ms = Some(milliseconds(start));
                    Answer { time_ms, error: done.err().map(|error| error.to_string()), ..NOTHING }
                })
            }
            "feature" => (embedder.features(&crops[..1], &mut embed))
                .map(|mut features| Answer { feature: features.pop(), ..NOTHING })
                .map_err(|error| error.to_string()),
            "detect" => picture(argument, &mut pictures).and_then(|picture| {
                let start = Instant::now();
                let faces = detector.detect(picture, &mut detect).map_err(|error| error.to_string())?;
                Ok(Answer { time_ms: Some(milliseconds(start)), faces: Some(faces), ..NOTHING })
            }),
            "propose" => picture(argument, &mut pictures).and_then(|picture| {
                let start = Instant::now();
                let proposals = detector.propose(picture, &mut detect).map_err(|error| error.to_string())?;
                let proposals = Some(proposals.len());
                Ok(Answer { time_ms: Some(milliseconds(start)), proposals, ..NOTHING })
            }),
            "peak" => match argument.parse() {
                Ok(threads @ 1..=256) => {
                    let gflops = Some(peak::arithmetic_gflops(Isa::best(), threads, PEAK));
                    Ok(Answer { gflops, ..NOTHING })
                }
                _ => Err(format!("'{argument}' is not a number of threads")),
            },
            #[cfg(feature = "video")]
            "copy" => {
                let (from, to) = argument.split_once(' ').unwrap_or((argument, ""));
                super::job::copy(Path::new(from), Path::new(to))
                    .map(|(_, time)| Answer { time_ms: Some(1e3 * time.as_secs_f64()), ..NOTHING })
                    .map_err(|error| error.to_string())
            }
            other => Err(format!("'{other}' is not one of embed, feature, detect, propose, peak and copy")),
        };
        let answer = answer.unwrap_or_else(|error| Answer { error: Some(error), ..NOTHING });
        serde_json::to_writer(&mut answers, &answer)
            .map_err(std::io::Error::from)
            .map_err(BenchError::Answer)?;
        answers.write_all(b"\n").and_then(|()| answers.flush()).map_err(BenchError::Answer)?;
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A still, read once.
fn picture<'p>(path: &str, read: &'p mut BTreeMap<String, RgbImage>) -> Result<&'p RgbImage, String> {
    if !read.contains_key(path) {
        let picture = media::read_still(Path::new(path)).map_err(|error| error.to_string())?;
        read.insert(path.to_owned(), picture);
    }
    Ok(&read[path])
}
