//! Inputs that are being opened.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use super::LabelError;
use super::graph::{Control, GraphError};
use crate::media::{self, Input, MediaError, WorkingEncoder};

/// An input that is being opened on its own thread, because finding and loading the decoders of a file takes
/// a while, and so does the answer of a stream.
pub struct PendingSource {
    thread: Option<JoinHandle<Result<OpenedSource, MediaError>>>,
    stop: media::StopHandle,
}

/// An opened input.
pub(super) struct OpenedSource {
    pub(super) source: media::Source,
    /// The encoder of its frames, if an output is requested.
    pub(super) encoder: Option<WorkingEncoder>,
    /// Ends the source.
    pub(super) stop: media::StopHandle,
}

/// The purpose of opening an input.
pub(super) struct Purpose {
    /// The destination of its sound; `None` does not read it.
    pub(super) sound: Option<media::Container>,
    /// The encoding of its frames, now or later, so that an impossible one is refused before the work begins.
    pub(super) encoding: Option<(media::Container, media::SinkOptions)>,
    /// Which of its frames are labelled.
    pub(super) selection: media::Selection,
}

impl PendingSource {
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
        let Purpose { sound: container, encoding, selection } = purpose;
        let options = media::SourceOptions {
            live,
            container,
            patience: control.patience(),
            selection,
            stop: stop.clone(),
            ..Default::default()
        };
        let (name, input) = ("open", input.clone());
        let open = move || {
            let source = media::Source::open(&input, &options)?;
            let encoder = encoding
                .map(|(container, options)| media::Sink::working_encoder(container, source.info(), &options))
                .transpose()?;
            Ok(OpenedSource { source, encoder, stop: options.stop })
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(open);
        let thread = thread.map_err(|source| GraphError::Thread { stage: name, source })?;
        Ok(Self { thread: Some(thread), stop })
    }

    /// Whether it was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Waits for the opened input.
    pub(super) fn finish(mut self) -> Result<OpenedSource, MediaError> {
        let Some(thread) = self.thread.take() else { unreachable!("it is waited for once") };
        thread.join().unwrap_or_else(|payload| resume_unwind(payload))
    }
}

impl Drop for PendingSource {
    /// Stops and joins the thread, so that none outlives the program.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            let _ = thread.join();
        }
    }
}
