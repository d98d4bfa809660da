//! The three networks as the kernels want them, and how they run.

use image::RgbImage;

use super::area::{AreaResize, Region};
use super::config::DetectError;
use super::kernels::{Conv, Kernels, MAX_KERNEL};
use super::lanes::LANES;
use crate::nn::Weights;

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

/// The rows `y..` of a map of that row length, as many as a kernel can want.
fn rows_of(map: &[f32], row_length: usize, y: usize) -> [&[f32]; MAX_KERNEL] {
    std::array::from_fn(|row| map.get((y + row) * row_length..).unwrap_or_default())
}

/// Values a map needs: its pixels and the slack the kernels write into.
fn map_length(pixels: usize, channels: usize) -> usize {
    pixels * channels + LANES
}

fn grow(buffer: &mut Vec<f32>, length: usize) {
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
    conv3: Conv,
    /// Weights of "face" less those of "not a face": the softmax of two is a function of it.
    face: Vec<f32>,
    face_bias: f32,
    /// [4][channels of conv3]
    regression: Vec<f32>,
    regression_bias: [f32; 4],
}

/// Working memory of [`ProposalNet::run`]: a few rows of every layer.
#[derive(Debug, Default)]
pub struct ProposalScratch {
    resize: AreaResize,
    input: Vec<f32>,
    pooled: Vec<f32>,
    middle: Vec<f32>,
    features: Vec<f32>,
    logits: Vec<f32>,
}

/// Rows of input and of the maps inside P-Net that are alive at a time.
const INPUT_ROWS: usize = 4;

impl ProposalNet {
    pub fn new(weights: &Weights) -> Result<Self, DetectError> {
        let conv3 = conv(weights, "pnet", 3, 32, 16, 3)?;
        let channels = conv3.outputs;
        let face = weights.tensor("pnet.conv4_1.weight", &[2, channels, 1, 1])?;
        let face_bias = weights.tensor("pnet.conv4_1.bias", &[2])?;
        let regression_bias = weights.tensor("pnet.conv4_2.bias", &[4])?;
        Ok(Self {
            conv1: conv(weights, "pnet", 1, 10, 3, 3)?,
            conv2: conv(weights, "pnet", 2, 16, 10, 3)?,
            face: (0..channels).map(|i| face[channels + i] - face[i]).collect(),
            face_bias: face_bias[1] - face_bias[0],
            regression: weights.tensor("pnet.conv4_2.weight", &[4, channels, 1, 1])?.to_vec(),
            regression_bias: std::array::from_fn(|i| regression_bias[i]),
            conv3,
        })
    }

