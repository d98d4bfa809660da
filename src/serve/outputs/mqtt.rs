//! Events and states on an MQTT broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, EventLoop, Incoming, LastWill, MqttOptions, QoS, TlsConfiguration, Transport};
use tokio::sync::mpsc;

use super::config::MqttSettings;
use super::topics::{Message, Presence, Topics};
use crate::serve::camera::Phase;
use crate::serve::follow::Follow;
use crate::serve::site::Site;
use crate::serve::store::Event;

/// Pause before the broker is tried again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After so long without a word the broker is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Messages on the way at a time.
const ON_THE_WAY: usize = 64;
/// Largest message, in bytes: pictures are far smaller.
const LARGEST: usize = 4 << 20;
/// How often states are compared with what the broker was told.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Who is not seen for so much longer than it takes to leave has left unnoticed.
const MISSED: Duration = Duration::from_secs(5);
/// How long the broker may take to tell what it kept from before.
const CLEANING: Duration = Duration::from_secs(10);
/// How long the last words may take when the service ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the connection tells.
enum News {
    Connected,
    Lost(String),
    /// Kept by the broker from before.
    Kept(String),
    /// Home Assistant has started, perhaps.
    Said(String, Vec<u8>),
    Sent,
}

/// Tells the broker until the service ends.
pub(super) async fn run(site: Arc<Site>, settings: MqttSettings) {
    let topics = Topics::new(&settings.config);
    let (client, events) = AsyncClient::new(options(&settings, &topics), ON_THE_WAY);
    let (tell, news) = mpsc::unbounded_channel();
    let connection = Abort(tokio::spawn(connect(events, tell)));
    let ending = site.ending.clone();
    let Ok(follow) = Follow::after(&site.store, None, ending.clone()).await else { return };
    let teller = Teller {
        topics,
        client,
        site,
        outgoing: VecDeque::new(),
        told: BTreeMap::new(),
        presence: Presence::default(),
        seen: BTreeMap::new(),
        connected: false,
        cleaned_at: None,
    };
    teller.run(follow, news).await;
    drop(connection);
}

/// A task that ends with this.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn options(settings: &MqttSettings, topics: &Topics) -> MqttOptions {
    let mut options = MqttOptions::new(topics.client_id(), &settings.host, settings.port);
    options.set_keep_alive(KEEP_ALIVE);
    // What was on the way when the connection was lost is sent again.
    options.set_clean_session(false);
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

