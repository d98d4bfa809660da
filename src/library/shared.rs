//! A gallery shared by all workers of a database: the files of a gallery folder, stored in the database.
//!
//! The database is authoritative and has a number that every change increments. A worker holds a copy in its
//! own folder, from which the gallery is searched as any other: exactly, in memory. Nothing is lost in either
//! direction, because the files themselves are stored: stills, crops, embeddings, counter-examples and the
//! calibrated threshold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::panic::resume_unwind;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use sqlx::postgres::PgListener;

use super::database::{Database, Transaction, on_connection, on_pool};
use super::{Library, LibraryError, note, put_setting};
use crate::file;

/// Setting: the number of the last change.
const CHANGE: &str = "gallery_change";
/// The channel of PostgreSQL on which changes are announced.
const CHANNEL: &str = "sphereface_gallery";
/// Polling interval for SQLite, which has no notifications.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// File in a folder with the number of the change that it is a copy of.
const BASE: &str = ".shared";
/// The file of a person that lists the others: written last and removed first.
const INDEX: &str = "person.json";
/// Files that are fetched and written together: a gallery may be larger than memory.
const AT_ONCE: usize = 16;

impl Library {
    /// The number of the last change of the shared gallery; 0 if there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub fn gallery_change(&self) -> Result<i64, LibraryError> {
        Ok(self.setting(CHANGE)?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Makes the shared gallery equal to a folder. Returns the number of this change, or the current one if
    /// nothing differs.
    ///
    /// # Errors
    /// [`LibraryError::GalleryChanged`] if the shared gallery is not the one that the folder is a copy of,
    /// unless `replace`; [`LibraryError::Request`] if it is not such a copy and nobody is enrolled there; when the
    /// folder cannot be read or the database fails.
    pub fn put_gallery(&self, folder: &Path, replace: bool) -> Result<i64, LibraryError> {
        let files = files(folder)?;
        let base = base(folder, &self.place);
        let is_gallery = || files.keys().any(|path| path.rsplit('/').next() == Some(INDEX));
        if base == 0 && !is_gallery() {
            let reason = format!("nobody is enrolled in {}: it is not a gallery", folder.display());
            return Err(LibraryError::Request(reason));
        }
        let mut unread = None;
        let change = self.wait(async {
            let mut transaction = self.database.begin().await?;
            transaction.allow_pauses().await?;
            if let Transaction::Postgres(transaction) = &mut transaction {
                // One writer at a time: the second one sees the change of the first.
                sqlx::query("SELECT pg_advisory_xact_lock(7374)").execute(&mut **transaction).await?;
            }
            let stored: Option<(String,)> = on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT value FROM setting WHERE key = $1").bind(CHANGE).fetch_optional(c).await
            })?;
            let present: i64 = stored.and_then(|(text,)| text.parse().ok()).unwrap_or(0);
            if present != 0 && present != base && !replace {
                return Ok(None);
            }
            let rows: Vec<(String, String)> = on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT path, digest FROM gallery_file").fetch_all(c).await
            })?;
            let before: BTreeMap<String, String> = rows.into_iter().collect();
            let change = present + 1;
            let mut changed = false;
            for (path, place) in &files {
                // One at a time: a gallery may be larger than memory.
                let bytes = match fs::read(place) {
                    Ok(bytes) => bytes,
                    Err(source) => {
                        unread = Some(LibraryError::Read { path: place.clone(), source });
                        return Ok(None);
                    }
                };
                let digest = blake3::hash(&bytes).to_hex().to_string();
                if before.get(path) == Some(&digest) {
                    continue;
                }
                changed = true;
                on_connection!(&mut transaction, c => {
                    let statement = "INSERT INTO gallery_file (path, digest, bytes, change) VALUES ($1, $2, $3, $4) \
                                     ON CONFLICT (path) DO UPDATE SET digest = $2, bytes = $3, change = $4";
                    let query = sqlx::query(statement).bind(path).bind(&digest).bind(bytes.as_slice());
                    query.bind(change).execute(c).await.map(drop)
                })?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("DELETE FROM gallery_gone WHERE path = $1").bind(path).execute(c).await.map(drop)
                })?;
            }
            for path in before.keys().filter(|path| !files.contains_key(*path)) {
                changed = true;
                on_connection!(&mut transaction, c => {
                    sqlx::query("DELETE FROM gallery_file WHERE path = $1").bind(path).execute(c).await.map(drop)
                })?;
                on_connection!(&mut transaction, c => {
                    let statement = "INSERT INTO gallery_gone (path, change) VALUES ($1, $2) \
                                     ON CONFLICT (path) DO UPDATE SET change = $2";
                    sqlx::query(statement).bind(path).bind(change).execute(c).await.map(drop)
                })?;
            }
            if !changed && present > 0 {
                return Ok(Some(present));
            }
            put_setting(&mut transaction, CHANGE, &change.to_string()).await?;
            note(&mut transaction, "the shared gallery was changed").await?;
            if let Transaction::Postgres(transaction) = &mut transaction {
                // Sent when the transaction is committed.
                let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(change.to_string());
                notify.execute(&mut **transaction).await?;
            }
            transaction.commit().await?;
            Ok(Some(change))
        })?;
        if let Some(error) = unread {
            return Err(error);
        }
        let change = change.ok_or_else(|| LibraryError::GalleryChanged(folder.to_owned()))?;
        set_base(folder, &self.place, change)?;
        Ok(change)
    }

    /// Brings a folder up to date with the shared gallery: a copy of an earlier state, or an empty or new
    /// folder. Returns the number of the change that it is a copy of now.
    ///
    /// # Errors
    /// [`LibraryError::Request`] if there is no shared gallery, or the folder holds something else; when it
    /// cannot be written or the database fails.
    pub fn get_gallery(&self, folder: &Path) -> Result<i64, LibraryError> {
        let since = base(folder, &self.place);
        let there = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if since == 0 && there {
            let reason =
                format!("{} is not a copy of the shared gallery: use a new folder", folder.display());
            return Err(LibraryError::Request(reason));
        }
        // A dropped transaction returns to its pool, which needs the runtime.
        let _inside = self.runtime.enter();
        // One transaction, so that all reads are consistent.
        let (mut transaction, change, gone): (Transaction, i64, Vec<(String,)>) = self.wait(async {
            let mut transaction = self.database.begin().await?;
            if let Transaction::Postgres(transaction) = &mut transaction {
                sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut **transaction).await?;
            }
            transaction.allow_pauses().await?;
            let stored: Option<(String,)> = on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT value FROM setting WHERE key = $1").bind(CHANGE).fetch_optional(c).await
            })?;
            let change: i64 = stored.and_then(|(text,)| text.parse().ok()).unwrap_or(0);
            let gone = on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT path FROM gallery_gone WHERE change > $1 ORDER BY path")
                    .bind(since).fetch_all(c).await
            })?;
            Ok((transaction, change, gone))
        })?;
        if change == 0 {
            return Err(LibraryError::Request("the library has no shared gallery".into()));
        }
        let is_index = |path: &str| path.rsplit('/').next() == Some(INDEX);
        let (first, last): (Vec<_>, Vec<_>) =
            gone.into_iter().map(|(path,)| path).partition(|path| is_index(path));
        for path in first.iter().chain(&last) {
            remove(folder, path)?;
        }
        let paths: Vec<(String,)> = self.wait(async {
            on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT path FROM gallery_file WHERE change > $1").bind(since).fetch_all(c).await
            })
        })?;
        let (last, first): (Vec<_>, Vec<_>) =
            paths.into_iter().map(|(path,)| path).partition(|path| is_index(path));
        for mut paths in [first, last] {
            paths.sort_unstable();
            self.fetch_into(folder, &mut transaction, &paths)?;
        }
        self.wait(transaction.commit())?;
        fs::create_dir_all(folder)
            .map_err(|source| LibraryError::Write { path: folder.to_owned(), source })?;
        set_base(folder, &self.place, change)?;
        Ok(change)
    }

    /// Writes these files of the shared gallery into a folder.
    fn fetch_into(
        &self,
        folder: &Path,
        transaction: &mut Transaction,
        paths: &[String],
    ) -> Result<(), LibraryError> {
        for paths in paths.chunks(AT_ONCE) {
            let mut files = Vec::with_capacity(AT_ONCE);
            for path in paths {
                let (bytes,): (Vec<u8>,) = self.wait(async {
                    on_connection!(&mut *transaction, c => {
                        sqlx::query_as("SELECT bytes FROM gallery_file WHERE path = $1").bind(path).fetch_one(c).await
                    })
                })?;
                files.push((inside(folder, path)?, bytes));
            }
            let write = |(place, bytes): &(PathBuf, Vec<u8>)| {
                let failed = |source: io::Error| LibraryError::Write { path: place.clone(), source };
                place.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
                file::write(place, bytes).map_err(failed)
            };
            // Each thread waits until its file is on the disk; in parallel, the waits overlap.
            thread::scope(|scope| {
                let writers: Vec<_> = files.iter().map(|file| scope.spawn(|| write(file))).collect();
                let results = writers
                    .into_iter()
                    .map(|writer| writer.join().unwrap_or_else(|panic| resume_unwind(panic)));
                results.collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()
            })?;
        }
        Ok(())
    }

    /// Files and bytes of the shared gallery.
    ///
    /// # Errors
    /// When the database fails.
    pub fn gallery_size(&self) -> Result<(i64, i64), LibraryError> {
        self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT COUNT(*), CAST(COALESCE(SUM(LENGTH(bytes)), 0) AS BIGINT) FROM gallery_file")
                    .fetch_one(pool).await
            })
        })
    }
}

