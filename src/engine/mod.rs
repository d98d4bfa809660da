//! The entry points for a program that recognises people.
//!
//! | type | what it is | lifetime |
//! |---|---|---|
//! | [`Engine`] | detector, embedding network and device: made once, shared by any number of threads and sources | the process |
//! | [`Gallery`] | the people to name: a snapshot to search, which can be replaced while streams run | until somebody is enrolled |
//! | [`Stream`] | one source's state: detection schedule, tracks, decisions; frames in, labelled frames and events out | the source |
//!
//! A [`Recogniser`] is an engine and a gallery for stills. The command line and the jobs of
//! [`pipeline`](crate::pipeline) use the same engine, gallery and steps.
//!
//! ```no_run
//! use sphereface::{Engine, Gallery, Recogniser};
//!
//! let engine = Engine::new()?;
//! let gallery = Gallery::open(&engine, "gallery")?;
//! let picture = sphereface::media::read_still("party.jpg".as_ref())?;
//! for face in Recogniser::new(&engine, &gallery).name(&picture)? {
//!     println!("{} at {:?}", face.name().unwrap_or("unknown"), face.bbox());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without a gallery, faces are found and can be compared:
//!
//! ```
//! use sphereface::{Engine, media};
//!
//! let engine = Engine::new()?;
//! let mut embeddings = Vec::new();
//! for still in ["samples/people/Ada/1.jpg", "samples/people/Ada/2.jpg", "samples/people/Boris/1.jpg"] {
//!     let mut faces = engine.detect(&media::read_still(still.as_ref())?)?;
//!     let crop = faces.remove(0).crop.ok_or("no landmarks")?;
//!     embeddings.extend(engine.embed(vec![crop])?);
//! }
//! let angle_deg = |a: usize, b: usize| embeddings[a].angle_deg(&embeddings[b]);
//! assert!(angle_deg(0, 1) < angle_deg(0, 2), "two stills of Ada are more alike than Ada and Boris");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batcher;
mod error;
mod event;
mod face;
mod find;
mod gallery;
pub(crate) mod observe;
mod recogniser;
mod region;
pub(crate) mod schedule;
mod stream;
mod work;

pub use error::{EngineError, RecogniseError};
pub use event::{Event, EventKind, Presence};
pub use face::{DetectedFace, IdentifiedFace, LabelledFrame};
pub use gallery::{Gallery, GalleryOptions};
pub use recogniser::Recogniser;
pub use region::{BadPolygon, Polygon, Regions};
pub use schedule::{BadInterval, DetectEvery};
pub use stream::{Output, Stream, StreamOptions};
pub use work::Work;

pub use gallery::{Known, templates};
#[cfg(feature = "video")]
pub(crate) use stream::{Decider, same_deg};

use std::num::NonZeroUsize;
use std::sync::Arc;

use image::RgbImage;

use crate::align::Crop;
use crate::detect::{Detector, DetectorConfig, Scratch};
use crate::embed::{EmbedOptions, Embedder, Embedding, Family, Mirror};
use crate::identify::same_person_deg;
use crate::models::{BuiltIn, MTCNN, ModelId, SPHEREFACE, Stored, Weights};
use crate::nn::{Arithmetic, ArithmeticChoice, ChosenArithmetic, Device, DeviceChoice, Isa};
use batcher::Batcher;

/// The most threads of an engine.
const MOST_THREADS: usize = 256;

/// A detector and an embedding network on a device.
///
/// Cloning is cheap, and clones share the engine. Any number of threads may use it at a time; faces from
/// several threads are embedded in common batches. Results do not depend on the sharing.
#[derive(Debug, Clone)]
pub struct Engine {
    detector: Arc<Detector>,
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    embedder: Embedder,
    mirror: Mirror,
    threads: usize,
    batcher: Batcher,
    arithmetic: ChosenArithmetic,
    /// How to make the network again in f32, if it is computed in a shorter format.
    exact: Option<EngineBuilder>,
}

impl Engine {
    /// An engine with the built-in networks on the best available device.
    ///
    /// # Errors
    /// Never on the CPU, unless the program is damaged.
    pub fn new() -> Result<Self, EngineError> {
        Self::builder().build()
    }

