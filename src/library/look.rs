//! The analysis of one file.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::analyses::Analyses;
use super::catalogue::Kind;
use crate::analysis::{self, Analysis, Video};
use crate::embed::Mirror;
use crate::engine::{DetectEvery, Engine};
use crate::media::{self, Input, Selection};
use crate::pipeline::{Control, LabelError, LabelJob, Progress};
use crate::track::{Observation, TrackId};

/// Duration of a photo. It is not 0, so that two faces in it overlap in time and are two people.
const PHOTO_NS: u64 = 1;

/// Frames per second up to which every frame is searched: a third of a second between two frames, as between
/// two searches of a video of 25 frames per second.
const FAR_APART_FPS: f64 = 3.0;

/// Why a file was not analysed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was stopped.
    Stopped,
    /// The file is the cause, so another attempt would fail too.
    File(String),
    /// It cannot be reached, as when a share is away: no attempt on the file itself was made.
    Away(String),
    /// There is another cause.
    Other(String),
}

impl Failure {
    fn other(error: &dyn std::error::Error) -> Self {
        Self::Other(whole(error))
    }

    /// The failure to read a file. Where the file cannot be reached, it is not its fault.
    fn reading(path: &Path, error: &dyn std::error::Error) -> Self {
        let reason = without_name(path, whole(error));
        if is_out_of_reach(path) { Self::Away(reason) } else { Self::File(reason) }
    }
}

/// Whether the folder of a file is not there, as that of a share that is away, or reading fails for a reason other than the
/// file's absence or its permissions.
fn is_out_of_reach(path: &Path) -> bool {
    // To open a FIFO would wait for its writer.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return false;
    }
    let Err(error) = File::open(path).and_then(|mut file| file.read(&mut [0])) else { return false };
    match error.kind() {
        ErrorKind::NotFound => !path.parent().is_some_and(Path::is_dir),
        ErrorKind::PermissionDenied => false,
        _ => true,
    }
}

/// How videos are analysed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LookOptions {
    /// Interval between searches of whole frames. `Auto` searches every frame if few frames are analysed.
    pub detect_every: DetectEvery,
    /// The most frames per second; `None` for every frame.
    pub fps: Option<f64>,
    /// Key frames only, if the container marks them.
    pub key_frames: bool,
}

impl Default for LookOptions {
    fn default() -> Self {
        Self { detect_every: DetectEvery::Auto, fps: None, key_frames: false }
    }
}

impl LookOptions {
    /// The frames of a whole file to analyse.
    pub(super) fn selection(&self) -> Selection {
        Selection { fps: self.fps, key_frames: self.key_frames, ..Selection::default() }
    }
}

/// The interval between searches of whole frames if only some frames of a video are analysed. Unless one was
/// requested, every frame is searched if they are so far apart that people come and go between them.
pub(super) fn interval(asked_for: DetectEvery, selection: Selection, path: &Path) -> DetectEvery {
    let far_apart = selection.fps.is_some_and(|fps| fps <= FAR_APART_FPS)
        || selection.key_frames && media::marks_key_frames(path);
    if asked_for == DetectEvery::Auto && far_apart { DetectEvery::Frames(1) } else { asked_for }
}

/// A file to analyse.
pub(super) struct Look<'a> {
    pub engine: &'a Engine,
    pub detect_every: DetectEvery,
    pub path: &'a Path,
    pub kind: Kind,
    /// The frames of a video to analyse.
    pub selection: Selection,
    /// The storage of analyses.
    pub analyses: &'a Analyses,
    /// The name of its analysis.
    pub name: &'a str,
    /// Distinguishes this process from others that analyse the same file.
    pub worker: &'a str,
}

