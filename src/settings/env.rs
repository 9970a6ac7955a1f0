//! Settings out of environment variables.

use std::path::Path;

use super::file::{from_table, value_error};
use super::tree::{Fault, Table, Tree};
use super::{Settings, SettingsError};

/// The file that is read in place of all other variables.
const FILE: &str = "DJANGO_SESSIONS_FILE";

/// Variables that are named as Django's settings, and mean what those mean.
const SETTINGS: [&str; 12] = [
    "SECRET_KEY",
    "SESSION_ENGINE",
    "SESSION_FILE_PATH",
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_AGE",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_SECURE",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_EXPIRE_AT_BROWSER_CLOSE",
    "SESSION_SAVE_EVERY_REQUEST",
];

impl Settings {
    /// Settings out of environment variables.
    ///
    /// | variable | |
    /// | --- | --- |
    /// | `DJANGO_SESSIONS_FILE` | The path of a settings file; then no other variable counts but those that the file names. |
    /// | `SECRET_KEY`, `SECRET_KEY_FALLBACKS` | The first is required. Fallbacks are parted by commas. |
    /// | `SESSION_ENGINE` | `db`, `cached_db` and so on, or Django's dotted path. |
    /// | `DATABASE_URL` | `postgres://user:password@host:5432/name`, `mysql://…`, `sqlite:///path`: the database `default`. |
    /// | `CACHE_URL` | `redis://…`, `rediss://…`, `unix://…`, `memcached://host:11211`, `file:///path`, `database://table`: the cache `default`. |
    /// | `CACHE_KEY_PREFIX`, `CACHE_VERSION` | `KEY_PREFIX` and `VERSION` of that cache. |
    /// | `SESSION_FILE_PATH`, `SESSION_COOKIE_NAME`, `_AGE`, `_DOMAIN`, `_PATH`, `_SECURE`, `_HTTPONLY`, `_SAMESITE`, `SESSION_EXPIRE_AT_BROWSER_CLOSE`, `SESSION_SAVE_EVERY_REQUEST` | As in Django. Yes and no are `true` and `false`. |
    ///
    /// A variable that is empty counts as one that is not set. All else is as Django has it by default; a project that
    /// differs in more than this exports a file.
    ///
    /// ```no_run
    /// use django_sessions::settings::Settings;
    ///
    /// let settings = Settings::from_env()?;
    /// # Ok::<(), django_sessions::settings::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// When a variable is missing or not understood, and as [`from_file`](Self::from_file).
    pub fn from_env() -> Result<Self, SettingsError> {
        match variable(FILE) {
            Some(path) => Self::from_file(Path::new(&path)),
            None => Self::from_variables(variable),
        }
    }