    /// A builder with all settings at their defaults.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// An engine from existing parts.
    pub fn from_parts(detector: Detector, embedder: Embedder, mirror: Mirror, threads: usize) -> Self {
        let batcher = Batcher::new(&embedder, mirror, threads);
        let arithmetic = ChosenArithmetic::asked(embedder.arithmetic());
        let parts = Parts { embedder, mirror, threads: threads.max(1), batcher, arithmetic, exact: None };
        Self { detector: Arc::new(detector), parts: Arc::new(parts) }
    }

    /// The same engine with another detector: a source that looks for larger or smaller faces than others
    /// still shares their batches.
    pub fn with_detector(&self, detector: Detector) -> Self {
        Self { detector: Arc::new(detector), parts: Arc::clone(&self.parts) }
    }

    /// The detector.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The embedder.
    pub fn embedder(&self) -> &Embedder {
        &self.parts.embedder
    }

    /// Identifier of the embedding network: embeddings of different ones cannot be compared.
    pub fn model(&self) -> ModelId {
        self.parts.embedder.model()
    }

    /// The arithmetic of the embeddings of faces, and the reason for it. Every engine computes the embeddings
    /// of a gallery in f32.
    pub fn arithmetic(&self) -> ChosenArithmetic {
        self.parts.arithmetic
    }

    /// Whether embeddings are averaged with those of the mirror images.
    pub fn mirror(&self) -> Mirror {
        self.parts.mirror
    }

    /// Number of threads for whole files and for embedding.
    pub fn threads(&self) -> usize {
        self.parts.threads
    }

    /// Largest angle between two views of one person in degrees; `None` for a model without calibration.
    pub fn same_person_deg(&self) -> Option<f64> {
        same_person_deg(self.parts.embedder.metadata())
    }

    /// The faces of a picture with their crops, highest detector score first.
    ///
    /// # Errors
    /// When the device fails.
    pub fn detect(&self, picture: &RgbImage) -> Result<Vec<DetectedFace>, RecogniseError> {
        let found = find::find(&self.detector, picture, &mut Scratch::default())?;
        Ok(find::cut(picture, found, true))
    }

    /// The embedding of every crop, in order. Concurrent calls share batches.
    ///
    /// # Errors
    /// When a crop has no embedding, or the device fails.
    pub fn embed(&self, crops: Vec<Crop>) -> Result<Vec<Embedding>, RecogniseError> {
        self.parts.batcher.embed(&self.parts.embedder, crops)
    }

    /// The network in f32, with which a gallery is embedded, because engines of any arithmetic share the
    /// stored embeddings.
    pub(crate) fn gallery_embedder(&self) -> Result<Option<Embedder>, EngineError> {
        self.parts.exact.as_ref().map(EngineBuilder::embedder).transpose()
    }
}

/// An [`Engine`] that is yet to be built.
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    model: String,
    detector_model: String,
    detector: DetectorConfig,
    device: DeviceSetting,
    isa: Isa,
    precision: ArithmeticChoice,
    mirror: Mirror,
    threads: Option<usize>,
}

/// A device, or one that is yet to be opened.
#[derive(Debug, Clone)]
enum DeviceSetting {
    Choice(DeviceChoice),
    Opened(Device),
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            model: SPHEREFACE.name.to_owned(),
            detector_model: MTCNN.name.to_owned(),
            detector: DetectorConfig::default(),
            device: DeviceSetting::Choice(DeviceChoice::Auto),
            isa: Isa::best(),
            precision: ArithmeticChoice::Auto,
            mirror: Mirror::No,
            threads: None,
        }
    }
}

impl EngineBuilder {
    /// The embedding network: the name of a built-in one or the path of a safetensors file. Default:
    /// `sphereface`.
    pub fn model(mut self, name_or_file: impl Into<String>) -> Self {
        self.model = name_or_file.into();
        self
    }

    /// The networks of the detector: the path of a safetensors file. Default: those that are built in.
    pub fn detector_model(mut self, name_or_file: impl Into<String>) -> Self {
        self.detector_model = name_or_file.into();
        self
    }

    /// Settings of the detector.
    pub fn detection(mut self, config: DetectorConfig) -> Self {
        self.detector = config;
        self
    }

