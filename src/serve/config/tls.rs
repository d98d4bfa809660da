//! TLS, if a certificate is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::error::{ConfigError, value};

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

impl TlsConfig {
    /// Reads the certificate and the key.
    ///
    /// # Errors
    /// When they cannot be read, are invalid, or do not match.
    pub(in crate::serve) fn acceptor(&self) -> Result<TlsAcceptor, ConfigError> {
        let refused = |setting: &str, path: &Path, reason: String| {
            value(format!("tls.{setting}"), path.display(), reason)
        };
        let certificate = |reason: String| refused("certificate", &self.certificate, reason);
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .map_err(|error| certificate(error.to_string()))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(certificate("there is no certificate in it".into()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| refused("key", &self.key, error.to_string()))?;
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| certificate(format!("it cannot be used with that key: {error}")))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
