//! Test sets that are folders: one folder of images per person.

use std::path::{Path, PathBuf};

use super::EvalError;

/// Images of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name of the folder.
    pub name: String,
    /// The images in it, sorted by name.
    pub images: Vec<PathBuf>,
}

/// The images of a folder and the folders in it, sorted by path; symbolic links to folders are not followed.
///
/// # Errors
/// When a folder cannot be read.
pub fn images(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for path in list(&folder)? {
            let is_link = path.symlink_metadata().is_ok_and(|data| data.is_symlink());
            match path.is_dir() {
                true if !is_link => waiting.push(path),
                false if is_image(&path) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is in a folder, sorted.
fn list(path: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let error = |source| EvalError::Read { path: path.into(), source };
    let entries = std::fs::read_dir(path).map_err(error)?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(error)?;
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    ["jpg", "jpeg", "png", "webp"].contains(&ending.as_str())
}

/// The people of a folder with one folder of images each, sorted by name; folders without images are omitted.
///
/// # Errors
/// When a folder cannot be read or fewer than two people are in it.
pub fn people(folder: &Path) -> Result<Vec<Person>, EvalError> {
    let mut people = Vec::new();
    for path in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        let images: Vec<PathBuf> = list(&path)?.into_iter().filter(|path| is_image(path)).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !images.is_empty() {
            people.push(Person { name, images });
        }
    }
    if people.len() < 2 {
        return Err(EvalError::TooLittle(format!(
            "{} has images of {} people: give a folder with one folder of images per person, for at least two people",
            folder.display(),
            people.len()
        )));
    }
    Ok(people)
}
