//! What a library must not lose, and what it must not keep.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Media, Place, command, json, media, run, sample_path};

/// A library of the clips and photos of the tests, whose gallery is a copy.
fn place(media: &Media) -> Place {
    let place = Place::new();
    copy(&media.text("gallery"), &place.path("gallery"));
    copy(&media.text("media"), &place.path("in"));
    place.run(&["add", "in"]);
    place.run(&["work", "--gallery", "gallery"]);
    place
}

fn copy(from: &str, to: &str) {
    assert!(Command::new("cp").args(["-r", from, to]).status().unwrap().success());
}

/// Gives a person of the gallery another name.
fn rename(place: &Place, name: &str, new: &str) {
    let still = |number: u32| sample_path(&format!("people/{name}/{number}.jpg"));
    let folder = place.folder.path();
    run(folder, &["gallery", "remove", name, "--gallery", "gallery"]);
    run(folder, &["enroll", new, &still(1), &still(2), "--gallery", "gallery"]);
}

fn tracks(place: &Place) -> usize {
    place.run(&["export", "-"]).lines().count()
}

#[test]
fn an_empty_name_is_not_everybody_without_a_name() {
    let Some(media) = media() else { return };
    let place = place(media);
    let before = place.everything();
    for arguments in
        [&["forget", ""][..], &["forget", " "], &["find", ""], &["find", "--with", "Ada", "--with", ""]]
    {
        let (code, error) = place.fail(arguments);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("is empty"), "{error}");
    }
    assert_eq!(place.everything(), before);
}

#[test]
fn what_failed_without_being_the_files_fault_is_tried_again_after_a_pause() {
    let Some(media) = media() else { return };
    is_tried_again_after_a_pause(media, &Place::new());
}

pub(super) fn is_tried_again_after_a_pause(media: &Media, place: &Place) {
    let clip = media.text("media/c.mp4");
    let first = Place::new();
    first.run(&["add", &clip]);
    first.run(&["work", "--no-pictures"]);
    let analyses = std::fs::read_dir(first.path("lib/analyses")).unwrap();
    let name = analyses.map(|entry| entry.unwrap().file_name()).next().unwrap();

    // Where the analysis belongs there is a folder.
    let obstacle = Path::new(&place.path("lib/analyses")).join(&name);
    std::fs::create_dir_all(obstacle.join("in the way")).unwrap();
    place.run(&["add", &clip]);
    let started = Instant::now();
    let mut worker = command(place.folder.path(), &place.arguments(&["work", "--no-pictures", "--json"]));
    let mut worker = worker.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let failed = json(&lines.next().unwrap().unwrap());
    assert_eq!((&failed["state"], &failed["again"]), (&"failed".into(), &true.into()), "{failed}");
    std::fs::remove_dir_all(&obstacle).unwrap();
    let done = json(&lines.next().unwrap().unwrap());
    assert_eq!(done["state"], "done", "{done}");
    // The queue counts whole seconds.
    assert!(started.elapsed() > Duration::from_secs(4), "after {:?}", started.elapsed());
    assert_eq!(worker.wait().unwrap().code(), Some(0), "no file failed");
    assert_eq!(place.status()["videos"]["done"], 1);
}

/// Adds a folder of a video and a photo, and moves it away: where it was, and where it is.
fn share_that_is_away(media: &Media, place: &Place) -> [String; 2] {
    let [share, away] = ["share", "away"].map(|name| place.path(name));
    std::fs::create_dir(&share).unwrap();
    for name in ["c.mp4", "photos/one.png"] {
        let name = media.path("media").join(name);
        std::fs::copy(&name, Path::new(&share).join(name.file_name().unwrap())).unwrap();
    }
    place.run(&["add", "share"]);
    std::fs::rename(&share, &away).unwrap();
    [share, away]
}

