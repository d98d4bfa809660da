//! Embedding networks as ONNX, for other runtimes.

use std::collections::BTreeMap;

use super::import::Network;
use super::plan::{COLOURS, INPUT, Operation, Shape, Step, Window, tensor_name};
use super::{Weights, WeightsError};

const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;

// AttributeProto.AttributeType and TensorProto.DataType.
const INT: u64 = 2;
const INTS: u64 = 7;
const FLOAT: u64 = 1;

/// The bytes of an ONNX model of an embedding network (opset 13, f32).
///
/// Input `crops` [n, 3, 112, 96] ([n, 3, 112, 112] for networks that take squares): aligned faces, values 0 to 255, in the
/// order of channels that `channel_order` of the metadata says. Their normalisation is part of the model. Output
/// `embedding` [n, size]: unit vectors, the stored mean subtracted before. The metadata travels as `metadata_props`, with
/// the identifier as `id`.
///
/// # Errors
/// When these are no weights of an embedding network.
pub fn to_onnx(weights: &Weights) -> Result<Vec<u8>, WeightsError> {
    let network = Network::from_metadata(&weights.metadata)?;
    weights.expect(&network.tensors())?;
    let mut graph = Graph::default();
    let (plan, names) = match &network {
        Network::SphereFace(network) => {
            graph.constant("scale", &[], &[1. / 128.]);
            graph.constant("middle", &[], &[127.5]);
            graph.node("Sub", &["crops", "middle"], "centred", &[]);
            graph.node("Mul", &["centred", "scale"], "normalised", &[]);
            let plan = network.plan();
            // Stored under the authors' names, in the order of the plan.
            let planned = plan.tensors().into_iter().skip(INPUT.len()).map(|(name, _)| name);
            let names = planned.zip(network.tensors().into_iter().map(|(name, _)| name)).collect();
            (plan, names)
        }
        Network::Imported(plan) => {
            let mut scale = |input: &str, node, tensor: &str, output| {
                graph.constant(tensor, &[COLOURS as u64, 1, 1], weights.tensor(tensor, &[COLOURS])?);
                graph.node(node, &[input, tensor], output, &[]);
                Ok::<(), WeightsError>(())
            };
            scale("crops", "Mul", INPUT[0], "centred")?;
            scale("centred", "Add", INPUT[1], "normalised")?;
            (plan.clone(), BTreeMap::new())
        }
        Network::Mtcnn => {
            return Err(WeightsError::Unsupported(
                "only embedding networks are written as ONNX, not the detector".into(),
            ));
        }
    };
    let mut steps = Steps { graph: &mut graph, weights, names, values: vec!["normalised".to_owned()] };
    let shapes = plan.shapes().map_err(|error| WeightsError::Unsupported(error.to_string()))?;
    for (number, step) in plan.steps.iter().enumerate() {
        steps.add(number, step, &shapes)?;
    }
    let last = steps.values.pop().unwrap_or_default();
    let size = plan.embedding();
    graph.node("Flatten", &[&last], "feature", &[int("axis", 1)]);
    let mut feature = "feature";
    if weights.tensors.contains_key("mean") {
        graph.constant("mean", &[size as u64], weights.tensor("mean", &[size])?);
        graph.node("Sub", &["feature", "mean"], "difference", &[]);
        feature = "difference";
    }
    graph.node("LpNormalization", &[feature], "embedding", &[int("axis", 1), int("p", 2)]);

    let [rows, columns] = plan.input.map(|side| Some(side as u64));
    let mut body = graph.nodes;
    body.text(2, "sphereface");
    body.0.extend(graph.constants.0);
    body.message(11, &value("crops", &[None, Some(COLOURS as u64), rows, columns]));
    body.message(12, &value("embedding", &[None, Some(size as u64)]));

    let mut model = Message::default();
    model.number(1, IR_VERSION);
    model.text(2, "sphereface");
    model.text(3, env!("CARGO_PKG_VERSION"));
    model.message(7, &body);
    let mut opset = Message::default();
    opset.text(1, "");
    opset.number(2, OPSET);
    model.message(8, &opset);
    let id = ("id".to_owned(), weights.id().to_string());
    for (key, text) in weights.metadata.iter().map(|(key, text)| (key.clone(), text.clone())).chain([id]) {
        let mut property = Message::default();
        property.text(1, &key);
        property.text(2, &text);
        model.message(14, &property);
    }
    Ok(model.0)
}

