//! The scales of a model's layers for 8-bit integers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::network::takes_int8;
use super::{Architecture, EmbedError};
use crate::models::arch::Convolution;

/// The metadata key of the scales, in JSON.
const KEY: &str = "int8";

/// For each convolution that can take 8-bit integers, what one in its input stands for: an input x becomes the integer
/// nearest to x divided by the scale, from -128 to 127. `models/eight_bits.py` measures them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Int8Scales {
    /// By the name of the convolution: `conv2_2`.
    scales: BTreeMap<String, f32>,
}

impl Int8Scales {
    /// The scales in the metadata of a model, one for each convolution of the network that takes 8-bit integers.
    ///
    /// # Errors
    /// When there are none, or one is missing or is not a positive number.
    pub fn from_metadata(
        metadata: &BTreeMap<String, String>,
        architecture: &Architecture,
    ) -> Result<Self, EmbedError> {
        let text = metadata.get(KEY).ok_or(EmbedError::NoInt8Scales)?;
        let scales: Self = serde_json::from_str(text).map_err(|_| EmbedError::Metadata {
            key: KEY,
            value: text.clone(),
            expected: "a JSON object with `scales`",
        })?;
        architecture
            .convolutions()
            .iter()
            .filter(|c| takes_int8(c))
            .try_for_each(|c| scales.of(c).map(drop))?;
        Ok(scales)
    }

    /// That of the inputs of a convolution.
    ///
    /// # Errors
    /// When it is missing or is not a positive number.
    pub(super) fn of(&self, convolution: &Convolution) -> Result<f32, EmbedError> {
        let [name, _] = convolution.names();
        match self.scales.get(&name) {
            Some(scale) if scale.is_normal() && *scale > 0.0 => Ok(*scale),
            _ => Err(EmbedError::Int8Scale(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, channels: [usize; 4]) -> Result<Int8Scales, EmbedError> {
        let architecture = Architecture::of_depth(4).unwrap().with_channels(channels);
        Int8Scales::from_metadata(&[("int8".to_owned(), text.to_owned())].into(), &architecture)
    }

    #[test]
    fn convolutions_that_take_integers_of_8_bits_need_a_positive_scale_each() {
        let text = r#"{"faces": 1, "scales": {"conv3_1": 0.5, "conv4_1": 2}}"#;
        let scales = of(text, [32, 64, 65, 512]).unwrap();
        let all = Architecture::of_depth(4).unwrap().convolutions();
        assert_eq!([2, 3].map(|i| scales.of(&all[i]).unwrap()), [0.5, 2.0]);
        assert!(of(r#"{"scales": {}}"#, [3, 32, 32, 512]).is_ok(), "no convolution takes them");
        for (text, wrong) in [
            (r#"{"scales": {"conv3_1": 0.5}}"#, "`conv4_1`"),
            (r#"{"scales": {"conv3_1": 0, "conv4_1": 2}}"#, "`conv3_1`"),
            (r#"{"scales": {"conv3_1": -1, "conv4_1": 2}}"#, "`conv3_1`"),
            (r#"{"scales": {"conv3_1": 1e-40, "conv4_1": 2}}"#, "`conv3_1`"),
            (r#"{"scales": {"conv3_1": 1, "conv4_1": 1e39}}"#, "conv4_1"),
            ("{}", "a JSON object with `scales`"),
            ("[1]", "a JSON object with `scales`"),
        ] {
            let error = of(text, [32, 64, 65, 512]).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
        let none = Int8Scales::from_metadata(&BTreeMap::new(), &Architecture::of_depth(4).unwrap());
        assert!(matches!(none, Err(EmbedError::NoInt8Scales)));
    }
}
