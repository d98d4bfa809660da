//! A stage graph: a source, any number of stages with any number of workers each, and a sink on
//! the calling thread that receives the items in the order of the source.
//!
//! - Every channel is bounded, and so is the number of items between source and sink: memory
//!   does not depend on the length of the input or on how uneven the work is.
//! - With [`Overflow::Wait`] a slow stage slows the source down and nothing is lost; with
//!   [`Overflow::DropOldest`] the source runs at its own pace and the oldest waiting items are dropped.
//! - The first error or panic ends the run: the other stages finish their current item and end. All threads
//!   are scoped: none outlives [`run`].
//! - Nothing polls: a stage that has nothing to do sleeps in its channel, and ends when its neighbours do.

mod batch;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::statistics::{Meter, Statistics};

pub use batch::BatchWorker;

/// Interval at which the waiting sink checks whether the run has failed.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum GraphError<E> {
    /// A stage returned an error.
    #[error("{source}")]
    Stage {
        /// Name of the stage.
        stage: &'static str,
        /// Its error.
        source: E,
    },
    /// A stage panicked.
    #[error("the {stage} stage panicked ({message}): this is a defect of sphereface, please report it")]
    Panicked {
        /// Name of the stage.
        stage: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// A stage that works on several items at once returned more or fewer than it was given.
    #[error(
        "the {stage} stage returned {made} items for {given}: this is a defect of sphereface, please report it"
    )]
    Uneven {
        /// Name of the stage.
        stage: &'static str,
        /// Items that went in.
        given: usize,
        /// Items that came out.
        made: usize,
    },
    /// The system could not start a thread for a stage.
    #[error("cannot start a thread for the {stage} stage ({source}): use fewer threads")]
    Thread {
        /// Name of the stage.
        stage: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// [`Control::abort`] was called.
    #[error("aborted before the end")]
    Aborted,
}

/// Ends a run from outside: clones share one state.
#[derive(Clone, Default)]
pub struct Control(Arc<ControlState>);

