//! Inputs that are being opened.

use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use super::LabelError;
use super::graph::{Control, GraphError};
use crate::media::{self, Input, MediaError, WorkingEncoder};

/// An input that is being opened on a thread of its own: a file's decoders take a while to be found
/// and loaded, and a stream takes a while to answer.
pub struct PendingSource {
    thread: Option<JoinHandle<Result<OpenedSource, MediaError>>>,
    stop: media::StopHandle,
}

/// An opened input.
pub(super) struct OpenedSource {
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
        let Purpose { sound: container, encoding } = purpose;
        let options = media::SourceOptions {
            live,
            container,
            patience: control.patience(),
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

    /// Whether it was told to stop.
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
    /// Nobody wants it any more; no thread goes on behind the program's end.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.stop();
            let _ = thread.join();
        }
    }
}
