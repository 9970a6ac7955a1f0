//! Protection against forged requests, `django.middleware.csrf`.
//!
//! A browser holds a secret, in a cookie or in its session (`CSRF_USE_SESSIONS`), and each form or script sends it back
//! in another way, which only pages of this site can do. [`CsrfSecret`] is that secret, [`CsrfSecret::token`] what a
//! form carries, and [`check`] Django's decision, with Django's words for a refusal.
//!
//! ```
//! use django_sessions::contrib::csrf::{CsrfRequest, CsrfRules, CsrfSecret, check};
//!
//! let secret = CsrfSecret::random()?;
//! let token = secret.token()?; // goes into a form; it looks different each time
//!
//! let request = CsrfRequest {
//!     method: "POST",
//!     host: Some("shop.example"),
//!     origin: Some("http://shop.example"),
//!     form_token: Some(&token),
//!     ..CsrfRequest::default()
//! };
//! let cookie = secret.expose();
//! assert!(check(&request, Some(cookie), &CsrfRules::default()).is_ok());
//!
//! let forged = CsrfRequest { origin: Some("http://evil.example"), ..request };
//! let refused = check(&forged, Some(cookie), &CsrfRules::default()).unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "Origin checking failed - http://evil.example does not match any trusted origins."
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod url;

use std::fmt;

use self::url::{SplitUrl, is_same_domain};
use crate::crypto::{RandomError, constant_time_compare, get_random_string};

/// Session value that holds the secret when `CSRF_USE_SESSIONS` is on.
pub const CSRF_SESSION_KEY: &str = "_csrftoken";

/// Name of the form field that Django's `{% csrf_token %}` writes.
pub const CSRF_FORM_FIELD: &str = "csrfmiddlewaretoken";

/// Characters of a secret; a masked token has twice as many.
const CSRF_SECRET_LENGTH: usize = 32;
const CSRF_TOKEN_LENGTH: usize = 2 * CSRF_SECRET_LENGTH;
/// Their order is part of the mask.
const CSRF_ALLOWED_CHARS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A browser's secret. `Debug` does not show it.
///
/// ```
/// use django_sessions::contrib::csrf::CsrfSecret;
///
/// let secret = CsrfSecret::random()?;
/// let (one, another) = (secret.token()?, secret.token()?);
/// assert_ne!(one, another, "each has a mask of its own");
/// assert!(secret.matches(&one)? && secret.matches(&another)?);
/// assert!(CsrfSecret::parse("too short").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CsrfSecret(String);

impl CsrfSecret {
    /// A new one, for a browser without, and for everybody who logs in (`rotate_token`).
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn random() -> Result<Self, RandomError> {
        get_random_string(CSRF_SECRET_LENGTH, CSRF_ALLOWED_CHARS).map(Self)
    }

    /// The secret in a cookie, or in a session, where Django before 4.0 left it masked.
    ///
    /// # Errors
    /// [`TokenFormat`] when it is neither a secret nor a masked one. Django then makes a new one for the response, and
    /// refuses what needs a check.
    pub fn parse(text: &str) -> Result<Self, TokenFormat> {
        check_token_format(text)?;
        Ok(Self(unmasked(text)))
    }

    /// The secret itself, for the cookie or the session.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A token for a form, a header or a page (`django.middleware.csrf.get_token`): the secret under a new mask, so that
    /// compressed pages do not give it away (BREACH). Django accepts it back.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn token(&self) -> Result<String, RandomError> {
        let mask = get_random_string(CSRF_SECRET_LENGTH, CSRF_ALLOWED_CHARS)?;
        let cipher = combine(&self.0, &mask, |secret, mask| secret + mask);
        Ok(mask + &cipher)
    }

    /// Whether `token`, masked or not, is of this secret; in constant time.
    ///
    /// # Errors
    /// [`TokenFormat`] when it is no token at all.
    pub fn matches(&self, token: &str) -> Result<bool, TokenFormat> {
        check_token_format(token)?;
        Ok(constant_time_compare(unmasked(token).as_bytes(), self.0.as_bytes()))
    }
}

impl fmt::Debug for CsrfSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfSecret(..)")
    }
}

/// Why a text is neither a secret nor a token. The words follow "CSRF cookie" or "CSRF token from ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFormat {
    /// Neither 32 nor 64 characters.
    #[error("has incorrect length")]
    Length,
    /// Something else than letters and digits of ASCII.
    #[error("has invalid characters")]
    Characters,
}

fn check_token_format(token: &str) -> Result<(), TokenFormat> {
    if !matches!(token.chars().count(), CSRF_SECRET_LENGTH | CSRF_TOKEN_LENGTH) {
        return Err(TokenFormat::Length);
    }
    if !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TokenFormat::Characters);
    }
    Ok(())
}

