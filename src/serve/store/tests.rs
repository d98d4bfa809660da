use super::*;
use crate::models::ModelId;

fn event(time_ms: i64, kind: Kind, source: &str, subject: Subject) -> NewEvent {
    NewEvent {
        time_ms,
        kind,
        source: source.into(),
        subject,
        was: None,
        angle_deg: Some(41.5),
        margin_deg: None,
        why: "nearest".into(),
        picture: Some(vec![1, 2, 3]),
    }
}

fn ada() -> Subject {
    Subject::Person("Ada".into())
}

fn at(deg: f64) -> Embedding {
    let vector = vec![deg.to_radians().cos() as f32, deg.to_radians().sin() as f32];
    Embedding::new(ModelId([1; 8]), vector).unwrap()
}

fn sight(time_ms: i64, weight: f32, deg: f64) -> NewSight {
    let picture = StrangerPicture { jpeg: vec![weight.to_bits() as u8; 64], face: [3.0, 4.0] };
    NewSight { time_ms, source: "door".into(), weight, embedding: Some(at(deg)), picture }
}

#[test]
fn events_are_there_after_a_restart_and_are_found_by_person_source_kind_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut heard = store.subscribe();
    store.record(&event(1000, Kind::Appeared, "door", Subject::Stranger(7))).unwrap();
    let renamed =
        NewEvent { was: Some(Subject::Stranger(7)), ..event(2000, Kind::Recognised, "door", ada()) };
    let recorded = store.record(&renamed).unwrap();
    store.record(&NewEvent { picture: None, ..event(3000, Kind::Left, "yard", ada()) }).unwrap();
    assert_eq!(heard.try_recv().unwrap().who, "Unknown 7");
    assert_eq!(heard.try_recv().unwrap(), recorded);
    // The store is not closed, as after a crash.
    std::mem::forget(store);

    let store = Store::open(folder.path()).unwrap();
    let ids = |query: EventQuery| -> Vec<i64> {
        store.events(&query).unwrap().iter().map(|event| event.id).collect()
    };
    let all = EventQuery::default();
    assert_eq!(ids(all.clone()), [3, 2, 1]);
    assert_eq!(ids(EventQuery { oldest_first: true, after: Some(1), ..all.clone() }), [2, 3]);
    assert_eq!(ids(EventQuery { before: Some(3), limit: 1, ..all.clone() }), [2]);
    assert_eq!(ids(EventQuery { person: Some("Ada".into()), ..all.clone() }), [3, 2]);
    assert_eq!(ids(EventQuery { person: Some("Ada' OR 1 --".into()), ..all.clone() }), [0; 0]);
    assert_eq!(ids(EventQuery { stranger: Some(7), ..all.clone() }), [1]);
    assert_eq!(ids(EventQuery { source: Some("door".into()), ..all.clone() }), [2, 1]);
    assert_eq!(ids(EventQuery { kind: Some(Kind::Left), ..all.clone() }), [3]);
    assert_eq!(ids(EventQuery { since_ms: Some(2000), until_ms: Some(3000), ..all }), [2]);
    let read = store.event(2).unwrap().unwrap();
    assert_eq!(read, *recorded);
    assert_eq!((read.time.as_str(), read.was.as_deref()), ("1970-01-01T00:00:02.000Z", Some("Unknown 7")));
    assert_eq!(store.event_picture(2).unwrap(), Some(vec![1, 2, 3]));
    assert_eq!((store.event_picture(3).unwrap(), store.event(9).unwrap()), (None, None));
    assert_eq!(store.last_event().unwrap(), 3);
}

#[test]
fn what_is_too_old_goes_strangers_sooner_than_the_known() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let stranger = store.add_stranger(&sight(0, 0.5, 10.0)).unwrap();
    store.record(&event(0, Kind::Appeared, "door", Subject::Stranger(stranger))).unwrap();
    store.record(&event(0, Kind::Appeared, "door", ada())).unwrap();
    let retention = Retention { strangers_days: 7, known_days: 30 };
    assert_eq!(store.sweep(retention, 7 * DAY_MS).unwrap(), 0);
    assert_eq!(store.sweep(retention, 7 * DAY_MS + 1).unwrap(), 2);
    assert_eq!(store.stranger_like(&at(10.0), 60.0, &[]), None);
    assert_eq!(store.events(&EventQuery::default()).unwrap().len(), 1);
    let for_ever = Retention { strangers_days: 0, known_days: 0 };
    assert_eq!(store.sweep(for_ever, i64::MAX / 2).unwrap(), 0);
    assert_eq!(store.sweep(retention, 30 * DAY_MS + 1).unwrap(), 1);
}

