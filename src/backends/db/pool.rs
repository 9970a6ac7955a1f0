//! Connections to a database: which it is, and how a statement is run on one of them.

use std::fmt;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::future::Future;
use std::io;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Database, Encode, Row, Type};
#[cfg(feature = "sqlite")]
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
#[cfg(feature = "sqlite")]
use tokio::time::timeout;

use super::DatabaseSettings;
use crate::session::moment_of;

/// Which of the databases it is that Django keeps sessions in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vendor {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    MySql,
}

/// A pool of connections to one of the databases that Django keeps sessions in.
///
/// [`connect`](Self::connect) and [`open`](Self::open) make one, `From` takes yours. Cheap to clone; clones share the
/// connections.
///
/// A statement that is cancelled or takes too long closes its connection, so that nobody reads the answer to somebody
/// else's question. (SQLite's connections are threads of this process, which end what they began.)
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::backends::db::{Pool, Vendor};
///
/// // One that the service has anyway:
/// let pool = Pool::from(sqlx::SqlitePool::connect("sqlite::memory:").await?);
/// assert_eq!(pool.vendor(), Vendor::Sqlite);
/// assert!(pool.sqlite().is_some());
/// # Ok(()) }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Pool {
    pub(crate) kind: Kind,
    pub(crate) pgbouncer: bool,
    pub(super) response_timeout: Option<Duration>,
    #[cfg(feature = "sqlite")]
    pub(crate) turns: Turns,
}

/// Who may use an SQLite file: one writer, or without a write-ahead log, else readers. So it is anyway; but SQLite's own
/// locks are not fair, and under load somebody always waits until it is too late. Other processes wait as ever.
#[cfg(feature = "sqlite")]
#[derive(Clone)]
pub(crate) struct Turns {
    turn: Arc<RwLock<()>>,
    write_ahead: Arc<OnceCell<bool>>,
    /// SQLite's busy timeout: who waits longer for a turn would wait for SQLite's lock as long.
    limit: Duration,
}

#[cfg(feature = "sqlite")]
impl Default for Turns {
    fn default() -> Self {
        Self { turn: Arc::default(), write_ahead: Arc::default(), limit: super::settings::BUSY_TIMEOUT }
    }
}

/// A writer of another process, for whom one of ours may wait, holds no reader up before its commit.
#[cfg(feature = "sqlite")]
const LONGEST_TURN: Duration = Duration::from_millis(100);

#[cfg(feature = "sqlite")]
impl Turns {
    pub(crate) async fn to_read(
        &self,
        pool: &sqlx::SqlitePool,
    ) -> Result<Option<OwnedRwLockReadGuard<()>>, sqlx::Error> {
        let ask = async || {
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await?;
            Ok::<_, sqlx::Error>(mode == "wal")
        };
        match self.write_ahead.get_or_try_init(ask).await? {
            true => Ok(None),
            false => Ok(timeout(LONGEST_TURN, self.turn.clone().read_owned()).await.ok()),
        }
    }

    async fn to_write(&self) -> Result<OwnedRwLockWriteGuard<()>, sqlx::Error> {
        let turn = timeout(self.limit, self.turn.clone().write_owned()).await;
        turn.map_err(|_| sqlx::Error::PoolTimedOut)
    }
}

