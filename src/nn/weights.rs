//! Named tensors in host memory, with the metadata that travels with them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

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
