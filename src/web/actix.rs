//! The session cookie as an actix-web extractor (feature `actix`).

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::error::ErrorInternalServerError;
use actix_web::http::header::COOKIE;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};

use super::cookies;
use crate::session::SessionKey;
use crate::settings::SessionSettings;

/// The session key that the request brought, if any. Needs `web::Data<SessionSettings>` in the app's data.
///
/// ```
/// use actix_web::{App, web};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::SessionSettings;
/// use django_sessions::web::actix::SessionCookie;
///
/// async fn handler(SessionCookie(key): SessionCookie) -> &'static str {
///     if key.is_some() { "welcome back" } else { "welcome" }
/// }
///
/// let settings = web::Data::new(SessionSettings::new(SecretKeys::new("the site's SECRET_KEY")));
/// let app = App::new().app_data(settings).route("/", web::get().to(handler));
/// ```
#[derive(Clone, Debug)]
pub struct SessionCookie(pub Option<SessionKey>);

impl FromRequest for SessionCookie {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let Some(settings) = request.app_data::<Data<SessionSettings>>() else {
            tracing::error!(
                "no session settings: call `.app_data(web::Data::new(SessionSettings::new(..)))` on the App"
            );
            return ready(Err(ErrorInternalServerError(
                "the session settings are missing; the log says what to do",
            )));
        };
        // Several `Cookie` headers are one, as WSGI and ASGI servers join them for Django.
        let headers: Vec<_> =
            request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok()).collect();
        ready(Ok(Self(cookies::session_key(&headers.join(";"), settings))))
    }
}
