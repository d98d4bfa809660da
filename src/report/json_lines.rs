//! Faces as JSON lines.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::{FaceRecord, Output, ReportError};

/// Writes [`FaceRecord`]s as JSON lines, to a file that appears under its name only when it
/// is complete, or to any writer.
pub struct JsonLines {
    output: Output,
}

impl JsonLines {
    /// A file at `path`, see [`Output::create`].
    ///
    /// # Errors
    /// When no file can be created there.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        Ok(Self { output: Output::create(path)? })
    }

    /// Lines that go to `output`.
    pub fn new(output: Output) -> Self {
        Self { output }
    }

    /// Any writer, see [`Output::stream`].
    pub fn stream(writer: impl Write + Send + 'static, target: &str) -> Self {
        Self { output: Output::stream(writer, target) }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// When the disk is full or the reader of a pipe is gone; when a number is not finite.
    pub fn write(&mut self, face: &FaceRecord<'_>) -> Result<(), ReportError> {
        face.check()?;
        self.output.write(&line(face))
    }

    /// Completes the output; a file is now on disk under its name.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name.
    pub fn finish(self) -> Result<(), ReportError> {
        self.output.finish()
    }
}

/// A record as one line of JSON.
pub(super) fn line(record: &impl Serialize) -> Vec<u8> {
    // Records have string keys and finite numbers only, so serialising does not fail.
    let mut line = serde_json::to_vec(record).expect("records are plain data");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::super::face::tests::face;
    use super::*;

    #[test]
    fn every_line_is_an_object_with_every_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.jsonl");
        let mut lines = JsonLines::create(&path).unwrap();
        lines.write(&face(0)).unwrap();
        lines.write(&face(1)).unwrap();
        assert!(!path.exists(), "nothing under the name before the end");
        lines.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1]["frame"], 1);
        assert_eq!(read[1]["pts_ns"], 40_000_000);
        assert_eq!(read[1]["box"], serde_json::json!([10.5, 20.0, 50.25, 70.0]));
        assert_eq!(read[1]["name"], "Zoë \"Z\"");
        assert!(read[1]["runner_up"].is_null());
        let names: Vec<_> = read[0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 20, "{names:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_refused_face_leaves_no_part_of_a_line() {
        #[derive(Clone, Default)]
        struct Memory(Arc<Mutex<Vec<u8>>>);
        impl Write for Memory {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let mut lines = JsonLines::stream(memory.clone(), "memory");
        let mut broken = face(3);
        broken.score = f32::NAN;
        assert!(matches!(lines.write(&broken), Err(ReportError::NotFinite { frame: 3 })));
        lines.write(&face(4)).unwrap();
        lines.finish().unwrap();
        assert_eq!(memory.0.lock().unwrap().iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
