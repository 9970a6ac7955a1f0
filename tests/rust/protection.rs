//! CSRF and messages as layers: the same requests to a Django view behind Django's own middleware and to Rust handlers
//! that do the same, over axum and actix-web: same status, same `Set-Cookie`, same `Vary`, same log, same session
//! afterwards. `protection.md` says which of Django's tests each case mirrors.

#[path = "protection/csrf.rs"]
mod csrf;
mod django;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod logged;
#[path = "protection/messages.rs"]
mod messages;
#[path = "django/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::dev::Service as _;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use django_sessions::backends::StoreError;
use django_sessions::backends::db::DbStore;
use django_sessions::contrib::csrf::CsrfSecret;
use django_sessions::contrib::messages::{Level, Message, Messages as Stored, Storage};
use django_sessions::crypto::SecretKeys;
use django_sessions::settings::{SameSite, Settings};
use django_sessions::web::actix::{CsrfMiddleware, MessagesMiddleware, SessionMiddleware};
use django_sessions::web::tower::{CsrfLayer, MessagesLayer, SessionLayer};
use django_sessions::web::{Csrf, CsrfOptions, Messages, Session};
use logged::Logged;
use serde_json::{Value, json};
use site::{Site, attributes, headers_of};
use tower::ServiceExt;

/// One thing that a view does; names and arguments are those of `django/protected.py`.
#[derive(Clone, Debug)]
enum Step {
    GetToken,
    Rotate,
    Insert(&'static str, i64),
    Add(i64, String, Option<&'static str>, bool),
    Take,
    Count,
    SetLevel(i64),
}

impl Step {
    fn to_json(&self) -> Value {
        match self {
            Self::GetToken => json!(["get_token"]),
            Self::Rotate => json!(["rotate"]),
            Self::Insert(key, value) => json!(["insert", key, value]),
            Self::Add(level, text, tags, is_safe) => json!(["add", level, text, tags, is_safe]),
            Self::Take => json!(["take"]),
            Self::Count => json!(["count"]),
            Self::SetLevel(level) => json!(["set_level", level]),
        }
    }

    async fn play(
        &self,
        session: Option<&Session>,
        csrf: &Csrf,
        messages: &Messages,
    ) -> Result<Option<Value>, StoreError> {
        match self {
            Self::GetToken => return Ok(Some(json!(csrf.token()?))),
            Self::Rotate => csrf.rotate()?,
            Self::Insert(key, value) => session.expect("the case has sessions").insert(key, value).await?,
            Self::Add(level, text, tags, is_safe) => {
                let (level, extra_tags) = (Level(*level), tags.map(str::to_owned));
                messages.push(Message { level, text: text.clone(), extra_tags, is_safe: *is_safe }).await;
            }
            Self::Take => {
                let shown = messages.take().await?;
                return Ok(Some(shown.iter().map(shown_as_json).collect()));
            }
            Self::Count => return Ok(Some(json!(messages.count().await?))),
            Self::SetLevel(level) => messages.set_level(Level(*level)).await,
        }
        Ok(None)
    }
}

fn shown_as_json(message: &Message) -> Value {
    json!([message.level.0, message.text, message.extra_tags, message.is_safe, message.tags()])
}

/// One request.
#[derive(Clone, Debug)]
struct Case {
    /// Django's test, if it mirrors one.
    name: &'static str,
    method: &'static str,
    is_secure: bool,
    server_port: Option<u16>,
    headers: Vec<(&'static str, String)>,
    content_type: String,
    body: String,
    steps: Vec<Step>,
    status: u16,
    exempt: bool,
    has_sessions: bool,
    settings: Vec<(&'static str, Value)>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            method: "GET",
            is_secure: false,
            server_port: None,
            headers: vec![],
            content_type: String::new(),
            body: String::new(),
            steps: vec![],
            status: 200,
            exempt: false,
            has_sessions: true,
            settings: vec![],
        }
    }
}

impl Case {
    fn settings(&self) -> (Settings, CsrfOptions) {
        let keys = SecretKeys::new("the child's key").with_fallbacks(["its former key"]);
        let (mut settings, mut options) = (Settings::new(keys), CsrfOptions::default());
        options.is_tls = self.is_secure;
        options.exempt = self.exempt;
        options.server_port = self.server_port.or(Some(80));
        for (name, value) in &self.settings {
            set(&mut settings, &mut options, name, value);
        }
        (settings, options)
    }
}

fn set(settings: &mut Settings, options: &mut CsrfOptions, name: &str, value: &Value) {
    let text = || value.as_str().unwrap().to_owned();
    let texts = || value.as_array().unwrap().iter().map(|each| each.as_str().unwrap().to_owned()).collect();
    let flag = || value.as_bool().unwrap();
    let same_site = || match value.as_str() {
        Some("Lax") => Some(SameSite::Lax),
        Some("Strict") => Some(SameSite::Strict),
        Some(_) => Some(SameSite::None),
        None => None,
    };
    match name {
        "ALLOWED_HOSTS" => options.allowed_hosts = Some(texts()),
        "USE_X_FORWARDED_HOST" => options.use_x_forwarded_host = flag(),
        "USE_X_FORWARDED_PORT" => options.use_x_forwarded_port = flag(),
        "SECURE_PROXY_SSL_HEADER" => {
            let pair: Vec<String> = texts();
            options.secure_proxy_ssl_header = Some((pair[0].clone(), pair[1].clone()));
        }
        "DATA_UPLOAD_MAX_MEMORY_SIZE" => {
            options.data_upload_max_memory_size = value.as_u64().unwrap() as usize
        }
        "DATA_UPLOAD_MAX_NUMBER_FIELDS" => {
            options.data_upload_max_number_fields = value.as_u64().map(|count| count as usize);
        }
        "CSRF_TRUSTED_ORIGINS" => settings.csrf.trusted_origins = texts(),
        "CSRF_USE_SESSIONS" => settings.csrf.use_sessions = flag(),
        // As the export writes it.
        "CSRF_HEADER_NAME" => settings.csrf.header_name = text().replacen("HTTP_", "", 1).replace('_', "-"),
        "CSRF_COOKIE_NAME" => settings.csrf.cookie_name = text(),
        "CSRF_COOKIE_AGE" => settings.csrf.cookie_age = value.as_i64(),
        "CSRF_COOKIE_DOMAIN" => settings.csrf.cookie_domain = value.as_str().map(str::to_owned),
        "CSRF_COOKIE_PATH" => settings.csrf.cookie_path = text(),
        "CSRF_COOKIE_SECURE" => settings.csrf.cookie_secure = flag(),
        "CSRF_COOKIE_HTTPONLY" => settings.csrf.cookie_httponly = flag(),
        "CSRF_COOKIE_SAMESITE" => settings.csrf.cookie_samesite = same_site(),
        "SESSION_COOKIE_DOMAIN" => settings.session_cookie_domain = Some(text()),
        "SESSION_COOKIE_SECURE" => settings.session_cookie_secure = flag(),
        "SESSION_COOKIE_HTTPONLY" => settings.session_cookie_httponly = flag(),
        "SESSION_COOKIE_SAMESITE" => settings.session_cookie_samesite = same_site(),
        "SESSION_SAVE_EVERY_REQUEST" => settings.session_save_every_request = flag(),
        "MESSAGE_STORAGE" => settings.messages.storage = text(),
        // Django's page for a refusal says the reason with it; ours never does.
        "DEBUG" => {}
        name => panic!("{name} is unknown here"),
    }
}

/// A browser: its cookies, by their names.
type Jar = BTreeMap<String, String>;

#[derive(Debug, PartialEq)]
struct Outcome {
    status: u16,
    /// Name, what became of the value, attributes.
    cookies: Vec<(String, String, Vec<String>)>,
    vary: Option<String>,
    log: Vec<String>,
    /// Tokens as whether they fit to the secret that the browser then has, the others as they are.
    answers: Vec<Value>,
    session: Value,
}

/// What a server says, before it is compared.
struct Raw {
    status: u16,
    cookies: Vec<String>,
    vary: Option<String>,
    log: Vec<String>,
    answers: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Django,
    Axum,
    Actix,
}

const SERVERS: [Server; 3] = [Server::Django, Server::Axum, Server::Actix];

impl Site {
    fn make_session(&mut self, content: Value) -> String {
        self.ask(&json!({"make": content})).as_str().unwrap().to_owned()
    }

    /// Sends the request with the browser's cookies, which then are those of the response.
    async fn play(&mut self, server: Server, case: &Case, jar: &mut Jar) -> Outcome {
        let cookie: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookie = cookie.join("; ");
        let raw = match server {
            Server::Django => self.play_django(case, &cookie),
            Server::Axum => self.play_axum(case, &cookie).await,
            Server::Actix => self.play_actix(case, &cookie).await,
        };
        self.outcome(case, raw, jar)
    }

    fn play_django(&mut self, case: &Case, cookie: &str) -> Raw {
        let meta: serde_json::Map<_, _> = (case.headers.iter())
            .map(|(name, value)| (format!("HTTP_{}", name.to_uppercase().replace('-', "_")), json!(value)))
            .chain(case.server_port.map(|port| ("SERVER_PORT".to_owned(), json!(port.to_string()))))
            .collect();
        let steps: Vec<_> = case.steps.iter().map(Step::to_json).collect();
        let settings: serde_json::Map<_, _> =
            case.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let answer = self.ask(&json!({
            "method": case.method, "is_secure": case.is_secure, "meta": meta, "cookie": cookie,
            "body": case.body, "content_type": case.content_type, "steps": steps, "status": case.status,
            "exempt": case.exempt, "has_sessions": case.has_sessions, "settings": settings,
        }));
        let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
        let status = answer["status"].as_u64().unwrap() as u16;
        let is_views = status == case.status;
        Raw {
            status,
            cookies: texts(&answer["cookies"]),
            vary: answer["vary"].as_str().map(str::to_owned),
            log: texts(&answer["log"]),
            answers: if is_views { answer["answers"].as_array().unwrap().clone() } else { vec![] },
        }
    }

    async fn play_axum(&mut self, case: &Case, cookie: &str) -> Raw {
        let (settings, options) = case.settings();
        let store = DbStore::new(self.store.pool().clone(), settings.clone());
        let view = case.clone();
        let handler = move |csrf: Csrf, messages: Messages, request: Request<Body>| async move {
            let session = request.extensions().get::<Session>().cloned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body, latin_1(&view.body), "the handler gets what was sent");
            match answers(&view, session.as_ref(), &csrf, &messages).await {
                Ok(answers) => (StatusCode::from_u16(view.status).unwrap(), answers).into_response(),
                Err(error) => error.into_response(),
            }
        };
        let mut app = axum::Router::new()
            .fallback(handler)
            .layer(MessagesLayer::new(settings.clone()).unwrap())
            .layer(CsrfLayer::with_options(settings.clone(), options));
        if case.has_sessions {
            app = app.layer(SessionLayer::new(store, settings));
        }
        let mut request = Request::builder().method(case.method).uri("/").header("Cookie", cookie);
        for (name, value) in &case.headers {
            request = request.header(*name, latin_1(value));
        }
        if !case.content_type.is_empty() {
            request = request.header("Content-Type", &case.content_type);
        }
        // In pieces, as it comes over a wire.
        let body = latin_1(&case.body);
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            body.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let logged = Logged::default();
        let guard = logged.listen();
        let response = app.oneshot(request.body(body).unwrap()).await.unwrap();
        drop(guard);
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        raw(parts.status, &parts.headers, &body, &logged)
    }

    async fn play_actix(&mut self, case: &Case, cookie: &str) -> Raw {
        use actix_web::http::header::HeaderValue;
        use actix_web::middleware::Condition;
        use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, test, web};

        let (settings, options) = case.settings();
        let store = DbStore::new(self.store.pool().clone(), settings.clone());
        let view = Arc::new(case.clone());
        let handler = move |csrf: Csrf, messages: Messages, request: HttpRequest, body: web::Bytes| {
            let view = view.clone();
            async move {
                let session = request.extensions().get::<Session>().cloned();
                assert_eq!(body, latin_1(&view.body), "the handler gets what was sent");
                let answers = answers(&view, session.as_ref(), &csrf, &messages).await?;
                let status = actix_web::http::StatusCode::from_u16(view.status).unwrap();
                Ok::<_, StoreError>(HttpResponse::build(status).body(answers))
            }
        };
        let app = App::new()
            .wrap(MessagesMiddleware::new(settings.clone()).unwrap())
            .wrap(CsrfMiddleware::with_options(settings.clone(), options))
            .wrap(Condition::new(case.has_sessions, SessionMiddleware::new(store, settings)))
            .app_data(web::PayloadConfig::new(usize::MAX))
            .default_service(web::to(handler));
        let app = test::init_service(app).await;
        let method = actix_web::http::Method::from_bytes(case.method.as_bytes()).unwrap();
        let mut request = test::TestRequest::default().method(method).uri("/");
        request = request.insert_header(("Cookie", cookie));
        for (name, value) in &case.headers {
            request = request.insert_header((*name, HeaderValue::from_bytes(&latin_1(value)).unwrap()));
        }
        if !case.content_type.is_empty() {
            request = request.insert_header(("Content-Type", case.content_type.as_str()));
        }
        let request = request.set_payload(latin_1(&case.body)).to_request();
        let logged = Logged::default();
        let guard = logged.listen();
        let response = app.call(request).await.unwrap();
        drop(guard);
        let status = StatusCode::from_u16(response.status().as_u16()).unwrap();
        let headers = headers_of(&response);
        let body = test::read_body(response).await;
        raw(status, &headers, &body, &logged)
    }

