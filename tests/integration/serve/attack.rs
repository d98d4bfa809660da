//! The service as an attacker would use it.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::serve::client::{Answer, Service, place, sample, still};

const ANYWHERE: [&str; 2] = ["--listen", "0.0.0.0:0"];

fn token(service: &Service, role: &str) -> String {
    let start = format!("{role} token: ");
    let line = service.told.iter().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no token of a {role} in {:?}", service.told)).to_owned()
}

#[test]
fn where_others_can_reach_a_token_is_asked_for_and_each_does_what_it_may() {
    let place = place();
    let service = Service::start(place.path(), &ANYWHERE);
    let (reader, administrator) = (token(&service, "reader"), token(&service, "administrator"));
    let with = |method: &str, path: &str, token: &str| {
        service.request(method, path).header("Authorization", &format!("Bearer {token}"))
    };
    for path in [
        "/api/v1/people",
        "/api/v1/events",
        "/api/v1/events/stream",
        "/api/v1/events/1/picture",
        "/api/v1/sources",
        "/api/v1/wall",
        "/api/v1/events/ws",
        "/api/v1/doubts",
        "/api/v1/threshold",
        "/api/v1/threshold/plot.svg",
        "/api/v1/library",
        "/api/v1/library/people",
        "/api/v1/library/files?person=Ada",
        "/api/v1/library/pictures/a/1",
        "/api/v1/outputs",
        "/api/v1/jobs",
        "/api/v1/jobs/1/results/named.mp4",
        "/api/v1/strangers",
        "/api/v1/version",
        "/api/v1/people/Ada/stills/1.jpg",
        "/api/v1/nothing",
        "/metrics",
    ] {
        service.get(path).refused(401);
        assert_ne!(with("GET", path, &reader).open_status(), 401, "{path}");
    }
    for wrong in ["", "x", &reader[1..], &reader.to_uppercase(), "Bearer", "null"] {
        with("GET", "/api/v1/people", wrong).send().refused(401);
        service
            .request("GET", "/api/v1/people")
            .header("Cookie", &format!("sphereface={wrong}"))
            .send()
            .refused(401);
    }
    let name = json!({"name": "Eve"});
    for (method, path) in [
        ("PUT", "/api/v1/threshold"),
        ("DELETE", "/api/v1/threshold"),
        ("PATCH", "/api/v1/people/Ada"),
        ("DELETE", "/api/v1/people/Ada"),
        ("POST", "/api/v1/people/Eve/stills"),
        ("POST", "/api/v1/sources"),
        ("PATCH", "/api/v1/sources/door"),
        ("DELETE", "/api/v1/sources/door"),
        ("POST", "/api/v1/strangers/1/name"),
        ("DELETE", "/api/v1/strangers/1"),
        ("POST", "/api/v1/strangers/1/merge"),
        ("POST", "/api/v1/strangers/1/ignore"),
        ("DELETE", "/api/v1/people/Ada/stills/1.jpg"),
        ("POST", "/api/v1/people/Ada/rejected"),
        ("DELETE", "/api/v1/people/Ada/rejected/1.jpg"),
        ("POST", "/api/v1/events/1/confirm"),
        ("POST", "/api/v1/events/1/reject"),
        ("POST", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs/1/cancel"),
        ("DELETE", "/api/v1/jobs/1"),
        ("GET", "/api/v1/changes"),
    ] {
        service.request(method, path).json(&name).send().refused(401);
        with(method, path, &reader).json(&name).send().refused(403);
    }
    let picture = with("POST", "/api/v1/recognise", &reader).body("image/jpeg", still("Ada", 3)).send().ok();
    assert_eq!(picture["pictures"][0]["faces"][0]["who"]["name"], "Ada");
    with("PATCH", "/api/v1/people/Ada", &administrator).json(&name).send().ok();
    assert_eq!(
        with("GET", "/api/v1/changes", &administrator).send().ok()["changes"][0]["who"],
        "administrator"
    );
    // Pages contain no data, and state their policy.
    assert_eq!(service.get("/").status, 200);
    assert_eq!(service.get("/api/v1/session").ok(), json!({"role": null, "token_needed": true}));
    service.post("/api/v1/session", &json!({"token": "guess"})).refused(401);
    let logged_in = service.post("/api/v1/session", &json!({"token": reader}));
    assert_eq!(logged_in.ok()["role"], "reader");
    let cookie =
        logged_in.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    service.request("GET", "/api/v1/people").header("Cookie", pair).send().ok();
    service.request("DELETE", "/api/v1/people/Boris").header("Cookie", pair).send().refused(403);
    drop(service);

    // They are shown once, stored nowhere, and invalid once there are new ones.
    let service = Service::start(place.path(), &ANYWHERE);
    assert!(service.told.is_empty(), "{:?}", service.told);
    let get = |token: &str| {
        service.request("GET", "/api/v1/people").header("Authorization", &format!("Bearer {token}")).send()
    };
    get(&reader).ok();
    drop(service);
    for file in std::fs::read_dir(place.path().join("sphereface-data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(reader.len()).any(|window| window == reader.as_bytes()));
    }
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["serve", "--new-tokens"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let new = String::from_utf8(made.stdout).unwrap();
    let service = Service::start(place.path(), &ANYWHERE);
    let get = |token: &str| {
        service.request("GET", "/api/v1/people").header("Authorization", &format!("Bearer {token}")).send()
    };
    get(&reader).refused(401);
    get(new.lines().next().unwrap().strip_prefix("reader token: ").unwrap()).ok();
}

impl crate::serve::client::Request {
    /// The status alone, because a stream does not end.
    fn open_status(&self) -> u16 {
        let bytes = self.until(|bytes| bytes.len() > 12);
        String::from_utf8_lossy(&bytes[9..12]).parse().unwrap()
    }
}

#[test]
fn pages_of_other_sites_get_nothing_done() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let remove = || service.request("DELETE", "/api/v1/people/Ada");
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Host", "evil.example"),
        ("Host", "127.0.0.1.evil.example"),
        ("Host", ""),
    ] {
        remove().header(name, value).send().refused(403);
    }
    // Another site's name that resolves to this machine (DNS rebinding) cannot read anything either.
    for path in ["/api/v1/people", "/", "/metrics"] {
        service.request("GET", path).header("Host", "rebound.example").send().refused(403);
    }
    service.request("GET", "/api/v1/people").header("Sec-Fetch-Site", "cross-site").send().refused(403);
    let preflight =
        service.request("OPTIONS", "/api/v1/people/Ada").header("Origin", "http://evil.example").send();
    assert!(preflight.status >= 400 && !preflight.head.to_lowercase().contains("access-control-allow"));
    service.get("/api/v1/people/Ada").ok();
    remove().header("Origin", &format!("http://{}", service.address)).send().ok();

    let page = service.get("/");
    let head = page.head.to_lowercase();
    assert!(
        head.contains("content-security-policy: default-src 'self'")
            && head.contains("frame-ancestors 'none'")
    );
    assert!(
        head.contains("x-content-type-options: nosniff") && head.contains("referrer-policy: no-referrer")
    );
}

#[test]
fn no_path_leads_out_and_nothing_is_opened_on_a_clients_word() {
    let place = place();
    std::fs::write(place.path().join("secret.txt"), "secret").unwrap();
    std::fs::copy(sample("sample.mp4"), place.path().join("private.mp4")).unwrap();
    let service = Service::start(place.path(), &[]);
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/api/v1/people/Ada/stills/..%2f..%2fperson.json",
        "/api/v1/people/Ada/stills/..%2f..%2f..%2fsecret.txt",
        "/api/v1/people/..%2F..%2Fsecret.txt",
        "/api/v1/people/Ada/stills/person.json",
        "/api/v1/sources/..%2f..%2fsecret/picture",
    ] {
        let answer = service.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("BLAKE3"), "{path}");
    }
    let file = place.path().join("private.mp4");
    for input in [
        file.to_str().unwrap(),
        "/etc/passwd",
        "/dev/stdin",
        "rtsp://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "gst:filesrc location=/etc/passwd ! decodebin",
        "webcam:0",
        "file:///etc/passwd",
    ] {
        let sentence = service.post("/api/v1/sources", &json!({"name": "x", "input": input})).refused(403);
        assert!(sentence.contains("allow_inputs"), "the same whether it is there or not: {sentence}");
    }
    assert_eq!(service.get("/api/v1/sources").ok(), json!({"sources": []}));
    // Names and file names that could become paths.
    let ada = still("Chloé", 1);
    let path = "/api/v1/people/..%2F..%2Fescaped/stills";
    service.request("POST", path).files(&[("../../../out.jpg", &ada)]).send().ok();
    assert!(
        !place.path().join("escaped").exists() && !place.path().parent().unwrap().join("out.jpg").exists()
    );
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 4, "gallery, data, and the two files");
}

