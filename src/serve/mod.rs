//! Cameras and a service: many sources on one engine, an API, pages and events.
//!
//! ```text
//! source ─ newest frame ▶ turn ▶ Stream ─ LabelledFrame ▶ tile for viewers
//!    (a thread each)     (fair)     └ Event ▶ Sightings ▶ Store ▶ subscribers
//! ```
//!
//! | part | job |
//! |---|---|
//! | [`Config`], [`Settings`] | the TOML file, and the settings after validation, which include what clients may open and encryption |
//! | `camera`, `cameras` | a source on its own threads; all sources, which can change while they run |
//! | `turns` | the order in which sources compute |
//! | `galleries` | snapshots of the galleries, replaced under running sources when a person is enrolled |
//! | `sightings` | events of a stream, with the best picture and the reason |
//! | `cover` | redaction of pictures of a source |
//! | `confirm` | confirmation of people by several frames before events are sent |
//! | `jobs` | videos that are labelled in the background |
//! | `outputs` | events as signed webhooks and on an MQTT broker |
//! | `rtsp` | labelled pictures as streams, with the feature of that name |
//! | `data` | the data folder, for one service at a time |
//! | [`store`] | events, strangers, tokens and added sources in SQLite |
//! | `shelf` | the [library](crate::library) to show |
//! | `listen`, `rates` | incoming connections: limits, rates |
//! | `access` | access control: tokens, origin, host |
//! | `api`, `pages` | the HTTP API and the pages |
//!
//! A [`Service`] is all of them, running.

mod access;
mod api;
mod camera;
mod cameras;
mod config;
mod confirm;
mod cover;
mod data;
mod error;
mod follow;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod galleries;
mod jobs;
mod listen;
mod outputs;
mod pages;
mod problem;
mod rates;
#[cfg(feature = "rtsp")]
mod rtsp;
mod service;
mod shelf;
mod sightings;
mod site;
pub mod store;
mod tokens;
mod turns;
mod why;

pub use api::description;
pub use config::{
    Config, ConfigError, JobLimits, LibraryConfig, Limits, MqttConfig, MqttSettings, RtspConfig,
    RtspSettings, Settings, SourceConfig, SourceSettings, TEMPLATE, TlsConfig, WebhookConfig,
    WebhookSettings,
};
pub use error::ServeError;
pub use jobs::{JobProgram, run_job};
pub use service::{Figures, Service, ServiceOptions, SourceFigures};
pub use store::Retention;
pub use tokens::{NewTokens, Role};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Poisoning is ignored: the data behind the mutexes of this module is consistent after every call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
