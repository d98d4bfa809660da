//! A stage that splits items into parts and batches the parts across items.

use std::iter::once;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded, unbounded};

use super::{Flow, Graph, GraphError, GraphShared, Sequenced, lock};
use crate::pipeline::statistics::Meter;

/// The work of one worker of [`Graph::batched`].
pub trait BatchWorker<I, E> {
    /// A part of an item.
    type Part: Send;
    /// The result of a part.
    type Made: Send;

    /// Splits an item into parts.
    ///
    /// # Errors
    /// Ends the run.
    fn split(&mut self, item: &mut I) -> Result<Vec<Self::Part>, E>;

    /// Processes parts, one result per part, in order. A result must not depend on the other parts of the
    /// batch.
    ///
    /// # Errors
    /// Ends the run.
    fn work(&mut self, parts: Vec<Self::Part>) -> Result<Vec<Self::Made>, E>;

    /// Puts the results of the parts of an item back into it, in their order.
    fn join(&mut self, item: &mut I, made: Vec<Self::Made>);
}

/// A batch holds at least 1 / `LEAST` of a full one if that many parts wait, even if the other workers get
/// less than their share.
const LEAST: usize = 4;

/// An item with parts still to be processed.
struct Open<I, M> {
    item: Sequenced<I>,
    made: Vec<Option<M>>,
    missing: usize,
}

/// A part with its item and its number in it.
struct WaitingPart<I, P, M> {
    open: Arc<Mutex<Option<Open<I, M>>>>,
    number: usize,
    part: P,
}

/// One thread of the stage.
struct Thread<'a, I, P, M, E, W> {
    name: &'static str,
    meter: &'a Meter,
    shared: &'a GraphShared<E>,
    worker: W,
    waiting: Receiver<WaitingPart<I, P, M>>,
    leave: Sender<Sequenced<I>>,
}

impl<'scope, E: Send + 'static> Graph<'scope, '_, E> {
    /// A stage whose items have parts, any number of them, on `workers` (at least 1) threads; each calls
    /// `make` once. A worker takes its share of the parts that wait, `full` at most, but never waits for more
    /// than the first. The parts of one item are shared by all workers, so that all of them work on the last
    /// item too.
    pub fn batched<I, W, M>(
        &mut self,
        name: &'static str,
        workers: usize,
        full: usize,
        input: Flow<I>,
        make: M,
    ) -> Flow<I>
    where
        I: Send + 'scope,
        W: BatchWorker<I, E>,
        W::Part: 'scope,
        W::Made: 'scope,
        M: Fn() -> W + Send + Sync + 'scope,
    {
        let (workers, full) = (workers.max(1), full.max(1));
        let meter = self.meter(name, workers);
        let (leave, receiver) = bounded(2 * workers);
        // The items in flight have at most this number of parts.
        let (enter, waiting) = unbounded();
        let make = Arc::new(make);
        for _ in 0..workers {
            let (make, meter) = (Arc::clone(&make), Arc::clone(&meter));
            let (input, enter) = (input.receiver.clone(), enter.clone());
            let (waiting, leave) = (waiting.clone(), leave.clone());
            self.spawn(name, move |shared| {
                let (meter, worker) = (&*meter, make());
                let mut thread = Thread { name, meter, shared, worker, waiting, leave };
                thread.run(input, enter, (workers, full))
            });
        }
        Flow { receiver }
    }
}

impl<I, E, W: BatchWorker<I, E>> Thread<'_, I, W::Part, W::Made, E, W> {
    fn run(
        &mut self,
        input: Receiver<Sequenced<I>>,
        enter: Sender<WaitingPart<I, W::Part, W::Made>>,
        (workers, full): (usize, usize),
    ) -> Result<(), GraphError<E>> {
        let mut entrance = Some((input, enter));
        loop {
            if self.shared.is_cancelled() {
                return Ok(());
            }
            // A fair share for every worker, as long as parts wait.
            while let Some((input, enter)) = &entrance
                && self.waiting.len() < workers * full
            {
                self.meter.saw_queue(input.len());
                match input.try_recv() {
                    Ok(item) => self.open(item, enter)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => entrance = None,
                }
            }
            let first = match (self.waiting.try_recv(), &entrance) {
                (Ok(first), _) => first,
                (Err(_), Some((input, _))) => {
                    let mut either = Select::new();
                    either.recv(input);
                    either.recv(&self.waiting);
                    either.ready();
                    continue;
                }
                // Other workers may still split items.
                (Err(_), None) => match self.waiting.recv() {
                    Ok(first) => first,
                    Err(_) => return Ok(()),
                },
            };
            let share = (1 + self.waiting.len()).div_ceil(workers).max(full / LEAST).clamp(1, full);
            self.batch(once(first).chain(self.waiting.try_iter().take(share - 1)).collect())?;
        }
    }

    /// Queues the parts of an item for all workers.
    fn open(
        &mut self,
        mut item: Sequenced<I>,
        enter: &Sender<WaitingPart<I, W::Part, W::Made>>,
    ) -> Result<(), GraphError<E>> {
        let start = Instant::now();
        let parts = self.worker.split(&mut item.item).map_err(|source| self.failed(source))?;
        self.meter.prepared(start.elapsed());
        let missing = parts.len();
        let made = (0..missing).map(|_| None).collect();
        let open = Open { item, made, missing };
        if missing == 0 {
            self.close(open);
            return Ok(());
        }
        let open = Arc::new(Mutex::new(Some(open)));
        for (number, part) in parts.into_iter().enumerate() {
            // This worker holds a receiver, so the channel is open.
            let _ = enter.send(WaitingPart { open: Arc::clone(&open), number, part });
        }
        Ok(())
    }

    /// Processes some parts and passes on the items that are then complete.
    fn batch(&mut self, batch: Vec<WaitingPart<I, W::Part, W::Made>>) -> Result<(), GraphError<E>> {
        let given = batch.len();
        let (places, parts): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|WaitingPart { open, number, part }| ((open, number), part)).unzip();
        let start = Instant::now();
        let made = self.worker.work(parts).map_err(|source| self.failed(source))?;
        self.meter.worked_on_parts(given, start.elapsed());
        if made.len() != given {
            return Err(GraphError::Uneven { stage: self.name, given, made: made.len() });
        }
        for ((place, number), made) in places.into_iter().zip(made) {
            let mut open = lock(&place);
            if let Some(open) = &mut *open {
                open.made[number] = Some(made);
                open.missing -= 1;
            }
            let whole = open.take_if(|open| open.missing == 0);
            drop(open);
            if let Some(open) = whole {
                self.close(open);
            }
        }
        Ok(())
    }

    fn close(&mut self, open: Open<I, W::Made>) {
        let Open { mut item, made, .. } = open;
        self.worker.join(&mut item.item, made.into_iter().flatten().collect());
        self.meter.finished(1);
        // Sending fails if the run has failed, which the next iteration notices.
        let _ = self.leave.send(item);
    }

    fn failed(&self, source: E) -> GraphError<E> {
        GraphError::Stage { stage: self.name, source }
    }
}
