//! Where sessions are stored, as in `django.contrib.sessions.backends`.
//!
//! [`SessionStore`] is what every engine does. An engine brings six operations; `create`, `save`, `cycle_key` and
//! `flush`, which decide what may replace what, are the same for all.

#[cfg(feature = "_sql")]
pub mod db;
pub mod file;

#[cfg(feature = "_async")]
use async_trait::async_trait;

use crate::crypto::RandomError;
#[cfg(feature = "_async")]
use crate::serializers::json::Object;
use crate::session::{DecodeError, SessionError};
#[cfg(feature = "_async")]
use crate::session::{Session, SessionKey};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The session was deleted since it was loaded, as by a logout in another request, and is not brought back.
    /// Django: `UpdateError`, and from its middleware `SessionInterrupted`, a response with status 400.
    #[error("the session was deleted before it was saved, perhaps by a logout in a concurrent request")]
    Deleted,
    /// What is stored under this key cannot be read. Django: an empty session, and for a bad signature a log record.
    #[error("the stored session cannot be read")]
    Decode(#[from] DecodeError),
    /// The session's expiry cannot be read, so there is no telling when it ends.
    #[error("the session cannot be stored")]
    Session(#[from] SessionError),
    /// There is no randomness for a new key.
    #[error("no new session key could be made")]
    Random(#[from] RandomError),
    /// The database refused, or could not be reached.
    #[cfg(feature = "_sql")]
    #[error("the session database failed")]
    Database(#[from] sqlx::Error),
}

/// A place where sessions are kept under their keys.
///
/// Object-safe, and shared by all requests: `Arc<dyn SessionStore>` or a generic, as you like.
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
                Ok(Session::with_data(Some(key.clone()), Object::new()))
            }
            loaded => loaded,
        }
    }

    /// Deletes the session under `key`, if there is one.
    ///
    /// # Errors
    /// When the store fails.
    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError>;

    /// Deletes the sessions that are over (`manage.py clearsessions`). Returns how many.
    ///
    /// # Errors
    /// When the store fails.
    async fn clear_expired(&self) -> Result<u64, StoreError>;

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
            Some(key) => match self.update(&key, session).await? {
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
        self.create(session).await?;
        match old {
            Some(old) => self.delete(&old).await,
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
