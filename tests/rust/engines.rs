//! The engines beside the db engine: what every store must do, and what only each of them can show.

use std::sync::Arc;

use django_sessions::conformance::{self, Capabilities, Clock, Options};
use django_sessions::crypto::SecretKeys;
use django_sessions::settings::Settings;

#[path = "engines/beside_django.rs"]
mod beside_django;
#[path = "engines/caches.rs"]
mod caches;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod django;
#[path = "engines/fallback.rs"]
mod fallback;
#[path = "engines/files.rs"]
mod files;
#[path = "engines/hashed_keys.rs"]
mod hashed_keys;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod logged;
#[path = "engines/manage.rs"]
mod manage;
#[path = "managed.rs"]
mod managed;
#[path = "engines/merge.rs"]
mod merge;
#[path = "engines/secrets.rs"]
mod secrets;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod servers;
mod signals;
#[path = "engines/signed_cookies.rs"]
mod signed_cookies;

fn settings() -> Settings {
    Settings::new(SecretKeys::new("a key for tests"))
}

fn options(clock: Clock, capabilities: Capabilities) -> Options {
    let mut options = Options::new(clock);
    options.capabilities = capabilities;
    options
}

/// Runs the whole suite. Returns the names of the cases that it skipped.
async fn conforms<S>(store: S, options: Options) -> Vec<&'static str>
where
    S: django_sessions::backends::SessionStore + 'static,
{
    let report = conformance::run(&Arc::new(store), &options).await.unwrap();
    report.skipped.iter().map(|(case, _)| case.name()).collect()
}
