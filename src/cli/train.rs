//! `sphereface train`: trains a network on aligned crops.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::UsageError;
use super::options::{self, DeviceArgs};
use sphereface::train::checkpoint::Checkpoint;
use sphereface::train::config::{Flags, Layers, PRESETS};
use sphereface::train::trainer::{CURVES_NAME, METRICS_NAME};
use sphereface::train::{Config, Dataset, Event, TrainError, Trainer};

/// Train a model
///
/// DATASET is a folder with one folder of aligned crops per identity (as written by `sphereface
/// align`; of 112x112 crops, the middle 96x112 is used), a list of lines 'path label', or a RecordIO
/// pair (train.rec and train.idx, or their folder).
///
/// Settings come from a preset, which a TOML file (--config) overrides, which flags override.
/// --print-config prints the result. The output folder gets the weights (model.safetensors), a
/// checkpoint, metrics (metrics.jsonl) and their curves (curves.svg).
///
/// Ctrl-C or SIGTERM writes a checkpoint and stops. --resume continues the run with the same result
/// as without the interruption. On another --device the last digits may differ.
///
/// On CPUs with AMX, the products of the convolutions are in bf16, unless --precision f32 is given. A
/// run that was stopped may be continued in the other format.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface train casia-112x96 --output run1\n  \
    sphereface train casia-112x96 --output run1 --resume\n  \
    sphereface train casia-112x96 --output run1 --device cuda\n  \
    sphereface train faces --preset distill-small --teacher faces/teacher.npy --output small\n  \
    sphereface train faces --loss sphereface-r-v2 --margin 1.4 --depth 10 --small-classes drop --output run2")]
pub struct TrainArgs {
    /// Data set
    #[arg(value_name = "DATASET", required_unless_present = "print_config")]
    dataset: Option<PathBuf>,
    /// Output folder
    #[arg(long, short, value_name = "DIR", default_value = "training")]
    output: PathBuf,
    /// Continue from the checkpoint in the output folder, with its settings unless others are given
    #[arg(long)]
    resume: bool,
    /// Preset to start from: sphereface20-casia (the authors' recipe), distill-small
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// TOML file with settings that override the preset
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Print the settings as TOML and exit
    #[arg(long)]
    print_config: bool,
    /// Print no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    flags: Flags,
}

/// The error with its exit code.
pub(super) fn told(error: TrainError) -> anyhow::Error {
    if error.is_usage() { UsageError(error.to_string()).into() } else { error.into() }
}

impl TrainArgs {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let checkpoint = match self.resume {
            true => Some(Checkpoint::load(&self.output).map_err(told)?),
            false => None,
        };
        let config = self.config(checkpoint.as_ref()).map_err(told)?;
        let Some(path) = self.dataset.as_ref().filter(|_| !self.print_config) else {
            out!("{}", config.to_toml());
            return Ok(());
        };
        let device = self.device.open()?;
        let dataset = Dataset::open(path, &config.data, config.run.seed).map_err(told)?;
        let iterations = config.schedule.iterations;
        let of_run = device.clone();
        let trainer = Trainer::new(config, dataset, &self.output, checkpoint, of_run).map_err(told)?;
        if !self.quiet {
            options::tell_of_training(&device, trainer.arithmetic());
        }
        let stop = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let progress = Progress::new(self.quiet, iterations);
        let result = trainer.run(&stop, &mut |event| progress.show(event));
        progress.bar.finish_and_clear();
        let outcome = result.map_err(told)?;
        let folder = self.output.display();
        if let Some(line) = &outcome.last {
            outln!(
                "iteration {}, loss {:.4}, {:.1} images/s",
                outcome.iteration,
                line.loss,
                line.images_per_s
            );
        }
        if let Some(validated) = &outcome.validated {
            let accuracy = 100.0 * validated.validation_accuracy;
            outln!("{accuracy:.2} % of {} pairs right at iteration {}", validated.pairs, validated.iteration);
        }
        outln!(
            "weights: {}; curves: {folder}/{CURVES_NAME}; metrics: {folder}/{METRICS_NAME}",
            outcome.model.display()
        );
        if !outcome.finished {
            outln!("stopped after {} of {iterations} iterations: continue with --resume", outcome.iteration);
        }
        Ok(())
    }

    /// Preset, file and flags. A resumed run starts from its own settings instead of the default preset.
    fn config(&self, checkpoint: Option<&Checkpoint>) -> Result<Config, TrainError> {
        let mut layers = match (&self.preset, checkpoint) {
            (Some(name), _) => Layers::preset(name)?,
            (None, Some(checkpoint)) if self.config.is_none() => Layers::default()
                .over(&checkpoint.config.to_toml(), &checkpoint.path.display().to_string())?,
            (None, _) => Layers::preset(PRESETS[0].0)?,
        };
        if let Some(path) = &self.config {
            layers = layers.over_file(path)?;
        }
        layers.finish(&self.flags)
    }
}

/// The progress bar.
struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    fn new(quiet: bool, iterations: u64) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let bar = if visible { ProgressBar::new(iterations) } else { ProgressBar::hidden() };
        let template = "{bar:20} {pos}/{len} {msg} {left} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let left = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                let seconds = state.eta().as_secs();
                let _ = write!(to, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            };
            bar.set_style(style.with_key("left", left));
        }
        Self { bar, quiet }
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| errln!("{text}"));
        }
    }

    fn show(&self, event: Event<'_>) {
        match event {
            Event::Started { done, dataset } => {
                let (images, people) = (dataset.items.len(), dataset.classes.len());
                let mut text = format!("{images} images of {people} identities");
                for (count, what) in [
                    (dataset.excluded, "excluded"),
                    (dataset.dropped, "dropped for too few images"),
                    (dataset.held_out.len(), "held out"),
                ] {
                    if count > 0 {
                        text += &format!(", {count} {what}");
                    }
                }
                self.say(&text);
                if done > 0 {
                    self.say(&format!("continuing after iteration {done}"));
                }
                self.bar.set_position(done);
                self.bar.reset_eta();
                self.bar.enable_steady_tick(Duration::from_millis(500));
            }
            Event::Iteration(line) => {
                let mut text = format!("{:.1} images/s, loss {:.3}", line.images_per_s, line.loss);
                if line.angle_deg > 0.0 {
                    text += &format!(", {:.1} deg", line.angle_deg);
                }
                if line.lambda > 0.0 {
                    text += &format!(", lambda {:.1}", line.lambda);
                }
                self.bar.set_message(format!("{text}, rate {:.2e}", line.rate));
                self.bar.set_position(line.iteration);
            }
            Event::Validated(validated) => self.say(&format!(
                "iteration {}: {:.2} % of {} pairs right",
                validated.iteration,
                100.0 * validated.validation_accuracy,
                validated.pairs
            )),
            Event::Saved => {}
        }
    }
}
