//! A request's protection against forgery, whatever framework the request came through: Django's `CsrfViewMiddleware`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::cookies::{self, Attributes};
use super::form::{FormReader, Limits, TooLarge};
use super::session::{Finished, Session};
use crate::backends::StoreError;
use crate::contrib::csrf::{
    CSRF_SESSION_KEY, CsrfRequest, CsrfRules, CsrfSecret, Rejected, check, is_allowed_host, is_safe,
};
use crate::crypto::RandomError;
use crate::settings::Settings;

/// What the check needs to know of the server and of the proxy before it. The defaults are for a server without either
/// TLS or a proxy.
///
/// Names of headers are those of HTTP, or Django's of `request.META`: `X-Forwarded-Proto` or `HTTP_X_FORWARDED_PROTO`.
///
/// ```
/// use django_sessions::web::CsrfOptions;
///
/// let mut options = CsrfOptions::default();
/// options.allowed_hosts = Some(vec![".shop.example".to_owned()]);
/// options.secure_proxy_ssl_header = Some(("X-Forwarded-Proto".to_owned(), "https".to_owned()));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CsrfOptions {
    /// `ALLOWED_HOSTS`; none, for any host of good form.
    pub allowed_hosts: Option<Vec<String>>,
    /// `SECURE_PROXY_SSL_HEADER`: the header by which a proxy says that a request came over HTTPS, and its value then.
    pub secure_proxy_ssl_header: Option<(String, String)>,
    /// `USE_X_FORWARDED_HOST`: no.
    pub use_x_forwarded_host: bool,
    /// `USE_X_FORWARDED_PORT`: no.
    pub use_x_forwarded_port: bool,
    /// The port that this server is reached by (`SERVER_PORT`); none, for that of the header `Host`. It matters only
    /// together with a cookie domain.
    pub server_port: Option<u16>,
    /// Whether this server speaks TLS itself.
    pub is_tls: bool,
    /// Whether requests are let through unchecked (`csrf_exempt`), with a [`Csrf`] nevertheless.
    pub exempt: bool,
    /// `DATA_UPLOAD_MAX_MEMORY_SIZE`: 2.5 MiB. Larger forms are refused with 400. Of a multipart form, which may carry
    /// files, no more is read for its token, and the rest is let through.
    pub data_upload_max_memory_size: usize,
    /// `DATA_UPLOAD_MAX_NUMBER_FIELDS`: 1000, or none for any number.
    pub data_upload_max_number_fields: Option<usize>,
}

impl Default for CsrfOptions {
    fn default() -> Self {
        Self {
            allowed_hosts: None,
            secure_proxy_ssl_header: None,
            use_x_forwarded_host: false,
            use_x_forwarded_port: false,
            server_port: None,
            is_tls: false,
            exempt: false,
            data_upload_max_memory_size: 2_621_440,
            data_upload_max_number_fields: Some(1000),
        }
    }
}

/// What a site's requests share.
#[derive(Debug)]
pub(crate) struct CsrfSite {
    settings: Arc<Settings>,
    rules: CsrfRules,
    options: CsrfOptions,
}

/// What is read of a request before its body.
pub(crate) struct Head {
    method: String,
    path: String,
    is_secure: bool,
    host: Option<String>,
    port: Option<u16>,
    origin: Option<String>,
    referer: Option<String>,
    header_token: Option<String>,
    content_type: Option<String>,
    /// As it is said in advance; 0 if it is not.
    pub(crate) content_length: u64,
}

/// What the parts of a request's URL are, apart from headers.
pub(crate) struct Target<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) authority: Option<&'a str>,
    pub(crate) is_https: bool,
}

/// The answer in place of the handler's.
#[derive(Debug)]
pub(crate) enum Refusal {
    Forged(Rejected),
    TooLarge,
}

impl Refusal {
    /// Status and text. Django's page says no more either.
    pub(crate) fn answer(&self) -> (u16, &'static str) {
        match self {
            Self::Forged(_) => (403, "CSRF verification failed. Request aborted."),
            Self::TooLarge => (400, "The form is too large."),
        }
    }
}

impl From<TooLarge> for Refusal {
    fn from(_: TooLarge) -> Self {
        tracing::error!(
            target: "django.security.RequestDataTooBig",
            status_code = 400,
            "Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE, or its form DATA_UPLOAD_MAX_NUMBER_FIELDS."
        );
        Self::TooLarge
    }
}

impl CsrfSite {
    pub(crate) fn new(settings: Arc<Settings>, options: CsrfOptions) -> Self {
        let csrf = &settings.csrf;
        let cookie_domain =
            if csrf.use_sessions { &settings.session_cookie_domain } else { &csrf.cookie_domain };
        let rules = CsrfRules {
            trusted_origins: csrf.trusted_origins.clone(),
            cookie_domain: cookie_domain.clone(),
            header_name: format!(
                "HTTP_{}",
                http_name(&csrf.header_name).to_ascii_uppercase().replace('-', "_")
            ),
        };
        Self { settings, rules, options }
    }

