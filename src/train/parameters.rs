//! Trained tensors with their gradients and initial values.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::embed::Architecture;

/// A trained tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name: that of the network's tensor, or one of [`CLASSES`], [`BIAS`], [`PROJECTION`].
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub value: Vec<f32>,
    /// The gradient, summed over a batch.
    pub gradient: Vec<f32>,
    /// Factor of the learning rate; 0 keeps the tensor unchanged.
    pub rate: f64,
    /// Factor of the weight decay.
    pub decay: f64,
}

/// Name of the class vectors [classes, embedding].
pub const CLASSES: &str = "head.weight";

/// Name of the learned offset of SphereFace2, `[1]`.
pub const BIAS: &str = "head.bias";

/// Name of the projection onto a teacher's embedding [teacher's size, embedding].
pub const PROJECTION: &str = "teacher.weight";

/// Standard deviation of the initial weights of the residual convolutions.
const RESIDUAL_DEVIATION: f32 = 0.01;

/// Initial slope of every PReLU.
const SLOPE: f32 = 0.25;

impl Parameter {
    /// A tensor of one value, with the factors of a weight.
    pub fn filled(name: &str, shape: Vec<usize>, value: f32) -> Self {
        let len = shape.iter().product();
        Self {
            name: name.into(),
            shape,
            value: vec![value; len],
            gradient: vec![0.0; len],
            rate: 1.0,
            decay: 1.0,
        }
    }

    /// A matrix or kernel with Caffe's "xavier" initialisation: uniform within sqrt(3 / inputs), where
    /// `inputs` is the number of inputs per output.
    pub fn xavier(name: &str, shape: Vec<usize>, seed: u64) -> Self {
        let mut this = Self::filled(name, shape, 0.0);
        let inputs: usize = this.shape[1..].iter().product();
        let scale = (3.0 / inputs as f64).sqrt();
        let mut random = stream(seed, name);
        this.value.iter_mut().for_each(|x| *x = ((2.0 * random.random::<f64>() - 1.0) * scale) as f32);
        this
    }

    fn gaussian(name: &str, shape: Vec<usize>, deviation: f32, seed: u64) -> Self {
        let mut this = Self::filled(name, shape, 0.0);
        let mut random = stream(seed, name);
        this.value.iter_mut().for_each(|x| *x = deviation * normal(&mut random));
        this
    }
}

/// A normally distributed number (Box and Muller).
pub(super) fn normal(random: &mut Xoshiro256PlusPlus) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.random::<f64>()).cos()) as f32
}

/// Random numbers that depend on a seed and a name only.
fn stream(seed: u64, name: &str) -> Xoshiro256PlusPlus {
    let hash = blake3::hash(format!("{seed} {name}").as_bytes());
    Xoshiro256PlusPlus::from_seed(*hash.as_bytes())
}

/// The tensors of a network in the order of [`Architecture::tensors`], initialised and trained as by the
/// authors: the first convolution of each stage and the last layer from [`Parameter::xavier`], residual
/// convolutions from a normal distribution of deviation 0.01; slopes at 0.25; biases at 0, trained at twice
/// the rate without decay, except those of the residual convolutions, which are not trained.
pub fn network(architecture: &Architecture, seed: u64) -> Vec<Parameter> {
    let fixed = |name: &str| name.starts_with("conv") && !name.contains("_1.");
    architecture
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            if name.starts_with("relu") {
                return Parameter::filled(&name, shape, SLOPE);
            }
            if name.ends_with(".bias") {
                let rate = if fixed(&name) { 0.0 } else { 2.0 };
                return Parameter { rate, decay: 0.0, ..Parameter::filled(&name, shape, 0.0) };
            }
            match fixed(&name) {
                true => Parameter::gaussian(&name, shape, RESIDUAL_DEVIATION, seed),
                false => Parameter::xavier(&name, shape, seed),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_start_as_the_authors_start_them() {
        let network = network(&Architecture::of_depth(4).unwrap(), 1);
        let of = |name: &str| network.iter().find(|p| p.name == name).unwrap();
        assert_eq!((of("conv1_1.bias").rate, of("conv1_1.bias").decay), (2.0, 0.0));
        assert_eq!((of("fc5.bias").rate, of("fc5.bias").decay), (2.0, 0.0));
        assert_eq!((of("relu2_1.weight").value[0], of("relu2_1.weight").decay), (0.25, 1.0));
        let most = of("conv2_1.weight").value.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let limit = (3.0f32 / (64.0 * 9.0)).sqrt();
        assert!(most <= limit && most > 0.99 * limit);
    }

    #[test]
    fn residual_convolutions_are_normal_and_their_biases_stay() {
        let network = network(&Architecture::of_depth(10).unwrap(), 1);
        let of = |name: &str| network.iter().find(|p| p.name == name).unwrap();
        let values = &of("conv3_2.weight").value;
        let variance = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!((variance.sqrt() / 0.01 - 1.0).abs() < 0.01, "{variance}");
        assert_eq!(of("conv3_2.bias").rate, 0.0);
        assert_ne!(of("conv3_3.weight").value, *values, "every tensor has numbers of its own");
    }
}
