//! The kernels against the reference network.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Module};

use super::candle::{self, SphereFace};
use super::{
    Architecture, ChannelOrder, EmbedError, EmbedOptions, Embedder, Int8Scales, Mirror, Network, pixels,
};
use crate::align::Crop;
use crate::models::candle::var_builder;
use crate::models::{MTCNN, Precision, SPHEREFACE, SPHEREFACE_20, Stored, Tensor, Weights};
use crate::nn::tiles::TileUnit;
use crate::nn::{Arithmetic, Isa};

/// A small generator (xorshift64*), the same on every machine.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Uniform between -scale and scale.
    fn within(&mut self, scale: f32) -> f32 {
        (self.bits() as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale
    }
}

/// Weights that keep activations near 1 from layer to layer.
fn random_weights(architecture: &Architecture, seed: u64) -> Weights {
    let mut random = Random(seed);
    let mut weights = Weights::default();
    for (name, shape) in architecture.tensors() {
        let fan_in: usize = shape[1..].iter().product();
        let (offset, scale) = match () {
            () if name.starts_with("relu") => (0.25, 0.2),
            () if name.ends_with("bias") => (0.0, 0.1),
            () => (0.0, (2.0 / fan_in as f32).sqrt()),
        };
        let data = (0..shape.iter().product()).map(|_| offset + random.within(scale)).collect();
        weights.tensors.insert(name, Tensor { data, shape });
    }
    let [a, b, c, d] = architecture.channels;
    let pairs = [
        ("architecture", architecture.to_string().split('-').next().unwrap().to_owned()),
        ("channels", format!("{a},{b},{c},{d}")),
        ("embedding_size", architecture.embedding.to_string()),
        ("channel_order", "RGB".to_owned()),
        ("input", "112x96".to_owned()),
    ];
    weights.metadata.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
    weights
}

fn random_crops(count: usize, seed: u64) -> Vec<Crop> {
    let mut random = Random(seed);
    (0..count)
        .map(|_| Crop::from_rgb((0..Crop::LEN_BYTES).map(|_| random.bits() as u8).collect()).unwrap())
        .collect()
}

/// Features by the reference in f64.
fn oracle(architecture: &Architecture, weights: &Weights, crops: &[Crop]) -> Vec<Vec<f64>> {
    let vb = var_builder(weights, DType::F64, &Device::Cpu).unwrap();
    let reference = SphereFace::new(architecture, vb).unwrap();
    let mut values = Vec::new();
    crops.iter().for_each(|crop| pixels(crop, ChannelOrder::Rgb, &mut values));
    let input = candle::crops(&values, DType::F64, &Device::Cpu).unwrap();
    reference.forward(&input).unwrap().to_vec2().unwrap()
}

/// Panics unless the two features agree: 1 - cos < 1e-9 and 1e-4 in every component of the
/// unit vectors.
fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_within(found, expected, bounds(Arithmetic::F32), what);
}

/// The same with other bounds: of 1 - cos, of every component and of the ratio of the norms to 1.
fn assert_within(found: &[f32], expected: &[f64], bounds: [f64; 3], what: &str) {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let a = norm(&mut found.iter().map(|&x| f64::from(x)));
    let b = norm(&mut expected.iter().copied());
    assert!(a > 0.0 && (a / b - 1.0).abs() < bounds[2], "{what}: norms {a} and {b}");
    let pairs = || found.iter().zip(expected).map(|(&x, &y)| (f64::from(x) / a, y / b));
    let distance = pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / 2.0; // = 1 - cos
    let worst = pairs().map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(distance < bounds[0], "{what}: 1 - cos = {distance:e}");
    assert!(worst < bounds[1], "{what}: a component is off by {worst:e}");
}

fn options(isa: Isa, threads: usize) -> EmbedOptions {
    EmbedOptions { isa, threads, arithmetic: Arithmetic::F32 }
}

