//! `request.user` over axum and actix-web: extractors, logins, redirections, and new keys that no error loses.

use std::sync::{Arc, Mutex};

use actix_web::dev::Service as _;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use django_sessions::backends::SessionStore;
use django_sessions::backends::signed_cookies::SignedCookieStore;
use django_sessions::contrib::auth::{User, Users, redirect_to_login};
use django_sessions::session::{Session, SessionKey};
use django_sessions::web::actix::SessionMiddleware;
use django_sessions::web::tower::SessionLayer;
use django_sessions::web::{Auth, LoginRequired, Refusal, RequireUser};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::site::{Site, logged_in};

/// A response, as far as it matters here.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: String,
    location: Option<String>,
    /// The value of the session cookie, if it is set; empty if it is taken away.
    key: Option<String>,
}

fn key_in(set_cookie: Option<&str>) -> Option<String> {
    let value = set_cookie?.split(';').next()?.split_once('=')?.1;
    Some(value.trim_matches('"').to_owned())
}

mod handlers {
    use super::*;

    pub(super) async fn greet(auth: Auth) -> Result<String, Refusal> {
        Ok(auth.user().await?.map_or("stranger".to_owned(), |user| user.username))
    }

    pub(super) async fn user(user: User) -> String {
        user.username
    }

    pub(super) async fn maybe(user: Option<User>) -> String {
        user.map_or("stranger".to_owned(), |user| user.username)
    }

    pub(super) async fn require(RequireUser(user): RequireUser) -> String {
        user.username
    }

    pub(super) async fn account(LoginRequired(user): LoginRequired) -> String {
        user.username
    }

    pub(super) async fn restock(auth: Auth) -> Result<String, Refusal> {
        let user = auth.require_perm("auth.add_group").await?;
        assert!(auth.has_perm("auth.add_group").await?);
        assert!(auth.permissions().await?.has_module_perms("auth"));
        Ok(user.username)
    }

    /// The user is read once: what becomes of the row meanwhile does not matter to this request.
    pub(super) async fn twice(auth: Auth) -> Result<String, Refusal> {
        let before = auth.user().await?;
        let pool = auth.users().clone();
        let mut user = before.clone().ok_or(Refusal::Unauthorized)?;
        pool.set_password(&mut user, "another one").await.unwrap();
        assert_eq!(auth.clone().user().await?, before);
        Ok(user.username)
    }

    /// Logs in, and tells of the new CSRF secret by its length.
    pub(super) async fn log_in(auth: Auth) -> String {
        assert!(auth.session().new_csrf_secret().is_none());
        let user = auth.users().authenticate("enters", "correct horse").await.unwrap().unwrap();
        auth.login(user).await.unwrap();
        assert_eq!(auth.user().await.unwrap().unwrap().username, "enters");
        auth.session().new_csrf_secret().unwrap().expose().len().to_string()
    }

    pub(super) async fn log_out(auth: Auth) -> Result<String, Refusal> {
        assert!(auth.user().await?.is_some());
        auth.logout().await?;
        assert!(auth.user().await?.is_none() && !auth.has_perm("auth.add_group").await?);
        Ok("bye".to_owned())
    }

    pub(super) async fn change_password(auth: Auth) -> Result<String, Refusal> {
        let mut user = auth.require_user().await?;
        auth.users().set_password(&mut user, "battery staple").await.unwrap();
        auth.update_session_auth_hash(&user).await?;
        Ok(user.username)
    }
}

