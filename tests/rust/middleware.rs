//! The same requests to a Django view behind Django's own middleware and to Rust handlers that do the same, over axum and
//! actix-web: same status, same `Set-Cookie`, same `Vary`, same session afterwards.

mod django;
#[path = "django/site.rs"]
mod site;

use std::sync::Arc;

use actix_web::dev::Service as _;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use django_sessions::backends::db::DbStore;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::crypto::SecretKeys;
use django_sessions::session::{Expiry, SessionKey};
use django_sessions::settings::{SameSite, Settings};
use django_sessions::web::Session;
use django_sessions::web::actix::SessionMiddleware;
use django_sessions::web::tower::SessionLayer;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use site::{Site, attributes, headers_of};
use tower::ServiceExt;

/// One thing that a view does with its session; names and arguments are those of `django/site.py`.
#[derive(Clone, Debug)]
enum Step {
    Get(&'static str),
    Insert(&'static str, i64),
    Remove(&'static str),
    MarkModified,
    ExpireIn(i64),
    CycleKey,
    Flush,
    Clear,
    EndedElsewhere,
    Raise,
    /// Which Django's own engines do not know.
    DefaultLazily(&'static str),
}

impl Step {
    fn to_json(&self) -> Value {
        match self {
            Self::Get(key) => json!(["get", key]),
            Self::Insert(key, value) => json!(["insert", key, value]),
            Self::Remove(key) => json!(["remove", key]),
            Self::MarkModified => json!(["mark_modified"]),
            Self::ExpireIn(seconds) => json!(["expire_in", seconds]),
            Self::CycleKey => json!(["cycle_key"]),
            Self::Flush => json!(["flush"]),
            Self::Clear => json!(["clear"]),
            Self::EndedElsewhere => json!(["ended_elsewhere"]),
            Self::Raise => json!(["raise"]),
            Self::DefaultLazily(_) => unreachable!("is not asked of Django"),
        }
    }

    async fn play(&self, session: &Session, seen: &mut Vec<Value>) -> Result<(), StoreError> {
        match self {
            Self::Get(key) => seen.push(json!(session.get::<i64>(key).await?)),
            Self::Insert(key, value) => session.insert(key, value).await?,
            Self::Remove(key) => seen.push(json!(session.remove(key).await?)),
            Self::MarkModified => session.mark_modified().await,
            Self::ExpireIn(0) => session.lock().await?.set_expiry(Some(Expiry::BrowserClose)),
            Self::ExpireIn(seconds) => session.lock().await?.set_expiry(Some(Expiry::Seconds(*seconds))),
            Self::CycleKey => session.cycle_key().await?,
            Self::Flush => session.flush().await?,
            Self::Clear => session.clear().await,
            Self::EndedElsewhere => {
                if let Some(key) = session.key().await {
                    session.store().delete(&key).await?;
                }
            }
            Self::Raise => unreachable!("the handlers see to it"),
            Self::DefaultLazily(key) => {
                let mut session = session.lock().await?;
                session.set_default_lazily(key, &7)?;
                assert!(session.get::<i64>(key)?.is_some());
            }
        }
        Ok(())
    }
}

/// What the browser sends as its cookie.
#[derive(Clone, Copy, Debug)]
enum Cookie {
    None,
    /// The key of a session that is there.
    Good,
    /// The same among others, twice, in quotes.
    GoodAmongOthers,
    GoodTwice,
    GoodQuoted,
    /// A key that nobody has.
    Unknown,
    TooShort,
    Empty,
    /// 10 KB.
    Long,
    /// Bytes that are no UTF-8, and what would break a header.
    Bytes,
    /// Only another cookie. Not a malformed `csrftoken`: Django's error pages renew that, whatever the session did.
    Other,
}

impl Cookie {
    fn header(self, key: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Good => Some(format!("sessionid={key}")),
            Self::GoodAmongOthers => Some(format!("a=b; sessionid={key}; c=\"d;e\"; sessionid_=x")),
            Self::GoodTwice => Some(format!("sessionid=another-visitor-s-key; sessionid={key}")),
            Self::GoodQuoted => Some(format!("sessionid=\"{key}\"")),
            Self::Unknown => Some("sessionid=0123456789abcdefghijklmnopqrstuv".to_owned()),
            Self::TooShort => Some("sessionid=short".to_owned()),
            Self::Empty => Some("sessionid=".to_owned()),
            Self::Long => Some(format!("sessionid={}", "x".repeat(10_000))),
            Self::Bytes => Some("sessionid=\u{e9}\u{ff}\u{fe}12345678%0d%0aSet-Cookie:a".to_owned()),
            Self::Other => Some("theme=dark".to_owned()),
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    cookie: Cookie,
    stored: Vec<(&'static str, i64)>,
    steps: Vec<Step>,
    status: u16,
    vary: Option<&'static str>,
    settings: Vec<(&'static str, Value)>,
}

const STATUSES: [u16; 8] = [200, 200, 200, 302, 404, 403, 500, 503];
const VARIES: [Option<&str>; 6] =
    [None, None, Some("Accept-Language"), Some("accept, cookie"), Some("*"), Some("Cookie, Accept")];

fn cookies() -> Vec<Cookie> {
    use Cookie::*;
    vec![
        None,
        Good,
        Good,
        Good,
        GoodAmongOthers,
        GoodTwice,
        GoodQuoted,
        Unknown,
        TooShort,
        Empty,
        Long,
        Bytes,
        Other,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = || select(vec!["a", "b", "_private"]);
    prop_oneof![
        3 => key().prop_map(Step::Get),
        4 => (key(), any::<i32>()).prop_map(|(key, value)| Step::Insert(key, value.into())),
        2 => key().prop_map(Step::Remove),
        1 => Just(Step::MarkModified),
        2 => select(vec![0, 1, 60, 1_209_600, 100_000_000]).prop_map(Step::ExpireIn),
        1 => Just(Step::CycleKey),
        1 => Just(Step::Flush),
        1 => Just(Step::Clear),
        1 => Just(Step::EndedElsewhere),
        1 => Just(Step::Raise),
    ]
}

fn setting() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        Just(("SESSION_SAVE_EVERY_REQUEST", json!(true))),
        Just(("SESSION_EXPIRE_AT_BROWSER_CLOSE", json!(true))),
        Just(("SESSION_COOKIE_AGE", json!(300))),
        Just(("SESSION_COOKIE_DOMAIN", json!("example.com"))),
        Just(("SESSION_COOKIE_PATH", json!("/shop/"))),
        Just(("SESSION_COOKIE_SECURE", json!(true))),
        Just(("SESSION_COOKIE_HTTPONLY", json!(false))),
        select(vec![json!("Strict"), json!("None"), json!(false)])
            .prop_map(|value| ("SESSION_COOKIE_SAMESITE", value)),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let stored = select(vec![vec![], vec![("a", 1)], vec![("a", 1), ("b", 2)]]);
    let steps = prop::collection::vec(step(), 0..5);
    let settings = prop::collection::vec(setting(), 0..3);
    (select(cookies()), stored, steps, select(STATUSES.to_vec()), select(VARIES.to_vec()), settings).prop_map(
        |(cookie, stored, steps, status, vary, settings)| Case {
            cookie,
            stored,
            steps,
            status,
            vary,
            settings,
        },
    )
}

/// Every cookie with every single step, with and without an error: none is left to chance.
fn systematic() -> Vec<Case> {
    use Step::*;
    let steps = [
        vec![],
        vec![Get("a")],
        vec![Get("missing")],
        vec![Insert("a", 7)],
        vec![Remove("a")],
        vec![Remove("missing")],
        vec![MarkModified],
        vec![ExpireIn(0)],
        vec![ExpireIn(60)],
        vec![CycleKey],
        vec![Flush],
        vec![Clear],
        vec![Clear, EndedElsewhere],
        vec![CycleKey, EndedElsewhere],
        vec![Insert("a", 7), EndedElsewhere],
        vec![Get("a"), EndedElsewhere],
        vec![EndedElsewhere],
        vec![Flush, Insert("b", 8)],
        vec![Insert("a", 7), Raise],
    ];
    let mut cases = Vec::new();
    for cookie in [Cookie::None, Cookie::Good, Cookie::Unknown, Cookie::TooShort, Cookie::Other] {
        for steps in &steps {
            for (status, settings) in
                [(200, vec![]), (503, vec![]), (200, vec![("SESSION_SAVE_EVERY_REQUEST", json!(true))])]
            {
                let stored = vec![("a", 1)];
                cases.push(Case { cookie, stored, steps: steps.clone(), status, vary: None, settings });
            }
        }
    }
    cases
}

fn settings(case: &Case) -> Settings {
    let keys = SecretKeys::new("the child's key").with_fallbacks(["its former key"]);
    let mut settings = Settings::new(keys);
    for (name, value) in &case.settings {
        let text = || value.as_str().unwrap().to_owned();
        match *name {
            "SESSION_SAVE_EVERY_REQUEST" => settings.session_save_every_request = true,
            "SESSION_EXPIRE_AT_BROWSER_CLOSE" => settings.session_expire_at_browser_close = true,
            "SESSION_COOKIE_AGE" => settings.session_cookie_age = value.as_i64().unwrap(),
            "SESSION_COOKIE_DOMAIN" => settings.session_cookie_domain = Some(text()),
            "SESSION_COOKIE_PATH" => settings.session_cookie_path = text(),
            "SESSION_COOKIE_SECURE" => settings.session_cookie_secure = true,
            "SESSION_COOKIE_HTTPONLY" => settings.session_cookie_httponly = false,
            _ => {
                settings.session_cookie_samesite = match value.as_str() {
                    Some("Strict") => Some(SameSite::Strict),
                    Some(_) => Some(SameSite::None),
                    None => None,
                }
            }
        }
    }
    settings
}

/// The answer to a case, in the form of `django/site.py`.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    /// Without the key and the time of expiry, which are compared by what they mean.
    cookie: Option<Vec<String>>,
    /// `kept`, `new` or `deleted`.
    key: &'static str,
    vary: Option<String>,
    content: Value,
    seen: Value,
}

fn outcome(
    status: u16,
    cookie: Option<&str>,
    vary: Option<String>,
    content: Value,
    seen: Value,
    key: &str,
) -> Outcome {
    let value =
        cookie.map(|cookie| cookie.split(';').next().unwrap().split_once('=').unwrap().1.trim_matches('"'));
    Outcome {
        status,
        cookie: cookie.map(attributes),
        key: match value {
            None => "no cookie",
            Some("") => "deleted",
            Some(value) if value == key => "kept",
            Some(_) => "new",
        },
        vary,
        content,
        seen,
    }
}

impl Site {
    /// A session of the case's content, and the cookie header that brings it.
    fn session(&mut self, case: &Case) -> (String, Option<String>) {
        let stored: serde_json::Map<_, _> =
            case.stored.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let key = self.ask(&json!({"make": stored})).as_str().unwrap().to_owned();
        let cookie = case.cookie.header(&key);
        (key, cookie)
    }

    fn play_django(&mut self, case: &Case) -> Outcome {
        let (key, cookie) = self.session(case);
        let steps: Vec<_> = case.steps.iter().map(Step::to_json).collect();
        let settings: serde_json::Map<_, _> =
            case.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // WSGI hands headers over as latin-1.
        let cookie: Option<String> = cookie.map(|text| text.bytes().map(char::from).collect());
        let answer = self.ask(&json!({
            "cookie": cookie, "steps": steps, "status": case.status, "vary": case.vary, "settings": settings,
        }));
        let cookie = answer["cookie"].as_str();
        let vary = answer["vary"].as_str().map(str::to_owned);
        let status = answer["status"].as_u64().unwrap() as u16;
        // A response in place of the handler's tells nothing of what it saw.
        let seen = if status == case.status { answer["seen"].clone() } else { json!([]) };
        let now = self.ask(&json!({"content": key}));
        outcome(status, cookie, vary, json!([answer["content"], now]), seen, &key)
    }

    /// What Django finds in the store, under the key of the cookie and under the one that the request had.
    fn content(&mut self, cookie: Option<&str>, key: &str) -> Value {
        let value = cookie
            .map(|cookie| cookie.split(';').next().unwrap().split_once('=').unwrap().1.trim_matches('"'));
        let content = match value {
            None | Some("") => Value::Null,
            Some(value) => self.ask(&json!({"content": value})),
        };
        json!([content, self.ask(&json!({"content": key}))])
    }

    async fn play_axum(&mut self, case: &Case) -> Outcome {
        let (key, cookie) = self.session(case);
        let steps = case.steps.clone();
        let (status, vary) = (case.status, case.vary);
        let handler = move |session: Session| async move {
            let mut seen = Vec::new();
            for step in &steps {
                if matches!(step, Step::Raise) {
                    return Ok::<_, StoreError>(
                        Response::builder().status(500).body(Body::from("[]")).unwrap(),
                    );
                }
                step.play(&session, &mut seen).await?;
            }
            let mut response = Response::builder().status(status);
            if let Some(vary) = vary {
                response = response.header("Vary", vary);
            }
            Ok(response.body(Body::from(json!(seen).to_string())).unwrap())
        };
        let settings = settings(case);
        let store = DbStore::new(self.store.pool().clone(), settings.clone());
        let app = axum::Router::new()
            .route("/", axum::routing::get(handler))
            .layer(SessionLayer::new(store, settings));
        let mut request = Request::builder().uri("/");
        if let Some(cookie) = cookie {
            request = request.header("Cookie", cookie.into_bytes());
        }
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        self.our_outcome(parts.status, &parts.headers, &body, &key)
    }

    fn our_outcome(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8], key: &str) -> Outcome {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let cookie = text("set-cookie");
        let content = self.content(cookie.as_deref(), key);
        let seen = serde_json::from_slice(body).unwrap_or(json!([]));
        outcome(status.as_u16(), cookie.as_deref(), text("vary"), content, seen, key)
    }

    async fn play_actix(&mut self, case: &Case) -> Outcome {
        use actix_web::{App, HttpResponse, test, web};

        let (key, cookie) = self.session(case);
        let steps = Arc::new(case.steps.clone());
        let (status, vary) = (case.status, case.vary);
        let handler = move |session: Session| {
            let steps = steps.clone();
            async move {
                let mut seen = Vec::new();
                for step in steps.iter() {
                    if matches!(step, Step::Raise) {
                        return Ok::<_, actix_web::Error>(HttpResponse::InternalServerError().finish());
                    }
                    step.play(&session, &mut seen).await?;
                }
                let mut response =
                    HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap());
                if let Some(vary) = vary {
                    response.insert_header(("Vary", vary));
                }
                Ok(response.body(json!(seen).to_string()))
            }
        };
        let settings = settings(case);
        let store = DbStore::new(self.store.pool().clone(), settings.clone());
        let app = App::new().wrap(SessionMiddleware::new(store, settings)).route("/", web::get().to(handler));
        let app = test::init_service(app).await;
        let mut request = test::TestRequest::get().uri("/");
        if let Some(cookie) = cookie {
            let value = actix_web::http::header::HeaderValue::from_bytes(cookie.as_bytes()).unwrap();
            request = request.insert_header(("Cookie", value));
        }
        let response = app.call(request.to_request()).await.unwrap();
        let status = StatusCode::from_u16(response.status().as_u16()).unwrap();
        let headers = headers_of(&response);
        let body = test::read_body(response).await;
        self.our_outcome(status, &headers, &body, &key)
    }

    async fn compare(&mut self, case: &Case) {
        let mut expected = self.play_django(case);
        // Django's page for an exception looks at the session itself, and tells nothing of what the view saw.
        let raises = case.steps.iter().any(|step| matches!(step, Step::Raise));
        for (name, found) in
            [("axum", self.play_axum(case).await), ("actix-web", self.play_actix(case).await)]
        {
            if raises {
                expected.vary.clone_from(&found.vary);
                expected.seen.clone_from(&found.seen);
            }
            assert_eq!(found, expected, "{name} (left) and Django (right): {case:?}");
        }
    }
}

#[tokio::test]
async fn every_cookie_with_every_step() {
    let Some(mut site) = Site::start("site.py").await else { return };
    let cases = systematic();
    assert!(cases.len() >= 150);
    for case in cases {
        site.compare(&case).await;
    }
}

#[tokio::test]
async fn generated_requests() {
    let Some(mut site) = Site::start("site.py").await else { return };
    let mut runner = TestRunner::new(Config::default());
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { 2000 } else { 250 };
    for _ in 0..cases {
        let case = case().new_tree(&mut runner).unwrap().current();
        site.compare(&case).await;
    }
}

fn plain() -> Case {
    let (cookie, stored) = (Cookie::Good, vec![("a", 1)]);
    Case { cookie, stored, steps: vec![], status: 200, vary: None, settings: vec![] }
}

#[tokio::test]
async fn a_panic_saves_nothing() {
    let Some(mut site) = Site::start("site.py").await else { return };
    let case = plain();
    let (key, cookie) = site.session(&case);
    async fn panics(session: Session) {
        session.insert("a", &2).await.unwrap();
        panic!("as handlers do");
    }
    let app = axum::Router::new()
        .route("/", axum::routing::get(panics))
        .layer(SessionLayer::new(site.store.clone(), settings(&case)));
    let request = Request::builder().uri("/").header("Cookie", cookie.unwrap()).body(Body::empty()).unwrap();
    assert!(tokio::spawn(app.oneshot(request)).await.unwrap_err().is_panic());
    assert_eq!(site.ask(&json!({"content": key})), json!({"a": 1}));
}

#[tokio::test]
async fn a_guard_that_outlives_the_handler_is_an_error_and_no_deadlock() {
    let Some(mut site) = Site::start("site.py").await else { return };
    let case = plain();
    let (_, cookie) = site.session(&case);
    async fn keeps(session: Session) -> Body {
        let guard = session.lock().await.unwrap();
        Body::from_stream(futures_util::stream::once(async move {
            let _still_there = guard;
            Ok::<_, StoreError>("body")
        }))
    }
    let app = axum::Router::new()
        .route("/", axum::routing::get(keeps))
        .layer(SessionLayer::new(site.store.clone(), settings(&case)));
    let request = Request::builder().uri("/").header("Cookie", cookie.unwrap()).body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), 500);
}

/// A handler may keep the session for its streamed body, as long as it does not hold it when it returns.
#[tokio::test]
async fn a_streamed_body_reads_the_session() {
    let Some(mut site) = Site::start("site.py").await else { return };
    let case = plain();
    let (key, cookie) = site.session(&case);
    async fn streams(session: Session) -> Body {
        session.insert("a", &2).await.unwrap();
        Body::from_stream(futures_util::stream::once(async move {
            let a = session.get::<i64>("a").await?;
            session.insert("a", &3).await?;
            Ok::<_, StoreError>(format!("{a:?}"))
        }))
    }
    let app = axum::Router::new()
        .route("/", axum::routing::get(streams))
        .layer(SessionLayer::new(site.store.clone(), settings(&case)));
    let request = Request::builder().uri("/").header("Cookie", cookie.unwrap()).body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(body, "Some(2)");
    let key = SessionKey::new(key).unwrap();
    assert_eq!(
        site.store.load(&key).await.unwrap().get::<i64>("a").unwrap(),
        Some(2),
        "saved before the body"
    );
}

#[tokio::test]
async fn without_the_layer_the_log_says_what_to_do() {
    async fn handler(_: Session) {}
    let app = axum::Router::new().route("/", axum::routing::get(handler));
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), 500);
    let message = django_sessions::web::axum::MissingLayer.to_string();
    assert!(message.contains("SessionLayer"), "{message}");
}

/// Where only such a default was set, the browser and the store see what they see when a value was only read.
#[tokio::test]
async fn a_lazy_default_is_no_reason_to_store_a_session() {
    let Some(mut site) = Site::start("site.py").await else { return };
    for cookie in [Cookie::None, Cookie::Good, Cookie::Unknown, Cookie::TooShort, Cookie::Other] {
        for settings in [vec![], vec![("SESSION_SAVE_EVERY_REQUEST", json!(true))]] {
            // An old session is saved with it then.
            if matches!(cookie, Cookie::Good) && !settings.is_empty() {
                continue;
            }
            let stored = vec![("a", 1)];
            let case = |step| Case {
                cookie,
                stored: stored.clone(),
                steps: vec![step],
                status: 200,
                vary: None,
                settings: settings.clone(),
            };
            let (reads, defaults) = (case(Step::Get("lang")), case(Step::DefaultLazily("lang")));
            let mut expected = site.play_django(&reads);
            expected.seen = json!([]);
            for found in [site.play_axum(&defaults).await, site.play_actix(&defaults).await] {
                assert_eq!(found, expected, "{defaults:?}");
            }
        }
    }
}
