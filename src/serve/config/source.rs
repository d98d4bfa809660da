//! The configuration of a source, and its settings after validation.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ConfigError, angle, check_name, number, value};
use crate::annotate::Whom;
use crate::detect::{DetectorConfig, MinFace};
use crate::engine::{Polygon, Regions};
use crate::identify::ThresholdRequest;
use crate::media::Input;

/// The most regions of each kind per source.
const MOST_AREAS: usize = 50;

/// A source as in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name in the API and on the pages.
    pub name: String,
    /// Its input: `rtsp://...`, `http://...`, `webcam:0`, a file or `gst:PIPELINE`.
    pub input: String,
    /// Frames analysed per second.
    #[serde(default = "default_fps")]
    pub fps: f64,
    /// Smallest face to detect: pixels or a share of the frame height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_face: Option<String>,
    /// Folder of the people to name, if it differs from the service's; only in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gallery: Option<PathBuf>,
    /// The angle below which a face is named, if it differs from the service's, in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_deg: Option<f64>,
    /// Seconds out of sight after which a person has left.
    #[serde(default = "default_left_after_s")]
    pub left_after_s: f64,
    /// Frames in which a person must be seen before an event is sent.
    #[serde(default = "default_confirm_frames")]
    pub confirm_frames: u32,
    /// Seconds over which a person must be seen before an event is sent.
    #[serde(default)]
    pub confirm_s: f64,
    /// Areas outside which faces do not count, each a list of corners (x, y) from 0 (left, top) to 1 (right,
    /// bottom).
    #[serde(default)]
    pub watch: Vec<Vec<[f64; 2]>>,
    /// Areas in which faces are ignored.
    #[serde(default)]
    pub ignore: Vec<Vec<[f64; 2]>>,
    /// The people whose faces are covered in live and stored pictures: `unknown`, `all`, `except:NAME,...` or
    /// `only:NAME,...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<String>,
    /// Whether a file is repeated.
    #[serde(default)]
    pub repeat: bool,
    /// Whether it is enabled.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
}

pub(super) fn default_fps() -> f64 {
    5.0
}

pub(super) fn default_left_after_s() -> f64 {
    5.0
}

/// Most false detections last for one frame; a third frame would cost 200 ms at the default rate.
pub(super) fn default_confirm_frames() -> u32 {
    2
}

pub(super) fn default_enabled() -> bool {
    true
}

impl SourceConfig {
    /// A source with everything else at its default.
    pub fn new(name: impl Into<String>, input: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            input: input.into(),
            fps: default_fps(),
            min_face: None,
            gallery: None,
            threshold_deg: None,
            left_after_s: default_left_after_s(),
            confirm_frames: default_confirm_frames(),
            confirm_s: 0.0,
            watch: Vec::new(),
            ignore: Vec::new(),
            redact: None,
            repeat: false,
            enabled: true,
        }
    }

    /// The validated settings, with the service's gallery and threshold as defaults.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn settings(
        &self,
        gallery: &Path,
        threshold: ThresholdRequest,
    ) -> Result<SourceSettings, ConfigError> {
        let setting = |key: &str| format!("source {}: {key}", self.name);
        check_name("source", &self.name)?;
        let input = Input::parse(&self.input).map_err(|error| ConfigError::Value {
            setting: setting("input"),
            value: "(as given)".into(),
            reason: error.to_string(),
        })?;
        if let Input::Still(path) = &input {
            let reason = "it is a still; label stills with `sphereface label`, or ask the API".to_owned();
            return Err(value(setting("input"), path.display(), reason));
        }
        let fps = number(setting("fps"), self.fps, 0.1, 60.0)?;
        let left_after_s = number(setting("left_after_s"), self.left_after_s, 0.5, 3600.0)?;
        let redact = self.redact.as_deref().map(|text| {
            text.parse::<Whom>()
                .map_err(|error| value(setting("redact"), text.escape_debug(), error.to_string()))
        });
        let confirm_s = number(setting("confirm_s"), self.confirm_s, 0.0, 60.0)?;
        number(setting("confirm_frames"), f64::from(self.confirm_frames), 1.0, 100.0)?;
        let min_face = self.min_face.as_deref().map(|text| {
            let min_face = text.parse::<MinFace>().and_then(|min_face| {
                DetectorConfig { min_face, ..DetectorConfig::default() }.validate().map(|()| min_face)
            });
            min_face.map_err(|error| value(setting("min_face"), text, error.to_string()))
        });
        Ok(SourceSettings {
            min_face: min_face.transpose()?.unwrap_or(DetectorConfig::default().min_face),
            gallery: self.gallery.clone().unwrap_or_else(|| gallery.to_owned()),
            threshold: match self.threshold_deg {
                Some(degrees) => angle(setting("threshold_deg"), degrees)?,
                None => threshold,
            },
            fps,
            left_after_ns: (left_after_s * 1e9) as u64,
            confirm_ns: (confirm_s * 1e9) as u64,
            redact: redact.transpose()?,
            regions: Regions {
                watch: areas(setting("watch"), &self.watch)?,
                ignore: areas(setting("ignore"), &self.ignore)?,
            },
            input,
            config: self.clone(),
        })
    }
}

/// A source, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// The source text of the settings.
    pub config: SourceConfig,
    /// The input.
    pub input: Input,
    /// Frames analysed per second.
    pub fps: f64,
    /// Smallest face to detect.
    pub min_face: MinFace,
    /// Folder of the people to name.
    pub gallery: PathBuf,
    /// The angle below which a face is named.
    pub threshold: ThresholdRequest,
    /// Nanoseconds out of sight after which a person has left.
    pub left_after_ns: u64,
    /// Nanoseconds over which a person must be seen before an event is sent.
    pub confirm_ns: u64,
    /// Where faces count.
    pub regions: Regions,
    /// The people whose faces are covered in pictures.
    pub redact: Option<Whom>,
}

fn areas(setting: String, all: &[Vec<[f64; 2]>]) -> Result<Vec<Polygon>, ConfigError> {
    let area = |corners: &Vec<[f64; 2]>| {
        Polygon::new(corners)
            .map_err(|error| value(setting.clone(), format!("{corners:?}"), error.to_string()))
    };
    match all.len() <= MOST_AREAS {
        true => all.iter().map(area).collect(),
        false => Err(value(setting, all.len(), format!("give at most {MOST_AREAS} regions"))),
    }
}