/// The steps of a plan as nodes.
struct Steps<'a> {
    graph: &'a mut Graph,
    weights: &'a Weights,
    /// Under which name a tensor of the plan is stored, where that is another one.
    names: BTreeMap<String, String>,
    /// What the values of the plan are called in the graph.
    values: Vec<String>,
}

impl Steps<'_> {
    /// Adds the nodes of a step. A vector is a map of one pixel, `[n, channels, 1, 1]`, before the last step.
    fn add(&mut self, number: usize, step: &Step, shapes: &[Shape]) -> Result<(), WeightsError> {
        let input = self.values[step.of[0]].clone();
        let (from, to) = (shapes[step.of[0]], shapes[number + 1]);
        let mut output = format!("value{}", number + 1);
        let of: Vec<String> = step.of.iter().map(|&value| self.values[value].clone()).collect();
        let of: Vec<&str> = of.iter().map(String::as_str).collect();
        match &step.operation {
            Operation::Convolution { window, .. } => {
                let shape = [to.channels, from.channels, window.kernel[0], window.kernel[1]];
                self.convolution(number, &input, shape, &windowed(window), &output)?;
            }
            Operation::Depthwise { window } => {
                let mut attributes = windowed(window);
                attributes.push(int("group", from.channels as u64));
                let shape = [to.channels, 1, window.kernel[0], window.kernel[1]];
                self.convolution(number, &input, shape, &attributes, &output)?;
            }
            // As the last step, a matrix product.
            Operation::Linear { .. } if number + 2 == shapes.len() && !step.prelu => {
                let weight = self.constant(number, "weight", &[to.channels, from.values()])?;
                let bias = self.constant(number, "bias", &[to.channels])?;
                self.graph.node("Flatten", &[&input], "flat", &[int("axis", 1)]);
                self.graph.node("Gemm", &["flat", &weight, &bias], &output, &[int("transB", 1)]);
            }
            // Before other steps, a convolution whose window is the whole map.
            Operation::Linear { .. } => {
                let shape = [to.channels, from.channels, from.rows, from.columns];
                let window = Window { kernel: [from.rows, from.columns], stride: [1; 2], padding: [0; 4] };
                self.convolution(number, &input, shape, &windowed(&window), &output)?;
            }
            Operation::Scale => {
                let scaled = format!("{output}.scaled");
                let scale = self.per_channel(number, "scale", to.channels)?;
                let shift = self.per_channel(number, "shift", to.channels)?;
                self.graph.node("Mul", &[&input, &scale], &scaled, &[]);
                self.graph.node("Add", &[&scaled, &shift], &output, &[]);
            }
            Operation::Add => self.graph.node("Add", &of, &output, &[]),
            Operation::Multiply => self.graph.node("Mul", &of, &output, &[]),
            Operation::Sigmoid => self.graph.node("Sigmoid", &of, &output, &[]),
            Operation::Clamp => self.clamp(number, to.channels, [&input, &output])?,
            Operation::MaxPool { window } => self.graph.node("MaxPool", &of, &output, &windowed(window)),
            Operation::Mean => self.graph.node("GlobalAveragePool", &of, &output, &[]),
        }
        if step.prelu {
            let slopes = self.per_channel(number, "slopes", to.channels)?;
            let before = std::mem::replace(&mut output, format!("value{}.activated", number + 1));
            self.graph.node("PRelu", &[&before, &slopes], &output, &[]);
        }
        self.values.push(output);
        Ok(())
    }

    /// Limits: one node if those of all channels are the same.
    fn clamp(
        &mut self,
        number: usize,
        channels: usize,
        [input, output]: [&str; 2],
    ) -> Result<(), WeightsError> {
        let names = ["least", "most"].map(|what| tensor_name(number, what));
        let uniform = |name: &String| {
            let values = &self.weights.tensors.get(name)?.data;
            let first = *values.first()?;
            values.iter().all(|value| *value == first).then_some(first)
        };
        if let [Some(least), Some(most)] = names.each_ref().map(uniform) {
            self.graph.constant(&names[0], &[], &[least]);
            self.graph.constant(&names[1], &[], &[most]);
            self.graph.node("Clip", &[input, &names[0], &names[1]], output, &[]);
            return Ok(());
        }
        let raised = format!("{output}.raised");
        let least = self.per_channel(number, "least", channels)?;
        let most = self.per_channel(number, "most", channels)?;
        self.graph.node("Max", &[input, &least], &raised, &[]);
        self.graph.node("Min", &[&raised, &most], output, &[]);
        Ok(())
    }

    /// A convolution with bias, `weight` of that shape.
    fn convolution(
        &mut self,
        number: usize,
        input: &str,
        shape: [usize; 4],
        attributes: &[Message],
        output: &str,
    ) -> Result<(), WeightsError> {
        let weight = self.constant(number, "weight", &shape)?;
        let bias = self.constant(number, "bias", &shape[..1])?;
        self.graph.node("Conv", &[input, &weight, &bias], output, attributes);
        Ok(())
    }

    /// A tensor with one value per channel of a map.
    fn per_channel(&mut self, number: usize, what: &str, channels: usize) -> Result<String, WeightsError> {
        self.constant(number, what, &[channels, 1, 1])
    }

    /// Adds a tensor of a step and returns its name.
    fn constant(&mut self, number: usize, what: &str, shape: &[usize]) -> Result<String, WeightsError> {
        let planned = tensor_name(number, what);
        let name = self.names.get(&planned).cloned().unwrap_or(planned);
        let Some(tensor) = self.weights.tensors.get(&name) else {
            return Err(WeightsError::Unsupported(format!("the tensor {name} is missing")));
        };
        let sizes: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        self.graph.constant(&name, &sizes, &tensor.data);
        Ok(name)
    }
}

