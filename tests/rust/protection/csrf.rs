//! Django's `csrf_tests`, one for one, and generated requests.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;

// Django's own tests have these.
const SECRET: &str = "lcccccccX2kcccccccY2jcccccccssIC";
const MASKED1: &str = "1bcdefghij2bcdefghij3bcdefghij4bcdefghij5bcdefghij6bcdefghijABCD";
const MASKED2: &str = "2JgchWvM1tpxT2lfz9aydoXW9yT1DN3NdLiejYxOOlzzV4nhBbYqmqZYbAV3V5Bf";

const FORM: &str = "application/x-www-form-urlencoded";

/// A request, what the browser has for it, and what Django's test says of it.
#[derive(Clone, Debug)]
struct Tested {
    case: Case,
    secret: Option<String>,
    expected: Expected,
    storages: &'static [bool],
}

#[derive(Clone, Debug)]
enum Expected {
    Allowed,
    Forbidden(String),
    Status(u16),
}

/// `CSRF_USE_SESSIONS`.
const COOKIE: &[bool] = &[false];
const SESSION: &[bool] = &[true];
const BOTH: &[bool] = &[false, true];

/// A `GET` of a browser that has a secret.
fn get(name: &'static str) -> Tested {
    let case = Case { name, headers: vec![("Host", "testserver".to_owned())], ..Case::default() };
    Tested { case, secret: Some(MASKED1.to_owned()), expected: Expected::Allowed, storages: BOTH }
}

/// A `POST` without a token.
fn post(name: &'static str) -> Tested {
    let mut tested = get(name).method("POST");
    tested.case.content_type = FORM.to_owned();
    tested
}

/// A `POST` with a good token.
fn good_post(name: &'static str) -> Tested {
    post(name).form(MASKED2)
}

/// The same over HTTPS, to `www.example.com`.
fn secure(name: &'static str) -> Tested {
    let mut tested =
        good_post(name).header("Host", "www.example.com").set("ALLOWED_HOSTS", json!(["www.example.com"]));
    (tested.case.is_secure, tested.case.server_port) = (true, Some(443));
    tested
}

impl Tested {
    fn method(mut self, method: &'static str) -> Self {
        self.case.method = method;
        self
    }

    fn form(mut self, token: &str) -> Self {
        self.case.body = format!("name=value&csrfmiddlewaretoken={token}&other=%20");
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.case.headers.retain(|(found, _)| *found != name);
        self.case.headers.push((name, value.to_owned()));
        self
    }

    fn token_header(self, token: &str) -> Self {
        self.header("X-CSRFToken", token)
    }

    fn secret(mut self, secret: Option<&str>) -> Self {
        self.secret = secret.map(str::to_owned);
        self
    }

    fn set(mut self, name: &'static str, value: Value) -> Self {
        self.case.settings.push((name, value));
        self
    }

    fn port(mut self, port: u16) -> Self {
        self.case.server_port = Some(port);
        self
    }

    fn steps(mut self, steps: &[Step]) -> Self {
        self.case.steps = steps.to_vec();
        self
    }

    fn exempt(mut self) -> Self {
        self.case.exempt = true;
        self
    }

    fn only(mut self, storages: &'static [bool]) -> Self {
        self.storages = storages;
        self
    }

    fn forbidden(mut self, reason: &str) -> Self {
        self.expected = Expected::Forbidden(reason.to_owned());
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.expected = Expected::Status(status);
        self
    }

    fn bad_origin(self, origin: &str) -> Self {
        let reason = format!("Origin checking failed - {origin} does not match any trusted origins.");
        self.header("Origin", origin).forbidden(&reason)
    }
}

const MALFORMED: &str = "Referer checking failed - Referer is malformed.";
const INSECURE: &str = "Referer checking failed - Referer is insecure while host is secure.";
const EVIL: &str =
    "Referer checking failed - https://www.evil.org/somepage does not match any trusted origins.";

