//! The store of a service in SQLite: events, strangers, tokens and sources.
//!
//! One file, `service.sqlite3`, that other programs may read while the service runs. Times are milliseconds
//! since 1970.
//!
//! | table | row |
//! |---|---|
//! | `events` | a person appeared, was recognised, or left; with a picture |
//! | `strangers` | a person without a name, with their best picture and its embedding |
//! | `tokens` | the hash of a token |
//! | `settings` | a setting that was changed on a page |
//! | `sources` | a source that was added or changed by the API, or removed by it |
//! | `changes` | who changed what, and when |
//! | `jobs` | a video to label |
//! | `deliveries` | an event that is not yet delivered to a webhook or the MQTT broker (`mqtt:`) |
//!
//! Events are on the disk before they are sent (write-ahead log, `synchronous = FULL`), and deleted data is
//! overwritten (`secure_delete`).

mod events;
mod jobs;
mod outbox;
mod strangers;

pub(super) use events::rfc3339;
pub use events::{Event, EventQuery, Kind, NewEvent, Subject};
pub use jobs::{Job, JobState};
pub use outbox::{Audience, Delivery};
pub use strangers::{NewSight, Stranger, StrangerPicture};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{lock, now_ms};
use crate::embed::Embedding;

/// Events that a subscriber may lag behind before it must read the missed ones from the store.
const WAITING_EVENTS: usize = 1024;

/// How many days events and pictures are kept; 0 keeps them for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// For strangers.
    pub strangers_days: u32,
    /// For enrolled people.
    pub known_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { strangers_days: 7, known_days: 30 }
    }
}

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Raised when the tables change.
const LAYOUT: i64 = 3;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    person TEXT,
    stranger INTEGER,
    was TEXT,
    angle_deg REAL,
    why TEXT NOT NULL,
    picture BLOB,
    margin_deg REAL,
    checked INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (time_ms);
CREATE INDEX IF NOT EXISTS events_by_person ON events (person, id);
CREATE INDEX IF NOT EXISTS events_by_source ON events (source, id);
CREATE INDEX IF NOT EXISTS events_by_stranger ON events (stranger, id);
CREATE TABLE IF NOT EXISTS strangers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    visits INTEGER NOT NULL,
    last_source TEXT NOT NULL,
    weight REAL NOT NULL,
    model TEXT,
    embedding BLOB,
    picture BLOB NOT NULL,
    face_x REAL NOT NULL,
    face_y REAL NOT NULL,
    ignored INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS tokens (role TEXT PRIMARY KEY, hash BLOB NOT NULL, made_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (name TEXT PRIMARY KEY, settings TEXT);
CREATE TABLE IF NOT EXISTS changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    about TEXT
);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    input TEXT,
    state TEXT NOT NULL,
    reason TEXT,
    made_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    attempts INTEGER NOT NULL,
    people TEXT NOT NULL,
    renamed TEXT NOT NULL DEFAULT '[]'
);
CREATE TABLE IF NOT EXISTS deliveries (
    hook TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    PRIMARY KEY (hook, event)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_time ON deliveries (hook, next_ms, event);
CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event);
";

/// Columns that the tables of layout 1 lacked.
const FROM_LAYOUT_1: &str = "
BEGIN;
ALTER TABLE events ADD COLUMN margin_deg REAL;
ALTER TABLE events ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE strangers ADD COLUMN ignored INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
COMMIT;
";

/// The column that the table of jobs of layout 2 lacked. Layout 1 had no such table.
const FROM_LAYOUT_2: &str = "ALTER TABLE jobs ADD COLUMN renamed TEXT NOT NULL DEFAULT '[]'";

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder, or a file in it, cannot be created.
    #[error("{} cannot be written: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// SQLite fails.
    #[error("the store {} cannot be used: {source}", .path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A newer program wrote it.
    #[error("the store {} was written by a newer program (layout {found}): use that one", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
}

/// An entry of the record of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Time in milliseconds since 1970.
    pub time_ms: i64,
    /// The owner of the token.
    pub who: String,
    /// The change.
    pub what: String,
    /// The person or thing concerned; `None` after a person was forgotten.
    pub about: Option<String>,
}

/// The store of a service.
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
    told: broadcast::Sender<Arc<Event>>,
    /// Embeddings of strangers, to recognise them.
    known: Mutex<Vec<(i64, Embedding)>>,
    /// Strangers that were merged into others since the store was opened.
    merged: Mutex<BTreeMap<i64, i64>>,
    /// The receivers of events.
    audiences: Mutex<Vec<Audience>>,
}

impl Store {
    /// Opens the store in a folder, which is created if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be created, or the file is not a store.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        let path = folder.join("service.sqlite3");
        let sql = |source| StoreError::Sql { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(sql)?;
        private(&path);
        let found = prepare(&connection).map_err(sql)?;
        if found > LAYOUT {
            return Err(StoreError::Newer { path, found });
        }
        let (told, _) = broadcast::channel(WAITING_EVENTS);
        let store = Self {
            path,
            connection: Mutex::new(connection),
            told,
            known: Mutex::default(),
            merged: Mutex::default(),
            audiences: Mutex::default(),
        };
        store.remember_strangers()?;
        Ok(store)
    }

