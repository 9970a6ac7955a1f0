//! Which keys there are: on one server, behind sentinels and in a Cluster, also while that changes.

use std::collections::BTreeSet;
use std::time::Instant;

use super::faults::{CLUSTER, by_shard, impatient, until_answered, until_replicated, until_written};
use super::*;

const HEAD: &str = "sh[op]:1:";

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{HEAD}key {number}")).collect()
}

async fn fill(cache: &RedisCache, keys: &[String]) {
    for key in keys {
        cache.set(key, key.as_bytes(), MINUTE).await.unwrap();
    }
    for other in ["sho:1:key", "sh[op]:2:key", "o:1:key"] {
        cache.set(other, b"another's", MINUTE).await.unwrap();
    }
}

type Listed = (BTreeSet<String>, Vec<String>);

/// All keys from a place on, and the places after each page.
async fn try_listed(cache: &RedisCache, from: &str) -> Result<Listed, CacheError> {
    let (mut all, mut places) = (BTreeSet::new(), Vec::new());
    let mut from = Some(from.to_owned());
    while let Some(cursor) = from {
        let (keys, next) = cache.scan(HEAD, &cursor, 50).await?;
        all.extend(keys);
        places.extend(next.clone());
        from = next;
    }
    Ok((all, places))
}

async fn listed(cache: &RedisCache, from: &str) -> Listed {
    try_listed(cache, from).await.unwrap()
}

fn set(keys: &[String]) -> BTreeSet<String> {
    keys.iter().cloned().collect()
}

/// Says which are missing, of many.
fn assert_all(listed: &BTreeSet<String>, wanted: &BTreeSet<String>) {
    let missing: Vec<_> = wanted.difference(listed).collect();
    assert!(missing.is_empty(), "{} of {} are left out, as {}", missing.len(), wanted.len(), missing[0]);
}

/// All of these and no other.
fn assert_same(listed: &BTreeSet<String>, wanted: &BTreeSet<String>) {
    assert_all(listed, wanted);
    assert_eq!(listed.len(), wanted.len());
}

/// From each place on, the keys are listed that were not before; another process may do that.
async fn lists_and_goes_on(settings: &RedisSettings) {
    let (cache, keys) = (open(settings).await, keys(700));
    fill(&cache, &keys).await;
    let (all, places) = listed(&cache, "").await;
    assert_same(&all, &set(&keys));
    assert!(places.len() > 10, "{}", places.len());
    let (mut before, mut from) = (BTreeSet::new(), String::new());
    for place in places {
        let (page, next) = open(settings).await.scan(HEAD, &from, 50).await.unwrap();
        assert!(page.len() < 200, "{}", page.len());
        assert_eq!(next.as_ref(), Some(&place), "the same place after the same page");
        assert!(!keys.iter().any(|key| place.contains(key.as_str())), "{place}");
        before.extend(page);
        let (rest, _) = listed(&cache, &place).await;
        assert_same(&before.union(&rest).cloned().collect(), &all);
        from = place;
    }
    // What is no place is the beginning.
    for nowhere in ["17", "x", "0-5;0-5;x", "0-5;0-99999;abc:17"] {
        assert_same(&listed(&cache, nowhere).await.0, &all);
    }
}

