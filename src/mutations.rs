//! Reproducible mutations of bytes, which every reader of untrusted bytes must survive.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::fuzzing;

/// The most memory that reading a small file may take, in bytes.
const MOST_MEMORY: isize = 400 << 20;
/// The most time that it may take, on a busy machine and without optimisation.
const MOST_TIME: Duration = Duration::from_secs(20);
/// Bytes at both ends of a file that are mutated more often than the rest: headers and indexes.
const END: usize = 600;

/// Set to write the files of the corpora that tests make.
const WRITE: &str = "SPHEREFACE_WRITE_CORPORA";

/// Calls `read` with `count` mutations of a file. It may refuse them but must not panic, run for ever or take
/// unlimited memory.
pub(crate) fn survived(whole: &[u8], count: usize, mut read: impl FnMut(&[u8])) {
    let mut rng = StdRng::seed_from_u64(whole.len() as u64);
    for number in 0..count {
        let bytes = mutated(whole, &mut rng);
        bounded(&format!("mutation {number}"), &bytes, &mut read);
    }
}

/// The same for the target of that name in [`fuzzing::TARGETS`], whose corpus has the file as `seed`.
pub(crate) fn survived_by(target: &str, seed: &str, whole: &[u8], count: usize) {
    let read = fuzzing::target(target).unwrap();
    let path = corpus(target).join(seed);
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(&path, whole).unwrap();
    }
    assert!(path.is_file(), "{} is missing: run this test with {WRITE}=1", path.display());
    bounded(seed, whole, read);
    survived(whole, count, read);
}

/// The folder with the corpus of a target.
fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Reads bytes within the limits of memory and time; `name` is their name in a failure.
fn bounded(name: &str, bytes: &[u8], mut read: impl FnMut(&[u8])) {
    let told = Told { name, length: bytes.len() };
    let began = Instant::now();
    let memory = memory_of(|| read(bytes));
    assert!(memory < MOST_MEMORY, "{name} takes {memory} bytes of memory");
    assert!(began.elapsed() < MOST_TIME, "{name} takes {:?}", began.elapsed());
    drop(told);
}

/// Reports the bytes at which a reader panicked.
struct Told<'a> {
    name: &'a str,
    length: usize,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was {}, of {} bytes", self.name, self.length);
        }
    }
}

fn mutated(whole: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        mutate(&mut bytes, rng);
    }
    bytes
}

/// A position in `length` bytes, or at their end.
fn place(length: usize, rng: &mut StdRng) -> usize {
    let end = END.min(length);
    match rng.random_range(0..4) {
        0 => rng.random_range(0..=end),
        1 => length - rng.random_range(0..=end),
        _ => rng.random_range(0..=length),
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let length = bytes.len();
    let at = place(length, rng);
    let to = (at + rng.random_range(1..=64)).min(length);
    match rng.random_range(0..8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..to)),
        // A piece of the file copied to another position, inserted or overwriting.
        2 => {
            let piece = bytes[at..to].to_vec();
            let new = place(length, rng);
            bytes.splice(new..new, piece);
        }
        3 => {
            let new = place(length, rng);
            let piece = bytes[at..to].iter().copied().take(length - new).collect::<Vec<_>>();
            bytes[new..][..piece.len()].copy_from_slice(&piece);
        }
        // A number at or near the smallest or largest of some width and byte order.
        4 | 5 => {
            let number: u64 = match rng.random_range(0..5) {
                0 => 0,
                1 => u64::MAX >> rng.random_range(0..4),
                2 => u64::from(u32::MAX) >> rng.random_range(0..4),
                3 => length as u64 + rng.random_range(0..3),
                _ => 1 << rng.random_range(0..64),
            };
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            let (low, high) = (number.to_le_bytes(), number.to_be_bytes());
            let new = if rng.random() { &low[..width] } else { &high[8 - width..] };
            bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
        }
        6 => bytes[at..to].iter_mut().for_each(|byte| *byte = rng.random()),
        _ => bytes[at..to].iter_mut().take(1).for_each(|byte| *byte ^= 1 << rng.random_range(0..8)),
    }
}

thread_local! {
    /// Bytes that this thread holds, and their maximum so far.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The most memory that this thread takes while it calls `what`.
fn memory_of(what: impl FnOnce()) -> isize {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    what();
    HELD.get().1 - before
}

/// The allocator of the tests: the system's, with a count per thread.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn count(bytes: isize) {
    // A thread that is ending has no count any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: all calls go to the system's allocator; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn what_a_reader_takes_is_measured() {
    assert!((1 << 20..2 << 20).contains(&memory_of(|| drop(vec![1u8; 1 << 20]))));
    let mut seen = Vec::new();
    survived(b"a short text", 100, |bytes| seen.push(bytes.to_vec()));
    let before = seen.len();
    seen.sort();
    seen.dedup();
    assert!(before == 100 && seen.len() > 60, "{} different mutations", seen.len());
}

#[test]
fn every_file_of_the_corpora_is_survived() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    for (name, read) in fuzzing::TARGETS {
        assert!(
            manifest.contains(&format!("\n[[bin]]\nname = \"{name}\"\n")),
            "fuzz/Cargo.toml lacks {name}"
        );
        let files =
            std::fs::read_dir(corpus(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            bounded(&file.display().to_string(), &std::fs::read(&file).unwrap(), read);
        }
    }
    let folders = std::fs::read_dir(corpus("")).unwrap().map(|entry| entry.unwrap().file_name());
    for folder in folders.map(|name| name.into_string().unwrap()) {
        assert!(fuzzing::target(&folder).is_some(), "the corpus {folder} has no target");
    }
}