    fn outcome(&mut self, case: &Case, raw: Raw, jar: &mut Jar) -> Outcome {
        let (settings, _) = case.settings();
        let before = jar.clone();
        for cookie in &raw.cookies {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match value.trim_matches('"') {
                "" => drop(jar.remove(name)),
                value => drop(jar.insert(name.to_owned(), value.to_owned())),
            }
        }
        let content = |site: &mut Self, jar: &Jar| match jar.get("sessionid") {
            Some(key) => site.ask(&json!({"content": key})),
            None => Value::Null,
        };
        let mut session = content(self, jar);
        let secret = |jar: &Jar, session: &Value| match settings.csrf.use_sessions {
            true => session["_csrftoken"].as_str().map(str::to_owned),
            false => jar.get(&settings.csrf.cookie_name).cloned(),
        };
        let now = secret(jar, &session).and_then(|secret| CsrfSecret::parse(&secret).ok());
        // What answers a HEAD has a body only where no server is there to leave it out.
        let answers = (raw.answers.into_iter().filter(|_| case.method != "HEAD"))
            .map(|answer| match answer.as_str() {
                Some(token) => {
                    let fits = now.as_ref().is_some_and(|secret| secret.matches(token) == Ok(true));
                    json!({"is_masked": token.len() == 64, "fits": fits})
                }
                None => answer,
            })
            .collect();
        if let Some(token) = session.get_mut("_csrftoken") {
            *token = json!(format!("a secret of {} characters", token.as_str().unwrap().len()));
        }
        let mut cookies: Vec<_> = (raw.cookies.iter())
            .map(|cookie| {
                let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
                let became = became(&settings, &before, name, value.trim_matches('"'));
                (name.to_owned(), became, attributes(cookie))
            })
            .collect();
        cookies.sort();
        Outcome { status: raw.status, cookies, vary: raw.vary, log: raw.log, answers, session }
    }

