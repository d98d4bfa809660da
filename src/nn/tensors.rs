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

/// Gradients by the parameters of a layer, in their shapes but for dimensions of 1.
#[derive(Debug)]
pub(crate) struct LayerGradients {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// None where there is no PReLU.
    pub(crate) slopes: Option<Tensor>,
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
        self.activate(self.sums(x)?)
    }

    /// What goes into the PReLU.
    pub(crate) fn sums(&self, x: &Tensor) -> Result<Tensor> {
        x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?.broadcast_add(&self.bias)
    }

    /// What comes out of the PReLU.
    pub(crate) fn activate(&self, sums: Tensor) -> Result<Tensor> {
        prelu(sums, self.slopes.as_ref())
    }

    /// The way back, given what went forwards (the input `x` and the [`sums`](Self::sums) of it)
    /// and the gradient by the output: the gradients by the parameters and by the sums.
    ///
    /// The library's own gradients are not taken: on a GPU, they go through its transposed
    /// convolution, which is not made of matrix products and many times slower.
    pub(crate) fn gradients(
        &self,
        x: &Tensor,
        sums: &Tensor,
        by_output: &Tensor,
    ) -> Result<(LayerGradients, Tensor)> {
        // Rows first: what lies together is added up together.
        let channel_sums = |maps: &Tensor| maps.flatten_from(2)?.sum(2)?.sum(0);
        let (by_sums, slopes) = match &self.slopes {
            Some(slopes) => {
                let negative = (sums - sums.relu()?)?;
                let by_slopes = channel_sums(&(by_output * negative)?)?;
                let below = by_output.broadcast_mul(slopes)?;
                (sums.gt(0.0)?.where_cond(by_output, &below)?, Some(by_slopes))
            }
            None => (by_output.contiguous()?, None),
        };
        // Every number of a kernel is a sum of products over samples and places: a convolution in
        // which channels and samples have changed places, and stride and dilation.
        let (_, _, rows, columns) = self.weight.dims4()?;
        let by_weight =
            x.transpose(0, 1)?.conv2d(&by_sums.transpose(0, 1)?, self.padding, 1, self.stride, 1)?;
        // A stride may leave rows and columns over that no place of the kernel has seen.
        let by_weight = by_weight.transpose(0, 1)?.narrow(2, 0, rows)?.narrow(3, 0, columns)?;
        Ok((LayerGradients { weight: by_weight, bias: channel_sums(&by_sums)?, slopes }, by_sums))
    }

    /// The gradient by the input, whose sides must be `stride` times those of the output, given
    /// that by the sums: with zeros between where there is a stride, a convolution with the
    /// kernels turned around.
    pub(crate) fn by_input(&self, by_sums: &Tensor) -> Result<Tensor> {
        let (n, channels, rows, columns) = by_sums.dims4()?;
        let (stride, kernel) = (self.stride, self.weight.dim(2)?);
        let (wide, high) = (columns * stride, rows * stride);
        let spread = by_sums.unsqueeze(4)?.pad_with_zeros(4, 0, stride - 1)?;
        let spread = spread.reshape((n, channels, rows, 1, wide))?.pad_with_zeros(3, 0, stride - 1)?;
        let spread = spread.reshape((n, channels, high, wide))?;
        let turned = self.weight.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?;
        spread.conv2d(&turned, kernel - 1 - self.padding, 1, 1, 1)
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

    /// The way back of a layer without PReLU, given its input and the gradient by its output
    /// [n, outputs]: the gradients by the parameters and, in its shape, by the input.
    pub(crate) fn gradients(&self, x: &Tensor, by_output: &Tensor) -> Result<(LayerGradients, Tensor)> {
        debug_assert!(self.slopes.is_none());
        let weight = by_output.t()?.matmul(&x.flatten_from(1)?)?;
        let by_input = by_output.matmul(&self.weight.t()?)?.reshape(x.shape())?;
        Ok((LayerGradients { weight, bias: by_output.sum(0)?, slopes: None }, by_input))
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
