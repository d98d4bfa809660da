//! Embedding networks of other kinds: imported from ONNX, run, enrolled, labelled, refused.
//!
//! The test writes the networks and also computes them by the definitions of their operators, in f64.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::onnx_file::{Graph, Tensor};
use crate::place::shared_data;
use sphereface::align::Crop;
use sphereface::embed::{EmbedOptions, Embedder, Mirror};
use sphereface::models::{Normalisation, PictureOptions, Weights, import_as, to_onnx};
use sphereface::nn::Arithmetic;

/// Numbers of a network, the same for the same seed.
fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| scale * next()).collect()
}

/// A network being written, layer by layer; every layer has its own seed.
struct Builder {
    graph: Graph,
    value: String,
    channels: usize,
    count: u64,
}

impl Builder {
    fn new() -> Self {
        Self { graph: Graph::new("data", &[1, 3, 112, 112]), value: "data".into(), channels: 3, count: 0 }
    }

    fn constant(&mut self, shape: &[usize], scale: f32, offset: f32) -> String {
        self.count += 1;
        let name = format!("c{}", self.count);
        let mut data = numbers(shape.iter().product(), self.count, scale);
        data.iter_mut().for_each(|x| *x += offset);
        self.graph.constant(&name, Tensor { shape: shape.to_vec(), data });
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, &[i64])]) -> &mut Self {
        self.count += 1;
        let output = format!("v{}", self.count);
        self.graph.node(operator, inputs, &output, attributes);
        self.value = output;
        self
    }

    fn convolution(
        &mut self,
        channels: usize,
        kernel: i64,
        stride: i64,
        pad: i64,
        groups: usize,
    ) -> &mut Self {
        let inputs = self.channels / groups;
        let fan_in = inputs * (kernel * kernel) as usize;
        let shape = [channels, inputs, kernel as usize, kernel as usize];
        let weight = self.constant(&shape, (3.0 / fan_in as f32).sqrt(), 0.0);
        self.channels = channels;
        let value = self.value.clone();
        let attributes: [(&str, &[i64]); 4] = [
            ("kernel_shape", &[kernel, kernel]),
            ("strides", &[stride, stride]),
            ("pads", &[pad, pad, pad, pad]),
            ("group", &[groups as i64]),
        ];
        self.node("Conv", &[&value, &weight], &attributes)
    }

    fn normalised(&mut self) -> &mut Self {
        let channels = [self.channels];
        let names = [
            self.constant(&channels, 0.4, 1.0),
            self.constant(&channels, 0.3, 0.1),
            self.constant(&channels, 0.2, 0.0),
            self.constant(&channels, 0.3, 0.9),
        ];
        let value = self.value.clone();
        let [gamma, beta, mean, variance] = &names;
        self.node("BatchNormalization", &[&value, gamma, beta, mean, variance], &[])
    }

    fn prelu(&mut self) -> &mut Self {
        let slopes = self.constant(&[self.channels, 1, 1], 0.2, 0.25);
        let value = self.value.clone();
        self.node("PRelu", &[&value, &slopes], &[])
    }

    fn apply(&mut self, operator: &str, attributes: &[(&str, &[i64])]) -> &mut Self {
        let value = self.value.clone();
        self.node(operator, &[&value], attributes)
    }

    fn add(&mut self, other: &str) -> &mut Self {
        let value = self.value.clone();
        self.node("Add", &[&value, other], &[])
    }

    /// A fully connected layer over that many values.
    fn linear(&mut self, inputs: usize, outputs: usize) -> &mut Self {
        let weight = self.constant(&[outputs, inputs], (3.0 / inputs as f32).sqrt(), 0.0);
        let bias = self.constant(&[outputs], 0.1, 0.0);
        self.channels = outputs;
        let value = self.value.clone();
        self.node("Gemm", &[&value, &weight, &bias], &[("transB", &[1])])
    }

    fn finish(&mut self) -> Graph {
        let mut graph = self.graph.clone();
        graph.output(&self.value);
        graph
    }
}

