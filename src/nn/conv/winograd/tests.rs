//! Layers of every tile, form of weights and instruction set against the sums they stand for.

use super::*;

/// Every tile of [`by_tile`].
const TILES: [[usize; 2]; 6] = [[2, 2], [3, 3], [4, 3], [4, 4], [4, 6], [5, 4]];

/// A generator of numbers between -1 and 1, for every list with a `seed` of its own.
fn values(seed: usize) -> impl FnMut() -> f32 {
    let mut state = seed as u32 * 2 + 1;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// One case: maps of a size through a layer, on `threads` threads.
struct Case {
    size: [usize; 2],
    channels: [usize; 2],
    maps: usize,
    threads: usize,
}

impl Case {
    /// Panics unless the layer's outputs are those of the sums in f64.
    fn check(&self, isa: Isa, tile: [usize; 2], form: Form, stride: usize) {
        let &Case { size: [height, width], channels: [inputs, outputs], maps, threads } = self;
        let mut next = values(height + 3 * width + 7 * inputs);
        let mut list = |len: usize| -> Vec<f32> { (0..len).map(|_| next()).collect() };
        let (weight, bias, slopes) = (list(outputs * inputs * 9), list(outputs), list(outputs));
        let pixels = list(maps * stride * height * stride * width * inputs);
        let before = list(maps * height * width * outputs);

        let from = Map::new(stride * height, stride * width, padded(inputs, isa), tile.map(|n| stride * n));
        let to_channels = match stride {
            1 => Winograd::least_outputs(outputs, isa),
            _ => padded(outputs, isa),
        };
        let to = Map::new(height, width, to_channels, tile);
        let activation = Activation::new(&bias, Some(&slopes), to.channels);
        let layer = match stride {
            1 => {
                let channels = [from.channels, to.channels];
                Winograd::of_maps(isa, tile, form, &weight, inputs, channels, activation)
            }
            _ => Winograd::halving(isa, form, &weight, inputs, activation),
        };
        let (mut input, mut output) = (Buffer::new(maps * from.len()), Buffer::new(maps * to.len()));
        let each = |rows: usize, columns: usize| {
            (0..maps * rows * columns).map(move |i| (i / columns / rows, i / columns % rows, i % columns))
        };
        for ((map, y, x), pixel) in each(from.height, from.width).zip(pixels.chunks_exact(inputs)) {
            input[map * from.len() + from.at(y, x)..][..inputs].copy_from_slice(pixel);
        }
        for ((map, y, x), pixel) in each(height, width).zip(before.chunks_exact(outputs)) {
            output[map * to.len() + to.at(y, x)..][..outputs].copy_from_slice(pixel);
        }
        let mut team = Team::new(threads);
        let mut tiles: Vec<Tiles> = (0..threads).map(|_| Tiles::default()).collect();
        tiles.iter_mut().for_each(|tiles| tiles.grow(std::iter::once(&layer)));
        layer.apply(&mut team, &mut tiles, maps, (from, &input), (to, &mut output), true);

        let at = |map: usize, y: usize, x: usize, c: usize| {
            let inside = (1..=from.height).contains(&y) && (1..=from.width).contains(&x);
            let pixel = || (map * from.height + y - 1) * from.width + x - 1;
            if inside { f64::from(pixels[pixel() * inputs + c]) } else { 0.0 }
        };
        for ((map, y, x), before) in each(height, width).zip(before.chunks_exact(outputs)) {
            for (o, &before) in before.iter().enumerate() {
                let mut sum = f64::from(bias[o]);
                for (c, tap) in (0..inputs).flat_map(|c| (0..9).map(move |tap| (c, tap))) {
                    let pixel = at(map, stride * y + tap / 3, stride * x + tap % 3, c);
                    sum += f64::from(weight[(o * inputs + c) * 9 + tap]) * pixel;
                }
                let wanted = f64::from(before) + if sum < 0.0 { sum * f64::from(slopes[o]) } else { sum };
                let found = output[map * to.len() + to.at(y, x) + o];
                let bound = 5e-5 * (inputs as f64).sqrt();
                assert!(
                    (f64::from(found) - wanted).abs() < bound,
                    "{isa} {tile:?} {form:?} stride {stride}, map {map} ({y}, {x}) {o}: {found}, not {wanted}"
                );
            }
        }
    }
}

#[test]
fn layers_of_every_tile_and_form_are_the_convolution() {
    let cases = [
        Case { size: [7, 6], channels: [33, 17], maps: 1, threads: 2 },
        Case { size: [1, 1], channels: [1, 1], maps: 2, threads: 1 },
        Case { size: [9, 13], channels: [40, 70], maps: 1, threads: 1 },
        // More than one block of tiles, shared by threads and not.
        Case { size: [14, 12], channels: [6, 5], maps: 17, threads: 3 },
        Case { size: [14, 12], channels: [6, 5], maps: 40, threads: 2 },
    ];
    for isa in Isa::available() {
        for case in &cases {
            for form in [Form::Full, Form::Packed] {
                TILES.iter().for_each(|&tile| case.check(isa, tile, form, 1));
                case.check(isa, [2, 2], form, 2);
            }
        }
    }
}

/// Whether `work` panics, as it must before anything out of bounds is touched.
fn refused(work: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err()
}

#[test]
fn layers_with_too_few_biases_are_refused() {
    let isa = Isa::best();
    let (inputs, outputs) = (padded(3, isa), padded(40, isa));
    let weight = vec![0.5; 40 * 3 * 9];
    let short = || Activation::new(&[], None, outputs - 1);
    let channels = [inputs, outputs];
    assert!(refused(|| drop(Winograd::of_maps(isa, [4, 4], Form::Full, &weight, 3, channels, short()))));
    assert!(refused(|| drop(Winograd::halving(isa, Form::Full, &weight, 3, short()))));
    let refresh = |activation: Activation| {
        let mut layer = Winograd::empty(isa, 4, inputs, outputs);
        layer.refresh(&mut Team::new(1), &weight, (40, 3), Direction::Forward, activation);
    };
    refresh(Activation::new(&[], None, outputs));
    assert!(refused(|| refresh(short())));
}

#[test]
fn gradients_of_other_tiles_or_maps_are_refused() {
    let isa = Isa::best();
    let channels = padded(1, isa);
    assert!(refused(|| drop(Winograd::empty(isa, 3, channels, channels))));
    assert!(refused(|| drop(Winograd::empty(isa, 4, channels + 1, channels))));
    let gradient = |layer: &Winograd, tile: usize| {
        let map = Map::new(6, 6, channels, [tile; 2]);
        let maps = Buffer::new(2 * map.len());
        let mut memory = GradientMemory::new(&[(4, channels)]);
        let mut sums = vec![0.0; channels * channels * 9];
        let sizes = (channels, channels);
        layer.add_weight_gradient(&mut Team::new(2), &mut memory, 2, map, (&maps, &maps), sizes, &mut sums);
    };
    let trained = |tile: usize| Winograd::empty(isa, tile, channels, channels);
    gradient(&trained(4), 4);
    gradient(&trained(2), 2);
    // Six rows are three tiles of two and one and a half of four: the last would reach out of the map.
    assert!(refused(|| gradient(&trained(4), 2)));
    let weight = vec![0.5; channels * channels * 9];
    let activation = Activation::new(&[], None, channels);
    let inference = Winograd::new(isa, [4, 6], Form::Full, &weight, channels, activation);
    assert!(refused(|| gradient(&inference, 4)));
}