#[test]
fn files_of_a_folder_that_is_away_for_a_moment_are_analysed() {
    let Some(media) = media() else { return };
    let place = Place::new();
    let [share, away] = share_that_is_away(media, &place);
    let mut worker = command(place.folder.path(), &place.arguments(&["work", "--no-pictures", "--json"]));
    let mut worker = worker.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines().map(|line| json(&line.unwrap()));
    for failed in lines.by_ref().take(2) {
        assert_eq!((&failed["state"], &failed["again"]), (&"away".into(), &true.into()), "{failed}");
    }
    std::fs::rename(&away, &share).unwrap();
    let done: Vec<_> = lines.filter(|line| line["state"] == "done").collect();
    assert_eq!(done.len(), 2, "{done:?}");
    assert_eq!(worker.wait().unwrap().code(), Some(0), "no file failed");
}

#[test]
fn files_of_a_folder_that_stays_away_stay_due_however_often_they_are_tried() {
    let Some(media) = media() else { return };
    let place = Place::new();
    let [share, away] = share_that_is_away(media, &place);
    for _ in 0..4 {
        let (code, error) = place.fail(&["work", "--no-pictures", "--no-wait"]);
        assert!(code == 1 && error.contains("not reached, and still due: 2 files"), "{error}");
        assert!(error.contains("it stays due"), "the first is named: {error}");
        make_due_now(&place);
    }
    let status = place.status();
    assert_eq!((&status["videos"]["failed"], &status["videos"]["due"]), (&0.into(), &1.into()), "{status}");
    // An empty folder where the share belongs looks like deleted files. When they are back, they are tried again.
    std::fs::create_dir(&share).unwrap();
    let (code, error) = place.fail(&["work", "--no-pictures", "--no-wait"]);
    assert!(code == 1 && error.contains("2 files failed"), "{error}");
    assert_eq!(place.status()["videos"]["failed"], 1);
    place.run(&["add", "share"]);
    std::fs::remove_dir(&share).unwrap();
    std::fs::rename(&away, &share).unwrap();
    place.run(&["add", "share"]);
    place.run(&["work", "--no-pictures"]);
    let status = place.status();
    assert_eq!((&status["videos"]["done"], &status["photos"]["done"]), (&1.into(), &1.into()), "{status}");
}

/// Ends the pauses of all tasks.
fn make_due_now(place: &Place) {
    let database = rusqlite::Connection::open(place.path("lib/catalogue.sqlite")).unwrap();
    database.execute("UPDATE Jobs SET run_at = 0", []).unwrap();
}

#[test]
fn a_name_in_another_unicode_form_is_the_same_name() {
    let Some(media) = media() else { return };
    let place = place(media);
    rename(&place, "Ada", "Zo\u{e9}");
    let found = json(&place.run(&["find", "Zoe\u{301}", "--json"]));
    assert!(!found.as_array().unwrap().is_empty());
    let before = tracks(&place);
    let told = place.run(&["forget", "Zoe\u{301}"]);
    assert!(told.contains("forgotten") && told.contains("removed from the gallery"), "{told}");
    assert!(tracks(&place) < before);
    assert!(!place.run(&["export", "-"]).contains("Zo"), "no track has the name");
}

#[test]
fn who_has_the_name_now_is_forgotten() {
    let Some(media) = media() else { return };
    let place = place(media);
    let of =
        |name: &str| place.run(&["export", "-"]).lines().filter(|line| json(line)["name"] == name).count();
    let boris = of("Boris");
    assert!(boris > 0);
    rename(&place, "Boris", "Bob");
    let (code, error) = place.fail(&["forget", "Boris"]);
    assert_eq!(code, 1);
    assert!(error.contains("nobody in the library is named Boris"), "{error}");
    assert_eq!(of("Bob"), boris);
    place.run(&["export", "--sidecars"]);
    let list = place.path("in/a.mp4.faces.json");
    assert!(std::fs::read_to_string(&list).unwrap().contains("Ada"));
    // The list beside what has become a later copy stays right.
    std::fs::copy(place.path("in/a.mp4"), place.path("in/0.mp4")).unwrap();
    place.run(&["add", "in"]);
    place.run(&["export", "--sidecars"]);
    for list in [&list, &place.path("in/0.mp4.faces.json")] {
        let text = std::fs::read_to_string(list).unwrap();
        let video = list.trim_end_matches(".faces.json").rsplit('/').next().unwrap();
        assert!(text.contains("Ada") && text.contains(video), "{text}");
    }
    place.run(&["forget", "Ada"]);
    place.run(&["forget", "Bob"]);
    for stranger in json(&place.run(&["strangers", "--json"])).as_array().unwrap() {
        place.run(&["forget", "--stranger", &stranger["number"].to_string()]);
    }
    place.run(&["export", "--sidecars"]);
    let left = std::fs::read_to_string(&list).unwrap();
    assert!(!left.contains("Ada") && !left.contains("Bob"), "{left}");
}

