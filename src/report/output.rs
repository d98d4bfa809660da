//! The output of results: a file that appears under its name only when it is complete, or a stream.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::ReportError;
use crate::file::PendingFile;

/// A file under construction, or any writer.
pub struct Output {
    place: Destination,
    target: String,
}

enum Destination {
    File(BufWriter<PendingFile>),
    Stream(Box<dyn Write + Send>),
}

impl Output {
    /// A file at `path`, which appears there with [`Output::finish`]; an earlier file of that name is kept
    /// until then. See [`crate::file`].
    ///
    /// # Errors
    /// When no file can be created there.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        let file = PendingFile::create(path)
            .map_err(|source| ReportError::Create { path: path.to_owned(), source })?;
        Ok(Self { place: Destination::File(BufWriter::new(file)), target: path.display().to_string() })
    }

    /// Any writer, for example standard output; `target` names it in errors. Nothing is buffered, so that a
    /// reader of a pipe can keep up with live input.
    pub fn stream(writer: impl Write + Send + 'static, target: &str) -> Self {
        Self { place: Destination::Stream(Box::new(writer)), target: target.to_owned() }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the disk is full or the reader of a pipe is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ReportError> {
        let written = match &mut self.place {
            Destination::File(file) => file.write_all(bytes),
            Destination::Stream(writer) => writer.write_all(bytes),
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
            Destination::File(file) => {
                file.into_inner().map_err(io::IntoInnerError::into_error).and_then(PendingFile::publish)
            }
            Destination::Stream(mut writer) => writer.flush(),
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
