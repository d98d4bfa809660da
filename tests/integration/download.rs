//! `models get` and its download, from a server on this machine that simulates faults.
#![cfg(all(feature = "bundled-models", feature = "cli", feature = "download"))]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::place::shared_data;
use sha2::{Digest, Sha256};
use sphereface::download::{Download, DownloadError, Patience, Step};

/// The answer to a request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// The requested part, or the whole.
    Part,
    /// The whole file, like servers without support for ranges.
    Whole,
    /// The requested part, but the connection breaks after that many bytes.
    Break(usize),
    /// The requested part, with a wrong start in its header.
    WrongPart,
    /// Only a status.
    Status(u16),
    /// Half of the requested part, then nothing for a second.
    Silence,
    /// More bytes than the file has.
    Endless,
}

/// A server of one file that answers requests in order; the last answer is repeated.
struct Server {
    address: String,
    /// First byte requested, by request.
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn new(content: &[u8], answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file.espdl", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (content, answers, log) = (content.to_vec(), answers.to_vec(), Arc::clone(&asked));
        std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for (number, stream) in listener.incoming().enumerate() {
                    let Ok(stream) = stream else { return };
                    let answer = answers[number.min(answers.len() - 1)];
                    let (content, log) = (&content, &log);
                    // A client may close the connection.
                    scope.spawn(move || drop(serve(stream, content, answer, log)));
                }
            });
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    content: &[u8],
    answer: Answer,
    asked: &Mutex<Vec<usize>>,
) -> std::io::Result<()> {
    let mut from = 0;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    asked.lock().unwrap().push(from);
    let status = |stream: &mut TcpStream, line: &str, len: usize, more: &str| {
        write!(stream, "HTTP/1.1 {line}\r\nContent-Length: {len}\r\n{more}Connection: close\r\n\r\n")
    };
    let part = |stream: &mut TcpStream, told: usize| match from {
        0 => status(stream, "200 OK", content.len(), ""),
        _ => {
            let range = format!("Content-Range: bytes {told}-{}/{}\r\n", content.len() - 1, content.len());
            status(stream, "206 Partial Content", content.len() - from, &range)
        }
    };
    match answer {
        Answer::Status(code) => return status(&mut stream, &format!("{code} Told"), 0, ""),
        _ if from >= content.len() => return status(&mut stream, "416 Range Not Satisfiable", 0, ""),
        Answer::Whole => {
            status(&mut stream, "200 OK", content.len(), "")?;
            stream.write_all(content)?;
        }
        Answer::Part => {
            part(&mut stream, from)?;
            stream.write_all(&content[from..])?;
        }
        Answer::WrongPart => {
            part(&mut stream, from + 1)?;
            stream.write_all(&content[from..])?;
        }
        Answer::Break(bytes) => {
            part(&mut stream, from)?;
            stream.write_all(&content[from..(from + bytes).min(content.len())])?;
        }
        Answer::Silence => {
            part(&mut stream, from)?;
            stream.write_all(&content[from..from + (content.len() - from) / 2])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(1));
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(content)?;
            stream.write_all(content)?;
        }
    }
    stream.flush()
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A folder, the content, and its known properties.
struct Case {
    folder: tempfile::TempDir,
    content: Vec<u8>,
    patience: Patience,
}

impl Case {
    fn new() -> Self {
        let patience =
            Patience { silence: Duration::from_millis(300), retries: 2, pause: Duration::from_millis(1) };
        Self { folder: tempfile::tempdir().unwrap(), content: content(), patience }
    }

    fn partial(&self) -> PathBuf {
        self.folder.path().join("file.download")
    }

    /// Downloads the file, and returns the first byte of each connection.
    fn take(&self, server: &Server) -> Result<Vec<u64>, DownloadError> {
        let download = Download {
            address: &server.address,
            len: self.content.len() as u64,
            sha256: Sha256::digest(&self.content).into(),
            patience: self.patience,
        };
        let mut from = Vec::new();
        let mut arrived = 0;
        let taken = download.to(&self.partial(), &mut |step| match step {
            Step::From(byte) => from.push(byte),
            Step::Arrived(bytes) => arrived = bytes,
            Step::Again(reason) => assert!(!reason.is_empty()),
        });
        taken.map(|()| {
            assert_eq!(arrived, self.content.len() as u64);
            assert!(std::fs::read(self.partial()).unwrap() == self.content);
            from
        })
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(self.folder.path()).unwrap().next().is_none()
    }
}

