//! Events and states on an MQTT broker.
//!
//! An event stays in the store until the broker has acknowledged it (QoS 1), as with webhooks. Each
//! connection has a new client without any messages in flight: events without an acknowledgement are read
//! from the store again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Incoming, LastWill, MqttOptions, Outgoing, QoS, TlsConfiguration, Transport};
use tokio::sync::{broadcast, mpsc};

use super::state::BROKER;
use super::topics::{Message, Presence, Topics};
use crate::serve::camera::Phase;
use crate::serve::config::MqttSettings;
use crate::serve::now_ms;
use crate::serve::site::Site;
use crate::serve::store::Event;

/// Pause before the broker is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time without a message after which the broker counts as gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The most messages in flight.
const ON_THE_WAY: usize = 64;
/// Largest message, in bytes: pictures are far smaller.
const LARGEST: usize = 4 << 20;
/// Interval at which states are compared with those published.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time beyond that for leaving after which a person who was not seen has left without an event.
const MISSED: Duration = Duration::from_secs(5);
/// How long to wait for the retained messages of the broker.
const CLEANING: Duration = Duration::from_secs(10);
/// Time limit for the last messages when the service ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// News from the connection.
enum News {
    Connected(AsyncClient),
    Lost(String),
    /// A topic with a retained message.
    Kept(String),
    /// A message, perhaps that Home Assistant has started.
    Said(String, Vec<u8>),
    /// The oldest unsent message was sent under that number.
    Sent(u16),
    /// The broker has the message of that number.
    Acknowledged(u16),
    /// Another packet.
    Other,
}

/// Publishes events and states until the service ends.
pub(super) async fn run(site: Arc<Site>, settings: MqttSettings) {
    let topics = Topics::new(&settings.config);
    let (tell, news) = mpsc::unbounded_channel();
    // Later events are received here; earlier ones are in the store.
    let heard = site.store.subscribe();
    let connection = Abort(tokio::spawn(connect(options(&settings, &topics), tell)));
    let teller = Teller {
        topics,
        give_up_after_ms: settings.give_up_after_ms,
        client: None,
        site,
        outgoing: VecDeque::new(),
        waiting: VecDeque::new(),
        last: 0,
        behind: true,
        unsent: VecDeque::new(),
        unacknowledged: HashMap::new(),
        acknowledged: Vec::new(),
        told: BTreeMap::new(),
        presence: Presence::default(),
        seen: BTreeMap::new(),
        cleaned_at: None,
    };
    teller.run(heard, news).await;
    drop(connection);
}

/// A task that is aborted when this is dropped.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn options(settings: &MqttSettings, topics: &Topics) -> MqttOptions {
    let mut options = MqttOptions::new(topics.client_id(), &settings.host, settings.port);
    options.set_keep_alive(KEEP_ALIVE);
    // The store knows which events to send again.
    options.set_clean_session(true);
    options.set_max_packet_size(LARGEST, LARGEST);
    options.set_last_will(LastWill::new(topics.status(), "offline", QoS::AtLeastOnce, true));
    if let Some((name, password)) = &settings.user {
        options.set_credentials(name, password);
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    options
}

