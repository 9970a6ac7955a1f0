//! Sessions in a table with a cache before it, as Django's `django.contrib.sessions.backends.cached_db` keeps them.
//!
//! The table is the truth. A load asks the cache first and fills it from the table; a save goes to both. Where the cache
//! fails the table goes on alone, and nobody is logged out when the cache is flushed.
//!
//! ```no_run
//! # #[cfg(all(feature = "redis", feature = "postgres"))]
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::{SessionStore, cache::CacheStore, cached_db::CachedDbStore, db::DbStore};
//! use django_sessions::caches::{KeyLayout, format::Format, redis::RedisCache};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! use django_sessions::settings::Settings;
//!
//! let settings = Arc::new(Settings::new(SecretKeys::new("the site's SECRET_KEY")));
//! let cache = Arc::new(RedisCache::connect("redis://127.0.0.1:6379/1", Default::default()).await?);
//! let cache = CacheStore::new(cache, KeyLayout::default(), Format::django(), settings.clone());
//! let store = CachedDbStore::new(cache, DbStore::connect("postgres://site@127.0.0.1/site", settings).await?);
//!
//! let mut session = Session::new();
//! session.insert("cart", &["tea"])?;
//! store.save(&mut session).await?;
//! # Ok(()) }
//! # #[cfg(not(all(feature = "redis", feature = "postgres")))]
//! # fn main() {}
//! ```

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tracing::Instrument;

use super::cache::CacheStore;
use super::db::DbStore;
use super::fallback::to_its_end;
use super::manage::{Listing, ManagedStore, PruneOptions, PruneProgress, StoredSession, Which};
use super::{SessionStore, StoreError};
use crate::caches::CACHED_DB_KEY_PREFIX;
use crate::session::{Session, SessionKey};
use crate::settings::Settings;

/// Where Django logs what its cache did not do.
macro_rules! log_failure {
    ($key:expr, $error:expr, $what:literal) => {{
        let error: &dyn std::error::Error = &$error;
        tracing::error!(target: "django.contrib.sessions", key = ?$key, error, $what)
    }};
}

/// The cached_db engine: made of the cache engine, whose keys begin with [`CACHED_DB_KEY_PREFIX`] here, and the db engine.
///
/// Values that only a pickle can hold are refused at a save, as Django refuses them, for the table holds JSON.
///
/// A session that is deleted or saved while another request loads it does not come back as it was through the cache: who
/// fills the cache looks at the row again afterwards. Whoever is cancelled leaves the table as it was or as it was to be,
/// and takes the session out of the cache, in a task of its own.
///
/// Cheap to clone; clones share the cache and the pool.
#[derive(Clone, Debug)]
pub struct CachedDbStore {
    cache: CacheStore,
    db: DbStore,
}

impl CachedDbStore {
    /// A store of these two, which have the same settings.
    pub fn new(cache: CacheStore, db: DbStore) -> Self {
        let cache = cache.with_default_key_prefix(CACHED_DB_KEY_PREFIX);
        Self { cache, db }
    }

    /// Takes the time from `clock` in place of the system's, for tests. The time of the cache is its own.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let clock = Arc::new(clock);
        let of_cache = clock.clone();
        Self { cache: self.cache.with_clock(move || of_cache()), db: self.db.with_clock(move || clock()) }
    }

    /// The settings of the database's part.
    pub fn settings(&self) -> &Arc<Settings> {
        self.db.settings()
    }

    /// Ends a write to the cache. Where that failed, what is there is old, and `cleanup` takes it out.
    fn wrote_to_cache(&self, key: &SessionKey, written: Result<(), StoreError>, cleanup: Cleanup) {
        match written {
            Ok(()) => cleanup.done(),
            Err(error) => log_failure!(key, error, "Error saving to cache"),
        }
    }

    /// The session in the table, which then is in the cache too.
    async fn load_from_db(&self, key: &SessionKey, over: bool) -> Result<Session, StoreError> {
        let Some(row) = self.db.row(key).await? else { return Ok(Session::new()) };
        let mut session = self.db.decode(key, &row)?;
        let life = Duration::try_from(row.expire_date.duration_since(self.db.now())).unwrap_or_default();
        let cleanup = self.cleanup(key);
        match self.cache.fill(key, &session, life, over).await {
            Ok(bytes) => match self.db.row(key).await? {
                Some(now) if now == row => {
                    session.note_cached(Some(bytes.into()));
                    cleanup.done();
                }
                // Saved or deleted since it was read: what is in the cache now may never have been the last word.
                Some(_) if self.merges() => self.cache.block(key).await?,
                _ => drop(self.cache.delete(key).await?),
            },
            Err(error) => log_failure!(key, error, "Error saving to cache"),
        }
        Ok(session)
    }

    /// Takes the session out of the cache if the caller is cancelled before [`Cleanup::done`]: what is there may differ from
    /// the table.
    fn cleanup(&self, key: &SessionKey) -> Cleanup {
        Cleanup { store: Some((self.clone(), key.clone())) }
    }
}