/// The secret in a token of good format.
fn unmasked(token: &str) -> String {
    match token.split_at_checked(CSRF_SECRET_LENGTH) {
        Some((mask, cipher)) if !cipher.is_empty() => {
            combine(cipher, mask, |cipher, mask| cipher + CSRF_ALLOWED_CHARS.len() - mask)
        }
        _ => token.to_owned(),
    }
}

/// Combines two texts of the alphabet character by character, by their places in it.
fn combine(text: &str, mask: &str, place: impl Fn(usize, usize) -> usize) -> String {
    let chars = CSRF_ALLOWED_CHARS.as_bytes();
    let index = |byte: u8| chars.iter().position(|char| *char == byte).unwrap_or_default();
    let combined =
        text.bytes().zip(mask.bytes()).map(|(a, b)| chars[place(index(a), index(b)) % chars.len()]);
    combined.map(char::from).collect()
}

/// What the check reads of Django's settings. The defaults are Django's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrfRules {
    /// `CSRF_TRUSTED_ORIGINS`, such as `https://pay.example` and `https://*.shop.example`.
    pub trusted_origins: Vec<String>,
    /// `CSRF_COOKIE_DOMAIN`, or with `CSRF_USE_SESSIONS` `SESSION_COOKIE_DOMAIN`.
    pub cookie_domain: Option<String>,
    /// `CSRF_HEADER_NAME`, as Django writes it: `HTTP_X_CSRFTOKEN`.
    pub header_name: String,
}

impl Default for CsrfRules {
    fn default() -> Self {
        Self { trusted_origins: Vec::new(), cookie_domain: None, header_name: "HTTP_X_CSRFTOKEN".to_owned() }
    }
}

impl CsrfRules {
    /// The name of the header as HTTP writes it: `X-Csrftoken` for `HTTP_X_CSRFTOKEN`.
    pub fn header(&self) -> String {
        let name = self.header_name.strip_prefix("HTTP_").unwrap_or(&self.header_name);
        let words = name.split('_').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
        });
        words.collect::<Vec<_>>().join("-")
    }
}

/// What the check reads of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct CsrfRequest<'a> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// Whether it came over HTTPS, as `SECURE_PROXY_SSL_HEADER` says behind a proxy.
    pub is_secure: bool,
    /// The host with its port, as `HttpRequest.get_host`; `None` when `ALLOWED_HOSTS` does not allow it.
    pub host: Option<&'a str>,
    /// The port, as `HttpRequest.get_port`; only looked at together with a cookie domain.
    pub port: Option<u16>,
    /// The header `Origin`.
    pub origin: Option<&'a str>,
    /// The header `Referer`.
    pub referer: Option<&'a str>,
    /// The field [`CSRF_FORM_FIELD`] of a `POST` form.
    pub form_token: Option<&'a str>,
    /// The header [`CsrfRules::header`].
    pub header_token: Option<&'a str>,
}

/// Why a request is refused; the text is Django's reason, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// `Origin` is neither this site nor a trusted one.
    #[error("Origin checking failed - {0} does not match any trusted origins.")]
    BadOrigin(String),
    /// Over HTTPS there is neither `Origin` nor `Referer`.
    #[error("Referer checking failed - no Referer.")]
    NoReferer,
    /// `Referer` is neither this site nor a trusted one.
    #[error("Referer checking failed - {0} does not match any trusted origins.")]
    BadReferer(String),
    /// `Referer` is no URL.
    #[error("Referer checking failed - Referer is malformed.")]
    MalformedReferer,
    /// `Referer` is not HTTPS, and the request is.
    #[error("Referer checking failed - Referer is insecure while host is secure.")]
    InsecureReferer,
    /// The browser has no secret.
    #[error("CSRF cookie not set.")]
    NoCookie,
    /// The secret of the browser is none.
    #[error("CSRF cookie {0}.")]
    Cookie(TokenFormat),
    /// Neither form nor header brought a token.
    #[error("CSRF token missing.")]
    NoToken,
    /// The token is none.
    #[error("CSRF token from {0} {1}.")]
    Token(TokenSource, TokenFormat),
    /// The token is of another secret.
    #[error("CSRF token from {0} incorrect.")]
    Incorrect(TokenSource),
}

/// Where a token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// A form's field.
    Post,
    /// The header of this name.
    Header(String),
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Post => f.write_str("POST"),
            Self::Header(name) => write!(f, "the '{name}' HTTP header"),
        }
    }
}

/// Whether Django would let the request through. `secret` is what the browser's cookie, or its session, holds.
///
/// # Errors
/// [`Rejected`] with Django's reason; answer with 403.
pub fn check(request: &CsrfRequest<'_>, secret: Option<&str>, rules: &CsrfRules) -> Result<(), Rejected> {
    if is_safe(request.method) {
        return Ok(());
    }
    match request.origin {
        Some(origin) if !is_origin_verified(origin, request, rules) => {
            return Err(Rejected::BadOrigin(origin.to_owned()));
        }
        Some(_) => {}
        // A page of the plain-HTTP site could be anybody's in between: over HTTPS something must name the origin.
        None if request.is_secure => check_referer(request, rules)?,
        None => {}
    }
    check_token(request, secret, rules)
}

