//! `sphereface bench`, and results that do not depend on the machine: the same labels on every instruction
//! set, and bounded memory.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::RgbImage;
use serde_json::Value;
use sphereface::bench::inputs;
use sphereface::models::Precision;
use sphereface::models::arch::Architecture;
use sphereface::nn::{Arithmetic, ArithmeticChoice, Device, DeviceChoice, Isa};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).output().unwrap()
}

/// Standard output of a run that went well.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn sample(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name).to_str().unwrap().to_owned()
}

/// A gallery of the people of the bundled sample.
fn gallery(folder: &Path) -> String {
    let gallery = folder.join("gallery").to_str().unwrap().to_owned();
    said(&program(&["enroll", "--dir", &sample("people"), "--gallery", &gallery]));
    gallery
}

#[test]
fn a_machine_is_measured_in_full() {
    let text = said(&program(&[
        "bench",
        "--json",
        "--seconds",
        "0.001",
        "--batches",
        "1,2",
        "--frames",
        "161x90",
        "--threads",
        "2",
        "--device",
        "cpu",
    ]));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(!report["device"].as_str().unwrap().is_empty());
    assert_eq!(report["peak"].as_array().unwrap().len(), 2);
    // The model and six networks of the paper, two batches, one and two threads.
    assert_eq!(report["embedding"].as_array().unwrap().len(), 7 * 2 * 2);
    assert_eq!(report["refinement"].as_array().unwrap().len(), 2 * 2);
    assert_eq!(report["detection"].as_array().unwrap().len(), 2 * 2);
    for table in ["embedding", "refinement", "detection"] {
        for row in report[table].as_array().unwrap() {
            let number = |key: &str| row[key].as_f64().unwrap();
            assert!(number("ms") > 0.0 && (number("ms") * number("per_s") - 1000.0).abs() < 1e-6, "{row}");
            assert!(row["gflops"].is_null() || number("share_of_peak") > 0.0, "{row}");
        }
    }
}

#[test]
fn training_is_measured_part_by_part() {
    let text = said(&program(&[
        "bench",
        "train",
        "--json",
        "--preset",
        "distill-small",
        "--depth",
        "4",
        "--channels",
        "4,4,4,4",
        "--loss-weight",
        "1",
        "--classes",
        "5",
        "--batch",
        "4",
        "--batches",
        "2",
    ]));
    let report: Value = serde_json::from_str(&text).unwrap();
    let parts = ["forward_ms", "losses_ms", "backward_ms", "update_ms"];
    let sum: f64 = parts.iter().map(|part| report[part].as_f64().unwrap()).sum();
    let whole = 1000.0 / report["images_per_s"].as_f64().unwrap();
    assert!(sum > 0.0 && sum < 1.5 * whole, "{report}");
    assert!(report["loading_ms"].is_null(), "{report}");
}

#[test]
fn what_cannot_be_measured_is_a_usage_error() {
    for arguments in [
        &["bench", "--seconds", "0"][..],
        &["bench", "--batches", "0"],
        &["bench", "--frames", "1280"],
        &["bench", "--device", "gpu"],
        &["bench", "train", "--depth", "21"],
        &["bench", "train", "--classes", "1"],
    ] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// All people of the sample in one picture, in stills that were not enrolled: their mirror images.
fn group(folder: &Path) -> String {
    let people: Vec<RgbImage> = ["Ada", "Boris", "Chloé"]
        .iter()
        .map(|name| image::open(sample(&format!("people/{name}/2.jpg"))).unwrap().to_rgb8())
        .map(|still| image::imageops::flip_horizontal(&still))
        .collect();
    let (width, height) = people.iter().fold((0, 0), |(x, y), one| (x + one.width(), y.max(one.height())));
    let mut group = RgbImage::new(width, height);
    let mut x = 0;
    for one in &people {
        image::imageops::replace(&mut group, one, x, 0);
        x += i64::from(one.width());
    }
    let still = folder.join("group.png");
    group.save(&still).unwrap();
    still.to_str().unwrap().to_owned()
}

fn label(still: &str, isa: Isa, further: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["label", still, "--no-video", "--jsonl", "-"])
        .args(further)
        .env("SPHEREFACE_ISA", isa.to_string())
        .output()
        .unwrap()
}

