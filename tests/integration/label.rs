//! `sphereface label` through the real program, on real clips and on invalid files.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::fs;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::place::{OTHER, Place, shared_data};
use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
    command.arg("label").args(arguments).stdin(Stdio::null());
    command
}

fn label(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Labels, and prints the output of the program on failure.
fn labelled(arguments: &[&str]) -> String {
    let output = label(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// The output of ffprobe about the first stream of a kind (`v` or `a`), with every frame decoded.
fn stream(path: &str, kind: &str) -> Value {
    let entries = "stream=codec_name,width,height,nb_read_frames";
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", kind, "-show_entries", entries])
        .args(["-of", "json", path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{path}: {said}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["streams"][0].clone()
}

fn frames(path: &str) -> u64 {
    stream(path, "v")["nb_read_frames"].as_str().unwrap().parse().unwrap()
}

fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_clip_keeps_every_frame_and_its_sound_and_every_face_has_a_line() {
    let Some(place) = Place::new() else { return };
    let (clip, gallery, out, list) =
        (place.clip(40), place.gallery(), place.path("out.mp4"), place.path("out.jsonl"));
    let said = labelled(&[
        &clip,
        "-o",
        &out,
        "--gallery",
        &gallery,
        "--threshold",
        "66deg",
        "--jsonl",
        &list,
        "--stats",
    ]);
    for part in
        ["model sphereface (", "66.00 degrees", "3 people", "encoding with", "embed", "frames/s", "wrote"]
    {
        assert!(said.contains(part), "{part} is not in: {said}");
    }

    let (video, sound) = (stream(&out, "v"), stream(&out, "a"));
    assert_eq!((video["width"].as_u64(), video["height"].as_u64()), (Some(768), Some(432)));
    assert_eq!(frames(&out), 40);
    assert_eq!(sound, stream(&clip, "a"), "the sound is copied");

    let faces = lines(&list);
    assert!(faces.len() >= 40, "two people are in the picture: {}", faces.len());
    let mut last = (0, 0.0);
    let mut named = 0;
    for face in &faces {
        let at = (face["frame"].as_u64().unwrap(), face["pts_s"].as_f64().unwrap());
        assert!(at.0 < 40 && (at.0 == last.0 || (at.0 > last.0 && at.1 > last.1)), "{at:?} after {last:?}");
        last = at;
        assert_eq!(face["landmarks"].as_array().unwrap().len(), 5);
        assert!(face["quality"]["size_px"].as_f64().unwrap() > 10.0, "{face}");
        let angle = face["angle_deg"].as_f64().unwrap();
        assert_eq!(face["name"].is_string(), angle < 66.0, "{face}");
        assert!(face["runner_up_angle_deg"].as_f64().unwrap() >= angle, "{face}");
        assert_eq!(face["ambiguous"], false, "{face}");
        named += u64::from(face["name"].is_string());
    }
    assert!(said.contains(&format!("{} faces, {named} named", faces.len())), "{said}");

    // With a margin that wide, the two people count as equally near.
    place.run(&[
        "label",
        &clip,
        "--no-video",
        "--per-frame",
        "--gallery",
        &gallery,
        "--threshold",
        "66deg",
        "--margin",
        "90",
        "--jsonl",
        &list,
    ]);
    let left_open = lines(&list);
    assert_eq!(left_open.len(), faces.len());
    assert!(left_open.iter().any(|face| face["ambiguous"] == true));
    for face in &left_open {
        assert_eq!(face["name"], Value::Null, "{face}");
        assert_eq!(face["ambiguous"], face["angle_deg"].as_f64().unwrap() < 66.0, "{face}");
    }
    assert_eq!(place.files(), ["clip.mp4", "gallery", "out.jsonl", "out.mp4"]);
}

#[test]
fn the_result_is_the_same_for_any_number_of_threads() {
    let Some(place) = Place::new() else { return };
    let (clip, gallery) = (place.clip(24), place.gallery());
    let list = |threads: &str| {
        let list = place.path(&format!("{threads}.jsonl"));
        let flags =
            ["--no-video", "--gallery", &gallery, "--threshold", "66deg", "--threads", threads, "--mirror"];
        labelled(&[&[clip.as_str(), "--jsonl", &list], flags.as_slice()].concat());
        fs::read_to_string(list).unwrap()
    };
    let one = list("1");
    assert!(one.lines().count() >= 24);
    assert_eq!(one, list("2"));
    assert_eq!(one, list("5"));
}

#[test]
fn a_still_becomes_a_still_with_boxes() {
    let Some(place) = Place::new() else { return };
    let (still, out) = (place.still(OTHER, 1), place.path("out.png"));
    let output = label(&[&still, "-o", &out, "--jsonl", "-", "--quiet"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let faces: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(faces.len(), 1, "one face, and nothing else on standard output");
    assert!(faces[0]["name"].is_null() && faces[0]["angle_deg"].is_null(), "no gallery, no name");

    let (before, after) = (image::open(&still).unwrap().into_rgb8(), image::open(&out).unwrap().into_rgb8());
    assert_eq!(before.dimensions(), after.dimensions());
    let [x1, y1, ..] = [0, 1, 2, 3].map(|i| faces[0]["box"][i].as_f64().unwrap() as u32);
    let near = |x: u32, y: u32| x.abs_diff(x1) <= 4 && y.abs_diff(y1) <= 20;
    let changed =
        before.enumerate_pixels().filter(|(x, y, pixel)| near(*x, *y) && *pixel != after.get_pixel(*x, *y));
    assert!(changed.count() > 10, "the left edge of the box is drawn");
}

#[test]
fn frames_without_faces_pass_through() {
    let Some(place) = Place::new() else { return };
    let clip = place.ffmpeg(&["-f", "lavfi", "-i", "testsrc=size=160x90:rate=25:duration=1"], "bars.mkv");
    let (out, list) = (place.path("out.webm"), place.path("out.jsonl"));
    labelled(&[&clip, "-o", &out, "--jsonl", &list]);
    assert_eq!((frames(&out), lines(&list).len()), (25, 0));
    assert_eq!(stream(&out, "v")["codec_name"], "vp8");
}

#[test]
fn a_live_input_ends_with_every_frame_labelled_or_counted() {
    let Some(place) = Place::new() else { return };
    let camera =
        "gst:videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=320,height=240,framerate=30/1";
    let out = place.path("out.mkv");
    let said = labelled(&[camera, "-o", &out, "--threads", "1"]);
    let numbers = said.lines().find(|line| line.contains(" frames in ")).unwrap();
    let labelled: u64 = numbers.split(' ').next().unwrap().parse().unwrap();
    assert!((1..=20).contains(&labelled), "{said}");
    assert_eq!(frames(&out), labelled);
}

/// Fails with that exit code and one sentence that contains every `part`, and leaves no file.
#[track_caller]
fn refused(place: &Place, code: i32, arguments: &[&str], parts: &[&str]) {
    let before = place.files();
    let output = label(&[arguments, &["--quiet"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let complaint: Vec<_> = said.lines().collect();
    assert!(complaint.len() == 1 && said.starts_with("sphereface: "), "one sentence: {said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is not in: {said}"));
    assert!(output.stdout.is_empty());
    assert_eq!(place.files(), before, "{arguments:?} leaves something behind");
}

#[test]
fn bad_inputs_and_outputs_fail_with_their_cause_and_leave_nothing() {
    let Some(place) = Place::new() else { return };
    let clip = place.clip(10);
    let (out, list) = (place.path("out.mp4"), place.path("out.jsonl"));
    let written = |name: &str, bytes: &[u8]| {
        fs::write(place.path(name), bytes).unwrap();
        place.path(name)
    };
    let bytes = fs::read(&clip).unwrap();
    let inputs = [
        (place.path("missing.mp4"), "does not exist"),
        (written("zero.mp4", b""), "empty"),
        (written("text.mp4", b"This is no video, whatever its name says.\n"), "cannot be decoded"),
        (written("cut.mp4", &bytes[..bytes.len() / 2]), "cut.mp4"),
        (place.ffmpeg(&["-f", "lavfi", "-i", "sine=duration=1"], "sound.m4a"), "no video stream"),
        (written("text.jpg", b"no image"), "not a readable image"),
        (place.path(""), "folder"),
    ];
    for (input, cause) in &inputs {
        let out = if input.ends_with("jpg") { place.path("out.jpg") } else { out.clone() };
        refused(&place, 1, &[input, "-o", &out, "--jsonl", &list], &[input, cause]);
    }
    for (out, cause) in
        [(place.path("none/out.mp4"), "does not exist"), (format!("{clip}/out.mp4"), "does not exist")]
    {
        refused(&place, 1, &[&clip, "-o", &out, "--jsonl", &list], &[&out, cause]);
    }
    refused(&place, 1, &[&clip, "--jsonl", &place.path("none/out.jsonl")], &["none/out.jsonl"]);
    // The failure is before the analysis of the video: there is no analysis file either.
    let analysis = place.path("out.parquet");
    let encoder = [&clip, "-o", &out, "--analysis", &analysis, "--encoder", "nosuchenc"];
    refused(&place, 1, &encoder, &["no H.264 encoder works", "nosuchenc: not installed"]);
}

#[test]
fn bad_galleries_and_models_fail_with_their_cause() {
    let Some(place) = Place::new() else { return };
    let (clip, out, gallery) = (place.clip(10), place.path("out.mp4"), place.gallery());
    let (missing, empty) = (place.path("missing"), place.path("empty"));
    fs::create_dir(&empty).unwrap();
    refused(
        &place,
        1,
        &[&clip, "-o", &out, "--gallery", &missing, "--threshold", "60"],
        &[&missing, "no gallery"],
    );
    refused(
        &place,
        1,
        &[&clip, "-o", &out, "--gallery", &empty, "--threshold", "60"],
        &[&empty, "nobody is enrolled"],
    );

    let (cut, text) = (place.path("cut.safetensors"), place.path("text.safetensors"));
    let whole = sphereface::models::SPHEREFACE.weights().unwrap();
    whole.save(Path::new(&cut), sphereface::models::Precision::F16).unwrap();
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(&text, "no weights").unwrap();
    for model in [cut, text, place.path("none.safetensors")] {
        let flags = [&clip, "-o", &out, "--gallery", &gallery, "--threshold", "60", "--model", &model];
        refused(&place, 1, &flags, &[&model]);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let Some(place) = Place::new() else { return };
    let (clip, out) = (place.clip(10), place.path("out.mp4"));
    let still = place.still(OTHER, 1);
    let refusals: [(&[&str], &str); 12] = [
        (&[&clip], "nothing to do"),
        (&[&clip, "-o", &clip], "also the input"),
        (&[&clip, "--jsonl", &clip], "also the input"),
        (&[&clip, "-o", &out, "--jsonl", &out], "choose another file"),
        (&[&clip, "-o", &place.path("out.avi")], "out.avi"),
        (&[&clip, "-o", &place.path("out.webm"), "--codec", "h264"], "cannot hold"),
        (&[&clip, "-o", &out, "--factor", "1.5"], "factor"),
        (&[&clip, "-o", &out, "--scores", "0.6,1.7,0.7"], "R-Net"),
        (&[&clip, "-o", &out, "--threshold", "60"], "--gallery"),
        (&["ftp://host/clip.mp4", "-o", &out], "ftp"),
        (&[&still, "--view"], "still"),
        (&[&still, "-o", &out], "still"),
    ];
    for (arguments, reason) in refusals {
        refused(&place, 2, arguments, &[reason]);
    }
    // Errors of the command line parser.
    let values: [&[&str]; 8] = [
        &["--min-face", "5"],
        &["--scores", "0.6"],
        &["--threshold", "200deg"],
        &["--threshold", "60", "--fmr", "1e-3"],
        &["--fmr", "2"],
        &["--threads", "0"],
        &["--style", "width=x"],
        &["--no-video"],
    ];
    for value in values {
        let output = label(&[&[clip.as_str(), "-o", &out], value].concat());
        assert_eq!(output.status.code(), Some(2), "{value:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(value[0]), "{value:?}");
    }
}

fn sphereface(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The counts of `eval video` for the easy faces and for the difficult ones.
fn scores(truth: &str, faces: &str) -> impl Fn(&str, &str) -> u64 + use<> {
    let output = sphereface(&["eval", "video", truth, faces, "--json"]);
    let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
    move |kind, key| scores[0][kind][key].as_u64().unwrap_or_else(|| panic!("{kind}.{key} in {scores}"))
}

#[test]
fn the_bundled_sample_is_named_and_its_stranger_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (gallery, faces) = (path("gallery"), path("faces.jsonl"));
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let sample = |name: &str| samples.join(name).to_str().unwrap().to_owned();
    sphereface(&["enroll", "--dir", &sample("people"), "--gallery", &gallery]);
    let clip = sample("sample.mp4");
    let output = sphereface(&["label", &clip, "--no-video", "--gallery", &gallery, "--jsonl", &faces]);
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["false match rate", "Ada", "Boris", "Chlo\u{e9}"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let count = scores(&sample("sample.json"), &faces);
    let known = count("easy", "known");
    assert!(count("easy", "known_detected") * 100 >= known * 99, "clear faces are found");
    assert!(count("easy", "identified") * 100 >= known * 99, "and named");
    assert!(count("easy", "strangers_detected") > 50);
    for kind in ["easy", "difficult"] {
        assert_eq!(count(kind, "misnamed") + count(kind, "strangers_named"), 0, "nobody is misnamed");
    }
}

#[test]
fn the_real_clip_has_every_face_found_and_no_stranger_named() {
    let Some(interview) = shared_data("video/hamilton") else { return };
    let interview = |name: &str| interview.join(name).to_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let [gallery, faces] =
        ["gallery", "faces.jsonl"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    sphereface(&["enroll", "--dir", &interview("stills"), "--gallery", &gallery]);
    labelled(&[&interview("clip.mp4"), "--no-video", "--gallery", &gallery, "--jsonl", &faces]);
    let count = scores(&interview("truth.json"), &faces);
    // MTCNN of facenet-pytorch with the same settings finds 149 of 149 and 291 of 319.
    assert_eq!(count("easy", "known_detected"), 149);
    assert!(count("difficult", "known_detected") + count("difficult", "strangers_detected") > 291);
    // The best of dlib's embeddings without a stranger named: 139 at its default tolerance.
    assert!(count("easy", "identified") >= 140);
    for kind in ["easy", "difficult"] {
        assert_eq!(count(kind, "misnamed") + count(kind, "strangers_named"), 0, "nobody is misnamed");
    }
    // Men and women in profile and a hand are all without a name here.
    assert!(count("numbers", "numbered") > 250);
    assert_eq!(count("numbers", "shared"), 0, "a number is one person");
}
