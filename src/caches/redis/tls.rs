//! TLS to Redis, which needs the feature `tls`.

use std::path::PathBuf;

use redis::{Client, ConnectionInfo};
#[cfg(feature = "tls")]
use redis::{TlsMode, cluster::ClusterClientBuilder};

use super::settings::CertReqs;
use crate::caches::CacheError;

/// Whom to trust, and what to show.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tls {
    pub(super) ca_certs: Option<PathBuf>,
    pub(super) certfile: Option<PathBuf>,
    pub(super) keyfile: Option<PathBuf>,
    pub(super) cert_reqs: CertReqs,
    pub(super) check_hostname: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca_certs: None,
            certfile: None,
            keyfile: None,
            cert_reqs: CertReqs::Required,
            check_hostname: true,
        }
    }
}

/// What the files of a [`Tls`] held, to make clients with.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub(super) struct Certificates {
    files: redis::TlsCertificates,
    is_insecure: bool,
    any_hostname: bool,
}

#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(super) enum Certificates {}

#[cfg(feature = "tls")]
impl Certificates {
    pub(super) async fn read(tls: Tls) -> Result<Self, CacheError> {
        choose_cryptography();
        tokio::task::spawn_blocking(move || Self::read_files(&tls))
            .await
            .map_err(|_| CacheError::Settings("the files of the TLS certificates were not read".to_owned()))?
    }

    fn read_files(tls: &Tls) -> Result<Self, CacheError> {
        let read = |name: &str, path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| CacheError::Settings(format!("`{name}` of Redis cannot be read: {error}")))
        };
        let root_cert = tls.ca_certs.as_ref().map(|path| read("ssl_ca_certs", path)).transpose()?;
        let client_tls = match (&tls.certfile, &tls.keyfile) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(CacheError::Settings("Redis's `ssl_keyfile` needs a `ssl_certfile`".to_owned()));
            }
            // As Python's `load_cert_chain`, which looks for a key in the same file.
            (Some(certfile), keyfile) => Some(redis::ClientTlsConfig {
                client_cert: read("ssl_certfile", certfile)?,
                client_key: read("ssl_keyfile", keyfile.as_ref().unwrap_or(certfile))?,
            }),
        };
        Ok(Self {
            files: redis::TlsCertificates { client_tls, root_cert },
            is_insecure: tls.cert_reqs == CertReqs::None,
            any_hostname: !tls.check_hostname,
        })
    }

    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, redis::RedisError> {
        let client = Client::build_with_tls(info, self.files.clone())?;
        if !self.any_hostname {
            return Ok(client);
        }
        let info = client.get_connection_info().clone();
        let mut addr = info.addr().clone();
        addr.set_danger_accept_invalid_hostnames(true);
        Client::open(info.set_addr(addr))
    }

    pub(super) fn cluster(&self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
        let mode = if self.is_insecure { TlsMode::Insecure } else { TlsMode::Secure };
        builder.tls(mode).certs(self.files.clone()).danger_accept_invalid_hostnames(self.any_hostname)
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.is_insecure
    }
}

#[cfg(not(feature = "tls"))]
impl Certificates {
    pub(super) async fn read(_tls: Tls) -> Result<Self, CacheError> {
        let why = "this Redis is to be reached over TLS: switch on the feature `tls` of django-sessions";
        Err(CacheError::Settings(why.to_owned()))
    }

    pub(super) fn client(&self, _info: ConnectionInfo) -> Result<Client, redis::RedisError> {
        match *self {}
    }

    pub(super) fn is_insecure(&self) -> bool {
        match *self {}
    }
}

/// rustls asks the process which cryptography to use, and panics where two are compiled in and none was chosen. What
/// the application chose stays; who chooses after the first connection over TLS is told that it is done.
#[cfg(feature = "tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Should somebody be quicker, theirs is as good.
        let _theirs = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_feature_is_named() {
        let error = Certificates::read(Tls::default()).await.err().expect("there is no TLS").to_string();
        assert!(error.contains("`tls`"), "{error}");
    }
}
