//! Weights in the form of a safetensors file, converted on demand.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use safetensors::{Dtype, SafeTensors};

use super::{Hash, ModelId, Precision, Tensor, Weights, WeightsError, all_finite, import};

/// A source of tensors for a network.
pub trait Source: Sync {
    /// The sizes of a tensor, outermost first.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Its values.
    fn values(&self, name: &str) -> Option<Cow<'_, [f32]>>;

    /// The same as little-endian numbers of half precision, where the file holds them.
    fn halves(&self, name: &str) -> Option<&[[u8; 2]]>;
}

impl Source for Weights {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    fn values(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        self.tensors.get(name).map(|tensor| Cow::from(&tensor.data))
    }

    fn halves(&self, _: &str) -> Option<&[[u8; 2]]> {
        None
    }
}

/// A safetensors file in memory. Its tensors are converted to f32 on demand. That takes half the memory if
/// they are of half precision, and none for tensors that are not used.
pub struct Stored<'a> {
    bytes: Cow<'a, [u8]>,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorLocation>,
}

/// The location of a tensor in the file.
struct TensorLocation {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// Values that are converted and checked together.
const CHUNK: usize = 16 * 1024;

impl<'a> Stored<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is not a safetensors file, or holds tensors of integers. The error names it.
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path)
            .map_err(|source| WeightsError::Read { path: path.display().to_string(), source })?;
        Self::new(bytes).map_err(|error| error.in_file(path.display()))
    }

    /// The tensors in the bytes of a file.
    pub(super) fn new(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, WeightsError> {
        let bytes = bytes.into();
        let corrupt = |error: safetensors::SafeTensorError| WeightsError::Corrupt {
            format: "safetensors",
            cause: error.to_string(),
        };
        if let Some(format) = import::foreign_format(&bytes) {
            return Err(WeightsError::Unsupported(format!(
                "this is a {format}: convert it with 'sphereface models import' first"
            )));
        }
        // Checks that all tensors are within the file and as long as their shapes say.
        SafeTensors::deserialize(&bytes).map_err(corrupt)?;
        let (header_len, header) = SafeTensors::read_metadata(&bytes).map_err(corrupt)?;
        let start = size_of::<u64>() + header_len;
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors() {
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
                return Err(WeightsError::WrongType { tensor: name, found: info.dtype.to_string() });
            }
            let (from, to) = info.data_offsets;
            let bytes = start + from..start + to;
            tensors.insert(name, TensorLocation { dtype: info.dtype, shape: info.shape.clone(), bytes });
        }
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(Self { bytes, metadata, tensors })
    }

    /// The same with an entry of metadata added, or replaced if the key exists.
    pub(super) fn with_metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Metadata as stored in the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let values = self.values(name)?.into_owned();
        self.shape(name).map(|shape| Tensor { shape: shape.to_vec(), data: values })
    }

    /// All of them.
    ///
    /// # Errors
    /// Names the first that holds a value that is not finite.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        let tensors = self.tensors.keys().filter_map(|name| Some((name.clone(), self.tensor(name)?)));
        let weights = Weights { tensors: tensors.collect(), metadata: self.metadata.clone() };
        weights.check_finite(Precision::F32)?;
        Ok(weights)
    }

    /// The identifier of these tensors, that of [`weights`](Self::weights).
    ///
    /// # Errors
    /// Names the first that holds a value that is not finite.
    pub fn id(&self) -> Result<ModelId, WeightsError> {
        let mut hash = Hash::default();
        let mut values = vec![0.0; CHUNK];
        for (name, place) in &self.tensors {
            hash.tensor(name, &place.shape);
            let size = place.dtype.bitsize() / 8;
            for bytes in self.bytes[place.bytes.clone()].chunks(CHUNK * size) {
                let values = &mut values[..bytes.len() / size];
                floats(place.dtype, bytes, values);
                if !all_finite(values) {
                    return Err(WeightsError::NotFinite { tensor: name.clone(), precision: Precision::F32 });
                }
                hash.values(values);
            }
        }
        Ok(hash.finish())
    }
}

