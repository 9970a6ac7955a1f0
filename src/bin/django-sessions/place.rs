//! Which store: the site's, or another one that its settings name.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use django_sessions::backends::manage::ManagedStore;
use django_sessions::settings::{Engine, Settings, SettingsError};

use crate::report::{Failure, sentence};

#[derive(Args, Clone, Default)]
pub(crate) struct Place {
    /// What `manage.py export_session_settings --output FILE` wrote. Default: DJANGO_SESSIONS_FILE, or variables
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Another engine than SESSION_ENGINE
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<EngineName>,
    /// Another cache than SESSION_CACHE_ALIAS
    #[arg(long, value_name = "ALIAS")]
    pub(crate) cache: Option<String>,
    /// Another database than that of the sessions
    #[arg(long, value_name = "ALIAS")]
    pub(crate) database: Option<String>,
    /// Another folder than SESSION_FILE_PATH
    #[arg(long, value_name = "FOLDER")]
    pub(crate) path: Option<PathBuf>,
    /// The store that sessions were in before, which the site still reads (FALLBACK_ENGINE)
    #[arg(long, conflicts_with_all = ["engine", "cache", "database", "path"])]
    pub(crate) old: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum EngineName {
    Db,
    Cache,
    CachedDb,
    File,
}

impl Place {
    pub(crate) fn read(&self) -> Result<Settings, Failure> {
        let settings = match &self.settings {
            Some(path) => Settings::from_file(path),
            None => Settings::from_env(),
        };
        let mut settings = settings.map_err(|error| match (&error, &self.settings) {
            (SettingsError::Value { origin, .. }, None) if origin == "environment" => {
                Failure::Usage(format!(
                    "{}. Or name the file that `manage.py export_session_settings` wrote: --settings FILE",
                    sentence(&error)
                ))
            }
            _ => Failure::Usage(sentence(&error)),
        })?;
        if self.old {
            return settings.of_fallback().ok_or_else(|| {
                Failure::Usage(
                    "the settings name no store that sessions were in before: has the site a FALLBACK_ENGINE, and were \
                     they exported since?"
                        .into(),
                )
            });
        }
        if let Some(engine) = self.engine {
            settings.session_engine = match engine {
                EngineName::Db => Engine::Db,
                EngineName::Cache => Engine::Cache,
                EngineName::CachedDb => Engine::CachedDb,
                EngineName::File => Engine::File,
            };
        }
        self.check_engine(settings.session_engine)?;
        if let Some(alias) = &self.cache {
            settings.session_cache_alias.clone_from(alias);
        }
        if let Some(alias) = &self.database {
            settings.session_database.clone_from(alias);
        }
        if let Some(path) = &self.path {
            settings.session_file_path = Some(path.clone());
        }
        Ok(settings)
    }

    /// Refuses what this engine does not look at: whoever names a folder means no table.
    fn check_engine(&self, engine: Engine) -> Result<(), Failure> {
        let has_cache = matches!(engine, Engine::Cache | Engine::CachedDb);
        let has_table = matches!(engine, Engine::Db | Engine::CachedDb);
        for (is_wrong, what, engines) in [
            (self.cache.is_some() && !has_cache, "a cache (--cache)", "cache or cached_db"),
            (self.database.is_some() && !has_table, "a database (--database)", "db or cached_db"),
            (self.path.is_some() && engine != Engine::File, "a folder (--path)", "file"),
        ] {
            if is_wrong {
                return Err(Failure::Usage(format!(
                    "{what} is for the engine {engines}, and here it is {}: name the engine, too",
                    engine.name()
                )));
            }
        }
        Ok(())
    }

    /// The settings of the store that the site reads besides that of `settings`, if nobody asked for just one.
    pub(crate) fn old_besides(&self, settings: &Settings) -> Option<Settings> {
        let is_named =
            self.engine.is_some() || self.cache.is_some() || self.database.is_some() || self.path.is_some();
        settings.of_fallback().filter(|_| !is_named)
    }

    pub(crate) async fn open(&self) -> Result<(Settings, Arc<dyn ManagedStore>), Failure> {
        let settings = self.read()?;
        let store = open(&settings).await?;
        Ok((settings, store))
    }
}

pub(crate) async fn open(settings: &Settings) -> Result<Arc<dyn ManagedStore>, Failure> {
    settings.connect_managed().await.map_err(|error| match error {
        SettingsError::Open { .. } => Failure::Refused(advice(settings, &error)),
        error => Failure::Usage(sentence(&error)),
    })
}

/// Why the store does not open, and what to do.
pub(crate) fn advice(settings: &Settings, error: &SettingsError) -> String {
    let advice = match (error, settings.session_engine) {
        (SettingsError::Open { .. }, Engine::File) => ". Make it, or name another: --path",
        (SettingsError::Open { .. }, _) => ". Does it run, and is this the address? The settings name it",
        _ => "",
    };
    sentence(error) + advice
}

/// Says that sessions of the site are elsewhere too.
pub(crate) fn note_old(settings: &Settings) {
    if let Some(old) = settings.of_fallback() {
        eprintln!(
            "The site also reads {} (FALLBACK_ENGINE), whose sessions are not among these: --old is for them.",
            describe(&old)
        );
    }
}

/// The store in words.
pub(crate) fn describe(settings: &Settings) -> String {
    let cache = || format!("the cache {:?}", settings.session_cache_alias);
    let table = || format!("the table {} of the database {:?}", settings.db_table, settings.session_database);
    match settings.session_engine {
        Engine::Db => table(),
        Engine::Cache => cache(),
        Engine::CachedDb => format!("{}, with {} before it", table(), cache()),
        Engine::File => {
            let folder = settings.session_file_path.clone().unwrap_or_else(std::env::temp_dir);
            format!("the folder {}", folder.display())
        }
        _ => "the cookies of browsers".to_owned(),
    }
}
