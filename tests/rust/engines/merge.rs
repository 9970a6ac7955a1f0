//! Saves that keep what others changed: every store conforms with it, no update is lost, and a logout wins.

use std::sync::Arc;
use std::time::Duration;

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::cached_db::CachedDbStore;
use django_sessions::backends::db::{DbStore, Pool};
use django_sessions::backends::fallback::FallbackStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::hashed_keys::HashedKeys;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::format::Format;
use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
use django_sessions::caches::memcached::{Library, MemcachedCache, MemcachedSettings, Serde};
use django_sessions::caches::redis::RedisCache;
use django_sessions::caches::{Cache, CacheError, KeyLayout, Seen, Swapped, TimeLimits};
use django_sessions::conformance::{Capabilities, Clock};
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::{CacheBackend, CacheSettings, Engine, HashKeys, Settings};
use tempfile::TempDir;

use super::{caches, conforms, options, settings};
use crate::servers::Servers;

fn merging(merge: bool) -> Settings {
    let mut settings = settings();
    settings.merge = merge;
    settings
}

/// A store, and what has to stay for it.
type Opened = (Arc<dyn SessionStore>, Vec<TempDir>);

fn files(merge: bool) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(FileStore::in_directory(folder.path(), merging(merge)).unwrap()), vec![folder])
}

async fn sqlite(merge: bool) -> (DbStore, TempDir) {
    let (db, folder) = caches::db().await;
    (DbStore::new(db.pool().clone(), merging(merge)), folder)
}

async fn postgres(servers: &Servers, merge: bool) -> Opened {
    let pool = Pool::connect(servers.text("postgres", "url")).await.unwrap();
    let table = "CREATE TABLE IF NOT EXISTS django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
                 session_data text NOT NULL, expire_date timestamp with time zone NOT NULL)";
    sqlx::raw_sql(table).execute(pool.postgres().unwrap()).await.unwrap();
    (Arc::new(DbStore::new(pool, merging(merge))), Vec::new())
}

async fn redis(servers: &Servers, merge: bool) -> CacheStore {
    let limits = TimeLimits { response: Duration::from_secs(10), ..TimeLimits::default() };
    let cache = RedisCache::connect(servers.text("redis", "url"), limits).await.unwrap();
    CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), merging(merge))
}

/// How a project has its memcached, one or several.
fn memcached_settings(ports: &[u32]) -> MemcachedSettings {
    let mut settings = MemcachedSettings::new(ports.iter().map(|port| format!("127.0.0.1:{port}")));
    settings.timeout = 10.0;
    settings
}

fn memcached(settings: &MemcachedSettings, merge: bool) -> CacheStore {
    let cache = MemcachedCache::open(settings).unwrap();
    CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), merging(merge))
}

fn three(servers: &Servers) -> MemcachedSettings {
    memcached_settings(&servers.numbers("memcached_three", "ports"))
}

async fn cached_db_on_memcached(servers: &Servers, merge: bool) -> Opened {
    let (db, folder) = sqlite(merge).await;
    (Arc::new(CachedDbStore::new(memcached(&three(servers), merge), db)), vec![folder])
}

fn locmem() -> CacheStore {
    let cache = LocMemCache::open(&LocMemSettings::default()).unwrap();
    CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), merging(true))
}

