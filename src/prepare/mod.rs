//! Turning a data set of photos into a data set of aligned crops.
//!
//! It is a module of its own, because [`crate::align`] is geometry and knows no detector, and training reads
//! crops and never detects faces.
//!
//! - The subject of a photo with several faces is the one nearest to the centre (the rule of
//!   the authors of SphereFace).
//! - An image that is already an aligned crop is copied unchanged: aligning it once more would ruin it.
//! - The outcome for every image is stored in [`JOURNAL`] beside the crops. A run that finds a journal
//!   continues where it ended.
//! - The result does not depend on the number of threads.

mod journal;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::align::{self, CROP_HEIGHT, CROP_WIDTH};
use crate::detect::{BBox, DetectError, Detector, DetectorConfig, Face, Landmarks, MinFace, Scratch};
use crate::gallery::find_faces;
use crate::media::{MediaError, read_still, write_still};
use journal::Journal;
pub use source::{Image, Source};

/// Name of the journal in the folder of crops: a line of settings, then one line per image
/// ([`Record`]), in the order of names once a run has ended.
pub const JOURNAL: &str = "align.jsonl";

/// The most images named in the text of a report; the journal names all.
const NAMED_IN_TEXT: usize = 10;

/// Why a data set cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file or folder cannot be read.
    #[error("{path} cannot be read ({source}): check the path", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error(
        "{path} cannot be written ({source}): free some space or choose another folder, and run the same command again to continue",
        path = path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The detector's device fails.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A crop cannot be written.
    #[error("{0}; run the same command again to continue")]
    Crop(MediaError),
    /// The source has no images.
    #[error(
        "{path} has no images in it: give a folder with one folder of images per person, or a list file with lines `path label`",
        path = .0.display()
    )]
    Nobody(PathBuf),
    /// A line of a list is invalid.
    #[error("line {line} of {path} is not `path label` ({cause}): correct it", path = path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        cause: &'static str,
    },
    /// Two images would become one file.
    #[error("{first} and {second} would both become {crop}: rename one of them")]
    SameName {
        /// One image.
        first: String,
        /// The other.
        second: String,
        /// The crop.
        crop: String,
    },
    /// The crops would be among the photos.
    #[error("{crops} is inside {photos}, so the next run would take the crops for photos: choose a folder outside", crops = crops.display(), photos = photos.display())]
    Inside {
        /// Folder of the crops.
        crops: PathBuf,
        /// Folder of the photos.
        photos: PathBuf,
    },
    /// The folder of crops was begun with other settings.
    #[error(
        "{folder} was begun with {before}, but now {now} is requested: use the same settings, or another folder",
        folder = folder.display()
    )]
    Settings {
        /// Folder of the crops.
        folder: PathBuf,
        /// Settings in the journal.
        before: String,
        /// Settings of this run.
        now: String,
    },
    /// The first line of the journal is not that of a journal.
    #[error("{path} is not a journal of this program: move it away, or choose another folder", path = .0.display())]
    Journal(PathBuf),
}

/// Size of the crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CropSize {
    /// 96 wide and 112 high, the input of SphereFace.
    #[default]
    #[serde(rename = "96x112")]
    SphereFace,
    /// 112x112, of which the middle 96 columns are the SphereFace crop.
    #[serde(rename = "112x112")]
    Square,
}

/// Format of the crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropFormat {
    /// PNG, without loss.
    #[default]
    Png,
    /// JPEG of high quality (92), about a third of the size.
    Jpg,
}

impl CropFormat {
    fn ending(self) -> &'static str {
        match self {
            CropFormat::Png => "png",
            CropFormat::Jpg => "jpg",
        }
    }
}

/// Settings of a run that affect the crops.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Size of the crops.
    pub size: CropSize,
    /// Format of the crops.
    pub format: CropFormat,
    min_face: String,
    factor: f32,
    thresholds: [f32; 3],
}

impl Settings {
    /// The settings with those of a detector.
    pub fn new(size: CropSize, format: CropFormat, detector: &DetectorConfig) -> Self {
        let DetectorConfig { min_face, factor, thresholds } = *detector;
        Self { size, format, min_face: min_face.to_string(), factor, thresholds }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size {
            CropSize::SphereFace => "96x112",
            CropSize::Square => "112x112",
        };
        let [p, r, o] = self.thresholds;
        let (format, min_face, factor) = (self.format.ending(), &self.min_face, self.factor);
        write!(f, "{size} {format}, smallest face {min_face}, factor {factor}, scores {p},{r},{o}")
    }
}