#[derive(Clone)]
pub(crate) enum Kind {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    #[cfg(feature = "mysql")]
    MySql(sqlx::MySqlPool),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("vendor", &self.vendor())
            .field("pgbouncer", &self.pgbouncer)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

impl From<Kind> for Pool {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            pgbouncer: false,
            response_timeout: None,
            #[cfg(feature = "sqlite")]
            turns: Turns::default(),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<sqlx::SqlitePool> for Pool {
    fn from(pool: sqlx::SqlitePool) -> Self {
        Kind::Sqlite(pool).into()
    }
}

/// A pool that leads to PgBouncer in transaction mode needs [`Pool::with_pgbouncer`].
#[cfg(feature = "postgres")]
impl From<sqlx::PgPool> for Pool {
    fn from(pool: sqlx::PgPool) -> Self {
        Kind::Postgres(pool).into()
    }
}

#[cfg(feature = "mysql")]
impl From<sqlx::MySqlPool> for Pool {
    fn from(pool: sqlx::MySqlPool) -> Self {
        Kind::MySql(pool).into()
    }
}

impl Pool {
    /// Opens a pool at an address such as `sqlite:db.sqlite3`, `postgres://user@host/name` or `mysql://user@host/name`,
    /// with the time limits of [`DatabaseSettings`]. Whether PgBouncer answers there is found out.
    ///
    /// # Errors
    /// When the address is of a database whose feature is off, or nothing answers there in time. An SQLite file must
    /// exist: Django's migrations make it.
    pub async fn connect(url: &str) -> Result<Self, sqlx::Error> {
        let settings = DatabaseSettings::default();
        match url.split(':').next().unwrap_or_default() {
            #[cfg(feature = "sqlite")]
            "sqlite" => super::settings::open_sqlite(url.parse()?, &settings).await,
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => super::settings::open_postgres(url.parse()?, &settings).await,
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => super::settings::open_mysql(url.parse()?, &settings).await,
            scheme => Err(sqlx::Error::Configuration(
                format!("no database for {scheme:?}: switch the feature sqlite, postgres or mysql on").into(),
            )),
        }
    }

    /// Says that this pool leads to PgBouncer in transaction or statement mode. Each statement is then a transaction of
    /// its own, which PgBouncer keeps on one server, and none is prepared by name.
    ///
    /// Without that, prepared statements are missing on some servers, and unnamed ones are those of another client: its
    /// rows come back. [`connect`](Self::connect) and [`open`](Self::open) find PgBouncer themselves.
    ///
    /// ```
    /// # #[cfg(feature = "postgres")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::backends::db::Pool;
    ///
    /// let pool = sqlx::PgPool::connect_lazy("postgres://site@127.0.0.1:6432/site")?;
    /// assert!(Pool::from(pool).with_pgbouncer(true).is_pgbouncer());
    /// # Ok(()) }
    /// # #[cfg(not(feature = "postgres"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn with_pgbouncer(mut self, pgbouncer: bool) -> Self {
        self.pgbouncer = pgbouncer;
        self
    }

    /// Gives up a statement that is not answered within `limit`; `None`, as in pools of your own, waits for ever. For
    /// getting a connection your pool's `acquire_timeout` counts. SQLite has its own, `busy_timeout`.
    #[must_use]
    pub fn with_response_timeout(mut self, limit: Option<Duration>) -> Self {
        self.response_timeout = limit;
        self
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn with_busy_timeout(mut self, limit: Duration) -> Self {
        // Others of this process take less than a second each, where SQLite need not wait for any.
        self.turns.limit = limit.max(Duration::from_secs(1));
        self
    }

    /// Which database it is.
    pub fn vendor(&self) -> Vendor {
        match self.kind {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(_) => Vendor::Sqlite,
            #[cfg(feature = "postgres")]
            Kind::Postgres(_) => Vendor::Postgres,
            #[cfg(feature = "mysql")]
            Kind::MySql(_) => Vendor::MySql,
        }
    }

    /// Whether the connections lead to PgBouncer.
    pub fn is_pgbouncer(&self) -> bool {
        self.pgbouncer
    }

    /// The pool of sqlx, if it is one of SQLite.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(&self) -> Option<&sqlx::SqlitePool> {
        match &self.kind {
            Kind::Sqlite(pool) => Some(pool),
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => None,
        }
    }

    /// The pool of sqlx, if it is one of PostgreSQL.
    #[cfg(feature = "postgres")]
    pub fn postgres(&self) -> Option<&sqlx::PgPool> {
        match &self.kind {
            Kind::Postgres(pool) => Some(pool),
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => None,
        }
    }

    /// The pool of sqlx, if it is one of MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    pub fn mysql(&self) -> Option<&sqlx::MySqlPool> {
        match &self.kind {
            Kind::MySql(pool) => Some(pool),
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => None,
        }
    }

