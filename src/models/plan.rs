//! Imported embedding networks as data: a list of steps over feature maps.
//!
//! [`Architecture`](super::arch::Architecture) knows one family of networks by its name. A [`Plan`] is any
//! chain or graph of convolutions, fully connected layers, sums and pools that takes an aligned face and
//! ends in a vector. Value 0 is the picture, and step `i` makes value `i + 1`. A vector is a map of one
//! pixel, so there is only one kind of value.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of the metadata key `architecture` of a network that is stored as a plan.
pub const PLANNED: &str = "plan";

/// The metadata key that holds the plan.
const KEY: &str = "plan";

/// Channels of the picture.
pub const COLOURS: usize = 3;

/// The tensors that normalise the picture: every value of a channel times a scale, plus a shift.
pub const INPUT: [&str; 2] = ["input.scale", "input.shift"];

/// The most steps of a plan, far above any real network.
const MOST_STEPS: usize = 4096;

/// The most channels of a map.
const MOST_CHANNELS: usize = 65_536;

/// The most values of a map: a hundred times the largest map of a real network.
const MOST_VALUES: usize = 1 << 26;

/// The most parameters: four times those of the largest networks in use.
const MOST_PARAMETERS: usize = 1 << 28;

/// A network as a list of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Rows and columns of the picture.
    pub input: [usize; 2],
    /// The steps in the order of evaluation.
    pub steps: Vec<Step>,
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The operation.
    #[serde(flatten)]
    pub operation: Operation,
    /// The values that it takes: two for a sum or a product, one for everything else.
    pub of: Vec<usize>,
    /// Whether a PReLU with one slope per channel follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prelu: bool,
}

// serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// The operation of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// A convolution with bias, `weight` [channels, input channels, rows, columns].
    Convolution {
        /// Output channels.
        channels: usize,
        /// Where it looks.
        #[serde(flatten)]
        window: Window,
    },
    /// A convolution of each channel by itself, with bias, `weight` [channels, 1, rows, columns].
    Depthwise {
        /// Where it looks.
        #[serde(flatten)]
        window: Window,
    },
    /// A fully connected layer over all of a map, with bias, `weight` [channels, input channels, rows,
    /// columns].
    Linear {
        /// Output values.
        channels: usize,
    },
    /// Every value of a channel times a `scale`, plus a `shift`.
    Scale,
    /// The sum of two maps of one shape.
    Add,
    /// A map times another map of its shape, or each of its channels times one value of a vector.
    Multiply,
    /// 1 / (1 + exp(-x)) of every value.
    Sigmoid,
    /// Every value of a channel, limited to the range from `least` to `most`.
    Clamp,
    /// The largest value of each window.
    MaxPool {
        /// Where it looks.
        #[serde(flatten)]
        window: Window,
    },
    /// The mean of all pixels.
    Mean,
}

impl Operation {
    /// Whether its kernel can apply a PReLU.
    pub(crate) fn carries_prelu(&self) -> bool {
        match self {
            Self::Convolution { .. }
            | Self::Depthwise { .. }
            | Self::Linear { .. }
            | Self::Scale
            | Self::Add => true,
            Self::Multiply | Self::Sigmoid | Self::Clamp | Self::MaxPool { .. } | Self::Mean => false,
        }
    }
}

/// The window of a convolution or a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next, down and across.
    pub stride: [usize; 2],
    /// Padding in pixels at the top, on the left, at the bottom and on the right. It is zero for a
    /// convolution and ignored by a pool.
    pub padding: [usize; 4],
}

impl Window {
    /// Rows and columns of the output for a map of `rows` and `columns`; `None` if no window fits, or a
    /// window could consist of padding only.
    pub fn output(&self, [rows, columns]: [usize; 2]) -> Option<[usize; 2]> {
        let Self { kernel, stride, padding } = self;
        let along = |size: usize, axis: usize| {
            let (before, after) = (padding[axis], padding[axis + 2]);
            let most = 1..=256;
            if !most.contains(&kernel[axis])
                || !most.contains(&stride[axis])
                || before.max(after) >= kernel[axis]
            {
                return None;
            }
            Some((size + before + after).checked_sub(kernel[axis])? / stride[axis] + 1)
        };
        Some([along(rows, 0)?, along(columns, 1)?])
    }
}

/// Channels, rows and columns of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl Shape {
    /// The number of values.
    pub fn values(&self) -> usize {
        self.channels * self.rows * self.columns
    }

    /// Whether it is a vector: a map of one pixel.
    pub fn is_vector(&self) -> bool {
        (self.rows, self.columns) == (1, 1)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.rows, self.columns)
    }
}

