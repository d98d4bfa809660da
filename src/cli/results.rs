//! Flags of `sphereface label` for what it leaves behind beside the video, and for covering
//! faces in it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::UsageError;
use super::terminal::Data;
use crate::annotate::{Cover, Redactor, Whom};
use crate::file;
use crate::gallery::GalleryFolder;
use crate::pipeline::Control;
use crate::pipeline::page::PageJob;
use crate::pipeline::redact::Redaction;
use crate::report::{Audit, ChapterFormat, JsonLines, Output, ReportError, Results, SubtitleFormat};

/// Whether a path stands for standard output.
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || file::is_standard_output(path)
}

/// The format of subtitles in that file; `None` when its name promises another one.
fn subtitle_format(path: &Path) -> Option<SubtitleFormat> {
    match is_standard_output(path) || file::is_special(path) {
        true => Some(SubtitleFormat::of_path(path).unwrap_or(SubtitleFormat::WebVtt)),
        false => SubtitleFormat::of_path(path),
    }
}

/// Begins what lists are written to.
pub struct Lists {
    /// Ended when standard output has no reader any more, where nothing else is wanted.
    stop: Option<Control>,
}

impl Lists {
    /// Lists of a run that `stop` ends when nobody reads standard output any more.
    pub fn new(stop: Option<Control>) -> Self {
        Self { stop }
    }

    /// Begins a file, or standard output for `-`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn open(&self, path: &Path) -> Result<Output, ReportError> {
        if !is_standard_output(path) {
            return Output::create(path);
        }
        let stop = self.stop.clone();
        let on_closed = move || stop.iter().for_each(Control::stop);
        Ok(Output::stream(Data::new(on_closed), "standard output"))
    }
}

/// Lists and pages.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// List every face as a line of JSON in this file; - for standard output, as for the other
    /// lists and the page
    #[arg(long, value_name = "FILE.jsonl")]
    jsonl: Option<PathBuf>,
    /// List every face as a row of this CSV file
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// List who appears from when to when in this CSV file
    #[arg(long, value_name = "FILE.csv")]
    appearances: Option<PathBuf>,
    /// Write the names as subtitles: WebVTT for .vtt and -, SubRip for .srt
    #[arg(long, value_name = "FILE.vtt|FILE.srt")]
    subtitles: Option<PathBuf>,
    /// Write chapters that begin where people come and go: WebVTT for .vtt, otherwise the
    /// metadata that ffmpeg puts into a video with -map_metadata
    #[arg(long, value_name = "FILE")]
    chapters: Option<PathBuf>,
    /// Write a page for a browser, all in one file: timelines, pictures, click to seek
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Put the video into the page, instead of a reference to it
    #[arg(long, requires = "html")]
    embed_video: bool,
}

impl ResultArgs {
    /// Every file asked for, with its flag.
    pub fn files(&self) -> [(&'static str, Option<&Path>); 6] {
        [
            ("--jsonl", self.jsonl.as_deref()),
            ("--csv", self.csv.as_deref()),
            ("--appearances", self.appearances.as_deref()),
            ("--subtitles", self.subtitles.as_deref()),
            ("--chapters", self.chapters.as_deref()),
            ("--html", self.html.as_deref()),
        ]
    }

    /// Whether a page is wanted.
    pub fn page(&self) -> bool {
        self.html.is_some()
    }

    /// Refuses names that promise another format.
    ///
    /// # Errors
    /// When there is one.
    pub fn refuse_formats(&self) -> Result<(), UsageError> {
        if let Some(path) = &self.subtitles
            && subtitle_format(path).is_none()
        {
            let path = path.display();
            return Err(UsageError(format!(
                "--subtitles {path} names no format: let it end in .vtt for WebVTT or .srt for SubRip"
            )));
        }
        if let Some(path) = &self.chapters
            && SubtitleFormat::of_path(path) == Some(SubtitleFormat::SubRip)
        {
            let path = path.display();
            return Err(UsageError(format!(
                "--chapters {path}: SubRip holds no chapters: let it end in .vtt for WebVTT, or in .txt for ffmpeg's metadata"
            )));
        }
        Ok(())
    }

    /// The lists. All files are begun here, so that a folder that is not there is found out before the work.
    pub fn results(&self, lists: &Lists) -> Result<Results> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(|path| lists.open(path)).transpose();
        let subtitles = open(&self.subtitles)?.zip(self.subtitles.as_deref().and_then(subtitle_format));
        let chapters = open(&self.chapters)?.zip(self.chapters.as_deref().map(ChapterFormat::of_path));
        let results = Results::default()
            .json_lines(open(&self.jsonl)?.map(JsonLines::new))
            .face_table(open(&self.csv)?)?
            .appearances(open(&self.appearances)?)
            .subtitles(subtitles)
            .chapters(chapters);
        Ok(results)
    }