#[test]
fn a_file_is_taken_whole() {
    let case = Case::new();
    let server = Server::new(&case.content, &[Answer::Part]);
    assert_eq!(case.take(&server).unwrap(), [0]);
    assert_eq!(server.asked(), [0]);
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    let case = Case::new();
    let server = Server::new(
        &case.content,
        &[Answer::Break(1000), Answer::Break(2000), Answer::Status(503), Answer::Silence, Answer::Part],
    );
    let from = case.take(&server).unwrap();
    assert_eq!(from, [0, 1000, 3000, 3000 + 297_000 / 2]);
    assert_eq!(server.asked(), [0, 1000, 3000, 3000, 3000 + 297_000 / 2]);
}

#[test]
fn a_later_call_goes_on_where_an_earlier_one_stopped() {
    let case = Case::new();
    let server = Server::new(&case.content, &[Answer::Break(120_000), Answer::Status(500)]);
    let error = case.take(&server).unwrap_err();
    let DownloadError::Broken { have: 120_000, len: 300_000, partial: Some(partial), .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*partial, case.partial());
    assert!(error.to_string().contains("120000 of 300000 bytes"), "{error}");
    assert_eq!(server.asked().len(), 4, "the one that brought something and three that did not");
    let server = Server::new(&case.content, &[Answer::Part]);
    assert_eq!(case.take(&server).unwrap(), [120_000]);
    // A complete file is only checked.
    let server = Server::new(&case.content, &[Answer::Status(500)]);
    let before = std::fs::read(case.partial()).unwrap();
    let download = Download {
        address: &server.address,
        len: 300_000,
        sha256: Sha256::digest(&case.content).into(),
        patience: case.patience,
    };
    download.to(&case.partial(), &mut |_| {}).unwrap();
    assert_eq!((server.asked().len(), std::fs::read(case.partial()).unwrap() == before), (0, true));
}

#[test]
fn a_server_without_ranges_starts_over() {
    let case = Case::new();
    let server = Server::new(&case.content, &[Answer::Break(5000), Answer::Whole]);
    assert_eq!(case.take(&server).unwrap(), [0, 0]);
    let case = Case::new();
    let server = Server::new(&case.content, &[Answer::Break(5000), Answer::WrongPart, Answer::Part]);
    assert_eq!(case.take(&server).unwrap(), [0, 0]);
}

#[test]
fn a_partial_file_of_something_else_is_taken_again() {
    let case = Case::new();
    for kept in [vec![1; 1000], vec![1; 300_000], vec![1; 300_001]] {
        std::fs::write(case.partial(), kept).unwrap();
        let server = Server::new(&case.content, &[Answer::Part]);
        assert_eq!(*case.take(&server).unwrap().last().unwrap(), 0);
    }
}

