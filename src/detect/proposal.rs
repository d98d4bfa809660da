//! P-Net on the kernels.

use std::ops::Range;

use super::area::Level;
use super::config::DetectError;
use crate::models::Weights;
use crate::nn::conv::{
    Activation, Form, Map, STRIP, StripConv, StripOut, StripScratch, Tiles, UNDER, Winograd,
};
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::Team;
use crate::nn::{Buffer, Isa};

fn conv(
    weights: &Weights,
    isa: Isa,
    number: usize,
    [outputs, inputs]: [usize; 2],
) -> Result<StripConv, DetectError> {
    let kernels = weights.tensor(&format!("pnet.conv{number}.weight"), &[outputs, inputs, 3, 3])?;
    let bias = weights.tensor(&format!("pnet.conv{number}.bias"), &[outputs])?;
    let slopes = weights.tensor(&format!("pnet.prelu{number}.weight"), &[outputs])?;
    Ok(StripConv::new(isa, kernels, bias, slopes, inputs))
}

/// Makes room for `length` values.
pub fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}

/// The output of P-Net for one 12x12 cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Row and column among the cells, two pixels apart.
    pub row: usize,
    /// See `row`.
    pub column: usize,
    /// Probability of a face.
    pub score: f32,
    /// Regression of x1, y1, x2, y2 as fractions of the cell's side.
    pub regression: [f32; 4],
}

/// P-Net: classifies every 12x12 cell of an image, two pixels apart.
#[derive(Debug)]
pub struct ProposalNet {
    isa: Isa,
    conv1: StripConv,
    conv2: StripConv,
    conv3: Winograd,
    /// Weights of "face" minus those of "not a face": the softmax of two values is a function of their
    /// difference.
    face: [f32; FEATURES],
    face_bias: f32,
    /// [4][[`FEATURES`]]
    regression: Vec<f32>,
    regression_bias: [f32; 4],
}

/// Working memory of [`ProposalNet::run`]: a few rows of every layer.
#[derive(Debug, Default)]
pub struct ProposalScratch {
    team: Team,
    tiles: Tiles,
    strip: StripScratch,
    pooled: Vec<f32>,
    middle: Buffer,
    features: Buffer,
    logits: Vec<f32>,
}

/// Channels after the first, the second and the last 3x3 convolution.
const FIRST: usize = 10;
const MIDDLE: usize = 16;
const FEATURES: usize = 32;

impl ProposalNet {
    pub fn new(weights: &Weights, isa: Isa) -> Result<Self, DetectError> {
        let kernels = weights.tensor("pnet.conv3.weight", &[FEATURES, MIDDLE, 3, 3])?;
        let bias = weights.tensor("pnet.conv3.bias", &[FEATURES])?;
        let slopes = weights.tensor("pnet.prelu3.weight", &[FEATURES])?;
        let activation = Activation::new(bias, Some(slopes), FEATURES);
        let face = weights.tensor("pnet.conv4_1.weight", &[2, FEATURES, 1, 1])?;
        let face_bias = weights.tensor("pnet.conv4_1.bias", &[2])?;
        let regression_bias = weights.tensor("pnet.conv4_2.bias", &[4])?;
        Ok(Self {
            isa,
            conv1: conv(weights, isa, 1, [FIRST, 3])?,
            conv2: conv(weights, isa, 2, [MIDDLE, FIRST])?,
            conv3: Winograd::of_maps(
                isa,
                [STRIP; 2],
                Form::Full,
                kernels,
                MIDDLE,
                [MIDDLE, FEATURES],
                activation,
            ),
            face: std::array::from_fn(|i| face[FEATURES + i] - face[i]),
            face_bias: face_bias[1] - face_bias[0],
            regression: weights.tensor("pnet.conv4_2.weight", &[4, FEATURES, 1, 1])?.to_vec(),
            regression_bias: std::array::from_fn(|i| regression_bias[i]),
        })
    }