    /// `name` as Django's `quote_name` quotes it: one that is quoted already stays.
    pub(crate) fn quote_name(&self, name: &str) -> String {
        let quote = if self.vendor() == Vendor::MySql { '`' } else { '"' };
        if name.starts_with(quote) && name.ends_with(quote) {
            name.to_owned()
        } else {
            format!("{quote}{name}{quote}")
        }
    }

    /// How the parameter `number` (from 1) of type `cast` is written in SQL. Only PostgreSQL numbers and casts.
    pub(crate) fn parameter(&self, number: usize, cast: Option<&str>) -> String {
        match (self.vendor(), cast) {
            (Vendor::Postgres, Some(cast)) => format!("CAST(${number} AS {cast})"),
            (Vendor::Postgres, None) => format!("${number}"),
            _ => "?".to_owned(),
        }
    }

    /// A moment as Django writes it into a column of this database, with the zone of its connection.
    pub(crate) fn moment(&self, moment: Timestamp, zone: &TimeZone) -> String {
        let moment = moment.max(FIRST);
        match self.vendor() {
            Vendor::Postgres => moment.to_string(),
            Vendor::Sqlite | Vendor::MySql => local_text(moment, zone),
        }
    }

    /// SQL for a column with a moment, as a text that [`parse_moment`](Self::parse_moment) reads.
    pub(crate) fn read_moment(&self, column: &str) -> String {
        match self.vendor() {
            Vendor::Sqlite => format!("CAST({column} AS TEXT)"),
            Vendor::Postgres => format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
            Vendor::MySql => format!("CAST({column} AS CHAR)"),
        }
    }

    /// What [`read_moment`](Self::read_moment) gave, with the zone that it was written in.
    pub(crate) fn parse_moment(&self, text: &str, zone: &TimeZone) -> Option<Timestamp> {
        let zone = if self.vendor() == Vendor::Postgres { &TimeZone::UTC } else { zone };
        Some(moment_of(text.parse().ok()?, zone))
    }

    /// Runs a statement that gives no rows, and tells how many it touched.
    pub(crate) async fn execute(&self, statement: &str, parameters: &[&str]) -> Result<u64, sqlx::Error> {
        #[cfg(feature = "sqlite")]
        #[allow(irrefutable_let_patterns, reason = "it is refutable with any other database's feature")]
        if let Kind::Sqlite(pool) = &self.kind {
            return self.write_sqlite(pool, statement, parameters).await;
        }
        on_pool!(self, connection, persistent => {
            let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(persistent);
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            async { Ok(query.execute(connection).await?.rows_affected()) }
        })
    }

    /// What was begun is ended, also when nobody waits for it any more: only then it is the next one's turn.
    #[cfg(feature = "sqlite")]
    async fn write_sqlite(
        &self,
        pool: &sqlx::SqlitePool,
        statement: &str,
        parameters: &[&str],
    ) -> Result<u64, sqlx::Error> {
        let turn = self.turns.to_write().await?;
        let (pool, statement) = (pool.clone(), statement.to_owned());
        let parameters: Vec<String> = parameters.iter().map(|text| (*text).to_owned()).collect();
        let write = tokio::spawn(async move {
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for parameter in parameters {
                query = query.bind(parameter);
            }
            let done = query.execute(&pool).await;
            drop(turn);
            done
        });
        let done = write.await.map_err(|error| sqlx::Error::Io(io::Error::other(error)))?;
        Ok(done?.rows_affected())
    }

