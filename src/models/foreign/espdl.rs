//! ESP-DL files, as Espressif publishes networks for its chips: a flatbuffer whose tables mirror ONNX.
//!
//! Maps are stored with their channels last. Weights are integers times a power of two, in blocks of 16
//! outputs.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::super::{Tensor, WeightsError, protobuf};
use super::{Attribute, Constant, Graph, Input, Node};

/// Name of the format in errors.
const FORMAT: &str = "ESP-DL";

/// The first bytes of a file.
const MAGIC: &[u8; 4] = b"EDL2";

/// Bytes before the flatbuffer: the magic, the kind of encryption, the length, padding.
const HEADER: usize = 16;

/// Outputs whose weights are stored together.
const BLOCK: usize = 16;

/// The most entries of a list, far above any real network.
const MOST: usize = 65_536;

/// Values of `TensorDataType`.
const INT8: i32 = 3;
const INT16: i32 = 5;
const INT32: i32 = 6;

/// Values of `AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;

fn corrupt(cause: impl Into<String>) -> WeightsError {
    protobuf::corrupt(FORMAT, cause)
}

fn unsupported(cause: impl Into<String>) -> WeightsError {
    WeightsError::Unsupported(cause.into())
}

/// Whether these are the bytes of such a file.
pub(in super::super) fn is_model(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The graph of such a file.
///
/// # Errors
/// When the bytes are not such a file, or it is encrypted, or holds tensors of a type that is not supported.
pub(in super::super) fn read(bytes: &[u8]) -> Result<Graph, WeightsError> {
    let (header, body) = bytes.split_at_checked(HEADER).ok_or_else(|| corrupt("the file ends early"))?;
    if header[4..8] != [0; 4] {
        return Err(unsupported("this ESP-DL file is encrypted: only plain ones are supported"));
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let body = body.get(..length).ok_or_else(|| corrupt("the file ends early"))?;
    let file = File { bytes: body, left: Cell::new(8 * body.len() + (1 << 20)) };
    let model = file.root()?;
    let graph = model.table(7)?.ok_or_else(|| corrupt("it holds no graph"))?;
    self::graph(&graph)
}

fn graph(table: &Table<'_>) -> Result<Graph, WeightsError> {
    let mut graph = Graph { channels_last: true, ..Graph::default() };
    let mut weights = BTreeMap::new();
    for node in table.tables(0)? {
        nodes(&node, &mut graph.nodes)?;
    }
    for node in &graph.nodes {
        let layout = match node.operator.as_str() {
            "Conv" => Layout::Convolution,
            "Gemm" => Layout::Matrix,
            _ => continue,
        };
        weights.extend(node.inputs.get(1).map(|name| (name.clone(), layout)));
    }
    for tensor in table.tables(2)? {
        let name = tensor.text(6)?;
        let layout = weights.get(&name).copied().unwrap_or(Layout::Plain);
        let constant = self::tensor(&tensor, &name, layout)?;
        graph.constants.insert(name, constant);
    }
    for input in table.tables(4)? {
        graph.inputs.push(Input { name: input.text(0)?, sizes: sizes(&input)? });
    }
    for output in table.tables(5)? {
        graph.outputs.push(output.text(0)?);
    }
    Ok(graph)
}

/// Sizes of a value.
fn sizes(value: &Table<'_>) -> Result<Vec<Option<usize>>, WeightsError> {
    let Some(kind) = value.table(1)? else { return Ok(Vec::new()) };
    // The first field of a union is its type: 1 for tensors.
    let Some(shape) = kind.table(1)?.map(|tensor| tensor.table(1)).transpose()?.flatten() else {
        return Ok(Vec::new());
    };
    let mut sizes = Vec::new();
    for dimension in shape.tables(0)? {
        let size = dimension.table(0)?.map(|value| value.whole(1)).transpose()?.unwrap_or(0);
        sizes.push(usize::try_from(size).ok().filter(|&size| size > 0));
    }
    Ok(sizes)
}

/// A node, and the activation that may be part of it.
fn nodes(table: &Table<'_>, nodes: &mut Vec<Node>) -> Result<(), WeightsError> {
    let mut node = Node {
        inputs: table.texts(0)?,
        outputs: table.texts(1)?,
        name: table.text(2)?,
        operator: table.text(3)?,
        ..Node::default()
    };
    for attribute in table.tables(5)? {
        let found = match attribute.int(3)? {
            FLOAT => attribute.float(4)?.map(Attribute::Float),
            INT => Some(Attribute::Whole(attribute.whole(5)?)),
            STRING => Some(Attribute::Text(
                attribute.bytes(6)?.map(String::from_utf8_lossy).unwrap_or_default().into(),
            )),
            INTS => Some(Attribute::Wholes(attribute.wholes(11)?)),
            _ => None,
        };
        if let Some(found) = found {
            node.attributes.insert(attribute.text(0)?, found);
        }
    }
    let activation = node.text("activation").unwrap_or("Linear").to_owned();
    if activation == "Linear" {
        nodes.push(node);
        return Ok(());
    }
    if activation != "Relu" {
        return Err(unsupported(format!(
            "operator {}: the activation {activation} is not supported",
            node.operator
        )));
    }
    let [output] = node.outputs.as_slice() else {
        return Err(corrupt("a node does not have exactly one output"));
    };
    let before = format!("{output} before {activation}");
    let relu = Node {
        operator: activation,
        inputs: vec![before.clone()],
        outputs: vec![output.clone()],
        ..Node::default()
    };
    nodes.push(Node { outputs: vec![before], ..node });
    nodes.push(relu);
    Ok(())
}

/// The order of the values of a tensor.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Plain,
    /// [rows, columns, inputs, outputs], or [rows, columns, channels, 1].
    Convolution,
    /// [1, 1, inputs, outputs].
    Matrix,
}

/// A tensor with its axes in the order of ONNX.
fn tensor(table: &Table<'_>, name: &str, layout: Layout) -> Result<Constant, WeightsError> {
    let sizes = table.wholes(0)?;
    let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    let shape = shape.ok_or_else(|| corrupt(format!("tensor {name} has a negative size")))?;
    let count = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    let raw = table.blocks(8)?.unwrap_or_default();
    let values: Vec<i64> = match table.int(1)? {
        INT8 => raw.iter().map(|&x| i64::from(x as i8)).collect(),
        INT16 => raw.as_chunks().0.iter().map(|x| i64::from(i16::from_le_bytes(*x))).collect(),
        INT32 => raw.as_chunks().0.iter().map(|x| i64::from(i32::from_le_bytes(*x))).collect(),
        // Not part of an embedding network. If a node uses it, that node is refused.
        _ => return Ok(Constant::Wholes { shape: vec![0], values: Vec::new() }),
    };
    // The stored values are padded to a multiple of 16 bytes.
    let values = count
        .and_then(|count| values.get(..count))
        .ok_or_else(|| corrupt(format!("tensor {name} of {shape:?} holds {} values", values.len())))?;
    let exponent = match table.wholes(13)?.as_slice() {
        [] => 0,
        &[exponent] if (-126..=126).contains(&exponent) => exponent as i32,
        other => return Err(unsupported(format!("tensor {name} has the exponents {other:?}: one is read"))),
    };
    let scale = 2f64.powi(exponent);
    let data: Vec<f32> = values.iter().map(|&x| (x as f64 * scale) as f32).collect();
    let odd = || unsupported(format!("the weights {name} of {shape:?} are not in blocks of {BLOCK} outputs"));
    let tensor = match (layout, shape.as_slice()) {
        (Layout::Plain, _) => Tensor { shape, data },
        (Layout::Convolution, &[rows, columns, channels, 1]) if channels.is_multiple_of(BLOCK) => {
            let pixels = rows * columns;
            let at = |n: usize, pixel: usize| (n / BLOCK * pixels + pixel) * BLOCK + n % BLOCK;
            let order = (0..channels).flat_map(|n| (0..pixels).map(move |pixel| at(n, pixel)));
            Tensor { shape: vec![channels, 1, rows, columns], data: order.map(|at| data[at]).collect() }
        }
        (Layout::Convolution, &[rows, columns, inputs, outputs]) if outputs.is_multiple_of(BLOCK) => {
            let pixels = rows * columns;
            let at = move |n: usize, c: usize, pixel: usize| {
                ((n / BLOCK * pixels + pixel) * inputs + c) * BLOCK + n % BLOCK
            };
            let mut ordered = Vec::with_capacity(data.len());
            for (n, c) in (0..outputs).flat_map(|n| (0..inputs).map(move |c| (n, c))) {
                ordered.extend((0..pixels).map(|pixel| data[at(n, c, pixel)]));
            }
            Tensor { shape: vec![outputs, inputs, rows, columns], data: ordered }
        }
        (Layout::Matrix, &[1, 1, inputs, outputs]) if outputs.is_multiple_of(BLOCK) => {
            let at = |k: usize, n: usize| (n / BLOCK * inputs + k) * BLOCK + n % BLOCK;
            let order = (0..inputs).flat_map(|k| (0..outputs).map(move |n| at(k, n)));
            Tensor { shape: vec![inputs, outputs], data: order.map(|at| data[at]).collect() }
        }
        _ => return Err(odd()),
    };
    Ok(Constant::Floats(tensor))
}

/// A flatbuffer. Several offsets may point to one table, so the number of bytes read in total is limited.
struct File<'a> {
    bytes: &'a [u8],
    left: Cell<usize>,
}

