//! Sessions, CSRF and messages behind real servers of axum and actix-web, over TCP: streams, upgrades, panics, browsers that
//! hang up, cookies that nobody should send, and what the log says of all that.

#[path = "web_servers/apps.rs"]
mod apps;
#[path = "web_servers/client.rs"]
mod client;
mod dice;
mod django;
#[path = "web_servers/hostile.rs"]
mod hostile;
#[path = "web_servers/load.rs"]
mod load;
#[path = "web_servers/secrets.rs"]
mod secrets;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;

use std::sync::Arc;
use std::time::Duration;

use apps::{App, KINDS};
use client::{Client, Reply};
use django_sessions::backends::SessionStore;
use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::db::{DbStore, Pool};
use django_sessions::caches::KeyLayout;
use django_sessions::caches::format::Format;
use django_sessions::caches::redis::{RedisCache, RedisSettings};
use django_sessions::crypto::SecretKeys;
use django_sessions::session::{Session, SessionKey};
use django_sessions::settings::Settings;
use servers::Servers;

const SECRET_KEY: &str = "the-secret-key-of-this-site";

fn settings() -> Settings {
    Settings::new(SecretKeys::new(SECRET_KEY))
}

async fn on_postgres(servers: &Servers) -> Arc<dyn SessionStore> {
    let pool = Pool::connect(servers.text("postgres", "url")).await.unwrap();
    let statement = "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
                     expire_date timestamp with time zone NOT NULL)";
    sqlx::raw_sql(statement).execute(pool.postgres().unwrap()).await.unwrap();
    Arc::new(DbStore::new(pool, settings()))
}

async fn on_redis(servers: &Servers) -> Arc<dyn SessionStore> {
    let cache = RedisCache::open(&RedisSettings::new(servers.text("redis", "url"))).await.unwrap();
    Arc::new(CacheStore::new(Arc::new(cache), KeyLayout::default(), Format::django(), settings()))
}

async fn on_sqlite(folder: &tempfile::TempDir) -> Arc<dyn SessionStore> {
    let url = format!("sqlite:{}?mode=rwc", folder.path().join("db.sqlite3").display());
    let pool = Pool::connect(&url).await.unwrap();
    let statement = "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
                     expire_date datetime NOT NULL)";
    sqlx::raw_sql(statement).execute(pool.sqlite().unwrap()).await.unwrap();
    Arc::new(DbStore::new(pool, settings()))
}

/// A stored session with `a` = 1, and its key.
async fn stored(store: &dyn SessionStore) -> SessionKey {
    let mut session = Session::new();
    session.insert("a", &1).unwrap();
    store.save(&mut session).await.unwrap();
    session.key().unwrap().clone()
}

async fn value_of_a(store: &dyn SessionStore, key: &SessionKey) -> Option<i64> {
    store.load(key).await.unwrap().get("a").unwrap()
}