fn tokens() -> Vec<Tested> {
    use Step::*;
    let of_header = |problem: &str| format!("CSRF token from the 'X-Csrftoken' HTTP header {problem}.");
    let (short, starred, wrong) = ("a".repeat(16), "*".repeat(64), "a".repeat(64));
    let customized = || ("CSRF_HEADER_NAME", json!("HTTP_X_CSRFTOKEN_CUSTOMIZED"));
    let mut all = vec![
        get("test_get_token_csrf_cookie_set").steps(&[GetToken]),
        get("test_get_token_csrf_cookie_not_set").secret(None).steps(&[GetToken]),
        get("test_rotate_token").steps(&[Rotate]),
        get("test_rotate_token").steps(&[GetToken, Rotate, GetToken]),
        good_post("test_check_token_format_valid").form(SECRET),
        good_post("test_check_token_format_valid").form(MASKED1),
        post("test_check_token_format_invalid")
            .form(&starred)
            .forbidden("CSRF token from POST has invalid characters."),
        post("test_check_token_format_invalid")
            .form(&short)
            .forbidden("CSRF token from POST has incorrect length."),
        good_post("test_does_token_match").form(MASKED1),
        good_post("test_does_token_match").form(MASKED2),
        good_post("test_does_token_match").form(SECRET),
        post("test_does_token_match").form(&"a".repeat(32)).forbidden("CSRF token from POST incorrect."),
        post("test_does_token_match").form(&wrong).forbidden("CSRF token from POST incorrect."),
        post("test_does_token_match_wrong_token_length")
            .form(&short)
            .forbidden("CSRF token from POST has incorrect length."),
        get("test_process_response_get_token_not_used").secret(None),
        get("test_process_response_get_token_not_used"),
        post("test_no_csrf_cookie").secret(None).forbidden("CSRF cookie not set."),
        post("test_csrf_cookie_bad_or_missing_token").forbidden("CSRF token missing."),
        post("test_csrf_cookie_bad_or_missing_token")
            .form(&short)
            .forbidden("CSRF token from POST has incorrect length."),
        post("test_csrf_cookie_bad_or_missing_token")
            .form(&starred)
            .forbidden("CSRF token from POST has invalid characters."),
        post("test_csrf_cookie_bad_or_missing_token")
            .form(&wrong)
            .forbidden("CSRF token from POST incorrect."),
        post("test_csrf_cookie_bad_or_missing_token")
            .token_header(&short)
            .forbidden(&of_header("has incorrect length")),
        post("test_csrf_cookie_bad_or_missing_token")
            .token_header(&starred)
            .forbidden(&of_header("has invalid characters")),
        post("test_csrf_cookie_bad_or_missing_token").token_header(&wrong).forbidden(&of_header("incorrect")),
        good_post("test_process_request_csrf_cookie_and_token"),
        post("test_process_request_csrf_cookie_no_token_exempt_view").exempt(),
        post("test_csrf_token_in_header").token_header(MASKED2),
        get("test_put_and_delete_rejected").secret(None).method("PUT").forbidden("CSRF cookie not set."),
        get("test_put_and_delete_rejected").secret(None).method("DELETE").forbidden("CSRF cookie not set."),
        get("test_put_and_delete_allowed").method("PUT").token_header(MASKED2),
        get("test_put_and_delete_allowed").method("DELETE").token_header(MASKED2),
        good_post("test_rotate_token_triggers_second_reset").steps(&[GetToken, Rotate]),
        get("test_token_node_no_csrf_cookie").secret(None).steps(&[GetToken, GetToken]),
        get("test_token_node_with_csrf_cookie").steps(&[GetToken]),
        get("test_get_token_for_exempt_view").exempt().steps(&[GetToken]),
        get("test_get_token_for_requires_csrf_token_view").exempt().steps(&[GetToken]),
        get("test_token_node_with_new_csrf_cookie").secret(None).steps(&[GetToken]),
        good_post("test_cookie_not_reset_on_accepted_request").steps(&[GetToken]),
        get("test_ensures_csrf_cookie_no_logging").secret(None).steps(&[GetToken]),
        get("test_ensures_csrf_cookie_no_middleware").secret(None).exempt().steps(&[GetToken]).only(COOKIE),
        get("test_ensures_csrf_cookie_with_middleware").secret(None).steps(&[GetToken]),
        good_post("test_set_cookie_called_only_once").steps(&[GetToken, GetToken]).only(COOKIE),
        get("test_valid_secret_not_replaced_on_GET").secret(Some(SECRET)).only(COOKIE),
        get("test_valid_secret_not_replaced_on_GET").secret(Some(MASKED1)).only(COOKIE),
        good_post("test_masked_secret_accepted_and_replaced").steps(&[GetToken]).only(COOKIE),
        good_post("test_bare_secret_accepted_and_not_replaced")
            .secret(Some(SECRET))
            .steps(&[GetToken])
            .only(COOKIE),
        get("test_process_response_get_token_used").secret(None).steps(&[GetToken]).only(SESSION),
        get("test_session_modify").secret(Some(SECRET)).steps(&[GetToken]).only(SESSION),
        get("test_csrf_token_on_404_stays_constant").steps(&[GetToken]),
        get("test_force_token_to_string").steps(&[GetToken]),
    ];
    // With the customized header, good and bad, and the usual one that no longer counts.
    for (name, header, token, reason) in [
        (
            "test_csrf_cookie_bad_token_custom_header",
            "X-CSRFToken-Customized",
            &*short,
            "CSRF token from the 'X-Csrftoken-Customized' HTTP header has incorrect length.",
        ),
        ("test_csrf_token_in_header_with_customized_name", "X-CSRFToken-Customized", MASKED2, ""),
        ("test_csrf_token_in_header_with_customized_name", "X-CSRFToken", MASKED2, "CSRF token missing."),
    ] {
        let (setting, value) = customized();
        let tested = post(name).header(header, token).set(setting, value);
        all.push(if reason.is_empty() { tested } else { tested.forbidden(reason) });
    }
    // A browser's secret that is none. In a session nobody writes one but the site.
    let bad = |name, secret: &str| get(name).secret(Some(secret)).only(COOKIE);
    all.extend([
        bad("test_token_node_empty_csrf_cookie", "").steps(&[GetToken]),
        bad("test_bad_csrf_cookie_characters", &starred)
            .method("POST")
            .forbidden("CSRF cookie has invalid characters."),
        bad("test_bad_csrf_cookie_length", &short)
            .method("POST")
            .forbidden("CSRF cookie has incorrect length."),
        bad("test_process_view_token_too_long", &"x".repeat(100_000)).steps(&[GetToken]),
        bad("test_process_view_token_invalid_chars", &format!("!@#{}", &MASKED2[..61])).steps(&[GetToken]),
        bad("test_invalid_cookie_replaced_on_GET", "badvalue"),
    ]);
    for secret in [SECRET, MASKED1] {
        for token in [SECRET, MASKED2] {
            let name = "test_masked_unmasked_combinations";
            all.push(post(name).secret(Some(secret)).form(token));
            all.push(post(name).secret(Some(secret)).token_header(token));
        }
    }
    all
}

