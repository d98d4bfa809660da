//! The readers of this module for [`fuzzing`](crate::fuzzing).

use std::path::Path;

pub(crate) use super::api::{fuzz_json as json, fuzz_multipart as multipart};
use super::config::Config;

/// A configuration file.
pub(crate) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(mut config) = Config::of_text(&text, Path::new("serve.toml")) else { return };
    // Their files could be any file of this machine.
    config.tls = None;
    if let Some(mqtt) = &mut config.mqtt {
        mqtt.ca = None;
    }
    drop(config.settings());
}
