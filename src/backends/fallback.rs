//! While sessions move to another store, both are looked at.
//!
//! What the Python package does with `RUST_SESSIONS["FALLBACK_ENGINE"]`: a session that is not in the new store is read from
//! the old one, and its next save puts it into the new one. Nobody is logged out on the way, and a logout holds in both.
//! [`Settings::connect`](crate::settings::Settings::connect) wraps the store when
//! [`Settings::fallback_engine`](crate::settings::Settings::fallback_engine) says so.
//!
//! ```
//! # #[cfg(feature = "file")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::{SessionStore, fallback::FallbackStore, file::FileStore};
//! use django_sessions::session::Session;
//! # use django_sessions::{crypto::SecretKeys, settings::Settings};
//! # let (old, new) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let open = |folder: &tempfile::TempDir| FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret")));
//!
//! let (old, new) = (Arc::new(open(&old)?), Arc::new(open(&new)?));
//! let mut session = Session::new();
//! old.save(&mut session).await?; // some time ago
//! let key = session.key().expect("it was saved").clone();
//!
//! let store = FallbackStore::new(new.clone(), old.clone());
//! let mut session = store.load(&key).await?;
//! session.insert("cart", "tea")?;
//! store.save(&mut session).await?;
//! assert!(new.exists(&key).await? && !old.exists(&key).await?);
//! # Ok(()) }
//! # #[cfg(not(feature = "file"))]
//! # fn main() {}
//! ```

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{SessionStore, StoreError};
use crate::session::{Session, SessionKey};

/// A store before the one that sessions were in until now.
///
/// Requests of all processes, in Python and Rust, and `manage.py sessions migrate` agree on two rules. Whoever adds a session
/// to the new store then takes it out of the old one, and nobody else does; if it is gone there, it was logged out
/// meanwhile, and is taken out of the new one as well. And a logout deletes from the old store first: so whichever way the
/// two cross, the logout wins.
///
/// A session that is in the new store costs nothing more. One that is in neither costs two more looks, a new one one more.
#[derive(Clone)]
pub struct FallbackStore {
    new: Arc<dyn SessionStore>,
    old: Arc<dyn SessionStore>,
}

impl fmt::Debug for FallbackStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackStore").finish_non_exhaustive()
    }
}

impl FallbackStore {
    /// Sessions go into `new`; those that are not there yet are in `old`.
    pub fn new(new: Arc<dyn SessionStore>, old: Arc<dyn SessionStore>) -> Self {
        Self { new, old }
    }

    /// Puts a session that is only in the old store into the new one, with its values of now. Returns nothing if it is not
    /// there: it is gone, or in the new store by now.
    async fn move_over(&self, key: &SessionKey, session: &Session) -> Result<Option<bool>, StoreError> {
        if !self.old.exists(key).await? || !self.new.insert(key, session).await? {
            return Ok(None);
        }
        if !self.old.exists(key).await? {
            self.new.delete(key).await?;
            return Ok(Some(false));
        }
        self.old.delete(key).await?;
        Ok(Some(true))
    }

    /// The session of the old store, which says nothing of how the new one would have it.
    fn found_in_old(&self, mut session: Session) -> Session {
        if self.merges() {
            session.note_values();
        }
        session
    }
}

#[async_trait]
impl SessionStore for FallbackStore {
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        Ok(self.new.exists(key).await? || self.old.exists(key).await?)
    }

    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        Ok(!self.old.exists(key).await? && self.new.insert(key, session).await?)
    }

    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        if self.new.update(key, session).await? {
            return Ok(true);
        }
        match self.move_over(key, session).await? {
            Some(moved) => Ok(moved),
            None => self.new.update(key, session).await,
        }
    }

    fn merges(&self) -> bool {
        self.new.merges()
    }

    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        if self.new.replace(key, session).await? {
            return Ok(true);
        }
        let Some(moved) = self.move_over(key, session).await? else {
            return self.new.replace(key, session).await;
        };
        if moved && self.merges() {
            session.note_values();
        }
        Ok(moved)
    }

    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let session = self.new.load(key).await?;
        if session.key().is_some() {
            return Ok(session);
        }
        let session = self.old.load(key).await?;
        if session.key().is_some() {
            return Ok(self.found_in_old(session));
        }
        // It may have moved between the two looks.
        self.new.load(key).await
    }

    async fn load_or_empty(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let session = self.new.load_or_empty(key).await?;
        if session.key().is_some() {
            return Ok(session);
        }
        let session = self.old.load_or_empty(key).await?;
        if session.key().is_some() {
            return Ok(self.found_in_old(session));
        }
        self.new.load_or_empty(key).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let from_old = self.old.delete(key).await;
        self.new.delete(key).await?;
        from_old?;
        // Other processes may still have the settings of before, and move it the other way.
        self.old.delete(key).await
    }

    /// Those of the new store.
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.new.clear_expired().await
    }
}
