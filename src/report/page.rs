//! A self-contained HTML page: who was seen when, with pictures; click to seek.

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde::Serialize;

use super::{Appearance, Output, ReportError};
use crate::annotate::Colours;

/// The page, in which [`DATA`] is replaced by the data.
const TEMPLATE: &str = include_str!("page.html");
const DATA: &str = "{{DATA}}";

/// JPEG quality of thumbnails.
const THUMBNAIL_QUALITY: u8 = 85;

/// The video of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageVideo {
    /// None; the reader of the page may choose a file.
    None,
    /// A file that the page refers to, relative to its own folder.
    Beside(PathBuf),
    /// A file that is embedded in the page.
    Embedded(PathBuf),
}

/// A person on the page.
#[derive(Debug, Clone)]
pub struct PagePerson {
    /// The person and their appearances.
    pub appearance: Appearance,
    /// A picture of them.
    pub thumbnail: Option<RgbImage>,
    /// Time of that picture, in nanoseconds since the start.
    pub best_ns: Option<u64>,
    /// A command that gives a stranger a name, shown to be copied.
    pub enroll: Option<String>,
}

/// The content of a report.
#[derive(Debug, Clone)]
pub struct Page {
    /// The name of the video, for the heading.
    pub title: String,
    /// The video to play.
    pub video: PageVideo,
    /// Duration of the video in nanoseconds.
    pub duration_ns: u64,
    /// Everyone seen.
    pub people: Vec<PagePerson>,
    /// Their colours, as in the video.
    pub colours: Colours,
    /// Additional facts: heading and text, for example the threshold.
    pub facts: Vec<(String, String)>,
}

/// The data for the script of the page.
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    /// Parts of a path relative to the page, joined there; or one data URI.
    video: Option<Vec<String>>,
    embedded: bool,
    duration_s: f64,
    people: Vec<Person<'a>>,
    facts: &'a [(String, String)],
}

#[derive(Serialize)]
struct Person<'a> {
    label: String,
    known: bool,
    colour: String,
    frames: u64,
    screen_s: f64,
    spans_s: Vec<[f64; 2]>,
    thumbnail: Option<String>,
    best_s: Option<f64>,
    enroll: Option<&'a str>,
}

impl Page {
    /// Writes the page, which will be at `path`: people with a name first, then strangers, each by the time
    /// on screen, longest first.
    ///
    /// # Errors
    /// When the file cannot be written, or a video to embed cannot be read.
    pub fn write(&self, mut output: Output, path: &Path) -> Result<(), ReportError> {
        let (video, embedded) = match &self.video {
            PageVideo::None => (None, false),
            PageVideo::Beside(video) => (Some(relative(path, video)), false),
            PageVideo::Embedded(video) => (Some(vec![data_uri(video)?]), true),
        };
        let mut people: Vec<&PagePerson> = self.people.iter().collect();
        people.sort_by_key(|person| {
            let appearance = &person.appearance;
            (appearance.who.name().is_none(), std::cmp::Reverse(appearance.screen_time_ns()), &appearance.who)
        });
        let people = people.into_iter().map(|one| person(one, &self.colours)).collect();
        let duration_s = seconds(self.duration_ns);
        let data = Data { title: &self.title, video, embedded, duration_s, people, facts: &self.facts };
        // Records have string keys and finite numbers only, so serialising does not fail.
        let json = serde_json::to_string(&data).expect("the page's data is plain");
        output.write(TEMPLATE.replacen(DATA, &harmless(&json), 1).as_bytes())?;
        output.finish()
    }
}

fn person<'a>(person: &'a PagePerson, colours: &Colours) -> Person<'a> {
    let Appearance { who, frames, spans } = &person.appearance;
    Person {
        label: who.to_string(),
        known: who.name().is_some(),
        colour: colours.css(who.name()),
        frames: *frames,
        screen_s: seconds(person.appearance.screen_time_ns()),
        spans_s: spans.iter().map(|span| [seconds(span.start_ns), seconds(span.end_ns)]).collect(),
        thumbnail: person.thumbnail.as_ref().and_then(jpeg_uri),
        best_s: person.best_ns.map(seconds),
        enroll: person.enroll.as_deref(),
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// JSON without characters that an HTML parser reacts to: `<`, `>` and `&` only occur inside of strings,
/// where they may be escaped.
fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A picture as a `data:` URI; `None` for one that JPEG cannot encode.
fn jpeg_uri(image: &RgbImage) -> Option<String> {
    let mut jpeg = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, THUMBNAIL_QUALITY);
    encoder.encode_image(image).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}

