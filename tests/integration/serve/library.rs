//! The library of a service, through the API and on its page.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::serve::browser::Browser;
use crate::serve::client::{Service, place, sample};

/// A name that would be markup, and would break an address.
const FILE: &str = "Zoë <b>&amp; co?#.mp4";

fn program(place: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(arguments)
        .current_dir(place)
        .env_remove("SPHEREFACE_DATABASE")
        .output()
        .unwrap();
    // One of the files is no video.
    let expected = if arguments.contains(&"work") { 1 } else { 0 };
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {error}");
}

/// A library of the sample and a still of Ada, analysed with the gallery.
fn library(place: &Path) {
    let files = place.join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::copy(sample("sample.mp4"), files.join(FILE)).unwrap();
    std::fs::copy(sample("people/Ada/3.jpg"), files.join("ada.jpg")).unwrap();
    std::fs::write(files.join("broken.mp4"), b"\0\0\0\x18ftypisom\0\0\0\0isomisom").unwrap();
    program(place, &["library", "add", "files", "--library", "lib"]);
    program(place, &["library", "work", "--library", "lib", "--gallery", "gallery"]);
}

fn list<'a>(answer: &'a Value, key: &str) -> &'a Vec<Value> {
    answer[key].as_array().unwrap()
}

#[test]
fn who_is_in_which_file_is_told_by_the_api_and_found_by_clicks() {
    let place = place();
    library(place.path());
    std::fs::write(place.path().join("serve.toml"), "[library]\npath = \"lib\"\n").unwrap();
    let mut service = Service::start(place.path(), &["serve.toml"]);
    let state = service.get("/api/v1/library").ok();
    assert_eq!((&state["videos"]["done"], &state["photos"]["done"]), (&json!(1), &json!(1)), "{state}");
    assert!((13.0..15.5).contains(&state["videos"]["duration_s"].as_f64().unwrap()), "{state}");
    let failed = list(&state, "failures");
    assert!(failed.len() == 1 && failed[0]["path"].as_str().unwrap().ends_with("/broken.mp4"), "{state}");
    let people = service.get("/api/v1/library/people").ok();
    let of = |name: &str| list(&people, "people").iter().find(|one| one["name"] == *name).unwrap().clone();
    assert_eq!(
        (&of("Ada")["videos"], &of("Ada")["photos"], &of("Boris")["photos"]),
        (&json!(1), &json!(1), &json!(0))
    );

    // As the command line says it.
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["library", "find", "Ada", "--json", "--library", "lib"])
        .current_dir(place.path())
        .env_remove("SPHEREFACE_DATABASE")
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = service.get("/api/v1/library/files?person=Ada").ok();
    assert_eq!(found["count"], 2);
    for (one, said) in list(&found, "files").iter().zip(said.as_array().unwrap()) {
        for key in ["paths", "content", "kind", "taken", "duration_s", "spans_s"] {
            assert_eq!(one[key], said[key], "{key}");
        }
        let (person, said) = (&one["people"][0], &said["people"][0]);
        for key in ["name", "stranger", "spans_s", "frames", "angle_deg"] {
            assert_eq!(person[key], said[key], "{key}");
        }
        let picture = service.get(person["picture"].as_str().unwrap());
        assert!(image::load_from_memory(&picture.body).unwrap().width() > 20);
    }
    let ask = |query: &str| service.get(&format!("/api/v1/library/files?{query}"));
    assert_eq!(ask("person=Ada&kind=photo").ok()["count"], 1);
    let both = ask("person=Ada&person=Boris").ok();
    let video = &list(&both, "files")[0];
    assert_eq!((&both["count"], list(video, "people").len()), (&json!(1), 2));
    assert!(video["paths"][0].as_str().unwrap().ends_with(FILE));
    assert_eq!(ask("person=Ada&before=1990-01-01").ok()["count"], 0);
    assert_eq!(list(&ask("person=Ada&limit=1&skip=1").ok(), "files").len(), 1);
    assert!(ask("person=Nobody").refused(404).contains("nobody in the library is named Nobody"));
    assert!(ask("").refused(400).contains("give person or stranger"));
    assert!(ask("person=Ada&after=today").refused(400).contains("2019-07-14"));
    service.get("/api/v1/library/pictures/nothing/1").refused(404);
    service.get("/api/v1/library/pictures/..%2f..%2fcatalogue.sqlite/1").refused(404);

    clicks(&service);
    service.signal("TERM");
    assert_eq!(service.ended(), Some(0));

    // Without a library, the page says so.
    let service = Service::start(place.path(), &[]);
    assert!(service.get("/api/v1/library").refused(404).contains("shows no library"));
    std::fs::write(place.path().join("serve.toml"), "[library]\npath = \"nothing\"\n").unwrap();
    let service_without = Service::start(place.path(), &["serve.toml", "--data", "other"]);
    let sentence = service_without.get("/api/v1/library/people").refused(404);
    assert!(
        sentence.contains("the configured library does not exist") && !sentence.contains("nothing"),
        "{sentence}"
    );
}

fn clicks(service: &Service) {
    let Some(mut browser) = Browser::start() else { return };
    let open = |browser: &mut Browser, path: &str| browser.open(&format!("http://{}{path}", service.address));
    open(&mut browser, "/");
    browser.wait("!!document.querySelector('nav a[href=\"/library\"]')");
    browser.click("nav a[href='/library']");
    browser.wait("document.querySelectorAll('[data-person]').length === 2");
    browser.wait("document.querySelector('#figures').textContent.includes('1 done (14 s), 1 failed')");
    browser.wait("document.querySelector('#failures').textContent.includes('broken.mp4')");
    browser.click("[data-person='Ada'] a");
    browser.wait("document.querySelectorAll('#files > li').length === 2");
    browser.wait("[...document.querySelectorAll('#files img')].every((one) => one.naturalWidth > 20)");
    let name = json!(FILE);
    browser.wait(&format!(
        "[...document.querySelectorAll('#files strong')].some((one) => one.textContent === {name})"
    ));
    assert_eq!(browser.value("document.querySelectorAll('#files b').length"), 0, "names are no markup");
    browser.wait("document.querySelectorAll('.bar rect').length > 0 && document.querySelectorAll('.times li').length > 0");
    browser.picture("library");
    // The query is in the address.
    browser.wait("location.search === '?person=Ada'");
    browser.value("document.querySelector('[name=other]').value = 'Boris', true");
    browser.value("document.querySelector('[name=kind]').value = 'video', true");
    browser.click("#find button");
    browser.wait("document.querySelector('#found').textContent === '1 file:'");
    browser.wait("document.querySelectorAll('#files figure').length === 2");
    browser.wait("location.search === '?person=Ada&person=Boris&kind=video'");
    browser.submit("[name=person]", "Nobody <i>");
    browser
        .wait("document.querySelector('#note').textContent === 'nobody in the library is named Nobody <i>'");
    open(&mut browser, "/library?person=Ada&person=Boris&kind=video");
    browser.wait("document.querySelectorAll('#files > li').length === 1");
    browser.look(390, 844, "dark");
    browser.wait("document.documentElement.scrollWidth <= innerWidth");
    browser.picture("library-390-dark");
}
