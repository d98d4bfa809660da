//! `sphereface gallery`, `discover` and `enroll --from` as people run them.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::fs;

use crate::place::{KNOWN, OTHER, Place};
use serde_json::Value;

/// The names given to the faces of an analysed video.
fn names(place: &Place, analysis: &str, more: &[&str]) -> Vec<(u64, Option<String>, Value)> {
    let faces = place.path("faces.jsonl");
    let arguments: Vec<&str> = ["label", analysis, "--no-video", "--jsonl", &faces]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    place.run(&arguments);
    let lines = fs::read_to_string(&faces).unwrap();
    let one = |line: &str| {
        let face: Value = serde_json::from_str(line).unwrap();
        (face["track"].as_u64().unwrap(), face["name"].as_str().map(str::to_owned), face)
    };
    lines.lines().map(one).collect()
}

#[test]
fn strangers_are_discovered_named_from_their_track_and_then_known() {
    let Some(place) = Place::new() else { return };
    place.clip(120);
    place.run(&["label", "clip.mp4", "--no-video", "--analysis", "clip.parquet"]);
    let listed: Value =
        serde_json::from_str(&place.run(&["discover", "clip.parquet", "--json", "--sheet", "who.png"]))
            .unwrap();
    let people = listed.as_array().unwrap();
    assert!(people.len() >= 2, "{listed}");
    assert!(image::open(place.path("who.png")).unwrap().height() > 300);
    // The longest on screen becomes a person, by the command that was printed.
    let command = people[0]["enroll"].as_str().unwrap().replace('"', "").replace("NAME", "Somebody");
    let words: Vec<&str> = command.split(' ').skip(1).chain(["--gallery", "people"]).collect();
    place.run(&words);
    let tracks: Vec<u64> = people[0]["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|track| track.as_str().unwrap().rsplit_once('#').unwrap().1.parse().unwrap())
        .collect();
    let found = names(&place, "clip.parquet", &["--gallery", "people"]);
    let own = found.iter().filter(|(track, ..)| tracks.contains(track));
    assert!(own.clone().count() > 30 && own.clone().all(|(_, name, _)| name.as_deref() == Some("Somebody")));
    let left: Value =
        serde_json::from_str(&place.run(&["discover", "clip.parquet", "--gallery", "people", "--json"]))
            .unwrap();
    assert_eq!(left.as_array().unwrap().len(), people.len() - 1);
    // A file that is given twice shows nobody twice.
    let twice = ["discover", "clip.parquet", "./clip.parquet", "--gallery", "people", "--json"];
    assert_eq!(serde_json::from_str::<Value>(&place.run(&twice)).unwrap(), left);
    let (code, message) = place.fail(&["discover", "clip.parquet", "--threshold", "60deg"]);
    assert!(code == 2 && message.contains("give one with --gallery"), "{message}");
    for (sheet, code, cause) in
        [("x.txt", 2, "x.txt"), ("none/x.png", 1, "--sheet none/x.png cannot be written")]
    {
        let (was, message) = place.fail(&["discover", "clip.parquet", "--sheet", sheet]);
        assert!(was == code && message.contains(cause), "{message}");
    }
    let (code, message) = place.fail(&["enroll", "X", "--from", "clip.parquet#999", "--gallery", "people"]);
    assert!(code == 1 && message.contains("no track 999"), "{message}");
    let (code, message) = place.fail(&["enroll", "X", "--from", "clip.parquet", "--gallery", "people"]);
    assert!(code == 2 && message.contains("is not a track"), "{message}");
}

#[test]
fn a_counter_example_removes_the_false_match_and_keeps_the_true_ones() {
    let Some(place) = Place::new() else { return };
    // Two shots. Somebody is in the first only: where a person is, nobody else is taken for them.
    place.clip_from(150, 150);
    place.gallery();
    place.run(&["label", "clip.mp4", "--no-video", "--analysis", "clip.parquet"]);
    // Only one person is enrolled, by another name, and the threshold is so high that others are taken for her.
    let own = place.still(OTHER, 1);
    place.run(&["enroll", "Ann", &own, "--gallery", "one"]);
    // What is seen for a moment only is listed when it has a name: such faces are left out.
    let common = |list: Vec<(u64, Option<String>, Value)>, other: &[(u64, Option<String>, Value)]| {
        let is_there = |(track, _, face): &(u64, Option<String>, Value)| {
            other.iter().any(|(t, _, f)| t == track && f["frame"] == face["frame"])
        };
        list.into_iter().filter(is_there).collect::<Vec<_>>()
    };
    let known = names(&place, "clip.parquet", &["--gallery", "gallery"]);
    let loose = ["--gallery", "one", "--threshold", "150deg"];
    let before = common(names(&place, "clip.parquet", &loose), &known);
    let known = common(known, &before);
    let right: Vec<usize> = (0..known.len()).filter(|&i| known[i].1.as_deref() == Some(OTHER)).collect();
    let wrong: Vec<usize> = (0..before.len())
        .filter(|&i| before[i].1.as_deref() == Some("Ann") && known[i].1.as_deref() != Some(OTHER))
        .collect();
    assert!(right.len() > 20 && wrong.len() > 5, "{} of Ann, {} false matches", right.len(), wrong.len());
    let kept: Vec<usize> = right.iter().copied().filter(|&i| before[i].1.as_deref() == Some("Ann")).collect();
    let track = before[wrong[0]].0;
    place.run(&["gallery", "reject", "Ann", "--from", &format!("clip.parquet#{track}"), "--gallery", "one"]);
    let after = common(names(&place, "clip.parquet", &loose), &known);
    assert_eq!((known.len(), before.len()), (after.len(), after.len()));
    for &i in wrong.iter().filter(|&&i| before[i].0 == track) {
        assert_eq!(after[i].1, None, "{}", after[i].2);
        assert_eq!(after[i].2["rejected"], "Ann");
    }
    assert!(!kept.is_empty() && kept.iter().all(|&i| after[i].1.as_deref() == Some("Ann")), "true ones stay");
    // Of one's own still no counter-example is made, nor for somebody nobody knows.
    let (_, message) = place.fail(&["gallery", "reject", "Ann", &own, "--gallery", "one"]);
    assert!(message.contains("already enrolled as Ann"), "{message}");
    let (_, message) = place.fail(&["gallery", "reject", "Nobody", &own, "--gallery", "one"]);
    assert!(message.contains("nobody named Nobody"), "{message}");
}

#[test]
fn a_mislabelled_still_and_a_double_person_are_found() {
    let Some(place) = Place::new() else { return };
    let enroll = |name: &str, stills: &[(&str, u32)]| {
        let stills: Vec<String> = stills.iter().map(|(who, number)| place.still(who, *number)).collect();
        let mut words = vec!["enroll", name];
        words.extend(stills.iter().map(String::as_str));
        place.run(&[words, vec!["--gallery", "people"]].concat());
    };
    // A still of Boris' is among Ada's, and Chloé is there twice.
    enroll("Ada", &[("Ada", 1), ("Ada", 3), ("Boris", 2)]);
    enroll("Boris", &[("Boris", 1), ("Boris", 3)]);
    enroll("Chloé", &[("Chloé", 1), ("Chloé", 2)]);
    enroll("C. L.", &[("Chloé", 3)]);
    let found: Value = serde_json::from_str(&place.run(&[
        "gallery",
        "check",
        "--gallery",
        "people",
        "--json",
        "--sheet",
        "check.png",
    ]))
    .unwrap();
    let findings = found["findings"].as_array().unwrap();
    let of = |kind: &str| {
        findings
            .iter()
            .filter(|one| one["kind"] == kind)
            .map(|one| one["text"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let mislabelled = of("mislabelled");
    assert!(mislabelled.iter().any(|text| text.starts_with("Ada: 2.jpg looks like Boris")), "{found}");
    let twice = of("same person");
    assert!(twice.iter().any(|text| text.contains("C. L.") && text.contains("Chloé")), "{found}");
    assert!(!twice.iter().any(|text| text.contains("Ada")), "{found}");
    assert!(found["expected_false_positive_identification_rate"].as_f64().unwrap() > 0.0);
    assert!(image::open(place.path("check.png")).unwrap().height() > 200);
}

#[test]
fn a_threshold_from_too_few_strangers_is_refused_and_one_from_enough_is_kept() {
    let Some(place) = Place::new() else { return };
    place.clip(60);
    place.gallery();
    place.run(&["label", "clip.mp4", "--no-video", "--analysis", "clip.parquet"]);
    let (code, message) = place.fail(&["gallery", "calibrate", "--fpir", "1e-3", "clip.parquet"]);
    assert!(code == 1 && message.contains("strangers are too few") && message.contains("1000"), "{message}");
    assert!(!fs::exists(place.path("gallery/calibration.json")).unwrap());
    let (_, message) = place.fail(&["gallery", "calibrate", "--fpir", "1e-3", "clip.mp4"]);
    assert!(message.contains("not a complete analysis"), "{message}");
}

#[test]
fn crops_of_a_data_set_are_enrolled_as_they_are() {
    let Some(place) = Place::new() else { return };
    // A 96x112 crop as `align` makes it and a 112x112 one, as data sets have them.
    place.run(&["enroll", KNOWN, &place.still(KNOWN, 1), "--gallery", "photos"]);
    let crops = place.path(&format!("photos/{KNOWN}/derived/crops"));
    let crop = fs::read_dir(crops).unwrap().next().unwrap().unwrap().path();
    // The stored crops include the columns at the sides, if there were any.
    let square = image::open(crop).unwrap().into_rgb8();
    assert_eq!(square.dimensions(), (112, 112));
    let middle = |image: &image::RgbImage| {
        image::imageops::crop_imm(image, (image.width() - 96) / 2, 0, 96, 112).to_image()
    };
    let crop = middle(&square);
    fs::create_dir_all(place.path("people/Bo")).unwrap();
    crop.save(place.path("people/Bo/narrow.png")).unwrap();
    square.save(place.path("people/Bo/square.png")).unwrap();
    let said = place.run(&["enroll", "--dir", "people", "--gallery", "crops"]);
    assert!(said.contains("Bo: 2 new stills"), "{said}");
    let index: Value =
        serde_json::from_str(&fs::read_to_string(place.path("crops/Bo/person.json")).unwrap()).unwrap();
    for still in index["stills"].as_array().unwrap() {
        assert_eq!(still["already_aligned"], true, "{still}");
    }
    for kept in fs::read_dir(place.path("crops/Bo/derived/crops")).unwrap() {
        let kept = image::open(kept.unwrap().path()).unwrap().into_rgb8();
        assert!(middle(&kept) == crop, "aligned once more");
    }
}

#[test]
fn a_person_is_renamed_by_the_command_line_and_nobody_is_lost_by_it() {
    let Some(place) = Place::new() else { return };
    place.run(&["enroll", "Ada", &place.still(KNOWN, 1), "--gallery", "people"]);
    place.run(&["enroll", "Bo", &place.still(OTHER, 1), "--gallery", "people"]);
    let rename =
        |from: &'static str, to: &'static str| ["gallery", "rename", from, to, "--gallery", "people"];
    assert_eq!(place.run(&rename("Ada", "Ada King")).trim(), "Ada is called Ada King now");
    let listed = || place.run(&["gallery", "list", "--gallery", "people"]);
    assert_eq!(listed(), "Ada King: 1 still\nBo: 1 still\n");
    let (code, message) = place.fail(&rename("Ada King", "Bo"));
    assert!(code == 1 && message.contains("Bo is enrolled already"), "{message}");
    let (code, message) = place.fail(&rename("Eve", "Ada"));
    assert!(code == 1 && message.contains("nobody named Eve is enrolled"), "{message}");
    let (code, message) = place.fail(&rename("Bo", " "));
    assert!(code == 2 && message.contains("cannot be a person's name"), "{message}");
    assert_eq!(listed(), "Ada King: 1 still\nBo: 1 still\n");
    let told: Value = serde_json::from_str(&place.run(&[
        "gallery",
        "rename",
        "Bo",
        "Boris",
        "--json",
        "--gallery",
        "people",
    ]))
    .unwrap();
    assert_eq!(told["name"], "Boris");
}

#[test]
fn a_gallery_is_not_enrolled_into_itself_and_from_another_only_its_stills_are() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.path("people/Ada")).unwrap();
    fs::copy(place.still(KNOWN, 1), place.path("people/Ada/1.jpg")).unwrap();
    let (code, message) = place.fail(&["enroll", "--dir", "people", "--gallery", "people"]);
    assert!(code == 2 && message.contains("people is also the gallery"), "{message}");
    assert_eq!(fs::read_dir(place.path("people")).unwrap().count(), 1);
    // Inside the folder of people, the gallery is nobody.
    for _ in 0..2 {
        place.run(&["enroll", "--dir", "people", "--gallery", "people/gallery"]);
    }
    let listed = |gallery: &str| place.run(&["gallery", "list", "--gallery", gallery]);
    assert_eq!(listed("people/gallery"), "Ada: 1 still\n");
    place.run(&["gallery", "reject", "Ada", &place.still(OTHER, 1), "--gallery", "people/gallery"]);
    place.run(&["enroll", "--dir", "people/gallery", "--gallery", "copy"]);
    assert_eq!(listed("copy"), "Ada: 1 still\n");
    let (code, message) = place.fail(&["enroll", "Ada", "--from", "a.parquet#1", "--face", "2"]);
    assert!(code == 2 && message.contains("no still is given"), "{message}");
}

/// Every template is a chance of a false match, so the threshold angle falls with their number.
#[test]
fn before_many_templates_the_bar_is_stricter_and_an_asked_one_is_not() {
    let Some(place) = Place::new() else { return };
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    let check = |more: &[&str]| -> Value {
        let arguments = [&["gallery", "check", "--gallery", "people", "--json"], more].concat();
        serde_json::from_str(&place.run(&arguments)).unwrap()
    };
    let mut bars = Vec::new();
    // Increasingly dark and mirrored versions: any number of stills.
    for shades in [1, 4] {
        for name in ["Ada", "Boris"] {
            let mut stills = Vec::new();
            for still in ["1.jpg", "2.jpg", "3.jpg"] {
                let picture = image::open(samples.join(name).join(still)).unwrap().to_rgb8();
                for shade in 0..shades {
                    let darker = image::imageops::brighten(&picture, -15 * shade);
                    let mirrored = image::imageops::flip_horizontal(&darker);
                    for (side, picture) in [("left", darker), ("right", mirrored)] {
                        stills.push(place.path(&format!("{name}-{shade}-{side}-{still}")));
                        picture.save(&stills[stills.len() - 1]).unwrap();
                    }
                }
            }
            let stills = stills.iter().map(String::as_str);
            let enroll: Vec<&str> =
                ["enroll", name, "--gallery", "people"].into_iter().chain(stills).collect();
            place.run(&enroll);
        }
        let found = check(&[]);
        let expected = found["expected_false_positive_identification_rate"].as_f64().unwrap();
        assert!(expected <= 0.0201, "{found}");
        bars.push((found["templates"].as_u64().unwrap(), found["threshold"].as_f64().unwrap()));
    }
    assert_eq!(bars.iter().map(|(templates, _)| *templates).collect::<Vec<_>>(), [14, 50]);
    let asked = check(&["--fmr", "1e-3"])["threshold"].as_f64().unwrap();
    assert_eq!(bars[0].1, asked);
    assert!((1.0..4.0).contains(&(asked - bars[1].1)), "{bars:?}");
}
