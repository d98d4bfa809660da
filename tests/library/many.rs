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
        // At once, without waiting for its death.
        let begun = std::time::Instant::now();
        place.run(&["work"]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(25));
    }
    assert_eq!(place.status()["videos"]["done"], 1);
}
