//! Opening the store that the settings name.

use std::sync::Arc;

use super::{Engine, HashKeys, Settings, SettingsError};
use crate::backends::SessionStore;
use crate::backends::fallback::FallbackStore;
use crate::backends::hashed_keys::HashedKeys;
use crate::backends::manage::ManagedStore;

#[cfg(feature = "_cache")]
mod caches;
#[cfg(feature = "_sql")]
mod databases;

impl Settings {
    /// Opens the store that the Django site uses: `session_engine`, over the cache and the database that it needs.
    ///
    /// ```
    /// # #[cfg(feature = "file")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::session::Session;
    /// use django_sessions::settings::Settings;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("session.json");
    /// # let sessions = folder.path().to_str().unwrap();
    /// # std::fs::write(&path, format!(r#"{{"version": 1, "secret_key": "x", "session_engine": "file", "session_file_path": {sessions:?}}}"#))?;
    /// let store = Settings::from_file(path)?.connect().await?;
    ///
    /// let mut session = Session::new();
    /// session.insert("cart", &["tea"])?;
    /// store.save(&mut session).await?;
    /// let key = session.key().expect("a saved session has a key");
    /// assert_eq!(store.load(key).await?.get::<Vec<String>>("cart")?.unwrap(), ["tea"]);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "file"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// When a feature of this crate is off that the store needs, `caches` or `databases` lack the alias that is named, or
    /// a server does not answer.
    pub async fn connect(&self) -> Result<Arc<dyn SessionStore>, SettingsError> {
        if self.session_engine == Engine::SignedCookies && self.fallback.is_none() {
            if self.merge {
                return Err(self.cannot_merge());
            }
            return self.open_signed_cookies();
        }
        let old = self.of_fallback();
        if let Some(old) = &old {
            self.check_fallback(old)?;
        }
        let store = self.with_hashed_keys().await?;
        Ok(match old {
            None => store,
            Some(old) => Arc::new(FallbackStore::new(store, old.with_hashed_keys().await?)),
        })
    }

    async fn with_hashed_keys(&self) -> Result<Arc<dyn SessionStore>, SettingsError> {
        let store = self.connect_managed().await?;
        if self.merge && !store.merges() {
            return Err(self.cannot_merge());
        }
        Ok(match self.hash_keys {
            HashKeys::Off => store,
            mode => Arc::new(HashedKeys::new(store, mode)),
        })
    }

    /// The settings of the store that sessions were in before, if there is a [`fallback`](Self::fallback).
    ///
    /// ```
    /// use django_sessions::settings::{Engine, FileFormat, Settings};
    ///
    /// let text = r#"{"version": 1, "secret_key": "x", "session_engine": "cache", "fallback": {"db_table": "old"}}"#;
    /// let old = Settings::from_str(text, FileFormat::Json)?.of_fallback().expect("there is one");
    /// assert_eq!((old.session_engine, &*old.db_table), (Engine::Db, "old"));
    /// # Ok::<(), django_sessions::settings::SettingsError>(())
    /// ```
    pub fn of_fallback(&self) -> Option<Self> {
        fn replace<T>(field: &mut T, other: Option<T>) {
            if let Some(other) = other {
                *field = other;
            }
        }
        let mut old = self.clone();
        let fallback = old.fallback.take()?;
        old.session_engine = fallback.session_engine;
        replace(&mut old.session_cache_alias, fallback.session_cache_alias);
        old.cache_key_prefix = fallback.cache_key_prefix;
        old.session_file_path = fallback.session_file_path.or(old.session_file_path);
        replace(&mut old.session_database, fallback.session_database);
        replace(&mut old.db_table, fallback.db_table);
        replace(&mut old.key_salt, fallback.key_salt);
        replace(&mut old.session_cookie_age, fallback.session_cookie_age);
        old.hash_keys = fallback.hash_keys;
        old.merge = false;
        Some(old)
    }

    fn check_fallback(&self, old: &Self) -> Result<(), SettingsError> {
        let table = |settings: &Self| match settings.session_engine {
            Engine::Db | Engine::CachedDb => {
                Some((settings.session_database.clone(), settings.db_table.clone()))
            }
            _ => None,
        };
        let is_same = match (self.session_engine, old.session_engine) {
            (Engine::Cache, Engine::Cache) => self.session_cache_alias == old.session_cache_alias,
            (Engine::File, Engine::File) => self.session_file_path == old.session_file_path,
            _ => table(self).is_some() && table(self) == table(old),
        };
        let message = if [self, old].iter().any(|each| each.session_engine == Engine::SignedCookies) {
            "signed_cookies keeps sessions in the browser: this is for engines that keep them on the server"
        } else if is_same {
            "this is where session_engine keeps sessions (db and cached_db share their table: switch between them as you \
             like); name the engine that sessions were in before, or leave it out"
        } else {
            return Ok(());
        };
        let (origin, key) = ("settings".to_owned(), "fallback".to_owned());
        Err(SettingsError::Value { origin, key, message: message.to_owned() })
    }

