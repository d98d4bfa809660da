//! Events: who came and went, and when.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::jpeg;
use super::path::Path;
use crate::serve::follow::Follow;
use crate::serve::problem::Problem;
use crate::serve::site::App;
use crate::serve::store::{Event, EventQuery, Kind};

/// Interval at which a client gets a message even if nothing happens.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Time after which a client that lost the connection reconnects.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Largest message of a client, in bytes. Messages are not read.
const MOST_HEARD: usize = 1024;

/// A query for events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    /// Only events of this person.
    person: Option<String>,
    /// Only events of this stranger, by number.
    stranger: Option<i64>,
    /// Only events of this source.
    source: Option<String>,
    /// Only events of this kind: appeared, recognised, corrected or left.
    kind: Option<String>,
    /// Only events at or after this time: RFC 3339, or milliseconds since 1970.
    since: Option<String>,
    /// Only events before this time: RFC 3339, or milliseconds since 1970.
    until: Option<String>,
    /// Only events with smaller numbers than this, to continue where the last answer ended.
    before: Option<i64>,
    /// Only events with larger numbers than this.
    after: Option<i64>,
    /// Maximum number, 1 to 1000. Default: 100.
    limit: Option<usize>,
}

/// Events, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The events.
    pub events: Vec<Event>,
}

impl EventsQuery {
    fn query(self) -> Result<EventQuery, Problem> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=1000).contains(&limit) {
            return Err(Problem::bad(format!("limit={limit} is invalid: give a number from 1 to 1000")));
        }
        let moment = |name: &str, text: Option<String>| text.map(|text| time_ms(name, &text)).transpose();
        Ok(EventQuery {
            kind: self.kind.map(|kind| kind.parse::<Kind>().map_err(Problem::bad)).transpose()?,
            since_ms: moment("since", self.since)?,
            until_ms: moment("until", self.until)?,
            person: self.person,
            stranger: self.stranger,
            source: self.source,
            before: self.before,
            after: self.after,
            oldest_first: false,
            limit,
        })
    }
}

fn time_ms(name: &str, text: &str) -> Result<i64, Problem> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    // A plus sign in an address is parsed as a space.
    let parsed = chrono::DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    parsed.map(|time| time.timestamp_millis()).map_err(|_| {
        let shown = text.escape_debug();
        Problem::bad(format!(
            "{name}={shown} is not a time: write 2026-11-29T12:00:00Z, or milliseconds since 1970"
        ))
    })
}

/// List events
#[utoipa::path(
    get, path = "/api/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = Events), (status = 400, body = Problem))
)]
pub(super) async fn list(
    State(site): State<App>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Events>, Problem> {
    let query = query?.0.query()?;
    site.wait_for(move |site| Ok(Json(Events { events: site.store.events(&query)? }))).await
}

/// Show an event
#[utoipa::path(
    get, path = "/api/v1/events/{id}", tag = "events", params(("id" = i64, Path)),
    responses((status = 200, body = Event), (status = 404, body = Problem))
)]
pub(super) async fn show(State(site): State<App>, Path(id): Path<i64>) -> Result<Json<Event>, Problem> {
    let none = move || Problem::not_found(format!("there is no event {id}"));
    site.wait_for(move |site| Ok(Json(site.store.event(id)?.ok_or_else(none)?))).await
}

/// Show the picture of an event
#[utoipa::path(
    get, path = "/api/v1/events/{id}/picture", tag = "events", params(("id" = i64, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn picture(State(site): State<App>, Path(id): Path<i64>) -> Result<Response, Problem> {
    let picture = site.wait_for(move |site| Ok(site.store.event_picture(id)?)).await?;
    jpeg(picture, "there is no such event, or it has no picture")
}

/// The start of a stream of events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StreamQuery {
    /// Begin with the stored events after this number. The header `Last-Event-ID` has the same effect.
    after: Option<i64>,
}

/// Follow events as they happen
///
/// Server-sent events: `event` is the kind, `id` the number and `data` the event as JSON. A client that
/// reconnects with the last number misses nothing.
#[utoipa::path(
    get, path = "/api/v1/events/stream", tag = "events", params(StreamQuery),
    responses((status = 200, content_type = "text/event-stream", body = Event), (status = 503, body = Problem))
)]
pub(super) async fn stream(
    State(site): State<App>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let permit = site.may_stream()?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let follow = Follow::after(&site.store, header.or(query?.0.after), site.ending.clone()).await?;
    let events = stream::unfold((follow, permit), |(mut follow, permit)| async move {
        let event = follow.next().await?;
        let told = sse::Event::default().event(event.kind.to_string()).id(event.id.to_string());
        // Serialising plain data does not fail.
        let told = told.retry(AGAIN_AFTER).json_data(&*event).unwrap_or_default();
        Some((Ok::<_, Infallible>(told), (follow, permit)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

/// Follow events over a WebSocket
///
/// Each message is an event as JSON, with the number for reconnecting in `id`. Messages of the client are not
/// read. Browsers can connect only from pages of this service.
#[utoipa::path(
    get, path = "/api/v1/events/ws", tag = "events", params(StreamQuery),
    responses(
        (status = 101, description = "Messages follow"),
        (status = 200, description = "The content of a message", body = Event),
        (status = 403, description = "The request comes from a page of another site", body = Problem),
        (status = 503, body = Problem)
    )
)]
pub(super) async fn socket(
    State(site): State<App>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let permit = site.may_stream()?;
    let follow = Follow::after(&site.store, query?.0.after, site.ending.clone()).await?;
    let upgrade = upgrade.max_message_size(MOST_HEARD).max_frame_size(MOST_HEARD);
    Ok(upgrade.on_upgrade(move |socket| tell(socket, follow, permit)))
}

/// Sends events until the client or the service ends.
async fn tell(mut socket: WebSocket, mut follow: Follow, _permit: OwnedSemaphorePermit) {
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    let mut answered = true;
    loop {
        let message = tokio::select! {
            event = follow.next() => {
                let Some(event) = event else { break };
                // Serialising plain data does not fail.
                Message::text(serde_json::to_string(&*event).unwrap_or_default())
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    answered = true;
                    continue;
                }
            },
            _ = alive.tick() => {
                // A client that did not answer the last ping is gone.
                if !std::mem::take(&mut answered) {
                    return;
                }
                Message::Ping(Bytes::new())
            }
        };
        match tokio::time::timeout(ALIVE_EVERY, socket.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    // Fails if the client is already gone.
    let _ = socket.send(Message::Close(None)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time_ms("since", "1970-01-01T00:00:02Z").unwrap(), 2000);
        assert_eq!(time_ms("since", "1970-01-01T01:00:02.5 01:00").unwrap(), 2500);
        assert_eq!(time_ms("since", "-5").unwrap(), -5);
        assert!(time_ms("since", "yesterday").is_err());
    }
}