/// A MobileFaceNet whose channels do not fill vectors: depthwise convolutions of 3 x 3 with both strides and
/// one of 7 x 7, narrow ends of blocks, sums, and a normalisation of pixels inside.
fn mobile() -> Graph {
    let mut b = Builder::new();
    b.graph.constant("middle", Tensor { shape: vec![], data: vec![127.5] });
    b.graph.constant("scale", Tensor { shape: vec![1], data: vec![1.0 / 128.0] });
    b.node("Sub", &["data", "middle"], &[]);
    let value = b.value.clone();
    b.node("Mul", &[&value, "scale"], &[]);
    b.convolution(18, 3, 2, 1, 1).normalised().prelu();
    b.convolution(18, 3, 1, 1, 18).normalised().prelu();
    b.convolution(24, 1, 1, 0, 1).normalised().prelu();
    b.convolution(24, 3, 2, 1, 24).normalised().prelu();
    b.convolution(13, 1, 1, 0, 1).normalised();
    for _ in 0..2 {
        let before = b.value.clone();
        b.convolution(26, 1, 1, 0, 1).normalised().prelu();
        b.convolution(26, 3, 1, 1, 26).normalised().prelu();
        b.convolution(13, 1, 1, 0, 1).normalised();
        b.add(&before);
    }
    b.convolution(40, 1, 1, 0, 1).normalised().prelu();
    b.convolution(40, 3, 2, 1, 40).normalised().apply("Relu", &[]);
    b.convolution(21, 1, 1, 0, 1).convolution(33, 1, 2, 0, 1).prelu();
    b.convolution(33, 7, 1, 0, 33).normalised();
    b.convolution(37, 1, 1, 0, 1).normalised();
    b.apply("Flatten", &[("axis", &[1])]);
    b.finish()
}

/// Blocks of an IResNet: normalisation before a padded convolution, which cannot be merged into it, residual
/// sums with a shortcut through a 1 x 1 convolution or a pool of one pixel (as in AdaFace), and a sum that is
/// needed again later.
fn residual() -> Graph {
    let mut b = Builder::new();
    b.convolution(17, 3, 1, 1, 1).normalised().prelu();
    let block = |b: &mut Builder, channels: usize, stride: i64, pooled: bool| {
        let (before, inputs) = (b.value.clone(), b.channels);
        b.normalised().convolution(channels, 3, 1, 1, 1).normalised().prelu();
        b.convolution(channels, 3, stride, 1, 1).normalised();
        let main = b.value.clone();
        (b.value, b.channels) = (before, inputs);
        if pooled {
            b.apply("MaxPool", &[("kernel_shape", &[1, 1]), ("strides", &[stride, stride])]);
        } else if inputs != channels || stride != 1 {
            b.convolution(channels, 1, stride, 0, 1).normalised();
        }
        b.channels = channels;
        b.add(&main);
    };
    block(&mut b, 17, 2, true);
    block(&mut b, 20, 2, false);
    block(&mut b, 20, 1, false);
    let early = b.value.clone();
    block(&mut b, 20, 1, false);
    b.add(&early).apply("LeakyRelu", &[]);
    block(&mut b, 35, 2, false);
    b.apply("MaxPool", &[("kernel_shape", &[3, 3]), ("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]);
    b.normalised().apply("Dropout", &[]).apply("Flatten", &[]);
    b.linear(35 * 7 * 7, 29).normalised();
    b.finish()
}

/// A small network that the whole program can use.
fn tiny() -> Graph {
    let mut b = Builder::new();
    b.convolution(8, 3, 2, 1, 1).normalised().prelu();
    b.convolution(8, 3, 2, 1, 8).prelu().convolution(12, 1, 2, 0, 1).prelu();
    b.apply("Flatten", &[]).linear(12 * 14 * 14, 16);
    b.finish()
}

/// Crops with edges, gradients and noise, each different.
fn crops(count: usize) -> Vec<Crop> {
    let crop = |n: usize| {
        let value = |i: usize| {
            let (x, y, channel) = (i / 3 % 112, i / 3 / 112, i % 3);
            let noise = (i * (2 * n + 1)).wrapping_mul(2_654_435_761) >> 7;
            let disc = usize::from(x.abs_diff(30 + 8 * n).pow(2) + y.abs_diff(50).pow(2) < 900) * 90;
            ((x * (n + channel) + y * 2 + disc + noise % 40) % 256) as u8
        };
        Crop::from_square(&(0..112 * 112 * 3).map(value).collect::<Vec<_>>()).unwrap()
    };
    (0..count).map(crop).collect()
}

/// The pictures as a network takes them, channel by channel.
fn picture(crop: &Crop, [mean, deviation]: [f64; 2], bgr: bool) -> Vec<f64> {
    let rgb = crop.to_square();
    let channels = if bgr { [2, 1, 0] } else { [0, 1, 2] };
    let plane =
        |c: usize| rgb.iter().skip(c).step_by(3).map(|&x| (f64::from(x) - mean) / deviation).collect();
    channels.into_iter().flat_map(|c| -> Vec<f64> { plane(c) }).collect()
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| x / norm).collect()
}

fn import(folder: &Path, graph: &Graph, options: &PictureOptions) -> Result<Weights, String> {
    let path = folder.join("network.onnx");
    std::fs::write(&path, graph.to_bytes()).unwrap();
    import_as(&[path], options).map_err(|error| error.to_string())
}

/// Imports a network, and compares its embeddings with those of its definition.
fn check(graph: &Graph, options: &PictureOptions, pixels: [f64; 2]) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let weights = import(folder.path(), graph, options).unwrap();
    let crops = crops(2);
    let embedder = Embedder::new(weights.clone(), EmbedOptions::default()).unwrap();
    let found = embedder.embed(&crops, Mirror::No, &mut embedder.scratch()).unwrap();
    for (crop, found) in crops.iter().zip(&found) {
        let expected = unit(&graph.evaluate(&picture(crop, pixels, options.bgr)));
        assert_eq!(expected.len(), found.as_slice().len());
        let worst =
            expected.iter().zip(found.as_slice()).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-5, "{worst}");
    }
    weights
}

