//! The SphereFace networks as data: the one place that knows of which layers they consist, in which order and under which
//! names. Kernels, GPU layers and training take the layers by [`stages`](Architecture::stages); whatever can compute any
//! network takes the [`plan`](Architecture::plan).

use std::collections::BTreeMap;
use std::fmt;

use super::plan::{COLOURS, Operation, Plan, Step, Window};

/// Channels of the four stages of the networks in the paper.
pub const PAPER_CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// Spatial size (rows, columns) of the last feature map for a 112x96 crop.
pub const LAST_MAP: (usize, usize) = (7, 6);

/// The weight `[embedding, flattened]` of the fully connected layer.
pub const LAST_WEIGHT: &str = "fc5.weight";

/// The bias `[embedding]` of the fully connected layer.
pub const LAST_BIAS: &str = "fc5.bias";

/// Rows and columns of a crop.
const INPUT_SIZE: [usize; 2] = [112, 96];

/// The metadata value of `input`: rows x columns of a crop.
const INPUT: &str = "112x96";

/// A SphereFace network: four stages, each a stride-2 3x3 convolution + PReLU followed by
/// residual units of two 3x3 convolutions + PReLU, then one fully connected layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Residual units in each stage.
    pub units: [usize; 4],
    /// Channels of each stage.
    pub channels: [usize; 4],
    /// Size of the embedding.
    pub embedding: usize,
}

/// Depth (number of convolutions, as in the paper) and residual units per stage. 62 is the network that the
/// authors released under the name of 64.
pub const DEPTHS: [(usize, [usize; 4]); 6] = [
    (4, [0, 0, 0, 0]),
    (10, [0, 1, 2, 0]),
    (20, [1, 2, 4, 1]),
    (36, [2, 4, 8, 2]),
    (62, [3, 7, 16, 3]),
    (64, [3, 8, 16, 3]),
];

impl Architecture {
    /// The network with that depth, one of [`DEPTHS`], and the paper's channels.
    pub fn of_depth(depth: usize) -> Option<Self> {
        let (_, units) = DEPTHS.into_iter().find(|(d, _)| *d == depth)?;
        Some(Self { units, channels: PAPER_CHANNELS, embedding: 512 })
    }

    /// The same units with other channel counts.
    pub fn with_channels(self, channels: [usize; 4]) -> Self {
        Self { channels, ..self }
    }

    /// The same network with another embedding size.
    pub fn with_embedding(self, embedding: usize) -> Self {
        Self { embedding, ..self }
    }

    /// The four stages in order of evaluation.
    pub fn stages(&self) -> [Stage; 4] {
        std::array::from_fn(|at| {
            let (stage, output) = (at + 1, self.channels[at]);
            let input = if at == 0 { COLOURS } else { self.channels[at - 1] };
            let inner = |index| Convolution { stage, index, input: output, output, stride: 1 };
            Stage {
                opening: Convolution { stage, index: 1, input, output, stride: 2 },
                units: (0..self.units[at]).map(|unit| [inner(2 + 2 * unit), inner(3 + 2 * unit)]).collect(),
            }
        })
    }

    /// Every convolution in order of evaluation.
    pub fn convolutions(&self) -> Vec<Convolution> {
        let all = |stage: Stage| std::iter::once(stage.opening).chain(stage.units.into_iter().flatten());
        self.stages().into_iter().flat_map(all).collect()
    }

    /// The network as a list of steps. Its tensors are those of [`tensors`](Self::tensors), in the same order, after the
    /// two for the picture.
    pub fn plan(&self) -> Plan {
        let mut steps = Vec::new();
        let mut add = |operation, of: &[usize], prelu| {
            steps.push(Step { operation, of: of.to_vec(), prelu });
            steps.len()
        };
        let mut value = 0;
        for Stage { opening, units } in self.stages() {
            value = add(opening.operation(), &[value], true);
            for [first, second] in units {
                let inner = add(first.operation(), &[value], true);
                let outer = add(second.operation(), &[inner], true);
                value = add(Operation::Add, &[outer, value], false);
            }
        }
        add(Operation::Linear { channels: self.embedding }, &[value], false);
        Plan { input: INPUT_SIZE, steps }
    }

