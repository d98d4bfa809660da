//! A SphereFace network on the CPU kernels.

mod tiled;
mod vectors;

use std::borrow::Cow;

use super::{Architecture, EmbedError, Int8Scales};
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
#[cfg(feature = "candle")]
use crate::models::Tensor;
use crate::models::arch::{Convolution, LAST_BIAS, LAST_MAP, LAST_WEIGHT};
use crate::models::{Source, Weights, all_finite, all_finite_halves};
use crate::nn::conv::{Activation, Dense, Map, padded};
use crate::nn::team::Team;
use crate::nn::tiles::TileUnit;
use crate::nn::{Arithmetic, ArithmeticError, Buffer, Isa, simd};

pub(super) use tiled::takes_int8;
use tiled::{Tiled, TiledMemory};
use vectors::{VectorMemory, Vectors};

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
    layers: Layers,
}

/// The layers of a network for one kind of kernels.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one per network")]
enum Layers {
    Vectors(Vectors),
    Tiled(Tiled),
}

/// Memory of one worker, and the threads that share its work.
#[derive(Debug)]
pub struct Workspace {
    team: Team,
    input: Buffer,
    memory: Memory,
    features: Buffer,
}

/// Memory for the maps of [`Layers`].
#[derive(Debug)]
enum Memory {
    Vectors(VectorMemory),
    Tiled(TiledMemory),
}

/// The most faces that go through the network together: enough to share each load of the weights among many.
const MOST_FACES: usize = 16;

/// Pixels of a crop, row by row.
type Face = [f32; CROP_HEIGHT * CROP_WIDTH * 3];

/// Faces that go through the first stage together; its maps are large and its weights small.
const FIRST_STAGE_FACES: usize = 2;

impl Network {
    /// Checks `weights` and repacks them for `isa` and `arithmetic`, which works with every instruction set
    /// (see [`Arithmetic::check`]), on `threads` threads.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong. Refuses an instruction set that this
    /// machine does not have, and 8-bit integers without `scales` or a unit for tiles.
    pub fn new(
        architecture: &Architecture,
        weights: &dyn Source,
        isa: Isa,
        arithmetic: Arithmetic,
        scales: Option<&Int8Scales>,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        let isa = Isa::from_name(&isa.to_string())?;
        let unit = match arithmetic {
            Arithmetic::F32 => None,
            Arithmetic::Bf16 | Arithmetic::Int8 => TileUnit::of_this_machine(isa),
        };
        let scales = match arithmetic {
            Arithmetic::Int8 => Some(scales.ok_or(EmbedError::NoInt8Scales)?),
            _ => None,
        };
        match unit {
            Some(unit) => Self::on_tiles(architecture, weights, (isa, unit), scales, threads),
            None if arithmetic == Arithmetic::Int8 => Err(EmbedError::Arithmetic(ArithmeticError::NoTiles)),
            None => Self::with(architecture, weights, isa, |input, setting| {
                Vectors::new(input, setting, arithmetic, threads).map(Layers::Vectors)
            }),
        }
    }

    /// The same by products of tiles: in 8-bit integers with `scales`, else in bfloat16.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for the instruction set.
    pub(super) fn on_tiles(
        architecture: &Architecture,
        weights: &dyn Source,
        (isa, unit): (Isa, TileUnit),
        scales: Option<&Int8Scales>,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        Self::with(architecture, weights, isa, |input, setting| {
            Tiled::new(input, setting, unit, scales, threads).map(Layers::Tiled)
        })
    }

