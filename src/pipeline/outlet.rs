//! Where frames come from and go to.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::graph::{Control, GraphError};
use super::job::LabelError;
use crate::media::{self, Input, MediaError, WorkingEncoder};

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

/// An input that is being opened on a thread of its own: a file's decoders take a while to be found
/// and loaded, and a stream takes a while to answer.
pub struct Opening {
    thread: Option<JoinHandle<Result<Opened, MediaError>>>,
    stop: media::StopHandle,
}

/// An opened input.
pub(super) struct Opened {
    pub(super) source: media::Source,
    /// What encodes its frames, where that was asked for.
    pub(super) encoder: Option<WorkingEncoder>,
    /// Ends it.
    pub(super) stop: media::StopHandle,
}

/// What an input is opened for.
pub(super) struct Purpose {
    /// Where its sound goes; `None` reads none.
    pub(super) sound: Option<media::Container>,
    /// How its frames will be encoded, now or later: to be refused before the work begins.
    pub(super) encoding: Option<(media::Container, media::SinkOptions)>,
}

impl Opening {
    /// Begins to open the input.
    pub(super) fn begin(
        input: &Input,
        purpose: Purpose,
        live: Option<bool>,
        control: &Control,
    ) -> Result<Self, LabelError> {
        let stop = media::StopHandle::new();
        control.on_stop({
            let stop = stop.clone();
            move || stop.stop()
        });
        let Purpose { sound: container, encoding } = purpose;
        let options = media::SourceOptions { live, container, stop: stop.clone(), ..Default::default() };
        let (name, input) = ("open", input.clone());
        let open = move || {
            let source = media::Source::open(&input, &options)?;
            let encoder = encoding
                .map(|(container, options)| media::Sink::working_encoder(container, source.info(), &options))
                .transpose()?;
            Ok(Opened { source, encoder, stop: options.stop })
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(open);
        let thread = thread.map_err(|source| GraphError::Thread { stage: name, source })?;
        Ok(Self { thread: Some(thread), stop })
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits for the opened input.
    pub(super) fn finish(mut self) -> Result<Opened, MediaError> {
        let Some(thread) = self.thread.take() else { unreachable!("it is waited for once") };
        thread.join().unwrap_or_else(|payload| resume_unwind(payload))
    }
}

impl Drop for Opening {
    /// Nobody wants it any more; no thread goes on behind the program's end.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            let _ = thread.join();
        }
    }
}

/// What is made of the frames of an opened input.
pub(super) struct Making {
    pub(super) output: Option<PathBuf>,
    pub(super) encoding: media::SinkOptions,
    pub(super) view: bool,
}

impl Making {
    /// The container of the output.
    pub(super) fn container(&self, input: &Input) -> Result<Option<media::Container>, MediaError> {
        self.output.as_ref().map(|path| media::Sink::check(path, input, &self.encoding)).transpose()
    }

    /// Begins to open the input for what is made of it.
    pub(super) fn open(
        &self,
        input: &Input,
        live: Option<bool>,
        control: &Control,
    ) -> Result<Opening, LabelError> {
        let purpose = Purpose { sound: self.container(input)?, encoding: None };
        Opening::begin(input, purpose, live, control)
    }

    /// Begins to make it of the opened input.
    pub(super) fn outlet(&self, opened: Opened) -> Result<(media::Source, Outlet), MediaError> {
        let Opened { mut source, encoder, stop } = opened;
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
        Ok((source, Outlet { sink, view, stop }))
    }
}
