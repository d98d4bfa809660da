//! The database of a library: SQLite in its folder, or PostgreSQL for many machines.
//!
//! Every statement is written once and runs on both. `$1` is a parameter in both. SQLite stores any value in
//! a `BYTEA` column. Sums are cast, because PostgreSQL's sums of integers are decimal numbers.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Executor, PgPool, Postgres, Sqlite, SqlitePool};

use super::LibraryError;

/// Raised when the tables change.
const VERSION: i64 = 2;
/// How long a statement waits for another process that writes to the same SQLite file.
const BUSY: Duration = Duration::from_secs(60);
/// How long a connection to PostgreSQL may take.
const CONNECT: Duration = Duration::from_secs(20);
/// A session of PostgreSQL may do nothing for 20 s in the middle of a transaction. The statements of one follow each other
/// at once, so a longer pause means that the process is stopped or its machine is out of reach, and its locks would hold up
/// all others.
const STUCK: &str = "SET idle_in_transaction_session_timeout = '20s'";
/// The same where a file is read or written between two statements, perhaps a large one over a network.
const PAUSE: &str = "SET LOCAL idle_in_transaction_session_timeout = '600s'";
/// Connections: for the work, for the heartbeat, and spare ones.
const CONNECTIONS: u32 = 4;
/// Name of the SQLite file in the folder of a library.
pub(super) const FILE: &str = "catalogue.sqlite";

/// The tables, documented in docs/library.md. SQLite takes BIGINT for INTEGER.
const TABLES: [&str; 18] = [
    "CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS file (
        content TEXT PRIMARY KEY, bytes BIGINT NOT NULL, kind TEXT NOT NULL, taken_s BIGINT NOT NULL,
        state TEXT NOT NULL, error TEXT NOT NULL, priority BIGINT NOT NULL, added_s BIGINT NOT NULL,
        done_s BIGINT NOT NULL, work_ms BIGINT NOT NULL, frames BIGINT NOT NULL, duration_ns BIGINT NOT NULL,
        width BIGINT NOT NULL, height BIGINT NOT NULL, model TEXT NOT NULL, names TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS file_state ON file (state)",
    "CREATE INDEX IF NOT EXISTS file_names ON file (names)",
    "CREATE TABLE IF NOT EXISTS place (
        path TEXT PRIMARY KEY, content TEXT NOT NULL, bytes BIGINT NOT NULL, modified_ns BIGINT NOT NULL,
        present BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS place_content ON place (content)",
    "CREATE TABLE IF NOT EXISTS track (
        content TEXT NOT NULL, track BIGINT NOT NULL, start_ns BIGINT NOT NULL, end_ns BIGINT NOT NULL,
        frames BIGINT NOT NULL, best_frame BIGINT NOT NULL, views BIGINT NOT NULL, comparable BIGINT NOT NULL,
        name TEXT NOT NULL, angle_deg DOUBLE PRECISION NOT NULL, stranger BIGINT NOT NULL,
        x1 DOUBLE PRECISION NOT NULL, y1 DOUBLE PRECISION NOT NULL, x2 DOUBLE PRECISION NOT NULL,
        y2 DOUBLE PRECISION NOT NULL, PRIMARY KEY (content, track))",
    "CREATE INDEX IF NOT EXISTS track_name ON track (name, content, start_ns, end_ns, frames, track, angle_deg)",
    "CREATE INDEX IF NOT EXISTS track_stranger ON track (stranger, content, start_ns, end_ns, frames, track)",
    "CREATE TABLE IF NOT EXISTS template (
        content TEXT NOT NULL, track BIGINT NOT NULL, vector BYTEA NOT NULL, PRIMARY KEY (content, track))",
    "CREATE TABLE IF NOT EXISTS picture (
        content TEXT NOT NULL, track BIGINT NOT NULL, face TEXT NOT NULL, jpeg BYTEA NOT NULL,
        PRIMARY KEY (content, track))",
    "CREATE TABLE IF NOT EXISTS part (
        content TEXT NOT NULL, part BIGINT NOT NULL, from_ns BIGINT NOT NULL, until_ns BIGINT NOT NULL,
        state TEXT NOT NULL, remark TEXT NOT NULL, work_ms BIGINT NOT NULL, PRIMARY KEY (content, part))",
    "CREATE TABLE IF NOT EXISTS part_picture (
        content TEXT NOT NULL, part BIGINT NOT NULL, track BIGINT NOT NULL, face TEXT NOT NULL, jpeg BYTEA NOT NULL,
        PRIMARY KEY (content, part, track))",
    "CREATE TABLE IF NOT EXISTS grouped (
        content TEXT NOT NULL, track BIGINT NOT NULL, mark BIGINT NOT NULL, component TEXT NOT NULL,
        place BIGINT NOT NULL, PRIMARY KEY (content, track))",
    "CREATE TABLE IF NOT EXISTS told (
        content TEXT NOT NULL, track BIGINT NOT NULL, kind TEXT NOT NULL, number BIGINT NOT NULL, side BIGINT NOT NULL,
        name TEXT NOT NULL, frame BIGINT NOT NULL, x1 DOUBLE PRECISION NOT NULL, y1 DOUBLE PRECISION NOT NULL,
        x2 DOUBLE PRECISION NOT NULL, y2 DOUBLE PRECISION NOT NULL, PRIMARY KEY (content, track, kind, number))",
    "CREATE TABLE IF NOT EXISTS gallery_file (
        path TEXT PRIMARY KEY, digest TEXT NOT NULL, bytes BYTEA NOT NULL, change BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS gallery_gone (path TEXT PRIMARY KEY, change BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS change (
        number BIGINT NOT NULL, time_s BIGINT NOT NULL, what TEXT NOT NULL)",
];

