//! Looking at the files that are due.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use serde::{Deserialize, Serialize};

use super::catalogue::Kind;
use super::database::{Transaction, on_connection, on_pool};
use super::look::{Failure, Look};
use super::naming::{self, Names};
use super::queue::{ATTEMPTS, Claim, Member, Outcome};
use super::{ANALYSES, Library, LibraryError, PAUSES_S, now_s, scan, told, tracks_changed};
use crate::analysis::Analysis;
use crate::detect::{Face, Quality};
use crate::discover;
use crate::engine::{DetectEvery, Engine};
use crate::file;
use crate::media;
use crate::pipeline::Control;
use crate::track::{self, Observation, TrackId};

/// How long a worker waits when files are due that others work on.
const IDLE: Duration = Duration::from_millis(500);
/// Largest side of the box of a face in a stored picture, in pixels: the crop for the network is 112 pixels high.
const FACE_PX: f32 = 160.0;
/// Quality of stored pictures.
const JPEG_QUALITY: u8 = 90;
/// Age at which the beginning of an analysis is nobody's any more.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);
/// How long results wait for a database that is away, in pauses.
const MOST_PAUSES: usize = 40;

/// How a worker works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkOptions {
    /// Interval between searches of whole frames.
    pub detect_every: DetectEvery,
    /// Whether the best picture of every track is stored: for pages, and to name strangers without decoding. The video is
    /// then decoded a second time, up to the last picture.
    pub pictures: bool,
    /// How often a worker tells that it is alive. One that has not done so three times is taken for dead.
    pub heartbeat: Duration,
    /// Whether to wait for files that other workers are looking at, in case these die.
    pub wait_for_others: bool,
    /// Most files to look at.
    pub most: Option<usize>,
}

impl Default for WorkOptions {
    fn default() -> Self {
        Self {
            detect_every: DetectEvery::Auto,
            pictures: true,
            heartbeat: Duration::from_secs(10),
            wait_for_others: true,
            most: None,
        }
    }
}

/// What tells whether people are named by others now.
type Fresh<'a> = Box<dyn FnMut() -> Result<Option<Names>, LibraryError> + 'a>;

/// Looks at the files of a library, one after the other, on all threads of its engine.
pub struct Worker<'a> {
    library: &'a Library,
    engine: &'a Engine,
    names: Names,
    fresh: Option<Fresh<'a>>,
    options: WorkOptions,
    member: Member,
}

/// What a worker reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkEvent<'a> {
    /// A file is begun.
    Begun {
        /// Where it is.
        path: &'a Path,
        /// Files that are due, this one among them.
        due: i64,
    },
    /// Frames of it are done.
    Frames {
        /// Frames so far.
        done: u64,
        /// Frames expected, where known.
        all: Option<u64>,
    },
    /// A file was looked at.
    Ended(&'a Attempt),
    /// Files are due, but other workers look at them.
    Waiting,
    /// The database is away, and will be asked again.
    Away {
        /// What it says.
        cause: &'a str,
        /// When it will be asked again, in seconds.
        pause_s: u64,
    },
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where it is.
    pub path: PathBuf,
    /// Tracks of faces in it.
    pub tracks: usize,
    /// Those with a name.
    pub named: usize,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Whether it will be tried again after a failure.
    pub again: bool,
    /// Whether another worker had taken it meanwhile, so that this result was dropped.
    pub lost: bool,
}

/// Result of [`Worker::work`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkSummary {
    /// Files looked at.
    pub done: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// Results that were dropped because another worker had taken the file.
    pub lost: usize,
    /// Whether it was stopped before everything due was done.
    pub stopped: bool,
}

/// A face in a stored picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PictureFace {
    pub face: Face,
    pub quality: Quality,
    pub frame: u64,
}

/// What the catalogue holds of a track.
struct TrackRow {
    track: TrackId,
    start_ns: u64,
    end_ns: u64,
    frames: usize,
    best: usize,
    views: usize,
    comparable: bool,
    name: String,
    angle_deg: f64,
    template: Option<Vec<u8>>,
    picture: Option<(String, Vec<u8>)>,
}

/// A file that was looked at.
struct Seen {
    analysis: Analysis,
    tracks: Vec<TrackRow>,
    /// Why it ends early, if it does.
    remark: String,
}

