//! The same service over axum and over actix-web.

use std::net::{IpAddr, SocketAddr};

use actix_web::dev::Service as _;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use django_sessions::contrib::devices::Devices;
use django_sessions::web::actix::SessionMiddleware;
use django_sessions::web::tower::SessionLayer;
use django_sessions::web::{Auth, Session};
use tower::ServiceExt;

use crate::site::Site;

pub(crate) const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
pub(crate) const IP: &str = "2001:db8::7";

/// What a browser sends.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) cookie: Option<String>,
    pub(crate) agent: &'static str,
    pub(crate) ip: &'static str,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self { cookie: None, agent: FIREFOX, ip: IP }
    }

    /// Keeps the cookie that came, or lets go the one that was taken away.
    fn keep(&mut self, set_cookie: Option<&str>) {
        let value = set_cookie.and_then(|text| text.split(';').next()?.split_once('='));
        if let Some((_, value)) = value {
            self.cookie = Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty());
        }
    }
}

mod handlers {
    use super::*;

    pub(super) async fn user(auth: Auth) -> String {
        auth.user().await.unwrap().map_or("stranger".to_owned(), |user| user.username)
    }

    pub(super) async fn unused() -> &'static str {
        "nothing"
    }

    pub(super) async fn cart(session: Session) -> &'static str {
        session.insert("cart", &["tea"]).await.unwrap();
        "tea"
    }

    pub(super) async fn login(auth: Auth, username: String) -> String {
        let user = auth.users().by_username(&username).await.unwrap().unwrap();
        auth.login(user).await.unwrap();
        username
    }

    pub(super) async fn logout(auth: Auth) -> &'static str {
        auth.logout().await.unwrap();
        "bye"
    }

    pub(super) async fn flush(session: Session) -> &'static str {
        session.flush().await.unwrap();
        "bye"
    }

    pub(super) async fn cycle_key(session: Session) -> &'static str {
        session.cycle_key().await.unwrap();
        "new"
    }

    pub(super) async fn end_others(auth: Auth) -> String {
        let user = auth.require_user().await.unwrap();
        let session = auth.session();
        let here = session.lock().await.unwrap();
        let devices = session.devices().unwrap();
        devices.end_all_sessions(&**session.store(), &user, Some(&here)).await.unwrap().to_string()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Framework {
    Axum,
    Actix,
}

pub(crate) const BOTH: [Framework; 2] = [Framework::Axum, Framework::Actix];

impl Framework {
    /// Status and body.
    pub(crate) async fn get(self, site: &Site, browser: &mut Browser, path: &str) -> (u16, String) {
        self.get_with(site, Some(site.devices.clone()), browser, path).await
    }

    pub(crate) async fn get_with(
        self,
        site: &Site,
        devices: Option<Devices>,
        browser: &mut Browser,
        path: &str,
    ) -> (u16, String) {
        match self {
            Self::Axum => axum_get(site, devices, browser, path).await,
            Self::Actix => actix_get(site, devices, browser, path).await,
        }
    }
}

fn peer(browser: &Browser) -> SocketAddr {
    SocketAddr::new(browser.ip.parse::<IpAddr>().unwrap(), 50_000)
}

async fn axum_get(site: &Site, devices: Option<Devices>, browser: &mut Browser, path: &str) -> (u16, String) {
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::get;

    let layer = SessionLayer::new(site.store.clone(), site.settings.clone())
        .with_users(site.users.clone())
        .with_devices(devices)
        .with_client_ip(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.ip()));
    let failing = async |auth: Auth| (StatusCode::INTERNAL_SERVER_ERROR, handlers::user(auth).await);
    let app = axum::Router::new()
        .route("/user", get(handlers::user))
        .route("/unused", get(handlers::unused))
        .route("/cart", get(handlers::cart))
        .route("/login/{name}", get(async |auth, Path(name)| handlers::login(auth, name).await))
        .route("/logout", get(handlers::logout))
        .route("/flush", get(handlers::flush))
        .route("/cycle_key", get(handlers::cycle_key))
        .route("/end_others", get(handlers::end_others))
        .route("/fails", get(failing))
        .layer(layer);
    let mut request = Request::builder().uri(path).header("User-Agent", browser.agent);
    if let Some(cookie) = &browser.cookie {
        request = request.header("Cookie", format!("sessionid={cookie}"));
    }
    let request = request.extension(ConnectInfo(peer(browser))).body(Body::empty()).unwrap();
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    browser.keep(parts.headers.get("set-cookie").map(|value| value.to_str().unwrap()));
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

async fn actix_get(
    site: &Site,
    devices: Option<Devices>,
    browser: &mut Browser,
    path: &str,
) -> (u16, String) {
    use actix_web::web::{Path, get};
    use actix_web::{App, HttpResponse, test};

    let sessions = SessionMiddleware::new(site.store.clone(), site.settings.clone())
        .with_users(site.users.clone())
        .with_devices(devices);
    let failing = async |auth: Auth| HttpResponse::InternalServerError().body(handlers::user(auth).await);
    let app = App::new()
        .wrap(sessions)
        .route("/user", get().to(handlers::user))
        .route("/unused", get().to(handlers::unused))
        .route("/cart", get().to(handlers::cart))
        .route(
            "/login/{name}",
            get().to(async |auth: Auth, name: Path<String>| handlers::login(auth, name.into_inner()).await),
        )
        .route("/logout", get().to(handlers::logout))
        .route("/flush", get().to(handlers::flush))
        .route("/cycle_key", get().to(handlers::cycle_key))
        .route("/end_others", get().to(handlers::end_others))
        .route("/fails", get().to(failing));
    let app = test::init_service(app).await;
    let mut request = test::TestRequest::get()
        .uri(path)
        .peer_addr(peer(browser))
        .insert_header(("User-Agent", browser.agent));
    if let Some(cookie) = &browser.cookie {
        request = request.insert_header(("Cookie", format!("sessionid={cookie}")));
    }
    let response = app.call(request.to_request()).await.unwrap();
    browser.keep(response.headers().get("set-cookie").map(|value| value.to_str().unwrap()));
    let status = response.status().as_u16();
    (status, String::from_utf8(test::read_body(response).await.to_vec()).unwrap())
}
