//! `sphereface bench`: how fast this machine is, and how much of that is reached.

mod search;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::options::{self, DetectionArgs, ModelArgs, ThreadArgs};
use crate::bench;
use crate::embed::{EmbedOptions, Embedder};
use crate::nn::{Device, DeviceChoice, Weights};

/// Measure this machine: its peak, each network, the detector, and a whole job
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    part: Option<Part>,
    /// Answer requests for single measurements on standard input, for benches/peers
    #[arg(long, hide = true)]
    serve: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Subcommand)]
enum Part {
    Search(search::SearchArgs),
}

impl BenchArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        if let Some(Part::Search(args)) = self.part {
            return args.run();
        }
        let isa = options::isa()?;
        let detector = self.detection.detector(&Device::open(DeviceChoice::Cpu, isa)?)?;
        let threads = self.threads.count();
        if self.serve {
            let embedder =
                Embedder::new(Weights::resolve(&self.model.model)?, EmbedOptions { isa, threads })?;
            bench::serve(&embedder, &detector, threads, std::io::stdin().lock(), std::io::stdout().lock())?;
        }
        Ok(())
    }
}
