//! What a Django project's settings say about sessions, with Django's defaults.
//!
//! The Django project writes them into a file, `manage.py export_session_settings --output session.json`, and
//! [`Settings::from_file`] reads it:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::settings::{Engine, Settings};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("session.json");
//! # std::fs::write(&path, r#"{"version": 1, "secret_key": "x", "session_engine": "cached_db"}"#)?;
//! let settings = Settings::from_file(path)?;
//! assert_eq!(settings.session_engine, Engine::CachedDb);
//! # Ok(()) }
//! ```

mod auth;
mod cache;
#[cfg(feature = "_async")]
mod connect;
mod env;
mod error;
mod file;
mod tree;

#[cfg(feature = "_sql")]
pub use crate::backends::db::DatabaseSettings;
pub use auth::{
    AuthSettings, CsrfSettings, DerivedTable, DevicesSettings, MessagesSettings, PasswordHasher,
    PermissionTables, PkType,
};
pub use cache::{CacheBackend, CacheSettings, KeyFunction, MakeKey};
pub use error::SettingsError;
pub use file::FileFormat;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};

use crate::crypto::SecretKeys;
use crate::signing::DEFAULT_MAX_INFLATED;

/// Django's settings that sessions depend on. Each field is named after the setting that it stands for.
///
/// `Debug` shows no secret.
///
/// ```
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::Settings;
///
/// let mut settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// settings.session_cookie_secure = true;
/// assert_eq!(settings.session_cookie_name, "sessionid");
/// assert!(!format!("{settings:?}").contains("the site's"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// `SECRET_KEY` and `SECRET_KEY_FALLBACKS`. They have no default.
    pub secret_keys: SecretKeys,
    /// `SESSION_ENGINE`: [`Engine::Db`].
    pub session_engine: Engine,
    /// `SESSION_CACHE_ALIAS`: `default`. Which of `caches` the cache and cached_db engines use.
    pub session_cache_alias: String,
    /// `SESSION_FILE_PATH`: none, for Python's `tempfile.gettempdir()`. The folder of the file engine.
    pub session_file_path: Option<PathBuf>,
    /// Alias of the database that holds the session table, which Django asks `DATABASE_ROUTERS` for: `default`.
    pub session_database: String,
    /// `CACHES`: none.
    pub caches: BTreeMap<String, CacheSettings>,
    /// What stands before a session's key in a cache, if an engine class of the project's own has its own
    /// `cache_key_prefix`: none, for Django's two.
    pub cache_key_prefix: Option<String>,
    /// `DATABASES`: none.
    #[cfg(feature = "_sql")]
    pub databases: BTreeMap<String, DatabaseSettings>,
    /// `SESSION_COOKIE_NAME`: `sessionid`.
    pub session_cookie_name: String,
    /// `SESSION_COOKIE_AGE` in seconds: two weeks.
    pub session_cookie_age: i64,
    /// `SESSION_COOKIE_DOMAIN`: none, for a cookie of this host only.
    pub session_cookie_domain: Option<String>,
    /// `SESSION_COOKIE_PATH`: `/`.
    pub session_cookie_path: String,
    /// `SESSION_COOKIE_SECURE`: no.
    pub session_cookie_secure: bool,
    /// `SESSION_COOKIE_HTTPONLY`: yes.
    pub session_cookie_httponly: bool,
    /// `SESSION_COOKIE_SAMESITE`: `Lax`; none leaves the attribute out (Django's `False`).
    pub session_cookie_samesite: Option<SameSite>,
    /// `SESSION_EXPIRE_AT_BROWSER_CLOSE`: no.
    pub session_expire_at_browser_close: bool,
    /// `SESSION_SAVE_EVERY_REQUEST`: no.
    pub session_save_every_request: bool,
    /// `AUTHENTICATION_BACKENDS`: Django's `ModelBackend`. A login through any other is nobody's.
    pub authentication_backends: Vec<String>,
    /// Time zone of times that carry none: UTC, as in Django with `USE_TZ = True`. With `USE_TZ = False` it is
    /// `TIME_ZONE`, and databases then hold times in it.
    pub time_zone: TimeZone,
    /// `USE_TZ`: yes. Without it, Django compares moments that have no time zone, and fails on an end of a session that has
    /// one; so this crate writes the end that [`set_expiry`](crate::session::Session::set_expiry) gives in `time_zone` then.
    pub use_tz: bool,
    /// Salt of what the db, cached_db and file engines sign: `django.contrib.sessions.` and the `__qualname__` of the
    /// engine's class, which is `SessionStore` unless the project has an engine of its own.
    pub key_salt: String,
    /// Table of the db engine: `django_session`, or that of a custom session model.
    pub db_table: String,
    /// Schema of that table, where it is not the connection's own: none. Or write both as Django users do, with the
    /// quotes between them: `shop"."django_session`.
    pub db_schema: Option<String>,
    /// How many bytes the compressed data of a session may inflate to: 16 MiB. Django has no such limit.
    pub max_inflated: usize,
    /// `RUST_SESSIONS["HASH_KEYS"]` of the Python package: off.
    pub hash_keys: HashKeys,
    /// `RUST_SESSIONS["MERGE"]` of the Python package: no. A save changes what this request changed, and keeps what others
    /// have changed meanwhile; all who write the sessions must do so. [`SessionStore::replace`] says how.
    ///
    /// [`SessionStore::replace`]: crate::backends::SessionStore::replace
    pub merge: bool,
    /// `RUST_SESSIONS["FALLBACK_ENGINE"]` of the Python package: none. The store that sessions were in before.
    pub fallback: Option<FallbackSettings>,
    /// Users and logins.
    pub auth: AuthSettings,
    /// The app `django_rust_sessions.devices` of the Python package: none, if the site does not have it.
    pub devices: Option<DevicesSettings>,
    /// `CSRF_*`.
    pub csrf: CsrfSettings,
    /// `django.contrib.messages`.
    pub messages: MessagesSettings,
}

