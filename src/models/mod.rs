//! Networks as data: the architecture or plan, and the weights.
//!
//! Weights are named tensors in host memory with their metadata. They are loaded from and saved to
//! safetensors, imported from other formats, and identified by the hash of their values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use half::f16;

use crate::file;

pub mod arch;
mod builtin;
mod caffe;
#[cfg(feature = "candle")]
pub mod candle;
mod foreign;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod import;
mod onnx;
mod pickle;
pub mod plan;
mod protobuf;
mod published;
mod stored;
mod torch;

pub use builtin::{BuiltIn, MTCNN, SPHEREFACE, SPHEREFACE_20};
pub use foreign::{Normalisation, PictureOptions};
pub use import::{Network, import, import_as, mtcnn_tensors};
pub use onnx::to_onnx;
pub use published::{MBF, Published};
pub use stored::{Source, Stored};

/// The value of the metadata key `format` in our own files.
pub const FORMAT: &str = "sphereface";

/// Identifier of a set of weights: the first 8 bytes of the BLAKE3 hash of its tensors
/// (names, shapes, values), written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub [u8; 8]);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ModelId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 16 || !text.is_ascii() {
            return Err(());
        }
        let mut bytes = [0; 8];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ())?;
        }
        Ok(Self(bytes))
    }
}

/// Why weights cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The program was built without trained weights.
    #[error("this program was built without trained weights, {0} among them: give a file of weights")]
    NotBundled(&'static str),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes do not follow the format.
    #[error("not a readable {format} file ({cause}): it is truncated or damaged, download it again")]
    Corrupt {
        /// The format it was read as.
        format: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// A format, or a feature of one, that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// A tensor holds values of a type that weights cannot have.
    #[error(
        "tensor {tensor} holds {found} values: weights are f32, f16, bf16 or f64, convert the file first"
    )]
    WrongType {
        /// Its name.
        tensor: String,
        /// The type found.
        found: String,
    },
    /// A tensor that the network needs is missing.
    #[error("tensor {tensor} {expected:?} is missing: these are not weights of this network")]
    Missing {
        /// Its name.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the network needs.
    #[error("tensor {tensor} is {found:?} and should be {expected:?}: these are not weights of this network")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape found.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A tensor holds a value that is not finite, or not finite as f16.
    #[error(
        "tensor {tensor} holds a value that is not a finite {precision} number: the training run diverged or the file is damaged"
    )]
    NotFinite {
        /// Its name.
        tensor: String,
        /// The type it should fit in.
        precision: Precision,
    },
    /// Any of the above, in a named file.
    #[error("{origin}: {source}")]
    In {
        /// The file, or the name of the built-in model.
        origin: String,
        /// What is wrong with it.
        source: Box<WeightsError>,
    },
}

impl WeightsError {
    /// The same error with the name of its file. A name is added only once.
    pub fn in_file(self, origin: impl fmt::Display) -> Self {
        match self {
            Self::In { .. } | Self::Read { .. } | Self::Write { .. } => self,
            other => Self::In { origin: origin.to_string(), source: Box::new(other) },
        }
    }
}

/// The format of values on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats, half the size. Values are rounded, so the identifier changes once.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        })
    }
}

/// A dense f32 tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