struct Cleanup {
    store: Option<(CachedDbStore, SessionKey)>,
}

impl Cleanup {
    fn done(mut self) {
        self.store = None;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (Some((store, key)), Ok(runtime)) = (self.store.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let cleanup = async move {
            if let Err(error) = store.cache.delete(&key).await {
                log_failure!(key, error, "Error deleting from cache");
            }
        };
        runtime.spawn(cleanup.in_current_span());
    }
}

#[async_trait]
impl SessionStore for CachedDbStore {
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        match self.cache.exists(key).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => log_failure!(key, error, "Session not read from the cache"),
        }
        self.db.exists(key).await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let cleanup = self.cleanup(key);
        let inserted = self.db.insert(key, session).await;
        match inserted {
            Ok(true) => self.wrote_to_cache(key, self.cache.set(key, session).await, cleanup),
            _ => cleanup.done(),
        }
        inserted
    }

    /// The table first, then the cache. What the cache does not do is logged.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let cleanup = self.cleanup(key);
        let updated = self.db.update(key, session).await;
        match updated {
            // Only in the place of what is there: whoever has just deleted the row takes it out of the cache, and it stays
            // out. What the cache has lost by itself comes back with the next load.
            Ok(true) => self.wrote_to_cache(key, self.cache.update(key, session).await.map(drop), cleanup),
            // It may still be in the cache, from which it would be loaded and could never be saved again.
            Ok(false) => drop(cleanup),
            Err(_) => cleanup.done(),
        }
        updated
    }

    fn merges(&self) -> bool {
        self.db.merges()
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        if !self.merges() {
            return self.update(key, session).await;
        }
        let cleanup = self.cleanup(key);
        let replaced = self.db.replace(key, session).await;
        match replaced {
            Ok(true) => self.wrote_to_cache(key, self.cache.renew(key, session).await, cleanup),
            Ok(false) => drop(cleanup),
            Err(_) => cleanup.done(),
        }
        replaced
    }

    /// The session in the cache, or else in the table, from which the cache is filled for the life that it still has.
    ///
    /// Where the cache has an object that JSON has not, as a `QueryDict` or an enum, the table has what Python made of it
    /// there: that can be read, and saved again.
    ///
    /// # Errors
    /// When the database fails. What the cache does not do is logged.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        match self.cache.get(key, self.merges()).await {
            Ok(Some((data, _))) if !data.has_json() => match self.db.row(key).await? {
                Some(row) => self.db.decode(key, &row),
                None => Ok(Session::new()),
            },
            Ok(Some((data, seen))) => {
                let mut session = Session::with_data(Some(key.clone()), data);
                if self.merges() {
                    session.note(None);
                    session.note_cached(seen);
                }
                Ok(session)
            }
            Ok(None) => self.load_from_db(key, false).await,
            Err(error) => {
                log_failure!(key, error, "Session not read from the cache");
                self.load_from_db(key, true).await
            }
        }
    }

    /// # Errors
    /// When either fails, as in Django: a session that is not out of the cache would still be loaded from there.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        let (store, key) = (self.clone(), key.clone());
        // The table may take its time, in which others fill the cache from it: that is emptied after the row is gone.
        to_its_end(async move {
            match store.db.delete(&key).await {
                Ok(deleted) => store.cache.delete(&key).await.map(|_| deleted),
                Err(error) => {
                    // The row may go yet, and nobody should fill the cache with it until it has.
                    if let Err(error) = store.cache.block(&key).await {
                        log_failure!(key, error, "Error deleting from cache");
                    }
                    Err(error)
                }
            }
        })
        .await
    }

    /// Those of the table. The cache drops what is over by itself.
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.db.clear_expired().await
    }
}

/// The table's sessions. The cache has copies of them.
#[async_trait]
impl ManagedStore for CachedDbStore {
    fn list(&self, which: Which, limit: usize, from: &str) -> Box<dyn Listing> {
        self.db.list(which, limit, from)
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.db.count().await
    }

    async fn count_expired(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.db.count_expired(older_than).await
    }

    async fn find(&self, name: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        self.db.find(name).await
    }

    async fn insert_until(
        &self,
        name: &SessionKey,
        session: &Session,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        self.db.insert_until(name, session, ends).await
    }

    async fn prune(
        &self,
        options: PruneOptions,
        report: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError> {
        self.db.prune(options, report).await
    }
}