#[derive(Default)]
struct ControlState {
    stopping: AtomicBool,
    aborted: AtomicBool,
    patience: Mutex<Option<Duration>>,
    hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

impl Control {
    /// A control that has not been used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the source; items in flight are finished.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the run as soon as every stage has finished its current item; the run then returns
    /// [`GraphError::Aborted`].
    pub fn abort(&self) {
        self.0.aborted.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// Ends the run if its input gives nothing for that long, see
    /// [`SourceOptions::patience`](crate::media::SourceOptions::patience). Must be set before an input is
    /// opened.
    pub fn set_patience(&self, patience: Option<Duration>) {
        *lock(&self.0.patience) = patience;
    }

    /// The value given to [`Control::set_patience`].
    pub fn patience(&self) -> Option<Duration> {
        *lock(&self.0.patience)
    }

    /// Whether [`Control::stop`] or [`Control::abort`] was called.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// Whether [`Control::abort`] was called.
    pub fn is_aborted(&self) -> bool {
        self.0.aborted.load(Ordering::SeqCst)
    }

    /// Clears [`Control::stop`], for another run that continues with the results of the stopped one.
    pub fn resume(&self) {
        if !self.is_aborted() {
            self.0.stopping.store(false, Ordering::SeqCst);
        }
    }

    /// Calls `hook` when the run is asked to end, and when it fails: for a source that may sleep in a read of
    /// its own. It is called at once if that has happened already. It may be called several times and from
    /// any thread. It must not call back into this control.
    pub fn on_stop(&self, hook: impl Fn() + Send + 'static) {
        let mut hooks = lock(&self.0.hooks);
        if self.is_stopping() {
            hook();
        }
        hooks.push(Box::new(hook));
    }

    fn wake(&self) {
        lock(&self.0.hooks).iter().for_each(|hook| hook());
    }
}

/// Locks a mutex whose holder never panics halfway through a change, so poisoning can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a source does when the stages cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Waits. For files, which can wait.
    Wait,
    /// Continues, and drops the oldest waiting item once this many wait (at least 1). For live input, which
    /// cannot wait.
    DropOldest(usize),
}

/// An item and its place in the order of the source.
struct Sequenced<T> {
    sequence: u64,
    item: T,
}

/// The output of one stage, which is the input of the next.
pub struct Flow<T> {
    receiver: Receiver<Sequenced<T>>,
}

/// State shared by all threads of a run.
struct GraphShared<E> {
    control: Control,
    cancelled: AtomicBool,
    failure: Mutex<Option<GraphError<E>>>,
    dropped: AtomicU64,
}

impl<E> GraphShared<E> {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst) || self.control.is_aborted()
    }

    /// Ends the run. Only the first failure is kept, because later ones are consequences of it.
    fn fail(&self, error: GraphError<E>) {
        lock(&self.failure).get_or_insert(error);
        self.cancelled.store(true, Ordering::SeqCst);
        self.control.wake();
    }

    /// Runs the body of a thread of a stage; its error or panic fails the run.
    fn guard(&self, stage: &'static str, body: impl FnOnce() -> Result<(), GraphError<E>>) {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(payload) => self.fail(GraphError::Panicked { stage, message: panic_message(&*payload) }),
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// A graph under construction; its stages work from the moment they are added.
pub struct Graph<'scope, 'env, E> {
    scope: &'scope Scope<'scope, 'env>,
    shared: Arc<GraphShared<E>>,
    meters: Vec<Arc<Meter>>,
    /// One token per item between source and sink: taken by the source before it makes an item, returned by
    /// the sink.
    take: Option<Sender<()>>,
    give_back: Option<Receiver<()>>,
    in_flight: usize,
    consumed: u64,
}

/// Builds a graph with `build` and runs it to its end. At most `in_flight` (at least 1) items
/// are between source and sink at any time, those that [`Overflow::DropOldest`] keeps waiting
/// aside.
///
/// `build` adds one source, any number of stages and one sink, in that order; the sink works
/// on the calling thread.
///
/// # Errors
/// The first error or panic of any stage; [`GraphError::Aborted`] when `control` was aborted.
pub fn run<'env, E, F>(in_flight: usize, control: &Control, build: F) -> Result<Statistics, GraphError<E>>
where
    E: Send + 'static,
    F: for<'scope> FnOnce(&mut Graph<'scope, 'env, E>),
{
    let start = Instant::now();
    let shared = Arc::new(GraphShared {
        control: control.clone(),
        cancelled: AtomicBool::new(false),
        failure: Mutex::new(None),
        dropped: AtomicU64::new(0),
    });
    let in_flight = in_flight.max(1);
    let (take, give_back) = bounded(in_flight);
    let (meters, items) = thread::scope(|scope| {
        let mut graph = Graph {
            scope,
            shared: Arc::clone(&shared),
            meters: Vec::new(),
            take: Some(take),
            give_back: Some(give_back),
            in_flight,
            consumed: 0,
        };
        build(&mut graph);
        (std::mem::take(&mut graph.meters), graph.consumed)
    });
    if let Some(error) = lock(&shared.failure).take() {
        return Err(error);
    }
    if control.is_aborted() {
        return Err(GraphError::Aborted);
    }
    Ok(Statistics {
        wall: start.elapsed(),
        items,
        dropped: shared.dropped.load(Ordering::SeqCst),
        stages: meters.iter().map(|meter| meter.read()).collect(),
    })
}

impl<'scope, E: Send + 'static> Graph<'scope, '_, E> {
    fn meter(&mut self, name: &'static str, workers: usize) -> Arc<Meter> {
        let meter = Arc::new(Meter::new(name, workers));
        self.meters.push(Arc::clone(&meter));
        meter
    }

    fn spawn(
        &self,
        stage: &'static str,
        body: impl FnOnce(&GraphShared<E>) -> Result<(), GraphError<E>> + Send + 'scope,
    ) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(stage.to_owned());
        let spawned = thread.spawn_scoped(self.scope, move || shared.guard(stage, || body(&shared)));
        if let Err(source) = spawned {
            self.shared.fail(GraphError::Thread { stage, source });
        }
    }

    /// The source: `read` makes the next item, or `None` at the end, on a thread of its own.
    ///
    /// # Panics
    /// When the graph has a source already.
    pub fn source<T, F>(&mut self, name: &'static str, overflow: Overflow, mut read: F) -> Flow<T>
    where
        T: Send + 'scope,
        F: FnMut() -> Result<Option<T>, E> + Send + 'scope,
    {
        let take = self.take.take().expect("a graph has one source");
        let meter = self.meter(name, 1);
        let (sender, receiver) = bounded(1);
        let mut read = move || {
            let start = Instant::now();
            let item = read().map_err(|source| GraphError::Stage { stage: name, source })?;
            meter.worked(usize::from(item.is_some()), start.elapsed());
            Ok(item)
        };
        match overflow {
            Overflow::Wait => self.spawn(name, move |shared| {
                for sequence in 0.. {
                    if take.send(()).is_err() || shared.is_cancelled() || shared.control.is_stopping() {
                        break;
                    }
                    let Some(item) = read()? else { break };
                    if sender.send(Sequenced { sequence, item }).is_err() {
                        break;
                    }
                }
                Ok(())
            }),
            Overflow::DropOldest(waiting) => {
                let (enter, leave) = bounded(waiting.max(1));
                let oldest = leave.clone();
                self.spawn(name, move |shared| {
                    while !shared.is_cancelled() && !shared.control.is_stopping() {
                        let Some(mut item) = read()? else { break };
                        while let Err(error) = enter.try_send(item) {
                            match error {
                                TrySendError::Full(back) => item = back,
                                TrySendError::Disconnected(_) => return Ok(()),
                            }
                            if oldest.try_recv().is_ok() {
                                shared.dropped.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    Ok(())
                });
                // Sequence numbers are given after dropping, so they have no gaps.
                self.spawn(name, move |shared| {
                    for sequence in 0.. {
                        if take.send(()).is_err() || shared.is_cancelled() {
                            break;
                        }
                        let Ok(item) = leave.recv() else { break };
                        if sender.send(Sequenced { sequence, item }).is_err() {
                            break;
                        }
                    }
                    Ok(())
                });
            }
        }
        Flow { receiver }
    }

    /// A stage that makes one item of one item, on `workers` (at least 1) threads. Each worker calls `make`
    /// once, for a closure with its own state.
    pub fn map<I, O, W, M>(&mut self, name: &'static str, workers: usize, input: Flow<I>, make: M) -> Flow<O>
    where
        I: Send + 'scope,
        O: Send + 'scope,
        W: FnMut(I) -> Result<O, E>,
        M: Fn() -> W + Send + Sync + 'scope,
    {
        let workers = workers.max(1);
        let meter = self.meter(name, workers);
        let (sender, receiver) = bounded(2 * workers);
        let make = Arc::new(make);
        for _ in 0..workers {
            let (make, meter) = (Arc::clone(&make), Arc::clone(&meter));
            let (input, sender) = (input.receiver.clone(), sender.clone());
            self.spawn(name, move |shared| {
                let mut work = make();
                loop {
                    meter.saw_queue(input.len());
                    let Ok(Sequenced { sequence, item }) = input.recv() else { break };
                    if shared.is_cancelled() {
                        break;
                    }
                    let start = Instant::now();
                    let item = work(item).map_err(|source| GraphError::Stage { stage: name, source })?;
                    meter.worked(1, start.elapsed());
                    if sender.send(Sequenced { sequence, item }).is_err() {
                        break;
                    }
                }
                Ok(())
            });
        }
        Flow { receiver }
    }

    /// A stage that receives every item in the order of the source, on one thread, and makes one item of
    /// each. It is for work that depends on the items before. All items in flight may wait behind it, so that
    /// a slow stage of [`batched`](Self::batched) finds full batches.
    pub fn in_order<I, O>(
        &mut self,
        name: &'static str,
        input: Flow<I>,
        mut work: impl FnMut(I) -> Result<O, E> + Send + 'scope,
    ) -> Flow<O>
    where
        I: Send + 'scope,
        O: Send + 'scope,
    {
        let meter = self.meter(name, 1);
        let (sender, receiver) = bounded(self.in_flight);
        self.spawn(name, move |shared| {
            let (mut early, mut next) = (BTreeMap::new(), 0);
            loop {
                meter.saw_queue(input.receiver.len() + early.len());
                let Ok(Sequenced { sequence, item }) = input.receiver.recv() else { break };
                early.insert(sequence, item);
                while let Some(item) = early.remove(&next) {
                    if shared.is_cancelled() {
                        return Ok(());
                    }
                    let start = Instant::now();
                    let item = work(item).map_err(|source| GraphError::Stage { stage: name, source })?;
                    meter.worked(1, start.elapsed());
                    if sender.send(Sequenced { sequence: next, item }).is_err() {
                        return Ok(());
                    }
                    next += 1;
                }
            }
            Ok(())
        });
        Flow { receiver }
    }

    /// The sink: receives every item in the order of the source, on the calling thread, and returns when
    /// there are no more or the run has failed.
    ///
    /// # Panics
    /// When the graph has a sink already.
    pub fn sink<I>(
        &mut self,
        name: &'static str,
        input: Flow<I>,
        mut consume: impl FnMut(I) -> Result<(), E>,
    ) {
        let give_back = self.give_back.take().expect("a graph has one sink");
        let meter = self.meter(name, 1);
        let shared = Arc::clone(&self.shared);
        let consumed = &mut self.consumed;
        shared.guard(name, || {
            let mut early = BTreeMap::new();
            loop {
                meter.saw_queue(input.receiver.len() + early.len());
                // A stage that failed keeps its items. If those were the last ones, only the sink can notice
                // the failure.
                let Sequenced { sequence, item } = match input.receiver.recv_timeout(LOOK_AROUND) {
                    Ok(next) => next,
                    Err(RecvTimeoutError::Timeout) if shared.is_cancelled() => break,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                early.insert(sequence, item);
                while let Some(item) = early.remove(consumed) {
                    if shared.is_cancelled() {
                        return Ok(());
                    }
                    let start = Instant::now();
                    consume(item).map_err(|source| GraphError::Stage { stage: name, source })?;
                    meter.worked(1, start.elapsed());
                    *consumed += 1;
                    let token = give_back.try_recv();
                    debug_assert!(token.is_ok(), "every item holds a token");
                }
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests;
