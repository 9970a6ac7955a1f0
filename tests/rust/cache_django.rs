//! The caches beside Django's own: each finds what the other stored, and where.

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod cache_cases;
mod dice;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod django;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;

use cache_cases::{FOR_EVER, MINUTE};
use dice::Dice;
use django::Django;
use django_sessions::caches::{Cache, KeyLayout};
use serde_json::{Value, json};
use servers::Servers;

/// Django with these caches and databases.
fn django(caches: Value, databases: Value) -> Option<Django> {
    configured(json!({"op": "configure", "caches": caches, "databases": databases}))
}

fn configured(question: Value) -> Option<Django> {
    let mut django = Django::start_script("caches.py")?;
    django.ask(&question).unwrap();
    Some(django)
}

/// What Django's `default` cache answers to calls.
fn calls(django: &mut Django, calls: Vec<Value>) -> Vec<Value> {
    let calls: Vec<Value> = calls
        .into_iter()
        .map(|call| {
            let mut words = vec![json!("default")];
            words.extend(call.as_array().unwrap().iter().cloned());
            Value::from(words)
        })
        .collect();
    let answer = django.ask(&json!({"op": "calls", "calls": calls})).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn call(django: &mut Django, words: Value) -> Value {
    calls(django, vec![words]).remove(0)
}

/// The pickle that Django makes of a value.
fn dumps(django: &mut Django, value: &Value) -> Vec<u8> {
    let answer = django.ask(&json!({"op": "dumps", "value": value})).unwrap();
    let digits: String = serde_json::from_str(&answer).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// How large a sample is, of which the small one has `small`.
fn cases(small: u64) -> u64 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .map_or(small, |cases: u64| cases.max(small))
}

fn key(name: &str) -> String {
    KeyLayout::default().make_key(name)
}

/// A few hundred keys, each stored by one side and found, with the same pickle, by the other.
async fn finds_each_other_s_values(cache: &dyn Cache, django: &mut Django, names: &[String]) {
    let value = |name: &str| json!({"cart": [name, 1, null, 2.5], "_auth_user_id": "7"});
    let (ours, theirs) = names.split_at(names.len() / 2);
    for name in ours {
        let pickle = dumps(django, &value(name));
        cache.set(&key(name), &pickle, MINUTE).await.unwrap();
    }
    let found = calls(django, ours.iter().map(|name| json!(["get", name])).collect());
    for (name, found) in ours.iter().zip(found) {
        assert_eq!(found, value(name), "Django finds {name}");
    }
    calls(django, theirs.iter().map(|name| json!(["set", name, value(name), 60])).collect());
    for name in theirs {
        let found = cache.get(&key(name)).await.unwrap();
        assert_eq!(found, Some(dumps(django, &value(name))), "{name} is found where Django stored it");
    }

    // Deleted is deleted, for both.
    for name in theirs {
        assert!(cache.delete(&key(name)).await.unwrap());
    }
    let left = calls(django, theirs.iter().map(|name| json!(["get", name])).collect());
    assert!(left.iter().all(Value::is_null));
    let deleted = calls(django, ours.iter().map(|name| json!(["delete", name])).collect());
    assert!(deleted.iter().all(|deleted| deleted == &json!(true)));
    for name in ours {
        assert_eq!(cache.get(&key(name)).await.unwrap(), None);
        assert!(!cache.replace(&key(name), b"N.", MINUTE).await.unwrap());
    }
}

/// What ends for one ends for the other.
async fn ends_for_both(cache: &dyn Cache, django: &mut Django) {
    let value = json!({"a": 1});
    let pickle = dumps(django, &value);
    for (name, seconds) in [("none", Some(0)), ("brief", Some(1)), ("long", Some(1000)), ("ever", None)] {
        let timeout = seconds.map(std::time::Duration::from_secs);
        cache.set(&key(&format!("our-{name}")), &pickle, timeout).await.unwrap();
        call(django, json!(["set", format!("their-{name}"), value, seconds]));
    }
    let gone = |found: &[Value]| found.iter().map(Value::is_null).collect::<Vec<_>>();
    let names = ["none", "long", "ever"];
    let ask = |side: &str| names.iter().map(|name| json!(["get", format!("{side}-{name}")])).collect();
    for side in ["our", "their"] {
        assert_eq!(gone(&calls(django, ask(side))), [true, false, false], "{side}s in Django");
        for (name, is_there) in names.iter().zip([false, true, true]) {
            let found = cache.get(&key(&format!("{side}-{name}"))).await.unwrap();
            assert_eq!(found.is_some(), is_there, "{side}-{name}");
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    for side in ["our", "their"] {
        assert_eq!(call(django, json!(["get", format!("{side}-brief")])), Value::Null);
        assert_eq!(cache.get(&key(&format!("{side}-brief"))).await.unwrap(), None);
    }
    assert!(cache.touch(&key("their-long"), FOR_EVER).await.unwrap());
    assert_eq!(call(django, json!(["get", "their-long"])), value);
    assert_eq!(call(django, json!(["touch", "our-ever", 1000])), json!(true));
    assert_eq!(cache.get(&key("our-ever")).await.unwrap().unwrap(), pickle);
}

mod memcached {
    use django_sessions::caches::memcached::{MemcachedCache, MemcachedSettings, Serde};

    use super::*;

    fn location(servers: &Servers) -> Vec<String> {
        servers.numbers("memcached_three", "ports").iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    fn pymemcache(location: &[String], options: Value) -> Option<Django> {
        let backend = "django.core.cache.backends.memcached.PyMemcacheCache";
        django(json!({"default": {"BACKEND": backend, "LOCATION": location, "OPTIONS": options}}), json!({}))
    }

    fn names(count: u64) -> Vec<String> {
        let mut dice = Dice(0x5eed);
        let odd = ["ключ", "é", "🔑", "%", "\u{a0}", "'"];
        let name = |number| match dice.below(4) {
            0 => format!("{}{number}", odd[dice.below(6) as usize]),
            _ => format!(
                "django.contrib.sessions.cache{:016x}{:x}",
                dice.below(u64::MAX),
                dice.below(u64::MAX)
            ),
        };
        (0..count).map(name).collect()
    }

    #[tokio::test]
    async fn each_key_is_on_the_server_where_pymemcache_looks() {
        let Some(servers) = Servers::start(&["memcached_three"]) else { return };
        let location = location(&servers);
        let Some(mut django) = pymemcache(&location, json!({})) else { return };
        let cache = MemcachedCache::open(&MemcachedSettings::new(location.clone())).unwrap();
        let names = names(cases(400).min(4000));
        finds_each_other_s_values(&cache, &mut django, &names).await;
        ends_for_both(&cache, &mut django).await;

        // All three have their share, so that there was something to find out.
        for name in &names {
            cache.set(&key(name), b"N.", MINUTE).await.unwrap();
        }
        for server in &location {
            let one = MemcachedCache::open(&MemcachedSettings::new([server])).unwrap();
            let mut share = 0;
            for name in &names {
                share += u64::from(one.get(&key(name)).await.unwrap().is_some());
            }
            let even = names.len() as u64 / 3;
            assert!((even / 2..even * 2).contains(&share), "{share} of {}", names.len());
        }
    }

    #[tokio::test]
    async fn pymemcache_s_own_prefix() {
        let Some(servers) = Servers::start(&["memcached_three"]) else { return };
        let location = location(&servers);
        let Some(mut django) = pymemcache(&location, json!({"key_prefix": "site-"})) else { return };
        let mut settings = MemcachedSettings::new(location);
        settings.key_prefix = "site-".to_owned();
        let cache = MemcachedCache::open(&settings).unwrap();
        finds_each_other_s_values(&cache, &mut django, &names(60)).await;
    }

    #[tokio::test]
    async fn pymemcache_s_own_compression() {
        let Some(servers) = Servers::start(&["memcached_three"]) else { return };
        let location = location(&servers);
        let Some(mut django) = pymemcache(&location, json!({"serde": "compressed"})) else { return };
        let mut settings = MemcachedSettings::new(location);
        let plain = MemcachedCache::open(&settings).unwrap();
        settings.serde = Serde::Compressed;
        let compressing = MemcachedCache::open(&settings).unwrap();
        finds_each_other_s_values(&compressing, &mut django, &names(20)).await;
        for length in [1, 60, 1000] {
            let value = json!({"long": "text ".repeat(length)});
            let pickle = dumps(&mut django, &value);
            compressing.set(&key("ours"), &pickle, MINUTE).await.unwrap();
            assert_eq!(call(&mut django, json!(["get", "ours"])), value);
            call(&mut django, json!(["set", "theirs", value, 60]));
            // What is compressed is read by all, whoever writes how.
            for cache in [&plain, &compressing] {
                assert_eq!(cache.get(&key("theirs")).await.unwrap().as_ref(), Some(&pickle));
                assert_eq!(cache.get(&key("ours")).await.unwrap().as_ref(), Some(&pickle));
            }
        }
    }
}

mod db {
    use django_sessions::backends::db::Pool;
    use django_sessions::caches::db::{DatabaseCacheSettings, DbCache};

    use super::*;

    const BACKEND: &str = "django.core.cache.backends.db.DatabaseCache";

    /// A Django with these caches in one database. A table is named like its alias.
    struct Site {
        django: Django,
        pool: Pool,
        _servers: Option<Servers>,
        _folder: tempfile::TempDir,
    }

    async fn site(kind: &str, caches: &[(String, Value)], more: Value) -> Option<Site> {
        let folder = tempfile::tempdir().unwrap();
        let (database, url, servers) = match kind {
            "sqlite" => {
                let path = folder.path().join("db.sqlite3");
                let database = json!({"ENGINE": "django.db.backends.sqlite3", "NAME": path});
                (database, format!("sqlite:{}", path.display()), None)
            }
            kind => {
                let servers = Servers::start(&[kind])?;
                let engine = if kind == "postgres" { "postgresql" } else { "mysql" };
                let database = json!({
                    "ENGINE": format!("django.db.backends.{engine}"),
                    "NAME": servers.text(kind, "database"),
                    "USER": servers.text(kind, "user"),
                    "PASSWORD": servers.text(kind, "password"),
                    "HOST": servers.text(kind, "host"),
                    "PORT": servers.number(kind, "port"),
                });
                (database, servers.text(kind, "url").to_owned(), Some(servers))
            }
        };
        let cache = |(alias, options): &(String, Value)| {
            (alias.clone(), json!({"BACKEND": BACKEND, "LOCATION": alias, "OPTIONS": options}))
        };
        let mut caches: serde_json::Map<_, _> = caches.iter().map(cache).collect();
        caches.extend([cache(&("default".to_owned(), json!({})))]);
        let mut question = json!({"op": "configure", "caches": caches, "databases": {"default": database}});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let django = configured(question)?;
        let pool = Pool::connect(&url).await.unwrap();
        Some(Site { django, pool, _servers: servers, _folder: folder })
    }

    async fn both_ways(kind: &str) {
        let Some(mut site) = site(kind, &[], json!({})).await else { return };
        let cache = DbCache::new(site.pool.clone(), &DatabaseCacheSettings::new("default"));
        let names: Vec<_> = (0..100).map(|number| format!("ключ-🔑-{number}")).collect();
        finds_each_other_s_values(&cache, &mut site.django, &names).await;
        ends_for_both(&cache, &mut site.django).await;
    }

    #[tokio::test]
    async fn both_ways_on_sqlite() {
        both_ways("sqlite").await;
    }

    #[tokio::test]
    async fn both_ways_on_postgres() {
        both_ways("postgres").await;
    }

    #[tokio::test]
    async fn both_ways_on_mariadb() {
        both_ways("mariadb").await;
    }

    /// The same calls, to Django in one table and to us in another: the same answers, and the same keys left.
    async fn culls_as_django(kind: &str) {
        let limits = [(12, 3), (10, 2), (8, 1), (6, 0), (9, 5), (0, 3)];
        let options = |(max, frequency)| json!({"MAX_ENTRIES": max, "CULL_FREQUENCY": frequency});
        let aliases = limits.iter().flat_map(|limits| ["ours", "theirs"].map(|side| (side, *limits)));
        let caches: Vec<_> = aliases
            .map(|(side, limits)| (format!("{side}_{}_{}", limits.0, limits.1), options(limits)))
            .collect();
        let Some(mut site) = site(kind, &caches, json!({})).await else { return };
        for (max_entries, cull_frequency) in limits {
            let [ours, theirs] =
                ["ours", "theirs"].map(|side| format!("{side}_{max_entries}_{cull_frequency}"));
            let mut settings = DatabaseCacheSettings::new(&ours);
            (settings.max_entries, settings.cull_frequency) = (max_entries, cull_frequency);
            let cache = DbCache::new(site.pool.clone(), &settings);
            let mut dice = Dice(0x5eed + max_entries);
            let mut entries = 0;
            for round in 0..cases(60).min(2000) {
                let name = format!("key-{:02}", dice.below(30));
                let seconds = [Some(0), Some(1000), None][dice.below(3) as usize];
                let kind_of_call = match dice.below(9) {
                    // Django's set() then makes room, though it may add nothing. Ours does when something is added.
                    5 if entries > max_entries => 7,
                    kind => kind,
                };
                let (call, answer) = both_calls(&cache, kind_of_call, &name, seconds).await;
                let mut call = call.as_array().unwrap().clone();
                call.insert(0, json!(theirs));
                let what = format!("{kind}, round {round}: {call:?}");
                let asked = json!({"op": "calls", "calls": [call, [theirs, "keys"], [ours, "keys"]]});
                let answers: Vec<Value> = serde_json::from_str(&site.django.ask(&asked).unwrap()).unwrap();
                assert_eq!(answers[0], answer, "{what}");
                assert_eq!(answers[1], answers[2], "{what}");
                entries = answers[1].as_array().unwrap().len() as u64;
            }
        }
    }

    /// Makes a call, and says which one is the same in Django and what it must answer there.
    async fn both_calls(cache: &DbCache, kind: u64, name: &str, seconds: Option<u64>) -> (Value, Value) {
        // The pickle of a dict without anything in it.
        let (ours, pickle, value) = (key(name), b"}.", json!({}));
        let timeout = seconds.map(std::time::Duration::from_secs);
        match kind {
            0..3 => {
                cache.set(&ours, pickle, timeout).await.unwrap();
                (json!(["set", name, value, seconds]), Value::Null)
            }
            3..5 => {
                let added = cache.add(&ours, pickle, timeout).await.unwrap();
                (json!(["add", name, value, seconds]), json!(added))
            }
            // Django's look also deletes what is over.
            5 | 6 if cache.get(&ours).await.unwrap().is_none() => {
                assert!(!cache.replace(&ours, pickle, timeout).await.unwrap());
                (json!(["get", name]), Value::Null)
            }
            5 => {
                assert!(cache.replace(&ours, pickle, timeout).await.unwrap());
                (json!(["replace", name, value, seconds]), json!(true))
            }
            6 => {
                let touched = cache.touch(&ours, timeout).await.unwrap();
                (json!(["touch", name, seconds]), json!(touched))
            }
            7 => {
                let found = cache.get(&ours).await.unwrap();
                (json!(["get", name]), if found.is_some() { value } else { Value::Null })
            }
            _ => (json!(["delete", name]), json!(cache.delete(&ours).await.unwrap())),
        }
    }

    #[tokio::test]
    async fn culls_as_django_on_sqlite() {
        culls_as_django("sqlite").await;
    }

    #[tokio::test]
    async fn culls_as_django_on_postgres() {
        culls_as_django("postgres").await;
    }

    #[tokio::test]
    async fn culls_as_django_on_mariadb() {
        culls_as_django("mariadb").await;
    }

    /// With `USE_TZ = False` SQLite and MySQL hold times in `TIME_ZONE`.
    #[tokio::test]
    async fn without_time_zones() {
        for kind in ["sqlite", "postgres", "mariadb"] {
            let more = json!({"use_tz": false, "time_zone": "Asia/Tokyo"});
            let Some(mut site) = site(kind, &[], more).await else { continue };
            let zone = jiff::tz::TimeZone::get("Asia/Tokyo").unwrap();
            let cache =
                DbCache::new(site.pool.clone(), &DatabaseCacheSettings::new("default")).with_time_zone(zone);
            ends_for_both(&cache, &mut site.django).await;
            cache.set(&key("forever"), b"N.", FOR_EVER).await.unwrap();
            call(&mut site.django, json!(["set", "endless", {}, null]));
            let expires = |django: &mut Django, name| call(django, json!(["expires", key(name)]));
            assert_eq!(expires(&mut site.django, "forever"), expires(&mut site.django, "endless"), "{kind}");
        }
    }
}

mod filebased {
    use std::fs;
    use std::path::Path;

    use django_sessions::caches::CacheError;
    use django_sessions::caches::filebased::{FileBasedCache, FileBasedSettings};

    use super::*;

    fn files(location: &Path, options: Value) -> Option<Django> {
        let backend = "django.core.cache.backends.filebased.FileBasedCache";
        django(json!({"default": {"BACKEND": backend, "LOCATION": location, "OPTIONS": options}}), json!({}))
    }

    #[tokio::test]
    async fn both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("deep/below");
        let Some(mut django) = files(&location, json!({})) else { return };
        let cache = FileBasedCache::open(&FileBasedSettings::new(&location)).unwrap();
        let names: Vec<_> = (0..100).map(|number| format!("ключ-🔑-{number}")).collect();
        finds_each_other_s_values(&cache, &mut django, &names).await;
        ends_for_both(&cache, &mut django).await;
        // Each of Django's touches leaves garbage behind a value whose end got shorter.
        call(&mut django, json!(["set", "touched", {"a": 1}, 60]));
        call(&mut django, json!(["touch", "touched", null]));
        let pickle = dumps(&mut django, &json!({"a": 1}));
        assert_eq!(cache.get(&key("touched")).await.unwrap(), Some(pickle));
    }

    #[tokio::test]
    async fn a_file_cut_off_anywhere_is_to_both_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut django) = files(folder.path(), json!({})) else { return };
        let cache = FileBasedCache::open(&FileBasedSettings::new(folder.path())).unwrap();
        for seconds in [json!(60), Value::Null] {
            call(&mut django, json!(["set", "cut", {"a": [1, 2, 3]}, seconds]));
            let name = call(&mut django, json!(["files"]))[0].as_str().unwrap().to_owned();
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            for length in 0..=whole.len() {
                fs::write(&path, &whole[..length]).unwrap();
                let theirs = call(&mut django, json!(["get", "cut"]));
                let is_left = path.exists();
                fs::write(&path, &whole[..length]).unwrap();
                match cache.get(&key("cut")).await {
                    Ok(Some(_)) => assert_eq!(length, whole.len()),
                    Ok(None) => assert!(theirs.is_null(), "{length}: {theirs}"),
                    Err(CacheError::Unreadable(_)) => {
                        assert!(theirs.get("error").is_some(), "{length}: {theirs}")
                    }
                    Err(error) => panic!("{length}: {error:?}"),
                }
                assert_eq!(path.exists(), is_left, "{length}");
            }
        }
    }

    #[tokio::test]
    async fn culls_as_many_as_django() {
        for (max_entries, cull_frequency) in [(10, 3), (7, 2), (5, 1), (4, 0), (9, 20)] {
            let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let options = json!({"MAX_ENTRIES": max_entries, "CULL_FREQUENCY": cull_frequency});
            let Some(mut django) = files(theirs.path(), options) else { return };
            let mut settings = FileBasedSettings::new(ours.path());
            (settings.max_entries, settings.cull_frequency) = (max_entries, cull_frequency);
            let cache = FileBasedCache::open(&settings).unwrap();
            for number in 0..40 {
                let name = format!("key-{number}");
                match number % 3 {
                    0 => assert!(cache.add(&key(&name), b"N.", MINUTE).await.unwrap()),
                    _ => cache.set(&key(&name), b"N.", MINUTE).await.unwrap(),
                }
                let left = calls(&mut django, vec![json!(["set", name, {}, 60]), json!(["files"])]).remove(1);
                let count = fs::read_dir(ours.path()).unwrap().count();
                assert_eq!(left.as_array().unwrap().len(), count, "{max_entries}/{cull_frequency}: {number}");
                assert!(cache.get(&key(&name)).await.unwrap().is_some(), "the last one is never culled");
            }
            for _ in 0..20 {
                assert!(cache.replace(&key("key-39"), b"I1\n.", MINUTE).await.unwrap());
                assert_eq!(
                    cache.get(&key("key-39")).await.unwrap().unwrap(),
                    b"I1\n.",
                    "nor the replaced one"
                );
            }
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("made");
        let cache = FileBasedCache::open(&FileBasedSettings::new(&location)).unwrap();
        cache.set("key", b"N.", MINUTE).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&location), 0o700);
        let file = fs::read_dir(&location).unwrap().next().unwrap().unwrap().path();
        assert_eq!(mode(&file), 0o600);
    }
}
