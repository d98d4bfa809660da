//! What a program says of a video, to be scored.

use serde::Deserialize;

/// A face that was found and perhaps named.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct PredictedFace {
    /// Frame, from 0.
    pub frame: u64,
    /// Where: x1, y1, x2, y2 in pixels.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Who; `None` for unknown.
    pub name: Option<String>,
    /// The number of a stranger; `None` for people with a name and where strangers are not told
    /// apart.
    pub stranger: Option<u32>,
    /// Its track; `None` where nothing was tracked.
    pub track: Option<u32>,
    /// When the frame is shown, in nanoseconds; `None` where that is not known.
    pub pts_ns: Option<u64>,
}
