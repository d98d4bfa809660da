//! Layers by the software model of the unit against the sums they stand for, and the unit against its model.

use super::*;

/// A number between -1 and 1 for every place of a list, anew for every list.
fn values(seed: usize) -> impl FnMut() -> f32 {
    let mut state = seed as u32 * 2 + 1;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn rounded(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// One or two numbers, rounded, as a pair.
fn pair_of(numbers: &[f32]) -> f32 {
    Pair([0, 1].map(|i| bf16::from_f32(numbers.get(i).copied().unwrap_or(0.0)))).bits()
}

/// What one in the maps of 8-bit integers stands for that layers read here, whose numbers are between -1 and 1, and in those
/// that they write, which some numbers exceed.
const SCALES: [f32; 2] = [1.0 / 127.0, 0.02];

/// Up to four numbers in 8 bits.
fn four_of(numbers: &[f32]) -> f32 {
    let byte = |i: usize| (numbers.get(i).copied().unwrap_or(0.0) / SCALES[0]).round_ties_even() as i8;
    f32::from_bits(u32::from_le_bytes([0, 1, 2, 3].map(|i| byte(i).cast_unsigned())))
}

/// A convolution and what goes through it.
#[derive(Clone, Copy)]
struct Case {
    /// In the maps that are read and in those that are written.
    numbers: [TileNumbers; 2],
    /// Rows and columns of the input.
    size: [usize; 2],
    channels: [usize; 2],
    stride: usize,
    maps: usize,
}

/// Weights, biases, slopes, maps in and residual maps as plain lists, `[map][pixel][channel]`.
struct Numbers {
    weight: Vec<f32>,
    bias: Vec<f32>,
    slopes: Vec<f32>,
    pixels: Vec<f32>,
    before: Vec<f32>,
}

/// What a layer gives for every map, bit for bit.
#[derive(PartialEq, Eq)]
struct Outputs {
    stream: Vec<u32>,
    blocks: Vec<u32>,
    /// Before the activation.
    sums: Vec<u32>,
}

impl Case {
    fn outputs(&self) -> [usize; 2] {
        self.size.map(|n| n.div_ceil(self.stride))
    }

    fn numbers(&self) -> Numbers {
        let &Case { size: [height, width], channels: [inputs, outputs], maps, .. } = self;
        let seed = height + 3 * width + 7 * inputs + self.stride;
        // Each list from a start of its own: that of fewer maps is the beginning of that of many.
        let list = |i: usize, len: usize| -> Vec<f32> {
            let mut next = values(5 * seed + i);
            (0..len).map(|_| next()).collect()
        };
        let pixels = self.outputs().iter().product::<usize>();
        Numbers {
            weight: list(0, outputs * inputs * 9),
            bias: list(1, outputs),
            slopes: list(2, outputs),
            pixels: list(3, maps * height * width * inputs),
            before: list(4, maps * pixels * outputs),
        }
    }

    /// The map that the layer reads, the stream, and the map for a next layer of that stride.
    fn maps(&self, isa: Isa, next: usize) -> (BlockMap, Map, BlockMap) {
        let [inputs, outputs] = self.channels;
        let [height, width] = self.outputs();
        let stream = Map::new(height, width, outputs.next_multiple_of(simd::lanes(isa)), [1; 2]);
        let [read, written] = self.numbers;
        let blocks = BlockMap::of(written, [height, width], outputs, next);
        (BlockMap::of(read, self.size, inputs, self.stride), stream, blocks)
    }

    /// Whether there are sums for the backward pass, which is in bfloat16.
    fn keeps_sums(&self) -> bool {
        self.numbers == [TileNumbers::Bf16; 2]
    }

    /// What becomes of a number in the maps that are read.
    fn input(&self, x: f32) -> f64 {
        match self.numbers[0] {
            TileNumbers::Bf16 => rounded(x).into(),
            TileNumbers::Int8 => f64::from((x / SCALES[0]).round_ties_even()) * f64::from(SCALES[0]),
        }
    }

    /// What becomes of the weights of an output.
    fn weights(&self, weights: &[f32]) -> Vec<f64> {
        let largest = weights.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = largest / 127.0;
        let weight = |&x: &f32| match self.numbers[0] {
            TileNumbers::Bf16 => rounded(x).into(),
            TileNumbers::Int8 => f64::from((x / scale).round_ties_even()) * f64::from(scale),
        };
        weights.iter().map(weight).collect()
    }

    /// Pixels of maps that large, in order.
    fn pixels(&self, [height, width]: [usize; 2]) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.maps * height * width).map(move |i| (i / width / height, i / width % height, i % width))
    }

    /// Applies the layer to maps of these numbers.
    fn run(&self, (isa, unit): (Isa, TileUnit), how: Stream, next: usize, threads: usize) -> Outputs {
        let numbers = self.numbers();
        let (from, stream, blocks) = self.maps(isa, next);
        let [inputs, outputs] = self.channels;
        let mut team = Team::new(threads);
        let mut rounded = Buffer::new(self.maps * from.len());
        for ((map, y, x), pixel) in self.pixels(self.size).zip(numbers.pixels.chunks_exact(inputs)) {
            let per_line = from.numbers.per_line();
            for (block, channels) in pixel.chunks(per_line).enumerate() {
                let place = map * from.len() + block * from.block_len() + from.at(y, x);
                for (to, few) in rounded[place..].iter_mut().zip(channels.chunks(per_line / LINE)) {
                    *to = if self.numbers[0] == TileNumbers::Bf16 { pair_of(few) } else { four_of(few) };
                }
            }
        }
        let mut to = Buffer::new(self.maps * stream.len());
        for ((map, y, x), pixel) in self.pixels(self.outputs()).zip(numbers.before.chunks_exact(outputs)) {
            to[map * stream.len() + stream.at(y, x)..][..outputs].copy_from_slice(pixel);
        }
        let mut next = Buffer::new(self.maps * blocks.len());
        let kept = BlockMap::new(self.outputs(), outputs, 1);
        let mut sums = Buffer::new(self.maps * kept.len());
        let activation = (&numbers.bias[..], &numbers.slopes[..]);
        let layer = match self.numbers[0] {
            TileNumbers::Bf16 => TiledConv::new((isa, unit), &numbers.weight, inputs, from, activation),
            TileNumbers::Int8 => {
                TiledConv::of_bytes((isa, unit), &numbers.weight, inputs, from, SCALES[0], activation)
            }
        };
        let output = TiledOutput {
            stream: Some((stream, &mut to, how)),
            blocks: Some((blocks, &mut next)),
            scale: SCALES[1],
            sums: self.keeps_sums().then_some((kept, &mut sums)),
        };
        layer.apply(&mut team, &mut TiledConv::memory(threads), self.maps, &rounded, output);
        let bits = |buffer: &Buffer| buffer.iter().map(|x| x.to_bits()).collect();
        Outputs { stream: bits(&to), blocks: bits(&next), sums: bits(&sums) }
    }

    /// Panics unless every `every`-th pixel of the outputs is the sum in f64 of rounded numbers.
    fn check(&self, isa: Isa, how: Stream, next: usize, every: usize) {
        let numbers = self.numbers();
        let found = self.run((isa, TileUnit::Model), how, next, 1);
        let (_, stream, blocks) = self.maps(isa, next);
        let [inputs, outputs] = self.channels;
        let weight: Vec<f64> =
            numbers.weight.chunks_exact(inputs * 9).flat_map(|weights| self.weights(weights)).collect();
        let Self { size, channels, stride, numbers: kinds, .. } = self;
        let name = format!("{size:?} {channels:?} {kinds:?} stride {stride} {isa} {how:?}");
        let pixels = self.pixels(self.outputs()).zip(numbers.before.chunks_exact(outputs));
        for ((map, y, x), before) in pixels.step_by(every) {
            let window = self.window(&numbers.pixels, map, [y, x]);
            for (o, &before) in before.iter().enumerate() {
                let mut sum = f64::from(numbers.bias[o]);
                for (w, x) in weight[o * inputs * 9..][..inputs * 9].iter().zip(&window) {
                    sum += w * x;
                }
                let mut wanted = if sum < 0.0 { sum * f64::from(numbers.slopes[o]) } else { sum };
                if how != Stream::Begin {
                    wanted += f64::from(before);
                }
                // Sums of f32 grow with the square root of their number, and so does what rounding them adds up to.
                let bound = 1e-6 * (inputs as f64 * 9.0).sqrt();
                let found_stream = f32::from_bits(found.stream[map * stream.len() + stream.at(y, x) + o]);
                let kept = if how == Stream::End { f64::from(before) } else { wanted };
                assert!((f64::from(found_stream) - kept).abs() < bound, "{name} {y} {x} {o}: stream");
                let half = |pair: u32| f64::from(f32::from_bits(pair >> (o % 2 * 16) << 16));
                let per_line = blocks.numbers.per_line();
                let place =
                    o / per_line * blocks.block_len() + blocks.at(y, x) + o % per_line * LINE / per_line;
                let bits = found.blocks[map * blocks.len() + place];
                let (next, wanted, rounding) = match blocks.numbers {
                    TileNumbers::Bf16 => (half(bits), wanted, wanted.abs() / 256.0),
                    TileNumbers::Int8 => {
                        let scale = f64::from(SCALES[1]);
                        let byte = bits.to_le_bytes()[o % 4].cast_signed();
                        (f64::from(byte) * scale, wanted.clamp(-128.0 * scale, 127.0 * scale), 0.5 * scale)
                    }
                };
                assert!((next - wanted).abs() < bound + rounding, "{name} {y} {x} {o}: {next} {wanted}");
                if !self.keeps_sums() {
                    continue;
                }
                let kept = BlockMap::new(self.outputs(), outputs, 1);
                let place = o / BLOCK * kept.block_len() + kept.at(y, x) + o % BLOCK / 2;
                let before = half(found.sums[map * kept.len() + place]);
                assert!((before - sum).abs() < bound + sum.abs() / 256.0, "{name} {y} {x} {o}: {before}");
            }
        }
        self.check_borders(&found, stream, blocks);
    }

    /// The numbers under the kernel of an output, `[channel][tap]`.
    fn window(&self, pixels: &[f32], map: usize, [y, x]: [usize; 2]) -> Vec<f64> {
        let ([height, width], [inputs, _]) = (self.size, self.channels);
        let at = |c: usize, tap: usize| {
            let (row, column) = (self.stride * y + tap / 3, self.stride * x + tap % 3);
            let inside = (1..=height).contains(&row) && (1..=width).contains(&column);
            let pixel = || ((map * height + row - 1) * width + column - 1) * inputs + c;
            if inside { self.input(pixels[pixel()]) } else { 0.0 }
        };
        (0..inputs * 9).map(|i| at(i / 9, i % 9)).collect()
    }

    /// Panics unless all that is no pixel is zero.
    fn check_borders(&self, found: &Outputs, stream: Map, blocks: BlockMap) {
        let mut rest = found.blocks.clone();
        for (map, y, x) in self.pixels(self.outputs()) {
            for block in 0..blocks.blocks {
                let place = map * blocks.len() + block * blocks.block_len() + blocks.at(y, x);
                rest[place..place + LINE].fill(0);
            }
        }
        assert!(rest.iter().all(|&x| x == 0), "{:?}: borders of the blocks", self.size);
        let mut rest = found.stream.clone();
        for (map, y, x) in self.pixels(self.outputs()) {
            rest[map * stream.len() + stream.at(y, x)..][..stream.channels].fill(0);
        }
        assert!(rest.iter().all(|&x| x == 0), "{:?}: borders of the stream", self.size);
    }
}

