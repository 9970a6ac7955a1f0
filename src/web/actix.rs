//! Sessions as an actix-web middleware and extractors (feature `actix`).
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use actix_web::{App, web};
//! use django_sessions::backends::StoreError;
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::settings::Settings;
//! use django_sessions::web::Session;
//! use django_sessions::web::actix::SessionMiddleware;
//! # use django_sessions::backends::db::DbStore;
//!
//! async fn visits(session: Session) -> Result<String, StoreError> {
//!     let visits = session.get::<u32>("visits").await?.unwrap_or(0) + 1;
//!     session.insert("visits", &visits).await?;
//!     Ok(format!("{visits}"))
//! }
//!
//! let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
//! let store = DbStore::connect("sqlite::memory:", settings.clone()).await?;
//! let sessions = SessionMiddleware::new(store, settings); // cheap to clone, for each worker
//! let app = App::new().wrap(sessions.clone()).route("/", web::get().to(visits));
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```

#[cfg(feature = "_sql")]
mod auth;
mod csrf;
mod messages;

#[cfg(feature = "_sql")]
use std::fmt;
use std::future::{Future, Ready, ready};
#[cfg(feature = "_sql")]
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
#[cfg(feature = "_sql")]
use actix_web::http::header::USER_AGENT;
use actix_web::http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE, VARY};
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};
use jiff::Timestamp;

pub use csrf::{CsrfMiddleware, CsrfService};
pub use messages::{MessagesMiddleware, MessagesService};

use super::session::{Finished, Site, vary_on_cookie};
use super::{Csrf, Messages, Session, SharedStore, cookies};
use crate::backends::StoreError;
#[cfg(feature = "_sql")]
use crate::contrib::auth::Users;
#[cfg(feature = "_sql")]
use crate::contrib::devices::{Client, Devices};
use crate::session::SessionKey;
use crate::settings::Settings;

/// Gives each request its [`Session`] and saves it afterwards, as Django's `SessionMiddleware`; the rules are those of
/// [`SessionLayer`](https://docs.rs/django-sessions/latest/django_sessions/web/tower/struct.SessionLayer.html).
///
/// That a client went away before the handler is done, actix-web notices only with
/// [`h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed). By default it takes a closed connection
/// for one that is closed in one direction, lets the handler finish, and the session is saved.
#[derive(Clone, Debug)]
pub struct SessionMiddleware {
    site: Arc<Site>,
    #[cfg(feature = "_sql")]
    client_ip: ClientIp,
}

impl SessionMiddleware {
    /// A middleware over a store and the settings that it was made with.
    pub fn new(store: impl Into<SharedStore>, settings: impl Into<Arc<Settings>>) -> Self {
        Self {
            site: Arc::new(Site::new(store.into().0, settings.into())),
            #[cfg(feature = "_sql")]
            client_ip: ClientIp::default(),
        }
    }

    /// Gives the handlers users, for the extractors [`Auth`](super::Auth), [`User`](crate::contrib::auth::User),
    /// [`RequireUser`](super::RequireUser) and [`LoginRequired`](super::LoginRequired). Nothing is read before one is used.
    #[cfg(feature = "_sql")]
    #[must_use]
    pub fn with_users(mut self, users: Users) -> Self {
        Arc::make_mut(&mut self.site).users = Some(users);
        self
    }

    /// Keeps the rows of `devices` ("where you are signed in"), if there are some: at logins and logouts, at new keys, and at
    /// most once a minute for each session that is used. The request does not fail if the table does.
    ///
    /// ```
    /// use django_sessions::contrib::devices::Devices;
    /// use django_sessions::web::actix::SessionMiddleware;
    ///
    /// fn with_devices(sessions: SessionMiddleware, devices: Option<Devices>) -> SessionMiddleware {
    ///     sessions.with_devices(devices) // of `settings.connect_devices().await?`
    /// }
    /// ```
    #[cfg(feature = "_sql")]
    #[must_use]
    pub fn with_devices(mut self, devices: impl Into<Option<Devices>>) -> Self {
        Arc::make_mut(&mut self.site).devices = devices.into();
        self
    }

    /// Says where a request comes from, for the rows of the devices; without this it is the other end of the connection.
    ///
    /// ```
    /// use django_sessions::web::actix::SessionMiddleware;
    ///
    /// // Behind a proxy: the header that your proxy sets and overwrites.
    /// fn by_proxy(sessions: SessionMiddleware) -> SessionMiddleware {
    ///     sessions.with_client_ip(|request| request.headers().get("X-Real-IP")?.to_str().ok()?.parse().ok())
    /// }
    /// ```
    #[cfg(feature = "_sql")]
    #[must_use]
    pub fn with_client_ip(
        mut self,
        client_ip: impl Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.client_ip = ClientIp(Arc::new(client_ip));
        self
    }

    /// Takes the time for the cookie's `Expires` from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.site).set_clock(clock);
        self
    }
}

impl<S, B> Transform<S, ServiceRequest> for SessionMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = SessionService<S>;
    type InitError = ();
    type Future = Ready<Result<SessionService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(SessionService {
            service: Rc::new(service),
            site: self.site.clone(),
            #[cfg(feature = "_sql")]
            client_ip: self.client_ip.clone(),
        }))
    }
}

/// What [`SessionMiddleware`] makes of a service.
#[derive(Debug)]
pub struct SessionService<S> {
    service: Rc<S>,
    site: Arc<Site>,
    #[cfg(feature = "_sql")]
    client_ip: ClientIp,
}

/// Where requests come from.
#[cfg(feature = "_sql")]
#[derive(Clone)]
struct ClientIp(Arc<FindIp>);

