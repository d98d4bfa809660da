//! Crops in, embeddings out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::planned::{self, PlannedNetwork, PlannedWorkspace};
#[cfg(feature = "candle")]
use super::tensors::TensorNetwork;
use super::{ChannelOrder, EmbedError, Embedding, Family, Int8Scales, Network, Workspace};
use crate::align::Crop;
use crate::models::{BuiltIn, ModelId, Published, Source, Stored, Tensor, Weights, all_finite};
#[cfg(feature = "candle")]
use crate::nn::coalescer::Coalescer;
use crate::nn::{Arithmetic, Device, Isa};

/// Crops that go through the network together on a device; its largest maps take about 8 MB per crop.
#[cfg(feature = "candle")]
const CROPS_TOGETHER: usize = 64;

/// The tensor [embedding] that is subtracted from every feature, if there is one.
const MEAN: &str = "mean";

/// Whether the mirror image of a crop contributes to its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirror {
    /// The crop alone.
    #[default]
    No,
    /// The mean of the features of the crop and its mirror image, at twice the work.
    Average,
}

/// How an [`Embedder`] computes on the CPU; no option changes what it computes beyond rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads that share the work of one call, 1 to 256. Results are the same for any number.
    pub threads: usize,
    /// The number format of products.
    pub arithmetic: Arithmetic,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { isa: Isa::best(), threads: 1, arithmetic: Arithmetic::F32 }
    }
}

/// The properties of a model that are known without its network.
struct Head {
    model: ModelId,
    mean: Option<Tensor>,
}

/// A model ready to embed: one for all workers, with a [`Scratch`] for each.
#[derive(Debug)]
pub struct Embedder {
    family: Family,
    backend: Backend,
    order: ChannelOrder,
    mean: Option<Vec<f32>>,
    model: ModelId,
    metadata: BTreeMap<String, String>,
    threads: usize,
}

/// The implementation of the network.
#[derive(Debug)]
enum Backend {
    /// Our kernels.
    Kernels(Box<Kernels>),
    /// The tensor library, with the crops of several workers in one batch.
    #[cfg(feature = "candle")]
    Tensors { network: Box<TensorNetwork>, together: Coalescer<Vec<f32>, Vec<Vec<f32>>> },
}

/// A network that is packed when it is first used: labelling from an analysis needs the model's identity but
/// never the network.
struct Kernels {
    family: Family,
    isa: Isa,
    arithmetic: Arithmetic,
    /// For [`Arithmetic::Int8`].
    scales: Option<Int8Scales>,
    /// Checked, and taken when the network is packed.
    weights: Mutex<Option<Box<dyn Source + Send>>>,
    network: OnceLock<LaidOut>,
}

/// A network on the kernels.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one per embedder")]
enum LaidOut {
    SphereFace(Network),
    Imported(PlannedNetwork),
}

/// Memory for one.
#[derive(Debug)]
enum Memory {
    SphereFace(Workspace),
    Imported(PlannedWorkspace),
}

impl Kernels {
    fn new(
        family: &Family,
        weights: Box<dyn Source + Send>,
        metadata: &BTreeMap<String, String>,
        options: EmbedOptions,
    ) -> Result<Self, EmbedError> {
        let isa = Isa::from_name(&options.isa.to_string())?;
        let mut scales = None;
        match family {
            Family::SphereFace(architecture) => {
                architecture.check_shapes(&*weights)?;
                if options.arithmetic == Arithmetic::Int8 {
                    options.arithmetic.check(isa)?;
                    scales = Some(Int8Scales::from_metadata(metadata, architecture)?);
                }
            }
            Family::Imported(_) if options.arithmetic != Arithmetic::F32 => {
                return Err(EmbedError::ImportedOn(options.arithmetic.to_string()));
            }
            Family::Imported(plan) => planned::check_shapes(plan, &*weights)?,
        }
        let (weights, network) = (Mutex::new(Some(weights)), OnceLock::new());
        Ok(Self { family: family.clone(), isa, arithmetic: options.arithmetic, scales, weights, network })
    }