impl<'a> Worker<'a> {
    /// A worker on `library` that names people by `names`.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn new(
        library: &'a Library,
        engine: &'a Engine,
        names: &Names,
        options: WorkOptions,
    ) -> Result<Self, LibraryError> {
        /// Several workers of one process need names of their own.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = blake3::hash(format!("{:?}", std::time::SystemTime::now()).as_bytes()).to_hex();
        let name = format!("{}-{number}-{}", std::process::id(), &unique[..12]);
        let member = Member::new(&name, options.heartbeat);
        let registered = library.runtime.block_on(member.register(&library.database));
        registered.map_err(|error| library.queue_failed(error))?;
        library.check_model(engine)?;
        library.sweep();
        Ok(Self { library, engine, names: names.clone(), fresh: None, options, member })
    }

    /// Asks before every file whether people are named by others from now on: for a gallery that changes meanwhile.
    pub fn follow(mut self, fresh: impl FnMut() -> Result<Option<Names>, LibraryError> + 'a) -> Self {
        self.fresh = Some(Box::new(fresh));
        self
    }

    /// Looks at files until none is due, or `control` says stop: then the file at hand is given back.
    ///
    /// # Errors
    /// When the database refuses, or stays away for ten minutes. A file that cannot be read is no error.
    pub fn work(
        &mut self,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
    ) -> Result<WorkSummary, LibraryError> {
        let mut summary = WorkSummary::default();
        let result = self.work_on(control, each, &mut summary);
        // Its tasks are free at once, not only when it counts as dead.
        let _ = self.library.runtime.block_on(self.member.leave(&self.library.database));
        result.map(|()| summary)
    }

    fn work_on(
        &mut self,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
        summary: &mut WorkSummary,
    ) -> Result<(), LibraryError> {
        let library = self.library;
        let mut waiting = false;
        loop {
            if control.is_stopping() {
                summary.stopped = true;
                return Ok(());
            }
            if self.options.most.is_some_and(|most| summary.done + summary.failed >= most) {
                return Ok(());
            }
            let next = || {
                let next = library.runtime.block_on(self.member.next(&library.database));
                next.map_err(|error| library.queue_failed(error))
            };
            let Some(claim) = self.patiently(control, each, next)? else {
                let due = self.patiently(control, each, || library.due())?;
                if due == 0 || !self.options.wait_for_others {
                    return Ok(());
                }
                if !waiting {
                    each(WorkEvent::Waiting);
                }
                waiting = true;
                std::thread::sleep(IDLE);
                continue;
            };
            waiting = false;
            if let Some(names) = self.fresh.as_mut().map(|fresh| fresh()).transpose()?.flatten() {
                self.names = names;
            }
            self.work_on_file(&claim, control, each, summary)?;
        }
    }

    /// Looks at one file and stores what was seen, or why it could not be seen.
    fn work_on_file(
        &self,
        claim: &Claim,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
        summary: &mut WorkSummary,
    ) -> Result<(), LibraryError> {
        let library = self.library;
        let started = Instant::now();
        let entry = self.patiently(control, each, || library.entry(&claim.content))?;
        // A file that was done meanwhile, or forgotten.
        let Some((path, kind)) = entry else {
            return self.acknowledge(claim, control, each);
        };
        let due = self.patiently(control, each, || library.due())?;
        each(WorkEvent::Begun { path: &path, due });
        let seen = match claim.tried < ATTEMPTS {
            true => self.see(&path, kind, claim, control, each),
            false => Err(Failure::File(format!("{ATTEMPTS} workers died while they looked at it"))),
        };
        let (seen, again) = match seen {
            Ok(seen) => (Ok(seen), false),
            Err(Failure::File(error)) => (Err(error), false),
            Err(Failure::Other(error)) => (Err(error), claim.tried + 1 < ATTEMPTS),
            Err(Failure::Stopped) => {
                summary.stopped = true;
                let back = library.runtime.block_on(self.member.give_back(&library.database, claim));
                return back.map_err(|error| library.queue_failed(error));
            }
        };
        let milliseconds = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let kept = self.patiently(control, each, || self.store(claim, seen.as_ref(), again, milliseconds))?;
        let (tracks, named) = match &seen {
            Ok(seen) => {
                (seen.tracks.len(), seen.tracks.iter().filter(|track| !track.name.is_empty()).count())
            }
            Err(_) => (0, 0),
        };
        match (&seen, kept) {
            (_, false) => summary.lost += 1,
            (Ok(_), true) => summary.done += 1,
            (Err(_), true) => summary.failed += 1,
        }
        let seconds = started.elapsed().as_secs_f64();
        let error = seen.err();
        each(WorkEvent::Ended(&Attempt { path, tracks, named, seconds, error, again, lost: !kept }));
        Ok(())
    }

    /// Acknowledges a task without results.
    fn acknowledge(
        &self,
        claim: &Claim,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
    ) -> Result<(), LibraryError> {
        let library = self.library;
        self.patiently(control, each, || {
            let done = library.runtime.block_on(async {
                let mut transaction = library.database.begin().await?;
                self.member.finish(&mut transaction, claim, &Outcome::Done).await?;
                Ok(transaction.commit().await?)
            });
            done.map_err(|error| library.queue_failed(error))
        })
    }

    /// Tries again while the database is away.
    fn patiently<T>(
        &self,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
        mut ask: impl FnMut() -> Result<T, LibraryError>,
    ) -> Result<T, LibraryError> {
        let mut pauses = 0;
        loop {
            let error = match ask() {
                Err(error) if error.is_away() && pauses < MOST_PAUSES && !control.is_aborted() => error,
                other => return other,
            };
            let pause_s = PAUSES_S[pauses.min(PAUSES_S.len() - 1)];
            each(WorkEvent::Away { cause: &error.to_string(), pause_s });
            std::thread::sleep(Duration::from_secs(pause_s));
            pauses += 1;
        }
    }

    /// Looks at a file while another thread tells that this worker is alive.
    fn see(
        &self,
        path: &Path,
        kind: Kind,
        claim: &Claim,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
    ) -> Result<Seen, Failure> {
        let (member, database) = (self.member.clone(), self.library.database.clone());
        let alive = self.library.runtime.spawn(async move {
            loop {
                tokio::time::sleep(member.heartbeat()).await;
                // A database that is away now is there later, or the task is lost.
                let _ = member.keep_alive(&database).await;
            }
        });
        let look = Look {
            engine: self.engine,
            detect_every: self.options.detect_every,
            path,
            kind,
            last: &self.library.analysis_path(&claim.content),
            worker: self.member.name(),
        };
        let looked = look.run(control, &mut |done, all| each(WorkEvent::Frames { done, all }));
        let seen = looked.and_then(|(analysis, remark)| {
            let tracks =
                self.tracks(path, kind, &analysis).map_err(|error| Failure::Other(error.to_string()))?;
            Ok(Seen { analysis, tracks, remark })
        });
        alive.abort();
        seen
    }

    /// What the catalogue holds of each track.
    fn tracks(&self, path: &Path, kind: Kind, analysis: &Analysis) -> Result<Vec<TrackRow>, LibraryError> {
        let decisions = self.names.decide(analysis)?;
        let mut rows = Vec::new();
        let tracks = analysis.tracks();
        for (track, decision) in tracks.iter().zip(&decisions) {
            let seen = || track.observations.iter().map(|&at| (at, &analysis.observations[at]));
            if track.is_transient(&analysis.observations) && decision.who.name().is_none() {
                continue;
            }
            let template = track::template(seen().map(|(_, one)| one));
            let best = seen().max_by(|(i, a), (j, b)| {
                let rank = |one: &Observation| (one.embedding.is_some(), one.weight());
                let ((a, weight), (b, other)) = (rank(a), rank(b));
                a.cmp(&b).then(weight.total_cmp(&other)).then(j.cmp(i))
            });
            let Some((best, view)) = best else { continue };
            let score = seen().map(|(_, one)| one.face.score).fold(0.0, f32::max);
            let (name, angle_deg) = naming::name_of(decision);
            rows.push(TrackRow {
                track: track.id,
                start_ns: track.start_ns,
                end_ns: track.end_ns,
                frames: track.observations.len(),
                best,
                views: seen().filter(|(_, one)| one.embedding.is_some()).count(),
                comparable: template.is_some() && track::is_distinct(view.weight(), score),
                name: name.to_owned(),
                angle_deg,
                template: template.map(|one| bytes(one.as_slice())),
                picture: None,
            });
        }
        if self.options.pictures {
            add_pictures(path, kind, analysis, &mut rows);
        }
        Ok(rows)
    }

    /// Stores what was seen, or why nothing was, with the acknowledgement of the task. `false` if the task is another
    /// worker's by now; then nothing is stored.
    fn store(
        &self,
        claim: &Claim,
        seen: Result<&Seen, &String>,
        again: bool,
        milliseconds: i64,
    ) -> Result<bool, LibraryError> {
        let library = self.library;
        let content = claim.content.as_str();
        let stored = library.runtime.block_on(async {
            let mut transaction = library.database.begin().await?;
            // The queue tries again what failed; what will fail again is done with.
            let outcome = match seen {
                Err(error) if again => Outcome::Failed(error.clone()),
                _ => Outcome::Done,
            };
            if !self.member.finish(&mut transaction, claim, &outcome).await? {
                return Ok(false);
            }
            match seen {
                Ok(seen) => {
                    put_tracks(&mut transaction, content, &seen.tracks, &seen.analysis).await?;
                    let model = self.engine.model().to_string();
                    let video = &seen.analysis.video;
                    on_connection!(&mut transaction, c => {
                        let statement = "UPDATE file SET state = 'done', error = $2, done_s = $3, work_ms = $4, frames = $5, \
                                         duration_ns = $6, width = $7, height = $8, model = $9, names = $10 WHERE content = $1";
                        let query = sqlx::query(statement).bind(content).bind(&seen.remark).bind(now_s()).bind(milliseconds);
                        let query = query.bind(video.frames as i64).bind(video.duration_ns as i64);
                        let query = query.bind(i64::from(video.width)).bind(i64::from(video.height)).bind(model);
                        query.bind(self.names.digest()).execute(c).await.map(drop)
                    })?;
                    tracks_changed(&mut transaction).await?;
                }
                Err(error) => {
                    let state = if again { "due" } else { "failed" };
                    on_connection!(&mut transaction, c => {
                        let statement = "UPDATE file SET state = $2, error = $3 WHERE content = $1";
                        sqlx::query(statement).bind(content).bind(state).bind(error).execute(c).await.map(drop)
                    })?;
                }
            }
            super::queue::tidy(&mut transaction).await?;
            transaction.commit().await?;
            Ok(true)
        });
        stored.map_err(|error| library.queue_failed(error))
    }
}

