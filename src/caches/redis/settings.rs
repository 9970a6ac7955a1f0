//! What a project's settings say about a Redis cache.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::tls::Tls;
use crate::caches::format::Format;
use crate::caches::{CacheError, TimeLimits};
use crate::settings::Secret;

/// One of Django's `CACHES` that is a Redis: `LOCATION` and what stands in `OPTIONS`, in Django's words.
///
/// What an address says wins over the fields here, as in Django. `Debug` shows no password.
///
/// ```
/// use django_sessions::caches::redis::RedisSettings;
/// use django_sessions::settings::Secret;
///
/// // One server.
/// let mut settings = RedisSettings::new("redis://127.0.0.1:6379/1");
/// settings.password = Some(Secret::new("hunter2"));
///
/// // A primary and two replicas.
/// let settings = RedisSettings::new(["redis://a:6379", "redis://b:6379", "redis://c:6379"]);
///
/// // Sentinel.
/// let mut settings = RedisSettings::new("redis://mymaster/0");
/// settings.sentinels = vec![("10.0.0.1".to_owned(), 26379), ("10.0.0.2".to_owned(), 26379)];
///
/// // Cluster.
/// let mut settings = RedisSettings::new(["redis://a:7000", "redis://b:7000"]);
/// settings.cluster = true;
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `LOCATION`: one address or several. Of several, the first is written to and the others are read from, in turn;
    /// with `cluster`, each is a way into the Cluster.
    pub location: Location,
    /// User name: none.
    pub username: Option<String>,
    /// Password: none.
    pub password: Option<Secret>,
    /// Number of the database: 0. A Cluster has no other.
    pub db: i64,
    /// Seconds until there must be a connection: one. Django would wait for ever.
    pub socket_connect_timeout: Option<f64>,
    /// Seconds until a command must be answered: one. Django would wait for ever.
    pub socket_timeout: Option<f64>,
    /// Whether the server must show a certificate: it must.
    pub ssl_cert_reqs: CertReqs,
    /// Whether that certificate must be for the name in the address: it must. (redis-py before 6.0 did not ask.)
    pub ssl_check_hostname: bool,
    /// File of the authorities that are trusted (PEM): those of the system.
    pub ssl_ca_certs: Option<PathBuf>,
    /// File of the certificate that we show (PEM): none.
    pub ssl_certfile: Option<PathBuf>,
    /// File of its key (PEM): `ssl_certfile` holds the key too.
    pub ssl_keyfile: Option<PathBuf>,
    /// Whether values are read from replicas, where there are any: they are, as Django and django-redis's
    /// `SentinelClient` do.
    ///
    /// A replica lags behind. Who logs in and is sent to the next page at once may be read from a replica that has not
    /// heard of the session yet, and is nobody there. `false` reads from the primary, which cannot lose a session so.
    pub read_from_replicas: bool,
    /// Hosts and ports of the sentinels (django-redis's `SENTINELS`): none.
    pub sentinels: Vec<(String, u16)>,
    /// The name that the sentinels have for the primary: the host of `location`, as in `redis://mymaster/0`.
    pub service_name: Option<String>,
    /// How to talk to the sentinels themselves (`SENTINEL_KWARGS`).
    pub sentinel_kwargs: SentinelSettings,
    /// How values are written: as Django's own cache does. For django-redis, say what its `OPTIONS` say.
    pub format: Format,
    /// Whether this is a Redis Cluster: no. Neither Django nor django-redis speaks to one.
    pub cluster: bool,
}

impl RedisSettings {
    /// Django's defaults, with this `LOCATION`.
    pub fn new(location: impl Into<Location>) -> Self {
        Self { location: location.into(), ..Self::default() }
    }

    pub(super) fn limits(&self) -> Result<TimeLimits, CacheError> {
        let mut limits = TimeLimits::default();
        if let Some(seconds) = self.socket_connect_timeout {
            limits.connect = limit("socket_connect_timeout", seconds)?;
        }
        if let Some(seconds) = self.socket_timeout {
            limits.response = limit("socket_timeout", seconds)?;
        }
        Ok(limits)
    }

    pub(super) fn tls(&self) -> Tls {
        Tls {
            ca_certs: self.ssl_ca_certs.clone(),
            certfile: self.ssl_certfile.clone(),
            keyfile: self.ssl_keyfile.clone(),
            cert_reqs: self.ssl_cert_reqs,
            check_hostname: self.ssl_check_hostname,
        }
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            location: Location(Vec::new()),
            username: None,
            password: None,
            db: 0,
            socket_connect_timeout: None,
            socket_timeout: None,
            ssl_cert_reqs: CertReqs::Required,
            ssl_check_hostname: true,
            ssl_ca_certs: None,
            ssl_certfile: None,
            ssl_keyfile: None,
            read_from_replicas: true,
            sentinels: Vec::new(),
            service_name: None,
            sentinel_kwargs: SentinelSettings::default(),
            format: Format::django(),
            cluster: false,
        }
    }
}

