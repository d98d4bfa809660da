//! Verification and open-set identification against an independent computation (numpy,
//! `tests/fixtures/eval/make.py`), and the real program on real images.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::place::shared_data;
use serde::Deserialize;
use serde_json::Value;
use sphereface::eval::openset::{Search, evaluate};
use sphereface::eval::verification::{Fold, Pair, cross_validate, verify};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[derive(Deserialize)]
struct Expected {
    verification: Verification,
    features: Features,
    openset: OpenSet,
}

#[derive(Deserialize)]
struct ExpectedFold {
    threshold: f64,
    accuracy: f64,
}

#[derive(Deserialize)]
struct Verification {
    folds: Vec<ExpectedFold>,
    accuracy: f64,
    standard_error: f64,
    best_threshold: f64,
    best_accuracy: f64,
    tar: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Features {
    features: Vec<Vec<f32>>,
    pairs: Vec<(usize, usize, bool, usize)>,
    folds: Vec<ExpectedFold>,
}

#[derive(Deserialize)]
struct OpenSet {
    mated: Vec<(usize, Vec<f64>)>,
    strangers: Vec<(usize, Vec<f64>)>,
    /// By rank: rate, lower, upper.
    closed: BTreeMap<usize, [f64; 3]>,
    /// By FPIR: threshold, rate, lower, upper.
    open: BTreeMap<String, [f64; 4]>,
}

fn expected() -> Expected {
    serde_json::from_str(&fixture("expected.json")).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn assert_folds(found: &[Fold], expected: &[ExpectedFold]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(close(found.threshold, expected.threshold), "fold {index}: {}", found.threshold);
        assert!(close(found.accuracy, expected.accuracy), "fold {index}: {}", found.accuracy);
    }
}

#[test]
fn the_folds_of_known_scores_are_numpys() {
    let mut pairs = Vec::new();
    let mut scores = Vec::new();
    for line in fixture("scores.tsv").lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (first, second) = (2 * pairs.len(), 2 * pairs.len() + 1);
        pairs.push(Pair { first, second, same: fields[1] == "1", fold: fields[0].parse().unwrap() });
        scores.push(fields[2].parse::<f64>().unwrap());
    }
    assert_eq!(pairs.len(), 600);
    let expected = expected().verification;
    let found = cross_validate(&pairs, |_| scores.clone()).unwrap();
    assert_folds(&found.folds, &expected.folds);
    assert!(close(found.accuracy, expected.accuracy));
    assert!(close(found.standard_error, expected.standard_error));
    assert!(close(found.best.threshold, expected.best_threshold));
    assert!(close(found.best.accuracy, expected.best_accuracy));
    for (far, tar) in expected.tar {
        let point = found.roc.at_far(far.parse().unwrap()).unwrap();
        assert!(close(point.tar, tar), "{far}: {point:?} and {tar}");
    }
    assert_eq!(found.roc.at_far(1e-3), None, "300 pairs cannot show one in a thousand");
}

#[test]
fn the_folds_of_known_features_are_numpys() {
    let Features { features, pairs, folds } = expected().features;
    let pairs: Vec<Pair> =
        pairs.into_iter().map(|(first, second, same, fold)| Pair { first, second, same, fold }).collect();
    assert_folds(&verify(&features, &pairs).unwrap().folds, &folds);
}

#[test]
fn open_set_rates_and_intervals_are_numpys() {
    let expected = expected().openset;
    let mated =
        expected.mated.iter().map(|(person, scores)| Search::mated(*person, scores, *person).unwrap());
    let strangers = expected.strangers.iter().map(|(person, scores)| Search::of_a_stranger(*person, scores));
    let searches: Vec<Search> = mated.chain(strangers).collect();
    let found = evaluate(&searches, 4000, 1).unwrap();
    assert_eq!((found.enrolled, found.strangers, found.mated, found.non_mated), (12, 60, 108, 300));
    // The draws differ, so the ends of the intervals agree to their own uncertainty only.
    let near = |a: f64, b: f64| (a - b).abs() < 0.02;
    for at in &found.closed {
        let [rate, lower, upper] = expected.closed[&at.rank];
        let i = at.identified;
        assert!(close(i.rate, rate) && near(i.lower, lower) && near(i.upper, upper), "{at:?}");
    }
    assert_eq!(found.open.len(), expected.open.len(), "300 probes cannot show one in a thousand");
    for at in &found.open {
        let [threshold, rate, lower, upper] = expected.open[&at.fpir.to_string()];
        assert!(close(at.threshold, threshold) && close(at.dir.rate, rate), "{at:?}");
        assert!(near(at.dir.lower, lower) && near(at.dir.upper, upper), "{at:?}: {lower} {upper}");
    }
    assert_eq!(found, evaluate(&searches, 4000, 1).unwrap());
    let few = |seed| evaluate(&searches, 99, seed).unwrap().open;
    assert_ne!(few(1), few(2), "the seed decides the draws");
}

