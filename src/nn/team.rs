//! Threads that share the loops of one network pass.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A job is called with the number of the thread and the number of the item.
type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A few threads that wait for loops to share. They spin for some microseconds between loops,
/// since the loops of one pass follow each other closely, then sleep.
pub(crate) struct Team {
    shared: Arc<TeamState>,
    helpers: Vec<JoinHandle<()>>,
    /// The process that has the helpers: a process forked from it does not have them.
    process: u32,
}

struct TeamState {
    /// The current loop; written only while no helper works.
    job: UnsafeCell<Option<*const Job<'static>>>,
    items: AtomicUsize,
    /// The share of the items that each thread begins with.
    shares: Box<[Share]>,
    /// Counts the loops; a change is the signal to start.
    epoch: AtomicUsize,
    /// Helpers that have not finished the current loop.
    busy: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A share of the items, in a cache line (or the pair of them that CPUs fetch) of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share {
    /// The next one that no thread has taken.
    next: AtomicUsize,
}

// SAFETY: `job` is written by the owner of the team before it raises `epoch` (release) and
// read by helpers after they saw it (acquire); the owner writes again only after all helpers
// have lowered `busy` (release). The job itself is `Sync`.
unsafe impl Send for TeamState {}
// SAFETY: as above.
unsafe impl Sync for TeamState {}

/// Rounds of spinning before a helper sleeps.
const SPINS: usize = 20_000;

impl Team {
    /// A team of `threads`, the calling one included.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(TeamState {
            job: UnsafeCell::new(None),
            items: AtomicUsize::new(0),
            shares: (0..threads.max(1)).map(|_| Share::default()).collect(),
            epoch: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        // A machine that refuses another thread gets a smaller team: results are the same.
        let helpers = (1..threads)
            .map_while(|number| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(format!("team-{number}")).spawn(move || shared.help(number)).ok()
            })
            .collect();
        Self { shared, helpers, process: std::process::id() }
    }

    /// Whether this process was forked from the one that has the helpers. It has their memory but not their
    /// threads.
    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Threads, the calling one included.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `job(thread, item)` once for every item, on any thread of the team in any order,
    /// and returns when all are done. Calls with the same `thread` never overlap.
    ///
    /// Each thread begins with a share of neighbouring items, which is the same for every loop of as many items: what one
    /// loop leaves in the cache of a core is mostly read there by the next one. A thread that is done takes items of others.
    pub(crate) fn run(&mut self, items: usize, job: &Job<'_>) {
        if self.helpers.is_empty() || items < 2 || self.is_forked() {
            (0..items).for_each(|item| job(0, item));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the lifetime is dropped from the type only; this function does not return or
        // unwind before every helper is done with the job. No helper reads `job` now.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job));
        }
        shared.items.store(items, Ordering::Relaxed);
        for (number, share) in shared.shares.iter().enumerate() {
            share.next.store(shared.first(number, items), Ordering::Relaxed);
        }
        shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.helpers.iter().for_each(|helper| helper.thread().unpark());
        shared.work(0, job);
        let mut spins = 0;
        while shared.busy.load(Ordering::Acquire) > 0 {
            spin(&mut spins);
        }
        if let Some(panic) = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take() {
            resume_unwind(panic);
        }
    }

    /// Calls `job(thread, number, part)` once for every part of `len` numbers of `memory`, of which
    /// the last may be shorter, as [`run`](Self::run) does.
    pub(crate) fn run_parts<T: Send>(
        &mut self,
        memory: &mut [T],
        len: usize,
        job: impl Fn(usize, usize, &mut [T]) + Sync,
    ) {
        let parts = Parts::new(memory, len);
        // SAFETY: every item takes its own part, once.
        self.run(parts.count(), &|thread, item| job(thread, item, unsafe { parts.get(item) }));
    }

    /// The results of `make` for every number below `items`, in order.
    pub(crate) fn map<T: Send>(&mut self, items: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let mut made: Vec<Option<T>> = (0..items).map(|_| None).collect();
        self.run_parts(&mut made, 1, |_, item, place| place.fill_with(|| Some(make(item))));
        made.into_iter().flatten().collect()
    }
}

