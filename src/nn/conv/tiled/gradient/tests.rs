//! The backward pass by the software model of the unit against the sums it stands for, and the unit against its model.

use half::bf16;

use super::super::{Pass, Stream, TiledConv, TiledOutput, windows};
use super::*;

/// Numbers between -1 and 1 that bfloat16 holds exactly.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u32 * 2 + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_f32()
    };
    (0..len).map(next).collect()
}

/// Maps of the pixels [map, row, column, channel].
fn blocks_of(map: BlockMap, channels: usize, pixels: &[f32]) -> Buffer {
    let maps = pixels.len() / (map.height * map.width * channels);
    let mut buffer = Buffer::new(maps * map.len());
    for (i, pixel) in pixels.chunks_exact(channels).enumerate() {
        let (n, y, x) = (i / map.width / map.height, i / map.width % map.height, i % map.width);
        for (c, value) in pixel.iter().enumerate() {
            let place = n * map.len() + c / BLOCK * map.block_len() + map.at(y, x) + c % BLOCK / 2;
            let bits = value.to_bits() >> 16 << (c % 2 * 16);
            buffer[place] = f32::from_bits(buffer[place].to_bits() | bits);
        }
    }
    buffer
}

/// A convolution, and a batch.
#[derive(Debug, Clone, Copy)]
struct Case {
    size: [usize; 2],
    /// Outputs and inputs.
    channels: [usize; 2],
    stride: usize,
    maps: usize,
}

const CASES: [Case; 7] = [
    Case { size: [7, 6], channels: [33, 5], stride: 1, maps: 3 },
    Case { size: [1, 1], channels: [1, 1], stride: 1, maps: 1 },
    Case { size: [2, 9], channels: [32, 64], stride: 1, maps: 2 },
    Case { size: [14, 12], channels: [40, 70], stride: 1, maps: 5 },
    // More products than are added up before the next tap.
    Case { size: [40, 40], channels: [5, 3], stride: 1, maps: 2 },
    Case { size: [8, 6], channels: [34, 37], stride: 2, maps: 3 },
    Case { size: [2, 2], channels: [3, 2], stride: 2, maps: 1 },
];

impl Case {
    fn outputs(&self) -> [usize; 2] {
        self.size.map(|n| n.div_ceil(self.stride))
    }

    fn lens(&self) -> [usize; 2] {
        let pixels = |[height, width]: [usize; 2]| self.maps * height * width;
        [pixels(self.size) * self.channels[1], pixels(self.outputs()) * self.channels[0]]
    }

    /// Every product of the convolution: output, input and weight by their places in plain lists.
    fn each(&self, mut product: impl FnMut(usize, usize, usize)) {
        let ([height, width], [rows, columns], [outputs, inputs]) =
            (self.size, self.outputs(), self.channels);
        for i in 0..self.maps * rows * columns * 9 {
            let (tap, pixel) = (i % 9, i / 9);
            let (map, y, x) = (pixel / columns / rows, pixel / columns % rows, pixel % columns);
            let (row, column) = (self.stride * y + tap / 3, self.stride * x + tap % 3);
            if !(1..=height).contains(&row) || !(1..=width).contains(&column) {
                continue;
            }
            let seen = (map * height + row - 1) * width + column - 1;
            for n in 0..outputs {
                for c in 0..inputs {
                    product(pixel * outputs + n, seen * inputs + c, (n * inputs + c) * 9 + tap);
                }
            }
        }
    }

    /// The gradient with respect to the weights, from two batches.
    fn weights(&self, (isa, unit): (Isa, TileUnit), threads: usize) -> Vec<f32> {
        let from = BlockMap::new(self.size, self.channels[1], self.stride);
        let to = BlockMap::new(self.outputs(), self.channels[0], 1);
        let mut gradient = TiledGradient::new((isa, unit), self.channels, from);
        let mut team = Team::new(threads);
        // What is left of another layer does not matter.
        let left = || {
            let mut buffer = Buffer::new(1 << 18);
            buffer.fill(3.0);
            buffer
        };
        let mut memory = TiledGradientMemory { inputs: left(), outputs: left(), offsets: Vec::new() };
        gradient.sums.fill(9.0);
        gradient.clear();
        for seed in [1, 3] {
            let [input, by_sums] = [0, 1].map(|i| numbers(self.lens()[i], seed + i));
            let input = blocks_of(from, self.channels[1], &input);
            let by_sums = blocks_of(to, self.channels[0], &by_sums);
            gradient.add(&mut team, &mut memory, self.maps, &input, (to, &by_sums));
        }
        // Added to what is there.
        let mut weights = vec![0.5; self.channels[0] * self.channels[1] * 9];
        gradient.collect(&mut team, &mut weights);
        weights
    }

