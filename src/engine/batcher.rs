//! Batched embedding for many threads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::error::RecogniseError;
use crate::align::Crop;
use crate::embed::{Embedder, Embedding, Mirror, Scratch};

/// Maximum batch size: enough to make the memory traffic of weights negligible.
const BATCH_FACES: usize = 16;

/// Coalesces concurrent embedding requests, and limits the number of threads that embed at a time.
///
/// A thread that arrives while all places are taken queues its faces. The next thread that gets a place
/// serves all queued requests, up to [`BATCH_FACES`] faces, in one batch.
pub(super) struct Batcher {
    mirror: Mirror,
    waiting: Mutex<VecDeque<Request>>,
    /// One per free place.
    places: Mutex<Vec<Scratch>>,
    freed: Condvar,
}

type Reply = Result<Vec<Embedding>, RecogniseError>;

/// The request of one thread.
struct Request {
    crops: Vec<Crop>,
    reply: Sender<Reply>,
}

/// A place; dropping it frees it, even if the network panicked.
struct Slot<'a> {
    batcher: &'a Batcher,
    scratch: Option<Scratch>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        lock(&self.batcher.places).extend(self.scratch.take());
        self.batcher.freed.notify_all();
    }
}

impl Batcher {
    /// Lets at least one and at most `places` threads embed at a time.
    pub fn new(embedder: &Embedder, mirror: Mirror, places: usize) -> Self {
        let places = (0..places.max(1)).map(|_| embedder.scratch()).collect();
        Self { mirror, waiting: Mutex::default(), places: Mutex::new(places), freed: Condvar::new() }
    }

    /// The embedding of every crop, in order.
    pub fn embed(&self, embedder: &Embedder, crops: Vec<Crop>) -> Reply {
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, mine) = bounded(1);
        lock(&self.waiting).push_back(Request { crops, reply });
        loop {
            let mut place = match self.place(&mine) {
                Ok(place) => place,
                Err(reply) => return reply,
            };
            let batch = self.batch();
            if batch.is_empty() {
                // Another thread has taken the request.
                drop(place);
                return mine.recv().unwrap_or_else(|_| Err(abandoned()));
            }
            if let Some(scratch) = &mut place.scratch {
                self.answer(embedder, batch, scratch);
            }
        }
    }

    /// Waits for a place, or for the reply of another thread that served the request.
    fn place(&self, mine: &Receiver<Reply>) -> Result<Slot<'_>, Reply> {
        let mut places = lock(&self.places);
        loop {
            match mine.try_recv() {
                Ok(reply) => return Err(reply),
                Err(TryRecvError::Disconnected) => return Err(Err(abandoned())),
                Err(TryRecvError::Empty) => {}
            }
            if let Some(scratch) = places.pop() {
                return Ok(Slot { batcher: self, scratch: Some(scratch) });
            }
            places = self.freed.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The longest-waiting requests that fit into a batch; at least one, if any waits.
    fn batch(&self) -> Vec<Request> {
        let mut waiting = lock(&self.waiting);
        let (mut batch, mut faces) = (Vec::new(), 0);
        while let Some(next) = waiting.front() {
            if faces > 0 && faces + next.crops.len() > BATCH_FACES {
                break;
            }
            faces += next.crops.len();
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// Embeds a batch and sends the replies.
    fn answer(&self, embedder: &Embedder, batch: Vec<Request>, scratch: &mut Scratch) {
        let (counts, replies): (Vec<usize>, Vec<Sender<Reply>>) =
            batch.iter().map(|one| (one.crops.len(), one.reply.clone())).unzip();
        let crops: Vec<Crop> = batch.into_iter().flat_map(|one| one.crops).collect();
        let made = embedder.embed(&crops, self.mirror, scratch);
        // A thread that has ended needs no reply.
        match made {
            Ok(made) => {
                let mut made = made.into_iter();
                for (count, reply) in counts.into_iter().zip(replies) {
                    let _ = reply.send(Ok(made.by_ref().take(count).collect()));
                }
            }
            Err(error) if replies.len() == 1 => {
                let _ = replies[0].send(Err(error.into()));
            }
            // One face without an embedding must not fail the faces of other sources.
            Err(_) => {
                let mut rest = &crops[..];
                for (count, reply) in counts.into_iter().zip(replies) {
                    let (own, others) = rest.split_at(count);
                    rest = others;
                    let _ = reply.send(embedder.embed(own, self.mirror, scratch).map_err(Into::into));
                }
            }
        }
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}

fn abandoned() -> RecogniseError {
    RecogniseError::Batch("another thread failed while working on it".into())
}

/// The guarded data are consistent after every call, so poisoning can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
