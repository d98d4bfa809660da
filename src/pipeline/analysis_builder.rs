//! Building an analysis while frames are observed.

use std::path::{Path, PathBuf};

use super::LabelError;
use super::subscriber::{Ending, Subscriber};
use crate::analysis::{Analysis, AnalysisError, Video, fingerprint};
use crate::detect::{Face, Quality};
use crate::embed::{Embedding, Mirror};
use crate::engine::observe::ObservedFrame;
use crate::engine::{Engine, LabelledFrame};
use crate::file;
use crate::media::{Input, SourceInfo};
use crate::track::{Moment, Observation, TrackId};

/// A subscriber that writes an analysis of its frames.
pub(super) struct AnalysisWriter {
    builder: AnalysisBuilder,
    path: PathBuf,
}

impl AnalysisWriter {
    /// Writes what `builder` makes of the frames to `path`.
    ///
    /// # Errors
    /// When no file can be written there.
    pub fn new(builder: AnalysisBuilder, path: PathBuf) -> Result<Self, LabelError> {
        file::check(&path).map_err(|source| AnalysisError::Write { path: path.clone(), source })?;
        Ok(Self { builder, path })
    }
}

impl Subscriber for AnalysisWriter {
    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        self.builder.labelled(frame);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &Ending<'_>) -> Result<(), LabelError> {
        Ok(self.builder.finish().write(&self.path)?)
    }
}

/// Builds an analysis frame by frame.
#[derive(Clone)]
pub(super) struct AnalysisBuilder {
    analysis: Analysis,
}

impl AnalysisBuilder {
    /// An empty analysis of a video with these facts. `embeds` tells whether faces are embedded.
    pub(super) fn new(engine: &Engine, embeds: bool, input: &Input, info: &SourceInfo) -> Self {
        let path = input.path();
        let video = Video {
            name: path
                .and_then(Path::file_name)
                .map_or_else(|| input.to_string(), |name| name.to_string_lossy().into_owned()),
            width: info.width as u32,
            height: info.height as u32,
            fps: info.fps,
            frames: 0,
            duration_ns: 0,
            // An unreadable file fails later, when it is opened.
            fingerprint: path
                .filter(|path| path.is_file())
                .and_then(|path| fingerprint(path).ok())
                .unwrap_or_default(),
            sampled_fps: info.selection.fps,
            key_frames: info.selection.key_frames,
        };
        Self {
            analysis: Analysis {
                video,
                model: embeds.then(|| engine.model()),
                arithmetic: engine.arithmetic().arithmetic,
                mirror: engine.mirror() == Mirror::Average,
                detector: *engine.detector().config(),
                cuts: Vec::new(),
                observations: Vec::new(),
            },
        }
    }

    /// Adds the next frame, with the tracks of its faces.
    pub(super) fn observed(&mut self, frame: &ObservedFrame, tracks: &[TrackId]) {
        let faces = frame.faces.iter().zip(tracks);
        let faces = faces.map(|(one, &track)| (one.face, one.quality, one.embedding.clone(), track));
        self.record(frame.moment, frame.duration_ns, faces);
    }

    /// Adds the next frame after the decision.
    pub(super) fn labelled(&mut self, frame: &LabelledFrame) {
        let moment = Moment { frame: frame.index, pts_ns: frame.pts_ns, cut: frame.cut };
        let faces = frame.faces.iter();
        let faces = faces.filter_map(|one| Some((one.face, one.quality, one.embedding.clone(), one.track?)));
        self.record(moment, frame.duration_ns, faces);
    }

    fn record(
        &mut self,
        moment: Moment,
        duration_ns: u64,
        faces: impl Iterator<Item = (Face, Quality, Option<Embedding>, TrackId)>,
    ) {
        let Moment { frame, pts_ns, cut } = moment;
        let Analysis { video, cuts, observations, .. } = &mut self.analysis;
        video.frames += 1;
        video.duration_ns = pts_ns.saturating_add(duration_ns);
        if cut {
            cuts.push(frame);
        }
        observations.extend(faces.map(|(face, quality, embedding, track)| Observation {
            frame,
            pts_ns,
            duration_ns,
            face,
            quality,
            embedding,
            track,
        }));
    }

    /// The finished analysis.
    pub(super) fn finish(self) -> Analysis {
        self.analysis
    }
}
