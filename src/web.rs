//! Sessions in web services: `request.session` for axum and every other service of tower, and for actix-web.

#[cfg(all(feature = "_layer", feature = "_sql"))]
mod auth;
pub mod cookies;
#[cfg(feature = "_layer")]
mod csrf;
#[cfg(feature = "_layer")]
mod form;
#[cfg(feature = "_layer")]
mod messages;
#[cfg(feature = "_layer")]
mod session;

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(all(feature = "_layer", feature = "_sql"))]
pub use auth::{Auth, LoginRequired, Refusal, RequireUser};
#[cfg(feature = "_layer")]
pub use csrf::{Csrf, CsrfOptions};
#[cfg(feature = "_layer")]
pub use messages::Messages;
#[cfg(feature = "_layer")]
pub use session::{Session, SessionGuard, SharedStore};

#[cfg(feature = "_layer")]
use crate::backends::StoreError;

/// The header `User-Agent`; several are put together as Django's servers do.
#[cfg(all(feature = "_sql", any(feature = "tower", feature = "actix")))]
fn user_agent<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    values.collect::<Vec<_>>().join(&b',')
}

/// Status and text of the response in place of the handler's when its session could not be read or saved.
#[cfg(feature = "_layer")]
fn failure(error: &StoreError) -> (u16, &'static str) {
    match error {
        // Django's SessionInterrupted.
        StoreError::Deleted => (
            400,
            "The request's session was deleted before the request completed. The user may have logged out in a \
             concurrent request, for example.",
        ),
        // Django's InvalidSessionKey: the cookie was made up.
        StoreError::InvalidKey => (400, "The session's key is not valid."),
        error => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the session could not be read or saved"
            );
            (500, "The session could not be read or saved.")
        }
    }
}
