//! A SphereFace network on the CPU kernels.

use std::borrow::Cow;

use super::{Architecture, EmbedError};
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
#[cfg(feature = "candle")]
use crate::models::Tensor;
use crate::models::arch::{LAST_BIAS, LAST_MAP, LAST_WEIGHT};
use crate::models::{Source, Weights, all_finite, all_finite_halves};
use crate::nn::conv::{Activation, Dense, Form, Map, Tiles, Winograd, padded};
use crate::nn::team::Team;
use crate::nn::{Arithmetic, Buffer, Isa, simd};

impl Architecture {
    /// A tensor of the network.
    #[cfg(feature = "candle")]
    pub(super) fn tensor<'w>(&self, weights: &'w Weights, name: &str) -> Result<&'w Tensor, EmbedError> {
        weights
            .tensors
            .get(name)
            .ok_or_else(|| EmbedError::MissingTensor { name: name.into(), architecture: self.to_string() })
    }

    /// Whether `weights` hold every tensor of the network in its shape, with finite values.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub fn check(&self, weights: &Weights) -> Result<(), EmbedError> {
        self.check_shapes(weights)?;
        self.tensors().iter().try_for_each(|(name, shape)| self.values(weights, name, shape).map(drop))
    }

    /// Whether there is every tensor of the network, in its shape.
    pub(super) fn check_shapes(&self, weights: &dyn Source) -> Result<(), EmbedError> {
        if self.channels.contains(&0) || self.embedding == 0 {
            return Err(EmbedError::Empty(self.to_string()));
        }
        for (name, expected) in self.tensors() {
            match weights.shape(&name) {
                Some(found) if found == expected => {}
                Some(found) => return Err(self.misshapen(&name, found, &expected)),
                None => return Err(EmbedError::MissingTensor { name, architecture: self.to_string() }),
            }
        }
        Ok(())
    }

    /// The values of a tensor, as many as its shape says and all of them finite.
    fn values<'w>(
        &self,
        weights: &'w dyn Source,
        name: &str,
        shape: &[usize],
    ) -> Result<Cow<'w, [f32]>, EmbedError> {
        let missing = || EmbedError::MissingTensor { name: name.into(), architecture: self.to_string() };
        let values = weights.values(name).ok_or_else(missing)?;
        if values.len() != shape.iter().product::<usize>() {
            return Err(self.misshapen(name, &[values.len()], shape));
        }
        match all_finite(&values) {
            true => Ok(values),
            false => Err(EmbedError::NotFinite(name.into())),
        }
    }

    fn misshapen(&self, name: &str, found: &[usize], expected: &[usize]) -> EmbedError {
        EmbedError::Shape {
            name: name.into(),
            found: found.to_vec(),
            expected: expected.to_vec(),
            architecture: self.to_string(),
        }
    }
}

/// A SphereFace network, its weights repacked for the kernels of one instruction set.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    input: Map,
    stages: Vec<Stage>,
    fully_connected: Dense,
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

/// A layer, once it is packed.
enum Layer {
    Dense(Dense),
    Winograd(Winograd),
}

/// Packs one.
type Layout<'a> = Box<dyn Fn() -> Result<Layer, EmbedError> + Sync + 'a>;

/// Memory of one worker, and the threads that share its work.
#[derive(Debug)]
pub struct Workspace {
    team: Team,
    input: Buffer,
    /// For every stage its maps, and those between the two convolutions of a unit.
    maps: Vec<[Buffer; 2]>,
    features: Buffer,
    tiles: Vec<Tiles>,
}

/// The most faces that go through the network together: enough to share each load of the weights among many.
const MOST_FACES: usize = 16;

/// Faces that go through the first stage together; its maps are large and its weights small.
const FIRST_STAGE_FACES: usize = 2;

/// Rows and columns of the Winograd tiles of each stage, whose maps have 56 x 48, 28 x 24, 14 x 12 and 7 x 6
/// pixels. Tiles of 5 x 6 in the third stage would save 11 % of the products there, but need a third more
/// weights, and reading the weights bounds a single face.
const TILES: [[usize; 2]; 4] = [[4, 6], [4, 6], [5, 4], [4, 3]];

