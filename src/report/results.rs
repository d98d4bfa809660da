//! Everything a run may leave behind, as one.

use std::path::Path;

use super::scenes::{ChapterFormat, write_chapters, write_subtitles};
use super::tables::write_appearances;
use super::{Appearance, FaceRecord, FaceTable, JsonLines, Output, ReportError};

/// Where results go; nothing by default. All files are made when the run begins, so that a
/// folder that is not there is found out then.
#[derive(Default)]
pub struct Results {
    json_lines: Option<JsonLines>,
    faces: Option<FaceTable>,
    appearances: Option<Output>,
    subtitles: Option<Output>,
    chapters: Option<(Output, ChapterFormat)>,
}

impl Results {
    /// Lists every face as JSON lines.
    pub fn json_lines(mut self, lines: Option<JsonLines>) -> Self {
        self.json_lines = lines;
        self
    }

    /// Lists every face in this CSV file.
    ///
    /// # Errors
    /// When no file can be made there; likewise for the others.
    pub fn face_table(mut self, path: Option<&Path>) -> Result<Self, ReportError> {
        self.faces = path.map(FaceTable::create).transpose()?;
        Ok(self)
    }

    /// Lists who appears from when to when in this CSV file.
    ///
    /// # Errors
    /// As [`Results::face_table`].
    pub fn appearances(mut self, path: Option<&Path>) -> Result<Self, ReportError> {
        self.appearances = path.map(Output::create).transpose()?;
        Ok(self)
    }

    /// Writes the names as WebVTT subtitles.
    ///
    /// # Errors
    /// As [`Results::face_table`].
    pub fn subtitles(mut self, path: Option<&Path>) -> Result<Self, ReportError> {
        self.subtitles = path.map(Output::create).transpose()?;
        Ok(self)
    }

    /// Writes chapters, in the format that [`ChapterFormat::of_path`] says.
    ///
    /// # Errors
    /// As [`Results::face_table`].
    pub fn chapters(mut self, path: Option<&Path>) -> Result<Self, ReportError> {
        let chapters = |path| Ok((Output::create(path)?, ChapterFormat::of_path(path)));
        self.chapters = path.map(chapters).transpose()?;
        Ok(self)
    }

    /// Whether single faces are listed.
    pub fn lists_faces(&self) -> bool {
        self.json_lines.is_some() || self.faces.is_some()
    }

    /// Lists a face.
    ///
    /// # Errors
    /// When the disk is full or the reader of a pipe is gone; when a number is not finite.
    pub fn face(&mut self, face: &FaceRecord<'_>) -> Result<(), ReportError> {
        if let Some(lines) = &mut self.json_lines {
            lines.write(face)?;
        }
        match &mut self.faces {
            Some(table) => table.write(face),
            None => Ok(()),
        }
    }

    /// Writes the rest and completes every file. `end_ns` is when the video ends.
    ///
    /// # Errors
    /// When the disk is full, or a file cannot take its name.
    pub fn finish(self, people: &[Appearance], end_ns: u64) -> Result<(), ReportError> {
        self.json_lines.map(JsonLines::finish).transpose()?;
        self.faces.map(FaceTable::finish).transpose()?;
        self.appearances.map(|output| write_appearances(output, people)).transpose()?;
        self.subtitles.map(|output| write_subtitles(output, people)).transpose()?;
        self.chapters.map(|(output, format)| write_chapters(output, format, people, end_ns)).transpose()?;
        Ok(())
    }
}
