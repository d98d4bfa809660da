//! `sphereface bench library`: measures a large library.

use anyhow::Result;
use clap::Args;

use crate::cli::options::ThreadArgs;
use crate::cli::terminal;
use sphereface::bench::{LibraryBench, LibraryReport};

/// Measure a large library: grouping strangers and finding people
///
/// Tracks and appearances are synthetic: twenty tracks per stranger, with angles like those of real faces,
/// and 500 appearances per person with a name, 100 per file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sphereface bench library --tracks 100000 --appearances 1000000")]
pub struct LibraryArgs {
    /// Tracks of strangers, 0 to 1000000
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    tracks: u32,
    /// Appearances of people with names, 0 to 10000000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    appearances: u32,
    /// Mean angle in degrees below which two tracks show one stranger
    #[arg(long, value_name = "ANGLE", default_value_t = 67.0, value_parser = sphereface::identify::parse_angle_deg)]
    same: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArgs,
}

impl LibraryArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let bench = LibraryBench {
            tracks: self.tracks as usize,
            appearances: self.appearances as usize,
            same_deg: self.same,
            threads: self.threads.count(),
        };
        let bar = terminal::bar("{spinner} {msg}");
        bar.enable_steady_tick(std::time::Duration::from_millis(250));
        let report = bench.run(&|doing| bar.set_message(doing.to_owned()))?;
        bar.finish_and_clear();
        if self.json {
            outln!("{}", serde_json::to_string(&report)?);
        } else {
            tell(&report);
        }
        Ok(())
    }
}

fn tell(report: &LibraryReport) {
    outln!(
        "{} tracks of {} people: {} groups in {:.1} s; peak memory {} MiB",
        report.tracks,
        report.people,
        report.groups,
        report.group_s,
        report.memory_bytes.unwrap_or(0) >> 20
    );
    outln!(
        "those of a catalogue after a file with {} more: {:.2} s, with reading them",
        report.added,
        report.again_s
    );
    outln!(
        "pairs in one group that are one person: {:.2} %; pairs of one person in one group: {:.2} %",
        report.pairs_right * 100.0,
        report.pairs_found * 100.0
    );
    outln!(
        "{} appearances: a person is found in {:.1} ms (95 %: {:.1} ms)",
        report.appearances,
        report.find_median_ms,
        report.find_p95_ms
    );
}
