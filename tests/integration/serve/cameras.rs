//! Sources that are watched: the sample as a camera.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serve::client::{Service, place, sample, still};

fn sample_source() -> String {
    format!("door={}", sample("sample.mp4").display())
}

fn source(service: &Service, name: &str) -> Value {
    service.get(&format!("/api/v1/sources/{name}")).ok()
}

#[test]
fn who_comes_is_told_with_picture_and_reason_and_is_there_after_kill_9() {
    let place = place();
    let camera = sample_source();
    let mut service = Service::start(place.path(), &["--source", &camera, "--repeat"]);
    let boris = service.event("recognised", "Boris");
    assert_eq!((&boris["source"], &boris["person"]), (&json!("door"), &json!("Boris")));
    assert!(boris["why"].as_str().unwrap().starts_with("nearest is Boris at "), "{boris}");
    assert!(boris["angle_deg"].as_f64().unwrap() < 70.0);
    let picture = service.get(boris["picture"].as_str().unwrap());
    assert!(picture.head.contains("image/jpeg") && image::load_from_memory(&picture.body).is_ok());
    let stranger = service.event("appeared", "Unknown ");
    assert!(stranger["person"].is_null() && stranger["stranger"].as_i64().unwrap() > 0);
    // The second shot begins after eight seconds, and Boris has left some seconds later.
    let ada = service.event("recognised", "Ada");
    let of = |query: &str| -> Vec<Value> {
        service.get(&format!("/api/v1/events?{query}")).ok()["events"].as_array().unwrap().clone()
    };
    assert!(of("person=Boris").iter().all(|event| event["person"] == "Boris"));
    assert!(of("source=yard").is_empty() && of("kind=left&person=Eve").is_empty());
    let time = ada["time"].as_str().unwrap();
    assert!(
        of(&format!("until={time}")).iter().all(|event| event["time_ms"].as_i64() < ada["time_ms"].as_i64())
    );
    assert!(of(&format!("since={time}")).iter().any(|event| event["id"] == ada["id"]));

    let told = service
        .request("GET", "/api/v1/events/stream?after=0")
        .until(|bytes| String::from_utf8_lossy(bytes).contains("event: recognised"));
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("text/event-stream") && told.contains("id: 1\n"), "{told}");
    let resumed = service.request("GET", "/api/v1/events/stream").header("Last-Event-ID", "1");
    let resumed = resumed.until(|bytes| String::from_utf8_lossy(bytes).contains("id: 2\n"));
    assert!(!String::from_utf8_lossy(&resumed).contains("id: 1\n"));

    let state = source(&service, "door");
    assert_eq!((&state["state"]["width"], &state["state"]["phase"]), (&json!(768), &json!("running")));
    assert!(
        state["state"]["frames"].as_u64().unwrap() > 10 && state["state"]["delay_ms"].as_f64().unwrap() > 0.0
    );
    let metrics = String::from_utf8(service.get("/metrics").body).unwrap();
    assert!(metrics.contains("sphereface_source_up{source=\"door\"} 1"), "{metrics}");

    let acknowledged = of("limit=1000");
    service.signal("KILL");
    service.ended();
    let mut service = Service::start(place.path(), &["--source", &camera, "--repeat"]);
    let after = service.get("/api/v1/events?limit=1000").ok();
    for event in &acknowledged {
        assert!(after["events"].as_array().unwrap().contains(event), "{event} is lost");
    }
    // A stranger is the same after the restart.
    let id = stranger["stranger"].as_i64().unwrap();
    let path = format!("/api/v1/strangers/{id}");
    let known = service.get(&path).ok();
    assert_eq!(known["picture"], format!("/api/v1/strangers/{id}/picture"));

    // All people in sight at the end have left.
    let last = acknowledged[0]["id"].as_i64().unwrap();
    service.wait(&format!("/api/v1/events?after={last}"), |events| {
        events["events"].as_array().unwrap().iter().any(|event| event["kind"] == "appeared")
    });
    service.signal("TERM");
    assert_eq!(service.ended(), Some(0));
    let service = Service::start(place.path(), &[]);
    let all = service.get("/api/v1/events?limit=1000").ok();
    let (mut here, mut came) = (std::collections::BTreeSet::new(), 0);
    for event in
        all["events"].as_array().unwrap().iter().rev().filter(|event| event["id"].as_i64().unwrap() > last)
    {
        let who = event["who"].as_str().unwrap().to_owned();
        if let Some(was) = event["was"].as_str() {
            here.remove(was);
        }
        match event["kind"].as_str().unwrap() {
            "left" => here.remove(&who),
            _ => here.insert(who),
        };
        came += 1;
    }
    assert!(came > 1 && here.is_empty(), "{here:?}: {all:#}");
}

