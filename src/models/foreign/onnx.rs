//! The part of ONNX files that describes a network: `ModelProto` of onnx.proto. Its weights may be in other
//! files in the same folder, as newer exporters write them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::rc::Rc;

use half::{bf16, f16};

use super::super::protobuf::{self, Field, Value, varint};
use super::super::{Tensor, WeightsError};
use super::{Attribute, Constant, Graph, Input, Node};

/// Name of the format in errors.
const FORMAT: &str = "ONNX";

/// The most nodes of a graph, and constants: far above any real network.
const MOST: usize = 65_536;

/// Field numbers of `ModelProto`.
const IR_VERSION: u64 = 1;
const GRAPH: u64 = 7;

/// Values of `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const FLOAT16: u64 = 10;
const DOUBLE: u64 = 11;
const BFLOAT16: u64 = 16;

fn corrupt(cause: impl Into<String>) -> WeightsError {
    protobuf::corrupt(FORMAT, cause)
}

fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<Field<'_>, WeightsError>> {
    protobuf::fields(FORMAT, bytes)
}

/// Whether these are the bytes of an ONNX model: a version, and a graph somewhere after it.
pub(in super::super) fn is_model(bytes: &[u8]) -> bool {
    let mut fields = fields(bytes).map_while(Result::ok);
    let version = |field: &Field<'_>| matches!(field, Field { number: IR_VERSION, value: Value::Number(_) });
    fields.next().as_ref().is_some_and(version)
        && fields.any(|field| matches!(field, Field { number: GRAPH, value: Value::Bytes(_) }))
}

/// Files in the folder of a model that hold some of its weights.
struct Beside<'a> {
    folder: Option<&'a Path>,
    read: RefCell<BTreeMap<String, Rc<[u8]>>>,
}

impl Beside<'_> {
    /// The content of a file in the folder. A name that leads out of the folder is refused, because the name
    /// comes from the model.
    fn file(&self, name: &str, tensor: &str) -> Result<Rc<[u8]>, WeightsError> {
        if let Some(bytes) = self.read.borrow().get(name) {
            return Ok(Rc::clone(bytes));
        }
        let inside = !name.is_empty()
            && Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let Some(folder) = self.folder.filter(|_| inside) else {
            return Err(WeightsError::Unsupported(format!(
                "tensor {tensor} lies in '{name}', and only files in the folder of the network are read"
            )));
        };
        let bytes: Rc<[u8]> = match std::fs::read(folder.join(name)) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                return Err(WeightsError::Unsupported(format!(
                    "tensor {tensor} lies in the file '{name}' beside the network, which cannot be read ({error}): keep the two together"
                )));
            }
        };
        self.read.borrow_mut().insert(name.to_owned(), Rc::clone(&bytes));
        Ok(bytes)
    }
}

/// The graph of an ONNX model. `folder` is its folder, for weights in other files.
///
/// # Errors
/// When the bytes are not such a file, or hold tensors of a type that weights cannot have.
pub(in super::super) fn read(bytes: &[u8], folder: Option<&Path>) -> Result<Graph, WeightsError> {
    let beside = Beside { folder, read: RefCell::default() };
    for field in fields(bytes) {
        if let Field { number: GRAPH, value: Value::Bytes(bytes) } = field? {
            return graph(bytes, &beside);
        }
    }
    Err(corrupt("it holds no graph"))
}

