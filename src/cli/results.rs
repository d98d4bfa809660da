//! Flags of `sphereface label` for reports and for redaction.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::UsageError;
use super::terminal::Data;
use sphereface::annotate::{Cover, Redactor, Whom};
use sphereface::file;
use sphereface::gallery::GalleryFolder;
use sphereface::pipeline::page::PageJob;
use sphereface::pipeline::redact::Redaction;
use sphereface::pipeline::{Control, LabelError, Sidecar};
use sphereface::report::timeline::{Rate, Timecode, TimelineFormat, TimelineOptions};
use sphereface::report::{Audit, ChapterFormat, JsonLines, Output, ReportError, Results, SubtitleFormat};
use sphereface::xmp;

/// Whether a path stands for standard output.
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || file::is_standard_output(path)
}

/// The subtitle format of a file; `None` if its extension is of another format.
fn subtitle_format(path: &Path) -> Option<SubtitleFormat> {
    match is_standard_output(path) || file::is_special(path) {
        true => Some(SubtitleFormat::of_path(path).unwrap_or(SubtitleFormat::WebVtt)),
        false => SubtitleFormat::of_path(path),
    }
}

/// Opens the outputs of lists.
pub struct Lists {
    /// Stopped when standard output is closed, if there is no other output.
    stop: Option<Control>,
}

impl Lists {
    /// Lists of a run that `stop` ends when standard output is closed.
    pub fn new(stop: Option<Control>) -> Self {
        Self { stop }
    }

    /// Opens a file, or standard output for `-`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn open(&self, path: &Path) -> Result<Output, ReportError> {
        if !is_standard_output(path) {
            return Output::create(path);
        }
        let stop = self.stop.clone();
        let on_closed = move || stop.iter().for_each(Control::stop);
        Ok(Output::stream(Data::new(on_closed), "standard output"))
    }
}

/// A path that may be empty, which stands for the default.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Reports.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// JSON Lines file with one line per face. - is standard output, here and for the other reports
    #[arg(long, value_name = "FILE.jsonl")]
    jsonl: Option<PathBuf>,
    /// CSV file with one row per face
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// CSV file with one row per appearance: who, from when, to when
    #[arg(long, value_name = "FILE.csv")]
    appearances: Option<PathBuf>,
    /// Subtitle file with the names: WebVTT for .vtt and -, SubRip for .srt
    #[arg(long, value_name = "FILE.vtt|FILE.srt")]
    subtitles: Option<PathBuf>,
    /// Chapter file; a chapter begins where a person appears or leaves. WebVTT for .vtt, otherwise
    /// ffmpeg metadata for use with -map_metadata
    #[arg(long, value_name = "FILE")]
    chapters: Option<PathBuf>,
    /// Markers and ranges per person for an editing program, by extension: .edl (DaVinci Resolve timeline
    /// markers), .fcpxml (Final Cut Pro), .xml (Premiere Pro), .otio (OpenTimelineIO), .eaf (ELAN). May be
    /// repeated
    #[arg(long, value_name = "FILE")]
    timeline: Vec<PathBuf>,
    /// Timecode of the first frame in timelines: HH:MM:SS:FF, or HH:MM:SS;FF for drop frame
    #[arg(long, value_name = "TIMECODE", default_value_t = Timecode::default(), requires = "timeline")]
    timecode: Timecode,
    /// Frames per second of timelines, for example 25, 29.97 or 30000/1001 [default: the rate that the
    /// video states]
    #[arg(long, value_name = "RATE", requires = "timeline")]
    frame_rate: Option<Rate>,
    /// Write the names into the photo's XMP sidecar, as regions that Lightroom, digiKam and others read: the
    /// sidecar it has, otherwise photo.jpg.xmp beside photo.jpg, or --xmp=FILE. Other content of the sidecar
    /// is kept, and so are names given by hand
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = any_path())]
    xmp: Option<PathBuf>,
    /// Write the names into the photo itself, a JPEG file. Everything else in it is unchanged, and it is
    /// replaced when the new file is complete
    #[arg(long, conflicts_with = "xmp")]
    xmp_embed: bool,
    /// Self-contained HTML page with timelines and pictures; click to seek
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Embed the video in the page instead of linking to it
    #[arg(long, requires = "html")]
    embed_video: bool,
}

