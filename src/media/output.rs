//! An output file under a temporary name in its own folder, renamed once it is complete.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::MediaError;

/// A file being written. Dropped before [`Pending::publish`], it is removed.
pub(super) struct Pending {
    file: NamedTempFile,
    path: PathBuf,
}

impl Pending {
    /// Creates `.NAME.RANDOM.part` beside `path`, which also proves that the folder can be
    /// written to.
    pub(super) fn create(path: &Path) -> Result<Self, MediaError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(MediaError::NoOutputFolder { path: path.to_owned(), folder: folder.to_owned() });
        }
        if path.is_dir() {
            return Err(MediaError::IsFolder(path.to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // Temporary files are private by default; this one becomes the user's own output.
        #[cfg(unix)]
        let permissions = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
        #[cfg(unix)]
        builder.permissions(permissions);
        match builder.tempfile_in(folder) {
            Ok(file) => Ok(Self { file, path: path.to_owned() }),
            Err(source) => Err(MediaError::OutputNotWritable { path: path.to_owned(), source }),
        }
    }

    /// The open file.
    pub(super) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The path it has until it is published.
    #[cfg(feature = "video")]
    pub(super) fn temporary_path(&self) -> &Path {
        self.file.path()
    }

    /// Flushes to disk and gives the file its name, replacing what had it.
    pub(super) fn publish(self) -> Result<(), MediaError> {
        let Self { file, path } = self;
        let failed = |source| MediaError::OutputNotWritable { path: path.clone(), source };
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
