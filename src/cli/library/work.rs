//! Files of a library: adding them, analysing them, and their status.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::super::terminal::Signals;
use super::super::{UsageError, options, terminal};
use super::{EngineArgs, LibraryPlace, People, refused};
use sphereface::engine::{DetectEvery, Engine};
use sphereface::file::counted;
use sphereface::library::{
    Added, Adding, KindStatus, Library, LookOptions, Shard, ShardItem, ShardOutcome, Status, WorkEvent,
    WorkOptions, WorkSummary, Worker,
};
use sphereface::pipeline::Control;

/// Failed files that are listed, unless all are requested.
const LISTED: usize = 10;

/// Add videos and photos, or folders of them
///
/// Folders are searched recursively. Hidden files and galleries are skipped, and symbolic links are followed.
/// Adding a folder again finds new, moved and deleted files in it. Nothing is analysed yet: `work` does that.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Folders, videos and photos
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Priority: files with a higher number are analysed first, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    priority: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl AddArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let added = add(&place.create()?, &self.paths, self.priority)?;
        if self.json {
            let unreadable: Vec<_> = added
                .unreadable
                .iter()
                .map(|(path, error)| json!({ "path": path, "error": error }))
                .collect();
            let Added { new, known, elsewhere, gone, .. } = added;
            outln!(
                "{}",
                json!({ "new": new, "known": known, "elsewhere": elsewhere, "gone": gone, "unreadable": unreadable })
            );
        } else {
            tell_added(&added);
        }
        Ok(())
    }
}

fn add(library: &Library, paths: &[PathBuf], priority: u32) -> Result<Added> {
    let bar = terminal::bar("reading {bar:30} {pos}/{len} files  {eta} left");
    let added = library.add(paths, priority, &mut |progress| match progress {
        Adding::Found(count) => bar.set_length(count as u64),
        Adding::Read(_) => bar.inc(1),
        _ => {}
    });
    bar.finish_and_clear();
    added.map_err(refused)
}

fn tell_added(added: &Added) {
    let Added { new, known, elsewhere, gone, unreadable, .. } = added;
    for (path, error) in unreadable {
        errln!("warning: {} cannot be read: {error}", path.display());
    }
    let new_files = counted(new, "new file");
    outln!("{new_files}, {known} unchanged, {elsewhere} known from another place, {gone} gone");
    if *new > 0 {
        errln!("analyse them with `sphereface library work`");
    }
}

/// The frames of a video to analyse, and how.
#[derive(Debug, Args)]
struct LookArgs {
    /// Frames between two detection passes over the whole frame, 1 to 32. In between, known faces are
    /// followed. auto: at most 8, and regions that changed are searched in between
    #[arg(long, value_name = "N|auto", default_value_t = DetectEvery::Auto)]
    detect_every: DetectEvery,
    /// Frames per second of a video to analyse, 0.01 to 1000 [default: all]. Fewer frames take less time, but
    /// people who are seen briefly are missed, and tracks are interrupted more often
    #[arg(long, value_name = "N", value_parser = options::frames_per_second)]
    fps: Option<f64>,
    /// Analyse only the key frames of MP4, QuickTime and Matroska videos, with --fps at most that many of
    /// them per second. Other frames are not even decoded, which saves most of the time. Key frames are often
    /// seconds apart. Other containers do not mark them: there, all frames are analysed
    #[arg(long)]
    key_frames: bool,
}

impl LookArgs {
    fn options(&self) -> LookOptions {
        let mut options = LookOptions::default();
        (options.detect_every, options.fps, options.key_frames) =
            (self.detect_every, self.fps, self.key_frames);
        options
    }
}