/// The tolerance for an arithmetic; see [`assert_within`].
fn bounds(arithmetic: Arithmetic) -> [f64; 3] {
    match arithmetic {
        Arithmetic::F32 => [1e-9, 1e-4, 1e-5],
        Arithmetic::Bf16 => [3e-5, 1e-2, 1e-2],
        Arithmetic::Int8 => [1e-2, 1e-1, 1e-1],
    }
}

/// Every instruction set and every pair of batch size and thread count: the features of a batch
/// of one against the oracle, and those of any other bit for bit against them.
fn check(architecture: Architecture, runs: &[(usize, usize)]) {
    check_in(Arithmetic::F32, architecture, runs);
}

fn check_in(arithmetic: Arithmetic, architecture: Architecture, runs: &[(usize, usize)]) {
    check_weights(arithmetic, architecture, &random_weights(&architecture, 7), runs);
}

fn check_weights(
    arithmetic: Arithmetic,
    architecture: Architecture,
    weights: &Weights,
    runs: &[(usize, usize)],
) {
    let options = |isa, threads| EmbedOptions { arithmetic, ..options(isa, threads) };
    let crops = random_crops(runs.iter().map(|(batch, _)| *batch).max().unwrap_or(1), 11);
    let expected = oracle(&architecture, weights, &crops);
    for isa in Isa::available() {
        let alone: Vec<Vec<f32>> = {
            let embedder = Embedder::new(weights.clone(), options(isa, 1)).unwrap();
            let mut scratch = embedder.scratch();
            crops
                .iter()
                .flat_map(|crop| embedder.features(std::slice::from_ref(crop), &mut scratch).unwrap())
                .collect()
        };
        for (found, expected) in alone.iter().zip(&expected) {
            assert_within(found, expected, bounds(arithmetic), &format!("{architecture} {isa} {arithmetic}"));
        }
        let counts: BTreeSet<usize> = runs.iter().map(|(_, threads)| *threads).collect();
        for threads in counts {
            let embedder = Embedder::new(weights.clone(), options(isa, threads)).unwrap();
            let mut scratch = embedder.scratch();
            for &(batch, _) in runs.iter().filter(|run| run.1 == threads) {
                let found = embedder.features(&crops[..batch], &mut scratch).unwrap();
                assert_eq!(found, alone[..batch], "{architecture} {isa} batch {batch} threads {threads}");
            }
        }
    }
}

fn narrow(depth: usize) -> Architecture {
    Architecture::of_depth(depth).unwrap().with_channels([5, 12, 16, 20]).with_embedding(33)
}

/// Batches of 1 to 17 on 1 to 3 threads.
fn all_runs() -> Vec<(usize, usize)> {
    (1..=17).flat_map(|batch| (1..=3).map(move |threads| (batch, threads))).collect()
}

#[test]
fn shallow_networks_match_the_reference_with_any_batch_and_threads() {
    check(narrow(4), &all_runs());
    check(narrow(10), &all_runs());
    check(narrow(20), &all_runs());
}

#[test]
fn deep_networks_match_the_reference_with_any_batch() {
    // Every batch and every number of threads, but not every pair: these are slow.
    let runs: Vec<_> = (1..=17).map(|batch| (batch, 1 + batch % 3)).collect();
    check(narrow(36), &runs);
    check(narrow(64), &runs);
}

#[test]
fn more_threads_than_cores_change_nothing_however_often() {
    let weights = random_weights(&narrow(20), 7);
    let crops = random_crops(5, 11);
    for isa in Isa::available() {
        let run = |threads| {
            let embedder = Embedder::new(weights.clone(), options(isa, threads)).unwrap();
            embedder.features(&crops, &mut embedder.scratch()).unwrap()
        };
        let expected = run(1);
        for _ in 0..8 {
            assert_eq!(run(9), expected, "{isa}");
        }
    }
}

