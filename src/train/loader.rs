//! Batches, decoded and augmented ahead of the training.
//!
//! The samples of a run form one endless sequence: the images in a new random order in each epoch. The image
//! at a position and its augmentation depend only on the seed and the position. So a run can continue at any
//! position, and any number of threads gives the same result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{SeedableRng, seq::SliceRandom};

use super::TrainError;
use super::augment::{augment, write_pixels};
use super::config::AugmentConfig;
use super::dataset::{Dataset, Reader};
use super::network::CROP_LEN;
use crate::embed::ChannelOrder;

/// A batch of samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// [samples, 112, 96, 3]
    pub pixels: Vec<f32>,
    /// The class of each sample.
    pub labels: Vec<usize>,
    /// The index of each sample's image in the data set, for its teacher's embedding.
    pub rows: Vec<usize>,
}

/// Settings of the loader.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Samples per batch.
    pub batch: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Augmentation.
    pub augment: AugmentConfig,
    /// The network's channel order.
    pub order: ChannelOrder,
    /// Whether to skip images that cannot be decoded.
    pub skip_unreadable: bool,
    /// Threads.
    pub threads: usize,
}

/// Maximum number of batches that a thread prepares before their turn.
const READY: usize = 2;

/// Batches in order, made by threads that stop when this is dropped.
///
/// Thread i of n makes every n-th batch, starting with the i-th, and sends them over its own channel.
/// So no batch is made long before its turn, and a thread that ended is noticed at its turn.
#[derive(Debug)]
pub struct Loader {
    /// One channel per thread.
    finished: Vec<Receiver<Result<Batch, TrainError>>>,
    /// The thread whose turn it is.
    turn: usize,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A random number generator for one purpose and position.
fn generator(seed: u64, purpose: &str, place: u64) -> Xoshiro256PlusPlus {
    let hash = blake3::hash(format!("{purpose} {seed} {place}").as_bytes());
    Xoshiro256PlusPlus::from_seed(*hash.as_bytes())
}

/// The images of an epoch in order.
struct Epoch {
    number: u64,
    order: Vec<u32>,
}

impl Epoch {
    fn new(number: u64, images: usize, seed: u64) -> Self {
        let mut order: Vec<u32> = (0..images as u32).collect();
        order.shuffle(&mut generator(seed, "order", number));
        Self { number, order }
    }
}

impl Loader {
    /// Starts loading with batch `first` of the run.
    ///
    /// # Errors
    /// When a RecordIO file cannot be opened, or no thread can be started.
    pub fn start(dataset: &Arc<Dataset>, config: LoaderConfig, first: u64) -> Result<Self, TrainError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut loader = Self { finished: Vec::new(), turn: 0, stop, threads: Vec::new() };
        for number in 0..config.threads as u64 {
            let reader = dataset.reader()?;
            let epoch = Epoch::new(0, dataset.items.len(), config.seed);
            let worker = LoaderWorker {
                dataset: Arc::clone(dataset),
                config: config.clone(),
                reader,
                epoch,
                number: first + number,
                stop: Arc::clone(&loader.stop),
            };
            let (sender, finished) = bounded(READY);
            let thread = std::thread::Builder::new().name("loader".into()).spawn(move || worker.run(&sender));
            let thread =
                thread.map_err(|source| TrainError::Read { path: dataset.path().to_owned(), source })?;
            loader.threads.push(thread);
            loader.finished.push(finished);
        }
        Ok(loader)
    }