    /// The same sequence of requests with all three, each with its own browser.
    async fn compare(&mut self, sequence: &[Case], start: impl Fn(&mut Self) -> Jar) -> Vec<Outcome> {
        let mut all = Vec::new();
        for server in SERVERS {
            let mut jar = start(self);
            let mut outcomes = Vec::new();
            for case in sequence {
                outcomes.push(self.play(server, case, &mut jar).await);
            }
            all.push(outcomes);
        }
        let expected = all.remove(0);
        for (found, server) in all.into_iter().zip(["axum", "actix-web"]) {
            assert_eq!(found, expected, "{server} (left) and Django (right): {sequence:#?}");
        }
        expected
    }
}

fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}

async fn answers(
    case: &Case,
    session: Option<&Session>,
    csrf: &Csrf,
    messages: &Messages,
) -> Result<String, StoreError> {
    let mut answers = Vec::new();
    for step in &case.steps {
        answers.extend(step.play(session, csrf, messages).await?);
    }
    Ok(json!(answers).to_string())
}

fn raw(status: StatusCode, headers: &HeaderMap, body: &[u8], logged: &Logged) -> Raw {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let log = logged.text();
    let records =
        log.lines().filter_map(|line| line.split_once(" django.security.csrf: ")).map(|(_, text)| {
            text.strip_suffix(" status_code=403").expect("the status is a field of the record").to_owned()
        });
    Raw {
        status: status.as_u16(),
        cookies: texts("set-cookie"),
        vary: headers.get("vary").map(|value| value.to_str().unwrap().to_owned()),
        log: records.collect(),
        answers: serde_json::from_slice(body).unwrap_or_default(),
    }
}

/// What became of a cookie's value, as far as two servers can agree in it.
fn became(settings: &Settings, before: &Jar, name: &str, value: &str) -> String {
    if value.is_empty() {
        return "deleted".to_owned();
    }
    if name == "messages" {
        let mut messages =
            Stored::load(Storage::Cookie, &settings.secret_keys, Some(value), &Default::default());
        let shown: Vec<Value> = messages.take().iter().map(shown_as_json).collect();
        // Not how long it is: each zlib has its own way.
        return json!(shown).to_string();
    }
    let is_secret = name == settings.csrf.cookie_name;
    let same = |before: &String| match is_secret {
        true => CsrfSecret::parse(before).is_ok_and(|secret| secret.expose() == value),
        false => before == value,
    };
    match before.get(name) {
        Some(before) if same(before) => format!("kept, {} characters", value.len()),
        _ => format!("new, {} characters", value.len()),
    }
}

/// How many generated cases: more when asked for.
fn count(few: usize, many: usize) -> usize {
    if std::env::var_os("PROPTEST_CASES").is_some() { many } else { few }
}