fn cookies_of_settings() -> Vec<Tested> {
    let with = |name, age: Value| {
        get(name)
            .secret(None)
            .steps(&[Step::GetToken])
            .set("CSRF_COOKIE_NAME", json!("csrfcookie"))
            .set("CSRF_COOKIE_DOMAIN", json!(".example.com"))
            .set("CSRF_COOKIE_AGE", age)
            .set("CSRF_COOKIE_PATH", json!("/test/"))
            .set("CSRF_COOKIE_SECURE", json!(true))
            .set("CSRF_COOKIE_HTTPONLY", json!(true))
            .only(COOKIE)
    };
    let samesite = |value| {
        let name = "test_csrf_cookie_samesite";
        get(name).secret(None).steps(&[Step::GetToken]).set("CSRF_COOKIE_SAMESITE", value).only(COOKIE)
    };
    vec![
        with("test_csrf_cookie_age", json!(123)),
        with("test_csrf_cookie_age_none", Value::Null),
        samesite(json!("Strict")),
        samesite(json!("None")),
        samesite(json!(false)),
    ]
}

fn referers() -> Vec<Tested> {
    let trusting = |name, origin: &str| secure(name).set("CSRF_TRUSTED_ORIGINS", json!([origin]));
    let malformed = |referer: &str| {
        let tested = secure("test_https_malformed_referer").header("Referer", referer);
        tested.forbidden(if referer.starts_with("http:") { INSECURE } else { MALFORMED })
    };
    let mut all = vec![
        secure("test_https_bad_referer").header("Referer", "https://www.evil.org/somepage").forbidden(EVIL),
        secure("test_https_no_referer").forbidden("Referer checking failed - no Referer."),
        secure("test_https_malformed_host")
            .header("Host", "@malformed")
            .header("Referer", "https://www.evil.org/somepage")
            .forbidden(EVIL),
        secure("test_origin_malformed_host").header("Host", "@malformed").bad_origin("https://www.evil.org"),
        secure("test_https_good_referer").header("Referer", "https://www.example.com/somepage"),
        secure("test_https_good_referer_2").header("Referer", "https://www.example.com"),
        trusting("test_https_good_referer_malformed_host", "https://dashboard.example.com")
            .header("Host", "@malformed")
            .header("Referer", "https://dashboard.example.com/somepage"),
        trusting("test_https_csrf_trusted_origin_allowed", "https://dashboard.example.com")
            .header("Referer", "https://dashboard.example.com"),
        trusting("test_https_csrf_wildcard_trusted_origin_allowed", "https://*.example.com")
            .header("Referer", "https://dashboard.example.com"),
    ];
    let referers = ["http://http://www.example.com/", "", "ØBöIß", "//example.com/", "https://", "https://["];
    all.extend(referers.map(malformed));
    for (storage, domain) in [(COOKIE, "CSRF_COOKIE_DOMAIN"), (SESSION, "SESSION_COOKIE_DOMAIN")] {
        let secure = |name| secure(name).set(domain, json!(".example.com")).only(storage);
        let behind_proxy = |name| {
            secure(name)
                .header("Host", "10.0.0.2")
                .header("Referer", "https://www.example.com/somepage")
                .header("X-Forwarded-Host", "www.example.com")
                .header("X-Forwarded-Port", "443")
                .port(8080)
        };
        all.extend([
            behind_proxy("test_https_good_referer_behind_proxy").set("USE_X_FORWARDED_PORT", json!(true)),
            // Without that setting, the port is another.
            behind_proxy("test_https_good_referer_behind_proxy").forbidden(
                "Referer checking failed - https://www.example.com/somepage does not match any trusted origins.",
            ),
            secure("test_https_good_referer_matches_cookie_domain").header("Referer", "https://foo.example.com/"),
            secure("test_https_good_referer_matches_cookie_domain_with_different_port")
                .header("Referer", "https://foo.example.com:4443/")
                .port(4443),
            secure("test_https_reject_insecure_referer").header("Referer", "http://example.com/").forbidden(INSECURE),
        ]);
    }
    all
}

