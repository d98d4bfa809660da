//! The reader of this module for [`fuzzing`](crate::fuzzing).

/// An analysis in a Parquet file.
pub(crate) fn analysis(bytes: &[u8]) {
    drop(super::file::decode(crate::file::unnamed(bytes)));
}
