//! A Django site exports its settings and makes a session; the store that Rust opens has it, and what Rust changes
//! Django reads.

use std::path::Path;

use django_sessions::session::SessionKey;
use django_sessions::settings::{FileFormat, Settings};
use serde_json::{Value, json};

use crate::django::{Django, is_built};
use crate::servers::Servers;

const SECRET_KEY: &str = "hush: the key of the site";

struct Site {
    django: Django,
    folder: tempfile::TempDir,
}

impl Site {
    /// Starts a site with these settings; beside it, what it says of the session that it made. Without Django or without
    /// the built package it says so, and returns `None`.
    fn start(mut settings: Value) -> Option<(Self, Value)> {
        if !is_built() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        settings["SECRET_KEY"] = SECRET_KEY.into();
        settings["SECRET_KEY_FALLBACKS"] = json!(["hush: the former key"]);
        let mut django = Django::start_script("../settings/site.py")?;
        let made = django.ask_json(&json!({"folder": folder.path(), "settings": settings}));
        Some((Self { django, folder }, made))
    }

    /// The settings out of each file that the site exported.
    fn exported(&self, secrets: &[(&str, &str)]) -> Vec<Settings> {
        let mut found = Vec::new();
        for (suffix, format) in [("toml", FileFormat::Toml), ("json", FileFormat::Json)] {
            let path = self.folder.path().join(format!("named.{suffix}"));
            let text = std::fs::read_to_string(path).expect("the site exported it");
            assert!(!text.contains("hush"), "{text}");
            for (_, secret) in secrets {
                assert!(!text.contains(secret), "{text}");
            }
            let variable = |name: &str| match name {
                "SECRET_KEY" => Some(SECRET_KEY.to_owned()),
                "SECRET_KEY_FALLBACK_1" => Some("hush: the former key".to_owned()),
                name => {
                    secrets.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
                }
            };
            found.push(Settings::from_str_with(&text, format, variable).expect("it is understood"));
            let path = self.folder.path().join(format!("whole.{suffix}"));
            found.push(Settings::from_file(path).expect("it is understood"));
        }
        found
    }
}

/// `secrets` are the environment variables that the export names, beside those of SECRET_KEY.
async fn round_trip(settings: Value, secrets: &[(&str, &str)]) {
    let Some((mut site, made)) = Site::start(settings) else { return };
    let mut key = SessionKey::new(made["key"].as_str().expect("a key")).expect("a good key");
    for (number, settings) in site.exported(secrets).into_iter().enumerate() {
        assert!(!format!("{settings:?}").contains("hush"));
        let store = settings.connect().await.unwrap_or_else(|error| panic!("{error:?}"));
        let mut session = store.load(&key).await.expect("Django's session can be read");
        assert_eq!(session.get::<Vec<String>>("cart").unwrap().unwrap(), ["tea"]);
        assert_eq!(session.get::<f64>("größe").unwrap(), Some(1.5));
        session.insert("number", &number).unwrap();
        store.save(&mut session).await.expect("it is still there");
        key = session.key().expect("it is saved").clone();
        assert_eq!(
            site.django.ask_json(&json!(key.as_str())),
            json!({"cart": ["tea"], "größe": 1.5, "number": number})
        );
    }
}

fn engine(name: &str, mut more: Value) -> Value {
    more["SESSION_ENGINE"] = format!("django.contrib.sessions.backends.{name}").into();
    more
}

fn caches(backend: &str, location: Value, options: Value) -> Value {
    json!({"sessions": {
        "BACKEND": backend, "LOCATION": location, "OPTIONS": options, "KEY_PREFIX": "shop", "VERSION": 3,
    }})
}

fn in_cache(caches: Value) -> Value {
    engine("cache", json!({"SESSION_CACHE_ALIAS": "sessions", "CACHES": caches}))
}

fn sqlite(folder: &Path) -> Value {
    let options =
        json!({"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"});
    let name = folder.join("db \"1\".sqlite3");
    json!({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}})
}

#[tokio::test]
async fn sqlite_with_its_time_zone() {
    let folder = tempfile::tempdir().unwrap();
    let mut databases = sqlite(folder.path());
    databases["default"]["TIME_ZONE"] = "Asia/Tokyo".into();
    round_trip(engine("db", json!({"DATABASES": databases})), &[]).await;
}

fn server(servers: &Servers, name: &str, engine: &str) -> Value {
    json!({"default": {
        "ENGINE": format!("django.db.backends.{engine}"), "NAME": servers.text(name, "database"),
        "USER": servers.text(name, "user"), "PASSWORD": servers.text(name, "password"),
        "HOST": servers.text(name, "host"), "PORT": servers.number(name, "port"),
    }})
}

