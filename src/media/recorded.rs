//! The recording time of a video, as stated by its container.

use std::fs::File;
use std::path::Path;

use super::{matroska, mp4};

/// The recording time stated by the video at `path`, in seconds since 1970. MP4, QuickTime and Matroska files
/// can state it.
pub fn recorded_s(path: &Path) -> Option<i64> {
    let mut file = File::open(path).ok()?;
    match mp4::recorded_s(&mut file) {
        Ok(Some(seconds)) => Some(seconds),
        _ => matroska::recorded_s(&mut file).ok().flatten(),
    }
}