fn origins() -> Vec<Tested> {
    let plain = |name| {
        let tested = good_post(name).header("Host", "www.example.com");
        tested.set("ALLOWED_HOSTS", json!(["www.example.com"]))
    };
    let many = json!([
        "http://no-match.com",
        "https://*.example.com",
        "http://*.no-match.com",
        "http://*.no-match-2.com"
    ]);
    vec![
        plain("test_bad_origin_bad_domain").bad_origin("https://www.evil.org"),
        plain("test_bad_origin_null_origin").bad_origin("null"),
        secure("test_bad_origin_bad_protocol").bad_origin("http://example.com"),
        secure("test_bad_origin_csrf_trusted_origin_bad_protocol")
            .set("CSRF_TRUSTED_ORIGINS", many)
            .bad_origin("http://foo.example.com"),
        plain("test_bad_origin_cannot_be_parsed").bad_origin("https://["),
        plain("test_good_origin_insecure").header("Origin", "http://www.example.com"),
        secure("test_good_origin_secure").header("Origin", "https://www.example.com"),
        secure("test_good_origin_csrf_trusted_origin_allowed")
            .set("CSRF_TRUSTED_ORIGINS", json!(["https://dashboard.example.com"]))
            .header("Origin", "https://dashboard.example.com"),
        secure("test_good_origin_wildcard_csrf_trusted_origin_allowed")
            .set("CSRF_TRUSTED_ORIGINS", json!(["https://*.example.com"]))
            .header("Origin", "https://foo.example.com"),
    ]
}

