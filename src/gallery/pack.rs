//! The templates of a large gallery in one file, so that opening it does not mean reading a
//! hundred thousand small ones.
//!
//! The file is derived like everything else in `derived`, and may be deleted. It is mapped into memory. A
//! person is taken from it as long as their folder is unchanged. Only people who changed are read again, and
//! then the whole file is replaced. If another program truncates the file while it is mapped, this program
//! ends (SIGBUS).
//!
//! Layout: [`MAGIC`], the length of the header (u64), the header (JSON), zeros up to a multiple of 4, then
//! the unit vectors (f32) of all people, templates before counter-examples. Numbers are little-endian.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{GalleryError, INDEX, PersonTemplates, REJECTED, STILLS, Template, Viewpoint, disk};
use crate::embed::Embedding;
use crate::models::ModelId;

const MAGIC: &[u8; 8] = b"SFPACK\x02\n";

const PREFIX: &str = ".templates-";

/// The number of templates from which a gallery is packed: fewer are read fast enough.
pub(super) const PACKED_FROM: usize = 10_000;

/// A fingerprint of a person's folder, which changes with every relevant file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp([[u64; 3]; 3]);

impl Stamp {
    /// The stamp of the folder as it is now; `None` when it has no index.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let index = mark(&folder.join(INDEX))?;
        // A still that is deleted by hand changes its folder, and is no longer used.
        let places = [STILLS, REJECTED].map(|place| mark(&folder.join(place)).unwrap_or_default());
        Some(Self([index, places[0], places[1]]))
    }
}

/// The identity of a file, the time of its last change, and its length.
pub(super) fn mark(path: &Path) -> Option<[u64; 3]> {
    let facts = fs::metadata(path).ok()?;
    let changed = facts.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&facts);
    #[cfg(not(unix))]
    let number = 0;
    Some([number, u64::try_from(changed.as_nanos()).ok()?, facts.len()])
}

/// A person of the gallery and the folder it was read from.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) folder: String,
    pub(super) stamp: Stamp,
    pub(super) person: PersonTemplates,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    model: String,
    /// Values per vector.
    length: usize,
    people: Vec<Entry>,
}

/// The entry of a person in the header.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    folder: String,
    stamp: Stamp,
    name: String,
    colour: Option<u32>,
    /// Sources and views of the templates, then of the counter-examples.
    templates: Vec<(String, Viewpoint)>,
    rejected: Vec<(String, Viewpoint)>,
}

impl Entry {
    fn rows(&self) -> usize {
        self.templates.len() + self.rejected.len()
    }
}

/// The file of a gallery by a model.
pub(super) fn path(root: &Path, model: ModelId) -> PathBuf {
    root.join(format!("{PREFIX}{model}"))
}

/// Deletes the files of a gallery by all models.
///
/// # Errors
/// When one cannot be deleted.
pub(super) fn remove(root: &Path) -> Result<(), GalleryError> {
    for name in disk::names(root)?.iter().filter(|name| name.starts_with(PREFIX)) {
        let path = root.join(name);
        fs::remove_file(&path).map_err(|error| disk::write_error(&path, error))?;
    }
    Ok(())
}

/// An open file.
pub(super) struct Pack {
    map: Mmap,
    model: ModelId,
    length: usize,
    /// By folder, each with the offset of the first vector in bytes.
    people: Vec<(Entry, usize)>,
}

impl Pack {
    /// Opens the file; `None` if it is missing, damaged or of another model.
    pub(super) fn open(path: &Path, model: ModelId) -> Option<Self> {
        let file = File::open(path).ok()?;
        // SAFETY: nobody writes into the file: it is replaced by renaming another one over it.
        let map = unsafe { Mmap::map(&file) }.ok()?;
        let rest = map.strip_prefix(MAGIC)?;
        let (size, rest) = rest.split_first_chunk()?;
        let size = usize::try_from(u64::from_le_bytes(*size)).ok()?;
        let header: Header = serde_json::from_slice(rest.get(..size)?).ok()?;
        if header.model != model.to_string() {
            return None;
        }
        let mut at = (MAGIC.len() + 8 + size).next_multiple_of(4);
        let mut people = Vec::with_capacity(header.people.len());
        for entry in header.people {
            let bytes = entry.rows().checked_mul(header.length)?.checked_mul(4)?;
            people.push((entry, at));
            at = at.checked_add(bytes)?;
        }
        let sorted = people.is_sorted_by(|(a, _), (b, _)| a.folder < b.folder);
        (at == map.len() && sorted).then_some(Self { map, model, length: header.length, people })
    }

    /// People in it.
    pub(super) fn len(&self) -> usize {
        self.people.len()
    }

    /// The person in a folder that has not changed.
    pub(super) fn person(&self, folder: &str, stamp: Stamp) -> Option<PersonTemplates> {
        let at = self.people.binary_search_by(|(entry, _)| entry.folder.as_str().cmp(folder)).ok()?;
        let (entry, start) = &self.people[at];
        if entry.stamp != stamp {
            return None;
        }
        let bytes = self.map.get(*start..*start + 4 * entry.rows() * self.length)?;
        let mut values = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let mut template = |(source, view): &(String, Viewpoint)| {
            let vector = values.by_ref().take(self.length).collect();
            let embedding = Embedding::from_unit(self.model, vector)?;
            Some(Template { source: source.clone(), embedding, view: *view })
        };
        let templates = entry.templates.iter().map(&mut template).collect::<Option<_>>()?;
        let rejected = entry.rejected.iter().map(&mut template).collect::<Option<_>>()?;
        Some(PersonTemplates { name: entry.name.clone(), colour: entry.colour, templates, rejected })
    }

    /// All people that can be read, whether their folders have changed or not.
    #[cfg(any(fuzzing, test))]
    pub(super) fn everybody(&self) -> Vec<PersonTemplates> {
        self.people.iter().filter_map(|(entry, _)| self.person(&entry.folder, entry.stamp)).collect()
    }
}

/// Replaces the file by one with these people, who come in the order of folders.
///
/// # Errors
/// Errors of writing. They affect speed only.
pub(super) fn write(path: &Path, model: ModelId, people: &[Packed]) -> std::io::Result<()> {
    let vectors = |one: &Packed| -> Vec<Embedding> {
        let all = one.person.templates.iter().chain(&one.person.rejected);
        all.map(|template| template.embedding.clone()).collect()
    };
    let sources =
        |templates: &[Template]| templates.iter().map(|one| (one.source.clone(), one.view)).collect();
    let entry = |one: &Packed| Entry {
        folder: one.folder.clone(),
        stamp: one.stamp,
        name: one.person.name.clone(),
        colour: one.person.colour,
        templates: sources(&one.person.templates),
        rejected: sources(&one.person.rejected),
    };
    let length = people.iter().flat_map(&vectors).next().map_or(0, |first| first.as_slice().len());
    let header = Header { model: model.to_string(), length, people: people.iter().map(entry).collect() };
    let header = serde_json::to_vec(&header)?;
    disk::replace(path, |file| {
        let mut file = std::io::BufWriter::new(file);
        file.write_all(MAGIC)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let end = MAGIC.len() + 8 + header.len();
        file.write_all(&[0; 3][..end.next_multiple_of(4) - end])?;
        for embedding in people.iter().flat_map(&vectors) {
            for value in embedding.as_slice() {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        file.flush()
    })
}
