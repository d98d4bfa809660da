//! The backward pass against the derivative of a reference network in f64, for every
//! instruction set and through the tensor library.

use candle_core::{DType, Device, Module, Tensor as CandleTensor, Var};
use candle_nn::VarBuilder;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::network::{CHUNK, CROP_LEN, Network};
use super::parameters::{self, Parameter};
use super::tensors::TensorNetwork;
use super::tiled::TiledNetwork;
use crate::embed::Architecture;
use crate::embed::candle::{self, SphereFace};
use crate::nn::tiles::TileUnit;
use crate::nn::{Device as OurDevice, DeviceChoice, Isa};

/// Parameters that keep activations near 1, with slopes of both signs and biases of any size.
fn random_parameters(architecture: &Architecture) -> Vec<Parameter> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let mut list = parameters::network(architecture, 1);
    for parameter in &mut list {
        let inputs: usize = parameter.shape[1..].iter().product();
        let (offset, scale) = match () {
            () if parameter.name.starts_with("relu") => (0.1, 0.3),
            () if parameter.name.ends_with("bias") => (0.0, 0.1),
            () => (0.0, (2.0 / inputs as f32).sqrt()),
        };
        parameter.value.iter_mut().for_each(|x| *x = offset + scale * (2.0 * random.random::<f32>() - 1.0));
    }
    list
}

/// Features, and gradients of sum(features * by_feature) in order, by candle's own graph in f64.
fn oracle(
    architecture: &Architecture,
    parameters: &[Parameter],
    pixels: &[f32],
    by_feature: &[f32],
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let device = Device::Cpu;
    let samples = pixels.len() / CROP_LEN;
    let vars: Vec<Var> = parameters
        .iter()
        .map(|p| {
            let tensor = CandleTensor::from_slice(&p.value, p.shape.as_slice(), &device).unwrap();
            Var::from_tensor(&tensor.to_dtype(DType::F64).unwrap()).unwrap()
        })
        .collect();
    let named = parameters.iter().zip(&vars).map(|(p, var)| (p.name.clone(), var.as_tensor().clone()));
    let vb = VarBuilder::from_tensors(named.collect(), DType::F64, &device);
    let crops = candle::crops(pixels, DType::F64, &device).unwrap();
    let features = SphereFace::new(architecture, vb).unwrap().forward(&crops).unwrap();
    let by_feature =
        CandleTensor::from_slice(by_feature, (samples, architecture.embedding), &device).unwrap();
    let sum = (&features * by_feature.to_dtype(DType::F64).unwrap()).unwrap().sum_all().unwrap();
    let gradients = sum.backward().unwrap();
    let numbers = |tensor: &CandleTensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    (numbers(&features), vars.iter().map(|v| numbers(gradients.get(v).unwrap())).collect())
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..len).map(|_| 2.0 * random.random::<f32>() - 1.0).collect()
}

/// The error of a vector relative to its length, which must not be 0.
fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |sum: f64, x: f64| sum + x * x;
    let differences = found.iter().zip(expected).map(|(&found, expected)| f64::from(found) - expected);
    let length = expected.iter().copied().fold(0.0, square).sqrt();
    assert!(length > 0.0);
    differences.fold(0.0, square).sqrt() / length
}

fn assert_gradients(found: &[Parameter], expected: &[Vec<f64>], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (parameter, expected) in found.iter().zip(expected) {
        let error = relative_error(&parameter.gradient, expected);
        assert!(error < 2e-5, "{what} {}: off by {error:e}", parameter.name);
    }
}

/// The tensor library's CPU, and a GPU if this program can use one.
fn devices() -> Vec<Device> {
    let gpu = OurDevice::open(DeviceChoice::Cuda(0), Isa::best());
    let gpu = gpu.map_err(|error| println!("skipped on CUDA: {error}")).ok();
    [Device::Cpu].into_iter().chain(gpu.and_then(|gpu| gpu.tensors().cloned())).collect()
}

/// The relative error (of lengths) of the features and of every parameter's gradient.
fn check(architecture: Architecture, samples: usize) {
    let parameters = random_parameters(&architecture);
    let pixels = random(samples * CROP_LEN, 1);
    let by_feature = random(samples * architecture.embedding, 2);
    let (expected_features, expected) = oracle(&architecture, &parameters, &pixels, &by_feature);
    // Data left from an earlier, larger chunk must not matter.
    let earlier = random(CHUNK.min(samples + 2) * CROP_LEN, 9);
    for isa in Isa::available() {
        let mut of_threads = Vec::new();
        for threads in [1, 3] {
            let mut found = parameters.clone();
            let mut network = Network::new(architecture, &found, isa, threads);
            network.forward(&found, &earlier);
            let features = network.forward(&found, &pixels);
            network.backward(&mut found, &by_feature);
            assert!(relative_error(&features, &expected_features) < 2e-5, "{architecture} {isa}");
            assert_gradients(&found, &expected, &format!("{architecture} {isa}"));
            of_threads.push(found);
        }
        assert!(of_threads[0] == of_threads[1], "{architecture} {isa}: the number of threads shows");
    }
    for device in devices() {
        let mut found = parameters.clone();
        let mut network = TensorNetwork::new(architecture, device.clone());
        network.forward(&found, &earlier).unwrap();
        let features = network.forward(&found, &pixels).unwrap();
        network.backward(&by_feature).unwrap();
        network.collect(&mut found).unwrap();
        assert!(relative_error(&features, &expected_features) < 2e-5, "{architecture} {device:?}");
        assert_gradients(&found, &expected, &format!("{architecture} {device:?}"));
    }
}

