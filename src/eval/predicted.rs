//! Faces predicted by a program in a video, to be scored.

use serde::Deserialize;

/// A face that was found and perhaps named.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct PredictedFace {
    /// Frame, from 0.
    pub frame: u64,
    /// Its box x1, y1, x2, y2 in pixels.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// The name; `None` for unknown.
    pub name: Option<String>,
    /// The number of a stranger; `None` for people with a name and if strangers are not numbered.
    pub stranger: Option<u32>,
    /// Its track; `None` without tracking.
    pub track: Option<u32>,
    /// Presentation time of the frame in nanoseconds; `None` if unknown.
    pub pts_ns: Option<u64>,
}