/// The storage format of the weights of each stage's Winograd convolutions. Reading those of the last two
/// stages bounds a single face.
const FORMS: [Form; 4] = [Form::Full, Form::Full, Form::Packed, Form::Packed];

/// Which stages begin with a Winograd convolution. The first has too few inputs for it.
const HALVING: [bool; 4] = [false, true, true, true];

/// Every Winograd tile in bfloat16: larger ones need more than its 8 bits.
const TILE_BF16: [usize; 2] = [2, 2];

impl Network {
    /// Checks `weights` and repacks them for `isa` and `arithmetic`, which works with every instruction set
    /// (see [`Arithmetic::check`]), on `threads` threads.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong. Refuses an instruction set that this
    /// machine does not have.
    pub fn new(
        architecture: &Architecture,
        weights: &dyn Source,
        isa: Isa,
        arithmetic: Arithmetic,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        let isa = Isa::from_name(&isa.to_string())?;
        architecture.check_shapes(weights)?;
        let values = |name: &str, shape: &[usize]| architecture.values(weights, name, shape);
        // The last tile of a convolution onto half of 14 rows reaches three rows further than they do.
        let (tiles, stored, forms) = match arithmetic {
            Arithmetic::F32 => (TILES, TILES, FORMS),
            Arithmetic::Bf16 => ([TILE_BF16; 4], [TILE_BF16.map(|pixels| 2 * pixels); 4], [Form::Pairs; 4]),
        };
        let input = Map::new(CROP_HEIGHT, CROP_WIDTH, 3, [1; 2]);
        let mut maps = vec![input];
        let mut from = input;
        for (&channels, &stored) in architecture.channels.iter().zip(&stored) {
            from = Map::new(from.height / 2, from.width / 2, padded(channels, isa), stored);
            maps.push(from);
        }
        debug_assert_eq!((from.height, from.width), LAST_MAP);
        let mut layouts: Vec<Layout<'_>> = Vec::new();
        for c in architecture.convolutions() {
            let stage = c.stage - 1;
            let layer = move |lay_out: &dyn Fn(&[f32], Activation) -> Layer| {
                let bias = values(&c.bias(), &[c.output])?;
                let slopes = values(&c.slopes(), &[c.output])?;
                let weight = values(&c.weight(), &[c.output, c.input, 3, 3])?;
                Ok(lay_out(&weight, Activation::new(&bias, Some(&slopes), padded(c.output, isa))))
            };
            let (tile, form, ends) = (tiles[stage], forms[stage], (maps[stage], maps[stage + 1]));
            layouts.push(match c.stride {
                1 => Box::new(move || {
                    layer(&|weight, activation| {
                        Layer::Winograd(Winograd::new(isa, tile, form, weight, c.input, activation))
                    })
                }),
                _ if HALVING[stage] => Box::new(move || {
                    layer(&|weight, activation| {
                        Layer::Winograd(Winograd::halving(isa, form, weight, c.input, activation))
                    })
                }),
                stride => Box::new(move || {
                    layer(&|weight, activation| {
                        let weight = (weight, 3);
                        Layer::Dense(Dense::convolution(isa, weight, c.input, ends, stride, activation))
                    })
                }),
            });
        }
        layouts.push(Box::new(move || {
            let (name, channels) = (LAST_WEIGHT, architecture.channels[3]);
            let bias = values(LAST_BIAS, &[architecture.embedding])?;
            let activation = Activation::new(&bias, None, padded(architecture.embedding, isa));
            let halves = weights.halves(name).filter(|_| simd::reads_halves(isa));
            Ok(Layer::Dense(match halves {
                Some(halves) if !all_finite_halves(halves) => return Err(EmbedError::NotFinite(name.into())),
                Some(halves) => Dense::fully_connected_halves(isa, halves, channels, from, activation),
                None => {
                    let weight = values(name, &[architecture.embedding, architecture.flattened()])?;
                    Dense::fully_connected(isa, &weight, channels, from, activation)
                }
            }))
        }));
        // The last layers are the largest. Starting with them balances the threads.
        let last = layouts.len() - 1;
        let layers = Team::new(threads).map(layouts.len(), |item| layouts[last - item]());
        let mut layers = layers.into_iter().collect::<Result<Vec<Layer>, EmbedError>>()?;
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
                Layer::Dense(_) => unreachable!("convolutions of stride 1 go by Winograd's way"),
            };
            let units = (0..architecture.units[stage]).map(|_| [convolution(), convolution()]).collect();
            Stage { map: maps[stage + 1], open, units }
        });
        let stages = stages.collect();
        let fully_connected = match next() {
            Layer::Dense(layer) => layer,
            Layer::Winograd(_) => unreachable!("the last layer is fully connected"),
        };
        Ok(Self { architecture: *architecture, input, stages, fully_connected })
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Memory for one worker, and `threads` threads (the calling one included) for its work.
    pub fn workspace(&self, threads: usize) -> Workspace {
        let team = Team::new(threads);
        let mut tiles: Vec<Tiles> = (0..team.threads()).map(|_| Tiles::default()).collect();
        for tiles in &mut tiles {
            tiles.grow(self.stages.iter().flat_map(Stage::winograd));
        }
        Workspace { team, input: Buffer::default(), maps: Vec::new(), features: Buffer::default(), tiles }
    }

    /// Features of some faces, `pixels` [faces, 112, 96, 3].
    ///
    /// # Panics
    /// When `pixels` does not hold whole faces.
    pub fn forward(&self, pixels: &[f32], workspace: &mut Workspace) -> Vec<Vec<f32>> {
        let faces = pixels.as_chunks::<{ CROP_HEIGHT * CROP_WIDTH * 3 }>();
        assert!(faces.1.is_empty(), "{} numbers are not whole faces", pixels.len());
        faces.0.chunks(MOST_FACES).flat_map(|faces| self.forward_batch(faces, workspace)).collect()
    }

    fn forward_batch(
        &self,
        faces: &[[f32; CROP_HEIGHT * CROP_WIDTH * 3]],
        workspace: &mut Workspace,
    ) -> Vec<Vec<f32>> {
        workspace.grow(self, faces.len());
        let Workspace { team, input, maps, features, tiles } = workspace;
        let [first, second, third, fourth] = &mut maps[..] else { unreachable!("four stages") };
        let stages = &self.stages;
        for (group, faces) in faces.chunks(FIRST_STAGE_FACES).enumerate() {
            for (face, to) in faces.iter().zip(input.chunks_exact_mut(self.input.len())) {
                for (y, row) in face.chunks_exact(3 * CROP_WIDTH).enumerate() {
                    to[self.input.at(y, 0)..][..row.len()].copy_from_slice(row);
                }
            }
            stages[0].open(team, tiles, faces.len(), input, &mut first[0]);
            stages[0].units(team, tiles, faces.len(), first);
            let place = group * FIRST_STAGE_FACES * stages[1].map.len();
            stages[1].open(team, tiles, faces.len(), &first[0], &mut second[0][place..]);
        }
        stages[1].units(team, tiles, faces.len(), second);
        stages[2].open(team, tiles, faces.len(), &second[0], &mut third[0]);
        stages[2].units(team, tiles, faces.len(), third);
        stages[3].open(team, tiles, faces.len(), &third[0], &mut fourth[0]);
        stages[3].units(team, tiles, faces.len(), fourth);
        self.fully_connected.apply(team, faces.len(), &fourth[0], features);
        let size = self.architecture.embedding;
        features
            .chunks_exact(self.fully_connected.output_len())
            .take(faces.len())
            .map(|feature| feature[..size].to_vec())
            .collect()
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

impl Workspace {
    /// Makes room for `faces` faces. Borders are zero from the start and stay so, since no
    /// layer writes them.
    fn grow(&mut self, network: &Network, faces: usize) {
        let first = faces.min(FIRST_STAGE_FACES);
        self.input.grow(first * network.input.len());
        self.maps.resize_with(network.stages.len(), Default::default);
        for (s, (stage, maps)) in network.stages.iter().zip(&mut self.maps).enumerate() {
            let faces = if s == 0 { first } else { faces };
            maps.iter_mut().for_each(|map| map.grow(faces * stage.map.len()));
        }
        self.features.grow(faces * network.fully_connected.output_len());
    }
}
