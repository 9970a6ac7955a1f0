//! The users' table, and who is logged in.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::AssertSqlSafe;

use super::table::{Statements, read};
use super::{
    AuthError, HASH_SESSION_KEY, HashMatch, User, UserId, check_session_auth_hash, claimed_backend,
    lets_inactive_in, session_auth_hash, user_id_of,
};
use crate::backends::db::{DbStore, Pool, Vendor, on_pool};
use crate::backends::{SessionStore, StoreError};
use crate::crypto::Algorithm;
use crate::session::Session;
use crate::settings::{AuthSettings, Settings};

/// The users of a Django site, and everything that `django.contrib.auth` does with them.
///
/// The table is the one that [`Settings::auth`] describes: `auth_user`, or that of the project's own user model.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::session::SessionKey;
/// use django_sessions::settings::Settings;
///
/// let settings = Settings::from_file("sessions.toml")?; // manage.py export_session_settings wrote it
/// let store = settings.connect().await?;
/// let users = settings.connect_users().await?;
///
/// let key = SessionKey::new("the value of the cookie").expect("8 characters at least");
/// let mut session = store.load(&key).await?;
/// match users.get_user(&*store, &mut session).await? {
///     Some(user) => println!("Hello, {}!", user.username),
///     None => println!("Hello, stranger!"),
/// }
/// # Ok(()) }
/// ```
///
/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Users {
    pub(super) pool: Pool,
    pub(super) settings: Arc<Settings>,
    pub(super) statements: Arc<Statements>,
    pub(super) zone: TimeZone,
    pub(super) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    #[cfg(feature = "hashers")]
    pub(super) hashers: Option<Arc<super::hashers::Hashers>>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("pool", &self.pool)
            .field("table", &self.auth().table)
            .finish_non_exhaustive()
    }
}

/// What a session's login is worth.
#[derive(Debug)]
pub(crate) enum Login {
    /// Nobody is logged in.
    Nobody,
    /// The password was changed since: the session is to be flushed.
    Over,
    /// It is good.
    Good(User),
    /// It is good, but was made under a former secret key: the session is to get a new key and this hash.
    ToRenew(User, String),
}

impl Users {
    /// The users in the database that `store` keeps sessions in.
    pub fn beside(store: &DbStore) -> Self {
        Self::new(store.pool().clone(), store.settings().clone())
    }

    /// The users in the database of `pool`.
    pub fn new(pool: impl Into<Pool>, settings: impl Into<Arc<Settings>>) -> Self {
        let (pool, settings) = (pool.into(), settings.into());
        Self {
            statements: Arc::new(Statements::new(&pool, &settings.auth)),
            zone: settings.time_zone_of(&settings.auth.database),
            clock: Arc::new(Timestamp::now),
            #[cfg(feature = "hashers")]
            hashers: None,
            pool,
            settings,
        }
    }

