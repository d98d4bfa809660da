//! Flags that several commands share, and what they make.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;

use super::UsageError;
use crate::detect::{Detector, DetectorConfig, MinFace};
use crate::embed::Embedder;
use crate::engine::{EngineError, Known, open_embedder};
use crate::identify::{DEFAULT_MARGIN_DEG, ThresholdRequest, parse_angle_deg, parse_fmr, parse_margin_deg};
use crate::nn::weights::{MTCNN, SPHEREFACE};
use crate::nn::{Arithmetic, Device, DeviceChoice, DeviceError, Isa};

/// The instruction set of the CPU kernels; a wrong `SPHEREFACE_ISA` is a usage error.
pub fn isa() -> Result<Isa> {
    Isa::from_environment().map_err(|error| UsageError(error.to_string()).into())
}

/// Where the networks run.
#[derive(Debug, Clone, Copy, Args)]
pub struct DeviceArgs {
    /// Where the networks run: cpu, cuda (the first GPU), cuda:N (GPU number N from 0), or auto:
    /// the first GPU if this program can use it, else the CPU
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
}

impl DeviceArgs {
    /// The device, opened.
    ///
    /// # Errors
    /// When a GPU was asked for by name and cannot be used.
    pub fn open(self) -> Result<Device> {
        Device::open(self.device, isa()?).map_err(|error| match error {
            DeviceError::NotBuilt => UsageError(error.to_string()).into(),
            other => other.into(),
        })
    }

    /// The same, and tells where the networks run.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_and_tell(self) -> Result<Device> {
        let device = self.open()?;
        tell(&device);
        Ok(device)
    }
}

/// Tells where the networks run.
pub fn tell(device: &Device) {
    errln!("networks run on {device}");
}

/// How faces are found.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Detection")]
pub struct DetectionArgs {
    /// Smallest face to look for: pixels (40, 40px) or a share of the frame height (5%); half
    /// the size costs four times the time
    #[arg(long, value_name = "SIZE", default_value_t = DetectorConfig::default().min_face)]
    pub min_face: MinFace,
    /// Ratio of one pyramid level to the next, 0.1 to 0.95: closer to 1 finds a little more and
    /// is slower
    #[arg(long, value_name = "RATIO", default_value_t = DetectorConfig::default().factor)]
    pub factor: f32,
    /// Least face probability after P-Net, R-Net and O-Net, each 0 or more and less than 1
    #[arg(long, value_name = "P,R,O", default_value_t = Scores(DetectorConfig::default().thresholds))]
    pub scores: Scores,
}

/// Three thresholds, written with commas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores(pub [f32; 3]);

impl FromStr for Scores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        let three = numbers.ok().and_then(|numbers| numbers.try_into().ok());
        three
            .map(Scores)
            .ok_or_else(|| "give three probabilities with commas, for example 0.6,0.7,0.7".into())
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p, r, o] = self.0;
        write!(f, "{p},{r},{o}")
    }
}

impl DetectionArgs {
    /// The settings, checked.
    pub fn config(&self) -> Result<DetectorConfig> {
        let Self { min_face, factor, scores: Scores(thresholds) } = *self;
        let config = DetectorConfig { min_face, factor, thresholds };
        config.validate().map_err(|error| UsageError(error.to_string()))?;
        Ok(config)
    }

    /// The built-in detector with these settings.
    ///
    /// # Errors
    /// When they make no sense, or the device fails.
    pub fn detector(&self, device: &Device) -> Result<Detector> {
        Ok(Detector::on(&MTCNN.weights()?, self.config()?, device)?)
    }
}

/// Which network makes embeddings.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recognition")]
pub struct ModelArgs {
    /// Embedding model: a built-in one (sphereface, or sphereface20, which does half the work and
    /// misses a few more) or a safetensors file
    #[arg(long, value_name = "FILE", default_value = SPHEREFACE.name)]
    pub model: String,
}

impl ModelArgs {
    /// The model, ready to embed in f32; each worker runs it on a thread of its own.
    ///
    /// # Errors
    /// When there is no such model, or it is none that embeds.
    pub fn embedder(&self, device: &Device) -> Result<Embedder> {
        self.embedder_in(Arithmetic::F32, device, 1)
    }

