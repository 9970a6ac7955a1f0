//! The cache and cached_db engines: the suite over caches of each kind, and what a failing cache does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::cached_db::CachedDbStore;
use django_sessions::backends::db::{DbStore, Pool};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::filebased::{FileBasedCache, FileBasedSettings};
use django_sessions::caches::format::{Format, Serializer};
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::caches::memcached::MemcachedCache;
use django_sessions::caches::redis::RedisCache;
use django_sessions::caches::{Cache, CacheError, KeyLayout, TimeLimits};
use django_sessions::conformance::{Capabilities, Clock, Options};
use django_sessions::session::{Session, SessionKey};
use tempfile::TempDir;

use super::{conforms, options, settings};
use crate::logged::Logged;
use crate::servers::Servers;
use crate::signals::signal;

fn store(cache: Arc<dyn Cache>) -> CacheStore {
    CacheStore::new(cache, KeyLayout::default(), Format::django(), settings())
}

fn locmem(clock: &Clock) -> LocMemCache {
    let mut settings = LocMemSettings::default();
    settings.max_entries = 100_000;
    let reader = clock.clone();
    LocMemCache::open(&settings).unwrap().with_clock(move || reader.now())
}

async fn redis(servers: &Servers) -> RedisCache {
    let limits = TimeLimits { connect: Duration::from_millis(300), response: Duration::from_millis(300) };
    RedisCache::connect(servers.text("redis", "url"), limits).await.unwrap()
}

/// The table as Django's migration makes it, in a folder that goes with the test.
pub(crate) async fn db() -> (DbStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    std::fs::File::create(&path).unwrap();
    let pool = Pool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let sqlite = pool.sqlite().unwrap();
    sqlx::raw_sql(
        "PRAGMA journal_mode = WAL; CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
         expire_date datetime NOT NULL)",
    )
    .execute(sqlite)
    .await
    .unwrap();
    (DbStore::new(pool, settings()), folder)
}

fn of_a_cache(clock: Clock) -> Options {
    options(clock, Capabilities::CACHE)
}

