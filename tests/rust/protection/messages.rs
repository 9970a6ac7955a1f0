//! Django's `messages_tests`, as far as they are about requests, and generated sequences of requests.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const STORAGES: [&str; 3] = ["fallback.FallbackStorage", "cookie.CookieStorage", "session.SessionStorage"];

fn request(storage: &str, steps: &[Step]) -> Case {
    let storage = format!("django.contrib.messages.storage.{storage}");
    Case { steps: steps.to_vec(), settings: vec![("MESSAGE_STORAGE", json!(storage))], ..Case::default() }
}

/// Letters that no zlib makes shorter, nor the one much more than the other.
fn noise(length: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ (length as u64);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(letters[(state % 64) as usize])
    };
    (0..length).map(|_| next()).collect()
}

fn add(level: i64, text: &str) -> Step {
    Step::Add(level, text.to_owned(), Some(""), false)
}

/// Name in Django's tests, the requests of one browser.
fn sequences(storage: &str) -> Vec<(&'static str, Vec<Case>)> {
    use Step::*;
    let r = |steps: &[Step]| request(storage, steps);
    let with = |steps: &[Step], settings: &[(&'static str, Value)]| {
        let mut case = r(steps);
        case.settings.extend_from_slice(settings);
        case
    };
    let long = |length: usize| add(20, &noise(length));
    let tagged = Add(20, "A generic info message".to_owned(), Some("extra-tag"), false);
    let untagged = Add(20, "None".to_owned(), None, false);
    let safe = Add(20, "<b>Hello Django!</b>".to_owned(), Some(""), true);
    let unsafe_ = add(20, "<b>Hello Django!</b>");
    let own_cookie = [
        ("SESSION_COOKIE_DOMAIN", json!(".example.com")),
        ("SESSION_COOKIE_SECURE", json!(true)),
        ("SESSION_COOKIE_HTTPONLY", json!(true)),
        ("SESSION_COOKIE_SAMESITE", json!("Strict")),
    ];
    vec![
        ("test_add", vec![r(&[add(20, "Test message 1"), add(20, "Test message 2")])]),
        ("test_no_update", vec![r(&[])]),
        ("test_add_update", vec![r(&[add(20, "Test message 1"), add(20, "Test message 1")])]),
        ("test_existing_add_read_update", vec![r(&[add(20, "a")]), r(&[add(20, "b"), Take]), r(&[Take])]),
        ("test_existing_read_add_update", vec![r(&[add(20, "a")]), r(&[Take, add(20, "b")]), r(&[Take])]),
        (
            "test_full_request_response_cycle",
            vec![
                r(&[10, 20, 25, 30, 40].map(|level| add(level, "Test message"))),
                r(&[Count, Take]),
                r(&[Take]),
            ],
        ),
        (
            "test_multiple_posts",
            vec![r(&[add(20, "1")]), r(&[add(25, "2")]), r(&[add(30, "3")]), r(&[Take]), r(&[Count])],
        ),
        ("test_get", vec![r(&[add(20, "a"), add(20, "b")]), r(&[Take, Take])]),
        ("test_existing_read", vec![r(&[add(20, "a")]), r(&[Count]), r(&[Take]), r(&[Count])]),
        ("test_existing_add", vec![r(&[add(20, "a")]), r(&[add(20, "Test message 3")]), r(&[Take])]),
        ("test_default_level", vec![r(&[10, 20, 25, 29, 40].map(|level| add(level, "m"))), r(&[Take])]),
        ("test_low_level", vec![r(&[SetLevel(5), add(10, "a"), add(5, "b"), add(4, "c")]), r(&[Take])]),
        ("test_high_level", vec![r(&[SetLevel(30), add(25, "a"), add(30, "b")]), r(&[Take])]),
        ("test_tags", vec![r(&[tagged.clone(), untagged.clone(), add(29, "")]), r(&[Take])]),
        ("test_level_tag", vec![r(&[10, 20, 25, 29, 30, 40].map(|level| add(level, "m"))), r(&[Take])]),
        ("test_cookie_settings", vec![with(&[add(20, "test")], &own_cookie), with(&[Take], &own_cookie)]),
        (
            "test_max_cookie_length",
            vec![r(&[long(500), long(900), long(700), long(10)]), r(&[Take]), r(&[Take])],
        ),
        (
            "test_message_rfc6265",
            vec![r(&[add(20, "Test me"), add(20, "; \\ \" , \u{e9} \u{20ac}")]), r(&[Take])],
        ),
        (
            "test_json_encoder_decoder",
            vec![r(&[add(20, "{\"a\": [1, 2]}"), add(20, "\u{1f600}")]), r(&[Take])],
        ),
        ("test_safedata", vec![r(&[safe, unsafe_]), r(&[Take])]),
        ("test_extra_tags", vec![r(&[tagged, untagged, add(40, "m")]), r(&[Take])]),
        ("test_get_empty", vec![r(&[Take])]),
        ("test_flush_used_backends", vec![r(&[long(3000), add(20, "a")]), r(&[Take]), r(&[Count])]),
        (
            "test_session_fallback",
            vec![r(&(0..6).map(|number| long(390 + number)).collect::<Vec<_>>()), r(&[Count]), r(&[Take])],
        ),
        ("test_session_fallback_only", vec![r(&[long(5000)]), r(&[Take]), r(&[Take])]),
    ]
}

fn nobody(_: &mut Site) -> Jar {
    Jar::new()
}

#[tokio::test]
async fn as_django_s_own_tests() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    for storage in STORAGES {
        for (name, mut sequence) in sequences(storage) {
            for case in &mut sequence {
                case.name = name;
            }
            let outcomes = site.compare(&sequence, nobody).await;
            if name == "test_full_request_response_cycle" {
                assert_eq!(outcomes[1].answers[1].as_array().unwrap().len(), 4, "DEBUG is not recorded");
            }
        }
    }
}

