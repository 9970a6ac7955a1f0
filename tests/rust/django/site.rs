//! A Django site behind its middleware, and the Rust store over the same SQLite file.

use actix_web::dev::ServiceResponse;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use django_sessions::backends::db::DbStore;
use django_sessions::crypto::SecretKeys;
use django_sessions::settings::Settings;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::django::Django;

pub(crate) struct Site {
    django: Django,
    pub(crate) store: DbStore,
    _folder: tempfile::TempDir,
}

impl Site {
    /// With one of the scripts beside this file that know `{"make": ..}` and `{"content": ..}`.
    pub(crate) async fn start(script: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db.sqlite3");
        let mut django = Django::start_with(script, &[file.to_str().unwrap()])?;
        django.ask(&json!({"content": "whether it is ready"})).unwrap();
        let settings = Settings::new(SecretKeys::new("the child's key"));
        let store = DbStore::connect(&format!("sqlite:{}", file.display()), settings).await.unwrap();
        Some(Self { django, store, _folder: folder })
    }

    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        let answer = self.django.ask(question).unwrap_or_else(|error| panic!("{error}: {question}"));
        serde_json::from_str(&answer).unwrap()
    }
}

/// The headers of a response of actix-web as axum has them.
pub(crate) fn headers_of(response: &ServiceResponse<impl Sized>) -> HeaderMap {
    let headers = response.headers().iter().map(|(name, value)| {
        (HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    headers.collect()
}

/// The attributes of a `Set-Cookie` header; `Expires` becomes its distance to `Max-Age`.
pub(crate) fn attributes(header: &str) -> Vec<String> {
    let mut parts: Vec<String> = header.split("; ").skip(1).map(|part| part.to_ascii_lowercase()).collect();
    let age =
        parts.iter().find_map(|part| part.strip_prefix("max-age=")).and_then(|age| age.parse::<i64>().ok());
    for part in &mut parts {
        if let Some(expires) = part.strip_prefix("expires=") {
            let expires = jiff::fmt::rfc2822::parse(&expires.replace("gmt", "GMT")).unwrap().timestamp();
            let off = expires.as_second() - Timestamp::now().as_second() - age.unwrap_or_default();
            *part = match (expires.as_second(), off) {
                (0, _) => "expires: long ago".to_owned(),
                (_, -5..=5) => "expires: with max-age".to_owned(),
                _ => format!("expires: {off} s off"),
            };
        }
    }
    parts.sort();
    parts
}
