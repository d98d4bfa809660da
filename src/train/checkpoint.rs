//! Checkpoints: everything a run needs to continue as if it had never stopped.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::config::{Config, Flags, Layers};
use super::metrics::{DivergenceMonitor, Window, save_error};
use super::optimiser::Optimiser;
use super::parameters::Parameter;
use crate::models::{Precision, Tensor, Weights, WeightsError};

/// Name of the file in the output folder.
pub const FILE_NAME: &str = "checkpoint.safetensors";

/// State of a run except tensors and settings. The order of the images and all random numbers follow from the
/// seeds and the iteration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Iterations done; lambda, the learning rate and the position in the epoch depend on it.
    pub iteration: u64,
    /// Identifies images and classes.
    pub dataset: String,
    /// Seed of the order and augmentation of samples; absent if it is the run's.
    #[serde(default)]
    pub sample_seed: Option<u64>,
    /// Sums for the next line of metrics.
    pub window: Window,
    /// State of the detection of divergence.
    pub health: DivergenceMonitor,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// A checkpoint as read.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Counters.
    pub state: State,
    /// The settings of the run.
    pub config: Config,
    weights: Weights,
}

/// Metadata keys.
const STATE: &str = "training_state";
const CONFIG: &str = "training_config";

/// Names of an optimiser's state tensors, by parameter.
fn memory_names(parameter: &str) -> [String; 2] {
    [format!("optimiser.first.{parameter}"), format!("optimiser.second.{parameter}")]
}

/// Writes a checkpoint into the folder, replacing the previous one atomically.
///
/// # Errors
/// When it cannot be written; the previous one is kept.
pub fn save(
    folder: &Path,
    state: &State,
    config: &Config,
    parameters: &[Parameter],
    optimiser: &Optimiser,
) -> Result<(), TrainError> {
    let path = folder.join(FILE_NAME);
    let mut weights = Weights::default();
    let json = serde_json::to_string(state).map_err(|error| save_error(&path, error.to_string()))?;
    weights.metadata.insert(STATE.into(), json);
    weights.metadata.insert(CONFIG.into(), config.to_toml());
    for (parameter, memory) in parameters.iter().zip(&optimiser.memory) {
        let Parameter { name, shape, value, .. } = parameter;
        let tensor = |data: &Vec<f32>| Tensor { shape: shape.clone(), data: data.clone() };
        weights.tensors.insert(name.clone(), tensor(value));
        for (name, data) in memory_names(name).into_iter().zip(memory) {
            if !data.is_empty() {
                weights.tensors.insert(name, tensor(data));
            }
        }
    }
    weights.save(&path, Precision::F32).map_err(|error| match error {
        WeightsError::Write { source, .. } => save_error(&path, source.to_string()),
        other => save_error(&path, other.to_string()),
    })
}

