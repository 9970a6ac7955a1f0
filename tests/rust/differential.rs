//! Generated input, read by Rust and by a real Django: the same value or the same kind of failure.

mod django;
#[path = "django/generated.rs"]
mod generated;

use django_sessions::crypto::SecretKeys;
use django_sessions::serializers::json::{self, Object, RawValue};
use django_sessions::session::{Expiry, Session, SessionKey};
use django_sessions::settings::Settings;
use django_sessions::signing::{SigningError, TimestampSigner};
use generated::{ask, run};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const SALT: &str = "django.contrib.sessions.SessionStore";

fn signer() -> TimestampSigner {
    TimestampSigner::new(&SecretKeys::new("the child's key").with_fallbacks(["its former key"]), SALT)
}

/// Strings as JSON text: every escape, lone surrogates, latin-1 and what lies beyond.
fn string_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ -!#-\\[\\]-~]{1,6}",
        1 => prop::sample::select(vec!["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\u{7f}", "\u{e9}", "\u{ff}"])
            .prop_map(str::to_owned),
        2 => any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        1 => any::<char>().prop_map(|c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect()),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| String::from_utf8(json::to_vec(&n).unwrap()).unwrap()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        Just("NaN".to_owned()),
        Just("-Infinity".to_owned()),
        Just("Infinity".to_owned()),
    ]
}

/// JSON by Python's grammar, with white space where it may be.
fn value_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string_text(),
        number_text(),
        prop::sample::select(vec!["true", "false", "null", "[]", "{ }"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let comma = prop::sample::select(vec![",", ", ", " ,\n", "\t,\r"]);
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), comma.clone())
                .prop_map(|(items, comma)| format!("[{}]", items.join(comma))),
            (prop::collection::vec((string_text(), inner), 0..4), comma).prop_map(|(items, comma)| {
                let items: Vec<_> = items.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", items.join(comma))
            }),
        ]
    })
}

fn object_text() -> impl Strategy<Value = String> {
    prop::collection::vec((string_text(), value_text()), 0..6).prop_map(|items| {
        let items: Vec<_> = items.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        format!("{{{}}}", items.join(","))
    })
}

/// Where a text was changed, and how.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Double(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![0u8..=0xff, prop::sample::select(b"{}[]\",:\\u0-.eE+ NIaftn=_/".to_vec())];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), byte.clone()).prop_map(|(index, byte)| Mutation::Replace(index, byte)),
        (index(), byte).prop_map(|(index, byte)| Mutation::Insert(index, byte)),
        index().prop_map(Mutation::Remove),
        index().prop_map(Mutation::Cut),
        index().prop_map(Mutation::Double),
    ]
}

fn mutate(text: &mut Vec<u8>, mutation: &Mutation) {
    match mutation {
        Mutation::Insert(index, byte) => text.insert(index.index(text.len() + 1), *byte),
        _ if text.is_empty() => {}
        Mutation::Replace(index, byte) => {
            let index = index.index(text.len());
            text[index] = *byte;
        }
        Mutation::Remove(index) => drop(text.remove(index.index(text.len()))),
        Mutation::Cut(index) => text.truncate(index.index(text.len())),
        Mutation::Double(index) => text.insert(index.index(text.len()), text[index.index(text.len())]),
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The class that Django raises where Rust gives this error.
fn class(error: &SigningError) -> &'static str {
    match error {
        SigningError::NoSignature | SigningError::BadSignature => "django.core.signing.BadSignature",
        SigningError::NoTimestamp | SigningError::InvalidTimestamp => "builtins.ValueError",
        SigningError::Base64(_) => "binascii.Error",
        SigningError::Inflate(_) => "zlib.error",
        SigningError::Json(error) => json_class(error),
        other => panic!("{other} is not expected here"),
    }
}

fn json_class(error: &json::Error) -> &'static str {
    match error {
        json::Error::Syntax { .. } => "json.decoder.JSONDecodeError",
        json::Error::IntegerTooLong => "builtins.ValueError",
        other => panic!("{other} is not expected here"),
    }
}

/// Both give text that reads as the same value: Django's own reader is the judge.
fn assert_same(ours: &[u8], django: &str) -> Result<(), TestCaseError> {
    let ours = ask(&json!({"op": "json", "salt": SALT, "text": latin_1(ours)}));
    prop_assert_eq!(ours.as_deref(), Ok(django));
    Ok(())
}

