//! `clear_expired` on a table full of expired rows, while another client loads sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use django_sessions::backends::SessionStore;
use django_sessions::backends::db::DbStore;

use crate::bare::{DATABASES, Database};
use crate::{Plan, key, progress, session, settings};

/// What the live sessions hold together, in bytes.
const LIVE: usize = 10_000_000;

/// The longest that a load may take meanwhile.
const TARGET: Duration = Duration::from_millis(50);

/// How much larger this process may grow.
const TARGET_MEMORY: u64 = 32 << 20;

pub(crate) async fn each_database(plan: &Plan) {
    println!(
        "Clearing {} expired rows among {} MB of live ones, a load every 2 ms\n",
        plan.expired,
        LIVE / 1_000_000
    );
    println!("| {:<10} | rows/s    | longest load (99%) | alone: longest (99%) | memory  | target |", "");
    println!("|------------|----------:|-------------------:|---------------------:|--------:|--------|");
    for name in DATABASES {
        if (plan.wants(name) || plan.wants("clear"))
            && let Some(database) = Database::start(name).await
        {
            clear(&database, plan).await;
        }
    }
}

async fn clear(database: &Database, plan: &Plan) {
    let store = DbStore::new(database.pool.clone(), settings());
    let live = fill(database, &store, plan.expired).await;

    let alone = watch(&store, live, tokio::time::sleep(Duration::from_secs(2))).await.0;
    let before = memory();
    progress(&format!("{}: clearing", database.name()));
    let start = Instant::now();
    let (meanwhile, deleted) = watch(&store, live, store.clear_expired()).await;
    let seconds = start.elapsed().as_secs_f64();
    let grown = memory().saturating_sub(before);
    progress("");

    assert_eq!(deleted.expect("the server is there"), plan.expired);
    assert_eq!(database.count("1 = 1").await, live as i64);
    let is_met = meanwhile.longest <= TARGET && grown <= TARGET_MEMORY;
    println!(
        "| {:<10} | {:>9.0} | {:>18} | {:>20} | {:>4} MB | {:<6} |",
        database.name(),
        plan.expired as f64 / seconds,
        meanwhile.to_string(),
        alone.to_string(),
        grown >> 20,
        if is_met { "met" } else { "MISSED" },
    );
}

/// Returns how many sessions are live.
async fn fill(database: &Database, store: &DbStore, expired: u64) -> usize {
    progress(&format!("{}: {expired} expired rows", database.name()));
    let data = "x".repeat(100);
    let statement = match database.name() {
        "sqlite" => format!(
            "INSERT INTO django_session WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {expired}) \
             SELECT printf('%032x', i * 7919 % 16777259), '{data}', datetime('2020-01-01', i || ' seconds') FROM n"
        ),
        "postgres" => format!(
            "INSERT INTO django_session SELECT md5(i::text), '{data}', '2020-01-01'::timestamptz + i * interval '1 second' \
             FROM generate_series(1, {expired}) AS i"
        ),
        _ => format!(
            "INSERT INTO django_session SELECT MD5(seq), '{data}', '2020-01-01' + INTERVAL seq SECOND FROM seq_1_to_{expired}"
        ),
    };
    database.execute(&statement).await;
    let content = session(25_000);
    let (mut live, mut bytes) = (0, 0);
    while bytes < LIVE {
        store.insert(&key(live), &content).await.expect("the server is there");
        live += 1;
        bytes += 25_000;
    }
    // As the databases' own housekeeping would have done by then.
    let analyze =
        if database.name() == "mariadb" { "ANALYZE TABLE django_session" } else { "ANALYZE django_session" };
    database.execute(analyze).await;
    live
}

/// How long loads took.
struct Loads {
    longest: Duration,
    most: Duration,
}

impl std::fmt::Display for Loads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        f.pad(&format!("{:.1} ms ({:.1})", milliseconds(self.longest), milliseconds(self.most)))
    }
}

/// Loads a session every 2 ms until `action` is done.
async fn watch<T>(store: &DbStore, live: usize, action: impl Future<Output = T>) -> (Loads, T) {
    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (store, over) = (store.clone(), Arc::clone(&over));
        async move {
            let (mut times, mut number) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let session = store.load(&key(number % live)).await.expect("the server is there");
                times.push(start.elapsed());
                assert!(session.contains_key("cart"));
                number += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            times
        }
    });
    let answer = action.await;
    over.store(true, Ordering::Relaxed);
    let mut times = watcher.await.expect("no load fails");
    times.sort();
    let most = times[times.len() * 99 / 100];
    (Loads { longest: times[times.len() - 1], most }, answer)
}

/// The most memory that this process ever had, in bytes; 0 where Linux's `/proc` is not there.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}