async fn axum_get(site: &Site, path: &str, key: Option<&str>, with_users: bool) -> Answer {
    use axum::routing::get;

    let mut layer = SessionLayer::new(site.store.clone(), site.settings.clone());
    if with_users {
        layer = layer.with_users(site.users.clone());
    }
    let failing =
        async |auth: Auth| (StatusCode::INTERNAL_SERVER_ERROR, handlers::greet(auth).await.unwrap());
    let app = axum::Router::new()
        .route("/greet", get(handlers::greet))
        .route("/user", get(handlers::user))
        .route("/maybe", get(handlers::maybe))
        .route("/require", get(handlers::require))
        .nest("/nested", axum::Router::new().route("/account", get(handlers::account)))
        .route("/restock", get(handlers::restock))
        .route("/twice", get(handlers::twice))
        .route("/login", get(handlers::log_in))
        .route("/logout", get(handlers::log_out))
        .route("/password", get(handlers::change_password))
        .route("/fails", get(failing))
        .layer(layer);
    let mut request = Request::builder().uri(path).header("Host", "shop.example");
    if let Some(key) = key {
        request = request.header("Cookie", format!("sessionid={key}"));
    }
    let (parts, body) = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
    let text = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        location: text("location"),
        key: key_in(text("set-cookie").as_deref()),
    }
}

async fn actix_get(site: &Site, path: &str, key: Option<&str>, with_users: bool) -> Answer {
    use actix_web::{App, HttpResponse, test, web};

    let mut sessions = SessionMiddleware::new(site.store.clone(), site.settings.clone());
    if with_users {
        sessions = sessions.with_users(site.users.clone());
    }
    let failing =
        async |auth: Auth| HttpResponse::InternalServerError().body(handlers::greet(auth).await.unwrap());
    let app = App::new()
        .wrap(sessions)
        .route("/greet", web::get().to(handlers::greet))
        .route("/user", web::get().to(handlers::user))
        .route("/maybe", web::get().to(handlers::maybe))
        .route("/require", web::get().to(handlers::require))
        .service(web::scope("/nested").route("/account", web::get().to(handlers::account)))
        .route("/restock", web::get().to(handlers::restock))
        .route("/twice", web::get().to(handlers::twice))
        .route("/login", web::get().to(handlers::log_in))
        .route("/logout", web::get().to(handlers::log_out))
        .route("/password", web::get().to(handlers::change_password))
        .route("/fails", web::get().to(failing));
    let app = test::init_service(app).await;
    let mut request = test::TestRequest::get().uri(path).insert_header(("Host", "shop.example"));
    if let Some(key) = key {
        request = request.insert_header(("Cookie", format!("sessionid={key}")));
    }
    let response = app.call(request.to_request()).await.unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, location, cookie) = (response.status().as_u16(), text("location"), text("set-cookie"));
    let body = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
    Answer { status, body, location, key: key_in(cookie.as_deref()) }
}

#[derive(Clone, Copy, Debug)]
enum Framework {
    Axum,
    Actix,
}

const BOTH: [Framework; 2] = [Framework::Axum, Framework::Actix];

impl Framework {
    async fn get(self, site: &Site, path: &str, key: Option<&str>) -> Answer {
        match self {
            Self::Axum => axum_get(site, path, key, true).await,
            Self::Actix => actix_get(site, path, key, true).await,
        }
    }
}

async fn key_of(site: &Site, content: &Value) -> String {
    site.session(Some(content)).await.key().unwrap().as_str().to_owned()
}

