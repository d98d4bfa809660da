//! Outputs of events: webhooks and an MQTT broker.

mod config;
mod mqtt;
mod sign;
mod topics;
mod webhook;

pub use config::{MqttConfig, MqttSettings, WebhookConfig, WebhookSettings};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::config::Settings;
use super::lock;
use super::site::Site;
use super::store::{Audience, Kind, StoreError};

/// The name of the broker in the store; no webhook can have that name.
pub(super) const BROKER: &str = "mqtt:";

/// The state of an output.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct OutputState {
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
pub(super) struct Outputs {
    webhooks: Mutex<BTreeMap<String, OutputState>>,
    mqtt: Mutex<Option<OutputState>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Outputs {
    /// Starts the outputs of the settings, and stops the previous ones.
    ///
    /// # Errors
    /// When the store fails.
    pub fn start(site: &Arc<Site>, settings: &Settings, runtime: &Handle) -> Result<(), StoreError> {
        let outputs = &site.outputs;
        let before = std::mem::take(&mut *lock(&outputs.tasks));
        before.iter().for_each(JoinHandle::abort);
        let hooks = settings.webhooks.iter().map(|one| Audience {
            name: one.config.name.clone(),
            kinds: one.config.events.clone(),
            sources: one.config.sources.clone(),
        });
        let broker = settings.mqtt.as_ref().map(|_| Audience {
            name: BROKER.to_owned(),
            kinds: Kind::ALL.to_vec(),
            sources: Vec::new(),
        });
        site.store.set_audiences(hooks.chain(broker).collect())?;
        let names = settings.webhooks.iter().map(|one| (one.config.name.clone(), OutputState::default()));
        *lock(&outputs.webhooks) = names.collect();
        *lock(&outputs.mqtt) = settings.mqtt.as_ref().map(|_| OutputState::default());
        let mut tasks = Vec::new();
        for webhook in &settings.webhooks {
            tasks.push(runtime.spawn(webhook::run(Arc::clone(site), webhook.clone())));
        }
        if let Some(mqtt) = &settings.mqtt {
            tasks.push(runtime.spawn(mqtt::run(Arc::clone(site), mqtt.clone())));
        }
        *lock(&outputs.tasks) = tasks;
        Ok(())
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

    fn note_webhook(&self, name: &str, done: Result<(), String>) {
        if let Some(state) = lock(&self.webhooks).get_mut(name) {
            state.note(done);
        }
    }

    fn note_mqtt(&self, change: impl FnOnce(&mut OutputState)) {
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