impl ResultArgs {
    /// Every requested file with its flag.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, Option<&Path>)> {
        let single = [
            ("--jsonl", self.jsonl.as_deref()),
            ("--csv", self.csv.as_deref()),
            ("--appearances", self.appearances.as_deref()),
            ("--subtitles", self.subtitles.as_deref()),
            ("--chapters", self.chapters.as_deref()),
            ("--xmp", self.xmp.as_deref()),
            ("--html", self.html.as_deref()),
        ];
        single.into_iter().chain(self.timeline.iter().map(|path| ("--timeline", Some(path.as_path()))))
    }

    /// Gives the sidecar its name, if one is requested without.
    pub fn name_sidecar(&mut self, photo: &Path) {
        if self.xmp.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            let [default, _] = xmp::sidecars(photo);
            self.xmp = xmp::sidecar(photo).or(Some(default));
        }
    }

    /// The flag that requests names in a sidecar or in the photo.
    pub fn names_photo(&self) -> Option<&'static str> {
        match (self.xmp_embed, &self.xmp) {
            (true, _) => Some("--xmp-embed"),
            (false, Some(_)) => Some("--xmp"),
            (false, None) => None,
        }
    }

    /// The sidecar of `photo`, or the photo itself, if its names are requested.
    ///
    /// # Errors
    /// When the photo or its sidecar cannot be read, or the sidecar could not be written.
    pub fn sidecar(&self, photo: &Path) -> Result<Option<Sidecar>, LabelError> {
        if self.xmp_embed {
            return Sidecar::inside(photo).map(Some);
        }
        self.xmp.as_deref().map(|path| Sidecar::of(photo, Some(path))).transpose()
    }

    /// Whether a page is requested.
    pub fn page(&self) -> bool {
        self.html.is_some()
    }

    /// Checks the extensions of subtitles, chapters and sidecars.
    ///
    /// # Errors
    /// When one is of another format.
    pub fn refuse_formats(&self) -> Result<(), UsageError> {
        if let Some(path) = &self.subtitles
            && subtitle_format(path).is_none()
        {
            let path = path.display();
            return Err(UsageError(format!(
                "--subtitles {path} has no known extension: use .vtt for WebVTT or .srt for SubRip"
            )));
        }
        if let Some(path) = self.timeline.iter().find(|path| TimelineFormat::of_path(path).is_none()) {
            let path = path.display();
            return Err(UsageError(format!(
                "--timeline {path} has no known extension: use .edl for DaVinci Resolve, .fcpxml for Final Cut Pro, .xml for Premiere Pro, .otio for OpenTimelineIO or .eaf for ELAN"
            )));
        }
        if let Some(path) = &self.xmp
            && !xmp::is_sidecar(path)
        {
            let path = path.display();
            return Err(UsageError(format!("--xmp={path}: the name of a sidecar ends in .xmp")));
        }
        if let Some(path) = &self.chapters
            && SubtitleFormat::of_path(path) == Some(SubtitleFormat::SubRip)
        {
            let path = path.display();
            return Err(UsageError(format!(
                "--chapters {path}: SubRip cannot hold chapters: use .vtt for WebVTT or .txt for ffmpeg metadata"
            )));
        }
        Ok(())
    }

    /// Whether timelines are requested.
    pub fn writes_timelines(&self) -> bool {
        !self.timeline.is_empty()
    }

    /// Opens all reports. This happens before the work, so that a missing folder is reported early. `media`
    /// is the video that timelines refer to.
    pub fn results(&self, lists: &Lists, media: Option<&Path>) -> Result<Results> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(|path| lists.open(path)).transpose();
        let subtitles = open(&self.subtitles)?.zip(self.subtitles.as_deref().and_then(subtitle_format));
        let chapters = open(&self.chapters)?.zip(self.chapters.as_deref().map(ChapterFormat::of_path));
        let timelines = self.timeline.iter().filter_map(|path| Some((path, TimelineFormat::of_path(path)?)));
        let timelines: Result<Vec<_>, ReportError> =
            timelines.map(|(path, format)| Ok((lists.open(path)?, format))).collect();
        let options = TimelineOptions {
            start: self.timecode,
            rate: self.frame_rate,
            media: media.and_then(|path| std::path::absolute(path).ok()),
        };
        let results = Results::default()
            .json_lines(open(&self.jsonl)?.map(JsonLines::new))
            .face_table(open(&self.csv)?)?
            .appearances(open(&self.appearances)?)
            .subtitles(subtitles)
            .chapters(chapters)
            .timelines(timelines?, options);
        Ok(results)
    }

    /// The page about `video`, which plays `output` if there is one.
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

/// Redaction.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Redaction")]
pub struct RedactArgs {
    /// Faces to cover: unknown (everyone without a name), all, except:NAME,... or only:NAME,.... Write \, for
    /// a comma inside a name
    #[arg(long, value_name = "WHOM")]
    pub redact: Option<Whom>,
    /// Redaction method. A blurred or pixelated face can sometimes still be recognised; solid leaves
    /// nothing to recognise
    #[arg(long, value_enum, value_name = "HOW", default_value_t = CoverName::Blur, requires = "redact")]
    redact_with: CoverName,
    /// Margin covered on every side of a face, as a multiple of its size, 0 to 3
    #[arg(long, value_name = "SHARE", default_value_t = Redactor::GROW, requires = "redact")]
    redact_grow: f32,
    /// Frames to cover before a person is first seen and after they are last seen, 0 to 1000. Gaps in
    /// between are always covered
    #[arg(long, value_name = "FRAMES", default_value_t = 12, value_parser = clap::value_parser!(u16).range(0..=1000), requires = "redact")]
    redact_hold: u16,
    /// JSON Lines file that records, for every frame with a face, that the face was covered. - is
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
    /// The requested redaction, checked against the people of the gallery.
    pub fn redaction(&self, gallery: Option<&Path>, lists: &Lists) -> Result<Option<Redaction>> {
        let Some(whom) = &self.redact else { return Ok(None) };
        let people = match gallery {
            Some(gallery) => GalleryFolder::open(gallery)?.people()?,
            None => Vec::new(),
        };
        for name in whom.names() {
            if !people.iter().any(|person| person.name.as_str() == name) {
                let place = gallery.map_or("names need --gallery DIR".to_owned(), |gallery| {
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