    /// `header` gives the values of all headers of a name, joined by commas, as WSGI servers join them.
    pub(crate) fn head(&self, target: Target<'_>, header: impl Fn(&str) -> Option<String>) -> Head {
        let options = &self.options;
        let is_secure = self.is_secure(&target, &header);
        let forwarded_host = options.use_x_forwarded_host.then(|| header("X-Forwarded-Host")).flatten();
        let host = forwarded_host.or_else(|| header("Host")).or_else(|| target.authority.map(str::to_owned));
        let own_port = || match options.server_port {
            Some(port) => Some(port),
            None => Some(port_of(host.as_deref()?).unwrap_or(if is_secure { 443 } else { 80 })),
        };
        let port = match options.use_x_forwarded_port.then(|| header("X-Forwarded-Port")).flatten() {
            // No port of that name: nothing matches it.
            Some(port) => Some(port.trim().parse().unwrap_or(0)),
            None => own_port(),
        };
        Head {
            method: target.method.to_owned(),
            path: percent_decode_str(target.path).decode_utf8_lossy().into_owned(),
            is_secure,
            port,
            origin: header("Origin"),
            referer: header("Referer"),
            header_token: header(&http_name(&self.rules.header_name)),
            content_type: header("Content-Type"),
            content_length: header("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0),
            host: host.filter(|host| is_allowed_host(host, options.allowed_hosts.as_deref())),
        }
    }

    fn is_secure(&self, target: &Target<'_>, header: &impl Fn(&str) -> Option<String>) -> bool {
        let by_proxy = self.options.secure_proxy_ssl_header.as_ref().and_then(|(name, value)| {
            let found = header(&http_name(name))?;
            Some(found.split(',').next().is_some_and(|first| first.trim() == value))
        });
        by_proxy.unwrap_or(self.options.is_tls || target.is_https)
    }

    fn check(&self, head: &Head, secret: Option<&str>, form_token: Option<&str>) -> Result<(), Rejected> {
        let request = CsrfRequest {
            method: &head.method,
            is_secure: head.is_secure,
            host: head.host.as_deref(),
            port: head.port,
            origin: head.origin.as_deref(),
            referer: head.referer.as_deref(),
            form_token,
            header_token: head.header_token.as_deref(),
        };
        check(&request, secret, &self.rules)
    }

    fn attributes(&self) -> Attributes<'_> {
        let csrf = &self.settings.csrf;
        Attributes {
            name: &csrf.cookie_name,
            path: &csrf.cookie_path,
            domain: csrf.cookie_domain.as_deref(),
            secure: csrf.cookie_secure,
            http_only: csrf.cookie_httponly,
            same_site: csrf.cookie_samesite,
        }
    }
}

/// `X-FORWARDED-PROTO` for `HTTP_X_FORWARDED_PROTO`.
fn http_name(name: &str) -> String {
    name.strip_prefix("HTTP_").unwrap_or(name).replace('_', "-")
}

fn port_of(host: &str) -> Option<u16> {
    let (_, port) = host.rsplit_once(':')?;
    port.parse().ok()
}

/// A request's CSRF secret, for tokens that go into its page, and for logins.
///
/// Take it in a handler, inside of [`CsrfLayer`](https://docs.rs/django-sessions/latest/django_sessions/web/tower/struct.CsrfLayer.html)
/// or `actix::CsrfMiddleware`. Cheap to clone; clones are the same secret.
///
/// ```
/// use django_sessions::backends::StoreError;
/// use django_sessions::web::Csrf;
///
/// async fn form(csrf: Csrf) -> Result<String, StoreError> {
///     let token = csrf.token()?; // for a form's field `csrfmiddlewaretoken`, or for scripts
///     Ok(format!(r#"<form method="post"><input type="hidden" name="csrfmiddlewaretoken" value="{token}">"#))
/// }
///
/// async fn log_in(csrf: Csrf) -> Result<(), StoreError> {
///     // After the password was found to be right:
///     csrf.rotate()?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Csrf(Arc<Inner>);

struct Inner {
    site: Arc<CsrfSite>,
    /// Of which a login may rotate the secret.
    session: Option<Session>,
    /// What the browser brought, good or not.
    brought: Option<String>,
    /// Whether a layer around this one has checked the request (`csrf_processing_done`).
    is_checked: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secret: Option<CsrfSecret>,
    /// Whether the browser is to get it (`CSRF_COOKIE_NEEDS_UPDATE`).
    needs_update: bool,
}

impl State {
    fn renew(&mut self) -> Result<(), RandomError> {
        self.secret = Some(CsrfSecret::random()?);
        self.needs_update = true;
        Ok(())
    }
}

