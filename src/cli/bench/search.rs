//! `sphereface bench search`: a gallery of a million.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::ProgressBar;

use crate::bench::{SearchBench, SearchReport, Speed};
use crate::cli::options::{self, ThreadArgs};

/// Measure the search in a very large gallery: exactly and through its index
///
/// The templates are made up, with the angles that real faces have, five a person. Half of the
/// probes are views of people of the gallery, half of strangers; recall is the share of probes
/// for which the index finds the very template that the exact search finds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface bench search --templates 100000\n  \
    sphereface bench search --folder index --json")]
pub struct SearchArgs {
    /// Templates, 5 to 10000000; a million takes 2 GB of memory and some minutes to build
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(5..=10_000_000))]
    templates: u32,
    /// Values of a template, 2 to 4096
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(2..=4096))]
    values: u16,
    /// Probes, 2 to 1000000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    probes: u32,
    /// Keep the index in this folder, and use the one that is there [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArgs,
}

impl SearchArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let bench = SearchBench {
            templates: self.templates as usize,
            values: usize::from(self.values),
            probes: self.probes as usize,
            threads: self.threads.count(),
            isa: options::isa()?,
        };
        let temporary = tempfile::tempdir().context("there is no folder for temporary files")?;
        let folder = self.folder.as_deref().unwrap_or(temporary.path());
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(Duration::from_millis(250));
        let report = bench.run(folder, &|doing| bar.set_message(doing.to_owned()))?;
        bar.finish_and_clear();
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            tell(&report);
        }
        Ok(())
    }
}

fn tell(report: &SearchReport) {
    println!("{} templates, {} probes", report.templates, report.probes);
    let line = |what: &str, Speed { median_ms, p99_ms, probes_per_s }: &Speed| {
        println!(
            "{what}: {median_ms:.2} ms a probe on one thread (99 %: {p99_ms:.2} ms), {probes_per_s:.0} probes/s on {}",
            report.threads
        );
    };
    line("exact", &report.exact);
    line("index", &report.index);
    println!(
        "recall of the index: {:.4} for people of the gallery, {:.4} for strangers",
        report.recall_known, report.recall_strangers
    );
    println!(
        "index: {:.1} MB, built in {:.1} s, opened in {:.2} s",
        report.bytes as f64 / 1e6,
        report.build_s,
        report.open_s
    );
    println!(
        "brought up to date in {:.1} s: {} put in, {} taken out; {:.1} % of the new people found",
        report.update_s,
        report.put_in,
        report.taken_out,
        100.0 * report.recall_new
    );
}