/// Keeps the connection, and makes it again.
async fn connect(mut events: EventLoop, tell: mpsc::UnboundedSender<News>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let news = match events.poll().await {
            Ok(rumqttc::Event::Incoming(Incoming::ConnAck(_))) => {
                pause = FIRST_PAUSE;
                News::Connected
            }
            Ok(rumqttc::Event::Incoming(Incoming::Publish(publish))) => {
                match publish.retain && !publish.payload.is_empty() {
                    true => News::Kept(publish.topic),
                    false => News::Said(publish.topic, publish.payload.into()),
                }
            }
            Ok(_) => News::Sent,
            Err(error) => News::Lost(error.to_string()),
        };
        let lost = matches!(news, News::Lost(_));
        if tell.send(news).is_err() {
            return;
        }
        if lost {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What was said, and what is to be said.
struct Teller {
    topics: Topics,
    client: AsyncClient,
    site: Arc<Site>,
    outgoing: VecDeque<Message>,
    /// What is kept on the broker since it was connected.
    told: BTreeMap<String, Vec<u8>>,
    presence: Presence,
    /// When somebody was last seen by a source.
    seen: BTreeMap<(String, String), Instant>,
    connected: bool,
    /// When what was kept from before has been heard of.
    cleaned_at: Option<Instant>,
}

impl Teller {
    async fn run(mut self, mut follow: Follow, mut news: mpsc::UnboundedReceiver<News>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                heard = news.recv() => match heard {
                    Some(heard) => self.hear(heard).await,
                    None => return,
                },
                // While nobody listens events wait in the store.
                event = follow.next(), if self.connected && self.outgoing.len() < ON_THE_WAY => match event {
                    Some(event) => self.tell(&event).await,
                    None => break,
                },
                _ = look.tick() => self.look().await,
            }
            self.send();
            if *self.site.ending.borrow() {
                break;
            }
        }
        self.say_goodbye(news).await;
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Connected => {
                tracing::info!("the MQTT broker is connected");
                self.connected = true;
                self.site.outputs.note_mqtt(|state| state.working = Some(true));
                self.outgoing.retain(|message| !message.retain);
                self.told.clear();
                self.cleaned_at = Some(Instant::now() + CLEANING);
                let filters = self.topics.left_behind().into_iter().chain(self.topics.home_assistant());
                for filter in filters {
                    // The queue has room for them: it was just emptied.
                    let _ = self.client.try_subscribe(filter, QoS::AtLeastOnce);
                }
                self.outgoing.push_back(Message {
                    topic: self.topics.status(),
                    payload: "online".into(),
                    retain: true,
                });
                self.look().await;
            }
            News::Lost(reason) => {
                if self.connected || self.site.outputs.mqtt().is_some_and(|state| state.failed == 0) {
                    tracing::warn!("the MQTT broker is not connected: {reason}");
                }
                self.connected = false;
                self.site.outputs.note_mqtt(|state| {
                    state.working = Some(false);
                    state.failed += 1;
                    state.error = Some(reason);
                });
            }
            // It may have forgotten what it discovered.
            News::Said(topic, payload) => {
                if self.topics.home_assistant() == Some(topic) && payload == b"online" {
                    self.told.clear();
                    self.look().await;
                }
            }
            // By an earlier service, of which this one says nothing.
            News::Kept(topic) => {
                let picture = topic.strip_suffix("/picture").and_then(|base| base.rsplit('/').next());
                let current =
                    picture.is_some_and(|source| self.site.cameras.names().iter().any(|one| one == source));
                let status = self.topics.home_assistant() == Some(topic.clone());
                if !current && !status && !self.told.contains_key(&topic) {
                    self.outgoing.push_back(Message { topic, payload: Vec::new(), retain: true });
                }
            }
            News::Sent => {}
        }
    }

    async fn tell(&mut self, event: &Event) {
        self.presence.hear(event);
        self.seen.insert((event.source.clone(), event.who.clone()), Instant::now());
        let id = event.id;
        let picture = match &event.picture {
            Some(_) => {
                self.site.wait_for(move |site| Ok(site.store.event_picture(id)?)).await.unwrap_or_default()
            }
            None => None,
        };
        self.outgoing.extend(self.topics.event(event, picture));
        self.site.outputs.note_mqtt(|state| state.delivered += 1);
        self.look().await;
    }

    /// Says what is other than it was said.
    async fn look(&mut self) {
        self.reconcile();
        if !self.connected {
            return;
        }
        if self.cleaned_at.is_some_and(|at| at <= Instant::now()) {
            self.cleaned_at = None;
            // Or every message comes back.
            for filter in self.topics.left_behind() {
                let _ = self.client.try_unsubscribe(filter);
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
        // A gallery that cannot be read is told of elsewhere.
        let Ok(people) = people.await else { return };
        let people: BTreeSet<String> = people;
        let mut gone: BTreeSet<String> = self.told.keys().cloned().collect();
        for message in self.topics.kept(&sources, &people, &self.presence) {
            gone.remove(&message.topic);
            if self.told.get(&message.topic) != Some(&message.payload) {
                self.told.insert(message.topic.clone(), message.payload.clone());
                self.outgoing.push_back(message);
            }
        }
        for topic in gone {
            self.told.remove(&topic);
            self.outgoing.push_back(Message { topic, payload: Vec::new(), retain: true });
        }
    }

    /// Whoever was renamed or forgotten while in sight leaves without an event of that name.
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

    /// Gives to the connection what it has room for.
    fn send(&mut self) {
        while self.connected
            && let Some(Message { topic, payload, retain }) = self.outgoing.front()
        {
            let sent = self.client.try_publish(topic, QoS::AtLeastOnce, *retain, payload.clone());
            if sent.is_err() {
                return;
            }
            self.outgoing.pop_front();
        }
    }

    /// Says what is left to say, and that nobody is there any more.
    async fn say_goodbye(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        if !self.connected {
            return;
        }
        self.outgoing.push_back(Message {
            topic: self.topics.status(),
            payload: "offline".into(),
            retain: true,
        });
        let all = async {
            loop {
                self.send();
                if self.outgoing.is_empty() {
                    break;
                }
                let Some(_) = news.recv().await else { return };
            }
            // Queued behind the last words.
            let _ = self.client.disconnect().await;
            while let Some(told) = news.recv().await {
                if matches!(told, News::Lost(_)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, all).await;
    }
}