    /// The network, packed on `threads` threads if it is not yet.
    fn network(&self, threads: usize) -> &LaidOut {
        self.network.get_or_init(|| {
            let Some(weights) = self.weights.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                unreachable!("the network is laid out once")
            };
            let laid_out = match &self.family {
                Family::SphereFace(architecture) => {
                    let scales = self.scales.as_ref();
                    Network::new(architecture, &*weights, self.isa, self.arithmetic, scales, threads)
                        .map(LaidOut::SphereFace)
                }
                Family::Imported(plan) => {
                    PlannedNetwork::new(plan, &*weights, self.isa, threads).map(LaidOut::Imported)
                }
            };
            match laid_out {
                Ok(network) => network,
                Err(error) => unreachable!("weights that were checked, or a damaged program: {error}"),
            }
        })
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Memory (and threads, if more than one is requested) of one worker.
#[derive(Debug)]
pub struct Scratch {
    /// For the kernels.
    memory: Option<Memory>,
    pixels: Vec<f32>,
}

impl Embedder {
    /// Prepares `weights`, whose metadata say which network they belong to. The tensor `mean`
    /// `[embedding]`, if there is one, is subtracted from every feature before normalisation.
    ///
    /// # Errors
    /// When metadata or a tensor is missing or wrong, or the options are invalid.
    pub fn new(weights: Weights, options: EmbedOptions) -> Result<Self, EmbedError> {
        let head = Head { model: weights.id(), mean: weights.tensors.get(MEAN).cloned() };
        Self::with(head, weights.metadata.clone(), options.threads, |family, metadata| {
            match family {
                Family::SphereFace(architecture) => architecture.check(&weights)?,
                Family::Imported(plan) => planned::check(plan, &weights)?,
            }
            let kernels = Kernels::new(family, Box::new(weights), metadata, options)?;
            Ok(Backend::Kernels(Box::new(kernels)))
        })
    }

    /// The same for weights as they are stored, which become f32 only when the first crop comes.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn stored(weights: Stored<'static>, options: EmbedOptions) -> Result<Self, EmbedError> {
        let model = weights.id()?;
        Self::identified(weights, model, options)
    }

    /// The same for a model that is part of the program, whose identifier is known: until the first crop
    /// comes this costs nothing.
    ///
    /// # Errors
    /// When the model is not an embedding network, or the options are invalid.
    pub fn built_in(model: BuiltIn, options: EmbedOptions) -> Result<Self, EmbedError> {
        Self::identified(model.stored()?, model.id, options)
    }

    fn identified(
        weights: Stored<'static>,
        model: ModelId,
        options: EmbedOptions,
    ) -> Result<Self, EmbedError> {
        let head = Head { model, mean: weights.tensor(MEAN) };
        Self::with(head, weights.metadata().clone(), options.threads, |family, metadata| {
            let kernels = Kernels::new(family, Box::new(weights), metadata, options)?;
            Ok(Backend::Kernels(Box::new(kernels)))
        })
    }

    /// The same through the tensor library on `device`, the weights copied there. Workers that embed at the
    /// same time share batches, so sums may be rounded differently from one run to the next if the device
    /// does so.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when the device fails.
    #[cfg(feature = "candle")]
    pub fn on_tensors(weights: Weights, device: &candle_core::Device) -> Result<Self, EmbedError> {
        let head = Head { model: weights.id(), mean: weights.tensors.get(MEAN).cloned() };
        Self::with(head, weights.metadata.clone(), 1, |family, _| {
            let Some(architecture) = family.sphereface() else {
                return Err(EmbedError::ImportedOn("a GPU".to_owned()));
            };
            let network = Box::new(TensorNetwork::new(architecture, &weights, device)?);
            Ok(Backend::Tensors { network, together: Coalescer::new() })
        })
    }

    /// The same on `device`: on the kernels of the CPU with that many `threads`, or on a GPU, where workers
    /// that embed at the same time share batches, so sums may be rounded differently from one run to the
    /// next.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and when the device fails.
    pub fn on(weights: Weights, device: &Device, threads: usize) -> Result<Self, EmbedError> {
        #[cfg(feature = "candle")]
        if let Some(tensors) = device.tensors() {
            return Self::on_tensors(weights, tensors);
        }
        Self::new(weights, EmbedOptions { isa: device.isa(), threads, ..Default::default() })
    }

    fn with(
        Head { model, mean }: Head,
        mut metadata: BTreeMap<String, String>,
        threads: usize,
        backend: impl FnOnce(&Family, &BTreeMap<String, String>) -> Result<Backend, EmbedError>,
    ) -> Result<Self, EmbedError> {
        if !(1..=256).contains(&threads) {
            return Err(EmbedError::Threads(threads));
        }
        let family = Family::from_metadata(&metadata)?;
        let order = ChannelOrder::from_metadata(&metadata)?;
        if let Some(mean) = &mean {
            check_one(&family, MEAN, mean, &[family.embedding()])?;
        }
        let mean = mean.map(|mean| mean.data);
        let backend = backend(&family, &metadata)?;
        Published::add_measured(model, &mut metadata);
        Ok(Self { family, backend, order, mean, model, metadata, threads })
    }

