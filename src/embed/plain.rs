//! Steps of a plan that take little time and have no kernels of their own: pools, products, limits.

use crate::models::plan::Window;
use crate::nn::conv::Map;

/// The operation.
#[derive(Debug)]
pub(super) enum Plain {
    MaxPool(Window),
    Mean,
    Multiply,
    Sigmoid {
        channels: usize,
    },
    /// Smallest and largest value for each channel.
    Clamp {
        least: Vec<f32>,
        most: Vec<f32>,
    },
}

impl Plain {
    /// Computes the step for `count` faces. If it uses one value twice, `inputs` holds it twice.
    pub(super) fn apply(&self, count: usize, inputs: [(Map, &[f32]); 2], (to, output): (Map, &mut [f32])) {
        for face in 0..count {
            let [first, second] = inputs.map(|(map, input)| (map, &input[face * map.len()..][..map.len()]));
            let output = &mut output[face * to.len()..][..to.len()];
            match self {
                Self::MaxPool(window) => max_pool(window, first, (to, output)),
                Self::Mean => mean(first, &mut output[to.at(0, 0)..][..first.0.channels]),
                Self::Multiply => multiply([first, second], (to, output)),
                Self::Sigmoid { channels } => each(first, (to, output), |out, values| {
                    // Channels beyond the last are padding.
                    for (out, value) in out.iter_mut().zip(values).take(*channels) {
                        *out = 1.0 / (1.0 + (-value).exp());
                    }
                }),
                Self::Clamp { least, most } => each(first, (to, output), |out, values| {
                    let limits = least.iter().zip(most);
                    for ((out, value), (least, most)) in out.iter_mut().zip(values).zip(limits) {
                        *out = value.max(*least).min(*most);
                    }
                }),
            }
        }
    }
}

/// Computes each pixel of a map from the same one of another map.
fn each((from, input): (Map, &[f32]), (to, output): (Map, &mut [f32]), pixel: impl Fn(&mut [f32], &[f32])) {
    for y in 0..to.height {
        for x in 0..to.width {
            pixel(&mut output[to.at(y, x)..][..to.channels], &input[from.at(y, x)..][..from.channels]);
        }
    }
}

/// The second is a map of the same size, or a map of a single pixel, with which all pixels of the first are
/// multiplied.
fn multiply([(from, input), (by, factors)]: [(Map, &[f32]); 2], (to, output): (Map, &mut [f32])) {
    let single = (by.height, by.width) == (1, 1);
    for y in 0..to.height {
        for x in 0..to.width {
            let at = if single { by.at(0, 0) } else { by.at(y, x) };
            let values = input[from.at(y, x)..][..from.channels].iter().zip(&factors[at..][..by.channels]);
            let out = &mut output[to.at(y, x)..][..to.channels];
            out.iter_mut().zip(values).for_each(|(out, (value, factor))| *out = value * factor);
        }
    }
}

/// The largest value of each window; pixels beyond the map are ignored.
fn max_pool(window: &Window, (from, input): (Map, &[f32]), (to, output): (Map, &mut [f32])) {
    let range = |at: usize, axis: usize, size: usize| {
        let start = at * window.stride[axis];
        let end = (start + window.kernel[axis]).saturating_sub(window.padding[axis]).min(size);
        start.saturating_sub(window.padding[axis])..end
    };
    for y in 0..to.height {
        for x in 0..to.width {
            let out = &mut output[to.at(y, x)..][..to.channels];
            out.fill(f32::NEG_INFINITY);
            for y in range(y, 0, from.height) {
                for x in range(x, 1, from.width) {
                    let values = &input[from.at(y, x)..][..from.channels];
                    out.iter_mut().zip(values).for_each(|(out, &value)| *out = out.max(value));
                }
            }
        }
    }
}

/// The mean of all pixels.
fn mean((from, input): (Map, &[f32]), output: &mut [f32]) {
    output.fill(0.0);
    for y in 0..from.height {
        for x in 0..from.width {
            let values = &input[from.at(y, x)..][..from.channels];
            output.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    let pixels = (from.height * from.width) as f32;
    output.iter_mut().for_each(|sum| *sum /= pixels);
}
