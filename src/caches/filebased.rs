//! The files of Django's `FileBasedCache` (feature `filebased`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use django_sessions::caches::Cache;
//! use django_sessions::caches::filebased::{FileBasedCache, FileBasedSettings};
//!
//! # let folder = tempfile::tempdir()?;
//! # let location = folder.path();
//! // CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": location}}
//! let cache = FileBasedCache::open(&FileBasedSettings::new(location))?;
//! cache.set(":1:greeting", b"\x80\x04\x8c\x05hello.", Some(Duration::from_secs(60))).await?;
//! assert!(cache.get(":1:greeting").await?.is_some());
//! # Ok(()) }
//! ```
//!
//! A file is named after the MD5 of its key and holds the moment of its end as a pickle, and then a pickle in a zlib stream.
//! No reader ever sees half of one, and none is lost between two writers: `add` makes a file only if there is none, and
//! `replace` exchanges the new file with the one that is there, in one step of the kernel. (Django looks first, and so may
//! overwrite what another added meanwhile, or bring back what another deleted.) Only where the system cannot exchange
//! files (neither Linux nor macOS, or a network file system) does `replace` look and then rename, and a deletion in the
//! microseconds between the two is undone.
//!
//! Work on files waits in tokio's blocking threads. A call that is dropped goes on there until its end.

mod end;
mod folder;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use self::end::End;
use self::folder::Folder;
use super::{Cache, CacheError, ends_at};
use crate::signing::DEFAULT_MAX_INFLATED;

/// What Django's settings say of a `FileBasedCache`.
///
/// ```
/// use django_sessions::caches::filebased::FileBasedSettings;
/// assert_eq!(FileBasedSettings::new("/var/tmp/django_cache").max_entries, 300);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FileBasedSettings {
    /// `LOCATION`: the folder, which is made (for its owner alone) when it is missing. It has no default.
    pub location: PathBuf,
    /// `MAX_ENTRIES`: 300. With that many files, some are deleted before another is stored.
    pub max_entries: u64,
    /// `CULL_FREQUENCY`: 3, for a third of the files, whichever; 0 for all.
    pub cull_frequency: u64,
}

impl Default for FileBasedSettings {
    fn default() -> Self {
        Self { location: PathBuf::new(), max_entries: 300, cull_frequency: 3 }
    }
}

impl FileBasedSettings {
    /// Django's defaults, for this folder.
    pub fn new(location: impl Into<PathBuf>) -> Self {
        Self { location: location.into(), ..Self::default() }
    }
}

/// Values as files of a folder.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct FileBasedCache {
    folder: Arc<Folder>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for FileBasedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBasedCache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl FileBasedCache {
    /// The cache that a Django project has with these settings. The folder is made when something is stored.
    ///
    /// # Errors
    /// [`CacheError::Settings`] if there is no folder in the settings, and [`CacheError::Io`] if a relative one cannot be
    /// made absolute.
    pub fn open(settings: &FileBasedSettings) -> Result<Self, CacheError> {
        if settings.location.as_os_str().is_empty() {
            return Err(CacheError::Settings("LOCATION names no folder for the cache's files".to_owned()));
        }
        let folder = Folder {
            path: std::path::absolute(&settings.location)?,
            max_entries: settings.max_entries,
            cull_frequency: settings.cull_frequency,
            max_size: DEFAULT_MAX_INFLATED,
        };
        Ok(Self { folder: Arc::new(folder), clock: Arc::new(Timestamp::now) })
    }

    /// Takes the time from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    fn now(&self) -> f64 {
        (self.clock)().as_duration().as_secs_f64()
    }

    /// Runs `work` where it may block. Dropped or not, it runs to its end.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, CacheError> + Send + 'static,
    ) -> Result<T, CacheError> {
        let folder = self.folder.clone();
        match spawn_blocking(move || work(&folder)).await {
            Ok(done) => done,
            Err(error) => Err(CacheError::Io(std::io::Error::other(error))),
        }
    }
}

#[async_trait]
impl Cache for FileBasedCache {
    #[tracing::instrument(level = "debug", skip_all)]
    async fn add(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        let (name, now, value) = (folder::name(key), self.now(), value.to_owned());
        self.run(move |folder| folder.add(&name, &value, End(ends_at(now, timeout)), now)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let (name, now) = (folder::name(key), self.now());
        self.run(move |folder| folder.get(&name, now)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn set(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<(), CacheError> {
        let (name, now, value) = (folder::name(key), self.now(), value.to_owned());
        self.run(move |folder| folder.set(&name, &value, End(ends_at(now, timeout)))).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn replace(&self, key: &str, value: &[u8], timeout: Option<Duration>) -> Result<bool, CacheError> {
        let (name, now, value) = (folder::name(key), self.now(), value.to_owned());
        self.run(move |folder| folder.replace(&name, &value, End(ends_at(now, timeout)), now)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn delete(&self, key: &str) -> Result<bool, CacheError> {
        let name = folder::name(key);
        self.run(move |folder| folder.delete(&name)).await
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn touch(&self, key: &str, timeout: Option<Duration>) -> Result<bool, CacheError> {
        let (name, now) = (folder::name(key), self.now());
        self.run(move |folder| folder.touch(&name, End(ends_at(now, timeout)), now)).await
    }
}
