//! Finding the videos and photos in folders, and identifying files by content instead of name.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::LibraryError;
use crate::file;
use crate::media::{self, Input};

/// Bytes hashed at once.
const PART: usize = 1 << 20;

/// A video or photo found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its absolute path, without symbolic links.
    pub path: String,
    /// Whether it is a photo.
    pub photo: bool,
    /// Its length in bytes.
    pub bytes: i64,
    /// Time of the last change, in nanoseconds since 1970.
    pub modified_ns: i64,
}

/// The result of a scan.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Videos and photos, by path. A file with several links is listed once.
    pub found: Vec<Found>,
    /// Files that were skipped because they may still grow.
    pub growing: Vec<Found>,
    /// The absolute paths of the scanned folders and files.
    pub roots: Vec<String>,
    /// Paths that could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// The videos and photos in `paths` and in all folders below, except hidden ones. Symbolic links are
/// followed, and each folder is visited once. `except` and galleries are not entered.
///
/// # Errors
/// When one of `paths` itself cannot be read.
pub(super) fn scan(paths: &[PathBuf], except: Option<&Path>) -> Result<Scan, LibraryError> {
    let mut scan = Scan::default();
    let (mut files, mut visited) = (BTreeSet::new(), BTreeSet::new());
    let except = except.and_then(|path| path.canonicalize().ok());
    if let Some(except) = except {
        visited.insert(except);
    }
    let mut waiting = Vec::new();
    for path in paths {
        let read = |source| LibraryError::Read { path: path.clone(), source };
        let whole = path.canonicalize().map_err(read)?;
        if whole.is_dir() {
            fs::read_dir(&whole).map_err(read)?;
            waiting.push(whole.clone());
        } else {
            files.insert(whole.clone());
        }
        scan.roots.push(text(&whole)?);
    }
    let named = files.clone();
    while let Some(folder) = waiting.pop() {
        if !visited.insert(folder.clone()) || is_person_of_gallery(&folder) {
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                scan.unreadable.push((folder, error.to_string()));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || file::is_temporary(&name) {
                continue;
            }
            match entry.path().canonicalize() {
                Ok(path) if path.is_dir() => waiting.push(path),
                Ok(path) => drop(files.insert(path)),
                Err(error) => scan.unreadable.push((entry.path(), error.to_string())),
            }
        }
    }
    for path in files {
        match look(&path) {
            // In a folder, other files are normal.
            Ok(None) if named.contains(&path) => {
                scan.unreadable.push((path, "it is neither a video nor a photo".into()));
            }
            Ok(found) => scan.found.extend(found),
            Err(error) => scan.unreadable.push((path, error)),
        }
    }
    scan.unreadable.sort();
    Ok(scan)
}

/// Whether a folder is a person of a gallery: stills are not photos to analyse.
fn is_person_of_gallery(folder: &Path) -> bool {
    folder.join("person.json").is_file() && folder.join("stills").is_dir()
}

/// The file at a path, if it is a video or a photo.
fn look(path: &Path) -> Result<Option<Found>, String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Ok(None);
    }
    // Its first bytes show whether it is one.
    File::open(path).map_err(|error| error.to_string())?;
    let Some(input) = Input::in_folder(path) else { return Ok(None) };
    let photo = matches!(input, Input::Still(_));
    let path = text(path).map_err(|error| error.to_string())?;
    Ok(Some(Found { path, photo, bytes: length(&metadata), modified_ns: modified_ns(&metadata) }))
}

fn text(path: &Path) -> Result<String, LibraryError> {
    path.to_str().map(str::to_owned).ok_or_else(|| LibraryError::Path(path.to_owned()))
}

fn length(metadata: &Metadata) -> i64 {
    i64::try_from(metadata.len()).unwrap_or(i64::MAX)
}

fn modified_ns(metadata: &Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether a file is unchanged, by its length and the time of its last change.
pub(super) fn is_unchanged(path: &Path, bytes: i64, modified: i64) -> bool {
    path.metadata().is_ok_and(|now| now.is_file() && length(&now) == bytes && modified_ns(&now) == modified)
}

/// A digest of the content of a file, in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub(super) fn content(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = blake3::Hasher::new();
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part)? {
            0 => break,
            read => hash.update(&part[..read]),
        };
    }
    Ok(hash.finalize().to_hex().to_string())
}

/// The time at which a video or photo was taken, in seconds since 1970 of the local clock there: as stated in
/// the file, else the time of its last change.
pub(super) fn taken_s(found: &Found) -> i64 {
    let path = Path::new(&found.path);
    let said = if found.photo { photo_taken_s(path) } else { media::recorded_s(path) };
    said.unwrap_or(found.modified_ns / 1_000_000_000)
}

