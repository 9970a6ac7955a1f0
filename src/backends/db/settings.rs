//! An entry of Django's `DATABASES`.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, de};
use sqlx::AssertSqlSafe;
use sqlx::pool::PoolOptions;

use super::Pool;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
use super::pool::Kind;
use crate::settings::Secret;

/// One of Django's `DATABASES`, under Django's names. `Debug` shows no password.
///
/// ```
/// use django_sessions::backends::db::{DatabaseEngine, DatabaseSettings};
/// use django_sessions::settings::Secret;
///
/// let mut database = DatabaseSettings::new(DatabaseEngine::Postgresql, "shop");
/// database.user = "django".to_owned();
/// database.password = Some(Secret::new("hush"));
/// database.host = "/var/run/postgresql".to_owned(); // a UNIX socket
/// assert!(!format!("{database:?}").contains("hush"));
///
/// // As in a settings file:
/// let database: DatabaseSettings = serde_json::from_str(r#"{
///     "engine": "django.db.backends.mysql", "name": "shop", "options": {"unix_socket": "/run/mysqld.sock"}
/// }"#)?;
/// assert_eq!(database.engine, DatabaseEngine::Mysql);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseSettings {
    /// `ENGINE`: SQLite.
    pub engine: DatabaseEngine,
    /// `NAME`: of the database, or the path of SQLite's file.
    pub name: String,
    /// `USER`; empty for that of the operating system.
    pub user: String,
    /// `PASSWORD`.
    pub password: Option<Secret>,
    /// `HOST`. A path is that of a UNIX socket: of its folder for PostgreSQL, of itself for MySQL. Empty is the UNIX
    /// socket of PostgreSQL, and this machine for MySQL.
    pub host: String,
    /// `PORT`; in a settings file also as a text, where an empty one is none.
    #[serde(deserialize_with = "port")]
    pub port: Option<u16>,
    /// `TIME_ZONE` of this database, by its name: none, for that of the settings. For SQLite and MySQL only.
    #[serde(deserialize_with = "crate::settings::some_time_zone")]
    pub time_zone: Option<TimeZone>,
    /// `OPTIONS`.
    pub options: DatabaseOptions,
    /// Whether the address is that of PgBouncer in transaction mode ([`Pool::with_pgbouncer`]). None: it is found out, by a
    /// connection of its own. `false` is believed: if it is wrong, PgBouncer refuses the connection or, where it is told to
    /// ignore `extra_float_digits`, hands out rows of other visitors.
    pub pgbouncer: Option<bool>,
    /// Connections at once: 10.
    pub max_connections: u32,
    /// Seconds until there is a connection, new or given back by others: 5.
    pub connect_timeout: f64,
    /// Seconds until a statement is answered: 10; none waits for ever. SQLite has [`DatabaseOptions::timeout`].
    ///
    /// The server is told to give up a little earlier, so that what was given up is not done later: PostgreSQL by
    /// `statement_timeout`, and by `client_connection_check_interval` (1 s) for clients that go away, where the site has set
    /// neither; MySQL and MariaDB by `innodb_lock_wait_timeout`. Not through PgBouncer: set them at the server there.
    pub response_timeout: Option<f64>,
}