/// Why a plan is not a valid network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The metadata has no plan, or one that cannot be read.
    #[error("the plan of the network cannot be read ({0}): import the network again")]
    Unreadable(String),
    /// The picture has a size that no crop of a face has.
    #[error("the network takes pictures of {rows}x{columns}, and faces are cropped to 112x112 or 112x96")]
    Input {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// A step cannot be computed.
    #[error("step {step} of the network cannot be computed: {reason}")]
    Step {
        /// Its number, from 0.
        step: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The last step does not give a vector.
    #[error("the network ends in {0} and not in a vector")]
    NoVector(String),
    /// A network larger than any in use.
    #[error("the network has more than {most} {what}")]
    TooLarge {
        /// The name of the quantity.
        what: &'static str,
        /// Its maximum.
        most: usize,
    },
}

impl Plan {
    /// The plan in the metadata of a model file; `None` when they describe another kind of network.
    ///
    /// # Errors
    /// When it cannot be read, or is not a valid network.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Result<Self, PlanError>> {
        metadata.get("architecture").filter(|name| *name == PLANNED)?;
        let text = metadata.get(KEY).map(String::as_str).unwrap_or_default();
        let plan = serde_json::from_str(text).map_err(|error| PlanError::Unreadable(error.to_string()));
        Some(plan.and_then(|plan: Self| plan.shapes().map(|_| plan)))
    }

    /// The metadata that [`from_metadata`](Self::from_metadata) reads, and further entries that describe the
    /// network.
    ///
    /// # Errors
    /// When this is not a valid network.
    pub fn to_metadata(&self) -> Result<[(String, String); 4], PlanError> {
        let shapes = self.shapes()?;
        let embedding = shapes.last().map_or(0, |shape| shape.channels);
        let text = serde_json::to_string(self).map_err(|error| PlanError::Unreadable(error.to_string()))?;
        let pair = |key: &str, value: String| (key.to_owned(), value);
        let [rows, columns] = self.input;
        Ok([
            pair("architecture", PLANNED.to_owned()),
            pair(KEY, text),
            pair("embedding_size", embedding.to_string()),
            pair("input", format!("{rows}x{columns}")),
        ])
    }

    /// The shape of every value, the picture first.
    ///
    /// # Errors
    /// Names the first step that cannot be computed. Sizes far above any real network are refused too, so
    /// that computations with them cannot overflow.
    pub fn shapes(&self) -> Result<Vec<Shape>, PlanError> {
        let [rows, columns] = self.input;
        if rows != 112 || !matches!(columns, 96 | 112) {
            return Err(PlanError::Input { rows, columns });
        }
        if self.steps.len() > MOST_STEPS {
            return Err(PlanError::TooLarge { what: "steps", most: MOST_STEPS });
        }
        let mut shapes = vec![Shape { channels: COLOURS, rows, columns }];
        let mut parameters = 0usize;
        for (number, step) in self.steps.iter().enumerate() {
            let shape = step.shape(&shapes).map_err(|reason| PlanError::Step { step: number, reason })?;
            if shape.channels > MOST_CHANNELS || shape.values() > MOST_VALUES {
                return Err(PlanError::TooLarge { what: "values in a map", most: MOST_VALUES });
            }
            let own = step.tensors(number, &shapes, shape);
            let own =
                own.iter().map(|(_, sizes)| sizes.iter().fold(1usize, |n, &size| n.saturating_mul(size)));
            parameters = own.fold(parameters, usize::saturating_add);
            if parameters > MOST_PARAMETERS {
                return Err(PlanError::TooLarge { what: "parameters", most: MOST_PARAMETERS });
            }
            shapes.push(shape);
        }
        match shapes.last() {
            Some(last) if last.is_vector() && !self.steps.is_empty() => Ok(shapes),
            Some(last) => Err(PlanError::NoVector(format!("a map of {last}"))),
            None => Err(PlanError::NoVector("nothing".to_owned())),
        }
    }

    /// Every tensor of the network with its shape; empty when this is not a valid network.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Ok(shapes) = self.shapes() else { return Vec::new() };
        let mut list: Vec<_> = INPUT.iter().map(|name| ((*name).to_owned(), vec![COLOURS])).collect();
        for (number, step) in self.steps.iter().enumerate() {
            list.extend(step.tensors(number, &shapes, shapes[number + 1]));
        }
        list
    }

    /// Size of the embedding; 0 when this is not a valid network.
    pub fn embedding(&self) -> usize {
        self.shapes().ok().and_then(|shapes| shapes.last().map(|shape| shape.channels)).unwrap_or(0)
    }

    /// Operations on one picture, two for each multiply-add of its convolutions and fully connected layers.
    pub fn operations(&self) -> f64 {
        let Ok(shapes) = self.shapes() else { return 0.0 };
        let of = |(step, shape): (&Step, &Shape)| {
            let from = shapes[step.of[0]];
            let products = match &step.operation {
                Operation::Convolution { window, .. } => from.channels * window.kernel[0] * window.kernel[1],
                Operation::Depthwise { window } => window.kernel[0] * window.kernel[1],
                Operation::Linear { .. } => from.values(),
                _ => 0,
            };
            2.0 * shape.values() as f64 * products as f64
        };
        self.steps.iter().zip(&shapes[1..]).map(of).sum()
    }
}