/// `SESSION_ENGINE`: where sessions are kept. An engine class of the project's own is the one that it is derived from,
/// with [`key_salt`](Settings::key_salt) and [`db_table`](Settings::db_table) of its own.
///
/// ```
/// use django_sessions::settings::Engine;
///
/// assert_eq!(Engine::default().name(), "db");
/// assert_eq!(Engine::CachedDb.name(), "cached_db");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Engine {
    /// In a table of a database.
    #[default]
    Db,
    /// In a cache only.
    Cache,
    /// In a table, with a cache before it.
    CachedDb,
    /// In a folder, one file a session.
    File,
    /// In the cookie itself.
    SignedCookies,
}

impl Engine {
    /// Its name in Django, the last word of `django.contrib.sessions.backends.cached_db`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Cache => "cache",
            Self::CachedDb => "cached_db",
            Self::File => "file",
            Self::SignedCookies => "signed_cookies",
        }
    }
}

/// Under which names a store on the server keeps sessions: `RUST_SESSIONS["HASH_KEYS"]` of the Python package. Django itself
/// has no such thing, and its own engines find only sessions that are kept under their keys.
///
/// ```
/// use django_sessions::settings::HashKeys;
///
/// assert_eq!(HashKeys::default(), HashKeys::Off);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HashKeys {
    /// Under their keys, as Django does.
    #[default]
    Off,
    /// Under hashes of their keys, so that who reads the store can log in as nobody. Sessions that are still under their keys
    /// are found, and move at their next save.
    Sha256,
    /// Under their keys. Sessions that are still under hashes are found, and move at their next save: the way back.
    Plain,
}

/// What is different for the store that sessions were in before. What is not said is as in the other settings.
///
/// ```
/// use django_sessions::settings::{Engine, FallbackSettings, FileFormat, Settings};
///
/// let text = r#"{"version": 1, "secret_key": "x", "session_engine": "cache", "fallback": {"session_engine": "db"}}"#;
/// let settings = Settings::from_str(text, FileFormat::Json)?;
/// assert_eq!(settings.fallback.unwrap().session_engine, Engine::Db);
/// # Ok::<(), django_sessions::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FallbackSettings {
    /// Where sessions were kept: [`Engine::Db`].
    pub session_engine: Engine,
    /// Which of `caches`.
    pub session_cache_alias: Option<String>,
    /// What stood before a session's key in that cache.
    pub cache_key_prefix: Option<String>,
    /// The folder of the file engine.
    pub session_file_path: Option<PathBuf>,
    /// Alias of the database with the table.
    pub session_database: Option<String>,
    /// The table.
    pub db_table: Option<String>,
    /// The salt of what was signed.
    pub key_salt: Option<String>,
    /// How long sessions lived that did not say so.
    pub session_cookie_age: Option<i64>,
    /// Under which names they are kept there: their keys.
    pub hash_keys: HashKeys,
}

