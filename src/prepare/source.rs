//! The source of photos: one folder per person, or a list file.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::PrepareError;

/// Extensions of image files.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// One photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its path.
    pub path: PathBuf,
    /// Its name: its path in the folder, or as in the list.
    pub name: String,
    /// The person.
    pub identity: String,
    /// Its crop, relative to the folder of crops.
    pub crop: String,
}

/// A data set of photos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    /// Path, name, identity; in the order of names.
    photos: Vec<(PathBuf, String, String)>,
    ignored: usize,
}

impl Source {
    /// Lists a folder with one folder of images per person, or the images of a list file with lines `path
    /// label` (paths may contain spaces; relative paths start at the list's folder). Hidden files are
    /// ignored.
    ///
    /// # Errors
    /// When it cannot be read, a line is wrong, or there is no image.
    pub fn read(path: &Path) -> Result<Self, PrepareError> {
        let mut source = Self { path: path.into(), photos: Vec::new(), ignored: 0 };
        if path.is_dir() {
            source.read_folder()?
        } else {
            source.read_list()?
        }
        if source.photos.is_empty() {
            return Err(PrepareError::Nobody(path.into()));
        }
        source.photos.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(source)
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Whether there are none; never true for a source that was read.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// The number of files whose names are not those of images.
    pub(super) fn ignored(&self) -> usize {
        self.ignored
    }

    /// Refuses a folder of crops inside the folder of photos.
    ///
    /// # Errors
    /// [`PrepareError::Inside`].
    pub fn keep_apart_from(&self, crops: &Path) -> Result<(), PrepareError> {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        // A folder that does not exist yet is located by its nearest existing ancestor.
        let resolved = absolute(crops);
        let there = resolved.ancestors().find_map(|a| Some((a, a.canonicalize().ok()?)));
        let crops_at = match &there {
            Some((ancestor, real)) => real.join(resolved.strip_prefix(ancestor).unwrap_or(Path::new(""))),
            None => resolved.clone(),
        };
        match self.path.canonicalize() {
            Ok(photos) if photos.is_dir() && crops_at.starts_with(&photos) => {
                Err(PrepareError::Inside { crops: crops.into(), photos: self.path.clone() })
            }
            _ => Ok(()),
        }
    }

    fn read_folder(&mut self) -> Result<(), PrepareError> {
        for person in entries(&self.path)? {
            let identity = file_name(&person);
            if !person.is_dir() {
                self.ignored += 1;
                continue;
            }
            for path in entries(&person)? {
                let ending =
                    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
                if path.is_dir() || !ENDINGS.contains(&ending.as_str()) {
                    self.ignored += 1;
                    continue;
                }
                let name = format!("{identity}/{}", file_name(&path));
                self.photos.push((path, name, identity.clone()));
            }
        }
        Ok(())
    }

    fn read_list(&mut self) -> Result<(), PrepareError> {
        let text = crate::file::read_text(&self.path)
            .map_err(|source| PrepareError::Read { path: self.path.clone(), source })?;
        let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let mut seen = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let error = |cause| PrepareError::List { path: self.path.clone(), line: index + 1, cause };
            let (name, label) =
                line.trim().rsplit_once(char::is_whitespace).ok_or_else(|| error("one word"))?;
            let name = name.trim_end();
            // The label becomes a folder: it must not contain a path, nor be hidden.
            if label.contains(['/', '\\']) || label.starts_with('.') {
                return Err(error("the label cannot be the name of a folder"));
            }
            if seen.insert(name.to_owned(), index).is_some() {
                return Err(error("the path is in the list twice"));
            }
            self.photos.push((folder.join(name), name.into(), label.into()));
        }
        Ok(())
    }

