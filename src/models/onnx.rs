//! Embedding networks as ONNX, for other runtimes.

use super::import::Network;
use super::{Weights, WeightsError};

const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;

// AttributeProto.AttributeType and TensorProto.DataType.
const INT: u64 = 2;
const INTS: u64 = 7;
const FLOAT: u64 = 1;

/// The bytes of an ONNX model of an embedding network (opset 13, f32).
///
/// Input `crops` [n, 3, 112, 96]: aligned faces, values 0 to 255, in the order of channels that
/// `channel_order` of the metadata says; they are brought to (x - 127.5) / 128 inside. Output
/// `embedding` [n, size]: unit vectors, the stored mean subtracted before. The metadata travels
/// as `metadata_props`, with the identifier as `id`.
///
/// # Errors
/// When these are no weights of an embedding network.
pub fn to_onnx(weights: &Weights) -> Result<Vec<u8>, WeightsError> {
    let network = match Network::from_metadata(&weights.metadata)? {
        Network::SphereFace(network) => network,
        Network::Imported(_) => {
            return Err(WeightsError::Unsupported(
                "only SphereFace networks are written as ONNX: an imported network came from another file"
                    .into(),
            ));
        }
        Network::Mtcnn => {
            return Err(WeightsError::Unsupported(
                "only embedding networks are written as ONNX, not the detector".into(),
            ));
        }
    };
    weights.expect(&network.tensors())?;

    let mut graph = Graph::default();
    graph.constant("scale", &[], &[1. / 128.]);
    graph.constant("middle", &[], &[127.5]);
    graph.node("Sub", &["crops", "middle"], "centred", &[]);
    graph.node("Mul", &["centred", "scale"], "normalised", &[]);
    let mut input = "normalised".to_owned();
    let mut skip = String::new();
    for convolution in network.convolutions() {
        let place = format!("{}_{}", convolution.stage, convolution.index);
        let [weight, bias, slope] =
            [format!("conv{place}.weight"), format!("conv{place}.bias"), format!("relu{place}.weight")];
        let side = convolution.output as u64;
        graph.constant(
            &weight,
            &[side, convolution.input as u64, 3, 3],
            weights.tensor(&weight, &[convolution.output, convolution.input, 3, 3])?,
        );
        graph.constant(&bias, &[side], weights.tensor(&bias, &[convolution.output])?);
        graph.constant(&slope, &[side, 1, 1], weights.tensor(&slope, &[convolution.output])?);
        let stride = convolution.stride as u64;
        let attributes = [
            ints("dilations", &[1, 1]),
            ints("kernel_shape", &[3, 3]),
            ints("pads", &[1, 1, 1, 1]),
            ints("strides", &[stride, stride]),
        ];
        graph.node("Conv", &[&input, &weight, &bias], &format!("conv{place}"), &attributes);
        graph.node("PRelu", &[&format!("conv{place}"), &slope], &format!("relu{place}"), &[]);
        // Units are pairs of convolutions: 2 and 3, 4 and 5, ...
        let first_of_unit = convolution.index % 2 == 0;
        if first_of_unit {
            skip = std::mem::replace(&mut input, format!("relu{place}"));
        } else if convolution.index == 1 {
            input = format!("relu{place}");
        } else {
            input = format!("unit{place}");
            graph.node("Add", &[&format!("relu{place}"), &skip], &input, &[]);
        }
    }
    let (size, flattened) = (network.embedding, network.flattened());
    graph.constant(
        "fc5.weight",
        &[size as u64, flattened as u64],
        weights.tensor("fc5.weight", &[size, flattened])?,
    );
    graph.constant("fc5.bias", &[size as u64], weights.tensor("fc5.bias", &[size])?);
    graph.node("Flatten", &[&input], "flat", &[int("axis", 1)]);
    graph.node("Gemm", &["flat", "fc5.weight", "fc5.bias"], "fc5", &[int("transB", 1)]);
    let mut feature = "fc5";
    if weights.tensors.contains_key("mean") {
        graph.constant("mean", &[size as u64], weights.tensor("mean", &[size])?);
        graph.node("Sub", &["fc5", "mean"], "feature", &[]);
        feature = "feature";
    }
    graph.node("LpNormalization", &[feature], "embedding", &[int("axis", 1), int("p", 2)]);

    let mut body = graph.nodes;
    body.text(2, "sphereface");
    body.0.extend(graph.constants.0);
    body.message(11, &value("crops", &[None, Some(3), Some(112), Some(96)]));
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
