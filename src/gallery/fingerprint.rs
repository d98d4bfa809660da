//! A fingerprint of a whole gallery, to see whether another program has changed it.

use super::pack::{Stamp, mark};
use super::{GalleryError, GalleryFolder, calibration};

/// The state of a gallery on the disk, which changes with every file in it that decides about names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    people: Vec<(String, Stamp)>,
    calibration: Option<[u64; 3]>,
}

impl GalleryFolder {
    /// The gallery's fingerprint as it is now. It takes three questions to the file system per person, and
    /// reads no file.
    ///
    /// # Errors
    /// [`GalleryError::Read`].
    pub(crate) fn fingerprint(&self) -> Result<Fingerprint, GalleryError> {
        let with_stamp = |folder: String| Stamp::of(&self.root.join(&folder)).map(|stamp| (folder, stamp));
        let people = self.folders()?.into_iter().filter_map(with_stamp).collect();
        Ok(Fingerprint { people, calibration: mark(&self.root.join(calibration::FILE)) })
    }
}
