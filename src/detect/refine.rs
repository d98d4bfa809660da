//! R-Net and O-Net on the kernels.

use super::config::DetectError;
use super::proposal::grow;
use crate::models::Weights;
use crate::nn::conv::{
    Activation, Dense, Form, Map, STRIP, StripConv, StripOut, StripScratch, Tiles, UNDER, Winograd,
    max_pool_row, padded,
};
use crate::nn::team::Team;
use crate::nn::{Buffer, Isa};

/// A convolution between the first and the last one, and its pool.
#[derive(Debug)]
struct Middle {
    conv: Winograd,
    /// The convolution has no padding: the border of its input map consists of ordinary pixels.
    from: Map,
    to: Map,
    /// Max-pool of that size and stride 2, output size rounded up.
    pool: usize,
}

/// R-Net or O-Net: classifies square crops in batches.
#[derive(Debug)]
pub struct RefineNet {
    /// Side of the crops in pixels.
    pub side: usize,
    isa: Isa,
    first: StripConv,
    middle: Vec<Middle>,
    /// A 2x2 convolution.
    last: Dense,
    /// Its input; as for [`Middle`].
    last_from: Map,
    dense: Dense,
    /// All heads as one layer: two outputs of the softmax, four sides, and for O-Net ten of landmarks.
    heads: Dense,
    outputs: usize,
}

/// Working memory of [`RefineNet::run`], for one network: values of its maps that no layer writes are zero
/// from the start.
#[derive(Debug, Default)]
pub struct RefineScratch {
    team: Team,
    tiles: Vec<Tiles>,
    strip: StripScratch,
    ring: Vec<f32>,
    /// Before and after every convolution in the middle.
    maps: Vec<[Buffer; 2]>,
    /// Before the last convolution, after it, after the dense layer and the heads.
    pooled: Buffer,
    last: Buffer,
    hidden: Buffer,
    heads: Buffer,
    /// The outputs of the heads, [crops, outputs of all heads].
    pub out: Vec<f32>,
}

/// Size of the max-pool after the first convolution.
const FIRST_POOL: usize = 3;

/// Most rows and columns of a max-pool.
const LARGEST_POOL: usize = 3;

/// Rows of the first convolution that are kept: a strip, and the previous one, which pools still read.
const RING: usize = 2 * STRIP;

/// Side of the map before the last convolution, and after it.
const LAST_SIDES: [usize; 2] = [4, 3];

/// Pixels on one side of a border that counts as part of the map.
const BORDER: usize = 1;

/// Pixels of a map after a pool of that size and stride 2, along one side.
fn pooled_side(side: usize, size: usize) -> usize {
    (side - size).div_ceil(2) + 1
}

/// The names of a network's layers in its weights, and their shapes.
struct Shape {
    network: &'static str,
    side: usize,
    /// Channels after each convolution.
    channels: &'static [usize],
    /// Size of the pool after each convolution but the last, and of its Winograd tiles.
    pools: &'static [usize],
    tiles: &'static [usize],
    dense: &'static str,
    hidden: usize,
    heads: &'static [(&'static str, usize)],
}

impl RefineNet {
    /// R-Net: 24x24 crops.
    pub fn refine(weights: &Weights, isa: Isa) -> Result<Self, DetectError> {
        let shape = Shape {
            network: "rnet",
            side: 24,
            channels: &[28, 48, 64],
            pools: &[FIRST_POOL, 3],
            tiles: &[3],
            dense: "4",
            hidden: 128,
            heads: &[("dense5_1", 2), ("dense5_2", 4)],
        };
        Self::new(weights, isa, &shape)
    }

    /// O-Net: 48x48 crops.
    pub fn output(weights: &Weights, isa: Isa) -> Result<Self, DetectError> {
        let shape = Shape {
            network: "onet",
            side: 48,
            channels: &[32, 64, 64, 128],
            pools: &[FIRST_POOL, 3, 2],
            tiles: &[3, 4],
            dense: "5",
            hidden: 256,
            heads: &[("dense6_1", 2), ("dense6_2", 4), ("dense6_3", 10)],
        };
        Self::new(weights, isa, &shape)
    }

