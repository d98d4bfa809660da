//! Requests of several threads, answered in one batch.

use std::fmt;
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Gathers requests while the device is at work. The thread that gets the device next answers all that wait.
///
/// A device is faster with large batches, and no worker has to know about the faces or frames of another.
pub(crate) struct Coalescer<Q, A> {
    waiting: Mutex<Vec<Asked<Q, A>>>,
    turn: Mutex<()>,
}

/// A request, and the channel for its answer.
struct Asked<Q, A> {
    request: Q,
    reply: SyncSender<Result<A, String>>,
}

impl<Q, A> Coalescer<Q, A> {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::new(Vec::new()), turn: Mutex::new(()) }
    }

    /// The answer to `request`. `answer` returns one answer per request, in order. Only one call runs at a
    /// time.
    ///
    /// # Errors
    /// The error of `answer` in the thread that was at work.
    pub(crate) fn ask(
        &self,
        request: Q,
        answer: impl FnOnce(Vec<Q>) -> candle_core::Result<Vec<A>>,
    ) -> Result<A, String> {
        let (reply, mine) = sync_channel(1);
        lock(&self.waiting).push(Asked { request, reply });
        let _turn = lock(&self.turn);
        match mine.try_recv() {
            Ok(answered) => return answered,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err("another thread failed while it worked".into()),
        }
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        let (requests, replies): (Vec<Q>, Vec<_>) =
            waiting.into_iter().map(|Asked { request, reply }| (request, reply)).unzip();
        match answer(requests) {
            // A thread that has ended needs no answer.
            Ok(answers) => {
                // If there are too few answers, the remaining replies are dropped, which is an answer too.
                replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(Ok(answer))))
            }
            Err(error) => {
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.to_string()))));
            }
        }
        mine.recv().unwrap_or_else(|_| Err("a request was left without an answer".into()))
    }
}

impl<Q, A> fmt::Debug for Coalescer<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coalescer")
    }
}

/// Poisoning is ignored: the data behind the mutexes is consistent after every call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_left_without_an_answer_is_told_and_nobody_waits_for_ever() {
        let together: Coalescer<u32, u32> = Coalescer::new();
        let left = together.ask(1, |_| Ok(Vec::new()));
        assert!(left.unwrap_err().contains("without an answer"));
        assert_eq!(together.ask(2, |asked| Ok(asked.iter().map(|n| n * 10).collect())), Ok(20));
        let failed = together.ask(3, |_| Err(candle_core::Error::msg("no more")));
        assert!(failed.unwrap_err().contains("no more"));
    }
}
