//! The gallery: people, stills, templates, and their layout on disk.
//!
//! ```text
//! gallery/
//!   .templates-0123456789abcdef    all templates by a model, of a large gallery; may be deleted
//!   calibration.json              the threshold, where it was measured on the user's footage
//!   Ann Lee/                      one folder per person, named after them
//!     person.json                 the name, the colour, and for each still: file, digest, chosen face
//!     stills/holiday.jpg          the stills as given, byte for byte
//!     rejected/twin.jpg           pictures of others taken for them: counter-examples
//!     derived/                    may be deleted: rebuilt from the above when needed
//!       crops/holiday-1a2b3c4d.png              the aligned face
//!       embeddings-0123456789abcdef.json        one file per model, named by its identifier
//! ```
//!
//! `person.json` is authoritative: a file it does not mention is ignored. A new person is built in a hidden
//! folder, which is then renamed. Stills are written before the index that mentions them is replaced. A
//! removed person is renamed away before anything is deleted. So the gallery is consistent at every moment,
//! and a crash leaves the old state. Writers wait for each other (`.lock`); readers need no lock and no write
//! permission.
//!
//! The commands and engines of this program always compute the embeddings of a gallery in f32, whatever the
//! arithmetic for the faces of a video is. So the files are the same on every CPU and do not name an
//! arithmetic.
//!
//! A person's *templates* are one embedding per still (the normalised mean of those of the crop and its
//! mirror image) and, from two stills on, the normalised mean of those. All are searched: the mean is more
//! robust, but a single still may be the only one in the pose of the probe.

mod calibration;
mod check;
mod disk;
mod examine;
#[cfg(feature = "serve")]
mod fingerprint;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod name;
mod pack;
mod reject;
mod rename;
pub mod search;
mod still;
#[cfg(feature = "xmp")]
mod tagged;
mod templates;
mod viewpoint;
mod withdraw;

pub use calibration::{CONFIDENCE, CalibrationError, Circumstances, MIN_STRANGERS, ThresholdCalibration};
pub use check::{Finding, check, expected_false_matches};
pub use examine::{Choice, Examined, Refusal, examine};
#[cfg(feature = "serve")]
pub(crate) use fingerprint::Fingerprint;
pub use name::PersonName;
pub use reject::Rejected;
pub use still::{StillError, examine_all, examine_picture, examine_still, find_faces};
#[cfg(feature = "xmp")]
pub use tagged::{Tagged, TaggedError};
pub use templates::{PersonTemplates, Template, Templates};
pub use viewpoint::Viewpoint;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::align::{self, Crop};
use crate::detect::{Face, Landmarks, Quality};
use crate::file;
use crate::media::read_still;

/// The index of a person's folder.
const INDEX: &str = "person.json";
const STILLS: &str = "stills";
const REJECTED: &str = "rejected";
const DERIVED: &str = "derived";
const CROPS: &str = "crops";

/// Raised when alignment changes, so that old crops are not used.
const ALIGNMENT: u32 = 1;

