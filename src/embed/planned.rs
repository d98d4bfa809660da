//! A network that is stored as a plan, on the CPU kernels.
//!
//! Every value of the plan gets a layout that all its consumers can read, and memory that it shares with
//! values of the same layout that are no longer needed. The first layers, with large maps, process a few
//! faces at a time, so that the maps stay in a cache. The last layers, with many weights, process all faces
//! together.

use std::borrow::Cow;

use super::EmbedError;
use super::plain::Plain;
use crate::align::{CROP_HEIGHT, CROP_WIDTH, Crop, SQUARE};
use crate::models::plan::{COLOURS, INPUT, Operation, Plan, Shape, Step, tensor_name};
use crate::models::{Source, all_finite};
use crate::nn::conv::{Activation, Dense, Depthwise, Elements, Form, Map, Tiles, Winograd, padded};
use crate::nn::team::Team;
use crate::nn::{Buffer, Isa};

/// Most faces that go through a layer together.
const MOST_FACES: usize = 16;

/// The most values that the input and output maps of a layer may have, for all faces that are processed
/// together.
const NUMBERS_TOGETHER: usize = 1 << 18;

/// The fewest input channels for which a 3x3 convolution is computed as a Winograd convolution.
const LEAST_WINOGRAD: usize = 16;

/// Tiles of Winograd convolutions. The one that covers a map with the fewest products is chosen.
const TILES: [[usize; 2]; 5] = [[4, 6], [5, 4], [4, 4], [4, 3], [3, 3]];

/// A network packed for the kernels of one instruction set.
#[derive(Debug)]
pub(super) struct PlannedNetwork {
    layers: Vec<Layer>,
    /// The location of each value in memory.
    values: Vec<ValueLocation>,
    /// For each part of memory, the numbers per face, and the number of faces.
    slots: Vec<[usize; 2]>,
    /// The number of faces that each level processes together, the first level first.
    levels: Vec<usize>,
    /// The network's input for each value of each colour.
    pixels: Box<[[f32; 256]; COLOURS]>,
    columns: usize,
    embedding: usize,
}

/// The location of a value in memory.
#[derive(Debug, Clone, Copy)]
struct ValueLocation {
    map: Map,
    slot: usize,
    /// The level whose faces it is kept for.
    level: usize,
}

/// One step, ready to be computed.
#[derive(Debug)]
struct Layer {
    work: Work,
    of: Vec<usize>,
    to: usize,
    level: usize,
    /// Whether the previous contents of the output are added.
    residual: bool,
}

/// The layer that computes it.
#[derive(Debug)]
enum Work {
    Dense(Dense),
    Winograd(Box<Winograd>),
    Depthwise(Depthwise),
    Elements(Elements),
    Plain(Plain),
}

impl Layer {
    fn winograd(&self) -> Option<&Winograd> {
        match &self.work {
            Work::Winograd(layer) => Some(layer),
            _ => None,
        }
    }
}

/// Memory of one worker, and the threads that share its work.
#[derive(Debug)]
pub(super) struct PlannedWorkspace {
    team: Team,
    slots: Vec<Buffer>,
    tiles: Vec<Tiles>,
}

/// Whether `weights` hold every tensor of the plan in its shape, with finite values.
///
/// # Errors
/// Names the first tensor that is missing or wrong.
pub(super) fn check(plan: &Plan, weights: &dyn Source) -> Result<(), EmbedError> {
    check_shapes(plan, weights)?;
    plan.tensors().iter().try_for_each(|(name, _)| values(weights, name).map(drop))
}

/// Whether there is every tensor of the plan, in its shape.
pub(super) fn check_shapes(plan: &Plan, weights: &dyn Source) -> Result<(), EmbedError> {
    plan.shapes()?;
    plan.tensors().iter().try_for_each(|(name, shape)| match weights.shape(name) {
        Some(found) if found == shape => Ok(()),
        Some(found) => Err(EmbedError::Shape {
            name: name.clone(),
            found: found.to_vec(),
            expected: shape.clone(),
            architecture: plan.to_string(),
        }),
        None => Err(EmbedError::MissingTensor { name: name.clone(), architecture: plan.to_string() }),
    })
}

