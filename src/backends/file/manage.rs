//! Looking after the folder.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::store::{FileStore, Inner, create};
use super::{Options, Stored, Sweep, Verdict};
use crate::backends::StoreError;
use crate::backends::manage::{
    Listing, ManagedStore, PruneOptions, PruneProgress, StoredSession, Which, shortened,
};
use crate::session::{Expiry, Session, SessionKey};

struct Files {
    store: FileStore,
    which: Which,
    limit: usize,
    from: String,
    /// In reverse order, once they are known.
    names: Option<Vec<SessionKey>>,
}

#[async_trait]
impl Listing for Files {
    async fn next_page(&mut self) -> Result<Option<Vec<StoredSession>>, StoreError> {
        if self.names.is_none() {
            let mut names = self.store.blocking(|inner| inner.names()).await?;
            names.retain(|name| name.as_str() >= self.from.as_str());
            names.sort_unstable_by(|one, other| other.as_str().cmp(one.as_str()));
            self.names = Some(names);
        }
        let names = self.names.as_mut().expect("they were read");
        let page: Vec<_> = names.iter().rev().take(self.limit).cloned().collect();
        let Some(last) = page.last() else { return Ok(None) };
        let position = shortened(last.as_str());
        let which = self.which;
        let sessions = self
            .store
            .blocking(move |inner| {
                let now = inner.now();
                let is_wanted = |session: &StoredSession| {
                    which == Which::All || session.ends.is_none_or(|ends| ends > now)
                };
                let found = page.iter().map(|name| inner.find(name, now));
                found
                    .filter_map(Result::transpose)
                    .filter(|found| found.as_ref().map_or(true, is_wanted))
                    .collect()
            })
            .await?;
        names.truncate(names.len().saturating_sub(self.limit));
        self.from = position;
        Ok(Some(sessions))
    }

    fn position(&self) -> String {
        self.from.clone()
    }
}

impl Inner {
    fn names(&self) -> Result<Vec<SessionKey>, StoreError> {
        let sweep = Sweep::new(&self.directory, &self.settings.session_cookie_name);
        let keys = sweep.and_then(|mut sweep| sweep.keys(usize::MAX)).map_err(StoreError::File)?;
        Ok(keys.into_iter().map(name_of).collect())
    }

    /// `None` if there is none, or only the placeholder of a save that is under way.
    fn find(&self, name: &SessionKey, now: Timestamp) -> Result<Option<StoredSession>, StoreError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let Some(stored) = self.read(&path)?.filter(|stored| !stored.contents.is_empty()) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&stored.contents);
        let decoded = self.decode(&stored).map_err(StoreError::from);
        let (data, ends) = match decoded.and_then(|session| {
            let ends = self.ends(session.expiry(&self.settings)?, &stored, now);
            Ok((session.into_data(), ends))
        }) {
            Ok((data, ends)) => (Ok(data), ends),
            Err(error) => (Err(error), self.ends(None, &stored, now)),
        };
        Ok(Some(StoredSession {
            name: name.clone(),
            data,
            size: stored.contents.len() as u64,
            saved: self.codec.signed_at(&text),
            ends,
        }))
    }

    fn ends(&self, expiry: Option<Expiry>, stored: &Stored, now: Timestamp) -> Option<Timestamp> {
        match expiry {
            Some(Expiry::At(moment)) => Some(moment),
            // As Django has it: so long after each look.
            Some(Expiry::Seconds(seconds)) => now.checked_add(SignedDuration::from_secs(seconds)).ok(),
            None | Some(Expiry::BrowserClose) => {
                let modified = Timestamp::try_from(stored.modified).unwrap_or(Timestamp::MIN);
                modified.checked_add(self.cookie_age()).ok()
            }
        }
    }

    fn insert_until(
        &self,
        name: &SessionKey,
        text: &str,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let path = self.path(name).ok_or(StoreError::InvalidKey)?;
        let now = self.now();
        // A session that says nothing of its end counts from the time of its file.
        let modified = ends.and_then(|ends| ends.checked_sub(self.cookie_age()).ok()).unwrap_or(now);
        let options = Options { modified: Some(modified.into()), ..self.options() };
        if create(&path, text, options)? {
            return Ok(true);
        }
        // One that is over is in nobody's use, and in the way. To load it deletes it.
        Ok(self.load(&path)?.is_none() && create(&path, text, options)?)
    }

    fn is_expired(&self, stored: &Stored, older_than: Duration) -> bool {
        let before = self.now().checked_sub(older_than).unwrap_or(Timestamp::MIN);
        // Where Django raises an error in the midst of it, the file stays.
        !stored.contents.is_empty() && self.is_over(&self.decode(stored), stored, before).unwrap_or(false)
    }
}

