//! Snapshots of the galleries that sources and requests use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lock;
use crate::engine::{Engine, EngineError, Gallery, GalleryOptions};
use crate::gallery::{Fingerprint, GalleryError, GalleryFolder};
use crate::identify::ThresholdRequest;

/// A folder and its threshold.
type Key = (PathBuf, Option<u64>);

/// The snapshots of all galleries that are in use.
pub(super) struct Galleries {
    engine: Engine,
    snapshots: Mutex<BTreeMap<Key, Option<Gallery>>>,
    /// The state of each folder when it was last read, or when reading it last failed.
    read: Mutex<BTreeMap<PathBuf, Fingerprint>>,
    /// The state of each folder when [`Galleries::changed`] last looked.
    seen: Mutex<BTreeMap<PathBuf, Fingerprint>>,
    /// Allows one change of a folder at a time.
    editing: Mutex<()>,
}

impl Galleries {
    pub fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            snapshots: Mutex::default(),
            read: Mutex::default(),
            seen: Mutex::default(),
            editing: Mutex::default(),
        }
    }

    /// The people of a folder; `None` if nobody is enrolled. If the folder is missing, these are the people
    /// that were read from it before.
    ///
    /// # Errors
    /// When the folder cannot be read, or the threshold is invalid for the model.
    pub fn get(&self, folder: &Path, threshold: ThresholdRequest) -> Result<Option<Gallery>, EngineError> {
        let key = key(folder, threshold);
        if let Some(snapshot) = lock(&self.snapshots).get(&key) {
            return Ok(snapshot.clone());
        }
        let snapshot = match self.open(folder, threshold) {
            Err(EngineError::Gallery(GalleryError::Missing(_))) => {
                self.warn_of_missing(folder);
                self.read_before(folder)
            }
            opened => opened?,
        };
        Ok(lock(&self.snapshots).entry(key).or_insert(snapshot).clone())
    }

    /// Reads the snapshots of some folders again. Those of a folder that is missing are kept, because a disk
    /// that is not mounted, or a folder that is being replaced, does not mean that everybody is a stranger.
    ///
    /// # Errors
    /// The first error of a folder; its old snapshot is kept.
    pub fn renew(&self, which: impl Fn(&Path) -> bool) -> Result<(), EngineError> {
        let keys: Vec<Key> = lock(&self.snapshots).keys().cloned().collect();
        let mut missing = BTreeSet::new();
        for key in keys.into_iter().filter(|key| which(&key.0)) {
            let threshold = key
                .1
                .map_or(ThresholdRequest::Default, |bits| ThresholdRequest::AngleDeg(f64::from_bits(bits)));
            match self.open(&key.0, threshold) {
                Err(EngineError::Gallery(GalleryError::Missing(_))) => {
                    if missing.insert(key.0.clone()) {
                        self.warn_of_missing(&key.0);
                    }
                }
                opened => {
                    let snapshot = opened?;
                    lock(&self.snapshots).insert(key, snapshot);
                }
            }
        }
        Ok(())
    }

    /// The folders that another program changed since they were read, and that are unchanged since the last call:
    /// one that is being copied is not complete yet. Folders that are missing, or that cannot be listed, are not
    /// among them.
    pub fn changed(&self) -> Vec<PathBuf> {
        // A change of ours is not over before it is read.
        let _alone = lock(&self.editing);
        let folders: BTreeSet<PathBuf> = lock(&self.snapshots).keys().map(|key| key.0.clone()).collect();
        let states = folders.into_iter().filter_map(|folder| state(&folder).map(|state| (folder, state)));
        let now: BTreeMap<PathBuf, Fingerprint> = states.collect();
        let before = std::mem::replace(&mut *lock(&self.seen), now.clone());
        let read = lock(&self.read);
        let is_changed = |(folder, state): &(PathBuf, Fingerprint)| {
            read.get(folder) != Some(state) && before.get(folder) == Some(state)
        };
        now.into_iter().filter(is_changed).map(|(folder, _)| folder).collect()
    }

    /// Drops the snapshots of all other folders.
    pub fn keep(&self, which: impl Fn(&Path) -> bool) {
        lock(&self.snapshots).retain(|key, _| which(&key.0));
    }

    /// Whether a folder is missing from which people were read before, who are still named.
    pub fn is_lost(&self, folder: &Path) -> bool {
        !folder.is_dir() && self.read_before(folder).is_some()
    }

    /// The people that were read from a folder, with whatever threshold.
    fn read_before(&self, folder: &Path) -> Option<Gallery> {
        let snapshots = lock(&self.snapshots);
        snapshots.iter().filter(|(key, _)| key.0 == folder).find_map(|(_, snapshot)| snapshot.clone())
    }

    fn warn_of_missing(&self, folder: &Path) {
        let named = self.read_before(folder).is_some();
        let folder = folder.display();
        match named {
            true => tracing::warn!(
                "the gallery {folder} is missing: the people who were read from it before are still named"
            ),
            false => tracing::warn!(
                "the gallery {folder} does not exist: it will be created when the first person is enrolled"
            ),
        }
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
        self.renew(|one| one == folder)?;
        Ok(changed)
    }

    fn open(&self, folder: &Path, threshold: ThresholdRequest) -> Result<Option<Gallery>, EngineError> {
        let options = GalleryOptions::default().threshold(threshold);
        // Taken before the folder is read, so that a change meanwhile is seen.
        if let Some(state) = state(folder) {
            lock(&self.read).insert(folder.to_owned(), state);
        }
        match Gallery::open_with(&self.engine, folder, &options) {
            Ok(gallery) => Ok(Some(gallery)),
            Err(EngineError::NobodyEnrolled(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The state of a folder; `None` if it is missing or cannot be listed.
fn state(folder: &Path) -> Option<Fingerprint> {
    GalleryFolder::open(folder).ok()?.fingerprint().ok()
}

fn key(folder: &Path, threshold: ThresholdRequest) -> Key {
    let degrees = match threshold {
        ThresholdRequest::AngleDeg(degrees) => Some(degrees.to_bits()),
        _ => None,
    };
    (folder.to_owned(), degrees)
}
