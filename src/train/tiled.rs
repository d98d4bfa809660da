//! Forward and backward pass of the network in bfloat16 by products of tiles (Intel AMX). Weights, their gradients, all
//! sums and the maps that go through the residual units are f32.
//!
//! Like [`Network`](super::network::Network) it is the chain of layers and the same chain in reverse.

use super::last::LastLayer;
use super::network::{CHUNK, CROP_LEN, layer, place};
use super::parameters::Parameter;
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
use crate::embed::Architecture;
use crate::nn::conv::{
    BLOCK, BlockMap, Map, Pass, Stream, TiledConv, TiledGradient, TiledGradientMemory, TiledOutput,
    activation_backward, windows,
};
use crate::nn::team::Team;
use crate::nn::tiles::TileUnit;
use crate::nn::{Buffer, Isa};

/// A network that can be trained, with room for one chunk of samples.
#[derive(Debug)]
pub struct TiledNetwork {
    architecture: Architecture,
    isa: Isa,
    team: Team,
    /// Sums of each thread.
    sums: Vec<Buffer>,
    memory: TiledGradientMemory,
    input_map: Map,
    input: Buffer,
    stages: Vec<Stage>,
    last: LastLayer,
    samples: usize,
}

/// A convolution.
#[derive(Debug)]
struct Layer {
    /// Its number.
    number: usize,
    forward: TiledConv,
    /// One for stride 1, four for stride 2, and none where nobody needs the gradient.
    backward: Vec<TiledConv>,
    gradient: TiledGradient,
    /// Its outputs before the PReLU.
    sums: Buffer,
}

/// The layers of a stage and their activations of a chunk.
#[derive(Debug)]
struct Stage {
    /// What the first convolution reads.
    from: BlockMap,
    opened: Buffer,
    open: Layer,
    /// What each unit reads.
    maps: Vec<Buffer>,
    units: Vec<Unit>,
    /// The sum that goes through the units, and the gradients with respect to it and to what is inside a unit.
    stream_map: Map,
    stream: Buffer,
    by_stream: Buffer,
    by_inner: Buffer,
    /// Maps of the convolutions of the units.
    inside: BlockMap,
    /// The gradient with respect to the sums of one convolution.
    by_sums: Buffer,
}

/// A residual unit.
#[derive(Debug)]
struct Unit {
    first: Layer,
    /// Between the convolutions.
    inner: Buffer,
    second: Layer,
}

