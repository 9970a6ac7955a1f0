//! The cache engine over each shape: the suite of every store, and sessions before and after a failover.

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::KeyLayout;
use django_sessions::crypto::SecretKeys;
use django_sessions::session::Session;
use django_sessions::settings::Settings;

use super::*;

async fn store(settings: &RedisSettings, of_sessions: Settings) -> CacheStore {
    let cache = Arc::new(open(settings).await);
    CacheStore::new(cache, KeyLayout::default(), settings.format.clone(), of_sessions)
}

fn of_sessions() -> Settings {
    Settings::new(SecretKeys::new("a key for tests"))
}

#[cfg(feature = "conformance")]
async fn passes_the_suite(settings: &RedisSettings) {
    use django_sessions::conformance::{self, Capabilities, Clock, Options};

    let mut options = Options::new(Clock::real());
    options.capabilities = Capabilities::CACHE;
    let mut of_sessions = of_sessions();
    of_sessions.session_cookie_age = 8;
    options.cookie_age = 8;
    options.rounds = 10;
    let store = Arc::new(store(settings, of_sessions).await);
    conformance::run(&store, &options).await.unwrap();
}

#[cfg(feature = "conformance")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_passes() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    passes_the_suite(&one(&servers)).await;
}

#[cfg(feature = "conformance")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_with_replicas_passes() {
    let Some(servers) = Servers::start(&["redis_replicas"]) else { return };
    passes_the_suite(&RedisSettings { read_from_replicas: false, ..replicas(&servers) }).await;
}

#[cfg(feature = "conformance")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_passes() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    passes_the_suite(&RedisSettings { read_from_replicas: false, ..sentinel(&servers) }).await;
}

#[cfg(feature = "conformance")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_passes() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    passes_the_suite(&cluster(&servers)).await;
}

/// Nobody is logged out by a failover, and who was logged out before it stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_keeps_sessions() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let (ports, pids) =
        (servers.numbers("redis_sentinel", "ports"), servers.numbers("redis_sentinel", "pids"));
    let settings = RedisSettings { read_from_replicas: false, ..sentinel(&servers) };
    let store = store(&settings, of_sessions()).await;
    let mut sessions = Vec::new();
    for visitor in 0..20 {
        let mut session = Session::new();
        session.insert("visitor", &visitor).unwrap();
        store.save(&mut session).await.unwrap();
        sessions.push(session);
    }
    let mut gone = sessions.pop().unwrap();
    store.delete(gone.key().unwrap()).await.unwrap();
    while say::<u32>(ports[1], "DBSIZE") != 19 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    signal(pids[0], "KILL");
    let start = std::time::Instant::now();
    for (visitor, session) in sessions.iter_mut().enumerate() {
        let key = session.key().unwrap().clone();
        let mut found = loop {
            match store.load(&key).await {
                Ok(found) => break found,
                Err(StoreError::Cache(_)) => {
                    assert!(start.elapsed() < Duration::from_secs(20), "no failover")
                }
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(found.get::<usize>("visitor").unwrap(), Some(visitor), "logged out");
        found.insert("after", &true).unwrap();
        store.save(&mut found).await.unwrap();
    }
    gone.insert("after", &true).unwrap();
    assert!(matches!(store.save(&mut gone).await, Err(StoreError::Deleted)));
}
