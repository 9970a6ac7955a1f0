//! The drivers' own calls, and the stores that use them.

#[path = "caches.rs"]
mod caches;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use django_sessions::backends::db::{DbStore, Pool};
use django_sessions::backends::file::FileStore;
use jiff::{SignedDuration, Timestamp};
use sqlx::AssertSqlSafe;

use crate::servers::Servers;
use crate::{Measured, Plan, Row, floor, key, measure, settings};

/// Reads and writes the bytes that a store keeps for the session of a number.
#[async_trait]
pub(crate) trait Bare: Send + Sync {
    async fn get(&self, number: usize) -> Vec<u8>;

    /// What is to be written: the same bytes as a store has just written.
    async fn stored(&self) -> Vec<Vec<u8>> {
        vec![self.get(0).await]
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]);
}

/// Every store whose name was asked for, on a private server.
pub(crate) async fn each_store(plan: &Plan, rows: &mut Vec<Row>) {
    for name in DATABASES {
        if plan.wants(name)
            && let Some(database) = Database::start(name).await
        {
            measure(&database.measured(), plan, rows).await;
        }
    }
    if plan.wants("file") {
        let folder = tempfile::tempdir().expect("a temporary folder");
        measure(&files(folder.path()), plan, rows).await;
    }
    caches::each_cache(plan, rows).await;
}

pub(crate) const DATABASES: [&str; 3] = ["sqlite", "postgres", "mariadb"];

/// A database with Django's table, and what keeps it there.
pub(crate) struct Database {
    name: &'static str,
    pub(crate) pool: Pool,
    _server: Option<Servers>,
    _folder: Option<tempfile::TempDir>,
}

/// Runs the same statement on whichever database it is.
macro_rules! on {
    ($pool:expr, $inner:ident => $code:expr) => {
        match (($pool).sqlite(), ($pool).postgres(), ($pool).mysql()) {
            (Some($inner), _, _) => $code,
            (_, Some($inner), _) => $code,
            (_, _, Some($inner)) => $code,
            _ => unreachable!("no other database is known"),
        }
    };
}

impl Database {
    /// `None` where the server is not installed.
    pub(crate) async fn start(name: &'static str) -> Option<Self> {
        let (url, server, folder) = if name == "sqlite" {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("db.sqlite3");
            std::fs::write(&path, []).expect("it can be written to");
            (format!("sqlite:{}", path.display()), None, Some(folder))
        } else {
            let server = Servers::start(&[name])?;
            (server.text(name, "url").to_owned(), Some(server), None)
        };
        let pool = Pool::connect(&url).await.expect("the server is there");
        let database = Self { name, pool, _server: server, _folder: folder };
        let types = match name {
            "sqlite" => ["varchar(40)", "text", "datetime"],
            "postgres" => ["varchar(40)", "text", "timestamptz"],
            _ => ["varchar(40)", "longtext", "datetime(6)"],
        };
        let [key, data, date] = types;
        database
            .execute(&format!(
                "CREATE TABLE django_session (session_key {key} NOT NULL PRIMARY KEY, session_data {data} NOT NULL, \
                 expire_date {date} NOT NULL)"
            ))
            .await;
        database.execute("CREATE INDEX django_session_expire_date ON django_session (expire_date)").await;
        if name == "sqlite" {
            // As most sites have it that keep SQLite under load.
            database.execute("PRAGMA journal_mode = WAL").await;
        }
        Some(database)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) async fn execute(&self, statement: &str) {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        on!(&self.pool, pool => drop(statement.execute(pool).await.expect("the statement is good")));
    }

    pub(crate) async fn count(&self, condition: &str) -> i64 {
        let statement = format!("SELECT COUNT(*) FROM django_session WHERE {condition}");
        on!(&self.pool, pool => {
            let query = sqlx::query_scalar(AssertSqlSafe(statement));
            query.fetch_one(pool).await.expect("the statement is good")
        })
    }

    fn measured(&self) -> Measured {
        Measured {
            name: self.name,
            store: Arc::new(DbStore::new(self.pool.clone(), settings())),
            bare: Arc::new(self.sessions()),
            floors: (floor::SIGNED_TEXT, &[floor::SIGNED_TEXT]),
        }
    }

    fn sessions(&self) -> Sql {
        self.bare(["django_session", "session_key", "session_data", "expire_date"], "")
    }

    /// The same of a table with these columns, and with this before the keys.
    fn bare(&self, names: [&str; 4], prefix: &'static str) -> Sql {
        let [table, key, data, date] = names;
        let [one, two, three] = match self.name {
            "postgres" => ["$1", "CAST($2 AS timestamptz)", "$3"],
            _ => ["?"; 3],
        };
        Sql {
            pool: self.pool.clone(),
            prefix,
            select: format!("SELECT {data} FROM {table} WHERE {key} = {one}"),
            update: format!("UPDATE {table} SET {data} = {one}, {date} = {two} WHERE {key} = {three}"),
        }
    }
}

/// A plain `SELECT` and `UPDATE` of the same row over the same pool.
struct Sql {
    pool: Pool,
    prefix: &'static str,
    select: String,
    update: String,
}

#[async_trait]
impl Bare for Sql {
    async fn get(&self, number: usize) -> Vec<u8> {
        let key = format!("{}{}", self.prefix, key(number).as_str());
        let text: String = on!(&self.pool, pool => {
            let query = sqlx::query_scalar(AssertSqlSafe(&*self.select)).bind(&*key);
            query.fetch_one(pool).await.expect("the session is there")
        });
        text.into_bytes()
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]) {
        let key = format!("{}{}", self.prefix, key(number).as_str());
        let text = str::from_utf8(&stored[0]).expect("a text");
        // Another moment each time, or the index of this column would have nothing to do.
        let expire_date = Timestamp::now() + SignedDuration::from_hours(336);
        let expire_date = expire_date.strftime("%F %T.%6f").to_string();
        on!(&self.pool, pool => {
            let query = sqlx::query(AssertSqlSafe(&*self.update)).bind(text).bind(&*expire_date).bind(&*key);
            let rows = query.execute(pool).await.expect("the session is there").rows_affected();
            assert_eq!(rows, 1);
        });
    }
}

fn files(directory: &Path) -> Measured {
    let store = FileStore::in_directory(directory, settings()).expect("the directory is there");
    Measured {
        name: "file",
        store: Arc::new(store),
        bare: Arc::new(Files { directory: directory.to_owned(), name: |key| format!("sessionid{key}") }),
        floors: (floor::SIGNED_TEXT, &[floor::SIGNED_TEXT]),
    }
}

/// A plain read of the file, and a new file that is renamed to it, on a thread that may block.
struct Files {
    directory: PathBuf,
    name: fn(&str) -> String,
}

impl Files {
    fn path(&self, number: usize) -> PathBuf {
        self.directory.join((self.name)(key(number).as_str()))
    }
}

#[async_trait]
impl Bare for Files {
    async fn get(&self, number: usize) -> Vec<u8> {
        let path = self.path(number);
        let read = tokio::task::spawn_blocking(move || std::fs::read(path));
        read.await.expect("it does not panic").expect("the session is there")
    }

    async fn set(&self, number: usize, stored: &[Vec<u8>]) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let new = self.directory.join(format!("new{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let (path, stored) = (self.path(number), stored[0].clone());
        let write = tokio::task::spawn_blocking(move || {
            std::fs::write(&new, stored)?;
            std::fs::rename(new, path)
        });
        write.await.expect("it does not panic").expect("the directory is there");
    }
}
