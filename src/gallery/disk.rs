//! Writing a gallery: atomically, one writer at a time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::GalleryError;
use crate::file;

/// Names in the gallery folder that begin with a dot are the gallery's own.
const LOCK: &str = ".lock";
/// A new person under construction.
pub(super) const STAGED: &str = ".new";
/// Prefix of a removed person that is being deleted.
pub(super) const REMOVED: &str = ".removed";

/// The write lock; released on drop, or by the system when the program dies.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits for other writers, then removes the leftovers of a crashed one.
    pub(super) fn take(root: &Path) -> Result<Self, GalleryError> {
        let path = root.join(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| write_error(&path, error))?;
        match file.lock() {
            // A file system without locks: the user must ensure a single writer.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                return Err(write_error(&path, error));
            }
            _ => {}
        }
        for leftover in [STAGED, REMOVED] {
            remove_folder(&root.join(leftover))?;
        }
        Ok(Self { _file: file })
    }
}

/// Writes `bytes` so that `path` holds either its old content or all of the new, even when
/// the power goes.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), GalleryError> {
    replace(path, |file| file.write_all(bytes)).map_err(|error| write_error(path, error))
}

/// The same with the bytes that `content` writes.
pub(super) fn replace(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    file::write_with(path, content)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames and new names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Creates a folder and its parents.
pub(super) fn create_folder(path: &Path) -> Result<(), GalleryError> {
    fs::create_dir_all(path).map_err(|error| write_error(path, error))
}

/// Renames a folder, durably.
pub(super) fn rename_folder(from: &Path, to: &Path) -> Result<(), GalleryError> {
    fs::rename(from, to)
        .and_then(|()| to.parent().map_or(Ok(()), sync_folder))
        .map_err(|error| write_error(to, error))
}

/// Deletes a folder with its content. A missing folder is not an error.
pub(super) fn remove_folder(path: &Path) -> Result<(), GalleryError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, error)),
        _ => Ok(()),
    }
}

/// Reads a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, GalleryError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(path, error)),
    }
}

/// Names in a folder, sorted; empty when the folder does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, GalleryError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| read_error(folder, error))?.file_name();
        // Names that are not Unicode are not ours.
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

pub(super) fn read_error(path: &Path, source: io::Error) -> GalleryError {
    GalleryError::Read { path: path.to_owned(), source }
}

pub(super) fn write_error(path: &Path, source: io::Error) -> GalleryError {
    GalleryError::Write { path: PathBuf::from(path), source }
}
