//! The users as actix-web extractors.

use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{HOST, LOCATION};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};

use crate::contrib::auth::{AuthError, User};
use crate::web::auth::login_failure;
use crate::web::{Auth, LoginRequired, Refusal, RequireUser, Session};

type Extracted<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>>>>;

fn auth(request: &HttpRequest) -> Result<Auth, Refusal> {
    request.extensions().get::<Session>().cloned().and_then(Auth::of).ok_or(Refusal::NoUsers)
}

impl FromRequest for Auth {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(auth(request))
    }
}

/// The user who is logged in, or 401.
///
/// actix-web's `Option<User>` is `None` also when the database fails: [`Auth::user`] tells one from the other.
///
/// ```
/// use actix_web::{App, web};
/// use django_sessions::web::{Auth, LoginRequired, Refusal, RequireUser};
///
/// async fn greet(auth: Auth) -> Result<String, Refusal> {
///     let user = auth.user().await?;
///     Ok(user.map_or("Hello, stranger!".to_owned(), |user| format!("Hello, {}!", user.username)))
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
/// // .wrap(SessionMiddleware::new(store, settings).with_users(users))
/// let app = App::new()
///     .route("/", web::get().to(greet))
///     .route("/api", web::get().to(api))
///     .route("/account", web::get().to(account));
/// ```
impl FromRequest for User {
    type Error = Refusal;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let auth = auth(request);
        Box::pin(async move { auth?.require_user().await })
    }
}

impl FromRequest for RequireUser {
    type Error = Refusal;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let user = User::from_request(request, payload);
        Box::pin(async move { user.await.map(Self) })
    }
}

impl FromRequest for LoginRequired {
    type Error = Refusal;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let auth = auth(request);
        let uri = request.uri().clone();
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        Box::pin(async move {
            let host = host.or(uri.authority().map(|authority| authority.to_string())).unwrap_or_default();
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            auth?.login_required(uri.scheme_str().unwrap_or_default(), &host, target).await.map(Self)
        })
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        code(self.status().0)
    }

    fn error_response(&self) -> HttpResponse {
        let (status, text) = self.status();
        let mut response = HttpResponse::build(code(status));
        if let Some(location) = self.location() {
            response.insert_header((LOCATION, location));
        }
        response.content_type("text/plain; charset=utf-8").body(text)
    }
}

/// A handler may return it; the log says what it was.
impl ResponseError for AuthError {
    fn status_code(&self) -> StatusCode {
        code(login_failure(self).0)
    }

    fn error_response(&self) -> HttpResponse {
        let (status, text) = login_failure(self);
        HttpResponse::build(code(status)).content_type("text/plain; charset=utf-8").body(text)
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
