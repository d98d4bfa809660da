//! Outputs of the frames of a video: a file, a window, or both.

use std::path::PathBuf;

use super::LabelError;
use super::graph::Control;
use super::open::{OpenedSource, PendingSource, Purpose};
use super::redact::Check;
use super::run_summary::APPEARANCE_GAP_NS;
use super::subscriber::{Ending, Pictures, Subscriber, Viewers};
use crate::engine::LabelledFrame;
use crate::media::{self, Frame, Input, MediaError, Source, SourceInfo};
use crate::report::timeline::VideoFacts;

/// The facts about an opened video for subscribers.
pub(super) fn facts_of(info: &SourceInfo) -> VideoFacts {
    let file = info.input.path().and_then(|path| path.file_name());
    VideoFacts {
        name: file.map_or_else(|| info.input.to_string(), |name| name.to_string_lossy().into_owned()),
        width: info.width,
        height: info.height,
        fps: info.fps,
        sound: Some(info.audio_tracks > 0),
    }
}

/// Writes a video file.
struct VideoWriter {
    sink: media::Sink,
    control: Control,
}

impl Subscriber for VideoWriter {
    fn pictures(&self) -> Pictures {
        Pictures::Named
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        let LabelledFrame { index, pts_ns, duration_ns, .. } = *frame;
        let Some(picture) = frame.picture.clone() else { return Ok(()) };
        Ok(self.sink.write(Frame { index, pts_ns, duration_ns, picture })?)
    }

    fn finish(self: Box<Self>, _: &Ending<'_>) -> Result<(), LabelError> {
        let Self { sink, control } = *self;
        sink.finish_unless(|| control.is_aborted())?;
        Ok(())
    }
}

/// Shows a video in a window.
struct Window {
    view: media::View,
    /// Stops the job when the window is closed, if nothing else is written.
    control: Option<Control>,
}

impl Subscriber for Window {
    fn pictures(&self) -> Pictures {
        Pictures::Named
    }

    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        let LabelledFrame { index, pts_ns, duration_ns, .. } = *frame;
        let Some(picture) = frame.picture.clone() else { return Ok(()) };
        self.view.show(&Frame { index, pts_ns, duration_ns, picture });
        if let Some(control) = self.control.as_ref().filter(|_| !self.view.is_open()) {
            control.stop();
        }
        Ok(())
    }
}

/// An opened video with the subscribers that write and show it.
pub(super) struct Outputs {
    pub(super) source: Source,
    pub(super) subscribers: Vec<Box<dyn Subscriber>>,
    /// Name of the encoder, if a video is written.
    pub(super) encoder: Option<String>,
    /// Ends the source of the frames and the sound.
    pub(super) stop: media::StopHandle,
}

impl Outputs {
    /// The subscribers that need pictures: `check`, these outputs, and those among `others`.
    pub(super) fn viewers<'a>(
        &mut self,
        check: Option<Check>,
        others: Vec<Box<dyn Subscriber + 'a>>,
    ) -> Viewers<'a> {
        let check = check.map(|check| Box::new(check) as Box<dyn Subscriber + 'a>);
        let outputs = std::mem::take(&mut self.subscribers).into_iter().map(|one| one as _);
        Viewers::pick(&mut check.into_iter().chain(outputs).chain(others).collect(), APPEARANCE_GAP_NS)
    }
}

/// Specification of the outputs of a video.
pub(super) struct OutputSpec {
    pub(super) output: Option<PathBuf>,
    pub(super) encoding: media::SinkOptions,
    pub(super) view: bool,
}

impl OutputSpec {
    /// The container of the output.
    pub(super) fn container(&self, input: &Input) -> Result<Option<media::Container>, MediaError> {
        self.output.as_ref().map(|path| media::Sink::check(path, input, &self.encoding)).transpose()
    }

    /// Begins to open the input for these outputs.
    pub(super) fn open(
        &self,
        input: &Input,
        live: Option<bool>,
        control: &Control,
    ) -> Result<PendingSource, LabelError> {
        let purpose =
            Purpose { sound: self.container(input)?, encoding: None, selection: media::Selection::default() };
        PendingSource::begin(input, purpose, live, control)
    }

    /// Whether a video is written or shown.
    pub(super) fn is_any(&self) -> bool {
        self.output.is_some() || self.view
    }

    /// Begins the outputs of the opened input.
    pub(super) fn begin(&self, opened: OpenedSource, control: &Control) -> Result<Outputs, MediaError> {
        let OpenedSource { mut source, encoder, stop } = opened;
        let info = source.info().clone();
        let mut subscribers: Vec<Box<dyn Subscriber>> = Vec::new();
        if self.view {
            let control = self.output.is_none().then(|| control.clone());
            subscribers.push(Box::new(Window { view: media::View::open(&info)?, control }));
        }
        let mut name = None;
        if let Some(path) = &self.output {
            let (audio, encoding) = (source.take_audio(), &self.encoding);
            let sink = match encoder {
                Some(encoder) => media::Sink::create_with(path, &info, audio, encoding, encoder)?,
                None => media::Sink::create(path, &info, audio, encoding)?,
            };
            name = Some(sink.encoder().to_owned());
            subscribers.push(Box::new(VideoWriter { sink, control: control.clone() }));
        }
        Ok(Outputs { source, subscribers, encoder: name, stop })
    }
}
