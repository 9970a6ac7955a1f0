//! Settings files, as `manage.py export_session_settings` writes them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::tree::{Fault, Reader, Table, Tree};
use super::{CacheSettings, Settings, SettingsError};
use crate::crypto::SecretKeys;
use crate::serializers::json;

/// The format that this crate reads.
const VERSION: i64 = 1;

/// A settings file has a few kilobytes.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// How a settings file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// JSON.
    Json,
    /// TOML, with the feature `toml`.
    #[cfg(feature = "toml")]
    Toml,
}

impl FileFormat {
    /// The format that the suffix of `path` names: `.json` or `.toml`.
    fn of(path: &Path) -> Result<Self, SettingsError> {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("json") => Ok(Self::Json),
            #[cfg(feature = "toml")]
            Some("toml") => Ok(Self::Toml),
            #[cfg(not(feature = "toml"))]
            Some("toml") => Err(SettingsError::Feature {
                what: format!("{}, a TOML file,", path.display()),
                feature: "toml",
            }),
            _ => Err(SettingsError::Syntax {
                origin: path.display().to_string(),
                message: "the name of a settings file ends with .toml or .json".to_owned(),
            }),
        }
    }
}

impl Settings {
    /// Reads a settings file, which `manage.py export_session_settings --output session.toml` writes in the Django
    /// project. Its suffix says whether it is TOML (feature `toml`) or JSON.
    ///
    /// Where it says `{ env = "NAME" }`, the value is that of the environment variable.
    ///
    /// ```no_run
    /// # #[cfg(feature = "toml")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let settings = django_sessions::settings::Settings::from_file("session.toml")?;
    /// println!("sessions end after {} s", settings.session_cookie_age);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "toml"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// When the file cannot be read, is larger than 1 MiB, says what is not understood, or names an environment variable
    /// that is not set. The error says where and what to do.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        let path = path.as_ref();
        let format = FileFormat::of(path)?;
        let text = read(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        parse(&text, format, &path.display().to_string(), &variable)
    }

    /// Reads settings as [`from_file`](Self::from_file) does, out of a text.
    ///
    /// ```
    /// use django_sessions::settings::{FileFormat, Settings};
    ///
    /// let text = r#"{"version": 1, "secret_key": "the site's", "session_cookie_age": 3600}"#;
    /// let settings = Settings::from_str(text, FileFormat::Json)?;
    /// assert_eq!(settings.session_cookie_age, 3600);
    ///
    /// let text = r#"{"version": 1, "secret_key": {"env": "NOBODY_SET_THIS"}}"#;
    /// let error = Settings::from_str(text, FileFormat::Json).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "settings: secret_key: the environment variable NOBODY_SET_THIS is not set; set it"
    /// );
    /// # Ok::<(), django_sessions::settings::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_str(text: &str, format: FileFormat) -> Result<Self, SettingsError> {
        Self::from_str_with(text, format, variable)
    }

    /// As [`from_str`](Self::from_str), with `variables` in the place of the environment: for secrets that are kept
    /// elsewhere.
    ///
    /// ```
    /// use django_sessions::settings::{FileFormat, Settings};
    ///
    /// let vault = |name: &str| (name == "SECRET_KEY").then(|| "the site's".to_owned());
    /// let text = r#"{"version": 1, "secret_key": {"env": "SECRET_KEY"}}"#;
    /// let settings = Settings::from_str_with(text, FileFormat::Json, vault)?;
    /// assert_eq!(settings.secret_keys.current(), b"the site's");
    /// # Ok::<(), django_sessions::settings::SettingsError>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_str_with(
        text: &str,
        format: FileFormat,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        parse(text, format, "settings", &variables)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

fn parse(
    text: &str,
    format: FileFormat,
    origin: &str,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, SettingsError> {
    let syntax = |message| SettingsError::Syntax { origin: origin.to_owned(), message };
    let tree = match format {
        FileFormat::Json => json::from_slice(text.as_bytes()).map_err(|error| syntax(error.to_string()))?,
        #[cfg(feature = "toml")]
        FileFormat::Toml => ::toml::from_str(text).map_err(|error| syntax(place(text, &error)))?,
    };
    from_tree(tree, variables).map_err(|fault| value_error(origin, fault))
}

/// What is wrong with TOML, and in which line. Its own words repeat the line, where a password may stand.
#[cfg(feature = "toml")]
fn place(text: &str, error: &::toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line} is not TOML: {}", error.message())
}

pub(super) fn value_error(origin: &str, fault: Fault) -> SettingsError {
    let key = if fault.key.is_empty() { "the whole".to_owned() } else { fault.key };
    SettingsError::Value { origin: origin.to_owned(), key, message: fault.message }
}

