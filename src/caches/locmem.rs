//! A map in this process with the rules of Django's `LocMemCache`, for tests (feature `locmem`).
//!
//! Django's lives in one process too: nothing that is stored here is seen by a Django site, nor by another process of the
//! same service, and all of it is gone when the process ends. Keep no real sessions in it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::Cache;
//! use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
//!
//! let cache = LocMemCache::open(&LocMemSettings::default())?;
//! cache.set(":1:greeting", b"hello", Some(Duration::from_secs(60))).await?;
//! assert_eq!(cache.get(":1:greeting").await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(()) }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Cache, CacheError, ends_at};

/// What Django's settings say of a `LocMemCache`.
///
/// ```
/// use django_sessions::caches::locmem::LocMemSettings;
/// assert_eq!(LocMemSettings::default().max_entries, 300);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LocMemSettings {
    /// `LOCATION`, the name of the map. Django's caches of one name share their values; here clones of one cache do.
    pub location: String,
    /// `MAX_ENTRIES`: 300. From that many on, some are taken away before another is stored.
    pub max_entries: u64,
    /// `CULL_FREQUENCY`: 3, for a third of them, the least recently used; 0 for all.
    pub cull_frequency: u64,
}

impl Default for LocMemSettings {
    fn default() -> Self {
        Self { location: String::new(), max_entries: 300, cull_frequency: 3 }
    }
}

/// Values in this process, for tests.
///
/// Cheap to clone; clones share the values.
#[derive(Clone)]
pub struct LocMemCache {
    entries: Arc<Mutex<Entries>>,
    max_entries: u64,
    cull_frequency: u64,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for LocMemCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocMemCache")
            .field("max_entries", &self.max_entries)
            .field("cull_frequency", &self.cull_frequency)
            .finish_non_exhaustive()
    }
}

/// What is stored, and in which order it was used: the lowest number is the longest ago.
#[derive(Default)]
struct Entries {
    by_key: HashMap<String, Entry>,
    by_use: BTreeMap<u64, String>,
    uses: u64,
}

struct Entry {
    value: Vec<u8>,
    ends: Option<f64>,
    used: u64,
}

impl Entry {
    fn is_over(&self, now: f64) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

impl Entries {
    fn has_live(&self, key: &str, now: f64) -> bool {
        self.by_key.get(key).is_some_and(|entry| !entry.is_over(now))
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let entry = self.by_key.remove(key)?;
        self.by_use.remove(&entry.used);
        Some(entry)
    }

    /// `entry` under `key`, as the last one used.
    fn insert(&mut self, key: &str, mut entry: Entry) {
        self.remove(key);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(entry.used, key.to_owned());
        self.by_key.insert(key.to_owned(), entry);
    }

    fn cull(&mut self, frequency: u64) {
        if frequency == 0 {
            self.by_key.clear();
            self.by_use.clear();
            return;
        }
        for _ in 0..self.by_key.len() as u64 / frequency {
            let Some((_, key)) = self.by_use.pop_first() else { return };
            self.by_key.remove(&key);
        }
    }
}

impl LocMemCache {
    /// An empty map. `location` is not looked at: clone the cache to share its values.
    ///
    /// # Errors
    /// None today.
    pub fn open(settings: &LocMemSettings) -> Result<Self, CacheError> {
        Ok(Self {
            entries: Arc::default(),
            max_entries: settings.max_entries,
            cull_frequency: settings.cull_frequency,
            clock: Arc::new(Timestamp::now),
        })
    }

    /// Takes the time from `clock` in place of the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        (self.clock)().as_duration().as_secs_f64()
    }

    fn store(&self, entries: &mut Entries, key: &str, value: &[u8], timeout: Option<Duration>) {
        if entries.by_key.len() as u64 >= self.max_entries {
            entries.cull(self.cull_frequency);
        }
        let ends = ends_at(self.now(), timeout);
        entries.insert(key, Entry { value: value.to_owned(), ends, used: 0 });
    }
}

#[async_trait]
impl Cache for LocMemCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        let mut entries = self.entries();
        if entries.has_live(key, self.now()) {
            return Ok(false);
        }
        self.store(&mut entries, key, value, timeout);
        Ok(true)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let mut entries = self.entries();
        let now = self.now();
        let Some(entry) = entries.remove(key).filter(|entry| !entry.is_over(now)) else { return Ok(None) };
        let value = entry.value.clone();
        entries.insert(key, entry);
        Ok(Some(value))
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        self.store(&mut self.entries(), key, value, timeout);
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        let mut entries = self.entries();
        if !entries.has_live(key, self.now()) {
            return Ok(false);
        }
        self.store(&mut entries, key, value, timeout);
        Ok(true)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        Ok(self.entries().remove(key).is_some())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        let now = self.now();
        match self.entries().by_key.get_mut(key).filter(|entry| !entry.is_over(now)) {
            Some(entry) => entry.ends = ends_at(now, timeout),
            None => return Ok(false),
        }
        Ok(true)
    }
}