#[test]
fn a_gallery_that_is_away_takes_no_names_and_nobody_is_half_forgotten() {
    let Some(media) = media() else { return };
    let place = place(media);
    let before = place.run(&["people"]);
    std::fs::rename(place.path("gallery"), place.path("away")).unwrap();
    let people = place.run(&["people"]);
    assert_eq!(people, before);
    let (code, error) = place.fail(&["forget", "Boris"]);
    assert_eq!(code, 1);
    assert!(error.contains("gallery") && error.contains("--keep-stills"), "{error}");
    assert_eq!(place.run(&["people"]), before);
    let (code, error) = place.fail(&["work"]);
    assert_eq!(code, 1);
    assert!(error.contains("does not exist"), "{error}");
    let told = place.run(&["forget", "Boris", "--keep-stills"]);
    assert!(told.contains("forgotten"), "{told}");
    std::fs::rename(place.path("away"), place.path("gallery")).unwrap();
    assert!(!place.run(&["people"]).contains("Boris"));
}

#[test]
fn a_folder_that_is_no_gallery_is_refused_and_changes_nothing() {
    let Some(media) = media() else { return };
    let place = place(media);
    std::fs::create_dir(place.path("plain")).unwrap();
    std::fs::write(place.path("plain/notes.txt"), "x").unwrap();
    let before = place.run(&["people"]);
    let (code, error) = place.fail(&["work", "--gallery", "plain"]);
    assert_eq!(code, 1);
    assert!(error.contains("nobody is enrolled") && error.contains("plain"), "{error}");
    assert_eq!(place.run(&["people"]), before);
    let (code, error) = place.fail(&["gallery", "put", "plain"]);
    assert_eq!(code, 2);
    assert!(error.contains("nobody is enrolled in plain"), "{error}");
    assert!(place.run(&["gallery", "show"]).contains("no shared gallery"));
}

#[test]
fn a_refused_model_leaves_the_library_as_it_was() {
    let Some(media) = media() else { return };
    let place = place(media);
    let before = place.run(&["people"]);
    let (code, error) = place.fail(&["work", "--model", "sphereface20", "--gallery", "gallery"]);
    assert_eq!(code, 1);
    assert!(error.contains("was made with model"), "{error}");
    assert_eq!(place.run(&["people"]), before);
}