    /// The gradient with respect to the input, added to 0.25.
    fn by_input(&self, (isa, unit): (Isa, TileUnit), threads: usize) -> Vec<f32> {
        let [outputs, inputs] = self.channels;
        let by_sums_map = BlockMap::new(self.outputs(), outputs, 1);
        let by_sums = blocks_of(by_sums_map, outputs, &numbers(self.lens()[1], 2));
        let weight = numbers(outputs * inputs * 9, 7);
        let [height, width] = self.size;
        let stream = Map::new(height, width, inputs.next_multiple_of(BLOCK), [1; 2]);
        let mut found = Buffer::new(self.maps * stream.len());
        found.fill(0.25);
        let mut team = Team::new(threads);
        let passes = match self.stride {
            1 => vec![Pass::Backward],
            _ => [[0, 0], [0, 1], [1, 0], [1, 1]].map(Pass::BackwardOfHalving).to_vec(),
        };
        for pass in passes {
            let mut layer = TiledConv::empty((isa, unit), pass, [inputs, outputs], by_sums_map);
            layer.refresh(&mut team, &weight, &[], &[]);
            let to = TiledOutput {
                stream: Some((stream, &mut found, Stream::Add)),
                blocks: None,
                scale: 1.0,
                sums: None,
            };
            layer.apply(&mut team, &mut TiledConv::memory(threads), self.maps, &by_sums, to);
        }
        let pixel = |i: usize| i / width / height * stream.len() + stream.at(i / width % height, i % width);
        let pixels = (0..self.maps * height * width).map(pixel);
        pixels.flat_map(|at| found[at..at + inputs].to_vec()).collect()
    }
}

fn assert_near(found: &[f32], wanted: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), wanted.len());
    for (i, (&found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((f64::from(found) - wanted).abs() <= bound, "{what} {i}: {found} {wanted}");
    }
}

#[test]
fn gradients_of_weights_are_the_sums_they_stand_for() {
    for case in CASES {
        let mut wanted = vec![0.5; case.channels[0] * case.channels[1] * 9];
        for seed in [1, 3] {
            let [input, by_sums] = [0, 1].map(|i| numbers(case.lens()[i], seed + i));
            case.each(|output, input_at, weight| {
                wanted[weight] += f64::from(by_sums[output]) * f64::from(input[input_at]);
            });
        }
        for isa in Isa::available() {
            let found = case.weights((isa, TileUnit::Model), 1);
            assert_near(&found, &wanted, 1e-4, &format!("{case:?} {isa}"));
            assert!(found == case.weights((isa, TileUnit::Model), 3), "{case:?} {isa}: the threads show");
        }
    }
}

#[test]
fn gradients_of_inputs_are_the_sums_they_stand_for() {
    for case in CASES {
        let [outputs, inputs] = case.channels;
        let (weights, by_sums) = (numbers(outputs * inputs * 9, 7), numbers(case.lens()[1], 2));
        let mut wanted = vec![0.25; case.lens()[0]];
        case.each(|output, input, weight| {
            wanted[input] += f64::from(by_sums[output]) * f64::from(weights[weight]);
        });
        for isa in Isa::available() {
            let found = case.by_input((isa, TileUnit::Model), 1);
            assert_near(&found, &wanted, 1e-4, &format!("{case:?} {isa}"));
            assert!(found == case.by_input((isa, TileUnit::Model), 3), "{case:?} {isa}: the threads show");
        }
    }
}

