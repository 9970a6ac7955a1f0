//! TLS: whom we trust, and what we show.

use std::process::Command;

use serde_json::json;

use super::*;

const NAME: &str = "redis+tls";
const WATCHED: &str = "redis_sentinel+tls";
const CLUSTER: &str = "redis_cluster+tls";

/// With our authority and our certificate.
fn ours(servers: &Servers, name: &str, settings: RedisSettings) -> RedisSettings {
    let file = |detail| Some(servers.text(name, detail).into());
    RedisSettings {
        ssl_ca_certs: file("ca_certs"),
        ssl_certfile: file("certfile"),
        ssl_keyfile: file("keyfile"),
        ..settings
    }
}

fn settings(servers: &Servers) -> RedisSettings {
    ours(servers, NAME, RedisSettings::new(servers.text(NAME, "url")))
}

fn watched(servers: &Servers) -> RedisSettings {
    let mut settings = ours(servers, WATCHED, sentinel_of(servers, WATCHED));
    settings.location = "rediss://mymaster/0".into();
    settings.read_from_replicas = false;
    let kwargs = &mut settings.sentinel_kwargs;
    kwargs.ssl = true;
    kwargs.ssl_ca_certs.clone_from(&settings.ssl_ca_certs);
    kwargs.ssl_certfile.clone_from(&settings.ssl_certfile);
    kwargs.ssl_keyfile.clone_from(&settings.ssl_keyfile);
    settings
}