    fn new(weights: &Weights, isa: Isa, shape: &Shape) -> Result<Self, DetectError> {
        let &Shape { network, side, channels, pools, tiles, dense, hidden, heads } = shape;
        let tensor = |name: &str, shape: &[usize]| weights.tensor(&format!("{network}.{name}"), shape);
        let convolution = |number: usize, outputs: usize, inputs: usize, kernel: usize| {
            let kernels = tensor(&format!("conv{number}.weight"), &[outputs, inputs, kernel, kernel])?;
            let bias = tensor(&format!("conv{number}.bias"), &[outputs])?;
            Ok::<_, DetectError>((kernels, bias, tensor(&format!("prelu{number}.weight"), &[outputs])?))
        };

        let (kernels, bias, slopes) = convolution(1, channels[0], 3, 3)?;
        // Channels beyond those of the network are zero, whatever their slope.
        let extend = |values: &[f32], per_output: usize| {
            let mut all = values.to_vec();
            all.resize(Winograd::least_outputs(channels[0], isa) * per_output, 0.0);
            all
        };
        let first = StripConv::new(isa, &extend(kernels, 27), &extend(bias, 1), &extend(slopes, 1), 3);

        let mut middle = Vec::new();
        let mut map_side = pooled_side(side - 2, FIRST_POOL);
        for (i, &tile) in tiles.iter().enumerate() {
            let (inputs, outputs) = (channels[i], channels[i + 1]);
            let (kernels, bias, slopes) = convolution(i + 2, outputs, inputs, 3)?;
            let [from, to] = [inputs, outputs].map(|channels| {
                let stored = Winograd::least_outputs(channels, isa);
                Map::new(map_side - 2, map_side - 2, stored, [tile; 2])
            });
            let activation = Activation::new(bias, Some(slopes), to.channels);
            let stored = [from.channels, to.channels];
            middle.push(Middle {
                conv: Winograd::of_maps(isa, [tile; 2], Form::Full, kernels, inputs, stored, activation),
                from,
                to,
                pool: pools[i + 1],
            });
            map_side = pooled_side(map_side - 2, pools[i + 1]);
        }
        debug_assert_eq!(map_side, LAST_SIDES[0]);

        let [inputs, outputs] = [channels[tiles.len()], channels[tiles.len() + 1]];
        let (kernels, bias, slopes) = convolution(tiles.len() + 2, outputs, inputs, 2)?;
        let [before, after] = LAST_SIDES;
        let within = before - 2 * BORDER;
        let last_from = Map::new(within, within, Winograd::least_outputs(inputs, isa), [1; 2]);
        let last_to = Map::new(after, after, padded(outputs, isa), [1; 2]);
        let activation = Activation::new(bias, Some(slopes), last_to.channels);
        let last = Dense::convolution(isa, (kernels, 2), inputs, (last_from, last_to), 1, activation);

        let stored = tensor(&format!("dense{dense}.weight"), &[hidden, outputs * after * after])?;
        let bias = tensor(&format!("dense{dense}.bias"), &[hidden])?;
        let slopes = tensor(&format!("prelu{dense}.weight"), &[hidden])?;
        let activation = Activation::new(bias, Some(slopes), padded(hidden, isa));
        let dense = Dense::fully_connected(isa, stored, outputs, last_to, activation);

        let (mut matrix, mut biases) = (Vec::new(), Vec::new());
        for (name, outputs) in heads {
            matrix.extend_from_slice(tensor(&format!("{name}.weight"), &[*outputs, hidden])?);
            biases.extend_from_slice(tensor(&format!("{name}.bias"), &[*outputs])?);
        }
        let outputs = biases.len();
        let activation = Activation::new(&biases, None, padded(outputs, isa));
        let heads = Dense::behind_another(isa, &matrix, hidden, activation);
        Ok(Self { side, isa, first, middle, last, last_from, dense, heads, outputs })
    }

