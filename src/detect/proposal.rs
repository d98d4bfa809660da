//! P-Net as the kernels want it, and how it runs.

use std::ops::Range;

use super::area::{AreaResize, RowSums};
use super::config::DetectError;
use super::kernels::{Conv, Kernels, MAX_KERNEL};
use super::lanes::LANES;
use crate::nn::conv::{Activation, Map, Tiles, Winograd};
use crate::nn::team::Team;
use crate::nn::{Buffer, Isa, Weights};

fn conv(
    weights: &Weights,
    network: &str,
    number: usize,
    outputs: usize,
    inputs: usize,
    kernel: usize,
) -> Result<Conv, DetectError> {
    let layer = format!("{network}.conv{number}");
    let kernels = weights.tensor(&format!("{layer}.weight"), &[outputs, inputs, kernel, kernel])?;
    let bias = weights.tensor(&format!("{layer}.bias"), &[outputs])?;
    let slope = weights.tensor(&format!("{network}.prelu{number}.weight"), &[outputs])?;
    Ok(Conv::pack(kernels, bias, slope, inputs, kernel))
}

/// Values a map needs: its pixels and the slack the kernels write into.
pub fn map_length(pixels: usize, channels: usize) -> usize {
    pixels * channels + LANES
}

/// Makes room for `length` values.
pub fn grow(buffer: &mut Vec<f32>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
}

/// What P-Net says of one 12x12 cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Row and column among the cells, two pixels apart.
    pub row: usize,
    /// See `row`.
    pub column: usize,
    /// Probability of a face.
    pub score: f32,
    /// Regression of x1, y1, x2, y2 in parts of the cell's side.
    pub regression: [f32; 4],
}

/// P-Net: looks at every 12x12 cell of an image, two pixels apart.
#[derive(Debug)]
pub struct ProposalNet {
    conv1: Conv,
    conv2: Conv,
    /// Three fifths of the operations if it went pixel by pixel as the others do.
    conv3: Winograd,
    /// Weights of "face" less those of "not a face": the softmax of two is a function of it.
    face: Vec<f32>,
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
    resize: AreaResize,
    input: Vec<f32>,
    pooled: Vec<f32>,
    middle: Buffer,
    features: Buffer,
    logits: Vec<f32>,
}

/// Rows of input that are alive at a time.
const INPUT_ROWS: usize = 4;

/// Channels of the map before the last 3x3 convolution, and after it.
const MIDDLE: usize = 16;
const FEATURES: usize = 32;

