//! Settings files: what they may say, what is refused and how, and that each opens the store that Django uses.

mod django;
#[path = "settings/round_trips.rs"]
mod round_trips;
#[path = "servers/mod.rs"]
mod servers;

use std::collections::BTreeMap;

use django_sessions::settings::{Engine, FileFormat, Settings, SettingsError};

fn read(text: &str) -> Result<Settings, SettingsError> {
    Settings::from_str_with(text, FileFormat::Toml, |name| (name == "THERE").then(|| "12".to_owned()))
}

fn refused(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

const HEAD: &str = "version = 1\nsecret_key = \"hush\"\n";

#[test]
fn what_is_left_out_is_djangos_default() {
    let settings = read(HEAD).unwrap();
    assert_eq!(settings.session_engine, Engine::Db);
    assert_eq!(settings.session_cookie_age, 1_209_600);
    assert_eq!(settings.auth.table, "auth_user");
    assert_eq!(settings.csrf.cookie_name, "csrftoken");
    assert_eq!(settings.secret_keys.current(), b"hush");
}

#[test]
fn each_sentence_names_the_key_and_what_to_do() {
    for (more, sentence) in [
        (
            "session_engin = \"db\"",
            "settings: session_engin: there is no such setting; do you mean \"session_engine\"?",
        ),
        (
            "session_engine = \"memory\"",
            "settings: session_engine: this is \"memory\", and should be one of \"db\", \"cache\", \"cached_db\", \
             \"file\", \"signed_cookies\"",
        ),
        ("session_cookie_age = \"hush\"", "settings: session_cookie_age: this is a text, and should be i64"),
        (
            "session_cookie_age = { env = \"MISSING\" }",
            "settings: session_cookie_age: the environment variable MISSING is not set; set it",
        ),
        (
            "secret_key_fallbacks = [\"a\", { env = \"MISSING\" }]",
            "settings: secret_key_fallbacks[1]: the environment variable MISSING is not set; set it",
        ),
        (
            "time_zone = \"Atlantis\"",
            "settings: time_zone: this system knows no time zone \"Atlantis\"; install tzdata, or name one such as \
             \"Europe/Berlin\"",
        ),
        ("[auth]\ntabel = \"x\"", "settings: auth.tabel: there is no such setting; do you mean \"table\"?"),
        (
            "[auth.permissions]\nuser_group = \"x\"",
            "settings: auth.permissions: user_group: there is no such setting",
        ),
        (
            "[caches.a]\nbackend = \"redsi\"",
            "settings: caches.a.backend: there is no such backend; do you mean \"redis\"?",
        ),
        ("[caches.a]\nversion = [1]", "settings: caches.a.version: this is a list, and should be a string"),
        ("[caches.a]\nprefix = 1", "settings: caches.a.prefix: there is no such setting; "),
        (
            "[caches.a]\nbackend = \"redis\"\n[caches.a.options]\npasword = 1",
            "settings: caches.a.options.pasword: there is no such setting; do you mean \"password\"?",
        ),
        (
            "[caches.a]\nbackend = \"memcached\"\nlocation = 7",
            "settings: caches.a.location: a text, or a list of texts",
        ),
        (
            "[databases.b]\nhots = \"x\"",
            "settings: databases.b.hots: there is no such setting; do you mean \"host\"?",
        ),
        ("caches = 7", "settings: caches: this should be a table"),
        ("session_engine = \"db", "settings: line 3 is not TOML: "),
        ("session_engine = \"db\"\nsession_engine = \"db\"", "settings: line 4 is not TOML: duplicate key"),
    ] {
        let found = refused(&format!("{HEAD}{more}"));
        assert!(found.starts_with(sentence), "{found}\n{sentence}");
        assert!(!found.contains("hush"), "{found}");
    }
    for (text, sentence) in [
        ("secret_key = \"x\"", "settings: version: this is missing: a settings file begins with version = 1"),
        (
            "version = 2\nnew_thing = 1",
            "settings: version: this crate reads version 1 only; export the settings anew, or update the crate",
        ),
        ("version = 1", "settings: secret_key: this is missing or empty; it is Django's SECRET_KEY"),
        (
            "version = 1\nsecret_key = \"\"",
            "settings: secret_key: this is missing or empty; it is Django's SECRET_KEY",
        ),
    ] {
        assert_eq!(refused(text), sentence);
    }
}

#[test]
fn environment_variables_become_what_is_wanted() {
    let more = "session_cookie_age = { env = \"THERE\" }\nkey_salt = { env = \"THERE\" }";
    let settings = read(&format!("{HEAD}{more}")).unwrap();
    assert_eq!(settings.session_cookie_age, 12);
    assert_eq!(settings.key_salt, "12");
    let found = refused(&format!("{HEAD}session_cookie_secure = {{ env = \"THERE\" }}"));
    assert_eq!(
        found,
        "settings: session_cookie_secure: this should be true or false (or yes, no, on, off, 1, 0)"
    );
}

#[test]
fn files_say_which_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.toml");
    let error = Settings::from_file(&path).unwrap_err();
    assert!(matches!(&error, SettingsError::Read { path: of, .. } if *of == path), "{error}");
    std::fs::write(&path, format!("{HEAD}{}", "#".repeat(1024 * 1024))).unwrap();
    assert!(matches!(Settings::from_file(&path), Err(SettingsError::Read { .. })), "too large");
    std::fs::write(&path, format!("{HEAD}sesion = 1")).unwrap();
    let error = Settings::from_file(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: sesion: ", path.display())), "{error}");
    let error = Settings::from_file(folder.path().join("session.yaml")).unwrap_err().to_string();
    assert!(error.ends_with("the name of a settings file ends with .toml or .json"), "{error}");
}

#[test]
fn debug_hides_every_secret() {
    let text = format!(
        "{HEAD}secret_key_fallbacks = [\"hush\"]\n\
         [databases.default]\nengine = \"postgresql\"\npassword = \"hush\"\n\
         [caches.default]\nbackend = \"redis\"\nlocation = [\"redis://:hush@a\", \"redis://b\"]\n\
         [caches.default.options]\npassword = \"hush\"\n[caches.default.options.sentinel_kwargs]\npassword = \"hush\"\n"
    );
    let shown = format!("{:?}", read(&text).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Settings::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn settings_from_the_environment() {
    let settings = from_variables(&[
        ("SECRET_KEY", "k"),
        ("SECRET_KEY_FALLBACKS", "a, b"),
        ("SESSION_ENGINE", "django_rust_sessions.backends.cached_db"),
        ("SESSION_COOKIE_AGE", "60"),
        ("SESSION_COOKIE_HTTPONLY", "off"),
        ("SESSION_COOKIE_SAMESITE", "False"),
        ("SESSION_COOKIE_DOMAIN", ""),
        ("DATABASE_URL", "postgres://u:p%40ss@[::1]:5433/shop%20db?sslmode=require"),
        ("CACHE_URL", "redis://:hush@a:6379/1"),
        ("CACHE_KEY_PREFIX", "shop"),
        ("CACHE_VERSION", "2"),
    ])
    .unwrap();
    assert_eq!(settings.secret_keys.fallbacks().collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(settings.session_engine, Engine::CachedDb);
    assert_eq!((settings.session_cookie_age, settings.session_cookie_httponly), (60, false));
    assert_eq!((settings.session_cookie_samesite, &settings.session_cookie_domain), (None, &None));
    let database = &settings.databases["default"];
    assert_eq!((&*database.user, &*database.host, database.port), ("u", "::1", Some(5433)));
    assert_eq!((&*database.name, database.password.as_ref().unwrap().expose()), ("shop db", "p@ss"));
    let cache = &settings.caches["default"];
    assert_eq!(cache.key_layout().unwrap().make_key("x"), "shop:2:x");

    let sqlite =
        from_variables(&[("SECRET_KEY", "k"), ("DATABASE_URL", "sqlite:////srv/db.sqlite3")]).unwrap();
    assert_eq!(sqlite.databases["default"].name, "/srv/db.sqlite3");
}

#[test]
fn what_the_environment_lacks_is_named() {
    for (name, value, sentence) in [
        (
            "X",
            "",
            "environment: SECRET_KEY: set it to Django's SECRET_KEY, or set DJANGO_SESSIONS_FILE to an exported file",
        ),
        ("SESSION_COOKIE_AGE", "hush", "environment: SESSION_COOKIE_AGE: this is a text, and should be i64"),
        ("DATABASE_URL", "hush", "environment: DATABASE_URL: this should be like postgres://"),
        ("DATABASE_URL", "postgres://u:hush@h", "environment: DATABASE_URL: this should be like postgres://"),
        ("DATABASE_URL", "postgres://u:hush%4@h/n", "environment: DATABASE_URL: a % is not followed"),
        ("DATABASE_URL", "mysql://u:hush@h:a/n", "environment: DATABASE_URL: "),
        ("CACHE_URL", "hush", "environment: CACHE_URL: this should begin with redis://"),
    ] {
        let mut variables = vec![(name, value), ("SECRET_KEY", "k")];
        if name == "X" {
            variables.pop();
        }
        let found = from_variables(&variables).expect_err(name).to_string();
        assert!(found.starts_with(sentence), "{found}\n{sentence}");
        assert!(!found.contains("hush"), "{found}");
    }
}

async fn not_opened(text: &str) -> String {
    match read(&format!("{HEAD}{text}")).unwrap().connect().await {
        Ok(_) => panic!("{text} is no store"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_cannot_be_opened() {
    assert!(
        not_opened("session_engine = \"db\"")
            .await
            .starts_with("settings: databases.default: this database is missing")
    );
    assert!(
        not_opened("session_engine = \"cache\"")
            .await
            .starts_with("settings: caches.default: this cache is missing")
    );
    assert_eq!(
        not_opened("session_engine = \"file\"\nsession_file_path = \"/nowhere/at/all\"").await,
        "the folder /nowhere/at/all (session_file_path) could not be opened"
    );
    let dead = "session_engine = \"cache\"\n[caches.default]\nbackend = \"redis\"\nlocation = \"redis://:hush@127.0.0.1:1\"";
    assert_eq!(not_opened(dead).await, "the cache \"default\" could not be opened");
    let own_keys = "session_engine = \"cache\"\n[caches.default]\nbackend = \"locmem\"\nkey_function = \"shop.make_key\"";
    let refused = not_opened(own_keys).await;
    assert!(refused.contains("Rust cannot call the project's shop.make_key"), "{refused}");
}
