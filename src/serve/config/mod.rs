//! The configuration file, and the settings after validation.

mod allow;
mod error;
mod library;
mod outputs;
mod rtsp;
mod source;
mod tls;

pub use error::ConfigError;
pub use library::LibraryConfig;
pub use outputs::{MqttConfig, MqttSettings, WebhookConfig, WebhookSettings};
pub use rtsp::{RtspConfig, RtspSettings};
pub use source::{SourceConfig, SourceSettings};
pub use tls::TlsConfig;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use super::store::Retention;
use crate::identify::ThresholdRequest;
use crate::media::Input;
use allow::Allowed;
use error::{angle, value, whole};

/// The highest limit of pictures per request.
pub(in crate::serve) const MOST_PICTURES: usize = 1000;

/// The file that `--init` writes: every setting with its default.
pub const TEMPLATE: &str = include_str!("template.toml");

/// A configuration as in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: String,
    /// Folder of the people to name.
    pub gallery: PathBuf,
    /// Folder of events, strangers and tokens.
    pub data: PathBuf,
    /// Whether a token is required on 127.0.0.1, too.
    pub token: bool,
    /// Certificate and key, for encrypted connections.
    pub tls: Option<TlsConfig>,
    /// The angle below which a face is named, in degrees.
    pub threshold_deg: Option<f64>,
    /// Folders and addresses to which inputs of sources added by the API are restricted.
    pub allow_inputs: Vec<String>,
    /// How long events are kept.
    pub retention: Retention,
    /// Limits of requests.
    pub limits: Limits,
    /// Limits of jobs.
    pub jobs: JobLimits,
    /// The broker for events.
    pub mqtt: Option<MqttConfig>,
    /// The library to show.
    pub library: Option<LibraryConfig>,
    /// Streams for recorders and players.
    pub rtsp: Option<RtspConfig>,
    /// Webhooks for events.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<WebhookConfig>,
    /// The sources.
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8470".into(),
            gallery: "gallery".into(),
            data: "sphereface-data".into(),
            token: false,
            tls: None,
            threshold_deg: None,
            allow_inputs: Vec::new(),
            retention: Retention::default(),
            limits: Limits::default(),
            jobs: JobLimits::default(),
            mqtt: None,
            library: None,
            rtsp: None,
            webhooks: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// Limits of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of a request in MiB.
    pub body_mib: usize,
    /// Size of a picture in millions of pixels.
    pub megapixels: u64,
    /// Pictures per request.
    pub pictures: usize,
    /// Faces per picture.
    pub faces: usize,
    /// Concurrent requests with pictures; more are told to retry later.
    pub requests: usize,
    /// Concurrent streams of pictures and events.
    pub streams: usize,
    /// Concurrent connections; more are closed.
    pub connections: usize,
    /// Requests per second and client; more are told to retry later. 0 for any number.
    pub requests_per_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_mib: 32,
            megapixels: 50,
            pictures: 16,
            faces: 100,
            requests: 4,
            streams: 64,
            connections: 1024,
            requests_per_s: 100,
        }
    }
}

/// Limits of the videos that are labelled for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    /// Size of an uploaded video in MiB; 0 allows none.
    pub upload_mib: u64,
    /// The most jobs, with their results.
    pub most: usize,
    /// Days after which a finished job is deleted with its results; 0 keeps it for ever.
    pub keep_days: u32,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self { upload_mib: 2048, most: 20, keep_days: 7 }
    }
}

/// A configuration, checked.
#[derive(Clone)]
pub struct Settings {
    /// The source text of the settings.
    pub config: Config,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The angle below which a face is named.
    pub threshold: ThresholdRequest,
    /// Folders and addresses to which inputs of sources added by the API are restricted.
    pub allowed: Allowed,
    /// The sources.
    pub sources: Vec<SourceSettings>,
    /// Webhooks for events.
    pub webhooks: Vec<WebhookSettings>,
    /// The broker for events.
    pub mqtt: Option<MqttSettings>,
    /// Streams for recorders and players.
    #[cfg_attr(not(feature = "rtsp"), expect(dead_code, reason = "nobody serves them"))]
    pub(super) rtsp: Option<RtspSettings>,
    /// The TLS acceptor, for encrypted connections.
    pub(super) tls: Option<TlsAcceptor>,
}

