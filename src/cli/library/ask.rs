//! Queries to a library.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::NaiveDate;
use clap::Args;
use serde_json::json;

use super::super::results::is_standard_output;
use super::super::terminal::printable;
use super::super::{UsageError, outputs};
use super::{LibraryPlace, engine_of, naming, refresh, refused};
use sphereface::file::{self, counted};
use sphereface::library::{
    self, ExportFormat, FoundFile, Kind, Library, Query, Stranger, Subject, page, playlist,
};

/// Strangers that are listed, unless all are requested.
const LISTED: usize = 20;
/// Tracks per stranger that are listed, unless only that stranger is requested.
const TRACKS: usize = 3;

/// Find the files with a person, and when the person is seen
///
/// Prints the files in the order in which they were taken. Several people must all be in a file. Times
/// and dates are those that the files state, without a time zone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library find Ada\n  \
    sphereface library find --with Ada --with Boris --together\n  \
    sphereface library find --stranger 3 --html who.html\n  \
    sphereface library find Ada --after 2019-01-01 --before 2020-01-01 --photos --json")]
pub struct FindArgs {
    /// Name of the person
    #[arg(required_unless_present_any = ["with", "stranger"])]
    name: Option<String>,
    /// Another person who must be in the file. May be repeated
    #[arg(long, value_name = "NAME")]
    with: Vec<String>,
    /// A stranger who must be in the file, by the number that `strangers` prints. May be repeated
    #[arg(long, value_name = "N")]
    stranger: Vec<i64>,
    /// Require all of them in one picture, and print the times when they are
    #[arg(long)]
    together: bool,
    /// Files taken on this day or later
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    after: Option<NaiveDate>,
    /// Files taken before this day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    before: Option<NaiveDate>,
    /// Videos only
    #[arg(long, conflicts_with = "photos")]
    videos: bool,
    /// Photos only
    #[arg(long)]
    photos: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values: one line per person and time span
    #[arg(long)]
    csv: bool,
    /// Write a playlist that plays the spans, for VLC and others; - for standard output
    #[arg(long, value_name = "FILE.m3u")]
    m3u: Option<PathBuf>,
    /// Write a page with pictures that opens without a network
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

fn date(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| format!("`{text}` is not a date: write for example 2019-07-14"))
}

/// The first second of a day.
fn seconds(day: NaiveDate) -> i64 {
    day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp()
}

impl FindArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        if let (Some(after), Some(before)) = (self.after, self.before)
            && before <= after
        {
            return Err(UsageError(format!("no day is on or after {after} and before {before}")).into());
        }
        let library = place.open()?;
        refuse_outputs(&library, [("--m3u", &self.m3u), ("--html", &self.html)])?;
        refresh(&library)?;
        if !self.stranger.is_empty() {
            group(&library)?;
        }
        let names = self.name.iter().chain(&self.with).map(|name| Subject::Named(name.clone()));
        let strangers = self.stranger.iter().map(|&number| Subject::Stranger(number));
        let mut query = Query::with(names.chain(strangers));
        query.together = self.together;
        query.from_s = self.after.map(seconds);
        query.before_s = self.before.map(seconds);
        query.kind = match (self.videos, self.photos) {
            (true, _) => Some(Kind::Video),
            (_, true) => Some(Kind::Photo),
            _ => None,
        };
        let files = library.find(&query).map_err(refused)?;
        let quiet = self.m3u.as_deref().is_some_and(is_standard_output);
        if self.json {
            outln!("{}", json!(files.iter().map(found).collect::<Vec<_>>()));
        } else if self.csv {
            out!("{}", table(&files)?);
        } else if !quiet {
            tell(&files);
        }
        if let Some(path) = &self.m3u {
            write(path, &playlist(&files))?;
        }
        if let Some(path) = &self.html {
            let who: Vec<String> = query.with.iter().map(ToString::to_string).collect();
            let title = format!("Files with {}", who.join(" and "));
            write(path, &page(&library, &title, &files).map_err(refused)?)?;
        }
        Ok(())
    }
}

/// Refuses outputs that would replace each other, a video or photo of the library, or the library itself.
fn refuse_outputs(library: &Library, outputs: [(&str, &Option<PathBuf>); 2]) -> Result<()> {
    let outputs: Vec<(&str, &Path)> =
        outputs.iter().filter_map(|(flag, path)| Some((*flag, path.as_deref()?))).collect();
    outputs::refuse_shared(&outputs)?;
    for (flag, path) in outputs {
        if is_standard_output(path) {
            continue;
        }
        let shown = path.display();
        if library.has(path).map_err(refused)? {
            let reason = format!("{flag} {shown} is a video or photo of the library: choose another file");
            return Err(UsageError(reason).into());
        }
        let whole = path.canonicalize().ok();
        let own = whole.zip(library.folder().canonicalize().ok());
        if own.is_some_and(|(whole, folder)| whole.is_file() && whole.starts_with(folder)) {
            let reason = format!("{flag} {shown} is a file of the library itself: choose another file");
            return Err(UsageError(reason).into());
        }
    }
    Ok(())
}

