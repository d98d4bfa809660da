//! Engines that elements of one process share.

use std::sync::{Mutex, PoisonError};

use sphereface::Engine;
use sphereface::detect::{DetectorConfig, MinFace};
use sphereface::engine::EngineError;
use sphereface::nn::ArithmeticChoice;

/// The settings that distinguish engines.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// Name of a built-in model or path of a file; `None` is the default model.
    pub model: Option<String>,
    /// The smallest face to look for.
    pub min_face: MinFace,
    /// The number format of the embedding network.
    pub precision: ArithmeticChoice,
    /// `None`: one per CPU.
    pub threads: Option<usize>,
}

/// One set per process: networks are large, and streams of one engine share batches.
static ENGINES: Mutex<Vec<(EngineSettings, Engine)>> = Mutex::new(Vec::new());

/// The engine for these settings.
pub fn engine(settings: &EngineSettings) -> Result<Engine, EngineError> {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, engine)) = engines.iter().find(|(known, _)| known == settings) {
        return Ok(engine.clone());
    }
    let detection = DetectorConfig { min_face: settings.min_face, ..DetectorConfig::default() };
    let mut builder = Engine::builder().detection(detection).precision(settings.precision);
    if let Some(model) = &settings.model {
        builder = builder.model(model.as_str());
    }
    if let Some(threads) = settings.threads {
        builder = builder.threads(threads);
    }
    let engine = builder.build()?;
    engines.push((settings.clone(), engine.clone()));
    Ok(engine)
}
