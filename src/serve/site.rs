//! State shared by all requests.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::cameras::Cameras;
use super::config::Settings;
use super::galleries::Galleries;
use super::jobs::{JobProgram, Jobs};
use super::lock;
use super::outputs::state::Outputs;
use super::problem::Problem;
use super::rates::Rates;
use super::shelf::Shelf;
use super::store::{Store, StoreError};
use super::tokens::Tokens;
use super::turns::Turns;
use crate::annotate::Whom;
use crate::engine::{Engine, EngineError, Gallery};
use crate::gallery::{GalleryError, GalleryFolder};

/// Setting of the store: the threshold that was set on its page, in degrees.
const THRESHOLD: &str = "threshold_deg";

/// The threshold that was set on its page, in degrees.
///
/// # Errors
/// When the store fails.
pub(super) fn threshold_set(store: &Store) -> Result<Option<f64>, StoreError> {
    Ok(store.setting(THRESHOLD)?.and_then(|text| text.parse().ok()))
}

/// The problem that the folder of the gallery is missing.
fn lost() -> Problem {
    let detail =
        "the folder of the gallery is missing: put it back, or restart the service to begin a new one";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// The state of a request.
pub(super) type App = Arc<Site>;

/// The service, for requests.
pub(super) struct Site {
    pub settings: Mutex<Arc<Settings>>,
    pub engine: Engine,
    pub galleries: Arc<Galleries>,
    pub cameras: Cameras,
    pub store: Arc<Store>,
    pub turns: Arc<Turns>,
    /// The tokens, if they are required.
    pub tokens: Option<Tokens>,
    /// The TLS acceptor, if connections are encrypted.
    pub tls: Mutex<Option<TlsAcceptor>>,
    pub rates: Rates,
    pub requests: Arc<Semaphore>,
    pub streams: Arc<Semaphore>,
    pub started: Instant,
    /// Becomes true when the service ends.
    pub ending: watch::Receiver<bool>,
    pub counts: Counts,
    pub outputs: Outputs,
    pub jobs: Jobs,
    /// The program that runs a job; `None` to run jobs in this process.
    pub job_program: Option<JobProgram>,
    pub shelf: Shelf,
}

/// Counters of requests.
#[derive(Default)]
pub(super) struct Counts {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub busy: AtomicU64,
}

impl Site {
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&lock(&self.settings))
    }

    /// A permit to process a request with pictures.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn may_work(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = |_| Problem::busy("the service is at its limit of concurrent requests: retry later");
        Arc::clone(&self.requests).try_acquire_owned().map_err(busy)
    }

    /// A permit for a stream of pictures or events.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn may_stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy =
            |_| Problem::busy("the service is at its limit of open streams: close one, or retry later");
        Arc::clone(&self.streams).try_acquire_owned().map_err(busy)
    }

    /// The gallery for requests; `None` if nobody is enrolled.
    ///
    /// # Errors
    /// When their folder cannot be read.
    pub fn gallery(&self) -> Result<Option<Gallery>, EngineError> {
        let settings = self.settings();
        self.galleries.get(&settings.config.gallery, settings.threshold)
    }

    /// Whether a person (`None`: a stranger) is covered in pictures of a source.
    pub fn covers(&self, source: &str, name: Option<&str>) -> bool {
        let config = self.cameras.state(source).map(|(config, _)| config);
        let whom = config.and_then(|config| config.redact?.parse::<Whom>().ok());
        whom.is_some_and(|whom| whom.covers(name))
    }

    /// Sets and stores the threshold from the next frame on; `None` restores that of the configuration.
    ///
    /// # Errors
    /// When the store fails, or a gallery cannot be read.
    pub fn set_threshold(&self, degrees: Option<f64>) -> Result<(), Problem> {
        self.store.set_setting(THRESHOLD, degrees.map(|degrees| degrees.to_string()).as_deref())?;
        {
            let mut settings = lock(&self.settings);
            *settings = Arc::new((**settings).clone().with_threshold(degrees));
        }
        let request = self.settings().threshold;
        self.galleries.renew(|_| true)?;
        Ok(self.cameras.set_threshold(request)?)
    }

    /// The folder of the gallery; `None` before the first person is enrolled.
    ///
    /// # Errors
    /// When it is missing although people were read from it before.
    pub fn people_folder(&self) -> Result<Option<GalleryFolder>, Problem> {
        let folder = self.settings().config.gallery.clone();
        match GalleryFolder::open(&folder) {
            Err(GalleryError::Missing(_)) if self.galleries.is_lost(&folder) => Err(lost()),
            Err(GalleryError::Missing(_)) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    /// Changes the gallery exclusively; running sources use it from the next frame on.
    ///
    /// # Errors
    /// Errors of `change`, and when the folder cannot be created or read, or is missing although people were
    /// read from it before.
    pub fn edit_people<T>(
        &self,
        change: impl FnOnce(&GalleryFolder) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let folder = self.settings().config.gallery.clone();
        let changed = self.galleries.edit(&folder, || {
            // Created anew, it would be read as one in which nobody else is enrolled.
            if self.galleries.is_lost(&folder) {
                return Err(lost());
            }
            change(&GalleryFolder::create(&folder)?)
        })?;
        self.cameras.renew_galleries(Some(&folder))?;
        Ok(changed)
    }

    /// Reads a gallery again that another program changed; running sources use it from the next frame on.
    pub fn reread(&self, folder: &Path) {
        let renewed = self.galleries.renew(|one| one == folder);
        let renewed = renewed.and_then(|()| self.cameras.renew_galleries(Some(folder)));
        let folder = folder.display();
        match renewed {
            Ok(()) => tracing::info!("the gallery {folder} was changed by another program and is reread"),
            Err(error) => tracing::warn!(
                "the gallery {folder} was changed by another program and cannot be reread, so the people who were \
                 read from it before are still named: {error}"
            ),
        }
    }

    /// Runs `work` on a thread that may compute, in its turn.
    ///
    /// # Errors
    /// Errors of `work`.
    pub async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Site) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let site = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = site.turns.take();
            work(&site)
        });
        done.await.unwrap_or_else(|error| Err(Problem::inside(&error)))
    }

    /// Runs `work` on a thread that may block on a disk.
    ///
    /// # Errors
    /// Errors of `work`.
    pub async fn wait_for<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Site) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let site = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&site));
        done.await.unwrap_or_else(|error| Err(Problem::inside(&error)))
    }
}
