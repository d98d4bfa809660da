//! `sphereface bench cameras`: measures a service with many sources.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;

use crate::cli::UsageError;
use crate::cli::options::{self, DeviceArgs, ModelArgs, PrecisionArgs, ThreadArgs};
use sphereface::bench::CamerasBench;
use sphereface::serve::{Service, ServiceOptions};

/// Measure a service with many sources
///
/// The sources show the inputs in turns. The delay is the time from the arrival of a frame to the end of its
/// events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface bench cameras --gallery family\n  \
    sphereface bench cameras --sources 4 --fps 10 --seconds 60 --json\n  \
    sphereface bench cameras --input rtsp://192.168.1.20/stream2 --sources 16")]
pub struct CamerasArgs {
    /// Sources, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sources: u16,
    /// Frames analysed per second and source, 0.1 to 60
    #[arg(long, value_name = "RATE", default_value_t = 5.0)]
    fps: f64,
    /// Inputs of the sources, in turns: a file, which is repeated, or an input as for `sphereface serve`
    #[arg(long, value_name = "INPUT", default_value = "samples/sample.mp4")]
    input: Vec<String>,
    /// Folder of the people to name
    #[arg(long, value_name = "DIR", default_value = "gallery")]
    gallery: PathBuf,
    /// Seconds to measure, 5 to 86400
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=86400))]
    seconds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

impl CamerasArgs {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        let bench = CamerasBench {
            inputs: self.input,
            sources: usize::from(self.sources),
            fps: self.fps,
            gallery: self.gallery,
            time: Duration::from_secs(self.seconds.into()),
        };
        Service::prepare_memory();
        let mut service = ServiceOptions::new(options::isa()?);
        service.device = self.device.device;
        service.model.clone_from(&self.model.model);
        service.precision = self.precision.precision;
        service.threads = Some(self.threads.count());
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(Duration::from_millis(250));
        let report = bench.run(&service, &|doing| bar.set_message(doing.to_owned()));
        bar.finish_and_clear();
        let report = report.map_err(|error| match error {
            sphereface::bench::BenchError::Serve(sphereface::serve::ServeError::Config(error)) => {
                UsageError(error.to_string()).into()
            }
            other => anyhow::Error::from(other),
        })?;
        if self.json {
            outln!("{}", serde_json::to_string(&report)?);
            return Ok(());
        }
        outln!("{} of {} sources run", report.running, report.sources);
        outln!(
            "{:.1} frames/s in all, the slowest source {:.2}; {:.1} % left out",
            report.frames_per_s,
            report.slowest_per_s,
            100.0 * report.left_out
        );
        outln!(
            "delay: median {:.0} ms; of the slowest source {:.0} ms, and 95 % below {:.0} ms",
            report.delay_ms,
            report.slowest_delay_ms,
            report.slowest_delay_95_ms
        );
        if let (Some(mib), Some(each)) = (report.mib, report.mib_per_source) {
            outln!("memory: {mib:.0} MiB, {each:.1} MiB per source");
        }
        for (name, sources) in &report.named {
            outln!("{name} was named by {sources} sources");
        }
        Ok(())
    }
}