#[test]
fn json_text_is_read_and_passed_through_as_python_reads_it() {
    run(4000, (object_text(), prop::collection::vec(mutation(), 0..3)), |(text, mutations)| {
        let mut bytes: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        let django = ask(&json!({"op": "json", "salt": SALT, "text": latin_1(&bytes)}));
        match Object::parse(&bytes) {
            Ok(object) => {
                prop_assert!(django.is_ok(), "Rust reads {:?}, Django: {:?}", latin_1(&bytes), django);
                assert_same(&object.to_vec(), &django.unwrap())
            }
            Err(json::Error::NotAnObject { .. }) => {
                prop_assert!(django.is_ok());
                assert_same(RawValue::from_text(bytes).unwrap().as_bytes(), &django.unwrap())
            }
            Err(error) => {
                prop_assert_eq!(django, Err(json_class(&error).to_owned()), "{:?}", latin_1(&bytes));
                Ok(())
            }
        }
    });
}

#[test]
fn what_rust_signs_django_reads_and_signs_again_for_rust() {
    run(2000, (object_text(), any::<bool>()), |(text, compress)| {
        let bytes: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        let object = Object::parse(&bytes).unwrap();
        let token = signer().sign_object(&object.to_vec(), compress, Timestamp::now());
        let value = ask(&json!({"op": "loads", "salt": SALT, "token": token})).unwrap();
        let again = ask(&json!({"op": "resign", "salt": SALT, "token": token})).unwrap();
        prop_assert_eq!(latin_1(&signer().unsign_object(&again, None).unwrap()), value);
        Ok(())
    });
}

#[test]
fn values_that_rust_writes_are_those_that_python_writes() {
    let values = prop_oneof![
        any::<f64>().prop_map(|value| json::to_vec(&value).unwrap()),
        any::<String>().prop_map(|value| json::to_vec(&value).unwrap()),
        any::<(i128, u64, i8, bool)>().prop_map(|value| json::to_vec(&value).unwrap()),
        any::<Vec<Option<(char, f32)>>>().prop_map(|value| json::to_vec(&value).unwrap()),
        any::<std::collections::BTreeMap<i32, String>>().prop_map(|value| json::to_vec(&value).unwrap()),
    ];
    run(2000, values, |text| {
        let django = ask(&json!({"op": "json", "salt": SALT, "text": latin_1(&text)}));
        prop_assert_eq!(django, Ok(latin_1(&text)), "to the letter");
        Ok(())
    });
}

#[test]
fn mutated_tokens_fail_as_in_django() {
    run(2000, (object_text(), prop::collection::vec(mutation(), 0..3)), |(text, mutations)| {
        let bytes: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        let mut token = signer().sign_object(&bytes, true, Timestamp::now()).into_bytes();
        mutations.iter().for_each(|mutation| mutate(&mut token, mutation));
        compare(&latin_1(&token))
    });
}

/// The payload is spoilt before it is signed, so that the signature is good and what lies behind it is reached.
#[test]
fn signed_garbage_fails_as_in_django() {
    let at = prop::sample::select(vec![0, 0, 0, 1]);
    run(4000, (object_text(), prop::collection::vec(mutation(), 0..4), at), |(text, mutations, part)| {
        let bytes: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        let token = signer().sign_object(&bytes, true, Timestamp::now());
        let (value, _) = token.rsplit_once(':').unwrap();
        let (payload, time) = value.rsplit_once(':').unwrap();
        let mut parts = [payload.as_bytes().to_vec(), time.as_bytes().to_vec()];
        mutations.iter().for_each(|mutation| mutate(&mut parts[part], mutation));
        let [payload, time] = parts.map(|part| latin_1(&part));
        let plain = django_sessions::signing::Signer::new(
            &SecretKeys::new("the child's key").with_fallbacks(["its former key"]),
            SALT,
        );
        compare(&plain.sign(&format!("{payload}:{time}")))
    });
}

