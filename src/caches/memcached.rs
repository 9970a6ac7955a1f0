//! memcached, as Django's `PyMemcacheCache` and `PyLibMCCache` use it (feature `memcached`). Needs memcached 1.6 or newer.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings};
//! use django_sessions::caches::{Cache, KeyLayout};
//!
//! // CACHES = {"default": {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": [...]}}
//! let cache = MemcachedCache::open(&MemcachedSettings::new(["10.0.0.1:11211", "10.0.0.2:11211"]))?;
//! let key = KeyLayout::default().make_key("greeting");
//! let pickle = b"\x80\x04\x8c\x05hello.";
//! cache.set(&key, pickle, Some(Duration::from_secs(60))).await?;
//! assert_eq!(cache.get(&key).await?.as_deref(), Some(&pickle[..]));
//! # Ok(()) }
//! ```
//!
//! # Several servers
//!
//! A key belongs to the server on which Django's library looks for it: with pymemcache's `HashClient` the one whose name
//! and the key hash highest, with pylibmc the key's hash modulo the number of servers, or ketama where the project's
//! `behaviors` say so. For pymemcache the names of the servers count, so write them as the project does
//! (`localhost:11211` is not `127.0.0.1:11211`); for pylibmc their order.
//!
//! When a server does not answer, operations on its keys fail, and go to no other server. pymemcache differs: for a second
//! after a failure a call to that server quietly does nothing, and after three failures the thread that met them moves the
//! keys to the other servers, for a minute. Each thread of a Django site finds that out for itself, so during an outage
//! two of them look for one session in two places, and when the server is back, what it held before shows again, logged out
//! or not. A service that moved keys as well would be one more opinion: here a session is read and written where all of
//! Django looks as long as its servers are up, or not at all.
//!
//! # Flags
//!
//! Values are pickles and are written with flag 1, as both libraries do. What carries other flags is no session, and an
//! error, but for 8 (zlib), which is read always and written only with `serde = "compressed"`: pymemcache's own
//! `CompressedSerde`, without which it does not read such values.

mod listing;
mod routing;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_memcached::{AsciiProtocol, Client, Error, ErrorKind, MetaProtocol, Status};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use tokio::time;

use self::routing::Routing;
use super::{Cache, CacheError, Entry, Seen, Swapped, TimeLimits, Version};
use crate::signing::{DEFAULT_MAX_INFLATED, zlib};

/// Longer timeouts are moments in memcached's protocol, not durations.
const THIRTY_DAYS: u64 = 60 * 60 * 24 * 30;

const MAX_KEY_LENGTH: usize = 250;

const DEFAULT_PORT: u16 = 11211;

const NO_NUMBERS: &str =
    "merged saves need a memcached that numbers what it has: start it without --disable-cas (-C)";

/// The flags of pymemcache and of pylibmc, which agree.
const PICKLE: u32 = 1;
const INTEGER: u32 = 1 << 1;
const LONG: u32 = 1 << 2;
const ZLIB: u32 = 1 << 3;
const TEXT: u32 = 1 << 4;

/// What Django's settings say of a `PyMemcacheCache` or a `PyLibMCCache`.
///
/// ```
/// use django_sessions::caches::memcached::{Library, MemcachedSettings};
///
/// let settings: MemcachedSettings = serde_json::from_str(r#"{"location": "10.0.0.1:11211;10.0.0.2:11211"}"#)?;
/// assert_eq!(settings.location, ["10.0.0.1:11211", "10.0.0.2:11211"]);
/// assert_eq!(settings.library, Library::Pymemcache);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemcachedSettings {
    /// `LOCATION`: `host`, `host:port`, `[address]:port`, `unix:/path` or `/path`. From a settings file it may also be one
    /// text, with several servers parted by `;` or `,` as in Django.
    #[serde(deserialize_with = "one_text_or_several")]
    pub location: Vec<String>,
    /// Which library Django uses: pymemcache (`PyMemcacheCache`), or pylibmc (`PyLibMCCache`).
    pub library: Library,
    /// pymemcache's `connect_timeout` in seconds, for a connection: 1. Without one Django waits for ever; here a server
    /// that is gone is found out soon.
    pub connect_timeout: f64,
    /// pymemcache's `timeout` in seconds, for an answer: 1, where Django again waits for ever.
    pub timeout: f64,
    /// How many connections to each server may be open at once: 10. (In pymemcache each thread has one of its own, or
    /// with `use_pooling` there is no limit unless `max_pool_size` is given.)
    pub max_pool_size: usize,
    /// pymemcache's own `key_prefix` in `OPTIONS`, which stands before Django's keys and does not count when a server is
    /// chosen: none.
    pub key_prefix: String,
    /// pymemcache's `serde` in `OPTIONS`: the one that Django gives it.
    pub serde: Serde,
    /// What `CompressedSerde` takes as `min_compress_len`: 400 bytes.
    pub min_compress_len: usize,
    /// pylibmc's `behaviors` in `OPTIONS`: none of them.
    pub behaviors: Behaviors,
}

