//! Counter-examples: "this is not them".

use super::{GalleryError, GalleryFolder, Index, NewStill, Person, PersonName, REJECTED, disk, enter};
use super::{remove_unmentioned, write_index, write_still};

/// Result of [`GalleryFolder::reject`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The person as they are now.
    pub person: Person,
    /// Counter-examples that are new.
    pub added: usize,
    /// Counter-examples that were stored before; the face chosen now counts.
    pub known: usize,
}

impl GalleryFolder {
    /// Stores faces of others that were mistaken for a person. A face that is nearer to one of them than to
    /// the person is no longer given that name; see [`crate::identify::Identifier::identify`]. It stores all
    /// of them or, if it fails or the program is killed, none.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name, [`GalleryError::EnrolledAs`] when a face is one
    /// of the person's own stills; otherwise errors of reading and writing.
    pub fn reject(&self, name: &PersonName, stills: Vec<NewStill>) -> Result<Rejected, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let person = self.person(name)?;
        let mut index = Index::of(&person);
        let (mut added, mut known, mut files) = (0, 0, Vec::new());
        for (place, still) in stills.into_iter().enumerate() {
            let digest = blake3::hash(&still.bytes).to_hex().to_string();
            if index.stills.iter().any(|own| own.shows(&digest, &still.examined.face)) {
                let (file, person) = (still.file_name, name.to_string());
                return Err(GalleryError::EnrolledAs { still: place, file, person });
            }
            let (entry, is_new) = enter(&mut index.rejected, &digest, &still);
            *(if is_new { &mut added } else { &mut known }) += 1;
            files.push((entry, still));
        }
        for (entry, still) in &files {
            write_still(&person.folder, REJECTED, entry, still)?;
        }
        write_index(&person.folder, &index)?;
        remove_unmentioned(&person.folder, &index)?;
        Ok(Rejected { person: Person { rejected: index.rejected, ..person }, added, known })
    }
}