#[test]
fn channels_around_the_vector_widths_match_the_reference() {
    let sphere10 = Architecture::of_depth(10).unwrap();
    check(sphere10.with_channels([1, 1, 1, 1]).with_embedding(1), &[(3, 1)]);
    check(sphere10.with_channels([17, 33, 31, 49]).with_embedding(65), &[(1, 2), (7, 2)]);
    check(sphere10.with_channels([32, 64, 128, 256]).with_embedding(128), &[(1, 2), (2, 2)]);
}

#[test]
fn the_networks_of_the_paper_match_the_reference() {
    for depth in [4, 10, 20] {
        check(Architecture::of_depth(depth).unwrap(), &[(1, 2), (2, 2), (3, 2)]);
    }
    // The deepest ones differ in the number of units alone.
    for depth in [36, 64] {
        check(Architecture::of_depth(depth).unwrap(), &[(1, 2)]);
    }
}

#[test]
fn weights_of_half_precision_match_the_reference() {
    for architecture in [narrow(20), Architecture::of_depth(10).unwrap()] {
        let mut weights = random_weights(&architecture, 7);
        for tensor in weights.tensors.values_mut() {
            tensor.data.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
        }
        check_weights(Arithmetic::F32, architecture, &weights, &[(1, 1), (1, 3), (9, 1), (9, 2)]);
    }
}

#[test]
fn bf16_is_near_the_reference_with_any_batch_and_threads() {
    let few: Vec<_> = [1, 2, 5, 17].into_iter().flat_map(|batch| [(batch, 1), (batch, 3)]).collect();
    check_in(Arithmetic::Bf16, narrow(20), &few);
    let sphere10 = Architecture::of_depth(10).unwrap();
    check_in(Arithmetic::Bf16, sphere10.with_channels([17, 33, 31, 49]).with_embedding(65), &few);
    check_in(Arithmetic::Bf16, Architecture::of_depth(20).unwrap(), &[(1, 2), (3, 2)]);
}