/// The values of a tensor, all of them finite.
fn values<'w>(weights: &'w dyn Source, name: &str) -> Result<Cow<'w, [f32]>, EmbedError> {
    let missing = || EmbedError::MissingTensor { name: name.into(), architecture: "the plan".into() };
    let values = weights.values(name).ok_or_else(missing)?;
    match all_finite(&values) {
        true => Ok(values),
        false => Err(EmbedError::NotFinite(name.into())),
    }
}

/// The decisions about the steps that need no weights.
struct Layout<'p> {
    plan: &'p Plan,
    isa: Isa,
    shapes: Vec<Shape>,
    /// The last step that takes each value; for the output, a number after all steps.
    last_use: Vec<usize>,
    /// For a step whose result is added to a value: that value. The step of the sum is then left out.
    onto: Vec<Option<usize>>,
    /// For each value, the one whose memory it uses.
    root: Vec<usize>,
    winograd: Vec<Option<[usize; 2]>>,
}

impl<'p> Layout<'p> {
    fn new(plan: &'p Plan, isa: Isa) -> Result<Self, EmbedError> {
        let shapes = plan.shapes()?;
        let mut last_use: Vec<usize> = (0..shapes.len()).collect();
        for (number, step) in plan.steps.iter().enumerate() {
            step.of.iter().for_each(|&value| last_use[value] = number);
        }
        last_use[plan.steps.len()] = plan.steps.len();
        let root = (0..shapes.len()).collect();
        let (onto, winograd) = (vec![None; plan.steps.len()], vec![None; plan.steps.len()]);
        let mut layout = Self { plan, isa, shapes, last_use, onto, root, winograd };
        (0..plan.steps.len()).for_each(|number| layout.choose_winograd(number));
        (0..plan.steps.len()).for_each(|number| layout.choose_onto(number));
        Ok(layout)
    }

    /// 3x3 convolutions with enough channels become Winograd convolutions, unless another consumer of the
    /// input needs a wider border than they support.
    fn choose_winograd(&mut self, number: usize) {
        let step = &self.plan.steps[number];
        let Operation::Convolution { window, .. } = step.operation else { return };
        let from = self.shapes[step.of[0]];
        if (window.kernel, window.padding) != ([3; 2], [1; 4]) || from.channels < LEAST_WINOGRAD {
            return;
        }
        let even = from.rows.is_multiple_of(2) && from.columns.is_multiple_of(2);
        self.winograd[number] = match window.stride {
            [1, 1] => {
                // A tile costs as many products as it has points.
                let cost = |tile: &[usize; 2]| {
                    let [down, across] = [from.rows.div_ceil(tile[0]), from.columns.div_ceil(tile[1])];
                    down * across * (tile[0] + 2) * (tile[1] + 2)
                };
                TILES.into_iter().min_by_key(cost)
            }
            // Two outputs along each side, from five inputs.
            [2, 2] if even => Some([2, 2]),
            _ => None,
        };
    }

    /// Whether a sum can be computed by the convolution before it, which adds its result to the other
    /// summand. That requires that no later step needs the other summand or the result of the convolution.
    fn choose_onto(&mut self, number: usize) {
        let step = &self.plan.steps[number];
        if step.operation != Operation::Add || step.prelu || step.of[0] == step.of[1] {
            return;
        }
        let convolves = |made: usize| {
            matches!(self.plan.steps[made].operation, Operation::Convolution { .. })
                && self.onto[made].is_none()
        };
        for [value, other] in [[step.of[1], step.of[0]], [step.of[0], step.of[1]]] {
            let Some(made) = value.checked_sub(1).filter(|&made| convolves(made)) else { continue };
            let takers = self.plan.steps.iter().filter(|step| step.of.contains(&value)).count();
            let between = self.plan.steps[made..number].iter().any(|step| step.of.contains(&other));
            if takers == 1 && other <= made && other != 0 && self.last_use[other] == number && !between {
                self.onto[made] = Some(other);
                self.root[number + 1] = self.root[other];
                self.root[value] = self.root[other];
                return;
            }
        }
    }

