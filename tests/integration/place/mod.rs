//! A folder for one test, the bundled sample, and the program; and real inputs, where there are some.
#![allow(dead_code, reason = "every test file uses some of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A real input; `None`, with a message, if it is missing.
pub fn shared_data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SPHEREFACE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        eprintln!("skipped: no {} (set SPHEREFACE_DATA)", path.display());
        return None;
    }
    Some(path)
}

/// One of the people in all that [`Place::clip`] makes.
pub const KNOWN: &str = "Boris";

/// The other one.
pub const OTHER: &str = "Ada";

/// A folder for one test.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `None`, and a word about it, where ffmpeg is missing.
    pub fn new() -> Option<Self> {
        if Command::new("ffprobe").arg("-version").output().is_err() {
            eprintln!("skipped: ffmpeg is not installed");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file of the bundled sample.
    pub fn sample(&self, name: &str) -> String {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name).to_str().unwrap().to_owned()
    }

    /// One of the three stills of a person of the sample.
    pub fn still(&self, name: &str, number: u32) -> String {
        self.sample(&format!("people/{name}/{number}.jpg"))
    }

    /// Makes a file with ffmpeg.
    pub fn ffmpeg(&self, arguments: &[&str], name: &str) -> String {
        let path = self.path(name);
        let made =
            Command::new("ffmpeg").args(["-v", "error", "-y"]).args(arguments).arg(&path).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path
    }

    /// The output of ffprobe about the packets or streams of a file.
    pub fn probe(&self, video: &str, stream: &str, entries: &str, more: &[&str]) -> String {
        let probe = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "csv=p=0"])
            .args(more)
            .arg(video)
            .output()
            .unwrap();
        assert!(probe.status.success(), "{}", String::from_utf8_lossy(&probe.stderr));
        String::from_utf8(probe.stdout).unwrap()
    }

    /// Some frames of the sample, 768x432 and 25 per second, with sound. [`KNOWN`] and [`OTHER`] are in them, and from the
    /// 57th on Chloé, too. The first shot ends after 170 frames.
    pub fn clip(&self, frames: u32) -> String {
        self.clip_from(30, frames)
    }

    /// The same, from another frame on.
    pub fn clip_from(&self, first: u32, frames: u32) -> String {
        let [start, length] = [first, frames].map(|frames| (f64::from(frames) / 25.0).to_string());
        let (clip, frames) = (self.sample("sample.mp4"), frames.to_string());
        let part = ["-ss", &start, "-i", &clip, "-frames:v", &frames, "-t", &length, "-crf", "12"];
        self.ffmpeg(&part, "clip.mp4")
    }

    /// Names of everything in the folder, hidden files included.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A gallery of the three people of the sample.
    pub fn gallery(&self) -> String {
        let gallery = self.path("gallery");
        self.run(&["enroll", "--dir", &self.sample("people"), "--gallery", &gallery]);
        gallery
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the program in the folder; it must succeed. Returns standard output.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program; it must fail. Returns its exit code and standard error.
    pub fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?} went well");
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
    }
}