/// A pool of connections to either database.
#[derive(Debug, Clone)]
pub(super) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction of either database. It is rolled back when it is dropped.
#[derive(Debug)]
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Runs an expression with the pool of either database.
macro_rules! on_pool {
    ($database:expr, $pool:ident => $body:expr) => {
        match $database {
            $crate::library::database::Database::Sqlite($pool) => $body,
            $crate::library::database::Database::Postgres($pool) => $body,
        }
    };
}

/// Runs an expression with the connection of a transaction of either database.
macro_rules! on_connection {
    ($transaction:expr, $connection:ident => $body:expr) => {
        match $transaction {
            $crate::library::database::Transaction::Sqlite(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
            $crate::library::database::Transaction::Postgres(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
        }
    };
}

pub(super) use {on_connection, on_pool};

impl Database {
    /// Opens the SQLite file in a folder; makes it if `create`.
    pub async fn sqlite(folder: &Path, create: bool) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join(FILE))
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            // Committed transactions survive the end of the process; a power failure may lose the last
            // second.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        Ok(Self::Sqlite(pool))
    }

    /// Opens the SQLite file in a folder that this process may only read.
    pub async fn sqlite_to_read(folder: &Path) -> Result<Self, sqlx::Error> {
        let path = folder.join(FILE);
        // Without a journal nobody writes; with one, its index is there, too. SQLite would create both.
        let is_idle = !folder.join(format!("{FILE}-wal")).exists();
        let options =
            SqliteConnectOptions::new().filename(path).read_only(true).immutable(is_idle).busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        Ok(Self::Sqlite(pool))
    }

    /// Checks that this program knows the tables, without writing anything.
    ///
    /// # Errors
    /// When they are newer, or older and have to be changed by a process that may write.
    pub async fn check_version(&self, place: &str) -> Result<(), LibraryError> {
        match self.version().await {
            Some(VERSION) => Ok(()),
            Some(found) if found > VERSION => {
                Err(LibraryError::Newer { place: place.to_owned(), found, known: VERSION })
            }
            _ => Err(LibraryError::Request(format!(
                "the catalogue of {place} must be brought up to date, and it can only be read: run `sphereface library status` as its owner"
            ))),
        }
    }

    /// Connects to a PostgreSQL database.
    pub async fn postgres(address: &str) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::from_str(address)?.application_name("sphereface");
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| Box::pin(async { connection.execute(STUCK).await.map(drop) }))
            .connect_with(options)
            .await?;
        Ok(Self::Postgres(pool))
    }

    /// Creates missing tables; returns the version of the tables.
    ///
    /// # Errors
    /// When the database fails, or its tables are newer than this program.
    pub async fn prepare(&self, place: &str) -> Result<(), LibraryError> {
        let failed = |source: sqlx::Error| LibraryError::Database { place: place.to_owned(), source };
        // Creating tables that exist would still lock them against writers.
        if self.version().await != Some(VERSION) {
            self.make_tables(place).await?;
        }
        self.prepare_queue().await.map_err(failed)
    }

    /// The version of the tables; `None` if there are none.
    async fn version(&self) -> Option<i64> {
        let stored: Result<(String,), _> = on_pool!(self, pool => {
            sqlx::query_as("SELECT value FROM setting WHERE key = 'version'").fetch_one(pool).await
        });
        stored.ok()?.0.parse().ok()
    }

    async fn make_tables(&self, place: &str) -> Result<(), LibraryError> {
        let failed = |source: sqlx::Error| LibraryError::Database { place: place.to_owned(), source };
        let mut transaction = self.begin().await.map_err(failed)?;
        // Two processes that start at once would create the same tables.
        if let Transaction::Postgres(transaction) = &mut transaction {
            let lock = sqlx::query("SELECT pg_advisory_xact_lock(7373)");
            lock.execute(&mut **transaction).await.map_err(failed)?;
        }
        for statement in TABLES {
            on_connection!(&mut transaction, c => sqlx::query(statement).execute(c).await.map(drop))
                .map_err(failed)?;
        }
        let stored: Option<(String,)> = on_connection!(&mut transaction, c => {
            sqlx::query_as("SELECT value FROM setting WHERE key = 'version'").fetch_optional(c).await
        })
        .map_err(failed)?;
        let found = stored.and_then(|(text,)| text.parse().ok()).unwrap_or(VERSION);
        if found > VERSION {
            return Err(LibraryError::Newer { place: place.to_owned(), found, known: VERSION });
        }
        on_connection!(&mut transaction, c => {
            sqlx::query("INSERT INTO setting (key, value) VALUES ('version', $1) ON CONFLICT (key) DO UPDATE SET value = $1")
                .bind(VERSION.to_string())
                .execute(c)
                .await
                .map(drop)
        })
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// The tables of the queue.
    async fn prepare_queue(&self) -> Result<(), sqlx::Error> {
        match self {
            // Not the crate's `setup`, which would also turn off synchronous writes.
            Self::Sqlite(pool) => apalis_sqlite::SqliteStorage::<()>::migrations().run(pool).await?,
            Self::Postgres(pool) => apalis_postgres::PostgresStorage::<()>::migrations().run(pool).await?,
        }
        Ok(())
    }

    /// Begins a transaction that will write.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        Ok(match self {
            // A transaction that begins by reading could not write while another process does.
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
        })
    }
}

impl Transaction {
    /// Allows pauses between the statements of this transaction, for files that are read or written meanwhile.
    pub async fn allow_pauses(&mut self) -> Result<(), sqlx::Error> {
        let Self::Postgres(transaction) = self else { return Ok(()) };
        sqlx::query(PAUSE).execute(&mut **transaction).await.map(drop)
    }

    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}