impl Config {
    /// Reads a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has an unknown setting.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::of_text(&text, path)
    }

    /// Parses a configuration; relative paths are those of a file at `path`.
    pub(super) fn of_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        config.anchor(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Makes paths relative to `folder`.
    fn anchor(&mut self, folder: &Path) {
        for path in [&mut self.gallery, &mut self.data] {
            *path = folder.join(&*path);
        }
        for path in self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]) {
            *path = folder.join(&*path);
        }
        if let Some(ca) = self.mqtt.as_mut().and_then(|mqtt| mqtt.ca.as_mut()) {
            *ca = folder.join(&*ca);
        }
        if let Some(library) = &mut self.library {
            library.path = folder.join(&library.path);
        }
        for source in &mut self.sources {
            source.gallery = source.gallery.take().map(|gallery| folder.join(gallery));
            if let Ok(Input::File(path)) = Input::parse(&source.input)
                && path.is_relative()
                && !source.input.contains("://")
                && source.input != "-"
                && let Some(path) = folder.join(path).to_str()
            {
                source.input = path.to_owned();
            }
        }
    }

    /// The validated settings.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn settings(self) -> Result<Settings, ConfigError> {
        let listen = self.listen.replace("localhost:", "127.0.0.1:").parse().map_err(|_| {
            value("listen".into(), &self.listen, "write an address and a port, 127.0.0.1:8470".into())
        })?;
        let threshold = match self.threshold_deg {
            Some(degrees) => angle("threshold_deg".into(), degrees)?,
            None => ThresholdRequest::Default,
        };
        self.limits.check()?;
        whole("jobs.upload_mib".into(), self.jobs.upload_mib, 0, 1 << 20)?;
        whole("jobs.most".into(), self.jobs.most as u64, 1, 10_000)?;
        let mut names = BTreeSet::new();
        let mut sources = Vec::new();
        for source in &self.sources {
            if !names.insert(source.name.as_str()) {
                return Err(ConfigError::Twice(source.name.clone()));
            }
            sources.push(source.settings(&self.gallery, threshold)?);
        }
        let allowed = Allowed::new(&self.allow_inputs)?;
        let mut webhooks: Vec<WebhookSettings> = Vec::new();
        for webhook in &self.webhooks {
            if webhooks.iter().any(|other| other.config.name == webhook.name) {
                let reason = "give each webhook a name of its own".to_owned();
                return Err(value("name of a webhook".into(), webhook.name.escape_debug(), reason));
            }
            webhooks.push(webhook.settings()?);
        }
        let mqtt = self.mqtt.as_ref().map(MqttConfig::settings).transpose()?;
        let rtsp = self.rtsp.as_ref().map(RtspConfig::settings).transpose()?;
        self.library.as_ref().map(LibraryConfig::check).transpose()?;
        let tls = self.tls.as_ref().map(TlsConfig::acceptor).transpose()?;
        Ok(Settings { listen, threshold, allowed, sources, webhooks, mqtt, rtsp, tls, config: self })
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let all = [
            ("body_mib", self.body_mib as u64, 1024),
            ("megapixels", self.megapixels, 1000),
            ("pictures", self.pictures as u64, MOST_PICTURES as u64),
            ("faces", self.faces as u64, 10_000),
            ("requests", self.requests as u64, 1000),
            ("streams", self.streams as u64, 10_000),
            ("connections", self.connections as u64, 100_000),
        ];
        for (name, number, most) in all {
            whole(format!("limits.{name}"), number, 1, most)?;
        }
        whole("limits.requests_per_s".into(), self.requests_per_s.into(), 0, 100_000)?;
        Ok(())
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The other fields contain secrets.
        f.debug_struct("Settings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Settings {
    /// Sets the threshold of the sources without their own one: that one, or that of the configuration.
    pub(super) fn with_threshold(mut self, degrees: Option<f64>) -> Self {
        self.threshold = degrees.map_or(self.configured_threshold(), ThresholdRequest::AngleDeg);
        for source in self.sources.iter_mut().filter(|source| source.config.threshold_deg.is_none()) {
            source.threshold = self.threshold;
        }
        self
    }

    /// The threshold of the configuration.
    pub(super) fn configured_threshold(&self) -> ThresholdRequest {
        self.config.threshold_deg.map_or(ThresholdRequest::Default, ThresholdRequest::AngleDeg)
    }

    /// Whether a token is required.
    pub fn asks_for_token(&self) -> bool {
        self.config.token || !self.listen.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::source::{default_confirm_frames, default_fps, default_left_after_s};
    use super::*;
    use crate::mutations;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)?.settings()
    }

    #[test]
    fn the_written_file_says_the_defaults() {
        let written: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(written, Config::default());
        // The values in comments are the defaults, too.
        let text: String = TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        let all: Config = toml::from_str(&text).unwrap();
        assert_eq!((all.sources.len(), all.webhooks.len()), (2, 1), "examples");
        mutations::survived_by("service_config", "everything.toml", text.as_bytes(), 200);
        let made = WebhookConfig::new(&all.webhooks[0].name, &all.webhooks[0].url, &all.webhooks[0].secret);
        assert_eq!(all.webhooks[0], made);
        assert_eq!(all.mqtt, Some(MqttConfig::new(&all.mqtt.as_ref().unwrap().url)));
        assert_eq!(all.library.as_ref().unwrap().path, PathBuf::from("sphereface-library"));
        assert_eq!(all.sources[1].fps, default_fps());
        assert_eq!(all.sources[1].left_after_s, default_left_after_s());
        assert_eq!(
            (all.sources[1].confirm_frames, all.sources[1].confirm_s),
            (default_confirm_frames(), 0.0)
        );
        assert!(all.sources[1].watch.is_empty() && all.sources[1].ignore.is_empty());
        all.settings().unwrap();
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        std::fs::write(&path, "[[source]]\nname = \"a\"\ninput = \"clips/a.mp4\"\ngallery = \"staff\"")
            .unwrap();
        let settings = Config::read(&path).unwrap().settings().unwrap();
        assert_eq!(settings.config.gallery, folder.path().join("gallery"));
        assert_eq!(settings.sources[0].input, Input::File(folder.path().join("clips/a.mp4")));
        assert_eq!(settings.sources[0].gallery, folder.path().join("staff"));
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn webhook(url: &str, secret: &str) -> String {
        format!("[[webhook]]\nname = \"home\"\nurl = \"{url}\"\nsecret = \"{secret}\"\n")
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let source = |more: &str| format!("[[source]]\nname = \"a\"\ninput = \"a.mp4\"\n{more}");
        for (text, reason) in [
            ("port = 3".to_owned(), "unknown field"),
            ("listen = \"here\"".into(), "an address and a port"),
            ("threshold_deg = 200.0".into(), "threshold_deg"),
            ("[limits]\nfaces = 0".into(), "1 to 10000"),
            ("[limits]\nconnections = 0".into(), "1 to 100000"),
            ("[limits]\nrequests_per_s = 999999".into(), "0 to 100000"),
            ("[tls]\ncertificate = \"a.pem\"".into(), "missing field `key`"),
            ("[tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\"".into(), "a.pem"),
            ("[jobs]\nmost = 0".into(), "1 to 10000"),
            ("[jobs]\nupload_mib = 9999999".into(), "0 to 1048576"),
            (source("fps = 0.0"), "0.1 to 60"),
            (source("fps = nan"), "0.1 to 60"),
            (source("left_after_s = -1.0"), "0.5 to 3600"),
            (source("confirm_frames = 0"), "1 to 100"),
            (source("redact = \"strangers\""), "write all, unknown"),
            (source("watch = [[[0, 0], [1, 1]]]"), "3 to 100 corners"),
            (source("ignore = [[[0, 0], [1, 1], [0, 360]]]"), "from 0 to 1"),
            (source("confirm_s = 61.0"), "0 to 60"),
            (source("min_face = \"big\""), "not a face size"),
            (source("min_face = \"2px\""), "at least"),
            (source("colour = 1"), "unknown field"),
            ("[[source]]\nname = \"../a\"\ninput = \"a.mp4\"".into(), "letters, digits"),
            ("[[source]]\nname = \"a\"\ninput = \"ftp://a\"".into(), "the supported schemes are"),
            ("[[source]]\nname = \"a\"\ninput = \"a.jpg\"".into(), "it is a still"),
            (source(&source("")), "two sources are named a"),
            ("allow_inputs = [\"gst:\"]".into(), "allow_inputs"),
            (webhook("ftp://x/", SECRET), "http:// or https://"),
            (webhook("http://user:word@x/", SECRET), "without a user"),
            (webhook("http:///x", SECRET), "http:// or https://"),
            (webhook("http://x/", "whsec_short"), "openssl rand"),
            (webhook("http://x/", "password"), "whsec_"),
            (webhook("http://x/", SECRET) + "timeout_s = 0.0", "0.5 to 60"),
            (webhook("http://x/", SECRET) + "give_up_after_h = 0.0", "0.1 to 8760"),
            (webhook("http://x/", SECRET) + "events = [\"came\"]", "unknown variant"),
            (webhook("http://x/", SECRET) + &webhook("http://y/", SECRET), "a name of its own"),
            ("[library]\ndatabase = \"postgres://x\"".into(), "missing field `path`"),
            ("[library]\npath = \"a\"\ndatabase = \"mysql://x\"".into(), "postgres://"),
            ("[mqtt]\nurl = \"mqtt://x\"\ngive_up_after_h = 0.0".into(), "0.1 to 8760"),
            ("[mqtt]\nurl = \"http://x\"".into(), "mqtt:// or mqtts://"),
            ("[mqtt]\nurl = \"mqtt://x\"\ntopic = \"a/#\"".into(), "without +, # and spaces"),
            ("[mqtt]\nurl = \"mqtt://x\"\nca = \"ca.pem\"".into(), "mqtts://"),
            ("[mqtt]\nurl = \"mqtts://x\"\nca = \"missing.pem\"".into(), "missing.pem"),
        ] {
            let error = settings(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[cfg(not(feature = "rtsp"))]
    #[test]
    fn streams_are_refused_by_a_program_that_serves_none() {
        let error = settings("[rtsp]\n").unwrap_err().to_string();
        assert!(error.contains("--features rtsp"), "{error}");
    }

    #[cfg(feature = "rtsp")]
    #[test]
    fn streams_that_others_can_reach_ask_for_a_password() {
        let anywhere = "[rtsp]\nlisten = \"0.0.0.0:8554\"\n";
        let login = "user = \"recorder\"\npassword = \"long enough\"\n";
        assert!(settings("[rtsp]\n").is_ok() && settings(&format!("{anywhere}{login}")).is_ok());
        for wrong in [
            anywhere.to_owned(),
            format!("{anywhere}user = \"recorder\"\n"),
            format!("{anywhere}user = \"recorder\"\npassword = \"short\"\n"),
            format!("{anywhere}user = \"a:b\"\npassword = \"long enough\"\n"),
            "[rtsp]\nlisten = \"here\"\n".into(),
        ] {
            assert!(settings(&wrong).unwrap_err().to_string().contains("rtsp."), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_asked_for_wherever_others_can_reach() {
        for (text, asked) in [
            ("", false),
            ("token = true", true),
            ("listen = \"0.0.0.0:80\"", true),
            ("listen = \"[::1]:80\"", false),
            ("listen = \"[::]:80\"", true),
            ("listen = \"localhost:80\"", false),
        ] {
            assert_eq!(settings(text).unwrap().asks_for_token(), asked, "{text}");
        }
    }
}
