//! The cache table of Django's `DatabaseCache` (with the features `sqlite`, `postgres`, `mysql`).
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::backends::db::Pool;
//! use django_sessions::caches::Cache;
//! use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};
//!
//! let pool = Pool::connect("sqlite::memory:").await?;
//! # let sqlite = pool.sqlite().unwrap();
//! # sqlx::query("CREATE TABLE django_cache (cache_key TEXT PRIMARY KEY, value TEXT, expires TEXT)").execute(sqlite).await?;
//!
//! // CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "django_cache"}}
//! let cache = DbCache::new(pool, &DatabaseCacheSettings::new("django_cache"));
//! cache.set(":1:greeting", b"\x80\x04\x8c\x05hello.", Some(Duration::from_secs(60))).await?;
//! assert!(cache.get(":1:greeting").await?.is_some());
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! `manage.py createcachetable` makes the table. Each call is one statement that decides and writes at once, so that two
//! callers never undo each other and what was deleted does not come back; only making room, as Django does it before it
//! stores, takes more of them. A statement that the database gave up because of a deadlock or a conflict of transactions
//! had no effect and is run again, twice at most; then, and after every other failure, there is an error. (Django
//! swallows what fails while it stores: its callers then believe that the value is saved.)

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{Cache, CacheError, Entry};
use crate::backends::db::{Pool, Vendor};

/// How often a statement is run that deadlocks.
const TRIES: u32 = 3;

/// What fits into the column `cache_key`, in characters.
const MAX_KEY_LENGTH: usize = 255;

/// Python's `datetime.max` without its microseconds: for ever.
const FOR_EVER: &str = "9999-12-31 23:59:59";

/// What Django's settings say of a `DatabaseCache`.
///
/// ```
/// use django_sessions::caches::db::DatabaseCacheSettings;
/// assert_eq!(DatabaseCacheSettings::new("django_cache").max_entries, 300);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseCacheSettings {
    /// `LOCATION`: the name of the table. It has no default.
    pub location: String,
    /// The alias in `DATABASES` of the database with that table, which in Django is for the routers to say: `default`.
    pub database: String,
    /// `MAX_ENTRIES`: 300. With more rows than that, some are deleted before another is stored.
    pub max_entries: u64,
    /// `CULL_FREQUENCY`: 3, for a third of those that have not ended yet, in the order of their keys; 0 for all rows.
    pub cull_frequency: u64,
}

impl Default for DatabaseCacheSettings {
    fn default() -> Self {
        Self { location: String::new(), database: "default".to_owned(), max_entries: 300, cull_frequency: 3 }
    }
}

impl DatabaseCacheSettings {
    /// Django's defaults, for a table of this name.
    pub fn new(location: impl Into<String>) -> Self {
        Self { location: location.into(), ..Self::default() }
    }
}

/// The statements, made once. The parameters of each stand in its order.
struct Statements {
    count: String,
    get: String,
    insert: String,
    set: String,
    add: String,
    replace: String,
    touch: String,
    delete: String,
    delete_expired: String,
    cull_expired: String,
    cull_below: String,
    cull_below_but: String,
    clear: String,
    clear_but: String,
    nth_key: String,
    scan: String,
    entries: String,
}

