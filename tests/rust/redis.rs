//! Redis in each of its shapes, on real servers, beside Django.

#[allow(dead_code, reason = "each test uses what it needs of it")]
mod cache_cases;
#[allow(dead_code, reason = "each test uses what it needs of it")]
mod servers;
#[path = "redis/shapes.rs"]
mod shapes;

#[path = "redis/cancellation.rs"]
mod cancellation;
mod dice;
#[path = "redis/django.rs"]
mod django;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/listing.rs"]
mod listing;
#[path = "redis/logins.rs"]
mod logins;
#[path = "redis/replicas.rs"]
mod replicas;
#[path = "redis/sessions.rs"]
mod sessions;
mod signals;
#[cfg(feature = "tls")]
#[path = "redis/tls.rs"]
mod tls;

use std::sync::Arc;
use std::time::Duration;

use ::redis::cluster::ClusterClient;
use ::redis::sentinel::{SentinelClient, SentinelServerType};
use cache_cases::*;
use django_sessions::caches::redis::{CertReqs, RedisCache, RedisSettings};
use django_sessions::caches::{Cache, CacheError, TimeLimits};
use servers::Servers;
use shapes::*;
use signals::signal;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_server_conforms() {
    let Some(servers) = Servers::start(&["redis"]) else { return };
    conforms(Arc::new(open(&one(&servers)).await)).await;
    let socket = format!("unix://{}?db=1", servers.text("redis", "socket"));
    stores_and_finds(&open(&RedisSettings::new(socket)).await).await;
}

/// Read from the primary alone: what was just written is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_with_replicas_conforms() {
    let Some(servers) = Servers::start(&["redis_replicas"]) else { return };
    let settings = RedisSettings { read_from_replicas: false, ..replicas(&servers) };
    conforms(Arc::new(open(&settings).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_conforms() {
    let Some(servers) = Servers::start(&["redis_sentinel"]) else { return };
    let settings = RedisSettings { read_from_replicas: false, ..sentinel(&servers) };
    conforms(Arc::new(open(&settings).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_conforms() {
    let Some(servers) = Servers::start(&["redis_cluster"]) else { return };
    conforms(Arc::new(open(&cluster(&servers)).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_of_the_caller_s_own_will_do() {
    let names = ["redis", "redis_sentinel", "redis_cluster"];
    let Some(servers) = Servers::start(&names) else { return };
    let client = ::redis::Client::open(servers.text("redis", "url")).unwrap();
    let manager = client.get_connection_manager().await.unwrap();
    stores_and_finds(&RedisCache::new(manager)).await;

    let nodes: Vec<_> = servers.text("redis_cluster", "urls").split(',').collect();
    let connection = ClusterClient::new(nodes).unwrap().get_async_connection().await.unwrap();
    stores_and_finds(&RedisCache::cluster(connection)).await;

    let nodes: Vec<_> =
        sentinel_ports(&servers).iter().map(|port| format!("redis://127.0.0.1:{port}")).collect();
    let client = SentinelClient::build(nodes, "mymaster", None, SentinelServerType::Master).unwrap();
    stores_and_finds(&RedisCache::sentinel(client, TimeLimits::default())).await;
}

#[tokio::test]
async fn databases_are_apart() {
    let Some(servers) = Servers::start(&["redis", "redis_sentinel", "redis_cluster"]) else { return };
    // A number in the address would win.
    let one = RedisSettings::new(servers.text("redis", "url").trim_end_matches("/0"));
    let watched = RedisSettings {
        read_from_replicas: false,
        location: "redis://mymaster".into(),
        ..sentinel(&servers)
    };
    for settings in [one.clone(), watched] {
        let third = open(&RedisSettings { db: 3, ..settings.clone() }).await;
        let default = open(&settings).await;
        third.set("where", b"third", MINUTE).await.unwrap();
        assert_eq!(default.get("where").await.unwrap(), None);
        assert_eq!(third.get("where").await.unwrap().unwrap(), b"third");
    }
    let urls = servers.text("redis_cluster", "urls").replace("/0", "");
    assert_refused(&RedisSettings { db: 3, cluster: true, ..RedisSettings::new(urls) }, "no database but 0")
        .await;
    assert!(RedisCache::open(&RedisSettings { db: 99, ..one }).await.is_err());
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_by_a_sentence() {
    let elsewhere = || RedisSettings::new("redis://127.0.0.1:1");
    let sentinels = vec![("127.0.0.1".to_owned(), 1)];
    assert_refused(&RedisSettings::default(), "`location`").await;
    assert_refused(&RedisSettings::new("redis://a,"), "redis://").await;
    assert_refused(&RedisSettings { socket_timeout: Some(0.0), ..elsewhere() }, "`socket_timeout`").await;
    assert_refused(&RedisSettings { cluster: true, sentinels: sentinels.clone(), ..elsewhere() }, "not both")
        .await;
    assert_refused(&RedisSettings { sentinels, ..RedisSettings::new("unix:///s") }, "UNIX").await;
    assert_refused(&RedisSettings { cluster: true, ..RedisSettings::new("unix:///s") }, "UNIX").await;
}

#[test]
fn settings_are_read_in_django_s_words() {
    let read = |text: &str| serde_json::from_str::<RedisSettings>(text);
    let one = read(r#"{"location": "redis://a"}"#).unwrap();
    assert!(one.read_from_replicas && one.ssl_check_hostname && one.sentinels.is_empty() && !one.cluster);
    assert_eq!(one.format, django_sessions::caches::format::Format::django());

    let full = read(
        r#"{"location": ["redis://:hunter2@a", {"env": "HOME"}], "username": "u", "password": "hunter2",
            "db": 3, "socket_timeout": 1, "socket_connect_timeout": 0.5, "ssl_cert_reqs": "none",
            "ssl_ca_certs": "/ca", "sentinels": [["b", 26379]], "service_name": "mymaster",
            "sentinel_kwargs": {"password": {"env": "HOME"}, "ssl": true},
            "format": {"serializer": "json"}}"#,
    )
    .unwrap();
    assert_eq!((full.db, full.socket_timeout, full.ssl_cert_reqs), (3, Some(1.0), CertReqs::None));
    assert_eq!(full.sentinels, [("b".to_owned(), 26379)]);
    let home = std::env::var("HOME").unwrap();
    assert_eq!(full.sentinel_kwargs.password.as_ref().unwrap().expose(), home);
    let shown = format!("{full:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(&home), "{shown}");

    for (text, named) in [
        (r#"{"locatoin": "redis://a"}"#, "locatoin"),
        (r#"{"location": 7}"#, "an address"),
        (r#"{"location": {"env": "NO_SUCH_VARIABLE"}}"#, "NO_SUCH_VARIABLE is not set"),
        (r#"{"location": [{"env": "NO_SUCH_VARIABLE"}]}"#, "NO_SUCH_VARIABLE is not set"),
        (r#"{"ssl_cert_reqs": "maybe"}"#, "maybe"),
        (r#"{"sentinel_kwargs": {"db": 1}}"#, "db"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// On a server that another cache used before.
async fn stores_and_finds_again(cache: &dyn Cache) {
    cache.delete("a").await.unwrap();
    stores_and_finds(cache).await;
}

async fn assert_refused(settings: &RedisSettings, named: &str) {
    let error = RedisCache::open(settings).await.unwrap_err();
    assert!(matches!(error, CacheError::Settings(_)), "{error:?}");
    assert!(error.to_string().contains(named), "{error}");
}