const BF16: [TileNumbers; 2] = [TileNumbers::Bf16; 2];

/// What layers read and write, unless all is in bfloat16.
const INT8: [[TileNumbers; 2]; 3] =
    [[TileNumbers::Int8; 2], [TileNumbers::Int8, TileNumbers::Bf16], [TileNumbers::Bf16, TileNumbers::Int8]];

/// The layers of SphereFace-20 and 36 behind the first, at full width divided by `narrower`.
fn layers(narrower: usize, numbers: [TileNumbers; 2]) -> Vec<Case> {
    let stages = [([56, 48], 64), ([28, 24], 128), ([14, 12], 256), ([7, 6], 512)];
    let unit = stages.map(|(size, channels)| Case {
        numbers,
        size,
        channels: [channels / narrower; 2],
        stride: 1,
        maps: 1,
    });
    let open = [0, 1, 2].map(|stage| Case {
        numbers,
        size: stages[stage].0,
        channels: [stages[stage].1 / narrower, stages[stage + 1].1 / narrower],
        stride: 2,
        maps: 1,
    });
    [&unit[..], &open[..]].concat()
}

#[test]
fn the_layers_of_the_networks_are_sums_of_numbers_in_bfloat16() {
    for (narrower, every) in [(1, 29), (2, 13)] {
        for case in layers(narrower, BF16) {
            case.check(Isa::best(), Stream::Add, 3 - case.stride, every);
        }
    }
}

