//! Changes of a library by the user: naming, merging, splitting and forgetting people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::super::UsageError;
use super::{LibraryPlace, NAMING, People, engine_of, naming, refresh, refused};
use sphereface::file::counted;
use sphereface::gallery::{GalleryError, GalleryFolder, PersonName};
use sphereface::library::{Library, LibraryError, Subject};

/// Name a stranger
///
/// Their best pictures are enrolled in the gallery, and all their tracks get the name. No file is decoded.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sphereface library name 3 \"Aunt Mary\" --gallery family")]
pub struct NameArgs {
    /// Number of the stranger, as printed by `strangers`
    number: i64,
    /// Name
    name: String,
    /// Gallery to enrol the person in; created if missing [default: the one used last]
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
}

impl NameArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let name = PersonName::new(&self.name).map_err(|error| UsageError(error.to_string()))?;
        let library = place.open()?;
        let mut naming = naming(&library)?;
        if let Some(gallery) = &self.gallery {
            naming.gallery = Some(gallery.clone());
        }
        let (tracks, stills, place) = match &naming.gallery {
            Some(gallery) => {
                let told = library.name_stranger(self.number, &name, gallery).map_err(refused)?;
                (told.tracks, told.stills, gallery.display().to_string())
            }
            None if library.gallery_change().map_err(refused)? > 0 => {
                let (tracks, stills) = name_in_shared(&library, self.number, &name)?;
                (tracks, stills, "the shared gallery".to_owned())
            }
            None => {
                let reason = "no gallery was used so far: give one with --gallery DIR";
                return Err(UsageError(reason.into()).into());
            }
        };
        let (tracks, stills) = (counted(tracks, "track"), counted(stills, "still"));
        outln!("{name}: {tracks} named, {stills} enrolled in {place}");
        naming.gallery = naming.gallery.map(|gallery| gallery.canonicalize().unwrap_or(gallery));
        library.set_setting(NAMING, &serde_json::to_string(&naming)?).map_err(refused)?;
        let engine = engine_of(&naming)?;
        People::load(&library, &engine, naming)?.rename(&library)?;
        library.group_strangers(&engine, engine.threads()).map_err(refused)?;
        Ok(())
    }
}

/// The most attempts to change the shared gallery when others change it at the same time.
const TRIES: usize = 10;

/// Changes a copy of the shared gallery and stores it; repeats this if the gallery was changed in the
/// meantime.
fn change_shared<T>(library: &Library, mut change: impl FnMut(&Path) -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        let copy = tempfile::tempdir().context("a folder for a copy of the shared gallery cannot be made")?;
        library.get_gallery(copy.path()).map_err(refused)?;
        let result = change(copy.path())?;
        tries += 1;
        match library.put_gallery(copy.path(), false) {
            Err(LibraryError::GalleryChanged(_)) if tries < TRIES => {}
            other => return other.map(|_| result).map_err(refused),
        }
    }
}

/// The number of tracks that got the name, and of stills that were enrolled.
fn name_in_shared(library: &Library, number: i64, name: &PersonName) -> Result<(usize, usize)> {
    let stills = library.stranger_stills(number).map_err(refused)?;
    let stills =
        change_shared(library, |copy| Ok(GalleryFolder::create(copy)?.enroll(name, stills.clone())?.added))?;
    let tracks = library.tell_name(number, name).map_err(refused)?;
    Ok((tracks, stills))
}

/// Merge strangers who are one person
///
/// The first keeps the number. Later files are grouped accordingly.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Numbers of the strangers
    #[arg(required = true, num_args = 2.., value_name = "N")]
    numbers: Vec<i64>,
}

impl MergeArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        let mut numbers = self.numbers.clone();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() != self.numbers.len() {
            return Err(UsageError("a stranger is named twice: give different numbers".into()).into());
        }
        library.merge_strangers(&self.numbers).map_err(refused)?;
        outln!("they are stranger {} now", self.numbers[0]);
        Ok(())
    }
}

/// Split off tracks of a stranger that show another person
///
/// Later files are grouped accordingly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sphereface library split 3 /videos/party.mp4#7 /videos/party.mp4#9")]
pub struct SplitArgs {
    /// Number of the stranger
    number: i64,
    /// Tracks of the other person, as printed by `strangers N`
    #[arg(required = true, value_name = "PATH#TRACK")]
    tracks: Vec<String>,
}

