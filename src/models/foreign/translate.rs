//! From a graph of ONNX operators to a plan and its tensors.
//!
//! Operators after a convolution or a fully connected layer that only scale and shift its channels are merged
//! into its weights. Operators that scale and shift the input are merged into the tensors that normalise the
//! pixels.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::{FORMAT, Tensor, Weights, WeightsError};
use super::{Constant, Graph, Input, Node};
use crate::models::plan::{COLOURS, INPUT, Operation, Plan, Shape, Step, tensor_name};

/// Properties of a network's input that the file may not state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PictureOptions {
    /// Whether it takes blue first. The default is red first, as for nearly all networks.
    pub bgr: bool,
    /// Normalisation of the pixel values 0 to 255. The default is none if the network itself begins with it,
    /// else [`Normalisation::USUAL`].
    pub normalisation: Option<Normalisation>,
    /// The output that is the embedding, for a network that has several.
    pub output: Option<String>,
}

/// (x - mean) / deviation of a value x from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// The value subtracted.
    pub mean: f64,
    /// The divisor of the difference.
    pub deviation: f64,
}

impl Normalisation {
    /// The normalisation of ArcFace networks, unless they contain their own.
    pub const USUAL: Self = Self { mean: 127.5, deviation: 127.5 };

    /// Values as they are.
    const NONE: Self = Self { mean: 0.0, deviation: 1.0 };
}

impl std::fmt::Display for Normalisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(x - {}) / {}", self.mean, self.deviation)
    }
}

/// The network as a plan in metadata, and its tensors.
///
/// # Errors
/// Names the operator that this program cannot compute, with the reason.
pub(in super::super) fn translate(graph: &Graph, options: &PictureOptions) -> Result<Weights, WeightsError> {
    let unsupported = |reason: String| WeightsError::Unsupported(reason);
    let output = output(graph, options).map_err(unsupported)?;
    let (input, size, axes) = picture(graph).map_err(unsupported)?;
    let mut translator = Translator::new(graph, input, size, axes, output);
    let needed = needed(graph, output);
    for (number, node) in graph.nodes.iter().enumerate().filter(|(number, _)| needed.contains(number)) {
        translator.node(node).map_err(|reason| {
            let name =
                if node.name.is_empty() { format!("number {number}") } else { format!("'{}'", node.name) };
            unsupported(format!("operator {} (node {name}): {reason}", node.operator))
        })?;
    }
    translator.finish(output, options).map_err(unsupported)
}

/// The name of the output that is the embedding.
fn output<'g>(graph: &'g Graph, options: &'g PictureOptions) -> Result<&'g str, String> {
    let list = || graph.outputs.join(", ");
    match (&options.output, graph.outputs.as_slice()) {
        (Some(name), outputs) if outputs.contains(name) => Ok(name),
        (Some(name), _) => Err(format!("the network has no output '{name}': it has {}", list())),
        (None, [only]) => Ok(only),
        (None, []) => Err("the network has no output".to_owned()),
        (None, _) => {
            Err(format!("the network has several outputs ({}): name the one that is the embedding", list()))
        }
    }
}

/// The input, the rows and columns of the picture, and the order of its axes.
fn picture(graph: &Graph) -> Result<(&str, [usize; 2], [usize; 3]), String> {
    let [Input { name, sizes }] = graph.inputs.as_slice() else {
        let names: Vec<_> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(format!(
            "the network takes {} inputs ({}) and not one picture",
            names.len(),
            names.join(", ")
        ));
    };
    let side = |size: &Option<usize>| size.unwrap_or(112);
    match sizes.as_slice() {
        [_, Some(COLOURS), rows, columns] => Ok((name, [side(rows), side(columns)], [0, 1, 2])),
        [_, rows, columns, Some(COLOURS)] => Ok((name, [side(rows), side(columns)], [1, 2, 0])),
        _ => {
            let size = |size: &Option<usize>| size.map_or("?".to_owned(), |size| size.to_string());
            let sizes: Vec<_> = sizes.iter().map(size).collect();
            Err(format!("its input '{name}' of {} is not a picture of three colours", sizes.join("x")))
        }
    }
}

/// The numbers of the nodes on which the output depends.
fn needed(graph: &Graph, output: &str) -> BTreeSet<usize> {
    let outputs = |(number, node): (usize, &Node)| -> Vec<(String, usize)> {
        node.outputs.iter().map(|name| (name.clone(), number)).collect()
    };
    let makers: HashMap<String, usize> = graph.nodes.iter().enumerate().flat_map(outputs).collect();
    let mut needed = BTreeSet::new();
    let mut open = vec![output];
    while let Some(name) = open.pop() {
        if let Some(&maker) = makers.get(name)
            && needed.insert(maker)
        {
            open.extend(graph.nodes[maker].inputs.iter().map(String::as_str));
        }
    }
    needed
}