/// Options of a worker.
#[derive(Debug, Args)]
struct WorkerArgs {
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten, next_help_heading = "Detection")]
    look: LookArgs,
    /// Do not store pictures of faces. This saves some time, but pages show no faces, and strangers cannot be
    /// named from the library
    #[arg(long, help_heading = "Running")]
    no_pictures: bool,
    /// Seconds between heartbeats, 1 to 600. A worker that misses three counts as dead, and others take its
    /// file
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600), help_heading = "Running")]
    heartbeat: u64,
    /// Length of the parts of a long video in seconds, 0 to 86400. Several workers share a video that is cut
    /// into parts, and a worker that dies loses only its part. Only MP4, QuickTime and Matroska files are
    /// cut. 0 cuts none
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86_400), help_heading = "Running")]
    part: u64,
}

impl WorkerArgs {
    fn options(&self) -> WorkOptions {
        let mut options = WorkOptions::default();
        options.look = self.look.options();
        options.pictures = !self.no_pictures;
        options.part = Duration::from_secs(self.part);
        options.heartbeat = Duration::from_secs(self.heartbeat);
        options
    }
}

/// Analyse the files that are due
///
/// Any number of workers may run at once, on one machine or on many (--database). Ctrl-C returns the current
/// file to the queue. If a worker is killed, only its own work is lost: another one takes the file. If the cause of a failure
/// is not the file itself, it is tried again after 5 and after 60 seconds. The exit code is 1 if a file failed; the others are
/// analysed all the same. Files that cannot be reached, for example on a share that is not mounted, stay due.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(flatten)]
    worker: WorkerArgs,
    /// Stop after this many files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Running")]
    most: Option<u32>,
    /// End when no file is left to take, instead of waiting for the files of other workers and for the next attempt at those
    /// that failed
    #[arg(long, help_heading = "Running")]
    no_wait: bool,
    /// Print one line of JSON per file
    #[arg(long)]
    json: bool,
}

impl WorkArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        let engine = self.worker.engine.engine()?;
        let mut people = self.worker.engine.people(&library, &engine)?;
        let mut options = self.worker.options();
        options.most = self.most.map(|most| most as usize);
        options.wait_for_others = !self.no_wait;
        let control = Control::new();
        let signals = Signals::watch(&control)?;
        let worked = work(&library, &engine, &mut people, options, &control, self.json);
        signals.close();
        let summary = worked?;
        people.rename(&library)?;
        library.group_strangers(&engine, engine.threads()).map_err(refused)?;
        if !self.json {
            tell_work(&summary, library.due().map_err(refused)?);
        }
        if summary.given_up > 0 {
            bail!("{} failed: `sphereface library status` says why", counted(summary.given_up, "file"));
        }
        if summary.away > 0 {
            let away = counted(summary.away, "file");
            bail!("not reached, and still due: {away}; is a share not mounted?");
        }
        Ok(())
    }
}

