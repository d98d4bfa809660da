//! The pages, in a real browser where there is one.

use serde_json::json;

use crate::browser::Browser;
use crate::client::{Service, place, sample};

fn camera() -> String {
    format!("door={}", sample("sample.mp4").display())
}

#[test]
fn the_wall_is_live_and_strangers_are_named_in_two_steps() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    let service = Service::start(place.path(), &["--source", &camera(), "--repeat"]);
    let open = |browser: &mut Browser, path: &str| browser.open(&format!("http://{}{path}", service.address));
    open(&mut browser, "/");
    browser.wait("document.querySelector('.tile img')?.naturalWidth === 768");
    let first = browser.value("document.querySelector('.tile img').src");
    browser.wait(&format!("document.querySelector('.tile img').src !== {first}"));
    browser.wait("/[1-9]\\.\\d frames\\/s/.test(document.querySelector('.tile').textContent)");
    browser.wait("/ \\d+ ms|\\d+ ms/.test(document.querySelector('.tile').textContent)");
    browser.wait("document.querySelectorAll('#events li').length >= 3");
    // Pictures of events are there, and not only their places.
    browser.wait("document.querySelector('#events img').naturalWidth > 20");
    browser.picture("wall");
    for (width, scheme) in [(390, "light"), (1280, "dark")] {
        browser.look(width, 844, scheme);
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
        browser.picture(&format!("wall-{width}-{scheme}"));
    }

    // A stranger is named with the keyboard.
    service.wait("/api/v1/strangers", |all| !all["strangers"].as_array().unwrap().is_empty());
    open(&mut browser, "/strangers");
    browser.wait("document.querySelector('[data-stranger] img')?.naturalWidth > 20");
    let inside =
        "[...document.querySelectorAll('.card')].every((card) => card.scrollWidth <= card.clientWidth)";
    assert_eq!(browser.value(inside), true, "nothing sticks out of a card");
    browser.picture("strangers");
    // Something that was taken for a face for a moment has a card too, and cannot be enrolled.
    let all = "[...document.querySelectorAll('[data-stranger]')].map((card) => card.dataset.stranger)";
    let ids: Vec<String> = serde_json::from_value(browser.value(all)).unwrap();
    let note = "document.querySelector('#note').textContent";
    let mut named_now = |id: &&String| {
        browser.value(&format!("{note} = '', true"));
        browser.submit(&format!("[data-stranger='{id}'] input"), "Zoë <b>");
        browser.wait(&format!("{note} !== ''"));
        let done = browser.value(&format!("{note}.includes('is Zoë <b> now')")) == true;
        assert!(done || browser.value(&format!("{note}.includes('no face found')")) == true);
        done
    };
    let id = ids.iter().find(&mut named_now).expect("one of them has a face");
    let named = service.get("/api/v1/people/Zo%C3%AB%20%3Cb%3E").ok();
    assert_eq!(named["stills"].as_array().unwrap().len(), 1);
    assert_eq!(service.get(&format!("/api/v1/strangers/{id}")).status, 404);

    open(&mut browser, "/people");
    browser.wait("document.querySelectorAll('[data-person]').length === 3");
    browser.wait("[...document.querySelectorAll('.stills img')].every((one) => one.naturalWidth > 20)");
    browser.picture("people");
    // Deleting asks first.
    browser.value("confirm = () => false, true");
    browser.click("[data-person='Boris'] .danger");
    service.get("/api/v1/people/Boris").ok();
    browser.value("confirm = () => true, true");
    browser.click("[data-person='Boris'] .danger");
    browser.wait("!document.querySelector(\"[data-person='Boris']\")");
    service.get("/api/v1/people/Boris").refused(404);
    assert_eq!(service.get("/api/v1/events?person=Boris").ok()["events"], json!([]));

    open(&mut browser, "/events?kind=appeared");
    browser.wait("document.querySelectorAll('#events li').length > 0");
    browser
        .wait("[...document.querySelectorAll('#events li')].every((one) => one.dataset.kind === 'appeared')");
    browser.picture("events");
    browser.submit("#filter [name=person]", "Nobody at all");
    browser.wait("document.querySelector('#note').textContent === 'Nothing has happened.'");
    assert_eq!(browser.value("document.querySelectorAll('#events li').length"), 0);
}

#[test]
fn a_name_is_text_on_every_page_whatever_it_holds() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    let service = Service::start(place.path(), &["--source", &camera(), "--repeat"]);
    let evil = "<img src=x onerror=\"document.title='evil'\">&amp;'";
    service.request("PATCH", "/api/v1/people/Boris").json(&json!({"name": evil})).send().ok();
    service.event("recognised", evil);
    for path in ["/", "/people", "/events", "/strangers"] {
        browser.open(&format!("http://{}{path}", service.address));
        // The names to choose from count as well.
        browser.wait(&format!(
            "[...document.querySelectorAll('strong, h3, option')].some((one) => one.textContent === {0} || one.value === {0})",
            json!(evil)
        ));
        assert_eq!(browser.value("document.querySelectorAll('img[src=x]').length"), 0, "{path}");
        assert_ne!(browser.value("document.title"), "evil", "{path}");
    }
}

#[test]
fn whoever_has_no_token_is_asked_for_it() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    let service = Service::start(place.path(), &["--listen", "0.0.0.0:0"]);
    let reader = service.told.iter().find_map(|line| line.strip_prefix("reader token: ")).unwrap();
    browser.open(&format!("http://{}/people", service.address));
    browser.wait("location.pathname === '/login' && !!document.querySelector('#login button:enabled')");
    browser.picture("login");
    browser.submit("#login input", "guess");
    browser.wait("document.querySelector('#note').textContent.includes('not a valid token')");
    browser.submit("#login input", reader);
    browser.wait("location.pathname === '/'");
    browser.open(&format!("http://{}/people", service.address));
    browser.wait("document.querySelectorAll('[data-person]').length === 2");
    assert_eq!(browser.value("document.cookie"), "", "no script reads the token");
    browser.value("confirm = () => true, true");
    browser.click("[data-person='Ada'] .danger");
    browser.wait("document.querySelector('#note').textContent.includes('administrator')");
    browser.click("#leave");
    browser.wait("location.pathname === '/login'");
}