fn of_cluster(servers: &Servers) -> RedisSettings {
    ours(servers, CLUSTER, cluster_of(servers, CLUSTER))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tls_conforms() {
    let Some(servers) = Servers::start(&[NAME]) else { return };
    conforms(Arc::new(open(&settings(&servers)).await)).await;
    let url = format!(
        "{}?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        servers.text(NAME, "url"),
        servers.text(NAME, "ca_certs"),
        servers.text(NAME, "certfile"),
        servers.text(NAME, "keyfile"),
    );
    stores_and_finds_again(&open(&RedisSettings::new(url)).await).await;
}

/// How often one of the watched servers was. TLS is not for its socket.
fn asked_for_values(servers: &Servers, number: usize) -> u64 {
    gets_of(&format!("unix://{}", servers.sockets(WATCHED)[number]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinel_over_tls_conforms() {
    let Some(servers) = Servers::start(&[WATCHED]) else { return };
    let settings = watched(&servers);
    conforms(Arc::new(open(&settings).await)).await;
    // The way to a replica, too.
    let reads_replicas = open(&RedisSettings { read_from_replicas: true, ..settings }).await;
    let start = std::time::Instant::now();
    let asked = || asked_for_values(&servers, 1);
    let before = asked();
    while asked() == before {
        assert!(start.elapsed() < Duration::from_secs(5), "no replica was read");
        reads_replicas.get("key").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn django_redis_agrees_with_sentinel_over_tls() {
    let Some(servers) = Servers::start(&[WATCHED]) else { return };
    let settings = watched(&servers);
    let tls = json!({
        "ssl": true,
        "ssl_ca_certs": servers.text(WATCHED, "ca_certs"),
        "ssl_certfile": servers.text(WATCHED, "certfile"),
        "ssl_keyfile": servers.text(WATCHED, "keyfile"),
    });
    let caches = json!({"default": {
        "BACKEND": "django_redis.cache.RedisCache",
        // Of `rediss:` redis-py makes connections that ask no sentinel.
        "LOCATION": "redis://mymaster/0",
        "OPTIONS": {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": &settings.sentinels,
            "SENTINEL_KWARGS": &tls,
            "CONNECTION_POOL_KWARGS": &tls,
        },
    }});
    django::agrees(&caches, &settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_over_tls_conforms() {
    let Some(servers) = Servers::start(&[CLUSTER]) else { return };
    conforms(Arc::new(open(&of_cluster(&servers)).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_talked_to() {
    let Some(servers) = Servers::start(&[NAME]) else { return };
    let good = settings(&servers);
    let other_authority =
        RedisSettings { ssl_ca_certs: Some(servers.text(NAME, "other_ca_certs").into()), ..good.clone() };
    let system = RedisSettings { ssl_ca_certs: None, ..good.clone() };
    let shows_nothing = RedisSettings { ssl_certfile: None, ssl_keyfile: None, ..good.clone() };
    let plain = RedisSettings::new(servers.text(NAME, "url").replace("rediss:", "redis:"));
    for (what, settings) in [
        ("another authority", &other_authority),
        ("those of the system", &system),
        ("no certificate of ours", &shows_nothing),
        ("no TLS", &plain),
    ] {
        let error = RedisCache::open(settings).await.expect_err(what);
        assert!(matches!(error, CacheError::Redis(_)), "{what}: {error:?}");
    }
    for field in ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"] {
        let mut missing = good.clone();
        let path = match field {
            "ssl_ca_certs" => &mut missing.ssl_ca_certs,
            "ssl_certfile" => &mut missing.ssl_certfile,
            _ => &mut missing.ssl_keyfile,
        };
        *path = Some("/no/such/file".into());
        assert_refused(&missing, field).await;
    }

    // Who asks for it trusts anybody.
    let trusting = RedisSettings { ssl_cert_reqs: CertReqs::None, ..other_authority.clone() };
    stores_and_finds_again(&open(&trusting).await).await;
}

/// Each of these servers, and each sentinel, is as careful as the one above, and so are we with each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_talked_to_in_groups() {
    let Some(servers) = Servers::start(&[WATCHED, CLUSTER]) else { return };
    let (watched, cluster) = (watched(&servers), of_cluster(&servers));
    for (name, good) in [(WATCHED, &watched), (CLUSTER, &cluster)] {
        let other = || Some(servers.text(name, "other_ca_certs").into());
        let mut bad = vec![
            ("another authority", RedisSettings { ssl_ca_certs: other(), ..good.clone() }),
            ("no certificate", RedisSettings { ssl_certfile: None, ssl_keyfile: None, ..good.clone() }),
        ];
        let plain = good.clone();
        if name == WATCHED {
            bad.push(("no TLS", RedisSettings { location: "redis://mymaster/0".into(), ..plain }));
            let mut of_sentinels = [good.clone(), good.clone(), good.clone()];
            of_sentinels[0].sentinel_kwargs.ssl_ca_certs = other();
            of_sentinels[1].sentinel_kwargs.ssl_certfile = None;
            of_sentinels[1].sentinel_kwargs.ssl_keyfile = None;
            of_sentinels[2].sentinel_kwargs.ssl = false;
            bad.extend(of_sentinels.map(|settings| ("a stranger to the sentinels", settings)));
        } else {
            let urls = servers.text(name, "urls").replace("rediss:", "redis:");
            bad.push(("no TLS", RedisSettings { location: urls.into(), ..plain }));
        }
        for (what, settings) in bad {
            let error = RedisCache::open(&settings).await.expect_err(what);
            assert!(matches!(error, CacheError::Redis(_)), "{name}, {what}: {error:?}");
        }
        // Who asks for it trusts anybody.
        let mut trusting =
            RedisSettings { ssl_ca_certs: other(), ssl_cert_reqs: CertReqs::None, ..good.clone() };
        trusting.sentinel_kwargs.ssl_ca_certs = other();
        trusting.sentinel_kwargs.ssl_cert_reqs = CertReqs::None;
        stores_and_finds_again(&open(&trusting).await).await;
    }
    for field in ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"] {
        let mut missing = watched.clone();
        let kwargs = &mut missing.sentinel_kwargs;
        let path = match field {
            "ssl_ca_certs" => &mut kwargs.ssl_ca_certs,
            "ssl_certfile" => &mut kwargs.ssl_certfile,
            _ => &mut kwargs.ssl_keyfile,
        };
        *path = Some("/no/such/file".into());
        assert_refused(&missing, field).await;
    }
}

/// The certificate is for the address, and not for the name that leads to it.
#[tokio::test]
async fn the_name_is_checked_unless_told_otherwise() {
    let Some(servers) = Servers::start(&[NAME]) else { return };
    let by_name = servers.text(NAME, "url").replace("127.0.0.1", "localhost");
    let checked = RedisSettings { location: by_name.into(), ..settings(&servers) };
    let error = RedisCache::open(&checked).await.unwrap_err();
    assert!(matches!(error, CacheError::Redis(_)), "{error:?}");
    let unchecked = RedisSettings { ssl_check_hostname: false, ..checked };
    stores_and_finds_again(&open(&unchecked).await).await;
    let other = Some(servers.text(NAME, "other_ca_certs").into());
    assert!(RedisCache::open(&RedisSettings { ssl_ca_certs: other, ..unchecked }).await.is_err());
}

/// Not a test of its own: cryptography is chosen once in a process, so it needs one to itself.
#[tokio::test]
#[ignore = "run by the_application_s_choice_of_cryptography_stays"]
async fn chooses_cryptography_itself() {
    let Some(servers) = Servers::start(&[NAME]) else { return };
    let mut ours = rustls::crypto::ring::default_provider();
    ours.cipher_suites.truncate(1);
    ours.install_default().unwrap();
    stores_and_finds_again(&open(&settings(&servers)).await).await;
    assert_eq!(rustls::crypto::CryptoProvider::get_default().unwrap().cipher_suites.len(), 1);
}

#[test]
fn the_application_s_choice_of_cryptography_stays() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::chooses_cryptography_itself", "--ignored"])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
}