fn sphereface(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = sphereface(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn lfw_photos_are_verified_by_the_real_program() {
    let Some(data) = shared_data("lfw-dev") else { return };
    let folder = tempfile::tempdir().unwrap();
    // Twenty pairs of each kind, in the form of view 1.
    let all = std::fs::read_to_string(data.join("pairs.txt")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    let some = [&["20"], &lines[1..21], &lines[501..521]].concat().join("\n");
    let [pairs, plot] = ["pairs.txt", "roc.png"].map(|name| folder.path().join(name));
    std::fs::write(&pairs, some).unwrap();
    let images = text(&data.join("images"));
    let said = stdout(&["eval", "lfw", &text(&pairs), &images, "--plot", &text(&plot)]);
    assert!(said.contains("the list has no folds") && said.contains("best on all of these pairs"), "{said}");
    assert_eq!(image::open(&plot).unwrap().width(), 1280);
    let json = stdout(&["eval", "lfw", &text(&pairs), &images, "--json", "--threads", "1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verification"]["folds"].as_array().unwrap().len(), 10);
    let accuracy = json["verification"]["accuracy"].as_f64().unwrap();
    assert!(accuracy >= 0.8, "{json}");
    assert!(said.contains(&format!("accuracy {:.2} %", 100.0 * accuracy)), "{accuracy}: {said}");
    assert_eq!(json["folds_of_the_list"], false);
}

#[test]
fn people_are_found_among_strangers_by_the_real_program() {
    let Some(data) = shared_data("lfw-dev/train-crops") else { return };
    let folder = tempfile::tempdir().unwrap();
    // The first 60 people with several crops, and 40 others.
    let mut people: Vec<PathBuf> = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().path()).collect();
    people.sort();
    let (mut several, mut single) = (0, 0);
    for person in people {
        let images: Vec<PathBuf> = std::fs::read_dir(&person).unwrap().map(|e| e.unwrap().path()).collect();
        let (count, most) = if images.len() > 1 { (&mut several, 60) } else { (&mut single, 40) };
        if *count < most {
            *count += 1;
            let target = folder.path().join(person.file_name().unwrap());
            std::fs::create_dir(&target).unwrap();
            images.iter().take(4).for_each(|image| {
                std::fs::copy(image, target.join(image.file_name().unwrap())).unwrap();
            });
        }
    }
    let people = text(folder.path());
    let plots = tempfile::tempdir().unwrap();
    let plot = plots.path().join("openset.svg");
    let said = stdout(&["eval", "openset", &people, "--aligned", "--plot", &text(&plot)]);
    assert!(said.contains("30 people enrolled with 30 templates"), "{said}");
    assert!(said.contains("and a margin of 1deg") && said.contains("and a margin of 0deg"), "{said}");
    assert!(std::fs::read_to_string(&plot).unwrap().contains("false positive identification rate"));
    let json = |threads| -> Value {
        let arguments = ["eval", "openset", &people, "--aligned", "--json", "--threads", threads];
        serde_json::from_str(&stdout(&arguments)).unwrap()
    };
    let found = json("1");
    assert_eq!(found, json("3"), "the number of threads must not matter");
    let rank_1 = found["result"]["closed"][0]["identified"]["rate"].as_f64().unwrap();
    let at_a_tenth = &found["result"]["open"][0];
    let dir = at_a_tenth["dir"]["rate"].as_f64().unwrap();
    assert!(rank_1 > 0.7 && dir > 0.4 && dir <= rank_1, "{found}");
    // The margin removes names: right, wrong and those of strangers.
    let named = |at: usize, what: &str| found["named"][at][what].as_f64().unwrap();
    for what in ["right", "wrong", "strangers"] {
        assert!(named(0, what) <= named(1, what), "{found}");
    }
    assert!(named(0, "right") > 0.7 && named(0, "strangers") < 0.2, "{found}");
    assert!(
        at_a_tenth["dir"]["lower"].as_f64() <= Some(dir) && at_a_tenth["dir"]["upper"].as_f64() >= Some(dir)
    );
}

/// Half of the people of a police collection, enrolled from more and more sides, and surveillance frames of all.
#[test]
fn what_gallery_check_expects_of_strangers_agrees_with_what_openset_measures_by_views() {
    let Some(mugshots) = shared_data("mugshots") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &[&str]| path.iter().fold(folder.path().to_owned(), |path, part| path.join(part));
    let copy = |from: PathBuf, to: PathBuf| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    let mut people: Vec<String> = std::fs::read_dir(&mugshots)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    people.retain(|name| mugshots.join(name).is_dir());
    people.sort();
    for person in &people {
        for frame in 1..6 {
            let name = format!("img_{frame:02}.jpg");
            copy(mugshots.join(person).join("frames").join(&name), at(&["frames", person, &name]));
        }
    }
    for views in [&["33"][..], &["23", "33", "43"], &["13", "23", "33", "43", "53"]] {
        let count = views.len().to_string();
        for person in people.iter().step_by(2) {
            for view in views {
                let name = format!("img_{view}.jpg");
                copy(
                    mugshots.join(person).join("mugshots").join(&name),
                    at(&[&count, "people", person, &name]),
                );
            }
        }
        let [stills, gallery] = ["people", "gallery"].map(|name| text(&at(&[&count, name])));
        stdout(&["enroll", "--dir", &stills, "--gallery", &gallery]);
        let json = |arguments: &[&str]| -> Value { serde_json::from_str(&stdout(arguments)).unwrap() };
        let checked = json(&["gallery", "check", "--gallery", &gallery, "--json"]);
        let frames = text(&at(&["frames"]));
        let found = json(&["eval", "openset", &frames, "--gallery", &gallery, "--min-face", "20", "--json"]);
        let of = |key: &str| found["named"][0][key].as_f64().unwrap();
        let (measured, expected) = (of("strangers"), of("strangers_expected"));
        let interval = [0, 1].map(|end| found["named"][0]["strangers_interval"][end].as_f64().unwrap());
        println!("{count} views: {measured} of strangers named ({interval:?}), at most {expected} expected");
        let checked_rate = checked["expected_false_positive_identification_rate"].as_f64().unwrap();
        assert!((checked_rate - expected).abs() < 1e-9, "{checked}");
        assert_eq!(checked["templates"], found["templates"]);
        assert!((checked["threshold"].as_f64().unwrap() - of("threshold_deg")).abs() < 1e-9, "{checked}");
        assert!(expected <= 0.0201 && interval[0] <= expected && measured <= 0.05, "{found}");
        assert!(of("wrong") <= 0.05, "{found}");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = text(folder.path());
    let set = tempfile::tempdir().unwrap();
    std::fs::create_dir(set.path().join("Ada")).unwrap();
    let (list, still) = (text(&set.path().join("pairs.svg")), text(&set.path().join("Ada/1.png")));
    let people = text(set.path());
    for file in [&list, &still] {
        std::fs::write(file, "what the user has").unwrap();
    }
    for (arguments, code, message) in [
        (vec!["eval", "openset", &empty, "--plot", "a.gif"], 2, ".svg or .png"),
        (
            vec!["eval", "calibrate", &empty, "--model", "a.safetensors", "--record", "--precision", "bf16"],
            2,
            "omit --precision bf16",
        ),
        (vec!["eval", "openset", &empty, "--strangers", "1"], 2, "share of the people"),
        (vec!["eval", "openset", &empty, "--gallery-images", "0"], 2, "1..=1000"),
        (vec!["eval", "openset", &empty], 1, "one folder of images per person"),
        (vec!["eval", "openset", "/nonexistent"], 1, "cannot be read"),
        (vec!["eval", "lfw", "pairs.txt", &empty, "--plot", "a.jpg"], 2, ".svg or .png"),
        (vec!["eval", "lfw", "/nonexistent", &empty], 1, "cannot be read"),
        (vec!["eval", "lfw", &list, &empty, "--plot", &list], 2, "is also the input"),
        (vec!["eval", "openset", &people, "--plot", &still], 2, "is a file of the data set"),
        (
            vec!["eval", "openset", &people, "--plot", "/nonexistent/p.svg"],
            1,
            "--plot /nonexistent/p.svg cannot be written",
        ),
    ] {
        let output = sphereface(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
    for file in [&list, &still] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "what the user has");
    }
}

/// The people of the bundled sample, as the protocols lay out their images.
fn sample_people() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people")
}

fn json_of(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn two_people_are_found_among_the_stills_of_a_third_as_megaface_looks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let (probes, distractors) = (folder.path().join("probes"), folder.path().join("distractors"));
    for (name, to) in
        [("Ada", probes.join("Ada")), ("Boris", probes.join("Boris")), ("Chloé", distractors.join("a/b"))]
    {
        std::fs::create_dir_all(&to).unwrap();
        for still in 1..=3 {
            let file = format!("{still}.jpg");
            std::fs::copy(sample_people().join(name).join(&file), to.join(&file)).unwrap();
        }
    }
    let (probes, distractors) = (probes.to_str().unwrap(), distractors.to_str().unwrap());
    let told = json_of(&["eval", "megaface", probes, distractors, "--far", "0.06", "--json"]);
    let all = &told["report"]["rank_one"][0];
    assert_eq!(
        (all["distractors"].as_u64(), all["pairs"].as_u64(), all["found"].as_u64()),
        (Some(3), Some(12), Some(12))
    );
    assert_eq!(told["report"]["verification"]["impostors"].as_u64(), Some(18));
    assert_eq!(told["report"]["verification"]["tar"].as_f64(), Some(1.0));
}

#[test]
fn templates_and_videos_of_the_sample_people_are_compared_as_ijb_and_youtube_faces_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let images = sample_people();
    let images = images.to_str().unwrap();
    let media = "Ada/1.jpg 1 1\nAda/2.jpg 1 2\nAda/3.jpg 2 3\nBoris/1.jpg 3 4\nBoris/2.jpg 3 4\nBoris/3.jpg 4 5\n\
                 Chloé/1.jpg 5 6\nChloé/2.jpg 6 7\n";
    let media = file("media.txt", media);
    let pairs = file(
        "pairs.txt",
        "1 2 1\n3 4 1\n1 3 0\n1 5 0\n2 4 0\n3 5 0\n2 5 0\n4 5 0\n1 4 0\n2 3 0\n3 6 0\n1 6 0\n",
    );
    let gallery = file("gallery.csv", "TEMPLATE_ID,SUBJECT_ID\n1,1\n3,2\n");
    let probes = file("probes.csv", "TEMPLATE_ID,SUBJECT_ID\n2,1\n4,2\n5,3\n6,3\n");
    let arguments = [
        "eval",
        "ijb",
        &media,
        images,
        "--pairs",
        &pairs,
        "--gallery",
        &gallery,
        "--probes",
        &probes,
        "--json",
    ];
    let told = json_of(&arguments);
    assert_eq!(told["templates"].as_u64(), Some(6));
    assert_eq!(told["tar_at_far"][0]["point"]["tar"].as_f64(), Some(1.0));
    assert_eq!(told["identification"]["rank_one"].as_f64(), Some(1.0));
    assert_eq!(told["identification"]["non_mated"].as_u64(), Some(2));

    let videos = folder.path().join("videos");
    for (name, number, stills) in
        [("Ada", 0, [1, 2]), ("Ada", 1, [3, 3]), ("Boris", 0, [1, 2]), ("Boris", 1, [3, 3])]
    {
        let to = videos.join(name).join(number.to_string());
        std::fs::create_dir_all(&to).unwrap();
        for still in stills {
            let still = format!("{still}.jpg");
            std::fs::copy(sample_people().join(name).join(&still), to.join(&still)).unwrap();
        }
    }
    let splits = "split number, first name, second name, is same person\n1, Ada/0, Ada/1, 1\n1, Ada/0, Boris/0, 0\n\
                  2, Boris/0, Boris/1, 1\n2, Ada/1, Boris/1, 0\n";
    let splits = file("splits.txt", splits);
    let told = json_of(&["eval", "ytf", &splits, videos.to_str().unwrap(), "--json"]);
    assert_eq!(told["verification"]["accuracy"].as_f64(), Some(1.0));

    let escape = file("escape.txt", "../../etc/passwd 1 1\n");
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["eval", "ijb", &escape, images, "--pairs", &pairs])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no image ../../etc/passwd"));
}

