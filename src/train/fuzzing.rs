//! The readers of this module for [`fuzzing`](crate::fuzzing).

use std::path::Path;

use super::config::{DataConfig, Flags, Layers};
use super::dataset::{Dataset, Teacher};

/// Separator of the index and the records, which no index contains.
const BETWEEN: &[u8] = b"\n\n";

/// Reads everything of a data set that can be read.
pub(super) fn read_all(path: &Path) {
    let config = DataConfig { exclude: Vec::new(), ..DataConfig::default() };
    let Ok(set) = Dataset::open(path, &config, 1) else { return };
    let Ok(mut reader) = set.reader() else { return };
    set.items.iter().for_each(|(image, _)| drop(reader.read(image)));
}

/// A folder with files of these names and bytes.
#[allow(clippy::unwrap_used)]
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

/// A pair of RecordIO files: the index, an empty line, the records.
pub(crate) fn recordio(bytes: &[u8]) {
    let middle = bytes.windows(BETWEEN.len()).position(|two| two == BETWEEN);
    let (index, records) = bytes.split_at(middle.map_or(0, |at| at + BETWEEN.len()));
    let index = index.strip_suffix(b"\n").unwrap_or(index);
    let folder = folder(&[("train.idx", index), ("train.rec", records)]);
    read_all(&folder.path().join("train.rec"));
}

/// A list of images.
pub(crate) fn list(bytes: &[u8]) {
    read_all(&folder(&[("list.txt", bytes)]).path().join("list.txt"));
}

/// The embeddings of a teacher.
pub(crate) fn teacher(bytes: &[u8]) {
    drop(Teacher::read(&folder(&[("teacher.npy", bytes)]).path().join("teacher.npy"), 2));
}

/// Settings of a run.
pub(crate) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let layers = Layers::preset("sphereface20-casia").and_then(|preset| preset.over(&text, "a file"));
    if let Ok(config) = layers.and_then(|layers| layers.finish(&Flags::default())) {
        config.to_toml();
    }
}