#[cfg(feature = "_sql")]
type FindIp = dyn Fn(&HttpRequest) -> Option<IpAddr> + Send + Sync;

#[cfg(feature = "_sql")]
impl Default for ClientIp {
    fn default() -> Self {
        Self(Arc::new(|request| Some(request.peer_addr()?.ip())))
    }
}

#[cfg(feature = "_sql")]
impl ClientIp {
    /// What the request says of its device.
    fn client(&self, request: &HttpRequest, cookie: Option<&str>) -> Client {
        let agent = super::user_agent(request.headers().get_all(USER_AGENT).map(HeaderValue::as_bytes));
        Client::new(cookie.and_then(SessionKey::new), self.0(request), &agent)
    }
}

#[cfg(feature = "_sql")]
impl fmt::Debug for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientIp").finish_non_exhaustive()
    }
}

impl<S, B> Service<ServiceRequest> for SessionService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Answer<B>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let cookies = cookies_of(&request);
        let cookie = cookies::get(&cookies, &self.site.settings.session_cookie_name);
        let session = Session::new(&self.site, cookie.as_deref());
        #[cfg(feature = "_sql")]
        if self.site.devices.is_some() {
            session.note_client(self.client_ip.client(request.request(), cookie.as_deref()));
        }
        request.extensions_mut().insert(session.clone());
        let service = self.service.clone();
        Box::pin(async move {
            let result = service.call(request).await;
            let finished = session.finish(status(&result).is_server_error()).await;
            finish(result, finished)
        })
    }
}

type Outcome<B> = Result<ServiceResponse<B>, Error>;
type Answer<B> = Pin<Box<dyn Future<Output = Outcome<EitherBody<B>>>>>;

fn cookies_of(request: &ServiceRequest) -> String {
    cookies::join(request.headers().get_all(COOKIE).map(HeaderValue::as_bytes))
}

fn status<B>(result: &Outcome<B>) -> StatusCode {
    match result {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    }
}

/// The handler's response with what a middleware adds to it, or the one in its place.
fn finish<B: MessageBody>(
    result: Outcome<B>,
    finished: Result<Finished, StoreError>,
) -> Outcome<EitherBody<B>> {
    match (result, finished) {
        (Ok(mut response), Ok(finished)) => {
            apply(response.headers_mut(), finished);
            Ok(response.map_into_left_body())
        }
        (Ok(response), Err(failed)) => {
            Ok(response.into_response(failed.error_response()).map_into_right_body())
        }
        // Of a middleware below. It becomes a response above, with what this one adds to it all the same.
        (Err(error), finished) => {
            let mut response = error.error_response();
            match finished {
                Ok(finished) => apply(response.headers_mut(), finished),
                Err(failed) => response = failed.error_response(),
            }
            Err(InternalError::from_response(error, response).into())
        }
    }
}

fn apply(headers: &mut HeaderMap, finished: Finished) {
    if finished.vary {
        let present: Vec<&str> = headers.get_all(VARY).filter_map(|value| value.to_str().ok()).collect();
        if let Some(vary) = vary_on_cookie(&present.join(",")) {
            // What is there is text of headers, and so is what is added.
            headers.insert(VARY, HeaderValue::try_from(vary).unwrap_or(HeaderValue::from_static("Cookie")));
        }
    }
    // `Finished` has only cookies that a header can hold.
    if let Some(cookie) = finished.cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        headers.append(SET_COOKIE, cookie);
    }
}

fn plain((status, text): (u16, &'static str)) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}

/// Why there is no session: the [`SessionMiddleware`] is missing. The response is 500.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no session: `.wrap(django_sessions::web::actix::SessionMiddleware::new(..))` this App")]
pub struct MissingMiddleware;

impl ResponseError for MissingMiddleware {
    fn error_response(&self) -> HttpResponse {
        tracing::error!("{self}");
        HttpResponse::InternalServerError().finish()
    }
}

/// A handler may return it: 400 for a session that somebody else ended meanwhile, 500 for all else, and the log says
/// what it was.
impl ResponseError for StoreError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Deleted | Self::InvalidKey => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        plain(super::failure(self))
    }
}

impl FromRequest for Session {
    type Error = MissingMiddleware;
    type Future = Ready<Result<Self, MissingMiddleware>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or(MissingMiddleware))
    }
}

/// Why there is no [`Csrf`] or no [`Messages`]: its middleware is missing. The response is 500.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("`.wrap(django_sessions::web::actix::{0}::new(..))` this App")]
pub struct MiddlewareNotFound(&'static str);

impl ResponseError for MiddlewareNotFound {
    fn error_response(&self) -> HttpResponse {
        tracing::error!("{self}");
        HttpResponse::InternalServerError().finish()
    }
}

impl FromRequest for Csrf {
    type Error = MiddlewareNotFound;
    type Future = Ready<Result<Self, MiddlewareNotFound>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or(MiddlewareNotFound("CsrfMiddleware")))
    }
}

impl FromRequest for Messages {
    type Error = MiddlewareNotFound;
    type Future = Ready<Result<Self, MiddlewareNotFound>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(request.extensions().get::<Self>().cloned().ok_or(MiddlewareNotFound("MessagesMiddleware")))
    }
}

/// The session key that the request brought, if any; nothing is read from the store for it.
#[derive(Clone, Debug)]
pub struct SessionCookie(pub Option<SessionKey>);

impl FromRequest for SessionCookie {
    type Error = MissingMiddleware;
    type Future = Pin<Box<dyn Future<Output = Result<Self, MissingMiddleware>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let session = Session::from_request(request, payload);
        Box::pin(async move { Ok(Self(session.await?.key().await)) })
    }
}
