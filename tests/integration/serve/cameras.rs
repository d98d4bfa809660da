//! Sources that are watched: the sample as a camera.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serve::client::{LIMIT, Service, place, sample, still};

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
fn a_gallery_that_is_not_there_yet_is_named_in_the_log_and_created_with_the_first_person() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let service = Service::start_logged(place.path(), &["--gallery", "galery"], &log);
    let told = std::fs::read_to_string(&log).unwrap();
    let sentence = "the gallery galery does not exist: it will be created when the first person is enrolled";
    assert!(told.contains(sentence), "{told}");
    assert!(!place.path().join("galery").exists());
    let stills = service.request("POST", "/api/v1/people/Ada/stills").files(&[("1.jpg", &still("Ada", 1))]);
    stills.send().ok();
    assert!(place.path().join("galery").is_dir());
    assert_eq!(service.get("/api/v1/people").ok()["people"][0]["name"], "Ada");
}

#[test]
fn a_gallery_that_goes_missing_makes_nobody_a_stranger() {
    let place = place();
    let (log, gallery, away) =
        (place.path().join("log"), place.path().join("gallery"), place.path().join("away"));
    let service = Service::start_logged(place.path(), &["--source", &sample_source(), "--repeat"], &log);
    service.event("recognised", "Boris");
    let in_sight = |state: &Value| {
        let faces = state["state"]["faces"].as_array().unwrap();
        faces.iter().any(|face| !face["person"].is_null())
    };
    let reread = |times: usize| {
        service.signal("HUP");
        let until = Instant::now() + LIMIT;
        loop {
            let told = std::fs::read_to_string(&log).unwrap();
            if told.matches("configuration and galleries reread").count() == times {
                return told;
            }
            assert!(Instant::now() < until, "{told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let name = || {
        let told =
            service.request("POST", "/api/v1/recognise").body("image/jpeg", still("Ada", 3)).send().ok();
        told["pictures"][0]["faces"][0]["who"]["name"].clone()
    };
    let last = service.get("/api/v1/events?limit=1").ok()["events"][0]["id"].clone();
    service.wait("/api/v1/sources/door", in_sight);
    std::fs::rename(&gallery, &away).unwrap();
    let told = reread(1);
    let sentence = "the gallery gallery is missing: the people who were read from it before are still named";
    assert!(told.contains(sentence), "{told}");
    assert_eq!(name(), "Ada");
    // Another threshold does not change that, and nothing begins a new gallery in place of the old one.
    service.request("PUT", "/api/v1/threshold").json(&json!({"threshold_deg": 75})).send().ok();
    assert_eq!(name(), "Ada");
    service.request("DELETE", "/api/v1/people/Eve").send().refused(503);
    let stills = service.request("POST", "/api/v1/people/Eve/stills").files(&[("1.jpg", &still("Chloé", 1))]);
    assert!(stills.send().refused(503).contains("the folder of the gallery is missing"));
    service.get("/api/v1/people").refused(503);
    service.get("/api/v1/people/Ada").refused(503);
    assert!(!gallery.exists());
    let frames = source(&service, "door")["state"]["frames"].as_u64().unwrap();
    service.wait("/api/v1/sources/door", |state| state["state"]["frames"].as_u64() > Some(frames + 20));
    let corrected = service.get(&format!("/api/v1/events?kind=corrected&after={last}")).ok();
    let lost_a_name = |event: &Value| event["was"] == "Ada" || event["was"] == "Boris";
    assert!(!corrected["events"].as_array().unwrap().iter().any(lost_a_name), "{corrected:#}");
    // It is back.
    std::fs::rename(&away, &gallery).unwrap();
    reread(2);
    assert_eq!(service.get("/api/v1/people").ok()["people"].as_array().unwrap().len(), 2);
    assert_eq!(name(), "Ada");
    let in_force = service.get("/api/v1/threshold").ok()["in_force_deg"].clone();
    assert_eq!(in_force, 75.0, "with the threshold that was set meanwhile");
}

#[test]
fn people_whom_another_program_enrols_renames_and_removes_are_followed_without_a_signal() {
    let place = place();
    let log = place.path().join("log");
    let service = Service::start_logged(place.path(), &["--source", &sample_source(), "--repeat"], &log);
    service.event("recognised", "Boris");
    let run = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sphereface"));
        let done = program.args(arguments).args(["--gallery", "gallery"]).current_dir(place.path()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let name = |file: &str| {
        let (who, number) = file.split_once('/').unwrap();
        let probe = still(who, number.parse().unwrap());
        let told = service.request("POST", "/api/v1/recognise").body("image/jpeg", probe).send().ok();
        told["pictures"][0]["faces"][0]["who"]["name"].as_str().map(str::to_owned)
    };
    let becomes = |file: &str, expected: Option<&str>| {
        let until = Instant::now() + LIMIT;
        while name(file).as_deref() != expected {
            assert!(Instant::now() < until, "{file} is {:?}, not {expected:?}", name(file));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(name("Chloé/3"), None);
    run(&["enroll", "Chloé", sample("people/Chloé/1.jpg").to_str().unwrap()]);
    becomes("Chloé/3", Some("Chloé"));
    run(&["gallery", "rename", "Boris", "Bo"]);
    becomes("Boris/3", Some("Bo"));
    // Sources follow, too.
    service.event("recognised", "Bo");
    service.wait("/api/v1/sources/door", |state| {
        let faces = state["state"]["faces"].as_array().unwrap();
        faces.iter().any(|face| face["person"] == "Bo")
    });
    run(&["gallery", "remove", "Chloé"]);
    becomes("Chloé/3", None);
    let times = || std::fs::read_to_string(&log).unwrap().matches("was changed by another program").count();
    let before = times();
    assert!((3..=4).contains(&before), "{}", std::fs::read_to_string(&log).unwrap());
    // What the service changes itself is not said to be another program's.
    let stills = service.request("POST", "/api/v1/people/Eve/stills").files(&[("1.jpg", &still("Chloé", 1))]);
    stills.send().ok();
    // A gallery that cannot be read takes nobody's name.
    let index = place.path().join("gallery/Ada/person.json");
    let whole = std::fs::read(&index).unwrap();
    std::fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    let until = Instant::now() + LIMIT;
    while times() == before {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.lines().last().unwrap().contains("cannot be reread, so the people who were"), "{told}");
    assert!(told.contains("Ada/person.json is damaged"), "{told}");
    assert_eq!((name("Ada/3").as_deref(), name("Chloé/3").as_deref()), (Some("Ada"), Some("Eve")));
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