    /// The images with the names of their crops: `IDENTITY/STEM.EXTENSION`. If several would share a name,
    /// each gets its whole path as its name.
    ///
    /// # Errors
    /// [`PrepareError::SameName`] when two images still share a name.
    pub(super) fn images(&self, ending: &str) -> Result<Vec<Image>, PrepareError> {
        let short = |path: &Path, identity: &str| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            format!("{identity}/{stem}.{ending}")
        };
        let mut wanted: HashMap<String, usize> = HashMap::new();
        for (path, _, identity) in &self.photos {
            *wanted.entry(short(path, identity)).or_default() += 1;
        }
        let mut taken: HashMap<String, String> = HashMap::new();
        let mut images = Vec::with_capacity(self.photos.len());
        for (path, name, identity) in &self.photos {
            let mut crop = short(path, identity);
            if wanted.get(&crop).is_some_and(|&count| count > 1) {
                crop = format!("{identity}/{}.{ending}", flattened(name, identity));
            }
            if let Some(first) = taken.insert(crop.clone(), name.clone()) {
                return Err(PrepareError::SameName { first, second: name.clone(), crop });
            }
            let (path, name, identity) = (path.clone(), name.clone(), identity.clone());
            images.push(Image { path, name, identity, crop });
        }
        Ok(images)
    }
}

/// A path as one file name, without the person's folder at its start.
fn flattened(name: &str, identity: &str) -> String {
    let parts: Vec<_> = Path::new(name)
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => Some(part.to_string_lossy()),
            _ => None,
        })
        .collect();
    let skip = usize::from(parts.len() > 1 && parts.first().is_some_and(|part| part == identity));
    parts[skip..].join("_")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The entries of a folder, except hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, PrepareError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().map_err(|source| PrepareError::Read { path: folder.into(), source })?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crops(source: &Source) -> Vec<(String, String)> {
        source.images("png").unwrap().into_iter().map(|image| (image.name, image.crop)).collect()
    }

    fn pair(name: &str, crop: &str) -> (String, String) {
        (name.into(), crop.into())
    }

    #[test]
    fn a_folder_is_listed_by_name_without_what_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["B/2.jpg", "B/1.PNG", "A/x y.webp", "A/x y.jpg", "A/notes.txt", ".git/1.jpg", "top.jpg"]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let source = Source::read(folder.path()).unwrap();
        assert_eq!((source.len(), source.ignored()), (4, 2));
        assert_eq!(
            crops(&source),
            [
                pair("A/x y.jpg", "A/x y.jpg.png"),
                pair("A/x y.webp", "A/x y.webp.png"),
                pair("B/1.PNG", "B/1.png"),
                pair("B/2.jpg", "B/2.png"),
            ]
        );
        assert!(source.keep_apart_from(&folder.path().join("new/crops")).is_err());
        assert!(source.keep_apart_from(folder.path()).is_err());
        assert!(source.keep_apart_from(&folder.path().with_extension("crops")).is_ok());
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Source::read(empty.path()), Err(PrepareError::Nobody(_))));
        assert!(matches!(Source::read(&empty.path().join("no")), Err(PrepareError::Read { .. })));
    }

    #[test]
    fn a_list_names_paths_and_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, "one/1.jpg 0\none/a b.jpg\t7\n\ntwo/1.jpg 0\n/three/9.png 0\n").unwrap();
        let source = Source::read(&path).unwrap();
        assert_eq!(
            crops(&source),
            [
                pair("/three/9.png", "0/9.png"),
                pair("one/1.jpg", "0/one_1.jpg.png"),
                pair("one/a b.jpg", "7/a b.png"),
                pair("two/1.jpg", "0/two_1.jpg.png"),
            ]
        );
        assert_eq!(source.photos[1].0, folder.path().join("one/1.jpg"));
        for (text, line) in
            [("a.jpg 0\nb.jpg\n", 2), ("a.jpg ../x\n", 1), ("a.jpg ..\n", 1), ("a.jpg 0\na.jpg 1\n", 2)]
        {
            std::fs::write(&path, text).unwrap();
            match Source::read(&path) {
                Err(PrepareError::List { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        std::fs::write(&path, "a_b/1.jpg 0\na/b_1.jpg 0\nx/1.jpg 0\ny/b_1.jpg 0\n").unwrap();
        let source = Source::read(&path).unwrap();
        assert!(matches!(source.images("png"), Err(PrepareError::SameName { .. })));
    }
}
