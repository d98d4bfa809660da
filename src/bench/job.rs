//! A whole job: labelling a video as `sphereface label` does.

use std::path::Path;
use std::time::{Duration, Instant};

use super::BenchError;
use super::config::MachineBench;
use super::report::Row;
use crate::embed::Mirror;
use crate::engine::Engine;
use crate::media::{Input, Sink, SinkOptions, Source, SourceOptions};
use crate::pipeline::{Control, LabelJob, Mode};

/// Number of runs per job; the median counts.
const RUNS: usize = 3;

/// Only decodes a video and encodes it again with its sound: a lower bound for the time of any job on it.
/// Returns the frames and the time.
pub fn copy(video: &Path, to: &Path) -> Result<(u64, Duration), BenchError> {
    let input = Input::File(video.to_owned());
    let options = SinkOptions::default();
    let container = Sink::check(to, &input, &options)?;
    let start = Instant::now();
    let mut source =
        Source::open(&input, &SourceOptions { container: Some(container), ..SourceOptions::default() })?;
    let info = source.info().clone();
    let mut sink = Sink::create(to, &info, source.take_audio(), &options)?;
    let mut frames = 0;
    while let Some(frame) = source.next_frame()? {
        sink.write(frame)?;
        frames += 1;
    }
    sink.finish()?;
    Ok((frames, start.elapsed()))
}

/// The jobs on a video: copied, labelled face by face, and labelled by default.
pub fn rows(bench: &MachineBench, video: &Path) -> Result<Vec<Row>, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
    let to = folder.path().join("out.mp4");
    let detector = bench.detector()?;
    let embedder = bench.embedder(bench.model.clone(), 1)?;
    let engine = Engine::from_parts(detector, embedder, Mirror::No, bench.embed.threads);
    let label = |mode: Mode| -> Result<(u64, Duration), BenchError> {
        let input = Input::File(video.to_owned());
        let job = LabelJob::new(&engine, input).output(&to).tell_strangers_apart(true).mode(mode);
        let start = Instant::now();
        let summary = job.run(&Control::new(), &mut |_| {})?;
        Ok((summary.frames, start.elapsed()))
    };
    let median = |name: &str, run: &dyn Fn() -> Result<(u64, Duration), BenchError>| {
        let mut runs = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
        runs.sort_by_key(|(_, time)| *time);
        let (frames, time) = runs[RUNS / 2];
        let seconds = time.as_secs_f64() / frames.max(1) as f64;
        Ok::<_, BenchError>(Row {
            what: name.to_owned(),
            threads: bench.embed.threads,
            batch: 1,
            ms: 1e3 * seconds,
            per_s: 1.0 / seconds,
            gflops: None,
            share_of_peak: None,
        })
    };
    Ok(vec![
        median("decoded and encoded only", &|| copy(video, &to))?,
        median("every frame searched, every face embedded", &|| label(Mode::PerFrame))?,
        median("labelled by default", &|| label(Mode::TwoPass))?,
    ])
}