#[test]
fn a_mobile_network_gives_what_its_operators_are_defined_as() {
    let weights = check(&mobile(), &PictureOptions::default(), [0.0, 1.0]);
    assert_eq!(weights.metadata["normalisation"], "(x - 127.5) / 128");
    assert_eq!(weights.metadata["embedding_size"], "37");
}

#[test]
fn a_residual_network_gives_what_its_operators_are_defined_as() {
    let weights = check(&residual(), &PictureOptions::default(), [127.5, 127.5]);
    assert_eq!(weights.metadata["normalisation"], "(x - 127.5) / 127.5");
    let options = PictureOptions {
        bgr: true,
        normalisation: Some(Normalisation { mean: 100.0, deviation: 64.0 }),
        output: None,
    };
    let other = check(&residual(), &options, [100.0, 64.0]);
    assert_ne!(weights.id(), other.id(), "other pictures make another model");
}

#[test]
fn what_is_exported_comes_back_as_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.onnx");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights/new.caffemodel");
    let ours = import_as(&[fixture], &PictureOptions::default()).unwrap();
    std::fs::write(&path, to_onnx(&ours).unwrap()).unwrap();
    // These Caffe models take blue first.
    let options = PictureOptions { bgr: true, ..PictureOptions::default() };
    let back = import_as(&[path], &options).unwrap();
    assert_eq!(back.metadata["input"], "112x96");
    let embed = |weights: Weights| {
        let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
        embedder.embed(&crops(3), Mirror::Average, &mut embedder.scratch()).unwrap()
    };
    for (a, b) in embed(ours).iter().zip(embed(back)) {
        let worst = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-5, "{worst}");
    }
}

#[test]
fn imported_networks_are_exported_with_every_operation() {
    let folder = tempfile::tempdir().unwrap();
    let exports: Exported = serde_json::from_str(include_str!("../fixtures/networks/expected.json")).unwrap();
    let mut files: Vec<(PathBuf, Option<String>)> =
        exports.networks.iter().map(|(name, one)| (exported(name), one.output.clone())).collect();
    for (name, graph) in [("mobile", mobile()), ("residual", residual()), ("tiny", tiny())] {
        let path = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&path, graph.to_bytes()).unwrap();
        files.push((path, None));
    }
    let embed = |weights: Weights| {
        let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
        embedder.embed(&crops(2), Mirror::No, &mut embedder.scratch()).unwrap()
    };
    for (file, output) in files {
        let options = PictureOptions { output, ..PictureOptions::default() };
        let ours = import_as(std::slice::from_ref(&file), &options).unwrap();
        let path = folder.path().join("exported.onnx");
        std::fs::write(&path, to_onnx(&ours).unwrap()).unwrap();
        let back = import_as(&[path], &PictureOptions::default()).unwrap();
        for (a, b) in embed(ours).iter().zip(embed(back)) {
            let worst = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-5, "{}: {worst}", file.display());
        }
    }
}