#[test]
fn the_layers_of_the_networks_are_sums_of_integers_of_8_bits() {
    for (narrower, every) in [(1, 29), (2, 13)] {
        for case in INT8.into_iter().flat_map(|numbers| layers(narrower, numbers)) {
            case.check(Isa::best(), Stream::Add, 3 - case.stride, every);
        }
    }
}

/// Sizes and channels that fill neither tiles nor blocks.
const ODD: [([usize; 2], [usize; 2]); 6] = [
    ([7, 6], [5, 33]),
    ([1, 1], [1, 1]),
    ([3, 17], [33, 31]),
    ([13, 5], [70, 2]),
    ([9, 16], [31, 65]),
    ([4, 5], [130, 97]),
];

#[test]
fn sizes_that_are_no_multiples_of_anything_are_too_in_8_bits() {
    for (isa, numbers) in Isa::available().into_iter().flat_map(|isa| INT8.map(|numbers| (isa, numbers))) {
        for (size, channels) in ODD {
            for (stride, maps) in [(1, 3), (2, 1), (2, 3)] {
                let case = Case { numbers, size, channels, stride, maps };
                case.check(isa, Stream::Begin, 1, 1);
                case.check(isa, Stream::Add, 2, 1);
                case.check(isa, Stream::End, stride, 1);
            }
        }
    }
}

