//! The db engine on real databases: what every store must do, and what only a table can show.

#[cfg(any(feature = "postgres", feature = "mysql"))]
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;

#[cfg(feature = "sqlite")]
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod django;
#[cfg(all(feature = "postgres", feature = "mysql", target_os = "linux"))]
#[path = "db/faults.rs"]
mod faults;
#[path = "db/settings.rs"]
mod in_files;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "managed.rs"]
mod managed;
#[cfg(feature = "postgres")]
#[path = "db/pgbouncer.rs"]
mod pgbouncer;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "db/places.rs"]
mod places;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "db/prune.rs"]
mod prune;
#[cfg(all(feature = "postgres", feature = "mysql", target_os = "linux"))]
mod signals;
#[cfg(feature = "sqlite")]
#[path = "db/sqlite.rs"]
mod sqlite;

use std::sync::Arc;

use django_sessions::backends::SessionStore;
use django_sessions::backends::db::{DatabaseEngine, DatabaseSettings, DbStore, Pool, Vendor};
use django_sessions::backends::manage::ManagedStore;
use django_sessions::conformance::{self, Clock, Options};
use django_sessions::crypto::SecretKeys;
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::{Secret, Settings};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;

const SQLITE: [&str; 3] = ["varchar(40)", "text", "datetime"];
const POSTGRES: [&str; 3] = ["varchar(40)", "text", "timestamp with time zone"];
const MARIADB: [&str; 3] = ["varchar(40)", "longtext", "datetime(6)"];

/// The table as Django's migration makes it, with this database's types.
async fn create_table(pool: &Pool, types: [&str; 3]) {
    let [key, data, date] = types;
    let statement = format!(
        "CREATE TABLE django_session (session_key {key} NOT NULL PRIMARY KEY, session_data {data} NOT NULL, \
         expire_date {date} NOT NULL)"
    );
    let index = "CREATE INDEX django_session_expire_date ON django_session (expire_date)".to_owned();
    for statement in [statement, index] {
        run(pool, statement).await;
    }
}

async fn run(pool: &Pool, statement: impl Into<String>) {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.into()));
    match pool.vendor() {
        Vendor::Sqlite => drop(statement.execute(pool.sqlite().unwrap()).await.unwrap()),
        Vendor::Postgres => drop(statement.execute(pool.postgres().unwrap()).await.unwrap()),
        Vendor::MySql => drop(statement.execute(pool.mysql().unwrap()).await.unwrap()),
        _ => unreachable!("no other database is known"),
    }
}

/// One of the private servers, as Django's `DATABASES` would have it.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn database(servers: &servers::Servers, name: &str) -> DatabaseSettings {
    let engine = if name == "mariadb" { DatabaseEngine::Mysql } else { DatabaseEngine::Postgresql };
    let mut database = DatabaseSettings::new(engine, servers.text(name, "database"));
    database.user = servers.text(name, "user").to_owned();
    database.password = Some(Secret::new(servers.text(name, "password")));
    database.host = "127.0.0.1".to_owned();
    database.port = servers.number(name, "port").try_into().ok();
    database
}

fn settings() -> Settings {
    Settings::new(SecretKeys::new("a key for tests"))
}

/// A store whose clock the test moves.
fn store(pool: Pool) -> (Arc<DbStore>, Clock) {
    let clock = Clock::manual();
    let reader = clock.clone();
    (Arc::new(DbStore::new(pool, settings()).with_clock(move || reader.now())), clock)
}

/// `datetime.max` is beyond `Timestamp::MAX`, and no year 0 is known to Django or PostgreSQL.
async fn reaches_the_ends_of_pythons_calendar(store: &DbStore) {
    let saved = async |expiry| {
        let mut session = Session::new();
        session.insert("_session_expiry", expiry).unwrap();
        store.save(&mut session).await.unwrap();
        session.key().unwrap().clone()
    };
    // As Django writes it, whose connections are in UTC.
    let from_django = async |key: &SessionKey, date| {
        let zone = if store.pool().vendor() == Vendor::Postgres { "+00" } else { "" };
        let row = format!("expire_date = '{date}{zone}' WHERE session_key = '{}'", key.as_str());
        run(store.pool(), format!("UPDATE django_session SET {row}")).await;
    };
    for end in ["9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999+00:00"] {
        let key = saved(end).await;
        for by_django in [false, true] {
            if by_django {
                from_django(&key, "9999-12-31 23:59:59.999999").await;
            }
            let session = store.load(&key).await.unwrap();
            assert_eq!(session.get::<String>("_session_expiry").unwrap().as_deref(), Some(end));
            let ends = store.find(&key).await.unwrap().unwrap().ends.unwrap();
            assert_eq!(ends.duration_until(Timestamp::MAX).as_secs(), 0, "{ends}");
        }
        store.delete(&key).await.unwrap();
    }
    for start in ["0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00"] {
        for by_django in [false, true] {
            let key = saved(start).await;
            if by_django {
                from_django(&key, "0001-01-01 00:00:00").await;
            }
            assert!(store.load(&key).await.unwrap().key().is_none());
            assert!(store.find(&key).await.unwrap().unwrap().ends.is_some());
            assert_eq!(store.clear_expired().await.unwrap(), 1, "{start}, by Django: {by_django}");
        }
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_conforms() {
    let Some(servers) = servers::Servers::start(&["postgres"]) else { return };
    let pool = Pool::connect(servers.text("postgres", "url")).await.unwrap();
    create_table(&pool, POSTGRES).await;
    let (store, clock) = store(pool);
    conformance::run(&store, &Options::new(clock)).await.unwrap();
    reaches_the_ends_of_pythons_calendar(&store).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_conforms() {
    let Some(servers) = servers::Servers::start(&["mariadb"]) else { return };
    let pool = Pool::connect(servers.text("mariadb", "url")).await.unwrap();
    create_table(&pool, MARIADB).await;
    let (store, clock) = store(pool);
    conformance::run(&store, &Options::new(clock)).await.unwrap();
    reaches_the_ends_of_pythons_calendar(&store).await;
}
