//! Forward and backward pass of the network on the CPU kernels.
//!
//! A SphereFace network is a chain of layers with residual sums, so its backward pass is the same chain in
//! reverse, written out: no graph is recorded. Activations are kept for one chunk of a batch at a time.
//! Gradients of the weights add up exactly over chunks, because nothing in the network mixes samples.

use super::last::LastLayer;
use super::parameters::Parameter;
use crate::align::{CROP_HEIGHT, CROP_WIDTH, Crop};
use crate::embed::Architecture;
use crate::nn::conv::{Activation, Dense, Direction, GradientMemory, Map, Tiles, Winograd, padded};
use crate::nn::simd::{self, Kernel, Simd};
use crate::nn::team::{Parts, Team};
use crate::nn::{Buffer, Isa};

/// Values of one crop: rows x columns x channels, one per byte.
pub const CROP_LEN: usize = Crop::LEN_BYTES;

/// Number of samples processed together.
pub const CHUNK: usize = 16;

/// Width of the Winograd tiles of each stage: the last maps are too small for 4.
const TILES: [usize; 4] = [4, 4, 4, 2];

/// A network that can be trained, with room for one chunk of samples.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    isa: Isa,
    team: Team,
    tiles: Vec<Tiles>,
    memory: GradientMemory,
    input_map: Map,
    input: Buffer,
    stages: Vec<Stage>,
    last: LastLayer,
    samples: usize,
}

/// The layers of a stage and their activations of a chunk.
#[derive(Debug)]
struct Stage {
    map: Map,
    channels: usize,
    /// Number of its first convolution.
    first: usize,
    open: Dense,
    /// `None` in the first stage, because the gradient w.r.t. the picture is not needed.
    open_backward: Option<[Dense; 4]>,
    opened: Buffer,
    /// The stage's maps before each unit and after the last.
    maps: Vec<Buffer>,
    units: Vec<Unit>,
    /// Gradients w.r.t. the stage's maps, a unit's inner activations and a convolution's output.
    by_map: Buffer,
    by_inner: Buffer,
    by_output: Buffer,
}

/// A residual unit.
#[derive(Debug)]
struct Unit {
    forward: [Winograd; 2],
    backward: [Winograd; 2],
    /// Outputs of the convolutions.
    outputs: [Buffer; 2],
    /// The first after its PReLU.
    inner: Buffer,
}

/// Number of the weight of a convolution in the list of parameters; bias and slopes follow.
pub(super) fn place(convolution: usize) -> usize {
    3 * convolution
}

