//! TLS: whom we trust, and what we show.

use std::process::Command;

use super::*;

const NAME: &str = "redis+tls";

fn settings(servers: &Servers) -> RedisSettings {
    let file = |detail| Some(servers.text(NAME, detail).into());
    RedisSettings {
        ssl_ca_certs: file("ca_certs"),
        ssl_certfile: file("certfile"),
        ssl_keyfile: file("keyfile"),
        ..RedisSettings::new(servers.text(NAME, "url"))
    }
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
