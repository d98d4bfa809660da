//! Early ends of the real program: by Ctrl-C and SIGTERM, where the first signal leaves a complete file and
//! the second none; by an input that stops; and by a kill at any moment.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]
#![cfg(unix)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// Time limit for the program to end.
const SOON: Duration = Duration::from_secs(5);
/// A camera that would run for ever.
const CAMERA: &str = "gst:videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1";

/// Whether the tools that make and measure clips, and send signals, are installed; prints a message if not.
fn tools() -> bool {
    let there = ["ffmpeg", "ffprobe"].iter().all(|tool| Command::new(tool).arg("-version").output().is_ok());
    if !there {
        println!("skipped: ffmpeg and ffprobe are not installed");
    }
    there
}

/// A minute of pictures and sound, which takes longer to label than any test here waits for.
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

/// The output of the program and its exit status; it must end soon.
fn ended(child: Child) -> Output {
    ended_within(child, SOON)
}

fn ended_within(mut child: Child, limit: Duration) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > limit {
            child.kill().unwrap();
            panic!("still there after {limit:?}: {:?}", child.wait_with_output().unwrap());
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
            // Every frame was analysed before the first was written.
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
        // The previous file of that name still exists afterwards.
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

/// Time limit of the program for a short clip, without optimisation and beside other tests.
const A_WHILE: Duration = Duration::from_secs(120);

/// A few seconds of pictures and sound in a file of that name.
fn short_clip(folder: &Path, name: &str, seconds: u32) -> PathBuf {
    let path = folder.join(name);
    let pictures = format!("testsrc2=size=160x120:rate=25:duration={seconds}");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", &pictures, "-f", "lavfi", "-i"])
        .args([&format!("sine=duration={seconds}"), "-c:v", "libx264", "-preset", "ultrafast"])
        .args(["-pix_fmt", "yuv420p", "-c:a", "aac"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    path
}

/// Makes a FIFO that gives these bytes and then stays open without data, for as long as the test runs.
fn silent_fifo(path: &Path, bytes: Vec<u8>) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    // Opened for reading and writing, so that it exists before and after its reader.
    let mut fifo = File::options().read(true).write(true).open(path).unwrap();
    std::thread::spawn(move || {
        let _ = fifo.write_all(&bytes);
        std::thread::sleep(Duration::from_secs(3600));
    });
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn fifo_input_is_read_once_and_whole() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (clip, fifo) in [("a.ts", "fifo"), ("a.mkv", "fifo.mp4"), ("a.flv", "fifo.bin")] {
        let bytes = fs::read(short_clip(folder.path(), clip, 2)).unwrap();
        let (fifo, output) = (folder.path().join(fifo), folder.path().join("out.mp4"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let child = program(&["label", text(&fifo), "-o", text(&output)]).spawn().unwrap();
        // Fails if the program opens it, closes it and opens it again.
        let written = fs::write(&fifo, bytes);
        let done = ended_within(child, A_WHILE);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && written.is_ok(), "{clip}: {written:?} {said}");
        assert_eq!(played(&output).0, 50, "{clip}: {said}");
    }
}

#[test]
fn an_input_that_falls_silent_ends_with_code_3_and_complete_outputs() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.ts", "a.mkv"] {
        let bytes = fs::read(short_clip(folder.path(), name, 4)).unwrap();
        let part = bytes[..bytes.len() * 2 / 3].to_vec();
        for way in ["fifo", "-"] {
            let out = tempfile::tempdir().unwrap();
            let (output, list) = (out.path().join("out.mp4"), out.path().join("faces.jsonl"));
            let fifo = folder.path().join(format!("{name}.fifo"));
            let input = if way == "-" { "-" } else { text(&fifo) };
            let further = ["-o", text(&output), "--jsonl", text(&list), "--patience", "3"];
            let mut command = program(&[&["label", input][..], &further].concat());
            if way == "-" {
                command.stdin(Stdio::piped());
            } else {
                silent_fifo(&fifo, part.clone());
            }
            let mut child = command.spawn().unwrap();
            // Stays open until the program has ended.
            let mut pipe = child.stdin.take();
            if let Some(pipe) = &mut pipe {
                pipe.write_all(&part).unwrap();
            }
            let done = ended_within(child, A_WHILE);
            drop(pipe);
            let said = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(3), "{name} by {way}: {said}");
            assert!(said.contains("no data came for 3 s"), "{name} by {way}: {said}");
            assert!(said.contains("the outputs are complete up to there"), "{name} by {way}: {said}");
            assert_eq!(files(out.path()), [list, output.clone()], "{name} by {way}: exactly the outputs");
            let (frames, end_s, _) = played(&output);
            assert!((30..100).contains(&frames) && end_s < 4.0, "{name} by {way}: {frames} frames");
        }
    }
}

#[test]
fn patience_of_no_time_is_refused() {
    let refused = program(&["label", "x.mp4", "--patience", "0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--patience"));
}

