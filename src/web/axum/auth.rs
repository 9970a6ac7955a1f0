//! The users as axum extractors.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri};

use crate::contrib::auth::{AuthError, User};
use crate::web::auth::login_failure;
use crate::web::tower::Target;
use crate::web::{Auth, LoginRequired, Refusal, RequireUser, Session};

impl<S: Send + Sync> FromRequestParts<S> for Auth {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Session>().cloned().and_then(Self::of).ok_or(Refusal::NoUsers)
    }
}

/// The user who is logged in, or 401. `Option<User>` takes everybody.
///
/// ```
/// use axum::{Router, routing::get};
/// use django_sessions::contrib::auth::User;
/// use django_sessions::web::{LoginRequired, RequireUser};
///
/// async fn greet(user: Option<User>) -> String {
///     user.map_or("Hello, stranger!".to_owned(), |user| format!("Hello, {}!", user.username))
/// }
///
/// async fn api(RequireUser(user): RequireUser) -> String {
///     user.id.to_string() // or 401
/// }
///
/// async fn account(LoginRequired(user): LoginRequired) -> String {
///     user.email // or a redirection to the login page
/// }
///
/// // .layer(SessionLayer::new(store, settings).with_users(users))
/// let app: Router =
///     Router::new().route("/", get(greet)).route("/api", get(api)).route("/account", get(account));
/// ```
impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Auth::from_request_parts(parts, state).await?.require_user().await
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Refusal> {
        Ok(Auth::from_request_parts(parts, state).await?.user().await?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequireUser {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        <User as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LoginRequired {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let auth = Auth::from_request_parts(parts, state).await?;
        let uri: &Uri = parts.extensions.get::<Target>().map_or(&parts.uri, |target| &target.0);
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        auth.login_required(uri.scheme_str().unwrap_or_default(), host, target).await.map(Self)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = text(self.status());
        if let Some(Ok(location)) = self.location().map(HeaderValue::try_from) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// A handler may return it; the log says what it was.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        text(login_failure(&self))
    }
}

fn text((status, text): (u16, &'static str)) -> Response {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text).into_response()
}