    fn with(
        architecture: &Architecture,
        weights: &dyn Source,
        isa: Isa,
        lay_out: impl FnOnce(Map, Setting<'_>) -> Result<Layers, EmbedError>,
    ) -> Result<Self, EmbedError> {
        architecture.check_shapes(weights)?;
        let input = Map::new(CROP_HEIGHT, CROP_WIDTH, 3, [1; 2]);
        let layers = lay_out(input, Setting { architecture, weights, isa })?;
        Ok(Self { architecture: *architecture, input, layers })
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Memory for one worker, and `threads` threads (the calling one included) for its work.
    pub fn workspace(&self, threads: usize) -> Workspace {
        let team = Team::new(threads);
        let memory = match &self.layers {
            Layers::Vectors(layers) => Memory::Vectors(layers.memory(team.threads())),
            Layers::Tiled(_) => Memory::Tiled(TiledMemory::new(team.threads())),
        };
        Workspace { team, input: Buffer::default(), memory, features: Buffer::default() }
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

    fn forward_batch(&self, faces: &[Face], workspace: &mut Workspace) -> Vec<Vec<f32>> {
        workspace.grow(self, faces.len());
        let Workspace { team, input, memory, features } = workspace;
        match (&self.layers, memory) {
            (Layers::Vectors(layers), Memory::Vectors(memory)) => {
                for (group, some) in faces.chunks(FIRST_STAGE_FACES).enumerate() {
                    for (face, to) in some.iter().zip(input.chunks_exact_mut(self.input.len())) {
                        self.input.fill(face, to);
                    }
                    let first = group * FIRST_STAGE_FACES;
                    layers.first_stage(team, memory, first..first + some.len(), input);
                }
                layers.other_stages(team, memory, faces.len(), features);
            }
            (Layers::Tiled(layers), Memory::Tiled(memory)) => layers.forward(team, memory, faces, features),
            _ => unreachable!("memory is of the network that it was taken from"),
        }
        let size = self.architecture.embedding;
        features
            .chunks_exact(self.fully_connected().output_len())
            .take(faces.len())
            .map(|feature| feature[..size].to_vec())
            .collect()
    }

    fn fully_connected(&self) -> &Dense {
        match &self.layers {
            Layers::Vectors(layers) => &layers.fully_connected,
            Layers::Tiled(layers) => &layers.fully_connected,
        }
    }
}

impl Workspace {
    /// Makes room for `faces` faces. Borders are zero from the start and stay so, since no
    /// layer writes them.
    fn grow(&mut self, network: &Network, faces: usize) {
        let first = faces.min(FIRST_STAGE_FACES);
        match (&network.layers, &mut self.memory) {
            (Layers::Vectors(layers), Memory::Vectors(memory)) => {
                self.input.grow(first * network.input.len());
                memory.grow(layers, [first, faces]);
            }
            (Layers::Tiled(layers), Memory::Tiled(memory)) => memory.grow(layers, faces),
            _ => unreachable!("memory is of the network that it was taken from"),
        }
        self.features.grow(faces * network.fully_connected().output_len());
    }
}

/// Weights, and what they are laid out for.
#[derive(Clone, Copy)]
struct Setting<'a> {
    architecture: &'a Architecture,
    weights: &'a dyn Source,
    isa: Isa,
}

/// Weights [out, in, 3, 3], biases and slopes of a convolution.
struct Parameters<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    slopes: &'a [f32],
}

/// Packs a layer.
type Layout<'a, L> = Box<dyn Fn() -> Result<L, EmbedError> + Sync + 'a>;

impl<'a> Setting<'a> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, EmbedError> {
        self.architecture.values(self.weights, name, shape)
    }

    /// Packs a convolution.
    fn convolution<L>(&self, c: Convolution, lay_out: impl Fn(Parameters<'_>) -> L) -> Result<L, EmbedError> {
        let bias = self.values(&c.bias(), &[c.output])?;
        let slopes = self.values(&c.slopes(), &[c.output])?;
        let weight = self.values(&c.weight(), &[c.output, c.input, 3, 3])?;
        Ok(lay_out(Parameters { weight: &weight, bias: &bias, slopes: &slopes }))
    }

    /// Packs the last layer, for the maps `input`.
    fn fully_connected(&self, input: Map) -> Result<Dense, EmbedError> {
        debug_assert_eq!((input.height, input.width), LAST_MAP);
        let (name, architecture, isa) = (LAST_WEIGHT, self.architecture, self.isa);
        let channels = architecture.channels[3];
        let bias = self.values(LAST_BIAS, &[architecture.embedding])?;
        let activation = Activation::new(&bias, None, padded(architecture.embedding, isa));
        let halves = self.weights.halves(name).filter(|_| simd::reads_halves(isa));
        Ok(match halves {
            Some(halves) if !all_finite_halves(halves) => return Err(EmbedError::NotFinite(name.into())),
            Some(halves) => Dense::fully_connected_halves(isa, halves, channels, input, activation),
            None => {
                let weight = self.values(name, &[architecture.embedding, architecture.flattened()])?;
                Dense::fully_connected(isa, &weight, channels, input, activation)
            }
        })
    }
}

impl Parameters<'_> {
    fn activation(&self, isa: Isa) -> Activation {
        Activation::new(self.bias, Some(self.slopes), padded(self.bias.len(), isa))
    }
}

/// Packs all layers on `threads` threads. The first layer is the last of the list.
fn lay_out<L: Send>(threads: usize, layouts: &[Layout<'_, L>]) -> Result<Vec<L>, EmbedError> {
    // The last are the largest: a thread that begins with them ends together with the others.
    let last = layouts.len() - 1;
    Team::new(threads).map(layouts.len(), |item| layouts[last - item]()).into_iter().collect()
}