#[tokio::test]
async fn extractors_take_the_user_or_refuse() {
    let Some(site) = Site::small().await else { return };
    let pk = site.create("ada", Some("correct horse"), json!({"permissions": ["auth.add_group"]}));
    let plain = site.create("plain", Some("correct horse"), json!({}));
    let key = key_of(&site, &logged_in(&pk, &site.hashes(&pk)[0])).await;
    let other = key_of(&site, &logged_in(&plain, &site.hashes(&plain)[0])).await;
    let login = Some("/accounts/login/?next=/nested/account%3Fa%3Db".to_owned());
    for framework in BOTH {
        for (path, nobody, user) in [
            ("/greet", (200, "stranger"), (200, "ada")),
            ("/maybe", (200, "stranger"), (200, "ada")),
            ("/user", (401, "Unauthorized"), (200, "ada")),
            ("/require", (401, "Unauthorized"), (200, "ada")),
            ("/restock", (401, "Unauthorized"), (200, "ada")),
            ("/nested/account?a=b", (302, ""), (200, "ada")),
        ] {
            for (key, (status, body)) in
                [(None, nobody), (Some("0123456789unknown"), nobody), (Some(&*key), user)]
            {
                let found = framework.get(&site, path, key).await;
                assert_eq!((found.status, &*found.body), (status, body), "{framework:?} {path} {key:?}");
                assert_eq!(found.location, login.clone().filter(|_| status == 302), "{framework:?} {path}");
            }
        }
        assert_eq!(framework.get(&site, "/restock", Some(&other)).await.status, 403);
    }
    let missing = [
        axum_get(&site, "/user", Some(&key), false).await,
        actix_get(&site, "/user", Some(&key), false).await,
    ];
    assert!(missing.iter().all(|answer| answer.status == 500), "{missing:?}");
    for framework in BOTH {
        let key = key_of(&site, &logged_in(&plain, &site.hashes(&plain)[0])).await;
        assert_eq!(framework.get(&site, "/twice", Some(&key)).await.body, "plain");
        assert_eq!(
            framework.get(&site, "/greet", Some(&key)).await.body,
            "stranger",
            "the password was changed"
        );
    }
}

#[tokio::test]
async fn logging_in_and_out() {
    let Some(site) = Site::small().await else { return };
    for framework in BOTH {
        let pk = site.ask("authenticate", json!({"username": "enters", "password": "correct horse"}))["user"]
            .clone();
        let pk = pk
            .as_str()
            .map_or_else(|| site.create("enters", Some("correct horse"), json!({})), str::to_owned);
        let anonymous = key_of(&site, &json!({"cart": ["tea"]})).await;
        let answer = framework.get(&site, "/login", Some(&anonymous)).await;
        assert_eq!((answer.status, &*answer.body), (200, "32"), "{framework:?}");
        let key = answer.key.expect("a cookie");
        assert_ne!(key, anonymous);
        assert!(!site.store.exists(&SessionKey::new(anonymous).unwrap()).await.unwrap());
        let content = site.store.load(&SessionKey::new(&*key).unwrap()).await.unwrap();
        assert_eq!(content.get::<Vec<String>>("cart").unwrap().unwrap(), ["tea"]);
        assert_eq!(content.get::<String>("_auth_user_id").unwrap().unwrap(), pk);
        assert_eq!(framework.get(&site, "/greet", Some(&key)).await.body, "enters");

        let elsewhere = key_of(&site, &logged_in(&pk, &site.hashes(&pk)[0])).await;
        let changed = framework.get(&site, "/password", Some(&key)).await;
        let key = changed.key.expect("a new key");
        assert_eq!(framework.get(&site, "/greet", Some(&key)).await.body, "enters");
        assert_eq!(framework.get(&site, "/greet", Some(&elsewhere)).await.body, "stranger");

        let left = framework.get(&site, "/logout", Some(&key)).await;
        assert_eq!((left.status, left.key.as_deref()), (200, Some("")));
        assert_eq!(framework.get(&site, "/greet", Some(&key)).await.body, "stranger");
        site.ask("update", json!({
            "pk": pk, "password": site.ask("make_hash", json!({"password": "correct horse", "hasher": "default"})),
        }));
    }
}

