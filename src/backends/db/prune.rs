//! Deleting what is over, in batches.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{DbStore, Pool, Vendor};
use crate::backends::StoreError;
use crate::backends::manage::{PruneOptions, PruneProgress};

/// The statements that delete a batch; the number of rows is put into them.
#[derive(Debug)]
pub(super) enum PruneStatements {
    /// Deletes, and says how many and up to which moment.
    One(String),
    /// Finds the moment up to which the next batch is; deletes up to it.
    Two(String, String),
    /// Deletes. What is deleted is gone from the index at once, so that no moment is needed to go on from.
    Plain(String),
}

const LIMIT: &str = "{limit}";

impl PruneStatements {
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

/// Before every session: where Python's calendar begins, and in PostgreSQL also for those who are east of it.
fn beginning(vendor: Vendor) -> String {
    match vendor {
        Vendor::Postgres => "-infinity",
        Vendor::MySql | Vendor::Sqlite => "0001-01-01 00:00:00",
    }
    .to_owned()
}

impl DbStore {
    /// Each batch is a statement, and a transaction, of its own.
    pub(super) async fn prune_in_batches(
        &self,
        options: PruneOptions,
        report: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError> {
        let before = self.moment(self.before(options.older_than));
        let mut progress = PruneProgress::default();
        let mut size = u64::from(options.batch_size.max(1));
        let mut from = beginning(self.pool.vendor());
        loop {
            let left = options.limit.map_or(u64::MAX, |max| max.saturating_sub(progress.deleted));
            let limit = size.min(left);
            if limit == 0 {
                return Ok(progress.deleted);
            }
            let start = Instant::now();
            let (deleted, more) = self.prune_batch(&before, &mut from, limit).await?;
            progress.last_batch = start.elapsed();
            progress.deleted += deleted;
            progress.batches += 1;
            let goes_on = deleted == 0 || report(progress).is_continue();
            if !more || !goes_on {
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
    async fn prune_batch(
        &self,
        before: &str,
        from: &mut String,
        limit: u64,
    ) -> Result<(u64, bool), StoreError> {
        let with_limit = |statement: &str| statement.replace(LIMIT, &limit.to_string());
        match &self.statements.prune {
            PruneStatements::Plain(delete) => {
                let deleted = self.pool.execute(&with_limit(delete), &[before]).await?;
                Ok((deleted, deleted == limit))
            }
            PruneStatements::One(delete) => {
                let row = self.pool.fetch_two(&with_limit(delete), &[before, from]).await?;
                let (count, last) = row.unwrap_or_default();
                let deleted = count.parse().unwrap_or_default();
                if deleted == limit {
                    *from = format!("{last}+00");
                }
                Ok((deleted, deleted == limit))
            }
            PruneStatements::Two(find, delete) => {
                let next = self.pool.fetch(&with_limit(find), &[before, from]).await?.flatten();
                let deleted = self.pool.execute(&with_limit(delete), &[before, from]).await?;
                let more = next.is_some();
                if let Some(next) = next {
                    *from = next;
                }
                Ok((deleted, more))
            }
        }
    }
}
