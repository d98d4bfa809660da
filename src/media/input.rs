//! What a source opens, as the user writes it: a file, a still, an address, a webcam or a GStreamer pipeline.
//!
//! The GStreamer elements for each kind are made in `source/connection.rs`.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::MediaError;
use super::content::{Content, Still};

/// Extensions (lower case) of still images. Of a gif, the first picture is used.
const STILL_EXTENSIONS: [&str; 13] =
    ["jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif", "heic", "heif", "avif"];
/// Extensions of videos that cannot be recognised by their first bytes.
const VIDEO_EXTENSIONS: [&str; 22] = [
    "mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "wmv", "asf", "flv", "f4v", "ts", "m2ts",
    "mts", "mpg", "mpeg", "vob", "ogv", "mxf", "dv",
];
/// Extensions of sound files in a video container.
const SOUND_EXTENSIONS: [&str; 7] = ["m4a", "m4b", "ogg", "oga", "opus", "spx", "mka"];
/// Extensions of videos that consist of JPEG pictures.
const MOTION_JPEG_EXTENSIONS: [&str; 2] = ["mjpeg", "mjpg"];

/// An input of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A video file.
    File(PathBuf),
    /// An image file.
    Still(PathBuf),
    /// An `rtsp://`, `rtsps://`, `http://` or `https://` address.
    Url(String),
    /// A camera by number: `/dev/videoN`.
    Webcam(u32),
    /// A GStreamer description, in the syntax of `gst-launch-1.0`, whose last element's source
    /// pad gives video.
    Pipeline(String),
}

/// The path that `-` stands for.
const STANDARD_INPUT: &str = "/dev/stdin";

impl Input {
    /// Parses the argument of a user: `rtsp://…`, `http(s)://…`, `webcam`, `webcam:N`, `/dev/videoN`,
    /// `gst:PIPELINE`, `file://…` (percent-decoded), `-` for standard input, else a path, as
    /// [`Input::of_path`] takes it. A missing file is found when it is opened.
    ///
    /// # Errors
    /// [`MediaError::BadInput`] for an empty text, an unknown scheme or a bad camera number.
    pub fn parse(text: &str) -> Result<Self, MediaError> {
        let bad = |reason: &str| MediaError::BadInput { input: text.to_owned(), reason: reason.to_owned() };
        if text.trim().is_empty() {
            return Err(bad("it is empty; give a file, an address, webcam or gst:PIPELINE"));
        }
        if let Some(description) = text.strip_prefix("gst:") {
            if description.trim().is_empty() {
                return Err(bad("there is no pipeline after gst:"));
            }
            return Ok(Self::Pipeline(description.trim().to_owned()));
        }
        if text == "-" {
            return Ok(Self::File(STANDARD_INPUT.into()));
        }
        if text == "webcam" {
            return Ok(Self::Webcam(0));
        }
        if let Some(number) = text.strip_prefix("webcam:") {
            let number = number.parse().map_err(|_| bad("a camera is webcam or webcam:N, N from 0"))?;
            return Ok(Self::Webcam(number));
        }
        if let Some(Ok(number)) = text.strip_prefix("/dev/video").map(str::parse) {
            return Ok(Self::Webcam(number));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let scheme = scheme.to_ascii_lowercase();
            return match scheme.as_str() {
                "rtsp" | "rtsps" | "http" | "https" if rest.is_empty() => Err(bad("there is no host in it")),
                "rtsp" | "rtsps" | "http" | "https" => Ok(Self::Url(format!("{scheme}://{rest}"))),
                "file" => {
                    let path =
                        path_of_url(rest).ok_or_else(|| bad("it is not the address of a local file"))?;
                    Ok(Self::of_path(&path))
                }
                _ => Err(bad("the supported schemes are rtsp, http, https and file")),
            };
        }
        Ok(Self::of_path(Path::new(text)))
    }

    /// As [`Input::parse`], for an argument in which a file name may hold any bytes.
    ///
    /// # Errors
    /// As [`Input::parse`].
    pub fn parse_argument(argument: &OsStr) -> Result<Self, MediaError> {
        match argument.to_str() {
            Some(text) => Self::parse(text),
            None => Ok(Self::of_path(Path::new(argument))),
        }
    }