/// A login under a former secret key. Django deletes the session under its old key, and with an error of the server does not
/// tell the browser the new one: whoever meets it is logged out. Here the browser is told in any case.
#[tokio::test]
async fn no_error_loses_a_new_key() {
    let Some(site) = Site::small().await else { return };
    let pk = site.create("renewed", Some("correct horse"), json!({}));
    let hashes = site.hashes(&pk);
    let renewed = logged_in(&pk, &hashes[1]);
    for (status, path) in [(200, "/greet"), (500, "/fails")] {
        let django = site.ask("through_middleware", json!({"session": renewed, "answer_with": status}));
        let is_lost = status == 500;
        let expected = json!({
            "status": status, "cookie": !is_lost, "old": false, "then": if is_lost { "None" } else { &pk },
        });
        assert_eq!(django, expected, "what Django does");
        for framework in BOTH {
            let old = key_of(&site, &renewed).await;
            let answer = framework.get(&site, path, Some(&old)).await;
            assert_eq!((answer.status, &*answer.body), (status, "renewed"), "{framework:?}");
            let key = answer.key.unwrap_or_else(|| panic!("{framework:?}: no cookie with {status}"));
            assert!(!site.store.exists(&SessionKey::new(old).unwrap()).await.unwrap(), "{framework:?}");
            assert_eq!(framework.get(&site, "/greet", Some(&key)).await.body, "renewed", "{framework:?}");
            let content = site.store.load(&SessionKey::new(key).unwrap()).await.unwrap();
            assert_eq!(content.get::<String>("_auth_user_hash").unwrap().unwrap(), hashes[0]);
        }
    }
}

/// The same where the session is the cookie.
#[tokio::test]
async fn no_error_loses_a_new_signed_cookie() {
    let Some(site) = Site::small().await else { return };
    let pk = site.create("signed", Some("correct horse"), json!({}));
    let hashes = site.hashes(&pk);
    let store = SignedCookieStore::new(site.settings.clone());
    let mut session = Session::new();
    for (key, value) in logged_in(&pk, &hashes[1]).as_object().unwrap() {
        session.insert(key, value).unwrap();
    }
    store.save(&mut session).await.unwrap();
    let layer = SessionLayer::new(store.clone(), site.settings.clone()).with_users(site.users.clone());
    let fails = async |auth: Auth| {
        auth.user().await.unwrap().unwrap();
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let app = axum::Router::new().route("/fails", axum::routing::get(fails)).layer(layer);
    let cookie = format!("sessionid={}", session.key().unwrap().as_str());
    let request = Request::builder().uri("/fails").header("Cookie", cookie).body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 500);
    let key = key_in(response.headers().get("set-cookie").map(|value| value.to_str().unwrap())).unwrap();
    let renewed = store.load(&SessionKey::new(key).unwrap()).await.unwrap();
    assert_eq!(renewed.get::<String>("_auth_user_hash").unwrap().unwrap(), hashes[0]);
}