    /// The page about `video`, which plays `output` where that is written.
    pub fn page_job(
        &self,
        video: Option<&Path>,
        output: Option<&Path>,
        analysis: Option<&Path>,
        facts: Vec<(String, String)>,
        lists: &Lists,
    ) -> Result<Option<PageJob>> {
        let (Some(path), Some(video)) = (&self.html, video) else { return Ok(None) };
        Ok(Some(PageJob {
            output: lists.open(path)?,
            path: path.clone(),
            video: video.to_owned(),
            play: output.unwrap_or(video).to_owned(),
            embed: self.embed_video,
            analysis: analysis.map(Path::to_owned),
            facts,
        }))
    }
}

/// Covering faces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redaction")]
pub struct RedactArgs {
    /// Cover faces: unknown (everybody without a name), all, except:NAME,... or only:NAME,...;
    /// a comma inside a name is written \,
    #[arg(long, value_name = "WHOM")]
    pub redact: Option<Whom>,
    /// How: blur and pixelate leave a guess at who it was, solid leaves nothing
    #[arg(long, value_enum, value_name = "HOW", default_value_t = CoverName::Blur, requires = "redact")]
    redact_with: CoverName,
    /// How far around a face is covered, as a multiple of its size on every side, 0 to 3
    #[arg(long, value_name = "SHARE", default_value_t = Redactor::GROW, requires = "redact")]
    redact_grow: f32,
    /// Frames before a person is first seen and after they are last seen in which the place is
    /// covered too, 0 to 1000; gaps in between are always covered
    #[arg(long, value_name = "FRAMES", default_value_t = 12, value_parser = clap::value_parser!(u16).range(0..=1000), requires = "redact")]
    redact_hold: u16,
    /// List every frame in which a face was found, and that it is covered, as JSON lines; - for
    /// standard output
    #[arg(long, value_name = "FILE", requires = "redact")]
    pub redact_audit: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CoverName {
    Blur,
    Pixelate,
    Solid,
}

impl RedactArgs {
    /// What was asked for, checked against the people of the gallery.
    pub fn redaction(&self, gallery: Option<&Path>, lists: &Lists) -> Result<Option<Redaction>> {
        let Some(whom) = &self.redact else { return Ok(None) };
        let people = match gallery {
            Some(gallery) => GalleryFolder::open(gallery)?.people()?,
            None => Vec::new(),
        };
        for name in whom.names() {
            if !people.iter().any(|person| person.name.as_str() == name) {
                let place = gallery.map_or("without --gallery nobody has a name".to_owned(), |gallery| {
                    format!("see `sphereface gallery list --gallery {}`", gallery.display())
                });
                return Err(UsageError(format!("--redact: nobody named {name} is enrolled: {place}")).into());
            }
        }
        let cover = match self.redact_with {
            CoverName::Blur => Cover::Blur,
            CoverName::Pixelate => Cover::Pixelate,
            CoverName::Solid => Cover::Solid,
        };
        let redactor = Redactor::new(cover, self.redact_grow)
            .map_err(|error| UsageError(format!("--redact-grow: {error}")))?;
        Ok(Some(Redaction {
            whom: whom.clone(),
            redactor,
            hold_frames: u64::from(self.redact_hold),
            audit: Audit::new(self.redact_audit.as_deref().map(|path| lists.open(path)).transpose()?),
        }))
    }
}
