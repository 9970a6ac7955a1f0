//! Sessions for every service of tower, axum among them (feature `tower`).
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "sqlite"))]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::get};
//! use django_sessions::backends::StoreError;
//! use django_sessions::crypto::SecretKeys;
//! use django_sessions::settings::Settings;
//! use django_sessions::web::Session;
//! use django_sessions::web::tower::SessionLayer;
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
//! let app: Router = Router::new().route("/", get(visits)).layer(SessionLayer::new(store, settings));
//! # Ok(()) }
//! # #[cfg(not(all(feature = "axum", feature = "sqlite")))]
//! # fn main() {}
//! ```

mod csrf;
mod messages;

#[cfg(feature = "_sql")]
use std::fmt;
use std::future::Future;
#[cfg(feature = "_sql")]
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "_sql")]
use http::header::USER_AGENT;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE, VARY};
#[cfg(feature = "_sql")]
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use tower_layer::Layer;
use tower_service::Service;

pub use csrf::{CsrfLayer, CsrfService, Replayed};
pub use messages::{MessagesLayer, MessagesService};

use super::session::{Finished, Site, vary_on_cookie};
use super::{Session, SharedStore, cookies};
use crate::backends::StoreError;
#[cfg(feature = "_sql")]
use crate::contrib::auth::Users;
#[cfg(feature = "_sql")]
use crate::contrib::devices::{Client, Devices};
#[cfg(feature = "_sql")]
use crate::session::SessionKey;
use crate::settings::Settings;

/// Gives each request its [`Session`], among its extensions, and saves it afterwards: Django's `SessionMiddleware`.
///
/// - Nothing is read before the session is used.
/// - It is saved if it was changed (or `SESSION_SAVE_EVERY_REQUEST` is on), unless the response is an error of the
///   server (5xx) or the handler panics.
/// - The cookie is set with every save, and taken away from who holds one of a session that is gone or emptied.
/// - `Vary: Cookie` is there when the session was used.
/// - A session that somebody else ended meanwhile is not brought back: the response is 400, as Django's.
///
/// A request whose client goes away before the handler is done saves nothing.
#[derive(Clone, Debug)]
pub struct SessionLayer {
    site: Arc<Site>,
    #[cfg(feature = "_sql")]
    client_ip: ClientIp,
}

impl SessionLayer {
    /// A layer over a store and the settings that it was made with.
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
    /// # #[cfg(all(feature = "axum", feature = "signed_cookies"))] {
    /// use django_sessions::contrib::devices::Devices;
    /// use django_sessions::web::tower::SessionLayer;
    ///
    /// fn with_devices(layer: SessionLayer, devices: Option<Devices>) -> SessionLayer {
    ///     layer.with_devices(devices) // of `settings.connect_devices().await?`
    /// }
    /// # }
    /// ```
    #[cfg(feature = "_sql")]
    #[must_use]
    pub fn with_devices(mut self, devices: impl Into<Option<Devices>>) -> Self {
        Arc::make_mut(&mut self.site).devices = devices.into();
        self
    }

    /// Says where a request comes from, for the rows of the devices; a request of tower does not know, and without this they
    /// have no address.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] {
    /// use std::net::SocketAddr;
    ///
    /// use axum::extract::ConnectInfo;
    /// use django_sessions::web::tower::SessionLayer;
    ///
    /// // axum knows, if it is served by `app.into_make_service_with_connect_info::<SocketAddr>()`:
    /// fn by_connection(layer: SessionLayer) -> SessionLayer {
    ///     layer.with_client_ip(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.ip()))
    /// }
    ///
    /// // Behind a proxy: the header that your proxy sets and overwrites.
    /// fn by_proxy(layer: SessionLayer) -> SessionLayer {
    ///     layer.with_client_ip(|parts| parts.headers.get("X-Real-IP")?.to_str().ok()?.parse().ok())
    /// }
    /// # }
    /// ```
    #[cfg(feature = "_sql")]
    #[must_use]
    pub fn with_client_ip(
        mut self,
        client_ip: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.client_ip = ClientIp(Some(Arc::new(client_ip)));
        self
    }

    /// Takes the time for the cookie's `Expires` from `clock` in place of the system's, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.site).set_clock(clock);
        self
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService {
            inner,
            site: self.site.clone(),
            #[cfg(feature = "_sql")]
            client_ip: self.client_ip.clone(),
        }
    }
}

/// What [`SessionLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    site: Arc<Site>,
    #[cfg(feature = "_sql")]
    client_ip: ClientIp,
}

/// Where requests come from, if somebody said how to know.
#[cfg(feature = "_sql")]
#[derive(Clone, Default)]
struct ClientIp(Option<Arc<FindIp>>);

#[cfg(feature = "_sql")]
type FindIp = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

#[cfg(feature = "_sql")]
impl ClientIp {
    /// What the request says of its device.
    fn client<B>(&self, request: Request<B>, cookie: Option<&str>) -> (Request<B>, Client) {
        let (parts, body) = request.into_parts();
        let ip = self.0.as_ref().and_then(|client_ip| client_ip(&parts));
        let agent = super::user_agent(parts.headers.get_all(USER_AGENT).iter().map(HeaderValue::as_bytes));
        let client = Client::new(cookie.and_then(SessionKey::new), ip, &agent);
        (Request::from_parts(parts, body), client)
    }
}

#[cfg(feature = "_sql")]
impl fmt::Debug for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientIp").field(&self.0.is_some()).finish()
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for SessionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    RequestBody: Send + 'static,
    ResponseBody: From<&'static str> + Send,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let cookies = cookies_of(&request);
        let cookie = cookies::get(&cookies, &self.site.settings.session_cookie_name);
        let session = Session::new(&self.site, cookie.as_deref());
        #[cfg(feature = "_sql")]
        if self.site.devices.is_some() {
            let client;
            (request, client) = self.client_ip.client(request, cookie.as_deref());
            session.note_client(client);
        }
        request.extensions_mut().insert(session.clone());
        #[cfg(all(feature = "axum", feature = "_sql"))]
        if self.site.users.is_some() {
            let target = Target(request.uri().clone());
            request.extensions_mut().insert(target);
        }
        Box::pin(async move {
            let response = inner.call(request).await?;
            let finished = session.finish(response.status().is_server_error()).await;
            Ok(finish(response, finished))
        })
    }
}

type Answer<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

/// The service that was asked whether it is ready. The clone that takes its place is not.
fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    std::mem::replace(inner, clone)
}

fn cookies_of<B>(request: &Request<B>) -> String {
    cookies::join(request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes))
}

/// The handler's response with what a layer adds to it, or the one in its place.
fn finish<B>(mut response: Response<B>, finished: Result<Finished, StoreError>) -> Response<B>
where
    B: From<&'static str>,
{
    match finished {
        Ok(finished) => {
            apply(&mut response, finished);
            response
        }
        Err(error) => failure(&error),
    }
}

/// The address of the request before a router took a prefix away.
#[cfg(all(feature = "axum", feature = "_sql"))]
#[derive(Clone, Debug)]
pub(super) struct Target(pub(super) http::Uri);

fn apply<B>(response: &mut Response<B>, finished: Finished) {
    let headers = response.headers_mut();
    if finished.vary {
        let present: Vec<&str> =
            headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).collect();
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

/// The response in place of the handler's when the session could not be read or saved.
fn failure<B: From<&'static str>>(error: &StoreError) -> Response<B> {
    plain(super::failure(error))
}

fn plain<B: From<&'static str>>((status, text): (u16, &'static str)) -> Response<B> {
    let mut response = Response::new(B::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