fn work(
    library: &Library,
    engine: &Engine,
    people: &mut People,
    options: WorkOptions,
    control: &Control,
    json: bool,
) -> Result<WorkSummary> {
    let worker = Worker::new(library, engine, &people.names, options).map_err(refused)?;
    let mut worker = worker.follow(|| people.changed(library, engine));
    let bar = terminal::bar("{bar:30} {pos}/{len} frames  {eta} left  {msg}");
    let mut away = BTreeSet::new();
    let summary = worker.work(control, &mut |event| match event {
        WorkEvent::Begun { path, due, .. } => {
            bar.set_message(format!("{} ({} due)", path.display(), counted(due, "file")));
            bar.set_length(0);
            bar.reset();
        }
        WorkEvent::Frames { done, all } => {
            bar.set_length(all.unwrap_or(done));
            bar.set_position(done);
        }
        WorkEvent::Cut { path, parts } => {
            bar.suspend(|| errln!("{}: analysed in {parts} parts", path.display()));
        }
        WorkEvent::PartEnded { path, part, parts, frames, seconds } if json => {
            let line =
                json!({ "path": path, "state": "part", "part": part, "parts": parts, "frames": frames, "seconds": seconds });
            bar.suspend(|| outln!("{line}"));
        }
        WorkEvent::PartEnded { path, part, parts, frames, seconds } => {
            bar.suspend(|| errln!("{}: part {part} of {parts}, {} ({seconds:.1} s)", path.display(), counted(frames, "frame")));
        }
        WorkEvent::Ended(attempt) => {
            let path = attempt.path.display();
            let say = |text: String| bar.suspend(|| errln!("{text}"));
            if json {
                let state = match (&attempt.error, attempt.lost) {
                    (_, true) => "lost",
                    (None, _) => "done",
                    (Some(_), _) if attempt.is_away => "away",
                    (Some(_), _) => "failed",
                };
                let line = json!({
                    "path": attempt.path, "state": state, "tracks": attempt.tracks, "named": attempt.named,
                    "seconds": attempt.seconds, "error": attempt.error, "again": attempt.again,
                });
                bar.suspend(|| outln!("{line}"));
            } else if attempt.lost {
                say(format!("{path}: another worker took it in the meantime, the result is dropped"));
            } else if let (Some(error), true) = (&attempt.error, attempt.is_away) {
                // One stands for all on a share.
                let first = away.is_empty();
                away.insert(attempt.path.clone());
                if first {
                    say(format!("{path}: {error}; it stays due"));
                }
            } else if let Some(error) = &attempt.error {
                let again = if attempt.again { "; it will be tried again" } else { "" };
                say(format!("{path}: {error}{again}"));
            } else {
                let (tracks, named) = (attempt.tracks, attempt.named);
                let tracks = counted(tracks, "track");
                away.remove(&attempt.path);
                say(format!("{path}: {tracks}, {named} named ({:.1} s)", attempt.seconds));
            }
        }
        WorkEvent::Waiting => bar.suspend(|| errln!("waiting for files of other workers, or for the next attempt")),
        WorkEvent::Away { cause, pause_s } => {
            bar.suspend(|| errln!("{cause}: trying again in {pause_s} s"));
        }
        _ => {}
    });
    bar.finish_and_clear();
    let summary = summary.map_err(refused)?;
    if !away.is_empty() && !json {
        errln!("not reached, and still due: {}", counted(away.len(), "file"));
    }
    Ok(summary)
}

fn tell_work(summary: &WorkSummary, due: i64) {
    let WorkSummary { done, failed, lost, stopped, .. } = *summary;
    let (done, failed, due) = (counted(done, "file"), counted(failed, "attempt"), counted(due, "file"));
    let mut text = format!("{done} done, {failed} failed, {due} due");
    if lost > 0 {
        text += &format!(", {} dropped", counted(lost, "result"));
    }
    if stopped {
        text += "; stopped";
    }
    outln!("{text}");
}

/// Analyse new files as they come
///
/// The folders that were added are searched repeatedly. A file that is still growing is skipped until the
/// next search. Ends with Ctrl-C.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    worker: WorkerArgs,
    /// Folders to add first
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Seconds between two searches of the folders, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
}

impl WatchArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = if self.paths.is_empty() { place.open()? } else { place.create()? };
        let mut roots: BTreeSet<PathBuf> = library.roots().map_err(refused)?.into_iter().collect();
        for path in &self.paths {
            roots.insert(path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))?);
        }
        let engine = self.worker.engine.engine()?;
        let control = Control::new();
        let signals = Signals::watch(&control)?;
        let mut said = Added::default();
        let mut listener = library.listen().map_err(refused)?;
        while !control.is_stopping() {
            let begun = Instant::now();
            let there: Vec<PathBuf> = roots.iter().filter(|root| root.exists()).cloned().collect();
            let settled = Duration::from_secs(self.every.min(10));
            let added = library.add_settled(&there, settled).map_err(refused)?;
            if (added.new, added.gone, &added.unreadable) != (0, 0, &said.unreadable) {
                tell_added(&added);
            }
            said = added;
            let mut people = self.worker.engine.people(&library, &engine)?;
            let mut options = self.worker.options();
            options.wait_for_others = false;
            work(&library, &engine, &mut people, options, &control, false)?;
            people.rename(&library)?;
            library.group_strangers(&engine, engine.threads()).map_err(refused)?;
            while !control.is_stopping() && begun.elapsed() < Duration::from_secs(self.every) {
                if listener.wait(Duration::from_millis(200)).map_err(refused)?
                    && people.changed(&library, &engine).map_err(refused)?.is_some()
                {
                    people.rename(&library)?;
                }
            }
        }
        signals.close();
        Ok(())
    }
}

