//! A service, running.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::camera::{Common, Phase};
use super::cameras::{Cameras, wanted};
use super::config::Settings;
use super::data::DataFolder;
use super::galleries::Galleries;
use super::jobs::{JobProgram, Jobs};
use super::outputs::state::Outputs;
use super::rates::Rates;
use super::shelf::Shelf;
use super::site::{Counts, Site, threshold_set};
use super::store::Store;
use super::tokens::{NewTokens, Tokens};
use super::turns::Turns;
use super::{ServeError, jobs, listen, lock, now_ms, outputs};
use crate::annotate::{Annotator, Style};
use crate::engine::Engine;
use crate::nn::{ArithmeticChoice, Device, DeviceChoice, Isa};

/// Time limit for open requests when the service ends.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Shortest interval at which the galleries are compared with what was read.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// Interval at which old data is deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(15 * 60);
/// Interval at which free memory is returned to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// Threads that answer requests; pictures are processed on others.
const ANSWERING_THREADS: usize = 2;

/// The device, model and threads of a service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// The device of the networks.
    pub device: DeviceChoice,
    /// Instruction set of the code that runs on the CPU.
    pub isa: Isa,
    /// The embedding network: the name of a built-in one or a file.
    pub model: String,
    /// The arithmetic of embeddings.
    pub precision: ArithmeticChoice,
    /// Number of threads that compute; `None` for one per CPU.
    pub threads: Option<usize>,
    /// The program that labels the video of a job, so that a decoder that fails does not end the service; `None`
    /// to label in this process.
    pub job_program: Option<JobProgram>,
}

impl ServiceOptions {
    /// The built-in network on the best available device.
    pub fn new(isa: Isa) -> Self {
        let model = crate::models::SPHEREFACE.name.to_owned();
        Self {
            device: DeviceChoice::Auto,
            isa,
            model,
            precision: ArithmeticChoice::Auto,
            threads: None,
            job_program: None,
        }
    }
}

/// Figures of the sources of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Each source, by name.
    pub sources: BTreeMap<String, SourceFigures>,
    /// Events in the store.
    pub events: u64,
    /// Number of sources that named each person.
    pub named: BTreeMap<String, usize>,
}

/// Figures of a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SourceFigures {
    /// Whether frames come.
    pub running: bool,
    /// Frames that were analysed.
    pub frames: u64,
    /// Frames dropped because newer ones came in the meantime.
    pub left_out: u64,
    /// Median of the time from the arrival of a frame to the end of its events over the last frames, in
    /// milliseconds.
    pub delay_ms: Option<f64>,
    /// 95th percentile of that time.
    pub delay_95_ms: Option<f64>,
}

/// Sources, API and pages, running until it is stopped.
pub struct Service {
    site: Arc<Site>,
    runtime: Runtime,
    address: SocketAddr,
    end: watch::Sender<bool>,
    server: JoinHandle<()>,
    jobs: std::thread::JoinHandle<()>,
    #[cfg(feature = "rtsp")]
    rtsp: Option<super::rtsp::Rtsp>,
    /// The last field, so that the folder is free only once nothing writes to it any more.
    _data: DataFolder,
}

