//! The store over the steps on the disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Options, Stored, Sweep};
use crate::backends::manage::{ManagedStore, PruneOptions};
use crate::backends::{SessionStore, StoreError};
use crate::session::{Codec, Data, DecodeError, Expiry, Session, SessionKey};
use crate::settings::Settings;
use crate::temporary::private;

/// How many files a clean-up looks at before others get their turn.
const FILES_A_BATCH: u32 = 8192;

type Clock = dyn Fn() -> Timestamp + Send + Sync;

/// The file engine: each session a file of a directory (feature `file`).
///
/// Its times are Django's. A session without an expiry of its own, or with one that is the browser's closing, ends
/// `SESSION_COOKIE_AGE` after its file was written. One that ends at a moment does so. One that ends **some seconds after it
/// was saved never ends here**: Django does not look at when that was, and the cookie alone ends it. An empty file, which
/// Django leaves where a session was created and not written, is an empty session.
///
/// Files are read and written on tokio's threads for blocking work. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::backends::{SessionStore, file::FileStore};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::session::Session;
/// use django_sessions::settings::Settings;
///
/// # let folder = tempfile::tempdir()?;
/// # let directory = folder.path();
/// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let store = FileStore::in_directory(directory, settings)?;
///
/// let mut session = Session::new();
/// session.insert("cart", &["tea"])?;
/// store.save(&mut session).await?;
///
/// let key = session.key().expect("a saved session has a key");
/// assert!(directory.join(format!("sessionid{}", key.as_str())).exists());
/// assert_eq!(store.load(key).await?.get::<Vec<String>>("cart")?.unwrap(), ["tea"]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

#[derive(Clone)]
pub(super) struct Inner {
    pub(super) directory: PathBuf,
    pub(super) settings: Arc<Settings>,
    pub(super) codec: Codec,
    fsync: bool,
    /// `None` is the system's, by which the file system sets the times of files too.
    clock: Option<Arc<Clock>>,
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("directory", &self.inner.directory)
            .field("settings", &self.inner.settings)
            .field("fsync", &self.inner.fsync)
            .finish_non_exhaustive()
    }
}

impl FileStore {
    /// A store in the directory `SESSION_FILE_PATH`.
    ///
    /// # Errors
    /// [`StoreError::File`] if there is no such directory. Django: `ImproperlyConfigured`.
    pub fn in_directory(
        directory: impl Into<PathBuf>,
        settings: impl Into<Arc<Settings>>,
    ) -> Result<Self, StoreError> {
        let (directory, settings) = (directory.into(), settings.into());
        if !directory.is_dir() {
            let why = "the directory of session files (SESSION_FILE_PATH) does not exist";
            return Err(StoreError::File(io::Error::new(ErrorKind::NotADirectory, why)));
        }
        let codec = Codec::new(&settings);
        Ok(Self { inner: Arc::new(Inner { directory, settings, codec, fsync: false, clock: None }) })
    }

    /// Whether to wait until a session is on the disk. Without that, which is Django's way and the default, a power failure
    /// may lose it.
    #[must_use]
    pub fn with_fsync(mut self, fsync: bool) -> Self {
        Arc::make_mut(&mut self.inner).fsync = fsync;
        self
    }

    /// Takes the time from `clock` in place of the system's, for tests. It is also the time of the files then.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.inner).clock = Some(Arc::new(clock));
        self
    }

    /// The directory of the files.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The settings that this store was made with.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.inner.settings
    }

    pub(super) fn encode(&self, session: &Session) -> Result<String, StoreError> {
        Ok(self.inner.codec.encode(session, self.inner.now())?)
    }

    /// Runs `work` on a thread that may block.
    ///
    /// If the caller is cancelled, the work still runs to its end: a file is written whole or not at all.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let span = tracing::Span::current();
        match tokio::task::spawn_blocking(move || span.in_scope(|| work(&inner))).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being shut down.
                Err(error) => Err(StoreError::File(io::Error::other(error))),
            },
        }
    }
}

