//! What an SQLite file shows.

use std::path::Path;
use std::time::{Duration, Instant};

use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::session::{Session, SessionKey};
use serde_json::json;
use tokio::task::JoinSet;

use super::django::Django;
use super::*;

/// A file, as a Django site has it, and its folder, which goes with the test.
async fn file() -> (Pool, tempfile::TempDir) {
    file_with("PRAGMA synchronous=OFF").await
}

/// The same with an `init_command`. The disk is not waited for unless it says so: the data dies with the test.
async fn file_with(init_command: &str) -> (Pool, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sqlite3");
    std::fs::File::create(&path).unwrap();
    let pool = Pool::open(&at(&path, init_command)).await.unwrap();
    create_table(&pool, SQLITE).await;
    (pool, folder)
}

fn at(path: &Path, init_command: &str) -> DatabaseSettings {
    let mut database = DatabaseSettings::new(DatabaseEngine::Sqlite3, path.to_str().unwrap());
    database.options.init_command = Some(init_command.to_owned());
    database
}

fn sqlite(pool: &Pool) -> &sqlx::SqlitePool {
    pool.sqlite().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    let (pool, _folder) = file().await;
    let (store, clock) = store(pool);
    conformance::run(&store, &Options::new(clock)).await.unwrap();
    reaches_the_ends_of_pythons_calendar(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_with_a_write_ahead_log() {
    let (pool, _folder) = file_with("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF").await;
    let (store, clock) = store(pool);
    conformance::run(&store, &Options::new(clock)).await.unwrap();
}

async fn pragma(connection: &mut sqlx::SqliteConnection, name: &str) -> String {
    let question = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
    sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(connection).await.unwrap()
}

/// `init_command` is for each connection, and the journal mode is the site's business.
#[tokio::test]
async fn the_init_command_and_else_what_the_file_says() {
    for mode in ["delete", "wal"] {
        let (first, folder) = file_with(&format!("PRAGMA journal_mode={mode}; PRAGMA synchronous=OFF")).await;
        let mut connections = Vec::new();
        for _ in 0..3 {
            let mut connection = sqlite(&first).acquire().await.unwrap();
            assert_eq!(pragma(&mut connection, "synchronous").await, "0");
            connections.push(connection);
        }
        let plain = Pool::open(&at(&folder.path().join("db.sqlite3"), "")).await.unwrap();
        let mut connection = sqlite(&plain).acquire().await.unwrap();
        assert_eq!(pragma(&mut connection, "journal_mode").await, mode);
        assert_eq!(pragma(&mut connection, "synchronous").await, "2");
    }
}

/// Two Djangos and eight tasks of ours write one file, each waiting for the others, and each finds what it wrote.
async fn beside_django(mode: &str) {
    const ROUNDS: u32 = 40;
    let (pool, folder) = file_with(&format!("PRAGMA journal_mode={mode}; PRAGMA synchronous=NORMAL")).await;
    let mut djangos = JoinSet::new();
    for _ in 0..2 {
        let Some(mut django) = Django::start_script("sqlite.py") else { return };
        let ready = django.ask_json(&json!({"path": folder.path().join("db.sqlite3")}));
        assert_eq!(ready, json!("ready"));
        djangos.spawn_blocking(move || django.ask_json(&json!({"rounds": ROUNDS})));
    }
    let store = Arc::new(DbStore::new(pool, settings()));
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut session = Session::new();
            for round in 0..=ROUNDS {
                session.insert("round", &round).unwrap();
                store.save(&mut session).await.unwrap();
                let loaded = store.load(session.key().unwrap()).await.unwrap();
                assert_eq!(loaded.get::<u32>("round").unwrap(), Some(round));
            }
            session.key().unwrap().clone()
        });
    }
    let mut keys = tasks.join_all().await;
    while let Some(answer) = djangos.join_next().await {
        let answer = answer.unwrap();
        let key = answer["key"].as_str().unwrap_or_else(|| panic!("{answer}"));
        keys.push(SessionKey::new(key).unwrap());
    }
    for key in &keys {
        assert_eq!(store.load(key).await.unwrap().get::<u32>("round").unwrap(), Some(ROUNDS));
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM django_session")
        .fetch_one(sqlite(store.pool()))
        .await
        .unwrap();
    assert_eq!(rows, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn django_writes_the_file_at_once() {
    beside_django("DELETE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn django_writes_the_file_with_a_write_ahead_log_at_once() {
    beside_django("WAL").await;
}

#[tokio::test]
async fn a_missing_file_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.sqlite3");
    let error = DbStore::connect(&format!("sqlite:{}", path.display()), settings()).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error}");
    assert!(!path.exists(), "Django's migrations make it");
}

#[tokio::test]
async fn an_address_of_no_known_database_says_what_to_do() {
    let error = DbStore::connect("oracle://host/name", settings()).await.unwrap_err();
    let StoreError::Database(source) = error else { panic!("{error}") };
    assert!(source.to_string().contains("feature sqlite, postgres or mysql"), "{source}");
}

#[tokio::test]
async fn another_table_name() {
    let (pool, _folder) = file().await;
    sqlx::query("CREATE TABLE shop_session (session_key varchar(40) PRIMARY KEY, session_data text, expire_date datetime)")
        .execute(sqlite(&pool)).await.unwrap();
    let mut settings = settings();
    settings.db_table = "shop_session".to_owned();
    let store = DbStore::new(pool.clone(), settings);
    store.save(&mut Session::new()).await.unwrap();
    for (table, expected) in [("shop_session", 1), ("django_session", 0)] {
        let statement = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let rows: i64 = sqlx::query_scalar(statement).fetch_one(sqlite(&pool)).await.unwrap();
        assert_eq!(rows, expected, "{table}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_stays() {
    let (pool, _folder) = file().await;
    let (store, _clock) = store(pool.clone());
    let key = SessionKey::new("corrupted-row").unwrap();
    sqlx::query("INSERT INTO django_session VALUES (?, 'tampered:with:it', '2999-01-01 00:00:00')")
        .bind(key.as_str())
        .execute(sqlite(&pool))
        .await
        .unwrap();
    let error = store.load(&key).await.unwrap_err();
    assert!(matches!(&error, StoreError::Decode(decode) if decode.is_suspicious()), "{error:?}");
    assert!(!format!("{error:?}").contains("tampered"), "{error:?}");
    let session = store.load_or_empty(&key).await.unwrap();
    assert_eq!(session.key(), Some(&key), "Django keeps the key, so that a save replaces the row");
    assert!(session.data().is_empty());
    assert!(store.exists(&key).await.unwrap());
}

#[tokio::test]
async fn dates_are_text_that_django_compares() {
    let (pool, _folder) = file().await;
    let (store, clock) = store(pool.clone());
    let stored = async || {
        let query = sqlx::query_scalar("SELECT CAST(expire_date AS TEXT) FROM django_session");
        let date: String = query.fetch_one(sqlite(&pool)).await.unwrap();
        date
    };
    clock.set("2026-11-23T12:00:00Z".parse().unwrap());
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    assert_eq!(stored().await, "2026-12-07 12:00:00");
    clock.set("2026-11-23T12:00:00.0000019Z".parse().unwrap());
    store.save(&mut session).await.unwrap();
    assert_eq!(stored().await, "2026-12-07 12:00:00.000001");
}

#[tokio::test]
async fn dates_of_a_site_without_use_tz_are_local() {
    let (pool, _folder) = file().await;
    let mut settings = settings();
    settings.time_zone = jiff::tz::TimeZone::get("Europe/Vienna").unwrap();
    let now: jiff::Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let store = DbStore::new(pool.clone(), settings).with_clock(move || now);
    store.save(&mut Session::new()).await.unwrap();
    let date: String = sqlx::query_scalar("SELECT CAST(expire_date AS TEXT) FROM django_session")
        .fetch_one(sqlite(&pool))
        .await
        .unwrap();
    assert_eq!(date, "2026-12-07 13:00:00");
}

/// A process that holds the file, as a backup does, fails the saves of now; those after them do not queue behind these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_writer_of_another_process_longer_than_the_busy_timeout() {
    for mode in ["WAL", "DELETE"] {
        let (pool, folder) = file().await;
        run(&pool, format!("PRAGMA journal_mode = {mode}")).await;
        let mut settings = DatabaseSettings::new(
            DatabaseEngine::Sqlite3,
            folder.path().join("db.sqlite3").to_str().unwrap(),
        );
        settings.options.timeout = Some(1.0);
        let store = Arc::new(DbStore::new(Pool::open(&settings).await.unwrap(), crate::settings()));
        let mut session = Session::new();
        store.save(&mut session).await.unwrap();
        let key = session.key().unwrap().clone();
        store.load(&key).await.unwrap();
        let mut other = pool.sqlite().unwrap().acquire().await.unwrap();
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *other).await.unwrap();
        let start = Instant::now();
        let saves: Vec<_> = (0..6)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.save(&mut Session::new()).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.load(&key).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{mode}: {:?}", start.elapsed());
        for save in saves {
            assert!(matches!(save.await.unwrap(), Err(StoreError::Database(_))));
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{mode}: {:?}", start.elapsed());
        sqlx::raw_sql("ROLLBACK").execute(&mut *other).await.unwrap();
        store.save(&mut Session::new()).await.unwrap();
    }
}