/// Placeholder for the number of pictures in a list of sizes.
pub(super) const BATCH: i64 = i64::MIN;

/// The meaning of a name of the graph.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Map(Map),
    Constant(Constant),
    /// The length of a vector.
    Norm(usize),
    /// A vector, each value repeated for every pixel of a map of these sizes.
    Spread(Map, Vec<i64>),
}

/// A value of the plan, with its form in the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    /// Its number.
    pub(super) id: usize,
    /// The meaning of the graph's axes after the first: channel, row or column (0, 1, 2).
    pub(super) axes: [usize; 3],
    /// Whether they are flattened into one axis.
    pub(super) flat: bool,
    /// Whether it has no other consumer, so that the step that makes it can be changed.
    pub(super) sole: bool,
    /// Whether it was divided by its length. The embedder does that.
    pub(super) unit: bool,
}

impl Map {
    /// A value of the plan without consumers so far.
    fn new(id: usize, axes: [usize; 3]) -> Self {
        Self { id, axes, flat: false, sole: true, unit: false }
    }
}

/// A plan being translated.
pub(super) struct Translator<'g> {
    pub(super) graph: &'g Graph,
    /// The number of nodes that take a value, by its name.
    uses: HashMap<&'g str, usize>,
    values: HashMap<&'g str, Value>,
    input: [usize; 2],
    steps: Vec<Step>,
    pub(super) shapes: Vec<Shape>,
    tensors: BTreeMap<String, Tensor>,
    /// The network's own normalisation of the input: times the first, plus the second.
    picture: Option<[Vec<f64>; 2]>,
}

impl<'g> Translator<'g> {
    fn new(graph: &'g Graph, input: &'g str, size: [usize; 2], axes: [usize; 3], output: &'g str) -> Self {
        let mut uses: HashMap<&str, usize> = HashMap::from([(output, 1)]);
        for name in graph.nodes.iter().flat_map(|node| &node.inputs) {
            *uses.entry(name).or_default() += 1;
        }
        let [rows, columns] = size;
        let values = HashMap::from([(input, Value::Map(Map::new(0, axes)))]);
        let shapes = vec![Shape { channels: COLOURS, rows, columns }];
        let (steps, tensors) = (Vec::new(), BTreeMap::new());
        Self { graph, uses, values, input: size, steps, shapes, tensors, picture: None }
    }

