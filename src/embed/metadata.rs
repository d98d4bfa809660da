//! The channel order that a set of weights expects.

use std::collections::BTreeMap;

use super::EmbedError;

/// Order of the colour channels in the first layer's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first, as most PyTorch ports.
    Rgb,
    /// Blue first, as the authors' Caffe models.
    Bgr,
}

impl ChannelOrder {
    /// The channel order in the metadata of weights.
    ///
    /// # Errors
    /// When `channel_order` is missing or neither RGB nor BGR: a wrong guess would reduce accuracy without
    /// any visible sign.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, EmbedError> {
        match metadata.get("channel_order").map(String::as_str) {
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

    fn with(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_guess_is_refused() {
        assert!(ChannelOrder::from_metadata(&with(&[("channel_order", "GRB")])).is_err());
        assert!(ChannelOrder::from_metadata(&with(&[])).is_err());
    }
}