/// `test_get_bad_cookie`, and cookies and sessions that hold what nobody reads.
#[tokio::test]
async fn what_cannot_be_read_is_no_message() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    for storage in STORAGES {
        for cookie in ["", "bad", "a:b:c", "W10:1abcde:x", "\"\"", "\"\\015\\012Set-Cookie: a\""] {
            for stored in [json!(""), json!("no JSON"), json!("[]"), json!("[[1]]")] {
                let start = |site: &mut Site| {
                    let session = site.make_session(json!({"_messages": stored}));
                    Jar::from([("messages".to_owned(), cookie.to_owned()), ("sessionid".to_owned(), session)])
                };
                let sequence = [&[Step::Count][..], &[add(20, "a")], &[Step::Take], &[Step::Take]];
                if storage == "session.SessionStorage" && stored != json!("[]") {
                    continue; // Django fails on what it did not write itself.
                }
                if storage.starts_with("fallback") && stored != json!("[]") && cookie.len() > 100 {
                    continue;
                }
                let sequence = sequence.map(|steps| request(storage, steps));
                site.compare(&sequence, start).await;
            }
        }
    }
}

/// Without a session there is the cookie, in which most messages fit; `test_no_session` says what the others need.
#[tokio::test]
async fn without_a_session() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    let without = |steps: &[Step]| Case { has_sessions: false, ..request("cookie.CookieStorage", steps) };
    let sequence = [&[add(20, "a")][..], &[Step::Take, add(20, "b")], &[Step::Take]];
    site.compare(&sequence.map(without), nobody).await;
    let case = Case { has_sessions: false, ..request("session.SessionStorage", &[Step::Take]) };
    for server in SERVERS {
        assert_eq!(site.play(server, &case, &mut Jar::new()).await.status, 500, "{server:?}");
    }
}

fn generated() -> impl Strategy<Value = Vec<Case>> {
    let text = prop_oneof![
        3 => "[a-z ]{0,20}",
        1 => "\\PC{1,30}",
        2 => (100..1500usize).prop_map(|length| "long ".repeat(length / 5)),
        1 => (300..900usize).prop_map(|length| "\u{e9}\u{20ac}".repeat(length / 2)),
    ];
    let level = select(vec![10, 20, 25, 29, 30, 40]);
    let tags = select(vec![Some(""), Some("a b"), None]);
    let step = prop_oneof![
        5 => (level.clone(), text, tags, any::<bool>())
            .prop_map(|(level, text, tags, is_safe)| Step::Add(level, text, tags, is_safe)),
        2 => Just(Step::Take),
        1 => Just(Step::Count),
        1 => level.prop_map(Step::SetLevel),
        1 => Just(Step::Insert("a", 2)),
    ];
    let setting = prop_oneof![
        Just(("SESSION_COOKIE_DOMAIN", json!("example.com"))),
        Just(("SESSION_COOKIE_SECURE", json!(true))),
        Just(("SESSION_COOKIE_HTTPONLY", json!(false))),
        Just(("SESSION_COOKIE_SAMESITE", json!("None"))),
        Just(("SESSION_COOKIE_SAMESITE", json!(false))),
        Just(("SESSION_SAVE_EVERY_REQUEST", json!(true))),
    ];
    let steps = prop::collection::vec(step, 0..5);
    let requests = prop::collection::vec((steps, select(vec![200, 200, 302, 500])), 1..5);
    (select(STORAGES.to_vec()), prop::option::of(setting), requests).prop_map(
        |(storage, setting, requests)| {
            let case = |(steps, status): (Vec<Step>, u16)| {
                let mut case = Case { status, ..request(storage, &steps) };
                case.settings.extend(setting.clone());
                case
            };
            requests.into_iter().map(case).collect()
        },
    )
}

#[tokio::test]
async fn generated_sequences() {
    let Some(mut site) = Site::start("protected.py").await else { return };
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..count(150, 1500) {
        let sequence = generated().new_tree(&mut runner).unwrap().current();
        let mut jar = Jar::new();
        let expected = site.compare(&sequence, nobody).await;
        // And one browser that goes from one to the next: each shows what the others left.
        for (number, case) in sequence.iter().enumerate() {
            let outcome = site.play(SERVERS[(number + 1) % 3], case, &mut jar).await;
            assert_eq!(outcome.answers, expected[number].answers, "request {number} of {sequence:#?}");
        }
    }
}
