//! Cookies that come in several headers, and layers that are missing.

#[cfg(feature = "actix")]
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod logged;

use django_sessions::crypto::SecretKeys;
use django_sessions::session::SessionKey;
use django_sessions::settings::Settings;

const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// The `Cookie` headers of a request, and the key that Django would take from them.
const REQUESTS: [(&[&str], Option<&str>); 7] = [
    (&[], None),
    (&["theme=dark; sid=0123456789abcdefghijklmnopqrstuv"], Some(KEY)),
    (&["theme=dark", "sid=0123456789abcdefghijklmnopqrstuv"], Some(KEY)),
    (&["sid=another-visitor", "sid=0123456789abcdefghijklmnopqrstuv; a=b"], Some(KEY)),
    (&["sid=\"01234567\\070\\9abcdefghijklmnopqrstuv\""], Some("0123456789abcdefghijklmnopqrstuv")),
    (&["sessionid=0123456789abcdefghijklmnopqrstuv"], None),
    (&["sid=short"], None),
];

fn settings() -> Settings {
    let mut settings = Settings::new(SecretKeys::new("secret"));
    settings.session_cookie_name = "sid".to_owned();
    settings
}

/// What a handler says: the key itself, which only a test may show.
fn shown(key: Option<SessionKey>) -> String {
    key.map_or("nobody".to_owned(), |key| key.as_str().to_owned())
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_reads_the_cookies() {
    use axum::body::{Body, to_bytes};
    use axum::{Router, http::Request, routing::get};
    use django_sessions::backends::signed_cookies::SignedCookieStore;
    use django_sessions::web::axum::SessionCookie;
    use django_sessions::web::tower::SessionLayer;
    use tower::ServiceExt;

    let layer = SessionLayer::new(SignedCookieStore::new(settings()), settings());
    let handler = async |SessionCookie(key): SessionCookie| shown(key);
    let app: Router = Router::new().route("/", get(handler)).layer(layer);
    for (headers, expected) in REQUESTS {
        let mut request = Request::builder().uri("/");
        for header in headers {
            request = request.header("Cookie", *header);
        }
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let body = to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, expected.unwrap_or("nobody"), "{headers:?}");
    }
}

#[cfg(feature = "actix")]
mod actix {
    use actix_web::http::{StatusCode, header::COOKIE};
    use actix_web::{App, test, web};
    use django_sessions::backends::signed_cookies::SignedCookieStore;
    use django_sessions::web::actix::{SessionCookie, SessionMiddleware};

    use super::logged::Logged;
    use super::*;

    async fn handler(SessionCookie(key): SessionCookie) -> String {
        shown(key)
    }

    #[tokio::test]
    async fn reads_the_cookies() {
        let sessions = SessionMiddleware::new(SignedCookieStore::new(settings()), settings());
        let app = test::init_service(App::new().wrap(sessions).route("/", web::get().to(handler))).await;
        for (headers, expected) in REQUESTS {
            let mut request = test::TestRequest::get().uri("/");
            for header in headers {
                request = request.append_header((COOKIE, *header));
            }
            let body = test::call_and_read_body(&app, request.to_request()).await;
            assert_eq!(body, expected.unwrap_or("nobody"), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_middleware_is_the_server_s_fault_and_the_log_says_what_to_do() {
        let log = Logged::default();
        let _guard = log.listen_to_records(tracing::Level::INFO);

        let app = test::init_service(App::new().route("/", web::get().to(handler))).await;
        let response = test::call_service(&app, test::TestRequest::get().uri("/").to_request()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = test::read_body(response).await;
        assert!(!String::from_utf8_lossy(&body).contains("wrap"), "visitors need not know how it is built");
        let log = log.text();
        assert!(log.contains("ERROR") && log.contains("SessionMiddleware::new("), "{log}");
    }
}
