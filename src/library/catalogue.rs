//! The files of a library: their paths, their contents, and the state of their analysis.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::database::{Transaction, on_connection, on_pool};
use super::scan::{self, Found, Scan};
use super::{Library, LibraryError, now_s, put_setting, queue};

/// Files entered per transaction.
const BATCH: usize = 200;
/// Setting: the folders that were added, one per line.
const ROOTS: &str = "roots";

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A video.
    Video,
    /// A photo.
    Photo,
}

impl Kind {
    /// As in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Photo => "photo",
        }
    }

    pub(super) fn of(text: &str) -> Self {
        if text == "photo" { Self::Photo } else { Self::Video }
    }
}

/// Progress of [`Library::add`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Adding<'a> {
    /// That many videos and photos were found in the folders.
    Found(usize),
    /// The content of a file was read.
    Read(&'a Path),
}

/// Result of [`Library::add`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Added {
    /// Files with new content: they are due.
    pub new: usize,
    /// Files that were there before, unchanged.
    pub known: usize,
    /// Files whose content is known from another path: copies, and files that were moved or renamed.
    pub elsewhere: usize,
    /// Paths in the folders at which a known file no longer exists.
    pub gone: usize,
    /// Paths that could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Counts of one kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindStatus {
    /// Files that were analysed.
    pub done: i64,
    /// Files that are not analysed yet.
    pub due: i64,
    /// Files that cannot be analysed.
    pub failed: i64,
    /// Frames analysed.
    pub frames: i64,
    /// Duration of the analysed videos, in nanoseconds.
    pub duration_ns: i64,
    /// Time spent on analysis, in milliseconds.
    pub work_ms: i64,
    /// Bytes of the analysed files.
    pub done_bytes: i64,
    /// Bytes of the files that are due.
    pub due_bytes: i64,
}

/// A file that cannot be analysed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedFile {
    /// Its path.
    pub path: String,
    /// The reason.
    pub error: String,
}

/// The state of a library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The videos.
    pub videos: KindStatus,
    /// The photos.
    pub photos: KindStatus,
    /// Files of the catalogue that no longer exist anywhere. Their analyses are kept.
    pub missing: i64,
    /// Tracks of faces.
    pub tracks: i64,
    /// Tracks with a name.
    pub named: i64,
    /// Workers that gave a sign of life in the last minute.
    pub workers: i64,
    /// The files that failed, by path.
    pub failures: Vec<FailedFile>,
}

impl Status {
    /// Files that are due.
    pub fn due(&self) -> i64 {
        self.videos.due + self.photos.due
    }

    /// Estimated seconds until everything due is done, at the rate so far and with the present workers (at
    /// least one). `None` if no file of that kind is done yet.
    pub fn left_s(&self) -> Option<f64> {
        let one = |kind: &KindStatus| match (kind.due, kind.done_bytes) {
            (0, _) => Some(0.0),
            (_, 0) => None,
            (_, done) => Some(kind.work_ms as f64 / done as f64 * kind.due_bytes as f64 / 1e3),
        };
        Some((one(&self.videos)? + one(&self.photos)?) / self.workers.max(1) as f64)
    }
}

/// A path and the file that was there.
struct Known {
    content: String,
    bytes: i64,
    modified_ns: i64,
    present: bool,
}

impl Library {
    /// Enters the videos and photos in `paths` and the folders below into the catalogue. Those with new
    /// content are due. Of files that no longer exist, only the path is forgotten. Hidden files and the
    /// library's own folder are skipped.
    ///
    /// # Errors
    /// When one of `paths` cannot be read, or the database fails.
    pub fn add(
        &self,
        paths: &[PathBuf],
        priority: u32,
        progress: &mut dyn FnMut(Adding<'_>),
    ) -> Result<Added, LibraryError> {
        let scan = scan::scan(paths, Some(&self.folder))?;
        self.add_scan(scan, priority, progress)
    }

    /// The same, but files that were changed less than `age` ago are skipped: they may still grow.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn add_settled(&self, paths: &[PathBuf], age: Duration) -> Result<Added, LibraryError> {
        let mut scan = scan::scan(paths, Some(&self.folder))?;
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let latest = now_s().saturating_mul(1_000_000_000).saturating_sub(age);
        let known = self.places()?;
        let same = |found: &Found| {
            let before = known.get(&found.path);
            before.is_some_and(|one| (one.bytes, one.modified_ns) == (found.bytes, found.modified_ns))
        };
        let (settled, growing) =
            scan.found.into_iter().partition(|found| found.modified_ns <= latest || same(found));
        scan.found = settled;
        scan.growing = growing;
        self.add_scan(scan, 0, &mut |_| {})
    }

