//! An analysis of what was looked at.

use std::path::Path;

use super::job::LabelJob;
use super::look::Looked;
use crate::analysis::{Analysis, Video, fingerprint};
use crate::embed::Mirror;
use crate::media::SourceInfo;
use crate::track::{Observation, TrackId};

/// Makes an analysis of what was looked at.
pub(super) struct Recorder {
    analysis: Analysis,
}

impl Recorder {
    /// Nothing yet, of a video with these facts.
    pub(super) fn new(job: &LabelJob<'_>, info: &SourceInfo) -> Self {
        let path = job.input.path();
        let video = Video {
            name: path
                .and_then(Path::file_name)
                .map_or_else(|| job.input.to_string(), |name| name.to_string_lossy().into_owned()),
            width: info.width as u32,
            height: info.height as u32,
            fps: info.fps,
            frames: 0,
            duration_ns: 0,
            // What cannot be read will fail where it is opened.
            fingerprint: path
                .filter(|path| path.is_file())
                .and_then(|path| fingerprint(path).ok())
                .unwrap_or_default(),
        };
        Self {
            analysis: Analysis {
                video,
                model: job.embedder.map(|embedder| embedder.model()),
                mirror: job.mirror == Mirror::Average,
                detector: *job.detector.config(),
                cuts: Vec::new(),
                observations: Vec::new(),
            },
        }
    }

    /// Adds the next frame.
    pub(super) fn record(&mut self, looked: &Looked, tracks: &[TrackId]) {
        let Analysis { video, cuts, observations, .. } = &mut self.analysis;
        video.frames += 1;
        video.duration_ns = looked.moment.pts_ns.saturating_add(looked.duration_ns);
        if looked.moment.cut {
            cuts.push(looked.moment.frame);
        }
        observations.extend(looked.faces.iter().zip(tracks).map(|(one, &track)| Observation {
            frame: looked.moment.frame,
            pts_ns: looked.moment.pts_ns,
            duration_ns: looked.duration_ns,
            face: one.face,
            quality: one.quality,
            embedding: one.embedding.clone(),
            track,
        }));
    }

    /// The analysis.
    pub(super) fn finish(self) -> Analysis {
        self.analysis
    }
}
