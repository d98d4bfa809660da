//! Subtitles and chapters.

use std::path::Path;

use super::{Appearance, Output, ReportError};

/// Shortest chapter in nanoseconds: a shorter change of people belongs to the chapter before.
pub const MIN_CHAPTER_NS: u64 = 2_000_000_000;

/// A time span with the same people in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scene {
    start_ns: u64,
    end_ns: u64,
    /// Names, in the order of their first appearance in the video; empty when nobody known is there.
    names: Vec<String>,
}

/// Divides the time from 0 to `end_ns` wherever a named person appears or leaves.
fn scenes(people: &[Appearance], end_ns: u64) -> Vec<Scene> {
    let named: Vec<(&str, &Appearance)> =
        people.iter().filter_map(|person| Some((person.who.name()?, person))).collect();
    let spans = || named.iter().flat_map(|(_, person)| &person.spans);
    let end_ns = spans().map(|span| span.end_ns).fold(end_ns, u64::max);
    let mut times: Vec<u64> = spans().flat_map(|span| [span.start_ns, span.end_ns]).collect();
    times.extend([0, end_ns]);
    times.sort_unstable();
    times.dedup();
    let mut scenes: Vec<Scene> = Vec::new();
    for pair in times.windows(2) {
        let there = |person: &Appearance| {
            person.spans.iter().any(|span| span.start_ns <= pair[0] && pair[1] <= span.end_ns)
        };
        let present = named.iter().filter(|(_, person)| there(person));
        let names: Vec<String> = present.map(|(name, _)| (*name).to_owned()).collect();
        match scenes.last_mut() {
            Some(last) if last.names == names => last.end_ns = pair[1],
            _ => scenes.push(Scene { start_ns: pair[0], end_ns: pair[1], names }),
        }
    }
    scenes
}

/// Scenes merged to at least [`MIN_CHAPTER_NS`], if the video is that long.
fn chapters(people: &[Appearance], end_ns: u64) -> Vec<Scene> {
    let mut chapters: Vec<Scene> = Vec::new();
    for scene in scenes(people, end_ns) {
        let short = |scene: &Scene| scene.end_ns - scene.start_ns < MIN_CHAPTER_NS;
        match chapters.last_mut() {
            Some(last) if last.names == scene.names || short(&scene) => last.end_ns = scene.end_ns,
            // Only the first can be short here; the title of the next one is better.
            Some(last) if short(last) => *last = Scene { start_ns: last.start_ns, ..scene },
            _ => chapters.push(scene),
        }
    }
    chapters
}

/// Formats of subtitles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubtitleFormat {
    /// WebVTT (.vtt), for browsers.
    WebVtt,
    /// SubRip (.srt), for players and editors.
    SubRip,
}

impl SubtitleFormat {
    /// The format that the name of a file ends in; `None` for other endings.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "vtt" => Some(Self::WebVtt),
            "srt" => Some(Self::SubRip),
            _ => None,
        }
    }
}

/// Writes subtitles with the names of the people in the picture.
///
/// # Errors
/// When the file cannot be written.
pub fn write_subtitles(
    mut output: Output,
    format: SubtitleFormat,
    people: &[Appearance],
) -> Result<(), ReportError> {
    let named = scenes(people, 0).into_iter().filter(|scene| !scene.names.is_empty());
    let text = match format {
        SubtitleFormat::WebVtt => webvtt(named),
        SubtitleFormat::SubRip => subrip(named),
    };
    output.write(text.as_bytes())?;
    output.finish()
}

/// Formats of chapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChapterFormat {
    /// WebVTT, for a `track` element of the kind `chapters`.
    WebVtt,
    /// FFmpeg's metadata, which `ffmpeg -i VIDEO -i FILE -map_metadata 1 -codec copy OUT` puts
    /// into a video.
    FfMetadata,
}

impl ChapterFormat {
    /// WebVTT if the name ends in `.vtt`, otherwise FFmpeg's metadata.
    pub fn of_path(path: &Path) -> Self {
        let vtt = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("vtt"));
        if vtt { Self::WebVtt } else { Self::FfMetadata }
    }
}

/// Writes chapters from 0 to `end_ns` that begin where people with names come and go and last
/// at least [`MIN_CHAPTER_NS`].
///
/// # Errors
/// When the file cannot be written.
pub fn write_chapters(
    mut output: Output,
    format: ChapterFormat,
    people: &[Appearance],
    end_ns: u64,
) -> Result<(), ReportError> {
    let chapters = chapters(people, end_ns).into_iter();
    let text = match format {
        ChapterFormat::WebVtt => webvtt(chapters),
        ChapterFormat::FfMetadata => ffmetadata(chapters),
    };
    output.write(text.as_bytes())?;
    output.finish()
}

impl Scene {
    /// Start and end in milliseconds, the resolution of subtitles; no cue may be empty.
    fn times_ms(&self) -> [u64; 2] {
        let start = self.start_ns / 1_000_000;
        [start, self.end_ns.div_ceil(1_000_000).max(start + 1)]
    }

    fn title(&self) -> String {
        if self.names.is_empty() { "nobody known".to_owned() } else { self.names.join(", ") }
    }
}

