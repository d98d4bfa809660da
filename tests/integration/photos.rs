//! Named faces in photos, as exiftool writes and reads them. The photos are of people who do not exist.
#![cfg(all(feature = "bundled-models", feature = "cli"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use serde_json::Value;

/// Where the face is in both of the pictures used here: centre and size as fractions.
const FACE: [f64; 4] = [0.48, 0.49, 0.44, 0.52];

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `None`, with a message, without exiftool.
    fn new() -> Option<Self> {
        if Command::new("exiftool").arg("-ver").output().is_err() {
            eprintln!("skipped: exiftool is not installed");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn exiftool(&self, arguments: &[&str]) -> String {
        let output = Command::new("exiftool")
            .args(["-q", "-overwrite_original"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The output of exiftool for a file.
    fn read(&self, file: &str) -> Value {
        let text = self.exiftool(&["-j", "-struct", "-XMP:all", file]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_sphereface"))
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        (status.code().unwrap(), out, err)
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    /// The enrolled people, each with the number of stills.
    fn enrolled(&self, gallery: &str) -> Vec<(String, usize)> {
        let listed: Value =
            serde_json::from_str(&self.succeeds(&["gallery", "list", "--gallery", gallery, "--json"]))
                .unwrap();
        let people = listed.as_array().or_else(|| listed["people"].as_array()).unwrap();
        let one = |person: &Value| {
            (person["name"].as_str().unwrap().to_owned(), person["stills"].as_array().map_or(0, Vec::len))
        };
        people.iter().map(one).collect()
    }
}

fn portrait(person: &str, number: u32) -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("samples/people/{person}/{number}.jpg"));
    image::open(path).unwrap().into_rgb8()
}

/// Two people side by side: 600 x 360.
fn pair(left: &str, right: &str, number: u32) -> RgbImage {
    let mut picture = RgbImage::new(600, 360);
    image::imageops::replace(&mut picture, &portrait(left, number), 0, 0);
    image::imageops::replace(&mut picture, &portrait(right, number), 300, 0);
    picture
}

/// Saves a picture turned so that it is shown upright only by this EXIF orientation. The tag itself is still
/// missing.
fn save_turned(picture: &RgbImage, exif: u8, path: &Path) {
    let mut turned = DynamicImage::ImageRgb8(picture.clone());
    let inverse = match exif {
        6 => 8,
        8 => 6,
        same => same,
    };
    turned.apply_orientation(Orientation::from_exif(inverse).unwrap());
    turned.save(path).unwrap();
}

/// A region for exiftool.
fn region(name: &str, [x, y, w, h]: [f64; 4]) -> String {
    format!("{{Area={{X={x},Y={y},W={w},H={h},Unit=normalized}},Name={name},Type=Face}}")
}

fn region_info([width, height]: [u32; 2], regions: &[String]) -> String {
    let list = regions.join(",");
    format!("-RegionInfo={{AppliedToDimensions={{W={width},H={height},Unit=pixel}},RegionList=[{list}]}}")
}

/// The areas of both in a picture of two.
fn areas() -> [[f64; 4]; 2] {
    let [x, y, w, h] = FACE;
    [[x / 2.0, y, w / 2.0, h], [0.5 + x / 2.0, y, w / 2.0, h]]
}

#[test]
fn named_regions_become_a_gallery_wherever_they_are_stored() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.at("photos/deep")).unwrap();
    let [ada, boris] = areas();
    let regions = [region("Ada L.", ada), region("Boris", boris)];
    // Embedded in JPEG, PNG and TIFF.
    for (number, name) in [(1, "one.jpg"), (2, "two.png"), (3, "deep/three.tif")] {
        pair("Ada", "Boris", number).save(place.at("photos").join(name)).unwrap();
        place.exiftool(&[&region_info([600, 360], &regions), &format!("photos/{name}")]);
    }
    // In sidecars: as digiKam and darktable name them, and as Lightroom does, of a larger original.
    portrait("Chloé", 1).save(place.at("photos/c1.jpg")).unwrap();
    place.exiftool(&[
        "-o",
        "photos/c1.jpg.xmp",
        &region_info([300, 360], &[region("Chloé", FACE)]),
        "photos/c1.jpg",
    ]);
    portrait("Chloé", 2).save(place.at("photos/c2.jpg")).unwrap();
    place.exiftool(&[
        "-o",
        "photos/c2.xmp",
        &region_info([3000, 3600], &[region("Chloé", FACE)]),
        "photos/c2.jpg",
    ]);
    // Microsoft's regions alone; a region without a name; a dog; a region without a face; a picture without
    // regions.
    portrait("Chloé", 3).save(place.at("photos/c3.jpg")).unwrap();
    let [x, y, w, h] = FACE;
    let rectangle = format!("{}, {}, {w}, {h}", x - w / 2.0, y - h / 2.0);
    place.exiftool(&[
        &format!(
            "-RegionInfoMP={{Regions=[{{PersonDisplayName=Chloé,Rectangle={}}}]}}",
            rectangle.replace(',', "|,")
        ),
        "photos/c3.jpg",
    ]);
    portrait("Boris", 1).save(place.at("photos/b.jpg")).unwrap();
    let others = [
        format!("{{Area={{X={x},Y={y},W={w},H={h},Unit=normalized}},Type=Face}}"),
        format!("{{Area={{X={x},Y={y},W={w},H={h},Unit=normalized}},Name=Rex,Type=Pet}}"),
        region("Nobody", [0.1, 0.1, 0.1, 0.1]),
    ];
    place.exiftool(&[&region_info([300, 360], &others), "photos/b.jpg"]);
    portrait("Ada", 1).save(place.at("photos/none.jpg")).unwrap();
    fs::write(place.at("photos/notes.txt"), "not a photo").unwrap();

    let (code, out, err) = place.run(&["enroll", "--xmp", "photos", "--gallery", "gallery"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(
        place.enrolled("gallery"),
        [("Ada L.".into(), 3), ("Boris".into(), 3), ("Chloé".into(), 3)],
        "{out}{err}"
    );
    assert!(err.contains("Nobody") && err.contains("no face was found in their region"), "{err}");
    assert!(out.contains("7 photos with 10 named faces, 9 of them found"), "{out}");

    // Each person got their own face.
    for (person, name) in [("Ada", "Ada L."), ("Boris", "Boris"), ("Chloé", "Chloé")] {
        portrait(person, 2).save(place.at("who.png")).unwrap();
        place.succeeds(&[
            "label",
            "who.png",
            "--no-video",
            "--gallery",
            "gallery",
            "--jsonl",
            "who.jsonl",
            "-q",
        ]);
        let line: Value =
            serde_json::from_str(fs::read_to_string(place.at("who.jsonl")).unwrap().trim()).unwrap();
        assert_eq!(line["name"], name);
    }
}

#[test]
fn orientation_and_crop_are_right() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.at("photos")).unwrap();
    // Boris is on the right of the picture as it is shown; where that is stored, exiftool is told.
    let picture = pair("Chloé", "Boris", 1);
    let [_, [x, y, w, h]] = areas();
    let stored = |exif: u8| match exif {
        3 => [1.0 - x, 1.0 - y, w, h],
        6 => [y, 1.0 - x, h, w],
        8 => [1.0 - y, x, h, w],
        _ => [x, y, w, h],
    };
    for exif in [1, 3, 6, 8] {
        let name = format!("photos/turned-{exif}.jpg");
        save_turned(&picture, exif, &place.at(&name));
        let dimensions = if exif >= 5 { [360, 600] } else { [600, 360] };
        let info = region_info(dimensions, &[region("Boris", stored(exif))]);
        place.exiftool(&[&format!("-Orientation#={exif}"), &info, &name]);
    }
    // A program that writes regions relative to the picture as shown, with its dimensions as shown.
    save_turned(&picture, 6, &place.at("photos/shown.jpg"));
    place.exiftool(&[
        "-Orientation#=6",
        &region_info([600, 360], &[region("Boris", [x, y, w, h])]),
        "photos/shown.jpg",
    ]);
    // A program that writes regions relative to the picture as shown, if the dimensions cannot decide: the
    // absence of a face at the other position does.
    let mut alone = RgbImage::new(600, 360);
    image::imageops::replace(&mut alone, &portrait("Boris", 1), 300, 0);
    save_turned(&alone, 3, &place.at("photos/upside.jpg"));
    place.exiftool(&[
        "-Orientation#=3",
        &region_info([600, 360], &[region("Boris", [x, y, w, h])]),
        "photos/upside.jpg",
    ]);
    // Regions of the right half, to which the photo was cropped according to a sidecar.
    picture.save(place.at("photos/cropped.jpg")).unwrap();
    place.exiftool(&[
        "-o",
        "photos/cropped.xmp",
        "-XMP-crs:HasCrop=True",
        "-XMP-crs:CropLeft=0.5",
        "-XMP-crs:CropRight=1",
        "-XMP-crs:CropTop=0",
        "-XMP-crs:CropBottom=1",
        "-XMP-crs:CropAngle=0",
        &region_info([300, 360], &[region("Boris", FACE)]),
        "photos/cropped.jpg",
    ]);
    // Regions of a picture with another aspect ratio.
    picture.save(place.at("photos/replaced.jpg")).unwrap();
    place.exiftool(&[&region_info([400, 400], &[region("Boris", FACE)]), "photos/replaced.jpg"]);
    let (code, out, err) = place.run(&["enroll", "--xmp", "photos", "--gallery", "gallery"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(place.enrolled("gallery"), [("Boris".into(), 7)], "{out}{err}");
    assert!(err.contains("replaced.jpg") && err.contains("400x400"), "{err}");
    portrait("Boris", 2).save(place.at("who.png")).unwrap();
    portrait("Chloé", 1).save(place.at("not.png")).unwrap();
    for (file, named) in [("who.png", true), ("not.png", false)] {
        place.succeeds(&["label", file, "--no-video", "--gallery", "gallery", "--jsonl", "who.jsonl", "-q"]);
        let line: Value =
            serde_json::from_str(fs::read_to_string(place.at("who.jsonl")).unwrap().trim()).unwrap();
        assert_eq!(line["name"] == "Boris", named, "{file}: the wrong half was enrolled");
    }
}

#[test]
fn names_go_into_the_sidecar_and_everything_else_stays() {
    let Some(place) = Place::new() else { return };
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    place.succeeds(&["enroll", "--dir", people.to_str().unwrap(), "--gallery", "gallery"]);
    let picture = pair("Ada", "Boris", 2);
    let [ada, boris] = areas();
    let near = |found: &Value, [x, y, w, h]: [f64; 4]| {
        let number = |key: &str| found["Area"][key].as_f64().unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 0.05;
        // Boxes of the detector differ more in size than in place.
        let alike = |a: f64, b: f64| (a - b).abs() < 0.12;
        assert!(close(number("X"), x) && close(number("Y"), y), "{found}, not {x},{y}");
        assert!(alike(number("W"), w) && alike(number("H"), h), "{found}, not {w},{h}");
    };
    let by_name = |info: &Value, name: &str| {
        let list = info["RegionInfo"]["RegionList"].as_array().unwrap_or_else(|| panic!("{info}"));
        let found: Vec<_> = list.iter().filter(|one| one["Name"] == name).cloned().collect();
        assert_eq!(found.len(), 1, "{name}: {info}");
        found[0].clone()
    };
    // A new sidecar beside a turned photo.
    save_turned(&picture, 6, &place.at("turned.jpg"));
    place.exiftool(&["-Orientation#=6", "turned.jpg"]);
    let before = fs::read(place.at("turned.jpg")).unwrap();
    place.succeeds(&["label", "turned.jpg", "--xmp", "--gallery", "gallery", "-q"]);
    assert!(fs::read(place.at("turned.jpg")).unwrap() == before, "the photo is left alone");
    let info = place.read("turned.jpg.xmp");
    assert_eq!(info["RegionInfo"]["AppliedToDimensions"]["W"], 360, "{info}");
    near(&by_name(&info, "Boris"), [boris[1], 1.0 - boris[0], boris[3], boris[2]]);
    near(&by_name(&info, "Ada"), [ada[1], 1.0 - ada[0], ada[3], ada[2]]);
    assert_eq!(info["RegionInfoMP"]["Regions"].as_array().unwrap().len(), 2, "{info}");
    // Written again, it is the same; and it can be enrolled from.
    let first = fs::read_to_string(place.at("turned.jpg.xmp")).unwrap();
    place.succeeds(&["label", "turned.jpg", "--xmp", "--gallery", "gallery", "-q"]);
    assert_eq!(fs::read_to_string(place.at("turned.jpg.xmp")).unwrap(), first);
    fs::create_dir(place.at("again")).unwrap();
    for name in ["turned.jpg", "turned.jpg.xmp"] {
        fs::copy(place.at(name), place.at("again").join(name)).unwrap();
    }
    place.succeeds(&["enroll", "--xmp", "again", "--gallery", "other"]);
    assert_eq!(place.enrolled("other"), [("Ada".into(), 1), ("Boris".into(), 1)]);

    // An existing sidecar, with a name given by hand and much other content.
    picture.save(place.at("kept.jpg")).unwrap();
    place.exiftool(&[
        "-o",
        "kept.xmp",
        "-XMP:Rating=4",
        "-XMP-dc:Subject=party",
        "-XMP-dc:Subject=Mum & Dad",
        "-XMP-crs:Exposure2012=+0.50",
        &region_info([600, 360], &[region("Mum", ada)]),
        "kept.jpg",
    ]);
    place.succeeds(&["label", "kept.jpg", "--xmp", "--gallery", "gallery", "-q"]);
    assert!(!place.at("kept.jpg.xmp").exists(), "the sidecar that was there is used");
    let info = place.read("kept.xmp");
    near(&by_name(&info, "Mum"), ada);
    near(&by_name(&info, "Boris"), boris);
    assert_eq!(
        info["RegionInfo"]["RegionList"].as_array().unwrap().len(),
        2,
        "Ada has a name already: {info}"
    );
    assert_eq!(info["Rating"], 4);
    assert_eq!(info["Subject"], serde_json::json!(["party", "Mum & Dad"]));
    assert_eq!(
        info["Exposure2012"].to_string().trim_matches('"').trim_start_matches('+'),
        "0.5".to_owned() + if info["Exposure2012"].is_string() { "0" } else { "" }
    );

    // A photo with its own packet: a new sidecar begins with that. The file is chosen by the user.
    picture.save(place.at("own.jpg")).unwrap();
    place.exiftool(&["-XMP:Rating=3", "own.jpg"]);
    place.succeeds(&["label", "own.jpg", "--xmp=named.xmp", "--gallery", "gallery", "-q"]);
    let info = place.read("named.xmp");
    assert_eq!(info["Rating"], 3);
    near(&by_name(&info, "Ada"), ada);
    // A validator of XMP finds no errors.
    let said = place.exiftool(&["-validate", "-warning", "-error", "-a", "named.xmp"]);
    assert!(!said.to_lowercase().contains("error"), "{said}");
}

/// A rectangle as Picasa writes it.
fn rect64([x, y, w, h]: [f64; 4]) -> String {
    let sides = [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0];
    let digits: String = sides.iter().map(|side| format!("{:04x}", (side * 65536.0) as u16)).collect();
    format!("rect64({})", digits.trim_start_matches('0'))
}

#[test]
fn picasas_lists_become_a_gallery() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { folder };
    fs::create_dir_all(place.at("photos/old")).unwrap();
    let [ada, boris] = areas();
    pair("Ada", "Boris", 1).save(place.at("photos/both.jpg")).unwrap();
    portrait("Chloé", 1).save(place.at("photos/old/C.JPG")).unwrap();
    portrait("Boris", 2).save(place.at("photos/unnamed.jpg")).unwrap();
    let list = format!(
        "[both.jpg]\r\nfaces={},aa11;{},bb22\r\nbackuphash=1\r\n[unnamed.jpg]\r\nfaces={},ffffffffffffffff\r\n\
         [Contacts2]\r\naa11=Ada L.;;\r\nbb22=Boris;;\r\n",
        rect64(ada),
        rect64(boris),
        rect64(FACE)
    );
    fs::write(place.at("photos/.picasa.ini"), list).unwrap();
    let list = format!("[c.jpg]\nfaces={},cc33\n[Contacts]\ncc33=Chloé;c@example.org;\n", rect64(FACE));
    fs::write(place.at("photos/old/Picasa.ini"), list).unwrap();
    let out = place.succeeds(&["enroll", "--xmp", "photos", "--gallery", "gallery"]);
    assert!(out.contains("2 photos with 3 named faces, 3 of them found"), "{out}");
    assert_eq!(place.enrolled("gallery"), [("Ada L.".into(), 1), ("Boris".into(), 1), ("Chloé".into(), 1)]);
    // Each person got their own face.
    portrait("Boris", 3).save(place.at("who.png")).unwrap();
    place.succeeds(&["label", "who.png", "--gallery", "gallery", "--jsonl", "who.jsonl", "-q"]);
    let line: Value =
        serde_json::from_str(fs::read_to_string(place.at("who.jsonl")).unwrap().trim()).unwrap();
    assert_eq!(line["name"], "Boris");
}

#[test]
fn regions_inside_avif_files_are_read() {
    let Some(place) = Place::new() else { return };
    fs::create_dir_all(place.at("photos")).unwrap();
    pair("Ada", "Boris", 1).save(place.at("pair.png")).unwrap();
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i", "pair.png", "-c:v", "libaom-av1", "-cpu-used", "8"])
        .args(["-still-picture", "1", "-crf", "10", "-pix_fmt", "yuv420p", "-f", "avif", "photos/pair.avif"])
        .current_dir(place.folder.path())
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("skipped: ffmpeg writes no AVIF files here");
        return;
    }
    let [ada, boris] = areas();
    let regions = [region("Ada L.", ada), region("Boris", boris)];
    place.exiftool(&[&region_info([600, 360], &regions), "photos/pair.avif"]);
    let (code, out, err) = place.run(&["enroll", "--xmp", "photos", "--gallery", "gallery"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(place.enrolled("gallery"), [("Ada L.".into(), 1), ("Boris".into(), 1)], "{out}{err}");
}

#[test]
fn names_go_into_the_photo_itself_and_everything_else_stays() {
    let Some(place) = Place::new() else { return };
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    place.succeeds(&["enroll", "--dir", people.to_str().unwrap(), "--gallery", "gallery"]);
    let picture = pair("Ada", "Boris", 2);
    save_turned(&picture, 6, &place.at("photo.jpg"));
    place.exiftool(&[
        "-Orientation#=6",
        "-Artist=somebody",
        "-IPTC:Keywords=party",
        "-Comment=a word",
        "-XMP:Rating=4",
        &region_info([360, 600], &[region("Mum", [0.2, 0.2, 0.1, 0.1])]),
        "photo.jpg",
    ]);
    fs::write(
        place.at("photo.jpg"),
        [fs::read(place.at("photo.jpg")).unwrap(), b"a trailer".to_vec()].concat(),
    )
    .unwrap();
    let all = |file: &str| {
        let mut told: Value = serde_json::from_str::<Value>(&place.exiftool(&[
            "-j",
            "-struct",
            "-a",
            "-G1",
            "-All:all",
            "-x",
            "System:all",
            "-x",
            "ExifTool:all",
            file,
        ]))
        .unwrap()[0]
            .clone();
        let regions = ["XMP-mwg-rs:RegionInfo", "XMP-MP:RegionInfoMP"].map(|key| told[key].take());
        let fields = told.as_object_mut().unwrap();
        fields.retain(|_, value| !value.is_null());
        (told, regions)
    };
    let pixels = |file: &str| image::open(place.at(file)).unwrap().into_rgb8();
    fs::copy(place.at("photo.jpg"), place.at("before.jpg")).unwrap();
    let out = place.succeeds(&["label", "photo.jpg", "--xmp-embed", "--gallery", "gallery", "-q"]);
    assert!(!place.at("photo.jpg.xmp").exists(), "{out}");
    let ((now, [regions, microsoft]), (mut before, _)) = (all("photo.jpg"), all("before.jpg"));
    before["SourceFile"] = now["SourceFile"].clone();
    assert_eq!(now, before, "what exiftool tells of all else");
    assert_eq!(now["XMP-xmp:Rating"], 4, "{now}");
    assert!(pixels("photo.jpg") == pixels("before.jpg"));
    let mut names: Vec<_> =
        regions["RegionList"].as_array().unwrap().iter().map(|one| one["Name"].to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, ["\"Ada\"", "\"Boris\"", "\"Mum\""], "{regions}");
    assert_eq!(microsoft["Regions"].as_array().unwrap().len(), 2, "{microsoft}");
    // Only the packet has changed, and the trailer is still there.
    let [new, old] = ["photo.jpg", "before.jpg"].map(|file| fs::read(place.at(file)).unwrap());
    let (same, end) = (new.iter().zip(&old).take_while(|(a, b)| a == b).count(), b"a trailer");
    let same_end = new.iter().rev().zip(old.iter().rev()).take_while(|(a, b)| a == b).count();
    assert!(new.ends_with(end) && same + same_end + 20_000 > old.len().min(new.len()), "{same} {same_end}");
    // Written again, it is the same file; and it can be enrolled from.
    place.succeeds(&["label", "photo.jpg", "--xmp-embed", "--gallery", "gallery", "-q"]);
    assert!(fs::read(place.at("photo.jpg")).unwrap() == new);
    fs::create_dir(place.at("again")).unwrap();
    fs::copy(place.at("photo.jpg"), place.at("again/photo.jpg")).unwrap();
    place.succeeds(&["enroll", "--xmp", "again", "--gallery", "other"]);
    assert_eq!(place.enrolled("other"), [("Ada".into(), 1), ("Boris".into(), 1)]);
    let said = place.exiftool(&["-validate", "-warning", "-error", "-a", "photo.jpg"]);
    assert!(!said.to_lowercase().contains("error"), "{said}");
    // A photo without metadata.
    picture.save(place.at("plain.jpg")).unwrap();
    place.succeeds(&["label", "plain.jpg", "--xmp-embed", "--gallery", "gallery", "-q"]);
    assert_eq!(place.read("plain.jpg")["RegionInfo"]["RegionList"].as_array().unwrap().len(), 2);
    // A photo that cannot be written, or whose sidecar takes precedence, is unchanged.
    fs::copy(place.at("plain.jpg"), place.at("shadowed.jpg")).unwrap();
    place.succeeds(&["label", "shadowed.jpg", "--xmp", "--gallery", "gallery", "-q"]);
    picture.save(place.at("picture.png")).unwrap();
    for (file, words) in [("shadowed.jpg", "shadowed.jpg.xmp take precedence"), ("picture.png", "JPEG files")]
    {
        let before = fs::read(place.at(file)).unwrap();
        let (code, _, err) = place.run(&["label", file, "--xmp-embed", "--gallery", "gallery", "-q"]);
        assert!(code == 1 && err.contains(words), "{err}");
        assert!(fs::read(place.at(file)).unwrap() == before);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { folder };
    portrait("Ada", 1).save(place.at("a.jpg")).unwrap();
    place.succeeds(&["enroll", "Ada", "a.jpg", "--gallery", "g"]);
    fs::write(place.at("bad.xmp"), "<not-xmp>").unwrap();
    fs::write(place.at("v.mp4"), "").unwrap();
    for (arguments, code, words) in [
        (&["label", "a.jpg", "--xmp"][..], 2, "--gallery"),
        (&["label", "v.mp4", "--no-video", "--xmp", "--gallery", "g"], 2, "photos only"),
        (&["label", "a.jpg", "--xmp-embed"], 2, "--xmp-embed"),
        (&["label", "v.mp4", "--no-video", "--xmp-embed", "--gallery", "g"], 2, "photos only"),
        (&["label", "a.jpg", "--xmp-embed", "--xmp", "--gallery", "g"], 2, "cannot be used with"),
        (&["label", "a.jpg", "--xmp=a.txt", "--gallery", "g"], 2, ".xmp"),
        (&["label", "a.jpg", "--xmp=-", "--gallery", "g"], 2, ".xmp"),
        (&["label", "a.jpg", "--xmp=bad.xmp", "--gallery", "g"], 1, "bad.xmp"),
        (&["label", "a.jpg", "--xmp=none/a.xmp", "--gallery", "g"], 1, "none/a.xmp"),
        (&["enroll", "Ada", "a.jpg", "--xmp", "."], 2, "--xmp"),
        (&["enroll", "--xmp", ".", "--face", "1"], 2, "--xmp"),
        (&["enroll", "--xmp", "nowhere"], 1, "nowhere"),
    ] {
        let (found, _, err) = place.run(arguments);
        assert!(found == code && err.contains(words), "{arguments:?}: {found} {err}");
    }
    // Nobody is named in this folder.
    fs::remove_file(place.at("bad.xmp")).unwrap();
    let (code, _, err) = place.run(&["enroll", "--xmp", ".", "--gallery", "new"]);
    assert!(code == 1 && err.contains("nobody was enrolled"), "{err}");
}