#[test]
fn rates_by_group_stand_beside_those_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let people = text(&sample_people());
    let labels = folder.path().join("labels.csv");
    std::fs::write(&labels, "image,order,hat\n1,first,\n2,second,\n3,third,no\nAda/3,third,yes\n").unwrap();
    let arguments = ["eval", "openset", &people, "--strangers", "0.34", "--labels", &text(&labels), "--json"];
    let found = json_of(&arguments);
    let group = |kind: &str, column: &str, label: &str| {
        let rates = found["groups"][kind].as_array().unwrap();
        let is = |one: &&Value| one["column"] == column && one["label"] == label;
        rates.iter().find(is).map(|one| (one["trials"].as_u64().unwrap(), one["wrong"].as_u64().unwrap()))
    };
    // Two people with one still in the gallery and two probes each, and a stranger with three.
    assert_eq!(group("misses", "", "").map(|(trials, _)| trials), Some(4));
    assert_eq!(group("false_matches", "", ""), Some((3, 0)));
    assert_eq!(group("false_matches", "order", "second"), Some((1, 0)));
    let said = stdout(&arguments[..arguments.len() - 1]);
    assert!(said.contains("strangers named") && said.contains("order second"), "{said}");

    // Any list of pairs is accepted.
    let pairs = folder.path().join("pairs.csv");
    let mut list = String::from("path1,path2,same,fold\n");
    for fold in [1, 2] {
        let other = fold + 1;
        list += &format!(
            "Ada/{fold}.jpg,Ada/{other}.jpg,1,{fold}\nBoris/{fold}.jpg,Boris/{other}.jpg,1,{fold}\n"
        );
        list +=
            &format!("Ada/{fold}.jpg,Boris/{fold}.jpg,0,{fold}\nAda/{fold}.jpg,Boris/{other}.jpg,0,{fold}\n");
    }
    std::fs::write(&pairs, list).unwrap();
    let found = json_of(&["eval", "lfw", &text(&pairs), &people, "--labels", &text(&labels), "--json"]);
    assert_eq!((&found["folds_of_the_list"], &found["summary"]["pairs"]), (&true.into(), &8.into()));
    let rates = found["groups"]["false_matches"].as_array().unwrap();
    assert_eq!((&rates[0]["trials"], &rates[0]["wrong"]), (&4.into(), &0.into()), "{rates:?}");
    // Of the pairs of two people, one is of two first pictures and one of two second ones.
    let first = rates.iter().find(|one| one["label"] == "first").unwrap();
    assert_eq!((&first["trials"], &first["people"]), (&1.into(), &1.into()));

    // A list that names people and numbers, and labels by path.
    let images = folder.path().join("images");
    for person in ["Ada", "Boris"] {
        std::fs::create_dir_all(images.join(person)).unwrap();
        for number in 1..=3 {
            let to = images.join(person).join(format!("{person}_000{number}.jpg"));
            std::fs::copy(sample_people().join(person).join(format!("{number}.jpg")), to).unwrap();
        }
    }
    let fold = |number: u32| {
        let other = number + 1;
        format!(
            "Ada\t{number}\t{other}\nBoris\t{number}\t{other}\nAda\t{number}\tBoris\t{number}\nAda\t{number}\tBoris\t{other}\n"
        )
    };
    std::fs::write(&pairs, format!("2\t2\n{}{}", fold(1), fold(2))).unwrap();
    std::fs::write(&labels, "image,order\nAda/Ada_0001.jpg,first\nBoris/Boris_0001.jpg,first\n").unwrap();
    let images = text(&images);
    let found = json_of(&["eval", "lfw", &text(&pairs), &images, "--labels", &text(&labels), "--json"]);
    let rates = found["groups"]["false_matches"].as_array().unwrap();
    let first = rates.iter().find(|one| one["label"] == "first").unwrap();
    assert_eq!((&first["trials"], &first["people"]), (&1.into(), &1.into()));

    std::fs::write(&labels, "image\n1\n").unwrap();
    let output = sphereface(&["eval", "openset", &people, "--labels", &text(&labels)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("at least one label, as in `image,sex,age`"));
}