#[test]
fn a_stranger_is_known_again_and_keeps_the_best_picture() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let first = store.add_stranger(&sight(1000, 0.5, 0.0)).unwrap();
    let second = store.add_stranger(&sight(1000, 0.5, 90.0)).unwrap();
    assert_eq!(store.stranger_like(&at(30.0), 60.0, &[]), Some(first));
    assert_eq!(store.stranger_like(&at(50.0), 60.0, &[]), Some(second), "the nearer one");
    assert_eq!(store.stranger_like(&at(30.0), 60.0, &[first]), None, "who is in the same picture is another");
    store.see_stranger(first, &sight(2000, 0.4, 5.0)).unwrap();
    assert_eq!(store.stranger_picture(first).unwrap().unwrap(), sight(0, 0.5, 0.0).picture);
    store.see_stranger(first, &sight(3000, 0.9, 8.0)).unwrap();
    assert_eq!(store.stranger_picture(first).unwrap().unwrap(), sight(0, 0.9, 0.0).picture);
    store.stranger_came(first, "yard", 4000).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.stranger_like(&at(20.0), 13.0, &[]), Some(first), "the better view, after a restart");
    let read = store.stranger(first).unwrap().unwrap();
    assert_eq!((read.visits, read.last_ms, read.last_source.as_str()), (2, 4000, "yard"));
}

#[test]
fn who_is_named_takes_the_events_along_and_who_is_forgotten_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let secret = b"a picture that nobody may see again".to_vec();
    let ids: Vec<i64> = (0..2).map(|at| store.add_stranger(&sight(0, 0.5, f64::from(at))).unwrap()).collect();
    for id in &ids {
        let picture = Some(secret.clone());
        let one = NewEvent { picture, ..event(0, Kind::Appeared, "door", Subject::Stranger(*id)) };
        store.record(&one).unwrap();
    }
    store.stranger_is(ids[0], "Ada").unwrap();
    assert_eq!(store.strangers().unwrap().len(), 1);
    let of_ada = EventQuery { person: Some("Ada".into()), ..EventQuery::default() };
    assert_eq!(store.events(&of_ada).unwrap()[0].who, "Ada");
    store.rename_person("Ada", "Ada Lovelace").unwrap();
    assert_eq!(store.events(&of_ada).unwrap(), []);
    assert_eq!(store.forget_person("Ada Lovelace").unwrap(), 1);
    assert!(store.forget_stranger(ids[1]).unwrap() && !store.forget_stranger(ids[1]).unwrap());
    assert_eq!(store.events(&EventQuery::default()).unwrap(), []);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "it is still in the file");
    }
}

#[test]
fn tokens_sources_and_notes_are_kept_and_a_newer_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.token("reader").unwrap(), None);
    store.set_token("reader", &[1; 32]).unwrap();
    store.set_token("reader", &[2; 32]).unwrap();
    assert_eq!(store.token("reader").unwrap(), Some(vec![2; 32]));
    store.set_source("door", Some("{}")).unwrap();
    store.set_source("yard", None).unwrap();
    assert_eq!(store.sources().unwrap(), [("door".into(), Some("{}".into())), ("yard".into(), None)]);
    store.note("administrator", "enrolled", Some("Ada")).unwrap();
    let about = |store: &Store| store.notes(9).unwrap()[0].about.clone();
    assert_eq!(about(&store).as_deref(), Some("Ada"));
    store.rename_person("Ada", "Eve").unwrap();
    assert_eq!(about(&store).as_deref(), Some("Eve"));
    store.forget_person("Eve").unwrap();
    assert_eq!(about(&store), None, "a record of changes remembers nobody who is forgotten");
    store.with(|sql| sql.execute_batch("PRAGMA user_version = 9")).unwrap();
    drop(store);
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer { found: 9, .. })));
}

