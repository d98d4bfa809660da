//! `sphereface align`: turns photos of people into aligned crops for training and testing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::UsageError;
use super::options::{DetectionArgs, DeviceArgs, ThreadArgs};
use sphereface::prepare::{self, CropFormat, CropSize, PrepareError, Settings, Source};

/// Align a data set: detect the face in every photo and crop it
///
/// If a photo shows several faces, the one nearest to its centre is used. Images that are already
/// aligned crops (96x112 or 112x112 with the eyes in place) are copied unchanged.
///
/// DST gets one folder per person and `align.jsonl`, which records the result for every photo. An
/// interrupted run continues when the same command is run again. Files in DST that align did not write
/// are never replaced. The default detector settings are those of the authors of SphereFace.
#[derive(Debug, Args)]
#[command(
    mut_arg("min_face", |arg| arg.default_value("20px")),
    mut_arg("factor", |arg| arg.default_value("0.85")),
    mut_arg("scores", |arg| arg.default_value("0.6,0.7,0.9")),
    after_help = "Examples:\n  \
    sphereface align lfw lfw-aligned\n  \
    sphereface align casia/list.txt casia-112x112 --size 112x112 --format jpg --json"
)]
pub struct AlignArgs {
    /// Folder with one folder of photos per person, or a list file with lines `path label`
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Destination folder of the crops; created if missing
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// Size of the crops. 96x112 is the input of SphereFace and the middle part of 112x112
    #[arg(long, value_enum, default_value = "96x112")]
    size: Size,
    /// Format of the crops: png (lossless) or jpg (quality 92)
    #[arg(long, value_enum, default_value = "png")]
    format: Format,
    #[command(flatten)]
    detection: DetectionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    #[value(name = "96x112")]
    SphereFace,
    #[value(name = "112x112")]
    Square,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Png,
    Jpg,
}

impl AlignArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let size = match self.size {
            Size::SphereFace => CropSize::SphereFace,
            Size::Square => CropSize::Square,
        };
        let format = match self.format {
            Format::Png => CropFormat::Png,
            Format::Jpg => CropFormat::Jpg,
        };
        let settings = Settings::new(size, format, &self.detection.config()?);
        let detector = self.detection.detector(&self.device.open_and_tell()?)?;
        let source = Source::read(&self.source)?;
        source.keep_apart_from(&self.destination).map_err(|error| UsageError(error.to_string()))?;
        let stop = stop_on_signals()?;
        let bar = ProgressBar::new(source.len() as u64);
        if let Ok(style) =
            indicatif::ProgressStyle::with_template("aligning {wide_bar} {pos}/{len} {per_sec} {eta} left")
        {
            bar.set_style(style);
        }
        let done = prepare::prepare(
            &source,
            &self.destination,
            &detector,
            &settings,
            self.threads.count(),
            &stop,
            &|| bar.inc(1),
        );
        bar.finish_and_clear();
        let report = done.map_err(|error| match error {
            PrepareError::Settings { .. } => UsageError(error.to_string()).into(),
            other => anyhow::Error::from(other),
        })?;
        if self.json {
            outln!("{}", serde_json::to_string(&report)?);
        } else {
            out!("{report}");
        }
        if report.not_done > 0 {
            bail!("stopped with {} images left: run the same command again to continue", report.not_done);
        }
        if report.crops() == 0 {
            bail!(
                "no face was found in {}: check that it holds photos of faces, or try a smaller --min-face",
                self.source.display()
            );
        }
        Ok(())
    }
}

/// A flag set by Ctrl-C and SIGTERM; the second signal kills the process.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;
    use crate::cli::options::Scores;
    use sphereface::prepare::AUTHORS_DETECTION;

    #[test]
    fn detection_is_the_authors_by_default() {
        let command = AlignArgs::augment_args(clap::Command::new("align"));
        let matches = command.get_matches_from(["align", "SRC", "DST"]);
        let args = AlignArgs::from_arg_matches(&matches).unwrap();
        assert_eq!(args.detection.config().unwrap(), AUTHORS_DETECTION);
        assert_eq!(args.detection.scores, Scores(AUTHORS_DETECTION.thresholds));
    }
}
