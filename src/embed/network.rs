use super::reference::Reference;
use super::{Architecture, EmbedError};
use crate::nn::{Isa, Tensor, Weights};
use candle_core::{DType, Device};

impl Architecture {
    /// A tensor of the network.
    pub(super) fn tensor<'w>(&self, weights: &'w Weights, name: &str) -> Result<&'w Tensor, EmbedError> {
        weights
            .tensors
            .get(name)
            .ok_or_else(|| EmbedError::MissingTensor { name: name.into(), architecture: self.to_string() })
    }

    /// Whether `weights` hold every tensor of the network in its shape, with finite values.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub fn check(&self, weights: &Weights) -> Result<(), EmbedError> {
        if self.channels.contains(&0) || self.embedding == 0 {
            return Err(EmbedError::Empty(self.to_string()));
        }
        for (name, shape) in self.tensors() {
            self.check_one(&name, self.tensor(weights, &name)?, &shape)?;
        }
        Ok(())
    }

    pub(super) fn check_one(&self, name: &str, tensor: &Tensor, shape: &[usize]) -> Result<(), EmbedError> {
        if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
            return Err(EmbedError::Shape {
                name: name.into(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
                architecture: self.to_string(),
            });
        }
        match tensor.data.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(EmbedError::NotFinite(name.into())),
        }
    }
}

/// A SphereFace network.
#[derive(Debug)]
pub struct Network {
    architecture: Architecture,
    reference: Reference,
}

/// Memory of one worker.
#[derive(Debug)]
pub struct Workspace {}

impl Network {
    /// Checks `weights` and prepares them.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub fn new(architecture: &Architecture, weights: &Weights, isa: Isa) -> Result<Self, EmbedError> {
        Isa::from_name(&isa.to_string())?;
        let reference = Reference::new(architecture, weights, DType::F32, &Device::Cpu)?;
        Ok(Self { architecture: *architecture, reference })
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Memory for one worker.
    pub fn workspace(&self, _threads: usize) -> Workspace {
        Workspace {}
    }

    /// Features of `faces` crops, `pixels` [faces, 112, 96, 3].
    pub fn forward(&self, pixels: &[f32], faces: usize, _workspace: &mut Workspace) -> Vec<Vec<f32>> {
        // One face at a time: the order of summation must not depend on the batch.
        let run = |face: &[f32]| -> Result<Vec<f32>, EmbedError> {
            let input = candle_core::Tensor::from_slice(face, (1, 112, 96, 3), &Device::Cpu)?;
            let input = input.permute((0, 3, 1, 2))?.contiguous()?;
            Ok(self.reference.forward(&input)?.squeeze(0)?.to_vec1::<f32>()?)
        };
        pixels.chunks_exact(pixels.len() / faces).map(|f| run(f).expect("shapes were checked")).collect()
    }
}
