//! The readers of this module for [`fuzzing`](crate::fuzzing).

use super::pack::Pack;
use super::{DERIVED, GalleryFolder, INDEX, calibration as calibrations, read_person, templates};
use crate::models::ModelId;

/// The model of all embeddings.
pub(super) const MODEL: ModelId = ModelId([1; 8]);

/// A folder with a file of these bytes.
#[allow(clippy::unwrap_used)]
fn folder(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    folder
}

/// The index of a person.
pub(crate) fn person(bytes: &[u8]) {
    drop(read_person(folder(INDEX, bytes).path()));
}

/// The embeddings of a person.
pub(crate) fn embeddings(bytes: &[u8]) {
    let name = format!("{DERIVED}/embeddings-{MODEL}.json");
    drop(templates::read_vectors(folder(&name, bytes).path(), MODEL));
}

/// The templates of a large gallery in one file.
pub(crate) fn pack(bytes: &[u8]) {
    let folder = folder("pack", bytes);
    drop(Pack::open(&folder.path().join("pack"), MODEL).map(|pack| pack.everybody()));
}

/// The measured threshold.
pub(crate) fn calibration(bytes: &[u8]) {
    let folder = folder(calibrations::FILE, bytes);
    drop(GalleryFolder::open(folder.path()).and_then(|gallery| gallery.threshold_calibration(MODEL)));
}