    fn cannot_merge(&self) -> SettingsError {
        SettingsError::Value {
            origin: "settings".to_owned(),
            key: "merge".to_owned(),
            message: format!(
                "session_engine = {:?} cannot merge saves here: Rust does so for db, cached_db, file (not on Windows), and \
                 cache on Redis or memcached; choose one of them, or take MERGE out of RUST_SESSIONS",
                self.session_engine.name()
            ),
        }
    }

    /// Opens the same store to look after it: its sessions can be listed and pruned, and go by the names that the store has
    /// for them, which with `hash_keys` are not their keys.
    ///
    /// ```
    /// # #[cfg(feature = "file")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::settings::{FileFormat, Settings};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().to_str().unwrap();
    /// let text = format!(r#"{{"version": 1, "secret_key": "x", "session_engine": "file", "session_file_path": {path:?}}}"#);
    /// let store = Settings::from_str(&text, FileFormat::Json)?.connect_managed().await?;
    /// println!("{} sessions", store.count().await?);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "file"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and for `signed_cookies`, which keeps nothing.
    pub async fn connect_managed(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        match self.session_engine {
            Engine::Db => self.open_db().await,
            Engine::Cache => self.open_cache().await,
            Engine::CachedDb => self.open_cached_db().await,
            Engine::File => self.open_file(),
            Engine::SignedCookies => Err(SettingsError::Value {
                origin: "settings".to_owned(),
                key: "session_engine".to_owned(),
                message: "signed_cookies keeps sessions in the cookies of browsers, where nobody can list or end them"
                    .to_owned(),
            }),
        }
    }

    /// The error of an engine whose feature is off.
    #[allow(dead_code, reason = "with all features on, nothing is missing")]
    fn needs(&self, feature: &'static str) -> SettingsError {
        SettingsError::Feature { what: format!("session_engine = {:?}", self.session_engine.name()), feature }
    }

    #[cfg(feature = "_cache")]
    async fn open_cache(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Ok(Arc::new(self.cache_store(self.session_cache().await?)?))
    }

    #[cfg(not(feature = "_cache"))]
    async fn open_cache(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Err(self.needs("redis`, `memcached` or `filebased"))
    }

    #[cfg(feature = "_sql")]
    async fn open_cached_db(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        use crate::backends::cached_db::CachedDbStore;

        let cache = self.cache_store(self.session_cache().await?)?;
        Ok(Arc::new(CachedDbStore::new(cache, self.db_store().await?)))
    }

    #[cfg(not(feature = "_sql"))]
    async fn open_cached_db(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Err(self.needs("sqlite`, `postgres` or `mysql"))
    }

    #[cfg(feature = "_sql")]
    async fn open_db(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Ok(Arc::new(self.db_store().await?))
    }

    #[cfg(not(feature = "_sql"))]
    async fn open_db(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Err(self.needs("sqlite`, `postgres` or `mysql"))
    }

    #[cfg(feature = "file")]
    fn open_file(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        use crate::backends::file::FileStore;

        let directory = self.session_file_path.clone().unwrap_or_else(std::env::temp_dir);
        let what = format!("the folder {} (session_file_path)", directory.display());
        FileStore::in_directory(directory, self.clone())
            .map(|store| Arc::new(store) as _)
            .map_err(|source| SettingsError::Open { what, source: source.into() })
    }

    #[cfg(not(feature = "file"))]
    fn open_file(&self) -> Result<Arc<dyn ManagedStore>, SettingsError> {
        Err(self.needs("file"))
    }

    #[cfg(feature = "signed_cookies")]
    fn open_signed_cookies(&self) -> Result<Arc<dyn SessionStore>, SettingsError> {
        use crate::backends::signed_cookies::SignedCookieStore;

        Ok(Arc::new(SignedCookieStore::new(self.clone())))
    }

    #[cfg(not(feature = "signed_cookies"))]
    fn open_signed_cookies(&self) -> Result<Arc<dyn SessionStore>, SettingsError> {
        Err(self.needs("signed_cookies"))
    }
}
