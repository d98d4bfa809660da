//! Sources: cameras, streams and files.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::jpeg;
use super::path::Path;
use crate::media::Input;
use crate::serve::access::Caller;
use crate::serve::camera::{SourceState, Tile};
use crate::serve::config::SourceConfig;
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};
use std::sync::Arc;

/// Time limit for a picture of a source.
const PICTURE_LIMIT: Duration = Duration::from_secs(5);
/// The boundary between two pictures of a stream.
const BOUNDARY: &str = "sphereface-picture";

/// All sources.
#[derive(Serialize, ToSchema)]
pub(super) struct Sources {
    /// The sources, by name.
    sources: Vec<SourceAnswer>,
}

/// A source, its settings and its state.
#[derive(Serialize, ToSchema)]
pub(super) struct SourceAnswer {
    /// Its name.
    name: String,
    /// Its input, without a password.
    input: String,
    /// Frames analysed per second.
    fps: f64,
    /// Smallest face to detect; `null` for 40 pixels.
    min_face: Option<String>,
    /// The angle below which a face is named, in degrees; `null` for the service's.
    threshold_deg: Option<f64>,
    /// Seconds out of sight after which a person has left.
    left_after_s: f64,
    /// Frames in which a person must be seen before an event is sent.
    confirm_frames: u32,
    /// Seconds over which a person must be seen before an event is sent.
    confirm_s: f64,
    /// Areas outside which faces do not count: corners (x, y) from 0 (left, top) to 1 (right, bottom).
    watch: Vec<Vec<[f64; 2]>>,
    /// Areas in which faces are ignored.
    ignore: Vec<Vec<[f64; 2]>>,
    /// The people whose faces are covered in live pictures; `null` for none.
    redact: Option<String>,
    /// Whether a file is repeated.
    repeat: bool,
    /// Whether it is enabled.
    enabled: bool,
    /// Its state.
    state: SourceState,
}

/// Changes of a source. Settings that are not given are unchanged.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SourceChange {
    /// Frames analysed per second.
    fps: Option<f64>,
    /// Smallest face to detect: pixels (40px) or a share of the frame height (5%).
    min_face: Option<String>,
    /// The angle below which a face is named, in degrees.
    threshold_deg: Option<f64>,
    /// Seconds out of sight after which a person has left.
    left_after_s: Option<f64>,
    /// Frames in which a person must be seen before an event is sent.
    confirm_frames: Option<u32>,
    /// Seconds over which a person must be seen before an event is sent.
    confirm_s: Option<f64>,
    /// Areas outside which faces do not count: corners (x, y) from 0 (left, top) to 1 (right, bottom).
    watch: Option<Vec<Vec<[f64; 2]>>>,
    /// Areas in which faces are ignored.
    ignore: Option<Vec<Vec<[f64; 2]>>>,
    /// The people whose faces are covered in live pictures: unknown, all, except:NAME,... or only:NAME,...
    redact: Option<String>,
    /// Whether a file is repeated.
    repeat: Option<bool>,
    /// Whether it is enabled.
    enabled: Option<bool>,
}

impl SourceAnswer {
    pub fn of((config, state): (SourceConfig, SourceState)) -> Self {
        let input = match Input::parse(&config.input) {
            // A description may contain anything, such as passwords.
            Ok(Input::Pipeline(_)) | Err(_) => "gst:...".to_owned(),
            Ok(input) => input.to_string(),
        };
        Self {
            name: config.name,
            input,
            fps: config.fps,
            min_face: config.min_face,
            threshold_deg: config.threshold_deg,
            left_after_s: config.left_after_s,
            confirm_frames: config.confirm_frames,
            confirm_s: config.confirm_s,
            watch: config.watch,
            ignore: config.ignore,
            redact: config.redact,
            repeat: config.repeat,
            enabled: config.enabled,
            state,
        }
    }
}

impl SourceChange {
    fn apply(self, config: &mut SourceConfig) {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(from) = from {
                *to = from;
            }
        }
        set(&mut config.fps, self.fps);
        set(&mut config.left_after_s, self.left_after_s);
        set(&mut config.confirm_frames, self.confirm_frames);
        set(&mut config.confirm_s, self.confirm_s);
        set(&mut config.watch, self.watch);
        set(&mut config.ignore, self.ignore);
        set(&mut config.repeat, self.repeat);
        set(&mut config.enabled, self.enabled);
        config.min_face = self.min_face.or(config.min_face.take());
        config.redact = self.redact.or(config.redact.take());
        config.threshold_deg = self.threshold_deg.or(config.threshold_deg);
    }
}

fn none(name: &str) -> Problem {
    Problem::not_found(format!("there is no source {}", name.escape_debug()))
}

/// List the sources and their states
#[utoipa::path(get, path = "/api/v1/sources", tag = "sources", responses((status = 200, body = Sources)))]
pub(super) async fn list(State(site): State<App>) -> Json<Sources> {
    Json(Sources { sources: answers(&site) })
}

/// All sources, for answers.
pub(super) fn answers(site: &Site) -> Vec<SourceAnswer> {
    site.cameras.states().into_iter().map(SourceAnswer::of).collect()
}

/// Show a source
#[utoipa::path(
    get, path = "/api/v1/sources/{name}", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = SourceAnswer), (status = 404, body = Problem))
)]
pub(super) async fn show(
    State(site): State<App>,
    Path(name): Path<String>,
) -> Result<Json<SourceAnswer>, Problem> {
    site.cameras.state(&name).map(SourceAnswer::of).map(Json).ok_or_else(|| none(&name))
}

