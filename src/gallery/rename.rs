//! Renaming a person.

use super::{GalleryError, GalleryFolder, Index, Person, PersonName, disk, name, pack, write_index};

impl GalleryFolder {
    /// Gives a person another name. The index is replaced first: if the program is killed at any moment, the
    /// person has either the old or the new name. If the folder cannot be moved, the person keeps the old name.
    ///
    /// # Errors
    /// [`GalleryError::Unknown`] when nobody has the old name, [`GalleryError::NameTaken`] when another
    /// person has the new one; otherwise errors of reading and writing.
    pub fn rename(&self, from: &PersonName, to: &PersonName) -> Result<Person, GalleryError> {
        let _lock = disk::WriteLock::take(&self.root)?;
        let people = self.people()?;
        let found = people.iter().find(|person| person.name == *from);
        let person = found.cloned().ok_or_else(|| GalleryError::Unknown(from.to_string()))?;
        if from == to {
            return Ok(person);
        }
        if people.iter().any(|other| other.name == *to) {
            return Err(GalleryError::NameTaken(to.to_string()));
        }
        write_index(&person.folder, &Index { name: to.to_string(), ..Index::of(&person) })?;
        let existing = disk::names(&self.root)?;
        let taken = |folder: &str| existing.iter().any(|other| name::same_file(other, folder));
        let folder = self.root.join(name::free_name(&name::file_name(to.as_str()), taken));
        if let Err(error) = disk::rename_folder(&person.folder, &folder) {
            write_index(&person.folder, &Index::of(&person))?;
            return Err(error);
        }
        // The pack holds the person under the old name, until it is written again.
        pack::remove(&self.root)?;
        Ok(Person { name: to.clone(), folder, ..person })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::INDEX;
    use super::*;

    /// A person without stills.
    fn enter(root: &Path, name: &str) {
        let index =
            Index { version: 1, name: name.into(), colour: Some(1), stills: vec![], rejected: vec![] };
        write_index(&root.join(name), &index).unwrap();
    }

    #[test]
    fn a_person_has_the_new_name_the_same_colour_and_a_folder_named_so() {
        let folder = tempfile::tempdir().unwrap();
        let gallery = GalleryFolder::create(folder.path()).unwrap();
        let name = |text: &str| PersonName::new(text).unwrap();
        enter(folder.path(), "Ada");
        enter(folder.path(), "Bo");
        let renamed = gallery.rename(&name("Ada"), &name("Ada/Lovelace")).unwrap();
        assert_eq!(gallery.people().unwrap()[0], renamed);
        assert_eq!((renamed.name.as_str(), renamed.colour), ("Ada/Lovelace", Some(1)));
        assert_eq!(renamed.folder, folder.path().join("Ada_Lovelace"));
        assert!(renamed.folder.join(INDEX).is_file() && !folder.path().join("Ada").exists());
        let refused = |from: &str, to: &str| gallery.rename(&name(from), &name(to)).unwrap_err();
        assert!(matches!(refused("Ada", "Cy"), GalleryError::Unknown(_)));
        assert!(matches!(refused("Ada/Lovelace", "Bo"), GalleryError::NameTaken(_)));
        assert_eq!(gallery.rename(&name("Bo"), &name(" Bo ")).unwrap().name, name("Bo"));
    }

    #[cfg(unix)]
    #[test]
    fn a_person_whose_folder_cannot_be_moved_keeps_the_old_name() {
        let folder = tempfile::tempdir().unwrap();
        let gallery = GalleryFolder::create(folder.path()).unwrap();
        let name = |text: &str| PersonName::new(text).unwrap();
        enter(folder.path(), "Ada");
        // A folder cannot be moved out of one that is read-only, except by root.
        let mut people = std::fs::metadata(folder.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut people, 0o555);
        std::fs::set_permissions(folder.path(), people.clone()).unwrap();
        let renamed = gallery.rename(&name("Ada"), &name("Zed"));
        std::os::unix::fs::PermissionsExt::set_mode(&mut people, 0o755);
        std::fs::set_permissions(folder.path(), people).unwrap();
        let now = gallery.people().unwrap();
        assert_eq!((now.len(), now[0].name.as_str()), (1, if renamed.is_ok() { "Zed" } else { "Ada" }));
    }
}