    /// Whether a step is computed by another one.
    fn is_left_out(&self, number: usize) -> bool {
        self.plan.steps[number].operation == Operation::Add
            && self.plan.steps[number].of.iter().any(|&value| {
                value > 0 && self.onto[value - 1].is_some() && self.root[value] == self.root[number + 1]
            })
    }

    /// The layout of every value, with the border, rows and columns that its consumers need.
    fn maps(&mut self) -> Vec<Map> {
        let count = self.shapes.len();
        let mut borders = vec![0; count];
        // The input has three channels only for steps that take unpadded channels.
        let mut whole = vec![true; count];
        whole[0] = false;
        for step in &self.plan.steps {
            for value in step.of.iter().map(|&value| self.root[value]) {
                match &step.operation {
                    Operation::Convolution { window, .. } | Operation::Depthwise { window } => {
                        borders[value] = window.padding.into_iter().fold(borders[value], usize::max);
                    }
                    _ => {}
                }
                whole[value] |=
                    !matches!(step.operation, Operation::Convolution { .. } | Operation::Linear { .. });
            }
        }
        let mut sizes = vec![[0; 2]; count];
        for (number, step) in self.plan.steps.iter().enumerate() {
            let value = self.root[step.of[0]];
            let Some(tile) = self.winograd[number] else { continue };
            if borders[value] != 1 {
                self.winograd[number] = None;
                continue;
            }
            let (from, to) = (self.shapes[step.of[0]], self.shapes[number + 1]);
            let reach = |outputs: usize, tile: usize| match from.rows == to.rows {
                true => outputs.next_multiple_of(tile) + 2,
                false => 2 * outputs.next_multiple_of(tile) + 1,
            };
            let reach = [reach(to.rows, tile[0]), reach(to.columns, tile[1])];
            sizes[value] = [0, 1].map(|axis| reach[axis].max(sizes[value][axis]));
        }
        let map = |value: usize| {
            let Shape { channels, rows, columns } = self.shapes[value];
            let root = self.root[value];
            let channels = if whole[value] { padded(channels, self.isa) } else { channels };
            Map::bordered([rows, columns], channels, borders[root], sizes[root])
        };
        (0..count).map(map).collect()
    }

    /// The number of faces that each step processes together: as many as fit, and no fewer than the step
    /// before.
    fn together(&self, maps: &[Map]) -> Vec<usize> {
        let fit = |(number, step): (usize, &Step)| {
            let numbers = maps[step.of[0]].len() + maps[number + 1].len();
            let fit = (NUMBERS_TOGETHER / numbers).clamp(1, MOST_FACES);
            1 << fit.ilog2()
        };
        let mut together: Vec<usize> = self.plan.steps.iter().enumerate().map(fit).collect();
        let mut least = MOST_FACES;
        for faces in together.iter_mut().rev() {
            least = least.min(*faces);
            *faces = least;
        }
        if let Some(last) = together.last_mut() {
            *last = MOST_FACES;
        }
        together
    }

