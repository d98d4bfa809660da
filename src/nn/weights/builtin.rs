//! The models compiled into the program, so that it works from one file, offline.

use std::io::ErrorKind;
use std::path::Path;

use super::{Weights, WeightsError};

/// A model that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// What `--model` calls it.
    pub name: &'static str,
    bytes: &'static [u8],
}

/// The detector: P-Net, R-Net and O-Net.
pub const MTCNN: BuiltIn =
    BuiltIn { name: "mtcnn", bytes: include_bytes!("../../../models/mtcnn.safetensors") };

/// The default embedding model.
pub const SPHEREFACE: BuiltIn =
    BuiltIn { name: "sphereface", bytes: include_bytes!("../../../models/sphereface.safetensors") };

impl BuiltIn {
    /// Every model that is part of the program.
    pub const ALL: [BuiltIn; 2] = [MTCNN, SPHEREFACE];

    /// Its weights.
    ///
    /// # Errors
    /// When the program was built with a damaged file.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        Weights::from_safetensors(self.bytes, &format!("built-in model {}", self.name))
    }
}

impl Weights {
    /// The weights a user asked for: the name of a [`BuiltIn`] model, else a safetensors file.
    ///
    /// # Errors
    /// When it is neither, or the file cannot be used.
    pub fn resolve(name_or_file: &str) -> Result<Self, WeightsError> {
        match BuiltIn::ALL.iter().find(|model| model.name == name_or_file) {
            Some(model) => model.weights(),
            None => Self::load(Path::new(name_or_file)).map_err(|error| match error {
                WeightsError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                    let names = BuiltIn::ALL.map(|model| model.name).join(", ");
                    WeightsError::Unsupported(format!(
                        "there is no file '{name_or_file}', and no built-in model of that name: those are {names}"
                    ))
                }
                error => error,
            }),
        }
    }
}
