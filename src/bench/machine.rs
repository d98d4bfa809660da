//! This machine: its peak, the networks and the detector.

use std::time::{Duration, Instant};

use super::config::MachineBench;
use super::report::{Report, Row};
use super::{BenchError, inputs, work};
use crate::detect::{BBox, Refiner, Scratch};
use crate::embed::{Architecture, Mirror};
use crate::models::arch::DEPTHS;
use crate::nn::Arithmetic;
use crate::pipeline::peak_memory_bytes;

/// Squares for R-Net and O-Net.
const SQUARES: usize = 64;

/// Measures. `on_part` is called with the name of the next part.
///
/// # Errors
/// When weights or settings cannot be used, or a job fails.
pub fn machine(bench: &MachineBench, on_part: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let mut report = Report {
        isa: bench.embed.isa.to_string(),
        device: bench.device.to_string(),
        precision: bench.embed.arithmetic.to_string(),
        peak: Vec::new(),
        embedding: Vec::new(),
        refinement: Vec::new(),
        detection: Vec::new(),
        job: Vec::new(),
        peak_memory_bytes: None,
    };
    for threads in bench.threads() {
        on_part("the peak");
        report.peak.push(bench.peak(threads)?);
    }
    embedding(bench, &mut report, on_part)?;
    detection(bench, &mut report, on_part)?;
    #[cfg(feature = "video")]
    if let Some(video) = &bench.video {
        on_part("whole jobs");
        report.job = super::job::rows(bench, video)?;
    }
    report.peak_memory_bytes = peak_memory_bytes();
    Ok(report)
}

/// Median time of a run, over as many as fit into `time`; the first does not count.
fn median<T, E>(time: Duration, mut run: impl FnMut() -> Result<T, E>) -> Result<Duration, E> {
    run()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed() < time {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// A row about `batch` items done in `time`, each of `operations`.
fn row(
    report: &Report,
    what: &str,
    (threads, batch): (usize, usize),
    time: Duration,
    operations: Option<f64>,
) -> Row {
    let seconds = time.as_secs_f64() / batch as f64;
    let gflops = operations.map(|operations| operations / seconds / 1e9);
    let peak = report.peak.iter().find(|peak| peak.threads == threads);
    let share_of_peak = gflops.zip(peak).map(|(gflops, peak)| gflops / peak.arithmetic_gflops);
    Row {
        what: what.to_owned(),
        threads,
        batch,
        ms: 1e3 * seconds,
        per_s: 1.0 / seconds,
        gflops,
        share_of_peak,
    }
}

fn embedding(
    bench: &MachineBench,
    report: &mut Report,
    on_part: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let crops = inputs::crops(bench.batches.iter().copied().max().unwrap_or(1));
    let paper = DEPTHS.iter().filter_map(|&(depth, _)| Architecture::of_depth(depth));
    for architecture in std::iter::once(None).chain(paper.map(Some)) {
        for threads in bench.threads() {
            let weights = match &architecture {
                None => bench.model.clone(),
                Some(architecture) => inputs::weights(architecture),
            };
            let embedder = bench.embedder(weights, threads)?;
            let mut name = embedder.family().to_string();
            if bench.embed.arithmetic != Arithmetic::F32 {
                name = format!("{name}, {}", bench.embed.arithmetic);
            }
            on_part(&name);
            let mut scratch = embedder.scratch();
            for &batch in &bench.batches {
                let time = median(bench.time, || embedder.embed(&crops[..batch], Mirror::No, &mut scratch))?;
                let operations = work::family(embedder.family());
                let row = row(report, &name, (threads, batch), time, Some(operations));
                report.embedding.push(row);
            }
        }
    }
    Ok(())
}

fn detection(
    bench: &MachineBench,
    report: &mut Report,
    on_part: &mut dyn FnMut(&str),
) -> Result<(), BenchError> {
    let detector = bench.detector()?;
    for threads in bench.threads() {
        let mut scratch = Scratch::new(threads);
        let picture = inputs::picture(640, 360);
        let square = |i: usize| {
            let (x1, y1) = ((i * 37 % 500) as f32, (i * 23 % 250) as f32);
            let side = 40.0 + (i % 4) as f32 * 15.0;
            BBox { x1, y1, x2: x1 + side, y2: y1 + side }
        };
        let squares: Vec<BBox> = (0..SQUARES).map(square).collect();
        for (network, name) in [(Refiner::R, "R-Net"), (Refiner::O, "O-Net")] {
            on_part(name);
            let time = median(bench.time, || detector.judge(network, &picture, &squares, &mut scratch))?;
            let operations = Some(work::refine(network));
            let row = row(report, name, (threads, SQUARES), time, operations);
            report.refinement.push(row);
        }
        for &size in &bench.frames {
            let (width, height) = size;
            on_part(&format!("detection at {width}x{height}"));
            let picture = inputs::picture(width, height);
            let time = median(bench.time, || detector.propose(&picture, &mut scratch))?;
            let name = format!("P-Net, {width}x{height}");
            let operations = Some(work::proposal(&bench.detection, size));
            let proposal = row(report, &name, (threads, 1), time, operations);
            report.detection.push(proposal);
            let time = median(bench.time, || detector.detect(&picture, &mut scratch))?;
            let name = format!("detector, {width}x{height}, no face");
            let all = row(report, &name, (threads, 1), time, None);
            report.detection.push(all);
        }
    }
    Ok(())
}