/// A table of a flatbuffer.
#[derive(Clone, Copy)]
struct Table<'a> {
    file: &'a File<'a>,
    at: usize,
}

impl File<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], WeightsError> {
        self.spend(N)?;
        let bytes = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(|| corrupt("it points beyond its end"))
    }

    fn spend(&self, bytes: usize) -> Result<(), WeightsError> {
        let left =
            self.left.get().checked_sub(bytes.max(1)).ok_or_else(|| corrupt("its tables form a cycle"))?;
        self.left.set(left);
        Ok(())
    }

    /// The target of the offset at `at`.
    fn follow(&self, at: usize) -> Result<usize, WeightsError> {
        let offset = u32::from_le_bytes(self.array(at)?) as usize;
        at.checked_add(offset).ok_or_else(|| corrupt("it points beyond its end"))
    }

    fn root(&self) -> Result<Table<'_>, WeightsError> {
        Ok(Table { file: self, at: self.follow(0)? })
    }
}

impl<'a> Table<'a> {
    /// Position of a field; `None` if it is absent.
    fn field(&self, index: usize) -> Result<Option<usize>, WeightsError> {
        let back = i32::from_le_bytes(self.file.array(self.at)?);
        let table = i64::try_from(self.at).unwrap_or(i64::MAX) - i64::from(back);
        let table = usize::try_from(table).map_err(|_| corrupt("it points before its start"))?;
        let size = u16::from_le_bytes(self.file.array(table)?) as usize;
        let entry = 4 + 2 * index;
        if entry + 2 > size {
            return Ok(None);
        }
        let offset = u16::from_le_bytes(self.file.array(table + entry)?) as usize;
        Ok((offset > 0).then_some(self.at + offset))
    }

