//! Keys hashed at rest: a store that knows each session by a hash of its key, and never sees the key.
//!
//! What the Python package does with `RUST_SESSIONS["HASH_KEYS"]`; Django itself has no such thing, and its own engines do not
//! find sessions that are stored so. [`Settings::connect`](crate::settings::Settings::connect) wraps the store when
//! [`Settings::hash_keys`](crate::settings::Settings::hash_keys) says so.
//!
//! ```
//! # #[cfg(feature = "file")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use django_sessions::backends::{SessionStore, file::FileStore, hashed_keys::HashedKeys};
//! use django_sessions::session::Session;
//! use django_sessions::settings::HashKeys;
//! # use django_sessions::{crypto::SecretKeys, settings::Settings};
//! # let folder = tempfile::tempdir()?;
//!
//! let files = FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret")))?;
//! let store = HashedKeys::new(Arc::new(files), HashKeys::Sha256);
//! let mut session = Session::new();
//! store.save(&mut session).await?;
//!
//! let key = session.key().expect("it was saved").clone();
//! let name = std::fs::read_dir(folder.path())?.next().expect("one file")?.file_name();
//! assert!(!name.to_string_lossy().contains(key.as_str()));
//! assert_eq!(store.load(&key).await?.key(), Some(&key));
//! # Ok(()) }
//! # #[cfg(not(feature = "file"))]
//! # fn main() {}
//! ```

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::fallback::move_over;
use super::{SessionStore, StoreError};
use crate::session::{Session, SessionKey};
use crate::settings::HashKeys;

/// 160 bits: Django's column holds 40 characters, and a session key has 165 bits.
const HASHED_BYTES: usize = 20;

/// RFC 4648, in lower case: MySQL's collations do not tell cases apart.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A store whose sessions are under hashes of their keys: `sha256$`, and the first 160 bits of SHA-256 in base32.
///
/// Sessions have their real keys again when they come out. A key that looks like such a name is no key ([`SessionKey::new`]).
#[derive(Clone)]
pub struct HashedKeys {
    store: Arc<dyn SessionStore>,
    mode: HashKeys,
}

impl fmt::Debug for HashedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashedKeys").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl HashedKeys {
    /// `store` under other names.
    pub fn new(store: Arc<dyn SessionStore>, mode: HashKeys) -> Self {
        Self { store, mode }
    }

    /// What the store may know a session by, the name of today first.
    fn names(&self, key: &SessionKey) -> Vec<SessionKey> {
        let hashed_name = |key| hashed_name_after(self.store.stored_name_prefix(), key);
        match self.mode {
            HashKeys::Off => vec![key.clone()],
            _ if key.is_stored_name() => vec![key.clone()],
            // MySQL tells neither cases nor accents apart, and may take it for the name of another session; nothing else in
            // ASCII is a `$` to it. Django makes no such keys.
            _ if key.as_str().contains('$') || !key.as_str().is_ascii() => vec![hashed_name(key)],
            HashKeys::Sha256 => vec![hashed_name(key), key.clone()],
            HashKeys::Plain => vec![key.clone(), hashed_name(key)],
        }
    }
}

/// What a store with hashed keys knows the session of this key by. In names of files there is no `$`.
///
/// ```
/// use django_sessions::backends::hashed_keys::hashed_name;
/// use django_sessions::session::SessionKey;
///
/// let key = SessionKey::new("k2v0mbgj1z6d5kq0vw1cyq3uox5a2s9e").expect("8 characters or more");
/// assert_eq!(hashed_name(&key).as_str(), "sha256$qsdxewnmwem4j67hhaithn6dii4xfd6p");
/// ```
pub fn hashed_name(key: &SessionKey) -> SessionKey {
    hashed_name_after("sha256$", key)
}

fn hashed_name_after(prefix: &str, key: &SessionKey) -> SessionKey {
    SessionKey::from_stored_name(format!("{prefix}{}", hash(key)))
}

