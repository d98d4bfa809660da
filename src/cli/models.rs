//! `sphereface models`: lists, describes, downloads, imports and exports models.

mod get;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{UsageError, outputs};
use sphereface::file;
use sphereface::models::{
    BuiltIn, Network, Normalisation, PictureOptions, Precision, Published, Weights, import_as, to_onnx,
};

/// List, describe, get, import and export models
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sphereface models list
  sphereface models show mine.safetensors
  sphereface models get mbf
  sphereface models import sphereface_model.caffemodel mine.safetensors
  sphereface models import pnet.pt rnet.pt onet.pt mtcnn.safetensors
  sphereface models import arcface.onnx arcface.safetensors --licence MIT
  sphereface models import adaface.onnx adaface.safetensors --channel-order bgr --output feature
  sphereface models export sphereface --onnx sphereface.onnx")]
pub struct Models {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the built-in models, and those that `models get` downloads from their publishers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Describe a model: architecture, origin, licence and accuracy
    Show {
        /// Name of a built-in model, or a safetensors file
        #[arg(value_name = "NAME|FILE", default_value = "sphereface")]
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Get(get::Get),
    /// Convert Caffe models, PyTorch checkpoints, ONNX models and ESP-DL files to a safetensors file
    Import(Import),
    /// Export a model for other programs
    Export(Export),
}

#[derive(Debug, Args)]
struct Import {
    /// One file of SphereFace weights, or the three files of MTCNN (.caffemodel, .pt, .pth or
    /// .safetensors), or one embedding network of another kind, such as ArcFace, AdaFace, MobileFaceNet
    /// or SFace (.onnx or .espdl)
    #[arg(value_name = "SRC", required = true)]
    sources: Vec<PathBuf>,
    /// Safetensors file to write
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// Expected network, for example sphereface20 or mtcnn [default: derived from the tensors]
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Order of the colour channels in the network's input [default: bgr for Caffe models of
    /// SphereFace, rgb otherwise]
    #[arg(long, value_enum)]
    channel_order: Option<ChannelOrder>,
    /// Normalisation of pixel values from 0 to 255 before an ONNX network: (value - MEAN) / DEVIATION
    /// [default: none if the network begins with one, else 127.5,127.5]
    #[arg(long, value_name = "MEAN,DEVIATION", value_parser = parse_normalisation)]
    normalise: Option<Normalisation>,
    /// Output of an ONNX network to use as the embedding [default: the only one]
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Terms of the model, a name or a sentence; stored with it and printed by `models show`
    #[arg(long, visible_alias = "license", value_name = "TEXT")]
    licence: Option<String>,
    /// Number format of the stored weights
    #[arg(long, value_enum, default_value = "f32")]
    precision: Values,
    /// Metadata to store, for example 'licence=MIT' or 'training_data=...'. May be repeated
    #[arg(long = "set", value_name = "KEY=TEXT")]
    settings: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Values {
    /// 32-bit floats
    F32,
    /// 16-bit floats: half the size, rounded
    F16,
}

impl From<Values> for Precision {
    fn from(values: Values) -> Self {
        match values {
            Values::F32 => Precision::F32,
            Values::F16 => Precision::F16,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChannelOrder {
    Rgb,
    Bgr,
}

#[derive(Debug, Args)]
#[group(skip)]
struct Export {
    /// Name of a built-in model, or a safetensors file
    #[arg(value_name = "NAME|FILE")]
    model: String,
    /// ONNX file to write. Its input is aligned crops, 112 pixels high and 96 wide (112 for imported
    /// networks that take squares), with values from 0 to 255; its output is unit vectors
    #[arg(long, value_name = "FILE", required_unless_present = "safetensors")]
    onnx: Option<PathBuf>,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Number format of the weights in the safetensors file
    #[arg(long, value_enum, default_value = "f32", requires = "safetensors")]
    precision: Values,
}

/// Metadata keys that follow from the tensors and cannot be set by hand.
const DERIVED: [&str; 8] = [
    "format",
    "architecture",
    "channels",
    "embedding_size",
    "input",
    "plan",
    "normalisation",
    "imported_channel_order",
];

/// Reads the two numbers of a [`Normalisation`].
fn parse_normalisation(text: &str) -> Result<Normalisation, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    let pair = text.split_once(',').and_then(|(mean, deviation)| Some((number(mean)?, number(deviation)?)));
    match pair {
        Some((mean, deviation)) if deviation > 0.0 => Ok(Normalisation { mean, deviation }),
        _ => Err("write two numbers, MEAN,DEVIATION, the second above 0, for example 127.5,128".to_owned()),
    }
}

impl Models {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be read, used or written.
    pub fn run(self) -> Result<()> {
        match self.command {
            ModelsCommand::List { json } => list(json),
            ModelsCommand::Show { model, json } => show(&model, json),
            ModelsCommand::Get(options) => options.run(),
            ModelsCommand::Import(options) => options.run(),
            ModelsCommand::Export(options) => options.run(),
        }
    }
}

fn list(json: bool) -> Result<()> {
    let mut models = Vec::new();
    for model in BuiltIn::ALL {
        let description = describe(model.name, &model.weights()?)?;
        if !json {
            outln!(
                "{:<12} {:<14} {:>10} parameters  {}",
                model.name,
                text(&description, "architecture"),
                description["parameters"],
                text(&description, "id"),
            );
        }
        models.push(description);
    }
    if json {
        models.extend(get::known());
        outln!("{:#}", Value::from(models));
        return Ok(());
    }
    for model in Published::ALL {
        outln!("{:<12} not part of the program: sphereface models get {}", model.name, model.name);
    }
    Ok(())
}

fn show(model: &str, json: bool) -> Result<()> {
    let description = describe(model, &Weights::resolve(model)?)?;
    if json {
        outln!("{description:#}");
        return Ok(());
    }
    let lines = [
        ("model", text(&description, "model")),
        ("architecture", text(&description, "architecture")),
        ("layers", text(&description, "layers")),
        ("embedding", text(&description, "embedding_size")),
        ("input", picture(&description)),
        ("parameters", description["parameters"].to_string()),
        ("identifier", text(&description, "id")),
        ("training data", text(&description, "training_data")),
        ("training", text(&description, "training")),
        ("licence", text(&description, "licence")),
        ("LFW", lfw(&description["lfw"])),
        ("calibration", calibration(&description["calibration"])),
        ("views", views(&description["views"])),
        ("int8", int8(&description["int8"])),
    ];
    for (name, value) in lines {
        let value = value.trim();
        outln!("{name:<14} {}", if value.is_empty() { "not stated" } else { value });
    }
    Ok(())
}

/// The input of the network.
fn picture(description: &Value) -> String {
    let size = format!("{} {}", text(description, "input"), text(description, "channel_order"));
    let normalisation = text(description, "normalisation");
    if normalisation.is_empty() { size } else { format!("{}, {normalisation}", size.trim()) }
}

fn text(description: &Value, key: &str) -> String {
    description[key].as_str().unwrap_or_default().to_owned()
}

fn lfw(figure: &Value) -> String {
    let Some(accuracy) = figure["accuracy"].as_f64() else { return String::new() };
    // Some models store a share, some a percentage.
    let percent = if accuracy <= 1. { 100. * accuracy } else { accuracy };
    format!("{percent:.2} % ({})", figure["set"].as_str().unwrap_or("set not stated"))
}

fn calibration(table: &Value) -> String {
    let points = table["points"].as_array().map(Vec::as_slice).unwrap_or_default();
    let point =
        |point: &Value| Some(format!("{:.1} deg at FMR {}", point["angle_deg"].as_f64()?, point["fmr"]));
    let points: Vec<_> = points.iter().filter_map(point).collect();
    if points.is_empty() {
        return String::new();
    }
    format!(
        "{} ({} impostor pairs of {})",
        points.join(", "),
        table["impostor_pairs"],
        table["set"].as_str().unwrap_or("a set not stated")
    )
}

fn views(table: &Value) -> String {
    let Some(people) = table["people"].as_u64() else { return String::new() };
    let set = table["set"].as_str().unwrap_or("a set not stated");
    format!("impostor scores by pose, measured on {people} people of {set}")
}

fn int8(table: &Value) -> String {
    let Some(scales) = table["scales"].as_object() else { return String::new() };
    let faces =
        table["faces"].as_u64().map(|faces| format!(", measured on {faces} faces")).unwrap_or_default();
    format!("scales of the inputs of {} layers{faces}", scales.len())
}

/// Everything known about a model. Metadata that is JSON itself is parsed.
fn describe(model: &str, weights: &Weights) -> Result<Value> {
    let id = weights.id();
    let mut metadata = weights.metadata.clone();
    Published::add_measured(id, &mut metadata);
    let network = Network::from_metadata(&weights.metadata).with_context(|| model.to_owned())?;
    weights.expect(&network.tensors()).with_context(|| model.to_owned())?;
    let mut description = json!({
        "model": model,
        "id": id.to_string(),
        "parameters": weights.parameters(),
        "tensors": weights.tensors.len(),
        "layers": match &network {
            Network::SphereFace(_) => weights.metadata.get("channels").map(|channels| format!("channels {channels}")),
            Network::Imported(plan) => Some(plan.to_string()),
            Network::Mtcnn => None,
        },
    });
    for (key, value) in &metadata {
        description[key] = match key.as_str() {
            "lfw" | "calibration" | "views" | "int8" | "plan" => {
                serde_json::from_str(value).unwrap_or_else(|_| value.clone().into())
            }
            _ => value.clone().into(),
        };
    }
    Ok(description)
}

impl Import {
    fn run(self) -> Result<()> {
        let mut settings = Vec::new();
        for setting in &self.settings {
            let Some((key, value)) = setting.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                bail!(UsageError(format!("--set {setting} is not of the form KEY=TEXT")));
            };
            if DERIVED.contains(&key) || key == "channel_order" {
                bail!(UsageError(format!(
                    "--set {key}=...: this key is derived from the weights{}",
                    if key == "channel_order" { ", or use --channel-order" } else { "" }
                )));
            }
            if matches!(key, "lfw" | "calibration" | "views" | "int8")
                && let Err(error) = serde_json::from_str::<Value>(value)
            {
                bail!(UsageError(format!("--set {key}=...: the value must be JSON ({error})")));
            }
            settings.push((key.to_owned(), value.to_owned()));
        }
        if let Some(licence) = self.licence {
            settings.push(("licence".to_owned(), licence));
        }
        let pictures = PictureOptions {
            bgr: matches!(self.channel_order, Some(ChannelOrder::Bgr)),
            normalisation: self.normalise,
            output: self.output,
        };
        let destination = [("DST", self.destination.as_path())];
        outputs::refuse_inputs(&destination, self.sources.iter().map(PathBuf::as_path))?;
        let mut weights = import_as(&self.sources, &pictures)?;
        let network = Network::from_metadata(&weights.metadata)?;
        if let Some(wanted) = &self.arch
            && *wanted != network.name()
        {
            let names: Vec<_> = self.sources.iter().map(|path| path.display().to_string()).collect();
            bail!("{}: these are weights of {}, not of {wanted}", names.join(", "), network.name());
        }
        let imported = matches!(network, Network::Imported(_));
        if !imported && (pictures.normalisation.is_some() || pictures.output.is_some()) {
            bail!(UsageError(
                "--normalise and --output apply to ONNX models and ESP-DL files only".to_owned()
            ));
        }
        // The weights of an imported network were converted to one order.
        if let Some(order) = self.channel_order.filter(|_| !imported) {
            let order = match order {
                ChannelOrder::Rgb => "RGB",
                ChannelOrder::Bgr => "BGR",
            };
            weights.metadata.insert("channel_order".into(), order.into());
        }
        weights.metadata.extend(settings);
        weights.save(&self.destination, self.precision.into())?;

        // Describes the file as written, because f16 rounds.
        let destination = self.destination.display().to_string();
        let description = describe(&destination, &Weights::load(&self.destination)?)?;
        if self.json {
            outln!("{description:#}");
        } else {
            outln!(
                "{destination}: {}, {} parameters, channel order {}, identifier {}",
                network.name(),
                description["parameters"],
                text(&description, "channel_order"),
                text(&description, "id"),
            );
            if imported {
                outln!("layers: {}", text(&description, "layers"));
                outln!("input: {}", picture(&description));
                match calibration(&description["calibration"]) {
                    none if none.is_empty() => outln!(
                        "It has no threshold yet: measure one with 'sphereface eval calibrate CROPS --model {destination} --record'"
                    ),
                    points => outln!("threshold: {points}"),
                }
            }
        }
        Ok(())
    }
}

impl Export {
    fn run(self) -> Result<()> {
        let files = [("--onnx", &self.onnx), ("--safetensors", &self.safetensors)];
        let files: Vec<(&str, &Path)> =
            files.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))).collect();
        outputs::refuse_inputs(&files, [Path::new(&self.model)])?;
        outputs::refuse_shared(&files)?;
        let weights = Weights::resolve(&self.model)?;
        describe(&self.model, &weights)?;
        if let Some(path) = &self.onnx {
            let bytes = to_onnx(&weights).map_err(|error| error.in_file(&self.model))?;
            file::write(path, &bytes).with_context(|| format!("{} cannot be written", path.display()))?;
            let size = weights.metadata.get("input").map_or("112x96", String::as_str).replace('x', ", ");
            outln!(
                "{}: ONNX, input 'crops' [n, 3, {size}] {} 0 to 255, output 'embedding'",
                path.display(),
                weights.metadata.get("channel_order").map_or("RGB", String::as_str)
            );
        }
        if let Some(path) = &self.safetensors {
            let precision = self.precision.into();
            weights.save(path, precision)?;
            outln!("{}: safetensors, {precision}", path.display());
        }
        Ok(())
    }
}
