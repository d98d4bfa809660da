//! The three networks through the tensor library, for a GPU: the squares of all workers and the
//! pyramids of all their frames in one batch.

use candle_core::Device;

use super::area::Level;
use super::config::DetectError;
use super::proposal::Cell;
use crate::models::Weights;
use crate::nn::coalescer::Coalescer;
use crate::nn::layers::{Convolution, Linear, Maps, Size, max_pool};

/// Pixels that go through P-Net together, unless one image has more: its first layers take
/// about 250 bytes per pixel.
const PIXELS_TOGETHER: usize = 2 << 20;
/// Crops that go through R-Net or O-Net together.
const CROPS_TOGETHER: usize = 512;
/// Outputs of P-Net per cell: two of the softmax, four sides.
const CELL: usize = 6;

/// P-Net.
#[derive(Debug)]
pub struct ProposalNet {
    device: Device,
    convolutions: [Convolution; 3],
    heads: Convolution,
    together: Coalescer<Vec<Level>, Vec<Vec<f32>>>,
}

/// R-Net or O-Net.
#[derive(Debug)]
pub struct RefineNet {
    device: Device,
    side: usize,
    /// Each with the size of the pool after it, 0 for none.
    convolutions: Vec<(Convolution, usize)>,
    dense: Linear,
    /// All heads as one layer: two outputs of the softmax, four sides, and for O-Net ten of landmarks.
    heads: Linear,
    together: Coalescer<Vec<f32>, Vec<f32>>,
}

/// The concatenated tensors of some heads.
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

/// Convolution `number` of a network, without padding, and its PReLU.
fn convolution(
    weights: &Weights,
    network: &str,
    number: usize,
    shape: [usize; 4],
    device: &Device,
) -> Result<Convolution, DetectError> {
    let weight = weights.tensor(&format!("{network}.conv{number}.weight"), &shape)?;
    let bias = weights.tensor(&format!("{network}.conv{number}.bias"), &shape[..1])?;
    let slopes = weights.tensor(&format!("{network}.prelu{number}.weight"), &shape[..1])?;
    Ok(Convolution::new(device, (weight, shape), bias, Some(slopes), (0, 1))?)
}

impl ProposalNet {
    pub fn new(weights: &Weights, device: &Device) -> Result<Self, DetectError> {
        let conv = |number, shape| convolution(weights, "pnet", number, shape, device);
        let convolutions = [conv(1, [10, 3, 3, 3])?, conv(2, [16, 10, 3, 3])?, conv(3, [32, 16, 3, 3])?];
        let (weight, bias) = heads(weights, "pnet", &[("conv4_1", 2), ("conv4_2", 4)], &[32, 1, 1])?;
        let heads = Convolution::new(device, (&weight, [CELL, 32, 1, 1]), &bias, None, (0, 1))?;
        Ok(Self { device: device.clone(), convolutions, heads, together: Coalescer::new() })
    }

    /// The cells of every level, of at least 12x12 pixels each, whose probability of a face is at
    /// least `threshold`, in row-major order.
    pub fn run(&self, levels: Vec<Level>, threshold: f32) -> Result<Vec<Vec<Cell>>, DetectError> {
        let sizes: Vec<(usize, usize)> = levels.iter().map(|level| level.size).collect();
        let maps = self.together.ask(levels, |all| self.maps(all)).map_err(DetectError::Device)?;
        Ok(sizes.iter().zip(&maps).map(|(&size, map)| cells(size, map, threshold)).collect())
    }

