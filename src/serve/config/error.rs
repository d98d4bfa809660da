//! Errors of a configuration, and checks of single values.

use std::path::PathBuf;

use crate::identify::ThresholdRequest;

/// Longest name of a source, in characters.
const LONGEST_NAME: usize = 64;

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is not TOML, or has an unknown setting.
    #[error("{} is invalid: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The error and its position.
        reason: String,
    },
    /// A value out of its range.
    #[error("{setting} = {value} is invalid: {reason}")]
    Value {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
        /// The allowed values.
        reason: String,
    },
    /// Two sources with one name.
    #[error("two sources are named {0}: give each a name of its own")]
    Twice(String),
}

/// Names are parts of addresses.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), ConfigError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !name.is_empty() && !name.starts_with('.') && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let reason = format!("use letters, digits, - and _, at most {LONGEST_NAME}");
    Err(value(format!("name of a {what}"), name.escape_debug(), reason))
}

pub(super) fn whole(setting: String, given: u64, low: u64, high: u64) -> Result<u64, ConfigError> {
    match (low..=high).contains(&given) {
        true => Ok(given),
        false => Err(value(setting, given, format!("give a number from {low} to {high}"))),
    }
}

pub(super) fn number(setting: String, given: f64, low: f64, high: f64) -> Result<f64, ConfigError> {
    match (low..=high).contains(&given) {
        true => Ok(given),
        false => Err(value(setting, given, format!("give a number from {low} to {high}"))),
    }
}

pub(super) fn angle(setting: String, degrees: f64) -> Result<ThresholdRequest, ConfigError> {
    let parsed = crate::identify::parse_angle_deg(&degrees.to_string());
    parsed.map(ThresholdRequest::AngleDeg).map_err(|reason| value(setting, degrees, reason.to_string()))
}

pub(super) fn value(setting: String, given: impl std::fmt::Display, reason: String) -> ConfigError {
    ConfigError::Value { setting, value: given.to_string(), reason }
}