impl Library {
    /// Files that are due.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn due(&self) -> Result<i64, LibraryError> {
        let (count,): (i64,) = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT COUNT(*) FROM file WHERE state = 'due'").fetch_one(pool).await
            })
        })?;
        Ok(count)
    }

    /// Where a file that is due lies, if it is due still. A path at which it no longer is the same is passed over unless
    /// there is no other: opening it says why.
    fn entry(&self, content: &str) -> Result<Option<(PathBuf, Kind)>, LibraryError> {
        let rows: Vec<(String, i64, i64, String)> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT path, place.bytes, modified_ns, kind FROM place JOIN file ON file.content = place.content \
                                 WHERE file.content = $1 AND state = 'due' ORDER BY present DESC, path";
                sqlx::query_as(statement).bind(content).fetch_all(pool).await
            })
        })?;
        let there = rows.iter().find(|(path, bytes, at, _)| scan::is_unchanged(Path::new(path), *bytes, *at));
        let entry = there.or(rows.first());
        Ok(entry.map(|(path, _, _, kind)| (PathBuf::from(path), Kind::of(kind))))
    }

    /// Removes what workers that died left of analyses, after a day.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.folder.join(ANALYSES)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let unfinished = file::is_temporary(&name) || name.matches('.').count() > 1;
            let modified = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            if unfinished && modified().is_some_and(|age| age > LEFTOVER) {
                // Another worker may have removed it first.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Refuses an engine of another model than that of the files already done.
    fn check_model(&self, engine: &Engine) -> Result<(), LibraryError> {
        let asked = engine.model().to_string();
        let row: Option<(String,)> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT model FROM file WHERE state = 'done' AND model <> $1 LIMIT 1";
                sqlx::query_as(statement).bind(&asked).fetch_optional(pool).await
            })
        })?;
        row.map_or(Ok(()), |(own,)| Err(LibraryError::OtherModel { own, asked }))
    }
}

