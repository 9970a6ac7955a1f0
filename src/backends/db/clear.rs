//! Deleting what is over, in batches.

use std::time::{Duration, Instant};

use super::{DbStore, Pool, Vendor};
use crate::backends::StoreError;

/// How [`DbStore::clear_expired_with`] goes about it.
///
/// ```
/// use django_sessions::backends::db::ClearOptions;
/// use std::time::Duration;
///
/// let mut options = ClearOptions::default();
/// options.batch_size = 100;
/// options.pause = Duration::from_millis(50);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClearOptions {
    /// How many rows one statement deletes at most: 1000. Fewer, if they take longer than `batch_time`.
    pub batch_size: u32,
    /// How long a statement should take: 20 ms. SQLite lets nobody else write meanwhile, and in its rollback mode
    /// nobody read while it ends.
    pub batch_time: Duration,
    /// How long to leave the database to others after each batch: 5 ms.
    pub pause: Duration,
    /// After how many rows to stop: none, for when nothing is left.
    pub max_rows: Option<u64>,
}

impl Default for ClearOptions {
    fn default() -> Self {
        Self {
            batch_size: 1000,
            batch_time: Duration::from_millis(20),
            pause: Duration::from_millis(5),
            max_rows: None,
        }
    }
}

/// How far [`DbStore::clear_expired_with`] is, after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClearProgress {
    /// Rows that were deleted until now.
    pub deleted: u64,
    /// Batches until now.
    pub batches: u64,
    /// How long the last one took.
    pub last_batch: Duration,
}

/// The statements that delete a batch; the number of rows is put into them.
#[derive(Debug)]
pub(super) enum ClearStatements {
    /// Deletes, and says how many and up to which moment.
    One(String),
    /// Finds the moment up to which the next batch is; deletes up to it.
    Two(String, String),
    /// Deletes. What is deleted is gone from the index at once, so that no moment is needed to go on from.
    Plain(String),
}

const LIMIT: &str = "{limit}";

impl ClearStatements {
    pub(super) fn new(pool: &Pool, table: &str) -> Self {
        let expire_date = pool.read_moment("expire_date");
        match pool.vendor() {
            // Rows that another transaction holds are left to the next run. The bounds are those of the index: without the
            // lower one each batch would step over all rows that were deleted before and are not vacuumed yet.
            Vendor::Postgres => Self::One(format!(
                "WITH gone AS (DELETE FROM {table} WHERE session_key IN (SELECT session_key FROM {table} \
                 WHERE expire_date < CAST($1 AS timestamptz) AND expire_date >= CAST($2 AS timestamptz) \
                 ORDER BY expire_date LIMIT {LIMIT} FOR UPDATE SKIP LOCKED) \
                 AND expire_date < CAST($1 AS timestamptz) RETURNING expire_date) \
                 SELECT CAST(count(*) AS text), COALESCE({}, '') FROM gone",
                pool.read_moment("max(expire_date)")
            )),
            Vendor::MySql => Self::Two(
                format!(
                    "SELECT {expire_date} FROM {table} WHERE expire_date < ? AND expire_date >= ? \
                     ORDER BY expire_date LIMIT 1 OFFSET {LIMIT}"
                ),
                format!(
                    "DELETE FROM {table} WHERE expire_date < ? AND expire_date >= ? ORDER BY expire_date LIMIT {LIMIT}"
                ),
            ),
            Vendor::Sqlite => Self::Plain(format!(
                "DELETE FROM {table} WHERE session_key IN (SELECT session_key FROM {table} WHERE expire_date < ? \
                 ORDER BY expire_date LIMIT {LIMIT})"
            )),
        }
    }
}

/// Before every session.
const BEGINNING: &str = "1000-01-01 00:00:00";

impl DbStore {
    /// Deletes the sessions that are over, in batches, and reports after each. Returns how many.
    ///
    /// Each batch is a statement, and a transaction, of its own: to drop the future stops after the one that is under way,
    /// and what was deleted stays deleted. The memory that is needed does not depend on how many there are.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use django_sessions::{backends::db::{ClearOptions, DbStore}, crypto::SecretKeys, settings::Settings};
    /// # let store = DbStore::connect("sqlite::memory:", Settings::new(SecretKeys::new("secret"))).await?;
    /// # let table = "CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT)";
    /// # sqlx::query(table).execute(store.pool().sqlite().unwrap()).await?;
    /// let mut options = ClearOptions::default();
    /// options.max_rows = Some(1_000_000);
    /// let deleted = store.clear_expired_with(options, |progress| println!("{} rows", progress.deleted)).await?;
    /// # assert_eq!(deleted, 0);
    /// # Ok(()) }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// When the database fails; what was deleted until then stays deleted.
    pub async fn clear_expired_with(
        &self,
        options: ClearOptions,
        mut report: impl FnMut(ClearProgress) + Send,
    ) -> Result<u64, StoreError> {
        let now = self.moment(self.now());
        let mut progress = ClearProgress { deleted: 0, batches: 0, last_batch: Duration::ZERO };
        let mut size = u64::from(options.batch_size.max(1));
        let mut from = BEGINNING.to_owned();
        loop {
            let left = options.max_rows.map_or(u64::MAX, |max| max.saturating_sub(progress.deleted));
            let limit = size.min(left);
            if limit == 0 {
                return Ok(progress.deleted);
            }
            let start = Instant::now();
            let (deleted, more) = self.clear_batch(&now, &mut from, limit).await?;
            progress.last_batch = start.elapsed();
            progress.deleted += deleted;
            progress.batches += 1;
            if deleted > 0 {
                report(progress);
            }
            if !more {
                return Ok(progress.deleted);
            }
            size = match progress.last_batch {
                long if long > options.batch_time => (size / 2).max(1),
                short if short < options.batch_time / 4 => (size * 2).min(options.batch_size.max(1).into()),
                _ => size,
            };
            tokio::time::sleep(options.pause).await;
        }
    }

    /// Deletes at most `limit` rows that ended at `from` or later, and moves `from` on. Returns how many, and whether there
    /// may be more.
    async fn clear_batch(&self, now: &str, from: &mut String, limit: u64) -> Result<(u64, bool), StoreError> {
        let with_limit = |statement: &str| statement.replace(LIMIT, &limit.to_string());
        match &self.statements.clear {
            ClearStatements::Plain(delete) => {
                let deleted = self.pool.execute(&with_limit(delete), &[now]).await?;
                Ok((deleted, deleted == limit))
            }
            ClearStatements::One(delete) => {
                let row = self.pool.fetch_two(&with_limit(delete), &[now, from]).await?;
                let (count, last) = row.unwrap_or_default();
                let deleted = count.parse().unwrap_or_default();
                if deleted == limit {
                    *from = format!("{last}+00");
                }
                Ok((deleted, deleted == limit))
            }
            ClearStatements::Two(find, delete) => {
                let next = self.pool.fetch(&with_limit(find), &[now, from]).await?.flatten();
                let deleted = self.pool.execute(&with_limit(delete), &[now, from]).await?;
                let more = next.is_some();
                if let Some(next) = next {
                    *from = next;
                }
                Ok((deleted, more))
            }
        }
    }
}