    /// The `index`-th input of a node; `None` if it is absent.
    pub(super) fn optional(&self, node: &Node, index: usize) -> Result<Option<Value>, String> {
        let Some(name) = node.inputs.get(index).filter(|name| !name.is_empty()) else { return Ok(None) };
        if let Some(constant) = self.graph.constants.get(name) {
            return Ok(Some(Value::Constant(constant.clone())));
        }
        match self.values.get(name.as_str()) {
            Some(Value::Map(map)) => {
                let sole = map.sole && self.uses.get(name.as_str()) == Some(&1);
                Ok(Some(Value::Map(Map { sole, ..*map })))
            }
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!("no earlier operator produces its input '{name}'")),
        }
    }

    pub(super) fn value(&self, node: &Node, index: usize) -> Result<Value, String> {
        self.optional(node, index)?.ok_or_else(|| format!("it has no input {index}"))
    }

    /// An input that depends on the picture.
    pub(super) fn map(&self, node: &Node, index: usize) -> Result<Map, String> {
        match self.value(node, index)? {
            Value::Map(map) if map.unit => {
                Err("operators follow after the embedding was normalised to unit length".to_owned())
            }
            Value::Map(map) => Ok(map),
            _ => Err(format!("its input {index} does not depend on the picture")),
        }
    }

    /// An input of numbers that does not.
    pub(super) fn floats(&self, node: &Node, index: usize) -> Result<Tensor, String> {
        match self.value(node, index)? {
            Value::Constant(Constant::Floats(tensor)) => Ok(tensor),
            _ => Err(format!("its input {index} is not a numeric constant")),
        }
    }

    /// A list of integers: an attribute or, in newer versions of ONNX, an input.
    pub(super) fn list(&self, node: &Node, name: &str, index: usize) -> Result<Option<Vec<i64>>, String> {
        if let Some(list) = node.wholes(name) {
            return Ok(Some(list.to_vec()));
        }
        match self.optional(node, index)? {
            None => Ok(None),
            Some(Value::Constant(Constant::Wholes { values, .. })) => Ok(Some(values)),
            Some(_) => Err(format!("its {name} are not constant")),
        }
    }

    /// The order of axes that convolutions take.
    pub(super) fn natural(&self) -> [usize; 3] {
        if self.graph.channels_last { [1, 2, 0] } else { [0, 1, 2] }
    }

    pub(super) fn shape(&self, map: Map) -> Shape {
        self.shapes[map.id]
    }

    /// Sizes in the order of the graph, the number of pictures first.
    pub(super) fn sizes(&self, map: Map) -> Vec<i64> {
        let Shape { channels, rows, columns } = self.shape(map);
        let sizes = map.axes.map(|axis| [channels, rows, columns][axis] as i64);
        match map.flat {
            true => vec![BATCH, sizes.iter().product()],
            false => vec![BATCH, sizes[0], sizes[1], sizes[2]],
        }
    }

    /// Appends a step with its tensors.
    pub(super) fn step(
        &mut self,
        operation: Operation,
        of: &[usize],
        tensors: impl IntoIterator<Item = (&'static str, Tensor)>,
    ) -> Result<Map, String> {
        let number = self.steps.len();
        self.steps.push(Step { operation, of: of.to_vec(), prelu: false });
        for (what, tensor) in tensors {
            self.tensors.insert(tensor_name(number, what), tensor);
        }
        // Every step is checked immediately, because later steps rely on its shape.
        let shape = self.steps[number].shape(&self.shapes)?;
        if shape.channels > 65_536 || shape.rows > 4096 || shape.columns > 4096 {
            return Err(format!("its output is a map of {shape}, far larger than in any real network"));
        }
        self.shapes.push(shape);
        Ok(Map::new(number + 1, self.natural()))
    }

    /// The tensors of the step that made `map`, which has no other consumer, to change them.
    fn made_by(&mut self, map: Map) -> Option<(usize, &mut Step)> {
        let number = map.id.checked_sub(1).filter(|_| map.sole)?;
        self.steps.get_mut(number).filter(|step| !step.prelu).map(|step| (number, step))
    }

    /// Every value of a channel times `scale`, plus `shift`.
    pub(super) fn affine(&mut self, map: Map, scale: &[f64], shift: &[f64]) -> Result<Map, String> {
        if map.id == 0 {
            return self.affine_picture(map, scale, shift);
        }
        let weighted = match self.made_by(map) {
            Some((number, step)) => match step.operation {
                Operation::Convolution { .. } | Operation::Depthwise { .. } | Operation::Linear { .. } => {
                    Some((number, ["weight", "bias"]))
                }
                Operation::Scale => Some((number, ["scale", "shift"])),
                _ => None,
            },
            None => None,
        };
        let Some((number, names)) = weighted else {
            let vector = |values: &[f64]| Tensor {
                shape: vec![values.len()],
                data: values.iter().map(|&x| x as f32).collect(),
            };
            let made =
                self.step(Operation::Scale, &[map.id], [("scale", vector(scale)), ("shift", vector(shift))])?;
            return Ok(Map { id: made.id, ..map.fresh() });
        };
        let [weight, bias] = names.map(|name| tensor_name(number, name));
        if let Some(weight) = self.tensors.get_mut(&weight) {
            let each = (weight.data.len() / scale.len()).max(1);
            for (values, scale) in weight.data.chunks_mut(each).zip(scale) {
                values.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
            }
        }
        if let Some(bias) = self.tensors.get_mut(&bias) {
            for ((x, scale), shift) in bias.data.iter_mut().zip(scale).zip(shift) {
                *x = (f64::from(*x) * scale + shift) as f32;
            }
        }
        Ok(map)
    }

    /// The same for the picture, before the network.
    fn affine_picture(&mut self, map: Map, scale: &[f64], shift: &[f64]) -> Result<Map, String> {
        if !map.sole {
            return Err("it changes the picture, which another operator uses too".to_owned());
        }
        let [scales, shifts] = self.picture.get_or_insert_with(|| [vec![1.0; COLOURS], vec![0.0; COLOURS]]);
        for (((scales, shifts), scale), shift) in scales.iter_mut().zip(shifts).zip(scale).zip(shift) {
            *scales *= scale;
            *shifts = *shifts * scale + shift;
        }
        Ok(map)
    }

    /// PReLU with a slope for every channel.
    pub(super) fn prelu(&mut self, map: Map, slopes: Vec<f32>) -> Result<Map, String> {
        let made = self.made_by(map).filter(|(_, step)| step.operation.carries_prelu());
        let onto = made.map(|(number, _)| number);
        let (number, map) = match onto {
            Some(number) => (number, map),
            None => {
                let count = slopes.len();
                let vector = |value| Tensor { shape: vec![count], data: vec![value; count] };
                let made =
                    self.step(Operation::Scale, &[map.id], [("scale", vector(1.0)), ("shift", vector(0.0))])?;
                (made.id - 1, Map { id: made.id, ..map.fresh() })
            }
        };
        self.steps[number].prelu = true;
        let slopes = Tensor { shape: vec![slopes.len()], data: slopes };
        self.tensors.insert(tensor_name(number, "slopes"), slopes);
        Ok(map)
    }

    fn node(&mut self, node: &'g Node) -> Result<(), String> {
        let value = self.operator(node)?;
        let Some(name) = node.outputs.first() else { return Err("it has no output".to_owned()) };
        self.values.insert(name, value);
        Ok(())
    }

    /// The weights: the plan in metadata, the tensors by its names.
    fn finish(mut self, output: &str, options: &PictureOptions) -> Result<Weights, String> {
        let Some(Value::Map(map)) = self.values.get(output).cloned() else {
            return Err(format!("its output '{output}' does not depend on the picture"));
        };
        // Steps after the embedding are not needed.
        for number in map.id..self.steps.len() {
            ["weight", "bias", "scale", "shift", "least", "most", "slopes"].iter().for_each(|what| {
                self.tensors.remove(&tensor_name(number, what));
            });
        }
        self.steps.truncate(map.id);
        self.normalise(options)?;
        let plan = Plan { input: self.input, steps: self.steps };
        let description = plan.to_metadata().map_err(|error| error.to_string())?;
        let mut metadata = BTreeMap::from(description);
        metadata.insert("format".into(), FORMAT.into());
        metadata.insert("channel_order".into(), "RGB".into());
        if options.bgr {
            metadata.insert("imported_channel_order".into(), "BGR".into());
        }
        metadata.insert("normalisation".into(), self.picture.map_or_else(String::new, |own| told(&own)));
        Ok(Weights { tensors: self.tensors, metadata })
    }

    /// The tensors that normalise the pixels, red first.
    fn normalise(&mut self, options: &PictureOptions) -> Result<(), String> {
        let first = match (&self.picture, options.normalisation) {
            (_, Some(asked)) => asked,
            (Some(_), None) => Normalisation::NONE,
            (None, None) => Normalisation::USUAL,
        };
        let [mut scale, mut shift] = self.picture.take().unwrap_or([vec![1.0; COLOURS], vec![0.0; COLOURS]]);
        for (scale, shift) in scale.iter_mut().zip(&mut shift) {
            *shift -= *scale * first.mean / first.deviation;
            *scale /= first.deviation;
        }
        if options.bgr {
            // Weights that take red first are different weights, and so get another identifier.
            scale.swap(0, 2);
            shift.swap(0, 2);
            self.red_first()?;
        }
        for (name, values) in INPUT.into_iter().zip([&scale, &shift]) {
            let data = values.iter().map(|&x| x as f32).collect();
            self.tensors.insert(name.to_owned(), Tensor { shape: vec![COLOURS], data });
        }
        self.picture = Some([scale, shift]);
        Ok(())
    }

    /// Exchanges the first and the last channel in all weights that take the picture.
    fn red_first(&mut self) -> Result<(), String> {
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.of.contains(&0)) {
            let name = tensor_name(number, "weight");
            let (Operation::Convolution { .. } | Operation::Linear { .. }) = step.operation else {
                return Err("it takes blue first, and an operator other than a convolution uses the picture"
                    .to_owned());
            };
            if let Some(weight) = self.tensors.get_mut(&name) {
                let each = weight.shape[2..].iter().product::<usize>();
                for values in weight.data.chunks_exact_mut(COLOURS * each) {
                    let (first, last) = values.split_at_mut((COLOURS - 1) * each);
                    first[..each].swap_with_slice(last);
                }
            }
        }
        Ok(())
    }
}

impl Map {
    /// The same form, for a new step without consumers.
    fn fresh(self) -> Self {
        Self { sole: true, ..self }
    }

    /// The same, at unit length.
    pub(super) fn at_unit_length(self) -> Self {
        Self { unit: true, ..self }
    }
}

/// The normalisation of values of 0 to 255, in words.
fn told([scale, shift]: &[Vec<f64>; 2]) -> String {
    let one = |(scale, shift): (&f64, &f64)| {
        let round = |x: f64| (x * 1e6).round() / 1e6;
        let normalisation = Normalisation { mean: round(-shift / scale), deviation: round(1.0 / scale) };
        normalisation.to_string()
    };
    let mut each: Vec<_> = scale.iter().zip(shift).map(one).collect();
    each.dedup();
    each.join(", ")
}
