//! Each engine beside Django's own: one writes, the other reads and changes one key, the first reads again.

use std::sync::Arc;

use django_sessions::backends::cache::CacheStore;
use django_sessions::backends::cached_db::CachedDbStore;
use django_sessions::backends::db::DbStore;
use django_sessions::backends::file::FileStore;
use django_sessions::backends::signed_cookies::SignedCookieStore;
use django_sessions::backends::{SessionStore, StoreError};
use django_sessions::caches::format::Format;
use django_sessions::caches::redis::RedisCache;
use django_sessions::caches::{Cache, CacheError, KeyLayout, TimeLimits};
use django_sessions::session::{Expiry, Session, SessionKey};
use django_sessions::settings::Settings;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::django::Django;
use crate::servers::Servers;
use crate::settings;

/// Where both keep their sessions.
struct Site {
    django: Django,
    folder: tempfile::TempDir,
    servers: Option<Servers>,
}

impl Site {
    /// A Django with this engine; `None` if something is not installed here.
    fn open(engine: &str, more: Value) -> Option<Self> {
        let servers = match engine {
            "cache" | "cached_db" => Some(Servers::start(&["redis"])?),
            _ => None,
        };
        let mut django = Django::start_script("engines.py")?;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = json!({
            "SESSION_ENGINE": format!("django.contrib.sessions.backends.{engine}"),
            "SESSION_FILE_PATH": folder.path(),
        });
        if let Some(servers) = &servers {
            let backend = "django.core.cache.backends.redis.RedisCache";
            settings["CACHES"] = json!({"default": {
                "BACKEND": backend, "LOCATION": servers.text("redis", "url"), "KEY_PREFIX": "shop", "VERSION": 2,
            }});
        }
        if engine == "cached_db" || engine == "db" {
            let path = folder.path().join("db.sqlite3");
            settings["DATABASES"] =
                json!({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path}});
        }
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(django.ask(&json!({"op": "configure", "settings": settings})).unwrap(), "ready");
        Some(Self { django, folder, servers })
    }

    async fn redis(&self) -> Arc<RedisCache> {
        let url = self.servers.as_ref().unwrap().text("redis", "url");
        Arc::new(RedisCache::connect(url, TimeLimits::default()).await.unwrap())
    }

    async fn cache(&self, settings: Settings) -> CacheStore {
        CacheStore::new(self.redis().await, KeyLayout::new("shop", 2), Format::django(), settings)
    }

    async fn db(&self) -> DbStore {
        let url = format!("sqlite:{}", self.folder.path().join("db.sqlite3").display());
        DbStore::connect(&url, settings()).await.unwrap()
    }

    async fn cached_db(&self) -> CachedDbStore {
        CachedDbStore::new(self.cache(settings()).await, self.db().await)
    }

    fn files(&self) -> FileStore {
        FileStore::in_directory(self.folder.path(), settings()).unwrap()
    }

    fn ask(&mut self, op: &str, key: &SessionKey, items: &str) -> Result<String, String> {
        self.django.ask(&json!({"op": op, "key": key.as_str(), "items": items}))
    }

    fn load(&mut self, key: &SessionKey) -> String {
        self.ask("load", key, "{}").unwrap()
    }

    fn save(&mut self, items: &str, calls: &str) -> SessionKey {
        let key = self.django.ask(&json!({"op": "save", "items": items, "calls": calls})).unwrap();
        SessionKey::new(key).unwrap()
    }
}

/// JSON holds these, and so every engine does.
const PLAIN: &str = "{'name': 'Zoë 🦀 \\ud800', 'big': 2**70, 'float': 1.0, 'nan': float('nan'), 'list': [1, [], {'a': None}], 'x': 1}";

/// These only a pickle holds.
const PICKLED: &str = "{'when': datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC), 'naive': datetime.datetime(2026, 1, 1), \
    'price': decimal.Decimal('1.10'), 'pair': (1, ('a', b'b')), 'set': {1}, 'frozen': frozenset({'q'}), 'id': uuid.UUID(int=7), \
    'basket': Basket('tea', (1, 2)), 'age': datetime.timedelta(days=1), 7: 'seven', None: 'none', ('a', 1): 'pair', 'x': 1}";

/// Rust changes `x` of what Django wrote; Django sees that change only, and both see it.
async fn one_key_changes(site: &mut Site, store: &dyn SessionStore, items: &str) -> SessionKey {
    let key = site.save(items, "[]");
    let before = site.load(&key);
    let mut session = store.load(&key).await.unwrap();
    assert_eq!(session.key(), Some(&key));
    assert_eq!(session.get::<u8>("x").unwrap(), Some(1));
    session.insert("x", "Rust was here").unwrap();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    let after = site.load(&key);
    let (start, _) = before.split_once("'x': 1").unwrap();
    assert_eq!(after, format!("{start}'x': 'Rust was here'}}"));
    key
}