fn graph(bytes: &[u8], beside: &Beside<'_>) -> Result<Graph, WeightsError> {
    let mut graph = Graph::default();
    let mut inputs = Vec::new();
    for field in fields(bytes) {
        let Field { number, value: Value::Bytes(bytes) } = field? else { continue };
        match number {
            1 => graph.nodes.push(node(bytes, beside)?),
            5 => {
                let (name, constant) = tensor(bytes, beside)?;
                graph.constants.insert(name, constant);
            }
            11 => inputs.push(input(bytes)?),
            12 => graph.outputs.push(input(bytes)?.name),
            15 => {
                return Err(WeightsError::Unsupported(
                    "its weights are sparse, which is not supported".into(),
                ));
            }
            _ => {}
        }
        if graph.nodes.len().max(graph.constants.len()).max(inputs.len()) > MOST {
            return Err(corrupt(format!("its graph has more than {MOST} nodes or tensors")));
        }
    }
    // Until 2019 constants were listed as inputs too.
    graph.inputs = inputs.into_iter().filter(|input| !graph.constants.contains_key(&input.name)).collect();
    Ok(graph)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn node(bytes: &[u8], beside: &Beside<'_>) -> Result<Node, WeightsError> {
    let mut node = Node::default();
    for field in fields(bytes) {
        let Field { number, value: Value::Bytes(bytes) } = field? else { continue };
        match number {
            1 => node.inputs.push(text(bytes)),
            2 => node.outputs.push(text(bytes)),
            3 => node.name = text(bytes),
            4 => node.operator = text(bytes),
            5 => {
                if let Some((name, attribute)) = attribute(bytes, beside)? {
                    node.attributes.insert(name, attribute);
                }
            }
            // Operators outside the ONNX domain keep the name of their domain, so that they are not mistaken
            // for ONNX operators.
            7 if !matches!(bytes, b"" | b"ai.onnx") => {
                node.operator = format!("{}.{}", text(bytes), node.operator)
            }
            _ => {}
        }
    }
    Ok(node)
}

/// An attribute by its name; `None` for a kind that no operator of an embedding network has.
fn attribute(bytes: &[u8], beside: &Beside<'_>) -> Result<Option<(String, Attribute)>, WeightsError> {
    let mut name = String::new();
    let mut found = None;
    let (mut wholes, mut floats) = (Vec::new(), Vec::new());
    for field in fields(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(bytes) } => name = text(bytes),
            Field { number: 2, value: Value::Fixed32(value) } => {
                found = Some(Attribute::Float(f32::from_le_bytes(value)));
            }
            Field { number: 3, value: Value::Number(value) } => found = Some(Attribute::Whole(value as i64)),
            Field { number: 4, value: Value::Bytes(bytes) } => found = Some(Attribute::Text(text(bytes))),
            Field { number: 5, value: Value::Bytes(bytes) } => {
                found = Some(Attribute::Constant(tensor(bytes, beside)?.1));
            }
            Field { number: 7, value } => push_floats(value, &mut floats)?,
            Field { number: 8, value } => push_wholes(value, &mut wholes)?,
            _ => {}
        }
    }
    if !wholes.is_empty() {
        found = Some(Attribute::Wholes(wholes));
    } else if !floats.is_empty() {
        found = Some(Attribute::Floats(floats));
    }
    Ok(found.map(|found| (name, found)))
}

/// One number of a list, or several that were packed.
fn push_wholes(value: Value<'_>, list: &mut Vec<i64>) -> Result<(), WeightsError> {
    match value {
        Value::Number(value) => list.push(value as i64),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                list.push(varint(FORMAT, &mut packed)? as i64);
            }
        }
        _ => return Err(corrupt("a list of integers has values of another type")),
    }
    Ok(())
}

fn push_floats(value: Value<'_>, list: &mut Vec<f32>) -> Result<(), WeightsError> {
    match value {
        Value::Fixed32(value) => list.push(f32::from_le_bytes(value)),
        Value::Bytes(packed) => list.extend(numbers(packed, f32::from_le_bytes)?),
        _ => return Err(corrupt("a list of numbers has values of another type")),
    }
    Ok(())
}

/// Numbers of `N` bytes each.
fn numbers<const N: usize, T>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> T,
) -> Result<impl Iterator<Item = T>, WeightsError> {
    match bytes.as_chunks() {
        (chunks, []) => Ok(chunks.iter().map(move |chunk| number(*chunk))),
        _ => Err(corrupt("a tensor ends within a value")),
    }
}

/// `TensorProto`: its name and its values.
fn tensor(bytes: &[u8], beside: &Beside<'_>) -> Result<(String, Constant), WeightsError> {
    let (mut name, mut sizes, mut kind) = (String::new(), Vec::new(), 0);
    let (mut raw, mut floats, mut wholes, mut doubles) = (None, Vec::new(), Vec::new(), Vec::new());
    let (mut elsewhere, mut places) = (false, Vec::new());
    for field in fields(bytes) {
        match field? {
            Field { number: 1, value } => push_wholes(value, &mut sizes)?,
            Field { number: 2, value: Value::Number(value) } => kind = value,
            Field { number: 4, value } => push_floats(value, &mut floats)?,
            Field { number: 5 | 7, value } => push_wholes(value, &mut wholes)?,
            Field { number: 8, value: Value::Bytes(bytes) } => name = text(bytes),
            Field { number: 9, value: Value::Bytes(bytes) } => raw = Some(bytes),
            Field { number: 10, value: Value::Bytes(bytes) } => {
                doubles.extend(numbers(bytes, f64::from_le_bytes)?)
            }
            Field { number: 13, value: Value::Bytes(bytes) } => places.push(entry(bytes)?),
            Field { number: 14, value: Value::Number(place) } => elsewhere = place == 1,
            _ => {}
        }
    }
    let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    let shape = shape.ok_or_else(|| corrupt(format!("tensor {name} has a negative size")))?;
    let file = if elsewhere { Some(outside(&name, &places, beside)?) } else { None };
    let raw = file.as_ref().map(|(file, range)| &file[range.clone()]).or(raw);
    let constant = match (kind, raw) {
        (FLOAT, Some(raw)) => floats_of(numbers(raw, f32::from_le_bytes)?),
        (FLOAT, None) => floats_of(floats),
        (DOUBLE, Some(raw)) => floats_of(numbers(raw, |x| f64::from_le_bytes(x) as f32)?),
        (DOUBLE, None) => floats_of(doubles.into_iter().map(|x| x as f32)),
        (FLOAT16, Some(raw)) => floats_of(numbers(raw, |x| f16::from_le_bytes(x).to_f32())?),
        (FLOAT16, None) => floats_of(wholes.into_iter().map(|bits| f16::from_bits(bits as u16).to_f32())),
        (BFLOAT16, Some(raw)) => floats_of(numbers(raw, |x| bf16::from_le_bytes(x).to_f32())?),
        (INT64, Some(raw)) => wholes_of(numbers(raw, i64::from_le_bytes)?),
        (INT32, Some(raw)) => wholes_of(numbers(raw, |x| i64::from(i32::from_le_bytes(x)))?),
        (INT64 | INT32, None) => wholes_of(wholes),
        // If a node uses it, that node is refused. Files may hold unrelated tensors, such as masks.
        _ => return Ok((name, Constant::Wholes { shape: vec![0], values: Vec::new() })),
    };
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if count != Some(constant.len()) {
        return Err(corrupt(format!("tensor {name} of {shape:?} holds {} values", constant.len())));
    }
    Ok((name, constant.with_shape(shape)))
}

