//! Events in order, without gaps: first from the store, then as they happen.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use super::store::{Event, EventQuery, Store, StoreError};

/// A follower of events.
pub(super) struct Follow {
    store: Arc<Store>,
    heard: broadcast::Receiver<Arc<Event>>,
    waiting: VecDeque<Arc<Event>>,
    /// Number of the last event returned.
    last: i64,
    /// Whether the store may have events that were not returned and will not be received.
    behind: bool,
    ending: watch::Receiver<bool>,
}

impl Follow {
    /// Follows the events after the one of that number, or those from now on.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn after(
        store: &Arc<Store>,
        after: Option<i64>,
        ending: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let heard = store.subscribe();
        let last = match after {
            Some(after) => after,
            None => {
                let store = Arc::clone(store);
                blocking(move || store.last_event()).await?
            }
        };
        Ok(Self { store: Arc::clone(store), heard, waiting: VecDeque::new(), last, behind: true, ending })
    }

    /// The next event; `None` when the service ends, or the store fails. No event is lost if this call is
    /// cancelled.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
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

    /// Events of the store after the last one returned.
    async fn missed(&self) -> Result<Vec<Arc<Event>>, StoreError> {
        let query = EventQuery { after: Some(self.last), oldest_first: true, ..EventQuery::default() };
        let store = Arc::clone(&self.store);
        let missed = blocking(move || store.events(&query)).await?;
        Ok(missed.into_iter().map(Arc::new).collect())
    }
}

/// Runs `work` on a thread that may block on a disk.
async fn blocking<T: Default + Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // It is cancelled only when the service ends.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Ok(T::default()))
}
