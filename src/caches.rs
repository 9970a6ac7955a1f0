//! Caches that sessions can be kept in, as in `django.core.cache.backends` (features `redis`, `memcached`, `filebased`,
//! `locmem`; the database cache comes with `sqlite`, `postgres` and `mysql`).
//!
//! [`Cache`] holds bytes under keys that [`KeyLayout`] makes as Django does. Django's caches pickle what they store: the
//! bytes are that pickle, and each cache brings the wrapping that Django gives it there (memcached's flags, base64 in a
//! table, zlib in a file).
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

#[cfg(feature = "_sql")]
pub mod db;
#[cfg(feature = "filebased")]
pub mod filebased;
pub mod format;
#[cfg(feature = "locmem")]
pub mod locmem;
#[cfg(feature = "memcached")]
pub mod memcached;
#[cfg(feature = "redis")]
pub mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use crate::session::merge::Seen;
#[cfg(feature = "memcached")]
use crate::session::merge::Version;

/// What stands before a session's key in `django.contrib.sessions.backends.cache` (its `KEY_PREFIX`).
pub const CACHE_KEY_PREFIX: &str = "django.contrib.sessions.cache";

/// What stands before a session's key in `django.contrib.sessions.backends.cached_db` (its `KEY_PREFIX`).
pub const CACHED_DB_KEY_PREFIX: &str = "django.contrib.sessions.cached_db";

/// `KEY_PREFIX`, `VERSION` and `KEY_FUNCTION` of one of Django's `CACHES`; by default none, 1 and Django's own.
#[derive(Clone)]
pub struct KeyLayout {
    key_prefix: String,
    /// As Python shows it, for that is how it comes into the keys.
    version: String,
    /// What Django's own function puts before each key.
    head: String,
    function: Option<Arc<KeyFunction>>,
}

type KeyFunction = dyn Fn(&str, &str, &str) -> String + Send + Sync;

impl KeyLayout {
    /// The layout of a cache with these two settings. The version is mostly a number; where it is none, what Python's `str()`
    /// makes of it.
    ///
    /// ```
    /// use django_sessions::caches::KeyLayout;
    ///
    /// assert_eq!(KeyLayout::new("shop", 2).make_key("greeting"), "shop:2:greeting");
    /// // "VERSION": os.environ.get("CACHE_VERSION"), which is not set
    /// assert_eq!(KeyLayout::new("shop", "None").make_key("greeting"), "shop:None:greeting");
    /// ```
    pub fn new(key_prefix: impl Into<String>, version: impl fmt::Display) -> Self {
        let (key_prefix, version) = (key_prefix.into(), version.to_string());
        let head = format!("{key_prefix}:{version}:");
        Self { key_prefix, version, head, function: None }
    }

    /// Makes keys with `function` in place of Django's, for a project with a `KEY_FUNCTION`. It gets what Django's gets:
    /// the key, the prefix and the version.
    ///
    /// ```
    /// use django_sessions::caches::KeyLayout;
    ///
    /// // def make_key(key, key_prefix, version):
    /// //     return f"{key_prefix}/v{version}/{key}"
    /// let layout = KeyLayout::new("shop", 2).with_function(|key, prefix, version| format!("{prefix}/v{version}/{key}"));
    /// assert_eq!(layout.make_key("greeting"), "shop/v2/greeting");
    /// ```
    #[must_use]
    pub fn with_function(
        mut self,
        function: impl Fn(&str, &str, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.function = Some(Arc::new(function));
        self
    }

    /// The key as the server knows it (`django.core.cache.backends.base.default_key_func`).
    pub fn make_key(&self, key: &str) -> String {
        self.make_key_of(key, "")
    }

    /// The key of these two parts.
    pub(crate) fn make_key_of(&self, prefix: &str, key: &str) -> String {
        match &self.function {
            Some(function) => function(&[prefix, key].concat(), &self.key_prefix, &self.version),
            None => [&self.head, prefix, key].concat(),
        }
    }
}

impl fmt::Debug for KeyLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLayout")
            .field("key_prefix", &self.key_prefix)
            .field("version", &self.version)
            .field("has_function", &self.function.is_some())
            .finish()
    }
}

/// Of two functions only one and the same is equal.
impl PartialEq for KeyLayout {
    fn eq(&self, other: &Self) -> bool {
        let functions_agree = match (&self.function, &other.function) {
            (None, None) => true,
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            _ => false,
        };
        functions_agree && self.key_prefix == other.key_prefix && self.version == other.version
    }
}