/// What `OPTIONS` of one of Django's `DATABASES` may hold. An option that is not known here is refused, since what it asks
/// for would not be done.
///
/// ```
/// use django_sessions::backends::db::DatabaseOptions;
///
/// let options: DatabaseOptions = serde_json::from_str(r#"{"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}"#)?;
/// assert_eq!(options.sslmode.as_deref(), Some("verify-full"));
/// assert!(serde_json::from_str::<DatabaseOptions>(r#"{"ssl_mod": "REQUIRED"}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseOptions {
    /// PostgreSQL: `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub sslmode: Option<String>,
    /// PostgreSQL: file of the authorities that the server's certificate may come from.
    pub sslrootcert: Option<PathBuf>,
    /// PostgreSQL: file of the client's certificate.
    pub sslcert: Option<PathBuf>,
    /// PostgreSQL: file of the client's key.
    pub sslkey: Option<PathBuf>,
    /// PostgreSQL: arguments for the server, as `-c search_path=shop,public`.
    pub options: Option<String>,
    /// PostgreSQL: the schemas that tables are looked for in.
    pub search_path: Option<String>,
    /// PostgreSQL: the role to take (`SET ROLE`).
    pub assume_role: Option<String>,
    /// PostgreSQL: what `pg_stat_activity` calls the connection.
    pub application_name: Option<String>,
    /// MySQL: path of the UNIX socket.
    pub unix_socket: Option<PathBuf>,
    /// MySQL: the character set of the connection: `utf8mb4`.
    pub charset: Option<String>,
    /// MySQL: `ssl_mode` of mysqlclient, such as `REQUIRED` or `VERIFY_IDENTITY`.
    pub ssl_mode: Option<String>,
    /// MySQL: files for TLS; in a settings file also `true`, for TLS without any.
    #[serde(deserialize_with = "mysql_ssl")]
    pub ssl: Option<MySqlSsl>,
    /// MySQL: `read committed`, as Django sets it, unless it says otherwise. For PostgreSQL it has no meaning here: each
    /// operation is one statement.
    pub isolation_level: Option<String>,
    /// SQLite: seconds to wait for a lock: 5, as in Python.
    pub timeout: Option<f64>,
    /// SQLite: `DEFERRED`, `IMMEDIATE` or `EXCLUSIVE`. It has no meaning here: each operation is one statement, which
    /// takes its locks at once.
    pub transaction_mode: Option<String>,
    /// SQLite and MySQL: statements to begin a connection with, such as `PRAGMA journal_mode=WAL; PRAGMA
    /// synchronous=NORMAL;`. The journal mode of the file is left alone otherwise.
    pub init_command: Option<String>,
    /// Seconds until there is a connection, in the drivers' own words; [`DatabaseSettings::connect_timeout`] otherwise, as
    /// with 0, which would be for ever. In a settings file also as a text.
    #[serde(deserialize_with = "number")]
    pub connect_timeout: Option<f64>,
}

/// `ssl` in the `OPTIONS` of a MySQL database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MySqlSsl {
    /// File of the authorities that the server's certificate may come from.
    pub ca: Option<PathBuf>,
    /// File of the client's certificate.
    pub cert: Option<PathBuf>,
    /// File of the client's key.
    pub key: Option<PathBuf>,
    /// Whether the certificate must be for the name of the host, as `ssl_mode` `VERIFY_IDENTITY` has it too.
    pub check_hostname: bool,
    /// Ciphers, in the words of OpenSSL. They have no meaning here: those of rustls are taken.
    pub cipher: Option<String>,
}

fn mysql_ssl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MySqlSsl>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "true, or a table of ca, cert, key, check_hostname and cipher")]
    enum Form {
        Switch(bool),
        Files(MySqlSsl),
        None,
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Switch(true) => Some(MySqlSsl::default()),
        Form::Files(files) => Some(files),
        Form::Switch(false) | Form::None => None,
    })
}

/// Drivers in C take numbers as texts too.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number")]
    enum Form {
        Number(f64),
        Text(String),
        None,
    }
    match Form::deserialize(deserializer)? {
        Form::Number(number) => Ok(Some(number)),
        Form::Text(text) => text.trim().parse().map(Some).map_err(de::Error::custom),
        Form::None => Ok(None),
    }
}

/// `ENGINE` of one of Django's `DATABASES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseEngine {
    /// `django.db.backends.sqlite3`.
    #[default]
    Sqlite3,
    /// `django.db.backends.postgresql`.
    Postgresql,
    /// `django.db.backends.mysql`, for MariaDB too.
    Mysql,
}

impl DatabaseEngine {
    /// The feature of this crate that it needs, if that is off.
    pub(crate) fn missing_feature(self) -> Option<&'static str> {
        let (feature, is_on) = match self {
            Self::Sqlite3 => ("sqlite", cfg!(feature = "sqlite")),
            Self::Postgresql => ("postgres", cfg!(feature = "postgres")),
            Self::Mysql => ("mysql", cfg!(feature = "mysql")),
        };
        (!is_on).then_some(feature)
    }
}