    /// The location of every value, and the parts of memory.
    fn places(
        &self,
        maps: &[Map],
        level_of: &[usize],
        levels: &[usize],
    ) -> (Vec<ValueLocation>, Vec<[usize; 2]>) {
        let (count, top) = (maps.len(), levels.len() - 1);
        // The levels that make or take a value, and the last step that does.
        let mut ends = vec![[usize::MAX, 0, 0]; count];
        let touch = |ends: &mut Vec<[usize; 3]>, value: usize, number: usize, level: usize| {
            let [low, high, last] = &mut ends[self.root[value]];
            (*low, *high, *last) = (level.min(*low), level.max(*high), number.max(*last));
        };
        for (number, step) in self.plan.steps.iter().enumerate() {
            let level = level_of[number];
            step.of.iter().chain([&(number + 1)]).for_each(|&value| touch(&mut ends, value, number, level));
        }
        touch(&mut ends, 0, 0, 0);
        touch(&mut ends, count - 1, count, top);
        let mut slots: Vec<[usize; 2]> = Vec::new();
        let mut free: Vec<(Map, usize, usize)> = Vec::new();
        let mut places: Vec<ValueLocation> = Vec::new();
        for value in 0..count {
            let [low, high, _] = ends[value];
            let found =
                free.iter().position(|&(map, level, _)| (map, level) == (maps[value], high) && low == high);
            let slot = match found {
                _ if self.root[value] != value => places[self.root[value]].slot,
                Some(found) => free.swap_remove(found).2,
                None => {
                    slots.push([maps[value].len(), levels[high]]);
                    slots.len() - 1
                }
            };
            let [_, level, _] = ends[self.root[value]];
            places.push(ValueLocation { map: maps[value], slot, level });
            // Memory whose last use was the step that makes this value is free for the next one.
            for done in 0..=value {
                let [low, high, last] = ends[done];
                if self.root[done] == done && low == high && value > 0 && last == value - 1 {
                    free.push((maps[done], high, places[done].slot));
                }
            }
        }
        (places, slots)
    }
}

