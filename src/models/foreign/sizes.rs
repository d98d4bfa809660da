//! Constants, and the sizes of maps that exporters compute on the way to a reshape.

use super::super::Tensor;
use super::translate::{Translator, Value};
use super::{Attribute, Constant, Node};

/// The operator of that name.
pub(super) fn constant(node: &Node) -> Result<Value, String> {
    let one = |values: Vec<i64>| Constant::Wholes { shape: vec![values.len()], values };
    let floats = |data: Vec<f32>| Constant::Floats(Tensor { shape: vec![data.len()], data });
    let found = node.attributes.iter().find_map(|(name, attribute)| match (name.as_str(), attribute) {
        ("value", Attribute::Constant(constant)) => Some(constant.clone()),
        ("value_int", Attribute::Whole(value)) => Some(one(vec![*value]).with_shape(Vec::new())),
        ("value_ints", Attribute::Wholes(values)) => Some(one(values.clone())),
        ("value_float", Attribute::Float(value)) => Some(floats(vec![*value]).with_shape(Vec::new())),
        ("value_floats", Attribute::Floats(values)) => Some(floats(values.clone())),
        _ => None,
    });
    found.map(Value::Constant).ok_or_else(|| "it holds no numbers".to_owned())
}

/// A constant in another shape. One size may be -1, which stands for the remaining values.
pub(super) fn reshaped(constant: Constant, sizes: &[i64]) -> Result<Constant, String> {
    let count = constant.len();
    let known: i64 =
        sizes.iter().filter(|&&size| size != -1).try_fold(1i64, |all, &n| all.checked_mul(n)).unwrap_or(0);
    let open = count as i64 / known.max(1);
    let shape: Option<Vec<usize>> =
        sizes.iter().map(|&size| usize::try_from(if size == -1 { open } else { size }).ok()).collect();
    let all = shape.as_ref().and_then(|shape| shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n)));
    match shape {
        Some(shape) if all == Some(count) => Ok(constant.with_shape(shape)),
        _ => Err(format!("{count} numbers do not fit the shape {sizes:?}")),
    }
}

/// A transposed matrix.
pub(super) fn transposed(matrix: Tensor) -> Result<Tensor, String> {
    let &[rows, columns] = matrix.shape.as_slice() else {
        return Err("among constants, only matrices can be transposed".to_owned());
    };
    let data = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let data = data.map(|at| matrix.data[at]).collect();
    Ok(Tensor { shape: vec![columns, rows], data })
}

impl Translator<'_> {
    /// The sizes of a value.
    pub(super) fn sizes_of(&self, node: &Node) -> Result<Value, String> {
        let values = match self.value(node, 0)? {
            Value::Map(map) => self.sizes(map),
            Value::Constant(Constant::Floats(Tensor { shape, .. }) | Constant::Wholes { shape, .. }) => {
                shape.iter().map(|&size| size as i64).collect()
            }
            Value::Norm(_) | Value::Spread(..) => {
                return Err("the sizes of a repetition are not supported".to_owned());
            }
        };
        // Newer versions of ONNX can select a range of sizes.
        let rank = values.len() as i64;
        let place = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
        let (start, end) = (place(node.whole("start", 0)), place(node.whole("end", rank)));
        let values = values.get(start..end).unwrap_or_default().to_vec();
        Ok(Value::Constant(Constant::Wholes { shape: vec![values.len()], values }))
    }

    /// The operations of exporters on sizes: selecting and concatenating.
    pub(super) fn of_sizes(&self, node: &Node) -> Result<Value, String> {
        let mut lists = Vec::new();
        for index in 0..node.inputs.len() {
            match self.optional(node, index)? {
                Some(Value::Constant(Constant::Wholes { values, .. })) => lists.push(values),
                Some(Value::Constant(Constant::Floats(tensor)))
                    if node.operator == "Unsqueeze" && index == 0 =>
                {
                    return self.unsqueezed(node, tensor);
                }
                _ => return Err("it is supported for sizes only".to_owned()),
            }
        }
        let values = match (node.operator.as_str(), lists.as_slice()) {
            ("Concat", lists) => lists.concat(),
            ("Unsqueeze", [values, ..]) if values.len() == 1 => values.clone(),
            ("Gather", [values, picked]) => {
                let pick = |&index: &i64| {
                    let index = if index < 0 { index + values.len() as i64 } else { index };
                    usize::try_from(index).ok().and_then(|index| values.get(index).copied())
                };
                let picked: Option<Vec<_>> = picked.iter().map(pick).collect();
                picked.ok_or_else(|| "it selects a size that does not exist".to_owned())?
            }
            ("Slice", [values, starts, ends, rest @ ..])
                if starts.len() == 1 && ends.len() == 1 && rest.get(1).is_none_or(|steps| steps == &[1]) =>
            {
                let place = |at: i64| {
                    let at = if at < 0 { at.saturating_add(values.len() as i64) } else { at };
                    at.clamp(0, values.len() as i64) as usize
                };
                values.get(place(starts[0])..place(ends[0])).unwrap_or_default().to_vec()
            }
            _ => return Err("it is not supported for these sizes".to_owned()),
        };
        Ok(Value::Constant(Constant::Wholes { shape: vec![values.len()], values }))
    }

    /// Inserts axes of size 1 into a constant, such as slopes.
    fn unsqueezed(&self, node: &Node, tensor: Tensor) -> Result<Value, String> {
        let mut axes = self.list(node, "axes", 1)?.unwrap_or_default();
        let rank = (tensor.shape.len() + axes.len()) as i64;
        axes.iter_mut().filter(|axis| **axis < 0).for_each(|axis| *axis += rank);
        axes.sort_unstable();
        let mut shape = tensor.shape;
        for axis in axes {
            let place = usize::try_from(axis).ok().filter(|&place| place <= shape.len());
            shape.insert(place.ok_or_else(|| format!("it has no axis {axis}"))?, 1);
        }
        Ok(Value::Constant(Constant::Floats(Tensor { shape, data: tensor.data })))
    }
}
