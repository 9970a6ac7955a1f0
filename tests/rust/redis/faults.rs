//! Servers that are gone, hang, fail over, come back or are full.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

#[tokio::test]
async fn lost_connections_are_made_again() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let door = Door::to(servers.number("redis", "port")).await;
    let cache = open(&RedisSettings::new(format!("redis://{}/0", door.address))).await;
    survives_lost_connections(&cache, &door).await;
}

#[tokio::test]
async fn a_delete_whose_answer_is_lost() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let url =
        async || format!("redis://{}/0", losing_an_answer(servers.number("redis", "port"), b"DEL").await);
    owns_a_delete_whose_answer_is_lost(&open(&RedisSettings::new(url().await)).await).await;
    let client = redis::Client::open(url().await).unwrap();
    let manager = redis::aio::ConnectionManager::new(client).await.unwrap();
    owns_a_delete_whose_answer_is_lost(&RedisCache::new(manager)).await;
}

#[tokio::test]
async fn a_server_that_is_gone_or_hangs_is_found_out_soon() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let start = Instant::now();
    let error = RedisCache::connect(&format!("redis://{}/0", nobody().await), SHORT).await.unwrap_err();
    assert!(matches!(error, CacheError::Redis(_)), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
    let (_silence, address) = silence().await;
    let error = RedisCache::connect(&format!("redis://{address}/0"), SHORT).await.unwrap_err();
    assert!(matches!(error, CacheError::TimedOut { limit } if limit == SHORT.connect), "{error:?}");
    assert_soon(start);
    let cache = RedisCache::connect(servers.text("redis", "url"), SHORT).await.unwrap();
    let debug = ::redis::Client::open(servers.text("redis", "url")).unwrap();
    let mut debug = debug.get_multiplexed_async_connection().await.unwrap();
    let _: () = ::redis::cmd("CLIENT").arg("PAUSE").arg(1000).query_async(&mut debug).await.unwrap();
    let start = Instant::now();
    let error = cache.get("a").await.unwrap_err();
    assert!(matches!(error, CacheError::TimedOut { limit } if limit == SHORT.response), "{error:?}");
    assert_soon(start);
    drop(servers);
    let start = Instant::now();
    assert!(matches!(cache.get("a").await, Err(CacheError::Redis(_))));
    assert!(matches!(cache.get("a").await, Err(CacheError::Redis(_))));
    assert_soon(start);
}

/// Short limits, so that the tests are.
pub(crate) fn impatient(settings: RedisSettings) -> RedisSettings {
    RedisSettings {
        socket_timeout: Some(0.3),
        socket_connect_timeout: Some(0.3),
        read_from_replicas: false,
        ..settings
    }
}

/// The limits of one command: an answer, and a connection and an answer more if the first one was lost.
const LONGEST: Duration = Duration::from_millis(300 * 3 + 300);

async fn assert_within_limits(cache: &RedisCache, key: &str) {
    let start = Instant::now();
    let error = cache.get(key).await.unwrap_err();
    assert!(matches!(error, CacheError::TimedOut { .. } | CacheError::Redis(_)), "{error:?}");
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_server_is_paused_nobody_waits_longer_than_the_limits() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&impatient(one(&servers))).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    let pid = servers.number("redis", "pid");
    signal(pid, "STOP");
    // With the old connection, with a new one, and with many who wait for one together.
    assert_within_limits(&cache, "key").await;
    assert_within_limits(&cache, "key").await;
    let start = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let cache = cache.clone();
        waiting.spawn(async move { cache.get("key").await.unwrap_err() });
    }
    waiting.join_all().await;
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    signal(pid, "CONT");
    assert_eq!(cache.get("key").await.unwrap().unwrap(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_paused_the_rest_of_the_cluster_answers() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    let cache = open(&impatient(cluster(&servers))).await;
    let keys: Vec<_> = (0..30).map(|number| format!("key {number}")).collect();
    for key in &keys {
        cache.set(key, key.as_bytes(), MINUTE).await.unwrap();
    }
    // Each node has a third of the slots.
    let port = servers.number("redis_cluster", "port");
    let node = |key: &str| say_words::<u32>(port, &["CLUSTER", "KEYSLOT", key]) * 3 / 16384;
    let (paused, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| node(key) == 1);
    assert!(paused.len() > 3 && others.len() > 3);
    let pid = servers.numbers("redis_cluster", "pids")[1];
    signal(pid, "STOP");
    for key in others {
        assert_eq!(cache.get(key).await.unwrap().unwrap(), key.as_bytes());
    }
    assert_within_limits(&cache, paused[0]).await;
    signal(pid, "CONT");
    let start = Instant::now();
    while cache.get(paused[0]).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(50)).await;
    }
    for key in &keys {
        assert_eq!(cache.get(key).await.unwrap().unwrap(), key.as_bytes());
    }
}

