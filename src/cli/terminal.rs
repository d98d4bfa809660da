//! Printing: results on standard output, remarks on standard error.
//!
//! If a reader closes the pipe (`sphereface gallery list | head -1`), only the printing ends: the work is
//! finished, and the exit code is that of the work. Everything is printed through this module, because the
//! macros of the standard library panic on a closed pipe.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use sphereface::pipeline::Control;

/// Writes to standard output.
macro_rules! out {
    ($($part:tt)*) => { $crate::cli::terminal::print(format_args!($($part)*)) };
}

/// Writes a line to standard output.
macro_rules! outln {
    ($($part:tt)*) => { $crate::cli::terminal::print(format_args!("{}\n", format_args!($($part)*))) };
}

/// Writes a line to standard error.
macro_rules! errln {
    ($($part:tt)*) => { $crate::cli::terminal::remark(format_args!($($part)*)) };
}

/// The state of standard output.
enum State {
    Open,
    /// The reader closed the pipe: nothing more is written.
    Closed,
    /// Writing failed for another reason, for example a full disk.
    Failed(io::Error),
}

static STATE: Mutex<State> = Mutex::new(State::Open);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records the result of writing to standard output; returns whether it is still open.
fn note(written: io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    let mut state = state();
    if matches!(*state, State::Open) {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        *state = if closed { State::Closed } else { State::Failed(error) };
    }
    false
}

/// Writes to standard output while it is open.
pub fn print(text: fmt::Arguments<'_>) {
    if matches!(*state(), State::Open) {
        note(io::stdout().lock().write_fmt(text));
    }
}

/// Writes a line to standard error in one call, because other programs may write there too. A failure
/// is ignored, as it could not be reported. Control characters, which come from names of files, are shown as such
/// and not obeyed by the terminal; a message may have several lines.
pub fn remark(text: fmt::Arguments<'_>) {
    let line = escaped(&text.to_string(), |c| c.is_control() && !matches!(c, '\n' | '\t'));
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// The name of a file for a line of a listing.
#[cfg_attr(not(feature = "library"), allow(dead_code))]
pub fn printable(name: &str) -> String {
    escaped(name, char::is_control)
}

/// A text with some of its characters written as in Rust.
fn escaped(text: &str, which: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match which(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Flushes standard output.
///
/// # Errors
/// When standard output could not be written for any reason but a closed pipe.
pub fn finish() -> Result<()> {
    if matches!(*state(), State::Open) {
        note(io::stdout().lock().flush());
    }
    match std::mem::replace(&mut *state(), State::Closed) {
        State::Failed(error) => Err(error).context("standard output cannot be written"),
        State::Open | State::Closed => Ok(()),
    }
}

/// Standard output for data. When the pipe is closed, a callback is called once, and further data is
/// discarded.
pub struct Data {
    on_closed: Option<Box<dyn FnOnce() + Send>>,
}

impl Data {
    /// Standard output; `on_closed` is called when the pipe is closed.
    pub fn new(on_closed: impl FnOnce() + Send + 'static) -> Self {
        Self { on_closed: Some(Box::new(on_closed)) }
    }

    /// Ignores a closed pipe.
    fn take(&mut self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                note(Err(error));
                self.on_closed.take().into_iter().for_each(|on_closed| on_closed());
                Ok(())
            }
            other => other,
        }
    }
}

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.on_closed.is_some() {
            let written = io::stdout().lock().write_all(bytes);
            self.take(written)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.on_closed.is_some() {
            let flushed = io::stdout().lock().flush();
            self.take(flushed)?;
        }
        Ok(())
    }
}

/// A progress bar on standard error, shown if that is a terminal.
#[cfg_attr(not(any(feature = "library", feature = "train")), allow(dead_code))]
pub fn bar(template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Handles Ctrl-C and SIGTERM: the first finishes the outputs, the second discards them, the third
/// kills the process.
pub struct Signals {
    #[cfg(unix)]
    handle: signal_hook::iterator::Handle,
    #[cfg(unix)]
    thread: std::thread::JoinHandle<()>,
}

impl Signals {
    #[cfg(unix)]
    /// Watches for signals until [`close`](Self::close) is called.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn watch(control: &Control) -> Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let control = control.clone();
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                match count {
                    0 => control.stop(),
                    1 => control.abort(),
                    _ => drop(signal_hook::low_level::emulate_default_handler(signal)),
                }
            }
        })?;
        Ok(Self { handle, thread })
    }

    #[cfg(not(unix))]
    /// Watches for nothing.
    ///
    /// # Errors
    /// Never.
    pub fn watch(_: &Control) -> Result<Self> {
        Ok(Self {})
    }

    /// Leaves signals to the system again.
    pub fn close(self) {
        #[cfg(unix)]
        {
            self.handle.close();
            let _ = self.thread.join();
        }
    }
}
