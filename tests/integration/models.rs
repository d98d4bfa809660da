//! Models in and out: files of other frameworks, damaged files, the command line.
//!
//! The fixtures were written by PyTorch and Google's protobuf (`tests/fixtures/weights/make.py`); they
//! all hold the same narrow SphereFace-4.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::place::shared_data;
use sphereface::models::{
    MTCNN, Network, Precision, SPHEREFACE, Tensor, Weights, WeightsError, import, mtcnn_tensors, to_onnx,
};

const SAME: [&str; 6] = [
    "zip.pth",
    "zip-f16-nested.pth",
    "stream-f64.pth",
    "stream-python2.pth",
    "new.caffemodel",
    "old.caffemodel",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

fn values() -> Vec<(String, Tensor)> {
    let text = std::fs::read_to_string(fixture("values.json")).unwrap();
    let list: std::collections::BTreeMap<String, (Vec<usize>, Vec<i32>)> =
        serde_json::from_str(&text).unwrap();
    let tensor = |(name, (shape, data)): (String, (Vec<usize>, Vec<i32>))| {
        (name, Tensor { shape, data: data.into_iter().map(|k| k as f32 / 1024.).collect() })
    };
    list.into_iter().map(tensor).collect()
}

fn read(name: &str) -> Weights {
    import(&[fixture(name)]).unwrap()
}

fn refusal(name: &str) -> String {
    import(&[fixture(name)]).unwrap_err().to_string()
}

/// Imports bytes through a file.
fn import_bytes(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    import(&[file.path().to_owned()])
}

#[test]
fn every_format_gives_the_same_values() {
    for name in SAME {
        let weights = read(name);
        let tensors: Vec<_> = weights.tensors.clone().into_iter().collect();
        assert_eq!(tensors, values(), "{name}");
        assert_eq!(weights.metadata["architecture"], "sphereface4", "{name}");
        assert_eq!(weights.metadata["channels"], "4,4,8,8", "{name}");
        assert_eq!(weights.metadata["embedding_size"], "16", "{name}");
        let order = if name.ends_with("caffemodel") { "BGR" } else { "RGB" };
        assert_eq!(weights.metadata["channel_order"], order, "{name}");
    }
}

#[test]
fn the_first_wrong_layer_is_named() {
    let error = refusal("wrong-layer.pth");
    assert!(
        error.contains("wrong-layer.pth: tensor conv3_1.weight is [8, 4, 5, 5] and should be [8, 4, 3, 3]"),
        "{error}"
    );
    let error = refusal("wrong-layer.caffemodel");
    assert!(
        error.contains("conv3_1.weight (layer a3) is [8, 5, 3, 3] and should be [8, 4, 3, 3]"),
        "{error}"
    );
}

#[test]
fn other_networks_are_refused_by_name() {
    assert!(refusal("opensphere.pth").contains("OpenSphere"));
    assert!(refusal("no-state.pth").contains("no state dictionary"));
    assert!(
        refusal("make.py")
            .contains("not a Caffe model, ONNX model, ESP-DL file, PyTorch checkpoint or safetensors file")
    );
    assert!(refusal("absent.pth").contains("cannot read"));
    let twice = import(&[fixture("zip.pth"), fixture("new.caffemodel")]).unwrap_err().to_string();
    assert!(twice.contains("conv1_1.bias is also in another"), "{twice}");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for name in SAME {
        let (bytes, whole) = (std::fs::read(fixture(name)).unwrap(), read(name));
        let cuts = (0..bytes.len()).step_by(101).chain(0..64).chain(bytes.len() - 64..bytes.len());
        for cut in cuts {
            // A Caffe model may end after the layers that matter, without its classifier.
            if let Ok(weights) = import_bytes(&bytes[..cut]) {
                assert!(name == "new.caffemodel" && weights == whole, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn a_file_with_wrong_bytes_is_an_error_or_a_whole_network() {
    for name in SAME {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let tail = bytes.len().saturating_sub(1200);
        for at in (0..1500).step_by(11).chain((tail..bytes.len()).step_by(17)) {
            for flip in [0xff, 0x01] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                if let Ok(weights) = import_bytes(&damaged) {
                    let network = Network::from_metadata(&weights.metadata).unwrap();
                    weights.expect(&network.tensors()).unwrap();
                }
            }
        }
    }
}

#[test]
fn damaged_safetensors_are_errors() {
    let whole = read("zip.pth").to_safetensors(Precision::F32).unwrap();
    for cut in (0..whole.len()).step_by(53).chain(whole.len() - 8..whole.len()) {
        assert!(Weights::from_safetensors(&whole[..cut], "cut").is_err(), "cut at {cut}");
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = Weights::from_safetensors(&huge, "huge.safetensors").unwrap_err().to_string();
    assert!(error.starts_with("huge.safetensors: not a readable safetensors file"), "{error}");

    let text = String::from_utf8_lossy(&whole[8..]).into_owned();
    let length = text.find("}}").unwrap() + 2;
    let header = text[..length].replacen("\"F32\"", "\"I32\"", 1);
    let mut integers = (header.len() as u64).to_le_bytes().to_vec();
    integers.extend(header.as_bytes());
    let data = whole.len() - values().iter().map(|(_, tensor)| tensor.data.len() * 4).sum::<usize>();
    integers.extend(&whole[data..]);
    let error = Weights::from_safetensors(&integers, "x").unwrap_err().to_string();
    assert!(error.contains("tensor conv1_1.bias holds I32 values"), "{error}");
}

#[test]
fn saving_keeps_values_and_identifier() {
    let weights = read("zip.pth");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for precision in [Precision::F32, Precision::F16] {
        weights.save(&path, precision).unwrap();
        let back = Weights::load(&path).unwrap();
        assert_eq!(back, weights, "{precision}");
        assert_eq!(back.id(), weights.id());
    }
    assert_eq!(weights.to_safetensors(Precision::F16).unwrap(), std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(weights.id().to_string().parse(), Ok(weights.id()));

    // Values that f16 cannot represent are rounded once and then stay the same.
    let mut third = weights.clone();
    third.tensors.get_mut("fc5.bias").unwrap().data[0] = 1. / 3.;
    let rounded = Weights::from_safetensors(&third.to_safetensors(Precision::F16).unwrap(), "third").unwrap();
    assert_ne!(rounded.id(), third.id());
    let again = Weights::from_safetensors(&rounded.to_safetensors(Precision::F16).unwrap(), "again").unwrap();
    assert_eq!(again.id(), rounded.id());

    // The identifier depends on names, shapes and values, not on metadata.
    let mut other = weights.clone();
    other.metadata.clear();
    assert_eq!(other.id(), weights.id());
    other.tensors.get_mut("fc5.weight").unwrap().shape = vec![336, 16];
    assert_ne!(other.id(), weights.id());

    // 1e5 is infinite as f16, and NaN is not a valid weight.
    third.tensors.get_mut("fc5.bias").unwrap().data[0] = 1e5;
    let error = third.save(&path, Precision::F16).unwrap_err().to_string();
    assert!(error.contains("fc5.bias") && error.contains("f16"), "{error}");
    third.tensors.get_mut("fc5.bias").unwrap().data[0] = f32::NAN;
    assert!(third.to_safetensors(Precision::F32).is_err());
    assert_eq!(Weights::load(&path).unwrap(), weights, "a failed save must leave the old file");
}

#[test]
fn the_detector_is_the_same_from_both_frameworks() {
    MTCNN.weights().unwrap().expect(&mtcnn_tensors()).unwrap();
    let Some(folder) = shared_data("mtcnn") else { return };
    let sources = ["det3", "det1", "det2"].map(|net| folder.join(format!("{net}.caffemodel")));
    let caffe = import(&sources).unwrap();
    assert_eq!(caffe.tensors.len(), 50);
    let port = MTCNN.weights().unwrap();
    for (name, tensor) in &caffe.tensors {
        assert_eq!(tensor, &port.tensors[name], "{name}");
    }
    assert_eq!(caffe.id(), port.id());

    let error = import(&sources[..2]).unwrap_err().to_string();
    assert!(error.contains("tensor rnet.conv1.weight [28, 3, 3, 3] is missing"), "{error}");
}

#[test]
fn the_built_in_embedding_model_is_complete() {
    let weights = SPHEREFACE.weights().unwrap();
    let network = Network::from_metadata(&weights.metadata).unwrap();
    assert!(matches!(network, Network::SphereFace(_)), "{network:?}");
    weights.expect(&network.tensors()).unwrap();
    for key in ["training_data", "training", "licence", "channel_order"] {
        assert!(weights.metadata.contains_key(key), "{key}");
    }
}

#[test]
fn onnx_holds_the_network_and_its_metadata() {
    let mut weights = read("zip.pth");
    weights.metadata.insert("licence".into(), "none of your business".into());
    let bytes = to_onnx(&weights).unwrap();
    assert_eq!(bytes, to_onnx(&weights).unwrap());
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["crops", "embedding", "conv4_1", "PRelu", "Gemm", "fc5.weight", "none of your business"] {
        assert!(has(text), "{text}");
    }
    assert!(has(&weights.id().to_string()));
    let kernel = &weights.tensors["conv2_1.weight"].data;
    let raw: Vec<u8> = kernel.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!(bytes.windows(raw.len()).any(|window| window == raw));
    assert!(to_onnx(&MTCNN.weights().unwrap()).is_err());
}

fn sphereface(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = sphereface(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failure(arguments: &[&str], code: i32) -> String {
    let output = sphereface(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    error
}

#[test]
fn a_model_goes_in_and_out_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let [model, onnx, half] = ["m.safetensors", "m.onnx", "half.safetensors"]
        .map(|name| folder.path().join(name).display().to_string());
    let source = fixture("new.caffemodel").display().to_string();
    let figure = r#"lfw={"set":"view 1","accuracy":0.5}"#;
    let said = stdout(&["models", "import", &source, &model, "--set", "licence=CC0", "--set", figure]);
    assert!(said.contains("sphereface4") && said.contains("BGR"), "{said}");

    let shown: serde_json::Value =
        serde_json::from_str(&stdout(&["models", "show", &model, "--json"])).unwrap();
    assert_eq!(shown["id"], read("new.caffemodel").id().to_string());
    assert_eq!(shown["parameters"], read("new.caffemodel").parameters());
    assert_eq!(shown["licence"], "CC0");
    assert_eq!(shown["lfw"]["accuracy"], 0.5);
    let shown = stdout(&["models", "show", &model]);
    assert!(shown.contains("50.00 % (view 1)") && shown.contains("calibration    not stated"), "{shown}");

    stdout(&["models", "export", &model, "--onnx", &onnx, "--safetensors", &half, "--precision", "f16"]);
    assert!(std::fs::metadata(&onnx).unwrap().len() > 20_000);
    let back = Weights::load(Path::new(&half)).unwrap();
    assert_eq!(back, Weights::load(Path::new(&model)).unwrap());

    let listed: serde_json::Value = serde_json::from_str(&stdout(&["models", "list", "--json"])).unwrap();
    assert_eq!(listed[0]["model"], "mtcnn");
    assert_eq!(listed[1]["model"], "sphereface");
    assert_eq!(
        (&listed[2]["model"], &listed[2]["architecture"]),
        (&"sphereface20".into(), &"sphereface20".into())
    );
    assert!(stdout(&["models", "show"]).contains("licence"));

    // Our own files can be imported too: their metadata is kept, and more can be added.
    let second = folder.path().join("again.safetensors").display().to_string();
    stdout(&["models", "import", &half, &second, "--set", "training=none"]);
    let (before, after) = (back, Weights::load(Path::new(&second)).unwrap());
    assert_eq!(after.tensors, before.tensors);
    assert_eq!(after.metadata["licence"], "CC0");
    assert_eq!(after.metadata["training"], "none");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m.safetensors").display().to_string();
    let source = fixture("zip.pth").display().to_string();
    let error = failure(&["models", "import", &source, &out, "--arch", "sphereface20"], 1);
    assert!(error.contains("zip.pth: these are weights of sphereface4, not of sphereface20"), "{error}");
    let error = failure(&["models", "import", &source, &out, "--set", "channels=1,2,3,4"], 2);
    assert!(error.contains("derived from the weights"), "{error}");
    failure(&["models", "import", &source, &out, "--set", "lfw=high"], 2);
    failure(&["models", "import", &source, &out, "--set", "nothing"], 2);
    let error = failure(&["models", "import", &fixture("wrong-layer.pth").display().to_string(), &out], 1);
    assert!(error.contains("conv3_1.weight"), "{error}");
    let error = failure(&["models", "show", &source], 1);
    assert!(error.contains("zip.pth: this is a PyTorch checkpoint: convert it with"), "{error}");
    failure(&["models", "export", "sphereface"], 2);
    for same in [
        &["models", "import", &source, &source][..],
        &["models", "export", &source, "--safetensors", &source, "--precision", "f16"],
        &["models", "export", &source, "--onnx", &source],
    ] {
        assert!(failure(same, 2).contains("zip.pth is also the input: choose another file"), "{same:?}");
    }
    let error = failure(&["models", "export", "sphereface", "--onnx", &out, "--safetensors", &out], 2);
    assert!(error.contains("--onnx and --safetensors both write to"), "{error}");
    failure(&["models", "export", "sphereface", "--onnx", &out, "--precision", "f16"], 2);
    let error = failure(&["models", "show", "spherefaec"], 1);
    assert!(error.contains("no file 'spherefaec'") && error.contains("mtcnn, sphereface"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing may be left behind");
}