#[test]
fn gradients_on_windows_are_those_of_the_convolution() {
    for (size, [outputs, inputs], maps) in
        [([10, 6], [33, 3], 3), ([2, 2], [5, 1], 1), ([12, 22], [64, 2], 2)]
    {
        let case = Case { size, channels: [outputs, inputs], stride: 2, maps };
        let (pixels, by_sums) = (numbers(case.lens()[0], 1), numbers(case.lens()[1], 2));
        let mut wanted = vec![0.0; outputs * inputs * 9];
        case.each(|output, input, weight| {
            wanted[weight] += f64::from(by_sums[output]) * f64::from(pixels[input]);
        });
        let isa = Isa::best();
        let mut team = Team::new(2);
        let plain = Map::new(size[0], size[1], inputs, [1; 2]);
        let mut input = Buffer::new(maps * plain.len());
        for (pixels, to) in
            pixels.chunks_exact(size[0] * size[1] * inputs).zip(input.chunks_exact_mut(plain.len()))
        {
            plain.fill(pixels, to);
        }
        let from = BlockMap::of_windows(case.outputs());
        let mut seen = Buffer::new(maps * from.len());
        windows(&mut team, maps, (plain, &input), (from, &mut seen));
        let to = BlockMap::new(case.outputs(), outputs, 1);
        let mut gradient = TiledGradient::of_windows((isa, TileUnit::Model), [outputs, inputs], from);
        let mut memory = TiledGradientMemory::default();
        gradient.add(&mut team, &mut memory, maps, &seen, (to, &blocks_of(to, outputs, &by_sums)));
        let mut found = vec![0.0; wanted.len()];
        gradient.collect(&mut team, &mut found);
        assert_near(&found, &wanted, 1e-4, &format!("{case:?}"));
    }
}

#[test]
fn the_unit_of_this_machine_gives_the_gradients_of_its_model() {
    let isa = Isa::best();
    let Some(unit) = TileUnit::of_this_machine(isa) else {
        return println!("skipped: this machine has no AMX, or the system does not grant it");
    };
    for case in CASES {
        assert!(case.weights((isa, unit), 2) == case.weights((isa, TileUnit::Model), 1), "{case:?}");
        assert!(case.by_input((isa, unit), 2) == case.by_input((isa, TileUnit::Model), 1), "{case:?}");
    }
}

#[test]
fn activations_go_back_as_their_derivative() {
    let (size, channels, maps) = ([5, 3], 37_usize, 3);
    let map = Map::new(size[0], size[1], channels.next_multiple_of(BLOCK), [1; 2]);
    let blocks = BlockMap::new(size, channels, 1);
    let len = maps * size[0] * size[1] * channels;
    let (mut sums, by_output) = (numbers(len, 1), numbers(len, 2));
    // At 0 the derivative is the slope.
    sums[7] = 0.0;
    let slopes = numbers(channels, 3);
    let mut stream = Buffer::new(maps * map.len());
    for (i, pixel) in by_output.chunks_exact(channels).enumerate() {
        let (n, y, x) = (i / size[1] / size[0], i / size[1] % size[0], i % size[1]);
        stream[n * map.len() + map.at(y, x)..][..channels].copy_from_slice(pixel);
    }
    let (mut by_sums, mut wanted) = (vec![0.0; len], [vec![1.0; channels], vec![2.0; channels]]);
    for (i, (&z, &dy)) in sums.iter().zip(&by_output).enumerate() {
        let dz = if z > 0.0 { dy } else { slopes[i % channels] * dy };
        wanted[0][i % channels] += if z > 0.0 { 0.0 } else { f64::from(dy * z) };
        wanted[1][i % channels] += f64::from(dz);
        by_sums[i] = bf16::from_f32(dz).to_f32();
    }
    let kept = blocks_of(blocks, channels, &sums);
    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
        let mut found = Buffer::new(maps * blocks.len());
        let (mut by_slopes, mut by_bias) = (vec![1.0; channels], vec![2.0; channels]);
        activation_backward(
            isa,
            &mut Team::new(threads),
            maps,
            (map, &stream),
            (blocks, &kept),
            &slopes,
            &mut found,
            [&mut by_slopes, &mut by_bias],
        );
        assert!(found[..] == blocks_of(blocks, channels, &by_sums)[..], "{isa}");
        assert_near(&by_slopes, &wanted[0], 1e-5, "slopes");
        assert_near(&by_bias, &wanted[1], 1e-5, "bias");
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest() {
    for x in [0.0, -0.0, 1.0, 1.003_906_3, 1.003_906_2, -3.3, 1e-40, f32::MAX, f32::INFINITY, 65504.0] {
        assert_eq!(round(x), u32::from(bf16::from_f32(x).to_bits()), "{x}");
    }
    assert!(bf16::from_bits(round(f32::NAN) as u16).is_nan());
}