impl PlannedNetwork {
    /// Checks `weights` and repacks them for `isa`, on `threads` threads.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub(super) fn new(
        plan: &Plan,
        weights: &dyn Source,
        isa: Isa,
        threads: usize,
    ) -> Result<Self, EmbedError> {
        check_shapes(plan, weights)?;
        let mut layout = Layout::new(plan, isa)?;
        let maps = layout.maps();
        let together = layout.together(&maps);
        let mut levels = together.clone();
        levels.dedup();
        let level_of: Vec<usize> =
            together.iter().map(|faces| levels.partition_point(|level| level < faces)).collect();
        let (places, slots) = layout.places(&maps, &level_of, &levels);
        let numbers: Vec<usize> =
            (0..plan.steps.len()).filter(|&number| !layout.is_left_out(number)).collect();
        let works = Team::new(threads).map(numbers.len(), |item| layout.work(numbers[item], &maps, weights));
        let mut layers = Vec::new();
        for (&number, work) in numbers.iter().zip(works) {
            layers.push(Layer {
                work: work?,
                of: plan.steps[number].of.clone(),
                to: number + 1,
                level: level_of[number],
                residual: layout.onto[number].is_some(),
            });
        }
        let [scale, shift] = INPUT.map(|name| values(weights, name));
        let (scale, shift) = (scale?, shift?);
        let pixel =
            |colour: usize, x: usize| (x as f64 * f64::from(scale[colour]) + f64::from(shift[colour])) as f32;
        let pixels = Box::new(std::array::from_fn(|colour| std::array::from_fn(|x| pixel(colour, x))));
        let embedding = plan.embedding();
        Ok(Self { layers, values: places, slots, levels, pixels, columns: plan.input[1], embedding })
    }

    /// Memory and `threads` for one worker.
    pub(super) fn workspace(&self, threads: usize) -> PlannedWorkspace {
        let team = Team::new(threads);
        let mut tiles: Vec<Tiles> = (0..team.threads()).map(|_| Tiles::default()).collect();
        for tiles in &mut tiles {
            tiles.grow(self.layers.iter().filter_map(Layer::winograd));
        }
        let slots = self.slots.iter().map(|_| Buffer::default()).collect();
        PlannedWorkspace { team, slots, tiles }
    }

    /// Features of some faces.
    pub(super) fn forward(&self, crops: &[Crop], workspace: &mut PlannedWorkspace) -> Vec<Vec<f32>> {
        let mut features = Vec::with_capacity(crops.len());
        for crops in crops.chunks(MOST_FACES) {
            for (slot, &[numbers, faces]) in workspace.slots.iter_mut().zip(&self.slots) {
                slot.grow(numbers * faces.min(crops.len()));
            }
            let top = self.levels.len() - 1;
            let mut starts = vec![0; self.levels.len()];
            self.run(top, crops, [0, crops.len()], &mut starts, workspace);
            let last = self.values[self.values.len() - 1];
            let (output, at) = (&workspace.slots[last.slot], last.map.at(0, 0));
            let feature = |face: usize| output[face * last.map.len() + at..][..self.embedding].to_vec();
            features.extend((0..crops.len()).map(feature));
        }
        features
    }

    /// Computes all levels up to `level` for `faces` (the first, and their number). `starts` holds the first
    /// face of each level's current group.
    fn run(
        &self,
        level: usize,
        crops: &[Crop],
        [first, count]: [usize; 2],
        starts: &mut [usize],
        workspace: &mut PlannedWorkspace,
    ) {
        starts[level] = first;
        match level.checked_sub(1) {
            Some(below) => {
                for start in (first..first + count).step_by(self.levels[below]) {
                    let count = self.levels[below].min(first + count - start);
                    self.run(below, crops, [start, count], starts, workspace);
                }
            }
            None => self.fill(&crops[first..first + count], first - starts[self.values[0].level], workspace),
        }
        for layer in self.layers.iter().filter(|layer| layer.level == level) {
            self.apply(layer, [first, count], starts, workspace);
        }
    }

    /// Brings pixels to the range of the network.
    fn fill(&self, crops: &[Crop], first: usize, workspace: &mut PlannedWorkspace) {
        let ValueLocation { map, slot, .. } = self.values[0];
        for (face, crop) in crops.iter().enumerate() {
            let to = &mut workspace.slots[slot][(first + face) * map.len()..][..map.len()];
            let square = if self.columns == SQUARE { crop.to_square() } else { Vec::new() };
            let rgb = if self.columns == SQUARE { &square } else { crop.as_rgb() };
            debug_assert_eq!(rgb.len(), COLOURS * self.columns * CROP_HEIGHT);
            debug_assert!(matches!(self.columns, CROP_WIDTH | SQUARE));
            for (y, row) in rgb.chunks_exact(COLOURS * self.columns).enumerate() {
                let to = to[map.at(y, 0)..].chunks_exact_mut(map.channels);
                for (pixel, to) in row.as_chunks::<COLOURS>().0.iter().zip(to) {
                    for ((to, table), &value) in to.iter_mut().zip(self.pixels.iter()).zip(pixel) {
                        *to = table[usize::from(value)];
                    }
                }
            }
        }
    }

    fn apply(
        &self,
        layer: &Layer,
        [first, count]: [usize; 2],
        starts: &[usize],
        workspace: &mut PlannedWorkspace,
    ) {
        let PlannedWorkspace { team, slots, tiles } = workspace;
        let to = self.values[layer.to];
        // No other step reads the buffer that is being written.
        let mut buffer = std::mem::take(&mut slots[to.slot]);
        let inputs: Vec<(Map, &[f32])> = layer
            .of
            .iter()
            .map(|&value| {
                let ValueLocation { map, slot, level } = self.values[value];
                (map, &slots[slot][(first - starts[level]) * map.len()..])
            })
            .collect();
        let output = &mut buffer[(first - starts[to.level]) * to.map.len()..];
        let (map, input) = inputs[0];
        match &layer.work {
            Work::Dense(dense) => dense.apply_onto(team, count, input, output, layer.residual),
            Work::Winograd(winograd) => {
                winograd.apply(team, tiles, count, (map, input), (to.map, output), layer.residual);
            }
            Work::Depthwise(depthwise) => depthwise.apply(team, count, input, output),
            Work::Elements(elements) => {
                let second = inputs.get(1).map_or(input, |&(_, input)| input);
                elements.apply(team, count, [input, second], output);
            }
            Work::Plain(plain) => {
                let second = inputs.get(1).copied().unwrap_or((map, input));
                plain.apply(count, [(map, input), second], (to.map, output));
            }
        }
        slots[to.slot] = buffer;
    }
}

