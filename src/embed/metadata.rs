//! The network that a set of weights says it belongs to.

use super::{Architecture, EmbedError, arch};
use crate::nn::Weights;

/// Order of the colour channels in the first layer's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first, as most PyTorch ports.
    Rgb,
    /// Blue first, as the authors' Caffe models.
    Bgr,
}

impl Architecture {
    /// The architecture in the metadata of `weights`: `architecture`, and where given
    /// `channels` (the paper's otherwise) and `embedding_size` (512 otherwise).
    ///
    /// # Errors
    /// When a key is missing or makes no sense.
    pub fn from_metadata(weights: &Weights) -> Result<Self, EmbedError> {
        let text = |key: &str| weights.metadata.get(key).map(String::as_str);
        let name = text("architecture").ok_or(EmbedError::MissingMetadata("architecture"))?;
        let wrong = |key, value: &str, expected| EmbedError::Metadata { key, value: value.into(), expected };
        let base = name.split('-').next().unwrap_or(name);
        let mut found = arch::DEPTHS
            .into_iter()
            .find(|(depth, _)| base == format!("sphereface{depth}"))
            .and_then(|(depth, _)| Self::of_depth(depth))
            .ok_or_else(|| {
                wrong(
                    "architecture",
                    name,
                    "sphereface4, sphereface10, sphereface20, sphereface36 or sphereface64",
                )
            })?;
        if let Some(list) = text("channels") {
            let channels: Option<Vec<usize>> = list.split(',').map(|n| n.trim().parse().ok()).collect();
            found.channels = channels
                .and_then(|c| c.try_into().ok())
                .ok_or_else(|| wrong("channels", list, "four counts of channels separated by commas"))?;
        }
        if let Some(size) = text("embedding_size") {
            found.embedding = size.parse().map_err(|_| wrong("embedding_size", size, "a number"))?;
        }
        if name != base && name != found.to_string() {
            return Err(wrong("architecture", name, "the network that `channels` describes"));
        }
        if let Some(input) = text("input").filter(|&input| input != "112x96") {
            return Err(wrong("input", input, "112x96, the size of an aligned crop"));
        }
        Ok(found)
    }
}

impl ChannelOrder {
    /// The channel order in the metadata of `weights`.
    ///
    /// # Errors
    /// When `channel_order` is missing or neither RGB nor BGR: guessing it wrong costs
    /// accuracy without a sign of it.
    pub fn from_metadata(weights: &Weights) -> Result<Self, EmbedError> {
        match weights.metadata.get("channel_order").map(String::as_str) {
            Some("RGB") => Ok(Self::Rgb),
            Some("BGR") => Ok(Self::Bgr),
            Some(other) => Err(EmbedError::Metadata {
                key: "channel_order",
                value: other.into(),
                expected: "RGB or BGR",
            }),
            None => Err(EmbedError::MissingMetadata("channel_order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Weights {
        let metadata = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Weights { metadata, ..Default::default() }
    }

    #[test]
    fn a_network_is_found_by_its_metadata() {
        let keys =
            [("architecture", "sphereface10"), ("channels", "32,64,128,256"), ("embedding_size", "128")];
        let found = Architecture::from_metadata(&with(&keys)).unwrap();
        assert_eq!(found.units, [0, 1, 2, 0]);
        assert_eq!(found.channels, [32, 64, 128, 256]);
        assert_eq!(found.embedding, 128);
        let found = Architecture::from_metadata(&with(&[("architecture", "sphereface64")])).unwrap();
        assert_eq!(Some(found), Architecture::of_depth(64));
    }

    #[test]
    fn nonsense_is_refused_by_its_key() {
        let message =
            |pairs: &[(&str, &str)]| Architecture::from_metadata(&with(pairs)).unwrap_err().to_string();
        assert!(message(&[]).contains("architecture"));
        assert!(message(&[("architecture", "sphereface21")]).contains("sphereface21"));
        let sphere = ("architecture", "sphereface20");
        assert!(message(&[sphere, ("channels", "1,2,3")]).contains("channels=`1,2,3`"));
        assert!(message(&[sphere, ("embedding_size", "many")]).contains("embedding_size"));
        assert!(message(&[sphere, ("input", "112x112")]).contains("112x112"));
        assert!(ChannelOrder::from_metadata(&with(&[("channel_order", "GRB")])).is_err());
        assert!(ChannelOrder::from_metadata(&with(&[])).is_err());
    }
}
