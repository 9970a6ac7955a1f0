//! Looking after the sessions in a cache.

use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::CacheStore;
use crate::backends::manage::{
    Listing, ManagedStore, PruneOptions, PruneProgress, StoredSession, Which, shortened,
};
use crate::backends::{SessionStore, StoreError};
use crate::caches::{CACHE_KEY_PREFIX, CACHED_DB_KEY_PREFIX, CacheError, Entry};
use crate::session::{Session, SessionKey};

const HIDDEN: &str = "the KEY_FUNCTION of the cache hides the names of the sessions";

struct Keys {
    store: CacheStore,
    limit: usize,
    cursor: Option<String>,
    /// What the cache named at the cursor and is still to be looked at, and the cursor after that.
    waiting: Vec<(String, SessionKey)>,
    after: Option<String>,
}

impl Keys {
    fn new(store: CacheStore, limit: usize, from: &str) -> Self {
        Self { store, limit: limit.max(1), cursor: Some(from.to_owned()), waiting: Vec::new(), after: None }
    }

    /// The next keys of the cache, with the names of the sessions. The first ones are kept for another try.
    async fn next(&self) -> Result<Option<(Vec<(String, SessionKey)>, Option<String>)>, StoreError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let head = self.store.head().ok_or(StoreError::Unlisted(HIDDEN))?;
        let others = self.store.others();
        let (keys, next) = match self.store.cache.scan(&head, cursor, self.limit).await {
            Err(CacheError::Unlisted(why)) => return Err(StoreError::Unlisted(why)),
            scanned => scanned?,
        };
        let named =
            keys.into_iter().filter(|key| others.as_ref().is_none_or(|others| !key.starts_with(others)));
        let named = named.filter_map(|key| {
            let name = SessionKey::from_stored_name(key.strip_prefix(&head)?);
            Some((key, name))
        });
        Ok(Some((named.collect(), next)))
    }
}

#[async_trait]
impl Listing for Keys {
    async fn next_page(&mut self) -> Result<Option<Vec<StoredSession>>, StoreError> {
        if self.waiting.is_empty() {
            let Some((named, next)) = self.next().await? else { return Ok(None) };
            (self.waiting, self.after) = (named, next);
        }
        // A cache may name more at once than should be in memory with their values.
        let rest = self.waiting.len().saturating_sub(self.limit);
        let (keys, names): (Vec<_>, Vec<_>) = self.waiting[rest..].iter().cloned().unzip();
        let entries = self.store.cache.entries(&keys).await?;
        let now = (self.store.clock)();
        let found = names.into_iter().zip(entries);
        let page = found.filter_map(|(name, entry)| Some(self.store.stored(name, entry?, now)));
        let page = page.collect();
        self.waiting.truncate(rest);
        if rest == 0 {
            self.cursor = self.after.take();
        }
        Ok(Some(page))
    }

    fn position(&self) -> String {
        let cursor = self.cursor.clone().unwrap_or_default();
        // Of a cache table it is the last key.
        match self.store.head().and_then(|head| Some((cursor.strip_prefix(&head).map(shortened)?, head))) {
            Some((name, head)) => head + &name,
            None => cursor,
        }
    }
}

impl CacheStore {
    /// What is before the name of a session in each key, if anything can be said of that.
    fn head(&self) -> Option<String> {
        let probe = "0123456789";
        let key = self.key(&SessionKey::from_stored_name(probe));
        key.strip_suffix(probe).map(str::to_owned)
    }

    /// What keys of another engine begin with, which begin with the same.
    fn others(&self) -> Option<String> {
        let prefix = self.key_prefix.as_deref().unwrap_or(CACHE_KEY_PREFIX);
        let is_part = CACHED_DB_KEY_PREFIX.len() > prefix.len() && CACHED_DB_KEY_PREFIX.starts_with(prefix);
        is_part.then(|| self.keys.make_key(CACHED_DB_KEY_PREFIX))
    }

    fn stored(&self, name: SessionKey, entry: Entry, now: Timestamp) -> StoredSession {
        StoredSession {
            name,
            data: self.format.loads(&entry.value).map_err(StoreError::from),
            size: entry.value.len() as u64,
            saved: None,
            ends: entry.life.and_then(|life| now.checked_add(life).ok()),
        }
    }
}

#[async_trait]
impl ManagedStore for CacheStore {
    fn list(&self, _: Which, limit: usize, from: &str) -> Box<dyn Listing> {
        Box::new(Keys::new(self.clone(), limit, from))
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let mut keys = Keys::new(self.clone(), 1000, "");
        let mut count = 0;
        while let Some((named, next)) = keys.next().await? {
            count += named.len() as u64;
            keys.cursor = next;
        }
        Ok(count)
    }

    async fn count_expired(&self, _: Duration) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn find(&self, name: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let keys = [self.key(name)];
        let found = match self.cache.entries(&keys).await {
            Err(CacheError::InvalidKey) => return Ok(None),
            found => found?.pop().flatten(),
        };
        Ok(found.map(|entry| self.stored(name.clone(), entry, (self.clock)())))
    }

    /// `None` is for ever. A session that is over is not stored, and the answer is `true`.
    async fn insert_until(
        &self,
        name: &SessionKey,
        session: &Session,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let life = ends.map(|ends| Duration::try_from(ends.duration_since(now)).unwrap_or_default());
        if life.is_some_and(|life| life.is_zero()) {
            return Ok(true);
        }
        Ok(self.cache.add_exactly(&self.key(name), &self.dumps(session)?, life).await?)
    }

    /// 0: caches drop what is over by themselves.
    async fn prune(
        &self,
        _: PruneOptions,
        _: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError> {
        self.clear_expired().await
    }
}
