//! Embedding networks of other people: from the graph in a file to a [`Plan`](crate::models::plan::Plan) and
//! its tensors.

pub(super) mod espdl;
pub(super) mod onnx;
mod operators;
mod sizes;
mod translate;

use std::collections::BTreeMap;

pub(super) use translate::translate;
pub use translate::{Normalisation, PictureOptions};

use super::Tensor;

/// A network as a file describes it: nodes in the order of evaluation, by the names of ONNX.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) constants: BTreeMap<String, Constant>,
    /// The inputs, without constants.
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<String>,
    /// Whether maps have their channels after rows and columns. Weights always have them first.
    pub(super) channels_last: bool,
}

/// An input.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    /// Its sizes; `None` for a size that is known only when the network runs.
    pub(super) sizes: Vec<Option<usize>>,
}

/// One operation.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) operator: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: BTreeMap<String, Attribute>,
}

/// An attribute of an operation.
#[derive(Debug, Clone)]
pub(super) enum Attribute {
    Whole(i64),
    Wholes(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    Text(String),
    Constant(Constant),
}

/// A constant.
#[derive(Debug, Clone)]
pub(super) enum Constant {
    Floats(Tensor),
    Wholes { shape: Vec<usize>, values: Vec<i64> },
}

impl Node {
    /// An integer attribute, or its default if it is absent.
    fn whole(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Whole(value)) => *value,
            _ => default,
        }
    }

    fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        })
    }

    fn wholes(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Wholes(values)) => Some(values),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(text)) => Some(text),
            _ => None,
        }
    }
}