/// What Django's tests leave to those of its requests: forms of other kinds, sizes and hosts.
fn bodies_and_hosts() -> Vec<Tested> {
    let multipart = |token: &str, before: &str| {
        let mut tested = post("");
        tested.case.content_type = "multipart/form-data; boundary=xyz".to_owned();
        let part = |name: &str, value: &str| {
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let file =
            "--xyz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n\u{0}\u{ff}\r\n\r\n";
        tested.case.body =
            format!("{before}{}{}{file}--xyz--\r\n", part("a", "b"), part("csrfmiddlewaretoken", token));
        tested
    };
    let form = |body: String| {
        let mut tested = post("");
        tested.case.body = body;
        tested
    };
    let json_post = |token: &str| {
        let mut tested = form(format!("csrfmiddlewaretoken={token}"));
        tested.case.content_type = "application/json".to_owned();
        tested
    };
    let incorrect = "CSRF token from POST incorrect.";
    let proxied = || {
        let setting = json!(["HTTP_X_FORWARDED_PROTO", "https"]);
        good_post("").set("SECURE_PROXY_SSL_HEADER", setting).header("Origin", "https://testserver")
    };
    vec![
        multipart(MASKED2, ""),
        multipart(MASKED2, "a preamble\r\n"),
        multipart(&"a".repeat(64), "").forbidden(incorrect),
        multipart("", "").forbidden("CSRF token missing."),
        multipart("", "").token_header(MASKED2),
        form("csrfmiddlewaretoken=wrong&csrfmiddlewaretoken=".to_owned() + MASKED2),
        form(format!("csrfmiddlewaretoken={MASKED2}&csrfmiddlewaretoken={}", "a".repeat(64)))
            .forbidden(incorrect),
        form(format!("csrfmiddleware%74oken={MASKED2}")),
        form(format!("&&csrfmiddlewaretoken=+{MASKED2}"))
            .forbidden("CSRF token from POST has incorrect length."),
        form(format!("csrfmiddlewaretoken=%ff{}", "a".repeat(31)))
            .forbidden("CSRF token from POST has invalid characters."),
        // A wrong one in the form counts before a good one in the header.
        good_post("").form(&"a".repeat(64)).token_header(MASKED2).forbidden(incorrect),
        json_post(MASKED2).forbidden("CSRF token missing."),
        json_post("").token_header(MASKED2),
        good_post("").method("PATCH").forbidden("CSRF token missing."),
        get("").method("TRACE").secret(None),
        get("").method("OPTIONS").secret(None),
        get("").method("HEAD").secret(None).steps(&[Step::Insert("a", 1)]),
        form(format!("csrfmiddlewaretoken={MASKED2}&a={}", "b".repeat(200)))
            .set("DATA_UPLOAD_MAX_MEMORY_SIZE", json!(200))
            .status(400),
        form(format!("a&b&csrfmiddlewaretoken={MASKED2}"))
            .set("DATA_UPLOAD_MAX_NUMBER_FIELDS", json!(2))
            .status(400),
        form(format!("a&csrfmiddlewaretoken={MASKED2}")).set("DATA_UPLOAD_MAX_NUMBER_FIELDS", json!(2)),
        good_post("").header("Host", "shop.example:8000").header("Origin", "http://shop.example:8000"),
        good_post("").header("Host", "shop.example:8000").bad_origin("http://shop.example"),
        good_post("")
            .set("ALLOWED_HOSTS", json!([".example"]))
            .header("Host", "a.example")
            .header("Origin", "http://a.example"),
        good_post("")
            .set("ALLOWED_HOSTS", json!([".example"]))
            .header("Host", "evil.com")
            .bad_origin("http://evil.com"),
        good_post("").header("Host", "[::1]:80").header("Origin", "http://[::1]:80"),
        good_post("").header("Host", "a_b").bad_origin("http://a_b"),
        good_post("").header("Host", "A.example.").header("Origin", "http://A.example."),
        proxied().header("X-Forwarded-Proto", "https"),
        proxied().header("X-Forwarded-Proto", "https, http"),
        proxied().header("X-Forwarded-Proto", "http").bad_origin("https://testserver"),
        proxied().bad_origin("https://testserver"),
        good_post("")
            .set("USE_X_FORWARDED_HOST", json!(true))
            .header("X-Forwarded-Host", "shop.example")
            .header("Origin", "http://shop.example"),
        good_post("").bad_origin("http://\u{e9}vil.example\t\\"),
    ]
}

fn all() -> Vec<Tested> {
    [tokens(), cookies_of_settings(), referers(), origins(), bodies_and_hosts()].concat()
}

impl Tested {
    /// What the browser has before its request.
    fn start(&self, site: &mut Site, in_session: bool) -> Jar {
        let mut content = json!({"a": 1});
        let mut jar = Jar::new();
        match &self.secret {
            Some(secret) if in_session => content["_csrftoken"] = json!(secret),
            Some(secret) => {
                let (settings, _) = self.case.settings();
                jar.insert(settings.csrf.cookie_name, secret.clone());
            }
            None => {}
        }
        jar.insert("sessionid".to_owned(), site.make_session(content));
        jar
    }

    fn case_in(&self, in_session: bool) -> Case {
        let mut case = self.case.clone();
        if in_session {
            case.settings.push(("CSRF_USE_SESSIONS", json!(true)));
        }
        case
    }
}

#[tokio::test]
async fn as_django_s_own_tests() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    for tested in all() {
        for in_session in tested.storages {
            let case = tested.case_in(*in_session);
            let start = |site: &mut Site| tested.start(site, *in_session);
            let outcome = site.compare(std::slice::from_ref(&case), start).await.remove(0);
            match &tested.expected {
                Expected::Allowed => {
                    assert_eq!((outcome.status, outcome.log.len()), (200, 0), "{case:?}: {outcome:?}");
                }
                Expected::Forbidden(reason) => {
                    let escaped: String = reason
                        .chars()
                        .map(|char| match char {
                            '\t' => "\\t".to_owned(),
                            '\\' => "\\\\".to_owned(),
                            '\u{e9}' => "\\xe9".to_owned(),
                            char => char.to_string(),
                        })
                        .collect();
                    assert_eq!(outcome.log, [format!("Forbidden ({escaped}): /")], "{case:?}");
                    assert_eq!(outcome.status, 403);
                }
                Expected::Status(status) => assert_eq!(outcome.status, *status, "{case:?}"),
            }
        }
    }
}