/// Writes a text file, or standard output.
fn write(path: &Path, text: &str) -> Result<()> {
    if is_standard_output(path) {
        out!("{text}");
        return Ok(());
    }
    file::write(path, text.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))
}

fn found(file: &FoundFile) -> serde_json::Value {
    let spans = |spans: &[sphereface::report::Span]| -> Vec<[f64; 2]> {
        spans.iter().map(|span| [span.start_ns as f64 / 1e9, span.end_ns as f64 / 1e9]).collect()
    };
    let people: Vec<_> = (file.people.iter())
        .map(|one| {
            let (name, stranger) = match &one.who {
                Subject::Named(name) => (Some(name), None),
                Subject::Stranger(number) => (None, Some(number)),
            };
            json!({
                "name": name, "stranger": stranger, "spans_s": spans(&one.spans), "frames": one.frames,
                "angle_deg": one.angle_deg,
            })
        })
        .collect();
    json!({
        "paths": file.paths, "content": file.content, "kind": file.kind.name(), "taken": library::date(file.taken_s),
        "duration_s": file.duration_ns as f64 / 1e9, "people": people, "spans_s": spans(&file.spans),
    })
}

fn table(files: &[FoundFile]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["path", "kind", "taken", "who", "start_s", "end_s"])?;
    for file in files {
        let path = file.paths.first().map_or("", String::as_str);
        let taken = library::date(file.taken_s);
        for one in &file.people {
            let who = one.who.to_string();
            if one.spans.is_empty() {
                writer.write_record([path, file.kind.name(), &taken, &who, "", ""])?;
            }
            for span in &one.spans {
                let (start, end) = (span.start_ns as f64 / 1e9, span.end_ns as f64 / 1e9);
                writer.write_record([
                    path,
                    file.kind.name(),
                    &taken,
                    &who,
                    &start.to_string(),
                    &end.to_string(),
                ])?;
            }
        }
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn tell(files: &[FoundFile]) {
    for file in files {
        let path = file.paths.first().map_or_else(|| "(no longer there)".to_owned(), |path| printable(path));
        let spans: Vec<String> = file.spans.iter().map(ToString::to_string).collect();
        let spans = if spans.is_empty() { file.kind.name().to_owned() } else { spans.join(", ") };
        let more = match file.paths.len() {
            0 | 1 => String::new(),
            2 => " (and a copy)".to_owned(),
            copies => format!(" (and {} copies)", copies - 1),
        };
        outln!("{}  {path}{more}  {spans}", library::date(file.taken_s).get(..10).unwrap_or_default());
    }
    let videos = files.iter().filter(|file| file.kind == Kind::Video).count();
    let seconds: f64 =
        files.iter().flat_map(|file| &file.spans).map(|span| span.length_ns() as f64 / 1e9).sum();
    let photos = counted(files.len() - videos, "photo");
    outln!("{} ({seconds:.0} s of them), {photos}", counted(videos, "video"));
}

/// List the people with names, and the number of files with each
#[derive(Debug, Args)]
pub struct PeopleArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PeopleArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        refresh(&library)?;
        let people = library.people().map_err(refused)?;
        if self.json {
            let list = people.iter().map(|one| {
                json!({
                    "name": one.name, "videos": one.videos, "photos": one.photos,
                    "screen_s": one.screen_ns as f64 / 1e9, "first": library::date(one.first_s), "last": library::date(one.last_s),
                })
            });
            outln!("{}", json!(list.collect::<Vec<_>>()));
            return Ok(());
        }
        let width = people.iter().map(|one| one.name.chars().count()).max().unwrap_or(0);
        for one in &people {
            let day = |seconds: i64| library::date(seconds).get(..10).unwrap_or_default().to_owned();
            let (first, last) = (day(one.first_s), day(one.last_s));
            let seconds = one.screen_ns as f64 / 1e9;
            outln!(
                "{:width$}  {} videos ({seconds:.0} s), {} photos, {first} to {last}",
                one.name,
                one.videos,
                one.photos
            );
        }
        if people.is_empty() {
            outln!(
                "nobody has a name yet: analyse the files with a gallery (work --gallery DIR), or name a stranger"
            );
        }
        Ok(())
    }
}