    /// The model, ready to embed in that arithmetic (on a GPU in its own) with that many threads a batch.
    ///
    /// # Errors
    /// As for [`embedder`](Self::embedder).
    pub fn embedder_in(&self, arithmetic: Arithmetic, device: &Device, threads: usize) -> Result<Embedder> {
        open_embedder(&self.model, device, arithmetic, threads).map_err(refused)
    }
}

/// What the embedding network computes in.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Recognition")]
pub struct PrecisionArgs {
    /// What the embedding network multiplies in: f32, or bf16, which is faster, on CPUs with AVX-512
    /// BF16; angles change by less than a quarter of a degree
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub precision: Arithmetic,
}

impl PrecisionArgs {
    /// What was asked for, checked.
    ///
    /// # Errors
    /// When it is nothing for this device.
    pub fn on(self, device: &Device) -> Result<Arithmetic> {
        let checked = self.precision.check_on(device);
        checked.map_err(|error| UsageError(error.to_string()))?;
        Ok(self.precision)
    }
}

/// At which angle a face is somebody.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recognition")]
pub struct ThresholdArgs {
    /// Angle in degrees below which a face is named, for example 68deg [default: the angle from
    /// `gallery calibrate`, else the model's calibrated angle for --fmr 1e-3, or before more than 20
    /// templates for 2e-2 divided by their number]
    #[arg(long, value_name = "ANGLE", value_parser = parse_angle_deg, conflicts_with = "fmr")]
    pub threshold: Option<f64>,
    /// False match rate of one comparison, turned into an angle by the model's calibration, for
    /// example 1e-4
    #[arg(long, value_name = "RATE", value_parser = parse_fmr)]
    pub fmr: Option<f64>,
}

impl ThresholdArgs {
    /// What was asked for.
    pub fn request(&self) -> ThresholdRequest {
        match (self.threshold, self.fmr) {
            (Some(angle_deg), _) => ThresholdRequest::AngleDeg(angle_deg),
            (None, Some(fmr)) => ThresholdRequest::Fmr(fmr),
            (None, None) => ThresholdRequest::Default,
        }
    }
}

/// How much nearer than anybody else a face must be to somebody.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Recognition")]
pub struct MarginArgs {
    /// Degrees by which the nearest person must be nearer than anybody else to be named, 0 to 90: who
    /// is as near to two people stays unknown
    #[arg(long, value_name = "ANGLE", value_parser = parse_margin_deg, default_value_t = DEFAULT_MARGIN_DEG)]
    pub margin: f64,
}

/// How many threads work.
#[derive(Debug, Clone, Args)]
pub struct ThreadArgs {
    /// Workers a stage, 1 to 256; results are the same for any number [default: one a CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

impl ThreadArgs {
    /// The number asked for, else one for each CPU this process may use.
    pub fn count(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(256);
        self.threads.map_or_else(all, usize::from)
    }
}

/// Reads a number from 0 to 1.
///
/// # Errors
/// A word about anything else.
pub fn parse_share(text: &str) -> Result<f32, String> {
    let share = text.trim().parse::<f32>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

/// The people of a gallery and the threshold for them, as asked for.
///
/// # Errors
/// As for [`Known::load`].
pub fn known(args: &ThresholdArgs, root: &Path, embedder: &Embedder) -> Result<Known> {
    Known::load(args.request(), root, embedder).map_err(refused)
}

/// Errors about what was asked for are usage errors; others get advice where there is some.
pub fn refused(error: EngineError) -> anyhow::Error {
    match &error {
        EngineError::Threshold(_)
        | EngineError::Precision(_)
        | EngineError::Threads(_)
        | EngineError::Device(DeviceError::NotBuilt) => UsageError(error.to_string()).into(),
        EngineError::NobodyEnrolled(root) => {
            let root = root.display();
            anyhow::anyhow!(
                "{error}: enrol somebody first (sphereface enroll NAME STILL --gallery {root}), or leave out --gallery to find faces without naming them"
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
