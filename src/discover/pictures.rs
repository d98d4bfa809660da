//! Fetching frames of an analysed video.

use std::collections::BTreeSet;
use std::path::Path;

use image::RgbImage;

use crate::media::MediaError;
#[cfg(feature = "video")]
use crate::media::{Input, Selection, Source, SourceOptions};

/// Decodes `video` up to the last of these times and returns the frames that begin at these times, in order.
/// Times are those of an analysis, in nanoseconds.
///
/// # Errors
/// When the video cannot be opened or read; [`MediaError::BadInput`] from a program without
/// video.
#[cfg(feature = "video")]
pub fn pictures(
    video: &Path,
    times_ns: &BTreeSet<u64>,
    each: impl FnMut(u64, RgbImage),
) -> Result<(), MediaError> {
    pictures_within(video, Selection::default(), times_ns, each)
}

/// The same from a part of the video.
///
/// # Errors
/// As for [`pictures`].
#[cfg(feature = "video")]
pub(crate) fn pictures_within(
    video: &Path,
    selection: Selection,
    times_ns: &BTreeSet<u64>,
    mut each: impl FnMut(u64, RgbImage),
) -> Result<(), MediaError> {
    let Some(last_ns) = times_ns.last() else { return Ok(()) };
    let options = SourceOptions { selection, ..SourceOptions::default() };
    let mut source = Source::open(&Input::of_path(video), &options)?;
    while let Some(frame) = source.next_frame()? {
        if times_ns.contains(&frame.pts_ns) {
            each(frame.pts_ns, frame.picture.to_rgb());
        }
        if frame.pts_ns >= *last_ns {
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