    /// Values of one crop, [side, side, 3].
    pub fn crop_length(&self) -> usize {
        self.side * self.side * 3
    }

    /// The best batch size: enough crops to fill the tiles of the matrix products, few enough for their maps
    /// to stay in the cache.
    pub fn batch(&self) -> usize {
        if self.side < 48 { 16 } else { 8 }
    }

    /// Runs on `count` consecutive crops. The result is in `scratch.out`; that of one crop does not depend on
    /// the others.
    pub fn run(&self, crops: &[f32], count: usize, scratch: &mut RefineScratch) {
        scratch.out.clear();
        if count == 0 {
            return;
        }
        scratch.grow(self, count);
        let RefineScratch { team, tiles, strip, ring, maps, pooled, last, hidden, heads, out } = scratch;
        for (crop, number) in crops.chunks_exact(self.crop_length()).zip(0..count) {
            let to = &mut maps[0][0][number * self.middle[0].from.len()..];
            self.run_first(crop, strip, ring, to);
        }
        for (i, layer) in self.middle.iter().enumerate() {
            let [from, to] = &mut maps[i];
            layer.conv.apply(team, tiles, count, (layer.from, from), (layer.to, to), false);
            let (before, after) = maps.split_at_mut(i + 1);
            for number in 0..count {
                let map = &before[i][1][number * layer.to.len()..];
                let (to, next) = match (after.first_mut(), self.middle.get(i + 1)) {
                    (Some([next, _]), Some(middle)) => (&mut **next, &middle.from),
                    _ => (&mut **pooled, &self.last_from),
                };
                layer.pool(self.isa, map, &mut to[number * next.len()..], next.pitch());
            }
        }
        self.last.apply(team, count, pooled, last);
        self.dense.apply(team, count, last, hidden);
        self.heads.apply(team, count, hidden, heads);
        for heads in heads.chunks_exact(self.heads.output_len()).take(count) {
            out.extend_from_slice(&heads[..self.outputs]);
        }
    }

    /// The first convolution of a crop and its pool, strip by strip.
    fn run_first(&self, crop: &[f32], strip: &mut StripScratch, ring: &mut [f32], to: &mut [f32]) {
        let pitch = self.middle[0].from.pitch();
        let (conv, side) = (&self.first, self.side - 2);
        let row_length = conv.row_length(side);
        let out_side = pooled_side(side, FIRST_POOL);
        let mut pool = 0;
        for first in (0..side).step_by(STRIP) {
            let rows: [&[f32]; UNDER] = std::array::from_fn(|row| {
                crop.chunks_exact(self.side * 3).nth(first + row).unwrap_or_default()
            });
            let height = STRIP.min(side - first);
            let values = &mut ring[first % RING * row_length..];
            conv.apply(&rows, (side, height), strip, StripOut { values, pitch: row_length, pool: false });
            let end = first + height;
            while pool < out_side && (2 * pool + FIRST_POOL).min(side) <= end {
                let under = 2 * pool..(2 * pool + FIRST_POOL).min(side);
                let row = |y: usize| &ring[y % RING * row_length..][..row_length];
                let rows: [&[f32]; FIRST_POOL] =
                    std::array::from_fn(|i| row((under.start + i).min(under.end - 1)));
                let to = &mut to[pool * pitch..];
                max_pool_row(self.isa, &rows[..under.len()], [side, conv.outputs()], FIRST_POOL, to);
                pool += 1;
            }
        }
    }
}

impl Middle {
    /// The pool of one map, written to rows that are `pitch` numbers apart.
    fn pool(&self, isa: Isa, map: &[f32], to: &mut [f32], pitch: usize) {
        let (side, channels) = (self.to.height, self.to.channels);
        let out_side = pooled_side(side, self.pool);
        for y in 0..out_side {
            let row = |row: usize| &map[self.to.at(row.min(side - 1), 0)..];
            let rows: [&[f32]; LARGEST_POOL] = std::array::from_fn(|i| row(2 * y + i));
            let rows = &rows[..self.pool.min(side - 2 * y)];
            max_pool_row(isa, rows, [side, channels], self.pool, &mut to[y * pitch..]);
        }
    }
}