/// The detector settings of the authors of SphereFace for training and test images: smallest face 20 pixels,
/// pyramid factor 0.85, thresholds 0.6, 0.7 and 0.9.
pub const AUTHORS_DETECTION: DetectorConfig =
    DetectorConfig { min_face: MinFace::Px(20.0), factor: 0.85, thresholds: [0.6, 0.7, 0.9] };

/// The outcome for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A face was found and aligned.
    Aligned,
    /// It was already an aligned crop and was copied unchanged.
    AlreadyAligned,
    /// It was already an aligned crop of 96x112, and 112x112 is requested: there is no crop, because the
    /// columns at the sides are missing.
    TooNarrow,
    /// No face was found; there is no crop.
    NoFace,
    /// It cannot be decoded; there is no crop.
    Unreadable,
    /// A file that no run wrote already has the name of the crop; it was not changed.
    Kept,
}

/// A line of the journal: the outcome for one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The image, relative to the folder of photos, or as in the list.
    pub image: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its crop, relative to the folder of crops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<String>,
    /// Faces that were found in it.
    #[serde(default)]
    pub faces: usize,
    /// The box of the face that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<BBox>,
    /// Its landmarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landmarks: Option<Landmarks>,
    /// Why it cannot be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An image that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The image.
    pub image: String,
    /// The reason.
    pub reason: String,
}

/// The outcome for a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Images in the source.
    pub images: usize,
    /// People in the source.
    pub identities: usize,
    /// Files in the source whose names are not those of images.
    pub ignored: usize,
    /// Images whose outcome was known before this run.
    pub done_before: usize,
    /// Images that remain because the run was stopped.
    pub not_done: usize,
    /// Images in which a face was found and aligned.
    pub aligned: usize,
    /// Those of `aligned` with several faces: the one nearest to the centre was used.
    pub several_faces: usize,
    /// Images that were already aligned crops and were copied unchanged.
    pub already_aligned: usize,
    /// Crops that existed and were not written by a run; they were not changed.
    pub kept: usize,
    /// Images that were already 96x112 crops, if 112x112 is requested.
    pub too_narrow: Vec<String>,
    /// Images in which no face was found.
    pub no_face: Vec<String>,
    /// Images that cannot be decoded.
    pub unreadable: Vec<Unreadable>,
    /// People without a crop.
    pub without_crops: Vec<String>,
}

impl Report {
    /// Images with a crop.
    pub fn crops(&self) -> usize {
        self.aligned + self.already_aligned + self.kept
    }

    fn add(&mut self, record: &Record) {
        match record.outcome {
            Outcome::Aligned => {
                self.aligned += 1;
                self.several_faces += usize::from(record.faces > 1);
            }
            Outcome::AlreadyAligned => self.already_aligned += 1,
            Outcome::Kept => self.kept += 1,
            Outcome::TooNarrow => self.too_narrow.push(record.image.clone()),
            Outcome::NoFace => self.no_face.push(record.image.clone()),
            Outcome::Unreadable => {
                let reason = record.reason.clone().unwrap_or_default();
                self.unreadable.push(Unreadable { image: record.image.clone(), reason });
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} images of {} people: {} crops", self.images, self.identities, self.crops())?;
        writeln!(f, "{:>8} aligned, {} of them with several faces", self.aligned, self.several_faces)?;
        writeln!(f, "{:>8} already aligned, copied unchanged", self.already_aligned)?;
        writeln!(f, "{:>8} without a face", self.no_face.len())?;
        writeln!(f, "{:>8} unreadable", self.unreadable.len())?;
        let optional = [
            (self.too_narrow.len(), "already aligned but too narrow for 112x112: no crop"),
            (self.kept, "with an existing crop, left unchanged"),
            (self.ignored, "other files that are not images"),
            (self.not_done, "not done yet: run the same command again to continue"),
        ];
        for (count, text) in optional.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{count:>8} {text}")?;
        }
        if self.done_before > 0 {
            writeln!(f, "{} of the images were done before this run", self.done_before)?;
        }
        let unreadable: Vec<String> =
            self.unreadable.iter().map(|bad| format!("{} ({})", bad.image, bad.reason)).collect();
        let lists = [
            ("unreadable", &unreadable),
            ("no face", &self.no_face),
            ("too narrow", &self.too_narrow),
            ("no crop at all of", &self.without_crops),
        ];
        for (what, names) in lists {
            for name in names.iter().take(NAMED_IN_TEXT) {
                writeln!(f, "{what}: {name}")?;
            }
            if names.len() > NAMED_IN_TEXT {
                writeln!(f, "{what}: and {} more, see {JOURNAL}", names.len() - NAMED_IN_TEXT)?;
            }
        }
        Ok(())
    }
}

