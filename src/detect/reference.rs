//! The three networks in plain loops, as the definitions read: what the kernels are tested
//! against. Sums are taken in f64.

use crate::nn::{Weights, WeightsError};

/// Values of a feature map, [channels, rows, columns].
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// `channels * rows * columns` values.
    pub data: Vec<f32>,
}

impl Map {
    fn of(channels: usize, rows: usize, columns: usize, value: impl Fn(usize, usize, usize) -> f32) -> Self {
        let mut data = Vec::with_capacity(channels * rows * columns);
        for channel in 0..channels {
            for y in 0..rows {
                data.extend((0..columns).map(|x| value(channel, y, x)));
            }
        }
        Self { channels, rows, columns, data }
    }

    /// One value.
    pub fn at(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.data[(channel * self.rows + y) * self.columns + x]
    }
}

/// P-Net over an image of at least 12x12: regressions [4, cells] and probabilities of "not a
/// face", "a face" [2, cells].
///
/// # Errors
/// When a tensor is missing or misshapen.
pub fn pnet(weights: &Weights, image: &Map) -> Result<(Map, Map), WeightsError> {
    let map = pool(&conv(weights, "pnet", 1, image, 10, 3)?, 2);
    let map = conv(weights, "pnet", 2, &map, 16, 3)?;
    let map = conv(weights, "pnet", 3, &map, 32, 3)?;
    let logits = linear(weights, "pnet.conv4_1", &map, 2, 1)?;
    Ok((linear(weights, "pnet.conv4_2", &map, 4, 1)?, softmax(&logits)))
}

/// R-Net over one 24x24 crop: regression and probabilities.
///
/// # Errors
/// When a tensor is missing or misshapen.
pub fn rnet(weights: &Weights, crop: &Map) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    let map = pool(&conv(weights, "rnet", 1, crop, 28, 3)?, 3);
    let map = pool(&conv(weights, "rnet", 2, &map, 48, 3)?, 3);
    let map = conv(weights, "rnet", 3, &map, 64, 2)?;
    let hidden = dense(weights, "rnet.dense4", &map, 128)?;
    let hidden = prelu(weights, "rnet.prelu4", hidden)?;
    let logits = dense(weights, "rnet.dense5_1", &hidden, 2)?;
    Ok((dense(weights, "rnet.dense5_2", &hidden, 4)?.data, softmax(&logits).data))
}

/// O-Net over one 48x48 crop: regression, landmarks (five x, five y) and probabilities.
///
/// # Errors
/// When a tensor is missing or misshapen.
pub fn onet(weights: &Weights, crop: &Map) -> Result<[Vec<f32>; 3], WeightsError> {
    let map = pool(&conv(weights, "onet", 1, crop, 32, 3)?, 3);
    let map = pool(&conv(weights, "onet", 2, &map, 64, 3)?, 3);
    let map = pool(&conv(weights, "onet", 3, &map, 64, 3)?, 2);
    let map = conv(weights, "onet", 4, &map, 128, 2)?;
    let hidden = dense(weights, "onet.dense5", &map, 256)?;
    let hidden = prelu(weights, "onet.prelu5", hidden)?;
    let logits = dense(weights, "onet.dense6_1", &hidden, 2)?;
    let regression = dense(weights, "onet.dense6_2", &hidden, 4)?.data;
    Ok([regression, dense(weights, "onet.dense6_3", &hidden, 10)?.data, softmax(&logits).data])
}

/// Convolution `number` of a network and its PReLU.
fn conv(
    weights: &Weights,
    network: &str,
    number: usize,
    input: &Map,
    outputs: usize,
    kernel: usize,
) -> Result<Map, WeightsError> {
    let sums = linear(weights, &format!("{network}.conv{number}"), input, outputs, kernel)?;
    prelu(weights, &format!("{network}.prelu{number}"), sums)
}