impl Look<'_> {
    /// The existing analysis, if it was made in the same way.
    pub fn there(&self) -> Option<Analysis> {
        let analysis = self.analyses.read(self.name).ok()??;
        let video = &analysis.video;
        let made = (video.sampled_fps, video.key_frames);
        let Selection { fps, key_frames, .. } = self.selection;
        let same_frames = self.kind == Kind::Photo || made == (fps, key_frames);
        // The arithmetic may differ, for example that of a worker with another CPU: angles differ by less
        // than half a degree, which does not justify another analysis.
        let same = analysis.model == Some(self.engine.model())
            && analysis.mirror == (self.engine.mirror() == Mirror::Average)
            && analysis.detector == *self.engine.detector().config()
            && same_frames;
        same.then_some(analysis)
    }

    /// The analysis, which is then stored under its final name, and why the file ends early, if it does.
    /// `progress` is called with the frames done and those expected.
    pub fn run(
        &self,
        control: &Control,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(Analysis, String), Failure> {
        // It is from an earlier attempt that could not store its results, or was made elsewhere.
        if let Some(analysis) = self.there() {
            return Ok((analysis, String::new()));
        }
        match self.kind {
            Kind::Photo => {
                let analysis = self.photo()?;
                self.analyses.write(self.name, &analysis).map_err(|error| Failure::other(&error))?;
                Ok((analysis, String::new()))
            }
            Kind::Video => self.video(control, progress),
        }
    }

    fn video(
        &self,
        control: &Control,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(Analysis, String), Failure> {
        // Under a temporary name until it is complete.
        let last = self.analyses.path(self.name);
        let part = last.with_extension(format!("{}.parquet", self.worker));
        let (mut done, mut all) = (0, None);
        let job = LabelJob::new(self.engine, Input::File(self.path.to_owned()))
            .detect_every(interval(self.detect_every, self.selection, self.path))
            .selection(self.selection)
            .analysis(&part);
        let result = job.run(control, &mut |event| match event {
            Progress::Opened { frames, .. } => all = frames,
            Progress::Frame => {
                done += 1;
                progress(done, all);
            }
            Progress::Warning(_) => {}
        });
        let error = match result {
            Ok(summary) if !summary.stopped => {
                let kept = fs::rename(&part, &last);
                kept.map_err(|error| {
                    Failure::Other(format!("{} cannot be written: {error}", last.display()))
                })?;
                let analysis = Analysis::read(&last).map_err(|error| Failure::other(&error))?;
                self.analyses.keep(self.name).map_err(|error| Failure::other(&error))?;
                return Ok((analysis, summary.cut_off.unwrap_or_default()));
            }
            Ok(_) => Failure::Stopped,
            Err(_) if control.is_stopping() => Failure::Stopped,
            Err(LabelError::Media(error)) => Failure::reading(self.path, &error),
            Err(error) => Failure::other(&error),
        };
        drop(fs::remove_file(&part));
        Err(error)
    }

    /// The analysis of a photo: each face is a track.
    fn photo(&self) -> Result<Analysis, Failure> {
        let Self { engine, path, .. } = self;
        let picture = media::read_still(path).map_err(|error| Failure::reading(path, &error))?;
        let mut faces = engine.detect(&picture).map_err(|error| Failure::other(&error))?;
        let crops: Vec<_> = faces.iter_mut().map(|face| face.crop.take()).collect();
        let cut_out: Vec<bool> = crops.iter().map(Option::is_some).collect();
        let embeddings = engine.embed(crops.into_iter().flatten().collect());
        let mut embeddings = embeddings.map_err(|error| Failure::other(&error))?.into_iter();
        let observations = faces.iter().zip(cut_out).zip(1..).map(|((one, cut_out), number)| Observation {
            frame: 0,
            pts_ns: 0,
            duration_ns: PHOTO_NS,
            face: one.face,
            quality: one.quality,
            embedding: if cut_out { embeddings.next() } else { None },
            track: TrackId(number),
        });
        let observations: Vec<Observation> = observations.collect();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let video = Video {
            name,
            width: picture.width(),
            height: picture.height(),
            fps: None,
            frames: 1,
            duration_ns: 0,
            fingerprint: analysis::fingerprint(path).map_err(|error| Failure::reading(path, &error))?,
            sampled_fps: None,
            key_frames: false,
        };
        Ok(Analysis {
            video,
            model: Some(engine.model()),
            arithmetic: engine.arithmetic().arithmetic,
            mirror: engine.mirror() == Mirror::Average,
            detector: *engine.detector().config(),
            cuts: Vec::new(),
            observations,
        })
    }
}

/// The reason without the name of the file in front, which stands beside it wherever it is shown.
fn without_name(path: &Path, reason: String) -> String {
    match reason.strip_prefix(&*path.to_string_lossy()).map(|rest| rest.trim_start_matches([':', ' '])) {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => reason,
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_does_not_name_its_file_again() {
        let path = Path::new("/films/a b.mp4");
        for (reason, shown) in [
            ("/films/a b.mp4 cannot be decoded: it is empty", "cannot be decoded: it is empty"),
            ("/films/a b.mp4: no such file", "no such file"),
            ("no space left", "no space left"),
            ("/films/a b.mp4", "/films/a b.mp4"),
        ] {
            assert_eq!(without_name(path, reason.to_owned()), shown);
        }
    }
}