/// The table names each of Django's tests: those that have a case here, and why the others have none.
#[test]
fn the_table_is_true() {
    let table = include_str!("../protection.md");
    let mirrored: Vec<&str> = (table.lines())
        .filter_map(|line| line.strip_prefix("| `csrf_tests.")?.split_once("` | mirrored"))
        .map(|(name, _)| name.rsplit('.').next().unwrap())
        .collect();
    let cases = all();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|each| each.case.name).collect();
    for name in &mirrored {
        assert!(names.contains(name), "{name} has no case");
    }
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        assert!(mirrored.contains(&name), "{name} is not in the table");
    }
}

fn generated() -> impl Strategy<Value = (Tested, bool)> {
    let token = || {
        let wrong = ["a".repeat(64), "b".repeat(32), "c".repeat(16), "!".repeat(32), String::new()].map(Some);
        prop_oneof![
            3 => select(vec![MASKED2, MASKED1, SECRET]).prop_map(|token| Some(token.to_owned())),
            1 => select(wrong.to_vec()),
            2 => Just(None),
        ]
    };
    let secret = prop_oneof![
        5 => select(vec![Some(SECRET), Some(MASKED1)]),
        1 => select(vec![None, Some("short"), Some("")]),
    ];
    let hosts = || select(vec!["testserver", "shop.example:8000", "www.shop.example", "bad host", "[::1]"]);
    let url = (select(vec!["http", "https", "ftp", ""]), hosts(), select(vec!["", "/", "/a?b"]))
        .prop_map(|(scheme, host, rest)| format!("{scheme}://{host}{rest}"));
    let origin = prop_oneof![
        3 => Just(None),
        2 => (select(vec!["http", "https"]), hosts()).prop_map(|(scheme, host)| Some(format!("{scheme}://{host}"))),
        1 => select(vec![Some("null".to_owned()), Some("https://pay.example".to_owned())]),
    ];
    let setting = prop_oneof![
        Just(("ALLOWED_HOSTS", json!([".shop.example", "testserver"]))),
        Just(("CSRF_TRUSTED_ORIGINS", json!(["https://pay.example", "http://*.shop.example"]))),
        Just(("CSRF_COOKIE_DOMAIN", json!(".shop.example"))),
        Just(("CSRF_COOKIE_AGE", Value::Null)),
        Just(("CSRF_COOKIE_PATH", json!("/shop/"))),
        Just(("CSRF_COOKIE_SECURE", json!(true))),
        Just(("CSRF_COOKIE_SAMESITE", json!("None"))),
        Just(("SESSION_SAVE_EVERY_REQUEST", json!(true))),
        Just(("SECURE_PROXY_SSL_HEADER", json!(["HTTP_X_FORWARDED_PROTO", "https"]))),
    ];
    let step = prop_oneof![
        3 => Just(Step::GetToken),
        1 => Just(Step::Rotate),
        1 => Just(Step::Insert("a", 2)),
        1 => Just(Step::Add(25, "done".to_owned(), Some(""), false)),
        1 => Just(Step::Take),
    ];
    let method = select(vec!["GET", "POST", "POST", "POST", "PUT", "HEAD", "DELETE"]);
    let request = (method, any::<bool>(), hosts(), origin, prop::option::of(url));
    let rest = (
        prop::collection::vec(setting, 0..3),
        prop::collection::vec(step, 0..4),
        select(vec![200, 200, 404, 500]),
        any::<bool>(),
        prop::option::of(select(vec!["https", "http"])),
    );
    (request, secret, token(), token(), rest).prop_map(|(request, secret, form, header, rest)| {
        let (method, is_secure, host, origin, referer) = request;
        let (settings, steps, status, in_session, proto) = rest;
        let mut tested = post("").method(method).header("Host", host).secret(secret);
        // A session holds what the site wrote.
        if in_session && secret.is_some_and(|secret| secret.len() < 32) {
            tested.secret = None;
        }
        tested.case.is_secure = is_secure;
        tested.case.server_port = Some(if is_secure { 443 } else { 8000 });
        let headers = [
            ("Origin", origin),
            ("Referer", referer),
            ("X-CSRFToken", header),
            ("X-Forwarded-Proto", proto.map(str::to_owned)),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                tested = tested.header(name, &value);
            }
        }
        if let Some(token) = form {
            tested = tested.form(&token);
        }
        tested.case.settings = settings;
        tested.case.status = status;
        (tested.steps(&steps), in_session)
    })
}

