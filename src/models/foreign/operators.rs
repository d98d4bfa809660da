//! Translation of each ONNX operator.

use super::super::Tensor;
use super::sizes;
use super::translate::{Map, Translator, Value};
use super::{Constant, Node};
use crate::models::plan::{Operation, Shape, Window};

/// The error of Reshape and similar operators that change the number of pictures.
const NO_BATCH: &str = "it changes the number of pictures";

impl Translator<'_> {
    /// The result of an operator on its inputs.
    pub(super) fn operator(&mut self, node: &Node) -> Result<Value, String> {
        let map = match node.operator.as_str() {
            "Constant" => return sizes::constant(node),
            "Identity" | "Dropout" => return self.value(node, 0),
            "Cast" => return self.cast(node),
            "Shape" => return self.sizes_of(node),
            "Gather" | "Slice" | "Concat" | "Unsqueeze" => return self.of_sizes(node),
            "ReduceL2" => return self.norm(node),
            "Clip" if matches!(self.value(node, 0)?, Value::Map(_)) => self.clamp(node)?,
            "Expand" if matches!(self.value(node, 0)?, Value::Map(_)) => return self.spread(node),
            "Max" | "Clip" | "Expand" => return self.of_norm(node),
            "Sigmoid" => self.sigmoid(node)?,
            "LpNormalization" => self.unit(node)?,
            "Conv" => self.convolution(node)?,
            "Gemm" => self.gemm(node)?,
            "MatMul" => self.linear(node, [false; 2], 1.0)?,
            "BatchNormalization" => self.batch_normalisation(node)?,
            "PRelu" => self.prelu_of(node)?,
            "Relu" => self.leaky(node, 0.0)?,
            "LeakyRelu" => self.leaky(node, node.float("alpha", 0.01) as f32)?,
            "Add" | "Sub" | "Mul" | "Div" => return self.arithmetic(node),
            "MaxPool" => self.max_pool(node)?,
            "GlobalAveragePool" | "AveragePool" | "ReduceMean" => self.mean(node)?,
            "Flatten" | "Reshape" | "Squeeze" | "Transpose" => return self.reshape(node),
            _ => return Err("this is not supported".to_owned()),
        };
        Ok(Value::Map(map))
    }

    /// A cast is allowed from half precision and to f32.
    fn cast(&self, node: &Node) -> Result<Value, String> {
        const FLOATS: [i64; 4] = [1, 10, 11, 16];
        const WHOLES: [i64; 2] = [6, 7];
        let to = node.whole("to", 0);
        match self.value(node, 0)? {
            Value::Constant(Constant::Wholes { shape, values }) if FLOATS.contains(&to) => {
                let data = values.iter().map(|&x| x as f32).collect();
                Ok(Value::Constant(Constant::Floats(Tensor { shape, data })))
            }
            value @ Value::Constant(Constant::Wholes { .. }) if WHOLES.contains(&to) => Ok(value),
            value @ (Value::Map(_)
            | Value::Norm(_)
            | Value::Spread(..)
            | Value::Constant(Constant::Floats(_)))
                if FLOATS.contains(&to) =>
            {
                Ok(value)
            }
            _ => Err(format!("a cast to type {to} is not supported")),
        }
    }

    /// A value with channels first that is not flattened.
    fn picture_like(&self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        if map.flat || map.axes != self.natural() {
            return Err("its input has its rows, columns and channels in another order".to_owned());
        }
        Ok(map)
    }

    fn convolution(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.picture_like(node)?;
        let shape = self.shape(map);
        let weight = self.floats(node, 1)?;
        let &[channels, inputs, rows, columns] = weight.shape.as_slice() else {
            return Err(format!(
                "its weights are {:?}, and only convolutions of pictures are supported",
                weight.shape
            ));
        };
        if weight.data.is_empty() {
            return Err("it has no weights".to_owned());
        }
        let window = window(node, [rows, columns], shape)?;
        let bias = self.bias(node, channels)?;
        let groups = usize::try_from(node.whole("group", 1)).unwrap_or(0);
        let operation = match groups {
            1 if inputs == shape.channels => Operation::Convolution { channels, window },
            _ if groups == shape.channels && channels == groups && inputs == 1 => {
                Operation::Depthwise { window }
            }
            _ => {
                return Err(format!(
                    "{channels} channels from {} in {groups} groups are not supported: one group is, or one per channel",
                    shape.channels
                ));
            }
        };
        self.step(operation, &[map.id], [("weight", weight), ("bias", bias)])
    }

    /// The third input, or zeros.
    fn bias(&self, node: &Node, channels: usize) -> Result<Tensor, String> {
        if self.optional(node, 2)?.is_none() {
            return Ok(Tensor { shape: vec![channels], data: vec![0.0; channels] });
        }
        let bias = self.floats(node, 2)?;
        match bias.data.len() {
            1 => Ok(Tensor { shape: vec![channels], data: vec![bias.data[0]; channels] }),
            count if count == channels => Ok(Tensor { shape: vec![channels], ..bias }),
            count => Err(format!("it has {count} biases for {channels} channels")),
        }
    }

    fn gemm(&mut self, node: &Node) -> Result<Map, String> {
        let transposed = ["transA", "transB"].map(|name| node.whole(name, 0) != 0);
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        let map = self.linear(node, transposed, alpha)?;
        if self.optional(node, 2)?.is_none() {
            return Ok(map);
        }
        let channels = self.shape(map).channels;
        let bias: Vec<f64> = self.bias(node, channels)?.data.iter().map(|&x| f64::from(x) * beta).collect();
        self.affine(map, &vec![1.0; channels], &bias)
    }

    /// A fully connected layer without a bias, its weights times `alpha`.
    fn linear(&mut self, node: &Node, [input, weight]: [bool; 2], alpha: f64) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let shape = self.shape(map);
        let matrix = self.floats(node, 1)?;
        let (&[first, second], true, false) = (matrix.shape.as_slice(), map.flat, input) else {
            return Err("only a vector times a matrix of weights is supported".to_owned());
        };
        let (channels, depth) = if weight { (first, second) } else { (second, first) };
        if depth != shape.values() || channels == 0 || channels > 65_536 {
            return Err(format!("a vector of {} does not match weights {first}x{second}", shape.values()));
        }
        let steps = if weight { [depth, 1] } else { [1, channels] };
        let places = places(map, shape);
        let mut data = vec![0.0; channels * depth];
        for (n, row) in data.chunks_exact_mut(depth).enumerate() {
            for (k, &place) in places.iter().enumerate() {
                row[place] = (f64::from(matrix.data[n * steps[0] + k * steps[1]]) * alpha) as f32;
            }
        }
        let weight = Tensor { shape: vec![channels, shape.channels, shape.rows, shape.columns], data };
        let bias = Tensor { shape: vec![channels], data: vec![0.0; channels] };
        let made =
            self.step(Operation::Linear { channels }, &[map.id], [("weight", weight), ("bias", bias)])?;
        Ok(Map { flat: true, ..made })
    }

    fn batch_normalisation(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let channels = self.channels(map)?;
        if node.whole("training_mode", 0) != 0 {
            return Err("it is in training mode: export the network for evaluation".to_owned());
        }
        let epsilon = node.float("epsilon", 1e-5);
        let list = |index| -> Result<Vec<f64>, String> {
            let values = self.floats(node, index)?.data;
            match values.len() == channels {
                true => Ok(values.into_iter().map(f64::from).collect()),
                false => Err(format!("it has {} numbers for {channels} channels", values.len())),
            }
        };
        let (gamma, beta, mean, variance) = (list(1)?, list(2)?, list(3)?, list(4)?);
        let scale: Vec<_> =
            gamma.iter().zip(&variance).map(|(gamma, v)| gamma / (v + epsilon).sqrt()).collect();
        let shift: Vec<_> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        self.affine(map, &scale, &shift)
    }

    /// Channels of a value whose second axis they are.
    fn channels(&self, map: Map) -> Result<usize, String> {
        let shape = self.shape(map);
        match if map.flat { shape.is_vector() } else { map.axes[0] == 0 } {
            true => Ok(shape.channels),
            false => Err("the channels of its input are not the second axis".to_owned()),
        }
    }

    fn prelu_of(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let slopes = self.floats(node, 1)?;
        let channels = self.shape(map).channels;
        let slopes = match slopes.data.len() {
            1 => vec![slopes.data[0]; channels],
            // A list of that length is one slope per channel, whatever its axes are.
            count if count == channels && slopes.shape.contains(&channels) => slopes.data,
            _ => self.per_channel(map, &slopes)?.into_iter().map(|x| x as f32).collect(),
        };
        self.prelu(map, slopes)
    }

    fn leaky(&mut self, node: &Node, slope: f32) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let channels = self.shape(map).channels;
        self.prelu(map, vec![slope; channels])
    }

    /// A constant as a number for each channel of a value that it is added to or multiplied with.
    fn per_channel(&self, map: Map, constant: &Tensor) -> Result<Vec<f64>, String> {
        let shape = self.shape(map);
        if let [one] = constant.data.as_slice() {
            return Ok(vec![f64::from(*one); shape.channels]);
        }
        let rank = if map.flat { 2 } else { 4 };
        let channel = match map.flat {
            true => shape.is_vector().then_some(1),
            false => map.axes.iter().position(|&axis| axis == 0).map(|place| place + 1),
        };
        let leading = rank - constant.shape.len().min(rank);
        let fits = |(axis, &size): (usize, &usize)| size == 1 || Some(axis + leading) == channel;
        let all = constant.shape.len() <= rank && constant.shape.iter().enumerate().all(fits);
        if !all || constant.data.len() != shape.channels {
            return Err(format!(
                "a constant of {:?} is not one number per channel of {shape}",
                constant.shape
            ));
        }
        Ok(constant.data.iter().map(|&x| f64::from(x)).collect())
    }

    fn arithmetic(&mut self, node: &Node) -> Result<Value, String> {
        let operator = node.operator.as_str();
        match (self.value(node, 0)?, self.value(node, 1)?) {
            (Value::Map(a), Value::Map(b)) if operator == "Add" => {
                let (first, second) = (self.map(node, 0)?, self.map(node, 1)?);
                if (a.axes, a.flat) != (b.axes, b.flat) {
                    return Err("its inputs have their axes in another order".to_owned());
                }
                let made = self.step(Operation::Add, &[first.id, second.id], [])?;
                Ok(Value::Map(Map { axes: a.axes, flat: a.flat, ..made }))
            }
            (Value::Map(_), Value::Map(_)) if operator == "Mul" => self.product(node).map(Value::Map),
            (Value::Map(map), Value::Spread(vector, sizes))
            | (Value::Spread(vector, sizes), Value::Map(map))
                if operator == "Mul" && !map.unit && sizes[1..] == self.sizes(map)[1..] =>
            {
                self.multiply(map, vector).map(Value::Map)
            }
            (Value::Map(map), Value::Norm(of)) if operator == "Div" && map.id == of => {
                Ok(Value::Map(map.at_unit_length()))
            }
            (Value::Norm(of), Value::Constant(_)) if operator == "Add" => Ok(Value::Norm(of)),
            (Value::Map(_), Value::Constant(Constant::Floats(constant))) => {
                let map = self.map(node, 0)?;
                let by = self.per_channel(map, &constant)?;
                let (ones, zeros) = (vec![1.0; by.len()], vec![0.0; by.len()]);
                let each = |f: fn(f64) -> f64| by.iter().map(|&x| f(x)).collect::<Vec<_>>();
                Ok(Value::Map(match operator {
                    "Add" => self.affine(map, &ones, &by)?,
                    "Sub" => self.affine(map, &ones, &each(|x| -x))?,
                    "Mul" => self.affine(map, &by, &zeros)?,
                    _ => self.affine(map, &each(f64::recip), &zeros)?,
                }))
            }
            (Value::Constant(Constant::Floats(constant)), Value::Map(_)) if operator != "Div" => {
                let map = self.map(node, 1)?;
                let by = self.per_channel(map, &constant)?;
                let (ones, zeros) = (vec![1.0; by.len()], vec![0.0; by.len()]);
                Ok(Value::Map(match operator {
                    "Add" => self.affine(map, &ones, &by)?,
                    "Sub" => self.affine(map, &vec![-1.0; by.len()], &by)?,
                    _ => self.affine(map, &by, &zeros)?,
                }))
            }
            _ => Err("supported with constants only, except for sums and products of two maps".to_owned()),
        }
    }

    /// Two maps of one shape, or a map and a vector, in any order.
    fn product(&mut self, node: &Node) -> Result<Map, String> {
        let (a, b) = (self.map(node, 0)?, self.map(node, 1)?);
        if (a.axes, a.flat) != (b.axes, b.flat) {
            return Err("its inputs have their axes in another order".to_owned());
        }
        match self.shape(a).is_vector() {
            true => self.multiply(b, a),
            false => self.multiply(a, b),
        }
    }

    fn multiply(&mut self, map: Map, by: Map) -> Result<Map, String> {
        let made = self.step(Operation::Multiply, &[map.id, by.id], [])?;
        Ok(Map { axes: map.axes, flat: map.flat, ..made })
    }

    fn sigmoid(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let made = self.step(Operation::Sigmoid, &[map.id], [])?;
        Ok(Map { axes: map.axes, flat: map.flat, ..made })
    }

    /// Limits are attributes or, in newer versions of ONNX, inputs.
    fn clamp(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let limit = |name, index, none: f32| match self.optional(node, index)? {
            None => Ok(node.float(name, none) as f32),
            Some(Value::Constant(Constant::Floats(tensor))) if tensor.data.len() == 1 => Ok(tensor.data[0]),
            Some(_) => Err(format!("its {name} is not a constant number")),
        };
        let (least, most) = (limit("min", 1, f32::MIN)?, limit("max", 2, f32::MAX)?);
        if least == 0.0 && most == f32::MAX {
            return self.leaky(node, 0.0);
        }
        let channels = self.shape(map).channels;
        // Exporters may write an absent limit as infinity.
        let all = |value: f32| Tensor {
            shape: vec![channels],
            data: vec![value.clamp(f32::MIN, f32::MAX); channels],
        };
        let limits = [("least", all(least)), ("most", all(most))];
        let made = self.step(Operation::Clamp, &[map.id], limits)?;
        Ok(Map { axes: map.axes, flat: map.flat, ..made })
    }

    /// A vector repeated for every pixel of a map, as exporters write gates.
    fn spread(&self, node: &Node) -> Result<Value, String> {
        let map = self.map(node, 0)?;
        let sizes = self.list(node, "shape", 1)?.unwrap_or_default();
        let channels = self.shape(map).channels as i64;
        let place = map.axes.iter().position(|&axis| axis == 0).map_or(0, |place| place + 1);
        let fits =
            sizes.len() == 4 && matches!(sizes.get(place), Some(&size) if size == channels || size == 1);
        match self.shape(map).is_vector() && !map.flat && fits {
            true => Ok(Value::Spread(map, sizes)),
            false => Err("only a vector can be repeated, for the pixels of a map".to_owned()),
        }
    }

    fn max_pool(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.picture_like(node)?;
        if node.whole("ceil_mode", 0) != 0 {
            return Err("windows that reach beyond the map (ceil_mode) are not supported".to_owned());
        }
        let window = window(node, pair(node.wholes("kernel_shape"), None)?, self.shape(map))?;
        self.step(Operation::MaxPool { window }, &[map.id], [])
    }

    /// The mean of all pixels.
    fn mean(&mut self, node: &Node) -> Result<Map, String> {
        let map = self.picture_like(node)?;
        let shape = self.shape(map);
        let mut flat = false;
        let all = match node.operator.as_str() {
            "GlobalAveragePool" => true,
            "AveragePool" => {
                let kernel = pair(node.wholes("kernel_shape"), None)?;
                let padded = node.wholes("pads").is_some_and(|pads| pads.iter().any(|&pad| pad != 0));
                kernel == [shape.rows, shape.columns] && !padded
            }
            _ => {
                flat = node.whole("keepdims", 1) == 0;
                let mut axes = self.list(node, "axes", 1)?.unwrap_or_default();
                axes.iter_mut().filter(|axis| **axis < 0).for_each(|axis| *axis += 4);
                axes.sort_unstable();
                axes == [2, 3]
            }
        };
        if !all {
            return Err("only the mean of all pixels of a map is supported".to_owned());
        }
        let made = self.step(Operation::Mean, &[map.id], [])?;
        Ok(Map { flat, ..made })
    }

    /// The length of a vector.
    fn norm(&self, node: &Node) -> Result<Value, String> {
        let map = self.map(node, 0)?;
        let axes = self.list(node, "axes", 1)?.unwrap_or_default();
        match (map.flat, axes.as_slice()) {
            (true, [1 | -1]) | (false, [1]) if self.shape(map).is_vector() => Ok(Value::Norm(map.id)),
            _ => Err("only the length of an embedding is supported".to_owned()),
        }
    }

    /// Operators that keep a length from being zero, or repeat it per value, leave it unchanged.
    fn of_norm(&self, node: &Node) -> Result<Value, String> {
        let inputs = (0..node.inputs.len()).map(|index| self.optional(node, index));
        let inputs: Vec<_> = inputs.collect::<Result<_, _>>()?;
        let norms: Vec<_> = inputs.iter().flatten().filter(|value| matches!(value, Value::Norm(_))).collect();
        match norms.as_slice() {
            [Value::Norm(of)] => Ok(Value::Norm(*of)),
            _ => Err("it is supported for the length of an embedding only".to_owned()),
        }
    }

    fn unit(&self, node: &Node) -> Result<Map, String> {
        let map = self.map(node, 0)?;
        let (axis, p) = (node.whole("axis", -1), node.whole("p", 2));
        let vector = self.shape(map).is_vector() && (axis == 1 || (axis == -1 && map.flat));
        match vector && p == 2 {
            true => Ok(map.at_unit_length()),
            false => Err("only an embedding can be normalised to unit length".to_owned()),
        }
    }

    /// The same values with other axes.
    fn reshape(&self, node: &Node) -> Result<Value, String> {
        match self.value(node, 0)? {
            Value::Map(_) => self.reshape_map(node).map(Value::Map),
            Value::Constant(constant) => self.reshape_constant(node, constant).map(Value::Constant),
            Value::Norm(_) | Value::Spread(..) => Err("a repetition must keep the axes".to_owned()),
        }
    }

    fn reshape_map(&self, node: &Node) -> Result<Map, String> {
        let Value::Map(map) = self.value(node, 0)? else { return Err("its input is not a map".to_owned()) };
        let sizes = self.sizes(map);
        let total: i64 = sizes[1..].iter().product();
        let first = |size: i64| matches!(size, super::translate::BATCH | 0 | 1 | -1);
        match node.operator.as_str() {
            "Flatten" if node.whole("axis", 1) == 1 => Ok(Map { flat: true, ..map }),
            "Squeeze" => match self.list(node, "axes", 1)?.as_deref() {
                Some([2 | -2, 3 | -1]) if self.shape(map).is_vector() => Ok(Map { flat: true, ..map }),
                _ => Err("only the rows and columns of a vector can be removed".to_owned()),
            },
            "Transpose" => match node.wholes("perm") {
                Some(&[0, a, b, c])
                    if !map.flat && {
                        let mut all = [a, b, c];
                        all.sort_unstable();
                        all == [1, 2, 3]
                    } =>
                {
                    Ok(Map { axes: [a, b, c].map(|axis| map.axes[axis as usize - 1]), ..map })
                }
                perm => Err(format!("the order {perm:?} is not one of the axes of a picture")),
            },
            "Reshape" => match self.list(node, "shape", 1)?.as_deref() {
                Some(&[batch, size]) if first(batch) && batch != size && (size == -1 || size == total) => {
                    Ok(Map { flat: true, ..map })
                }
                Some(&[batch, a, b, c]) if first(batch) && !map.flat && [a, b, c] == sizes[1..] => Ok(map),
                Some(&[batch, a, 1, 1])
                    if first(batch) && self.shape(map).is_vector() && (a == total || a == -1) =>
                {
                    Ok(Map { axes: [0, 1, 2], flat: false, ..map })
                }
                Some(shape) => Err(format!("the shape {shape:?} is neither that of its input nor a vector")),
                None => Err(NO_BATCH.to_owned()),
            },
            _ => Err(NO_BATCH.to_owned()),
        }
    }

    fn reshape_constant(&self, node: &Node, constant: Constant) -> Result<Constant, String> {
        match (node.operator.as_str(), constant) {
            ("Reshape", constant) => {
                let sizes = self.list(node, "shape", 1)?.unwrap_or_default();
                sizes::reshaped(constant, &sizes)
            }
            ("Transpose", Constant::Floats(tensor)) => sizes::transposed(tensor).map(Constant::Floats),
            ("Squeeze", constant) => {
                let count = constant.len();
                Ok(constant.with_shape(vec![count]))
            }
            _ => Err("it is not supported for constants".to_owned()),
        }
    }
}

