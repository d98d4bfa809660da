//! Data sets: folders of crops, list files, RecordIO pairs.

mod listing;
mod record;
mod teacher;

pub use record::RecordFile;
pub use teacher::Teacher;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::TrainError;
use super::config::{DataConfig, SmallClasses};
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
use crate::eval::verification::Pair;

/// The name of the built-in list of [`CASIA_LFW`].
pub const CASIA_LFW_NAME: &str = "casia-lfw";

/// Identities of CASIA-WebFace that are also in LFW, as the authors name them.
pub const CASIA_LFW: [&str; 3] = ["0166921", "1056413", "1193098"];

/// Width of the wider of the two forms of crops; the SphereFace crop is its middle.
const WIDE: u32 = 112;

/// The location of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A record of the RecordIO file of the data set, by number and offset in bytes.
    Record {
        /// Its number in the index.
        number: u64,
        /// Its offset.
        offset: u64,
    },
}

/// An image with its index in the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its location.
    pub source: Source,
    /// Its index among all images of the data set, before any exclusion.
    pub row: usize,
}

/// An identity with its images.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    name: String,
    images: Vec<Image>,
}

/// A data set ready to train on.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Every image to train on with its class.
    pub items: Vec<(Image, usize)>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Images of the identities held out, by identity.
    pub held_out: Vec<Vec<Image>>,
    /// Images found, before any exclusion.
    pub images: usize,
    /// Excluded identities: those on the exclusion lists that were found.
    pub excluded: usize,
    /// Identities dropped because they have too few images.
    pub dropped: usize,
    record: Option<RecordFile>,
    path: PathBuf,
}

