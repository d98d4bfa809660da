//! Network, class vectors and losses: from a batch to gradients.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::TrainError;
use super::backend::Backend;
use super::config::Config;
use super::dataset::Teacher;
use super::loader::Batch;
use super::loss::{
    Distillation, Gradients, Input, Loss, Workspace, add_class_gradients, distill, normalise_rows,
};
use super::network::CROP_LEN;
use super::optimiser::{self, Optimiser};
use super::parameters::{self, BIAS, CLASSES, PROJECTION, Parameter};
use crate::models::{FORMAT, ModelId, Tensor, Weights};
use crate::nn::team::Team;
use crate::nn::{Arithmetic, Device, Isa};

/// The trained model with its backend and losses.
#[derive(Debug)]
pub struct Model {
    /// The tensors: those of the network, then those of the heads.
    pub parameters: Vec<Parameter>,
    /// Identifier of the weights that it started from.
    pub init: Option<ModelId>,
    network: Backend,
    loss: Loss,
    class_weight: f64,
    teacher_weight: f64,
    /// Instructions of the optimiser.
    isa: Isa,
    /// Threads and memory of losses and optimiser.
    team: Team,
    workspace: Workspace<f32>,
    /// Indices into `parameters`.
    classes: Option<usize>,
    bias: Option<usize>,
    projection: Option<usize>,
}

/// Number of samples whose gradients w.r.t. the class vectors are added at a time. Each addition reads and
/// writes these gradients in memory, which are larger than all other data of a loss.
const HELD: usize = 64;

/// Results of a batch, summed over its samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Samples.
    pub samples: usize,
    /// The loss over the classes, unweighted.
    pub class_loss: f64,
    /// The teacher's loss, weighted.
    pub teacher_loss: f64,
    /// Angles to the target classes in degrees.
    pub angle_deg: f64,
    /// Samples nearest to their target class.
    pub correct: usize,
    /// Time of the forward pass.
    pub forward: Duration,
    /// Time of the losses.
    pub losses: Duration,
    /// Time of the backward pass.
    pub backward: Duration,
}

/// Inputs of one training step.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// The samples.
    pub batch: &'a Batch,
    /// lambda of A-Softmax.
    pub lambda: f64,
    /// The teacher, if there is one.
    pub teacher: Option<&'a Teacher>,
    /// Set to stop the step.
    pub stop: &'a AtomicBool,
}

impl Model {
    /// A model before training, whose network runs on `device`.
    ///
    /// # Errors
    /// When the settings are invalid, or the weights to start from cannot be used.
    pub fn new(
        config: &Config,
        classes: usize,
        teacher_size: Option<usize>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let architecture = config.architecture()?;
        let loss = config.loss()?;
        let (seed, size) = (config.run.seed, architecture.embedding);
        let mut list = parameters::network(&architecture, seed);
        if config.network.residual_biases {
            list.iter_mut().filter(|parameter| parameter.rate == 0.0).for_each(|bias| bias.rate = 2.0);
        }
        let mut add = |parameter: Parameter| {
            list.push(parameter);
            Some(list.len() - 1)
        };
        let (mut class_place, mut bias, mut projection) = (None, None, None);
        if config.loss.weight > 0.0 {
            class_place = add(Parameter::xavier(CLASSES, vec![classes, size], seed));
            if !loss.is_cross_entropy() {
                let first = loss.initial_bias(classes) as f32;
                bias = add(Parameter { decay: 0.0, ..Parameter::filled(BIAS, vec![1], first) });
            }
        }
        if let Some(teacher_size) = teacher_size.filter(|teacher_size| *teacher_size != size) {
            projection = add(Parameter::xavier(PROJECTION, vec![teacher_size, size], seed));
        }
        let mut init = None;
        if let Some(path) = &config.network.init {
            let weights = Weights::load(path)?;
            init = Some(weights.id());
            for (name, shape) in architecture.tensors() {
                let values = weights.tensor(&name, &shape).map_err(|error| error.in_file(path.display()))?;
                if let Some(parameter) = list.iter_mut().find(|parameter| parameter.name == name) {
                    parameter.value.copy_from_slice(values);
                }
            }
        }
        let network = Backend::new(architecture, &list, device, config.run.precision, config.run.threads)?;
        Ok(Self {
            parameters: list,
            init,
            network,
            loss,
            class_weight: config.loss.weight,
            teacher_weight: config.teacher.weight,
            isa: device.isa(),
            team: Team::new(config.run.threads),
            workspace: Workspace::new(device.isa()),
            classes: class_place,
            bias,
            projection,
        })
    }

