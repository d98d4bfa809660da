//! `sphereface models get`: downloads a published network from its publisher and imports it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::UsageError;
use sphereface::download::{Download, DownloadError, Patience, Step};
use sphereface::file;
use sphereface::models::{Precision, Published, Weights, WeightsError, import};

/// Download a published network from its publisher and import it
///
/// The network is not part of this program. It is downloaded from a fixed commit of the publisher's
/// repository, and its SHA-256 is checked. Its licence is printed before the download and stored with the
/// model. An interrupted download continues where it stopped when the command is repeated. The proxy in
/// HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is used.
///
/// Networks:
///   mbf  the MobileFaceNet that Espressif Systems publishes with esp-dl: 3.4 million parameters.
///        Its threshold and its calibration by pose were measured for this program and come with it
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  sphereface models get mbf
  sphereface label party.mp4 -o named.mp4 --gallery gallery --model mbf.safetensors
  sphereface models get mbf --from http://mirror.local/human_face_feat_mbf_s8_v1.espdl"
)]
pub struct Get {
    /// Name of the network
    #[arg(value_name = "NAME", value_parser = parse_name)]
    model: Published,
    /// Safetensors file to write [default: NAME.safetensors in the current folder]
    #[arg(value_name = "DST")]
    destination: Option<PathBuf>,
    /// Another address of the same file, http:// or https://; its content is checked too
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Seconds without a byte after which the connection counts as broken, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Retries after an attempt that brought nothing, 0 to 100
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=100))]
    retries: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_name(name: &str) -> Result<Published, String> {
    let names = Published::ALL.map(|model| model.name).join(", ");
    Published::named(name).ok_or_else(|| format!("no network of that name is known: those are {names}"))
}

impl Get {
    /// Runs the command.
    ///
    /// # Errors
    /// When the file cannot be downloaded, has other content, or the model cannot be written.
    pub fn run(self) -> Result<()> {
        let model = self.model;
        let destination =
            self.destination.clone().unwrap_or_else(|| PathBuf::from(format!("{}.safetensors", model.name)));
        let is_there = Weights::load(&destination).is_ok_and(|weights| weights.id() == model.id);
        if !is_there {
            self.tell_terms();
            self.take(&destination)?;
        }
        let name = destination.display().to_string();
        let description = super::describe(&name, &Weights::load(&destination)?)?;
        if self.json {
            outln!("{description:#}");
            return Ok(());
        }
        let state = if is_there { "is there already" } else { "imported" };
        outln!("{name}: {} {state}, identifier {}", model.name, super::text(&description, "id"));
        outln!("licence: {}", super::text(&description, "licence"));
        outln!("threshold: {}", super::calibration(&description["calibration"]));
        outln!("pose: {}", super::views(&description["views"]));
        outln!("Use it with '--model {name}'; galleries keep their stills and need no change");
        Ok(())
    }

    /// Prints the network to be downloaded, and its terms.
    fn tell_terms(&self) {
        let Published { name, title, publisher, licence, copyright, licence_address, caveat, .. } =
            self.model;
        errln!("{name}: {title}, published by {publisher}");
        errln!("licence: {licence}: {licence_address}");
        errln!("  {copyright}");
        errln!("  {caveat}");
    }

    /// Downloads and imports the network.
    fn take(&self, destination: &Path) -> Result<()> {
        file::check(destination)
            .map_err(|source| WeightsError::Write { path: destination.display().to_string(), source })?;
        let model = self.model;
        let address = self.from.as_deref().unwrap_or(model.address);
        let mut partial = destination.as_os_str().to_owned();
        partial.push(".download");
        let partial = PathBuf::from(partial);
        let patience = Patience {
            silence: Duration::from_secs(self.patience),
            retries: self.retries,
            ..Patience::default()
        };
        let download = Download { address, len: model.len, sha256: model.sha256, patience };
        let bar = bar(model.len);
        errln!("from {address}");
        let taken = download.to(&partial, &mut |step| match step {
            Step::From(0) => bar.set_position(0),
            Step::From(byte) => {
                bar.set_position(byte);
                bar.suspend(|| errln!("continued after {byte} of {} bytes", model.len));
            }
            Step::Arrived(bytes) => bar.set_position(bytes),
            Step::Again(reason) => bar.suspend(|| errln!("trying again: {reason}")),
        });
        bar.finish_and_clear();
        taken.map_err(|error| advised(error, self.from.is_some()))?;
        errln!("{} bytes, SHA-256 as expected", model.len);
        let imported =
            import(std::slice::from_ref(&partial)).map_err(anyhow::Error::from).and_then(|mut weights| {
                weights.metadata.extend(model.terms());
                Ok(weights.save(destination, Precision::F32)?)
            });
        // The download is complete and no longer needed: only the model is kept.
        std::fs::remove_file(&partial).with_context(|| format!("{} cannot be removed", partial.display()))?;
        imported
    }
}

/// Advice on the error.
fn advised(error: DownloadError, chosen: bool) -> anyhow::Error {
    let advice = match &error {
        DownloadError::Address { .. } if chosen => return UsageError(format!("--from: {error}")).into(),
        DownloadError::Refused { .. } | DownloadError::Content { .. } | DownloadError::TooLong { .. } => {
            "give another address of the file with --from, or import a copy of it with 'sphereface models import FILE.espdl DST'"
        }
        DownloadError::Broken { .. } => {
            "repeat the command, give another address with --from, or import a copy of the file with 'sphereface models import FILE.espdl DST'"
        }
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}: {advice}")
}

/// Progress in bytes, shown if standard error is a terminal.
fn bar(len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len);
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// The networks that `models get` can download, for the list of models.
pub fn known() -> Vec<serde_json::Value> {
    let known = Published::ALL.iter().map(|model| {
        json!({
            "model": model.name,
            "id": model.id.to_string(),
            "title": model.title,
            "publisher": model.publisher,
            "address": model.address,
            "licence": model.licence,
            "get": format!("sphereface models get {}", model.name),
        })
    });
    known.collect()
}