    /// Calls `found` for every cell of the rows `rows` (see [`cells`]) with a probability of at
    /// least `threshold` in a level of a pyramid, in row-major order. Nothing is found in fewer
    /// than 12 rows or columns.
    ///
    /// The layers run one after another on each strip of rows, so that all maps stay in the cache. Strips
    /// begin at multiples of their height, wherever the requested rows begin, and are computed whole, so a
    /// cell does not depend on the rest of the request.
    pub fn run(
        &self,
        level: &Level,
        rows: Range<usize>,
        threshold: f32,
        scratch: &mut ProposalScratch,
        mut found: impl FnMut(Cell),
    ) {
        let (height, width) = level.size;
        let (Some(cells_x), Some(cells_y)) = (cells(width), cells(height)) else { return };
        let rows = rows.start..rows.end.min(cells_y);
        let ProposalScratch { team, tiles, strip, pooled, middle, features, logits } = scratch;
        let (conv_width, conv_height) = (width - 2, height - 2);
        let (pooled_width, pooled_height) = (conv_width.div_ceil(2), conv_height.div_ceil(2));
        let (middle_width, middle_height) = (cells_x + 2, cells_y + 2);
        let pooled_row = self.conv1.row_length(pooled_width);
        // The border of a strip consists of ordinary pixels. Nothing beyond it is read.
        let from = Map::new(STRIP, cells_x, MIDDLE, [STRIP; 2]);
        let to = Map::new(STRIP, cells_x, FEATURES, [STRIP; 2]);
        let middle_row = from.pitch();
        grow(pooled, UNDER * pooled_row);
        tiles.grow(std::iter::once(&self.conv3));
        let two_strips = 2 * STRIP * middle_row;
        // Stores may reach beyond the last pixel.
        middle.grow(two_strips + self.conv2.row_length(0));
        middle[..two_strips].fill(0.0);
        features.grow(to.len());
        logits.resize(cells_x, 0.0);

        // Below this no probability reaches the threshold; the margin covers rounding.
        let least_logit = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln() as f32 - 1e-3;
        let strips = rows.start / STRIP..rows.end.div_ceil(STRIP);
        // Two rows of the pool come out of one strip of the first convolution.
        let mut pairs = 2 * strips.start;
        for number in strips.start..=strips.end {
            // Each layer reads two rows more than it gives.
            while pairs < 2 * number + 3 && 2 * pairs < pooled_height {
                let mut rows = level.pixels.chunks_exact(3 * width).skip(STRIP * pairs);
                let seen = std::array::from_fn(|_| rows.next().unwrap_or_default());
                let size = (conv_width, STRIP.min(conv_height - STRIP * pairs));
                let values = &mut pooled[(2 * pairs % UNDER) * pooled_row..];
                self.conv1.apply(&seen, size, strip, StripOut { values, pitch: pooled_row, pool: true });
                pairs += 1;
            }

            let first = number == strips.start;
            let values = &mut middle[if first { 0 } else { STRIP * middle_row }..];
            let here = middle_height.saturating_sub(STRIP * number).min(STRIP);
            if here > 0 {
                let seen =
                    ring(pooled, pooled_row, STRIP * number..(STRIP * number + UNDER).min(pooled_height));
                let out = StripOut { values, pitch: middle_row, pool: false };
                self.conv2.apply(&seen, (middle_width, here), strip, out);
            }
            values[here * middle_row..STRIP * middle_row].fill(0.0);
            let Some(done) = number.checked_sub(1).filter(|_| !first) else { continue };

            let tiles = std::slice::from_mut(&mut *tiles);
            self.conv3.apply(team, tiles, 1, (from, &*middle), (to, &mut *features), false);
            for y in (STRIP * done..STRIP * (done + 1)).filter(|y| rows.contains(y)) {
                let features = &features[to.at(y - STRIP * done, 0)..];
                let (weights, bias) = (&self.face, self.face_bias);
                simd::run(self.isa, Dots { features, weights, bias, out: logits });
                for (x, &logit) in logits.iter().enumerate() {
                    if logit >= least_logit {
                        let score = 1.0 / (1.0 + (-logit).exp());
                        if score >= threshold {
                            let regression = self.regress(&features[x * FEATURES..]);
                            found(Cell { row: y, column: x, score, regression });
                        }
                    }
                }
            }
            middle.copy_within(STRIP * middle_row..two_strips, 0);
        }
    }

    fn regress(&self, features: &[f32]) -> [f32; 4] {
        std::array::from_fn(|side| {
            let weights = &self.regression[side * FEATURES..][..FEATURES];
            let sum: f32 = weights.iter().zip(features).map(|(weight, value)| weight * value).sum();
            self.regression_bias[side] + sum
        })
    }
}

