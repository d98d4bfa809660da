//! Outputs of events: webhooks and an MQTT broker.

mod mqtt;
mod sign;
pub(super) mod state;
mod topics;
mod webhook;

use std::sync::Arc;

use tokio::runtime::Handle;

use super::config::Settings;
use super::site::Site;
use super::store::{Audience, Kind, StoreError};
use state::BROKER;

/// Starts the outputs of the settings, and stops the previous ones.
///
/// # Errors
/// When the store fails.
pub(super) fn start(site: &Arc<Site>, settings: &Settings, runtime: &Handle) -> Result<(), StoreError> {
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
    site.outputs.renew(settings);
    site.store.set_audiences(hooks.chain(broker).collect())?;
    for webhook in &settings.webhooks {
        site.outputs.keep(runtime.spawn(webhook::run(Arc::clone(site), webhook.clone())));
    }
    if let Some(mqtt) = &settings.mqtt {
        site.outputs.keep(runtime.spawn(mqtt::run(Arc::clone(site), mqtt.clone())));
    }
    Ok(())
}
