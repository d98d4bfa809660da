//! `sphereface label --redact` through the real program: no face of a redacted track is visible in a frame in
//! which it was found, and the sound is kept.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::fs;

use crate::place::{KNOWN, Place};
use serde_json::Value;

/// Size of the frames.
const WIDTH: usize = 768;
const HEIGHT: usize = 432;

fn lines(path: &str) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Raw RGB frames of a video.
fn frames(place: &Place, video: &str, name: &str) -> Vec<Vec<u8>> {
    let raw = place.ffmpeg(&["-i", video, "-f", "rawvideo", "-pix_fmt", "rgb24"], name);
    fs::read(raw).unwrap().chunks(WIDTH * HEIGHT * 3).map(<[u8]>::to_vec).collect()
}

/// Largest difference of neighbouring grey values inside a box, a measure of the remaining detail.
fn detail(frame: &[u8], [x1, y1, x2, y2]: [f64; 4]) -> i32 {
    let clamp = |v: f64, most: usize| (v.max(0.0) as usize).min(most);
    let grey = |x: usize, y: usize| i32::from(frame[(y * WIDTH + x) * 3 + 1]);
    let (x1, x2, y1, y2) =
        (clamp(x1, WIDTH - 2), clamp(x2, WIDTH - 2), clamp(y1, HEIGHT - 1), clamp(y2, HEIGHT - 1));
    let mut most = 0;
    for y in y1..y2 {
        for x in x1..x2 {
            most = most.max((grey(x, y) - grey(x + 1, y)).abs());
        }
    }
    most
}

#[test]
fn strangers_are_covered_wherever_they_are_found_and_the_named_are_not() {
    let Some(place) = Place::new() else { return };
    let (clip, gallery) = (place.clip(150), place.gallery());
    let (output, audit, faces) =
        (place.path("out.mp4"), place.path("audit.jsonl"), place.path("faces.jsonl"));
    // Everybody but one is covered.
    let name = KNOWN;
    let whom = format!("except:{name}");
    place.run(&[
        "label",
        &clip,
        "-o",
        &output,
        "--gallery",
        &gallery,
        "--redact",
        &whom,
        "--redact-with",
        "solid",
        "--redact-audit",
        &audit,
        "--jsonl",
        &faces,
        "--style",
        "width=0,text=none",
    ]);
    let (found, checked) = (lines(&faces), lines(&audit));
    assert!(found.len() > 60, "{} faces", found.len());
    let named = |face: &&Value| face["name"] == name;
    assert!(found.iter().filter(named).count() > 20 && found.iter().filter(|f| !named(f)).count() > 20);
    let pictures = frames(&place, &output, "out.rgb");
    assert_eq!(pictures.len(), 150);
    let edges = |face: &Value| -> [f64; 4] { [0, 1, 2, 3].map(|i| face["box"][i].as_f64().unwrap()) };
    for face in &found {
        let frame = face["frame"].as_u64().unwrap();
        let line =
            checked.iter().find(|line| line["frame"] == frame).expect("every frame with a face is listed");
        let entry =
            line["faces"].as_array().unwrap().iter().find(|entry| entry["track"] == face["track"]).unwrap();
        let redact = face["name"] != name;
        assert_eq!((&entry["redact"], &entry["name"]), (&Value::Bool(redact), &face["name"]));
        let left = detail(&pictures[frame as usize], edges(face));
        if redact {
            assert_eq!(entry["covered"], true);
            assert!(left <= 8, "frame {frame}: detail {left} where a stranger was found");
        } else if entry["covered"] == false {
            assert!(left > 8, "frame {frame}: detail {left} where a known face was to be left");
        }
    }
    let packets = |video: &str| place.probe(video, "a:0", "packet=data_hash", &["-show_data_hash", "md5"]);
    assert_eq!(packets(&output), packets(&clip), "the sound is untouched");
}

#[test]
fn an_analysis_is_redacted_like_the_video_and_every_way_of_covering_leaves_no_face() {
    let Some(place) = Place::new() else { return };
    let (clip, gallery) = (place.clip(40), place.gallery());
    let analysis = place.path("clip.parquet");
    place.run(&["label", &clip, "--no-video", "--analysis", &analysis]);
    for how in ["blur", "pixelate"] {
        let (output, audit) = (place.path(&format!("{how}.mp4")), place.path("audit.jsonl"));
        place.run(&[
            "label",
            &analysis,
            "-o",
            &output,
            "--gallery",
            &gallery,
            "--redact",
            "all",
            "--redact-with",
            how,
            "--redact-audit",
            &audit,
            "--style",
            "width=0,text=none",
        ]);
        let covered = lines(&audit);
        assert!(
            covered.iter().flat_map(|line| line["faces"].as_array().unwrap()).all(|f| f["covered"] == true)
        );
        // No face is found any more.
        let again = place.path("again.jsonl");
        place.run(&["label", &output, "--no-video", "--jsonl", &again, "--detect-every", "1"]);
        let left = lines(&again).len();
        assert!(left * 20 <= covered.len(), "{how}: {left} faces are still found");
    }
}

#[test]
fn a_redaction_that_cannot_be_done_is_refused_before_anything_is_written() {
    let Some(place) = Place::new() else { return };
    let (clip, gallery) = (place.clip(5), place.gallery());
    let output = place.path("out.mp4");
    for (arguments, reason) in [
        (vec!["--redact", "only:Nobody", "--gallery", &gallery], "nobody named Nobody is enrolled"),
        (vec!["--redact", "only:Nobody"], "names need --gallery"),
        (vec!["--redact", "all", "--online"], "--redact and --html need two passes"),
        (vec!["--redact", "everybody"], "write all, unknown, except:NAME"),
        (vec!["--redact", "all", "--redact-grow", "9"], "--redact-grow"),
        (vec!["--redact-with", "solid"], "--redact"),
    ] {
        let arguments: Vec<&str> = ["label", &clip, "-o", &output].into_iter().chain(arguments).collect();
        let (code, message) = place.fail(&arguments);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(reason), "{message}");
    }
    assert!(!fs::exists(&output).unwrap());
}

#[test]
fn a_still_is_redacted_too() {
    let Some(place) = Place::new() else { return };
    let still = place.still(KNOWN, 1);
    let (output, gallery) = (place.path("out.png"), place.gallery());
    for (whom, covered) in [("unknown", false), (&format!("only:{KNOWN}"), true)] {
        place.run(&[
            "label",
            &still,
            "-o",
            &output,
            "--gallery",
            &gallery,
            "--redact",
            whom,
            "--redact-with",
            "solid",
            "--style",
            "width=0,text=none",
        ]);
        let [before, after] = [&still, &output].map(|path| image::open(path).unwrap().into_rgb8());
        assert_eq!(before != after, covered, "{whom}");
    }
}