/// Errors of a gallery.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// The text is not a valid name.
    #[error("`{name}` cannot be a person's name: {reason}")]
    Name {
        /// As given, control characters escaped.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No such folder.
    #[error("there is no gallery at {}: enrol a person first (sphereface enroll NAME STILL --gallery {})", .0.display(), .0.display())]
    Missing(PathBuf),
    /// Something could not be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something could not be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An index that is not one of ours.
    #[error("{} is damaged ({reason}): repair it, or delete the folder and enrol the person again", .path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two folders claim one person.
    #[error("{} and {} both hold {name}: merge them by removing one and enrolling its stills again", .folders[0].display(), .folders[1].display())]
    Twice {
        /// The name.
        name: String,
        /// Both folders.
        folders: [PathBuf; 2],
    },
    /// No person of that name is enrolled.
    #[error("nobody named {0} is enrolled: see `sphereface gallery list`")]
    Unknown(String),
    /// A person has no still, or counter-example, of that file name.
    #[error("{person} has no still {file}")]
    NoSuchStill {
        /// The person.
        person: String,
        /// The file name.
        file: String,
    },
    /// A person without stills could never be recognised.
    #[error("{file} is the only still of {person}: remove the person, or add another still first")]
    OnlyStill {
        /// The person.
        person: String,
        /// The file name.
        file: String,
    },
    /// Another person has that name.
    #[error("{0} is enrolled already: choose another name, or remove one of the two")]
    NameTaken(String),
    /// The same face of the same picture under two names, or as both a still and a counter-example.
    #[error("{file} shows a face that is already enrolled as {person}: remove it there first")]
    EnrolledAs {
        /// Index of the still in the given list.
        still: usize,
        /// Its file name.
        file: String,
        /// The person whose face it is.
        person: String,
    },
    /// A still and its index disagree.
    #[error("{} is not the picture that was enrolled: remove the person and enrol them again", .0.display())]
    StillChanged(PathBuf),
    /// A still can no longer be decoded.
    #[error("the enrolled still {} cannot be used: {reason}", .path.display())]
    Still {
        /// The still.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The network could not embed a crop.
    #[error("the gallery could not be embedded with model {model}: {reason}")]
    Embed {
        /// The model.
        model: crate::models::ModelId,
        /// The cause.
        reason: String,
    },
}

/// A still of a person, as in the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Still {
    /// File name in the person's folder `stills`.
    pub file: String,
    /// BLAKE3 hash of the file in hexadecimal digits.
    pub blake3: String,
    /// The face chosen, in pixels of the still held upright.
    pub face: Face,
    /// Faces found in the still.
    pub faces_seen: usize,
    /// Whether the still is already an aligned crop and was used unchanged.
    #[serde(default)]
    pub already_aligned: bool,
    /// Quality of the face.
    pub quality: Quality,
}

impl Still {
    /// Identifies the crop: 16 hexadecimal digits from the still, the landmarks and the version of alignment.
    fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.blake3.as_bytes());
        for value in self.face.landmarks.iter().flatten() {
            hasher.update(&value.to_le_bytes());
        }
        hasher.update(&[u8::from(self.already_aligned)]);
        hasher.update(&ALIGNMENT.to_le_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Whether it is the face `face` of the picture with that digest.
    fn shows(&self, digest: &str, face: &Face) -> bool {
        self.blake3 == digest && self.face.bbox.iou(&face.bbox) > 0.5
    }

    /// File name of the crop in `derived/crops`.
    fn crop_file(&self) -> String {
        let stem = self.file.rsplit_once('.').map_or(self.file.as_str(), |(stem, _)| stem);
        format!("{stem}-{}.png", &self.key()[..8])
    }
}

/// The content of `person.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Index {
    /// Version of this layout.
    version: u32,
    name: String,
    /// See [`Person::colour`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    colour: Option<u32>,
    stills: Vec<Still>,
    /// Counter-examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Still>,
}

/// Version of the layout that this program writes. Without counter-examples it writes version 1, which older
/// programs can read.
const VERSION: u32 = 2;

impl Index {
    fn of(person: &Person) -> Self {
        Self {
            version: VERSION,
            name: person.name.to_string(),
            colour: person.colour,
            stills: person.stills.clone(),
            rejected: person.rejected.clone(),
        }
    }
}

/// An enrolled person.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Display name.
    pub name: PersonName,
    /// Their folder.
    pub folder: PathBuf,
    /// The number of their colour, assigned at enrolment, permanent and unique in the gallery.
    pub colour: Option<u32>,
    /// Their stills, in the order of enrolment, without those whose file is gone.
    pub stills: Vec<Still>,
    /// Counter-examples: pictures of others who were mistaken for them ([`GalleryFolder::reject`]), likewise.
    pub rejected: Vec<Still>,
    /// Names of stills that the index mentions but that were deleted; they are not used.
    pub missing: Vec<String>,
}

/// A still to enrol, examined ([`examine`]).
#[derive(Debug, Clone)]
pub struct NewStill {
    /// File name to keep it under; made safe and unique.
    pub file_name: String,
    /// The file as given.
    pub bytes: Vec<u8>,
    /// The face chosen in it and its crop.
    pub examined: Examined,
}