impl Checkpoint {
    /// Reads the checkpoint in the folder.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn load(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(FILE_NAME);
        if !path.exists() {
            return Err(TrainError::NoCheckpoint { folder: folder.to_owned() });
        }
        let mut weights = Weights::load(&path)?;
        let error = |cause: &str| TrainError::Checkpoint { path: path.clone(), cause: cause.into() };
        let no_state = || error("it is not a checkpoint of a training run");
        let state = weights.metadata.remove(STATE).ok_or_else(no_state)?;
        let state = serde_json::from_str(&state).map_err(|_| no_state())?;
        let config = weights.metadata.remove(CONFIG).ok_or_else(no_state)?;
        let config = Layers::default().over(&config, &path.display().to_string())?;
        let config = config.finish(&Flags::default())?;
        Ok(Self { path, state, config, weights })
    }

    /// Whether a run with `config` on the data set `dataset` can continue from here.
    ///
    /// # Errors
    /// When network, order of the samples or data differ. Names the difference.
    pub fn check(&self, config: &Config, dataset: &str) -> Result<(), TrainError> {
        let error = |cause: String| Err(TrainError::Checkpoint { path: self.path.clone(), cause });
        let (was, is) = (self.config.architecture()?, config.architecture()?);
        if was != is {
            let name = |a: &crate::embed::Architecture| format!("{a} with {} values", a.embedding);
            return error(format!(
                "its network is {} but the run's is {}: use the network of the checkpoint, or another --output",
                name(&was),
                name(&is)
            ));
        }
        let (was, is) = (&self.config.network.channel_order, &config.network.channel_order);
        if was != is {
            return error(format!("its channel order is {was}, but the run's is {is}"));
        }
        let (was, is) = (self.config.data.batch, config.data.batch);
        if was != is {
            return error(format!("its batch size is {was}, but the run's is {is}"));
        }
        let (was, is) = (self.config.run.seed, config.run.seed);
        if was != is {
            return error(format!("its seed is {was}, but the run's is {is}"));
        }
        if self.state.dataset != dataset {
            return error(
                "the data set has changed (other images, identities or exclusions): restore it, or start another --output with --init".into(),
            );
        }
        Ok(())
    }

    /// Restores parameters and optimiser.
    ///
    /// # Errors
    /// When they belong to another loss, teacher or optimiser.
    pub fn restore(
        self,
        parameters: &mut [Parameter],
        optimiser: &mut Optimiser,
    ) -> Result<State, TrainError> {
        let Self { path, state, weights, .. } = self;
        let values = |name: &str, shape: &[usize]| {
            weights.tensor(name, shape).map_err(|error| TrainError::Checkpoint {
                path: path.clone(),
                cause: format!("{error}; loss, teacher and optimiser must be those of the checkpoint"),
            })
        };
        for (parameter, memory) in parameters.iter_mut().zip(&mut optimiser.memory) {
            let Parameter { name, shape, value, .. } = parameter;
            value.copy_from_slice(values(name, shape)?);
            for (name, data) in memory_names(name).into_iter().zip(memory) {
                if !data.is_empty() {
                    data.copy_from_slice(values(&name, shape)?);
                }
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::OptimiserConfig;

    fn config(text: &str) -> Config {
        Layers::default().over(text, "x").unwrap().finish(&Flags::default()).unwrap()
    }

    fn saved(folder: &Path) -> (State, Vec<Parameter>, Optimiser) {
        let parameters = vec![Parameter::xavier("a", vec![2, 3], 1), Parameter::filled("b", vec![4], 0.5)];
        let mut optimiser = Optimiser::new(OptimiserConfig::default(), &parameters);
        optimiser.memory[1][0][2] = 0.1;
        let state = State { iteration: 7, dataset: "d".into(), seconds: 0.3, ..State::default() };
        save(folder, &state, &config("[network]\ndepth = 4\n"), &parameters, &optimiser).unwrap();
        (state, parameters, optimiser)
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(folder.path()).unwrap_err().to_string().contains("holds no checkpoint"));
        let (state, parameters, optimiser) = saved(folder.path());
        let mut found = vec![Parameter::filled("a", vec![2, 3], 0.0), Parameter::filled("b", vec![4], 0.0)];
        let mut memory = Optimiser::new(OptimiserConfig::default(), &found);
        let checkpoint = Checkpoint::load(folder.path()).unwrap();
        assert_eq!(checkpoint.restore(&mut found, &mut memory).unwrap(), state);
        assert_eq!(found, parameters);
        assert_eq!(memory.memory, optimiser.memory);
    }

    #[test]
    fn a_checkpoint_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path());
        let checkpoint = Checkpoint::load(folder.path()).unwrap();
        let refusal =
            |text: &str, dataset: &str| checkpoint.check(&config(text), dataset).unwrap_err().to_string();
        assert!(checkpoint.check(&config("[network]\ndepth = 4\n[optimiser]\nrate = 0.01\n"), "d").is_ok());
        assert!(
            refusal("", "d")
                .contains("its network is sphereface4 with 512 values but the run's is sphereface20")
        );
        assert!(refusal("[network]\ndepth = 4\n[data]\nbatch = 2\n", "d").contains("batch size"));
        assert!(refusal("[network]\ndepth = 4\n[run]\nseed = 2\n", "d").contains("seed"));
        assert!(refusal("[network]\ndepth = 4\n", "e").contains("data set has changed"));
        let mut other = vec![Parameter::filled("c", vec![1], 0.0)];
        let mut memory = Optimiser::new(OptimiserConfig::default(), &other);
        assert!(checkpoint.restore(&mut other, &mut memory).unwrap_err().to_string().contains("tensor c"));
    }

    #[test]
    fn damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        saved(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(Checkpoint::load(folder.path()).unwrap_err().to_string().contains(FILE_NAME));
        Weights::default().save(&path, Precision::F32).unwrap();
        assert!(
            Checkpoint::load(folder.path())
                .unwrap_err()
                .to_string()
                .contains("not a checkpoint of a training run")
        );
    }
}
