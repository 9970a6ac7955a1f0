//! Every vector that a real Django made, read by Rust: the same value, or the same kind of failure.

use std::fs;
use std::path::Path;

use django_sessions::contrib::auth::session_auth_hash;
use django_sessions::crypto::{Algorithm, SecretKeys};
use django_sessions::serializers::json::{self, Object, RawValue};
use django_sessions::serializers::legacy::{LegacyCodec, LegacyError};
use django_sessions::signing::{MaxAge, Signer, SigningError, TimestampSigner};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// One release's file, and what all of its vectors share.
struct Release {
    name: String,
    vectors: Value,
}

impl Release {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut releases: Vec<Self> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .map(|path| Self {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                vectors: serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
            })
            .collect();
        releases.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(releases.len() >= 10, "vectors of ten set-ups are committed");
        releases
    }

    fn entries(&self, list: &str) -> impl Iterator<Item = Entry<'_>> {
        self.vectors[list].as_array().unwrap().iter().map(|entry| Entry { release: self, entry })
    }

    fn header(&self, field: &str) -> &str {
        self.vectors["header"][field].as_str().unwrap()
    }
}

struct Entry<'a> {
    release: &'a Release,
    entry: &'a Value,
}

impl Entry<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        self.entry[field].as_str()
    }

    fn id(&self) -> String {
        format!("{} {}", self.release.name, self.text("name").unwrap())
    }

    fn kind(&self) -> &str {
        self.text("kind").unwrap()
    }

    fn keys(&self) -> SecretKeys {
        let key = self.text("secret_key").unwrap_or_else(|| self.release.header("secret_key"));
        let fallbacks = self.entry["fallback_keys"].as_array().cloned().unwrap_or_default();
        SecretKeys::new(key).with_fallbacks(fallbacks.iter().map(|key| key.as_str().unwrap()))
    }

    fn algorithm(&self) -> Algorithm {
        match self.text("algorithm").unwrap_or_else(|| self.release.header("algorithm")) {
            "sha1" => Algorithm::Sha1,
            "sha256" => Algorithm::Sha256,
            other => panic!("unknown algorithm {other}"),
        }
    }

    fn signer(&self) -> TimestampSigner {
        Signer::with_algorithm(&self.keys(), self.text("salt").unwrap(), self.algorithm()).into()
    }

    fn legacy(&self) -> LegacyCodec {
        let class_name = self.text("salt").unwrap().strip_prefix("django.contrib.sessions").unwrap();
        LegacyCodec::new(&self.keys(), class_name)
    }

    /// A text field; long ones are stored as parts, some of them repeated.
    fn long_text(&self, field: &str) -> String {
        let part = |part: &Value| match part.as_str() {
            Some(text) => text.to_owned(),
            None => part["repeat"][0].as_str().unwrap().repeat(part["repeat"][1].as_u64().unwrap() as usize),
        };
        match &self.entry[field] {
            Value::Array(parts) => parts.iter().map(part).collect(),
            text => part(text),
        }
    }

    fn token(&self) -> String {
        self.long_text("token")
    }

    fn payload(&self) -> String {
        self.long_text("payload")
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(self.entry["time"].as_i64().unwrap()).unwrap()
    }

    fn max_age(&self) -> Option<MaxAge> {
        let seconds = |field: &str| self.entry[field].as_f64().map(SignedDuration::from_secs_f64);
        Some(MaxAge::new(seconds("max_age")?, Timestamp::from_duration(seconds("now")?).unwrap()))
    }

    /// The payload's bytes, found well-formed, or the name of what is wrong.
    fn read(&self) -> Result<Vec<u8>, String> {
        let payload = if self.kind() == "legacy" {
            self.legacy().decode(&self.token()).map_err(|error| legacy_name(&error).to_owned())?
        } else {
            let unsigned = self.signer().unsign_object(&self.token(), self.max_age());
            unsigned.map_err(|error| signing_name(&error).to_owned())?
        };
        match RawValue::from_text(payload) {
            Ok(value) => Ok(value.as_bytes().to_vec()),
            Err(error) => Err(json_name(&error).to_owned()),
        }
    }
}

/// What Django raises in place of each error: the one table of it.
fn signing_name(error: &SigningError) -> &'static str {
    match error {
        SigningError::NoSignature | SigningError::BadSignature => "BadSignature",
        SigningError::SignatureExpired { .. } => "SignatureExpired",
        SigningError::NoTimestamp | SigningError::InvalidTimestamp => "timestamp",
        SigningError::Base64(_) => "binascii.Error",
        SigningError::Inflate(_) => "zlib.error",
        SigningError::TooLarge { .. } => "TooLarge",
        SigningError::Json(error) => json_name(error),
        _ => "an error that this table does not know",
    }
}

