//! What Django wrote is under the same key, in each shape that Django knows.

use std::path::Path;
use std::process::Command;

use django_sessions::caches::{CACHE_KEY_PREFIX, CACHED_DB_KEY_PREFIX, KeyLayout};
use serde_json::{Value, json};

use super::*;

/// `CACHES` for one server, and a second one with a prefix and a version.
fn plain(servers: &Servers) -> Value {
    let backend = "django.core.cache.backends.redis.RedisCache";
    let url = servers.text("redis", "url");
    json!({
        "default": {"BACKEND": backend, "LOCATION": url},
        "shop": {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": "shop", "VERSION": 2},
    })
}

/// Runs a line of Python with `cache`, one of Django's caches as in `CACHES`, and returns what it prints.
fn django(caches: &Value, code: &str) -> String {
    let script = format!(
        "import json, sys, time\n\
         from django.conf import settings\n\
         settings.configure(SECRET_KEY='k', SESSION_ENGINE='django.contrib.sessions.backends.cache',\n\
         CACHES=json.loads(sys.argv[1]))\n\
         from django.core.cache import cache, caches\n\
         def until(ask, wanted):\n\
         \x20   while (found := ask()) != wanted: time.sleep(0.01)\n\
         \x20   return found\n\
         {code}\n"
    );
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let output =
        Command::new(python).args(["-c", &script, &caches.to_string()]).output().expect("run `make venv`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Django and Rust write and read each other's values. Replicas lag, so both ask until they see them.
pub(crate) async fn agrees(caches: &Value, settings: &RedisSettings) {
    let cache = open(settings).await;
    let key = |key: &str| KeyLayout::default().make_key(key);
    django(caches, "cache.set('from Django', 41, 60)");
    while cache.get(&key("from Django")).await.unwrap().as_deref() != Some(b"41") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!cache.add(&key("from Django"), b"1", MINUTE).await.unwrap());
    cache.set(&key("from Rust"), b"7", MINUTE).await.unwrap();
    assert_eq!(django(caches, "print(until(lambda: cache.get('from Rust'), 7))"), "7");
    assert_eq!(django(caches, "print(bool(cache.delete('from Rust')))"), "True");
    assert!(!cache.replace(&key("from Rust"), b"8", MINUTE).await.unwrap(), "deleted is deleted");

    let session = django(
        caches,
        "from django.contrib.sessions.backends.cache import SessionStore\n\
         session = SessionStore(); session['cart'] = ['tea', 2**70]; session.save(); print(session.session_key)",
    );
    let session = key(&format!("{CACHE_KEY_PREFIX}{session}"));
    let pickle = loop {
        if let Some(pickle) = cache.get(&session).await.unwrap() {
            break pickle;
        }
    };
    let copy = key(&format!("{CACHE_KEY_PREFIX}another-key"));
    cache.set(&copy, &pickle, MINUTE).await.unwrap();
    let seen = django(
        caches,
        "from django.contrib.sessions.backends.cache import SessionStore\n\
         print(until(lambda: SessionStore('another-key').load(), {'cart': ['tea', 2**70]}))",
    );
    assert_eq!(seen, "{'cart': ['tea', 1180591620717411303424]}");
    assert!(cache.delete(&copy).await.unwrap());
}

#[tokio::test]
async fn django_agrees_on_a_primary_with_replicas() {
    let Some(servers) = Servers::start(&["redis_replicas"]) else { return };
    let urls = servers.text("redis_replicas", "urls");
    let list: Vec<_> = urls.split(',').collect();
    for location in [json!(list), json!(urls.replace(',', ";"))] {
        let cache = json!({"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": &location});
        let settings = serde_json::from_value(json!({"location": location})).unwrap();
        agrees(&json!({"default": cache}), &settings).await;
    }
}

#[tokio::test]
async fn django_redis_agrees_with_sentinel() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let settings = sentinel(&servers);
    for client in ["SentinelClient", "DefaultClient"] {
        let caches = json!({"default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://mymaster/0",
            "OPTIONS": {
                "CLIENT_CLASS": format!("django_redis.client.{client}"),
                "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
                "SENTINELS": &settings.sentinels,
            },
        }});
        agrees(&caches, &settings).await;
    }
}

