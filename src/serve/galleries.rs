//! Snapshots of the galleries that sources and requests use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lock;
use crate::engine::{Engine, EngineError, Gallery, GalleryOptions};
use crate::gallery::GalleryError;
use crate::identify::ThresholdRequest;

/// A folder and its threshold.
type Key = (PathBuf, Option<u64>);

/// The snapshots of all galleries that are in use.
pub(super) struct Galleries {
    engine: Engine,
    snapshots: Mutex<BTreeMap<Key, Option<Gallery>>>,
    /// Allows one change of a folder at a time.
    editing: Mutex<()>,
}

impl Galleries {
    pub fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone(), snapshots: Mutex::default(), editing: Mutex::default() }
    }

    /// The people of a folder; `None` if nobody is enrolled.
    ///
    /// # Errors
    /// When the folder cannot be read, or the threshold is invalid for the model.
    pub fn get(&self, folder: &Path, threshold: ThresholdRequest) -> Result<Option<Gallery>, EngineError> {
        let key = key(folder, threshold);
        if let Some(snapshot) = lock(&self.snapshots).get(&key) {
            return Ok(snapshot.clone());
        }
        let snapshot = self.open(folder, threshold)?;
        Ok(lock(&self.snapshots).entry(key).or_insert(snapshot).clone())
    }

    /// Reads the snapshots of a folder, or of all folders, again.
    ///
    /// # Errors
    /// The first error of a folder; its old snapshot is kept.
    pub fn renew(&self, folder: Option<&Path>) -> Result<(), EngineError> {
        let keys: Vec<Key> = lock(&self.snapshots).keys().cloned().collect();
        for key in keys.into_iter().filter(|key| folder.is_none_or(|folder| key.0 == folder)) {
            let threshold = key
                .1
                .map_or(ThresholdRequest::Default, |bits| ThresholdRequest::AngleDeg(f64::from_bits(bits)));
            let snapshot = self.open(&key.0, threshold)?;
            lock(&self.snapshots).insert(key, snapshot);
        }
        Ok(())
    }

    /// Changes a folder exclusively, then reads its snapshots again.
    ///
    /// # Errors
    /// Errors of `change` or of reading.
    pub fn edit<T, E: From<EngineError>>(
        &self,
        folder: &Path,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let _alone = lock(&self.editing);
        let changed = change()?;
        self.renew(Some(folder))?;
        Ok(changed)
    }

    fn open(&self, folder: &Path, threshold: ThresholdRequest) -> Result<Option<Gallery>, EngineError> {
        let options = GalleryOptions::default().threshold(threshold);
        match Gallery::open_with(&self.engine, folder, &options) {
            Ok(gallery) => Ok(Some(gallery)),
            Err(EngineError::NobodyEnrolled(_) | EngineError::Gallery(GalleryError::Missing(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn key(folder: &Path, threshold: ThresholdRequest) -> Key {
    let degrees = match threshold {
        ThresholdRequest::AngleDeg(degrees) => Some(degrees.to_bits()),
        _ => None,
    };
    (folder.to_owned(), degrees)
}
