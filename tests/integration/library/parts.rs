//! Long videos that are analysed in parts.

use serde_json::Value;

use super::postgres::{Server, place};
use super::{Place, Worker, command, json, media, sample_path, until};

/// The tracks of a library: name, start and end in seconds.
fn tracks(place: &Place) -> Vec<(String, f64, f64)> {
    let seconds = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let rows = place.run(&["export", "-"]);
    let rows = rows.lines().map(json);
    rows.map(|row| {
        (row["name"].as_str().unwrap_or("").to_owned(), seconds(&row, "start_s"), seconds(&row, "end_s"))
    })
    .collect()
}

/// The faces of each frame, by `label` from the analysis of a library: frame, name and box.
fn faces(place: &Place) -> Vec<(u64, String, Vec<f64>)> {
    let analyses = std::fs::read_dir(place.path("lib/analyses")).unwrap();
    let analysis = analyses.map(|entry| entry.unwrap().path()).next().unwrap();
    let gallery = media().unwrap().text("gallery");
    let list = place.path("faces.jsonl");
    let video = sample_path("sample.mp4");
    let arguments = [
        "label",
        analysis.to_str().unwrap(),
        "--video",
        &video,
        "--no-video",
        "--gallery",
        &gallery,
        "--jsonl",
        &list,
        "--quiet",
    ];
    super::run(place.folder.path(), &arguments);
    let list = std::fs::read_to_string(list).unwrap();
    let face = |row: Value| {
        let side = |at: usize| row["box"][at].as_f64().unwrap();
        let name = row["name"].as_str().unwrap_or("").to_owned();
        (row["frame"].as_u64().unwrap(), name, (0..4).map(side).collect())
    };
    list.lines().map(json).map(face).collect()
}

#[test]
fn a_video_in_parts_has_the_frames_the_names_and_the_tracks_of_the_whole() {
    let Some(media) = media() else { return };
    let gallery = media.text("gallery");
    let (whole, parts) = (Place::new(), Place::new());
    for (place, seconds) in [(&whole, "0"), (&parts, "4")] {
        place.run(&["add", &sample_path("sample.mp4")]);
        let told = place.run(&["work", "--gallery", &gallery, "--part", seconds, "--json"]);
        let done = told.lines().map(json).filter(|line| line["state"] == "done").count();
        let parts = told.lines().map(json).filter(|line| line["state"] == "part");
        let mut frames: Vec<u64> = parts.map(|line| line["frames"].as_u64().unwrap()).collect();
        frames.sort_unstable();
        // Key frames are two seconds apart: three parts of four seconds with the first frame of the next one,
        // and one of two.
        assert_eq!(
            (done, frames),
            (1, if seconds == "0" { vec![] } else { vec![50, 101, 101, 101] }),
            "{told}"
        );
    }
    assert_eq!(whole.status()["videos"]["frames"], parts.status()["videos"]["frames"]);
    let (expected, found) = (tracks(&whole), tracks(&parts));
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (one, other) in found.iter().zip(&expected) {
        assert_eq!(one.0, other.0, "{found:?} {expected:?}");
        // The search restarts at a boundary, and may find a person some frames earlier or later.
        assert!((one.1 - other.1).abs() < 0.5 && (one.2 - other.2).abs() < 0.5, "{one:?} {other:?}");
    }
    // Frames are counted as in the whole: if both have a face of that name, it is at the same position.
    let (expected, found) = (faces(&whole), faces(&parts));
    let mut compared = 0;
    for (frame, name, bbox) in &found {
        let same = expected.iter().filter(|one| (&one.0, &one.1) == (frame, name)).collect::<Vec<_>>();
        let near = same.iter().any(|one| one.2.iter().zip(bbox).all(|(a, b)| (a - b).abs() < 12.0));
        assert!(same.is_empty() || near || name.is_empty(), "frame {frame} {name} {bbox:?} {same:?}");
        compared += usize::from(near);
    }
    assert!(compared * 100 > expected.len() * 97, "{compared} of {}", expected.len());
    // Its people have pictures, and no data of the parts remains.
    let page = parts.path("page.html");
    parts.run(&["find", "Ada", "--html", &page]);
    assert!(std::fs::read_to_string(page).unwrap().contains("data:image/jpeg;base64,"));
    assert_eq!(parts.everything().1.len(), 1);
}

fn worker(place: &Place) -> Worker {
    let gallery = media().unwrap().text("gallery");
    let arguments =
        ["work", "--gallery", &gallery, "--part", "2", "--heartbeat", "1", "--threads", "1", "--json"];
    let child = command(place.folder.path(), &place.arguments(&arguments))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    Worker { child }
}