/// The index of each value of a flattened map in our order: channel, row, column.
fn places(map: Map, shape: Shape) -> Vec<usize> {
    let sizes = [shape.channels, shape.rows, shape.columns];
    let steps = [shape.rows * shape.columns, shape.columns, 1];
    let [a, b, c] = map.axes;
    let mut places = Vec::with_capacity(shape.values());
    for i in 0..sizes[a] {
        for j in 0..sizes[b] {
            places.extend((0..sizes[c]).map(|k| i * steps[a] + j * steps[b] + k * steps[c]));
        }
    }
    places
}

/// Two numbers, or their defaults if they are absent.
fn pair(values: Option<&[i64]>, default: Option<[usize; 2]>) -> Result<[usize; 2], String> {
    let small = |x: i64| usize::try_from(x).ok().filter(|&x| x <= 4096);
    match (values, default) {
        (None, Some(default)) => Ok(default),
        (Some(&[a, b]), _) => match (small(a), small(b)) {
            (Some(a), Some(b)) => Ok([a, b]),
            _ => Err(format!("the sizes {a}x{b} are invalid")),
        },
        _ => Err("only windows over rows and columns are supported".to_owned()),
    }
}

/// The window of a convolution or a pool on a map of that shape.
fn window(node: &Node, kernel: [usize; 2], shape: Shape) -> Result<Window, String> {
    if node.wholes("dilations").is_some_and(|all| all.iter().any(|&x| x != 1)) {
        return Err("windows with gaps (dilations) are not supported".to_owned());
    }
    let stride = pair(node.wholes("strides"), Some([1, 1]))?;
    let same = |upper: bool| {
        let mut padding = [0; 4];
        for (axis, size) in [shape.rows, shape.columns].into_iter().enumerate() {
            let all = (size.div_ceil(stride[axis].max(1)) - 1) * stride[axis] + kernel[axis];
            let all = all.saturating_sub(size);
            let less = all / 2;
            (padding[axis], padding[axis + 2]) = if upper { (less, all - less) } else { (all - less, less) };
        }
        padding
    };
    let padding = match node.text("auto_pad") {
        Some("SAME_UPPER") => same(true),
        Some("SAME_LOWER") => same(false),
        _ => match node.wholes("pads") {
            None => [0; 4],
            Some(&[top, left, bottom, right]) => {
                let [[top, left], [bottom, right]] =
                    [pair(Some(&[top, left]), None)?, pair(Some(&[bottom, right]), None)?];
                [top, left, bottom, right]
            }
            Some(pads) => return Err(format!("its pads {pads:?} are invalid")),
        },
    };
    let window = Window { kernel, stride, padding };
    match window.output([shape.rows, shape.columns]) {
        Some(_) => Ok(window),
        None => Err(format!("its window {window:?} does not fit a map of {shape}")),
    }
}