/// How to talk to sentinels. As in redis-py, they share nothing with the servers that they watch but the time limits.
///
/// ```
/// use django_sessions::caches::redis::{RedisSettings, SentinelSettings};
///
/// let settings: RedisSettings = serde_json::from_str(r#"{
///     "location": "redis://mymaster/0",
///     "sentinels": [["10.0.0.1", 26379]],
///     "sentinel_kwargs": {"password": "hush"}
/// }"#)?;
/// assert!(settings.sentinel_kwargs.password.is_some());
/// assert!(settings.password.is_none(), "that of the servers is another");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SentinelSettings {
    /// User name: none.
    pub username: Option<String>,
    /// Password: none.
    pub password: Option<Secret>,
    /// Whether to talk over TLS: no.
    pub ssl: bool,
    /// Whether a sentinel must show a certificate: it must.
    pub ssl_cert_reqs: CertReqs,
    /// Whether that certificate must be for the sentinel's host: it must.
    pub ssl_check_hostname: bool,
    /// File of the authorities that are trusted (PEM): those of the system.
    pub ssl_ca_certs: Option<PathBuf>,
    /// File of the certificate that we show (PEM): none.
    pub ssl_certfile: Option<PathBuf>,
    /// File of its key (PEM): `ssl_certfile` holds the key too.
    pub ssl_keyfile: Option<PathBuf>,
}

impl SentinelSettings {
    pub(super) fn tls(&self) -> Option<Tls> {
        self.ssl.then(|| Tls {
            ca_certs: self.ssl_ca_certs.clone(),
            certfile: self.ssl_certfile.clone(),
            keyfile: self.ssl_keyfile.clone(),
            cert_reqs: self.ssl_cert_reqs,
            check_hostname: self.ssl_check_hostname,
        })
    }
}

impl Default for SentinelSettings {
    fn default() -> Self {
        Self {
            username: None,
            password: None,
            ssl: false,
            ssl_cert_reqs: CertReqs::Required,
            ssl_check_hostname: true,
            ssl_ca_certs: None,
            ssl_certfile: None,
            ssl_keyfile: None,
        }
    }
}

/// Django's `LOCATION`: one address or more. `Debug` shows none of them, for they hold passwords.
///
/// One text may hold several, with `,` or `;` between them. In a settings file it is a text, `{ env = "NAME" }`, or a
/// list of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Vec<Secret>);

impl Location {
    /// Each address.
    pub(super) fn urls(&self) -> Vec<&str> {
        match &*self.0 {
            // As `RedisCache` does, of a text but not within a list.
            [one] => one.expose().split([';', ',']).collect(),
            several => several.iter().map(Secret::expose).collect(),
        }
    }
}

impl From<&str> for Location {
    fn from(url: &str) -> Self {
        Self(vec![Secret::new(url)])
    }
}

impl From<String> for Location {
    fn from(url: String) -> Self {
        Self(vec![Secret::new(url)])
    }
}

impl From<Vec<Secret>> for Location {
    fn from(urls: Vec<Secret>) -> Self {
        Self(urls)
    }
}

impl<const N: usize> From<[&str; N]> for Location {
    fn from(urls: [&str; N]) -> Self {
        Self(urls.map(Secret::new).into())
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Vec<Secret>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, { env = \"NAME\" }, or a list of such")
            }

            fn visit_str<E>(self, url: &str) -> Result<Vec<Secret>, E> {
                Ok(vec![Secret::new(url)])
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Secret>, A::Error> {
                Ok(vec![Secret::deserialize(MapAccessDeserializer::new(map))?])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Secret>, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element()? {
                    urls.push(url);
                }
                Ok(urls)
            }
        }

        deserializer.deserialize_any(OneOrMore).map(Self)
    }
}

/// Python's `ssl_cert_reqs`: whether the other side must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CertReqs {
    /// Whatever it shows is taken: who can reach the network between can read and change everything.
    None,
    /// The same as `Required`, for a server always shows one.
    Optional,
    /// One that an authority has signed whom we trust.
    #[default]
    Required,
}

impl FromStr for CertReqs {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(()),
        }
    }
}

/// A time limit, which must be some time.
pub(super) fn limit(name: &str, seconds: f64) -> Result<Duration, CacheError> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(CacheError::Settings(format!("`{name}` of Redis must be a number of seconds above 0"))),
    }
}