/// A hashed name has its `$` everywhere but in files.
fn name_of(key: String) -> SessionKey {
    let name = SessionKey::from_stored_name(key);
    match name.as_str().strip_prefix("sha256").filter(|_| name.is_stored_name()) {
        Some(rest) => SessionKey::from_stored_name(format!("sha256${rest}")),
        None => name,
    }
}

#[async_trait]
impl ManagedStore for FileStore {
    fn list(&self, which: Which, limit: usize, from: &str) -> Box<dyn Listing> {
        let (store, limit, from) = (self.clone(), limit.max(1), from.to_owned());
        Box::new(Files { store, which, limit, from, names: None })
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.blocking(|inner| Ok(inner.names()?.len() as u64)).await
    }

    async fn count_expired(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.blocking(move |inner| {
            let mut sweep = inner.sweep()?;
            let count = AtomicU64::new(0);
            let judge = |stored: &Stored| {
                count.fetch_add(u64::from(inner.is_expired(stored, older_than)), Ordering::Relaxed);
                Verdict::Keep
            };
            while sweep.part(judge).map_err(StoreError::File)?.is_some() {}
            Ok(count.into_inner())
        })
        .await
    }

    async fn find(&self, name: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        let name = name.clone();
        self.blocking(move |inner| inner.find(&name, inner.now())).await
    }

    async fn insert_until(
        &self,
        name: &SessionKey,
        session: &Session,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let (name, text) = (name.clone(), self.encode(session)?);
        self.blocking(move |inner| inner.insert_until(&name, &text, ends)).await
    }

    /// With several threads. A batch is as many files that are looked at. What cannot be read or deleted is passed over.
    #[tracing::instrument(level = "debug", skip_all)]
    async fn prune(
        &self,
        options: PruneOptions,
        report: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError> {
        let mut sweep = self.blocking(|inner| inner.sweep()).await?;
        sweep.set_part_size(options.batch_size as usize);
        let mut progress = PruneProgress::default();
        loop {
            let left = options.limit.map_or(u64::MAX, |limit| limit.saturating_sub(progress.deleted));
            if left == 0 {
                return Ok(progress.deleted);
            }
            let (start, chosen) = (Instant::now(), AtomicU64::new(0));
            let (swept, rest) = self
                .blocking(move |inner| {
                    let judge = |stored: &Stored| {
                        let is_chosen = inner.is_expired(stored, options.older_than)
                            && chosen.fetch_add(1, Ordering::Relaxed) < left;
                        if is_chosen { Verdict::Delete } else { Verdict::Keep }
                    };
                    let swept = sweep.part(judge).map_err(StoreError::File)?;
                    Ok((swept, sweep))
                })
                .await?;
            sweep = rest;
            let Some(swept) = swept else { return Ok(progress.deleted) };
            progress.deleted += swept.deleted;
            progress.batches += 1;
            progress.last_batch = start.elapsed();
            if report(progress).is_break() {
                return Ok(progress.deleted);
            }
            tokio::time::sleep(options.pause).await;
        }
    }
}
