//! The caches on real servers: what every cache must do, and what Django finds in Redis afterwards.

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use django_sessions::caches::{Cache, CacheError, TimeLimits};
use servers::Servers;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
const SECOND: Option<Duration> = Some(Duration::from_secs(1));
const FOR_EVER: Option<Duration> = None;

/// Timeouts with which Django keeps nothing.
const AT_ONCE: [Option<Duration>; 2] = [Some(Duration::ZERO), Some(Duration::from_millis(999))];

/// Everything that a cache promises.
async fn conforms(cache: Arc<dyn Cache>) {
    stores_and_finds(&*cache).await;
    keeps_any_bytes(&*cache).await;
    keeps_nothing_without_time(&*cache).await;
    touches(&*cache).await;
    ends_on_time(&*cache).await;
    lets_one_of_many_add(cache.clone()).await;
    mixes_no_answers_up(cache).await;
}

async fn stores_and_finds(cache: &dyn Cache) {
    assert_eq!(cache.get("a").await.unwrap(), None);
    assert!(!cache.replace("a", b"never", MINUTE).await.unwrap(), "a missing key is not made");
    assert_eq!(cache.get("a").await.unwrap(), None);

    assert!(cache.add("a", b"first", MINUTE).await.unwrap());
    assert!(!cache.add("a", b"second", MINUTE).await.unwrap(), "a taken key is not overwritten");
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"first");

    assert!(cache.replace("a", b"third", FOR_EVER).await.unwrap());
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"third");
    cache.set("a", b"fourth", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"fourth");

    assert!(cache.delete("a").await.unwrap());
    assert!(!cache.delete("a").await.unwrap());
    assert!(!cache.replace("a", b"fifth", MINUTE).await.unwrap(), "what is deleted stays deleted");
    cache.set("a", b"sixth", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), b"sixth");
}

async fn keeps_any_bytes(cache: &dyn Cache) {
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for value in [&b""[..], b"\r\nEND\r\n", b" 42 ", &all] {
        // Any text of eight characters is a session key to Django.
        for key in ["bytes", ":1:django.contrib.sessions.cacheключ-🔑-é"] {
            cache.set(key, value, MINUTE).await.unwrap();
            assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(value), "{key}");
            assert!(cache.replace(key, value, MINUTE).await.unwrap());
            assert!(cache.touch(key, MINUTE).await.unwrap());
            assert!(cache.delete(key).await.unwrap());
        }
    }
}

