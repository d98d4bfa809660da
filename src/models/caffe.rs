//! Caffe models: the part of the protocol buffer `NetParameter` that holds learned values,
//! in both of its layer formats.

use super::protobuf::{self, Field, Value, varint};
use super::{Tensor, WeightsError};

/// Name of the format in errors.
const FORMAT: &str = "Caffe";

/// One layer with learned values.
#[derive(Debug)]
pub(super) struct Layer {
    pub name: String,
    /// `Convolution`, `InnerProduct`, `PReLU`, ...
    pub kind: String,
    pub blobs: Vec<Tensor>,
}

/// Whether these are the bytes of a Caffe model: a `NetParameter` begins with its name or with
/// a layer.
pub(super) fn is_model(bytes: &[u8]) -> bool {
    protobuf::fields(FORMAT, bytes).next().is_some_and(|field| {
        matches!(field, Ok(Field { number: 1 | NET_LAYERS | NET_LAYER, value: Value::Bytes(value) })
            if value.len() < bytes.len())
    })
}

// Field numbers of caffe.proto.
const NET_LAYERS: u64 = 2;
const NET_LAYER: u64 = 100;
const V1_TYPE_CONVOLUTION: u64 = 4;
const V1_TYPE_INNER_PRODUCT: u64 = 14;

fn corrupt(cause: impl Into<String>) -> WeightsError {
    protobuf::corrupt(FORMAT, cause)
}

/// The layers that have learned values, in the order of the file.
///
/// # Errors
/// When the bytes are not a protocol buffer of that form.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Layer>, WeightsError> {
    let mut layers = Vec::new();
    for field in protobuf::fields(FORMAT, bytes) {
        let layer = match field? {
            Field { number: NET_LAYERS, value: Value::Bytes(bytes) } => {
                layer(bytes, LayerFields { name: 4, kind: 5, blobs: 6 })?
            }
            Field { number: NET_LAYER, value: Value::Bytes(bytes) } => {
                layer(bytes, LayerFields { name: 1, kind: 2, blobs: 7 })?
            }
            _ => continue,
        };
        if !layer.blobs.is_empty() {
            layers.push(layer);
        }
    }
    Ok(layers)
}

struct LayerFields {
    name: u64,
    kind: u64,
    blobs: u64,
}

fn layer(bytes: &[u8], numbers: LayerFields) -> Result<Layer, WeightsError> {
    let mut layer = Layer { name: String::new(), kind: String::new(), blobs: Vec::new() };
    for field in protobuf::fields(FORMAT, bytes) {
        let Field { number, value } = field?;
        match value {
            Value::Bytes(text) if number == numbers.name => {
                layer.name = String::from_utf8_lossy(text).into_owned()
            }
            Value::Bytes(text) if number == numbers.kind => {
                layer.kind = String::from_utf8_lossy(text).into_owned()
            }
            Value::Number(kind) if number == numbers.kind => {
                layer.kind = match kind {
                    V1_TYPE_CONVOLUTION => "Convolution".into(),
                    V1_TYPE_INNER_PRODUCT => "InnerProduct".into(),
                    other => other.to_string(),
                }
            }
            Value::Bytes(bytes) if number == numbers.blobs => {
                let blob = blob(bytes).map_err(|error| match error {
                    WeightsError::Corrupt { format, cause } => {
                        WeightsError::Corrupt { format, cause: format!("layer {}: {cause}", layer.name) }
                    }
                    other => other,
                })?;
                layer.blobs.push(blob);
            }
            _ => {}
        }
    }
    Ok(layer)
}

/// `BlobProto`: a shape, or the four sizes that files from before 2014 have, without leading sizes of 1.
fn blob(bytes: &[u8]) -> Result<Tensor, WeightsError> {
    let size = |value: u64| usize::try_from(value).map_err(|_| corrupt("a blob is larger than memory"));
    let mut shape: Option<Vec<usize>> = None;
    let mut old = [None; 4];
    let mut data = Vec::new();
    for field in protobuf::fields(FORMAT, bytes) {
        match field? {
            Field { number: number @ 1..=4, value: Value::Number(value) } => {
                if let Some(slot) = old.get_mut(number as usize - 1) {
                    *slot = Some(size(value)?);
                }
            }
            Field { number: 5, value: Value::Bytes(packed) } => {
                let (values, rest) = packed.as_chunks();
                if !rest.is_empty() {
                    return Err(corrupt("a blob ends within a value"));
                }
                data.extend(values.iter().map(|x| f32::from_le_bytes(*x)));
            }
            Field { number: 5, value: Value::Fixed32(value) } => data.push(f32::from_le_bytes(value)),
            Field { number: 8, value: Value::Bytes(packed) } => {
                let (values, rest) = packed.as_chunks();
                if !rest.is_empty() {
                    return Err(corrupt("a blob ends within a value"));
                }
                data.extend(values.iter().map(|x| f64::from_le_bytes(*x) as f32));
            }
            Field { number: 8, value: Value::Fixed64(value) } => data.push(f64::from_le_bytes(value) as f32),
            Field { number: 7, value: Value::Bytes(bytes) } => {
                let sizes = shape.get_or_insert_default();
                for field in protobuf::fields(FORMAT, bytes) {
                    match field? {
                        Field { number: 1, value: Value::Number(value) } => sizes.push(size(value)?),
                        Field { number: 1, value: Value::Bytes(mut packed) } => {
                            while !packed.is_empty() {
                                sizes.push(size(varint(FORMAT, &mut packed)?)?);
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let shape = shape.unwrap_or_else(|| {
        let sizes = old.map(|size| size.unwrap_or(1));
        let ones = sizes.iter().take(3).take_while(|&&size| size == 1).count();
        sizes.get(ones..).unwrap_or_default().to_vec()
    });
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if count != Some(data.len()) {
        return Err(corrupt(format!("a blob of {shape:?} holds {} values", data.len())));
    }
    Ok(Tensor { shape, data })
}