/// Result of [`GalleryFolder::enroll`].
#[derive(Debug, Clone, PartialEq)]
pub struct Enrolled {
    /// The person as they are now.
    pub person: Person,
    /// Stills that are new.
    pub added: usize,
    /// Stills that were enrolled before; the face chosen now counts.
    pub known: usize,
}

/// A gallery folder.
#[derive(Debug, Clone)]
pub struct GalleryFolder {
    root: PathBuf,
}

impl GalleryFolder {
    /// An existing gallery.
    ///
    /// # Errors
    /// [`GalleryError::Missing`] when there is no such folder.
    pub fn open(root: &Path) -> Result<Self, GalleryError> {
        if root.is_dir() {
            Ok(Self { root: root.to_owned() })
        } else {
            Err(GalleryError::Missing(root.to_owned()))
        }
    }

    /// A gallery to enrol into; the folder is created if it does not exist.
    ///
    /// # Errors
    /// [`GalleryError::Write`] when it cannot be made.
    pub fn create(root: &Path) -> Result<Self, GalleryError> {
        disk::create_folder(root)?;
        Self::open(root)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everybody enrolled, by name. Files beside the people's folders are left alone.
    ///
    /// # Errors
    /// [`GalleryError::Damaged`], [`GalleryError::Twice`] or [`GalleryError::Read`].
    pub fn people(&self) -> Result<Vec<Person>, GalleryError> {
        let mut people: Vec<Person> = Vec::new();
        for name in self.folders()? {
            people.extend(read_person(&self.root.join(name))?);
        }
        people.sort_by(|a, b| a.name.cmp(&b.name));
        for pair in people.windows(2) {
            if pair[0].name == pair[1].name {
                let folders = [pair[0].folder.clone(), pair[1].folder.clone()];
                return Err(GalleryError::Twice { name: pair[0].name.to_string(), folders });
            }
        }
        Ok(people)
    }

    /// Subfolders without an index: pictures copied there by hand are not enrolled.
    ///
    /// # Errors
    /// [`GalleryError::Read`].
    pub fn strays(&self) -> Result<Vec<PathBuf>, GalleryError> {
        let folders = self.folders()?.into_iter().map(|name| self.root.join(name));
        Ok(folders.filter(|folder| folder.is_dir() && !folder.join(INDEX).exists()).collect())
    }

    /// One person.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name; otherwise as [`GalleryFolder::people`].
    pub fn person(&self, name: &PersonName) -> Result<Person, GalleryError> {
        let found = self.people()?.into_iter().find(|person| person.name == *name);
        found.ok_or_else(|| GalleryError::Unknown(name.to_string()))
    }

    /// Adds stills to a new or existing person: all of them or, if it fails or the program is killed, none.
    ///
    /// # Errors
    /// [`GalleryError::EnrolledAs`] when a face is already another person's; otherwise errors of reading and
    /// writing.
    pub fn enroll(&self, name: &PersonName, stills: Vec<NewStill>) -> Result<Enrolled, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let people = self.people()?;
        let known = people.iter().find(|person| person.name == *name);
        let mut index = match known {
            Some(person) => Index::of(person),
            None => Index {
                version: VERSION,
                name: name.to_string(),
                colour: None,
                stills: Vec::new(),
                rejected: Vec::new(),
            },
        };
        let is_taken = |colour: &u32| people.iter().any(|person| person.colour == Some(*colour));
        index.colour = index.colour.or_else(|| (0..).find(|colour| !is_taken(colour)));
        let (mut added, mut repeated, mut files) = (0, 0, Vec::new());
        for (place, still) in stills.into_iter().enumerate() {
            let digest = blake3::hash(&still.bytes).to_hex().to_string();
            let same_face = |other: &Still| other.shows(&digest, &still.examined.face);
            let others = people.iter().filter(|person| person.name != *name);
            if let Some(person) = others.into_iter().find(|person| person.stills.iter().any(same_face)) {
                let (file, person) = (still.file_name, person.name.to_string());
                return Err(GalleryError::EnrolledAs { still: place, file, person });
            }
            // A picture that was a counter-example before and is enrolled now shows the person after all.
            index.rejected.retain(|other| !same_face(other));
            let (entry, is_new) = enter(&mut index.stills, &digest, &still);
            *(if is_new { &mut added } else { &mut repeated }) += 1;
            files.push((entry, still));
        }
        let folder = match known {
            Some(person) => person.folder.clone(),
            None => self.root.join(disk::STAGED),
        };
        for (entry, still) in &files {
            write_still(&folder, STILLS, entry, still)?;
        }
        write_index(&folder, &index)?;
        let folder = if known.is_some() {
            folder
        } else {
            let existing = disk::names(&self.root)?;
            let taken = |folder: &str| existing.iter().any(|other| name::same_file(other, folder));
            let place = self.root.join(name::free_name(&name::file_name(name.as_str()), taken));
            disk::rename_folder(&folder, &place)?;
            place
        };
        remove_unmentioned(&folder, &index)?;
        let Index { colour, stills, rejected, .. } = index;
        let person = Person { name: name.clone(), folder, colour, stills, rejected, missing: Vec::new() };
        Ok(Enrolled { person, added, known: repeated })
    }

