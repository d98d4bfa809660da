//! The layers of a SphereFace network on vectors: Winograd convolutions in f32 or bfloat16.

use std::ops::Range;

use super::{Layout, Setting, lay_out};
use crate::embed::EmbedError;
use crate::nn::conv::{Dense, Form, Map, Tiles, Winograd, padded};
use crate::nn::team::Team;
use crate::nn::{Arithmetic, Buffer};

/// The layers.
#[derive(Debug)]
pub(super) struct Vectors {
    stages: Vec<Stage>,
    pub(super) fully_connected: Dense,
}

#[derive(Debug)]
struct Stage {
    map: Map,
    open: Opening,
    units: Vec<[Winograd; 2]>,
}

/// The convolution of stride 2 that a stage begins with.
#[derive(Debug)]
enum Opening {
    Dense(Dense),
    Winograd(Box<Winograd>, Map),
}

/// A layer, once it is laid out.
enum Layer {
    Dense(Dense),
    Winograd(Winograd),
}

/// Memory of one worker.
#[derive(Debug)]
pub(super) struct VectorMemory {
    /// For every stage its maps, and those between the two convolutions of a unit.
    maps: Vec<[Buffer; 2]>,
    tiles: Vec<Tiles>,
}

/// Rows and columns of the Winograd tiles of each stage, whose maps have 56 x 48, 28 x 24, 14 x 12 and
/// 7 x 6 pixels. Tiles of 5 x 6 in the third stage would leave 11 % fewer products there, but take a
/// third more weights, for which a face alone waits.
const TILES: [[usize; 2]; 4] = [[4, 6], [4, 6], [5, 4], [4, 3]];

/// The storage format of the weights of each stage's Winograd convolutions. Reading those of the last two
/// stages bounds a single face.
const FORMS: [Form; 4] = [Form::Full, Form::Full, Form::Packed, Form::Packed];

/// Which stages begin with a Winograd convolution. The first has too few inputs for it.
const HALVING: [bool; 4] = [false, true, true, true];

/// Every Winograd tile in bfloat16: larger ones need more than its 8 bits.
const TILE_BF16: [usize; 2] = [2, 2];

impl Vectors {
    /// Packs the layers on `threads` threads.
    pub(super) fn new(
        input: Map,
        setting: Setting<'_>,
        arithmetic: Arithmetic,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        let (architecture, isa) = (setting.architecture, setting.isa);
        // The last tile of a convolution onto half of 14 rows reaches three rows further than they do.
        let (tiles, stored, forms) = match arithmetic {
            Arithmetic::F32 => (TILES, TILES, FORMS),
            // Without a unit for tiles there are no kernels for 8-bit integers; the caller refuses them.
            Arithmetic::Bf16 | Arithmetic::Int8 => {
                ([TILE_BF16; 4], [TILE_BF16.map(|pixels| 2 * pixels); 4], [Form::Pairs; 4])
            }
        };
        let mut maps = vec![input];
        let mut from = input;
        for (&channels, &stored) in architecture.channels.iter().zip(&stored) {
            from = Map::new(from.height / 2, from.width / 2, padded(channels, isa), stored);
            maps.push(from);
        }
        let mut layouts: Vec<Layout<'_, Layer>> = Vec::new();
        for c in architecture.convolutions() {
            let stage = c.stage - 1;
            let (tile, form, ends) = (tiles[stage], forms[stage], (maps[stage], maps[stage + 1]));
            layouts.push(Box::new(move || {
                setting.convolution(c, |p| match c.stride {
                    1 => {
                        Layer::Winograd(Winograd::new(isa, tile, form, p.weight, c.input, p.activation(isa)))
                    }
                    _ if HALVING[stage] => {
                        Layer::Winograd(Winograd::halving(isa, form, p.weight, c.input, p.activation(isa)))
                    }
                    stride => {
                        let weight = (p.weight, 3);
                        Layer::Dense(Dense::convolution(
                            isa,
                            weight,
                            c.input,
                            ends,
                            stride,
                            p.activation(isa),
                        ))
                    }
                })
            }));
        }
        layouts.push(Box::new(move || setting.fully_connected(from).map(Layer::Dense)));
        let mut layers = lay_out(threads, &layouts)?;
        let mut next = || match layers.pop() {
            Some(layer) => layer,
            None => unreachable!("a layer for every place in the network"),
        };
        let stages = (0..4).map(|stage| {
            let open = match next() {
                Layer::Dense(layer) => Opening::Dense(layer),
                Layer::Winograd(layer) => Opening::Winograd(Box::new(layer), maps[stage]),
            };
            let mut convolution = || match next() {
                Layer::Winograd(layer) => layer,
                Layer::Dense(_) => unreachable!("convolutions of stride 1 are Winograd convolutions"),
            };
            let units = (0..architecture.units[stage]).map(|_| [convolution(), convolution()]).collect();
            Stage { map: maps[stage + 1], open, units }
        });
        let stages = stages.collect();
        let fully_connected = match next() {
            Layer::Dense(layer) => layer,
            Layer::Winograd(_) => unreachable!("the last layer is fully connected"),
        };
        Ok(Self { stages, fully_connected })
    }