fn hash(key: &SessionKey) -> String {
    let digest = Sha256::digest(key.as_str().as_bytes());
    let groups = digest[..HASHED_BYTES].chunks_exact(5);
    groups
        .flat_map(|group| {
            let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
            (0..8).rev().map(move |place| char::from(BASE32[(bits >> (5 * place) & 31) as usize]))
        })
        .collect()
}

impl HashedKeys {
    /// Whether the session was found, under its key.
    fn found(mut session: Session, key: &SessionKey) -> Option<Session> {
        session.key()?;
        let name = session.key().cloned();
        session.set_key(Some(key.clone()));
        session.set_stored_name(name);
        Some(session)
    }

    /// Stores a session under the name of today that is still under the former one. A logout wins: it deletes the former
    /// one first, and is seen here.
    async fn move_over(
        &self,
        former: &SessionKey,
        current: &SessionKey,
        session: &Session,
    ) -> Result<Option<bool>, StoreError> {
        move_over((&self.store, former), (&self.store, current), session).await
    }
}

#[async_trait]
impl SessionStore for HashedKeys {
    async fn exists(&self, key: &SessionKey) -> Result<bool, StoreError> {
        for name in self.names(key) {
            if self.store.exists(&name).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn insert(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        self.store.insert(&self.names(key)[0], session).await
    }

    async fn update(&self, key: &SessionKey, session: &Session) -> Result<bool, StoreError> {
        let names = self.names(key);
        if self.store.update(&names[0], session).await? {
            return Ok(true);
        }
        let Some(former) = names.get(1) else { return Ok(false) };
        match self.move_over(former, &names[0], session).await? {
            Some(moved) => Ok(moved),
            None => self.store.update(&names[0], session).await,
        }
    }

    fn merges(&self) -> bool {
        self.store.merges()
    }

    async fn replace(&self, key: &SessionKey, session: &mut Session) -> Result<bool, StoreError> {
        let names = self.names(key);
        if self.store.replace(&names[0], session).await? {
            return Ok(true);
        }
        let Some(former) = names.get(1) else { return Ok(false) };
        let Some(moved) = self.move_over(former, &names[0], session).await? else {
            return self.store.replace(&names[0], session).await;
        };
        if moved && self.merges() {
            session.note_values();
        }
        Ok(moved)
    }

    async fn load(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let names = self.names(key);
        // The first one again: another request may have moved it in between.
        for name in names.iter().chain(names.first().filter(|_| names.len() > 1)) {
            if let Some(session) = Self::found(self.store.load(name).await?, key) {
                return Ok(session);
            }
        }
        Ok(Session::new())
    }

    async fn load_or_empty(&self, key: &SessionKey) -> Result<Session, StoreError> {
        let names = self.names(key);
        for name in names.iter().chain(names.first().filter(|_| names.len() > 1)) {
            if let Some(session) = Self::found(self.store.load_or_empty(name).await?, key) {
                return Ok(session);
            }
        }
        Ok(Session::new())
    }

    async fn delete(&self, key: &SessionKey) -> Result<bool, StoreError> {
        // In this order no other request can move the session out of the way.
        let mut deleted = false;
        for name in self.names(key).iter().rev() {
            deleted |= self.store.delete(name).await?;
        }
        Ok(deleted)
    }

    async fn clear_expired(&self) -> Result<u64, StoreError> {
        self.store.clear_expired().await
    }

    fn stored_names(&self, key: &SessionKey) -> Vec<SessionKey> {
        self.names(key)
    }

    async fn save(&self, session: &mut Session) -> Result<(), StoreError> {
        let Some(key) = session.key().cloned() else { return self.create(session).await };
        if !self.replace(&key, session).await? {
            return Err(StoreError::Deleted);
        }
        session.set_stored_name(self.names(&key).into_iter().next());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_python_package() {
        // base64.b32encode(hashlib.sha256(b"k2v0mbgj1z6d5kq0vw1cyq3uox5a2s9e").digest()[:20]).lower()
        let key = SessionKey::new("k2v0mbgj1z6d5kq0vw1cyq3uox5a2s9e").unwrap();
        assert_eq!(hash(&key), "qsdxewnmwem4j67hhaithn6dii4xfd6p");
    }
}
