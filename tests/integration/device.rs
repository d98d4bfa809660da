//! The networks through the tensor library against the kernels, on real stills: on its CPU, and on a GPU if
//! there is one. And the effect of `--device`.
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
use candle_core::Device as TensorDevice;
use image::RgbImage;
use sphereface::align::{Crop, align};
use sphereface::detect::{self, Detector, DetectorConfig, Face, MinFace};
use sphereface::embed::{EmbedOptions, Embedder, Embedding, Mirror};
use sphereface::media::read_still;
use sphereface::models::{MTCNN, SPHEREFACE};
use sphereface::nn::{Device, DeviceChoice, Isa};

/// The tensor library's CPU, and a GPU if this program can use one.
fn devices() -> Vec<TensorDevice> {
    let gpu = Device::open(DeviceChoice::Cuda(0), Isa::best());
    let gpu = gpu.map_err(|error| println!("skipped on CUDA: {error}")).ok();
    let gpu = gpu.and_then(|gpu| gpu.tensors().cloned());
    [TensorDevice::Cpu].into_iter().chain(gpu).collect()
}

/// The people of the sample, and the real photos if they are on this machine.
fn stills() -> Vec<RgbImage> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in ["Ada", "Boris"].map(|name| root.join("samples/people").join(name)) {
        paths.push(folder.join("1.jpg"));
    }
    if let Some(photos) = shared_data("mtcnn/stills") {
        paths.extend(std::fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    paths.iter().map(|path| read_still(path).unwrap()).collect()
}

fn config() -> DetectorConfig {
    DetectorConfig { min_face: MinFace::Px(30.0), ..DetectorConfig::default() }
}

fn on_kernels() -> (Detector, Embedder) {
    let detector = Detector::new(&MTCNN.weights().unwrap(), config(), Isa::best()).unwrap();
    (detector, Embedder::new(SPHEREFACE.weights().unwrap(), EmbedOptions::default()).unwrap())
}

fn on_tensors(device: &TensorDevice) -> (Detector, Embedder) {
    let detector = Detector::on_tensors(&MTCNN.weights().unwrap(), config(), Isa::best(), device).unwrap();
    (detector, Embedder::on_tensors(SPHEREFACE.weights().unwrap(), device).unwrap())
}

/// The distance of each face from the expected one: that of the farthest corner or landmark, in pixels. A box
/// at the border of two pixels may be cut out a pixel wider because of rounding, so a few faces are not as
/// close as the others.
fn distances(found: &[Face], expected: &[Face]) -> Vec<f32> {
    assert_eq!(found.len(), expected.len());
    let numbers = |face: &Face| {
        let sides = [face.bbox.x1, face.bbox.y1, face.bbox.x2, face.bbox.y2];
        [sides.as_slice(), face.landmarks.as_flattened()].concat()
    };
    let distance = |a: &Face, b: &Face| {
        numbers(a).iter().zip(numbers(b)).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    // Faces with equal scores may be swapped.
    let nearest = |face: &Face| {
        let nearest = found.iter().min_by(|a, b| distance(a, face).total_cmp(&distance(b, face)));
        let farthest = distance(nearest.unwrap(), face);
        assert!(farthest < 2.0 && (nearest.unwrap().score - face.score).abs() < 0.02, "{face:?}");
        farthest
    };
    expected.iter().map(nearest).collect()
}

/// Nearly all of them are the same.
fn assert_same(mut distances: Vec<f32>) {
    distances.sort_by(f32::total_cmp);
    println!("{} faces; farthest: {:?} px", distances.len(), distances.last());
    assert!(distances[distances.len() / 2] < 0.01, "{distances:?}");
}

/// The same embeddings: 1 - cos < 1e-9 and 1e-4 in every component.
fn assert_equal(found: &[Embedding], expected: &[Embedding]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert_eq!(a.model(), b.model());
        let differences = || a.as_slice().iter().zip(b.as_slice()).map(|(x, y)| f64::from(x - y).abs());
        let distance = differences().map(|x| x * x).sum::<f64>() / 2.0; // = 1 - cos
        assert!(distance < 1e-9 && differences().all(|x| x < 1e-4), "1 - cos = {distance:e}");
    }
}

#[test]
fn faces_and_embeddings_are_the_kernels_on_every_device() {
    let (kernels, embedder) = on_kernels();
    let (mut find, mut embed) = (detect::Scratch::new(2), embedder.scratch());
    let stills = stills();
    let faces: Vec<Vec<Face>> =
        stills.iter().map(|still| kernels.detect(still, &mut find).unwrap()).collect();
    assert!(faces.iter().any(|faces| !faces.is_empty()));
    let cut = |(still, faces): (&RgbImage, &Vec<Face>)| -> Vec<Crop> {
        faces.iter().filter_map(|face| align(still, &face.landmarks)).collect()
    };
    let crops: Vec<Crop> = stills.iter().zip(&faces).flat_map(cut).take(5).collect();
    let embeddings = embedder.embed(&crops, Mirror::Average, &mut embed).unwrap();
    for device in devices() {
        let (detector, embedder) = on_tensors(&device);
        let mut apart = Vec::new();
        for (still, faces) in stills.iter().zip(&faces) {
            apart.extend(distances(&detector.detect(still, &mut find).unwrap(), faces));
            // The same for the search near their positions.
            let places: Vec<_> = faces.iter().map(|face| face.bbox).collect();
            let near = |detector: &Detector| {
                detector.detect_near(still, &places, &mut detect::Scratch::default()).unwrap()
            };
            apart.extend(distances(&near(&detector), &near(&kernels)));
        }
        assert_same(apart);
        let mut scratch = embedder.scratch();
        assert_equal(&embedder.embed(&crops, Mirror::Average, &mut scratch).unwrap(), &embeddings);
        assert_eq!(embedder.embed(&[], Mirror::Average, &mut scratch).unwrap(), []);
        assert_eq!(detector.detect(&RgbImage::new(11, 11), &mut find).unwrap(), []);
    }
}

#[test]
fn threads_that_share_batches_get_their_own_answers() {
    let stills = stills();
    let (detector, embedder) = on_kernels();
    let crop = |shade: u8| Crop::from_rgb(vec![shade; Crop::LEN_BYTES]).unwrap();
    for device in devices() {
        let (shared_detector, shared_embedder) = on_tensors(&device);
        std::thread::scope(|scope| {
            for (number, still) in stills.iter().take(4).enumerate() {
                let (detector, embedder) = (&detector, &embedder);
                let (shared_detector, shared_embedder) = (&shared_detector, &shared_embedder);
                scope.spawn(move || {
                    let mut find = detect::Scratch::default();
                    let expected = detector.detect(still, &mut find).unwrap();
                    distances(&shared_detector.detect(still, &mut find).unwrap(), &expected);
                    let crops: Vec<Crop> = (0..=number).map(|n| crop((40 * n + 7 * number) as u8)).collect();
                    let of = |embedder: &Embedder| {
                        embedder.embed(&crops, Mirror::No, &mut embedder.scratch()).unwrap()
                    };
                    assert_equal(&of(shared_embedder), &of(embedder));
                });
            }
        });
    }
}

fn enroll(folder: &Path, device: &str) -> Output {
    let still = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people/Ada/1.jpg");
    Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["enroll", "Ada", "--device", device, "--gallery"])
        .arg(folder.join(device.replace(':', "-")))
        .arg(still)
        .output()
        .unwrap()
}

#[test]
fn the_device_is_told_and_a_gpu_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for device in ["auto", "cpu", "cuda", "cuda:99", "gpu"] {
        let output = enroll(folder.path(), device);
        let said = String::from_utf8(output.stderr).unwrap();
        let has_gpu = Device::open(DeviceChoice::Cuda(0), Isa::best()).is_ok();
        match device {
            "cpu" => assert!(output.status.success() && said.contains("the CPU with"), "{said}"),
            "auto" => {
                assert!(output.status.success(), "{said}");
                assert!(
                    said.contains(if has_gpu { "run on CUDA device 0" } else { "run on the CPU" }),
                    "{said}"
                );
            }
            "cuda" if has_gpu => assert!(output.status.success(), "{said}"),
            "gpu" => assert!(output.status.code() == Some(2) && said.contains("cuda:N"), "{said}"),
            _ => {
                let built = cfg!(feature = "cuda");
                assert_eq!(output.status.code(), Some(if built { 1 } else { 2 }), "{said}");
                assert!(said.contains(if built { "cannot be used" } else { "tools/cuda.sh" }), "{said}");
                assert!(said.contains("--device cpu") && !said.contains("networks run on"), "{said}");
            }
        }
    }
}