#[test]
fn gradients_are_those_of_the_reference_for_any_width() {
    let of =
        |depth, channels| Architecture::of_depth(depth).unwrap().with_channels(channels).with_embedding(9);
    check(of(4, [3, 5, 4, 6]), 2);
    check(of(20, [4, 8, 6, 10]), 3);
    check(of(10, [17, 33, 12, 35]), 1);
}

/// Two halves give the gradients of a batch, on the kernels and through the tensor library.
#[test]
fn gradients_add_up_over_chunks() {
    let architecture = Architecture::of_depth(10).unwrap().with_channels([4, 4, 8, 8]).with_embedding(5);
    let parameters = random_parameters(&architecture);
    let (pixels, by_feature) = (random(4 * CROP_LEN, 3), random(4 * 5, 4));
    let chunks = |chunk: usize| pixels.chunks(chunk * CROP_LEN).zip(by_feature.chunks(chunk * 5));
    let kernels = |chunk: usize| {
        let mut found = parameters.clone();
        let mut network = Network::new(architecture, &found, Isa::best(), 1);
        for (pixels, by_feature) in chunks(chunk) {
            network.forward(&found, pixels);
            network.backward(&mut found, by_feature);
        }
        found
    };
    let tensors = |chunk: usize| {
        let mut found = parameters.clone();
        let mut network = TensorNetwork::new(architecture, Device::Cpu);
        // Data left from a batch that was dropped must not matter.
        network.forward(&found, &pixels[..CROP_LEN]).unwrap();
        network.backward(&by_feature[..5]).unwrap();
        network.begin();
        for (pixels, by_feature) in chunks(chunk) {
            network.forward(&found, pixels).unwrap();
            network.backward(by_feature).unwrap();
        }
        network.collect(&mut found).unwrap();
        found
    };
    for (whole, halves) in [(kernels(4), kernels(2)), (tensors(4), tensors(3))] {
        for (whole, halves) in whole.iter().zip(halves) {
            let largest = whole.gradient.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            assert!(largest > 0.0, "{}", whole.name);
            for (a, b) in whole.gradient.iter().zip(&halves.gradient) {
                assert!((a - b).abs() <= 1e-5 * largest, "{}: {a} {b}", whole.name);
            }
        }
    }
}

/// In bfloat16 the gradients are those of the reference up to rounding, whatever the threads, the chunks and what was there
/// before. The slopes are near 1: otherwise sums near 0 whose rounded inputs change their sign add a few per cent.
#[test]
fn gradients_in_bfloat16_are_near_those_of_the_reference() {
    let of =
        |depth, channels| Architecture::of_depth(depth).unwrap().with_channels(channels).with_embedding(9);
    let isa = Isa::best();
    let units: Vec<TileUnit> = TileUnit::of_this_machine(isa).into_iter().chain([TileUnit::Model]).collect();
    for (architecture, samples) in [(of(4, [3, 5, 4, 6]), 2), (of(10, [8, 33, 12, 35]), 3)] {
        let mut parameters = random_parameters(&architecture);
        for slopes in parameters.iter_mut().filter(|parameter| parameter.name.starts_with("relu")) {
            slopes.value.iter_mut().for_each(|slope| *slope = 1.0 + 0.1 * *slope);
        }
        let pixels = random(samples * CROP_LEN, 1);
        let by_feature = random(samples * architecture.embedding, 2);
        let (expected_features, expected) = oracle(&architecture, &parameters, &pixels, &by_feature);
        let mut results = Vec::new();
        for (&unit, threads) in units.iter().zip([3, 1]) {
            let mut found = parameters.clone();
            let mut network = TiledNetwork::new(architecture, &found, (isa, unit), threads);
            // Left from a batch that was dropped.
            network.forward(&found, &random((samples + 1) * CROP_LEN, 9));
            network.backward(&mut found.clone(), &random((samples + 1) * architecture.embedding, 3));
            network.begin();
            let mut features = Vec::new();
            // The samples in two chunks.
            for (pixels, by_feature) in
                pixels.chunks(2 * CROP_LEN).zip(by_feature.chunks(2 * architecture.embedding))
            {
                features.extend(network.forward(&found, pixels));
                network.backward(&mut found, by_feature);
            }
            network.collect(&mut found);
            let error = relative_error(&features, &expected_features);
            assert!(error < 0.02, "{architecture}: features off by {error:e}");
            for (parameter, expected) in found.iter().zip(&expected) {
                let error = relative_error(&parameter.gradient, expected);
                assert!(error < 0.03, "{architecture} {}: off by {error:e}", parameter.name);
            }
            results.push((features, found));
        }
        assert!(results.iter().all(|result| *result == results[0]), "{architecture}: threads or unit show");
    }
}

/// Weights that change are those that the next pass uses, forward and backward.
#[test]
fn networks_in_bfloat16_follow_their_parameters() {
    let architecture = Architecture::of_depth(4).unwrap().with_channels([3, 5, 4, 6]).with_embedding(7);
    let (before, after) = (parameters::network(&architecture, 1), random_parameters(&architecture));
    let on = (Isa::best(), TileUnit::Model);
    let run = |mut network: TiledNetwork| {
        let mut found = after.clone();
        network.begin();
        let features = network.forward(&found, &random(CROP_LEN, 1));
        network.backward(&mut found, &random(architecture.embedding, 2));
        network.collect(&mut found);
        (features, found)
    };
    let mut refreshed = TiledNetwork::new(architecture, &before, on, 1);
    refreshed.refresh(&after);
    assert!(run(refreshed) == run(TiledNetwork::new(architecture, &after, on, 1)));
}