/// Show how many files are done, due and failed
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// List every file that failed, not only the first ten
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        let status = library.status().map_err(refused)?;
        if self.json {
            let kind = |kind: &KindStatus| {
                json!({
                    "done": kind.done, "due": kind.due, "failed": kind.failed, "frames": kind.frames,
                    "duration_s": kind.duration_ns as f64 / 1e9, "work_s": kind.work_ms as f64 / 1e3,
                })
            };
            let failures: Vec<_> =
                status.failures.iter().map(|one| json!({ "path": one.path, "error": one.error })).collect();
            outln!(
                "{}",
                json!({
                    "videos": kind(&status.videos), "photos": kind(&status.photos), "missing": status.missing,
                    "tracks": status.tracks, "named": status.named, "workers": status.workers,
                    "left_s": status.left_s(), "failures": failures,
                })
            );
            return Ok(());
        }
        tell_status(&library, &status, self.all);
        Ok(())
    }
}

fn tell_status(library: &Library, status: &Status, all: bool) {
    outln!("library {}", library.place());
    for (name, kind) in [("videos", &status.videos), ("photos", &status.photos)] {
        let KindStatus { done, due, failed, .. } = kind;
        let mut text = format!("  {name}: {done} done, {due} due, {failed} failed");
        if kind.done > 0 {
            let seconds = kind.work_ms as f64 / 1e3;
            text += &match name {
                "videos" => {
                    let hours = kind.duration_ns as f64 / 3.6e12;
                    format!(
                        "; {hours:.2} h analysed, at {:.1} times their length",
                        hours * 3600.0 / seconds.max(1e-3)
                    )
                }
                _ => format!("; {:.1} per second and worker", *done as f64 / seconds.max(1e-3)),
            };
        }
        outln!("{text}");
    }
    outln!("  {}, {} with a name", counted(status.tracks, "track"), status.named);
    if status.missing > 0 {
        outln!("  no longer at any path: {}; their results are kept", counted(status.missing, "file"));
    }
    match (status.due(), status.left_s()) {
        (0, _) => {}
        (_, Some(left_s)) => {
            outln!("  {}; about {} left", counted(status.workers, "worker"), duration(left_s))
        }
        (_, None) => outln!("  {}", counted(status.workers, "worker")),
    }
    let most = if all { status.failures.len() } else { LISTED };
    for one in status.failures.iter().take(most) {
        outln!("  failed: {}: {}", terminal::printable(&one.path), terminal::printable(&one.error));
    }
    if status.failures.len() > most {
        outln!("  and {} more: --all lists them", status.failures.len() - most);
    }
}

/// A duration for people.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Estimate how long everything due will take
///
/// Analyses a sample of the files with these settings and measures the speed. Nothing is stored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library plan --machines 64\n  \
    sphereface library plan --model sphereface20 --min-face 80 --hours 100000")]
pub struct PlanArgs {
    /// Videos, and photos, to measure, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    sample: u32,
    /// Seconds of work per video, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Also print how long this many hours of such video would take
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u32).range(1..))]
    hours: Option<u32>,
    /// Machines like this one that will work, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    machines: u32,
    #[command(flatten, next_help_heading = "Detection")]
    look: LookArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: options::ModelArgs,
    #[command(flatten)]
    precision: options::PrecisionArgs,
    #[command(flatten)]
    detection: options::DetectionArgs,
    #[command(flatten, next_help_heading = "Running")]
    device: options::DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: options::ThreadArgs,
}

