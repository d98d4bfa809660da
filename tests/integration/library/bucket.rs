//! Analyses in a bucket: a server with the parts of S3 that are used here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Place, command, json, media};

/// Objects by bucket and key.
type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket on this machine.
struct Bucket {
    objects: Objects,
    endpoint: String,
}

impl Bucket {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let objects = Objects::default();
        let served = Arc::clone(&objects);
        // The thread ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that disconnects does not affect the others.
                let _ = answer(stream, &served);
            }
        });
        Self { objects, endpoint }
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    /// Runs the program with the bucket in its environment; returns the exit code, standard output and
    /// standard error.
    fn run(&self, place: &Place, arguments: &[&str]) -> (i32, String, String) {
        let output = command(place.folder.path(), &place.arguments(arguments))
            .env("AWS_ENDPOINT", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "me")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    fn well(&self, place: &Place, arguments: &[&str]) -> String {
        let (code, told, error) = self.run(place, arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        told
    }
}

fn answer(mut stream: TcpStream, objects: &Objects) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let (mut length, mut signed) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        signed |= lower.starts_with("authorization: aws4-hmac-sha256 credential=me/");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.trim_start_matches('/').to_owned();
    let mut objects = objects.lock().unwrap();
    let (status, content) = match (method, query) {
        _ if !signed => ("403 Forbidden", Vec::new()),
        ("PUT", "") => {
            objects.insert(key, body);
            ("200 OK", Vec::new())
        }
        ("GET", "") => match objects.get(&key) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        },
        ("DELETE", "") => {
            objects.remove(&key);
            ("204 No Content", Vec::new())
        }
        // Several at once: the keys are in the body.
        ("POST", "delete" | "delete=") => {
            let body = String::from_utf8_lossy(&body).into_owned();
            let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let gone: String = keys
                .map(|name| {
                    objects.remove(&format!("{key}/{name}"));
                    format!("<Deleted><Key>{name}</Key></Deleted>")
                })
                .collect();
            ("200 OK", format!("<DeleteResult>{gone}</DeleteResult>").into_bytes())
        }
        _ => ("501 Not Implemented", Vec::new()),
    };
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"1\"\r\nlast-modified: Sun, 01 Nov 2026 00:00:00 GMT\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(&content)
}

#[test]
fn analyses_lie_in_a_bucket_and_nothing_but_it_is_needed() {
    let Some(media) = media() else { return };
    let (bucket, place) = (Bucket::start(), Place::new());
    let gallery = media.text("gallery");
    bucket.well(&place, &["add", &media.text("media"), "--analyses", "s3://faces/films"]);
    bucket.well(&place, &["work", "--gallery", &gallery, "--part", "2"]);
    let names = bucket.names();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(
        names.iter().all(|name| name.starts_with("faces/films/") && name.ends_with(".parquet")),
        "{names:?}"
    );
    assert_eq!(std::fs::read_dir(place.path("lib/analyses")).unwrap().count(), 0);
    // They are the same files as in a folder.
    let folder = Place::new();
    folder.run(&["add", &media.text("media")]);
    folder.run(&["work", "--gallery", &gallery, "--part", "2"]);
    let (listed, files) = folder.everything();
    let objects = bucket.objects.lock().unwrap().clone();
    for (name, bytes) in files {
        assert!(objects[&format!("faces/films/{name}")] == bytes, "{name}");
    }
    assert_eq!(bucket.well(&place, &["export", "-"]), listed);

    // Names follow the gallery by the objects.
    let own = place.path("own");
    assert!(std::process::Command::new("cp").args(["-r", &gallery, &own]).status().unwrap().success());
    super::run(place.folder.path(), &["gallery", "remove", "Ada", "--gallery", &own]);
    bucket.well(&place, &["work", "--gallery", &own]);
    let (code, _, error) = bucket.run(&place, &["find", "Ada"]);
    assert_eq!((code, error.trim()), (1, "sphereface: nobody in the library is named Ada"));
    bucket.well(&place, &["forget", "--files", &media.text("media/photos")]);
    assert_eq!(bucket.names().len(), 3);

    let (code, _, error) = bucket.run(&place, &["status", "--analyses", "s3://faces/photos"]);
    assert_eq!(code, 2);
    assert!(error.contains("keeps its analyses at s3://faces/films"), "{error}");
    for address in ["faces/films", "s3://", "http://faces"] {
        let (code, _, error) =
            bucket.run(&Place::new(), &["add", &media.text("media"), "--analyses", address]);
        assert_eq!(code, 2, "{address}");
        assert!(error.contains("write s3://BUCKET/FOLDER"), "{error}");
    }
    // Too late: the folder has them.
    let (code, _, error) = bucket.run(&folder, &["status", "--analyses", "s3://faces/films"]);
    assert_eq!(code, 2);
    assert!(error.contains("has analyses in its folder already"), "{error}");
    let status = json(&bucket.well(&place, &["status", "--json"]));
    assert_eq!(status["videos"]["done"], 3, "{status}");
}
