//! When a video was recorded, by what its container says.

use std::fs::File;
use std::path::Path;

use super::{matroska, mp4};

/// When the video at `path` says that it was recorded, in seconds since 1970. MP4, QuickTime and Matroska files can say so.
pub fn recorded_s(path: &Path) -> Option<i64> {
    let mut file = File::open(path).ok()?;
    match mp4::recorded_s(&mut file) {
        Ok(Some(seconds)) => Some(seconds),
        _ => matroska::recorded_s(&mut file).ok().flatten(),
    }
}