impl Inner {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.as_ref().map_or_else(Timestamp::now, |clock| clock())
    }

    pub(super) fn cookie_age(&self) -> SignedDuration {
        SignedDuration::from_secs(self.settings.session_cookie_age)
    }

    pub(super) fn options(&self) -> Options {
        Options { fsync: self.fsync, modified: self.clock.as_ref().map(|clock| clock().into()) }
    }

    /// `None` for a key that could leave the directory. A [hashed name](crate::backends::hashed_keys) has no `$` here.
    pub(super) fn path(&self, key: &SessionKey) -> Option<PathBuf> {
        let hash = key.as_str().strip_prefix("sha256$").filter(|_| key.is_stored_name());
        let key = hash.map_or_else(|| key.as_str().to_owned(), |hash| format!("sha256{hash}"));
        let name = super::name(&self.settings.session_cookie_name, &key)?;
        Some(self.directory.join(name))
    }

    /// How many bytes a file may have: those of a session that is as large as may be, in base64, signed.
    fn max_size(&self) -> u64 {
        let inflated = u64::try_from(self.settings.max_inflated).unwrap_or(u64::MAX);
        inflated.saturating_add(inflated / 3 + 4096)
    }

    /// The file, or `None` where Django finds none.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Stored>, StoreError> {
        let max_size = self.max_size();
        match super::read_at_most(path, max_size) {
            Ok(stored) => Ok(Some(stored)),
            // A name that is too long for the file system is that of no file.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => {
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                Err(StoreError::FileTooLarge { max_size })
            }
            Err(error) => Err(StoreError::File(error)),
        }
    }

    /// The values, and what the file holds.
    pub(super) fn load(&self, path: &Path) -> Result<Option<(Data, Vec<u8>)>, StoreError> {
        let Some(stored) = self.read(path)? else { return Ok(None) };
        if stored.contents.is_empty() {
            return Ok(Some((Data::new(), stored.contents)));
        }
        let decoded = self.decode(&stored);
        if self.is_over(&decoded, &stored, self.now())? {
            delete_unchanged(path, &stored).map_err(StoreError::File)?;
            return Ok(None);
        }
        Ok(Some((decoded?.into_data(), stored.contents)))
    }

    /// Writes the file anew, if it is still there, and keeps what others have changed in it.
    fn rewrite(&self, path: &Path, mut session: Session) -> Result<Option<Session>, StoreError> {
        let _held = match hold(path) {
            Ok(held) => held,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::File(error)),
        };
        let Some(stored) = self.read(path)? else { return Ok(None) };
        if session.stored().map(|before| &before.value) != Some(&stored.contents) {
            // As in Django, what cannot be read is an empty session.
            let now = self.decode(&stored).map(Session::into_data).unwrap_or_default();
            if !session.rebase(now, stored.contents.into()) {
                return Ok(None);
            }
        }
        let text = self.codec.encode(&session, self.now())?;
        if !super::replace_existing_with(path, text.as_bytes(), self.options()).map_err(StoreError::File)? {
            return Ok(None);
        }
        session.note(Some(text.into_bytes().into()));
        Ok(Some(session))
    }

    pub(super) fn decode(&self, stored: &Stored) -> Result<Session, DecodeError> {
        // What is not ASCII has no good signature, whatever stands in its place.
        let text = String::from_utf8_lossy(&stored.contents);
        Ok(Session::with_data(None, self.codec.decode(&text)?))
    }

    /// As in Django, what cannot be read ends like a session that says nothing of its end.
    pub(super) fn is_over(
        &self,
        decoded: &Result<Session, DecodeError>,
        stored: &Stored,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let expiry = match decoded {
            Ok(session) => session.expiry(&self.settings)?,
            Err(_) => None,
        };
        let age = match expiry {
            Some(Expiry::Seconds(seconds)) => SignedDuration::from_secs(seconds),
            Some(Expiry::At(moment)) => moment.duration_since(now),
            None | Some(Expiry::BrowserClose) => {
                let modified = Timestamp::try_from(stored.modified).unwrap_or(Timestamp::MIN);
                modified.duration_since(now).saturating_add(self.cookie_age())
            }
        };
        // In whole seconds, downwards: the last one does not count.
        Ok(age < SignedDuration::from_secs(1))
    }

    pub(super) fn sweep(&self) -> Result<Sweep, StoreError> {
        let prefix = &self.settings.session_cookie_name;
        let mut sweep = Sweep::new(&self.directory, prefix).map_err(StoreError::File)?;
        sweep.set_max_size(self.max_size());
        Ok(sweep)
    }
}

