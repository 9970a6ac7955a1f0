//! Two stores, while sessions move from one to the other: what the Python package does with
//! `RUST_SESSIONS["FALLBACK_ENGINE"]`. Django itself has no such thing.
//!
//! What is not in the new store is read from the old one, and its next save puts it into the new one. Nobody is logged out
//! on the way, and a logout holds in both. Requests of both languages, `manage.py sessions migrate` and the tool
//! `django-sessions migrate --move` agree on two rules. Whoever adds a session to the new store then takes it out of the old
//! one; if it is gone there, it was logged out meanwhile, and is taken out of the new one as well. And a logout deletes from
//! the old store first: so whichever way the two cross, the logout wins.
//!
//! ```
//! # #[cfg(feature = "file")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::{SessionStore, fallback::FallbackStore, file::FileStore};
//! use django_sessions::session::Session;
//! # use django_sessions::{crypto::SecretKeys, settings::Settings};
//! # let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
//! # let [new, old] = folders.each_ref().map(|folder| {
//! #     Arc::new(FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret"))).unwrap())
//! # });
//! let mut session = Session::new();
//! old.save(&mut session).await?;
//! let key = session.key().expect("it was saved").clone();
//!
//! let store = FallbackStore::new(new.clone(), old.clone());
//! let mut session = store.load(&key).await?; // found in the old store
//! store.save(&mut session).await?;
//! assert!(new.exists(&key).await? && !old.exists(&key).await?);
//! # Ok(()) }
//! # #[cfg(not(feature = "file"))]
//! # fn main() {}
//! ```
//!
//! [`Settings::connect`](crate::settings::Settings::connect) opens both when
//! [`Settings::fallback`](crate::settings::Settings::fallback) says so.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument;

use super::{SessionStore, StoreError};
use crate::session::{Session, SessionKey};

/// A store, and the one that sessions were in before.
///
/// Cheap to clone; clones share both.
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
    /// `new`, and `old` for what is not there. Neither may be a store of signed cookies.
    pub fn new(new: Arc<dyn SessionStore>, old: Arc<dyn SessionStore>) -> Self {
        Self { new, old }
    }

    async fn move_over(&self, key: &SessionKey, session: &Session) -> Result<Option<bool>, StoreError> {
        move_over((&self.old, key), (&self.new, key), session).await
    }

    /// A session of the old store, with the name that it has there: the new one may have another.
    fn recalled(&self, mut session: Session) -> Session {
        self.note(&mut session);
        let name = session.stored_name().or(session.key()).cloned();
        session.set_stored_name(name);
        session
    }

    /// What the old store had says nothing of how the new one would have it.
    fn note(&self, session: &mut Session) {
        if self.merges() {
            session.note_values();
        }
    }
}

/// A store, and what it knows the session by.
type Place<'a> = (&'a Arc<dyn SessionStore>, &'a SessionKey);

/// Puts a session that is only in the old place into the new one, with its values of now. Returns nothing if it is not
/// there: it is gone, or another request has moved it between the two looks; and `false` if it was logged out meanwhile.
pub(super) async fn move_over(
    old: Place<'_>,
    new: Place<'_>,
    session: &Session,
) -> Result<Option<bool>, StoreError> {
    if !old.0.exists(old.1).await? {
        return Ok(None);
    }
    let [old, new] = [old, new].map(|(store, key)| (store.clone(), key.clone()));
    let session = session.draft();
    // A session that is in both is not logged out by a logout in between.
    to_its_end(async move {
        if !new.0.insert(&new.1, &session).await? {
            return Ok(None);
        }
        match old.0.delete(&old.1).await {
            Ok(true) => Ok(Some(true)),
            // It was logged out meanwhile.
            Ok(false) => new.0.delete(&new.1).await.map(|_| Some(false)),
            // Perhaps the answer alone was lost. Where nobody knows it stays in both: a logout deletes it in both.
            Err(error) => match old.0.exists(&old.1).await {
                Ok(false) => Ok(Some(true)),
                Ok(true) => new.0.delete(&new.1).await.and(Err(error)),
                Err(_) => Err(error),
            },
        }
    })
    .await
}

/// Does it in a task of its own, which goes on to its end whatever its caller does.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::spawn(work.in_current_span()).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => Err(StoreError::Stopped),
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
        if moved {
            self.note(session);
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
            return Ok(self.recalled(session));
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
            return Ok(self.recalled(session));
        }
        self.new.load_or_empty(key).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        let from_old = self.old.delete(key).await;
        // Also if the old one failed.
        let from_new = self.new.delete(key).await?;
        // Other processes may still have the settings of before, and move it the other way.
        Ok(from_old? | self.old.delete(key).await? | from_new)
    }

    /// Those of the new store. What is over in the old one is in nobody's use.
    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.new.clear_expired().await
    }

    fn stored_names(&self, key: &SessionKey) -> Vec<SessionKey> {
        let mut names = self.new.stored_names(key);
        for name in self.old.stored_names(key) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    async fn save(&self, session: &mut Session) -> Result<(), StoreError> {
        let Some(key) = session.key().cloned() else { return self.create(session).await };
        if !self.replace(&key, session).await? {
            return Err(StoreError::Deleted);
        }
        session.set_stored_name(self.stored_names(&key).into_iter().next());
        Ok(())
    }

    async fn create(&self, session: &mut Session) -> Result<(), StoreError> {
        loop {
            self.new.create(session).await?;
            let key = session.key().expect("it was created").clone();
            if !self.old.exists(&key).await? {
                return Ok(());
            }
            self.new.delete(&key).await?;
        }
    }
}
