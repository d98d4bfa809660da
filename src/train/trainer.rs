//! The training loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::TrainError;
use super::checkpoint::{self, Checkpoint, State};
use super::config::{Config, Flags, Layers, LossKind};
use super::dataset::{Dataset, Teacher};
use super::loader::{Loader, LoaderConfig};
use super::metrics::{Divergence, Line, Metrics, Training, Validated, save_error};
use super::model::{Model, Pass};
use super::optimiser::Optimiser;
use super::plot;
use super::validate::Validation;
use crate::file;
use crate::models::{ModelId, Precision};
use crate::nn::{Arithmetic, Device};

/// The trained weights in the output folder.
pub const MODEL_NAME: &str = "model.safetensors";
/// The metrics in the output folder.
pub const METRICS_NAME: &str = "metrics.jsonl";
/// The curves in the output folder.
pub const CURVES_NAME: &str = "curves.svg";
/// The settings in the output folder.
pub const CONFIG_NAME: &str = "config.toml";

/// What happens during a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run starts or continues.
    Started {
        /// Iterations done before.
        done: u64,
        /// The data.
        dataset: &'a Dataset,
    },
    /// An iteration is done.
    Iteration(&'a Training),
    /// A validation is done.
    Validated(&'a Validated),
    /// A checkpoint was written.
    Saved,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whether all iterations are done; otherwise it was stopped and can be resumed.
    pub finished: bool,
    /// Iterations done.
    pub iteration: u64,
    /// The last line of metrics.
    pub last: Option<Training>,
    /// The last validation.
    pub validated: Option<Validated>,
    /// The weights.
    pub model: PathBuf,
}

/// Seed of the samples of a run. With the seed of the run alone, a run that starts from trained weights with
/// the same settings would show them the same pictures with the same augmentation, and overfit to them.
fn sample_seed(seed: u64, init: Option<ModelId>) -> u64 {
    seed ^ init.map_or(0, |id| u64::from_le_bytes(id.0))
}

/// A run that is ready to start.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    dataset: Arc<Dataset>,
    teacher: Option<Teacher>,
    validation: Option<Validation>,
    model: Model,
    optimiser: Optimiser,
    device: Device,
    state: State,
    metrics: Metrics,
    output: PathBuf,
    /// Iteration of the last checkpoint.
    saved: Option<u64>,
}

impl Trainer {
    /// Prepares a run into the folder `output`, which is created if missing; with `resume`, from its
    /// checkpoint. All errors of settings and data set are found here, before hours of work.
    ///
    /// # Errors
    /// When something cannot be read or is invalid, when there is already a run and `resume` is not set, or
    /// its checkpoint does not match.
    pub fn new(
        config: Config,
        dataset: Dataset,
        output: &Path,
        resume: Option<Checkpoint>,
        device: Device,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        if resume.is_none() && output.join(checkpoint::FILE_NAME).exists() {
            return Err(TrainError::RunExists { folder: output.to_owned() });
        }
        if resume.is_none()
            && let Some(path) = replaced(output)
        {
            return Err(TrainError::FileExists { path });
        }
        let teacher = match &config.teacher.embeddings {
            Some(path) if config.teacher.weight > 0.0 => Some(Teacher::read(path, dataset.images)?),
            _ => None,
        };
        let validation = match (&config.run.pairs, &config.run.pairs_images) {
            (Some(pairs), Some(images)) => Some(Validation::of_file(pairs, images)?),
            _ => Validation::of_held_out(&dataset)?,
        };
        let teacher_size = teacher.as_ref().map(Teacher::size);
        let fingerprint = dataset.fingerprint();
        if let Some(checkpoint) = &resume {
            checkpoint.check(&config, &fingerprint)?;
        }
        let mut model = Model::new(&config, dataset.classes.len(), teacher_size, &device)?;
        let mut optimiser = Optimiser::new(config.optimiser.clone(), &model.parameters);
        let mut saved = None;
        let state = match resume {
            Some(checkpoint) => {
                let state = checkpoint.restore(&mut model.parameters, &mut optimiser)?;
                model.refresh();
                saved = Some(state.iteration);
                state
            }
            None => {
                let sample_seed = Some(sample_seed(config.run.seed, model.init));
                State { dataset: fingerprint, sample_seed, ..State::default() }
            }
        };
        std::fs::create_dir_all(output).map_err(|error| save_error(output, error.to_string()))?;
        let path = output.join(CONFIG_NAME);
        file::write(&path, config.to_toml().as_bytes()).map_err(|e| save_error(&path, e.to_string()))?;
        let metrics = Metrics::open(&output.join(METRICS_NAME), state.iteration)?;
        let (dataset, output) = (Arc::new(dataset), output.to_owned());
        Ok(Self {
            config,
            dataset,
            teacher,
            validation,
            model,
            optimiser,
            device,
            state,
            metrics,
            output,
            saved,
        })
    }

