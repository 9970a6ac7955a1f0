use std::sync::Arc;

use crate::backends::cache::CacheStore;
use crate::caches::format::Format;
use crate::caches::{Cache, CacheError, KeyLayout};
use crate::settings::{CacheBackend, CacheSettings, KeyFunction, Settings, SettingsError};

impl Settings {
    /// Opens one of `caches`.
    ///
    /// ```
    /// # #[cfg(feature = "locmem")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::settings::{FileFormat, Settings};
    ///
    /// let text = r#"{"version": 1, "secret_key": "x", "caches": {"default": {"backend": "locmem", "key_prefix": "shop"}}}"#;
    /// let settings = Settings::from_str(text, FileFormat::Json)?;
    /// let cache = settings.cache("default").await?;
    /// let key = settings.caches["default"].key_layout()?.make_key("visits");
    /// assert_eq!(key, "shop:1:visits");
    /// assert!(cache.add(&key, b"1", None).await?);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "locmem"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// When there is no such alias, its feature is off, or nothing answers.
    pub async fn cache(&self, alias: &str) -> Result<Arc<dyn Cache>, SettingsError> {
        let settings = self.cache_settings(alias)?;
        let opened: Result<Arc<dyn Cache>, CacheError> = match &settings.backend {
            #[cfg(feature = "redis")]
            CacheBackend::Redis(redis) => {
                crate::caches::redis::RedisCache::open(redis).await.map(|cache| Arc::new(cache) as _)
            }
            #[cfg(feature = "memcached")]
            CacheBackend::Memcached(memcached) => {
                crate::caches::memcached::MemcachedCache::open(memcached).map(|cache| Arc::new(cache) as _)
            }
            #[cfg(feature = "_sql")]
            CacheBackend::Database(table) => {
                let pool = self.pool(&table.database).await?;
                let cache = crate::caches::db::DbCache::new(pool, table);
                Ok(Arc::new(cache.with_time_zone(self.time_zone_of(&table.database))))
            }
            #[cfg(feature = "filebased")]
            CacheBackend::FileBased(folder) => {
                crate::caches::filebased::FileBasedCache::open(folder).map(|cache| Arc::new(cache) as _)
            }
            #[cfg(feature = "locmem")]
            CacheBackend::LocMem(map) => {
                crate::caches::locmem::LocMemCache::open(map).map(|cache| Arc::new(cache) as _)
            }
            CacheBackend::Missing { backend, feature } => {
                let what = format!("the cache {alias:?} ({backend})");
                return Err(SettingsError::Feature { what, feature });
            }
        };
        opened.map_err(|source| SettingsError::Open {
            what: format!("the cache {alias:?}"),
            source: source.into(),
        })
    }

    /// The cache of `session_cache_alias`.
    pub(super) async fn session_cache(&self) -> Result<Arc<dyn Cache>, SettingsError> {
        // Before anything is opened.
        self.cache_settings(&self.session_cache_alias)?.key_layout()?;
        self.cache(&self.session_cache_alias).await
    }

    /// The engine over that cache.
    pub(super) fn cache_store(&self, cache: Arc<dyn Cache>) -> Result<CacheStore, SettingsError> {
        let settings = self.cache_settings(&self.session_cache_alias)?;
        let store = CacheStore::new(cache, settings.key_layout()?, settings.format(), self.clone());
        Ok(match &self.cache_key_prefix {
            Some(prefix) => store.with_key_prefix(prefix.clone()),
            None => store,
        })
    }

    fn cache_settings(&self, alias: &str) -> Result<&CacheSettings, SettingsError> {
        self.caches.get(alias).ok_or_else(|| SettingsError::Value {
            origin: "settings".to_owned(),
            key: format!("caches.{alias}"),
            message: format!("this cache is missing; there are {:?}", self.caches.keys()),
        })
    }
}

impl CacheSettings {
    /// How values are stored: as Django's own caches do, unless this is django-redis with other options.
    fn format(&self) -> Format {
        match &self.backend {
            #[cfg(feature = "redis")]
            CacheBackend::Redis(redis) => redis.format.clone(),
            _ => Format::django(),
        }
    }

    /// What makes the server's keys.
    ///
    /// # Errors
    /// When the project has a `KEY_FUNCTION`, and `key_function` is still the name of it and no Rust function.
    pub fn key_layout(&self) -> Result<KeyLayout, SettingsError> {
        let layout = KeyLayout::new(self.key_prefix.clone(), &self.version);
        match &self.key_function {
            KeyFunction::Django => Ok(layout),
            KeyFunction::Rust(function) => {
                let function = function.clone();
                Ok(layout.with_function(move |key, prefix, version| function(key, prefix, version)))
            }
            KeyFunction::Python(path) => Err(SettingsError::Value {
                origin: "settings".to_owned(),
                key: "key_function".to_owned(),
                message: format!(
                    "Rust cannot call the project's {path}: put a function that does the same into \
                     settings.caches[..].key_function, as KeyFunction::Rust"
                ),
            }),
        }
    }
}
