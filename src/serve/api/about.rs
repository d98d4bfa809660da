//! The service itself.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::serve::access::{COOKIE, Caller};
use crate::serve::camera::{Phase, SourceState};
use crate::serve::lock;
use crate::serve::outputs::state::{BROKER, OutputState};
use crate::serve::problem::Problem;
use crate::serve::site::{App, Site};
use crate::serve::store::{Note, rfc3339};
use crate::serve::tokens::Role;

/// Whether the service works.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `degraded` if a source that should run does not.
    status: &'static str,
    /// Sources that run.
    running: usize,
    /// Sources that should run.
    sources: usize,
    /// Seconds since the service started.
    up_s: u64,
}

/// Whether requests can be answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always true. A service that is not ready answers with status 503.
    ready: bool,
}

/// The program and its settings.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// Version of the program.
    version: &'static str,
    /// The embedding network.
    model: String,
    /// Number format in which embeddings are computed: `f32`, `bf16` or `int8`.
    precision: String,
    /// Number of threads that compute.
    threads: usize,
}

/// The caller.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// The role of the caller; `null` without a token if one is required.
    role: Option<Role>,
    /// Whether a token is required.
    token_needed: bool,
}

/// A token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIn {
    /// The text of the token.
    token: String,
}

/// The record of changes.
#[derive(Serialize, ToSchema)]
pub(super) struct Changes {
    /// The newest first.
    changes: Vec<Change>,
}

/// A change.
#[derive(Serialize, ToSchema)]
pub(super) struct Change {
    /// Time (RFC 3339).
    time: String,
    /// The owner of the token.
    who: String,
    /// The change.
    what: String,
    /// The person or thing concerned; `null` after a person was forgotten.
    about: Option<String>,
}

/// The outputs of events.
#[derive(Serialize, ToSchema)]
pub(super) struct OutputsAnswer {
    /// The webhooks, by name.
    webhooks: Vec<WebhookAnswer>,
    /// The MQTT broker; `null` if none is set.
    mqtt: Option<BrokerAnswer>,
}

/// The broker and its state.
#[derive(Serialize, ToSchema)]
pub(super) struct BrokerAnswer {
    /// Events that it has not acknowledged yet.
    waiting: u64,
    /// Its state.
    #[serde(flatten)]
    state: OutputState,
}

/// A webhook and its state.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookAnswer {
    /// Its name.
    name: String,
    /// Events that are not delivered to it yet.
    waiting: u64,
    /// Its state.
    #[serde(flatten)]
    state: OutputState,
}

/// Health of the service
#[utoipa::path(get, path = "/api/v1/health", tag = "service", responses((status = 200, body = Health)))]
pub(super) async fn health(State(site): State<App>) -> Json<Health> {
    let states = site.cameras.states();
    let wanted =
        states.iter().filter(|(_, state)| !matches!(state.phase(), Phase::Off | Phase::Ended)).count();
    let running = states.iter().filter(|(_, state)| state.phase() == Phase::Running).count();
    let status = if running == wanted { "ok" } else { "degraded" };
    Json(Health { status, running, sources: wanted, up_s: site.started.elapsed().as_secs() })
}

/// Whether requests can be answered
#[utoipa::path(
    get, path = "/api/v1/ready", tag = "service",
    responses((status = 200, body = Ready), (status = 503, description = "It is ending", body = Problem))
)]
pub(super) async fn ready(State(site): State<App>) -> Result<Json<Ready>, Problem> {
    if *site.ending.borrow() {
        return Err(Problem::busy("the service is ending"));
    }
    site.wait_for(|site| site.store.last_event().map_err(Problem::from)).await?;
    Ok(Json(Ready { ready: true }))
}

/// Version of the program and model
#[utoipa::path(get, path = "/api/v1/version", tag = "service", responses((status = 200, body = Version)))]
pub(super) async fn version(State(site): State<App>) -> Json<Version> {
    let (model, threads) = (site.engine.model().to_string(), site.engine.threads());
    let precision = site.engine.arithmetic().arithmetic.to_string();
    Json(Version { version: env!("CARGO_PKG_VERSION"), model, precision, threads })
}

/// Record of changes
#[utoipa::path(get, path = "/api/v1/changes", tag = "service", responses((status = 200, body = Changes)))]
pub(super) async fn changes(State(site): State<App>) -> Result<Json<Changes>, Problem> {
    let notes = site.wait_for(|site| Ok(site.store.notes(1000)?)).await?;
    let change =
        |Note { time_ms, who, what, about }: Note| Change { time: rfc3339(time_ms), who, what, about };
    Ok(Json(Changes { changes: notes.into_iter().map(change).collect() }))
}