impl Statements {
    fn new(pool: &Pool, table: &str) -> Self {
        let table = pool.quote_name(table);
        let text = |number| pool.parameter(number, None);
        let moment = |number| pool.parameter(number, Some("timestamptz"));
        // MySQL's collations take "A" for "a", which neither Django nor its clients do. The second comparison is exact,
        // and the first finds the row by its index.
        let key_is = |number: usize| match pool.vendor() {
            Vendor::MySql => "cache_key = ? AND CAST(cache_key AS BINARY) = ?".to_owned(),
            _ => format!("cache_key = {}", text(number)),
        };
        let insert = format!("(cache_key, value, expires) VALUES ({}, {}, {})", text(1), text(2), moment(3));
        let update = "DO UPDATE SET value = excluded.value, expires = excluded.expires";
        Self {
            count: match pool.vendor() {
                Vendor::MySql => format!("SELECT CAST(COUNT(*) AS CHAR) FROM {table}"),
                Vendor::Sqlite | Vendor::Postgres => format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}"),
            },
            get: format!(
                "SELECT CASE WHEN expires < {} THEN NULL ELSE value END FROM {table} WHERE {}",
                moment(1),
                key_is(2)
            ),
            insert: format!("INSERT INTO {table} {insert}"),
            set: match pool.vendor() {
                Vendor::MySql => format!(
                    "INSERT INTO {table} {insert} \
                     ON DUPLICATE KEY UPDATE value = VALUES(value), expires = VALUES(expires)"
                ),
                _ => format!("INSERT INTO {table} {insert} ON CONFLICT (cache_key) {update}"),
            },
            add: match pool.vendor() {
                // What `insert` leaves to do when the key is taken.
                Vendor::MySql => {
                    format!("UPDATE {table} SET value = ?, expires = ? WHERE {} AND expires < ?", key_is(3))
                }
                _ => format!(
                    "INSERT INTO {table} AS entry {insert} ON CONFLICT (cache_key) {update} WHERE entry.expires < {}",
                    moment(4)
                ),
            },
            replace: format!(
                "UPDATE {table} SET value = {}, expires = {} WHERE expires >= {} AND {}",
                text(1),
                moment(2),
                moment(3),
                key_is(4)
            ),
            touch: format!(
                "UPDATE {table} SET expires = {} WHERE expires >= {} AND {}",
                moment(1),
                moment(2),
                key_is(3)
            ),
            delete: format!("DELETE FROM {table} WHERE {}", key_is(1)),
            delete_expired: format!("DELETE FROM {table} WHERE expires < {} AND {}", moment(1), key_is(2)),
            cull_expired: format!("DELETE FROM {table} WHERE expires < {}", moment(1)),
            cull_below: format!("DELETE FROM {table} WHERE cache_key < {}", text(1)),
            cull_below_but: format!(
                "DELETE FROM {table} WHERE cache_key < {} AND cache_key <> {}",
                text(1),
                text(2)
            ),
            clear: format!("DELETE FROM {table}"),
            clear_but: format!("DELETE FROM {table} WHERE cache_key <> {}", text(1)),
            nth_key: format!("SELECT cache_key FROM {table} ORDER BY cache_key LIMIT 1 OFFSET "),
            scan: format!(
                "SELECT cache_key FROM {table} WHERE cache_key LIKE {} ESCAPE '!' AND cache_key > {} \
                 ORDER BY cache_key LIMIT ",
                text(1),
                text(2)
            ),
            entries: format!(
                "SELECT cache_key, value, {} FROM {table} WHERE expires >= {} AND cache_key IN ",
                pool.read_moment("expires"),
                moment(1)
            ),
        }
    }
}

/// Values as rows of a cache table.
///
/// Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct DbCache {
    pool: Pool,
    statements: Arc<Statements>,
    max_entries: u64,
    cull_frequency: u64,
    time_zone: TimeZone,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for DbCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbCache")
            .field("max_entries", &self.max_entries)
            .field("cull_frequency", &self.cull_frequency)
            .finish_non_exhaustive()
    }
}

impl DbCache {
    /// A cache in a table of the pool's database.
    pub fn new(pool: impl Into<Pool>, settings: &DatabaseCacheSettings) -> Self {
        let pool = pool.into();
        Self {
            statements: Arc::new(Statements::new(&pool, &settings.location)),
            pool,
            max_entries: settings.max_entries,
            cull_frequency: settings.cull_frequency,
            time_zone: TimeZone::UTC,
            clock: Arc::new(Timestamp::now),
        }
    }

    /// Reads and writes moments in this zone, that of [`Settings::time_zone`](crate::settings::Settings::time_zone).
    /// Otherwise in UTC, as Django with `USE_TZ = True`.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.time_zone = time_zone;
        self
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The pool that this cache uses.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A moment as Django writes it into a column of this database.
    fn moment(&self, moment: Timestamp) -> String {
        self.pool.moment(moment, &self.time_zone)
    }