    /// Computes the mean gradients over a batch, replacing the previous ones. `None` if it was stopped,
    /// which leaves all parameters unchanged except for the length of class vectors.
    ///
    /// # Errors
    /// When the device fails, with the same effect on the parameters.
    ///
    /// # Panics
    /// When the batch is empty.
    pub fn gradients(&mut self, pass: Pass<'_>) -> Result<Option<Totals>, TrainError> {
        let Pass { batch, lambda, teacher, stop } = pass;
        let size = self.network.architecture().embedding;
        let samples = batch.labels.len();
        let scale = 1.0 / samples as f64;
        for parameter in &mut self.parameters {
            self.team.run_parts(&mut parameter.gradient, optimiser::PART, |_, _, part| part.fill(0.0));
        }
        self.network.begin();
        let mut totals = Totals { samples, ..Totals::default() };
        let start = Instant::now();
        if let Some(classes) = self.classes.filter(|_| self.loss.normalises_classes()) {
            normalise_rows(&mut self.parameters[classes].value, size, &mut self.team);
        }
        let projection: Option<Vec<f64>> =
            self.projection.map(|place| self.parameters[place].value.iter().map(|&x| f64::from(x)).collect());
        let mut by_projection = vec![0.0; projection.as_ref().map_or(0, Vec::len)];
        let bias = self.bias.map_or(0.0, |place| f64::from(self.parameters[place].value[0]));
        let mut by_bias = 0.0;
        // Samples whose gradients w.r.t. the class vectors are not added yet: their features, and the
        // gradients w.r.t. the products of both.
        let (mut held, mut by_product) = (Vec::new(), Vec::new());
        totals.losses += start.elapsed();
        let chunk = self.network.chunk();
        let chunks = batch.labels.chunks(chunk).zip(batch.rows.chunks(chunk));
        let mut done = 0;
        for ((labels, rows), pixels) in chunks.zip(batch.pixels.chunks(chunk * CROP_LEN)) {
            done += labels.len();
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let start = Instant::now();
            let features = self.network.forward(&self.parameters, pixels)?;
            totals.forward += start.elapsed();
            let start = Instant::now();
            let mut by_feature = vec![0.0; features.len()];
            if let Some(place) = self.classes {
                let Parameter { value, gradient, .. } = &mut self.parameters[place];
                let weight = scale * self.class_weight;
                let input = Input { features: &features, labels, classes: value, bias, lambda, weight };
                let before = by_product.len();
                by_product.resize(before + labels.len() * (value.len() / size), 0.0);
                held.extend_from_slice(&features);
                let products = &mut by_product[before..];
                let gradients = Gradients { features: &mut by_feature, products, bias: &mut by_bias };
                let value = self.loss.evaluate(input, gradients, &mut self.team, &mut self.workspace);
                if held.len() >= HELD * size || done == samples {
                    add_class_gradients(&held, &by_product, size, weight, gradient, &mut self.team);
                    held.clear();
                    by_product.clear();
                }
                totals.class_loss += value.loss;
                totals.angle_deg += value.angle_deg;
                totals.correct += value.correct;
            }
            if let Some(teacher) = teacher {
                let wide = |x: &f32| f64::from(*x);
                let features: Vec<f64> = features.iter().map(wide).collect();
                let targets: Vec<f64> = rows.iter().flat_map(|&row| teacher.row(row)).map(wide).collect();
                let input = Distillation {
                    features: &features,
                    targets: &targets,
                    projection: projection.as_deref(),
                    target_size: teacher.size(),
                    weight: self.teacher_weight,
                    threads: self.team.threads(),
                };
                let mut by_teacher = vec![0.0; features.len()];
                totals.teacher_loss += distill(input, &mut by_teacher, &mut by_projection);
                by_feature.iter_mut().zip(by_teacher).for_each(|(sum, g)| *sum += (g * scale) as f32);
            }
            totals.losses += start.elapsed();
            let start = Instant::now();
            self.network.backward(&mut self.parameters, &by_feature)?;
            totals.backward += start.elapsed();
        }
        let start = Instant::now();
        self.network.collect(&mut self.parameters)?;
        totals.backward += start.elapsed();
        if let Some(place) = self.bias {
            self.parameters[place].gradient[0] = by_bias as f32;
        }
        if let Some(place) = self.projection {
            let to = self.parameters[place].gradient.iter_mut().zip(by_projection);
            to.for_each(|(to, g)| *to = (g * scale) as f32);
        }
        Ok(Some(totals))
    }

    /// Norm of the gradient of all parameters together.
    pub fn gradient_length(&mut self) -> f64 {
        Optimiser::gradient_length(&self.parameters, &mut self.team)
    }

    /// Updates the parameters: step `t` (from 1) at a learning rate, given the norm of the gradient.
    pub fn update(&mut self, optimiser: &mut Optimiser, rate: f64, t: u64, length: f64) {
        optimiser.step(&mut self.parameters, (rate, t, length), self.isa, &mut self.team);
        self.network.refresh(&self.parameters);
    }

    /// Updates the network after the parameters were replaced.
    pub fn refresh(&mut self) {
        self.network.refresh(&self.parameters);
    }

    /// The number format of the products of the convolutions.
    pub fn arithmetic(&self) -> Arithmetic {
        self.network.arithmetic()
    }

    /// Whether there is a loss over the classes.
    pub fn has_classes(&self) -> bool {
        self.classes.is_some()
    }

    /// Whether that loss is a cross-entropy.
    pub fn has_cross_entropy(&self) -> bool {
        self.has_classes() && self.loss.is_cross_entropy()
    }

    /// The weights of the network alone, with the metadata that describe them and `further`.
    pub fn weights(&self, config: &Config, further: BTreeMap<String, String>) -> Weights {
        let architecture = self.network.architecture();
        let mut weights = Weights { metadata: further, ..Weights::default() };
        weights.metadata.extend(architecture.to_metadata().into_iter().flatten());
        weights.metadata.insert("format".into(), FORMAT.into());
        weights.metadata.insert("channel_order".into(), config.network.channel_order.clone());
        for ((name, shape), parameter) in architecture.tensors().into_iter().zip(&self.parameters) {
            weights.tensors.insert(name, Tensor { shape, data: parameter.value.clone() });
        }
        weights
    }
}