#[test]
fn what_a_webhook_is_to_be_told_is_kept_with_the_event_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let audience = |name: &str, kinds: &[Kind], sources: &[&str]| Audience {
        name: name.into(),
        kinds: kinds.to_vec(),
        sources: sources.iter().map(ToString::to_string).collect(),
    };
    let all = audience("all", &Kind::ALL, &[]);
    store.set_audiences(vec![all.clone(), audience("yard", &[Kind::Left], &["yard"])]).unwrap();
    store.record(&event(1000, Kind::Appeared, "door", ada())).unwrap();
    store.record(&event(2000, Kind::Left, "yard", ada())).unwrap();
    store.record(&event(3000, Kind::Left, "door", Subject::Stranger(1))).unwrap();
    // The store is not closed, as after a crash.
    std::mem::forget(store);
    let store = Store::open(folder.path()).unwrap();
    let next = |hook: &str| store.next_delivery(hook).unwrap().map(|one| (one.event, one.attempts));
    assert_eq!((store.undelivered("all").unwrap(), store.undelivered("yard").unwrap()), (3, 1));
    assert_eq!((next("all"), next("yard"), next("none")), (Some((1, 0)), Some((2, 0)), None));
    let after = |hook: &str, after: i64, limit: usize| -> Vec<i64> {
        store.undelivered_events(hook, after, limit).unwrap().iter().map(|event| event.id).collect()
    };
    assert_eq!(
        (after("all", 0, 9), after("all", 0, 2), after("all", 1, 9)),
        (vec![1, 2, 3], vec![1, 2], vec![2, 3])
    );
    store.postponed("all", 1, i64::MAX).unwrap();
    assert_eq!(next("all"), Some((2, 0)));
    store.delivered("all", 2).unwrap();
    assert_eq!(next("all"), Some((3, 0)));
    assert_eq!(next("yard"), Some((2, 0)), "each for itself");
    store.forget_person("Ada").unwrap();
    assert_eq!((next("all"), next("yard")), (Some((3, 0)), None), "nobody is told of who is forgotten");
    store.set_audiences(vec![audience("yard", &[Kind::Left], &["yard"])]).unwrap();
    assert_eq!(next("all"), None, "a webhook that is gone");
    store.record(&event(4000, Kind::Left, "yard", ada())).unwrap();
    store.record(&event(5000, Kind::Left, "yard", ada())).unwrap();
    let waiting = || -> Vec<i64> {
        store.undelivered_events("yard", 0, 9).unwrap().iter().map(|event| event.id).collect()
    };
    assert_eq!(waiting(), [4, 5]);
    store.all_delivered("yard", &[4, 5, 99]).unwrap();
    assert_eq!(waiting(), [0; 0]);
}

#[test]
fn a_doubtful_name_is_confirmed_or_becomes_a_strangers_for_the_whole_visit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let doubtful = |kind: Kind, margin_deg: f32| {
        let one = NewEvent { margin_deg: Some(margin_deg), ..event(0, kind, "door", ada()) };
        store.record(&one).unwrap().id
    };
    for _ in 0..2 {
        for kind in [Kind::Appeared, Kind::Recognised, Kind::Left] {
            doubtful(kind, 2.0);
        }
    }
    store.record(&event(0, Kind::Recognised, "yard", ada())).unwrap();
    let certain = doubtful(Kind::Recognised, 20.0);
    let doubts = || -> Vec<i64> { store.doubts(6.0, 9).unwrap().iter().map(|event| event.id).collect() };
    assert_eq!(doubts(), [5, 2]);
    store.confirm_event(2).unwrap();
    assert!(store.event(2).unwrap().unwrap().confirmed);
    assert_eq!(doubts(), [5]);
    let stranger = store.add_stranger(&sight(0, 0.5, 0.0)).unwrap();
    store.reject_event(&store.event(5).unwrap().unwrap(), stranger, None).unwrap();
    let of = |query: EventQuery| -> Vec<i64> {
        store.events(&query).unwrap().iter().map(|event| event.id).collect()
    };
    assert_eq!(of(EventQuery { stranger: Some(stranger), ..EventQuery::default() }), [6, 5, 4]);
    assert_eq!(of(EventQuery { person: Some("Ada".into()), ..EventQuery::default() }), [certain, 7, 3, 2, 1]);
    assert!(doubts().is_empty());
    assert_eq!(store.angles_of_named().unwrap().len(), 3);
}