impl Network {
    /// A network for `parameters` as [`super::parameters::network`] lists them (more may follow);
    /// `threads` threads share its work.
    ///
    /// # Panics
    /// When the parameters are not those of `architecture`.
    pub fn new(architecture: Architecture, parameters: &[Parameter], isa: Isa, threads: usize) -> Self {
        for ((name, shape), parameter) in architecture.tensors().iter().zip(parameters) {
            assert_eq!((name, shape), (&parameter.name, &parameter.shape));
        }
        let mut team = Team::new(threads);
        let input_map = Map::new(CROP_HEIGHT, CROP_WIDTH, 3, [1; 2]);
        let mut stages: Vec<Stage> = Vec::new();
        let mut first = 0;
        for (s, planned) in architecture.stages().iter().enumerate() {
            let (inputs, channels) = (planned.opening.input, planned.opening.output);
            let units = planned.units.len();
            let from = stages.last().map_or(input_map, |stage| stage.map);
            let map = Map::new(from.height / 2, from.width / 2, padded(channels, isa), [TILES[s]; 2]);
            let (open, open_backward) = opening(parameters, first, isa, inputs, (from, map));
            let buffer = || Buffer::new(CHUNK * map.len());
            let layer = || Winograd::empty(isa, TILES[s], map.channels, map.channels);
            let unit = |_| Unit {
                forward: [layer(), layer()],
                backward: [layer(), layer()],
                outputs: [buffer(), buffer()],
                inner: buffer(),
            };
            stages.push(Stage {
                map,
                channels,
                first,
                open,
                open_backward,
                opened: buffer(),
                maps: (0..=units).map(|_| buffer()).collect(),
                units: (0..units).map(unit).collect(),
                by_map: buffer(),
                by_inner: buffer(),
                by_output: buffer(),
            });
            first += 1 + 2 * units;
        }
        let layers = || stages.iter().flat_map(|stage| stage.units.iter().flat_map(|unit| &unit.forward));
        let mut tiles: Vec<Tiles> = (0..team.threads()).map(|_| Tiles::default()).collect();
        tiles.iter_mut().for_each(|tiles| tiles.grow(layers()));
        let sizes: Vec<_> = stages
            .iter()
            .zip(TILES)
            .filter(|(stage, _)| !stage.units.is_empty())
            .map(|(stage, tile)| (tile, stage.map.channels))
            .collect();
        let memory = GradientMemory::new(&sizes);
        for stage in &mut stages {
            stage.refresh_units(&mut team, parameters);
        }
        Self {
            architecture,
            isa,
            team,
            tiles,
            memory,
            input_map,
            input: Buffer::new(CHUNK * input_map.len()),
            stages,
            last: LastLayer::new(architecture),
            samples: 0,
        }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Updates the layers with the changed values of `parameters`.
    pub fn refresh(&mut self, parameters: &[Parameter]) {
        let mut from = (self.input_map, 3);
        for stage in &mut self.stages {
            (stage.open, stage.open_backward) =
                opening(parameters, stage.first, self.isa, from.1, (from.0, stage.map));
            stage.refresh_units(&mut self.team, parameters);
            from = (stage.map, stage.channels);
        }
    }

    /// Features [samples, embedding] of a chunk of crops [samples, 112, 96, 3], at most [`CHUNK`].
    ///
    /// # Panics
    /// When there are more, or `pixels` holds no whole crops.
    pub fn forward(&mut self, parameters: &[Parameter], pixels: &[f32]) -> Vec<f32> {
        self.samples = pixels.len() / CROP_LEN;
        assert!(self.samples <= CHUNK && pixels.len() == self.samples * CROP_LEN);
        for (crop, map) in
            pixels.chunks_exact(CROP_LEN).zip(self.input.chunks_exact_mut(self.input_map.len()))
        {
            for (y, row) in crop.chunks_exact(3 * CROP_WIDTH).enumerate() {
                map[self.input_map.at(y, 0)..][..row.len()].copy_from_slice(row);
            }
        }
        let (team, tiles, samples, isa) = (&mut self.team, &mut self.tiles, self.samples, self.isa);
        let mut from = &self.input;
        for stage in &mut self.stages {
            let Stage { map, first, open, opened, maps, units, .. } = stage;
            let slopes = |convolution: usize| &parameters[place(convolution) + 2].value[..];
            open.apply(team, samples, from, opened);
            prelu(isa, team, samples, *map, slopes(*first), opened, None, &mut maps[0]);
            for (number, unit) in units.iter_mut().enumerate() {
                let Unit { forward, outputs: [a, b], inner, .. } = unit;
                let convolution = *first + 1 + 2 * number;
                let (before, after) = maps.split_at_mut(number + 1);
                let (before, after) = (&before[number], &mut after[0]);
                forward[0].apply(team, tiles, samples, (*map, before), (*map, a), false);
                prelu(isa, team, samples, *map, slopes(convolution), a, None, inner);
                forward[1].apply(team, tiles, samples, (*map, inner), (*map, b), false);
                prelu(isa, team, samples, *map, slopes(convolution + 1), b, Some(before), after);
            }
            from = &maps[units.len()];
        }
        let Stage { map, maps, .. } = &self.stages[3];
        self.last.forward(parameters, samples, (*map, &maps[maps.len() - 1]), self.team.threads())
    }

    /// Adds the gradients w.r.t. all parameters to them, given the gradient w.r.t. the features
    /// [samples, embedding] of the chunk that went forward last.
    ///
    /// # Panics
    /// When `by_feature` has another size.
    pub fn backward(&mut self, parameters: &mut [Parameter], by_feature: &[f32]) {
        let Self { stages, team, tiles, memory, samples, isa, input, last, .. } = self;
        let samples = *samples;
        let Stage { map, by_map, .. } = &mut stages[3];
        last.backward(parameters, samples, by_feature, (*map, by_map), team.threads());
        for s in (0..stages.len()).rev() {
            let (before, rest) = stages.split_at_mut(s);
            let previous = before.last_mut();
            let Stage {
                map,
                channels,
                first,
                open,
                open_backward,
                opened,
                maps,
                units,
                by_map,
                by_inner,
                by_output,
            } = &mut rest[0];
            let (map, channels) = (*map, *channels);
            for (number, unit) in units.iter_mut().enumerate().rev() {
                let Unit { forward, backward, outputs: [a, b], inner } = unit;
                let convolution = *first + 1 + 2 * number;
                let mut weights = |team: &mut Team,
                                   layer: usize,
                                   input: &[f32],
                                   by_output: &[f32],
                                   gradient: &mut [f32]| {
                    forward[layer].add_weight_gradient(
                        team,
                        memory,
                        samples,
                        map,
                        (input, by_output),
                        (channels, channels),
                        gradient,
                    );
                };
                let [weight, bias, slope] = layer(parameters, convolution + 1);
                prelu_backward(*isa, team, samples, map, b, by_map, (slope, bias), by_output);
                weights(team, 1, inner, by_output, &mut weight.gradient);
                backward[1].apply(team, tiles, samples, (map, by_output), (map, by_inner), false);
                let [weight, bias, slope] = layer(parameters, convolution);
                prelu_backward(*isa, team, samples, map, a, by_inner, (slope, bias), by_output);
                weights(team, 0, &maps[number], by_output, &mut weight.gradient);
                backward[0].apply(team, tiles, samples, (map, by_output), (map, by_map), true);
            }
            let [weight, bias, slope] = layer(parameters, *first);
            prelu_backward(*isa, team, samples, map, opened, by_map, (slope, bias), by_output);
            let (from, inputs): (&[f32], usize) = match &previous {
                Some(stage) => (&stage.maps[stage.units.len()], stage.channels),
                None => (input, 3),
            };
            open.add_weight_gradient(team, samples, inputs, (from, by_output), &mut weight.gradient);
            if let (Some(layers), Some(stage)) = (open_backward, previous) {
                for layer in layers {
                    layer.apply(team, samples, by_output, &mut stage.by_map);
                }
            }
        }
    }
}

/// Weight, bias and slopes of a convolution.
pub(super) fn layer(parameters: &mut [Parameter], convolution: usize) -> &mut [Parameter; 3] {
    match parameters[place(convolution)..].first_chunk_mut() {
        Some(three) => three,
        None => unreachable!("the parameters were checked against the architecture"),
    }
}

/// The first convolution of a stage and its backward pass.
fn opening(
    parameters: &[Parameter],
    convolution: usize,
    isa: Isa,
    inputs: usize,
    (from, to): (Map, Map),
) -> (Dense, Option<[Dense; 4]>) {
    let [weight, bias] = &parameters[place(convolution)..][..2] else { unreachable!("two are taken") };
    let activation = Activation::new(&bias.value, None, to.channels);
    let forward = Dense::convolution(isa, (&weight.value, 3), inputs, (from, to), 2, activation);
    let backward = (convolution > 0).then(|| Dense::input_gradient(isa, &weight.value, inputs, (from, to)));
    (forward, backward)
}

impl Stage {
    fn refresh_units(&mut self, team: &mut Team, parameters: &[Parameter]) {
        let size = (self.channels, self.channels);
        for (number, unit) in self.units.iter_mut().enumerate() {
            for (i, (forward, backward)) in unit.forward.iter_mut().zip(&mut unit.backward).enumerate() {
                let at = place(self.first + 1 + 2 * number + i);
                let weight = &parameters[at].value;
                let bias = Activation::new(&parameters[at + 1].value, None, self.map.channels);
                forward.refresh(team, weight, size, Direction::Forward, bias);
                let nothing = Activation::new(&[], None, self.map.channels);
                backward.refresh(team, weight, size, Direction::Backward, nothing);
            }
        }
    }
}

/// A PReLU on `samples` maps, and the sum with `residual`.
fn prelu(
    isa: Isa,
    team: &mut Team,
    samples: usize,
    map: Map,
    slopes: &[f32],
    from: &[f32],
    residual: Option<&[f32]>,
    to: &mut [f32],
) {
    let slopes = Buffer::padded(slopes, map.channels);
    let len = map.len();
    team.run_parts(&mut to[..samples * len], len, |_, sample, to| {
        let whole = sample * len..(sample + 1) * len;
        simd::run(
            isa,
            Prelu { slopes: &slopes, from: &from[whole.clone()], residual: residual.map(|r| &r[whole]), to },
        );
    });
}

/// [`prelu`] of one map.
struct Prelu<'a> {
    slopes: &'a [f32],
    from: &'a [f32],
    residual: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Kernel for Prelu<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.slopes.len();
        let one = |to: &mut [f32], from: &[f32]| {
            for ((y, &z), &slope) in to.iter_mut().zip(from).zip(self.slopes) {
                *y = if z > 0.0 { z } else { slope * z };
            }
        };
        let pixels = self.to.chunks_exact_mut(channels).zip(self.from.chunks_exact(channels));
        match self.residual {
            None => pixels.for_each(|(to, from)| one(to, from)),
            Some(residual) => {
                for ((to, from), residual) in pixels.zip(residual.chunks_exact(channels)) {
                    one(to, from);
                    to.iter_mut().zip(residual).for_each(|(y, x)| *y += x);
                }
            }
        }
    }
}