/// Scales for 8-bit integers that suit [`random_weights`], whose sums grow from unit to unit.
fn random_scales(architecture: &Architecture) -> Int8Scales {
    let scales: Vec<String> = architecture
        .convolutions()
        .iter()
        .map(|c| format!(r#""{}": {}"#, c.names()[0], 0.03 * (1 + c.index / 2) as f32))
        .collect();
    let text = format!(r#"{{"scales": {{{}}}}}"#, scales.join(", "));
    Int8Scales::from_metadata(&[("int8".to_owned(), text)].into(), architecture).unwrap()
}

/// Features of a network on tiles in bf16 or int8: of all crops for every pair of batch size and thread count.
fn on_tiles(
    with: (Isa, TileUnit, Arithmetic),
    architecture: Architecture,
    crops: &[Crop],
    runs: &[(usize, usize)],
) -> Vec<Vec<Vec<f32>>> {
    let (isa, unit, arithmetic) = with;
    let scales = (arithmetic == Arithmetic::Int8).then(|| random_scales(&architecture));
    let weights = random_weights(&architecture, 7);
    let network = Network::on_tiles(&architecture, &weights, (isa, unit), scales.as_ref(), 2).unwrap();
    let features = |&(batch, threads): &(usize, usize)| {
        let mut workspace = network.workspace(threads);
        let mut forward = |crops: &[Crop]| {
            let mut values = Vec::new();
            crops.iter().for_each(|crop| pixels(crop, ChannelOrder::Rgb, &mut values));
            network.forward(&values, &mut workspace)
        };
        crops.chunks(batch).flat_map(&mut forward).collect()
    };
    runs.iter().map(features).collect()
}

/// The software model of the unit for tiles: the features against the oracle, the same with any batch and threads.
fn check_tiles(
    (isa, arithmetic): (Isa, Arithmetic),
    architecture: Architecture,
    count: usize,
    runs: &[(usize, usize)],
) {
    let crops = random_crops(count, 11);
    let expected = oracle(&architecture, &random_weights(&architecture, 7), &crops);
    let found = on_tiles((isa, TileUnit::Model, arithmetic), architecture, &crops, runs);
    for (found, run) in found.iter().zip(runs) {
        for (found, expected) in found.iter().zip(&expected) {
            let what = format!("{architecture} {isa} tiles {arithmetic} {run:?}");
            assert_within(found, expected, bounds(arithmetic), &what);
        }
    }
    assert!(found.iter().all(|other| *other == found[0]), "{architecture} {isa}");
}

#[test]
fn tiles_are_near_the_reference_with_any_batch_and_threads() {
    let sphere10 = Architecture::of_depth(10).unwrap();
    for isa in Isa::available() {
        for architecture in
            [narrow(4), narrow(20), sphere10.with_channels([17, 33, 31, 49]).with_embedding(65)]
        {
            check_tiles((isa, Arithmetic::Bf16), architecture, 3, &[(1, 1), (2, 3), (3, 2)]);
        }
    }
    let bf16 = (Isa::best(), Arithmetic::Bf16);
    check_tiles(bf16, narrow(10), 17, &[(17, 3), (5, 1)]);
    check_tiles(bf16, Architecture::of_depth(20).unwrap(), 1, &[(1, 2)]);
}

#[test]
fn integers_of_8_bits_are_near_the_reference_with_any_batch_and_threads() {
    let sphere10 = Architecture::of_depth(10).unwrap();
    for isa in Isa::available() {
        // The first two stages of the last one end with more or fewer blocks than the next ones begin with.
        for channels in [[17, 33, 31, 49], [33, 16, 70, 40]] {
            let architecture = sphere10.with_channels(channels).with_embedding(65);
            check_tiles((isa, Arithmetic::Int8), architecture, 3, &[(1, 1), (2, 3), (3, 2)]);
        }
    }
    let int8 = (Isa::best(), Arithmetic::Int8);
    check_tiles(int8, Architecture::of_depth(4).unwrap().with_channels([40; 4]), 17, &[(17, 3), (5, 1)]);
    check_tiles(int8, Architecture::of_depth(20).unwrap().with_channels([32, 64, 128, 256]), 2, &[(1, 2)]);
    check_tiles(int8, Architecture::of_depth(20).unwrap(), 1, &[(1, 2)]);
}

#[test]
fn without_scales_or_tiles_a_network_of_8_bit_integers_is_refused() {
    let architecture = narrow(4);
    let weights = random_weights(&architecture, 7);
    for isa in Isa::available() {
        let in_int8 = EmbedOptions { arithmetic: Arithmetic::Int8, ..options(isa, 1) };
        let refused = Embedder::new(weights.clone(), in_int8).unwrap_err();
        match TileUnit::of_this_machine(isa) {
            Some(_) => assert!(matches!(refused, EmbedError::NoInt8Scales), "{refused}"),
            None => assert!(matches!(refused, EmbedError::Arithmetic(_)), "{refused}"),
        }
        for model in [SPHEREFACE, SPHEREFACE_20] {
            let there = TileUnit::of_this_machine(isa).is_some();
            assert_eq!(Embedder::built_in(model, in_int8).is_ok(), there, "{isa}");
        }
    }
}

#[test]
fn tiles_of_this_machine_give_the_bits_of_their_model() {
    let isa = Isa::best();
    let Some(unit) = TileUnit::of_this_machine(isa) else {
        return println!("skipped: this machine has no AMX, or the system does not grant it");
    };
    let sphere20 = Architecture::of_depth(20).unwrap();
    for (architecture, arithmetic) in
        [(narrow(20), Arithmetic::Bf16), (sphere20, Arithmetic::Bf16), (sphere20, Arithmetic::Int8)]
    {
        let crops = random_crops(2, 11);
        let runs = [(1, 2), (2, 1)];
        let [hardware, model] = [unit, TileUnit::Model]
            .map(|unit| on_tiles((isa, unit, arithmetic), architecture, &crops, &runs));
        assert_eq!(hardware, model, "{architecture} {arithmetic}");
    }
}

#[test]
fn a_wrong_tensor_is_refused_by_its_name() {
    let architecture = narrow(10);
    let good = random_weights(&architecture, 1);
    let refusal = |change: &dyn Fn(&mut Weights)| -> EmbedError {
        let mut weights = good.clone();
        change(&mut weights);
        Network::new(&architecture, &weights, Isa::Portable, Arithmetic::F32, None, 1).unwrap_err()
    };
    let missing = refusal(&|w| drop(w.tensors.remove("conv2_2.bias")));
    assert!(missing.to_string().contains("`conv2_2.bias`"), "{missing}");
    let shape = refusal(&|w| w.tensors.get_mut("relu3_1.weight").unwrap().shape.push(1));
    assert!(shape.to_string().contains("`relu3_1.weight`"), "{shape}");
    let short = refusal(&|w| w.tensors.get_mut("fc5.weight").unwrap().data.truncate(9));
    assert!(short.to_string().contains("`fc5.weight`"), "{short}");
    let infinite = refusal(&|w| w.tensors.get_mut("conv4_1.weight").unwrap().data[3] = f32::NAN);
    assert!(infinite.to_string().contains("`conv4_1.weight`"), "{infinite}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let weights = random_weights(&narrow(4), 1);
    for threads in [0, 257] {
        let refused = Embedder::new(weights.clone(), options(Isa::Portable, threads));
        assert!(matches!(refused, Err(EmbedError::Threads(n)) if n == threads));
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        assert!(matches!(Embedder::new(weights.clone(), options(isa, 1)), Err(EmbedError::Isa(_))));
    }
}

#[test]
fn a_model_of_the_program_embeds_the_same_whenever_its_weights_are_read() {
    let late = Embedder::built_in(SPHEREFACE, EmbedOptions::default()).unwrap();
    let early = Embedder::new(SPHEREFACE.weights().unwrap(), EmbedOptions::default()).unwrap();
    assert_eq!((late.model(), late.metadata()), (early.model(), early.metadata()));
    let crops = random_crops(2, 3);
    let embed = |one: &Embedder| one.embed(&crops, Mirror::No, &mut one.scratch()).unwrap();
    assert_eq!(embed(&late), embed(&early));
    // The detector is not an embedding network.
    assert!(Embedder::built_in(MTCNN, EmbedOptions::default()).is_err());
}

#[test]
fn stored_weights_embed_as_those_at_hand_in_either_precision() {
    let architecture = narrow(4);
    let mut weights = random_weights(&architecture, 3);
    let mean = Tensor { shape: vec![33], data: (0..33).map(|i| i as f32 / 64.0).collect() };
    weights.tensors.insert("mean".into(), mean);
    for tensor in weights.tensors.values_mut() {
        tensor.data.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
    }
    let crops = random_crops(3, 5);
    let embed = |one: &Embedder| one.embed(&crops, Mirror::No, &mut one.scratch()).unwrap();
    for isa in Isa::available() {
        let at_hand = Embedder::new(weights.clone(), options(isa, 1)).unwrap();
        for precision in [Precision::F32, Precision::F16] {
            let file = tempfile::NamedTempFile::new().unwrap();
            weights.save(file.path(), precision).unwrap();
            let stored = Embedder::stored(Stored::load(file.path()).unwrap(), options(isa, 2)).unwrap();
            assert_eq!(stored.model(), at_hand.model());
            assert_eq!(embed(&stored), embed(&at_hand), "{isa} {precision}");
        }
    }
    weights.tensors.get_mut("fc5.weight").unwrap().shape.reverse();
    let file = tempfile::NamedTempFile::new().unwrap();
    weights.save(file.path(), Precision::F16).unwrap();
    let refused = Embedder::stored(Stored::load(file.path()).unwrap(), options(Isa::best(), 1));
    assert!(matches!(refused, Err(EmbedError::Shape { name, .. }) if name == "fc5.weight"));
}

#[test]
fn the_mean_is_subtracted_and_the_mirror_image_averaged() {
    let mut weights = random_weights(&narrow(4), 3);
    let crops = random_crops(2, 5);
    let plain = Embedder::new(weights.clone(), EmbedOptions::default()).unwrap();
    let mut scratch = plain.scratch();
    let features = plain.features(&crops, &mut scratch).unwrap();
    let mirrored: Vec<Crop> = crops.iter().map(Crop::mirrored).collect();
    assert_ne!(mirrored, crops);
    let other = plain.features(&mirrored, &mut scratch).unwrap();
    let averaged = plain.embed(&crops, Mirror::Average, &mut scratch).unwrap();
    assert_eq!(averaged, plain.embed(&mirrored, Mirror::Average, &mut scratch).unwrap());
    for ((a, b), found) in features.iter().zip(&other).zip(&averaged) {
        let sum: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        assert_close(found.as_slice(), &unit(&sum), "mirror");
    }

    let mean: Vec<f32> = (0..33).map(|i| i as f32 * 0.01).collect();
    weights.tensors.insert("mean".into(), Tensor { shape: vec![33], data: mean.clone() });
    let centred = Embedder::new(weights.clone(), EmbedOptions::default()).unwrap();
    assert_ne!(centred.model(), plain.model());
    let found = centred.embed(&crops, Mirror::No, &mut centred.scratch()).unwrap();
    for (found, feature) in found.iter().zip(&features) {
        let shifted: Vec<f64> =
            feature.iter().zip(&mean).map(|(&x, &m)| f64::from(x) - f64::from(m)).collect();
        assert_close(found.as_slice(), &unit(&shifted), "mean");
    }
    assert_eq!(centred.features(&crops, &mut centred.scratch()).unwrap(), features);

    weights.tensors.insert("mean".into(), Tensor { shape: vec![32], data: vec![0.0; 32] });
    assert!(matches!(Embedder::new(weights, EmbedOptions::default()), Err(EmbedError::Shape { .. })));
}

fn unit(v: &[f64]) -> Vec<f64> {
    let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    v.iter().map(|x| x / norm).collect()
}

#[test]
fn the_channel_order_of_the_weights_is_honoured() {
    let weights = random_weights(&narrow(4), 3);
    let crop = random_crops(1, 5).remove(0);
    let swapped: Vec<u8> = crop.as_rgb().as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [b, g, r]).collect();
    let swapped = Crop::from_rgb(swapped).unwrap();
    let mut bgr = weights.clone();
    bgr.metadata.insert("channel_order".into(), "BGR".into());
    let [rgb, bgr] = [weights, bgr].map(|w| Embedder::new(w, EmbedOptions::default()).unwrap());
    let a = rgb.features(&[crop], &mut rgb.scratch()).unwrap();
    let b = bgr.features(&[swapped], &mut bgr.scratch()).unwrap();
    assert_eq!(a, b);
}

#[test]
fn a_feature_without_direction_is_refused() {
    let architecture = narrow(4);
    let mut weights = random_weights(&architecture, 3);
    weights.tensors.values_mut().for_each(|t| t.data.fill(0.0));
    let embedder = Embedder::new(weights, EmbedOptions::default()).unwrap();
    let refused = embedder.embed(&random_crops(2, 5), Mirror::No, &mut embedder.scratch());
    assert!(matches!(refused, Err(EmbedError::NoDirection(0))));
    assert!(embedder.embed(&[], Mirror::Average, &mut embedder.scratch()).unwrap().is_empty());
}