fn legacy_name(error: &LegacyError) -> &'static str {
    match error {
        LegacyError::Base64(_) => "binascii.Error",
        LegacyError::NoHash => "ValueError",
        LegacyError::HashNotText => "UnicodeDecodeError",
        LegacyError::BadHash => "SuspiciousSession",
        _ => "an error that this table does not know",
    }
}

fn json_name(error: &json::Error) -> &'static str {
    match error {
        json::Error::Syntax { .. } => "json.decoder.JSONDecodeError",
        json::Error::TooDeep { .. } => "RecursionError",
        json::Error::IntegerTooLong => "ValueError",
        _ => "an error that this table does not know",
    }
}

/// Compares as Rust values, or where Rust has none for it (a lone surrogate, say) as text.
fn assert_same_value(found: &[u8], expected: &[u8], id: &str) {
    match (json::from_slice::<Value>(found), json::from_slice::<Value>(expected)) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{id}"),
        _ => assert_eq!(String::from_utf8(canonical(found)), String::from_utf8(canonical(expected)), "{id}"),
    }
}

/// JSON text without the white space and the escapes that Python's writer would not write.
fn canonical(text: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'"' {
            let end = string_end(rest);
            // Keys are written anew, so a string becomes what Python would write when it is one.
            let object = Object::parse(&[b"{\"", &rest[..end], b":0}"].concat()).unwrap().to_vec();
            output.extend(&object[1..object.len() - 3]);
            rest = &rest[end..];
        } else if !byte.is_ascii_whitespace() {
            output.push(byte);
        }
    }
    output
}

fn string_end(text: &[u8]) -> usize {
    let mut index = 0;
    while text[index] != b'"' {
        index += if text[index] == b'\\' { 2 } else { 1 };
    }
    index + 1
}

#[test]
fn every_valid_vector_is_read_and_written_back() {
    let mut read = 0;
    for release in Release::all() {
        for entry in release.entries("valid") {
            let (id, payload) = (entry.id(), entry.payload());
            let bytes = entry.read().unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(String::from_utf8(bytes).unwrap(), payload, "{id}");

            // Split into values and put together again, nothing has changed, but that of equal keys one is left.
            let object = Object::parse(payload.as_bytes()).unwrap();
            let expected = entry.text("reads_as").unwrap_or(&payload);
            assert_eq!(String::from_utf8(object.to_vec()).unwrap(), expected, "{id}");

            assert_written_as_django(&entry, payload.as_bytes());
            read += 1;
        }
    }
    assert!(read >= 300, "{read} valid vectors");
}

/// What Rust signs is Django's text to the letter, but for what zlib makes of it.
fn assert_written_as_django(entry: &Entry<'_>, payload: &[u8]) {
    if entry.text("signed_with").is_some() {
        return;
    }
    if entry.kind() == "legacy" {
        return assert_eq!(entry.legacy().encode(payload), entry.token(), "{}", entry.id());
    }
    let compressed = entry.entry["compressed"].as_bool().unwrap();
    let token = entry.signer().sign_object(payload, compressed, entry.time());
    if compressed {
        assert_eq!(entry.signer().unsign_object(&token, None).unwrap(), payload, "{}", entry.id());
        assert_eq!(token.starts_with('.'), entry.token().starts_with('.'), "{}", entry.id());
        // Beyond that size only text that repeats itself is among the vectors, which zlib-rs packs 200-fold in place of 400.
        let is_long = payload.len() > 100_000;
        assert!(
            is_long || token.len() * 10 <= entry.token().len() * 11,
            "{}: at most a tenth longer",
            entry.id()
        );
    } else {
        assert_eq!(token, entry.token(), "{}", entry.id());
    }
}

#[test]
fn every_invalid_vector_fails_as_in_django() {
    let (mut seen, mut refused) = (0, 0);
    for release in Release::all() {
        for entry in release.entries("invalid") {
            let id = entry.id();
            let expected = match (entry.text("ours"), entry.text("error")) {
                (Some(ours), _) => Some(ours),
                (None, Some("IndexError" | "OverflowError")) => Some("timestamp"),
                (None, Some("ValueError")) if entry.text("group") == Some("timestamp") => Some("timestamp"),
                (None, error) => error,
            };
            // Pythons from before 2022 took integers of any length; later ones, and we, do not.
            let is_long_integer = id.contains("digit");
            match (entry.read(), expected) {
                (Ok(payload), None) => {
                    let value = entry.long_text("value");
                    let found = match Object::parse(&payload) {
                        Ok(object) => object.to_vec(),
                        Err(json::Error::NotAnObject { .. }) => payload,
                        Err(error) => panic!("{id}: {error}"),
                    };
                    assert_same_value(&found, value.as_bytes(), &id);
                }
                (Err(error), Some(expected)) => {
                    assert_eq!(error, expected, "{id}");
                    refused += 1;
                }
                (Err(error), None) if is_long_integer => assert_eq!(error, "ValueError", "{id}"),
                (Ok(_), Some(expected)) => panic!("{id}: read, but Django raises {expected}"),
                (Err(error), None) => panic!("{id}: {error}, but Django reads it"),
            }
            seen += 1;
        }
    }
    assert!(seen > 1000 && refused > seen / 2, "{seen} seen, {refused} refused");
}