/// The numbers of a template as they are stored: little-endian.
pub(super) fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Adds the best picture of each track. A file that cannot be decoded a second time has none.
fn add_pictures(path: &Path, kind: Kind, analysis: &Analysis, rows: &mut [TrackRow]) {
    let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        wanted.entry(analysis.observations[row.best].frame).or_default().push(at);
    }
    let frames: BTreeSet<u64> = wanted.keys().copied().collect();
    let mut each = |frame: u64, picture: RgbImage| {
        for &at in wanted.get(&frame).into_iter().flatten() {
            let view = &analysis.observations[rows[at].best];
            rows[at].picture = picture_of(&picture, view);
        }
    };
    match kind {
        Kind::Photo => drop(media::read_still(path).map(|picture| each(0, picture))),
        Kind::Video => drop(discover::pictures(path, &frames, each)),
    }
}

/// A face with its surroundings as JPEG, and where it lies in it.
fn picture_of(frame: &RgbImage, view: &Observation) -> Option<(String, Vec<u8>)> {
    let (image, face) = discover::cut_out(frame, &view.face)?;
    let side = face.bbox.width().max(face.bbox.height());
    let (image, face) = if side > FACE_PX { smaller(&image, &face, FACE_PX / side) } else { (image, face) };
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY).encode_image(&image).ok()?;
    let face = PictureFace { face, quality: view.quality, frame: view.frame };
    Some((serde_json::to_string(&face).ok()?, jpeg.into_inner()))
}

