//! The session cookie: read from a request, set or deleted with a response, as Django's `SessionMiddleware` does it.
//!
//! ```
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::session::{Data, Session, SessionKey};
//! use django_sessions::settings::Settings;
//! use django_sessions::web::cookies;
//!
//! let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let key = cookies::session_key("theme=dark; sessionid=jf8x0zq3a7k2", &settings).unwrap();
//! let session = Session::with_data(Some(key), Data::new());
//!
//! let header = cookies::set_cookie(&session, &settings, "2026-11-23T12:00:00Z".parse()?)?.unwrap();
//! assert!(header.starts_with("sessionid=jf8x0zq3a7k2; HttpOnly; SameSite=Lax; Path=/; Max-Age=1209600; Expires="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::session::{Session, SessionError, SessionKey};
use crate::settings::{SameSite, Settings};

/// The session key in the value of a `Cookie` header, if there is one that Django would accept.
///
/// Of several cookies of that name the last counts, as in `django.http.cookie.parse_cookie`.
pub fn session_key(cookie_header: &str, settings: &Settings) -> Option<SessionKey> {
    SessionKey::new(get(cookie_header, &settings.session_cookie_name)?)
}

/// The value of the last cookie of this name in a `Cookie` header, as `parse_cookie` reads it.
pub(crate) fn get<'a>(cookie_header: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut values = cookie_header.split(';').filter_map(|chunk| chunk.split_once('='));
    values.rfind(|(found, _)| found.trim() == name).map(|(_, value)| unquote(value.trim()))
}

/// Several `Cookie` headers are one, as WSGI and ASGI servers join them for Django, which reads them as UTF-8.
#[cfg(feature = "_layer")]
pub(crate) fn join<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> String {
    headers.into_iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(";")
}

/// Python's `http.cookies._unquote`: in quotes, a backslash stands before a character or its octal number.
fn unquote(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return Cow::Borrowed(value);
    };
    let mut unquoted = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        unquoted.push_str(before);
        let octal = after.get(..3).filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')));
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                unquoted.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                let mut chars = after.chars();
                // A backslash at the end stands for itself.
                unquoted.push(chars.next().unwrap_or('\\'));
                rest = chars.as_str();
            }
        }
    }
    unquoted.push_str(rest);
    Cow::Owned(unquoted)
}

/// The value of the `Set-Cookie` header that hands the session's key to the browser; `None` if it has no key.
///
/// # Errors
/// When the session's expiry cannot be read.
pub fn set_cookie(
    session: &Session,
    settings: &Settings,
    now: Timestamp,
) -> Result<Option<String>, SessionError> {
    let Some(key) = session.key() else { return Ok(None) };
    let max_age = match session.expires_at_browser_close(settings)? {
        true => None,
        false => Some(session.expiry_age(settings, now)?),
    };
    let attributes = Attributes::of_session(settings);
    attributes.set(key.as_str(), max_age, now).ok_or(SessionError::Expiry).map(Some)
}

/// The value of the `Set-Cookie` header that takes the session cookie away: for an emptied session.
///
/// ```
/// # let settings = django_sessions::settings::Settings::new(django_sessions::crypto::SecretKeys::new("secret"));
/// let header = django_sessions::web::cookies::delete_cookie(&settings);
/// assert!(header.starts_with("sessionid=") && header.contains("Max-Age=0"));
/// ```
pub fn delete_cookie(settings: &Settings) -> String {
    Attributes::of_session(settings).delete()
}

