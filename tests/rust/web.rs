//! The session cookie in real requests: what the extractors hand to a handler.

#![cfg(any(feature = "axum", feature = "actix"))]

use django_sessions::crypto::SecretKeys;
use django_sessions::session::SessionKey;
use django_sessions::settings::SessionSettings;

const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// The `Cookie` headers of a request, and the key that Django would take from them.
const REQUESTS: [(&[&str], Option<&str>); 6] = [
    (&[], None),
    (&["theme=dark; sid=0123456789abcdefghijklmnopqrstuv"], Some(KEY)),
    (&["theme=dark", "sid=0123456789abcdefghijklmnopqrstuv"], Some(KEY)),
    (&["sid=another-visitor", "sid=0123456789abcdefghijklmnopqrstuv; a=b"], Some(KEY)),
    (&["sessionid=0123456789abcdefghijklmnopqrstuv"], None),
    (&["sid=short"], None),
];

fn settings() -> SessionSettings {
    let mut settings = SessionSettings::new(SecretKeys::new("secret"));
    settings.session_cookie_name = "sid".to_owned();
    settings
}

/// What a handler says: the key itself, which only a test may show.
fn shown(key: Option<SessionKey>) -> String {
    key.map_or("nobody".to_owned(), |key| key.as_str().to_owned())
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_reads_the_cookie() {
    use std::sync::Arc;

    use axum::{Router, routing::get};
    use django_sessions::web::axum::SessionCookie;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn handler(SessionCookie(key): SessionCookie) -> String {
        shown(key)
    }
    let app = Router::new().route("/", get(handler)).with_state(Arc::new(settings()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    for (headers, expected) in REQUESTS {
        let cookies: String = headers.iter().map(|header| format!("Cookie: {header}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{cookies}\r\n");
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, expected.unwrap_or("nobody"), "{headers:?}");
    }
}

#[cfg(feature = "actix")]
mod actix {
    use std::io;
    use std::sync::{Arc, Mutex};

    use actix_web::http::{StatusCode, header::COOKIE};
    use actix_web::{App, test, web};
    use django_sessions::web::actix::SessionCookie;

    use super::*;

    async fn handler(SessionCookie(key): SessionCookie) -> String {
        shown(key)
    }

    #[tokio::test]
    async fn reads_the_cookie() {
        let app = App::new().app_data(web::Data::new(settings())).route("/", web::get().to(handler));
        let app = test::init_service(app).await;
        for (headers, expected) in REQUESTS {
            let mut request = test::TestRequest::get().uri("/");
            for header in headers {
                request = request.append_header((COOKIE, *header));
            }
            let body = test::call_and_read_body(&app, request.to_request()).await;
            assert_eq!(body, expected.unwrap_or("nobody"), "{headers:?}");
        }
    }

    /// What is logged, for the test to read.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn missing_settings_are_the_server_s_fault_and_the_log_says_what_to_do() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);

        let app = test::init_service(App::new().route("/", web::get().to(handler))).await;
        let response = test::call_service(&app, test::TestRequest::get().uri("/").to_request()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = test::read_body(response).await;
        assert!(
            !String::from_utf8_lossy(&body).contains("app_data"),
            "visitors need not know how it is built"
        );
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("ERROR") && log.contains(".app_data(web::Data::new("), "{log}");
    }
}
