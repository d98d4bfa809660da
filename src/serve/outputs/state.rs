//! The states of the outputs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use crate::serve::config::Settings;
use crate::serve::lock;

/// The name of the broker in the store; no webhook can have that name.
pub(in crate::serve) const BROKER: &str = "mqtt:";

/// The state of an output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(in crate::serve) struct OutputState {
    /// Whether the last attempt succeeded; for a broker, whether it is connected. `null` before the first
    /// attempt.
    pub working: Option<bool>,
    /// Events that were delivered since the start.
    pub delivered: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// The error of the last failed attempt.
    pub error: Option<String>,
}

/// The states of all outputs, by name; the broker's name is `mqtt`.
#[derive(Default)]
pub(in crate::serve) struct Outputs {
    webhooks: Mutex<BTreeMap<String, OutputState>>,
    mqtt: Mutex<Option<OutputState>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Outputs {
    /// Ends the previous tasks, and has a new state for each output of the settings.
    pub fn renew(&self, settings: &Settings) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        let names = settings.webhooks.iter().map(|one| (one.config.name.clone(), OutputState::default()));
        *lock(&self.webhooks) = names.collect();
        *lock(&self.mqtt) = settings.mqtt.as_ref().map(|_| OutputState::default());
    }

    /// Keeps the task of an output, to wait for its end or to end it.
    pub fn keep(&self, task: JoinHandle<()>) {
        lock(&self.tasks).push(task);
    }

    /// Waits for the last messages when the service ends.
    pub async fn end(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks {
            // A task that panicked has already reported it.
            let _ = task.await;
        }
    }

    /// The states of the webhooks.
    pub fn webhooks(&self) -> BTreeMap<String, OutputState> {
        lock(&self.webhooks).clone()
    }

    /// The state of the broker, if there is one.
    pub fn mqtt(&self) -> Option<OutputState> {
        lock(&self.mqtt).clone()
    }

    pub fn note_webhook(&self, name: &str, done: Result<(), String>) {
        if let Some(state) = lock(&self.webhooks).get_mut(name) {
            state.note(done);
        }
    }

    pub fn note_mqtt(&self, change: impl FnOnce(&mut OutputState)) {
        if let Some(state) = lock(&self.mqtt).as_mut() {
            change(state);
        }
    }
}

impl OutputState {
    fn note(&mut self, done: Result<(), String>) {
        self.working = Some(done.is_ok());
        match done {
            Ok(()) => self.delivered += 1,
            Err(reason) => {
                self.failed += 1;
                self.error = Some(reason);
            }
        }
    }
}