/// A Python library for memcached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Library {
    /// `django.core.cache.backends.memcached.PyMemcacheCache`.
    #[default]
    Pymemcache,
    /// `django.core.cache.backends.memcached.PyLibMCCache`.
    Pylibmc,
}

/// How pymemcache turns values into bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Serde {
    /// `pymemcache.serde.pickle_serde`, Django's choice.
    #[default]
    Pickle,
    /// `pymemcache.serde.compressed_serde`, or another `CompressedSerde`.
    Compressed,
}

/// Behaviors of pylibmc that decide where a key is kept. There are more; a project that uses one of those, or another hash,
/// cannot be followed.
///
/// ```
/// use django_sessions::caches::memcached::{Library, MemcachedSettings};
///
/// let settings: MemcachedSettings = serde_json::from_str(r#"{
///     "location": "10.0.0.1:11211;10.0.0.2:11211", "library": "pylibmc", "behaviors": {"ketama": true}
/// }"#)?;
/// assert_eq!(settings.library, Library::Pylibmc);
/// assert!(settings.behaviors.ketama);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Behaviors {
    /// `ketama`: no.
    pub ketama: bool,
    /// `ketama_weighted`: no. The servers must all have the same weight, 1.
    pub ketama_weighted: bool,
}

impl Default for MemcachedSettings {
    fn default() -> Self {
        Self {
            location: Vec::new(),
            library: Library::Pymemcache,
            connect_timeout: 1.0,
            timeout: 1.0,
            max_pool_size: 10,
            key_prefix: String::new(),
            serde: Serde::Pickle,
            min_compress_len: 400,
            behaviors: Behaviors::default(),
        }
    }
}

impl MemcachedSettings {
    /// Django's defaults, for `PyMemcacheCache` over these servers.
    pub fn new<S: Into<String>>(location: impl IntoIterator<Item = S>) -> Self {
        Self { location: location.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    fn limits(&self) -> Result<TimeLimits, CacheError> {
        let limit = |seconds: f64, name: &str| {
            let limit = Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero());
            limit.ok_or_else(|| CacheError::Settings(format!("{name} = {seconds} is no time limit")))
        };
        Ok(TimeLimits {
            connect: limit(self.connect_timeout, "connect_timeout")?,
            response: limit(self.timeout, "timeout")?,
        })
    }

    fn servers(&self) -> Result<Vec<Server>, CacheError> {
        let servers: Vec<_> = self
            .location
            .iter()
            .map(|server| Server::parse(server, self.library))
            .collect::<Result<_, _>>()?;
        match servers.is_empty() {
            true => Err(CacheError::Settings("LOCATION names no memcached server".to_owned())),
            false => Ok(servers),
        }
    }

    fn routing(&self, servers: &[Server]) -> Routing {
        match self.library {
            Library::Pymemcache => Routing::Rendezvous(servers.iter().map(Server::name).collect()),
            Library::Pylibmc if self.behaviors.ketama || self.behaviors.ketama_weighted => {
                let points = servers.iter().map(|server| match server {
                    Server::Tcp { host, port } => (host.clone(), *port),
                    Server::Unix { path } => (path.clone(), 0),
                });
                Routing::ketama(&points.collect::<Vec<_>>(), self.behaviors.ketama_weighted)
            }
            Library::Pylibmc => Routing::Modula(servers.len() as u32),
        }
    }
}

fn one_text_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text, or a list of texts")]
    enum Form {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::One(text) => text.split([';', ',']).map(str::to_owned).collect(),
        Form::Several(texts) => texts,
    })
}