fn faces(output: &Output) -> Vec<Value> {
    said(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Panics unless the labels are the same, the boxes to 0.02 px and the angles to `angle_deg` degrees.
fn assert_same(found: &[Value], expected: &[Value], angle_deg: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (face, expected) in found.iter().zip(expected) {
        assert_eq!(face["name"], expected["name"], "{what}");
        for (a, b) in face["box"].as_array().unwrap().iter().zip(expected["box"].as_array().unwrap()) {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 0.02, "{what}: {face}");
        }
        let angle = |face: &Value| face["angle_deg"].as_f64().unwrap();
        assert!((angle(face) - angle(expected)).abs() < angle_deg, "{what}: {face}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_labels() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery, still) = (gallery(folder.path()), group(folder.path()));
    let f32 = ["--precision", "f32", "--gallery", &gallery];
    let expected = faces(&label(&still, Isa::Portable, &f32));
    assert_eq!(expected.iter().filter(|face| face["name"].is_string()).count(), 3, "{expected:?}");
    for isa in Isa::available() {
        let found = faces(&label(&still, isa, &f32));
        assert_same(&found, &expected, 0.02, &isa.to_string());
        // The arithmetic of this CPU gives the same names, at angles that differ by little.
        let found = faces(&label(&still, isa, &["--gallery", &gallery]));
        assert_same(&found, &expected, 0.5, &isa.to_string());
    }
}

#[test]
fn the_smaller_model_names_the_same_people_with_the_gallery_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery, still) = (gallery(folder.path()), group(folder.path()));
    let names = |model: &str| -> Vec<Value> {
        let output = label(&still, Isa::best(), &["--gallery", &gallery, "--model", model]);
        faces(&output).iter().map(|face| face["name"].clone()).collect()
    };
    assert_eq!(names("sphereface20"), names("sphereface"));
}

#[test]
fn bf16_gives_the_same_labels_where_there_is_an_instruction_for_it_and_is_refused_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery, still) = (gallery(folder.path()), group(folder.path()));
    let expected = faces(&label(&still, Isa::best(), &["--precision", "f32", "--gallery", &gallery]));
    for isa in Isa::available() {
        // Without a gallery nothing is embedded, but the option is refused all the same.
        for further in [&["--precision", "bf16", "--gallery", &gallery][..], &["--precision", "bf16"]] {
            let output = label(&still, isa, further);
            if Arithmetic::Bf16.check(isa).is_err() {
                println!("{isa} code has no instruction for bf16");
                assert_eq!(output.status.code(), Some(2));
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(said.contains(&format!("{isa} code has no instruction for it")), "{said}");
            } else if further.contains(&"--gallery") {
                assert_same(&faces(&output), &expected, 0.5, &isa.to_string());
            } else {
                assert_eq!(faces(&output).len(), expected.len());
            }
        }
    }
}

#[test]
fn int8_gives_the_same_names_where_there_is_amx_and_is_refused_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (gallery, still) = (gallery(folder.path()), group(folder.path()));
    let expected = faces(&label(&still, Isa::best(), &["--precision", "f32", "--gallery", &gallery]));
    let refused = |output: &Output, code: i32, reason: &str| {
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(reason), "{said}");
    };
    let small = folder.path().join("sphereface4.safetensors").to_string_lossy().into_owned();
    inputs::weights(&Architecture::of_depth(4).unwrap()).save(small.as_ref(), Precision::F32).unwrap();
    for isa in Isa::available() {
        let output = label(&still, isa, &["--precision", "int8", "--gallery", &gallery]);
        if Arithmetic::Int8.check(isa).is_err() {
            println!("{isa} code multiplies no tiles here");
            refused(&output, 2, "int8 needs a CPU with AMX");
            continue;
        }
        assert_same(&faces(&output), &expected, 8.0, &isa.to_string());
        let with_small = ["--precision", "int8", "--gallery", &gallery, "--model", &small];
        let output = label(&still, isa, &with_small);
        refused(
            &output,
            1,
            "sphereface4.safetensors cannot be used: the weights carry no scales for 8-bit integers",
        );
    }
}

