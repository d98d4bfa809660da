//! Outputs of the frames of a video: a file, a window, or both.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::LabelError;
use super::graph::Control;
use super::open::{OpenedSource, PendingSource, Purpose};
use crate::media::{self, Input, MediaError};

/// The outputs of frames.
pub(super) struct FrameOutput {
    sink: Option<media::Sink>,
    view: Option<media::View>,
    /// Ends the source of the frames and the sound.
    pub(super) stop: media::StopHandle,
}

impl FrameOutput {
    /// Whether any output needs pictures.
    pub(super) fn shows(&self) -> bool {
        self.sink.is_some() || self.view.is_some()
    }

    /// Name of the encoder, when a video is written.
    pub(super) fn encoder(&self) -> Option<&str> {
        self.sink.as_ref().map(media::Sink::encoder)
    }

    /// Shows and writes the next frame.
    pub(super) fn show(&mut self, frame: media::Frame, control: &Control) -> Result<(), MediaError> {
        if let Some(view) = &self.view {
            view.show(&frame);
            // Closing the only output ends the run.
            if !view.is_open() && self.sink.is_none() {
                control.stop();
            }
        }
        match &mut self.sink {
            Some(sink) => sink.write(frame),
            None => Ok(()),
        }
    }

    /// Completes the file; returns the time that took.
    pub(super) fn finish(self, control: &Control) -> Result<Duration, MediaError> {
        let start = Instant::now();
        if let Some(sink) = self.sink {
            sink.finish_unless(|| control.is_aborted())?;
        }
        Ok(start.elapsed())
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

    /// Begins the outputs of the opened input.
    pub(super) fn begin(&self, opened: OpenedSource) -> Result<(media::Source, FrameOutput), MediaError> {
        let OpenedSource { mut source, encoder, stop } = opened;
        let info = source.info().clone();
        let sink = match (&self.output, encoder) {
            (None, _) => None,
            (Some(path), Some(encoder)) => {
                Some(media::Sink::create_with(path, &info, source.take_audio(), &self.encoding, encoder)?)
            }
            (Some(path), None) => {
                Some(media::Sink::create(path, &info, source.take_audio(), &self.encoding)?)
            }
        };
        let view = if self.view { Some(media::View::open(&info)?) } else { None };
        Ok((source, FrameOutput { sink, view, stop }))
    }
}
