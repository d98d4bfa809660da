//! The order in which sources compute.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Places for computing, assigned in the order of the requests. A source with more requests than others still
/// waits until each of them had its turn.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    next: u64,
    waiting: VecDeque<u64>,
}

/// A place, free again when this is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// That many places, at least 1.
    pub fn new(places: usize) -> Self {
        let state = State { free: places.max(1), next: 0, waiting: VecDeque::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for a place.
    pub fn take(&self) -> Turn<'_> {
        let mut state = lock(&self.state);
        let mine = state.next;
        state.next += 1;
        state.waiting.push_back(mine);
        while state.free == 0 || state.waiting.front() != Some(&mine) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.free -= 1;
        drop(state);
        // There may be another place for the next.
        self.changed.notify_all();
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).free += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_the_places_work_at_a_time_and_everybody_has_as_many_turns() {
        let turns = Turns::new(2);
        let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done: [AtomicUsize; 5] = Default::default();
        std::thread::scope(|scope| {
            for mine in &done {
                scope.spawn(|| {
                    while done.iter().all(|done| done.load(Ordering::SeqCst) < 200) {
                        let _turn = turns.take();
                        most.fetch_max(1 + working.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_micros(100));
                        working.fetch_sub(1, Ordering::SeqCst);
                        mine.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
        let least = done.iter().map(|done| done.load(Ordering::SeqCst)).min().unwrap();
        assert!(least >= 150, "{done:?}");
    }
}
