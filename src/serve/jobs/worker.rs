//! The thread that runs the jobs.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::process::{self, Order};
use super::task::{Labelled, Task, Told};
use super::{Jobs, Running};
use crate::identify::ThresholdRequest;
use crate::pipeline::Control;
use crate::serve::site::Site;
use crate::serve::store::{Job, JobState, Store};
use crate::serve::{ServeError, lock};

/// The most starts of a job that was running whenever the service ended.
const MOST_ATTEMPTS: u32 = 2;
/// How long an input may give no data.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Polling interval for new jobs.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Starts the thread.
///
/// # Errors
/// When the store fails, or the thread cannot be started.
pub(in crate::serve) fn start(site: &Arc<Site>) -> Result<JoinHandle<()>, ServeError> {
    let reason = format!("the service ended {MOST_ATTEMPTS} times while it ran");
    site.store.resume_jobs(MOST_ATTEMPTS, &reason)?;
    site.jobs.tidy(&site.store)?;
    for job in site.store.jobs()? {
        site.jobs.clear(&site.store, job.id);
    }
    let site = Arc::clone(site);
    let work = move || site.jobs.work(&site);
    std::thread::Builder::new().name("jobs".into()).spawn(work).map_err(ServeError::Threads)
}

impl Jobs {
    fn work(&self, site: &Site) {
        loop {
            {
                let ending = lock(&self.ending);
                if *ending {
                    return;
                }
            }
            match site.store.begin_job() {
                Ok(Some(job)) => self.run(site, &job),
                Ok(None) => {
                    let ending = lock(&self.ending);
                    if !*ending {
                        drop(
                            self.changed
                                .wait_timeout(ending, LOOK_EVERY)
                                .unwrap_or_else(PoisonError::into_inner),
                        );
                    }
                }
                Err(error) => {
                    tracing::error!("{error}");
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    fn run(&self, site: &Site, job: &Job) {
        let control = Control::new();
        control.set_patience(Some(PATIENCE));
        let running =
            Running { id: job.id, control: control.clone(), frames: 0, expected: None, writes: false };
        *lock(&self.running) = Some(running);
        let worked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.label(site, job, &control)));
        let ended = match worked {
            Ok(Ok(Labelled { people, cut_off })) => {
                site.store.end_job(job.id, JobState::Done, cut_off.as_deref(), &people)
            }
            Ok(Err(_)) if *lock(&self.ending) => site.store.put_back_job(job.id),
            Ok(Err(reason)) => site.store.end_job(job.id, JobState::Failed, Some(&reason), &[]),
            Err(_) => {
                let reason = "labelling it failed inside the program: see the log of the service";
                site.store.end_job(job.id, JobState::Failed, Some(reason), &[])
            }
        };
        if let Err(error) = ended {
            tracing::error!("{error}");
        }
        self.clear(&site.store, job.id);
        *lock(&self.running) = None;
    }

    fn label(&self, site: &Site, job: &Job, control: &Control) -> Result<Labelled, String> {
        // It was cancelled between the two.
        if site.store.job(job.id).ok().flatten().is_none_or(|now| now.state != JobState::Running) {
            return Err("cancelled".into());
        }
        let folder = self.folder(job.id);
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{} cannot be written: {error}", folder.display()))?;
        let file = match &job.input {
            Some(input) => PathBuf::from(input),
            None => self.uploaded(job.id, &job.name),
        };
        let task = Task { name: job.name.clone(), file, results: folder };
        let gallery = site.gallery().map_err(|error| error.to_string())?;
        let told = |told: Told| self.tell(job.id, told);
        let labelled = match &site.job_program {
            None => task.run(&site.engine, gallery.as_ref(), control, told),
            Some(program) => {
                let settings = site.settings();
                let threshold_deg = match settings.threshold {
                    ThresholdRequest::AngleDeg(degrees) => Some(degrees),
                    _ => None,
                };
                let gallery = gallery.map(|_| settings.config.gallery.clone());
                process::run(program, &Order { task, gallery, threshold_deg }, control, told)
            }
        };
        labelled.map_err(|reason| self.hide(&reason))
    }

    /// Deletes what a job that is not done has begun to write: a process that is killed cannot do so.
    pub(super) fn clear(&self, store: &Store, id: i64) {
        if store.job(id).ok().flatten().is_none_or(|job| job.state == JobState::Done) {
            return;
        }
        let begun = std::fs::read_dir(self.folder(id)).into_iter().flatten().flatten();
        for path in begun.map(|entry| entry.path()).filter(|path| path.is_file()) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!("{} cannot be deleted: {error}", path.display());
            }
        }
    }

    /// Notes the progress of the running job.
    fn tell(&self, id: i64, told: Told) {
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else { return };
        match told {
            Told::Opened { writes, frames } => {
                let expected = frames.or(running.expected).or(Some(running.frames).filter(|_| writes));
                (running.writes, running.expected, running.frames) = (writes, expected, 0);
            }
            Told::Frame => running.frames += 1,
            Told::Warning(warning) => tracing::warn!(job = id, "{warning}"),
            Told::Done(_) | Told::Failed(_) => {}
        }
    }
}
