//! The layers against the tensor library's own, and those of a GPU, if there is one, against
//! those of the CPU.

use candle_core::{Device, Tensor};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{Convolution, Linear, Maps, Size, max_pool};
use crate::nn::{Device as OurDevice, DeviceChoice, Isa};

/// The tensor library's CPU, and a GPU if this program can use one.
fn devices() -> Vec<Device> {
    let gpu = OurDevice::open(DeviceChoice::Cuda(0), Isa::best());
    let gpu = gpu.map_err(|error| println!("skipped on CUDA: {error}")).ok();
    [Device::Cpu].into_iter().chain(gpu.and_then(|gpu| gpu.tensors().cloned())).collect()
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| 2.0 * random.random::<f32>() - 1.0).collect()
}

/// Maps of some sizes: more sizes than go into one call, and several maps of some of them.
fn sizes() -> Vec<Size> {
    let size = |n: usize| Size { maps: 1 + n % 3, rows: 5 + n % 7, columns: 4 + n };
    (0..35).map(size).collect()
}

fn values(sizes: &[Size], channels: usize) -> Vec<f32> {
    random(sizes.iter().map(Size::places).sum::<usize>() * channels, 1)
}

/// Each map as the tensor library takes it, [1, channels, rows, columns].
fn apart(values: &[f32], sizes: &[Size], channels: usize) -> Vec<Tensor> {
    let mut rest = values;
    let one = |(rows, columns): (usize, usize)| {
        let (mine, others) = rest.split_at(rows * columns * channels);
        rest = others;
        let map = Tensor::from_slice(mine, (1, rows, columns, channels), &Device::Cpu).unwrap();
        map.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()
    };
    sizes.iter().flat_map(|size| std::iter::repeat_n((size.rows, size.columns), size.maps)).map(one).collect()
}

/// The inverse of [`apart`].
fn together(maps: &[Tensor]) -> Vec<f32> {
    let one =
        |map: &Tensor| map.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    maps.iter().flat_map(one).collect()
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0, "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 2e-6 * largest, "{what}, {i}: {a} {b}");
    }
}

#[test]
fn convolutions_are_those_of_the_tensor_library() {
    for (inputs, outputs, side, padding, stride) in
        [(3, 5, 3, 1, 2), (8, 4, 3, 1, 1), (4, 7, 3, 0, 1), (6, 3, 2, 0, 1), (12, 2, 1, 0, 1)]
    {
        let (sizes, shape) = (sizes(), [outputs, inputs, side, side]);
        let (x, weight) = (values(&sizes, inputs), random(outputs * inputs * side * side, 2));
        let (bias, slopes) = (random(outputs, 3), random(outputs, 4));
        let kernel = Tensor::from_slice(&weight, &shape, &Device::Cpu).unwrap();
        let channels = |values: &[f32]| Tensor::from_slice(values, (1, outputs, 1, 1), &Device::Cpu).unwrap();
        let one = |map: Tensor| {
            let sums = map.conv2d(&kernel, padding, stride, 1, 1).unwrap();
            let sums = sums.broadcast_add(&channels(&bias)).unwrap();
            let positive = sums.relu().unwrap();
            ((&sums - &positive).unwrap().broadcast_mul(&channels(&slopes)).unwrap() + positive).unwrap()
        };
        let expected = together(&apart(&x, &sizes, inputs).into_iter().map(one).collect::<Vec<_>>());
        for device in devices() {
            let layer =
                Convolution::new(&device, (&weight, shape), &bias, Some(&slopes), (padding, stride)).unwrap();
            let x = Maps::new(x.clone(), sizes.clone(), inputs, &device).unwrap();
            let what = format!("{side}x{side} of {inputs} on {device:?}");
            let once = layer.forward(&x, None).unwrap();
            assert_near(&once.to_vec().unwrap(), &expected, &what);
            let twice: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
            assert_near(&layer.forward(&x, Some(&once)).unwrap().to_vec().unwrap(), &twice, &what);
        }
    }
}

#[test]
fn a_pool_takes_the_largest_and_is_cut_off_at_the_edge() {
    let (sizes, channels) = (sizes(), 3);
    let x = values(&sizes, channels);
    for side in [2, 3] {
        let mut expected = Vec::new();
        for map in apart(&x, &sizes, channels) {
            let map = map.squeeze(0).unwrap().to_vec3::<f32>().unwrap();
            let (rows, columns) = (map[0].len(), map[0][0].len());
            let tops = |n: usize| (0..(n - side).div_ceil(2) + 1).map(|i| 2 * i);
            for (top, left) in tops(rows).flat_map(|top| tops(columns).map(move |left| (top, left))) {
                let seen = |channel: &Vec<Vec<f32>>| {
                    let rows = channel.iter().skip(top).take(side);
                    rows.flat_map(|row| row.iter().skip(left).take(side)).copied().fold(f32::MIN, f32::max)
                };
                expected.extend(map.iter().map(seen));
            }
        }
        for device in devices() {
            let x = Maps::new(x.clone(), sizes.clone(), channels, &device).unwrap();
            assert_eq!(max_pool(&x, side).unwrap().to_vec().unwrap(), expected, "{side} on {device:?}");
        }
    }
}

/// Gradients are tested with the networks that are trained; here, that a GPU has those of the CPU.
#[test]
fn gradients_are_the_same_on_every_device() {
    let (inputs, outputs) = (4, 6);
    for (padding, stride) in [(1, 1), (1, 2)] {
        let sizes = vec![Size { maps: 3, rows: 6, columns: 4 }];
        let out = vec![Size { maps: 3, rows: 6 / stride, columns: 4 / stride }];
        let of = |device: &Device| -> Vec<Vec<f32>> {
            let (weight, shape) = (random(outputs * inputs * 9, 2), [outputs, inputs, 3, 3]);
            let (bias, slopes) = (random(outputs, 3), random(outputs, 4));
            let layer =
                Convolution::new(device, (&weight, shape), &bias, Some(&slopes), (padding, stride)).unwrap();
            let x = Maps::new(values(&sizes, inputs), sizes.clone(), inputs, device).unwrap();
            let by_output = Maps::new(values(&out, outputs), out.clone(), outputs, device).unwrap();
            let sums = layer.sums(&x).unwrap();
            let (gradients, by_sums) = layer.gradients(&x, &sums, &by_output).unwrap();
            let linear = Linear::new(device, &random(5 * 6 * 4 * 4, 5), &random(5, 6), None, (4, 6, 4));
            let by_feature = Maps::new(random(15, 7), vec![Size { maps: 3, rows: 1, columns: 1 }], 5, device);
            let (last, by_flat) = linear.unwrap().gradients(&x, &by_feature.unwrap()).unwrap();
            let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let by_input = layer.by_input(&by_sums, &x).unwrap().to_vec().unwrap();
            let mut found = vec![by_sums.to_vec().unwrap(), by_input, by_flat.to_vec().unwrap()];
            found.extend([gradients.weight, gradients.bias, last.weight, last.bias].map(values));
            found.extend(gradients.slopes.map(values));
            found
        };
        let expected = of(&Device::Cpu);
        assert_eq!(expected.len(), 8);
        for device in devices() {
            for (number, (found, expected)) in of(&device).iter().zip(&expected).enumerate() {
                assert_near(found, expected, &format!("{number} on {device:?}"));
            }
        }
    }
}
