//! The journal of the outcome of every image, so that a run can continue where another ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Image, JOURNAL, Outcome, PrepareError, Record, Settings};
use crate::file;

/// Version of the file format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    sphereface_align: u32,
    settings: Settings,
}

/// The journal of a folder of crops.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    header: String,
    records: BTreeMap<String, Record>,
    file: File,
}

impl Journal {
    /// Opens the journal of `folder`, which is created if it is missing.
    pub fn open(folder: &Path, settings: &Settings) -> Result<Self, PrepareError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| PrepareError::Write { path: folder.into(), source })?;
        let path = folder.join(JOURNAL);
        let mut records = BTreeMap::new();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let mut lines = text.lines();
                let header: Option<Header> = lines.next().and_then(|line| serde_json::from_str(line).ok());
                let header = header
                    .filter(|header| header.sphereface_align == VERSION)
                    .ok_or_else(|| PrepareError::Journal(path.clone()))?;
                if header.settings != *settings {
                    return Err(PrepareError::Settings {
                        folder: folder.into(),
                        before: header.settings.to_string(),
                        now: settings.to_string(),
                    });
                }
                // The last line of a run that was killed may be incomplete: that image is processed again.
                let whole = lines.filter_map(|line| serde_json::from_str::<Record>(line).ok());
                records.extend(whole.map(|record| (record.image.clone(), record)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PrepareError::Read { path, source }),
        }
        let header = Header { sphereface_align: VERSION, settings: settings.clone() };
        let failed = |source| PrepareError::Write { path: path.clone(), source };
        let header = serde_json::to_string(&header).map_err(|error| failed(error.into()))?;
        publish(&path, &text(&header, &records).map_err(failed)?)?;
        let file = File::options().append(true).open(&path).map_err(failed)?;
        Ok(Self { folder: folder.into(), header, records, file })
    }

    /// Whether an image is finished: its outcome is known and its crop, if it has one, exists. Images that
    /// could not be read are tried again.
    pub fn is_done(&self, image: &Image) -> bool {
        self.records.get(&image.name).is_some_and(|record| match &record.crop {
            Some(crop) => *crop == image.crop && self.folder.join(crop).is_file(),
            None => record.outcome != Outcome::Unreadable,
        })
    }

    /// Whether a run has written, or was about to write, the crop of that image.
    pub fn wrote(&self, image: &str) -> bool {
        self.records.get(image).is_some_and(|record| record.crop.is_some() && record.outcome != Outcome::Kept)
    }

    /// The record of an image.
    pub fn record(&self, image: &str) -> Option<&Record> {
        self.records.get(image)
    }

    /// Adds a line, which has been passed to the system when this returns.
    pub fn add(&mut self, record: Record) -> Result<(), PrepareError> {
        let line = serde_json::to_string(&record).map_err(io::Error::from);
        line.and_then(|line| self.file.write_all(format!("{line}\n").as_bytes()))
            .map_err(|source| PrepareError::Write { path: self.folder.join(JOURNAL), source })?;
        self.records.insert(record.image.clone(), record);
        Ok(())
    }

    /// Writes the journal again, in the order of names.
    pub fn finish(&self) -> Result<(), PrepareError> {
        let path = self.folder.join(JOURNAL);
        let text = text(&self.header, &self.records)
            .map_err(|source| PrepareError::Write { path: path.clone(), source })?;
        publish(&path, &text)
    }
}

fn text(header: &str, records: &BTreeMap<String, Record>) -> io::Result<Vec<u8>> {
    let mut text = format!("{header}\n").into_bytes();
    for record in records.values() {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Writes a file; see [`crate::file`].
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), PrepareError> {
    file::write(path, bytes).map_err(|source| PrepareError::Write { path: path.into(), source })
}
