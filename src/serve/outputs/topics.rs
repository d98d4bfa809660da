//! MQTT topics, and their discovery by Home Assistant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::serve::config::MqttConfig;
use crate::serve::store::{Event, Kind};

/// Longest state that Home Assistant takes, in characters.
const LONGEST_STATE: usize = 250;
/// State of a person who is in sight of no source.
const NOWHERE: &str = "not in sight";

/// A message to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

impl Message {
    fn kept(topic: String, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic, payload: payload.into(), retain: true }
    }
}

/// The people in sight of each source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Presence(pub BTreeMap<String, BTreeSet<String>>);

impl Presence {
    /// Updates the people in sight by an event.
    pub fn hear(&mut self, event: &Event) {
        let here = self.0.entry(event.source.clone()).or_default();
        if let Some(was) = &event.was {
            here.remove(was);
        }
        match event.kind {
            Kind::Left => here.remove(&event.who),
            Kind::Appeared | Kind::Recognised | Kind::Corrected => here.insert(event.who.clone()),
        };
    }

    /// The sources that a person is in sight of.
    fn places(&self, who: &str) -> String {
        let places = self.0.iter().filter(|(_, here)| here.contains(who)).map(|(source, _)| source.as_str());
        places.collect::<Vec<_>>().join(", ")
    }
}

/// The topics below one beginning.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    base: String,
    discovery: String,
    node: String,
    pictures: bool,
}

impl Topics {
    pub fn new(config: &MqttConfig) -> Self {
        let MqttConfig { topic, discovery, pictures, .. } = config.clone();
        Self { node: slug(&topic), base: topic, discovery, pictures }
    }

    /// The client identifier of this service.
    pub fn client_id(&self) -> String {
        format!("sphereface-{}", self.node)
    }

    /// The topic of `online` and `offline`.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// The topic on which Home Assistant announces its start.
    pub fn home_assistant(&self) -> Option<String> {
        (!self.discovery.is_empty()).then(|| format!("{}/status", self.discovery))
    }

    /// Filters of all messages that this service may have retained on the broker, to be deleted if they are
    /// out of date.
    pub fn left_behind(&self) -> Vec<String> {
        let mut filters = vec![format!("{}/source/+/#", self.base), format!("{}/person/+", self.base)];
        if !self.discovery.is_empty() {
            filters.push(format!("{}/+/{}/+/config", self.discovery, self.node));
        }
        filters
    }

    /// An event, which is not retained, and its picture, which is.
    pub fn event(&self, event: &Event, picture: Option<Vec<u8>>) -> Vec<Message> {
        let base = format!("{}/source/{}", self.base, event.source);
        // Serialising plain data does not fail.
        let mut told = serde_json::to_value(event).unwrap_or_default();
        told["event_type"] = json!(event.kind);
        let mut messages =
            vec![Message { topic: format!("{base}/event"), payload: told.to_string().into(), retain: false }];
        if let Some(picture) = picture.filter(|_| self.pictures) {
            messages.push(Message::kept(format!("{base}/picture"), picture));
        }
        messages
    }

    /// The retained messages: states, and their descriptions.
    pub fn kept(
        &self,
        sources: &BTreeMap<String, bool>,
        people: &BTreeSet<String>,
        presence: &Presence,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        for (source, running) in sources {
            let here = presence.0.get(source).cloned().unwrap_or_default();
            let base = format!("{}/source/{source}", self.base);
            let switch = |on: bool| if on { "ON" } else { "OFF" };
            let names: Vec<&String> = here.iter().collect();
            let all = here.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = if all.is_empty() { "nobody" } else { &all };
            messages.push(Message::kept(format!("{base}/running"), switch(*running)));
            messages.push(Message::kept(format!("{base}/occupied"), switch(!here.is_empty())));
            messages.push(Message::kept(format!("{base}/people"), shortened(text)));
            let attributes = json!({"people": names, "count": here.len()});
            messages.push(Message::kept(format!("{base}/attributes"), attributes.to_string()));
            messages.extend(self.describe_source(source, &base));
        }
        for person in people {
            let topic = self.person(person);
            let places = presence.places(person);
            let text = if places.is_empty() { NOWHERE } else { &places };
            messages.push(Message::kept(topic.clone(), shortened(text)));
            let entity = json!({"name": person, "state_topic": topic, "icon": "mdi:account"});
            messages.extend(self.describe("sensor", &format!("person-{}", slug(person)), entity));
        }
        messages
    }

    fn person(&self, name: &str) -> String {
        format!("{}/person/{}", self.base, slug(name))
    }