impl TiledNetwork {
    /// A network for `parameters` as [`super::parameters::network`] lists them (more may follow); `threads` threads share
    /// its work.
    ///
    /// # Panics
    /// When the parameters are not those of `architecture`.
    pub(crate) fn new(
        architecture: Architecture,
        parameters: &[Parameter],
        on: (Isa, TileUnit),
        threads: usize,
    ) -> Self {
        for ((name, shape), parameter) in architecture.tensors().iter().zip(parameters) {
            assert_eq!((name, shape), (&parameter.name, &parameter.shape));
        }
        let team = Team::new(threads);
        let mut stages: Vec<Stage> = Vec::new();
        let mut number = 0;
        for planned in architecture.stages() {
            let (inputs, channels) = (planned.opening.input, planned.opening.output);
            let previous = stages.last().map_or([CROP_HEIGHT, CROP_WIDTH], |stage| stage.inside.size());
            let size = previous.map(|n| n / 2);
            let stream_map = Map::new(size[0], size[1], channels.next_multiple_of(BLOCK), [1; 2]);
            let inside = BlockMap::new(size, channels, 1);
            let is_first = stages.is_empty();
            let from = if is_first { BlockMap::of_windows(size) } else { BlockMap::new(previous, inputs, 2) };
            let mut layer = |[outputs, inputs]: [usize; 2], from: BlockMap, passes: (Pass, &[Pass])| {
                number += 1;
                let empty = |pass, channels, from| TiledConv::empty(on, pass, channels, from);
                Layer {
                    number: number - 1,
                    forward: empty(passes.0, [outputs, inputs], from),
                    backward: passes.1.iter().map(|&pass| empty(pass, [inputs, outputs], inside)).collect(),
                    gradient: match passes.0 {
                        Pass::Windows => TiledGradient::of_windows(on, [outputs, inputs], from),
                        _ => TiledGradient::new(on, [outputs, inputs], from),
                    },
                    sums: Buffer::new(CHUNK * inside.len()),
                }
            };
            let halving = [[0, 0], [0, 1], [1, 0], [1, 1]].map(Pass::BackwardOfHalving);
            let passes = if is_first { (Pass::Windows, &[][..]) } else { (Pass::Forward, &halving[..]) };
            let open = layer([channels, inputs], from, passes);
            let mut unit_layer = || layer([channels; 2], inside, (Pass::Forward, &[Pass::Backward]));
            let map = || Buffer::new(CHUNK * inside.len());
            let unit = |_| Unit { first: unit_layer(), inner: map(), second: unit_layer() };
            let units: Vec<Unit> = planned.units.iter().map(unit).collect();
            let stream = || Buffer::new(CHUNK * stream_map.len());
            stages.push(Stage {
                from,
                opened: Buffer::new(CHUNK * from.len()),
                open,
                maps: units.iter().map(|_| map()).collect(),
                units,
                stream_map,
                stream: stream(),
                by_stream: stream(),
                by_inner: stream(),
                inside,
                by_sums: map(),
            });
        }
        let input_map = Map::new(CROP_HEIGHT, CROP_WIDTH, 3, [1; 2]);
        let mut network = Self {
            architecture,
            isa: on.0,
            sums: TiledConv::memory(team.threads()),
            team,
            memory: TiledGradientMemory::default(),
            input_map,
            input: Buffer::new(CHUNK * input_map.len()),
            stages,
            last: LastLayer::new(architecture),
            samples: 0,
        };
        network.refresh(parameters);
        network
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Updates the layers with the changed values of `parameters`.
    pub fn refresh(&mut self, parameters: &[Parameter]) {
        for stage in &mut self.stages {
            for layer in stage.layers_mut() {
                let [weight, bias, slopes] =
                    [0, 1, 2].map(|i| &parameters[place(layer.number) + i].value[..]);
                layer.forward.refresh(&mut self.team, weight, bias, slopes);
                for backward in &mut layer.backward {
                    backward.refresh(&mut self.team, weight, &[], &[]);
                }
            }
        }
    }

    /// Features [samples, embedding] of a chunk of crops [samples, 112, 96, 3], at most [`CHUNK`].
    ///
    /// # Panics
    /// When there are more, or `pixels` holds no whole crops.
    pub fn forward(&mut self, parameters: &[Parameter], pixels: &[f32]) -> Vec<f32> {
        self.samples = pixels.len() / CROP_LEN;
        assert!(self.samples <= CHUNK && pixels.len() == self.samples * CROP_LEN);
        let map = self.input_map;
        for (crop, to) in pixels.chunks_exact(CROP_LEN).zip(self.input.chunks_exact_mut(map.len())) {
            map.fill(crop, to);
        }
        let (team, samples) = (&mut self.team, self.samples);
        let first = &mut self.stages[0];
        windows(team, samples, (map, &self.input), (first.from, &mut first.opened));
        for s in 0..self.stages.len() {
            let (stage, after) = self.stages[s..].split_first_mut().unwrap_or_else(|| unreachable!());
            let next = after.first_mut().map(|next| (next.from, &mut next.opened[..]));
            stage.forward(team, &mut self.sums, samples, next);
        }
        let stage = &self.stages[self.stages.len() - 1];
        self.last.forward(parameters, samples, (stage.stream_map, &stage.stream), self.team.threads())
    }

    /// Begins a batch of chunks.
    pub fn begin(&mut self) {
        self.stages.iter_mut().flat_map(Stage::layers_mut).for_each(|layer| layer.gradient.clear());
    }

    /// Adds up the gradients w.r.t. all parameters, given the gradient w.r.t. the features [samples, embedding] of the
    /// chunk that went forward last. Those w.r.t. the weights of convolutions are those of the parameters after
    /// [`collect`](Self::collect).
    ///
    /// # Panics
    /// When `by_feature` has another size.
    pub fn backward(&mut self, parameters: &mut [Parameter], by_feature: &[f32]) {
        let Self { stages, team, sums, memory, samples, isa, last, .. } = self;
        let samples = *samples;
        let stage = stages.len() - 1;
        let to = (stages[stage].stream_map, &mut stages[stage].by_stream[..]);
        last.backward(parameters, samples, by_feature, to, team.threads());
        for s in (0..stages.len()).rev() {
            let (before, rest) = stages.split_at_mut(s);
            let Stage { opened, open, maps, units, stream_map, by_stream, by_inner, inside, by_sums, .. } =
                &mut rest[0];
            let mut back = |layer: &mut Layer,
                            parameters: &mut [Parameter],
                            (input, by_output): (&[f32], &[f32]),
                            to: Option<(Map, &mut [f32], Stream)>| {
                let [_, bias, slope] = self::layer(parameters, layer.number);
                activation_backward(
                    *isa,
                    team,
                    samples,
                    (*stream_map, by_output),
                    (*inside, &layer.sums),
                    &slope.value,
                    by_sums,
                    [&mut slope.gradient, &mut bias.gradient],
                );
                layer.gradient.add(team, memory, samples, input, (*inside, by_sums));
                if let Some((map, to, how)) = to {
                    for backward in &layer.backward {
                        let output = TiledOutput {
                            stream: Some((map, &mut *to, how)),
                            blocks: None,
                            scale: 1.0,
                            sums: None,
                        };
                        backward.apply(team, sums, samples, by_sums, output);
                    }
                }
            };
            for (Unit { first, inner, second }, map) in units.iter_mut().zip(&*maps).rev() {
                let to = Some((*stream_map, &mut by_inner[..], Stream::Begin));
                back(second, parameters, (inner, by_stream), to);
                let to = Some((*stream_map, &mut by_stream[..], Stream::Add));
                back(first, parameters, (map, by_inner), to);
            }
            let to = before.last_mut();
            let to = to.map(|stage| (stage.stream_map, &mut stage.by_stream[..], Stream::Begin));
            back(open, parameters, (opened, by_stream), to);
        }
    }

    /// Adds the gradients w.r.t. the weights of convolutions of the chunks since [`begin`](Self::begin) to those of the
    /// parameters.
    pub fn collect(&mut self, parameters: &mut [Parameter]) {
        for layer in self.stages.iter_mut().flat_map(Stage::layers_mut) {
            let [weight, ..] = self::layer(parameters, layer.number);
            layer.gradient.collect(&mut self.team, &mut weight.gradient);
        }
    }
}

impl Stage {
    /// In the order of their numbers.
    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        let units = self.units.iter_mut().flat_map(|unit| [&mut unit.first, &mut unit.second]);
        std::iter::once(&mut self.open).chain(units)
    }