/// Django changes what Rust made; a session that one deletes is gone for the other, and stays so.
async fn deleted_for_both(site: &mut Site, store: &dyn SessionStore) {
    let mut session = Session::new();
    session.insert("x", &1).unwrap();
    store.save(&mut session).await.unwrap();
    let key = session.key().unwrap().clone();
    assert_eq!(site.load(&key), "{'x': 1}");
    site.ask("change", &key, "{'y': [2]}").unwrap();
    let mut session = store.load(&key).await.unwrap();
    assert_eq!(session.get::<Vec<u8>>("y").unwrap(), Some(vec![2]));
    site.ask("delete", &key, "{}").unwrap();
    assert!(matches!(store.save(&mut session).await, Err(StoreError::Deleted)));
    assert_eq!(site.load(&key), "missing");
    assert!(!store.exists(&key).await.unwrap() && store.load(&key).await.unwrap().key().is_none());

    // An empty dict is a session for both.
    let key = site.save("{}", "[]");
    assert_eq!(store.load(&key).await.unwrap().key(), Some(&key));
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    let empty = session.key().unwrap().clone();
    assert_eq!(site.load(&empty), "{}");
    for key in [key, empty] {
        store.delete(&key).await.unwrap();
        assert_eq!(site.load(&key), "missing");
        assert_eq!(site.ask("exists", &key, "{}").unwrap(), "False");
    }
}

/// `datetime.max` is beyond `Timestamp::MAX`.
async fn reaches_the_ends_of_pythons_calendar(site: &mut Site, store: &dyn SessionStore) {
    let at = |end: &str| format!("[('set_expiry', datetime.datetime.{end}.replace(tzinfo=datetime.UTC))]");
    let key = site.save("{'x': 1}", &at("max"));
    let name = format!("shop:2:django.contrib.sessions.cached_db{}", key.as_str());
    for count in 2..5 {
        if site.servers.is_some() {
            // cached_db reads its table then.
            site.redis().await.delete(&name).await.unwrap();
        }
        let mut session = store.load(&key).await.unwrap();
        assert_eq!(session.key(), Some(&key));
        session.insert("x", &count).unwrap();
        store.save(&mut session).await.unwrap();
        let text = format!("{{'x': {count}, '_session_expiry': '9999-12-31T23:59:59.999999+00:00'}}");
        assert_eq!(site.load(&key), text);
        if count == 3 {
            site.ask("change", &key, "{'x': 1}").unwrap();
        }
    }
    assert_eq!(store.clear_expired().await.unwrap(), 0);
    let key = site.save("{}", &at("min"));
    assert!(store.load(&key).await.unwrap().key().is_none());
}

#[tokio::test]
async fn db() {
    let Some(mut site) = Site::open("db", json!({})) else { return };
    let store = site.db().await;
    one_key_changes(&mut site, &store, PLAIN).await;
    deleted_for_both(&mut site, &store).await;
    reaches_the_ends_of_pythons_calendar(&mut site, &store).await;
}

#[tokio::test]
async fn cache() {
    let Some(mut site) = Site::open("cache", json!({})) else { return };
    let store = site.cache(settings()).await;
    one_key_changes(&mut site, &store, PLAIN).await;
    reaches_the_ends_of_pythons_calendar(&mut site, &store).await;
    let key = one_key_changes(&mut site, &store, PICKLED).await;
    deleted_for_both(&mut site, &store).await;

    // Django reads a pickled None as a miss, and anything that is not a dict is no session.
    let cache = site.redis().await;
    let name = format!("shop:2:django.contrib.sessions.cache{}", key.as_str());
    for (bytes, what) in
        [(&b"\x80\x04K\x05."[..], "a number"), (b"5", "digits"), (b"\x80\x04", "half a pickle")]
    {
        cache.set(&name, bytes, None).await.unwrap();
        let error = store.load(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::Format(_)), "{what}: {error:?}");
        assert!(store.load_or_empty(&key).await.unwrap().key().is_none(), "{what}");
    }
    // Of another type of Redis, which Django takes for a missing session, too.
    let url = site.servers.as_ref().unwrap().text("redis", "url");
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    assert!(cache.delete(&name).await.unwrap());
    redis::cmd("RPUSH").arg(&name).arg("a").exec_async(&mut redis).await.unwrap();
    let error = store.load(&key).await.unwrap_err();
    assert!(matches!(error, StoreError::Cache(CacheError::Unreadable(_))), "{error:?}");
    assert!(store.load_or_empty(&key).await.unwrap().key().is_none());
    assert_eq!(site.load(&key), "missing");

    // A Decimal is a number of seconds.
    for (expiry, life) in [("300", 300), ("300.5", 300), ("1.2E+3", 1200)] {
        let key = site.save("{'x': 1}", &format!("[('set_expiry', decimal.Decimal('{expiry}'))]"));
        let mut session = store.load(&key).await.unwrap();
        assert_eq!(session.expiry(store.settings()).unwrap(), Some(Expiry::Seconds(life)));
        session.insert("x", &2).unwrap();
        store.save(&mut session).await.unwrap();
        assert_eq!(site.load(&key), format!("{{'x': 2, '_session_expiry': Decimal('{expiry}')}}"));
        let name = format!("shop:2:django.contrib.sessions.cache{}", key.as_str());
        let left: i64 = redis::cmd("TTL").arg(name).query_async(&mut redis).await.unwrap();
        assert!((life - 5..=life).contains(&left), "{left}");
    }
}