    fn target(&self, index: usize) -> Result<Option<usize>, WeightsError> {
        self.field(index)?.map(|at| self.file.follow(at)).transpose()
    }

    fn table(&self, index: usize) -> Result<Option<Table<'a>>, WeightsError> {
        Ok(self.target(index)?.map(|at| Table { file: self.file, at }))
    }

    fn int(&self, index: usize) -> Result<i32, WeightsError> {
        let value = self.field(index)?.map(|at| self.file.array(at)).transpose()?;
        Ok(value.map_or(0, i32::from_le_bytes))
    }

    fn whole(&self, index: usize) -> Result<i64, WeightsError> {
        let value = self.field(index)?.map(|at| self.file.array(at)).transpose()?;
        Ok(value.map_or(0, i64::from_le_bytes))
    }

    fn float(&self, index: usize) -> Result<Option<f32>, WeightsError> {
        let value = self.field(index)?.map(|at| self.file.array(at)).transpose()?;
        Ok(value.map(f32::from_le_bytes))
    }

    /// Position of a list, and its number of entries.
    fn list(&self, index: usize) -> Result<Option<(usize, usize)>, WeightsError> {
        let Some(at) = self.target(index)? else { return Ok(None) };
        Ok(Some((at + 4, u32::from_le_bytes(self.file.array(at)?) as usize)))
    }

    /// The bytes of a list with entries of `size` bytes.
    fn slice(&self, index: usize, size: usize) -> Result<Option<&'a [u8]>, WeightsError> {
        let Some((at, count)) = self.list(index)? else { return Ok(None) };
        let bytes = count.checked_mul(size).and_then(|length| self.file.bytes.get(at..)?.get(..length));
        let bytes = bytes.ok_or_else(|| corrupt("a list ends beyond the file"))?;
        self.file.spend(bytes.len())?;
        Ok(Some(bytes))
    }

    fn bytes(&self, index: usize) -> Result<Option<&'a [u8]>, WeightsError> {
        self.slice(index, 1)
    }

    /// Bytes that are stored 16 at a time.
    fn blocks(&self, index: usize) -> Result<Option<&'a [u8]>, WeightsError> {
        self.slice(index, 16)
    }

    fn text(&self, index: usize) -> Result<String, WeightsError> {
        Ok(self.bytes(index)?.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default())
    }

    fn wholes(&self, index: usize) -> Result<Vec<i64>, WeightsError> {
        let bytes = self.slice(index, 8)?.unwrap_or_default();
        Ok(bytes.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect())
    }

    /// The targets of a list of offsets.
    fn targets(&self, index: usize) -> Result<Vec<usize>, WeightsError> {
        let Some((at, count)) = self.list(index)? else { return Ok(Vec::new()) };
        if count > MOST {
            return Err(corrupt(format!("a list has more than {MOST} entries")));
        }
        (0..count).map(|entry| self.file.follow(at + 4 * entry)).collect()
    }

    fn tables(&self, index: usize) -> Result<Vec<Table<'a>>, WeightsError> {
        Ok(self.targets(index)?.into_iter().map(|at| Table { file: self.file, at }).collect())
    }

    fn texts(&self, index: usize) -> Result<Vec<String>, WeightsError> {
        let text = |at: usize| {
            let length = u32::from_le_bytes(self.file.array(at)?) as usize;
            self.file.spend(length)?;
            let bytes = self.file.bytes.get(at + 4..).and_then(|bytes| bytes.get(..length));
            let bytes = bytes.ok_or_else(|| corrupt("a text ends beyond the file"))?;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        };
        self.targets(index)?.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PictureOptions, translate};
    use super::*;
    use crate::mutations;

    /// A value of a flatbuffer being written.
    enum Value {
        Int(i32),
        Whole(i64),
        Text(String),
        Wholes(Vec<i64>),
        /// Bytes, 16 at a time.
        Blocks(Vec<u8>),
        Table(Vec<Option<Value>>),
        List(Vec<Value>),
    }

    impl Value {
        /// Appends the target of an offset and returns its position.
        fn write(&self, to: &mut Vec<u8>) -> usize {
            let length = |to: &mut Vec<u8>, count: usize| {
                let at = to.len();
                to.extend((count as u32).to_le_bytes());
                at
            };
            match self {
                Self::Int(_) | Self::Whole(_) => unreachable!("these lie in their table"),
                Self::Text(text) => {
                    let at = length(to, text.len());
                    to.extend(text.as_bytes());
                    at
                }
                Self::Wholes(values) => {
                    let at = length(to, values.len());
                    values.iter().for_each(|x| to.extend(x.to_le_bytes()));
                    at
                }
                Self::Blocks(bytes) => {
                    let at = length(to, bytes.len().div_ceil(16));
                    to.extend(bytes);
                    to.resize(at + 4 + bytes.len().next_multiple_of(16), 0);
                    at
                }
                Self::List(values) => {
                    let at = length(to, values.len());
                    to.resize(at + 4 + 4 * values.len(), 0);
                    for (i, value) in values.iter().enumerate() {
                        Self::point(to, at + 4 + 4 * i, value);
                    }
                    at
                }
                Self::Table(fields) => {
                    let start = to.len();
                    let at = start + 4 + 2 * fields.len();
                    to.extend((4 + 2 * fields.len() as u16).to_le_bytes());
                    to.resize(at, 0);
                    to.extend(((at - start) as i32).to_le_bytes());
                    to.resize(at + 4 + 8 * fields.len(), 0);
                    for (i, field) in fields.iter().enumerate() {
                        let Some(value) = field else { continue };
                        let place = at + 4 + 8 * i;
                        to[start + 4 + 2 * i..][..2].copy_from_slice(&((place - at) as u16).to_le_bytes());
                        match value {
                            Self::Int(value) => to[place..][..4].copy_from_slice(&value.to_le_bytes()),
                            Self::Whole(value) => to[place..][..8].copy_from_slice(&value.to_le_bytes()),
                            value => Self::point(to, place, value),
                        }
                    }
                    at
                }
            }
        }

        fn point(to: &mut Vec<u8>, place: usize, value: &Self) {
            let at = value.write(to);
            to[place..][..4].copy_from_slice(&((at - place) as u32).to_le_bytes());
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn texts(list: &[&str]) -> Value {
        Value::List(list.iter().map(|name| text(name)).collect())
    }

    /// A table with those fields, by their numbers.
    fn table(fields: Vec<(usize, Value)>) -> Value {
        let mut list: Vec<Option<Value>> = Vec::new();
        for (number, value) in fields {
            list.resize_with(list.len().max(number + 1), || None);
            list[number] = Some(value);
        }
        Value::Table(list)
    }

    fn tensor(name: &str, sizes: &[i64], kind: i32, bytes: Vec<u8>, exponent: i64) -> Value {
        table(vec![
            (0, Value::Wholes(sizes.to_vec())),
            (1, Value::Int(kind)),
            (6, text(name)),
            (8, Value::Blocks(bytes)),
            (13, Value::Wholes(vec![exponent])),
        ])
    }

    fn node(operator: &str, inputs: &[&str], output: &str, attributes: Vec<Value>) -> Value {
        table(vec![
            (0, texts(inputs)),
            (1, texts(&[output])),
            (2, text(output)),
            (3, text(operator)),
            (5, Value::List(attributes)),
        ])
    }

    fn wholes(name: &str, values: &[i64]) -> Value {
        table(vec![(0, text(name)), (3, Value::Int(INTS)), (11, Value::Wholes(values.to_vec()))])
    }

    fn activation(name: &str) -> Value {
        let bytes = Value::Text(name.to_owned());
        table(vec![(0, text("activation")), (3, Value::Int(STRING)), (6, bytes)])
    }

    fn number(i: usize) -> i8 {
        ((i * 37 + 11) % 251) as i8
    }

    /// A convolution of 32 channels with ReLU, a depthwise convolution, and a fully connected layer, as in
    /// files for the chips.
    fn file(activated: &str) -> Vec<u8> {
        let bytes = |count: usize| (0..count).map(|i| number(i) as u8).collect::<Vec<u8>>();
        let biases = |count: i32| (0..count).flat_map(|i| (100 * i - 900).to_le_bytes()).collect::<Vec<u8>>();
        let constants = vec![
            tensor("w0", &[1, 2, 3, 32], INT8, bytes(2 * 3 * 32), -6),
            tensor("b0", &[32], INT32, biases(32), -10),
            tensor("w1", &[3, 1, 32, 1], INT8, bytes(3 * 32), -4),
            tensor("w2", &[1, 1, 32 * 5 * 7, 16], INT8, bytes(32 * 5 * 7 * 16), -7),
        ];
        let strides = || wholes("strides", &[16, 16]);
        let one = |name: &str, value: i64| {
            table(vec![(0, text(name)), (3, Value::Int(INT)), (5, Value::Whole(value))])
        };
        let nodes = vec![
            node("Conv", &["picture", "w0", "b0"], "v0", vec![strides(), activation(activated)]),
            node("Conv", &["v0", "w1"], "v1", vec![one("group", 32), activation("Linear")]),
            node("Transpose", &["v1"], "v2", vec![wholes("perm", &[0, 3, 1, 2])]),
            node("Flatten", &["v2"], "v3", vec![]),
            node("Gemm", &["v3", "w2"], "v4", vec![]),
        ];
        let dimension = |size: i64| table(vec![(0, table(vec![(1, Value::Whole(size))]))]);
        let shape = table(vec![(0, Value::List([1, 112, 112, 3].map(dimension).into()))]);
        let kind = table(vec![(1, table(vec![(1, shape)]))]);
        let graph = table(vec![
            (0, Value::List(nodes)),
            (2, Value::List(constants)),
            (4, Value::List(vec![table(vec![(0, text("picture")), (1, kind)])])),
            (5, Value::List(vec![table(vec![(0, text("v4"))])])),
        ]);
        let mut body = vec![0; 4];
        Value::point(&mut body, 0, &table(vec![(7, graph)]));
        let mut file = [MAGIC.as_slice(), &[0; 4], &(body.len() as u32).to_le_bytes(), &[0; 4]].concat();
        file.extend(body);
        file
    }

    #[test]
    fn weights_come_out_of_their_blocks() {
        let graph = read(&file("Relu")).unwrap();
        let weights = translate(&graph, &PictureOptions::default()).unwrap();
        let tensor = |name: &str| &weights.tensors[name];
        // The order of the values by the format: blocks of 16 outputs, then rows, columns, inputs.
        let first = tensor("step000.weight");
        assert_eq!(first.shape, [32, 3, 1, 2]);
        for (n, c, x) in (0..32).flat_map(|n| (0..3).flat_map(move |c| (0..2).map(move |x| (n, c, x)))) {
            let stored = number(((n / 16 * 2 + x) * 3 + c) * 16 + n % 16);
            assert_eq!(first.data[(n * 3 + c) * 2 + x], f32::from(stored) / 64.0);
        }
        assert_eq!(tensor("step000.bias").data[1], -800.0 / 1024.0);
        assert!(tensor("step000.slopes").data.iter().all(|&slope| slope == 0.0));
        let second = tensor("step001.weight");
        assert_eq!(second.shape, [32, 1, 3, 1]);
        for (n, y) in (0..32).flat_map(|n| (0..3).map(move |y| (n, y))) {
            assert_eq!(second.data[n * 3 + y], f32::from(number((n / 16 * 3 + y) * 16 + n % 16)) / 16.0);
        }
        let last = tensor("step002.weight");
        assert_eq!(last.shape, [16, 32, 5, 7]);
        for (n, k) in (0..16).flat_map(|n| (0..32 * 35).map(move |k| (n, k))) {
            assert_eq!(last.data[n * 32 * 35 + k], f32::from(number(k * 16 + n)) / 128.0);
        }
        assert_eq!(weights.metadata["normalisation"], "(x - 127.5) / 127.5");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let whole = file("Linear");
        assert!(is_model(&whole) && read(&whole).is_ok());
        let refused = |bytes: &[u8]| read(bytes).map(drop).unwrap_err().to_string();
        assert!(refused(&file("HardSwish")).contains("HardSwish"));
        let mut encrypted = whole.clone();
        encrypted[4] = 1;
        assert!(refused(&encrypted).contains("encrypted"));
        for length in (0..whole.len()).step_by(61) {
            refused(&whole[..length]);
        }
        // A damaged file gives an error or another network, and never an endless loop.
        mutations::survived_by("espdl", "linear", &whole, 500);
    }
}