    /// Inputs of the fully connected layer (channels x rows x columns, in that order).
    pub fn flattened(&self) -> usize {
        self.channels[3] * LAST_MAP.0 * LAST_MAP.1
    }

    /// Every tensor of the network with its shape, in the authors' order and with their names
    /// (`conv1_1.weight` `[out, in, 3, 3]`, `conv1_1.bias`, `relu1_1.weight` `[out]`, ...,
    /// `fc5.weight` `[embedding, flattened]`, `fc5.bias`).
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        for c in self.convolutions() {
            list.push((c.weight(), vec![c.output, c.input, 3, 3]));
            list.push((c.bias(), vec![c.output]));
            list.push((c.slopes(), vec![c.output]));
        }
        list.push((LAST_WEIGHT.into(), vec![self.embedding, self.flattened()]));
        list.push((LAST_BIAS.into(), vec![self.embedding]));
        list
    }
}

/// Why metadata does not describe one of our networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchitectureError {
    /// A key is missing.
    #[error(
        "the metadata has no '{0}': these are not SphereFace weights, or not written by 'sphereface models import'"
    )]
    Missing(&'static str),
    /// A key holds something that cannot be used.
    #[error("the metadata says {key} = '{value}', which is not supported: {needed}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        needed: &'static str,
    },
}

impl Architecture {
    /// The network that the metadata of a model file describes, by the keys `architecture`,
    /// `channels`, `embedding_size` and `input`.
    ///
    /// # Errors
    /// When a key is missing or names something that this program cannot compute.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, ArchitectureError> {
        let get = |key| metadata.get(key).ok_or(ArchitectureError::Missing(key));
        let unsupported = |key: &'static str, value: &str, needed| ArchitectureError::Unsupported {
            key,
            value: value.to_owned(),
            needed,
        };
        let name = get("architecture")?;
        let network = name
            .strip_prefix("sphereface")
            .and_then(|depth| depth.parse().ok())
            .and_then(Self::of_depth)
            .ok_or_else(|| unsupported("architecture", name, "use sphereface4, 10, 20, 36, 62 or 64"))?;
        // Bounds far above any real network, so that the sizes computed from them cannot overflow.
        let size = |text: &str, most| text.trim().parse().ok().filter(|n| (1..=most).contains(n));
        let text = get("channels")?;
        let channels: Option<Vec<usize>> = text.split(',').map(|c| size(c, 8192)).collect();
        let channels = channels.and_then(|list| list.try_into().ok()).ok_or_else(|| {
            unsupported("channels", text, "four counts from 1 to 8192, like 64,128,256,512")
        })?;
        let text = get("embedding_size")?;
        let embedding = size(text, 65536)
            .ok_or_else(|| unsupported("embedding_size", text, "a count from 1 to 65536"))?;
        let text = get("input")?;
        if text != INPUT {
            return Err(unsupported("input", text, "rows x columns of a crop are 112x96"));
        }
        Ok(network.with_channels(channels).with_embedding(embedding))
    }

    /// The metadata that [`Architecture::from_metadata`] reads. `None` for a number of units
    /// that has no name.
    pub fn to_metadata(&self) -> Option<[(String, String); 4]> {
        let (depth, _) = DEPTHS.into_iter().find(|(_, units)| *units == self.units)?;
        let [a, b, c, d] = self.channels;
        let pair = |key: &str, value: String| (key.to_owned(), value);
        Some([
            pair("architecture", format!("sphereface{depth}")),
            pair("channels", format!("{a},{b},{c},{d}")),
            pair("embedding_size", self.embedding.to_string()),
            pair("input", INPUT.to_owned()),
        ])
    }
}