/// Neither Django's cache nor django-redis speaks to a Cluster, but redis-py does: values are where it looks for them.
#[tokio::test]
async fn redis_py_agrees_with_a_cluster() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    let cache = open(&cluster(&servers)).await;
    let key = |number| KeyLayout::default().make_key(&format!("{CACHE_KEY_PREFIX}ключ {number}"));
    for number in 0..20 {
        cache.set(&key(number), format!("value {number}").as_bytes(), MINUTE).await.unwrap();
    }
    let seen = django(
        &json!({"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}),
        &format!(
            "import redis\n\
             client = redis.RedisCluster.from_url('{}')\n\
             keys = [cache.make_key(f'{CACHE_KEY_PREFIX}ключ {{n}}') for n in range(20)]\n\
             print(all(client.get(key) == f'value {{n}}'.encode() for n, key in enumerate(keys)))\n\
             for n, key in enumerate(keys): client.set(key, f'other {{n}}', xx=True, ex=60)",
            servers.text("redis_cluster", "url")
        ),
    );
    assert_eq!(seen, "True");
    for number in 0..20 {
        assert_eq!(cache.get(&key(number)).await.unwrap().unwrap(), format!("other {number}").as_bytes());
    }
}

#[tokio::test]
async fn django_reads_what_rust_wrote_and_the_reverse() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&one(&servers)).await;
    let (default, shop) = (KeyLayout::default(), KeyLayout::new("shop", 2));

    // Django stores integers as they are, and everything else as a pickle.
    cache.set(&default.make_key("visits"), b"41", MINUTE).await.unwrap();
    cache.set(&shop.make_key("visits"), b"7", FOR_EVER).await.unwrap();
    assert_eq!(django(&plain(&servers), "print(cache.get('visits'), caches['shop'].get('visits'))"), "41 7");
    assert_eq!(django(&plain(&servers), "print(cache.add('visits', 1), cache.incr('visits'))"), "False 42");
    assert_eq!(cache.get(&default.make_key("visits")).await.unwrap().unwrap(), b"42");
    let seconds: u32 =
        django(&plain(&servers), "print(cache._cache.get_client().ttl(':1:visits'))").parse().unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
    assert_eq!(
        django(&plain(&servers), "print(cache._cache.get_client().ttl('shop:2:visits'))"),
        "-1",
        "no timeout"
    );

    django(&plain(&servers), "caches['shop'].set('orders', 1234, 60)");
    assert_eq!(cache.get(&shop.make_key("orders")).await.unwrap().unwrap(), b"1234");
    assert!(!cache.add(&shop.make_key("orders"), b"1", MINUTE).await.unwrap());
    django(&plain(&servers), "caches['shop'].delete('orders')");
    assert!(!cache.replace(&shop.make_key("orders"), b"1", MINUTE).await.unwrap());
}

#[tokio::test]
async fn django_sessions_are_under_these_keys() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    let cache = open(&one(&servers)).await;
    let prefixes = django(
        &plain(&servers),
        "from django.contrib.sessions.backends import cache as c\nprint(c.KEY_PREFIX)\n\
         settings.INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.sessions']\n\
         import django; django.setup()\n\
         from django.contrib.sessions.backends import cached_db as d\nprint(d.KEY_PREFIX)",
    );
    assert_eq!(prefixes.lines().collect::<Vec<_>>(), [CACHE_KEY_PREFIX, CACHED_DB_KEY_PREFIX]);

    // A session goes through Rust as the bytes that it is.
    let key = django(
        &plain(&servers),
        "from django.contrib.sessions.backends.cache import SessionStore\n\
         session = SessionStore(); session['cart'] = ['tea', 2**70]; session.save(); print(session.session_key)",
    );
    let stored = |key: &str| KeyLayout::default().make_key(&format!("{CACHE_KEY_PREFIX}{key}"));
    let pickle = cache.get(&stored(&key)).await.unwrap().expect("Django stored it there");
    cache.set(&stored("another-key"), &pickle, MINUTE).await.unwrap();
    assert!(cache.delete(&stored(&key)).await.unwrap());
    let seen = django(
        &plain(&servers),
        &format!(
            "from django.contrib.sessions.backends.cache import SessionStore\n\
             print(SessionStore('{key}').load(), SessionStore('another-key').load())"
        ),
    );
    assert_eq!(seen, "{} {'cart': ['tea', 1180591620717411303424]}");
}