/// Add a source
///
/// The configuration must allow its input (`allow_inputs`).
#[utoipa::path(
    post, path = "/api/v1/sources", tag = "sources", request_body = SourceConfig,
    responses(
        (status = 200, body = SourceAnswer),
        (status = 403, description = "The configuration does not allow that input", body = Problem),
        (status = 409, body = Problem)
    )
)]
pub(super) async fn add(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    new: Result<Json<SourceConfig>, JsonRejection>,
) -> Result<Json<SourceAnswer>, Problem> {
    let Json(config) = new?;
    site.wait_for(move |site| {
        let name = &config.name;
        if site.cameras.state(name).is_some() {
            let detail =
                format!("there is a source {} already: change it, or remove it first", name.escape_debug());
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        // Opened only if it is allowed, so that a client cannot find out which files exist.
        let allowed = Input::parse(&config.input).is_ok_and(|input| site.settings().allowed.allows(&input));
        let detail = match (allowed, &config.gallery) {
            (true, None) => return set(site, config, caller, "added a source"),
            (true, Some(_)) => "the gallery of a source can only be set in the configuration: omit gallery",
            (false, _) => "the configuration does not allow that input: see allow_inputs there",
        };
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    })
    .await
}

/// Change a source while it runs
#[utoipa::path(
    patch, path = "/api/v1/sources/{name}", tag = "sources", params(("name" = String, Path)),
    request_body = SourceChange,
    responses((status = 200, body = SourceAnswer), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn change(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    change: Result<Json<SourceChange>, JsonRejection>,
) -> Result<Json<SourceAnswer>, Problem> {
    let Json(change) = change?;
    site.wait_for(move |site| {
        let (mut config, _) = site.cameras.state(&name).ok_or_else(|| none(&name))?;
        change.apply(&mut config);
        set(site, config, caller, "changed a source")
    })
    .await
}

/// Checks, starts and stores a source.
fn set(site: &Site, config: SourceConfig, caller: Caller, done: &str) -> Result<Json<SourceAnswer>, Problem> {
    let settings = site.settings();
    let checked = config.settings(&settings.config.gallery, settings.threshold)?;
    site.cameras.set(&checked)?;
    let name = &config.name;
    let kept = serde_json::to_string(&config).map_err(|error| Problem::inside(&error))?;
    site.store.set_source(name, Some(&kept))?;
    site.store.note(caller.name(), done, Some(name))?;
    site.cameras.state(name).map(SourceAnswer::of).map(Json).ok_or_else(|| none(name))
}

/// Remove a source
///
/// Its events are kept.
#[utoipa::path(
    delete, path = "/api/v1/sources/{name}", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = Sources), (status = 404, body = Problem))
)]
pub(super) async fn remove(
    State(site): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Sources>, Problem> {
    site.wait_for(move |site| {
        if !site.cameras.remove(&name) {
            return Err(none(&name));
        }
        site.store.set_source(&name, None)?;
        site.store.note(caller.name(), "removed a source", Some(&name))?;
        Ok(Json(Sources { sources: answers(site) }))
    })
    .await
}

/// The next picture of a source, with names drawn
#[utoipa::path(
    get, path = "/api/v1/sources/{name}/picture", tag = "sources", params(("name" = String, Path)),
    responses(
        (status = 200, content_type = "image/jpeg", body = Vec<u8>),
        (status = 404, description = "No such source, or it shows nothing at present", body = Problem)
    )
)]
pub(super) async fn picture(State(site): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let _permit = site.may_stream()?;
    let mut tiles = site.cameras.tiles(&name).ok_or_else(|| none(&name))?;
    let next = tokio::time::timeout(PICTURE_LIMIT, tiles.changed()).await;
    let tile = next.is_ok_and(|next| next.is_ok()).then(|| tiles.borrow().clone()).flatten();
    jpeg(tile.map(|tile| tile.jpeg.clone()), "the source shows nothing at present")
}

/// The video of a source, with names drawn, as motion JPEG
#[utoipa::path(
    get, path = "/api/v1/sources/{name}/video", tag = "sources", params(("name" = String, Path)),
    responses(
        (status = 200, content_type = "multipart/x-mixed-replace", body = Vec<u8>),
        (status = 404, body = Problem), (status = 503, body = Problem)
    )
)]
pub(super) async fn video(State(site): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let permit = site.may_stream()?;
    let tiles = site.cameras.tiles(&name).ok_or_else(|| none(&name))?;
    let viewer = Viewer { tiles, ending: site.ending.clone(), _permit: permit };
    let parts = stream::unfold(viewer, |mut viewer| async move {
        let tile = viewer.next().await?;
        let size = tile.jpeg.len();
        let mut part = format!("--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\n\r\n")
            .into_bytes();
        part.extend_from_slice(&tile.jpeg);
        part.extend_from_slice(b"\r\n");
        Some((Ok::<_, Infallible>(Bytes::from(part)), viewer))
    });
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(parts)).into_response())
}

/// A viewer of a source.
struct Viewer {
    tiles: watch::Receiver<Option<Arc<Tile>>>,
    ending: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// The next picture; `None` when the source or the service ends.
    async fn next(&mut self) -> Option<Arc<Tile>> {
        loop {
            tokio::select! {
                changed = self.tiles.changed() => changed.ok()?,
                _ = self.ending.wait_for(|ending| *ending) => return None,
            }
            if let Some(tile) = self.tiles.borrow_and_update().clone() {
                return Some(tile);
            }
        }
    }
}
