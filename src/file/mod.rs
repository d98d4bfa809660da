//! Atomic writing of files, and reading of text files in any encoding.
//!
//! A plain file is written under a temporary name in its own folder and renamed when it is complete, so that
//! a failure leaves an earlier file untouched. Symbolic links are followed and kept. A file that is replaced
//! keeps its permissions (and its owner, where the system allows that); a new one gets those that the umask
//! leaves. Devices, FIFOs and the program's own descriptors (`/dev/stdout`, `/dev/fd/3`) are written through
//! and never replaced.
//!
//! Other hard links to a replaced file keep the old content.

mod place;
mod text;

pub use text::{counted, escaped, percent_encoded, read_text};

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use place::Place;
use tempfile::NamedTempFile;

/// A file under construction. If it is dropped before [`PendingFile::publish`], an earlier plain file is
/// unchanged.
#[derive(Debug)]
pub struct PendingFile {
    under: Under,
}

/// The file that is written until it is published.
#[derive(Debug)]
enum Under {
    /// A temporary file beside the plain file it becomes.
    Beside { file: NamedTempFile, target: PathBuf },
    /// A file that is not plain, written directly.
    Through(File),
    /// A temporary file elsewhere, whose content is copied at the end to a file that is not plain.
    Apart { file: NamedTempFile, target: Place },
}

impl PendingFile {
    /// Begins the file at `path`. A file that is not plain is opened and written directly. For a FIFO, this
    /// waits until it has a reader.
    ///
    /// # Errors
    /// When `path` is a folder or cannot be written, or no file can be created in its folder.
    pub fn create(path: &Path) -> io::Result<Self> {
        let under = match Place::of(path)? {
            Place::Plain(target) => beside(target)?,
            special => Under::Through(special.open()?),
        };
        Ok(Self { under })
    }

    /// The same for a writer that seeks in the file: the content of a file that is not plain is kept in the
    /// system's folder for temporary files until it is complete.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_seekable(path: &Path) -> io::Result<Self> {
        let under = match Place::of(path)? {
            Place::Plain(target) => beside(target)?,
            target => Under::Apart { file: NamedTempFile::new()?, target },
        };
        Ok(Self { under })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        match &mut self.under {
            Under::Beside { file, .. } | Under::Apart { file, .. } => file.as_file_mut(),
            Under::Through(file) => file,
        }
    }

    /// The path of a seekable file until it is published; `None` for one that is written directly.
    pub fn temporary_path(&self) -> Option<&Path> {
        match &self.under {
            Under::Beside { file, .. } | Under::Apart { file, .. } => Some(file.path()),
            Under::Through(_) => None,
        }
    }

    /// Completes the file: a plain one is on disk under its name when this returns.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name; a plain file that was
    /// there is then untouched.
    pub fn publish(self) -> io::Result<()> {
        match self.under {
            Under::Beside { file, target } => {
                keep_permissions(file.as_file(), &target)?;
                file.as_file().sync_all()?;
                file.persist(&target).map_err(|error| error.error)?;
                Ok(())
            }
            Under::Through(mut file) => file.flush(),
            Under::Apart { mut file, target } => {
                file.seek(SeekFrom::Start(0))?;
                let mut through = target.open()?;
                io::copy(file.as_file_mut(), &mut through)?;
                through.flush()
            }
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Writes `bytes` as the whole content of a file.
///
/// # Errors
/// As for [`PendingFile::create`] and [`PendingFile::publish`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes the bytes that `content` writes as the whole content of a file.
///
/// # Errors
/// Errors of `content`; otherwise as for [`write()`].
pub fn write_with(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut pending = PendingFile::create(path)?;
    content(pending.file())?;
    pending.publish()
}

/// Whether a file can be written at `path`, as far as that can be checked without writing it.
///
/// # Errors
/// As for [`PendingFile::create`].
pub fn check(path: &Path) -> io::Result<()> {
    match Place::of(path)? {
        Place::Plain(target) => beside(target).map(drop),
        _ => Ok(()),
    }
}

/// Whether two paths lead to the same file. Files that do not exist yet are compared by their folders. The
/// null device is never the same file.
pub fn is_same(a: &Path, b: &Path) -> bool {
    match (Place::of(a), Place::of(b)) {
        (Ok(a), Ok(b)) => a.is_same(&b),
        _ => false,
    }
}

/// Whether a path leads to the program's standard output, like `/dev/stdout`.
pub fn is_standard_output(path: &Path) -> bool {
    matches!(Place::of(path), Ok(Place::Descriptor(1)))
}

/// Whether a path leads to an existing file that is not plain, like a FIFO.
pub fn is_special(path: &Path) -> bool {
    matches!(Place::of(path), Ok(Place::Descriptor(_) | Place::Special(_)))
}

/// Whether a file's name is that of a file under construction, as a killed program leaves.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// Extension of a file under construction.
const SUFFIX: &str = ".part";

/// Longest part of a file's name that its temporary name repeats, in bytes: file systems allow 255 in all.
const MOST_OF_NAME: usize = 120;

/// A temporary file in the folder of the plain file that it becomes.
fn beside(target: PathBuf) -> io::Result<Under> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let end = (0..=name.len().min(MOST_OF_NAME)).rev().find(|&end| name.is_char_boundary(end));
    let name = &name[..end.unwrap_or(0)];
    let folder = folder_of(&target);
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".{name}.");
    builder.prefix(&prefix).suffix(SUFFIX);
    // Temporary files are private to their owner, outputs have the permissions of new files. The replacement
    // of a file is never accessible to more users than the file was.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = existing(&target)?.map_or(0o666, |metadata| metadata.permissions().mode() & 0o777);
        builder.permissions(std::fs::Permissions::from_mode(mode | 0o200));
    }
    #[cfg(not(unix))]
    existing(&target)?;
    Ok(Under::Beside { file: builder.tempfile_in(folder)?, target })
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The metadata of the file that is to be replaced, if there is one.
///
/// # Errors
/// When it must not be written: a protected file is protected on purpose.
fn existing(target: &Path) -> io::Result<Option<std::fs::Metadata>> {
    match File::options().write(true).open(target) {
        Ok(file) => file.metadata().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A running program cannot be written to, but it can be replaced.
        Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => target.metadata().map(Some),
        Err(error) => Err(error),
    }
}

/// Gives a new file the permissions, and where possible the owner, of the one it replaces.
fn keep_permissions(file: &File, target: &Path) -> io::Result<()> {
    let Ok(metadata) = target.metadata() else { return Ok(()) };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
            // Only the administrator may give files away.
            let _ = fchown(file, Some(metadata.uid()), Some(metadata.gid()));
        }
    }
    // Some file systems have no permissions and refuse to set any; then there is nothing to keep.
    match file.set_permissions(metadata.permissions()) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// An unnamed file of these bytes, for readers that take files.
///
/// # Panics
/// When the system has no room for it.
#[allow(clippy::unwrap_used)]
#[cfg(any(fuzzing, test))]
pub(crate) fn unnamed(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    Write::write_all(&mut file, bytes).unwrap();
    file
}

#[cfg(test)]
mod tests;
