//! Settings of the detector and their validation.
//!
//! A setting is also recorded in analyses (`analysis/file.rs`) and in aligned data sets (`prepare`), and is set
//! by a flag in `cli/options.rs`.

use std::fmt;
use std::str::FromStr;

use crate::models::WeightsError;
use crate::nn::Isa;

/// P-Net classifies cells of this many pixels; a smaller face would need an enlarged image.
pub const SMALLEST_FACE_PX: f32 = 12.0;

/// The smallest face to look for (the side of the square P-Net starts from).
///
/// Faces down to about two thirds of it are still found now and then, because the boxes are
/// regressed afterwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFace {
    /// In pixels of the image, at least [`SMALLEST_FACE_PX`].
    Px(f32),
    /// As a fraction of the image height, above 0 and at most 1. Never less than
    /// [`SMALLEST_FACE_PX`] pixels in effect.
    FrameFraction(f32),
}

impl MinFace {
    /// The size in pixels for an image of that height.
    pub fn px(self, image_height: u32) -> f32 {
        match self {
            MinFace::Px(px) => px,
            MinFace::FrameFraction(fraction) => (fraction * image_height as f32).max(SMALLEST_FACE_PX),
        }
    }
}

impl FromStr for MinFace {
    type Err = DetectError;

    /// Reads `40`, `40px` or `5%` (of the frame height).
    fn from_str(text: &str) -> Result<Self, DetectError> {
        let refused = || DetectError::MinFaceSyntax(text.to_owned());
        let number = |digits: &str| digits.trim().parse::<f32>().map_err(|_| refused());
        let size = match (text.strip_suffix('%'), text.strip_suffix("px")) {
            (Some(percent), _) => MinFace::FrameFraction(number(percent)? / 100.0),
            (None, Some(px)) => MinFace::Px(number(px)?),
            (None, None) => MinFace::Px(number(text)?),
        };
        size.validate()?;
        Ok(size)
    }
}

impl fmt::Display for MinFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinFace::Px(px) => write!(f, "{px}px"),
            MinFace::FrameFraction(fraction) => write!(f, "{}%", fraction * 100.0),
        }
    }
}

impl MinFace {
    fn validate(self) -> Result<(), DetectError> {
        match self {
            MinFace::Px(px) if px >= SMALLEST_FACE_PX && px.is_finite() => Ok(()),
            MinFace::FrameFraction(fraction) if fraction > 0.0 && fraction <= 1.0 => Ok(()),
            _ => Err(DetectError::MinFace(self)),
        }
    }
}

/// Settings of the detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorConfig {
    /// The smallest face to look for. Default 40 px: below that an embedding identifies a person poorly (the
    /// recognition crop is 112 px high), and the time grows with the inverse square of this number. The
    /// authors' and the PyTorch port's default is 20 px.
    pub min_face: MinFace,
    /// Ratio of one pyramid level to the next, default 0.709 (half the area).
    pub factor: f32,
    /// Least face probability after P-Net, R-Net and O-Net, default 0.6, 0.7, 0.7.
    pub thresholds: [f32; 3],
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self { min_face: MinFace::Px(40.0), factor: 0.709, thresholds: [0.6, 0.7, 0.7] }
    }
}

/// Pyramid ratios outside this range either skip most sizes of faces or give a nearly endless pyramid.
const FACTORS: std::ops::RangeInclusive<f32> = 0.1..=0.95;

impl DetectorConfig {
    /// Validates every setting.
    ///
    /// # Errors
    /// The first invalid setting, with the reason.
    pub fn validate(&self) -> Result<(), DetectError> {
        self.min_face.validate()?;
        if !FACTORS.contains(&self.factor) {
            return Err(DetectError::Factor(self.factor));
        }
        for (&threshold, network) in self.thresholds.iter().zip(["P-Net", "R-Net", "O-Net"]) {
            if !(0.0..1.0).contains(&threshold) {
                return Err(DetectError::Threshold { network, threshold });
            }
        }
        Ok(())
    }
}

