//! Clearing what is over, in batches, while others work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use django_sessions::backends::SessionStore;
use django_sessions::backends::manage::{ManagedStore, PruneOptions, PruneProgress};
use django_sessions::session::{Session, SessionKey};
use jiff::SignedDuration;

use super::managed::{Nature, go_on, is_looked_after};
use super::servers::Servers;
use super::*;

const TABLE: Nature =
    Nature { grain: SignedDuration::from_micros(1), keeps_expired: true, knows_saved: true };

const EXPIRED: u64 = 5_000;

/// Fills the table: many rows that are over, some of them at the same moment, and a few that are not.
async fn fill(store: &DbStore) -> Vec<SessionKey> {
    for first in (0..EXPIRED).step_by(500) {
        let row = |number| {
            let (second, minute) = (number % 60, number / 600);
            format!("('expired{number:025}', 'data', '2020-01-01 00:{minute:02}:{second:02}')")
        };
        let rows: Vec<_> = (first..first + 500).map(row).collect();
        run(store.pool(), format!("INSERT INTO django_session VALUES {}", rows.join(","))).await;
    }
    let mut live = Vec::new();
    for number in 0..20 {
        let mut session = Session::new();
        session.insert("number", &number).unwrap();
        store.save(&mut session).await.unwrap();
        live.push(session.key().unwrap().clone());
    }
    live
}

async fn clears_while_others_load(pool: Pool) {
    let store = DbStore::new(pool, settings());
    let live = Arc::new(fill(&store).await);
    let over = Arc::new(AtomicBool::new(false));
    let visitor = tokio::spawn({
        let (store, live, over) = (store.clone(), live.clone(), over.clone());
        async move {
            let mut loads = 0;
            while !over.load(Ordering::Relaxed) {
                let number = loads % live.len();
                let loaded = store.load(&live[number]).await.unwrap();
                assert_eq!(loaded.get::<usize>("number").unwrap(), Some(number));
                loads += 1;
            }
            loads
        }
    });
    let mut options = PruneOptions::default();
    (options.batch_size, options.pause, options.limit) = (300, Duration::from_millis(1), Some(1_000));
    let mut seen: Vec<PruneProgress> = Vec::new();
    assert_eq!(
        store
            .prune(options, &mut |progress| {
                seen.push(progress);
                go_on()
            })
            .await
            .unwrap(),
        1_000
    );
    assert!(seen.len() >= 4 && seen.is_sorted_by_key(|progress| progress.deleted), "{seen:?}");
    assert_eq!(seen.last().unwrap().deleted, 1_000);
    assert_eq!(seen.last().unwrap().batches, seen.len() as u64);

    // Two who clear at once, as cron does on two machines, and one who gives up, do not harm each other.
    drop(tokio::time::timeout(Duration::from_millis(3), store.clear_expired()).await);
    options.limit = None;
    let (mut nothing, mut nothing_too) = (|_| go_on(), |_| go_on());
    let (one, two) = tokio::join!(store.prune(options, &mut nothing), store.prune(options, &mut nothing_too));
    assert!(one.unwrap() + two.unwrap() <= EXPIRED - 1_000);
    store.clear_expired().await.unwrap();
    over.store(true, Ordering::Relaxed);
    assert!(visitor.await.unwrap() > 0);
    assert!(!store.exists(&SessionKey::new(format!("expired{:025}", EXPIRED - 1)).unwrap()).await.unwrap());
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    for key in &*live {
        assert!(store.exists(key).await.unwrap());
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    std::fs::File::create(&path).unwrap();
    let mut database = DatabaseSettings::new(DatabaseEngine::Sqlite3, path.to_str().unwrap());
    database.options.init_command = Some("PRAGMA synchronous=OFF".to_owned());
    let pool = Pool::open(&database).await.unwrap();
    create_table(&pool, SQLITE).await;
    clears_while_others_load(pool).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_cleared() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let pool = Pool::open(&database(&servers, "postgres")).await.unwrap();
    create_table(&pool, POSTGRES).await;
    clears_while_others_load(pool).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_cleared() {
    let Some(servers) = Servers::start(&["mariadb"]) else { return };
    let pool = Pool::open(&database(&servers, "mariadb")).await.unwrap();
    create_table(&pool, MARIADB).await;
    clears_while_others_load(pool).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_is_looked_after() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let pool = Pool::open(&database(&servers, "postgres")).await.unwrap();
    create_table(&pool, POSTGRES).await;
    is_looked_after(&DbStore::new(pool, settings()), TABLE).await;
}

#[cfg(feature = "mysql")]
#[tokio::test]
async fn mariadb_is_looked_after() {
    let Some(servers) = Servers::start(&["mariadb"]) else { return };
    let pool = Pool::open(&database(&servers, "mariadb")).await.unwrap();
    create_table(&pool, MARIADB).await;
    is_looked_after(&DbStore::new(pool, settings()), TABLE).await;
}
