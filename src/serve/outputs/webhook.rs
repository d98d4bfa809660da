//! Events as signed requests, kept in the store until they are delivered.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use serde::Serialize;

use super::sign::signature;
use crate::serve::config::WebhookSettings;
use crate::serve::now_ms;
use crate::serve::problem::Problem;
use crate::serve::site::Site;
use crate::serve::store::{Delivery, Event};

/// Pause after the first failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Polling interval for the store.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The body of a request.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: String,
    timestamp: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture_base64: Option<String>,
}

/// The outcome of a request that was not accepted.
enum Failure {
    /// The server is not reachable or overloaded: the next event would fail too.
    Later(String),
    /// The server refused this event.
    Refused(String),
}

/// The next action.
enum Next {
    Delivered,
    Wait(Duration),
}

/// Delivers until the service ends.
pub(super) async fn run(site: Arc<Site>, settings: WebhookSettings) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("sphereface/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let hook = Arc::new((settings, agent));
    let mut ending = site.ending.clone();
    let mut heard = site.store.subscribe();
    let mut failures = 0;
    loop {
        let work = {
            let hook = Arc::clone(&hook);
            site.wait_for(move |site| deliver(site, &hook.0, &hook.1, failures))
        };
        let pause = match work.await {
            Ok((Next::Delivered, failed)) => {
                failures = failed;
                if *ending.borrow() {
                    return;
                }
                continue;
            }
            Ok((Next::Wait(pause), failed)) => {
                failures = failed;
                pause
            }
            // The store failed, which is in the log.
            Err(_) => LOOK_EVERY,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // After a failure, a new event does not shorten the pause.
            _ = heard.recv(), if failures == 0 => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}

/// Delivers the next event, if one is due. Returns the next action, and the number of consecutive failures.
fn deliver(
    site: &Site,
    settings: &WebhookSettings,
    agent: &ureq::Agent,
    failures: u32,
) -> Result<(Next, u32), Problem> {
    let (store, name) = (&site.store, settings.config.name.as_str());
    let Some(Delivery { event: id, attempts, next_ms }) = store.next_delivery(name)? else {
        return Ok((Next::Wait(LOOK_EVERY), 0));
    };
    let early_ms = next_ms - now_ms();
    if early_ms > 0 {
        return Ok((Next::Wait(LOOK_EVERY.min(Duration::from_millis(early_ms.unsigned_abs()))), 0));
    }
    let Some(event) = store.event(id)? else {
        store.delivered(name, id)?;
        return Ok((Next::Delivered, failures));
    };
    if now_ms() - event.time_ms > settings.give_up_after_ms {
        tracing::warn!(webhook = name, "event {id} could not be delivered for too long and is dropped");
        store.delivered(name, id)?;
        return Ok((Next::Delivered, failures));
    }
    let picture = if settings.config.pictures { store.event_picture(id)? } else { None };
    match send(settings, agent, &event, picture) {
        Ok(()) => {
            store.delivered(name, id)?;
            site.outputs.note_webhook(name, Ok(()));
            Ok((Next::Delivered, 0))
        }
        Err(Failure::Later(reason)) => {
            if failures == 0 {
                tracing::warn!(webhook = name, "event {id} waits: {reason}");
            }
            site.outputs.note_webhook(name, Err(reason));
            Ok((Next::Wait(pause(failures)), failures + 1))
        }
        Err(Failure::Refused(reason)) => {
            tracing::warn!(webhook = name, "event {id} is not accepted: {reason}");
            site.outputs.note_webhook(name, Err(reason));
            let pause_ms = i64::try_from(pause(attempts).as_millis()).unwrap_or(i64::MAX);
            store.postponed(name, id, now_ms() + pause_ms)?;
            // Later events may be accepted.
            Ok((Next::Delivered, 0))
        }
    }
}

/// The pause after that many consecutive failures.
fn pause(failures: u32) -> Duration {
    LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(failures.min(20)))
}

fn send(
    settings: &WebhookSettings,
    agent: &ureq::Agent,
    event: &Event,
    picture: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let picture_base64 = picture.map(|jpeg| base64::engine::general_purpose::STANDARD.encode(jpeg));
    let message = Message {
        kind: event.kind.to_string(),
        timestamp: &event.time,
        data: Data { event, picture_base64 },
    };
    let body = serde_json::to_vec(&message).map_err(|error| Failure::Refused(error.to_string()))?;
    // The same identifier at every attempt, so that a receiver recognises duplicates.
    let id = format!("event-{}-{}", event.id, event.time_ms);
    let timestamp_s = now_ms() / 1000;
    let request = agent
        .post(&settings.config.url)
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp_s.to_string())
        .header("webhook-signature", signature(&settings.key, &id, timestamp_s, &body));
    let answer = request.send(&body[..]).map_err(|error| Failure::Later(error.to_string()))?;
    let status = answer.status();
    let reason = format!("the server answers {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Failure::Later(reason)),
        300..=399 => Err(Failure::Refused(format!("{reason}, and redirects are not followed"))),
        _ => Err(Failure::Refused(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        let seconds: Vec<u64> = (0..12).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