impl Layout<'_> {
    /// A step, packed.
    fn work(&self, number: usize, maps: &[Map], weights: &dyn Source) -> Result<Work, EmbedError> {
        let (step, isa) = (&self.plan.steps[number], self.isa);
        let tensor = |what: &str| values(weights, &tensor_name(number, what));
        let from = step.of.iter().map(|&value| maps[value]).collect::<Vec<_>>();
        let (map, to) = (from[0], maps[number + 1]);
        let inputs = self.shapes[step.of[0]].channels;
        let slopes = if step.prelu { Some(tensor("slopes")?) } else { None };
        let activation = |bias: &[f32]| {
            Activation::new(bias, slopes.as_deref(), padded(self.shapes[number + 1].channels, isa))
        };
        Ok(match &step.operation {
            Operation::Convolution { window, .. } => {
                let weight = tensor("weight")?;
                let activation = activation(&tensor("bias")?);
                match (self.winograd[number], window.stride) {
                    (Some(tile), [1, 1]) => Work::Winograd(Box::new(Winograd::new(
                        isa,
                        tile,
                        Form::Full,
                        &weight,
                        inputs,
                        activation,
                    ))),
                    (Some(_), _) => Work::Winograd(Box::new(Winograd::halving(
                        isa,
                        Form::Full,
                        &weight,
                        inputs,
                        activation,
                    ))),
                    (None, stride) => {
                        let [top, left, ..] = window.padding;
                        let how = (stride, [top, left]);
                        Work::Dense(Dense::windows(
                            isa,
                            (&weight, window.kernel),
                            inputs,
                            (map, to),
                            how,
                            activation,
                        ))
                    }
                }
            }
            Operation::Depthwise { window } => {
                let [top, left, ..] = window.padding;
                Work::Depthwise(Depthwise::new(
                    isa,
                    (&tensor("weight")?, window.kernel),
                    (map, to),
                    (window.stride, [top, left]),
                    activation(&tensor("bias")?),
                ))
            }
            Operation::Linear { .. } => {
                let (weight, activation) = (tensor("weight")?, activation(&tensor("bias")?));
                Work::Dense(match to.at(0, 0) {
                    0 => Dense::fully_connected(isa, &weight, inputs, map, activation),
                    _ => {
                        let size = [map.height, map.width];
                        Dense::windows(isa, (&weight, size), inputs, (map, to), ([1; 2], [0; 2]), activation)
                    }
                })
            }
            Operation::Scale => {
                let activation = activation(&tensor("shift")?);
                Work::Elements(Elements::scale(isa, &tensor("scale")?, (map, to), activation))
            }
            Operation::Add => Work::Elements(Elements::sum(isa, [map, from[1]], to, activation(&[]))),
            Operation::Multiply => Work::Plain(Plain::Multiply),
            Operation::Sigmoid => Work::Plain(Plain::Sigmoid { channels: inputs }),
            Operation::Clamp => Work::Plain(Plain::Clamp {
                least: tensor("least")?.into_owned(),
                most: tensor("most")?.into_owned(),
            }),
            Operation::MaxPool { window } => Work::Plain(Plain::MaxPool(*window)),
            Operation::Mean => Work::Plain(Plain::Mean),
        })
    }
}
