//! People who follow one another at one place, on one backdrop: slides, the speaker view of a conference, a
//! kiosk camera. Nobody may get the name of the person before.
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
use std::process::Command;

use image::{Rgb, RgbImage, imageops};
use serde_json::Value;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

/// A person in the picture: who, which still, and for how many frames; then the number of empty frames.
struct Appearance {
    name: &'static str,
    still: u32,
    frames: u32,
    empty: u32,
}

const fn seen(name: &'static str, still: u32, frames: u32, empty: u32) -> Appearance {
    Appearance { name, still, frames, empty }
}

/// Boris is never enrolled.
const CAST: &[Appearance] = &[
    seen("Ada", 2, 30, 0),
    seen("Boris", 1, 30, 0),
    seen("Ada", 3, 12, 5),
    seen("Boris", 2, 20, 1),
    seen("Chloé", 2, 9, 0),
    seen("Ada", 2, 4, 0),
    seen("Chloé", 3, 25, 0),
    seen("Boris", 3, 2, 0),
    seen("Ada", 3, 16, 0),
];

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn sphereface(&self, arguments: &[&str]) {
        self.run(env!("CARGO_BIN_EXE_sphereface"), arguments);
    }

    /// A gallery of Ada and Chloé, one still each.
    fn gallery(&self) -> String {
        let gallery = self.path("gallery");
        for name in ["Ada", "Chloé"] {
            let still = format!("{}/samples/people/{name}/1.jpg", env!("CARGO_MANIFEST_DIR"));
            self.sphereface(&["enroll", name, &still, "--gallery", &gallery]);
        }
        gallery
    }

    /// The video, and who is in each of its frames.
    fn video(
        &self,
        backdrop: &dyn Fn(u32, u32) -> [u8; 3],
        scale: f32,
    ) -> (String, Vec<Option<&'static str>>) {
        let frames = self.folder.path().join("frames");
        fs::create_dir_all(&frames).unwrap();
        let empty = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb(backdrop(x, y)));
        let mut whose = Vec::new();
        let mut add = |picture: &RgbImage, who| {
            picture.save(frames.join(format!("{:04}.bmp", whose.len()))).unwrap();
            whose.push(who);
        };
        for Appearance { name, still, frames, empty: pause } in CAST {
            let face = face(name, *still, scale);
            for frame in 0..*frames {
                let mut picture = empty.clone();
                let sway = (3.0 * (frame as f32 / 5.0).sin()) as i64;
                paste(&mut picture, &face, sway);
                add(&picture, Some(*name));
            }
            (0..*pause).for_each(|_| add(&empty, None));
        }
        let video = self.path("video.mp4");
        let pictures = frames.join("%04d.bmp");
        self.run(
            "ffmpeg",
            &[
                "-v",
                "error",
                "-y",
                "-r",
                "25",
                "-i",
                pictures.to_str().unwrap(),
                "-pix_fmt",
                "yuv420p",
                "-crf",
                "18",
                &video,
            ],
        );
        fs::remove_dir_all(&frames).unwrap();
        (video, whose)
    }
}

/// The face of a still of the sample's people.
fn face(name: &str, still: u32, scale: f32) -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("samples/people/{name}/{still}.jpg"));
    let picture = image::open(path).unwrap().to_rgb8();
    let face = imageops::crop_imm(&picture, 50, 40, 190, 270).to_image();
    let side = |pixels: u32| (pixels as f32 * scale) as u32;
    imageops::resize(&face, side(190), side(270), imageops::FilterType::Triangle)
}

/// Puts an ellipse of the face into the middle of a picture, or a little beside it.
fn paste(picture: &mut RgbImage, face: &RgbImage, sway: i64) {
    let (width, height) = face.dimensions();
    for (x, y, pixel) in face.enumerate_pixels() {
        let part = |at: u32, side: u32| (at as f32 + 0.5) / side as f32 * 2.0 - 1.0;
        if part(x, width).hypot(part(y, height)) < 1.0 {
            let left = i64::from((WIDTH - width) / 2 + x) + sway;
            picture.put_pixel(left as u32, (HEIGHT - height) / 2 + y, *pixel);
        }
    }
}

/// Views with the right name, and errors: names of another person, and tracks of several people.
fn judged(path: &str, whose: &[Option<&'static str>]) -> (usize, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let (mut right, mut wrong) = (0, Vec::new());
    let mut people: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for face in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let frame = face["frame"].as_u64().unwrap();
        let Some(who) = whose[frame as usize] else { continue };
        match face["name"].as_str() {
            Some(name) if name == who => right += 1,
            Some(name) => wrong.push(format!("frame {frame}: {who} is called {name}")),
            None => {}
        }
        people.entry(face["track"].as_u64().unwrap()).or_default().insert(who);
    }
    wrong.extend(
        people
            .iter()
            .filter(|(_, people)| people.len() > 1)
            .map(|(track, people)| format!("track {track}: {people:?}")),
    );
    (right, wrong)
}

