//! Several workers on one folder.

use super::{Place, media, until};

#[test]
fn two_workers_do_what_one_does_and_one_that_is_killed_loses_nothing() {
    let Some(media) = media() else { return };
    let alone = Place::new();
    alone.run(&["add", &media.text("media")]);
    let gallery = media.text("gallery");
    alone.run(&["work", "--gallery", &gallery]);
    let place = Place::new();
    place.run(&["add", &media.text("media")]);
    let victim = place.worker(media);
    until("the first worker", || place.status()["workers"] == 1);
    // It is in the middle of its first or second file.
    std::thread::sleep(std::time::Duration::from_millis(700));
    victim.signal("-9");
    let (well, ..) = victim.wait();
    assert!(!well);
    let (one, other) = (place.worker(media), place.worker(media));
    for worker in [one, other] {
        let (well, _, error) = worker.wait();
        assert!(well, "{error}");
    }
    let status = place.status();
    assert_eq!((&status["videos"]["done"], &status["photos"]["done"]), (&3.into(), &2.into()), "{status}");
    assert_eq!(place.everything(), alone.everything());
    let part = std::fs::read_dir(place.folder.path().join("lib/analyses")).unwrap();
    assert_eq!(part.count(), 5, "what the victim left is gone or whole");
}

/// After a kill at any moment, no result is incomplete: queries are answered, and the final state is as
/// without the kill.
#[test]
fn workers_killed_at_any_moment_leave_a_library_that_goes_on() {
    let Some(media) = media() else { return };
    let alone = Place::new();
    alone.run(&["add", &media.text("media")]);
    alone.run(&["work", "--gallery", &media.text("gallery")]);
    let place = Place::new();
    place.run(&["add", &media.text("media")]);
    let mut milliseconds = 90;
    for _ in 0..12 {
        let worker = place.worker(media);
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        worker.signal("-9");
        worker.wait();
        // A step that meets every phase of a second.
        milliseconds = 90 + (milliseconds + 291) % 1000;
        let status = place.status();
        let count = |kind: &str, state: &str| status[kind][state].as_i64().unwrap();
        let all = ["done", "due", "failed"].map(|state| count("videos", state) + count("photos", state));
        assert_eq!(all.iter().sum::<i64>(), 5, "{status}");
    }
    // A file at which three workers died is left to the user.
    let output = super::output(place.folder.path(), &place.arguments(&["work", "--heartbeat", "1"]));
    let failed = place.status()["failures"].as_array().unwrap().len();
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)));
    place.run(&["retry"]);
    place.run(&["work", "--heartbeat", "1"]);
    assert_eq!(place.status()["failures"], serde_json::json!([]));
    let (everything, whole) = (place.everything(), alone.everything());
    assert_eq!(everything.0, whole.0);
    // Unfinished analyses of a killed worker may remain under other names.
    let finished =
        |list: Vec<(String, Vec<u8>)>| list.into_iter().filter(|(name, _)| name.matches('.').count() == 1);
    assert!(finished(everything.1).eq(finished(whole.1)));
}

#[test]
fn a_worker_that_is_stopped_gives_its_file_back() {
    let Some(media) = media() else { return };
    let place = Place::new();
    place.run(&["add", &media.text("media/a.mp4")]);
    let worker = place.worker(media);
    until("the worker", || place.status()["workers"] == 1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    worker.signal("-INT");
    let (well, _, error) = worker.wait();
    assert!(well, "{error}");
    if place.status()["videos"]["due"] == 1 {
        // Immediately, without waiting until it counts as dead.
        let begun = std::time::Instant::now();
        place.run(&["work"]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(25));
    }
    assert_eq!(place.status()["videos"]["done"], 1);
}