/// By its last word, so that GeoDjango's and wrapped engines (`django_prometheus.db.backends.mysql`) are known too.
impl<'de> Deserialize<'de> for DatabaseEngine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let engine = String::deserialize(deserializer)?;
        match engine.rsplit('.').next().unwrap_or_default() {
            "sqlite3" | "sqlite" | "spatialite" => Ok(Self::Sqlite3),
            "postgresql" | "postgres" | "postgis" | "postgresql_psycopg2" => Ok(Self::Postgresql),
            "mysql" | "mariadb" => Ok(Self::Mysql),
            _ => Err(de::Error::custom(format!(
                "no sessions are kept in databases of the engine {engine:?}: only sqlite3, postgresql and mysql"
            ))),
        }
    }
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a port number")]
    enum Form {
        Number(u16),
        Text(String),
        None,
    }
    match Form::deserialize(deserializer)? {
        Form::Number(port) => Ok(Some(port)),
        Form::Text(text) if !text.is_empty() => text
            .parse()
            .map(Some)
            .map_err(|_| de::Error::custom("this is a text, and should be a port number")),
        Form::Text(_) | Form::None => Ok(None),
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            engine: DatabaseEngine::default(),
            name: String::new(),
            user: String::new(),
            password: None,
            host: String::new(),
            port: None,
            time_zone: None,
            options: DatabaseOptions::default(),
            pgbouncer: None,
            max_connections: 10,
            connect_timeout: 5.0,
            response_timeout: Some(10.0),
        }
    }
}

impl DatabaseSettings {
    /// Django's defaults, for the database of this name.
    pub fn new(engine: DatabaseEngine, name: impl Into<String>) -> Self {
        Self { engine, name: name.into(), ..Self::default() }
    }

    /// Options of a pool with the limits that these settings say.
    fn pool_options<DB: sqlx::Database>(&self) -> Result<PoolOptions<DB>, sqlx::Error> {
        Ok(PoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_limit()?)
            .test_before_acquire(false))
    }

    fn connect_limit(&self) -> Result<Duration, sqlx::Error> {
        let limit =
            self.options.connect_timeout.filter(|limit| *limit != 0.0).unwrap_or(self.connect_timeout);
        seconds("connect_timeout", limit)
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn response_limit(&self) -> Result<Option<Duration>, sqlx::Error> {
        self.response_timeout.map(|limit| seconds("response_timeout", limit)).transpose()
    }
}

fn wrong(message: String) -> sqlx::Error {
    sqlx::Error::Configuration(message.into())
}

fn seconds(name: &str, seconds: f64) -> Result<Duration, sqlx::Error> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong(format!("{name} must be a number of seconds above 0"))),
    }
}

/// A connection that nobody used for so long may have died with its server. To ask for each would cost a round trip.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const IDLE: Duration = Duration::from_secs(1);

/// Asks the server of a connection that was idle whether it is still there.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! ask_the_idle {
    ($options:expr) => {
        $options.before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > IDLE {
                    sqlx::Connection::ping(connection).await?;
                }
                Ok(true)
            })
        })
    };
}

impl Pool {
    /// Opens a pool on one of Django's `DATABASES`.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::backends::db::{DatabaseEngine, DatabaseSettings, Pool};
    ///
    /// let pool = Pool::open(&DatabaseSettings::new(DatabaseEngine::Sqlite3, "db.sqlite3")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When its feature is off, a value has no meaning, or nothing answers in time. An SQLite file must exist: Django's
    /// migrations make it.
    pub async fn open(settings: &DatabaseSettings) -> Result<Self, sqlx::Error> {
        match settings.engine {
            #[cfg(feature = "sqlite")]
            DatabaseEngine::Sqlite3 => {
                let options = match settings.name.as_str() {
                    ":memory:" => "sqlite::memory:".parse()?,
                    name => sqlx::sqlite::SqliteConnectOptions::new().filename(name),
                };
                open_sqlite(options, settings).await
            }
            #[cfg(feature = "postgres")]
            DatabaseEngine::Postgresql => open_postgres(postgres_options(settings)?, settings).await,
            #[cfg(feature = "mysql")]
            DatabaseEngine::Mysql => open_mysql(mysql_options(settings)?, settings).await,
            #[allow(unreachable_patterns, reason = "it is reachable unless all databases' features are on")]
            engine => Err(wrong(format!("no database for {engine:?}: switch its feature on"))),
        }
    }
}

#[cfg(feature = "sqlite")]
pub(super) async fn open_sqlite(
    mut options: sqlx::sqlite::SqliteConnectOptions,
    settings: &DatabaseSettings,
) -> Result<Pool, sqlx::Error> {
    let timeout = settings.options.timeout.map_or(BUSY_TIMEOUT, |seconds| {
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    });
    options = options.busy_timeout(timeout);
    let mut pool = settings.pool_options::<sqlx::Sqlite>()?;
    // Every connection to an in-memory database is a database of its own.
    let name = options.get_filename().to_string_lossy();
    if name == ":memory:" || name.starts_with("file:sqlx-in-memory-") {
        pool = pool.max_connections(1).idle_timeout(None).max_lifetime(None);
    }
    if let Some(command) = settings.options.init_command.clone() {
        pool = pool.after_connect(move |connection, _| {
            let command = command.clone();
            Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(command)).execute(connection).await.map(drop) })
        });
    }
    Ok(Pool::from(Kind::Sqlite(pool.connect_with(options).await?)).with_busy_timeout(timeout))
}