#[test]
fn a_path_that_is_no_text_is_refused_with_a_problem_by_every_route() {
    let place = place();
    let service = Service::start(place.path(), &[]);
    let described = service.get("/api/openapi.json").ok();
    let mut refused = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "%FF" } else { part });
        let broken = parts.collect::<Vec<_>>().join("/");
        for method in ["get", "post", "put", "patch", "delete"] {
            if broken != *path && item.get(method).is_some() {
                let sentence = service.request(&method.to_uppercase(), &broken).send().refused(400);
                assert!(sentence.contains("UTF-8"), "{method} {path}: {sentence}");
                refused += 1;
            }
        }
    }
    assert!(refused > 25, "{refused}");
    service.get("/api/v1/people/Ada").ok();
}

#[test]
fn too_much_is_refused_before_it_is_taken_in() {
    let place = place();
    let config = "[limits]\nbody_mib = 1\nmegapixels = 1\nrequests = 1\nstreams = 2\nfaces = 1\n";
    std::fs::write(place.path().join("serve.toml"), config).unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let recognise = |bytes: Vec<u8>| service.request("POST", "/api/v1/recognise").body("image/jpeg", bytes);
    assert_eq!(recognise(vec![0; 3 << 20]).send().status, 413);
    let files = service.request("POST", "/api/v1/recognise").files(&[("a", &vec![0; 3 << 20])]).send();
    assert_eq!(files.status, 413);
    let long = json!({"pictures": [{"base64": "A".repeat(3 << 20)}]});
    assert_eq!(service.post("/api/v1/detect", &long).status, 413);
    // A picture of few bytes and many pixels.
    let mut bomb = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(5_000, 5_000).write_to(&mut bomb, image::ImageFormat::Png).unwrap();
    let bomb = bomb.into_inner();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let sentence = recognise(bomb).send().refused(413);
    assert!(sentence.contains("5000x5000"), "{sentence}");

    // One at a time is answered, and the others are told to retry later.
    let probe = still("Ada", 3);
    let (done, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                let answer: Answer = recognise(probe.clone()).send();
                match answer.status {
                    200 => done.fetch_add(1, Ordering::SeqCst),
                    503 => {
                        assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{}", answer.head);
                        answer.refused(503);
                        busy.fetch_add(1, Ordering::SeqCst)
                    }
                    _ => panic!("{}", answer.head),
                };
            });
        }
    });
    let (done, busy) = (done.into_inner(), busy.into_inner());
    assert!(done >= 1 && busy >= 1 && done + busy == 24, "{done} {busy}");
    recognise(probe.clone()).send().ok();
    // Streams.
    let open: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = service.request("GET", "/api/v1/events/stream").open();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            stream
        })
        .collect();
    service.get("/api/v1/wall").refused(503);
    drop(open);
    // Data that is not HTTP does no harm.
    for junk in [
        &b"\0\0\0\0"[..],
        b"GET / HTTP/9\r\n\r\n",
        b"POST /api/v1/recognise HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(&service.address).unwrap();
        stream.write_all(junk).unwrap();
    }
    service.get("/api/v1/health").ok();
}

