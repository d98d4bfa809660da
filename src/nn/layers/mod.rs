//! Layers on a device of the tensor library, forward and backward. Maps are stored pixel by pixel with their
//! channels together, maps of all sizes one after another, so that every layer is one matrix product over all
//! of them. Equal to the tensor library's own layers except for rounding.

mod operations;
#[cfg(test)]
mod tests;

use candle_core::{Device, Result, Tensor};

use operations::{RUNS, Run, Window};

/// Consecutive maps of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) maps: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Size {
    fn places(&self) -> usize {
        self.maps * self.rows * self.columns
    }
}

/// Maps of some sizes, one row per position.
#[derive(Debug, Clone)]
pub(crate) struct Maps {
    /// [places, channels]
    values: Tensor,
    sizes: Vec<Size>,
}

/// A convolution, its bias, and its PReLU if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    /// [side * side * inputs, outputs]
    product: Tensor,
    layer: Layer,
    side: usize,
    stride: usize,
    padding: usize,
}

/// A fully connected layer over whole maps, and its PReLU if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [rows * columns * channels of a map, outputs]
    product: Tensor,
    layer: Layer,
    /// Channels, rows and columns of a map.
    map: (usize, usize, usize),
}

/// Bias and PReLU.
#[derive(Debug, Clone)]
struct Layer {
    /// [2, outputs]: biases and slopes; slopes of 1 change nothing.
    values: Tensor,
    has_slopes: bool,
}

/// Gradients with respect to the parameters of a layer, in the order of its parameters.
#[derive(Debug)]
pub(crate) struct LayerGradients {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// None if there is no PReLU.
    pub(crate) slopes: Option<Tensor>,
}

impl Maps {
    /// Maps of `channels` channels, from their values in the order in memory.
    pub(crate) fn new(values: Vec<f32>, sizes: Vec<Size>, channels: usize, device: &Device) -> Result<Self> {
        let places = sizes.iter().map(Size::places).sum::<usize>();
        Ok(Self { values: Tensor::from_vec(values, (places, channels), device)?, sizes })
    }

    /// The values in the order in memory.
    pub(crate) fn to_vec(&self) -> Result<Vec<f32>> {
        self.values.flatten_all()?.to_vec1()
    }

    /// The sizes, in the order of the maps.
    pub(crate) fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// Maps of the same sizes.
    fn with(&self, values: Tensor) -> Self {
        Self { values, sizes: self.sizes.clone() }
    }

    /// The sum of two maps.
    pub(crate) fn plus(&self, other: &Self) -> Result<Self> {
        Ok(self.with((&self.values + &other.values)?))
    }

    /// The result of an operation with `window` on the maps, given their `resized` sizes.
    fn through(
        &self,
        window: Window,
        resized: Vec<Size>,
        operation: fn(&Tensor, Window, &[Run], usize) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut parts = Vec::new();
        let mut first = 0;
        for (from, to) in self.sizes.chunks(RUNS).zip(resized.chunks(RUNS)) {
            let (mut runs, mut first_in, mut first_out) = (Vec::new(), first, 0);
            for (a, b) in from.iter().zip(to) {
                runs.push(Run {
                    first_in: first_in as u32,
                    first_out: first_out as u32,
                    rows_in: a.rows as u32,
                    columns_in: a.columns as u32,
                    rows_out: b.rows as u32,
                    columns_out: b.columns as u32,
                });
                first_in += a.places();
                first_out += b.places();
            }
            parts.push(operation(&self.values, window, &runs, first_out)?);
            first = first_in;
        }
        let values = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
        Ok(Self { values, sizes: resized })
    }
}

/// The size of every map after `side` was applied to both of its sides.
fn resized(sizes: &[Size], side: impl Fn(usize) -> usize) -> Vec<Size> {
    sizes.iter().map(|size| Size { rows: side(size.rows), columns: side(size.columns), ..*size }).collect()
}

