//! The people in many videos and photos: a catalogue, a queue of files to analyse, and queries.
//!
//! A [`Library`] is a folder with an SQLite catalogue and one Parquet [analysis](crate::analysis) per file.
//! With a PostgreSQL database, the catalogue and the queue are in the database, and any number of machines
//! can work on it. A file is identified by its content: one that is moved, renamed or copied is analysed
//! once.
//!
//! Files are [added](Library::add) and analysed by [workers](Worker). The analyses are kept, so that names
//! follow the gallery without decoding anything again ([`Library::name_all`]). [`Library::find`] returns who
//! is in which file and when, and [`Library::strangers`] the people without a name.
//!
//! The functions here block on the database. Call them from a thread outside of an asynchronous runtime.

mod analyses;
mod catalogue;
mod database;
mod error;
mod export;
mod find;
mod forget;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod group;
mod look;
#[cfg(feature = "train")]
mod made;
mod naming;
mod page;
mod parts;
mod pictures;
mod plan;
mod queue;
mod scan;
mod shard;
mod shared;
mod strangers;
#[cfg(test)]
mod tests;
mod told;
mod work;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Runtime};

use analyses::Analyses;
use database::{Database, Transaction, on_connection, on_pool};

pub use catalogue::{Added, Adding, FailedFile, Kind, KindStatus, Status};
pub use error::LibraryError;
pub use export::ExportFormat;
pub use export::date;
pub use find::{Found, FoundFile, PersonSummary, Query, Subject, playlist};
pub use forget::Forgotten;
pub use look::LookOptions;
#[cfg(feature = "train")]
pub(crate) use made::group_vectors;
pub use naming::{Names, Renamed};
pub use page::{page, strangers_page};
pub use plan::Plan;
pub use shard::{Shard, ShardItem, ShardOutcome};
pub use shared::GalleryListener;
pub use strangers::{Stranger, StrangerTrack, Told};
pub use work::{Attempt, WorkEvent, WorkOptions, WorkSummary, Worker};

/// Setting: the address of the bucket of the analyses.
const ANALYSES_AT: &str = "analyses_at";
/// Name of the file that is locked while tables are created.
const LOCK: &str = "lock";
/// Pauses between attempts to reach an unavailable database.
const PAUSES_S: [u64; 6] = [1, 2, 4, 8, 15, 30];

/// A library of videos and photos.
#[derive(Debug)]
pub struct Library {
    runtime: Runtime,
    database: Database,
    folder: PathBuf,
    analyses: Analyses,
    place: String,
    /// Whether it was opened by a process that may only read it.
    snapshot: bool,
}

impl Library {
    /// Opens the library in a folder, or creates an empty one there.
    ///
    /// # Errors
    /// When the folder or its database cannot be used.
    pub fn create(folder: &Path) -> Result<Self, LibraryError> {
        fs::create_dir_all(folder)
            .map_err(|source| LibraryError::Write { path: folder.to_owned(), source })?;
        Self::in_folder(folder, true)
    }

    /// Opens the library in a folder. If this process may only read it, it can be searched but not changed.
    ///
    /// # Errors
    /// [`LibraryError::NoLibrary`] if there is none; otherwise as for [`create`](Self::create).
    pub fn open(folder: &Path) -> Result<Self, LibraryError> {
        match folder.join(database::FILE).is_file() {
            true => Self::in_folder(folder, false),
            false => Err(LibraryError::NoLibrary(folder.to_owned())),
        }
    }

    /// Opens the library in a PostgreSQL database, or creates an empty one there. Analyses are kept in
    /// `folder`, which all workers must be able to write to.
    ///
    /// # Errors
    /// When the address is not one of a PostgreSQL database, the database does not exist, or it or the folder
    /// cannot be used.
    pub fn connect(address: &str, folder: &Path) -> Result<Self, LibraryError> {
        if !address.starts_with("postgres://") && !address.starts_with("postgresql://") {
            return Err(LibraryError::Address(address.to_owned()));
        }
        let analyses = Analyses::in_library(folder)?;
        let place = without_password(address);
        let runtime = runtime()?;
        let failed = |source| LibraryError::Database { place: place.clone(), source };
        let database = runtime.block_on(Database::postgres(address)).map_err(failed)?;
        runtime.block_on(database.prepare(&place))?;
        Self { runtime, database, folder: folder.to_owned(), analyses, place, snapshot: false }.with_bucket()
    }

    fn in_folder(folder: &Path, create: bool) -> Result<Self, LibraryError> {
        let place = folder.display().to_string();
        let runtime = runtime()?;
        // Two processes that start at once would create the same tables.
        let path = folder.join(LOCK);
        let write = |source| LibraryError::Write { path: path.clone(), source };
        let failed = |source| LibraryError::Database { place: place.clone(), source };
        let lock = match fs::File::create(&path) {
            Ok(lock) => lock,
            Err(error) if !create && is_read_only(&error) => {
                let database = runtime.block_on(Database::sqlite_to_read(folder)).map_err(failed)?;
                runtime.block_on(database.check_version(&place))?;
                let analyses = Analyses::in_library(folder)?;
                return Self {
                    runtime,
                    database,
                    folder: folder.to_owned(),
                    analyses,
                    place,
                    snapshot: true,
                }
                .with_bucket();
            }
            Err(error) => return Err(write(error)),
        };
        lock.lock().map_err(write)?;
        let database = runtime.block_on(Database::sqlite(folder, create)).map_err(failed)?;
        runtime.block_on(database.prepare(&place))?;
        let analyses = Analyses::in_library(folder)?;
        Self { runtime, database, folder: folder.to_owned(), analyses, place, snapshot: false }.with_bucket()
    }

