//! A busy run, with every record and span of every crate kept: no secret is among them.

use std::io::Write;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::fmt::format::FmtSpan;

use super::*;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Kept;

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(|| Kept)
            .init();
    });
}

/// In a process of its own: whoever listens to all threads hears the other tests, too.
#[test]
fn nothing_shows() {
    if std::env::var_os("NOTHING_SHOWS").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(busy());
    }
    let itself = std::env::current_exe().unwrap();
    let output = std::process::Command::new(itself)
        .args(["secrets::nothing_shows", "--exact", "--nocapture"])
        .env("NOTHING_SHOWS", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn busy() {
    let Some(servers) = Servers::start(&["redis", "postgres"]) else { return };
    listen();
    let password = "the-password-of-a-database";
    let mut secrets = vec![SECRET_KEY.to_owned(), "hush-hush".to_owned(), "hush-in-a-message".to_owned()];
    secrets.push(password.to_owned());
    let mut debug = String::new();
    for (store, count) in [(on_redis(&servers).await, 3), (on_postgres(&servers).await, 3)] {
        for kind in KINDS {
            let app = App::start(kind, store.clone(), settings()).await;
            for number in 0..count {
                secrets.extend(one_browser(&app, number).await);
            }
        }
    }
    // A database that is not there.
    let url = format!("postgres://somebody:{password}@127.0.0.1:1/nowhere");
    debug += &format!("{:?}", Pool::connect(&url).await.map(|_| ()));
    let settings = settings();
    debug += &format!(
        "{:?}",
        django_sessions::web::tower::SessionLayer::new(on_redis(&servers).await, settings.clone())
    );
    debug += &format!("{:?}", django_sessions::web::tower::CsrfLayer::new(settings.clone()));
    debug += &format!("{:?}", django_sessions::web::tower::MessagesLayer::new(settings.clone()).unwrap());
    debug += &format!("{:?}", django_sessions::web::actix::CsrfMiddleware::new(settings.clone()));
    debug += &format!("{:?}", django_sessions::web::actix::MessagesMiddleware::new(settings).unwrap());

    let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned() + &debug;
    for expected in ["django.security.csrf: Forbidden (CSRF token missing.): /form", "sha256:", "CsrfLayer"] {
        assert!(log.contains(expected), "{expected} is there to be found");
    }
    assert!(secrets.len() > 50, "{}", secrets.len());
    for secret in secrets {
        let place = log.find(&secret);
        let around = place.map(|place| {
            &log[log.floor_char_boundary(place.saturating_sub(200))..log.ceil_char_boundary(place + 200)]
        });
        assert!(place.is_none(), "{secret} in {around:?}");
    }
}

/// All that a browser may do; what comes of it is secret.
async fn one_browser(app: &App, number: usize) -> Vec<String> {
    let mut client = Client::connect(app.address).await;
    let reply = client.get("/token", "").await;
    let (token, secret) = (reply.text(), reply.cookie("csrftoken").unwrap());
    let head = format!("Cookie: csrftoken={secret}\r\nX-CSRFToken: {token}\r\n");
    let reply = client.ask("POST", "/login/hush-hush", &head, b"").await;
    let (key, rotated) = (reply.cookie("sessionid").unwrap(), reply.cookie("csrftoken").unwrap());
    let wrong = "x".repeat(31) + &number.to_string();
    let mut all = vec![token, secret, key.clone(), rotated.clone(), wrong.clone()];
    let head = format!("Cookie: sessionid={key}; csrftoken={rotated}\r\n");
    let reply = client.get("/message", &head).await;
    let messages = reply.cookie("messages").unwrap();
    for path in ["/visit", "/peek", "/stream", "/nowhere", "/message"] {
        client.get(path, &head).await;
    }
    client.get("/message", &format!("Cookie: messages={messages}\r\n")).await;
    client.get("/message", &format!("Cookie: messages={messages}x\r\n")).await;
    all.push(messages);
    // Refused, and not found.
    for head in
        [&*head, &format!("{head}X-CSRFToken: {wrong}\r\n"), &format!("Cookie: csrftoken={wrong}!\r\n")]
    {
        let reply = Client::connect(app.address).await.ask("POST", "/form", head, b"a=b").await;
        assert_eq!(reply.status, 403);
    }
    let body = format!("csrfmiddlewaretoken={wrong}");
    let form = format!("{head}Content-Type: application/x-www-form-urlencoded\r\n");
    let reply = Client::connect(app.address).await.ask("POST", "/form", &form, body.as_bytes()).await;
    assert_eq!(reply.status, 403);
    Client::connect(app.address).await.get("/visit", &format!("Cookie: sessionid={wrong}\r\n")).await;
    Client::connect(app.address).await.send("GET", "/panic", &head, b"").await;
    let mut gone = Client::connect(app.address).await;
    gone.send("GET", "/slow", &head, b"").await;
    gone.hang_up(true);
    all
}
