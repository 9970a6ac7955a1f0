//! The SQL for the table of the Python app, and what is written after a request.

use jiff::Timestamp;

use super::{Devices, INTERVAL, Visit};
use crate::backends::StoreError;
use crate::backends::db::{Pool, Vendor};
use crate::contrib::auth::{UserId, key_parameter};
use crate::session::SessionKey;
use crate::settings::PkType;

/// Rows of one SELECT of those that are stale.
const BATCH: usize = 500;

/// Its primary key, and the name of its session.
pub(super) type StaleRow = (i64, SessionKey);

/// The statements, made once. Where a session may have two names, both are asked for; or the one twice.
pub(super) struct Statements {
    /// Rows of a user, each column as text.
    pub(super) of_user: String,
    pub(super) end: String,
    stale: String,
    end_stale: String,
    forget: String,
    rename: String,
    take_over: String,
    see: String,
    find: String,
    insert: String,
}

impl Statements {
    pub(super) fn new(pool: &Pool, table: &str, pk_type: PkType) -> Self {
        let table = pool.quote_name(table);
        let text = |number| pool.parameter(number, None);
        let user = |number| key_parameter(pool, number, pk_type);
        let moment = |number| pool.parameter(number, Some("timestamptz"));
        let ip = |number| match pool.vendor() {
            Vendor::Postgres => format!("CAST(NULLIF({}, '') AS inet)", text(number)),
            Vendor::Sqlite | Vendor::MySql => format!("NULLIF({}, '')", text(number)),
        };
        // What every visit changes, from this parameter on.
        let seen = |number| {
            let (moment, ip, agent) = (moment(number), ip(number + 1), text(number + 2));
            format!("last_seen = {moment}, ip = {ip}, user_agent = {agent}")
        };
        let named = |number| format!("session_key IN ({}, {})", text(number), text(number + 1));
        Self {
            of_user: format!(
                "SELECT {} FROM {table} WHERE user_id = {} ORDER BY last_seen DESC, id DESC",
                columns(pool),
                user(1)
            ),
            end: format!("DELETE FROM {table} WHERE id = {}", key_parameter(pool, 1, PkType::Integer)),
            stale: format!(
                "SELECT {}, {} FROM {table} WHERE last_seen < {} AND id > {} ORDER BY id LIMIT {BATCH}",
                text_of(pool, "id"),
                text_of(pool, "session_key"),
                moment(1),
                key_parameter(pool, 2, PkType::Integer)
            ),
            end_stale: format!(
                "DELETE FROM {table} WHERE id = {} AND last_seen < {}",
                key_parameter(pool, 1, PkType::Integer),
                moment(2)
            ),
            forget: format!("DELETE FROM {table} WHERE {}", named(1)),
            rename: format!("UPDATE {table} SET session_key = {} WHERE {}", text(1), named(2)),
            take_over: format!(
                "UPDATE {table} SET session_key = {}, {} WHERE user_id = {} AND {}",
                text(1),
                seen(2),
                user(5),
                named(6)
            ),
            see: format!(
                "UPDATE {table} SET user_id = {}, {} WHERE session_key = {} AND (last_seen < {} OR user_id <> {})",
                user(1),
                seen(2),
                text(5),
                moment(6),
                user(7)
            ),
            find: format!("SELECT user_agent FROM {table} WHERE session_key = {}", text(1)),
            insert: format!(
                "INSERT INTO {table} (user_id, session_key, created, last_seen, ip, user_agent) \
                 VALUES ({}, {}, {}, {}, {}, {})",
                user(1),
                text(2),
                moment(3),
                moment(4),
                ip(5),
                text(6)
            ),
        }
    }
}

fn text_of(pool: &Pool, column: &str) -> String {
    match pool.vendor() {
        Vendor::MySql => format!("CAST({column} AS CHAR)"),
        Vendor::Sqlite | Vendor::Postgres => format!("CAST({column} AS TEXT)"),
    }
}

fn columns(pool: &Pool) -> String {
    let text = |column| text_of(pool, column);
    let ip = match pool.vendor() {
        Vendor::Postgres => "host(ip)".to_owned(), // without its netmask
        Vendor::Sqlite | Vendor::MySql => text("ip"),
    };
    let (created, last_seen) = (pool.read_moment("created"), pool.read_moment("last_seen"));
    let (id, user, key, agent) = (text("id"), text("user_id"), text("session_key"), text("user_agent"));
    format!("{id}, {user}, {key}, {created}, {last_seen}, {ip}, {agent}")
}