#[tokio::test]
async fn postgresql_by_port_and_by_socket() {
    let Some(servers) = Servers::start(&["postgres"]) else { return };
    let secrets = [("DATABASES_DEFAULT_PASSWORD", servers.text("postgres", "password"))];
    let mut databases = server(&servers, "postgres", "postgresql");
    round_trip(engine("db", json!({"DATABASES": databases})), &secrets).await;
    databases["default"]["HOST"] = servers.text("postgres", "socket").into();
    databases["default"]["OPTIONS"] = json!({"options": "-c search_path=public", "connect_timeout": 5});
    let table = caches("django.core.cache.backends.db.DatabaseCache", "cache table".into(), json!({}));
    let settings = json!({"DATABASES": databases, "CACHES": table, "SESSION_CACHE_ALIAS": "sessions"});
    round_trip(engine("cached_db", settings), &secrets).await;
}

#[tokio::test]
async fn mariadb_by_port_and_by_socket() {
    let Some(servers) = Servers::start(&["mariadb"]) else { return };
    let secrets = [("DATABASES_DEFAULT_PASSWORD", servers.text("mariadb", "password"))];
    let mut databases = server(&servers, "mariadb", "mysql");
    round_trip(engine("db", json!({"DATABASES": databases})), &secrets).await;
    databases["default"]["HOST"] = servers.text("mariadb", "socket").into();
    databases["default"]["OPTIONS"] =
        json!({"charset": "utf8mb4", "init_command": "SET sql_mode='STRICT_TRANS_TABLES'"});
    round_trip(engine("db", json!({"DATABASES": databases})), &secrets).await;
}

#[tokio::test]
async fn redis_as_django_and_as_django_redis_has_it() {
    let Some(servers) = Servers::start(&["redis+password"]) else { return };
    let server = |detail| servers.text("redis+password", detail);
    let secrets = [("CACHES_SESSIONS_LOCATION", server("url"))];
    let django = "django.core.cache.backends.redis.RedisCache";
    round_trip(in_cache(caches(django, server("url").into(), json!({"db": 2}))), &secrets).await;

    let bare = format!("redis://127.0.0.1:{}/1", servers.number("redis+password", "port"));
    let secrets = [("CACHES_SESSIONS_PASSWORD", server("user_password"))];
    for (serializer, compressor) in [
        ("pickle.PickleSerializer", "identity.IdentityCompressor"),
        ("json.JSONSerializer", "zlib.ZlibCompressor"),
        ("msgpack.MSGPackSerializer", "lzma.LzmaCompressor"),
    ] {
        let options = json!({
            "PASSWORD": server("user_password"),
            "CONNECTION_POOL_KWARGS": {"username": server("user"), "max_connections": 5},
            "SERIALIZER": format!("django_redis.serializers.{serializer}"),
            "COMPRESSOR": format!("django_redis.compressors.{compressor}"),
            "SOCKET_TIMEOUT": 3,
        });
        let caches = caches("django_redis.cache.RedisCache", json!([&bare, &bare]), options);
        round_trip(in_cache(caches), &secrets).await;
    }
}

#[tokio::test]
async fn memcached_before_sqlite() {
    let Some(servers) = Servers::start(&["memcached"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = format!("127.0.0.1:{}", servers.number("memcached", "port"));
    let backend = "django.core.cache.backends.memcached.PyMemcacheCache";
    let caches = caches(backend, place.into(), json!({"connect_timeout": 2, "no_delay": true}));
    round_trip(in_cache(caches.clone()), &[]).await;
    let settings =
        json!({"SESSION_CACHE_ALIAS": "sessions", "CACHES": caches, "DATABASES": sqlite(folder.path())});
    round_trip(engine("cached_db", settings), &[]).await;
}

#[tokio::test]
async fn files_and_cookies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("größe");
    std::fs::create_dir(&path).unwrap();
    round_trip(engine("file", json!({"SESSION_FILE_PATH": path, "SESSION_COOKIE_NAME": "sid"})), &[]).await;
    round_trip(engine("signed_cookies", json!({"SESSION_COOKIE_AGE": 600})), &[]).await;
    let backend = "django.core.cache.backends.filebased.FileBasedCache";
    round_trip(in_cache(caches(backend, json!(folder.path()), json!({"MAX_ENTRIES": 9}))), &[]).await;
    // Whatever Python shows it as stands in the keys: mostly a forgotten int(), or a variable that is not set.
    for version in [json!(null), json!("v7"), json!(true), json!(1.5), json!(-3)] {
        let mut caches = caches(backend, json!(folder.path()), json!({}));
        caches["sessions"]["VERSION"] = version;
        round_trip(in_cache(caches), &[]).await;
    }
}