    /// Memory for one worker of `threads` threads.
    pub(super) fn memory(&self, threads: usize) -> VectorMemory {
        let mut tiles: Vec<Tiles> = (0..threads).map(|_| Tiles::default()).collect();
        for tiles in &mut tiles {
            tiles.grow(self.stages.iter().flat_map(Stage::winograd));
        }
        VectorMemory { maps: Vec::new(), tiles }
    }

    /// The first stage, and the beginning of the second, for some of the faces of a batch.
    pub(super) fn first_stage(
        &self,
        team: &mut Team,
        VectorMemory { maps, tiles }: &mut VectorMemory,
        faces: Range<usize>,
        input: &[f32],
    ) {
        let [first, second, ..] = &mut maps[..] else { unreachable!("four stages") };
        let stages = &self.stages;
        stages[0].open(team, tiles, faces.len(), input, &mut first[0]);
        stages[0].units(team, tiles, faces.len(), first);
        let place = faces.start * stages[1].map.len();
        stages[1].open(team, tiles, faces.len(), &first[0], &mut second[0][place..]);
    }

    /// What comes then, for all faces.
    pub(super) fn other_stages(
        &self,
        team: &mut Team,
        VectorMemory { maps, tiles }: &mut VectorMemory,
        faces: usize,
        features: &mut [f32],
    ) {
        let [_, second, third, fourth] = &mut maps[..] else { unreachable!("four stages") };
        let stages = &self.stages;
        stages[1].units(team, tiles, faces, second);
        stages[2].open(team, tiles, faces, &second[0], &mut third[0]);
        stages[2].units(team, tiles, faces, third);
        stages[3].open(team, tiles, faces, &third[0], &mut fourth[0]);
        stages[3].units(team, tiles, faces, fourth);
        self.fully_connected.apply(team, faces, &fourth[0], features);
    }
}

impl Stage {
    fn winograd(&self) -> impl Iterator<Item = &Winograd> {
        let open = match &self.open {
            Opening::Winograd(layer, _) => Some(&**layer),
            Opening::Dense(_) => None,
        };
        open.into_iter().chain(self.units.iter().flatten())
    }

    /// The first convolution, from the maps of the stage before.
    fn open(&self, team: &mut Team, tiles: &mut [Tiles], faces: usize, input: &[f32], output: &mut [f32]) {
        match &self.open {
            Opening::Dense(layer) => layer.apply(team, faces, input, output),
            Opening::Winograd(layer, from) => {
                layer.apply(team, tiles, faces, (*from, input), (self.map, output), false);
            }
        }
    }

    /// The residual units, in place on `maps[0]`.
    fn units(&self, team: &mut Team, tiles: &mut [Tiles], faces: usize, maps: &mut [Buffer; 2]) {
        let [outer, inner] = maps;
        for [first, second] in &self.units {
            first.apply(team, tiles, faces, (self.map, outer), (self.map, inner), false);
            second.apply(team, tiles, faces, (self.map, inner), (self.map, outer), true);
        }
    }
}

impl VectorMemory {
    /// Makes room for these numbers of faces, in the first stage and in the others.
    pub(super) fn grow(&mut self, layers: &Vectors, [first, others]: [usize; 2]) {
        self.maps.resize_with(layers.stages.len(), Default::default);
        for (s, (stage, maps)) in layers.stages.iter().zip(&mut self.maps).enumerate() {
            let faces = if s == 0 { first } else { others };
            maps.iter_mut().for_each(|map| map.grow(faces * stage.map.len()));
        }
    }
}
