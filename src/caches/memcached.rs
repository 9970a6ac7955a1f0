//! memcached, as Django's `PyMemcacheCache` uses it (feature `memcached`). Needs memcached 1.6 or newer.
//!
//! One server: routing over several, as pymemcache does it, comes with the cache engines.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::memcached::MemcachedCache;
//! use django_sessions::caches::{Cache, KeyLayout, TimeLimits};
//!
//! let cache = MemcachedCache::connect("127.0.0.1:11211", TimeLimits::default()).await?;
//! let key = KeyLayout::default().make_key("greeting");
//! cache.set(&key, b"hello", Some(Duration::from_secs(60))).await?;
//! assert_eq!(cache.get(&key).await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_memcached::{AsciiProtocol, Client, Error, MetaProtocol, Status};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time;

use super::{Cache, CacheError, TimeLimits};

/// Longer timeouts are moments in memcached's protocol, not durations.
const THIRTY_DAYS: u64 = 60 * 60 * 24 * 30;

/// Connections that are open at once, by default.
const MAX_CONNECTIONS: usize = 10;

const MAX_KEY_LENGTH: usize = 250;

/// A pool of connections to one memcached server.
///
/// Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct MemcachedCache {
    pool: Arc<Pool>,
    flags: u32,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for MemcachedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedCache").field("address", &self.pool.address).finish_non_exhaustive()
    }
}

impl MemcachedCache {
    /// Connects to an address as in Django's `LOCATION`: `127.0.0.1:11211` or `unix:/path`. More connections are made
    /// when they are needed.
    ///
    /// # Errors
    /// When nothing answers there within the limit.
    pub async fn connect(address: &str, limits: TimeLimits) -> Result<Self, CacheError> {
        let pool = Pool::new(address, limits, MAX_CONNECTIONS);
        let connection = pool.open().await?;
        pool.idle().push(connection);
        Ok(Self { pool: Arc::new(pool), flags: 0, clock: Arc::new(Timestamp::now) })
    }

    /// Sets the flags that are stored with each value: 0 says bytes to pymemcache, and is the default, 1 a pickle.
    #[must_use]
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
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

    async fn store(
        &self,
        mode: &str,
        key: &str,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<bool, CacheError> {
        let (exptime, flags) = (format!("T{}", self.exptime(timeout)), format!("F{}", self.flags));
        let command = Command::Store { value, flags: [mode, &exptime, &flags] };
        Ok(self.pool.run(key, &command).await?.is_some())
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
        self.pool.run(key, &Command::Get { flags: &["v"] }).await
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

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        Ok(self.pool.run(key, &Command::Delete).await?.is_some())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        let exptime = format!("T{}", self.exptime(timeout));
        // The size is asked for because the client takes an answer without anything in it for a miss.
        Ok(self.pool.run(key, &Command::Get { flags: &[&exptime, "s"] }).await?.is_some())
    }
}

enum Command<'a> {
    /// `mg`. Not `get`, whose answer repeats the key, and whose parser fails where that is not ASCII.
    Get { flags: &'a [&'a str] },
    /// `ms`: set (flag `MS`), add (`ME`) or replace (`MR`).
    Store { value: &'a [u8], flags: [&'a str; 3] },
    /// `delete`.
    Delete,
}

impl Command<'_> {
    /// `None` when the key is missing, or taken, so that the command did nothing.
    async fn send(&self, client: &mut Client, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let done = match self {
            Self::Get { flags } => {
                let found = client.meta_get(key, false, None, Some(flags)).await?;
                return Ok(found.map(|value| value.data.unwrap_or_default()));
            }
            Self::Store { value, flags } => {
                client.meta_set(key, *value, false, None, Some(flags)).await.map(drop)
            }
            Self::Delete => client.delete(key).await,
        };
        match done {
            Ok(()) => Ok(Some(Vec::new())),
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
    fn new(address: &str, limits: TimeLimits, max_connections: usize) -> Self {
        // The client reads URLs only, and of `127.0.0.1:11211` would say that it is none.
        let address = match address.strip_prefix("unix:") {
            Some(path) => format!("unix://{}", path.strip_prefix("//").unwrap_or(path)),
            None if address.contains("://") => address.to_owned(),
            None => format!("tcp://{address}"),
        };
        Self { address, limits, permits: Semaphore::new(max_connections), idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Client, CacheError> {
        within(self.limits.connect, Client::new(&self.address)).await
    }

    /// Runs a command on a connection that nobody else uses meanwhile.
    async fn run(&self, key: &str, command: &Command<'_>) -> Result<Option<Vec<u8>>, CacheError> {
        validate_key(key)?;
        let permit = async { Ok(self.permits.acquire().await.expect("never closed")) };
        let _permit = within(self.limits.connect, permit).await?;
        let idle = self.idle().pop();
        if let Some(client) = idle {
            match self.run_on(client, key, command).await {
                // The server ended the connection since the last command (a restart, its idle timeout), and the other
                // idle ones with it. Should the command have arrived all the same, then the worst is an `add` that
                // meets its own value and calls the key taken.
                Err(CacheError::Memcached(Error::Io(_))) => self.idle().clear(),
                answer => return answer,
            }
        }
        self.run_on(self.open().await?, key, command).await
    }

    /// Keeps the connection for the next one only with a whole answer: a late answer must not meet another's question.
    async fn run_on(
        &self,
        mut client: Client,
        key: &str,
        command: &Command<'_>,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let answer = within(self.limits.response, command.send(&mut client, key)).await;
        if !client.is_closed() {
            self.idle().push(client);
        }
        answer
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
    fn addresses_as_django_writes_them() {
        for (address, url) in [
            ("127.0.0.1:11211", "tcp://127.0.0.1:11211"),
            ("cache.example:11211", "tcp://cache.example:11211"),
            ("unix:/tmp/memcached.sock", "unix:///tmp/memcached.sock"),
            ("unix:///tmp/memcached.sock", "unix:///tmp/memcached.sock"),
            ("tcp://cache.example:11211", "tcp://cache.example:11211"),
        ] {
            assert_eq!(Pool::new(address, TimeLimits::default(), 1).address, url);
        }
    }
}