impl PlanArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let library = place.open()?;
        let engine = engine(&self.model, self.precision, &self.detection, self.device, &self.threads)?;
        let bar = terminal::bar("{spinner} measuring {msg}");
        bar.enable_steady_tick(Duration::from_millis(250));
        let seconds = f64::from(self.seconds);
        let plan = library.plan(&engine, self.look.options(), self.sample as usize, seconds, &mut |path| {
            bar.set_message(path.to_owned());
        });
        bar.finish_and_clear();
        let plan = plan.map_err(refused)?;
        let machines = f64::from(self.machines);
        let hours = |hours: u32| plan.speed.map(|speed| f64::from(hours) * 3600.0 / speed);
        if self.json {
            outln!(
                "{}",
                json!({
                    "videos": plan.videos, "photos": plan.photos, "unreadable": plan.unreadable, "speed": plan.speed,
                    "frames_per_s": plan.frames_per_s, "photos_per_s": plan.photos_per_s, "due_videos": plan.due_videos,
                    "due_photos": plan.due_photos, "due_video_s": plan.due_video_s, "left_s": plan.left_s(),
                    "hours_s": self.hours.and_then(hours), "threads": engine.threads(),
                })
            );
            return Ok(());
        }
        let threads = engine.threads();
        if let (Some(speed), Some(frames)) = (plan.speed, plan.frames_per_s) {
            let videos = plan.videos;
            outln!(
                "videos: {speed:.1} times their length, {frames:.0} frames/s, on {threads} threads (sample of {videos})"
            );
        }
        if let Some(rate) = plan.photos_per_s {
            outln!("photos: {rate:.1} per second (sample of {})", plan.photos);
        }
        if plan.unreadable > 0 {
            outln!("cannot be read: {} of the sample", counted(plan.unreadable, "file"));
        }
        outln!(
            "due: {}, about {:.1} h, and {}",
            counted(plan.due_videos, "video"),
            plan.due_video_s / 3600.0,
            counted(plan.due_photos, "photo")
        );
        let tell = |what: &str, seconds: f64| {
            let days = seconds / 86_400.0;
            let more = if self.machines > 1 {
                format!("; {} with {machines} machines", duration(seconds / machines))
            } else {
                String::new()
            };
            outln!("{what}: {} on one machine like this ({days:.2} machine-days){more}", duration(seconds));
        };
        match plan.left_s() {
            Some(left_s) => tell("all of it", left_s),
            None => outln!("the time is unknown: no file of the sample could be measured"),
        }
        if let (Some(number), Some(seconds)) = (self.hours, self.hours.and_then(hours)) {
            tell(&format!("{number} h of such video"), seconds);
        }
        Ok(())
    }
}

/// An engine with these settings.
pub fn engine(
    model: &options::ModelArgs,
    precision: options::PrecisionArgs,
    detection: &options::DetectionArgs,
    device: options::DeviceArgs,
    threads: &options::ThreadArgs,
) -> Result<Engine> {
    let device = device.open()?;
    let builder = Engine::builder()
        .on(device.clone())
        .model(&model.model)
        .precision(precision.precision)
        .detection(detection.config()?)
        .threads(threads.count());
    let engine = builder.build().map_err(options::refused)?;
    options::tell_with(&device, engine.arithmetic());
    Ok(engine)
}

/// Retry the files that failed
///
/// They become due: `work` analyses them again.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Analyse every file again, for example with another model. Analyses that were made with the same model
    /// and settings are reused. Names, merges and splits are kept
    #[arg(long)]
    all: bool,
}