/// Whether the other side closes the connection within a time.
fn is_closed(stream: &mut std::net::TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut part = [0; 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn slow_and_too_frequent_clients_are_refused() {
    let place = place();
    std::fs::write(place.path().join("serve.toml"), "[limits]\nconnections = 8\nrequests_per_s = 5\n")
        .unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    let connect = |start: &[u8]| {
        let mut stream = std::net::TcpStream::connect(&service.address).unwrap();
        stream.write_all(start).unwrap();
        stream
    };
    // Heads that never end, and idle connections.
    let mut slow = connect(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: a");
    let mut silent = connect(b"");
    assert!(is_closed(&mut slow, Duration::from_secs(30)) && is_closed(&mut silent, Duration::from_secs(30)));
    let mut long = connect(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    let line = format!("X-Long: {}\r\n", "a".repeat(1000));
    while long.write_all(line.as_bytes()).is_ok() {}
    service.get("/api/v1/health").ok();
    // More connections than allowed. While the place of the client before is not free yet, only seven of the
    // eight are held, and the ninth is accepted.
    let ninth_is_refused = || {
        let held: Vec<_> = (0..8).map(|_| connect(b"")).collect();
        std::thread::sleep(Duration::from_millis(200));
        let refused = is_closed(&mut connect(b""), Duration::from_secs(5));
        drop(held);
        std::thread::sleep(Duration::from_millis(500));
        refused
    };
    assert!((0..3).any(|_| ninth_is_refused()), "the ninth");
    // More requests than allowed, counted per client.
    let answers: Vec<Answer> = (0..60).map(|_| service.get("/api/v1/health")).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!((15..50).contains(&refused.len()), "{}", refused.len());
    for answer in refused {
        assert!(answer.refused(429).contains("more than 5 requests per second"));
        assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{}", answer.head);
    }
    std::thread::sleep(Duration::from_secs(2));
    service.get("/api/v1/health").ok();
}

/// Runs a program; `None`, with a message, if it is not installed.
fn run(program: &str, arguments: &[&str], folder: &std::path::Path) -> Option<std::process::Output> {
    let output = std::process::Command::new(program).args(arguments).current_dir(folder).output();
    if let Err(error) = &output {
        eprintln!("skipped: {program}: {error}");
    }
    output.ok()
}

#[test]
fn connections_are_encrypted_where_there_is_a_certificate() {
    let place = place();
    let certify = |name: &str| {
        let (key, certificate) = (format!("{name}-key.pem"), format!("{name}.pem"));
        let made = run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
            place.path(),
        )?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(())
    };
    if certify("old").and(certify("new")).is_none() || run("curl", &["--version"], place.path()).is_none() {
        return;
    }
    let config = |certificate: &str, key: &str| {
        let text = format!("token = true\n[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
        std::fs::write(place.path().join("serve.toml"), text).unwrap();
    };
    for (certificate, key, reason) in [
        ("missing.pem", "old-key.pem", "missing.pem"),
        ("serve.toml", "old-key.pem", "no certificate"),
        ("old.pem", "old.pem", "old.pem"),
        ("old.pem", "new-key.pem", "cannot be used with that key"),
    ] {
        config(certificate, key);
        let output = run(env!("CARGO_BIN_EXE_sphereface"), &["serve", "serve.toml"], place.path()).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(reason), "{certificate} {key}: {told}");
    }
    config("old.pem", "old-key.pem");
    let service = Service::start(place.path(), &["serve.toml"]);
    let reader = token(&service, "reader");
    let address = format!("https://localhost:{}", service.address.rsplit_once(':').unwrap().1);
    let ask = |trusted: &str, path: &str, more: &[&str]| {
        let url = format!("{address}{path}");
        let mut arguments = vec!["-sS", "-i", "--max-time", "20", "--cacert", trusted, &url];
        arguments.extend(more);
        let output = run("curl", &arguments, place.path()).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let told = ask("old.pem", "/api/v1/people", &["-H", &format!("Authorization: Bearer {reader}")]);
    assert!(told.contains("200 OK") && told.contains("\"Ada\""), "{told}");
    let login = format!("{{\"token\": \"{reader}\"}}");
    let own = format!("Origin: {address}");
    let told = ask(
        "old.pem",
        "/api/v1/session",
        &["-H", "Content-Type: application/json", "-H", &own, "-d", &login],
    );
    assert!(told.contains("HttpOnly") && told.contains("Secure"), "{told}");
    assert!(ask("new.pem", "/api/v1/health", &[]).contains("certificate"), "another one");
    // A client without TLS gets no data.
    let mut plain = std::net::TcpStream::connect(&service.address).unwrap();
    plain.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"));
    let mut silent = std::net::TcpStream::connect(&service.address).unwrap();
    assert!(is_closed(&mut silent, Duration::from_secs(30)));
    // A new certificate is read without a restart; an invalid one is refused.
    config("old.pem", "new-key.pem");
    service.signal("HUP");
    assert!(ask("old.pem", "/api/v1/health", &[]).contains("200 OK"));
    config("new.pem", "new-key.pem");
    service.signal("HUP");
    let until = std::time::Instant::now() + crate::serve::client::LIMIT;
    while !ask("new.pem", "/api/v1/health", &[]).contains("200 OK") {
        assert!(std::time::Instant::now() < until, "the new certificate is not used");
        std::thread::sleep(Duration::from_millis(100));
    }
}
