//! The configuration of streams for recorders and players, and its validation.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, value};

/// The server of streams.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RtspConfig {
    /// Address and port.
    pub listen: String,
    /// User name for viewers; required if other machines can reach the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password for viewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl Default for RtspConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8554".into(), user: None, password: None }
    }
}

impl std::fmt::Debug for RtspConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtspConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The server of streams, validated.
#[derive(Clone)]
#[cfg_attr(not(feature = "rtsp"), expect(dead_code, reason = "nobody serves them"))]
pub struct RtspSettings {
    pub(in crate::serve) listen: SocketAddr,
    pub(in crate::serve) login: Option<(String, String)>,
}

impl RtspConfig {
    /// The validated settings.
    ///
    /// # Errors
    /// The first invalid value, and always if the program was built without the feature `rtsp`.
    pub(in crate::serve) fn settings(&self) -> Result<RtspSettings, ConfigError> {
        if cfg!(not(feature = "rtsp")) {
            let reason =
                "this program was built without RTSP streams: build it with --features rtsp".to_owned();
            return Err(value("rtsp.listen".into(), &self.listen, reason));
        }
        let listen: SocketAddr = self.listen.replace("localhost:", "127.0.0.1:").parse().map_err(|_| {
            value("rtsp.listen".into(), &self.listen, "write an address and a port, 127.0.0.1:8554".into())
        })?;
        let login = match (&self.user, &self.password) {
            (Some(user), Some(password))
                if !user.is_empty() && !user.contains(':') && password.len() >= 8 =>
            {
                Some((user.clone(), password.clone()))
            }
            (None, None) if listen.ip().is_loopback() => None,
            _ => {
                let reason = "give a user, without a colon, and a password of at least 8 characters; both are needed where others can reach the streams";
                return Err(value("rtsp.user".into(), "(as given)", reason.into()));
            }
        };
        Ok(RtspSettings { listen, login })
    }
}
