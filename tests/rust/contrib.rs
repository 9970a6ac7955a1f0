//! CSRF and messages, beside a real Django.

mod django;
#[path = "django/generated.rs"]
mod generated;

use django_sessions::contrib::csrf::{CsrfRequest, CsrfRules, CsrfSecret, check};
use django_sessions::contrib::messages::{CookieUpdate, Level, MAX_COOKIE_SIZE, Message, Messages, Storage};
use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::Object;
use django_sessions::session::Session;
use generated::{django, run};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

fn ask(question: Value) -> Value {
    let answer = generated::ask(&question);
    serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{error}: {question}"))).unwrap()
}

// ---------------------------------------------------------------------------------------------- CSRF

const SECRET: &str = "abcdefghijABCDEFGHIJ0123456789zZ";

#[derive(Clone, Debug)]
struct Case {
    method: &'static str,
    is_secure: bool,
    host: &'static str,
    port: Option<u16>,
    origin: Option<String>,
    referer: Option<String>,
    form_token: Option<String>,
    header_token: Option<String>,
    cookie: Option<String>,
    trusted_origins: Vec<&'static str>,
    cookie_domain: Option<&'static str>,
}

const HOSTS: [&str; 4] = ["shop.example", "shop.example:8000", "www.shop.example", "evil.example"];

fn token() -> impl Strategy<Value = Option<String>> {
    let secret = CsrfSecret::parse(SECRET).unwrap();
    prop_oneof![
        4 => Just(()).prop_map(move |()| Some(secret.token().unwrap())),
        2 => Just(Some(SECRET.to_owned())),
        1 => Just(Some("0123456789zZabcdefghijABCDEFGHIJ".to_owned())),
        1 => Just(Some(String::new())),
        1 => "[a-zA-Z0-9]{31,33}".prop_map(Some),
        1 => "[a-zA-Z0-9é!]{32}".prop_map(Some),
        1 => "[a-zA-Z0-9]{64}".prop_map(Some),
        3 => Just(None),
    ]
}