#[test]
fn results_replace_no_video_no_catalogue_and_no_other_result() {
    let Some(media) = media() else { return };
    let place = place(media);
    let clip = std::fs::read(place.path("in/c.mp4")).unwrap();
    for (arguments, reason) in [
        (vec!["find", "Ada", "--html", "in/c.mp4"], "is a video or photo of the library"),
        (vec!["find", "Ada", "--m3u", "in/c.mp4"], "is a video or photo of the library"),
        (vec!["strangers", "--html", "in/photos/one.png"], "is a video or photo of the library"),
        (vec!["find", "Ada", "--html", "lib/catalogue.sqlite"], "is a file of the library itself"),
        (vec!["find", "Ada", "--html", "x", "--m3u", "x"], "both write to x"),
        (vec!["find", "Ada", "--html", "-", "--m3u", "-"], "both write to standard output"),
    ] {
        let (code, error) = place.fail(&arguments);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(std::fs::read(place.path("in/c.mp4")).unwrap(), clip);
    assert!(!std::path::Path::new(&place.path("x")).exists());
    assert!(!place.run(&["people"]).is_empty());
}

#[test]
fn what_is_named_and_is_no_picture_is_told() {
    let place = Place::new();
    std::fs::write(place.path("notes.txt"), "x").unwrap();
    let output = super::output(place.folder.path(), &place.arguments(&["add", "notes.txt"]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("notes.txt") && error.contains("neither a video nor a photo"), "{error}");
}

/// Another user, or a service without write access, searches the library.
#[test]
fn a_library_that_can_only_be_read_is_searched() {
    use std::os::unix::fs::PermissionsExt;
    let Some(media) = media() else { return };
    let place = place(media);
    place.run(&["export", "-"]);
    // Root may write everywhere.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let folder = place.folder.path();
    for (path, mode) in [
        ("lib/catalogue.sqlite", 0o444),
        ("lib/lock", 0o444),
        ("lib/analyses", 0o555),
        ("lib", 0o555),
        ("", 0o755),
    ] {
        std::fs::set_permissions(folder.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    let program = env!("CARGO_BIN_EXE_sphereface");
    let other_user = |program: &str| {
        let mut command = Command::new(if is_root { "setpriv" } else { program });
        if is_root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        }
        command
    };
    let here = folder.to_str().unwrap();
    let may = other_user("test").args(["-x", program, "-a", "-x", here]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: another user cannot run the program in this folder");
        return;
    }
    let ask = |arguments: &[&str]| {
        let mut command = other_user(program);
        let output = command
            .args(place.arguments(arguments))
            .current_dir(folder)
            .stdin(Stdio::null())
            .env_remove("SPHEREFACE_DATABASE")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (well, found, error) = ask(&["find", "Ada", "--json"]);
    assert!(well && !json(&found).as_array().unwrap().is_empty(), "{error}");
    let (well, status, error) = ask(&["status", "--json"]);
    assert!(well && json(&status)["photos"]["done"] == 2, "{error}");
    let (well, _, error) = ask(&["forget", "Ada", "--keep-stills"]);
    assert!(!well && error.contains("lib"), "{error}");
    std::fs::set_permissions(folder.join("lib"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder.join("lib/analyses"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// The results of a video that was labelled from its analysis never replace it.
#[test]
fn results_from_an_analysis_do_not_replace_the_video_beside_it() {
    let Some(media) = media() else { return };
    let place = Place::new();
    let folder = place.folder.path();
    copy(&media.text("media/c.mp4"), &place.path("c.mp4"));
    copy(&media.text("gallery"), &place.path("gallery"));
    run(folder, &["label", "c.mp4", "--no-video", "--analysis", "c.parquet", "--quiet"]);
    let clip = std::fs::read(place.path("c.mp4")).unwrap();
    for flag in ["--csv", "--jsonl", "--appearances", "--chapters", "--html"] {
        let (code, error) = super::fail(folder, &["label", "c.parquet", "--no-video", flag, "c.mp4"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("is also the input"), "{error}");
    }
    assert_eq!(std::fs::read(place.path("c.mp4")).unwrap(), clip);
    // Nor those of a gallery.
    let still = "gallery/Ada/stills/1.jpg";
    let stored = std::fs::read(place.path(still)).unwrap();
    let (code, error) = super::fail(folder, &["gallery", "check", "--gallery", "gallery", "--sheet", still]);
    assert_eq!(code, 2, "{error}");
    let (code, error) = super::fail(
        folder,
        &["label", &sample_path("sample.mp4"), "--no-video", "--gallery", "gallery", "--csv", still],
    );
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("is a file of the gallery"), "{error}");
    assert_eq!(std::fs::read(place.path(still)).unwrap(), stored);
    // Options that an analysis cannot follow are refused, and so are tracks that it does not have.
    for more in [&["--min-face", "100"][..], &["--mirror"], &["--detect-every", "1"]] {
        let arguments = [&["label", "c.parquet", "--no-video"], more].concat();
        let (code, error) = super::fail(folder, &arguments);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("is already an analysis"), "{error}");
    }
    let (code, error) = super::fail(
        folder,
        &[
            "gallery",
            "calibrate",
            "c.parquet",
            "--fpir",
            "0.1",
            "--gallery",
            "gallery",
            "--known",
            "c.parquet#99",
        ],
    );
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("has no track 99"), "{error}");
}