/// One of `LOCATION`, taken apart as the libraries do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Server {
    Tcp { host: String, port: u16 },
    Unix { path: String },
}

impl Server {
    fn parse(server: &str, library: Library) -> Result<Self, CacheError> {
        let error = |what| CacheError::Settings(format!("the memcached server {server:?} {what}"));
        if let Some(path) = server.strip_prefix("unix:").or(server.starts_with('/').then_some(server)) {
            return Ok(Self::Unix { path: path.to_owned() });
        }
        let has_port = server.contains(':') && !server.ends_with(']');
        let (host, port) = match has_port.then(|| server.rsplit_once(':')).flatten() {
            None => (server, DEFAULT_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| error("has no port after its colon"))?),
        };
        if library == Library::Pylibmc && host.contains(':') && !host.starts_with('[') {
            return Err(error("is a UDP one or has a weight, of which this client knows nothing"));
        }
        let host = if host.starts_with('[') { host.trim_matches(['[', ']']) } else { host };
        if host.is_empty() {
            Err(error("has no host"))
        } else {
            Ok(Self::Tcp { host: host.to_owned(), port })
        }
    }

    /// What pymemcache's `HashClient` calls it.
    fn name(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix { path } => path.clone(),
        }
    }

    /// As the client wants it.
    fn url(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => format!("tcp://{host}:{port}"),
            Self::Unix { path } => format!("unix://{path}"),
        }
    }
}

/// Pools of connections to one memcached server or several.
///
/// Cheap to clone; clones share the pools.
#[derive(Clone)]
pub struct MemcachedCache {
    servers: Arc<Servers>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

struct Servers {
    pools: Vec<Pool>,
    routing: Routing,
    key_prefix: String,
    /// From how many bytes on values are compressed.
    compress_above: Option<usize>,
}

impl fmt::Debug for MemcachedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.servers.pools.iter().map(|pool| &pool.address).collect();
        f.debug_struct("MemcachedCache").field("servers", &addresses).finish_non_exhaustive()
    }
}

impl MemcachedCache {
    /// The cache that a Django project has with these settings. Connections are made when they are needed, so that a site
    /// starts also while one of its servers is down.
    ///
    /// # Errors
    /// [`CacheError::Settings`] if there is no server, or one that cannot be understood.
    pub fn open(settings: &MemcachedSettings) -> Result<Self, CacheError> {
        let (servers, limits) = (settings.servers()?, settings.limits()?);
        let pools =
            servers.iter().map(|server| Pool::new(server.url(), limits, settings.max_pool_size.max(1)));
        let compresses = settings.serde == Serde::Compressed && settings.min_compress_len > 0;
        let servers = Servers {
            pools: pools.collect(),
            routing: settings.routing(&servers),
            key_prefix: settings.key_prefix.clone(),
            compress_above: compresses.then_some(settings.min_compress_len),
        };
        Ok(Self { servers: Arc::new(servers), clock: Arc::new(Timestamp::now) })
    }

