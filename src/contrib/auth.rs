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
use crate::settings::SessionSettings;

#[cfg(feature = "_sql")]
mod users;
#[cfg(feature = "_sql")]
pub use users::{User, Users};

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
pub fn claimed_user_id(session: &Session, settings: &SessionSettings) -> Option<String> {
    let backend = session.get::<String>(BACKEND_SESSION_KEY).ok()??;
    if !settings.authentication_backends.contains(&backend) {
        return None;
    }
    // Django writes text; numbers are left by sites that set the value themselves.
    let id = session.get_raw(SESSION_KEY)?;
    id.to::<String>().or_else(|_| id.to::<i64>().map(|id| id.to_string())).ok()
}
