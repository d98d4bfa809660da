//! Decisions of the user: wrong names, merged strangers, false detections, and regions of the picture.

use serde_json::{Value, json};

use crate::serve::client::{Service, place, sample, still};

fn config(place: &std::path::Path, more: &str, of_source: &str) {
    let source = format!(
        "[[source]]\nname = \"door\"\ninput = \"{}\"\nrepeat = true\n",
        sample("sample.mp4").display()
    );
    std::fs::write(place.join("serve.toml"), format!("{more}\n{source}{of_source}")).unwrap();
}

fn list(answer: &Value, key: &str) -> Vec<Value> {
    answer[key].as_array().unwrap().clone()
}

#[test]
fn stills_and_counter_examples_are_added_and_removed_one_by_one() {
    let place = place();
    // So wide that every face gets a name.
    std::fs::write(place.path().join("serve.toml"), "threshold_deg = 89.0\n").unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let probe = still("Chloé", 1);
    let who = || {
        let answer =
            service.request("POST", "/api/v1/recognise").body("image/jpeg", probe.clone()).send().ok();
        answer["pictures"][0]["faces"][0]["who"].clone()
    };
    let taken_for = who()["name"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/people/{taken_for}");
    let reject =
        |bytes: &[u8]| service.request("POST", &format!("{path}/rejected")).files(&[("c.jpg", bytes)]).send();
    assert!(reject(&still(&taken_for, 1)).refused(409).contains("already enrolled as"));
    reject(b"no picture").refused(422);
    let rejected = reject(&probe).ok();
    assert_eq!((&rejected["added"], list(&rejected["person"], "rejected").len()), (&json!(1), 1));
    assert_eq!(reject(&probe).ok()["known"], 1);
    let now = who();
    assert_ne!(now["name"].as_str(), Some(taken_for.as_str()));
    assert!(now["why"].as_str().unwrap().contains(&format!("not {taken_for}")), "{now}");
    let picture = rejected["person"]["rejected"][0]["picture"].as_str().unwrap().to_owned();
    assert_eq!(service.get(&picture).body, probe);
    service.request("DELETE", &picture).send().ok();
    service.request("DELETE", &picture).send().refused(404);
    assert_eq!(who()["name"].as_str(), Some(taken_for.as_str()), "it was a mistake");

    let stills = list(&service.get(&path).ok(), "stills");
    let picture = stills[0]["picture"].as_str().unwrap();
    assert_eq!(list(&service.request("DELETE", picture).send().ok(), "stills").len(), stills.len() - 1);
    service.get(picture).refused(404);
    let last = stills[1]["picture"].as_str().unwrap();
    assert!(service.request("DELETE", last).send().refused(409).contains("the only still"));
    service.request("DELETE", &format!("{path}/stills/..%2fperson.json")).send().refused(404);
    let changes = service.get("/api/v1/changes").ok();
    let done: Vec<&str> =
        changes["changes"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(
        done,
        ["removed a still", "removed a counter-example", "rejected a picture", "rejected a picture"]
    );
}

#[test]
fn a_doubtful_name_is_confirmed_or_rejected_and_the_threshold_is_shown_with_what_it_does() {
    let place = place();
    config(place.path(), "threshold_deg = 89.0\n", "");
    let service = Service::start(place.path(), &["serve.toml"]);
    let path = "/api/v1/doubts?margin_deg=180";
    let of = |person: &str| {
        let all = service.wait(path, |all| list(all, "events").iter().any(|one| one["person"] == *person));
        list(&all, "events").into_iter().find(|one| one["person"] == *person).unwrap()
    };
    let (boris, ada) = (of("Boris"), of("Ada"));
    assert!(boris["margin_deg"].as_f64() > Some(0.0) && boris["confirmed"] == false, "{boris}");
    let decide = |event: &Value, what: &str, body: &Value| {
        let id = event["id"].as_i64().unwrap();
        service.post(&format!("/api/v1/events/{id}/{what}"), body)
    };
    assert_eq!(decide(&boris, "confirm", &json!({})).ok()["confirmed"], true);
    let before = list(&service.get("/api/v1/people/Ada").ok(), "stills").len();
    decide(&ada, "confirm", &json!({"enroll": true})).ok();
    assert_eq!(list(&service.get("/api/v1/people/Ada").ok(), "stills").len(), before + 1);
    let open = list(&service.get(path).ok(), "events");
    assert!(open.iter().all(|one| one["id"] != boris["id"] && one["id"] != ada["id"]));
    // A picture that is the person's own still cannot be a counter-example, another can.
    assert!(decide(&ada, "reject", &json!({})).refused(409).contains("already enrolled"));
    let rejected = decide(&boris, "reject", &json!({})).ok();
    assert!(rejected["person"].is_null() && rejected["stranger"].as_i64() > Some(0), "{rejected}");
    let stranger = rejected["stranger"].as_i64().unwrap();
    service.get(&format!("/api/v1/strangers/{stranger}/picture"));
    assert_eq!(list(&service.get("/api/v1/people/Boris").ok(), "rejected").len(), 1);
    let visit = list(&service.get(&format!("/api/v1/events?stranger={stranger}")).ok(), "events");
    assert!(visit.len() >= 2 && visit.iter().any(|one| one["kind"] == "appeared"), "{visit:?}");
    assert!(decide(&rejected, "reject", &json!({})).refused(400).contains("names nobody"));
    service.post("/api/v1/events/999999/reject", &json!({})).refused(404);
    service.get("/api/v1/doubts?margin_deg=-1").refused(400);

    let told = service.get("/api/v1/threshold").ok();
    assert_eq!((&told["in_force_deg"], &told["threshold_deg"]), (&json!(89.0), &json!(89.0)));
    assert!(told["strangers"].as_u64() > Some(0) && told["names"].as_u64() > Some(0), "{told}");
    assert_eq!(told["names_lost"], 0);
    let strict = service.get("/api/v1/threshold?threshold_deg=5").ok();
    assert_eq!((&strict["names_lost"], &strict["strangers_named"]), (&strict["names"], &json!(0)));
    service.get("/api/v1/threshold?threshold_deg=500").refused(400);
    let plot = service.get("/api/v1/threshold/plot.svg?threshold_deg=70");
    let svg = String::from_utf8(plot.body).unwrap();
    assert!(plot.head.contains("image/svg+xml") && svg.contains("threshold in force: 89.0"), "{svg}");
}

#[test]
fn a_threshold_is_set_while_sources_run_and_stays_until_it_is_taken_back() {
    let place = place();
    let own = format!(
        "[[source]]\nname = \"own\"\ninput = \"{}\"\nrepeat = true\nthreshold_deg = 89.0\n",
        sample("sample.mp4").display()
    );
    config(place.path(), "", &own);
    let mut service = Service::start(place.path(), &["serve.toml"]);
    let before = service.get("/api/v1/threshold").ok();
    assert_eq!(before["set_here"], false);
    let calibrated = before["in_force_deg"].as_f64().unwrap();
    service.wait("/api/v1/events?source=door&kind=recognised", |all| !list(all, "events").is_empty());
    let set = |degrees: Value| {
        service.request("PUT", "/api/v1/threshold").json(&json!({"threshold_deg": degrees})).send()
    };
    for wrong in [json!(0), json!(180), json!("wide"), json!(null)] {
        assert!((400..500).contains(&set(wrong.clone()).status), "{wrong}");
    }
    let told = set(json!(3)).ok();
    assert_eq!((&told["in_force_deg"], &told["set_here"]), (&json!(3.0), &json!(true)));
    // Nobody is that near: the running source names nobody any more, and the one with its own threshold
    // continues.
    let last = list(&service.get("/api/v1/events?limit=1").ok(), "events")[0]["id"].as_i64().unwrap();
    let named = |service: &Service, source: &str| -> usize {
        let all = service.get(&format!("/api/v1/events?source={source}&kind=recognised&limit=1000")).ok();
        list(&all, "events").iter().filter(|one| one["id"].as_i64() > Some(last)).count()
    };
    service.wait("/api/v1/events?source=door&kind=appeared", |all| {
        list(all, "events").iter().any(|one| one["id"].as_i64() > Some(last) && one["person"].is_null())
    });
    let until = std::time::Instant::now() + crate::serve::client::LIMIT;
    while named(&service, "own") == 0 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(named(&service, "door"), 0);
    let state = service.get("/api/v1/sources/door").ok();
    assert!(state["state"]["last_error"].is_null() && state["state"]["attempts"] == 0, "{state}");
    let changes = service.get("/api/v1/changes").ok();
    assert_eq!(changes["changes"][0]["what"], "set the threshold to 3 degrees");
    // It is kept across a reload and a restart.
    service.signal("HUP");
    service.signal("TERM");
    service.ended();
    let service = Service::start(place.path(), &["serve.toml"]);
    assert_eq!(service.get("/api/v1/threshold").ok()["in_force_deg"], 3.0);
    let told = service.request("DELETE", "/api/v1/threshold").send().ok();
    assert_eq!((told["in_force_deg"].as_f64(), &told["set_here"]), (Some(calibrated), &json!(false)));
    service.event("recognised", "Boris");
}

#[test]
fn strangers_become_one_or_are_ignored_and_regions_count_while_the_source_runs() {
    let place = tempfile::tempdir().unwrap();
    let everywhere = "[[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]";
    config(place.path(), "", &format!("ignore = {everywhere}\n"));
    let service = Service::start(place.path(), &["serve.toml"]);
    let source = |right: &dyn Fn(&Value) -> bool| service.wait("/api/v1/sources/door", right);
    let state = source(&|source| source["state"]["frames"].as_u64() > Some(20));
    assert_eq!((&state["state"]["faces"], &state["ignore"][0][2]), (&json!([]), &json!([1.0, 1.0])));
    assert!(list(&service.get("/api/v1/events").ok(), "events").is_empty());
    let change = |value: Value| service.request("PATCH", "/api/v1/sources/door").json(&value).send();
    assert!(change(json!({"watch": [[[0, 0], [1, 1]]]})).refused(400).contains("3 to 100 corners"));
    change(json!({"ignore": [], "confirm_frames": 3})).ok();
    // Nobody is enrolled: all three are strangers.
    let strangers = service.wait("/api/v1/strangers", |all| list(all, "strangers").len() >= 3);
    let mut ids: Vec<i64> =
        list(&strangers, "strangers").iter().map(|one| one["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    let [first, second, third] = ids[..3] else { panic!("{ids:?}") };
    let merge = |from: i64, into: i64| {
        service.post(&format!("/api/v1/strangers/{from}/merge"), &json!({"into": into}))
    };
    merge(first, first).refused(400);
    merge(first, 999).refused(404);
    let visits = |id: i64| service.get(&format!("/api/v1/strangers/{id}")).ok()["visits"].as_i64().unwrap();
    let before = visits(first) + visits(second);
    assert!(merge(second, first).ok()["visits"].as_i64().unwrap() >= before);
    service.get(&format!("/api/v1/strangers/{second}")).refused(404);
    let events = list(&service.get(&format!("/api/v1/events?stranger={second}")).ok(), "events");
    assert!(events.is_empty());

    // The false detection occurs again in the next round, and no event is sent.
    let ignore = || service.request("POST", &format!("/api/v1/strangers/{third}/ignore")).send();
    ignore().ok();
    ignore().refused(404);
    service.get(&format!("/api/v1/strangers/{third}/picture")).refused(404);
    let rounds = |events: &Value| list(events, "events").len();
    let path = format!("/api/v1/events?stranger={first}&kind=appeared&limit=1000");
    let seen = rounds(&service.get(&path).ok());
    service.wait(&path, |events| rounds(events) >= seen + 4);
    let all = service.get("/api/v1/events?limit=1000").ok().to_string();
    assert!(!all.contains(&format!("\"stranger\":{third},")), "{all}");
}