fn smaller(image: &RgbImage, face: &Face, by: f32) -> (RgbImage, Face) {
    let scaled = |side: u32| ((side as f32 * by).round() as u32).max(1);
    let (width, height) = (scaled(image.width()), scaled(image.height()));
    let (x, y) = (width as f32 / image.width() as f32, height as f32 / image.height() as f32);
    let image = image::imageops::resize(image, width, height, image::imageops::FilterType::Triangle);
    let b = face.bbox;
    let bbox = crate::detect::BBox { x1: b.x1 * x, y1: b.y1 * y, x2: b.x2 * x, y2: b.y2 * y };
    (image, Face { bbox, landmarks: face.landmarks.map(|[px, py]| [px * x, py * y]), ..*face })
}

/// Replaces the tracks of a file.
async fn put_tracks(
    transaction: &mut Transaction,
    content: &str,
    rows: &[TrackRow],
    analysis: &Analysis,
) -> Result<(), sqlx::Error> {
    told::follow(transaction, content, analysis).await?;
    for statement in [
        "DELETE FROM track WHERE content = $1",
        "DELETE FROM template WHERE content = $1",
        "DELETE FROM picture WHERE content = $1",
    ] {
        on_connection!(&mut *transaction, c => sqlx::query(statement).bind(content).execute(c).await.map(drop))?;
    }
    for row in rows {
        let track = i64::from(row.track.0);
        let Observation { frame, face, .. } = &analysis.observations[row.best];
        let bbox = face.bbox;
        on_connection!(&mut *transaction, c => {
            let statement = "INSERT INTO track (content, track, start_ns, end_ns, frames, best_frame, views, comparable, name, \
                             angle_deg, stranger, x1, y1, x2, y2) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
                             COALESCE((SELECT name FROM told WHERE content = $1 AND track = $2 AND kind = 'name'), $9), $10, 0, \
                             $11, $12, $13, $14)";
            let query = sqlx::query(statement).bind(content).bind(track).bind(row.start_ns as i64);
            let query = query.bind(row.end_ns as i64).bind(row.frames as i64).bind(*frame as i64).bind(row.views as i64);
            let query = query.bind(i64::from(row.comparable)).bind(&row.name).bind(row.angle_deg);
            let query = query.bind(f64::from(bbox.x1)).bind(f64::from(bbox.y1));
            let query = query.bind(f64::from(bbox.x2)).bind(f64::from(bbox.y2));
            query.execute(c).await.map(drop)
        })?;
        if let Some(template) = &row.template {
            on_connection!(&mut *transaction, c => {
                let statement = "INSERT INTO template (content, track, vector) VALUES ($1, $2, $3)";
                sqlx::query(statement).bind(content).bind(track).bind(template.as_slice()).execute(c).await.map(drop)
            })?;
        }
        if let Some((face, jpeg)) = &row.picture {
            on_connection!(&mut *transaction, c => {
                let statement = "INSERT INTO picture (content, track, face, jpeg) VALUES ($1, $2, $3, $4)";
                let query = sqlx::query(statement).bind(content).bind(track).bind(face).bind(jpeg.as_slice());
                query.execute(c).await.map(drop)
            })?;
        }
    }
    // What somebody asked to forget is not found again.
    for statement in [
        "DELETE FROM template WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
        "DELETE FROM picture WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
        "DELETE FROM track WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
    ] {
        on_connection!(&mut *transaction, c => sqlx::query(statement).bind(content).execute(c).await.map(drop))?;
    }
    Ok(())
}