fn data_uri(video: &Path) -> Result<String, ReportError> {
    let bytes =
        std::fs::read(video).map_err(|source| ReportError::Read { path: video.to_owned(), source })?;
    let extension = video.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let kind = match extension.as_str() {
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "mov" => "video/quicktime",
        _ => "video/mp4",
    };
    Ok(format!("data:{kind};base64,{}", STANDARD.encode(bytes)))
}

/// The parts of the relative path from the folder of `page` to `video`.
fn relative(page: &Path, video: &Path) -> Vec<String> {
    let absolute = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = |part: &Component| part.as_os_str().to_string_lossy().into_owned();
    let (Some(folder), Some(target)) = (absolute(folder), absolute(video)) else {
        return video.components().map(|part| name(&part)).collect();
    };
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), target.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| "..".to_owned());
    up.chain(to[common..].iter().map(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;
    use crate::identify::Who;

    fn page(video: PageVideo, names: &[&str]) -> Page {
        let spans = vec![Span { start_ns: 1_500_000_000, end_ns: 4_000_000_000 }];
        let whos = names.iter().map(|name| Who::Named((*name).to_owned())).chain([Who::Stranger(1)]);
        let people = whos.map(|who| PagePerson {
            appearance: Appearance { who, frames: 75, spans: spans.clone() },
            thumbnail: Some(RgbImage::from_pixel(8, 8, image::Rgb([200, 100, 50]))),
            best_ns: Some(2_000_000_000),
            enroll: None,
        });
        Page {
            title: "</title><script>alert(1)</script>".into(),
            video,
            duration_ns: 10_000_000_000,
            people: people.collect(),
            colours: Colours::default(),
            facts: vec![("Threshold".into(), "68 degrees".into())],
        }
    }

    fn save(page: &Page, path: &Path) -> Result<(), ReportError> {
        page.write(Output::create(path)?, path)
    }

    fn data(path: &Path) -> serde_json::Value {
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn names_cannot_break_out_of_the_page_and_nothing_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        let hostile = "</script><img src=x onerror=alert(1)> & {{DATA}}";
        save(&page(PageVideo::None, &[hostile]), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("alert(1)>") && !text.contains("<img src=x"));
        assert_eq!(text.matches("</script>").count(), 2, "the data and the page's own script");
        assert!(!text.contains("http://") && !text.contains("https://"), "nothing from a network");
        let data = data(&path);
        assert_eq!(data["people"][0]["label"], hostile);
        assert_eq!(data["title"], "</title><script>alert(1)</script>");
        assert_eq!(data["people"][1]["label"], "Unknown 1");
        assert_eq!(data["people"][0]["spans_s"], serde_json::json!([[1.5, 4.0]]));
        assert!(data["people"][0]["thumbnail"].as_str().unwrap().starts_with("data:image/jpeg;base64,/9j/"));
    }

    #[test]
    fn the_video_is_found_from_where_the_page_lies_or_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for sub in ["out/pages", "in"] {
            std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        }
        let video = folder.path().join("in/a clip #1.mp4");
        std::fs::write(&video, b"video").unwrap();
        let path = folder.path().join("out/pages/report.html");
        save(&page(PageVideo::Beside(video.clone()), &[]), &path).unwrap();
        assert_eq!(data(&path)["video"], serde_json::json!(["..", "..", "in", "a clip #1.mp4"]));
        save(&page(PageVideo::Embedded(video), &[]), &path).unwrap();
        assert_eq!(data(&path)["video"], serde_json::json!(["data:video/mp4;base64,dmlkZW8="]));
        let missing = save(&page(PageVideo::Embedded("no/such.mp4".into()), &[]), &path).unwrap_err();
        assert!(missing.to_string().contains("no/such.mp4"), "{missing}");
        assert_eq!(data(&path)["embedded"], true, "the page from before is still there");
    }
}
