//! Who is known: people, their stills, templates, and how they lie on disk.
//!
//! ```text
//! gallery/
//!   Ann Lee/                      one folder a person, named after them
//!     person.json                 the name, and for each still: file, digest, chosen face
//!     stills/holiday.jpg          the stills as given, byte for byte
//!     derived/                    may be deleted: rebuilt from the above when needed
//!       crops/holiday-1a2b3c4d.png              the aligned face
//!       embeddings-0123456789abcdef.json        one file a model, named by its identifier
//! ```
//!
//! `person.json` is what counts: a file it does not mention does not exist. A new person is
//! built in a hidden folder and renamed in place; stills added to a person are written before
//! the index that mentions them is replaced; a removed person is renamed away before anything is
//! deleted. So the gallery is whole at every moment, and a crash leaves the old one. Writers
//! wait for each other (`.lock`); readers need no lock and no right to write.
//!
//! A person's *templates* are one embedding for each still (the normalised mean of the crop's
//! and its mirror image's) and, from two stills on, the normalised mean of those. All take part
//! in the search: the mean is the steadier, a single still may be the only one taken from the
//! side the probe shows.

mod disk;
mod examine;
mod name;
mod templates;

pub use examine::{Choice, Examined, Refusal, examine};
pub use name::PersonName;
pub use templates::{PersonTemplates, Template, Templates};

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::align::{self, Crop};
use crate::detect::{Face, Landmarks, Quality};

/// The index of a person's folder.
const INDEX: &str = "person.json";
const STILLS: &str = "stills";
const DERIVED: &str = "derived";
const CROPS: &str = "crops";

/// Raised when alignment changes, so that old crops are not used.
const ALIGNMENT: u32 = 1;

/// Why the gallery refused.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// Not a name.
    #[error("`{name}` cannot be a person's name: {reason}")]
    Name {
        /// As given, control characters escaped.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No such folder.
    #[error("there is no gallery at {}: enrol somebody first (sphereface enroll NAME STILL --gallery {})", .0.display(), .0.display())]
    Missing(PathBuf),
    /// Something could not be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something could not be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
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
    /// Nobody of that name.
    #[error("nobody named {0} is enrolled: see `sphereface gallery list`")]
    Unknown(String),
    /// The same face of the same picture under two names.
    #[error("this face is already enrolled as {0}: remove it there first")]
    EnrolledAs(String),
    /// A still and its index disagree.
    #[error("{} is not the picture that was enrolled: remove the person and enrol it again", .0.display())]
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
    #[error("the gallery could not be embedded by model {model}: {reason}")]
    Embed {
        /// The model.
        model: crate::nn::ModelId,
        /// What it says.
        reason: String,
    },
}

/// A still of a person, as its index has it.
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
    /// Whether the still is an aligned crop already and was taken as it is.
    #[serde(default)]
    pub already_aligned: bool,
    /// How well the face can be recognised.
    pub quality: Quality,
}

impl Still {
    /// Identifies the crop: 16 hexadecimal digits from the still, the landmarks and the way
    /// of aligning.
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

    /// File name of the crop in `derived/crops`.
    fn crop_file(&self) -> String {
        let stem = self.file.rsplit_once('.').map_or(self.file.as_str(), |(stem, _)| stem);
        format!("{stem}-{}.png", &self.key()[..8])
    }
}

/// What `person.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Version of this layout.
    version: u32,
    name: String,
    stills: Vec<Still>,
}

/// Layout written by this program.
const VERSION: u32 = 1;

/// An enrolled person.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Display name.
    pub name: PersonName,
    /// Their folder.
    pub folder: PathBuf,
    /// Their stills, in the order of enrolment, without those whose file is gone.
    pub stills: Vec<Still>,
    /// Names of stills that the index mentions but somebody deleted: they no longer count.
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

/// What [`Gallery::enroll`] did.
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
pub struct Gallery {
    root: PathBuf,
}

impl Gallery {
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

    /// A gallery to enrol into; the folder is made when it does not exist.
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

