//! The session cookie as an axum extractor (feature `axum`).

use std::convert::Infallible;
use std::sync::Arc;

use axum_core::extract::{FromRef, FromRequestParts};
use http::header::COOKIE;
use http::request::Parts;

use super::cookies;
use crate::session::SessionKey;
use crate::settings::SessionSettings;

/// The session key that the request brought, if any. Needs `Arc<SessionSettings>` in the router's state.
///
/// ```
/// use django_sessions::web::axum::SessionCookie;
///
/// async fn handler(SessionCookie(key): SessionCookie) -> &'static str {
///     if key.is_some() { "welcome back" } else { "welcome" }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SessionCookie(pub Option<SessionKey>);

impl<S> FromRequestParts<S> for SessionCookie
where
    S: Send + Sync,
    Arc<SessionSettings>: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let settings = Arc::<SessionSettings>::from_ref(state);
        // Several `Cookie` headers are one, as WSGI and ASGI servers join them for Django.
        let headers: Vec<_> =
            parts.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).collect();
        Ok(Self(cookies::session_key(&headers.join(";"), &settings)))
    }
}
