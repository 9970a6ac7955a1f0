//! Where each user is signed in: the rows of the Python package's app `django_rust_sessions.devices`, kept by Rust too.
//!
//! There is a row for each session in which somebody is logged in: since when, from where, with which browser, and when it was
//! last seen. Give [`Devices`] to the layer of sessions
//! ([`SessionLayer::with_devices`](https://docs.rs/django-sessions/latest/django_sessions/web/tower/struct.SessionLayer.html#method.with_devices)),
//! and it writes what Django's middleware and signals write. Without a layer, call [`Devices::record`] yourself.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::backends::{SessionStore, db::{DbStore, Pool}};
//! use django_sessions::contrib::auth::Users;
//! use django_sessions::contrib::devices::{Client, Devices};
//! use django_sessions::session::Session;
//! # use django_sessions::{crypto::SecretKeys, settings::Settings};
//! # let settings = std::sync::Arc::new(Settings::new(SecretKeys::new("secret")));
//! # let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
//! # let sqlite = options.connect("sqlite::memory:").await?;
//! # for table in [
//! #     "CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT)",
//! #     "CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username TEXT, password TEXT, is_active INT, is_staff INT,
//! #      is_superuser INT, email TEXT, last_login TEXT)",
//! #     "INSERT INTO auth_user VALUES (1, 'ada', '!', 1, 0, 0, '', NULL)",
//! #     "CREATE TABLE django_session_device (id INTEGER PRIMARY KEY, user_id INTEGER, session_key TEXT UNIQUE, created TEXT,
//! #      last_seen TEXT, ip TEXT, user_agent TEXT)",
//! # ] {
//! #     sqlx::query(table).execute(&sqlite).await?;
//! # }
//! # let pool = Pool::from(sqlite);
//!
//! let store = DbStore::new(pool.clone(), settings.clone());
//! let users = Users::new(pool.clone(), settings.clone());
//! let devices = Devices::new(pool, settings);
//!
//! // A login, and what the layers do after it:
//! let mut user = users.by_id(1).await?.expect("Ada");
//! let mut session = Session::new();
//! let _ = users.login(&store, &mut session, &mut user).await?;
//! store.save(&mut session).await?;
//! let agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
//! let client = Client::new(None, "192.0.2.7".parse().ok(), agent);
//! devices.record(&store, &session, &client.logged_in()).await?;
//!
//! let found = devices.user_sessions(&store, &user).await?;
//! assert_eq!(found[0].summary(), "Firefox on Linux");
//! assert!(found[0].is_of(&store, &session));
//!
//! devices.end_session(&store, &found[0]).await?;
//! assert!(store.load(session.key().expect("it was saved")).await?.is_empty());
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```

mod agents;
mod memory;
mod table;
mod visit;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use self::agents::summarise;
use self::memory::Memory;
use self::table::Statements;
pub use self::visit::Client;
pub(crate) use self::visit::Visit;
use crate::backends::db::Pool;
use crate::backends::{SessionStore, StoreError};
use crate::contrib::auth::{SESSION_KEY, User, UserId, is_login_of};
use crate::session::{Session, SessionKey};
use crate::settings::Settings;

/// A session's row is written at most once in so long.
const INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// The columns of Django's model.
const MAX_KEY: usize = 128;
const MAX_AGENT: usize = 255;

/// The table of devices.
///
/// It is the one that [`Settings::devices`] names, in the database of the pool. Cheap to clone; clones share the connections,
/// and the memory of what was written within the last minute.
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::settings::Settings;
/// use django_sessions::web::tower::SessionLayer;
///
/// let settings = Settings::from_file("sessions.toml")?; // manage.py export_session_settings wrote it
/// let layer = SessionLayer::new(settings.connect().await?, settings.clone())
///     .with_users(settings.connect_users().await?)
///     .with_devices(settings.connect_devices().await?); // None, if the site does not have the app
/// # Ok(()) }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Devices {
    pool: Pool,
    settings: Arc<Settings>,
    statements: Arc<Statements>,
    zone: TimeZone,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    memory: Arc<Mutex<Memory>>,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Devices {
    /// The devices in the database of `pool`; [`Settings::connect_devices`] opens one.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::contrib::devices::Devices;
    /// use django_sessions::crypto::SecretKeys;
    /// use django_sessions::settings::Settings;
    ///
    /// let pool = sqlx::SqlitePool::connect_lazy("sqlite:db.sqlite3")?;
    /// let devices = Devices::new(pool, Settings::new(SecretKeys::new("the site's SECRET_KEY")));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    pub fn new(pool: impl Into<Pool>, settings: impl Into<Arc<Settings>>) -> Self {
        let (pool, settings) = (pool.into(), settings.into());
        let named = settings.devices.clone().unwrap_or_default();
        Self {
            statements: Arc::new(Statements::new(&pool, &named.table, settings.auth.pk_type)),
            zone: settings.time_zone_of(&named.database),
            clock: Arc::new(Timestamp::now),
            memory: Arc::default(),
            pool,
            settings,
        }
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Writes what is to be written after a request, once its session is saved: a new row at a login, a new key, and at most
    /// once a minute that the session was seen. The layers do it for you.
    ///
    /// Nothing is asked if nobody is logged in, if the session is not on the server, or if this process wrote its row within a
    /// minute. A session whose user is gone gets no row.
    ///
    /// ```no_run
    /// use django_sessions::backends::{SessionStore, StoreError};
    /// use django_sessions::contrib::devices::{Client, Devices};
    /// use django_sessions::session::{Session, SessionKey};
    ///
    /// async fn finish(devices: &Devices, store: &dyn SessionStore, session: &mut Session, cookie: Option<&str>) -> Result<(), StoreError> {
    ///     store.save(session).await?;
    ///     let client = Client::new(cookie.and_then(SessionKey::new), None, b"");
    ///     devices.record(store, session, &client).await
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database fails. It is no reason to fail the request.
    pub async fn record<S>(&self, store: &S, session: &Session, client: &Client) -> Result<(), StoreError>
    where
        S: SessionStore + ?Sized,
    {
        match self.look(store, session, client) {
            Some(visit) => self.write(&visit).await,
            None => Ok(()),
        }
    }

    /// What is to be written after a request; asks nobody.
    pub(crate) fn look<S>(&self, store: &S, session: &Session, client: &Client) -> Option<Visit>
    where
        S: SessionStore + ?Sized,
    {
        let is_due = |name: &str, user: &UserId| {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.is_due(&format!("{name}\0{user}"), (self.clock)())
        };
        Visit::of(store, session, client, self.settings.auth.pk_type, is_due)
    }

    /// Removes the row of a session that was ended, as by a logout.
    ///
    /// ```no_run
    /// use django_sessions::backends::{SessionStore, StoreError};
    /// use django_sessions::contrib::devices::Devices;
    /// use django_sessions::session::Session;
    ///
    /// async fn log_out(devices: &Devices, store: &dyn SessionStore, session: &mut Session) -> Result<(), StoreError> {
    ///     let key = session.key().cloned();
    ///     store.flush(session).await?;
    ///     match key {
    ///         Some(key) => devices.forget(store, &key).await,
    ///         None => Ok(()),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget<S>(&self, store: &S, key: &SessionKey) -> Result<(), StoreError>
    where
        S: SessionStore + ?Sized,
    {
        match visit::is_told_apart(key) {
            true => self.delete(&visit::names(store, key)).await,
            false => Ok(()),
        }
    }

    /// The user's live sessions, the last seen first. Each is looked up in the store: one that has expired or was ended does
    /// not show, nor does one of before a change of password.
    ///
    /// ```no_run
    /// use django_sessions::web::{Auth, Refusal};
    ///
    /// async fn devices(auth: Auth) -> Result<String, Refusal> {
    ///     let user = auth.require_user().await?;
    ///     let Some(devices) = auth.session().devices() else { return Ok(String::new()) };
    ///     let found = devices.user_sessions(&**auth.session().store(), &user).await?;
    ///     Ok(found.iter().map(|device| format!("{}, {}\n", device.summary(), device.last_seen)).collect())
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn user_sessions<S>(&self, store: &S, user: &User) -> Result<Vec<Device>, StoreError>
    where
        S: SessionStore + ?Sized,
    {
        let mut live = Vec::new();
        for device in self.rows(&user.id).await? {
            let session = store.load_or_empty(&device.session_key).await?;
            if is_login_of(&session, user, &self.settings) {
                live.push(device);
            }
        }
        Ok(live)
    }

    /// Deletes the session from its store, and then the row: the device's next request is nobody's.
    ///
    /// ```no_run
    /// use django_sessions::backends::{SessionStore, StoreError};
    /// use django_sessions::contrib::{auth::User, devices::Devices};
    ///
    /// async fn sign_out(devices: &Devices, store: &dyn SessionStore, user: &User, id: i64) -> Result<bool, StoreError> {
    ///     let mine = devices.user_sessions(store, user).await?; // and nobody else's
    ///     let Some(device) = mine.iter().find(|device| device.id == id) else { return Ok(false) };
    ///     devices.end_session(store, device).await?;
    ///     Ok(true)
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database or the session's store fails. If it is the database, the session is ended all the same.
    pub async fn end_session<S>(&self, store: &S, device: &Device) -> Result<(), StoreError>
    where
        S: SessionStore + ?Sized,
    {
        store.delete(&device.session_key).await?;
        self.pool.execute(&self.statements.end, &[&device.id.to_string()]).await?;
        Ok(())
    }

    /// Ends the user's sessions, all but `keep`, and tells how many. Also those that the store does not show just now, for a
    /// cache may be out of reach.
    ///
    /// ```no_run
    /// use django_sessions::backends::StoreError;
    /// use django_sessions::contrib::{auth::User, devices::Devices};
    /// use django_sessions::web::Session;
    ///
    /// async fn everywhere_else(devices: &Devices, session: &Session, user: &User) -> Result<u64, StoreError> {
    ///     let here = session.lock().await?;
    ///     devices.end_all_sessions(&**session.store(), user, Some(&here)).await
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database or the session's store fails; [`StoreError::NothingToKeep`] if the session to keep has no key yet or
    /// is not kept on a server, and nothing is ended then.
    pub async fn end_all_sessions<S>(
        &self,
        store: &S,
        user: &User,
        keep: Option<&Session>,
    ) -> Result<u64, StoreError>
    where
        S: SessionStore + ?Sized,
    {
        if keep.is_some_and(|session| visit::stored_name(store, session).is_none()) {
            return Err(StoreError::NothingToKeep);
        }
        let mut ended = 0;
        for device in self.rows(&user.id).await? {
            if !keep.is_some_and(|session| device.is_of(store, session)) {
                self.end_session(store, &device).await?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Removes the rows of sessions that are gone, or in which nobody is logged in any more, and tells how many:
    /// `manage.py clear_devices`. Rows seen within `older_than` (Django's command: a day) are not looked at.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use django_sessions::settings::Settings;
    ///
    /// async fn clear(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    ///     let store = settings.connect().await?;
    ///     let Some(devices) = settings.connect_devices().await? else { return Ok(()) };
    ///     println!("{} removed", devices.clear_stale(&*store, Duration::from_secs(86_400)).await?);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// When the database or the session's store fails: what does not answer is not gone. The rows before stay removed.
    pub async fn clear_stale<S>(&self, store: &S, older_than: Duration) -> Result<u64, StoreError>
    where
        S: SessionStore + ?Sized,
    {
        let Ok(since) = (self.clock)().checked_sub(older_than) else { return Ok(0) };
        let (mut after, mut removed) = (0, 0);
        loop {
            let rows = self.stale(since, after).await?;
            let Some((last, _)) = rows.last() else { return Ok(removed) };
            after = *last;
            for (id, key) in rows {
                if !store.load_or_empty(&key).await?.contains_key(SESSION_KEY) {
                    removed += self.end_stale(id, since).await?;
                }
            }
        }
    }

    /// Whatever the store says of them.
    async fn rows(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let rows = self.pool.fetch_texts(&self.statements.of_user, &[&user.to_parameter()]).await?;
        Ok(rows.into_iter().filter_map(|row| self.read(row)).collect())
    }

    fn read(&self, row: Vec<Option<String>>) -> Option<Device> {
        let mut row = row.into_iter();
        let mut next = || row.next().flatten();
        Some(Device {
            id: next()?.parse().ok()?,
            user_id: UserId::parse(&next()?, self.settings.auth.pk_type)?,
            session_key: SessionKey::from_stored_name(next()?),
            created: self.pool.parse_moment(&next()?, &self.zone)?,
            last_seen: self.pool.parse_moment(&next()?, &self.zone)?,
            ip: next().and_then(|ip| ip.parse().ok()),
            user_agent: next().unwrap_or_default(),
        })
    }
}

/// One session in which somebody is logged in. `Debug` does not show its key.
///
/// ```
/// use django_sessions::contrib::devices::Device;
///
/// fn line(device: &Device) -> String {
///     let ip = device.ip.map_or("somewhere".to_owned(), |ip| ip.to_string());
///     format!("{} from {ip} since {}", device.summary(), device.created)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Primary key of the row, for a form that ends the session.
    pub id: i64,
    /// Whose session it is.
    pub user_id: UserId,
    /// When it was signed in.
    pub created: Timestamp,
    /// When it was last seen, to the minute.
    pub last_seen: Timestamp,
    /// From where it was last seen.
    pub ip: Option<IpAddr>,
    /// What the browser says that it is, cut to 255 characters.
    pub user_agent: String,
    /// With hashed keys, the name in the store.
    session_key: SessionKey,
}

impl Device {
    /// What a user sees: `Firefox on Linux`, for instance. See [`summarise`].
    pub fn summary(&self) -> String {
        summarise(&self.user_agent)
    }

    /// Whether this is the row of that session, which is in that store: "this device".
    ///
    /// ```
    /// use django_sessions::backends::SessionStore;
    /// use django_sessions::contrib::devices::Device;
    /// use django_sessions::session::Session;
    ///
    /// fn line(device: &Device, store: &dyn SessionStore, session: &Session) -> String {
    ///     let here = if device.is_of(store, session) { " (this device)" } else { "" };
    ///     format!("{}{here}", device.summary())
    /// }
    /// ```
    pub fn is_of<S>(&self, store: &S, session: &Session) -> bool
    where
        S: SessionStore + ?Sized,
    {
        visit::is_named(store, session, &self.session_key)
    }
}

/// Says that a row was not written. Not the error itself: MySQL quotes values in its own, and the key is one.
#[cfg(feature = "_layer")]
pub(crate) fn log_failure(error: &StoreError) {
    let code = match error {
        StoreError::Database(sqlx::Error::Database(error)) => error.code().map(|code| code.into_owned()),
        _ => None,
    };
    let kind = match error {
        StoreError::Database(sqlx::Error::Database(_)) => "the database refused",
        StoreError::Database(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
            "there was no connection"
        }
        StoreError::Database(sqlx::Error::Io(_)) => "the connection failed",
        _ => "the database failed",
    };
    tracing::error!(kind, code, "the device of a session was not recorded");
}
