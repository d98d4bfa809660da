//! PyTorch checkpoints: the zip archives that `torch.save` writes since 1.6, and the single
//! stream of pickles followed by raw storages that it wrote before.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};

use half::{bf16, f16};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Id, Node, Pickle, Storage, View};
use super::{Tensor, WeightsError};

/// The first pickle of a stream: the number 0x1950a86a20f9469cfc6c, without its protocol byte.
const MAGIC: [u8; 13] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// Keys under which training programs store the state dictionary in a larger dictionary.
const STATE_KEYS: [&str; 6] = ["state_dict", "model", "model_state_dict", "net", "network", "backbone"];

/// Whether these are the first bytes of a checkpoint.
pub(super) fn is_checkpoint(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || is_stream(bytes)
}

fn is_stream(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80) && bytes.get(2..15) == Some(&MAGIC)
}

fn corrupt(cause: impl Into<String>) -> WeightsError {
    WeightsError::Corrupt { format: "PyTorch", cause: cause.into() }
}

/// The tensors of floating-point numbers of the state dictionary, in its order, contiguous,
/// without the prefix `module.` that data-parallel training adds.
///
/// # Errors
/// When the file is damaged, or holds no state dictionary, or holds a `weight` or `bias` of integers.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, WeightsError> {
    if is_stream(bytes) {
        return read_stream(bytes);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| corrupt(error.to_string()))?;
    let name = archive
        .file_names()
        .flatten()
        .map(|name| name.into_owned())
        .find(|name| name.ends_with("/data.pkl"))
        .ok_or_else(|| corrupt("the archive has no data.pkl"))?;
    let folder = name.trim_end_matches("data.pkl").to_owned();
    if archive.index_for_name(&format!("{folder}constants.pkl")).is_some() {
        return Err(WeightsError::Unsupported(
            "this is a TorchScript program: save the state_dict of the module instead".into(),
        ));
    }
    if let Some(index) = archive.index_for_name(&format!("{folder}byteorder"))
        && member(&mut archive, index, bytes.len())? != b"little"
    {
        return Err(WeightsError::Unsupported(
            "this checkpoint was saved on a big-endian machine: save it again on another".into(),
        ));
    }
    let index = archive.index_for_name(&name).ok_or_else(|| corrupt("the archive has no data.pkl"))?;
    let pickle = pickle::read(&member(&mut archive, index, bytes.len())?)?;
    gather(&pickle, bytes.len(), |storage| {
        let index = archive
            .index_for_name(&format!("{folder}data/{}", storage.key))
            .ok_or_else(|| corrupt(format!("the archive has no data/{}", storage.key)))?;
        member(&mut archive, index, bytes.len())
    })
}

/// The bytes of one member. Members are never compressed, so they cannot be larger than the file.
fn member(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    limit: usize,
) -> Result<Vec<u8>, WeightsError> {
    let mut file = archive.by_index(index).map_err(|error| corrupt(error.to_string()))?;
    let fits = usize::try_from(file.size()).is_ok_and(|size| size <= limit);
    if file.compression() != CompressionMethod::Stored || !fits {
        return Err(corrupt(format!("member {index} is not stored as PyTorch does")));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| corrupt(format!("member {index}: {error}")))?;
    Ok(bytes)
}

/// Magic number, protocol version, system information, the object, the keys of the storages in
/// the order in which they follow: each a 64-bit count, then its values.
fn read_stream(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let mut rest = bytes;
    let mut next = || -> Result<(Pickle, usize), WeightsError> {
        let pickle = pickle::read(rest)?;
        rest = rest.get(pickle.length..).unwrap_or_default();
        Ok((pickle, rest.len()))
    };
    for _ in 0..3 {
        next()?;
    }
    let (object, _) = next()?;
    let (keys, left) = next()?;
    let mut at = bytes.len() - left;

    let mut classes = HashMap::new();
    for node in &object.nodes {
        if let Node::Storage(storage) = node {
            classes.insert(storage.key.as_str(), storage.class.as_str());
        }
    }
    let Node::Sequence(list) = keys.node(keys.root) else {
        return Err(corrupt("it has no list of storages"));
    };
    let mut places = HashMap::new();
    for &key in list {
        let Node::Text(key) = keys.node(key) else { return Err(corrupt("a storage has no name")) };
        let class = classes
            .get(key.as_str())
            .ok_or_else(|| corrupt(format!("storage {key} belongs to no tensor")))?;
        let count =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|count| i64::from_le_bytes(*count));
        let length = count
            .and_then(|count| usize::try_from(count).ok())
            .and_then(|count| count.checked_mul(value_size(class)?));
        at += 8;
        let end = length.and_then(|length| at.checked_add(length)).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| corrupt(format!("storage {key} ends early")))?;
        places.insert(key.clone(), at..end);
        at = end;
    }
    gather(&object, bytes.len(), |storage| {
        let place = places.get(&storage.key).and_then(|place| bytes.get(place.clone()));
        place.map(<[u8]>::to_vec).ok_or_else(|| corrupt(format!("storage {} is missing", storage.key)))
    })
}

