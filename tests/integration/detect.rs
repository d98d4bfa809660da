//! The detector against the results of the PyTorch port on real photos and a real video.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::place::shared_data;
use image::RgbImage;
use serde::Deserialize;
use sphereface::detect::{BBox, Detector, DetectorConfig, Face, MinFace, Scratch};
use sphereface::models::MTCNN;
use sphereface::nn::Isa;

fn detector(min_face: f32) -> Detector {
    let config = DetectorConfig { min_face: MinFace::Px(min_face), ..DetectorConfig::default() };
    Detector::new(&MTCNN.weights().unwrap(), config, Isa::from_environment().unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Reference {
    results: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
struct Answer {
    w: u32,
    h: u32,
    min20: Faces,
    min40: Faces,
}

#[derive(Deserialize)]
struct Faces {
    faces: Vec<ReferenceFace>,
}

#[derive(Deserialize)]
struct ReferenceFace {
    #[serde(rename = "box")]
    sides: [f32; 4],
    prob: f32,
    landmarks: [[f32; 2]; 5],
}

impl ReferenceFace {
    fn bbox(&self) -> BBox {
        let [x1, y1, x2, y2] = self.sides;
        BBox { x1, y1, x2, y2 }
    }
}

fn reference(path: &Path) -> BTreeMap<String, Answer> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Reference>(&text).unwrap().results
}

/// The differences of our results from the reference's.
#[derive(Default)]
struct Agreement {
    faces: usize,
    /// Faces that only one of the two has.
    unmatched: Vec<String>,
    box_px: Vec<f32>,
    landmark_px: Vec<f32>,
    score: Vec<f32>,
}

impl Agreement {
    fn compare(&mut self, name: &str, ours: &[Face], reference: &[ReferenceFace]) {
        self.faces += reference.len();
        let mut taken = vec![false; ours.len()];
        for theirs in reference {
            let found = (0..ours.len()).find(|&i| !taken[i] && ours[i].bbox.iou(&theirs.bbox()) >= 0.9);
            let Some(i) = found else {
                self.unmatched.push(format!("{name}: missed {:?} ({})", theirs.sides, theirs.prob));
                continue;
            };
            taken[i] = true;
            let BBox { x1, y1, x2, y2 } = ours[i].bbox;
            let sides = [x1, y1, x2, y2].into_iter().zip(theirs.sides);
            self.box_px.push(sides.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max));
            let points = ours[i].landmarks.iter().zip(&theirs.landmarks);
            self.landmark_px.push(points.map(|(a, b)| (a[0] - b[0]).hypot(a[1] - b[1])).fold(0.0, f32::max));
            self.score.push((ours[i].score - theirs.prob).abs());
        }
        for (face, taken) in ours.iter().zip(taken) {
            if !taken {
                self.unmatched.push(format!("{name}: extra {face:?}"));
            }
        }
    }

    /// Every face found and no extra one; boxes and landmarks agree in the median.
    fn check(mut self, what: &str) {
        let median = |values: &mut Vec<f32>| {
            values.sort_by(f32::total_cmp);
            (values[values.len() / 2], values[values.len() - 1])
        };
        let (boxes, landmarks) = (median(&mut self.box_px), median(&mut self.landmark_px));
        let scores = median(&mut self.score);
        println!(
            "{what}: {} faces; median and largest difference: boxes {boxes:?} px, landmarks {landmarks:?} px, score {scores:?}",
            self.faces
        );
        assert!(self.unmatched.is_empty(), "{what}: {:#?}", self.unmatched);
        assert!(boxes.0 <= 1.0 && landmarks.0 <= 0.5, "{what}");
    }
}

/// A photo decoded as the reference had it. JPEG decoders differ in how they enlarge the colour
/// planes, enough to move small faces by a pixel, so JPEGs go through libjpeg-turbo's `djpeg`.
fn still(path: &Path) -> Option<RgbImage> {
    if path.extension().is_some_and(|extension| extension == "png") {
        return Some(image::open(path).unwrap().into_rgb8());
    }
    let output = Command::new("djpeg").args(["-rgb", "-bmp"]).arg(path).output().ok()?;
    assert!(output.status.success(), "djpeg failed on {}", path.display());
    let decoded = image::load_from_memory_with_format(&output.stdout, image::ImageFormat::Bmp);
    Some(decoded.unwrap().into_rgb8())
}

#[test]
fn the_faces_of_every_still_are_the_references() {
    let Some(mtcnn) = shared_data("mtcnn") else { return };
    let answers = reference(&mtcnn.join("reference_stills.json"));
    let (at20, at40) = (detector(20.0), detector(40.0));
    let (mut agreement20, mut agreement40) = (Agreement::default(), Agreement::default());
    let mut scratch = Scratch::default();
    for (name, answer) in &answers {
        let Some(image) = still(&mtcnn.join(name)) else {
            println!("skipped: {name}, no djpeg");
            continue;
        };
        assert_eq!((image.width(), image.height()), (answer.w, answer.h), "{name}");
        agreement20.compare(name, &at20.detect(&image, &mut scratch).unwrap(), &answer.min20.faces);
        agreement40.compare(name, &at40.detect(&image, &mut scratch).unwrap(), &answer.min40.faces);
    }
    agreement20.check("stills, smallest face 20");
    agreement40.check("stills, smallest face 40");
}

#[test]
fn a_part_of_a_photo_is_searched_like_all_of_it() {
    let Some(mtcnn) = shared_data("mtcnn") else { return };
    let (detector, mut scratch) = (detector(40.0), Scratch::default());
    let (mut faces, mut found) = (0, 0);
    for name in reference(&mtcnn.join("reference_stills.json")).keys() {
        let Some(image) = still(&mtcnn.join(name)) else { continue };
        let all = detector.detect(&image, &mut scratch).unwrap();
        let mut part =
            |part: &BBox, smallest_px| detector.detect_in(&image, part, smallest_px, &mut scratch).unwrap();
        let (width, height) = (image.width() as f32, image.height() as f32);
        let frame = BBox { x1: 0.0, y1: 0.0, x2: width, y2: height };
        assert_eq!(part(&frame, 0.0), all, "{name}");
        assert!(part(&BBox { x1: width, x2: 2.0 * width, ..frame }, 0.0).is_empty());
        for face in all.iter().filter(|face| face.score > 0.95) {
            let BBox { x1, y1, x2, y2 } = face.bbox;
            let (x, y) = (face.bbox.width(), face.bbox.height());
            let around = BBox { x1: x1 - x, y1: y1 - y, x2: x2 + x, y2: y2 + y };
            let same = |other: &Face| other.bbox.iou(&face.bbox) > 0.6;
            faces += 1;
            found += usize::from(part(&around, x.min(y) / 2.0).iter().any(same));
            assert!(!part(&around, 2.5 * x.max(y)).iter().any(same), "{name}: smaller than asked for");
        }
    }
    println!("{found} of {faces} faces found in the part around them");
    assert!(20 * found >= 19 * faces, "{found} of {faces}");
}

/// Decodes every n-th frame of a video, with its index.
fn frames(video: &Path, every: usize) -> Option<Vec<(usize, RgbImage)>> {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(video)
        .args(["-vf", &format!("select=not(mod(n\\,{every}))"), "-vsync", "0"])
        .arg(folder.path().join("%d.png"))
        .status()
        .ok()?;
    assert!(status.success(), "ffmpeg failed on {}", video.display());
    let read = |number: usize| {
        let path = folder.path().join(format!("{}.png", number + 1));
        path.is_file().then(|| (number * every, image::open(path).unwrap().into_rgb8()))
    };
    Some((0..).map_while(read).collect())
}

#[test]
fn the_faces_of_the_clip_are_the_references() {
    let (Some(mtcnn), Some(clip)) = (shared_data("mtcnn"), shared_data("video/hamilton/clip.mp4")) else {
        return;
    };
    let every = if std::env::var_os("SPHEREFACE_ALL_FRAMES").is_some() { 1 } else { 9 };
    let Some(frames) = frames(&clip, every) else {
        println!("skipped: no ffmpeg");
        return;
    };
    let answers = reference(&mtcnn.join("reference_hamilton.json"));
    let (at20, at40) = (detector(20.0), detector(40.0));
    let (mut agreement20, mut agreement40) = (Agreement::default(), Agreement::default());
    let mut scratch = Scratch::default();
    assert_eq!(frames.len(), answers.len().div_ceil(every));
    for (index, image) in &frames {
        let name = format!("frame {index}");
        let answer = &answers[&name];
        agreement20.compare(&name, &at20.detect(image, &mut scratch).unwrap(), &answer.min20.faces);
        agreement40.compare(&name, &at40.detect(image, &mut scratch).unwrap(), &answer.min40.faces);
    }
    agreement20.check("clip, smallest face 20");
    agreement40.check("clip, smallest face 40");
}