    fn add_scan(
        &self,
        scan: Scan,
        priority: u32,
        progress: &mut dyn FnMut(Adding<'_>),
    ) -> Result<Added, LibraryError> {
        progress(Adding::Found(scan.found.len()));
        let mut added = Added { unreadable: scan.unreadable, ..Added::default() };
        let known = self.places()?;
        for batch in scan.found.chunks(BATCH) {
            let mut entries = Vec::with_capacity(batch.len());
            for found in batch {
                let before = known.get(&found.path);
                let same =
                    before.filter(|one| (one.bytes, one.modified_ns) == (found.bytes, found.modified_ns));
                let content = match same {
                    Some(one) => one.content.clone(),
                    None => match scan::content(Path::new(&found.path)) {
                        Ok(content) => content,
                        Err(error) => {
                            added.unreadable.push((found.path.clone().into(), error.to_string()));
                            continue;
                        }
                    },
                };
                progress(Adding::Read(Path::new(&found.path)));
                let unchanged = before.is_some_and(|one| one.present && one.content == content);
                entries.push((found, content, unchanged));
            }
            self.enter(&entries, priority, &mut added)?;
        }
        let here: BTreeSet<&str> =
            scan.found.iter().chain(&scan.growing).map(|found| found.path.as_str()).collect();
        let below = |path: &str| {
            let is_below = |root: &String| {
                path == root || path.strip_prefix(root.as_str()).is_some_and(|rest| rest.starts_with('/'))
            };
            scan.roots.iter().any(is_below)
        };
        let gone: Vec<&String> = known
            .iter()
            .filter(|(path, one)| one.present && below(path) && !here.contains(path.as_str()))
            .map(|(path, _)| path)
            .collect();
        added.gone = gone.len();
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            for path in &gone {
                on_connection!(&mut transaction, c => {
                    sqlx::query("UPDATE place SET present = 0 WHERE path = $1").bind(path.as_str()).execute(c).await.map(drop)
                })?;
            }
            transaction.commit().await
        })?;
        self.remember_roots(&scan.roots)?;
        Ok(added)
    }

    /// The folders and files that were added.
    ///
    /// # Errors
    /// When the database fails.
    pub fn roots(&self) -> Result<Vec<PathBuf>, LibraryError> {
        let text = self.setting(ROOTS)?.unwrap_or_default();
        Ok(text.lines().map(PathBuf::from).collect())
    }

    fn remember_roots(&self, roots: &[String]) -> Result<(), LibraryError> {
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            let stored: Option<(String,)> = on_connection!(&mut transaction, c => {
                sqlx::query_as("SELECT value FROM setting WHERE key = $1").bind(ROOTS).fetch_optional(c).await
            })?;
            let stored = stored.map(|(text,)| text).unwrap_or_default();
            let mut all: BTreeSet<&str> = stored.lines().collect();
            all.extend(roots.iter().map(String::as_str));
            let text = all.into_iter().collect::<Vec<_>>().join("\n");
            put_setting(&mut transaction, ROOTS, &text).await?;
            transaction.commit().await
        })
    }

    /// Whether a path is that of a video or photo of the library.
    ///
    /// # Errors
    /// When the database fails.
    pub fn has(&self, path: &Path) -> Result<bool, LibraryError> {
        let Some(whole) = path.canonicalize().ok().and_then(|whole| whole.to_str().map(str::to_owned)) else {
            return Ok(false);
        };
        let row: Option<(String,)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT content FROM place WHERE path = $1").bind(whole).fetch_optional(pool).await
            })
        })?;
        Ok(row.is_some())
    }

    /// Every known path.
    fn places(&self) -> Result<BTreeMap<String, Known>, LibraryError> {
        let rows: Vec<(String, String, i64, i64, i64)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT path, content, bytes, modified_ns, present FROM place").fetch_all(pool).await
            })
        })?;
        let known = rows.into_iter().map(|(path, content, bytes, modified_ns, present)| {
            (path, Known { content, bytes, modified_ns, present: present != 0 })
        });
        Ok(known.collect())
    }

    /// Enters files with their contents.
    fn enter(
        &self,
        entries: &[(&Found, String, bool)],
        priority: u32,
        added: &mut Added,
    ) -> Result<(), LibraryError> {
        let entered = self.runtime.block_on(async {
            let mut transaction = self.database.begin().await?;
            let mut new = Vec::new();
            for (found, content, unchanged) in entries {
                if *unchanged {
                    added.known += 1;
                    continue;
                }
                match enter_file(&mut transaction, found, content, priority).await? {
                    true => new.push(content.clone()),
                    false => added.elsewhere += 1,
                }
                enter_place(&mut transaction, found, content).await?;
            }
            added.new += new.len();
            queue::push(&mut transaction, &new, priority).await?;
            transaction.commit().await?;
            Ok(())
        });
        entered.map_err(|error| self.queue_failed(error))
    }

    /// The state of the library.
    ///
    /// # Errors
    /// When the database fails.
    pub fn status(&self) -> Result<Status, LibraryError> {
        type Row = (String, String, i64, i64, i64, i64, i64);
        let (rows, missing, tracks, failures, workers) = self.wait(async {
            let rows: Vec<Row> = on_pool!(&self.database, pool => {
                sqlx::query_as(
                    "SELECT kind, state, COUNT(*), CAST(COALESCE(SUM(frames), 0) AS BIGINT), \
                     CAST(COALESCE(SUM(duration_ns), 0) AS BIGINT), CAST(COALESCE(SUM(work_ms), 0) AS BIGINT), \
                     CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM file GROUP BY kind, state",
                )
                .fetch_all(pool)
                .await
            })?;
            let missing: (i64,) = on_pool!(&self.database, pool => {
                let nowhere = "SELECT COUNT(*) FROM file WHERE NOT EXISTS \
                               (SELECT 1 FROM place WHERE place.content = file.content AND present = 1)";
                sqlx::query_as(nowhere).fetch_one(pool).await
            })?;
            let tracks: (i64, i64) = on_pool!(&self.database, pool => {
                let counts = "SELECT COUNT(*), COUNT(CASE WHEN name <> '' THEN 1 END) FROM track";
                sqlx::query_as(counts).fetch_one(pool).await
            })?;
            let failures: Vec<(String, String)> = on_pool!(&self.database, pool => {
                let failed = "SELECT COALESCE((SELECT MIN(path) FROM place WHERE place.content = file.content), content), error \
                              FROM file WHERE state = 'failed' ORDER BY 1";
                sqlx::query_as(failed).fetch_all(pool).await
            })?;
            let workers = queue::workers(&self.database).await?;
            Ok((rows, missing.0, tracks, failures, workers))
        })?;
        let mut status = Status { missing, tracks: tracks.0, named: tracks.1, workers, ..Status::default() };
        for (kind, state, count, frames, duration_ns, work_ms, bytes) in rows {
            let part = if Kind::of(&kind) == Kind::Photo { &mut status.photos } else { &mut status.videos };
            match state.as_str() {
                "done" => {
                    part.done = count;
                    part.frames = frames;
                    part.duration_ns = duration_ns;
                    part.work_ms = work_ms;
                    part.done_bytes = bytes;
                }
                "due" => (part.due, part.due_bytes) = (count, bytes),
                _ => part.failed = count,
            }
        }
        status.failures = failures.into_iter().map(|(path, error)| FailedFile { path, error }).collect();
        Ok(status)
    }

    /// Makes files due again: those that failed, or with `all` every one. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub fn retry(&self, all: bool) -> Result<usize, LibraryError> {
        let due = self.runtime.block_on(async {
            let mut transaction = self.database.begin().await?;
            let rows: Vec<(String, i64)> = on_connection!(&mut transaction, c => {
                let which = match all {
                    true => "SELECT content, priority FROM file WHERE state <> 'due' ORDER BY content",
                    false => "SELECT content, priority FROM file WHERE state = 'failed' ORDER BY content",
                };
                sqlx::query_as(which).fetch_all(c).await
            })?;
            for (content, priority) in &rows {
                on_connection!(&mut transaction, c => {
                    sqlx::query("UPDATE file SET state = 'due', error = '' WHERE content = $1").bind(content).execute(c).await
                        .map(drop)
                })?;
                let content = std::slice::from_ref(content);
                queue::push(&mut transaction, content, u32::try_from(*priority).unwrap_or(0)).await?;
            }
            transaction.commit().await?;
            Ok(rows.len())
        });
        due.map_err(|error| self.queue_failed(error))
    }
}

