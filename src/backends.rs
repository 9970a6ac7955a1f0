//! Where sessions are stored, as in `django.contrib.sessions.backends`.
//!
//! [`SessionStore`] is what every engine does. An engine brings six operations; `create`, `save`, `cycle_key` and
//! `flush`, which decide what may replace what, are the same for all.

#[cfg(feature = "_cache")]
pub mod cache;
#[cfg(feature = "_sql")]
pub mod cached_db;
#[cfg(feature = "_sql")]
pub mod db;
#[cfg(feature = "_async")]
pub mod fallback;
pub mod file;
#[cfg(feature = "_async")]
pub mod hashed_keys;
#[cfg(feature = "_async")]
pub mod manage;
#[cfg(feature = "signed_cookies")]
pub mod signed_cookies;

#[cfg(feature = "_async")]
use async_trait::async_trait;

#[cfg(feature = "_cache")]
use crate::caches::{CacheError, format::FormatError};
use crate::crypto::RandomError;
#[cfg(feature = "_async")]
use crate::session::Data;
use crate::session::{DecodeError, SessionError};
#[cfg(feature = "_async")]
use crate::session::{Session, SessionKey};

/// Why a store did not do what it was asked.
///
/// ```
/// # #[cfg(feature = "file")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::backends::{SessionStore, StoreError, file::FileStore};
/// use django_sessions::session::Session;
/// # use django_sessions::{crypto::SecretKeys, settings::Settings};
/// # let folder = tempfile::tempdir()?;
/// # let store = FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret")))?;
///
/// let mut session = Session::new();
/// store.save(&mut session).await?;
/// store.delete(session.key().expect("it was saved")).await?; // a logout in another request
/// assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
/// # Ok(()) }
/// # #[cfg(not(feature = "file"))]
/// # fn main() {}
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The session was deleted since it was loaded, as by a logout in another request, and is not brought back.
    /// Django: `UpdateError`, and from its middleware `SessionInterrupted`, a response with status 400.
    #[error("the session was deleted before it was saved, perhaps by a logout in a concurrent request")]
    Deleted,
    /// The session was not saved: with [`Settings::merge`](crate::settings::Settings::merge), others saved it each time
    /// between the look and the writing. Python: `SessionConflict`.
    #[error(
        "the session was not saved, for other requests changed it {tries} times meanwhile: write it less often, or keep \
         in the database what so many requests change"
    )]
    Conflict {
        /// How often it was tried.
        tries: u32,
    },
    /// What is stored under this key cannot be read. Django: an empty session, and for a bad signature a log record.
    #[error("the stored session cannot be read")]
    Decode(#[from] DecodeError),
    /// The session's expiry cannot be read, so there is no telling when it ends.
    #[error("the session cannot be stored")]
    Session(#[from] SessionError),
    /// A part of the response, such as its streamed body, still holds the request's session, which is to be saved now.
    #[error("the session is still in use: drop its guard before the handler returns")]
    InUse,
    /// Something needs the request's session, as `CSRF_USE_SESSIONS` does, and no layer gave it one. Django:
    /// `ImproperlyConfigured`.
    #[cfg(feature = "_layer")]
    #[error("the request has no session: put the layer of sessions around this one")]
    NoSession,
    /// The settings of a cookie hold characters that no header can.
    #[cfg(feature = "_layer")]
    #[error(
        "no header can hold the cookie: there are control characters in the settings of its name, domain or path"
    )]
    Cookie,
    /// The store cannot tell which sessions it has.
    #[error("the sessions cannot be listed: {0}")]
    Unlisted(&'static str),
    /// The runtime shut down while the session was being moved, by a save, from where it was stored before.
    #[cfg(feature = "_async")]
    #[error("the runtime shut down before the session was moved")]
    Stopped,
    /// There is no randomness for a new key.
    #[error("no new session key could be made")]
    Random(#[from] RandomError),
    /// The key of a signed cookie is its content, so none can be chosen: save the session in place of that.
    #[cfg(feature = "signed_cookies")]
    #[error("the key of a signed cookie is its content, which `save` makes; none can be chosen")]
    KeyNotChosen,
    /// The file engine takes no key with other characters than Django's own, which could leave the directory. Django:
    /// `InvalidSessionKey`, a response with status 400.
    #[error("a session file's key has only the characters a to z and 0 to 9")]
    InvalidKey,
    /// A session's file holds more than any session may. Django has no such limit.
    #[cfg(feature = "file")]
    #[error("the session's file has more than {max_size} bytes; raise `max_inflated` to accept it")]
    FileTooLarge {
        /// The limit, in bytes.
        max_size: u64,
    },
    /// The file system refused: no space, no permission, no such directory. Where Django logs nothing and goes on.
    #[cfg(feature = "file")]
    #[error("the session's file cannot be read or written")]
    File(#[source] std::io::Error),
    /// The cache refused, or could not be reached.
    #[cfg(feature = "_cache")]
    #[error("the session cache failed")]
    Cache(#[from] CacheError),
    /// What the cache holds is no session, or is in another format than the settings say. Django: an empty session.
    #[cfg(feature = "_cache")]
    #[error("the cached session cannot be read")]
    Format(#[source] FormatError),
    /// So many new keys were taken that the cache must be failing without a word. Django: `RuntimeError`.
    #[cfg(feature = "_cache")]
    #[error("no new session key could be stored; it is likely that the cache is unavailable")]
    NoFreeKey,
    /// All sessions of a user were to be ended but one, which has no key yet or is not on a server. Django: `ValueError`.
    #[cfg(feature = "_sql")]
    #[error(
        "the session to keep has no key yet, or is not kept on a server: nothing was ended; pass that of a request that is \
         logged in"
    )]
    NothingToKeep,
    /// The database refused, or could not be reached.
    #[cfg(feature = "_sql")]
    #[error("the session database failed")]
    Database(#[from] sqlx::Error),
}

#[cfg(feature = "_cache")]
impl From<FormatError> for StoreError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Value(error) => Self::Session(error),
            error => Self::Format(error),
        }
    }
}

