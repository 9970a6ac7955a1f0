//! Sessions in the table of Django's `django.contrib.sessions.backends.db` (features `sqlite`, `postgres`, `mysql`).
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::backends::{SessionStore, db::DbStore};
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::Session;
//! use django_sessions::settings::Settings;
//!
//! let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let store = DbStore::connect("sqlite::memory:", settings).await?;
//! # let pool = store.pool().sqlite().unwrap();
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

mod manage;
mod pool;
mod prune;
mod settings;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::manage::ManageStatements;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use self::pool::Borrowed;
use self::pool::Moment;
pub(crate) use self::pool::{Kind, on_pool};
pub use self::pool::{Pool, Vendor};
use self::prune::PruneStatements;
pub use self::settings::{DatabaseEngine, DatabaseOptions, DatabaseSettings, MySqlSsl};
use super::manage::PruneOptions;
use super::{SessionStore, StoreError};
use crate::session::{Codec, Session, SessionError, SessionKey, merge};
use crate::settings::Settings;

/// The statements, made once.
#[derive(Debug)]
struct Statements {
    exists: String,
    insert: String,
    update: String,
    update_unchanged: String,
    load_to_merge: String,
    load: Arc<str>,
    load_with_expire_date: String,
    delete: String,
    prune: PruneStatements,
    manage: ManageStatements,
}

impl Statements {
    fn new(pool: &Pool, settings: &Settings) -> Self {
        let mut table = pool.quote_name(&settings.db_table);
        if let Some(schema) = &settings.db_schema {
            table = format!("{}.{table}", pool.quote_name(schema));
        }
        let text = |number| pool.parameter(number, None);
        let moment = |number| pool.parameter(number, Some("timestamptz"));
        let lives = format!("session_key = {} AND expire_date > {}", text(1), moment(2));
        let on_conflict = match pool.vendor() {
            // Its INSERT IGNORE ignores more than that, and a refusal spoils no transaction there.
            Vendor::MySql => "",
            Vendor::Sqlite | Vendor::Postgres => " ON CONFLICT (session_key) DO NOTHING",
        };
        Self {
            exists: format!("SELECT session_key FROM {table} WHERE session_key = {}", text(1)),
            insert: format!(
                "INSERT INTO {table} (session_key, session_data, expire_date) VALUES ({}, {}, {}){on_conflict}",
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
            update_unchanged: format!(
                "UPDATE {table} SET session_data = {}, expire_date = {} WHERE session_key = {} AND session_data = {}",
                text(1),
                moment(2),
                text(3),
                text(4)
            ),
            load_to_merge: format!("SELECT session_data FROM {table} WHERE session_key = {}", text(1)),
            load: format!("SELECT session_data FROM {table} WHERE {lives}").into(),
            load_with_expire_date: format!(
                "SELECT session_data, {} FROM {table} WHERE {lives}",
                pool.read_moment("expire_date")
            ),
            delete: format!("DELETE FROM {table} WHERE session_key = {}", text(1)),
            prune: PruneStatements::new(pool, &table),
            manage: ManageStatements::new(pool, &table),
        }
    }
}

/// The db engine: sessions as rows of `django_session`.
///
/// Cheap to clone; clones share the pool.
#[derive(Clone)]
pub struct DbStore {
    pool: Pool,
    settings: Arc<Settings>,
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
    pub fn new(pool: impl Into<Pool>, settings: impl Into<Arc<Settings>>) -> Self {
        let (pool, settings) = (pool.into(), settings.into());
        let statements = Arc::new(Statements::new(&pool, &settings));
        let codec = Codec::new(&settings);
        Self { pool, settings, codec, statements, clock: Arc::new(Timestamp::now) }
    }