/// Three workers share one video; one is killed in the middle of its part, and one is paused for longer than
/// three heartbeats. The result is that of one worker, byte for byte.
#[test]
fn three_workers_share_a_video_and_lose_nothing_when_one_dies() {
    let (Some(_), Some(server)) = (media(), Server::start()) else { return };
    let alone = Place::new();
    alone.run(&["add", &sample_path("sample.mp4")]);
    let (well, told, error) = worker(&alone).wait();
    assert!(well, "{error}");
    assert_eq!(told.lines().map(json).filter(|line| line["state"] == "part").count(), 7, "{told}");

    let place = place(&server);
    place.run(&["add", &sample_path("sample.mp4")]);
    let (victim, sleeper, survivor) = (worker(&place), worker(&place), worker(&place));
    until("three workers", || place.status()["workers"] == 3);
    std::thread::sleep(std::time::Duration::from_millis(500));
    victim.signal("-9");
    sleeper.signal("-STOP");
    assert!(!victim.wait().0);
    let (well, told, error) = survivor.wait();
    assert!(well, "{error}");
    assert!(told.lines().map(json).any(|line| line["state"] == "part"), "{told}");
    sleeper.signal("-CONT");
    let (well, _, error) = sleeper.wait();
    assert!(well, "{error}");
    assert_eq!(place.status()["videos"]["done"], 1);
    let (everything, whole) = (place.everything(), alone.everything());
    assert_eq!(everything.0, whole.0);
    // The unfinished analysis of the killed worker may remain under another name.
    let finished =
        |list: Vec<(String, Vec<u8>)>| list.into_iter().filter(|(name, _)| name.matches('.').count() == 1);
    assert!(finished(everything.1).eq(finished(whole.1)));
}

#[test]
fn fewer_frames_per_second_are_looked_at_and_no_video_is_written_from_them() {
    let Some(media) = media() else { return };
    let gallery = media.text("gallery");
    let place = Place::new();
    place.run(&["add", &sample_path("sample.mp4")]);
    place.run(&["work", "--gallery", &gallery, "--fps", "5"]);
    assert_eq!(place.status()["videos"]["frames"], 70);
    let names: Vec<String> = tracks(&place).into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"Ada".to_owned()) && names.contains(&"Boris".to_owned()), "{names:?}");
    let analyses = std::fs::read_dir(place.path("lib/analyses")).unwrap();
    let analysis = analyses.map(|entry| entry.unwrap().path()).next().unwrap();
    let (video, named) = (sample_path("sample.mp4"), place.path("named.mp4"));
    let arguments =
        ["label", analysis.to_str().unwrap(), "--video", &video, "-o", &named, "--gallery", &gallery];
    let (_, error) = super::fail(place.folder.path(), &arguments);
    assert!(error.contains("covers 5 frames per second only"), "{error}");
    assert!(!std::path::Path::new(&named).exists());
    for fps in ["0", "-1", "many", "1001"] {
        let (code, error) = place.fail(&["work", &format!("--fps={fps}")]);
        assert_eq!(code, 2);
        assert!(error.contains("is not a number from 0.01 to 1000"), "{error}");
    }
}

#[test]
fn of_key_frames_alone_people_are_named_in_a_whole_video_and_in_parts() {
    let Some(media) = media() else { return };
    let gallery = media.text("gallery");
    // Key frames are two seconds apart in 14 seconds.
    let look = |more: &[&str]| {
        let place = Place::new();
        place.run(&["add", &sample_path("sample.mp4")]);
        place.run(&[&["work", "--gallery", &gallery, "--key-frames"], more].concat());
        let frames = place.status()["videos"]["frames"].as_u64().unwrap();
        (place, frames)
    };
    let (whole, frames) = look(&[]);
    assert_eq!(frames, 7);
    let mut expected = tracks(&whole);
    let names: Vec<&str> = expected.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(names.contains(&"Ada") && names.contains(&"Boris"), "{names:?}");
    assert!(expected.iter().all(|(_, start_s, _)| start_s % 2.0 < 0.1), "{expected:?}");
    let (parts, frames) = look(&["--part", "4"]);
    assert_eq!(frames, 7);
    let mut found = tracks(&parts);
    for list in [&mut expected, &mut found] {
        list.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    }
    assert_eq!(found, expected);
    assert_eq!(look(&["--fps", "0.25"]).1, 4);

    let analyses = std::fs::read_dir(whole.path("lib/analyses")).unwrap();
    let analysis = analyses.map(|entry| entry.unwrap().path()).next().unwrap();
    let (video, named) = (sample_path("sample.mp4"), whole.path("named.mp4"));
    let arguments =
        ["label", analysis.to_str().unwrap(), "--video", &video, "-o", &named, "--gallery", &gallery];
    let (_, error) = super::fail(whole.folder.path(), &arguments);
    assert!(error.contains("covers key frames only"), "{error}");
    // Without --key-frames it is analysed again.
    let again = Place::new();
    again.run(&["add", &sample_path("sample.mp4")]);
    std::fs::create_dir_all(again.path("lib/analyses")).unwrap();
    std::fs::copy(
        &analysis,
        again.path("lib/analyses") + "/" + analysis.file_name().unwrap().to_str().unwrap(),
    )
    .unwrap();
    again.run(&["work", "--gallery", &gallery]);
    assert_eq!(again.status()["videos"]["frames"], 350);
}