/// List the people without a name, over all files
///
/// Those in most files come first. `name N NAME` names one, `merge` and `split` repair the groups.
#[derive(Debug, Args)]
pub struct StrangersArgs {
    /// Only this stranger, with every track
    #[arg(value_name = "N")]
    number: Option<i64>,
    /// List all of them, not only the first twenty
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page with pictures that opens without a network
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

/// Groups the strangers again if anything changed.
fn group(library: &Library) -> Result<()> {
    let engine = engine_of(&naming(library)?)?;
    library.group_strangers(&engine, engine.threads()).map_err(refused)?;
    Ok(())
}

impl StrangersArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        refuse_outputs(&library, [("--html", &self.html), ("", &None)])?;
        refresh(&library)?;
        group(&library)?;
        let mut strangers = library.strangers().map_err(refused)?;
        if let Some(number) = self.number {
            strangers.retain(|one| one.number == number);
            if strangers.is_empty() {
                return Err(library::LibraryError::NoStranger(number).into());
            }
        }
        if let Some(path) = &self.html {
            let most = if self.all { strangers.len() } else { LISTED.min(strangers.len()) };
            write(path, &library::strangers_page(&library, &strangers[..most]).map_err(refused)?)?;
        }
        if self.json {
            outln!("{}", json!(strangers.iter().map(stranger).collect::<Vec<_>>()));
            return Ok(());
        }
        let most = if self.all || strangers.len() <= LISTED + 1 { strangers.len() } else { LISTED };
        for one in &strangers[..most] {
            let (files, tracks, seconds) = (one.files, one.tracks.len(), one.screen_ns as f64 / 1e9);
            let (in_files, seen) = (counted(files, "file"), counted(tracks, "track"));
            outln!("{}: {in_files}, {seen}, {seconds:.1} s", one.number);
            let shown = if self.number.is_some() { tracks } else { TRACKS.min(tracks) };
            for track in &one.tracks[..shown] {
                outln!("    {}#{}  at {:.1} s", track.path, track.track, track.start_ns as f64 / 1e9);
            }
        }
        if most < strangers.len() {
            outln!("and {} more: --all lists them", strangers.len() - most);
        }
        if strangers.is_empty() {
            outln!("there are no strangers");
        }
        Ok(())
    }
}

fn stranger(one: &Stranger) -> serde_json::Value {
    let tracks: Vec<_> = (one.tracks.iter())
        .map(|track| {
            json!({
                "path": track.path, "content": track.content, "track": track.track, "views": track.views,
                "start_s": track.start_ns as f64 / 1e9, "end_s": track.end_ns as f64 / 1e9,
            })
        })
        .collect();
    json!({ "number": one.number, "files": one.files, "screen_s": one.screen_ns as f64 / 1e9, "tracks": tracks })
}

/// Export the whole catalogue for other programs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library export faces.csv\n  \
    sphereface library export - | jq 'select(.name == \"Ada\") | .path'\n  \
    sphereface library export --sidecars")]
pub struct ExportArgs {
    /// File to write: .csv or .jsonl; - for JSON Lines on standard output
    #[arg(value_name = "FILE", required_unless_present = "sidecars")]
    file: Option<PathBuf>,
    /// Write a file beside each video and photo that lists who is in it: clip.mp4.faces.json
    #[arg(long)]
    sidecars: bool,
}

impl ExportArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let format = match self.file.as_deref() {
            Some(path) if is_standard_output(path) => Some(ExportFormat::JsonLines),
            Some(path) => Some(ExportFormat::of_path(path).ok_or_else(|| {
                UsageError(format!("{} has no known extension: use .csv or .jsonl", path.display()))
            })?),
            None => None,
        };
        let library = place.open()?;
        refuse_outputs(&library, [("the file", &self.file), ("", &None)])?;
        refresh(&library)?;
        group(&library)?;
        if let (Some(path), Some(format)) = (&self.file, format) {
            if is_standard_output(path) {
                let mut text = Vec::new();
                library.export(format, &mut text).map_err(refused)?;
                out!("{}", String::from_utf8_lossy(&text));
            } else {
                let mut count = 0;
                let written = file::write_with(path, |to| {
                    let mut to = BufWriter::new(to);
                    count = library.export(format, &mut to).map_err(std::io::Error::other)?;
                    Ok(())
                });
                written.with_context(|| format!("{} cannot be written", path.display()))?;
                errln!("wrote {} to {}", counted(count, "track"), path.display());
            }
        }
        if self.sidecars {
            let count = library.export_sidecars().map_err(refused)?;
            errln!("wrote {} named *.faces.json", counted(count, "file"));
        }
        Ok(())
    }
}
