//! Fetching frames of an analysed video.

use std::collections::BTreeSet;
use std::path::Path;

use image::RgbImage;

use crate::media::MediaError;

/// Decodes `video` up to the last of `frames` and hands out those, in order, as the analysis
/// counts them: from 0 in the order of decoding.
///
/// # Errors
/// When the video cannot be opened or read; [`MediaError::BadInput`] from a program without
/// video.
#[cfg(feature = "video")]
pub fn pictures(
    video: &Path,
    frames: &BTreeSet<u64>,
    mut each: impl FnMut(u64, RgbImage),
) -> Result<(), MediaError> {
    use crate::media::{Input, Source, SourceOptions};
    let Some(last) = frames.last() else { return Ok(()) };
    let mut source = Source::open(&Input::of_path(video), &SourceOptions::default())?;
    while let Some(frame) = source.next_frame()? {
        if frames.contains(&frame.index) {
            each(frame.index, frame.picture.to_rgb());
        }
        if frame.index >= *last {
            break;
        }
    }
    Ok(())
}

/// Decodes nothing: the program was built without video.
///
/// # Errors
/// Always.
#[cfg(not(feature = "video"))]
pub fn pictures(video: &Path, _: &BTreeSet<u64>, _: impl FnMut(u64, RgbImage)) -> Result<(), MediaError> {
    Err(MediaError::BadInput {
        input: video.display().to_string(),
        reason: "this program was built for stills only: build it with the feature `video`".into(),
    })
}