    /// As [`from_env`](Self::from_env), with `variables` in the place of the environment. `DJANGO_SESSIONS_FILE` is not
    /// among them.
    ///
    /// ```
    /// use django_sessions::settings::{Engine, Settings};
    ///
    /// let variables = |name: &str| match name {
    ///     "SECRET_KEY" => Some("the site's".to_owned()),
    ///     "SESSION_ENGINE" => Some("django.contrib.sessions.backends.signed_cookies".to_owned()),
    ///     "SESSION_COOKIE_SECURE" => Some("true".to_owned()),
    ///     _ => None,
    /// };
    /// let settings = Settings::from_variables(variables)?;
    /// assert_eq!(settings.session_engine, Engine::SignedCookies);
    /// assert!(settings.session_cookie_secure);
    /// # Ok::<(), django_sessions::settings::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_variables(variables: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = |name: &str| variables(name).filter(|value| !value.is_empty());
        let settings = read(&variables).and_then(from_table);
        settings.map_err(|mut fault| {
            if let Some(name) = variable_of(&fault.key) {
                fault.key = name;
            }
            if fault.key == "SECRET_KEY" {
                fault.message = format!("set it to Django's SECRET_KEY, or set {FILE} to an exported file");
            }
            value_error("environment", fault)
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variable that a key comes from.
fn variable_of(key: &str) -> Option<String> {
    Some(match key.split('.').next()? {
        "caches" if key.ends_with(".key_prefix") => "CACHE_KEY_PREFIX".to_owned(),
        "caches" if key.ends_with(".version") => "CACHE_VERSION".to_owned(),
        "caches" => "CACHE_URL".to_owned(),
        "databases" => "DATABASE_URL".to_owned(),
        setting => setting.to_uppercase(),
    })
}

fn read(variables: &dyn Fn(&str) -> Option<String>) -> Result<Table, Fault> {
    let mut table = Table::new();
    for name in SETTINGS {
        if let Some(value) = variables(name) {
            table.insert(name.to_lowercase(), Tree::Variable(value));
        }
    }
    if let Some(Tree::Variable(engine)) = table.get_mut("session_engine") {
        // `django.contrib.sessions.backends.db`, and this project's.
        *engine = engine.rsplit('.').next().unwrap_or_default().to_owned();
    }
    let is_false = |value: &str| value.eq_ignore_ascii_case("false");
    if matches!(table.get("session_cookie_samesite"), Some(Tree::Variable(value)) if is_false(value)) {
        table.insert("session_cookie_samesite".to_owned(), Tree::Bool(false));
    }
    if let Some(keys) = variables("SECRET_KEY_FALLBACKS") {
        let keys = keys.split(',').map(|key| Tree::Variable(key.trim().to_owned())).collect();
        table.insert("secret_key_fallbacks".to_owned(), Tree::List(keys));
    }
    if let Some(url) = variables("DATABASE_URL") {
        let database = database(&url).map_err(|message| Fault::new("DATABASE_URL", message))?;
        table.insert("databases".to_owned(), default(database));
    }
    if let Some(url) = variables("CACHE_URL") {
        let mut cache = cache(&url).map_err(|message| Fault::new("CACHE_URL", message))?;
        for (key, name) in [("key_prefix", "CACHE_KEY_PREFIX"), ("version", "CACHE_VERSION")] {
            if let Some(value) = variables(name) {
                cache.insert(key.to_owned(), Tree::Variable(value));
            }
        }
        table.insert("caches".to_owned(), default(cache));
    }
    Ok(table)
}

fn default(table: Table) -> Tree {
    Tree::Table(Table::from([("default".to_owned(), Tree::Table(table))]))
}

fn entries<const N: usize>(entries: [(&str, String); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), Tree::Variable(value))).collect()
}

/// An address as dj-database-url reads it. No message repeats it, for it holds a password.
fn database(url: &str) -> Result<Table, &'static str> {
    const FORMS: &str = "this should be like postgres://user:password@host:5432/name, mysql://user:password@host/name \
                         or sqlite:///path/of/db.sqlite3";
    let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let engine = match scheme {
        "postgres" | "postgresql" | "pgsql" => "postgresql",
        "mysql" | "mariadb" => "mysql",
        "sqlite" | "sqlite3" => "sqlite3",
        _ => return Err(FORMS),
    };
    let (server, name) = rest.split_once('/').ok_or(FORMS)?;
    let mut table = entries([("engine", engine.to_owned()), ("name", decode(name)?)]);
    if name.is_empty() {
        return Err("the name of the database is missing at the end of the address");
    }
    let (login, place) = server.rsplit_once('@').unwrap_or(("", server));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    // The colons of `[::1]:5432` are not all before the port.
    let port_at = place.rfind(':').filter(|at| !place[*at..].contains(']'));
    let (host, port) = port_at.map_or((place, ""), |at| (&place[..at], &place[at + 1..]));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    for (key, value) in [("user", user), ("password", password), ("host", host), ("port", port)] {
        if !value.is_empty() {
            table.insert(key.to_owned(), Tree::Variable(decode(value)?));
        }
    }
    let mut options = Table::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("after the ? stand options like sslmode=require")?;
        options.insert(decode(key)?, Tree::Variable(decode(value)?));
    }
    if !options.is_empty() {
        table.insert("options".to_owned(), Tree::Table(options));
    }
    Ok(table)
}

fn cache(url: &str) -> Result<Table, &'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    Ok(match scheme {
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
            entries([("backend", "redis".to_owned()), ("location", url.to_owned())])
        }
        "memcached" | "memcache" => {
            entries([("backend", "memcached".to_owned()), ("location", rest.to_owned())])
        }
        "file" => entries([("backend", "filebased".to_owned()), ("location", decode(rest)?)]),
        "database" => entries([("backend", "database".to_owned()), ("location", rest.to_owned())]),
        _ => {
            return Err(
                "this should begin with redis://, rediss://, unix://, memcached://, file:// or database://",
            );
        }
    })
}

/// Takes `%20` and the like out of a text.
fn decode(text: &str) -> Result<String, &'static str> {
    const WRONG: &str =
        "a % is not followed by the two hexadecimal digits of a byte of UTF-8; a % itself is %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        (bytes, rest) = match (first, more) {
            (b'%', [high, low, more @ ..]) => {
                let digit = |byte: &u8| (*byte as char).to_digit(16).ok_or(WRONG);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                (bytes, more)
            }
            (b'%', _) => return Err(WRONG),
            _ => {
                bytes.push(*first);
                (bytes, more)
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| WRONG)
}