    /// The number format of the products of the convolutions.
    pub fn arithmetic(&self) -> Arithmetic {
        self.model.arithmetic()
    }

    /// Trains until all iterations are done or `stop` is set. Then the current iteration is dropped, a
    /// checkpoint is written, and the run can be resumed with the same result.
    ///
    /// # Errors
    /// When an image cannot be used, something cannot be written, the device fails, or training diverges.
    /// The last checkpoint is kept in each case.
    pub fn run(
        mut self,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, TrainError> {
        observe(Event::Started { done: self.state.iteration, dataset: &self.dataset });
        let loader = LoaderConfig {
            batch: self.config.data.batch,
            seed: self.state.sample_seed.unwrap_or(self.config.run.seed),
            augment: self.config.augment.clone(),
            order: self.config.channel_order()?,
            skip_unreadable: self.config.data.skip_unreadable,
            threads: self.config.data.loaders,
        };
        let mut loader = Loader::start(&self.dataset, loader, self.state.iteration)?;
        let result = self.iterate(&mut loader, stop, observe);
        if let Err(TrainError::Image { .. } | TrainError::Record { .. } | TrainError::Device(_)) = &result {
            // The image or the device can be replaced and the run resumed without loss.
            self.save()?;
        }
        result?;
        if self.saved != Some(self.state.iteration) {
            self.save()?;
            observe(Event::Saved);
        }
        self.finish()
    }

    fn iterate(
        &mut self,
        loader: &mut Loader,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainError> {
        let run = self.config.run.clone();
        let (schedule, lambda) = (self.config.schedule(), self.config.lambda());
        let total = self.config.schedule.iterations;
        let mut since = Instant::now();
        let (mut waited, mut images) = (0.0, 0);
        while self.state.iteration < total && !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            let batch = loader.next_batch()?;
            waited += start.elapsed().as_secs_f64();
            if batch.labels.is_empty() {
                let image = format!("every image of batch {}", self.state.iteration + 1);
                return Err(TrainError::Image { image, cause: "none of them can be decoded".into() });
            }
            let t = self.state.iteration + 1;
            let (lambda, rate) = (lambda.at(t), schedule.rate(self.state.iteration));
            let pass = Pass { batch: &batch, lambda, teacher: self.teacher.as_ref(), stop };
            let Some(totals) = self.model.gradients(pass)? else { break };
            let length = self.model.gradient_length();
            let samples = totals.samples as f64;
            let illness =
                self.state.health.examine(totals.class_loss / samples, totals.teacher_loss / samples, length);
            if let Some(illness) = illness {
                return Err(self.give_up(illness, t));
            }
            self.model.update(&mut self.optimiser, rate, t, length);
            self.state.iteration = t;
            self.state.seconds += start.elapsed().as_secs_f64();
            self.state.window.add(&totals);
            images += totals.samples;
            let elapsed = since.elapsed().as_secs_f64().max(1e-9);
            let line = self.line(lambda, rate, images as f64 / elapsed, waited / elapsed);
            observe(Event::Iteration(&line));
            if t.is_multiple_of(run.log_every) || t == total {
                self.log(line)?;
                (since, waited, images) = (Instant::now(), 0.0, 0);
            }
            if self.validation.is_some() && (t.is_multiple_of(run.validate_every) || t == total) {
                match self.validate(stop)? {
                    Some(validated) => {
                        observe(Event::Validated(&validated));
                        self.metrics.add(Line::Validation(validated))?;
                    }
                    None => break,
                }
                (since, waited, images) = (Instant::now(), 0.0, 0);
            }
            if t.is_multiple_of(run.checkpoint_every) && self.state.health.is_good() {
                self.save()?;
                observe(Event::Saved);
            }
        }
        Ok(())
    }

    /// The means since the last line.
    fn line(&self, lambda: f64, rate: f64, images_per_s: f64, waiting: f64) -> Training {
        let [class_loss, teacher_loss, angle_deg, accuracy] = self.state.window.means();
        Training {
            iteration: self.state.iteration,
            loss: self.config.loss.weight * class_loss + teacher_loss,
            class_loss,
            teacher_loss,
            angle_deg,
            accuracy,
            lambda: if self.config.loss.kind == LossKind::ASoftmax && self.model.has_classes() {
                lambda
            } else {
                0.0
            },
            rate,
            images_per_s,
            waiting,
        }
    }

    fn log(&mut self, line: Training) -> Result<(), TrainError> {
        let stuck_after = self.config.run.stuck_after;
        let cross_entropy = self.model.has_cross_entropy();
        let late = stuck_after > 0 && line.iteration >= stuck_after;
        let (iteration, loss) = (line.iteration, line.class_loss);
        self.metrics.add(Line::Training(line))?;
        self.state.window = Default::default();
        if cross_entropy {
            let illness = self.state.health.examine_course(loss, self.dataset.classes.len(), late);
            if let Some(illness) = illness {
                return Err(self.give_up(illness, iteration));
            }
        }
        Ok(())
    }

    fn give_up(&self, illness: Divergence, iteration: u64) -> TrainError {
        let kept = match self.saved {
            Some(saved) => format!("the checkpoint of iteration {saved} is kept"),
            None => "there is no earlier checkpoint".into(),
        };
        TrainError::Diverged { cause: illness.cause(), iteration, kept, advice: illness.advice() }
    }

    fn validate(&self, stop: &AtomicBool) -> Result<Option<Validated>, TrainError> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let weights = self.model.weights(&self.config, BTreeMap::new());
        let result = validation.run(weights, &self.device, self.config.run.threads, stop)?;
        Ok(result.map(|result| Validated {
            iteration: self.state.iteration,
            validation_accuracy: result.accuracy,
            standard_error: result.standard_error,
            pairs: result.same + result.different,
        }))
    }

