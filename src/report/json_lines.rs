//! Faces as JSON lines.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::ReportError;
use crate::detect::Quality;

/// One face of one frame, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaceRecord<'a> {
    /// Index of the frame, from 0.
    pub frame: u64,
    /// Presentation time of the frame in seconds since the start.
    pub pts_s: f64,
    /// x1, y1, x2, y2 in pixels of the frame.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Left eye, right eye, nose, left and right mouth corner, as the viewer sees them: x, y
    /// in pixels of the frame.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's probability that it is a face.
    pub score: f32,
    /// Size, pose and sharpness of the face.
    pub quality: Quality,
    /// Number of the track, from 1 in the order of appearance; `null` on a still.
    pub track: Option<u32>,
    /// Number of a stranger, the same all through the video; `null` for somebody known and where
    /// no numbers are given.
    pub stranger: Option<u32>,
    /// Who it is; `null` when unknown.
    pub name: Option<&'a str>,
    /// Angle to the nearest person of the gallery in degrees, named or not; `null` when the
    /// gallery is empty.
    pub angle_deg: Option<f32>,
    /// The second nearest person.
    pub runner_up: Option<&'a str>,
    /// Angle to the second nearest person in degrees.
    pub runner_up_angle_deg: Option<f32>,
}

impl FaceRecord<'_> {
    fn is_finite(&self) -> bool {
        let numbers = self.bbox.iter().chain(self.landmarks.as_flattened());
        let Quality { size_px, yaw_deg, pitch_deg, roll_deg, sharpness } = self.quality;
        let others = [self.score, size_px, yaw_deg, pitch_deg, roll_deg, sharpness];
        let angles = self.angle_deg.iter().chain(&self.runner_up_angle_deg);
        self.pts_s.is_finite() && numbers.chain(&others).chain(angles).all(|x| x.is_finite())
    }
}

/// Writes [`FaceRecord`]s as JSON lines, to a file that appears under its name only when it
/// is complete, or to any writer.
pub struct JsonLines {
    output: Output,
    target: String,
}

enum Output {
    File { file: BufWriter<NamedTempFile>, path: PathBuf },
    Stream(Box<dyn Write + Send>),
}

impl JsonLines {
    /// A file at `path`, written under a temporary name in the same folder until
    /// [`JsonLines::finish`]; an earlier file of that name stays until then.
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
        Ok(Self { output: Output::File { file, path: path.to_owned() }, target: path.display().to_string() })
    }

    /// Any writer, for example standard output; `target` names it in errors. Each line is
    /// written as soon as it is known, so that a reader of a pipe can keep up with live input.
    pub fn stream(writer: impl Write + Send + 'static, target: &str) -> Self {
        Self { output: Output::Stream(Box::new(writer)), target: target.to_owned() }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// When the disk is full or the reader of a pipe is gone; when a number is not finite.
    pub fn write(&mut self, face: &FaceRecord<'_>) -> Result<(), ReportError> {
        if !face.is_finite() {
            return Err(ReportError::NotFinite { frame: face.frame });
        }
        let line = serde_json::to_vec(face).map_err(io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            match &mut self.output {
                Output::File { file, .. } => file.write_all(&line),
                Output::Stream(writer) => writer.write_all(&line),
            }
        });
        written.map_err(|source| ReportError::Write { target: self.target.clone(), source })
    }

    /// Completes the output; a file is now on disk under its name.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name.
    pub fn finish(self) -> Result<(), ReportError> {
        let target = self.target;
        let finished = match self.output {
            Output::File { file, path } => {
                file.into_inner().map_err(|error| error.into_error()).and_then(|file| {
                    file.as_file().sync_all()?;
                    file.persist(path).map_err(|error| error.error)?;
                    Ok(())
                })
            }
            Output::Stream(mut writer) => writer.flush(),
        };
        finished.map_err(|source| ReportError::Write { target, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn face(frame: u64) -> FaceRecord<'static> {
        FaceRecord {
            frame,
            pts_s: frame as f64 / 25.0,
            bbox: [10.5, 20.0, 50.25, 70.0],
            landmarks: [[20.0, 30.0]; 5],
            score: 0.99,
            quality: Quality { size_px: 44.6, yaw_deg: -5.0, pitch_deg: 2.0, roll_deg: 0.0, sharpness: 0.4 },
            track: Some(7),
            stranger: None,
            name: Some("Zoë \"Z\""),
            angle_deg: Some(41.5),
            runner_up: None,
            runner_up_angle_deg: None,
        }
    }

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
        assert_eq!(read[1]["box"], serde_json::json!([10.5, 20.0, 50.25, 70.0]));
        assert_eq!(read[1]["name"], "Zoë \"Z\"");
        assert_eq!(read[1]["track"], 7);
        assert!(read[1]["runner_up"].is_null());
        let names: Vec<_> = read[0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 12, "{names:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_and_keeps_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.jsonl");
        std::fs::write(&path, "old").unwrap();
        let mut lines = JsonLines::create(&path).unwrap();
        lines.write(&face(0)).unwrap();
        drop(lines);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("none/faces.jsonl"), folder.path().to_owned()] {
            let error = JsonLines::create(&path).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn no_number_that_is_not_finite_is_ever_written() {
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
        for bad in [f32::NAN, f32::INFINITY] {
            let mut broken = [face(3), face(3), face(3), face(3), face(3), face(3)];
            broken[0].bbox[2] = bad;
            broken[1].landmarks[4][1] = bad;
            broken[2].score = bad;
            broken[3].quality.sharpness = bad;
            broken[4].angle_deg = Some(bad);
            broken[5].runner_up_angle_deg = Some(bad);
            for face in broken {
                assert!(matches!(lines.write(&face), Err(ReportError::NotFinite { frame: 3 })));
            }
        }
        lines.write(&face(4)).unwrap();
        lines.finish().unwrap();
        assert_eq!(memory.0.lock().unwrap().iter().filter(|&&byte| byte == b'\n').count(), 1);
    }
}