impl Csrf {
    /// `CsrfViewMiddleware.process_request`: reads the secret that the browser has.
    pub(crate) async fn begin(
        site: &Arc<CsrfSite>,
        cookie_header: &str,
        session: Option<&Session>,
    ) -> Result<Self, StoreError> {
        let settings = &site.settings;
        let mut state = State::default();
        let brought = match settings.csrf.use_sessions {
            true => session.ok_or(StoreError::NoSession)?.get::<String>(CSRF_SESSION_KEY).await?,
            false => cookies::get(cookie_header, &settings.csrf.cookie_name).map(|value| value.into_owned()),
        };
        match brought.as_deref().map(CsrfSecret::parse) {
            None => {}
            Some(Ok(secret)) => state.secret = Some(secret),
            // Nobody writes that into a session but the site itself: the next token makes a good one.
            Some(Err(_)) if settings.csrf.use_sessions => {}
            Some(Err(_)) => state.renew()?,
        }
        let is_checked = AtomicBool::new(false);
        let (site, session, state) = (site.clone(), session.cloned(), Mutex::new(state));
        Ok(Self(Arc::new(Inner { site, session, brought, is_checked, state })))
    }

    /// A token for a form, a header or a page, which Django accepts back (`django.middleware.csrf.get_token`). With the
    /// response the browser gets the cookie, new or for another year.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn token(&self) -> Result<String, RandomError> {
        let mut state = self.state();
        if state.secret.is_none() {
            state.renew()?;
        }
        state.needs_update = true;
        state.secret.as_ref().map_or_else(|| Ok(String::new()), CsrfSecret::token)
    }

    /// Gives the browser a new secret, as at every login (`rotate_token`).
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn rotate(&self) -> Result<(), RandomError> {
        self.state().renew()
    }

    /// What the headers say: nothing more to ask, or a form that must be read first.
    pub(crate) fn before_body(&self, site: &CsrfSite, head: &Head) -> Result<Option<FormReader>, Refusal> {
        if site.options.exempt || self.0.is_checked.swap(true, Ordering::Relaxed) || is_safe(&head.method) {
            return Ok(None);
        }
        let limits = Limits {
            bytes: site.options.data_upload_max_memory_size,
            fields: site.options.data_upload_max_number_fields,
        };
        let form = head.content_type.as_deref().filter(|_| head.method == "POST");
        let form = form.and_then(|kind| FormReader::new(kind, limits));
        match site.check(head, self.0.brought.as_deref(), None) {
            Ok(()) | Err(Rejected::NoToken | Rejected::Token(..) | Rejected::Incorrect(_))
                if form.is_some() =>
            {
                Ok(form)
            }
            Ok(()) => Ok(None),
            Err(rejected) => Err(refuse(head, rejected)),
        }
    }

    /// What the token of a form says.
    pub(crate) fn after_body(
        &self,
        site: &CsrfSite,
        head: &Head,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        site.check(head, self.0.brought.as_deref(), token).map_err(|rejected| refuse(head, rejected))
    }

    /// `CsrfViewMiddleware.process_response`.
    pub(crate) async fn finish(&self, session: Option<&Session>) -> Result<Finished, StoreError> {
        let site = &self.0.site;
        let secret = {
            let mut state = self.state();
            let needs_update = std::mem::take(&mut state.needs_update);
            state.secret.clone().filter(|_| needs_update)
        };
        let Some(secret) = secret else { return Ok(Finished::default()) };
        if !site.settings.csrf.use_sessions {
            let age = site.settings.csrf.cookie_age;
            let cookie = site.attributes().set(secret.expose(), age, Timestamp::now());
            return Finished::with_cookie(cookie.ok_or(StoreError::Cookie)?, true);
        }
        let mut session = session.ok_or(StoreError::NoSession)?.lock_at_end().await?;
        if session.get::<String>(CSRF_SESSION_KEY)?.as_deref() != Some(secret.expose()) {
            session.insert(CSRF_SESSION_KEY, secret.expose())?;
        }
        Ok(Finished::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is whole at any time.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = self.0.session.as_ref().and_then(Session::take_csrf_secret) {
            *state = State { secret: Some(secret), needs_update: true };
        }
        state
    }
}

impl fmt::Debug for Csrf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Csrf(..)")
    }
}

/// Django's log record of a refusal.
fn refuse(head: &Head, rejected: Rejected) -> Refusal {
    let (reason, path) = (escaped(&rejected.to_string()), escaped(&head.path));
    tracing::warn!(target: "django.security.csrf", status_code = 403, "Forbidden ({reason}): {path}");
    Refusal::Forged(rejected)
}

/// A visitor's text on one line of a log, as Django writes it (Python's `unicode_escape`).
fn escaped(text: &str) -> String {
    let escape = |char: char| match (char, u32::from(char)) {
        ('\\' | '\t' | '\n' | '\r', _) => char.escape_default().to_string(),
        (' '..='~', _) => char.to_string(),
        (_, code @ ..0x100) => format!("\\x{code:02x}"),
        (_, code @ ..0x1_0000) => format!("\\u{code:04x}"),
        (_, code) => format!("\\U{code:08x}"),
    };
    text.chars().map(escape).collect()
}
