//! The cache engines over each cache.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_memcached::{AsciiProtocol, Client};
use async_trait::async_trait;
use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::cached_db::CachedDbStore;
use django_sessions::backends::db::DbStore;
use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};
use django_sessions::caches::filebased::{FileBasedCache, FileBasedSettings};
use django_sessions::caches::format::Format;
use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings};
use django_sessions::caches::redis::{RedisCache, RedisSettings};
use django_sessions::caches::{Cache, KeyLayout};
use redis::aio::MultiplexedConnection;
use tokio::sync::Semaphore;

use super::{Bare, Database, Files};
use crate::floor::{self, Floor};
use crate::servers::Servers;
use crate::{Measured, Plan, Row, key, measure, settings};

const PREFIX: &str = ":1:django.contrib.sessions.cache";
const CACHED_DB_PREFIX: &str = ":1:django.contrib.sessions.cached_db";

/// Django's `SESSION_COOKIE_AGE`, in seconds.
const AGE: u64 = 60 * 60 * 24 * 14;

fn store(cache: impl Cache + 'static) -> CacheStore {
    CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), settings())
}

/// The cache engine over that cache.
fn measured(
    name: &'static str,
    cache: impl Cache + 'static,
    bare: impl Bare + 'static,
    floors: (Floor, &'static [Floor]),
) -> Measured {
    Measured { name, store: Arc::new(store(cache)), bare: Arc::new(bare), floors }
}

pub(crate) async fn each_cache(plan: &Plan, rows: &mut Vec<Row>) {
    if plan.wants("redis")
        && let Some(server) = Servers::start(&["redis"])
    {
        let url = server.text("redis", "url");
        let cache = RedisCache::open(&RedisSettings::new(url)).await.expect("the server is there");
        let bare = Redis::connect(url, PREFIX).await;
        measure(&measured("redis", cache, bare, (floor::PICKLE, &[floor::PICKLE])), plan, rows).await;
    }
    if plan.wants("memcached")
        && let Some(server) = Servers::start(&["memcached"])
    {
        let address = format!("127.0.0.1:{}", server.number("memcached", "port"));
        let cache =
            MemcachedCache::open(&MemcachedSettings::new([&*address])).expect("the settings are good");
        let bare = Memcached::connect(&address).await;
        measure(&measured("memcached", cache, bare, (floor::PICKLE, &[floor::PICKLE])), plan, rows).await;
    }
    if plan.wants("filebased") {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = FileBasedSettings::new(folder.path());
        settings.max_entries = 1_000_000;
        let cache = FileBasedCache::open(&settings).expect("the settings are good");
        let name = |key: &str| format!("{}.djcache", md5(&format!("{PREFIX}{key}")));
        let bare = Files { directory: PathBuf::from(folder.path()), name };
        measure(&measured("filebased", cache, bare, (floor::ZLIB, &[floor::ZLIB])), plan, rows).await;
    }
    if plan.wants("dbcache")
        && let Some(database) = Database::start("postgres").await
    {
        let table = "CREATE TABLE cache (cache_key varchar(255) NOT NULL PRIMARY KEY, value text NOT NULL, \
                     expires timestamptz NOT NULL)";
        database.execute(table).await;
        database.execute("CREATE INDEX cache_expires ON cache (expires)").await;
        let mut settings = DatabaseCacheSettings::new("cache");
        settings.max_entries = 1_000_000;
        let cache = DbCache::new(database.pool.clone(), &settings);
        let bare = database.bare(["cache", "cache_key", "value", "expires"], PREFIX);
        measure(&measured("dbcache", cache, bare, (floor::BASE64, &[floor::BASE64])), plan, rows).await;
    }
    if plan.wants("cached_db")
        && let Some(database) = Database::start("postgres").await
        && let Some(server) = Servers::start(&["redis"])
    {
        let url = server.text("redis", "url");
        let cache = RedisCache::open(&RedisSettings::new(url)).await.expect("the server is there");
        let db = DbStore::new(database.pool.clone(), settings());
        let bare = Both { cache: Redis::connect(url, CACHED_DB_PREFIX).await, database: database.sessions() };
        let measured = Measured {
            name: "cached_db",
            store: Arc::new(CachedDbStore::new(store(cache), db)),
            bare: Arc::new(bare),
            floors: (floor::PICKLE, &[floor::SIGNED_TEXT, floor::PICKLE]),
        };
        measure(&measured, plan, rows).await;
    }
}

fn md5(text: &str) -> String {
    use md5::Digest;
    md5::Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `GET` and `SET` over one connection, which all tasks share.
struct Redis {
    connection: MultiplexedConnection,
    prefix: &'static str,
}

impl Redis {
    async fn connect(url: &str, prefix: &'static str) -> Self {
        let client = redis::Client::open(url).expect("the address is good");
        let connection = client.get_multiplexed_async_connection().await.expect("the server is there");
        Self { connection, prefix }
    }
}

#[async_trait]
impl Bare for Redis {
    async fn get(&self, number: usize) -> Vec<u8> {
        let key = format!("{}{}", self.prefix, key(number).as_str());
        let answer = redis::cmd("GET").arg(key).query_async(&mut self.connection.clone()).await;
        answer.expect("the session is there")
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]) {
        let key = format!("{}{}", self.prefix, key(number).as_str());
        let mut command = redis::cmd("SET");
        command.arg(key).arg(&stored[0]).arg("EX").arg(AGE);
        command.exec_async(&mut self.connection.clone()).await.expect("the server is there");
    }
}

/// `get` and `set` over as many connections as the store has, each for one task at a time.
struct Memcached {
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
}

impl Memcached {
    async fn connect(address: &str) -> Self {
        let mut idle = Vec::new();
        for _ in 0..MemcachedSettings::default().max_pool_size {
            idle.push(Client::new(format!("tcp://{address}")).await.expect("the server is there"));
        }
        Self { permits: Semaphore::new(idle.len()), idle: Mutex::new(idle) }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bare for Memcached {
    async fn get(&self, number: usize) -> Vec<u8> {
        let _permit = self.permits.acquire().await.expect("never closed");
        let mut client = self.idle().pop().expect("as many as permits");
        let answer = client.get(format!("{PREFIX}{}", key(number).as_str())).await;
        self.idle().push(client);
        let found = answer.expect("the server is there").expect("the session is there");
        found.data.expect("it has a value")
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]) {
        let _permit = self.permits.acquire().await.expect("never closed");
        let mut client = self.idle().pop().expect("as many as permits");
        let key = format!("{PREFIX}{}", key(number).as_str());
        let answer = client.set(key, &*stored[0], Some(AGE as i64), Some(1)).await;
        self.idle().push(client);
        answer.expect("the server is there");
    }
}

/// A load asks the cache, a save writes to the database and then to the cache.
struct Both {
    cache: Redis,
    database: super::Sql,
}

#[async_trait]
impl Bare for Both {
    async fn get(&self, number: usize) -> Vec<u8> {
        self.cache.get(number).await
    }

    async fn stored(&self) -> Vec<Vec<u8>> {
        vec![self.database.get(0).await, self.cache.get(0).await]
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]) {
        self.database.set(number, &stored[..1]).await;
        self.cache.set(number, &stored[1..]).await;
    }
}
