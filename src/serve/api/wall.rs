//! All sources on one connection, because browsers open only a few connections at a time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Interval;
use utoipa::ToSchema;

use super::sources::{SourceAnswer, answers};
use crate::serve::camera::Tile;
use crate::serve::problem::Problem;
use crate::serve::site::App;

/// Interval of new pictures.
const EVERY: Duration = Duration::from_millis(100);
/// Interval of the sources' states, in multiples of [`EVERY`].
const STATES_EVERY: u64 = 10;

/// News for the wall.
#[derive(Serialize, ToSchema)]
pub(super) struct WallNews {
    /// New pictures.
    tiles: Vec<TileAnswer>,
    /// All sources and their states, once per second.
    sources: Option<Vec<SourceAnswer>>,
}

/// A new picture of a source.
#[derive(Serialize, ToSchema)]
pub(super) struct TileAnswer {
    /// The source.
    source: String,
    /// The frame's number.
    frame: u64,
    /// The time from its arrival to the end of its analysis, in milliseconds.
    delay_ms: f64,
    /// The picture with names drawn: a JPEG in base64.
    jpeg: String,
}

/// Follow all sources with pictures
///
/// Server-sent events whose `data` is JSON.
#[utoipa::path(
    get, path = "/api/v1/wall", tag = "sources",
    responses((status = 200, content_type = "text/event-stream", body = WallNews), (status = 503, body = Problem))
)]
pub(super) async fn wall(State(site): State<App>) -> Result<Response, Problem> {
    let permit = site.may_stream()?;
    let watcher = Watcher {
        ending: site.ending.clone(),
        every: tokio::time::interval(EVERY),
        turn: 0,
        tiles: BTreeMap::new(),
        site,
        _permit: permit,
    };
    let news = stream::unfold(watcher, |mut watcher| async move {
        let news = watcher.next().await?;
        // Serialising plain data does not fail.
        let told = sse::Event::default().json_data(&news).unwrap_or_default();
        Some((Ok::<_, Infallible>(told), watcher))
    });
    Ok(Sse::new(news).keep_alive(KeepAlive::default()).into_response())
}

/// A viewer of all sources.
struct Watcher {
    site: App,
    tiles: BTreeMap<String, watch::Receiver<Option<Arc<Tile>>>>,
    every: Interval,
    turn: u64,
    ending: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// Waits for news; `None` when the service ends.
    async fn next(&mut self) -> Option<WallNews> {
        loop {
            tokio::select! {
                _ = self.every.tick() => {}
                _ = self.ending.wait_for(|ending| *ending) => return None,
            }
            let states = self.turn.is_multiple_of(STATES_EVERY);
            self.turn += 1;
            if states {
                self.keep_up();
            }
            let tiles: Vec<TileAnswer> = self.tiles.iter_mut().filter_map(new_tile).collect();
            if states || !tiles.is_empty() {
                return Some(WallNews { tiles, sources: states.then(|| answers(&self.site)) });
            }
        }
    }

    /// Follows sources that are added, removed or restarted.
    fn keep_up(&mut self) {
        let names = self.site.cameras.names();
        self.tiles.retain(|name, tiles| names.contains(name) && tiles.has_changed().is_ok());
        for name in names {
            if !self.tiles.contains_key(&name)
                && let Some(tiles) = self.site.cameras.tiles(&name)
            {
                self.tiles.insert(name, tiles);
            }
        }
    }
}

fn new_tile((source, tiles): (&String, &mut watch::Receiver<Option<Arc<Tile>>>)) -> Option<TileAnswer> {
    if !tiles.has_changed().unwrap_or(false) {
        return None;
    }
    let tile = tiles.borrow_and_update().clone()?;
    Some(TileAnswer {
        source: source.clone(),
        frame: tile.number,
        delay_ms: tile.delay_ms,
        jpeg: base64::engine::general_purpose::STANDARD.encode(&tile.jpeg),
    })
}