#[test]
fn the_first_line_tells_the_arithmetic_and_why() {
    let still = sample("people/Ada/1.jpg");
    let first = |isa, further: &[&str]| {
        let output = label(&still, isa, further);
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().next().unwrap_or_default().to_owned()
    };
    for isa in Isa::available() {
        let device = Device::open(DeviceChoice::Cpu, isa).unwrap();
        let chosen = ArithmeticChoice::Auto.resolve(&device, true).unwrap();
        let expected = format!("networks run on {device}; embeddings are computed in {chosen}");
        assert_eq!(first(isa, &["--device", "cpu"]), expected);
        let asked = first(isa, &["--device", "cpu", "--precision", "f32"]);
        assert!(asked.ends_with("embeddings are computed in f32 (requested)"), "{asked}");
    }
    let output = label(&still, Isa::best(), &["--precision", "f16"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("write auto, f32, bf16 or int8"), "{said}");
}

/// The files of the embeddings in a gallery, by name, with their content.
fn embeddings_in(gallery: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from(gallery)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().unwrap().to_string_lossy().starts_with("embeddings-") {
                found.push((path.strip_prefix(gallery).unwrap().to_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_gallery_keeps_the_embeddings_of_f32_whatever_precision_asked_first() {
    if let Err(error) = Arithmetic::Bf16.check(Isa::best()) {
        return println!("skipped: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let still = group(folder.path());
    let model = folder.path().join("sphereface4.safetensors");
    inputs::weights(&Architecture::of_depth(4).unwrap()).save(&model, Precision::F32).unwrap();
    let further = ["--model", model.to_str().unwrap(), "--threshold", "45deg", "--gallery"];
    let [asked, chosen, fresh] = ["asked", "chosen", "fresh"].map(|name| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        gallery(&folder.path().join(name))
    });
    // Stills enrolled with another model are embedded by the first command that needs them.
    let by = |gallery: &str, precision: &str| {
        faces(&label(&still, Isa::best(), &[&further[..], &[gallery, "--precision", precision]].concat()))
    };
    by(&asked, "bf16");
    by(&chosen, "auto");
    let expected = by(&fresh, "f32");
    let files = embeddings_in(&fresh);
    assert!(!files.is_empty());
    for one in [asked, chosen] {
        assert_eq!(embeddings_in(&one), files, "byte for byte");
        assert_eq!(by(&one, "f32"), expected);
    }
}

#[test]
fn an_unknown_instruction_set_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["label", &sample("people/Ada/1.jpg"), "--no-video"])
        .env("SPHEREFACE_ISA", "sse9")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SPHEREFACE_ISA=sse9"));
}

#[cfg(all(feature = "video", target_os = "linux"))]
#[test]
fn a_video_with_the_papers_network_stays_below_600_mb() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = gallery(folder.path());
    let model = folder.path().join("sphereface20.safetensors");
    inputs::weights(&Architecture::of_depth(20).unwrap()).save(&model, Precision::F32).unwrap();
    // Two seconds of the sample with all stages at work.
    let clip = folder.path().join("clip.mp4");
    let video = sample("sample.mp4");
    let cut: [&str; 8] = ["-v", "error", "-y", "-t", "2", "-i", &video, "-c"];
    match Command::new("ffmpeg").args(cut).arg("copy").arg(&clip).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => return eprintln!("skipped: ffmpeg is not installed"),
    }
    let output = program(&[
        "label",
        clip.to_str().unwrap(),
        "-o",
        folder.path().join("out.mp4").to_str().unwrap(),
        "--gallery",
        &gallery,
        "--model",
        model.to_str().unwrap(),
        "--threshold",
        "45deg",
        "--per-frame",
        "--threads",
        "2",
        "--stats",
    ]);
    said(&output);
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = text.split_once("peak memory ").unwrap();
    let mib: f64 = rest.split_once(" MiB").unwrap().0.parse().unwrap();
    assert!(mib * 1.048_576 < 600.0, "{mib} MiB");
}
