//! Where frames come from and go to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::graph::Control;
use super::job::LabelError;
use crate::media::{self, Input, MediaError};

/// Where the frames go.
pub(super) struct Outlet {
    sink: Option<media::Sink>,
    view: Option<media::View>,
    /// Ends the source whose frames and sound come here.
    pub(super) stop: media::StopHandle,
}

impl Outlet {
    /// Whether anything is done with pictures.
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
            // Closing the only place to look at ends the run.
            if !view.is_open() && self.sink.is_none() {
                control.stop();
            }
        }
        match &mut self.sink {
            Some(sink) => sink.write(frame),
            None => Ok(()),
        }
    }

    /// Completes the file; says how long that took.
    pub(super) fn finish(self, control: &Control) -> Result<Duration, MediaError> {
        let start = Instant::now();
        if let Some(sink) = self.sink {
            sink.finish_unless(|| control.is_aborted())?;
        }
        Ok(start.elapsed())
    }
}

/// Opens the input for frames alone, or with the sound for an output.
pub(super) fn open(
    input: &Input,
    container: Option<media::Container>,
    live: Option<bool>,
    stop: &media::StopHandle,
    control: &Control,
) -> Result<media::Source, MediaError> {
    control.on_stop({
        let stop = stop.clone();
        move || stop.stop()
    });
    let options = media::SourceOptions { live, container, stop: stop.clone(), ..Default::default() };
    media::Source::open(input, &options)
}

/// Opens the input and what is made of it.
pub(super) fn open_both(
    input: &Input,
    output: Option<PathBuf>,
    view: bool,
    live: Option<bool>,
    encoding: &media::SinkOptions,
    control: &Control,
) -> Result<(media::Source, Outlet), LabelError> {
    let container = output.as_ref().map(|path| media::Sink::check(path, input, encoding)).transpose()?;
    let stop = media::StopHandle::new();
    let mut source = open(input, container, live, &stop, control)?;
    let info = source.info().clone();
    let sink = match &output {
        Some(path) => Some(media::Sink::create(path, &info, source.take_audio(), encoding)?),
        None => None,
    };
    let view = if view { Some(media::View::open(&info)?) } else { None };
    Ok((source, Outlet { sink, view, stop }))
}