#[test]
fn other_content_is_refused_and_nothing_is_kept() {
    let case = Case::new();
    let mut other = case.content.clone();
    other[77] ^= 1;
    let error = case.take(&Server::new(&other, &[Answer::Part])).unwrap_err();
    assert!(matches!(error, DownloadError::Content { .. }), "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(case.is_empty());
    let error = case.take(&Server::new(&case.content, &[Answer::Endless])).unwrap_err();
    assert!(matches!(error, DownloadError::TooLong { len: 300_000, .. }), "{error}");
    assert!(case.is_empty());
    // A shorter file looks like a connection that breaks every time.
    let error = case.take(&Server::new(&case.content[..1000], &[Answer::Part])).unwrap_err();
    assert!(matches!(error, DownloadError::Broken { .. }), "{error}");
}

#[test]
fn what_the_server_refuses_is_not_asked_for_again() {
    let case = Case::new();
    for (code, words) in [(404, "404 (Not Found)"), (403, "403 (Forbidden)"), (410, "410 (Gone)")] {
        let server = Server::new(&case.content, &[Answer::Status(code)]);
        let error = case.take(&server).unwrap_err();
        assert!(matches!(error, DownloadError::Refused { status, .. } if status == code), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.asked().len(), 1);
        assert!(case.is_empty());
    }
}

#[test]
fn addresses_that_lead_nowhere_are_told_apart_from_bad_ones() {
    let case = Case::new();
    // The server no longer listens.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, is_bad) in
        [(format!("http://{gone}/x"), false), ("nonsense".into(), true), ("".into(), true)]
    {
        let download = Download { address: &address, len: 1, sha256: [0; 32], patience: case.patience };
        let error = download.to(&case.partial(), &mut |_| {}).unwrap_err();
        assert_eq!(matches!(error, DownloadError::Address { .. }), is_bad, "{address}: {error}");
        assert!(error.to_string().contains(&address), "{error}");
        assert!(case.is_empty(), "{address}");
    }
}

#[test]
fn two_downloads_to_one_place_do_not_mix() {
    let case = Case::new();
    let held = std::fs::File::create(case.partial()).unwrap();
    held.lock().unwrap();
    let server = Server::new(&case.content, &[Answer::Part]);
    let error = case.take(&server).unwrap_err();
    assert!(matches!(error, DownloadError::InUse(_)), "{error}");
    assert!(case.partial().exists() && server.asked().is_empty());
}

/// Runs the program without a proxy.
fn sphereface(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    let Output { status, stdout, stderr } =
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code().unwrap(), out, err)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn models_get_imports_what_it_takes_with_its_terms_and_calibration() {
    let Some(published) = shared_data("teacher-mbf/human_face_feat_mbf_s8_v1.espdl") else { return };
    let content = std::fs::read(published).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let server = Server::new(&content, &[Answer::Break(1_000_000), Answer::Part]);
    let (code, out, err) = sphereface(&["models", "get", "mbf", "--from", &server.address], at);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(server.asked(), [0, 1_000_000]);
    assert_eq!(names(at), ["mbf.safetensors"]);
    let terms = err.find("MIT, as Espressif Systems states it").expect(&err);
    assert!(terms < err.find("from http://127.0.0.1").expect(&err), "terms come first: {err}");
    assert!(err.contains("Copyright (c) 2021 Espressif") && err.contains("continued after 1000000"), "{err}");
    assert!(out.contains("6527e46fb1c46f00") && out.contains("deg at FMR 0.001"), "{out}");

    let (_, shown, _) = sphereface(&["models", "show", "mbf.safetensors"], at);
    assert!(shown.contains("MIT, as Espressif Systems states it") && shown.contains("FRMDB"), "{shown}");

    // An existing file is not downloaded again; --json describes it.
    let began = Instant::now();
    let (code, out, err) =
        sphereface(&["models", "get", "mbf", "--from", "http://127.0.0.1:9/none", "--json"], at);
    assert_eq!(code, 0, "{err}");
    let described: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(described["id"], "6527e46fb1c46f00");
    assert!(described["calibration"]["points"].is_array() && described["views"]["people"] == 20);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody was waited for");

    // Its threshold and its calibration by pose are used automatically.
    let ada = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people/Ada");
    let [first, second] = ["1.jpg", "2.jpg"].map(|name| ada.join(name).display().to_string());
    let (code, _, err) = sphereface(&["enroll", "Ada", &first], at);
    assert_eq!(code, 0, "{err}");
    let label = [
        "label",
        &second,
        "--no-video",
        "--gallery",
        "gallery",
        "--model",
        "mbf.safetensors",
        "--jsonl",
        "-",
    ];
    let (code, out, err) = sphereface(&label, at);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("named below 77.16 degrees") && err.contains("DevTrain"), "{err}");
    let face: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert!(face["name"] == "Ada" && face["handicap_deg"].as_f64().unwrap() > 0.0, "{face}");

    // A copy that is imported by hand is the same model with the same calibration.
    std::fs::write(at.join("copy.espdl"), &content).unwrap();
    let (code, out, err) = sphereface(&["models", "import", "copy.espdl", "copy.safetensors"], at);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("6527e46fb1c46f00") && out.contains("deg at FMR 0.001"), "{out}");
}

#[test]
fn models_get_leaves_nothing_behind_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let served = |content: &[u8], answers: &[Answer]| {
        let server = Server::new(content, answers);
        sphereface(&["models", "get", "mbf", "--retries", "0", "--from", &server.address], at)
    };
    let (code, _, err) = served(b"x", &[Answer::Status(404)]);
    assert!(code == 1 && err.contains("404 (Not Found)") && err.contains("--from"), "{err}");
    let (code, _, err) = served(&vec![0; 3_522_832], &[Answer::Part]);
    assert!(code == 1 && err.contains("SHA-256") && err.contains("models import"), "{err}");
    assert_eq!(names(at), [] as [&str; 0]);
    let (code, _, err) = served(&vec![0; 3_522_832], &[Answer::Break(9), Answer::Status(500)]);
    assert!(code == 1 && err.contains("9 of 3522832 bytes") && err.contains("repeat"), "{err}");
    assert_eq!(names(at), ["mbf.safetensors.download"], "what arrived is kept");

    for (arguments, words) in [
        (&["models", "get", "resnet"][..], "those are mbf"),
        (&["models", "get", "mbf", "--from", "nonsense"], "--from"),
        (&["models", "get", "mbf", "--patience", "0"], "--patience"),
        (&["models", "get", "mbf", "--retries", "101"], "--retries"),
    ] {
        let (code, _, err) = sphereface(arguments, at);
        assert!(code == 2 && err.contains(words), "{arguments:?}: {err}");
    }
    let (code, _, err) = sphereface(&["models", "get", "mbf", "none/mbf.safetensors"], at);
    assert!(code == 1 && err.contains("none/mbf.safetensors"), "{err}");
    let (_, listed, _) = sphereface(&["models", "list"], at);
    assert!(listed.contains("sphereface models get mbf"), "{listed}");
}
