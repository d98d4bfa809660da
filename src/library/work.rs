//! Analysing the files that are due.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::catalogue::Kind;
use super::database::{Transaction, on_connection, on_pool};
use super::look::{Failure, Look, LookOptions};
use super::naming::{self, Names};
use super::parts::{self, Joined, Part, PartRow, Task};
use super::pictures::{Picture, PictureFace, best_view, pictures};
use super::queue::{ATTEMPTS, Claim, Member, Outcome, RETRY_AFTER_S};
use super::{Library, LibraryError, PAUSES_S, analysis_name, now_s, scan, told, tracks_changed};
use crate::analysis::Analysis;
use crate::engine::Engine;
use crate::media::Selection;
use crate::pipeline::Control;
use crate::track::{self, Observation, TrackId};

/// How long a worker waits before it asks again for files that are due.
const IDLE: Duration = Duration::from_millis(500);
/// Age at which an unfinished analysis counts as abandoned.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);
/// How long results wait for an unavailable database, in pauses.
const MOST_PAUSES: usize = 40;

/// Default length of the parts of long videos.
const PART: Duration = Duration::from_secs(600);

/// Settings of a worker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkOptions {
    /// How videos are analysed.
    pub look: LookOptions,
    /// Whether the best picture of every track is stored: for pages, and to name strangers without decoding.
    /// The video is then decoded a second time, up to the last picture.
    pub pictures: bool,
    /// Length of the parts into which long videos are cut, so that several workers share one; zero cuts none.
    pub part: Duration,
    /// Interval of a worker's heartbeat. A worker that misses three counts as dead.
    pub heartbeat: Duration,
    /// Whether to wait for files that other workers are analysing, in case these die, and for those whose next attempt is
    /// not due yet.
    pub wait_for_others: bool,
    /// The most files to analyse.
    pub most: Option<usize>,
}

impl Default for WorkOptions {
    fn default() -> Self {
        Self {
            look: LookOptions::default(),
            pictures: true,
            part: PART,
            heartbeat: Duration::from_secs(10),
            wait_for_others: true,
            most: None,
        }
    }
}

/// Returns new names if the gallery has changed.
type Fresh<'a> = Box<dyn FnMut() -> Result<Option<Names>, LibraryError> + 'a>;

/// Analyses the files of a library in order, on all threads of its engine.
pub struct Worker<'a> {
    library: &'a Library,
    engine: &'a Engine,
    names: RefCell<Names>,
    fresh: RefCell<Option<Fresh<'a>>>,
    options: WorkOptions,
    member: Member,
}

/// A report of a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkEvent<'a> {
    /// Work on a file begins.
    Begun {
        /// Where it is.
        path: &'a Path,
        /// Files that are due, this one included.
        due: i64,
    },
    /// Frames of it are done.
    Frames {
        /// Frames so far.
        done: u64,
        /// Frames expected, where known.
        all: Option<u64>,
    },
    /// A long video was cut into that many parts.
    Cut {
        /// Where it is.
        path: &'a Path,
        /// Parts.
        parts: usize,
    },
    /// A part of a long video was analysed.
    PartEnded {
        /// Where it is.
        path: &'a Path,
        /// Number of the part, from 1.
        part: i64,
        /// Parts of the video.
        parts: i64,
        /// Frames analysed.
        frames: u64,
        /// Time it took, in seconds.
        seconds: f64,
    },
    /// A file was analysed.
    Ended(&'a Attempt),
    /// Files are due, but other workers are analysing them, or their next attempt is not due yet.
    Waiting,
    /// The database is unavailable, and will be tried again.
    Away {
        /// The error.
        cause: &'a str,
        /// Seconds until the next attempt.
        pause_s: u64,
    },
}

/// The outcome of an attempt on a file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where it is.
    pub path: PathBuf,
    /// Tracks of faces in it.
    pub tracks: usize,
    /// Tracks with a name.
    pub named: usize,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Whether it will be tried again after a failure.
    pub again: bool,
    /// Whether it could not be reached, so that nothing was attempted.
    pub is_away: bool,
    /// Whether another worker had taken it in the meantime, so that this result was dropped.
    pub lost: bool,
}

/// Result of [`Worker::work`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkSummary {
    /// Files analysed.
    pub done: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// Of these, the ones after which the file is not tried again.
    pub given_up: usize,
    /// Files that could not be reached, as on a share that is away. They are still due.
    pub away: usize,
    /// Results that were dropped because another worker had taken the file.
    pub lost: usize,
    /// Whether it was stopped before everything due was done.
    pub stopped: bool,
}