/// A place where sessions are kept under their keys.
///
/// Object-safe, and shared by all requests: `Arc<dyn SessionStore>` or a generic, as you like.
///
/// ```
/// # #[cfg(feature = "file")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::backends::{SessionStore, StoreError, file::FileStore};
/// use django_sessions::session::Session;
/// # use django_sessions::{crypto::SecretKeys, settings::Settings};
/// # let folder = tempfile::tempdir()?;
/// # let store = FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret")))?;
///
/// async fn log_in(store: &dyn SessionStore, session: &mut Session, user: &str) -> Result<(), StoreError> {
///     session.insert("user", user)?;
///     store.cycle_key(session).await // under a new key
/// }
///
/// let mut session = Session::new();
/// store.save(&mut session).await?;
/// let before = session.key().cloned();
/// log_in(&store, &mut session, "ada").await?;
/// assert_ne!(session.key(), before.as_ref());
///
/// let session = store.load(session.key().expect("it was saved")).await?;
/// assert_eq!(session.get::<String>("user")?.as_deref(), Some("ada"));
/// # Ok(()) }
/// # #[cfg(not(feature = "file"))]
/// # fn main() {}
/// ```
#[cfg(feature = "_async")]
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Whether a session is stored under `key`, be it over or not.
    ///
    /// # Errors
    /// When the store fails.
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError>;

    /// Stores the values of `session` under `key`, unless that key is taken: then nothing changes and the answer is
    /// `false`.
    ///
    /// # Errors
    /// When the store fails, or the session's expiry is not to be read.
    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError>;

    /// Replaces what is stored under `key`. If nothing is (any more), nothing changes and the answer is `false`.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError>;

    /// Whether saves keep what others have changed since the session was loaded, as
    /// [`Settings::merge`](crate::settings::Settings::merge) asks for. By default no.
    fn merges(&self) -> bool {
        false
    }

    /// Saves the session over what is stored under `key`, as [`save`](Self::save) does. If nothing is (any more), the answer
    /// is `false`. By default this is [`update`](Self::update).
    ///
    /// A store that [merges](Self::merges) writes only over exactly what this session was when it was loaded. Where others
    /// have saved it meanwhile, what is there now is read, our changes are put over it, and that is tried again. The session
    /// then has the others' changes too. Of two who change the same key the later one wins; a logout wins over all.
    ///
    /// ```
    /// # #[cfg(feature = "file")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use django_sessions::backends::{SessionStore, file::FileStore};
    /// use django_sessions::session::Session;
    /// # use django_sessions::{crypto::SecretKeys, settings::Settings};
    /// # let folder = tempfile::tempdir()?;
    /// # let mut settings = Settings::new(SecretKeys::new("secret"));
    /// settings.merge = true;
    /// let store = FileStore::in_directory(folder.path(), settings)?;
    /// # if !store.merges() { return Ok(()) }
    /// let mut session = Session::new();
    /// store.save(&mut session).await?;
    /// let key = session.key().expect("it was saved").clone();
    ///
    /// let (mut one, mut another) = (store.load(&key).await?, store.load(&key).await?);
    /// one.insert("cart", "tea")?;
    /// store.save(&mut one).await?;
    /// another.insert("lang", "en")?;
    /// store.save(&mut another).await?;
    /// assert_eq!(store.load(&key).await?.get::<String>("cart")?.as_deref(), Some("tea"));
    /// # Ok(()) }
    /// # #[cfg(not(feature = "file"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and [`StoreError::Conflict`].
    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        self.update(key, session).await
    }

    /// The session stored under `key`. If there is none, or it is over: a session without a key, as in Django.
    ///
    /// # Errors
    /// When the store fails, and [`StoreError::Decode`] where Django would go on with an empty session.
    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError>;

    /// As [`load`](Self::load), but what cannot be read is an empty session under the same key, as in Django. A bad
    /// signature is logged with Django's words to Django's target, `django.security.SuspiciousSession`.
    ///
    /// # Errors
    /// When the store fails.
    async fn load_or_empty(&self, key: &SessionKey) -> Result<Session, StoreError> {
        match self.load(key).await {
            Err(StoreError::Decode(error)) => {
                if error.is_suspicious() {
                    tracing::warn!(target: "django.security.SuspiciousSession", ?key, "Session data corrupted");
                }
                let mut session = Session::with_data(Some(key.clone()), Data::new());
                if self.merges() {
                    session.note_values();
                }
                Ok(session)
            }
            loaded => loaded,
        }
    }

    /// Deletes the session under `key`. Returns whether there was one: of several who delete it at once, one is told so.
    ///
    /// # Errors
    /// When the store fails.
    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError>;

    /// Deletes the sessions that are over (`manage.py clearsessions`). Returns how many.
    ///
    /// # Errors
    /// When the store fails.
    async fn clear_expired(&self) -> Result<u64, StoreError>;

    /// What the server may know the session with this key by, the name of today first: the key itself, unless the store is one
    /// of [hashed keys](hashed_keys). Nothing, where the session is in its cookie.
    ///
    /// ```
    /// use django_sessions::backends::SessionStore;
    /// use django_sessions::session::SessionKey;
    ///
    /// fn is_on_the_server(store: &dyn SessionStore, key: &SessionKey) -> bool {
    ///     !store.stored_names(key).is_empty()
    /// }
    /// ```
    fn stored_names(&self, key: &SessionKey) -> Vec<SessionKey> {
        vec![key.clone()]
    }

    /// What stands before the hash in the name of a session whose key is [hashed](hashed_keys), as in Python: `sha256$`, and
    /// where names may have no `$`, as those of files, `sha256`.
    fn stored_name_prefix(&self) -> &'static str {
        "sha256$"
    }

    /// Stores the session under a new key, which it has from then on.
    ///
    /// # Errors
    /// When the store or the operating system's randomness fails.
    async fn create(&self, session: &mut Session) -> Result<(), StoreError> {
        loop {
            let key = SessionKey::random()?;
            if self.insert(&key, session).await? {
                session.set_key(Some(key));
                session.mark_modified();
                if self.merges() {
                    session.note_values();
                }
                return Ok(());
            }
        }
    }

    /// Stores the session under its key, or under a new one if it has none.
    ///
    /// # Errors
    /// [`StoreError::Deleted`] if the session was deleted meanwhile: a logout stays a logout.
    async fn save(&self, session: &mut Session) -> Result<(), StoreError> {
        match session.key().cloned() {
            None => self.create(session).await,
            Some(key) => match self.replace(&key, session).await? {
                true => Ok(()),
                false => Err(StoreError::Deleted),
            },
        }
    }

    /// Gives the session a new key and keeps its values: do it whenever somebody gains rights, as at login.
    ///
    /// # Errors
    /// When the store fails; before the new session is stored the old one stays.
    async fn cycle_key(&self, session: &mut Session) -> Result<(), StoreError> {
        let old = session.key().cloned();
        if let Some(old) = &old
            && self.merges()
            && let Some(mut loaded) = session.as_loaded()
            // By its save it becomes what is stored where saves go, which a replica may not know yet; and nothing of ours
            // gets to the old key. Who was logged out meanwhile and logs in now starts with what there was, as with Django.
            && self.replace(old, &mut loaded).await?
        {
            session.catch_up(loaded);
        }
        self.create(session).await?;
        match old {
            Some(old) => self.delete(&old).await.map(drop),
            None => Ok(()),
        }
    }

    /// Ends the session: values, stored session and key are gone. This is what a logout does.
    ///
    /// # Errors
    /// When the store fails; the session then still has its key, and no values.
    async fn flush(&self, session: &mut Session) -> Result<(), StoreError> {
        session.clear();
        if let Some(key) = session.key().cloned() {
            self.delete(&key).await?;
        }
        session.set_key(None);
        Ok(())
    }
}
