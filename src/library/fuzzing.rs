//! The reader of this module for [`fuzzing`](crate::fuzzing).

/// The time in the EXIF data of a photo.
pub(crate) fn exif(bytes: &[u8]) {
    super::scan::exif_taken_s(std::io::Cursor::new(bytes));
}