impl fmt::Display for Architecture {
    /// `sphereface20`, with `-CxCxCxC` when the channels are not the paper's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DEPTHS.iter().find(|(_, units)| *units == self.units) {
            Some((depth, _)) => write!(f, "sphereface{depth}")?,
            None => write!(f, "sphereface[{:?}]", self.units)?,
        }
        if self.channels != PAPER_CHANNELS {
            let [a, b, c, d] = self.channels;
            write!(f, "-{a}x{b}x{c}x{d}")?;
        }
        Ok(())
    }
}

/// A stage of an [`Architecture`]. It halves the size of its maps at the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The convolution of stride 2 that comes first.
    pub opening: Convolution,
    /// The residual units after it: the second convolution takes what the first gives, and what the unit takes is added to
    /// what the second gives.
    pub units: Vec<[Convolution; 2]>,
}

/// One 3x3 convolution of an [`Architecture`]; padding is 1, a PReLU follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Stage, from 1.
    pub stage: usize,
    /// Place within the stage, from 1; 1 is the stride-2 opening, 2 and 3 the first unit, ...
    pub index: usize,
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// 1 or 2.
    pub stride: usize,
}

impl Convolution {
    /// The name of its weight `[output, input, 3, 3]`.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.names()[0])
    }

    /// The name of its bias `[output]`.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.names()[0])
    }

    /// The name of the slopes `[output]` of its PReLU.
    pub fn slopes(&self) -> String {
        format!("{}.weight", self.names()[1])
    }

    /// The authors' names of the layer and of its PReLU: `conv1_1` and `relu1_1`.
    pub(crate) fn names(&self) -> [String; 2] {
        ["conv", "relu"].map(|layer| format!("{layer}{}_{}", self.stage, self.index))
    }

    fn operation(&self) -> Operation {
        let window = Window { kernel: [3; 2], stride: [self.stride; 2], padding: [1; 4] };
        Operation::Convolution { channels: self.output, window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_have_the_layers_their_names_count() {
        for (depth, _) in DEPTHS {
            assert_eq!(Architecture::of_depth(depth).unwrap().convolutions().len(), depth);
        }
        let sphere20 = Architecture::of_depth(20).unwrap();
        assert_eq!(sphere20.convolutions().len(), 20);
        let parameters: usize =
            sphere20.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(parameters / 100_000, 226);
    }

    #[test]
    fn metadata_describes_the_network_and_nothing_else_passes() {
        let network =
            Architecture::of_depth(10).unwrap().with_channels([32, 64, 128, 256]).with_embedding(128);
        let metadata = BTreeMap::from(network.to_metadata().unwrap());
        assert_eq!(Architecture::from_metadata(&metadata), Ok(network));
        for (key, value) in [
            ("architecture", "sphereface21"),
            ("architecture", "opensphere20"),
            ("channels", "64,128,256"),
            ("channels", "64,128,256,0"),
            ("channels", "64,128,256,99999999999999999999"),
            ("embedding_size", "-1"),
            ("input", "112x112"),
        ] {
            let mut changed = metadata.clone();
            changed.insert(key.into(), value.into());
            let error = Architecture::from_metadata(&changed).unwrap_err();
            assert!(error.to_string().contains(&format!("{key} = '{value}'")), "{error}");
            changed.remove(key);
            assert_eq!(Architecture::from_metadata(&changed), Err(ArchitectureError::Missing(key)));
        }
    }

    #[test]
    fn the_plan_has_the_same_tensors_in_the_same_order() {
        let network = Architecture::of_depth(20).unwrap().with_channels([8, 24, 40, 56]).with_embedding(10);
        let plan = network.plan();
        let planned = plan.tensors();
        let (picture, rest) = planned.split_at(2);
        assert_eq!(
            picture.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            crate::models::plan::INPUT
        );
        let sizes = |list: &[(String, Vec<usize>)]| -> Vec<usize> {
            list.iter().map(|(_, shape)| shape.iter().product()).collect()
        };
        assert_eq!(sizes(rest), sizes(&network.tensors()));
        assert_eq!(plan.embedding(), 10);
        assert_eq!(plan.to_string(), "20 convolutions, 1 fully connected");
    }

    #[test]
    fn other_depths_do_not_exist() {
        assert!(Architecture::of_depth(21).is_none());
    }
}