    fn save(&mut self) -> Result<(), TrainError> {
        checkpoint::save(&self.output, &self.state, &self.config, &self.model.parameters, &self.optimiser)?;
        self.saved = Some(self.state.iteration);
        self.plot()
    }

    fn plot(&self) -> Result<(), TrainError> {
        let path = self.output.join(CURVES_NAME);
        let loss = &self.config.loss;
        let kind = if loss.weight > 0.0 { format!("{:?}", loss.kind) } else { "teacher alone".into() };
        let title = format!("{}, {kind}, {} images", self.config.architecture()?, self.dataset.items.len());
        let svg = plot::curves(&title, &self.metrics.lines);
        file::write(&path, svg.as_bytes()).map_err(|error| save_error(&path, error.to_string()))
    }

    /// Writes curves and weights.
    fn finish(self) -> Result<Outcome, TrainError> {
        self.plot()?;
        let last = self.metrics.lines.iter().rev().find_map(|line| match line {
            Line::Training(line) => Some(line.clone()),
            Line::Validation(_) => None,
        });
        let validated = self.metrics.lines.iter().rev().find_map(|line| match line {
            Line::Validation(line) => Some(line.clone()),
            Line::Training(_) => None,
        });
        let path = self.output.join(MODEL_NAME);
        let weights = self.model.weights(&self.config, self.description(validated.as_ref()));
        weights.save(&path, Precision::F32).map_err(|error| save_error(&path, error.to_string()))?;
        let iteration = self.state.iteration;
        let finished = iteration >= self.config.schedule.iterations;
        Ok(Outcome { finished, iteration, last, validated, model: path })
    }

    /// Metadata about the training.
    fn description(&self, validated: Option<&Validated>) -> BTreeMap<String, String> {
        let Config { loss, teacher, optimiser, data, network, .. } = &self.config;
        let mut text = format!(
            "{} iterations of {} images, {:?} at a rate of {}, {:.1} hours",
            self.state.iteration,
            data.batch,
            optimiser.kind,
            optimiser.rate,
            self.state.seconds / 3600.0
        );
        if let (true, Ok(loss)) = (loss.weight > 0.0, self.config.loss()) {
            text += &format!(", loss {loss:?}");
        }
        if teacher.embeddings.is_some() && teacher.weight > 0.0 {
            text += ", distilled from a teacher's embeddings";
        }
        if network.init.is_some() {
            text += ", starting from trained weights";
        }
        let mut map = BTreeMap::from([
            ("training".to_owned(), text),
            (
                "training_data".to_owned(),
                format!("{} images of {} identities", self.dataset.items.len(), self.dataset.classes.len()),
            ),
        ]);
        if let Some(validated) = validated {
            let accuracy = 100.0 * validated.validation_accuracy;
            map.insert("validation".into(), format!("{accuracy:.2} % of {} pairs right", validated.pairs));
        }
        map
    }
}
/// A file in the folder of results that a new run would replace, and that is not left over from one that ended before its
/// first checkpoint.
fn replaced(output: &Path) -> Option<PathBuf> {
    let config = output.join(CONFIG_NAME);
    let is_ours = std::fs::read_to_string(&config).is_ok_and(|text| {
        let read =
            Layers::default().over(&text, CONFIG_NAME).and_then(|layers| layers.finish(&Flags::default()));
        read.is_ok_and(|config| config.to_toml() == text)
    });
    let left_over: &[&str] = if is_ours { &[CONFIG_NAME, METRICS_NAME, CURVES_NAME] } else { &[] };
    let all = [MODEL_NAME, CONFIG_NAME, METRICS_NAME, CURVES_NAME];
    all.iter()
        .filter(|name| !left_over.contains(name))
        .map(|name| output.join(name))
        .find(|path| path.exists())
}