/// Enters the content of a file. Returns whether it is new.
async fn enter_file(
    transaction: &mut Transaction,
    found: &Found,
    content: &str,
    priority: u32,
) -> Result<bool, sqlx::Error> {
    let kind = if found.photo { Kind::Photo } else { Kind::Video };
    let taken_s = scan::taken_s(found);
    on_connection!(transaction, c => {
        let statement = "INSERT INTO file (content, bytes, kind, taken_s, state, error, priority, added_s, done_s, work_ms, \
                         frames, duration_ns, width, height, model, names) \
                         VALUES ($1, $2, $3, $4, 'due', '', $5, $6, 0, 0, 0, 0, 0, 0, '', '') ON CONFLICT (content) DO UPDATE SET state = 'due', error = '' WHERE file.state = 'failed'";
        let query = sqlx::query(statement).bind(content).bind(found.bytes).bind(kind.name()).bind(taken_s);
        let done = query.bind(i64::from(priority)).bind(now_s()).execute(c).await?;
        Ok(done.rows_affected() == 1)
    })
}

async fn enter_place(transaction: &mut Transaction, found: &Found, content: &str) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        let statement = "INSERT INTO place (path, content, bytes, modified_ns, present) VALUES ($1, $2, $3, $4, 1) \
                         ON CONFLICT (path) DO UPDATE SET content = $2, bytes = $3, modified_ns = $4, present = 1";
        let query = sqlx::query(statement).bind(&found.path).bind(content).bind(found.bytes);
        query.bind(found.modified_ns).execute(c).await.map(drop)
    })
}
