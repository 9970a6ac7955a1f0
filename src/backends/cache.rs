//! Sessions in a cache, as Django's `django.contrib.sessions.backends.cache` keeps them.
//!
//! A cache holds the session's dict itself, unsigned, through the cache's serializer: a pickle with Django's own caches. So
//! it also holds what JSON cannot, such as dates and tuples, and what nobody touches goes back as it came.
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::{SessionStore, cache::CacheStore};
//! use django_sessions::caches::{KeyLayout, format::Format, redis::RedisCache};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! use django_sessions::settings::Settings;
//!
//! let cache = Arc::new(RedisCache::connect("redis://127.0.0.1:6379/1", Default::default()).await?);
//! let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let store = CacheStore::new(cache, KeyLayout::default(), Format::django(), settings);
//!
//! let mut session = Session::new();
//! session.insert("cart", &["tea"])?;
//! store.save(&mut session).await?;
//! # Ok(()) }
//! # #[cfg(not(feature = "redis"))]
//! # fn main() {}
//! ```

mod manage;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{SessionStore, StoreError};
use crate::caches::format::Format;
use crate::caches::{CACHE_KEY_PREFIX, Cache, CacheError, KeyLayout, Seen, Swapped};
use crate::session::{Data, Session, SessionKey, merge};
use crate::settings::Settings;

/// How many keys are drawn for a new session (Django's number): a cache may fail without a word, and then each seems taken.
const CREATE_TRIES: u32 = 10_000;

/// Within which who has read the table has filled the cache of cached_db, or will not.
#[cfg(feature = "_sql")]
const GRACE: Duration = Duration::from_secs(10);

/// The cache engine: sessions as values of one of Django's caches, which ends them by itself.
///
/// Each operation is one command, so a cancelled one was done or not, and nothing between the two. Cheap to clone; clones
/// share the cache.
#[derive(Clone)]
pub struct CacheStore {
    cache: Arc<dyn Cache>,
    keys: KeyLayout,
    key_prefix: Option<Cow<'static, str>>,
    format: Format,
    settings: Arc<Settings>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for CacheStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheStore")
            .field("keys", &self.keys)
            .field("key_prefix", &self.key_prefix)
            .field("format", &self.format)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CacheStore {
    /// A store over `cache`, whose keys and values are those of the alias in Django's `CACHES`.
    pub fn new(
        cache: Arc<dyn Cache>,
        keys: KeyLayout,
        format: Format,
        settings: impl Into<Arc<Settings>>,
    ) -> Self {
        let settings = settings.into();
        Self { cache, keys, key_prefix: None, format, settings, clock: Arc::new(Timestamp::now) }
    }

    /// Puts `prefix` before a session's key in place of [`CACHE_KEY_PREFIX`]: the `cache_key_prefix` of an engine class of
    /// the project's own.
    #[must_use]
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = Some(prefix.into().into());
        self
    }

    /// Takes the time from `clock` in place of the system's, for tests. The time of the cache is its own.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The settings that this store was made with.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The same with another prefix, unless the caller has set one.
    #[cfg(feature = "_sql")]
    pub(super) fn with_default_key_prefix(mut self, prefix: &'static str) -> Self {
        self.key_prefix.get_or_insert(prefix.into());
        self
    }

    fn key(&self, key: &SessionKey) -> String {
        let prefix = self.key_prefix.as_deref().unwrap_or(CACHE_KEY_PREFIX);
        self.keys.make_key_of(prefix, key.as_str())
    }

    fn dumps(&self, session: &Session) -> Result<Vec<u8>, StoreError> {
        Ok(self.format.dumps(&session.values_to_store(self.settings.naive_time_zone()))?)
    }

    /// Seconds of life that the session has; none if it is over.
    fn timeout(&self, session: &Session) -> Result<Option<Duration>, StoreError> {
        let age = session.expiry_age(&self.settings, (self.clock)())?;
        Ok(Some(Duration::from_secs(u64::try_from(age).unwrap_or(0))))
    }