async fn keeps_nothing_without_time(cache: &dyn Cache) {
    for at_once in AT_ONCE {
        cache.set("zero", b"old", MINUTE).await.unwrap();
        assert!(!cache.add("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap().unwrap(), b"old");
        assert!(cache.replace("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);
        assert!(!cache.replace("zero", b"new", at_once).await.unwrap());

        assert!(cache.add("zero", b"new", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);

        cache.set("zero", b"old", MINUTE).await.unwrap();
        cache.set("zero", b"new", at_once).await.unwrap();
        assert_eq!(cache.get("zero").await.unwrap(), None);

        cache.set("zero", b"old", MINUTE).await.unwrap();
        assert!(cache.touch("zero", at_once).await.unwrap());
        assert_eq!(cache.get("zero").await.unwrap(), None);
        assert!(!cache.touch("zero", at_once).await.unwrap());
    }
}

async fn touches(cache: &dyn Cache) {
    for timeout in [MINUTE, FOR_EVER] {
        assert!(!cache.touch("touched", timeout).await.unwrap());
        for before in [MINUTE, FOR_EVER] {
            cache.set("touched", b"value", before).await.unwrap();
            assert!(cache.touch("touched", timeout).await.unwrap(), "{before:?} to {timeout:?}");
            assert_eq!(cache.get("touched").await.unwrap().unwrap(), b"value");
        }
        cache.delete("touched").await.unwrap();
    }
}

async fn ends_on_time(cache: &dyn Cache) {
    let forty_days = Some(Duration::from_secs(60 * 60 * 24 * 40));
    for (key, timeout) in [("brief", SECOND), ("days", forty_days), ("ever", FOR_EVER), ("minute", MINUTE)] {
        cache.set(key, b"value", timeout).await.unwrap();
    }
    assert!(cache.add("added", b"value", SECOND).await.unwrap());
    for (key, before, after) in
        [("shortened", MINUTE, SECOND), ("prolonged", SECOND, MINUTE), ("freed", SECOND, FOR_EVER)]
    {
        cache.set(key, b"value", before).await.unwrap();
        assert!(cache.touch(key, after).await.unwrap());
    }
    cache.set("replaced", b"value", SECOND).await.unwrap();
    assert!(cache.replace("replaced", b"value", MINUTE).await.unwrap());

    // memcached's clock ticks once a second, so the end may be a second late.
    sleep(Duration::from_millis(2500)).await;
    for key in ["brief", "added", "shortened"] {
        assert_eq!(cache.get(key).await.unwrap(), None, "{key}");
        assert!(!cache.replace(key, b"value", MINUTE).await.unwrap(), "{key}");
    }
    for key in ["days", "ever", "minute", "prolonged", "freed", "replaced"] {
        assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(&b"value"[..]), "{key}");
    }
    assert!(cache.add("brief", b"value", MINUTE).await.unwrap(), "free again");
}

async fn lets_one_of_many_add(cache: Arc<dyn Cache>) {
    let mut racers = JoinSet::new();
    for racer in 0..32 {
        let cache = cache.clone();
        racers.spawn(async move { cache.add("raced", format!("{racer}").as_bytes(), MINUTE).await.unwrap() });
    }
    assert_eq!(racers.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

/// 48 tasks at once, a third of whose calls are dropped half-way: each answer is to the question that was asked.
async fn mixes_no_answers_up(cache: Arc<dyn Cache>) {
    let mut tasks = JoinSet::new();
    for task in 0..48u64 {
        let cache = cache.clone();
        tasks.spawn(async move {
            let key = format!("task-{task}");
            cache.set(&key, key.as_bytes(), MINUTE).await.unwrap();
            for round in 0..30 {
                if round % 3 == 0 {
                    let patience = Duration::from_micros((task * 37 + round * 211) % 900);
                    let _dropped = tokio::time::timeout(patience, cache.get(&key)).await;
                    continue;
                }
                assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(key.as_bytes()));
            }
        });
    }
    tasks.join_all().await;
}

/// A door to a server that the test can shut.
struct Door {
    address: String,
    guests: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl Door {
    async fn to(port: u32) -> Self {
        let port = u16::try_from(port).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let guests = Arc::new(tokio::sync::Mutex::new(JoinSet::new()));
        let inside = guests.clone();
        tokio::spawn(async move {
            while let Ok((mut guest, _)) = listener.accept().await {
                inside.lock().await.spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let _closed = copy_bidirectional(&mut guest, &mut server).await;
                });
            }
        });
        Self { address, guests }
    }

    /// Ends all connections, as a server that restarts. New ones are let in.
    async fn slam(&self) {
        self.guests.lock().await.shutdown().await;
    }
}

async fn survives_lost_connections(cache: &dyn Cache, door: &Door) {
    for value in [&b"1"[..], b"2", b"3"] {
        cache.set("lost", value, MINUTE).await.unwrap();
        door.slam().await;
        assert_eq!(cache.get("lost").await.unwrap().as_deref(), Some(value));
        door.slam().await;
        assert!(cache.replace("lost", b"again", MINUTE).await.unwrap());
        assert_eq!(cache.get("lost").await.unwrap().unwrap(), b"again");
    }
}

const SHORT: TimeLimits =
    TimeLimits { connect: Duration::from_millis(200), response: Duration::from_millis(200) };

/// A listener that accepts and says nothing, as a server that hangs; and its address.
async fn silence() -> (tokio::task::JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut guests = Vec::new();
        while let Ok((guest, _)) = listener.accept().await {
            guests.push(guest);
        }
    });
    (task, address)
}

/// A port on which nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn assert_soon(start: Instant) {
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[cfg(feature = "redis")]
mod redis {
    use std::path::Path;
    use std::process::Command;

    use django_sessions::caches::redis::RedisCache;
    use django_sessions::caches::{CACHE_KEY_PREFIX, CACHED_DB_KEY_PREFIX, KeyLayout};

    use super::*;

    async fn connect(url: &str) -> RedisCache {
        RedisCache::connect(url, TimeLimits::default()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn redis_conforms() {
        let Some(servers) = Servers::start(&["redis"]) else { return };
        conforms(Arc::new(connect(servers.text("redis", "url")).await)).await;
        let socket = format!("unix://{}", servers.text("redis", "socket"));
        stores_and_finds(&connect(&format!("{socket}?db=1")).await).await;
    }

    #[tokio::test]
    async fn lost_connections_are_made_again() {
        let Some(servers) = Servers::start(&["redis"]) else { return };
        let door = Door::to(servers.number("redis", "port")).await;
        let cache = connect(&format!("redis://{}/0", door.address)).await;
        survives_lost_connections(&cache, &door).await;
    }

    #[tokio::test]
    async fn a_server_that_is_gone_or_hangs_is_found_out_soon() {
        let Some(servers) = Servers::start(&["redis"]) else { return };
        let start = Instant::now();
        for address in [nobody().await, silence().await.1] {
            let error = RedisCache::connect(&format!("redis://{address}/0"), SHORT).await.unwrap_err();
            assert!(matches!(error, CacheError::Redis(_)), "{error:?}");
            assert!(std::error::Error::source(&error).is_some());
        }
        assert_soon(start);
        let cache = RedisCache::connect(servers.text("redis", "url"), SHORT).await.unwrap();
        let debug = ::redis::Client::open(servers.text("redis", "url")).unwrap();
        let mut debug = debug.get_multiplexed_async_connection().await.unwrap();
        let _: () = ::redis::cmd("CLIENT").arg("PAUSE").arg(1000).query_async(&mut debug).await.unwrap();
        let start = Instant::now();
        let Err(CacheError::Redis(error)) = cache.get("a").await else { panic!("it was paused") };
        assert!(error.is_timeout(), "{error}");
        assert_soon(start);
        drop(servers);
        let start = Instant::now();
        assert!(matches!(cache.get("a").await, Err(CacheError::Redis(_))));
        assert!(matches!(cache.get("a").await, Err(CacheError::Redis(_))));
        assert_soon(start);
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_read_is_an_error() {
        for url in ["", "127.0.0.1:6379", "memcached://127.0.0.1"] {
            assert!(matches!(RedisCache::connect(url, SHORT).await, Err(CacheError::Redis(_))), "{url}");
        }
    }

    /// Runs a line of Python with `cache`, Django's `RedisCache`, on this server, and returns what it prints.
    fn django(servers: &Servers, code: &str) -> String {
        let script = format!(
            "from django.conf import settings\n\
             settings.configure(SECRET_KEY='k', SESSION_ENGINE='django.contrib.sessions.backends.cache', CACHES={{\n\
             'default': {{'BACKEND': 'django.core.cache.backends.redis.RedisCache', 'LOCATION': '{url}'}},\n\
             'shop': {{'BACKEND': 'django.core.cache.backends.redis.RedisCache', 'LOCATION': '{url}',\n\
             'KEY_PREFIX': 'shop', 'VERSION': 2}}}})\n\
             from django.core.cache import cache, caches\n\
             {code}\n",
            url = servers.text("redis", "url"),
        );
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
        let output = Command::new(python).args(["-c", &script]).output().expect("run `make venv`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn django_reads_what_rust_wrote_and_the_reverse() {
        let Some(servers) = Servers::start(&["redis"]) else { return };
        let cache = connect(servers.text("redis", "url")).await;
        let (default, shop) = (KeyLayout::default(), KeyLayout::new("shop", 2));

        // Django stores integers as they are, and everything else as a pickle.
        cache.set(&default.make_key("visits"), b"41", MINUTE).await.unwrap();
        cache.set(&shop.make_key("visits"), b"7", FOR_EVER).await.unwrap();
        assert_eq!(django(&servers, "print(cache.get('visits'), caches['shop'].get('visits'))"), "41 7");
        assert_eq!(django(&servers, "print(cache.add('visits', 1), cache.incr('visits'))"), "False 42");
        assert_eq!(cache.get(&default.make_key("visits")).await.unwrap().unwrap(), b"42");
        let seconds: u32 =
            django(&servers, "print(cache._cache.get_client().ttl(':1:visits'))").parse().unwrap();
        assert!((50..=60).contains(&seconds), "{seconds}");
        assert_eq!(
            django(&servers, "print(cache._cache.get_client().ttl('shop:2:visits'))"),
            "-1",
            "no timeout"
        );

        django(&servers, "caches['shop'].set('orders', 1234, 60)");
        assert_eq!(cache.get(&shop.make_key("orders")).await.unwrap().unwrap(), b"1234");
        assert!(!cache.add(&shop.make_key("orders"), b"1", MINUTE).await.unwrap());
        django(&servers, "caches['shop'].delete('orders')");
        assert!(!cache.replace(&shop.make_key("orders"), b"1", MINUTE).await.unwrap());
    }

    #[tokio::test]
    async fn django_sessions_are_under_these_keys() {
        let Some(servers) = Servers::start(&["redis"]) else { return };
        let cache = connect(servers.text("redis", "url")).await;
        let prefixes = django(
            &servers,
            "from django.contrib.sessions.backends import cache as c\nprint(c.KEY_PREFIX)\n\
             settings.INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.sessions']\n\
             import django; django.setup()\n\
             from django.contrib.sessions.backends import cached_db as d\nprint(d.KEY_PREFIX)",
        );
        assert_eq!(prefixes.lines().collect::<Vec<_>>(), [CACHE_KEY_PREFIX, CACHED_DB_KEY_PREFIX]);

        // A session goes through Rust as the bytes that it is.
        let key = django(
            &servers,
            "from django.contrib.sessions.backends.cache import SessionStore\n\
             session = SessionStore(); session['cart'] = ['tea', 2**70]; session.save(); print(session.session_key)",
        );
        let stored = |key: &str| KeyLayout::default().make_key(&format!("{CACHE_KEY_PREFIX}{key}"));
        let pickle = cache.get(&stored(&key)).await.unwrap().expect("Django stored it there");
        cache.set(&stored("another-key"), &pickle, MINUTE).await.unwrap();
        assert!(cache.delete(&stored(&key)).await.unwrap());
        let seen = django(
            &servers,
            &format!(
                "from django.contrib.sessions.backends.cache import SessionStore\n\
                 print(SessionStore('{key}').load(), SessionStore('another-key').load())"
            ),
        );
        assert_eq!(seen, "{} {'cart': ['tea', 1180591620717411303424]}");
    }
}

#[cfg(feature = "memcached")]
mod memcached {
    use django_sessions::caches::memcached::MemcachedCache;
    use jiff::Timestamp;

    use super::*;

    async fn connect(servers: &Servers) -> MemcachedCache {
        let address = format!("127.0.0.1:{}", servers.number("memcached", "port"));
        MemcachedCache::connect(&address, TimeLimits::default()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memcached_conforms() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        conforms(Arc::new(connect(&servers).await)).await;
    }

    #[tokio::test]
    async fn lost_connections_are_made_again() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let door = Door::to(servers.number("memcached", "port")).await;
        let cache = MemcachedCache::connect(&door.address, TimeLimits::default()).await.unwrap();
        survives_lost_connections(&cache, &door).await;
    }

    #[tokio::test]
    async fn a_server_that_is_gone_or_hangs_is_found_out_soon() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let start = Instant::now();
        let error = MemcachedCache::connect(&nobody().await, SHORT).await.unwrap_err();
        assert!(matches!(error, CacheError::Memcached(_)), "{error:?}");
        let cache = MemcachedCache::connect(&silence().await.1, SHORT).await.unwrap();
        for _ in 0..2 {
            let error = cache.get("a").await.unwrap_err();
            assert!(matches!(error, CacheError::TimedOut { limit } if limit == SHORT.response), "{error:?}");
        }
        assert_soon(start);
        let cache = connect(&servers).await;
        drop(servers);
        let start = Instant::now();
        assert!(matches!(cache.get("a").await, Err(CacheError::Memcached(_))));
        assert_soon(start);
    }

    #[tokio::test]
    async fn keys_by_django_s_rule() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let cache = connect(&servers).await;
        let longest = "k".repeat(250);
        cache.set(&longest, b"value", MINUTE).await.unwrap();
        assert_eq!(cache.get(&longest).await.unwrap().unwrap(), b"value");
        let too_long = [format!("{longest}k"), "é".repeat(126)];
        let odd = ["a b", "a\r\nflush_all\r\n", "a\0", "a\x7f", "\t"].map(str::to_owned);
        for key in too_long.into_iter().chain(odd) {
            assert!(
                matches!(cache.set(&key, b"value", MINUTE).await, Err(CacheError::InvalidKey)),
                "{key:?}"
            );
            assert!(matches!(cache.get(&key).await, Err(CacheError::InvalidKey)), "{key:?}");
            assert!(matches!(cache.delete(&key).await, Err(CacheError::InvalidKey)), "{key:?}");
            assert!(matches!(cache.touch(&key, MINUTE).await, Err(CacheError::InvalidKey)), "{key:?}");
        }
        assert_eq!(cache.get(&longest).await.unwrap().unwrap(), b"value", "nothing was flushed");
    }

    #[tokio::test]
    async fn beyond_thirty_days_a_timeout_is_a_moment() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let days = |days: u64| Some(Duration::from_secs(60 * 60 * 24 * days));
        // By a clock that is fifty years behind, that moment is over.
        let behind =
            connect(&servers).await.with_clock(|| Timestamp::from_second(60 * 60 * 24 * 365).unwrap());
        for (timeout, is_kept) in [(days(30), true), (days(31), false)] {
            behind.set("days", b"value", timeout).await.unwrap();
            assert_eq!(behind.get("days").await.unwrap().is_some(), is_kept, "{timeout:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_leaves_no_old_value() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let cache = connect(&servers).await;
        cache.set("large", b"old", MINUTE).await.unwrap();
        let error = cache.set("large", &vec![b'x'; 2_000_000], MINUTE).await.unwrap_err();
        assert!(matches!(error, CacheError::Memcached(_)), "{error:?}");
        assert_eq!(cache.get("large").await.unwrap(), None);
    }

    #[tokio::test]
    async fn flags_say_what_the_bytes_are() {
        use async_memcached::{AsciiProtocol, Client};

        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let address = format!("tcp://127.0.0.1:{}", servers.number("memcached", "port"));
        let mut other = Client::new(address).await.unwrap();
        let cache = connect(&servers).await;
        cache.set("bytes", b"value", MINUTE).await.unwrap();
        cache.with_flags(1).set("pickle", b"N.", MINUTE).await.unwrap();
        for (key, flags) in [("bytes", 0), ("pickle", 1)] {
            assert_eq!(other.get(key).await.unwrap().unwrap().flags, Some(flags));
        }
    }
}