/// Max-pool of stride 2; the output size is rounded up and windows are cut off at the edge.
pub(crate) fn max_pool(maps: &Maps, side: usize) -> Result<Maps> {
    let sizes = resized(&maps.sizes, |n| n.saturating_sub(side).div_ceil(2) + 1);
    let window = Window { side: side as u32, stride: 2, padding: 0, spread: 1 };
    maps.through(window, sizes, operations::pool)
}

impl Layer {
    fn new(bias: &[f32], slopes: Option<&[f32]>, device: &Device) -> Result<Self> {
        let mut values = bias.to_vec();
        match slopes {
            Some(slopes) => values.extend_from_slice(slopes),
            None => values.resize(2 * bias.len(), 1.0),
        }
        Ok(Self { values: Tensor::from_vec(values, (2, bias.len()), device)?, has_slopes: slopes.is_some() })
    }

    /// The backward pass of bias and PReLU: the gradient with respect to the sums before both, and those with
    /// respect to bias and slopes.
    fn back(&self, sums: &Tensor, by_output: &Tensor) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let places = sums.dim(0)?;
        let both = operations::finish_back(sums, &self.values, by_output)?;
        let (by_sums, by_slopes) = (both.narrow(0, 0, places)?, both.narrow(0, places, places)?);
        // A product with ones: the library's own sums over rows take many times as long.
        let ones = Tensor::ones((1, places), sums.dtype(), sums.device())?;
        let bias = ones.matmul(&by_sums)?;
        let slopes = if self.has_slopes { Some(ones.matmul(&by_slopes)?) } else { None };
        Ok((by_sums, bias, slopes))
    }
}

impl Convolution {
    /// `weight` has the `shape` [outputs, inputs, rows, columns], as many rows as columns; `bias` and
    /// `slopes` have one value per output.
    pub(crate) fn new(
        device: &Device,
        (weight, shape): (&[f32], [usize; 4]),
        bias: &[f32],
        slopes: Option<&[f32]>,
        (padding, stride): (usize, usize),
    ) -> Result<Self> {
        let [outputs, inputs, side, _] = shape;
        let weight = Tensor::from_slice(weight, &shape, device)?;
        let product = weight.permute((2, 3, 1, 0))?.contiguous()?.reshape((side * side * inputs, outputs))?;
        Ok(Self { product, layer: Layer::new(bias, slopes, device)?, side, stride, padding })
    }

    /// Inputs and outputs.
    fn channels(&self) -> Result<(usize, usize)> {
        let (seen, outputs) = self.product.dims2()?;
        Ok((seen / (self.side * self.side), outputs))
    }

    /// The window of every output pixel (im2col), [places, side * side * inputs].
    fn seen(&self, x: &Maps) -> Result<Maps> {
        if self.side == 1 && self.stride == 1 && self.padding == 0 {
            return Ok(x.clone());
        }
        let sizes = resized(&x.sizes, |n| (n + 2 * self.padding - self.side) / self.stride + 1);
        let (side, stride, padding) = (self.side as u32, self.stride as u32, self.padding as u32);
        x.through(Window { side, stride, padding, spread: 1 }, sizes, operations::gather)
    }

    /// The output, with `other` added if it is given.
    pub(crate) fn forward(&self, x: &Maps, other: Option<&Maps>) -> Result<Maps> {
        self.activate(&self.sums(x)?, other)
    }

    /// The sums of products, before bias and PReLU.
    pub(crate) fn sums(&self, x: &Maps) -> Result<Maps> {
        let seen = self.seen(x)?;
        Ok(Maps { values: seen.values.matmul(&self.product)?, sizes: seen.sizes })
    }

    /// [`sums`](Self::sums) after bias and PReLU, with `other` added.
    pub(crate) fn activate(&self, sums: &Maps, other: Option<&Maps>) -> Result<Maps> {
        let other = other.map(|other| &other.values);
        Ok(sums.with(operations::finish(&sums.values, &self.layer.values, other)?))
    }

