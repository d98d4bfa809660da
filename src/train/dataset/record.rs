//! RecordIO of MXNet: the format in which CASIA-WebFace and others are commonly distributed.
//!
//! A record is a magic number, a word with the length of its content (29 bits) and a flag (3 bits:
//! 0 whole, 1 first, 2 middle, 3 last part of a content that itself holds the magic number), and the content,
//! padded to a multiple of 4 bytes; all little-endian. The content is a header of 24 bytes (count of further
//! labels u32, label f32, two identifiers u64), that number of further labels f32, and an encoded image. The
//! index has one line `number TAB offset` per record. Record 0 of a face data set holds no image but two
//! labels: the number after the last image, and the number after the last identity; records between them are
//! ranges of images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Identity, Image, Source};
use crate::train::TrainError;

const MAGIC: u32 = 0xced7_230a;

/// Bytes of the header of a content.
const HEADER: usize = 24;

/// Maximum plausible length of a content in bytes, far above any crop.
const MOST_BYTES: u32 = 1 << 26;

/// A RecordIO file with images of faces.
#[derive(Debug, Clone)]
pub struct RecordFile {
    pub(super) path: PathBuf,
}

/// Reads records of a file.
#[derive(Debug)]
pub(super) struct RecordReader {
    path: PathBuf,
    file: BufReader<File>,
}

/// The RecordIO file at a path: the file itself, or the one in the folder.
pub(super) fn find(path: &Path) -> Option<PathBuf> {
    let is_record = |path: &Path| path.extension().is_some_and(|ending| ending == "rec");
    if path.is_dir() {
        let usual = path.join("train.rec");
        return usual.is_file().then_some(usual);
    }
    is_record(path).then(|| path.to_owned())
}

/// The header of a content.
struct Header {
    label: f32,
    labels: Vec<f32>,
}

impl RecordFile {
    /// Opens a file and reads the header of every image, which shows whether the file is complete.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Identity>), TrainError> {
        let index_path = path.with_extension("idx");
        let index = read_index(&index_path)?;
        let record = Self { path: path.to_owned() };
        let mut reader = record.reader()?;
        let numbers = match index.get(&0) {
            Some(&offset) => match reader.header(0, offset)?.labels.first() {
                // The first record states where the images end.
                Some(&end) if end >= 1.0 => 1..end as u64,
                Some(end) => return Err(reader.damaged(0, format!("it says that images end at {end}"))),
                None => 0..u64::MAX,
            },
            None => 0..u64::MAX,
        };
        let mut classes: BTreeMap<u64, Vec<Image>> = BTreeMap::new();
        for (row, (&number, &offset)) in index.range(numbers.clone()).enumerate() {
            let Header { label, labels } = reader.header(number, offset)?;
            let label = labels.first().copied().unwrap_or(label);
            if !(label >= 0.0 && label.fract() == 0.0) {
                return Err(reader.damaged(number, format!("its label {label} is not a class")));
            }
            let image = Image { source: Source::Record { number, offset }, row };
            classes.entry(label as u64).or_default().push(image);
        }
        let found: usize = classes.values().map(Vec::len).sum();
        if numbers.end != u64::MAX && found as u64 + 1 != numbers.end {
            let cause = format!("record 0 announces {} images, but the index has {found}", numbers.end - 1);
            return Err(TrainError::Record { path: index_path, record: found as u64 + 1, cause });
        }
        if classes.is_empty() {
            return Err(TrainError::NoDataset { path: path.to_owned(), cause: "it has no images".into() });
        }
        let named = |(label, images): (u64, Vec<Image>)| Identity { name: label.to_string(), images };
        Ok((record, classes.into_iter().map(named).collect()))
    }

    pub(super) fn reader(&self) -> Result<RecordReader, TrainError> {
        let file =
            File::open(&self.path).map_err(|source| TrainError::Read { path: self.path.clone(), source })?;
        Ok(RecordReader { path: self.path.clone(), file: BufReader::new(file) })
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<u64, u64>, TrainError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    let mut index = BTreeMap::new();
    for (line, text) in text.lines().enumerate() {
        let entry = text.split_once('\t').and_then(|(number, offset)| {
            Some((number.trim().parse::<u64>().ok()?, offset.trim().parse::<u64>().ok()?))
        });
        let (number, offset) = entry.ok_or_else(|| TrainError::Record {
            path: path.to_owned(),
            record: line as u64,
            cause: format!("line {} is not a number, a tab and an offset", line + 1),
        })?;
        index.insert(number, offset);
    }
    Ok(index)
}

