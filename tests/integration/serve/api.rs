//! Requests about pictures and people.

use std::process::Command;

use base64::Engine;
use serde_json::{Value, json};

use crate::serve::client::{Service, place, still};

/// The names of the faces of every picture.
fn names(answer: &Value) -> Vec<Vec<Option<&str>>> {
    let faces = |picture: &'_ Value| picture["faces"].as_array().unwrap().len();
    let pictures = answer["pictures"].as_array().unwrap();
    let name = |at: usize, face: usize| answer["pictures"][at]["faces"][face]["who"]["name"].as_str();
    let all = pictures.iter().enumerate();
    all.map(|(at, picture)| (0..faces(picture)).map(|face| name(at, face)).collect()).collect()
}

#[test]
fn pictures_are_answered_in_each_form_they_may_have() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let (ada, chloe) = (still("Ada", 3), still("Chloé", 1));
    let raw = service.request("POST", "/api/v1/recognise").body("image/jpeg", ada.clone()).send().ok();
    assert_eq!(names(&raw), [[Some("Ada")]]);
    let face = &raw["pictures"][0]["faces"][0];
    assert!(face["who"]["angle_deg"].as_f64().unwrap() < raw["threshold_deg"].as_f64().unwrap());
    assert!(face["who"]["why"].as_str().unwrap().starts_with("nearest is Ada at "), "{face}");
    assert_eq!(face["landmarks"].as_array().unwrap().len(), 5);
    // curl --data-binary labels every body as a form.
    let form = "application/x-www-form-urlencoded";
    let as_form = service.request("POST", "/api/v1/recognise").body(form, ada.clone()).send().ok();
    assert_eq!(as_form, raw);
    let two =
        service.request("POST", "/api/v1/recognise").files(&[("a.jpg", &ada), ("c.jpg", &chloe)]).send().ok();
    assert_eq!(names(&two), [[Some("Ada")], [None]]);
    assert_eq!(
        (&two["pictures"][0]["name"], &two["pictures"][1]["name"]),
        (&json!("a.jpg"), &json!("c.jpg"))
    );
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let sent = json!({"pictures": [{"base64": base64(&ada)},
        {"name": "c", "base64": format!("data:image/jpeg;base64,{}", base64(&chloe))}]});
    let of_json = service.post("/api/v1/recognise", &sent).ok();
    assert_eq!(names(&of_json), names(&two));

    let found = service.request("POST", "/api/v1/detect").body("image/jpeg", ada.clone()).send().ok();
    assert_eq!(found["pictures"][0]["faces"][0]["box"], face["box"]);
    assert!(found["pictures"][0]["faces"][0]["who"].is_null());
    let embedded = service.request("POST", "/api/v1/embed").files(&[("a", &ada), ("c", &chloe)]).send().ok();
    for picture in embedded["pictures"].as_array().unwrap() {
        let values = picture["faces"][0]["embedding"].as_array().unwrap();
        let length: f64 = values.iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
        assert!(values.len() == 128 && (length - 1.0).abs() < 1e-3, "{} {length}", values.len());
    }
    let compare = |files: &[(&str, &[u8])], query: &str| {
        service.request("POST", &format!("/api/v1/compare{query}")).files(files).send()
    };
    let other = still("Ada", 1);
    let same = compare(&[("a", &ada), ("b", &other)], "").ok();
    // So near that the calibration has no rate, or a small one.
    let rate = same["false_match_rate"].as_f64();
    assert!(same["same"] == true && rate.is_none_or(|rate| rate < 1e-3), "{same}");
    assert_eq!(compare(&[("a", &ada), ("c", &chloe)], "").ok()["same"], false);
    assert_eq!(compare(&[("a", &ada), ("b", &other)], "?threshold_deg=1").ok()["same"], false);
    assert!(compare(&[("a", &ada)], "").refused(400).contains("the request has 1"));
}

