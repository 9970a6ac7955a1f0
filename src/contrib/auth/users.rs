//! Users in Django's default table.

use std::fmt;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::{HASH_SESSION_KEY, HashMatch, check_session_auth_hash, claimed_user_id, session_auth_hash};
use crate::backends::db::{DbStore, Pool, on_pool};
use crate::backends::{SessionStore, StoreError};
use crate::crypto::Algorithm;
use crate::session::Session;
use crate::settings::SessionSettings;

/// A row of `auth_user`. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// Primary key.
    pub id: i64,
    /// The name to log in with.
    pub username: String,
    /// First name, or nothing.
    pub first_name: String,
    /// Last name, or nothing.
    pub last_name: String,
    /// Email address, or nothing.
    pub email: String,
    /// Whether the user may use Django's admin.
    pub is_staff: bool,
    /// Whether the user has every permission.
    pub is_superuser: bool,
    /// Whether the account is in use. Who is not is never logged in.
    pub is_active: bool,
    password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("username", &self.username).finish_non_exhaustive()
    }
}

/// Django's table of users, and the check whether a session's login still holds.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_sessions::backends::{SessionStore, db::DbStore};
/// use django_sessions::contrib::auth::Users;
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::session::SessionKey;
/// use django_sessions::settings::SessionSettings;
///
/// let settings = SessionSettings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let store = DbStore::connect("sqlite:db.sqlite3", settings).await?;
/// let users = Users::beside(&store);
///
/// let key = SessionKey::new("the value of the cookie").expect("8 characters at least");
/// let mut session = store.load(&key).await?;
/// match users.get_user(&store, &mut session).await? {
///     Some(user) => println!("Hello, {}!", user.username),
///     None => println!("Hello, stranger!"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Users {
    pool: Pool,
    settings: Arc<SessionSettings>,
    statement: Arc<str>,
}

impl Users {
    /// The table `auth_user` in the database that `store` keeps sessions in.
    pub fn beside(store: &DbStore) -> Self {
        Self::new(store.pool().clone(), store.settings().clone())
    }

    /// The table `auth_user` in the database of `pool`.
    pub fn new(pool: impl Into<Pool>, settings: impl Into<Arc<SessionSettings>>) -> Self {
        let (pool, settings) = (pool.into(), settings.into());
        let integer = match pool {
            #[cfg(feature = "mysql")]
            Pool::MySql(_) => "SIGNED",
            #[allow(unreachable_patterns, reason = "it is reachable with any other database's feature")]
            _ => "BIGINT",
        };
        let statement = format!(
            "SELECT CAST(id AS {integer}), username, first_name, last_name, email, is_staff, is_superuser, is_active, \
             password FROM auth_user WHERE id = {}",
            pool.parameter(1, None)
        );
        Self { pool, settings, statement: statement.into() }
    }

    /// The user with this primary key, logged in or not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn by_id(&self, id: i64) -> Result<Option<User>, StoreError> {
        let row = on_pool!(&self.pool, pool => {
            sqlx::query_as(AssertSqlSafe(&*self.statement)).bind(id).fetch_optional(pool).await?
        });
        Ok(row.map(
            |(id, username, first_name, last_name, email, is_staff, is_superuser, is_active, password)| {
                User {
                    id,
                    username,
                    first_name,
                    last_name,
                    email,
                    is_staff,
                    is_superuser,
                    is_active,
                    password,
                }
            },
        ))
    }

    /// The user who is logged in, checked as `django.contrib.auth.get_user` checks it.
    ///
    /// Nobody is: whose backend is not in `AUTHENTICATION_BACKENDS`, who is gone, who is not active. When the password
    /// changed since the login, the session is flushed. When its hash was made under a fallback key, the session gets
    /// a new key and a new hash, and the old key is worth nothing from then on: whatever the response is, save the
    /// session and send its key.
    ///
    /// # Errors
    /// When the database or the session's store fails.
    pub async fn get_user<S>(&self, store: &S, session: &mut Session) -> Result<Option<User>, StoreError>
    where
        S: SessionStore + ?Sized,
    {
        let Some(id) = claimed_user_id(session, &self.settings).and_then(|id| id.parse().ok()) else {
            return Ok(None);
        };
        let Some(user) = self.by_id(id).await?.filter(|user| user.is_active) else { return Ok(None) };
        let keys = &self.settings.secret_keys;
        let session_hash = session.get::<String>(HASH_SESSION_KEY).ok().flatten().unwrap_or_default();
        match check_session_auth_hash(&session_hash, &user.password, keys) {
            HashMatch::Current => Ok(Some(user)),
            HashMatch::Fallback => {
                store.cycle_key(session).await?;
                let hash = session_auth_hash(&user.password, keys.current(), Algorithm::Sha256);
                session.insert(HASH_SESSION_KEY, &hash)?;
                Ok(Some(user))
            }
            HashMatch::No => {
                store.flush(session).await?;
                Ok(None)
            }
        }
    }
}
