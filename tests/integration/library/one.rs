//! One worker, and a user with queries.

use super::{Place, json, media, output, sample_path};

#[test]
fn everybody_is_found_with_the_names_that_label_gives() {
    let Some(media) = media() else { return };
    let place = Place::new();
    let added = json(&place.run(&["add", &media.text("media"), "--json"]));
    assert_eq!((&added["new"], &added["known"]), (&5.into(), &0.into()));
    let gallery = media.text("gallery");
    let told = place.run(&["work", "--gallery", &gallery, "--json"]);
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(told.lines().all(|line| json(line)["state"] == "done"), "{told}");
    assert_eq!(place.run(&["work"]).trim(), "0 files done, 0 attempts failed, 0 files due");

    // The tracks of a clip, and their names, are those of `label`.
    let export: Vec<_> = place.run(&["export", "-"]).lines().map(json).collect();
    let list = place.path("a.jsonl");
    let clip = media.text("media/a.mp4");
    super::run(
        place.folder.path(),
        &["label", &clip, "--no-video", "--gallery", &gallery, "--jsonl", &list, "--quiet"],
    );
    let mut labelled: Vec<(i64, Option<String>)> = (std::fs::read_to_string(&list).unwrap().lines())
        .map(json)
        .map(|face| (face["track"].as_i64().unwrap(), face["name"].as_str().map(str::to_owned)))
        .collect();
    labelled.sort();
    labelled.dedup();
    let clip = std::fs::canonicalize(&clip).unwrap();
    let mut of_clip: Vec<(i64, Option<String>)> = (export.iter())
        .filter(|row| row["path"] == clip.to_str().unwrap())
        .map(|row| (row["track"].as_i64().unwrap(), row["name"].as_str().map(str::to_owned)))
        .collect();
    of_clip.sort();
    assert!(labelled.iter().any(|(_, name)| name.is_some()), "{labelled:?}");
    assert_eq!(of_clip, labelled);

    let people = json(&place.run(&["people", "--json"]));
    let names: Vec<_> = people.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"Ada") && names.contains(&"Boris") && names.len() == 2, "{names:?}");
    let found = json(&place.run(&["find", "Ada", "--photos", "--json"]));
    assert!(!found.as_array().unwrap().is_empty());
    let (code, error) = place.fail(&["find", "Nobody"]);
    assert_eq!((code, error.trim()), (1, "sphereface: nobody in the library is named Nobody"));

    // Chloé is in no gallery: she gets her name, and all files have it.
    let strangers = json(&place.run(&["strangers", "--json"]));
    let first = &strangers[0];
    assert!(first["files"].as_i64().unwrap() >= 2, "{strangers}");
    let own = place.path("own");
    let copied = std::process::Command::new("cp").args(["-r", &gallery, &own]).status().unwrap();
    assert!(copied.success());
    let number = first["number"].to_string();
    let told = place.run(&["name", &number, "Chloé", "--gallery", &own]);
    assert!(told.contains("stills enrolled"), "{told}");
    let found = json(&place.run(&["find", "Chloé", "--json"]));
    assert!(found.as_array().unwrap().len() as i64 >= first["files"].as_i64().unwrap());
    let page = place.path("page.html");
    place.run(&["find", "Chloé", "--html", &page, "--m3u", &place.path("list.m3u")]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Files with Chloé") && page.contains("data:image/jpeg;base64,"));
    assert!(std::fs::read_to_string(place.path("list.m3u")).unwrap().contains("#EXTVLCOPT:start-time="));

    // Names follow the gallery: without Ada's stills, she is a stranger.
    super::run(place.folder.path(), &["gallery", "remove", "Ada", "--gallery", &own]);
    let (_, error) = place.fail(&["find", "Ada"]);
    assert!(error.contains("nobody in the library is named Ada"), "{error}");
    assert!(error.contains("the gallery has changed"), "{error}");

    let told = place.run(&["forget", "Chloé"]);
    assert!(told.contains("removed from the gallery"), "{told}");
    assert_eq!(place.fail(&["find", "Chloé"]).0, 1);
    let again = place.run(&["retry", "--all"]);
    assert_eq!(again.trim(), "due again: 5 files");
    place.run(&["work"]);
    assert_eq!(place.fail(&["find", "Chloé"]).0, 1, "who is forgotten is not found again");
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_done() {
    let Some(media) = media() else { return };
    let place = Place::new();
    std::fs::create_dir(place.path("in")).unwrap();
    std::fs::write(place.path("in/broken.mp4"), "nothing to see").unwrap();
    std::fs::copy(media.path("media/photos/one.png"), place.path("in/a.png")).unwrap();
    std::fs::copy(media.path("media/photos/one.png"), place.path("in/b.png")).unwrap();
    place.run(&["add", "in"]);
    let work = |arguments: &[&str]| {
        let output = output(place.folder.path(), &place.arguments(arguments));
        assert_eq!(output.status.code(), Some(1), "a file failed");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = work(&["work", "--no-pictures", "--json"]);
    let failed: Vec<_> = told.lines().map(json).filter(|line| line["state"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{told}");
    assert_eq!(failed[0]["again"], false, "it would fail again");
    let status = place.status();
    assert_eq!((&status["photos"]["done"], &status["videos"]["failed"]), (&1.into(), &1.into()));
    let failure = &status["failures"][0];
    assert!(failure["path"].as_str().unwrap().ends_with("broken.mp4"), "{status}");
    assert!(
        failure["error"].as_str().unwrap().starts_with("cannot be decoded: "),
        "not with its name again: {status}"
    );
    assert_eq!(place.run(&["retry"]).trim(), "due again: 1 file");
    let gone = place.path("in/broken.mp4");
    std::fs::remove_file(gone).unwrap();
    let told = work(&["work", "--json"]);
    assert!(told.contains("broken.mp4"), "{told}");
    assert_eq!(place.run(&["forget", "--files", "in/a.png"]).trim(), "0 files forgotten", "the copy stays");
    assert_eq!(place.run(&["forget", "--files", "in"]).trim(), "2 files forgotten");
    assert_eq!(place.status()["photos"]["done"], 0);
}

/// Runs the queries of the documentation; each must find something.
const QUERIES: &str = "
import re, sys, duckdb
text = re.search('```sql\\n(.*?)```', open(sys.argv[1]).read(), re.S).group(1)
text = '\\n'.join(line for line in text.splitlines() if not line.startswith('--'))
queries = [query for query in text.split(';') if query.strip()]
assert len(queries) == 3 and all(duckdb.sql(query).fetchall() for query in queries)
";

#[test]
fn duckdb_reads_the_analyses_as_documented() {
    let Some(media) = media() else { return };
    let python = std::env::var("SPHEREFACE_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_it = std::process::Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        println!("skipped: no duckdb for Python (set SPHEREFACE_PYTHON)");
        return;
    }
    let place = Place::new();
    let here = place.folder.path();
    let library = ["library", "--library", "sphereface-library"];
    let run = |arguments: &[&str]| super::run(here, &[&library, arguments].concat());
    run(&["add", &media.text("media")]);
    run(&["work", "--no-pictures", "--gallery", &media.text("gallery")]);
    run(&["export", "faces.csv"]);
    let document = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/library.md");
    let output =
        std::process::Command::new(&python).args(["-c", QUERIES]).arg(document).current_dir(here).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_plan_is_measured_and_stores_nothing() {
    let Some(media) = media() else { return };
    let place = Place::new();
    place.run(&["add", &media.text("media")]);
    let plan = json(&place.run(&["plan", "--sample", "2", "--seconds", "1", "--hours", "100", "--json"]));
    assert_eq!((&plan["videos"], &plan["photos"], &plan["due_videos"]), (&2.into(), &2.into(), &3.into()));
    let due_s = plan["due_video_s"].as_f64().unwrap();
    assert!((4.0..16.0).contains(&due_s), "8 s of video: {plan}");
    let (speed, left_s) = (plan["speed"].as_f64().unwrap(), plan["left_s"].as_f64().unwrap());
    assert!(left_s > due_s / speed && plan["hours_s"].as_f64().unwrap() > 0.0, "{plan}");
    let shown = place.run(&["plan", "--sample", "1", "--seconds", "1", "--machines", "64"]);
    assert!(shown.contains("machine-days") && shown.contains("with 64 machines"), "{shown}");
    assert_eq!(place.status()["videos"]["due"], 3);
    assert_eq!(std::fs::read_dir(place.path("lib/analyses")).unwrap().count(), 0);
}

#[test]
fn a_library_that_is_not_there_is_no_reason_to_make_one() {
    let place = Place::new();
    for arguments in [&["status"][..], &["find", "Ada"], &["work"], &["strangers"], &["retry"]] {
        let (code, error) = place.fail(arguments);
        assert_eq!(code, 1);
        assert!(error.contains("there is no library in lib") && error.contains("library add"), "{error}");
    }
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 0);
    let (code, error) = place.fail(&["status", "--database", "mysql://host/x"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("postgres://USER@HOST/DATABASE"), "{error}");
    let (code, error) = place.fail(&["add", "nowhere"]);
    assert_eq!(code, 1);
    assert!(error.contains("nowhere cannot be read"), "{error}");
    let (code, error) = place.fail(&["find", "Ada", "--after", "2020-02-30"]);
    assert_eq!(code, 2);
    assert!(error.contains("is not a date"), "{error}");
    let (code, error) = place.fail(&["find", "Ada", "--after", "2020-02-03", "--before", "2020-02-03"]);
    assert_eq!(code, 2, "{error}");
}

#[test]
fn the_parts_of_a_list_are_the_whole_and_a_library_takes_them() {
    let Some(media) = media() else { return };
    let place = Place::new();
    let list = place.path("list.txt");
    let files = ["media/a.mp4", "media/photos/one.png", "media/c.mp4", "nowhere.mp4"];
    std::fs::write(&list, files.map(|file| media.text(file)).join("\n")).unwrap();
    let folder = place.folder.path();
    let part = |part: &str| {
        let output = output(
            folder,
            &["library", "shard", "--list", &list, "--shard", part, "-o", "lib/analyses", "--threads", "2"],
        );
        let lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(json).collect();
        let states: Vec<_> = lines.iter().map(|line| line["state"].as_str().unwrap().to_owned()).collect();
        (output.status.code(), states)
    };
    let list = |states: &[&str]| states.iter().map(|&state| state.to_owned()).collect::<Vec<_>>();
    assert_eq!(part("1/2"), (Some(0), list(&["done", "done"])));
    assert_eq!(part("2/2"), (Some(1), list(&["done", "failed"])));
    assert_eq!(part("1/2"), (Some(0), list(&["skipped", "skipped"])));
    place.run(&["add", &media.text("media")]);
    // Those three are only entered; the other two are analysed.
    let told = place.run(&["work", "--no-pictures", "--json"]);
    assert_eq!(told.lines().filter(|line| json(line)["state"] == "done").count(), 5, "{told}");
    let whole = Place::new();
    whole.run(&["add", &media.text("media")]);
    whole.run(&["work", "--no-pictures"]);
    assert_eq!(place.everything(), whole.everything());
    let (code, error) =
        super::fail(folder, &["library", "shard", "--shard", "5/4", "-o", "x", &sample_path("sample.mp4")]);
    assert_eq!(code, 2);
    assert!(error.contains("3/16"), "{error}");
}