/// Waits for changes of the shared gallery.
pub struct GalleryListener<'a> {
    library: &'a Library,
    listener: Option<PgListener>,
    /// The number of the last known change.
    change: i64,
}

impl Drop for GalleryListener<'_> {
    /// The connection returns to its pool, which needs the runtime.
    fn drop(&mut self) {
        let _inside = self.library.runtime.enter();
        drop(self.listener.take());
    }
}

impl GalleryListener<'_> {
    /// Waits until the shared gallery changes, but at most `limit`. Returns whether it has changed.
    ///
    /// # Errors
    /// When the database fails.
    pub fn wait(&mut self, limit: Duration) -> Result<bool, LibraryError> {
        match &mut self.listener {
            Some(listener) => {
                // The listener itself reconnects a lost connection, but may have missed changes.
                let heard = async { tokio::time::timeout(limit, listener.try_recv()).await };
                if let Ok(heard) = self.library.runtime.block_on(heard) {
                    heard.map_err(|source| self.library.failed(source))?;
                }
            }
            None => std::thread::sleep(limit.min(ASK_AGAIN)),
        }
        let change = self.library.gallery_change()?;
        Ok(std::mem::replace(&mut self.change, change) != change)
    }
}

impl Library {
    /// Begins to listen to changes of the shared gallery.
    ///
    /// # Errors
    /// When the database fails.
    pub fn listen(&self) -> Result<GalleryListener<'_>, LibraryError> {
        let listener = self.wait(async {
            let Database::Postgres(pool) = &self.database else { return Ok(None) };
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            Ok(Some(listener))
        })?;
        Ok(GalleryListener { library: self, listener, change: self.gallery_change()? })
    }
}