    /// A store over a pool of its own, at an address such as `sqlite:db.sqlite3`.
    ///
    /// # Errors
    /// As [`Pool::connect`].
    pub async fn connect(url: &str, settings: impl Into<Arc<Settings>>) -> Result<Self, StoreError> {
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
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The moment so long ago.
    fn before(&self, age: Duration) -> Timestamp {
        self.now().checked_sub(age).unwrap_or(Timestamp::MIN)
    }

    async fn insert_row(&self, columns: &[&str; 3]) -> Result<bool, StoreError> {
        match self.pool.execute(&self.statements.insert, columns).await {
            Ok(rows) => Ok(rows > 0),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the columns `session_data` and `expire_date` are to hold.
    fn columns(&self, session: &Session) -> Result<(String, String), StoreError> {
        let now = self.now();
        let expire_date = session.expiry_date(&self.settings, now)?;
        Ok((self.codec.encode(session, now)?, self.moment(expire_date)))
    }

    /// A moment as Django writes it into the column `expire_date`.
    fn moment(&self, moment: Timestamp) -> String {
        self.pool.moment(moment, &self.settings.time_zone)
    }

    /// The row of a session that is not over.
    ///
    /// # Errors
    /// When the database fails, or the row's date cannot be read.
    #[allow(dead_code, reason = "for cached_db, which is there if a cache is")]
    pub(super) async fn row(&self, key: &SessionKey) -> Result<Option<Row>, StoreError> {
        if !can_be_stored(key) {
            return Ok(None);
        }
        let (statement, now) = (&self.statements.load_with_expire_date, self.moment(self.now()));
        let Some((session_data, expire_date)) = self.pool.fetch_two(statement, &[key.as_str(), &now]).await?
        else {
            return Ok(None);
        };
        let expire_date = self.pool.parse_moment(&expire_date, &self.settings.time_zone);
        Ok(Some(Row { session_data, expire_date: expire_date.ok_or(SessionError::Expiry)? }))
    }

    /// What a row holds.
    ///
    /// # Errors
    /// [`StoreError::Decode`] when it cannot be read.
    #[allow(dead_code, reason = "as above")]
    pub(super) fn decode(&self, key: &SessionKey, row: &Row) -> Result<Session, StoreError> {
        let mut session = Session::with_data(Some(key.clone()), self.codec.decode(&row.session_data)?);
        if self.settings.merge {
            session.note(Some(row.session_data.clone().into_bytes().into()));
        }
        Ok(session)
    }
}

/// A session's row. Two are equal if nobody has saved the session between their readings.
#[derive(PartialEq)]
pub(super) struct Row {
    session_data: String,
    pub(super) expire_date: Timestamp,
}

/// Whether a row can have this key. PostgreSQL has no text with a NUL, and fails when it is asked for one; a visitor can
/// send one, for Django reads `\000` in a quoted cookie so.
fn can_be_stored(key: &SessionKey) -> bool {
    !key.as_str().contains('\0')
}

#[async_trait]
impl SessionStore for DbStore {
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        if !can_be_stored(key) {
            return Ok(false);
        }
        Ok(self.pool.fetch(&self.statements.exists, &[key.as_str()]).await?.is_some())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (session_data, expire_date) = self.columns(session)?;
        self.insert_row(&[key.as_str(), &session_data, &expire_date]).await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let (session_data, expire_date) = self.columns(session)?;
        let rows =
            self.pool.execute(&self.statements.update, &[&session_data, &expire_date, key.as_str()]).await?;
        Ok(rows > 0)
    }

    fn merges(&self) -> bool {
        self.settings.merge
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        if !self.merges() {
            return self.update(key, session).await;
        }
        for attempt in 0..merge::TRIES {
            let (session_data, expire_date) = self.columns(session)?;
            if !session.has_base() {
                let row = [&*session_data, &expire_date, key.as_str()];
                let is_there = self.pool.execute(&self.statements.update, &row).await? > 0;
                session.note(Some(session_data.into_bytes().into()));
                return Ok(is_there);
            }
            if let Some(before) = session.stored().and_then(|stored| str::from_utf8(&stored.value).ok()) {
                let row = [&*session_data, &expire_date, key.as_str(), before];
                if self.pool.execute(&self.statements.update_unchanged, &row).await? > 0 {
                    session.note(Some(session_data.into_bytes().into()));
                    return Ok(true);
                }
            }
            merge::pause(attempt).await;
            let found = self.pool.fetch(&self.statements.load_to_merge, &[key.as_str()]).await?;
            let Some(found) = found.flatten() else { return Ok(false) };
            // As in Django, what cannot be read is an empty session.
            if !session.rebase(self.codec.decode(&found).unwrap_or_default(), found.into_bytes().into()) {
                return Ok(false);
            }
        }
        Err(StoreError::Conflict { tries: merge::TRIES })
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        if !can_be_stored(key) {
            return Ok(Session::new());
        }
        let now = Moment { moment: self.now(), zone: &self.settings.time_zone };
        match self.pool.fetch_at(&self.statements.load, key.as_str(), now).await?.flatten() {
            Some(session_data) => {
                let mut session = Session::with_data(Some(key.clone()), self.codec.decode(&session_data)?);
                if self.merges() {
                    session.note(Some(session_data.into_bytes().into()));
                }
                Ok(session)
            }
            None => Ok(Session::new()),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        Ok(can_be_stored(key) && self.pool.execute(&self.statements.delete, &[key.as_str()]).await? > 0)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.prune_in_batches(PruneOptions::default(), &mut |_| ControlFlow::Continue(())).await
    }
}
