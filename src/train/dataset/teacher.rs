//! A teacher's embeddings in a NumPy array.

use std::path::Path;

use half::f16;

use crate::train::TrainError;

/// Embeddings of a teacher, one row of unit length per image of a data set.
#[derive(Debug, Clone)]
pub struct Teacher {
    values: Vec<f32>,
    size: usize,
}

impl Teacher {
    /// Reads an .npy file [`rows`, size] of f16, f32 or f64 and normalises its rows.
    ///
    /// # Errors
    /// When it cannot be read, has another shape, or a row is a zero vector or not finite.
    pub fn read(path: &Path, rows: usize) -> Result<Self, TrainError> {
        let bytes =
            std::fs::read(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
        let error = |cause: String| TrainError::Teacher { path: path.to_owned(), cause };
        let (kind, found, size, data) = parse(&bytes)
            .ok_or_else(|| error("it is not a two-dimensional NumPy array in C order".into()))?;
        if found != rows {
            return Err(error(format!("it has {found} rows, but the data set has {rows} images")));
        }
        let mut values: Vec<f32> = match kind {
            "<f2" => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            "<f4" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "<f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            other => return Err(error(format!("its values are of type {other}"))),
        };
        if size == 0 || rows.checked_mul(size) != Some(values.len()) {
            return Err(error(format!("{} values are not {rows} rows of {size}", values.len())));
        }
        for (number, row) in values.chunks_exact_mut(size).enumerate() {
            let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            if !(length.is_finite() && length > 0.0) {
                return Err(error(format!("row {number} is a zero vector or not finite")));
            }
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        Ok(Self { values, size })
    }

    /// Size of an embedding.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The embedding of an image by its index in the data set.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.size..][..self.size]
    }
}

/// Type, rows, columns and data of an .npy file.
fn parse(bytes: &[u8]) -> Option<(&str, usize, usize, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, start) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 4usize),
        [2 | 3, _, a, b, c, d, ..] => (usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?, 6),
        _ => return None,
    };
    let header = std::str::from_utf8(rest.get(start..start.checked_add(length)?)?).ok()?;
    let data = rest.get(start + length..)?;
    let after = |key: &str| Some(header.split_once(key)?.1.trim_start());
    let kind = after("'descr':")?.strip_prefix('\'')?.split_once('\'')?.0;
    if !after("'fortran_order':")?.starts_with("False") {
        return None;
    }
    let shape = after("'shape':")?.strip_prefix('(')?.split_once(')')?.0;
    let sizes: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().ok())
        .collect::<Option<_>>()?;
    let &[rows, columns] = sizes.as_slice() else { return None };
    Some((kind, rows, columns, data))
}