fn nobody_takes_over_a_name(backdrop: &dyn Fn(u32, u32) -> [u8; 3], scale: f32) {
    let stage = Stage { folder: tempfile::tempdir().unwrap() };
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    let (gallery, (video, whose)) = (stage.gallery(), stage.video(backdrop, scale));
    let list = stage.path("faces.jsonl");
    let label = |mode: &[&str]| {
        let arguments = ["label", &video, "--no-video", "--gallery", &gallery, "--jsonl", &list];
        stage.sphereface(&[&arguments, mode].concat());
        judged(&list, &whose)
    };
    let (alone, _) = label(&["--per-frame"]);
    assert!(alone > 60, "{alone} views are right frame by frame");
    for mode in [&[][..], &["--online"]] {
        let (right, wrong) = label(mode);
        assert!(wrong.is_empty(), "{mode:?}: {wrong:#?}");
        assert!(right >= alone, "{mode:?}: {right} views are right, {alone} frame by frame");
    }
    // A stranger is covered from the first frame on.
    let (covered, audit) = (stage.path("covered.mp4"), stage.path("audit.jsonl"));
    stage.sphereface(&[
        "label",
        &video,
        "-o",
        &covered,
        "--gallery",
        &gallery,
        "--redact",
        "unknown",
        "--redact-audit",
        &audit,
    ]);
    for line in fs::read_to_string(&audit).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let frame = line["frame"].as_u64().unwrap();
        let faces = line["faces"].as_array().unwrap();
        if whose[frame as usize] == Some("Boris") {
            assert!(faces.iter().all(|face| face["covered"] == true), "frame {frame}: {line}");
        }
    }
}

#[test]
fn same_place_cut_on_a_plain_backdrop() {
    nobody_takes_over_a_name(&|_, _| [96, 104, 112], 1.0);
}

#[test]
fn same_place_cut_on_a_patterned_backdrop_of_small_faces() {
    let stripes =
        |x: u32, y: u32| if (x / 20 + y / 30).is_multiple_of(2) { [40, 60, 90] } else { [170, 150, 120] };
    nobody_takes_over_a_name(&stripes, 0.5);
}

/// Slide shows dissolve one picture into the next, in which no frame differs much from the one before it.
#[test]
fn who_appears_in_a_dissolve_does_not_take_over_the_name() {
    /// Frames before the transition, and of each of the two pictures.
    const BEFORE: usize = 20;
    const FRAMES: usize = 50;
    let stage = Stage { folder: tempfile::tempdir().unwrap() };
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    let (gallery, video, list) = (stage.path("all"), stage.path("dissolve.mp4"), stage.path("faces.jsonl"));
    stage.sphereface(&["enroll", "--dir", samples.to_str().unwrap(), "--gallery", &gallery]);
    for (first, second, transition, frames) in [
        (("Ada", 1), ("Chloé", 1), "fade", 4),
        (("Ada", 1), ("Boris", 2), "fade", 8),
        (("Boris", 3), ("Ada", 2), "fade", 4),
        (("Ada", 1), ("Boris", 1), "fade", 25),
        (("Ada", 1), ("Boris", 1), "dissolve", 10),
        (("Ada", 1), ("Boris", 1), "pixelize", 10),
        (("Boris", 3), ("Ada", 2), "hblur", 10),
    ] {
        let still = |(name, number): (&str, u32)| format!("{}/{name}/{number}.jpg", samples.display());
        let seconds = |frames: usize| (frames as f64 / 25.0).to_string();
        let filter = format!(
            "[0]scale=200:240,fps=25[a];[1]scale=200:240,fps=25[b];\
             [a][b]xfade=transition={transition}:duration={}:offset={},format=yuv420p",
            seconds(frames),
            seconds(BEFORE)
        );
        let length = seconds(FRAMES);
        let still = [still(first), still(second)];
        let picture = |path| ["-loop", "1", "-t", length.as_str(), "-r", "25", "-i", path];
        let inputs = [picture(still[0].as_str()), picture(still[1].as_str())].concat();
        let how = ["-filter_complex", &filter, "-c:v", "libx264", "-crf", "18", "-y", &video];
        stage.run("ffmpeg", &[&["-v", "error"], &inputs[..], &how].concat());
        for mode in [&[][..], &["--online"]] {
            let arguments = ["label", &video, "--no-video", "--gallery", &gallery, "--jsonl", &list];
            stage.sphereface(&[&arguments, mode].concat());
            let what = format!("{} to {} by {transition} in {frames} frames, {mode:?}", first.0, second.0);
            let mut right = [0, 0];
            for face in fs::read_to_string(&list).unwrap().lines() {
                let face: Value = serde_json::from_str(face).unwrap();
                let frame = face["frame"].as_u64().unwrap() as usize;
                let part = match frame {
                    _ if frame < BEFORE => 0,
                    _ if frame > BEFORE + frames => 1,
                    _ => continue,
                };
                let name = face["name"].as_str();
                let own = [first.0, second.0][part];
                right[part] += usize::from(name == Some(own));
                assert!(name.is_none_or(|name| name == own), "{what}: frame {frame} shows {own}: {face}");
            }
            assert!(right.iter().all(|&right| right > 12), "{what}: {right:?} views are right");
        }
    }
}