/// The subject of a photo of a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subject {
    /// The face nearest to the centre.
    pub face: Face,
    /// The number of faces found.
    pub faces: usize,
}

/// The subject of a photo: of several faces, the one whose centre is nearest to that of the image. `None`
/// when the detector finds none with valid landmarks.
///
/// # Errors
/// When the detector's device fails.
pub fn subject(
    image: &RgbImage,
    detector: &Detector,
    scratch: &mut Scratch,
) -> Result<Option<Subject>, DetectError> {
    let faces = find_faces(image, detector, scratch)?;
    let face = nearest_to_centre(&faces, image.dimensions());
    let face = face.filter(|face| align::estimate(&face.landmarks).is_some());
    Ok(face.map(|&face| Subject { face, faces: faces.len() }))
}

fn nearest_to_centre(faces: &[Face], (width, height): (u32, u32)) -> Option<&Face> {
    let distance = |face: &Face| {
        let [x, y] = face.bbox.centre();
        (x - (width as f32 - 1.0) / 2.0).hypot(y - (height as f32 - 1.0) / 2.0)
    };
    faces.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// Detects, aligns and writes every image of `source` into `folder`, whose journal lists the finished images.
/// `stop` ends the work after the current images; `progress` is called once per image, from several threads.
///
/// # Errors
/// When the folder cannot be written or belongs to other settings. Finished images are kept: crops and
/// journal are consistent at any time.
pub fn prepare(
    source: &Source,
    folder: &Path,
    detector: &Detector,
    settings: &Settings,
    threads: usize,
    stop: &AtomicBool,
    progress: &(dyn Fn() + Sync),
) -> Result<Report, PrepareError> {
    let images = source.images(settings.format.ending())?;
    let journal = Journal::open(folder, settings)?;
    let left: Vec<&Image> = images.iter().filter(|image| !journal.is_done(image)).collect();
    let done_before = images.len() - left.len();
    (0..done_before).for_each(|_| progress());

    let journal = Mutex::new(journal);
    let failure: Mutex<Option<PrepareError>> = Mutex::new(None);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, left.len().max(1)) {
            scope.spawn(|| {
                let mut worker = AlignWorker { folder, detector, settings, scratch: Scratch::default() };
                while !stop.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
                    let Some(image) = left.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    if let Err(error) = worker.one(image, &journal) {
                        failed.store(true, Ordering::Relaxed);
                        lock(&failure).get_or_insert(error);
                    }
                    progress();
                }
            });
        }
    });
    let journal = journal.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(error) = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    journal.finish()?;

    let mut report =
        Report { images: images.len(), ignored: source.ignored(), done_before, ..Report::default() };
    let mut people: std::collections::BTreeMap<&str, bool> = Default::default();
    for image in &images {
        let record = journal.record(&image.name);
        let has_crop = people.entry(&image.identity).or_default();
        *has_crop |= record.is_none_or(|record| record.crop.is_some());
        match record {
            Some(record) => report.add(record),
            None => report.not_done += 1,
        }
    }
    report.identities = people.len();
    report.without_crops = people.into_iter().filter(|(_, has)| !has).map(|(name, _)| name.into()).collect();
    Ok(report)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Poisoning is ignored: the data behind the mutexes here is consistent after every call.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One thread's share of the work.
struct AlignWorker<'a> {
    folder: &'a Path,
    detector: &'a Detector,
    settings: &'a Settings,
    scratch: Scratch,
}

