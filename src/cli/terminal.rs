//! What the program says: results on standard output, remarks on standard error.
//!
//! A reader that goes away (`sphereface gallery list | head -1`) ends the printing and nothing
//! else: what was asked for is done, and the exit code is that of the work. Everything is said
//! through this module, as the macros of the standard library panic where the reader is gone.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

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

/// What became of standard output.
enum State {
    Open,
    /// The reader is gone: nothing more is written.
    Closed,
    /// Writing failed otherwise, for example for want of room.
    Failed(io::Error),
}

static STATE: Mutex<State> = Mutex::new(State::Open);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes how writing to standard output went; says whether somebody still reads.
fn note(written: io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    let mut state = state();
    if matches!(*state, State::Open) {
        let closed = error.kind() == io::ErrorKind::BrokenPipe;
        *state = if closed { State::Closed } else { State::Failed(error) };
    }
    false
}

/// Writes to standard output, as long as somebody reads.
pub fn print(text: fmt::Arguments<'_>) {
    if matches!(*state(), State::Open) {
        note(io::stdout().lock().write_fmt(text));
    }
}

/// Writes a line to standard error, in one piece, as other programs may write there too. Where
/// that fails there is nobody to tell.
pub fn remark(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Writes what is still held back.
///
/// # Errors
/// When standard output could not be written, for another reason than that nobody reads it.
pub fn finish() -> Result<()> {
    if matches!(*state(), State::Open) {
        note(io::stdout().lock().flush());
    }
    match std::mem::replace(&mut *state(), State::Closed) {
        State::Failed(error) => Err(error).context("standard output cannot be written"),
        State::Open | State::Closed => Ok(()),
    }
}

/// Standard output for data. When its reader goes away, that is told once, and the rest goes
/// nowhere.
pub struct Data {
    on_closed: Option<Box<dyn FnOnce() + Send>>,
}

impl Data {
    /// Standard output; `on_closed` is called when nobody reads it any more.
    pub fn new(on_closed: impl FnOnce() + Send + 'static) -> Self {
        Self { on_closed: Some(Box::new(on_closed)) }
    }

    /// Passes over a reader that is gone.
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
