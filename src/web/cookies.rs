//! The session cookie: read from a request, set or deleted with a response, as Django's `SessionMiddleware` does it.
//!
//! ```
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::{Session, SessionKey};
//! use django_sessions::settings::SessionSettings;
//! use django_sessions::web::cookies;
//!
//! let settings = SessionSettings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let key = cookies::session_key("theme=dark; sessionid=jf8x0zq3a7k2", &settings).unwrap();
//! let session = Session::with_data(Some(key), Default::default());
//!
//! let header = cookies::set_cookie(&session, &settings, "2026-11-23T12:00:00Z".parse()?)?.unwrap();
//! assert!(header.starts_with("sessionid=jf8x0zq3a7k2; HttpOnly; SameSite=Lax; Path=/; Max-Age=1209600; Expires="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use cookie::time::OffsetDateTime;
use cookie::{Cookie, CookieBuilder, time};
use jiff::{SignedDuration, Timestamp};

use crate::session::{Session, SessionError, SessionKey};
use crate::settings::{SameSite, SessionSettings};

/// The session key in the value of a `Cookie` header, if there is one that Django would accept.
///
/// Of several cookies of that name the last counts, as in `django.http.cookie.parse_cookie`.
pub fn session_key(cookie_header: &str, settings: &SessionSettings) -> Option<SessionKey> {
    let mut values = cookie_header.split(';').filter_map(|chunk| chunk.split_once('='));
    let (_, value) = values.rfind(|(name, _)| name.trim() == settings.session_cookie_name)?;
    SessionKey::new(value.trim())
}

/// The value of the `Set-Cookie` header that hands the session's key to the browser; `None` if it has no key.
///
/// # Errors
/// When the session's expiry cannot be read.
pub fn set_cookie(
    session: &Session,
    settings: &SessionSettings,
    now: Timestamp,
) -> Result<Option<String>, SessionError> {
    let Some(key) = session.key() else { return Ok(None) };
    let mut cookie = build(key.as_str(), settings);
    if settings.session_cookie_secure {
        cookie = cookie.secure(true);
    }
    if settings.session_cookie_httponly {
        cookie = cookie.http_only(true);
    }
    if !session.expires_at_browser_close(settings)? {
        let max_age = session.expiry_age(settings, now)?;
        let expires =
            now.checked_add(SignedDuration::from_secs(max_age)).map_err(|_| SessionError::Expiry)?;
        let expires =
            OffsetDateTime::from_unix_timestamp(expires.as_second()).map_err(|_| SessionError::Expiry)?;
        cookie = cookie.max_age(time::Duration::seconds(max_age)).expires(expires);
    }
    Ok(Some(cookie.build().to_string()))
}

/// The value of the `Set-Cookie` header that takes the session cookie away: for an emptied session.
pub fn delete_cookie(settings: &SessionSettings) -> String {
    let mut cookie = build("", settings);
    // A browser takes `SameSite=None` only with `Secure`, also from a deletion (`HttpResponse.delete_cookie`).
    if settings.session_cookie_samesite == Some(SameSite::None)
        || settings.session_cookie_name.starts_with("__")
    {
        cookie = cookie.secure(true);
    }
    cookie.max_age(time::Duration::ZERO).expires(OffsetDateTime::UNIX_EPOCH).build().to_string()
}

fn build<'a>(value: &'a str, settings: &'a SessionSettings) -> CookieBuilder<'a> {
    let mut cookie = Cookie::build((settings.session_cookie_name.as_str(), value));
    cookie = cookie.path(settings.session_cookie_path.as_str());
    if let Some(domain) = &settings.session_cookie_domain {
        cookie = cookie.domain(domain.as_str());
    }
    match settings.session_cookie_samesite {
        Some(SameSite::Lax) => cookie.same_site(cookie::SameSite::Lax),
        Some(SameSite::Strict) => cookie.same_site(cookie::SameSite::Strict),
        Some(SameSite::None) => cookie.same_site(cookie::SameSite::None),
        None => cookie,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKeys;
    use crate::session::Expiry;

    fn settings() -> SessionSettings {
        SessionSettings::new(SecretKeys::new("secret"))
    }

    #[test]
    fn reads_the_last_of_that_name() {
        let key = |header| session_key(header, &settings()).map(|key| key.as_str().to_owned());
        assert_eq!(key("a=b; sessionid=12345678").as_deref(), Some("12345678"));
        assert_eq!(key("sessionid=12345678;sessionid=abcdefgh").as_deref(), Some("abcdefgh"));
        assert_eq!(key("sessionid=abcdefgh=; xsessionid=1").as_deref(), Some("abcdefgh="));
        assert_eq!(key("sessionid=short"), None);
        assert_eq!(key("sessionid"), None);
        assert_eq!(key(""), None);
    }

    #[test]
    fn sets_what_the_settings_and_the_session_say() {
        let mut settings = settings();
        settings.session_cookie_secure = true;
        settings.session_cookie_domain = Some("example.com".to_owned());
        settings.session_cookie_samesite = Some(SameSite::Strict);
        let mut session = Session::with_data(SessionKey::new("12345678"), Default::default());
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        session.set_expiry(Some(Expiry::Seconds(60)));
        let header = set_cookie(&session, &settings, now).unwrap().unwrap();
        for part in [
            "sessionid=12345678",
            "Max-Age=60",
            "Expires=Mon, 23 Nov 2026 12:01:00 GMT",
            "Domain=example.com",
            "Secure",
            "HttpOnly",
            "SameSite=Strict",
            "Path=/",
        ] {
            assert!(header.split("; ").any(|found| found == part), "{part} in {header}");
        }
        session.set_expiry(Some(Expiry::BrowserClose));
        let header = set_cookie(&session, &settings, now).unwrap().unwrap();
        assert!(!header.contains("Max-Age") && !header.contains("Expires"), "{header}");
        assert!(delete_cookie(&settings).contains("Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(set_cookie(&Session::new(), &settings, now).unwrap(), None);
    }
}