fn cookie(key: &SessionKey) -> String {
    format!("Cookie: sessionid={}\r\n", key.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_upgrades_and_early_answers() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_sqlite(&folder).await;
    for kind in KINDS {
        let app = App::start(kind, store.clone(), settings()).await;
        let key = stored(&*store).await;
        let mut client = Client::connect(app.address).await;

        // A stream: it is saved when the head goes out, and what the body does then is lost.
        let reply = client.get("/stream", &cookie(&key)).await;
        assert_eq!((reply.status, &*reply.text()), (200, "one two 2"), "{kind:?}");
        assert!(reply.header("set-cookie").unwrap().starts_with("sessionid="), "{kind:?}");
        assert_eq!(value_of_a(&*store, &key).await, Some(2), "{kind:?}: saved before the body");

        // Another on the same connection, without a body, and without the session.
        let reply = client.ask("HEAD", "/peek", &cookie(&key), b"").await;
        assert_eq!((reply.status, reply.header("vary")), (200, Some("Cookie")), "{kind:?}");
        let reply = client.ask("OPTIONS", "/early", &cookie(&key), b"").await;
        assert_eq!(
            (reply.status, reply.header("vary"), reply.header("set-cookie")),
            (204, None, None),
            "{kind:?}"
        );
        let reply = client.get("/nowhere", &cookie(&key)).await;
        assert_eq!(
            (reply.status, reply.header("vary"), reply.header("set-cookie")),
            (404, None, None),
            "{kind:?}"
        );

        // An upgrade is a response as others are, and then bytes.
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let reply = client.get("/upgrade", &format!("{upgrade}{}", cookie(&key))).await;
        assert_eq!(reply.status, 101, "{kind:?}");
        assert!(reply.header("set-cookie").unwrap().starts_with("sessionid="), "{kind:?}");
        assert_eq!(value_of_a(&*store, &key).await, Some(3), "{kind:?}: saved with the upgrade");
        client.write(b"hello").await;
        assert_eq!(client.read(5).await, b"hello", "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_saves_nothing_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_sqlite(&folder).await;
    for kind in KINDS {
        let app = App::start(kind, store.clone(), settings()).await;
        let key = stored(&*store).await;
        for _ in 0..3 {
            let mut client = Client::connect(app.address).await;
            client.send("GET", "/panic", &cookie(&key), b"").await;
            assert!(client.try_reply().await.is_none(), "{kind:?}: the connection ends");
            assert_eq!(value_of_a(&*store, &key).await, Some(1), "{kind:?}");
        }
        let reply = Client::connect(app.address).await.get("/peek", &cookie(&key)).await;
        assert_eq!(reply.text(), "Some(1)", "{kind:?}");
    }
}

/// The handler waits until the browser is gone, or for a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_hangs_up_saves_nothing() {
    let Some(servers) = Servers::start(&["redis", "postgres"]) else { return };
    for store in [on_redis(&servers).await, on_postgres(&servers).await] {
        for kind in KINDS {
            let app = App::start(kind, store.clone(), settings()).await;
            let key = stored(&*store).await;
            let mut gone = Vec::new();
            for number in 0..40 {
                let mut client = Client::connect(app.address).await;
                client.send("GET", "/slow", &cookie(&key), b"").await;
                tokio::time::sleep(Duration::from_millis(number % 4 * 5)).await;
                client.hang_up(number % 2 == 0);
                gone.push(number);
            }
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(value_of_a(&*store, &key).await, Some(1), "{kind:?}");
            let mut client = Client::connect(app.address).await;
            for _ in 0..20 {
                assert_eq!(client.get("/peek", &cookie(&key)).await.text(), "Some(1)", "{kind:?}");
            }
        }
    }
}

/// Forms of any size and in any pieces reach the handler as they were sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_come_through_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_sqlite(&folder).await;
    for kind in KINDS {
        let app = App::start(kind, store.clone(), settings()).await;
        let reply = Client::connect(app.address).await.get("/token", "").await;
        let (token, secret) = (reply.text(), reply.cookie("csrftoken").unwrap());
        let form =
            |content_type: &str| format!("Cookie: csrftoken={secret}\r\nContent-Type: {content_type}\r\n");
        let urlencoded = form("application/x-www-form-urlencoded");
        let multipart = form("multipart/form-data; boundary=xyz");
        for size in [0, 1, 1_000, 70_000, 2_000_000, 4_000_000] {
            let filler = "x".repeat(size);
            let in_field = format!("csrfmiddlewaretoken={token}&filler={filler}");
            let in_part = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"csrfmiddlewaretoken\"\r\n\r\n{token}\r\n--xyz\r\n\
                 Content-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n{filler}\r\n--xyz--\r\n"
            );
            let is_too_large = size > 2_621_440;
            for (head, body) in [(&urlencoded, &in_field), (&multipart, &in_part)] {
                let mut client = Client::connect(app.address).await;
                let reply = client.ask("POST", "/form", head, body.as_bytes()).await;
                if is_too_large && head == &urlencoded {
                    assert_eq!(reply.status, 400, "{kind:?}, {size}");
                    continue;
                }
                assert_eq!(
                    (reply.status, reply.text()),
                    (200, client::digest(body.as_bytes())),
                    "{kind:?}, {size}"
                );
                // The connection is good for more.
                let reply = client.ask_in_pieces("POST", "/form", head, body.as_bytes()).await;
                assert_eq!(
                    (reply.status, reply.text()),
                    (200, client::digest(body.as_bytes())),
                    "{kind:?}, {size}"
                );
            }
            // A file of any kind with the token in the header is not read at all before its handler does.
            let head =
                format!("Cookie: csrftoken={secret}\r\nX-CSRFToken: {token}\r\nContent-Type: text/plain\r\n");
            let reply =
                Client::connect(app.address).await.ask("POST", "/form", &head, filler.as_bytes()).await;
            assert_eq!(
                (reply.status, reply.text()),
                (200, client::digest(filler.as_bytes())),
                "{kind:?}, {size}"
            );
            let refused = Client::connect(app.address).await.ask("POST", "/form", "", b"a=b").await;
            assert_eq!(refused.status, 403, "{kind:?}");
        }
        // A form that breaks off.
        let mut client = Client::connect(app.address).await;
        client
            .write(
                format!("POST /form HTTP/1.1\r\nHost: a\r\n{urlencoded}Content-Length: 900\r\n\r\ncsrf")
                    .as_bytes(),
            )
            .await;
        client.hang_up(false);
        let reply = Client::connect(app.address).await.get("/peek", "").await;
        assert_eq!(reply.status, 200, "{kind:?}: the server goes on");
    }
}

/// `messages_tests.test_middleware_disabled`, and the same for CSRF: the log says which layer is missing.
#[test]
fn without_its_layer() {
    use actix_web::FromRequest;
    use axum::extract::FromRequestParts;
    use django_sessions::web::{Csrf, Messages};

    let (mut parts, ()) = axum::http::Request::new(()).into_parts();
    let request = actix_web::test::TestRequest::default().to_http_request();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let csrf = <Csrf as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await.unwrap_err();
        let messages =
            <Messages as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert!(csrf.to_string().contains("tower::CsrfLayer"), "{csrf}");
        assert!(messages.to_string().contains("tower::MessagesLayer"), "{messages}");
        let csrf = <Csrf as FromRequest>::extract(&request).await.unwrap_err();
        let messages = <Messages as FromRequest>::extract(&request).await.unwrap_err();
        assert!(csrf.to_string().contains("actix::CsrfMiddleware::new("), "{csrf}");
        assert!(messages.to_string().contains("actix::MessagesMiddleware::new("), "{messages}");
    });
}