    /// Receives every event that is recorded from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.told.subscribe()
    }

    /// Deletes data older than the retention; returns the numbers of deleted events and strangers.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn sweep(&self, retention: Retention, now_ms: i64) -> Result<usize, StoreError> {
        let since = |days: u32| match days {
            0 => i64::MIN,
            days => now_ms - i64::from(days) * DAY_MS,
        };
        let (strangers, known) = (since(retention.strangers_days), since(retention.known_days));
        let gone = self.change(|sql| {
            Ok(sql.execute("DELETE FROM events WHERE person IS NULL AND time_ms < ?1", [strangers])?
                + sql.execute("DELETE FROM events WHERE person IS NOT NULL AND time_ms < ?1", [known])?
                + sql.execute("DELETE FROM strangers WHERE last_ms < ?1", [strangers])?)
        })?;
        if gone > 0 {
            self.empty_log()?;
            self.remember_strangers()?;
        }
        Ok(gone)
    }

    /// Adds an entry to the record of changes.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn note(&self, who: &str, what: &str, about: Option<&str>) -> Result<(), StoreError> {
        let insert = "INSERT INTO changes (time_ms, who, what, about) VALUES (?1, ?2, ?3, ?4)";
        self.with(|sql| sql.execute(insert, params![now_ms(), who, what, about]))?;
        Ok(())
    }

    /// The record of changes, the newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn notes(&self, limit: usize) -> Result<Vec<Note>, StoreError> {
        let ask = "SELECT time_ms, who, what, about FROM changes ORDER BY id DESC LIMIT ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Note { time_ms: row.get(0)?, who: row.get(1)?, what: row.get(2)?, about: row.get(3)? })
        };
        self.with(|sql| sql.prepare(ask)?.query_map([limit as i64], read)?.collect())
    }

    /// The hash of the token of a role.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn token(&self, role: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|sql| {
            sql.query_row("SELECT hash FROM tokens WHERE role = ?1", [role], |row| row.get(0)).optional()
        })
    }

    /// Sets the hash of the token of a role.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_token(&self, role: &str, hash: &[u8]) -> Result<(), StoreError> {
        self.with(|sql| {
            sql.execute("INSERT OR REPLACE INTO tokens VALUES (?1, ?2, ?3)", params![role, hash, now_ms()])
        })?;
        Ok(())
    }

    /// A setting that was changed on a page.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let ask = "SELECT value FROM settings WHERE key = ?1";
        self.with(|sql| sql.query_row(ask, [key], |row| row.get(0)).optional())
    }

    /// Changes such a setting, or removes it with `None`.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_setting(&self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.with(|sql| match value {
            Some(value) => sql.execute("INSERT OR REPLACE INTO settings VALUES (?1, ?2)", [key, value]),
            None => sql.execute("DELETE FROM settings WHERE key = ?1", [key]),
        })?;
        Ok(())
    }

    /// Sources that the API added or changed, as JSON; `None` for one that it removed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn sources(&self) -> Result<Vec<(String, Option<String>)>, StoreError> {
        self.with(|sql| {
            let mut ask = sql.prepare("SELECT name, settings FROM sources ORDER BY name")?;
            ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Stores a change of a source by the API.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_source(&self, name: &str, settings: Option<&str>) -> Result<(), StoreError> {
        self.with(|sql| {
            sql.execute("INSERT OR REPLACE INTO sources VALUES (?1, ?2)", params![name, settings])
        })?;
        Ok(())
    }

    /// Writes the log into the file and empties it, so that deleted data is in neither.
    fn empty_log(&self) -> Result<(), StoreError> {
        self.with(|sql| sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.sql()).map_err(|source| self.error(source))
    }

    /// Runs `work` in a transaction.
    fn change<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut sql = self.sql();
        let all = || -> rusqlite::Result<T> {
            let transaction = sql.transaction()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        let done = { all }();
        done.map_err(|source| self.error(source))
    }

    fn sql(&self) -> MutexGuard<'_, Connection> {
        lock(&self.connection)
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sql { path: self.path.clone(), source }
    }
}

/// Makes a file readable for its owner only, since it contains faces.
fn private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Fails on a file system without permissions.
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Sets SQLite up and creates the tables; returns their layout.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 1 {
        connection.execute_batch(FROM_LAYOUT_1)?;
    }
    if found <= LAYOUT {
        connection.execute_batch(TABLES)?;
        // The layout does not tell: that of an interrupted update of layout 1 is 2, without a table of jobs.
        let ask = "SELECT COUNT(*) FROM pragma_table_info('jobs') WHERE name = 'renamed'";
        let columns: i64 = connection.query_row(ask, [], |row| row.get(0))?;
        if columns == 0 {
            connection.execute_batch(FROM_LAYOUT_2)?;
        }
        connection.execute_batch(&format!("PRAGMA user_version = {LAYOUT}"))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