impl RetryArgs {
    pub fn run(self, place: &LibraryPlace) -> Result<()> {
        let count = place.open()?.retry(self.all).map_err(refused)?;
        outln!("due again: {}", counted(count, "file"));
        Ok(())
    }
}

/// Analyse a part of a list of files, without a catalogue
///
/// For Slurm arrays, Kubernetes jobs, GNU parallel and similar schedulers. Writes one analysis per file into
/// a folder, named by the digest of the content, and prints one line of JSON per file. Files that already
/// have an analysis are skipped. The exit code is 1 if a file failed. The workers of a library use analyses
/// in its folder `analyses`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface library shard --list files.txt --shard $SLURM_ARRAY_TASK_ID/16 -o analyses\n  \
    parallel sphereface library shard --list files.txt --shard {}/4 -o analyses --threads 1 ::: 1 2 3 4")]
pub struct ShardArgs {
    /// Videos and photos
    #[arg(value_name = "FILE", required_unless_present = "list")]
    files: Vec<PathBuf>,
    /// A file with one path per line, after those given; - reads standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Part to analyse, for example 3/16: the third of sixteen
    #[arg(long, value_name = "N/M", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// Folder of the analyses
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: options::ModelArgs,
    #[command(flatten)]
    precision: options::PrecisionArgs,
    #[command(flatten)]
    detection: options::DetectionArgs,
    #[command(flatten, next_help_heading = "Detection")]
    look: LookArgs,
    #[command(flatten, next_help_heading = "Running")]
    device: options::DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: options::ThreadArgs,
}

impl ShardArgs {
    pub fn run(self) -> Result<()> {
        let mut paths = self.files.clone();
        if let Some(list) = &self.list {
            paths.extend(listed(list)?);
        }
        let engine = engine(&self.model, self.precision, &self.detection, self.device, &self.threads)?;
        let control = Control::new();
        let signals = Signals::watch(&control)?;
        let (mut all, mut failed) = (0, 0);
        let result =
            self.shard.analyse(&engine, self.look.options(), &paths, &self.output, &control, &mut |item| {
                all += 1;
                failed += usize::from(matches!(item.outcome, ShardOutcome::Failed(_)));
                outln!("{}", shard_line(item));
            });
        signals.close();
        result.map_err(refused)?;
        if failed > 0 {
            bail!("{failed} of {all} files failed");
        }
        if control.is_stopping() {
            bail!("stopped after {all} files");
        }
        Ok(())
    }
}

fn shard_line(item: &ShardItem) -> serde_json::Value {
    let (state, frames, tracks, error, remark) = match &item.outcome {
        ShardOutcome::Done { frames, tracks, remark } => {
            ("done", Some(frames), Some(tracks), None, remark.as_ref())
        }
        ShardOutcome::Skipped => ("skipped", None, None, None, None),
        ShardOutcome::Failed(error) => ("failed", None, None, Some(error), None),
    };
    json!({
        "path": item.path, "state": state, "content": item.content, "analysis": item.analysis, "frames": frames,
        "tracks": tracks, "seconds": item.seconds, "error": error, "remark": remark,
    })
}

/// The paths in a list.
fn listed(list: &Path) -> Result<Vec<PathBuf>> {
    let lines = |reader: &mut dyn BufRead| -> std::io::Result<Vec<PathBuf>> {
        let lines = reader.lines().collect::<std::io::Result<Vec<String>>>()?;
        Ok(lines.into_iter().filter(|line| !line.trim().is_empty()).map(PathBuf::from).collect())
    };
    let read = match list.as_os_str() == "-" {
        true => lines(&mut std::io::stdin().lock()),
        false => std::fs::File::open(list).and_then(|file| lines(&mut BufReader::new(file))),
    };
    let paths = read.with_context(|| format!("the list {} cannot be read", list.display()))?;
    if paths.is_empty() {
        return Err(UsageError(format!("the list {} is empty", list.display())).into());
    }
    Ok(paths)
}