    /// Identifier of the weights.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// The arithmetic of its products.
    pub fn arithmetic(&self) -> Arithmetic {
        match &self.backend {
            Backend::Kernels(kernels) => kernels.arithmetic,
            #[cfg(feature = "candle")]
            Backend::Tensors { .. } => Arithmetic::F32,
        }
    }

    /// The network of the weights.
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// Metadata of the weights.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads and packs the network now, on `threads` threads. Otherwise the first crop would wait for it,
    /// while the other cores have little to do.
    pub fn prepare(&self, threads: usize) {
        match &self.backend {
            Backend::Kernels(kernels) => drop(kernels.network(threads)),
            #[cfg(feature = "candle")]
            Backend::Tensors { .. } => {}
        }
    }

    /// Memory and threads for one worker, taken when it first embeds.
    pub fn scratch(&self) -> Scratch {
        Scratch { memory: None, pixels: Vec::new() }
    }

    /// The embedding of every crop, in order. On the kernels an embedding does not depend on the
    /// others of its batch, bit for bit.
    ///
    /// # Errors
    /// When a feature is zero or not finite and so has no direction, or the device fails.
    pub fn embed(
        &self,
        crops: &[Crop],
        mirror: Mirror,
        scratch: &mut Scratch,
    ) -> Result<Vec<Embedding>, EmbedError> {
        let mut features = self.features(crops, scratch)?;
        if mirror == Mirror::Average {
            let mirrored: Vec<Crop> = crops.iter().map(Crop::mirrored).collect();
            for (a, b) in features.iter_mut().zip(self.features(&mirrored, scratch)?) {
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
    ///
    /// # Errors
    /// When the device fails; the kernels never do.
    pub fn features(&self, crops: &[Crop], scratch: &mut Scratch) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut pixels = std::mem::take(&mut scratch.pixels);
        pixels.clear();
        if self.family.sphereface().is_some() {
            crops.iter().for_each(|crop| self::pixels(crop, self.order, &mut pixels));
        }
        match &self.backend {
            Backend::Kernels(kernels) => {
                let network = kernels.network(self.threads);
                let memory = scratch.memory.get_or_insert_with(|| match network {
                    LaidOut::SphereFace(network) => Memory::SphereFace(network.workspace(self.threads)),
                    LaidOut::Imported(network) => Memory::Imported(network.workspace(self.threads)),
                });
                let features = match (network, memory) {
                    (LaidOut::SphereFace(network), Memory::SphereFace(memory)) => {
                        network.forward(&pixels, memory)
                    }
                    (LaidOut::Imported(network), Memory::Imported(memory)) => network.forward(crops, memory),
                    _ => unreachable!("memory is of the embedder that it was taken from"),
                };
                scratch.pixels = pixels;
                Ok(features)
            }
            #[cfg(feature = "candle")]
            Backend::Tensors { .. } if crops.is_empty() => Ok(Vec::new()),
            #[cfg(feature = "candle")]
            Backend::Tensors { network, together } => together
                .ask(pixels, |all| forward(network, &all, self.family.embedding()))
                .map_err(EmbedError::Device),
        }
    }
}

/// The features of the crops of every request.
#[cfg(feature = "candle")]
fn forward(
    network: &TensorNetwork,
    requests: &[Vec<f32>],
    embedding: usize,
) -> candle_core::Result<Vec<Vec<Vec<f32>>>> {
    let mut features = Vec::new();
    for crops in requests.concat().chunks(CROPS_TOGETHER * Crop::LEN_BYTES) {
        features.extend(network.forward(crops.to_vec())?.chunks_exact(embedding).map(<[f32]>::to_vec));
    }
    let mut features = features.into_iter();
    Ok(requests.iter().map(|crops| features.by_ref().take(crops.len() / Crop::LEN_BYTES).collect()).collect())
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

/// Whether a tensor has that shape, and finite values.
fn check_one(family: &Family, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<(), EmbedError> {
    if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
        return Err(EmbedError::Shape {
            name: name.into(),
            found: tensor.shape.clone(),
            expected: shape.to_vec(),
            architecture: family.to_string(),
        });
    }
    match all_finite(&tensor.data) {
        true => Ok(()),
        false => Err(EmbedError::NotFinite(name.into())),
    }
}
