//! Cameras and a service: many sources on one engine, an API, pages and events.
//!
//! ```text
//! source ─ newest frame ▶ turn ▶ Stream ─ LabelledFrame ▶ tile for viewers
//!    (a thread each)     (fair)     └ Event ▶ Sightings ▶ Store ▶ subscribers
//! ```
//!
//! | part | job |
//! |---|---|
//! | [`Config`], [`Settings`] | what is asked for: a TOML file, and what it means once it is checked |
//! | `camera`, `cameras` | a source on threads of its own; all of them, added, changed and removed while they run |
//! | `turns` | who computes next: every source in its turn |
//! | `galleries` | snapshots of the galleries, swapped under running sources when somebody is enrolled |
//! | `sightings` | what a stream tells, as events with the best picture and the reason |
//! | `cover` | whose faces are covered in pictures of a source |
//! | `confirm` | somebody is told of once they were seen often enough |
//! | `jobs` | videos that are labelled in the background |
//! | `outputs` | events as signed webhooks and on an MQTT broker |
//! | `rtsp` | labelled pictures as streams, with the feature of that name |
//! | [`store`] | events, strangers, tokens and added sources in SQLite |
//! | `shelf` | the [library](crate::library) that is shown |
//! | `listen`, `rates`, `tls` | connections in: how many, how fast, encrypted |
//! | `access` | who may: tokens, origin, host |
//! | `api`, `pages` | requests in, answers out |
//!
//! A [`Service`] is all of them, running.

mod access;
mod allow;
mod api;
mod camera;
mod cameras;
mod config;
mod confirm;
mod cover;
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
mod rtsp_config;
mod service;
mod shelf;
mod sightings;
mod site;
pub mod store;
mod tls;
mod tokens;
mod turns;
mod why;

pub use api::description;
pub use config::{
    Config, ConfigError, JobLimits, Limits, Retention, Settings, SourceConfig, SourceSettings, TEMPLATE,
};
pub use error::ServeError;
pub use outputs::{MqttConfig, MqttSettings, WebhookConfig, WebhookSettings};
pub use rtsp_config::{RtspConfig, RtspSettings};
pub use service::{Figures, Service, ServiceOptions, SourceFigures};
pub use shelf::LibraryConfig;
pub use tls::TlsConfig;
pub use tokens::{NewTokens, Role};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the mutexes of this room guard is whole after every call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