    /// The input a path names: [`Input::Still`] or [`Input::File`] by the content of the file. If the content
    /// is unknown, or there is no file, it is a still by its extension: jpg, jpeg, jfif, png, webp, bmp, tif,
    /// tiff, gif, heic, heif or avif.
    pub fn of_path(path: &Path) -> Self {
        let still = match Content::of_file(path) {
            Content::Still(Still::Jpeg) => !has_extension(path, &MOTION_JPEG_EXTENSIONS),
            Content::Still(_) => true,
            Content::Video => false,
            Content::Unknown => Self::names_still(path),
        };
        if still { Self::Still(path.to_owned()) } else { Self::File(path.to_owned()) }
    }

    /// The video or still in a file of a folder that may hold other files too: as [`Input::of_path`], or
    /// `None` for a file that is neither by its content nor by its extension.
    pub fn in_folder(path: &Path) -> Option<Self> {
        let known = match Content::of_file(path) {
            Content::Still(_) => true,
            Content::Video => !has_extension(path, &SOUND_EXTENSIONS),
            Content::Unknown => {
                let extensions = [&VIDEO_EXTENSIONS[..], &STILL_EXTENSIONS, &MOTION_JPEG_EXTENSIONS];
                extensions.iter().any(|some| has_extension(path, some))
            }
        };
        known.then(|| Self::of_path(path))
    }

    /// Whether the extension of a path is that of a still, whatever the file holds.
    pub fn names_still(path: &Path) -> bool {
        has_extension(path, &STILL_EXTENSIONS)
    }

    /// Whether pictures come at their own pace (a camera or an RTSP stream), so that a slow consumer must
    /// lose some. An [`Input::Pipeline`] counts as live if its description has `is-live=true`; once it is
    /// open, `SourceInfo::live` is exact.
    pub fn is_live(&self) -> bool {
        match self {
            Self::File(_) | Self::Still(_) => false,
            Self::Webcam(_) => true,
            Self::Url(_) => self.is_rtsp(),
            Self::Pipeline(description) => {
                description.contains("is-live=true") || description.contains("is-live=1")
            }
        }
    }

    /// Whether it is an RTSP address, which is reconnected when the connection is lost.
    pub fn is_rtsp(&self) -> bool {
        matches!(self, Self::Url(url) if url.starts_with("rtsp"))
    }

    /// Whether it can be read again from its beginning: a file on a disk, but not a FIFO or a pipe, standard
    /// input included.
    pub fn is_read_twice(&self) -> bool {
        matches!(self, Self::File(path) | Self::Still(path) if is_read_twice(path))
    }

    /// The file it reads, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Still(path) => Some(path),
            _ => None,
        }
    }
}

impl std::str::FromStr for Input {
    type Err = MediaError;

    fn from_str(text: &str) -> Result<Self, MediaError> {
        Self::parse(text)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Still(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&without_password(url)),
            Self::Webcam(number) => write!(f, "webcam:{number}"),
            Self::Pipeline(description) => write!(f, "gst:{description}"),
        }
    }
}

/// The percent-decoded path in a file:// address of this machine, given the part after the two slashes.
fn path_of_url(rest: &str) -> Option<PathBuf> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    // The query and the fragment are not part of the path.
    let mut bytes = path.split(['?', '#']).next()?.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| Some(char::from(byte?).to_digit(16)? as u8);
                digit(bytes.next())? << 4 | digit(bytes.next())?
            }
            byte => byte,
        });
    }
    if decoded.is_empty() || decoded.contains(&0) {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        Some(std::ffi::OsString::from_vec(decoded).into())
    }
    #[cfg(not(unix))]
    {
        // A drive letter comes after the slash.
        let text = String::from_utf8(decoded).ok()?;
        let drive = text.strip_prefix('/').filter(|rest| rest.as_bytes().get(1) == Some(&b':'));
        Some(drive.unwrap_or(&text).into())
    }
}

/// Whether a path names a file that can be read again, without opening it.
pub(super) fn is_read_twice(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file())
}

/// An address for messages, without `user:password@`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Video containers that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MPEG-4 part 14 (`.mp4`).
    Mp4,
    /// Matroska (`.mkv`).
    Matroska,
    /// WebM (`.webm`).
    WebM,
}