    fn for_ever(&self) -> String {
        match self.pool.vendor() {
            // Django hands it over without a zone, to be read in that of the connection.
            Vendor::Postgres => format!("{FOR_EVER} {}", self.time_zone.iana_name().unwrap_or("UTC")),
            _ => FOR_EVER.to_owned(),
        }
    }

    /// What the column `expires` is to hold: a whole second, rounded down.
    fn expires(&self, now: Timestamp, timeout: Option<Duration>) -> String {
        let ends = match timeout {
            None => None,
            Some(Duration::ZERO) => now.checked_sub(SignedDuration::from_secs(1)).ok(),
            Some(timeout) => now.checked_add(timeout).ok(),
        };
        // Beyond the year 9999 is for ever; Django's `datetime` ends there with an error.
        ends.map_or_else(|| self.for_ever(), |ends| self.moment(whole_second(ends)))
    }

    /// Whether a row can have this key at all.
    fn can_hold(&self, key: &str) -> bool {
        match self.pool.vendor() {
            Vendor::Sqlite => true,
            Vendor::Postgres => !key.contains('\0') && key.chars().count() <= MAX_KEY_LENGTH,
            Vendor::MySql => key.chars().count() <= MAX_KEY_LENGTH,
        }
    }

    /// The parameters, with those of a key at the end as often as the database's `key_is` asks for them.
    fn with_key<'a>(&self, parameters: &[&'a str], key: &'a str) -> Vec<&'a str> {
        let times = match self.pool.vendor() {
            Vendor::MySql => 2,
            _ => 1,
        };
        parameters.iter().copied().chain(std::iter::repeat_n(key, times)).collect()
    }

    /// Runs a statement that gives no rows, and tells how many it touched.
    async fn execute(&self, statement: &str, parameters: &[&str]) -> Result<u64, sqlx::Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let done = self.pool.execute(statement, parameters).await;
            match done {
                Err(error) if tries < TRIES && is_rolled_back(&error) => {}
                done => return done,
            }
        }
    }

    /// The key and the value in a row, unless it is not one that Django writes.
    fn entry(&self, row: Vec<Option<String>>, now: Timestamp) -> Option<(String, Entry)> {
        let [key, value, expires]: [_; 3] = row.try_into().ok()?;
        let (key, value, expires) = (key?, value?, expires?);
        let ends = self.pool.parse_moment(&expires, &self.time_zone);
        let life = ends.map(|ends| Duration::try_from(ends.duration_since(now)).unwrap_or_default());
        let life = life.filter(|_| !expires.starts_with(&FOR_EVER[..10]));
        Some((key, Entry { value: STANDARD.decode(value).ok()?, life }))
    }

    async fn count(&self) -> Result<u64, sqlx::Error> {
        let count = self.pool.fetch(&self.statements.count, &[]).await?.flatten();
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// Deletes rows if there are more than `MAX_ENTRIES` (`DatabaseCache._cull`), but not the one of `spared`: Django
    /// writes that anew.
    async fn make_room(&self, now: Timestamp, spared: Option<&str>) -> Result<(), sqlx::Error> {
        let count = self.count().await?;
        if count <= self.max_entries {
            return Ok(());
        }
        let statements = &self.statements;
        if self.cull_frequency == 0 {
            match spared {
                Some(key) => self.execute(&statements.clear_but, &[key]).await?,
                None => self.execute(&statements.clear, &[]).await?,
            };
            return Ok(());
        }
        let expired = self.execute(&statements.cull_expired, &[&self.moment(whole_second(now))]).await?;
        let left = count.saturating_sub(expired);
        if left <= self.max_entries {
            return Ok(());
        }
        let nth_key = format!("{}{}", statements.nth_key, left / self.cull_frequency);
        if let Some(last) = self.pool.fetch(&nth_key, &[]).await?.flatten() {
            match spared {
                Some(key) => self.execute(&statements.cull_below_but, &[&last, key]).await?,
                None => self.execute(&statements.cull_below, &[&last]).await?,
            };
        }
        Ok(())
    }
}