impl DetectorConfig {
    /// Sizes of the pyramid's levels for an image of that size, width and height in pixels, the
    /// largest first.
    pub fn pyramid(&self, width: u32, height: u32) -> Vec<(usize, usize)> {
        let side = |side: u32, scale: f64| (f64::from(side) * scale + 1.0) as usize;
        let scales = self.scales(width, height).into_iter();
        scales.map(|scale| (side(width, scale), side(height, scale))).collect()
    }

    /// The same as fractions of the full size.
    pub(super) fn scales(&self, width: u32, height: u32) -> Vec<f64> {
        let largest = 12.0 / f64::from(self.min_face.px(height));
        let shorter = f64::from(width.min(height));
        // The shorter side is multiplied step by step, as in the PyTorch port, so that both stop at the same
        // level.
        std::iter::successors(Some((largest, shorter * largest)), |(scale, side)| {
            let factor = decimal(self.factor);
            Some((scale * factor, side * factor))
        })
        .take_while(|&(_, side)| side >= 12.0)
        .map(|(scale, _)| scale)
        .collect()
    }
}

/// The decimal value that the user wrote: 0.709, not the f32 nearest to it.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Why a detector cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// Text that is not a face size.
    #[error("`{0}` is not a face size: write pixels (40 or 40px) or a share of the frame height (5%)")]
    MinFaceSyntax(String),
    /// A face size out of range.
    #[error(
        "a smallest face of {0} is out of range: give at least {SMALLEST_FACE_PX} pixels, or more than 0% and at most 100% of the frame height"
    )]
    MinFace(MinFace),
    /// A pyramid factor out of range.
    #[error(
        "a pyramid factor of {0} is out of range: give {start} to {end}; each level is the previous one scaled by it",
        start = FACTORS.start(), end = FACTORS.end()
    )]
    Factor(f32),
    /// A threshold that is not a probability.
    #[error("the {network} threshold {threshold} is not a probability: give at least 0 and less than 1")]
    Threshold {
        /// The network it belongs to.
        network: &'static str,
        /// What was requested.
        threshold: f32,
    },
    /// Weights that are not MTCNN's.
    #[error("the face detector cannot use its weights: {0}")]
    Weights(#[from] WeightsError),
    /// The tensor library cannot place or run the networks.
    #[error("the face detector failed on its device: {0}; run it on the CPU with --device cpu")]
    Device(String),
    /// An instruction set that this machine lacks.
    #[error("this machine cannot run {0} code: choose another instruction set")]
    Isa(Isa),
}

#[cfg(feature = "candle")]
impl From<candle_core::Error> for DetectError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn face_sizes_are_read_in_pixels_and_as_a_share_of_the_frame() {
        let read = |text: &str| text.parse::<MinFace>().unwrap();
        assert_eq!(read("40"), MinFace::Px(40.0));
        assert_eq!(read("24.5px"), MinFace::Px(24.5));
        assert_eq!(read("5%"), MinFace::FrameFraction(0.05));
        assert_eq!(read("50%").to_string(), "50%");
        for text in ["", "px", "%", "forty", "11", "-40", "NaN", "inf", "0%", "101%", "40 %%"] {
            assert!(text.parse::<MinFace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fraction_never_goes_below_what_the_network_can_see() {
        assert_eq!(MinFace::FrameFraction(0.05).px(1080), 54.0);
        assert_eq!(MinFace::FrameFraction(0.01).px(100), SMALLEST_FACE_PX);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let fine = DetectorConfig::default();
        assert!(fine.validate().is_ok());
        for factor in [0.0, 1.0, -0.7, f32::NAN] {
            assert!(DetectorConfig { factor, ..fine }.validate().is_err());
        }
        for threshold in [-0.1, 1.0, 1.5, f32::NAN] {
            let refused = DetectorConfig { thresholds: [0.6, threshold, 0.7], ..fine }.validate();
            assert!(refused.unwrap_err().to_string().contains("R-Net"));
        }
    }
}