    /// Removes a person with their stills and everything derived from them.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name; otherwise errors of reading and writing.
    pub fn remove(&self, name: &PersonName) -> Result<Person, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let person = self.person(name)?;
        let leaving = self.root.join(disk::REMOVED);
        disk::rename_folder(&person.folder, &leaving)?;
        disk::remove_folder(&leaving)?;
        // The pack holds the person too, until it is written again.
        pack::remove(&self.root)?;
        Ok(person)
    }

    /// The crop of a still of a person: as stored, else cut again.
    ///
    /// # Errors
    /// [`GalleryError`] of a still that can no longer be used.
    pub fn crop(&self, person: &Person, still: &Still) -> Result<Crop, GalleryError> {
        read_crop(&person.folder, STILLS, still)
    }

    /// Names of sub-folders and files that are not the gallery's own.
    fn folders(&self) -> Result<Vec<String>, GalleryError> {
        let names = disk::names(&self.root)?;
        Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
    }
}

/// The person in a folder; `None` when it has no index.
fn read_person(folder: &Path) -> Result<Option<Person>, GalleryError> {
    let path = folder.join(INDEX);
    if !folder.is_dir() {
        return Ok(None);
    }
    let Some(bytes) = disk::read(&path)? else { return Ok(None) };
    let damaged = |reason: String| GalleryError::Damaged { path: path.clone(), reason };
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if index.version > VERSION {
        return Err(damaged(format!("it was written by a newer program, layout {}", index.version)));
    }
    let name = PersonName::new(&index.name).map_err(|error| damaged(error.to_string()))?;
    for still in index.stills.iter().chain(&index.rejected) {
        // An index must not refer to files outside its folder.
        if name::file_name(&still.file) != still.file {
            return Err(damaged(format!("`{}` is not a plain file name", still.file.escape_debug())));
        }
    }
    let there = |place: &str, stills: Vec<Still>| -> (Vec<Still>, Vec<Still>) {
        stills.into_iter().partition(|still| folder.join(place).join(&still.file).is_file())
    };
    let (stills, missing) = there(STILLS, index.stills);
    let (rejected, _) = there(REJECTED, index.rejected);
    let missing = missing.into_iter().map(|still| still.file).collect();
    let colour = index.colour;
    Ok(Some(Person { name, folder: folder.to_owned(), colour, stills, rejected, missing }))
}

/// Enters a still into a list. It replaces the entry with the same picture, or gets a free file name. Returns
/// the entry and whether it is new.
fn enter(stills: &mut Vec<Still>, digest: &str, still: &NewStill) -> (Still, bool) {
    let examined = &still.examined;
    let mut entry = Still {
        file: String::new(),
        blake3: digest.to_owned(),
        face: examined.face,
        faces_seen: examined.faces.len(),
        already_aligned: examined.already_aligned,
        quality: examined.quality,
    };
    if let Some(held) = stills.iter_mut().find(|held| held.blake3 == entry.blake3) {
        entry.file.clone_from(&held.file);
        held.clone_from(&entry);
        return (entry, false);
    }
    let taken = |file: &str| stills.iter().any(|held| name::same_file(&held.file, file));
    entry.file = name::free_name(&name::file_name(&still.file_name), taken);
    stills.push(entry.clone());
    (entry, true)
}