    fn describe_source(&self, source: &str, base: &str) -> Vec<Message> {
        let kinds: Vec<String> = Kind::ALL.iter().map(ToString::to_string).collect();
        let mut entities = vec![
            (
                "binary_sensor",
                "occupied",
                json!({"name": format!("{source} occupied"), "device_class": "occupancy",
                    "state_topic": format!("{base}/occupied")}),
            ),
            (
                "binary_sensor",
                "running",
                json!({"name": format!("{source} running"), "device_class": "running",
                    "entity_category": "diagnostic", "state_topic": format!("{base}/running")}),
            ),
            (
                "sensor",
                "people",
                json!({"name": format!("{source} people"), "icon": "mdi:account-group",
                    "state_topic": format!("{base}/people"),
                    "json_attributes_topic": format!("{base}/attributes")}),
            ),
            (
                "event",
                "event",
                json!({"name": format!("{source} event"), "event_types": kinds,
                    "state_topic": format!("{base}/event")}),
            ),
        ];
        if self.pictures {
            let entity = json!({"name": format!("{source} picture"), "content_type": "image/jpeg",
                "image_topic": format!("{base}/picture")});
            entities.push(("image", "picture", entity));
        }
        let each = entities.into_iter();
        each.filter_map(|(component, key, entity)| {
            self.describe(component, &format!("source-{}-{key}", slug(source)), entity)
        })
        .collect()
    }

    /// The discovery message of an entity.
    fn describe(&self, component: &str, object: &str, mut entity: Value) -> Option<Message> {
        if self.discovery.is_empty() {
            return None;
        }
        let unique = format!("{}-{object}", self.node);
        entity["unique_id"] = json!(unique);
        entity["availability_topic"] = json!(self.status());
        entity["device"] = json!({
            "identifiers": [self.client_id()],
            "name": self.base,
            "manufacturer": "sphereface",
            "model": "Face recognition",
            "sw_version": env!("CARGO_PKG_VERSION"),
        });
        entity["origin"] = json!({"name": "sphereface", "sw_version": env!("CARGO_PKG_VERSION")});
        let topic = format!("{}/{component}/{}/{object}/config", self.discovery, self.node);
        Some(Message::kept(topic, entity.to_string()))
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_STATE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A name as a part of a topic: letters, digits and - only, unique for each name.
fn slug(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !name.is_empty() && name.chars().all(plain) {
        return name.to_owned();
    }
    let readable: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}_{}", readable.trim_matches('-'), &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, source: &str, who: &str, was: Option<&str>) -> Event {
        Event {
            id: 1,
            time_ms: 0,
            time: String::new(),
            kind,
            source: source.into(),
            person: Some(who.into()),
            stranger: None,
            who: who.into(),
            was: was.map(str::to_owned),
            angle_deg: None,
            margin_deg: None,
            confirmed: false,
            why: String::new(),
            picture: None,
        }
    }

    #[test]
    fn people_are_where_they_were_seen_last_until_they_leave() {
        let mut presence = Presence::default();
        presence.hear(&event(Kind::Appeared, "door", "Unknown 1", None));
        presence.hear(&event(Kind::Recognised, "door", "Ada", Some("Unknown 1")));
        presence.hear(&event(Kind::Appeared, "yard", "Ada", None));
        assert_eq!(presence.places("Ada"), "door, yard");
        assert_eq!(presence.places("Unknown 1"), "");
        presence.hear(&event(Kind::Left, "door", "Ada", None));
        assert_eq!(presence.places("Ada"), "yard");
    }

    #[test]
    fn every_state_is_described_by_an_address_of_its_own_whatever_names_hold() {
        let config = MqttConfig { pictures: true, ..MqttConfig::new("mqtt://host") };
        let topics = Topics::new(&config);
        let sources = BTreeMap::from([("door".to_owned(), true), ("a.b".to_owned(), false)]);
        let people: BTreeSet<String> =
            ["Ada", "a/+#", "A-/+", "Zoë", "Zoé"].map(str::to_owned).into_iter().collect();
        let kept = topics.kept(&sources, &people, &Presence::default());
        let mut seen = BTreeSet::new();
        for message in &kept {
            assert!(seen.insert(message.topic.clone()) && message.retain, "{}", message.topic);
            assert!(!message.topic.contains(['+', '#', ' ']), "{}", message.topic);
        }
        let described: Vec<Value> = kept
            .iter()
            .filter(|message| message.topic.ends_with("/config"))
            .map(|message| serde_json::from_slice(&message.payload).unwrap())
            .collect();
        assert_eq!(described.len(), 2 * 5 + people.len());
        for entity in &described {
            let topic = entity["state_topic"].as_str().or(entity["image_topic"].as_str()).unwrap();
            let told = topic.ends_with("/event") || topic.ends_with("/picture") || seen.contains(topic);
            assert!(told && entity["availability_topic"] == "sphereface/status", "{entity}");
        }
        let none = Topics::new(&MqttConfig { discovery: String::new(), ..config });
        let kept = none.kept(&sources, &people, &Presence::default());
        assert!(kept.iter().all(|message| message.topic.starts_with("sphereface/")));
        assert_eq!(shortened(&"é".repeat(999)).chars().count(), LONGEST_STATE + 1);
    }
}