#[test]
fn what_is_no_picture_is_refused_with_a_sentence_that_names_it() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let ada = still("Ada", 1);
    let recognise =
        |files: &[(&str, &[u8])]| service.request("POST", "/api/v1/recognise").files(files).send();
    let sentence = recognise(&[("a.jpg", &ada), ("b.jpg", b"no picture")]).refused(422);
    assert!(sentence.starts_with("b.jpg is not a readable image"), "{sentence}");
    let cut = recognise(&[("cut.jpg", &ada[..ada.len() / 2])]).refused(422);
    assert!(cut.contains("cut.jpg") && cut.contains("cut short"), "{cut}");
    assert!(recognise(&[]).refused(400).contains("no picture"));
    assert!(service.post("/api/v1/recognise", &json!({"pictures": []})).refused(400).contains("no picture"));
    let wrong = json!({"pictures": [{"name": "x", "base64": "***"}]});
    assert!(service.post("/api/v1/recognise", &wrong).refused(400).starts_with("x is not base64"));
    assert!(service.post("/api/v1/recognise", &json!({"picture": 1})).refused(400).contains("unknown field"));
    let all: Vec<(&str, &[u8])> = vec![("a", &ada); 17];
    assert!(recognise(&all).refused(400).contains("more than 16 pictures"));
    service.get("/api/v1/nothing").refused(404);
    service.request("PUT", "/api/v1/people").send().refused(405);
    service.get("/api/v1/events?limit=0").refused(400);
    service.get("/api/v1/events?colour=red").refused(400);
    service.get("/api/v1/events?since=yesterday").refused(400);
    service.get("/api/v1/events/x").refused(400);
    service.get("/api/v1/strangers/99").refused(404);
}

#[test]
fn photos_of_phones_are_read_or_refused_as_by_the_command_line() {
    let place = place();
    std::fs::write(place.path().join("serve.toml"), "[limits]\nmegapixels = 1\n").unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let at = |name: &str| place.path().join(name);
    std::fs::write(at("ada.jpg"), still("Ada", 3)).unwrap();
    let recognise = |name: &str| {
        let bytes = std::fs::read(at(name)).unwrap();
        service.request("POST", "/api/v1/recognise").files(&[(name, &bytes)]).send()
    };
    for (name, scale) in [("ada.avif", "scale=iw:ih"), ("large.avif", "scale=2000:-2")] {
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(at("ada.jpg"))
            .args(["-vf", scale, "-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1", "-crf", "20"])
            .args(["-f", "avif"])
            .arg(at(name))
            .status();
        assert!(made.unwrap().success());
    }
    let told = recognise("ada.avif");
    match told.status {
        200 => {
            let told = told.ok();
            assert_eq!(names(&told)[0][0], Some("Ada"));
        }
        // Where GStreamer has no decoder.
        _ => assert!(told.refused(422).contains("install gstreamer1.0-plugins-bad")),
    }
    let large = recognise("large.avif").refused(413);
    assert!(large.starts_with("large.avif has 2000x"), "{large}");
    let photo = std::fs::read(at("ada.avif")).unwrap();
    std::fs::write(at("cut.avif"), &photo[..photo.len() / 2]).unwrap();
    std::fs::write(at("empty.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    std::fs::write(at("photo.jxl"), b"\0\0\0\x0cJXL \r\n\x87\n and more").unwrap();
    for name in ["cut.avif", "empty.heic", "photo.jxl"] {
        let sentence = recognise(name).refused(422);
        let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .args(["compare", name, "ada.jpg"])
            .current_dir(place.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&sentence), "{name}: {sentence}\n{said}");
    }
}

#[test]
fn people_are_enrolled_shown_renamed_and_removed_and_requests_know_them_at_once() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let probe = still("Chloé", 3);
    let who = || {
        let answer =
            service.request("POST", "/api/v1/recognise").body("image/jpeg", probe.clone()).send().ok();
        names(&answer)[0][0].map(str::to_owned)
    };
    assert_eq!(who(), None);
    let path = "/api/v1/people/Chlo%C3%A9";
    service.get(path).refused(404);
    let (one, two) = (still("Chloé", 1), still("Chloé", 2));
    let enroll = |files: &[(&str, &[u8])], path: &str| {
        service.request("POST", &format!("{path}/stills")).files(files).send()
    };
    let enrolled = enroll(&[("../../one.jpg", &one), ("two.jpg", &two)], path).ok();
    assert_eq!((&enrolled["added"], &enrolled["person"]["name"]), (&json!(2), &json!("Chloé")));
    assert_eq!(who().as_deref(), Some("Chloé"));
    let again = enroll(&[("two.jpg", &two)], path).ok();
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(1)));
    assert!(
        enroll(&[("two.jpg", &two)], "/api/v1/people/Eve").refused(409).contains("already enrolled as Chloé")
    );
    assert!(enroll(&[("x.jpg", b"x")], path).refused(422).starts_with("x.jpg is not"));
    assert!(enroll(&[("two.jpg", &two)], "/api/v1/people/%20").refused(400).contains("it is empty"));
    assert_eq!(service.get("/api/v1/people").ok()["people"].as_array().unwrap().len(), 3);

    let still = service.get(path).ok()["stills"][0].clone();
    assert_eq!(service.get(still["picture"].as_str().unwrap()).body, one, "byte for byte");
    let renamed = service.request("PATCH", path).json(&json!({"name": "Zoë"})).send().ok();
    assert_eq!(renamed["name"], "Zoë");
    assert_eq!(who().as_deref(), Some("Zoë"));
    service.request("PATCH", path).json(&json!({"name": "Eve"})).send().refused(404);
    let path = "/api/v1/people/Zo%C3%AB";
    service.request("PATCH", path).json(&json!({"name": "Ada"})).send().refused(409);
    service.request("DELETE", path).send().ok();
    assert_eq!(who(), None);
    service.request("DELETE", path).send().refused(404);
    assert!(!place.path().join("gallery/Zoë").exists());
    let changes = service.get("/api/v1/changes").ok();
    let of = |at: usize, key: &str| changes["changes"][at][key].as_str().unwrap_or_default();
    assert_eq!([of(0, "what"), of(1, "what"), of(1, "about")], ["removed a person", "renamed", ""]);
    assert!(!changes.to_string().contains("Zoë"), "the record remembers nobody who is removed");
}