/// Rows of cells that come out of the last 3x3 convolution together, and columns in one of its
/// tiles. The strips begin at multiples of it, wherever a band of rows does, so that a cell does
/// not depend on the bands.
pub const STRIP: usize = 4;

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
            conv1: conv(weights, "pnet", 1, 10, 3, 3)?,
            conv2: conv(weights, "pnet", 2, MIDDLE, 10, 3)?,
            conv3: Winograd::of_maps(isa, STRIP, kernels, MIDDLE, MIDDLE, activation),
            face: (0..FEATURES).map(|i| face[FEATURES + i] - face[i]).collect(),
            face_bias: face_bias[1] - face_bias[0],
            regression: weights.tensor("pnet.conv4_2.weight", &[4, FEATURES, 1, 1])?.to_vec(),
            regression_bias: std::array::from_fn(|i| regression_bias[i]),
        })
    }

    /// Calls `found` for every cell of the rows `rows` (see [`cells`]) with a probability of at
    /// least `threshold` in an image resized to `width` x `height`, in row-major order. Nothing
    /// is found in fewer than 12 rows or columns.
    ///
    /// The layers run row by row behind one another, the last 3x3 convolution a strip of rows at a
    /// time, so that all of it stays in the cache.
    pub fn run(
        &self,
        kernels: &Kernels,
        image: &RowSums,
        (width, height): (usize, usize),
        rows: Range<usize>,
        threshold: f32,
        scratch: &mut ProposalScratch,
        mut found: impl FnMut(Cell),
    ) {
        let (Some(cells_x), Some(cells_y)) = (cells(width), cells(height)) else { return };
        let rows = rows.start..rows.end.min(cells_y);
        let (first, end) = (rows.start / STRIP * STRIP, rows.end.next_multiple_of(STRIP).min(cells_y));
        let ProposalScratch { team, tiles, resize, input, pooled, middle, features, logits } = scratch;
        let (conv_width, conv_height) = (width - 2, height - 2);
        let pooled_width = conv_width.div_ceil(2);
        let middle_width = pooled_width - 2;
        let input_row = width * 3;
        let pooled_row = map_length(pooled_width, self.conv1.outputs);
        // A strip's border are pixels like others, beyond which there is nothing.
        let from = Map::new(STRIP, cells_x, MIDDLE, STRIP);
        let to = Map::new(STRIP, cells_x, FEATURES, STRIP);
        let middle_row = from.pitch();
        grow(input, INPUT_ROWS * input_row);
        grow(pooled, MAX_KERNEL * pooled_row);
        tiles.grow(std::iter::once(&self.conv3));
        middle.grow(from.len());
        middle[..from.len()].fill(0.0);
        features.grow(to.len());
        logits.resize(cells_x, 0.0);

        resize.prepare(image.size(), width, height);
        // Below this no probability reaches the threshold; the margin covers rounding.
        let least_logit = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln() as f32 - 1e-3;
        let (mut resized, mut strip) = (2 * first, first);
        // A cell sees five rows of the pool, the last four of which later cells see as well.
        for pool in first..end + 4 {
            let last_input = (2 * pool + 3).min(height - 1);
            while resized <= last_input {
                let at = (resized % INPUT_ROWS) * input_row;
                resize.row_of(kernels.isa, image, resized, &mut input[at..at + input_row]);
                resized += 1;
            }
            let input_rows = |y: usize| -> [&[f32]; MAX_KERNEL] {
                std::array::from_fn(|row| &input[((y + row) % INPUT_ROWS) * input_row..][..input_row])
            };
            // The pool sees nothing below the last row of the convolution.
            let lower = (2 * pool + 1).min(conv_height - 1);
            let at = (pool % MAX_KERNEL) * pooled_row;
            let pooled_rows = [input_rows(2 * pool), input_rows(lower)];
            kernels.conv_pool_row(&self.conv1, &pooled_rows, conv_width, &mut pooled[at..at + pooled_row]);

            let Some(y) = pool.checked_sub(2).filter(|&y| y >= first) else { continue };
            let three = ring(pooled, pooled_row, y);
            let row = y - strip;
            kernels.conv_row(&self.conv2, 0, &three, middle_width, &mut middle[row * middle_row..]);

            if row < STRIP + 1 && y < end + 1 {
                continue;
            }
            middle[(row + 1) * middle_row..from.len()].fill(0.0);
            let tiles = std::slice::from_mut(&mut *tiles);
            self.conv3.apply(team, tiles, 1, (from, &*middle), (to, &mut *features), false);
            for y in (strip..(strip + STRIP).min(end)).filter(|y| rows.contains(y)) {
                let features = &features[to.at(y - strip, 0)..];
                kernels.dot_row(features, &self.face, self.face_bias, logits);
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
            // The next strip begins with the last two rows.
            middle.copy_within(STRIP * middle_row..from.len(), 0);
            strip += STRIP;
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

/// Cells that P-Net sees along a side of so many pixels.
pub fn cells(side: usize) -> Option<usize> {
    (side >= 12).then(|| (side - 2).div_ceil(2) - 4)
}

fn ring(rows: &[f32], row_length: usize, y: usize) -> [&[f32]; MAX_KERNEL] {
    std::array::from_fn(|row| &rows[((y + row) % MAX_KERNEL) * row_length..][..row_length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{close, noise_image};
    use crate::detect::reference::{self, Map};
    use crate::nn::Isa;
    use crate::nn::weights::MTCNN;

    #[test]
    fn every_cell_of_p_net_is_the_references() {
        let weights = MTCNN.weights().unwrap();
        for (width, height) in [(12, 12), (13, 12), (12, 15), (14, 13), (37, 54), (61, 20)] {
            let image = noise_image(width, height);
            let mut data = Vec::new();
            for channel in 0..3 {
                data.extend(image.pixels().map(|pixel| (f32::from(pixel.0[channel]) - 127.5) / 128.0));
            }
            let (columns, rows) = (width as usize, height as usize);
            let (regression, probability) =
                reference::pnet(&weights, &Map { channels: 3, rows, columns, data }).unwrap();
            for kernels in Isa::available().into_iter().filter_map(Kernels::new) {
                let network = ProposalNet::new(&weights, kernels.isa).unwrap();
                let mut sums = RowSums::default();
                sums.add_up(kernels.isa, &image, rows);
                let look = |band: Range<usize>| {
                    let (mut cells, mut scratch) = (Vec::new(), ProposalScratch::default());
                    let size = (columns, rows);
                    network.run(&kernels, &sums, size, band, 0.0, &mut scratch, |cell| cells.push(cell));
                    cells
                };
                let cells = look(0..usize::MAX);
                // Rows looked at in bands come out the same.
                assert_eq!(cells, [look(0..1), look(1..4), look(4..usize::MAX)].concat());
                assert_eq!(cells.len(), probability.rows * probability.columns, "{width}x{height}");
                for (i, cell) in cells.iter().enumerate() {
                    let (row, column) = (i / probability.columns, i % probability.columns);
                    assert_eq!((cell.row, cell.column), (row, column));
                    close(&[cell.score], &[probability.at(1, row, column)], 1e-5);
                    let expected = [0, 1, 2, 3].map(|side| regression.at(side, row, column));
                    close(&cell.regression, &expected, 2e-5);
                }
            }
        }
    }

    #[test]
    fn nothing_smaller_than_a_cell_is_looked_at() {
        let network = ProposalNet::new(&MTCNN.weights().unwrap(), Isa::Portable).unwrap();
        let kernels = Kernels::new(Isa::Portable).unwrap();
        for size in [(0, 0), (11, 40), (40, 11)] {
            let (mut sums, mut scratch) = (RowSums::default(), ProposalScratch::default());
            sums.add_up(kernels.isa, &noise_image(40, 40), 40);
            network.run(&kernels, &sums, size, 0..usize::MAX, 0.0, &mut scratch, |_| panic!());
        }
    }
}