fn url() -> impl Strategy<Value = Option<String>> {
    let scheme = select(vec!["https", "http", "HTTPS", "ftp", "", "ht+tp", "1http", "https "]);
    let host = select(vec![
        "shop.example",
        "shop.example:8000",
        "www.shop.example",
        "evil.example",
        "pay.example",
        "a.pay.example",
        "xpay.example",
        "SHOP.example",
        "[::1]",
        "[::1]:80",
        "[",
        "]",
        "[evil]",
        "[v1.a]",
        "user@shop.example",
        "",
        "null",
        "[::1",
        "shop.example:443",
        "[fe80::1%25eth0]",
        ".shop.example",
    ]);
    let separator = select(vec!["://", ":", ":/", "//", ":///", ""]);
    let rest = select(vec!["", "/", "/a?b=c#d", "?q", "#f", "/a?#", "//x", "/\tb", "/a;p"]);
    prop_oneof![
        2 => Just(None),
        4 => (scheme, separator, host, rest).prop_map(|(a, b, c, d)| Some(format!("{a}{b}{c}{d}"))),
        3 => (select(vec!["https", "http"]), select(HOSTS.to_vec()), select(vec!["", "/page"]))
            .prop_map(|(scheme, host, rest)| Some(format!("{scheme}://{host}{rest}"))),
        1 => select(vec!["null", "https://", "file:///x", "/a", "a b", "https:/\\evil"]).prop_map(|text| Some(text.to_owned())),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let method = select(vec![
        "GET", "HEAD", "OPTIONS", "TRACE", "POST", "POST", "POST", "POST", "PUT", "DELETE", "PATCH",
    ]);
    let trusted = prop::collection::vec(
        select(vec![
            "https://pay.example",
            "https://*.pay.example",
            "http://*.pay.example",
            "http://pay.example",
            "https://*",
            "https://evil.example:8000",
            "*.pay.example",
        ]),
        0..3,
    );
    let cookie = prop_oneof![
        6 => Just(Some(SECRET.to_owned())),
        1 => Just(None),
        1 => token(),
    ];
    let request =
        (method, any::<bool>(), select(HOSTS.to_vec()), select(vec![None, Some(443), Some(80), Some(8443)]));
    let rules =
        (trusted, select(vec![None, None, None, Some(".shop.example"), Some("shop.example"), Some("")]));
    (request, prop_oneof![Just(None), url()], url(), token(), token(), cookie, rules).prop_map(
        |((method, is_secure, host, port), origin, referer, form_token, header_token, cookie, rules)| Case {
            method,
            is_secure,
            host,
            port,
            origin,
            referer,
            form_token,
            header_token,
            cookie,
            trusted_origins: rules.0,
            cookie_domain: rules.1,
        },
    )
}

/// Django's reason for a refusal, of the middleware itself.
fn reason_of_django(case: &Case) -> Value {
    ask(json!({
        "op": "csrf", "method": case.method, "is_secure": case.is_secure, "host": case.host, "port": case.port,
        "origin": case.origin, "referer": case.referer, "form_token": case.form_token,
        "header_token": case.header_token, "cookie": case.cookie, "trusted_origins": case.trusted_origins,
        "cookie_domain": case.cookie_domain, "allowed_hosts": [".shop.example"],
    }))
}

fn reason(case: &Case) -> Value {
    let is_allowed = case.host.split(':').next().is_some_and(|host| host.ends_with("shop.example"));
    let request = CsrfRequest {
        method: case.method,
        is_secure: case.is_secure,
        host: Some(case.host).filter(|_| is_allowed),
        port: Some(case.port.unwrap_or(if case.is_secure { 443 } else { 80 })),
        origin: case.origin.as_deref(),
        referer: case.referer.as_deref(),
        form_token: case.form_token.as_deref(),
        header_token: case.header_token.as_deref(),
    };
    let rules = CsrfRules {
        trusted_origins: case.trusted_origins.iter().map(|origin| (*origin).to_owned()).collect(),
        cookie_domain: case.cookie_domain.map(str::to_owned),
        ..CsrfRules::default()
    };
    match check(&request, case.cookie.as_deref(), &rules) {
        Ok(()) => Value::Null,
        Err(rejected) => json!(rejected.to_string()),
    }
}

#[test]
fn csrf_decides_as_django() {
    let accepted = std::cell::Cell::new(0);
    run(4000, case(), |case| {
        let expected = reason_of_django(&case);
        if expected.is_null() && case.method == "POST" {
            accepted.set(accepted.get() + 1);
        }
        prop_assert_eq!(reason(&case), expected);
        Ok(())
    });
    assert!(django().is_none() || accepted.get() > 100, "only {} were accepted", accepted.get());
}

#[test]
fn csrf_tokens_are_each_others() {
    run(300, "[a-zA-Z0-9]{32}", |secret| {
        let ours = CsrfSecret::parse(&secret).unwrap();
        let token = ours.token().unwrap();
        prop_assert_ne!(&token, &ours.token().unwrap(), "masked anew");
        let answer = ask(json!({"op": "csrf_token", "secret": secret, "token": token}));
        prop_assert_eq!(&answer[0], &json!(true));
        let theirs = answer[1].as_str().unwrap();
        prop_assert!(ours.matches(theirs).unwrap());
        // A cookie of Django before 4.0, which was masked.
        let masked_cookie = CsrfSecret::parse(theirs).unwrap();
        prop_assert_eq!(masked_cookie.expose(), &secret);
        prop_assert!(!CsrfSecret::random().unwrap().matches(theirs).unwrap());
        Ok(())
    });
}

// ------------------------------------------------------------------------------------------ messages

#[derive(Clone, Debug)]
struct Request {
    add: Vec<(i64, String, Option<String>, bool)>,
    take: bool,
    /// Whether Django answers this request, or ours.
    is_djangos: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let text = prop_oneof![
        4 => "[a-z <>&\"\\\\é🦀]{0,30}",
        1 => "[a-z]{600,900}",
        1 => "[ -~]{1500,3000}",
    ];
    let tags =
        prop_oneof![3 => Just(Some(String::new())), 1 => Just(None), 1 => "[a-z ]{0,9}".prop_map(Some)];
    let message = (select(vec![10, 20, 25, 30, 40, 33, 19]), text, tags, any::<bool>());
    (prop::collection::vec(message, 0..4), prop::bool::weighted(0.3), any::<bool>())
        .prop_map(|(add, take, is_djangos)| Request { add, take, is_djangos })
}

/// What a browser and its session hold between requests.
#[derive(Clone, Debug, Default)]
struct Visitor {
    cookie: Option<String>,
    session: serde_json::Map<String, Value>,
}

fn play_django(storage: &str, visitor: &mut Visitor, request: &Request) -> (Value, bool) {
    let answer = ask(json!({
        "op": "messages", "storage": storage, "cookie": visitor.cookie, "session": visitor.session,
        "add": request.add, "take": request.take,
    }));
    if answer["deleted"] == json!(true) {
        visitor.cookie = None;
    } else if let Some(value) = answer["cookie"].as_str() {
        visitor.cookie = Some(value.to_owned());
    }
    visitor.session = answer["session"].as_object().unwrap().clone();
    (answer["shown"].clone(), answer["modified"] == json!(true))
}

fn play_ours(storage: &str, visitor: &mut Visitor, request: &Request) -> (Value, bool) {
    let keys = SecretKeys::new("the child's key").with_fallbacks(["its former key"]);
    let storage = match storage {
        "cookie" => Storage::Cookie,
        "session" => Storage::Session,
        _ => Storage::Fallback,
    };
    let data = Object::parse(Value::Object(visitor.session.clone()).to_string().as_bytes()).unwrap();
    let mut session = Session::with_data(None, data);
    let mut messages = Messages::load(storage, &keys, visitor.cookie.as_deref(), &session);
    for (level, text, extra_tags, is_safe) in request.add.clone() {
        messages.push(Message { level: Level(level), text, extra_tags, is_safe });
    }
    let shown = match request.take {
        false => Value::Null,
        true => messages
            .take()
            .iter()
            .map(|message| {
                json!([message.level.0, message.text, message.extra_tags, message.is_safe, message.tags()])
            })
            .collect(),
    };
    match messages.store(&keys, &mut session, Timestamp::now()).unwrap() {
        CookieUpdate::None => {}
        CookieUpdate::Set(value) => visitor.cookie = Some(value),
        CookieUpdate::Delete => visitor.cookie = None,
    }
    let modified = session.modified();
    visitor.session =
        session.keys().map(|key| (key.to_string(), json!(session.get::<String>(&key).unwrap()))).collect();
    (shown, modified)
}

/// Both play each request from the same state and show the same; either one's state is what the next request finds.
#[test]
fn messages_as_django() {
    let strategy = (select(vec!["cookie", "session", "fallback"]), prop::collection::vec(request(), 1..6));
    run(250, strategy, |(storage, requests)| {
        let mut visitor = Visitor::default();
        for request in &requests {
            let (mut ours, mut theirs) = (visitor.clone(), visitor.clone());
            let (shown, modified) = play_ours(storage, &mut ours, request);
            let (shown_by_django, modified_by_django) = play_django(storage, &mut theirs, request);
            prop_assert_eq!(&shown, &shown_by_django);
            // Each packs by its own zlib, some bytes apart: near the limit one message more may fit for either.
            let size = |visitor: &Visitor| visitor.cookie.as_ref().map_or(0, String::len);
            if storage != "session" && size(&ours).max(size(&theirs)) > MAX_COOKIE_SIZE - 150 {
                visitor = theirs;
                continue;
            }
            prop_assert_eq!(modified, modified_by_django);
            prop_assert_eq!(&ours.session, &theirs.session);
            prop_assert_eq!(ours.cookie.is_some(), theirs.cookie.is_some());
            visitor = if request.is_djangos { theirs } else { ours };
        }
        // What is left, read by both.
        let last = Request { add: Vec::new(), take: true, is_djangos: false };
        let (shown, _) = play_ours(storage, &mut visitor.clone(), &last);
        prop_assert_eq!(shown, play_django(storage, &mut visitor, &last).0);
        Ok(())
    });
}

#[test]
fn messages_that_are_not_ours_are_none() {
    if django().is_none() {
        return;
    }
    for cookie in ["", "x", "[1]:1:x", ".eJx:1abcde:sig", "é"] {
        for storage in ["cookie", "fallback"] {
            let request = Request { add: Vec::new(), take: true, is_djangos: true };
            let mut ours = Visitor { cookie: Some(cookie.to_owned()), ..Visitor::default() };
            let mut theirs = ours.clone();
            let shown = play_ours(storage, &mut ours, &request);
            assert_eq!(shown, play_django(storage, &mut theirs, &request), "{cookie:?}");
            assert_eq!(ours.cookie, theirs.cookie, "{storage}: {cookie:?}");
        }
    }
}
