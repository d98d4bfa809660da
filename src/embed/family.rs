//! The kind of network that a model file holds.

use std::collections::BTreeMap;
use std::fmt;

use super::{Architecture, EmbedError};
use crate::models::plan::Plan;

/// The network of an embedder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Family {
    /// A SphereFace network.
    SphereFace(Architecture),
    /// An imported network of another kind.
    Imported(Plan),
}

impl Family {
    /// The network that the metadata of a model file describe.
    ///
    /// # Errors
    /// When they describe none that this program can compute.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, EmbedError> {
        match Plan::from_metadata(metadata) {
            Some(plan) => Ok(Self::Imported(plan?)),
            None => Ok(Self::SphereFace(Architecture::from_metadata(metadata)?)),
        }
    }

    /// Size of the embedding.
    pub fn embedding(&self) -> usize {
        match self {
            Self::SphereFace(architecture) => architecture.embedding,
            Self::Imported(plan) => plan.embedding(),
        }
    }

    /// The architecture of a SphereFace network.
    pub fn sphereface(&self) -> Option<&Architecture> {
        match self {
            Self::SphereFace(architecture) => Some(architecture),
            Self::Imported(_) => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SphereFace(architecture) => architecture.fmt(f),
            Self::Imported(plan) => write!(f, "imported network of {plan}"),
        }
    }
}
