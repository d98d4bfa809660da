//! A library of clips and photos made from the sample: workers, queries, changes and errors.
#![cfg(all(feature = "bundled-models", feature = "cli", feature = "library"))]

mod bucket;
mod care;
mod many;
mod one;
mod parts;
mod postgres;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for other processes: on a busy machine, three workers take two minutes for what takes ten
/// seconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(600);

/// Clips and photos that all tests share, and a gallery of two of the three people.
struct Media {
    folder: tempfile::TempDir,
}

static MEDIA: LazyLock<Option<Media>> = LazyLock::new(Media::make);

/// `None`, with a message, if ffmpeg is missing.
fn media() -> Option<&'static Media> {
    if MEDIA.is_none() {
        println!("skipped: ffmpeg is not installed");
    }
    MEDIA.as_ref()
}

impl Media {
    fn make() -> Option<Self> {
        Command::new("ffmpeg").arg("-version").output().ok()?;
        let media = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(media.path("media/photos")).unwrap();
        let sample = sample("sample.mp4");
        let sample = sample.to_str().unwrap();
        let make = |arguments: &[&str], name: &str| {
            let output = Command::new("ffmpeg")
                .args(["-v", "error", "-y"])
                .args(arguments)
                .args(["-threads", "1", "-an"])
                .arg(media.path(name))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        make(&["-ss", "6", "-t", "3", "-i", sample, "-crf", "18"], "media/a.mp4");
        make(&["-ss", "8", "-t", "3", "-i", sample, "-crf", "18"], "media/b.mkv");
        make(&["-ss", "2", "-t", "2", "-i", sample, "-crf", "18"], "media/c.mp4");
        make(&["-ss", "1", "-i", sample, "-frames:v", "1"], "media/photos/one.png");
        make(&["-ss", "6.5", "-i", sample, "-frames:v", "1"], "media/photos/three.png");
        for name in ["Ada", "Boris"] {
            let still = |number: u32| sample_path(&format!("people/{name}/{number}.jpg"));
            let gallery = media.path("gallery");
            let gallery = gallery.to_str().unwrap();
            run(media.folder.path(), &["enroll", name, &still(1), &still(2), "--gallery", gallery]);
        }
        Some(media)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn sample_path(name: &str) -> String {
    sample(name).to_str().unwrap().to_owned()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_remove("SPHEREFACE_DATABASE");
    command
}

fn output(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Runs the program; it must succeed. Returns standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = output(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program; it must fail. Returns the exit code and standard error.
fn fail(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = output(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} went well");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A library in its own folder: its path, and the arguments of every command line.
struct Place {
    folder: tempfile::TempDir,
    database: Option<String>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), database: None }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["library", "--library", "lib"];
        if let Some(database) = &self.database {
            all.extend(["--database", database]);
        }
        all.extend(arguments);
        all
    }

    fn run(&self, arguments: &[&str]) -> String {
        run(self.folder.path(), &self.arguments(arguments))
    }

    fn fail(&self, arguments: &[&str]) -> (i32, String) {
        fail(self.folder.path(), &self.arguments(arguments))
    }

    fn status(&self) -> Value {
        json(&self.run(&["status", "--json"]))
    }

    /// Starts a worker with one heartbeat per second.
    fn worker(&self, media: &Media) -> Worker {
        let gallery = media.text("gallery");
        let arguments = ["work", "--gallery", &gallery, "--heartbeat", "1", "--threads", "1", "--json"];
        let child = command(self.folder.path(), &self.arguments(&arguments))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Worker { child }
    }

    /// The export of the catalogue, and the analyses, as bytes.
    fn everything(&self) -> (String, Vec<(String, Vec<u8>)>) {
        let mut analyses: Vec<(String, Vec<u8>)> = std::fs::read_dir(self.folder.path().join("lib/analyses"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        analyses.sort();
        (self.run(&["export", "-"]), analyses)
    }
}

/// A worker, killed if the test fails.
pub struct Worker {
    child: Child,
}

impl Worker {
    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits for the end; returns whether it succeeded, standard output and standard error.
    fn wait(mut self) -> (bool, String, String) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the worker does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
        let read = |from: Option<&mut dyn std::io::Read>| {
            let mut text = String::new();
            from.unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let out = read(self.child.stdout.as_mut().map(|pipe| pipe as &mut dyn std::io::Read));
        let err = read(self.child.stderr.as_mut().map(|pipe| pipe as &mut dyn std::io::Read));
        (self.child.wait().unwrap().success(), out, err)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition is true.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come to pass");
        std::thread::sleep(Duration::from_millis(50));
    }
}