/// State of webhooks and broker
#[utoipa::path(get, path = "/api/v1/outputs", tag = "service", responses((status = 200, body = OutputsAnswer)))]
pub(super) async fn outputs(State(site): State<App>) -> Result<Json<OutputsAnswer>, Problem> {
    site.wait_for(|site| {
        let mut webhooks = Vec::new();
        for (name, state) in site.outputs.webhooks() {
            webhooks.push(WebhookAnswer { waiting: site.store.undelivered(&name)?, name, state });
        }
        let waiting = site.store.undelivered(BROKER)?;
        let mqtt = site.outputs.mqtt().map(|state| BrokerAnswer { waiting, state });
        Ok(Json(OutputsAnswer { webhooks, mqtt }))
    })
    .await
}

/// Role of the caller
#[utoipa::path(get, path = "/api/v1/session", tag = "service", responses((status = 200, body = Session)))]
pub(super) async fn session(State(site): State<App>, Extension(caller): Extension<Caller>) -> Json<Session> {
    Json(Session { role: caller.0, token_needed: site.tokens.is_some() })
}

/// Log in with a token
///
/// The token is kept in a cookie that scripts cannot read and that pages of other sites do not send.
#[utoipa::path(
    post, path = "/api/v1/session", tag = "service", request_body = LogIn,
    responses((status = 200, body = Session), (status = 401, body = Problem))
)]
pub(super) async fn log_in(
    State(site): State<App>,
    token: Result<Json<LogIn>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(LogIn { token }) = token?;
    let token = token.trim();
    let Some(tokens) = &site.tokens else {
        return Err(Problem::bad("this service requires no token"));
    };
    let role = tokens.role(token).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "not a valid token of this service: tokens were shown at its first start",
        )
    })?;
    let secure = if lock(&site.tls).is_some() { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000{secure}");
    let session = Session { role: Some(role), token_needed: true };
    Ok(([(header::SET_COOKIE, cookie)], Json(session)).into_response())
}

/// Log out and delete the cookie
#[utoipa::path(delete, path = "/api/v1/session", tag = "service", responses((status = 200, body = Session)))]
pub(super) async fn log_out(State(site): State<App>) -> Response {
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    let session = Session { role: None, token_needed: site.tokens.is_some() };
    ([(header::SET_COOKIE, cookie)], Json(session)).into_response()
}

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, content_type = "text/plain", body = String))
)]
pub(super) async fn metrics(State(site): State<App>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text(&site)).into_response()
}

/// The metrics in Prometheus' text format. Names of sources need no escapes.
fn text(site: &Site) -> String {
    let states: Vec<_> =
        site.cameras.states().into_iter().map(|(config, state)| (config.name, state)).collect();
    let mut text = String::new();
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&SourceState) -> Option<f64>| {
        let _ =
            writeln!(text, "# HELP sphereface_source_{name} {help}\n# TYPE sphereface_source_{name} {kind}");
        for (source, state) in &states {
            if let Some(value) = value(state) {
                let _ = writeln!(text, "sphereface_source_{name}{{source=\"{source}\"}} {value}");
            }
        }
    };
    let count = |at: usize| move |state: &SourceState| Some(state.counts()[at] as f64);
    let up = |state: &SourceState| Some(f64::from(u8::from(state.phase() == Phase::Running)));
    each("up", "gauge", "Whether frames come.", &up);
    each("frames_total", "counter", "Frames that were answered.", &count(0));
    each("left_out_total", "counter", "Frames dropped because newer ones came in the meantime.", &count(1));
    each("events_total", "counter", "Events that were recorded.", &count(2));
    each("faces", "gauge", "Faces in the last frame.", &|state| Some(state.faces_len() as f64));
    each("frames_per_second", "gauge", "Frames answered per second.", &|state| Some(state.pace().0));
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    each("delay_seconds", "gauge", "Median time from a frame to its answer.", &|state| {
        seconds(state.pace().1)
    });
    each("delay_95_seconds", "gauge", "The time that 95 % stay below.", &|state| seconds(state.pace().2));
    let counts = &site.counts;
    for (name, help, value) in [
        ("requests_total", "Requests.", &counts.requests),
        ("requests_refused_total", "Requests without permission.", &counts.refused),
        ("requests_busy_total", "Requests that were asked to retry later.", &counts.busy),
    ] {
        let value = value.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "# HELP sphereface_{name} {help}\n# TYPE sphereface_{name} counter\nsphereface_{name} {value}"
        );
    }
    for (name, state) in site.outputs.webhooks() {
        // A failure of the store is reported elsewhere.
        let waiting = site.store.undelivered(&name).unwrap_or_default();
        for (key, kind, value) in [
            ("waiting", "gauge", waiting),
            ("delivered_total", "counter", state.delivered),
            ("failed_total", "counter", state.failed),
        ] {
            let metric = format!("sphereface_webhook_{key}");
            let _ = writeln!(text, "# TYPE {metric} {kind}\n{metric}{{webhook=\"{name}\"}} {value}");
        }
    }
    text
}