    /// The outputs of P-Net for every level of every request, [cells, CELL].
    fn maps(&self, requests: Vec<Vec<Level>>) -> candle_core::Result<Vec<Vec<Vec<f32>>>> {
        let mut answers: Vec<Vec<Vec<f32>>> =
            requests.iter().map(|one| vec![Vec::new(); one.len()]).collect();
        let mut levels: Vec<(usize, usize, Level)> = Vec::new();
        for (request, one) in requests.into_iter().enumerate() {
            levels.extend(one.into_iter().enumerate().map(|(number, level)| (request, number, level)));
        }
        // Levels of one size are batched: frames of one video have the same levels.
        levels.sort_by_key(|(_, _, level)| level.size);
        let mut rest = &levels[..];
        while !rest.is_empty() {
            let mut pixels = 0;
            let fits = |(_, _, level): &&(usize, usize, Level)| {
                pixels += level.size.0 * level.size.1;
                pixels <= PIXELS_TOGETHER
            };
            let (batch, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let mut sizes: Vec<Size> = Vec::new();
            for (_, _, Level { size: (rows, columns), .. }) in batch {
                match sizes.last_mut() {
                    Some(size) if (size.rows, size.columns) == (*rows, *columns) => size.maps += 1,
                    _ => sizes.push(Size { maps: 1, rows: *rows, columns: *columns }),
                }
            }
            let pixels = batch.iter().flat_map(|(_, _, level)| &level.pixels).copied().collect();
            let out = self.forward(&Maps::new(pixels, sizes, 3, &self.device)?)?;
            let cells: Vec<usize> = out
                .sizes()
                .iter()
                .flat_map(|size| std::iter::repeat_n(size.rows * size.columns, size.maps))
                .collect();
            let values = out.to_vec()?;
            let mut values = &values[..];
            for ((request, level, _), cells) in batch.iter().zip(cells) {
                let (mine, others) = values.split_at(cells * CELL);
                answers[*request][*level] = mine.to_vec();
                values = others;
            }
        }
        Ok(answers)
    }

    fn forward(&self, x: &Maps) -> candle_core::Result<Maps> {
        let [first, second, third] = &self.convolutions;
        let x = max_pool(&first.forward(x, None)?, 2)?;
        self.heads.forward(&third.forward(&second.forward(&x, None)?, None)?, None)
    }
}

/// Reads the outputs [cells, CELL] for an image of that size.
fn cells((_, width): (usize, usize), map: &[f32], threshold: f32) -> Vec<Cell> {
    let Some(columns) = super::proposal::cells(width) else { return Vec::new() };
    let cell = |(i, &[not, face, x1, y1, x2, y2]): (usize, &[f32; CELL])| {
        let score = 1.0 / (1.0 + f32::exp(not - face));
        Cell { row: i / columns, column: i % columns, score, regression: [x1, y1, x2, y2] }
    };
    map.as_chunks().0.iter().enumerate().map(cell).filter(|cell| cell.score >= threshold).collect()
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
        let convolutions = (1..)
            .zip(layers)
            .map(|(number, &(shape, pool))| Ok((convolution(weights, network, number, shape, device)?, pool)))
            .collect::<Result<Vec<_>, DetectError>>()?;
        let channels = layers.last().map_or(0, |(shape, _)| shape[0]);
        let inputs = channels * 3 * 3;
        let weight = weights.tensor(&format!("{network}.dense{dense}.weight"), &[hidden, inputs])?;
        let bias = weights.tensor(&format!("{network}.dense{dense}.bias"), &[hidden])?;
        let slopes = weights.tensor(&format!("{network}.prelu{dense}.weight"), &[hidden])?;
        let dense = Linear::new(device, weight, bias, Some(slopes), (channels, 3, 3))?;
        let (weight, bias) = heads(weights, network, outputs, &[hidden])?;
        let heads = Linear::new(device, &weight, &bias, None, (hidden, 1, 1))?;
        Ok(Self { device: device.clone(), side, convolutions, dense, heads, together: Coalescer::new() })
    }

    /// The outputs of the heads for `crops` [n, side, side, 3]: two of the softmax, four sides, and for O-Net
    /// five x and five y of landmarks.
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
            let size = Size { maps: count, rows: self.side, columns: self.side };
            let mut x = Maps::new(crops.to_vec(), vec![size], 3, &self.device)?;
            for (convolution, pool) in &self.convolutions {
                x = convolution.forward(&x, None)?;
                if *pool > 0 {
                    x = max_pool(&x, *pool)?;
                }
            }
            let said = self.heads.forward(&self.dense.forward(&x)?)?.to_vec()?;
            outputs = said.len() / count;
            out.extend(said);
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
