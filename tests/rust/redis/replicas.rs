//! Reading from replicas.

use super::*;

/// Reads until the replicas have what was written, for they lag behind.
async fn read_until(cache: &RedisCache, key: &str, value: &[u8]) {
    let start = std::time::Instant::now();
    // Several times without a miss in between: each replica must have it.
    let mut found = 0;
    while found < 8 {
        if cache.get(key).await.unwrap().as_deref() == Some(value) {
            found += 1;
            continue;
        }
        found = 0;
        assert!(start.elapsed() < Duration::from_secs(5), "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Connects the replicas, which happens behind the first reads.
async fn warm_up(cache: &RedisCache) {
    for _ in 0..4 {
        cache.get("anything").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn reads_go_to_the_replicas_in_turn_and_writes_to_the_primary() {
    let Some(servers) = Servers::start(&["redis_replicas"]) else { return };
    let ports = servers.numbers("redis_replicas", "ports");
    let cache = open(&replicas(&servers)).await;
    warm_up(&cache).await;
    let before: Vec<_> = ports.iter().map(|port| gets(*port)).collect();
    for number in 0..10 {
        cache.set(&format!("key {number}"), b"value", MINUTE).await.unwrap();
        assert!(!cache.add(&format!("key {number}"), b"other", MINUTE).await.unwrap());
        assert!(cache.touch(&format!("key {number}"), FOR_EVER).await.unwrap());
        cache.get(&format!("key {number}")).await.unwrap();
    }
    let asked: Vec<_> = ports.iter().zip(before).map(|(port, before)| gets(*port) - before).collect();
    assert_eq!(asked, [0, 5, 5]);
    read_until(&cache, "key 9", b"value").await;

    let careful = open(&RedisSettings { read_from_replicas: false, ..replicas(&servers) }).await;
    warm_up(&careful).await;
    let before: Vec<_> = ports.iter().map(|port| gets(*port)).collect();
    for _ in 0..10 {
        assert_eq!(careful.get("key 9").await.unwrap().unwrap(), b"value");
    }
    let asked: Vec<_> = ports.iter().zip(before).map(|(port, before)| gets(*port) - before).collect();
    assert_eq!(asked, [10, 0, 0]);
}

#[tokio::test]
async fn sentinels_lead_to_a_replica() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let ports = servers.numbers("redis_sentinel", "ports");
    let cache = open(&sentinel(&servers)).await;
    warm_up(&cache).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    let before = gets(ports[0]);
    read_until(&cache, "key", b"value").await;
    assert_eq!(gets(ports[0]), before);
    assert!(gets(ports[1]) >= 8);
}

/// A replica that hangs costs the requests one limit, and one that is gone costs them nothing.
#[tokio::test]
async fn where_replicas_fail_the_primary_is_read() {
    let Some(servers) = Servers::start(&["redis_replicas"]) else { return };
    let pids = servers.numbers("redis_replicas", "pids");
    let settings = RedisSettings { socket_timeout: Some(0.2), ..replicas(&servers) };
    let cache = open(&settings).await;
    cache.set("key", b"value", MINUTE).await.unwrap();
    warm_up(&cache).await;
    read_until(&cache, "key", b"value").await;

    signal(pids[1], "STOP");
    let start = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(cache.get("key").await.unwrap().unwrap(), b"value");
    }
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    signal(pids[1], "CONT");

    signal(pids[1], "KILL");
    signal(pids[2], "KILL");
    let start = std::time::Instant::now();
    for number in 0..50 {
        cache.set("key", format!("{number}").as_bytes(), MINUTE).await.unwrap();
        assert_eq!(cache.get("key").await.unwrap().unwrap(), format!("{number}").as_bytes());
    }
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());

    // A service starts without them, too.
    let late = open(&settings).await;
    assert_eq!(late.get("key").await.unwrap().unwrap(), b"49");
}