/// The `SameSite` attribute of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum SameSite {
    /// Sent with requests from this site and when a link leads to it.
    Lax,
    /// Sent with requests from this site only.
    Strict,
    /// Sent with every request; browsers then want `Secure`.
    None,
}

impl Settings {
    /// The time zone of moments that have none, if Django knows no others (`USE_TZ = False`).
    pub(crate) fn naive_time_zone(&self) -> Option<&TimeZone> {
        (!self.use_tz).then_some(&self.time_zone)
    }

    /// Django's defaults, with these keys.
    pub fn new(secret_keys: SecretKeys) -> Self {
        Self {
            secret_keys,
            session_engine: Engine::Db,
            session_cache_alias: "default".to_owned(),
            session_file_path: None,
            session_database: "default".to_owned(),
            caches: BTreeMap::new(),
            cache_key_prefix: None,
            #[cfg(feature = "_sql")]
            databases: BTreeMap::new(),
            session_cookie_name: "sessionid".to_owned(),
            session_cookie_age: 60 * 60 * 24 * 7 * 2,
            session_cookie_domain: None,
            session_cookie_path: "/".to_owned(),
            session_cookie_secure: false,
            session_cookie_httponly: true,
            session_cookie_samesite: Some(SameSite::Lax),
            session_expire_at_browser_close: false,
            session_save_every_request: false,
            authentication_backends: vec!["django.contrib.auth.backends.ModelBackend".to_owned()],
            time_zone: TimeZone::UTC,
            use_tz: true,
            key_salt: "django.contrib.sessions.SessionStore".to_owned(),
            db_table: "django_session".to_owned(),
            db_schema: None,
            max_inflated: DEFAULT_MAX_INFLATED,
            hash_keys: HashKeys::Off,
            merge: false,
            fallback: None,
            auth: AuthSettings::default(),
            devices: None,
            csrf: CsrfSettings::default(),
            messages: MessagesSettings::default(),
        }
    }
}

/// A password. `Debug` does not show it.
///
/// In a settings file it is a text, or `{ env = "NAME" }` for that of an environment variable.
///
/// ```
/// use django_sessions::settings::Secret;
///
/// let password = Secret::new("hush");
/// assert_eq!(format!("{password:?}"), "Secret(..)");
/// assert_eq!(password.expose(), "hush");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A password that is known here.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The password, for the one who asks for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text, or { env = \"NAME\" }")]
        enum Form {
            Text(String),
            Variable { env: String },
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text)),
            Form::Variable { env } => std::env::var(&env)
                .map(Self)
                .map_err(|_| de::Error::custom(format!("the environment variable {env} is not set"))),
        }
    }
}

/// A value, or `false` where there is to be none.
fn none_or<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: de::DeserializeOwned,
{
    match tree::Tree::deserialize(deserializer)? {
        tree::Tree::Bool(false) => Ok(None),
        value => T::deserialize(value).map(Some).map_err(|fault| match fault.key.as_str() {
            "" => de::Error::custom(fault),
            key => de::Error::custom(format!("{key}: {fault}")),
        }),
    }
}

/// A time zone by its name, if there is one.
#[cfg(feature = "_sql")]
pub(crate) fn some_time_zone<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TimeZone>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    name.map(|name| time_zone(&name)).transpose().map_err(de::Error::custom)
}

/// A time zone by its name in the IANA database, as Django's `TIME_ZONE`.
fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        // Also where there is no such database.
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|_| {
            format!("this system knows no time zone {name:?}; install tzdata, or name one such as \"Europe/Berlin\"")
        }),
    }
}
