//! `sphereface bench`: how fast this machine is, and how much of that is reached.

use anyhow::Result;
use clap::Args;

use super::options::{self, DetectionArgs, ModelArgs, ThreadArgs};
use crate::bench;
use crate::embed::{EmbedOptions, Embedder};
use crate::nn::{Device, DeviceChoice, Weights};

/// Measure this machine: its peak, each network, the detector, and a whole job
#[derive(Debug, Args)]
pub struct BenchArgs {
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

impl BenchArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
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
