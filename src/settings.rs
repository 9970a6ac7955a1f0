//! What a Django project's settings say about sessions, with Django's defaults.

use jiff::tz::TimeZone;

use crate::crypto::SecretKeys;
use crate::signing::DEFAULT_MAX_INFLATED;

/// Django's settings that sessions depend on. Each field is named after the setting that it stands for.
///
/// `Debug` shows no secret.
///
/// ```
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::SessionSettings;
///
/// let mut settings = SessionSettings::new(SecretKeys::new("the site's SECRET_KEY"));
/// settings.session_cookie_secure = true;
/// assert_eq!(settings.session_cookie_name, "sessionid");
/// assert!(!format!("{settings:?}").contains("the site's"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionSettings {
    /// `SECRET_KEY` and `SECRET_KEY_FALLBACKS`. They have no default.
    pub secret_keys: SecretKeys,
    /// `SESSION_COOKIE_NAME`: `sessionid`.
    pub session_cookie_name: String,
    /// `SESSION_COOKIE_AGE` in seconds: two weeks.
    pub session_cookie_age: i64,
    /// `SESSION_COOKIE_DOMAIN`: none, for a cookie of this host only.
    pub session_cookie_domain: Option<String>,
    /// `SESSION_COOKIE_PATH`: `/`.
    pub session_cookie_path: String,
    /// `SESSION_COOKIE_SECURE`: no.
    pub session_cookie_secure: bool,
    /// `SESSION_COOKIE_HTTPONLY`: yes.
    pub session_cookie_httponly: bool,
    /// `SESSION_COOKIE_SAMESITE`: `Lax`; none leaves the attribute out (Django's `False`).
    pub session_cookie_samesite: Option<SameSite>,
    /// `SESSION_EXPIRE_AT_BROWSER_CLOSE`: no.
    pub session_expire_at_browser_close: bool,
    /// `SESSION_SAVE_EVERY_REQUEST`: no.
    pub session_save_every_request: bool,
    /// `AUTHENTICATION_BACKENDS`: Django's `ModelBackend`. A login through any other is nobody's.
    pub authentication_backends: Vec<String>,
    /// Time zone of times that carry none: UTC, as in Django with `USE_TZ = True`. With `USE_TZ = False` it is
    /// `TIME_ZONE`, and databases then hold times in it.
    pub time_zone: TimeZone,
    /// Salt of what the db, cached_db and file engines sign: `django.contrib.sessions.` and the `__qualname__` of the
    /// engine's class, which is `SessionStore` unless the project has an engine of its own.
    pub key_salt: String,
    /// Table of the db engine: `django_session`, or that of a custom session model.
    pub db_table: String,
    /// How many bytes the compressed data of a session may inflate to: 16 MiB. Django has no such limit.
    pub max_inflated: usize,
}

/// The `SameSite` attribute of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Sent with requests from this site and when a link leads to it.
    Lax,
    /// Sent with requests from this site only.
    Strict,
    /// Sent with every request; browsers then want `Secure`.
    None,
}

impl SessionSettings {
    /// Django's defaults, with these keys.
    pub fn new(secret_keys: SecretKeys) -> Self {
        Self {
            secret_keys,
            session_cookie_name: "sessionid".to_owned(),
            session_cookie_age: 60 * 60 * 24 * 7 * 2,
            session_cookie_domain: None,
            session_cookie_path: "/".to_owned(),
            session_cookie_secure: false,
            session_cookie_httponly: true,
            session_cookie_samesite: Some(SameSite::Lax),
            session_expire_at_browser_close: false,
            session_save_every_request: false,
            authentication_backends: vec!["django.contrib.auth.backends.ModelBackend".to_owned()],
            time_zone: TimeZone::UTC,
            key_salt: "django.contrib.sessions.SessionStore".to_owned(),
            db_table: "django_session".to_owned(),
            max_inflated: DEFAULT_MAX_INFLATED,
        }
    }
}