#[test]
fn sizes_that_are_no_multiples_of_anything_are_too() {
    for isa in Isa::available() {
        for (size, channels) in ODD {
            for (stride, maps) in [(1, 1), (1, 3), (2, 1), (2, 3)] {
                let case = Case { numbers: BF16, size, channels, stride, maps };
                case.check(isa, Stream::Begin, 1, 1);
                case.check(isa, Stream::Add, 2, 1);
                case.check(isa, Stream::End, stride, 1);
            }
        }
    }
}

#[test]
fn outputs_do_not_depend_on_threads_or_the_batch() {
    for (numbers, size, stride) in [
        (BF16, [7, 6], 1),
        (BF16, [14, 12], 1),
        (BF16, [14, 12], 2),
        (INT8[0], [7, 6], 1),
        (INT8[0], [14, 12], 2),
    ] {
        let case = Case { numbers, size, channels: [40, 100], stride, maps: 17 };
        let with = (Isa::best(), TileUnit::Model);
        let alone = case.run(with, Stream::Add, 1, 1);
        assert!(case.run(with, Stream::Add, 1, 3) == alone, "{size:?}, 3 threads");
        for maps in [1, 2, 3, 5] {
            let (_, stream, blocks) = case.maps(with.0, 1);
            let few = Case { maps, ..case }.run(with, Stream::Add, 1, 2);
            assert!(few.stream == alone.stream[..maps * stream.len()], "{size:?}, {maps} maps");
            assert!(few.blocks == alone.blocks[..maps * blocks.len()], "{size:?}, {maps} maps");
        }
    }
}

#[test]
fn a_layer_on_windows_is_the_convolution() {
    for (size, [inputs, outputs], maps) in
        [([112, 96], [3, 64], 1), ([6, 8], [3, 32], 2), ([7, 5], [2, 33], 3), ([1, 1], [1, 5], 1)]
    {
        for isa in Isa::available() {
            let case = Case { numbers: BF16, size, channels: [inputs, outputs], stride: 2, maps };
            let numbers = case.numbers();
            let plain = Map::new(size[0], size[1], inputs, [1; 2]);
            let mut pixels = Buffer::new(maps * plain.len());
            for (map, face) in pixels
                .chunks_exact_mut(plain.len())
                .zip(numbers.pixels.chunks_exact(size[0] * size[1] * inputs))
            {
                plain.fill(face, map);
            }
            let from = BlockMap::of_windows(case.outputs());
            let mut team = Team::new(2);
            let mut input = Buffer::new(maps * from.len());
            windows(&mut team, maps, (plain, &pixels), (from, &mut input));
            let activation = (&numbers.bias[..], &numbers.slopes[..]);
            let with = (isa, TileUnit::Model);
            let layer = TiledConv::of_windows(with, &numbers.weight, inputs, from, activation);
            let (_, stream, _) = case.maps(isa, 1);
            let mut found = Buffer::new(maps * stream.len());
            let stream_of = Some((stream, &mut found[..], Stream::Begin));
            let output = TiledOutput { stream: stream_of, blocks: None, scale: 1.0, sums: None };
            layer.apply(&mut team, &mut TiledConv::memory(2), maps, &input, output);
            for (map, y, x) in case.pixels(case.outputs()) {
                let window = case.window(&numbers.pixels, map, [y, x]);
                for o in 0..outputs {
                    let weights = &numbers.weight[o * inputs * 9..][..inputs * 9];
                    let sum: f64 = weights.iter().zip(&window).map(|(&w, x)| f64::from(rounded(w)) * x).sum();
                    let sum = sum + f64::from(numbers.bias[o]);
                    let wanted = if sum < 0.0 { sum * f64::from(numbers.slopes[o]) } else { sum };
                    let found = found[map * stream.len() + stream.at(y, x) + o];
                    assert!((f64::from(found) - wanted).abs() < 1e-5, "{size:?} {isa} {map} {y} {x} {o}");
                }
            }
        }
    }
}