impl RefineScratch {
    /// Makes room for `count` crops.
    fn grow(&mut self, network: &RefineNet, count: usize) {
        self.tiles.resize_with(self.team.threads(), Tiles::default);
        for tiles in &mut self.tiles {
            tiles.grow(network.middle.iter().map(|layer| &layer.conv));
        }
        grow(&mut self.ring, RING * network.first.row_length(network.side - 2));
        if self.maps.len() < network.middle.len() {
            self.maps.resize_with(network.middle.len(), Default::default);
        }
        for (layer, maps) in network.middle.iter().zip(&mut self.maps) {
            maps[0].grow(count * layer.from.len());
            maps[1].grow(count * layer.to.len());
        }
        self.pooled.grow(count * network.last_from.len());
        self.last.grow(count * network.last.output_len());
        self.hidden.grow(count * network.dense.output_len());
        self.heads.grow(count * network.heads.output_len());
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::detect::candle;
    use crate::detect::golden::{self, close, noise};
    use crate::models::MTCNN;
    use crate::models::candle::var_builder;

    #[test]
    fn crops_come_out_as_the_references_and_whatever_the_batch() {
        let weights = MTCNN.weights().unwrap();
        let vb = var_builder(&weights, DType::F64, &Device::Cpu).unwrap();
        for (side, count) in [(24, 21), (48, 7)] {
            let input: Vec<f32> = (0..count).flat_map(|i| noise(3 * side * side, i)).collect();
            let crops = Tensor::from_slice(&input, (count as usize, side, side, 3), &Device::Cpu).unwrap();
            let crops = crops.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let reference = match side {
                24 => candle::RefineNet::refine(&vb.pp("rnet")).unwrap(),
                _ => candle::RefineNet::output(&vb.pp("onet")).unwrap(),
            };
            let expected = reference.forward(&crops.to_dtype(DType::F64).unwrap()).unwrap();
            let expected = expected.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            let expected: Vec<f32> = expected.to_vec1().unwrap();
            for isa in Isa::available() {
                let network = match side {
                    24 => RefineNet::refine(&weights, isa).unwrap(),
                    _ => RefineNet::output(&weights, isa).unwrap(),
                };
                let mut scratch = RefineScratch::default();
                network.run(&input, count as usize, &mut scratch);
                let together = scratch.out.clone();
                let mut alone = Vec::new();
                for crop in input.chunks_exact(network.crop_length()) {
                    network.run(crop, 1, &mut scratch);
                    alone.extend_from_slice(&scratch.out);
                }
                assert_eq!(together, alone);
                let (ours, theirs) =
                    (together.chunks_exact(network.outputs), expected.chunks_exact(network.outputs));
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
            println!("skipped: no recorded tensors (set SPHEREFACE_DATA)");
            return;
        };
        let weights = MTCNN.weights().unwrap();
        let mut scratch = RefineScratch::default();
        for (network, letter) in [
            (RefineNet::refine(&weights, Isa::best()).unwrap(), 'r'),
            (RefineNet::output(&weights, Isa::best()).unwrap(), 'o'),
        ] {
            let (shape, data) = golden[&format!("{letter}net_in")].clone();
            let pixels = shape[2] * shape[3];
            let interleaved: Vec<f32> =
                (0..pixels).flat_map(|at| data.iter().skip(at).step_by(pixels).copied()).collect();
            network.run(&interleaved, 1, &mut scratch);
            close(&scratch.out[2..6], &golden[&format!("{letter}net_out0")].1, 1e-5);
            if letter == 'o' {
                close(&scratch.out[6..], &golden["onet_out1"].1, 1e-5);
            }
        }
    }
}