/// `out[x] = bias + features[x] . weights` for pixels of [`FEATURES`] values.
struct Dots<'a> {
    features: &'a [f32],
    weights: &'a [f32; FEATURES],
    bias: f32,
    out: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (out, pixel) in self.out.iter_mut().zip(self.features.as_chunks::<FEATURES>().0) {
            let mut lanes = [0.0; FEATURES];
            // SAFETY: FEATURES is a multiple of every vector's length, and each list is that long.
            unsafe {
                let mut sum = S::splat(0.0);
                for i in (0..FEATURES).step_by(S::LANES) {
                    let weights = S::load(self.weights.as_ptr().add(i));
                    sum = S::fma(S::load(pixel.as_ptr().add(i)), weights, sum);
                }
                S::store(lanes.as_mut_ptr(), sum);
            }
            let mut half = S::LANES / 2;
            while half > 0 {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
                half /= 2;
            }
            *out = self.bias + lanes[0];
        }
    }
}

/// Cells of P-Net along a side of that many pixels.
pub fn cells(side: usize) -> Option<usize> {
    (side >= 12).then(|| (side - 2).div_ceil(2) - 4)
}

/// The rows `under` a strip of a map that keeps [`UNDER`] rows; zeros beyond its last row.
fn ring(rows: &[f32], row_length: usize, under: Range<usize>) -> [&[f32]; UNDER] {
    std::array::from_fn(|row| match under.start + row {
        y if y < under.end => &rows[(y % UNDER) * row_length..][..row_length],
        _ => &[],
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::detect::area::Pyramid;
    use crate::detect::candle::PNet;
    use crate::detect::golden::{close, noise_image};
    use crate::models::MTCNN;
    use crate::models::candle::var_builder;
    use crate::nn::Isa;

    #[test]
    fn every_cell_of_p_net_is_the_references() {
        let weights = MTCNN.weights().unwrap();
        let vb = var_builder(&weights, DType::F64, &Device::Cpu).unwrap();
        let pnet = PNet::new(&vb.pp("pnet")).unwrap();
        for (width, height) in [(12, 12), (13, 12), (12, 15), (14, 13), (37, 54), (61, 20)] {
            let image = noise_image(width, height);
            let mut data = Vec::new();
            for channel in 0..3 {
                data.extend(image.pixels().map(|pixel| (f64::from(pixel.0[channel]) - 127.5) / 128.0));
            }
            let (columns, rows) = (width as usize, height as usize);
            let picture = Tensor::from_vec(data, (1, 3, rows, columns), &Device::Cpu).unwrap();
            let [regression, probability] = <[Tensor; 2]>::from(pnet.forward(&picture).unwrap())
                .map(|maps| maps.get(0).unwrap().to_dtype(DType::F32).unwrap().to_vec3::<f32>().unwrap());
            let columns_out = probability[0][0].len();
            for isa in Isa::available() {
                let network = ProposalNet::new(&weights, isa).unwrap();
                let mut pyramid = Pyramid::default();
                pyramid.build(isa, &image, &[(columns, rows)], &mut Team::default());
                let look = |band: Range<usize>| {
                    let (mut cells, mut scratch) = (Vec::new(), ProposalScratch::default());
                    let level = &pyramid.levels()[0];
                    network.run(level, band, 0.0, &mut scratch, |cell| cells.push(cell));
                    cells
                };
                let cells = look(0..usize::MAX);
                // Rows computed in bands are the same.
                assert_eq!(cells, [look(0..1), look(1..4), look(4..usize::MAX)].concat());
                assert_eq!(cells.len(), probability[0].len() * columns_out, "{width}x{height}");
                for (i, cell) in cells.iter().enumerate() {
                    let (row, column) = (i / columns_out, i % columns_out);
                    assert_eq!((cell.row, cell.column), (row, column));
                    close(&[cell.score], &[probability[1][row][column]], 1e-5);
                    let expected = [0, 1, 2, 3].map(|side| regression[side][row][column]);
                    close(&cell.regression, &expected, 2e-5);
                }
            }
        }
    }

    #[test]
    fn nothing_smaller_than_a_cell_is_looked_at() {
        let network = ProposalNet::new(&MTCNN.weights().unwrap(), Isa::Portable).unwrap();
        for size in [(0, 0), (11, 40), (40, 11)] {
            let level = Level { size, pixels: vec![0.0; size.0 * size.1 * 3] };
            let mut scratch = ProposalScratch::default();
            network.run(&level, 0..usize::MAX, 0.0, &mut scratch, |_| panic!());
        }
    }
}
