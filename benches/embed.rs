//! Milliseconds a face of the embedder, with weights that every peer can make for itself.
//!
//! `cargo bench --bench embed -- [--depth 20] [--threads 1] [--isa avx2] [--rounds 20]` prints a
//! table. With `--serve` it answers each line `BATCH` on standard input with the milliseconds
//! that one batch took, so that `benches/peers/embed.py` can measure it and its peers in turns;
//! the line `features` is answered with the feature of the first crop.

use std::io::{BufRead, Write};
use std::time::Instant;

use sphereface::align::Crop;
use sphereface::embed::{Architecture, EmbedOptions, Embedder, Mirror, Scratch};
use sphereface::nn::{Isa, Tensor, Weights};

/// The `i`-th number of the generator splitmix64 in [-1, 1), exact in f32.
fn number(i: u64) -> f32 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn weights(architecture: &Architecture) -> Weights {
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
    weights.metadata.insert("architecture".into(), architecture.to_string());
    weights.metadata.insert("channel_order".into(), "RGB".into());
    weights
}

fn crops(count: usize) -> Vec<Crop> {
    let byte = |i: usize| ((number(i as u64) + 1.0) * 128.0) as u8;
    (0..count)
        .map(|n| (n * Crop::LEN_BYTES..(n + 1) * Crop::LEN_BYTES).map(byte).collect())
        .filter_map(Crop::from_rgb)
        .collect()
}

/// Milliseconds of one batch.
fn time(embedder: &Embedder, crops: &[Crop], scratch: &mut Scratch) -> f64 {
    let start = Instant::now();
    let embeddings = embedder.embed(crops, Mirror::No, scratch);
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(embeddings.map(|list| list.len()).unwrap_or(0), crops.len());
    elapsed
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)).map(String::as_str)
    };
    let number = |name: &str, default: usize| {
        value(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
    };
    let isa = match value("--isa") {
        Some(name) => Isa::from_name(name).unwrap_or_else(|e| panic!("{e}")),
        None => Isa::best(),
    };
    let depth = number("--depth", 20);
    let architecture = Architecture::of_depth(depth).expect("--depth takes 4, 10, 20, 36 or 64");
    let options = EmbedOptions { isa, threads: number("--threads", 1) };
    let embedder = Embedder::new(weights(&architecture), options).expect("these options make sense");
    let mut scratch = embedder.scratch();
    let crops = crops(16);

    if arguments.iter().any(|a| a == "--serve") {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match line.parse::<usize>() {
                Ok(batch) => println!("{}", time(&embedder, &crops[..batch], &mut scratch)),
                Err(_) => println!("{:?}", embedder.features(&crops[..1], &mut scratch)[0]),
            }
            let _ = std::io::stdout().flush();
        }
        return;
    }
    println!("{architecture}, {isa}, {} threads: median (least) ms a face", options.threads);
    for batch in [1, 4, 16] {
        let mut times: Vec<f64> = (0..number("--rounds", 20) + 2)
            .map(|_| time(&embedder, &crops[..batch], &mut scratch) / batch as f64)
            .skip(2)
            .collect();
        times.sort_by(f64::total_cmp);
        println!("  batch {batch:2}: {:6.2} ({:.2})", times[times.len() / 2], times[0]);
    }
}
