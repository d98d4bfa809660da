//! `sphereface bench search`: measures the search in a large gallery.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;

use crate::cli::options::{self, ThreadArgs};
use sphereface::bench::{SearchBench, SearchReport, Speed};

/// Measure the search in a very large gallery
///
/// The templates are synthetic, five per person, with angles like those of real faces. Half of the
/// probes are views of people in the gallery, half of strangers. Recall is the share of probes for
/// which the search finds the same nearest template as a comparison with every template.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface bench search --templates 100000\n  \
    sphereface bench search --threads 2 --json")]
pub struct SearchArgs {
    /// Templates, 5 to 10000000. A million takes 2 GB of memory
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(5..=10_000_000))]
    templates: u32,
    /// Values per template, 2 to 4096
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(2..=4096))]
    values: u16,
    /// Probes, 2 to 1000000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    probes: u32,
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
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(Duration::from_millis(250));
        let report = bench.run(&|doing| bar.set_message(doing.to_owned()));
        bar.finish_and_clear();
        if self.json {
            outln!("{}", serde_json::to_string(&report)?);
        } else {
            tell(&report);
        }
        Ok(())
    }
}

fn tell(report: &SearchReport) {
    outln!("{} templates, prepared in {:.2} s; {} probes", report.templates, report.lay_out_s, report.probes);
    let line = |what: &str, Speed { median_ms, p99_ms }: &Speed| {
        outln!("{what}: {median_ms:.2} ms per probe (99 %: {p99_ms:.2} ms)");
    };
    line("every template compared, one thread", &report.exact);
    if report.small {
        return outln!("a gallery of this size is searched by comparing every template");
    }
    line("search, one thread", &report.one_thread);
    line(&format!("search, {} threads", report.threads), &report.all_threads);
    for one in &report.together {
        outln!(
            "{} probes together, {} threads: {:.0} probes per second",
            one.probes,
            report.threads,
            one.per_s
        );
    }
    outln!(
        "recall: {:.4} for people of the gallery, {:.4} for strangers",
        report.recall_known,
        report.recall_strangers
    );
}
