//! The layers of a SphereFace network in bfloat16 or 8-bit integers by products of tiles.
//!
//! Products are of numbers in bfloat16, sums are f32. With scales for 8-bit integers ([`Int8Scales`]), convolutions whose
//! inputs fill fewer blocks in 8 bits take them, and the others remain in bfloat16.
//!
//! The sum that goes through the residual units of a stage stays f32: rounded to bfloat16 after every unit, it would add
//! about as large an error as all products together (1 - cos 1.0e-5 instead of 6e-6 for SphereFace-20 with random
//! weights). The fully connected layer, which waits for its weights to come from memory, is computed in f32: it has 1 % of
//! the multiply-adds.

use super::{Face, Layout, Setting, lay_out};
use crate::embed::{EmbedError, Int8Scales};
use crate::models::arch::Convolution;
use crate::nn::Buffer;
use crate::nn::conv::{BlockMap, Dense, Map, Stream, TiledConv, TiledOutput, padded, windows};
use crate::nn::team::Team;
use crate::nn::tiles::{TileNumbers, TileUnit};

/// The most faces that go through each stage together, so that their maps stay in a second-level cache, and enough
/// share each load of the weights.
const TOGETHER: [usize; 4] = [1, 2, 8, super::MOST_FACES];

/// The layers.
#[derive(Debug)]
pub(super) struct Tiled {
    /// Of the pixels.
    input: Map,
    stages: Vec<Stage>,
    pub(super) fully_connected: Dense,
}

#[derive(Debug)]
struct Stage {
    /// For its first convolution: windows of pixels, or what the stage before gave.
    from: BlockMap,
    /// The convolution of stride 2 that it begins with.
    open: TiledConv,
    units: Vec<[TiledConv; 2]>,
    /// Of the sum that goes through the units.
    stream: Map,
    /// For the convolutions of the units.
    inside: BlockMap,
}

/// A layer, once it is laid out.
enum Layer {
    Dense(Dense),
    Tiled(TiledConv),
}

/// Memory of one worker.
#[derive(Debug)]
pub(super) struct TiledMemory {
    input: Buffer,
    stages: Vec<StageMemory>,
    sums: Vec<Buffer>,
}

/// Maps of one stage.
#[derive(Debug, Default)]
struct StageMemory {
    from: Buffer,
    stream: Buffer,
    /// Before a unit and between its two convolutions.
    inside: [Buffer; 2],
}

impl Tiled {
    /// Packs the layers on `threads` threads.
    pub(super) fn new(
        input: Map,
        setting: Setting<'_>,
        unit: TileUnit,
        scales: Option<&Int8Scales>,
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
        let numbers = |channels: usize| match scales {
            Some(_) if is_in_int8(channels) => TileNumbers::Int8,
            _ => TileNumbers::Bf16,
        };
        let map = |stage: usize, stride: usize| {
            BlockMap::of(numbers(channels[stage]), sizes[stage], channels[stage], stride)
        };
        let inside = |stage: usize| map(stage, 1);
        let from = |stage: usize| match stage {
            0 => BlockMap::of_windows(sizes[0]),
            _ => map(stage - 1, 2),
        };
        let mut layouts: Vec<Layout<'_, Layer>> = Vec::new();
        for c in architecture.convolutions() {
            let stage = c.stage - 1;
            let from = if c.stride == 2 { from(stage) } else { inside(stage) };
            let scale = match (scales, from.numbers()) {
                (Some(scales), TileNumbers::Int8) => scales.of(&c)?,
                _ => 1.0,
            };
            layouts.push(Box::new(move || {
                setting.convolution(c, |p| {
                    let (on, activation) = ((isa, unit), (p.bias, p.slopes));
                    Layer::Tiled(match from.numbers() {
                        TileNumbers::Int8 => {
                            TiledConv::of_bytes(on, p.weight, c.input, from, scale, activation)
                        }
                        TileNumbers::Bf16 if c.stage == 1 && c.stride == 2 => {
                            TiledConv::of_windows(on, p.weight, c.input, from, activation)
                        }
                        TileNumbers::Bf16 => TiledConv::new(on, p.weight, c.input, from, activation),
                    })
                })
            }));
        }
        layouts.push(Box::new(move || setting.fully_connected(stream(3)).map(Layer::Dense)));
        let mut layers = lay_out(threads, &layouts)?;
        let mut next = || match layers.pop() {
            Some(layer) => layer,
            None => unreachable!("a layer for every place in the network"),
        };
        let stages = (0..4).map(|stage| Stage {
            from: from(stage),
            open: next().tiled(),
            units: (0..architecture.units[stage]).map(|_| [next().tiled(), next().tiled()]).collect(),
            stream: stream(stage),
            inside: inside(stage),
        });
        let stages = stages.collect();
        Ok(Self { input, stages, fully_connected: next().dense() })
    }

    /// Features of `faces`.
    pub(super) fn forward(
        &self,
        team: &mut Team,
        memory: &mut TiledMemory,
        faces: &[Face],
        features: &mut [f32],
    ) {
        let last = self.stages.len() - 1;
        self.stage(last, team, memory, faces, 0);
        self.fully_connected.apply(team, faces.len(), &memory.stages[last].stream, features);
    }

