//! Videos that are labelled in the background, one after the other.
//!
//! A job has its own folder, `jobs/NUMBER` below the folder of the service, with the upload and the results. It runs in a
//! process of its own if the service knows a program for it.
//! A job that was running when the service ended is restarted at the next start.

mod container;
mod process;
mod task;
pub(super) mod worker;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

pub(super) use container::{LOOK_AT_BYTES, is_video};
pub use process::{JobProgram, run_job};

use super::lock;
use super::problem::Problem;
use super::store::{Job, JobState, Store, StoreError};
use crate::pipeline::Control;

/// The results of a job: file name and kind.
pub(super) const RESULTS: [(&str, &str); 3] = [
    ("page.html", "text/html; charset=utf-8"),
    ("named.mp4", "video/mp4"),
    ("faces.jsonl", "application/jsonl; charset=utf-8"),
];
/// The folder of the file that was uploaded.
const UPLOADED: &str = "input";
/// Longest name of an upload, in characters: each has up to four bytes.
const LONGEST_NAME: usize = 60;

/// The jobs.
pub(super) struct Jobs {
    folder: PathBuf,
    running: Mutex<Option<Running>>,
    /// Signals new jobs, or the end of the service.
    changed: Condvar,
    ending: Mutex<bool>,
}

/// The running job.
struct Running {
    id: i64,
    control: Control,
    frames: u64,
    expected: Option<u64>,
    /// Whether it is in the pass that writes.
    writes: bool,
}

/// The progress of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Done {
    /// Frames processed, over all passes.
    pub frames: u64,
    /// Frames in all, if known.
    pub of: Option<u64>,
}

impl Jobs {
    /// Jobs in a folder below that of the service.
    pub fn new(data: &Path) -> Self {
        let folder = data.join("jobs");
        Self { folder, running: Mutex::default(), changed: Condvar::new(), ending: Mutex::default() }
    }