/// Keeps a connection, and reconnects when it is lost.
async fn connect(options: MqttOptions, tell: mpsc::UnboundedSender<News>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (client, mut events) = AsyncClient::new(options.clone(), ON_THE_WAY);
        let mut client = Some(client);
        let lost = loop {
            let news = match events.poll().await {
                Ok(rumqttc::Event::Incoming(Incoming::ConnAck(_))) => {
                    pause = FIRST_PAUSE;
                    match client.take() {
                        Some(client) => News::Connected(client),
                        None => News::Other,
                    }
                }
                Ok(rumqttc::Event::Incoming(Incoming::Publish(publish))) => {
                    match publish.retain && !publish.payload.is_empty() {
                        true => News::Kept(publish.topic),
                        false => News::Said(publish.topic, publish.payload.into()),
                    }
                }
                Ok(rumqttc::Event::Outgoing(Outgoing::Publish(number))) => News::Sent(number),
                Ok(rumqttc::Event::Incoming(Incoming::PubAck(ack))) => News::Acknowledged(ack.pkid),
                Ok(_) => News::Other,
                Err(error) => break error.to_string(),
            };
            if tell.send(news).is_err() {
                return;
            }
        };
        if tell.send(News::Lost(lost)).is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The published messages, and those to publish.
struct Teller {
    topics: Topics,
    give_up_after_ms: i64,
    /// The client, while the broker is connected.
    client: Option<AsyncClient>,
    site: Arc<Site>,
    /// Messages for the connection, each with the event that it delivers.
    outgoing: VecDeque<(Message, Option<i64>)>,
    /// The next events of the store to publish.
    waiting: VecDeque<Event>,
    /// The last event that was read from the store since the broker was connected.
    last: i64,
    /// Whether the store may have more events.
    behind: bool,
    /// Events of the messages that the connection has not sent yet.
    unsent: VecDeque<Option<i64>>,
    /// Events of the messages that were sent, by the number of the message.
    unacknowledged: HashMap<u16, Option<i64>>,
    /// Events that the broker has acknowledged and the store still keeps.
    acknowledged: Vec<i64>,
    /// The retained messages published since the broker was connected.
    told: BTreeMap<String, Vec<u8>>,
    presence: Presence,
    /// The time at which a person was last seen by a source.
    seen: BTreeMap<(String, String), Instant>,
    /// The time at which all old retained messages have arrived.
    cleaned_at: Option<Instant>,
}

impl Teller {
    async fn run(
        mut self,
        mut heard: broadcast::Receiver<Arc<Event>>,
        mut news: mpsc::UnboundedReceiver<News>,
    ) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut ending = self.site.ending.clone();
        loop {
            tokio::select! {
                told = news.recv() => match told {
                    Some(told) => self.hear_all(told, &mut news).await,
                    None => return,
                },
                event = heard.recv() => match event {
                    // All events, including those that a lagging listener missed, are in the store.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                _ = look.tick() => self.look().await,
                _ = async { ending.wait_for(|ending| *ending).await.is_ok() } => break,
            }
            self.tell().await;
            self.send();
        }
        self.say_goodbye(news).await;
    }

    /// Handles one message and all that arrived in the meantime.
    async fn hear_all(&mut self, first: News, news: &mut mpsc::UnboundedReceiver<News>) {
        let mut next = Some(first);
        while let Some(told) = next {
            self.hear(told).await;
            next = news.try_recv().ok();
        }
        self.settle().await;
    }

    /// Removes acknowledged events from the store's outbox.
    async fn settle(&mut self) {
        let done = std::mem::take(&mut self.acknowledged);
        if done.is_empty() {
            return;
        }
        let kept = done.clone();
        let deleted = self.site.wait_for(move |site| Ok(site.store.all_delivered(BROKER, &done)?)).await;
        match deleted {
            Ok(()) => {
                self.site.outputs.note_mqtt(|state| state.delivered += kept.len() as u64);
            }
            // The store failed, which is in the log. It is tried again with the next ones.
            Err(_) => self.acknowledged = kept,
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Connected(client) => {
                tracing::info!("the MQTT broker is connected");
                self.site.outputs.note_mqtt(|state| state.working = Some(true));
                self.forget_connection();
                (self.last, self.behind) = (0, true);
                self.told.clear();
                self.cleaned_at = Some(Instant::now() + CLEANING);
                let filters = self.topics.left_behind().into_iter().chain(self.topics.home_assistant());
                for filter in filters {
                    // The queue has room for them: it is empty.
                    let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                self.client = Some(client);
                self.say(Message { topic: self.topics.status(), payload: "online".into(), retain: true });
                self.look().await;
            }
            News::Lost(reason) => {
                if self.client.is_some() || self.site.outputs.mqtt().is_some_and(|state| state.failed == 0) {
                    tracing::warn!("the MQTT broker is not connected: {reason}");
                }
                self.client = None;
                self.forget_connection();
                self.site.outputs.note_mqtt(|state| {
                    state.working = Some(false);
                    state.failed += 1;
                    state.error = Some(reason);
                });
            }
            // It may have lost the discovered devices.
            News::Said(topic, payload) => {
                if self.topics.home_assistant() == Some(topic) && payload == b"online" {
                    self.told.clear();
                    self.look().await;
                }
            }
            // Retained by an earlier service, and not published by this one.
            News::Kept(topic) => {
                let picture = topic.strip_suffix("/picture").and_then(|base| base.rsplit('/').next());
                let current =
                    picture.is_some_and(|source| self.site.cameras.names().iter().any(|one| one == source));
                let status = self.topics.home_assistant() == Some(topic.clone());
                if !current && !status && !self.told.contains_key(&topic) {
                    self.say(Message { topic, payload: Vec::new(), retain: true });
                }
            }
            News::Sent(number) => {
                if let Some(event) = self.unsent.pop_front() {
                    self.unacknowledged.insert(number, event);
                }
            }
            News::Acknowledged(number) => {
                self.acknowledged.extend(self.unacknowledged.remove(&number).flatten());
            }
            News::Other => {}
        }
    }

    /// Messages in flight are sent again.
    fn forget_connection(&mut self) {
        self.outgoing.clear();
        self.waiting.clear();
        self.unsent.clear();
        self.unacknowledged.clear();
    }

    /// Publishes a message that is not an event.
    fn say(&mut self, message: Message) {
        self.outgoing.push_back((message, None));
    }

    /// Reads events from the store, as long as there is room for them.
    async fn tell(&mut self) {
        // While the broker is not connected, events wait in the store.
        while self.client.is_some() && self.outgoing.len() < ON_THE_WAY {
            if self.waiting.is_empty() {
                if !std::mem::take(&mut self.behind) {
                    return;
                }
                let last = self.last;
                let next = self
                    .site
                    .wait_for(move |site| Ok(site.store.undelivered_events(BROKER, last, ON_THE_WAY)?));
                let Ok(next) = next.await else {
                    // The store failed, which is in the log.
                    self.behind = true;
                    return;
                };
                self.behind = next.len() == ON_THE_WAY;
                self.waiting.extend(next);
            }
            let Some(event) = self.waiting.pop_front() else { return };
            self.last = event.id;
            self.tell_one(&event).await;
        }
    }

    async fn tell_one(&mut self, event: &Event) {
        let (id, age_ms) = (event.id, now_ms() - event.time_ms);
        if age_ms > self.give_up_after_ms {
            tracing::warn!("event {id} could not be sent to the MQTT broker for too long and is dropped");
            self.acknowledged.push(id);
            return self.settle().await;
        }
        // A person seen long ago is no longer in sight.
        if let Some(seen) =
            Instant::now().checked_sub(Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()))
        {
            self.presence.hear(event);
            let last = self.seen.entry((event.source.clone(), event.who.clone())).or_insert(seen);
            *last = seen.max(*last);
        }
        let picture = match &event.picture {
            Some(_) => {
                self.site.wait_for(move |site| Ok(site.store.event_picture(id)?)).await.unwrap_or_default()
            }
            None => None,
        };
        let messages = self.topics.event(event, picture);
        let last = messages.len().saturating_sub(1);
        // The broker acknowledges in order: with the last message it has all.
        let numbered = messages.into_iter().enumerate();
        self.outgoing.extend(numbered.map(|(at, message)| (message, (at == last).then_some(id))));
        self.look().await;
    }

    /// Publishes the states that have changed.
    async fn look(&mut self) {
        self.reconcile();
        let Some(client) = &self.client else { return };
        if self.cleaned_at.is_some_and(|at| at <= Instant::now()) {
            self.cleaned_at = None;
            // Otherwise every own message would come back.
            for filter in self.topics.left_behind() {
                let _ = client.try_unsubscribe(filter);
            }
        }
        let states = self.site.cameras.states();
        let sources: BTreeMap<String, bool> = states
            .iter()
            .map(|(config, state)| (config.name.clone(), state.phase() == Phase::Running))
            .collect();
        let people = self.site.wait_for(|site| {
            let gallery = site.gallery()?;
            Ok(gallery.iter().flat_map(|gallery| gallery.people()).map(str::to_owned).collect())
        });
        // A gallery that cannot be read is reported elsewhere.
        let Ok(people) = people.await else { return };
        let people: BTreeSet<String> = people;
        let mut gone: BTreeSet<String> = self.told.keys().cloned().collect();
        for message in self.topics.kept(&sources, &people, &self.presence) {
            gone.remove(&message.topic);
            if self.told.get(&message.topic) != Some(&message.payload) {
                self.told.insert(message.topic.clone(), message.payload.clone());
                self.say(message);
            }
        }
        for topic in gone {
            self.told.remove(&topic);
            self.say(Message { topic, payload: Vec::new(), retain: true });
        }
    }

    /// People who were renamed or forgotten while in sight leave without an event of that name.
    fn reconcile(&mut self) {
        let now = Instant::now();
        let mut patience = BTreeMap::new();
        for (config, state) in self.site.cameras.states() {
            patience.insert(config.name.clone(), Duration::from_secs_f64(config.left_after_s) + MISSED);
            for who in state.who() {
                self.seen.insert((config.name.clone(), who.to_owned()), now);
            }
        }
        self.presence.0.retain(|source, _| patience.contains_key(source));
        let seen = &self.seen;
        for (source, here) in &mut self.presence.0 {
            here.retain(|who| {
                let last = seen.get(&(source.clone(), who.clone()));
                let patience = patience.get(source).copied().unwrap_or_default();
                last.is_some_and(|last| now.duration_since(*last) <= patience)
            });
        }
        self.seen.retain(|(source, _), last| {
            patience.get(source).is_some_and(|patience| now.duration_since(*last) <= *patience)
        });
    }

    /// Passes as many messages to the connection as it has room for.
    fn send(&mut self) {
        while let Some(client) = &self.client
            && let Some((Message { topic, payload, retain }, event)) = self.outgoing.front()
        {
            let sent = client.try_publish(topic, QoS::AtLeastOnce, *retain, payload.clone());
            if sent.is_err() {
                return;
            }
            self.unsent.push_back(*event);
            self.outgoing.pop_front();
        }
    }

    /// Publishes the remaining messages, and that the service is offline.
    async fn say_goodbye(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        if self.client.is_none() {
            return;
        }
        self.say(Message { topic: self.topics.status(), payload: "offline".into(), retain: true });
        let all = async {
            loop {
                self.send();
                if self.outgoing.is_empty() && self.unsent.is_empty() && self.unacknowledged.is_empty() {
                    break;
                }
                match news.recv().await {
                    Some(told @ (News::Sent(_) | News::Acknowledged(_))) => self.hear(told).await,
                    Some(News::Lost(_)) | None => return,
                    Some(_) => {}
                }
            }
            let Some(client) = &self.client else { return };
            let _ = client.disconnect().await;
            while let Some(told) = news.recv().await {
                if matches!(told, News::Lost(_)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
        // The rest is sent at the next start.
        self.settle().await;
    }
}