impl Step {
    /// The shape of its output for inputs of the shapes `before`, or the reason why there is none.
    pub(crate) fn shape(&self, before: &[Shape]) -> Result<Shape, String> {
        let wanted = match self.operation {
            Operation::Add | Operation::Multiply => 2,
            _ => 1,
        };
        if self.of.len() != wanted {
            return Err(format!("it takes {} values and needs {wanted}", self.of.len()));
        }
        let Some(from) = self.of.iter().map(|&value| before.get(value).copied()).collect::<Option<Vec<_>>>()
        else {
            return Err("it uses a value that no earlier step computes".to_owned());
        };
        if self.prelu && !self.operation.carries_prelu() {
            return Err("no PReLU can follow in the same step".to_owned());
        }
        let first = from[0];
        let through = |window: &Window, channels: usize| match window.output([first.rows, first.columns]) {
            Some([rows, columns]) => Ok(Shape { channels, rows, columns }),
            None => Err(format!("its window {window:?} does not fit a map of {first}")),
        };
        match &self.operation {
            Operation::Convolution { channels: 0, .. } | Operation::Linear { channels: 0 } => {
                Err("it has no output channel".to_owned())
            }
            Operation::Convolution { channels, window } => through(window, *channels),
            Operation::Depthwise { window } | Operation::MaxPool { window } => {
                through(window, first.channels)
            }
            Operation::Linear { channels } => Ok(Shape { channels: *channels, rows: 1, columns: 1 }),
            Operation::Mean => Ok(Shape { rows: 1, columns: 1, ..first }),
            Operation::Scale | Operation::Sigmoid | Operation::Clamp => Ok(first),
            Operation::Add if from[1] == first => Ok(first),
            Operation::Add => Err(format!("maps of {first} and {} have no sum", from[1])),
            Operation::Multiply
                if from[1] == first || (from[1].is_vector() && from[1].channels == first.channels) =>
            {
                Ok(first)
            }
            Operation::Multiply => Err(format!("maps of {first} and {} have no product", from[1])),
        }
    }

    /// Its tensors.
    fn tensors(&self, number: usize, before: &[Shape], shape: Shape) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        let mut tensor = |what, sizes: &[usize]| list.push((tensor_name(number, what), sizes.to_vec()));
        let from = before[self.of[0]];
        let channels = shape.channels;
        match &self.operation {
            Operation::Convolution { window: Window { kernel: [rows, columns], .. }, .. } => {
                tensor("weight", &[channels, from.channels, *rows, *columns]);
                tensor("bias", &[channels]);
            }
            Operation::Depthwise { window: Window { kernel: [rows, columns], .. } } => {
                tensor("weight", &[channels, 1, *rows, *columns]);
                tensor("bias", &[channels]);
            }
            Operation::Linear { .. } => {
                tensor("weight", &[channels, from.channels, from.rows, from.columns]);
                tensor("bias", &[channels]);
            }
            Operation::Scale => {
                tensor("scale", &[channels]);
                tensor("shift", &[channels]);
            }
            Operation::Clamp => {
                tensor("least", &[channels]);
                tensor("most", &[channels]);
            }
            Operation::Add
            | Operation::Multiply
            | Operation::Sigmoid
            | Operation::MaxPool { .. }
            | Operation::Mean => {}
        }
        if self.prelu {
            tensor("slopes", &[channels]);
        }
        list
    }
}

/// The name of a tensor of a step: `step007.weight`.
pub fn tensor_name(step: usize, what: &str) -> String {
    format!("step{step:03}.{what}")
}