    /// Sub-folders that hold nobody: pictures put there by hand were never enrolled.
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
    /// [`GalleryError::Unknown`] when nobody has that name; otherwise as [`Gallery::people`].
    pub fn person(&self, name: &PersonName) -> Result<Person, GalleryError> {
        let found = self.people()?.into_iter().find(|person| person.name == *name);
        found.ok_or_else(|| GalleryError::Unknown(name.to_string()))
    }

    /// Adds stills to a person, who is new or known already. All of them or, when it fails or
    /// the program dies, none.
    ///
    /// # Errors
    /// [`GalleryError::EnrolledAs`] when a face is somebody else's already; otherwise what
    /// reading and writing can meet.
    pub fn enroll(&self, name: &PersonName, stills: Vec<NewStill>) -> Result<Enrolled, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let people = self.people()?;
        let mut index = Index { version: VERSION, name: name.to_string(), stills: Vec::new() };
        let known = people.iter().find(|person| person.name == *name);
        if let Some(person) = known {
            index.stills.clone_from(&person.stills);
        }
        let (mut added, mut repeated, mut files) = (0, 0, Vec::new());
        for still in stills {
            let digest = blake3::hash(&still.bytes).to_hex().to_string();
            let same_face = |other: &Still| {
                other.blake3 == digest && other.face.bbox.iou(&still.examined.face.bbox) > 0.5
            };
            let others = people.iter().filter(|person| person.name != *name);
            if let Some(person) = others.into_iter().find(|person| person.stills.iter().any(same_face)) {
                return Err(GalleryError::EnrolledAs(person.name.to_string()));
            }
            let examined = still.examined;
            let mut entry = Still {
                file: String::new(),
                blake3: digest,
                face: examined.face,
                faces_seen: examined.faces.len(),
                already_aligned: examined.already_aligned,
                quality: examined.quality,
            };
            if let Some(held) = index.stills.iter_mut().find(|held| held.blake3 == entry.blake3) {
                repeated += 1;
                entry.file.clone_from(&held.file);
                held.clone_from(&entry);
            } else {
                added += 1;
                let taken = |file: &str| index.stills.iter().any(|held| name::same_file(&held.file, file));
                entry.file = name::free_name(&name::file_name(&still.file_name), taken);
                index.stills.push(entry.clone());
            }
            files.push((entry, still.bytes, examined.crop));
        }
        let folder = match known {
            Some(person) => person.folder.clone(),
            None => self.root.join(disk::STAGED),
        };
        for (entry, bytes, crop) in &files {
            disk::create_folder(&folder.join(STILLS))?;
            disk::write(&folder.join(STILLS).join(&entry.file), bytes)?;
            write_crop(&folder, entry, crop)?;
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
        let person = Person { name: name.clone(), folder, stills: index.stills, missing: Vec::new() };
        Ok(Enrolled { person, added, known: repeated })
    }

    /// Removes a person with their stills and everything derived from them.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name; otherwise what reading and writing
    /// can meet.
    pub fn remove(&self, name: &PersonName) -> Result<Person, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let person = self.person(name)?;
        let leaving = self.root.join(disk::REMOVED);
        disk::rename_folder(&person.folder, &leaving)?;
        disk::remove_folder(&leaving)?;
        Ok(person)
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
    for still in &index.stills {
        // Never follow an index out of its folder.
        if name::file_name(&still.file) != still.file {
            return Err(damaged(format!("`{}` is not a plain file name", still.file.escape_debug())));
        }
    }
    let (stills, missing): (Vec<Still>, Vec<Still>) =
        index.stills.into_iter().partition(|still| folder.join(STILLS).join(&still.file).is_file());
    let missing = missing.into_iter().map(|still| still.file).collect();
    Ok(Some(Person { name, folder: folder.to_owned(), stills, missing }))
}

fn write_index(folder: &Path, index: &Index) -> Result<(), GalleryError> {
    let path = folder.join(INDEX);
    disk::create_folder(folder)?;
    let mut text =
        serde_json::to_vec_pretty(index).map_err(|e| disk::write_error(&path, io::Error::other(e)))?;
    text.push(b'\n');
    disk::write(&path, &text)
}