    /// Whether this process may only read the library. What others change in it later is not seen: it has to be
    /// opened again.
    pub fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    /// The folder of the analyses, and of the catalogue if it is SQLite.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder or database, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Opens the bucket of the analyses, if there is one.
    fn with_bucket(mut self) -> Result<Self, LibraryError> {
        if let Some(address) = self.setting(ANALYSES_AT)? {
            self.analyses = Analyses::at(&self.folder, &address, self.runtime.handle())?;
        }
        Ok(self)
    }

    /// Keeps the analyses of a library without analysed files in a bucket, `s3://BUCKET/FOLDER`, from now on.
    /// All programs that open the library then use it. Its region, endpoint and credentials are those of the
    /// environment (`AWS_REGION`, `AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`).
    ///
    /// # Errors
    /// [`LibraryError::Request`] for another address than the one in use, for a library that has analyses
    /// already, and for a program without the feature `s3`; when the database fails.
    pub fn keep_analyses_at(&mut self, address: &str) -> Result<(), LibraryError> {
        let address = address.trim_end_matches('/');
        match self.setting(ANALYSES_AT)? {
            Some(own) if own == address => return Ok(()),
            Some(own) => {
                let reason = format!("the library keeps its analyses at {own}, not at {address}");
                return Err(LibraryError::Request(reason));
            }
            None => {}
        }
        let analyses = Analyses::at(&self.folder, address, self.runtime.handle())?;
        let status = self.status()?;
        if status.videos.done + status.photos.done > 0 {
            let reason = format!(
                "the library has analyses in its folder already, so they cannot be kept at {address}"
            );
            return Err(LibraryError::Request(reason));
        }
        self.set_setting(ANALYSES_AT, address)?;
        self.analyses = analyses;
        Ok(())
    }

    /// Waits for a result of the database.
    fn wait<T>(&self, future: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LibraryError> {
        self.runtime.block_on(future).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: sqlx::Error) -> LibraryError {
        LibraryError::Database { place: self.place.clone(), source }
    }

    fn queue_failed(&self, cause: Box<dyn std::error::Error + Send + Sync>) -> LibraryError {
        let cause = match cause.downcast::<sqlx::Error>() {
            Ok(source) => return self.failed(*source),
            Err(other) => other,
        };
        let cause = match cause.downcast::<apalis_postgres::Error>() {
            Ok(error) => match *error {
                apalis_postgres::Error::Database(source) => return self.failed(source),
                other => other.into(),
            },
            Err(other) => other,
        };
        match cause.downcast::<apalis_sqlite::Error>() {
            Ok(error) => match *error {
                apalis_sqlite::Error::Database(source) => self.failed(source),
                other => LibraryError::Queue { place: self.place.clone(), cause: other.to_string() },
            },
            Err(other) => LibraryError::Queue { place: self.place.clone(), cause: other.to_string() },
        }
    }

    /// A stored setting.
    ///
    /// # Errors
    /// When the database fails.
    pub fn setting(&self, key: &str) -> Result<Option<String>, LibraryError> {
        let row: Option<(String,)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT value FROM setting WHERE key = $1").bind(key).fetch_optional(pool).await
            })
        })?;
        Ok(row.map(|(value,)| value))
    }

    /// Stores a setting.
    ///
    /// # Errors
    /// When the database fails.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<(), LibraryError> {
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            put_setting(&mut transaction, key, value).await?;
            transaction.commit().await
        })
    }
}

/// Whether a file cannot be written because this process may only read it.
fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

impl Drop for Library {
    /// Closes the connections in order: SQLite then writes its journal into the catalogue.
    fn drop(&mut self) {
        self.runtime.block_on(async { on_pool!(&self.database, pool => pool.close().await) });
    }
}

/// Stores a setting.
async fn put_setting(transaction: &mut Transaction, key: &str, value: &str) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2";
        sqlx::query(statement).bind(key).bind(value).execute(c).await.map(drop)
    })
}

/// Increments the number that shows whether the tracks have changed since they were grouped.
async fn tracks_changed(transaction: &mut Transaction) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO setting (key, value) VALUES ('tracks', '1') ON CONFLICT (key) \
                         DO UPDATE SET value = CAST(CAST(setting.value AS BIGINT) + 1 AS TEXT)";
        sqlx::query(statement).execute(c).await.map(drop)
    })
}

/// Records who changed what.
async fn note(transaction: &mut Transaction, what: &str) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO change (number, time_s, what) \
                         VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM change), $1, $2)";
        sqlx::query(statement).bind(now_s()).bind(what).execute(c).await.map(drop)
    })
}

fn runtime() -> Result<Runtime, LibraryError> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(LibraryError::Threads)
}

/// Seconds since 1970.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// An address for messages, without its password.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let rest = rest.rsplit_once('@').map_or(rest.to_owned(), |(user, host)| {
        let user = user.split(':').next().unwrap_or_default();
        format!("{user}@{host}")
    });
    format!("{scheme}://{}", rest.split('?').next().unwrap_or_default())
}

/// The name of the analysis of a file with that content.
fn analysis_name(content: &str) -> String {
    format!("{content}.parquet")
}
