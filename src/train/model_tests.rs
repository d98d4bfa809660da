//! Training through the tensor library against training on the kernels, and switching between them by a
//! checkpoint.

use std::sync::atomic::AtomicBool;

use candle_core::Device as TensorDevice;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::checkpoint::{self, Checkpoint, State};
use super::config::{Config, Flags, Layers};
use super::loader::Batch;
use super::model::{Model, Pass};
use super::network::{CHUNK, CROP_LEN};
use super::optimiser::Optimiser;
use crate::nn::{Device, DeviceChoice, Isa};

const CLASSES: usize = 4;

/// More than one chunk of the kernels, and not a multiple of it.
const BATCH: usize = CHUNK + 3;

fn config() -> Config {
    let text = "\
[network]
depth = 10
channels = [4, 6, 8, 8]
embedding = 12
[loss]
lambda_base = 20.0
[optimiser]
rate = 0.02
[run]
precision = \"f32\"
";
    Layers::default().over(text, "test").unwrap().finish(&Flags::default()).unwrap()
}

/// People with one colour each, with noise.
fn batch(number: u64) -> Batch {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(number);
    let labels: Vec<usize> = (0..BATCH).map(|i| i % CLASSES).collect();
    let mut pixels = Vec::with_capacity(BATCH * CROP_LEN);
    for &label in &labels {
        let colour = [0, 1, 2].map(|channel| if (label + channel) % 4 < 2 { 0.5 } else { -0.5 });
        pixels.extend((0..CROP_LEN).map(|i| colour[i % 3] + random.random::<f32>() - 0.5));
    }
    Batch { pixels, labels, rows: (0..BATCH).collect() }
}

struct Run {
    model: Model,
    optimiser: Optimiser,
}

impl Run {
    fn new(device: &Device) -> Self {
        let config = config();
        let model = Model::new(&config, CLASSES, None, device).unwrap();
        let optimiser = Optimiser::new(config.optimiser, &model.parameters);
        Self { model, optimiser }
    }

    /// Trains some iterations; the mean loss of each.
    fn iterations(&mut self, iterations: std::ops::RangeInclusive<u64>) -> Vec<f64> {
        let (config, stop) = (config(), AtomicBool::new(false));
        let step = |t| {
            let batch = batch(t);
            let pass = Pass { batch: &batch, lambda: config.lambda().at(t), teacher: None, stop: &stop };
            let totals = self.model.gradients(pass).unwrap().unwrap();
            let length = self.model.gradient_length();
            self.model.update(&mut self.optimiser, config.optimiser.rate, t, length);
            totals.class_loss / totals.samples as f64
        };
        iterations.map(step).collect()
    }
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < tolerance * b.abs(), "{found:?} {expected:?}");
    }
}

#[test]
fn a_run_has_the_losses_of_the_kernels_on_every_device_and_goes_on_elsewhere() {
    let cpu = Device::open(DeviceChoice::Cpu, Isa::best()).unwrap();
    let mut whole = Run::new(&cpu);
    let expected = whole.iterations(1..=8);
    assert!(expected[7] < 0.8 * expected[0], "{expected:?}");

    let gpu = Device::open(DeviceChoice::Cuda(0), Isa::best());
    let gpu = gpu.map_err(|error| println!("skipped on CUDA: {error}")).ok();
    for device in [Device::of_tensors(TensorDevice::Cpu)].into_iter().chain(gpu) {
        let mut run = Run::new(&device);
        let found = run.iterations(1..=4);
        assert_near(&found, &expected[..4], 1e-4);
        assert_ne!(found, expected[..4], "these are other sums");

        let folder = tempfile::tempdir().unwrap();
        let Run { model, optimiser } = &run;
        let state = State { iteration: 4, ..State::default() };
        checkpoint::save(folder.path(), &state, &config(), &model.parameters, optimiser).unwrap();
        let mut on_kernels = Run::new(&cpu);
        let Run { model, optimiser } = &mut on_kernels;
        Checkpoint::load(folder.path()).unwrap().restore(&mut model.parameters, optimiser).unwrap();
        model.refresh();
        let mut stayed = run.iterations(5..=8);
        assert_near(&on_kernels.iterations(5..=8), &expected[4..], 1e-3);
        assert_near(&stayed, &expected[4..], 1e-3);

        // And in the other direction.
        let folder = tempfile::tempdir().unwrap();
        let Run { model, optimiser } = &on_kernels;
        checkpoint::save(folder.path(), &state, &config(), &model.parameters, optimiser).unwrap();
        let Run { model, optimiser } = &mut run;
        Checkpoint::load(folder.path()).unwrap().restore(&mut model.parameters, optimiser).unwrap();
        model.refresh();
        stayed = run.iterations(9..=9);
        assert_near(&stayed, &on_kernels.iterations(9..=9), 1e-5);
    }
}

#[test]
fn residual_biases_are_learned_only_when_asked_for() {
    let cpu = Device::open(DeviceChoice::Cpu, Isa::best()).unwrap();
    let mut config = config();
    let fixed = |config: &Config| {
        let model = Model::new(config, CLASSES, None, &cpu).unwrap();
        let fixed = model.parameters.iter().filter(|parameter| parameter.rate == 0.0);
        fixed.map(|parameter| parameter.name.clone()).collect::<Vec<_>>()
    };
    let names = fixed(&config);
    assert!(names.contains(&"conv2_2.bias".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(".bias") && !name.contains("_1.")), "{names:?}");
    config.network.residual_biases = true;
    assert!(fixed(&config).is_empty());
}