fn write_crop(folder: &Path, still: &Still, crop: &Crop) -> Result<(), GalleryError> {
    let path = folder.join(DERIVED).join(CROPS);
    disk::create_folder(&path)?;
    let path = path.join(still.crop_file());
    let mut png = io::Cursor::new(Vec::new());
    crop.to_image()
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|error| disk::write_error(&path, io::Error::other(error)))?;
    disk::write(&path, &png.into_inner())
}

/// Deletes stills and crops that the index does not mention: what a crash or a new choice of
/// face left. Only files of ours: hidden ones and those in folders of ours.
fn remove_unmentioned(folder: &Path, index: &Index) -> Result<(), GalleryError> {
    let remove = |place: &Path, keep: &dyn Fn(&str) -> bool| -> Result<(), GalleryError> {
        for name in disk::names(place)?.iter().filter(|name| !keep(name)) {
            let path = place.join(name);
            std::fs::remove_file(&path).map_err(|error| disk::write_error(&path, error))?;
        }
        Ok(())
    };
    remove(&folder.join(STILLS), &|name| index.stills.iter().any(|still| still.file == name))?;
    remove(&folder.join(DERIVED).join(CROPS), &|name| {
        index.stills.iter().any(|still| still.crop_file() == name)
    })
}

/// The crop of a still: as stored or, where it is not, cut anew.
fn read_crop(folder: &Path, still: &Still) -> Result<Crop, GalleryError> {
    let stored = disk::read(&folder.join(DERIVED).join(CROPS).join(still.crop_file()))?;
    let stored = stored.and_then(|png| image::load_from_memory(&png).ok());
    if let Some(crop) = stored.and_then(|image| Crop::from_image(image.into_rgb8())) {
        return Ok(crop);
    }
    let path = folder.join(STILLS).join(&still.file);
    let bytes = disk::read(&path)?.unwrap_or_default();
    if blake3::hash(&bytes).to_hex().as_str() != still.blake3 {
        return Err(GalleryError::StillChanged(path));
    }
    let unusable = |reason: String| GalleryError::Still { path: path.clone(), reason };
    let image = image::open(&path)
        .map(image::DynamicImage::into_rgb8)
        .map_err(|error| unusable(error.to_string()))?;
    let landmarks: &Landmarks = &still.face.landmarks;
    let crop = if still.already_aligned {
        align::already_aligned(&image, landmarks)
    } else {
        align::align(&image, landmarks)
    };
    crop.ok_or_else(|| unusable("its landmarks make no face".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::fs;
    use std::path::{Path, PathBuf};

    use image::RgbImage;

    use super::*;
    use crate::detect::BBox;
    use crate::embed::Embedding;
    use crate::nn::ModelId;

    const MODEL: ModelId = ModelId([1; 8]);
    const OTHER: ModelId = ModelId([2; 8]);

    fn name(text: &str) -> PersonName {
        PersonName::new(text).unwrap()
    }

    /// A PNG with a face (of a kind) in it, different for every seed.
    fn still(file_name: &str, seed: u8) -> NewStill {
        let image = RgbImage::from_fn(160, 160, |x, y| {
            image::Rgb([(x * 7 + y * 13) as u8 ^ seed, (x * y) as u8, seed.wrapping_mul(3)])
        });
        let mut png = io::Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let face = Face {
            bbox: BBox { x1: 30.0, y1: 20.0, x2: 130.0, y2: 140.0 },
            score: 0.99,
            landmarks: align::TEMPLATE.map(|[x, y]| [x + 32.0, y + 24.0]),
        };
        let examined = examine(&image, vec![face], Choice::Largest).unwrap();
        NewStill { file_name: file_name.to_owned(), bytes: png.into_inner(), examined }
    }

    /// Embeds a crop as a direction that depends on its pixels and the model.
    fn embed_as(model: ModelId) -> impl FnMut(&[Crop]) -> Result<Vec<Embedding>, Infallible> {
        move |crops| {
            let one = |crop: &Crop| {
                let hash = blake3::keyed_hash(&[model.0[0]; 32], crop.as_rgb());
                let vector = hash.as_bytes().iter().map(|&b| f32::from(b) - 127.5).collect();
                Embedding::new(model, vector).unwrap()
            };
            Ok(crops.iter().map(one).collect())
        }
    }

    fn refuse_to_embed(_: &[Crop]) -> Result<Vec<Embedding>, String> {
        Err("must not be called".to_owned())
    }

    fn empty() -> (tempfile::TempDir, Gallery) {
        let folder = tempfile::tempdir().unwrap();
        let gallery = Gallery::create(&folder.path().join("gallery")).unwrap();
        (folder, gallery)
    }

    /// Every file below a folder with its content.
    fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for name in disk::names(root).unwrap() {
            let path = root.join(name);
            if path.is_dir() {
                files.extend(tree(&path));
            } else {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files
    }

    #[test]
    fn a_person_is_kept_as_given() {
        let (_folder, gallery) = empty();
        let done = gallery.enroll(&name("Zoë"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
        assert_eq!((done.added, done.known), (2, 0));
        let people = gallery.people().unwrap();
        assert_eq!(people, [done.person]);
        assert_eq!(people[0].folder, gallery.root().join("Zoë"));
        let stored = fs::read(people[0].folder.join("stills/a.png")).unwrap();
        assert_eq!(stored, still("a.png", 1).bytes);
        assert_eq!(people[0].stills[1].face, still("b.png", 2).examined.face);
        assert_eq!(gallery.strays().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn stills_add_up_and_the_same_still_counts_once() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
        // Another picture under the same file name, and the first one under another.
        let done = gallery.enroll(&name(" Ann "), vec![still("A.png", 2), still("again.png", 1)]).unwrap();
        assert_eq!((done.added, done.known), (1, 1));
        let files: Vec<_> = done.person.stills.iter().map(|still| still.file.as_str()).collect();
        assert_eq!(files, ["a.png", "A-2.png"]);
        assert_eq!(gallery.people().unwrap(), [done.person]);
    }

    #[test]
    fn another_face_of_a_known_still_replaces_the_first() {
        let (_folder, gallery) = empty();
        let first = still("a.png", 1);
        let mut second = first.clone();
        gallery.enroll(&name("Ann"), vec![first]).unwrap();
        let before = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        second.examined.face.landmarks = align::TEMPLATE.map(|[x, y]| [x + 10.0, y + 5.0]);
        second.examined.crop = Crop::from_rgb(vec![9; Crop::LEN_BYTES]).unwrap();
        let done = gallery.enroll(&name("Ann"), vec![second]).unwrap();
        assert_eq!((done.added, done.known, done.person.stills.len()), (0, 1, 1));
        let after = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        assert_eq!(after.re_embedded, 1);
        assert_ne!(before.people, after.people);
        assert_eq!(disk::names(&done.person.folder.join("derived/crops")).unwrap().len(), 1);
    }

    #[test]
    fn one_face_is_not_two_people() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
        let before = tree(gallery.root());
        let error = gallery.enroll(&name("Bo"), vec![still("x.png", 2), still("b.png", 1)]).unwrap_err();
        assert!(matches!(error, GalleryError::EnrolledAs(ref who) if who == "Ann"), "{error}");
        assert_eq!(tree(gallery.root()), before);
        // Another face of the same picture may well be somebody else.
        let mut neighbour = still("b.png", 1);
        neighbour.examined.face.bbox = BBox { x1: 131.0, y1: 20.0, x2: 158.0, y2: 60.0 };
        gallery.enroll(&name("Bo"), vec![neighbour]).unwrap();
        assert_eq!(gallery.people().unwrap().len(), 2);
    }

    #[test]
    fn hostile_names_stay_inside_and_never_collide() {
        let (folder, gallery) = empty();
        let names = ["../../evil", "..", "/etc", "a/b", "a:b", "A_B", ".lock", ".new", "CON", "🙂"];
        for (i, text) in names.iter().enumerate() {
            gallery.enroll(&name(text), vec![still("../../../x.png", i as u8)]).unwrap();
        }
        let people = gallery.people().unwrap();
        let mut found: Vec<_> = people.iter().map(|person| person.name.as_str()).collect();
        let mut expected = names.to_vec();
        (found.sort(), expected.sort());
        assert_eq!(found, expected);
        assert!(people.iter().all(|person| person.folder.parent() == Some(gallery.root())));
        assert_eq!(disk::names(folder.path()).unwrap(), ["gallery"]);
        assert!(tree(folder.path()).keys().all(|path| path.starts_with(gallery.root())));
    }

    #[test]
    fn removal_leaves_nothing_and_nobody_else_is_touched() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Bo"), vec![still("b.png", 2)]).unwrap();
        let before = tree(gallery.root());
        gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
        assert_eq!(gallery.remove(&name("Ann")).unwrap().name, name("Ann"));
        assert_eq!(tree(gallery.root()), before);
        assert!(matches!(gallery.remove(&name("Ann")), Err(GalleryError::Unknown(_))));
    }

    #[test]
    fn what_a_crash_leaves_does_not_count_and_is_cleared_away() {
        let (_folder, gallery) = empty();
        let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
        // Died while building a new person, while removing one, and while adding a still.
        for leftover in [".new", ".removed"] {
            fs::create_dir_all(gallery.root().join(leftover).join("stills")).unwrap();
            fs::copy(ann.folder.join(INDEX), gallery.root().join(leftover).join(INDEX)).unwrap();
        }
        fs::write(ann.folder.join("stills/half.png"), b"half").unwrap();
        fs::write(ann.folder.join("stills/.part-x"), b"half").unwrap();
        assert_eq!(gallery.people().unwrap(), [ann.clone()]);
        assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().people[0].templates.len(), 1);

        gallery.enroll(&name("Ann"), vec![still("c.png", 3)]).unwrap();
        assert_eq!(disk::names(&ann.folder.join(STILLS)).unwrap(), ["a.png", "c.png"]);
        assert_eq!(disk::names(gallery.root()).unwrap(), [".lock", "Ann"]);
    }

    #[test]
    fn a_still_somebody_deleted_no_longer_counts() {
        let (_folder, gallery) = empty();
        let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap().person;
        assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().people[0].templates.len(), 3);
        fs::remove_file(ann.folder.join("stills/a.png")).unwrap();
        let now = gallery.person(&name("Ann")).unwrap();
        assert_eq!((now.stills.len(), now.missing), (1, vec!["a.png".to_owned()]));
        let templates = gallery.templates(MODEL, refuse_to_embed).unwrap();
        let sources: Vec<_> = templates.people[0].templates.iter().map(|t| t.source.as_str()).collect();
        assert_eq!(sources, ["b.png"]);
    }

    #[test]
    fn templates_are_the_stills_and_their_mean() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Bo"), vec![still("one.png", 9)]).unwrap();
        gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
        let templates = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        assert_eq!(templates.re_embedded, 3);
        let sources: Vec<Vec<_>> = templates
            .people
            .iter()
            .map(|person| person.templates.iter().map(|t| t.source.as_str()).collect())
            .collect();
        assert_eq!(sources, [vec!["a.png", "b.png", "mean"], vec!["one.png"]]);
        let [a, b, mean] = [0, 1, 2].map(|i| templates.people[0].templates[i].embedding.as_slice());
        let sum: Vec<f32> = a.iter().zip(b).map(|(x, y)| x + y).collect();
        let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(mean.iter().zip(&sum).all(|(m, s)| (m - s / norm).abs() < 1e-6));
    }

    #[test]
    fn a_model_embeds_once_and_models_are_never_mixed() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
        let first = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        let again = gallery.templates(MODEL, refuse_to_embed).unwrap();
        assert_eq!((again.re_embedded, &again.people), (0, &first.people));

        let other = gallery.templates(OTHER, embed_as(OTHER)).unwrap();
        assert_eq!(other.re_embedded, 2);
        assert!(other.people[0].templates.iter().all(|t| t.embedding.model() == OTHER));
        // And back, without the network: both are kept.
        assert_eq!(gallery.templates(MODEL, refuse_to_embed).unwrap().people, first.people);

        // Only what is new is embedded.
        gallery.enroll(&name("Ann"), vec![still("c.png", 3)]).unwrap();
        assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().re_embedded, 1);

        // A file of another model under this one's name is not believed.
        let derived = gallery.root().join("Ann/derived");
        fs::rename(
            derived.join(format!("embeddings-{OTHER}.json")),
            derived.join(format!("embeddings-{MODEL}.json")),
        )
        .unwrap();
        assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().re_embedded, 3);
    }

    #[test]
    fn an_embedder_of_another_model_is_refused() {
        let (_folder, gallery) = empty();
        gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
        assert!(matches!(gallery.templates(MODEL, embed_as(OTHER)), Err(GalleryError::Embed { .. })));
        let none = |_: &[Crop]| Ok::<_, Infallible>(vec![]);
        assert!(matches!(gallery.templates(MODEL, none), Err(GalleryError::Embed { .. })));
    }

    #[test]
    fn everything_derived_can_be_rebuilt() {
        let (_folder, gallery) = empty();
        let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap().person;
        let first = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        fs::remove_dir_all(ann.folder.join(DERIVED)).unwrap();
        let again = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
        assert_eq!((again.re_embedded, again.people), (2, first.people));

        fs::remove_dir_all(ann.folder.join(DERIVED)).unwrap();
        fs::copy(ann.folder.join("stills/a.png"), ann.folder.join("stills/b.png")).unwrap();
        assert!(matches!(gallery.templates(MODEL, embed_as(MODEL)), Err(GalleryError::StillChanged(_))));
    }

    #[test]
    fn damaged_indices_are_named() {
        let (_folder, gallery) = empty();
        let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
        let index = ann.folder.join(INDEX);
        let text = fs::read_to_string(&index).unwrap();
        for broken in [
            String::new(),
            text.replace("a.png", "../a.png"),
            text.replace("\"Ann\"", "\"\""),
            text.replace("\"version\": 1", "\"version\": 2"),
        ] {
            assert_ne!(broken, text);
            fs::write(&index, broken).unwrap();
            let error = gallery.people().unwrap_err();
            assert!(matches!(error, GalleryError::Damaged { ref path, .. } if *path == index), "{error}");
        }
    }

    #[test]
    fn a_copied_folder_is_found_out() {
        let (_folder, gallery) = empty();
        let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
        let copy = gallery.root().join("Copy");
        fs::create_dir(&copy).unwrap();
        fs::copy(ann.folder.join(INDEX), copy.join(INDEX)).unwrap();
        assert!(matches!(gallery.people(), Err(GalleryError::Twice { .. })));
    }

    #[test]
    fn folders_made_by_hand_are_strays() {
        let (_folder, gallery) = empty();
        fs::create_dir(gallery.root().join("Bo")).unwrap();
        fs::write(gallery.root().join("README.md"), "about").unwrap();
        assert_eq!(gallery.people().unwrap(), []);
        assert_eq!(gallery.strays().unwrap(), [gallery.root().join("Bo")]);
    }

    #[test]
    fn no_gallery_is_an_error_that_says_what_to_do() {
        let error = Gallery::open(Path::new("no/such/gallery")).unwrap_err();
        assert!(matches!(error, GalleryError::Missing(_)));
        assert!(error.to_string().contains("sphereface enroll"), "{error}");
    }

    #[test]
    fn writers_wait_for_each_other() {
        let (_folder, gallery) = empty();
        std::thread::scope(|scope| {
            for i in 0..8u8 {
                let gallery = &gallery;
                scope.spawn(move || {
                    // Half of them add to one person, half add a person each.
                    let who = if i % 2 == 0 { "Ann".to_owned() } else { format!("P{i}") };
                    gallery.enroll(&name(&who), vec![still("same.png", i)]).unwrap();
                });
            }
        });
        let people = gallery.people().unwrap();
        assert_eq!(people.iter().map(|person| person.stills.len()).collect::<Vec<_>>(), [4, 1, 1, 1, 1]);
        assert!(people.iter().all(|person| person.missing.is_empty()));
    }
}