/// The files of a gallery by their path in it. Files that begin with a dot are omitted, because they are made
/// again when they are needed.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, LibraryError> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    let mut visited = BTreeSet::new();
    while let Some(place) = waiting.pop() {
        let read = |path: &Path, source| LibraryError::Read { path: path.to_owned(), source };
        if !visited.insert(place.canonicalize().map_err(|error| read(&place, error))?) {
            continue;
        }
        for entry in fs::read_dir(&place).map_err(|error| read(&place, error))? {
            let path = entry.map_err(|error| read(&place, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || file::is_temporary(&name) {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let relative = path.strip_prefix(folder).unwrap_or(&path);
            let text = relative.to_str().ok_or_else(|| LibraryError::Path(path.clone()))?;
            let text = text.replace(std::path::MAIN_SEPARATOR, "/");
            files.insert(text, path);
        }
    }
    Ok(files)
}

/// The path of a database file in a folder. A path from the database must not lead out of the folder.
fn inside(folder: &Path, path: &str) -> Result<PathBuf, LibraryError> {
    let relative = Path::new(path);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.is_empty() {
        return Err(LibraryError::Request(format!("the shared gallery holds a file with the path `{path}`")));
    }
    Ok(folder.join(relative))
}

/// Removes a file, and the folders that are empty without it.
fn remove(folder: &Path, path: &str) -> Result<(), LibraryError> {
    let place = inside(folder, path)?;
    match fs::remove_file(&place) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(LibraryError::Write { path: place, source });
        }
        _ => {}
    }
    let parents = place.ancestors().skip(1).take_while(|parent| *parent != folder);
    parents.take_while(|parent| fs::remove_dir(parent).is_ok()).count();
    Ok(())
}

/// The change of the library at `place` that a folder is a copy of.
fn base(folder: &Path, place: &str) -> i64 {
    let text = fs::read_to_string(folder.join(BASE)).unwrap_or_default();
    let (change, of) = text.trim_end().split_once(' ').unwrap_or_default();
    if of == place { change.parse().unwrap_or(0) } else { 0 }
}

fn set_base(folder: &Path, place: &str, change: i64) -> Result<(), LibraryError> {
    let path = folder.join(BASE);
    let written = file::write(&path, format!("{change} {place}\n").as_bytes());
    written.map_err(|source| LibraryError::Write { path, source })
}
