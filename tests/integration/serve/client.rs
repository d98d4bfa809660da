//! The running program, and a minimal HTTP client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time limit for operations that take seconds: test machines are busy.
pub const LIMIT: Duration = Duration::from_secs(300);

pub fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(path)
}

pub fn still(name: &str, number: u32) -> Vec<u8> {
    std::fs::read(sample(&format!("people/{name}/{number}.jpg"))).unwrap()
}

/// A gallery of Ada and Boris.
static GALLERY: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for name in ["Ada", "Boris"] {
        let stills = [1, 2].map(|number| sample(&format!("people/{name}/{number}.jpg")));
        let enrolled = Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .args(["enroll", name])
            .args(&stills)
            .arg("--gallery")
            .arg(folder.path().join("gallery"))
            .output()
            .unwrap();
        assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    }
    folder
});

/// A folder for one service, with Ada and Boris enrolled.
pub fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    copy(&GALLERY.path().join("gallery"), &place.path().join("gallery"));
    place
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A service that runs; killed when this is dropped.
pub struct Service {
    child: Child,
    pub address: String,
    /// Lines it printed before its address.
    pub told: Vec<String>,
}

impl Service {
    /// Starts it in a folder, with arguments in addition to a free port.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with variables of the environment.
    pub fn start_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch(folder, arguments, environment, Stdio::inherit())
    }

    /// The same with its log in a file.
    pub fn start_logged(folder: &Path, arguments: &[&str], log: &Path) -> Self {
        Self::launch(folder, arguments, &[], std::fs::File::create(log).unwrap().into())
    }

    fn launch(folder: &Path, arguments: &[&str], environment: &[(&str, &str)], log: Stdio) -> Self {
        let listen = if arguments.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"][..] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .arg("serve")
            .args(arguments)
            .args(listen)
            .envs(environment.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut told = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("http://").or(line.strip_prefix("https://")) {
                let address = address.trim_end_matches('/').replace("0.0.0.0", "127.0.0.1");
                return Self { child, address, told };
            }
            told.push(line);
        }
        panic!("it ended: {:?}", child.wait());
    }

    /// Number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }

    pub fn request(&self, method: &str, path: &str) -> Request {
        Request {
            address: self.address.clone(),
            head: format!("{method} {path} HTTP/1.1\r\n"),
            host: Some(self.address.clone()),
            body: Vec::new(),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send()
    }

    /// Asks until the answer is right.
    pub fn wait(&self, path: &str, right: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let answer = self.get(path).ok();
            if right(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{path} is still {answer:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for an event of a person.
    pub fn event(&self, kind: &str, who: &str) -> Value {
        let path = format!("/api/v1/events?kind={kind}&limit=1000");
        let found = |events: &Value| -> Option<Value> {
            let all = events["events"].as_array().unwrap();
            all.iter().find(|event| event["who"].as_str().unwrap().starts_with(who)).cloned()
        };
        found(&self.wait(&path, |events| found(events).is_some())).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Request {
    address: String,
    head: String,
    host: Option<String>,
    body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.host = Some(value.into());
            return self;
        }
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    pub fn body(self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self.header("Content-Type", kind) }
    }

    pub fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Files as a form sends them.
    pub fn files(self, files: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (name, bytes) in files {
            let head = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=";
            body.extend_from_slice(format!("{head}\"{name}\"\r\n\r\n").as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xyz--\r\n");
        self.body("multipart/form-data; boundary=xyz", body)
    }

    /// Sends it, with the connection still open.
    pub fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let host = self.host.as_ref().map(|host| format!("Host: {host}\r\n")).unwrap_or_default();
        let head =
            format!("{}{host}Connection: close\r\nContent-Length: {}\r\n\r\n", self.head, self.body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a request need not read it.
        let _ = stream.write_all(&self.body);
        stream
    }

    pub fn send(&self) -> Answer {
        let mut bytes = Vec::new();
        let read = self.open().read_to_end(&mut bytes);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            panic!("no answer: {read:?} {}", String::from_utf8_lossy(&bytes));
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = bytes[end + 4..].to_vec();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Answer { status, head, body: if chunked { dechunked(&body) } else { body } }
    }

    /// Reads a stream until it contains the wanted data.
    pub fn until(&self, right: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut stream = self.open();
        let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
        while !right(&bytes) {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..read]);
        }
        bytes
    }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap().trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

impl Answer {
    /// The JSON of a successful answer.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The sentence of a problem document.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{}\n{text}", self.head);
        assert!(self.head.contains("application/problem+json"), "{}\n{text}", self.head);
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        problem["detail"].as_str().unwrap().to_owned()
    }
}