    /// All convolutions of the stage, from what it opens with to that of the `next` stage.
    fn forward(
        &mut self,
        team: &mut Team,
        sums: &mut [Buffer],
        samples: usize,
        next: Option<(BlockMap, &mut [f32])>,
    ) {
        let Self { opened, open, maps, units, stream_map, stream, inside, .. } = self;
        let mut next = next;
        // The last layer writes what the next stage begins with.
        let blocks = match maps.first_mut() {
            Some(map) => Some((*inside, &mut map[..])),
            None => next.take(),
        };
        let to = Some((*stream_map, &mut stream[..], Stream::Begin));
        let output = TiledOutput { stream: to, blocks, scale: 1.0, sums: Some((*inside, &mut open.sums)) };
        open.forward.apply(team, sums, samples, opened, output);
        for (number, Unit { first, inner, second }) in units.iter_mut().enumerate() {
            let (before, after) = maps.split_at_mut(number + 1);
            let blocks = Some((*inside, &mut inner[..]));
            let output =
                TiledOutput { stream: None, blocks, scale: 1.0, sums: Some((*inside, &mut first.sums)) };
            first.forward.apply(team, sums, samples, &before[number], output);
            let blocks = match after.first_mut() {
                Some(map) => Some((*inside, &mut map[..])),
                None => next.take(),
            };
            let to = Some((*stream_map, &mut stream[..], Stream::Add));
            let output =
                TiledOutput { stream: to, blocks, scale: 1.0, sums: Some((*inside, &mut second.sums)) };
            second.forward.apply(team, sums, samples, inner, output);
        }
    }
}