impl Source for Stored<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    fn values(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        let place = self.tensors.get(name)?;
        let mut values = vec![0.0; place.shape.iter().product()];
        floats(place.dtype, &self.bytes[place.bytes.clone()], &mut values);
        Some(values.into())
    }

    fn halves(&self, name: &str) -> Option<&[[u8; 2]]> {
        let place = self.tensors.get(name).filter(|place| place.dtype == Dtype::F16)?;
        Some(self.bytes[place.bytes.clone()].as_chunks().0)
    }
}

impl fmt::Debug for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// Little-endian values as f32. For a type that weights cannot have, `to` is unchanged.
fn floats(dtype: Dtype, bytes: &[u8], to: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], to: &mut [f32], value: impl Fn([u8; N]) -> f32) {
        to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, chunk)| *to = value(*chunk));
    }
    match dtype {
        Dtype::F32 => each(bytes, to, f32::from_le_bytes),
        Dtype::F16 => {
            let mut bits = [0; 1024];
            for (to, halves) in to.chunks_mut(bits.len()).zip(bytes.as_chunks().0.chunks(bits.len())) {
                let bits = &mut bits[..halves.len()];
                bits.iter_mut().zip(halves).for_each(|(bits, half)| *bits = u16::from_le_bytes(*half));
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(to);
            }
        }
        Dtype::BF16 => each(bytes, to, |x| half::bf16::from_le_bytes(x).to_f32()),
        Dtype::F64 => each(bytes, to, |x| f64::from_le_bytes(x) as f32),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let tensor = |shape: &[usize], seed: usize| {
            let values =
                (0..shape.iter().product()).map(|i: usize| ((i * 37 + seed) % 101) as f32 / 64.0 - 0.75);
            Tensor { shape: shape.to_vec(), data: values.collect() }
        };
        let tensors = [("b", tensor(&[3, 7000], 1)), ("a", tensor(&[5], 2)), ("empty", tensor(&[0, 4], 3))];
        Weights {
            tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into(),
            metadata: [("key".to_owned(), "value".to_owned())].into(),
        }
    }

    #[test]
    fn what_is_stored_is_what_was_saved() {
        let weights = weights();
        for precision in [Precision::F32, Precision::F16] {
            let bytes = weights.to_safetensors(precision).unwrap();
            let stored = Stored::new(&bytes).unwrap();
            assert_eq!(stored.weights().unwrap(), weights, "{precision}");
            assert_eq!(stored.id().unwrap(), weights.id(), "{precision}");
            assert_eq!(stored.metadata(), &weights.metadata);
            for (name, tensor) in &weights.tensors {
                assert_eq!(stored.tensor(name).as_ref(), Some(tensor));
                assert_eq!(stored.shape(name), weights.shape(name));
                let halves = stored.halves(name).map(|halves| halves.iter().map(|x| f16::from_le_bytes(*x)));
                assert_eq!(halves.is_some(), precision == Precision::F16);
                assert!(halves.is_none_or(|halves| halves.map(f16::to_f32).eq(tensor.data.iter().copied())));
            }
            assert!(stored.tensor("c").is_none() && stored.shape("c").is_none());
        }
    }

    #[test]
    fn what_is_not_finite_has_no_identifier() {
        let mut weights = weights();
        let mut bytes = weights.to_safetensors(Precision::F32).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        let stored = Stored::new(&bytes).unwrap();
        for error in [stored.id().map(drop).unwrap_err(), stored.weights().map(drop).unwrap_err()] {
            assert!(matches!(&error, WeightsError::NotFinite { tensor, .. } if tensor == "b"), "{error}");
        }
        weights.tensors.clear();
        assert_eq!(
            Stored::new(weights.to_safetensors(Precision::F32).unwrap()).unwrap().id().unwrap(),
            weights.id()
        );
    }
}