/// What a cookie is besides its value and its age.
pub(crate) struct Attributes<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) domain: Option<&'a str>,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) same_site: Option<SameSite>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of_session(settings: &'a Settings) -> Self {
        Self {
            name: &settings.session_cookie_name,
            path: &settings.session_cookie_path,
            domain: settings.session_cookie_domain.as_deref(),
            secure: settings.session_cookie_secure,
            http_only: settings.session_cookie_httponly,
            same_site: settings.session_cookie_samesite,
        }
    }

    /// `HttpResponse.set_cookie`; `None` if the end lies beyond all calendars.
    pub(crate) fn set(&self, value: &str, max_age: Option<i64>, now: Timestamp) -> Option<String> {
        let mut cookie = self.build(value, self.secure, self.http_only);
        if let Some(max_age) = max_age {
            let expires = now.checked_add(SignedDuration::from_secs(max_age)).ok()?;
            cookie += &format!("; Max-Age={max_age}; Expires={}", http_date(expires));
        }
        Some(cookie)
    }

    /// `HttpResponse.delete_cookie`.
    pub(crate) fn delete(&self) -> String {
        // A browser takes these only with `Secure`, also from a deletion.
        let secure = self.same_site == Some(SameSite::None)
            || ["__Secure-", "__Host-"].iter().any(|prefix| self.name.starts_with(prefix));
        let cookie = self.build("", secure, false);
        format!("{cookie}; Max-Age=0; Expires={}", http_date(Timestamp::UNIX_EPOCH))
    }

    fn build(&self, value: &str, secure: bool, http_only: bool) -> String {
        let mut cookie = format!("{}={}", self.name, quote(value));
        if http_only {
            cookie += "; HttpOnly";
        }
        cookie += match self.same_site {
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::None) => "; SameSite=None",
            None => "",
        };
        if secure {
            cookie += "; Secure";
        }
        if !self.path.is_empty() {
            cookie += &format!("; Path={}", self.path);
        }
        if let Some(domain) = self.domain.filter(|domain| !domain.is_empty()) {
            cookie += &format!("; Domain={domain}");
        }
        cookie
    }
}

fn http_date(time: Timestamp) -> impl fmt::Display {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT")
}

/// Python's `http.cookies._quote`: nothing in a value ends it, or the header.
fn quote(value: &str) -> Cow<'_, str> {
    let is_legal = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:".contains(char);
    if value.chars().all(is_legal) {
        return Cow::Borrowed(value);
    }
    let mut quoted = String::from("\"");
    for char in value.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if is_legal(char) || " ()/<=>?@[]{}".contains(char) => quoted.push(char),
            char if u32::from(char) < 256 => quoted += &format!("\\{:03o}", u32::from(char)),
            char => quoted.push(char),
        }
    }
    Cow::Owned(quoted + "\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKeys;
    use crate::session::{Data, Expiry};

    fn settings() -> Settings {
        Settings::new(SecretKeys::new("secret"))
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
        let mut session = Session::with_data(SessionKey::new("12345678"), Data::new());
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

    /// `HttpResponse.delete_cookie`.
    #[test]
    fn a_deletion_is_secure_where_a_browser_asks_for_it() {
        let mut settings = settings();
        settings.session_cookie_secure = true;
        for (name, same_site, is_secure) in [
            ("__Secure-sessionid", SameSite::Lax, true),
            ("__Host-sessionid", SameSite::Strict, true),
            ("sessionid", SameSite::None, true),
            ("sessionid", SameSite::Lax, false),
            ("__sessionid", SameSite::Lax, false),
            ("__host-sessionid", SameSite::Lax, false),
        ] {
            settings.session_cookie_name = name.to_owned();
            settings.session_cookie_samesite = Some(same_site);
            assert_eq!(delete_cookie(&settings).contains("; Secure"), is_secure, "{name} {same_site:?}");
        }
    }

    /// As `SimpleCookie` of Python 3.13 writes them.
    #[test]
    fn no_value_breaks_out_of_its_header() {
        for (value, quoted) in [
            ("abc.def:g-_", "abc.def:g-_"),
            ("a b", r#""a b""#),
            ("a;b, c", r#""a\073b\054 c""#),
            ("a\r\nSet-Cookie: x=\"y\\", r#""a\015\012Set-Cookie: x=\"y\\""#),
            ("\u{e9}\u{7f}\u{20ac}", "\"\\351\\177\u{20ac}\""),
        ] {
            assert_eq!(quote(value), quoted);
            let read = get(&format!("a={quoted}"), "a").map(Cow::into_owned);
            assert_eq!(read.as_deref(), Some(value), "and it is read back");
        }
    }
}
