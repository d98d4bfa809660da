//! Faces for the gallery from stills and from tracks of analysed videos.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde_json::json;

use super::UsageError;
use sphereface::analysis::{Analysis, AnalysisError};
use sphereface::detect::BBox;
use sphereface::discover::{self, MAX_STILLS};
use sphereface::gallery::{Examined, NewStill};
use sphereface::track::TrackId;

/// Tracks of an analysed video, written `clip.parquet#7` or `clip.parquet#7,9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracks {
    /// The analysis.
    pub analysis: PathBuf,
    /// Numbers of tracks; at least one.
    pub tracks: Vec<TrackId>,
}

impl FromStr for Tracks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (analysis, numbers) = text.rsplit_once('#').ok_or_else(|| refused(text))?;
        Self::of(Path::new(analysis), numbers).ok_or_else(|| refused(text))
    }
}

fn refused(text: &str) -> String {
    format!("`{text}` is not a track: write the analysis and the track number, for example clip.parquet#7")
}

impl Tracks {
    /// Parses arguments; the path of the analysis may contain any bytes.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|argument: OsString| Self::of_argument(&argument))
    }

    #[cfg(unix)]
    fn of_argument(argument: &OsStr) -> Result<Self, String> {
        use std::os::unix::ffi::OsStrExt;
        let bytes = argument.as_bytes();
        let hash = bytes.iter().rposition(|byte| *byte == b'#');
        let tracks = hash.and_then(|hash| {
            let numbers = std::str::from_utf8(&bytes[hash + 1..]).ok()?;
            Self::of(Path::new(OsStr::from_bytes(&bytes[..hash])), numbers)
        });
        tracks.ok_or_else(|| refused(&argument.to_string_lossy()))
    }

    #[cfg(not(unix))]
    fn of_argument(argument: &OsStr) -> Result<Self, String> {
        argument.to_string_lossy().parse()
    }

    fn of(analysis: &Path, numbers: &str) -> Option<Self> {
        let number = |part: &str| part.trim().parse().ok().filter(|&n| n > 0).map(TrackId);
        let tracks: Option<Vec<TrackId>> = numbers.split(',').map(number).collect();
        let tracks = tracks.filter(|_| !analysis.as_os_str().is_empty())?;
        Some(Self { analysis: analysis.into(), tracks })
    }
}

/// A face as JSON.
pub fn describe(Examined { face, quality, number, .. }: &Examined) -> serde_json::Value {
    let BBox { x1, y1, x2, y2 } = face.bbox;
    json!({
        "number": number,
        "box": [x1, y1, x2, y2],
        "landmarks": face.landmarks,
        "score": face.score,
        "quality": quality,
    })
}

/// The best views of tracks, cropped from their videos: up to three per track.
pub fn of_tracks(tracks: &[Tracks], video: Option<&Path>) -> Result<Vec<NewStill>> {
    let mut stills = Vec::new();
    for Tracks { analysis: path, tracks } in tracks {
        let analysis = Analysis::read(path)?;
        let video = video_of(path, &analysis, video)?;
        let mut wanted: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for track in tracks {
            for view in discover::best_views(&analysis, *track, MAX_STILLS)? {
                wanted.entry(view.pts_ns).or_default().push(view);
            }
        }
        let times_ns: BTreeSet<u64> = wanted.keys().copied().collect();
        let before = stills.len();
        discover::pictures(&video, &times_ns, |pts_ns, picture| {
            let views = wanted.get(&pts_ns).into_iter().flatten();
            stills.extend(views.filter_map(|view| discover::still(&analysis.video.name, &picture, view)));
        })?;
        if stills.len() == before {
            bail!("no face in these tracks of {} can be enrolled: choose other tracks", video.display());
        }
    }
    Ok(stills)
}

/// The video that an analysis was made from. The error of a missing one names the flag --video.
pub fn video_of(path: &Path, analysis: &Analysis, given: Option<&Path>) -> Result<PathBuf> {
    analysis.find_video(path, given).map_err(|error| match error {
        AnalysisError::NoVideo { .. } => {
            UsageError(format!("{error}: locate it with --video FILE or --video FOLDER")).into()
        }
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_read_and_nothing_else() {
        let tracks: Tracks = "a #1/clip.parquet#7, 9".parse().unwrap();
        assert_eq!(tracks.analysis, Path::new("a #1/clip.parquet"));
        assert_eq!(tracks.tracks, [TrackId(7), TrackId(9)]);
        for wrong in ["", "clip.parquet", "clip.parquet#", "#7", "clip.parquet#0", "clip.parquet#a", "c#1,,2"]
        {
            assert!(wrong.parse::<Tracks>().is_err(), "{wrong}");
        }
    }
}