#[test]
fn pictures_with_names_are_shown_as_one_as_video_and_on_the_wall() {
    let place = place();
    let service = Service::start(place.path(), &["--source", &sample_source(), "--repeat"]);
    service.event("appeared", "");
    let one = service.get("/api/v1/sources/door/picture");
    assert!(one.head.contains("image/jpeg"), "{}", one.head);
    assert_eq!(image::load_from_memory(&one.body).unwrap().width(), 768);
    let video = service
        .request("GET", "/api/v1/sources/door/video")
        .until(|bytes| String::from_utf8_lossy(bytes).matches("--sphereface-picture").count() >= 3);
    assert!(
        String::from_utf8_lossy(&video).contains("multipart/x-mixed-replace; boundary=sphereface-picture")
    );
    let wall = service.request("GET", "/api/v1/wall").until(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.contains("\"sources\":[{\"name\":\"door\"") && text.contains("\"jpeg\":\"/9j/")
    });
    assert!(String::from_utf8_lossy(&wall).contains("text/event-stream"));
    service.get("/api/v1/sources/yard/picture").refused(404);
    service.get("/api/v1/sources/yard/video").refused(404);
}

#[test]
fn a_stranger_is_named_in_two_steps_and_known_in_the_next_frames() {
    let place = place();
    let service = Service::start(place.path(), &["--source", &sample_source(), "--repeat"]);
    // Chloé is the one of the three who is not enrolled.
    let probe = still("Chloé", 1);
    let is_chloe = |stranger: &Value| {
        let picture = service.get(stranger["picture"].as_str().unwrap()).body;
        let compared =
            service.request("POST", "/api/v1/compare").files(&[("a", &picture), ("b", &probe)]).send();
        compared.status == 200 && compared.ok()["same"] == true
    };
    let found = |all: &Value| all["strangers"].as_array().unwrap().iter().find(|one| is_chloe(one)).cloned();
    let all = service.wait("/api/v1/strangers", |all| found(all).is_some());
    let id = found(&all).unwrap()["id"].as_i64().unwrap();
    let path = format!("/api/v1/strangers/{id}");
    service.post(&format!("{path}/name"), &json!({"name": ""})).refused(400);
    let named = service.post(&format!("{path}/name"), &json!({"name": "Chloé"})).ok();
    assert_eq!((&named["name"], &named["stills"]), (&json!("Chloé"), &json!(1)));
    service.get(&path).refused(404);
    service.event("recognised", "Chloé");
    let hers = service.get("/api/v1/events?person=Chlo%C3%A9&kind=appeared").ok();
    assert!(hers["events"][0]["stranger"].as_i64().is_some(), "events as a stranger are hers: {hers}");
    // Forgetting removes all data.
    service.request("DELETE", "/api/v1/people/Chlo%C3%A9").send().ok();
    let left = service.get("/api/v1/events?person=Chlo%C3%A9").ok();
    assert_eq!(left["events"], json!([]));
}