/// The attributes of a convolution or pool.
fn windowed(window: &Window) -> Vec<Message> {
    let sizes = |list: &[usize]| list.iter().map(|&size| size as u64).collect::<Vec<u64>>();
    vec![
        ints("kernel_shape", &sizes(&window.kernel)),
        ints("pads", &sizes(&window.padding)),
        ints("strides", &sizes(&window.stride)),
    ]
}

#[derive(Default)]
struct Graph {
    nodes: Message,
    constants: Message,
}

impl Graph {
    fn node(&mut self, kind: &str, inputs: &[&str], output: &str, attributes: &[Message]) {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.text(1, input));
        node.text(2, output);
        node.text(3, output);
        node.text(4, kind);
        attributes.iter().for_each(|attribute| node.message(5, attribute));
        self.nodes.message(1, &node);
    }

    fn constant(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        let mut tensor = Message::default();
        shape.iter().for_each(|&size| tensor.number(1, size));
        tensor.number(2, FLOAT);
        tensor.text(8, name);
        let mut bytes = Vec::with_capacity(values.len() * 4);
        values.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        tensor.bytes(9, &bytes);
        self.constants.message(5, &tensor);
    }
}

fn int(name: &str, value: u64) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    attribute.number(3, value);
    attribute.number(20, INT);
    attribute
}

fn ints(name: &str, values: &[u64]) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    values.iter().for_each(|&value| attribute.number(8, value));
    attribute.number(20, INTS);
    attribute
}

/// `ValueInfoProto` of a float tensor; a size of `None` is the number of crops.
fn value(name: &str, shape: &[Option<u64>]) -> Message {
    let mut sizes = Message::default();
    for size in shape {
        let mut dimension = Message::default();
        match size {
            Some(size) => dimension.number(1, *size),
            None => dimension.text(2, "n"),
        }
        sizes.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.number(1, FLOAT);
    tensor.message(2, &sizes);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut value = Message::default();
    value.text(1, name);
    value.message(2, &kind);
    value
}

/// A protocol buffer message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }
}
