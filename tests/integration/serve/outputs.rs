//! Outputs of events: webhooks, a broker, and pages over a WebSocket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use crate::serve::client::{LIMIT, Service, place, sample};

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Headers and body of each request, and its answer.
type Heard = Vec<(BTreeMap<String, String>, Vec<u8>, u16)>;

/// A server that receives events.
struct Hook {
    address: String,
    /// What it answers.
    status: Arc<AtomicU16>,
    heard: Arc<Mutex<Heard>>,
}

impl Hook {
    /// Answers with `status`, and with an address to go to instead.
    fn start(status: u16, location: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let status = Arc::new(AtomicU16::new(status));
        let heard = Arc::default();
        let hook = Self { address, status: Arc::clone(&status), heard: Arc::clone(&heard) };
        let location = location.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), status) = (stream, status.load(Ordering::SeqCst)) else { continue };
                answer(stream, status, &location, &heard);
            }
        });
        hook
    }

    fn heard(&self, accepted: bool) -> Vec<(BTreeMap<String, String>, Value)> {
        let heard = self.heard.lock().unwrap();
        let wanted = heard.iter().filter(|(_, _, status)| (*status == 200) == accepted);
        wanted.map(|(head, body, _)| (head.clone(), serde_json::from_slice(body).unwrap())).collect()
    }

    fn wait(&self, accepted: bool, count: usize) {
        let until = Instant::now() + LIMIT;
        while self.heard(accepted).len() < count {
            assert!(Instant::now() < until, "{} of {count}", self.heard(accepted).len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn answer(stream: TcpStream, status: u16, location: &str, heard: &Mutex<Heard>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => head.insert(name.to_ascii_lowercase(), value.to_owned()),
            None if line.trim_end().is_empty() => break,
            None => None,
        };
    }
    let mut body = vec![0; head["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    heard.lock().unwrap().push((head, body, status));
    let answer = format!(
        "HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let _ = (&stream).write_all(answer.as_bytes());
}

fn config(place: &Path, more: &str, watched: bool) {
    let source = format!(
        "[[source]]\nname = \"door\"\ninput = \"{}\"\nrepeat = true\nleft_after_s = 1.0\n",
        sample("sample.mp4").display()
    );
    let text = format!("{more}\n{}", if watched { source.as_str() } else { "" });
    std::fs::write(place.join("serve.toml"), text).unwrap();
}

fn webhook(address: &str) -> String {
    format!(
        "[[webhook]]\nname = \"home\"\nurl = \"http://{address}/events\"\nsecret = \"whsec_{SECRET}\"\npictures = true\n"
    )
}

#[test]
fn an_event_is_kept_until_a_webhook_accepts_it_over_failures_and_kill_9() {
    let hook = Hook::start(503, "");
    let place = place();
    config(place.path(), &webhook(&hook.address), true);
    let mut service = Service::start(place.path(), &["serve.toml"]);
    service.event("recognised", "Boris");
    hook.wait(false, 3);
    let outputs = service.get("/api/v1/outputs").ok();
    let state = &outputs["webhooks"][0];
    assert!(state["working"] == false && state["waiting"].as_u64() > Some(0), "{outputs}");
    assert!(state["error"].as_str().unwrap().contains("503"), "{outputs}");
    let refused = hook.heard(false);
    assert!(refused.iter().all(|(head, _)| head["webhook-id"] == refused[0].0["webhook-id"]), "in order");
    service.signal("KILL");
    service.ended();

    // There are no more viewers: later events were stored.
    hook.status.store(200, Ordering::SeqCst);
    config(place.path(), &webhook(&hook.address), false);
    let service = Service::start(place.path(), &["serve.toml"]);
    let events = service.get("/api/v1/events?limit=1000").ok()["events"].as_array().unwrap().clone();
    assert!(events.len() >= 2);
    service.wait("/api/v1/outputs", |outputs| outputs["webhooks"][0]["waiting"] == 0);
    let told = hook.heard(true);
    let numbers: Vec<i64> = told.iter().map(|(_, body)| body["data"]["id"].as_i64().unwrap()).collect();
    let all: Vec<i64> = events.iter().rev().map(|event| event["id"].as_i64().unwrap()).collect();
    assert_eq!(numbers, all, "all of them, once, in order");
    let key = base64::engine::general_purpose::STANDARD.decode(SECRET).unwrap();
    let heard = hook.heard.lock().unwrap();
    for (head, body, _) in heard.iter() {
        let told: Value = serde_json::from_slice(body).unwrap();
        let event = events.iter().find(|event| event["id"] == told["data"]["id"]).unwrap();
        assert_eq!((&told["type"], &told["data"]["who"]), (&event["kind"], &event["who"]));
        let picture = told["data"]["picture_base64"].as_str().unwrap();
        let picture = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
        assert!(image::load_from_memory(&picture).is_ok());
        let signed =
            [head["webhook-id"].as_bytes(), b".", head["webhook-timestamp"].as_bytes(), b".", body].concat();
        let signature = head["webhook-signature"].strip_prefix("v1,").unwrap();
        let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        ring::hmac::verify(&key, &signed, &signature).unwrap();
    }
    let log = service.get("/metrics");
    assert!(String::from_utf8(log.body).unwrap().contains("sphereface_webhook_waiting{webhook=\"home\"} 0"));
}

#[test]
fn a_redirect_is_not_followed_and_a_refusal_stops_no_other_event() {
    let other = Hook::start(200, "");
    let hook = Hook::start(302, &format!("http://{}/stolen", other.address));
    let place = place();
    config(place.path(), &webhook(&hook.address), true);
    let service = Service::start(place.path(), &["serve.toml"]);
    let outputs =
        service.wait("/api/v1/outputs", |outputs| outputs["webhooks"][0]["failed"].as_u64() > Some(1));
    let reason = outputs["webhooks"][0]["error"].as_str().unwrap();
    assert!(reason.contains("redirects are not followed"), "{reason}");
    let ids = || -> std::collections::BTreeSet<String> {
        hook.heard(false).iter().map(|(head, _)| head["webhook-id"].clone()).collect()
    };
    let until = Instant::now() + LIMIT;
    while ids().len() < 2 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(other.heard.lock().unwrap().is_empty());
}

/// A real broker, killed when this is dropped.
struct Broker {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

/// Path of the broker's program; `None`, with a message, if it is not installed.
fn mosquitto() -> Option<std::path::PathBuf> {
    let places = [
        "/usr/sbin/mosquitto",
        "/usr/bin/mosquitto",
        "/usr/local/sbin/mosquitto",
        "/opt/homebrew/sbin/mosquitto",
    ];
    let found = places.iter().map(std::path::PathBuf::from).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no mosquitto");
    }
    found
}

impl Broker {
    /// Starts on a port, with more settings for its listener.
    fn start(port: u16, folder: tempfile::TempDir, more: &str) -> Self {
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {0}/passwords\npersistence true\npersistence_location {0}/\n{more}",
            folder.path().display()
        );
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        let set = Command::new("mosquitto_passwd")
            .args(["-c", "-b"])
            .arg(folder.path().join("passwords"))
            .args(["sphereface", "pass word"])
            .status();
        assert!(set.unwrap().success());
        open_to_all(folder.path());
        let mut broker = Self { child: Self::run(folder.path()), port, folder };
        broker.answers();
        broker
    }

    fn run(folder: &Path) -> Child {
        Command::new(mosquitto().unwrap())
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn answers(&mut self) {
        let until = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none() && Instant::now() < until, "it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It is gone for a while.
    fn restart(&mut self, pause: Duration) {
        self.stop("TERM");
        std::thread::sleep(pause);
        self.start_again();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn stop(&mut self, signal: &str) {
        self.signal(signal);
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::run(self.folder.path());
        self.answers();
    }
}

/// As root, the broker drops its privileges and reads its files as another user.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that subscribes to everything on the broker.
struct Listener {
    kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Numbers of the events received, in order.
    events: Arc<Mutex<Vec<i64>>>,
    /// How often the broker has taken its subscription.
    subscribed: Arc<AtomicUsize>,
    client: rumqttc::Client,
}

impl Listener {
    fn start(port: u16, name: &str) -> Self {
        let mut options = rumqttc::MqttOptions::new(name, "127.0.0.1", port);
        options.set_credentials("sphereface", "pass word");
        options.set_max_packet_size(4 << 20, 4 << 20);
        // Messages are kept for it while it is not connected.
        options.set_clean_session(false);
        let (client, mut connection) = rumqttc::Client::new(options, 100);
        let kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let events: Arc<Mutex<Vec<i64>>> = Arc::default();
        let subscribed: Arc<AtomicUsize> = Arc::default();
        let (to, numbers, again) = (Arc::clone(&kept), Arc::clone(&events), client.clone());
        let taken = Arc::clone(&subscribed);
        std::thread::spawn(move || {
            for told in connection.iter() {
                match told {
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_))) => {
                        again.subscribe("#", rumqttc::QoS::AtLeastOnce).unwrap();
                    }
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(message))) => {
                        if message.topic.ends_with("/event") {
                            let event: Value = serde_json::from_slice(&message.payload).unwrap();
                            numbers.lock().unwrap().push(event["id"].as_i64().unwrap());
                        }
                        to.lock().unwrap().insert(message.topic, message.payload.into());
                    }
                    Ok(rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) => {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        Self { kept, events, subscribed, client }
    }

    /// Waits until it has subscribed more often than `before`: a broker that was killed may have forgotten
    /// it, and keeps nothing for unknown clients.
    fn wait_until_subscribed(&self, before: usize) {
        let until = Instant::now() + LIMIT;
        while self.subscribed.load(Ordering::SeqCst) <= before {
            assert!(Instant::now() < until, "the listener does not subscribe again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn text(&self, topic: &str) -> Option<String> {
        self.kept.lock().unwrap().get(topic).map(|payload| String::from_utf8_lossy(payload).into_owned())
    }

    #[track_caller]
    fn wait(&self, topic: &str, right: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LIMIT;
        loop {
            let text = self.text(topic).unwrap_or_default();
            if right(&text) {
                return text;
            }
            let topics: Vec<String> = self.kept.lock().unwrap().keys().cloned().collect();
            assert!(Instant::now() < until, "{topic} is {text:?}; there are {topics:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn forget(&self) {
        self.kept.lock().unwrap().clear();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}

#[test]
fn home_assistant_finds_sources_and_people_on_a_real_broker_that_comes_and_goes() {
    if mosquitto().is_none() {
        return;
    }
    let port = free_port();
    let mut broker = Broker::start(port, tempfile::tempdir().unwrap(), "");
    let listener = Listener::start(port, "listener");
    let place = place();
    let mqtt = format!("[mqtt]\nurl = \"mqtt://sphereface:pass%20word@127.0.0.1:{port}\"\npictures = true\n");
    config(place.path(), &mqtt, true);
    let mut service = Service::start(place.path(), &["serve.toml"]);
    listener.wait("sphereface/status", |text| text == "online");
    listener.wait("sphereface/source/door/running", |text| text == "ON");
    listener.wait("sphereface/person/Boris", |text| text == "door");
    listener.wait("sphereface/source/door/occupied", |text| text == "ON");
    listener.wait("sphereface/source/door/people", |text| text.contains("Boris"));
    let event = listener.wait("sphereface/source/door/event", |text| text.contains("recognised"));
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["event_type"], &event["source"]), (&json!("recognised"), &json!("door")));
    listener.wait("sphereface/source/door/picture", |text| !text.is_empty());
    assert!(
        image::load_from_memory(&listener.kept.lock().unwrap()["sphereface/source/door/picture"]).is_ok()
    );
    let entity = listener.wait("homeassistant/sensor/sphereface/person-Ada/config", |text| !text.is_empty());
    let entity: Value = serde_json::from_str(&entity).unwrap();
    assert_eq!(entity["state_topic"], "sphereface/person/Ada");
    assert_eq!(entity["availability_topic"], "sphereface/status");
    // Boris leaves when the second shot has begun.
    listener.wait("sphereface/person/Boris", |text| text == "not in sight");

    // The broker is gone for a while: events of that time are published, and states are current.
    broker.restart(Duration::from_secs(2));
    assert_eq!(service.get("/api/v1/health").ok()["status"], "ok", "cameras go on");
    listener.forget();
    listener.wait("sphereface/status", |text| text == "online");
    listener.wait("sphereface/source/door/event", |text| !text.is_empty());
    let outputs = service.wait("/api/v1/outputs", |outputs| outputs["mqtt"]["working"] == true);
    assert!(outputs["mqtt"]["failed"].as_u64() > Some(0), "{outputs}");

    // A removed person leaves nothing on the broker.
    service.request("DELETE", "/api/v1/people/Boris").send().ok();
    listener.wait("homeassistant/sensor/sphereface/person-Boris/config", str::is_empty);
    listener.wait("sphereface/person/Boris", str::is_empty);
    // Home Assistant has started: the discovery is published again.
    listener.forget();
    listener.client.publish("homeassistant/status", rumqttc::QoS::AtLeastOnce, false, "online").unwrap();
    listener.wait("homeassistant/sensor/sphereface/person-Ada/config", |text| text.contains("Ada"));

    // The service is killed: its last will says so.
    service.signal("KILL");
    service.ended();
    listener.wait("sphereface/status", |text| text == "offline");
    // A person who was removed while the service was down is removed from the broker at the next start.
    let removed = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["gallery", "remove", "Ada", "--gallery", "gallery"])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    let mut service = Service::start(place.path(), &["serve.toml"]);
    listener.wait("sphereface/status", |text| text == "online");
    listener.wait("homeassistant/sensor/sphereface/person-Ada/config", str::is_empty);
    listener.wait("sphereface/person/Ada", str::is_empty);
    let late = Listener::start(port, "late");
    late.wait("sphereface/source/door/running", |text| text == "ON");
    let told = late.kept.lock().unwrap().clone();
    assert!(!told.keys().any(|topic| topic.contains("Boris") || topic.contains("Ada")), "{:?}", told.keys());
    service.signal("TERM");
    assert_eq!(service.ended(), Some(0));
    listener.wait("sphereface/status", |text| text == "offline");
}

#[test]
fn no_event_is_lost_on_its_way_to_a_real_broker_though_both_die_meanwhile() {
    if mosquitto().is_none() {
        return;
    }
    let port = free_port();
    let mut broker = Broker::start(port, tempfile::tempdir().unwrap(), "");
    let listener = Listener::start(port, "listener");
    let place = place();
    let mqtt = format!("[mqtt]\nurl = \"mqtt://sphereface:pass%20word@127.0.0.1:{port}\"\npictures = true\n");
    config(place.path(), &mqtt, true);
    let mut service = Service::start(place.path(), &["serve.toml"]);
    listener.wait("sphereface/source/door/event", |text| text.contains("recognised"));
    let kept = |service: &Service| -> Vec<i64> {
        let events = service.get("/api/v1/events?limit=1000").ok();
        let ids = events["events"].as_array().unwrap().iter().map(|event| event["id"].as_i64().unwrap());
        let mut ids: Vec<i64> = ids.collect();
        ids.sort_unstable();
        ids
    };
    let more = |service: &Service, count: usize| {
        let until = Instant::now() + LIMIT;
        let before = kept(service).len();
        while kept(service).len() < before + count {
            assert!(Instant::now() < until, "there are no more events");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // The broker accepts messages, acknowledges none, and is then killed.
    broker.signal("STOP");
    more(&service, 2);
    let outputs = service.get("/api/v1/outputs").ok();
    assert!(outputs["mqtt"]["waiting"].as_u64() >= Some(2), "{outputs}");
    broker.stop("KILL");
    // There is no broker, and the service is killed, too.
    more(&service, 2);
    service.signal("KILL");
    service.ended();
    config(place.path(), &mqtt, false);
    let before = listener.subscribed.load(Ordering::SeqCst);
    broker.start_again();
    listener.wait_until_subscribed(before);
    let service = Service::start(place.path(), &["serve.toml"]);
    let outputs = service.wait("/api/v1/outputs", |outputs| {
        outputs["mqtt"]["working"] == true && outputs["mqtt"]["waiting"] == 0
    });
    assert!(outputs["mqtt"]["delivered"].as_u64() >= Some(4), "{outputs}");
    let all = kept(&service);
    assert!(all.len() >= 6);
    let until = Instant::now() + LIMIT;
    let lost = || -> Vec<i64> {
        let told = listener.events.lock().unwrap();
        all.iter().copied().filter(|id| !told.contains(id)).collect()
    };
    while !lost().is_empty() {
        assert!(Instant::now() < until, "{:?} of {all:?} were told to nobody", lost());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Each one again at most after a loss, and in order after it.
    let told = listener.events.lock().unwrap().clone();
    let mut steps = told.windows(2).filter(|pair| pair[1] <= pair[0]);
    assert!(steps.by_ref().count() <= 2, "{told:?}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_broker_is_spoken_to_over_tls_only_if_its_certificate_is_trusted() {
    if mosquitto().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let request = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n[dn]\nCN = localhost\n[v3]\n\
                   subjectAltName = DNS:localhost,IP:127.0.0.1\nbasicConstraints = CA:FALSE\n";
    std::fs::write(folder.path().join("request"), request).unwrap();
    for name in ["own", "other"] {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", "request"])
            .args(["-keyout", &format!("{name}-key.pem"), "-out", &format!("{name}.pem")])
            .current_dir(folder.path())
            .output();
        match made {
            Ok(made) => assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr)),
            Err(error) => return eprintln!("skipped: openssl: {error}"),
        }
    }
    let place = place();
    for name in ["own", "other"] {
        std::fs::copy(folder.path().join(format!("{name}.pem")), place.path().join(format!("{name}.pem")))
            .unwrap();
    }
    let at = folder.path().display().to_string();
    let port = free_port();
    let _broker = Broker::start(port, folder, &format!("certfile {at}/own.pem\nkeyfile {at}/own-key.pem\n"));
    for (ca, works) in [("own.pem", true), ("other.pem", false)] {
        let mqtt =
            format!("[mqtt]\nurl = \"mqtts://sphereface:pass%20word@localhost:{port}\"\nca = \"{ca}\"\n");
        config(place.path(), &mqtt, false);
        let service = Service::start(place.path(), &["serve.toml"]);
        let told = service.wait("/api/v1/outputs", |outputs| outputs["mqtt"]["working"].is_boolean());
        assert_eq!(told["mqtt"]["working"], works, "{ca}: {told}");
    }
}

/// Opens a WebSocket; the stream and the first line of the answer.
fn open_socket(service: &Service, path: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(&service.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n",
        service.address
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    (stream, head.lines().next().unwrap().to_owned())
}

/// The next text message of a WebSocket.
fn hear(stream: &mut TcpStream) -> Value {
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start).unwrap();
        let mut length = u64::from(start[1] & 0x7f);
        if length == 126 {
            let mut more = [0; 2];
            stream.read_exact(&mut more).unwrap();
            length = u16::from_be_bytes(more).into();
        }
        let mut text = vec![0; length as usize];
        stream.read_exact(&mut text).unwrap();
        if start[0] == 0x81 {
            return serde_json::from_slice(&text).unwrap();
        }
    }
}

#[test]
fn events_come_over_a_socket_but_to_no_page_of_another_site() {
    let place = place();
    config(place.path(), "[limits]\nstreams = 2\n", true);
    let service = Service::start(place.path(), &["serve.toml"]);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let (_, status) = open_socket(&service, "/api/v1/events/ws", &format!("Origin: {origin}\r\n"));
        assert!(status.contains("403"), "{origin}: {status}");
    }
    let own = format!("Origin: http://{}\r\n", service.address);
    let (mut live, status) = open_socket(&service, "/api/v1/events/ws", &own);
    assert!(status.contains("101"), "{status}");
    let first = hear(&mut live);
    service.event("recognised", "Boris");
    let (mut again, _) = open_socket(&service, "/api/v1/events/ws?after=0", "");
    let told: Vec<Value> = (0..3).map(|_| hear(&mut again)).collect();
    assert_eq!(told[0], first);
    let ids: Vec<i64> = told.iter().map(|event| event["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    // As many as allowed.
    let (_, status) = open_socket(&service, "/api/v1/events/ws", "");
    assert!(status.contains("503"), "{status}");
    drop((live, again));
    // Messages of a client are not read, and a long one ends the connection.
    let until = Instant::now() + LIMIT;
    let mut loud = loop {
        let (stream, status) = open_socket(&service, "/api/v1/events/ws", "");
        if status.contains("101") {
            break stream;
        }
        assert!(Instant::now() < until, "places become free: {status}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let speech = [&[0x81, 0x80 | 126, 0x27, 0x10, 0, 0, 0, 0][..], &[b'a'; 10_000]].concat();
    loud.write_all(&speech).unwrap();
    let mut rest = Vec::new();
    let _ = loud.read_to_end(&mut rest);
    assert!(Instant::now() < until, "it is still open");
    service.get("/api/v1/events/ws").refused(400);
}
