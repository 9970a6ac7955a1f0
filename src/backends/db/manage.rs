//! Looking after the table.

use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{DbStore, Pool, Vendor, can_be_stored};
use crate::backends::StoreError;
use crate::backends::manage::{
    Listing, ManagedStore, PruneOptions, PruneProgress, StoredSession, Which, shortened,
};
use crate::session::{Session, SessionError, SessionKey};

#[derive(Debug)]
pub(super) struct ManageStatements {
    page: String,
    page_of_live: String,
    find: String,
    delete_over: String,
    count: String,
    count_expired: String,
}

impl ManageStatements {
    pub(super) fn new(pool: &Pool, table: &str) -> Self {
        let key = pool.parameter(1, None);
        let moment = |number| pool.parameter(number, Some("timestamptz"));
        let text = if pool.vendor() == Vendor::MySql { "CHAR" } else { "TEXT" };
        let columns = format!("session_key, session_data, {}", pool.read_moment("expire_date"));
        let rows = format!("SELECT {columns} FROM {table}");
        let count = format!("SELECT CAST(COUNT(*) AS {text}) FROM {table}");
        Self {
            page: format!("{rows} WHERE session_key > {key} ORDER BY session_key LIMIT "),
            page_of_live: format!(
                "{rows} WHERE session_key > {key} AND expire_date > {} ORDER BY session_key LIMIT ",
                moment(2)
            ),
            find: format!("{rows} WHERE session_key = {key}"),
            delete_over: format!(
                "DELETE FROM {table} WHERE session_key = {key} AND expire_date <= {}",
                moment(2)
            ),
            count_expired: format!("{count} WHERE expire_date < {}", moment(1)),
            count,
        }
    }
}

struct Rows {
    store: DbStore,
    which: Which,
    limit: usize,
    after: String,
}

#[async_trait]
impl Listing for Rows {
    async fn next_page(&mut self) -> Result<Option<Vec<StoredSession>>, StoreError> {
        let (store, statements) = (&self.store, &self.store.statements.manage);
        let now = store.moment(store.now());
        let (statement, parameters) = match self.which {
            Which::All => (&statements.page, vec![self.after.as_str()]),
            Which::Live => (&statements.page_of_live, vec![self.after.as_str(), &now]),
        };
        let rows = store.pool.fetch_texts(&format!("{statement}{}", self.limit), &parameters).await?;
        let page: Vec<_> = rows.into_iter().filter_map(|row| store.stored(row)).collect();
        let Some(last) = page.last() else { return Ok(None) };
        self.after = last.name.as_str().to_owned();
        Ok(Some(page))
    }

    fn position(&self) -> String {
        shortened(&self.after)
    }
}

impl DbStore {
    fn stored(&self, row: Vec<Option<String>>) -> Option<StoredSession> {
        let [name, session_data, expire_date]: [_; 3] = row.try_into().ok()?;
        let (name, session_data) = (name?, session_data?);
        let ends = expire_date.and_then(|text| self.pool.parse_moment(&text, &self.settings.time_zone));
        let data = match ends {
            Some(_) => self.codec.decode(&session_data).map_err(StoreError::from),
            None => Err(SessionError::Expiry.into()),
        };
        Some(StoredSession {
            name: SessionKey::from_stored_name(name),
            data,
            size: session_data.len() as u64,
            saved: self.codec.signed_at(&session_data),
            ends,
        })
    }

    async fn number(&self, statement: &str, parameters: &[&str]) -> Result<u64, StoreError> {
        let number = self.pool.fetch(statement, parameters).await?.flatten();
        Ok(number.and_then(|number| number.parse().ok()).unwrap_or_default())
    }
}

#[async_trait]
impl ManagedStore for DbStore {
    fn list(&self, which: Which, limit: usize, from: &str) -> Box<dyn Listing> {
        Box::new(Rows { store: self.clone(), which, limit: limit.max(1), after: from.to_owned() })
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.number(&self.statements.manage.count, &[]).await
    }

    async fn count_expired(&self, older_than: Duration) -> Result<u64, StoreError> {
        let before = self.moment(self.before(older_than));
        self.number(&self.statements.manage.count_expired, &[&before]).await
    }

    async fn find(&self, name: &SessionKey) -> Result<Option<StoredSession>, StoreError> {
        if !can_be_stored(name) {
            return Ok(None);
        }
        let mut rows = self.pool.fetch_texts(&self.statements.manage.find, &[name.as_str()]).await?;
        Ok(rows.pop().and_then(|row| self.stored(row)))
    }

    async fn insert_until(
        &self,
        name: &SessionKey,
        session: &Session,
        ends: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let age = SignedDuration::from_secs(self.settings.session_cookie_age);
        let ends = ends.unwrap_or_else(|| now.saturating_add(age).unwrap_or(Timestamp::MAX));
        let (session_data, expire_date) = (self.codec.encode(session, now)?, self.moment(ends));
        let columns = [name.as_str(), &session_data, &expire_date];
        if self.insert_row(&columns).await? {
            return Ok(true);
        }
        // One that is over is in nobody's use, and in the way.
        let over = &self.statements.manage.delete_over;
        let gone = self.pool.execute(over, &[name.as_str(), &self.moment(now)]).await?;
        Ok(gone > 0 && self.insert_row(&columns).await?)
    }

    #[tracing::instrument(level = "debug", skip_all)]
    async fn prune(
        &self,
        options: PruneOptions,
        report: &mut (dyn FnMut(PruneProgress) -> ControlFlow<()> + Send),
    ) -> Result<u64, StoreError> {
        self.prune_in_batches(options, report).await
    }
}
