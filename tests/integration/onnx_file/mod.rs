//! ONNX files written by a test, and their networks computed by ONNX's definitions of its operators, in f64.

use std::collections::BTreeMap;

/// A constant.
#[derive(Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

#[derive(Clone)]
struct Node {
    operator: String,
    inputs: Vec<String>,
    output: String,
    attributes: BTreeMap<String, Vec<i64>>,
}

/// A network.
#[derive(Clone)]
pub struct Graph {
    input: String,
    pub input_sizes: Vec<u64>,
    constants: BTreeMap<String, Tensor>,
    nodes: Vec<Node>,
    outputs: Vec<String>,
}

/// Attributes that are one number and not a list.
const SINGLE: [&str; 5] = ["group", "transB", "axis", "keepdims", "ceil_mode"];

impl Graph {
    pub fn new(input: &str, sizes: &[u64]) -> Self {
        let (constants, nodes, outputs) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { input: input.into(), input_sizes: sizes.to_vec(), constants, nodes, outputs }
    }

    pub fn constant(&mut self, name: &str, tensor: Tensor) {
        self.constants.insert(name.into(), tensor);
    }

    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) {
        self.nodes.push(Node {
            operator: operator.into(),
            inputs: inputs.iter().map(|&name| name.into()).collect(),
            output: output.into(),
            attributes: attributes.iter().map(|&(name, values)| (name.into(), values.to_vec())).collect(),
        });
    }

    pub fn output(&mut self, name: &str) {
        self.outputs.push(name.into());
    }

    /// The bytes of the file: `ModelProto`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut graph = Message::default();
        for node in &self.nodes {
            graph.message(1, &node.to_message());
        }
        graph.text(2, "made by a test");
        for (name, tensor) in &self.constants {
            let mut message = Message::default();
            tensor.shape.iter().for_each(|&size| message.number(1, size as u64));
            message.number(2, 1);
            message.text(8, name);
            message.bytes(9, &tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
            graph.message(5, &message);
        }
        graph.message(11, &value(&self.input, &self.input_sizes));
        self.outputs.iter().for_each(|name| graph.message(12, &value(name, &[])));
        let mut model = Message::default();
        model.number(1, 8);
        model.message(7, &graph);
        let mut version = Message::default();
        version.number(2, 13);
        model.message(8, &version);
        model.0
    }

    /// The first output for one picture, channel by channel.
    pub fn evaluate(&self, picture: &[f64]) -> Vec<f64> {
        let [_, channels, rows, columns] = self.input_sizes[..] else { panic!("no picture") };
        let shape = [channels, rows, columns].map(|size| size as usize);
        let mut values = BTreeMap::from([(self.input.as_str(), Value { shape, data: picture.to_vec() })]);
        for node in &self.nodes {
            let value = node.evaluate(&values, &self.constants);
            values.insert(&node.output, value);
        }
        values[self.outputs[0].as_str()].data.clone()
    }
}

impl Node {
    fn to_message(&self) -> Message {
        let mut node = Message::default();
        self.inputs.iter().for_each(|name| node.text(1, name));
        node.text(2, &self.output);
        node.text(3, &self.output);
        node.text(4, &self.operator);
        for (name, values) in &self.attributes {
            let mut attribute = Message::default();
            attribute.text(1, name);
            let single = SINGLE.contains(&name.as_str());
            values.iter().for_each(|&value| attribute.number(if single { 3 } else { 8 }, value as u64));
            attribute.number(20, if single { 2 } else { 7 });
            node.message(5, &attribute);
        }
        node
    }

    fn pair(&self, name: &str, default: usize) -> [usize; 2] {
        self.attributes.get(name).map_or([default; 2], |values| [values[0] as usize, values[1] as usize])
    }