#[test]
fn weights_are_where_the_product_of_tiles_wants_them() {
    let [outputs, inputs] = [37, 45];
    let weight: Vec<f32> = (0..outputs * inputs * 9).map(|i| (i % 251) as f32).collect();
    let on = (Isa::best(), TileUnit::Model);
    let numbers = (&vec![0.0; outputs][..], &vec![0.0; outputs][..]);
    let packed = TiledConv::new(on, &weight, inputs, BlockMap::new([5, 4], inputs, 1), numbers).weights;
    let mut found = vec![0.0; weight.len()];
    let mut rest = 0;
    for block in 0..2 {
        for (step, k, n) in
            (0..2 * 9 * BLOCK * BLOCK).map(|i| (i / BLOCK / BLOCK, i / BLOCK % BLOCK, i % BLOCK))
        {
            // The row of a tile holds numbers 2k and 2k + 1 of each column side by side.
            let place = (block * 18 + step) * STEP + n / LINE * TILE + k / 2 * LINE + n % LINE;
            let value = f32::from_bits(packed[place].to_bits() >> (k % 2 * 16) << 16);
            let (o, c, tap) = (block * BLOCK + n, step / 9 * BLOCK + k, step % 9);
            match o < outputs && c < inputs {
                true => found[(o * inputs + c) * 9 + tap] = value,
                false => rest += usize::from(value != 0.0),
            }
        }
    }
    assert_eq!((found, rest), (weight, 0));
}

#[test]
fn numbers_become_the_nearest_integers_of_8_bits() {
    for sixteenths in -128 * 16..=127 * 16 {
        let x = sixteenths as f32 / 16.0;
        assert_eq!(f32::from(nearest_byte(x).cast_signed()), x.round_ties_even(), "{x}");
    }
}

#[test]
fn tiles_in_memory_are_whole_cache_lines() {
    let sizes = [([56, 48], 1), ([56, 48], 2), ([7, 6], 1), ([13, 5], 2)];
    for (numbers, (size, stride)) in [TileNumbers::Bf16, TileNumbers::Int8]
        .into_iter()
        .flat_map(|numbers| sizes.map(|case| (numbers, case)))
    {
        let map = BlockMap::of(numbers, size, 70, stride);
        let (buffer, step) = (Buffer::new(map.len()), LINE * size_of::<f32>());
        assert!(buffer.as_ptr().addr().is_multiple_of(step) && map.len().is_multiple_of(LINE));
        // Every tap of every position of every tile ends within the plane that it begins in.
        for tap in 0..9 {
            let first = map.place(tap / 3, tap % 3) / LINE;
            assert!(first % map.plane + map.tiles() * ROWS <= map.plane, "{size:?} {stride} {tap}");
        }
    }
}

#[test]
fn the_unit_of_this_machine_gives_the_bits_of_its_model() {
    let isa = Isa::best();
    let Some(unit) = TileUnit::of_this_machine(isa) else {
        return println!("skipped: this machine has no AMX, or the system does not grant it");
    };
    let odd = [([7, 6], [5, 33], 1), ([13, 5], [70, 2], 2)];
    let all = |numbers| {
        let odd = odd.map(|(size, channels, stride)| Case { numbers, size, channels, stride, maps: 3 });
        layers(1, numbers).into_iter().chain(layers(2, numbers)).chain(odd)
    };
    for case in all(BF16).chain(all(INT8[0])) {
        for threads in [1, 2] {
            let [hardware, model] = [unit, TileUnit::Model]
                .map(|unit| case.run((isa, unit), Stream::Add, 3 - case.stride, threads));
            let Case { numbers, size, channels, stride, .. } = case;
            assert!(hardware == model, "{numbers:?} {size:?} {channels:?} stride {stride}");
        }
    }
}
