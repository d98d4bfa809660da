//! A real headless browser, controlled over its own protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use crate::serve::client::LIMIT;

/// A browser with one page.
pub struct Browser {
    child: Child,
    socket: TcpStream,
    calls: u64,
    _profile: tempfile::TempDir,
}

/// Path of the browser.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts a browser; `None`, with a message, if there is none.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: there is no chromium");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--window-size=1280,900",
            ])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("DevTools listening on ws://").map(str::to_owned))
            .expect("the browser says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let host = address.split('/').next().unwrap();
        let socket = connect(host, &page(host));
        Some(Self { child, socket, calls: 0, _profile: profile })
    }

    /// Calls a method of the browser.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn answer(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        send(
            &mut self.socket,
            &json!({"id": self.calls, "method": method, "params": parameters}).to_string(),
        );
        loop {
            let answer: Value = serde_json::from_str(&receive(&mut self.socket)).unwrap();
            if answer["id"] == self.calls {
                return answer;
            }
        }
    }

    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        self.call("Runtime.evaluate", parameters)["result"]["value"].clone()
    }

    /// Waits until an expression of the page is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + LIMIT;
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        // The page may be left for another one while it is asked: there is no value then.
        while self.answer("Runtime.evaluate", parameters.clone())["result"]["result"]["value"] != true {
            if Instant::now() > until {
                panic!("never: {expression}\n{}", self.value("document.documentElement.outerHTML"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types into a field and submits its form.
    pub fn submit(&mut self, field: &str, text: &str) {
        let (field, text) = (json!(field), json!(text));
        self.value(&format!(
            "{{ const f = document.querySelector({field}); f.value = {text}; f.form.requestSubmit(); true }}"
        ));
    }

    /// Clicks on the middle of an element with the mouse.
    #[track_caller]
    pub fn click(&mut self, what: &str) {
        self.click_at(what, 0.5, 0.5);
    }

    /// Clicks on a point of an element, in fractions of its width and height, when it has stopped moving: what is
    /// above it may still be loading.
    #[track_caller]
    pub fn click_at(&mut self, what: &str, x: f64, y: f64) {
        let place = self.value(&format!(
            "(async () => {{ \
             const place = () => {{ \
               const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
               const b = e.getBoundingClientRect(); return [b.left + {x} * b.width, b.top + {y} * b.height]; }}; \
             let last = place(); \
             for (let same = 0, frames = 0; same < 3 && frames < 200; frames++) {{ \
               await new Promise(requestAnimationFrame); \
               const now = place(); same = String(now) === String(last) ? same + 1 : 0; last = now; }} \
             return last; }})()",
            json!(what)
        ));
        assert!(place.is_array(), "there is no {what}: {}", self.value("document.body.outerHTML"));
        for kind in ["mousePressed", "mouseReleased"] {
            let mouse =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", mouse);
        }
    }

    /// Chooses a file in a field for files.
    pub fn choose(&mut self, field: &str, file: &std::path::Path) {
        let root = self.call("DOM.getDocument", json!({}))["root"]["nodeId"].clone();
        let node =
            self.call("DOM.querySelector", json!({"nodeId": root, "selector": field}))["nodeId"].clone();
        self.call("DOM.setFileInputFiles", json!({"files": [file], "nodeId": node}));
    }

    /// A window of another size, light or dark.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Stores a picture of the page in the folder SPHEREFACE_SCREENSHOTS, if that is set.
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SPHEREFACE_SCREENSHOTS") else { return };
        let taken = self.call("Page.captureScreenshot", json!({}));
        let png = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of the page that is open.
fn page(host: &str) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET /json/list HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let head = head(&mut stream);
        let length = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap()];
        stream.read_exact(&mut body).unwrap();
        let pages: Value = serde_json::from_slice(&body).unwrap();
        let found = pages.as_array().unwrap().iter().find(|page| page["type"] == "page");
        if let Some(page) = found {
            let address = page["webSocketDebuggerUrl"].as_str().unwrap().strip_prefix("ws://").unwrap();
            return address[address.find('/').unwrap()..].to_owned();
        }
        assert!(Instant::now() < until, "{pages}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A WebSocket.
fn connect(host: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .unwrap();
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn send(socket: &mut TcpStream, text: &str) {
    let length = text.len();
    let mut frame = vec![0x81];
    match length {
        0..=125 => frame.push(0x80 | length as u8),
        126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    // A mask of zeros leaves the text unchanged.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    socket.write_all(&frame).unwrap();
}

fn receive(socket: &mut TcpStream) -> String {
    let mut message = Vec::new();
    loop {
        let mut head = [0; 2];
        socket.read_exact(&mut head).unwrap();
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                socket.read_exact(&mut length).unwrap();
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                socket.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        let mut part = vec![0; length as usize];
        socket.read_exact(&mut part).unwrap();
        if head[0] & 0x0f <= 2 {
            message.extend_from_slice(&part);
            if head[0] & 0x80 != 0 {
                return String::from_utf8(message).unwrap();
            }
        }
    }
}