    /// The first column of the first row, if there is one.
    pub(crate) async fn fetch(
        &self,
        statement: &str,
        parameters: &[&str],
    ) -> Result<Option<Option<String>>, sqlx::Error> {
        on_pool!(self, connection, persistent => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(statement)).persistent(persistent);
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            query.fetch_optional(connection)
        })
    }

    /// The same of the row under `key` that counts at this moment.
    pub(crate) async fn fetch_at(
        &self,
        statement: &Arc<str>,
        key: &str,
        moment: Moment<'_>,
    ) -> Result<Option<Option<String>>, sqlx::Error> {
        on_pool!(self, connection, persistent => {
            let query = sqlx::query_scalar(AssertSqlSafe(Arc::clone(statement))).persistent(persistent);
            query.bind(key).bind(moment).fetch_optional(connection)
        })
    }

    /// All rows, each column of which is a text or NULL.
    pub(crate) async fn fetch_texts(
        &self,
        statement: &str,
        parameters: &[&str],
    ) -> Result<Vec<Vec<Option<String>>>, sqlx::Error> {
        on_pool!(self, connection, persistent => {
            let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(persistent);
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            async {
                let rows = query.fetch_all(connection).await?;
                rows.iter().map(|row| (0..row.len()).map(|column| row.try_get(column)).collect()).collect()
            }
        })
    }

    /// The first two columns of the first row, if there is one.
    pub(crate) async fn fetch_two(
        &self,
        statement: &str,
        parameters: &[&str],
    ) -> Result<Option<(String, String)>, sqlx::Error> {
        on_pool!(self, connection, persistent => {
            let mut query = sqlx::query_as(AssertSqlSafe(statement)).persistent(persistent);
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            query.fetch_optional(connection)
        })
    }

    /// What `statement` comes to, unless it takes longer than it may.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) async fn in_time<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let Some(limit) = self.response_timeout else { return statement.await };
        tokio::time::timeout(limit, statement).await.unwrap_or_else(|_| {
            let message = format!("the database took longer than {limit:?} to answer");
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
        })
    }
}

/// The first day that Python's calendar has in all zones: the second of the year 1. PostgreSQL reads no earlier year.
const FIRST: Timestamp = Timestamp::constant(-62_135_510_400, 0);

/// Python's `str(datetime)`: microseconds only if there are any.
fn local_text(moment: Timestamp, zone: &TimeZone) -> String {
    let local = moment.to_zoned(zone.clone());
    let has_fraction = local.subsec_nanosecond() >= 1000;
    local.strftime(if has_fraction { "%F %T.%6f" } else { "%F %T" }).to_string()
}

/// A moment in a parameter, with the zone that its text is in. PostgreSQL gets it as it keeps it, and reads no text.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) moment: Timestamp,
    #[cfg_attr(not(any(feature = "sqlite", feature = "mysql")), allow(dead_code, reason = "for texts"))]
    pub(crate) zone: &'a TimeZone,
}

#[cfg(feature = "postgres")]
impl Type<sqlx::Postgres> for Moment<'_> {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        /// `timestamptz` in PostgreSQL's `pg_type.dat`.
        const TIMESTAMPTZ: sqlx::postgres::types::Oid = sqlx::postgres::types::Oid(1184);
        sqlx::postgres::PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

#[cfg(feature = "postgres")]
impl Encode<'_, sqlx::Postgres> for Moment<'_> {
    fn encode_by_ref(
        &self,
        buffer: &mut <sqlx::Postgres as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        /// 2000-01-01, where PostgreSQL counts its microseconds from, in those of Unix.
        const BEGINNING: i64 = 946_684_800_000_000;
        buffer.extend((self.moment.as_microsecond() - BEGINNING).to_be_bytes());
        Ok(IsNull::No)
    }
}

#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! moment_is_text {
    ($database:ty) => {
        impl Type<$database> for Moment<'_> {
            fn type_info() -> <$database as Database>::TypeInfo {
                <str as Type<$database>>::type_info()
            }
        }

        impl<'q> Encode<'q, $database> for Moment<'_> {
            fn encode_by_ref(
                &self,
                buffer: &mut <$database as Database>::ArgumentBuffer,
            ) -> Result<IsNull, BoxDynError> {
                Encode::<'q, $database>::encode(local_text(self.moment, self.zone), buffer)
            }
        }
    };
}
#[cfg(feature = "sqlite")]
moment_is_text!(sqlx::Sqlite);
#[cfg(feature = "mysql")]
moment_is_text!(sqlx::MySql);

