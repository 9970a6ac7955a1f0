//! Calls that are dropped half-way disturb no other, and leave nothing behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dice::Dice;
use super::*;

const TASKS: u64 = 64;

/// Rounds of each task: as many as asked for, and enough to be worth it.
fn rounds() -> u64 {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    (cases / TASKS).clamp(60, 600)
}

#[derive(Default)]
struct Counts {
    finished: AtomicUsize,
    dropped: AtomicUsize,
}

impl Counts {
    /// Runs a call, and drops it where the dice say so: before its first step, or somewhere on its way.
    async fn maybe<T>(&self, dice: &mut Dice, call: impl Future<Output = T>) -> Option<T> {
        let answer = match dice.below(3) {
            0 => Some(call.await),
            // After some turns of the other tasks, whatever the time that they take on this machine.
            1 => tokio::select! { biased; answer = call => Some(answer), () = turns(dice.below(12)) => None },
            _ => timeout(Duration::from_micros(dice.below(4_000)), call).await.ok(),
        };
        let count = if answer.is_some() { &self.finished } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

async fn turns(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// One task counts in a key of its own. What is there was written by it, not before what was last confirmed.
async fn count(cache: RedisCache, task: u64, counts: Arc<Counts>) {
    let mut dice = Dice(task * 7919 + 1);
    let (key, mut confirmed, mut is_deleted) = (format!("task-{task}"), 0, false);
    cache.set(&key, format!("{key}:0").as_bytes(), MINUTE).await.unwrap();
    for round in 1..=rounds() {
        match dice.below(8) {
            0 => {
                is_deleted = true;
                counts.maybe(&mut dice, cache.delete(&key)).await.transpose().unwrap();
            }
            1 => {
                counts.maybe(&mut dice, cache.touch(&key, MINUTE)).await.transpose().unwrap();
            }
            _ => {
                let value = format!("{key}:{round}").into_bytes();
                if let Some(written) = counts.maybe(&mut dice, cache.set(&key, &value, MINUTE)).await {
                    written.unwrap();
                    (confirmed, is_deleted) = (round, false);
                }
            }
        }
        match counts.maybe(&mut dice, cache.get(&key)).await.transpose().unwrap() {
            Some(Some(found)) => {
                let found = String::from_utf8(found).unwrap();
                let (owner, number) = found.split_once(':').unwrap();
                let number: u64 = number.parse().unwrap();
                assert_eq!(owner, key, "the answer to another's question");
                assert!((confirmed..=round).contains(&number), "{key}: {number} after {confirmed}");
            }
            Some(None) => assert!(is_deleted, "{key} is gone"),
            None => {}
        }
    }
}

async fn keeps_answers_apart(cache: &RedisCache) {
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(count(cache.clone(), task, counts.clone()));
    }
    tasks.join_all().await;
    let finished = counts.finished.load(Ordering::Relaxed);
    let dropped = counts.dropped.load(Ordering::Relaxed);
    println!("{finished} calls finished, {dropped} were dropped");
    assert!(finished > 100 && dropped > 100, "{finished} calls finished, {dropped} were dropped");
    stores_and_finds(cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_one_server() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&one(&servers)).await;
    keeps_answers_apart(&cache).await;
    let clients: String = say(servers.number("redis", "port"), "CLIENT LIST TYPE normal");
    assert_eq!(clients.lines().count(), 2, "one of the cache's, and ours that asks: {clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_cluster() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    keeps_answers_apart(&open(&cluster(&servers)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_sentinel() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let settings = RedisSettings { read_from_replicas: false, ..sentinel(&servers) };
    keeps_answers_apart(&open(&settings).await).await;
}

/// Errors are no surprise while connections are killed, but an answer that is another's would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_connections_are_killed() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let port = servers.number("redis", "port");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let cache = open(&one(&servers)).await;
    let killer = std::thread::spawn(move || {
        let (mut killed, mut connection) = (0, direct(port).unwrap());
        while stopped.recv_timeout(Duration::from_millis(5)).is_err() {
            let words = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
            let count: u32 = ::redis::cmd("CLIENT").arg(&words).query(&mut connection).unwrap();
            killed += count;
        }
        killed
    });
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(own_what_they_find(cache.clone(), task, counts.clone()));
    }
    tasks.join_all().await;
    stop.send(()).unwrap();
    let killed = killer.join().unwrap();
    println!("{killed} connections were killed");
    assert!(killed > 5, "{killed}");
    stores_and_finds(&cache).await;
    let clients: String = say(port, "CLIENT LIST TYPE normal");
    assert!(clients.lines().count() <= 2, "{clients}");
}

async fn own_what_they_find(cache: RedisCache, task: u64, counts: Arc<Counts>) {
    let mut dice = Dice(task * 104_729 + 1);
    let key = format!("task-{task}");
    // The killer may meet the first one, too.
    while cache.set(&key, key.as_bytes(), MINUTE).await.is_err() {}
    for round in 0..rounds() {
        let value = format!("{key}:{round}");
        let _answer_or_error = counts.maybe(&mut dice, cache.set(&key, value.as_bytes(), MINUTE)).await;
        if let Some(Ok(found)) = counts.maybe(&mut dice, cache.get(&key)).await {
            let found = String::from_utf8(found.expect("nobody deletes")).unwrap();
            assert!(found == key || found.starts_with(&format!("{key}:")), "{key} has {found}");
        }
    }
}
