//! Search results as one page that opens without a network.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::catalogue::Kind;
use super::export::date;
use super::find::{FoundFile, subjects};
use super::strangers::Stranger;
use super::{Library, LibraryError};
use crate::file::{counted, escaped, percent_encoded};

/// Pictures per stranger.
const PICTURES: usize = 6;

/// The frame of the page; `TITLE` and `BODY` are replaced.
const PAGE: &str = include_str!("page.html");

/// A page of search results, with the best picture of each person in every file. `title` names the query.
///
/// # Errors
/// When the database fails.
pub fn page(library: &Library, title: &str, files: &[FoundFile]) -> Result<String, LibraryError> {
    let mut body = String::new();
    let _ = writeln!(body, "<h1>{}</h1>", escaped(title));
    let photos = files.iter().filter(|file| file.kind == Kind::Photo).count();
    let seconds: f64 =
        files.iter().flat_map(|file| &file.spans).map(|span| span.length_ns() as f64 / 1e9).sum();
    let _ = writeln!(
        body,
        "<p>{}, {seconds:.0} seconds in all, and {}. People: {}.</p>",
        counted(files.len() - photos, "video"),
        counted(photos, "photo"),
        subjects(files).iter().map(|who| escaped(&who.to_string())).collect::<Vec<_>>().join(", ")
    );
    for file in files {
        body.push_str("<section>\n<div class=\"faces\">\n");
        for one in &file.people {
            let who = escaped(&one.who.to_string());
            match library.picture(&file.content, one.track)? {
                Some(jpeg) => {
                    let data = STANDARD.encode(jpeg);
                    let _ = writeln!(
                        body,
                        "<figure><img src=\"data:image/jpeg;base64,{data}\" alt=\"{who}\"><figcaption>{who}</figcaption></figure>"
                    );
                }
                None => drop(writeln!(body, "<figure><figcaption>{who}</figcaption></figure>")),
            }
        }
        body.push_str("</div>\n<div>\n");
        let path = file.paths.first().map_or("", String::as_str);
        let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("(no longer there)");
        let _ = writeln!(body, "<h2><a href=\"{}\">{}</a></h2>", escaped(&address(path)), escaped(name));
        let _ = writeln!(
            body,
            "<p class=\"path\">{} · {}</p>",
            escaped(path),
            date(file.taken_s).replace('T', " ")
        );
        if file.duration_ns > 0 {
            body.push_str(&bar(file));
        }
        body.push_str("<ul>\n");
        for span in &file.spans {
            let start = span.start_ns as f64 / 1e9;
            let _ =
                writeln!(body, "<li><a href=\"{}#t={start:.1}\">{span}</a></li>", escaped(&address(path)));
        }
        body.push_str("</ul>\n</div>\n</section>\n");
    }
    Ok(PAGE.replace("TITLE", &escaped(title)).replace("BODY", &body))
}

/// A page of strangers with their best pictures, and the commands that name them.
///
/// # Errors
/// When the database fails.
pub fn strangers_page(library: &Library, strangers: &[Stranger]) -> Result<String, LibraryError> {
    let mut body = String::from("<h1>Who is this?</h1>\n");
    for one in strangers {
        body.push_str("<section>\n<div class=\"faces\">\n");
        for track in one.tracks.iter().take(PICTURES) {
            if let Some(jpeg) = library.picture(&track.content, track.track)? {
                let data = STANDARD.encode(jpeg);
                let name = track.path.rsplit('/').next().unwrap_or_default();
                let caption = escaped(&format!("{name}#{}", track.track));
                let _ = writeln!(
                    body,
                    "<figure><img src=\"data:image/jpeg;base64,{data}\" alt=\"\"><figcaption>{caption}</figcaption></figure>"
                );
            }
        }
        let (files, tracks) = (counted(one.files, "file"), counted(one.tracks.len(), "track"));
        let number = one.number;
        let seconds = one.screen_ns as f64 / 1e9;
        let _ = writeln!(
            body,
            "</div>\n<div><h2>Stranger {number}</h2><p>{files}, {tracks}, {seconds:.0} s</p>\
             <pre>sphereface library name {number} NAME</pre></div>\n</section>"
        );
    }
    if strangers.is_empty() {
        body.push_str("<p>There are no strangers.</p>\n");
    }
    Ok(PAGE.replace("TITLE", "Who is this?").replace("BODY", &body))
}

/// The spans as marks on a line as long as the video.
fn bar(file: &FoundFile) -> String {
    let mut text = String::from(
        "<svg viewBox=\"0 0 1000 12\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"when\">",
    );
    for span in &file.spans {
        let x = span.start_ns as f64 / file.duration_ns as f64 * 1e3;
        let width = (span.length_ns() as f64 / file.duration_ns as f64 * 1e3).max(2.0);
        let _ = write!(text, "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"12\"/>");
    }
    text + "</svg>\n"
}

/// The address of a local file.
fn address(path: &str) -> String {
    format!("file://{}", percent_encoded(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_stay_text() {
        assert_eq!(address("/a b/\u{e9}?#.mp4"), "file:///a%20b/%C3%A9%3F%23.mp4");
    }
}
