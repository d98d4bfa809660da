//! Stored analyses: labelled again quickly, and refused with a reason if that is impossible.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::place::{KNOWN, OTHER, Place};
use sphereface::models::{Precision, SPHEREFACE};

#[test]
fn an_analysis_gives_the_same_answers_as_the_video() {
    let Some(place) = Place::new() else { return };
    place.clip(130);
    place.gallery();
    let label = |input: &str, more: &[&str], list: &str| {
        let common = ["label", input, "--no-video", "--gallery", "gallery", "--jsonl", list];
        place.run(&common.into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
        fs::read_to_string(place.path(list)).unwrap()
    };
    let seen = label("clip.mp4", &["--analysis", "clip.parquet"], "seen.jsonl");
    assert_eq!(label("clip.parquet", &[], "again.jsonl"), seen);
    let strict = label("clip.parquet", &["--threshold", "3deg"], "strict.jsonl");
    let named = format!(r#""name":"{KNOWN}""#);
    assert!(seen.contains(&named) && !strict.contains(&named));
    let mut explain = std::process::Command::new(env!("CARGO_BIN_EXE_sphereface"));
    explain.args(["label", "clip.parquet", "--no-video", "--gallery", "gallery", "--explain"]);
    let told = explain.current_dir(place.path("")).output().unwrap();
    let told = String::from_utf8(told.stderr).unwrap();
    let nearest = format!("{KNOWN}; nearest is {KNOWN}");
    for part in [nearest.as_str(), "named below", "; then ", "best view"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    // The video may be anywhere, or missing if it is not needed.
    fs::rename(place.path("clip.mp4"), place.path("elsewhere.mp4")).unwrap();
    assert_eq!(label("clip.parquet", &[], "gone.jsonl"), seen);
    place.run(&[
        "label",
        "clip.parquet",
        "--video",
        "elsewhere.mp4",
        "-o",
        "named.mp4",
        "--gallery",
        "gallery",
    ]);
    assert!(fs::exists(place.path("named.mp4")).unwrap());
}

#[test]
fn strangers_are_told_apart_from_an_analysis_as_from_the_video() {
    let Some(place) = Place::new() else { return };
    place.clip_from(170, 160);
    let label = |input: &str, more: &[&str], list: &str| {
        let common = ["label", input, "--no-video", "--jsonl", list];
        place.run(&common.into_iter().chain(more.iter().copied()).collect::<Vec<_>>());
        fs::read_to_string(place.path(list)).unwrap()
    };
    let seen = label("clip.mp4", &["--analysis", "clip.parquet"], "seen.jsonl");
    assert_eq!(label("clip.parquet", &[], "again.jsonl"), seen);
    // One of them is seen in two shots.
    let mut tracks: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for face in seen.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        if let Some((number, track)) = face["stranger"].as_u64().zip(face["track"].as_u64()) {
            tracks.entry(number).or_default().insert(track);
        }
    }
    assert!(tracks.values().any(|tracks| tracks.len() > 1), "{tracks:?}");
}

#[test]
fn an_analysis_that_cannot_be_used_is_refused_and_nothing_is_lost() {
    let Some(place) = Place::new() else { return };
    place.clip(12);
    place.gallery();
    place.run(&["label", "clip.mp4", "--no-video", "--analysis", "clip.parquet"]);
    let whole = fs::read(place.path("clip.parquet")).unwrap();
    fs::write(place.path("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    fs::write(place.path("text.parquet"), "no analysis").unwrap();
    let mut other = SPHEREFACE.weights().unwrap();
    other.tensors.values_mut().next().unwrap().data[0] += 1.0;
    other.save(Path::new(&place.path("other.safetensors")), Precision::F16).unwrap();
    place.ffmpeg(&["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=1"], "other.mp4");
    let lists = ["kept.jsonl", "kept.csv", "kept.mp4", "kept.html", "kept.parquet"];
    for name in lists {
        fs::write(place.path(name), "from before").unwrap();
    }
    let outputs = ["--jsonl", "kept.jsonl", "--csv", "kept.csv"];
    let label: &[&str] = &["label"];
    for (command, code, reason) in [
        (
            [label, &["cut.parquet", "--no-video"], &outputs].concat(),
            1,
            "cut.parquet is not a complete analysis",
        ),
        (
            [label, &["text.parquet", "--no-video"], &outputs].concat(),
            1,
            "text.parquet is not a complete analysis",
        ),
        ([label, &["gone.parquet", "--no-video"], &outputs].concat(), 1, "gone.parquet cannot be read"),
        (
            [label, &["clip.parquet", "--gallery", "gallery", "--model", "other.safetensors"], &outputs]
                .concat(),
            1,
            "cannot be compared with model",
        ),
        (
            [
                label,
                &["clip.parquet", "--video", "other.mp4", "-o", "kept.mp4", "--html", "kept.html"],
                &outputs,
            ]
            .concat(),
            1,
            "other.mp4 is not the video that clip.parquet was made from (clip.mp4)",
        ),
        (
            [label, &["clip.parquet", "--video", "gone.mp4", "-o", "kept.mp4"]].concat(),
            2,
            "locate it with --video",
        ),
        ([label, &["clip.parquet", "--analysis", "kept.parquet"]].concat(), 2, "is already an analysis"),
        (vec!["enroll", "Ann", "--from", "clip.parquet#99", "--gallery", "gallery"], 1, "has no track 99"),
        (
            vec!["enroll", "Ann", "--from", "cut.parquet#1", "--gallery", "gallery"],
            1,
            "not a complete analysis",
        ),
        (
            vec!["enroll", "Ann", "--from", "clip.parquet#1", "--video", "other.mp4", "--gallery", "gallery"],
            1,
            "other.mp4 is not the video",
        ),
        (vec!["gallery", "reject", "Ann", "--from", "clip.parquet#1"], 1, "nobody named Ann is enrolled"),
        (vec!["gallery", "reject", OTHER, "--from", "clip.parquet#99"], 1, "has no track 99"),
        (
            vec!["discover", "clip.parquet", "--model", "other.safetensors"],
            1,
            "cannot be compared with model",
        ),
        (vec!["discover", "cut.parquet"], 1, "not a complete analysis"),
        (vec!["gallery", "calibrate", "--fpir", "2", "clip.parquet"], 2, "between 0 and 1"),
        (
            vec!["gallery", "calibrate", "--fpir", "0.1", "clip.parquet", "--model", "other.safetensors"],
            1,
            "cannot be compared with model",
        ),
    ] {
        let (found, message) = place.fail(&command);
        assert!(found == code && message.contains(reason), "{command:?}: {found} {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
    for name in lists {
        assert_eq!(fs::read_to_string(place.path(name)).unwrap(), "from before", "{name}");
    }
    let people = place.run(&["gallery", "list"]);
    assert_eq!(people, "Ada: 3 stills\nBoris: 3 stills\nChloé: 3 stills\n");
}