    /// The backward pass, given the input `x`, its [`sums`](Self::sums) and the gradient with respect to the
    /// output: the gradients with respect to the parameters and to the sums.
    pub(crate) fn gradients(
        &self,
        x: &Maps,
        sums: &Maps,
        by_output: &Maps,
    ) -> Result<(LayerGradients, Maps)> {
        let (by_sums, bias, slopes) = self.layer.back(&sums.values, &by_output.values)?;
        let ((inputs, outputs), side) = (self.channels()?, self.side);
        let by_product = self.seen(x)?.values.t()?.matmul(&by_sums)?;
        let weight =
            by_product.reshape((side, side, inputs, outputs))?.permute((3, 2, 0, 1))?.contiguous()?;
        Ok((LayerGradients { weight, bias, slopes }, sums.with(by_sums)))
    }

    /// The gradient with respect to the input `x`, given that with respect to the sums: a convolution with
    /// the kernels rotated by half a turn, with zeros between the pixels if there is a stride.
    pub(crate) fn by_input(&self, by_sums: &Maps, x: &Maps) -> Result<Maps> {
        let window = Window {
            side: self.side as u32,
            stride: 1,
            padding: (self.side - 1 - self.padding) as u32,
            spread: self.stride as u32,
        };
        let seen = by_sums.through(window, x.sizes.clone(), operations::gather)?;
        let ((inputs, outputs), side) = (self.channels()?, self.side);
        let turned = self.product.reshape((side, side, inputs, outputs))?.flip(&[0, 1])?;
        let turned = turned.permute((0, 1, 3, 2))?.contiguous()?;
        let values = seen.values.matmul(&turned.reshape((side * side * outputs, inputs))?)?;
        Ok(Maps { values, sizes: seen.sizes })
    }
}

impl Linear {
    /// `weight` is [outputs, channels, rows, columns] of maps of that size, in a row.
    pub(crate) fn new(
        device: &Device,
        weight: &[f32],
        bias: &[f32],
        slopes: Option<&[f32]>,
        map: (usize, usize, usize),
    ) -> Result<Self> {
        let (channels, rows, columns) = map;
        let weight = Tensor::from_slice(weight, (bias.len(), channels, rows, columns), device)?;
        let product = weight.permute((2, 3, 1, 0))?.contiguous()?;
        let product = product.reshape((rows * columns * channels, bias.len()))?;
        Ok(Self { product, layer: Layer::new(bias, slopes, device)?, map })
    }

    /// One row per map.
    fn rows(&self, x: &Maps) -> Result<Tensor> {
        let (channels, rows, columns) = self.map;
        x.values.reshape(((), rows * columns * channels))
    }

    /// One map of a single pixel per input map, whose channels are the outputs.
    pub(crate) fn forward(&self, x: &Maps) -> Result<Maps> {
        let sums = self.rows(x)?.matmul(&self.product)?;
        let size = Size { maps: sums.dim(0)?, rows: 1, columns: 1 };
        Ok(Maps { values: operations::finish(&sums, &self.layer.values, None)?, sizes: vec![size] })
    }

    /// The backward pass of a layer without PReLU, given its input and the gradient with respect to its
    /// output: the gradients with respect to the parameters and to the input.
    pub(crate) fn gradients(&self, x: &Maps, by_output: &Maps) -> Result<(LayerGradients, Maps)> {
        debug_assert!(!self.layer.has_slopes);
        let (by_output, (channels, rows, columns)) = (&by_output.values, self.map);
        let outputs = by_output.dim(1)?;
        let by_product = self.rows(x)?.t()?.matmul(by_output)?;
        let weight = by_product.reshape((rows, columns, channels, outputs))?;
        let weight = weight.permute((3, 2, 0, 1))?.contiguous()?;
        let ones = Tensor::ones((1, by_output.dim(0)?), by_output.dtype(), by_output.device())?;
        let bias = ones.matmul(by_output)?;
        let by_input = by_output.matmul(&self.product.t()?)?.reshape(((), channels))?;
        Ok((LayerGradients { weight, bias, slopes: None }, x.with(by_input)))
    }
}
