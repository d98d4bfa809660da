//! Many sources at a time on one service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::BenchError;
use crate::serve::{Config, Service, ServiceOptions, SourceConfig};

/// Time for the sources to start, before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(10);

/// A service with many sources.
#[derive(Debug, Clone)]
pub struct CamerasBench {
    /// Inputs of the sources, in turns; a file is repeated.
    pub inputs: Vec<String>,
    /// Sources.
    pub sources: usize,
    /// Frames analysed per second and source.
    pub fps: f64,
    /// Folder of the people to name.
    pub gallery: std::path::PathBuf,
    /// Duration of the measurement.
    pub time: Duration,
}

/// The measurements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CamerasReport {
    /// Sources.
    pub sources: usize,
    /// Of these, those that ran at the end.
    pub running: usize,
    /// Frames analysed per second, over all sources.
    pub frames_per_s: f64,
    /// The same of the slowest source.
    pub slowest_per_s: f64,
    /// Frames dropped because newer ones came in the meantime, as a share of all.
    pub left_out: f64,
    /// Milliseconds from the arrival of a frame to the end of its events: the median of the medians of the
    /// sources.
    pub delay_ms: f64,
    /// The same of the slowest source.
    pub slowest_delay_ms: f64,
    /// 95th percentile of that time, of the slowest source.
    pub slowest_delay_95_ms: f64,
    /// Memory per source in MiB; `None` if the system does not report it.
    pub mib_per_source: Option<f64>,
    /// Memory of the process in MiB.
    pub mib: Option<f64>,
    /// Number of sources that named each person.
    pub named: BTreeMap<String, usize>,
    /// Events per second.
    pub events_per_s: f64,
}

impl CamerasBench {
    /// Runs the sources and measures them.
    ///
    /// # Errors
    /// When the service does not start.
    pub fn run(
        &self,
        options: &ServiceOptions,
        on_progress: &dyn Fn(&str),
    ) -> Result<CamerasReport, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
        let config = Config {
            listen: "127.0.0.1:0".into(),
            gallery: self.gallery.clone(),
            data: folder.path().to_owned(),
            ..Config::default()
        };
        let source = |(number, input): (usize, &String)| {
            let (fps, repeat) = (self.fps, !input.contains("://"));
            SourceConfig { fps, repeat, ..SourceConfig::new(format!("camera-{number}"), input) }
        };
        let sources = (1..=self.sources).zip(self.inputs.iter().cycle());
        let wanted = Config { sources: sources.map(source).collect(), ..config.clone() };
        let wanted = wanted.settings().map_err(crate::serve::ServeError::from)?;
        let (service, _) =
            Service::start(config.settings().map_err(crate::serve::ServeError::from)?, options)?;
        let empty_mib = memory_mib();
        on_progress("the sources start");
        service.reload(wanted)?;
        std::thread::sleep(WARM_UP);
        on_progress("measuring");
        let (before, began) = (service.figures(), Instant::now());
        std::thread::sleep(self.time);
        let (after, s) = (service.figures(), began.elapsed().as_secs_f64());
        let mib = memory_mib();
        let frames = |name: &str| before.sources.get(name).map_or((0, 0), |one| (one.frames, one.left_out));
        let mut rates: Vec<f64> = Vec::new();
        let (mut answered, mut left_out) = (0, 0);
        for (name, now) in &after.sources {
            let (frames_before, left_before) = frames(name);
            let count = now.frames.saturating_sub(frames_before);
            answered += count;
            left_out += now.left_out.saturating_sub(left_before);
            rates.push(count as f64 / s);
        }
        let mut delays: Vec<f64> = after.sources.values().filter_map(|one| one.delay_ms).collect();
        delays.sort_by(f64::total_cmp);
        let report = CamerasReport {
            sources: self.sources,
            running: after.sources.values().filter(|one| one.running).count(),
            frames_per_s: answered as f64 / s,
            slowest_per_s: rates.iter().copied().fold(f64::INFINITY, f64::min),
            left_out: left_out as f64 / (answered + left_out).max(1) as f64,
            delay_ms: delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN),
            slowest_delay_ms: delays.last().copied().unwrap_or(f64::NAN),
            slowest_delay_95_ms: after
                .sources
                .values()
                .filter_map(|one| one.delay_95_ms)
                .fold(f64::NAN, f64::max),
            mib_per_source: mib.zip(empty_mib).map(|(mib, empty)| (mib - empty) / self.sources as f64),
            mib,
            named: after.named,
            events_per_s: after.events.saturating_sub(before.events) as f64 / s,
        };
        on_progress("the sources end");
        service.stop();
        Ok(report)
    }
}

/// Memory of this process in MiB, if the system reports it.
fn memory_mib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
