//! `sphereface align` through the real program, on the people of the sample.
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

use image::RgbImage;
use serde_json::Value;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people")
}

fn sphereface(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).arg("align").args(arguments).output().unwrap()
}

fn report(arguments: &[&str]) -> Value {
    let output = sphereface(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failure(arguments: &[&str], code: i32) -> String {
    let output = sphereface(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    error
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Every file under a folder, by its path there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = text(path.strip_prefix(folder).unwrap());
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The sample's nine stills, and invalid inputs: a broken image, one without a face, one with two faces, and
/// a file that is not an image. Returns the folder.
fn photos(folder: &Path) -> PathBuf {
    let source = folder.join("photos");
    for (name, bytes) in files(&samples()) {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(source.join("Ada/broken.jpg"), b"\xff\xd8 no picture").unwrap();
    std::fs::write(source.join("Ada/notes.txt"), b"about Ada").unwrap();
    std::fs::create_dir(source.join("Nobody")).unwrap();
    RgbImage::from_pixel(200, 200, image::Rgb([90; 3])).save(source.join("Nobody/wall.png")).unwrap();
    // Ada in the middle, Boris at the side.
    let [ada, boris] =
        ["Ada", "Boris"].map(|name| image::open(samples().join(name).join("1.jpg")).unwrap().into_rgb8());
    let mut both = RgbImage::new(ada.width() + 2 * boris.width(), ada.height().max(boris.height()));
    image::imageops::replace(&mut both, &ada, boris.width().into(), 0);
    image::imageops::replace(&mut both, &boris, 0, 0);
    both.save(source.join("Ada/both.png")).unwrap();
    source
}

#[test]
fn photos_become_crops_whatever_the_threads_and_a_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let source = text(&photos(folder.path()));
    let [one, three] = ["one", "three"].map(|name| folder.path().join(name));
    let first = report(&[&source, &text(&one), "--threads", "1"]);
    assert_eq!(first["images"], 12);
    assert_eq!(first["identities"], 4);
    assert_eq!(first["aligned"], 10, "{first}");
    assert_eq!(first["several_faces"], 1);
    assert_eq!(first["no_face"], serde_json::json!(["Nobody/wall.png"]));
    assert_eq!(first["unreadable"][0]["image"], "Ada/broken.jpg");
    assert_eq!(first["unreadable"].as_array().unwrap().len(), 1);
    assert_eq!(first["without_crops"], serde_json::json!(["Nobody"]));
    assert_eq!(first["ignored"], 1);

    assert_eq!(first, report(&[&source, &text(&three), "--threads", "3"]));
    let crops = files(&one);
    assert_eq!(crops, files(&three), "the number of threads must not matter");
    assert_eq!(crops.len(), 11, "ten crops and the journal: {:?}", crops.keys());
    let crop = image::open(one.join("Boris/1.png")).unwrap().into_rgb8();
    assert_eq!(crop.dimensions(), (96, 112));

    // The one nearest to the centre is Ada: the crop is that of her own still.
    let [from_both, alone] =
        ["Ada/both.png", "Ada/1.png"].map(|name| image::open(one.join(name)).unwrap().into_rgb8());
    let difference = from_both.iter().zip(alone.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
    assert!(difference / (96 * 112 * 3) < 12, "{difference}");

    // A run that was killed: a crop is missing, the journal ends in the middle of a line.
    std::fs::remove_file(one.join("Ada/2.png")).unwrap();
    let journal = String::from_utf8(crops["align.jsonl"].clone()).unwrap();
    std::fs::write(one.join("align.jsonl"), &journal[..journal.len() - 40]).unwrap();
    let again = report(&[&source, &text(&one)]);
    assert_eq!(again["done_before"], 9, "the crop, the last line, and the unreadable one are done: {again}");
    assert_eq!(files(&one), crops);

    // With nothing left to do, nothing is changed; repaired images are processed.
    std::fs::copy(samples().join("Ada/1.jpg"), Path::new(&source).join("Ada/broken.jpg")).unwrap();
    let repaired = report(&[&source, &text(&one)]);
    assert_eq!((&repaired["done_before"], &repaired["aligned"]), (&11.into(), &11.into()));

    // Runs with other settings are refused.
    let error = failure(&[&source, &text(&one), "--size", "112x112"], 2);
    assert!(error.contains("was begun with 96x112 png"), "{error}");
}

#[test]
fn crops_are_passed_through_and_the_wide_ones_hold_the_narrow_ones() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| text(&folder.path().join(name));
    let samples = text(&samples());
    report(&[&samples, &at("narrow")]);
    let wide = report(&[&samples, &at("wide"), "--size", "112x112"]);
    assert_eq!(wide["aligned"], 9);
    let open = |name: &str| image::open(folder.path().join(name)).unwrap().into_rgb8();
    let narrow = open("narrow/Ada/1.png");
    let middle = image::imageops::crop_imm(&open("wide/Ada/1.png"), 8, 0, 96, 112).to_image();
    assert_eq!(middle, narrow, "the middle of the wide crop is the narrow one");

    // Aligned once more, nothing changes, byte for byte.
    let again = report(&[&at("wide"), &at("again"), "--size", "112x112"]);
    let passed = again["already_aligned"].as_u64().unwrap();
    assert_eq!(passed, 9, "{again}");
    let (before, after) = (files(&folder.path().join("wide")), files(&folder.path().join("again")));
    let same = after.iter().filter(|(name, bytes)| before.get(*name) == Some(bytes)).count() as u64;
    assert!(same >= passed, "{same} of {passed}");
    // From wide to narrow, the middle is used; from narrow to wide, the sides are missing.
    report(&[&at("wide"), &at("middle")]);
    assert_eq!(open("middle/Ada/1.png"), narrow);
    let refused = sphereface(&[&at("narrow"), &at("no"), "--size", "112x112", "--json"]);
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["too_narrow"].as_array().unwrap().len(), 9, "{refused}");
}

#[test]
fn a_list_names_the_people_and_jpeg_is_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    let samples = text(&samples());
    std::fs::write(&list, format!("{samples}/Ada/1.jpg 0\n{samples}/Boris/1.jpg 1\nabsent.jpg 1\n")).unwrap();
    let crops = folder.path().join("crops");
    let report = report(&[&text(&list), &text(&crops), "--format", "jpg"]);
    assert_eq!((&report["aligned"], &report["identities"]), (&2.into(), &2.into()), "{report}");
    assert!(report["unreadable"][0]["reason"].as_str().unwrap().contains("absent.jpg"), "{report}");
    assert!(crops.join("1/1.jpg").is_file());
}

#[test]
fn nothing_of_the_users_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let crops = folder.path().join("crops");
    std::fs::create_dir_all(crops.join("Ada")).unwrap();
    std::fs::write(crops.join("Ada/1.png"), b"mine").unwrap();
    let found = report(&[&text(&samples()), &text(&crops)]);
    assert_eq!((&found["kept"], &found["aligned"]), (&1.into(), &8.into()));
    assert_eq!(std::fs::read(crops.join("Ada/1.png")).unwrap(), b"mine");

    std::fs::write(crops.join("align.jsonl"), b"my own notes\n").unwrap();
    let error = failure(&[&text(&samples()), &text(&crops)], 1);
    assert!(error.contains("not a journal of this program"), "{error}");
    assert_eq!(std::fs::read(crops.join("align.jsonl")).unwrap(), b"my own notes\n");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, out) = (text(folder.path()), text(&folder.path().with_extension("out")));
    let inside = text(&samples().join("crops"));
    let samples = text(&samples());
    assert!(failure(&[&samples, &inside], 2).contains("choose a folder outside"));
    assert!(failure(&[&samples, &out, "--min-face", "3"], 2).contains("3"));
    assert!(failure(&[&empty, &out], 1).contains("one folder of images per person"));
    assert!(failure(&["/nonexistent", &out], 1).contains("cannot be read"));
    assert!(!Path::new(&out).exists());
}