#[test]
fn a_source_that_fails_takes_no_other_with_it_and_sources_come_and_go_while_they_run() {
    let place = place();
    let clips = place.path().join("clips");
    std::fs::create_dir(&clips).unwrap();
    std::fs::copy(sample("sample.mp4"), clips.join("a.mp4")).unwrap();
    std::fs::write(clips.join("broken.mp4"), vec![7; 9999]).unwrap();
    let config = format!(
        "allow_inputs = [\"{}\"]\n[[source]]\nname = \"door\"\ninput = \"clips/a.mp4\"\nrepeat = true\n\
         [[source]]\nname = \"gone\"\ninput = \"clips/missing.mp4\"\n\
         [[source]]\nname = \"broken\"\ninput = \"clips/broken.mp4\"\n\
         [[source]]\nname = \"camera\"\ninput = \"rtsp://user:secret@127.0.0.1:9/x\"\n",
        clips.display()
    );
    std::fs::write(place.path().join("serve.toml"), &config).unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let waiting = |name: &str| {
        let path = format!("/api/v1/sources/{name}");
        service.wait(&path, |source| source["state"]["attempts"].as_u64() >= Some(2))["state"].clone()
    };
    assert!(waiting("gone")["error"].as_str().unwrap().contains("does not exist"));
    assert!(waiting("broken")["error"].as_str().unwrap().contains("broken.mp4"));
    assert!(waiting("camera")["retry_in_s"].as_f64().is_none_or(|pause| pause <= 30.0));
    let all = service.get("/api/v1/sources").ok().to_string();
    assert!(all.contains("rtsp://127.0.0.1:9/x") && !all.contains("secret"), "a password is shown: {all}");
    assert_eq!(service.get("/api/v1/health").ok()["status"], "degraded");
    service.event("recognised", "Boris");

    // The missed events arrive.
    std::fs::copy(clips.join("a.mp4"), clips.join("missing.mp4")).unwrap();
    service.wait("/api/v1/sources/gone", |source| source["state"]["frames"].as_u64() > Some(0));
    // Changed, added and removed.
    let changed = service.request("PATCH", "/api/v1/sources/door").json(&json!({"fps": 2.0})).send().ok();
    assert_eq!(changed["fps"], 2.0);
    let nonsense = service.request("PATCH", "/api/v1/sources/door").json(&json!({"fps": 0})).send();
    assert!(nonsense.refused(400).contains("0.1 to 60"));
    assert_eq!(source(&service, "door")["fps"], 2.0);
    let off = service.request("PATCH", "/api/v1/sources/camera").json(&json!({"enabled": false})).send().ok();
    assert_eq!(off["state"]["phase"], "off");
    let input = clips.join("a.mp4");
    let new = json!({"name": "yard", "input": input, "min_face": "10%", "repeat": true, "fps": 1.0});
    service.post("/api/v1/sources", &new).ok();
    service.post("/api/v1/sources", &new).refused(409);
    let elsewhere = json!({"name": "other-people", "input": clips.join("a.mp4"), "gallery": "/etc"});
    assert!(service.post("/api/v1/sources", &elsewhere).refused(403).contains("omit gallery"));
    let input =
        service.request("PATCH", "/api/v1/sources/door").json(&json!({"input": "/etc/passwd"})).send();
    assert!(input.refused(422).contains("unknown field"));
    service.wait("/api/v1/sources/yard", |source| source["state"]["frames"].as_u64() > Some(1));
    service.request("DELETE", "/api/v1/sources/gone").send().ok();
    service.request("DELETE", "/api/v1/sources/gone").send().refused(404);
    service.get("/api/v1/sources/gone").refused(404);
    // A slow source does not catch up, and nothing waits for it.
    let frames = source(&service, "door")["state"]["frames"].as_u64().unwrap();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(4));
    let more = source(&service, "door")["state"]["frames"].as_u64().unwrap() - frames;
    assert!(more as f64 <= 2.0 * began.elapsed().as_secs_f64() + 2.0, "{more}");

    // The file is read again, and the API's changes of sources are kept.
    std::fs::write(place.path().join("serve.toml"), config.replace("\"broken\"", "\"other\"")).unwrap();
    service.signal("HUP");
    service.wait("/api/v1/sources", |sources| sources.to_string().contains("\"name\":\"other\""));
    drop(service);
    let service = Service::start(place.path(), &["serve.toml"]);
    let names: Vec<Value> = service.get("/api/v1/sources").ok()["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| source["name"].clone())
        .collect();
    assert_eq!(names, ["camera", "door", "other", "yard"]);
    assert_eq!(source(&service, "door")["fps"], 2.0);
    assert_eq!(source(&service, "camera")["input"], "rtsp://127.0.0.1:9/x");
}
