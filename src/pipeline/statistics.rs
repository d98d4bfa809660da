//! Statistics of the stages of a run: items, busy time, queue depths.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one stage, shared by its workers.
pub(super) struct Meter {
    name: &'static str,
    workers: usize,
    items: AtomicU64,
    parts: AtomicU64,
    batches: AtomicU64,
    busy_ns: AtomicU64,
    depth_sum: AtomicU64,
    depth_samples: AtomicU64,
    depth_max: AtomicU64,
}

impl Meter {
    pub(super) fn new(name: &'static str, workers: usize) -> Self {
        let zero = AtomicU64::default;
        Self {
            name,
            workers,
            items: zero(),
            parts: zero(),
            batches: zero(),
            busy_ns: zero(),
            depth_sum: zero(),
            depth_samples: zero(),
            depth_max: zero(),
        }
    }

    /// The stage took `busy` for `items` items at once.
    pub(super) fn worked(&self, items: usize, busy: Duration) {
        self.worked_on_parts(items, busy);
        self.finished(items);
    }

    /// The stage took `busy` for that many parts of items at once.
    pub(super) fn worked_on_parts(&self, parts: usize, busy: Duration) {
        self.parts.fetch_add(parts as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.prepared(busy);
    }

    /// The stage took `busy` for preparations before that.
    pub(super) fn prepared(&self, busy: Duration) {
        self.busy_ns.fetch_add(busy.as_nanos() as u64, Relaxed);
    }

    /// The stage has finished that many items.
    pub(super) fn finished(&self, items: usize) {
        self.items.fetch_add(items as u64, Relaxed);
    }

    /// `depth` items were in the input queue when a worker took the next one.
    pub(super) fn saw_queue(&self, depth: usize) {
        self.depth_sum.fetch_add(depth as u64, Relaxed);
        self.depth_samples.fetch_add(1, Relaxed);
        self.depth_max.fetch_max(depth as u64, Relaxed);
    }

    pub(super) fn read(&self) -> StageStatistics {
        let mean = |sum: u64, n: u64| if n == 0 { 0.0 } else { sum as f64 / n as f64 };
        StageStatistics {
            name: self.name,
            workers: self.workers,
            items: self.items.load(Relaxed),
            batch_mean: mean(self.parts.load(Relaxed), self.batches.load(Relaxed)),
            busy: Duration::from_nanos(self.busy_ns.load(Relaxed)),
            queue_mean: mean(self.depth_sum.load(Relaxed), self.depth_samples.load(Relaxed)),
            queue_max: self.depth_max.load(Relaxed),
        }
    }
}

/// Statistics of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageStatistics {
    /// Name of the stage.
    pub name: &'static str,
    /// Threads that worked on it.
    pub workers: usize,
    /// Items that went through.
    pub items: u64,
    /// Mean number of items taken at once; for a stage that works on the parts of items, of parts.
    pub batch_mean: f64,
    /// Time inside the stage's own code, summed over its workers.
    pub busy: Duration,
    /// Mean number of items waiting when a worker took the next one; 0 for a source.
    pub queue_mean: f64,
    /// The most items ever waiting.
    pub queue_max: u64,
}

/// Statistics of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// From the first thread started to the last one ended.
    pub wall: Duration,
    /// Items that reached the end of the graph.
    pub items: u64,
    /// Items of a live source that were dropped because they were too old.
    pub dropped: u64,
    /// Every stage, in the order in which they were added.
    pub stages: Vec<StageStatistics>,
}

impl Statistics {
    /// Items at the end of the graph per second of wall time.
    pub fn items_per_s(&self) -> f64 {
        if self.wall.is_zero() { 0.0 } else { self.items as f64 / self.wall.as_secs_f64() }
    }
}

impl fmt::Display for Statistics {
    /// A table, one line per stage. `busy` is the share of the workers' wall time spent in the
    /// stage's own code; `share` is the stage's part of all busy time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:>8}{:>9}{:>12}{:>8}{:>8}{:>7}{:>12}{:>5}",
            "stage", "workers", "items", "ms/item", "busy", "share", "batch", "queue mean", "max"
        )?;
        let total: f64 = self.stages.iter().map(|stage| stage.busy.as_secs_f64()).sum();
        let percent = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        for stage in &self.stages {
            let busy = stage.busy.as_secs_f64();
            writeln!(
                f,
                "{:<10}{:>8}{:>9}{:>12.2}{:>7.0}%{:>7.0}%{:>7.1}{:>12.1}{:>5}",
                stage.name,
                stage.workers,
                stage.items,
                busy * 1e3 / stage.items.max(1) as f64,
                percent(busy, self.wall.as_secs_f64() * stage.workers as f64),
                percent(busy, total),
                stage.batch_mean,
                stage.queue_mean,
                stage.queue_max,
            )?;
        }
        write!(
            f,
            "{} frames in {:.2} s: {:.1} frames/s",
            self.items,
            self.wall.as_secs_f64(),
            self.items_per_s()
        )?;
        if self.dropped > 0 {
            write!(f, ", {} dropped", self.dropped)?;
        }
        if let Some(bytes) = peak_memory_bytes() {
            write!(f, ", peak memory {} MiB", bytes >> 20)?;
        }
        Ok(())
    }
}

/// The most resident memory this process ever held, in bytes. `None` where the system does not report it (all
/// but Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_adds_up() {
        let meter = Meter::new("detect", 2);
        meter.worked(3, Duration::from_millis(30));
        meter.worked(1, Duration::from_millis(10));
        meter.saw_queue(0);
        meter.saw_queue(5);
        let items_alone = meter.read();
        assert_eq!((items_alone.items, items_alone.batch_mean), (4, 2.0));
        meter.prepared(Duration::from_millis(1));
        meter.worked_on_parts(8, Duration::from_millis(9));
        meter.finished(1);
        let stage = meter.read();
        assert_eq!((stage.items, stage.batch_mean, stage.busy), (5, 4.0, Duration::from_millis(50)));
        assert_eq!((stage.queue_mean, stage.queue_max), (2.5, 5));
    }

    #[test]
    fn the_table_names_every_stage_and_an_empty_run_divides_by_nothing() {
        let empty = Statistics { stages: vec![Meter::new("embed", 1).read()], ..Statistics::default() };
        let text = empty.to_string();
        assert!(text.contains("embed") && !text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_some_memory() {
        assert!(peak_memory_bytes().unwrap() > 1 << 20);
    }
}