    /// Connects to one server, at an address as in Django's `LOCATION`: `127.0.0.1:11211` or `unix:/path`. More
    /// connections are made when they are needed.
    ///
    /// # Errors
    /// When nothing answers there within the limit, and as [`open`](Self::open).
    pub async fn connect(address: &str, limits: TimeLimits) -> Result<Self, CacheError> {
        let mut settings = MemcachedSettings::new([address]);
        settings.connect_timeout = limits.connect.as_secs_f64();
        settings.timeout = limits.response.as_secs_f64();
        let cache = Self::open(&settings)?;
        for pool in &cache.servers.pools {
            let connection = pool.open().await?;
            pool.idle().push(connection);
        }
        Ok(cache)
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The timeout as memcached reads it (`BaseMemcachedCache.get_backend_timeout`).
    fn exptime(&self, timeout: Option<Duration>) -> i64 {
        match timeout.map(|timeout| timeout.as_secs()) {
            None => 0,
            // To memcached 0 is for ever, and what is negative is over at once.
            Some(0) => -1,
            Some(seconds @ ..=THIRTY_DAYS) => seconds as i64,
            Some(seconds) => (self.clock)().as_second().saturating_add_unsigned(seconds),
        }
    }

    /// With `ME`, `MS` or `MR` for a mode, or the number that the value must still have.
    async fn store(
        &self,
        mode: &str,
        key: &str,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<bool, CacheError> {
        let (value, flags) = self.servers.encode(value);
        let (exptime, flags) = (format!("T{}", self.exptime(timeout)), format!("F{flags}"));
        let command = Command::Store { value: &value, flags: [mode, &exptime, &flags] };
        Ok(self.servers.run(key, &command).await?.is_some())
    }
}

impl Servers {
    /// The server that the key belongs to.
    fn server(&self, key: &str) -> usize {
        if self.pools.len() > 1 { self.routing.server(key) } else { 0 }
    }

    /// Runs a command on the server that the key belongs to.
    async fn run(&self, key: &str, command: &Command<'_>) -> Result<Option<Found>, CacheError> {
        let server = self.server(key);
        let key = match self.key_prefix.is_empty() {
            true => Cow::Borrowed(key),
            false => Cow::Owned(format!("{}{key}", self.key_prefix)),
        };
        validate_key(&key)?;
        self.pools[server].run(&key, command).await
    }

    /// A pickle as it is stored, with its flags (`CompressedSerde.serialize`).
    fn encode<'a>(&self, pickle: &'a [u8]) -> (Cow<'a, [u8]>, u32) {
        if self.compress_above.is_some_and(|above| pickle.len() > above) {
            let compressed = zlib::compress(pickle);
            if compressed.len() <= pickle.len() {
                return (compressed.into(), PICKLE | ZLIB);
            }
        }
        (pickle.into(), PICKLE)
    }
}

/// What `mg` gives.
#[derive(Default)]
struct Found {
    value: Vec<u8>,
    flags: u32,
    /// 0 if it was not asked for, or memcached does not number its values.
    number: u64,
    /// Nothing if it was not asked for, or the value never ends.
    life: Option<Duration>,
}

impl Found {
    /// The pickle.
    fn decode(self) -> Result<Vec<u8>, CacheError> {
        match self.flags {
            PICKLE => Ok(self.value),
            flags if flags == PICKLE | ZLIB => zlib::decompress(&self.value, DEFAULT_MAX_INFLATED)
                .map_err(|_| CacheError::Unreadable("it does not inflate, or to more than 16 MiB")),
            flags => Err(CacheError::Flags { flags, what: meaning(flags) }),
        }
    }
}

/// In the order in which pymemcache asks.
fn meaning(flags: u32) -> &'static str {
    const KNOWN: u32 = PICKLE | INTEGER | LONG | ZLIB | TEXT;
    match flags & !ZLIB {
        0 => "bytes",
        _ if flags & !KNOWN != 0 => "something unknown",
        _ if flags & TEXT != 0 => "a text",
        _ if flags & (INTEGER | LONG) != 0 => "an integer",
        _ => "something unknown",
    }
}