impl Container {
    /// The container for the extension of an output name.
    ///
    /// # Errors
    /// [`MediaError::UnknownContainer`] when the extension is not mp4, mkv or webm.
    pub fn from_path(path: &Path) -> Result<Self, MediaError> {
        for (extension, container) in [("mp4", Self::Mp4), ("mkv", Self::Matroska), ("webm", Self::WebM)] {
            if has_extension(path, &[extension]) {
                return Ok(container);
            }
        }
        Err(MediaError::UnknownContainer(path.to_owned()))
    }

    /// Its name, as used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "MP4",
            Self::Matroska => "Matroska",
            Self::WebM => "WebM",
        }
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let Some(extension) = path.extension().and_then(|e| e.to_str()) else { return false };
    extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_becomes_the_input_meant() {
        let file = |path: &str| Input::File(path.into());
        let still = |path: &str| Input::Still(path.into());
        for (text, input, live) in [
            ("clip.mp4", file("clip.mp4"), false),
            ("-", file("/dev/stdin"), false),
            ("a folder/no extension", file("a folder/no extension"), false),
            ("file:///tmp/a.mkv", file("/tmp/a.mkv"), false),
            ("file:///home/me/my%20clip%c3%A9.mp4", file("/home/me/my clip\u{e9}.mp4"), false),
            ("file://localhost/tmp/a.mkv", file("/tmp/a.mkv"), false),
            ("me.JPG", still("me.JPG"), false),
            ("me.heic", still("me.heic"), false),
            ("me.jfif", still("me.jfif"), false),
            ("dance.gif", still("dance.gif"), false),
            ("rtsp://cam/1", Input::Url("rtsp://cam/1".into()), true),
            ("HTTPS://host/a.mp4", Input::Url("https://host/a.mp4".into()), false),
            ("webcam", Input::Webcam(0), true),
            ("webcam:2", Input::Webcam(2), true),
            ("/dev/video1", Input::Webcam(1), true),
            ("gst: videotestsrc is-live=true", Input::Pipeline("videotestsrc is-live=true".into()), true),
            ("gst:videotestsrc", Input::Pipeline("videotestsrc".into()), false),
        ] {
            let parsed = Input::parse(text).unwrap();
            assert_eq!(parsed, input, "{text}");
            assert_eq!(parsed.is_live(), live, "{text}");
        }
        for text in [
            "",
            "  ",
            "webcam:x",
            "webcam:-1",
            "gst:",
            "ftp://host/a",
            "rtsp://",
            "file://",
            "file:///a%2",
            "file:///%00",
        ] {
            let message = Input::parse(text).unwrap_err().to_string();
            assert!(message.contains("is not an input"), "{text}: {message}");
        }
    }

    #[test]
    fn what_a_file_holds_counts_more_than_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
        for (name, content, still) in [
            ("ada.jfif", &jpeg[..], true),
            ("ada", jpeg, true),
            ("ada.mp4", jpeg, true),
            ("ada.mjpeg", jpeg, false),
            ("ada.heic.mp4", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", true),
            ("clip.jpg", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", false),
            ("text.jpg", b"no picture at all", true),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            assert_eq!(matches!(Input::of_path(&path), Input::Still(_)), still, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_name_may_hold_any_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let name = OsStr::from_bytes(b"J\xf6rg.mp4");
        assert_eq!(Input::parse_argument(name).unwrap(), Input::File(name.into()));
        let of_url = Input::parse("file:///tmp/J%F6rg.mp4").unwrap();
        assert_eq!(of_url, Input::File(OsStr::from_bytes(b"/tmp/J\xf6rg.mp4").into()));
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = Input::parse("rtsp://me:secret@cam:554/a@b").unwrap().to_string();
        assert_eq!(shown, "rtsp://cam:554/a@b");
    }

    #[test]
    fn the_extension_names_the_container() {
        assert_eq!(Container::from_path(Path::new("a.b/C.MP4")).unwrap(), Container::Mp4);
        assert_eq!(Container::from_path(Path::new("a.mkv")).unwrap(), Container::Matroska);
        assert_eq!(Container::from_path(Path::new("a.webm")).unwrap(), Container::WebM);
        for name in ["a", "a.avi", ".mp4", "mp4"] {
            assert!(Container::from_path(Path::new(name)).is_err(), "{name}");
        }
    }
}