    /// The next batch; waits for it.
    ///
    /// # Errors
    /// When an image cannot be used, or the thread that reads it has ended.
    pub fn next_batch(&mut self) -> Result<Batch, TrainError> {
        let finished = self.finished.get(self.turn).ok_or(TrainError::LoaderEnded)?;
        let batch = finished.recv().map_err(|_| TrainError::LoaderEnded)?;
        self.turn = (self.turn + 1) % self.finished.len();
        batch
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that waits to send a batch fails to send and ends.
        self.finished.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One thread.
struct LoaderWorker {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    reader: Reader,
    epoch: Epoch,
    /// The batch to make next.
    number: u64,
    stop: Arc<AtomicBool>,
}

impl LoaderWorker {
    fn run(mut self, sender: &Sender<Result<Batch, TrainError>>) {
        while !self.stop.load(Ordering::Relaxed) {
            let batch = self.batch(self.number);
            self.number += self.config.threads as u64;
            if sender.send(batch).is_err() {
                return;
            }
        }
    }

    fn batch(&mut self, number: u64) -> Result<Batch, TrainError> {
        let size = self.config.batch;
        let mut batch = Batch { pixels: vec![0.0; size * CROP_LEN], labels: Vec::new(), rows: Vec::new() };
        for place in number * size as u64..(number + 1) * size as u64 {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let images = self.dataset.items.len();
            let epoch = place / images as u64;
            if epoch != self.epoch.number {
                self.epoch = Epoch::new(epoch, images, self.config.seed);
            }
            let (image, class) =
                &self.dataset.items[self.epoch.order[(place % images as u64) as usize] as usize];
            let picture = match self.reader.read(image) {
                Err(TrainError::Image { .. }) if self.config.skip_unreadable => continue,
                other => other?,
            };
            let mut random = generator(self.config.seed, "augment", place);
            let crop = augment(&picture, &self.config.augment, &mut random);
            let to = batch.labels.len() * CROP_LEN;
            write_pixels(&crop, self.config.order, &mut batch.pixels[to..to + CROP_LEN]);
            batch.labels.push(*class);
            batch.rows.push(image.row);
        }
        batch.pixels.truncate(batch.labels.len() * CROP_LEN);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::train::config::DataConfig;

    fn dataset() -> (tempfile::TempDir, Arc<Dataset>) {
        let folder = tempfile::tempdir().unwrap();
        for person in ["a", "b", "c"] {
            std::fs::create_dir(folder.path().join(person)).unwrap();
            for i in 0..3u8 {
                let image = RgbImage::from_fn(112, 112, |x, y| Rgb([x as u8 + i, y as u8, 9]));
                image.save(folder.path().join(person).join(format!("{i}.png"))).unwrap();
            }
        }
        let set = Dataset::open(folder.path(), &DataConfig::default(), 1).unwrap();
        (folder, Arc::new(set))
    }

    fn config(threads: usize) -> LoaderConfig {
        LoaderConfig {
            batch: 4,
            seed: 7,
            augment: AugmentConfig { shift_x_px: 5.0, ..AugmentConfig::default() },
            order: ChannelOrder::Bgr,
            skip_unreadable: false,
            threads,
        }
    }

    #[test]
    fn batches_depend_on_seed_and_place_alone() {
        let (_folder, set) = dataset();
        let take = |threads, first, count: usize| -> Vec<Batch> {
            let mut loader = Loader::start(&set, config(threads), first).unwrap();
            (0..count).map(|_| loader.next_batch().unwrap()).collect()
        };
        let whole = take(1, 0, 9);
        assert_eq!(take(3, 0, 9), whole);
        assert_eq!(take(2, 5, 4), whole[5..]);
        // 9 batches of 4 are 4 epochs of 9 images, each image once in each.
        let rows: Vec<usize> = whole.iter().flat_map(|batch| batch.rows.clone()).collect();
        let epochs: Vec<&[usize]> = rows.chunks(9).collect();
        assert_ne!(epochs[0], epochs[1]);
        for epoch in epochs {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..9).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_batch_is_made_long_before_its_turn_and_a_thread_that_ends_is_told() {
        let (_folder, set) = dataset();
        let mut loader = Loader::start(&set, config(3), 0).unwrap();
        loader.next_batch().unwrap();
        // However long the threads run in the meantime, no more batches than these wait.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(loader.finished.iter().all(|finished| finished.len() <= READY));
        // As if the thread whose turn it is had panicked: the others stop and do not continue for ever.
        loader.finished[1] = bounded(READY).1;
        assert!(matches!(loader.next_batch(), Err(TrainError::LoaderEnded)));
        assert!(matches!(loader.next_batch(), Err(TrainError::LoaderEnded)));
    }

    #[test]
    fn an_unreadable_image_stops_or_is_left_out() {
        let (folder, set) = dataset();
        std::fs::write(folder.path().join("b/1.png"), b"no image").unwrap();
        let mut loader = Loader::start(&set, config(1), 0).unwrap();
        let error = (0..3).find_map(|_| loader.next_batch().err()).unwrap();
        assert!(error.to_string().contains("1.png cannot be used"), "{error}");
        let mut loader = Loader::start(&set, LoaderConfig { skip_unreadable: true, ..config(2) }, 0).unwrap();
        let counts: usize = (0..9).map(|_| loader.next_batch().unwrap().labels.len()).sum();
        assert_eq!(counts, 32, "4 epochs of 8");
    }
}
