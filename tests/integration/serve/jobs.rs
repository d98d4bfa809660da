//! Videos that are labelled in the background.

use std::process::Command;

use serde_json::{Value, json};

use crate::serve::client::{Service, place, sample};

fn video() -> Vec<u8> {
    std::fs::read(sample("sample.mp4")).unwrap()
}

fn upload(service: &Service, name: &str, bytes: Vec<u8>) -> crate::serve::client::Answer {
    service.request("POST", &format!("/api/v1/jobs?name={name}")).body("video/mp4", bytes).send()
}

fn wait(service: &Service, id: i64, state: &str) -> Value {
    service.wait(&format!("/api/v1/jobs/{id}"), |job| job["state"] == state)
}

#[test]
fn an_upload_is_labelled_and_its_results_are_there_until_it_is_deleted() {
    let place = place();
    let mut service = Service::start(place.path(), &[]);
    let job = upload(&service, "holi%20day%2F..%2F.mp4", video()).ok();
    let id = job["id"].as_i64().unwrap();
    assert_eq!((&job["name"], &job["results"]), (&json!("holi day/../.mp4"), &json!(null)));
    service.get(&format!("/api/v1/jobs/{id}/results/named.mp4")).refused(404);
    let path = format!("/api/v1/jobs/{id}");
    service.wait(&path, |job| job["progress"].as_f64() > Some(0.1));
    // The machine fails: the job is restarted.
    service.signal("KILL");
    service.ended();
    let service = Service::start(place.path(), &[]);
    let done = wait(&service, id, "done");
    assert_eq!((&done["progress"], &done["reason"]), (&json!(1.0), &json!(null)));
    assert_eq!(done["people"], json!(["Boris", "Ada"]));
    let result = |key: &str| service.get(done["results"][key].as_str().unwrap());
    let faces = String::from_utf8(result("faces").body).unwrap();
    let first: Value = serde_json::from_str(faces.lines().next().unwrap()).unwrap();
    assert!(first["frame"].is_u64() && faces.contains("\"Ada\"") && faces.lines().count() > 100, "{first}");
    let page = result("page");
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains("Ada") && text.contains("named.mp4") && text.contains("holi_day"), "{text}");
    assert!(
        page.head.to_lowercase().contains("content-security-policy: default-src 'none'"),
        "{}",
        page.head
    );
    let video = result("video");
    assert!(video.head.to_lowercase().contains("content-type: video/mp4") && video.body.len() > 100_000);
    let part = service
        .request("GET", done["results"]["video"].as_str().unwrap())
        .header("Range", "bytes=0-99")
        .send();
    assert_eq!((part.status, &part.body[..]), (206, &video.body[..100]));
    let beyond = service
        .request("GET", done["results"]["video"].as_str().unwrap())
        .header("Range", "bytes=999999999-")
        .send();
    let length = format!("content-range: bytes */{}", video.body.len());
    assert!(beyond.head.to_lowercase().contains(&length), "{}", beyond.head);
    beyond.refused(416);
    for wrong in ["person.json", "..%2f..%2fservice.sqlite3", "input"] {
        service.get(&format!("{path}/results/{wrong}")).refused(404);
    }
    assert!(service.request("POST", &format!("{path}/cancel")).send().refused(409).contains("is done"));

    // A person who was forgotten is in no video either.
    service.request("DELETE", "/api/v1/people/Ada").send().ok();
    service.get(&path).refused(404);
    assert_eq!(std::fs::read_dir(place.path().join("sphereface-data/jobs")).unwrap().count(), 0);
}

#[test]
fn a_labelled_video_goes_with_a_person_who_was_renamed_since() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let id = upload(&service, "a.mp4", video()).ok()["id"].as_i64().unwrap();
    let done = wait(&service, id, "done");
    assert_eq!(done["people"], json!(["Boris", "Ada"]));
    let rename = |service: &Service, from: &str, to: &str| {
        service.request("PATCH", &format!("/api/v1/people/{from}")).json(&json!({"name": to})).send().ok()
    };
    rename(&service, "Ada", "Lovelace");
    drop(service);
    let service = Service::start(place.path(), &[]);
    rename(&service, "Lovelace", "Countess");
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(service.get(&path).ok()["people"], done["people"], "the names of then");
    service.request("DELETE", "/api/v1/people/Countess").send().ok();
    service.get(&path).refused(404);
    for result in ["page", "video", "faces"] {
        service.get(done["results"][result].as_str().unwrap()).refused(404);
    }
    assert_eq!(service.get("/api/v1/jobs").ok(), json!({"jobs": []}));
    assert_eq!(std::fs::read_dir(place.path().join("sphereface-data/jobs")).unwrap().count(), 0);
}

/// The state and the parent of a process, unless it is gone. One that nobody has waited for yet is in state `Z`.
#[cfg(target_os = "linux")]
fn state(pid: u32) -> Option<(String, u32)> {
    let facts = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; the state and the parent follow.
    let mut rest = facts.rsplit_once(") ")?.1.split(' ');
    Some((rest.next()?.to_owned(), rest.next()?.parse().ok()?)).filter(|(state, _)| state != "Z")
}

