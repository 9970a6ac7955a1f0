//! Who is calling, and what becomes of their session: what Django's `SessionMiddleware` and
//! `AuthenticationMiddleware` do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::contrib::auth::User;
use django_sessions::session::Session;
use django_sessions::web::axum::SessionCookie;
use django_sessions::web::cookies;
use jiff::Timestamp;
use serde::de::IgnoredAny;

use crate::{Shop, pages};

/// A request's session and the user whom it logs in.
pub(crate) struct Visitor {
    pub(crate) session: Session,
    pub(crate) user: Option<User>,
    /// Their session was good once, but the password changed since.
    pub(crate) was_refused: bool,
    /// Where both servers are, under the host name that the browser used.
    pub(crate) django_url: String,
    pub(crate) rust_url: String,
    /// The day on which the session ends.
    pub(crate) stays_until: String,
    sent_cookie: bool,
}

impl FromRequestParts<Shop> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Problem> {
        let Ok(SessionCookie(key)) = SessionCookie::from_request_parts(parts, shop).await;
        let mut session = match key {
            Some(key) => shop.store.load_or_empty(&key).await?,
            None => Session::new(),
        };
        let had_key = session.key().is_some();
        let user = shop.users.get_user(&shop.store, &mut session).await?;

        let host = text(&parts.headers, header::HOST);
        let hostname = host.split(':').next().unwrap_or_default();
        let ends = session.expiry_date(&shop.settings, Timestamp::now())?;
        Ok(Self {
            stays_until: ends.strftime("%-d %B %Y").to_string(),
            was_refused: had_key && session.is_empty(),
            session,
            user,
            django_url: format!("http://{hostname}:{}", shop.django_port),
            rust_url: format!("http://{host}"),
            sent_cookie: text(&parts.headers, header::COOKIE).contains(&shop.settings.session_cookie_name),
        })
    }
}

impl Visitor {
    pub(crate) fn must_be_logged_in(&self) -> Result<(), Problem> {
        match self.user {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "Nobody is logged in.",
                "Log in on Django, then try again.",
            )),
        }
    }

    /// Enough of the session key to compare two pages, too little to be of use to whoever looks on.
    pub(crate) fn short_session_key(&self) -> String {
        let key: Vec<char> = self.session.key().map(|key| key.as_str().chars().collect()).unwrap_or_default();
        let shown = |part: &[char]| part.iter().collect::<String>();
        format!("{}…{}", shown(&key[..key.len().min(4)]), shown(&key[key.len().saturating_sub(4)..]))
    }

    pub(crate) fn cart_size(&self) -> usize {
        self.session.get::<Vec<IgnoredAny>>("cart").ok().flatten().map_or(0, |cart| cart.len())
    }

    /// Saves the session if it was changed, and sends its cookie along.
    pub(crate) async fn respond(
        mut self,
        shop: &Shop,
        response: impl IntoResponse,
    ) -> Result<Response, Problem> {
        let settings = &shop.settings;
        let mut response = response.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("Cookie"));

        let cookie = if self.session.is_empty() {
            self.sent_cookie.then(|| cookies::delete_cookie(settings))
        } else if self.session.modified() {
            shop.store.save(&mut self.session).await?;
            cookies::set_cookie(&self.session, settings, Timestamp::now()).map_err(StoreError::from)?
        } else {
            None
        };
        if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
            headers.insert(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }
}

/// A header as text; nothing if it is missing or not ASCII.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A page that says what went wrong.
pub(crate) struct Problem {
    status: StatusCode,
    heading: &'static str,
    advice: &'static str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, heading: &'static str, advice: &'static str) -> Self {
        Self { status, heading, advice }
    }
}

/// Sessions, their stores and randomness fail with errors that all become a [`StoreError`].
impl<E: Into<StoreError>> From<E> for Problem {
    fn from(error: E) -> Self {
        match error.into() {
            // Django's SessionInterrupted.
            StoreError::Deleted => Self::new(
                StatusCode::BAD_REQUEST,
                "Your session has ended.",
                "It was deleted while this request was under way, perhaps by a logout in another tab. Nothing was saved.",
            ),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "That did not work.",
                    "The log of the service says why.",
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, pages::problem(self.heading, self.advice)).into_response()
    }
}