#[test]
fn embeddings_depend_neither_on_the_batch_nor_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    for graph in [mobile(), residual()] {
        let weights = import(folder.path(), &graph, &PictureOptions::default()).unwrap();
        let embed = |crops: &[Crop], threads: usize| {
            let options = EmbedOptions { threads, ..EmbedOptions::default() };
            let embedder = Embedder::new(weights.clone(), options).unwrap();
            embedder.features(crops, &mut embedder.scratch()).unwrap()
        };
        let crops = crops(5);
        let alone: Vec<_> = crops.iter().flat_map(|crop| embed(std::slice::from_ref(crop), 1)).collect();
        for threads in [1, 2, 3] {
            assert_eq!(embed(&crops, threads), alone, "{threads} threads");
        }
        // A worker's memory is reused for fewer and for more faces.
        let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
        let mut scratch = embedder.scratch();
        for range in [3..4, 0..5, 1..3, 0..5] {
            let found = embedder.features(&crops[range.clone()], &mut scratch).unwrap();
            assert_eq!(found, alone[range.clone()], "{range:?}");
        }
    }
}

#[test]
fn what_is_not_computed_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Builder)| {
        let mut b = Builder::new();
        b.convolution(8, 3, 2, 1, 1);
        change(&mut b);
        b.apply("GlobalAveragePool", &[]).apply("Flatten", &[]);
        import(folder.path(), &b.finish(), &PictureOptions::default()).unwrap_err()
    };
    let error = refused(&|b| {
        b.apply("HardSwish", &[]);
    });
    assert!(error.contains("operator HardSwish (node 'v") && error.contains("network.onnx"), "{error}");
    assert!(
        refused(&|b| {
            b.convolution(8, 3, 1, 1, 2);
        })
        .contains("in 2 groups")
    );
    assert!(
        refused(&|b| {
            b.node("Softplus", &["v2"], &[]);
        })
        .contains("Softplus")
    );
    assert!(
        refused(&|b| {
            b.apply("Transpose", &[("perm", &[0, 2, 3, 1])]);
        })
        .contains("GlobalAveragePool")
    );
    let dilated: [(&str, &[i64]); 2] = [("kernel_shape", &[3, 3]), ("dilations", &[2, 2])];
    assert!(
        refused(&|b| {
            b.apply("MaxPool", &dilated);
        })
        .contains("dilations")
    );
    // Nodes that lead to no output are not needed.
    let mut b = Builder::new();
    b.convolution(8, 3, 2, 1, 1);
    let value = b.value.clone();
    b.apply("HardSwish", &[]);
    b.value = value;
    b.apply("GlobalAveragePool", &[]).apply("Flatten", &[]);
    import(folder.path(), &b.finish(), &PictureOptions::default()).unwrap();

    let mut graph = tiny();
    graph.input_sizes = vec![1, 3, 160, 160];
    let error = import(folder.path(), &graph, &PictureOptions::default()).unwrap_err();
    assert!(error.contains("does not match weights"), "{error}");
    graph.input_sizes = vec![1, 1, 112, 112];
    let error = import(folder.path(), &graph, &PictureOptions::default()).unwrap_err();
    assert!(error.contains("not a picture of three colours"), "{error}");
    let mut graph = tiny();
    graph.output("v2");
    let error = import(folder.path(), &graph, &PictureOptions::default()).unwrap_err();
    assert!(error.contains("several outputs"), "{error}");
    let options = PictureOptions { output: Some("none".into()), ..PictureOptions::default() };
    assert!(import(folder.path(), &graph, &options).unwrap_err().contains("no output 'none'"));
}

#[test]
fn damaged_files_give_errors_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.onnx");
    let whole = tiny().to_bytes();
    let options = PictureOptions::default();
    let try_bytes = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        import_as(std::slice::from_ref(&path), &options)
    };
    assert!(try_bytes(&whole).is_ok());
    for length in (0..whole.len()).step_by(whole.len() / 97) {
        assert!(try_bytes(&whole[..length]).is_err(), "cut at {length}");
    }
    // Bytes changed anywhere but in the values of the largest tensors give an error or another network.
    let mut state = 1u64;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % 4000;
            bytes[at] ^= 1 << ((state >> 20) % 8);
        }
        let _ = try_bytes(&bytes);
    }
}

#[test]
fn imported_networks_are_computed_in_f32_only() {
    let folder = tempfile::tempdir().unwrap();
    let weights = import(folder.path(), &tiny(), &PictureOptions::default()).unwrap();
    let options = EmbedOptions { arithmetic: Arithmetic::Bf16, ..EmbedOptions::default() };
    let error = Embedder::new(weights, options).unwrap_err().to_string();
    assert!(error.contains("bf16"), "{error}");
}

fn run(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).args(arguments).current_dir(folder).output().unwrap()
}