/// `CSRF_USE_SESSIONS`: the new secret is in the session, and told to the layer all the same.
#[tokio::test]
async fn a_new_csrf_secret_in_the_session() {
    let Some(site) = Site::small().await else { return };
    let pk = site.create("csrf_session", Some("correct horse"), json!({}));
    let mut settings = site.settings.clone();
    settings.csrf.use_sessions = true;
    let users = Users::new(site.store.pool().clone(), settings.clone());
    let enters = async move |auth: Auth| {
        let user = auth.users().by_id(&*pk).await.unwrap().unwrap();
        auth.login(user).await.unwrap();
        let stored: String = auth.session().get("_csrftoken").await.unwrap().unwrap();
        assert_eq!(auth.session().new_csrf_secret().unwrap().expose(), stored);
    };
    let layer = SessionLayer::new(site.store.clone(), settings).with_users(users);
    let app = axum::Router::new().route("/", axum::routing::get(enters)).layer(layer);
    let response = app.oneshot(Request::builder().uri("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("set-cookie"));
}

/// A handler that panics sends nothing: the old key is good still. And what a failing handler changed is not saved.
#[tokio::test]
async fn a_new_key_that_nobody_hears_of_is_not_the_only_one() {
    let Some(site) = Site::small().await else { return };
    let pk = site.create("panics", Some("correct horse"), json!({}));
    let old = key_of(&site, &logged_in(&pk, &site.hashes(&pk)[1])).await;
    let renewed = Arc::new(Mutex::new(None));
    let noted = renewed.clone();
    let panics = async move |auth: Auth| -> String {
        auth.user().await.unwrap().unwrap();
        *noted.lock().unwrap() = auth.session().key().await;
        panic!("on purpose");
    };
    let changes = async |auth: Auth| {
        auth.user().await.unwrap().unwrap();
        auth.session().insert("half", &true).await.unwrap();
        StatusCode::SERVICE_UNAVAILABLE
    };
    let layer = SessionLayer::new(site.store.clone(), site.settings.clone()).with_users(site.users.clone());
    let app = axum::Router::new()
        .route("/panics", axum::routing::get(panics))
        .route("/changes", axum::routing::get(changes))
        .layer(layer);
    let request = |path: &str| {
        Request::builder().uri(path).header("Cookie", format!("sessionid={old}")).body(Body::empty()).unwrap()
    };
    let task = tokio::spawn(app.clone().oneshot(request("/panics")));
    assert!(task.await.unwrap_err().is_panic());
    let new = renewed.lock().unwrap().clone().expect("it had a new key");
    assert_ne!(new.as_str(), old);
    assert_eq!(Framework::Axum.get(&site, "/greet", Some(new.as_str())).await.body, "panics");

    let response = app.oneshot(request("/changes")).await.unwrap();
    assert_eq!(response.status(), 503);
    let key = key_in(response.headers().get("set-cookie").map(|value| value.to_str().unwrap())).unwrap();
    let content = site.store.load(&SessionKey::new(key).unwrap()).await.unwrap();
    assert!(content.contains_key("cart") && !content.contains_key("half"));
}

/// The address of the login page, as Django's `login_required` makes it.
#[tokio::test]
async fn redirections_as_django() {
    let Some(site) = Site::small().await else { return };
    let login_urls = [
        "/accounts/login/",
        "/login",
        "/login/?a=b",
        "/login/?next=x&a=1&next=y",
        "/login/?a=b+c&d=%C3%A9&e",
        "/login/#form",
        "https://id.example/login",
        "http://shop.example/login/",
        "https://shop.example/login/",
        "//id.example/login?tenant=shop#f",
        "//shop.example/login",
        "http://shop.example:8000/",
        "https://id.example",
        "/lögin/",
        "/login/?q=%2F/x&&b=",
        "HTTP://shop.example/login/",
        "login/",
        "../login/",
    ];
    let targets = [
        "/",
        "/cart/",
        "/cart/?a=b&c=d",
        "/cart/?next=/x/",
        "/caf%C3%A9/",
        "/a%20b/?q=a%20b+c",
        "/a%2Fb/",
        "//evil.example/",
        "/a;b=c,d@e:f+g/",
        "/%E9/",
        "/q?%C3%A9",
        "/a%25b",
        "/~a*b!(c)'d'/",
        "/?",
        "/x?a=%zz",
        "/%",
    ];
    let mut compared = 0;
    for login_url in login_urls {
        for target in targets {
            for secure in [false, true] {
                let question = json!({"login_url": login_url, "target": target, "host": "shop.example", "secure": secure});
                let expected = site.ask("redirect", question);
                let mut settings = site.settings.clone();
                settings.auth.login_url = login_url.to_owned();
                settings.session_cookie_secure = secure;
                let users =
                    django_sessions::contrib::auth::Users::new(site.store.pool().clone(), settings.clone());
                let layer = SessionLayer::new(site.store.clone(), settings).with_users(users);
                let app = axum::Router::new().fallback(handlers::account).layer(layer);
                let request = Request::builder()
                    .uri(target)
                    .header("Host", "shop.example")
                    .body(Body::empty())
                    .unwrap();
                let response = app.oneshot(request).await.unwrap();
                let found = response.headers().get("location").map(|value| value.to_str().unwrap());
                assert_eq!(json!(found), expected, "{login_url} {target} {secure}");
                compared += 1;
            }
        }
    }
    assert!(compared > 400 && redirect_to_login("/", "/login/") == "/login/?next=/");
}
