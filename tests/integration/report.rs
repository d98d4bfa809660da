//! The reports of `sphereface label` through the real program.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::fs;
use std::process::Command;

use crate::place::{KNOWN, Place};
use serde_json::Value;

/// All results of the first frames of a clip.
fn results(place: &Place, frames: u32) -> [String; 6] {
    let (clip, gallery) = (place.clip(frames), place.gallery());
    let [analysis, jsonl, csv, appearances, vtt, chapters, html] =
        ["clip.parquet", "f.jsonl", "f.csv", "a.csv", "s.vtt", "c.txt", "report.html"]
            .map(|name| place.path(name));
    place.run(&[
        "label",
        &clip,
        "--no-video",
        "--gallery",
        &gallery,
        "--analysis",
        &analysis,
        "--jsonl",
        &jsonl,
        "--csv",
        &csv,
        "--appearances",
        &appearances,
        "--subtitles",
        &vtt,
        "--chapters",
        &chapters,
        "--html",
        &html,
    ]);
    [jsonl, csv, appearances, vtt, chapters, html]
}

#[test]
fn every_result_tells_the_same_story() {
    let Some(place) = Place::new() else { return };
    let [jsonl, csv, appearances, vtt, chapters, html] = results(&place, 130);
    let faces: Vec<Value> =
        fs::read_to_string(&jsonl).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut reader = csv::Reader::from_path(&csv).unwrap();
    let columns = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), faces.len());
    let of = |row: &csv::StringRecord, name: &str| {
        row[columns.iter().position(|column| column == name).unwrap()].to_owned()
    };
    // Times are those of the packets, to the nanosecond.
    let times = place.probe(&place.path("clip.mp4"), "v:0", "frame=pts_time", &[]);
    let times: Vec<f64> = times.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect();
    let start =
        faces[0]["pts_ns"].as_f64().unwrap() / 1e9 - times[faces[0]["frame"].as_u64().unwrap() as usize];
    for (row, face) in rows.iter().zip(&faces) {
        assert_eq!(of(row, "pts_ns"), face["pts_ns"].to_string());
        assert_eq!(of(row, "track"), face["track"].to_string());
        let frame = face["frame"].as_u64().unwrap() as usize;
        let ns = face["pts_ns"].as_f64().unwrap();
        assert!((ns / 1e9 - times[frame] - start).abs() < 2e-6, "frame {frame}: {ns}");
        if face["name"].is_string() {
            // The reason: the angle, the still, the number of views that agree.
            assert!(face["angle_deg"].as_f64().unwrap() < 90.0);
            assert!(face["template"].is_string() && face["stranger"].is_null());
            assert!(face["votes"].as_u64().unwrap() <= face["views"].as_u64().unwrap());
            assert!(face["quality"]["sharpness"].is_number());
        } else {
            assert!(face["stranger"].as_u64().unwrap() > 0);
        }
    }
    let names: std::collections::BTreeSet<&str> =
        faces.iter().filter_map(|face| face["name"].as_str()).collect();
    assert!(names.contains(KNOWN), "{names:?}");
    let text = fs::read_to_string(&appearances).unwrap();
    let subtitles = fs::read_to_string(&vtt).unwrap();
    let chapters = fs::read_to_string(&chapters).unwrap();
    let page = fs::read_to_string(&html).unwrap();
    assert!(subtitles.starts_with("WEBVTT\n"), "{subtitles}");
    for name in names {
        assert!(text.contains(name) && subtitles.contains(name) && page.contains(name), "{name}");
    }
    assert!(chapters.starts_with(";FFMETADATA1\n[CHAPTER]\n"), "{chapters}");
    // ffmpeg takes the chapters.
    let with = place.ffmpeg(
        &["-i", &place.path("clip.mp4"), "-i", &place.path("c.txt"), "-map_metadata", "1", "-codec", "copy"],
        "chapters.mkv",
    );
    let listed = Command::new("ffprobe").args(["-v", "error", "-show_chapters", &with]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("[CHAPTER]"));
}

#[test]
fn the_page_holds_pictures_and_commands_and_fetches_nothing() {
    let Some(place) = Place::new() else { return };
    let [.., html] = results(&place, 60);
    let page = fs::read_to_string(&html).unwrap();
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["video"], serde_json::json!(["clip.mp4"]));
    for person in data["people"].as_array().unwrap() {
        assert!(person["thumbnail"].as_str().unwrap().starts_with("data:image/jpeg;base64,"), "{person}");
        assert!(person["spans_s"].as_array().unwrap().iter().all(|span| span[0].as_f64() < span[1].as_f64()));
        assert_eq!(person["enroll"].is_null(), person["known"].as_bool().unwrap());
    }
    for scheme in ["http:", "https:", "//cdn", "@import", "url("] {
        assert!(!page.contains(scheme), "{scheme}");
    }
    // Relabelling writes the same page, without detecting faces again.
    let again = place.path("again.html");
    let analysis = place.path("clip.parquet");
    place.run(&["label", &analysis, "--no-video", "--gallery", &place.path("gallery"), "--html", &again]);
    assert_eq!(fs::read_to_string(&again).unwrap(), page);
}

#[test]
fn results_that_cannot_be_written_are_found_out_first_and_nothing_is_lost() {
    let Some(place) = Place::new() else { return };
    let clip = place.clip(5);
    let before = fs::read(&clip).unwrap();
    for flag in ["--csv", "--appearances", "--subtitles", "--chapters", "--html"] {
        // The extension selects the format of subtitles.
        let subtitles = flag == "--subtitles";
        let missing = if subtitles { "no/such/file.vtt" } else { "no/such/file" };
        let (code, message) = place.fail(&["label", &clip, "--no-video", flag, missing]);
        assert_eq!(code, 1, "{message}");
        assert!(message.contains(missing), "{message}");
        let (code, message) = place.fail(&["label", &clip, "--no-video", flag, &clip]);
        let cause = if subtitles { "has no known extension" } else { "is also the input" };
        assert!(code == 2 && message.contains(cause), "{message}");
    }
    let (code, message) = place.fail(&["label", &clip, "--online", "--no-video", "--html", "x.html"]);
    assert!(code == 2 && message.contains("need two passes"), "{message}");
    assert_eq!(fs::read(&clip).unwrap(), before);
}
