//! Who came and went, and when.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use utoipa::{IntoParams, ToSchema};

use super::jpeg;
use crate::serve::problem::Problem;
use crate::serve::site::App;
use crate::serve::store::{Event, EventQuery, Kind};

/// A client hears something so often, even when nothing happens.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Milliseconds after which a client that lost the connection comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Which events are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    /// Of this person.
    person: Option<String>,
    /// Of this stranger, by number.
    stranger: Option<i64>,
    /// Of this source.
    source: Option<String>,
    /// appeared, recognised, corrected or left.
    kind: Option<String>,
    /// Not before: RFC 3339, or milliseconds since 1970.
    since: Option<String>,
    /// Before: RFC 3339, or milliseconds since 1970.
    until: Option<String>,
    /// With smaller numbers than this, to go on where the last answer ended.
    before: Option<i64>,
    /// With larger numbers than this.
    after: Option<i64>,
    /// So many at most, 1 to 1000; 100 without this.
    limit: Option<usize>,
}

/// Events, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The events.
    events: Vec<Event>,
}

impl EventsQuery {
    fn query(self) -> Result<EventQuery, Problem> {
        let limit = self.limit.unwrap_or(100);
        if !(1..=1000).contains(&limit) {
            return Err(Problem::bad(format!("limit={limit} makes no sense: give a number from 1 to 1000")));
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
    // A plus sign in an address is a space once it is read.
    let parsed = chrono::DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    parsed.map(|time| time.timestamp_millis()).map_err(|_| {
        let shown = text.escape_debug();
        Problem::bad(format!(
            "{name}={shown} is no time: write 2026-11-29T12:00:00Z, or milliseconds since 1970"
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
pub(super) async fn show(
    State(site): State<App>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<Event>, Problem> {
    let Path(id) = id?;
    let none = move || Problem::not_found(format!("there is no event {id}"));
    site.wait_for(move |site| Ok(Json(site.store.event(id)?.ok_or_else(none)?))).await
}

/// Show the picture of an event
#[utoipa::path(
    get, path = "/api/v1/events/{id}/picture", tag = "events", params(("id" = i64, Path)),
    responses((status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 404, body = Problem))
)]
pub(super) async fn picture(
    State(site): State<App>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let picture = site.wait_for(move |site| Ok(site.store.event_picture(id)?)).await?;
    jpeg(picture, "there is no such event, or it has no picture")
}

/// Where a stream of events begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StreamQuery {
    /// Begin with the events after this number, which are told first; the header `Last-Event-ID` does the same.
    after: Option<i64>,
}

/// Follow events as they happen
///
/// Server-sent events: `event` is the kind, `id` the number and `data` the event as JSON. Whoever comes again with the
/// last number misses nothing.
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
    let heard = site.store.subscribe();
    let after = match header.or(query?.0.after) {
        Some(after) => after,
        None => site.wait_for(|site| Ok(site.store.last_event()?)).await?,
    };
    let follow = Follow {
        ending: site.ending.clone(),
        site,
        heard,
        waiting: VecDeque::new(),
        last: after,
        behind: true,
        _permit: permit,
    };
    let events = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        let told = sse::Event::default().event(event.kind.to_string()).id(event.id.to_string());
        // Events are plain data, which serialises.
        let told = told.retry(AGAIN_AFTER).json_data(&*event).unwrap_or_default();
        Some((Ok::<_, Infallible>(told), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

/// A client that follows events.
struct Follow {
    site: App,
    heard: broadcast::Receiver<Arc<Event>>,
    waiting: VecDeque<Arc<Event>>,
    /// The last event that was told.
    last: i64,
    /// There may be events in the store that were neither told nor will be heard.
    behind: bool,
    ending: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; `None` when the service ends.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.last = event.id;
                return Some(event);
            }
            if self.behind {
                let missed = self.missed().await.ok()?;
                self.behind = !missed.is_empty();
                self.waiting.extend(missed);
                continue;
            }
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                _ = self.ending.wait_for(|ending| *ending) => return None,
            };
            match heard {
                Ok(event) if event.id > self.last => self.waiting.push_back(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Events of the store after the last that was told.
    async fn missed(&self) -> Result<Vec<Arc<Event>>, Problem> {
        let query = EventQuery { after: Some(self.last), oldest_first: true, ..EventQuery::default() };
        let missed = self.site.wait_for(move |site| Ok(site.store.events(&query)?)).await?;
        Ok(missed.into_iter().map(Arc::new).collect())
    }
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
