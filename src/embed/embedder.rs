//! Crops in, embeddings out.

use std::collections::BTreeMap;

use super::{Architecture, ChannelOrder, EmbedError, Embedding, Network, Workspace};
use crate::align::Crop;
use crate::nn::{Isa, ModelId, Weights};

/// Whether the mirror image of a crop has a say in its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirror {
    /// The crop alone.
    #[default]
    No,
    /// The mean of the features of the crop and its mirror image, at twice the work.
    Average,
}

/// How an [`Embedder`] computes; no option changes what it computes beyond rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads that share the work of one call, 1 to 256. Results are the same for any number.
    pub threads: usize,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { isa: Isa::best(), threads: 1 }
    }
}

/// A SphereFace model ready to embed: one for all workers, with a [`Scratch`] for each.
#[derive(Debug)]
pub struct Embedder {
    network: Network,
    order: ChannelOrder,
    mean: Option<Vec<f32>>,
    model: ModelId,
    metadata: BTreeMap<String, String>,
    threads: usize,
}

/// Memory (and threads, where more than one is asked for) of one worker.
#[derive(Debug)]
pub struct Scratch {
    workspace: Workspace,
    pixels: Vec<f32>,
}

impl Embedder {
    /// Prepares `weights`, whose metadata say which network they belong to. The tensor `mean`
    /// [embedding], where there is one, is subtracted from every feature before normalisation.
    ///
    /// # Errors
    /// When metadata or a tensor is missing or wrong, or the options make no sense.
    pub fn new(weights: Weights, options: EmbedOptions) -> Result<Self, EmbedError> {
        let architecture = Architecture::from_metadata(&weights.metadata)?;
        let order = ChannelOrder::from_metadata(&weights)?;
        if !(1..=256).contains(&options.threads) {
            return Err(EmbedError::Threads(options.threads));
        }
        let mean = match weights.tensors.get("mean") {
            Some(mean) => {
                architecture.check_one("mean", mean, &[architecture.embedding])?;
                Some(mean.data.clone())
            }
            None => None,
        };
        let network = Network::new(&architecture, &weights, options.isa)?;
        let model = weights.id();
        Ok(Self { network, order, mean, model, metadata: weights.metadata, threads: options.threads })
    }

    /// Identifier of the weights.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// The network of the weights.
    pub fn architecture(&self) -> &Architecture {
        self.network.architecture()
    }

    /// Metadata of the weights.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Memory and threads for one worker.
    pub fn scratch(&self) -> Scratch {
        Scratch { workspace: self.network.workspace(self.threads), pixels: Vec::new() }
    }

    /// The embedding of every crop, in order. An embedding does not depend on the others of its
    /// batch, bit for bit.
    ///
    /// # Errors
    /// When a feature is zero or not finite and so has no direction.
    pub fn embed(
        &self,
        crops: &[Crop],
        mirror: Mirror,
        scratch: &mut Scratch,
    ) -> Result<Vec<Embedding>, EmbedError> {
        let mut features = self.features(crops, scratch);
        if mirror == Mirror::Average {
            let mirrored: Vec<Crop> = crops.iter().map(mirror_image).collect();
            for (a, b) in features.iter_mut().zip(self.features(&mirrored, scratch)) {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a + b) * 0.5);
            }
        }
        features
            .into_iter()
            .enumerate()
            .map(|(index, mut feature)| {
                if let Some(mean) = &self.mean {
                    feature.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
                }
                Embedding::new(self.model, feature).ok_or(EmbedError::NoDirection(index))
            })
            .collect()
    }

    /// The features of every crop as the last layer gives them: before the mean is subtracted
    /// and before they are normalised.
    pub fn features(&self, crops: &[Crop], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        scratch.pixels.clear();
        crops.iter().for_each(|crop| pixels(crop, self.order, &mut scratch.pixels));
        self.network.forward(&scratch.pixels, &mut scratch.workspace)
    }
}

/// Appends the pixels of `crop` in the network's range, (x - 127.5) / 128, row by row with the
/// channels of a pixel together: 112 x 96 x 3 values.
pub fn pixels(crop: &Crop, order: ChannelOrder, to: &mut Vec<f32>) {
    let scaled = |x: u8| (f32::from(x) - 127.5) / 128.0;
    let rgb = crop.as_rgb();
    match order {
        ChannelOrder::Rgb => to.extend(rgb.iter().map(|&x| scaled(x))),
        ChannelOrder::Bgr => {
            to.extend(rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [scaled(b), scaled(g), scaled(r)]));
        }
    }
}

/// The crop as a mirror shows it.
pub fn mirror_image(crop: &Crop) -> Crop {
    let mut rgb = crop.as_rgb().to_vec();
    for row in rgb.chunks_exact_mut(3 * crate::align::CROP_WIDTH) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    match Crop::from_rgb(rgb) {
        Some(crop) => crop,
        None => unreachable!("a mirror image has the size of its crop"),
    }
}
