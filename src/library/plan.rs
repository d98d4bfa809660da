//! An estimate of the total time, measured on a sample of the files.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::catalogue::Kind;
use super::database::on_pool;
use super::look::{LookOptions, interval};
use super::{Library, LibraryError};
use crate::engine::{Engine, LabelledFrame};
use crate::media::{self, Input, Source, SourceOptions};
use crate::pipeline::{Control, LabelError, LabelJob, Progress, Subscriber};

/// Measurements on a sample of the files that are due, and the estimate for all of them.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Videos measured.
    pub videos: usize,
    /// Photos measured.
    pub photos: usize,
    /// Files of the sample that could not be read.
    pub unreadable: usize,
    /// Seconds of video analysed per second on this machine.
    pub speed: Option<f64>,
    /// Frames analysed per second.
    pub frames_per_s: Option<f64>,
    /// Photos analysed per second.
    pub photos_per_s: Option<f64>,
    /// Videos that are due.
    pub due_videos: i64,
    /// Photos that are due.
    pub due_photos: i64,
    /// Their duration in seconds, by the duration per byte of the sample.
    pub due_video_s: f64,
}

impl Plan {
    /// Seconds for everything that is due, on one machine like this; `None` if a kind of file could not be
    /// measured.
    pub fn left_s(&self) -> Option<f64> {
        let part = |amount: f64, rate: Option<f64>| {
            if amount > 0.0 { rate.map(|rate| amount / rate) } else { Some(0.0) }
        };
        Some(part(self.due_video_s, self.speed)? + part(self.due_photos as f64, self.photos_per_s)?)
    }
}

impl Library {
    /// Analyses up to `sample` videos, for `seconds` each, and as many photos, and estimates the time for
    /// everything due. Nothing is stored. The sample is chosen by the digests of the contents, which is
    /// random but always the same.
    ///
    /// # Errors
    /// When the database fails.
    pub fn plan(
        &self,
        engine: &Engine,
        options: LookOptions,
        sample: usize,
        seconds: f64,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Plan, LibraryError> {
        let status = self.status()?;
        let mut plan =
            Plan { due_videos: status.videos.due, due_photos: status.photos.due, ..Plan::default() };
        let (mut bytes, mut duration_s, mut seen_s, mut work_s, mut frames) = (0.0, 0.0, 0.0, 0.0, 0_u64);
        for (path, length) in self.due_sample(Kind::Video, sample)? {
            progress(&path.display().to_string());
            let measured = duration_ns(&path)
                .and_then(|duration_ns| Some((duration_ns, measure(engine, options, &path, seconds)?)));
            let Some((duration_ns, one)) = measured else {
                plan.unreadable += 1;
                continue;
            };
            plan.videos += 1;
            bytes += length as f64;
            duration_s += duration_ns as f64 / 1e9;
            seen_s += one.seen_s;
            work_s += one.work_s;
            frames += one.frames;
        }
        if work_s > 0.0 && bytes > 0.0 {
            plan.speed = Some(seen_s / work_s).filter(|speed| *speed > 0.0);
            plan.frames_per_s = Some(frames as f64 / work_s);
            plan.due_video_s = duration_s / bytes * status.videos.due_bytes as f64;
        }
        let (mut count, mut work_s) = (0, 0.0);
        for (path, _) in self.due_sample(Kind::Photo, sample)? {
            progress(&path.display().to_string());
            let start = Instant::now();
            let crops = media::read_still(&path).ok().and_then(|picture| {
                let faces = engine.detect(&picture).ok()?;
                Some(faces.into_iter().filter_map(|face| face.crop).collect())
            });
            match crops.map(|crops| engine.embed(crops)) {
                Some(Ok(_)) => count += 1,
                _ => plan.unreadable += 1,
            }
            work_s += start.elapsed().as_secs_f64();
        }
        plan.photos = count;
        plan.photos_per_s = (count > 0).then(|| count as f64 / work_s);
        Ok(plan)
    }

    /// Files that are due, with their lengths in bytes.
    fn due_sample(&self, kind: Kind, most: usize) -> Result<Vec<(PathBuf, i64)>, LibraryError> {
        let rows: Vec<(String, i64)> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT MIN(path), MIN(file.bytes) FROM file JOIN place ON place.content = file.content \
                                 WHERE state = 'due' AND kind = $1 AND present = 1 GROUP BY file.content \
                                 ORDER BY file.content LIMIT $2";
                sqlx::query_as(statement).bind(kind.name()).bind(most as i64).fetch_all(pool).await
            })
        })?;
        Ok(rows.into_iter().map(|(path, bytes)| (path.into(), bytes)).collect())
    }
}

/// The measurements on one video.
struct Measured {
    seen_s: f64,
    work_s: f64,
    frames: u64,
}

/// Duration in nanoseconds of a video that states it.
fn duration_ns(path: &Path) -> Option<u64> {
    Source::open(&Input::File(path.to_owned()), &SourceOptions::default()).ok()?.info().duration_ns
}

/// Records the end time of the last frame.
struct SeenUntil<'a>(&'a Cell<u64>);

impl Subscriber for SeenUntil<'_> {
    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        self.0.set(frame.pts_ns + frame.duration_ns);
        Ok(())
    }
}

/// Analyses the beginning of a video for some seconds.
fn measure(engine: &Engine, options: LookOptions, path: &Path, seconds: f64) -> Option<Measured> {
    let control = Control::new();
    let seen_ns = Cell::new(0);
    let mut first: Option<Instant> = None;
    let most = Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let job = LabelJob::new(engine, Input::File(path.to_owned()))
        .tell_strangers_apart(true)
        .detect_every(interval(options.detect_every, options.selection(), path))
        .subscriber(SeenUntil(&seen_ns))
        .selection(options.selection());
    let summary = job.run(&control, &mut |event| {
        let mut over = || first.get_or_insert_with(Instant::now).elapsed() > most;
        if matches!(event, Progress::Frame) && over() {
            control.stop();
        }
    });
    let summary = summary.ok()?;
    // Loading happens once, not per file.
    let work_s = first.unwrap_or(start).elapsed().as_secs_f64();
    let seen_s = seen_ns.get() as f64 / 1e9;
    (work_s > 0.0 && summary.frames > 0).then_some(Measured { seen_s, work_s, frames: summary.frames })
}