impl Service {
    /// Prepares the memory of a process that runs for long, before it starts a service. Threads of decoders
    /// come and go with the sources. Pictures that one thread allocates and another frees fragment the heap,
    /// so the process would grow for hours. So the memory of each picture is mapped separately and returned
    /// to the system.
    pub fn prepare_memory() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            const PICTURE_BYTES: libc::c_int = 64 << 10;
            // SAFETY: it takes two numbers. If it fails, memory is managed as before.
            unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, PICTURE_BYTES) };
        }
    }

    /// Starts all sources and listens. If a token is required and there is none yet, tokens are made; they
    /// cannot be read again later.
    ///
    /// # Errors
    /// When the address, the store, the model or a gallery cannot be used, or another service uses the data
    /// folder.
    pub fn start(
        settings: Settings,
        options: &ServiceOptions,
    ) -> Result<(Self, Option<NewTokens>), ServeError> {
        let address = settings.listen;
        let refused = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        // Before anything in it is read or changed.
        let data = DataFolder::take(&settings.config.data)?;
        let store = Arc::new(Store::open(&settings.config.data)?);
        store.sweep(settings.config.retention, now_ms())?;
        let made = if settings.asks_for_token() { NewTokens::make_first(&store)? } else { None };
        let tokens = settings.asks_for_token().then(|| Tokens::read(&store)).transpose()?;
        // The font is checked here, because sources cannot report its absence.
        Annotator::new(Style::default())?;
        let (end, ending) = watch::channel(false);
        let settings = settings.with_threshold(threshold_set(&store)?);
        let sources = wanted(&settings, &store)?;
        let site = Arc::new(site(settings, options, store, tokens, ending)?);
        // Checks the gallery before the first request.
        site.gallery()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(ANSWERING_THREADS)
            .thread_name("answer")
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?;
        // The outputs must be set before the first event.
        outputs::start(&site, &site.settings(), runtime.handle())?;
        site.cameras.set_all(&sources)?;
        let server = runtime.spawn(listen::answer(listener, Arc::clone(&site)));
        runtime.spawn(sweep(Arc::clone(&site)));
        runtime.spawn(follow_galleries(Arc::clone(&site)));
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        runtime.spawn(trim());
        #[cfg(feature = "rtsp")]
        let rtsp = {
            let settings = site.settings();
            let start = |rtsp| super::rtsp::Rtsp::start(&site, rtsp, runtime.handle());
            settings.rtsp.as_ref().map(start).transpose().map_err(ServeError::Rtsp)?
        };
        let jobs = jobs::worker::start(&site)?;
        let service = Self {
            site,
            runtime,
            address,
            end,
            server,
            jobs,
            #[cfg(feature = "rtsp")]
            rtsp,
            _data: data,
        };
        Ok((service, made))
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its pages.
    pub fn url(&self) -> String {
        let scheme = if lock(&self.site.tls).is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.address)
    }

    /// The address of the streams of its sources, if it serves them: `rtsp://ADDRESS/NAME`.
    pub fn rtsp_address(&self) -> Option<SocketAddr> {
        #[cfg(feature = "rtsp")]
        return self.rtsp.as_ref().map(super::rtsp::Rtsp::address);
        #[cfg(not(feature = "rtsp"))]
        None
    }

    /// Figures of its sources.
    pub fn figures(&self) -> Figures {
        let sources = self.site.cameras.states().into_iter().map(|(config, state)| {
            let [frames, left_out, _] = state.counts();
            let (_, delay_ms, delay_95_ms) = state.pace();
            let running = state.phase() == Phase::Running;
            (config.name, SourceFigures { running, frames, left_out, delay_ms, delay_95_ms })
        });
        let (events, named) = self.site.store.tally().unwrap_or_default();
        Figures { sources: sources.collect(), events, named }
    }

    /// Applies other settings: sources, gallery, limits of pictures and retention. The address, the folder of
    /// data, the limits of concurrent requests, streams and connections, and whether connections are
    /// encrypted do not change.
    ///
    /// # Errors
    /// When a gallery cannot be used. One that is missing now keeps its people, with a warning.
    pub fn reload(&self, settings: Settings) -> Result<(), ServeError> {
        let settings = settings.with_threshold(threshold_set(&self.site.store)?);
        let sources = wanted(&settings, &self.site.store)?;
        // The certificate may change, but not whether connections are encrypted.
        if lock(&self.site.tls).is_some() && settings.tls.is_some() {
            lock(&self.site.tls).clone_from(&settings.tls);
        }
        let before = std::mem::replace(&mut *lock(&self.site.settings), Arc::new(settings));
        let now = self.site.settings();
        if (&before.config.webhooks, &before.config.mqtt) != (&now.config.webhooks, &now.config.mqtt) {
            outputs::start(&self.site, &now, self.runtime.handle())?;
        }
        let used =
            |folder: &Path| now.config.gallery == folder || sources.iter().any(|one| one.gallery == folder);
        // Whatever became of a gallery that is no longer used does not matter.
        self.site.galleries.renew(used)?;
        self.site.cameras.renew_galleries(None)?;
        self.site.cameras.set_all(&sources)?;
        self.site.galleries.keep(used);
        Ok(())
    }

    /// Stops: streams are closed, requests are answered, everybody in sight leaves, and all events are
    /// stored.
    pub fn stop(self) {
        // Fails if there are no receivers any more.
        let _ = self.end.send(true);
        self.site.jobs.stop();
        let server = self.server;
        let ended = self.runtime.block_on(async { tokio::time::timeout(END_LIMIT, server).await });
        if ended.is_err() {
            tracing::warn!("requests were still open after {} s and are cut off", END_LIMIT.as_secs());
        }
        #[cfg(feature = "rtsp")]
        self.rtsp.into_iter().for_each(super::rtsp::Rtsp::stop);
        self.site.cameras.remove_all();
        self.site.shelf.close();
        // A thread that panicked has already reported it.
        let _ = self.jobs.join();
        let outputs = self.site.outputs.end();
        // Events for a webhook that does not answer are delivered at the next start.
        let _ = self.runtime.block_on(async { tokio::time::timeout(END_LIMIT, outputs).await });
        self.runtime.shutdown_timeout(END_LIMIT);
    }
}

