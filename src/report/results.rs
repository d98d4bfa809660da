//! All reports of a run together.

use super::csv::write_appearances;
use super::scenes::{ChapterFormat, SubtitleFormat, write_chapters, write_subtitles};
use super::timeline::{TimelineFormat, TimelineOptions, Timelines, VideoFacts};
use super::{Appearance, FaceRecord, FaceTable, JsonLines, Output, ReportError};

/// The reports to write; none by default.
#[derive(Default)]
pub struct Results {
    json_lines: Option<JsonLines>,
    faces: Option<FaceTable>,
    appearances: Option<Output>,
    subtitles: Option<(Output, SubtitleFormat)>,
    chapters: Option<(Output, ChapterFormat)>,
    timelines: Option<Timelines>,
}

impl Results {
    /// Lists every face as JSON lines.
    pub fn json_lines(mut self, lines: Option<JsonLines>) -> Self {
        self.json_lines = lines;
        self
    }

    /// Lists every face as CSV.
    ///
    /// # Errors
    /// When the header line cannot be written.
    pub fn face_table(mut self, output: Option<Output>) -> Result<Self, ReportError> {
        self.faces = output.map(FaceTable::new).transpose()?;
        Ok(self)
    }

    /// Lists who appears from when to when as CSV.
    pub fn appearances(mut self, output: Option<Output>) -> Self {
        self.appearances = output;
        self
    }

    /// Writes the names as subtitles.
    pub fn subtitles(mut self, subtitles: Option<(Output, SubtitleFormat)>) -> Self {
        self.subtitles = subtitles;
        self
    }

    /// Writes chapters.
    pub fn chapters(mut self, chapters: Option<(Output, ChapterFormat)>) -> Self {
        self.chapters = chapters;
        self
    }

    /// Writes timelines for editing programs.
    pub fn timelines(mut self, outputs: Vec<(Output, TimelineFormat)>, options: TimelineOptions) -> Self {
        self.timelines = (!outputs.is_empty()).then(|| Timelines::new(outputs, options));
        self
    }

    /// Checks the request against the video, before the work.
    ///
    /// # Errors
    /// When the requested timecode does not fit the video.
    pub fn opened(&mut self, video: &VideoFacts) -> Result<(), ReportError> {
        self.timelines.as_mut().map_or(Ok(()), |timelines| timelines.opened(video))
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

    /// Writes the rest and completes every file. `end_ns` is the end time of the video.
    ///
    /// # Errors
    /// When the disk is full, or a file cannot take its name.
    pub fn finish(self, people: &[Appearance], end_ns: u64) -> Result<(), ReportError> {
        self.json_lines.map(JsonLines::finish).transpose()?;
        self.faces.map(FaceTable::finish).transpose()?;
        self.appearances.map(|output| write_appearances(output, people)).transpose()?;
        self.subtitles.map(|(output, format)| write_subtitles(output, format, people)).transpose()?;
        self.chapters.map(|(output, format)| write_chapters(output, format, people, end_ns)).transpose()?;
        self.timelines.map(|timelines| timelines.finish(people, end_ns)).transpose()?;
        Ok(())
    }
}
