//! Ending a source from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends a source from another thread, such as the one that waits for signals. Clones share one
/// flag; setting it is a single atomic store.
#[derive(Debug, Clone, Default)]
pub struct StopHandle {
    stopped: Arc<AtomicBool>,
}

impl StopHandle {
    /// A handle that is not stopped yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every source that was opened with this handle end: `next_frame` returns `None` within some 20
    /// ms, so that the frames read so far can be finished.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether [`StopHandle::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
