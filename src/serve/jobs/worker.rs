//! The thread that runs the jobs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Jobs, RESULTS, Running};
use crate::identify::Who;
use crate::media::Input;
use crate::pipeline::page::PageJob;
use crate::pipeline::{Control, LabelJob, LabelSummary, Pass, Progress};
use crate::report::{JsonLines, Output, Results};
use crate::serve::site::Site;
use crate::serve::store::{Job, JobState};
use crate::serve::{ServeError, lock};

/// The most starts of a job that was running whenever the service ended.
const MOST_ATTEMPTS: u32 = 2;
/// How long an input may give no data.
const PATIENCE: Duration = Duration::from_secs(60);
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
            Running { id: job.id, control: control.clone(), frames: 0, expected: None, pass: Pass::Only };
        *lock(&self.running) = Some(running);
        let worked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.label(site, job, &control)));
        let ended = match worked {
            Ok(Ok(summary)) => {
                site.store.end_job(job.id, JobState::Done, summary.cut_off.as_deref(), &people(&summary))
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
        *lock(&self.running) = None;
    }

    fn label(&self, site: &Site, job: &Job, control: &Control) -> Result<LabelSummary, String> {
        // It was cancelled between the two.
        if site.store.job(job.id).ok().flatten().is_none_or(|now| now.state != JobState::Running) {
            return Err("cancelled".into());
        }
        let folder = self.folder(job.id);
        let text = |error: &dyn std::error::Error| error.to_string();
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{} cannot be written: {error}", folder.display()))?;
        let file = match &job.input {
            Some(input) => PathBuf::from(input),
            None => self.uploaded(job.id, &job.name),
        };
        let [page, video, faces] = RESULTS.map(|(name, _)| folder.join(name));
        let gallery = site.gallery().map_err(|error| text(&error))?;
        let create = |path: &Path| Output::create(path).map_err(|error| text(&error));
        let page = PageJob {
            output: create(&page)?,
            path: page,
            video: file.clone(),
            play: video.clone(),
            embed: false,
            analysis: None,
            facts: vec![("Video".into(), job.name.clone())],
        };
        let mut label = LabelJob::new(&site.engine, Input::File(file))
            .results(Results::default().json_lines(Some(JsonLines::new(create(&faces)?))))
            .page(Some(page))
            .output(video);
        if let Some(gallery) = &gallery {
            label = label.gallery(gallery);
        }
        let told = |progress: Progress<'_>| {
            let mut running = lock(&self.running);
            let Some(running) = running.as_mut() else { return };
            match progress {
                Progress::Opened { pass, frames, .. } => {
                    let expected =
                        frames.or(running.expected).or(Some(running.frames).filter(|_| pass == Pass::Write));
                    (running.pass, running.expected, running.frames) = (pass, expected, 0);
                }
                Progress::Frame => running.frames += 1,
                Progress::Warning(warning) => tracing::warn!(job = job.id, "{warning}"),
            }
        };
        label.run(control, &mut { told }).map_err(|error| self.hide(&error.to_string()))
    }
}

fn people(summary: &LabelSummary) -> Vec<String> {
    let name = |who: &Who| who.name().map(str::to_owned);
    summary.people.iter().filter_map(|one| name(&one.who)).collect()
}