/// Convolution without padding, stride 1.
fn linear(
    weights: &Weights,
    layer: &str,
    input: &Map,
    outputs: usize,
    kernel: usize,
) -> Result<Map, WeightsError> {
    let inputs = input.channels;
    let values = weights.tensor(&format!("{layer}.weight"), &[outputs, inputs, kernel, kernel])?;
    let bias = weights.tensor(&format!("{layer}.bias"), &[outputs])?;
    let (rows, columns) = (input.rows + 1 - kernel, input.columns + 1 - kernel);
    Ok(Map::of(outputs, rows, columns, |output, y, x| {
        let mut sum = f64::from(bias[output]);
        for channel in 0..inputs {
            for dy in 0..kernel {
                for dx in 0..kernel {
                    let weight = values[((output * inputs + channel) * kernel + dy) * kernel + dx];
                    sum += f64::from(weight) * f64::from(input.at(channel, y + dy, x + dx));
                }
            }
        }
        sum as f32
    }))
}

/// Fully connected layer over the map flattened as it lies.
fn dense(weights: &Weights, layer: &str, input: &Map, outputs: usize) -> Result<Map, WeightsError> {
    let values = weights.tensor(&format!("{layer}.weight"), &[outputs, input.data.len()])?;
    let bias = weights.tensor(&format!("{layer}.bias"), &[outputs])?;
    Ok(Map::of(outputs, 1, 1, |output, _, _| {
        let row = &values[output * input.data.len()..];
        let products = row.iter().zip(&input.data).map(|(&a, &b)| f64::from(a) * f64::from(b));
        (f64::from(bias[output]) + products.sum::<f64>()) as f32
    }))
}

fn prelu(weights: &Weights, layer: &str, map: Map) -> Result<Map, WeightsError> {
    let slopes = weights.tensor(&format!("{layer}.weight"), &[map.channels])?;
    Ok(Map::of(map.channels, map.rows, map.columns, |channel, y, x| {
        let value = map.at(channel, y, x);
        if value > 0.0 { value } else { slopes[channel] * value }
    }))
}

/// Max-pool of stride 2; the output size is rounded up and windows are cut off at the edge.
fn pool(map: &Map, size: usize) -> Map {
    let out = |side: usize| (side - size).div_ceil(2) + 1;
    Map::of(map.channels, out(map.rows), out(map.columns), |channel, y, x| {
        let mut largest = f32::NEG_INFINITY;
        for dy in 2 * y..(2 * y + size).min(map.rows) {
            for dx in 2 * x..(2 * x + size).min(map.columns) {
                largest = largest.max(map.at(channel, dy, dx));
            }
        }
        largest
    })
}

/// Over the channels of every pixel.
fn softmax(map: &Map) -> Map {
    Map::of(map.channels, map.rows, map.columns, |channel, y, x| {
        let exponential = |channel| f64::from(map.at(channel, y, x)).exp();
        (exponential(channel) / (0..map.channels).map(exponential).sum::<f64>()) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{self, close};
    use crate::nn::weights::MTCNN;

    #[test]
    fn the_networks_give_the_recorded_answers() {
        let Some(golden) = golden::tensors() else {
            println!("skipped: no recorded tensors (set SPHEREFACE_DATA)");
            return;
        };
        let weights = MTCNN.weights().unwrap();
        let input = |name: &str| {
            let (shape, data) = golden[name].clone();
            Map { channels: shape[1], rows: shape[2], columns: shape[3], data }
        };
        let (regression, probability) = pnet(&weights, &input("pnet_in")).unwrap();
        close(&regression.data, &golden["pnet_out0"].1, 1e-5);
        close(&probability.data, &golden["pnet_out1"].1, 1e-5);
        let (regression, probability) = rnet(&weights, &input("rnet_in")).unwrap();
        close(&regression, &golden["rnet_out0"].1, 1e-5);
        close(&probability, &golden["rnet_out1"].1, 1e-5);
        let [regression, landmarks, probability] = onet(&weights, &input("onet_in")).unwrap();
        close(&regression, &golden["onet_out0"].1, 1e-5);
        close(&landmarks, &golden["onet_out1"].1, 1e-5);
        close(&probability, &golden["onet_out2"].1, 1e-5);
    }
}
