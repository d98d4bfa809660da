//! An output file that appears under its name once it is complete.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::MediaError;
use crate::file::PendingFile;

/// A file being written. If it is dropped before [`Pending::publish`], it is removed.
pub(super) struct Pending {
    file: PendingFile,
    path: PathBuf,
}

impl Pending {
    /// Begins the file; see [`PendingFile::create_seekable`].
    pub(super) fn create(path: &Path) -> Result<Self, MediaError> {
        let file = refused(path, PendingFile::create_seekable)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Whether the file could be begun.
    #[cfg(feature = "video")]
    pub(super) fn check(path: &Path) -> Result<(), MediaError> {
        refused(path, crate::file::check)
    }

    /// The open file.
    pub(super) fn file(&mut self) -> &mut File {
        self.file.file()
    }

    /// The path it has until it is published.
    #[cfg(feature = "video")]
    pub(super) fn temporary_path(&self) -> &Path {
        self.file.temporary_path().unwrap_or(&self.path)
    }

    /// Flushes to disk and gives the file its name, replacing a file of that name.
    pub(super) fn publish(self) -> Result<(), MediaError> {
        let Self { file, path } = self;
        file.publish().map_err(|source| MediaError::OutputNotWritable { path, source })
    }
}

/// Distinguishes a folder of that name, or a missing parent folder, from other failures.
fn refused<T>(path: &Path, begin: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, MediaError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(MediaError::NoOutputFolder { path: path.to_owned(), folder: folder.to_owned() });
    }
    begin(path).map_err(|source| match source.kind() {
        io::ErrorKind::IsADirectory => MediaError::IsFolder(path.to_owned()),
        _ => MediaError::OutputNotWritable { path: path.to_owned(), source },
    })
}
