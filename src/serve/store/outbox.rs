//! Undelivered events of webhooks and the broker.

use rusqlite::{OptionalExtension, Transaction, params};

use super::events::{COLUMNS, Event, Kind, read};
use super::{Store, StoreError, lock};
use crate::serve::now_ms;

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// The webhook, or the broker.
    pub name: String,
    /// Kinds of events.
    pub kinds: Vec<Kind>,
    /// Sources; empty for all.
    pub sources: Vec<String>,
}

/// An undelivered event of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub event: i64,
    /// Attempts that were refused.
    pub attempts: u32,
    /// Earliest time of the next attempt, in milliseconds since 1970.
    pub next_ms: i64,
}

impl Audience {
    fn hears(&self, kind: Kind, source: &str) -> bool {
        self.kinds.contains(&kind)
            && (self.sources.is_empty() || self.sources.iter().any(|one| one == source))
    }
}

impl Store {
    /// Sets the receivers of events from now on; undelivered events of other receivers are dropped.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_audiences(&self, audiences: Vec<Audience>) -> Result<(), StoreError> {
        let known: Vec<String> = self.with(|sql| {
            sql.prepare("SELECT DISTINCT hook FROM deliveries")?.query_map([], |row| row.get(0))?.collect()
        })?;
        for gone in known.iter().filter(|name| !audiences.iter().any(|one| one.name == **name)) {
            self.with(|sql| sql.execute("DELETE FROM deliveries WHERE hook = ?1", [gone]))?;
        }
        *lock(&self.audiences) = audiences;
        Ok(())
    }

    /// Enters an event for all its receivers, in the transaction of the event itself.
    pub(super) fn address(
        &self,
        transaction: &Transaction<'_>,
        event: i64,
        kind: Kind,
        source: &str,
    ) -> rusqlite::Result<()> {
        for one in lock(&self.audiences).iter().filter(|one| one.hears(kind, source)) {
            let insert = "INSERT INTO deliveries (hook, event, attempts, next_ms) VALUES (?1, ?2, 0, ?3)";
            transaction.execute(insert, params![one.name, event, now_ms()])?;
        }
        Ok(())
    }

    /// The next event to deliver to a webhook.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn next_delivery(&self, hook: &str) -> Result<Option<Delivery>, StoreError> {
        let ask =
            "SELECT event, attempts, next_ms FROM deliveries WHERE hook = ?1 ORDER BY next_ms, event LIMIT 1";
        self.with(|sql| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok(Delivery { event: row.get(0)?, attempts: row.get(1)?, next_ms: row.get(2)? })
            };
            sql.query_row(ask, [hook], read).optional()
        })
    }

    /// Marks an event of a webhook as delivered or dropped.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn delivered(&self, hook: &str, event: i64) -> Result<(), StoreError> {
        self.with(|sql| {
            sql.execute("DELETE FROM deliveries WHERE hook = ?1 AND event = ?2", params![hook, event])
        })?;
        Ok(())
    }

    /// Marks all these events as delivered.
    ///
    /// # Errors
    /// When SQLite fails; all of them are then delivered again.
    pub fn all_delivered(&self, hook: &str, events: &[i64]) -> Result<(), StoreError> {
        self.change(|sql| {
            let mut delete = sql.prepare("DELETE FROM deliveries WHERE hook = ?1 AND event = ?2")?;
            events.iter().try_for_each(|event| delete.execute(params![hook, event]).map(drop))
        })
    }

    /// The oldest undelivered events after the one of that number.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn undelivered_events(&self, hook: &str, after: i64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let ask = format!(
            "SELECT {COLUMNS} FROM events WHERE id IN (SELECT event FROM deliveries
             WHERE hook = ?1 AND event > ?2 ORDER BY event LIMIT ?3) ORDER BY id"
        );
        self.with(|sql| sql.prepare(&ask)?.query_map(params![hook, after, limit as i64], read)?.collect())
    }

    /// Postpones an event that a webhook refused.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn postponed(&self, hook: &str, event: i64, next_ms: i64) -> Result<(), StoreError> {
        let update =
            "UPDATE deliveries SET attempts = attempts + 1, next_ms = ?3 WHERE hook = ?1 AND event = ?2";
        self.with(|sql| sql.execute(update, params![hook, event, next_ms]))?;
        Ok(())
    }

    /// Number of undelivered events of a webhook.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn undelivered(&self, hook: &str) -> Result<u64, StoreError> {
        let ask = "SELECT COUNT(*) FROM deliveries WHERE hook = ?1";
        self.with(|sql| sql.query_row(ask, [hook], |row| row.get::<_, i64>(0)))
            .map(|count| count.unsigned_abs())
    }
}