    /// Device of the networks. Default: the first usable GPU, else the CPU.
    pub fn device(mut self, choice: DeviceChoice) -> Self {
        self.device = DeviceSetting::Choice(choice);
        self
    }

    /// An open device.
    pub fn on(mut self, device: Device) -> Self {
        self.isa = device.isa();
        self.device = DeviceSetting::Opened(device);
        self
    }

    /// Instruction set on the CPU. Default: the best available.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// Number format of the embedding network: an [`Arithmetic`], or a choice. Default:
    /// [`auto`](ArithmeticChoice::Auto), the fastest on this CPU that keeps the accuracy of f32;
    /// [`Engine::arithmetic`] tells which. Angles differ by less than half a degree between arithmetics.
    pub fn precision(mut self, precision: impl Into<ArithmeticChoice>) -> Self {
        self.precision = precision.into();
        self
    }

    /// Whether embeddings are averaged with those of the mirror images. Default: no.
    pub fn mirror(mut self, mirror: Mirror) -> Self {
        self.mirror = mirror;
        self
    }

    /// Number of threads, 1 to 256. Results do not depend on it. Default: one per CPU.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Builds the engine. The weights of the embedding network are packed when the first face arrives.
    ///
    /// # Errors
    /// When a model or device cannot be used, or a setting is invalid.
    pub fn build(mut self) -> Result<Engine, EngineError> {
        let threads = self.threads.unwrap_or_else(|| available_threads().min(MOST_THREADS));
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(EngineError::Threads(threads));
        }
        self.detector.validate()?;
        let device = match self.device {
            DeviceSetting::Choice(choice) => Device::open(choice, self.isa)?,
            DeviceSetting::Opened(device) => device,
        };
        self.device = DeviceSetting::Opened(device.clone());
        let (embedder, arithmetic) = open_embedder(&self.model, &device, self.precision, 1)?;
        let detector = Detector::on(&Weights::resolve(&self.detector_model)?, self.detector, &device)?;
        let mirror = self.mirror;
        let batcher = Batcher::new(&embedder, mirror, threads);
        let exact = (arithmetic.arithmetic != Arithmetic::F32).then(|| self.precision(Arithmetic::F32));
        let parts = Parts { embedder, mirror, threads, batcher, arithmetic, exact };
        Ok(Engine { detector: Arc::new(detector), parts: Arc::new(parts) })
    }

    /// Opens the embedding network alone.
    fn embedder(&self) -> Result<Embedder, EngineError> {
        let device = match &self.device {
            DeviceSetting::Choice(choice) => Device::open(*choice, self.isa)?,
            DeviceSetting::Opened(device) => device.clone(),
        };
        Ok(open_embedder(&self.model, &device, self.precision, 1)?.0)
    }
}

/// The embedding network of that name or file on a device, with its own `threads` threads per call, and its
/// arithmetic.
///
/// # Errors
/// When there is no such network, it cannot be read, or it cannot be run on the device in that arithmetic.
pub fn open_embedder(
    model: &str,
    device: &Device,
    precision: ArithmeticChoice,
    threads: usize,
) -> Result<(Embedder, ChosenArithmetic), EngineError> {
    let resolve = |sphereface: bool| -> Result<(ChosenArithmetic, EmbedOptions), EngineError> {
        let chosen = precision.resolve(device, sphereface)?;
        Ok((chosen, EmbedOptions { isa: device.isa(), threads, arithmetic: chosen.arithmetic }))
    };
    let (made, chosen) = match (device.is_cpu(), BuiltIn::named(model)) {
        (false, _) => {
            let (chosen, _) = resolve(true)?;
            (Embedder::on(Weights::resolve(model)?, device, threads), chosen)
        }
        (true, Some(built_in)) => {
            let (chosen, options) = resolve(true)?;
            (Embedder::built_in(built_in, options), chosen)
        }
        (true, None) => {
            let stored = Stored::of_file(model)?;
            let imported = matches!(Family::from_metadata(stored.metadata()), Ok(Family::Imported(_)));
            let (chosen, options) = resolve(!imported)?;
            (Embedder::stored(stored, options), chosen)
        }
    };
    let embedder = made.map_err(|source| EngineError::Model { model: model.to_owned(), source })?;
    Ok((embedder, chosen))
}

/// One thread per CPU that this process may use.
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
