use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tree::{Fault, Reader, Table, Tree, unknown_key};
#[cfg(feature = "_sql")]
use crate::caches::db::DatabaseCacheSettings;
#[cfg(feature = "filebased")]
use crate::caches::filebased::FileBasedSettings;
#[cfg(feature = "locmem")]
use crate::caches::locmem::LocMemSettings;
#[cfg(feature = "memcached")]
use crate::caches::memcached::MemcachedSettings;
#[cfg(feature = "redis")]
use crate::caches::redis::RedisSettings;

/// One of Django's `CACHES`.
///
/// ```
/// # #[cfg(feature = "locmem")] {
/// use django_sessions::caches::locmem::LocMemSettings;
/// use django_sessions::settings::{CacheBackend, CacheSettings};
///
/// let mut cache = CacheSettings::new(CacheBackend::LocMem(LocMemSettings::default()));
/// cache.key_prefix = "shop".to_owned();
/// assert_eq!(cache.key_layout()?.make_key("greeting"), "shop:1:greeting");
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheSettings {
    /// `KEY_PREFIX`: none.
    pub key_prefix: String,
    /// `VERSION`: 1. What is no number, as Python's `str()` shows it.
    pub version: String,
    /// What makes the keys: Django's own function.
    pub key_function: KeyFunction,
    /// `BACKEND`, and what it wants to know.
    pub backend: CacheBackend,
}

impl CacheSettings {
    /// Django's defaults, with this cache.
    pub fn new(backend: CacheBackend) -> Self {
        Self {
            key_prefix: String::new(),
            version: "1".to_owned(),
            key_function: KeyFunction::Django,
            backend,
        }
    }

    pub(super) fn read(tree: Tree) -> Result<Self, Fault> {
        let mut reader = Reader::new(tree.into_table()?);
        let mut name = String::new();
        reader.read("backend", &mut name)?;
        let mut settings = Self::new(CacheBackend::Missing { backend: "", feature: "" });
        reader.read("key_prefix", &mut settings.key_prefix)?;
        settings.version = match reader.take("version") {
            Some(Tree::Integer(number)) => number.to_string(),
            Some(text) => String::deserialize(text).map_err(|fault| fault.under("version"))?,
            None => settings.version,
        };
        let mut function = None;
        reader.read("key_function", &mut function)?;
        if let Some(path) = function {
            settings.key_function = KeyFunction::Python(path);
        }
        let beside = [("location", reader.take("location")), ("format", reader.take("format"))];
        let mut options = match reader.take("options") {
            Some(tree) => tree.into_table().map_err(|fault| fault.under("options"))?,
            None => Table::new(),
        };
        reader.finish()?;
        // A file has them beside `options`, as Django has `LOCATION`.
        for (key, value) in beside {
            if let Some(value) = value {
                options.insert(key.to_owned(), value);
            }
        }
        settings.backend = CacheBackend::read(&name, options)?;
        Ok(settings)
    }
}

/// Where a cache keeps its values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheBackend {
    /// Redis or Valkey: Django's `RedisCache`, or django-redis.
    #[cfg(feature = "redis")]
    Redis(Box<RedisSettings>),
    /// memcached: `PyMemcacheCache` or `PyLibMCCache`.
    #[cfg(feature = "memcached")]
    Memcached(MemcachedSettings),
    /// A table: `DatabaseCache`.
    #[cfg(feature = "_sql")]
    Database(DatabaseCacheSettings),
    /// A folder: `FileBasedCache`.
    #[cfg(feature = "filebased")]
    FileBased(FileBasedSettings),
    /// This process's memory, for tests: no Django sees what is in it.
    #[cfg(feature = "locmem")]
    LocMem(LocMemSettings),
    /// A backend whose feature is off in this build. Opening it says so.
    Missing {
        /// Its name in a settings file.
        backend: &'static str,
        /// The feature of this crate.
        feature: &'static str,
    },
}

/// The names of backends in settings files, and the features that they need.
const BACKENDS: [(&str, &str); 5] = [
    ("redis", "redis"),
    ("memcached", "memcached"),
    ("database", "sqlite`, `postgres` or `mysql"),
    ("filebased", "filebased"),
    ("locmem", "locmem"),
];

impl CacheBackend {
    fn read(name: &str, options: Table) -> Result<Self, Fault> {
        match name {
            #[cfg(feature = "redis")]
            "redis" => Ok(Self::Redis(read(options)?)),
            #[cfg(feature = "memcached")]
            "memcached" => Ok(Self::Memcached(read(options)?)),
            #[cfg(feature = "_sql")]
            "database" => Ok(Self::Database(read(options)?)),
            #[cfg(feature = "filebased")]
            "filebased" => Ok(Self::FileBased(read(options)?)),
            #[cfg(feature = "locmem")]
            "locmem" => Ok(Self::LocMem(read(options)?)),
            _ => {
                drop(options);
                Self::missing(name)
            }
        }
    }

    fn missing(name: &str) -> Result<Self, Fault> {
        match BACKENDS.iter().find(|(backend, _)| *backend == name) {
            Some((backend, feature)) => Ok(Self::Missing { backend, feature }),
            None => {
                let known: Vec<_> = BACKENDS.iter().map(|(backend, _)| *backend).collect();
                let hint = unknown_key(name, &known).message.replace("setting", "backend");
                Err(Fault::new("backend", hint))
            }
        }
    }
}

/// The room's own settings; faults are where the file has them.
#[allow(dead_code, reason = "it is used with any cache's feature")]
fn read<T: DeserializeOwned>(options: Table) -> Result<T, Fault> {
    T::deserialize(Tree::Table(options)).map_err(|fault| {
        let is_beside = ["location", "format"].iter().any(|key| fault.key.starts_with(key));
        if is_beside { fault } else { fault.under("options") }
    })
}

/// `KEY_FUNCTION` of a cache: what makes the server's key of Django's key, a prefix and a version.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum KeyFunction {
    /// Django's own, `prefix:version:key`.
    #[default]
    Django,
    /// A Python function, by its dotted path. Rust cannot call it: put a [`Rust`](Self::Rust) one in its place.
    Python(String),
    /// A Rust function that does the same, of the same arguments: key, prefix, version.
    Rust(Arc<MakeKey>),
}

/// Of key, prefix and version, the server's key.
pub type MakeKey = dyn Fn(&str, &str, &str) -> String + Send + Sync;

impl fmt::Debug for KeyFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Django => f.write_str("Django"),
            Self::Python(path) => f.debug_tuple("Python").field(path).finish(),
            Self::Rust(_) => f.write_str("Rust(..)"),
        }
    }
}
