//! The settings of a run: a preset, a TOML file over it, flags over both.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::loss::{Gradient, Loss, Version};
use super::schedule::{Lambda, Schedule, ScheduleKind};
use crate::embed::{Architecture, ChannelOrder};

/// One section: the settings with their defaults, and the flags that replace them, from one list.
macro_rules! section {
    (
        $(#[$about:meta])* $config:ident, $flags:ident, $heading:literal;
        $( $(#[$help:meta])* $name:ident: $kind:ty = $default:expr, [$($arg:tt)*]; )*
        @optional
        $( $(#[$optional_help:meta])* $optional:ident: $optional_kind:ty, [$($optional_arg:tt)*]; )*
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $config {
            $( $(#[$help])* pub $name: $kind, )*
            $( $(#[$optional_help])* #[serde(skip_serializing_if = "Option::is_none")] pub $optional: Option<$optional_kind>, )*
        }

        impl Default for $config {
            fn default() -> Self {
                Self { $( $name: $default, )* $( $optional: None, )* }
            }
        }

        /// Flags that replace settings of the section.
        #[derive(Debug, Clone, Default, Serialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = $heading))]
        pub struct $flags {
            $( $(#[$help])* #[cfg_attr(feature = "cli", arg($($arg)*))] #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$kind>, )*
            $( $(#[$optional_help])* #[cfg_attr(feature = "cli", arg($($optional_arg)*))] #[serde(skip_serializing_if = "Option::is_none")] pub $optional: Option<$optional_kind>, )*
        }
    };
}

section! {
    /// The network and its initial weights.
    NetworkConfig, NetworkFlags, "Network";
    /// Depth: 4, 10, 20, 36, 62 or 64
    depth: usize = 20, [long, value_name = "N"];
    /// Channels of the four stages, for example 32,64,128,256
    channels: Vec<usize> = vec![64, 128, 256, 512], [long, value_name = "N,N,N,N", value_delimiter = ','];
    /// Size of the embedding
    embedding: usize = 512, [long, value_name = "N"];
    /// Order of the colour channels: BGR, as the authors use, or RGB
    channel_order: String = "BGR".into(), [long, value_name = "ORDER"];
    /// Also train the biases of the residual convolutions, which the authors leave at 0
    residual_biases: bool = false, [long, value_name = "BOOL"];
    @optional
    /// Weights of the same network to start from, instead of random ones. The order of the samples then
    /// differs from that of the run that made the weights, whatever the seed
    init: PathBuf, [long, value_name = "FILE"];
}

section! {
    /// The loss to minimise.
    LossConfig, LossFlags, "Loss";
    /// Loss over the classes
    kind: LossKind = LossKind::ASoftmax, [id = "loss", long = "loss", value_name = "LOSS"];
    /// Weight of the loss over the classes; 0 trains on the teacher alone
    weight: f64 = 1.0, [id = "loss_weight", long = "loss-weight", value_name = "FACTOR"];
    /// Gradient of A-Softmax: as the authors implement it, or the exact derivative
    gradient: Gradient = Gradient::Authors, [long, value_name = "WHICH"];
    /// lambda = max(lambda-min, lambda-base (1 + lambda-gamma t)^-lambda-power), t from 1
    lambda_base: f64 = 1000.0, [long, value_name = "X"];
    /// See --lambda-base
    lambda_gamma: f64 = 0.12, [long, value_name = "X"];
    /// See --lambda-base
    lambda_power: f64 = 1.0, [long, value_name = "X"];
    /// Minimum lambda. The weight of A-Softmax against plain softmax is 1 / (1 + lambda)
    lambda_min: f64 = 5.0, [long, value_name = "X"];
    /// SphereFace-R: scale all features to the same length (hard feature normalisation)
    normalise_features: bool = true, [long, value_name = "BOOL"];
    /// SphereFace-R: use the gradient of the cosine without margin (characteristic gradient detachment)
    detach: bool = true, [long, value_name = "BOOL"];
    /// SphereFace2: weight of the positive class, between 0 and 1
    alpha: f64 = 0.7, [long, value_name = "X"];
    /// SphereFace2: exponent of the similarity
    exponent: f64 = 3.0, [long, value_name = "X"];
    @optional
    /// Margin [default: a-softmax 4, sphereface-r 1.5, sphereface2 0.4, cosface 0.35, arcface 0.5 radians]
    margin: f64, [long, value_name = "M"];
    /// Scale of the logits [default: 30; sphereface2 40, cosface and arcface 64]
    scale: f64, [long, value_name = "S"];
}

section! {
    /// A teacher's embeddings as an additional target.
    TeacherConfig, TeacherFlags, "Teacher";
    /// Weight of the loss 1 - cos between the embedding and the teacher's. If their sizes differ, the
    /// embedding first goes through a learned projection
    weight: f64 = 1.0, [id = "teacher_weight", long = "teacher-weight", value_name = "FACTOR"];
    @optional
    /// The teacher's embeddings: a NumPy array with one row per image of the data set, in order
    embeddings: PathBuf, [id = "teacher", long = "teacher", value_name = "FILE.npy"];
}

section! {
    /// The optimiser.
    OptimiserConfig, OptimiserFlags, "Optimiser";
    /// Optimiser
    kind: OptimiserKind = OptimiserKind::Sgd, [id = "optimiser", long = "optimiser", value_name = "RULE"];
    /// Peak learning rate
    rate: f64 = 0.1, [long, value_name = "RATE"];
    /// Momentum of sgd, or decay rate of adamw's first moment (beta1)
    momentum: f64 = 0.9, [long, value_name = "X"];
    /// Decay rate of adamw's second moment (beta2)
    second_momentum: f64 = 0.999, [long, value_name = "X"];
    /// Weight decay
    decay: f64 = 5e-4, [long, value_name = "X"];
    /// Maximum norm of the gradient of all parameters together; longer gradients are scaled down. 0 is
    /// no limit
    clip: f64 = 0.0, [long, value_name = "LENGTH"];
    @optional
}

section! {
    /// The number of iterations and the learning rate schedule.
    ScheduleConfig, ScheduleFlags, "Schedule";
    /// Learning rate schedule: steps, or half a cosine down to 0
    kind: ScheduleKind = ScheduleKind::Steps, [id = "schedule", long = "schedule", value_name = "FORM"];
    /// Total number of iterations (batches)
    iterations: u64 = 28_000, [long, value_name = "N"];
    /// Iterations at which the rate is multiplied by --rate-factor
    steps: Vec<u64> = vec![16_000, 24_000], [long, value_name = "N,...", value_delimiter = ','];
    /// Factor applied to the learning rate at each step
    factor: f64 = 0.1, [long = "rate-factor", value_name = "X"];
    /// Warm-up: iterations over which the learning rate rises from 0
    warmup: u64 = 0, [long, value_name = "N"];
    @optional
}

section! {
    /// The data set.
    DataConfig, DataFlags, "Data";
    /// Images per batch
    batch: usize = 512, [long, value_name = "N"];
    /// Files with identities to exclude, one per line, or 'casia-lfw' for those of CASIA-WebFace that are in
    /// LFW
    exclude: Vec<String> = vec!["casia-lfw".into()], [long, value_name = "FILE,...", value_delimiter = ','];
    /// Minimum number of images per identity
    min_images: usize = 2, [long, value_name = "N"];
    /// What to do with identities that have fewer images
    small_classes: SmallClasses = SmallClasses::Refuse, [long, value_name = "WHAT"];
    /// Share of the identities held out for validation, at least 0 and less than 1
    holdout: f64 = 0.0, [long, value_name = "SHARE"];
    /// Skip images that cannot be decoded instead of stopping
    skip_unreadable: bool = false, [long, value_name = "BOOL"];
    /// Threads that decode and augment images ahead of training
    loaders: usize = 1, [long, value_name = "N"];
    @optional
}

section! {
    /// Random augmentation of the images.
    AugmentConfig, AugmentFlags, "Augmentation";
    /// Probability of mirroring the image
    mirror: f64 = 0.5, [long, value_name = "P"];
    /// Maximum horizontal shift, in pixels
    shift_x_px: f64 = 0.0, [long, value_name = "PX"];
    /// Maximum vertical shift, in pixels
    shift_y_px: f64 = 0.0, [long, value_name = "PX"];
    /// Maximum change of scale: 0.1 enlarges or shrinks by up to a tenth
    zoom: f64 = 0.0, [long, value_name = "SHARE"];
    /// Maximum rotation in either direction, in degrees
    rotation_deg: f64 = 0.0, [long, value_name = "DEG"];
    /// Maximum change of contrast: 0.2 is a factor of 0.8 to 1.2
    contrast: f64 = 0.0, [long, value_name = "SHARE"];
    /// Maximum change of brightness, in levels of 255
    brightness: f64 = 0.0, [long, value_name = "LEVELS"];
    /// Maximum change of each colour channel separately: 0.1 is a factor of 0.9 to 1.1
    colour: f64 = 0.0, [long, value_name = "SHARE"];
    /// Probability of blurring by 0.5 to 2 pixels
    blur: f64 = 0.0, [long, value_name = "P"];
    /// Probability of reducing the resolution by a factor of 1.5 to 5
    low_resolution: f64 = 0.0, [long, value_name = "P"];
    /// Probability of converting to grey
    grey: f64 = 0.0, [long, value_name = "P"];
    /// Probability of covering part of the face with a rectangle of one brightness
    erase: f64 = 0.0, [long, value_name = "P"];
    @optional
}

section! {
    /// The run.
    RunConfig, RunFlags, "Run";
    /// Random seed; the same seed gives the same run
    seed: u64 = 1, [long, value_name = "N"];
    /// Compute threads
    threads: usize = 1, [long, value_name = "N"];
    /// Number format of the products of the convolutions; weights and their gradients are always f32
    precision: Precision = Precision::Auto, [long, value_name = "FORMAT"];
    /// Iterations between checkpoints; a killed process loses at most these
    checkpoint_every: u64 = 500, [long, value_name = "N"];
    /// Iterations between lines of metrics
    log_every: u64 = 20, [long, value_name = "N"];
    /// Iterations between validations
    validate_every: u64 = 2000, [long, value_name = "N"];
    /// Iterations after which training stops if the loss is still that of guessing, ln(classes); 0 is
    /// never
    stuck_after: u64 = 5000, [long, value_name = "N"];
    @optional
    /// Pairs to validate on, in the format of LFW [default: pairs of the identities held out]
    pairs: PathBuf, [long, value_name = "PAIRS.txt", requires = "pairs_images"];
    /// Folder of the aligned crops NAME/NAME_0001.jpg of the pairs
    pairs_images: PathBuf, [long, value_name = "FOLDER", requires = "pairs"];
}

/// The losses over classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// A-Softmax: SphereFace's multiplicative angular margin
    ASoftmax,
    /// Plain softmax
    Softmax,
    /// Softmax of scaled cosines
    NormalisedSoftmax,
    /// SphereFace-R with the angle of the target class multiplied
    #[cfg_attr(feature = "cli", value(name = "sphereface-r-v1"))]
    #[serde(rename = "sphereface-r-v1")]
    SphereFaceRV1,
    /// SphereFace-R with the angles of the other classes divided
    #[cfg_attr(feature = "cli", value(name = "sphereface-r-v2"))]
    #[serde(rename = "sphereface-r-v2")]
    SphereFaceRV2,
    /// SphereFace2: one binary classifier per class
    #[cfg_attr(feature = "cli", value(name = "sphereface2"))]
    #[serde(rename = "sphereface2")]
    SphereFace2,
    /// Additive cosine margin
    #[cfg_attr(feature = "cli", value(name = "cosface"))]
    #[serde(rename = "cosface")]
    CosFace,
    /// Additive angular margin
    #[cfg_attr(feature = "cli", value(name = "arcface"))]
    #[serde(rename = "arcface")]
    ArcFace,
}

/// The optimisers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OptimiserKind {
    /// Stochastic gradient descent with momentum, as Caffe does it
    Sgd,
    /// Adam with decoupled weight decay
    #[cfg_attr(feature = "cli", value(name = "adamw"))]
    #[serde(rename = "adamw")]
    AdamW,
}

/// Number formats of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// bf16 on CPUs with AMX, else f32
    Auto,
    /// 24 bits of precision
    F32,
    /// bfloat16, 8 bits of precision; sums are f32. For CPUs with AMX
    Bf16,
}

/// What to do with identities that have too few images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SmallClasses {
    /// Stop with an error
    Refuse,
    /// Exclude them
    Drop,
    /// Train on them
    Keep,
}

/// Every setting of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The network.
    pub network: NetworkConfig,
    /// The loss.
    pub loss: LossConfig,
    /// The teacher.
    pub teacher: TeacherConfig,
    /// The optimiser.
    pub optimiser: OptimiserConfig,
    /// The schedule.
    pub schedule: ScheduleConfig,
    /// The data.
    pub data: DataConfig,
    /// The augmentation.
    pub augment: AugmentConfig,
    /// The run.
    pub run: RunConfig,
}

/// Flags that replace settings.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[allow(missing_docs)]
pub struct Flags {
    #[cfg_attr(feature = "cli", command(flatten))]
    pub network: NetworkFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub loss: LossFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub teacher: TeacherFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub optimiser: OptimiserFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub schedule: ScheduleFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub data: DataFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub augment: AugmentFlags,
    #[cfg_attr(feature = "cli", command(flatten))]
    pub run: RunFlags,
}

/// The presets by name.
pub const PRESETS: [(&str, &str); 2] = [
    ("sphereface20-casia", include_str!("presets/sphereface20-casia.toml")),
    ("distill-small", include_str!("presets/distill-small.toml")),
];

/// Layered settings, from which a [`Config`] is built.
#[derive(Debug, Clone, Default)]
pub struct Layers(toml::Table);

impl Layers {
    /// The settings of a preset.
    ///
    /// # Errors
    /// When there is no preset of that name.
    pub fn preset(name: &str) -> Result<Self, TrainError> {
        let names = || PRESETS.map(|(name, _)| name).join(", ");
        let (_, text) = PRESETS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| TrainError::Preset(name.to_owned(), names()))?;
        Self::default().over(text, &format!("the preset {name}"))
    }

    /// Overrides settings with those of a TOML text; `origin` names it in errors.
    ///
    /// # Errors
    /// When it is not valid TOML, or has an unknown key or a value of the wrong type.
    pub fn over(mut self, text: &str, origin: &str) -> Result<Self, TrainError> {
        let error = |error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let cause = error.message().trim().replace('\n', ", ");
            let cause = line.map_or(cause.clone(), |line| format!("line {line}: {cause}"));
            TrainError::Config { origin: origin.to_owned(), cause }
        };
        // Parsed on its own first, so that errors name the line.
        toml::from_str::<Config>(text).map_err(error)?;
        let table = toml::from_str(text).map_err(error)?;
        lay(&mut self.0, table);
        Ok(self)
    }

    /// Overrides settings with those of a TOML file.
    ///
    /// # Errors
    /// As [`Layers::over`], or when it cannot be read.
    pub fn over_file(self, path: &Path) -> Result<Self, TrainError> {
        let text = crate::file::read_text(path)
            .map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
        self.over(&text, &path.display().to_string())
    }

    /// Overrides settings with flags and validates the result.
    ///
    /// # Errors
    /// When a setting is invalid.
    pub fn finish(mut self, flags: &Flags) -> Result<Config, TrainError> {
        let flags_error = |error: &dyn fmt::Display| TrainError::Config {
            origin: "the set of flags".into(),
            cause: error.to_string().trim().replace('\n', ", "),
        };
        let table = toml::Table::try_from(flags).map_err(|error| flags_error(&error))?;
        lay(&mut self.0, table);
        let config: Config = self.0.try_into().map_err(|error: toml::de::Error| flags_error(&error))?;
        config.validate()?;
        Ok(config)
    }
}

/// Overrides the settings `under` with `over`. Margin and scale have a different meaning for every loss, so
/// choosing another loss discards the previous ones.
fn lay(under: &mut toml::Table, over: toml::Table) {
    let kind = |table: &toml::Table| Some(table.get("loss")?.get("kind")?.as_str()?.to_owned());
    let before = kind(under).or_else(|| kind(&toml::Table::try_from(Config::default()).ok()?));
    if kind(&over).is_some_and(|chosen| Some(chosen) != before)
        && let Some(toml::Value::Table(loss)) = under.get_mut("loss")
    {
        loss.retain(|key, _| !["margin", "scale"].contains(&key));
    }
    merge(under, over);
}

/// Replaces the settings in `over`, table by table.
fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn setting(key: &'static str, value: impl fmt::Display, reason: impl Into<String>) -> TrainError {
    TrainError::Setting { key, value: value.to_string(), reason: reason.into() }
}

/// Refuses a number outside its range.
fn within(key: &'static str, value: f64, (least, most): (f64, f64)) -> Result<(), TrainError> {
    match value.is_finite() && (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(setting(key, value, format!("give a number from {least} to {most}"))),
    }
}

impl Config {
    /// The TOML text of all settings.
    pub fn to_toml(&self) -> String {
        // Plain tables of numbers and text always have a TOML form.
        toml::to_string(self).unwrap_or_default()
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first invalid setting.
    pub fn validate(&self) -> Result<(), TrainError> {
        let Self { network, loss, teacher, optimiser, schedule, data, augment, run } = self;
        self.architecture()?;
        self.channel_order()?;
        self.loss()?;
        for (key, value, range) in [
            ("network.embedding", network.embedding as f64, (1.0, 65536.0)),
            ("loss.weight", loss.weight, (0.0, 1e6)),
            ("loss.lambda_base", loss.lambda_base, (0.0, 1e9)),
            ("loss.lambda_gamma", loss.lambda_gamma, (0.0, 1e9)),
            ("loss.lambda_power", loss.lambda_power, (0.0, 100.0)),
            ("loss.lambda_min", loss.lambda_min, (0.0, 1e9)),
            ("teacher.weight", teacher.weight, (0.0, 1e6)),
            ("optimiser.rate", optimiser.rate, (1e-12, 100.0)),
            ("optimiser.momentum", optimiser.momentum, (0.0, 0.9999)),
            ("optimiser.second_momentum", optimiser.second_momentum, (0.0, 0.999_999)),
            ("optimiser.decay", optimiser.decay, (0.0, 1.0)),
            ("optimiser.clip", optimiser.clip, (0.0, 1e9)),
            ("schedule.iterations", schedule.iterations as f64, (1.0, 1e9)),
            ("schedule.factor", schedule.factor, (0.0, 1.0)),
            ("schedule.warmup", schedule.warmup as f64, (0.0, 1e9)),
            ("data.batch", data.batch as f64, (1.0, 65536.0)),
            ("data.min_images", data.min_images as f64, (1.0, 1e6)),
            ("data.holdout", data.holdout, (0.0, 0.9)),
            ("data.loaders", data.loaders as f64, (1.0, 256.0)),
            ("augment.mirror", augment.mirror, (0.0, 1.0)),
            ("augment.shift_x_px", augment.shift_x_px, (0.0, 48.0)),
            ("augment.shift_y_px", augment.shift_y_px, (0.0, 56.0)),
            ("augment.zoom", augment.zoom, (0.0, 0.5)),
            ("augment.rotation_deg", augment.rotation_deg, (0.0, 180.0)),
            ("augment.contrast", augment.contrast, (0.0, 1.0)),
            ("augment.brightness", augment.brightness, (0.0, 255.0)),
            ("augment.colour", augment.colour, (0.0, 1.0)),
            ("augment.blur", augment.blur, (0.0, 1.0)),
            ("augment.low_resolution", augment.low_resolution, (0.0, 1.0)),
            ("augment.grey", augment.grey, (0.0, 1.0)),
            ("augment.erase", augment.erase, (0.0, 1.0)),
            ("run.threads", run.threads as f64, (1.0, 256.0)),
            ("run.checkpoint_every", run.checkpoint_every as f64, (1.0, 1e9)),
            ("run.log_every", run.log_every as f64, (1.0, 1e9)),
            ("run.validate_every", run.validate_every as f64, (1.0, 1e9)),
        ] {
            within(key, value, range)?;
        }
        if !schedule.steps.is_sorted() {
            let steps = format!("{:?}", schedule.steps);
            return Err(setting("schedule.steps", steps, "give iterations in increasing order"));
        }
        if loss.weight == 0.0 && (teacher.embeddings.is_none() || teacher.weight == 0.0) {
            let reason = "training needs a loss over the classes or a teacher (--teacher FILE.npy)";
            return Err(setting("loss.weight", 0, reason));
        }
        Ok(())
    }

    /// The network.
    ///
    /// # Errors
    /// When there is no network of that depth, or the channels are not four counts.
    pub fn architecture(&self) -> Result<Architecture, TrainError> {
        let NetworkConfig { depth, channels, embedding, .. } = &self.network;
        let network = Architecture::of_depth(*depth)
            .ok_or_else(|| setting("network.depth", depth, "use 4, 10, 20, 36, 62 or 64"))?;
        let counts = channels.iter().all(|c| (1..=8192).contains(c));
        let channels: [usize; 4] = match channels.as_slice().try_into() {
            Ok(channels) if counts => channels,
            _ => {
                let reason = "give four counts from 1 to 8192, such as 64,128,256,512";
                return Err(setting("network.channels", format!("{channels:?}"), reason));
            }
        };
        Ok(network.with_channels(channels).with_embedding(*embedding))
    }

    /// The order of the colour channels.
    ///
    /// # Errors
    /// When it is neither RGB nor BGR.
    pub fn channel_order(&self) -> Result<ChannelOrder, TrainError> {
        match self.network.channel_order.as_str() {
            "RGB" => Ok(ChannelOrder::Rgb),
            "BGR" => Ok(ChannelOrder::Bgr),
            other => Err(setting("network.channel_order", other, "use BGR or RGB")),
        }
    }

    /// The loss over the classes.
    ///
    /// # Errors
    /// When a number is out of range.
    pub fn loss(&self) -> Result<Loss, TrainError> {
        let LossConfig { kind, margin, scale, gradient, normalise_features, detach, alpha, exponent, .. } =
            self.loss;
        let m = |default: f64, range| -> Result<f64, TrainError> {
            let m = margin.unwrap_or(default);
            within("loss.margin", m, range).map(|()| m)
        };
        let s = |default: f64| -> Result<f64, TrainError> {
            let s = scale.unwrap_or(default);
            within("loss.scale", s, (0.1, 1000.0)).map(|()| s)
        };
        let sphereface_r = |version| -> Result<Loss, TrainError> {
            let s = if normalise_features { Some(s(30.0)?) } else { None };
            Ok(Loss::SphereFaceR { version, m: m(1.5, (1.0, 8.0))?, s, detach })
        };
        Ok(match kind {
            LossKind::Softmax => Loss::Softmax,
            LossKind::NormalisedSoftmax => Loss::NormalisedSoftmax { s: s(30.0)? },
            LossKind::ASoftmax => {
                let m = margin.unwrap_or(4.0);
                if ![1.0, 2.0, 3.0, 4.0].contains(&m) {
                    return Err(setting("loss.margin", m, "A-Softmax takes 1, 2, 3 or 4"));
                }
                Loss::ASoftmax { m: m as u32, gradient }
            }
            LossKind::SphereFaceRV1 => sphereface_r(Version::V1)?,
            LossKind::SphereFaceRV2 => sphereface_r(Version::V2)?,
            LossKind::SphereFace2 => {
                within("loss.alpha", alpha, (0.001, 0.999))?;
                within("loss.exponent", exponent, (1.0, 20.0))?;
                Loss::SphereFace2 { alpha, r: s(40.0)?, m: m(0.4, (0.0, 1.0))?, t: exponent }
            }
            LossKind::CosFace => Loss::CosFace { s: s(64.0)?, m: m(0.35, (0.0, 1.0))? },
            LossKind::ArcFace => Loss::ArcFace { s: s(64.0)?, m: m(0.5, (0.0, 1.5))? },
        })
    }

    /// The schedule of lambda.
    pub fn lambda(&self) -> Lambda {
        let LossConfig {
            lambda_base: base, lambda_gamma: gamma, lambda_power: power, lambda_min: least, ..
        } = self.loss;
        Lambda { base, gamma, power, least }
    }

    /// The schedule of the learning rate.
    pub fn schedule(&self) -> Schedule {
        let ScheduleConfig { kind, iterations, steps, factor, warmup } = self.schedule.clone();
        Schedule { kind, rate: self.optimiser.rate, iterations, steps, factor, warmup }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    #[test]
    fn presets_are_whole_and_the_first_is_the_default() {
        for (name, text) in PRESETS {
            mutations::survived_by("training_config", &format!("{name}.toml"), text.as_bytes(), 100);
            let mut flags = Flags::default();
            flags.teacher.embeddings = Some("teacher.npy".into());
            let config = Layers::preset(name).unwrap().finish(&flags).unwrap();
            let again = Layers::default().over(&config.to_toml(), "itself").unwrap();
            assert_eq!(again.finish(&Flags::default()).unwrap(), config, "{name}");
        }
        let authors = Layers::preset("sphereface20-casia").unwrap().finish(&Flags::default()).unwrap();
        assert_eq!(
            authors,
            Config { loss: LossConfig { margin: Some(4.0), ..LossConfig::default() }, ..Config::default() }
        );
        assert!(Layers::preset("other").unwrap_err().to_string().contains("distill-small"));
    }

    #[test]
    fn flags_go_over_files_and_files_over_presets() {
        let layers = Layers::preset("sphereface20-casia").unwrap();
        let layers = layers.over("[optimiser]\nrate = 0.01\n[network]\ndepth = 10\n", "file").unwrap();
        let mut flags = Flags::default();
        flags.network.depth = Some(4);
        flags.loss.kind = Some(LossKind::SphereFaceRV2);
        let config = layers
            .finish(&Flags { loss: LossFlags { margin: Some(1.7), ..flags.loss.clone() }, ..flags })
            .unwrap();
        assert_eq!((config.network.depth, config.optimiser.rate, config.data.batch), (4, 0.01, 512));
        assert_eq!(
            config.loss().unwrap(),
            Loss::SphereFaceR { version: Version::V2, m: 1.7, s: Some(30.0), detach: true }
        );
    }

    #[cfg(feature = "cli")]
    #[test]
    fn each_loss_has_its_own_default_margin_and_scale() {
        use clap::ValueEnum;
        let chosen = |kind: LossKind| {
            let mut flags = Flags::default();
            flags.loss.kind = Some(kind);
            let config = Layers::preset(PRESETS[0].0).unwrap().finish(&flags).unwrap();
            // A continued run reads its settings again.
            let again = Layers::default().over(&config.to_toml(), "itself").unwrap();
            assert_eq!(again.finish(&Flags::default()).unwrap(), config);
            config.loss().unwrap()
        };
        let r = |version| Loss::SphereFaceR { version, m: 1.5, s: Some(30.0), detach: true };
        for (kind, expected) in [
            (LossKind::ASoftmax, Loss::ASoftmax { m: 4, gradient: Gradient::Authors }),
            (LossKind::Softmax, Loss::Softmax),
            (LossKind::NormalisedSoftmax, Loss::NormalisedSoftmax { s: 30.0 }),
            (LossKind::SphereFaceRV1, r(Version::V1)),
            (LossKind::SphereFaceRV2, r(Version::V2)),
            (LossKind::SphereFace2, Loss::SphereFace2 { alpha: 0.7, r: 40.0, m: 0.4, t: 3.0 }),
            (LossKind::CosFace, Loss::CosFace { s: 64.0, m: 0.35 }),
            (LossKind::ArcFace, Loss::ArcFace { s: 64.0, m: 0.5 }),
        ] {
            assert_eq!(chosen(kind), expected);
        }
        assert_eq!(LossKind::value_variants().len(), 8, "each is in the list above");
        // A margin that belongs to the loss is kept, in one layer or in two.
        let text = "[loss]\nkind = \"arcface\"\nmargin = 0.3\nscale = 32\n";
        let layers = Layers::preset(PRESETS[0].0).unwrap().over(text, "file").unwrap();
        let mut flags = Flags::default();
        let arcface = Loss::ArcFace { s: 32.0, m: 0.3 };
        assert_eq!(layers.clone().finish(&flags).unwrap().loss().unwrap(), arcface);
        flags.loss.kind = Some(LossKind::ArcFace);
        assert_eq!(layers.clone().finish(&flags).unwrap().loss().unwrap(), arcface);
        flags.loss.kind = Some(LossKind::CosFace);
        let cosface = layers.finish(&flags).unwrap().loss().unwrap();
        assert_eq!(cosface, Loss::CosFace { s: 64.0, m: 0.35 });
    }

    #[test]
    fn unknown_keys_and_nonsense_are_refused_by_name() {
        for (text, expected) in [
            ("[loss]\nlamda_min = 5\n", "line 2: unknown field `lamda_min`"),
            ("[los]\n", "unknown field `los`"),
            ("[loss]\nkind = \"softmx\"\n", "softmx"),
            ("[network]\ndepth = \"x\"\n", "line 2: invalid type"),
            ("not toml", "line 1"),
        ] {
            let error = Layers::default().over(text, "my.toml").unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with("my.toml is not"), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        for (text, key) in [
            ("[network]\ndepth = 21\n", "network.depth = 21"),
            ("[network]\nchannels = [1, 2, 3]\n", "network.channels"),
            ("[network]\nchannel_order = \"GBR\"\n", "network.channel_order = GBR"),
            ("[loss]\nmargin = 5\n", "loss.margin = 5"),
            ("[loss]\nkind = \"arcface\"\nscale = 0\n", "loss.scale = 0"),
            ("[loss]\nweight = 0\n", "loss.weight"),
            ("[optimiser]\nrate = nan\n", "optimiser.rate"),
            ("[data]\nbatch = 0\n", "data.batch = 0"),
            ("[schedule]\nsteps = [5, 3]\n", "schedule.steps"),
            ("[augment]\nmirror = 1.5\n", "augment.mirror = 1.5"),
        ] {
            let error = Layers::default().over(text, "x").unwrap().finish(&Flags::default()).unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with(key), "{error}");
        }
    }
}