impl SplitArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        let strangers = library.strangers().map_err(refused)?;
        let stranger = strangers.into_iter().find(|one| one.number == self.number);
        let stranger = stranger.ok_or(LibraryError::NoStranger(self.number))?;
        let mut keys = Vec::new();
        for text in &self.tracks {
            let (path, track) = (text.rsplit_once('#'))
                .and_then(|(path, track)| Some((path, track.parse::<i64>().ok()?)))
                .ok_or_else(|| {
                    UsageError(format!(
                        "`{text}` is not a track: write the file and the number, for example clip.mp4#7"
                    ))
                })?;
            let whole = std::fs::canonicalize(path).ok().and_then(|path| Some(path.to_str()?.to_owned()));
            let is = |one: &&sphereface::library::StrangerTrack| {
                one.track == track && (one.path == path || Some(&one.path) == whole.as_ref())
            };
            let Some(found) = stranger.tracks.iter().find(is) else {
                return Err(UsageError(format!("stranger {} has no track {text}", self.number)).into());
            };
            keys.push((found.content.clone(), found.track));
        }
        let next = library.split_stranger(self.number, &keys).map_err(refused)?;
        outln!("the other person is stranger {next}");
        Ok(())
    }
}

/// Forget a person, a stranger, or files
///
/// Removes the tracks, embeddings and pictures from the catalogue and the analyses. For a person with a name,
/// the stills in the gallery are removed too. The videos and photos themselves are not touched.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library forget Ada\n  \
    sphereface library forget --stranger 3\n  \
    sphereface library forget --files ~/Videos/old")]
pub struct ForgetArgs {
    /// Name of the person
    #[arg(required_unless_present_any = ["stranger", "files"], conflicts_with_all = ["stranger", "files"])]
    name: Option<String>,
    /// Number of a stranger
    #[arg(long, value_name = "N", conflicts_with = "files")]
    stranger: Option<i64>,
    /// A file, or a folder with everything below
    #[arg(long, value_name = "PATH")]
    files: Option<PathBuf>,
    /// Keep the person's stills in the gallery
    #[arg(long, requires = "name")]
    keep_stills: bool,
}

impl ForgetArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        if let Some(path) = &self.files {
            let count = library.forget_files(path).map_err(refused)?;
            outln!("{} forgotten", counted(count, "file"));
            return Ok(());
        }
        let who = match (&self.name, self.stranger) {
            (Some(name), _) => Subject::Named(name.clone()),
            (None, Some(number)) => Subject::Stranger(number),
            (None, None) => return Err(UsageError("say whom to forget".into()).into()),
        };
        if let Subject::Named(name) = &who {
            PersonName::new(name).map_err(|error| UsageError(error.to_string()))?;
            if !self.keep_stills {
                check_gallery(&library)?;
            }
            // Those who have the name now are forgotten, not those who had it when a file was analysed.
            refresh(&library)?;
        }
        let stills = match (&who, self.keep_stills) {
            (Subject::Named(name), false) => remove_stills(&library, name)?,
            _ => false,
        };
        let forgotten = library.forget(&who);
        let nobody = matches!(forgotten, Err(LibraryError::NoPerson(_) | LibraryError::NoStranger(_)));
        match forgotten {
            Ok(forgotten) => {
                let (tracks, files) = (counted(forgotten.tracks, "track"), counted(forgotten.files, "file"));
                outln!("{who}: {tracks} in {files} forgotten");
            }
            Err(_) if nobody && stills => {}
            Err(error) => return Err(refused(error)),
        }
        if stills {
            outln!("{who}: removed from the gallery");
        }
        Ok(())
    }
}

/// Refuses to forget somebody while the stills in the gallery cannot be removed: they would be named again.
fn check_gallery(library: &Library) -> Result<()> {
    let Some(gallery) = naming(library)?.gallery else { return Ok(()) };
    match GalleryFolder::open(&gallery) {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow::anyhow!(
            "{error}, so that no stills can be removed from it: make it available, or give --keep-stills to forget only what the library has"
        )),
    }
}

/// Removes a person from the gallery of the library. Returns whether they were enrolled.
fn remove_stills(library: &Library, name: &str) -> Result<bool> {
    let naming = naming(library)?;
    let Ok(name) = PersonName::new(name) else { return Ok(false) };
    match &naming.gallery {
        Some(gallery) => remove_from(gallery, &name),
        None if library.gallery_change().map_err(refused)? > 0 => {
            change_shared(library, |copy| remove_from(copy, &name))
        }
        None => Ok(false),
    }
}

fn remove_from(gallery: &Path, name: &PersonName) -> Result<bool> {
    match GalleryFolder::open(gallery)?.remove(name) {
        Ok(_) => Ok(true),
        Err(GalleryError::Unknown(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}
