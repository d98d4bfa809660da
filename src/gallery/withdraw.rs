//! Single stills and counter-examples that were a mistake.

use super::{GalleryError, GalleryFolder, Index, Person, PersonName, Still, disk, pack};
use super::{remove_unmentioned, write_index};

impl GalleryFolder {
    /// Removes a still of a person with everything derived from it.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name, [`GalleryError::NoSuchStill`] when they have no
    /// such still, [`GalleryError::OnlyStill`] when they have no other; otherwise errors of reading and
    /// writing.
    pub fn remove_still(&self, name: &PersonName, file: &str) -> Result<Person, GalleryError> {
        self.withdraw(name, file, |index| {
            if let [only] = index.stills.as_slice()
                && only.file == file
            {
                return Err(GalleryError::OnlyStill { person: name.to_string(), file: file.to_owned() });
            }
            Ok(&mut index.stills)
        })
    }

    /// Removes a counter-example of a person ([`GalleryFolder::reject`]).
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has that name, [`GalleryError::NoSuchStill`] when they have no
    /// such counter-example; otherwise errors of reading and writing.
    pub fn unreject(&self, name: &PersonName, file: &str) -> Result<Person, GalleryError> {
        self.withdraw(name, file, |index| Ok(&mut index.rejected))
    }

    fn withdraw(
        &self,
        name: &PersonName,
        file: &str,
        from: impl FnOnce(&mut Index) -> Result<&mut Vec<Still>, GalleryError>,
    ) -> Result<Person, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let person = self.person(name)?;
        let mut index = Index::of(&person);
        let stills = from(&mut index)?;
        let before = stills.len();
        stills.retain(|still| still.file != file);
        if stills.len() == before {
            return Err(GalleryError::NoSuchStill { person: name.to_string(), file: file.to_owned() });
        }
        write_index(&person.folder, &index)?;
        remove_unmentioned(&person.folder, &index)?;
        // The pack holds it too, until it is written again.
        pack::remove(&self.root)?;
        let Index { stills, rejected, .. } = index;
        Ok(Person { stills, rejected, ..person })
    }
}
