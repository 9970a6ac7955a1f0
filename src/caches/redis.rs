//! Redis or Valkey, as Django's `RedisCache` uses it (feature `redis`).
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::redis::RedisCache;
//! use django_sessions::caches::{Cache, KeyLayout, TimeLimits};
//!
//! let cache = RedisCache::connect("redis://127.0.0.1:6379/1", TimeLimits::default()).await?;
//! let key = KeyLayout::default().make_key("visits");
//! assert!(cache.add(&key, b"1", Some(Duration::from_secs(60))).await?);
//! assert!(!cache.add(&key, b"2", None).await?, "taken");
//! # Ok(()) }
//! ```

use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ExistenceCheck, FromRedisValue, cmd};

use super::{Cache, CacheError, TimeLimits};

/// One connection to a Redis server, over which all requests talk at once.
///
/// Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct RedisCache {
    connection: ConnectionManager,
}

impl RedisCache {
    /// A cache over a connection that the caller has.
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection }
    }

    /// Connects to an address as in Django's `LOCATION`: `redis://user:password@host:6379/1`, `unix:///path?db=1`.
    ///
    /// # Errors
    /// When the address cannot be read, or no Redis answers there within the limit.
    pub async fn connect(url: &str, limits: TimeLimits) -> Result<Self, CacheError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(limits.connect))
            .set_response_timeout(Some(limits.response))
            // One attempt a command: with the default of six, requests would wait for seconds on a server that is gone.
            .set_number_of_retries(0);
        Ok(Self::new(ConnectionManager::new_with_config(Client::open(url)?, config).await?))
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        let mut connection = self.connection.clone();
        match command.query_async(&mut connection).await {
            // The server ended the connection since the last command (a restart, its idle timeout); the manager makes
            // another. Should the command have arrived all the same, then the worst is an `add` that meets its own
            // value and calls the key taken.
            Err(error) if error.is_connection_dropped() => Ok(command.query_async(&mut connection).await?),
            answer => Ok(answer?),
        }
    }

    /// `SET` with its conditions, in one round trip.
    async fn store(
        &self,
        key: &str,
        value: &[u8],
        seconds: Option<u64>,
        only_if: Option<ExistenceCheck>,
    ) -> Result<bool, CacheError> {
        let mut command = cmd("SET");
        command.arg(key).arg(value).arg(only_if);
        if let Some(seconds) = seconds {
            command.arg("EX").arg(seconds);
        }
        self.query(&command).await
    }
}

/// What Redis takes after `EX`, where 0 is an error.
fn seconds(timeout: Option<Duration>) -> Option<u64> {
    timeout.map(|timeout| timeout.as_secs())
}

#[async_trait]
impl Cache for RedisCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            // Nothing is to be kept, so nothing is stored; the answer is what `SET NX` would have said.
            Some(0) => Ok(!self.query::<bool>(cmd("EXISTS").arg(key)).await?),
            seconds => self.store(key, value, seconds, Some(ExistenceCheck::NX)).await,
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        self.query(cmd("GET").arg(key)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await?,
            seconds => self.store(key, value, seconds, None).await?,
        };
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await,
            seconds => self.store(key, value, seconds, Some(ExistenceCheck::XX)).await,
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        self.query(cmd("DEL").arg(key)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        match seconds(timeout) {
            Some(0) => self.delete(key).await,
            Some(seconds) => self.query(cmd("EXPIRE").arg(key).arg(seconds)).await,
            // `PERSIST` alone, as Django has it, says no for a key that has no timeout already.
            None => match self.query(cmd("PERSIST").arg(key)).await? {
                true => Ok(true),
                false => self.query(cmd("EXISTS").arg(key)).await,
            },
        }
    }
}