/// Python's, which is Django's, and sqlx's.
#[cfg(feature = "sqlite")]
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(feature = "postgres")]
fn postgres_options(settings: &DatabaseSettings) -> Result<sqlx::postgres::PgConnectOptions, sqlx::Error> {
    let mut options = sqlx::postgres::PgConnectOptions::new();
    if !settings.name.is_empty() {
        options = options.database(&settings.name);
    }
    if !settings.user.is_empty() {
        options = options.username(&settings.user);
    }
    if let Some(password) = &settings.password {
        options = options.password(password.expose());
    }
    if !settings.host.is_empty() {
        options = options.host(&settings.host);
    }
    if let Some(port) = settings.port {
        options = options.port(port);
    }
    let more = &settings.options;
    if let Some(mode) = &more.sslmode {
        options = options.ssl_mode(mode.parse()?);
    }
    match &more.sslrootcert {
        // libpq's word for the authorities that are trusted anyway; it then looks at the host's name too.
        Some(path) if path.as_os_str() == "system" => {
            options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull);
        }
        Some(path) => options = options.ssl_root_cert(path),
        None => {}
    }
    if let Some(path) = &more.sslcert {
        options = options.ssl_client_cert(path);
    }
    if let Some(path) = &more.sslkey {
        options = options.ssl_client_key(path);
    }
    if let Some(name) = &more.application_name {
        options = options.application_name(name);
    }
    if let Some(arguments) = &more.options {
        options = options.options(server_arguments(arguments)?);
    }
    if let Some(search_path) = &more.search_path {
        options = options.options([("search_path", search_path)]);
    }
    Ok(options)
}

/// `-c name=value --name=value`, which is what libpq's `options` is used for. Spaces within a value stand behind a `\`.
#[cfg(feature = "postgres")]
fn server_arguments(arguments: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
    let mut words = vec![String::new()];
    let mut letters = arguments.chars();
    while let Some(letter) = letters.next() {
        match (letter, words.last_mut()) {
            ('\\', Some(word)) => word.extend(letters.next()),
            (space, _) if space.is_ascii_whitespace() => words.push(String::new()),
            (letter, Some(word)) => word.push(letter),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next(),
            pair => pair.map(str::to_owned),
        };
        let pair = pair.as_deref().and_then(|pair| pair.split_once('='));
        let (name, value) =
            pair.ok_or_else(|| wrong("`options` must be like \"-c name=value\"".to_owned()))?;
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(feature = "postgres")]
pub(super) async fn open_postgres(
    mut options: sqlx::postgres::PgConnectOptions,
    settings: &DatabaseSettings,
) -> Result<Pool, sqlx::Error> {
    let limit = settings.connect_limit()?;
    let pgbouncer = match settings.pgbouncer {
        Some(pgbouncer) => pgbouncer,
        None => tokio::time::timeout(limit, is_pgbouncer(&options))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)
            .flatten()?,
    };
    if pgbouncer {
        // It knows neither named statements nor, unless it is told to, this parameter.
        options = options.statement_cache_capacity(0).extra_float_digits(None);
    }
    let response_limit = settings.response_limit()?;
    let role = settings.options.assume_role.as_ref();
    let role = role.map(|role| format!("SET ROLE \"{}\"", role.replace('"', "\"\"")));
    // Not through PgBouncer, whose other clients would have it, too.
    let limits = response_limit.filter(|_| !pgbouncer).map(postgres_limits);
    let pool =
        ask_the_idle!(settings.pool_options::<sqlx::Postgres>()?).after_connect(move |connection, _| {
            let (role, limits) = (role.clone(), limits.clone());
            Box::pin(async move {
                if let Some(limits) = limits {
                    match sqlx::raw_sql(AssertSqlSafe(limits)).execute(&mut *connection).await {
                        // Not every server, and what passes for one, has them.
                        Err(error) if error.as_database_error().is_none() => return Err(error),
                        _ => {}
                    }
                }
                match role {
                    Some(role) => sqlx::raw_sql(AssertSqlSafe(role)).execute(connection).await.map(drop),
                    None => Ok(()),
                }
            })
        });
    let pool = Pool::from(Kind::Postgres(pool.connect_with(options).await?));
    Ok(pool.with_pgbouncer(pgbouncer).with_response_timeout(response_limit))
}

