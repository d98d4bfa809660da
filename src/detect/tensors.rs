//! The three networks through the tensor library, for a GPU: the squares of all workers and the
//! pyramids of all their frames in one batch.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::area::Level;
use super::config::DetectError;
use super::proposal::Cell;
use crate::nn::Weights;
use crate::nn::tensors::{Convolution, Linear, Place, max_pool, pictures};
use crate::nn::together::Together;

/// Pixels that go through P-Net together, unless one image has more: its first layers take
/// about 250 bytes a pixel.
const PIXELS_TOGETHER: usize = 2 << 20;
/// Crops that go through R-Net or O-Net together.
const CROPS_TOGETHER: usize = 512;
/// What P-Net says of a cell: two of the softmax, four sides.
const CELL: usize = 6;

/// P-Net.
#[derive(Debug)]
pub struct ProposalNet {
    place: Place,
    convolutions: [Convolution; 3],
    heads: Convolution,
    together: Together<Vec<Level>, Vec<Vec<f32>>>,
}

/// R-Net or O-Net.
#[derive(Debug)]
pub struct RefineNet {
    place: Place,
    side: usize,
    /// Each with the size of the pool behind it, 0 for none.
    convolutions: Vec<(Convolution, usize)>,
    dense: Linear,
    /// All heads side by side: two of the softmax, four sides, and for O-Net ten of landmarks.
    heads: Linear,
    together: Together<Vec<f32>, Vec<f32>>,
}

fn place(device: &Device) -> Place {
    Place { device: device.clone(), dtype: DType::F32 }
}

/// The tensors of some heads, side by side.
fn heads(
    weights: &Weights,
    network: &str,
    heads: &[(&str, usize)],
    shape: &[usize],
) -> Result<(Vec<f32>, Vec<f32>), DetectError> {
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    for (name, outputs) in heads {
        let name = format!("{network}.{name}");
        weight.extend_from_slice(weights.tensor(&format!("{name}.weight"), &[&[*outputs], shape].concat())?);
        bias.extend_from_slice(weights.tensor(&format!("{name}.bias"), &[*outputs])?);
    }
    Ok((weight, bias))
}

/// Convolution `number` of a network, which pads by nothing, and its PReLU.
fn convolution(
    weights: &Weights,
    network: &str,
    number: usize,
    shape: [usize; 4],
    place: &Place,
) -> Result<Convolution, DetectError> {
    let weight = weights.tensor(&format!("{network}.conv{number}.weight"), &shape)?;
    let bias = weights.tensor(&format!("{network}.conv{number}.bias"), &shape[..1])?;
    let slopes = weights.tensor(&format!("{network}.prelu{number}.weight"), &shape[..1])?;
    Ok(Convolution::new(place, (weight, shape), bias, Some(slopes), (0, 1))?)
}

impl ProposalNet {
    pub fn new(weights: &Weights, device: &Device) -> Result<Self, DetectError> {
        let place = place(device);
        let conv = |number, shape| convolution(weights, "pnet", number, shape, &place);
        let convolutions = [conv(1, [10, 3, 3, 3])?, conv(2, [16, 10, 3, 3])?, conv(3, [32, 16, 3, 3])?];
        let (weight, bias) = heads(weights, "pnet", &[("conv4_1", 2), ("conv4_2", 4)], &[32, 1, 1])?;
        let heads = Convolution::new(&place, (&weight, [CELL, 32, 1, 1]), &bias, None, (0, 1))?;
        Ok(Self { convolutions, heads, place, together: Together::new() })
    }

    /// The cells of every level, of at least 12x12 pixels each, whose probability of a face is at
    /// least `threshold`, in row-major order.
    pub fn run(&self, levels: Vec<Level>, threshold: f32) -> Result<Vec<Vec<Cell>>, DetectError> {
        let sizes: Vec<(usize, usize)> = levels.iter().map(|level| level.size).collect();
        let maps = self.together.ask(levels, |all| self.maps(all)).map_err(DetectError::Device)?;
        Ok(sizes.iter().zip(&maps).map(|(&size, map)| cells(size, map, threshold)).collect())
    }

    /// What P-Net says of every level of every request, [CELL, cells].
    fn maps(&self, requests: Vec<Vec<Level>>) -> candle_core::Result<Vec<Vec<Vec<f32>>>> {
        let mut answers: Vec<Vec<Vec<f32>>> =
            requests.iter().map(|one| vec![Vec::new(); one.len()]).collect();
        let mut by_size: BTreeMap<(usize, usize), Vec<_>> = BTreeMap::new();
        for (request, levels) in requests.into_iter().enumerate() {
            for (level, Level { size, pixels }) in levels.into_iter().enumerate() {
                by_size.entry(size).or_default().push((request, level, pixels));
            }
        }
        for ((rows, columns), levels) in by_size {
            for batch in levels.chunks((PIXELS_TOGETHER / (rows * columns)).max(1)) {
                let values =
                    batch.iter().flat_map(|(_, _, pixels): &(_, _, Vec<f32>)| pixels).copied().collect();
                let out = self.forward(&pictures(values, (batch.len(), rows, columns), &self.place)?)?;
                let out = out.flatten_all()?.to_vec1::<f32>()?;
                let maps = out.chunks_exact(out.len() / batch.len());
                for (&(request, level, _), map) in batch.iter().zip(maps) {
                    answers[request][level] = map.to_vec();
                }
            }
        }
        Ok(answers)
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [first, second, third] = &self.convolutions;
        let pooled = max_pool(&first.forward(x)?, 2)?;
        self.heads.forward(&third.forward(&second.forward(&pooled)?)?)
    }
}