fn succeeds(arguments: &[&str], folder: &Path) -> String {
    let output = run(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(arguments: &[&str], folder: &Path) -> (i32, String) {
    let output = run(arguments, folder);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The first picture in a folder or below it.
fn a_still(folder: &Path) -> PathBuf {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let first = entries
        .into_iter()
        .find(|path| path.is_dir() || path.extension().is_some_and(|e| e == "jpg"))
        .unwrap();
    if first.is_dir() { a_still(&first) } else { first }
}

#[test]
fn an_imported_network_works_everywhere_a_model_works() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("net.onnx"), tiny().to_bytes()).unwrap();
    let import = ["models", "import", "net.onnx", "net.safetensors", "--licence", "made up for a test"];
    let told = succeeds(&import, at);
    assert!(told.contains("112x112 RGB, (x - 127.5) / 127.5") && told.contains("eval calibrate"), "{told}");
    let shown = succeeds(&["models", "show", "net.safetensors"], at);
    assert!(
        shown.contains("made up for a test") && shown.contains("3 convolutions (1 depthwise)"),
        "{shown}"
    );
    // Another order of colours is another model, and so has another identifier.
    succeeds(&["models", "import", "net.onnx", "bgr.safetensors", "--channel-order", "bgr"], at);
    let id = |file: &str| -> String {
        let shown = succeeds(&["models", "show", file, "--json"], at);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["id"].as_str().unwrap().to_owned()
    };
    assert_ne!(id("net.safetensors"), id("bgr.safetensors"));

    let (code, error) = fails(&["models", "import", "net.onnx", "x.safetensors", "--normalise", "127.5"], at);
    assert!(code == 2 && error.contains("MEAN,DEVIATION"), "{error}");
    let told = succeeds(&["models", "export", "net.safetensors", "--onnx", "again.onnx"], at);
    assert!(told.contains("'crops' [n, 3, 112, 112] RGB 0 to 255"), "{told}");
    let (_, error) = fails(&["compare", "a.jpg", "b.jpg", "--model", "net.onnx"], at);
    assert!(error.contains("ONNX model") && error.contains("models import"), "{error}");

    let still = a_still(&Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people")).display().to_string();
    let embedded = succeeds(&["embed", &still, "--model", "net.safetensors", "--json"], at);
    let embedded: BTreeMap<String, serde_json::Value> = serde_json::from_str(&embedded).unwrap();
    assert_eq!(embedded["model"], id("net.safetensors").as_str());
    assert_eq!(embedded["faces"][0]["embedding"].as_array().unwrap().len(), 16);
    succeeds(&["enroll", "Ada", &still, "--gallery", "people"], at);
    // The model has no calibration, so an angle must be given.
    let label = ["label", &still, "-o", "out.png", "--gallery", "people", "--model", "net.safetensors"];
    let (code, error) = fails(&label, at);
    assert!(code == 2 && error.contains("--threshold"), "{error}");
    let given = [&label[..], &["--threshold", "25deg", "--jsonl", "faces.jsonl"]].concat();
    succeeds(&given, at);
    let faces = std::fs::read_to_string(at.join("faces.jsonl")).unwrap();
    assert!(faces.contains("\"Ada\"") && at.join("out.png").exists(), "{faces}");
}

/// The reference that `tests/fixtures/networks/export.py` wrote beside the networks that it exported from
/// PyTorch.
#[derive(serde::Deserialize)]
struct Exported {
    networks: BTreeMap<String, Expected>,
}

/// The results of onnxruntime on the crops with one of them.
#[derive(serde::Deserialize)]
struct Expected {
    output: Option<String>,
    operators: Vec<String>,
    embeddings: Vec<Vec<f64>>,
}

fn exported(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/networks/{name}.onnx"))
}

#[test]
fn networks_that_pytorch_exported_give_what_onnxruntime_computes() {
    let exports: Exported = serde_json::from_str(include_str!("../fixtures/networks/expected.json")).unwrap();
    assert_eq!(exports.networks.len(), 11);
    for (name, expected) in &exports.networks {
        let options = PictureOptions { output: expected.output.clone(), ..PictureOptions::default() };
        let weights =
            import_as(&[exported(name)], &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let own = if name.contains("inside") { "(x - 127.5) / 128" } else { "(x - 127.5) / 127.5" };
        assert_eq!(weights.metadata["normalisation"], own, "{name}");
        let crops = crops(expected.embeddings.len());
        let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
        let found = embedder.embed(&crops, Mirror::No, &mut embedder.scratch()).unwrap();
        // Numbers of half precision are computed in f32 here, and by onnxruntime in f16.
        let most = if name.contains("half") { 5e-3 } else { 1e-5 };
        for (expected, found) in expected.embeddings.iter().zip(&found) {
            let expected = unit(expected);
            let pairs = || expected.iter().zip(found.as_slice()).map(|(&a, &b)| (a, f64::from(b)));
            let worst = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let cosine: f64 = pairs().map(|(a, b)| a * b).sum();
            println!("{name}: largest difference {worst:.1e}, cosine {cosine:.9}");
            assert!(worst < most && cosine > 1.0 - most, "{name}: {worst}, {cosine}");
        }
    }
    // The assumptions of the tests.
    for operator in
        ["Shape", "Gather", "Expand", "Sigmoid", "Mul", "Clip", "ReduceL2", "ReduceMean", "MaxPool"]
    {
        let has = |one: &Expected| one.operators.iter().any(|found| found == operator);
        assert!(exports.networks.values().any(has), "no network with {operator}");
    }
}

#[test]
fn networks_that_pytorch_exported_with_other_operators_are_refused_by_name() {
    for (name, operator) in [
        ("no-hardswish", "operator HardSwish (node '/HardSwish')"),
        ("no-gelu", "operator Gelu"),
        ("no-grouped", "operator Conv (node '/grouped/Conv'): 4 channels from 4 in 2 groups"),
        ("no-attention", "operator Reshape"),
    ] {
        let error = import_as(&[exported(name)], &PictureOptions::default()).unwrap_err().to_string();
        assert!(error.contains(operator) && error.contains(name), "{error}");
    }
    let error = import_as(&[exported("adaface-dynamo-18-two")], &PictureOptions::default()).unwrap_err();
    assert!(error.to_string().contains("several outputs"), "{error}");
}

#[test]
fn weights_beside_a_network_are_read_from_its_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    let (network, name) = (folder.path().join("moved.onnx"), "mobile-dynamo-18-outside");
    let whole = std::fs::read(exported(name)).unwrap();
    std::fs::write(&network, &whole).unwrap();
    let refused = || {
        let found = import_as(std::slice::from_ref(&network), &PictureOptions::default());
        found.map(drop).unwrap_err().to_string()
    };
    let error = refused();
    assert!(
        error.contains(&format!("'{name}.onnx.data'")) && error.contains("keep the two together"),
        "{error}"
    );
    let data = std::fs::read(exported(name).with_extension("onnx.data")).unwrap();
    let beside = folder.path().join(format!("{name}.onnx.data"));
    std::fs::write(&beside, &data[..data.len() / 2]).unwrap();
    assert!(refused().contains("ends beyond the file"), "{}", refused());
    std::fs::write(&beside, &data).unwrap();
    import_as(std::slice::from_ref(&network), &PictureOptions::default()).unwrap();
    // Names of the same length that lead out of the folder.
    for other in ["../", "/et"] {
        let place = |text: &[u8]| text.windows(name.len()).position(|part| part == name.as_bytes());
        let mut bytes = whole.clone();
        while let Some(at) = place(&bytes) {
            bytes[at..at + 3].copy_from_slice(other.as_bytes());
        }
        std::fs::write(&network, bytes).unwrap();
        assert!(refused().contains("only files in the folder"), "{}", refused());
    }
}

#[test]
fn a_published_network_is_the_same_from_both_of_its_files() {
    let Some(folder) = shared_data("teacher-mbf") else { return };
    let read = |name: &str| import_as(&[folder.join(name)], &PictureOptions::default()).unwrap();
    let (onnx, espdl) = (read("mbf.onnx"), read("human_face_feat_mbf_s8_v1.espdl"));
    assert_eq!(onnx.id(), espdl.id());
    assert_eq!(onnx.metadata, espdl.metadata);
    // Values that onnxruntime gave, `tests/fixtures/networks/mbf.py`.
    let expected: Vec<Vec<f32>> =
        serde_json::from_str(include_str!("../fixtures/networks/mbf.json")).unwrap();
    let crops = crops(expected.len());
    let embedder = Embedder::new(onnx, EmbedOptions::default()).unwrap();
    let found = embedder.embed(&crops, Mirror::No, &mut embedder.scratch()).unwrap();
    for (expected, found) in expected.iter().zip(&found) {
        let worst = expected.iter().zip(found.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{worst}");
    }
}