    fn evaluate(&self, values: &BTreeMap<&str, Value>, constants: &BTreeMap<String, Tensor>) -> Value {
        let constant = |index: usize| &constants[&self.inputs[index]];
        let input = &values[self.inputs[0].as_str()];
        let of_channel = |tensor: &Tensor, c: usize| f64::from(tensor.data[c % tensor.data.len()]);
        match self.operator.as_str() {
            "Conv" => self.convolution(input, constant(1)),
            "BatchNormalization" => input.map(|c, x| {
                let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|index| of_channel(constant(index), c));
                (x - mean) / (variance + 1e-5).sqrt() * gamma + beta
            }),
            "PRelu" => input.map(|c, x| if x < 0.0 { x * of_channel(constant(1), c) } else { x }),
            "Relu" => input.map(|_, x| x.max(0.0)),
            "LeakyRelu" => input.map(|_, x| if x < 0.0 { 0.01 * x } else { x }),
            "Sub" => input.map(|c, x| x - of_channel(constant(1), c)),
            "Mul" => input.map(|c, x| x * of_channel(constant(1), c)),
            "Add" => {
                let other = &values[self.inputs[1].as_str()];
                let data = input.data.iter().zip(&other.data).map(|(a, b)| a + b).collect();
                Value { shape: input.shape, data }
            }
            "Dropout" => input.clone(),
            "Flatten" => Value { shape: [input.data.len(), 1, 1], data: input.data.clone() },
            "MaxPool" => self.max_pool(input),
            "Gemm" => {
                let (weight, bias) = (constant(1), constant(2));
                let row = |n: usize| {
                    let row = weight.data.chunks(input.data.len()).nth(n).unwrap();
                    row.iter().zip(&input.data).map(|(&w, x)| f64::from(w) * x).sum::<f64>()
                        + f64::from(bias.data[n])
                };
                Value { shape: [weight.shape[0], 1, 1], data: (0..weight.shape[0]).map(row).collect() }
            }
            other => panic!("{other} is not defined here"),
        }
    }

    fn convolution(&self, input: &Value, weight: &Tensor) -> Value {
        let &[outputs, inputs, rows, columns] = weight.shape.as_slice() else { panic!("weights") };
        let groups = self.attributes["group"][0] as usize;
        let ([down, across], [top, left]) = (self.pair("strides", 1), self.pair("pads", 0));
        let size = |n: usize, pad: usize, kernel: usize, stride: usize| (n + 2 * pad - kernel) / stride + 1;
        let (height, width) =
            (size(input.shape[1], top, rows, down), size(input.shape[2], left, columns, across));
        let mut data = vec![0.0; outputs * height * width];
        for (n, plane) in data.chunks_exact_mut(height * width).enumerate() {
            for i in 0..inputs {
                let channel = n / (outputs / groups) * inputs + i;
                for (r, c) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                    let w = f64::from(weight.data[((n * inputs + i) * rows + r) * columns + c]);
                    for y in 0..height {
                        for x in 0..width {
                            plane[y * width + x] +=
                                w * input.at(channel, y * down + r, top, x * across + c, left, 0.0);
                        }
                    }
                }
            }
        }
        Value { shape: [outputs, height, width], data }
    }

    fn max_pool(&self, input: &Value) -> Value {
        let [rows, columns] = self.pair("kernel_shape", 1);
        let ([down, across], [top, left]) = (self.pair("strides", 1), self.pair("pads", 0));
        let [channels, height, width] = input.shape;
        let (height, width) =
            ((height + 2 * top - rows) / down + 1, (width + 2 * left - columns) / across + 1);
        let mut data = Vec::new();
        for (channel, y, x) in
            (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))))
        {
            let window = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
            let value =
                |(r, c)| input.at(channel, y * down + r, top, x * across + c, left, f64::NEG_INFINITY);
            data.push(window.map(value).fold(f64::NEG_INFINITY, f64::max));
        }
        Value { shape: [channels, height, width], data }
    }
}

/// A map: channels, rows, columns.
#[derive(Clone)]
struct Value {
    shape: [usize; 3],
    data: Vec<f64>,
}

impl Value {
    fn map(&self, f: impl Fn(usize, f64) -> f64) -> Self {
        let plane = self.shape[1] * self.shape[2];
        Self { data: self.data.iter().enumerate().map(|(i, &x)| f(i / plane, x)).collect(), ..*self }
    }

    /// The value at a place of the padded map.
    fn at(&self, channel: usize, y: usize, top: usize, x: usize, left: usize, beyond: f64) -> f64 {
        let [_, rows, columns] = self.shape;
        match (y.checked_sub(top).filter(|&y| y < rows), x.checked_sub(left).filter(|&x| x < columns)) {
            (Some(y), Some(x)) => self.data[(channel * rows + y) * columns + x],
            _ => beyond,
        }
    }
}

/// `ValueInfoProto`.
fn value(name: &str, sizes: &[u64]) -> Message {
    let mut shape = Message::default();
    for &size in sizes {
        let mut dimension = Message::default();
        dimension.number(1, size);
        shape.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.number(1, 1);
    tensor.message(2, &shape);
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