impl Eq for KeyLayout {}

impl Default for KeyLayout {
    fn default() -> Self {
        Self::new("", 1)
    }
}

/// How long to wait for a server before giving up.
///
/// A request waits for its session, so a server that is gone must be found out soon: one second each by default.
///
/// ```
/// use django_sessions::caches::TimeLimits;
/// use std::time::Duration;
///
/// let limits = TimeLimits { response: Duration::from_millis(200), ..TimeLimits::default() };
/// assert_eq!(limits.connect, Duration::from_secs(1));
/// ```
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
    /// The cache takes no such key: memcached none of more than 250 bytes, nor one with spaces or control characters, and
    /// a cache table none of more than 255 characters. Django: `InvalidCacheKey`, from memcached, which its engines take
    /// for a missing session when they load. The key is not shown: it can be a login.
    #[error("the cache takes no such key: it is too long, or has spaces or control characters")]
    InvalidKey,
    /// The server takes no value of this size; memcached's limit is 1 MB unless `-I` says otherwise. What was under the
    /// key before is gone then too: memcached sees to that, so that no older value is taken for the saved one.
    #[error("the cache server takes no value of {size} bytes")]
    TooLarge {
        /// Of the value, in bytes.
        size: usize,
    },
    /// What is stored there is no value that Django's cache of this kind writes for a session. Django: some exception or
    /// other, which its engines take for a missing session when they load.
    #[error("what the cache holds under the key cannot be read: {0}")]
    Unreadable(&'static str),
    /// memcached holds something there whose flags do not say that it is a pickle.
    #[error("what memcached holds under the key is {what} by its flags ({flags}), not a pickle")]
    Flags {
        /// As stored.
        flags: u32,
        /// What pymemcache or pylibmc would read it as.
        what: &'static str,
    },
    /// There was no connection, or no answer, within the [`TimeLimits`].
    #[error("the cache server took longer than {limit:?}")]
    TimedOut {
        /// The limit that ran out.
        limit: Duration,
    },
    /// The server cannot tell which keys it has.
    #[error("the cache cannot be listed: {0}")]
    Unlisted(&'static str),
    /// The cache's settings cannot be used as they are.
    #[error("{0}")]
    Settings(String),
    /// Redis refused the login, or what this user wants to do.
    #[cfg(feature = "redis")]
    #[error("Redis refuses: {advice}")]
    Login {
        /// What to do about it.
        advice: &'static str,
        /// What Redis said. It never repeats a password.
        source: ::redis::RedisError,
    },
    /// Redis refused, or could not be reached.
    #[cfg(feature = "redis")]
    #[error("Redis failed")]
    Redis(#[from] ::redis::RedisError),
    /// memcached refused, or could not be reached.
    #[cfg(feature = "memcached")]
    #[error("memcached failed")]
    Memcached(#[from] async_memcached::Error),
    /// The database refused, or could not be reached.
    #[cfg(feature = "_sql")]
    #[error("the database of the cache table failed")]
    Database(#[from] sqlx::Error),
    /// A file could not be read or written.
    #[error("the cache's files could not be read or written")]
    Io(#[from] std::io::Error),
}

/// A value, and how long it has to live.
///
/// ```
/// use django_sessions::caches::Entry;
///
/// let entry = Entry { value: b"1".to_vec(), life: None };
/// assert!(entry.life.is_none(), "for ever");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is stored.
    pub value: Vec<u8>,
    /// For how long it will be there; `None` is for ever.
    pub life: Option<Duration>,
}

/// What came of [`Cache::swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The value has taken the place of what was given.
    Done,
    /// There is no such key. Nothing changed.
    Missing,
    /// Something else is there, which is this; or the same, but written anew. Nothing changed.
    Differs(Seen),
}

/// A server that keeps bytes under keys for some time.
///
/// Keys are the server's own: see [`KeyLayout::make_key`]. A timeout of `None` is for ever. With one of 0 nothing is
/// kept: `set`, `replace` and `touch` then take away what is there, as Django's timeouts of 0 and below. Fractions of a
/// second are as in Django's cache of the kind: Redis and memcached cut them off (so that less than a second is 0), the
/// database cache rounds the end down to a second, files and the in-process map keep them.
///
/// Object-safe, and shared by all requests. A call that is dropped before its end disturbs no other.
///
/// ```
/// # #[cfg(feature = "locmem")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use django_sessions::caches::Cache;
/// use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
///
/// let cache: &dyn Cache = &LocMemCache::open(&LocMemSettings::default())?;
/// assert!(!cache.replace(":1:visits", b"1", None).await?, "nothing is there");
/// assert!(cache.add(":1:visits", b"1", Some(Duration::from_secs(60))).await?);
/// assert!(!cache.add(":1:visits", b"2", None).await?, "taken");
/// assert!(cache.delete(":1:visits").await?);
/// # Ok(()) }
/// # #[cfg(not(feature = "locmem"))]
/// # fn main() {}
/// ```
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

    /// Whether this cache does [`swap`](Self::swap).
    fn can_swap(&self) -> bool {
        false
    }

    /// As [`get`](Self::get), with what [`swap`](Self::swap) needs to know the value again.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn look(&self, key: &str) -> Result<Option<Seen>, CacheError> {
        Ok(self.get(key).await?.map(Seen::from))
    }

    /// Stores `value` in place of exactly `before`, in one step. Redis and memcached do that here.
    ///
    /// Redis compares the values. memcached compares the numbers that it gives them: of a `before` that did not come from
    /// [`look`](Self::look) it is asked for the number first.
    ///
    /// ```no_run
    /// # #[cfg(feature = "redis")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::caches::redis::{RedisCache, RedisSettings};
    /// use django_sessions::caches::{Cache, Swapped};
    ///
    /// let cache = RedisCache::open(&RedisSettings::new("redis://127.0.0.1:6379/1")).await?;
    /// cache.set(":1:a", b"1", None).await?;
    /// let seen = cache.look(":1:a").await?.expect("it is there");
    /// assert_eq!(cache.swap(":1:a", None, b"2", None).await?, Swapped::Differs(seen.clone()));
    /// assert_eq!(cache.swap(":1:a", Some(&seen), b"2", None).await?, Swapped::Done);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "redis"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// Each [`CacheError`]; [`CacheError::Settings`] if this cache cannot do that.
    async fn swap(
        &self,
        key: &str,
        before: Option<&Seen>,
        value: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Swapped, CacheError> {
        let _unused = (key, before, value, timeout);
        Err(CacheError::Settings("this cache cannot replace a value only if it is still the same".to_owned()))
    }

    /// Takes the value away. Returns whether there was one; also `true` if there is no telling, for the connection broke off
    /// before the answer, and the one who asks again finds none.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn delete(&self, key: &str) -> Result<bool, CacheError>;

    /// Gives the value under `key` another timeout. Returns whether there is one.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError>;

    /// As [`add`](Self::add), but a life is never cut: where the cache has whole seconds only, it is one second longer.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn add_exactly(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<bool, CacheError> {
        self.add(
            key,
            value,
            life.map(|life| Duration::from_secs(life.as_nanos().div_ceil(1_000_000_000) as u64)),
        )
        .await
    }

    /// Some keys that begin with `head`, about `count` (of memcached all that a server has), from `cursor` on, and from where
    /// to go on. The beginning is `""`, and the end `None`. A key may come twice.
    ///
    /// # Errors
    /// Each [`CacheError`]; [`CacheError::Unlisted`] from those that cannot, as a file cache.
    async fn scan(
        &self,
        _head: &str,
        _cursor: &str,
        _count: usize,
    ) -> Result<(Vec<String>, Option<String>), CacheError> {
        Err(CacheError::Unlisted("only Redis, memcached and cache tables can say which keys they have"))
    }

    /// What is under each of these keys. Caches that do not tell how long a value lives say that it does for ever.
    ///
    /// # Errors
    /// Each [`CacheError`].
    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, CacheError> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.push(self.get(key).await?.map(|value| Entry { value, life: None }));
        }
        Ok(entries)
    }
}

/// When a value ends that is stored `now`, in seconds since 1970 (`BaseCache.get_backend_timeout`). With a timeout of 0
/// that is a second ago, so that no clock's grain keeps it alive.
#[cfg(any(feature = "filebased", feature = "locmem"))]
fn ends_at(now: f64, timeout: Option<Duration>) -> Option<f64> {
    timeout.map(|timeout| if timeout.is_zero() { now - 1.0 } else { now + timeout.as_secs_f64() })
}