#[tokio::test]
async fn one_server_is_listed() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    lists_and_goes_on(&one(&servers)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_listed() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    lists_and_goes_on(&cluster(&servers)).await;
    let nodes: Vec<_> = servers.text("redis_cluster", "urls").split(',').collect();
    let connection = ClusterClient::new(nodes).unwrap().get_async_connection().await.unwrap();
    assert_same(&listed(&RedisCache::cluster(connection), "").await.0, &set(&keys(700)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_cluster_have_the_life_that_is_left() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    let cache = open(&cluster(&servers)).await;
    let mut keys = keys(100);
    for key in &keys {
        cache.set(key, key.as_bytes(), MINUTE).await.unwrap();
    }
    cache.touch(&keys[7], FOR_EVER).await.unwrap();
    assert!(cache.delete(&keys[8]).await.unwrap());
    keys.push("nobody's".to_owned());
    let entries = cache.entries(&keys).await.unwrap();
    assert_eq!(entries.len(), keys.len());
    for (number, (key, entry)) in keys.iter().zip(entries).enumerate() {
        let Some(entry) = entry else {
            assert!(number == 8 || number == 100, "{key}");
            continue;
        };
        assert_eq!(entry.value, key.as_bytes());
        match entry.life {
            None => assert_eq!(number, 7),
            Some(life) => assert!((50_000..=60_000).contains(&life.as_millis()), "{life:?}"),
        }
    }
    assert!(cache.entries(&[]).await.unwrap().is_empty());
}

/// Goes on until a place is in the midst of the second shard.
async fn midst_of_second_shard(cache: &RedisCache, from: &str) -> String {
    let mut place = from.to_owned();
    while !place.starts_with("0-5460;5461-10921;") {
        place = cache.scan(HEAD, &place, 50).await.unwrap().1.expect("a place in the second shard");
    }
    place
}

/// The replica that took over has the keys in another order: they are listed from their beginning.
async fn lists_over_a_failover(how: &str) {
    let Some(servers) = Servers::start(&[CLUSTER]) else { return };
    let ports = servers.numbers(CLUSTER, "ports");
    let settings = impatient(cluster_of(&servers, CLUSTER));
    let (cache, keys) = (open(&settings).await, keys(2000));
    let shards = by_shard(&servers, &keys);
    fill(&cache, &keys).await;
    let place = midst_of_second_shard(&cache, "").await;
    until_replicated(&ports).await;
    signal(servers.numbers(CLUSTER, "pids")[1], how);
    let start = Instant::now();
    let page = until_answered(async || cache.scan(HEAD, &place, 50).await).await;
    println!("{how}: listed after {:?}", start.elapsed());
    until_written(&cache, &shards[1][0]).await;
    let process = |place: &str| place.split([';', ':']).nth(2).unwrap().to_owned();
    assert_ne!(process(&page.1.unwrap()), process(&place));
    let (rest, _) = until_answered(async || try_listed(&cache, &place).await).await;
    assert_all(&rest, &set(&shards[1]));
    assert_all(&rest, &set(&shards[2]));
    let another = open(&settings).await;
    let (all, _) = until_answered(async || try_listed(&another, "").await).await;
    assert_same(&all, &set(&keys));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_listed_over_a_failover_from_a_dead_primary() {
    lists_over_a_failover("KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_listed_over_a_failover_from_a_primary_that_hangs() {
    lists_over_a_failover("STOP").await;
}

/// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
fn move_slot(ports: &[u32], slot: &str, from: usize, to: usize) {
    let id = |node: usize| say::<String>(ports[node], "CLUSTER MYID");
    let (source, target) = (ports[from], ports[to]);
    let () = say(target, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
    let () = say(source, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
    let keys: Vec<String> = say(source, &format!("CLUSTER GETKEYSINSLOT {slot} 1000"));
    let target_port = target.to_string();
    for key in keys {
        let () = say_words(source, &["MIGRATE", "127.0.0.1", &target_port, &key, "0", "5000"]);
    }
    for port in [target, source] {
        let () = say(port, &format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
    }
}

/// Slots go from a server that is not listed yet to one that is already, and from the one in the midst of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_move_to_another_server_are_listed_there() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    let ports = servers.numbers("redis_cluster", "ports");
    let (cache, keys) = (open(&cluster(&servers)).await, keys(700));
    fill(&cache, &keys).await;
    let place = midst_of_second_shard(&cache, "").await;
    let mut moved = BTreeSet::new();
    for key in &keys[..60] {
        let slot: u16 = say_words(ports[0], &["CLUSTER", "KEYSLOT", key]);
        let from = usize::from(slot) * 3 / 16384;
        if from > 0 && moved.insert(slot) {
            move_slot(&ports, &slot.to_string(), from, 0);
        }
    }
    assert!(moved.len() > 20);
    let (rest, places) = listed(&cache, &place).await;
    let of_later = keys.iter().filter(|key| {
        let slot: u16 = say_words(ports[0], &["CLUSTER", "KEYSLOT", key]);
        usize::from(slot) * 3 / 16384 == 2 || moved.contains(&slot)
    });
    let of_later: Vec<_> = of_later.cloned().collect();
    assert_all(&rest, &set(&of_later));
    assert!(places.iter().all(|place| place.len() < 2000));
    assert_same(&listed(&cache, "").await.0, &set(&keys));
}

/// What sentinels made the primary has the keys in another order, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_goes_on_after_a_failover_of_sentinel() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let ports = servers.numbers("redis_sentinel", "ports");
    let (cache, keys) = (open(&impatient(sentinel(&servers))).await, keys(1000));
    fill(&cache, &keys).await;
    let (_, place) = cache.scan(HEAD, "", 500).await.unwrap();
    while say::<u32>(ports[0], "DBSIZE") != say::<u32>(ports[1], "DBSIZE") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    signal(servers.numbers("redis_sentinel", "pids")[0], "KILL");
    until_written(&cache, "after").await;
    assert_same(&listed(&cache, &place.unwrap()).await.0, &set(&keys));
}

#[tokio::test]
async fn who_may_not_list_is_told_what_that_needs() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let port = servers.number("redis", "port");
    let () = say(port, "ACL SETUSER few on >few ~* -@all +get +pttl +scan");
    let cache = open(&RedisSettings::new(format!("redis://few:few@127.0.0.1:{port}"))).await;
    let error = cache.scan("", "", 10).await.unwrap_err();
    let CacheError::Login { advice, .. } = error else { panic!("{error:?}") };
    assert!(advice.contains("INFO"), "{advice}");
    let () = say(port, "ACL SETUSER few +info");
    cache.scan("", "", 10).await.unwrap();
}