/// Makes the server give up a statement a little before its client does, and soon after that has gone: it would go on
/// waiting for a lock, and do its work when nobody expects it any more. What the site has set stays.
#[cfg(feature = "postgres")]
fn postgres_limits(response: Duration) -> String {
    let millis = (response.as_millis() * 9 / 10).clamp(1, i32::MAX as u128);
    format!(
        "SELECT set_config(name, CASE name WHEN 'statement_timeout' THEN '{millis}' ELSE '1000' END, false) FROM pg_settings \
         WHERE name IN ('statement_timeout', 'client_connection_check_interval') AND setting = '0'"
    )
}

/// Whether something stands before the server that does not hand a client's parameters over to it.
///
/// PostgreSQL takes any parameter with a dot in its name when a connection starts, and can be asked for it. PgBouncer
/// refuses it, or is told to ignore it.
#[cfg(feature = "postgres")]
async fn is_pgbouncer(options: &sqlx::postgres::PgConnectOptions) -> Result<bool, sqlx::Error> {
    use sqlx::{ConnectOptions, Connection, Row};
    let options = options.clone().extra_float_digits(None).options([("django_sessions.probe", "direct")]);
    let mut connection = match options.connect().await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("08P01") => return Ok(true),
        connection => connection?,
    };
    // The simple protocol, which anything understands.
    let question = "SELECT current_setting('django_sessions.probe', true)";
    let seen: Option<String> = sqlx::raw_sql(question).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(seen.as_deref() != Some("direct"))
}

#[cfg(feature = "mysql")]
fn mysql_options(settings: &DatabaseSettings) -> Result<sqlx::mysql::MySqlConnectOptions, sqlx::Error> {
    use sqlx::mysql::MySqlSslMode;
    let mut options = sqlx::mysql::MySqlConnectOptions::new().database(&settings.name);
    if !settings.user.is_empty() {
        options = options.username(&settings.user);
    }
    if let Some(password) = &settings.password {
        options = options.password(password.expose());
    }
    if settings.host.starts_with('/') {
        options = options.socket(&settings.host);
    } else if !settings.host.is_empty() {
        options = options.host(&settings.host);
    }
    if let Some(port) = settings.port {
        options = options.port(port);
    }
    let more = &settings.options;
    if let Some(path) = &more.unix_socket {
        options = options.socket(path);
    }
    if let Some(charset) = &more.charset {
        options = options.charset(charset);
    }
    if let Some(ssl) = &more.ssl {
        options = options.ssl_mode(MySqlSslMode::Required);
        if let Some(path) = &ssl.ca {
            options = options.ssl_ca(path).ssl_mode(MySqlSslMode::VerifyCa);
        }
        if let Some(path) = &ssl.cert {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &ssl.key {
            options = options.ssl_client_key(path);
        }
        if ssl.check_hostname {
            options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
        }
    }
    if let Some(mode) = &more.ssl_mode {
        options = options.ssl_mode(mode.parse()?);
    }
    Ok(options)
}

#[cfg(feature = "mysql")]
pub(super) async fn open_mysql(
    options: sqlx::mysql::MySqlConnectOptions,
    settings: &DatabaseSettings,
) -> Result<Pool, sqlx::Error> {
    let level = settings.options.isolation_level.as_deref().unwrap_or("read committed").to_ascii_lowercase();
    // It becomes part of a statement, so only these.
    if !["read uncommitted", "read committed", "repeatable read", "serializable"].contains(&level.as_str()) {
        return Err(wrong(format!("MySQL knows no isolation_level {level:?}")));
    }
    let mut commands = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level};");
    if let Some(limit) = settings.response_limit()? {
        // The server gives up waiting for a row before its client does, and is not left behind with it.
        let seconds = (limit.as_secs_f64() * 0.9).clamp(1.0, 1e9) as u32;
        commands.push_str(&format!(
            "SET SESSION innodb_lock_wait_timeout = LEAST(@@SESSION.innodb_lock_wait_timeout, {seconds});"
        ));
    }
    commands.push_str(settings.options.init_command.as_deref().unwrap_or_default());
    let pool = ask_the_idle!(settings.pool_options::<sqlx::MySql>()?).after_connect(move |connection, _| {
        let commands = commands.clone();
        Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(commands)).execute(connection).await.map(drop) })
    });
    let pool = Pool::from(Kind::MySql(pool.connect_with(options).await?));
    Ok(pool.with_response_timeout(settings.response_limit()?))
}
