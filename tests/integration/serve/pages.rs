//! The pages, in a real browser if there is one.

use serde_json::json;

use crate::serve::browser::Browser;
use crate::serve::client::{Service, place, sample};

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
    // Pictures of events have loaded.
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
    // A brief false detection has a card too, and cannot be enrolled.
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
        // Names from the list work as well.
        browser.wait(&format!(
            "[...document.querySelectorAll('strong, h3, option')].some((one) => one.textContent === {0} || one.value === {0})",
            json!(evil)
        ));
        assert_eq!(browser.value("document.querySelectorAll('img[src=x]').length"), 0, "{path}");
        assert_ne!(browser.value("document.title"), "evil", "{path}");
    }
}

#[test]
fn a_visitor_without_a_token_is_asked_for_it() {
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

#[test]
fn doubtful_names_strangers_and_stills_are_decided_about_by_clicks() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    // So wide that every face gets a name.
    let config = format!(
        "threshold_deg = 89.0\n[[source]]\nname = \"door\"\ninput = \"{}\"\nrepeat = true\n",
        sample("sample.mp4").display()
    );
    std::fs::write(place.path().join("serve.toml"), config).unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let open = |browser: &mut Browser, path: &str| browser.open(&format!("http://{}{path}", service.address));
    let note = |browser: &mut Browser, text: &str| {
        browser.wait(&format!("document.querySelector('#note').textContent.includes({})", json!(text)));
    };
    service.event("recognised", "Ada");
    service.event("recognised", "Boris");
    open(&mut browser, "/doubts?margin_deg=180");
    let card = |name: &str| {
        format!(
            "[...document.querySelectorAll('[data-event]')].find((one) => one.querySelector('h3').textContent === 'Is this {name}?')?.dataset.event"
        )
    };
    browser.wait(&format!("!!{} && !!{}", card("Ada"), card("Boris")));
    browser.wait("[...document.querySelectorAll('.pair img')].every((one) => one.naturalWidth > 20)");
    browser.picture("doubts");
    let (ada, boris) = (browser.value(&card("Ada")), browser.value(&card("Boris")));
    browser.click(&format!("[data-event={ada}] .yes"));
    note(&mut browser, "Confirmed: Ada.");
    browser.wait(&format!("!document.querySelector('[data-event={ada}]')"));
    assert_eq!(service.get(&format!("/api/v1/events/{}", ada.as_str().unwrap())).ok()["confirmed"], true);
    browser.click(&format!("[data-event={boris}] .no"));
    note(&mut browser, "this is not Boris");
    let event = service.get(&format!("/api/v1/events/{}", boris.as_str().unwrap())).ok();
    let stranger = event["stranger"].as_i64().unwrap();
    assert!(event["person"].is_null());

    open(&mut browser, "/people");
    browser.wait("document.querySelector(\"[data-person='Boris'] .rejected img\")?.naturalWidth > 20");
    browser.picture("people-rejected");
    browser.value("confirm = () => true, true");
    browser.click("[data-person='Boris'] .rejected button");
    note(&mut browser, "A counter-example of Boris is removed.");
    browser.wait("!document.querySelector(\"[data-person='Boris'] .rejected\")");
    browser.click("[data-person='Ada'] .stills button");
    note(&mut browser, "A still of Ada is removed.");
    let of = |name: &str, key: &str| {
        service.get(&format!("/api/v1/people/{name}")).ok()[key].as_array().unwrap().len()
    };
    assert_eq!((of("Boris", "rejected"), of("Ada", "stills")), (0, 1));

    open(&mut browser, "/strangers");
    let field = format!("[data-stranger='{stranger}']");
    browser.wait(&format!("!!document.querySelector(\"{field}\")"));
    browser.click(&format!("{field} .ignore"));
    note(&mut browser, "is ignored");
    browser.wait(&format!("!document.querySelector(\"{field}\")"));
    service.get(&format!("/api/v1/strangers/{stranger}")).refused(404);

    open(&mut browser, "/threshold");
    browser.wait("document.querySelector('#plot').naturalWidth > 100");
    browser.wait("document.querySelector('#figures').textContent.includes('89.0 degrees')");
    browser.submit("#look input", "5.0");
    browser.wait("/lost(\\d+) of \\1/.test(document.querySelector('#figures').textContent)");
    browser.wait("document.querySelector('#plot').src.endsWith('threshold_deg=5.0') && document.querySelector('#plot').naturalWidth > 100");
    browser.picture("threshold");
    browser.click("#set");
    note(&mut browser, "Faces are named below 5.0 degrees.");
    browser.wait("document.querySelector('#figures').textContent.includes('5.0 degrees, set here')");
    assert_eq!(service.get("/api/v1/threshold").ok()["in_force_deg"], 5.0);
    browser.picture("threshold-set");
    browser.click("#unset");
    note(&mut browser, "in force again: 89.0 degrees");
    browser.wait("document.querySelector('#unset').hidden && document.querySelector('#set').hidden");
    browser.look(390, 844, "dark");
    for path in ["/threshold", "/doubts?margin_deg=180", "/people", "/sources", "/videos"] {
        open(&mut browser, path);
        browser.wait("document.readyState === 'complete' && !!document.querySelector('h1')");
        browser.wait("document.documentElement.scrollWidth <= innerWidth");
    }
}