/// For servers with a clock of their own: sessions of no expiry of their own are not waited for.
fn of_a_server() -> Options {
    let mut options = of_a_cache(Clock::real());
    options.visitors = 16;
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locmem_conforms() {
    let clock = Clock::manual();
    let cache = Arc::new(locmem(&clock));
    let reader = clock.clone();
    let store = store(cache).with_clock(move || reader.now());
    assert_eq!(conforms(store, of_a_cache(clock)).await, ["only_what_is_over_is_cleared"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_conforms() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    conforms(store(Arc::new(redis(&servers).await)), of_a_server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memcached_conforms() {
    let Some(servers) = Servers::start(&["memcached"]) else { return };
    let address = format!("127.0.0.1:{}", servers.number("memcached", "port"));
    let cache = MemcachedCache::connect(&address, TimeLimits::default()).await.unwrap();
    let mut options = of_a_server();
    // memcached takes no values beyond its 1 MB.
    options.large = 900_000;
    conforms(store(Arc::new(cache)), options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cached_db_conforms() {
    let clock = Clock::manual();
    let (db, _folder) = db().await;
    let reader = clock.clone();
    let store = CachedDbStore::new(store(Arc::new(locmem(&clock))), db).with_clock(move || reader.now());
    let mut options = Options::new(clock);
    // SQLite lets one write at a time, and the others wait for five seconds at most.
    options.visitors = 8;
    options.expired = 300;
    // What was cleared from the table the cache forgets by its own clock.
    assert_eq!(conforms(store, options).await, [""; 0]);
}

async fn saved(store: &dyn SessionStore, name: &str) -> SessionKey {
    let mut session = Session::new();
    session.insert("name", name).unwrap();
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

async fn name(store: &dyn SessionStore, key: &SessionKey) -> Option<String> {
    store.load(key).await.unwrap().get("name").unwrap()
}

/// Waits for a task that nobody waits for.
async fn eventually(mut what: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !what().await {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The name of a session in the cache.
fn cached(key: &SessionKey) -> String {
    format!(":1:django.contrib.sessions.cached_db{}", key.as_str())
}

#[tokio::test]
async fn a_cache_that_hangs_or_is_gone_fails_the_cache_engine_and_not_cached_db() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let pid = servers.number("redis", "pid");
    let cache: Arc<dyn Cache> = Arc::new(redis(&servers).await);
    let (db, _folder) = db().await;
    let (alone, both) = (store(cache.clone()), CachedDbStore::new(store(cache.clone()), db));
    let (in_cache, in_both) = (saved(&alone, "a").await, saved(&both, "b").await);
    let logged = Logged::default();
    let _guard = logged.listen();

    signal(pid, "STOP");
    let failed = |result| matches!(result, Err(StoreError::Cache(_)));
    assert!(failed(alone.load(&in_cache).await.map(drop)), "it is not taken for a session that is gone");
    assert!(failed(alone.load_or_empty(&in_cache).await.map(drop)));
    assert!(failed(alone.exists(&in_cache).await.map(drop)));
    assert!(failed(alone.create(&mut Session::new()).await));
    assert_eq!(name(&both, &in_both).await.as_deref(), Some("b"));
    assert!(both.exists(&in_both).await.unwrap());
    let mut session = both.load(&in_both).await.unwrap();
    session.insert("name", "changed meanwhile").unwrap();
    both.save(&mut session).await.unwrap();
    let created = saved(&both, "new").await;
    assert_eq!(name(&both, &created).await.as_deref(), Some("new"));
    assert!(failed(both.delete(&created).await.map(drop)), "it could still be loaded from the cache");
    let text = logged.text();
    assert!(text.contains("ERROR") && text.contains("django.contrib.sessions"), "{text}");
    for said in ["Session not read from the cache", "Error saving to cache"] {
        assert!(text.contains(said), "{said} in {text}");
    }

    signal(pid, "CONT");
    // What the cache did not learn of must not be loaded from it: the deletions are done in the background, if it can be.
    cache.delete(&cached(&in_both)).await.ok();
    eventually(async || name(&both, &in_both).await.as_deref() == Some("changed meanwhile")).await;
    drop(servers);
    assert!(failed(alone.load(&in_cache).await.map(drop)));
    assert_eq!(name(&both, &in_both).await.as_deref(), Some("changed meanwhile"));
}

#[tokio::test]
async fn a_value_that_the_cache_refuses_leaves_no_old_one_there() {
    let clock = Clock::manual();
    let cache = Arc::new(locmem(&clock));
    let (db, _folder) = db().await;
    // MessagePack knows no integers beyond 64 bits, and JSON does.
    let format = Format { serializer: Serializer::Msgpack, ..Format::default() };
    let part = CacheStore::new(cache.clone(), KeyLayout::default(), format, settings());
    let store = CachedDbStore::new(part, db);
    let key = saved(&store, "old").await;
    let mut session = store.load(&key).await.unwrap();
    session.insert("name", "new").unwrap();
    session.insert_raw(
        "big",
        django_sessions::serializers::json::RawValue::from_text("1180591620717411303424").unwrap(),
    );
    store.save(&mut session).await.unwrap();
    eventually(async || cache.get(&cached(&key)).await.unwrap().is_none()).await;
    assert_eq!(name(&store, &key).await.as_deref(), Some("new"));
}

/// As in Django, where a power loss may leave such a file.
#[tokio::test]
async fn a_damaged_file_is_a_missing_session() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FileBasedCache::open(&FileBasedSettings::new(folder.path())).unwrap();
    let store = store(Arc::new(cache));
    let key = saved(&store, "old").await;
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() - 3], &[0; 50]] {
        std::fs::write(&file, damaged).unwrap();
        let error = store.load(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::Cache(CacheError::Unreadable(_))), "{error:?}");
        assert!(store.load_or_empty(&key).await.unwrap().key().is_none());
    }
}

#[tokio::test]
async fn a_miss_is_filled_for_the_life_that_is_left_and_over_nothing() {
    let clock = Clock::manual();
    let cache = Arc::new(locmem(&clock));
    let (db, _folder) = db().await;
    let reader = clock.clone();
    let store = CachedDbStore::new(store(cache.clone()), db).with_clock(move || reader.now());
    let key = saved(&store, "old").await;
    assert!(cache.delete(&cached(&key)).await.unwrap());
    clock.advance(Duration::from_secs(1_209_600 - 10)).await;
    assert_eq!(name(&store, &key).await.as_deref(), Some("old"));
    assert!(cache.get(&cached(&key)).await.unwrap().is_some());
    clock.advance(Duration::from_secs(9)).await;
    assert!(cache.get(&cached(&key)).await.unwrap().is_some());
    clock.advance(Duration::from_secs(1)).await;
    assert!(cache.get(&cached(&key)).await.unwrap().is_none(), "not for two weeks more");
}

/// A cache to which something happens just before a value is added: what another process does meanwhile.
struct Meanwhile {
    cache: LocMemCache,
    db: DbStore,
    key: SessionKey,
    deletes: bool,
}

impl Meanwhile {
    /// Another process saves or deletes the session.
    async fn act(&self) {
        let both = CachedDbStore::new(store(Arc::new(self.cache.clone())), self.db.clone());
        if self.deletes {
            both.delete(&self.key).await.unwrap();
            return;
        }
        let mut session = self.db.load(&self.key).await.unwrap();
        session.insert("name", "new").unwrap();
        both.save(&mut session).await.unwrap();
    }
}

#[async_trait::async_trait]
impl Cache for Meanwhile {
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        self.act().await;
        self.cache.add(key, value, timeout).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        self.cache.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        self.cache.set(key, value, timeout).await
    }

    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        self.cache.replace(key, value, timeout).await
    }

    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        self.cache.delete(key).await
    }

    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        self.cache.touch(key, timeout).await
    }
}

#[tokio::test]
async fn what_happens_while_the_cache_is_filled_counts() {
    for (deletes, expected) in [(false, Some("new")), (true, None)] {
        let (db, _folder) = db().await;
        let key = saved(&db, "old").await;
        let cache = Meanwhile { cache: locmem(&Clock::manual()), db: db.clone(), key: key.clone(), deletes };
        let store = CachedDbStore::new(store(Arc::new(cache)), db);
        store.load(&key).await.unwrap();
        assert_eq!(name(&store, &key).await.as_deref(), expected, "not what was read before");
    }
}

#[tokio::test]
async fn a_session_that_the_table_lost_leaves_the_cache_when_it_is_saved() {
    let clock = Clock::manual();
    let cache = Arc::new(locmem(&clock));
    let (db, _folder) = db().await;
    let store = CachedDbStore::new(store(cache.clone()), db.clone());
    let key = saved(&store, "ghost").await;
    // As another process's deletion that did not reach the cache.
    db.delete(&key).await.unwrap();
    let mut session = store.load(&key).await.unwrap();
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
    eventually(async || store.load(&key).await.unwrap().key().is_none()).await;
}

#[tokio::test]
async fn a_cancelled_save_leaves_table_and_cache_alike() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = Arc::new(redis(&servers).await);
    let (db, _folder) = db().await;
    let store = CachedDbStore::new(store(cache.clone()), db.clone());
    for round in 0..200 {
        let key = saved(&store, "before").await;
        let mut session = store.load(&key).await.unwrap();
        session.insert("name", "after").unwrap();
        let patience = Duration::from_micros(round * 20);
        let cancelled = tokio::time::timeout(patience, async {
            match round % 2 {
                0 => store.save(&mut session).await.unwrap(),
                _ => assert!(store.delete(&key).await.unwrap()),
            }
        });
        let _maybe = cancelled.await;
        eventually(async || name(&store, &key).await == name(&db, &key).await).await;
        store.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_function_and_a_prefix_of_the_projects_own() {
    let clock = Clock::manual();
    let cache = Arc::new(locmem(&clock));
    let layout =
        KeyLayout::new("shop", 3).with_function(|key, prefix, version| format!("{version}/{prefix}/{key}"));
    let of = |prefix: Option<&str>| {
        let store = CacheStore::new(cache.clone(), layout.clone(), Format::django(), settings());
        match prefix {
            Some(prefix) => store.with_key_prefix(prefix),
            None => store,
        }
    };
    let key = saved(&of(None), "a").await;
    let name = format!("3/shop/django.contrib.sessions.cache{}", key.as_str());
    assert!(cache.get(&name).await.unwrap().is_some());
    let key = saved(&of(Some("own.")), "a").await;
    assert!(cache.get(&format!("3/shop/own.{}", key.as_str())).await.unwrap().is_some());
    let (db, _folder) = db().await;
    let key = saved(&CachedDbStore::new(of(Some("own.db.")), db), "a").await;
    assert!(cache.get(&format!("3/shop/own.db.{}", key.as_str())).await.unwrap().is_some());
}
