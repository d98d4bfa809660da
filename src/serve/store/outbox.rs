//! What webhooks and the broker are still to be told.

use rusqlite::{OptionalExtension, Transaction, params};

use super::events::{COLUMNS, Event, Kind, read};
use super::{Store, StoreError, lock};
use crate::serve::now_ms;

/// Who is to be told of which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// The webhook, or the broker.
    pub name: String,
    /// Kinds of events.
    pub kinds: Vec<Kind>,
    /// Sources; none for all.
    pub sources: Vec<String>,
}

/// An event that a webhook is still to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub event: i64,
    /// Attempts that it was refused at.
    pub attempts: u32,
    /// Not before, in milliseconds since 1970.
    pub next_ms: i64,
}

impl Audience {
    fn hears(&self, kind: Kind, source: &str) -> bool {
        self.kinds.contains(&kind)
            && (self.sources.is_empty() || self.sources.iter().any(|one| one == source))
    }
}

impl Store {
    /// Sets who is told of what is recorded from now on; what others were still to be told is dropped.
    ///
    /// # Errors
    /// When SQLite refuses.
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

    /// Puts an event down for everybody who is to hear of it, together with the event itself.
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

    /// The event that a webhook is to be told of next.
    ///
    /// # Errors
    /// When SQLite refuses.
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

    /// A webhook was told of an event, or never will be.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn delivered(&self, hook: &str, event: i64) -> Result<(), StoreError> {
        self.with(|sql| {
            sql.execute("DELETE FROM deliveries WHERE hook = ?1 AND event = ?2", params![hook, event])
        })?;
        Ok(())
    }

    /// Somebody was told of all these events.
    ///
    /// # Errors
    /// When SQLite refuses; all of them are told again then.
    pub fn all_delivered(&self, hook: &str, events: &[i64]) -> Result<(), StoreError> {
        self.change(|sql| {
            let mut delete = sql.prepare("DELETE FROM deliveries WHERE hook = ?1 AND event = ?2")?;
            events.iter().try_for_each(|event| delete.execute(params![hook, event]).map(drop))
        })
    }

    /// The first events after the one of that number that somebody is still to be told of, from the oldest on.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn undelivered_events(&self, hook: &str, after: i64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let ask = format!(
            "SELECT {COLUMNS} FROM events WHERE id IN (SELECT event FROM deliveries
             WHERE hook = ?1 AND event > ?2 ORDER BY event LIMIT ?3) ORDER BY id"
        );
        self.with(|sql| sql.prepare(&ask)?.query_map(params![hook, after, limit as i64], read)?.collect())
    }

    /// A webhook refused an event, and is told again then.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn postponed(&self, hook: &str, event: i64, next_ms: i64) -> Result<(), StoreError> {
        let update =
            "UPDATE deliveries SET attempts = attempts + 1, next_ms = ?3 WHERE hook = ?1 AND event = ?2";
        self.with(|sql| sql.execute(update, params![hook, event, next_ms]))?;
        Ok(())
    }

    /// Events that a webhook is still to be told of.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn undelivered(&self, hook: &str) -> Result<u64, StoreError> {
        let ask = "SELECT COUNT(*) FROM deliveries WHERE hook = ?1";
        self.with(|sql| sql.query_row(ask, [hook], |row| row.get::<_, i64>(0)))
            .map(|count| count.unsigned_abs())
    }
}