    /// All stages up to that one, for no more faces than go through it together. What the next stage begins with is
    /// written to its memory from the `first` face on.
    fn stage(&self, stage: usize, team: &mut Team, memory: &mut TiledMemory, faces: &[Face], first: usize) {
        if stage > 0 {
            for (i, some) in faces.chunks(TOGETHER[stage - 1]).enumerate() {
                self.stage(stage - 1, team, memory, some, i * TOGETHER[stage - 1]);
            }
        }
        let (layers, TiledMemory { input, stages, sums }) = (&self.stages[stage], memory);
        let [memory, after @ ..] = &mut stages[stage..] else { unreachable!("memory for every stage") };
        if stage == 0 {
            for (face, to) in faces.iter().zip(input.chunks_exact_mut(self.input.len())) {
                self.input.fill(face, to);
            }
            windows(team, faces.len(), (self.input, input), (layers.from, &mut memory.from));
        }
        let next = self.stages.get(stage + 1).zip(after.first_mut());
        let next = next.map(|(next, memory)| {
            (next.from, &mut memory.from[first * next.from.len()..], next.open.scale())
        });
        layers.apply(team, sums, faces.len(), memory, next);
    }
}

impl Layer {
    fn dense(self) -> Dense {
        match self {
            Self::Dense(layer) => layer,
            Self::Tiled(_) => unreachable!("the last layer is computed in f32"),
        }
    }

    fn tiled(self) -> TiledConv {
        match self {
            Self::Tiled(layer) => layer,
            Self::Dense(_) => unreachable!("all other layers are convolutions"),
        }
    }
}

impl Stage {
    /// All convolutions of the stage, from maps in `memory.from` to those of the `next` stage, or to the stream if there
    /// is none.
    fn apply(
        &self,
        team: &mut Team,
        sums: &mut [Buffer],
        faces: usize,
        memory: &mut StageMemory,
        mut next: Option<Blocks<'_>>,
    ) {
        let StageMemory { from, stream, inside: [outer, inner] } = memory;
        let is_last = next.is_none();
        // Nobody reads the stream where the stage ends and another follows.
        let begins = !self.units.is_empty() || is_last;
        let begin = begins.then_some((self.stream, &mut stream[..], Stream::Begin));
        let blocks = self.before(0, outer).or_else(|| next.take());
        self.open.apply(team, sums, faces, from, output(begin, blocks));
        for (i, [first, second]) in self.units.iter().enumerate() {
            let blocks = (self.inside, &mut inner[..], second.scale());
            first.apply(team, sums, faces, outer, output(None, Some(blocks)));
            let how = if i + 1 == self.units.len() && !is_last { Stream::End } else { Stream::Add };
            let blocks = self.before(i + 1, outer).or_else(|| next.take());
            let stream = Some((self.stream, &mut stream[..], how));
            second.apply(team, sums, faces, inner, output(stream, blocks));
        }
    }

    /// The maps that a unit takes, if there is such a unit.
    fn before<'a>(&self, unit: usize, maps: &'a mut [f32]) -> Option<Blocks<'a>> {
        self.units.get(unit).map(|[first, _]| (self.inside, maps, first.scale()))
    }
}

/// Maps for a convolution, and what one in them stands for if they are in 8 bits.
type Blocks<'a> = (BlockMap, &'a mut [f32], f32);

/// Where a layer of the forward pass writes.
fn output<'a>(stream: Option<(Map, &'a mut [f32], Stream)>, blocks: Option<Blocks<'a>>) -> TiledOutput<'a> {
    let scale = blocks.as_ref().map_or(1.0, |(.., scale)| *scale);
    let blocks = blocks.map(|(map, numbers, _)| (map, numbers));
    TiledOutput { stream, blocks, scale, sums: None }
}

/// Whether numbers of that many channels fill fewer blocks in 8 bits than in bfloat16.
fn is_in_int8(channels: usize) -> bool {
    channels.div_ceil(TileNumbers::Int8.per_line()) < channels.div_ceil(TileNumbers::Bf16.per_line())
}

/// Whether a convolution of a network takes 8-bit integers, where the model has scales for them.
pub(in crate::embed) fn takes_int8(c: &Convolution) -> bool {
    is_in_int8(c.input)
}

impl TiledMemory {
    /// Memory for one worker of `threads` threads.
    pub(super) fn new(threads: usize) -> Self {
        Self { input: Buffer::default(), stages: Vec::new(), sums: TiledConv::memory(threads) }
    }

    /// Makes room for `faces` faces. Borders are zero from the start and stay so.
    pub(super) fn grow(&mut self, layers: &Tiled, faces: usize) {
        self.input.grow(faces.min(TOGETHER[0]) * layers.input.len());
        self.stages.resize_with(layers.stages.len(), Default::default);
        for ((stage, memory), together) in layers.stages.iter().zip(&mut self.stages).zip(TOGETHER) {
            let faces = faces.min(together);
            memory.from.grow(faces * stage.from.len());
            memory.stream.grow(faces * stage.stream.len());
            memory.inside.iter_mut().for_each(|map| map.grow(faces * stage.inside.len()));
        }
    }
}