impl Dataset {
    /// Opens the data set at `path`: a folder with one folder per identity, or with a RecordIO pair; a .rec
    /// file; or a list of lines `path label`.
    ///
    /// # Errors
    /// When it is none of these, an identity has no or too few images, labels have a gap, a record is
    /// truncated, or an exclusion list cannot be read or excludes nobody.
    pub fn open(path: &Path, config: &DataConfig, seed: u64) -> Result<Self, TrainError> {
        let (mut identities, record) = if let Some(rec) = record::find(path) {
            let (record, identities) = RecordFile::open(&rec)?;
            (identities, Some(record))
        } else if path.is_dir() {
            (listing::folder(path)?, None)
        } else {
            (listing::list(path)?, None)
        };
        let images = identities.iter().map(|identity| identity.images.len()).sum();
        let excluded = exclude(&mut identities, &config.exclude)?;
        let before = identities.len();
        if config.small_classes != SmallClasses::Keep {
            let small: Vec<&Identity> =
                identities.iter().filter(|identity| identity.images.len() < config.min_images).collect();
            if let (Some(first), SmallClasses::Refuse) = (small.first(), config.small_classes) {
                let count = first.images.len();
                return Err(TrainError::SmallClass {
                    class: first.name.clone(),
                    images: if count == 1 { "one image".into() } else { format!("{count} images") },
                    others: small.len() - 1,
                    needed: config.min_images,
                });
            }
            identities.retain(|identity| identity.images.len() >= config.min_images);
        }
        let dropped = before - identities.len();
        let (held, kept): (Vec<_>, Vec<_>) =
            identities.into_iter().partition(|identity| is_held_out(&identity.name, seed, config.holdout));
        if kept.len() < 2 {
            let cause =
                format!("only {} of {before} identities are left, and at least two are needed", kept.len());
            return Err(TrainError::NoDataset { path: path.to_owned(), cause });
        }
        let classes = kept.iter().map(|identity| identity.name.clone()).collect();
        let items = kept
            .into_iter()
            .enumerate()
            .flat_map(|(class, identity)| identity.images.into_iter().map(move |image| (image, class)))
            .collect();
        let held_out = held.into_iter().map(|identity| identity.images).collect();
        Ok(Self { items, classes, held_out, images, excluded, dropped, record, path: path.to_owned() })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader of its images, one per thread.
    ///
    /// # Errors
    /// When the RecordIO file cannot be opened.
    pub fn reader(&self) -> Result<Reader, TrainError> {
        Ok(Reader { record: self.record.as_ref().map(RecordFile::reader).transpose()? })
    }

    /// Identifies the images, their order and their classes.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for name in &self.classes {
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
        }
        for (image, class) in &self.items {
            match &image.source {
                Source::File(path) => hasher
                    .update(path.strip_prefix(&self.path).unwrap_or(path).as_os_str().as_encoded_bytes()),
                Source::Record { offset, .. } => hasher.update(&offset.to_le_bytes()),
            };
            hasher.update(&(*class as u64).to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Pairs of the images held out, up to `most` of each kind, in ten folds, and the images they name.
    /// `None` if nobody with two images, or only one identity, was held out.
    pub fn held_out_pairs(&self, most: usize) -> Option<(Vec<Image>, Vec<Pair>)> {
        let people: Vec<&Vec<Image>> = self.held_out.iter().filter(|images| images.len() > 1).collect();
        if people.len() < 2 {
            return None;
        }
        let mut images = Vec::new();
        let mut pairs = Vec::new();
        let mut add = |a: &Image, b: &Image, same: bool, place: usize| {
            images.extend([a.clone(), b.clone()]);
            pairs.push(Pair { first: images.len() - 2, second: images.len() - 1, same, fold: place % 10 });
        };
        // In rounds over the people: first their images 1 and 2, then 2 and 3, ...; pairs of different people
        // have a fixed distance in the list.
        let longest = people.iter().map(|images| images.len()).max().unwrap_or(0);
        let mut count = 0;
        for round in 0..longest - 1 {
            for (index, person) in people.iter().enumerate() {
                if count < most && round + 1 < person.len() {
                    add(&person[round], &person[round + 1], true, count);
                    let other = people[(index + 1 + round % (people.len() - 1)) % people.len()];
                    add(&person[round], &other[round % other.len()], false, count);
                    count += 1;
                }
            }
        }
        Some((images, pairs))
    }
}

/// Whether an identity is held out: decided by its name and the seed alone, independent of other
/// identities.
fn is_held_out(name: &str, seed: u64, share: f64) -> bool {
    let hash = blake3::hash(format!("held out {seed} {name}").as_bytes());
    let number = hash.as_bytes()[..8].iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    (number as f64) < share * 2f64.powi(64)
}

/// Removes the identities on the lists; returns their number.
fn exclude(identities: &mut Vec<Identity>, lists: &[String]) -> Result<usize, TrainError> {
    let mut names: HashSet<String> = HashSet::new();
    for list in lists {
        if list == CASIA_LFW_NAME {
            names.extend(CASIA_LFW.map(str::to_owned));
            continue;
        }
        let path = PathBuf::from(list);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| TrainError::Read { path: path.clone(), source })?;
        let listed: HashSet<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if !listed.is_empty() && !identities.iter().any(|identity| listed.contains(&identity.name)) {
            return Err(TrainError::NobodyExcluded { path, count: listed.len() });
        }
        names.extend(listed);
    }
    let before = identities.len();
    identities.retain(|identity| !names.contains(&identity.name));
    Ok(before - identities.len())
}

/// Reads images of a data set.
#[derive(Debug)]
pub struct Reader {
    record: Option<record::RecordReader>,
}

impl Reader {
    /// Reads and decodes an image: 96x112 pixels, or 112x112, of which the middle 96 columns are
    /// the crop.
    ///
    /// # Errors
    /// When it cannot be read or decoded, or has another size.
    pub fn read(&mut self, image: &Image) -> Result<RgbImage, TrainError> {
        let (name, bytes) = match (&image.source, &mut self.record) {
            (Source::File(path), _) => {
                let bytes = std::fs::read(path).map_err(|error| TrainError::Image {
                    image: path.display().to_string(),
                    cause: error.to_string(),
                })?;
                (path.display().to_string(), bytes)
            }
            (Source::Record { number, offset }, Some(record)) => {
                (record.name(*number), record.image(*number, *offset)?)
            }
            (Source::Record { .. }, None) => unreachable!("only a RecordIO file makes records"),
        };
        let error = |cause: String| TrainError::Image { image: name.clone(), cause };
        let image =
            image::load_from_memory(&bytes).map_err(|e| error(format!("it cannot be decoded: {e}")))?;
        let image = image.into_rgb8();
        let (width, height) = image.dimensions();
        if height != CROP_HEIGHT as u32 || ![CROP_WIDTH as u32, WIDE].contains(&width) {
            return Err(error(format!(
                "it is {width}x{height} pixels, not an aligned crop of 112x112 or 96x112"
            )));
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests;
