//! Cookies that no browser sends, and settings that no header can hold.

use django::Django;
use serde_json::{Value, json};

use super::*;

fn cookies(key: &str, other: &str) -> Vec<Vec<u8>> {
    let text = |text: String| text.into_bytes();
    vec![
        text(format!("sessionid={key}")),
        text(format!("sessionid={other}; sessionid={key}")),
        text(format!("sessionid={key}; sessionid=short")),
        text(format!("sessionid={key}; sessionid")),
        text(format!("sessionid={}", "x".repeat(10_000))),
        text(format!("sessionid={key}{}", " ".repeat(10_000))),
        text(format!("a={}; sessionid={key}", "b".repeat(10_000))),
        text("sessionid=\"\\015\\012Set-Cookie: stolen=1\"".to_owned()),
        text("sessionid=\"12345678\\000\"".to_owned()),
        text("sessionid=\"12345678\\073 Domain=evil.example\"".to_owned()),
        text("sessionid=12345678%0d%0aSet-Cookie:%20stolen=1".to_owned()),
        text("sessionid=' OR 1=1 --; DROP TABLE django_session".to_owned()),
        text("sessionid=../../../../etc/passwd".to_owned()),
        text("sessionid=*\\*12345678".to_owned()),
        b"sessionid=\xff\xfe\xfd12345678".to_vec(),
        b"sessionid=\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa912345".to_vec(),
        b"sessionid=1234\t5678".to_vec(),
        text(format!("sessionid=\u{20ac}{key}")),
        text(format!("csrftoken=\"\\015\\012\"; messages=\"\\015\\012:\"; sessionid={key}")),
    ]
}

/// What became of the session cookie, as far as it can be said without its value.
fn became(status: u16, cookie: Option<&str>, vary: Option<&str>, key: &str) -> Value {
    let value = cookie.map(|value| match value.trim_matches('"') {
        "" => "deleted",
        value if value == key => "kept",
        value if value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()) => "new",
        _ => "what the browser sent",
    });
    json!([status, value, vary])
}

/// Django's answers are those of its handler; what its server would refuse before that is not among these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_of_all_kinds_are_answered_as_by_django() {
    let Some(servers) = Servers::start(&["redis", "postgres"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("django.sqlite3");
    let Some(mut django) = Django::start_with("protected.py", &[file.to_str().unwrap()]) else { return };
    let mut ask =
        |question: Value| -> Value { serde_json::from_str(&django.ask(&question).unwrap()).unwrap() };
    let keys: Vec<String> = [json!({"a": 1}), json!({"a": 7})]
        .map(|content| ask(json!({"make": content})).as_str().unwrap().to_owned())
        .into();
    let expected: Vec<Value> = cookies(&keys[0], &keys[1])
        .into_iter()
        .map(|cookie| {
            let cookie: String = cookie.into_iter().map(char::from).collect();
            let answer = ask(json!({
                "method": "GET", "is_secure": false, "meta": {}, "cookie": cookie, "body": "", "content_type": "",
                "steps": [["insert", "b", 1]], "status": 200, "exempt": false, "has_sessions": true, "settings": {},
            }));
            let texts = answer["cookies"].as_array().unwrap().iter().map(|cookie| cookie.as_str().unwrap());
            let value = texts.filter_map(|cookie| cookie.strip_prefix("sessionid=")).next();
            let value = value.map(|value| value.split(';').next().unwrap());
            became(answer["status"].as_u64().unwrap() as u16, value, answer["vary"].as_str(), &keys[0])
        })
        .collect();

    for store in [on_sqlite(&folder).await, on_redis(&servers).await, on_postgres(&servers).await] {
        for kind in KINDS {
            let app = App::start(kind, store.clone(), settings()).await;
            let mut refused = 0;
            let (own, other) = (stored(&*store).await, stored(&*store).await);
            for (cookie, expected) in cookies(own.as_str(), other.as_str()).into_iter().zip(&expected) {
                let shown = String::from_utf8_lossy(&cookie).into_owned();
                let mut client = Client::connect(app.address).await;
                let head = [b"GET /visit HTTP/1.1\r\nHost: a\r\nCookie: ", &*cookie, b"\r\n\r\n"].concat();
                client.write(&head).await;
                let reply = client.try_reply().await.expect("an answer");
                assert_eq!(reply.header("stolen"), None);
                assert!(!reply.head.contains("stolen=1"), "{kind:?}: {shown}: {}", reply.head);
                if matches!(reply.status, 400 | 431 | 500) {
                    println!(
                        "{kind:?}: {}: {}, Django: {expected}",
                        reply.status,
                        shown.get(..40).unwrap_or(&shown)
                    );
                    refused += 1;
                    continue;
                }
                let value = reply.cookie("sessionid");
                let found = became(reply.status, value.as_deref(), reply.header("vary"), own.as_str());
                assert_eq!(&found, expected, "{kind:?}: {shown}");
            }
            assert!(refused <= 4, "{kind:?}: {refused} were no cookies to the server, or to the database");
            // They did nothing to anybody.
            assert_eq!(value_of_a(&*store, &other).await, Some(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_would_break_out_of_a_header_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_sqlite(&folder).await;
    let mut broken = vec![settings(); 4];
    broken[0].session_cookie_domain = Some("a\r\nX-Evil: 1".to_owned());
    broken[1].session_cookie_path = "/\nX-Evil: 1".to_owned();
    broken[2].session_cookie_name = "a\r\nX-Evil: 1".to_owned();
    broken[3].csrf.cookie_domain = Some("a\r\nX-Evil: 1".to_owned());
    for settings in broken {
        for kind in KINDS {
            let app = App::start(kind, store.clone(), settings.clone()).await;
            let path = if settings.csrf.cookie_domain.is_some() { "/token" } else { "/visit" };
            let reply = Client::connect(app.address).await.get(path, "").await;
            assert_eq!((reply.status, reply.header("x-evil")), (500, None), "{kind:?}: {}", reply.head);
            let reply = Client::connect(app.address).await.get("/peek", "").await;
            assert_eq!(reply.status, 200, "{kind:?}: what needs no cookie is served");
        }
    }
}