impl AlignWorker<'_> {
    fn one(&mut self, image: &Image, journal: &Mutex<Journal>) -> Result<(), PrepareError> {
        let target = self.folder.join(&image.crop);
        let (mut record, crop) = self.look(image)?;
        if crop.is_some() {
            if target.exists() && !lock(journal).wrote(&image.name) {
                record = Record { outcome: Outcome::Kept, ..record };
                return lock(journal).add(record);
            }
            let person = target.parent().unwrap_or(self.folder);
            std::fs::create_dir_all(person)
                .map_err(|source| PrepareError::Write { path: person.into(), source })?;
        }
        // First the journal, then the crop: after a run that was killed in between, the crop is missing and
        // is made again, and a crop that is not in the journal was never written by a run.
        lock(journal).add(record)?;
        match crop {
            Some(Made::Pixels(pixels)) => write_still(&target, &pixels).map_err(PrepareError::Crop),
            Some(Made::Copy(bytes)) => journal::publish(&target, &bytes),
            None => Ok(()),
        }
    }

    /// The record of an image and the crop to be written.
    fn look(&mut self, image: &Image) -> Result<(Record, Option<Made>), PrepareError> {
        let mut record = Record {
            image: image.name.clone(),
            outcome: Outcome::NoFace,
            crop: None,
            faces: 0,
            bbox: None,
            landmarks: None,
            reason: None,
        };
        let pixels = match read_still(&image.path) {
            Ok(pixels) => pixels,
            Err(error) => {
                record.outcome = Outcome::Unreadable;
                record.reason = Some(error.to_string());
                return Ok((record, None));
            }
        };
        let Some(Subject { face, faces }) = subject(&pixels, self.detector, &mut self.scratch)? else {
            return Ok((record, None));
        };
        record.faces = faces;
        record.bbox = Some(face.bbox);
        record.landmarks = Some(face.landmarks);
        let made = match (align::already_aligned(&pixels, &face.landmarks), self.settings.size) {
            (Some(crop), size) => {
                record.outcome = Outcome::AlreadyAligned;
                let wanted = match size {
                    CropSize::SphereFace => CROP_WIDTH,
                    CropSize::Square => CROP_HEIGHT,
                };
                if pixels.width() as usize == wanted {
                    Some(self.unchanged(&image.path, pixels))
                } else if size == CropSize::SphereFace {
                    Some(Made::Pixels(crop.to_image()))
                } else {
                    record.outcome = Outcome::TooNarrow;
                    None
                }
            }
            (None, CropSize::SphereFace) => {
                record.outcome = Outcome::Aligned;
                align::align(&pixels, &face.landmarks).map(|crop| Made::Pixels(crop.to_image()))
            }
            (None, CropSize::Square) => {
                record.outcome = Outcome::Aligned;
                align::align_square(&pixels, &face.landmarks).map(Made::Pixels)
            }
        };
        record.crop = made.is_some().then(|| image.crop.clone());
        Ok((record, made))
    }

    /// A crop that must not change: a copy of the file if it has the right format.
    fn unchanged(&self, path: &Path, pixels: RgbImage) -> Made {
        let wanted = match self.settings.format {
            CropFormat::Png => image::ImageFormat::Png,
            CropFormat::Jpg => image::ImageFormat::Jpeg,
        };
        match std::fs::read(path) {
            Ok(bytes) if image::guess_format(&bytes).is_ok_and(|format| format == wanted) => {
                Made::Copy(bytes)
            }
            _ => Made::Pixels(pixels),
        }
    }
}

/// A crop to be written.
enum Made {
    Pixels(RgbImage),
    Copy(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_central_face_is_taken_not_the_most_certain() {
        let face = |x: f32, score| Face {
            bbox: BBox { x1: x, y1: 100.0, x2: x + 50.0, y2: 150.0 },
            score,
            landmarks: [[0.0; 2]; 5],
        };
        let faces = [face(0.0, 0.99), face(110.0, 0.8), face(190.0, 0.9)];
        assert_eq!(nearest_to_centre(&faces, (250, 250)).unwrap().score, 0.8);
        assert!(nearest_to_centre(&[], (250, 250)).is_none());
    }
}
