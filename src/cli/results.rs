//! Flags of `sphereface label` for what it leaves behind beside the video, and for covering
//! faces in it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::UsageError;
use crate::annotate::{Cover, Redactor, Whom};
use crate::gallery::Gallery;
use crate::pipeline::page::PageJob;
use crate::pipeline::redact::Redaction;
use crate::report::{Audit, JsonLines, Output, Results};

/// Lists and pages.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// List every face as a row of this CSV file
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// List who appears from when to when in this CSV file
    #[arg(long, value_name = "FILE.csv")]
    appearances: Option<PathBuf>,
    /// Write the names as WebVTT subtitles
    #[arg(long, value_name = "FILE.vtt")]
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
    pub fn files(&self) -> [(&'static str, Option<&Path>); 5] {
        [
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

    /// The lists, with the JSON lines.
    pub fn results(&self, json_lines: Option<JsonLines>) -> Result<Results> {
        let results = Results::default().json_lines(json_lines).face_table(self.csv.as_deref())?;
        let results = results.appearances(self.appearances.as_deref())?;
        Ok(results.subtitles(self.subtitles.as_deref())?.chapters(self.chapters.as_deref())?)
    }

    /// The page about `video`, which plays `output` where that is written.
    pub fn page_job(
        &self,
        video: Option<&Path>,
        output: Option<&Path>,
        analysis: Option<&Path>,
        facts: Vec<(String, String)>,
    ) -> Result<Option<PageJob>> {
        let (Some(path), Some(video)) = (&self.html, video) else { return Ok(None) };
        Ok(Some(PageJob {
            output: Output::create(path)?,
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
    /// List every frame in which a face was found, and that it is covered, as JSON lines
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
    pub fn redaction(&self, gallery: Option<&Path>) -> Result<Option<Redaction>> {
        let Some(whom) = &self.redact else { return Ok(None) };
        let people = match gallery {
            Some(gallery) => Gallery::open(gallery)?.people()?,
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
            audit: Audit::new(self.redact_audit.as_deref())?,
        }))
    }
}