/// Bytes per value of a storage class. `None` for a class that PyTorch does not have.
fn value_size(class: &str) -> Option<usize> {
    Some(match class {
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "CharStorage" | "ByteStorage" | "BoolStorage" => 1,
        "ComplexDoubleStorage" => 16,
        _ => return None,
    })
}

/// Finds the state dictionary and reads its tensors. `limit` bounds the total number of values, since any
/// number of views may share a storage, and the total bytes of their storages, since members of an archive
/// may overlap.
fn gather(
    pickle: &Pickle,
    limit: usize,
    mut storage: impl FnMut(&Storage) -> Result<Vec<u8>, WeightsError>,
) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let (mut left, mut bytes_left) = (limit, limit);
    let mut loaded: HashMap<String, Vec<u8>> = HashMap::new();
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    for (name, view) in state(pickle)? {
        let name = name.strip_prefix("module.").unwrap_or(name).to_owned();
        if !seen.insert(name.clone()) {
            return Err(corrupt(format!("tensor {name} appears twice")));
        }
        let decode: fn(&[u8]) -> f32 = match view.storage.class.as_str() {
            "FloatStorage" => |x| f32::from_le_bytes(fixed(x)),
            "HalfStorage" => |x| f16::from_le_bytes(fixed(x)).to_f32(),
            "BFloat16Storage" => |x| bf16::from_le_bytes(fixed(x)).to_f32(),
            "DoubleStorage" => |x| f64::from_le_bytes(fixed(x)) as f32,
            // Counters and similar tensors are not weights.
            _ if !name.ends_with(".weight") && !name.ends_with(".bias") => continue,
            other => {
                return Err(WeightsError::WrongType {
                    tensor: name,
                    found: other.trim_end_matches("Storage").to_lowercase(),
                });
            }
        };
        let size = value_size(&view.storage.class).unwrap_or(1);
        let bytes = match loaded.get(&view.storage.key) {
            Some(bytes) => bytes,
            None => {
                let bytes = storage(&view.storage)?;
                bytes_left = bytes_left
                    .checked_sub(bytes.len())
                    .ok_or_else(|| corrupt("its storages are larger than the file"))?;
                loaded.entry(view.storage.key.clone()).or_insert(bytes)
            }
        };
        let tensor = contiguous(view, bytes, size, decode)
            .filter(|tensor| tensor.data.len() <= left)
            .ok_or_else(|| corrupt(format!("tensor {name} does not fit its storage")))?;
        left -= tensor.data.len();
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// The first N bytes, or zeros if there are fewer; callers pass exactly N.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// A strided view in row-major order. `None` when it reaches outside its storage or holds more
/// values than it (an expanded tensor, which no checkpoint of weights has).
fn contiguous(view: &View, bytes: &[u8], size: usize, decode: fn(&[u8]) -> f32) -> Option<Tensor> {
    let shape = &view.shape;
    // The stride of an axis of size 1 has no meaning and may have any value.
    let strides: Vec<usize> =
        shape.iter().zip(&view.strides).map(|(&n, &s)| if n == 1 { 0 } else { s }).collect();
    let values = bytes.len() / size;
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
    if shape.len() != view.strides.len() || shape.len() > 8 || count > values {
        return None;
    }
    let start = view.offset.checked_add(view.storage.offset)?;
    if count > 0 {
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(start, |at, (&n, &stride)| at.checked_add((n - 1).checked_mul(stride)?))?;
        if last >= values {
            return None;
        }
    }
    let mut data = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    let mut at = start;
    for _ in 0..count {
        data.push(decode(bytes.get(at * size..(at + 1) * size)?));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Some(Tensor { shape: shape.clone(), data })
}

/// The named tensors of the state dictionary: the object itself or under a usual key.
fn state(pickle: &Pickle) -> Result<Vec<(&str, &View)>, WeightsError> {
    let mut id = pickle.root;
    for _ in 0..3 {
        let tensors = tensors_of(pickle, id);
        if !tensors.is_empty() {
            return Ok(tensors);
        }
        let Node::Dict(pairs) = pickle.node(id) else { break };
        let find = |wanted: &&str| {
            pairs.iter().find(|(key, _)| matches!(pickle.node(*key), Node::Text(key) if key == wanted))
        };
        let Some((_, value)) = STATE_KEYS.iter().find_map(find) else { break };
        id = *value;
    }
    Err(WeightsError::Unsupported(
        "this checkpoint holds no state dictionary (a whole pickled module is not read, since that would run its code): save module.state_dict()"
            .into(),
    ))
}

fn tensors_of(pickle: &Pickle, id: Id) -> Vec<(&str, &View)> {
    let Node::Dict(pairs) = pickle.node(id) else { return Vec::new() };
    let named = pairs.iter().filter_map(|(key, value)| match (pickle.node(*key), pickle.node(*value)) {
        (Node::Text(name), Node::Tensor(view)) => Some((name.as_str(), view.as_ref())),
        _ => None,
    });
    named.collect()
}
