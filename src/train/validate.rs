//! Validation during training: pairs of a file, or of the identities held out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::TrainError;
use super::dataset::Dataset;
use crate::align::{CROP_HEIGHT, CROP_WIDTH, Crop};
use crate::embed::Embedder;
use crate::eval::EvalError;
use crate::eval::lfw::{self, Pairs};
use crate::eval::verification::{Pair, Verification, verify};
use crate::models::Weights;
use crate::nn::Device;

/// Maximum number of pairs of each kind from the identities held out.
const MOST_PAIRS: usize = 1000;

/// Crops per batch.
const BATCH: usize = 64;

/// Images and pairs to verify.
#[derive(Debug)]
pub struct Validation {
    crops: Vec<Crop>,
    pairs: Vec<Pair>,
}

impl Validation {
    /// The pairs of a file in LFW's format, on the aligned crops in a folder.
    ///
    /// # Errors
    /// When the file or a crop cannot be read.
    pub fn of_file(pairs: &Path, images: &Path) -> Result<Self, TrainError> {
        let list = Pairs::read(pairs)?;
        let mut crops = Vec::with_capacity(list.images.len());
        for image in &list.images {
            let path = image.find(images).ok_or_else(|| {
                let folder = images.display();
                EvalError::TooLittle(format!(
                    "{folder} has no image {image}: check the folder of the pairs' crops"
                ))
            })?;
            crops.push(lfw::read_crop(&path)?);
        }
        Ok(Self { crops, pairs: list.pairs })
    }

    /// Pairs of the identities held out; `None` if there are too few.
    ///
    /// # Errors
    /// When an image cannot be used.
    pub fn of_held_out(dataset: &Dataset) -> Result<Option<Self>, TrainError> {
        let Some((images, pairs)) = dataset.held_out_pairs(MOST_PAIRS) else { return Ok(None) };
        // Pairs are made in ten folds, and the protocol needs at least one in each.
        if pairs.iter().all(|pair| pair.fold != 9) {
            return Ok(None);
        }
        let mut reader = dataset.reader()?;
        let mut crops = Vec::with_capacity(images.len());
        for image in &images {
            let picture = reader.read(image)?;
            let left = (picture.width() - CROP_WIDTH as u32) / 2;
            let size = (CROP_WIDTH as u32, CROP_HEIGHT as u32);
            let middle = image::imageops::crop_imm(&picture, left, 0, size.0, size.1).to_image();
            match Crop::from_image(middle) {
                Some(crop) => crops.push(crop),
                None => unreachable!("a crop of the size of crops"),
            }
        }
        Ok(Some(Self { crops, pairs }))
    }

    /// Verifies with weights on a device (the CPU with that many threads); `None` when it was stopped.
    ///
    /// # Errors
    /// When the network has no features for the images, or the device fails.
    pub fn run(
        &self,
        weights: Weights,
        device: &Device,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Verification>, TrainError> {
        let embedder = Embedder::on(weights, device, threads)?;
        let mut scratch = embedder.scratch();
        let mut features = Vec::with_capacity(self.crops.len());
        for batch in self.crops.chunks(BATCH) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let both: Vec<Crop> = batch.iter().flat_map(|crop| [crop.clone(), crop.mirrored()]).collect();
            features.extend(embedder.features(&both, &mut scratch)?.chunks_exact(2).map(<[_]>::concat));
        }
        Ok(Some(verify(&features, &self.pairs)?))
    }
}
