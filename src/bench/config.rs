//! Settings of the benchmark of this machine.

use std::path::PathBuf;
use std::time::Duration;

use super::BenchError;
use super::report::Peak;
use crate::detect::{Detector, DetectorConfig};
use crate::embed::{EmbedOptions, Embedder};
use crate::models::Weights;
use crate::nn::{Device, peak};

/// What to measure, and for how long.
#[derive(Debug, Clone)]
pub struct MachineBench {
    /// Device of the networks.
    pub device: Device,
    /// Instruction set, maximum number of threads (on the CPU, one thread is measured as well), and
    /// arithmetic of the embedder.
    pub embed: EmbedOptions,
    /// Crops that are embedded together.
    pub batches: Vec<usize>,
    /// Sizes of frames in pixels, width and height.
    pub frames: Vec<(u32, u32)>,
    /// Duration of each measurement; at least three runs.
    pub time: Duration,
    /// Detector settings.
    pub detection: DetectorConfig,
    /// Weights of the detector.
    pub detector: Weights,
    /// The model to embed with; the networks of the paper are measured too.
    pub model: Weights,
    /// A video for whole jobs; `None` for none.
    pub video: Option<PathBuf>,
}

impl MachineBench {
    /// One thread, and the maximum; on a GPU only the maximum, which prepare the networks' input.
    pub(super) fn threads(&self) -> Vec<usize> {
        match self.device.is_cpu() && self.embed.threads > 1 {
            true => vec![1, self.embed.threads],
            false => vec![self.embed.threads],
        }
    }

    /// The peak of that many threads, or of the GPU.
    pub(super) fn peak(&self, threads: usize) -> Result<Peak, BenchError> {
        let of_cpu = || {
            let arithmetic_gflops = peak::arithmetic_gflops(self.embed.isa, threads, self.time);
            (arithmetic_gflops, peak::memory_gb_per_s(self.embed.isa, threads, self.time))
        };
        #[cfg(feature = "candle")]
        let (arithmetic_gflops, memory_gb_per_s) = match self.device.tensors() {
            Some(device) => {
                peak::of_tensors(device, self.time).map_err(|error| BenchError::Device(error.to_string()))?
            }
            None => of_cpu(),
        };
        #[cfg(not(feature = "candle"))]
        let (arithmetic_gflops, memory_gb_per_s) = of_cpu();
        Ok(Peak { threads, arithmetic_gflops, memory_gb_per_s })
    }

    pub(super) fn embedder(&self, weights: Weights, threads: usize) -> Result<Embedder, BenchError> {
        Ok(match self.device.is_cpu() {
            true => Embedder::new(weights, EmbedOptions { threads, ..self.embed })?,
            false => Embedder::on(weights, &self.device, threads)?,
        })
    }

    pub(super) fn detector(&self) -> Result<Detector, BenchError> {
        Ok(Detector::on(&self.detector, self.detection, &self.device)?)
    }
}
