//! Who is logged in, as in `django.contrib.auth`.
//!
//! A login leaves three values in the session: the user's primary key as text, the dotted path of the backend that
//! let the user in, and an HMAC of the user's password column. The last one ends every session of a user whose
//! password changes. Source: `django/contrib/auth/__init__.py` and `base_user.py`.
//!
//! ```
//! use django_sessions::contrib::auth::{HashMatch, check_session_auth_hash, session_auth_hash};
//! use django_sessions::crypto::{Algorithm, SecretKeys};
//!
//! let old = session_auth_hash("pbkdf2_sha256$...", b"yesterday's key", Algorithm::Sha256);
//! let keys = SecretKeys::new("today's key").with_fallbacks(["yesterday's key"]);
//! assert_eq!(check_session_auth_hash(&old, "pbkdf2_sha256$...", &keys), HashMatch::Fallback);
//! assert_eq!(check_session_auth_hash(&old, "another password", &keys), HashMatch::No);
//! ```

use crate::crypto::{Algorithm, SecretKeys, constant_time_compare, salted_hmac};
use crate::session::Session;
use crate::settings::Settings;

#[cfg(feature = "hashers")]
pub mod hashers;
#[cfg(feature = "_sql")]
mod login;
#[cfg(all(feature = "_sql", feature = "hashers"))]
mod passwords;
#[cfg(feature = "_sql")]
mod permissions;
mod redirect;
#[cfg(feature = "_sql")]
mod table;
#[cfg(feature = "_sql")]
mod user;
#[cfg(feature = "_sql")]
mod users;

#[cfg(feature = "_sql")]
use crate::backends::StoreError;
#[cfg(feature = "_sql")]
pub use login::LoggedIn;
#[cfg(feature = "_sql")]
pub use permissions::Permissions;
#[cfg(all(feature = "_sql", any(feature = "axum", feature = "actix")))]
pub(crate) use redirect::login_redirect;
pub use redirect::{REDIRECT_FIELD_NAME, redirect_to_login};
#[cfg(feature = "_sql")]
pub(crate) use table::key_parameter;
#[cfg(feature = "_sql")]
pub use user::{User, UserId};
#[cfg(all(feature = "_sql", feature = "_layer"))]
pub(crate) use users::Login;
#[cfg(feature = "_sql")]
pub use users::{UserRow, Users};

/// Session value that holds the user's primary key, as text.
pub const SESSION_KEY: &str = "_auth_user_id";
/// Session value that holds the dotted path of the backend that let the user in.
pub const BACKEND_SESSION_KEY: &str = "_auth_user_backend";
/// Session value that holds the HMAC of the user's password column.
pub const HASH_SESSION_KEY: &str = "_auth_user_hash";

const HASH_KEY_SALT: &[u8] = b"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// The HMAC of a password column that a login leaves in the session, as hexadecimal text
/// (`AbstractBaseUser.get_session_auth_hash`). SHA-256 since Django 3.1, SHA-1 before.
pub fn session_auth_hash(password: &str, secret_key: &[u8], algorithm: Algorithm) -> String {
    salted_hmac(HASH_KEY_SALT, password.as_bytes(), secret_key, algorithm).to_hex()
}

/// Under which key a session's hash is that of the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashMatch {
    /// The current one: the login is good.
    Current,
    /// A fallback: the login is good, and Django cycles the session's key and writes the hash anew.
    Fallback,
    /// None of them: the password was changed since, and Django flushes the session.
    No,
}

/// Whether `session_hash` belongs to the password column `password`, in constant time.
pub fn check_session_auth_hash(session_hash: &str, password: &str, keys: &SecretKeys) -> HashMatch {
    let matches = |key: &[u8]| {
        let expected = session_auth_hash(password, key, Algorithm::Sha256);
        constant_time_compare(session_hash.as_bytes(), expected.as_bytes())
    };
    if matches(keys.current()) {
        HashMatch::Current
    } else if keys.fallbacks().any(matches) {
        HashMatch::Fallback
    } else {
        HashMatch::No
    }
}

