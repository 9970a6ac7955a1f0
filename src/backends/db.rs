//! Sessions in the table of Django's `django.contrib.sessions.backends.db` (features `sqlite`, `postgres`, `mysql`).
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::backends::{SessionStore, db::DbStore};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! use django_sessions::settings::SessionSettings;
//!
//! let settings = SessionSettings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let store = DbStore::connect("sqlite::memory:", settings).await?;
//! # let django_sessions::backends::db::Pool::Sqlite(pool) = store.pool() else { unreachable!() };
//! # sqlx::query("CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT)").execute(pool).await?;
//!
//! let mut session = Session::new();
//! session.insert("cart", &["tea"])?;
//! store.save(&mut session).await?;
//!
//! let key = session.key().expect("a saved session has a key");
//! assert_eq!(store.load(key).await?.get::<Vec<String>>("cart")?.unwrap(), ["tea"]);
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;

use super::{SessionStore, StoreError};
use crate::session::{Codec, Session, SessionKey};
use crate::settings::SessionSettings;

/// How many expired rows one `DELETE` takes, so that none holds its locks for long.
const CLEAR_BATCH: u32 = 1000;

/// A pool of connections to one of the databases that Django keeps sessions in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Pool {
    /// SQLite 3.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    MySql(sqlx::MySqlPool),
}

/// Runs the same code over the pool of whichever database it is.
macro_rules! on_pool {
    ($self:expr, $pool:ident => $code:expr) => {
        match $self {
            #[cfg(feature = "sqlite")]
            Pool::Sqlite($pool) => $code,
            #[cfg(feature = "postgres")]
            Pool::Postgres($pool) => $code,
            #[cfg(feature = "mysql")]
            Pool::MySql($pool) => $code,
        }
    };
}
pub(crate) use on_pool;

#[cfg(feature = "sqlite")]
impl From<sqlx::SqlitePool> for Pool {
    fn from(pool: sqlx::SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::PgPool> for Pool {
    fn from(pool: sqlx::PgPool) -> Self {
        Self::Postgres(pool)
    }
}

#[cfg(feature = "mysql")]
impl From<sqlx::MySqlPool> for Pool {
    fn from(pool: sqlx::MySqlPool) -> Self {
        Self::MySql(pool)
    }
}

impl Pool {
    /// Opens a pool at an address such as `sqlite:db.sqlite3` or `postgres://user@host/name`.
    ///
    /// # Errors
    /// When the address is of a database whose feature is off, or nothing answers there. An SQLite file must exist:
    /// Django's migrations make it.
    pub async fn connect(url: &str) -> Result<Self, sqlx::Error> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let pool = sqlx::sqlite::SqlitePoolOptions::new();
                // Every connection to an in-memory database is a database of its own.
                let pool = if url.contains(":memory:") { pool.max_connections(1) } else { pool };
                Ok(Self::Sqlite(pool.test_before_acquire(false).connect(url).await?))
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let pool = sqlx::postgres::PgPoolOptions::new().test_before_acquire(false);
                Ok(Self::Postgres(pool.connect(url).await?))
            }
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => {
                let pool = sqlx::mysql::MySqlPoolOptions::new().test_before_acquire(false);
                Ok(Self::MySql(pool.connect(url).await?))
            }
            _ => Err(sqlx::Error::Configuration(
                format!("no database for {scheme:?}: switch the feature sqlite, postgres or mysql on").into(),
            )),
        }
    }

    /// `name` as Django's `quote_name` quotes it: one that is quoted already stays.
    pub(crate) fn quote_name(&self, name: &str) -> String {
        let quote = match self {
            #[cfg(feature = "mysql")]
            Self::MySql(_) => '`',
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => '"',
        };
        if name.starts_with(quote) && name.ends_with(quote) {
            name.to_owned()
        } else {
            format!("{quote}{name}{quote}")
        }
    }

    /// How the parameter `number` (from 1) of type `cast` is written in SQL.
    #[cfg_attr(
        not(feature = "postgres"),
        allow(unused_variables, reason = "only PostgreSQL numbers and casts")
    )]
    pub(crate) fn parameter(&self, number: usize, cast: Option<&str>) -> String {
        match (self, cast) {
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), Some(cast)) => format!("CAST(${number} AS {cast})"),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), None) => format!("${number}"),
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => "?".to_owned(),
        }
    }

    /// A moment as Django writes it into a column of this database.
    fn moment(&self, moment: Timestamp, settings: &SessionSettings) -> String {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => moment.to_string(),
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => {
                // Python's `str(datetime)`, in the time zone of the connection: microseconds only if there are any.
                let local = moment.to_zoned(settings.time_zone.clone());
                let has_fraction = local.subsec_nanosecond() >= 1000;
                local.strftime(if has_fraction { "%F %T.%6f" } else { "%F %T" }).to_string()
            }
        }
    }
}

