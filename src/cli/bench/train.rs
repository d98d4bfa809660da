//! `sphereface bench train`: measures the speed of training on this machine.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::super::options::DeviceArgs;
use super::super::train;
use sphereface::train::config::{Flags, Layers, PRESETS};
use sphereface::train::{Dataset, bench};

/// Measure the speed of training: forward pass, losses, backward pass and update
///
/// The batches are random numbers, so no data set is needed. If one is given, loading it is measured
/// too. The settings are those of `sphereface train`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface bench train --batch 64 --threads 2\n  \
    sphereface bench train casia-112x96 --batch 128 --threads 2 --json")]
pub struct TrainBenchArgs {
    /// Data set to measure loading on
    #[arg(value_name = "DATASET")]
    dataset: Option<PathBuf>,
    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 10_572, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    classes: u32,
    /// Batches to measure, after one more to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: u32,
    /// Preset to start from: sphereface20-casia, distill-small
    #[arg(long, value_name = "NAME", default_value = PRESETS[0].0)]
    preset: String,
    /// TOML file with settings that override the preset
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    flags: Flags,
}

impl TrainBenchArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let mut layers = Layers::preset(&self.preset).map_err(train::told)?;
        if let Some(path) = &self.config {
            layers = layers.over_file(path).map_err(train::told)?;
        }
        let config = layers.finish(&self.flags).map_err(train::told)?;
        let device = self.device.open()?;
        let open = |path: &PathBuf| Dataset::open(path, &config.data, config.run.seed);
        let dataset = self.dataset.as_ref().map(open).transpose().map_err(train::told)?;
        let (classes, batches) = (self.classes as usize, self.batches as usize);
        let report = bench::bench(&config, classes, dataset, batches, &device).map_err(train::told)?;
        if self.json {
            outln!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            outln!("{report}");
        }
        Ok(())
    }
}
