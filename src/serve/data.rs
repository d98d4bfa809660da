//! The data folder, which belongs to one service at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::ServeError;
use super::store::StoreError;

/// Name of the file in the folder that is locked.
const LOCK: &str = "lock";

/// A data folder that no other service can take until this is dropped, or the process ends in whatever way.
///
/// A second service would resume the jobs of the first one as if it had crashed, and send its events twice.
pub(super) struct DataFolder {
    _lock: File,
}

impl DataFolder {
    /// Takes a folder, which is created if it is missing.
    ///
    /// # Errors
    /// [`ServeError::InUse`] when another service has it, and when it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, ServeError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join(LOCK);
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let lock = opened.map_err(|source| StoreError::Folder { path, source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ServeError::InUse(folder.to_owned())),
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) => tracing::warn!(
                "the data folder {} cannot be locked, so nothing prevents a second service from using it: {error}",
                folder.display()
            ),
        }
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_by_one_at_a_time_by_whatever_path() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("not/there/yet");
        let first = DataFolder::take(&folder).unwrap();
        for path in [folder.clone(), place.path().join("not/../not/there/./yet")] {
            let refused = DataFolder::take(&path).err().unwrap().to_string();
            assert!(refused.contains("yet is in use by another sphereface serve"), "{refused}");
        }
        DataFolder::take(&place.path().join("other")).unwrap();
        drop(first);
        DataFolder::take(&folder).unwrap();
    }
}
