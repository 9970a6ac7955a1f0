//! Caches that sessions can be kept in, as in `django.core.cache.backends` (features `redis`, `memcached`).
//!
//! [`Cache`] holds bytes under keys that [`KeyLayout`] makes as Django does. Django's caches pickle what they store;
//! reading and writing those pickles comes with the cache engines, in a later release.
//!
//! ```
//! use django_sessions::caches::{CACHED_DB_KEY_PREFIX, CACHE_KEY_PREFIX, KeyLayout};
//!
//! // CACHES = {"default": {"BACKEND": ..., "LOCATION": ...}}
//! let session = format!("{CACHE_KEY_PREFIX}jf8x0zq3a7k2");
//! assert_eq!(KeyLayout::default().make_key(&session), ":1:django.contrib.sessions.cachejf8x0zq3a7k2");
//!
//! // CACHES = {"default": {..., "KEY_PREFIX": "shop", "VERSION": 2}}
//! let session = format!("{CACHED_DB_KEY_PREFIX}jf8x0zq3a7k2");
//! assert_eq!(KeyLayout::new("shop", 2).make_key(&session), "shop:2:django.contrib.sessions.cached_dbjf8x0zq3a7k2");
//! ```

#[cfg(feature = "memcached")]
pub mod memcached;
#[cfg(feature = "redis")]
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

/// What stands before a session's key in `django.contrib.sessions.backends.cache` (its `KEY_PREFIX`).
pub const CACHE_KEY_PREFIX: &str = "django.contrib.sessions.cache";

/// What stands before a session's key in `django.contrib.sessions.backends.cached_db` (its `KEY_PREFIX`).
pub const CACHED_DB_KEY_PREFIX: &str = "django.contrib.sessions.cached_db";

/// `KEY_PREFIX` and `VERSION` of one of Django's `CACHES`; by default none, and 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLayout {
    key_prefix: String,
    version: i64,
}

impl KeyLayout {
    /// The layout of a cache with these two settings.
    pub fn new(key_prefix: impl Into<String>, version: i64) -> Self {
        Self { key_prefix: key_prefix.into(), version }
    }

    /// The key as the server knows it (`django.core.cache.backends.base.default_key_func`).
    pub fn make_key(&self, key: &str) -> String {
        format!("{}:{}:{key}", self.key_prefix, self.version)
    }
}

impl Default for KeyLayout {
    fn default() -> Self {
        Self::new("", 1)
    }
}

/// How long to wait for a server before giving up.
///
/// A request waits for its session, so a server that is gone must be found out soon: one second each by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until a command is answered.
    pub response: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), response: Duration::from_secs(1) }
    }
}

/// Why a cache did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// memcached takes no such key. Django: `InvalidCacheKey`. The key is not shown: it can be a login.
    #[error("memcached takes no key of more than 250 bytes, nor one with spaces or control characters")]
    InvalidKey,
    /// There was no connection, or no answer, within the [`TimeLimits`].
    #[error("the cache server took longer than {limit:?}")]
    TimedOut {
        /// The limit that ran out.
        limit: Duration,
    },
    /// Redis refused, or could not be reached.
    #[cfg(feature = "redis")]
    #[error("Redis failed")]
    Redis(#[from] ::redis::RedisError),
    /// memcached refused, or could not be reached. It refuses values over its limit, 1 MB unless `-I` says otherwise.
    #[cfg(feature = "memcached")]
    #[error("memcached failed")]
    Memcached(#[from] async_memcached::Error),
}

/// A server that keeps bytes under keys for some time.
///
/// Keys are the server's own: see [`KeyLayout::make_key`]. Timeouts are whole seconds, fractions are cut, and `None` is
/// for ever. With less than a second nothing is kept: `set`, `replace` and `touch` then take away what is there, as
/// Django's timeouts of 0 and below.
///
/// Object-safe, and shared by all requests. A call that is dropped before its end disturbs no other.
#[async_trait]
pub trait Cache: Send + Sync {
    /// Stores `value`, unless there is one under `key`: then nothing changes and the answer is `false`.
    ///
    /// # Errors
    /// Each [`CacheError`], as for all operations.
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError>;

    /// The value under `key`, if there is one. An empty value is one.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError>;

    /// Stores `value`, whatever was there.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError>;

    /// Stores `value` in place of the one under `key`. If there is none, nothing changes and the answer is `false`.
    /// Django has no such operation; it asks first and then sets, and so brings back what was deleted between the two.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError>;

    /// Takes the value away. Returns whether there was one.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn delete(&self, key: &str) -> Result<bool, CacheError>;

    /// Gives the value under `key` another timeout. Returns whether there is one.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError>;
}
