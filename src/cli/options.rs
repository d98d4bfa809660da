//! Flags shared by several commands, and the objects built from them.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use super::UsageError;
use sphereface::analysis::Analysis;
use sphereface::detect::{Detector, DetectorConfig, MinFace};
use sphereface::embed::Embedder;
use sphereface::engine::{EngineError, Known, open_embedder};
use sphereface::identify::{
    DEFAULT_MARGIN_DEG, ThresholdRequest, parse_angle_deg, parse_fmr, parse_margin_deg,
};
use sphereface::models::{MTCNN, SPHEREFACE};
use sphereface::nn::{
    Arithmetic, ArithmeticChoice, ChosenArithmetic, Device, DeviceChoice, DeviceError, Isa,
};

/// The instruction set of the CPU kernels; a wrong `SPHEREFACE_ISA` is a usage error.
pub fn isa() -> Result<Isa> {
    Isa::from_environment().map_err(|error| UsageError(error.to_string()).into())
}

/// The device of the networks.
#[derive(Debug, Clone, Copy, Args)]
pub struct DeviceArgs {
    /// Device of the networks: cpu, cuda (the first GPU), cuda:N (GPU number N, from 0), or auto (the
    /// first GPU if it is usable, else the CPU)
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
}

impl DeviceArgs {
    /// Opens the device.
    ///
    /// # Errors
    /// When a GPU was requested explicitly and cannot be used.
    pub fn open(self) -> Result<Device> {
        Device::open(self.device, isa()?).map_err(|error| match error {
            DeviceError::NotBuilt => UsageError(error.to_string()).into(),
            other => other.into(),
        })
    }

    /// Opens the device and prints it.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_and_tell(self) -> Result<Device> {
        let device = self.open()?;
        tell(&device);
        Ok(device)
    }
}

/// Prints the device of the networks.
fn tell(device: &Device) {
    errln!("networks run on {device}");
}

/// Prints the device of the networks and the arithmetic of embeddings.
pub fn tell_with(device: &Device, arithmetic: impl fmt::Display) {
    errln!("networks run on {device}; embeddings are computed in {arithmetic}");
}

/// Prints the device and the number format of training.
#[cfg(feature = "train")]
pub fn tell_of_training(device: &Device, arithmetic: impl fmt::Display) {
    errln!("the network runs on {device}; products are computed in {arithmetic}");
}

/// Prints the device of the networks and the arithmetic of an analysis's embeddings.
pub fn tell_of(device: &Device, analysis: &Analysis) {
    let arithmetic = analysis.arithmetic;
    errln!("networks run on {device}; the embeddings of the analysis were computed in {arithmetic}");
}

/// Settings of the detector.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Detection")]
pub struct DetectionArgs {
    /// Smallest face to detect: pixels (40, 40px) or a share of the frame height (5%). Halving it
    /// quadruples the detection time
    #[arg(long, value_name = "SIZE", default_value_t = DetectorConfig::default().min_face)]
    pub min_face: MinFace,
    /// Scale factor between pyramid levels, 0.1 to 0.95. Closer to 1 finds slightly more faces and is
    /// slower
    #[arg(long, value_name = "RATIO", default_value_t = DetectorConfig::default().factor)]
    pub factor: f32,
    /// Minimum face probability after P-Net, R-Net and O-Net, each at least 0 and less than 1
    #[arg(long, value_name = "P,R,O", default_value_t = Scores(DetectorConfig::default().thresholds))]
    pub scores: Scores,
}

/// Three thresholds, separated by commas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores(pub [f32; 3]);

impl FromStr for Scores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        let three = numbers.ok().and_then(|numbers| numbers.try_into().ok());
        three
            .map(Scores)
            .ok_or_else(|| "give three probabilities separated by commas, for example 0.6,0.7,0.7".into())
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p, r, o] = self.0;
        write!(f, "{p},{r},{o}")
    }
}

impl DetectionArgs {
    /// Whether nothing was requested.
    pub fn is_default(&self) -> bool {
        let Self { min_face, factor, scores: Scores(thresholds) } = *self;
        DetectorConfig { min_face, factor, thresholds } == DetectorConfig::default()
    }

    /// The validated settings.
    pub fn config(&self) -> Result<DetectorConfig> {
        let Self { min_face, factor, scores: Scores(thresholds) } = *self;
        let config = DetectorConfig { min_face, factor, thresholds };
        config.validate().map_err(|error| UsageError(error.to_string()))?;
        Ok(config)
    }

    /// The built-in detector with these settings.
    ///
    /// # Errors
    /// When a setting is out of range, or the device fails.
    pub fn detector(&self, device: &Device) -> Result<Detector> {
        Ok(Detector::on(&MTCNN.weights()?, self.config()?, device)?)
    }
}

/// The embedding model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recognition")]
pub struct ModelArgs {
    /// Embedding model: sphereface (built in), sphereface20 (built in; half the work, slightly more
    /// misses) or a safetensors file
    #[arg(long, value_name = "FILE", default_value = SPHEREFACE.name)]
    pub model: String,
}