/// Whether requests of this method need no check, as RFC 9110 has it.
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Whether a `Host` is one that `ALLOWED_HOSTS` allows (`HttpRequest.get_host`); without any, whether it has the form of
/// one.
///
/// ```
/// use django_sessions::contrib::csrf::is_allowed_host;
///
/// let allowed = [".shop.example".to_owned()];
/// assert!(is_allowed_host("www.shop.example:8000", Some(&allowed)));
/// assert!(!is_allowed_host("evil.example", Some(&allowed)));
/// assert!(is_allowed_host("evil.example", None) && !is_allowed_host("evil.example/", None));
/// ```
pub fn is_allowed_host(host: &str, allowed_hosts: Option<&[String]>) -> bool {
    let host = host.to_lowercase();
    let (domain, port) = match host.rsplit_once(':') {
        Some((domain, port)) if !host.ends_with(']') => (domain, Some(port)),
        _ => (&*host, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let among = |text: &str, others: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || others.contains(char))
    };
    let has_form = match domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']')) {
        Some(address) => {
            let is_hex = |byte: u8| matches!(byte, b'a'..=b'f' | b'0'..=b'9');
            address.split_once(':').is_some_and(|(first, rest)| {
                first.bytes().all(is_hex)
                    && !rest.is_empty()
                    && rest.bytes().all(|byte| is_hex(byte) || matches!(byte, b':' | b'.'))
            })
        }
        None => among(domain, ".-"),
    };
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let is_allowed = |pattern: &String| pattern == "*" || is_same_domain(domain, pattern);
    has_form
        && !domain.is_empty()
        && port.is_none_or(digits)
        && allowed_hosts.is_none_or(|allowed| allowed.iter().any(is_allowed))
}

fn is_origin_verified(origin: &str, request: &CsrfRequest<'_>, rules: &CsrfRules) -> bool {
    let scheme = if request.is_secure { "https" } else { "http" };
    if request.host.is_some_and(|host| origin == format!("{scheme}://{host}")) {
        return true;
    }
    let (patterns, exact): (Vec<&String>, Vec<&String>) =
        rules.trusted_origins.iter().partition(|trusted| trusted.contains('*'));
    if exact.iter().any(|trusted| *trusted == origin) {
        return true;
    }
    let Some(origin) = SplitUrl::new(origin) else { return false };
    patterns.iter().filter_map(|pattern| SplitUrl::new(pattern)).any(|pattern| {
        pattern.scheme == origin.scheme
            && is_same_domain(&origin.netloc, pattern.netloc.trim_start_matches('*'))
    })
}

fn check_referer(request: &CsrfRequest<'_>, rules: &CsrfRules) -> Result<(), Rejected> {
    let referer = request.referer.ok_or(Rejected::NoReferer)?;
    let referer = SplitUrl::new(referer).ok_or(Rejected::MalformedReferer)?;
    if referer.scheme.is_empty() || referer.netloc.is_empty() {
        return Err(Rejected::MalformedReferer);
    }
    if referer.scheme != "https" {
        return Err(Rejected::InsecureReferer);
    }
    let mut trusted = rules.trusted_origins.iter().filter_map(|trusted| SplitUrl::new(trusted));
    if trusted.any(|trusted| is_same_domain(&referer.netloc, trusted.netloc.trim_start_matches('*'))) {
        return Ok(());
    }
    let good = match (&rules.cookie_domain, request.port) {
        (None, _) => request.host.map(str::to_owned),
        (Some(domain), Some(port)) if !matches!(port, 80 | 443) => Some(format!("{domain}:{port}")),
        (Some(domain), _) => Some(domain.clone()),
    };
    match good {
        Some(good) if is_same_domain(&referer.netloc, &good) => Ok(()),
        _ => Err(Rejected::BadReferer(referer.to_string())),
    }
}

fn check_token(request: &CsrfRequest<'_>, secret: Option<&str>, rules: &CsrfRules) -> Result<(), Rejected> {
    let secret = secret.ok_or(Rejected::NoCookie)?;
    let secret = CsrfSecret::parse(secret).map_err(Rejected::Cookie)?;
    let in_form = request.form_token.filter(|token| request.method == "POST" && !token.is_empty());
    let (token, source) = match in_form {
        Some(token) => (token, TokenSource::Post),
        None => (request.header_token.ok_or(Rejected::NoToken)?, TokenSource::Header(rules.header())),
    };
    match secret.matches(token) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Rejected::Incorrect(source)),
        Err(format) => Err(Rejected::Token(source, format)),
    }
}
