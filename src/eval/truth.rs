//! The ground truth of a video.
//!
//! # Truth files
//! JSON in one of two forms; keys not named here are ignored.
//! - Frames: `{"frames": [{"frame": 0, "faces": [{"name": "...", "box": [x1, y1, x2, y2],
//!   "id": "...", "difficult": false, "partial": false}], "ignore": [[x1, y1, x2, y2]]}]}`. The
//!   name of a stranger is `unknown`. Every face of a listed frame is there. An `id` is shared by
//!   the frames of one continuous face: one person in one shot. With `width` and `height` beside `frames`,
//!   detections are clipped to the picture, like the boxes of the truth.
//! - Tracks: `{"clips": {"a.mp4": {"faces": [{"name": "..." or null, "easy": true,
//!   "frames": [[0, [x1, y1, x2, y2]]]}]}}}`. `null` stands for someone undecided: neither hit
//!   nor miss. Other faces may be in the video, so detections without a truth are not errors.
//!
//! Frames are counted from 0 in the order of decoding; boxes are in pixels.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{EvalError, read};
use crate::detect::BBox;

/// The identity of a face of the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A person who should be named.
    Known(String),
    /// A person who should not be named.
    Stranger,
    /// Undecided: does not count.
    Undecided,
}

/// A face of the truth.
#[derive(Debug, Clone, PartialEq)]
pub struct TruthFace {
    /// The box.
    pub bbox: BBox,
    /// The identity.
    pub who: Who,
    /// The name of the person, to be named or not; `None` if the truth does not state it.
    pub person: Option<String>,
    /// The continuous face that it belongs to; `None` if the truth does not state it.
    pub id: Option<String>,
    /// Whether missing it is counted separately.
    pub difficult: bool,
    /// Whether it is mostly outside the frame and does not count.
    pub partial: bool,
}

/// The truth of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TruthFrame {
    /// Its faces.
    pub faces: Vec<TruthFace>,
    /// Regions in which a detection without a truth face is not an error.
    pub ignore: Vec<BBox>,
}

/// The truth of a video.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// Frames by index. Detections in other frames do not count.
    pub frames: BTreeMap<u64, TruthFrame>,
    /// Whether every face of those frames is listed.
    pub complete: bool,
    /// Width and height of the frames in pixels, if the truth states them.
    pub size_px: Option<[f32; 2]>,
}

#[derive(Deserialize)]
pub(super) struct FramesFile {
    width: Option<f32>,
    height: Option<f32>,
    frames: Vec<FileFrame>,
}

#[derive(Deserialize)]
struct FileFrame {
    frame: u64,
    #[serde(default)]
    faces: Vec<FileFace>,
    #[serde(default)]
    ignore: Vec<[f32; 4]>,
}

#[derive(Deserialize)]
struct FileFace {
    name: String,
    #[serde(rename = "box")]
    bbox: [f32; 4],
    id: Option<String>,
    #[serde(default)]
    difficult: bool,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct ClipsFile {
    clips: BTreeMap<String, Clip>,
}

#[derive(Deserialize)]
pub(super) struct Clip {
    frames: u64,
    faces: Vec<ClipTrack>,
}

#[derive(Deserialize)]
struct ClipTrack {
    name: Option<String>,
    #[serde(default)]
    easy: bool,
    frames: Vec<(u64, [f32; 4])>,
}

pub(super) fn bbox([x1, y1, x2, y2]: [f32; 4]) -> BBox {
    BBox { x1, y1, x2, y2 }
}

impl Truth {
    /// Reads a truth file; `clip` chooses from a file of several clips.
    ///
    /// # Errors
    /// When the file cannot be read, has neither form, or lacks that clip.
    pub fn read(path: &Path, clip: Option<&str>) -> Result<Self, EvalError> {
        let text = read(path)?;
        let error =
            |cause: serde_json::Error| EvalError::Truth { path: path.into(), cause: cause.to_string() };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(error)?;
        if value.get("clips").is_some() {
            let file: ClipsFile = serde_json::from_value(value).map_err(error)?;
            let clips = || {
                format!(
                    "choose one of {}",
                    file.clips.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                )
            };
            let name = clip.unwrap_or_default();
            let found = file.clips.get(name);
            return found.map(Self::from_clip).ok_or_else(|| EvalError::Clip {
                path: path.into(),
                clip: name.into(),
                clips: clips(),
            });
        }
        if let Some(clip) = clip {
            let clips = "it has a single video, so omit the name".into();
            return Err(EvalError::Clip { path: path.into(), clip: clip.into(), clips });
        }
        Ok(Self::from_frames(serde_json::from_value(value).map_err(error)?))
    }

    pub(super) fn from_frames(file: FramesFile) -> Self {
        let size_px = file.width.zip(file.height).map(|(width, height)| [width, height]);
        let mut truth = Self { complete: true, size_px, ..Self::default() };
        for frame in file.frames {
            let faces = frame.faces.into_iter().map(|face| {
                let person = Some(face.name).filter(|name| !same_name(name, "unknown"));
                TruthFace {
                    bbox: bbox(face.bbox),
                    id: face.id,
                    who: person.clone().map_or(Who::Stranger, Who::Known),
                    person,
                    difficult: face.difficult,
                    partial: face.partial,
                }
            });
            let entry = truth.frames.entry(frame.frame).or_default();
            entry.faces.extend(faces);
            entry.ignore.extend(frame.ignore.into_iter().map(bbox));
        }
        truth
    }

    pub(super) fn from_clip(clip: &Clip) -> Self {
        let mut truth = Self::default();
        truth.frames.extend((0..clip.frames).map(|frame| (frame, TruthFrame::default())));
        for (number, track) in clip.faces.iter().enumerate() {
            for (frame, place) in &track.frames {
                truth.frames.entry(*frame).or_default().faces.push(TruthFace {
                    bbox: bbox(*place),
                    who: track.name.clone().map_or(Who::Undecided, Who::Known),
                    person: track.name.clone(),
                    id: Some(number.to_string()),
                    difficult: !track.easy,
                    partial: false,
                });
            }
        }
        truth
    }

    /// A detection, clipped to the picture.
    pub(super) fn inside(&self, BBox { x1, y1, x2, y2 }: BBox) -> BBox {
        let Some([width, height]) = self.size_px else { return BBox { x1, y1, x2, y2 } };
        let (x, y) = (|x: f32| x.clamp(0.0, width), |y: f32| y.clamp(0.0, height));
        BBox { x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2) }
    }

    /// Makes strangers of everyone who is not in `enrolled`.
    pub fn with_enrolled(mut self, enrolled: &[String]) -> Self {
        for face in self.frames.values_mut().flat_map(|frame| &mut frame.faces) {
            if let Who::Known(name) = &face.who
                && !enrolled.iter().any(|e| same_name(e, name))
            {
                face.who = Who::Stranger;
            }
        }
        self
    }
}

/// Whether two names are the same except for case, `-`, `_` and space.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    canonical(a) == canonical(b)
}

pub(super) fn canonical(name: &str) -> String {
    let plain = name.trim().replace(['-', '_'], " ").to_lowercase();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
