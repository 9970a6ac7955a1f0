//! The caches on real servers. Redis has a file of its own.

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod cache_cases;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;
#[cfg(feature = "memcached")]
mod signals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_cases::*;
use django_sessions::caches::{Cache, CacheError, TimeLimits};
use servers::Servers;

#[cfg(feature = "memcached")]
mod memcached {
    use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings};
    use jiff::Timestamp;

    use super::signals::signal;
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

    /// Three servers with short limits, and the cache over them.
    fn three() -> Option<(Servers, Vec<String>, MemcachedCache)> {
        let servers = Servers::start(&["memcached_three"])?;
        let ports = servers.numbers("memcached_three", "ports");
        let location: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut settings = MemcachedSettings::new(location.clone());
        (settings.connect_timeout, settings.timeout) = (0.3, 0.3);
        Some((servers, location, MemcachedCache::open(&settings).unwrap()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn three_memcached_conform() {
        let Some(servers) = Servers::start(&["memcached_three"]) else { return };
        let ports = servers.numbers("memcached_three", "ports");
        let settings = MemcachedSettings::new(ports.iter().map(|port| format!("127.0.0.1:{port}")));
        conforms(Arc::new(MemcachedCache::open(&settings).unwrap())).await;
    }

    /// Sets 60 keys to `value` and returns which of them failed.
    async fn fails_to_set(cache: &MemcachedCache, value: &[u8]) -> Vec<String> {
        let mut failed = Vec::new();
        for number in 0..60 {
            let key = format!("key-{number}");
            if cache.set(&key, value, MINUTE).await.is_err() {
                failed.push(key);
            }
        }
        failed
    }

    #[tokio::test]
    async fn what_one_of_three_does_not_take_goes_to_no_other() {
        let Some((servers, location, cache)) = three() else { return };
        assert_eq!(fails_to_set(&cache, b"first").await, [""; 0]);

        let pid = servers.numbers("memcached_three", "pids")[1];
        signal(pid, "STOP");
        let start = Instant::now();
        let (mut stopped, mut others) = (0, 0);
        for number in 0..12 {
            match cache.get(&format!("key-{number}")).await {
                Ok(found) => others += usize::from(found.unwrap() == b"first"),
                Err(CacheError::TimedOut { .. }) => stopped += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(stopped > 0 && others > 0 && stopped + others == 12, "{stopped} and {others}");
        assert!(start.elapsed() < Duration::from_millis(12 * 300 + 1000), "{:?}", start.elapsed());
        signal(pid, "CONT");
        for number in 0..60 {
            assert_eq!(
                cache.get(&format!("key-{number}")).await.unwrap().unwrap(),
                b"first",
                "no answer is late"
            );
        }

        signal(pid, "KILL");
        let failed = fails_to_set(&cache, b"second").await;
        assert!(failed.len() > 5 && failed.len() < 40, "{}", failed.len());
        for address in [&location[0], &location[2]] {
            let one = MemcachedCache::connect(address, TimeLimits::default()).await.unwrap();
            for key in &failed {
                assert_eq!(one.get(key).await.unwrap(), None, "{key}");
            }
        }
        assert_eq!(fails_to_set(&cache, b"third").await, failed, "and none of them moved");
    }

    #[tokio::test]
    async fn lost_connections_are_made_again() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let door = Door::to(servers.number("memcached", "port")).await;
        let cache = MemcachedCache::connect(&door.address, TimeLimits::default()).await.unwrap();
        survives_lost_connections(&cache, &door).await;
    }

    #[tokio::test]
    async fn a_delete_whose_answer_is_lost() {
        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let address = losing_an_answer(servers.number("memcached", "port"), b"delete").await;
        let cache = MemcachedCache::connect(&address, TimeLimits::default()).await.unwrap();
        owns_a_delete_whose_answer_is_lost(&cache).await;
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
        assert!(matches!(error, CacheError::TooLarge { size: 2_000_000 }), "{error:?}");
        assert_eq!(cache.get("large").await.unwrap(), None);
    }

    #[tokio::test]
    async fn flags_say_what_the_bytes_are() {
        use async_memcached::{Client, MetaProtocol};

        let Some(servers) = Servers::start(&["memcached"]) else { return };
        let address = format!("tcp://127.0.0.1:{}", servers.number("memcached", "port"));
        let mut other = Client::new(address).await.unwrap();
        let cache = connect(&servers).await;
        cache.set("pickle", b"N.", MINUTE).await.unwrap();
        let found = other.meta_get("pickle", false, None, Some(&["v", "f"])).await.unwrap().unwrap();
        assert_eq!((found.flags, found.data.as_deref()), (Some(1), Some(&b"N."[..])));
        for (flags, what) in [(0, "bytes"), (2, "an integer"), (16, "a text"), (32, "something unknown")] {
            other.meta_set("other", &b"7"[..], false, None, Some(&[&format!("F{flags}")])).await.unwrap();
            let error = cache.get("other").await.unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[cfg(feature = "_sql")]
mod db {
    use django_sessions::backends::db::{Pool, Vendor};
    use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};
    use sqlx::AssertSqlSafe;

    use super::*;

    /// A cache over a new table, which is as `createcachetable` makes it with this database's types.
    async fn cache(pool: Pool, types: [&str; 3]) -> DbCache {
        let [key, value, date] = types;
        let statement = format!(
            "CREATE TABLE cache (cache_key {key} NOT NULL PRIMARY KEY, value {value} NOT NULL, expires {date} NOT NULL)"
        );
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        match pool.vendor() {
            #[cfg(feature = "sqlite")]
            Vendor::Sqlite => drop(statement.execute(pool.sqlite().unwrap()).await.unwrap()),
            #[cfg(feature = "postgres")]
            Vendor::Postgres => drop(statement.execute(pool.postgres().unwrap()).await.unwrap()),
            #[cfg(feature = "mysql")]
            Vendor::MySql => drop(statement.execute(pool.mysql().unwrap()).await.unwrap()),
            _ => unreachable!("no other database is known"),
        }
        DbCache::new(pool, &DatabaseCacheSettings::new("cache"))
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sqlite3");
        std::fs::File::create(&path).unwrap();
        let pool = Pool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        conforms_with_fractions(Arc::new(cache(pool, ["varchar(255)", "text", "datetime"]).await)).await;
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn postgres_conforms() {
        let Some(servers) = Servers::start(&["postgres"]) else { return };
        let pool = Pool::connect(servers.text("postgres", "url")).await.unwrap();
        let cache = cache(pool, ["varchar(255)", "text", "timestamp with time zone"]).await;
        conforms_with_fractions(Arc::new(cache.clone())).await;

        // What PostgreSQL cannot hold is missing, and refused where it would have to be stored.
        for key in ["a\0b".to_owned(), "k".repeat(256)] {
            assert_eq!(cache.get(&key).await.unwrap(), None);
            assert!(!cache.delete(&key).await.unwrap());
            assert!(matches!(cache.set(&key, b"", MINUTE).await, Err(CacheError::InvalidKey)));
            assert!(matches!(cache.add(&key, b"", MINUTE).await, Err(CacheError::InvalidKey)));
        }
    }

    #[cfg(feature = "mysql")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn mariadb_conforms() {
        let Some(servers) = Servers::start(&["mariadb"]) else { return };
        let pool = Pool::connect(servers.text("mariadb", "url")).await.unwrap();
        let cache = cache(pool, ["varchar(255)", "longtext", "datetime(6)"]).await;
        conforms_with_fractions(Arc::new(cache.clone())).await;

        // The collation takes these for one key. Django does not find one under the other.
        cache.set("Key", b"upper", MINUTE).await.unwrap();
        assert_eq!(cache.get("key").await.unwrap(), None);
        assert!(!cache.replace("key", b"lower", MINUTE).await.unwrap());
        assert_eq!(cache.get("Key").await.unwrap().unwrap(), b"upper");
    }

    /// Many make room at once, in small tables: locks are waited for, and deadlocks passed over.
    #[cfg(all(feature = "postgres", feature = "mysql"))]
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_make_room_at_once() {
        for (server, types) in [
            ("postgres", ["varchar(255)", "text", "timestamp with time zone"]),
            ("mariadb", ["varchar(255)", "longtext", "datetime(6)"]),
        ] {
            let Some(servers) = Servers::start(&[server]) else { continue };
            let pool = Pool::connect(servers.text(server, "url")).await.unwrap();
            let _table = cache(pool.clone(), types).await;
            let mut settings = DatabaseCacheSettings::new("cache");
            settings.max_entries = 10;
            let cache = DbCache::new(pool, &settings);
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..8 {
                let cache = cache.clone();
                tasks.spawn(async move {
                    for round in 0..25 {
                        let key = format!("key-{}", (task * 31 + round * 7) % 40);
                        cache.set(&key, b"}.", MINUTE).await.unwrap();
                        cache.replace(&key, b"}.", MINUTE).await.unwrap();
                    }
                });
            }
            tasks.join_all().await;
        }
    }
}

#[cfg(feature = "filebased")]
mod filebased {
    use django_sessions::caches::filebased::{FileBasedCache, FileBasedSettings};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn files_conform() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("cache");
        let cache = FileBasedCache::open(&FileBasedSettings::new(&location)).unwrap();
        conforms_with_fractions(Arc::new(cache.clone())).await;

        let brief = Some(Duration::from_millis(300));
        cache.set("brief", b"value", brief).await.unwrap();
        assert!(cache.get("brief").await.unwrap().is_some());
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(cache.get("brief").await.unwrap().is_none());

        // The file of what is over is taken away by one of them, and never what was added since.
        let shared: Arc<dyn Cache> = Arc::new(cache.clone());
        for round in 0..100 {
            let key = format!("over-{round}");
            cache.set(&key, b"value", Some(Duration::ZERO)).await.unwrap();
            assert_eq!(adders(&shared, &key).await, 1);
        }

        // Dropped or not, nobody leaves a temporary file behind.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for entry in std::fs::read_dir(&location).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.ends_with(".djcache"), "{name}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_an_error() {
        let error = FileBasedCache::open(&FileBasedSettings::default()).unwrap_err();
        assert!(matches!(error, CacheError::Settings(_)), "{error:?}");
        let cache = FileBasedCache::open(&FileBasedSettings::new("/dev/null/cache")).unwrap();
        let error = cache.set("key", b"value", MINUTE).await.unwrap_err();
        assert!(matches!(error, CacheError::Io(_)), "{error:?}");
    }
}

#[cfg(feature = "locmem")]
mod locmem {
    use std::sync::atomic::{AtomicI64, Ordering};

    use django_sessions::caches::locmem::{LocMemCache, LocMemSettings};
    use jiff::Timestamp;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn locmem_conforms() {
        conforms_with_fractions(Arc::new(LocMemCache::open(&LocMemSettings::default()).unwrap())).await;
    }

    fn small(max_entries: u64, cull_frequency: u64) -> LocMemCache {
        let mut settings = LocMemSettings::default();
        (settings.max_entries, settings.cull_frequency) = (max_entries, cull_frequency);
        LocMemCache::open(&settings).unwrap()
    }

    async fn left(cache: &LocMemCache) -> String {
        let mut left = String::new();
        for key in ["a", "b", "c", "d", "e"] {
            if cache.get(key).await.unwrap().is_some() {
                left.push_str(key);
            }
        }
        left
    }

    #[tokio::test]
    async fn the_least_recently_used_go_first() {
        for (frequency, expected) in [(4, "acde"), (2, "ade"), (1, "e"), (0, "e"), (9, "abcde")] {
            let cache = small(4, frequency);
            for key in ["a", "b", "c", "d"] {
                cache.set(key, b"value", FOR_EVER).await.unwrap();
            }
            cache.get("a").await.unwrap();
            cache.touch("b", MINUTE).await.unwrap(); // does not count, as in Django
            cache.set("e", b"value", FOR_EVER).await.unwrap();
            assert_eq!(left(&cache).await, expected, "CULL_FREQUENCY = {frequency}");
        }
    }

    #[tokio::test]
    async fn time_is_the_clock_s() {
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let reader = now.clone();
        let clock = move || Timestamp::from_millisecond(reader.load(Ordering::Relaxed)).unwrap();
        let cache = LocMemCache::open(&LocMemSettings::default()).unwrap().with_clock(clock);
        cache.set("half", b"value", Some(Duration::from_millis(500))).await.unwrap();
        now.fetch_add(499, Ordering::Relaxed);
        assert!(cache.get("half").await.unwrap().is_some());
        now.fetch_add(1, Ordering::Relaxed);
        assert!(cache.get("half").await.unwrap().is_none());
    }
}
