use super::*;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("item {0} is bad")]
struct Bad(u64);

/// A source of 0..n.
fn count(n: u64) -> impl FnMut() -> Result<Option<u64>, Bad> {
    let mut items = 0..n;
    move || Ok(items.next())
}

/// Items with the parts `parts(item)`. `work` makes one number of each part, which becomes the item.
struct Parted<P, W> {
    parts: P,
    work: W,
}

impl<P, W> BatchWorker<u64, Bad> for Parted<P, W>
where
    P: Fn(u64) -> usize,
    W: FnMut(Vec<u64>) -> Result<Vec<u64>, Bad>,
{
    type Part = u64;
    type Made = u64;

    fn split(&mut self, item: &mut u64) -> Result<Vec<u64>, Bad> {
        Ok(vec![*item; (self.parts)(*item)])
    }

    fn work(&mut self, parts: Vec<u64>) -> Result<Vec<u64>, Bad> {
        (self.work)(parts)
    }

    fn join(&mut self, item: &mut u64, made: Vec<u64>) {
        assert_eq!(made.len(), (self.parts)(*item));
        if let Some(first) = made.first() {
            assert!(made.iter().all(|one| one == first), "{item}: {made:?}");
            *item = *first;
        }
    }
}

/// Uneven work: some items take much longer than their neighbours.
fn dawdle(item: u64) {
    thread::sleep(Duration::from_micros(item * 7919 % 13 * 100));
}

/// Threads of this process whose name is `name`.
#[cfg(target_os = "linux")]
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn order_is_kept_and_the_result_is_the_same_for_any_number_of_workers() {
    for (workers, in_flight, full) in [(1, 1, 1), (1, 8, 4), (2, 3, 1), (5, 16, 7), (3, 1, 9)] {
        let mut seen = Vec::new();
        let statistics = run(in_flight, &Control::new(), |graph| {
            let items = graph.source("read", Overflow::Wait, count(200));
            let squares = graph.map("square", workers, items, || {
                |item| {
                    dawdle(item);
                    Ok(item * item)
                }
            });
            let sums = graph.batched("add", workers, full, squares, || Parted {
                parts: |item| item as usize % 4,
                work: |parts: Vec<u64>| {
                    assert!((1..=full).contains(&parts.len()));
                    dawdle(parts[0]);
                    Ok(parts.into_iter().map(|item| item + 1).collect())
                },
            });
            graph.sink("write", sums, |item| {
                seen.push(item);
                Ok::<(), Bad>(())
            });
        })
        .unwrap();
        // Items without parts stay unchanged.
        let squares = (0..200).map(|item| item * item);
        assert_eq!(seen, squares.map(|item| item + u64::from(item % 4 > 0)).collect::<Vec<_>>());
        assert_eq!((statistics.items, statistics.dropped), (200, 0));
        let names: Vec<_> = statistics.stages.iter().map(|stage| (stage.name, stage.items)).collect();
        assert_eq!(names, [("read", 200), ("square", 200), ("add", 200), ("write", 200)]);
    }
}

#[test]
fn an_empty_source_is_a_run_of_nothing() {
    let statistics = run(4, &Control::new(), |graph| {
        let items = graph.source("read", Overflow::Wait, count(0));
        graph.sink("write", items, |_| Ok(()));
    })
    .unwrap();
    assert_eq!(statistics.items, 0);
}