/// What a view may do with a session.
#[derive(Clone, Debug)]
enum Call {
    Get(&'static str),
    Contains(&'static str),
    Set(&'static str, i64),
    Pop(&'static str),
    Clear,
    IsEmpty,
    SetTestCookie,
    TestCookieWorked,
    NoExpiry,
    ExpireIn(i64),
    ExpireAtBrowserClose,
    ExpireAt(i64),
}

impl Call {
    fn to_json(&self) -> Value {
        match self {
            Call::Get(key) => json!(["get", key]),
            Call::Contains(key) => json!(["contains", key]),
            Call::Set(key, value) => json!(["set", key, value]),
            Call::Pop(key) => json!(["pop", key]),
            Call::Clear => json!(["clear"]),
            Call::IsEmpty => json!(["is_empty"]),
            Call::SetTestCookie => json!(["set_test_cookie"]),
            Call::TestCookieWorked => json!(["test_cookie_worked"]),
            Call::NoExpiry => json!(["set_expiry", null]),
            Call::ExpireIn(seconds) => json!(["set_expiry", seconds]),
            Call::ExpireAtBrowserClose => json!(["set_expiry", 0]),
            Call::ExpireAt(second) => json!(["expire_at", second]),
        }
    }

    /// The same on the Rust side, with what a reader gives back.
    fn play(&self, session: &mut Session) -> Value {
        match self {
            Call::Get(key) => return json!(session.get::<Value>(key).unwrap()),
            Call::Contains(key) => return json!(session.contains_key(key)),
            Call::IsEmpty => return json!(session.is_empty()),
            Call::TestCookieWorked => return json!(session.test_cookie_worked()),
            Call::Set(key, value) => session.insert(key, value).unwrap(),
            Call::Pop(key) => drop(session.remove(key)),
            Call::Clear => session.clear(),
            Call::SetTestCookie => session.set_test_cookie(),
            Call::NoExpiry => session.set_expiry(None),
            Call::ExpireIn(seconds) => session.set_expiry(Some(Expiry::Seconds(*seconds))),
            Call::ExpireAtBrowserClose => session.set_expiry(Some(Expiry::BrowserClose)),
            Call::ExpireAt(second) => {
                session.set_expiry(Some(Expiry::At(Timestamp::from_second(*second).unwrap())))
            }
        }
        Value::Null
    }
}

fn call() -> impl Strategy<Value = Call> {
    let key = || prop::sample::select(vec!["a", "b", "testcookie"]);
    prop_oneof![
        3 => key().prop_map(Call::Get),
        2 => key().prop_map(Call::Contains),
        3 => (key(), -5i64..5).prop_map(|(key, value)| Call::Set(key, value)),
        3 => key().prop_map(Call::Pop),
        1 => Just(Call::Clear),
        2 => Just(Call::IsEmpty),
        1 => Just(Call::SetTestCookie),
        1 => Just(Call::TestCookieWorked),
        1 => Just(Call::NoExpiry),
        1 => (-100i64..1_000_000).prop_map(Call::ExpireIn),
        1 => Just(Call::ExpireAtBrowserClose),
        1 => (1_600_000_000i64..1_900_000_000).prop_map(Call::ExpireAt),
    ]
}

const STORED: [&str; 4] = ["{}", r#"{"a":1}"#, r#"{"b":[1,2],"a":null}"#, r#"{"a":1,"_session_expiry":60}"#];

#[test]
fn a_session_answers_and_changes_as_in_django() {
    let inputs = (prop::option::of(Just("12345678")), 0..STORED.len(), prop::collection::vec(call(), 0..12));
    run(2000, inputs, |(key, stored, calls)| {
        // Django loads nothing for a visitor without a key.
        let stored = if key.is_some() { STORED[stored] } else { "{}" };
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let django = ask(&json!({
            "op": "session", "key": key, "text": stored, "now": now.as_second(),
            "calls": calls.iter().map(Call::to_json).collect::<Vec<_>>(),
        }));

        let mut session =
            Session::with_data(key.and_then(SessionKey::new), Object::parse(stored.as_bytes()).unwrap());
        let answers: Vec<Value> = calls.iter().map(|call| call.play(&mut session)).collect();
        let flags = (session.accessed(), session.modified(), session.is_empty());
        let settings = Settings::new(SecretKeys::new("unused"));
        let expiry = (
            session.expiry_age(&settings, now).unwrap(),
            session.expiry_date(&settings, now).unwrap().as_second() as f64,
            session.expires_at_browser_close(&settings).unwrap(),
        );
        let items: Vec<(String, Value)> =
            session.data().iter().map(|(key, value)| (key.into_owned(), value.to().unwrap())).collect();
        let ours = json::to_vec(&(answers, flags, items, expiry)).unwrap();
        prop_assert_eq!(Ok(latin_1(&ours)), django, "{:?}", calls);
        Ok(())
    });
}

fn compare(token: &str) -> Result<(), TestCaseError> {
    let django = ask(&json!({"op": "loads", "salt": SALT, "token": token}));
    let ours = signer().unsign_object(token, None).and_then(|payload| Ok(RawValue::from_text(payload)?));
    match (ours, django) {
        (Ok(value), Ok(django)) => assert_same(value.as_bytes(), &django),
        (Ok(value), Err(error)) => {
            Err(TestCaseError::fail(format!("Rust reads {:?}, Django: {error}", latin_1(value.as_bytes()))))
        }
        (Err(error), django) => {
            // An empty timestamp is an IndexError to Django, any other that is none a ValueError.
            let django = django.map_err(|class| class.replace("IndexError", "ValueError"));
            prop_assert_eq!(django, Err(class(&error).to_owned()), "{:?} of {:?}", error, token);
            Ok(())
        }
    }
}