    /// The folder of a job.
    pub fn folder(&self, id: i64) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// A folder for an upload that is not a job yet.
    ///
    /// # Errors
    /// The system's error.
    pub fn receive(&self) -> std::io::Result<tempfile::TempPath> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(tempfile::Builder::new().prefix("upload-").tempfile_in(&self.folder)?.into_temp_path())
    }

    /// Makes a job of an upload.
    ///
    /// # Errors
    /// When the store fails, or the file cannot be moved.
    pub fn add_upload(&self, store: &Store, name: &str, file: tempfile::TempPath) -> Result<i64, Problem> {
        let place = |id: i64| {
            let to = self.uploaded(id, name);
            std::fs::create_dir_all(to.parent().unwrap_or(&to))?;
            file.persist(to).map_err(|error| error.error)
        };
        let added = store.add_job(name, None, place)?.map_err(|error| Problem::inside(&error))?;
        self.wake();
        Ok(added)
    }

    /// Makes a job of a file.
    ///
    /// # Errors
    /// When the store fails.
    pub fn add_file(&self, store: &Store, name: &str, file: &str) -> Result<i64, Problem> {
        let added = store.add_job(name, Some(file), |_| Ok(()))?.map_err(|error| Problem::inside(&error))?;
        self.wake();
        Ok(added)
    }

    /// The path of an upload; its name appears on the page.
    fn uploaded(&self, id: i64, name: &str) -> PathBuf {
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).take(LONGEST_NAME).collect();
        let name = name.trim_start_matches('.');
        self.folder(id).join(UPLOADED).join(if name.is_empty() { "video" } else { name })
    }

    /// Signals that there are new jobs.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// The progress of a job, if it is running.
    pub fn done(&self, id: i64) -> Option<Done> {
        let running = lock(&self.running);
        let one = running.as_ref().filter(|one| one.id == id)?;
        // A file is read twice: to identify the people, and to write.
        let of = one.expected.map(|frames| 2 * frames);
        let before = if one.writes { one.expected.unwrap_or_default() } else { 0 };
        let frames = before + one.frames;
        Some(Done { frames: of.map_or(frames, |of| frames.min(of)), of })
    }

    /// Cancels a job that is not finished.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cancel(&self, store: &Store, id: i64) -> Result<(), StoreError> {
        store.end_job(id, JobState::Cancelled, None, &[])?;
        if let Some(running) = lock(&self.running).as_ref().filter(|one| one.id == id) {
            running.control.abort();
        }
        Ok(())
    }

    /// Deletes a job with its files.
    ///
    /// # Errors
    /// When the store fails, or the files cannot be deleted.
    pub fn remove(&self, store: &Store, id: i64) -> Result<(), Problem> {
        self.cancel(store, id)?;
        // The thread that runs it writes nothing more once it is stopped.
        while lock(&self.running).as_ref().is_some_and(|one| one.id == id) {
            std::thread::sleep(Duration::from_millis(20));
        }
        match std::fs::remove_dir_all(self.folder(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Problem::inside(&error));
            }
            _ => {}
        }
        Ok(store.remove_job(id)?)
    }

    /// Deletes the jobs whose results show a person, also under a former name.
    ///
    /// # Errors
    /// As for [`Jobs::remove`].
    pub fn forget(&self, store: &Store, name: &str) -> Result<(), Problem> {
        // A running job may find the person, so it is restarted without them.
        for job in store.jobs()?.iter().filter(|job| job.state == JobState::Running) {
            self.begin_again(store, job.id)?;
        }
        // One that ended in the meantime is among these.
        for job in store.jobs()?.iter().filter(|job| job.names(name)) {
            self.remove(store, job.id)?;
        }
        Ok(())
    }

    fn begin_again(&self, store: &Store, id: i64) -> Result<(), StoreError> {
        if let Some(running) = lock(&self.running).as_ref().filter(|one| one.id == id) {
            running.control.abort();
            store.put_back_job(id)?;
        }
        Ok(())
    }

    /// Deletes jobs that ended that many days ago; 0 keeps them for ever. Returns the number of deleted jobs.
    ///
    /// # Errors
    /// As for [`Jobs::remove`].
    pub fn sweep(&self, store: &Store, days: u32, now_ms: i64) -> Result<usize, Problem> {
        let since = now_ms - i64::from(days) * 24 * 60 * 60 * 1000;
        let old = |job: &&Job| days > 0 && job.ended_ms.is_some_and(|ended_ms| ended_ms < since);
        let all = store.jobs()?;
        let old: Vec<i64> = all.iter().filter(old).map(|job| job.id).collect();
        old.iter().try_for_each(|id| self.remove(store, *id))?;
        Ok(old.len())
    }

    /// Deletes files of no job.
    fn tidy(&self, store: &Store) -> Result<(), StoreError> {
        let known: BTreeSet<String> = store.jobs()?.iter().map(|job| job.id.to_string()).collect();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_none_or(|name| !known.contains(name)) {
                let path = entry.path();
                let gone =
                    if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                if let Err(error) = gone {
                    tracing::warn!("{} cannot be deleted: {error}", path.display());
                }
            }
        }
        Ok(())
    }

    /// Stops the work. A running job is restarted at the next start.
    pub fn stop(&self) {
        *lock(&self.ending) = true;
        if let Some(running) = lock(&self.running).as_ref() {
            running.control.abort();
        }
        self.changed.notify_all();
    }

    /// A reason without the paths of the service's files, which clients must not see.
    fn hide(&self, reason: &str) -> String {
        match self.folder.to_str() {
            Some(folder) => reason.replace(&format!("{folder}/"), "jobs/"),
            None => reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_for_too_long_goes_with_its_files_and_so_does_what_is_no_job() {
        let folder = tempfile::tempdir().unwrap();
        let (store, jobs) = (Store::open(folder.path()).unwrap(), Jobs::new(folder.path()));
        let add = |name: &str| {
            let file = jobs.receive().unwrap();
            std::fs::write(&file, name).unwrap();
            jobs.add_upload(&store, name, file).unwrap()
        };
        let (old, new) = (add("../../old .mp4"), add("new.mp4"));
        assert_eq!(std::fs::read(jobs.folder(old).join("input/_.._old_.mp4")).unwrap(), b"../../old .mp4");
        assert_eq!(store.begin_job().unwrap().unwrap().id, old);
        store.end_job(old, JobState::Done, None, &["Ada".into()]).unwrap();
        let now = crate::serve::now_ms();
        let days = |days: i64| now + days * 24 * 60 * 60 * 1000 + 60_000;
        assert_eq!(jobs.sweep(&store, 7, days(6)).unwrap(), 0);
        assert_eq!(jobs.sweep(&store, 0, days(99)).unwrap(), 0, "for ever");
        assert_eq!(jobs.sweep(&store, 7, days(7)).unwrap(), 1);
        assert!(!jobs.folder(old).exists() && jobs.folder(new).exists(), "the other one is not over");
        // A process that was killed left something behind, too.
        std::fs::create_dir_all(jobs.folder(new).join("input")).unwrap();
        std::fs::write(jobs.folder(new).join(".faces.jsonl.x.part"), "half").unwrap();
        jobs.clear(&store, new);
        assert_eq!(std::fs::read_dir(jobs.folder(new)).unwrap().count(), 1, "the upload stays");
        // A crash left something behind.
        std::fs::create_dir(jobs.folder(99)).unwrap();
        std::fs::write(jobs.folder.join("upload-x"), "half").unwrap();
        jobs.tidy(&store).unwrap();
        assert_eq!(std::fs::read_dir(&jobs.folder).unwrap().count(), 1);
        jobs.remove(&store, new).unwrap();
        assert_eq!((store.jobs().unwrap().len(), std::fs::read_dir(&jobs.folder).unwrap().count()), (0, 0));
    }
}
