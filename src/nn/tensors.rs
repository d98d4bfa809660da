//! Layers as operations of the tensor library: the oracle for the kernels, and the way to any
//! device that it knows. Maps are [n, channels, rows, columns].

use candle_core::{DType, Device, Result, Tensor};

/// A convolution, its bias, and its PReLU where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    weight: Tensor,
    bias: Tensor,
    slopes: Option<Tensor>,
    padding: usize,
    stride: usize,
}

/// A fully connected layer and its PReLU where it has one.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// [inputs, outputs]
    weight: Tensor,
    bias: Tensor,
    slopes: Option<Tensor>,
}

/// Where and in which type a network keeps its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) device: Device,
    pub(crate) dtype: DType,
}

impl Place {
    fn put(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(values, shape, &self.device)?.to_dtype(self.dtype)
    }
}

impl Convolution {
    /// `weight` has the `shape` [outputs, inputs, rows, columns]; `bias` and `slopes` one value
    /// an output.
    pub(crate) fn new(
        place: &Place,
        (weight, shape): (&[f32], [usize; 4]),
        bias: &[f32],
        slopes: Option<&[f32]>,
        (padding, stride): (usize, usize),
    ) -> Result<Self> {
        let channels = [1, shape[0], 1, 1];
        Ok(Self {
            weight: place.put(weight, &shape)?,
            bias: place.put(bias, &channels)?,
            slopes: slopes.map(|slopes| place.put(slopes, &channels)).transpose()?,
            padding,
            stride,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?.broadcast_add(&self.bias)?;
        prelu(y, self.slopes.as_ref())
    }
}

impl Linear {
    /// `weight` has the `shape` [outputs, inputs].
    pub(crate) fn new(
        place: &Place,
        (weight, shape): (&[f32], [usize; 2]),
        bias: &[f32],
        slopes: Option<&[f32]>,
    ) -> Result<Self> {
        let channels = [1, shape[0]];
        Ok(Self {
            weight: place.put(weight, &shape)?.t()?,
            bias: place.put(bias, &channels)?,
            slopes: slopes.map(|slopes| place.put(slopes, &channels)).transpose()?,
        })
    }

    /// Of a map flattened as it lies, [n, outputs].
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.flatten_from(1)?.matmul(&self.weight)?.broadcast_add(&self.bias)?;
        prelu(y, self.slopes.as_ref())
    }
}

/// y where positive, slope * y elsewhere.
fn prelu(y: Tensor, slopes: Option<&Tensor>) -> Result<Tensor> {
    let Some(slopes) = slopes else { return Ok(y) };
    let positive = y.relu()?;
    (&y - &positive)?.broadcast_mul(slopes)? + positive
}

/// Max-pool of stride 2; the output size is rounded up and windows are cut off at the edge.
pub(crate) fn max_pool(x: &Tensor, size: usize) -> Result<Tensor> {
    let (_, _, rows, columns) = x.dims4()?;
    // One more row or column like the last changes no maximum.
    let missing = |side: usize| side.saturating_sub(size) % 2;
    let x = x.pad_with_same(2, 0, missing(rows))?.pad_with_same(3, 0, missing(columns))?;
    x.max_pool2d_with_stride(size, 2)
}

/// Pictures [n, rows, columns, 3], as they lie in memory, as maps.
pub(crate) fn pictures(
    values: Vec<f32>,
    (n, rows, columns): (usize, usize, usize),
    place: &Place,
) -> Result<Tensor> {
    let lying = Tensor::from_vec(values, (n, rows, columns, 3), &place.device)?;
    lying.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(place.dtype)
}
