//! The configuration of webhooks and the broker, and its validation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls;

use super::error::{ConfigError, check_name, number, value};
use crate::serve::store::Kind;

/// Prefix of the secret of a webhook.
const SECRET_PREFIX: &str = "whsec_";
/// Shortest secret, in bytes.
const SHORTEST_SECRET: usize = 24;

/// A server that receives events.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name in the store, the log and the metrics.
    pub name: String,
    /// Address for the requests.
    pub url: String,
    /// Key of the signatures: `whsec_` and at least 24 bytes in base64.
    pub secret: String,
    /// The kinds of events it receives.
    #[serde(default = "all_kinds")]
    pub events: Vec<Kind>,
    /// The sources of the events it receives; empty for all.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Whether pictures are sent.
    #[serde(default)]
    pub pictures: bool,
    /// Time limit of an answer in seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: f64,
    /// Hours after which an undelivered event is dropped.
    #[serde(default = "default_give_up_after_h")]
    pub give_up_after_h: f64,
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

fn default_timeout_s() -> f64 {
    10.0
}

fn default_give_up_after_h() -> f64 {
    72.0
}

/// A webhook, checked.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The configuration.
    pub config: WebhookConfig,
    /// The secret.
    pub(in crate::serve) key: Arc<Vec<u8>>,
    /// Time limit of an answer.
    pub timeout: Duration,
    /// Milliseconds after which an event is dropped.
    pub give_up_after_ms: i64,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl WebhookConfig {
    /// A webhook with everything else at its default.
    pub fn new(name: impl Into<String>, url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            secret: secret.into(),
            events: all_kinds(),
            sources: Vec::new(),
            pictures: false,
            timeout_s: default_timeout_s(),
            give_up_after_h: default_give_up_after_h(),
        }
    }

    /// The validated settings.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn settings(&self) -> Result<WebhookSettings, ConfigError> {
        check_name("webhook", &self.name)?;
        let setting = |key: &str| format!("webhook {}: {key}", self.name);
        let refused = |reason: &str| value(setting("url"), self.url.escape_debug(), reason.into());
        let parsed: Result<ureq::http::Uri, _> = self.url.parse();
        let scheme = parsed.as_ref().ok().and_then(ureq::http::Uri::scheme_str);
        let authority = parsed.as_ref().ok().and_then(ureq::http::Uri::authority);
        match (scheme, authority) {
            (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                return Err(refused("write it without a user: requests are signed with the secret"));
            }
            (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => {}
            _ => return Err(refused("write an address that begins with http:// or https://")),
        }
        let weak = || {
            let reason = format!("write {SECRET_PREFIX} and the output of `openssl rand -base64 32`");
            value(setting("secret"), "(as given)", reason)
        };
        let text = self.secret.strip_prefix(SECRET_PREFIX).ok_or_else(weak)?;
        let key = base64::engine::general_purpose::STANDARD.decode(text.trim()).map_err(|_| weak())?;
        if key.len() < SHORTEST_SECRET {
            return Err(weak());
        }
        let timeout_s = number(setting("timeout_s"), self.timeout_s, 0.5, 60.0)?;
        Ok(WebhookSettings {
            key: Arc::new(key),
            timeout: Duration::from_secs_f64(timeout_s),
            give_up_after_ms: give_up_after_ms(setting("give_up_after_h"), self.give_up_after_h)?,
            config: self.clone(),
        })
    }
}

/// An MQTT broker that receives events.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// Its address: `mqtt://user:password@host:1883`, or `mqtts://` for TLS.
    pub url: String,
    /// Prefix of the topics.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Prefix of the topics for Home Assistant's discovery of devices; empty for none.
    #[serde(default = "default_discovery")]
    pub discovery: String,
    /// Whether pictures of events are published.
    #[serde(default)]
    pub pictures: bool,
    /// Hours after which an undelivered event is dropped.
    #[serde(default = "default_give_up_after_h")]
    pub give_up_after_h: f64,
    /// The certificate of the broker's certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn default_topic() -> String {
    "sphereface".into()
}

fn default_discovery() -> String {
    "homeassistant".into()
}

