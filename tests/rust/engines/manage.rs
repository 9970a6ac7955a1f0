//! Stores are looked after, whatever they keep sessions in.

use std::sync::Arc;
use std::time::Duration;

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::cached_db::CachedDbStore;
use django_sessions::backends::db::Pool;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::manage::{ManagedStore, Which};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};
use django_sessions::caches::format::Format;
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings};
use django_sessions::caches::redis::{RedisCache, RedisSettings};
use django_sessions::caches::{Cache, KeyLayout, TimeLimits};
use django_sessions::session::Session;
use jiff::SignedDuration;

use super::caches::db;
use super::managed::{Nature, is_looked_after};
use super::settings;
use crate::servers::Servers;

const TABLE: Nature =
    Nature { grain: SignedDuration::from_micros(1), keeps_expired: true, knows_saved: true };

fn cache_store(cache: impl Cache + 'static, keys: KeyLayout) -> CacheStore {
    CacheStore::new(Arc::new(cache), keys, Format::django(), settings())
}

#[tokio::test]
async fn tables() {
    let (store, _folder) = db().await;
    is_looked_after(&store, TABLE).await;
    let (store, _folder) = db().await;
    let cache = LocMemCache::open(&LocMemSettings::default()).unwrap();
    is_looked_after(&CachedDbStore::new(cache_store(cache, KeyLayout::default()), store), TABLE).await;
}

#[tokio::test]
async fn files() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::in_directory(folder.path(), settings()).unwrap();
    is_looked_after(&store, TABLE).await;
}

#[tokio::test]
async fn redis() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = RedisCache::connect(servers.text("redis", "url"), TimeLimits::default()).await.unwrap();
    is_looked_after_in(cache).await;
}

#[tokio::test]
async fn redis_cluster() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    let mut settings = RedisSettings::new(servers.text("redis_cluster", "urls"));
    settings.cluster = true;
    is_looked_after_in(RedisCache::open(&settings).await.unwrap()).await;
}

async fn is_looked_after_in(cache: RedisCache) {
    // What is special to Redis's patterns, and the sessions of two other engines, are not taken for these.
    let others = [KeyLayout::new("shop1", 1), KeyLayout::new("a", 1)];
    for others in others {
        let (db, _folder) = db().await;
        let engine = cache_store(cache.clone(), others.clone());
        let mut session = Session::new();
        engine.save(&mut session).await.unwrap();
        let engine = CachedDbStore::new(cache_store(cache.clone(), KeyLayout::new("sh[op]1", 1)), db);
        engine.create(&mut session).await.unwrap();
    }
    let store = cache_store(cache, KeyLayout::new("sh[op]1", 1));
    let grain = SignedDuration::from_millis(50);
    is_looked_after(&store, Nature { grain, keeps_expired: false, knows_saved: false }).await;
}

#[tokio::test]
async fn memcached() {
    let Some(servers) = Servers::start(&["memcached_three"]) else { return };
    let mut settings = MemcachedSettings::new(
        servers.numbers("memcached_three", "ports").iter().map(|port| format!("127.0.0.1:{port}")),
    );
    let other = MemcachedCache::open(&settings).unwrap();
    let mut session = Session::new();
    cache_store(other, KeyLayout::new("s/%", 1)).create(&mut session).await.unwrap();
    settings.key_prefix = "all:".to_owned();
    let cache = MemcachedCache::open(&settings).unwrap();
    cache_store(cache.clone(), KeyLayout::new("other", 1)).create(&mut session).await.unwrap();
    let grain = SignedDuration::from_secs(2);
    let nature = Nature { grain, keeps_expired: false, knows_saved: false };
    is_looked_after(&cache_store(cache, KeyLayout::new("s/%", 1)), nature).await;
}

#[tokio::test]
async fn cache_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    std::fs::File::create(&path).unwrap();
    let pool = Pool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let table = "CREATE TABLE my_cache (cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, expires datetime NOT NULL)";
    sqlx::query(table).execute(pool.sqlite().unwrap()).await.unwrap();
    let cache = DbCache::new(pool, &DatabaseCacheSettings::new("my_cache"));
    let grain = SignedDuration::from_secs(1);
    let nature = Nature { grain, keeps_expired: false, knows_saved: false };
    is_looked_after(&cache_store(cache, KeyLayout::new("50%_off!", 1)), nature).await;
}

#[tokio::test]
async fn what_cannot_be_listed_says_so() {
    let cache = LocMemCache::open(&LocMemSettings::default()).unwrap();
    let store = cache_store(cache.clone(), KeyLayout::default());
    assert!(matches!(store.list(Which::All, 10, "").next_page().await, Err(StoreError::Unlisted(_))));
    assert!(matches!(store.count().await, Err(StoreError::Unlisted(_))));
    assert_eq!(store.count_expired(Duration::ZERO).await.unwrap(), 0);
    let hidden = KeyLayout::default().with_function(|key, _, _| key.chars().rev().collect());
    let error = cache_store(cache, hidden).count().await.unwrap_err();
    assert!(error.to_string().contains("KEY_FUNCTION"), "{error}");
}