/// Writes the picture of an entry into a person's sub-folder `place`, and its crop.
fn write_still(folder: &Path, place: &str, entry: &Still, still: &NewStill) -> Result<(), GalleryError> {
    disk::create_folder(&folder.join(place))?;
    disk::write(&folder.join(place).join(&entry.file), &still.bytes)?;
    write_crop(folder, entry, &still.examined.crop)
}

fn write_index(folder: &Path, index: &Index) -> Result<(), GalleryError> {
    let path = folder.join(INDEX);
    let version = if index.rejected.is_empty() { 1 } else { VERSION };
    let index = Index { version, ..index.clone() };
    disk::create_folder(folder)?;
    let mut text =
        serde_json::to_vec_pretty(&index).map_err(|e| disk::write_error(&path, io::Error::other(e)))?;
    text.push(b'\n');
    disk::write(&path, &text)
}

fn write_crop(folder: &Path, still: &Still, crop: &Crop) -> Result<(), GalleryError> {
    let path = folder.join(DERIVED).join(CROPS);
    disk::create_folder(&path)?;
    let path = path.join(still.crop_file());
    let mut png = io::Cursor::new(Vec::new());
    crop.to_whole_image()
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|error| disk::write_error(&path, io::Error::other(error)))?;
    disk::write(&path, &png.into_inner())
}

/// Deletes stills and crops that the index does not mention, the leftovers of a crash or a new choice of
/// face. Only our own files: hidden ones and those in our folders.
fn remove_unmentioned(folder: &Path, index: &Index) -> Result<(), GalleryError> {
    let remove = |place: &Path, keep: &dyn Fn(&str) -> bool| -> Result<(), GalleryError> {
        for name in disk::names(place)?.iter().filter(|name| !keep(name)) {
            let path = place.join(name);
            std::fs::remove_file(&path).map_err(|error| disk::write_error(&path, error))?;
        }
        Ok(())
    };
    remove(folder, &|name| !file::is_temporary(name))?;
    remove(&folder.join(STILLS), &|name| index.stills.iter().any(|still| still.file == name))?;
    remove(&folder.join(REJECTED), &|name| index.rejected.iter().any(|still| still.file == name))?;
    remove(&folder.join(DERIVED).join(CROPS), &|name| {
        index.stills.iter().chain(&index.rejected).any(|still| still.crop_file() == name)
    })
}

/// The crop of a still in a person's sub-folder `place`: as stored or, if it is missing, cut again.
fn read_crop(folder: &Path, place: &str, still: &Still) -> Result<Crop, GalleryError> {
    let stored = disk::read(&folder.join(DERIVED).join(CROPS).join(still.crop_file()))?;
    let stored = stored.and_then(|png| image::load_from_memory(&png).ok());
    let stored = stored.and_then(|image| Crop::from_image(image.into_rgb8()));
    match stored {
        Some(crop) if crop.has_sides() => Ok(crop),
        // Earlier versions stored no sides, and some stills have none.
        Some(crop) => Ok(cut_crop(folder, place, still).unwrap_or(crop)),
        None => cut_crop(folder, place, still),
    }
}

/// The crop of a still, cut out of it.
fn cut_crop(folder: &Path, place: &str, still: &Still) -> Result<Crop, GalleryError> {
    let path = folder.join(place).join(&still.file);
    let bytes = disk::read(&path)?.unwrap_or_default();
    if blake3::hash(&bytes).to_hex().as_str() != still.blake3 {
        return Err(GalleryError::StillChanged(path));
    }
    let unusable = |reason: String| GalleryError::Still { path: path.clone(), reason };
    let image = read_still(&path).map_err(|error| unusable(error.to_string()))?;
    let landmarks: &Landmarks = &still.face.landmarks;
    let crop = if still.already_aligned {
        align::already_aligned(&image, landmarks)
    } else {
        align::align(&image, landmarks)
    };
    crop.ok_or_else(|| unusable("its landmarks are degenerate".to_owned()))
}

#[cfg(test)]
mod tests;