    /// The values under `key`, and if they are wanted, the bytes that hold them. A key that the cache takes for none is one
    /// that nobody stored.
    pub(super) async fn get(
        &self,
        key: &SessionKey,
        wants_bytes: bool,
    ) -> Result<Option<(Data, Option<Seen>)>, StoreError> {
        let found = match self.merges() {
            true => self.cache.look(&self.key(key)).await,
            false => self.cache.get(&self.key(key)).await.map(|found| found.map(Seen::from)),
        };
        match found {
            Ok(Some(seen)) if self.format.is_none(&seen.value) => Ok(None),
            Ok(Some(seen)) if wants_bytes => Ok(Some((self.format.loads(&seen.value)?, Some(seen)))),
            Ok(Some(seen)) => Ok(Some((self.format.loads_from(seen.value.into())?, None))),
            Ok(None) | Err(CacheError::InvalidKey) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(feature = "_sql")]
    pub(super) async fn set(&self, key: &SessionKey, session: &Session) -> Result<(), StoreError> {
        let bytes = self.dumps(session)?;
        Ok(self.cache.set(&self.key(key), &bytes, self.timeout(session)?).await?)
    }

    /// Stores a session that another store has, for the life that it still has. `over` what is there, if that cannot be
    /// read; otherwise not, for another request may have saved it since.
    #[cfg(feature = "_sql")]
    pub(super) async fn fill(
        &self,
        key: &SessionKey,
        session: &Session,
        timeout: Duration,
        over: bool,
    ) -> Result<Vec<u8>, StoreError> {
        let (name, bytes) = (self.key(key), self.dumps(session)?);
        match over {
            true => self.cache.set(&name, &bytes, Some(timeout)).await?,
            false => drop(self.cache.add(&name, &bytes, Some(timeout)).await?),
        }
        Ok(bytes)
    }

    /// After the table. The cache must not stay older: if it is not what we know, it has to go.
    #[cfg(feature = "_sql")]
    pub(super) async fn renew(&self, key: &SessionKey, session: &mut Session) -> Result<(), StoreError> {
        if let Some(before) = session.cached().filter(|_| self.cache.can_swap()) {
            let (bytes, timeout) = (self.dumps(session)?, self.timeout(session)?);
            if self.cache.swap(&self.key(key), Some(before), &bytes, timeout).await? == Swapped::Done {
                session.note_cached(Some(bytes.into()));
                return Ok(());
            }
        }
        session.note_cached(None);
        self.block(key).await
    }

    /// Puts `None` in the session's place, which Django too reads as nothing: over it no request can fill the cache with
    /// what it read from the table before.
    #[cfg(feature = "_sql")]
    pub(super) async fn block(&self, key: &SessionKey) -> Result<(), StoreError> {
        Ok(self.cache.set(&self.key(key), self.format.none(), Some(GRACE)).await?)
    }
}

#[async_trait]
impl SessionStore for CacheStore {
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        match self.cache.get(&self.key(key)).await {
            Ok(found) => Ok(found.is_some_and(|bytes| !self.format.is_none(&bytes))),
            Err(CacheError::InvalidKey) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (bytes, timeout) = (self.dumps(session)?, self.timeout(session)?);
        Ok(self.cache.add(&self.key(key), &bytes, timeout).await?)
    }

    /// In one command, where Django asks first and then stores: what is deleted between the two stays deleted here.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (bytes, timeout) = (self.dumps(session)?, self.timeout(session)?);
        Ok(self.cache.replace(&self.key(key), &bytes, timeout).await?)
    }

    fn merges(&self) -> bool {
        self.settings.merge && self.cache.can_swap()
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        if !self.merges() {
            return self.update(key, session).await;
        }
        let name = self.key(key);
        for attempt in 0..merge::TRIES {
            let (bytes, timeout) = (self.dumps(session)?, self.timeout(session)?);
            if !session.has_base() {
                let is_there = self.cache.replace(&name, &bytes, timeout).await?;
                session.note(Some(bytes.into()));
                return Ok(is_there);
            }
            // After a while what is there is not what we know, and has to be asked for.
            let before = if merge::pause(attempt).await { None } else { session.stored() };
            match self.cache.swap(&name, before, &bytes, timeout).await? {
                Swapped::Done => {
                    session.note(Some(bytes.into()));
                    return Ok(true);
                }
                Swapped::Missing => return Ok(false),
                Swapped::Differs(now) => {
                    if !session.rebase(self.format.loads(&now.value)?, now) {
                        return Ok(false);
                    }
                }
            }
        }
        Err(StoreError::Conflict { tries: merge::TRIES })
    }

    /// The session in the cache.
    ///
    /// # Errors
    /// [`StoreError::Cache`] when the cache fails, and [`StoreError::Format`] when what it holds cannot be read. In both cases
    /// Django goes on with a session without a key.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        Ok(match self.get(key, self.merges()).await? {
            Some((data, seen)) => {
                let mut session = Session::with_data(Some(key.clone()), data);
                if seen.is_some() {
                    session.note(seen);
                }
                session
            }
            None => Session::new(),
        })
    }

    /// As in Django, what cannot be read is a session without a key. The cause is logged to `django.contrib.sessions`.
    ///
    /// # Errors
    /// When the cache fails. Django goes on without the session then, and the visitor seems to be logged out.
    async fn load_or_empty(&self, key: &SessionKey) -> Result<Session, StoreError> {
        match self.load(key).await {
            Err(
                error @ (StoreError::Format(_)
                | StoreError::Cache(CacheError::Unreadable(_) | CacheError::Flags { .. })),
            ) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(target: "django.contrib.sessions", ?key, error, "Session not read from the cache");
                Ok(Session::new())
            }
            loaded => loaded,
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        match self.cache.delete(&self.key(key)).await {
            Ok(deleted) => Ok(deleted),
            Err(CacheError::InvalidKey) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// 0: caches drop what is over by themselves.
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// # Errors
    /// As the others, and [`StoreError::NoFreeKey`] when ten thousand keys seem taken.
    async fn create(&self, session: &mut Session) -> Result<(), StoreError> {
        for _ in 0..CREATE_TRIES {
            let key = SessionKey::random()?;
            if self.insert(&key, session).await? {
                session.set_key(Some(key));
                session.mark_modified();
                if self.merges() {
                    session.note_values();
                }
                return Ok(());
            }
        }
        Err(StoreError::NoFreeKey)
    }
}
