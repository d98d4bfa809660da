use sphereface::align::Crop;
use sphereface::embed::{EmbedOptions, Embedder, Mirror};
use sphereface::nn::Weights;
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let weights = Weights::load(args[1].as_ref()).unwrap();
    let raw = std::fs::read(&args[2]).unwrap();
    let crops: Vec<Crop> = raw.chunks_exact(112 * 112 * 3).map(|c| Crop::from_square(c).unwrap()).collect();
    let threads: usize = args[3].parse().unwrap();
    let embedder = Embedder::new(weights, EmbedOptions { threads, ..Default::default() }).unwrap();
    let mut scratch = embedder.scratch();
    let embeddings = embedder.embed(&crops[..crops.len().min(64)], Mirror::No, &mut scratch).unwrap();
    let bytes: Vec<u8> =
        embeddings.iter().flat_map(|e| e.as_slice().iter().flat_map(|x| x.to_le_bytes())).collect();
    std::fs::write(&args[4], bytes).unwrap();
    for batch in args[5].split(',').map(|b| b.parse::<usize>().unwrap()) {
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < args[6].parse().unwrap() {
            let t = Instant::now();
            embedder.features(&crops[..batch], &mut scratch).unwrap();
            times.push(t.elapsed().as_secs_f64() * 1e3 / batch as f64);
        }
        if times.is_empty() {
            continue;
        }
        times.sort_by(f64::total_cmp);
        println!("ours {batch} {:.3} min {:.3}", times[times.len() / 2], times[0]);
    }
}