#[test]
fn two_strangers_become_one_and_what_is_no_person_is_known_again_and_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let ids: Vec<i64> = (0..3)
        .map(|at| store.add_stranger(&sight(at, 0.3 + at as f32 / 10.0, 30.0 * at as f64)).unwrap())
        .collect();
    for id in &ids {
        store.record(&event(0, Kind::Appeared, "door", Subject::Stranger(*id))).unwrap();
    }
    assert!(store.merge_strangers(ids[1], ids[0]).unwrap());
    assert!(
        !store.merge_strangers(ids[1], ids[0]).unwrap() && !store.merge_strangers(ids[0], ids[0]).unwrap()
    );
    let kept = store.stranger(ids[0]).unwrap().unwrap();
    assert_eq!((kept.visits, kept.last_ms), (2, 1));
    assert_eq!(
        store.stranger_picture(ids[0]).unwrap().unwrap(),
        sight(0, 0.4, 0.0).picture,
        "the better one"
    );
    assert_eq!(store.stranger_like(&at(31.0), 5.0, &[]), Some(ids[0]), "by the better view");
    assert_eq!((store.resolve(ids[1]), store.resolve(ids[2])), (ids[0], ids[2]));
    let of = EventQuery { stranger: Some(ids[0]), ..EventQuery::default() };
    assert_eq!(store.events(&of).unwrap().len(), 2);

    assert!(store.ignore_stranger(ids[2]).unwrap() && !store.ignore_stranger(ids[2]).unwrap());
    assert_eq!((store.strangers().unwrap().len(), store.stranger(ids[2]).unwrap()), (1, None));
    assert_eq!(store.stranger_picture(ids[2]).unwrap(), None);
    assert_eq!(store.events(&EventQuery::default()).unwrap().len(), 2);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.stranger_like(&at(60.0), 5.0, &[]), Some(ids[2]));
    assert!(store.is_ignored(ids[2]).unwrap() && !store.is_ignored(ids[0]).unwrap());
    assert_eq!(store.stranger_embeddings().unwrap().len(), 1, "only of people");
}

#[test]
fn a_store_of_the_first_layout_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("service.sqlite3")).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, kind TEXT NOT NULL,
                 source TEXT NOT NULL, person TEXT, stranger INTEGER, was TEXT, angle_deg REAL, why TEXT NOT NULL,
                 picture BLOB);
             CREATE TABLE strangers (id INTEGER PRIMARY KEY AUTOINCREMENT, first_ms INTEGER NOT NULL,
                 last_ms INTEGER NOT NULL, visits INTEGER NOT NULL, last_source TEXT NOT NULL, weight REAL NOT NULL,
                 model TEXT, embedding BLOB, picture BLOB NOT NULL, face_x REAL NOT NULL, face_y REAL NOT NULL);
             INSERT INTO events (time_ms, kind, source, person, why) VALUES (5, 'left', 'door', 'Ada', 'nearest');
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    for _ in 0..2 {
        let store = Store::open(folder.path()).unwrap();
        let read = store.event(1).unwrap().unwrap();
        assert!(read.who == "Ada" && !read.confirmed && read.margin_deg.is_none());
        store.record(&event(6, Kind::Left, "door", ada())).unwrap();
        store.add_job("a", None, |_| Ok(())).unwrap().unwrap();
    }
}