fn webvtt(scenes: impl Iterator<Item = Scene>) -> String {
    let mut text = String::from("WEBVTT\n");
    for scene in scenes {
        let [start, end] = scene.times_ms().map(|ms| clock(ms, '.'));
        let title = scene.title().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text += &format!("\n{start} --> {end}\n{title}\n");
    }
    text
}

/// SubRip has no escapes: names are written unchanged.
fn subrip(scenes: impl Iterator<Item = Scene>) -> String {
    let mut text = String::new();
    for (number, scene) in (1..).zip(scenes) {
        let [start, end] = scene.times_ms().map(|ms| clock(ms, ','));
        let gap = if number == 1 { "" } else { "\n" };
        text += &format!("{gap}{number}\n{start} --> {end}\n{}\n", scene.title());
    }
    text
}

/// Milliseconds in the format of WebVTT (with a point) or SubRip (with a comma).
fn clock(ms: u64, point: char) -> String {
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}{point}{:03}", ms / 1000 % 60, ms % 1000)
}

fn ffmetadata(scenes: impl Iterator<Item = Scene>) -> String {
    let mut text = String::from(";FFMETADATA1\n");
    for scene in scenes {
        let mut title = String::new();
        for c in scene.title().chars() {
            if ['=', ';', '#', '\\', '\n'].contains(&c) {
                title.push('\\');
            }
            title.push(c);
        }
        let Scene { start_ns, end_ns, .. } = scene;
        text += &format!("[CHAPTER]\nTIMEBASE=1/1000000000\nSTART={start_ns}\nEND={end_ns}\ntitle={title}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;
    use crate::identify::Who;

    const S: u64 = 1_000_000_000;

    fn person(who: Who, spans: &[(u64, u64)]) -> Appearance {
        let spans = spans.iter().map(|&(start_ns, end_ns)| Span { start_ns, end_ns }).collect();
        Appearance { who, frames: 1, spans }
    }

    fn people() -> Vec<Appearance> {
        vec![
            person(Who::Named("Ann <1>".into()), &[(S, 20 * S), (30 * S, 31 * S)]),
            person(Who::Named("B=o".into()), &[(8 * S + 1, 14 * S)]),
            person(Who::Stranger(1), &[(0, 40 * S)]),
        ]
    }

    #[test]
    fn subtitles_say_who_is_there_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("who.vtt");
        write_subtitles(Output::create(&path).unwrap(), SubtitleFormat::WebVtt, &people()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "WEBVTT\n\n00:00:01.000 --> 00:00:08.001\nAnn &lt;1&gt;\n\n\
            00:00:08.000 --> 00:00:14.000\nAnn &lt;1&gt;, B=o\n\n\
            00:00:14.000 --> 00:00:20.000\nAnn &lt;1&gt;\n\n00:00:30.000 --> 00:00:31.000\nAnn &lt;1&gt;\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn subrip_has_numbers_and_commas() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("who.srt");
        write_subtitles(Output::create(&path).unwrap(), SubtitleFormat::SubRip, &people()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "1\n00:00:01,000 --> 00:00:08,001\nAnn <1>\n\n\
            2\n00:00:08,000 --> 00:00:14,000\nAnn <1>, B=o\n\n\
            3\n00:00:14,000 --> 00:00:20,000\nAnn <1>\n\n4\n00:00:30,000 --> 00:00:31,000\nAnn <1>\n";
        assert_eq!(text, expected);
        let of = |name| SubtitleFormat::of_path(Path::new(name));
        assert_eq!([of("a.SRT"), of("a.vtt")], [SubtitleFormat::SubRip, SubtitleFormat::WebVtt].map(Some));
        assert_eq!([of("a.txt"), of("srt"), of("-")], [None; 3]);
    }

    #[test]
    fn chapters_cover_everything_once_and_none_is_short() {
        for end_ns in [0, 40 * S] {
            let chapters = chapters(&people(), end_ns);
            assert_eq!(chapters[0].start_ns, 0);
            assert_eq!(chapters.last().unwrap().end_ns, end_ns.max(31 * S));
            assert!(chapters.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns));
            assert!(chapters.iter().all(|chapter| chapter.end_ns - chapter.start_ns >= MIN_CHAPTER_NS));
            let titles: Vec<String> = chapters.iter().map(Scene::title).collect();
            assert_eq!(titles, ["Ann <1>", "Ann <1>, B=o", "Ann <1>", "nobody known"]);
        }
        assert_eq!(chapters(&[], 3 * S).len(), 1, "a short video is one chapter");
        assert_eq!(chapters(&[], 0).len(), 0);
    }

    #[test]
    fn both_formats_are_written_by_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let [vtt, txt] = ["c.VTT", "c.txt"].map(|name| folder.path().join(name));
        for path in [&vtt, &txt] {
            let format = ChapterFormat::of_path(path);
            write_chapters(Output::create(path).unwrap(), format, &people(), 40 * S).unwrap();
        }
        assert!(
            std::fs::read_to_string(&vtt).unwrap().starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:08.001\n")
        );
        let text = std::fs::read_to_string(&txt).unwrap();
        assert!(
            text.contains(
                "[CHAPTER]\nTIMEBASE=1/1000000000\nSTART=8000000001\nEND=14000000000\ntitle=Ann <1>, B\\=o\n"
            ),
            "{text}"
        );
    }
}
