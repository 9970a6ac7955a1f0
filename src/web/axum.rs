//! Sessions as axum extractors (feature `axum`).
//!
//! Put [`SessionLayer`](super::tower::SessionLayer) around the router, and take a [`Session`] in a handler; an example
//! is at [`web::tower`](super::tower).

#[cfg(feature = "_sql")]
mod auth;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::{Csrf, Messages, Session};
use crate::backends::StoreError;
use crate::session::SessionKey;

/// Why there is no session: the [`SessionLayer`](super::tower::SessionLayer) is missing. The response is 500.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no session: put django_sessions::web::tower::SessionLayer around this router")]
pub struct MissingLayer;

impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, MissingLayer> {
        parts.extensions.get::<Self>().cloned().ok_or(MissingLayer)
    }
}

/// Why there is no [`Csrf`] or no [`Messages`]: its layer is missing. The response is 500.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("put django_sessions::web::tower::{0} around this router")]
pub struct LayerNotFound(&'static str);

impl IntoResponse for LayerNotFound {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Csrf {
    type Rejection = LayerNotFound;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, LayerNotFound> {
        parts.extensions.get::<Self>().cloned().ok_or(LayerNotFound("CsrfLayer"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Messages {
    type Rejection = LayerNotFound;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, LayerNotFound> {
        parts.extensions.get::<Self>().cloned().ok_or(LayerNotFound("MessagesLayer"))
    }
}

/// The session key that the request brought, if any; nothing is read from the store for it.
///
/// ```
/// use django_sessions::web::axum::SessionCookie;
///
/// async fn is_known(SessionCookie(key): SessionCookie) -> &'static str {
///     if key.is_some() { "welcome back" } else { "welcome" }
/// }
/// # axum::Router::<()>::new().route("/", axum::routing::get(is_known));
/// ```
#[derive(Clone, Debug)]
pub struct SessionCookie(pub Option<SessionKey>);

impl<S: Send + Sync> FromRequestParts<S> for SessionCookie {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MissingLayer> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(Self(session.key().await))
    }
}

/// A handler may return it: 400 for a session that somebody else ended meanwhile, 500 for all else, and the log says
/// what it was.
impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        let (status, text) = super::failure(&self);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, text).into_response()
    }
}