    /// Takes the moment of a login from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The settings of the site.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(super) fn auth(&self) -> &AuthSettings {
        &self.settings.auth
    }

    /// The user with this primary key, logged in or not.
    ///
    /// ```no_run
    /// # async fn example(users: django_sessions::contrib::auth::Users) -> Result<(), Box<dyn std::error::Error>> {
    /// let ada = users.by_id(42).await?;
    /// let grace = users.by_id("0d8a0f0c-5b8d-4b0f-8a3c-6a1f2e3d4c5b").await?; // where keys are UUIDs
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the database fails.
    pub async fn by_id(&self, id: impl Into<UserId>) -> Result<Option<User>, StoreError> {
        let Some(key) = self.key(&id.into()) else { return Ok(None) };
        let mut rows = self.pool.fetch_texts(&self.statements.by_id, &[&key]).await?;
        Ok(rows.pop().and_then(|row| self.read(row)))
    }

    /// The user with exactly this name in the column that users log in with (`get_by_natural_key`). MySQL compares as its
    /// collation says, mostly without regard to case.
    ///
    /// # Errors
    /// When the database fails, or several users have this name.
    pub async fn by_username(&self, username: &str) -> Result<Option<User>, AuthError> {
        if !self.can_ask_for(username) {
            return Ok(None);
        }
        let mut rows = self.pool.fetch_texts(&self.statements.by_username, &[username]).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop().and_then(|row| self.read(row))),
            _ => Err(AuthError::SeveralUsers),
        }
    }

    /// The row of a user as a struct of your own, with whatever columns you name: all that the table has are there, and
    /// with multi-table inheritance those of the derived tables too.
    ///
    /// ```no_run
    /// # async fn example(users: django_sessions::contrib::auth::Users) -> Result<(), Box<dyn std::error::Error>> {
    /// #[derive(sqlx::FromRow)]
    /// struct Customer {
    ///     first_name: String,
    ///     credit: i64,
    /// }
    ///
    /// if let Some(customer) = users.fetch_as::<Customer>(42).await? {
    ///     println!("{} has {}", customer.first_name, customer.credit);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the database fails, or a column is missing or of another type.
    pub async fn fetch_as<T: UserRow>(&self, id: impl Into<UserId>) -> Result<Option<T>, StoreError> {
        let Some(key) = self.key(&id.into()) else { return Ok(None) };
        let row = on_pool!(&self.pool, connection, persistent => {
            let query = sqlx::query_as(AssertSqlSafe(&*self.statements.all_columns)).persistent(persistent);
            query.bind(&*key).fetch_optional(connection)
        })?;
        Ok(row)
    }

    /// The user who is logged in, checked as `django.contrib.auth.get_user` checks it.
    ///
    /// Nobody is: whose backend is not in `AUTHENTICATION_BACKENDS`, who is gone, who is not active. When the password
    /// changed since the login, the session is flushed. When its hash was made under a fallback key, the session is stored
    /// under a new key with a new hash, and the old key is worth nothing from then on: whatever the response is, send the
    /// new one. The layers of [`web`](crate::web) do, also with an error of the server, where Django loses it.
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn get_user<S>(&self, store: &S, session: &mut Session) -> Result<Option<User>, StoreError>
    where
        S: SessionStore + ?Sized,
    {
        match self.login_of(session).await? {
            Login::Nobody => Ok(None),
            Login::Good(user) => Ok(Some(user)),
            Login::ToRenew(user, hash) => {
                // Before the session is stored anew: so nothing is left to save.
                session.insert(HASH_SESSION_KEY, &hash)?;
                store.cycle_key(session).await?;
                Ok(Some(user))
            }
            Login::Over => {
                store.flush(session).await?;
                Ok(None)
            }
        }
    }

    /// What the session's login is worth. The session is not changed.
    pub(crate) async fn login_of(&self, session: &Session) -> Result<Login, StoreError> {
        let id = user_id_of(session).and_then(|id| UserId::parse(&id, self.auth().pk_type));
        let (Some(id), Some(backend)) = (id, claimed_backend(session, &self.settings)) else {
            return Ok(Login::Nobody);
        };
        let user = self.by_id(id).await?.filter(|user| user.is_active || lets_inactive_in(&backend));
        let Some(user) = user else { return Ok(Login::Nobody) };
        let keys = &self.settings.secret_keys;
        let session_hash = session.get::<String>(HASH_SESSION_KEY).ok().flatten().unwrap_or_default();
        Ok(match check_session_auth_hash(&session_hash, &user.password, keys) {
            HashMatch::Current => Login::Good(user),
            HashMatch::Fallback => {
                let hash = session_auth_hash(&user.password, keys.current(), Algorithm::Sha256);
                Login::ToRenew(user, hash)
            }
            HashMatch::No => Login::Over,
        })
    }

    /// A primary key as a parameter; `None` if no user can have it.
    pub(super) fn key(&self, id: &UserId) -> Option<String> {
        let pk_type = self.auth().pk_type;
        let key = UserId::parse(&id.to_string(), pk_type)?.to_parameter();
        Some(key).filter(|key| self.can_ask_for(key))
    }

    /// PostgreSQL holds no text with a NUL, and refuses to look for one.
    fn can_ask_for(&self, text: &str) -> bool {
        self.pool.vendor() != Vendor::Postgres || !text.contains('\0')
    }

    fn read(&self, row: Vec<Option<String>>) -> Option<User> {
        read(row, &self.pool, self.auth().pk_type, &self.zone)
    }
}

/// What [`Users::fetch_as`] can make of a row: whatever implements `sqlx::FromRow` for the databases whose features are
/// on. What derives it without naming a database does.
pub trait UserRow: vendors::Sqlite + vendors::Postgres + vendors::MySql + Send + Unpin {}

impl<T: vendors::Sqlite + vendors::Postgres + vendors::MySql + Send + Unpin> UserRow for T {}

/// `FromRow` of each database whose feature is on, and nothing of the others.
mod vendors {
    macro_rules! vendor {
        ($feature:literal, $name:ident, $row:path) => {
            #[cfg(feature = $feature)]
            pub trait $name: for<'r> sqlx::FromRow<'r, $row> {}
            #[cfg(feature = $feature)]
            impl<T: for<'r> sqlx::FromRow<'r, $row>> $name for T {}
            #[cfg(not(feature = $feature))]
            pub trait $name {}
            #[cfg(not(feature = $feature))]
            impl<T> $name for T {}
        };
    }
    vendor!("sqlite", Sqlite, sqlx::sqlite::SqliteRow);
    vendor!("postgres", Postgres, sqlx::postgres::PgRow);
    vendor!("mysql", MySql, sqlx::mysql::MySqlRow);
}