impl RecordReader {
    /// Name of a record in errors.
    pub(super) fn name(&self, number: u64) -> String {
        format!("record {number} of {}", self.path.display())
    }

    fn damaged(&self, record: u64, cause: String) -> TrainError {
        TrainError::Record { path: self.path.clone(), record, cause }
    }

    fn seek(&mut self, number: u64, offset: u64) -> Result<(), TrainError> {
        let position = self.file.stream_position().unwrap_or(0);
        // A relative seek keeps the buffer when records are consecutive.
        let moved = match i64::try_from(offset).ok().and_then(|o| o.checked_sub(position as i64)) {
            Some(by) => self.file.seek_relative(by),
            None => self.file.seek(SeekFrom::Start(offset)).map(drop),
        };
        moved.map_err(|error| self.damaged(number, error.to_string()))
    }

    fn fill(&mut self, number: u64, bytes: &mut [u8]) -> Result<(), TrainError> {
        self.file.read_exact(bytes).map_err(|error| self.damaged(number, error.to_string()))
    }

    /// Flag and length of the part that starts here.
    fn part(&mut self, number: u64) -> Result<(u32, usize), TrainError> {
        let mut words = [0; 8];
        self.fill(number, &mut words)?;
        let word = |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        let (flag, length) = (word(4) >> 29, word(4) & ((1 << 29) - 1));
        if word(0) != MAGIC {
            return Err(self.damaged(number, "no record starts there".into()));
        }
        if length > MOST_BYTES {
            return Err(self.damaged(number, format!("a length of {length} bytes")));
        }
        Ok((flag, length as usize))
    }

    /// The whole content of the record at `offset`.
    fn content(&mut self, number: u64, offset: u64) -> Result<Vec<u8>, TrainError> {
        self.seek(number, offset)?;
        let mut content = Vec::new();
        loop {
            let (flag, length) = self.part(number)?;
            let start = content.len();
            content.resize(start + length, 0);
            self.fill(number, &mut content[start..])?;
            if flag == 0 || flag == 3 {
                return Ok(content);
            }
            let mut filling = [0; 3];
            self.fill(number, &mut filling[..length.wrapping_neg() % 4])?;
            content.extend(MAGIC.to_le_bytes());
        }
    }

    /// The header of a record without its image, whose last byte must nevertheless exist.
    fn header(&mut self, number: u64, offset: u64) -> Result<Header, TrainError> {
        self.seek(number, offset)?;
        let (_, length) = self.part(number)?;
        let mut start = vec![0; length.min(HEADER)];
        self.fill(number, &mut start)?;
        let count = labels(&start).ok_or_else(|| self.damaged(number, "its header is cut off".into()))?;
        let mut further = vec![0; 4 * count.min(MOST_BYTES as usize / 4)];
        if HEADER + further.len() > length {
            return Err(self.damaged(number, format!("{count} labels do not fit into it")));
        }
        self.fill(number, &mut further)?;
        let rest = length - HEADER - further.len();
        if rest > 0 {
            self.seek(number, offset + 8 + length as u64 - 1)?;
            self.fill(number, &mut [0])?;
        }
        let float = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        Ok(Header {
            label: f32::from_le_bytes([start[4], start[5], start[6], start[7]]),
            labels: further.as_chunks().0.iter().map(float).collect(),
        })
    }

    /// The encoded image of a record.
    pub(super) fn image(&mut self, number: u64, offset: u64) -> Result<Vec<u8>, TrainError> {
        let mut content = self.content(number, offset)?;
        let start = labels(&content).map(|count| HEADER + 4 * count).filter(|start| *start <= content.len());
        let start = start.ok_or_else(|| self.damaged(number, "its header is cut off".into()))?;
        Ok(content.split_off(start))
    }
}

/// The number of further labels of a content.
fn labels(content: &[u8]) -> Option<usize> {
    let count = content.get(..HEADER)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*count)).ok().filter(|count| *count < MOST_BYTES as usize)
}
