//! Folders of crops and list files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Identity, Image, Source};
use crate::train::TrainError;

/// Extensions of image files.
const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "tiff"];

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The entries of a folder by name, without hidden ones.
fn entries(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = |source| TrainError::Read { path: path.to_owned(), source };
    let mut list = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            list.push(entry.path());
        }
    }
    list.sort();
    Ok(list)
}

/// A folder with one folder of images per identity.
pub(super) fn folder(path: &Path) -> Result<Vec<Identity>, TrainError> {
    let mut identities = Vec::new();
    let mut row = 0;
    for folder in entries(path)?.into_iter().filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files: Vec<PathBuf> = entries(&folder)?.into_iter().filter(|path| is_image(path)).collect();
        if files.is_empty() {
            return Err(TrainError::EmptyClass { path: path.to_owned(), class: name });
        }
        let images = files
            .into_iter()
            .map(|file| {
                row += 1;
                Image { source: Source::File(file), row: row - 1 }
            })
            .collect();
        identities.push(Identity { name, images });
    }
    if identities.is_empty() {
        let cause = "it has no folders".into();
        return Err(TrainError::NoDataset { path: path.to_owned(), cause });
    }
    Ok(identities)
}

/// A list of lines `path label`; paths are relative to the list. The label follows the last space or tab. If
/// all labels are numbers, they are classes from 0 on.
pub(super) fn list(path: &Path) -> Result<Vec<Identity>, TrainError> {
    let text =
        crate::file::read_text(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut classes: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (row, (index, line)) in lines.enumerate() {
        let (file, label) = line.trim().rsplit_once([' ', '\t']).ok_or_else(|| TrainError::List {
            path: path.to_owned(),
            line: index + 1,
            cause: "it has no label".into(),
        })?;
        let image = Image { source: Source::File(base.join(file.trim_end())), row };
        classes.entry(label.to_owned()).or_default().push(image);
    }
    if classes.is_empty() {
        let cause = "it has no lines".into();
        return Err(TrainError::NoDataset { path: path.to_owned(), cause });
    }
    let numbers: Option<BTreeMap<u64, &String>> =
        classes.keys().map(|label| Some((label.parse().ok()?, label))).collect();
    let order: Vec<String> = match numbers {
        Some(numbers) => {
            let last = numbers.last_key_value().map_or(0, |(last, _)| *last);
            if let Some((missing, _)) = (0..).zip(numbers.keys()).find(|(expected, found)| expected != *found)
            {
                return Err(TrainError::LabelGap { path: path.to_owned(), missing, last });
            }
            numbers.into_values().cloned().collect()
        }
        None => classes.keys().cloned().collect(),
    };
    Ok(order
        .into_iter()
        .map(|name| Identity { images: classes.remove(&name).unwrap_or_default(), name })
        .collect())
}
