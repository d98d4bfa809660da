//! The network forwards and backwards through the tensor library, on any device that it knows.
//!
//! The chain of [`super::network`], in operations on whole chunks; values and gradients are those
//! of the kernels but for rounding.

use candle_core::{DType, Device, Result, Tensor};

use super::network::CROP_LEN;
use super::parameters::Parameter;
use crate::align::{CROP_HEIGHT, CROP_WIDTH};
use crate::embed::Architecture;
use crate::nn::tensors::{Convolution, LayerGradients, Linear, Place, pictures};

/// Samples that go through the network together: enough to keep a GPU busy. What is kept of them
/// for the way back takes 1.5 GB with SphereFace-20 and 4.5 GB with SphereFace-64, and the largest
/// convolution 1.6 GB for a moment.
pub const CHUNK: usize = 128;

/// A network that can be trained on a tensor library's device.
#[derive(Debug)]
pub struct TensorNetwork {
    architecture: Architecture,
    place: Place,
    /// Missing until it is needed: parameters are copied to the device when a chunk goes forward
    /// and fails there, not between the steps of an optimiser.
    layers: Option<Layers>,
    forward: Forward,
}

/// The parameters on the device.
#[derive(Debug)]
struct Layers {
    convolutions: Vec<Convolution>,
    last: Linear,
}

/// What is kept of a chunk on its way forward.
#[derive(Debug, Default)]
struct Forward {
    /// The input of every convolution and what went into its PReLU.
    convolutions: Vec<(Tensor, Tensor)>,
    /// The input of the last layer.
    last: Option<Tensor>,
}

impl Layers {
    fn new(architecture: &Architecture, parameters: &[Parameter], place: &Place) -> Result<Self> {
        let value = |at: usize| parameters[at].value.as_slice();
        let list = architecture.convolutions();
        let convolutions = list.iter().enumerate().map(|(number, c)| {
            let at = 3 * number;
            let weight = (value(at), [c.output, c.input, 3, 3]);
            Convolution::new(place, weight, value(at + 1), Some(value(at + 2)), (1, c.stride))
        });
        let convolutions = convolutions.collect::<Result<Vec<_>>>()?;
        let at = 3 * list.len();
        let weight = (value(at), [architecture.embedding, architecture.flattened()]);
        Ok(Self { convolutions, last: Linear::new(place, weight, value(at + 1), None)? })
    }
}

impl TensorNetwork {
    /// A network for parameters as [`super::parameters::network`] lists them (more may follow).
    pub fn new(architecture: Architecture, device: Device) -> Self {
        let place = Place { device, dtype: DType::F32 };
        Self { architecture, place, layers: None, forward: Forward::default() }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Has the values of the parameters taken anew with the next chunk.
    pub fn refresh(&mut self) {
        self.layers = None;
    }

    /// Features [samples, embedding] of a chunk of crops [samples, 112, 96, 3].
    ///
    /// # Errors
    /// When the device fails, for want of memory for instance.
    pub fn forward(&mut self, parameters: &[Parameter], pixels: &[f32]) -> Result<Vec<f32>> {
        // What was kept of the chunk before makes room first.
        self.forward = Forward::default();
        let Self { architecture, place, layers, forward } = self;
        if layers.is_none() {
            *layers = Some(Layers::new(architecture, parameters, place)?);
        }
        let Some(Layers { convolutions, last }) = layers else { unreachable!("just made") };
        let shape = (pixels.len() / CROP_LEN, CROP_HEIGHT, CROP_WIDTH);
        let mut x = pictures(pixels.to_vec(), shape, place)?;
        let mut convolutions = convolutions.iter();
        let mut next = |x: Tensor| -> Result<Tensor> {
            let Some(convolution) = convolutions.next() else {
                unreachable!("one for every convolution of the architecture")
            };
            let sums = convolution.sums(&x)?;
            forward.convolutions.push((x, sums.clone()));
            convolution.activate(sums)
        };
        for units in architecture.units {
            x = next(x)?;
            for _ in 0..units {
                let inner = next(x.clone())?;
                x = (next(inner)? + x)?;
            }
        }
        let features = last.forward(&x)?.flatten_all()?.to_vec1()?;
        forward.last = Some(x);
        Ok(features)
    }

    /// Adds the gradients by all parameters to them, given the gradient by the features
    /// [samples, embedding] of the chunk that went forward last, once.
    ///
    /// # Errors
    /// When the device fails; the gradients are then worth nothing.
    ///
    /// # Panics
    /// When no chunk went forward, or `by_feature` has another size.
    pub fn backward(&mut self, parameters: &mut [Parameter], by_feature: &[f32]) -> Result<()> {
        let Forward { convolutions: mut kept, last: Some(flat) } = std::mem::take(&mut self.forward) else {
            panic!("a chunk goes forward before it goes backward")
        };
        let Some(Layers { convolutions, last }) = &self.layers else {
            unreachable!("made for the way forward")
        };
        let embedding = self.architecture.embedding;
        let samples = flat.dim(0)?;
        assert_eq!(by_feature.len(), samples * embedding);
        let by_feature = Tensor::from_slice(by_feature, (samples, embedding), &self.place.device)?;
        let (gradients, mut by_map) = last.gradients(&flat, &by_feature)?;
        add(&mut parameters[3 * convolutions.len()..], gradients)?;
        drop(flat);
        let mut back = |by_output: &Tensor| -> Result<Option<Tensor>> {
            let Some((x, sums)) = kept.pop() else { unreachable!("one of every convolution") };
            let number = kept.len();
            let convolution = &convolutions[number];
            let (gradients, by_sums) = convolution.gradients(&x, &sums, by_output)?;
            add(&mut parameters[3 * number..], gradients)?;
            // Nobody asks for the gradient by the picture.
            if number > 0 { convolution.by_input(&by_sums).map(Some) } else { Ok(None) }
        };
        for units in self.architecture.units.into_iter().rev() {
            for _ in 0..units {
                let Some(by_inner) = back(&by_map)? else { unreachable!("an opening comes before") };
                let Some(by_input) = back(&by_inner)? else { unreachable!("an opening comes before") };
                by_map = (by_map + by_input)?;
            }
            if let Some(by_input) = back(&by_map)? {
                by_map = by_input;
            }
        }
        Ok(())
    }
}

/// Adds the gradients of a layer to its parameters: weight, bias and, where it has them, slopes.
fn add(parameters: &mut [Parameter], gradients: LayerGradients) -> Result<()> {
    let LayerGradients { weight, bias, slopes } = gradients;
    for (parameter, gradient) in parameters.iter_mut().zip([weight, bias].into_iter().chain(slopes)) {
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(parameter.gradient.len(), gradient.len());
        parameter.gradient.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
    }
    Ok(())
}