#[test]
fn login_hashes_are_those_of_each_release() {
    for release in Release::all() {
        let auth = &release.vectors["header"]["auth"];
        let algorithm = match auth["algorithm"].as_str().unwrap() {
            "sha1" => Algorithm::Sha1,
            _ => Algorithm::Sha256,
        };
        let hash =
            |key: &str| session_auth_hash(auth["password"].as_str().unwrap(), key.as_bytes(), algorithm);
        assert_eq!(hash(release.header("secret_key")), auth["session_auth_hash"], "{}", release.name);
        let Some(fallbacks) = auth["fallback_keys"].as_array() else { continue };
        for (key, expected) in fallbacks.iter().zip(auth["fallback_hashes"].as_array().unwrap()) {
            assert_eq!(hash(key.as_str().unwrap()), *expected, "{}", release.name);
        }
    }
}

#[cfg(feature = "sqlite")]
mod rows {
    use django_sessions::backends::SessionStore;
    use django_sessions::backends::db::{DbStore, Pool};
    use django_sessions::session::SessionKey;
    use django_sessions::settings::Settings;

    use super::*;

    /// A store whose clock stands at the time that the vector was made.
    async fn store(entry: &Entry<'_>) -> (DbStore, sqlx::SqlitePool) {
        let mut settings = Settings::new(entry.keys());
        settings.key_salt = entry.text("salt").unwrap().to_owned();
        let pool = Pool::connect("sqlite::memory:").await.unwrap();
        let connection = pool.sqlite().unwrap();
        sqlx::query("CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, expire_date datetime NOT NULL)")
            .execute(connection).await.unwrap();
        let connection = connection.clone();
        // The worker's clock has these microseconds in every third vector.
        let has_fraction = entry.entry["row"]["expire_date"].as_str().unwrap().ends_with(".123456");
        let time = entry.time() + SignedDuration::from_micros(if has_fraction { 123_456 } else { 0 });
        (DbStore::new(pool, settings).with_clock(move || time), connection)
    }

    /// The row that Django stored is read, and stored again by Rust it says the same to the letter.
    #[tokio::test]
    async fn every_row_is_read_and_written_back() {
        let mut rows = 0;
        for release in Release::all() {
            for entry in release
                .entries("valid")
                .filter(|entry| entry.kind() == "db" && entry.entry["row"].is_object())
            {
                let id = entry.id();
                let field = |field: &str| entry.entry["row"][field].as_str().unwrap().to_owned();
                let (session_key, expire_date) = (field("session_key"), field("expire_date"));
                let (store, connection) = store(&entry).await;
                sqlx::query("INSERT INTO django_session VALUES (?, ?, ?)")
                    .bind(&session_key)
                    .bind(entry.token())
                    .bind(&expire_date)
                    .execute(&connection)
                    .await
                    .unwrap();

                let key = SessionKey::new(session_key).unwrap();
                let mut session = store.load(&key).await.unwrap();
                // A session that was stored with an expiry in the past is over for both.
                let now = entry.time().strftime("%F %T").to_string();
                if expire_date <= now {
                    assert!(session.key().is_none(), "{id} is over");
                    session = django_sessions::session::Session::with_data(
                        Some(key.clone()),
                        Object::parse(entry.payload().as_bytes()).unwrap(),
                    );
                }
                assert_eq!(session.key(), Some(&key), "{id}");
                store.save(&mut session).await.unwrap();
                let (data, stored): (String, String) =
                    sqlx::query_as("SELECT session_data, CAST(expire_date AS TEXT) FROM django_session")
                        .fetch_one(&connection)
                        .await
                        .unwrap();
                assert_eq!(stored, expire_date, "{id}");
                let expected = entry.text("reads_as").map_or_else(|| entry.payload(), str::to_owned);
                let payload = entry.signer().unsign_object(&data, None).unwrap();
                assert_eq!(String::from_utf8(payload).unwrap(), expected, "{id}");
                rows += 1;
            }
        }
        assert!(rows > 100, "{rows} rows");
    }
}