/// How often each file could not be reached, by its content.
type Away = BTreeMap<String, usize>;

/// The columns of a track in the catalogue.
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
    picture: Option<Picture>,
}

/// The result of a task.
enum TaskResult {
    /// A file that was analysed.
    File(AnalysedFile),
    /// A file that is to be analysed in parts.
    Cut(Vec<Part>),
    /// A part that was analysed.
    Part { part: Part, frames: u64, remark: String, pictures: Vec<(TrackId, Picture)> },
}

/// A file that was analysed.
struct AnalysedFile {
    analysis: Analysis,
    tracks: Vec<TrackRow>,
    /// Digest of the people who were named.
    names: String,
    /// Why it ends early, if it does.
    remark: String,
    /// Time that its parts took, in milliseconds.
    parts_ms: i64,
}

impl<'a> Worker<'a> {
    /// A worker on `library` that names people by `names`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn new(
        library: &'a Library,
        engine: &'a Engine,
        names: &Names,
        options: WorkOptions,
    ) -> Result<Self, LibraryError> {
        /// Several workers of one process need different names.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = blake3::hash(format!("{:?}", std::time::SystemTime::now()).as_bytes()).to_hex();
        let name = format!("{}-{number}-{}", std::process::id(), &unique[..12]);
        let member = Member::new(&name, options.heartbeat);
        let registered = library.runtime.block_on(member.register(&library.database));
        registered.map_err(|error| library.queue_failed(error))?;
        library.check_model(engine)?;
        library.sweep();
        let (names, fresh) = (RefCell::new(names.clone()), RefCell::default());
        Ok(Self { library, engine, names, fresh, options, member })
    }

    /// Calls `fresh` before the faces of a file are named; it returns new names if the gallery has changed.
    pub fn follow(mut self, fresh: impl FnMut() -> Result<Option<Names>, LibraryError> + 'a) -> Self {
        self.fresh = RefCell::new(Some(Box::new(fresh)));
        self
    }

    /// Analyses files until none is due, or `control` is stopped: then the current file is returned to the
    /// queue.
    ///
    /// # Errors
    /// When the database fails, or is unavailable for ten minutes. A file that cannot be read is not an
    /// error.
    pub fn work(
        &mut self,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
    ) -> Result<WorkSummary, LibraryError> {
        let mut summary = WorkSummary::default();
        let result = self.work_on(control, each, &mut summary);
        // Its tasks are free immediately, not only when it counts as dead.
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
        let mut away = Away::new();
        loop {
            summary.away = away.values().filter(|times| **times > RETRY_AFTER_S.len()).count();
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
                // Another worker may have reached some of them.
                let due = usize::try_from(due).unwrap_or(0);
                if !self.options.wait_for_others {
                    summary.away = away.len().min(due);
                    return Ok(());
                }
                if due <= summary.away {
                    summary.away = due;
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
            self.work_on_file(&claim, control, each, summary, &mut away)?;
        }
    }

    /// Analyses one file and stores the results, or the reason for a failure.
    fn work_on_file(
        &self,
        claim: &Claim,
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
        summary: &mut WorkSummary,
        away: &mut Away,
    ) -> Result<(), LibraryError> {
        let library = self.library;
        let started = Instant::now();
        let task = Task::of(&claim.content);
        let entry = self.patiently(control, each, || library.entry(task.content()))?;
        // The file was finished or forgotten in the meantime.
        let Some((path, kind)) = entry else {
            return self.acknowledge(claim, control, each);
        };
        let parts = self.patiently(control, each, || library.parts(task.content()))?;
        let is_part_due = |number| parts.iter().any(|row| row.part.number == number && !row.done);
        let is_due = match task {
            // A task of an earlier attempt, whose parts are being analysed.
            Task::File(_) => parts.is_empty(),
            Task::Part(_, number) => is_part_due(number),
            Task::Join(_) => !parts.is_empty() && parts.iter().all(|row| row.done),
        };
        if !is_due {
            return self.acknowledge(claim, control, each);
        }
        let due = self.patiently(control, each, || library.due())?;
        each(WorkEvent::Begun { path: &path, due });
        let seen = match claim.tried < ATTEMPTS {
            true => self.see(&path, kind, task, &parts, control, each),
            false => Err(Failure::File(format!("{ATTEMPTS} workers died while they analysed it"))),
        };
        let (seen, outcome) = match seen {
            Ok(seen) => {
                away.remove(task.content());
                (Ok(seen), Outcome::Done)
            }
            // The queue is not asked to repeat what would fail again.
            Err(Failure::File(error)) => (Err(error), Outcome::Done),
            Err(Failure::Other(error)) if claim.tried + 1 < ATTEMPTS => {
                (Err(error.clone()), Outcome::Failed(error))
            }
            Err(Failure::Other(error)) => (Err(error), Outcome::Done),
            Err(Failure::Away(error)) => {
                let times = away.entry(task.content().to_owned()).or_default();
                // Who does not wait will ask again, and again.
                *times += if self.options.wait_for_others { 1 } else { RETRY_AFTER_S.len() };
                (Err(error), Outcome::Later(RETRY_AFTER_S[(*times - 1).min(RETRY_AFTER_S.len() - 1)]))
            }
            Err(Failure::Stopped) => {
                summary.stopped = true;
                let back = library.runtime.block_on(self.member.give_back(&library.database, claim));
                return back.map_err(|error| library.queue_failed(error));
            }
        };
        let milliseconds = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let again = seen.is_err() && outcome != Outcome::Done;
        let is_away = matches!(outcome, Outcome::Later(_));
        let store = || self.store(claim, seen.as_ref(), &outcome, milliseconds);
        let kept = self.patiently(control, each, store)?;
        let seconds = started.elapsed().as_secs_f64();
        let (tracks, named) = match &seen {
            Ok(TaskResult::File(seen)) => {
                (seen.tracks.len(), seen.tracks.iter().filter(|track| !track.name.is_empty()).count())
            }
            Ok(TaskResult::Cut(parts)) if kept => {
                each(WorkEvent::Cut { path: &path, parts: parts.len() });
                return Ok(());
            }
            Ok(TaskResult::Part { part, frames, .. }) if kept => {
                let (part, parts, frames) = (part.number + 1, part.of, *frames);
                each(WorkEvent::PartEnded { path: &path, part, parts, frames, seconds });
                return Ok(());
            }
            Ok(_) | Err(_) => (0, 0),
        };
        match (&seen, kept) {
            (_, false) => summary.lost += 1,
            (Ok(_), true) => summary.done += 1,
            (Err(_), true) if is_away => {}
            (Err(_), true) => {
                summary.failed += 1;
                summary.given_up += usize::from(!again);
            }
        }
        if kept && !again {
            // Their results are in the catalogue now, or were discarded.
            parts.iter().for_each(|row| {
                let _ = library.analyses.remove(&parts::name(task.content(), row.part));
            });
        }
        let error = seen.err();
        each(WorkEvent::Ended(&Attempt { path, tracks, named, seconds, error, again, is_away, lost: !kept }));
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

    /// Does a task while another thread sends heartbeats. `parts` are those of the file, if it was cut.
    fn see(
        &self,
        path: &Path,
        kind: Kind,
        task: Task<'_>,
        parts: &[PartRow],
        control: &Control,
        each: &mut dyn FnMut(WorkEvent<'_>),
    ) -> Result<TaskResult, Failure> {
        let (member, database) = (self.member.clone(), self.library.database.clone());
        let alive = self.library.runtime.spawn(async move {
            loop {
                tokio::time::sleep(member.heartbeat()).await;
                // If the database is not available again in time, the task is lost.
                let _ = member.keep_alive(&database).await;
            }
        });
        let mut progress = |done, all| each(WorkEvent::Frames { done, all });
        let seen = match task {
            Task::File(content) => self.see_file(path, kind, content, control, &mut progress),
            Task::Part(content, number) => match parts.iter().find(|row| row.part.number == number) {
                Some(row) => self.see_part(path, content, row.part, control, &mut progress),
                None => Err(Failure::Other(format!("part {number} is not in the catalogue"))),
            },
            Task::Join(content) => self.join(content, parts),
        };
        alive.abort();
        seen
    }

    fn look<'b>(&'b self, path: &'b Path, kind: Kind, selection: Selection, name: &'b str) -> Look<'b> {
        let worker = self.member.name();
        let (engine, detect_every) = (self.engine, self.options.look.detect_every);
        let analyses = &self.library.analyses;
        Look { engine, detect_every, path, kind, selection, analyses, name, worker }
    }

    /// Analyses a file, or cuts it into parts.
    fn see_file(
        &self,
        path: &Path,
        kind: Kind,
        content: &str,
        control: &Control,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<TaskResult, Failure> {
        let name = analysis_name(content);
        let selection = match kind {
            Kind::Video => self.options.look.selection(),
            Kind::Photo => Selection::default(),
        };
        let look = self.look(path, kind, selection, &name);
        if kind == Kind::Video
            && look.there().is_none()
            && let Some(parts) = parts::cut(path, self.options.part)
        {
            return Ok(TaskResult::Cut(parts));
        }
        let (analysis, remark) = look.run(control, progress)?;
        let other = |error: LibraryError| Failure::Other(error.to_string());
        let names = self.names().map_err(other)?;
        let mut tracks = self.tracks(&analysis, &names).map_err(other)?;
        if self.options.pictures {
            let best = tracks.iter().map(|row| row.best);
            let pictures = pictures(path, kind, selection, &analysis, best);
            for (row, picture) in tracks.iter_mut().zip(pictures) {
                row.picture = picture;
            }
        }
        let names = names.digest().to_owned();
        Ok(TaskResult::File(AnalysedFile { analysis, tracks, names, remark, parts_ms: 0 }))
    }

    /// Analyses a part of a file.
    fn see_part(
        &self,
        path: &Path,
        content: &str,
        part: Part,
        control: &Control,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<TaskResult, Failure> {
        let name = parts::name(content, part);
        let selection = part.selection(self.options.look.selection());
        let (analysis, remark) = self.look(path, Kind::Video, selection, &name).run(control, progress)?;
        let mut found = Vec::new();
        if self.options.pictures {
            let tracks = analysis.tracks();
            let best: Vec<_> =
                tracks.iter().filter_map(|track| Some((track.id, best_view(track, &analysis)?))).collect();
            let pictures = pictures(path, Kind::Video, selection, &analysis, best.iter().map(|(_, at)| *at));
            let with_picture =
                best.iter().zip(pictures).filter_map(|((track, _), picture)| Some((*track, picture?)));
            found.extend(with_picture);
        }
        Ok(TaskResult::Part { part, frames: analysis.video.frames, remark, pictures: found })
    }

    /// Joins the parts of a file.
    fn join(&self, content: &str, parts: &[PartRow]) -> Result<TaskResult, Failure> {
        let other = |error: &dyn std::error::Error| Failure::Other(error.to_string());
        let read = |row: &PartRow| {
            let analysis = self.library.analyses.read(&parts::name(content, row.part));
            let gone = || Failure::Other(format!("the analysis of part {} is gone", row.part.number + 1));
            analysis.map_err(|error| other(&error))?.ok_or_else(gone)
        };
        let analyses = parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let joined = parts::join(&analyses, self.engine.same_person_deg());
        let Some(Joined { analysis, origins, offsets }) = joined else {
            return Err(Failure::Other("it has no parts".into()));
        };
        self.library.analyses.write(&analysis_name(content), &analysis).map_err(|error| other(&error))?;
        let names = self.names().map_err(|error| other(&error))?;
        let mut tracks = self.tracks(&analysis, &names).map_err(|error| other(&error))?;
        let mut pictures = self.library.part_pictures(content).map_err(|error| other(&error))?;
        for row in &mut tracks {
            let (part, track) = origins[row.best];
            let picture = pictures.remove(&(parts[part].part.number, track));
            row.picture = picture.and_then(|(face, jpeg)| {
                let mut face: PictureFace = serde_json::from_str(&face).ok()?;
                face.frame += offsets[part];
                Some((serde_json::to_string(&face).ok()?, jpeg))
            });
        }
        let remarks = parts.iter().map(|row| row.remark.as_str()).filter(|remark| !remark.is_empty());
        let remark = remarks.collect::<Vec<_>>().join("; ");
        let parts_ms = parts.iter().map(|row| row.work_ms).sum();
        let names = names.digest().to_owned();
        Ok(TaskResult::File(AnalysedFile { analysis, tracks, names, remark, parts_ms }))
    }

    /// The current people to name.
    fn names(&self) -> Result<Names, LibraryError> {
        if let Some(names) = self.fresh.borrow_mut().as_mut().map(|fresh| fresh()).transpose()?.flatten() {
            self.names.replace(names);
        }
        Ok(self.names.borrow().clone())
    }

    /// The row of each track in the catalogue.
    fn tracks(&self, analysis: &Analysis, names: &Names) -> Result<Vec<TrackRow>, LibraryError> {
        let decisions = names.decide(analysis)?;
        let mut rows = Vec::new();
        let tracks = analysis.tracks();
        for (track, decision) in tracks.iter().zip(&decisions) {
            let seen = || track.observations.iter().map(|&at| (at, &analysis.observations[at]));
            if track.is_transient(&analysis.observations) && decision.who.name().is_none() {
                continue;
            }
            let template = track::template(seen().map(|(_, one)| one));
            let Some(best) = best_view(track, analysis) else { continue };
            let view = &analysis.observations[best];
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
        Ok(rows)
    }

    /// Stores the results, or the reason for a failure, together with the acknowledgement of the task.
    /// `false` if the task belongs to another worker by now; then nothing is stored.
    fn store(
        &self,
        claim: &Claim,
        seen: Result<&TaskResult, &String>,
        outcome: &Outcome,
        milliseconds: i64,
    ) -> Result<bool, LibraryError> {
        let library = self.library;
        let task = Task::of(&claim.content);
        let content = task.content();
        let stored = library.runtime.block_on(async {
            let mut transaction = library.database.begin().await?;
            if !self.member.finish(&mut transaction, claim, outcome).await? {
                return Ok(false);
            }
            match seen {
                Ok(TaskResult::Cut(parts)) => parts::enter(&mut transaction, content, parts).await?,
                Ok(TaskResult::Part { part, remark, pictures, .. }) => {
                    for (track, picture) in pictures {
                        parts::put_picture(&mut transaction, content, part.number, *track, picture).await?;
                    }
                    parts::done(&mut transaction, content, part.number, remark, milliseconds).await?;
                }
                Ok(TaskResult::File(seen)) => {
                    put_tracks(&mut transaction, content, &seen.tracks, &seen.analysis).await?;
                    parts::remove(&mut transaction, content).await?;
                    let milliseconds = milliseconds.saturating_add(seen.parts_ms);
                    let model = self.engine.model().to_string();
                    let video = &seen.analysis.video;
                    on_connection!(&mut transaction, c => {
                        let statement = "UPDATE file SET state = 'done', error = $2, done_s = $3, work_ms = $4, frames = $5, \
                                         duration_ns = $6, width = $7, height = $8, model = $9, names = $10 WHERE content = $1";
                        let query = sqlx::query(statement).bind(content).bind(&seen.remark).bind(now_s()).bind(milliseconds);
                        let query = query.bind(video.frames as i64).bind(video.duration_ns as i64);
                        let query = query.bind(i64::from(video.width)).bind(i64::from(video.height)).bind(model);
                        query.bind(&seen.names).execute(c).await.map(drop)
                    })?;
                    tracks_changed(&mut transaction).await?;
                }
                Err(error) => {
                    let again = *outcome != Outcome::Done;
                    let state = if again { "due" } else { "failed" };
                    if !again {
                        parts::remove(&mut transaction, content).await?;
                    }
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
    /// When the database fails.
    pub fn due(&self) -> Result<i64, LibraryError> {
        let (count,): (i64,) = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT COUNT(*) FROM file WHERE state = 'due'").fetch_one(pool).await
            })
        })?;
        Ok(count)
    }

    /// The path of a file, if it is still due. A path at which the file has changed is used only if there is
    /// no other: opening it then gives the reason.
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

    /// Removes unfinished analyses of dead workers after a day.
    fn sweep(&self) {
        for (name, metadata) in self.analyses.unfinished() {
            // Analyses of parts wait for the others for any time.
            let part = name.split_once(".part-").filter(|(_, rest)| rest.matches('.').count() == 1);
            let waits =
                part.is_some_and(|(content, _)| self.parts(content).is_ok_and(|parts| !parts.is_empty()));
            let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
            if !waits && age.is_some_and(|age| age > LEFTOVER) {
                // Another worker may have removed it first.
                let _ = fs::remove_file(self.analyses.path(&name));
            }
        }
    }

    /// Refuses an engine of another model than that of the files already done.
    ///
    /// # Errors
    /// [`LibraryError::OtherModel`]; when the database fails.
    pub fn check_model(&self, engine: &Engine) -> Result<(), LibraryError> {
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
    // Tracks that the user asked to forget are not stored again.
    for statement in [
        "DELETE FROM template WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
        "DELETE FROM picture WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
        "DELETE FROM track WHERE content = $1 AND track IN (SELECT track FROM told WHERE content = $1 AND kind = 'forgotten')",
    ] {
        on_connection!(&mut *transaction, c => sqlx::query(statement).bind(content).execute(c).await.map(drop))?;
    }
    Ok(())
}