/// A broker, checked.
#[derive(Clone)]
pub struct MqttSettings {
    /// The configuration.
    pub config: MqttConfig,
    pub(in crate::serve) host: String,
    pub(in crate::serve) port: u16,
    pub(in crate::serve) user: Option<(String, String)>,
    pub(in crate::serve) tls: Option<Arc<rustls::ClientConfig>>,
    /// Milliseconds after which an event is dropped.
    pub(in crate::serve) give_up_after_ms: i64,
}

impl std::fmt::Debug for MqttConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttConfig").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MqttSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

impl MqttConfig {
    /// A broker with everything else at its default.
    pub fn new(url: impl Into<String>) -> Self {
        let (topic, discovery) = (default_topic(), default_discovery());
        let give_up_after_h = default_give_up_after_h();
        Self { url: url.into(), topic, discovery, pictures: false, give_up_after_h, ca: None }
    }

    /// The validated settings.
    ///
    /// # Errors
    /// The first invalid value, and when the certificate cannot be read.
    pub fn settings(&self) -> Result<MqttSettings, ConfigError> {
        let refused = || {
            value(
                "mqtt.url".into(),
                "(as given)",
                "write mqtt:// or mqtts://, a host, and a port if it is not the default".into(),
            )
        };
        let (scheme, rest) = self.url.split_once("://").ok_or_else(refused)?;
        let (secure, usual) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(refused()),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                (Some((unescaped(name), unescaped(password))), place)
            }
            None => (None, rest),
        };
        let authority: ureq::http::uri::Authority = place.parse().map_err(|_| refused())?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        // Only a port may follow the host.
        let follows = place.len() > authority.host().len();
        if host.is_empty() || place.contains('/') || (follows && authority.port_u16().is_none()) {
            return Err(refused());
        }
        for (setting, text, may_be_empty) in
            [("mqtt.topic", &self.topic, false), ("mqtt.discovery", &self.discovery, true)]
        {
            let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"+#$".contains(c);
            let whole = !text.starts_with('/') && !text.ends_with('/') && text.len() <= 200;
            if !text.chars().all(plain) || !whole || (text.is_empty() && !may_be_empty) {
                let reason = "write the beginning of a topic, without +, # and spaces".to_owned();
                return Err(value(setting.into(), text.escape_debug(), reason));
            }
        }
        if let (false, Some(ca)) = (secure, &self.ca) {
            let reason = "only mqtts:// uses certificates".to_owned();
            return Err(value("mqtt.ca".into(), ca.display(), reason));
        }
        let tls = secure.then(|| self.tls()).transpose()?;
        let give_up_after_ms = give_up_after_ms("mqtt.give_up_after_h".into(), self.give_up_after_h)?;
        Ok(MqttSettings {
            host,
            port: authority.port_u16().unwrap_or(usual),
            user,
            tls,
            give_up_after_ms,
            config: self.clone(),
        })
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                let refused = |reason: String| value("mqtt.ca".into(), path.display(), reason);
                let all = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
                for one in all {
                    let one = one.map_err(|error| refused(error.to_string()))?;
                    roots.add(one).map_err(|error| refused(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(refused("there is no certificate in it".into()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let made = made.map_err(|error| value("mqtt.url".into(), "(as given)", error.to_string()))?;
        Ok(Arc::new(made.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn give_up_after_ms(setting: String, hours: f64) -> Result<i64, ConfigError> {
    Ok((number(setting, hours, 0.1, 8760.0)? * 3_600_000.0) as i64)
}

/// A user or password, which may contain `@` and `:` as `%40` and `%3A`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_broker_is_taken_apart() {
        let read = |url: &str| MqttConfig::new(url).settings().map(|read| (read.host, read.port, read.user));
        let user = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(read("mqtt://10.0.0.5").unwrap(), ("10.0.0.5".into(), 1883, None));
        assert_eq!(read("mqtts://broker.lan/").unwrap(), ("broker.lan".into(), 8883, None));
        let with_user = read("mqtt://me:a%40b%3a%@[::1]:99").unwrap();
        assert_eq!(with_user, ("::1".into(), 99, user("me", "a@b:%")));
        for wrong in ["", "broker", "mqtt://", "mqtt://host/topic", "mqtt://host:port", "ws://host"] {
            assert!(read(wrong).unwrap_err().to_string().contains("mqtt:// or mqtts://"), "{wrong}");
        }
    }
}
