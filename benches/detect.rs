//! Time of the face detector on one thread.
//!
//! `cargo bench --bench detect` prints a table over three frame sizes; it needs ffmpeg and the
//! real clip (SPHEREFACE_DATA). `... -- serve IMAGE MIN_FACE` answers every line on standard
//! input with the milliseconds of one detection (`detect`) or of its first stage (`propose`)
//! and the number of faces or proposals, for `peers/detect.py` to run both in turn.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use image::RgbImage;
use sphereface::detect::{Detector, DetectorConfig, MinFace, Scratch};
use sphereface::nn::Isa;
use sphereface::nn::weights::MTCNN;

type Error = Box<dyn std::error::Error>;

const ROUNDS: usize = 21;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", image, min_face] => serve(Path::new(image), min_face.parse()?),
        _ => table(),
    }
}

fn detector(min_face: MinFace) -> Result<Detector, Error> {
    let config = DetectorConfig { min_face, ..DetectorConfig::default() };
    Ok(Detector::new(&MTCNN.weights()?, config, Isa::from_environment()?)?)
}

/// Milliseconds of one run, and how many faces or proposals it gave.
fn run(what: &str, detector: &Detector, image: &RgbImage, scratch: &mut Scratch) -> (f64, usize) {
    let start = Instant::now();
    let found = match what {
        "propose" => detector.propose(image, scratch).len(),
        _ => detector.detect(image, scratch).len(),
    };
    (start.elapsed().as_secs_f64() * 1e3, found)
}

fn serve(image: &Path, min_face: MinFace) -> Result<(), Error> {
    let image = image::open(image)?.into_rgb8();
    let detector = detector(min_face)?;
    let mut scratch = Scratch::default();
    for line in std::io::stdin().lock().lines() {
        let (time_ms, found) = run(line?.trim(), &detector, &image, &mut scratch);
        println!("{time_ms:.4} {found}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The clip's first frame, enlarged.
fn frame(width: u32, height: u32) -> Result<RgbImage, Error> {
    let data = std::env::var_os("SPHEREFACE_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let folder = tempfile::tempdir()?;
    let png = folder.path().join("frame.png");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(data.join("video/hamilton/clip.mp4"))
        .args(["-frames:v", "1", "-vf", &format!("scale={width}:{height}:flags=bicubic")])
        .arg(&png)
        .status()?;
    if !status.success() {
        return Err("ffmpeg made no frame: set SPHEREFACE_DATA to the folder of the real inputs".into());
    }
    Ok(image::open(png)?.into_rgb8())
}

fn table() -> Result<(), Error> {
    let isa = Isa::from_environment()?;
    println!("{isa}, 1 thread, smallest face 40 px, factor 0.709, median of {ROUNDS}, ms a frame");
    println!("{:>10} {:>9} {:>10} {:>6}", "frame", "P-Net", "detector", "faces");
    let detector = detector(MinFace::Px(40.0))?;
    for (width, height) in [(640, 360), (1280, 720), (1920, 1080)] {
        let image = frame(width, height)?;
        let mut scratch = Scratch::default();
        let (_, faces) = run("detect", &detector, &image, &mut scratch);
        let mut median = |what| {
            let mut times: Vec<f64> =
                (0..ROUNDS).map(|_| run(what, &detector, &image, &mut scratch).0).collect();
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        };
        let (propose_ms, detect_ms) = (median("propose"), median("detect"));
        println!("{:>10} {propose_ms:9.2} {detect_ms:10.2} {faces:6}", format!("{width}x{height}"));
    }
    Ok(())
}
