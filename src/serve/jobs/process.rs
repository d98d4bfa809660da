//! Labelling in a process of its own: decoders read what strangers upload, and one that fails takes its process with
//! it. The service and its cameras go on.
//!
//! The service starts a program, writes an [`Order`] to its standard input as one line, and reads one [`Told`] per line
//! from its standard output. The program stops when its standard input ends, also because the service died.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::task::{Labelled, Task, Told};
use super::worker::PATIENCE;
use crate::engine::{Engine, EngineError, Gallery, GalleryOptions};
use crate::identify::ThresholdRequest;
use crate::pipeline::Control;

/// How often the service looks whether a job was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a process may go on after its job was cancelled.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Longest line that a process may write, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// A program that calls [`run_job`]: it is started once per job.
#[derive(Debug, Clone)]
pub struct JobProgram {
    /// Its file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub task: Task,
    /// The folder of the gallery; `None` if nobody is enrolled.
    pub gallery: Option<PathBuf>,
    /// The threshold that was set, in degrees.
    pub threshold_deg: Option<f64>,
}

/// Runs a task in a process of its own.
///
/// # Errors
/// A sentence: that of the task, or what became of the process.
pub(super) fn run(
    program: &JobProgram,
    order: &Order,
    control: &Control,
    mut told: impl FnMut(Told),
) -> Result<Labelled, String> {
    let mut line = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let failed = |error: std::io::Error| format!("{} cannot be started: {error}", program.program.display());
    let mut child = Command::new(&program.program)
        .args(&program.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Kept open: its end is the signal to stop.
    let mut orders = child.stdin.take();
    let lines = child.stdout.take().map(listen);
    // A process that ended already says so below.
    let _ = orders.as_mut().map(|orders| orders.write_all(&line));
    let mut outcome = None;
    let mut cancelled: Option<Instant> = None;
    while let Some(lines) = &lines {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(Told::Done(labelled)) => outcome = Some(Ok(labelled)),
            Ok(Told::Failed(reason)) => outcome = Some(Err(reason)),
            Ok(other) => told(other),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if control.is_aborted() {
            orders = None;
            if cancelled.get_or_insert_with(Instant::now).elapsed() > END_LIMIT {
                break;
            }
        }
    }
    let status = end(&mut child, orders).map_err(|error| error.to_string())?;
    outcome.unwrap_or_else(|| Err(what_became(status)))
}

/// Ends a process that has closed its output, or does not stop.
fn end(child: &mut Child, orders: Option<ChildStdin>) -> std::io::Result<ExitStatus> {
    drop(orders);
    let until = Instant::now() + END_LIMIT;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It may have ended by itself just now.
    let _ = child.kill();
    child.wait()
}

/// Why a process ended without an outcome.
fn what_became(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!(
            "the process that labelled it was ended by signal {signal}: a decoder failed at this file, or memory ran out"
        );
    }
    format!("the process that labelled it ended without a result ({status}): see the log of the service")
}

/// Reads what a process tells, on a thread of its own, until it closes its output. Other lines, which libraries may print,
/// are skipped.
fn listen(output: impl Read + Send + 'static) -> mpsc::Receiver<Told> {
    // Bounded, in case a process tells more than anybody reads.
    let (tell, told) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            let Ok(1..) = read else { return };
            let Ok(one) = serde_json::from_slice(&line) else { continue };
            if tell.send(one).is_err() {
                return;
            }
        }
    });
    told
}

/// Labels one video as the service tells on `orders`, and answers on `answers`: the work of a [`JobProgram`]. `engine`
/// is opened only once there is an order. The process yields to the service: it is less urgent for the scheduler, and
/// ends first when memory runs out.
///
/// # Errors
/// When the answers cannot be written, because the service is gone.
pub fn run_job(
    engine: impl FnOnce() -> Result<Engine, EngineError>,
    orders: impl Read + Send + 'static,
    mut answers: impl Write + Send,
) -> std::io::Result<()> {
    yield_to_others();
    let mut orders = BufReader::new(orders);
    let mut line = Vec::new();
    orders.read_until(b'\n', &mut line)?;
    let control = Control::new();
    control.set_patience(Some(PATIENCE));
    let stop = control.clone();
    std::thread::spawn(move || {
        // Nothing more is said: the end, or an error, means to stop.
        let _ = std::io::copy(&mut orders, &mut std::io::sink());
        stop.abort();
    });
    let mut lost = None;
    let mut answer = |told: &Told| {
        let mut line = serde_json::to_vec(told).unwrap_or_default();
        line.push(b'\n');
        let written = answers.write_all(&line).and_then(|()| answers.flush());
        if let Err(error) = written {
            control.abort();
            lost.get_or_insert(error);
        }
    };
    let labelled = serde_json::from_slice::<Order>(&line).map_err(|error| format!("no order: {error}"));
    let labelled = labelled.and_then(|order| order.run(engine, &control, |told| answer(&told)));
    answer(&labelled.map_or_else(Told::Failed, Told::Done));
    lost.map_or(Ok(()), Err)
}

impl Order {
    fn run(
        &self,
        engine: impl FnOnce() -> Result<Engine, EngineError>,
        control: &Control,
        told: impl FnMut(Told) + Send,
    ) -> Result<Labelled, String> {
        let text = |error: EngineError| error.to_string();
        let engine = engine().map_err(text)?;
        let threshold = self.threshold_deg.map_or(ThresholdRequest::Default, ThresholdRequest::AngleDeg);
        let options = GalleryOptions::default().threshold(threshold);
        let open = |folder: &PathBuf| Gallery::open_with(&engine, folder, &options).map_err(text);
        let gallery = self.gallery.as_ref().map(open).transpose()?;
        self.task.run(&engine, gallery.as_ref(), control, told)
    }
}

/// Makes this process less urgent than others, and the first to end when memory runs out. Both are allowed to everyone;
/// where they are not, it works all the same.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // SAFETY: it takes a number, and changes nothing but the priority of this process.
    #[cfg(unix)]
    let _ = unsafe { libc::nice(10) };
}