    /// Calls `found` for every cell with a probability of at least `threshold` in the image
    /// resized to `width` x `height`, in row-major order. Nothing is found in fewer than
    /// 12 rows or columns.
    ///
    /// The layers run row by row behind one another, so that all of it stays in the cache.
    pub fn run(
        &self,
        kernels: &Kernels,
        image: &RgbImage,
        (width, height): (usize, usize),
        threshold: f32,
        scratch: &mut ProposalScratch,
        mut found: impl FnMut(Cell),
    ) {
        let (Some(cells_x), Some(_)) = (cells(width), cells(height)) else { return };
        let ProposalScratch { resize, input, pooled, middle, features, logits } = scratch;
        let (conv_width, conv_height) = (width - 2, height - 2);
        let (pooled_width, pooled_height) = (conv_width.div_ceil(2), conv_height.div_ceil(2));
        let middle_width = pooled_width - 2;
        let input_row = width * 3;
        let pooled_row = map_length(pooled_width, self.conv1.outputs);
        let middle_row = map_length(middle_width, self.conv2.outputs);
        grow(input, INPUT_ROWS * input_row);
        grow(pooled, MAX_KERNEL * pooled_row);
        grow(middle, MAX_KERNEL * middle_row);
        grow(features, map_length(cells_x, self.conv3.outputs));
        logits.resize(cells_x, 0.0);

        let whole = Region { x: 0, y: 0, width: image.width() as usize, height: image.height() as usize };
        resize.prepare(whole, width, height);
        // Below this no probability reaches the threshold; the margin covers rounding.
        let least_logit = (f64::from(threshold) / (1.0 - f64::from(threshold))).ln() as f32 - 1e-3;
        let mut resized = 0;
        for pool in 0..pooled_height {
            let last_input = (2 * pool + 3).min(height - 1);
            while resized <= last_input {
                let at = (resized % INPUT_ROWS) * input_row;
                resize.row(kernels, image, whole, resized, &mut input[at..at + input_row]);
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

            let Some(y) = pool.checked_sub(2) else { continue };
            let rows = ring(pooled, pooled_row, y);
            let at = (y % MAX_KERNEL) * middle_row;
            kernels.conv_row(&self.conv2, 0, &rows, middle_width, &mut middle[at..at + middle_row]);

            let Some(y) = y.checked_sub(2) else { continue };
            let rows = ring(middle, middle_row, y);
            for block in (0..self.conv3.blocks()).rev() {
                kernels.conv_row(&self.conv3, block, &rows, cells_x, features);
            }
            kernels.dot_row(features, &self.face, self.face_bias, logits);
            for (x, &logit) in logits.iter().enumerate() {
                if logit >= least_logit {
                    let score = 1.0 / (1.0 + (-logit).exp());
                    if score >= threshold {
                        let regression = self.regress(&features[x * self.conv3.outputs..]);
                        found(Cell { row: y, column: x, score, regression });
                    }
                }
            }
        }
    }

    fn regress(&self, features: &[f32]) -> [f32; 4] {
        std::array::from_fn(|side| {
            let weights = &self.regression[side * self.conv3.outputs..][..self.conv3.outputs];
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

/// A step between the crop and the fully connected layers.
#[derive(Debug)]
enum Step {
    Conv(Conv),
    /// Max-pool of that size and stride 2, output size rounded up.
    Pool(usize),
}

/// R-Net or O-Net: looks at square crops, many at a time.
#[derive(Debug)]
pub struct RefineNet {
    /// Side of the crops in pixels.
    pub side: usize,
    steps: Vec<Step>,
    dense: Conv,
    /// All heads side by side: two of the softmax, four sides, and for O-Net ten of landmarks.
    heads: Conv,
}

/// Working memory of [`RefineNet::run`].
#[derive(Debug, Default)]
pub struct RefineScratch {
    from: Vec<f32>,
    to: Vec<f32>,
    flat: Vec<f32>,
    hidden: Vec<f32>,
    /// What the heads say, [crops, [`RefineNet::outputs`]].
    pub out: Vec<f32>,
}

impl RefineNet {
    /// R-Net: 24x24 crops.
    pub fn refine(weights: &Weights) -> Result<Self, DetectError> {
        let steps = vec![
            Step::Conv(conv(weights, "rnet", 1, 28, 3, 3)?),
            Step::Pool(3),
            Step::Conv(conv(weights, "rnet", 2, 48, 28, 3)?),
            Step::Pool(3),
            Step::Conv(conv(weights, "rnet", 3, 64, 48, 2)?),
        ];
        Self::new(
            weights,
            24,
            steps,
            ("rnet.dense4", "rnet.prelu4.weight", 128),
            64,
            &[("rnet.dense5_1", 2), ("rnet.dense5_2", 4)],
        )
    }

    /// O-Net: 48x48 crops.
    pub fn output(weights: &Weights) -> Result<Self, DetectError> {
        let steps = vec![
            Step::Conv(conv(weights, "onet", 1, 32, 3, 3)?),
            Step::Pool(3),
            Step::Conv(conv(weights, "onet", 2, 64, 32, 3)?),
            Step::Pool(3),
            Step::Conv(conv(weights, "onet", 3, 64, 64, 3)?),
            Step::Pool(2),
            Step::Conv(conv(weights, "onet", 4, 128, 64, 2)?),
        ];
        Self::new(
            weights,
            48,
            steps,
            ("onet.dense5", "onet.prelu5.weight", 256),
            128,
            &[("onet.dense6_1", 2), ("onet.dense6_2", 4), ("onet.dense6_3", 10)],
        )
    }

    fn new(
        weights: &Weights,
        side: usize,
        steps: Vec<Step>,
        (dense, prelu, hidden): (&str, &str, usize),
        channels: usize,
        heads: &[(&str, usize)],
    ) -> Result<Self, DetectError> {
        // The last map of both networks is 3x3; stored for [channels, rows, columns], while
        // ours is [rows, columns, channels].
        const PIXELS: usize = 9;
        let stored = weights.tensor(&format!("{dense}.weight"), &[hidden, channels * PIXELS])?;
        let mut flat = Vec::with_capacity(stored.len());
        for output in stored.chunks_exact(channels * PIXELS) {
            for pixel in 0..PIXELS {
                flat.extend((0..channels).map(|channel| output[channel * PIXELS + pixel]));
            }
        }
        let bias = weights.tensor(&format!("{dense}.bias"), &[hidden])?;
        let dense = Conv::pack(&flat, bias, weights.tensor(prelu, &[hidden])?, channels * PIXELS, 1);
        let (mut matrix, mut biases) = (Vec::new(), Vec::new());
        for (name, outputs) in heads {
            matrix.extend_from_slice(weights.tensor(&format!("{name}.weight"), &[*outputs, hidden])?);
            biases.extend_from_slice(weights.tensor(&format!("{name}.bias"), &[*outputs])?);
        }
        let identity = vec![1.0; biases.len()];
        let heads = Conv::pack(&matrix, &biases, &identity, hidden, 1);
        Ok(Self { side, steps, dense, heads })
    }

    /// Values a crop comes out as: two of the softmax, four sides, ten of landmarks or none.
    pub fn outputs(&self) -> usize {
        self.heads.outputs
    }

    /// Values of one crop, [side, side, 3].
    pub fn crop_length(&self) -> usize {
        self.side * self.side * 3
    }

    /// Runs over `count` crops that lie one after the other; the answer is `scratch.out`.
    pub fn run(&self, kernels: &Kernels, crops: &[f32], count: usize, scratch: &mut RefineScratch) {
        scratch.out.clear();
        if count == 0 {
            return;
        }
        let features = self.dense.inputs;
        grow(&mut scratch.flat, map_length(count, features));
        for (crop, number) in crops.chunks_exact(self.crop_length()).zip(0..count) {
            self.run_crop(kernels, crop, scratch);
            scratch.flat[number * features..][..features].copy_from_slice(&scratch.from[..features]);
        }
        scratch.hidden.resize(map_length(count, self.dense.outputs), 0.0);
        scratch.out.resize(map_length(count, self.heads.outputs), 0.0);
        for block in (0..self.dense.blocks()).rev() {
            kernels.conv_row(&self.dense, block, &[&scratch.flat, &[], &[]], count, &mut scratch.hidden);
        }
        kernels.conv_row(&self.heads, 0, &[&scratch.hidden, &[], &[]], count, &mut scratch.out);
        scratch.out.truncate(count * self.heads.outputs);
    }

    /// The convolutions over one crop; the last map ends up in `scratch.from`.
    fn run_crop(&self, kernels: &Kernels, crop: &[f32], scratch: &mut RefineScratch) {
        let (mut side, mut channels) = (self.side, 3);
        for (number, step) in self.steps.iter().enumerate() {
            let from = if number == 0 { crop } else { &scratch.from };
            let row_length = side * channels;
            match step {
                Step::Conv(conv) => {
                    let out_side = side + 1 - conv.kernel;
                    grow(&mut scratch.to, map_length(out_side * out_side, conv.outputs));
                    for block in (0..conv.blocks()).rev() {
                        for y in 0..out_side {
                            let rows = rows_of(from, row_length, y);
                            let out = &mut scratch.to[y * out_side * conv.outputs..];
                            kernels.conv_row(conv, block, &rows, out_side, out);
                        }
                    }
                    (side, channels) = (out_side, conv.outputs);
                }
                Step::Pool(size) => {
                    let out_side = (side - size).div_ceil(2) + 1;
                    grow(&mut scratch.to, map_length(out_side * out_side, channels));
                    for y in 0..out_side {
                        let rows: [&[f32]; MAX_KERNEL] = rows_of(from, row_length, 2 * y);
                        let rows = &rows[..(*size).min(side - 2 * y)];
                        let out = &mut scratch.to[y * out_side * channels..];
                        kernels.max_pool_row(rows, side, channels, *size, out);
                    }
                    side = out_side;
                }
            }
            std::mem::swap(&mut scratch.from, &mut scratch.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::golden::{self, close, noise, noise_image};
    use crate::detect::reference::{self, Map};
    use crate::nn::Isa;
    use crate::nn::weights::MTCNN;

    /// [rows, columns, channels] from [channels, rows, columns].
    fn interleaved(map: &Map) -> Vec<f32> {
        let pixels = (0..map.rows).flat_map(|y| (0..map.columns).map(move |x| (y, x)));
        pixels.flat_map(|(y, x)| (0..map.channels).map(move |channel| map.at(channel, y, x))).collect()
    }

    #[test]
    fn every_cell_of_p_net_is_the_references() {
        let weights = MTCNN.weights().unwrap();
        let network = ProposalNet::new(&weights).unwrap();
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
                let mut cells = Vec::new();
                let mut scratch = ProposalScratch::default();
                network.run(&kernels, &image, (columns, rows), 0.0, &mut scratch, |cell| cells.push(cell));
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
        let network = ProposalNet::new(&MTCNN.weights().unwrap()).unwrap();
        let kernels = Kernels::new(Isa::Portable).unwrap();
        for size in [(0, 0), (11, 40), (40, 11)] {
            let mut scratch = ProposalScratch::default();
            network.run(&kernels, &noise_image(40, 40), size, 0.0, &mut scratch, |_| panic!());
        }
    }

    #[test]
    fn crops_come_out_as_the_references_and_whatever_the_batch() {
        let weights = MTCNN.weights().unwrap();
        let networks = [RefineNet::refine(&weights).unwrap(), RefineNet::output(&weights).unwrap()];
        for network in networks {
            let (side, count) = (network.side, 7);
            let crops: Vec<Map> = (0..count)
                .map(|i| Map { channels: 3, rows: side, columns: side, data: noise(3 * side * side, i) })
                .collect();
            let expected: Vec<f32> = crops
                .iter()
                .flat_map(|crop| match side {
                    24 => {
                        let (regression, probability) = reference::rnet(&weights, crop).unwrap();
                        [probability, regression].concat()
                    }
                    _ => {
                        let (regression, landmarks, probability) = reference::onet(&weights, crop).unwrap();
                        [probability, regression, landmarks].concat()
                    }
                })
                .collect();
            let input: Vec<f32> = crops.iter().flat_map(interleaved).collect();
            for kernels in Isa::available().into_iter().filter_map(Kernels::new) {
                let mut scratch = RefineScratch::default();
                network.run(&kernels, &input, count as usize, &mut scratch);
                let together = scratch.out.clone();
                let mut alone = Vec::new();
                for crop in input.chunks_exact(network.crop_length()) {
                    network.run(&kernels, crop, 1, &mut scratch);
                    alone.extend_from_slice(&scratch.out);
                }
                assert_eq!(together, alone);
                let (ours, theirs) =
                    (together.chunks_exact(network.outputs()), expected.chunks_exact(network.outputs()));
                for (ours, theirs) in ours.zip(theirs) {
                    let face = 1.0 / (1.0 + (ours[0] - ours[1]).exp());
                    close(&[1.0 - face, face], &theirs[..2], 1e-5);
                    close(&ours[2..], &theirs[2..], 1e-5);
                }
            }
        }
    }

    #[test]
    fn the_recorded_crops_give_the_recorded_answers() {
        let Some(golden) = golden::tensors() else {
            println!("skipped: no SPHEREFACE_DATA");
            return;
        };
        let weights = MTCNN.weights().unwrap();
        let kernels = Kernels::new(Isa::best()).unwrap();
        let mut scratch = RefineScratch::default();
        for (network, letter) in
            [(RefineNet::refine(&weights).unwrap(), 'r'), (RefineNet::output(&weights).unwrap(), 'o')]
        {
            let (shape, data) = golden[&format!("{letter}net_in")].clone();
            let crop = Map { channels: shape[1], rows: shape[2], columns: shape[3], data };
            network.run(&kernels, &interleaved(&crop), 1, &mut scratch);
            close(&scratch.out[2..6], &golden[&format!("{letter}net_out0")].1, 1e-5);
            if letter == 'o' {
                close(&scratch.out[6..], &golden["onet_out1"].1, 1e-5);
            }
        }
    }
}
