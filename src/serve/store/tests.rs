use super::*;
use crate::nn::ModelId;

fn event(time_ms: i64, kind: Kind, source: &str, subject: Subject) -> NewEvent {
    NewEvent {
        time_ms,
        kind,
        source: source.into(),
        subject,
        was: None,
        angle_deg: Some(41.5),
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
    // Without closing it, as after a crash.
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