/// Memory in equal parts, of which the last may be shorter, that threads write, each its own.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    part: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: the parts do not overlap, and each is taken by one thread only.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Parts of `part` numbers.
    ///
    /// # Panics
    /// When that is none.
    pub(crate) fn new(memory: &'a mut [T], part: usize) -> Self {
        assert!(part > 0);
        Self { start: memory.as_mut_ptr(), len: memory.len(), part, memory: PhantomData }
    }

    /// How many parts there are.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.part)
    }

    /// Part `number`.
    ///
    /// # Safety
    /// No other reference to it may exist.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn get(&self, number: usize) -> &mut [T] {
        assert!(number < self.count());
        let start = number * self.part;
        // SAFETY: the part lies in the memory, and the caller has the only reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), self.part.min(self.len - start)) }
    }
}

/// Waits a moment; after a while yields the core to other threads.
fn spin(spins: &mut usize) {
    *spins += 1;
    match *spins % 64 {
        0 => thread::yield_now(),
        _ => std::hint::spin_loop(),
    }
}

impl TeamState {
    /// The first item of a share.
    fn first(&self, share: usize, items: usize) -> usize {
        items * share / self.shares.len()
    }

    /// Takes items until there are none. Keeps a panic for the owner of the team.
    fn work(&self, thread: usize, job: &Job<'_>) {
        let items = self.items.load(Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            for share in (thread..self.shares.len()).chain(0..thread) {
                loop {
                    let item = self.shares[share].next.fetch_add(1, Ordering::Relaxed);
                    if item >= self.first(share + 1, items) {
                        break;
                    }
                    job(thread, item);
                }
            }
        }));
        if let Err(panic) = result {
            let mut kept = self.panic.lock().unwrap_or_else(|e| e.into_inner());
            match &*kept {
                None => *kept = Some(panic),
                // Whatever its destructor may do, it must not keep `busy` from being lowered.
                Some(_) => std::mem::forget(panic),
            }
        }
    }

    fn help(&self, thread: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.epoch.load(Ordering::Acquire) == seen {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                match spins < SPINS {
                    true => spin(&mut spins),
                    false => thread::park(),
                }
            }
            seen += 1;
            // SAFETY: the owner wrote the job before the epoch and keeps it alive, and does
            // not write again, until `busy` is lowered.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above.
                self.work(thread, unsafe { &*job });
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Default for Team {
    /// The calling thread alone.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.is_forked() {
            // There are no threads to wait for.
            self.helpers.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper cannot panic: the job's panics are caught.
            let _ = helper.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_by_any_team() {
        for threads in [1, 2, 3, 5] {
            let mut team = Team::new(threads);
            for items in [0, 1, 2, 7, 100] {
                let done: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.run(items, &|thread, item| {
                    assert!(thread < threads);
                    done[item].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    done.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {items} items"
                );
            }
        }
    }

    #[test]
    fn a_thread_that_is_done_takes_items_of_others() {
        for threads in [2, 3] {
            let done = AtomicUsize::new(0);
            Team::new(threads).run(8, &|_, item| {
                // Without help, the others of its share would wait for this one.
                while item == 0 && done.load(Ordering::Relaxed) < 7 {
                    thread::yield_now();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 8);
        }
    }

    #[test]
    fn every_part_is_written_once_and_the_last_is_what_is_left() {
        for threads in [1, 3] {
            let mut memory = vec![0; 11];
            Team::new(threads).run_parts(&mut memory, 4, |_, number, part| {
                let len = part.len();
                part.iter_mut().for_each(|x| *x += 10 * (number + 1) + len);
            });
            assert_eq!(memory, [14, 14, 14, 14, 24, 24, 24, 24, 33, 33, 33]);
            Team::new(threads).run_parts(&mut memory[..0], 4, |_, _, _| panic!("there is no part"));
        }
    }

    #[test]
    fn what_is_made_is_in_the_order_of_its_numbers() {
        for threads in [1, 3] {
            let made = Team::new(threads).map(50, |item| vec![item; 2]);
            assert_eq!(made, (0..50).map(|item| vec![item; 2]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| team.run(4, &|_, item| assert_ne!(item, 2))));
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        team.run(4, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 4);
    }

    #[test]
    fn what_several_threads_panic_with_may_panic_itself() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                // The one that the caller gets is dropped below, without a panic under way.
                panic!("dropped");
            }
        }
        let mut team = Team::new(3);
        let everywhere = std::sync::Barrier::new(3);
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(3, &|_, _| {
                everywhere.wait();
                std::panic::panic_any(Bomb);
            });
        }));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(result))).is_err(), "the first one arrives");
        let sum = AtomicUsize::new(0);
        team.run(10, &|_, item| {
            sum.fetch_add(item, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }

    #[test]
    fn a_team_that_slept_wakes_up() {
        let mut team = Team::new(3);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            team.run(10, &|_, item| {
                sum.fetch_add(item, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }
}
