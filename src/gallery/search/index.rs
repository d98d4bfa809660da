//! An index on disk that proposes the nearest of very many vectors.
//!
//! A graph of near neighbours (HNSW: Malkov and Yashunin, 2018; the library is USearch), with
//! the vectors in 8 bits: that is enough to propose, and exact cosines decide. The file is
//! memory-mapped for searching. Vectors come and go without a rebuild: what changed is put into
//! the graph, and the file replaced.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::gallery::{GalleryError, disk};

/// Neighbours of a vector in the graph: more find more and take more room.
const CONNECTIVITY: usize = 32;
/// Candidates looked at when a vector is put in.
const EXPANSION_ADD: usize = 128;
/// Candidates looked at in a search, of which [`PROPOSED`] are handed on.
const EXPANSION_SEARCH: usize = 512;
/// Vectors proposed in a search.
pub const PROPOSED: usize = 64;

const GRAPH: &str = "graph.usearch";
const KEYS: &str = "keys.json";

/// What the graph holds; written after it, so that a crash in between is found out.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    /// Values of a vector.
    length: usize,
    /// Size of the graph's file.
    bytes: u64,
    /// Keys, sorted.
    keys: Vec<u64>,
}

/// What [`VectorIndex::open`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The file held what was wanted.
    None,
    /// So many vectors were put in and taken out.
    Updated {
        /// Put in.
        added: usize,
        /// Taken out.
        removed: usize,
    },
    /// There was no usable file.
    Built,
}

impl Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("as it was"),
            Self::Updated { added, removed } => write!(f, "{added} put in, {removed} taken out"),
            Self::Built => f.write_str("newly built"),
        }
    }
}

/// Unit vectors, found by nearness.
pub struct VectorIndex {
    graph: Index,
    /// Row by key.
    rows: HashMap<u64, usize>,
}

impl std::fmt::Debug for VectorIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorIndex").field("vectors", &self.rows.len()).finish_non_exhaustive()
    }
}