/// A connection that goes back to its pool only after it answered.
///
/// If the statement is dropped meanwhile, its answer is still to come: sqlx skips it in most cases, but not while
/// it prepares a statement of MySQL. Such a connection is closed.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) struct Borrowed<DB: sqlx::Database> {
    connection: PoolConnection<DB>,
    answered: bool,
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: sqlx::Database> Borrowed<DB> {
    pub(crate) fn new(connection: PoolConnection<DB>) -> Self {
        Self { connection, answered: false }
    }

    /// Notes how the statement ended. A refusal by the database is an answer, unless it was its last; a fault of the
    /// connection is none.
    pub(crate) fn ended<T>(&mut self, result: &Result<T, sqlx::Error>) {
        use sqlx::Error::{ColumnDecode, Database, Decode};
        self.answered = match result {
            Ok(_) | Err(Decode(_) | ColumnDecode { .. }) => true,
            Err(Database(error)) => !is_last_word(&**error),
            Err(_) => false,
        };
    }
}

/// Whether the server closes the connection after this error: it shuts down, or somebody killed the connection.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn is_last_word(error: &dyn sqlx::error::DatabaseError) -> bool {
    // PostgreSQL's, PgBouncer's, and those of MySQL and MariaDB. One that only reads is the primary no more.
    let last = ["57P", "25P03", "25006", "08", "70100"];
    error.code().is_some_and(|code| last.iter().any(|beginning| code.starts_with(beginning)))
        || is_read_only(error)
}

/// MySQL's and MariaDB's `--read-only`, whose code is that of any error.
#[cfg(feature = "mysql")]
fn is_read_only(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
    error.is_some_and(|error| matches!(error.number(), 1290 | 1792 | 1836))
}

#[cfg(all(feature = "postgres", not(feature = "mysql")))]
fn is_read_only(_: &dyn sqlx::error::DatabaseError) -> bool {
    false
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: sqlx::Database> Deref for Borrowed<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: sqlx::Database> DerefMut for Borrowed<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
impl<DB: sqlx::Database> Drop for Borrowed<DB> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

/// Runs the same code on a connection to whichever database it is. The code gives a future of a result of sqlx's; its
/// query is to be as `persistent` as it is told.
macro_rules! on_pool {
    ($pool:expr, $connection:ident, $persistent:ident => $code:expr) => {
        async {
            use $crate::backends::db::{Kind, Pool};
            let pool: &Pool = $pool;
            match &pool.kind {
                #[cfg(feature = "sqlite")]
                Kind::Sqlite(sqlite) => {
                    let _turn = pool.turns.to_read(sqlite).await?;
                    let mut borrowed = sqlite.acquire().await?;
                    let ($connection, $persistent) = (&mut *borrowed, true);
                    let result: Result<_, sqlx::Error> = { $code }.await;
                    result
                }
                #[cfg(feature = "postgres")]
                Kind::Postgres(postgres) if pool.pgbouncer => {
                    let mut borrowed = $crate::backends::db::Borrowed::new(postgres.acquire().await?);
                    let statement = async {
                        let mut transaction = sqlx::Connection::begin(&mut *borrowed).await?;
                        let result: Result<_, sqlx::Error> = {
                            let ($connection, $persistent) = (&mut *transaction, false);
                            { $code }.await
                        };
                        // Not awaited on its way out, a rollback would wait for the next one who uses the connection.
                        match result {
                            Ok(result) => transaction.commit().await.map(|()| result),
                            Err(error) => transaction.rollback().await.and(Err(error)),
                        }
                    };
                    let result = pool.in_time(statement).await;
                    borrowed.ended(&result);
                    result
                }
                #[cfg(feature = "postgres")]
                Kind::Postgres(postgres) => {
                    let mut borrowed = $crate::backends::db::Borrowed::new(postgres.acquire().await?);
                    let ($connection, $persistent) = (&mut *borrowed, true);
                    let result: Result<_, sqlx::Error> = pool.in_time($code).await;
                    borrowed.ended(&result);
                    result
                }
                #[cfg(feature = "mysql")]
                Kind::MySql(mysql) => {
                    let mut borrowed = $crate::backends::db::Borrowed::new(mysql.acquire().await?);
                    let ($connection, $persistent) = (&mut *borrowed, true);
                    let result: Result<_, sqlx::Error> = pool.in_time($code).await;
                    borrowed.ended(&result);
                    result
                }
            }
        }
        .await
    };
}
pub(crate) use on_pool;
