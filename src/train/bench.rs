//! Benchmark of training, part by part.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::TrainError;
use super::config::Config;
use super::dataset::Dataset;
use super::loader::{Batch, Loader, LoaderConfig};
use super::model::{Model, Pass};
use super::network::CROP_LEN;
use super::optimiser::Optimiser;
use crate::nn::Device;

/// Milliseconds per image of each part; medians over the batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Images per batch.
    pub batch: usize,
    /// Compute threads.
    pub threads: usize,
    /// Device of the network.
    pub device: String,
    /// Instruction set on the CPU.
    pub isa: String,
    /// Number format of the products of the convolutions.
    pub precision: String,
    /// The network.
    pub network: String,
    /// Classes.
    pub classes: usize,
    /// Decoding and augmenting on one thread; `None` without a data set.
    pub loading_ms: Option<f64>,
    /// Forward pass.
    pub forward_ms: f64,
    /// Losses with their gradients.
    pub losses_ms: f64,
    /// Backward pass.
    pub backward_ms: f64,
    /// Optimiser, and repacking the weights.
    pub update_ms: f64,
    /// Images per second of everything but loading, which runs in parallel.
    pub images_per_s: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, threads, device, precision, network, classes, images_per_s, .. } = self;
        writeln!(
            f,
            "{network}, {classes} classes, batches of {batch}, {threads} threads, {precision}, on {device}: milliseconds per image"
        )?;
        if let Some(loading_ms) = self.loading_ms {
            writeln!(f, "loading   {loading_ms:9.3} (one thread, in parallel with the others)")?;
        }
        for (part, ms) in [
            ("forward", self.forward_ms),
            ("losses", self.losses_ms),
            ("backward", self.backward_ms),
            ("update", self.update_ms),
        ] {
            writeln!(f, "{part:9} {ms:9.3}")?;
        }
        write!(f, "{images_per_s:.1} images/s")
    }
}

/// Trains `batches` batches (after one that does not count) of random numbers on `device` with the network,
/// loss, optimiser and threads of `config` on `classes` classes, and loads the same number of batches from
/// `dataset`.
///
/// # Errors
/// When the settings are invalid, an image cannot be used or the device fails.
pub fn bench(
    config: &Config,
    classes: usize,
    dataset: Option<Dataset>,
    batches: usize,
    device: &Device,
) -> Result<Report, TrainError> {
    let size = config.data.batch;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(config.run.seed);
    let batch = Batch {
        pixels: (0..size * CROP_LEN).map(|_| 2.0 * random.random::<f32>() - 1.0).collect(),
        labels: (0..size).map(|_| random.random_range(0..classes)).collect(),
        rows: (0..size).collect(),
    };
    let mut model = Model::new(config, classes, None, device)?;
    let mut optimiser = Optimiser::new(config.optimiser.clone(), &model.parameters);
    let stop = AtomicBool::new(false);
    let mut times: [Vec<Duration>; 5] = Default::default();
    for number in 0..=batches as u64 {
        let start = Instant::now();
        let pass = Pass { batch: &batch, lambda: config.lambda().at(number + 1), teacher: None, stop: &stop };
        let Some(totals) = model.gradients(pass)? else { unreachable!("nobody stops it") };
        let length = model.gradient_length();
        let update = Instant::now();
        // A learning rate of 0, so that the weights stay those of the start.
        model.update(&mut optimiser, 0.0, number + 1, length);
        let all = [totals.forward, totals.losses, totals.backward, update.elapsed(), start.elapsed()];
        if number > 0 {
            times.iter_mut().zip(all).for_each(|(times, time)| times.push(time));
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |time| 1000.0 * time.as_secs_f64() / size as f64)
    };
    let loading_ms = match dataset {
        Some(dataset) => {
            let loader = LoaderConfig {
                batch: size,
                seed: config.run.seed,
                augment: config.augment.clone(),
                order: config.channel_order()?,
                skip_unreadable: config.data.skip_unreadable,
                threads: 1,
            };
            let mut loader = Loader::start(&Arc::new(dataset), loader, 0)?;
            let mut times = Vec::new();
            for number in 0..=batches {
                let start = Instant::now();
                loader.next_batch()?;
                if number > 0 {
                    times.push(start.elapsed());
                }
            }
            Some(median(times))
        }
        None => None,
    };
    let [forward, losses, backward, update, all] = times.map(median);
    Ok(Report {
        batch: size,
        threads: config.run.threads,
        device: device.to_string(),
        isa: device.isa().to_string(),
        precision: model.arithmetic().to_string(),
        network: config.architecture()?.to_string(),
        classes,
        loading_ms,
        forward_ms: forward,
        losses_ms: losses,
        backward_ms: backward,
        update_ms: update,
        images_per_s: if all > 0.0 { 1000.0 / all } else { 0.0 },
    })
}
