//! Looking after a store: its sessions listed, counted, copied with the end that they have, and deleted in batches when
//! they are over. No request needs that; the tool `django-sessions` does, and so may a page of yours.
//!
//! ```
//! # #[cfg(feature = "file")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use django_sessions::backends::SessionStore;
//! use django_sessions::backends::manage::{ManagedStore, Which};
//! use django_sessions::backends::file::FileStore;
//! use django_sessions::session::Session;
//! # use django_sessions::{crypto::SecretKeys, settings::Settings};
//! # let folder = tempfile::tempdir()?;
//! # let store = FileStore::in_directory(folder.path(), Settings::new(SecretKeys::new("secret")))?;
//! store.save(&mut Session::new()).await?;
//!
//! let mut listing = store.list(Which::Live, 100, "");
//! while let Some(sessions) = listing.next_page().await? {
//!     for session in sessions {
//!         println!("{} bytes, until {:?}", session.size, session.ends);
//!     }
//! }
//! # Ok(()) }
//! # #[cfg(not(feature = "file"))]
//! # fn main() {}
//! ```
//!
//! [`Settings::connect_managed`](crate::settings::Settings::connect_managed) opens the store of a site.

use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{SessionStore, StoreError};
use crate::session::{Data, Session, SessionKey};

/// A session as it is stored.
///
/// ```
/// use django_sessions::backends::manage::StoredSession;
/// use jiff::Timestamp;
///
/// fn is_over(session: &StoredSession) -> bool {
///     session.ends.is_some_and(|ends| ends <= Timestamp::now())
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredSession {
    /// What the store knows it by: its key, or with [`HashKeys`](crate::settings::HashKeys) a hash of that.
    pub name: SessionKey,
    /// Its values, or why they cannot be read.
    pub data: Result<Data, StoreError>,
    /// How many bytes are stored for it, without its name.
    pub size: u64,
    /// When it was saved last, where the store knows.
    pub saved: Option<Timestamp>,
    /// When it ends; never, if there is nothing.
    pub ends: Option<Timestamp>,
}

/// Which sessions to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Those that are not over.
    #[default]
    Live,
    /// All, also those that are over and not deleted yet.
    All,
}

/// The sessions of a store, page after page.
#[async_trait]
pub trait Listing: Send {
    /// The next sessions, or `None` when there are no more. A page may be empty. A session that is made or deleted
    /// meanwhile is listed or not, and one may be listed twice.
    ///
    /// # Errors
    /// When the store fails. To call this again goes on where it was.
    async fn next_page(&mut self) -> Result<Option<Vec<StoredSession>>, StoreError>;

    /// From where [`ManagedStore::list`] goes on after the last page, perhaps with some sessions of before. No session
    /// key can be made out of it.
    fn position(&self) -> String;
}

/// How [`ManagedStore::prune`] goes about it.
///
/// ```
/// use django_sessions::backends::manage::PruneOptions;
/// use std::time::Duration;
///
/// let mut options = PruneOptions::default();
/// options.batch_size = 100;
/// options.older_than = Duration::from_secs(30 * 86_400);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneOptions {
    /// How many sessions a statement deletes at most: 1000. Fewer, if they take longer than `batch_time`.
    pub batch_size: u32,
    /// How long a statement should take: 20 ms. SQLite lets nobody else write meanwhile, and in its rollback mode
    /// nobody read while it ends.
    pub batch_time: Duration,
    /// How long to leave the store to others after each batch: 5 ms.
    pub pause: Duration,
    /// After how many to stop: none, for when nothing is left.
    pub limit: Option<u64>,
    /// How long ago they must have ended: 0.
    pub older_than: Duration,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            batch_size: 1000,
            batch_time: Duration::from_millis(20),
            pause: Duration::from_millis(5),
            limit: None,
            older_than: Duration::ZERO,
        }
    }
}

/// How far [`ManagedStore::prune`] is, after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneProgress {
    /// Sessions that were deleted until now.
    pub deleted: u64,
    /// Batches until now.
    pub batches: u64,
    /// How long the last one took.
    pub last_batch: Duration,
}

/// A store whose sessions can be looked after. They go by the names that the store has for them.
#[async_trait]
pub trait ManagedStore: SessionStore {
    /// The sessions, `limit` or so on each page, from a [`position`](Listing::position) or with `""` from the beginning.
    fn list(&self, which: Which, limit: usize, from: &str) -> Box<dyn Listing>;

    /// How many sessions are stored, be they over or not.
    ///
    /// # Errors
    /// When the store fails, and [`StoreError::Unlisted`].
    async fn count(&self) -> Result<u64, StoreError>;

    /// How many sessions ended so long ago, and are still there. 0 for a cache, which forgets them.
    ///
    /// # Errors
    /// When the store fails.
    async fn count_expired(&self, older_than: Duration) -> Result<u64, StoreError>;

    /// The session of this name, also if it is over.
    ///
    /// # Errors
    /// When the store fails.
    async fn find(&self, name: &SessionKey) -> Result<Option<StoredSession>, StoreError>;

    /// As [`insert`](SessionStore::insert), with an end that is not what the session says of itself; `None` is as late as
    /// the store has it. Over a session that has ended already.
    ///
    /// # Errors
    /// As `insert`.
    async fn insert_until(
        &self,
        name: &SessionKey,
        session: &Session,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError>;

    /// Deletes sessions that are over, in batches, and reports after each, whose answer may be to stop. Returns how many.
    ///
    /// To drop the future stops after the batch that is under way. What was deleted stays deleted. The memory that is
    /// needed does not depend on how many there are.
    ///
    /// # Errors
    /// When the store fails; what was deleted until then stays deleted.
    async fn prune(
        &self,
        options: PruneOptions,
        report: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError>;
}

/// How many characters of a name [`Listing::position`] tells.
#[cfg(any(feature = "_cache", feature = "file"))]
pub(crate) fn shortened(name: &str) -> String {
    name.chars().take(8).collect()
}
