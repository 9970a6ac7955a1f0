use jiff::tz::TimeZone;

use crate::backends::db::{DatabaseEngine, DbStore, Pool};
use crate::contrib::auth::Users;
use crate::contrib::devices::Devices;
use crate::settings::{Settings, SettingsError};

impl Settings {
    /// Opens the users of the site: the table that `auth` describes, in the database that it names.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::settings::Settings;
    ///
    /// let settings = Settings::from_file("sessions.toml")?;
    /// let (store, users) = (settings.connect().await?, settings.connect_users().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`pool`](Self::pool).
    pub async fn connect_users(&self) -> Result<Users, SettingsError> {
        Ok(Users::new(self.pool(&self.auth.database).await?, self.clone()))
    }

    /// Opens the table of devices, if the site has the app `django_rust_sessions.devices`.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::settings::Settings;
    ///
    /// let settings = Settings::from_file("sessions.toml")?;
    /// if settings.connect_devices().await?.is_none() {
    ///     println!("INSTALLED_APPS does not have django_rust_sessions.devices");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`pool`](Self::pool).
    pub async fn connect_devices(&self) -> Result<Option<Devices>, SettingsError> {
        let Some(devices) = &self.devices else { return Ok(None) };
        Ok(Some(Devices::new(self.pool(&devices.database).await?, self.clone())))
    }

    /// Opens one of `databases`, for queries of your own or for two things that are to share its connections:
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::backends::db::DbStore;
    /// use django_sessions::contrib::auth::Users;
    /// use django_sessions::settings::Settings;
    ///
    /// let settings = Settings::from_file("sessions.toml")?;
    /// let pool = settings.pool("default").await?;
    /// let (store, users) = (DbStore::new(pool.clone(), settings.clone()), Users::new(pool, settings));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When there is no such alias, its feature is off, or nothing answers.
    pub async fn pool(&self, alias: &str) -> Result<Pool, SettingsError> {
        let Some(database) = self.databases.get(alias) else {
            return Err(SettingsError::Value {
                origin: "settings".to_owned(),
                key: format!("databases.{alias}"),
                message: match self.databases.is_empty() {
                    true => "this database is missing, and so is any other: export the settings anew, or set DATABASE_URL"
                        .to_owned(),
                    false => format!("this database is missing; there are {:?}", self.databases.keys()),
                },
            });
        };
        if let Some(feature) = database.engine.missing_feature() {
            return Err(SettingsError::Feature { what: format!("the database {alias:?}"), feature });
        }
        let opened = Pool::open(database).await;
        opened.map_err(|source| SettingsError::Open {
            what: match database.engine {
                DatabaseEngine::Sqlite3 => format!("the database {alias:?}, the file {}", database.name),
                _ => format!("the database {alias:?}"),
            },
            source: source.into(),
        })
    }

    /// Opens the store of the db engine in `session_database`, whatever `session_engine` says: for what only that store
    /// can do, and for [`Users::beside`](crate::contrib::auth::Users::beside).
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::backends::SessionStore;
    /// use django_sessions::settings::Settings;
    ///
    /// let store = Settings::from_file("sessions.json")?.db_store().await?;
    /// println!("{} sessions were over", store.clear_expired().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`pool`](Self::pool).
    pub async fn db_store(&self) -> Result<DbStore, SettingsError> {
        let pool = self.pool(&self.session_database).await?;
        let time_zone = self.time_zone_of(&self.session_database);
        Ok(DbStore::new(pool, Settings { time_zone, ..self.clone() }))
    }

    /// The zone of the times in a database.
    pub(crate) fn time_zone_of(&self, alias: &str) -> TimeZone {
        let own = self.databases.get(alias).and_then(|database| database.time_zone.clone());
        own.unwrap_or_else(|| self.time_zone.clone())
    }
}