/// The primary key, as text, of the user that the session says is logged in, if the login came through one of
/// `AUTHENTICATION_BACKENDS`. Whether that still holds, the user's password and `is_active` must tell.
///
/// ```
/// use django_sessions::contrib::auth::{BACKEND_SESSION_KEY, SESSION_KEY, claimed_user_id};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::session::Session;
/// use django_sessions::settings::Settings;
///
/// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let mut session = Session::new();
/// session.insert(SESSION_KEY, "42")?;
/// session.insert(BACKEND_SESSION_KEY, "django.contrib.auth.backends.ModelBackend")?;
/// assert_eq!(claimed_user_id(&session, &settings).as_deref(), Some("42"));
///
/// session.insert(BACKEND_SESSION_KEY, "shop.backends.Retired")?;
/// assert_eq!(claimed_user_id(&session, &settings), None);
/// # Ok::<(), django_sessions::session::SessionError>(())
/// ```
pub fn claimed_user_id(session: &Session, settings: &Settings) -> Option<String> {
    claimed_backend(session, settings)?;
    user_id_of(session)
}

/// The backend that let the user in, if it is one of `AUTHENTICATION_BACKENDS`.
fn claimed_backend(session: &Session, settings: &Settings) -> Option<String> {
    let backend = session.get::<String>(BACKEND_SESSION_KEY).ok()??;
    settings.authentication_backends.contains(&backend).then_some(backend)
}

pub(crate) fn user_id_of(session: &Session) -> Option<String> {
    // Django writes text; numbers are left by sites that set the value themselves.
    let id = session.get_value(SESSION_KEY)?;
    id.to::<String>().or_else(|_| id.to::<i64>().map(|id| id.to_string())).ok()
}

/// Whether the session is a login of this user, by a password that is still the user's.
#[cfg(feature = "_sql")]
pub(crate) fn is_login_of(session: &Session, user: &User, settings: &Settings) -> bool {
    let id = user_id_of(session).and_then(|id| UserId::parse(&id, settings.auth.pk_type));
    let hash = session.get::<String>(HASH_SESSION_KEY).ok().flatten().unwrap_or_default();
    id.as_ref() == Some(&user.id)
        && check_session_auth_hash(&hash, &user.password, &settings.secret_keys) != HashMatch::No
}

/// Django's backends that check passwords.
#[cfg(all(feature = "_sql", feature = "hashers"))]
const MODEL_BACKENDS: [&str; 2] =
    ["django.contrib.auth.backends.ModelBackend", "django.contrib.auth.backends.AllowAllUsersModelBackend"];

/// Django's backends that leave that to a server before them.
#[cfg(all(feature = "_sql", feature = "hashers"))]
const REMOTE_USER_BACKENDS: [&str; 2] = [
    "django.contrib.auth.backends.RemoteUserBackend",
    "django.contrib.auth.backends.AllowAllUsersRemoteUserBackend",
];

/// Whether users may come in through this backend who are not active.
#[cfg(feature = "_sql")]
fn lets_inactive_in(backend: &str) -> bool {
    backend
        .strip_prefix("django.contrib.auth.backends.")
        .is_some_and(|name| name.starts_with("AllowAllUsers"))
}

/// Why nobody could be checked, logged in or given a password. None of the texts shows a password or a hash.
#[cfg(feature = "_sql")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The database of the users, or the store of the session, failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password could not be hashed.
    #[cfg(feature = "hashers")]
    #[error("the password could not be checked")]
    Hasher(#[from] hashers::HasherError),
    /// The thread that hashed the password stopped, as when the runtime shuts down.
    #[cfg(feature = "hashers")]
    #[error("the password could not be checked: {0}")]
    Stopped(String),
    /// Several users have the name. Django: `MultipleObjectsReturned`.
    #[error("several users have this name: the column that users log in with is to be unique")]
    SeveralUsers,
    /// Which backend lets the user in is not said. Django: `ValueError`.
    #[error(
        "AUTHENTICATION_BACKENDS names several: say by `user.with_backend(path)` which of them lets this user in"
    )]
    Backend,
    /// No backend is known to check passwords as `ModelBackend` does.
    #[cfg(feature = "hashers")]
    #[error(
        "AUTHENTICATION_BACKENDS names neither django.contrib.auth.backends.ModelBackend nor a single backend of the \
         project's own that could stand for it: check the password with `Users::check_password`, and log in with \
         `user.with_backend(path)`"
    )]
    PasswordBackend,
}

#[cfg(feature = "_sql")]
impl From<sqlx::Error> for AuthError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
