//! The db engine on real databases: what every store must do, and what only a table can show.

mod conformance;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;

use std::sync::Arc;

use conformance::{Clock, settings};
use django_sessions::backends::db::{DbStore, Pool};
use sqlx::AssertSqlSafe;

/// The table as Django's migration makes it, with this database's types.
async fn create_table(pool: &Pool, types: [&str; 3]) {
    let [key, data, date] = types;
    let statement = format!(
        "CREATE TABLE django_session (session_key {key} NOT NULL PRIMARY KEY, session_data {data} NOT NULL, \
         expire_date {date} NOT NULL)"
    );
    let index = "CREATE INDEX django_session_expire_date ON django_session (expire_date)".to_owned();
    for statement in [statement, index] {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        match pool {
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => drop(statement.execute(pool).await.unwrap()),
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => drop(statement.execute(pool).await.unwrap()),
            #[cfg(feature = "mysql")]
            Pool::MySql(pool) => drop(statement.execute(pool).await.unwrap()),
            _ => unreachable!("no other database is known"),
        }
    }
}

/// A store whose clock the test moves.
fn store(pool: Pool) -> (Arc<DbStore>, Clock) {
    let clock = Clock::default();
    let reader = clock.clone();
    (Arc::new(DbStore::new(pool, settings()).with_clock(move || reader.now())), clock)
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use django_sessions::backends::{SessionStore, StoreError};
    use django_sessions::session::{Session, SessionKey};

    use super::*;

    const TYPES: [&str; 3] = ["varchar(40)", "text", "datetime"];

    /// A file, as a Django site has it, and its folder, which goes with the test.
    async fn file() -> (Pool, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sqlite3");
        std::fs::File::create(&path).unwrap();
        let pool = Pool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        create_table(&pool, TYPES).await;
        (pool, folder)
    }

    fn sqlite(pool: &Pool) -> &sqlx::SqlitePool {
        let Pool::Sqlite(pool) = pool else { unreachable!() };
        pool
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms() {
        let (pool, _folder) = file().await;
        let (store, clock) = store(pool);
        conformance::run(store, clock).await;
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
        clock.set("2026-11-23T12:00:00Z");
        let mut session = Session::new();
        store.save(&mut session).await.unwrap();
        assert_eq!(stored().await, "2026-12-07 12:00:00");
        clock.set("2026-11-23T12:00:00.0000019Z");
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
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_conforms() {
    let Some(servers) = servers::Servers::start(&["postgres"]) else { return };
    let pool = Pool::connect(servers.text("postgres", "url")).await.unwrap();
    create_table(&pool, ["varchar(40)", "text", "timestamp with time zone"]).await;
    let (store, clock) = store(pool);
    conformance::run(store, clock).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_conforms() {
    let Some(servers) = servers::Servers::start(&["mariadb"]) else { return };
    let pool = Pool::connect(servers.text("mariadb", "url")).await.unwrap();
    create_table(&pool, ["varchar(40)", "longtext", "datetime(6)"]).await;
    let (store, clock) = store(pool);
    conformance::run(store, clock).await;
}
