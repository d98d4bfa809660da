//! The layers of a SphereFace network in bfloat16 by products of tiles.
//!
//! Products are of numbers in bfloat16, sums are f32. The sum that goes through the residual units of a stage stays
//! f32: rounded to bfloat16 after every unit, it would add about as large an error as all products together (1 - cos
//! 1.0e-5 instead of 6e-6 for SphereFace-20 with random weights). The first layer, whose inputs have three channels, and
//! the fully connected one, which waits for its weights to come from memory, are computed in f32: they have 1 % of
//! the multiply-adds.

use std::ops::Range;

use super::{Layout, Setting, lay_out};
use crate::embed::EmbedError;
use crate::nn::Buffer;
use crate::nn::Isa;
use crate::nn::conv::{BlockMap, Dense, Map, Stream, TiledConv, TiledOutput, padded, round};
use crate::nn::team::Team;
use crate::nn::tiles::TileUnit;

/// The layers.
#[derive(Debug)]
pub(super) struct Tiled {
    isa: Isa,
    first: Dense,
    stages: Vec<Stage>,
    pub(super) fully_connected: Dense,
}

#[derive(Debug)]
struct Stage {
    /// The convolution of stride 2 that it begins with, but for the first, where that is another layer.
    open: Option<TiledConv>,
    units: Vec<[TiledConv; 2]>,
    /// Of the sum that goes through the units.
    stream: Map,
    /// For the convolutions of the units.
    inside: BlockMap,
    /// For the convolution that the next stage begins with.
    next: Option<BlockMap>,
}

/// A layer, once it is laid out.
enum Layer {
    Dense(Dense),
    Tiled(TiledConv),
}

/// Memory of one worker.
#[derive(Debug)]
pub(super) struct TiledMemory {
    stages: Vec<StageMemory>,
    sums: Vec<Buffer>,
}

/// Maps of one stage.
#[derive(Debug, Default)]
struct StageMemory {
    stream: Buffer,
    /// Before a unit and between its two convolutions.
    inside: [Buffer; 2],
    next: Buffer,
}

impl Tiled {
    /// Packs the layers on `threads` threads.
    pub(super) fn new(
        input: Map,
        setting: Setting<'_>,
        unit: TileUnit,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        let (architecture, isa) = (setting.architecture, setting.isa);
        let sizes: [_; 4] =
            std::array::from_fn(|stage| [input.height, input.width].map(|n| n >> (stage + 1)));
        let channels = architecture.channels;
        let stream = |stage: usize| {
            let [height, width] = sizes[stage];
            Map::new(height, width, padded(channels[stage], isa), [1; 2])
        };
        let blocks = |stage: usize, stride| BlockMap::new(sizes[stage], channels[stage], stride);
        let mut layouts: Vec<Layout<'_, Layer>> = Vec::new();
        for c in architecture.convolutions() {
            let stage = c.stage - 1;
            layouts.push(Box::new(move || {
                setting.convolution(c, |p| {
                    if stage == 0 && c.stride == 2 {
                        let (weight, maps) = ((p.weight, 3), (input, stream(0)));
                        return Layer::Dense(Dense::convolution(isa, weight, 3, maps, 2, p.activation(isa)));
                    }
                    let from = if c.stride == 2 { blocks(stage - 1, 2) } else { blocks(stage, 1) };
                    Layer::Tiled(TiledConv::new((isa, unit), p.weight, c.input, from, (p.bias, p.slopes)))
                })
            }));
        }
        layouts.push(Box::new(move || setting.fully_connected(stream(3)).map(Layer::Dense)));
        let mut layers = lay_out(threads, &layouts)?;
        let mut next = || match layers.pop() {
            Some(layer) => layer,
            None => unreachable!("a layer for every place in the network"),
        };
        let first = next().dense();
        let stages = (0..4).map(|stage| Stage {
            open: (stage > 0).then(|| next().tiled()),
            units: (0..architecture.units[stage]).map(|_| [next().tiled(), next().tiled()]).collect(),
            stream: stream(stage),
            inside: blocks(stage, 1),
            next: (stage < 3).then(|| blocks(stage, 2)),
        });
        let stages = stages.collect();
        Ok(Self { isa, first, stages, fully_connected: next().dense() })
    }