/// Opens the file for writing, and keeps it from other writers of this crate, in all processes, until it is dropped. So
/// nobody deletes it between the look for it and the writing of the new one, which would bring it back.
///
/// Django knows no locks, and as little as in Django is there one where the file system has none.
fn hold(path: &Path) -> io::Result<File> {
    loop {
        let file = private().open(path)?;
        if file.lock().is_err() || is_at(&file, path)? {
            return Ok(file);
        }
        // It was replaced while we waited for the lock.
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (held, there) = (file.metadata()?, fs::metadata(path)?);
    Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
}

/// Only POSIX replaces a file that is open.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Makes the file of a new session, unless there is one: then the answer is `false`.
pub(super) fn create(path: &Path, text: &str, options: Options) -> Result<bool, StoreError> {
    match super::create_with(path, text.as_bytes(), options) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::File(error)),
    }
}

fn delete(path: &Path) -> io::Result<bool> {
    match hold(path) {
        // A name that is too long for the file system is that of no file.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => Ok(false),
        // Also a file that may not be written can be deleted.
        _held => super::delete(path),
    }
}

/// Deletes a session that is over, unless it was saved since it was read.
fn delete_unchanged(path: &Path, stored: &Stored) -> io::Result<()> {
    match hold(path) {
        Ok(held) if held.metadata()?.modified()? != stored.modified => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _held => super::delete(path).map(drop),
    }
}

#[async_trait]
impl SessionStore for FileStore {
    fn stored_name_prefix(&self) -> &'static str {
        "sha256"
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        let Some(path) = self.inner.path(key) else { return Ok(false) };
        self.blocking(move |_| match path.try_exists() {
            Ok(exists) => Ok(exists),
            Err(error) if error.kind() == ErrorKind::InvalidFilename => Ok(false),
            Err(error) => Err(StoreError::File(error)),
        })
        .await
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let path = self.inner.path(key).ok_or(StoreError::InvalidKey)?;
        let text = self.encode(session)?;
        self.blocking(move |inner| create(&path, &text, inner.options())).await
    }

    /// A session that is deleted meanwhile stays deleted: the old file and the new one change places. Only where the file
    /// system cannot do that does one come back that Django deletes in those microseconds, as it does in Django.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let path = self.inner.path(key).ok_or(StoreError::InvalidKey)?;
        let text = self.encode(session)?;
        self.blocking(move |inner| match hold(&path) {
            Ok(_held) => super::replace_existing_with(&path, text.as_bytes(), inner.options())
                .map_err(StoreError::File),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::File(error)),
        })
        .await
    }

    /// Only POSIX replaces a file that is open.
    fn merges(&self) -> bool {
        cfg!(unix) && self.inner.settings.merge
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        if !self.merges() || !session.has_base() {
            let replaced = self.update(key, session).await?;
            if self.merges() {
                session.note_values();
            }
            return Ok(replaced);
        }
        let path = self.inner.path(key).ok_or(StoreError::InvalidKey)?;
        let draft = session.draft();
        let saved = self.blocking(move |inner| inner.rewrite(&path, draft)).await?;
        let is_saved = saved.is_some();
        if let Some(draft) = saved {
            session.take_draft(draft);
        }
        Ok(is_saved)
    }

    /// The session in the file. A file whose session is over is deleted, as in Django, which then makes another in its
    /// place; here none is made.
    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let Some(path) = self.inner.path(key) else { return Ok(Session::new()) };
        match self.blocking(move |inner| inner.load(&path)).await? {
            Some((data, contents)) => {
                let mut session = Session::with_data(Some(key.clone()), data);
                if self.merges() {
                    session.note(Some(contents.into()));
                }
                Ok(session)
            }
            None => Ok(Session::new()),
        }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(?key))]
    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        let Some(path) = self.inner.path(key) else { return Ok(false) };
        self.blocking(move |_| delete(&path).map_err(StoreError::File)).await
    }

    /// With several threads. What cannot be read or deleted is passed over.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        let options =
            PruneOptions { batch_size: FILES_A_BATCH, pause: Duration::ZERO, ..PruneOptions::default() };
        self.prune(options, &mut |_| ControlFlow::Continue(())).await
    }
}