#[test]
fn a_job_is_found_by_every_later_name_of_the_people_in_it_and_by_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let begin = || {
        let id = store.add_job("a", None, |_| Ok(())).unwrap().unwrap();
        assert_eq!(store.begin_job().unwrap().unwrap().id, id);
        id
    };
    let end = |id: i64, people: &[&str]| {
        let people: Vec<String> = people.iter().map(ToString::to_string).collect();
        store.end_job(id, JobState::Done, None, &people).unwrap();
    };
    let job = |id: i64| store.job(id).unwrap().unwrap();
    let before = begin();
    end(before, &["Boris", "Chloe"]);
    // Those that run while she is renamed may find her under either name, or not at all.
    let during = begin();
    store.rename_person("Chloe", "Zoe").unwrap();
    end(during, &["Chloe"]);
    let without = begin();
    store.rename_person("Zoe", "Eve").unwrap();
    end(without, &["Boris"]);
    store.rename_person("Nobody", "Ada").unwrap();
    for id in [before, during] {
        let job = job(id);
        assert!(["Chloe", "Zoe", "Eve"].iter().all(|name| job.names(name)) && !job.names("Ada"), "{job:?}");
        assert!(job.people.iter().any(|name| name == "Chloe"), "the name that its results use");
    }
    assert!(!job(without).names("Eve") && job(without).renamed.is_empty(), "it does not know of her");
    assert!(job(before).names("Boris") && !job(during).names("Boris"));
    // What is done again is done with the names of then.
    let again = begin();
    store.rename_person("Eve", "Ida").unwrap();
    store.put_back_job(again).unwrap();
    assert!(job(again).renamed.is_empty());
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(store.job(before).unwrap().unwrap().names("Ida"), "after a restart");
}

#[test]
fn a_store_whose_jobs_know_no_later_names_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let id = store.add_job("a", None, |_| Ok(())).unwrap().unwrap();
    store.begin_job().unwrap();
    store.end_job(id, JobState::Done, None, &["Chloe".into()]).unwrap();
    let older = "ALTER TABLE jobs DROP COLUMN renamed; PRAGMA user_version = 2;";
    store.with(|sql| sql.execute_batch(older)).unwrap();
    drop(store);
    for name in ["Zoe", "Eve"] {
        let store = Store::open(folder.path()).unwrap();
        let job = store.job(id).unwrap().unwrap();
        assert!(job.names("Chloe") && !job.names(name), "{job:?}");
        store.rename_person("Chloe", name).unwrap();
        assert!(store.job(id).unwrap().unwrap().names(name));
    }
}

#[test]
fn jobs_are_begun_in_order_and_again_after_a_crash_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let add = |name: &str| store.add_job(name, None, |_| Ok(())).unwrap().unwrap();
    let (first, second, third) = (add("a"), add("b"), add("c"));
    let refused = store.add_job("d", None, |_| Err(std::io::Error::other("full"))).unwrap();
    assert!(refused.is_err() && store.jobs().unwrap().len() == 3, "nothing is left of it");
    let begin = || store.begin_job().unwrap().map(|job| (job.id, job.attempts));
    assert_eq!(begin(), Some((first, 1)));
    store.end_job(second, JobState::Failed, None, &[]).unwrap();
    assert_eq!(store.job(second).unwrap().unwrap().state, JobState::Waiting, "it did not run");
    store.end_job(second, JobState::Cancelled, None, &[]).unwrap();
    store.end_job(first, JobState::Done, Some("cut off"), &["Ada".into()]).unwrap();
    let done = store.job(first).unwrap().unwrap();
    assert_eq!(
        (done.state, done.reason.as_deref(), &done.people[..]),
        (JobState::Done, Some("cut off"), &["Ada".to_owned()][..])
    );
    for attempt in 1..=3 {
        assert_eq!(begin(), Some((third, attempt)));
        store.resume_jobs(3, "too often").unwrap();
    }
    let failed = store.job(third).unwrap().unwrap();
    assert_eq!((failed.state, failed.reason.as_deref()), (JobState::Failed, Some("too often")));
    assert_eq!(begin(), None);
    let last = add("e");
    assert_eq!(begin(), Some((last, 1)));
    store.put_back_job(last).unwrap();
    assert_eq!(begin(), Some((last, 1)));
    store.remove_job(last).unwrap();
    assert_eq!(store.job(last).unwrap(), None);
}