fn from_tree(tree: Tree, variables: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Fault> {
    let mut table = tree.into_table()?;
    // First: a newer file may have more that is not understood.
    match table.remove("version") {
        Some(Tree::Integer(VERSION)) => {}
        None => {
            return Err(Fault::new("version", "this is missing: a settings file begins with version = 1"));
        }
        Some(_) => {
            return Err(Fault::new(
                "version",
                format!(
                    "this crate reads version {VERSION} only; export the settings anew, or update the crate"
                ),
            ));
        }
    }
    from_table(Tree::Table(table).resolve(variables)?.into_table()?)
}

pub(super) fn from_table(table: Table) -> Result<Settings, Fault> {
    let mut reader = Reader::new(table);
    let mut settings = Settings::new(secret_keys(&mut reader)?);
    settings.read_session(&mut reader)?;
    reader.read("auth", &mut settings.auth)?;
    reader.read("devices", &mut settings.devices)?;
    reader.read("csrf", &mut settings.csrf)?;
    reader.read("messages", &mut settings.messages)?;
    for (alias, cache) in tables(&mut reader, "caches")? {
        let cache = CacheSettings::read(cache).map_err(|fault| fault.under(&alias).under("caches"))?;
        settings.caches.insert(alias, cache);
    }
    settings.read_databases(tables(&mut reader, "databases")?)?;
    reader.finish()?;
    Ok(settings)
}

fn tables(reader: &mut Reader, key: &'static str) -> Result<Table, Fault> {
    match reader.take(key) {
        Some(tree) => tree.into_table().map_err(|fault| fault.under(key)),
        None => Ok(Table::new()),
    }
}

fn secret_keys(reader: &mut Reader) -> Result<SecretKeys, Fault> {
    let (mut current, mut fallbacks) = (String::new(), Vec::<String>::new());
    reader.read("secret_key", &mut current)?;
    reader.read("secret_key_fallbacks", &mut fallbacks)?;
    // Django refuses an empty one too: everybody could sign with it.
    if current.is_empty() {
        return Err(Fault::new("secret_key", "this is missing or empty; it is Django's SECRET_KEY"));
    }
    Ok(SecretKeys::new(current).with_fallbacks(fallbacks))
}

impl Settings {
    fn read_session(&mut self, reader: &mut Reader) -> Result<(), Fault> {
        reader.read("session_engine", &mut self.session_engine)?;
        reader.read("session_cookie_name", &mut self.session_cookie_name)?;
        reader.read("session_cookie_age", &mut self.session_cookie_age)?;
        reader.read("session_cookie_domain", &mut self.session_cookie_domain)?;
        reader.read("session_cookie_path", &mut self.session_cookie_path)?;
        reader.read("session_cookie_secure", &mut self.session_cookie_secure)?;
        reader.read("session_cookie_httponly", &mut self.session_cookie_httponly)?;
        if let Some(value) = reader.take("session_cookie_samesite") {
            self.session_cookie_samesite =
                super::none_or(value).map_err(|fault| fault.under("session_cookie_samesite"))?;
        }
        reader.read("session_expire_at_browser_close", &mut self.session_expire_at_browser_close)?;
        reader.read("session_save_every_request", &mut self.session_save_every_request)?;
        reader.read("session_cache_alias", &mut self.session_cache_alias)?;
        reader.read("cache_key_prefix", &mut self.cache_key_prefix)?;
        reader.read("session_file_path", &mut self.session_file_path)?;
        reader.read("session_database", &mut self.session_database)?;
        reader.read("authentication_backends", &mut self.authentication_backends)?;
        reader.read("key_salt", &mut self.key_salt)?;
        reader.read("db_table", &mut self.db_table)?;
        reader.read("db_schema", &mut self.db_schema)?;
        reader.read("max_inflated", &mut self.max_inflated)?;
        reader.read("hash_keys", &mut self.hash_keys)?;
        reader.read("merge", &mut self.merge)?;
        reader.read("fallback", &mut self.fallback)?;
        reader.read("use_tz", &mut self.use_tz)?;
        if let Some(name) = reader.take("time_zone") {
            let name = String::deserialize(name).map_err(|fault| fault.under("time_zone"))?;
            self.time_zone = super::time_zone(&name).map_err(|message| Fault::new("time_zone", message))?;
        }
        Ok(())
    }

    fn read_databases(&mut self, databases: Table) -> Result<(), Fault> {
        #[cfg(feature = "_sql")]
        for (alias, database) in databases {
            let database = crate::backends::db::DatabaseSettings::deserialize(database)
                .map_err(|fault| fault.under(&alias).under("databases"))?;
            self.databases.insert(alias, database);
        }
        // Without any database's feature nobody can ask for one.
        #[cfg(not(feature = "_sql"))]
        drop(databases);
        Ok(())
    }
}
