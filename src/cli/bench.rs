//! `sphereface bench`: measures this machine's peak and how much of it is reached.

#[cfg(feature = "serve")]
mod cameras;
#[cfg(feature = "library")]
mod library;
mod search;
mod train;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::UsageError;
use super::options::{self, DetectionArgs, DeviceArgs, ModelArgs, PrecisionArgs, ThreadArgs};
use sphereface::bench::{self, MachineBench};
use sphereface::embed::{EmbedOptions, Embedder, Family};
use sphereface::models::{MTCNN, Weights};
use sphereface::nn::{Device, DeviceChoice};

/// Measure the speed of this machine, the networks, the detector and a whole job
///
/// On the CPU, everything is measured with one thread and with --threads. The figures are medians.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    sphereface bench\n  \
    sphereface bench --json > bench.json\n  \
    sphereface bench --video samples/sample.mp4 --threads 2\n  \
    sphereface bench --device cuda --batches 1,16,256\n  \
    sphereface bench train --depth 20 --batch 64 --threads 2\n  \
    sphereface bench search --templates 100000\n  \
    sphereface bench library --tracks 100000"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    part: Option<Part>,
    /// Answer requests for single measurements on standard input, for benches/peers
    #[arg(long, hide = true)]
    serve: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Batch sizes of the embedding network, each 1 to 1024
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 4, 16],
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    batches: Vec<u16>,
    /// Frame sizes for the detector in pixels, each side 12 to 8192
    #[arg(long, value_name = "WxH,...", value_delimiter = ',', default_value = "640x360,1280x720,1920x1080")]
    frames: Vec<FrameSize>,
    /// Seconds per measurement, more than 0 and at most 60
    #[arg(long, value_name = "S", default_value_t = 0.3)]
    seconds: f64,
    /// Video to measure a whole job on, for example samples/sample.mp4 [default: not measured]
    #[arg(long, value_name = "FILE")]
    video: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Subcommand)]
enum Part {
    #[cfg(feature = "library")]
    Library(library::LibraryArgs),
    #[cfg(feature = "serve")]
    Cameras(cameras::CamerasArgs),
    Search(search::SearchArgs),
    Train(Box<train::TrainBenchArgs>),
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameSize(u32, u32);

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |side: &str| side.trim().parse::<u32>().ok().filter(|side| (12..=8192).contains(side));
        let sides = text.split_once('x').and_then(|(width, height)| side(width).zip(side(height)));
        sides
            .map(|(width, height)| Self(width, height))
            .ok_or_else(|| "write width x height in pixels, each 12 to 8192, for example 1280x720".to_owned())
    }
}

impl BenchArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        match self.part {
            #[cfg(feature = "library")]
            Some(Part::Library(args)) => args.run(),
            #[cfg(feature = "serve")]
            Some(Part::Cameras(args)) => args.run(),
            Some(Part::Search(args)) => args.run(),
            Some(Part::Train(args)) => args.run(),
            None if self.serve => self.serve(),
            None => self.measure(),
        }
    }

    /// Options of the embedder for a model, with all threads.
    fn embed_options(&self, device: &Device, model: &Weights) -> Result<EmbedOptions> {
        let imported = matches!(Family::from_metadata(&model.metadata), Ok(Family::Imported(_)));
        let chosen = self.precision.precision.resolve(device, !imported);
        let arithmetic = chosen.map_err(|error| UsageError(error.to_string()))?.arithmetic;
        Ok(EmbedOptions { isa: device.isa(), threads: self.threads.count(), arithmetic })
    }

    fn serve(self) -> Result<()> {
        let cpu = Device::open(DeviceChoice::Cpu, options::isa()?)?;
        let model = Weights::resolve(&self.model.model)?;
        let options = self.embed_options(&cpu, &model)?;
        let detector = self.detection.detector(&cpu)?;
        let embedder = Embedder::new(model, options)?;
        bench::serve(
            &embedder,
            &detector,
            options.threads,
            std::io::stdin().lock(),
            std::io::stdout().lock(),
        )?;
        Ok(())
    }

    fn measure(self) -> Result<()> {
        if !(self.seconds > 0.0 && self.seconds <= 60.0) {
            let seconds = self.seconds;
            return Err(UsageError(format!(
                "--seconds {seconds} is out of range: give more than 0 and at most 60"
            ))
            .into());
        }
        let device = self.device.open()?;
        let model = Weights::resolve(&self.model.model)?;
        let what = MachineBench {
            embed: self.embed_options(&device, &model)?,
            device,
            batches: self.batches.iter().copied().map(usize::from).collect(),
            frames: self.frames.iter().map(|&FrameSize(width, height)| (width, height)).collect(),
            time: Duration::from_secs_f64(self.seconds),
            detection: self.detection.config()?,
            detector: MTCNN.weights()?,
            model,
            video: self.video,
        };
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let report = bench::machine(&what, &mut |part| {
            bar.set_message(part.to_owned());
            bar.tick();
        });
        bar.finish_and_clear();
        let report = report?;
        if self.json {
            outln!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            outln!("{report}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_two_sides() {
        assert_eq!("1280x720".parse(), Ok(FrameSize(1280, 720)));
        for text in ["", "1280", "1280x", "11x720", "1280x9000", "-1x720", "12x12x12"] {
            assert!(text.parse::<FrameSize>().is_err(), "{text}");
        }
    }
}
