//! Forward and backward pass of the network in the tensor library, on any of its devices.
//!
//! The chain of [`super::network`] in operations on whole chunks. Values and gradients are those of the
//! kernels except for rounding.

use candle_core::{Device, Result, Tensor};

use super::parameters::Parameter;
use crate::embed::Architecture;
use crate::embed::tensors::crops;
use crate::models::arch::LAST_MAP;
use crate::nn::layers::{Convolution, LayerGradients, Linear, Maps, Size};

/// Number of samples processed together: enough to keep a GPU busy. The activations kept for the backward
/// pass take 1.5 GB with SphereFace-20 and 4.5 GB with SphereFace-64, and the largest convolution 1.6 GB
/// temporarily.
pub const CHUNK: usize = 128;

/// A network that can be trained on a tensor library's device.
#[derive(Debug)]
pub struct TensorNetwork {
    architecture: Architecture,
    device: Device,
    /// `None` until needed: parameters are copied to the device in the forward pass of a chunk, so that a
    /// failure occurs there and not between the steps of an optimiser.
    layers: Option<Layers>,
    forward: Forward,
    /// The gradients of the chunks so far, by parameter number.
    sums: Vec<Option<Tensor>>,
}

/// The parameters on the device.
#[derive(Debug)]
struct Layers {
    convolutions: Vec<Convolution>,
    last: Linear,
}

/// Activations of the forward pass of a chunk.
#[derive(Debug, Default)]
struct Forward {
    /// The input of every convolution and of its PReLU.
    convolutions: Vec<(Maps, Maps)>,
    /// The input of the last layer.
    last: Option<Maps>,
}

impl Layers {
    fn new(architecture: &Architecture, parameters: &[Parameter], device: &Device) -> Result<Self> {
        let value = |at: usize| parameters[at].value.as_slice();
        let list = architecture.convolutions();
        let convolutions = list.iter().enumerate().map(|(number, c)| {
            let at = 3 * number;
            let weight = (value(at), [c.output, c.input, 3, 3]);
            Convolution::new(device, weight, value(at + 1), Some(value(at + 2)), (1, c.stride))
        });
        let convolutions = convolutions.collect::<Result<Vec<_>>>()?;
        let at = 3 * list.len();
        let map = (architecture.channels[3], LAST_MAP.0, LAST_MAP.1);
        Ok(Self { convolutions, last: Linear::new(device, value(at), value(at + 1), None, map)? })
    }
}

impl TensorNetwork {
    /// A network for parameters as [`super::parameters::network`] lists them (more may follow).
    pub fn new(architecture: Architecture, device: Device) -> Self {
        let parameters = 3 * architecture.convolutions().len() + 2;
        Self { architecture, device, layers: None, forward: Forward::default(), sums: vec![None; parameters] }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Marks the parameters as changed; they are copied with the next chunk.
    pub fn refresh(&mut self) {
        self.layers = None;
    }

    /// Features [samples, embedding] of a chunk of crops [samples, 112, 96, 3].
    ///
    /// # Errors
    /// When the device fails, for example out of memory.
    pub fn forward(&mut self, parameters: &[Parameter], pixels: &[f32]) -> Result<Vec<f32>> {
        // Frees the activations of the previous chunk first.
        self.forward = Forward::default();
        let Self { architecture, device, layers, forward, .. } = self;
        if layers.is_none() {
            *layers = Some(Layers::new(architecture, parameters, device)?);
        }
        let Some(Layers { convolutions, last }) = layers else { unreachable!("just made") };
        let mut x = crops(pixels.to_vec(), device)?;
        let mut next = |x: &Maps, other: Option<&Maps>| -> Result<Maps> {
            let convolution = &convolutions[forward.convolutions.len()];
            let sums = convolution.sums(x)?;
            forward.convolutions.push((x.clone(), sums.clone()));
            convolution.activate(&sums, other)
        };
        for stage in architecture.stages() {
            x = next(&x, None)?;
            for _ in &stage.units {
                let inner = next(&x, None)?;
                x = next(&inner, Some(&x))?;
            }
        }
        let features = last.forward(&x)?.to_vec()?;
        forward.last = Some(x);
        Ok(features)
    }

    /// Adds the gradients w.r.t. all parameters to those of the chunks before, on the device, given the
    /// gradient w.r.t. the features [samples, embedding] of the chunk that went forward last, once.
    ///
    /// # Errors
    /// When the device fails; the gradients are then worth nothing.
    ///
    /// # Panics
    /// When no chunk went forward, or `by_feature` has another size.
    pub fn backward(&mut self, by_feature: &[f32]) -> Result<()> {
        let Forward { convolutions: mut kept, last: Some(flat) } = std::mem::take(&mut self.forward) else {
            panic!("a chunk goes forward before it goes backward")
        };
        let Self { device, layers: Some(Layers { convolutions, last }), sums: all_sums, .. } = self else {
            unreachable!("made for the way forward")
        };
        let embedding = self.architecture.embedding;
        let samples = flat.sizes().iter().map(|size| size.maps).sum::<usize>();
        assert_eq!(by_feature.len(), samples * embedding);
        let size = Size { maps: samples, rows: 1, columns: 1 };
        let by_feature = Maps::new(by_feature.to_vec(), vec![size], embedding, device)?;
        let (gradients, mut by_map) = last.gradients(&flat, &by_feature)?;
        add(&mut all_sums[3 * convolutions.len()..], gradients)?;
        drop(flat);
        let mut back = |by_output: &Maps| -> Result<Option<Maps>> {
            let Some((x, sums)) = kept.pop() else { unreachable!("one of every convolution") };
            let number = kept.len();
            let convolution = &convolutions[number];
            let (gradients, by_sums) = convolution.gradients(&x, &sums, by_output)?;
            add(&mut all_sums[3 * number..], gradients)?;
            // The gradient w.r.t. the picture is not needed.
            if number > 0 { convolution.by_input(&by_sums, &x).map(Some) } else { Ok(None) }
        };
        for stage in self.architecture.stages().iter().rev() {
            for _ in &stage.units {
                let Some(by_inner) = back(&by_map)? else { unreachable!("an opening comes before") };
                let Some(by_input) = back(&by_inner)? else { unreachable!("an opening comes before") };
                by_map = by_map.plus(&by_input)?;
            }
            if let Some(by_input) = back(&by_map)? {
                by_map = by_input;
            }
        }
        Ok(())
    }

    /// Drops the gradients of a stopped batch.
    pub fn begin(&mut self) {
        self.sums.fill(None);
    }

    /// Adds the gradients of all chunks since the last call to those of the parameters and drops them: one
    /// copy from the device per batch, not per chunk.
    ///
    /// # Errors
    /// When the device fails; the gradients are then worth nothing.
    pub fn collect(&mut self, parameters: &mut [Parameter]) -> Result<()> {
        for (parameter, sum) in parameters.iter_mut().zip(&mut self.sums) {
            let Some(sum) = sum.take() else { continue };
            let sum = sum.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(parameter.gradient.len(), sum.len());
            parameter.gradient.iter_mut().zip(sum).for_each(|(to, g)| *to += g);
        }
        Ok(())
    }
}

/// Adds the gradients of a layer to the sums from its own on: weight, bias and, where it has them,
/// slopes.
fn add(sums: &mut [Option<Tensor>], gradients: LayerGradients) -> Result<()> {
    let LayerGradients { weight, bias, slopes } = gradients;
    for (sum, gradient) in sums.iter_mut().zip([weight, bias].into_iter().chain(slopes)) {
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
    }
    Ok(())
}
