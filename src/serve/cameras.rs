//! All sources, which can be added, changed and removed while they run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::camera::{Camera, Common, SourceState, Tile};
use super::config::{ConfigError, Settings, SourceConfig, SourceSettings};
use super::galleries::Galleries;
use super::lock;
use super::store::{Store, StoreError};
use crate::detect::{Detector, DetectorConfig};
use crate::engine::EngineError;
use crate::identify::ThresholdRequest;
use crate::models::MTCNN;
use crate::nn::Device;
use tokio::sync::watch;

/// The sources.
pub(super) struct Cameras {
    common: Arc<Common>,
    galleries: Arc<Galleries>,
    device: Device,
    running: Mutex<BTreeMap<String, Camera>>,
    /// One change of sources at a time.
    editing: Mutex<()>,
}

impl Cameras {
    pub fn new(common: Common, galleries: Arc<Galleries>, device: Device) -> Self {
        let common = Arc::new(common);
        Self { common, galleries, device, running: Mutex::default(), editing: Mutex::default() }
    }

    /// Makes these the running sources. Unchanged ones continue; the others are started, changed or stopped.
    ///
    /// # Errors
    /// The first gallery or detector that cannot be used. The sources before it run.
    pub fn set_all(&self, wanted: &[SourceSettings]) -> Result<(), EngineError> {
        let names: Vec<&str> = wanted.iter().map(|one| one.config.name.as_str()).collect();
        let running: Vec<String> = lock(&self.running).keys().cloned().collect();
        for name in running.iter().filter(|name| !names.contains(&name.as_str())) {
            self.remove(name);
        }
        wanted.iter().try_for_each(|one| self.set(one))
    }

    /// Adds a source, or changes the one of its name.
    ///
    /// # Errors
    /// When its gallery or its detector cannot be used. The previous source then continues.
    pub fn set(&self, settings: &SourceSettings) -> Result<(), EngineError> {
        let _alone = lock(&self.editing);
        let name = &settings.config.name;
        if lock(&self.running).get(name).is_some_and(|camera| camera.settings == *settings) {
            return Ok(());
        }
        let gallery = self.galleries.get(&settings.gallery, settings.threshold)?;
        let common = self.common_for(settings)?;
        let before = lock(&self.running).remove(name);
        before.into_iter().for_each(Camera::join);
        let camera = Camera::start(settings.clone(), gallery, &common);
        lock(&self.running).insert(name.clone(), camera);
        Ok(())
    }

    /// The state that a source shares with the others: all of it, unless it has its own size of faces.
    fn common_for(&self, settings: &SourceSettings) -> Result<Arc<Common>, EngineError> {
        let engine = &self.common.engine;
        let config = DetectorConfig { min_face: settings.min_face, ..*engine.detector().config() };
        if config == *engine.detector().config() {
            return Ok(Arc::clone(&self.common));
        }
        let detector = Detector::on(&MTCNN.weights()?, config, &self.device)?;
        let (turns, store) = (Arc::clone(&self.common.turns), Arc::clone(&self.common.store));
        Ok(Arc::new(Common { engine: engine.with_detector(detector), turns, store }))
    }

    /// Stops a source. Returns whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let _alone = lock(&self.editing);
        let camera = lock(&self.running).remove(name);
        camera.map(Camera::join).is_some()
    }

    /// Stops all sources.
    pub fn remove_all(&self) {
        let all = std::mem::take(&mut *lock(&self.running));
        all.values().for_each(Camera::stop);
        all.into_values().for_each(Camera::join);
    }

    /// All sources with their settings and states.
    pub fn states(&self) -> Vec<(SourceConfig, SourceState)> {
        lock(&self.running).values().map(|one| (one.settings.config.clone(), one.state())).collect()
    }

    /// One of them.
    pub fn state(&self, name: &str) -> Option<(SourceConfig, SourceState)> {
        lock(&self.running).get(name).map(|one| (one.settings.config.clone(), one.state()))
    }

    /// The labelled pictures of a source.
    pub fn tiles(&self, name: &str) -> Option<watch::Receiver<Option<Arc<Tile>>>> {
        lock(&self.running).get(name).map(Camera::tiles)
    }

    /// Names of the sources.
    pub fn names(&self) -> Vec<String> {
        lock(&self.running).keys().cloned().collect()
    }

    /// Sets the threshold of the sources without their own one, from the next frame on. No source is
    /// reopened.
    ///
    /// # Errors
    /// When a gallery cannot be read.
    pub fn set_threshold(&self, threshold: ThresholdRequest) -> Result<(), EngineError> {
        let _alone = lock(&self.editing);
        for camera in lock(&self.running).values_mut() {
            if camera.settings.config.threshold_deg.is_none() {
                camera.settings.threshold = threshold;
                camera.set_gallery(self.galleries.get(&camera.settings.gallery, threshold)?);
            }
        }
        Ok(())
    }

    /// Gives the sources of a folder, or all sources, the newest snapshot of their gallery.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn renew_galleries(&self, folder: Option<&Path>) -> Result<(), EngineError> {
        for camera in lock(&self.running).values() {
            if folder.is_none_or(|folder| camera.settings.gallery == folder) {
                camera.set_gallery(self.galleries.get(&camera.settings.gallery, camera.settings.threshold)?);
            }
        }
        Ok(())
    }
}

/// The sources of a configuration, with their later changes by the API. The input of a source is always that
/// of the configuration, if it has the source.
///
/// # Errors
/// When the store fails. Stored sources that are no longer valid or allowed are omitted.
pub(super) fn wanted(settings: &Settings, store: &Store) -> Result<Vec<SourceSettings>, StoreError> {
    let mut wanted: BTreeMap<String, SourceSettings> =
        settings.sources.iter().map(|one| (one.config.name.clone(), one.clone())).collect();
    for (name, kept) in store.sources()? {
        let configured = wanted.remove(&name);
        let Some(kept) = kept else { continue };
        match merged(settings, configured.as_ref(), &kept) {
            Ok(merged) => {
                wanted.insert(name, merged);
            }
            Err(error) => {
                tracing::warn!(source = name, "its settings in the store are ignored: {error}");
                wanted.extend(configured.map(|configured| (name, configured)));
            }
        }
    }
    Ok(wanted.into_values().collect())
}

/// A source of the store, with the input of the configuration if that has the source.
fn merged(
    settings: &Settings,
    configured: Option<&SourceSettings>,
    kept: &str,
) -> Result<SourceSettings, String> {
    let mut config: SourceConfig = serde_json::from_str(kept).map_err(|error| error.to_string())?;
    if let Some(SourceSettings { config: SourceConfig { input, gallery, .. }, .. }) = configured {
        (config.input, config.gallery) = (input.clone(), gallery.clone());
    }
    let checked: Result<_, ConfigError> = config.settings(&settings.config.gallery, settings.threshold);
    let checked = checked.map_err(|error| error.to_string())?;
    match configured.is_some() || settings.allowed.allows(&checked.input) {
        true => Ok(checked),
        false => Err("the configuration does not allow its input any more".to_owned()),
    }
}
