//! Markers and ranges for editing programs: when each person is in the picture.
//!
//! | file | program | per appearance |
//! |---|---|---|
//! | `.edl` | DaVinci Resolve (timeline markers) | a marker with a duration |
//! | `.fcpxml` | Final Cut Pro | a keyword over the range, and a marker at its start |
//! | `.xml` | Premiere Pro, DaVinci Resolve (xmeml, Final Cut Pro 7) | a marker with a duration |
//! | `.otio` | OpenTimelineIO | a marker over the range |
//! | `.eaf` | ELAN | an annotation in the person's tier |
//!
//! All but the last count frames at the video's rate, from the timecode of its first frame.

mod eaf;
mod edl;
mod fcpxml;
mod otio;
mod timecode;
mod xmeml;

pub use timecode::{Numbering, Rate, Timecode, TimecodeError};

use std::path::{Path, PathBuf};

use super::{Appearance, Output, ReportError};
use crate::file::percent_encoded;

/// Formats of timelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimelineFormat {
    /// An edit decision list with the markers of DaVinci Resolve.
    Edl,
    /// Final Cut Pro.
    Fcpxml,
    /// Premiere Pro, and other programs that read the format of Final Cut Pro 7.
    Xmeml,
    /// OpenTimelineIO's JSON.
    Otio,
    /// ELAN.
    Eaf,
}

impl TimelineFormat {
    /// The format that the name of a file ends in; `None` for other endings.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "edl" => Some(Self::Edl),
            "fcpxml" => Some(Self::Fcpxml),
            "xml" => Some(Self::Xmeml),
            "otio" => Some(Self::Otio),
            "eaf" => Some(Self::Eaf),
            _ => None,
        }
    }

    /// Whether it counts in frames.
    fn counts_frames(self) -> bool {
        self != Self::Eaf
    }
}

/// The facts about a video that are known when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFacts {
    /// File name, without its folder.
    pub name: String,
    /// Width in pixels, upright.
    pub width: usize,
    /// Height in pixels, upright.
    pub height: usize,
    /// Nominal frames per second as a fraction, if the video states it.
    pub fps: Option<(i32, i32)>,
    /// Whether there is sound; `None` if that is not known.
    pub sound: Option<bool>,
}

/// Options of timelines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimelineOptions {
    /// Timecode of the first frame.
    pub start: Timecode,
    /// Frame rate, if not that of the video.
    pub rate: Option<Rate>,
    /// The video that the timeline refers to. Without one, its name.
    pub media: Option<PathBuf>,
}

/// Timelines to write.
pub(super) struct Timelines {
    outputs: Vec<(Output, TimelineFormat)>,
    options: TimelineOptions,
    video: Option<(VideoFacts, Option<(Numbering, i64)>)>,
}

impl Timelines {
    pub(super) fn new(outputs: Vec<(Output, TimelineFormat)>, options: TimelineOptions) -> Self {
        Self { outputs, options, video: None }
    }

    /// Checks the request against the video, before the work.
    pub(super) fn opened(&mut self, video: &VideoFacts) -> Result<(), ReportError> {
        let stated = || video.fps.and_then(|(frames, seconds)| Rate::new(frames.into(), seconds.into()));
        let rate = self.options.rate.or_else(stated);
        let numbering = match (rate, self.outputs.iter().any(|(_, format)| format.counts_frames())) {
            (Some(rate), true) => Some(Numbering::of(self.options.start, rate)?),
            (None, true) => return Err(TimecodeError::NoRate.into()),
            (_, false) => None,
        };
        self.video = Some((video.clone(), numbering));
        Ok(())
    }

    /// Writes all of them.
    pub(super) fn finish(self, people: &[Appearance], end_ns: u64) -> Result<(), ReportError> {
        let Some((video, numbering)) = self.video else { return Ok(()) };
        let media = match &self.options.media {
            Some(path) => file_url(path),
            None => percent_encoded(&video.name),
        };
        for (mut output, format) in self.outputs {
            let text = match (format, numbering) {
                (TimelineFormat::Eaf, _) => eaf::text(&media, people),
                (_, None) => return Err(TimecodeError::NoRate.into()),
                (_, Some((numbering, start))) => {
                    let timeline = Timeline::new(&video, &media, numbering, start, people, end_ns);
                    match format {
                        TimelineFormat::Edl => edl::text(&timeline),
                        TimelineFormat::Fcpxml => fcpxml::text(&timeline),
                        TimelineFormat::Xmeml => xmeml::text(&timeline),
                        _ => otio::text(&timeline),
                    }
                }
            };
            output.write(text.as_bytes())?;
            output.finish()?;
        }
        Ok(())
    }
}

/// A time span in which a person is in the picture, in frames of the video from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark<'a> {
    name: &'a str,
    /// The number of the person, by first appearance.
    person: usize,
    first: i64,
    /// Frames; at least 1.
    length: i64,
}

/// A video with its marks.
struct Timeline<'a> {
    video: &'a VideoFacts,
    /// Address of the video.
    media: &'a str,
    numbering: Numbering,
    /// Frame of the timecode at which the video begins.
    start: i64,
    /// Length of the video in frames.
    length: i64,
    /// By time.
    marks: Vec<Mark<'a>>,
}

impl<'a> Timeline<'a> {
    fn new(
        video: &'a VideoFacts,
        media: &'a str,
        numbering: Numbering,
        start: i64,
        people: &'a [Appearance],
        end_ns: u64,
    ) -> Self {
        let rate = numbering.rate;
        let named = people.iter().filter_map(|person| Some((person.who.name()?, person)));
        let mut marks = Vec::new();
        for (person, (name, appearance)) in named.enumerate() {
            for span in &appearance.spans {
                let first = rate.frame_at(span.start_ns);
                let length = (rate.frame_at(span.end_ns) - first).max(1);
                marks.push(Mark { name, person, first, length });
            }
        }
        marks.sort_by_key(|mark| (mark.first, mark.person));
        let last = marks.iter().map(|mark| mark.first + mark.length).max().unwrap_or(0);
        let length = rate.frame_at(end_ns).max(last).max(1);
        Self { video, media, numbering, start, length, marks }
    }

    /// File name of the video without its extension.
    fn title(&self) -> &str {
        let stem = Path::new(&self.video.name).file_stem().and_then(|stem| stem.to_str());
        stem.unwrap_or(&self.video.name)
    }

    /// The timecode of a frame of the video.
    fn timecode(&self, frame: i64) -> Timecode {
        self.numbering.timecode(self.start + frame)
    }
}

/// One of the colours for people, in turn.
fn colour<'a>(colours: &[&'a str], person: usize) -> &'a str {
    colours[person % colours.len()]
}

/// The address of a file.
fn file_url(path: &Path) -> String {
    format!("file://{}", percent_encoded(&path.to_string_lossy()))
}

#[cfg(test)]
mod tests;