#[test]
fn a_region_is_drawn_by_clicks_and_counts_from_then_on() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    let service = Service::start(place.path(), &["--source", &camera(), "--repeat"]);
    service.event("appeared", "");
    browser.open(&format!("http://{}/sources", service.address));
    browser.wait("document.querySelector('.tile img')?.naturalWidth === 768");
    browser.click(".tile .ignore");
    for (x, y) in [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)] {
        browser.click_at(".tile .screen", x, y);
    }
    browser.wait("document.querySelector('polyline')?.points.length === 4");
    browser.picture("sources-drawing");
    browser.click(".tile .finish");
    browser.wait("document.querySelector('#note').textContent.includes('in force') && !!document.querySelector('polygon.ignore')");
    let source = service.get("/api/v1/sources/door").ok();
    let area = source["ignore"][0].as_array().unwrap();
    assert_eq!(area.len(), 4);
    for (corner, (x, y)) in area.iter().zip([(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]) {
        let off = (corner[0].as_f64().unwrap() - x).abs().max((corner[1].as_f64().unwrap() - y).abs());
        assert!(off < 0.02, "{corner} {x} {y}");
    }
    browser.wait("document.querySelector('.tile img')?.naturalWidth === 768");
    browser.picture("sources");
    let empty = service.wait("/api/v1/sources/door", |source| source["state"]["frames"].as_u64() > Some(10));
    assert_eq!(empty["state"]["faces"], json!([]));
    browser.click(".tile .clear");
    browser.wait("document.querySelector('#note').textContent.includes('no regions') && !document.querySelector('polygon')");
    assert_eq!(service.get("/api/v1/sources/door").ok()["ignore"], json!([]));
    browser.submit(".tile [name=fps]", "2.5");
    browser.wait("document.querySelector('#note').textContent.includes('door is changed')");
    assert_eq!(service.get("/api/v1/sources/door").ok()["fps"], 2.5);
}

#[test]
fn a_video_is_uploaded_watched_while_it_is_labelled_and_played() {
    let Some(mut browser) = Browser::start() else { return };
    let place = place();
    let service = Service::start(place.path(), &[]);
    let open = |browser: &mut Browser, path: &str| browser.open(&format!("http://{}{path}", service.address));
    open(&mut browser, "/videos");
    browser.wait("document.querySelector('#jobs').textContent.includes('No video')");
    let playlist = place.path().join("list.mp4");
    std::fs::write(&playlist, "#EXTM3U\nhttp://127.0.0.1/\n").unwrap();
    browser.choose("#upload input", &playlist);
    browser.click("#upload button");
    browser.wait("document.querySelector('#note').textContent.includes('not a supported video')");
    browser.choose("#upload input", &sample("sample.mp4"));
    browser.click("#upload button");
    browser.wait("document.querySelector('[data-job] progress')?.value > 0.05");
    browser.picture("videos-running");
    browser.wait("document.querySelector('[data-job]').dataset.state === 'done'");
    browser.wait("document.querySelector('[data-job]').textContent.includes('Seen: Boris, Ada')");
    browser.picture("videos");
    browser.click("[data-job] .buttons a");
    browser.wait("location.pathname.endsWith('/page.html') && document.body.textContent.includes('Ada')");
    browser.wait("document.querySelector('video')?.readyState >= 1 && document.querySelector('video').videoWidth === 768");
    browser.picture("videos-page");
    open(&mut browser, "/videos");
    browser.wait("!!document.querySelector('[data-job] .danger')");
    browser.click("[data-job] .danger");
    browser.wait("document.querySelector('#jobs').textContent.includes('No video')");
    assert_eq!(service.get("/api/v1/jobs").ok(), json!({"jobs": []}));
}