fn site(
    settings: Settings,
    options: &ServiceOptions,
    store: Arc<Store>,
    tokens: Option<Tokens>,
    ending: watch::Receiver<bool>,
) -> Result<Site, ServeError> {
    let device = Device::open(options.device, options.isa).map_err(crate::engine::EngineError::from)?;
    let builder = Engine::builder().on(device.clone()).model(&options.model).precision(options.precision);
    let builder = match options.threads {
        Some(threads) => builder.threads(threads),
        None => builder,
    };
    let engine = builder.build()?;
    tracing::info!("networks run on {device}; embeddings are computed in {}", engine.arithmetic());
    engine.embedder().prepare(engine.threads());
    let turns = Arc::new(Turns::new(engine.threads()));
    let galleries = Arc::new(Galleries::new(&engine));
    let common = Common { engine: engine.clone(), turns: Arc::clone(&turns), store: Arc::clone(&store) };
    let limits = settings.config.limits;
    let data = settings.config.data.clone();
    Ok(Site {
        cameras: Cameras::new(common, Arc::clone(&galleries), device),
        tls: Mutex::new(settings.tls.clone()),
        rates: Rates::default(),
        settings: Mutex::new(Arc::new(settings)),
        engine,
        galleries,
        store,
        turns,
        tokens,
        requests: Arc::new(Semaphore::new(limits.requests)),
        streams: Arc::new(Semaphore::new(limits.streams)),
        started: Instant::now(),
        ending,
        counts: Counts::default(),
        outputs: Outputs::default(),
        jobs: Jobs::new(&data),
        job_program: options.job_program.clone(),
        shelf: Shelf::default(),
    })
}

/// Returns free memory to the system at regular intervals. A free part of the heap between two parts in use
/// stays with the process otherwise. In an hour with 16 cameras that were lost and came back, such parts grew
/// to 50 MB, while the memory in use stayed the same.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
async fn trim() {
    let mut every = tokio::time::interval(TRIM_EVERY);
    loop {
        every.tick().await;
        // SAFETY: it takes a number, and may be called from any thread at any time.
        let trimmed = tokio::task::spawn_blocking(|| unsafe { libc::malloc_trim(0) });
        // Whether anything was returned does not matter.
        let _ = trimmed.await;
    }
}

/// Looks at regular intervals whether other programs changed the galleries. Where looking itself takes long, as
/// for thousands of people on a share, it happens less often.
async fn follow_galleries(site: Arc<Site>) {
    loop {
        let began = Instant::now();
        let changed = site.wait_for(|site| Ok(site.galleries.changed())).await.unwrap_or_default();
        let took = began.elapsed();
        for folder in changed {
            // It reports its own errors.
            let reread = site.compute(move |site| {
                site.reread(&folder);
                Ok(())
            });
            let _ = reread.await;
        }
        tokio::time::sleep(FOLLOW_EVERY.max(20 * took)).await;
    }
}

/// Deletes old data at regular intervals.
async fn sweep(site: Arc<Site>) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        let swept = site.wait_for(|site| {
            let config = &site.settings().config;
            let events = site.store.sweep(config.retention, now_ms())?;
            Ok(events + site.jobs.sweep(&site.store, config.jobs.keep_days, now_ms())?)
        });
        if let Ok(gone @ 1..) = swept.await {
            tracing::info!("{gone} events, strangers and jobs were too old and are deleted");
        }
    }
}