/// Reads a map [CELL, rows, columns] of the answers for an image of that size.
fn cells((_, width): (usize, usize), map: &[f32], threshold: f32) -> Vec<Cell> {
    let Some(columns) = super::proposal::cells(width) else { return Vec::new() };
    let count = map.len() / CELL;
    let cell = |i: usize| {
        let [not, face, x1, y1, x2, y2] = std::array::from_fn(|k| map[k * count + i]);
        let score = 1.0 / (1.0 + f32::exp(not - face));
        Cell { row: i / columns, column: i % columns, score, regression: [x1, y1, x2, y2] }
    };
    (0..count).map(cell).filter(|cell| cell.score >= threshold).collect()
}

impl RefineNet {
    /// R-Net: 24x24 crops.
    pub fn refine(weights: &Weights, device: &Device) -> Result<Self, DetectError> {
        let layers = [([28, 3, 3, 3], 3), ([48, 28, 3, 3], 3), ([64, 48, 2, 2], 0)];
        let heads = [("dense5_1", 2), ("dense5_2", 4)];
        Self::new(weights, device, ("rnet", 24), &layers, ("4", 128), &heads)
    }

    /// O-Net: 48x48 crops.
    pub fn output(weights: &Weights, device: &Device) -> Result<Self, DetectError> {
        let layers = [([32, 3, 3, 3], 3), ([64, 32, 3, 3], 3), ([64, 64, 3, 3], 2), ([128, 64, 2, 2], 0)];
        let heads = [("dense6_1", 2), ("dense6_2", 4), ("dense6_3", 10)];
        Self::new(weights, device, ("onet", 48), &layers, ("5", 256), &heads)
    }

    fn new(
        weights: &Weights,
        device: &Device,
        (network, side): (&str, usize),
        layers: &[([usize; 4], usize)],
        (dense, hidden): (&str, usize),
        outputs: &[(&str, usize)],
    ) -> Result<Self, DetectError> {
        let place = place(device);
        let convolutions = (1..)
            .zip(layers)
            .map(|(number, &(shape, pool))| Ok((convolution(weights, network, number, shape, &place)?, pool)))
            .collect::<Result<Vec<_>, DetectError>>()?;
        let inputs = layers.last().map_or(0, |(shape, _)| shape[0] * 3 * 3);
        let weight = weights.tensor(&format!("{network}.dense{dense}.weight"), &[hidden, inputs])?;
        let bias = weights.tensor(&format!("{network}.dense{dense}.bias"), &[hidden])?;
        let slopes = weights.tensor(&format!("{network}.prelu{dense}.weight"), &[hidden])?;
        let dense = Linear::new(&place, (weight, [hidden, inputs]), bias, Some(slopes))?;
        let (weight, bias) = heads(weights, network, outputs, &[hidden])?;
        let heads = Linear::new(&place, (&weight, [bias.len(), hidden]), &bias, None)?;
        Ok(Self { place, side, convolutions, dense, heads, together: Together::new() })
    }

    /// What the heads say of `crops` [n, side, side, 3]: two of the softmax, four sides, and for
    /// O-Net five x and five y of landmarks.
    pub fn run(&self, crops: Vec<f32>) -> Result<Vec<f32>, DetectError> {
        if crops.is_empty() {
            return Ok(Vec::new());
        }
        self.together.ask(crops, |all| self.answers(&all)).map_err(DetectError::Device)
    }

    fn answers(&self, requests: &[Vec<f32>]) -> candle_core::Result<Vec<Vec<f32>>> {
        let length = self.side * self.side * 3;
        let mut out = Vec::new();
        let mut outputs = 0;
        for crops in requests.concat().chunks(CROPS_TOGETHER * length) {
            let count = crops.len() / length;
            let mut x = pictures(crops.to_vec(), (count, self.side, self.side), &self.place)?;
            for (convolution, pool) in &self.convolutions {
                x = convolution.forward(&x)?;
                if *pool > 0 {
                    x = max_pool(&x, *pool)?;
                }
            }
            let said = self.heads.forward(&self.dense.forward(&x)?)?;
            outputs = said.dim(1)?;
            out.extend(said.flatten_all()?.to_vec1::<f32>()?);
        }
        let mut rest = &out[..];
        Ok(requests
            .iter()
            .map(|crops| {
                let (mine, others) = rest.split_at(crops.len() / length * outputs);
                rest = others;
                mine.to_vec()
            })
            .collect())
    }
}