/// Parts of the largest batch that one of `workers` takes, with 32 items of `parts` parts in flight behind a
/// stage in order. Each worker holds its batch until `enough` items have passed that stage.
fn largest_batch(workers: usize, full: usize, parts: usize, enough: usize) -> usize {
    let (passed, largest) = (AtomicUsize::new(0), AtomicUsize::new(0));
    run(32, &Control::new(), |graph| {
        let items = graph.source("read", Overflow::Wait, count(100));
        let (passed, largest) = (&passed, &largest);
        let first = graph.in_order("pass", items, move |item| {
            passed.fetch_add(1, Ordering::SeqCst);
            Ok(item)
        });
        let slow = graph.batched("gather", workers, full, first, move || Parted {
            parts: move |_| parts,
            work: move |batch: Vec<u64>| {
                largest.fetch_max(batch.len(), Ordering::SeqCst);
                let start = Instant::now();
                while passed.load(Ordering::SeqCst) < enough && start.elapsed() < Duration::from_secs(20) {
                    thread::yield_now();
                }
                Ok(batch)
            },
        });
        graph.sink("write", slow, |_| Ok(()));
    })
    .unwrap();
    largest.into_inner()
}

#[test]
fn all_that_is_in_flight_may_wait_behind_a_stage_in_order() {
    assert_eq!(largest_batch(1, 20, 1, 30), 20, "a batch is full where enough is on its way");
    assert_eq!(largest_batch(1, 20, 7, 30), 20, "of whosever parts");
}

#[test]
fn a_worker_leaves_the_others_their_share_of_what_waits() {
    // Half of at most 32. If the first two batches hold no more than a quarter of a full one, 20 parts wait
    // behind them.
    let largest = largest_batch(2, 24, 1, 32);
    assert!((7..=16).contains(&largest), "{largest} of 32 that wait");
}

#[test]
fn the_parts_of_one_item_are_shared_by_all_workers() {
    const WORKERS: usize = 3;
    let at_work = &Barrier::new(WORKERS);
    let result = run(4, &Control::new(), |graph| {
        let items = graph.source("read", Overflow::Wait, count(1));
        let worked = graph.batched("share", WORKERS, 16, items, || {
            let mut came = false;
            Parted {
                parts: |_| 30,
                // Nobody finishes a first batch before all have one: of 10, 7 and 5.
                work: move |batch: Vec<u64>| {
                    if !std::mem::replace(&mut came, true) {
                        at_work.wait();
                    }
                    Ok(batch)
                },
            }
        });
        graph.sink("write", worked, |_| Ok(()));
    });
    assert_eq!(result.unwrap().items, 1);
}

#[test]
fn an_error_in_any_stage_ends_the_run_with_that_error() {
    for culprit in ["read", "square", "add", "write"] {
        let fail = |stage: &str, item: u64| {
            if stage == culprit && item == 20 { Err(Bad(item)) } else { Ok(item) }
        };
        let mut seen = 0;
        let result = run(8, &Control::new(), |graph| {
            let mut next = count(1_000_000);
            let read = move || next()?.map(|item| fail("read", item)).transpose();
            let items = graph.source("read", Overflow::Wait, read);
            let squares = graph.map("square", 3, items, || move |item| fail("square", item));
            let sums = graph.batched("add", 2, 4, squares, || Parted {
                parts: |_| 2,
                work: move |parts: Vec<u64>| parts.into_iter().map(|item| fail("add", item)).collect(),
            });
            graph.sink("write", sums, |item| fail("write", item).map(|_| seen += 1));
        });
        match result {
            Err(GraphError::Stage { stage, source: Bad(20) }) => assert_eq!(stage, culprit),
            other => panic!("{culprit}: {other:?}"),
        }
        assert!(seen <= 20, "{culprit}: nothing after the bad item is written, {seen} were");
    }
}

#[test]
fn a_failure_is_noticed_when_nothing_else_is_left_to_come() {
    const IN_FLIGHT: usize = 4;
    let (tell, told) = bounded(1);
    thread::spawn(move || {
        let others = &AtomicUsize::new(0);
        let result = run(IN_FLIGHT, &Control::new(), |graph| {
            let items = graph.source("read", Overflow::Wait, count(1_000));
            let worked = graph.map("work", 2, items, || {
                move |item| {
                    if item > 0 {
                        others.fetch_add(1, Ordering::SeqCst);
                        return Ok(item);
                    }
                    // All others that may be in flight reach the sink, which then waits for this one.
                    while others.load(Ordering::SeqCst) < IN_FLIGHT - 1 {
                        thread::yield_now();
                    }
                    thread::sleep(Duration::from_millis(20));
                    Err(Bad(item))
                }
            });
            graph.sink("write", worked, |_| Ok(()));
        });
        let _ = tell.send(result.map(|_| ()));
    });
    let result = told.recv_timeout(Duration::from_secs(20)).expect("the run ends");
    assert!(matches!(result, Err(GraphError::Stage { stage: "work", source: Bad(0) })), "{result:?}");
}