async fn cached_db(servers: &Servers, merge: bool) -> Opened {
    let (db, folder) = sqlite(merge).await;
    (Arc::new(CachedDbStore::new(redis(servers, merge).await, db)), vec![folder])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_conforms() {
    let clock = Clock::manual();
    let reader = clock.clone();
    let (db, _folder) = sqlite(true).await;
    let mut all = options(clock, Capabilities::ALL);
    (all.visitors, all.expired) = (8, 300);
    conforms(db.with_clock(move || reader.now()), all).await;

    let clock = Clock::manual();
    let reader = clock.clone();
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |folder: &TempDir| FileStore::in_directory(folder.path(), merging(true)).unwrap();
    let new = Arc::new(open(&new).with_clock(move || reader.now()));
    let new = HashedKeys::new(new, HashKeys::Sha256);
    let store = FallbackStore::new(Arc::new(new), Arc::new(open(&old)));
    assert!(store.merges());
    conforms(store, options(clock, Capabilities::FILE)).await;

    let Some(servers) = Servers::start(&["redis"]) else { return };
    let mut of_a_server = options(Clock::real(), Capabilities::CACHE);
    of_a_server.visitors = 16;
    conforms(redis(&servers, true).await, of_a_server.clone()).await;
    if let Some(servers) = Servers::start(&["memcached_three"]) {
        of_a_server.large = 900_000; // it takes no values beyond its 1 MB
        conforms(memcached(&three(&servers), true), of_a_server).await;
    }
    let (db, _folder) = sqlite(true).await;
    let clock = Clock::manual();
    let reader = clock.clone();
    let store = CachedDbStore::new(locmem(), db).with_clock(move || reader.now());
    let mut of_both = options(clock, Capabilities::CACHE);
    of_both.visitors = 8;
    of_both.cases.retain(|case| !case.name().contains("end"));
    conforms(store, of_both).await;
}

const TASKS: u32 = 6;
const ROUNDS: u32 = 40;

/// How many of `TASKS` times `ROUNDS` increments, each task's of its own key of one session, are lost.
async fn lost(store: &Arc<dyn SessionStore>) -> u32 {
    let key = saved(&**store).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, key, name) = (store.clone(), key.clone(), task.to_string());
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                let mut session = store.load(&key).await.unwrap();
                let before = session.get::<u32>(&name).unwrap().unwrap_or(0);
                tokio::task::yield_now().await;
                session.insert(&name, &(before + 1)).unwrap();
                store.save(&mut session).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let session = store.load(&key).await.unwrap();
    let count = |task: u32| session.get::<u32>(&task.to_string()).unwrap().unwrap_or(0);
    TASKS * ROUNDS - (0..TASKS).map(count).sum::<u32>()
}