/// The statements, made once.
#[derive(Debug)]
struct Statements {
    exists: String,
    insert: String,
    update: String,
    load: String,
    delete: String,
    clear: String,
}

impl Statements {
    fn new(pool: &Pool, settings: &SessionSettings) -> Self {
        let table = pool.quote_name(&settings.db_table);
        let text = |number| pool.parameter(number, None);
        let moment = |number| pool.parameter(number, Some("timestamptz"));
        let expired = format!("expire_date < {}", moment(1));
        Self {
            exists: format!("SELECT session_key FROM {table} WHERE session_key = {}", text(1)),
            insert: format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES ({}, {}, {})",
                text(1),
                text(2),
                moment(3)
            ),
            update: format!(
                "UPDATE {table} SET session_data = {}, expire_date = {} WHERE session_key = {}",
                text(1),
                moment(2),
                text(3)
            ),
            load: format!(
                "SELECT session_data FROM {table} WHERE session_key = {} AND expire_date > {}",
                text(1),
                moment(2)
            ),
            delete: format!("DELETE FROM {table} WHERE session_key = {}", text(1)),
            clear: match pool {
                #[cfg(feature = "mysql")]
                Pool::MySql(_) => format!("DELETE FROM {table} WHERE {expired} LIMIT {CLEAR_BATCH}"),
                #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
                _ => format!(
                    "DELETE FROM {table} WHERE session_key IN \
                     (SELECT session_key FROM {table} WHERE {expired} LIMIT {CLEAR_BATCH})"
                ),
            },
        }
    }
}

/// The db engine: sessions as rows of `django_session`.
///
/// Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct DbStore {
    pool: Pool,
    settings: Arc<SessionSettings>,
    codec: Codec,
    statements: Arc<Statements>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for DbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl DbStore {
    /// A store over a pool that the caller has.
    pub fn new(pool: impl Into<Pool>, settings: impl Into<Arc<SessionSettings>>) -> Self {
        let (pool, settings) = (pool.into(), settings.into());
        let statements = Arc::new(Statements::new(&pool, &settings));
        let codec = Codec::new(&settings);
        Self { pool, settings, codec, statements, clock: Arc::new(Timestamp::now) }
    }

    /// A store over a pool of its own, at an address such as `sqlite:db.sqlite3`.
    ///
    /// # Errors
    /// As [`Pool::connect`].
    pub async fn connect(url: &str, settings: impl Into<Arc<SessionSettings>>) -> Result<Self, StoreError> {
        Ok(Self::new(Pool::connect(url).await?, settings))
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The pool that this store uses.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The settings that this store was made with.
    pub fn settings(&self) -> &Arc<SessionSettings> {
        &self.settings
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// What the columns `session_data` and `expire_date` are to hold.
    fn columns(&self, session: &Session) -> Result<(String, String), StoreError> {
        let now = self.now();
        let expire_date = session.expiry_date(&self.settings, now)?;
        Ok((self.codec.encode(session, now), self.pool.moment(expire_date, &self.settings)))
    }

    /// Runs a statement that gives no rows, and tells how many it touched.
    async fn execute(&self, statement: &str, parameters: &[&str]) -> Result<u64, sqlx::Error> {
        on_pool!(&self.pool, pool => {
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            Ok(query.execute(pool).await?.rows_affected())
        })
    }

    /// The first column of the first row, if there is one.
    async fn fetch(&self, statement: &str, parameters: &[&str]) -> Result<Option<String>, sqlx::Error> {
        on_pool!(&self.pool, pool => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(statement));
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            query.fetch_optional(pool).await
        })
    }
}

#[async_trait]
impl SessionStore for DbStore {
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        Ok(self.fetch(&self.statements.exists, &[key.as_str()]).await?.is_some())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (session_data, expire_date) = self.columns(session)?;
        match self.execute(&self.statements.insert, &[key.as_str(), &session_data, &expire_date]).await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (session_data, expire_date) = self.columns(session)?;
        let rows =
            self.execute(&self.statements.update, &[&session_data, &expire_date, key.as_str()]).await?;
        Ok(rows > 0)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let now = self.pool.moment(self.now(), &self.settings);
        match self.fetch(&self.statements.load, &[key.as_str(), &now]).await? {
            Some(session_data) => {
                Ok(Session::with_data(Some(key.clone()), self.codec.decode(&session_data)?))
            }
            None => Ok(Session::new()),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.execute(&self.statements.delete, &[key.as_str()]).await?;
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        let now = self.pool.moment(self.now(), &self.settings);
        let mut deleted = 0;
        loop {
            let batch = self.execute(&self.statements.clear, &[&now]).await?;
            deleted += batch;
            if batch < u64::from(CLEAR_BATCH) {
                return Ok(deleted);
            }
        }
    }
}