impl ModelArgs {
    /// Loads the model to embed in f32, single-threaded, for workers that each own a thread.
    ///
    /// # Errors
    /// When there is no such model, or it is not an embedding model.
    pub fn embedder(&self, device: &Device) -> Result<Embedder> {
        Ok(self.embedder_in(Arithmetic::F32.into(), device, 1)?.0)
    }

    /// Loads the model to embed in the arithmetic chosen, with `threads` threads per batch.
    ///
    /// # Errors
    /// As for [`embedder`](Self::embedder), and when the device cannot compute in that arithmetic.
    pub fn embedder_in(
        &self,
        choice: ArithmeticChoice,
        device: &Device,
        threads: usize,
    ) -> Result<(Embedder, ChosenArithmetic)> {
        open_embedder(&self.model, device, choice, threads).map_err(refused)
    }
}

/// The number format of the embedding network.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Recognition")]
pub struct PrecisionArgs {
    /// Number format of the embedding network's multiplications: f32, bf16 (on CPUs with AVX-512
    /// BF16 or AMX), int8 (8-bit integers, on CPUs with AMX: faster, slightly more misses), or auto
    /// (bf16 on CPUs where it was measured to be faster, Intel's with AMX and AMD Zen 4 and Zen 5,
    /// else f32).
    /// Angles differ from those in f32 by less than 0.5 degrees in bf16, and by several degrees in
    /// int8. Galleries are embedded in f32
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub precision: ArithmeticChoice,
}

/// The angle below which a face is named.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recognition")]
pub struct ThresholdArgs {
    /// Angle in degrees below which a face is named, for example 68deg [default: the angle set by
    /// `gallery calibrate`, else the model's calibrated angle for an FMR of 1e-3, or of 2e-2 divided by
    /// the number of templates if there are more than 20]
    #[arg(long, value_name = "ANGLE", value_parser = parse_angle_deg, conflicts_with = "fmr")]
    pub threshold: Option<f64>,
    /// False match rate (FMR) per comparison, converted into an angle by the model's calibration, for
    /// example 1e-4
    #[arg(long, value_name = "RATE", value_parser = parse_fmr)]
    pub fmr: Option<f64>,
}

impl ThresholdArgs {
    /// The requested threshold.
    pub fn request(&self) -> ThresholdRequest {
        match (self.threshold, self.fmr) {
            (Some(angle_deg), _) => ThresholdRequest::AngleDeg(angle_deg),
            (None, Some(fmr)) => ThresholdRequest::Fmr(fmr),
            (None, None) => ThresholdRequest::Default,
        }
    }
}

/// The margin between the best match and the runner-up.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Recognition")]
pub struct MarginArgs {
    /// Angle in degrees by which the best match must beat the runner-up, 0 to 90. A face that matches
    /// two people about equally well stays unknown
    #[arg(long, value_name = "ANGLE", value_parser = parse_margin_deg, default_value_t = DEFAULT_MARGIN_DEG)]
    pub margin: f64,
}

/// The number of threads.
#[derive(Debug, Clone, Args)]
pub struct ThreadArgs {
    /// Workers per stage, 1 to 256; results do not depend on it [default: one per CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

impl ThreadArgs {
    /// The requested number, else one per CPU that this process may use.
    pub fn count(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(256);
        self.threads.map_or_else(all, usize::from)
    }
}

/// Reads a number of frames per second.
///
/// # Errors
/// When it is not from 0.01 to 1000.
#[cfg(feature = "library")]
pub fn frames_per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|fps| (0.01..=1000.0).contains(fps));
    number.ok_or_else(|| format!("`{text}` is not a number from 0.01 to 1000"))
}

/// Reads a number from 0 to 1.
///
/// # Errors
/// When it is anything else.
pub fn parse_share(text: &str) -> Result<f32, String> {
    let share = text.trim().parse::<f32>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

/// The people of a gallery and the requested threshold for them.
///
/// # Errors
/// As for [`Known::load`].
pub fn known(args: &ThresholdArgs, root: &Path, embedder: &Embedder) -> Result<Known> {
    Known::load(args.request(), root, embedder).map_err(refused)
}

/// Turns errors about the request into usage errors, and adds advice to others.
pub fn refused(error: EngineError) -> anyhow::Error {
    match &error {
        EngineError::Threshold(_)
        | EngineError::Precision(_)
        | EngineError::Threads(_)
        | EngineError::Device(DeviceError::NotBuilt) => UsageError(error.to_string()).into(),
        EngineError::NobodyEnrolled(root) => {
            let root = root.display();
            anyhow::anyhow!(
                "{error}: enrol a person first (sphereface enroll NAME STILL --gallery {root}), or omit --gallery to find faces without naming them"
            )
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_scores_and_nothing_else() {
        assert_eq!("0.6,0.7, 0.8".parse(), Ok(Scores([0.6, 0.7, 0.8])));
        assert_eq!(Scores([0.6, 0.7, 0.7]).to_string().parse(), Ok(Scores([0.6, 0.7, 0.7])));
        for text in ["", "0.6", "0.6,0.7", "0.6,0.7,0.7,0.7", "a,b,c", "0.6,,0.7"] {
            assert!(text.parse::<Scores>().is_err(), "{text}");
        }
    }
}