/// What Python's JSON writes of these is in the table, and they themselves in the cache.
#[tokio::test]
async fn cached_db_with_objects_that_json_has_as_plain_values() {
    let Some(mut site) = Site::open("cached_db", json!({})) else { return };
    let store = site.cached_db().await;
    for (value, plain) in [
        ("QueryDict('color=red&page=2')", r#"{"color":"red","page":"2"}"#),
        ("http.HTTPStatus.OK", "200"),
        ("[http.HTTPMethod.GET]", r#"["GET"]"#),
        ("{http.HTTPStatus.OK: 1}", r#"{"200":1}"#),
    ] {
        let key = site.save(&format!("{{'n': 1, 'v': {value}}}"), "[]");
        let mut session = store.load(&key).await.unwrap();
        let read: serde_json::Value = session.get("v").unwrap().unwrap();
        assert_eq!(read, serde_json::from_str::<serde_json::Value>(plain).unwrap(), "{value}");
        session.insert("n", &2).unwrap();
        store.save(&mut session).await.unwrap();
        store.cycle_key(&mut session).await.unwrap();
        let text = site.load(session.key().unwrap());
        assert!(text.starts_with("{'n': 2, 'v': "), "{text}");
        // The cache alone has no session: the table says which there are.
        let key = site.save(&format!("{{'v': {value}}}"), "[]");
        site.db().await.delete(&key).await.unwrap();
        assert!(store.load(&key).await.unwrap().key().is_none());
    }
}

#[tokio::test]
async fn cached_db() {
    let Some(mut site) = Site::open("cached_db", json!({})) else { return };
    let store = site.cached_db().await;
    let key = one_key_changes(&mut site, &store, PLAIN).await;
    deleted_for_both(&mut site, &store).await;
    reaches_the_ends_of_pythons_calendar(&mut site, &store).await;

    // Either reads from the table what the cache lost, and the other then finds it in the cache.
    let cache = site.redis().await;
    let name = format!("shop:2:django.contrib.sessions.cached_db{}", key.as_str());
    let before = site.load(&key);
    assert!(cache.delete(&name).await.unwrap());
    assert_eq!(store.load(&key).await.unwrap().get::<String>("x").unwrap().as_deref(), Some("Rust was here"));
    assert!(cache.get(&name).await.unwrap().is_some());
    assert_eq!(site.load(&key), before);

    // What JSON has not is refused by its key before anything is written, in Django by a TypeError.
    let mut session = store.load(&key).await.unwrap();
    let price = django_sessions::serializers::pickle::Value::decimal("1.10").unwrap();
    session.insert_value("price", price);
    let error = store.save(&mut session).await.unwrap_err();
    let StoreError::Session(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("price"), "{error}");
    assert_eq!(
        site.ask("change", &key, "{'price': decimal.Decimal('1.10')}"),
        Err("builtins.TypeError".to_owned())
    );
    assert_eq!(site.load(&key), before);
}

#[tokio::test]
async fn file() {
    let Some(mut site) = Site::open("file", json!({})) else { return };
    let store = site.files();
    one_key_changes(&mut site, &store, PLAIN).await;
    deleted_for_both(&mut site, &store).await;
    reaches_the_ends_of_pythons_calendar(&mut site, &store).await;
    // Seconds that have passed end it for neither.
    let key = site.save("{}", "[('set_expiry', 1)]");
    let over = site.save("{'_session_expiry': -1}", "[]");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(site.load(&key), "{'_session_expiry': 1}");
    assert_eq!(store.load(&key).await.unwrap().key(), Some(&key));
    assert_eq!(store.clear_expired().await.unwrap(), 1);
    assert_eq!(site.ask("exists", &over, "{}").unwrap(), "False");
    assert_eq!(site.ask("exists", &key, "{}").unwrap(), "True");
}

#[tokio::test]
async fn signed_cookies() {
    let Some(mut site) = Site::open("signed_cookies", json!({})) else { return };
    let store = SignedCookieStore::new(settings());
    one_key_changes(&mut site, &store, PLAIN).await;
    let mut session = Session::new();
    store.save(&mut session).await.unwrap();
    assert_eq!(site.load(session.key().unwrap()), "{}");
}

/// Every kind of `_session_expiry` that Django's methods or a site itself may leave, and one that nobody can read.
const EXPIRIES: [&str; 13] = [
    "None",
    "True",
    "0",
    "300",
    "300.9",
    "-5",
    "0.0",
    "False",
    "'2026-12-01T12:00:00+00:00'",
    "'2026-12-01T12:00:00.250000'",
    "datetime.datetime(2026, 12, 1, 12, tzinfo=datetime.UTC)",
    "datetime.datetime(2026, 12, 1, 12, 0, 0, 250000)",
    "datetime.datetime(2026, 12, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))",
];

#[tokio::test]
async fn expiry_of_every_kind_is_djangos() {
    let now: Timestamp = "2026-11-23T12:00:00.5Z".parse().unwrap();
    for (use_tz, time_zone) in [(true, "UTC"), (false, "Europe/Vienna")] {
        let more = json!({"USE_TZ": use_tz, "TIME_ZONE": time_zone});
        let Some(mut site) = Site::open("cache", more) else { return };
        let mut settings = settings();
        settings.time_zone = jiff::tz::TimeZone::get(time_zone).unwrap();
        let store = site.cache(settings.clone()).await;
        let mut compared = 0;
        for expiry in EXPIRIES {
            // Longer than Django takes the cache to keep it, so that what is over can be looked at.
            let key = site.save("{'x': 1}", "[]");
            let name = format!("shop:2:django.contrib.sessions.cache{}", key.as_str());
            let cache = site.redis().await;
            let pickled =
                site.django.ask(&json!({"op": "save", "items": format!("{{'_session_expiry': {expiry}}}")}));
            let Ok(pickled) = pickled else { continue };
            let from = format!("shop:2:django.contrib.sessions.cache{pickled}");
            let Some(bytes) = cache.get(&from).await.unwrap() else { continue };
            cache.set(&name, &bytes, None).await.unwrap();
            let question = json!({"op": "expiry", "key": key.as_str(), "now": "2026-11-23T12:00:00.5+00:00"});
            // Of a moment that knows its zone and one that does not Python makes no difference.
            let Ok(django) = site.django.ask(&question) else { continue };
            let session = store.load(&key).await.unwrap();
            let age = session.expiry_age(&settings, now).unwrap();
            let date = session.expiry_date(&settings, now).unwrap().as_second();
            let closes = if session.expires_at_browser_close(&settings).unwrap() { "True" } else { "False" };
            assert_eq!(format!("{age} {date} {closes}"), django, "{expiry} with USE_TZ = {use_tz}");
            compared += 1;
        }
        assert!(compared >= 7, "only {compared} were compared");
    }
}

#[tokio::test]
async fn what_rust_says_of_its_end_django_reads() {
    let Some(mut site) = Site::open("cache", json!({})) else { return };
    let store = site.cache(settings()).await;
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    for (expiry, age) in [
        (None, 1_209_600),
        (Some(Expiry::BrowserClose), 1_209_600),
        (Some(Expiry::Seconds(300)), 300),
        (Some(Expiry::At(in_an_hour)), 3600),
    ] {
        let mut session = Session::new();
        session.set_expiry(expiry);
        store.save(&mut session).await.unwrap();
        let key = session.key().unwrap();
        let question = json!({"op": "expiry", "key": key.as_str(), "now": Timestamp::now().to_string()});
        let django = site.django.ask(&question).unwrap();
        let found: i64 = django.split(' ').next().unwrap().parse().unwrap();
        assert!((age - 2..=age).contains(&found), "{expiry:?}: {django}");
        assert_eq!(django.ends_with("True"), expiry == Some(Expiry::BrowserClose), "{django}");
        // The cache forgets it when it ends.
        let url = site.servers.as_ref().unwrap().text("redis", "url");
        let mut connection =
            redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let name = format!("shop:2:django.contrib.sessions.cache{}", key.as_str());
        let ttl: i64 = redis::cmd("TTL").arg(name).query_async(&mut connection).await.unwrap();
        assert!((age - 2..=age).contains(&ttl), "{expiry:?}: {ttl}");
    }
}