fn whole_second(moment: Timestamp) -> Timestamp {
    // Of a moment that is one already, fewer nanoseconds are one too.
    Timestamp::from_second(moment.as_nanosecond().div_euclid(1_000_000_000) as i64).unwrap_or(moment)
}

/// Whether the database says that the statement had no effect and may succeed when it is run again: a deadlock, or a
/// conflict of transactions.
fn is_rolled_back(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

#[async_trait]
impl Cache for DbCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        if !self.can_hold(key) {
            return Err(CacheError::InvalidKey);
        }
        let now = self.now();
        self.make_room(now, None).await?;
        let (value, expires) = (STANDARD.encode(value), self.expires(now, timeout));
        let (statements, over) = (&self.statements, self.moment(whole_second(now)));
        let rows = match self.pool.vendor() {
            Vendor::MySql => match self.execute(&statements.insert, &[key, &value, &expires]).await {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                    self.execute(&statements.add, &[&value, &expires, key, key, &over]).await?
                }
                inserted => inserted?,
            },
            _ => self.execute(&statements.add, &[key, &value, &expires, &over]).await?,
        };
        Ok(rows > 0)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        if !self.can_hold(key) {
            return Ok(None);
        }
        let now = self.moment(self.now());
        let parameters = self.with_key(&[&now], key);
        match self.pool.fetch(&self.statements.get, &parameters).await? {
            None => Ok(None),
            Some(None) => {
                // Over. Only what still is: somebody may have stored another value since.
                self.execute(&self.statements.delete_expired, &parameters).await?;
                Ok(None)
            }
            Some(Some(value)) => match STANDARD.decode(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(CacheError::Unreadable("it is no base64")),
            },
        }
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        if !self.can_hold(key) {
            return Err(CacheError::InvalidKey);
        }
        let now = self.now();
        self.make_room(now, Some(key)).await?;
        let (value, expires) = (STANDARD.encode(value), self.expires(now, timeout));
        self.execute(&self.statements.set, &[key, &value, &expires]).await?;
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        if !self.can_hold(key) {
            return Ok(false);
        }
        let now = self.now();
        let (value, expires, live) = (STANDARD.encode(value), self.expires(now, timeout), self.moment(now));
        let parameters = self.with_key(&[&value, &expires, &live], key);
        // No room is made: there are as many rows afterwards as before.
        Ok(self.execute(&self.statements.replace, &parameters).await? > 0)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        if !self.can_hold(key) {
            return Ok(false);
        }
        Ok(self.execute(&self.statements.delete, &self.with_key(&[], key)).await? > 0)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        if !self.can_hold(key) {
            return Ok(false);
        }
        let now = self.now();
        self.make_room(now, None).await?;
        // Django also touches rows that are over, and so brings them back.
        let (expires, live) = (self.expires(now, timeout), self.moment(now));
        Ok(self.execute(&self.statements.touch, &self.with_key(&[&expires, &live], key)).await? > 0)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn scan(
        &self,
        head: &str,
        cursor: &str,
        count: usize,
    ) -> Result<(Vec<String>, Option<String>), CacheError> {
        let escaped = head.replace('!', "!!").replace('%', "!%").replace('_', "!_") + "%";
        let statement = format!("{}{}", self.statements.scan, count.max(1));
        let rows = self.pool.fetch_texts(&statement, &[&escaped, cursor]).await?;
        let keys: Vec<String> = rows.into_iter().flatten().flatten().collect();
        let next = keys.last().cloned();
        // LIKE does not tell cases apart everywhere.
        Ok((keys.into_iter().filter(|key| key.starts_with(head)).collect(), next))
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn entries(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (now, pool) = (self.now(), &self.pool);
        let live = self.moment(now);
        let places: Vec<_> = (2..keys.len() + 2).map(|number| pool.parameter(number, None)).collect();
        let statement = format!("{}({})", self.statements.entries, places.join(", "));
        let parameters: Vec<_> = [live.as_str()].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let rows = self.pool.fetch_texts(&statement, &parameters).await?;
        let mut found: HashMap<String, Entry> =
            rows.into_iter().filter_map(|row| self.entry(row, now)).collect();
        Ok(keys.iter().map(|key| found.remove(key)).collect())
    }
}