/// A set of weights: tensors by name, and text metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    /// Tensors by name, in our own layout (convolutions [out, in, rows, columns]).
    pub tensors: BTreeMap<String, Tensor>,
    /// Metadata as stored in the safetensors header.
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Reads a safetensors file; f16, bf16 and f64 tensors become f32.
    ///
    /// # Errors
    /// When the file cannot be read, is not a safetensors file, or holds tensors of integers or values that
    /// are not finite. The error names the file.
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        Stored::load(path)?.weights().map_err(|error| error.in_file(path.display()))
    }

    /// Reads safetensors from memory; `origin` names them in errors.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub fn from_safetensors(bytes: &[u8], origin: &str) -> Result<Self, WeightsError> {
        Stored::new(bytes).and_then(|stored| stored.weights()).map_err(|error| error.in_file(origin))
    }

    /// The bytes of a safetensors file, always the same for the same weights.
    ///
    /// # Errors
    /// When a value is not finite in that precision.
    pub fn to_safetensors(&self, precision: Precision) -> Result<Vec<u8>, WeightsError> {
        self.check_finite(precision)?;
        // The crate's own writer puts the metadata in an order that changes from run to run.
        let (name, size) = match precision {
            Precision::F32 => ("F32", 4),
            Precision::F16 => ("F16", 2),
        };
        let mut header = serde_json::Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".into(), serde_json::json!(self.metadata));
        }
        let mut end = 0;
        for (key, tensor) in &self.tensors {
            let start = end;
            end += tensor.data.len() * size;
            header.insert(
                key.clone(),
                serde_json::json!({"dtype": name, "shape": tensor.shape, "data_offsets": [start, end]}),
            );
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        for tensor in self.tensors.values() {
            match precision {
                Precision::F32 => tensor.data.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
                Precision::F16 => {
                    tensor.data.iter().for_each(|&x| bytes.extend(f16::from_f32(x).to_le_bytes()))
                }
            }
        }
        Ok(bytes)
    }

    /// Writes a safetensors file. The file appears whole under its name or not at all.
    ///
    /// # Errors
    /// When the file cannot be written, or a value is not finite in that precision.
    pub fn save(&self, path: &Path, precision: Precision) -> Result<(), WeightsError> {
        let bytes = self.to_safetensors(precision).map_err(|error| error.in_file(path.display()))?;
        file::write(path, &bytes)
            .map_err(|source| WeightsError::Write { path: path.display().to_string(), source })
    }

    /// The identifier of these tensors. Metadata does not count. Weights saved as f16 have
    /// another identifier than the f32 ones they were rounded from, and keep it from then on.
    pub fn id(&self) -> ModelId {
        let mut hash = Hash::default();
        for (name, tensor) in &self.tensors {
            hash.tensor(name, &tensor.shape);
            hash.values(&tensor.data);
        }
        hash.finish()
    }

    /// Checks in order that every tensor of `expected` is here with its shape. Further tensors are allowed.
    ///
    /// # Errors
    /// Names the first tensor that is missing or has another shape.
    pub fn expect(&self, expected: &[(String, Vec<usize>)]) -> Result<(), WeightsError> {
        for (name, shape) in expected {
            self.tensor(name, shape)?;
        }
        Ok(())
    }

    /// The values of one tensor, which must have that shape.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32], WeightsError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| WeightsError::Missing { tensor: name.to_owned(), expected: shape.to_vec() })?;
        if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
            return Err(WeightsError::Shape {
                tensor: name.to_owned(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok(&tensor.data)
    }

    /// The number of values of all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.data.len()).sum()
    }

    fn check_finite(&self, precision: Precision) -> Result<(), WeightsError> {
        let finite = |values: &[f32]| match precision {
            Precision::F32 => all_finite(values),
            Precision::F16 => values.iter().all(|&x| f16::from_f32(x).is_finite()),
        };
        match self.tensors.iter().find(|(_, tensor)| !finite(&tensor.data)) {
            Some((name, _)) => Err(WeightsError::NotFinite { tensor: name.clone(), precision }),
            None => Ok(()),
        }
    }
}

/// Whether every value is finite. Reads all of them, which is faster than stopping early.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, x| all & x.is_finite())
}

/// The same for little-endian numbers of half precision.
pub(crate) fn all_finite_halves(values: &[[u8; 2]]) -> bool {
    values.iter().fold(true, |all, x| all & f16::from_le_bytes(*x).is_finite())
}

/// The hash behind [`ModelId`], over the tensors in the order of their names.
#[derive(Default)]
struct Hash {
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl Hash {
    /// The next tensor, whose values follow.
    fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.hasher.update(&(name.len() as u64).to_le_bytes());
        self.hasher.update(name.as_bytes());
        self.hasher.update(&(shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|&size| {
            self.hasher.update(&(size as u64).to_le_bytes());
        });
    }

    fn values(&mut self, values: &[f32]) {
        for values in values.chunks(16 * 1024) {
            self.bytes.resize(4 * values.len(), 0);
            let places = self.bytes.as_chunks_mut().0.iter_mut();
            places.zip(values).for_each(|(place, x)| *place = x.to_le_bytes());
            self.hasher.update(&self.bytes);
        }
    }

    fn finish(&self) -> ModelId {
        let mut id = [0; 8];
        self.hasher.finalize_xof().fill(&mut id);
        ModelId(id)
    }
}
