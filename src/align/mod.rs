//! From five landmarks to the 112x96 crop that SphereFace takes.

/// Height of a SphereFace crop in pixels.
pub const CROP_HEIGHT: usize = 112;
/// Width of a SphereFace crop in pixels.
pub const CROP_WIDTH: usize = 96;

/// An aligned face: 112 rows of 96 RGB pixels, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crop {
    rgb: Vec<u8>,
}

impl Crop {
    /// Bytes of a crop.
    pub const LEN_BYTES: usize = CROP_HEIGHT * CROP_WIDTH * 3;

    /// A crop from packed RGB bytes; `None` when there are not exactly [`Crop::LEN_BYTES`].
    pub fn from_rgb(rgb: Vec<u8>) -> Option<Self> {
        (rgb.len() == Self::LEN_BYTES).then_some(Self { rgb })
    }

    /// Packed RGB bytes, row by row.
    pub fn as_rgb(&self) -> &[u8] {
        &self.rgb
    }
}
