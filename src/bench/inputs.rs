//! Synthetic weights, crops and pictures: time does not depend on their values.

use image::RgbImage;

use crate::align::Crop;
use crate::embed::Architecture;
use crate::models::{Tensor, Weights};

/// The `i`-th number of the generator splitmix64 (Steele, Lea and Flood, OOPSLA 2014) in [-1, 1), exact in
/// f32, so that other programs can generate the same.
fn number(i: u64) -> f32 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Random weights that keep activations near 1 from layer to layer.
pub fn weights(architecture: &Architecture) -> Weights {
    let mut weights = Weights::default();
    let mut next = 0;
    for (name, shape) in architecture.tensors() {
        let fan_in: usize = shape[1..].iter().product();
        let (offset, scale) = match () {
            () if name.starts_with("relu") => (0.25, 0.2),
            () if name.ends_with("bias") => (0.0, 0.1),
            () => (0.0, (2.0 / fan_in as f64).sqrt() as f32),
        };
        let count: usize = shape.iter().product();
        let data = (next..next + count as u64).map(|i| offset + scale * number(i)).collect();
        next += count as u64;
        weights.tensors.insert(name, Tensor { shape, data });
    }
    weights.metadata.extend(architecture.to_metadata().into_iter().flatten());
    weights.metadata.insert("channel_order".into(), "RGB".into());
    weights
}

/// Random crops; the first ones are the same for any `count`.
pub fn crops(count: usize) -> Vec<Crop> {
    let byte = |i: usize| ((number(i as u64) + 1.0) * 128.0) as u8;
    (0..count)
        .map(|n| (n * Crop::LEN_BYTES..(n + 1) * Crop::LEN_BYTES).map(byte).collect())
        .filter_map(Crop::from_rgb)
        .collect()
}

/// Numbers in [-1, 1).
pub fn numbers(count: usize) -> Vec<f32> {
    (0..count as u64).map(number).collect()
}

/// A picture of soft blobs with noise and without faces.
pub fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave =
            |period: f32, phase: f32| ((x as f32 / period).sin() * (y as f32 / period + phase).cos()) * 60.0;
        let noise = number(u64::from(y) * u64::from(width) + u64::from(x)) * 8.0;
        image::Rgb([40.0, 25.0, 15.0].map(|period| (128.0 + wave(period, period) + noise) as u8))
    })
}