impl VectorIndex {
    /// The index in `folder` of the unit vectors in `matrix`, `length` values a row: the file as
    /// it is where it holds just these, otherwise brought up to date. `threads` work on that, at
    /// least 1.
    ///
    /// # Errors
    /// [`GalleryError::Write`] or [`GalleryError::Read`] when the folder cannot be used.
    pub fn open(
        folder: &Path,
        matrix: &[f32],
        length: usize,
        threads: usize,
    ) -> Result<(Self, Change), GalleryError> {
        let path = folder.join(GRAPH);
        let mut rows = HashMap::new();
        for (row, vector) in matrix.chunks_exact(length.max(1)).enumerate() {
            // Of equal vectors the first.
            rows.entry(key(vector)).or_insert(row);
        }
        let mut wanted: Vec<u64> = rows.keys().copied().collect();
        wanted.sort_unstable();
        let held = read_contents(folder, &path, length);
        if let Some(held) = &held
            && held.keys == wanted
            && let Ok(graph) = viewed(&path, length)
        {
            return Ok((Self { graph, rows }, Change::None));
        }
        let (mut graph, mut change, mut before) = (empty(&path, length)?, Change::Built, Vec::new());
        if let Some(held) = held
            && graph.load(&text(&path)).is_ok()
        {
            before = held.keys;
            let added = wanted.iter().filter(|key| before.binary_search(key).is_err()).count();
            let removed = before.iter().filter(|key| wanted.binary_search(key).is_err()).count();
            change = Change::Updated { added, removed };
        }
        if before.is_empty() {
            graph = empty(&path, length)?;
        }
        for gone in before.iter().filter(|key| wanted.binary_search(key).is_err()) {
            graph.remove(*gone).map_err(|error| failed(&path, error))?;
        }
        let new: Vec<u64> = wanted.iter().copied().filter(|key| before.binary_search(key).is_err()).collect();
        graph.reserve(wanted.len() + before.len()).map_err(|error| failed(&path, error))?;
        let share = new.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let workers: Vec<_> = new
                .chunks(share)
                .map(|keys| {
                    let (graph, rows) = (&graph, &rows);
                    scope.spawn(move || {
                        keys.iter().try_for_each(|key| {
                            let row = rows[key];
                            graph.add(*key, &matrix[row * length..][..length])
                        })
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result.map_err(|error| failed(&path, error)),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        save(folder, &path, &graph, length, wanted)?;
        let graph = viewed(&path, length)?;
        Ok((Self { graph, rows }, change))
    }

    /// Rows that are among the nearest to `probe`, in order of rows.
    pub fn propose(&self, probe: &[f32]) -> Vec<usize> {
        // A probe of another length is the only thing it could refuse.
        let Ok(found) = self.graph.search(probe, PROPOSED) else { return Vec::new() };
        let mut rows: Vec<usize> = found.keys.iter().filter_map(|key| self.rows.get(key).copied()).collect();
        rows.sort_unstable();
        rows
    }
}

/// Identifies a vector by its values: two that are equal are one.
fn key(vector: &[f32]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for value in vector {
        hasher.update(&value.to_le_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn empty(path: &Path, length: usize) -> Result<Index, GalleryError> {
    let options = IndexOptions {
        dimensions: length,
        metric: MetricKind::Cos,
        quantization: ScalarKind::I8,
        connectivity: CONNECTIVITY,
        expansion_add: EXPANSION_ADD,
        expansion_search: EXPANSION_SEARCH,
        multi: false,
    };
    Index::new(&options).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: impl Display) -> GalleryError {
    disk::write_error(path, io::Error::other(error.to_string()))
}

/// The graph in a file, memory-mapped.
fn viewed(path: &Path, length: usize) -> Result<Index, GalleryError> {
    let graph = empty(path, length)?;
    graph.view(&text(path)).map_err(|error| failed(path, error))?;
    Ok(graph)
}

/// What the file holds; `None` when it is missing, cut short, or of other vectors.
fn read_contents(folder: &Path, path: &Path, length: usize) -> Option<Contents> {
    let contents: Contents = serde_json::from_slice(&disk::read(&folder.join(KEYS)).ok()??).ok()?;
    let bytes = std::fs::metadata(path).ok()?.len();
    (contents.length == length && contents.bytes == bytes).then_some(contents)
}

/// Replaces the graph, then the list of what it holds.
fn save(
    folder: &Path,
    path: &Path,
    graph: &Index,
    length: usize,
    keys: Vec<u64>,
) -> Result<(), GalleryError> {
    disk::create_folder(folder)?;
    // In the same folder, so that a rename is enough; it vanishes when anything fails.
    let pending = tempfile::Builder::new()
        .prefix(".part-")
        .tempfile_in(folder)
        .map_err(|error| disk::write_error(path, error))?
        .into_temp_path();
    graph.save(&text(&pending)).map_err(|error| failed(path, error))?;
    let bytes = std::fs::metadata(&pending).map_err(|error| disk::write_error(path, error))?.len();
    pending.persist(path).map_err(|error| disk::write_error(path, error.error))?;
    let contents = Contents { length, bytes, keys };
    let json = serde_json::to_vec(&contents).map_err(|error| failed(path, error))?;
    disk::write(&folder.join(KEYS), &json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::search::exact;
    use crate::nn::Isa;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    const LENGTH: usize = 32;

    fn unit(random: &mut SmallRng) -> Vec<f32> {
        let vector: Vec<f32> = (0..LENGTH).map(|_| random.random_range(-1.0..1.0f32)).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.into_iter().map(|x| x / norm).collect()
    }

    /// Of `probes`, those whose nearest row of `matrix` is proposed.
    fn recall(index: &VectorIndex, matrix: &[f32], probes: &[Vec<f32>]) -> usize {
        let found = |probe: &&Vec<f32>| {
            let mut cosines = vec![0.0; matrix.len() / LENGTH];
            exact::cosines(Isa::best(), probe, matrix, &mut cosines);
            let best = (0..cosines.len()).max_by(|&a, &b| cosines[a].total_cmp(&cosines[b])).unwrap();
            index.propose(probe).contains(&best)
        };
        probes.iter().filter(found).count()
    }

    #[test]
    fn it_proposes_the_nearest_is_kept_and_follows_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let mut matrix: Vec<f32> = (0..2000).flat_map(|_| unit(&mut random)).collect();
        let probes: Vec<Vec<f32>> = (0..200).map(|_| unit(&mut random)).collect();
        let open = |matrix: &[f32]| VectorIndex::open(folder.path(), matrix, LENGTH, 2).unwrap();
        let (index, change) = open(&matrix);
        assert_eq!(change, Change::Built);
        assert!(recall(&index, &matrix, &probes) >= 198);
        assert_eq!(open(&matrix).1, Change::None, "memory-mapped as it is");

        // 100 leave, 50 come: nothing is built anew, and nobody who left is proposed.
        matrix.drain(..100 * LENGTH);
        matrix.extend((0..50).flat_map(|_| unit(&mut random)));
        let (index, change) = open(&matrix);
        assert_eq!(change, Change::Updated { added: 50, removed: 100 });
        assert!(recall(&index, &matrix, &probes) >= 198);
        let newest = &matrix[matrix.len() - LENGTH..];
        assert!(index.propose(newest).contains(&(matrix.len() / LENGTH - 1)));
        assert_eq!(open(&matrix).1, Change::None);
        let names: Vec<_> = disk::names(folder.path()).unwrap();
        assert_eq!(names, [GRAPH, KEYS], "no temporary file is left");
    }

    #[test]
    fn a_file_cut_short_or_of_other_vectors_is_built_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = SmallRng::seed_from_u64(2);
        let matrix: Vec<f32> = (0..300).flat_map(|_| unit(&mut random)).collect();
        VectorIndex::open(folder.path(), &matrix, LENGTH, 1).unwrap();
        let path = folder.path().join(GRAPH);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let (index, change) = VectorIndex::open(folder.path(), &matrix, LENGTH, 1).unwrap();
        assert_eq!(change, Change::Built);
        assert!(index.propose(&matrix[..LENGTH]).contains(&0));
        std::fs::write(folder.path().join(KEYS), "{").unwrap();
        assert_eq!(VectorIndex::open(folder.path(), &matrix, LENGTH, 1).unwrap().1, Change::Built);
        let half: Vec<f32> = matrix.chunks(LENGTH).flat_map(|row| row[..16].to_vec()).collect();
        assert_eq!(VectorIndex::open(folder.path(), &half, 16, 1).unwrap().1, Change::Built);
    }
}
