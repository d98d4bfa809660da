//! The models compiled into the program, so that it works from one file, offline.

use std::io::ErrorKind;
use std::path::Path;

use super::{ModelId, Stored, Weights, WeightsError};

/// The bytes of a file beside the code, in a program that has trained weights. A static is in a program once; the
/// bytes of a constant would be in every crate that uses it.
macro_rules! bundled {
    ($file:literal) => {{
        #[cfg(feature = "bundled-models")]
        static BYTES: [u8; include_bytes!($file).len()] = *include_bytes!($file);
        #[cfg(feature = "bundled-models")]
        let bytes: Option<&'static [u8]> = Some(&BYTES);
        #[cfg(not(feature = "bundled-models"))]
        let bytes: Option<&'static [u8]> = None;
        bytes
    }};
}

/// A model that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Its name for `--model`.
    pub name: &'static str,
    /// Identifier of its weights, as a constant, so that they need not be read to compute it.
    pub id: ModelId,
    /// None in a program without trained weights.
    bytes: Option<&'static [u8]>,
    /// The impostor scores of an embedding model by views, as measured by `sphereface eval views --json`.
    views: Option<&'static str>,
    /// The scales of an embedding model for 8-bit integers, as written by `models/eight_bits.py`.
    int8: Option<&'static str>,
}

/// The detector: P-Net, R-Net and O-Net.
pub const MTCNN: BuiltIn = BuiltIn {
    name: "mtcnn",
    id: ModelId([0x03, 0xc3, 0x2f, 0xd9, 0x63, 0xf5, 0xc3, 0xfc]),
    bytes: bundled!("../../models/mtcnn.safetensors"),
    views: None,
    int8: None,
};

/// The default embedding model.
pub const SPHEREFACE: BuiltIn = BuiltIn {
    name: "sphereface",
    id: ModelId([0xa3, 0xe8, 0x72, 0x5e, 0xc0, 0xcb, 0x91, 0x85]),
    bytes: bundled!("../../models/sphereface.safetensors"),
    views: Some(include_str!("../../models/sphereface.views.json")),
    int8: Some(include_str!("../../models/sphereface.int8.json")),
};

/// An embedding model that takes half the time and misses more faces.
pub const SPHEREFACE_20: BuiltIn = BuiltIn {
    name: "sphereface20",
    id: ModelId([0x48, 0x6d, 0xfc, 0xea, 0x5c, 0x43, 0xe3, 0x3a]),
    bytes: bundled!("../../models/sphereface20.safetensors"),
    views: Some(include_str!("../../models/sphereface20.views.json")),
    int8: Some(include_str!("../../models/sphereface20.int8.json")),
};

impl BuiltIn {
    /// Every model that is part of the program.
    pub const ALL: [BuiltIn; 3] = [MTCNN, SPHEREFACE, SPHEREFACE_20];

    /// The one of that name.
    pub fn named(name: &str) -> Option<BuiltIn> {
        Self::ALL.into_iter().find(|model| model.name == name)
    }

    /// Its weights.
    ///
    /// # Errors
    /// [`WeightsError::NotBundled`] in a program without trained weights.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        self.stored().and_then(|stored| stored.weights()).map_err(|error| error.in_file(self.origin()))
    }

    /// The same as they are stored.
    ///
    /// # Errors
    /// As for [`weights`](Self::weights).
    pub fn stored(&self) -> Result<Stored<'static>, WeightsError> {
        let bytes = self.bytes.ok_or(WeightsError::NotBundled(self.name))?;
        let mut stored = Stored::new(bytes).map_err(|error| error.in_file(self.origin()))?;
        for (key, measured) in [("views", self.views), ("int8", self.int8)] {
            if let Some(measured) = measured {
                stored = stored.with_metadata(key, measured.trim());
            }
        }
        Ok(stored)
    }

    fn origin(&self) -> String {
        format!("built-in model {}", self.name)
    }
}

impl Weights {
    /// The weights that a user requested: the name of a [`BuiltIn`] model, else a safetensors file.
    ///
    /// # Errors
    /// When it is neither, or the file cannot be used.
    pub fn resolve(name_or_file: &str) -> Result<Self, WeightsError> {
        match BuiltIn::named(name_or_file) {
            Some(model) => model.weights(),
            None => {
                let stored = Stored::of_file(name_or_file)?;
                stored.weights().map_err(|error| error.in_file(name_or_file))
            }
        }
    }
}

impl Stored<'static> {
    /// The safetensors file that a user requested, where the name of a [`BuiltIn`] model would also be
    /// accepted.
    ///
    /// # Errors
    /// When it does not exist or cannot be used.
    pub fn of_file(file: &str) -> Result<Self, WeightsError> {
        Self::load(Path::new(file)).map_err(|error| match error {
            WeightsError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                let names = BuiltIn::ALL.map(|model| model.name).join(", ");
                WeightsError::Unsupported(format!(
                    "there is no file '{file}', and no built-in model of that name: those are {names}"
                ))
            }
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "bundled-models")]
    #[test]
    fn the_identifiers_written_down_are_those_of_the_weights() {
        for model in BuiltIn::ALL {
            assert_eq!(model.id, model.weights().unwrap().id(), "{}: write this one down", model.name);
            assert_eq!(model.id, model.stored().unwrap().id().unwrap(), "{}", model.name);
        }
    }
}