#[async_trait]
impl Cache for MemcachedCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        self.store("ME", key, value, timeout).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        self.servers.run(key, &Command::Get { flags: &["v", "f"] }).await?.map(Found::decode).transpose()
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        self.store("MS", key, value, timeout).await?;
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        self.store("MR", key, value, timeout).await
    }

    fn can_swap(&self) -> bool {
        true
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn look(&self, key: &str) -> Result<Option<Seen>, CacheError> {
        let Some(found) = self.servers.run(key, &Command::Get { flags: &["v", "f", "c"] }).await? else {
            return Ok(None);
        };
        let version = Version { server: self.servers.server(key), number: found.number };
        Ok(Some(Seen { value: found.decode()?, version: Some(version) }))
    }

    /// One command if `before` was looked at, two if its number is not known; and one more if it is another by now.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn swap(
        &self,
        key: &str,
        before: Option<&Seen>,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Swapped, CacheError> {
        let server = self.servers.server(key);
        let known = before.and_then(|before| before.version).filter(|version| version.server == server);
        let number = match known {
            Some(version) => version.number,
            None => match self.look(key).await? {
                None => return Ok(Swapped::Missing),
                Some(now) if before.is_some_and(|before| before.value == now.value) => {
                    now.version.map_or(0, |version| version.number)
                }
                Some(now) => return Ok(Swapped::Differs(now)),
            },
        };
        if number == 0 {
            return Err(CacheError::Settings(NO_NUMBERS.to_owned()));
        }
        match self.store(&format!("C{number}"), key, value, timeout).await {
            Ok(true) => Ok(Swapped::Done),
            Ok(false) => Ok(Swapped::Missing),
            Err(CacheError::Memcached(Error::Protocol(Status::Exists))) => {
                Ok(self.look(key).await?.map_or(Swapped::Missing, Swapped::Differs))
            }
            Err(error) => Err(error),
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        Ok(self.servers.run(key, &Command::Delete).await?.is_some())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        let exptime = format!("T{}", self.exptime(timeout));
        // The size is asked for because the client takes an answer without anything in it for a miss.
        Ok(self.servers.run(key, &Command::Get { flags: &[&exptime, "s"] }).await?.is_some())
    }

    /// All keys of a server at once: the cursor is its place among them. A server may hold what is looked for on another.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn scan(
        &self,
        head: &str,
        cursor: &str,
        _: usize,
    ) -> Result<(Vec<String>, Option<String>), CacheError> {
        let pools = &self.servers.pools;
        let server: usize = cursor.parse().unwrap_or_default();
        let Some(pool) = pools.get(server) else { return Ok((Vec::new(), None)) };
        let keys = listing::keys(&pool.address, pool.limits).await?;
        let keys = keys.iter().filter_map(|key| key.strip_prefix(self.servers.key_prefix.as_str()));
        let keys = keys.filter(|key| key.starts_with(head)).map(str::to_owned).collect();
        let next = server + 1;
        Ok((keys, (next < pools.len()).then(|| next.to_string())))
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, CacheError> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let found = self.servers.run(key, &Command::Get { flags: &["v", "f", "t"] }).await?;
            let entry =
                found.map(|found| Ok::<_, CacheError>(Entry { life: found.life, value: found.decode()? }));
            entries.push(entry.transpose()?);
        }
        Ok(entries)
    }
}

enum Command<'a> {
    /// `mg`. Not `get`, whose answer repeats the key, and whose parser fails where that is not ASCII.
    Get { flags: &'a [&'a str] },
    /// `ms`: set (flag `MS`), add (`ME`), replace (`MR`), or set where the value still has a number (`C7`).
    Store { value: &'a [u8], flags: [&'a str; 3] },
    /// `delete`.
    Delete,
}