#[test]
fn a_panic_in_any_stage_ends_the_run_with_the_name_of_the_stage() {
    for culprit in ["p-read", "p-make", "p-work", "p-write"] {
        let trip = |stage: &str, item: u64| assert!(stage != culprit || item != 20, "item {item} hurts");
        let result = run(8, &Control::new(), |graph| {
            let mut next = count(1_000_000);
            let items = graph.source("p-read", Overflow::Wait, move || {
                next().inspect(|item| trip("p-read", item.unwrap_or(0)))
            });
            let made = graph.map("p-make", 2, items, || {
                trip("p-make", 20);
                Ok
            });
            let worked = graph.map("p-work", 2, made, || {
                move |item| {
                    trip("p-work", item);
                    Ok(item)
                }
            });
            graph.sink("p-write", worked, |item| {
                trip("p-write", item);
                Ok::<(), Bad>(())
            });
        });
        match result {
            Err(GraphError::Panicked { stage, message }) => {
                assert_eq!((stage, message.as_str()), (culprit, "item 20 hurts"));
            }
            other => panic!("{culprit}: {other:?}"),
        }
        // A joined thread may stay listed for a moment; a leaked one stays for good.
        #[cfg(target_os = "linux")]
        for _ in 0..1000 {
            if threads_named(culprit) == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        #[cfg(target_os = "linux")]
        assert_eq!(threads_named(culprit), 0, "no thread is left behind");
    }
}

#[test]
fn a_batch_of_the_wrong_size_is_an_error() {
    let result = run(8, &Control::new(), |graph| {
        let items = graph.source("read", Overflow::Wait, count(5));
        let made = graph.batched("lose", 1, 1, items, || Parted { parts: |_| 1, work: |_| Ok(Vec::new()) });
        graph.sink("write", made, |_| Ok::<(), Bad>(()));
    });
    assert!(matches!(result, Err(GraphError::Uneven { stage: "lose", given: 1, made: 0 })), "{result:?}");
}

#[test]
fn a_slow_sink_holds_the_source_back() {
    for in_flight in [1, 5] {
        let (made, mut consumed, mut most) = (AtomicU64::new(0), 0, 0);
        let mut next = count(60);
        run(in_flight, &Control::new(), |graph| {
            let items = graph.source("read", Overflow::Wait, || {
                made.fetch_add(1, Ordering::SeqCst);
                next()
            });
            let passed = graph.map("pass", 4, items, || Ok);
            graph.sink("write", passed, |_| {
                thread::sleep(Duration::from_millis(1));
                most = most.max(made.load(Ordering::SeqCst) - consumed);
                consumed += 1;
                Ok::<(), Bad>(())
            });
        })
        .unwrap();
        assert_eq!(consumed, 60, "nothing is lost");
        assert!(most <= in_flight as u64, "{most} items between source and sink, {in_flight} allowed");
    }
}

#[test]
fn a_live_source_drops_the_oldest_and_counts_them() {
    let (released, mut seen) = (AtomicBool::new(false), Vec::new());
    let mut next = count(50);
    let statistics = run(1, &Control::new(), |graph| {
        let items = graph.source("camera", Overflow::DropOldest(2), || {
            let item = next()?;
            if item.is_none() {
                released.store(true, Ordering::SeqCst);
            }
            Ok(item)
        });
        let passed = graph.map("pass", 2, items, || Ok);
        graph.sink("write", passed, |item| {
            // The sink is stuck until the camera has shown everything it had.
            while !released.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            seen.push(item);
            Ok::<(), Bad>(())
        });
    })
    .unwrap();
    assert!(seen.is_sorted() && seen.len() <= 5, "{seen:?}");
    assert!(seen.ends_with(&[48, 49]), "the newest stay: {seen:?}");
    assert_eq!(statistics.dropped as usize + seen.len(), 50, "what is not seen is counted");
}

#[test]
fn a_stop_finishes_what_is_under_way_and_an_abort_does_not() {
    for abort in [false, true] {
        let control = Control::new();
        let mut seen = Vec::new();
        let made = AtomicU64::new(0);
        let mut next = count(1_000_000);
        let result = run(6, &control, |graph| {
            let items = graph.source("read", Overflow::Wait, || {
                made.fetch_add(1, Ordering::SeqCst);
                next()
            });
            let passed = graph.map("pass", 3, items, || Ok);
            graph.sink("write", passed, |item| {
                seen.push(item);
                if item == 30 {
                    if abort { control.abort() } else { control.stop() }
                }
                Ok::<(), Bad>(())
            });
        });
        if abort {
            assert!(matches!(result, Err(GraphError::Aborted)), "{result:?}");
            assert_eq!(seen.len(), 31);
        } else {
            assert_eq!(result.unwrap().items, made.into_inner());
            assert!((31..=37).contains(&seen.len()), "{}", seen.len());
        }
        let expected: Vec<_> = (0..seen.len() as u64).collect();
        assert_eq!(seen, expected, "no gap");
    }
}

#[test]
fn a_source_that_sleeps_is_woken_by_a_stop_and_by_a_failure() {
    for stop in [true, false] {
        let control = Control::new();
        let (wake, sleep) = bounded::<()>(16);
        control.on_stop(move || {
            let _ = wake.try_send(());
        });
        let result = run(4, &control, |graph| {
            let mut items = 0..3u64;
            let items = graph.source("camera", Overflow::DropOldest(1), move || {
                let item = items.next();
                if item.is_none() {
                    let _ = sleep.recv();
                }
                Ok(item)
            });
            let passed = graph.map("pass", 1, items, || Ok);
            graph.sink("write", passed, |item| match stop {
                true => {
                    control.stop();
                    Ok(())
                }
                false => Err(Bad(item)),
            });
        });
        assert_eq!(result.is_ok(), stop, "{result:?}");
    }
}

#[test]
fn a_stage_in_order_sees_what_came_before_whatever_the_workers_do() {
    for workers in [1, 3] {
        let mut seen = Vec::new();
        let made = run(8, &Control::new(), |graph| {
            let items = graph.source("count", Overflow::Wait, count(60));
            let slow = graph.map("dawdle", workers, items, || {
                |item| {
                    dawdle(item);
                    Ok::<u64, Bad>(item)
                }
            });
            let mut sum = 0;
            let sums = graph.in_order("sum", slow, move |item| {
                sum += item;
                Ok(sum)
            });
            let again = graph.map("again", workers, sums, || Ok);
            graph.sink("write", again, |sum| {
                seen.push(sum);
                Ok(())
            });
        });
        assert_eq!(made.unwrap().items, 60);
        assert_eq!(seen, (0..60).map(|n| n * (n + 1) / 2).collect::<Vec<u64>>());
    }
}

#[test]
fn an_error_in_an_ordered_stage_ends_the_run() {
    let failed = run(4, &Control::new(), |graph| {
        let items = graph.source("count", Overflow::Wait, count(1000));
        let picky = graph.in_order("picky", items, |item| if item == 7 { Err(Bad(item)) } else { Ok(item) });
        graph.sink("write", picky, |_| Ok(()));
    });
    assert!(matches!(failed, Err(GraphError::Stage { stage: "picky", source: Bad(7) })));
}