#[test]
fn the_service_says_how_it_is() {
    let place = tempfile::tempdir().unwrap();
    // Without a gallery, every person is a stranger.
    let service = Service::start(place.path(), &[]);
    assert_eq!(service.get("/api/v1/health").ok()["status"], "ok");
    assert_eq!(service.get("/api/v1/version").ok()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(service.get("/api/v1/people").ok(), json!({"people": []}));
    let ada = service.request("POST", "/api/v1/recognise").body("image/jpeg", still("Ada", 1)).send().ok();
    assert_eq!(names(&ada), [[None]]);
    let session = service.get("/api/v1/session").ok();
    assert_eq!(session, json!({"role": "administrator", "token_needed": false}));
    let metrics = service.get("/metrics");
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("# TYPE sphereface_requests_total counter\nsphereface_requests_total "), "{text}");
    let described = service.get("/api/openapi.json").ok();
    assert_eq!(described["info"]["title"], "sphereface");
    for (path, item) in described["paths"].as_object().unwrap() {
        // Every described GET route exists.
        if item.get("get").is_some()
            && !path.contains('{')
            && !path.ends_with("stream")
            && !path.ends_with("wall")
            && !path.ends_with("ws")
        {
            let status = service.get(path).status;
            match path.starts_with("/api/v1/library") {
                // There is no library, and some of its queries need a person.
                true => assert!([400, 404].contains(&status), "{path}: {status}"),
                false => assert_eq!(status, 200, "{path}"),
            }
        }
    }
}

#[test]
fn a_configuration_is_written_once_and_nonsense_ends_the_program_with_a_sentence() {
    let place = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .arg("serve")
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["--init"]).0, 0);
    let (code, again) = run(&["--init"]);
    assert!(code == 1 && again.contains("already exists"), "{again}");
    let service = Service::start(place.path(), &["serve.toml"]);
    assert_eq!(service.get("/api/v1/sources").ok(), json!({"sources": []}));
    let (code, taken) = run(&["--listen", &service.address]);
    assert!(code == 1 && taken.contains("cannot be listened on"), "{taken}");
    for (arguments, reason) in [
        (vec!["missing.toml"], "missing.toml cannot be read"),
        (vec!["--source", "a=ftp://x"], "the supported schemes are"),
        (vec!["--source", "a b=x.mp4"], "letters, digits"),
        (vec!["--source", "x.mp4"], "is not a source"),
        (vec!["--listen", "nowhere"], "invalid"),
        (vec!["--init", "x.toml", "--gallery", "g"], "cannot be used with"),
    ] {
        let (code, text) = run(&arguments);
        assert!(code > 0 && text.contains(reason), "{arguments:?}: {code} {text}");
    }
}
