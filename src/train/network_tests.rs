//! The backward pass against the derivative of a reference network in f64, for every
//! instruction set.

use candle_core::{DType, Device, Tensor as CandleTensor, Var};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::network::{CHUNK, CROP_LEN, Network};
use super::parameters::{self, Parameter};
use crate::embed::Architecture;
use crate::nn::Isa;

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

/// Gradients of sum(features * by_feature) by candle's own graph in f64, in order.
fn oracle(
    architecture: &Architecture,
    parameters: &[Parameter],
    pixels: &[f32],
    by_feature: &[f32],
) -> Vec<Vec<f64>> {
    let device = Device::Cpu;
    let samples = pixels.len() / CROP_LEN;
    let vars: Vec<Var> = parameters
        .iter()
        .map(|p| {
            let tensor = CandleTensor::from_slice(&p.value, p.shape.as_slice(), &device).unwrap();
            Var::from_tensor(&tensor.to_dtype(DType::F64).unwrap()).unwrap()
        })
        .collect();
    let x = CandleTensor::from_slice(pixels, (samples, 112, 96, 3), &device).unwrap();
    let mut x = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap().to_dtype(DType::F64).unwrap();
    let convolutions = architecture.convolutions();
    let apply = |i: usize, x: &CandleTensor| {
        let c = convolutions[i];
        let column = |v: &Var| v.reshape((1, c.output, 1, 1)).unwrap();
        let [weight, bias, slope] = &vars[3 * i..3 * i + 3] else { unreachable!() };
        let z = x.conv2d(weight, 1, c.stride, 1, 1).unwrap().broadcast_add(&column(bias)).unwrap();
        let positive = z.relu().unwrap();
        let negative = (&z - &positive).unwrap().broadcast_mul(&column(slope)).unwrap();
        (positive + negative).unwrap()
    };
    let mut i = 0;
    for units in architecture.units {
        x = apply(i, &x);
        i += 1;
        for _ in 0..units {
            x = (apply(i + 1, &apply(i, &x)) + &x).unwrap();
            i += 2;
        }
    }
    let [weight, bias] = &vars[3 * i..] else { unreachable!() };
    let features = x.flatten_from(1).unwrap().matmul(&weight.t().unwrap()).unwrap();
    let features = features.broadcast_add(&bias.reshape((1, architecture.embedding)).unwrap()).unwrap();
    let by_feature =
        CandleTensor::from_slice(by_feature, (samples, architecture.embedding), &device).unwrap();
    let sum = (features * by_feature.to_dtype(DType::F64).unwrap()).unwrap().sum_all().unwrap();
    let gradients = sum.backward().unwrap();
    vars.iter().map(|v| gradients.get(v).unwrap().flatten_all().unwrap().to_vec1().unwrap()).collect()
}

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..len).map(|_| 2.0 * random.random::<f32>() - 1.0).collect()
}

/// The relative error (of lengths) of every parameter's gradient.
fn check(architecture: Architecture, samples: usize) {
    let parameters = random_parameters(&architecture);
    let pixels = random(samples * CROP_LEN, 1);
    let by_feature = random(samples * architecture.embedding, 2);
    let expected = oracle(&architecture, &parameters, &pixels, &by_feature);
    for isa in Isa::available() {
        let mut of_threads = Vec::new();
        for threads in [1, 3] {
            let mut found = parameters.clone();
            let mut network = Network::new(architecture, &found, isa, threads);
            // What an earlier, larger chunk left behind must not matter.
            network.forward(&found, &random(CHUNK.min(samples + 2) * CROP_LEN, 9));
            network.forward(&found, &pixels);
            network.backward(&mut found, &by_feature);
            for (parameter, expected) in found.iter().zip(&expected) {
                let length = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
                let error = parameter
                    .gradient
                    .iter()
                    .zip(expected)
                    .map(|(&found, expected)| (f64::from(found) - expected).powi(2))
                    .sum::<f64>()
                    .sqrt();
                assert!(
                    length > 0.0 && error < 2e-5 * length,
                    "{architecture} {isa} {}: off by {error:e} of {length:e}",
                    parameter.name
                );
            }
            of_threads.push(found);
        }
        assert!(of_threads[0] == of_threads[1], "{architecture} {isa}: the number of threads shows");
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

/// Half a batch twice is a batch.
#[test]
fn gradients_add_up_over_chunks() {
    let architecture = Architecture::of_depth(10).unwrap().with_channels([4, 4, 8, 8]).with_embedding(5);
    let parameters = random_parameters(&architecture);
    let (pixels, by_feature) = (random(4 * CROP_LEN, 3), random(4 * 5, 4));
    let run = |chunk: usize| {
        let mut found = parameters.clone();
        let mut network = Network::new(architecture, &found, Isa::best(), 1);
        for (pixels, by_feature) in pixels.chunks(chunk * CROP_LEN).zip(by_feature.chunks(chunk * 5)) {
            network.forward(&found, pixels);
            network.backward(&mut found, by_feature);
        }
        found
    };
    for (whole, halves) in run(4).iter().zip(run(2)) {
        let largest = whole.gradient.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (a, b) in whole.gradient.iter().zip(&halves.gradient) {
            assert!((a - b).abs() <= 1e-5 * largest, "{}: {a} {b}", whole.name);
        }
    }
}