/// The processes that label videos for a service.
#[cfg(target_os = "linux")]
fn labelling(service: &Service) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| state(*pid).is_some_and(|(_, parent)| parent == service.id())).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_decoder_that_crashes_fails_its_job_and_the_service_goes_on() {
    use std::time::{Duration, Instant};

    let place = place();
    let mut service = Service::start(place.path(), &[]);
    let send = |signal: &str, pid: u32| {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    };
    let begun = |service: &Service| {
        let id = upload(service, "a.mp4", video()).ok()["id"].as_i64().unwrap();
        service.wait(&format!("/api/v1/jobs/{id}"), |job| job["progress"].as_f64() > Some(0.05));
        let [pid] = labelling(service)[..] else { panic!("{:?}", labelling(service)) };
        (id, pid)
    };
    let (id, pid) = begun(&service);
    send("-ABRT", pid);
    let failed = wait(&service, id, "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("was ended by signal 6"), "{reason}");
    // Nothing half done is left, but the upload.
    let folder = place.path().join(format!("sphereface-data/jobs/{id}"));
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["input"]);
    assert_eq!(service.get("/api/v1/health").ok()["status"], "ok");
    // One that is cancelled ends at once.
    let (id, pid) = begun(&service);
    service.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).ok();
    let gone = |pid: u32| {
        let until = Instant::now() + Duration::from_secs(60);
        while state(pid).is_some() {
            assert!(Instant::now() < until, "{pid} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    gone(pid);
    // Ctrl-C in a terminal and a service manager tell the process, too: the job is not lost.
    let (id, pid) = begun(&service);
    send("-TERM", pid);
    service.signal("TERM");
    assert_eq!(service.ended(), Some(0));
    gone(pid);
    let mut service = Service::start(place.path(), &[]);
    assert_eq!(wait(&service, id, "done")["people"], json!(["Boris", "Ada"]));
    // A service that is killed leaves no process behind.
    let (_, pid) = begun(&service);
    service.signal("KILL");
    service.ended();
    gone(pid);
}

#[test]
fn a_second_service_is_refused_the_data_of_the_first_and_its_jobs_go_on() {
    let place = place();
    let mut service = Service::start(place.path(), &[]);
    let id = upload(&service, "a.mp4", video()).ok()["id"].as_i64().unwrap();
    wait(&service, id, "running");
    for _ in 0..3 {
        let second = Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .current_dir(place.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1), "{told}");
        let sentence = "the data folder sphereface-data is in use by another sphereface serve";
        assert!(told.contains(sentence), "{told}");
    }
    let done = wait(&service, id, "done");
    assert_eq!(done["reason"], json!(null));
    // One that was killed is in nobody's way.
    service.signal("KILL");
    service.ended();
    let service = Service::start(place.path(), &[]);
    assert_eq!(service.get(&format!("/api/v1/jobs/{id}")).ok()["state"], "done");
}

#[test]
fn jobs_wait_for_each_other_and_can_be_cancelled_and_nothing_but_a_video_becomes_one() {
    let place = place();
    let clips = place.path().join("clips");
    std::fs::create_dir(&clips).unwrap();
    std::fs::copy(sample("sample.mp4"), clips.join("a.mp4")).unwrap();
    // A container with a valid beginning and no content.
    std::fs::write(clips.join("broken.mp4"), [&[0, 0, 0, 16][..], b"ftypisom", &[7; 999]].concat()).unwrap();
    std::fs::copy(sample("sample.mp4"), place.path().join("private.mp4")).unwrap();
    let config = format!("allow_inputs = [\"{}\"]\n[jobs]\nmost = 3\nupload_mib = 2\n", clips.display());
    std::fs::write(place.path().join("serve.toml"), config).unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let add = |input: &std::path::Path| service.post("/api/v1/jobs", &json!({"input": input}));
    for outside in ["private.mp4", "clips/../private.mp4", "clips/missing.mp4", "serve.toml"] {
        assert!(add(&place.path().join(outside)).refused(403).contains("allow_inputs"), "{outside}");
    }
    for playlist in ["#EXTM3U\nhttp://127.0.0.1/x.ts\n", "", "<?xml version=\"1.0\"?>", "RIFF    WEBP"] {
        assert!(
            upload(&service, "x.mp4", playlist.into()).refused(422).contains("not a supported video"),
            "{playlist}"
        );
    }
    let large = [video(), vec![0; 2 << 20]].concat();
    assert!(upload(&service, "x", large).refused(413).contains("larger than 2 MiB"));
    assert_eq!(service.get("/api/v1/jobs").ok(), json!({"jobs": []}));
    let jobs = place.path().join("sphereface-data/jobs");
    assert_eq!(std::fs::read_dir(&jobs).map_or(0, Iterator::count), 0, "nothing is left of what was refused");

    let folder = add(&clips).refused(400);
    assert_eq!(folder, format!("{} is a folder: give a video", clips.display()));

    let first = add(&clips.join("a.mp4")).ok()["id"].as_i64().unwrap();
    let second = add(&clips.join("broken.mp4")).ok()["id"].as_i64().unwrap();
    let third = upload(&service, "c", video()).ok()["id"].as_i64().unwrap();
    assert!(add(&clips.join("a.mp4")).refused(503).contains("3 jobs already"));
    wait(&service, first, "running");
    assert_eq!(service.get(&format!("/api/v1/jobs/{third}")).ok()["state"], "waiting");
    let cancel = |id: i64| service.request("POST", &format!("/api/v1/jobs/{id}/cancel")).send().ok();
    assert_eq!(cancel(third)["state"], "cancelled");
    assert_eq!(cancel(first)["state"], "cancelled");
    let failed = wait(&service, second, "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("broken.mp4"), "{reason}");
    assert_eq!(service.get(&format!("/api/v1/jobs/{first}")).ok()["results"], json!(null));
    for id in [first, second, third] {
        service.request("DELETE", &format!("/api/v1/jobs/{id}")).send().ok();
        service.request("DELETE", &format!("/api/v1/jobs/{id}")).send().refused(404);
    }
    assert_eq!(std::fs::read_dir(&jobs).unwrap().count(), 0);
    assert!(clips.join("a.mp4").exists(), "what was not uploaded stays");
}