async fn saved(store: &dyn SessionStore) -> SessionKey {
    let mut session = Session::new();
    session.insert("cart", "tea").unwrap();
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

async fn none_is_lost(name: &str, merged: &Opened, whole: &Opened) {
    assert_eq!(lost(&merged.0).await, 0, "{name}");
    let lost = lost(&whole.0).await;
    println!("{name}: 0 of {} lost, and {lost} without merge", TASKS * ROUNDS);
    assert!(lost > 0, "{name}: without merge some are lost, or this test shows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_is_lost_in_files_and_sqlite() {
    none_is_lost("files", &files(true), &files(false)).await;
    let ((merged, one), (whole, other)) = (sqlite(true).await, sqlite(false).await);
    none_is_lost("SQLite", &(Arc::new(merged), vec![one]), &(Arc::new(whole), vec![other])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_is_lost_in_postgresql() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    none_is_lost("PostgreSQL", &postgres(&servers, true).await, &postgres(&servers, false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_is_lost_in_redis_and_cached_db() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let (merged, whole) = (redis(&servers, true).await, redis(&servers, false).await);
    none_is_lost("Redis", &(Arc::new(merged), vec![]), &(Arc::new(whole), vec![])).await;
    none_is_lost("cached_db", &cached_db(&servers, true).await, &cached_db(&servers, false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn none_is_lost_in_memcached_and_cached_db() {
    let Some(servers) = Servers::start(&["memcached_three"]) else { return };
    let mut settings = three(&servers);
    (settings.serde, settings.min_compress_len) = (Serde::Compressed, 1);
    let (merged, whole) = (memcached(&settings, true), memcached(&settings, false));
    none_is_lost("memcached", &(Arc::new(merged), vec![]), &(Arc::new(whole), vec![])).await;
    let (merged, whole) =
        (cached_db_on_memcached(&servers, true).await, cached_db_on_memcached(&servers, false).await);
    none_is_lost("cached_db, memcached", &merged, &whole).await;
}

/// What the table of docs/merge.md says, in each store.
#[tokio::test]
async fn who_wins() {
    let servers = Servers::start(&["redis"]);
    let memcacheds = Servers::start(&["memcached_three"]);
    let (db, folder) = sqlite(true).await;
    let mut stores: Vec<Opened> = vec![files(true), (Arc::new(db), vec![folder])];
    let (old, old_folder) = files(false);
    let (db, new_folder) = sqlite(true).await;
    stores.push((
        Arc::new(FallbackStore::new(Arc::new(db), old)),
        old_folder.into_iter().chain([new_folder]).collect(),
    ));
    if let Some(servers) = &servers {
        stores.push((Arc::new(redis(servers, true).await), vec![]));
        stores.push(cached_db(servers, true).await);
    }
    if let Some(servers) = &memcacheds {
        stores.push((Arc::new(memcached(&three(servers), true)), vec![]));
        stores.push(cached_db_on_memcached(servers, true).await);
        let hashed = HashedKeys::new(Arc::new(memcached(&three(servers), true)), HashKeys::Sha256);
        stores.push((Arc::new(hashed), vec![]));
    }
    for (store, _folders) in &stores {
        let store = &**store;
        let key = saved(store).await;
        let load = async || store.load(&key).await.unwrap();
        let text = |session: &Session, name: &str| session.get::<String>(name).unwrap();

        // Different keys, and a removed one.
        let (mut one, mut other) = (load().await, load().await);
        one.insert("lang", "en").unwrap();
        one.remove("cart");
        store.save(&mut one).await.unwrap();
        other.insert("size", "L").unwrap();
        store.save(&mut other).await.unwrap();
        for session in [&other, &load().await] {
            assert_eq!(text(session, "lang").as_deref(), Some("en"));
            assert_eq!(text(session, "size").as_deref(), Some("L"));
            assert!(!session.contains_key("cart"));
        }
        // Saved twice without a new look: what came between stays.
        other.insert("size", "XL").unwrap();
        one.insert("lang", "de").unwrap();
        store.save(&mut one).await.unwrap();
        store.save(&mut other).await.unwrap();
        let found = load().await;
        assert_eq!((text(&found, "lang"), text(&found, "size")), (Some("de".into()), Some("XL".into())));

        // The same key: the later one.
        let (mut one, mut other) = (load().await, load().await);
        one.insert("size", "S").unwrap();
        other.insert("size", "M").unwrap();
        store.save(&mut one).await.unwrap();
        store.save(&mut other).await.unwrap();
        assert_eq!(text(&load().await, "size").as_deref(), Some("M"));

        // A new key, as at a login: what others saved before comes along.
        let start = saved(store).await;
        let (mut one, mut other) = (store.load(&start).await.unwrap(), store.load(&start).await.unwrap());
        one.insert("lang", "en").unwrap();
        other.insert("cart", "jam").unwrap();
        store.save(&mut other).await.unwrap();
        store.cycle_key(&mut one).await.unwrap();
        let found = store.load(one.key().unwrap()).await.unwrap();
        assert_eq!((text(&found, "cart"), text(&found, "lang")), (Some("jam".into()), Some("en".into())));
        other.insert("cart", "tea").unwrap();
        assert!(matches!(store.save(&mut other).await, Err(StoreError::Deleted)));
        // From a session that was ended meanwhile: what there was.
        let mut late = store.load(one.key().unwrap()).await.unwrap();
        store.flush(&mut one).await.unwrap();
        store.cycle_key(&mut late).await.unwrap();
        assert_eq!(text(&store.load(late.key().unwrap()).await.unwrap(), "cart").as_deref(), Some("jam"));

        // Another has logged in under the same key: what was there before is not put over it.
        let (mut one, mut late) = (load().await, load().await);
        one.insert("_auth_user_id", "1").unwrap();
        store.save(&mut one).await.unwrap();
        late.insert("size", "S").unwrap();
        assert!(matches!(store.save(&mut late).await, Err(StoreError::Deleted)));

        // A logout.
        let mut late = load().await;
        store.delete(&key).await.unwrap();
        late.insert("size", "S").unwrap();
        assert!(matches!(store.save(&mut late).await, Err(StoreError::Deleted)));
        assert!(!store.exists(&key).await.unwrap());
    }
}

/// A session of the request that made it is saved again there, while another has changed it.
#[tokio::test]
async fn a_new_session_is_merged_too() {
    let (store, _folder) = sqlite(true).await;
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    let mut other = store.load(session.key().unwrap()).await.unwrap();
    other.insert("theirs", &1).unwrap();
    store.save(&mut other).await.unwrap();
    session.insert("mine", &1).unwrap();
    store.save(&mut session).await.unwrap();
    let found = store.load(session.key().unwrap()).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["mine", "theirs"]);
}

#[tokio::test]
async fn redis_swaps_what_is_still_the_same() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = RedisCache::connect(servers.text("redis", "url"), TimeLimits::default()).await.unwrap();
    swaps_what_is_still_the_same(&cache, ":1:k").await;
}

async fn swaps_what_is_still_the_same(cache: &dyn Cache, key: &str) {
    let swap = async |before: Option<&[u8]>, value, timeout| {
        let before = before.map(|before| Seen::from(before.to_vec()));
        match cache.swap(key, before.as_ref(), value, timeout).await.unwrap() {
            Swapped::Differs(seen) => Err(seen.value),
            swapped => Ok(swapped),
        }
    };
    assert_eq!(swap(Some(b"1"), b"2", None).await, Ok(Swapped::Missing), "{key}");
    cache.set(key, b"1", None).await.unwrap();
    assert_eq!(swap(Some(b"0"), b"2", None).await, Err(b"1".to_vec()));
    assert_eq!(swap(None, b"2", None).await, Err(b"1".to_vec()));
    assert_eq!(swap(Some(b"1"), b"\xff", Some(Duration::from_secs(60))).await, Ok(Swapped::Done));
    assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(&b"\xff"[..]));
    assert_eq!(swap(Some(b"\xff"), b"3", Some(Duration::ZERO)).await, Ok(Swapped::Done));
    assert_eq!(cache.get(key).await.unwrap(), None, "it is over");

    // What was looked at.
    cache.set(key, b"1", None).await.unwrap();
    let seen = cache.look(key).await.unwrap().unwrap();
    assert_eq!(seen.value, b"1");
    assert_eq!(cache.swap(key, Some(&seen), b"2", None).await.unwrap(), Swapped::Done);
    let Swapped::Differs(now) = cache.swap(key, Some(&seen), b"3", None).await.unwrap() else { panic!() };
    assert_eq!(now.value, b"2");
    assert_eq!(cache.swap(key, Some(&now), b"3", None).await.unwrap(), Swapped::Done);
    let seen = cache.look(key).await.unwrap().unwrap();
    cache.delete(key).await.unwrap();
    assert_eq!(cache.swap(key, Some(&seen), b"4", None).await.unwrap(), Swapped::Missing);
    assert_eq!(cache.get(key).await.unwrap(), None, "what was deleted stays so");
    cache.set(key, b"5", None).await.unwrap();
    let swapped = cache.swap(key, Some(&seen), b"4", None).await.unwrap();
    assert!(matches!(swapped, Swapped::Differs(now) if now.value == b"5"), "another of the name");
    cache.delete(key).await.unwrap();
}

#[tokio::test]
async fn memcached_swaps_what_is_still_the_same() {
    let Some(servers) = Servers::start(&["memcached", "memcached_three"]) else { return };
    let one = memcached_settings(&[servers.number("memcached", "port")]);
    swaps_what_is_still_the_same(&MemcachedCache::open(&one).unwrap(), ":1:k").await;
    for (library, serde) in [
        (Library::Pymemcache, Serde::Pickle),
        (Library::Pymemcache, Serde::Compressed),
        (Library::Pylibmc, Serde::Pickle),
    ] {
        let mut settings = three(&servers);
        (settings.library, settings.serde, settings.min_compress_len) = (library, serde, 1);
        let cache = MemcachedCache::open(&settings).unwrap();
        for number in 0..20 {
            swaps_what_is_still_the_same(&cache, &format!(":1:k{number}")).await;
        }
    }
}

/// Values that are compressed are compared as they were before.
#[tokio::test]
async fn memcached_swaps_what_is_compressed() {
    let Some(servers) = Servers::start(&["memcached_three"]) else { return };
    let mut settings = three(&servers);
    settings.serde = Serde::Compressed;
    let cache = MemcachedCache::open(&settings).unwrap();
    let plain = MemcachedCache::open(&three(&servers)).unwrap();
    let (long, longer) = (b"tea ".repeat(1000), b"tea ".repeat(2000));
    cache.set(":1:k", &long, None).await.unwrap();
    let before = Seen::from(long);
    assert_eq!(cache.swap(":1:k", Some(&before), &longer, None).await.unwrap(), Swapped::Done);
    let Swapped::Differs(now) = plain.swap(":1:k", Some(&before), b"1", None).await.unwrap() else {
        panic!()
    };
    assert!(now.value == longer);
    assert_eq!(plain.swap(":1:k", Some(&now), b"1", None).await.unwrap(), Swapped::Done);
}

/// Each server counts for itself, from the same number on: one of a server says nothing of a key on another.
#[tokio::test]
async fn a_number_of_one_memcached_is_none_of_another() {
    let Some(servers) = Servers::start(&["memcached_three"]) else { return };
    let cache = MemcachedCache::open(&three(&servers)).unwrap();
    cache.set(":1:k0", b"mine", None).await.unwrap(); // the first value of its server, as others are of theirs
    let seen = cache.look(":1:k0").await.unwrap().unwrap();
    for number in 1..30 {
        let key = format!(":1:k{number}");
        cache.set(&key, b"theirs", None).await.unwrap();
        let swapped = cache.swap(&key, Some(&seen), b"lost", None).await.unwrap();
        assert!(matches!(swapped, Swapped::Differs(now) if now.value == b"theirs"), "{key}");
    }
}

/// What a memcached counts.
fn counters(port: u32) -> std::collections::HashMap<String, u64> {
    use std::io::{BufRead, BufReader, Write};

    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.write_all(b"stats\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| line != "END");
    let read = |line: String| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.filter_map(read).collect()
}

/// The table of docs/merge.md: a save is one command, and after a conflict there are two more.
#[tokio::test]
async fn what_a_save_costs_memcached() {
    let Some(servers) = Servers::start(&["memcached"]) else { return };
    let port = servers.number("memcached", "port");
    let store = memcached(&memcached_settings(&[port]), true);
    let key = saved(&store).await;
    let before = std::cell::RefCell::new(counters(port));
    let gets_and_cas = || {
        let (now, before) = (counters(port), before.replace(counters(port)));
        let count = |name| now[name] - before[name];
        (count("cmd_get"), count("cas_hits"), count("cas_badval"), count("cmd_set"))
    };
    let (mut one, mut late) = (store.load(&key).await.unwrap(), store.load(&key).await.unwrap());
    assert_eq!(gets_and_cas(), (2, 0, 0, 0));
    one.insert("mine", &1).unwrap();
    store.save(&mut one).await.unwrap();
    assert_eq!(gets_and_cas(), (0, 1, 0, 1), "without a conflict");
    late.insert("theirs", &1).unwrap();
    store.save(&mut late).await.unwrap();
    assert_eq!(gets_and_cas(), (1, 1, 1, 2), "with one");
    late.insert("theirs", &2).unwrap();
    store.save(&mut late).await.unwrap();
    assert_eq!(gets_and_cas(), (1, 1, 0, 1), "saved twice");
    assert_eq!(store.load(&key).await.unwrap().keys().collect::<Vec<_>>(), ["cart", "theirs", "mine"]);
}

#[tokio::test]
async fn memcached_without_numbers_is_refused() {
    let Some(servers) = Servers::start(&["memcached+nocas"]) else { return };
    let store = memcached(&memcached_settings(&[servers.number("memcached+nocas", "port")]), true);
    let key = saved(&store).await;
    let mut session = store.load(&key).await.unwrap();
    session.insert("mine", &1).unwrap();
    let refused = store.save(&mut session).await;
    let Err(StoreError::Cache(CacheError::Settings(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("--disable-cas"), "{why}");
    assert!(!store.load(&key).await.unwrap().contains_key("mine"));
}

#[tokio::test]
async fn a_store_that_cannot_says_so() {
    let mut settings = merging(true);
    settings
        .caches
        .insert("default".to_owned(), CacheSettings::new(CacheBackend::LocMem(LocMemSettings::default())));
    for engine in [Engine::Cache, Engine::SignedCookies] {
        settings.session_engine = engine;
        let Err(error) = settings.connect().await else { panic!("{engine:?}") };
        let text = error.to_string();
        assert!(text.contains("merge") && text.contains("take MERGE out of RUST_SESSIONS"), "{text}");
    }
    let memcached = CacheSettings::new(CacheBackend::Memcached(memcached_settings(&[11211])));
    settings.caches.insert("default".to_owned(), memcached);
    settings.session_engine = Engine::Cache;
    assert!(settings.connect().await.unwrap().merges(), "this one can");
    settings.session_engine = Engine::SignedCookies;
    settings.merge = false;
    settings.connect().await.unwrap();
}