#[tokio::test]
async fn generated_requests() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    let mut runner = TestRunner::new(Config::default());
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..count(300, 3000) {
        let (tested, in_session) = generated().new_tree(&mut runner).unwrap().current();
        let case = tested.case_in(in_session);
        let outcome =
            site.compare(std::slice::from_ref(&case), |site| tested.start(site, in_session)).await.remove(0);
        match (case.method, outcome.status) {
            ("POST", 403) => refused += 1,
            ("POST", _) => allowed += 1,
            _ => {}
        }
    }
    // About one in sixteen is an allowed POST, and a third a refused one.
    assert!(allowed >= 5 && refused >= 5, "{allowed} allowed, {refused} refused");
}

/// `test_no_session_on_request`: a mistake in how the site is put together, which its log explains.
#[tokio::test]
async fn without_the_session_it_asks_for_the_layer() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    let mut case = get("").case_in(true);
    case.has_sessions = false;
    // Django, which raises, has no answer at all: its page for exceptions checks the request again.
    for server in [Server::Axum, Server::Actix] {
        let outcome = site.play(server, &case, &mut Jar::new()).await;
        assert_eq!(outcome.status, 500, "{server:?}");
    }
    let advice = StoreError::NoSession.to_string();
    assert!(advice.contains("put the layer of sessions around"), "{advice}");
}

/// `test_reading_post_data_raises_unreadable_post_error`, and what follows the error: the browser is gone.
#[tokio::test]
async fn a_body_that_breaks_off_is_no_token() {
    let (settings, options) = good_post("").case.settings();
    let app = axum::Router::new()
        .fallback(|| async { "never called" })
        .layer(CsrfLayer::with_options(settings, options));
    let pieces = [Ok(Bytes::from("a=b&csrfmiddlewaretoken=")), Err(std::io::Error::other("gone"))];
    let request = Request::post("/")
        .header("Cookie", format!("csrftoken={SECRET}"))
        .header("Host", "testserver")
        .header("Content-Type", FORM)
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
        .unwrap();
    let logged = Logged::default();
    let guard = logged.listen();
    let response: Response<Body> = app.oneshot(request).await.unwrap();
    drop(guard);
    assert_eq!(response.status(), 403);
    assert!(logged.text().contains("Forbidden (CSRF token missing.): /"), "{}", logged.text());
    let rejected = response.extensions().get::<django_sessions::contrib::csrf::Rejected>();
    assert_eq!(rejected, Some(&django_sessions::contrib::csrf::Rejected::NoToken), "for a page of one's own");
}
