//! Who is calling: what Django's `AuthenticationMiddleware` finds out. The session itself is the layer's affair.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use django_sessions::backends::StoreError;
use django_sessions::web::{Auth, Session, SessionGuard};
use jiff::Timestamp;
use serde::de::IgnoredAny;

use crate::{Shop, pages};

/// What the pages show of a user; each field but the first is a column of Django's table.
#[derive(sqlx::FromRow)]
pub(crate) struct Account {
    /// Integers are of another size in each database, so the crate's text of it.
    #[sqlx(skip)]
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
}

/// A request's session and the user whom it logs in.
pub(crate) struct Visitor {
    pub(crate) session: SessionGuard,
    pub(crate) user: Option<Account>,
    /// Their session was good once, but the password changed since.
    pub(crate) was_refused: bool,
    /// Where both servers are, under the host name that the browser used.
    pub(crate) django_url: String,
    pub(crate) rust_url: String,
    /// The day on which the session ends.
    pub(crate) stays_until: String,
}

impl FromRequestParts<Shop> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Problem> {
        let session = Session::from_request_parts(parts, shop).await.expect("the router has a SessionLayer");
        let auth = Auth::from_request_parts(parts, shop).await.expect("the SessionLayer has users");
        let had_key = session.key().await.is_some();
        let user = match auth.user().await? {
            Some(user) => {
                let account: Option<Account> = auth.users().fetch_as(&user).await?;
                account.map(|account| Account { id: user.id.to_string(), ..account })
            }
            None => None,
        };
        let session = session.lock().await?;

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

    /// Lets go of the session, which the layer then saves if it was changed.
    pub(crate) fn respond(self, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        response
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
        let error: StoreError = error.into();
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "That did not work.", "The log of the service says why.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, pages::problem(self.heading, self.advice)).into_response()
    }
}