impl Command<'_> {
    /// `None` when the key is missing, or taken, so that the command did nothing.
    async fn send(&self, client: &mut Client, key: &str) -> Result<Option<Found>, Error> {
        let done = match self {
            Self::Get { flags } => {
                let found = client.meta_get(key, false, None, Some(flags)).await?;
                return Ok(found.map(|found| Found {
                    value: found.data.unwrap_or_default(),
                    flags: found.flags.unwrap_or_default(),
                    number: found.cas.unwrap_or_default(),
                    life: found.ttl_remaining.and_then(|life| life.try_into().ok()).map(Duration::from_secs),
                }));
            }
            Self::Store { value, flags } => {
                client.meta_set(key, *value, false, None, Some(flags)).await.map(drop)
            }
            Self::Delete => client.delete(key).await,
        };
        match done {
            Ok(()) => Ok(Some(Found::default())),
            Err(Error::Protocol(Status::NotStored | Status::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Pool {
    address: String,
    limits: TimeLimits,
    /// One permit for each connection in use.
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
}

impl Pool {
    fn new(address: String, limits: TimeLimits, max_connections: usize) -> Self {
        Self { address, limits, permits: Semaphore::new(max_connections), idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Client, CacheError> {
        within(self.limits.connect, Client::new(&self.address)).await
    }

    /// Runs a command on a connection that nobody else uses meanwhile.
    async fn run(&self, key: &str, command: &Command<'_>) -> Result<Option<Found>, CacheError> {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = async { Ok(self.permits.acquire().await.expect("never closed")) };
                within(self.limits.connect, permit).await?
            }
        };
        let idle = self.idle().pop();
        if let Some(client) = idle {
            match self.run_on(client, key, command).await {
                // The server ended the connection since the last command (a restart, its idle timeout), and the other
                // idle ones with it. Should the command have arrived all the same, then the worst is an `add` that
                // meets its own value and calls the key taken, or a `swap` that finds it there and is tried again.
                Err(CacheError::Memcached(Error::Io(_))) => self.idle().clear(),
                answer => return answer,
            }
            let answer = self.run_on(self.open().await?, key, command).await?;
            // Of a `delete` that finds nothing there is no telling whether it was this very one.
            let is_deleted = matches!(command, Command::Delete);
            return Ok(answer.or_else(|| is_deleted.then(Found::default)));
        }
        self.run_on(self.open().await?, key, command).await
    }

    /// Keeps the connection for the next one only with a whole answer: a late answer must not meet another's question.
    async fn run_on(
        &self,
        mut client: Client,
        key: &str,
        command: &Command<'_>,
    ) -> Result<Option<Found>, CacheError> {
        let answer = within(self.limits.response, command.send(&mut client, key)).await;
        if !client.is_closed() {
            self.idle().push(client);
        }
        match (answer, command) {
            (
                Err(CacheError::Memcached(Error::Protocol(Status::Error(ErrorKind::Server(why))))),
                Command::Store { value, .. },
            ) if why.contains("too large") => Err(CacheError::TooLarge { size: value.len() }),
            (answer, _) => answer,
        }
    }
}

async fn within<T>(limit: Duration, action: impl Future<Output = Result<T, Error>>) -> Result<T, CacheError> {
    match time::timeout(limit, action).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CacheError::TimedOut { limit }),
    }
}

/// Django's `memcache_key_warnings`, which count characters where memcached counts bytes.
fn validate_key(key: &str) -> Result<(), CacheError> {
    let is_good = key.len() <= MAX_KEY_LENGTH && !key.bytes().any(|byte| matches!(byte, 0..=b' ' | 0x7f));
    if is_good { Ok(()) } else { Err(CacheError::InvalidKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_the_libraries_read_them() {
        let tcp = |host: &str, port| Server::Tcp { host: host.to_owned(), port };
        let unix = |path: &str| Server::Unix { path: path.to_owned() };
        for (address, server, name, url) in [
            ("127.0.0.1:11211", tcp("127.0.0.1", 11211), "127.0.0.1:11211", "tcp://127.0.0.1:11211"),
            (
                "cache.example",
                tcp("cache.example", 11211),
                "cache.example:11211",
                "tcp://cache.example:11211",
            ),
            ("[::1]:11212", tcp("::1", 11212), "::1:11212", "tcp://[::1]:11212"),
            ("[::1]", tcp("::1", 11211), "::1:11211", "tcp://[::1]:11211"),
            (
                "unix:/tmp/memcached.sock",
                unix("/tmp/memcached.sock"),
                "/tmp/memcached.sock",
                "unix:///tmp/memcached.sock",
            ),
            (
                "/tmp/memcached.sock",
                unix("/tmp/memcached.sock"),
                "/tmp/memcached.sock",
                "unix:///tmp/memcached.sock",
            ),
        ] {
            for library in [Library::Pymemcache, Library::Pylibmc] {
                let parsed = Server::parse(address, library).unwrap();
                assert_eq!((&parsed, parsed.name().as_str(), parsed.url().as_str()), (&server, name, url));
            }
        }
        for address in ["", ":11211", "host:port", "host:70000"] {
            let error = Server::parse(address, Library::Pymemcache).unwrap_err();
            assert!(matches!(error, CacheError::Settings(_)), "{address}: {error:?}");
        }
        for address in ["udp:127.0.0.1:11211", "127.0.0.1:11211:2"] {
            assert!(Server::parse(address, Library::Pylibmc).is_err(), "{address}");
        }
    }

    #[test]
    fn flags_are_named() {
        for (flags, what) in [
            (0, "bytes"),
            (2, "an integer"),
            (4, "an integer"),
            (16, "a text"),
            (8, "bytes"),
            (33, "something unknown"),
        ] {
            assert_eq!(meaning(flags), what, "{flags}");
        }
    }
}