/// Backward pass of bias and PReLU: from the gradient w.r.t. its output to that w.r.t. its input `from`,
/// and adds the gradients w.r.t. the slopes and the bias, which is the channel sums of the former.
fn prelu_backward(
    isa: Isa,
    team: &mut Team,
    samples: usize,
    map: Map,
    from: &[f32],
    by_output: &[f32],
    (slope, bias): (&mut Parameter, &mut Parameter),
    to: &mut [f32],
) {
    let slopes = Buffer::padded(&slope.value, map.channels);
    let len = map.len();
    let to = Parts::new(to, len);
    // Separate sums per map, so that the result does not depend on the distribution over threads.
    let mut sums = vec![0.0; samples * 2 * map.channels];
    let partial = Parts::new(&mut sums, 2 * map.channels);
    team.run(samples, &|_, sample| {
        let whole = sample * len..(sample + 1) * len;
        // SAFETY: every item takes its own map and sums.
        let (to, sums) = unsafe { (to.get(sample), partial.get(sample)) };
        simd::run(
            isa,
            PreluBackward {
                slopes: &slopes,
                from: &from[whole.clone()],
                by_output: &by_output[whole],
                to,
                sums,
            },
        );
    });
    for sums in sums.chunks_exact(2 * map.channels) {
        let (by_slope, by_bias) = sums.split_at(map.channels);
        slope.gradient.iter_mut().zip(by_slope).for_each(|(g, sum)| *g += sum);
        bias.gradient.iter_mut().zip(by_bias).for_each(|(g, sum)| *g += sum);
    }
}

/// [`prelu_backward`] of one map.
struct PreluBackward<'a> {
    slopes: &'a [f32],
    from: &'a [f32],
    by_output: &'a [f32],
    to: &'a mut [f32],
    /// Gradients w.r.t. the slopes, then w.r.t. the bias.
    sums: &'a mut [f32],
}

impl Kernel for PreluBackward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.slopes.len();
        let (by_slope, by_bias) = self.sums.split_at_mut(channels);
        let pixels = self.from.chunks_exact(channels).zip(self.by_output.chunks_exact(channels));
        for (to, (from, by_output)) in self.to.chunks_exact_mut(channels).zip(pixels) {
            let channels = self.slopes.iter().zip(by_slope.iter_mut()).zip(by_bias.iter_mut());
            for (((to, &z), &dy), ((&slope, by_slope), by_bias)) in
                to.iter_mut().zip(from).zip(by_output).zip(channels)
            {
                let positive = z > 0.0;
                let dz = if positive { dy } else { slope * dy };
                *by_slope += if positive { 0.0 } else { dy * z };
                *by_bias += dz;
                *to = dz;
            }
        }
    }
}
