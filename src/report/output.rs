//! Where results go: a file that appears under its name only when it is complete, or a stream.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::ReportError;

/// A file under construction, or any writer.
pub struct Output {
    place: Place,
    target: String,
}

enum Place {
    File { file: BufWriter<NamedTempFile>, path: PathBuf },
    Stream(Box<dyn Write + Send>),
}

impl Output {
    /// A file at `path`, written under a temporary name in the same folder until
    /// [`Output::finish`]; an earlier file of that name stays until then.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        let error = |source| ReportError::Create { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(error(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
        }
        let name = path.file_name().ok_or_else(|| error(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}.", name.to_string_lossy());
        builder.prefix(&prefix).suffix(".part");
        // As any new file, and as the umask allows: temporary files are private otherwise.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = BufWriter::new(builder.tempfile_in(folder).map_err(error)?);
        Ok(Self { place: Place::File { file, path: path.to_owned() }, target: path.display().to_string() })
    }

    /// Any writer, for example standard output; `target` names it in errors. Nothing is held
    /// back, so that a reader of a pipe can keep up with live input.
    pub fn stream(writer: impl Write + Send + 'static, target: &str) -> Self {
        Self { place: Place::Stream(Box::new(writer)), target: target.to_owned() }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the disk is full or the reader of a pipe is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ReportError> {
        let written = match &mut self.place {
            Place::File { file, .. } => file.write_all(bytes),
            Place::Stream(writer) => writer.write_all(bytes),
        };
        written.map_err(|source| ReportError::Write { target: self.target.clone(), source })
    }

    /// Completes the output; a file is now on disk under its name.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name.
    pub fn finish(self) -> Result<(), ReportError> {
        let target = self.target;
        let finished = match self.place {
            Place::File { file, path } => {
                file.into_inner().map_err(|error| error.into_error()).and_then(|file| {
                    file.as_file().sync_all()?;
                    file.persist(path).map_err(|error| error.error)?;
                    Ok(())
                })
            }
            Place::Stream(mut writer) => writer.flush(),
        };
        finished.map_err(|source| ReportError::Write { target, source })
    }

    /// Writes the whole content of a file at once.
    ///
    /// # Errors
    /// As [`Output::create`], [`Output::write`] and [`Output::finish`].
    pub fn save(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
        let mut output = Self::create(path)?;
        output.write(bytes)?;
        output.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_nothing_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.jsonl");
        std::fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path).unwrap();
        output.write(b"new").unwrap();
        drop(output);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        Output::save(&path, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("none/faces.jsonl"), folder.path().to_owned()] {
            let error = Output::create(&path).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