struct Restarted(Child);

impl Drop for Restarted {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_used_again() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&impatient(one(&servers))).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    signal(servers.number("redis", "pid"), "KILL");
    for _ in 0..3 {
        assert_within_limits(&cache, "key").await;
    }
    let port = servers.number("redis", "port").to_string();
    let again = Command::new(servers.text("redis", "program"))
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--logfile", "/dev/null"])
        .spawn();
    let _again = Restarted(again.unwrap());
    let start = Instant::now();
    while cache.get("key").await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(20)).await;
    }
    cache.set("key", b"again", MINUTE).await.unwrap();
    assert_eq!(cache.get("key").await.unwrap().unwrap(), b"again");
}

/// Writes until that succeeds, and says how long it took. Each attempt keeps its limits.
async fn until_it_works(cache: &RedisCache) -> Duration {
    until_written(cache, "after").await
}

pub(crate) async fn until_written(cache: &RedisCache, key: &str) -> Duration {
    let start = Instant::now();
    until_answered(async || {
        let attempt = Instant::now();
        let written = cache.set(key, b"failover", MINUTE).await;
        assert!(attempt.elapsed() < LONGEST, "{:?}", attempt.elapsed());
        written
    })
    .await;
    start.elapsed()
}

/// Tries over a failover until there is an answer. Until all nodes have heard of it, one may send a client to the dead
/// primary.
pub(crate) async fn until_answered<T>(mut attempt: impl AsyncFnMut() -> Result<T, CacheError>) -> T {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(CacheError::TimedOut { .. } | CacheError::Redis(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no failover");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A primary that dies, or that hangs so that its connections stay, is replaced, and what was in it is found again.
async fn follows_a_failover(how: &str) {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let (ports, pids) =
        (servers.numbers("redis_sentinel", "ports"), servers.numbers("redis_sentinel", "pids"));
    let mut settings = sentinel(&servers);
    // One sentinel that is down must not be in the way.
    settings.sentinels.insert(0, ("127.0.0.1".to_owned(), 1));
    let careful = open(&impatient(settings.clone())).await;
    let reads_replicas = open(&RedisSettings { read_from_replicas: true, ..impatient(settings) }).await;
    let nodes = sentinel_ports(&servers).iter().map(|port| format!("redis://127.0.0.1:{port}")).collect();
    let client = SentinelClient::build(nodes, "mymaster", None, SentinelServerType::Master).unwrap();
    let limits = TimeLimits { connect: Duration::from_millis(300), response: Duration::from_millis(300) };
    let given = RedisCache::sentinel(client, limits);

    let keys: Vec<_> = (0..50).map(|number| format!("before {number}")).collect();
    for key in &keys {
        careful.set(key, key.as_bytes(), MINUTE).await.unwrap();
        given.get(key).await.unwrap().unwrap();
        reads_replicas.get(key).await.unwrap();
    }
    while say::<u32>(ports[1], "DBSIZE") < 50 {
        sleep(Duration::from_millis(10)).await;
    }
    signal(pids[0], how);
    let took = until_it_works(&careful).await;
    println!("{how}: writes work again after {took:?}");
    for cache in [&careful, &reads_replicas, &given] {
        until_it_works(cache).await;
        for key in &keys {
            assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(key.as_bytes()), "{key}");
            assert!(cache.replace(key, key.as_bytes(), MINUTE).await.unwrap());
        }
    }
    assert_eq!(say::<String>(ports[1], "GET after"), "failover");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_from_a_dead_primary_is_followed() {
    follows_a_failover("KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_from_a_primary_that_hangs_is_followed() {
    follows_a_failover("STOP").await;
}

pub(crate) const CLUSTER: &str = "redis_cluster+replicas";

/// The shard of each key, of which each has a third of the slots.
pub(crate) fn by_shard(servers: &Servers, keys: &[String]) -> [Vec<String>; 3] {
    let port = servers.numbers(CLUSTER, "ports")[2];
    let mut shards = [const { Vec::new() }; 3];
    for key in keys {
        let slot: usize = say_words(port, &["CLUSTER", "KEYSLOT", key]);
        shards[slot * 3 / 16384].push(key.clone());
    }
    assert!(shards.iter().all(|keys| keys.len() > 10));
    shards
}

/// Until each replica has as many keys as its primary.
pub(crate) async fn until_replicated(ports: &[u32]) {
    for shard in 0..3 {
        while say::<u32>(ports[shard], "DBSIZE") != say::<u32>(ports[shard + 3], "DBSIZE") {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Asks for keys until it is told to stop. Each answer belongs to its key and comes within the limits. Returns how many
/// there were, and how many errors.
fn asks_for(cache: &RedisCache, keys: &[String], stop: &Arc<AtomicBool>) -> JoinHandle<[u32; 2]> {
    let (cache, keys, stop) = (cache.clone(), keys.to_vec(), stop.clone());
    tokio::spawn(async move {
        let mut counts = [0, 0];
        for key in keys.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let start = Instant::now();
            let found = cache.get(key).await;
            assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
            match found {
                Ok(found) => assert_eq!(found.as_deref(), Some(key.as_bytes()), "{key}"),
                Err(CacheError::TimedOut { .. } | CacheError::Redis(_)) => counts[1] += 1,
                Err(error) => panic!("{error:?}"),
            }
            counts[0] += 1;
            sleep(Duration::from_millis(5)).await;
        }
        counts
    })
}

/// The primary of a shard dies, or hangs so that its connections stay; its replica takes over.
async fn follows_a_failover_within_a_cluster(how: &str) {
    let Some(servers) = Servers::start(&[CLUSTER]) else { return };
    let (ports, pids) = (servers.numbers(CLUSTER, "ports"), servers.numbers(CLUSTER, "pids"));
    let settings = impatient(cluster_of(&servers, CLUSTER));
    // The way into the Cluster is the one that will be gone.
    let way_in = RedisSettings::new(format!("redis://127.0.0.1:{}", ports[1])).location;
    let cache = open(&RedisSettings { location: way_in, ..settings.clone() }).await;
    let keys: Vec<_> = (0..90).map(|number| format!("before {number}")).collect();
    let mut shards = by_shard(&servers, &keys);
    for key in &keys {
        cache.set(key, key.as_bytes(), MINUTE).await.unwrap();
    }
    let (deleted, written) = (shards[1].pop().unwrap(), shards[1].pop().unwrap());
    assert!(cache.delete(&deleted).await.unwrap());
    until_replicated(&ports).await;

    let stop = Arc::new(AtomicBool::new(false));
    let asking = shards.each_ref().map(|keys| asks_for(&cache, keys, &stop));
    signal(pids[1], how);
    let took = until_written(&cache, &written).await;
    println!("{how}: writes work again after {took:?}");
    // One that is opened while the old primary is still gone.
    let late = open(&settings).await;
    assert_eq!(late.get(&written).await.unwrap().unwrap(), b"failover");
    stop.store(true, Ordering::Relaxed);
    for (shard, asking) in asking.into_iter().enumerate() {
        let [asked, errors] = asking.await.unwrap();
        println!("{how}: of shard {shard} {asked} were asked for, with {errors} errors");
        // Some there are: a Cluster refuses everything while it has not all of its slots.
        assert!(shard == 1 || errors * 5 < asked, "shard {shard}: {errors} of {asked}");
    }
    for cache in [&cache, &late] {
        for key in shards.iter().flatten() {
            assert_eq!(cache.get(key).await.unwrap().as_deref(), Some(key.as_bytes()), "{key}");
            assert!(cache.replace(key, key.as_bytes(), MINUTE).await.unwrap());
        }
        assert!(!cache.replace(&deleted, b"back", MINUTE).await.unwrap());
        assert_eq!(cache.get(&deleted).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_within_a_cluster_from_a_dead_primary_is_followed() {
    follows_a_failover_within_a_cluster("KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_within_a_cluster_from_a_primary_that_hangs_is_followed() {
    follows_a_failover_within_a_cluster("STOP").await;
}

/// Nothing dies here: the primary and the replica change their roles.
#[tokio::test]
async fn a_primary_that_became_a_replica_is_left() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let ports = servers.numbers("redis_sentinel", "ports");
    let cache = open(&impatient(sentinel(&servers))).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    let () = say(sentinel_ports(&servers)[0], "SENTINEL FAILOVER mymaster");
    let start = Instant::now();
    // The sentinel that gives a server another role ends the connections of all others.
    let is_replica = || {
        let ask = |mut server| ::redis::cmd("ROLE").query::<(String, String, u16, String, i64)>(&mut server);
        direct(ports[0]).and_then(ask).is_ok_and(|role| role.0 == "slave")
    };
    while !is_replica() {
        assert!(start.elapsed() < Duration::from_secs(20), "no failover");
        let _answer_or_error = cache.set("key", b"meanwhile", MINUTE).await;
        sleep(Duration::from_millis(20)).await;
    }
    until_it_works(&cache).await;
    assert_eq!(say::<String>(ports[1], "GET after"), "failover");
}

/// Without sentinels there is nobody to ask: the answer is an error, until the server is the primary again.
#[tokio::test]
async fn a_replica_refuses_writes() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&impatient(one(&servers))).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    let port = servers.number("redis", "port");
    let () = say(port, "REPLICAOF 127.0.0.1 1");
    let error = cache.set("key", b"other", MINUTE).await.unwrap_err();
    let CacheError::Redis(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some("READONLY"));
    assert_eq!(cache.get("key").await.unwrap().unwrap(), b"value");
    let () = say(port, "REPLICAOF NO ONE");
    cache.set("key", b"other", MINUTE).await.unwrap();
}

#[tokio::test]
async fn a_full_server_refuses_and_loses_nothing() {
    let Some(servers) = Servers::start(&["redis+maxmemory"]) else { return };
    let cache = open(&RedisSettings::new(servers.text("redis+maxmemory", "url"))).await;
    cache.set("small", b"old", MINUTE).await.unwrap();
    let big = vec![b'.'; 100_000];
    let mut number = 0;
    let error = loop {
        match cache.add(&format!("big {number}"), &big, MINUTE).await {
            Ok(added) => assert!(added && number < 1_000),
            Err(error) => break error,
        }
        number += 1;
    };
    let CacheError::Redis(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some("OOM"));
    assert!(cache.set("small", &big, MINUTE).await.is_err());
    assert!(cache.replace("small", &big, MINUTE).await.is_err());
    assert_eq!(cache.get("small").await.unwrap().unwrap(), b"old");
    for earlier in 0..number {
        assert_eq!(cache.get(&format!("big {earlier}")).await.unwrap().unwrap(), big);
    }
    assert!(cache.delete("big 0").await.unwrap());
    cache.set("small", b"new", MINUTE).await.unwrap();
}

#[tokio::test]
async fn sentinels_that_do_not_know_are_errors() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let unknown = RedisSettings { service_name: Some("other".to_owned()), ..sentinel(&servers) };
    let error = RedisCache::open(&unknown).await.unwrap_err();
    let CacheError::Redis(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("other"), "{error}");
    let mut not_sentinels = sentinel(&servers);
    not_sentinels.sentinels = vec![("127.0.0.1".to_owned(), servers.number("redis_sentinel", "port") as u16)];
    assert!(matches!(RedisCache::open(&not_sentinels).await, Err(CacheError::Redis(_))));
    // A name in the settings wins over the address, which may be anything then.
    let named = RedisSettings {
        service_name: Some("mymaster".to_owned()),
        location: "redis://anything/2".into(),
        read_from_replicas: false,
        ..sentinel(&servers)
    };
    stores_and_finds_again(&open(&named).await).await;
}
