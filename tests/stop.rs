//! Ctrl-C and SIGTERM, sent to the real program while it labels: the first leaves a complete
//! file, the second leaves none, and both end it soon.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long the program may take to end.
const SOON: Duration = Duration::from_secs(5);
/// A camera that would go on for ever.
const CAMERA: &str = "gst:videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1";

/// Whether the tools that make and measure clips, and send signals, are here; says so when not.
fn tools() -> bool {
    let there = ["ffmpeg", "ffprobe"].iter().all(|tool| Command::new(tool).arg("-version").output().is_ok());
    if !there {
        println!("skipped: ffmpeg and ffprobe are not installed");
    }
    there
}

/// A minute of pictures and sound, which takes longer to label than any test here waits.
fn clip(folder: &Path) -> String {
    let path = folder.join("clip.mkv").to_str().unwrap().to_owned();
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=60"])
        .args(["-f", "lavfi", "-i", "sine=duration=60", "-c:v", "libx264", "-preset", "ultrafast"])
        .args(["-c:a", "aac", &path])
        .status()
        .unwrap();
    assert!(made.success());
    path
}

/// Files in the folder of the outputs, hidden ones included.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Starts labelling and waits until something is being written.
fn label(input: &str, folder: &Path, output: &str) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["label", input, "-o"])
        .arg(folder.join(output))
        .arg("--jsonl")
        .arg(folder.join("faces.jsonl"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let writing = || {
        let grown = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&format!(".{output}")) && path.metadata().is_ok_and(|file| file.len() > 4000)
        };
        files(folder).iter().any(grown)
    };
    while !writing() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
}

/// What the program said and how it ended, which it must soon.
fn ended(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > SOON {
            child.kill().unwrap();
            panic!("still there after {SOON:?}: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Number of frames that decode, and the ends of picture and sound in seconds.
fn played(path: &Path) -> (usize, f64, Option<f64>) {
    let times = |stream: &str, entry: &str| -> Vec<f64> {
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", stream, "-show_entries", entry, "-of", "csv=p=0"])
            .arg(path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", path.display());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|line| line.split(',').next()?.parse().ok()).collect()
    };
    let frames = times("v:0", "frame=pts_time");
    (frames.len(), *frames.last().unwrap(), times("a:0", "packet=pts_time").last().copied())
}

#[test]
fn the_first_signal_leaves_a_playable_file() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    for (name, input, output) in [
        ("INT", clip.as_str(), "named.mp4"),
        ("TERM", &clip, "named.mkv"),
        ("INT", &clip, "named.webm"),
        ("TERM", CAMERA, "camera.mp4"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let child = label(input, out.path(), output);
        signal(&child, name);
        let done = ended(child);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{output}: {said}");
        assert!(said.contains("stopped before the end"), "{output}: {said}");
        let expected = [out.path().join(output), out.path().join("faces.jsonl")];
        let mut found = files(out.path());
        found.sort_by_key(|path| path.ends_with("faces.jsonl"));
        assert_eq!(found, expected, "{output}: exactly the outputs");
        let (frames, end_s, sound_end_s) = played(&expected[0]);
        let told: usize = said
            .lines()
            .find(|line| line.contains(" frames in "))
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(frames, told, "{output}: as many frames as it says");
        assert!(frames > 0 && end_s < 59.0, "{output}: {frames} frames up to {end_s} s");
        if input != CAMERA {
            // Every frame was looked at before the first was written.
            assert!(said.contains("the lists cover all 1500 frames"), "{output}: {said}");
            let sound_end_s = sound_end_s.expect("there is sound");
            assert!(
                (sound_end_s - end_s).abs() < 0.3,
                "{output}: {end_s} s of pictures, {sound_end_s} s of sound"
            );
        }
    }
}

#[test]
fn the_second_signal_leaves_nothing() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    for (first, second, input, output) in
        [("INT", "TERM", clip.as_str(), "named.mp4"), ("TERM", "INT", &clip, "named.webm")]
    {
        let out = tempfile::tempdir().unwrap();
        // What had the name before is still there afterwards.
        fs::write(out.path().join(output), "an older file").unwrap();
        let child = label(input, out.path(), output);
        // Both at once: two of the same kind in quick succession reach a process as one.
        let both = format!("kill -{first} {0}; kill -{second} {0}", child.id());
        assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
        let done = ended(child);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{output}: {said}");
        assert!(said.contains("aborted"), "{output}: {said}");
        assert_eq!(files(out.path()), [out.path().join(output)], "{output}: {said}");
        assert_eq!(fs::read_to_string(out.path().join(output)).unwrap(), "an older file");
    }
}