/// `StringStringEntryProto`: a key and a value.
fn entry(bytes: &[u8]) -> Result<[String; 2], WeightsError> {
    let mut entry = [String::new(), String::new()];
    for field in fields(bytes) {
        if let Field { number: number @ (1 | 2), value: Value::Bytes(bytes) } = field? {
            entry[number as usize - 1] = text(bytes);
        }
    }
    Ok(entry)
}

/// The file with the values of a tensor, and their position in it.
fn outside(
    name: &str,
    places: &[[String; 2]],
    beside: &Beside<'_>,
) -> Result<(Rc<[u8]>, std::ops::Range<usize>), WeightsError> {
    let of = |wanted: &str| places.iter().find(|[key, _]| key == wanted).map(|[_, value]| value.as_str());
    let number = |wanted: &str| match of(wanted) {
        None => Ok(None),
        Some(text) => match text.parse::<usize>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(corrupt(format!("tensor {name} has the {wanted} '{text}'"))),
        },
    };
    let file = beside.file(of("location").unwrap_or_default(), name)?;
    let start = number("offset")?.unwrap_or(0);
    let end = number("length")?.map_or(Some(file.len()), |length| start.checked_add(length));
    match end.filter(|&end| start <= end && end <= file.len()) {
        Some(end) => Ok((file, start..end)),
        None => Err(corrupt(format!("tensor {name} ends beyond the file that holds it"))),
    }
}

fn floats_of(values: impl IntoIterator<Item = f32>) -> Constant {
    Constant::Floats(Tensor { shape: Vec::new(), data: values.into_iter().collect() })
}

fn wholes_of(values: impl IntoIterator<Item = i64>) -> Constant {
    Constant::Wholes { shape: Vec::new(), values: values.into_iter().collect() }
}

impl Constant {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Floats(tensor) => tensor.data.len(),
            Self::Wholes { values, .. } => values.len(),
        }
    }

    /// The same values in another shape.
    pub(super) fn with_shape(self, shape: Vec<usize>) -> Self {
        match self {
            Self::Floats(tensor) => Self::Floats(Tensor { shape, ..tensor }),
            Self::Wholes { values, .. } => Self::Wholes { shape, values },
        }
    }
}

/// `ValueInfoProto`: a name and, for tensors, sizes.
fn input(bytes: &[u8]) -> Result<Input, WeightsError> {
    let (mut name, mut sizes) = (String::new(), Vec::new());
    for field in fields(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(bytes) } => name = text(bytes),
            Field { number: 2, value: Value::Bytes(kind) } => {
                let tensor = part(kind, 1)?.unwrap_or_default();
                for field in fields(part(tensor, 2)?.unwrap_or_default()) {
                    if let Field { number: 1, value: Value::Bytes(dimension) } = field? {
                        sizes.push(size(dimension)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Input { name, sizes })
}

/// The message in a field of another one.
fn part(bytes: &[u8], wanted: u64) -> Result<Option<&[u8]>, WeightsError> {
    for field in fields(bytes) {
        if let Field { number, value: Value::Bytes(bytes) } = field?
            && number == wanted
        {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// A size; `None` for one with a name only. Some programs write 0 or -1 for those.
fn size(bytes: &[u8]) -> Result<Option<usize>, WeightsError> {
    for field in fields(bytes) {
        if let Field { number: 1, value: Value::Number(size) } = field? {
            return Ok(usize::try_from(size as i64).ok().filter(|&size| size > 0));
        }
    }
    Ok(None)
}