impl fmt::Display for Plan {
    /// A short description of its layers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |wanted: fn(&Operation) -> bool| self.steps.iter().filter(|s| wanted(&s.operation)).count();
        let depthwise = count(|operation| matches!(operation, Operation::Depthwise { .. }));
        let convolutions = depthwise + count(|operation| matches!(operation, Operation::Convolution { .. }));
        write!(f, "{convolutions} convolutions")?;
        if depthwise > 0 {
            write!(f, " ({depthwise} depthwise)")?;
        }
        write!(f, ", {} fully connected", count(|operation| matches!(operation, Operation::Linear { .. })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize, padding: usize) -> Window {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 4] }
    }

    fn step(operation: Operation, of: &[usize]) -> Step {
        Step { operation, of: of.to_vec(), prelu: false }
    }

    fn plan() -> Plan {
        let steps = vec![
            Step {
                prelu: true,
                ..step(Operation::Convolution { channels: 8, window: window(3, 2, 1) }, &[0])
            },
            step(Operation::Depthwise { window: window(3, 1, 1) }, &[1]),
            step(Operation::Add, &[1, 2]),
            step(Operation::Scale, &[3]),
            step(Operation::MaxPool { window: window(1, 2, 0) }, &[4]),
            step(Operation::Linear { channels: 16 }, &[5]),
        ];
        Plan { input: [112, 112], steps }
    }

    #[test]
    fn metadata_hold_the_plan_and_its_sizes() {
        let plan = plan();
        let metadata = BTreeMap::from(plan.to_metadata().unwrap());
        assert_eq!(Plan::from_metadata(&metadata), Some(Ok(plan.clone())));
        assert_eq!((metadata["embedding_size"].as_str(), metadata["input"].as_str()), ("16", "112x112"));
        let shapes: Vec<_> = plan.shapes().unwrap().iter().map(Shape::to_string).collect();
        let expected = ["3x112x112", "8x56x56", "8x56x56", "8x56x56", "8x56x56", "8x28x28", "16x1x1"];
        assert_eq!(shapes, expected);
        let tensors: BTreeMap<_, _> = plan.tensors().into_iter().collect();
        assert_eq!(tensors["step000.weight"], [8, 3, 3, 3]);
        assert_eq!(tensors["step000.slopes"], [8]);
        assert_eq!(tensors["step001.weight"], [8, 1, 3, 3]);
        assert_eq!(tensors["step005.weight"], [16, 8, 28, 28]);
        assert_eq!(tensors["input.scale"], [3]);
        assert_eq!(plan.to_string(), "2 convolutions (1 depthwise), 1 fully connected");
        let products = 8 * 56 * 56 * (27 + 9) + 16 * 8 * 28 * 28;
        assert_eq!(plan.operations(), 2.0 * f64::from(products));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_reason() {
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.shapes().unwrap_err().to_string()
        };
        assert!(refused(&|plan| plan.input = [160, 160]).contains("160x160"));
        assert!(refused(&|plan| plan.steps[2].of[1] = 7).contains("no earlier step"));
        assert!(refused(&|plan| plan.steps[2].of[1] = 0).contains("have no sum"));
        assert!(refused(&|plan| plan.steps[3].of = vec![]).contains("takes 0 values"));
        assert!(refused(&|plan| plan.steps[4].prelu = true).contains("no PReLU can follow"));
        let product = |plan: &mut Plan| plan.steps[2] = step(Operation::Multiply, &[1, 0]);
        assert!(refused(&product).contains("have no product"));
        assert!(refused(&|plan| plan.steps.truncate(5)).contains("a map of 8x28x28"));
        assert!(refused(&|plan| plan.steps.clear()).contains("a map of 3x112x112"));
        for (kernel, stride, padding) in [(0, 1, 0), (3, 0, 0), (3, 1, 3), (113, 1, 0), (usize::MAX, 1, 0)] {
            let window = window(kernel, stride, padding);
            let change = move |plan: &mut Plan| plan.steps[1].operation = Operation::Depthwise { window };
            assert!(refused(&change).contains("does not fit"), "{window:?}");
        }
        for channels in [0, 70_000, usize::MAX] {
            let operation = Operation::Linear { channels };
            let error = refused(&|plan| plan.steps[5].operation = operation.clone());
            assert!(error.contains("no output channel") || error.contains("more than"), "{error}");
        }
        let mut metadata = BTreeMap::from(plan().to_metadata().unwrap());
        metadata
            .insert("plan".into(), "{\"input\":[112,112],\"steps\":[{\"op\":\"wish\",\"of\":[0]}]}".into());
        assert!(matches!(Plan::from_metadata(&metadata), Some(Err(PlanError::Unreadable(_)))));
        metadata.insert("architecture".into(), "sphereface20".into());
        assert_eq!(Plan::from_metadata(&metadata), None);
    }
}