/// The time in the EXIF data of a photo.
fn photo_taken_s(path: &Path) -> Option<i64> {
    exif_taken_s(BufReader::new(File::open(path).ok()?))
}

pub(super) fn exif_taken_s(mut photo: impl io::BufRead + io::Seek) -> Option<i64> {
    let data = exif::Reader::new().read_from_container(&mut photo).ok()?;
    let fields = [exif::Tag::DateTimeOriginal, exif::Tag::DateTimeDigitized, exif::Tag::DateTime];
    fields.iter().find_map(|&tag| {
        let field = data.get_field(tag, exif::In::PRIMARY)?;
        let exif::Value::Ascii(lines) = &field.value else { return None };
        let time = exif::DateTime::from_ascii(lines.first()?).ok()?;
        let (year, month, day) = (i32::from(time.year), time.month.into(), time.day.into());
        let date = chrono::NaiveDate::from_ymd_opt(year, month, day)?;
        let time = date.and_hms_opt(time.hour.into(), time.minute.into(), time.second.into())?;
        Some(time.and_utc().timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn names(scan: &Scan) -> Vec<&str> {
        scan.found.iter().map(|one| Path::new(&one.path).file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn folders_are_entered_once_and_only_pictures_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("library")).unwrap();
        fs::write(at("a/photo.jpg"), b"\xff\xd8\xff\xe0").unwrap();
        fs::write(at("a/b/clip"), b"\x1a\x45\xdf\xa3").unwrap();
        fs::write(at("a/b/notes.txt"), b"nothing to see").unwrap();
        fs::write(at("a/b/song.m4a"), b"\0\0\0\x18ftypM4A ").unwrap();
        fs::write(at("a/.hidden.jpg"), b"\xff\xd8\xff\xe0").unwrap();
        fs::write(at("library/old.jpg"), b"\xff\xd8\xff\xe0").unwrap();
        fs::create_dir_all(at("gallery/Ada/stills")).unwrap();
        fs::write(at("gallery/Ada/person.json"), "{}").unwrap();
        fs::write(at("gallery/Ada/stills/1.jpg"), b"\xff\xd8\xff\xe0").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink(at("a"), at("a/b/circle")).unwrap();
            symlink(at("a/photo.jpg"), at("again.jpg")).unwrap();
            symlink(at("nowhere"), at("broken.jpg")).unwrap();
        }
        let found = scan(&[folder.path().to_owned()], Some(&at("library"))).unwrap();
        assert_eq!(names(&found), ["clip", "photo.jpg"]);
        assert!(!found.found[0].photo && found.found[1].photo);
        #[cfg(unix)]
        assert_eq!(found.unreadable.len(), 1, "{:?}", found.unreadable);
        assert!(matches!(scan(&[at("nowhere")], None), Err(LibraryError::Read { .. })));
    }

    #[test]
    fn what_is_in_a_file_tells_it_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.jpg"), folder.path().join("b.jpg"));
        fs::write(&a, b"\xff\xd8\xff\xe0 one").unwrap();
        fs::copy(&a, &b).unwrap();
        assert_eq!(content(&a).unwrap(), content(&b).unwrap());
        fs::write(&b, b"\xff\xd8\xff\xe0 two").unwrap();
        assert_ne!(content(&a).unwrap(), content(&b).unwrap());
        let found = look(&b).unwrap().unwrap();
        assert!(is_unchanged(&b, found.bytes, found.modified_ns));
        fs::write(&b, b"\xff\xd8\xff\xe0 three").unwrap();
        assert!(!is_unchanged(&b, found.bytes, found.modified_ns));
    }

    #[test]
    fn a_photo_says_when_it_was_taken() {
        let field = exif::Field {
            tag: exif::Tag::DateTimeOriginal,
            ifd_num: exif::In::PRIMARY,
            value: exif::Value::Ascii(vec![b"2019:07:14 12:30:05".to_vec()]),
        };
        let mut writer = exif::experimental::Writer::new();
        writer.push_field(&field);
        let mut data = io::Cursor::new(Vec::new());
        writer.write(&mut data, false).unwrap();
        mutations::survived_by("exif", "date.tif", data.get_ref(), 500);
        let folder = tempfile::tempdir().unwrap();
        // EXIF data are themselves a TIFF file.
        let path = folder.path().join("photo.tif");
        fs::write(&path, data.into_inner()).unwrap();
        let found = Found { path: path.to_str().unwrap().into(), photo: true, bytes: 1, modified_ns: 7 };
        let time = chrono::NaiveDate::from_ymd_opt(2019, 7, 14).unwrap().and_hms_opt(12, 30, 5).unwrap();
        assert_eq!(taken_s(&found), time.and_utc().timestamp());
        assert_eq!(taken_s(&Found { path: "/nowhere".into(), modified_ns: 5_000_000_000, ..found }), 5);
    }
}
