//! Helpers of the tests of this module: recorded tensors, synthetic pictures, comparison.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::RgbImage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Name to shape and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The inputs and outputs of the three networks recorded from the PyTorch port, if they are on this machine.
pub fn tensors() -> Option<Tensors> {
    let folder = std::env::var_os("SPHEREFACE_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let file = std::fs::File::open(folder.join("mtcnn/golden.npz")).ok()?;
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let read = |index| {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        // NPY 1.0: magic, version, header length, a Python dictionary, values.
        let values_at = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..values_at]).unwrap();
        assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
        let (_, shape) = header.split_once("'shape': (").unwrap();
        let (shape, _) = shape.split_once(')').unwrap();
        let shape = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        let values = bytes[values_at..].chunks_exact(4);
        (name, (shape, values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
    };
    Some((0..10).map(read).collect())
}

/// Every pair of values differs by no more than that.
#[track_caller]
pub fn close(ours: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "value {i}: {a}, expected {b}");
    }
}

/// A picture of noise.
pub fn noise_image(width: u32, height: u32) -> RgbImage {
    let mut rng = StdRng::seed_from_u64(u64::from(width) << 32 | u64::from(height));
    RgbImage::from_fn(width, height, |_, _| image::Rgb(rng.random()))
}

/// Values in -1..1.
pub fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..length).map(|_| rng.random_range(-1.0..1.0)).collect()
}