#[test]
fn signals_end_a_fifo_as_they_end_a_file() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(short_clip(folder.path(), "clip.mkv", 60)).unwrap();
    for (number, signals) in [&["INT"][..], &["TERM"], &["INT", "TERM"]].into_iter().enumerate() {
        let (out, fifo) = (tempfile::tempdir().unwrap(), folder.path().join(format!("fifo{number}")));
        silent_fifo(&fifo, bytes[..bytes.len() / 3].to_vec());
        let child = label(text(&fifo), out.path(), "named.mkv");
        signals.iter().for_each(|name| signal(&child, name));
        let done = ended(child);
        let said = String::from_utf8_lossy(&done.stderr);
        if signals.len() == 1 {
            assert!(done.status.success(), "{signals:?}: {said}");
            assert!(said.contains("stopped before the end"), "{signals:?}: {said}");
            let output = out.path().join("named.mkv");
            assert_eq!(files(out.path()), [out.path().join("faces.jsonl"), output.clone()], "{said}");
            assert!(played(&output).0 > 0);
        } else {
            assert_eq!(done.status.code(), Some(1), "{signals:?}: {said}");
            assert_eq!(files(out.path()), [] as [PathBuf; 0], "{signals:?}: {said}");
        }
    }
}

/// Time for killing, of each of the tests below, and kills at least and at most.
const KILLING: (Duration, u32, u32) = (Duration::from_secs(20), 3, 40);

/// Runs `command` repeatedly and kills it at some moment of its run time; `prepare` is called before each
/// run, `check` after it.
fn kill_at_random(command: &dyn Fn() -> Command, mut prepare: impl FnMut(), mut check: impl FnMut(u32)) {
    let (limit, least, most) = KILLING;
    prepare();
    let began = Instant::now();
    let whole = command().output().unwrap();
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let (took, began) = (began.elapsed(), Instant::now());
    let mut rng = StdRng::seed_from_u64(9);
    let mut early = 0;
    for number in 0..most {
        if number >= least && began.elapsed() > limit {
            println!("killed {number} times, {early} of them before the end");
            return;
        }
        prepare();
        let mut child = command().spawn().unwrap();
        std::thread::sleep(took.mul_f64(rng.random_range(0.05..1.1)));
        early += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait_with_output().unwrap();
        check(number);
    }
    println!("killed {most} times, {early} of them before the end");
}

#[test]
fn killed_at_any_moment_label_leaves_what_was_there_or_all() {
    if !tools() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (at, out) = (|name: &str| folder.path().join(name), folder.path().join("out"));
    fs::create_dir(&out).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/sample.mp4");
    let cut = ["-v", "error", "-i", text(&sample), "-frames:v", "10", "-t", "1"];
    assert!(Command::new("ffmpeg").args(cut).arg(at("clip.mkv")).status().unwrap().success());
    let names = ["named.mp4", "faces.jsonl", "faces.csv", "seen.parquet"];
    let paths = names.map(|name| out.join(name));
    let [video, lists @ ..] = &paths;
    let clip = at("clip.mkv");
    let command = || {
        let further = ["--jsonl", text(&lists[0]), "--csv", text(&lists[1]), "--analysis", text(&lists[2])];
        program(&[&["label", text(&clip), "-o", text(video)][..], &further].concat())
    };
    let older = b"what was there".to_vec();
    let contents = || lists.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    // An equal run writes the same lists.
    assert!(command().output().unwrap().status.success());
    let whole = contents();
    kill_at_random(
        &command,
        || paths.iter().for_each(|path| fs::write(path, &older).unwrap()),
        |number| {
            for ((path, found), whole) in lists.iter().zip(contents()).zip(&whole) {
                assert!(found == older || found == *whole, "kill {number}: {} is cut", path.display());
            }
            if fs::read(video).unwrap() != older {
                assert_eq!(played(video).0, 10, "kill {number}: the video is cut");
            }
        },
    );
}

/// Names and numbers of stills of all people in a gallery, which must open.
fn enrolled(gallery: &Path) -> Vec<(String, usize)> {
    let listed = program(&["gallery", "list", "--json", "--gallery", text(gallery)]).output().unwrap();
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "{said}");
    let people: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let stills = |person: &Value| person["stills"].as_array().unwrap().len();
    let people = people.as_array().unwrap().iter();
    people.map(|person| (person["name"].as_str().unwrap().to_owned(), stills(person))).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment_enroll_leaves_a_gallery_that_opens_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    let (before, gallery) = (folder.path().join("before"), folder.path().join("gallery"));
    let ada = people.join("Ada");
    let first = program(&["enroll", "Ada", text(&ada), "--gallery", text(&before)]).output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let command = || program(&["enroll", "--dir", text(&people), "--gallery", text(&gallery)]);
    kill_at_random(
        &command,
        || {
            let _ = fs::remove_dir_all(&gallery);
            copy_folder(&before, &gallery);
        },
        |number| {
            let found = enrolled(&gallery);
            assert_eq!(found[0], ("Ada".to_owned(), 3), "kill {number}");
            assert!(found.iter().all(|(_, stills)| (1..=3).contains(stills)), "kill {number}: {found:?}");
            // Enrolled people are complete, and the next run continues.
            let again = command().output().unwrap();
            assert!(again.status.success(), "kill {number}: {}", String::from_utf8_lossy(&again.stderr));
            let all = ["Ada", "Boris", "Chlo\u{e9}"].map(|name| (name.to_owned(), 3));
            assert_eq!(enrolled(&gallery), all, "kill {number}");
        },
    );
}