    /// The first stage, and the beginning of the second, for some of the faces of a batch.
    pub(super) fn first_stage(
        &self,
        team: &mut Team,
        TiledMemory { stages: memory, sums }: &mut TiledMemory,
        faces: Range<usize>,
        input: &[f32],
    ) {
        let [first, second, ..] = &mut memory[..] else { unreachable!("four stages") };
        let stage = &self.stages[0];
        let StageMemory { stream, inside: [outer, _], next } = first;
        self.first.apply(team, faces.len(), input, stream);
        if let Some(to) = stage.blocks(stage.units.is_empty(), [outer, next], 0) {
            round(self.isa, team, faces.len(), (stage.stream, stream), to);
        }
        stage.units(team, sums, faces.len(), first);
        self.stages[1].open(team, sums, faces, &first.next, second);
    }

    /// What comes then, for all faces.
    pub(super) fn other_stages(
        &self,
        team: &mut Team,
        TiledMemory { stages: memory, sums }: &mut TiledMemory,
        faces: usize,
        features: &mut [f32],
    ) {
        let [_, second, third, fourth] = &mut memory[..] else { unreachable!("four stages") };
        self.stages[1].units(team, sums, faces, second);
        self.stages[2].open(team, sums, 0..faces, &second.next, third);
        self.stages[2].units(team, sums, faces, third);
        self.stages[3].open(team, sums, 0..faces, &third.next, fourth);
        self.stages[3].units(team, sums, faces, fourth);
        self.fully_connected.apply(team, faces, &fourth.stream, features);
    }
}

impl Layer {
    fn dense(self) -> Dense {
        match self {
            Self::Dense(layer) => layer,
            Self::Tiled(_) => unreachable!("the first and the last layer are computed in f32"),
        }
    }

    fn tiled(self) -> TiledConv {
        match self {
            Self::Tiled(layer) => layer,
            Self::Dense(_) => unreachable!("all other layers are computed in bfloat16"),
        }
    }
}

impl Stage {
    /// The first convolution, from the maps of the stage before, for some faces of the batch.
    fn open(
        &self,
        team: &mut Team,
        sums: &mut [Buffer],
        faces: Range<usize>,
        input: &[f32],
        memory: &mut StageMemory,
    ) {
        let Some(layer) = &self.open else { unreachable!("the first stage begins otherwise") };
        let StageMemory { stream, inside: [outer, _], next } = memory;
        let end = self.units.is_empty();
        let stream = &mut stream[faces.start * self.stream.len()..];
        // Nobody reads it where the stage ends and another follows.
        let stream = (!end || self.next.is_none()).then_some((self.stream, stream, Stream::Begin));
        let blocks = self.blocks(end, [outer, next], faces.start);
        layer.apply(team, sums, faces.len(), input, TiledOutput { stream, blocks });
    }

    /// The residual units.
    fn units(&self, team: &mut Team, sums: &mut [Buffer], faces: usize, memory: &mut StageMemory) {
        let StageMemory { stream, inside: [outer, inner], next } = memory;
        for (i, [first, second]) in self.units.iter().enumerate() {
            let end = i + 1 == self.units.len();
            let to = TiledOutput { stream: None, blocks: Some((self.inside, inner)) };
            first.apply(team, sums, faces, outer, to);
            let how = if end && self.next.is_some() { Stream::End } else { Stream::Add };
            let blocks = self.blocks(end, [outer, next], 0);
            let to = TiledOutput { stream: Some((self.stream, stream, how)), blocks };
            second.apply(team, sums, faces, inner, to);
        }
    }

    /// The maps in bfloat16 for what comes after a unit, from the `first` face on: for the next unit, or at the `end` of
    /// the stage for the next stage, if there is one.
    fn blocks<'m>(
        &self,
        end: bool,
        [inside, next]: [&'m mut Buffer; 2],
        first: usize,
    ) -> Option<(BlockMap, &'m mut [f32])> {
        match end {
            false => Some((self.inside, &mut inside[first * self.inside.len()..])),
            true => self.next.map(|map| (map, &mut next[first * map.len()..])),
        }
    }
}

impl TiledMemory {
    /// Memory for one worker of `threads` threads.
    pub(super) fn new(threads: usize) -> Self {
        Self { stages: Vec::new(), sums: TiledConv::memory(threads) }
    }

    /// Makes room for these numbers of faces, in the first stage and in the others.
    pub(super) fn grow(&mut self, layers: &Tiled, [first, others]: [usize; 2]) {
        self.stages.resize_with(layers.stages.len(), Default::default);
        for (s, (stage, memory)) in layers.stages.iter().zip(&mut self.stages).enumerate() {
            let faces = if s == 0 { first } else { others };
            memory.stream.grow(faces * stage.stream.len());
            memory.inside.iter_mut().for_each(|map| map.grow(faces * stage.inside.len()));
            memory.next.grow(faces * stage.next.map_or(0, |map| map.len()));
        }
    }
}
