//! The exported ONNX model, run by onnxruntime, against our own embeddings.
//!
//! Needs a Python with `onnxruntime`, `onnx` and `numpy`: `python3`, or the one that SPHEREFACE_PYTHON names.
//! Skipped if there is none.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sphereface::align::{CROP_HEIGHT, CROP_WIDTH, Crop};
use sphereface::embed::{EmbedOptions, Embedder, Mirror};
use sphereface::models::{Precision, SPHEREFACE, Weights, import};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A Python that can run ONNX models.
fn python() -> Option<String> {
    let python = std::env::var("SPHEREFACE_PYTHON").unwrap_or_else(|_| "python3".into());
    let check = Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    let usable = check.is_ok_and(|output| output.status.success());
    if !usable {
        println!("skipped: {python} cannot import numpy, onnx and onnxruntime");
    }
    usable.then_some(python)
}

/// Crops with edges, gradients and noise, each different.
fn crops() -> Vec<Crop> {
    let crop = |n: usize| {
        let value = |i: usize| {
            let (x, y, channel) = (i / 3 % CROP_WIDTH, i / 3 / CROP_WIDTH, i % 3);
            let noise = (i * (2 * n + 1)).wrapping_mul(2_654_435_761) >> 7;
            let disc = (x.abs_diff(30 + 8 * n).pow(2) + y.abs_diff(50).pow(2) < 900) as usize * 90;
            ((x * (n + channel) + y * 2 + disc + noise % 40) % 256) as u8
        };
        Crop::from_rgb((0..CROP_WIDTH * CROP_HEIGHT * 3).map(value).collect()).unwrap()
    };
    (0..5).map(crop).collect()
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Vec<f32>>,
    metadata: BTreeMap<String, String>,
}

/// Exports `model` through the real program, runs it, and compares.
fn check(python: &str, model: &str, weights: Weights) {
    let folder = tempfile::tempdir().unwrap();
    let [onnx, raw] = ["model.onnx", "crops.rgb"].map(|name| folder.path().join(name));
    let export = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["models", "export", model, "--onnx"])
        .arg(&onnx)
        .output()
        .unwrap();
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));

    let crops = crops();
    std::fs::write(&raw, crops.iter().flat_map(|crop| crop.as_rgb().to_vec()).collect::<Vec<u8>>()).unwrap();
    let order = weights.metadata["channel_order"].clone();
    let run = Command::new(python)
        .arg(fixture("onnx/run.py"))
        .args([onnx.as_os_str(), raw.as_os_str(), order.as_ref()])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let answer: Answer = serde_json::from_slice(&run.stdout).unwrap();

    for (key, value) in &weights.metadata {
        assert_eq!(answer.metadata.get(key), Some(value), "{key}");
    }
    let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
    assert_eq!(answer.metadata["id"], embedder.model().to_string());
    let ours = embedder.embed(&crops, Mirror::No, &mut embedder.scratch()).unwrap();
    assert_eq!(answer.embeddings.len(), ours.len());
    let mut worst = 0.0f32;
    for (theirs, ours) in answer.embeddings.iter().zip(&ours) {
        assert_eq!(theirs.len(), ours.as_slice().len());
        theirs.iter().zip(ours.as_slice()).for_each(|(a, b)| worst = worst.max((a - b).abs()));
    }
    println!("{model}: largest difference of a value {worst:e}");
    assert!(worst < 2e-5, "{model}: {worst}");
}

#[test]
fn onnxruntime_gives_our_embeddings() {
    let Some(python) = python() else { return };
    check(&python, "sphereface", SPHEREFACE.weights().unwrap());

    // A network of another depth and channel order, with a mean to subtract.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("narrow.safetensors");
    let mut weights = import(&[fixture("weights/new.caffemodel")]).unwrap();
    assert_eq!(weights.metadata["channel_order"], "BGR");
    let mut mean = weights.tensors["fc5.bias"].clone();
    mean.data.iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 - 7.5) / 64.0);
    weights.tensors.insert("mean".into(), mean);
    weights.metadata.insert("licence".into(), "made up for a test, with ünïcode".into());
    weights.save(&path, Precision::F32).unwrap();
    check(&python, &path.display().to_string(), weights);
}