/// A name, and the other one if there is one.
fn two(names: &[SessionKey]) -> Option<[&str; 2]> {
    let (first, last) = (names.first()?, names.last()?);
    Some([first.as_str(), last.as_str()])
}

impl Devices {
    /// What `django_rust_sessions.devices.recording` does with a visit.
    pub(crate) async fn write(&self, visit: &Visit) -> Result<(), StoreError> {
        match self.write_or_conflict(visit).await {
            // Another request was first, or the user is gone.
            Err(StoreError::Database(error)) if is_conflict(&error) => Ok(()),
            written => written,
        }
    }

    async fn write_or_conflict(&self, visit: &Visit) -> Result<(), StoreError> {
        let Some(user) = &visit.user else { return self.delete(&visit.old_names).await };
        self.rename(&visit.former, &visit.name).await?;
        if visit.logged_in {
            self.delete(&visit.old_names).await?;
        } else if self.take_over(user, visit).await? {
            return Ok(());
        }
        if self.see(user, visit).await? {
            return Ok(());
        }
        let (now, name) = (self.moment((self.clock)()), visit.name.as_str());
        let (user, ip) = (user.to_parameter(), visit.ip());
        let row = [&*user, name, &now, &now, &ip, &visit.user_agent];
        self.pool.execute(&self.statements.insert, &row).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, names: &[SessionKey]) -> Result<(), StoreError> {
        if let Some(names) = two(names) {
            self.pool.execute(&self.statements.forget, &names).await?;
        }
        Ok(())
    }

    /// The store has another name for the session: so has its row.
    async fn rename(&self, former: &[SessionKey], name: &SessionKey) -> Result<(), StoreError> {
        let Some([one, other]) = two(former) else { return Ok(()) };
        match self.pool.execute(&self.statements.rename, &[name.as_str(), one, other]).await {
            // The other row is there already.
            Err(error) if is_conflict(&error) => self.delete(former).await,
            renamed => Ok(renamed.map(drop)?),
        }
    }

    /// Whether there was a row under the session's former key.
    async fn take_over(&self, user: &UserId, visit: &Visit) -> Result<bool, StoreError> {
        let Some([one, other]) = two(&visit.old_names) else { return Ok(false) };
        let (now, ip, user) = (self.moment((self.clock)()), visit.ip(), user.to_parameter());
        let parameters = [visit.name.as_str(), &now, &ip, &visit.user_agent, &user, one, other];
        Ok(self.pool.execute(&self.statements.take_over, &parameters).await? > 0)
    }

    /// Whether there is a row; it is written if it is older than a minute.
    async fn see(&self, user: &UserId, visit: &Visit) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let (ip, user, name) = (visit.ip(), user.to_parameter(), visit.name.as_str());
        let before = self.moment(now.saturating_sub(INTERVAL).unwrap_or(now));
        let now = self.moment(now);
        let parameters = [&*user, &now, &ip, &visit.user_agent, name, &before, &user];
        Ok(self.pool.execute(&self.statements.see, &parameters).await? > 0
            || self.pool.fetch(&self.statements.find, &[name]).await?.is_some())
    }

    /// Some rows that were not seen since, from after that primary key on.
    pub(super) async fn stale(&self, since: Timestamp, after: i64) -> Result<Vec<StaleRow>, StoreError> {
        let parameters = [&*self.moment(since), &after.to_string()];
        let rows = self.pool.fetch_texts(&self.statements.stale, &parameters).await?;
        let read = |row: Vec<Option<String>>| match <[_; 2]>::try_from(row) {
            Ok([Some(id), Some(key)]) => Some((id.parse().ok()?, SessionKey::from_stored_name(key))),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// Unless it was seen meanwhile.
    pub(super) async fn end_stale(&self, id: i64, since: Timestamp) -> Result<u64, StoreError> {
        let parameters = [&*id.to_string(), &self.moment(since)];
        Ok(self.pool.execute(&self.statements.end_stale, &parameters).await?)
    }

    fn moment(&self, moment: Timestamp) -> String {
        self.pool.moment(moment, &self.zone)
    }
}

/// Django's `IntegrityError`.
fn is_conflict(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.is_unique_violation() || error.is_foreign_key_violation())
}
